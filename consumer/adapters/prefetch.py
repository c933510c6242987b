"""How many deliveries may be on their way: as many as is set, and fewer while they are large.

Prefetch counts messages, and a broker sends so many at once however large they are; one whose
sending stalls ends the connection (RabbitMQ 3.10 after half a minute, seen), and reading gigabytes
off its disk it answers nothing meanwhile. So what came too large lowers the number for the next
session, and what is small again raises it. Pure: who asks keeps the time.
"""

from dataclasses import dataclass, field
from typing import Final

_LOWERED_BY: Final = 8
"""Where nothing is known but that it was too much."""


@dataclass(slots=True)
class Prefetch:
    """At most so many messages, and at most so many bytes."""

    most: int
    most_bytes: int
    now: int = field(init=False)
    largest: int = field(default=0, init=False)
    """Of the messages that were seen lately, in bytes."""

    def __post_init__(self) -> None:
        self.now = self.most

    @property
    def _fitting(self) -> int:
        """How many of the largest fit."""
        return min(self.most, max(1, self.most_bytes // max(1, self.largest)))

    @property
    def is_too_high(self) -> bool:
        """Whether more may be on their way than fit."""
        return self.now > self._fitting

    def note(self, size: int) -> None:
        """Remember that a message of this size came."""
        self.largest = max(self.largest, size)

    def fit(self) -> None:
        """Have no more on their way than fit."""
        self.now = min(self.now, self._fitting)

    def lower(self) -> None:
        """Have fewer on their way: the broker did not get so many together in time."""
        self.now = max(1, self.now // _LOWERED_BY)

    def rise(self) -> bool:
        """Forget what was seen; return whether more may be on their way from now on."""
        fitting, self.largest = self._fitting, 0
        if fitting < 2 * self.now:
            return False
        self.now = fitting
        return True
