"""A fault of our own: the process ends within a second and says why; nobody waits in vain."""

import asyncio
import sqlite3
import time
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path

import pytest

from deploy.lab.servers import Broker, DockerHost
from tests.e2e.world import World, make_document, own_world, until
from tests.faults.proxy import Proxy, proxy

pytestmark = [pytest.mark.docker, pytest.mark.rabbitmq, pytest.mark.timeout(120)]

TOLD = "a task ended unasked"


@pytest.fixture
async def engine(docker_host: DockerHost, tmp_path: Path) -> AsyncIterator[Proxy]:
    """Stand between the consumer and its engine."""
    place = Path(docker_host.url.removeprefix("unix://"))
    async with proxy(place, tmp_path / "engine.sock") as between:
        yield between


@pytest.fixture
async def world(
    broker: Broker, docker_host: DockerHost, tmp_path: Path, engine: Proxy
) -> AsyncIterator[World]:
    """Give a consumer of the test's own, which reaches its engine through the proxy."""
    async with own_world(
        broker, docker_host, tmp_path, docker_url=f"unix://{tmp_path}/engine.sock"
    ) as around:
        yield around


def spoil(folder: Path, statement: str) -> None:
    """Write into the ledger what no version of ours would have written."""
    with closing(sqlite3.connect(folder / "landlord.db", timeout=5)) as ledger, ledger:
        ledger.execute(statement)


async def test_a_task_that_ends_ends_the_process_within_a_second(
    world: World, engine: Proxy, tmp_path: Path
) -> None:
    """One line says which task and why, exit code 1; a request that hangs holds nothing up."""
    await world.run_tenant("settled")
    engine.stall_replies()
    await world.publisher.create(make_document("hanging"))
    await asyncio.sleep(1)
    begin = world.consumer.log_size

    spoil(tmp_path, "UPDATE outbox SET state = 'nonsense', sent_at = NULL")
    await until(lambda: TOLD in world.consumer.log_text(begin=begin))
    told_at = time.monotonic()
    await until(lambda: not world.consumer.is_running)
    seconds = time.monotonic() - told_at
    (line,) = [line for line in world.consumer.log_lines(begin=begin) if line.get("event") == TOLD]

    assert seconds < 1
    assert world.consumer.daemon.exit_code == 1
    assert line["task"] == "outbox"
    assert str(line["error"]).startswith("ValueError at")
    assert "Traceback" not in world.consumer.log_text(begin=begin)
