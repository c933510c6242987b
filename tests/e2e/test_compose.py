"""Both compose files, brought up for real: a tenant's life through the broker within."""

import json
import os
import re
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final
from uuid import uuid4

import aiohttp
import pytest

from deploy.lab.docker_cli import DockerCli
from deploy.lab.images import CONSUMER, DIND, PROMETHEUS, RABBITMQ, import_servers
from deploy.lab.names import Names
from deploy.lab.packages import LabError, find
from deploy.lab.servers import DockerHost
from tests.conftest import WEB
from tests.e2e.broker_clients import connect
from tests.e2e.consumer_process import get
from tests.e2e.world import make_document, until

pytestmark = [pytest.mark.docker, pytest.mark.timeout(900)]

ROOT: Final = Path(__file__).parents[2]
NAMES: Final = Names("landlord")
"""Those of the contract: nothing in the compose files changes them."""
PASSWORD: Final = "compose-password"
TOKEN: Final = "compose-token"
JOB: Final = "landlord-consumer"
UP_SECONDS: Final = 300.0
SECURITY_OPTIONS: Final = ("seccomp=unconfined", "apparmor=unconfined")
RIGHTS: Final = {
    # What an engine needs of `privileged`, which asks for more than a lab may have that is in a
    # container itself.
    "privileged": False,
    "cap_add": ["SYS_ADMIN", "NET_ADMIN"],
    "device_cgroup_rules": ["a *:* rwm"],
    "volumes": ["/sys/fs/cgroup:/sys/fs/cgroup"],
    "sysctls": {"net.ipv4.ip_forward": "1"},
}


class Compose:
    """One project on one engine."""

    def __init__(self, host: DockerHost, folder: Path, *files: Path) -> None:
        self.host = host
        self.docker = DockerCli(host.url)
        self.project = f"ll-{uuid4().hex[:8]}"
        choices = {
            "DOCKER_GID": str(socket_of(host).stat().st_gid),
            "DOCKER_SOCKET": str(socket_of(host)),
            "BIND_ADDRESS": host.address,
            "TENANT_PORTS": f"{host.address}:8042:8042",
            "BROKER_PASSWORD": PASSWORD,
            "HTTP_TOKEN": TOKEN,
            "GRAFANA_PASSWORD": PASSWORD,
            "CONSUMER_IMAGE": CONSUMER,
            "RABBITMQ_IMAGE": RABBITMQ,
            "PROMETHEUS_IMAGE": PROMETHEUS,
            "DIND_IMAGE": DIND,
            # Whichever are free.
            **dict.fromkeys(("AMQP_PORT", "MANAGEMENT_PORT", "HTTP_PORT", "PROMETHEUS_PORT"), "0"),
        }
        env = folder / "env"
        env.write_text("".join(f"{name}={value}\n" for name, value in choices.items()))
        self._words = [find("docker-compose"), "--env-file", str(env), "-p", self.project]
        self._words += [word for file in files for word in ("-f", str(file))]

    def run(self, *words: str) -> str:
        """Return what the command prints. Raises LabError with what it complains about."""
        outcome = subprocess.run(
            [*self._words, *words],
            # Compose 2 takes down only what is of a profile that is named.
            env={
                **os.environ,
                "DOCKER_HOST": self.host.url,
                "COMPOSE_PROFILES": "observability",
            },
            capture_output=True,
            text=True,
            check=False,
            timeout=UP_SECONDS,
        )
        if outcome.returncode != 0:
            raise LabError(f"docker-compose {' '.join(words)}: {outcome.stderr}")
        return outcome.stdout.strip()

    def place(self, service: str, port: int) -> str:
        """Return where the port of the service answers."""
        return self.run("port", service, str(port))

    def left(self) -> list[str]:
        """Return what there is of the project on the engine."""
        mine = ("--filter", f"label=com.docker.compose.project={self.project}", "-q")
        lists = (("ps", "-a"), ("volume", "ls"), ("network", "ls"))
        return [line for words in lists for line in self.docker.run(*words, *mine).split()]


def rights() -> dict[str, object]:
    """Return what the nested engine is given; a newer one asks for more, by Compose 2."""
    told = subprocess.run(
        [find("docker-compose"), "version", "--short"],
        capture_output=True,
        text=True,
        check=True,
        timeout=UP_SECONDS,
    ).stdout
    options = [*SECURITY_OPTIONS, *([] if told.startswith("1.") else ["systempaths=unconfined"])]
    return {**RIGHTS, "security_opt": options}


def socket_of(host: DockerHost) -> Path:
    """Return the engine's socket."""
    return Path(host.url.removeprefix("unix://"))


@contextmanager
def up(
    host: DockerHost, folder: Path, files: Sequence[Path], services: Sequence[str]
) -> Iterator[Compose]:
    """Bring the services up, with names of their own; take all down after the block."""
    compose = Compose(host, folder, *files)
    try:
        compose.run("up", "-d", "--no-build", *services)
        yield compose
    except Exception as error:
        error.add_note(compose.run("logs", "--no-color", "--tail", "40"))
        raise
    finally:
        compose.run("down", "--volumes", "--timeout", "15")


@pytest.fixture(scope="module")
def images(docker_host: DockerHost, consumer_image: None) -> None:
    """Have all images on the engine."""
    import_servers(docker_host)


@pytest.fixture
def clean(docker: DockerCli) -> Iterator[None]:
    """Remove what the consumer made on the engine."""
    yield
    docker.remove_containers(NAMES.label)
    docker.remove_volumes(NAMES.label)
    docker.remove_networks(NAMES.label)


async def is_ready(compose: Compose) -> bool:
    """Whether the consumer reaches broker, engine and ledger."""
    try:
        code, _ = await get(f"http://{compose.place('consumer', 8080)}/readyz")
    except aiohttp.ClientError:
        return False
    return code == 200


async def status_of(compose: Compose, tenant_id: str) -> Mapping[str, object]:
    """Return what the consumer answers of the tenant."""
    url = f"http://{compose.place('consumer', 8080)}/tenants/{tenant_id}/compute/status"
    async with (
        aiohttp.ClientSession(headers={"Authorization": f"Bearer {TOKEN}"}) as session,
        session.get(url) as answer,
    ):
        told: Mapping[str, object] = await answer.json()
        return told


async def live(compose: Compose, tenant_id: str, *engine: str) -> None:
    """Take a tenant through its life; `engine` are the words that reach its engine."""
    container = NAMES.container(tenant_id)
    broker = f"amqp://landlord:{PASSWORD}@{compose.place('rabbitmq', 5672)}/"
    async with connect(broker, NAMES) as clients:
        await clients.publisher.create(make_document(tenant_id))
        told = await clients.subscriber.expect(tenant_id, state="running", timeout=60)
        running = compose.docker.run(*engine, "ps", "--format", "{{.Names}} {{.Image}}")
        status = await status_of(compose, tenant_id)
        await clients.publisher.tell("deleted", tenant_id)
        await clients.subscriber.expect(tenant_id, state="stopped", reason="deleted", timeout=60)
        left = compose.docker.run(*engine, "ps", "-a", "--format", "{{.Names}}")

    assert f"{container} {WEB}" in running.splitlines()
    assert (status["state"], status["sequence"]) == ("running", told["sequence"])
    assert container not in left.splitlines()


async def scrapes(compose: Compose) -> bool:
    """Whether Prometheus has had an answer from the consumer."""
    place = compose.place("prometheus", 9090)
    try:
        _, said = await get(f"http://{place}/api/v1/query?query=up%7Bjob%3D%22{JOB}%22%7D")
    except aiohttp.ClientError:
        return False
    return any(line["value"][1] == "1" for line in json.loads(said)["data"]["result"])


@pytest.mark.parametrize("file", ["docker-compose.yml", "deploy/docker-compose.dind.yml"])
def test_nothing_starts_before_passwords_are_chosen(file: str) -> None:
    """Compose names the one that lacks, and the command that writes it."""
    words = ("--env-file", str(ROOT / ".env.example"), "-f", str(ROOT / file), "config")
    outcome = subprocess.run(
        [find("docker-compose"), *words], capture_output=True, text=True, check=False, timeout=60
    )

    assert outcome.returncode != 0
    # Whichever it meets first.
    assert re.search(r"(BROKER_PASSWORD|HTTP_TOKEN|GRAFANA_PASSWORD)", outcome.stderr)
    assert "make env" in outcome.stderr


@pytest.mark.usefixtures("images", "clean")
async def test_the_mounted_socket(docker_host: DockerHost, tmp_path: Path) -> None:
    """RabbitMQ, the consumer beside its tenants, and Prometheus; all is gone afterwards."""
    files = [ROOT / "docker-compose.yml"]
    with up(docker_host, tmp_path, files, ("rabbitmq", "consumer", "prometheus")) as compose:
        await until(lambda: is_ready(compose), seconds=240)
        await live(compose, "composed")
        await until(lambda: scrapes(compose), seconds=120)

    assert compose.left() == []


@pytest.mark.usefixtures("images")
async def test_docker_in_docker_by_tls(
    docker_host: DockerHost, docker: DockerCli, tmp_path: Path
) -> None:
    """The tenant runs within the engine of the project, not on this one (checklist 26).

    Nor does it reach the broker or the consumer, which that engine lies between.
    """
    lab = tmp_path / "lab.yml"
    lab.write_text(json.dumps({"version": "3.9", "services": {"dind": rights()}}))
    files = [ROOT / "deploy" / "docker-compose.dind.yml", lab]
    with up(docker_host, tmp_path, files, ()) as compose:
        await until(lambda: is_ready(compose), seconds=240)
        within = ("exec", compose.run("ps", "-q", "dind"), "docker")
        archive = docker_save(docker, WEB)
        docker.run("exec", "-i", *within[1:], "load", stdin=archive)
        await live(compose, "nested", *within)
        guest = compose.docker.run(*within, "run", "-d", "--network", "tenants", WEB)
        engine = (
            answer(compose, within, guest, "127.0.0.1", 8080),
            answer(compose, within, guest, gateway_of(compose, within, guest), 2376),
        )
        siblings = [
            answer(compose, within, guest, address, port)
            for service, port in (("rabbitmq", 5672), ("consumer", 8080))
            for address in addresses_of(compose, service)
        ]
        beside = docker.containers(NAMES.label)

    assert all(engine)
    assert len(siblings) >= 2
    assert not any(siblings)
    assert beside == []
    assert compose.left() == []


def answer(compose: Compose, within: Sequence[str], container: str, address: str, port: int) -> str:
    """Return what answers the container there; nothing when it gets no connection."""
    # One that stops writing at once is not answered by everybody.
    ask = f"{{ printf 'GET / HTTP/1.0\\r\\n\\r\\n'; sleep 1; }} | timeout 5 nc {address} {port}"
    return compose.docker.run(*within, "exec", container, "sh", "-c", f"{ask} || true")


def gateway_of(compose: Compose, within: Sequence[str], container: str) -> str:
    """Return the address by which the container reaches its engine's host."""
    shown = "{{range .NetworkSettings.Networks}}{{.Gateway}}{{end}}"
    return compose.docker.run(*within, "inspect", "-f", shown, container)


def addresses_of(compose: Compose, service: str) -> list[str]:
    """Return the service's addresses on all of its networks."""
    shown = "{{range .NetworkSettings.Networks}}{{.IPAddress}} {{end}}"
    return compose.docker.run("inspect", "-f", shown, compose.run("ps", "-q", service)).split()


def docker_save(docker: DockerCli, image: str) -> bytes:
    """Return the image as an archive."""
    return subprocess.run(
        [find("docker"), "-H", docker.host, "save", image],
        check=True,
        capture_output=True,
        timeout=60,
    ).stdout
