"""One consumer for a module's tests; those that kill it make one of their own (`own_world`)."""

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest

from deploy.lab.images import build_consumer
from deploy.lab.servers import Broker, DockerHost
from tests.e2e.consumer_process import ConsumerProcess
from tests.e2e.world import World, consumer_process, take_away, world_around


@pytest.fixture(scope="module")
def consumer(
    broker: Broker, docker_host: DockerHost, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ConsumerProcess]:
    """Run a consumer for the module's tests."""
    folder = tmp_path_factory.mktemp("consumer")
    with consumer_process(broker.url, docker_host.url, folder) as process:
        process.start()
        yield process
    asyncio.run(take_away(broker, docker_host, process.names))


@pytest.fixture
async def world(
    consumer: ConsumerProcess, broker: Broker, docker_host: DockerHost
) -> AsyncIterator[World]:
    """Give the module's consumer and everything around it."""
    async with world_around(consumer, broker, docker_host) as around:
        yield around


@pytest.fixture(scope="session")
def consumer_image(docker_host: DockerHost, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Have the consumer's image on the engine."""
    build_consumer(docker_host, tmp_path_factory.mktemp("wheels"))
