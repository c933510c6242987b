"""Dead letters on a real broker: looked at without a trace, put back whole, never lost."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import replace

import aio_pika
import pytest

from consumer.adapters.rabbitmq import RabbitMQ
from consumer.adapters.rabbitmq_letters import hold_letters, look_at_letters
from consumer.adapters.rabbitmq_topology import BrokerLink
from consumer.content_header import join
from consumer.errors import BrokerError, MessageRefused
from consumer.letters import MOST_REDELIVERIES, Letter
from consumer.messages import DeadLetter
from deploy.lab.names import Names, remove_names
from deploy.lab.servers import Broker
from tests.builders import make_delivery, make_raw
from tests.contract.brokers import (
    CALL_SECONDS,
    OtherSide,
    fresh_names,
    make_adapter,
    other_side,
    running,
    topology_of,
)
from tests.faults.frames import raw_publisher

pytestmark = pytest.mark.rabbitmq


@pytest.fixture
async def names(broker: Broker) -> AsyncIterator[Names]:
    """Give names of the test's own, declared by the consumer's adapter, which is gone again."""
    chosen = fresh_names()
    async with running(make_adapter(broker.url, chosen)):
        pass
    yield chosen
    await remove_names(broker.url, chosen)


@pytest.fixture
async def side(broker: Broker, names: Names) -> AsyncIterator[OtherSide]:
    """Give the broker's other side."""
    async with other_side(broker.url, names) as there:
        yield there


@pytest.fixture
def link(broker: Broker) -> BrokerLink:
    return BrokerLink(url=broker.url, call_seconds=CALL_SECONDS)


def every(_: Letter) -> bool:
    return True


async def lay(side: OtherSide, *bodies: bytes, **headers: str) -> None:
    """Have dead letters with these bodies, each under the body as its id."""
    exchange = await side.channel.get_exchange(side.names.dead_letter, ensure=False)
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    for body in bodies:
        message = aio_pika.Message(
            body,
            message_id=body.decode(),
            correlation_id="c1",
            content_type="application/json",
            headers={"landlord-reason": "invalid_event", "cloudEvents:source": "/shop", **named},
        )
        await exchange.publish(message, "tenant.updated", timeout=CALL_SECONDS)


async def count(side: OtherSide) -> int:
    """Return how many letters lie there for anybody to take."""
    queue = await side.channel.declare_queue(side.names.dead_letter, passive=True)
    return queue.declaration_result.message_count or 0


async def lie_again(side: OtherSide, wanted: int) -> None:
    """Wait until so many letters can be taken."""
    async with asyncio.timeout(10):
        while await count(side) != wanted:  # noqa: ASYNC110 - it happens outside of this process
            await asyncio.sleep(0.02)


async def test_looking_leaves_letters_in_their_order(
    names: Names, side: OtherSide, link: BrokerLink
) -> None:
    """Also beyond the ten that would sort themselves, and with some that come later."""
    bodies = [str(number).encode() for number in range(40)]
    await lay(side, *bodies)

    letters = await look_at_letters(link, topology_of(names))
    await lay(side, b"later")
    await lie_again(side, 41)

    assert [letter.position for letter in letters] == list(range(1, 41))
    assert {letter.delivery.body for letter in letters} == {b""}
    assert await side.drained(names.dead_letter) == [*bodies, b"later"]


async def test_holding_some_leaves_the_others_in_their_order(
    names: Names, side: OtherSide, link: BrokerLink
) -> None:
    """What is done to one changes nothing about the rest."""
    await lay(side, b"1", b"2", b"3", b"4")

    async with hold_letters(
        link, topology_of(names), lambda letter: letter.event_id == "3"
    ) as held:
        await held.drop(held.letters[0])
    await lie_again(side, 3)

    assert (held.seen, held.left) == (4, 0)
    assert await side.drained(names.dead_letter) == [b"1", b"2", b"4"]


async def test_letters_survive_whoever_dies_looking(
    names: Names, side: OtherSide, link: BrokerLink
) -> None:
    """An error within the block gives everything back."""
    await lay(side, b"1", b"2")

    with pytest.raises(ZeroDivisionError):
        async with hold_letters(link, topology_of(names), every):
            raise ZeroDivisionError
    await lie_again(side, 2)

    assert await side.drained(names.dead_letter) == [b"1", b"2"]


async def test_a_replay_is_the_original(names: Names, side: OtherSide, link: BrokerLink) -> None:
    """By the tenant exchange, with body, properties and headers as they came."""
    await lay(side, b"1", landlord_routing_key="tenant.deleted", landlord_error="e")

    async with hold_letters(link, topology_of(names), every) as held:
        await held.replay(held.letters[0])

    async with running(make_adapter(link.url, names)) as adapter:
        (delivery,) = await adapter.next_batch(limit=5)
    assert (delivery.exchange, delivery.routing_key) == (names.tenant_exchange, "tenant.deleted")
    assert (delivery.body, delivery.message_id) == (b"1", "1")
    assert (delivery.correlation_id, delivery.content_type) == ("c1", "application/json")
    assert delivery.headers == {"cloudEvents:source": "/shop", "landlord-replays": 1}
    assert await count(side) == 0


async def test_who_is_killed_after_the_publish_leaves_the_letter_too(
    names: Names, side: OtherSide, link: BrokerLink
) -> None:
    """There twice, never lost."""
    await lay(side, b"1")

    with suppress(ZeroDivisionError):
        async with hold_letters(link, topology_of(names), every) as held:
            await held._publish_original(held.letters[0])
            raise ZeroDivisionError
    await lie_again(side, 1)

    assert await side.drained(names.queue) == [b"1"]
    assert await side.drained(names.dead_letter) == [b"1"]


async def test_a_letter_that_no_queue_takes_stays(
    names: Names, side: OtherSide, link: BrokerLink
) -> None:
    """It says why, and the next one passes on the same channel."""
    await lay(side, b"1", landlord_routing_key="nowhere")
    await lay(side, b"2")

    async with hold_letters(link, topology_of(names), every) as held:
        first, second = held.letters
        for _ in range(2):
            with pytest.raises(MessageRefused, match=r"no queue takes it.*nowhere"):
                await held.replay(first)
        await held.replay(second)
    await lie_again(side, 1)

    assert await side.drained(names.dead_letter) == [b"1"]
    assert await side.drained(names.queue) == [b"2"]


async def test_a_letter_without_its_headers_stays(
    names: Names, side: OtherSide, link: BrokerLink
) -> None:
    """It would not be the event that it was."""
    await lay(side, b"1", landlord_headers_dropped="9")

    async with hold_letters(link, topology_of(names), every) as held:
        with pytest.raises(MessageRefused, match="too long to be kept"):
            await held.replay(held.letters[0])
    await lie_again(side, 1)


async def test_what_was_sent_to_the_queue_itself_goes_there_again(
    names: Names, side: OtherSide, link: BrokerLink
) -> None:
    """No binding leads there from the tenant exchange."""
    await lay(side, b"1", landlord_exchange="", landlord_routing_key=names.queue)

    async with hold_letters(link, topology_of(names), every) as held:
        await held.replay(held.letters[0])

    assert await side.drained(names.queue) == [b"1"]


async def test_what_comes_back_is_left_alone(
    names: Names, side: OtherSide, link: BrokerLink
) -> None:
    """One command does not go round in circles."""
    await lay(side, b"1")

    async with hold_letters(link, topology_of(names), every) as held:
        await lay(side, b"back")
        await held.replay(held.letters[0])
        await asyncio.sleep(0.3)
        names_held = [letter.event_id for letter in held.letters]
    await lie_again(side, 1)

    assert names_held == ["1"]
    assert await side.drained(names.dead_letter) == [b"back"]


async def test_letters_outlive_any_number_of_looks(
    names: Names, side: OtherSide, link: BrokerLink
) -> None:
    """Before a delivery limit could drop them they are put back as new, saying the same."""
    await lay(side, b"1", b"2")

    found: list[Letter] = []
    for _ in range(MOST_REDELIVERIES + 3):
        found = await look_at_letters(link, topology_of(names))
        await lie_again(side, 2)

    assert [letter.event_id for letter in found] == ["1", "2"]
    assert [letter.delivery.headers["x-delivery-count"] for letter in found] == [2, 2]
    assert {(letter.reason, letter.routing_key) for letter in found} == {
        ("invalid_event", "tenant.updated")
    }


async def test_more_letters_than_there_is_room_for_are_left(
    names: Names, side: OtherSide, link: BrokerLink
) -> None:
    """They are told of, and another run takes them."""
    await lay(side, b"12345", b"67890", b"abcde")

    async with hold_letters(link, topology_of(names), every, most_bytes=10) as held:
        for letter in held.letters:
            await held.drop(letter)
    await lie_again(side, 1)

    assert (held.seen, held.left) == (2, 1)


async def test_letters_that_were_taken_back_are_not_replayed(
    names: Names, side: OtherSide, link: BrokerLink
) -> None:
    """A channel that is gone cannot acknowledge: nothing is published then."""
    await lay(side, b"1")

    with suppress(BrokerError):
        async with hold_letters(link, topology_of(names), every) as held:
            await held._channel.close()
            with pytest.raises(BrokerError, match="took the letters back"):
                await held.replay(held.letters[0])

    assert await side.drained(names.queue) == []


async def test_a_broker_without_our_queue_is_told(broker: Broker, link: BrokerLink) -> None:
    """Instead of the client library's words."""
    with pytest.raises(BrokerError, match="has the consumer ever run on this broker"):
        await look_at_letters(link, topology_of(fresh_names()))


async def test_a_letter_of_the_delivery_limit_finds_its_way_back(
    broker: Broker, names: Names, side: OtherSide, link: BrokerLink
) -> None:
    """The broker's own notes tell where it came from."""
    await side.send(b"1", routing_key="tenant.suspended")
    queue = await side.queue(names.queue)

    async def reject(message: aio_pika.abc.AbstractIncomingMessage) -> None:
        await message.reject(requeue=False)

    tag = await queue.consume(reject)
    await lie_again(side, 1)
    await queue.cancel(tag)

    async with hold_letters(link, topology_of(names), every) as held:
        (letter,) = held.letters
        await held.replay(letter)

    assert (letter.reason, letter.routing_key) == ("rejected", "tenant.suspended")
    assert letter.received_at.endswith("Z")
    adapter: RabbitMQ
    async with running(make_adapter(broker.url, names)) as adapter:
        (delivery,) = await adapter.next_batch(limit=5)
    assert (delivery.routing_key, delivery.headers) == ("tenant.suspended", {"landlord-replays": 1})


# --- letters that are made to do harm -----------------------------------------------------------

FORGED = {
    "landlord-reason": 5,
    "landlord-error": ["no text"],
    "landlord-replays": (1 << 62),
    "landlord-headers-dropped": "9",
    "landlord-original-expiration": "never",
    "landlord-exchange": "",
    "landlord-routing-key": "nowhere",
    "landlord-letter-id": None,
    "x-delivery-count": "many",
}


async def refuse(adapter: RabbitMQ, body: bytes, raw: bytes) -> None:
    """Have a message with these properties dead-lettered by the consumer's adapter."""
    delivery = replace(make_delivery(1, "tenant.updated", body), raw_properties=raw)
    letter = DeadLetter(delivery=delivery, headers={"landlord-reason": "invalid_event"})
    await adapter.publish_dead_letter(letter)


async def test_one_bad_letter_never_stops_the_others(
    names: Names, side: OtherSide, link: BrokerLink
) -> None:
    """Whatever a publisher set: each is put back or kept, and the rest is put back."""
    odd = join({"message_id": b"\1\xff", "correlation_id": b"\1\xff", "timestamp": b"\x7f" * 8})
    async with running(make_adapter(link.url, names)) as adapter:
        await refuse(adapter, b"1", make_raw(FORGED))
        await refuse(adapter, b"2", odd)
        await refuse(adapter, b"2r", make_raw({}, reply_to="amq.rabbitmq.reply-to"))
        await refuse(adapter, b"3", b"\xff\xff none")
    # By somebody who may publish here himself: the broker closes the channel over each of them.
    await lay(side, b"4", landlord_original_expiration="9" * 30)
    await lay(side, b"5", landlord_routing_key="k" * 300)
    await lay(side, b"6")

    outcomes: dict[bytes, str] = {}
    async with hold_letters(link, topology_of(names), every) as held:
        for letter in held.letters:
            try:
                await held.replay(letter)
            except MessageRefused as error:
                outcomes[letter.delivery.body] = str(error)
    await lie_again(side, 3)

    assert outcomes.keys() == {b"3", b"4", b"5"}
    async with raw_publisher(link.url) as raw:
        assert [body for _, body in await raw.take(names.queue, 4)] == [b"1", b"2", b"2r", b"6"]
    assert await side.drained(names.dead_letter) == [b"3", b"4", b"5"]


async def test_routing_headers_lead_a_replay_nowhere_else(
    names: Names, side: OtherSide, link: BrokerLink
) -> None:
    """Where only the operator may publish: what the broker would follow is not there any more."""
    elsewhere = await side.channel.declare_queue(f"{names.queue}.other", auto_delete=True)
    routes = make_raw({"CC": [elsewhere.name], "BCC": [elsewhere.name], "mine": 1})
    async with running(make_adapter(link.url, names)) as adapter:
        delivery = replace(make_delivery(1, names.queue, b"1"), raw_properties=routes, exchange="")
        await adapter.publish_dead_letter(
            DeadLetter(delivery=delivery, headers={"landlord-reason": "invalid_event"})
        )

    async with hold_letters(link, topology_of(names), every) as held:
        await held.replay(held.letters[0])

    again = await side.channel.declare_queue(elsewhere.name, passive=True)
    assert again.declaration_result.message_count == 0
    async with running(make_adapter(link.url, names)) as adapter:
        (found,) = await adapter.next_batch(limit=5)
    assert found.headers == {"mine": 1, "landlord-replays": 1}
    await elsewhere.delete()
