"""What a tenant event does to what is wanted of its tenant: pure, the ledger's rule of recording.

The newest intention wins: an event that is not newer than the recorded one changes nothing, also
after a delete. Suspension outlives updates: a suspended tenant's new spec is kept for when it is
resumed. Suspending or resuming a tenant that was deleted asks for nothing, and is answered so; of
one that is not known it is refused.
That an event id was seen before is the ledger's to know; everything else is decided here.
"""

from dataclasses import replace
from typing import Final, assert_never

from consumer.errors import Fault
from consumer.model import Desired, EventKind, Reason, Refusal, Tenant, TenantEvent, Verdict

MISSING: Final = Fault("tenant_id", "missing: no tenant of this id is known to this consumer")
"""What is wrong with suspending or resuming a tenant that is not known."""


def weigh(tenant: Tenant | None, event: TenantEvent) -> Verdict:
    """Say whether the event is news for this tenant."""
    if tenant is None:
        is_about_nothing = event.kind in (EventKind.SUSPENDED, EventKind.RESUMED)
        return Verdict.MISSING if is_about_nothing else Verdict.RECORDED
    if event.generation is not None and tenant.generation is not None:
        if event.generation <= tenant.generation:
            return Verdict.STALE
        return Verdict.RECORDED
    if event.event_id is None and event.generation is None and not changes(tenant, event):
        return Verdict.DUPLICATE
    return Verdict.RECORDED


def refusal_of_missing(event: TenantEvent) -> Refusal:
    """Return what is told of an event that is about a tenant that is not known."""
    return Refusal(
        tenant_id=event.tenant_id,
        received_at=event.received_at,
        reason=Reason.INVALID_EVENT,
        message=str(MISSING),
        event_id=event.event_id,
        correlation_id=event.correlation_id,
        traceparent=event.traceparent,
    )


def changes(tenant: Tenant | None, event: TenantEvent) -> bool:
    """Whether the event wants something else than what is recorded."""
    if tenant is None:
        return True
    if wanted_after(tenant, event) is not tenant.desired:
        return True
    return event.spec is not None and event.spec != tenant.spec


def wanted_after(tenant: Tenant | None, event: TenantEvent) -> Desired:
    """What is wanted of the tenant once the event is recorded."""
    before = tenant.desired if tenant is not None else Desired.DELETED
    match event.kind:
        case EventKind.CREATED | EventKind.UPDATED:
            return Desired.STOPPED if before is Desired.STOPPED else Desired.RUNNING
        case EventKind.DELETED:
            return Desired.DELETED
        case EventKind.SUSPENDED:
            return Desired.DELETED if before is Desired.DELETED else Desired.STOPPED
        case EventKind.RESUMED:
            return Desired.DELETED if before is Desired.DELETED else Desired.RUNNING
        case _:
            assert_never(event.kind)


def intend(tenant: Tenant | None, event: TenantEvent) -> Tenant:
    """Return the tenant with the event recorded: next revision, and no setback in its way."""
    known = tenant or Tenant(
        tenant_id=event.tenant_id,
        desired=Desired.DELETED,
        revision=0,
        received_at=event.received_at,
    )
    desired = wanted_after(tenant, event)
    spec = None if desired is Desired.DELETED else event.spec or known.spec
    return replace(
        known,
        desired=desired,
        kind=event.kind,
        spec=spec,
        fingerprint=spec.fingerprint if spec else _kept_fingerprint(known, desired),
        revision=known.revision + 1,
        received_at=event.received_at,
        generation=known.generation if event.generation is None else event.generation,
        event_id=event.event_id,
        correlation_id=event.correlation_id,
        traceparent=event.traceparent,
        setback=None,
    )


def _kept_fingerprint(tenant: Tenant, desired: Desired) -> str | None:
    return None if desired is Desired.DELETED else tenant.fingerprint
