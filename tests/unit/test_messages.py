"""From bytes on the broker to a tenant event, and from a status to bytes."""

import base64
import json
from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta, timezone
from pathlib import Path

import pytest
from hypothesis import HealthCheck as Hypothesis
from hypothesis import given, settings
from hypothesis import strategies as st

from consumer.document import (
    ContainerDocument,
    HealthCheckDocument,
    PortDocument,
    ProviderConfigDocument,
    ResourcesDocument,
    SpecDefaults,
    TenantDocument,
    UlimitDocument,
)
from consumer.errors import Fault, InvalidMessage
from consumer.messages import (
    STRUCTURED,
    Delivery,
    dead_letter_headers,
    decode_spec,
    decode_status,
    decode_tenant_event,
    encode_spec,
    encode_status,
    event_type,
    status_document,
    status_headers,
    tracing,
)
from consumer.model import (
    REASONS,
    BoundPort,
    ContainerId,
    ContainerReport,
    EventId,
    EventKind,
    Health,
    HealthCheck,
    OutboxEntry,
    PortMapping,
    Reason,
    Resources,
    RestartPolicy,
    State,
    Status,
    TenantEvent,
    TenantSpec,
    Transport,
    Ulimit,
)
from tests.builders import MOMENT, TENANT_ID, make_spec, make_status

EXAMPLES = Path(__file__).parent / "data"
YAML = "application/yaml"
SECRET = "s3cret"  # stands for a value that only the tenant may know
SMALLEST: Mapping[str, object] = {"tenant_id": "acme", "containers": [{"image": "nginx"}]}


def deliver(body: object = SMALLEST, **changes: object) -> Delivery:
    """Return a delivery of `tenant.created`; a body that is no text or bytes is sent as JSON."""
    text = body if isinstance(body, str | bytes) else json.dumps(body)
    fields: dict[str, object] = {
        "body": text.encode() if isinstance(text, str) else text,
        "tag": 1,
        "session": 1,
        "received_at": MOMENT,
        "routing_key": "tenant.created",
        "headers": {},
        "properties": {},
    }
    return Delivery(**(fields | changes))  # type: ignore[arg-type]  # checked at run time


def decode(body: object = SMALLEST, **changes: object) -> TenantEvent:
    """Return the tenant event of such a delivery."""
    return decode_tenant_event(deliver(body, **changes), SpecDefaults())


def spec_of(body: object, **changes: object) -> TenantSpec:
    """Return the spec of such a delivery."""
    spec = decode(body, **changes).spec
    assert spec is not None
    return spec


def refuse(body: object = SMALLEST, **changes: object) -> InvalidMessage:
    """Return why such a delivery is refused."""
    with pytest.raises(InvalidMessage) as refusal:
        decode(body, **changes)
    return refusal.value


def decode_or_refuse(body: object, **changes: object) -> TenantEvent | InvalidMessage:
    """Return the event of such a delivery, or why it is refused."""
    try:
        return decode(body, **changes)
    except InvalidMessage as refusal:
        return refusal


def with_env(env: str) -> str:
    """Return a YAML document with this line of environment."""
    return f"tenant_id: acme\ncontainers:\n  - image: nginx\n    env: {{{env}}}\n"


# --- the examples of the original's description ------------------------------------------------


def test_json_example_with_comments() -> None:
    """The JSON example with its comments is taken; `//` inside a string stays."""
    event = decode((EXAMPLES / "tenant-with-comments.json").read_bytes())

    assert event.tenant_id == "acme-corp"
    assert event.spec == make_spec(
        image="myapp:1.0",
        resources=Resources(cpu=1000, memory=512),
        container_name="app",
        command=("./start.sh",),
        args=("--config=/etc/app/config.yaml",),
        env=(("DATABASE_URL", "postgres://db:5432/acme"), ("LOG_LEVEL", "debug")),
        ports=(PortMapping(8080, 8080, Transport.TCP, "http"),),
    )


def test_yaml_example_of_a_web_service() -> None:
    """The first YAML example is taken."""
    event = decode((EXAMPLES / "simple-web-service.yaml").read_bytes(), content_type=YAML)

    assert event.tenant_id == "web-app"
    assert event.spec == make_spec(
        image="nginx:alpine",
        resources=Resources(cpu=500, memory=256),
        container_name="web",
        ports=(PortMapping(80, 8080),),
    )


def test_yaml_example_of_an_application() -> None:
    """The second YAML example is taken."""
    event = decode((EXAMPLES / "application.yaml").read_bytes(), content_type=YAML)

    assert event.tenant_id == "api-service"
    assert event.spec == make_spec(
        image="mycompany/api:v2.1.0",
        resources=Resources(cpu=2000, memory=1024),
        container_name="api",
        command=("/app/api",),
        args=("--config", "/etc/app/config.yaml"),
        env=(
            ("DATABASE_HOST", "postgres.internal"),
            ("ENVIRONMENT", "production"),
            ("LOG_LEVEL", "info"),
            ("REDIS_HOST", "redis.internal"),
        ),
        ports=(
            PortMapping(3000, 3000, Transport.TCP, "http"),
            PortMapping(9090, 9090, Transport.TCP, "metrics"),
        ),
    )


# --- the envelope -----------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [EventKind.CREATED, EventKind.UPDATED])
def test_created_and_updated_carry_a_spec(kind: EventKind) -> None:
    """A document becomes an event with spec, generation, ids and the time of its receipt."""
    event = decode(
        {**SMALLEST, "generation": 3},
        routing_key=kind.value,
        message_id="event-1",
        correlation_id="request-1",
        headers={"traceparent": "00-aa-bb-01"},
    )

    assert event == TenantEvent(
        kind=kind,
        tenant_id=event.tenant_id,
        received_at=MOMENT,
        event_id=EventId("event-1"),
        generation=3,
        spec=make_spec(image="nginx", resources=Resources(cpu=1000, memory=512)),
        correlation_id="request-1",
        traceparent="00-aa-bb-01",
    )


@pytest.mark.parametrize("kind", [EventKind.DELETED, EventKind.SUSPENDED, EventKind.RESUMED])
@pytest.mark.parametrize(
    "body",
    [
        pytest.param({"tenant_id": "acme", "generation": 4}, id="tenant alone"),
        pytest.param({**SMALLEST, "generation": 4, "labels": 1}, id="full document"),
    ],
)
def test_the_other_kinds_carry_tenant_and_generation(kind: EventKind, body: object) -> None:
    """Deleted, suspended and resumed read tenant and generation, also from a full document."""
    event = decode(body, routing_key=kind.value)

    assert (event.kind, event.tenant_id, event.generation) == (kind, "acme", 4)
    assert (event.spec, event.received_at) == (None, MOMENT)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        pytest.param({}, "tenant.created", id="routing key"),
        pytest.param({"event_type": "tenant.updated"}, "tenant.updated", id="type property"),
        pytest.param({"event_type": ""}, "tenant.created", id="empty type property"),
        pytest.param(
            {"event_type": "tenant.updated", "headers": {"cloudEvents:type": "tenant.deleted"}},
            "tenant.deleted",
            id="CloudEvents type",
        ),
        pytest.param(
            {"headers": {"cloudEvents_type": "tenant.resumed"}}, "tenant.resumed", id="underscore"
        ),
        pytest.param({"headers": {"cloudEvents:type": 7}}, "tenant.created", id="type no text"),
    ],
)
def test_event_type(changes: dict[str, object], expected: str) -> None:
    """The CloudEvents type counts first, then the type property, then the routing key."""
    assert event_type(deliver(**changes)) == expected
    assert decode(**changes).kind == expected


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        pytest.param({}, None, id="none"),
        pytest.param({"message_id": "m"}, "m", id="message id"),
        pytest.param({"message_id": ""}, None, id="empty message id"),
        pytest.param({"message_id": "m" * 255}, "m" * 255, id="longest"),
        pytest.param(
            {"message_id": "m", "headers": {"cloudEvents:id": "c"}}, "c", id="CloudEvents id"
        ),
        pytest.param({"headers": {"cloudEvents_id": "c"}}, "c", id="underscore"),
        pytest.param(
            {"headers": {"cloudEvents:id": "c", "cloudEvents:specversion": "1.0"}},
            "c",
            id="with version",
        ),
    ],
)
def test_event_id(changes: dict[str, object], expected: str | None) -> None:
    """The CloudEvents id counts first, then the message id; without either there is none."""
    assert decode(**changes).event_id == expected


@pytest.mark.parametrize("event_id", ["m" * 256, "a\0"])
def test_an_event_id_that_cannot_be_kept_is_refused(event_id: str) -> None:
    """An id too long or with a NUL is a fault, and is not handed on as the event's id."""
    refusal = refuse(message_id=event_id)

    assert [fault.field for fault in refusal.faults] == ["id"]
    assert (refusal.tenant_id, refusal.event_id) == ("acme", None)


@pytest.mark.parametrize("prefix", ["cloudEvents:", "cloudEvents_"])
def test_cloudevents_in_binary_mode(prefix: str) -> None:
    """The attributes are headers under either prefix, the body is the document."""
    attributes = {
        "specversion": "1.0",
        "id": "event-9",
        "type": "tenant.updated",
        "source": "/billing",
        "traceparent": "00-aa-bb-01",
    }

    event = decode(
        routing_key="anything",
        message_id="other",
        headers={prefix + name: value for name, value in attributes.items()},
    )

    assert (event.kind, event.event_id) == (EventKind.UPDATED, "event-9")
    assert event.traceparent == "00-aa-bb-01"


def cloud_event(**changes: object) -> dict[str, object]:
    """Return a CloudEvent in structured mode."""
    attributes: dict[str, object] = {
        "specversion": "1.0",
        "id": "event-9",
        "type": "tenant.updated",
        "source": "/billing",
    }
    return attributes | changes


def in_base64(text: str | bytes) -> str:
    return base64.b64encode(text.encode() if isinstance(text, str) else text).decode()


YAML_DOCUMENT = "tenant_id: acme\ncontainers: [{image: nginx}]\n"


@pytest.mark.parametrize(
    "content",
    [
        pytest.param({"data": SMALLEST}, id="data"),
        pytest.param({"data_base64": in_base64(json.dumps(SMALLEST))}, id="base64"),
        pytest.param(
            {
                "data_base64": in_base64(YAML_DOCUMENT),
                "datacontenttype": "application/yaml; charset=utf-8",
            },
            id="YAML in base64",
        ),
        pytest.param({"data": YAML_DOCUMENT, "datacontenttype": YAML}, id="YAML as text"),
    ],
)
@pytest.mark.parametrize("content_type", [STRUCTURED, "Application/CloudEvents+JSON; charset=utf8"])
def test_cloudevents_in_structured_mode(content_type: str, content: dict[str, object]) -> None:
    """Attributes and document come from the body."""
    body = cloud_event(**content, traceparent="00-cc-dd-01")

    event = decode(body, content_type=content_type, routing_key="anything", message_id="other")

    assert (event.kind, event.event_id) == (EventKind.UPDATED, "event-9")
    assert event.traceparent == "00-cc-dd-01"
    assert event.spec == spec_of(SMALLEST)


@pytest.mark.parametrize(
    ("body", "path", "rule"),
    [
        pytest.param(cloud_event(specversion="0.3"), "specversion", "1.0", id="old version"),
        pytest.param({"id": "1", "type": "tenant.created"}, "specversion", "1.0", id="no version"),
        pytest.param(cloud_event(type=None), "", "needs type and id", id="no type"),
        pytest.param(cloud_event(id=7), "", "needs type and id", id="id no text"),
        pytest.param(cloud_event(), "", "an object, got nothing", id="no data"),
        pytest.param(cloud_event(data="{}"), "", "an object, got a single value", id="text"),
        pytest.param(cloud_event(data_base64="?"), "data_base64", "not base64", id="no base64"),
        pytest.param(cloud_event(data_base64="ü"), "data_base64", "not base64", id="no ASCII"),
        pytest.param(
            cloud_event(data_base64=in_base64(b"\xff")), "", "not UTF-8", id="bytes in base64"
        ),
        pytest.param(cloud_event(type="tenant.x"), "", "", id="data is looked at first"),
        pytest.param(cloud_event(type="x", data={}), "type", "unknown event type", id="type"),
        pytest.param(cloud_event(id="i" * 256, data={}), "id", "at most 255", id="long id"),
        pytest.param([], "", "an object, got a list", id="list"),
    ],
)
def test_a_broken_cloudevent_is_refused(body: object, path: str, rule: str) -> None:
    """A structured CloudEvent that lacks something, or holds no document, says what it lacks."""
    (fault,) = refuse(body, content_type=STRUCTURED).faults

    assert fault.field == path
    assert rule in fault.rule


def test_a_binary_cloudevent_of_another_version_is_refused() -> None:
    """Only CloudEvents 1.0 are read."""
    (fault,) = refuse(headers={"cloudEvents:specversion": "2.0"}).faults

    assert fault == Fault("specversion", "has to be 1.0 for a CloudEvent")


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        pytest.param({}, (None, None), id="none"),
        pytest.param(
            {"correlation_id": "c", "headers": {"traceparent": "t"}}, ("c", "t"), id="both"
        ),
        pytest.param({"headers": {"cloudEvents:traceparent": "t"}}, (None, "t"), id="CloudEvents"),
        pytest.param({"headers": {"traceparent": 7}}, (None, None), id="no text"),
        pytest.param(
            {"correlation_id": "a\0", "headers": {"traceparent": "t" * 256}},
            (None, None),
            id="not to be kept",
        ),
    ],
)
def test_tracing(changes: dict[str, object], expected: tuple[str | None, str | None]) -> None:
    """Correlation id and traceparent are carried over where they can be kept."""
    assert tracing(deliver(**changes)) == expected


# --- what never becomes an event ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "changes", "path", "rule"),
    [
        pytest.param(b"\xff", {}, "", "not UTF-8 (byte 0)", id="not UTF-8"),
        pytest.param("", {}, "", "not JSON", id="nothing"),
        pytest.param("{", {}, "", "not JSON", id="cut off"),
        pytest.param("tenant_id: acme", {}, "", "(line 1, column 1)", id="YAML without saying so"),
        pytest.param("[]", {}, "", "got a list", id="list"),
        pytest.param("null", {}, "", "got nothing", id="null"),
        pytest.param('"x"', {}, "", "got a single value", id="text"),
        pytest.param("x" * 262_145, {}, "", "262145 bytes, at most 262144", id="too large"),
        pytest.param("{}", {"routing_key": "tenant.moved"}, "type", "'tenant.moved'", id="type"),
        pytest.param("{}", {"routing_key": ""}, "type", "unknown event type ''", id="no type"),
        pytest.param("", {"content_type": YAML}, "", "got nothing", id="empty YAML"),
        pytest.param("[a]", {"content_type": YAML}, "", "got a list", id="YAML list"),
        pytest.param("a", {"content_type": YAML}, "", "got a single value", id="YAML text"),
    ],
)
def test_what_cannot_be_read_is_refused(
    body: str | bytes, changes: dict[str, object], path: str, rule: str
) -> None:
    """A delivery that holds no document tells why, and belongs to no tenant."""
    refusal = refuse(body, message_id="event-1", **changes)

    assert (refusal.reason, refusal.tenant_id) == (Reason.INVALID_EVENT, None)
    assert refusal.event_id == "event-1"
    (fault,) = refusal.faults
    assert fault.field == path
    assert rule in fault.rule


def test_the_largest_body_is_taken() -> None:
    """The limit itself is still allowed, and it is a setting."""
    body = json.dumps(SMALLEST).encode()
    exact = SpecDefaults(max_body_bytes=len(body))

    assert decode_tenant_event(deliver(body), exact).tenant_id == "acme"
    with pytest.raises(InvalidMessage, match="bytes"):
        decode_tenant_event(deliver(body + b" "), exact)


def test_a_broken_document_is_refused_with_its_tenant() -> None:
    """Every fault is told at once, and whom it concerns."""
    refusal = refuse(
        {"tenant_id": "acme", "generation": 0, "containers": [{"image": "A"}]}, message_id="event-1"
    )

    assert (refusal.reason, refusal.tenant_id) == (Reason.INVALID_EVENT, "acme")
    assert refusal.event_id == "event-1"
    assert [fault.field for fault in refusal.faults] == ["generation", "containers[0].image"]


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        pytest.param({"containers": [{"image": "nginx"}]}, None, id="none"),
        pytest.param({**SMALLEST, "tenant_id": "-"}, None, id="no id"),
        pytest.param({**SMALLEST, "tenant_id": 7}, None, id="number"),
        pytest.param("tenant_id: null\ncontainers: [{image: nginx}]", YAML, id="YAML's null"),
    ],
)
@pytest.mark.parametrize("kind", ["tenant.created", "tenant.deleted"])
def test_without_a_usable_tenant_nobody_is_told(
    body: object, content_type: str | None, kind: str
) -> None:
    """A document without a usable tenant id is refused as nobody's."""
    refusal = refuse(body, content_type=content_type, routing_key=kind)

    assert [fault.field for fault in refusal.faults] == ["tenant_id"]
    assert refusal.tenant_id is None


def test_a_provider_that_is_not_configured_is_refused() -> None:
    """Another provider has its own reason, and the refusal says what there is."""
    refusal = refuse({**SMALLEST, "provider_type": "ecs"}, message_id="event-1")

    assert refusal.reason == Reason.PROVIDER_NOT_SUPPORTED
    assert refusal.faults == (Fault("provider_type", "'ecs' is not supported; configured: docker"),)
    assert (refusal.tenant_id, refusal.event_id) == ("acme", "event-1")


def test_the_default_provider_has_to_be_configured_too() -> None:
    """A document without provider is checked for the default one."""
    swarm = SpecDefaults(provider_type="swarm", providers=frozenset({"docker", "swarm"}))

    spec = decode_tenant_event(deliver(), swarm).spec

    assert spec is not None
    assert spec.provider_type == "swarm"


# --- JSON -------------------------------------------------------------------------------------


@pytest.mark.parametrize("content_type", [None, "", "application/json", "text/plain"])
def test_a_body_is_json_unless_it_says_otherwise(content_type: str | None) -> None:
    """JSON is read without a content type, and with any that we do not know."""
    assert decode(content_type=content_type).tenant_id == "acme"


@pytest.mark.parametrize(
    "body",
    [
        pytest.param('// first\n{"tenant_id": "acme"} // last', id="around"),
        pytest.param('{"tenant_id": /* here */ "acme" /* and\nthere */}', id="inside"),
        pytest.param('{/**/"tenant_id":/***/"acme"/*"*/}', id="short, and with a quote"),
        pytest.param(
            '{"tenant_id": "acme", // "tenant_id": "other"\n"labels": 1}', id="commented out"
        ),
        pytest.param('{"tenant_id": "acme" // \\" /*\n}', id="comment in a comment"),
        pytest.param('\ufeff{"tenant_id": "acme"}', id="byte order mark"),
    ],
)
def test_comments_in_json_are_taken(body: str) -> None:
    """Comments may stand wherever JSON allows a blank."""
    assert decode(body, routing_key="tenant.deleted").tenant_id == "acme"


@pytest.mark.parametrize(
    "value", ["postgres://db", "a /* b */", 'say "//"', "back\\slash\\", "//", "/*", "\\//"]
)
def test_what_looks_like_a_comment_in_a_string_stays(value: str) -> None:
    """Strings are kept byte for byte next to comments."""
    body = json.dumps(
        {"tenant_id": "acme", "containers": [{"image": "nginx", "env": {"A": value}}]}
    )

    assert spec_of(f"{body} // comment").env == (("A", value),)


@pytest.mark.parametrize(
    ("body", "rule"),
    [
        pytest.param('{"a": 1 /* open', "(line 1, column 9)", id="comment not closed"),
        pytest.param('{"a": 1 /*/', "(line 1, column 9)", id="comment hardly opened"),
        pytest.param('{"a": "b // c', "Unterminated string", id="string not closed"),
        pytest.param('// one\n{"a" 1}', "(line 2, column 6)", id="place below a comment"),
        pytest.param('/* one\n */ {"a" 1}', "(line 2, column 10)", id="place beside a comment"),
        pytest.param('{"a": 1,} // b', "not JSON", id="trailing comma"),
        pytest.param("{'a': 1} // b", "not JSON", id="single quotes"),
        pytest.param('{"a": 1 / 2}', "not JSON", id="one slash"),
        pytest.param('{"a": NaN}', "NaN is not a JSON number", id="NaN"),
        pytest.param('{"a": -Infinity}', "-Infinity is not a JSON number", id="infinity"),
        pytest.param('{"a": 1, "b": 2, "a": 3}', "duplicate key 'a'", id="duplicate key"),
        pytest.param('{"a": [{"b": 1, "b": 1}]}', "duplicate key 'b'", id="duplicate within"),
        pytest.param('{"a": 1, "a": 2} // c', "duplicate key 'a'", id="duplicate with comment"),
        pytest.param('{"a": "\\ud800"}', "surrogate", id="half a surrogate pair"),
        pytest.param('{"\\uDFFF": 1}', "surrogate", id="half a pair in a key"),
        pytest.param('{"a": ' + "1" * 5000 + "}", "not JSON", id="endless number"),
    ],
)
def test_broken_json_is_refused(body: str, rule: str) -> None:
    """What is no JSON is refused with the place, comments or not."""
    (fault,) = refuse(body).faults

    assert fault.field == ""
    assert rule in fault.rule


def test_a_whole_surrogate_pair_is_text() -> None:
    """An escape of two halves is the character it means."""
    body = '{"tenant_id": "acme", "containers": [{"image": "n", "env": {"A": "\\ud83d\\ude00"}}]}'

    assert spec_of(body).env == (("A", "😀"),)


@pytest.mark.parametrize(
    ("literal", "expected"),
    [
        ("1", "1"),
        ("-7", "-7"),
        ("1.10", "1.10"),
        ("1E5", "1E5"),
        ("1e400", "1e400"),
        ("123456789012345678901234567890", "123456789012345678901234567890"),
        ("true", "true"),
        ("false", "false"),
        ('"\\u00fc"', "ü"),
    ],
)
def test_numbers_in_the_environment_are_kept_as_written(literal: str, expected: str) -> None:
    """A number or boolean of JSON reaches the environment as JSON writes it."""
    body = (
        f'{{"tenant_id": "acme", "containers": [{{"image": "nginx", "env": {{"A": {literal}}}}}]}}'
    )

    assert spec_of(body).env == (("A", expected),)


def test_a_fraction_is_a_number_where_one_is_wanted() -> None:
    """Remembering how a number was written does not keep it from being one."""
    check = {"test": "x", "interval_seconds": 2.5}
    spec = spec_of({"tenant_id": "acme", "containers": [{"image": "nginx", "healthcheck": check}]})

    assert spec.healthcheck == HealthCheck(("CMD-SHELL", "x"), interval_seconds=2.5)


# --- YAML -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content_type",
    [
        "application/yaml",
        "application/x-yaml",
        "text/yaml",
        "text/x-yaml",
        "Application/YAML; charset=utf-8",
    ],
)
def test_yaml_is_read_under_each_of_its_names(content_type: str) -> None:
    """A body is YAML where its content type says so."""
    assert decode(YAML_DOCUMENT, content_type=content_type).spec == spec_of(SMALLEST)


@pytest.mark.parametrize(
    ("env", "expected"),
    [
        pytest.param("VERSION: 1.10", ("VERSION", "1.10"), id="fraction"),
        pytest.param("MODE: 0755", ("MODE", "0755"), id="octal"),
        pytest.param("A: no", ("A", "no"), id="no"),
        pytest.param("A: True", ("A", "True"), id="true"),
        pytest.param("A: 12:30", ("A", "12:30"), id="time"),
        pytest.param("A: 2026-11-24", ("A", "2026-11-24"), id="date"),
        pytest.param("A: 'null'", ("A", "null"), id="quoted null"),
        pytest.param('A: ""', ("A", ""), id="quoted nothing"),
        pytest.param('A: "\\u00fc"', ("A", "ü"), id="escape"),
        pytest.param("1: x", ("1", "x"), id="name of digits"),
        pytest.param("'<<': x", ("<<", "x"), id="quoted merge key"),
    ],
)
def test_yaml_scalars_are_taken_as_written(env: str, expected: tuple[str, str]) -> None:
    """An unquoted scalar of YAML is the text that stands there."""
    assert spec_of(with_env(env), content_type=YAML).env == (expected,)


def test_yaml_block_text_is_kept() -> None:
    """Text in block style keeps its lines."""
    body = "tenant_id: acme\ncontainers:\n- image: nginx\n  env:\n    A: |\n      one\n      two\n"

    assert spec_of(body, content_type=YAML).env == (("A", "one\ntwo\n"),)


def test_yaml_fields_are_what_the_document_says_they_are() -> None:
    """Numbers and booleans are read where a field is one, and `no` is a restart policy."""
    spec = spec_of(
        "tenant_id: acme\n"
        "containers: [{image: nginx, command: [sleep, 10], ports: [{container_port: 80}]}]\n"
        "resources: {cpu: 250, memory: 64}\n"
        "provider_config: {restart_policy: no, init: true, volumes: ~}\n",
        content_type=YAML,
    )

    assert spec.command == ("sleep", "10")
    assert spec.ports == (PortMapping(80),)
    assert spec.resources == Resources(250, 64)
    assert (spec.restart_policy, spec.init) == (RestartPolicy("no"), True)


@pytest.mark.parametrize(
    ("body", "rule"),
    [
        pytest.param("a: &x 1\nb: *x", "YAML aliases are refused (line 1)", id="anchor"),
        pytest.param("a: 1\nb: *x", "YAML aliases are refused (line 2)", id="alias"),
        pytest.param("a: &x {b: 1}", "YAML aliases are refused (line 1)", id="anchor of a map"),
        pytest.param("a: &x [b]", "YAML aliases are refused (line 1)", id="anchor of a list"),
        pytest.param("a: !!str 1", "YAML tags are refused (line 1)", id="tag"),
        pytest.param("a: ! 1", "YAML tags are refused (line 1)", id="tag of no name"),
        pytest.param("!!map {a: 1}", "YAML tags are refused (line 1)", id="tag of a map"),
        pytest.param("a: !!python/name:os.system x", "YAML tags are refused (line 1)", id="python"),
        pytest.param("a:\n  <<: {b: 1}", "YAML merge keys are refused (line 2)", id="merge key"),
        pytest.param("a: 1\na: 2", "duplicate key 'a'", id="duplicate key"),
        pytest.param("a: 1\n'a': 2", "duplicate key 'a'", id="duplicate in quotes"),
        pytest.param("1: a\n'1': b", "duplicate key '1'", id="duplicate number"),
        pytest.param("? [a]\n: b", "a YAML key has to be text (line 1)", id="list as key"),
        pytest.param("a: 1\n---\nb: 2", "not YAML", id="two documents"),
        pytest.param("a: [", "not YAML", id="cut off"),
        pytest.param("a: 1\n b: 2", "(line 2)", id="place"),
        pytest.param("a: b: c", "not YAML", id="two colons"),
        pytest.param("a: \x07", "not YAML", id="control character"),
        pytest.param("%YAML 2.0\n---\na: 1", "not YAML", id="version"),
        pytest.param('a: "\\ud800"', "invalid Unicode character", id="half a surrogate pair"),
        pytest.param('a: "\\U00110000"', "invalid Unicode character", id="beyond Unicode"),
        pytest.param('a: "\\UFFFFFFFF"', "invalid Unicode character", id="far beyond Unicode"),
    ],
)
def test_broken_or_surprising_yaml_is_refused(body: str, rule: str) -> None:
    """What is no YAML, or YAML that means more than it says, is refused."""
    (fault,) = refuse(body, content_type=YAML).faults

    assert fault.field == ""
    assert rule in fault.rule


def test_a_nul_in_yaml_is_refused() -> None:
    """A NUL that came by an escape is found."""
    (fault,) = refuse(with_env(f'A: "{SECRET}\\0"'), content_type=YAML).faults

    assert fault == Fault("containers[0].env.A", "must not contain a NUL character")


# --- whatever may come ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        pytest.param("[" * 100_000, None, id="JSON lists"),
        pytest.param('{"a":' * 40_000, None, id="JSON maps"),
        pytest.param("//\n" + "[" * 100_000, None, id="JSON lists after a comment"),
        pytest.param("[" * 1_000, YAML, id="YAML flow"),
        pytest.param("- " * 1_000, YAML, id="YAML block"),
        pytest.param(
            '{"networking": ' + '{"a": ' * 600 + "0" + "}" * 601, None, id="field always empty"
        ),
        pytest.param('{"a": "\\ud800", "b": ' + "[" * 600 + "]" * 600 + "}", None, id="escape"),
    ],
)
def test_deep_nesting_is_refused(body: str, content_type: str | None) -> None:
    """A body nested without end is refused like any other."""
    assert refuse(body, content_type=content_type).reason == Reason.INVALID_EVENT


@pytest.mark.timeout(10)
@pytest.mark.parametrize(
    "body",
    [
        pytest.param("/***/" + '"\\' * 100_000, id="quotes without end"),
        pytest.param("/*" * 130_000, id="comments without end"),
        pytest.param('"' + "/" * 260_000, id="string without end"),
        pytest.param("//\n" * 80_000, id="comments only"),
        pytest.param("{" + '"a":1,' * 40_000 + '"b":1}', id="one key for ever"),
        pytest.param(
            '{"tenant_id":"a","containers":[{"image":"n","secrets":[' + '"a",' * 60_000 + '"a"]}]}',
            id="one secret for ever",
        ),
        pytest.param(
            '{"tenant_id":"a","containers":[{"image":"' + "a-" * 120_000 + '"}]}', id="image"
        ),
    ],
)
def test_a_hostile_body_takes_no_time(body: str) -> None:
    """The work of refusing grows with the body's length, not with its square."""
    assert refuse(body).reason == Reason.INVALID_EVENT


@pytest.mark.timeout(10)
def test_an_endless_yaml_number_takes_no_time() -> None:
    """A number without end is refused as fast as any text."""
    check = f"{{test: x, interval_seconds: {'1' * 200_000}x}}"
    body = f"{{tenant_id: a, containers: [{{image: n, healthcheck: {check}}}]}}"

    (fault,) = refuse(body, content_type=YAML).faults

    assert fault.field == "containers[0].healthcheck.interval_seconds"


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=8,
)
PARTS = (
    TenantDocument,
    ContainerDocument,
    PortDocument,
    HealthCheckDocument,
    ResourcesDocument,
    ProviderConfigDocument,
    UlimitDocument,
)
FIELDS = sorted({name for part in PARTS for name in part.model_fields} | {"networking", "storage"})
almost_documents = st.recursive(
    json_values | st.sampled_from(["acme", "nginx", 80, "host", "a:/b", 1.5]),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(st.sampled_from(FIELDS), inner, min_size=1, max_size=6)
    ),
    max_leaves=25,
)
whatever = st.one_of(
    st.binary(max_size=60),
    st.text(alphabet=" \n\t\"\\/*{}[]:,-&!<>?|#%@`~'0123e.ud8aA", max_size=60).map(str.encode),
    json_values.map(lambda value: json.dumps(value).encode()),
    almost_documents.map(lambda value: json.dumps(value).encode()),
    st.builds(
        lambda container, config: json.dumps(
            {"tenant_id": "a", "containers": [container], "provider_config": config}
        ).encode(),
        almost_documents,
        almost_documents,
    ),
)


@settings(max_examples=100, deadline=None, suppress_health_check=[Hypothesis.too_slow])
@given(
    body=whatever,
    content_type=st.sampled_from([None, YAML, STRUCTURED]),
    kind=st.sampled_from([*EventKind, "other"]),
)
def test_whatever_comes_is_an_event_or_refused(
    body: bytes, content_type: str | None, kind: str
) -> None:
    """Decoding ends in a tenant event that can be kept, or in InvalidMessage, and nothing else."""
    outcome = decode_or_refuse(body, content_type=content_type, routing_key=kind)

    match outcome:
        case InvalidMessage():
            assert outcome.faults
            assert dead_letter_headers(outcome, MOMENT)["landlord-error"].encode()
        case TenantEvent(spec=TenantSpec() as spec):
            assert decode_spec(encode_spec(spec)) == spec
        case _:
            assert outcome.kind not in (EventKind.CREATED, EventKind.UPDATED)


@settings(max_examples=40, deadline=None)
@given(
    env=st.dictionaries(
        st.text(min_size=1).filter(lambda name: "=" not in name and "\0" not in name),
        st.text().filter(lambda value: "\0" not in value),
    )
)
def test_the_environment_is_kept_byte_for_byte(env: dict[str, str]) -> None:
    """Any text comes out of decoding, and out of the ledger's JSON, as it went in."""
    document = {"tenant_id": "acme", "containers": [{"image": "nginx", "env": env}]}

    spec = spec_of(document)

    assert dict(spec.env) == env
    assert decode_spec(encode_spec(spec)) == spec


@settings(max_examples=40, deadline=None)
@given(content=json_values, comment=st.text(alphabet='/*"\\ a', max_size=8))
def test_a_comment_changes_nothing(content: object, comment: str) -> None:
    """A document means the same with a comment around it."""
    plain = json.dumps({"tenant_id": "acme", "labels": content, "generation": 1})
    closed = comment.replace("/", "")  # so that it cannot end early

    with_comment = f"/*{closed} */ {plain} //{comment}"
    expected = decode(plain, routing_key="tenant.deleted")

    assert decode(with_comment, routing_key="tenant.deleted") == expected


# --- the ledger's JSON ------------------------------------------------------------------------


def test_a_spec_is_written_without_what_is_at_its_default() -> None:
    """The JSON of a spec is canonical and short."""
    spec = TenantSpec(provider_type="docker", image="nginx", resources=Resources(1, 2))

    assert encode_spec(spec) == (
        '{"image":"nginx","provider_type":"docker","resources":{"cpu":1,"memory":2}}'
    )


def test_a_full_spec_is_read_back() -> None:
    """Every part of a spec survives the ledger."""
    spec = make_spec(
        container_name="web",
        command=("a",),
        args=("b", ""),
        env=(("A", "\n"), ("B", "ü")),
        ports=(PortMapping(53, 53, Transport.UDP, "dns"), PortMapping(80)),
        healthcheck=HealthCheck(("CMD", "x"), 0.5, 1.0, 2.0, 3),
        secrets=("token",),
        labels=(("a", "b"),),
        restart_policy=RestartPolicy("on-failure", 3),
        ulimits=(Ulimit("core", 0, -1),),
        stop_grace_seconds=0,
        privileged=True,
    )

    read_back = decode_spec(encode_spec(spec))

    assert read_back == spec
    assert read_back.fingerprint == spec.fingerprint


def test_whole_seconds_are_one_spec_however_they_are_written() -> None:
    """A number of seconds has one fingerprint: as 1, as 1.0, from YAML and from the ledger."""
    container = '{"image": "n", "healthcheck": {"test": "x", "interval_seconds": %s}}'
    body = f'{{"tenant_id": "acme", "containers": [{container}]}}'

    whole = spec_of(body % "1")
    others = [spec_of(body % "1.0"), spec_of(body % "1", content_type=YAML)]

    assert {other.fingerprint for other in others} == {whole.fingerprint}
    assert decode_spec(encode_spec(whole)).fingerprint == whole.fingerprint


# --- status events ----------------------------------------------------------------------------

REPORT = ContainerReport(
    container_id=ContainerId("c" * 64),
    name="landlord-tenant-acme-corp",
    image="nginx:alpine",
    image_id="sha256:" + "a" * 64,
    started_at=MOMENT + timedelta(milliseconds=123),
    finished_at=None,
    exit_code=None,
    restart_count=0,
    oom_killed=False,
    health=Health.NONE,
)


def test_status_event_has_the_shape_of_the_contract() -> None:
    """The body of a status event is the contract's JSON object."""
    status = make_status(
        sequence=1795514400123,
        generation=3,
        event_id=EventId("event-1"),
        container=REPORT,
        ports=(BoundPort(80, Transport.TCP, "0.0.0.0", 8080, "http"),),
        changes=("image",),
        startup_seconds=0.31049,
        will_retry=True,
        attempt=2,
        next_attempt_at=MOMENT + timedelta(seconds=1),
    )

    assert json.loads(encode_status(status)) == {
        "tenant_id": "acme-corp",
        "state": "running",
        "reason": "started",
        "message": "container started in 0.31 s",
        "sequence": 1795514400123,
        "generation": 3,
        "event_id": "event-1",
        "provider_type": "docker",
        "container": {
            "id": "c" * 64,
            "name": "landlord-tenant-acme-corp",
            "image": "nginx:alpine",
            "image_id": "sha256:" + "a" * 64,
            "started_at": "2026-11-24T10:00:00.123Z",
            "finished_at": None,
            "exit_code": None,
            "restart_count": 0,
            "oom_killed": False,
            "health": "none",
        },
        "ports": [
            {
                "name": "http",
                "container_port": 80,
                "host_ip": "0.0.0.0",
                "host_port": 8080,
                "protocol": "tcp",
            }
        ],
        "health": "none",
        "changes": ["image"],
        "startup_seconds": 0.31,
        "will_retry": True,
        "attempt": 2,
        "next_attempt_at": "2026-11-24T10:00:01.000Z",
        "occurred_at": "2026-11-24T10:00:00.000Z",
    }


def test_what_is_not_known_is_null() -> None:
    """Without container, number and event the fields are there and null."""
    told = status_document(make_status())

    for name in ("container", "generation", "event_id", "startup_seconds", "next_attempt_at"):
        assert told[name] is None


def test_times_are_told_in_utc() -> None:
    """A point in time of another zone is told as the same moment in UTC."""
    east = MOMENT.astimezone(timezone(timedelta(hours=2)))

    assert status_document(make_status(occurred_at=east))["occurred_at"] == (
        "2026-11-24T10:00:00.000Z"
    )


@pytest.mark.parametrize(
    ("message", "told"),
    [
        pytest.param("x" * 2048, "x" * 2048, id="2 KiB"),
        pytest.param("x" * 2049, "x" * 2045 + "…", id="one more"),
        pytest.param("ü" * 1024, "ü" * 1024, id="2 KiB of two bytes each"),
        pytest.param("ü" * 1025, "ü" * 1022 + "…", id="cut between characters"),
        pytest.param("x" + "😀" * 600, "x" + "😀" * 511 + "…", id="four bytes each"),
        pytest.param("broken \ud800", "broken ?", id="half a surrogate pair"),
    ],
)
def test_a_message_has_at_most_2_kib(message: str, told: str) -> None:
    """A longer message is cut between characters and says so; it can always be sent."""
    document = status_document(make_status(message=message))

    assert document["message"] == told
    assert len(told.encode()) <= 2048


whole_milliseconds = st.integers(-(10**12), 10**12).map(
    lambda milliseconds: MOMENT + timedelta(milliseconds=milliseconds)
)
messages = st.text(max_size=300)
reports = st.builds(
    ContainerReport,
    container_id=st.text().map(ContainerId),
    name=st.text(),
    image=st.text(),
    image_id=st.text(),
    started_at=st.none() | whole_milliseconds,
    finished_at=st.none() | whole_milliseconds,
    exit_code=st.none() | st.integers(-1, 255),
    restart_count=st.integers(0),
    oom_killed=st.booleans(),
    health=st.sampled_from(Health),
)
bound_ports = st.builds(
    BoundPort,
    container_port=st.integers(1, 65535),
    protocol=st.sampled_from(Transport),
    host_ip=st.none() | st.just("0.0.0.0"),
    host_port=st.none() | st.integers(1, 65535),
    name=st.none() | st.text(),
)
statuses = st.builds(
    Status,
    tenant_id=st.just(TENANT_ID),
    state=st.sampled_from(State),
    reason=st.sampled_from(sorted(frozenset[Reason]().union(*REASONS.values()))),
    message=messages,
    occurred_at=whole_milliseconds,
    provider_type=st.text(),
    sequence=st.integers(0, 2**63 - 1),
    generation=st.none() | st.integers(1, 2**63 - 1),
    event_id=st.none() | st.text().map(EventId),
    container=st.none() | reports,
    ports=st.lists(bound_ports, max_size=3).map(tuple),
    health=st.sampled_from(Health),
    changes=st.lists(st.text(), max_size=3).map(tuple),
    startup_seconds=st.none() | st.integers(0, 10**6).map(lambda ms: ms / 1000),
    will_retry=st.booleans(),
    attempt=st.integers(1),
    next_attempt_at=st.none() | whole_milliseconds,
)


@settings(max_examples=50, deadline=None, suppress_health_check=[Hypothesis.too_slow])
@given(status=statuses)
def test_a_status_is_read_back(status: Status) -> None:
    """What was told is what is remembered, to the millisecond."""
    assert decode_status(encode_status(status)) == status


def test_a_status_of_a_later_version_is_read() -> None:
    """Fields that are not known are ignored."""
    told = status_document(make_status(container=REPORT)) | {"mood": "good"}

    assert decode_status(json.dumps(told)) == make_status(container=REPORT)


ENTRY = OutboxEntry(
    entry_id=1,
    tenant_id=TENANT_ID,
    sequence=17,
    state=State.FAILED,
    body="{}",
    created_at=MOMENT,
    correlation_id=None,
    traceparent=None,
)


def test_status_headers_are_a_binary_cloudevent() -> None:
    """A status event names its tenant and is a CloudEvent in binary mode."""
    assert status_headers(ENTRY, source="/landlord/default") == {
        "tenant_id": "acme-corp",
        "cloudEvents:specversion": "1.0",
        "cloudEvents:id": "acme-corp/17",
        "cloudEvents:type": "tenant.status.failed",
        "cloudEvents:source": "/landlord/default",
        "cloudEvents:subject": "acme-corp",
        "cloudEvents:time": "2026-11-24T10:00:00.000Z",
    }


def test_status_headers_carry_the_traceparent_on() -> None:
    """The trace of the causing event goes on."""
    headers = status_headers(replace(ENTRY, traceparent="00-aa-bb-01"), source="/landlord")

    assert headers["traceparent"] == "00-aa-bb-01"


def test_dead_letter_headers() -> None:
    """A dead letter tells reason, every fault with its path, and when it came."""
    faults = (Fault("labels.a", "has to be a valid string"), Fault("", "not good"))

    assert dead_letter_headers(InvalidMessage(Reason.INVALID_EVENT, faults), MOMENT) == {
        "landlord-reason": "invalid_event",
        "landlord-error": "labels.a: has to be a valid string; not good",
        "landlord-received-at": "2026-11-24T10:00:00.000Z",
    }


def test_dead_letter_headers_are_of_bounded_length() -> None:
    """However many faults there are, the header is at most 2 KiB."""
    faults = tuple(Fault(f"labels.a{number}", "is required") for number in range(1000))

    headers = dead_letter_headers(InvalidMessage(Reason.INVALID_EVENT, faults), MOMENT)

    assert len(headers["landlord-error"].encode()) <= 2048
