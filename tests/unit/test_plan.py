"""The truth table of actions, and that following it always comes to rest where it should."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consumer.finding import ALIVE, Rules, assess
from consumer.model import (
    Container,
    ContainerId,
    ContainerStatus,
    Desired,
    EventKind,
    Health,
    Reason,
    Resources,
    RestartPolicy,
    Role,
    Setback,
    Sighting,
    State,
    Status,
    Tenant,
)
from consumer.plan import (
    Action,
    Adjust,
    Create,
    GiveUp,
    Nothing,
    Remove,
    Rename,
    Start,
    Stop,
    Wait,
    decide,
    deserves_look,
)
from consumer.status import report
from tests.builders import make_container, make_spec, make_status, make_tenant, standing_of

NOW = datetime(2026, 11, 24, 10, 0, tzinfo=UTC)
LONG_AGO = NOW - timedelta(hours=1)
RULES = Rules()
SPEC = make_spec()
OLD_SPEC = make_spec(env=(("A", "old"),))


def tenant(desired: Desired = Desired.RUNNING, **changes: object) -> Tenant:
    """Return a tenant of SPEC, whose event is still to be answered."""
    kept = desired is not Desired.DELETED
    fields: dict[str, object] = {
        "desired": desired,
        "spec": SPEC if kept else None,
        "fingerprint": SPEC.fingerprint if kept else None,
        "kind": EventKind.CREATED,
        "revision": 1,
        "answered_revision": 0,
    }
    return make_tenant(**(fields | changes))


def container(status: ContainerStatus = ContainerStatus.RUNNING, **changes: object) -> Container:
    """Return a container of SPEC that has been there for an hour."""
    has_started = status is not ContainerStatus.CREATED
    fields: dict[str, object] = {
        "status": status,
        "fingerprint": SPEC.fingerprint,
        "created_at": LONG_AGO,
        "started_at": LONG_AGO if has_started else None,
        "exit_code": 0 if status is ContainerStatus.EXITED else None,
        "role": Role.CURRENT,
        "resources": SPEC.resources,
        "restart_policy": SPEC.restart_policy,
    }
    return make_container(**(fields | changes))


def old(status: ContainerStatus = ContainerStatus.RUNNING, **changes: object) -> Container:
    """Return a container of the spec before."""
    fields: dict[str, object] = {
        "fingerprint": OLD_SPEC.fingerprint,
        "container_id": ContainerId("old"),
    }
    return container(status, **(fields | changes))


def told(state: State, reason: Reason, of: Container | None) -> Status:
    """Return a status told earlier of the container."""
    return Status(
        tenant_id=make_tenant().tenant_id,
        state=state,
        reason=reason,
        message="",
        occurred_at=LONG_AGO,
        provider_type="docker",
        container=report(of),
    )


RUNNING, CREATED = container(), container(ContainerStatus.CREATED)
SUCCESSOR = replace(CREATED, role=Role.SUCCESSOR)
TOMORROW, DAY = NOW + timedelta(days=1), 86400.0
HELD_BACK = Setback(1, Reason.START_FAILED, "failed to start container", TOMORROW, due=DAY)
FOR_GOOD = Setback(1, Reason.UNHEALTHY, "unhealthy", None)
DUE = Setback(1, Reason.PORT_CONFLICT, "port", NOW - timedelta(seconds=1), due=-1.0)
STUCK = Setback(5, Reason.START_FAILED, "already exists", NOW - timedelta(seconds=1), due=-1.0)
UNASKED = Setback(1, Reason.ENGINE_UNAVAILABLE, "away", TOMORROW, due=DAY)
NO = RestartPolicy("no")


@pytest.mark.parametrize(
    ("wanted", "seen", "action"),
    [
        pytest.param(tenant(), [], Create(Role.CURRENT, SPEC), id="nothing there"),
        pytest.param(tenant(setback=HELD_BACK), [], Nothing(), id="held back"),
        pytest.param(tenant(setback=FOR_GOOD), [], Nothing(), id="failed for good"),
        pytest.param(tenant(setback=DUE), [], Create(Role.CURRENT, SPEC), id="retry is due"),
        pytest.param(tenant(setback=UNASKED), [], Create(Role.CURRENT, SPEC), id="engine is back"),
        pytest.param(tenant(spec=None, fingerprint=None), [], Nothing(), id="no document known"),
        pytest.param(tenant(), [CREATED], Start(CREATED), id="created, not started"),
        pytest.param(
            tenant(setback=HELD_BACK), [CREATED], Remove(CREATED), id="nothing half-made stays"
        ),
        pytest.param(tenant(), [RUNNING], Nothing(), id="runs as wanted"),
        pytest.param(
            tenant(),
            [p := container(ContainerStatus.PAUSED)],
            Start(p),
            id="paused by hand",
        ),
        pytest.param(
            tenant(),
            [x := container(ContainerStatus.EXITED)],
            Start(x),
            id="stopped by hand: its policy would have restarted it",
        ),
        pytest.param(
            tenant(setback=replace(STUCK, attempt=4)),
            [x],
            Start(x),
            id="did not start again: the same one is tried",
        ),
        pytest.param(tenant(setback=STUCK), [x], Remove(x), id="does not start again: made anew"),
        pytest.param(
            tenant(setback=STUCK, spec=None),
            [x],
            Start(x),
            id="does not start again, and no document to make it of",
        ),
        pytest.param(
            tenant(),
            [container(ContainerStatus.EXITED, restart_policy=NO)],
            Nothing(),
            id="ended by itself, not to be restarted",
        ),
        pytest.param(
            tenant(),
            [k := container(ContainerStatus.EXITED, restart_policy=NO, exit_code=137)],
            Start(k),
            id="killed by hand",
        ),
        pytest.param(
            tenant(),
            [container(ContainerStatus.EXITED, restart_policy=NO, exit_code=137, oom_killed=True)],
            Nothing(),
            id="killed for its memory",
        ),
        pytest.param(
            tenant(kind=EventKind.RESUMED),
            [r := container(ContainerStatus.EXITED, restart_policy=NO)],
            Start(r),
            id="resumed",
        ),
        pytest.param(
            tenant(restarts=(NOW - timedelta(seconds=30),) * 3),
            [container(ContainerStatus.EXITED)],
            Wait(30),
            id="we restarted it three times within the minute",
        ),
        pytest.param(
            tenant(),
            [d := container(ContainerStatus.DEAD)],
            Remove(d),
            id="dead",
        ),
        pytest.param(
            tenant(),
            [r := container(ContainerStatus.REMOVING)],
            Remove(r),
            id="removal in progress",
        ),
        pytest.param(
            tenant(),
            [m := container(resources=Resources(cpu=500, memory=512))],
            Adjust(m, SPEC),
            id="other limits: changed in place",
        ),
        pytest.param(
            tenant(),
            [a := container(restart_policy=NO)],
            Adjust(a, SPEC),
            id="other restart policy: changed in place",
        ),
        pytest.param(
            tenant(), [n := container(role=Role.SUCCESSOR)], Rename(n, Role.CURRENT), id="name"
        ),
        pytest.param(tenant(), [old()], Create(Role.SUCCESSOR, SPEC), id="other spec"),
        pytest.param(tenant(setback=HELD_BACK), [old()], Nothing(), id="other spec, held back"),
        pytest.param(
            tenant(),
            [old(), SUCCESSOR],
            Rename(old(), Role.PREDECESSOR),
            id="successor made: the name is handed over",
        ),
        pytest.param(
            tenant(),
            [o := old(role=Role.PREDECESSOR), SUCCESSOR],
            Rename(SUCCESSOR, Role.CURRENT),
            id="name free",
        ),
        pytest.param(tenant(), [o, CREATED], Stop(o), id="names handed over"),
        pytest.param(
            tenant(),
            [old(ContainerStatus.EXITED, role=Role.PREDECESSOR), CREATED],
            Start(CREATED),
            id="predecessor stopped",
        ),
        pytest.param(
            tenant(),
            [s := old(ContainerStatus.EXITED, role=Role.PREDECESSOR), RUNNING],
            Remove(s),
            id="successor runs",
        ),
        pytest.param(
            tenant(),
            [s, dead := container(ContainerStatus.DEAD)],
            Remove(dead),
            id="successor dead: made anew",
        ),
        pytest.param(
            tenant(),
            [s, container(started_at=NOW)],
            Wait(1),
            id="successor just started",
        ),
        pytest.param(
            tenant(),
            [s, container(health=Health.STARTING, started_at=NOW)],
            Wait(300),
            id="successor not healthy yet",
        ),
        pytest.param(
            tenant(setback=FOR_GOOD),
            [s, u := container(health=Health.UNHEALTHY)],
            Remove(u),
            id="successor given up",
        ),
        pytest.param(
            tenant(setback=HELD_BACK),
            [s, CREATED],
            Remove(CREATED),
            id="successor did not start",
        ),
        pytest.param(
            tenant(setback=FOR_GOOD),
            [s],
            Start(s),
            id="fallback runs again",
        ),
        pytest.param(
            tenant(setback=FOR_GOOD),
            [o],
            Rename(o, Role.CURRENT),
            id="fallback gets its name back",
        ),
        pytest.param(
            tenant(
                setback=FOR_GOOD,
                status=told(State.RUNNING, Reason.STARTED, f := old(ContainerStatus.EXITED)),
            ),
            [f],
            Start(f),
            id="fallback stopped by hand",
        ),
        pytest.param(
            tenant(setback=FOR_GOOD, status=told(State.RUNNING, Reason.STARTED, s)),
            [b := replace(s, restart_policy=NO)],
            Start(b),
            id="put aside by us and alone: starts again, whatever its policy",
        ),
        pytest.param(
            tenant(status=told(State.RUNNING, Reason.STARTED, s)),
            [b],
            Start(b),
            id="put aside by us and alone: serves while its successor is made anew",
        ),
        pytest.param(
            tenant(status=told(State.FAILED, Reason.UNHEALTHY, s)),
            [b],
            Start(b),
            id="put aside while unhealthy: better than none",
        ),
        pytest.param(
            tenant(setback=FOR_GOOD, status=told(State.FAILED, Reason.EXITED, s)),
            [b],
            Rename(b, Role.CURRENT),
            id="ended before it was put aside: stays so",
        ),
        pytest.param(
            tenant(status=told(State.RUNNING, Reason.STARTED, s)),
            [replace(b, started_at=NOW, finished_at=NOW + timedelta(seconds=0.2))],
            Create(Role.SUCCESSOR, SPEC),
            id="started again and ended at once: nobody waits for it",
        ),
        pytest.param(
            tenant(setback=FOR_GOOD, status=told(State.RUNNING, Reason.ROLLED_BACK, old())),
            [old(ContainerStatus.EXITED, restart_policy=NO)],
            Nothing(),
            id="a fallback that ends by itself is not restarted by us",
        ),
        pytest.param(
            tenant(status=told(State.RUNNING, Reason.STARTED, s)),
            [b, unproved := container(fingerprint="never", container_id=ContainerId("unproved"))],
            Stop(unproved),
            id="a third is wanted: the one that has not proved itself gives way",
        ),
        pytest.param(
            tenant(status=told(State.RUNNING, Reason.STARTED, s)),
            [b, gone := replace(unproved, status=ContainerStatus.EXITED)],
            Remove(gone),
            id="and is removed",
        ),
        pytest.param(
            tenant(),
            [replace(b, fingerprint=SPEC.fingerprint, exit_code=1), replace(unproved)],
            Stop(unproved),
            id="taken back: the successor stops",
        ),
        pytest.param(
            tenant(status=told(State.RUNNING, Reason.STARTED, s)),
            [back := replace(b, fingerprint=SPEC.fingerprint, exit_code=1), gone],
            Start(back),
            id="taken back: the former one runs at once, however it ended",
        ),
        pytest.param(
            tenant(),
            [replace(RUNNING, role=Role.PREDECESSOR), gone],
            Remove(gone),
            id="taken back: the successor goes",
        ),
        pytest.param(
            tenant(),
            [RUNNING, t := container(ContainerStatus.EXITED, container_id=ContainerId("two"))],
            Remove(t),
            id="two of one spec: the useful one stays",
        ),
        pytest.param(tenant(Desired.STOPPED), [RUNNING], Stop(RUNNING), id="suspend"),
        pytest.param(
            tenant(Desired.STOPPED), [container(ContainerStatus.EXITED)], Nothing(), id="suspended"
        ),
        pytest.param(
            tenant(Desired.STOPPED),
            [container(ContainerStatus.EXITED), SUCCESSOR],
            Remove(SUCCESSOR),
            id="suspended in the middle of a replacement",
        ),
        pytest.param(
            tenant(Desired.STOPPED),
            [container(ContainerStatus.CREATED)],
            Remove(container(ContainerStatus.CREATED)),
            id="suspended before it ever ran",
        ),
        pytest.param(tenant(Desired.STOPPED), [], Nothing(), id="suspended, nothing there"),
        pytest.param(tenant(Desired.DELETED), [RUNNING], Stop(RUNNING), id="delete"),
        pytest.param(tenant(Desired.DELETED), [x], Remove(x), id="delete what is stopped"),
        pytest.param(
            tenant(Desired.DELETED, setback=DUE), [RUNNING], Remove(RUNNING), id="stop failed"
        ),
        pytest.param(tenant(Desired.DELETED), [], Nothing(), id="deleted"),
    ],
)
def test_decide(wanted: Tenant, seen: list[Container], action: Action) -> None:
    """Each row of the truth table gives its action."""
    assert decide(wanted, seen, 0, RULES) == action


def test_a_failing_successor_is_given_up() -> None:
    """A successor that turns out unhealthy is counted as a failed try."""
    seen = [old(ContainerStatus.EXITED), container(health=Health.UNHEALTHY)]

    action = decide(tenant(), seen, 0, RULES)

    assert isinstance(action, GiveUp)
    assert action.finding.reason is Reason.UNHEALTHY


class ModelEngine:
    """Containers that do what actions say, in no time."""

    def __init__(self, containers: list[Container]) -> None:
        self.containers = containers
        self.most_alive = self._alive()
        self._made = 0

    def _alive(self) -> int:
        return sum(1 for seen in self.containers if seen.status in ALIVE)

    def carry_out(self, action: Action, now: float) -> None:
        at = NOW + timedelta(seconds=now)
        match action:
            case Create(role, _):
                self._made += 1
                made = container(
                    ContainerStatus.CREATED,
                    container_id=ContainerId(f"made-{self._made}"),
                    role=role,
                    created_at=at,
                )
                self.containers.append(made)
            case Start(seen):
                self._exchange(seen, _run(seen, now))
            case Stop(seen):
                self._exchange(seen, replace(seen, status=ContainerStatus.EXITED, exit_code=0))
            case Rename(seen, role):
                assert all(other.role is not role for other in self.containers)
                self._exchange(seen, replace(seen, role=role))
            case Adjust(seen, spec):
                adjusted = replace(
                    seen, resources=spec.resources, restart_policy=spec.restart_policy
                )
                self._exchange(seen, adjusted)
            case Remove(seen):
                self.containers.remove(seen)
            case _:
                raise AssertionError(action)
        self.most_alive = max(self.most_alive, self._alive())

    def restart_as_policies_say(self, now: float) -> None:
        self.containers[:] = [
            _run(seen, now) if seen.status is ContainerStatus.RESTARTING else seen
            for seen in self.containers
        ]

    def _exchange(self, before: Container, after: Container) -> None:
        self.containers[self.containers.index(before)] = after


def _run(seen: Container, now: float) -> Container:
    at = NOW + timedelta(seconds=now)
    return replace(seen, status=ContainerStatus.RUNNING, started_at=at, run_seen=now)


containers_of_any_kind = st.lists(
    st.builds(
        container,
        status=st.sampled_from([kind for kind in ContainerStatus if kind.value != "removing"]),
        role=st.sampled_from(Role),
        fingerprint=st.sampled_from([SPEC.fingerprint, OLD_SPEC.fingerprint, "other"]),
        restart_policy=st.sampled_from([RestartPolicy(), NO]),
        exit_code=st.sampled_from([0, 1, 137]),
    ),
    max_size=4,
    unique_by=lambda seen: seen.role,
).map(
    lambda seen: [
        replace(one, container_id=ContainerId(f"found-{place}")) for place, one in enumerate(seen)
    ]
)


@settings(max_examples=150, deadline=None)
@given(
    desired=st.sampled_from(Desired),
    kind=st.sampled_from([EventKind.CREATED, EventKind.UPDATED, EventKind.RESUMED]),
    found=containers_of_any_kind,
)
def test_following_the_plan_comes_to_rest(
    desired: Desired, kind: EventKind, found: list[Container]
) -> None:
    """From any start the plan ends within twenty actions with the one container that is wanted."""
    wanted = tenant(desired, kind=kind)
    engine = ModelEngine(found)
    alive_at_first = engine.most_alive
    now = 0.0
    action: Action = Nothing()
    for _ in range(20):
        action = decide(wanted, engine.containers, now, RULES)
        match action:
            case Nothing():
                break
            case Wait(seconds):
                now += max(seconds, 0.1)
                engine.restart_as_policies_say(now)
            case GiveUp(finding):
                wanted = replace(wanted, setback=Setback(1, finding.reason, "", None))
            case _:
                engine.carry_out(action, now)
    else:
        pytest.fail(f"still {action} on {engine.containers}")

    expected = 0 if desired is Desired.DELETED else 1
    if desired is Desired.RUNNING or engine.containers:
        assert len(engine.containers) == expected
    assert all(seen.role is Role.CURRENT for seen in engine.containers)
    assert engine.most_alive <= max(1, alive_at_first)
    finding = assess(wanted, engine.containers, now + 300, RULES)
    assert finding.state is not None or finding.look_in_seconds is not None


def sighting(of: Container, **changes: object) -> Sighting:
    """Return the engine's list entry of a container."""
    seen = Sighting(
        tenant_id=of.tenant_id,
        container_id=of.container_id,
        role=of.role,
        status=of.status,
        health=of.health,
        fingerprint=of.fingerprint,
        created_at=of.created_at,
    )
    return replace(seen, **changes)  # type: ignore[arg-type]  # names are checked by replace


AT_REST = tenant(answered_revision=1, status=told(State.RUNNING, Reason.STARTED, RUNNING))


@pytest.mark.parametrize(
    ("known", "listed", "expected"),
    [
        pytest.param(AT_REST, [sighting(RUNNING)], False, id="at rest"),
        pytest.param(AT_REST, [], True, id="gone"),
        pytest.param(AT_REST, [sighting(RUNNING), sighting(CREATED)], True, id="two"),
        pytest.param(
            AT_REST, [sighting(RUNNING, status=ContainerStatus.EXITED)], True, id="exited"
        ),
        pytest.param(AT_REST, [sighting(RUNNING, health=Health.UNHEALTHY)], True, id="unhealthy"),
        pytest.param(AT_REST, [sighting(RUNNING, role=Role.SUCCESSOR)], True, id="name"),
        pytest.param(AT_REST, [sighting(RUNNING, fingerprint="other")], True, id="drift"),
        pytest.param(
            AT_REST, [sighting(RUNNING, container_id=ContainerId("new"))], True, id="another"
        ),
        pytest.param(replace(AT_REST, answered_revision=0), [sighting(RUNNING)], True, id="owed"),
        pytest.param(replace(AT_REST, setback=DUE), [sighting(RUNNING)], True, id="setback"),
        pytest.param(
            replace(AT_REST, status=told(State.FAILED, Reason.EXITED, RUNNING)),
            [sighting(RUNNING, status=ContainerStatus.EXITED)],
            True,
            id="failed",
        ),
        pytest.param(
            replace(AT_REST, status=told(State.STOPPED, Reason.EXITED, RUNNING)),
            [sighting(RUNNING, status=ContainerStatus.EXITED)],
            False,
            id="finished",
        ),
        pytest.param(
            tenant(Desired.STOPPED, answered_revision=1, status=AT_REST.status),
            [sighting(RUNNING, status=ContainerStatus.EXITED)],
            True,
            id="suspended, told running",
        ),
        pytest.param(
            tenant(
                Desired.STOPPED,
                answered_revision=1,
                status=told(State.STOPPED, Reason.SUSPENDED, RUNNING),
            ),
            [sighting(RUNNING, status=ContainerStatus.EXITED)],
            False,
            id="suspended",
        ),
        pytest.param(
            replace(AT_REST, status=make_status(state=State.FAILED, reason=Reason.MISSING)),
            [],
            True,
            id="missing",
        ),
        pytest.param(tenant(Desired.DELETED, answered_revision=1), [], False, id="deleted"),
        pytest.param(
            tenant(Desired.DELETED, answered_revision=1), [sighting(RUNNING)], True, id="undead"
        ),
    ],
)
def test_deserves_look(known: Tenant, listed: list[Sighting], expected: bool) -> None:
    """A tenant whose list entry fits what was told is left alone; any other gets a pass."""
    assert deserves_look(standing_of(known), listed) is expected


# --- stops that are under way -------------------------------------------------------------------


@pytest.mark.parametrize("desired", list(Desired))
def test_a_stop_under_way_is_cut_short_for_who_is_to_go_or_to_run(desired: Desired) -> None:
    """A grace period is for an orderly end; a newer intention does not wait an hour for it."""
    stopping = make_container(is_stopping=True)

    decided = decide(make_tenant(desired=desired), [stopping], 0, RULES)

    assert decided == Stop(stopping, is_hurried=desired is not Desired.STOPPED)
