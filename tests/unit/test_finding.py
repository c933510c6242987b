"""What the engine's facts amount to: the contract's table of states and reasons, row by row."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from consumer.finding import Rules, assess, note_restart
from consumer.model import (
    Container,
    ContainerId,
    ContainerStatus,
    Desired,
    Health,
    Reason,
    Resources,
    RestartPolicy,
    Role,
    Setback,
    State,
    Tenant,
)
from consumer.status import report
from tests.builders import make_container, make_status, make_tenant

NOW = datetime(2026, 11, 24, 10, 0, tzinfo=UTC)
LONG_AGO = NOW - timedelta(hours=1)
JUST_NOW = NOW - timedelta(seconds=0.2)
RULES = Rules()
NO, ON_FAILURE = RestartPolicy("no"), RestartPolicy("on-failure", 3)
SETBACK = Setback(2, Reason.PORT_CONFLICT, "failed to start container: 8080", NOW)
WANTED = make_tenant(answered_revision=1)
STATUS = ContainerStatus


def seen(status: ContainerStatus = STATUS.RUNNING, **changes: object) -> Container:
    """Return a container that was made and started an hour ago."""
    fields: dict[str, object] = {"created_at": LONG_AGO, "started_at": LONG_AGO}
    return make_container(status=status, **(fields | changes))


LOOPING = replace(
    WANTED,
    status=make_status(
        state=State.FAILED, reason=Reason.CRASH_LOOP, container=report(seen(restart_count=5))
    ),
)

ROLLED_BACK = replace(
    WANTED,
    setback=SETBACK,
    fingerprint="new",
    status=make_status(reason=Reason.ROLLED_BACK, container=report(seen())),
)


@pytest.mark.parametrize(
    ("tenant", "container", "state", "reason"),
    [
        pytest.param(WANTED, seen(), State.RUNNING, Reason.UNCHANGED, id="runs"),
        pytest.param(
            WANTED, seen(health=Health.HEALTHY), State.RUNNING, Reason.UNCHANGED, id="healthy"
        ),
        pytest.param(
            WANTED,
            seen(health=Health.STARTING, started_at=JUST_NOW),
            None,
            Reason.UNCHANGED,
            id="health not known yet",
        ),
        pytest.param(
            WANTED,
            seen(health=Health.STARTING),
            State.FAILED,
            Reason.START_TIMEOUT,
            id="health not known after five minutes",
        ),
        pytest.param(
            WANTED, seen(health=Health.UNHEALTHY), State.FAILED, Reason.UNHEALTHY, id="unhealthy"
        ),
        pytest.param(
            WANTED,
            seen(STATUS.RESTARTING, exit_code=3, restart_count=1),
            State.FAILED,
            Reason.EXITED,
            id="ended, Docker restarts it",
        ),
        pytest.param(
            WANTED,
            seen(STATUS.RESTARTING, exit_code=137, oom_killed=True),
            State.FAILED,
            Reason.OOM_KILLED,
            id="out of memory, Docker restarts it",
        ),
        pytest.param(
            WANTED,
            seen(STATUS.RESTARTING, exit_code=3, restart_count=3, created_at=JUST_NOW),
            State.FAILED,
            Reason.CRASH_LOOP,
            id="third restart of a young container",
        ),
        pytest.param(
            WANTED,
            seen(STATUS.RESTARTING, exit_code=0, restart_count=3, created_at=JUST_NOW),
            State.FAILED,
            Reason.CRASH_LOOP,
            id="ends with 0 again and again",
        ),
        pytest.param(
            WANTED,
            seen(STATUS.RESTARTING, exit_code=3, restart_count=30),
            State.FAILED,
            Reason.EXITED,
            id="thirty restarts in a long life are no loop",
        ),
        pytest.param(
            replace(WANTED, restarts=(NOW - timedelta(seconds=50), JUST_NOW, NOW)),
            seen(STATUS.RESTARTING, exit_code=3, restart_count=30),
            State.FAILED,
            Reason.CRASH_LOOP,
            id="three within the minute are",
        ),
        pytest.param(
            LOOPING,
            seen(restart_count=6, started_at=JUST_NOW),
            State.FAILED,
            Reason.CRASH_LOOP,
            id="a loop is not over because it runs for a moment",
        ),
        pytest.param(
            LOOPING,
            seen(restart_count=6, started_at=NOW - timedelta(seconds=11)),
            State.RUNNING,
            Reason.UNCHANGED,
            id="a loop is over when a run lasts",
        ),
        pytest.param(
            WANTED,
            seen(restart_count=1, started_at=JUST_NOW),
            None,
            Reason.UNCHANGED,
            id="just restarted: wait and see",
        ),
        pytest.param(
            WANTED, seen(STATUS.PAUSED), State.STOPPED, Reason.STOPPED_EXTERNALLY, id="paused"
        ),
        pytest.param(
            WANTED,
            seen(STATUS.EXITED, exit_code=0),
            State.STOPPED,
            Reason.STOPPED_EXTERNALLY,
            id="stopped by hand, well-behaved",
        ),
        pytest.param(
            WANTED,
            seen(STATUS.EXITED, exit_code=137),
            State.STOPPED,
            Reason.STOPPED_EXTERNALLY,
            id="killed by hand",
        ),
        pytest.param(
            WANTED,
            seen(STATUS.EXITED, exit_code=137, restart_policy=NO),
            State.STOPPED,
            Reason.STOPPED_EXTERNALLY,
            id="killed by hand, no policy",
        ),
        pytest.param(
            WANTED,
            seen(STATUS.EXITED, exit_code=1),
            State.FAILED,
            Reason.EXITED,
            id="stopped by hand, ends with 1",
        ),
        pytest.param(
            WANTED,
            seen(STATUS.EXITED, exit_code=137, oom_killed=True, restart_policy=NO),
            State.FAILED,
            Reason.OOM_KILLED,
            id="out of memory",
        ),
        pytest.param(
            WANTED,
            seen(STATUS.EXITED, exit_code=0, restart_policy=NO),
            State.STOPPED,
            Reason.EXITED,
            id="finished",
        ),
        pytest.param(
            WANTED,
            seen(STATUS.EXITED, exit_code=3, restart_policy=ON_FAILURE),
            State.FAILED,
            Reason.EXITED,
            id="retries used up",
        ),
        pytest.param(
            replace(WANTED, setback=SETBACK),
            seen(STATUS.EXITED, exit_code=0),
            State.FAILED,
            Reason.PORT_CONFLICT,
            id="could not be brought back",
        ),
        pytest.param(WANTED, None, State.FAILED, Reason.MISSING, id="removed by hand"),
        pytest.param(
            replace(WANTED, setback=SETBACK),
            None,
            State.FAILED,
            Reason.PORT_CONFLICT,
            id="could not be made",
        ),
        pytest.param(
            WANTED, seen(STATUS.CREATED, started_at=None), None, Reason.UNCHANGED, id="on its way"
        ),
        pytest.param(
            replace(WANTED, setback=SETBACK, fingerprint="new"),
            seen(),
            State.RUNNING,
            Reason.ROLLED_BACK,
            id="the former runs in place of the new",
        ),
        pytest.param(
            replace(WANTED, setback=SETBACK),
            seen(resources=Resources(1, 1)),
            State.RUNNING,
            Reason.ROLLED_BACK,
            id="the former limits hold in place of the new",
        ),
        pytest.param(
            ROLLED_BACK,
            seen(STATUS.EXITED, exit_code=3, restart_policy=NO),
            State.FAILED,
            Reason.EXITED,
            id="the fallback ended",
        ),
        pytest.param(
            replace(ROLLED_BACK, status=make_status(reason=Reason.ROLLED_BACK)),
            seen(STATUS.EXITED, exit_code=3, restart_policy=NO),
            State.FAILED,
            Reason.PORT_CONFLICT,
            id="the fallback could not be brought back",
        ),
        pytest.param(
            replace(WANTED, desired=Desired.STOPPED),
            seen(STATUS.EXITED, exit_code=137),
            State.STOPPED,
            Reason.SUSPENDED,
            id="suspended",
        ),
        pytest.param(
            replace(WANTED, desired=Desired.STOPPED),
            None,
            State.STOPPED,
            Reason.SUSPENDED,
            id="suspended without a container",
        ),
        pytest.param(
            LOOPING,
            seen(STATUS.EXITED, exit_code=1, restart_count=5),
            State.FAILED,
            Reason.CRASH_LOOP,
            id="stopped in a crash loop",
        ),
        pytest.param(
            replace(WANTED, setback=SETBACK),
            seen(STATUS.EXITED, exit_code=1),
            State.FAILED,
            Reason.PORT_CONFLICT,
            id="exited, held back",
        ),
        pytest.param(
            WANTED,
            seen(STATUS.RESTARTING, started_at=None, exit_code=3, restart_count=1),
            State.FAILED,
            Reason.EXITED,
            id="restarting, its start not known",
        ),
        pytest.param(
            replace(WANTED, desired=Desired.STOPPED),
            seen(),
            None,
            Reason.UNCHANGED,
            id="to be stopped",
        ),
        pytest.param(
            replace(WANTED, desired=Desired.DELETED), None, State.STOPPED, Reason.DELETED, id="gone"
        ),
        pytest.param(
            replace(WANTED, desired=Desired.DELETED),
            seen(STATUS.EXITED),
            None,
            Reason.UNCHANGED,
            id="to be removed",
        ),
    ],
)
def test_assess(
    tenant: Tenant, container: Container | None, state: State | None, reason: Reason
) -> None:
    """Each row of the table gives its state and reason."""
    finding = assess(tenant, [container] if container else [], 0, RULES)

    assert (finding.state, finding.reason) == (state, reason)


@pytest.mark.parametrize(
    ("started_at", "state"), [(JUST_NOW, None), (LONG_AGO, State.RUNNING)], ids=["young", "lasted"]
)
def test_a_replacement_counts_once_it_has_lasted(started_at: datetime, state: State | None) -> None:
    """While there is another to go back to, a young run is not yet called running."""
    former = seen(STATUS.EXITED, role=Role.PREDECESSOR, fingerprint="former", exit_code=0)

    finding = assess(WANTED, [former, seen(started_at=started_at)], 0, RULES)

    assert finding.state is state
    assert (finding.look_in_seconds is None) is (state is not None)


def test_a_run_that_began_by_a_restart_counts_once() -> None:
    """However often a restarted run is looked at, it is one restart."""
    container = seen(restart_count=1, started_at=JUST_NOW)

    once = replace(WANTED, restarts=note_restart(WANTED, [container], 0, RULES))
    twice = replace(once, restarts=note_restart(once, [container], 0, RULES))

    assert twice.restarts == (JUST_NOW,)


def test_restarts_outside_the_window_are_forgotten() -> None:
    """A restart of an hour ago does not add to today's."""
    tenant = replace(WANTED, restarts=(LONG_AGO, JUST_NOW))

    assert note_restart(tenant, [seen()], 0, RULES) == (JUST_NOW,)


def test_the_first_run_is_no_restart() -> None:
    """A container's first start does not count."""
    assert note_restart(WANTED, [seen(started_at=JUST_NOW)], 0, RULES) == ()


def test_a_first_run_that_has_ended_is_no_restart_yet() -> None:
    """The engine counts the restart already, and shows the run that has ended."""
    ended = seen(STATUS.RESTARTING, restart_count=1, started_at=JUST_NOW, exit_code=5)

    assert note_restart(WANTED, [ended], 0, RULES) == ()


@pytest.mark.parametrize(
    ("started_at", "state"),
    [
        pytest.param(JUST_NOW, None, id="on trial"),
        pytest.param(LONG_AGO, State.RUNNING, id="stays up"),
    ],
)
def test_a_replacement_is_told_once_it_has_stayed_up(
    started_at: datetime, state: State | None
) -> None:
    """While the former container is kept to fall back on, it is too early to say `running`."""
    former = seen(STATUS.EXITED, fingerprint="former", container_id=ContainerId("f" * 64))

    finding = assess(WANTED, [seen(started_at=started_at), former], 0, RULES)

    assert finding.state is state
