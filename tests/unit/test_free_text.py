"""Every text of a document has an answer: what the engine takes it for, and in which form."""

import json
import re
from collections.abc import Iterator, Mapping

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consumer.document import TenantDocument
from consumer.errors import Fault, InvalidMessage
from consumer.free_text import TEXTS, Reading, faults, texts_of
from consumer.model import TenantSpec
from consumer.policy import Admission
from tests.builders import make_delivery, make_spec
from tests.fields import DEFAULTS, FULL, OPEN

SCHEMA: Mapping[str, object] = TenantDocument.model_json_schema()
SPELLINGS = {"containers[0].health_check": "containers[0].healthcheck"}
LISTS = re.compile(
    r"(command|args|test|secrets|volumes|cap_add|cap_drop|security_opt|hosts|dns)\[0\]"
)


def texts(schema: object, path: str = "") -> Iterator[str]:
    """Yield the path of each text below, and of each map's keys."""
    if not isinstance(schema, dict):
        return
    if "$ref" in schema:
        definitions = SCHEMA["$defs"]
        assert isinstance(definitions, dict)
        yield from texts(definitions[schema["$ref"].rpartition("/")[2]], path)
    for choice in schema.get("anyOf", ()):
        yield from texts(choice, path)
    if schema.get("type") == "string" or "enum" in schema or "const" in schema:
        yield path
    yield from texts(schema.get("items"), f"{path}[0]")
    for name, field in schema.get("properties", {}).items():
        yield from texts(field, f"{path}.{name}" if path else name)
    for rest in (schema.get("additionalProperties"), *schema.get("patternProperties", {}).values()):
        if isinstance(rest, dict):
            yield f"{path} key"
            yield from texts(rest, path)


def test_every_text_of_the_schema_has_an_answer() -> None:
    """A new option cannot come without one: is it a path, a size, a name, or content?"""
    found = {LISTS.sub(r"\1", path) for path in texts(SCHEMA)}
    for other, usual in SPELLINGS.items():
        found = {path.replace(other, usual) for path in found}

    assert found == {*TEXTS}


def test_every_text_of_a_spec_is_held_to_its_row() -> None:
    """What reaches the engine is looked at: a full document leaves out nothing that has a row."""
    event = Admission(defaults=DEFAULTS, policy=OPEN).admit(
        make_delivery(1, body=json.dumps(FULL).encode())
    )
    assert event.spec is not None
    seen = {path for path, _ in texts_of(event.spec)}

    not_sent = {path for path, answer in TEXTS.items() if answer.reading is Reading.NOT_SENT}
    elsewhere = {
        # Held to a closed set, or to the pattern of ids, before a spec is made of them.
        *("tenant_id", "provider_type", "containers[0].healthcheck.command"),
        # Written as one with the labels of the document.
        *("provider_config.labels", "provider_config.labels key"),
        # In another of the documents, for it does not go with published ports.
        "provider_config.network_mode",
    }
    assert {*TEXTS} - seen == not_sent | elsewhere


HOSTILE = st.one_of(
    st.sampled_from(
        [
            "{{.ID}}",
            "{{pad .ID 9000000000 1}}",
            "../../etc",
            "/etc/shadow",
            "*",
            ".*",
            "9" * 40 + "p",
            "a\nb",
            "$(id)",
            "%n",
            "-v",
            "/a:/b:rshared",
        ]
    ),
    st.text(max_size=20),
)
KEYS = (
    *("hostname", "user", "working_dir", "stop_signal", "runtime", "log_driver", "network_mode"),
    *("restart_policy", "pull_policy"),
)
LISTED = ("volumes", "cap_add", "cap_drop", "security_opt", "extra_hosts", "dns")
MAPPED = ("log_options", "tmpfs", "labels")


@settings(max_examples=300, deadline=None)
@given(
    where=st.sampled_from([*KEYS, *LISTED, *MAPPED]),
    key=st.one_of(HOSTILE, st.sampled_from(["tag", "max-size", "max-file", "/scratch"])),
    text=HOSTILE,
)
def test_nothing_of_another_form_reaches_the_engine(where: str, key: str, text: str) -> None:
    """Whatever stands in an option, it is refused or of the form that its row has."""
    value = text if where in KEYS else [text] if where in LISTED else {key: text}
    document = {"tenant_id": "a", "containers": [{"image": "landlord-test/web"}]}
    body = json.dumps(document | {"provider_config": {where: value}}).encode()
    try:
        spec = Admission(defaults=DEFAULTS, policy=OPEN).admit(make_delivery(1, body=body)).spec
    except InvalidMessage:
        return
    assert spec is not None
    assert [path for path, sent in texts_of(spec) if not TEXTS[path].holds(sent)] == []


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        (make_spec(hostname="{{.ID}}"), "provider_config.hostname"),
        (make_spec(log_options=(("max-size", "x"),)), "provider_config.log_options"),
        (make_spec(volumes=("/a:/b\n",)), "provider_config.volumes"),
        (make_spec(env=(("A", "\0"),)), "containers[0].env"),
    ],
)
def test_what_slipped_through_is_stopped_and_not_told(spec: TenantSpec, field: str) -> None:
    """Also what an older version recorded; the text itself is in no fault."""
    (fault,) = faults(spec)

    assert fault.field == field
    assert fault == Fault(field, f"does not read as {fault.rule.partition(' as ')[2]}")
