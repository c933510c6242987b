"""Which acks settle some deliveries of a session and no others: as few as AMQP allows.

One ack settles every earlier delivery too, if that is asked of it; where an earlier one is not
settled yet, each has to be acknowledged by itself. An ack has to name a delivery that the broker
still waits for: one that names a settled one ends the channel. Pure: who sends them has to keep
their order.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple


class Ack(NamedTuple):
    """An ack of this delivery, or of it and every earlier one."""

    tag: int
    is_through: bool


@dataclass(slots=True)
class Settled:
    """What of a session is settled; its tags begin at 1 and have no gaps."""

    through: int = 0
    """This one and every earlier one is."""
    beyond: set[int] = field(default_factory=set)
    """These are too, and an earlier one is not."""

    def add(self, tags: Iterable[int]) -> list[Ack]:
        """Take these as settled; return the acks that say so. What is settled is passed over."""
        fresh = {tag for tag in tags if tag > self.through and tag not in self.beyond}
        self.beyond |= fresh
        while self.through + 1 in self.beyond:
            self.through += 1
            self.beyond.remove(self.through)
        last = max((tag for tag in fresh if tag <= self.through), default=None)
        alone = [Ack(tag, is_through=False) for tag in sorted(fresh) if tag > self.through]
        return alone if last is None else [Ack(last, is_through=True), *alone]
