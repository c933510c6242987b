"""The tenants' network, as the consumer makes it and keeps it."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from deploy.lab.servers import Broker, DockerHost
from tests.e2e.world import World, make_document, own_world

pytestmark = [pytest.mark.docker, pytest.mark.rabbitmq]

NETWORK = "ll-e2e-tenants"
COUNT = 20


@pytest.fixture
async def world(broker: Broker, docker_host: DockerHost, tmp_path: Path) -> AsyncIterator[World]:
    """Give a consumer whose tenants join a network that is not there yet."""
    name = {"COMPUTE__DOCKER__NETWORK_NAME": NETWORK}
    async with own_world(broker, docker_host, tmp_path, **name) as around:
        yield around


def networks(world: World) -> list[str]:
    """Return the ids of the networks of that name."""
    return world.docker.run("network", "ls", "-q", "--filter", f"name=^{NETWORK}$").split()


async def test_tenants_that_come_at_once_share_one_network(world: World) -> None:
    """Twenty of them find none, and make one; each is on it and on no other (checklist 18, 19)."""
    tenants = [f"guest-{number}" for number in range(COUNT)]

    async with asyncio.TaskGroup() as group:
        for tenant in tenants:
            group.create_task(world.publisher.create(make_document(tenant)))
    for tenant in tenants:
        await world.subscriber.expect(tenant, state="running", timeout=60)

    joined = [world.inspect(tenant, ".NetworkSettings.Networks") for tenant in tenants]
    assert len(networks(world)) == 1
    assert [list(each) for each in joined if isinstance(each, dict)] == [[NETWORK]] * COUNT


async def test_a_network_that_somebody_removed_is_made_again(world: World) -> None:
    """For a tenant that comes back, in the container that it had, and for one that is new."""
    await world.run_tenant("back")
    container = world.inspect("back", ".Id")
    await world.publisher.tell("suspended", "back")
    await world.subscriber.expect("back", state="stopped")
    world.docker.run("network", "rm", NETWORK)

    await world.publisher.tell("resumed", "back")
    await world.subscriber.expect("back", state="running", reason="resumed")
    same = world.inspect("back", ".Id")
    await world.delete_tenant("back")
    world.docker.run("network", "rm", NETWORK)
    await world.run_tenant("new")

    assert same == container
    assert world.subscriber.summary("back") == [
        ("running", "started"),
        ("stopped", "suspended"),
        ("running", "resumed"),
        ("stopped", "deleted"),
    ]
