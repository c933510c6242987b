"""A batch of deliveries becomes recorded intentions, is settled, and wakes its tenants.

A delivery is acknowledged only after its intention is committed to the ledger, or after the broker
has confirmed its dead letter. While neither can be had, intake stops taking and keeps what it has
unacknowledged; it never gives a delivery back to be tried again. In a flood the tenants of whom
nothing new is wanted get their answers once it has been taken in, or after a few seconds; whoever
is to be changed goes at once. Before it comes the broker adapter, after it the dispatcher.
"""

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import structlog

from consumer.errors import BrokerError, Fault, InvalidMessage, LedgerError
from consumer.messages import DeadLetter, Delivery, dead_letter_headers, event_type, tracing
from consumer.metrics import Metrics
from consumer.model import EventId, EventKind, Reason, Refusal, TenantEvent, TenantId, Verdict
from consumer.ports import Deliveries, Ledger, Publisher, Recorded

_log: Final = structlog.get_logger(__name__)

_FLOOD_SHARE: Final = 0.25
"""A batch that is filled to this share, or so many to be answered, mean that more are coming."""
_LULL_SECONDS: Final = 0.3
"""After so long without a batch a flood has ended."""
_MOST_PUT_OFF_SECONDS: Final = 10.0


class Wake(Protocol):
    """Gives a tenant a pass soon; `overtake` cancels the one that is running."""

    def __call__(self, tenant_id: TenantId, *, overtake: bool = False) -> None: ...


@dataclass(slots=True)
class _Sorted:
    """A batch, decoded: what to record, and what to dead-letter."""

    entries: list[TenantEvent | Refusal]
    kinds: list[str]
    letters: list[DeadLetter]


class Intake:
    """Takes tenant events in."""

    def __init__(  # noqa: PLR0913 - the outside is a constructor argument
        self,
        *,
        deliveries: Deliveries,
        publisher: Publisher,
        ledger: Ledger,
        decode: Callable[[Delivery], Awaitable[TenantEvent]],
        wake: Wake,
        on_commit: Callable[[], None],
        metrics: Metrics,
        batch_size: int = 200,
        retry_seconds: float = 0.5,
        most_retry_seconds: float = 10.0,
    ) -> None:
        self._deliveries = deliveries
        self._publisher = publisher
        self._ledger = ledger
        self._decode = decode
        self._wake = wake
        self._on_commit = on_commit
        self._metrics = metrics
        self._batch_size = batch_size
        self._retry_seconds = retry_seconds
        self._most_retry_seconds = most_retry_seconds
        self._unchanged: dict[TenantId, None] = {}
        """Who is to be answered, and nothing more."""
        self._unchanged_since = 0.0
        self._lull: asyncio.TimerHandle | None = None

    async def run(self) -> None:
        """Take batches until there are no more: taking has stopped, and the last one is settled."""
        while batch := await self._deliveries.next_batch(limit=self._batch_size):
            self._end_lull()
            await self._settle(batch)
            # A busy loop takes a flood in small batches too.
            most = max(len(batch), len(self._unchanged))
            self._wake_or_put_off(is_flood=most >= _FLOOD_SHARE * self._batch_size)
        self._end_lull()
        self._wake_unchanged()

    async def _settle(self, batch: Sequence[Delivery]) -> None:
        """See every delivery of the batch settled: recorded, duplicate, stale or dead-lettered."""
        parts = await self._sort(batch)
        recorded = await self._record(parts.entries)
        self._wake_tenants(parts, recorded)
        await self._dead_letter_all(parts.letters)
        await self._deliveries.ack_through(batch[-1])

    async def _sort(self, batch: Sequence[Delivery]) -> _Sorted:
        parts = _Sorted([], [], [])
        for delivery in batch:
            try:
                event = await self._decode_safely(delivery)
            except InvalidMessage as error:
                self._refuse(delivery, error, parts)
            else:
                parts.entries.append(event)
                parts.kinds.append(event.kind.value)
        return parts

    async def _decode_safely(self, delivery: Delivery) -> TenantEvent:
        try:
            return await self._decode(delivery)
        except InvalidMessage:
            raise
        except Exception as error:  # noqa: BLE001 - one delivery's trouble stays its own
            # A fault of ours over one delivery must not block the queue. The error's own words may
            # hold values of the document, so only its kind is told.
            fault = Fault("", f"cannot be read ({type(error).__name__})")
            raise InvalidMessage(Reason.INVALID_EVENT, (fault,)) from None

    def _refuse(self, delivery: Delivery, error: InvalidMessage, parts: _Sorted) -> None:
        _log.warning(
            "tenant event refused",
            tenant_id=error.tenant_id,
            event_id=error.event_id,
            reason=error.reason,
            faults=[str(fault) for fault in error.faults],
        )
        headers = dead_letter_headers(error, delivery.received_at)
        parts.letters.append(DeadLetter(delivery=delivery, headers=headers))
        kind = _known_type(delivery)
        self._metrics.tenant_events.labels(type=kind, outcome="dead_lettered").inc()
        if error.tenant_id is None:
            return
        correlation_id, traceparent = tracing(delivery)
        parts.kinds.append(kind)
        parts.entries.append(
            Refusal(
                tenant_id=TenantId(error.tenant_id),
                received_at=delivery.received_at,
                reason=Reason(error.reason),
                message=str(error),
                event_id=EventId(error.event_id) if error.event_id is not None else None,
                correlation_id=correlation_id,
                traceparent=traceparent,
            )
        )

    async def _record(self, entries: Sequence[TenantEvent | Refusal]) -> list[Recorded]:
        if not entries:
            return []
        delay = self._retry_seconds
        has_failed = False
        while True:
            try:
                recorded = await self._ledger.record(entries)
            except LedgerError as error:
                if not has_failed:
                    _log.error("intake waits for the ledger", error=str(error))
                has_failed = True
            else:
                if has_failed:
                    _log.info("intake goes on")
                if any(isinstance(entry, Refusal) for entry in entries):
                    self._on_commit()  # of tenant events themselves nothing is told
                return recorded
            await asyncio.sleep(delay)
            delay = min(delay * 2, self._most_retry_seconds)

    def _wake_tenants(self, parts: _Sorted, recorded: Sequence[Recorded]) -> None:
        for entry, kind, outcome in zip(parts.entries, parts.kinds, recorded, strict=True):
            if isinstance(entry, Refusal):
                if outcome.verdict is Verdict.RECORDED:
                    reason = entry.reason.value
                    self._metrics.tenant_failures.labels(reason=reason).inc()
                continue
            verdict = outcome.verdict
            self._metrics.tenant_events.labels(type=kind, outcome=verdict.value).inc()
            if verdict is Verdict.RECORDED and outcome.changes_intention:
                self._unchanged.pop(outcome.tenant_id, None)
                self._wake(outcome.tenant_id, overtake=True)
            elif verdict is Verdict.RECORDED:
                self._put_off(outcome.tenant_id)

    def _put_off(self, tenant_id: TenantId) -> None:
        if not self._unchanged:
            self._unchanged_since = asyncio.get_running_loop().time()
        self._unchanged[tenant_id] = None

    def _wake_or_put_off(self, *, is_flood: bool) -> None:
        loop = asyncio.get_running_loop()
        if is_flood and loop.time() - self._unchanged_since < _MOST_PUT_OFF_SECONDS:
            self._lull = loop.call_later(_LULL_SECONDS, self._wake_unchanged)
        else:
            self._wake_unchanged()

    def _end_lull(self) -> None:
        if self._lull is not None:
            self._lull.cancel()

    def _wake_unchanged(self) -> None:
        unchanged, self._unchanged = self._unchanged, {}
        for tenant_id in unchanged:
            self._wake(tenant_id)

    async def _dead_letter_all(self, letters: Sequence[DeadLetter]) -> None:
        """See all of them confirmed, side by side, so that a flood soon lets the next ones in."""
        in_turn: defaultdict[object, list[DeadLetter]] = defaultdict(list)
        for letter in letters:
            # Two on their way with the same message id could be taken for each other.
            in_turn[letter.delivery.message_id or letter.delivery.tag].append(letter)
        async with asyncio.TaskGroup() as group:
            for row in in_turn.values():
                group.create_task(self._dead_letter_in_turn(row), name="dead letter")

    async def _dead_letter_in_turn(self, letters: Sequence[DeadLetter]) -> None:
        for letter in letters:
            await self._dead_letter(letter)

    async def _dead_letter(self, letter: DeadLetter) -> None:
        delay = self._retry_seconds
        while True:
            try:
                await self._publisher.publish_dead_letter(letter)
            except BrokerError as error:
                _log.warning("dead letter not confirmed", error=str(error))
            else:
                return
            await asyncio.sleep(delay)
            delay = min(delay * 2, self._most_retry_seconds)


def _known_type(delivery: Delivery) -> str:
    kind = event_type(delivery)
    return kind if kind in {member.value for member in EventKind} else "unknown"
