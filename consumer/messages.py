"""Wire contracts: decode a tenant event, encode a status event.

Everything that crosses the broker or is kept as JSON in the ledger gets its shape here and nowhere
else. Decoding reports every fault of a document at once and never lets an unknown field pass.
Nothing here waits or reads a clock. Before it comes the broker adapter, after it `policy` and
intake.
"""

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from hashlib import blake2b
from typing import Final

from pydantic import BaseModel, ConfigDict, TypeAdapter

from consumer.content_header import EMPTY
from consumer.document import (
    DocumentError,
    SpecDefaults,
    is_null,
    read_document,
    read_subject,
    to_spec,
)
from consumer.errors import Fault, InvalidMessage
from consumer.model import (
    BoundPort,
    ContainerId,
    ContainerReport,
    Document,
    EventId,
    EventKind,
    Health,
    OutboxEntry,
    Reason,
    State,
    Status,
    TenantEvent,
    TenantId,
    TenantSpec,
    Transport,
    as_document,
    as_tenant_id,
)
from consumer.parsing import as_text, parse_json, parse_yaml
from consumer.remembered import remembered

STRUCTURED: Final = "application/cloudevents+json"
_YAML_TYPES: Final = frozenset(
    ("application/yaml", "application/x-yaml", "text/yaml", "text/x-yaml")
)
LONGEST_MESSAGE: Final = 2048
"""Of a status event, in bytes of UTF-8."""
_LONGEST_ID: Final = 255


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """One inbound message together with the right to settle it once.

    `session` numbers the broker connection it came by: it can be settled only while that one lives.
    `headers` are the AMQP headers with byte strings decoded; `properties` are all other AMQP
    properties that are set, by their AMQP names. `raw_properties` are both as they came, so that a
    dead letter can carry them unchanged. `faults` tell what of them cannot be read, whose value
    then is its bytes; such a message is no tenant event.
    """

    body: bytes
    tag: int
    session: int
    received_at: datetime
    routing_key: str
    exchange: str = ""
    redelivered: bool = False
    headers: Mapping[str, object]
    properties: Mapping[str, object]
    raw_properties: bytes = EMPTY
    faults: tuple[Fault, ...] = ()
    content_type: str | None = None
    message_id: str | None = None
    event_type: str | None = None
    correlation_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetter:
    """A delivery bound for the dead-letter exchange: unchanged but for new headers."""

    delivery: Delivery
    headers: Mapping[str, str]


# --- the envelope -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Envelope:
    """What a delivery says of itself, and its document, parsed."""

    event_type: str
    event_id: str | None
    document: object
    traceparent: str | None = None


def event_type(delivery: Delivery) -> str:
    """Return the event type as far as the envelope alone tells it (not that of structured mode)."""
    return _cloud_attribute(delivery, "type") or delivery.event_type or delivery.routing_key


def tracing(delivery: Delivery) -> tuple[str | None, str | None]:
    """Return correlation id and traceparent, to be carried over to the status events."""
    traceparent = delivery.headers.get("traceparent") or _cloud_attribute(delivery, "traceparent")
    return _carried(delivery.correlation_id), _carried(traceparent)


def _carried(value: object) -> str | None:
    """Return an identifier that every ledger and every broker can hold, else None."""
    if not isinstance(value, str) or len(value) > _LONGEST_ID or "\0" in value:
        return None
    return value


def _cloud_attribute(delivery: Delivery, name: str) -> str | None:
    for prefix in ("cloudEvents:", "cloudEvents_"):
        value = delivery.headers.get(prefix + name)
        if isinstance(value, str) and value:
            return value
    return None


def content_key(delivery: Delivery) -> tuple[bytes, str | None, str] | None:
    """Return all that the tenant event depends on but its envelope; None where they are one.

    Of the body it is a digest (BLAKE2b, 32 bytes), which nobody can make for another body.

    Two deliveries with equal keys are the same tenant event, each with its own `readdressed`.
    """
    if delivery.faults or any(name.startswith("cloudEvents") for name in delivery.headers):
        return None
    if _media_type(delivery.content_type) == STRUCTURED:
        return None
    if delivery.message_id is not None and _carried(delivery.message_id) is None:
        return None
    digest = blake2b(delivery.body, digest_size=32).digest()
    return digest, delivery.content_type, event_type(delivery)


def readdressed(event: TenantEvent, delivery: Delivery) -> TenantEvent:
    """Return the tenant event as this delivery carries it; both have the same `content_key`."""
    correlation_id, traceparent = tracing(delivery)
    return TenantEvent(
        kind=event.kind,
        tenant_id=event.tenant_id,
        received_at=delivery.received_at,
        event_id=EventId(delivery.message_id) if delivery.message_id else None,
        generation=event.generation,
        spec=event.spec,
        correlation_id=correlation_id,
        traceparent=traceparent,
    )


def decode_tenant_event(delivery: Delivery, defaults: SpecDefaults) -> TenantEvent:
    """Return the tenant event that the delivery carries.

    Raises InvalidMessage with every fault at once, and with the tenant's and the event's id as far
    as they could still be read.
    """
    event_id = _carried(_cloud_attribute(delivery, "id") or delivery.message_id)
    tenant_id: str | None = None
    try:
        envelope = _open(delivery, defaults)
        event_id = _carried(envelope.event_id)
        document = _as_mapping(envelope.document)
        kind = _kind(envelope.event_type)
        tenant_id = _readable_tenant_id(document)
        _check_id(envelope.event_id)
        event = _read(kind, document, defaults)
    except DocumentError as error:
        raise InvalidMessage(
            Reason.INVALID_EVENT, error.faults, tenant_id=tenant_id, event_id=event_id
        ) from None
    if event.spec is not None and event.spec.provider_type not in defaults.providers:
        known = ", ".join(sorted(defaults.providers))
        rule = f"{event.spec.provider_type!r} is not supported; configured: {known}"
        raise InvalidMessage(
            Reason.PROVIDER_NOT_SUPPORTED,
            (Fault("provider_type", rule),),
            tenant_id=tenant_id,
            event_id=event_id,
        )
    correlation_id, traceparent = tracing(delivery)
    return replace(
        event,
        event_id=EventId(event_id) if event_id else None,
        received_at=delivery.received_at,
        correlation_id=correlation_id,
        traceparent=envelope.traceparent or traceparent,
    )


def _read(kind: EventKind, document: Mapping[str, object], defaults: SpecDefaults) -> TenantEvent:
    at = datetime.fromtimestamp(0, UTC)
    if kind in (EventKind.CREATED, EventKind.UPDATED):
        full = read_document(document, defaults)
        return TenantEvent(
            kind=kind,
            tenant_id=TenantId(full.tenant_id),
            received_at=at,
            generation=full.generation,
            spec=to_spec(full, defaults),
        )
    subject = read_subject(document)
    return TenantEvent(
        kind=kind,
        tenant_id=TenantId(subject.tenant_id),
        received_at=at,
        generation=subject.generation,
    )


def _open(delivery: Delivery, defaults: SpecDefaults) -> _Envelope:
    if delivery.faults:
        raise DocumentError(delivery.faults)
    _check_length(len(delivery.body), defaults.max_body_bytes)
    content_type = _media_type(delivery.content_type)
    if content_type == STRUCTURED:
        return _open_structured(delivery, defaults)
    _check_version(_cloud_attribute(delivery, "specversion"))
    text = as_text(delivery.body)
    return _Envelope(
        event_type(delivery),
        _cloud_attribute(delivery, "id") or delivery.message_id,
        _yaml(text, defaults) if content_type in _YAML_TYPES else parse_json(text),
    )


def _check_length(length: int, most: int) -> None:
    if length > most:
        rule = f"the body has {length} bytes, at most {most} are taken"
        raise DocumentError([Fault("", rule)])


def _yaml(text: str, defaults: SpecDefaults) -> object:
    _check_length(len(text.encode()), defaults.max_yaml_bytes)
    return parse_yaml(text)


def _media_type(content_type: object) -> str:
    """Return the type without its parameters."""
    text = content_type if isinstance(content_type, str) else ""
    return text.partition(";")[0].strip().lower()


def _open_structured(delivery: Delivery, defaults: SpecDefaults) -> _Envelope:
    cloud_event = _as_mapping(parse_json(as_text(delivery.body)))
    _check_version(cloud_event.get("specversion"), is_required=True)
    kind, event_id = cloud_event.get("type"), cloud_event.get("id")
    if not isinstance(kind, str) or not isinstance(event_id, str):
        raise DocumentError([Fault("", "a CloudEvent needs type and id, both strings")])
    traceparent = _carried(cloud_event.get("traceparent"))
    return _Envelope(kind, event_id, _structured_content(cloud_event, defaults), traceparent)


def _structured_content(cloud_event: Mapping[str, object], defaults: SpecDefaults) -> object:
    is_yaml = _media_type(cloud_event.get("datacontenttype")) in _YAML_TYPES
    encoded, content = cloud_event.get("data_base64"), cloud_event.get("data")
    if not isinstance(encoded, str):
        return _yaml(content, defaults) if is_yaml and isinstance(content, str) else content
    try:
        text = as_text(base64.b64decode(encoded, validate=True))
    except DocumentError:
        raise
    except ValueError:
        raise DocumentError([Fault("data_base64", "is not base64")]) from None
    return _yaml(text, defaults) if is_yaml else parse_json(text)


def _check_version(version: object, *, is_required: bool = False) -> None:
    if version is None and not is_required:
        return
    if version != "1.0":
        raise DocumentError([Fault("specversion", "has to be 1.0 for a CloudEvent")])


def _check_id(event_id: str | None) -> None:
    if event_id is not None and _carried(event_id) is None:
        rule = f"has to be at most {_LONGEST_ID} characters without a NUL"
        raise DocumentError([Fault("id", rule)])


def _kind(text: str) -> EventKind:
    try:
        return EventKind(text)
    except ValueError:
        known = ", ".join(EventKind)
        rule = f"unknown event type {text[:80]!r}; known are {known}"
        raise DocumentError([Fault("type", rule)]) from None


def _readable_tenant_id(document: Mapping[str, object]) -> str | None:
    tenant_id = document.get("tenant_id")
    if not isinstance(tenant_id, str) or is_null(tenant_id):
        return None
    try:
        return as_tenant_id(str(tenant_id))
    except ValueError:
        return None


def _as_mapping(document: object) -> Mapping[str, object]:
    if not isinstance(document, dict):
        found = {list: "a list", type(None): "nothing"}.get(type(document), "a single value")
        raise DocumentError([Fault("", f"the document has to be an object, got {found}")])
    return document


# --- the ledger's JSON ------------------------------------------------------------------------

_SPEC: Final = TypeAdapter(TenantSpec)


# Values are read and written again and again, and many tenants share a spec.


@remembered
def encode_spec(spec: TenantSpec) -> str:
    """Return the spec as canonical JSON, without the fields at their default."""
    return json.dumps(as_document(spec), sort_keys=True, separators=(",", ":"))


@remembered
def decode_spec(text: str) -> TenantSpec:
    """Return the spec that `encode_spec` wrote."""
    return _SPEC.validate_json(text)


# --- status events ----------------------------------------------------------------------------


def instant(at: datetime | None) -> str | None:
    """Return a point in time as it is written in everything we send: UTC, to the millisecond."""
    if at is None:
        return None
    return at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def status_document(status: Status) -> Document:
    """Return the status as the JSON object of the contract."""
    return {
        "tenant_id": status.tenant_id,
        "state": status.state.value,
        "reason": status.reason.value,
        "message": _cut(status.message),
        "sequence": status.sequence,
        "generation": status.generation,
        "event_id": status.event_id,
        "provider_type": status.provider_type,
        "container": _container_document(status.container),
        "ports": [_port_document(port) for port in status.ports],
        "health": status.health.value,
        "changes": list(status.changes),
        "startup_seconds": _rounded(status.startup_seconds),
        "will_retry": status.will_retry,
        "attempt": status.attempt,
        "next_attempt_at": instant(status.next_attempt_at),
        "occurred_at": instant(status.occurred_at),
    }


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 3)


def _cut(message: str) -> str:
    """Return the message in at most 2 KiB of UTF-8, cut between characters."""
    encoded = message.encode("utf-8", "replace")
    if len(encoded) <= LONGEST_MESSAGE:
        return encoded.decode()
    return encoded[: LONGEST_MESSAGE - 3].decode("utf-8", "ignore") + "…"


def _container_document(container: ContainerReport | None) -> Document | None:
    if container is None:
        return None
    return {
        "id": container.container_id,
        "name": container.name,
        "image": container.image,
        "image_id": container.image_id,
        "started_at": instant(container.started_at),
        "finished_at": instant(container.finished_at),
        "exit_code": container.exit_code,
        "restart_count": container.restart_count,
        "oom_killed": container.oom_killed,
        "health": container.health.value,
    }


def _port_document(port: BoundPort) -> Document:
    return {
        "name": port.name,
        "container_port": port.container_port,
        "host_ip": port.host_ip,
        "host_port": port.host_port,
        "protocol": port.protocol.value,
    }


@remembered
def encode_status(status: Status) -> str:
    """Return the body of the status event."""
    return json.dumps(status_document(status), ensure_ascii=False, separators=(",", ":"))


class _Told(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True, use_attribute_docstrings=True)


class StatusContainerDocument(_Told):
    id: str
    """The engine's."""
    name: str
    """The engine's."""
    image: str
    """The reference that was asked for."""
    image_id: str
    """What the engine made of it."""
    started_at: datetime | None
    """When it last started."""
    finished_at: datetime | None
    """When it last ended."""
    exit_code: int | None
    """Of its last end."""
    restart_count: int
    """How often the engine has restarted it."""
    oom_killed: bool
    """Whether it was killed at its memory limit."""
    health: Health
    """What its health check says."""


class StatusPortDocument(_Told):
    name: str | None
    """As the document has it."""
    container_port: int
    """What the program listens on."""
    host_ip: str | None
    """Where it is really bound; null while it is not."""
    host_port: int | None
    """The same."""
    protocol: Transport
    """Always in small letters."""


class StatusDocument(_Told):
    """A status event as it is on the wire."""

    tenant_id: str
    """Whose status this is."""
    state: State
    """The summary."""
    reason: Reason
    """Why; each state has its own."""
    message: str
    """For people, at most 2 KiB. Of a failure it has the engine's own words."""
    sequence: int
    """Rises strictly for each tenant, for ever: drop what is not greater than the last one."""
    generation: int | None
    """The recorded one; null when none was ever given."""
    event_id: str | None
    """Of the tenant event that this answers, or that last counted."""
    provider_type: str
    """Who runs the container."""
    container: StatusContainerDocument | None
    """Null while there is none."""
    ports: list[StatusPortDocument]
    """What the engine really bound."""
    health: Health
    """What the health check says; none where there is no check."""
    changes: list[str]
    """What an update changed: image, env, ports and so on."""
    startup_seconds: float | None
    """From the receipt of the event to the container running, and healthy."""
    will_retry: bool
    """Whether a failure is tried again by itself."""
    attempt: int
    """How many tries there have been."""
    next_attempt_at: datetime | None
    """When the next one is."""
    occurred_at: datetime
    """In UTC, as every other time."""

    def status(self) -> Status:
        """Return the status as a value of the model."""
        return Status(
            tenant_id=TenantId(self.tenant_id),
            state=self.state,
            reason=self.reason,
            message=self.message,
            sequence=self.sequence,
            generation=self.generation,
            event_id=EventId(self.event_id) if self.event_id is not None else None,
            provider_type=self.provider_type,
            container=_report(self.container),
            ports=tuple(
                BoundPort(
                    port.container_port, port.protocol, port.host_ip, port.host_port, port.name
                )
                for port in self.ports
            ),
            health=self.health,
            changes=tuple(self.changes),
            startup_seconds=self.startup_seconds,
            will_retry=self.will_retry,
            attempt=self.attempt,
            next_attempt_at=self.next_attempt_at,
            occurred_at=self.occurred_at,
        )


def _report(told: StatusContainerDocument | None) -> ContainerReport | None:
    if told is None:
        return None
    return ContainerReport(
        container_id=ContainerId(told.id),
        name=told.name,
        image=told.image,
        image_id=told.image_id,
        started_at=told.started_at,
        finished_at=told.finished_at,
        exit_code=told.exit_code,
        restart_count=told.restart_count,
        oom_killed=told.oom_killed,
        health=told.health,
    )


@remembered
def decode_status(text: str) -> Status:
    """Return the status that `encode_status` wrote; fields it does not know are ignored."""
    return StatusDocument.model_validate_json(text).status()


def status_headers(entry: OutboxEntry, *, source: str) -> dict[str, str]:
    """Return the AMQP headers of a status event: the tenant, and CloudEvents in binary mode.

    `cloudEvents:id` is the same for every try to publish the same status event.
    """
    headers = {
        "tenant_id": entry.tenant_id,
        "cloudEvents:specversion": "1.0",
        "cloudEvents:id": f"{entry.tenant_id}/{entry.sequence}",
        "cloudEvents:type": f"tenant.status.{entry.state.value}",
        "cloudEvents:source": source,
        "cloudEvents:subject": entry.tenant_id,
        "cloudEvents:time": instant(entry.created_at) or "",
    }
    if entry.traceparent is not None:
        headers["traceparent"] = entry.traceparent
    return headers


def dead_letter_headers(error: InvalidMessage, received_at: datetime) -> dict[str, str]:
    """Return what a dead letter says of itself: the reason, every fault, when it came."""
    return {
        "landlord-reason": error.reason,
        "landlord-error": _cut(str(error)),
        "landlord-received-at": instant(received_at) or "",
    }
