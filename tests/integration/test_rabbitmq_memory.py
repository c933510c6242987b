"""What is in flight is bounded by bytes on a real broker, whatever the prefetch."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from consumer.adapters.rabbitmq import RabbitMQ
from consumer.adapters.rabbitmq_frames import weight
from consumer.content_header import EMPTY
from consumer.messages import Delivery
from deploy.lab.names import Names, remove_names
from deploy.lab.servers import Broker
from tests.contract.brokers import fresh_names, make_adapter, make_narrow_adapter, running, until
from tests.faults.frames import RawMessage, raw_publisher

pytestmark = pytest.mark.rabbitmq

SIZE = 600_000
COUNT = 40
MOST = 4 * SIZE
"""Of 24 MB in all."""


@pytest.fixture
async def names(broker: Broker) -> AsyncIterator[Names]:
    """Give names of the test's own, declared, and a queue of large messages."""
    chosen = fresh_names()
    async with running(make_adapter(broker.url, chosen)):
        pass
    async with raw_publisher(broker.url) as raw:
        for number in range(COUNT):
            body = (b"%03d" % number, *(b"x" * 100_000 for _ in range(6)))
            raw.send(
                RawMessage(EMPTY, body, is_sound=True), chosen.tenant_exchange, b"tenant.created"
            )
        await raw.confirmed()
    yield chosen
    await remove_names(broker.url, chosen)


async def settle_all(adapter: RabbitMQ) -> list[int]:
    """Take and settle until every message was seen; return their numbers in the order they came."""
    seen: list[int] = []
    async with asyncio.timeout(25):
        while len(set(seen)) < COUNT:
            batch = await adapter.next_batch(limit=200)
            assert held(batch) <= adapter._in_flight.held <= MOST
            await adapter.ack(batch)
            seen += [int(delivery.body[:3]) for delivery in batch]
    return seen


def held(batch: list[Delivery]) -> int:
    return sum(weight(len(it.body), len(it.raw_properties)) for it in batch)


async def test_large_messages_come_a_few_at_a_time(broker: Broker, names: Names) -> None:
    """Each once, in order, in one session, as fast as they are settled."""
    async with running(make_narrow_adapter(broker.url, names, most_bytes=MOST)) as adapter:
        seen = await settle_all(adapter)
        sessions = adapter._sessions

    assert seen == list(range(COUNT))
    assert sessions == 1
    assert adapter._in_flight.held == 0


async def test_while_nothing_is_settled_the_session_stays_up(broker: Broker, names: Names) -> None:
    """Beyond every heartbeat's patience: once with fewer on their way, and then for good."""
    adapter = make_narrow_adapter(broker.url, names, most_bytes=MOST, pause_seconds=1.0)
    async with running(adapter):
        first = await adapter.next_batch(limit=200)
        await until(lambda: adapter._sessions == 2 and adapter.trouble is None)
        await asyncio.sleep(8)
        sessions, trouble, in_flight = adapter._sessions, adapter.trouble, adapter._in_flight.held
        prefetch = adapter._prefetch.now
        await adapter.ack(first)
        first.clear()
        seen = await settle_all(adapter)

    assert (sessions, trouble) == (2, None)
    assert in_flight <= MOST
    assert prefetch == MOST // (SIZE + 4096 + 30)
    assert set(seen) == set(range(COUNT))


async def test_more_are_asked_for_again_once_messages_are_small(
    broker: Broker, names: Names
) -> None:
    """After a while of them; nothing is lost in between."""
    adapter = make_narrow_adapter(broker.url, names, most_bytes=MOST, pause_seconds=0.5)
    async with running(adapter):
        await until(lambda: adapter._sessions == 2 and adapter.trouble is None)
        lowered = adapter._prefetch.now
        await settle_all(adapter)
        await until(lambda: adapter._prefetch.now == 500)
        await until(lambda: adapter.trouble is None)
        async with raw_publisher(broker.url) as raw:
            small = RawMessage(EMPTY, (b"small",), is_sound=True)
            await raw.publish(small, names.tenant_exchange, b"tenant.created")
        (delivery,) = await adapter.next_batch(limit=5)

    assert lowered < 10
    assert delivery.body == b"small"
