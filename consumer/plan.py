"""The truth table: what is wanted, what is seen and how long it has lasted give the next action.

Pure functions over values: nothing here waits, logs or touches the engine. `decide` names one
action; carried out again and again on fresh observations it ends in `Nothing` or `Wait` from every
start, also from the middle of an interrupted replacement. What an observation
amounts to, `finding` says.

A replacement is a row of small steps, each visible in the engine: make the successor, hand over the
name, stop the predecessor, start the successor, remove the predecessor. Whoever finds it half-way,
finds by the fingerprints which container is which, and goes on. Until the successor has proved
itself the predecessor is kept: it runs again when the successor fails, when its own document is
wanted again, and while a third is made.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, assert_never

from consumer.finding import (
    ALIVE,
    PAST_USE,
    Finding,
    Rules,
    assess,
    has_other_limits,
    is_held_back,
    is_restored,
    is_wanted,
    main_container,
    recent_restarts,
    until_restart_is_old,
    until_up,
    up_seconds,
    usefulness,
)
from consumer.model import (
    Container,
    ContainerStatus,
    Desired,
    Health,
    Reason,
    Role,
    Sighting,
    Standing,
    State,
    Tenant,
    TenantSpec,
)


@dataclass(frozen=True, slots=True)
class Create:
    """Make a container of the spec, without starting it."""

    role: Role
    spec: TenantSpec


@dataclass(frozen=True, slots=True)
class Start:
    """Start (or unpause) the container."""

    container: Container


@dataclass(frozen=True, slots=True)
class Stop:
    """Stop the container within its grace period, or cut a stop that is under way short."""

    container: Container
    is_hurried: bool = False


@dataclass(frozen=True, slots=True)
class Remove:
    """Remove the container."""

    container: Container


@dataclass(frozen=True, slots=True)
class Rename:
    """Give the container the name of a role."""

    container: Container
    role: Role


@dataclass(frozen=True, slots=True)
class Adjust:
    """Change limits and restart policy in place."""

    container: Container
    spec: TenantSpec


@dataclass(frozen=True, slots=True)
class GiveUp:
    """The successor is no good: count it as a failed try, so that the predecessor comes back."""

    finding: "Finding"


@dataclass(frozen=True, slots=True)
class Wait:
    """Look again in so many seconds; an engine event may come earlier."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Nothing:
    """Everything is as it should be, or nothing can be done now."""


_UP_AND_FAILED: Final = (Reason.UNHEALTHY, Reason.START_TIMEOUT)
_STARTS_OF_ONE: Final = 5
"""Failed tries after which a container that ran before is made anew.

What an engine keeps of one that it lost can be in the way of every further start (containerd's
"already exists", https://github.com/moby/moby/issues/36145), and nothing but another id helps.
"""

Action = Create | Start | Stop | Remove | Rename | Adjust | GiveUp | Wait | Nothing


def decide(tenant: Tenant, containers: Sequence[Container], now: float, rules: Rules) -> Action:
    """Return the next action for the tenant."""
    lost = [container for container in containers if container.status in PAST_USE]
    if lost:
        # Somebody else's removal is waited for by asking for it too; a failed one is tried again.
        return Remove(lost[0])
    match tenant.desired:
        case Desired.DELETED:
            return _towards_deleted(tenant, containers, now)
        case Desired.STOPPED:
            return _towards_stopped(tenant, containers, now)
        case Desired.RUNNING:
            return _towards_running(tenant, containers, now, rules)
        case _:
            assert_never(tenant.desired)


def _towards_deleted(tenant: Tenant, containers: Sequence[Container], now: float) -> Action:
    if not containers or is_held_back(tenant, now):
        return Nothing()
    container = containers[0]
    # After a failed stop, removal by force is what is left.
    if container.status in ALIVE and tenant.setback is None:
        # An earlier intention may have given it an hour; it was told to end, and it is to go now.
        return Stop(container, is_hurried=container.is_stopping)
    return Remove(container)


def _towards_stopped(tenant: Tenant, containers: Sequence[Container], now: float) -> Action:
    if not containers or is_held_back(tenant, now):
        return Nothing()
    kept = main_container(tenant, containers)
    if kept.status in ALIVE:
        return Stop(kept)
    if kept.status is ContainerStatus.CREATED:
        # It never ran: nothing in it is worth keeping, and the resumption makes it anew.
        return Remove(kept)
    surplus = [container for container in containers if container is not kept]
    if surplus:
        return Remove(surplus[0])
    return Nothing() if kept.role is Role.CURRENT else Rename(kept, Role.CURRENT)


def _towards_running(
    tenant: Tenant, containers: Sequence[Container], now: float, rules: Rules
) -> Action:
    matching, others = _split(tenant, containers)
    if len(matching) > 1:
        return Remove(_least_useful(matching))
    if len(others) > 1:
        return _let_go(min(others, key=lambda other: _worth(tenant, other)))
    if matching and others:
        return _replace(tenant, matching[0], others[0], now, rules)
    if matching:
        return _keep_running(tenant, matching[0], now, rules)
    if tenant.spec is None or is_held_back(tenant, now):
        return _keep_running(tenant, others[0], now, rules) if others else Nothing()
    if others and tenant.setback is None and _was_put_aside(tenant, others[0], rules):
        return Start(others[0])
    return Create(Role.SUCCESSOR if others else Role.CURRENT, tenant.spec)


def _replace(
    tenant: Tenant, wanted: Container, other: Container, now: float, rules: Rules
) -> Action:
    """Bring a replacement one step on, or back if the predecessor is wanted again."""
    if wanted.role is Role.PREDECESSOR and wanted.status is not ContainerStatus.CREATED:
        return _call_off(tenant, wanted, other, rules)
    return _hand_over(tenant, wanted, other, now, rules)


def _call_off(tenant: Tenant, wanted: Container, unwanted: Container, rules: Rules) -> Action:
    if unwanted.status in ALIVE:
        return Stop(unwanted)
    return Start(wanted) if _was_put_aside(tenant, wanted, rules) else Remove(unwanted)


def _hand_over(tenant: Tenant, new: Container, old: Container, now: float, rules: Rules) -> Action:
    """Go one step towards `new`; `old` is kept until `new` has proved itself."""
    if new.status is ContainerStatus.CREATED:
        if is_held_back(tenant, now) or new.role is Role.PREDECESSOR:
            return Remove(new)
        if new.role is not Role.CURRENT:
            in_the_way = old.role is Role.CURRENT
            return Rename(old, Role.PREDECESSOR) if in_the_way else Rename(new, Role.CURRENT)
        return Stop(old) if old.status in ALIVE else Start(new)
    finding = assess(tenant, [new], now, rules)
    if finding.state is State.FAILED:
        return Remove(new) if is_held_back(tenant, now) else GiveUp(finding)
    if finding.state is None:
        return Wait(finding.look_in_seconds or 0.0)
    if up_seconds(new, now) < rules.settle_seconds and new.status is ContainerStatus.RUNNING:
        return Wait(until_up(new, now, rules.settle_seconds))
    return Stop(old) if old.status in ALIVE else Remove(old)


def _keep_running(tenant: Tenant, container: Container, now: float, rules: Rules) -> Action:
    if _was_put_aside(tenant, container, rules):
        return Start(container)
    if container.role is not Role.CURRENT:
        return Rename(container, Role.CURRENT)
    if container.is_stopping:
        # It is to run again, and cannot be told to stay: the sooner it has ended, the better.
        return Stop(container, is_hurried=True)
    match container.status:
        case ContainerStatus.CREATED:
            return _first_start(tenant, container, now)
        case ContainerStatus.PAUSED:
            return Start(container)
        case ContainerStatus.EXITED:
            return _bring_back(tenant, container, now, rules)
        case ContainerStatus.RUNNING | ContainerStatus.RESTARTING:
            return _limits(tenant, container, now)
        case _:
            return Nothing()  # being removed, or dead: `decide` has seen to it


def _first_start(tenant: Tenant, container: Container, now: float) -> Action:
    if not is_held_back(tenant, now):
        return Start(container)
    # Nothing half-made stays behind a failed start; a fallback is not half-made.
    return Remove(container) if is_wanted(tenant, container) else Start(container)


def _bring_back(tenant: Tenant, container: Container, now: float, rules: Rules) -> Action:
    # What holds back the wanted one does not hold back a fallback.
    is_held = is_wanted(tenant, container) and is_held_back(tenant, now)
    if is_held or not is_restored(tenant, container):
        return Nothing()
    if _starts_no_more(tenant, container):
        return Remove(container)
    recent = recent_restarts(tenant, container, now, rules)
    if len(recent) >= rules.crash_loop_restarts:
        return Wait(until_restart_is_old(recent[0], container, now, rules))
    return Start(container)


def _starts_no_more(tenant: Tenant, container: Container) -> bool:
    setback = tenant.setback
    if setback is None or tenant.spec is None or not is_wanted(tenant, container):
        return False
    return setback.reason is Reason.START_FAILED and setback.attempt >= _STARTS_OF_ONE


def _limits(tenant: Tenant, container: Container, now: float) -> Action:
    spec = tenant.spec
    if spec is None or is_held_back(tenant, now) or not is_wanted(tenant, container):
        return Nothing()
    return Adjust(container, spec) if has_other_limits(tenant, container) else Nothing()


def _was_put_aside(tenant: Tenant, container: Container, rules: Rules) -> bool:
    """Whether we stopped it to make room for a successor, and it is to run again.

    One that had ended before, and would not be restarted, is left as it was; so is one that we
    started again and that ended at once.
    """
    if container.role is not Role.PREDECESSOR or container.status is not ContainerStatus.EXITED:
        return False
    if _was_in_vain(tenant, container, rules):
        return False
    return is_restored(tenant, container) or _was_told_up(tenant, container)


def _was_in_vain(tenant: Tenant, container: Container, rules: Rules) -> bool:
    told = tenant.status.container if tenant.status is not None else None
    is_told_run = told is not None and told.started_at == container.started_at
    if is_told_run or container.started_at is None or container.finished_at is None:
        return False
    lasted = (container.finished_at - container.started_at).total_seconds()
    return 0 <= lasted < rules.settle_seconds  # less than nothing: the engine's clock was set


def _was_told_up(tenant: Tenant, container: Container) -> bool:
    status = tenant.status
    if status is None or status.container is None:
        return False
    is_up = status.state is State.RUNNING or status.reason in _UP_AND_FAILED
    return is_up and status.container.container_id == container.container_id


def _split(
    tenant: Tenant, containers: Sequence[Container]
) -> tuple[list[Container], list[Container]]:
    matching = [container for container in containers if is_wanted(tenant, container)]
    return matching, [container for container in containers if container not in matching]


def _least_useful(containers: Sequence[Container]) -> Container:
    return min(containers, key=usefulness)


def _worth(tenant: Tenant, container: Container) -> tuple[bool, ...]:
    """Rate what to fall back to: one that has proved itself is worth more than one that runs."""
    return (_was_told_up(tenant, container), *usefulness(container))


def _let_go(container: Container) -> Action:
    return Stop(container) if container.status in ALIVE else Remove(container)


# --- resync -----------------------------------------------------------------------------------


def deserves_look(standing: Standing, sightings: Sequence[Sighting]) -> bool:
    """Whether the engine's list of its containers gives reason for a pass; not if at rest."""
    if not standing.is_answered or standing.setback is not None:
        return True
    if standing.desired is Desired.DELETED:
        return bool(sightings)
    told = standing.container_id
    if standing.state is None or len(sightings) != (0 if told is None else 1):
        return True
    if not sightings or told is None:
        return standing.desired is Desired.RUNNING
    has_finished = standing.state is State.STOPPED and standing.reason is Reason.EXITED
    is_trouble = standing.state is not State.RUNNING and not has_finished
    if standing.desired is Desired.RUNNING and is_trouble:
        return True
    seen = sightings[0]
    is_up = seen.status is ContainerStatus.RUNNING and seen.health in (Health.NONE, Health.HEALTHY)
    return (
        seen.container_id != told
        or seen.role is not Role.CURRENT
        or is_up is not (standing.state is State.RUNNING)
        or standing.fingerprint not in (None, seen.fingerprint)
    )
