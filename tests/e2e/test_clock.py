"""The host's clock is set, by an hour and by weeks: nothing comes too soon, too late or never."""

import asyncio
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from uuid import uuid4

import pytest

from deploy.lab.names import Names
from deploy.lab.packages import LabError, find
from deploy.lab.servers import Broker, DockerHost
from tests.e2e.consumer_process import ConsumerProcess
from tests.e2e.world import World, make_document, take_away, until, world_around

pytestmark = [pytest.mark.docker, pytest.mark.rabbitmq]

HOUR = 3600
WEEKS = 4 * 7 * 24 * HOUR
NO_SUCH_IMAGE = {"image": "no-such-image:1"}
SLOW = {
    "healthcheck": {
        "test": ["CMD", "test", "-e", "/www/healthy"],
        "interval_seconds": 1,
        "start_period_seconds": 600,
    }
}


class HostClock:
    """The wall clock that the consumer sees; the one that cannot step is the machine's."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "ahead"
        self.set_ahead(0)

    def set_ahead(self, seconds: int) -> None:
        """Set it to be so much ahead of the machine's."""
        written = self._file.with_suffix(".new")
        written.write_text(f"{seconds:+d}\n")
        written.replace(self._file)

    def command(self) -> list[str]:
        """Return what runs the consumer under this clock."""
        find("faketime")
        library = next(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"), None)
        if library is None:
            raise LabError("libfaketime is not where Debian's package has it")
        under = [f"LD_PRELOAD={library}", f"FAKETIME_TIMESTAMP_FILE={self._file}"]
        under += ["FAKETIME_NO_CACHE=1", "FAKETIME_DONT_FAKE_MONOTONIC=1"]
        return ["env", *under, sys.executable, "-m", "consumer"]


@contextmanager
def process_under(
    clock: HostClock, broker: Broker, host: DockerHost, folder: Path
) -> Iterator[ConsumerProcess]:
    """Give a consumer under this clock, which looks at its tenants every second."""
    process = ConsumerProcess(
        names=Names(f"ll-{uuid4().hex[:8]}"),
        broker_url=broker.url,
        docker_host=host.url,
        folder=folder,
        settings={"RECONCILE__RESYNC_SECONDS": "1"},
        command=clock.command(),
    )
    try:
        yield process
    finally:
        process.kill()


@asynccontextmanager
async def world_under(
    clock: HostClock, broker: Broker, host: DockerHost, folder: Path
) -> AsyncIterator[World]:
    """Give the same, started, with all that is around it."""
    with process_under(clock, broker, host, folder) as process:
        async with world_around(process, broker, host) as world:
            process.start()
            yield world
            process.kill()
        await take_away(broker, host, process.names)


async def test_a_clock_that_is_set_while_it_runs_changes_nothing(
    broker: Broker, docker_host: DockerHost, tmp_path: Path
) -> None:
    """An hour back, two ahead: retries go on, a slow start is neither failed nor misjudged."""
    clock = HostClock(tmp_path)
    async with world_under(clock, broker, docker_host, tmp_path) as world:
        await world.publisher.create(make_document("slow", container=SLOW))
        await until(lambda: bool(world.containers("slow")))
        await world.publisher.create(make_document("fails", container=NO_SUCH_IMAGE))
        await world.subscriber.expect("fails", state="failed", attempt=1)
        clock.set_ahead(-HOUR)
        await world.subscriber.expect("fails", state="failed", attempt=2, timeout=15)
        clock.set_ahead(HOUR)
        await world.subscriber.expect("fails", state="failed", attempt=3, timeout=15)
        await asyncio.sleep(2)  # two resyncs look at who is slow
        told_too_soon = world.subscriber.statuses("slow")
        world.docker.run("exec", world.container("slow"), "touch", "/www/healthy")
        running = await world.subscriber.expect("slow", state="running")
        is_live, _ = await world.consumer.http_get("/healthz")

    assert told_too_soon == []
    startup = running["startup_seconds"]
    assert isinstance(startup, float)
    assert 0 < startup < 60
    assert is_live == 200


async def test_a_clock_set_weeks_ahead_wipes_no_tombstone(
    broker: Broker, docker_host: DockerHost, tmp_path: Path
) -> None:
    """An event of before the delete is stale for as long as was promised, of time gone by."""
    clock = HostClock(tmp_path)
    async with world_under(clock, broker, docker_host, tmp_path) as world:
        await world.run_tenant("gone", generation=2)
        event_id = await world.publisher.tell("deleted", "gone")
        await world.subscriber.expect("gone", state="stopped", event_id=event_id)
        clock.set_ahead(WEEKS)
        # At its start a consumer sweeps.
        world.consumer.restart()
        await world.publisher.create(make_document("gone", generation=1))
        await world.run_tenant("after")
        containers = world.containers("gone")

    assert containers == []
