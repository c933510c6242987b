"""One trace for each tenant event, which goes on where the ledger says."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from consumer.adapters.open_telemetry import OpenTelemetry
from consumer.document import SpecDefaults
from consumer.messages import Delivery, decode_tenant_event
from consumer.model import OutboxEntry, Reason, Setback, State, Tenant, TenantEvent, TenantId
from consumer.settings import tracing_variable
from consumer.tracing import UNTRACED, Traces
from tests.builders import make_tenant
from tests.fakes.broker import FakeBroker

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = f"00-{TRACE}-00f067aa0ba902b7-01"
MOMENT = datetime(2026, 11, 24, 10, 0, tzinfo=UTC)
DELIVERY = Delivery(
    body=b'{"tenant_id": "acme-corp"}',
    tag=1,
    session=1,
    received_at=MOMENT,
    routing_key="tenant.deleted",
    headers={"traceparent": PARENT},
    properties={},
)


class Collected:
    """Traces, and the spans that ended."""

    def __init__(self) -> None:
        self._exporter = InMemorySpanExporter()
        self._spans = OpenTelemetry(SimpleSpanProcessor(self._exporter), version="1.2.3")
        self.traces = Traces(self._spans)

    @property
    def spans(self) -> dict[str, ReadableSpan]:
        return {span.name: span for span in self._exporter.get_finished_spans()}

    def parent_of(self, name: str) -> str:
        parent = self.spans[name].parent
        return f"00-{parent.trace_id:032x}-{parent.span_id:016x}-01" if parent else ""

    def place_of(self, name: str) -> str:
        place = self.spans[name].context
        return f"00-{place.trace_id:032x}-{place.span_id:016x}-{place.trace_flags:02x}"


def decode(delivery: Delivery) -> TenantEvent:
    return decode_tenant_event(delivery, SpecDefaults())


async def read(tenant: Tenant | None) -> Tenant | None:
    return tenant


def test_the_receipt_goes_on_with_the_events_trace_and_is_what_is_recorded() -> None:
    """The span is below the sender's, and its own place is the traceparent from then on."""
    collected = Collected()

    event = collected.traces.decode(decode)(DELIVERY)

    name = "receive tenant.deleted"
    assert collected.parent_of(name) == PARENT
    assert event.traceparent == collected.place_of(name)
    assert collected.spans[name].kind is SpanKind.CONSUMER
    assert dict(collected.spans[name].attributes or {}) == {"landlord.tenant_id": "acme-corp"}


@pytest.mark.parametrize("traceparent", [None, "nonsense", f"00-{'0' * 32}-{'0' * 16}-01"])
def test_an_event_without_a_usable_trace_begins_one(traceparent: str | None) -> None:
    """There is a trace for it all the same, and nothing fails."""
    collected = Collected()
    headers = {"traceparent": traceparent} if traceparent else {}

    event = collected.traces.decode(decode)(replace(DELIVERY, headers=headers))

    assert collected.parent_of("receive tenant.deleted") == ""
    assert event.traceparent == collected.place_of("receive tenant.deleted")


@pytest.mark.parametrize(
    "tenant",
    [
        make_tenant(traceparent=PARENT, revision=2, answered_revision=1),
        make_tenant(
            traceparent=PARENT,
            revision=2,
            answered_revision=2,
            setback=Setback(1, Reason.START_FAILED, "no", MOMENT),
        ),
    ],
    ids=["unanswered", "retry"],
)
async def test_a_pass_and_its_requests_are_in_the_events_trace(tenant: Tenant) -> None:
    """The pass is below what was recorded, each request to the engine below the pass."""
    collected = Collected()
    observed: list[str] = []
    phases: list[str] = []
    observe = collected.traces.observe(
        lambda operation, _outcome, _seconds: observed.append(operation)
    )

    observe_phase = collected.traces.observe_phase(lambda phase, _: phases.append(phase))

    async def reconcile(_: TenantId) -> float | None:
        observe_phase("pull", 2.0)
        observe("start", "refused", 0.25)
        return 4.0

    traced = collected.traces.reconcile(reconcile, lambda _: read(tenant))

    assert await traced(tenant.tenant_id) == 4.0
    assert collected.parent_of("pass") == PARENT
    assert collected.parent_of("engine start") == collected.place_of("pass")
    span = collected.spans["engine start"]
    assert (span.end_time or 0) - (span.start_time or 0) == 250_000_000
    assert dict(span.attributes or {}) == {"landlord.outcome": "refused"}
    assert collected.parent_of("phase pull") == collected.place_of("pass")
    assert (observed, phases) == (["start"], ["pull"])


@pytest.mark.parametrize(
    "tenant", [None, make_tenant(traceparent=PARENT, answered_revision=1)], ids=["none", "answered"]
)
async def test_a_mere_look_is_in_no_trace(tenant: Tenant | None) -> None:
    """A resync leaves no spans, nor do its requests, nor those outside of any pass."""
    collected = Collected()
    observe = collected.traces.observe(lambda *_: None)

    async def reconcile(_: TenantId) -> None:
        observe("inspect", "ok", 0.1)

    await collected.traces.reconcile(reconcile, lambda _: read(tenant))(TenantId("acme-corp"))
    observe("list", "ok", 0.1)

    assert collected.spans == {}


async def test_a_pass_that_fails_says_so_and_fails_all_the_same() -> None:
    """The exception is the span's outcome and goes on to the caller."""
    collected = Collected()
    tenant = make_tenant(traceparent=PARENT, revision=2, answered_revision=1)

    async def reconcile(_: TenantId) -> None:
        raise RuntimeError("no")

    with pytest.raises(RuntimeError, match="no"):
        await collected.traces.reconcile(reconcile, lambda _: read(tenant))(tenant.tenant_id)

    assert collected.spans["pass"].status.status_code is StatusCode.ERROR


async def test_a_status_event_carries_the_trace_on() -> None:
    """The span is below what was recorded, and its own place is what a subscriber gets."""
    collected = Collected()
    publisher = FakeBroker()
    entry = OutboxEntry(
        entry_id=1,
        tenant_id=TenantId("acme-corp"),
        sequence=7,
        state=State.RUNNING,
        body="{}",
        created_at=MOMENT,
        correlation_id=None,
        traceparent=PARENT,
    )

    await collected.traces.publisher(publisher).publish_status(entry)

    name = "send tenant.status.running"
    assert collected.parent_of(name) == PARENT
    assert [sent.traceparent for sent in publisher.arrived] == [collected.place_of(name)]
    assert collected.spans[name].kind is SpanKind.PRODUCER


def test_where_nothing_is_traced_everything_is_as_it_was() -> None:
    """Nothing is wrapped."""
    traces, publisher = UNTRACED, FakeBroker()

    async def reconcile(_: TenantId) -> None:
        return None

    def observe_phase(_phase: str, _seconds: float) -> None:
        return None

    def observe(_operation: str, _outcome: str, _seconds: float) -> None:
        return None

    assert traces.decode(decode) is decode
    assert traces.reconcile(reconcile, lambda _: read(None)) is reconcile
    assert traces.observe(observe) is observe
    assert traces.observe_phase(observe_phase) is observe_phase
    assert traces.publisher(publisher) is publisher


@pytest.mark.parametrize(
    ("environ", "variable"),
    [
        ({}, None),
        ({"OTEL_SERVICE_NAME": "x"}, None),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": ""}, None),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://a:4318"}, "OTEL_EXPORTER_OTLP_ENDPOINT"),
        (
            {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://a:4318/v1/traces"},
            "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
        ),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://a", "OTEL_SDK_DISABLED": "True"}, None),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://a", "OTEL_TRACES_EXPORTER": "none"}, None),
    ],
)
def test_traces_are_asked_for_by_the_librarys_own_variables(
    environ: dict[str, str], variable: str | None
) -> None:
    """An endpoint asks for them, unless the library is told to be off."""
    assert tracing_variable(environ) == variable
