"""Whatever is unplugged: afterwards each tenant has one container, and its last status is true."""

import asyncio
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from deploy.lab.daemon import Daemon
from deploy.lab.servers import Broker, DockerHost
from tests.e2e.broker_clients import connect
from tests.e2e.world import (
    World,
    consumer_process,
    make_document,
    own_world,
    take_away,
    until,
    world_around,
)
from tests.faults.proxy import proxy

pytestmark = [pytest.mark.docker, pytest.mark.rabbitmq, pytest.mark.timeout(180)]

OUTAGE_SECONDS = 20.0


@pytest.fixture
async def world(broker: Broker, docker_host: DockerHost, tmp_path: Path) -> AsyncIterator[World]:
    """Give a consumer of the test's own."""
    async with own_world(broker, docker_host, tmp_path) as around:
        yield around


@contextmanager
def stopped(server: Daemon) -> Iterator[None]:
    """Have the server stopped within the block, and running again after it."""
    server.stop()
    try:
        yield
    finally:
        server.start()


async def assert_true_to_the_last(world: World, tenants: list[str]) -> None:
    """Each tenant has one running container, and both ways of asking say so."""
    for tenant in tenants:
        assert len(world.containers(tenant)) == 1, tenant
        assert world.inspect(tenant, ".State.Running") is True, tenant
        told = await world.consumer.status(tenant)
        assert (told["state"], told["stale"]) == ("running", False), tenant
        assert told["container"]["id"] == world.inspect(tenant, ".Id"), tenant  # type: ignore[index]


async def test_the_broker_is_away_for_twenty_seconds(world: World, broker: Broker) -> None:
    """What happens meanwhile is told afterwards; events published then are applied."""
    await world.run_tenant("through")
    await world.run_tenant("victim")
    hearing = f"{world.names.prefix}-hearing"
    async with connect(broker.url, world.names, queue_name=hearing):
        pass  # from here on the queue keeps what nobody is there to hear

    with stopped(broker.node):
        world.docker.run("rm", "-f", world.container("victim"))
        await asyncio.sleep(OUTAGE_SECONDS)
        unready, said = await world.consumer.http_get("/readyz")
        served, _ = await world.consumer.http_get("/tenants/through/compute/status")
    async with connect(broker.url, world.names, queue_name=hearing) as clients:
        await clients.publisher.create(make_document("after"))
        await clients.subscriber.expect("victim", state="failed", reason="missing", timeout=30)
        await clients.subscriber.expect("victim", state="running", timeout=30)
        await clients.subscriber.expect("after", state="running", timeout=30)

    assert (unready, served) == (503, 200)
    assert "broker" in said
    await assert_true_to_the_last(world, ["through", "victim", "after"])


async def test_the_engine_is_away_for_twenty_seconds(world: World, docker_host: DockerHost) -> None:
    """Unknown is not stopped: an event meanwhile is told as such, retried, and then applied."""
    await world.run_tenant("through")

    with stopped(docker_host.engine):
        await world.publisher.create(make_document("meanwhile"))
        away = await world.subscriber.expect("meanwhile", state="failed", timeout=30)
        await asyncio.sleep(OUTAGE_SECONDS)
        unready, said = await world.consumer.http_get("/readyz")
        stale = await world.consumer.status("through")
    await world.subscriber.expect("meanwhile", state="running", timeout=30)

    assert (away["reason"], away["will_retry"]) == ("engine_unavailable", True)
    assert str(away["message"]).startswith("failed to connect to docker daemon")
    assert unready == 503
    assert "engine" in said
    assert stale["stale"] is True
    await world.subscriber.expect("through", state="running", timeout=30)
    # A tenant may be told before the stream of engine events stands again.
    await until(world.is_ready, seconds=30)
    await assert_true_to_the_last(world, ["through", "meanwhile"])


async def test_a_consumer_started_without_an_engine_waits_for_it(
    broker: Broker, docker_host: DockerHost, tmp_path: Path
) -> None:
    """It says so in its log, at `/readyz` and to who asked for a tenant, and then makes it."""
    phrase = "failed to connect to docker daemon"
    with consumer_process(broker.url, docker_host.url, tmp_path) as process:
        async with world_around(process, broker, docker_host) as world:
            with stopped(docker_host.engine):
                await asyncio.to_thread(process.start, until="broker session up")
                event_id = await world.publisher.create(make_document("early"))
                waiting = await world.subscriber.expect("early", event_id=event_id)
                unready, said = await process.http_get("/readyz")
            running = await world.subscriber.expect("early", state="running", timeout=30)

        assert (waiting["state"], waiting["reason"]) == ("failed", "engine_unavailable")
        assert phrase in str(waiting["message"])
        assert (unready, phrase in said) == (503, True)
        assert phrase in process.log_text()
        assert running["event_id"] == event_id
        process.kill()
        await take_away(broker, docker_host, process.names)


async def test_losing_sight_of_the_engine_tells_nothing_of_its_containers(
    broker: Broker, docker_host: DockerHost, tmp_path: Path
) -> None:
    """A look that is due while the engine cannot be asked finds out nothing, and says nothing."""
    place, front = Path(docker_host.url.removeprefix("unix://")), tmp_path / "engine.sock"
    async with (
        proxy(place, front) as to_engine,
        own_world(broker, docker_host, tmp_path, docker_url=f"unix://{front}") as world,
    ):
        await world.run_tenant("unseen")
        world.docker.run("kill", world.container("unseen"))
        # It is started again then, and looked at a second later: has it lasted?
        await world.subscriber.expect("unseen", state="stopped", reason="stopped_externally")

        to_engine.cut()
        await asyncio.sleep(5)
        meanwhile, told = world.subscriber.summary("unseen"), await world.consumer.status("unseen")
        to_engine.mend()
        await world.subscriber.expect("unseen", state="running", reason="restarted")

        assert meanwhile == [("running", "started"), ("stopped", "stopped_externally")]
        assert told["stale"] is True


async def test_the_consumer_is_killed_amid_ten_creations(world: World) -> None:
    """SIGKILL in the middle, several times over: nothing is lost and nothing is doubled."""
    tenants = [f"torn-{number}" for number in range(10)]
    for tenant in tenants:
        await world.publisher.create(make_document(tenant))

    for moment in (0.15, 0.4, 0.8):
        await asyncio.sleep(moment)
        world.consumer.restart()
    for tenant in tenants:
        await world.subscriber.expect(tenant, state="running", timeout=60)

    await assert_true_to_the_last(world, tenants)
    for tenant in tenants:
        assert world.subscriber.statuses(tenant)[-1]["state"] == "running"
    assert len(world.docker.containers(world.names.label)) == 10
    assert await world.clients.backlog() == 0


async def test_what_happened_while_the_consumer_was_down_is_told(world: World) -> None:
    """After a restart, what was removed meanwhile is told and made again; the rest is untouched."""
    kept = await world.run_tenant("kept")
    await world.run_tenant("gone")

    world.consumer.kill()
    world.docker.run("rm", "-f", world.container("gone"))
    await world.publisher.create(make_document("new"))
    world.consumer.start()

    await world.subscriber.expect("gone", state="failed", reason="missing")
    await world.subscriber.expect("gone", state="running")
    await world.subscriber.expect("new", state="running")
    assert world.subscriber.summary("kept") == [("running", "started")]
    assert world.inspect("kept", ".Id") == kept["container"]["id"]  # type: ignore[index]  # a dict


async def test_a_graceful_stop_drains_and_ends_well(world: World) -> None:
    """SIGTERM lets passes finish, sends what was committed, and exits 0; containers run on."""
    await world.run_tenant("stays")
    await world.publisher.create(make_document("last"))
    await asyncio.sleep(0.3)

    code = world.consumer.terminate()

    assert code == 0
    assert world.inspect("stays", ".State.Running") is True
    world.consumer.start()
    await world.subscriber.expect("last", state="running")
    assert len(world.containers("last")) == 1


@contextmanager
def leaked_mount(root: Path) -> Iterator[None]:
    """Have the engine lose sight of a container's root, as after its death and a new start.

    A new mount over the folder of all roots hides it; it can neither be reached nor be removed.
    """
    every_root = root.parent.parent
    subprocess.run(("mount", "--bind", every_root, every_root), check=True, timeout=60)
    try:
        yield
    finally:
        for place in (every_root, root):
            subprocess.run(("umount", "-l", place), check=True, timeout=60)


async def test_a_container_that_the_engine_cannot_remove_holds_up_nothing(
    broker: Broker, docker_host: DockerHost, tmp_path: Path
) -> None:
    """The tenant gets its update; what is left is out of the way, and goes once the host is well.

    An engine that was killed may leave such a container: it lost sight of a mount.
    """
    async with own_world(broker, docker_host, tmp_path, RECONCILE__RESYNC_SECONDS="2") as world:
        await world.run_tenant("stuck")
        old = world.containers("stuck")
        with leaked_mount(Path(str(world.inspect("stuck", ".GraphDriver.Data.MergedDir")))):
            document = make_document("stuck", container={"env": {"VERSION": "2"}})
            event_id = await world.publisher.update(document)
            status = await world.subscriber.expect("stuck", event_id=event_id)
            (dead,) = (it for it in world.containers("stuck") if it in old)
            state = world.docker.inspect(dead, ".State.Status")
            name = str(world.docker.inspect(dead, ".Name"))
            running = world.inspect("stuck", ".State.Running")
        await until(lambda: dead not in world.containers("stuck"))

        assert (status["state"], status["reason"]) == ("running", "updated")
        assert state in ("dead", "removing")  # it is tried again and again
        assert "-discarded-" in name
        assert running is True
        await assert_true_to_the_last(world, ["stuck"])
