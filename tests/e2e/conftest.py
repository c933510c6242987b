"""One consumer for a module's tests; those that kill it make one of their own (`own_world`)."""

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest

from deploy.lab.names import remove_names
from deploy.lab.servers import Broker, DockerHost
from tests.e2e.consumer_process import ConsumerProcess
from tests.e2e.world import World, consumer_process, world_around


@pytest.fixture(scope="module")
def consumer(
    broker: Broker, docker_host: DockerHost, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ConsumerProcess]:
    """Run a consumer for the module's tests."""
    folder = tmp_path_factory.mktemp("consumer")
    with consumer_process(broker, docker_host, folder) as process:
        process.start()
        yield process
        process.kill()
    asyncio.run(remove_names(broker.url, process.names))


@pytest.fixture
async def world(
    consumer: ConsumerProcess, broker: Broker, docker_host: DockerHost
) -> AsyncIterator[World]:
    """Give the module's consumer and everything around it."""
    async with world_around(consumer, broker, docker_host) as around:
        yield around
