"""The contract's documents: valid by the official rules, and true of what the consumer takes."""

import json
from collections.abc import Iterator, Mapping
from copy import deepcopy
from datetime import UTC, datetime
from pathlib import Path

import jsonschema
import pytest
import yaml
from jsonschema import Draft7Validator, Draft202012Validator

from consumer.contract import (
    STATUS_EXAMPLES,
    TENANT_EVENT_EXAMPLES,
    BrokerNames,
    asyncapi,
    status_event_schema,
    tenant_event_schema,
)
from consumer.document import SpecDefaults, read_document
from consumer.messages import (
    Delivery,
    decode_status,
    decode_tenant_event,
    encode_status,
    status_document,
)
from consumer.model import REASONS, EventKind, Reason, State
from consumer.settings import Settings
from consumer.wiring import broker_names
from tests.builders import make_status
from tests.fields import DOCUMENTS

DATA = Path(__file__).parent / "data"
NAMES = BrokerNames(tenant_exchange="in", queue="mine", status_exchange="out", dead_letter="dead")
DOCUMENT = yaml.safe_load(asyncapi(NAMES, version="1.2.3"))
SCHEMAS = {"tenant": tenant_event_schema(), "status": status_event_schema()}
WORDS = {*Draft202012Validator.VALIDATORS, "if", "then", "$schema", "$defs", "format"} | {
    *("title", "description", "default", "examples")
}


def errors(document: object, schema: object) -> list[str]:
    """Return what JSON Schema says against the document."""
    assert isinstance(schema, dict)
    return [error.message for error in Draft202012Validator(schema).iter_errors(document)]


def subschemas(schema: object) -> Iterator[Mapping[str, object]]:
    """Yield the schema and all within it, but for what is only given as a value."""
    if not isinstance(schema, dict):
        return
    yield schema
    for word, inner in schema.items():
        if word in ("properties", "$defs"):
            for each in inner.values():
                yield from subschemas(each)
        elif word in ("anyOf", "allOf"):
            for each in inner:
                yield from subschemas(each)
        elif word in ("items", "additionalProperties", "propertyNames", "if", "then"):
            yield from subschemas(inner)


def properties_of(schema: Mapping[str, object]) -> Mapping[str, Mapping[str, object]]:
    """Return the fields of an object; conditions on them are none."""
    properties = schema.get("properties", {}) if "type" in schema else {}
    assert isinstance(properties, dict)
    return properties


def changed(path: str, value: object) -> dict[str, object]:
    """Return the fullest document with another value at the path."""
    document: dict[str, object] = deepcopy(dict(DOCUMENTS["full"]))
    inside: object = document
    *way, last = path.split(".")
    for step in way:
        inside = inside[int(step)] if isinstance(inside, list) else inside[step]  # type: ignore[index]  # a document
    inside[last] = value  # type: ignore[index]  # as above
    return document


# --- JSON Schemas -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", SCHEMAS)
def test_a_schema_has_only_words_that_json_schema_knows(name: str) -> None:
    """A word it does not know would be passed over, and its rule with it."""
    Draft202012Validator.check_schema(SCHEMAS[name])

    unknown = {word for schema in subschemas(SCHEMAS[name]) for word in schema} - WORDS

    assert unknown == set()


@pytest.mark.parametrize("name", SCHEMAS)
def test_every_field_says_what_it_is(name: str) -> None:
    """Whoever has the schema alone can write a document, or read a status."""
    silent = {
        field
        for schema in subschemas(SCHEMAS[name])
        for field, told in properties_of(schema).items()
        if "description" not in told and told.get("$ref") != "#/$defs/Empty"
    }

    assert silent == set()


@pytest.mark.parametrize("document", DOCUMENTS.values(), ids=DOCUMENTS)
def test_the_schema_takes_what_the_consumer_takes(document: Mapping[str, object]) -> None:
    """Documents that together have every field are valid."""
    assert errors(document, SCHEMAS["tenant"]) == []


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("networking", {"a": {"b": [], "c": 0, "d": None, "e": False, "f": ""}}),
        ("annotations", None),
        ("secrets", []),
        ("resources.storage", 0),
        ("containers.0.resources", {"cpu": 0}),
        ("provider_config", None),
        ("resources", None),
        ("labels", None),
        ("generation", None),
        ("containers.0.env", {"A": 1, "B": 1.5, "C": True, "D": "x"}),
        ("containers.0.ports.0.protocol", "Udp"),
        ("containers.0.ports.0.name", None),
        ("containers.0.healthcheck.test", "true"),
        ("containers.0.healthcheck.retries", None),
        ("provider_config.stop_signal", 15),
        ("provider_config.log_options", {"max-file": 2}),
        ("provider_config.volumes", None),
    ],
)
def test_the_schema_takes_every_spelling_that_the_consumer_takes(path: str, value: object) -> None:
    """What is taken in more than one form is valid in each of them."""
    document = changed(path, value)

    read_document(document, SpecDefaults())

    assert errors(document, SCHEMAS["tenant"]) == []


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("tenant_id", "-a"),
        ("tenant_id", "a" * 129),
        ("generation", 0),
        ("containers", []),
        ("containers.0.image", ""),
        ("containers.0.immage", "nginx"),
        ("containers.0.env", {"A": None}),
        ("containers.0.ports.0.container_port", 0),
        ("containers.0.ports.0.host_port", 65536),
        ("containers.0.ports.0.protocol", "icmp"),
        ("containers.0.args", ["a"] * 1001),
        ("containers.0.healthcheck.interval_seconds", -1),
        ("resources.cpu", 9),
        ("resources.memory", 5),
        ("resources.storage", 1),
        ("networking", {"mode": "host"}),
        ("labels", {str(number): "" for number in range(257)}),
        ("provider_config.pids_limit", 0),
        ("provider_config.stop_grace_seconds", 3601),
        ("provider_config.pull_policy", "sometimes"),
        ("provider_config.user", "a b"),
        ("surprise", 1),
    ],
)
def test_the_schema_tells_the_rules(path: str, value: object) -> None:
    """What the consumer refuses for a limit, a pattern or a name, the schema refuses too."""
    document = changed(path, value)

    assert errors(document, SCHEMAS["tenant"]) != []


def test_the_schema_of_a_status_event_has_every_field_told() -> None:
    """What is told and what is published as its shape are the same fields."""
    properties, told = SCHEMAS["status"]["properties"], status_document(make_status())

    assert isinstance(properties, dict)
    assert set(properties) == set(told)
    assert set(told) == set(SCHEMAS["status"]["required"])  # type: ignore[call-overload]  # names


@pytest.mark.parametrize("state", State)
def test_a_state_has_only_its_own_reasons(state: State) -> None:
    """The status schema takes the reasons of each state, and none of another."""
    event = {**STATUS_EXAMPLES[State.RUNNING].payload, "state": state.value}

    taken = {
        reason
        for reason in Reason
        if not errors({**event, "reason": reason.value}, SCHEMAS["status"])
    }

    assert taken == REASONS[state]


# --- AsyncAPI ---------------------------------------------------------------------------------


def test_the_document_is_valid_by_asyncapis_own_schema() -> None:
    """The official JSON Schema of AsyncAPI 3.0 has nothing to say."""
    official = json.loads((DATA / "asyncapi/3.0.0.json").read_text(encoding="utf-8"))

    found = [error.message for error in Draft7Validator(official).iter_errors(DOCUMENT)]

    assert found == []


def test_every_reference_leads_somewhere() -> None:
    """Each `$ref` of the document is within it."""

    def references(part: object) -> Iterator[str]:
        if isinstance(part, dict):
            yield from (part["$ref"],) if "$ref" in part else ()
            for inner in part.values():
                yield from references(inner)
        elif isinstance(part, list):
            for inner in part:
                yield from references(inner)

    found = set(references(DOCUMENT))
    for reference in found:
        place = DOCUMENT
        for step in reference.removeprefix("#/").split("/"):
            place = place[step]

    assert len(found) > 20


def test_the_document_names_what_the_settings_name() -> None:
    """Exchanges, queue and routing keys are there as they are on the broker."""
    channels = DOCUMENT["channels"]
    inbound = {channels[name]["address"]: channels[name] for name in channels}

    assert set(EventKind) <= set(inbound)
    assert inbound["tenant.created"]["bindings"]["amqp"]["exchange"]["name"] == "in"
    assert "mine" in inbound["tenant.created"]["description"]
    assert inbound["tenant.status.{state}"]["bindings"]["amqp"]["exchange"]["name"] == "out"
    assert inbound["dead"]["bindings"]["amqp"]["queue"]["name"] == "dead"


def test_the_document_is_yaml_without_aliases() -> None:
    """It can be read by anything that reads the consumer's own YAML, which refuses aliases."""
    assert "&id" not in asyncapi(NAMES, version="1.2.3")


def test_the_login_of_the_broker_is_not_told() -> None:
    """Host, port and virtual host are; user and password are not."""
    settings = Settings.model_validate(
        {"broker": {"url": "amqps://someone:hunter2@broker.example.com/%2Fteam"}}
    )

    text = asyncapi(broker_names(settings), version="1.2.3")

    assert yaml.safe_load(text)["servers"]["broker"] == {
        "host": "broker.example.com:5671",
        "pathname": "/team",
        "protocol": "amqps",
        "protocolVersion": "0.9.1",
    }
    assert "hunter2" not in text
    assert "someone" not in text


# --- examples ---------------------------------------------------------------------------------


def shown(message: str) -> list[tuple[object, object]]:
    """Return each example of the message with its schema, which stands by itself."""
    told = DOCUMENT["components"]["messages"][message]
    schema = {**told["payload"], "components": DOCUMENT["components"]}
    return [(example["payload"], schema) for example in told["examples"]]


@pytest.mark.parametrize("kind", EventKind)
def test_the_example_of_a_tenant_event_is_valid_and_taken(kind: EventKind) -> None:
    """It validates by the document's own schema, and the consumer takes it."""
    ((payload, schema),) = shown(f"tenant{kind.name.capitalize()}")

    event = decode_tenant_event(
        Delivery(
            body=json.dumps(payload).encode(),
            tag=1,
            session=1,
            received_at=datetime(2026, 11, 24, tzinfo=UTC),
            routing_key=kind.value,
            headers={},
            properties={},
        ),
        SpecDefaults(),
    )

    assert event.kind is kind
    assert payload == TENANT_EVENT_EXAMPLES[kind].payload
    assert isinstance(schema, dict)
    jsonschema.validate(payload, schema, cls=Draft7Validator)


@pytest.mark.parametrize("place", range(len(State)))
def test_the_example_of_a_status_event_is_valid_and_could_be_told(place: int) -> None:
    """It validates by both schemas, and encoding what it says gives it again."""
    payload, schema = shown("statusEvent")[place]

    again = json.loads(encode_status(decode_status(json.dumps(payload))))

    assert again == payload
    assert isinstance(schema, dict)
    jsonschema.validate(payload, schema, cls=Draft7Validator)
    assert errors(payload, SCHEMAS["status"]) == []
