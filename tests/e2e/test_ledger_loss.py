"""The ledger is lost: told to take over, a consumer goes on with what the former one made."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path

import pytest

from deploy.lab.servers import Broker, DockerHost
from tests.e2e.commands import command
from tests.e2e.world import World, make_document, own_world, until

pytestmark = [pytest.mark.docker, pytest.mark.rabbitmq, pytest.mark.timeout(180)]

RESYNC_SECONDS = 1
GRACE_SECONDS = 16
"""Longer than a consumer with another ledger waits for the lease of one that was killed."""


@pytest.fixture
async def world(broker: Broker, docker_host: DockerHost, tmp_path: Path) -> AsyncIterator[World]:
    """Give a consumer of the test's own."""
    settings = {"RECONCILE__RESYNC_SECONDS": str(RESYNC_SECONDS)}
    async with own_world(broker, docker_host, tmp_path, **settings) as around:
        yield around


def lose_ledger(world: World, folder: Path) -> None:
    """Have the ledger's file gone at the next start; what SQLite keeps beside it stays."""
    world.consumer.kill()
    (folder / "landlord.db").unlink()


def start_with_a_new_ledger(world: World, folder: Path) -> None:
    """Lose the ledger, and have the next start take over what the former one knew."""
    lose_ledger(world, folder)
    ask_to_take_over(world, folder)
    world.consumer.start()


def ask_to_take_over(world: World, folder: Path) -> str:
    """Run `take-over`; return what it says."""
    settings = world.names.environment(
        broker_url="amqp://nowhere", docker_host=world.host.url, folder=folder, http_port=0
    )
    done = command("take-over", "--yes", folder=folder, **settings)
    assert done.returncode == 0, done.stderr
    return done.stdout


def forget(world: World, folder: Path, tenant_id: str) -> None:
    """Have the ledger not know the tenant, as one restored from an older backup would not."""
    world.consumer.kill()
    with closing(sqlite3.connect(folder / "landlord.db")) as ledger, ledger:
        ledger.execute("DELETE FROM tenants WHERE tenant_id = ?", [tenant_id])


def traces(world: World, tenant_id: str) -> tuple[object, object]:
    """Return what would differ if the container had been touched."""
    return world.inspect(tenant_id, ".Id"), world.inspect(tenant_id, ".State")


async def test_without_a_take_over_nothing_is_touched(world: World, tmp_path: Path) -> None:
    """It is said in the log and to whoever asks for such a tenant; then it is done in one step."""
    await world.run_tenant("kept")
    was = traces(world, "kept")

    lose_ledger(world, tmp_path)
    begin = world.consumer.log_size
    world.consumer.start()
    unknown, _ = await world.consumer.http_get("/tenants/kept/compute/status")
    event_id = await world.publisher.create(make_document("kept"))
    failed = await world.subscriber.expect("kept", event_id=event_id)
    is_untouched = traces(world, "kept") == was
    said = ask_to_take_over(world, tmp_path)
    running = await world.subscriber.expect("kept", state="running")

    (told,) = [
        line
        for line in world.consumer.log_lines(begin=begin)
        if line["event"] == "containers of another ledger left alone"
    ]
    assert (unknown, failed["reason"], is_untouched) == (404, "name_conflict", True)
    assert "landlord-consumer take-over" in str(failed["message"])
    assert told["tenants"] == ["kept"]
    assert "the running consumer does it" in said
    assert running["container"] is not None
    assert traces(world, "kept") == was


async def test_tenants_are_adopted_from_their_labels(world: World, tmp_path: Path) -> None:
    """Who ran runs on untouched, and is told anew with a sequence above the former ones."""
    before = await world.run_tenant("kept")
    was = traces(world, "kept")

    start_with_a_new_ledger(world, tmp_path)
    after = await world.subscriber.expect("kept", state="running", reason="adopted")

    assert after["container"] == before["container"]
    assert int(str(after["sequence"])) > int(str(before["sequence"]))
    assert traces(world, "kept") == was
    assert (await world.consumer.status("kept"))["desired"] == "running"


async def test_a_stopped_container_is_adopted_as_it_is(world: World, tmp_path: Path) -> None:
    """Who was suspended stays so until told to resume."""
    await world.run_tenant("resting")
    event_id = await world.publisher.tell("suspended", "resting")
    await world.subscriber.expect("resting", event_id=event_id)
    was = traces(world, "resting")

    start_with_a_new_ledger(world, tmp_path)
    told = await world.subscriber.expect("resting")
    is_untouched = traces(world, "resting") == was
    await world.publisher.tell("resumed", "resting")
    resumed = await world.subscriber.expect("resting", state="running")

    assert (told["state"], told["reason"], is_untouched) == ("stopped", "suspended", True)
    assert (resumed["reason"], world.inspect("resting", ".Id")) == ("resumed", was[0])


async def test_an_adopted_tenant_can_be_deleted(world: World, tmp_path: Path) -> None:
    """A later delete removes what was adopted, and sequences go on rising."""
    await world.run_tenant("unwanted")

    start_with_a_new_ledger(world, tmp_path)
    adopted = await world.subscriber.expect("unwanted", reason="adopted")
    deleted = await world.delete_tenant("unwanted")

    assert (deleted["reason"], world.containers("unwanted")) == ("deleted", [])
    assert deleted["sequence"] == int(str(adopted["sequence"])) + 1


async def test_an_equal_document_changes_nothing_of_an_adopted_one(
    world: World, tmp_path: Path
) -> None:
    """The same document again is answered with `unchanged`, and the container is not touched."""
    await world.run_tenant("same")
    was = traces(world, "same")

    start_with_a_new_ledger(world, tmp_path)
    await world.subscriber.expect("same", reason="adopted")
    event_id = await world.publisher.update(make_document("same"))
    status = await world.subscriber.expect("same", event_id=event_id)

    assert (status["state"], status["reason"], status["changes"]) == ("running", "unchanged", [])
    assert traces(world, "same") == was


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"container": {"env": {"NEW": "1"}}}, id="replaced"),
        pytest.param({"resources": {"cpu": 100, "memory": 48}}, id="in place"),
    ],
)
async def test_another_document_updates_an_adopted_one(
    world: World, tmp_path: Path, change: dict[str, dict[str, object]]
) -> None:
    """What had to be changed is told as `updated`, never as if nothing had been."""
    await world.run_tenant("other")

    start_with_a_new_ledger(world, tmp_path)
    await world.subscriber.expect("other", reason="adopted")
    event_id = await world.publisher.update(make_document("other", **change))
    status = await world.subscriber.expect("other", event_id=event_id)

    assert (status["state"], status["reason"]) == ("running", "updated")
    assert len(world.containers("other")) == 1


async def test_another_instances_containers_are_left_alone(
    world: World, broker: Broker, docker_host: DockerHost, tmp_path: Path
) -> None:
    """With the same label prefix, neither a lost ledger nor a delete reaches the neighbour's."""
    folder = tmp_path / "neighbour"
    folder.mkdir()
    await world.run_tenant("ours")
    was = traces(world, "ours")
    prefix = {"COMPUTE__DOCKER__LABEL_PREFIX": world.names.prefix}

    async with own_world(broker, docker_host, folder, **prefix) as neighbour:
        await neighbour.run_tenant("theirs")
        start_with_a_new_ledger(neighbour, folder)
        await neighbour.subscriber.expect("theirs", reason="adopted")
        unknown, _ = await neighbour.consumer.http_get("/tenants/ours/compute/status")
        deleted = await neighbour.delete_tenant("ours")
        await neighbour.publisher.create(make_document("ours"))
        taken = await neighbour.subscriber.expect("ours", state="failed")

    assert (unknown, deleted["container"], taken["reason"]) == (404, None, "name_conflict")
    assert f"that of tenant ours of instance '{world.names.prefix}'" in str(taken["message"])
    assert traces(world, "ours") == was
    assert world.subscriber.summary("ours") == [("running", "started")]


async def test_orphans_of_another_instance_are_not_removed(
    world: World, broker: Broker, docker_host: DockerHost, tmp_path: Path
) -> None:
    """Who removes orphans removes its own."""
    folder = tmp_path / "neighbour"
    folder.mkdir()
    await world.run_tenant("ours")
    was = traces(world, "ours")

    async with own_world(
        broker,
        docker_host,
        folder,
        **rule("remove", grace_seconds=1),
        COMPUTE__DOCKER__LABEL_PREFIX=world.names.prefix,
    ) as neighbour:
        await neighbour.run_tenant("theirs")
        forget(neighbour, folder, "theirs")
        neighbour.consumer.start()
        await until_gone(world, "theirs")

    assert traces(world, "ours") == was


def rule(orphans: str, *, grace_seconds: float = GRACE_SECONDS) -> dict[str, str]:
    """Return the settings of a consumer that treats orphans so, and looks often."""
    return {
        "RECONCILE__ORPHANS": orphans,
        "RECONCILE__RESYNC_SECONDS": str(RESYNC_SECONDS),
        "RECONCILE__ORPHAN_GRACE_SECONDS": str(grace_seconds),
    }


async def until_gone(world: World, tenant_id: str) -> None:
    """Wait until the tenant has no container."""
    await until(lambda: not world.containers(tenant_id), seconds=GRACE_SECONDS + 10)


async def test_orphans_are_removed_after_a_grace_where_set(
    broker: Broker, docker_host: DockerHost, tmp_path: Path
) -> None:
    """`remove` waits for the grace, then removes, and nobody is told of a tenant not known."""
    async with own_world(broker, docker_host, tmp_path, **rule("remove")) as world:
        await world.run_tenant("orphan")
        was = traces(world, "orphan")
        forget(world, tmp_path, "orphan")

        world.consumer.start()
        is_spared = traces(world, "orphan") == was
        await until_gone(world, "orphan")
        unknown, _ = await world.consumer.http_get("/tenants/orphan/compute/status")

        assert (is_spared, unknown) == (True, 404)
        assert world.subscriber.summary("orphan") == [("running", "started")]


async def test_orphans_are_ignored_where_set(
    broker: Broker, docker_host: DockerHost, tmp_path: Path
) -> None:
    """`ignore` leaves them as they are, until a tenant event names one."""
    async with own_world(broker, docker_host, tmp_path, **rule("ignore")) as world:
        await world.run_tenant("orphan")
        was = traces(world, "orphan")
        forget(world, tmp_path, "orphan")

        world.consumer.start()
        await asyncio.sleep(3 * RESYNC_SECONDS)
        is_untouched = traces(world, "orphan") == was
        unknown, _ = await world.consumer.http_get("/tenants/orphan/compute/status")
        await world.delete_tenant("orphan")

        assert (is_untouched, unknown) == (True, 404)
        assert world.subscriber.summary("orphan")[:1] == [("running", "started")]
        assert world.containers("orphan") == []
