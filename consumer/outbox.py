"""The relay: status events go from the ledger to the broker, in order for each tenant.

An entry is marked sent only after the broker's confirm, so each is published at least once. Tenants
go side by side; within a tenant the next entry waits for the confirm of the one before, so that no
subscriber sees a later one first. A message that the broker refuses (a subscriber's queue is full)
holds its tenant alone; a broker that is away holds everybody. Before it come the commits of
reconciler and intake.
"""

import asyncio
from collections.abc import Callable, Sequence
from datetime import datetime
from itertools import groupby
from typing import Final

import structlog

from consumer.errors import BrokerError, LedgerError, MessageRefused
from consumer.metrics import Metrics
from consumer.model import OutboxEntry, TenantId
from consumer.ports import Ledger, Publisher

_log: Final = structlog.get_logger(__name__)


class Outbox:
    """Publishes what was committed."""

    def __init__(  # noqa: PLR0913 - the outside is a constructor argument
        self,
        *,
        ledger: Ledger,
        publisher: Publisher,
        metrics: Metrics,
        now: Callable[[], datetime],
        batch_size: int = 500,
        retry_seconds: float = 0.2,
        most_retry_seconds: float = 5.0,
        look_seconds: float = 5.0,
    ) -> None:
        self._ledger = ledger
        self._publisher = publisher
        self._metrics = metrics
        self._now = now
        self._batch_size = batch_size
        self._retry_seconds = retry_seconds
        self._most_retry_seconds = most_retry_seconds
        self._look_seconds = look_seconds
        self._refused: dict[TenantId, float] = {}
        """Tenants whose last try was refused, and the delay after the next refusal."""
        self._held: set[TenantId] = set()
        """Those of them whose delay is not over."""
        self._has_work = asyncio.Event()
        self._is_empty = asyncio.Event()

    def wake(self) -> None:
        """Say that something was committed."""
        self._is_empty.clear()
        self._has_work.set()

    async def run(self) -> None:
        """Relay until cancelled."""
        delay = self._retry_seconds
        while True:
            self._has_work.clear()
            try:
                is_broker_there = await self._relay()
            except LedgerError as error:
                _log.warning("outbox waits for the ledger", error=str(error))
                is_broker_there = False
            if not is_broker_there:
                await asyncio.sleep(delay)
                delay = min(delay * 2, self._most_retry_seconds)
                continue
            delay = self._retry_seconds
            await self._wait_for_work()

    async def drain(self) -> None:
        """Return when everything committed so far has been confirmed."""
        self.wake()
        await self._is_empty.wait()

    async def _wait_for_work(self) -> None:
        try:
            async with asyncio.timeout(self._look_seconds):
                await self._has_work.wait()
        except TimeoutError:
            return

    async def _relay(self) -> bool:
        """Publish whatever is not held; return whether the broker answered for all of it."""
        is_more = True
        while is_more:
            entries = await self._ledger.unsent(limit=self._batch_size, without=self._held)
            # What is committed from now on wakes us again.
            is_more = len(entries) == self._batch_size
            sent: list[int] = []
            by_tenant = sorted(entries, key=lambda entry: (entry.tenant_id, entry.entry_id))
            try:
                async with asyncio.TaskGroup() as group:
                    relays = [
                        group.create_task(self._publish(tenant_id, list(row), sent), name="relay")
                        for tenant_id, row in groupby(by_tenant, key=lambda entry: entry.tenant_id)
                    ]
            finally:
                if sent:
                    await self._ledger.mark_sent(sent, at=self._now())
            if not all(relay.result() for relay in relays):
                return False
        if not self._refused and not self._has_work.is_set():
            self._is_empty.set()
        return True

    async def _publish(
        self, tenant_id: TenantId, entries: Sequence[OutboxEntry], sent: list[int]
    ) -> bool:
        """Publish one tenant's entries, oldest first, up to the first that is not confirmed.

        Returns whether the broker said yes or no to each that was tried.
        """
        for entry in entries:
            try:
                await self._publisher.publish_status(entry)
            except MessageRefused as error:
                self._hold(tenant_id, error)
                return True
            except BrokerError as error:
                _log.debug("status event not confirmed", error=str(error))
                return False
            sent.append(entry.entry_id)
            self._metrics.status_events.labels(state=entry.state.value).inc()
            self._note_confirmed(tenant_id)
        return True

    def _hold(self, tenant_id: TenantId, error: MessageRefused) -> None:
        delay = self._refused.get(tenant_id)
        if delay is None:
            _log.warning("status event refused", tenant_id=tenant_id, error=str(error))
            delay = self._retry_seconds
        self._refused[tenant_id] = min(delay * 2, self._most_retry_seconds)
        self._held.add(tenant_id)
        asyncio.get_running_loop().call_later(delay, self._end_hold, tenant_id)

    def _end_hold(self, tenant_id: TenantId) -> None:
        self._held.discard(tenant_id)
        self._has_work.set()

    def _note_confirmed(self, tenant_id: TenantId) -> None:
        if self._refused.pop(tenant_id, None) is not None:
            _log.info("status event taken again", tenant_id=tenant_id)
