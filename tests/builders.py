"""Valid values for tests: everything has a default, one keyword makes one difference."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime

from pamqp.commands import Basic
from pamqp.common import FieldValue

from consumer.messages import Delivery
from consumer.model import (
    Container,
    ContainerId,
    ContainerStatus,
    Desired,
    EventId,
    EventKind,
    Origin,
    Reason,
    Resources,
    Role,
    Standing,
    State,
    Status,
    Tenant,
    TenantEvent,
    TenantId,
    TenantLine,
    TenantSpec,
)

TENANT_ID = TenantId("acme-corp")
MOMENT = datetime(2026, 11, 24, 10, 0, tzinfo=UTC)
UNRECORDED = Origin(serial=10**15)
"""Of a container that we made, and of which no ledger has heard yet."""


def make_spec(**changes: object) -> TenantSpec:
    """Return a spec of a small web server."""
    fields: dict[str, object] = {
        "provider_type": "docker",
        "image": "nginx:alpine",
        "resources": Resources(cpu=500, memory=256),
        "log_options": (("max-file", "3"), ("max-size", "10m")),
    }
    return TenantSpec(**(fields | changes))  # type: ignore[arg-type]  # checked at run time


def make_event(kind: EventKind = EventKind.CREATED, **changes: object) -> TenantEvent:
    """Return a tenant event; created and updated carry a spec."""
    fields: dict[str, object] = {
        "tenant_id": TENANT_ID,
        "received_at": MOMENT,
        "event_id": EventId("event-1"),
        "spec": make_spec() if kind in (EventKind.CREATED, EventKind.UPDATED) else None,
    }
    return TenantEvent(kind=kind, **(fields | changes))  # type: ignore[arg-type]  # at run time


def make_document(
    tenant_id: str = TENANT_ID, image: str = "nginx:alpine", **changes: object
) -> bytes:
    """Return the body of a tenant document."""
    fields: dict[str, object] = {"tenant_id": tenant_id, "containers": [{"image": image}]}
    return json.dumps(fields | changes).encode()


def make_delivery(
    tag: int, kind: str = "tenant.created", body: bytes | None = None, **changes: object
) -> Delivery:
    """Return a delivery whose event id is made of its tag."""
    fields: dict[str, object] = {
        "body": make_document() if body is None else body,
        "tag": tag,
        "session": 1,
        "received_at": MOMENT,
        "routing_key": kind,
        "headers": {},
        "properties": {},
        "message_id": f"event-{tag}",
    }
    return Delivery(**(fields | changes))  # type: ignore[arg-type]  # checked at run time


def make_raw(headers: Mapping[str, object], **properties: object) -> bytes:
    """Return these properties and headers as they go over the wire."""
    table: dict[str, FieldValue] = {**headers}  # type: ignore[dict-item]  # checked at run time
    return Basic.Properties(headers=table, **properties).marshal()  # type: ignore[arg-type]  # as above


def make_bare_delivery(
    tag: int, kind: str, tenant_id: str = TENANT_ID, **changes: object
) -> Delivery:
    """Return a delivery that carries no document but the tenant's id."""
    return make_delivery(tag, kind, json.dumps({"tenant_id": tenant_id} | changes).encode())


def make_container(**changes: object) -> Container:
    """Return a container that runs the spec of `make_spec`."""
    fields: dict[str, object] = {
        "container_id": ContainerId("c" * 64),
        "name": "landlord-tenant-acme-corp",
        "tenant_id": TENANT_ID,
        "role": Role.CURRENT,
        "fingerprint": make_spec().fingerprint,
        "image": "nginx:alpine",
        "image_id": "sha256:" + "a" * 64,
        "status": ContainerStatus.RUNNING,
        "created_at": MOMENT,
        "started_at": MOMENT,
        "resources": Resources(cpu=500, memory=256),
        "origin": UNRECORDED,
    }
    run = (fields | changes)["started_at"]
    if isinstance(run, datetime):
        # As if we had seen it begin; the clock that cannot step shows 0 at `MOMENT`.
        fields["run_seen"] = (run - MOMENT).total_seconds()
    return Container(**(fields | changes))  # type: ignore[arg-type]  # checked at run time


def make_tenant(**changes: object) -> Tenant:
    """Return a tenant that is wanted running and whose event waits for its answer."""
    fields: dict[str, object] = {
        "tenant_id": TENANT_ID,
        "desired": Desired.RUNNING,
        "kind": EventKind.CREATED,
        "revision": 1,
        "received_at": MOMENT,
        "spec": make_spec(),
        "fingerprint": make_spec().fingerprint,
        "event_id": EventId("event-1"),
    }
    return Tenant(**(fields | changes))  # type: ignore[arg-type]  # checked at run time


def make_status(**changes: object) -> Status:
    """Return a status that says the tenant runs."""
    fields: dict[str, object] = {
        "tenant_id": TENANT_ID,
        "state": State.RUNNING,
        "reason": Reason.STARTED,
        "message": "container started in 0.31 s",
        "occurred_at": MOMENT,
        "provider_type": "docker",
    }
    return Status(**(fields | changes))  # type: ignore[arg-type]  # checked at run time


def make_line(tenant_id: str = TENANT_ID, **changes: object) -> TenantLine:
    """Return the line of a tenant that runs."""
    fields: dict[str, object] = {
        "tenant_id": TenantId(tenant_id),
        "desired": Desired.RUNNING,
        "state": "running",
        "sequence": 1,
        "since": MOMENT,
        "is_answered": True,
    }
    return TenantLine(**(fields | changes))  # type: ignore[arg-type]  # checked at run time


def standing_of(tenant: Tenant) -> Standing:
    """Return how this tenant stands."""
    status = tenant.status
    told = status.container if status is not None else None
    return Standing(
        tenant_id=tenant.tenant_id,
        desired=tenant.desired,
        is_answered=tenant.is_answered,
        fingerprint=tenant.fingerprint,
        setback=tenant.setback,
        state=status.state if status is not None else None,
        reason=status.reason if status is not None else None,
        container_id=told.container_id if told is not None else None,
        containers=tenant.containers,
        made=tenant.made,
    )
