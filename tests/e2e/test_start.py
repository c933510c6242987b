"""The consumer's start and its commands, as a process: what stops it, and how that is told."""

import asyncio
import json
import time
from pathlib import Path

import aio_pika
import aiohttp
import pytest

from deploy.lab.names import remove_names
from deploy.lab.packages import LabError
from deploy.lab.servers import Broker, DockerHost
from tests.contract.brokers import fresh_names
from tests.e2e.commands import command, settings_of
from tests.e2e.consumer_process import ConsumerProcess
from tests.e2e.world import World, examples_of_the_seed, make_document, own_world, until

pytestmark = [pytest.mark.docker, pytest.mark.rabbitmq]

BIDDING_SECONDS = 9.0
"""More than a bid has to stay unanswered, and then some."""


async def test_the_seeds_settings_are_accepted_and_docker_host_wins(
    broker: Broker, docker_host: DockerHost, tmp_path: Path
) -> None:
    """The file as it stands there; the engine's address comes from Docker's own variable."""
    names = fresh_names()
    settings = settings_of(names, broker, docker_host, tmp_path)
    del settings["LANDLORD_COMPUTE__DOCKER__HOST"]
    (tmp_path / "config.yaml").write_bytes(examples_of_the_seed()["config.yaml"])

    done = command("check", "--json", folder=tmp_path, DOCKER_HOST=docker_host.url, **settings)

    told = {line["name"]: line for line in map(json.loads, done.stdout.splitlines())}
    assert done.returncode == 0, done.stdout + done.stderr
    assert told["engine address"]["message"] == f"{docker_host.url} (from DOCKER_HOST), permitted"
    assert docker_host.url in told["engine"]["message"]


def test_wrong_settings_stop_the_start(tmp_path: Path) -> None:
    """One line for each fault, exit code 2."""
    done = command(
        "run", folder=tmp_path, LANDLORD_BROKER__PREFETCHING="1", LANDLORD_HTTP__PORT="many"
    )

    lines = done.stderr.splitlines()
    assert done.returncode == 2
    assert len(lines) == 2
    assert any("LANDLORD_BROKER__PREFETCHING: unknown setting" in line for line in lines)
    assert any("http.port (LANDLORD_HTTP__PORT)" in line for line in lines)


def test_defaults_that_break_the_policy_stop_the_start(tmp_path: Path) -> None:
    """An operator's provider_config that the operator's policy denies would refuse every tenant."""
    config = {"privileged": True, "pids_limit": 4097, "init": True}

    done = command(
        "run", folder=tmp_path, LANDLORD_COMPUTE__DOCKER__PROVIDER_CONFIG=json.dumps(config)
    )

    assert done.returncode == 2
    assert [line.split(": ", 2)[2] for line in done.stderr.splitlines()] == [
        "compute.docker.provider_config.privileged: compute.policy.privileged does not allow it",
        (
            "compute.docker.provider_config.pids_limit: "
            "at most 4096 on this host (compute.policy.max_pids), got 4097"
        ),
    ]


async def test_a_topology_mismatch_stops_the_start(
    broker: Broker, docker_host: DockerHost, tmp_path: Path
) -> None:
    """One line for the operator, exit code 1."""
    names = fresh_names()
    async with await aio_pika.connect(broker.url) as connection:
        channel = await connection.channel()
        await channel.declare_exchange(names.status_exchange, "fanout", durable=True)

    settings = settings_of(names, broker, docker_host, tmp_path)
    done = command("run", folder=tmp_path, **settings)

    told = f"exchange '{names.status_exchange}' exists with type = fanout, wanted is topic"
    assert done.returncode == 1
    assert f"landlord-consumer: {told}" in done.stderr.splitlines()
    await remove_names(broker.url, names)


async def test_a_second_consumer_stands_by_and_takes_over(
    broker: Broker, docker_host: DockerHost, tmp_path: Path
) -> None:
    """The ledger has one owner; whoever comes second says so, and goes on once it is free."""
    async with own_world(broker, docker_host, tmp_path) as world:
        await world.run_tenant("handed-over")
        second = ConsumerProcess(
            names=world.names, broker_url=broker.url, docker_host=docker_host.url, folder=tmp_path
        )
        taking_over = asyncio.create_task(asyncio.to_thread(second.start))
        try:
            unready, said = await answer(second, "/readyz")
            lives, _ = await second.http_get("/healthz")
            stands_by = await second.metric("landlord_standing_by")
            told = await first_event(second)
            world.consumer.kill()
            await taking_over
            stands_by_still = await second.metric("landlord_standing_by")
            status = await second.status("handed-over")
            event_id = await world.publisher.tell("deleted", "handed-over")
            await world.subscriber.expect("handed-over", event_id=event_id, state="stopped")
        finally:
            second.kill()

    assert (unready, lives, status["state"]) == (503, 200, "running")
    assert "standing by: another consumer owns the ledger" in said
    assert (stands_by, stands_by_still) == (1, 0)
    assert "standing by: another consumer owns the ledger" in told


async def test_a_second_consumer_with_the_same_settings_says_what_is_taken(
    broker: Broker, docker_host: DockerHost, tmp_path: Path
) -> None:
    """It cannot even stand by, and tells so in one sentence."""
    async with own_world(broker, docker_host, tmp_path) as world:
        settings = settings_of(world.names, broker, docker_host, tmp_path)
        settings["LANDLORD_HTTP__PORT"] = str(world.consumer.http_port)
        told = await asyncio.to_thread(command, "run", folder=tmp_path, **settings)

    assert told.returncode == 1
    assert "cannot listen on http 127.0.0.1:" in told.stderr
    assert "Traceback" not in told.stderr


async def first_event(consumer: ConsumerProcess) -> str:
    """Return the first of the events that its page lives on."""
    url = f"http://127.0.0.1:{consumer.http_port}/events"
    async with aiohttp.ClientSession() as session, session.get(url) as response:
        assert response.status == 200
        return (await response.content.readuntil(b"\n\n")).decode()


async def test_one_consumer_for_an_instance_on_an_engine(
    broker: Broker, docker_host: DockerHost, tmp_path: Path
) -> None:
    """Of two with ledgers of their own, the second stands by, and works once the first is gone.

    It adopts what the first one made, since it was told to where its ledger is empty.
    """
    async with own_world(broker, docker_host, tmp_path) as world:
        await world.run_tenant("one-holder")
        container = world.inspect("one-holder", ".Id")
        (elsewhere := tmp_path / "elsewhere").mkdir()
        second = ConsumerProcess(
            names=world.names,
            broker_url=broker.url,
            docker_host=docker_host.url,
            folder=elsewhere,
            settings={"LEDGER__ADOPT_ON_EMPTY": "true"},
        )
        taking_over = asyncio.create_task(asyncio.to_thread(second.start))
        try:
            unready, said = await answer(second, "/readyz")
            lives, _ = await second.http_get("/healthz")
            await asyncio.sleep(BIDDING_SECONDS)
            still_first, _ = await world.consumer.http_get("/readyz")
            has_taken_over_early = taking_over.done()
            world.consumer.kill()
            died_at = time.monotonic()
            await taking_over
            took_seconds = time.monotonic() - died_at
            await world.subscriber.expect("one-holder", state="running", reason="adopted")
            is_same = world.inspect("one-holder", ".Id") == container
            event_id = await world.publisher.tell("deleted", "one-holder")
            await world.subscriber.expect("one-holder", event_id=event_id, state="stopped")
        finally:
            second.kill()

    assert (unready, lives, still_first, has_taken_over_early) == (503, 200, 200, False)
    assert "standing by: another consumer holds the lease of this instance" in said
    assert is_same
    assert took_seconds < 15


async def test_a_holder_that_was_replaced_stands_by(
    broker: Broker, docker_host: DockerHost, tmp_path: Path
) -> None:
    """One that was stopped for too long comes back, finds another in its place, and yields."""
    async with own_world(broker, docker_host, tmp_path) as world:
        (elsewhere := tmp_path / "elsewhere").mkdir()
        second = ConsumerProcess(
            names=world.names, broker_url=broker.url, docker_host=docker_host.url, folder=elsewhere
        )
        world.consumer.pause()
        try:
            await asyncio.to_thread(second.start)
            world.consumer.resume()
            await asyncio.to_thread(world.consumer.wait_for_log, "lease lost", timeout=20)
            await until(lambda: answers_with(world.consumer, "/readyz", 503))
            ready, _ = await second.http_get("/readyz")
        finally:
            second.kill()

    assert ready == 200


async def answers_with(consumer: ConsumerProcess, path: str, wanted: int) -> bool:
    """Whether it answers with this code; while it changes roles, nobody listens."""
    try:
        code, _ = await consumer.http_get(path)
    except aiohttp.ClientConnectionError:
        return False
    return code == wanted


async def test_a_standby_stops_when_told(
    broker: Broker, docker_host: DockerHost, tmp_path: Path
) -> None:
    """SIGTERM ends it at once, exit code 0, and the owner is not disturbed."""
    async with own_world(broker, docker_host, tmp_path) as world:
        second = ConsumerProcess(
            names=world.names, broker_url=broker.url, docker_host=docker_host.url, folder=tmp_path
        )
        starting = asyncio.create_task(asyncio.to_thread(second.start))
        await answer(second, "/healthz")
        code = await asyncio.to_thread(second.terminate)
        with pytest.raises(LabError):
            await starting

        assert code == 0
        assert (await world.consumer.http_get("/readyz"))[0] == 200


async def answer(consumer: ConsumerProcess, path: str) -> tuple[int, str]:
    """Return what it answers, once it listens."""
    deadline = time.monotonic() + 20
    while True:
        try:
            return await consumer.http_get(path)
        except aiohttp.ClientConnectionError:
            assert time.monotonic() < deadline, "it never listened"
            await asyncio.sleep(0.05)


async def test_tenants_can_be_worked_with_from_the_command_line(
    world: World, broker: Broker, docker_host: DockerHost, tmp_path: Path
) -> None:
    """Publish, tenants and status on real servers."""
    settings = settings_of(world.names, broker, docker_host, tmp_path)
    settings["LANDLORD_HTTP__PORT"] = str(world.consumer.http_port)
    document = json.dumps(make_document("by-hand"))

    published = command("publish", "created", "-", folder=tmp_path, stdin=document, **settings)
    await world.subscriber.expect("by-hand", state="running")
    listed = command("tenants", "--json", folder=tmp_path, **settings)
    shown = command("status", "by-hand", folder=tmp_path, **settings)

    assert (published.returncode, listed.returncode, shown.returncode) == (0, 0, 0)
    assert "by-hand" in [json.loads(line)["tenant_id"] for line in listed.stdout.splitlines()]
    assert json.loads(shown.stdout)["state"] == "running"
