"""The newest intention wins at once: it waits behind nothing that is still under way."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from deploy.lab.servers import Broker, DockerHost
from tests.e2e.broker_clients import Status
from tests.e2e.world import World, make_document, own_world, shell, until
from tests.faults.proxy import Fate, Request, proxy

pytestmark = [pytest.mark.docker, pytest.mark.rabbitmq]

SOON_SECONDS = 2.0
RETRY_SECONDS = 60
"""Longer than any test waits: who is answered sooner has not waited for a retry."""
GRACE_SECONDS = 5
BURST = 24


@pytest.fixture
async def world(broker: Broker, docker_host: DockerHost, tmp_path: Path) -> AsyncIterator[World]:
    """Give a consumer that is slow to try again."""
    patient = {"RECONCILE__RETRY_MIN_SECONDS": str(RETRY_SECONDS)}
    async with own_world(broker, docker_host, tmp_path, **patient) as around:
        yield around


@asynccontextmanager
async def mute_registry(host: DockerHost) -> AsyncIterator[tuple[str, asyncio.Event]]:
    """Give an image at a registry that never says a word, and what is set once it is asked."""
    is_asked, is_over = asyncio.Event(), asyncio.Event()

    async def take(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        is_asked.set()
        await is_over.wait()
        writer.transport.abort()

    listening = host.listen()
    server = await asyncio.start_server(take, sock=listening)
    try:
        yield f"127.0.0.1:{listening.getsockname()[1]}/web:1", is_asked
    finally:
        server.close()
        is_over.set()
        await asyncio.sleep(0.05)


async def answer_in_time(
    world: World, tenant_id: str, event_id: str, *, seconds: float = SOON_SECONDS
) -> Status:
    """Return the event's answer, which has to come within so many seconds."""
    return await world.subscriber.expect(tenant_id, event_id=event_id, timeout=seconds)


async def test_a_delete_overtakes_a_running_pull(world: World, docker_host: DockerHost) -> None:
    """While the registry keeps silent, the tenant is gone at once."""
    async with mute_registry(docker_host) as (image, is_asked):
        await world.publisher.create(make_document("pulling", container={"image": image}))
        await asyncio.wait_for(is_asked.wait(), 20)

        event_id = await world.publisher.tell("deleted", "pulling")
        status = await answer_in_time(world, "pulling", event_id)

    assert (status["state"], status["reason"]) == ("stopped", "deleted")
    assert world.subscriber.summary("pulling") == [("stopped", "deleted")]
    assert world.containers("pulling") == []


async def test_an_update_overtakes_a_running_pull(world: World, docker_host: DockerHost) -> None:
    """While the registry keeps silent, a document with another image is applied at once."""
    async with mute_registry(docker_host) as (image, is_asked):
        await world.publisher.create(make_document("mended", container={"image": image}))
        await asyncio.wait_for(is_asked.wait(), 20)

        event_id = await world.publisher.update(make_document("mended"))
        status = await answer_in_time(world, "mended", event_id)

    assert (status["state"], status["reason"]) == ("running", "started")
    assert world.subscriber.summary("mended") == [("running", "started")]
    assert len(world.containers("mended")) == 1


def is_waited_for(world: World, tenant_id: str) -> bool:
    """Whether the tenant's container serves, and nobody knows yet whether it is well."""
    if not world.serves(tenant_id):
        return False
    return world.inspect(tenant_id, ".State.Health.Status") == "starting"


async def test_a_delete_overtakes_the_wait_for_health(world: World) -> None:
    """A container that is not yet healthy is not waited for."""
    check = {"test": ["CMD", "false"], "interval_seconds": 1, "start_period_seconds": 120}
    await world.publisher.create(make_document("sickly", container={"healthcheck": check}))
    await until(lambda: is_waited_for(world, "sickly"))

    event_id = await world.publisher.tell("deleted", "sickly")
    status = await answer_in_time(world, "sickly", event_id)

    assert status["reason"] == "deleted"
    assert world.subscriber.summary("sickly") == [("stopped", "deleted")]
    assert world.containers("sickly") == []


@pytest.mark.parametrize("kind", ["deleted", "updated"])
async def test_nothing_waits_behind_a_backoff(world: World, kind: str) -> None:
    """Though the next try is a minute away, a new event is acted on at once."""
    tenant = f"held-{kind}"
    never = {"pull_policy": "never"}
    missing = {"image": "landlord-test/not-there:1"}
    document = make_document(tenant, container=missing, provider_config=never)
    await world.publisher.create(document)
    held = await world.subscriber.expect(tenant, state="failed", will_retry=True)

    event_id = await world.publisher.publish(kind, make_document(tenant))
    status = await answer_in_time(world, tenant, event_id)

    assert held["reason"] == "image_not_found"
    assert status["state"] == {"deleted": "stopped", "updated": "running"}[kind]


async def test_a_delete_overtakes_an_update_that_is_stopping(world: World) -> None:
    """The stop under way is the delete's own; nothing new is started, no second grace given."""
    stubborn = shell("trap '' TERM; while :; do sleep 1; done")
    slow = {"stop_grace_seconds": GRACE_SECONDS}
    await world.run_tenant("stubborn", container=stubborn, provider_config=slow)
    began = time.monotonic()
    await world.publisher.update(make_document("stubborn", provider_config=slow))
    await until(lambda: len(world.containers("stubborn")) == 2, seconds=GRACE_SECONDS - 1)

    event_id = await world.publisher.tell("deleted", "stubborn")
    left = GRACE_SECONDS + SOON_SECONDS - (time.monotonic() - began)
    status = await answer_in_time(world, "stubborn", event_id, seconds=left)

    assert status["reason"] == "deleted"
    assert world.subscriber.summary("stubborn") == [("running", "started"), ("stopped", "deleted")]
    assert world.containers("stubborn") == []


async def test_an_hours_grace_period_ends_with_a_newer_intention(world: World) -> None:
    """A suspension gave it an hour; who is to go, or to run again, is given ten seconds more."""
    stubborn = shell("trap '' TERM; while :; do sleep 1; done")
    an_hour = {"stop_grace_seconds": 3600}
    for tenant in ("to-go", "to-stay"):
        await world.run_tenant(tenant, container=stubborn, provider_config=an_hour)
        await world.publisher.tell("suspended", tenant)
    container = world.inspect("to-stay", ".Id")
    await asyncio.sleep(1.5)

    deletion = await world.publisher.tell("deleted", "to-go")
    resumption = await world.publisher.tell("resumed", "to-stay")
    deleted = await answer_in_time(world, "to-go", deletion, seconds=15)
    resumed = await answer_in_time(world, "to-stay", resumption, seconds=15)

    assert (deleted["reason"], world.containers("to-go")) == ("deleted", [])
    assert (resumed["state"], resumed["reason"]) == ("running", "resumed")
    assert world.subscriber.summary("to-stay") == [("running", "started"), ("running", "resumed")]
    assert world.inspect("to-stay", ".Id") == container


def removals(world: World, tenant_id: str) -> int:
    """Return how many containers of the tenant the engine has removed lately."""
    told = world.docker.run(
        *("events", "--since", "1m", "--until", "0s", "--filter", "event=destroy"),
        *("--filter", f"label={world.names.prefix}.tenant_id={tenant_id}"),
    )
    return len(told.splitlines())


async def test_a_delete_does_not_wait_for_a_creation_that_hangs(
    broker: Broker, docker_host: DockerHost, tmp_path: Path
) -> None:
    """It is answered while the engine does not answer; what is made in the end is removed."""
    place = tmp_path / "engine.sock"

    async def judge(request: Request) -> Fate:
        return Fate.HOLD if "/containers/create" in request.path else Fate.PASS

    async with (
        proxy(Path(docker_host.url.removeprefix("unix://")), place) as line,
        own_world(broker, docker_host, tmp_path, docker_url=f"unix://{place}") as world,
    ):
        line.judge = judge
        await world.publisher.create(make_document("hung"))
        await asyncio.wait_for(line.held.wait(), 20)

        event_id = await world.publisher.tell("deleted", "hung")
        status = await answer_in_time(world, "hung", event_id, seconds=4)
        line.mend()
        await until(lambda: removals(world, "hung") == 1)

        assert status["reason"] == "deleted"
        assert world.containers("hung") == []
        assert world.subscriber.summary("hung") == [("stopped", "deleted")]


async def test_a_successor_that_is_made_too_late_is_no_stranger(
    broker: Broker, docker_host: DockerHost, tmp_path: Path
) -> None:
    """The tenant was deleted and made anew meanwhile: it has one container, and can be updated."""
    place = tmp_path / "engine.sock"

    async def judge(request: Request) -> Fate:
        is_held = "/containers/create" in request.path and "successor" in request.path
        return Fate.HOLD if is_held else Fate.PASS

    async with (
        proxy(Path(docker_host.url.removeprefix("unix://")), place) as line,
        own_world(broker, docker_host, tmp_path, docker_url=f"unix://{place}") as world,
    ):
        await world.run_tenant("acme")
        line.judge = judge
        await world.publisher.update(make_document("acme", container={"env": {"N": "1"}}))
        await asyncio.wait_for(line.held.wait(), 20)

        await world.delete_tenant("acme")
        await world.publisher.create(make_document("acme", container={"env": {"N": "2"}}))
        await world.subscriber.expect("acme", state="running", reason="started")
        line.mend()
        await until(lambda: removals(world, "acme") == 2)
        left = world.containers("acme")
        await world.publisher.update(make_document("acme", container={"env": {"N": "3"}}))
        updated = await world.subscriber.expect("acme", reason="updated")

        assert len(left) == 1
        assert updated["state"] == "running"


async def test_a_burst_of_one_holds_up_nobody_else(world: World) -> None:
    """A delete that comes after many creations is answered while most of them still wait."""
    await world.run_tenant("bystander")
    burst = [f"burst-{number}" for number in range(BURST)]

    await asyncio.gather(*(world.publisher.create(make_document(name)) for name in burst))
    await world.delete_tenant("bystander")
    made_before = sum(bool(world.subscriber.statuses(name)) for name in burst)
    for name in burst:
        await world.subscriber.expect(name, state="running", timeout=120)

    assert made_before < BURST / 2
