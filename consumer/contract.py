"""The contract as documents for programs: JSON Schemas and AsyncAPI 3, with examples.

All of it comes from the code that reads and writes the messages, so that it cannot tell anything
else. A schema never refuses what the consumer takes; rules that JSON Schema has no words for are
kept by the consumer alone. The examples are one tenant's life in its order, and what is told of it.
Nothing here waits or looks at a clock. After it come `api`, which serves this, and `cli`, which
prints it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import yaml
from pydantic import BaseModel
from typing_extensions import override

from consumer.document import ALWAYS_SENT, SubjectDocument, TenantDocument
from consumer.messages import StatusDocument
from consumer.model import REASONS, Document, EventKind, Reason, State

_DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"
_IN_A_SCHEMA: Final = "#/$defs/{model}"
_IN_ASYNCAPI: Final = "#/components/schemas/{model}"
_AMQP: Final = "0.3.0"
"""Version of AsyncAPI's bindings for AMQP 0-9-1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerNames:
    """Where the broker is, without a login, and what our things on it are called."""

    host: str = "localhost:5672"
    virtual_host: str = "/"
    is_encrypted: bool = False
    tenant_exchange: str
    queue: str
    status_exchange: str
    dead_letter: str


@dataclass(frozen=True, slots=True)
class Example:
    """A message as it can be published or is told."""

    name: str
    summary: str
    payload: Document


# --- examples ---------------------------------------------------------------------------------

_ACME: Final[Document] = {
    "tenant_id": "acme-corp",
    "generation": 1,
    "containers": [
        {
            "image": "nginx:alpine",
            "env": {"LOG_LEVEL": "debug"},
            "ports": [{"name": "http", "container_port": 80, "host_port": 8080}],
        }
    ],
    "resources": {"cpu": 500, "memory": 256},
}
_ACME_LATER: Final[Document] = {
    **_ACME,
    "generation": 2,
    "containers": [
        {
            "name": "web",
            "image": "registry.example.com:5000/acme/web:2.1.0",
            "env": {"LOG_LEVEL": "info", "WORKERS": 2},
            "ports": [{"name": "http", "container_port": 80, "host_port": 8080}],
            "healthcheck": {
                "test": ["CMD-SHELL", "true"],
                "interval_seconds": 1,
                "timeout_seconds": 5,
                "retries": 3,
            },
        }
    ],
    "labels": {"team": "blue"},
    "provider_config": {
        "restart_policy": "on-failure:3",
        "stop_grace_seconds": 5,
        "log_options": {"max-size": "5m"},
    },
}

TENANT_EVENT_EXAMPLES: Final[Mapping[EventKind, Example]] = {
    EventKind.CREATED: Example("created", "A web server with a published port", _ACME),
    EventKind.UPDATED: Example(
        "updated", "Another image, from a registry, with a health check", _ACME_LATER
    ),
    EventKind.SUSPENDED: Example(
        "suspended", "Keep it, stopped", {"tenant_id": "acme-corp", "generation": 3}
    ),
    EventKind.RESUMED: Example(
        "resumed", "Run it again", {"tenant_id": "acme-corp", "generation": 4}
    ),
    EventKind.DELETED: Example(
        "deleted", "No container for this tenant", {"tenant_id": "acme-corp", "generation": 5}
    ),
}
"""One for each kind of tenant event; published in this order they are a tenant's life."""

_CONTAINER: Final[Document] = {
    "id": "5d84ffc2189365e1a53c84e9b3a1d0b4b23ab1e7e1e6a61e6a4ce4f3a0d1c7aa",
    "name": "landlord-tenant-acme-corp",
    "image": "nginx:alpine",
    "image_id": "sha256:2caec8b578345fa4a9c9eb3f4b9f5de10a33a1b3e6e6f44fb7cbb2bd0f44a5f9",
    "started_at": "2026-11-24T10:00:00.123Z",
    "finished_at": None,
    "exit_code": None,
    "restart_count": 0,
    "oom_killed": False,
    "health": "none",
}
_STARTED: Final[Document] = {
    "tenant_id": "acme-corp",
    "state": "running",
    "reason": "started",
    "message": "container started in 0.31 s",
    "sequence": 1795514400123,
    "generation": 1,
    "event_id": "5f0c7a52-6a1e-4d38-9f0b-2f6a3f9f1f0e",
    "provider_type": "docker",
    "container": _CONTAINER,
    "ports": [
        {
            "name": "http",
            "container_port": 80,
            "host_ip": "0.0.0.0",  # noqa: S104 - told, not bound
            "host_port": 8080,
            "protocol": "tcp",
        }
    ],
    "health": "none",
    "changes": [],
    "startup_seconds": 0.31,
    "will_retry": False,
    "attempt": 1,
    "next_attempt_at": None,
    "occurred_at": "2026-11-24T10:00:00.130Z",
}
_WITHOUT_CONTAINER: Final[Document] = {
    **_STARTED,
    "container": None,
    "ports": [],
    "startup_seconds": None,
}

STATUS_EXAMPLES: Final[Mapping[State, Example]] = {
    State.RUNNING: Example("started", "A new container runs", _STARTED),
    State.STOPPED: Example(
        "deleted",
        "No container is left",
        {
            **_WITHOUT_CONTAINER,
            "state": "stopped",
            "reason": "deleted",
            "message": "container removed",
            "sequence": 1795514400127,
            "generation": 5,
            "event_id": "0b7e2b1c-4c9b-4bfb-a1ce-6d2f3d0f9a11",
            "occurred_at": "2026-11-24T11:30:00.250Z",
        },
    ),
    State.FAILED: Example(
        "image_not_found",
        "The image is not there; it is tried again",
        {
            **_WITHOUT_CONTAINER,
            "state": "failed",
            "reason": "image_not_found",
            "message": "failed to pull image: manifest for nginx:alpin not found",
            "will_retry": True,
            "next_attempt_at": "2026-11-24T10:00:01.730Z",
        },
    ),
}
"""One for each state; the routing key has the state."""


# --- JSON Schemas -----------------------------------------------------------------------------


def tenant_event_schema() -> Document:
    """Return the JSON Schema of the tenant document."""
    examples = [TENANT_EVENT_EXAMPLES[kind] for kind in (EventKind.CREATED, EventKind.UPDATED)]
    schema, definitions = _tenant_document(_IN_A_SCHEMA)
    return _whole(schema, definitions, [example.payload for example in examples])


def status_event_schema() -> Document:
    """Return the JSON Schema of a status event."""
    schema, definitions = _status_event(_IN_A_SCHEMA)
    return _whole(schema, definitions, [example.payload for example in STATUS_EXAMPLES.values()])


def _whole(schema: Document, definitions: Document, examples: list[Document]) -> Document:
    return {"$schema": _DIALECT, **schema, "examples": examples, "$defs": definitions}


def _tenant_document(template: str) -> tuple[Document, Document]:
    """Return the schema, and those of its parts by the names that the template makes references of.

    What serialisers always send, and what may be null at the top, is taken away before a document
    is read; so it is added here.
    """
    schema, definitions = _schema(TenantDocument, template)
    empty: Document = {"$ref": template.format(model="Empty")}
    nothing: Document = {
        "title": "Empty",
        "description": "Accepted, because some serialisers always send it; without effect.",
        "anyOf": [
            {"enum": [None, False, 0, ""]},
            {"type": "array", "maxItems": 0},
            {"type": "object", "additionalProperties": empty},
        ],
    }
    schema = _with_properties(schema, dict.fromkeys(ALWAYS_SENT, empty))
    config: Document = {
        "description": _description(schema, "provider_config"),
        "anyOf": [
            {"$ref": template.format(model=_name(definitions, "ProviderConfig"))},
            {"type": "null"},
        ],
        "default": {},
    }
    schema = _with_properties(schema, {"provider_config": config})
    for part, name in (("Resources", "storage"), ("Container", "resources")):
        key = _name(definitions, part)
        definitions[key] = _with_properties(definitions[key], {name: empty})
    return schema, {**definitions, "Empty": nothing}


def _name(definitions: Document, begin: str) -> str:
    return next(name for name in definitions if name.startswith(begin))


def _description(schema: Document, name: str) -> object:
    properties = schema["properties"]
    return properties[name]["description"] if isinstance(properties, dict) else ""


def _with_properties(schema: object, properties: Mapping[str, object]) -> Document:
    kept = dict(schema) if isinstance(schema, dict) else {}
    return {**kept, "properties": {**kept["properties"], **properties}}


def _status_event(template: str) -> tuple[Document, Document]:
    """Return the schema and those of its parts; each state has reasons of its own."""
    schema, definitions = _schema(StatusDocument, template)
    reasons = [
        {
            "if": {"properties": {"state": {"const": state.value}}},
            "then": {"properties": {"reason": {"enum": _in_order(REASONS[state])}}},
        }
        for state in State
    ]
    return {**schema, "allOf": reasons}, definitions


def _in_order(reasons: frozenset[Reason]) -> list[str]:
    return [reason.value for reason in Reason if reason in reasons]


def _schema(model: type[BaseModel], template: str) -> tuple[Document, Document]:
    schema: Document = model.model_json_schema(ref_template=template)
    definitions = schema.pop("$defs", {})
    return schema, dict(definitions) if isinstance(definitions, dict) else {}


# --- AsyncAPI ---------------------------------------------------------------------------------

_TEXT: Final[Document] = {"type": "string"}
_BOTH_WAYS: Final[Document] = {
    "traceparent": {**_TEXT, "description": "W3C Trace Context; carried over to status events."},
}
_CLOUD_EVENT: Final[Document] = {
    "cloudEvents:specversion": {"const": "1.0"},
    "cloudEvents:id": _TEXT,
    "cloudEvents:type": _TEXT,
    "cloudEvents:source": _TEXT,
    "cloudEvents:subject": _TEXT,
    "cloudEvents:time": {**_TEXT, "format": "date-time"},
}
_TENANT_HEADERS: Final[Document] = {
    "type": "object",
    "description": "None is needed; CloudEvents 1.0 in binary mode is understood.",
    "properties": {**_CLOUD_EVENT, **_BOTH_WAYS},
}
_STATUS_HEADERS: Final[Document] = {
    "type": "object",
    "properties": {"tenant_id": _TEXT, **_CLOUD_EVENT, **_BOTH_WAYS},
    "required": ["tenant_id", *_CLOUD_EVENT],
}
_DEAD_LETTER_HEADERS: Final[Document] = {
    "type": "object",
    "properties": {
        "landlord-reason": {
            "enum": ["invalid_event", "policy_denied", "provider_not_supported", "internal_error"],
        },
        "landlord-error": {**_TEXT, "description": "Each fault with its field's path."},
        "landlord-received-at": {**_TEXT, "format": "date-time"},
        "landlord-exchange": _TEXT,
        "landlord-routing-key": _TEXT,
    },
    "required": ["landlord-reason", "landlord-error", "landlord-received-at"],
}


def asyncapi(names: BrokerNames, *, version: str) -> str:
    """Return the AsyncAPI document, as YAML."""
    document = _asyncapi(names, version)
    return yaml.dump(document, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100)


class _Dumper(yaml.SafeDumper):
    """Writes out what occurs more than once, each time: aliases are not for people to read."""

    @override
    def ignore_aliases(self, data: object) -> bool:
        return True


def _asyncapi(names: BrokerNames, version: str) -> Document:
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "landlord-consumer",
            "version": version,
            "description": (
                "Takes tenant events from RabbitMQ, runs one Docker container for each tenant, "
                "and publishes a status event for every change of a tenant's state."
            ),
            "license": {"name": "MIT"},
        },
        "defaultContentType": "application/json",
        "servers": {
            "broker": {
                "host": names.host,
                "pathname": names.virtual_host,
                "protocol": "amqps" if names.is_encrypted else "amqp",
                "protocolVersion": "0.9.1",
            }
        },
        "channels": _channels(names),
        "operations": _operations(),
        "components": {"messages": _messages(), "schemas": _schemas()},
    }


def _channels(names: BrokerNames) -> Document:
    statuses: Document = {
        "address": "tenant.status.{state}",
        "description": f"Exchange {names.status_exchange}: what became of a tenant.",
        "parameters": {"state": {"enum": [state.value for state in State]}},
        "messages": {"statusEvent": {"$ref": "#/components/messages/statusEvent"}},
        "bindings": _exchange(names.status_exchange),
    }
    dead_letters: Document = {
        "address": names.dead_letter,
        "description": "What could not be applied, as it came, with the reason in its headers.",
        "messages": {"deadLetter": {"$ref": "#/components/messages/deadLetter"}},
        "bindings": {
            "amqp": {
                "is": "queue",
                "queue": {"name": names.dead_letter, "durable": True, "exclusive": False},
                "bindingVersion": _AMQP,
            }
        },
    }
    return {
        **{_word(kind): _tenant_channel(kind, names) for kind in EventKind},
        "tenantStatus": statuses,
        "deadLetters": dead_letters,
    }


def _tenant_channel(kind: EventKind, names: BrokerNames) -> Document:
    word = _word(kind)
    return {
        "address": kind.value,
        "description": f"Exchange {names.tenant_exchange}, taken from queue {names.queue}.",
        "messages": {word: {"$ref": f"#/components/messages/{word}"}},
        "bindings": _exchange(names.tenant_exchange),
    }


def _exchange(name: str) -> Document:
    exchange = {"name": name, "type": "topic", "durable": True, "autoDelete": False}
    return {"amqp": {"is": "routingKey", "exchange": exchange, "bindingVersion": _AMQP}}


def _operations() -> Document:
    operations: Document = {
        f"apply{_word(kind)[0].upper()}{_word(kind)[1:]}": {
            "action": "receive",
            "channel": {"$ref": f"#/channels/{_word(kind)}"},
            "summary": _MEANING[kind],
        }
        for kind in EventKind
    }
    operations["tellStatus"] = {
        "action": "send",
        "channel": {"$ref": "#/channels/tenantStatus"},
        "summary": "At least once; sequence rises strictly per tenant: drop what is not greater.",
    }
    operations["setAside"] = {
        "action": "send",
        "channel": {"$ref": "#/channels/deadLetters"},
        "summary": "What breaks a rule or the operator's policy.",
    }
    return operations


_MEANING: Final[Mapping[EventKind, str]] = {
    EventKind.CREATED: "This is the desired state from now on.",
    EventKind.UPDATED: "This is the desired state from now on (the same as created).",
    EventKind.DELETED: "No container for this tenant.",
    EventKind.SUSPENDED: "Keep the container, stopped.",
    EventKind.RESUMED: "Run it again.",
}


def _messages() -> Document:
    return {
        **{_word(kind): _tenant_message(kind) for kind in EventKind},
        "statusEvent": {
            "name": "tenant.status",
            "title": "Status event",
            "contentType": "application/json",
            "headers": _STATUS_HEADERS,
            "payload": {"$ref": "#/components/schemas/StatusDocument"},
            "examples": [_shown(example) for example in STATUS_EXAMPLES.values()],
        },
        "deadLetter": {
            "name": "dead-letter",
            "title": "Dead letter",
            "summary": "Body and properties as they came; nothing can be promised of the body.",
            "headers": _DEAD_LETTER_HEADERS,
            "payload": {"description": "As it came: any bytes."},
        },
    }


def _tenant_message(kind: EventKind) -> Document:
    is_full = kind in (EventKind.CREATED, EventKind.UPDATED)
    payload = "TenantDocument" if is_full else "SubjectDocument"
    return {
        "name": kind.value,
        "title": kind.value,
        "summary": _MEANING[kind],
        "contentType": "application/json",
        "headers": _TENANT_HEADERS,
        "payload": {"$ref": f"#/components/schemas/{payload}"},
        "bindings": {"amqp": {"messageType": kind.value, "bindingVersion": _AMQP}},
        "examples": [_shown(TENANT_EVENT_EXAMPLES[kind])],
    }


def _shown(example: Example) -> Document:
    return {"name": example.name, "summary": example.summary, "payload": example.payload}


def _schemas() -> Document:
    schemas: Document = {}
    for name, (schema, definitions) in (
        ("TenantDocument", _tenant_document(_IN_ASYNCAPI)),
        ("SubjectDocument", _schema(SubjectDocument, _IN_ASYNCAPI)),
        ("StatusDocument", _status_event(_IN_ASYNCAPI)),
    ):
        schemas |= {name: schema, **definitions}
    return schemas


def _word(kind: EventKind) -> str:
    """Return `tenantCreated` for `tenant.created`."""
    return "tenant" + kind.name.capitalize()
