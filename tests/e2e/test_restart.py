"""Starting again costs one list, however many tenants there are, and touches nobody."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from datetime import datetime
from pathlib import Path

import pytest

from deploy.lab.docker_cli import DockerCli
from deploy.lab.servers import Broker, DockerHost
from tests.e2e.world import World, make_document, own_world
from tests.faults.proxy import Fate, Proxy, Request, proxy

pytestmark = [pytest.mark.docker, pytest.mark.rabbitmq, pytest.mark.timeout(400)]

TENANTS = 200
"""As many as the promise names."""
READY_SECONDS = 5.0
QUIET_SECONDS = 5.0
"""Long enough for whatever a start brings on to show."""


class Tally:
    """Counts requests to the engine, by method and what they are about; lets all of them pass."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()

    async def judge(self, request: Request) -> Fate:
        """Count it; see `proxy.Judge`."""
        # "/v1.41/containers/json?all=1" is about "containers/json".
        path = request.path.partition("?")[0].split("/")[2:]
        self.counts[f"{request.method} {'/'.join(path)}"] += 1
        return Fate.PASS

    def changing(self) -> list[str]:
        """Return the requests that could change something."""
        return [name for name in self.counts if not name.startswith(("GET", "HEAD"))]


@pytest.fixture
async def bench(
    broker: Broker, docker_host: DockerHost, tmp_path: Path
) -> AsyncIterator[tuple[World, Proxy]]:
    """Run a consumer behind a proxy before the engine."""
    place, front = Path(docker_host.url.removeprefix("unix://")), tmp_path / "engine.sock"
    async with (
        proxy(place, front) as to_engine,
        own_world(broker, docker_host, tmp_path, docker_url=f"unix://{front}") as world,
    ):
        yield world, to_engine


def traces(docker: DockerCli, label: str) -> str:
    """Return id, start and state of every container, in order of id."""
    template = "{{.Id}} {{.State.StartedAt}} {{.State.Status}} {{.RestartCount}}"
    return docker.run("inspect", "-f", template, *sorted(docker.containers(label)))


async def start(world: World) -> float:
    """Start the consumer; return how long it took from its first line in the log to being ready.

    Not from the start of the process: on a busy machine Python alone takes seconds to load.
    """
    begin = world.consumer.log_size
    # In a thread: the proxy runs in this one.
    await asyncio.to_thread(world.consumer.start)
    lines = world.consumer.log_lines(begin=begin)
    said_at = {line["event"]: datetime.fromisoformat(str(line["timestamp"])) for line in lines}
    return (said_at["ready"] - said_at["listening"]).total_seconds()


async def everything_is_marked_sent(world: World) -> None:
    """Wait until the consumer has noted every confirm: what it has not, it says again."""
    async with asyncio.timeout(30):
        while await world.consumer.metric("landlord_outbox_pending"):  # noqa: ASYNC110 - over HTTP
            await asyncio.sleep(0.1)


async def test_a_restart_looks_once_and_touches_nothing(bench: tuple[World, Proxy]) -> None:
    """One list of containers, no request that changes anything, no status event said again."""
    world, to_engine = bench
    tenants = [f"calm-{number}" for number in range(TENANTS)]
    for tenant in tenants:
        await world.publisher.create(make_document(tenant))
    for tenant in tenants:
        await world.subscriber.expect(tenant, state="running", timeout=120)
    await everything_is_marked_sent(world)
    # The new process asks the engine for the events of the last two seconds: let there be none.
    await asyncio.sleep(QUIET_SECONDS)
    was = traces(world.docker, world.names.label)
    tally = Tally()

    world.consumer.kill()
    to_engine.judge = tally.judge
    seconds = await start(world)
    await asyncio.sleep(QUIET_SECONDS)

    assert seconds < READY_SECONDS
    assert tally.counts["GET containers/json"] == 1, tally.counts
    assert tally.changing() == []
    assert [name for name in tally.counts if name.endswith("/json")] == ["GET containers/json"]
    assert traces(world.docker, world.names.label) == was
    assert [len(world.subscriber.arrivals(tenant)) for tenant in tenants] == [1] * TENANTS
