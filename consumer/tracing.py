"""One trace for each tenant event: its receipt, the passes for it, what they ask, what is told.

The parts know nothing of it: what they are given is wrapped here, by the composition root. The
trace goes on where the recorded `traceparent` says, so it survives a crash with the ledger. Where
nothing is traced, everything is handed back as it was, and no library of it is imported.
"""

from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from enum import Enum, auto
from typing import Final, Protocol

from typing_extensions import override

from consumer.messages import DeadLetter, Delivery
from consumer.model import OutboxEntry, Tenant, TenantEvent, TenantId
from consumer.ports import Publisher

Decode = Callable[[Delivery], TenantEvent]
Reconcile = Callable[[TenantId], Awaitable[float | None]]
Read = Callable[[TenantId], Awaitable[Tenant | None]]
Observe = Callable[[str, str, float], None]
ObservePhase = Callable[[str, float], None]


class Side(Enum):
    """Which side of a message a span stands on."""

    RECEIVES = auto()
    WITHIN = auto()
    SENDS = auto()


class Spans(Protocol):
    """Where spans go. No method raises, whatever becomes of what is told."""

    def span(
        self, name: str, *, side: Side, parent: str | None, **attributes: str
    ) -> AbstractContextManager[str | None]:
        """Have a span for the length of the block, below this `traceparent` or at the root.

        Gives the `traceparent` of the span. An exception that leaves the block is its outcome.
        """
        ...

    def past(self, name: str, seconds: float, **attributes: str) -> None:
        """Tell of what took so long until now, if it was within a block of ours."""
        ...


class Traces:
    """Wraps what the parts are given, if there is somewhere for spans to go."""

    def __init__(self, spans: Spans | None) -> None:
        self._spans = spans

    def decode(self, decode: Decode) -> Decode:
        """Have each valid event's trace begin, or go on, with its receipt."""
        spans = self._spans
        if spans is None:
            return decode

        def traced(delivery: Delivery) -> TenantEvent:
            event = decode(delivery)
            with spans.span(
                f"receive {event.kind.value}",
                side=Side.RECEIVES,
                parent=event.traceparent,
                tenant_id=event.tenant_id,
                event_id=event.event_id or "",
            ) as traceparent:
                return replace(event, traceparent=traceparent)

        return traced

    def reconcile(self, reconcile: Reconcile, read: Read) -> Reconcile:
        """Have a pass in the trace of the event that it is for; a mere look is in none."""
        spans = self._spans
        if spans is None:
            return reconcile

        async def traced(tenant_id: TenantId) -> float | None:
            tenant = await read(tenant_id)
            if tenant is None or (tenant.is_answered and tenant.setback is None):
                return await reconcile(tenant_id)
            with spans.span(
                "pass", side=Side.WITHIN, parent=tenant.traceparent, tenant_id=tenant_id
            ):
                return await reconcile(tenant_id)

        return traced

    def observe(self, observe: Observe) -> Observe:
        """Have each request to the engine in the pass that makes it."""
        spans = self._spans
        if spans is None:
            return observe

        def traced(operation: str, outcome: str, seconds: float) -> None:
            observe(operation, outcome, seconds)
            spans.past(f"engine {operation}", seconds, outcome=outcome)

        return traced

    def observe_phase(self, observe: ObservePhase) -> ObservePhase:
        """Have each phase of a start in the pass that makes it; of a pull, the pass that began it.

        Others that wait for the same pull have no span of it.
        """
        spans = self._spans
        if spans is None:
            return observe

        def traced(phase: str, seconds: float) -> None:
            observe(phase, seconds)
            spans.past(f"phase {phase}", seconds)

        return traced

    def publisher(self, publisher: Publisher) -> Publisher:
        """Have each status event carry the trace on."""
        return publisher if self._spans is None else _TracedPublisher(publisher, self._spans)


UNTRACED: Final = Traces(None)


class _TracedPublisher(Publisher):
    def __init__(self, publisher: Publisher, spans: Spans) -> None:
        self._publisher = publisher
        self._spans = spans

    @override
    async def publish_status(self, entry: OutboxEntry) -> None:
        with self._spans.span(
            f"send tenant.status.{entry.state.value}",
            side=Side.SENDS,
            parent=entry.traceparent,
            tenant_id=entry.tenant_id,
        ) as traceparent:
            await self._publisher.publish_status(replace(entry, traceparent=traceparent))

    @override
    async def publish_dead_letter(self, letter: DeadLetter) -> None:
        await self._publisher.publish_dead_letter(letter)

    @override
    async def count_dead_letters(self) -> int:
        return await self._publisher.count_dead_letters()
