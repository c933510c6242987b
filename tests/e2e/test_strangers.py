"""What carries our labels without having been made by us costs no tenant its container."""

import json
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from deploy.lab.servers import Broker, DockerHost
from tests.e2e.commands import command
from tests.e2e.world import World, make_document, own_world, until
from tests.faults.proxy import Fate, Request, proxy

pytestmark = [pytest.mark.docker, pytest.mark.rabbitmq, pytest.mark.timeout(120)]

RESYNC = {"RECONCILE__RESYNC_SECONDS": "1"}


@pytest.fixture
async def world(broker: Broker, docker_host: DockerHost, tmp_path: Path) -> AsyncIterator[World]:
    """Give a consumer of the test's own, which looks at the whole engine every second."""
    async with own_world(broker, docker_host, tmp_path, **RESYNC) as around:
        yield around


@contextmanager
def committed(world: World, tenant_id: str) -> Iterator[str]:
    """Give an image of the tenant's container, as `docker commit` makes it, labels included."""
    image = f"{world.names.prefix}-copy:1"
    world.docker.run("commit", world.container(tenant_id), image)
    try:
        yield image
    finally:
        world.docker.run("rmi", "-f", image)


def run_copy(world: World, image: str, *options: str) -> str:
    """Run a container of the image by hand; return its id."""
    return world.docker.run("run", "-d", *options, image)


def traces(world: World, container: str) -> tuple[object, object, object]:
    """Return what would differ if somebody had touched the container."""
    parts = (world.docker.inspect(container, part) for part in (".Id", ".Name", ".State"))
    identity, name, state = parts
    return identity, name, state


def check_containers(world: World, folder: Path) -> dict[str, str]:
    """Return what `check` says of the containers beside the running consumer, by outcome."""
    settings = world.names.environment(
        broker_url="amqp://127.0.0.1:1", docker_host=world.host.url, folder=folder, http_port=0
    )
    done = command("check", "--json", folder=folder, **settings)
    told = [json.loads(line) for line in done.stdout.splitlines()]
    return {it["outcome"]: it["message"] for it in told if it["name"] == "containers"}


async def resynced(world: World) -> None:
    """Wait until the consumer has compared the whole engine with its ledger once more."""
    name = "landlord_last_resync_timestamp_seconds"
    before = await world.consumer.metric(name)

    async def is_newer() -> bool:
        return await world.consumer.metric(name) > before

    await until(is_newer)


async def test_a_copy_of_a_container_costs_its_tenant_nothing(world: World, tmp_path: Path) -> None:
    """Neither looking, nor an update, nor a stop or a delete takes the one for the other."""
    await world.run_tenant("acme")
    with committed(world, "acme") as image:
        original = traces(world, world.container("acme"))

        copy = run_copy(world, image)
        await resynced(world)
        await resynced(world)
        was = traces(world, copy)
        is_kept = traces(world, world.container("acme")) == original
        strangers = await world.consumer.metric("landlord_strangers")
        checked = check_containers(world, tmp_path)
        await world.publisher.update(make_document("acme", container={"env": {"NEW": "1"}}))
        updated = await world.subscriber.expect("acme", reason="updated")
        await world.publisher.tell("suspended", "acme")
        suspended = await world.subscriber.expect("acme", reason="suspended")
        deleted = await world.delete_tenant("acme")
        left = world.containers("acme")

        assert (is_kept, strangers) == (True, 1)
        assert checked == {
            "ok": "1 with our labels were made by this ledger's consumer",
            "warning": "1 have our labels and were not made by us; they are left alone",
        }
        assert updated["container"]["id"] != copy  # type: ignore[index]  # JSON
        assert suspended["state"] == "stopped"
        assert (deleted["reason"], left) == ("deleted", [copy])
        assert traces(world, copy) == was
    told = [line for line in world.consumer.log_lines() if line.get("container_id") == copy]
    assert len(told) == 1


async def test_a_copy_that_the_engine_cannot_tell_of_costs_its_tenant_nothing(
    broker: Broker, docker_host: DockerHost, tmp_path: Path
) -> None:
    """A start of it that hangs, for instance, has the engine answer no question about it."""
    place, copies = tmp_path / "engine.sock", set[str]()

    async def judge(request: Request) -> Fate:
        return Fate.HOLD if any(copy in request.path for copy in copies) else Fate.PASS

    async with (
        proxy(Path(docker_host.url.removeprefix("unix://")), place) as line,
        own_world(broker, docker_host, tmp_path, docker_url=f"unix://{place}") as world,
    ):
        line.judge = judge
        await world.run_tenant("acme")
        with committed(world, "acme") as image:
            copies.add(run_copy(world, image))
            await world.publisher.update(make_document("acme", container={"env": {"N": "1"}}))
            updated = await world.subscriber.expect("acme", reason="updated")
            deleted = await world.delete_tenant("acme")
            left = set(world.containers("acme"))
            world.docker.run("rm", "-f", *copies)

    assert (updated["state"], deleted["reason"], left) == ("running", "deleted", copies)


async def test_a_copy_in_the_containers_place_is_left_there(world: World) -> None:
    """Who removes the original and names a copy like it has made a conflict, told as one."""
    await world.run_tenant("acme")
    with committed(world, "acme") as image:
        world.consumer.pause()
        world.docker.run("rm", "-f", world.container("acme"))
        copy = run_copy(world, image, "--name", world.container("acme"))
        world.consumer.resume()
        failed = await world.subscriber.expect("acme", state="failed", reason="name_conflict")
        was = traces(world, copy)
        world.docker.run("rename", copy, f"{world.names.prefix}-elsewhere")
        restarted = await world.subscriber.expect("acme", state="running", timeout=30)

        assert copy[:12] in str(failed["message"])
        assert traces(world, copy)[2] == was[2]
        assert restarted["container"]["id"] != copy  # type: ignore[index]  # JSON


async def test_labels_alone_make_no_tenant(world: World) -> None:
    """A container labelled by another consumer's tenant is not adopted, also not with a restart."""
    prefix = world.names.prefix
    await world.run_tenant("real")
    labels = {
        f"{prefix}.tenant_id": "forged",
        f"{prefix}.instance": prefix,
        f"{prefix}.spec": "0" * 16,
        f"{prefix}.owner": prefix,
    }
    options = (word for key, value in labels.items() for word in ("--label", f"{key}={value}"))
    image = str(world.inspect("real", ".Config.Image"))

    forged = run_copy(world, image, *options, "--name", f"{prefix}-of-somebody-else")
    was = traces(world, forged)
    await resynced(world)
    await resynced(world)
    code, _ = await world.consumer.http_get("/tenants/forged/compute/status")

    assert code == 404
    assert traces(world, forged) == was
