"""Three minutes of random events under random trouble; see `tests.faults.soak`."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.lab.servers import Broker, DockerHost
from tests.conftest import import_web_image
from tests.faults.soak import soak

pytestmark = [pytest.mark.docker, pytest.mark.rabbitmq, pytest.mark.timeout(480)]


@pytest.fixture
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Broker, DockerHost]]:
    """Run servers for this test alone: what is killed so often is of no use to others."""
    # A short path: the name of a socket may have 107 bytes.
    folder = tmp_path_factory.mktemp("soak")
    broker, host = Broker(folder / "broker"), DockerHost(folder / "docker")
    try:
        broker.start()
        host.start()
        import_web_image(host)
        yield broker, host
    finally:
        host.close()
        broker.close()


async def test_nothing_is_lost_doubled_or_untrue_under_trouble(
    servers: tuple[Broker, DockerHost], tmp_path: Path
) -> None:
    """Whatever is unplugged, each tenant comes to what its events say."""
    broker, host = servers

    report = await soak(broker, host, tmp_path, seed=20261125, seconds=180)

    assert report.events > 100
    assert sum(report.troubles.values()) > 10
