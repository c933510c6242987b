"""The relay: status events go from the ledger to the broker, in order for each tenant.

An entry is marked sent only after the broker's confirm, so each is published at least once. Tenants
go side by side, each as fast as its own confirms come: one whose confirm is slow, or that is
refused (a subscriber's queue is full), waits alone. Within a tenant the next entry waits for the
confirm of the one before, so that no subscriber sees a later one first. A broker that is away holds
everybody, and is tried by one tenant at a time. Before it come the commits of reconciler and
intake.
"""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from itertools import groupby
from typing import Final

import structlog
from typing_extensions import override

from consumer.clock import Clock
from consumer.errors import BrokerError, LedgerError, MessageRefused
from consumer.metrics import Metrics
from consumer.model import OutboxEntry, TenantId
from consumer.ports import Ledger, Publisher

_log: Final = structlog.get_logger(__name__)

_MOST_AT_A_TIME: Final = 8
"""Of one tenant's entries: however many it has, they take little memory and keep nobody waiting."""


class Outbox:
    """Publishes what was committed."""

    def __init__(  # noqa: PLR0913 - the outside is a constructor argument
        self,
        *,
        ledger: Ledger,
        publisher: Publisher,
        metrics: Metrics,
        clock: Clock,
        batch_size: int = 500,
        retry_seconds: float = 0.2,
        most_retry_seconds: float = 5.0,
        look_seconds: float = 5.0,
    ) -> None:
        self._ledger = ledger
        self._publisher = publisher
        self._metrics = metrics
        self._clock = clock
        self._batch_size = batch_size
        self._retry_seconds = retry_seconds
        self._most_retry_seconds = most_retry_seconds
        self._look_seconds = look_seconds
        self._refused: dict[TenantId, float] = {}
        """Tenants whose last try came to nothing, and the delay after the next such one."""
        self._held: set[TenantId] = set()
        """Those of them whose delay is not over."""
        self._under_way: set[TenantId] = set()
        """Tenants of whom something is being published, or was and is not marked yet."""
        self._done: list[TenantId] = []
        """Those of them whose entries are to be marked."""
        self._sent: list[int] = []
        self._confirms = 0
        self._is_away = False
        self._pause: asyncio.TimerHandle | None = None
        self._delay = retry_seconds
        self._is_more = True
        """Whether there may be entries of tenants that are neither held nor under way."""
        self._has_work = asyncio.Event()
        self._is_empty = asyncio.Event()

    @override
    def __repr__(self) -> str:
        under_way, held = len(self._under_way), len(self._held)
        return f"<Outbox under_way={under_way} held={held} away={self._is_away}>"

    def wake(self) -> None:
        """Say that something was committed."""
        self._is_empty.clear()
        self._look_again()

    async def run(self) -> None:
        """Relay until cancelled."""
        try:
            async with asyncio.TaskGroup() as group:
                while True:
                    await self._relay(group)
                    await self._wait_for_work()
        finally:
            with suppress(LedgerError):
                await self._mark()

    async def drain(self) -> None:
        """Return when everything committed so far has been confirmed."""
        self.wake()
        await self._is_empty.wait()

    def _look_again(self) -> None:
        self._is_more = True
        self._has_work.set()

    async def _wait_for_work(self) -> None:
        try:
            async with asyncio.timeout(self._look_seconds):
                await self._has_work.wait()
        except TimeoutError:
            self._is_more = True

    async def _relay(self, group: asyncio.TaskGroup) -> None:
        """Mark what was confirmed, and publish of whoever is neither held nor under way."""
        self._has_work.clear()
        try:
            await self._mark()
            while self._is_more and self._room() > 0:
                await self._begin(group)
        except LedgerError as error:
            _log.warning("outbox waits for the ledger", error=str(error))
            self._is_more = True
            self._rest()
            return
        if not self._is_more and not self._under_way and not self._refused:
            self._is_empty.set()

    def _room(self) -> int:
        """Return how many tenants more may be under way."""
        if self._pause is not None:
            return 0
        most = 1 if self._is_away else self._batch_size
        return most - len(self._under_way)

    async def _begin(self, group: asyncio.TaskGroup) -> None:
        # What is committed from now on sets it again.
        self._is_more = False
        entries = await self._ledger.unsent(
            limit=self._batch_size, without=self._held | self._under_way
        )
        by_tenant = sorted(entries, key=lambda entry: (entry.tenant_id, entry.entry_id))
        rows = [
            (tenant_id, list(row))
            for tenant_id, row in groupby(by_tenant, key=lambda entry: entry.tenant_id)
        ]
        room = self._room()
        if len(entries) == self._batch_size or len(rows) > room:
            self._is_more = True
        for tenant_id, row in rows[:room]:
            self._under_way.add(tenant_id)
            publishing = self._publish(tenant_id, row[:_MOST_AT_A_TIME])
            group.create_task(publishing, name="relay")

    async def _mark(self) -> None:
        """Remember what was confirmed; only then its tenants may go on."""
        if not self._done and not self._sent:
            return
        done, sent = list(self._done), list(self._sent)
        if sent:
            await self._ledger.mark_sent(sent, at=self._clock.now())
        # No await from here on. What came meanwhile is left to the next time.
        del self._sent[: len(sent)]
        del self._done[: len(done)]
        self._under_way.difference_update(done)
        # They were passed over by the looks since, and may have more.
        self._is_more = True

    async def _publish(self, tenant_id: TenantId, entries: Sequence[OutboxEntry]) -> None:
        """Publish one tenant's entries, oldest first, up to the first that is not confirmed."""
        confirms = self._confirms
        try:
            for entry in entries:
                confirms = self._confirms
                await self._publisher.publish_status(entry)
                self._note_confirmed(entry)
        except MessageRefused as error:
            self._hold(tenant_id, error)
        except BrokerError as error:
            _log.debug("status event not confirmed", error=str(error))
            if self._confirms > confirms:
                self._hold(tenant_id, error)  # others were confirmed meanwhile: it is alone
            else:
                self._is_away = True
                self._rest()
        self._done.append(tenant_id)
        self._has_work.set()

    def _note_confirmed(self, entry: OutboxEntry) -> None:
        self._confirms += 1
        self._is_away = False
        self._delay = self._retry_seconds
        self._sent.append(entry.entry_id)
        self._metrics.status_events.labels(state=entry.state.value).inc()
        if self._refused.pop(entry.tenant_id, None) is not None:
            _log.info("status event taken again", tenant_id=entry.tenant_id)

    def _rest(self) -> None:
        """Begin nothing for a while."""
        if self._pause is None:
            self._pause = asyncio.get_running_loop().call_later(self._delay, self._end_rest)
            self._delay = min(self._delay * 2, self._most_retry_seconds)

    def _end_rest(self) -> None:
        self._pause = None
        self._look_again()

    def _hold(self, tenant_id: TenantId, error: BrokerError) -> None:
        delay = self._refused.get(tenant_id)
        if delay is None:
            _log.warning("status event refused", tenant_id=tenant_id, error=str(error))
            delay = self._retry_seconds
        self._refused[tenant_id] = min(delay * 2, self._most_retry_seconds)
        self._held.add(tenant_id)
        asyncio.get_running_loop().call_later(delay, self._end_hold, tenant_id)

    def _end_hold(self, tenant_id: TenantId) -> None:
        self._held.discard(tenant_id)
        self._look_again()
