"""The consumer's memory has a bound, however large what waits for it is."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from consumer.content_header import EMPTY
from deploy.lab.servers import Broker, DockerHost
from tests.e2e.world import World, make_document, own_world, until
from tests.faults.frames import RawMessage, raw_publisher

pytestmark = [pytest.mark.docker, pytest.mark.rabbitmq]

COUNT = 40
PARTS = 128
PART = b"x" * 131_000
"""A body of 128 of them has 16 MiB, the most that RabbitMQ 4 takes."""
MOST_KILOBYTES = 256 * 1024


@pytest.fixture
async def world(broker: Broker, docker_host: DockerHost, tmp_path: Path) -> AsyncIterator[World]:
    """Give a consumer of the test's own."""
    async with own_world(broker, docker_host, tmp_path) as around:
        yield around


async def test_a_queue_of_the_largest_messages_costs_no_more_than_its_share(
    broker: Broker, world: World
) -> None:
    """640 MB of them wait; all are dead-lettered, and the tenant behind them runs."""
    world.consumer.terminate()
    async with raw_publisher(broker.url) as raw:
        for _ in range(COUNT):
            message = RawMessage(EMPTY, (PART,) * PARTS, is_sound=True)
            await raw.publish(message, world.names.tenant_exchange, b"tenant.created")
    event_id = await world.publisher.create(make_document("behind"))

    world.consumer.start()
    await world.subscriber.expect("behind", event_id=event_id, state="running", timeout=100)

    async def are_there() -> bool:
        return await world.clients.dead_letters() >= COUNT

    await until(are_there, seconds=20)
    assert world.consumer.most_kilobytes < MOST_KILOBYTES
