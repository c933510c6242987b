"""A small disk of its own that can be filled and freed, to see what is done when it is full.

It is a tmpfs, so it needs root. Filling takes every block that is left; what has been written
before stays writable in place, as on any disk.
"""

import errno
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from deploy.lab.packages import find

_COMMAND_SECONDS: Final = 10.0
_BLOCK: Final = bytes(4096)


class SmallDisk:
    """A mounted folder with little room."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._ballast = folder / "ballast"

    def fill(self) -> None:
        """Take all the room that is left."""
        with self._ballast.open("ab", buffering=0) as ballast:
            try:
                while True:
                    ballast.write(_BLOCK)
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise

    def free(self) -> None:
        """Give back what `fill` took."""
        self._ballast.unlink()


@contextmanager
def small_disk(folder: Path, *, megabytes: int = 8) -> Iterator[SmallDisk]:
    """Mount a disk of that size at a new folder for the length of the block."""
    folder.mkdir()
    _run("mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(folder))
    try:
        yield SmallDisk(folder)
    finally:
        # Lazily: whoever still has a file open there keeps nobody from going on.
        _run("umount", "-l", str(folder))


def _run(program: str, *words: str) -> None:
    subprocess.run([find(program), *words], check=True, timeout=_COMMAND_SECONDS)
