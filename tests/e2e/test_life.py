"""A tenant's life, as the contract tells it: created, updated, suspended, resumed, deleted."""

import asyncio
from pathlib import Path
from uuid import uuid4

import pytest

from deploy.lab.docker_cli import DockerCli
from deploy.lab.servers import Broker, DockerHost
from tests.conftest import WEB
from tests.e2e.consumer_process import get
from tests.e2e.world import World, make_document, own_world, shell

pytestmark = [pytest.mark.docker, pytest.mark.rabbitmq]


async def test_a_tenant_lives_and_goes(world: World) -> None:
    """Created, it runs and its port answers; its status can be asked; deleted, nothing is left."""
    ports = [{"name": "http", "container_port": 8080, "host_port": 8081}]

    running = await world.run_tenant("life", container={"ports": ports})
    page = await world.fetch(8081)
    told = await world.consumer.status("life")
    stopped = await world.delete_tenant("life")

    assert running["reason"] == "started"
    assert page == "hello\n"
    assert {"state": "running", "desired": "running", "stale": False}.items() <= told.items()
    assert told["container"] == running["container"]
    assert stopped["reason"] == "deleted"
    assert world.containers("life") == []


async def test_status_tells_what_the_engine_has(world: World) -> None:
    """Ids, image and ports in the status are the engine's own (checklist 33, 41, 42)."""
    ports = [{"name": "http", "container_port": 8080, "host_port": 8082}]

    status = await world.run_tenant("told", container={"ports": ports})

    container = status["container"]
    assert isinstance(container, dict)
    assert container["id"] == world.inspect("told", ".Id")
    assert container["image_id"] == world.inspect("told", ".Image")
    assert (container["image"], container["name"]) == (WEB, world.container("told"))
    assert status["ports"] == [
        {
            "name": "http",
            "container_port": 8080,
            "host_ip": "0.0.0.0",
            "host_port": 8082,
            "protocol": "tcp",
        }
    ]


async def test_status_events_carry_the_promised_properties(world: World) -> None:
    """Message properties and CloudEvents attributes are there; the correlation id is carried."""
    document = make_document("props", generation=7)
    event_id = await world.publisher.create(document)

    heard = await world.subscriber.expect_message("props", state="running")

    message = heard.message
    assert heard.status["event_id"] == event_id
    assert heard.status["generation"] == 7
    assert message.routing_key == message.type == "tenant.status.running"
    assert (message.content_type, message.delivery_mode) == ("application/json", 2)
    assert message.message_id
    assert message.headers["cloudEvents:id"] == f"props/{heard.status['sequence']}"
    assert message.headers["cloudEvents:specversion"] == "1.0"
    assert message.headers["cloudEvents:type"] == "tenant.status.running"
    assert message.headers["cloudEvents:subject"] == message.headers["tenant_id"] == "props"


async def test_created_again_and_again_makes_one_container(world: World) -> None:
    """Five deliveries with equal and different ids make one container (checklist 1, 21, 52)."""
    document = make_document("again")
    shared = str(uuid4())
    for message_id in (shared, shared, "fresh", "fresh", "fresh"):
        await world.publisher.publish("created", document, message_id=message_id)
    last = await world.publisher.create(document)

    await world.subscriber.expect("again", state="running", event_id=last)

    assert len(world.containers("again")) == 1
    assert world.inspect("again", ".RestartCount") == 0


async def test_ten_creations_at_once_make_ten_containers(world: World) -> None:
    """Tenants do not wait for one another, and each gets its own container."""
    tenants = [f"many-{number}" for number in range(10)]
    for tenant in tenants:
        await world.publisher.create(make_document(tenant))

    for tenant in tenants:
        await world.subscriber.expect(tenant, state="running", timeout=60)

    assert [len(world.containers(tenant)) for tenant in tenants] == [1] * 10


async def test_an_equal_update_touches_nothing(world: World) -> None:
    """A document with the same meaning is answered `unchanged`; the container is left alone."""
    env = {"B": "2", "A": "1"}
    before = await world.run_tenant("equal", container={"env": env})
    shuffled = {"env": dict(sorted(env.items())), "command": [], "ports": []}

    event_id = await world.publisher.update(make_document("equal", container=shuffled))
    after = await world.subscriber.expect("equal", event_id=event_id)

    assert (after["state"], after["reason"]) == ("running", "unchanged")
    assert after["container"] == before["container"]


async def test_an_update_replaces_the_container(world: World) -> None:
    """A different document makes a new container, tells what changed, and leaves no old one."""
    before = await world.run_tenant("changing", container={"env": {"A": "1"}})

    event_id = await world.publisher.update(
        make_document("changing", container={"env": {"A": "2"}})
    )
    after = await world.subscriber.expect("changing", event_id=event_id)

    assert (after["state"], after["reason"], after["changes"]) == ("running", "updated", ["env"])
    assert before["container"] != after["container"]
    assert len(world.containers("changing")) == 1
    assert "A=2" in str(world.inspect("changing", ".Config.Env"))


async def test_a_second_update_is_recorded_too(world: World) -> None:
    """Updates follow one another for ever (weakness 33)."""
    await world.run_tenant("twice")
    for value in ("1", "2", "3"):
        event_id = await world.publisher.update(
            make_document("twice", container={"env": {"A": value}})
        )
        status = await world.subscriber.expect("twice", event_id=event_id)
        assert status["reason"] == "updated"

    assert "A=3" in str(world.inspect("twice", ".Config.Env"))


async def test_a_stale_generation_changes_nothing(world: World) -> None:
    """An older or equal generation is passed over, also after a delete."""
    await world.run_tenant("stale", generation=5)
    for generation in (4, 5):
        await world.publisher.update(
            make_document("stale", container={"env": {"A": "old"}}, generation=generation)
        )
    event_id = await world.publisher.publish("deleted", {"tenant_id": "stale", "generation": 6})
    await world.subscriber.expect("stale", state="stopped", event_id=event_id)
    await world.publisher.create(make_document("stale", generation=6))
    await world.run_tenant("stale-fence")

    assert world.subscriber.summary("stale") == [("running", "started"), ("stopped", "deleted")]
    assert world.containers("stale") == []


async def test_a_suspended_tenant_stops_and_resumes(world: World) -> None:
    """Suspended, the container stays and is stopped; resumed, the same one runs again."""
    before = await world.run_tenant("pausing")

    suspend = await world.publisher.tell("suspended", "pausing")
    stopped = await world.subscriber.expect("pausing", event_id=suspend)
    is_running = world.inspect("pausing", ".State.Running")
    resume = await world.publisher.tell("resumed", "pausing")
    resumed = await world.subscriber.expect("pausing", event_id=resume)

    assert (stopped["state"], stopped["reason"]) == ("stopped", "suspended")
    assert not is_running
    assert (resumed["state"], resumed["reason"]) == ("running", "resumed")
    assert [world.inspect("pausing", ".Id")] == world.containers("pausing")
    assert before["container"]["id"] == world.inspect("pausing", ".Id")  # type: ignore[index]  # a dict


async def test_a_delete_is_idempotent(world: World) -> None:
    """Deleted twice, or never created, or removed by hand: answered `stopped` (checklist 7)."""
    await world.run_tenant("idem")
    await world.delete_tenant("idem")

    again = await world.delete_tenant("idem")
    never = await world.delete_tenant("never-there")

    assert (again["state"], never["state"]) == ("stopped", "stopped")
    assert (again["container"], never["container"]) == (None, None)


@pytest.mark.parametrize("state", ["running", "paused", "exited", "restarting"])
async def test_a_delete_removes_a_container_in_any_state(world: World, state: str) -> None:
    """Nothing of it is left, whatever it was doing."""
    tenant = f"any-{state}"
    restarting = shell("sleep 0.2; exit 1") if state == "restarting" else {}
    await world.publisher.create(make_document(tenant, container=restarting))
    await world.subscriber.expect(tenant)
    if state == "paused":
        world.docker.run("pause", world.container(tenant))
    if state == "exited":
        event_id = await world.publisher.tell("suspended", tenant)
        await world.subscriber.expect(tenant, event_id=event_id)

    status = await world.delete_tenant(tenant)

    assert status["reason"] == "deleted"
    assert world.containers(tenant) == []


async def test_a_delete_leaves_volumes_with_a_name(
    broker: Broker, docker_host: DockerHost, tmp_path: Path
) -> None:
    """They hold what outlives the container; those without a name go with it."""
    image = "landlord-test/volume:1"
    DockerCli(docker_host.url).import_image(image, ('CMD ["/start.sh"]', "VOLUME /nameless"))
    settings = {"COMPUTE__POLICY__VOLUMES": "kept"}
    async with own_world(broker, docker_host, tmp_path, **settings) as world:
        await world.run_tenant(
            "volumes", container={"image": image}, provider_config={"volumes": ["kept:/kept"]}
        )
        template = "{{range .Mounts}}{{.Name}} {{end}}"
        mounted = world.docker.run("inspect", "-f", template, world.container("volumes")).split()

        await world.delete_tenant("volumes")

        left = world.docker.run("volume", "ls", "-q").split()
        world.docker.run("volume", "rm", "kept")
        world.docker.run("rmi", image)
    assert len(mounted) == 2
    assert set(mounted) & set(left) == {"kept"}


async def test_a_delete_takes_a_full_document(world: World) -> None:
    """Services that send the whole document with a delete are understood."""
    await world.run_tenant("whole")

    event_id = await world.publisher.publish("deleted", make_document("whole"))

    await world.subscriber.expect("whole", state="stopped", event_id=event_id)
    assert world.containers("whole") == []


async def test_a_deleted_tenant_may_come_back(world: World) -> None:
    """Created after its delete, it runs again, and its sequence goes on rising."""
    await world.run_tenant("lazarus")
    gone = await world.delete_tenant("lazarus")

    back = await world.run_tenant("lazarus")

    assert (back["state"], back["reason"]) == ("running", "started")
    assert back["sequence"] == gone["sequence"] + 1  # type: ignore[operator]  # an int


async def test_a_delete_overtakes_a_create(world: World) -> None:
    """A delete right behind a create ends with no container and `stopped` as the last word."""
    for _ in range(3):
        await world.publisher.create(make_document("fleeting"))
        await world.delete_tenant("fleeting")
        await asyncio.sleep(0.2)

        assert world.containers("fleeting") == []
        assert world.subscriber.statuses("fleeting")[-1]["state"] == "stopped"


async def test_a_tenant_nobody_knows_is_not_found(world: World) -> None:
    """The status of an unknown tenant is a 404 that says so (checklist 38)."""
    url = f"http://127.0.0.1:{world.consumer.http_port}/tenants/nobody/compute/status"

    code, body = await get(url)

    assert code == 404
    assert '"error": "tenant_not_found"' in body
