"""The instruments: the contract's names, from the start at 0, in both formats."""

import re
from typing import get_args

import pytest
from prometheus_client import REGISTRY

from consumer.adapters.docker_client import Operation
from consumer.metrics import (
    ACTIONS,
    METRICS,
    OPERATIONS,
    OUTCOMES,
    PHASES,
    REQUEST_OUTCOMES,
    Metrics,
)
from consumer.model import REASONS, EventKind, State
from consumer.plan import Action

CONTRACT = {
    "landlord_tenant_startup_seconds": ("histogram", ()),
    "landlord_tenant_startup_phase_seconds": ("histogram", ("phase",)),
    "landlord_tenant_failures_total": ("counter", ("reason",)),
    "landlord_tenants": ("gauge", ("state",)),
    "landlord_tenant_events_total": ("counter", ("type", "outcome")),
    "landlord_status_events_total": ("counter", ("state",)),
    "landlord_dead_letters": ("gauge", ()),
    "landlord_faults_total": ("counter", ("part",)),
    "landlord_outbox_pending": ("gauge", ()),
    "landlord_outbox_oldest_seconds": ("gauge", ()),
    "landlord_passes_total": ("counter", ("action",)),
    "landlord_engine_request_seconds": ("histogram", ("operation", "outcome")),
    "landlord_engine_start_limit": ("gauge", ()),
    "landlord_strangers": ("gauge", ()),
    "landlord_engine_up": ("gauge", ()),
    "landlord_broker_up": ("gauge", ()),
    "landlord_ledger_up": ("gauge", ()),
    "landlord_resync_seconds": ("histogram", ()),
    "landlord_last_resync_timestamp_seconds": ("gauge", ()),
    "landlord_last_engine_event_timestamp_seconds": ("gauge", ()),
    "landlord_standing_by": ("gauge", ()),
    "landlord_build_info": ("gauge", ("version",)),
}


def render(metrics: Metrics, accept: str = "") -> str:
    body, _ = metrics.render(accept)
    return body.decode()


def sample(metrics: Metrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(name, labels)


def test_the_documented_metrics_are_the_contracts() -> None:
    """METRICS has exactly the names, kinds and labels of the contract."""
    documented = {doc.name: (doc.kind, doc.labels) for doc in METRICS}

    assert documented == CONTRACT


@pytest.mark.parametrize(("name", "kind_and_labels"), CONTRACT.items())
def test_every_metric_is_exposed_with_its_kind(
    name: str, kind_and_labels: tuple[str, tuple[str, ...]]
) -> None:
    """Every metric is on the page from the start, as the kind that is documented."""
    text = render(Metrics(version="1"))

    assert f"# TYPE {name} {kind_and_labels[0]}\n" in text


def test_nothing_of_ours_is_exposed_undocumented() -> None:
    """No landlord metric is on the page that METRICS does not have."""
    text = render(Metrics(version="1"))

    exposed = set(re.findall(r"^# TYPE (landlord_\S+) ", text, re.MULTILINE))
    assert {name for name in exposed if not name.endswith("_created")} == set(CONTRACT)


@pytest.mark.parametrize("reason", sorted(REASONS[State.FAILED]))
def test_every_failed_reason_starts_at_zero(reason: str) -> None:
    """Every reason a tenant can fail for is there at 0 before the first failure."""
    assert sample(Metrics(version="1"), "landlord_tenant_failures_total", reason=reason) == 0


def test_other_closed_labels_start_at_zero() -> None:
    """States, event types with their outcomes, phases and actions are there at 0."""
    metrics = Metrics(version="1")

    found = [
        *(sample(metrics, "landlord_tenants", state=s) for s in (*State, "pending")),
        *(sample(metrics, "landlord_status_events_total", state=s) for s in State),
        *(
            sample(metrics, "landlord_tenant_events_total", type=kind, outcome=outcome)
            for kind in (*EventKind, "unknown")
            for outcome in OUTCOMES
        ),
        *(
            sample(metrics, "landlord_tenant_startup_phase_seconds_count", phase=phase)
            for phase in PHASES
        ),
        *(sample(metrics, "landlord_passes_total", action=action) for action in ACTIONS),
        *(
            sample(
                metrics,
                "landlord_engine_request_seconds_count",
                operation=operation,
                outcome=outcome,
            )
            for operation in OPERATIONS
            for outcome in REQUEST_OUTCOMES
        ),
    ]

    assert set(found) == {0.0}


def test_the_actions_are_those_of_the_plan() -> None:
    """The action label has a value for every action that the plan can decide on."""
    assert set(ACTIONS) == {action.__name__.lower() for action in Action.__args__}


def test_the_operations_are_those_of_the_engines_client() -> None:
    """The operation label has a value for everything that is asked while there is work to do.

    Volumes are asked for by the lease alone, which is not measured.
    """
    asked = {name for name in get_args(Operation) if not name.startswith("volume ")}

    assert set(OPERATIONS) == asked


def test_startups_of_one_to_five_seconds_are_told_apart() -> None:
    """The startup buckets go from 50 ms to 10 minutes, with several from 1 to 5 s."""
    text = render(Metrics(version="1"))
    pattern = r'landlord_tenant_startup_seconds_bucket\{le="([\d.]+)"\}'
    bounds = [float(bound) for bound in re.findall(pattern, text)]

    assert (bounds[0], bounds[-1]) == (0.05, 600.0)
    assert len([bound for bound in bounds if 1 <= bound <= 5]) >= 5


def test_build_tells_the_version() -> None:
    """The build metric is 1 for the version given."""
    assert sample(Metrics(version="1.2.3"), "landlord_build_info", version="1.2.3") == 1


def test_the_process_is_measured_too() -> None:
    """Memory, file descriptors and garbage collections of the process are on the same page."""
    text = render(Metrics(version="1"))

    for name in ("process_resident_memory_bytes", "process_open_fds", "python_gc_collections"):
        assert f"\n{name}" in text


def test_registries_are_separate_and_never_the_global_one() -> None:
    """Two sets of instruments count apart, and nothing lands on the library's global registry."""
    first, second = Metrics(version="1"), Metrics(version="1")

    first.passes.labels(action="create").inc()

    assert sample(first, "landlord_passes_total", action="create") == 1
    assert sample(second, "landlord_passes_total", action="create") == 0
    assert REGISTRY.get_sample_value("landlord_passes_total", {"action": "create"}) is None


@pytest.mark.parametrize(
    ("accept", "content_type", "last_line"),
    [
        ("", "text/plain; version=0.0.4; charset=utf-8", None),
        ("*/*", "text/plain; version=0.0.4; charset=utf-8", None),
        (
            "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5",
            "application/openmetrics-text; version=1.0.0; charset=utf-8",
            "# EOF",
        ),
    ],
)
def test_the_format_is_what_was_asked_for(
    accept: str, content_type: str, last_line: str | None
) -> None:
    """Prometheus text by default, OpenMetrics when the Accept header asks for it."""
    body, told = Metrics(version="1").render(accept)

    assert told.startswith(content_type)
    assert (body.decode().splitlines()[-1] == "# EOF") is (last_line is not None)
