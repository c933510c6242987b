"""Every Prometheus instrument, on one registry of our own.

Made once by the composition root and handed to whoever counts. Nothing happens on import, no tenant
id is ever a label, and every value of a closed label set is there from the start at 0, so that a
rate over it is right from the first event on. `METRICS` is the same list for people to read; an
instrument that is not in it cannot be made.
"""

from dataclasses import dataclass
from itertools import product
from typing import Final

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    PlatformCollector,
    ProcessCollector,
)
from prometheus_client.exposition import choose_encoder

from consumer.model import REASONS, EventKind, State

STARTUP_BUCKETS: Final = (
    *(0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0),
    *(7.5, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0, 600.0),
)
"""Seconds; close together where starts usually lie, up to a slow pull of ten minutes."""
REQUEST_BUCKETS: Final = (
    *(0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5),
    *(1.0, 2.5, 5.0, 10.0, 30.0, 60.0),
)

PHASES: Final = ("queue", "pull", "create", "start", "healthy")
OUTCOMES: Final = ("recorded", "duplicate", "stale", "dead_lettered")
TENANT_STATES: Final = (*(state.value for state in State), "pending")
EVENT_TYPES: Final = (*(kind.value for kind in EventKind), "unknown")
ACTIONS: Final = (
    *("create", "start", "stop", "remove", "rename", "adjust", "giveup", "wait", "nothing"),
)
OPERATIONS: Final = (
    *("create", "start", "kill", "remove", "rename", "update", "inspect", "list", "login"),
    *("logs", "get archive", "put archive", "image inspect", "info", "ping"),
    *("network connect", "network create", "network disconnect", "network list", "network remove"),
)
REQUEST_OUTCOMES: Final = ("ok", "refused", "unavailable")
FAULT_PARTS: Final = ("reading", "recording", "dead letters", "pass")


@dataclass(frozen=True, slots=True)
class MetricDoc:
    """What one instrument is: a line of the README's table."""

    name: str
    kind: str
    labels: tuple[str, ...]
    meaning: str


METRICS: Final = (
    MetricDoc(
        "landlord_tenant_startup_seconds",
        "histogram",
        (),
        "From the receipt of a tenant event to its container running (and healthy).",
    ),
    MetricDoc(
        "landlord_tenant_startup_phase_seconds",
        "histogram",
        ("phase",),
        "Time spent in each phase of a start; queue is all waiting for a turn.",
    ),
    MetricDoc(
        "landlord_tenant_failures_total", "counter", ("reason",), "Failures told, by reason."
    ),
    MetricDoc("landlord_tenants", "gauge", ("state",), "Tenants by the state last told."),
    MetricDoc(
        "landlord_tenant_events_total",
        "counter",
        ("type", "outcome"),
        "Tenant events by what recording them came to.",
    ),
    MetricDoc(
        "landlord_status_events_total",
        "counter",
        ("state",),
        "Status events that the broker confirmed.",
    ),
    MetricDoc(
        "landlord_dead_letters",
        "gauge",
        (),
        "Dead letters in their queue, and refused events that are not taken there yet.",
    ),
    MetricDoc(
        "landlord_faults_total",
        "counter",
        ("part",),
        "Faults of the consumer's own, by what it was at; the log has each with its place.",
    ),
    MetricDoc("landlord_outbox_pending", "gauge", (), "Status events not yet confirmed."),
    MetricDoc("landlord_outbox_oldest_seconds", "gauge", (), "Age of the oldest of them."),
    MetricDoc("landlord_passes_total", "counter", ("action",), "Decisions of passes, by action."),
    MetricDoc(
        "landlord_engine_request_seconds",
        "histogram",
        ("operation", "outcome"),
        "Requests to the container engine.",
    ),
    MetricDoc(
        "landlord_engine_start_limit",
        "gauge",
        (),
        "How many containers are made at a time; the consumer finds what the host does best.",
    ),
    MetricDoc(
        "landlord_strangers",
        "gauge",
        (),
        "Containers with our labels that this consumer did not make; they are left alone.",
    ),
    MetricDoc("landlord_engine_up", "gauge", (), "1 while the engine can be reached."),
    MetricDoc("landlord_broker_up", "gauge", (), "1 while the broker can be used."),
    MetricDoc("landlord_ledger_up", "gauge", (), "1 while the ledger can be written."),
    MetricDoc(
        "landlord_resync_seconds",
        "histogram",
        (),
        "Time to compare the engine's whole list with the ledger.",
    ),
    MetricDoc(
        "landlord_last_resync_timestamp_seconds",
        "gauge",
        (),
        "When the last resync ended (Unix time; 0 before the first).",
    ),
    MetricDoc(
        "landlord_last_engine_event_timestamp_seconds",
        "gauge",
        (),
        "When the last engine event happened (Unix time; 0 before the first).",
    ),
    MetricDoc(
        "landlord_standing_by",
        "gauge",
        (),
        "1 while another consumer does the work; engine, broker and ledger are told as 0 then.",
    ),
    MetricDoc("landlord_build_info", "gauge", ("version",), "Always 1; the version is the label."),
)
"""Everything of ours on `/metrics`, in the order of the contract."""


class Metrics:
    """The instruments, each under its name without the `landlord_` prefix."""

    def __init__(self, *, version: str) -> None:
        self.registry = CollectorRegistry()
        self.startup_seconds = self._histogram("landlord_tenant_startup_seconds", STARTUP_BUCKETS)
        self.startup_phase_seconds = self._histogram(
            "landlord_tenant_startup_phase_seconds", STARTUP_BUCKETS
        )
        self.tenant_failures = self._counter("landlord_tenant_failures_total")
        self.tenants = self._gauge("landlord_tenants")
        self.tenant_events = self._counter("landlord_tenant_events_total")
        self.status_events = self._counter("landlord_status_events_total")
        self.dead_letters = self._gauge("landlord_dead_letters")
        self.faults = self._counter("landlord_faults_total")
        self.outbox_pending = self._gauge("landlord_outbox_pending")
        self.outbox_oldest_seconds = self._gauge("landlord_outbox_oldest_seconds")
        self.passes = self._counter("landlord_passes_total")
        self.engine_request_seconds = self._histogram(
            "landlord_engine_request_seconds", REQUEST_BUCKETS
        )
        self.engine_start_limit = self._gauge("landlord_engine_start_limit")
        self.strangers = self._gauge("landlord_strangers")
        self.engine_up = self._gauge("landlord_engine_up")
        self.broker_up = self._gauge("landlord_broker_up")
        self.ledger_up = self._gauge("landlord_ledger_up")
        self.resync_seconds = self._histogram("landlord_resync_seconds", REQUEST_BUCKETS)
        self.last_resync_timestamp_seconds = self._gauge("landlord_last_resync_timestamp_seconds")
        self.last_engine_event_timestamp_seconds = self._gauge(
            "landlord_last_engine_event_timestamp_seconds"
        )
        self.standing_by = self._gauge("landlord_standing_by")
        self.build_info = self._gauge("landlord_build_info")
        self._start_at_zero(version)
        for collector in (ProcessCollector, PlatformCollector, GCCollector):
            collector(registry=self.registry)

    def observe_phase(self, phase: str, seconds: float) -> None:
        """Take in what one of `PHASES` took."""
        self.startup_phase_seconds.labels(phase=phase).observe(seconds)

    def content_type(self, accept: str) -> str:
        """Return that of the format that Accept asks for; there are a few."""
        return choose_encoder(accept)[1]

    def render(self, accept: str) -> tuple[bytes, str]:
        """Return all samples and their content type, in the format that Accept asks for."""
        encode, content_type = choose_encoder(accept)
        return encode(self.registry), content_type

    def _start_at_zero(self, version: str) -> None:
        for reason in sorted(REASONS[State.FAILED]):
            self.tenant_failures.labels(reason=reason.value)
        for phase in PHASES:
            self.startup_phase_seconds.labels(phase=phase)
        for tenant_state in TENANT_STATES:
            self.tenants.labels(state=tenant_state)
        for state in State:
            self.status_events.labels(state=state.value)
        for action in ACTIONS:
            self.passes.labels(action=action)
        for kind, outcome in product(EVENT_TYPES, OUTCOMES):
            self.tenant_events.labels(type=kind, outcome=outcome)
        for operation, outcome in product(OPERATIONS, REQUEST_OUTCOMES):
            self.engine_request_seconds.labels(operation=operation, outcome=outcome)
        self._start_rare_ones_at_zero()
        self.build_info.labels(version=version).set(1)

    def _start_rare_ones_at_zero(self) -> None:
        for part in FAULT_PARTS:
            self.faults.labels(part=part)

    def _counter(self, name: str) -> Counter:
        doc = _doc(name)
        return Counter(name, doc.meaning, doc.labels, registry=self.registry)

    def _gauge(self, name: str) -> Gauge:
        doc = _doc(name)
        return Gauge(name, doc.meaning, doc.labels, registry=self.registry)

    def _histogram(self, name: str, buckets: tuple[float, ...]) -> Histogram:
        doc = _doc(name)
        return Histogram(name, doc.meaning, doc.labels, registry=self.registry, buckets=buckets)


def _doc(name: str) -> MetricDoc:
    return next(doc for doc in METRICS if doc.name == name)
