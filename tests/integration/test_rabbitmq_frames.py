"""Messages that the client library cannot decode, on a real broker: they come, and go as they came.

Sent by a client without a client's guards. These tests also tell when an upgrade of the library
moves the place where its frames are looked at.
"""

import asyncio
import struct
from collections.abc import AsyncIterator, Mapping

import pytest
from pamqp import commands

from consumer.adapters.rabbitmq import RabbitMQ
from consumer.content_header import Entry, entries, join, split, table_of
from consumer.errors import MessageRefused
from consumer.messages import DeadLetter, Delivery
from deploy.lab.names import Names, remove_names
from deploy.lab.servers import Broker
from tests.contract.brokers import fresh_names, make_adapter, make_entry, running, until
from tests.faults.frames import RawMessage, RawPublisher, raw_message, raw_publisher

pytestmark = pytest.mark.rabbitmq

LATE = struct.pack(">Q", 1 << 62)
REASON = {"landlord-reason": "invalid_event"}


@pytest.fixture
async def names(broker: Broker) -> AsyncIterator[Names]:
    """Give names of the test's own; take away what has them."""
    chosen = fresh_names()
    yield chosen
    await remove_names(broker.url, chosen)


@pytest.fixture
async def adapter(broker: Broker, names: Names) -> AsyncIterator[RabbitMQ]:
    """Give an adapter whose sessions are up."""
    async with running(make_adapter(broker.url, names)) as up:
        yield up


@pytest.fixture
async def raw(broker: Broker) -> AsyncIterator[RawPublisher]:
    """Give a client that sends whatever it is given."""
    async with raw_publisher(broker.url) as client:
        yield client


def message(parts: Mapping[str, bytes], *body: bytes) -> RawMessage:
    return RawMessage(join(parts), body, is_sound=True)


def headers(*found: Entry) -> dict[str, bytes]:
    return {"headers": table_of(found)}


def nested(levels: int) -> bytes:
    value = b"V"
    for _ in range(levels):
        value = b"F" + struct.pack(">I", len(value) + 1) + b"\0" + value
    return value


async def take(adapter: RabbitMQ, count: int) -> list[Delivery]:
    """Take so many deliveries, in however many batches."""
    taken: list[Delivery] = []
    async with asyncio.timeout(20):
        while len(taken) < count:
            taken += await adapter.next_batch(limit=count - len(taken))
    return taken


async def dead_letter(adapter: RabbitMQ, *deliveries: Delivery) -> None:
    """Have all of them dead-lettered at a time."""
    async with asyncio.TaskGroup() as group:
        for delivery in deliveries:
            letter = DeadLetter(delivery=delivery, headers=REASON)
            group.create_task(adapter.publish_dead_letter(letter))


ODD = {
    "correlation id": {"correlation_id": b"\2\xff\xfe"},
    "message id": {"message_id": b"\2\xc3\x28"},
    "content type": {"content_type": b"\1\xff"},
    "type": {"type": b"\1\xff"},
    "time": {"timestamp": LATE},
    "time in a header": headers((b"t", b"T" + LATE)),
    "time of AMQP 1.0": {"timestamp": struct.pack(">Q", (1 << 64) - 1)},
    "name of a header": headers((b"\xff", b"V")),
    "nested headers": headers((b"deep", nested(2000))),
    "many headers": headers(*((b"%d" % number, b"V") for number in range(9000))),
}


@pytest.mark.parametrize("parts", ODD.values(), ids=ODD.keys())
async def test_what_cannot_be_decoded_arrives_and_what_is_behind_it_too(
    adapter: RabbitMQ, raw: RawPublisher, names: Names, parts: dict[str, bytes]
) -> None:
    """In one session, in its order, with the fault that it has; and becomes a letter as it came."""
    await raw.publish(message(parts, b"odd"), names.tenant_exchange, b"tenant.created")
    await raw.publish(message({}, b"next"), names.tenant_exchange, b"tenant.created")

    odd, following = await take(adapter, 2)
    await dead_letter(adapter, odd)
    await adapter.ack([odd, following])

    assert (odd.body, odd.tag, following.body, following.tag) == (b"odd", 1, b"next", 2)
    assert (odd.session, following.session) == (1, 1)
    assert odd.faults
    assert not following.faults
    assert odd.raw_properties == join(parts)
    (letter,) = await raw.take(names.dead_letter, 1)
    assert letter[1] == b"odd"
    assert_as_it_came(join(parts), letter[0])


async def test_a_routing_key_that_is_no_text_arrives(
    adapter: RabbitMQ, raw: RawPublisher, names: Names
) -> None:
    """By a `CC` anything may be routed here, under any key of its own."""
    copies = headers((b"CC", b"A\0\0\0\x13S\0\0\0\x0etenant.created"))
    await raw.publish(message(copies, b"odd"), names.tenant_exchange, b"\xff" * 255)
    await raw.publish(message({}, b"next"), names.tenant_exchange, b"tenant.created")

    odd, following = await take(adapter, 2)
    await dead_letter(adapter, odd)

    assert (odd.body, odd.routing_key[:8], following.body) == (b"odd", "\\xff\\xff", b"next")
    assert [fault.field for fault in odd.faults] == ["routing_key"]
    (letter,) = await raw.take(names.dead_letter, 1)
    found = dict(entries(split(letter[0])["headers"]))
    assert b"CC" not in found
    assert found[b"landlord-publisher-CC"] == b"A\0\0\0\x13S\0\0\0\x0etenant.created"


@pytest.mark.parametrize("frames", [(), (b"one",), (b"m", b"a", b"n" * 100_000, b"y" * 200)])
async def test_a_body_of_any_number_of_frames_arrives(
    adapter: RabbitMQ, raw: RawPublisher, names: Names, frames: tuple[bytes, ...]
) -> None:
    """Also of none, which is an empty body; and goes to the dead letters as it is."""
    await raw.publish(message({}, *frames), names.tenant_exchange, b"tenant.created")

    (delivery,) = await take(adapter, 1)
    await dead_letter(adapter, delivery)

    assert delivery.body == b"".join(frames)
    (letter,) = await raw.take(names.dead_letter, 1)
    assert letter[1] == b"".join(frames)


@pytest.mark.parametrize("block", range(2))
async def test_what_the_fuzzer_sends_becomes_letters_as_it_came(
    adapter: RabbitMQ, raw: RawPublisher, names: Names, block: int
) -> None:
    """Hundreds of messages as odd as the broker passes on: all, each once, byte for byte."""
    seeds = range(block * 1000, block * 1000 + 600)
    found = {seed: raw_message(seed, b"%d" % seed) for seed in seeds}
    sent = {seed: one for seed, one in found.items() if one.is_sound}
    for one in sent.values():
        raw.send(one, names.tenant_exchange, b"tenant.created")
    await raw.confirmed()

    taken = await take(adapter, len(sent))
    await dead_letter(adapter, *taken)
    await adapter.ack(taken)

    assert {delivery.session for delivery in taken} == {1}
    assert [int(delivery.body) for delivery in taken] == list(sent)
    letters = {int(body): properties for properties, body in await laid(raw, names, len(sent))}
    assert letters.keys() == sent.keys()
    for delivery in taken:
        seed, came = int(delivery.body), delivery.raw_properties
        # Of a message with a `BCC` the broker takes it out, and writes the others anew.
        assert came == sent[seed].properties or b"BCC" in sent[seed].properties
        assert_as_it_came(came, letters[seed])


async def laid(raw: RawPublisher, names: Names, count: int) -> list[tuple[bytes, bytes]]:
    """Return properties and body of that many dead letters; there are no more."""
    found = await raw.take(names.dead_letter, count)
    counted = await raw.ask(commands.Queue.Purge(queue=names.dead_letter), 1)
    assert isinstance(counted, commands.Queue.PurgeOk)
    assert counted.message_count == 0
    return found


async def test_letters_with_one_message_id_are_told_apart(
    adapter: RabbitMQ, raw: RawPublisher, names: Names
) -> None:
    """What no queue takes is an error to each of them, and ends nothing that others need."""
    for parts in ({"message_id": b"\1m"}, {"message_id": b"\1m"}, {"message_id": b"\1\xff"}, {}):
        await raw.publish(message(parts, b"1"), names.tenant_exchange, b"tenant.created")
    taken = await take(adapter, 4)
    await unbound(raw, names)

    outcomes = await asyncio.gather(
        *(dead_letter(adapter, delivery) for delivery in taken), return_exceptions=True
    )
    await adapter.publish_status(make_entry())
    await dead_letter(adapter, *taken)

    refusals = [error for error in outcomes if isinstance(error, ExceptionGroup)]
    assert len(refusals) == 4
    assert all(isinstance(error.exceptions[0], MessageRefused) for error in refusals)
    assert adapter.trouble is None


async def unbound(raw: RawPublisher, names: Names) -> None:
    """Take the dead-letter queue from its exchange."""
    await raw.ask(commands.Queue.Unbind(0, names.dead_letter, names.dead_letter, ""), 1)


def assert_as_it_came(before: bytes, letter: bytes) -> None:
    """Every byte of properties and headers is there; what the broker acts upon has another name."""
    was, is_now = split(before), split(letter)
    set_aside = {"expiration", "user_id", "delivery_mode", "headers"}
    kept = was.keys() - set_aside
    assert {name: is_now.get(name) for name in kept} == {name: was[name] for name in kept}
    assert not is_now.keys() & {"expiration", "user_id"}
    came = entries(was["headers"]) if "headers" in was else []
    reserved = {b"CC", b"BCC", b"x-death", b"x-delivery-count"}
    wanted = [
        (b"landlord-publisher-" + name, value)
        if name.startswith(b"landlord-") or name in reserved
        else (name, value)
        for name, value in came
    ]
    found = entries(is_now["headers"])
    said = dict(found[len(wanted) :])
    assert found[: len(wanted)] == wanted
    for name, header in (("expiration", b"expiration"), ("user_id", b"user-id")):
        aside = said.get(b"landlord-original-" + header)
        assert (aside is None) is (name not in was)
    assert said[b"landlord-reason"] == b"S\0\0\0\x0dinvalid_event"


async def test_the_session_survives_what_the_adapter_cannot_publish(
    adapter: RabbitMQ, names: Names
) -> None:
    """Properties that are none, as no broker would pass them on, are kept in a header."""
    delivery = Delivery(
        body=b"1",
        tag=1,
        session=1,
        received_at=make_entry().created_at,
        routing_key="\u20ac" * 200,
        headers={},
        properties={},
        raw_properties=b"\xff\xff what",
    )

    await dead_letter(adapter, delivery)
    await until(lambda: adapter.trouble is None)
