"""Thousands of odd tenant events, each read by what reads the real ones."""

from itertools import islice

from consumer.content_header import read
from consumer.document import SpecDefaults
from consumer.errors import InvalidMessage
from consumer.letters import letter_properties
from consumer.messages import DeadLetter, Delivery, dead_letter_headers
from consumer.model import TenantEvent
from consumer.policy import Admission, Policy
from tests.builders import MOMENT, make_delivery
from tests.faults.fuzzed import Fuzzed, Fuzzer
from tests.faults.letters import Letters

COUNT = 1_000
MOST_BYTES = 131_064


def delivered(fuzzed: Fuzzed) -> Delivery:
    """Return the message as it would come off the broker."""
    raw = fuzzed.message.properties
    found = read(raw)
    return make_delivery(
        fuzzed.number,
        fuzzed.key,
        b"".join(fuzzed.message.body),
        headers=found.headers,
        raw_properties=raw,
        content_type=found.text("content_type"),
        message_id=found.text("message_id"),
        event_type=found.text("type"),
        correlation_id=found.text("correlation_id"),
        faults=found.faults,
    )


def admitted(admission: Admission, delivery: Delivery) -> TenantEvent | InvalidMessage:
    """Return the event, or why it is refused; whatever else is raised is a fault of ours."""
    try:
        return admission.admit(delivery)
    except InvalidMessage as error:
        return error


def test_whatever_comes_is_an_event_or_a_dead_letter_byte_for_byte() -> None:
    """Nothing else can become of a message, and a valid one becomes the event that it is."""
    admission = Admission(defaults=SpecDefaults(), policy=Policy(images=("landlord-test/*",)))
    letters = Letters()

    for fuzzed in islice(Fuzzer(20261128).messages(), COUNT):
        letters.sent(fuzzed)
        delivery = delivered(fuzzed)
        match admitted(admission, delivery):
            case InvalidMessage() as error:
                letter = DeadLetter(delivery=delivery, headers=dead_letter_headers(error, MOMENT))
                properties = letter_properties(letter, "id", MOST_BYTES)
                letters.dead_lettered(properties, delivery.body)
                assert fuzzed.event_id is None, error
            case TenantEvent() as event:
                wanted = (fuzzed.tenant_id, fuzzed.event_id)
                assert fuzzed.event_id is None or (event.tenant_id, event.event_id) == wanted

    assert COUNT // 2 < letters.count < COUNT


def test_a_seed_makes_the_same_messages_again() -> None:
    """A run that failed can be had again."""
    first, second = (list(islice(Fuzzer(7).messages(), 50)) for _ in range(2))

    assert first == second
