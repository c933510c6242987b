"""What an observation amounts to: the facts as state and reason, measured by what is wanted.

Pure functions over values; `now` is seconds of the clock that cannot step. The engine's times are
compared with each other only. Its `State.Running` is never used: it is true during a restart
backoff. The table of the contract's reasons stands in `assess`; who restarts what, and when ends
and restarts make a crash loop, stands below it. `plan` decides with this, `status` tells it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, assert_never

from consumer.model import (
    Container,
    ContainerStatus,
    Desired,
    EventKind,
    Health,
    Reason,
    Role,
    State,
    Tenant,
)

ALIVE: Final = frozenset(
    {ContainerStatus.RUNNING, ContainerStatus.PAUSED, ContainerStatus.RESTARTING}
)
PAST_USE: Final = frozenset({ContainerStatus.REMOVING, ContainerStatus.DEAD})
"""A container that can never run again: on its way out, or what a failed removal left."""
_KILLED_BY_HAND: Final = frozenset({128 + 9, 128 + 15})
_RESTARTED_BY_ENGINE: Final = frozenset({"always", "unless-stopped"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """The times that decisions depend on, in seconds, and the count that makes a crash loop."""

    start_timeout_seconds: float = 300.0
    """A container whose health check is still starting after this long has failed."""
    settle_seconds: float = 1.0
    """A restarted or replacing container counts as running once it has stayed up this long."""
    stable_seconds: float = 10.0
    """A crash loop is over once the container has stayed up this long."""
    crash_loop_restarts: int = 3
    crash_loop_window_seconds: float = 60.0
    """When to look again at a container that is being removed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What an observation amounts to. `state` None: too early to say.

    Look again in `look_in_seconds`, whatever the state.
    """

    state: State | None
    reason: Reason = Reason.UNCHANGED
    message: str = ""
    container: Container | None = None
    look_in_seconds: float | None = None


def assess(tenant: Tenant, containers: Sequence[Container], now: float, rules: Rules) -> Finding:
    """Say what the tenant's containers amount to, measured by what is wanted."""
    container = main_container(tenant, containers) if containers else None
    if tenant.desired is not Desired.RUNNING:
        return _assess_unwanted(tenant, container)
    if container is None or container.status is ContainerStatus.REMOVING:
        return _assess_absent(tenant)
    return _assess_wanted(tenant, container, containers, now, rules)


def _assess_wanted(
    tenant: Tenant,
    container: Container,
    containers: Sequence[Container],
    now: float,
    rules: Rules,
) -> Finding:
    match container.status:
        case ContainerStatus.RUNNING:
            has_to_last = _is_restart(tenant, container) or _is_replacing(tenant, containers)
            return _assess_running(tenant, container, now, rules, has_to_last=has_to_last)
        case ContainerStatus.RESTARTING:
            return _assess_restarting(tenant, container, now, rules)
        case ContainerStatus.EXITED:
            return _assess_exited(tenant, container, now, rules)
        case ContainerStatus.PAUSED:
            message = "the container was paused by someone else"
            return _found(State.STOPPED, Reason.STOPPED_EXTERNALLY, message, container)
        case ContainerStatus.CREATED | ContainerStatus.REMOVING | ContainerStatus.DEAD:
            return _from_setback(tenant, container) or Finding(state=None, container=container)
        case _:
            assert_never(container.status)


def _assess_unwanted(tenant: Tenant, container: Container | None) -> Finding:
    is_there = container is not None and (
        tenant.desired is Desired.DELETED or container.status in ALIVE
    )
    # What another ledger's consumer left under its name is not ours to remove, nor nothing.
    is_name_taken = tenant.setback is not None and tenant.setback.reason is Reason.NAME_CONFLICT
    if is_there or is_name_taken:
        return _from_setback(tenant, container) or Finding(state=None, container=container)
    if tenant.desired is Desired.DELETED:
        return _found(State.STOPPED, Reason.DELETED, "no container is left", None)
    return _found(State.STOPPED, Reason.SUSPENDED, "the tenant is suspended", container)


def _assess_absent(tenant: Tenant) -> Finding:
    from_setback = _from_setback(tenant, None)
    if from_setback is not None:
        return from_setback
    if tenant.spec is None:
        message = "the container is gone and no tenant document is known to make it again"
    else:
        message = "the container was removed by someone else"
    return _found(State.FAILED, Reason.MISSING, message, None)


def _assess_running(
    tenant: Tenant, container: Container, now: float, rules: Rules, *, has_to_last: bool
) -> Finding:
    if container.health is Health.UNHEALTHY:
        message = "the health check of the container fails"
        return _found(State.FAILED, Reason.UNHEALTHY, message, container)
    if container.health is Health.STARTING:
        return _assess_health_starting(container, now, rules)
    if is_crash_looping(tenant, container, now, rules):
        look_in = until_up(container, now, rules.stable_seconds)
        return _crash_loop(container, look_in)
    if has_to_last and up_seconds(container, now) < rules.settle_seconds:
        look_in = until_up(container, now, rules.settle_seconds)
        return Finding(state=None, container=container, look_in_seconds=look_in)
    if not is_wanted(tenant, container) and tenant.setback is not None:
        message = f"still on the former container: {tenant.setback.message}"
        return _found(State.RUNNING, Reason.ROLLED_BACK, message, container)
    if tenant.setback is not None and has_other_limits(tenant, container):
        message = f"still with the former limits: {tenant.setback.message}"
        return _found(State.RUNNING, Reason.ROLLED_BACK, message, container)
    return _found(State.RUNNING, Reason.UNCHANGED, "the container runs", container)


def _assess_health_starting(container: Container, now: float, rules: Rules) -> Finding:
    if up_seconds(container, now) < rules.start_timeout_seconds:
        look_in = until_up(container, now, rules.start_timeout_seconds)
        return Finding(state=None, container=container, look_in_seconds=look_in)
    message = f"not healthy {rules.start_timeout_seconds:g} s after its start"
    return _found(State.FAILED, Reason.START_TIMEOUT, message, container)


def _assess_restarting(tenant: Tenant, container: Container, now: float, rules: Rules) -> Finding:
    if is_crash_looping(tenant, container, now, rules):
        return _crash_loop(container, None)
    if container.oom_killed:
        return _out_of_memory(container)
    if container.exit_code:
        message = f"exited with code {container.exit_code}; its restart policy starts it again"
        return _found(State.FAILED, Reason.EXITED, message, container)
    return Finding(state=None, container=container, look_in_seconds=rules.settle_seconds)


def _assess_exited(tenant: Tenant, container: Container, now: float, rules: Rules) -> Finding:
    if container.oom_killed:
        return _out_of_memory(container)
    setback = _from_setback(tenant, container)
    if setback is not None and not has_fallen_back(tenant, container):
        return setback
    code = container.exit_code or 0
    if is_restored(tenant, container):
        if is_crash_looping(tenant, container, now, rules):
            return _crash_loop(container, None)
        if code in _KILLED_BY_HAND or code == 0:
            message = f"stopped by someone else (exit code {code})"
            return _found(State.STOPPED, Reason.STOPPED_EXTERNALLY, message, container)
    if code == 0:
        message = "exited with code 0 and is not to be restarted"
        return _found(State.STOPPED, Reason.EXITED, message, container)
    message = f"exited with code {code}"
    return _found(State.FAILED, Reason.EXITED, message, container)


def _out_of_memory(container: Container) -> Finding:
    limit = f" of {container.resources.memory} MB" if container.resources else ""
    message = f"killed for exceeding its memory limit{limit}"
    return _found(State.FAILED, Reason.OOM_KILLED, message, container)


def _crash_loop(container: Container, look_in: float | None) -> Finding:
    ending = "out of memory" if container.oom_killed else f"exit code {container.exit_code or 0}"
    message = f"keeps ending soon after its start: restarted {container.restart_count} times"
    if container.status is not ContainerStatus.RUNNING:
        message += f", last {ending}"
    return Finding(
        state=State.FAILED,
        reason=Reason.CRASH_LOOP,
        message=message,
        container=container,
        look_in_seconds=look_in,
    )


def _from_setback(tenant: Tenant, container: Container | None) -> Finding | None:
    if tenant.setback is None:
        return None
    return _found(State.FAILED, tenant.setback.reason, tenant.setback.message, container)


def _found(state: State, reason: Reason, message: str, container: Container | None) -> Finding:
    return Finding(state=state, reason=reason, message=message, container=container)


def recent_restarts(
    tenant: Tenant, container: Container, now: float, rules: Rules
) -> tuple[datetime, ...]:
    """Return the remembered restarts within the crash-loop window, oldest first.

    The window ends at what the engine's clock would show if nobody had set it since this run. A
    restart that lies after that happened before it was set back: how long ago, nobody knows.
    """
    window = rules.crash_loop_window_seconds
    return tuple(
        at for at in tenant.restarts if 0 <= _engine_seconds_since(at, container, now) <= window
    )


def _engine_seconds_since(at: datetime, container: Container, now: float) -> float:
    """Return how long ago the engine's clock showed this time, by the container's last run."""
    began, ended = container.started_at, container.finished_at
    if began is None:
        return (container.created_at - at).total_seconds()
    since_began = up_seconds(container, now)
    if ended is not None and container.status is not ContainerStatus.RUNNING:
        # Of what we have not seen for long, the engine knows better how long it lasted.
        since_began = max(since_began, (ended - began).total_seconds())
    return (began - at).total_seconds() + since_began


def until_restart_is_old(at: datetime, container: Container, now: float, rules: Rules) -> float:
    """Return in how many seconds the restart will have left the crash-loop window."""
    return rules.crash_loop_window_seconds - _engine_seconds_since(at, container, now)


def note_restart(
    tenant: Tenant, containers: Sequence[Container], now: float, rules: Rules
) -> tuple[datetime, ...]:
    """Return the remembered restarts with the observed run added, if it began by a restart.

    A run is known by its start time; so looking twice counts once.
    """
    if not containers:
        return tenant.restarts
    container = main_container(tenant, containers)
    recent = recent_restarts(tenant, container, now, rules)
    if container.started_at is None or container.started_at in recent:
        return recent
    if not _is_restart(tenant, container):
        return recent
    return (*recent, container.started_at)[-2 * rules.crash_loop_restarts :]


def is_crash_looping(tenant: Tenant, container: Container, now: float, rules: Rules) -> bool:
    """Whether the container is caught in a loop of ends and restarts.

    Once it is, it stays so until a run has lasted; in between the engine's own backoff may be
    longer than any window.
    """
    has_lasted = up_seconds(container, now) >= rules.stable_seconds
    if container.status is ContainerStatus.RUNNING and has_lasted:
        return False
    if _told_crash_loop_of(tenant, container):
        return True
    if len(recent_restarts(tenant, container, now, rules)) >= rules.crash_loop_restarts:
        return True
    age = _engine_seconds_since(container.created_at, container, now)
    is_young = 0 <= age <= rules.crash_loop_window_seconds
    return is_young and container.restart_count >= rules.crash_loop_restarts


def _told_crash_loop_of(tenant: Tenant, container: Container) -> bool:
    status = tenant.status
    return (
        status is not None
        and status.reason is Reason.CRASH_LOOP
        and status.container is not None
        and status.container.container_id == container.container_id
    )


def _is_restart(tenant: Tenant, container: Container) -> bool:
    """Whether this run of the container is not its first, as far as we told of it."""
    # The engine counts a restart when a run ends, before the next one begins.
    is_about_to_begin = container.status is ContainerStatus.RESTARTING
    if container.restart_count > int(is_about_to_begin):
        return True
    told = tenant.status.container if tenant.status is not None else None
    return (
        tenant.is_answered
        and told is not None
        and told.container_id == container.container_id
        and told.started_at != container.started_at
    )


def _is_replacing(tenant: Tenant, containers: Sequence[Container]) -> bool:
    """Whether there still is another to go back to, should this one not last."""
    return len(containers) > 1 and not all(is_wanted(tenant, seen) for seen in containers)


def up_seconds(container: Container, now: float) -> float:
    """Return how long ago this run of the container began, as far as we have seen it."""
    return 0.0 if container.run_seen is None else now - container.run_seen


def until_up(container: Container, now: float, seconds: float) -> float:
    """Return in how many seconds this run will have lasted so long."""
    return seconds - up_seconds(container, now)


def is_held_back(tenant: Tenant, now: float) -> bool:
    """Whether a failed try keeps us from trying again at this time.

    Not so for an engine that could not be reached: asking it is the try.
    """
    setback = tenant.setback
    if setback is None or setback.reason is Reason.ENGINE_UNAVAILABLE:
        return False
    if setback.next_attempt_at is None:
        return True
    return setback.due is not None and now < setback.due


def is_restored(tenant: Tenant, container: Container) -> bool:
    """Whether an exited container is to be started again by us.

    What ends by itself is Docker's to restart, as its policy says. A container that its policy
    would have restarted was stopped by hand, and so was one that died of the signals `docker stop`
    and `docker kill` send.
    """
    if tenant.kind is EventKind.RESUMED and not tenant.is_answered:
        return True
    if container.restart_policy.name in _RESTARTED_BY_ENGINE:
        return True
    return container.exit_code in _KILLED_BY_HAND and not container.oom_killed


def is_wanted(tenant: Tenant, container: Container) -> bool:
    return tenant.fingerprint in (None, container.fingerprint)


def has_other_limits(tenant: Tenant, container: Container) -> bool:
    """Whether what the engine changes in place is not as the document says."""
    spec = tenant.spec
    return spec is not None and (
        container.resources not in (None, spec.resources)
        or container.restart_policy != spec.restart_policy
    )


def has_fallen_back(tenant: Tenant, container: Container) -> bool:
    """Whether this run of the former container is what a rolled-back tenant was told to have.

    Its end is news of its own, which the failure of the update does not explain.
    """
    status = tenant.status
    told = status.container if status is not None else None
    return (
        tenant.is_answered
        and container.role is Role.CURRENT
        and not is_wanted(tenant, container)
        and status is not None
        and told is not None
        and (told.container_id, told.started_at) == (container.container_id, container.started_at)
        and (tenant.setback is None or status.reason is not tenant.setback.reason)
    )


def usefulness(container: Container) -> tuple[bool, bool, bool]:
    return (
        container.status in ALIVE,
        container.role is Role.CURRENT,
        container.status is not ContainerStatus.CREATED,
    )


def main_container(tenant: Tenant, containers: Sequence[Container]) -> Container:
    """Return the container that stands for the tenant: one that is alive, else the wanted one."""
    return max(
        containers,
        key=lambda container: (
            container.status in ALIVE,
            is_wanted(tenant, container) and container.status is not ContainerStatus.CREATED,
            usefulness(container),
        ),
    )
