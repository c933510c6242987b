"""Podman in place of Docker: a tenant's whole life, and where Podman says things in its own way."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from consumer.adapters.docker import DockerEngine
from consumer.adapters.docker_client import Endpoint
from consumer.adapters.docker_spec import Naming
from consumer.errors import EngineError
from consumer.model import ContainerStatus, PortMapping, Reason, Resources, Role, TenantId
from deploy.lab.podman import Podman, podman
from deploy.lab.servers import Broker, DockerHost
from tests.conftest import import_web_image
from tests.contract.engines import create, run, shell_spec
from tests.e2e.world import World, make_document, own_world, until

pytestmark = [pytest.mark.docker, pytest.mark.rabbitmq]

PORT = 18301


@pytest.fixture(scope="module")
def engine_host(docker_host: DockerHost) -> Iterator[Podman]:
    """Run Podman's service, with the image that most tests start from."""
    with podman(docker_host) as host:
        import_web_image(host)
        yield host


@pytest.fixture
async def world(broker: Broker, engine_host: Podman, tmp_path: Path) -> AsyncIterator[World]:
    """Give a consumer of the test's own, on Podman."""
    name = {"COMPUTE__DOCKER__NETWORK_NAME": "ll-podman-tenants"}
    async with own_world(broker, engine_host, tmp_path, **name) as around:
        yield around


async def test_a_tenant_lives_on_podman(world: World) -> None:
    """Created, published, replaced, suspended, resumed and deleted, as on Docker."""
    ports = [{"container_port": 8080, "host_port": PORT}]
    started = await world.run_tenant("guest", container={"env": {"COLOUR": "red"}, "ports": ports})
    page = await world.fetch(PORT, "/env")
    blue = {"env": {"COLOUR": "blue"}, "ports": ports}
    await world.publisher.update(make_document("guest", container=blue))
    await world.subscriber.expect("guest", state="running", reason="updated")
    changed = await world.fetch(PORT, "/env")
    await world.publisher.tell("suspended", "guest")
    suspended = await world.subscriber.expect("guest", state="stopped", reason="suspended")
    await world.publisher.tell("resumed", "guest")
    await world.subscriber.expect("guest", state="running", reason="resumed")
    again = await world.fetch(PORT, "/env")
    count = len(world.containers("guest"))
    await world.delete_tenant("guest")

    assert started["ports"][0]["host_port"] == PORT  # type: ignore[index]  # JSON
    assert suspended["ports"][0]["host_port"] is None  # type: ignore[index]  # JSON
    assert "COLOUR=red" in page
    assert "COLOUR=blue" in changed
    assert "COLOUR=blue" in again
    assert (count, world.containers("guest")) == (1, [])


async def test_what_happens_on_podman_is_noticed(world: World) -> None:
    """A crash, and a removal by hand: told within seconds, and put right."""
    script = "trap 'exit 3' USR1; touch /ready; while :; do sleep 1 & wait $!; done"
    container = {"command": ["/bin/sh", "-c", script]}
    await world.run_tenant("victim", container=container, provider_config={"restart_policy": "no"})
    await until(lambda: "ready" in world.docker.run("exec", world.container("victim"), "ls", "/"))

    world.docker.run("kill", "-s", "USR1", world.container("victim"))
    crashed = await world.subscriber.expect("victim", state="failed", timeout=20)
    await world.run_tenant("removed")
    world.docker.run("rm", "-f", world.container("removed"))
    # Podman kills it first, and lets it be seen so for a moment.
    await world.subscriber.expect("removed", state="failed", reason="missing", timeout=20)
    await world.subscriber.expect("removed", state="running", reason="restarted")

    assert (crashed["reason"], crashed["container"]["exit_code"]) == ("exited", 3)  # type: ignore[index]  # JSON


# --- in its own way ---------------------------------------------------------------------------


@pytest.fixture
async def engine(engine_host: Podman) -> AsyncIterator[DockerEngine]:
    """Open an adapter; take away what it made."""
    naming = Naming("ll-podman")
    async with DockerEngine(endpoint=Endpoint(url=engine_host.url), naming=naming).opened() as it:
        yield it
        for line in await it.survey():
            for container in await it.observe(line.tenant_id):
                await it.remove(container)


async def test_a_taken_name_is_a_conflict(engine: DockerEngine) -> None:
    """Podman calls it an internal error."""
    await create(engine, shell_spec())

    with pytest.raises(EngineError, match="labelled as this tenant's") as caught:
        await create(engine, shell_spec(env=(("A", "1"),)))

    assert caught.value.reason == Reason.NAME_CONFLICT


async def test_a_missing_program_is_for_good(engine: DockerEngine) -> None:
    """Podman shows no exit code of it."""
    made = await create(engine, shell_spec(command=("/no/such/program",)))

    with pytest.raises(EngineError, match="no such file") as caught:
        await engine.start(made)

    assert (caught.value.reason, caught.value.is_transient) == (Reason.START_FAILED, False)


async def test_the_port_of_a_stopped_container_is_free(engine: DockerEngine) -> None:
    """Podman goes on showing it as the container's."""
    spec = shell_spec(ports=(PortMapping(80, PORT),))
    stopped = await engine.stop(await run(engine, spec))

    other = await engine.create(TenantId("other"), spec, generation=1, role=Role.CURRENT, serial=1)
    await engine.prepare(TenantId("other"), spec)
    started = await engine.start(other)

    assert [port.host_port for port in stopped.ports] == [None]
    assert started.status is ContainerStatus.RUNNING


async def test_limits_cannot_be_changed_in_place(engine: DockerEngine) -> None:
    """It is told for good, with what helps."""
    started = await run(engine, shell_spec())

    with pytest.raises(EngineError, match=r"cannot do that.*delete the tenant and") as caught:
        await engine.adjust(started, shell_spec(resources=Resources(250, 32)))

    assert not caught.value.is_transient


async def test_the_usual_log_driver_is_known(engine: DockerEngine) -> None:
    """Podman takes it under Docker's name, and lists it under its own."""
    facts = await engine.facts()

    assert "json-file" in facts.log_drivers
    assert "local" not in facts.log_drivers
