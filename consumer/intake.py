"""A batch of deliveries becomes recorded intentions, is settled, and wakes its tenants.

A delivery is acknowledged only after its intention is committed to the ledger; what is refused is
handed over to be dead-lettered, and acknowledged once that is confirmed. While the ledger cannot be
had, intake stops taking and keeps what it has unacknowledged; it never gives a delivery back to be
tried again. A fault of ours over one event is told as ours: it is logged and counted, and the event
is set aside as a dead letter with the reason `internal_error` when it fails again and again. The
tries follow one another at once, so that what comes after it stays after it. In a flood the tenants
of whom nothing new is wanted get their answers once it has been taken in, or after a few seconds;
whoever is to be changed goes at once. Before it comes the broker adapter, after it the dispatcher.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final, Protocol

import structlog

from consumer.errors import Fault, InvalidMessage, LedgerError, LedgerFault, LedgerUnanswered
from consumer.faults import trace_of
from consumer.intention import MISSING
from consumer.messages import DeadLetter, Delivery, dead_letter_headers, event_type, tracing
from consumer.metrics import Metrics
from consumer.model import EventId, EventKind, Reason, Refusal, TenantEvent, TenantId, Verdict
from consumer.ports import Deliveries, Ledger, Recorded

_log: Final = structlog.get_logger(__name__)

_FLOOD_SHARE: Final = 0.25
"""A batch that is filled to this share, or so many to be answered, mean that more are coming."""
_LULL_SECONDS: Final = 0.3
"""After so long without a batch a flood has ended."""
_MOST_PUT_OFF_SECONDS: Final = 10.0
_MOST_READING_SECONDS: Final = 0.1
"""Then what was read is recorded: many small ones share a commit, costly ones cost none other."""
_TRIES: Final = 3
"""Of an event that we fail over."""

Entry = TenantEvent | Refusal


class Wake(Protocol):
    """Gives a tenant a pass soon; `overtake` cancels the one that is running."""

    def __call__(self, tenant_id: TenantId, *, overtake: bool = False) -> None: ...


@dataclass(frozen=True, slots=True)
class _Read:
    """A delivery as it was read: what to record of it, and under which type it is counted."""

    delivery: Delivery
    entry: Entry
    kind: str


@dataclass(slots=True)
class _Sorted:
    """Deliveries that were read: what to record, and what to dead-letter."""

    taken: list[Delivery]
    read: list[_Read]
    letters: list[DeadLetter]


class Intake:
    """Takes tenant events in."""

    def __init__(  # noqa: PLR0913 - the outside is a constructor argument
        self,
        *,
        deliveries: Deliveries,
        dead_letter: Callable[[Sequence[DeadLetter]], Awaitable[None]],
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
        self._dead_letter = dead_letter
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
            await self._settle(batch)
            # Only now: who was put off does not wait for a batch that has to wait.
            self._end_lull()
            # A busy loop takes a flood in small batches too.
            most = max(len(batch), len(self._unchanged))
            batch.clear()  # it is settled, and the next one may be long in coming
            self._wake_or_put_off(is_flood=most >= _FLOOD_SHARE * self._batch_size)
        self._end_lull()
        self._wake_unchanged()

    async def _settle(self, batch: Sequence[Delivery]) -> None:
        """See every delivery of the batch settled, or handed over to be dead-lettered.

        In turns: who has been read does not wait for all that is costly to read behind it.
        """
        left = deque(batch)
        while left:
            parts = await self._sort(left)
            for read, recorded in await self._record(parts):
                self._note_recorded(read, recorded, parts)
            refused = {letter.delivery.tag for letter in parts.letters}
            await self._deliveries.ack([it for it in parts.taken if it.tag not in refused])
            if parts.letters:
                await self._dead_letter(parts.letters)

    async def _sort(self, left: deque[Delivery]) -> _Sorted:
        """Read the first of them, as many as can be read soon."""
        parts = _Sorted([], [], [])
        loop = asyncio.get_running_loop()
        until = loop.time() + _MOST_READING_SECONDS
        while left and (not parts.taken or loop.time() < until):
            delivery = left.popleft()
            parts.taken.append(delivery)
            try:
                event = await self._decode_safely(delivery)
            except InvalidMessage as error:
                self._refuse(delivery, error, parts)
            else:
                parts.read.append(_Read(delivery, event, event.kind.value))
        return parts

    async def _decode_safely(self, delivery: Delivery) -> TenantEvent:
        tries = 0
        while True:
            try:
                return await self._decode(delivery)
            except InvalidMessage:
                raise
            except Exception as fault:  # noqa: BLE001 - one delivery's trouble stays its own
                tries += 1
                if tries == _TRIES:
                    self._tell_fault("reading", fault, event_id=delivery.message_id)
                    raise _internal_error(fault, event_id=delivery.message_id) from None

    def _tell_fault(self, part: str, fault: Exception, **about: str | None) -> None:
        self._metrics.faults.labels(part=part).inc()
        _log.error("fault of ours", part=part, error=trace_of(fault), **about)

    def _put_aside(self, delivery: Delivery, error: InvalidMessage, parts: _Sorted) -> None:
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

    def _refuse(self, delivery: Delivery, error: InvalidMessage, parts: _Sorted) -> None:
        self._put_aside(delivery, error, parts)
        if error.tenant_id is None:
            return
        correlation_id, traceparent = tracing(delivery)
        refusal = Refusal(
            tenant_id=TenantId(error.tenant_id),
            received_at=delivery.received_at,
            reason=Reason(error.reason),
            message=str(error),
            event_id=EventId(error.event_id) if error.event_id is not None else None,
            correlation_id=correlation_id,
            traceparent=traceparent,
        )
        parts.read.append(_Read(delivery, refusal, _known_type(delivery)))

    async def _record(self, parts: _Sorted) -> list[tuple[_Read, Recorded]]:
        """Record what was read, together; what we fail over is set aside, and alone."""
        try:
            return await self._record_together(parts.read)
        except LedgerFault:
            recorded: list[tuple[_Read, Recorded]] = []
            for read in tuple(parts.read):
                recorded += await self._record_alone(read, parts)
            return recorded

    async def _record_alone(self, read: _Read, parts: _Sorted) -> list[tuple[_Read, Recorded]]:
        tries = 0
        while True:
            try:
                return await self._record_together([read])
            except LedgerFault as fault:
                tries += 1
                if tries == _TRIES:
                    return await self._set_aside(read, fault, parts)

    async def _set_aside(
        self, read: _Read, fault: LedgerFault, parts: _Sorted
    ) -> list[tuple[_Read, Recorded]]:
        """Dead-letter what cannot be recorded, and tell its tenant, if that can be recorded."""
        entry = read.entry
        self._tell_fault("recording", fault, tenant_id=entry.tenant_id, event_id=entry.event_id)
        if isinstance(entry, Refusal):
            return []  # it is dead-lettered as it is; only its tenant cannot be told
        error = _internal_error(fault, tenant_id=entry.tenant_id, event_id=entry.event_id)
        self._refuse(read.delivery, error, parts)
        return await self._record_alone(parts.read[-1], parts)

    async def _record_together(self, read: Sequence[_Read]) -> list[tuple[_Read, Recorded]]:
        if not read:
            return []
        entries = [it.entry for it in read]
        recorded = await self._commit(entries)
        is_told = any(it.verdict is Verdict.MISSING for it in recorded)
        if is_told or any(isinstance(entry, Refusal) for entry in entries):
            self._on_commit()  # of tenant events themselves nothing is told
        return list(zip(read, recorded, strict=True))

    async def _commit(self, entries: Sequence[Entry]) -> list[Recorded]:
        """Record these, however long the ledger is away. Raises LedgerFault alone."""
        delay = self._retry_seconds
        has_failed = is_unsure = False
        while True:
            try:
                recorded = await self._ledger.record(entries)
            except LedgerFault:
                raise
            except LedgerError as error:
                if not has_failed:
                    _log.error("intake waits for the ledger", error=str(error))
                has_failed = True
                is_unsure = is_unsure or isinstance(error, LedgerUnanswered)
            else:
                if has_failed:
                    _log.info("intake goes on")
                return _as_changes(recorded) if is_unsure else recorded
            await asyncio.sleep(delay)
            delay = min(delay * 2, self._most_retry_seconds)

    def _note_recorded(self, read: _Read, recorded: Recorded, parts: _Sorted) -> None:
        verdict = recorded.verdict
        if isinstance(read.entry, Refusal):
            if verdict is Verdict.RECORDED:
                self._metrics.tenant_failures.labels(reason=read.entry.reason.value).inc()
            return
        if verdict is Verdict.MISSING:
            # Its tenant has been told, by the ledger: only there is seen who is known.
            self._metrics.tenant_failures.labels(reason=Reason.INVALID_EVENT.value).inc()
            ids = {"tenant_id": recorded.tenant_id, "event_id": read.entry.event_id}
            error = InvalidMessage(Reason.INVALID_EVENT, (MISSING,), **ids)
            self._put_aside(read.delivery, error, parts)
            return
        self._metrics.tenant_events.labels(type=read.kind, outcome=verdict.value).inc()
        if recorded.changes_intention:
            self._unchanged.pop(recorded.tenant_id, None)
            self._wake(recorded.tenant_id, overtake=True)
        elif verdict is Verdict.RECORDED:
            self._put_off(recorded.tenant_id)

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


def _as_changes(recorded: Sequence[Recorded]) -> list[Recorded]:
    """Return them as to be acted upon: an earlier try may be what these are duplicates of."""
    return [replace(it, changes_intention=True) for it in recorded]


def _internal_error(
    fault: Exception, *, tenant_id: str | None = None, event_id: str | None = None
) -> InvalidMessage:
    """Return the refusal of what we failed over; the words of a fault may hold values."""
    kind = type(fault.__cause__ or fault).__name__
    rule = f"a fault of the consumer's own ({kind}); the event may be good, and was set aside"
    return InvalidMessage(
        Reason.INTERNAL_ERROR, (Fault("", rule),), tenant_id=tenant_id, event_id=event_id
    )


def _known_type(delivery: Delivery) -> str:
    kind = event_type(delivery)
    return kind if kind in {member.value for member in EventKind} else "unknown"
