"""Updates without regret: what served goes on serving, whatever becomes of what is to replace it.

A client polls the tenant's published port all the while. Each page names the version that serves.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager

import pytest

from deploy.lab.servers import Broker, DockerHost
from tests.e2e.broker_clients import Status
from tests.e2e.consumer_process import ConsumerProcess
from tests.e2e.polling import Poller, polling
from tests.e2e.world import World, consumer_process, make_document, shell, take_away, until

pytestmark = [pytest.mark.docker, pytest.mark.rabbitmq]

START_TIMEOUT_SECONDS = 8
RETRY_SECONDS = 6
HAND_OVER_SECONDS = 20.0
"""Far more than it takes, and less than a container that stays down."""
UNDECIDED = {"test": ["CMD", "test", "-e", "/ok"], "interval_seconds": 1, "retries": 1}
"""Unhealthy at the first look, unless somebody makes `/ok`."""
PATIENT = {**UNDECIDED, "start_period_seconds": 120}
"""The same, but for two minutes nobody can know."""


@pytest.fixture(scope="module")
def consumer(
    broker: Broker, docker_host: DockerHost, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ConsumerProcess]:
    """Run a consumer that does not wait for health for long, nor hurries to try again."""
    folder = tmp_path_factory.mktemp("consumer")
    seconds = {
        "RECONCILE__START_TIMEOUT_SECONDS": str(START_TIMEOUT_SECONDS),
        "RECONCILE__RETRY_MIN_SECONDS": str(RETRY_SECONDS),
    }
    with consumer_process(broker.url, docker_host.url, folder, **seconds) as process:
        process.start()
        yield process
    asyncio.run(take_away(broker, docker_host, process.names))


def version(number: int, port: int, **container: object) -> dict[str, object]:
    """Return the container of this version, which publishes the port."""
    ports = [{"container_port": 8080, "host_port": port}]
    return {"env": {"VERSION": str(number)}, "ports": ports, **container}


def serves(client: Poller, number: int) -> bool:
    """Whether the last answer came from this version."""
    return f"VERSION={number}\n" in client.last_answer


@asynccontextmanager
async def first_version(
    world: World, tenant: str, port: int, **fields: object
) -> AsyncIterator[tuple[str, Poller]]:
    """Give the container of a tenant that serves its first version, and a client that polls it."""
    status = await world.run_tenant(tenant, container=version(1, port), **fields)
    async with polling(world.host.address, port, "/env") as client:
        await until(lambda: serves(client, 1))
        client.forget()
        yield container_id(status), client
    await world.delete_tenant(tenant)


def container_id(status: Status) -> str:
    """Return the id of the container that the status tells of."""
    container = status["container"]
    assert isinstance(container, dict)
    return str(container["id"])


async def update(world: World, tenant: str, container: object, **fields: object) -> Status:
    """Publish the update and return its answer."""
    assert isinstance(container, Mapping)
    document = make_document(tenant, container=container, **fields)
    event_id = await world.publisher.update(document)
    return await world.subscriber.expect(tenant, event_id=event_id, timeout=30)


@pytest.mark.parametrize(
    ("cause", "container", "words", "will_retry"),
    [
        pytest.param(
            "image_not_found", {"image": "landlord-test/none:1"}, "none:1", True, id="no-image"
        ),
        pytest.param("exited", shell("exit 9"), "code 9", False, id="exits"),
        pytest.param(
            "start_failed", {"command": ["/none"]}, "failed to start container", False, id="command"
        ),
        pytest.param(
            "unhealthy", {"healthcheck": UNDECIDED}, "health check", False, id="unhealthy"
        ),
        pytest.param("start_timeout", {"healthcheck": PATIENT}, "not healthy", False, id="never"),
    ],
)
async def test_a_failed_update_leaves_the_former_version_serving(
    world: World, cause: str, container: dict[str, object], words: str, will_retry: bool
) -> None:
    """It is told and counted with its cause; then a good update takes it out of that."""
    tenant, port = f"regret-{cause}".replace("_", "-"), 8130
    never = {"provider_config": {"pull_policy": "never"}}
    before = await world.consumer.metric("landlord_tenant_failures_total", reason=cause)
    async with first_version(world, tenant, port, **never) as (first, client):
        status = await update(world, tenant, version(2, port, **container), **never)
        told = await world.consumer.status(tenant)
        await until(lambda: serves(client, 1))
        gap, refused = client.longest_gap_seconds, client.refused
        after = await world.consumer.metric("landlord_tenant_failures_total", reason=cause)
        left = world.containers(tenant)
        good = await update(world, tenant, version(3, port), **never)
        await until(lambda: serves(client, 3))

        assert (status["state"], status["reason"]) == ("running", "rolled_back")
        assert words in str(status["message"])
        assert (status["will_retry"], container_id(status), left) == (will_retry, first, [first])
        assert status.items() <= told.items()
        assert after == before + 1
        assert gap < HAND_OVER_SECONDS
        assert refused == 0 or cause != "image_not_found"
        assert (good["reason"], good["changes"]) == ("updated", ["env"])
        assert world.containers(tenant) == [container_id(good)]


async def test_a_good_update_hands_over_the_port(world: World) -> None:
    """The answer names all that changed; the port goes over, a new one opens, one container is."""
    tenant, port = "handed", 8131
    async with first_version(world, tenant, port) as (_, client):
        wanted = version(2, port, image="landlord-test/web:2")
        wanted["ports"] = [
            {"container_port": 8080, "host_port": port},
            {"container_port": 8080, "host_port": port + 1},
        ]
        with world.docker.image("landlord-test/web:2"):
            status = await update(
                world, tenant, wanted, resources={"cpu": 150, "memory": 48}, labels={"a": "b"}
            )
            await until(lambda: serves(client, 2))
            also = await world.fetch(port + 1)
            await world.delete_tenant(tenant)

        assert (status["state"], status["reason"]) == ("running", "updated")
        assert status["changes"] == ["image", "resources", "env", "ports", "labels"]
        assert client.failures > 0, "the client saw nothing of it"
        assert also == "hello\n"


async def test_limits_change_in_place(world: World) -> None:
    """CPU, memory and restart policy go up and down while the same run serves on."""
    tenant, port = "limits", 8133
    run = "{{.Id}} {{.State.StartedAt}} {{.RestartCount}}"
    async with first_version(world, tenant, port) as (first, client):
        before = world.docker.run("inspect", "-f", run, first)
        answers, limits = [], []
        for cpu, memory, policy in ((300, 96, "always"), (50, 24, "always"), (50, 24, "no")):
            status = await update(
                world,
                tenant,
                version(1, port),
                resources={"cpu": cpu, "memory": memory},
                provider_config={"restart_policy": policy},
            )
            answers.append((status["state"], status["reason"], status["changes"]))
            limits.append(limits_of(world, tenant))

        assert answers == [
            ("running", "updated", ["resources", "restart_policy"]),
            ("running", "updated", ["resources"]),
            ("running", "updated", ["restart_policy"]),
        ]
        assert limits == [
            (300, 96, 96, "always"),
            (50, 24, 24, "always"),
            (50, 24, 24, "no"),
        ]
        assert world.docker.run("inspect", "-f", run, first) == before
        assert (world.containers(tenant), client.refused) == ([first], 0)


def limits_of(world: World, tenant: str) -> tuple[int, int, int, str]:
    """Return CPU, memory, memory with swap, and restart policy, as the engine has them."""
    host_config = world.inspect(tenant, ".HostConfig")
    assert isinstance(host_config, dict)
    return (
        host_config["NanoCpus"] // 10**6,
        host_config["Memory"] // 2**20,
        host_config["MemorySwap"] // 2**20,
        host_config["RestartPolicy"]["Name"],
    )


async def test_memory_in_use_is_not_taken_away(world: World) -> None:
    """The engine's refusal is told, the former limit holds; once it can be, it is changed."""
    tenant, port = "hungry", 8134
    cause = {"reason": "insufficient_resources"}
    before = await world.consumer.metric("landlord_tenant_failures_total", **cause)
    # CPU enough to answer in time, whatever else goes on in the container.
    limits = {"cpu": 1000, "memory": 32}
    async with first_version(world, tenant, port, resources=limits) as (first, client):
        name = world.container(tenant)
        world.docker.run("exec", name, "dd", "if=/dev/zero", "of=/dev/shm/x", "bs=1M", "count=20")
        less = {**limits, "memory": 12}
        refused = await update(world, tenant, version(1, port), resources=less)
        limits_between = limits_of(world, tenant)
        after = await world.consumer.metric("landlord_tenant_failures_total", **cause)
        world.docker.run("exec", name, "rm", "/dev/shm/x")
        done = await world.subscriber.expect(tenant, reason="updated", timeout=30)

        assert (refused["state"], refused["reason"]) == ("running", "rolled_back")
        assert "still with the former limits: failed to change container" in str(refused["message"])
        assert (refused["will_retry"], limits_between[1], after) == (True, 32, before + 1)
        assert (done["changes"], limits_of(world, tenant)[1]) == (["resources"], 12)
        assert (container_id(done), client.refused) == (first, 0)


async def test_the_former_document_after_a_rollback_changes_nothing(world: World) -> None:
    """It is answered as what is so already, by the run that serves, and nothing is retried."""
    tenant, port = "penitent", 8135
    async with first_version(world, tenant, port) as (first, _):
        await update(world, tenant, version(2, port, **shell("exit 9")))
        started_at = world.inspect(tenant, ".State.StartedAt")

        status = await update(world, tenant, version(1, port))

        assert (status["state"], status["reason"]) == ("running", "unchanged")
        assert (status["will_retry"], container_id(status)) == (False, first)
        assert world.inspect(tenant, ".State.StartedAt") == started_at


async def begin_undecided(world: World, tenant: str, client: Poller, port: int) -> None:
    """Publish a second version, and wait until it serves while nobody knows if it is healthy."""
    wanted = version(2, port, healthcheck=PATIENT)
    await world.publisher.update(make_document(tenant, container=wanted))
    await until(lambda: serves(client, 2))


async def test_an_update_in_the_midst_of_another_falls_back_to_the_first(world: World) -> None:
    """Of two failed updates neither is left; what served before them serves again."""
    tenant, port = "hasty", 8136
    async with first_version(world, tenant, port) as (first, client):
        await begin_undecided(world, tenant, client, port)

        status = await update(world, tenant, version(3, port, **shell("exit 9")))
        await until(lambda: serves(client, 1))

        assert (status["state"], status["reason"]) == ("running", "rolled_back")
        assert "code 9" in str(status["message"])
        assert (container_id(status), world.containers(tenant)) == (first, [first])


@pytest.mark.parametrize("policy", ["no", "unless-stopped"])
async def test_the_former_document_in_the_midst_of_an_update(world: World, policy: str) -> None:
    """The replacement is called off, and the first container serves again."""
    tenant, port = f"wavering-{policy}", 8137
    config = {"provider_config": {"restart_policy": policy}}
    async with first_version(world, tenant, port, **config) as (first, client):
        await begin_undecided(world, tenant, client, port)

        status = await update(world, tenant, version(1, port), **config)
        await until(lambda: serves(client, 1))

        assert (status["state"], container_id(status)) == ("running", first)
        assert world.containers(tenant) == [first]
        assert client.longest_gap_seconds < HAND_OVER_SECONDS


async def test_a_suspension_in_the_midst_of_an_update(world: World) -> None:
    """One container is kept, stopped; resumed, the tenant gets what the update asked for."""
    tenant, port = "tired", 8138
    async with first_version(world, tenant, port) as (_, client):
        await begin_undecided(world, tenant, client, port)
        suspend = await world.publisher.tell("suspended", tenant)
        stopped = await world.subscriber.expect(tenant, event_id=suspend)
        kept = world.containers(tenant)
        resume = await world.publisher.tell("resumed", tenant)
        client.forget()
        await until(lambda: serves(client, 2))
        world.docker.run("exec", world.container(tenant), "touch", "/ok")
        resumed = await world.subscriber.expect(tenant, event_id=resume)

        assert (stopped["state"], stopped["reason"], len(kept)) == ("stopped", "suspended", 1)
        assert (resumed["state"], resumed["reason"]) == ("running", "resumed")
        assert world.containers(tenant) == [container_id(resumed)]


async def test_a_delete_in_the_midst_of_an_update(world: World) -> None:
    """Neither the former container nor the one to come is left."""
    tenant, port = "done-for", 8139
    async with first_version(world, tenant, port) as (_, client):
        await begin_undecided(world, tenant, client, port)

        status = await world.delete_tenant(tenant)

        assert (status["reason"], world.containers(tenant)) == ("deleted", [])
