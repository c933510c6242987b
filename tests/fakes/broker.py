"""A broker in memory: both ports, deliveries that remember their settlement, confirms on demand.

Confirming is the default; it can also be away, refuse what is about a tenant, lose the confirm of
what has arrived, or hang until it is released. One journal keeps what happened, in order.
"""

import asyncio
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from consumer.errors import BrokerError, MessageRefused
from consumer.messages import DeadLetter, Delivery
from consumer.model import OutboxEntry, TenantId

_DEADLINE_SECONDS = 10.0


class Mode(StrEnum):
    """What becomes of a publish."""

    CONFIRM = "confirm"
    AWAY = "away"
    LOSE_CONFIRM = "lose confirm"
    HANG = "hang"
    FULL = "full"
    """The dead-letter queue refuses; status events pass."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A line of the journal: `status`, `dead letter` or `ack`, of what."""

    what: str
    of: str


class FakeBroker:
    """See `ports.Deliveries` and `ports.Publisher` for the promises; the rest is for tests."""

    def __init__(self, mode: Mode = Mode.CONFIRM) -> None:
        self.mode = mode
        self.refused_tenants: set[TenantId] = set()
        """Whose status events are refused, whatever the mode."""
        self.refused_tags: set[int] = set()
        """Whose dead letters are refused, whatever the mode."""
        self.broken_tags: set[int] = set()
        """Over whose dead letters the adapter fails by what nobody foresaw."""
        self.slow_tenants: dict[TenantId, float] = {}
        """After how many seconds a status event of theirs is confirmed; never, if infinite."""
        self.journal: list[Entry] = []
        self.arrived: list[OutboxEntry] = []
        """Status events that reached the broker, confirmed or not."""
        self.dead_letters: list[DeadLetter] = []
        """Dead letters that were confirmed."""
        self.let_go: list[Delivery] = []
        """What was acknowledged, of whatever session."""
        self.tries = 0
        """How often something was published, with whatever outcome."""
        self._waiting: deque[Delivery] = deque()
        self._unsettled: dict[int, Delivery] = {}
        self._has_news = asyncio.Event()
        self._is_stopped = False
        self.released = asyncio.Event()
        """Set it to end a hang."""

    # --- for tests

    def deliver(self, *deliveries: Delivery) -> None:
        """Have these arrive."""
        self._waiting.extend(deliveries)
        self._has_news.set()

    def stop_taking(self) -> None:
        """Have no more batches after those that have arrived."""
        self._is_stopped = True
        self._has_news.set()

    def reconnect(self) -> None:
        """Lose the session: what is unsettled will be delivered again, in a new one."""
        again = [*self._unsettled.values(), *self._waiting]
        self._unsettled.clear()
        self._waiting = deque(
            replace(delivery, session=delivery.session + 1, redelivered=True) for delivery in again
        )

    @property
    def has_deliveries(self) -> bool:
        """Whether something waits to be taken or to be settled."""
        return bool(self._waiting or self._unsettled)

    @property
    def unsettled(self) -> list[int]:
        """The tags of what was taken and is not acknowledged."""
        return sorted(self._unsettled)

    # --- the way in

    async def next_batch(self, *, limit: int) -> list[Delivery]:
        """Wait for deliveries; none once taking has stopped."""
        while not self._waiting and not self._is_stopped:
            self._has_news.clear()
            await self._has_news.wait()
        batch = [self._waiting.popleft() for _ in range(min(limit, len(self._waiting)))]
        self._unsettled.update((delivery.tag, delivery) for delivery in batch)
        return batch

    async def ack(self, deliveries: Sequence[Delivery]) -> None:
        """Acknowledge these and no others."""
        self.let_go += deliveries
        for delivery in sorted(deliveries, key=lambda it: it.tag):
            taken = self._unsettled.get(delivery.tag)
            if taken is not None and taken.session == delivery.session:
                del self._unsettled[delivery.tag]
                self.journal.append(Entry("ack", str(delivery.tag)))

    # --- the way out

    async def publish_status(self, entry: OutboxEntry) -> None:
        """Publish a status event."""
        self.tries += 1
        await asyncio.sleep(0)
        if (seconds := self.slow_tenants.get(entry.tenant_id)) is not None:
            await self._wait_in_vain(seconds)
        if entry.tenant_id in self.refused_tenants:
            raise MessageRefused("landlord.status takes no message: nack")
        await self._refuse_or_hang()
        self.arrived.append(entry)
        self.journal.append(Entry("status", f"{entry.tenant_id} {entry.sequence}"))
        self._lose_confirm()

    @staticmethod
    async def _wait_in_vain(seconds: float) -> None:
        """Wait for a confirm; a deadline of ten seconds is over before some."""
        await asyncio.sleep(min(seconds, _DEADLINE_SECONDS))
        if seconds > _DEADLINE_SECONDS:
            raise BrokerError("no answer within 10 s")

    async def publish_dead_letter(self, letter: DeadLetter) -> None:
        """Publish to the dead-letter exchange."""
        self.tries += 1
        if letter.delivery.tag in self.broken_tags:
            raise KeyError(letter.delivery.tag)
        if self.mode is Mode.FULL or letter.delivery.tag in self.refused_tags:
            raise MessageRefused("landlord.dead-letter takes no message: nack")
        await self._refuse_or_hang()
        self._lose_confirm()
        self.dead_letters.append(letter)
        self.journal.append(Entry("dead letter", str(letter.delivery.tag)))

    async def count_dead_letters(self) -> int:
        """Return how many lie in their queue."""
        await self._refuse_or_hang()
        return len(self.dead_letters)

    async def _refuse_or_hang(self) -> None:
        if self.mode is Mode.AWAY:
            raise BrokerError("not connected")
        if self.mode is Mode.HANG:
            await self.released.wait()

    def _lose_confirm(self) -> None:
        if self.mode is Mode.LOSE_CONFIRM:
            raise BrokerError("the connection was lost before the confirm")
