"""Ten thousand malformed messages: each is dead-lettered with its fault, and none leaves a mark."""

import asyncio
import time
from collections.abc import AsyncIterator
from itertools import islice
from pathlib import Path

import pytest

from deploy.lab.servers import Broker, DockerHost
from tests.e2e.world import World, own_world, until
from tests.faults.fuzz import Malformed, malformed

pytestmark = [pytest.mark.docker, pytest.mark.rabbitmq, pytest.mark.timeout(240)]

HALF = 5_000
SIDE_BY_SIDE = 100
"""How many are published without waiting for each other's confirm."""
MOST_GROWTH = 1.15
REASONS = {"invalid_event", "policy_denied"}


@pytest.fixture
async def world(broker: Broker, docker_host: DockerHost, tmp_path: Path) -> AsyncIterator[World]:
    """Give a consumer of the test's own."""
    async with own_world(broker, docker_host, tmp_path) as around:
        yield around


async def publish_all(world: World, messages: list[Malformed]) -> dict[str, Malformed]:
    """Publish them all; return them by the id they were given."""
    by_id = {}
    for start in range(0, len(messages), SIDE_BY_SIDE):
        async with asyncio.TaskGroup() as group:
            sent = [
                (group.create_task(world.publisher.publish("updated", message.body)), message)
                for message in messages[start : start + SIDE_BY_SIDE]
            ]
        by_id.update({task.result(): message for task, message in sent})
    return by_id


async def until_refused(world: World, count: int) -> None:
    """Wait until so many dead letters lie in their queue."""

    async def are_there() -> bool:
        return await world.clients.dead_letters() >= count

    await until(are_there, seconds=100)


def misjudged(letters: dict[str, tuple[str, str]], sent: dict[str, Malformed]) -> list[str]:
    """Return what was said of those whose fault is not named."""
    return [
        f"{sent[message_id].fault!r} wanted, told is {reason}: {error}"
        for message_id, (reason, error) in letters.items()
        if reason not in REASONS or sent[message_id].fault not in error
    ]


async def test_a_flood_of_malformed_messages_leaves_no_mark(world: World) -> None:
    """Nothing blocks, crashes, is lost or piles up; who comes after them is served at once."""
    flood = list(islice(malformed(20261125), 2 * HALF))

    first = await publish_all(world, flood[:HALF])
    await until_refused(world, HALF)
    before = world.consumer.memory_kilobytes
    second = await publish_all(world, flood[HALF:])
    await until_refused(world, 2 * HALF)
    after = world.consumer.memory_kilobytes
    began = time.monotonic()
    await world.run_tenant("after-them")
    seconds = time.monotonic() - began
    letters = await world.clients.drain_dead_letters()

    assert letters.keys() == first.keys() | second.keys()
    assert misjudged(letters, first | second)[:5] == []
    assert seconds < 5
    assert after <= before * MOST_GROWTH, f"{before} kB, then {after} kB"
    assert await world.clients.backlog() == 0
