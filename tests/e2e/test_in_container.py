"""The consumer in a container of the engine that it drives, as its image runs it.

What the image would hold is mounted from here: nobody can reach a registry for its base. User,
health check and entry point are those of `deploy/Dockerfile`.
"""

import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import pytest

from deploy.lab.docker_cli import DockerCli
from deploy.lab.names import Names
from deploy.lab.nested import PROGRAMS
from deploy.lab.packages import LabError
from deploy.lab.servers import Broker, DockerHost
from tests.conftest import WEB
from tests.e2e.broker_clients import BrokerClients, connect
from tests.e2e.consumer_process import get
from tests.e2e.world import make_document, take_away, until
from tests.faults.proxy import proxy

pytestmark = [pytest.mark.docker, pytest.mark.rabbitmq]

ROOT = Path(__file__).parents[2]
DOCKERFILE = (ROOT / "deploy" / "Dockerfile").read_text()
SOCKET = "/var/run/docker.sock"
PORT = 18080
FOLDER = "/var/lib/landlord"


def instruction(name: str) -> str:
    """Return the last instruction of this name in the Dockerfile, on one line."""
    whole = DOCKERFILE.replace("\\\n", " ")
    return [line.removeprefix(f"{name} ") for line in whole.splitlines() if line.startswith(name)][
        -1
    ]


def group_of(host: DockerHost) -> str:
    """Return the number of the group that the engine's socket belongs to."""
    return str(Path(host.url.removeprefix("unix://")).stat().st_gid)


def mounts() -> Iterator[str]:
    """Name what of this machine the container sees, read-only."""
    yield from (f"{here}:{within}:ro" for here, within in PROGRAMS.items())
    own = {str(ROOT / "consumer"), sys.prefix, sys.base_prefix}
    yield from (f"{place}:{place}:ro" for place in own if not place.startswith("/usr"))


@contextmanager
def consumer_container(
    host: DockerHost, names: Names, broker_port: int, *, groups: tuple[str, ...]
) -> Iterator[str]:
    """Run the consumer in a container that has the engine's socket; give the container's id."""
    docker, user = DockerCli(host.url), instruction("USER")
    settings = names.environment(
        broker_url=f"amqp://guest:guest@127.0.0.1:{broker_port}/",
        docker_host="unix:///nowhere",
        folder=Path(FOLDER),
        http_port=PORT,
    )
    variables = {**settings, "LANDLORD_HTTP__HOST": "0.0.0.0", "DOCKER_HOST": f"unix://{SOCKET}"}
    words = [
        *("run", "-d", "--network", "host", "-u", user, "--tmpfs", f"{FOLDER}:mode=1777"),
        *("-v", f"{host.url.removeprefix('unix://')}:{SOCKET}"),
        *(word for group in groups for word in ("--group-add", group)),
        *(word for mount in mounts() for word in ("-v", mount)),
        *(word for name, value in variables.items() for word in ("-e", f"{name}={value}")),
        *("--entrypoint", f"{sys.prefix}/bin/{json.loads(instruction('ENTRYPOINT'))[0]}"),
        *(WEB, *json.loads(instruction("CMD"))),
    ]
    container = docker.run(*words)
    try:
        yield container
    finally:
        docker.run("rm", "-f", "-v", container)


def is_healthy(host: DockerHost, container: str) -> bool:
    """Whether the image's health check passes in the container."""
    command = json.loads(instruction("HEALTHCHECK").partition(" CMD ")[2])
    try:
        DockerCli(host.url).run("exec", container, *command)
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


@pytest.mark.usefixtures("clients")
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


def test_a_health_check_without_a_consumer_fails() -> None:
    """It is a command of words, not a shell's line, and its failure is an exit code."""
    command = json.loads(instruction("HEALTHCHECK").partition(" CMD ")[2])
    environment = {**os.environ, "LANDLORD_HTTP__PORT": "1"}

    outcome = subprocess.run(
        [sys.executable, *command[1:]],
        env=environment,
        capture_output=True,
        check=False,
        timeout=30,
    )

    assert outcome.returncode == 1
