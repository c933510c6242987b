"""When something is news, and how it is told."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from consumer.finding import Finding
from consumer.model import (
    REASONS,
    BoundPort,
    Container,
    ContainerId,
    ContainerStatus,
    Desired,
    EventKind,
    Health,
    PortMapping,
    Reason,
    Setback,
    State,
    Status,
    Tenant,
    Transport,
)
from consumer.status import differences, named_ports, report, tell
from tests.builders import make_container, make_spec, make_status, make_tenant

NOW = datetime(2026, 11, 24, 10, 0, 5, tzinfo=UTC)
RUN = make_container()
NEXT_RUN = replace(RUN, started_at=NOW)
ANOTHER = replace(RUN, container_id=ContainerId("another"))
SPEC = make_spec()
NEW_SPEC = make_spec(env=(("A", "1"),))


def up(container: Container = RUN, reason: Reason = Reason.UNCHANGED) -> Finding:
    """Return the finding that the container runs."""
    return Finding(state=State.RUNNING, reason=reason, message="it runs", container=container)


def failed(reason: Reason, container: Container | None = RUN) -> Finding:
    """Return the finding of a failure."""
    return Finding(state=State.FAILED, reason=reason, message="it failed", container=container)


def stopped(reason: Reason, container: Container | None = None) -> Finding:
    """Return the finding that nothing runs."""
    return Finding(state=State.STOPPED, reason=reason, message="it stopped", container=container)


def last(state: State, reason: Reason, container: Container | None = RUN) -> Status:
    """Return what was told last."""
    return make_status(state=state, reason=reason, container=report(container))


RAN = last(State.RUNNING, Reason.STARTED)
ASKED = make_tenant()
AT_REST = make_tenant(answered_revision=1, applied=SPEC, status=RAN)

ROLLED_BACK = replace(AT_REST, status=last(State.RUNNING, Reason.ROLLED_BACK))


@pytest.mark.parametrize(
    ("tenant", "finding", "reason"),
    [
        pytest.param(ASKED, up(), Reason.STARTED, id="created"),
        pytest.param(
            replace(ASKED, applied=SPEC, status=RAN), up(), Reason.UNCHANGED, id="created again"
        ),
        pytest.param(
            replace(ASKED, applied=SPEC, status=RAN, spec=NEW_SPEC),
            up(ANOTHER),
            Reason.UPDATED,
            id="updated",
        ),
        pytest.param(
            replace(ASKED, applied=SPEC, status=RAN, spec=NEW_SPEC),
            up(reason=Reason.ROLLED_BACK),
            Reason.ROLLED_BACK,
            id="update rolled back",
        ),
        pytest.param(
            replace(ASKED, kind=EventKind.RESUMED, applied=SPEC, status=RAN),
            up(),
            Reason.UNCHANGED,
            id="resumed what runs",
        ),
        pytest.param(
            replace(
                ASKED,
                kind=EventKind.RESUMED,
                applied=SPEC,
                status=last(State.STOPPED, Reason.SUSPENDED),
            ),
            up(NEXT_RUN),
            Reason.RESUMED,
            id="resumed",
        ),
        pytest.param(
            replace(ASKED, kind=None, spec=None, answered_revision=1),
            up(),
            Reason.ADOPTED,
            id="adopted",
        ),
        pytest.param(
            replace(ASKED, status=last(State.RUNNING, Reason.ADOPTED)),
            up(),
            Reason.UNCHANGED,
            id="adopted, and the document asks for the same",
        ),
        pytest.param(
            replace(ASKED, status=last(State.RUNNING, Reason.ADOPTED)),
            up(ANOTHER),
            Reason.UPDATED,
            id="adopted, and the document asks for another container",
        ),
        pytest.param(
            replace(
                ASKED, answered_revision=1, status=last(State.FAILED, Reason.PORT_CONFLICT, None)
            ),
            up(),
            Reason.STARTED,
            id="a later try succeeded",
        ),
        pytest.param(AT_REST, up(), None, id="at rest"),
        pytest.param(AT_REST, up(NEXT_RUN), Reason.RESTARTED, id="restarted"),
        pytest.param(
            replace(AT_REST, status=last(State.FAILED, Reason.MISSING, None)),
            up(ANOTHER),
            Reason.RESTARTED,
            id="made again",
        ),
        pytest.param(
            replace(AT_REST, status=last(State.FAILED, Reason.UNHEALTHY)),
            up(),
            Reason.HEALTHY,
            id="healthy again",
        ),
        pytest.param(
            replace(AT_REST, status=last(State.STOPPED, Reason.STOPPED_EXTERNALLY)),
            up(),
            Reason.RESTARTED,
            id="unpaused",
        ),
        pytest.param(
            replace(AT_REST, status=last(State.FAILED, Reason.CRASH_LOOP)),
            up(),
            Reason.RESTARTED,
            id="loop over",
        ),
        pytest.param(
            replace(AT_REST, status=last(State.FAILED, Reason.ENGINE_UNAVAILABLE)),
            up(),
            Reason.UNCHANGED,
            id="engine back",
        ),
        pytest.param(
            replace(ROLLED_BACK, setback=Setback(1, Reason.PORT_CONFLICT, "8080", NOW)),
            up(reason=Reason.ROLLED_BACK),
            None,
            id="rollback told already",
        ),
        pytest.param(
            replace(ROLLED_BACK, setback=Setback(2, Reason.PORT_CONFLICT, "8080", NOW)),
            up(reason=Reason.ROLLED_BACK),
            Reason.ROLLED_BACK,
            id="second try of the update failed",
        ),
        pytest.param(AT_REST, failed(Reason.EXITED), Reason.EXITED, id="died"),
        pytest.param(
            replace(AT_REST, status=last(State.FAILED, Reason.EXITED)),
            failed(Reason.EXITED),
            None,
            id="death told already",
        ),
        pytest.param(
            replace(AT_REST, status=last(State.FAILED, Reason.EXITED)),
            failed(Reason.EXITED, NEXT_RUN),
            Reason.EXITED,
            id="died again",
        ),
        pytest.param(
            replace(AT_REST, status=last(State.FAILED, Reason.CRASH_LOOP)),
            failed(Reason.CRASH_LOOP, NEXT_RUN),
            None,
            id="still the same loop",
        ),
        pytest.param(
            replace(AT_REST, status=last(State.FAILED, Reason.MISSING, None)),
            failed(Reason.MISSING, None),
            None,
            id="absence told already",
        ),
        pytest.param(
            replace(
                AT_REST,
                status=last(State.FAILED, Reason.PORT_CONFLICT, None),
                setback=Setback(2, Reason.PORT_CONFLICT, "8080", NOW),
            ),
            failed(Reason.PORT_CONFLICT, None),
            Reason.PORT_CONFLICT,
            id="second try failed",
        ),
        pytest.param(
            replace(
                AT_REST,
                status=last(State.FAILED, Reason.ENGINE_UNAVAILABLE, None),
                setback=Setback(2, Reason.ENGINE_UNAVAILABLE, "away", NOW),
            ),
            failed(Reason.ENGINE_UNAVAILABLE, None),
            None,
            id="engine still away",
        ),
        pytest.param(
            replace(ASKED, status=last(State.FAILED, Reason.CRASH_LOOP)),
            failed(Reason.CRASH_LOOP),
            Reason.CRASH_LOOP,
            id="an answer is always told",
        ),
        pytest.param(
            replace(ASKED, desired=Desired.DELETED, status=RAN),
            stopped(Reason.DELETED),
            Reason.DELETED,
            id="deleted",
        ),
        pytest.param(
            replace(ASKED, desired=Desired.DELETED, status=None),
            stopped(Reason.DELETED),
            Reason.DELETED,
            id="deleted what never was",
        ),
        pytest.param(
            replace(
                ASKED,
                desired=Desired.DELETED,
                status=last(State.STOPPED, Reason.DELETED, None),
            ),
            stopped(Reason.DELETED),
            Reason.UNCHANGED,
            id="deleted twice",
        ),
        pytest.param(
            replace(ASKED, desired=Desired.DELETED, status=last(State.STOPPED, Reason.SUSPENDED)),
            stopped(Reason.DELETED),
            Reason.DELETED,
            id="deleted while suspended",
        ),
        pytest.param(
            replace(ASKED, desired=Desired.STOPPED, status=last(State.STOPPED, Reason.SUSPENDED)),
            stopped(Reason.SUSPENDED, RUN),
            Reason.UNCHANGED,
            id="suspended twice",
        ),
        pytest.param(
            replace(AT_REST, status=last(State.FAILED, Reason.EXITED)),
            failed(Reason.OOM_KILLED),
            Reason.OOM_KILLED,
            id="fails otherwise",
        ),
        pytest.param(
            replace(
                ASKED, kind=EventKind.RESUMED, status=last(State.STOPPED, Reason.SUSPENDED, None)
            ),
            up(),
            Reason.RESUMED,
            id="resumed before it ever ran",
        ),
        pytest.param(AT_REST, Finding(state=None, container=RUN), None, id="too early to say"),
    ],
)
def test_tell(tenant: Tenant, finding: Finding, reason: Reason | None) -> None:
    """Each row tells its reason, or nothing; every reason goes with its state."""
    status = tell(tenant, finding, NOW, since_receipt=1.5)

    assert (status.reason if status else None) == reason
    assert status is None or status.reason in REASONS[status.state]


def test_an_answer_carries_the_event_and_its_startup_time() -> None:
    """The answer to an event names it and says how long the start took since its receipt."""
    tenant = make_tenant(generation=7)

    status = tell(tenant, up(), NOW, since_receipt=1.5)

    assert status is not None
    assert (status.event_id, status.generation) == ("event-1", 7)
    assert status.startup_seconds == pytest.approx(1.5)
    assert status.message == "container started in 1.50 s"


def test_a_restart_has_no_startup_time() -> None:
    """A restart long after the event does not claim to have taken that long."""
    status = tell(AT_REST, up(NEXT_RUN), NOW, since_receipt=1.5)

    assert status is not None
    assert status.startup_seconds is None


def test_an_update_names_what_it_changed() -> None:
    """The changes of an update are the names of the differing fields."""
    tenant = make_tenant(applied=SPEC, spec=NEW_SPEC, status=RAN)

    status = tell(tenant, up(ANOTHER), NOW, since_receipt=1.5)

    assert status is not None
    assert status.changes == ("env",) == differences(SPEC, NEW_SPEC)


def test_a_failure_says_when_it_is_tried_again() -> None:
    """Attempt and next attempt are told with the failure."""
    later = NOW + timedelta(seconds=4)
    tenant = make_tenant(setback=Setback(3, Reason.IMAGE_PULL_FAILED, "no route", later))

    status = tell(tenant, failed(Reason.IMAGE_PULL_FAILED, None), NOW, since_receipt=1.5)

    assert status is not None
    assert (status.will_retry, status.attempt, status.next_attempt_at) == (True, 3, later)


def test_the_next_try_is_told_after_what_is_told() -> None:
    """A try that is due already is told as due at once, not in the past."""
    due = Setback(3, Reason.IMAGE_PULL_FAILED, "no route", NOW - timedelta(hours=1))

    status = tell(
        replace(ASKED, setback=due), failed(Reason.IMAGE_PULL_FAILED, None), NOW, since_receipt=0
    )

    assert status is not None
    assert status.next_attempt_at is not None
    assert status.next_attempt_at > status.occurred_at


def test_a_failure_for_good_says_so() -> None:
    """What is not tried again says that it is not."""
    tenant = make_tenant(setback=Setback(1, Reason.START_FAILED, "no such file", None))

    status = tell(tenant, failed(Reason.START_FAILED, None), NOW, since_receipt=1.5)

    assert status is not None
    assert (status.will_retry, status.next_attempt_at) == (False, None)


def test_ports_carry_the_names_that_the_tenant_gave() -> None:
    """The engine's ports get their names back, by container port, protocol and host port."""
    spec = make_spec(
        ports=(
            PortMapping(80, 8080, name="http"),
            PortMapping(80, 8081, name="http-too"),
            PortMapping(53, protocol=Transport.UDP, name="dns"),
        )
    )
    bound = (
        BoundPort(80, Transport.TCP, "0.0.0.0", 8080),
        BoundPort(80, Transport.TCP, "0.0.0.0", 8081),
        BoundPort(53, Transport.UDP),
        BoundPort(9, Transport.TCP),
    )
    container = make_container(ports=bound, status=ContainerStatus.RUNNING, health=Health.NONE)

    names = [port.name for port in named_ports(spec, container)]

    assert names == ["http", "http-too", "dns", None]


def test_of_a_range_that_an_image_exposes_the_first_are_told() -> None:
    """And all that the tenant asked for, or that is published."""
    exposed = tuple(BoundPort(number, Transport.UDP) for number in range(1, 20_001))
    bound = (*exposed, BoundPort(20_001, Transport.TCP, "0.0.0.0", 8080))
    spec = make_spec(ports=(PortMapping(20_000, protocol=Transport.UDP, name="last"),))
    container = make_container(ports=bound, status=ContainerStatus.RUNNING, health=Health.NONE)

    told = named_ports(spec, container)

    assert [port.container_port for port in told[:256]] == list(range(1, 257))
    assert [(port.container_port, port.name) for port in told[256:]] == [
        (20_000, "last"),
        (20_001, None),
    ]
