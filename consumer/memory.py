"""How the memory budget is shared out: half for what is in flight, half for what is remembered.

In flight is what the broker has delivered and what is not settled yet: message bodies with their
headers. Remembered is what caches hold so that it need not be made again. Each half is a bound of
its own, in bytes, so that a flood cannot push out what is remembered, nor the other way round.
"""

from dataclasses import dataclass
from typing import Final

_MEGABYTE: Final = 1024 * 1024


@dataclass(frozen=True, slots=True)
class MemoryBudget:
    """So many megabytes for both; what the process itself needs comes on top."""

    megabytes: int = 64

    @property
    def in_flight_bytes(self) -> int:
        """Return the most that deliveries may hold until they are settled."""
        return self.megabytes * _MEGABYTE // 2

    @property
    def remembered_bytes(self) -> int:
        """Return the most that all caches together may hold."""
        return self.megabytes * _MEGABYTE - self.in_flight_bytes
