"""The consumer's image, built from `deploy/Dockerfile`, on the engine that it drives."""

import tomllib
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import pytest

from deploy.lab.docker_cli import DockerCli
from deploy.lab.images import CONSUMER
from deploy.lab.names import Names
from deploy.lab.packages import LabError
from deploy.lab.servers import Broker, DockerHost
from tests.e2e.broker_clients import BrokerClients, connect
from tests.e2e.consumer_process import get
from tests.e2e.world import make_document, take_away, until
from tests.faults.proxy import proxy

pytestmark = [
    pytest.mark.docker,
    pytest.mark.rabbitmq,
    pytest.mark.timeout(600),  # whoever is first waits for the image
]

ROOT = Path(__file__).parents[2]
SOCKET = "/var/run/docker.sock"
PORT = 18080
FOLDER = "/var/lib/landlord"
LIST = """
from importlib.metadata import distributions
for one in distributions():
    print(one.name.lower().replace("_", "-"), one.version)
"""


def group_of(host: DockerHost) -> str:
    """Return the number of the group that the engine's socket belongs to."""
    return str(Path(host.url.removeprefix("unix://")).stat().st_gid)


@contextmanager
def consumer_container(
    host: DockerHost, names: Names, broker_port: int, *, groups: tuple[str, ...]
) -> Iterator[str]:
    """Run the consumer in a container that has the engine's socket; give the container's id."""
    docker = DockerCli(host.url)
    settings = names.environment(
        broker_url=f"amqp://guest:guest@127.0.0.1:{broker_port}/",
        docker_host="unix:///nowhere",
        folder=Path(FOLDER),
        http_port=PORT,
    )
    variables = {**settings, "LANDLORD_HTTP__HOST": "0.0.0.0", "DOCKER_HOST": f"unix://{SOCKET}"}
    words = [
        *("run", "-d", "--network", "host"),
        *("-v", f"{host.url.removeprefix('unix://')}:{SOCKET}"),
        *(word for group in groups for word in ("--group-add", group)),
        *(word for name, value in variables.items() for word in ("-e", f"{name}={value}")),
        CONSUMER,
    ]
    container = docker.run(*words)
    try:
        yield container
    finally:
        docker.run("rm", "-f", "-v", container)


def health_check(host: DockerHost) -> list[str]:
    """Return the command of the image's health check."""
    check = DockerCli(host.url).inspect(CONSUMER, ".Config.Healthcheck.Test")
    assert isinstance(check, list)
    assert check[0] == "CMD", "a shell's line needs a shell"
    return [str(word) for word in check[1:]]


def is_healthy(host: DockerHost, container: str) -> bool:
    """Whether the image's health check passes in the container."""
    try:
        DockerCli(host.url).run("exec", container, *health_check(host))
    except LabError:
        return False
    return True


@pytest.fixture
def names() -> Names:
    """Give names of the test's own."""
    return Names(f"ll-{uuid4().hex[:8]}")


@pytest.fixture
async def clients(
    broker: Broker, docker_host: DockerHost, names: Names
) -> AsyncIterator[BrokerClients]:
    """Give both sides of the broker."""
    async with connect(broker.url, names) as clients:
        yield clients
    await take_away(broker, docker_host, names)


@pytest.mark.usefixtures("consumer_image")
async def test_the_mounted_socket_and_its_group_are_enough(
    broker: Broker, docker_host: DockerHost, names: Names, clients: BrokerClients
) -> None:
    """No root, no privileges: a tenant runs beside the consumer, which knows that it is well."""
    group = group_of(docker_host)
    listening = docker_host.listen()

    async with proxy(("127.0.0.1", broker.port), listening):
        with consumer_container(
            docker_host, names, listening.getsockname()[1], groups=(group,)
        ) as container:
            await until(lambda: is_well(docker_host), seconds=60)
            is_told_healthy = is_healthy(docker_host, container)
            await clients.publisher.create(make_document("beside"))
            await clients.subscriber.expect("beside", state="running")
            user = DockerCli(docker_host.url).run("exec", container, "id", "-u")

    assert user != "0"
    assert is_told_healthy


async def is_well(host: DockerHost) -> bool:
    """Whether the consumer within answers that it can do its work."""
    try:
        code, _ = await get(f"http://{host.address}:{PORT}/readyz")
    except OSError:
        return False
    return code == 200


@pytest.mark.usefixtures("clients", "consumer_image")
async def test_without_the_group_it_says_what_is_missing(
    broker: Broker, docker_host: DockerHost, names: Names
) -> None:
    """It lives, is not ready, and names the cure."""
    listening = docker_host.listen()

    async def says_so() -> bool:
        try:
            code, said = await get(f"http://{docker_host.address}:{PORT}/readyz")
        except OSError:
            return False
        return code == 503 and "permission denied" in said and "group" in said

    async with proxy(("127.0.0.1", broker.port), listening):
        with consumer_container(
            docker_host, names, listening.getsockname()[1], groups=()
        ) as container:
            await until(says_so, seconds=60)
            is_told_healthy = is_healthy(docker_host, container)

    assert is_told_healthy, "it lives: to restart it would not help"


@pytest.mark.usefixtures("consumer_image")
def test_a_health_check_without_a_consumer_fails(docker_host: DockerHost) -> None:
    """Its failure is an exit code."""
    program, *words = health_check(docker_host)

    with pytest.raises(LabError, match="Connection refused"):
        DockerCli(docker_host.url).run("run", "--rm", "--entrypoint", program, CONSUMER, *words)


@pytest.mark.usefixtures("consumer_image")
def test_the_image_holds_what_is_locked_and_nothing_to_build_with(docker: DockerCli) -> None:
    """Every package has the version of uv.lock; there is neither pip nor uv."""
    lock = tomllib.loads((ROOT / "uv.lock").read_text(encoding="utf-8"))
    locked = {package["name"]: package.get("version") for package in lock["package"]}

    printed = docker.run("run", "--rm", "--entrypoint", "python3", CONSUMER, "-c", LIST)

    held = dict(line.split() for line in printed.splitlines())
    ours = held.pop("landlord-consumer")
    assert ours == locked.pop("landlord-consumer")
    assert held
    assert held == {name: locked[name] for name in held}
    assert not held.keys() & {"pip", "uv", "hatchling"}
