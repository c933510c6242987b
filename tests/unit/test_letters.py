"""Dead letters: what they say of themselves, and what they were before."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from consumer.errors import Fault, InvalidMessage
from consumer.letters import (
    MOST_REDELIVERIES,
    Group,
    Letter,
    Selection,
    grouped,
    original,
    read_letter,
    renewed,
    summary,
)
from consumer.messages import Delivery, dead_letter_headers
from consumer.model import Reason
from tests.builders import MOMENT, TENANT_ID, make_delivery, make_document

ERROR = InvalidMessage(Reason.POLICY_DENIED, (Fault("image", "is not allowed"),))
OWN = {
    **dead_letter_headers(ERROR, MOMENT),
    "landlord-exchange": "landlord.tenants",
    "landlord-routing-key": "tenant.updated",
}
DEATH = {
    "reason": "delivery_limit",
    "exchange": "landlord.tenants",
    "routing-keys": ["tenant.deleted"],
    "time": datetime(2026, 11, 24, 11, 0, tzinfo=UTC),
}


def make_letter(position: int = 1, **headers: object) -> Letter:
    """Return a dead letter of ours with these headers, dashes for underscores."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return read_letter(lying(headers={**OWN, **named}), position)


def lying(**changes: object) -> Delivery:
    """Return a delivery out of the dead-letter queue."""
    return replace(make_delivery(1, "tenant.updated"), **changes)  # type: ignore[arg-type]  # at run time


def test_a_letter_of_ours_is_read() -> None:
    """Its reason, its time, its tenant and its event."""
    letter = read_letter(lying(headers=OWN, message_id="e1", body=make_document()), 3)

    assert summary(letter) == {
        "position": 3,
        "event_id": "e1",
        "message_id": "e1",
        "type": "tenant.updated",
        "tenant_id": TENANT_ID,
        "reason": "policy_denied",
        "error": "image: is not allowed",
        "received_at": "2026-11-24T10:00:00.000Z",
        "replays": 0,
    }


def test_a_letter_of_the_broker_is_read() -> None:
    """What the delivery limit brought here tells by the broker's own headers where it was."""
    letter = read_letter(lying(headers={"x-death": [DEATH]}, routing_key=""), 1)

    assert (letter.reason, letter.received_at) == ("delivery_limit", "2026-11-24T11:00:00.000Z")
    assert (letter.exchange, letter.routing_key) == ("landlord.tenants", "tenant.deleted")


@pytest.mark.parametrize(
    "headers", [{}, {"x-death": []}, {"x-death": "?"}, {"x-death": [{"routing-keys": []}]}]
)
def test_a_letter_of_anybody_is_read(headers: dict[str, object]) -> None:
    """What carries no reason has the reason unknown, and its routing key is its own."""
    letter = read_letter(lying(headers=headers), 1)

    assert (letter.reason, letter.routing_key) == ("unknown", "tenant.updated")
    assert letter.received_at == ""


def test_a_letter_that_cannot_be_decoded_is_read() -> None:
    """One letter's trouble stays its own: its ids are not known, and that is all."""
    broken: bytes = None  # type: ignore[assignment]  # nothing that ever came off a broker
    letter = read_letter(lying(headers=OWN, body=broken, message_id="e1"), 1)

    assert (letter.event_id, letter.tenant_id) == ("e1", None)


def test_a_refused_documents_tenant_is_known() -> None:
    """As far as it can be read, also where the document breaks a rule."""
    letter = read_letter(lying(headers=OWN, body=make_document(unknown=1)), 1)

    assert letter.tenant_id == TENANT_ID


def test_a_letter_without_an_id_is_named_by_its_place() -> None:
    """So that a person can speak of it."""
    letter = read_letter(lying(headers=OWN, message_id=None), 7)

    assert letter.name == "#7"


def test_the_original_is_what_came_and_counts_its_replays() -> None:
    """What was added on the way is taken off; what the publisher sent stays."""
    sent = {"cloudEvents:id": "e1", "landlord-original-user-id": "shop", "x-mine": 1}
    added = {
        "x-death": [DEATH],
        "x-first-death-reason": "delivery_limit",
        "x-last-death-queue": "landlord.consumer",
        "x-delivery-count": 2,
        "x-acquired-count": 3,
    }
    properties = {"content_type": "application/json", "correlation_id": "c1"}
    letter = read_letter(lying(headers={**sent, **OWN, **added}, properties=properties), 1)

    before = original(letter)

    assert before.body == letter.delivery.body
    assert before.headers == {**sent, "landlord-replays": 1}
    assert before.properties == properties


def test_an_expiration_that_was_set_aside_is_restored() -> None:
    """The broker would have acted upon it in the dead-letter queue."""
    letter = make_letter(landlord_original_expiration="60.0")

    before = original(letter)

    assert before.properties["expiration"] == 60.0
    assert "landlord-original-expiration" not in before.headers


@pytest.mark.parametrize(("count", "next_count"), [(1, 2), (41, 42), ("many", 1), (None, 1)])
def test_replays_are_counted_on(count: object, next_count: int) -> None:
    """From what the header says; what is no number begins anew."""
    assert original(make_letter(landlord_replays=count)).headers["landlord-replays"] == next_count


def test_a_letter_whose_headers_were_dropped_cannot_be_put_back() -> None:
    """It would not be the event that it was."""
    assert make_letter().obstacle is None
    assert "publish the event again" in str(make_letter(landlord_headers_dropped="9").obstacle)


@pytest.mark.parametrize(
    ("count", "is_worn"),
    [(None, False), (MOST_REDELIVERIES - 1, False), (MOST_REDELIVERIES, True), ("many", False)],
)
def test_a_letter_wears_out(count: object, is_worn: bool) -> None:
    """By its redeliveries, which a broker's delivery limit counts too."""
    assert make_letter(x_delivery_count=count).is_worn is is_worn


def test_a_renewed_letter_says_the_same() -> None:
    """Only its redeliveries are forgotten; where it came from is not, whatever its new way."""
    letter = make_letter(x_delivery_count=12)
    of_broker = read_letter(lying(headers={"x-death": [DEATH]}), 1)

    assert renewed(letter).headers == OWN
    again = read_letter(lying(headers=renewed(of_broker).headers, routing_key="its queue"), 1)
    assert replace(again, delivery=of_broker.delivery) == of_broker


@pytest.mark.parametrize(
    ("selection", "is_meant"),
    [
        (Selection(), True),
        (Selection(event_id="e1"), True),
        (Selection(event_id="m1"), True),
        (Selection(event_id="e2"), False),
        (Selection(reason="policy_denied"), True),
        (Selection(reason="invalid_event"), False),
        (Selection(event_id="e1", reason="invalid_event"), False),
    ],
)
def test_letters_are_meant_by_id_and_reason(selection: Selection, is_meant: bool) -> None:
    """Either id will do; what is given has to hold together."""
    headers = {**OWN, "cloudEvents:id": "e1"}
    letter = read_letter(lying(headers=headers, message_id="m1"), 1)

    assert selection.matches(letter) is is_meant


def test_letters_are_grouped_by_reason() -> None:
    """The largest group first, each with its newest time and a tenant where one is known."""
    early = {"landlord_received_at": "2026-11-24T09:00:00.000Z"}
    named, nameless = make_letter(1, **early), replace(make_letter(2), tenant_id=None)
    other = replace(make_letter(3, landlord_reason="invalid_event"), tenant_id=None)

    found = grouped([other, named, nameless])

    newest = "2026-11-24T10:00:00.000Z"
    assert found == [
        Group(reason="policy_denied", count=2, newest=newest, tenant_id=TENANT_ID),
        Group(reason="invalid_event", count=1, newest=newest, tenant_id=None),
    ]
