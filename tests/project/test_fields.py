"""The table of fields and of the policy's keys is whole, measured against the code's own list."""

from collections.abc import Iterator, Mapping

from consumer.document import TenantDocument
from consumer.settings import describe
from tests.fields import (
    POLICY_APART,
    POLICY_DENIED,
    POLICY_SHOWN,
    POLICY_SHOWN_ELSEWHERE,
    REFUSED,
    SHOWN,
    TOLD_ELSEWHERE,
)

SCHEMA: Mapping[str, object] = TenantDocument.model_json_schema()
SPELLINGS = {"containers[0].health_check": "containers[0].healthcheck"}


def leaves(schema: object, path: str = "") -> Iterator[str]:
    """Yield the paths of all fields below; those of an object stand for the object."""
    inner = list(below(schema, path))
    yield from inner or [path]


def below(schema: object, path: str) -> Iterator[str]:
    """Yield the paths of the fields of whatever objects the schema allows there."""
    if not isinstance(schema, dict):
        return
    if "$ref" in schema:
        definitions = SCHEMA["$defs"]
        assert isinstance(definitions, dict)
        yield from below(definitions[schema["$ref"].rpartition("/")[2]], path)
    for choice in schema.get("anyOf", ()):
        yield from below(choice, path)
    yield from below(schema.get("items"), f"{path}[0]")
    yield from below(schema.get("additionalProperties"), f"{path}.*")
    for name, field in schema.get("properties", {}).items():
        yield from leaves(field, f"{path}.{name}" if path else name)


def fields() -> set[str]:
    """Return the paths of all fields of a tenant document, each in one spelling."""
    paths = set(leaves(SCHEMA))
    for other, usual in SPELLINGS.items():
        paths = {path.replace(other, usual) for path in paths}
    return paths


def test_every_field_is_shown_by_the_engine_and_refused_once() -> None:
    """A new field needs a row in each table."""
    assert fields() == {*SHOWN, *TOLD_ELSEWHERE} == {*REFUSED}


def test_every_key_of_the_policy_is_shown_by_the_engine_and_denied_once() -> None:
    """A new key needs a row in each table."""
    head = "compute.policy."
    keys = {doc.key.removeprefix(head) for doc in describe() if doc.key.startswith(head)}

    assert keys >= POLICY_APART
    keys -= POLICY_APART
    assert keys == {*POLICY_SHOWN, *POLICY_SHOWN_ELSEWHERE} == {*POLICY_DENIED}
