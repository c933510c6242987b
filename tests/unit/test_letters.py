"""Dead letters: what they say of themselves, and what they were before."""

import struct
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from consumer.content_header import (
    NO_HEADERS,
    Malformed,
    Properties,
    entries,
    join,
    read,
    split,
    table_of,
)
from consumer.errors import Fault, InvalidMessage
from consumer.letters import (
    MOST_REDELIVERIES,
    Group,
    Letter,
    Original,
    Selection,
    grouped,
    letter_properties,
    original,
    read_letter,
    renewed,
    summary,
    unread_letter,
)
from consumer.messages import DeadLetter, Delivery, dead_letter_headers
from consumer.model import Reason
from tests.builders import MOMENT, TENANT_ID, make_delivery, make_document, make_raw
from tests.faults.frames import raw_message

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
    return read_letter(lying_as(make_raw({**OWN, **named}, message_id="event-1")), position)


def lying(**changes: object) -> Delivery:
    """Return a delivery out of the dead-letter queue."""
    return replace(make_delivery(1, "tenant.updated"), **changes)  # type: ignore[arg-type]  # at run time


def lying_as(raw: bytes, **changes: object) -> Delivery:
    """Return a delivery out of the dead-letter queue with these properties."""
    told = read(raw)
    named = {"headers": told.headers, "properties": told.values, "raw_properties": raw}
    return lying(**named, faults=told.faults, message_id=told.text("message_id"), **changes)


def sent(original: Original) -> Properties:
    """Return what somebody reads who gets it."""
    return read(original.properties)


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
    came = {"cloudEvents:id": "e1", "x-mine": 1}
    added = {
        "x-first-death-reason": "delivery_limit",
        "x-last-death-queue": "landlord.consumer",
        "x-delivery-count": 2,
        "x-acquired-count": 3,
    }
    raw = make_raw({**came, **OWN, **added}, content_type="application/json", correlation_id="c1")
    letter = read_letter(lying_as(raw), 1)

    before = sent(original(letter))

    assert original(letter).body == letter.delivery.body
    assert before.headers == {**came, "landlord-replays": 1}
    assert before.values == {
        "content_type": "application/json",
        "correlation_id": "c1",
        "delivery_mode": 2,
    }


@pytest.mark.parametrize(
    ("noted", "restored"),
    [("60.0", "60000"), ("60000", "60000"), ("many", None), ("nan", None), ("\u0663", "3000")],
)
def test_an_expiration_that_was_set_aside_is_restored(noted: str, restored: str | None) -> None:
    """The broker would have acted upon it in the dead-letter queue."""
    before = sent(original(make_letter(landlord_original_expiration=noted)))

    assert before.text("expiration") == restored
    assert "landlord-original-expiration" not in before.headers


@pytest.mark.parametrize(
    ("count", "next_count"), [(1, 2), (41, 42), ("many", 1), (None, 1), (-5, 1), (1 << 62, 1)]
)
def test_replays_are_counted_on(count: object, next_count: int) -> None:
    """From what the header says; what is no number begins anew."""
    again = sent(original(make_letter(landlord_replays=count)))

    assert again.headers["landlord-replays"] == next_count


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
    of_broker = read_letter(lying_as(make_raw({"x-death": [DEATH]}, message_id="e1")), 1)

    assert sent(renewed(letter)).headers == OWN
    again = read_letter(lying_as(renewed(of_broker).properties, routing_key="its queue"), 1)
    assert replace(again, delivery=of_broker.delivery) == of_broker


# --- whose headers count ------------------------------------------------------------------------


def dead(delivery: Delivery, *, most_bytes: int = 100_000) -> bytes:
    """Return the properties with which the consumer dead-letters it."""
    letter = DeadLetter(delivery=delivery, headers=dead_letter_headers(ERROR, MOMENT))
    return letter_properties(letter, "letter-1", most_bytes)


FORGED = {
    "landlord-reason": "rejected",
    "landlord-error": ["no", "text"],
    "landlord-headers-dropped": "9",
    "landlord-original-expiration": "never",
    "landlord-original-properties": "x",
    "landlord-routing-key": "elsewhere",
    "landlord-exchange": "",
    "landlord-letter-id": 5,
    "landlord-publisher-landlord-reason": "twice",
    "x-death": [{**DEATH, "routing-keys": ["elsewhere"]}],
    "x-delivery-count": 900,
}


def test_headers_of_ours_that_a_publisher_sets_do_not_count() -> None:
    """The letter says what we say, can be put back, and then has the publisher's own again."""
    came = {**FORGED, "mine": "kept"}
    letter = read_letter(lying_as(dead(lying_as(make_raw(came)))), 1)

    before = sent(original(letter))

    assert (letter.reason, letter.error) == ("policy_denied", "image: is not allowed")
    assert (letter.obstacle, letter.is_worn) == (None, False)
    assert (letter.routing_key, letter.exchange) == ("tenant.updated", "")
    passed = {name: value for name, value in came.items() if not name.startswith("x-")}
    assert before.headers == {**passed, "landlord-replays": 1}
    assert before.text("expiration") is None


def test_headers_of_ours_on_a_letter_of_the_brokers_do_not_count() -> None:
    """It was never in our hands: whatever begins so is its publisher's."""
    letter = read_letter(lying_as(make_raw({**FORGED, "x-death": [DEATH]})), 1)

    assert (letter.reason, letter.error, letter.obstacle) == ("delivery_limit", "", None)
    assert (letter.routing_key, letter.exchange) == ("tenant.deleted", "landlord.tenants")


@pytest.mark.parametrize("headers", [OWN, {"x-death": [DEATH]}, {}])
def test_headers_that_route_are_on_no_way_out(headers: dict[str, object]) -> None:
    """Neither back to the consumer nor among the letters; the broker would follow them."""
    routes = {"CC": ["somewhere"], "BCC": ["else"], "mine": 1}
    letter = read_letter(lying_as(make_raw({**routes, **headers})), 1)
    refused = read(dead(lying_as(make_raw(routes))))

    ways_out = [sent(original(letter)), sent(renewed(letter)), refused]

    for way in ways_out:
        assert not {"CC", "BCC"} & way.headers.keys()
        assert way.headers["mine"] == 1
    assert refused.headers["landlord-publisher-CC"] == ["somewhere"]


@pytest.mark.parametrize("block", range(3))
def test_what_the_fuzzer_makes_becomes_letters_and_originals(block: int) -> None:
    """Byte for byte, whatever is in it, and never an error that the command does not know."""
    for seed in range(block * 1000, block * 1000 + 1000):
        raw = raw_message(seed).properties
        made = lying_as(dead(lying_as(raw)))
        assert not is_odd(made.raw_properties)
        if is_odd(raw):
            assert bytes(made.headers["landlord-original-properties"]) == raw  # type: ignore[call-overload]  # bytes
            assert read_letter(made, 1).obstacle
            continue
        before = split(original(read_letter(made, 1)).properties)
        assert without(before) == without(split(raw))
        came = [entry for entry in headers_of(split(raw)) if not is_left_out(entry[0])]
        assert headers_of(before)[:-1] == came
        renewed(read_letter(made, 1))


def is_odd(raw: bytes) -> bool:
    try:
        headers_of(split(raw))
    except Malformed:
        return True
    return False


def headers_of(parts: dict[str, bytes]) -> list[tuple[bytes, bytes]]:
    return entries(parts.get("headers", NO_HEADERS))


def without(parts: dict[str, bytes]) -> dict[str, bytes]:
    left_out = {"headers", "delivery_mode", "user_id", "expiration"}
    return {name: value for name, value in parts.items() if name not in left_out}


def is_left_out(name: bytes) -> bool:
    """Whether a replay is without it."""
    return name in {b"CC", b"BCC", b"x-death", b"x-delivery-count", b"landlord-replays"}


def test_what_does_not_fit_into_a_frame_is_left_out_with_a_note() -> None:
    """First the headers, at last the other properties too; what we say is always there."""
    long = lying_as(make_raw({"long": "x" * 5000}, message_id="m" * 255))

    with_id, bare = read(dead(long, most_bytes=1000)), read(dead(long, most_bytes=450))

    assert with_id.text("message_id") == "m" * 255
    assert bare.text("message_id") is None
    for told in (with_id, bare):
        assert "too long to send" in str(told.headers["landlord-headers-dropped"])
        assert told.headers["landlord-reason"] == "policy_denied"
        assert "long" not in told.headers


def test_a_name_that_gets_too_long_is_left_out_with_a_note() -> None:
    """255 bytes are the most that a name has."""
    raw = join({"headers": table_of([(b"landlord-" + b"n" * 240, b"V")])})

    assert "landlord-headers-dropped" in read(dead(lying_as(raw))).headers


def test_what_the_broker_would_act_upon_is_set_aside() -> None:
    """As it came, also where it is no text."""
    raw = join({"expiration": b"\00560000", "user_id": b"\1\xff"})

    told = read(dead(lying_as(raw)))

    assert told.values == {"delivery_mode": 2}
    assert told.headers["landlord-original-expiration"] == "60000"
    assert told.headers["landlord-original-user-id"] == b"\xff"


def test_direct_answers_of_the_broker_are_on_no_way_out() -> None:
    """A publisher over AMQP 1.0 may ask for them; whoever publishes it again is refused."""
    asked = lying_as(make_raw({}, reply_to="amq.rabbitmq.reply-to"))
    usual = lying_as(make_raw({}, reply_to="answers"))

    letter = read(dead(asked))

    assert letter.text("reply_to") is None
    assert letter.headers["landlord-original-reply-to"] == "amq.rabbitmq.reply-to"
    for out in (original, renewed):
        assert read(out(read_letter(asked, 1)).properties).text("reply_to") is None
        assert read(out(read_letter(usual, 1)).properties).text("reply_to") == "answers"
    assert read(dead(usual)).text("reply_to") == "answers"


def test_a_letter_is_read_whatever_its_headers_are() -> None:
    """Of a number that is a text, a time that is a list and a death that is none."""
    odd = struct.pack(">Q", 1 << 62)
    raw = join({"headers": table_of([(b"x-death", b"T" + odd), (b"landlord-reason", b"V")])})

    assert read_letter(lying_as(raw), 1).reason == "unknown"


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


def test_a_letter_that_we_fail_over_is_one_too() -> None:
    """It is counted, named and can be dropped."""
    letter = unread_letter(lying(message_id="e1"), 3, "KeyError")

    assert (letter.name, letter.reason, letter.position) == ("e1", "unknown", 3)
    assert "KeyError" in letter.error
