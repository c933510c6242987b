"""Three minutes of random events under random trouble; see `tests.faults.soak`."""

from pathlib import Path

import pytest

from deploy.lab.servers import Broker, DockerHost
from tests.faults.soak import soak

pytestmark = [pytest.mark.docker, pytest.mark.rabbitmq, pytest.mark.timeout(480)]


async def test_nothing_is_lost_doubled_or_untrue_under_trouble(
    broker: Broker, docker_host: DockerHost, tmp_path: Path
) -> None:
    """Whatever is unplugged, each tenant comes to what its events say."""
    report = await soak(broker, docker_host, tmp_path, seed=20261125, seconds=180)

    assert report.events > 100
    assert sum(report.troubles.values()) > 10
