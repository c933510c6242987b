"""The file that a database was opened from: whether it is still the one at its path.

SQLite goes on with a file that was removed, or replaced by another, as if nothing had happened: all
that is committed from then on is gone with the process. So it is looked at before each commit.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Self

from consumer.errors import LedgerError


@dataclass(frozen=True, slots=True)
class LedgerFile:
    """A file by its path and by what it is, whatever its path."""

    path: Path
    device: int
    number: int

    @classmethod
    def at(cls, path: Path) -> Self:
        """Return the file that is there now. Raises OSError."""
        place = path.absolute()
        there = place.stat()
        return cls(place, there.st_dev, there.st_ino)

    def check(self) -> None:
        """Raise LedgerError unless it is where it was."""
        try:
            there = self.path.stat()
        except FileNotFoundError:
            raise LedgerError(f"the ledger's file was removed: {self.path}") from None
        if (there.st_dev, there.st_ino) != (self.device, self.number):
            raise LedgerError(f"the ledger's file was replaced by another: {self.path}")
