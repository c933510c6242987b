"""The RabbitMQ adapter: what it declares, and that no loss makes a zombie of it."""

import asyncio
import signal
import socket
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import replace

import aio_pika
import pytest
from aio_pika.abc import FieldValue
from aio_pika.exceptions import ChannelPreconditionFailed, DeliveryError

from consumer.adapters.rabbitmq import RabbitMQ
from consumer.content_header import join, table_of
from consumer.errors import BrokerError, MessageRefused
from consumer.messages import DeadLetter, Delivery
from consumer.model import EventKind
from deploy.lab.names import Names, remove_names
from deploy.lab.servers import Broker
from tests.builders import make_raw
from tests.contract.brokers import (
    OtherSide,
    fresh_names,
    make_adapter,
    make_entry,
    make_letter,
    mismatch,
    other_side,
    running,
    until,
)
from tests.faults.frames import raw_publisher
from tests.faults.proxy import Proxy, proxy

pytestmark = pytest.mark.rabbitmq


@pytest.fixture
async def names(broker: Broker) -> AsyncIterator[Names]:
    """Give names of the test's own; take away what has them."""
    chosen = fresh_names()
    yield chosen
    await remove_names(broker.url, chosen)


@pytest.fixture
async def side(broker: Broker, names: Names) -> AsyncIterator[OtherSide]:
    """Give the broker's other side."""
    async with other_side(broker.url, names) as there:
        yield there


@pytest.fixture
async def adapter(broker: Broker, names: Names, side: OtherSide) -> AsyncIterator[RabbitMQ]:
    """Give an adapter whose sessions are up."""
    async with running(make_adapter(broker.url, names)) as up:
        await side.subscribe()
        yield up


async def take(adapter: RabbitMQ, count: int) -> list[Delivery]:
    """Take so many deliveries, in however many batches."""
    taken: list[Delivery] = []
    async with asyncio.timeout(20):
        while len(taken) < count:
            taken += await adapter.next_batch(limit=count - len(taken))
    return taken


async def assert_both_ways(adapter: RabbitMQ, side: OtherSide) -> None:
    """Tenant events come in and are settled, status events go out."""
    await side.send(b"in")
    (*_, delivery) = await take(adapter, 1)
    await adapter.ack([delivery])
    await adapter.publish_status(make_entry(7))
    assert delivery.body == b"in"
    assert (await side.next_status()).body == make_entry(7).body.encode()


# --- topology ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("argument", "other", "told"),
    [
        ("x-queue-type", "classic", "quorum"),
        ("x-single-active-consumer", False, "true"),
        ("x-delivery-limit", 20, "1000"),
        ("x-dead-letter-exchange", "elsewhere", ".dead-letter"),
        ("x-dead-letter-strategy", "at-most-once", "at-least-once"),
        ("x-overflow", "drop-head", "reject-publish"),
    ],
)
async def test_the_queue_is_that_of_the_contract(
    adapter: RabbitMQ, broker: Broker, names: Names, argument: str, other: FieldValue, told: str
) -> None:
    """The broker says so itself, when another argument is asked for."""
    asked: dict[str, FieldValue] = {
        "x-queue-type": "quorum",
        "x-single-active-consumer": True,
        "x-delivery-limit": 1000,
        "x-dead-letter-exchange": names.dead_letter,
        "x-dead-letter-strategy": "at-least-once",
        "x-overflow": "reject-publish",
    }
    async with other_side(broker.url, names) as there:
        with pytest.raises(ChannelPreconditionFailed, match=f"{argument}.*current is.*{told}"):
            await there.channel.declare_queue(
                names.queue, durable=True, arguments={**asked, argument: other}
            )


@pytest.mark.parametrize("kind", [*EventKind])
async def test_every_tenant_event_is_bound(
    adapter: RabbitMQ, side: OtherSide, kind: EventKind
) -> None:
    """And arrives under its routing key."""
    await side.send(b"1", routing_key=kind.value)

    (delivery,) = await take(adapter, 1)

    assert delivery.routing_key == kind.value


async def test_nothing_else_is_bound(adapter: RabbitMQ, side: OtherSide) -> None:
    """An event of another kind is not ours to take."""
    with pytest.raises(DeliveryError):
        await side.send(b"1", routing_key="tenant.renamed")


@pytest.mark.parametrize(
    ("kind", "name"),
    [("topic", "tenant_exchange"), ("topic", "status_exchange"), ("fanout", "dead_letter")],
)
async def test_the_exchanges_are_those_of_the_contract(
    adapter: RabbitMQ, side: OtherSide, names: Names, kind: str, name: str
) -> None:
    """Declaring them once more as durable, of this type, is no contradiction."""
    await side.channel.declare_exchange(getattr(names, name), kind, durable=True)


async def test_a_rejected_delivery_becomes_a_dead_letter(
    broker: Broker, names: Names, side: OtherSide
) -> None:
    """The queue's own safety net, for whoever rejects; ours never does."""
    async with running(make_adapter(broker.url, names)):
        pass
    await side.send(b"poison")
    queue = await side.queue(names.queue)

    async def reject(message: aio_pika.abc.AbstractIncomingMessage) -> None:
        await message.reject(requeue=False)

    await queue.consume(reject)

    letter = await side.take(names.dead_letter)
    assert letter.body == b"poison"


async def test_declaring_again_is_no_contradiction(broker: Broker, names: Names) -> None:
    """A second start finds everything as it wants it."""
    for _ in range(2):
        async with running(make_adapter(broker.url, names)) as adapter:
            assert adapter.trouble is None


async def test_a_queue_with_another_argument_is_told(
    broker: Broker, names: Names, side: OtherSide
) -> None:
    """In one line: the object, the argument, what is there, what was wanted."""
    await side.channel.declare_queue(
        names.queue,
        durable=True,
        arguments={
            "x-queue-type": "quorum",
            "x-single-active-consumer": True,
            "x-delivery-limit": 20,
            "x-dead-letter-exchange": names.dead_letter,
            "x-dead-letter-strategy": "at-least-once",
            "x-overflow": "reject-publish",
        },
    )

    told = await mismatch(make_adapter(broker.url, names))

    assert told == f"queue '{names.queue}' exists with x-delivery-limit = 20, wanted is 1000"


async def test_a_queue_without_arguments_is_told(
    broker: Broker, names: Names, side: OtherSide
) -> None:
    """What is not there is called none."""
    await side.channel.declare_queue(names.queue, durable=True)

    told = await mismatch(make_adapter(broker.url, names))

    wanted = f"x-dead-letter-exchange = none, wanted is {names.dead_letter}"
    assert told == f"queue '{names.queue}' exists with {wanted}"


async def test_an_exchange_of_another_type_is_told(
    broker: Broker, names: Names, side: OtherSide
) -> None:
    """So that an operator knows which of the two to change."""
    await side.channel.declare_exchange(names.tenant_exchange, "direct", durable=True)

    told = await mismatch(make_adapter(broker.url, names))

    assert told == f"exchange '{names.tenant_exchange}' exists with type = direct, wanted is topic"


async def test_a_transient_exchange_is_told(broker: Broker, names: Names, side: OtherSide) -> None:
    """It would be gone after the broker's restart."""
    await side.channel.declare_exchange(names.status_exchange, "topic", durable=False)

    told = await mismatch(make_adapter(broker.url, names))

    assert told == f"exchange '{names.status_exchange}' exists with durable = false, wanted is true"


async def test_where_nothing_may_be_declared_it_is_only_checked(
    broker: Broker, names: Names, side: OtherSide
) -> None:
    """What is missing is named and not made; once all is there, it is taken as it is."""
    missing = await mismatch(make_adapter(broker.url, names, is_declaring=False))
    async with running(make_adapter(broker.url, names)):
        pass
    await side.channel.queue_delete(names.queue)
    no_queue = await mismatch(make_adapter(broker.url, names, is_declaring=False))
    await side.channel.declare_queue(names.queue, durable=True)

    async with running(make_adapter(broker.url, names, is_declaring=False)) as adapter:
        trouble = adapter.trouble

    assert f"no exchange '{names.dead_letter}'" in missing
    assert f"no queue '{names.queue}'" in no_queue
    assert trouble is None


# --- losses -----------------------------------------------------------------------------------


@pytest.fixture
async def proxied(
    broker: Broker, names: Names, side: OtherSide
) -> AsyncIterator[tuple[RabbitMQ, Proxy]]:
    """Give an adapter that reaches the broker through a proxy."""
    listening = socket.create_server(("127.0.0.1", 0))
    port = listening.getsockname()[1]
    url = broker.url.replace(str(broker.port), str(port))
    async with (
        proxy(("127.0.0.1", broker.port), listening) as line,
        running(make_adapter(url, names, heartbeat_seconds=1, call_seconds=2.0)) as adapter,
    ):
        await side.subscribe()
        yield adapter, line


async def lose(adapter: RabbitMQ, line: Proxy) -> None:
    """Cut both connections, and wait until they are up again."""
    line.drop()
    await until(lambda: adapter.trouble is not None)
    await until(lambda: adapter.trouble is None)


async def test_cut_connections_are_rebuilt(
    proxied: tuple[RabbitMQ, Proxy], side: OtherSide
) -> None:
    """Again and again, whole: both ways work after each loss."""
    adapter, line = proxied

    for _ in range(3):
        await lose(adapter, line)
        await assert_both_ways(adapter, side)


async def test_the_brokers_own_close_is_no_end(
    adapter: RabbitMQ, broker: Broker, side: OtherSide
) -> None:
    """An operator who closes all connections only makes a pause."""
    await asyncio.to_thread(broker.control, "close_all_connections", "by the test")

    await until(lambda: adapter.trouble is None)
    async with other_side(broker.url, side.names) as there:
        await there.subscribe()
        await assert_both_ways(adapter, there)


async def test_what_was_not_settled_comes_again(
    proxied: tuple[RabbitMQ, Proxy], side: OtherSide
) -> None:
    """In a new session, in order, marked as redelivered, what was settled not."""
    adapter, line = proxied
    await side.send(b"1", b"2", b"3")
    before = await take(adapter, 3)
    await adapter.ack([before[0]])
    await asyncio.sleep(0.1)

    await lose(adapter, line)
    after = await take(adapter, 2)

    assert [delivery.body for delivery in after] == [b"2", b"3"]
    assert all(delivery.redelivered for delivery in after)
    assert {delivery.session for delivery in after} == {before[0].session + 1}


async def test_a_stale_ack_does_nothing(proxied: tuple[RabbitMQ, Proxy], side: OtherSide) -> None:
    """The tag of a lost session is another delivery's by now; that one stays unsettled."""
    adapter, line = proxied
    await side.send(b"1", b"2")
    (_, stale) = await take(adapter, 2)
    await lose(adapter, line)
    await take(adapter, 2)

    await adapter.ack([stale])
    await lose(adapter, line)

    assert [delivery.body for delivery in await take(adapter, 2)] == [b"1", b"2"]


async def test_deliveries_that_nobody_took_do_not_outlive_their_session(
    proxied: tuple[RabbitMQ, Proxy], side: OtherSide
) -> None:
    """They come again, once, with tags of the new session."""
    adapter, line = proxied
    await side.send(b"1", b"2")
    await asyncio.sleep(0.2)

    await lose(adapter, line)
    taken = await take(adapter, 2)
    await adapter.ack(taken)

    assert [delivery.body for delivery in taken] == [b"1", b"2"]
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.3):
            await adapter.next_batch(limit=1)


async def test_while_there_is_no_connection_publishing_fails_at_once(
    proxied: tuple[RabbitMQ, Proxy],
) -> None:
    """Nothing is kept here for later: that is the outbox's."""
    adapter, line = proxied
    line.stall_replies()
    line.drop()
    await until(lambda: adapter.trouble is not None)

    async with asyncio.timeout(1):
        with pytest.raises(BrokerError):
            await adapter.publish_status(make_entry())

    line.mend()
    await until(lambda: adapter.trouble is None)


async def test_a_silent_connection_is_found_out(
    proxied: tuple[RabbitMQ, Proxy], side: OtherSide
) -> None:
    """Nothing is closed and nothing comes: the heartbeats tell, and all is built anew."""
    adapter, line = proxied
    line.stall_replies()

    await until(lambda: adapter.trouble is not None, seconds=10)
    line.mend()
    await until(lambda: adapter.trouble is None)

    await assert_both_ways(adapter, side)


@contextmanager
def held(broker: Broker) -> Iterator[None]:
    """Have the node do nothing within the block, not even close a connection."""
    broker.node.send(signal.SIGSTOP)
    try:
        yield
    finally:
        broker.node.send(signal.SIGCONT)


async def test_a_held_node_is_found_out(broker: Broker, names: Names) -> None:
    """It takes connections and answers none; when it goes on, so do we."""
    async with running(
        make_adapter(broker.url, names, heartbeat_seconds=1, call_seconds=2.0)
    ) as adapter:
        with held(broker):
            await until(lambda: adapter.trouble is not None, seconds=12)
            await asyncio.sleep(3)
            trouble = adapter.trouble
        await until(lambda: adapter.trouble is None, seconds=20)
        async with other_side(broker.url, names) as side:
            await side.subscribe()
            await assert_both_ways(adapter, side)

    assert trouble is not None


async def test_a_killed_node_is_waited_for(broker: Broker, names: Names) -> None:
    """What was confirmed and what was not settled is there when it is back."""
    async with running(make_adapter(broker.url, names)) as adapter:
        # RabbitMQ 3.10 loses a quorum queue that is killed within minutes of its making, unless the
        # node was stopped in peace since. In this thread: a node dies with the one that started it.
        broker.node.stop()
        broker.node.start()
        await until(lambda: adapter.trouble is not None)
        await until(lambda: adapter.trouble is None, seconds=30)
        async with other_side(broker.url, names) as side:
            await side.send(b"1")
            await take(adapter, 1)
        broker.node.kill()
        broker.node.start()
        await until(lambda: adapter.trouble is not None)
        await until(lambda: adapter.trouble is None, seconds=30)
        (again,) = await take(adapter, 1)
        await adapter.ack([again])

        assert (again.body, again.redelivered) == (b"1", True)
        async with other_side(broker.url, names) as side:
            await side.subscribe()
            await assert_both_ways(adapter, side)


async def test_a_deleted_queue_is_declared_anew(adapter: RabbitMQ, side: OtherSide) -> None:
    """The broker cancels the consumer; that ends the session, and the next one makes the queue."""
    await side.channel.queue_delete(side.names.queue)

    await until(lambda: adapter.trouble is not None)
    await until(lambda: adapter.trouble is None)

    await assert_both_ways(adapter, side)


async def test_a_deleted_exchange_is_declared_anew(
    adapter: RabbitMQ, broker: Broker, side: OtherSide
) -> None:
    """The publish that finds it missing fails; soon after, publishing works."""
    await side.channel.exchange_delete(side.names.status_exchange)

    with pytest.raises(BrokerError):
        await adapter.publish_status(make_entry())
    await until(lambda: adapter.trouble is not None)
    await until(lambda: adapter.trouble is None)

    async with other_side(broker.url, side.names) as there:
        await there.subscribe()
        await assert_both_ways(adapter, there)


async def test_a_mismatch_that_comes_later_is_no_end(
    proxied: tuple[RabbitMQ, Proxy], side: OtherSide
) -> None:
    """It is told as trouble while it lasts; once an operator has mended it, all goes on."""
    adapter, line = proxied
    queue = side.names.queue
    line.stall_replies()
    await side.channel.queue_delete(queue)
    await side.channel.declare_queue(queue, durable=True)
    line.drop()
    line.mend()

    await until(lambda: f"queue '{queue}' exists with" in (adapter.trouble or ""))
    await asyncio.sleep(1)
    await side.channel.queue_delete(queue)
    await until(lambda: adapter.trouble is None)

    await assert_both_ways(adapter, side)


# --- taking and publishing --------------------------------------------------------------------


async def test_no_more_is_unsettled_than_the_prefetch(
    broker: Broker, names: Names, side: OtherSide
) -> None:
    """The next ones come once the first are acknowledged."""
    async with running(make_adapter(broker.url, names, prefetch=2)) as adapter:
        await side.send(b"1", b"2", b"3")
        await asyncio.sleep(0.3)
        first = await adapter.next_batch(limit=10)
        await adapter.ack(first)
        second = await take(adapter, 1)

    assert [delivery.body for delivery in first] == [b"1", b"2"]
    assert [delivery.body for delivery in second] == [b"3"]


async def test_a_second_consumer_takes_over(broker: Broker, names: Names, side: OtherSide) -> None:
    """While the first is there it gets nothing; then it gets what was left, in order."""
    second = make_adapter(broker.url, names)
    async with running(make_adapter(broker.url, names)) as first, running(second):
        await side.send(b"1", b"2", b"3")
        taken = await take(first, 3)
        await first.ack([taken[0]])
        await first.stop_taking()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3):
                await second.next_batch(limit=10)
        await first.ack([taken[1]])
        await side.send(b"4")

        assert [delivery.body for delivery in await take(second, 1)] == [b"4"]


async def test_each_try_has_its_own_message_id(adapter: RabbitMQ, side: OtherSide) -> None:
    """The client tells answers apart by it; what stays the same is the id of the event."""
    entry = make_entry()

    await adapter.publish_status(entry)
    await adapter.publish_status(entry)

    first, second = await side.next_status(), await side.next_status()
    assert first.message_id != second.message_id
    assert first.headers["cloudEvents:id"] == second.headers["cloudEvents:id"]
    assert first.body == second.body


async def test_a_status_event_is_as_the_contract_says(adapter: RabbitMQ, side: OtherSide) -> None:
    """Persistent, with type, times and the causing event's correlation id."""
    entry = make_entry()

    await adapter.publish_status(entry)

    message = await side.next_status()
    assert (message.type, message.content_type) == ("tenant.status.running", "application/json")
    assert message.delivery_mode is aio_pika.DeliveryMode.PERSISTENT
    assert message.timestamp == entry.created_at
    assert message.correlation_id == "correlation-1"
    assert message.headers["tenant_id"] == entry.tenant_id
    assert message.headers["cloudEvents:source"] == "/landlord-consumer/test"


async def test_a_status_event_that_nobody_hears_is_no_error(broker: Broker, names: Names) -> None:
    """Whoever wants them subscribes in his own time."""
    async with running(make_adapter(broker.url, names)) as adapter:
        await adapter.publish_status(make_entry())
        await adapter.publish_status(make_entry())

        assert adapter.trouble is None


async def test_a_dead_letter_that_no_queue_takes_is_an_error(
    adapter: RabbitMQ, side: OtherSide
) -> None:
    """It would be lost; once there is a queue again, it can be repeated."""
    letter = make_letter(b"1", landlord_reason="invalid_event")
    await (await side.queue(side.names.dead_letter)).unbind(side.names.dead_letter, "")

    with pytest.raises(BrokerError, match="takes no message"):
        await adapter.publish_dead_letter(letter)
    # The binding is declared anew for it, and nobody else notices.
    assert adapter.trouble is None
    await adapter.publish_dead_letter(letter)

    assert (await side.take(side.names.dead_letter)).body == b"1"


async def test_a_dead_letter_that_ends_its_channel_ends_no_session(
    broker: Broker, names: Names, side: OtherSide
) -> None:
    """However often the broker ends it, status events go on; once it may pass again, it does."""
    letter = make_letter(b"1", landlord_reason="invalid_event")
    async with running(make_adapter(broker.url, names)):
        await side.subscribe()
    async with running(make_adapter(broker.url, names, is_declaring=False)) as adapter:
        await side.channel.exchange_delete(names.dead_letter)
        for number in range(1, 4):
            with pytest.raises(BrokerError, match="no exchange"):
                await adapter.publish_dead_letter(letter)
            await adapter.publish_status(make_entry(number))
            assert adapter.trouble is None
        exchange = await side.channel.declare_exchange(names.dead_letter, "fanout", durable=True)
        await (await side.queue(names.dead_letter)).bind(exchange)

        await adapter.publish_dead_letter(letter)

    assert (await side.take(names.dead_letter)).body == b"1"


async def test_a_dead_letter_with_a_long_table_keeps_nobody_waiting(
    adapter: RabbitMQ, side: OtherSide, broker: Broker
) -> None:
    """However many headers it has, the loop turns while it is made and sent."""
    headers = table_of([(b"", b"V")] * 59_000)
    letter = make_letter(b"1", landlord_reason="invalid_event")
    raw = join({"message_id": b"\1m", "headers": headers})
    longest = 0.0

    async def turn() -> None:
        nonlocal longest
        while True:
            begin = time.thread_time()
            await asyncio.sleep(0)
            longest = max(longest, time.thread_time() - begin)

    turning = asyncio.create_task(turn())
    await asyncio.sleep(0)
    await adapter.publish_dead_letter(
        replace(letter, delivery=replace(letter.delivery, raw_properties=raw))
    )
    turning.cancel()

    assert longest < 0.02
    async with raw_publisher(broker.url) as client:
        ((properties, _),) = await client.take(side.names.dead_letter, 1)
    assert headers[4:] in properties


async def test_a_dead_letter_keeps_what_it_came_with(adapter: RabbitMQ, side: OtherSide) -> None:
    """Properties and headers too; what the broker would act upon becomes a header."""
    letter = make_letter(b"1", landlord_reason="invalid_event")
    raw = make_raw(
        {"own": "kept"}, message_id="m-1", expiration="5000", user_id="other", message_type="t"
    )
    delivery = replace(letter.delivery, raw_properties=raw)

    await adapter.publish_dead_letter(replace(letter, delivery=delivery))

    arrived = await side.take(side.names.dead_letter)
    assert (arrived.message_id, arrived.type, arrived.expiration) == ("m-1", "t", None)
    assert arrived.headers["own"] == "kept"
    assert arrived.headers["landlord-original-expiration"] == "5000"
    assert arrived.headers["landlord-original-user-id"] == "other"
    assert arrived.headers["landlord-routing-key"] == "tenant.created"


async def test_headers_too_long_to_send_end_no_connection(
    adapter: RabbitMQ, side: OtherSide
) -> None:
    """Ours are kept, the others are left out with a note."""
    letter = make_letter(b"1", landlord_reason="invalid_event")
    delivery = replace(letter.delivery, raw_properties=make_raw({"own": "x" * 200_000}))

    await adapter.publish_dead_letter(replace(letter, delivery=delivery))

    arrived = await side.take(side.names.dead_letter)
    assert "own" not in arrived.headers
    assert arrived.headers["landlord-reason"] == "invalid_event"
    assert "too long" in str(arrived.headers["landlord-headers-dropped"])
    assert adapter.trouble is None


async def test_a_large_dead_letter_has_the_time_that_a_slow_link_takes(
    broker: Broker, names: Names, side: OtherSide
) -> None:
    """Given up on its way it would arrive all the same, once for each try."""
    letter = make_letter(bytes(3 * 1024 * 1024), landlord_reason="invalid_event")
    listening = socket.create_server(("127.0.0.1", 0))
    url = broker.url.replace(str(broker.port), str(listening.getsockname()[1]))
    async with (
        proxy(("127.0.0.1", broker.port), listening) as line,
        running(make_adapter(url, names, call_seconds=2.0)) as adapter,
    ):
        line.delay_seconds = 0.08  # for each 64 KiB
        await adapter.publish_dead_letter(letter)
        line.mend()

    assert len(await side.drained(names.dead_letter)) == 1


async def publish_letters(adapter: RabbitMQ, letter: DeadLetter, count: int) -> None:
    """Publish the same letter so many times."""
    for _ in range(count):
        await adapter.publish_dead_letter(letter)


async def test_a_limit_that_was_lifted_is_noticed(
    adapter: RabbitMQ, side: OtherSide, broker: Broker
) -> None:
    """Though the broker goes on refusing on the channel on which it refused; nothing else ends."""
    limit, letter = '{"max-length": 1, "overflow": "reject-publish"}', make_letter(b"1")
    pattern = f"^{side.names.dead_letter}$"
    broker.control("set_policy", "full", pattern, limit, "--apply-to", "queues")
    try:
        with pytest.raises(MessageRefused):
            await publish_letters(adapter, letter, 100)
    finally:
        broker.control("clear_policy", "full")

    async with asyncio.timeout(10):
        while True:
            try:
                await adapter.publish_dead_letter(letter)
                break
            except MessageRefused:
                await asyncio.sleep(0.05)

    assert adapter.trouble is None


# --- alarms -----------------------------------------------------------------------------------


async def test_an_alarm_blocks_publishing_and_nothing_else(
    broker: Broker, names: Names, side: OtherSide
) -> None:
    """A publish is unknown after its deadline; acks go on; afterwards publishing works again."""
    async with running(make_adapter(broker.url, names, call_seconds=1.0)) as adapter:
        await side.subscribe()
        await side.send(b"1")
        (delivery,) = await take(adapter, 1)
        await asyncio.to_thread(broker.control, "set_vm_memory_high_watermark", "0.0000001")
        try:
            with pytest.raises(BrokerError, match="no answer"):
                await adapter.publish_status(make_entry(1))
            trouble = adapter.trouble
            await adapter.ack([delivery])
        finally:
            await asyncio.to_thread(broker.control, "set_vm_memory_high_watermark", "0.4")
        await publish_until_confirmed(adapter)
        await until(lambda: adapter.trouble is None)

        assert trouble == "the broker blocks publishers (a memory or disk alarm)"
        assert {(await side.next_status()).body for _ in range(2)} == {
            make_entry(1).body.encode(),
            make_entry(2).body.encode(),
        }


async def test_while_publishing_is_blocked_each_is_sent_once(
    broker: Broker, names: Names, side: OtherSide
) -> None:
    """However often it is tried: the broker reads all that was sent, once the alarm is over."""
    letter = make_letter(b"1")
    async with running(make_adapter(broker.url, names, call_seconds=1.0)) as adapter:
        await asyncio.to_thread(broker.control, "set_vm_memory_high_watermark", "0.0000001")
        try:
            with pytest.raises(BrokerError, match="no answer"):
                await adapter.publish_dead_letter(letter)
            for _ in range(3):
                with pytest.raises(BrokerError, match="blocks publishers"):
                    await adapter.publish_dead_letter(letter)
        finally:
            await asyncio.to_thread(broker.control, "set_vm_memory_high_watermark", "0.4")
        await publish_until_confirmed(adapter)

    assert await side.drained(names.dead_letter) == [b"1"]


async def test_an_alarm_is_told_while_a_large_letter_is_on_its_way(
    broker: Broker, names: Names, side: OtherSide
) -> None:
    """It has more time than an answer; that the broker blocks is told no later for it."""
    letter = make_letter(bytes(2 * 1024 * 1024))
    async with running(make_adapter(broker.url, names, call_seconds=1.0)) as adapter:
        await asyncio.to_thread(broker.control, "set_vm_memory_high_watermark", "0.0000001")
        publishing = asyncio.create_task(adapter.publish_dead_letter(letter))
        try:
            await until(lambda: adapter.trouble is not None)
            trouble, is_done = adapter.trouble, publishing.done()
        finally:
            await asyncio.to_thread(broker.control, "set_vm_memory_high_watermark", "0.4")
        await publishing

        assert (trouble, is_done) == (
            "the broker blocks publishers (a memory or disk alarm)",
            False,
        )
        assert adapter.trouble is None
    assert len(await side.drained(names.dead_letter)) == 1


async def publish_until_confirmed(adapter: RabbitMQ) -> None:
    """Publish as the outbox does: again, until the broker says that it has it."""
    async with asyncio.timeout(15):
        while True:
            try:
                return await adapter.publish_status(make_entry(2))
            except BrokerError:
                await asyncio.sleep(0.1)
