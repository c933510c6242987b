"""The ledger's disk is full: nothing is acked, nothing spins, nothing is lost."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from deploy.lab.servers import Broker, DockerHost
from tests.e2e.world import World, make_document, own_world, until
from tests.faults.full_disk import SmallDisk, small_disk

pytestmark = [pytest.mark.docker, pytest.mark.rabbitmq, pytest.mark.timeout(180)]

FULL_SECONDS = 8.0
"""Long enough for several retries of whatever is retried."""


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    """Give the disk that the ledger is on."""
    with small_disk(tmp_path / "disk") as small:
        yield small


@pytest.fixture
async def world(
    broker: Broker, docker_host: DockerHost, tmp_path: Path, disk: SmallDisk
) -> AsyncIterator[World]:
    """Give a consumer whose ledger is on the small disk."""
    url = f"sqlite:///{disk.folder}/landlord.db"
    async with own_world(broker, docker_host, tmp_path, LEDGER__URL=url) as around:
        yield around


def held_deliveries(world: World, broker: Broker) -> tuple[int, int]:
    """Return how many messages of the consumer's queue are ready, and how many unacked."""
    columns = ("name", "messages_ready", "messages_unacknowledged")
    listed = broker.control("list_queues", "--no-table-headers", *columns).splitlines()
    counts = {name: (int(ready), int(unacked)) for name, ready, unacked in map(str.split, listed)}
    return counts[world.names.queue]


async def until_unready(world: World) -> str:
    """Wait until the consumer says that it cannot work, and return what it says."""

    async def is_unready() -> bool:
        return not await world.is_ready()

    await until(is_unready, seconds=10)
    return (await world.consumer.http_get("/readyz"))[1]


async def test_a_full_disk_is_told_without_any_event(world: World, disk: SmallDisk) -> None:
    """Readiness names the ledger within seconds, and says so no more once there is room."""
    disk.fill()
    told = await until_unready(world)
    level = await world.consumer.metric("landlord_ledger_up")
    disk.free()
    await until(world.is_ready, seconds=10)

    assert "ledger" in told
    assert level == 0


async def test_deliveries_wait_for_room_and_are_applied_once(
    world: World, disk: SmallDisk, broker: Broker
) -> None:
    """They are kept unacked while the disk is full; what runs, runs on."""
    tenants = [f"meanwhile-{number}" for number in range(3)]
    await world.run_tenant("through")
    was = world.inspect("through", ".State")

    disk.fill()
    for tenant in tenants:
        await world.publisher.create(make_document(tenant))
    await until_unready(world)
    await asyncio.sleep(FULL_SECONDS)
    held = held_deliveries(world, broker)
    made = [world.containers(tenant) for tenant in tenants]
    disk.free()
    for tenant in tenants:
        await world.subscriber.expect(tenant, state="running", timeout=30)
    # The broker counts every few seconds.
    await until(lambda: held_deliveries(world, broker) == (0, 0))

    assert (held, made) == ((0, 3), [[], [], []])
    assert [len(world.subscriber.arrivals(tenant)) for tenant in tenants] == [1, 1, 1]
    assert [len(world.containers(tenant)) for tenant in tenants] == [1, 1, 1]
    assert world.inspect("through", ".State") == was


async def test_nothing_is_given_back_while_the_disk_is_full(world: World, disk: SmallDisk) -> None:
    """No delivery goes round: the broker counts the one return that the kill made."""
    await world.run_tenant("through")
    disk.fill()
    event_id = await world.publisher.tell("deleted", "through")
    await until_unready(world)
    await asyncio.sleep(FULL_SECONDS)

    world.consumer.kill()
    async with world.clients.peek() as message:
        returns = (message.message_id, message.headers["x-delivery-count"])
    disk.free()
    world.consumer.start()
    status = await world.subscriber.expect("through", event_id=event_id)

    assert returns == (event_id, 1)
    assert status["reason"] == "deleted"
    assert world.containers("through") == []


async def test_an_accident_while_the_disk_is_full_is_told_afterwards(
    world: World, disk: SmallDisk
) -> None:
    """A container removed meanwhile is told as missing and made again, once there is room."""
    await world.run_tenant("victim")

    disk.fill()
    await until_unready(world)
    world.docker.run("rm", "-f", world.container("victim"))
    await asyncio.sleep(FULL_SECONDS)
    disk.free()
    await world.subscriber.expect("victim", state="failed", reason="missing", timeout=30)
    await world.subscriber.expect("victim", state="running", timeout=30)

    assert len(world.containers("victim")) == 1
