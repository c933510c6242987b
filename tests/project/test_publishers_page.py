"""The page for publishers and subscribers tells the truth: fields, example and links."""

import re
from datetime import UTC, datetime
from pathlib import Path

from consumer.contract import status_event_schema
from consumer.document import SpecDefaults
from consumer.messages import Delivery, decode_tenant_event
from consumer.model import EventKind
from tests.project.headings import anchors

PAGE = Path(__file__).parents[2] / "deploy" / "publishers.md"
TEXT = PAGE.read_text(encoding="utf-8")


def test_every_field_of_a_status_event_has_its_row() -> None:
    """In the order of the wire, and none is told that does not exist."""
    table = re.findall(r"(?ms)^\| field \| meaning \|\n\|[-|]+\n(.*?)^$", TEXT)[0]
    told = [
        name for row in table.splitlines() for name in re.findall(r"`(\w+)`", row.split("|")[1])
    ]

    fields = status_event_schema()["properties"]

    assert isinstance(fields, dict)
    assert told == list(fields)


def test_every_type_of_a_tenant_event_is_named() -> None:
    assert {kind.value for kind in EventKind} <= set(re.findall(r"`(tenant\.[a-z]+)`", TEXT))


def test_the_example_is_accepted() -> None:
    """The document, as one that is published."""
    (document,) = re.findall(r"(?ms)^```json\n(.*?)^```", TEXT)
    delivery = Delivery(
        body=document.encode(),
        tag=1,
        session=1,
        received_at=datetime(2026, 11, 24, tzinfo=UTC),
        routing_key="tenant.created",
        headers={},
        properties={},
    )

    event = decode_tenant_event(delivery, SpecDefaults())

    assert event.generation == 1


def test_every_link_leads_somewhere() -> None:
    """To a file, and to a heading in it where one is named."""
    links = [link.partition("#") for link in re.findall(r"\]\(([^)]+)\)", TEXT)]

    lost = []
    for path, _, anchor in links:
        target = PAGE.parent / path if path else PAGE
        if not target.is_file() or (anchor and anchor not in anchors(target)):
            lost.append(f"{path}#{anchor}")

    assert links
    assert lost == []
