"""The network that tenants join: who makes it, who can reach whom on it, what it must not be."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import uuid4

import pytest

from consumer.adapters.docker import DockerEngine
from consumer.adapters.docker_client import Endpoint
from consumer.adapters.docker_networks import Network
from consumer.adapters.docker_spec import Naming
from consumer.errors import EngineError
from consumer.model import Container, ContainerStatus, PortMapping, Reason, Role, TenantId
from deploy.lab.docker_cli import DockerCli
from deploy.lab.packages import LabError
from deploy.lab.servers import DockerHost
from tests.builders import TENANT_ID
from tests.conftest import import_web_image
from tests.contract.engines import create, run, shell_spec
from tests.faults.proxy import Fate, Request, proxy

pytestmark = pytest.mark.docker

OTHER = TenantId("other")
SERVING = "mkdir -p /www; echo hello > /www/index.html; httpd -f -p 8080 -h /www"
PORT = 18234


@asynccontextmanager
async def joining(
    host: DockerHost, network: Network, place: Path | None = None
) -> AsyncIterator[DockerEngine]:
    """Open an adapter whose tenants join the network; take both away.

    It reaches the engine at `place`, a socket, where there is one.
    """
    naming, docker = Naming(f"ll-{uuid4().hex[:8]}"), DockerCli(host.url)
    owner = f"{naming.prefix}.owner={naming.prefix}"
    endpoint = Endpoint(url=host.url if place is None else f"unix://{place}")
    try:
        async with DockerEngine(endpoint=endpoint, naming=naming, network=network).opened() as it:
            yield it
    finally:
        docker.remove_containers(owner)
        docker.remove_networks(owner)


@pytest.fixture
def name() -> str:
    """Give a name that no network has."""
    return f"ll-net-{uuid4().hex[:8]}"


@pytest.fixture
def by_hand(docker: DockerCli, name: str) -> Iterator[str]:
    """Make a network of the name by hand; give its id."""
    network_id = docker.run("network", "create", name)
    yield network_id
    docker.run("network", "rm", network_id)


async def test_a_missing_network_is_made_once(
    docker_host: DockerHost, docker: DockerCli, name: str
) -> None:
    """Many tenants at a time want it; there is one, which bears our label, and they are on it.

    (checklist 18, 19; weakness 5)
    """
    async with joining(docker_host, Network(name=name)) as engine:
        async with asyncio.TaskGroup() as group:
            for number in range(20):
                group.create_task(engine.prepare(TenantId(f"tenant-{number}"), shell_spec()))
        made = await create(engine, shell_spec())
        ids = docker.run("network", "ls", "-q", "--filter", f"name={name}").split()
        shown = docker.run("network", "inspect", "-f", "{{.Driver}} {{json .Labels}}", name)
        joined = docker.inspect(made.container_id, ".NetworkSettings.Networks")

    assert len(ids) == 1
    assert shown.startswith("bridge {")
    assert ".owner" in shown
    assert isinstance(joined, dict)
    assert list(joined) == [name]


@pytest.mark.parametrize("round_number", range(3))
async def test_two_instances_make_one_network_between_them(
    docker_host: DockerHost, docker: DockerCli, name: str, round_number: int
) -> None:
    """Both find none and make one at the same instant; one is left, and both are content."""
    network = Network(name=f"{name}-{round_number}")
    async with joining(docker_host, network) as one, joining(docker_host, network) as other:
        for engine in (one, other):
            await engine.facts()
        async with asyncio.TaskGroup() as group:
            for engine in (one, other):
                group.create_task(engine.prepare(TENANT_ID, shell_spec()))
        ids = docker.run("network", "ls", "-q", "--filter", f"name={network.name}").split()

    assert len(ids) == 1


async def test_a_newer_network_whose_maker_went_on_is_kept(
    docker_host: DockerHost, docker: DockerCli, name: str, tmp_path: Path
) -> None:
    """It looked before ours was there, and so will never remove its own."""
    behind, place = Path(docker_host.url.removeprefix("unix://")), tmp_path / "proxy.sock"
    theirs: list[str] = []

    async def judge(_: Request) -> Fate:
        is_there = bool(docker.run("network", "ls", "-q", "--filter", f"name={name}"))
        if is_there and not theirs:
            theirs.append(make_second_network(behind, name))
        return Fate.PASS

    async with proxy(behind, place) as line, joining(docker_host, Network(name=name), place) as it:
        line.judge = judge
        await it.prepare(TENANT_ID, shell_spec())
        left = docker.run("network", "ls", "-q", "--no-trunc", "--filter", f"name={name}").split()
    for network_id in theirs:
        docker.run("network", "rm", network_id)

    assert left == theirs


def make_second_network(engine: Path, name: str) -> str:
    """Make a network though there is one of the name, as older engines let who asks at once."""
    body = json.dumps({"Name": name, "CheckDuplicate": False}).encode()
    kind = "Content-Type: application/json"
    head = f"POST /networks/create HTTP/1.0\r\n{kind}\r\nContent-Length: {len(body)}"
    with socket.socket(socket.AF_UNIX) as line:
        line.connect(str(engine))
        line.sendall(f"{head}\r\n\r\n".encode() + body)
        answer = b"".join(iter(lambda: line.recv(65536), b""))
    return str(json.loads(answer.partition(b"\r\n\r\n")[2])["Id"])


@pytest.mark.parametrize("is_isolating", [True, False])
async def test_tenants_reach_each_other_only_where_set(
    docker_host: DockerHost, docker: DockerCli, name: str, *, is_isolating: bool
) -> None:
    """Isolated tenants get no answer from a neighbour; published ports answer all the same.

    (checklist 59)
    """
    async with joining(docker_host, Network(name=name, is_isolating=is_isolating)) as engine:
        server = await run(engine, shell_spec(SERVING, ports=(PortMapping(8080, PORT),)))
        await engine.prepare(OTHER, shell_spec())
        client = await engine.create(OTHER, shell_spec(), generation=1, role=Role.CURRENT, serial=1)
        await engine.start(client)
        within = await answers(docker, server, server, "127.0.0.1:8080")
        neighbour = await answers(docker, server, client, f"{address_of(docker, server)}:8080")
        published = await answers(docker, server, client, f"{docker_host.address}:{PORT}")

    assert (within, neighbour, published) == (True, not is_isolating, True)


def address_of(docker: DockerCli, container: Container) -> str:
    """Return its address on the one network that it is on."""
    networks = docker.inspect(container.container_id, ".NetworkSettings.Networks")
    assert isinstance(networks, dict)
    (endpoint,) = networks.values()
    return str(endpoint["IPAddress"])


async def answers(docker: DockerCli, server: Container, client: Container, place: str) -> bool:
    """Whether the client gets the server's page there, once the server listens."""
    for _ in range(100):
        try:
            docker.run("exec", server.container_id, "wget", "-q", "-O-", "127.0.0.1:8080")
            break
        except LabError:
            await asyncio.sleep(0.05)
    words = ("timeout", "3", "wget", "-q", "-O-", place)
    try:
        return docker.run("exec", client.container_id, *words) == "hello"
    except LabError:
        return False


async def test_a_network_of_that_name_with_another_driver_is_refused(
    docker_host: DockerHost, by_hand: str, name: str
) -> None:
    """It is told by the setting to look at, and nothing is made (checklist 19)."""
    async with joining(docker_host, Network(name=name, driver="macvlan")) as engine:
        with pytest.raises(
            EngineError, match="exists with driver 'bridge', wanted is 'macvlan'"
        ) as caught:
            await engine.prepare(TENANT_ID, shell_spec())

    assert (caught.value.reason, caught.value.is_transient) == (Reason.NETWORK_FAILED, True)
    assert by_hand


async def test_a_network_that_was_made_by_hand_is_joined(
    docker_host: DockerHost, docker: DockerCli, by_hand: str, name: str
) -> None:
    """It is as its maker wanted it, and stays when we are gone."""
    async with joining(docker_host, Network(name=name)) as engine:
        made = await create(engine, shell_spec())
        joined = docker.inspect(made.container_id, f'(index .NetworkSettings.Networks "{name}")')

    assert isinstance(joined, dict)
    assert by_hand in docker.run("network", "ls", "-q", "--no-trunc")


async def test_a_driver_that_is_not_there_is_told(docker_host: DockerHost, name: str) -> None:
    """In the engine's words."""
    async with joining(docker_host, Network(name=name, driver="nosuch")) as engine:
        with pytest.raises(
            EngineError, match=f"network '{name}': Error response.*nosuch"
        ) as caught:
            await engine.prepare(TENANT_ID, shell_spec())

    assert caught.value.reason == Reason.NETWORK_FAILED


async def test_two_networks_of_one_name_are_told(
    docker_host: DockerHost, docker: DockerCli, by_hand: str, name: str
) -> None:
    """An older engine lets them be made; which to remove is not ours to say."""
    async with joining(docker_host, Network(name=name)) as engine:
        async with engine._client.asking("network create", 10) as library:
            await library.networks.create({"Name": name, "Driver": "bridge"})
        try:
            with pytest.raises(EngineError, match=r"is there 2 times \(") as caught:
                await engine.prepare(TENANT_ID, shell_spec())
        finally:
            ids = docker.run("network", "ls", "-q", "--no-trunc", "--filter", f"name={name}")
            for network_id in set(ids.split()) - {by_hand}:
                docker.run("network", "rm", network_id)

    assert caught.value.reason == Reason.NETWORK_FAILED


async def test_a_network_that_was_removed_is_made_again_for_the_next_start(
    docker_host: DockerHost, docker: DockerCli, name: str
) -> None:
    """A container at rest does not keep it; it starts all the same, on the new one."""
    async with joining(docker_host, Network(name=name)) as engine:
        stopped = await engine.stop(await run(engine, shell_spec()))
        docker.run("network", "rm", name)
        started = await engine.start(stopped)

    assert (started.container_id, started.status) == (
        stopped.container_id,
        ContainerStatus.RUNNING,
    )


@pytest.mark.parametrize("has_run", [False, True])
@pytest.mark.parametrize("own", [False, True], ids=["bridge", "own"])
async def test_a_connection_that_a_dead_engine_left_is_taken_away(
    docker_host: DockerHost, docker: DockerCli, name: str, tmp_path: Path, own: bool, has_run: bool
) -> None:
    """The container then starts, and is on its network.

    The refusal is what a Docker Engine says of it; no engine here could be made to say so itself.
    """
    network, place = Network(name=name) if own else Network(), tmp_path / "proxy.sock"
    refusals = 0

    async def judge(request: Request) -> Fate:
        nonlocal refusals
        if not request.path.endswith("/start") or refusals:
            return Fate.PASS
        refusals += 1
        return Fate.REFUSE

    behind = Path(docker_host.url.removeprefix("unix://"))
    async with proxy(behind, place) as line, joining(docker_host, network, place) as engine:
        made = await create(engine, shell_spec())
        at_rest = await engine.stop(await engine.start(made)) if has_run else made
        line.refusal = (403, f"endpoint with name {made.name} already exists in network {name}")
        line.judge = judge
        started = await engine.start(at_rest)
        joined = docker.inspect(made.container_id, ".NetworkSettings.Networks")

    assert refusals == 1
    assert started.status is ContainerStatus.RUNNING
    assert isinstance(joined, dict)
    assert list(joined) == [network.name]
    assert joined[network.name]["IPAddress"]


# --- a swarm ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def lone_host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DockerHost]:
    """Run an engine that may become a swarm of its own."""
    host = DockerHost(tmp_path_factory.mktemp("swarm") / "host")
    host.start()
    import_web_image(host)
    yield host
    host.close()


async def test_an_overlay_without_a_swarm_is_told_in_the_engines_words(
    lone_host: DockerHost, name: str
) -> None:
    """The engine is there, and says what it lacks (checklist 20)."""
    async with joining(lone_host, Network(name=name, driver="overlay")) as engine:
        with pytest.raises(EngineError, match="This node is not a swarm manager") as caught:
            await engine.prepare(TENANT_ID, shell_spec())

    assert caught.value.reason == Reason.NETWORK_FAILED


@pytest.fixture(scope="module")
def swarm(lone_host: DockerHost) -> DockerCli:
    """Give the docker command on an engine that is a swarm's manager."""
    docker = DockerCli(lone_host.url)
    docker.run("swarm", "init", "--advertise-addr", lone_host.address)
    return docker


async def test_an_overlay_is_made_attachable(
    lone_host: DockerHost, swarm: DockerCli, name: str
) -> None:
    """So a container can join it that is no service's (checklist 20)."""
    async with joining(lone_host, Network(name=name, driver="overlay")) as engine:
        started = await run(engine, shell_spec())
        shown = swarm.run("network", "inspect", "-f", "{{.Driver}} {{.Attachable}}", name)
        joined = swarm.inspect(started.container_id, ".NetworkSettings.Networks")

    assert shown == "overlay true"
    assert isinstance(joined, dict)
    assert list(joined) == [name]


async def test_an_overlay_for_services_alone_is_refused(
    lone_host: DockerHost, swarm: DockerCli, name: str
) -> None:
    """Before a container is made that could never start (checklist 20)."""
    swarm.run("network", "create", "-d", "overlay", name)
    async with joining(lone_host, Network(name=name, driver="overlay")) as engine:
        with pytest.raises(EngineError, match="is an overlay that is not attachable") as caught:
            await engine.prepare(TENANT_ID, shell_spec())
    swarm.run("network", "rm", name)

    assert caught.value.reason == Reason.NETWORK_FAILED
