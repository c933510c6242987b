"""Whether a finding is news, and the status event that tells it.

Pure functions over values. Every accepted tenant event is answered; beyond that, only what changed
since the last status is told. The reconciler commits what `tell` returns; the ledger numbers it.
"""

from collections.abc import Iterator, Mapping
from dataclasses import fields, replace
from datetime import datetime, timedelta
from typing import Final

from consumer.finding import Finding
from consumer.messages import LONGEST_MESSAGE
from consumer.model import (
    BoundPort,
    Container,
    ContainerReport,
    EventKind,
    Health,
    Reason,
    State,
    Status,
    Tenant,
    TenantSpec,
    Transport,
)

_MOST_EXPOSED: Final = 256
"""As many as a document may have; a range of an image's would be megabytes in each status."""
_ASKS_WHY: Final = frozenset(
    {
        Reason.EXITED,
        Reason.OOM_KILLED,
        Reason.CRASH_LOOP,
        Reason.UNHEALTHY,
        Reason.START_TIMEOUT,
    }
)
"""Failures of which the container itself may have said why."""


def tell(tenant: Tenant, finding: Finding, now: datetime, *, since_receipt: float) -> Status | None:
    """Return the status event that the finding calls for; None when it is no news.

    `now` is the time of day, `since_receipt` how many seconds ago the tenant's event was received.

    The answer to an unanswered tenant event is always news.
    """
    if finding.state is None:
        return None
    reason = _reason(tenant, finding)
    if tenant.is_answered and not _is_news(tenant, finding, reason):
        return None
    changes = _changes(tenant, reason)
    setback = tenant.setback
    is_first_sight = reason in (Reason.STARTED, Reason.UPDATED, Reason.RESUMED)
    startup = since_receipt if is_first_sight else None
    status = Status(
        tenant_id=tenant.tenant_id,
        state=finding.state,
        reason=reason,
        message=_message(finding, reason, startup, changes),
        occurred_at=now,
        provider_type=_provider_type(tenant, finding.container),
        generation=tenant.generation,
        event_id=tenant.event_id,
        container=report(finding.container),
        ports=named_ports(tenant.spec, finding.container),
        health=finding.container.health if finding.container else Health.NONE,
        changes=changes,
        startup_seconds=startup,
        will_retry=setback is not None and setback.next_attempt_at is not None,
        attempt=setback.attempt if setback is not None else 1,
        next_attempt_at=_next_attempt_at(tenant, now),
    )
    last = tenant.status
    if reason is not Reason.INTERNAL_ERROR or last is None:
        return status
    # We failed, and know of nothing that has changed: the container is as it was last seen.
    return replace(status, container=last.container, ports=last.ports, health=last.health)


def _next_attempt_at(tenant: Tenant, now: datetime) -> datetime | None:
    """Return when the next try is; never before what is told has happened."""
    setback = tenant.setback
    if setback is None or setback.next_attempt_at is None:
        return None
    return max(setback.next_attempt_at, now + timedelta(milliseconds=1))


def _reason(tenant: Tenant, finding: Finding) -> Reason:
    """Choose the reason by what is news about it; see the contract's closed set."""
    if finding.reason in (Reason.DELETED, Reason.SUSPENDED):
        return Reason.UNCHANGED if _was_so_already(tenant, finding) else finding.reason
    if finding.state is not State.RUNNING or finding.reason is Reason.ROLLED_BACK:
        return finding.reason
    is_pending = not tenant.is_answered or tenant.applied != tenant.spec
    is_new_run = _is_new_run(tenant, finding.container)
    if tenant.kind is None and tenant.status is None:
        return Reason.ADOPTED
    if is_pending:
        return _reason_of_answer(tenant, finding.container)
    return _reason_of_change(tenant, is_new_run=is_new_run)


def _was_so_already(tenant: Tenant, finding: Finding) -> bool:
    """Whether the answer to a second delete or suspend is that nothing had to change."""
    last = tenant.status
    if last is None or tenant.is_answered or last.state is not State.STOPPED:
        return False
    told = last.container.container_id if last.container else None
    seen = finding.container.container_id if finding.container else None
    return told == seen and last.reason in (finding.reason, Reason.UNCHANGED)


def _reason_of_answer(tenant: Tenant, container: Container | None) -> Reason:
    was_running = tenant.status is not None and tenant.status.state is State.RUNNING
    if tenant.kind is EventKind.RESUMED:
        is_same_run = was_running and not _is_new_run(tenant, container)
        return Reason.UNCHANGED if is_same_run else Reason.RESUMED
    if tenant.applied is not None and tenant.applied != tenant.spec:
        return Reason.UPDATED
    if tenant.applied is None and was_running and _is_another(tenant, container):
        # It was adopted: what it was made of is not known, but that it was replaced is.
        return Reason.UPDATED
    return Reason.STARTED if _is_new_run(tenant, container) else Reason.UNCHANGED


def _reason_of_change(tenant: Tenant, *, is_new_run: bool) -> Reason:
    last = tenant.status
    if is_new_run:
        return Reason.RESTARTED
    if last is not None and last.reason in (Reason.UNHEALTHY, Reason.START_TIMEOUT):
        return Reason.HEALTHY
    if last is not None and last.reason in (
        Reason.CRASH_LOOP,
        Reason.STOPPED_EXTERNALLY,
        Reason.EXITED,
        Reason.OOM_KILLED,
    ):
        return Reason.RESTARTED
    return Reason.UNCHANGED


def _is_new_run(tenant: Tenant, container: Container | None) -> bool:
    told = tenant.status.container if tenant.status is not None else None
    if container is None or told is None:
        return True
    return (told.container_id, told.started_at) != (container.container_id, container.started_at)


def _is_another(tenant: Tenant, container: Container | None) -> bool:
    told = tenant.status.container if tenant.status is not None else None
    return container is None or told is None or told.container_id != container.container_id


def _is_news(tenant: Tenant, finding: Finding, reason: Reason) -> bool:
    last = tenant.status
    if last is None or last.state is not finding.state:
        return True
    attempt = tenant.setback.attempt if tenant.setback is not None else last.attempt
    if finding.state is State.RUNNING:
        is_told = reason is last.reason is Reason.ROLLED_BACK and attempt == last.attempt
        return reason is not Reason.UNCHANGED and not is_told
    if last.reason is not reason:
        return True
    if attempt != last.attempt:
        return reason is not Reason.ENGINE_UNAVAILABLE
    return (
        finding.state is State.FAILED
        and reason not in (Reason.CRASH_LOOP, Reason.POLICY_DENIED)
        and (_is_new_run(tenant, finding.container) and finding.container is not None)
    )


def _changes(tenant: Tenant, reason: Reason) -> tuple[str, ...]:
    if reason not in (Reason.UPDATED, Reason.RESUMED, Reason.ROLLED_BACK):
        return ()
    if tenant.applied is None or tenant.spec is None:
        return ()
    return differences(tenant.applied, tenant.spec)


def differences(before: TenantSpec, after: TenantSpec) -> tuple[str, ...]:
    """Return the names of the fields in which two specs differ."""
    return tuple(
        field.name
        for field in fields(TenantSpec)
        if getattr(before, field.name) != getattr(after, field.name)
    )


def _message(
    finding: Finding, reason: Reason, startup: float | None, changes: tuple[str, ...]
) -> str:
    match reason:
        case Reason.STARTED:
            return f"container started in {startup or 0:.2f} s"
        case Reason.UPDATED:
            named = f" ({', '.join(changes)})" if changes else ""
            return f"container updated in {startup or 0:.2f} s{named}"
        case Reason.RESUMED:
            return f"container resumed in {startup or 0:.2f} s"
        case Reason.RESTARTED:
            return "the container runs again"
        case Reason.ADOPTED:
            return "taken over: the container ran before this consumer knew of it"
        case Reason.HEALTHY:
            return "the health check of the container passes"
        case _:
            return finding.message


def asks_why(finding: Finding) -> bool:
    """Whether what the container said last belongs to the finding."""
    return finding.state is State.FAILED and finding.reason in _ASKS_WHY


def with_last_words(message: str, words: str) -> str:
    """Return the message with the container's last words below it; they lose their beginning."""
    room = LONGEST_MESSAGE - len(message.encode()) - 1
    if not words or room <= 0:
        return message
    return f"{message}\n{words.encode()[-room:].decode(errors='ignore')}"


def _provider_type(tenant: Tenant, container: Container | None) -> str:
    if tenant.spec is not None:
        return tenant.spec.provider_type
    if container is not None:
        return container.provider_type
    return tenant.status.provider_type if tenant.status is not None else "docker"


def report(container: Container | None) -> ContainerReport | None:
    """Return what a status tells of the container."""
    if container is None:
        return None
    return ContainerReport(
        container_id=container.container_id,
        name=container.name,
        image=container.image,
        image_id=container.image_id,
        started_at=container.started_at,
        finished_at=container.finished_at,
        exit_code=container.exit_code,
        restart_count=container.restart_count,
        oom_killed=container.oom_killed,
        health=container.health,
    )


def named_ports(spec: TenantSpec | None, container: Container | None) -> tuple[BoundPort, ...]:
    """Return the ports as the engine bound them, with the names that the tenant gave them.

    Of those that an image exposes, and nobody asked for, not more than the first few hundred.
    """
    if container is None:
        return ()
    wanted = spec.ports if spec is not None else ()
    exact = {(port.container_port, port.protocol, port.host_port): port.name for port in wanted}
    loose = {(port.container_port, port.protocol): port.name for port in wanted}
    return tuple(
        BoundPort(
            container_port=port.container_port,
            protocol=port.protocol,
            host_ip=port.host_ip,
            host_port=port.host_port,
            name=exact.get(
                (port.container_port, port.protocol, port.host_port or 0),
                loose.get((port.container_port, port.protocol)),
            ),
        )
        for port in _told_ports(container, loose)
    )


def _told_ports(
    container: Container, wanted: Mapping[tuple[int, Transport], str | None]
) -> Iterator[BoundPort]:
    left = _MOST_EXPOSED
    for port in container.ports:
        if port.host_port is None and (port.container_port, port.protocol) not in wanted:
            left -= 1
            if left < 0:
                continue
        yield port
