"""Thousands of odd messages; `make fuzz` sends a hundred thousand. See `tests.faults.barrage`."""

from pathlib import Path

import pytest

from deploy.lab.servers import Broker, DockerHost
from tests.faults.barrage import barrage, rank

pytestmark = [pytest.mark.docker, pytest.mark.rabbitmq, pytest.mark.timeout(240)]

COUNT = 2_000
MOST_SECONDS = 15.0
"""Usual are a few tenths; machines that run tests are not always quiet."""


async def test_whatever_comes_is_answered_or_dead_lettered_and_holds_up_nobody(
    broker: Broker, docker_host: DockerHost, tmp_path: Path
) -> None:
    """Every message has one outcome, the loop turns, and who behaves well is served meanwhile."""
    report = await barrage(broker, docker_host, tmp_path, seed=20261128, count=COUNT, quiet=3)

    assert report.sorts.total() == COUNT
    assert report.letters > COUNT // 2
    assert report.busy
    assert rank(report.busy, 0.99) < MOST_SECONDS
    assert rank(report.answers, 0.99) < 3.0
    assert max(report.memory) < 256 * 1024
