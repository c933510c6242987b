"""Secrets in real containers: whose they are, who can read them, and when their delivery fails."""

import base64
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from consumer.adapters.docker import DockerEngine
from consumer.adapters.docker_client import Endpoint
from consumer.adapters.docker_spec import Naming
from consumer.errors import EngineError, EngineUnavailable
from consumer.model import Container, ContainerStatus, Reason
from deploy.lab.docker_cli import DockerCli
from deploy.lab.servers import DockerHost
from tests.builders import TENANT_ID
from tests.conftest import WEB
from tests.contract.engines import create, run, shell_spec
from tests.faults.proxy import Fate, Proxy, Request, proxy

pytestmark = pytest.mark.docker

PREFIX = "ll-secrets"
WORKER = "landlord-test/worker:1"
CROWD = "landlord-test/crowd:1"
ODD = "landlord-test/odd:1"
SECRET = "db_password"
CONTENT = b"s3cret\nwith lines\x00and more"


@pytest.fixture(scope="module", autouse=True)
def images(docker_host: DockerHost) -> Iterator[None]:
    """Have an image whose user has a name, and one with more users than anybody reads."""
    cli, changes = DockerCli(docker_host.url), ("USER worker",)
    worker = "worker:x:4711:4712::/:/bin/sh\n"
    cli.import_image(WORKER, changes, files={"etc/passwd": f"root:x:0:0::/:/bin/sh\n{worker}"})
    crowd = "somebody:x:1:1::/:/bin/sh\n" * 50_000
    cli.import_image(CROWD, changes, files={"etc/passwd": f"{crowd}{worker}"})
    odd = f"worker:x:{'9' * 5000}:1::/:/bin/sh\n"
    cli.import_image(ODD, changes, files={"etc/passwd": odd})
    yield
    cli.run("rmi", "-f", WORKER, CROWD, ODD)


@pytest.fixture
def secrets_dir(tmp_path: Path) -> Path:
    """Give the operator's folder, with one secret of the tenant's."""
    folder = tmp_path / "secrets"
    (folder / TENANT_ID).mkdir(parents=True)
    (folder / TENANT_ID / SECRET).write_bytes(CONTENT)
    return folder


@pytest.fixture
async def far_engine(
    docker_host: DockerHost, docker: DockerCli, tmp_path: Path, secrets_dir: Path
) -> AsyncIterator[tuple[DockerEngine, Proxy]]:
    """Open an adapter behind a proxy that can lose answers."""
    place = tmp_path / "proxy.sock"
    async with proxy(Path(docker_host.url.removeprefix("unix://")), place) as line:
        engine = DockerEngine(
            endpoint=Endpoint(url=f"unix://{place}"),
            naming=Naming(PREFIX),
            secrets_dir=secrets_dir,
        )
        async with engine.opened():
            yield engine, line
    docker.remove_containers(f"{PREFIX}.owner={PREFIX}")


@pytest.fixture
def engine(far_engine: tuple[DockerEngine, Proxy]) -> DockerEngine:
    """Give the adapter alone."""
    return far_engine[0]


def content(docker: DockerCli, container: Container) -> bytes:
    """Return the secret as the container's own user reads it."""
    read = docker.run("exec", container.container_id, "base64", f"/run/secrets/{SECRET}")
    return base64.b64decode(read)


def rights(docker: DockerCli, container: Container) -> str:
    """Return mode, user and group of the secret."""
    words = ("stat", "-c", "%a %u %g", f"/run/secrets/{SECRET}")
    return docker.run("exec", "-u", "0", container.container_id, *words)


@pytest.mark.parametrize(
    ("image", "user", "owner"),
    [
        pytest.param(WEB, None, "0 0", id="nobody said whom"),
        pytest.param(WEB, "1000", "1000 0", id="a number"),
        pytest.param(WEB, "1000:2000", "1000 2000", id="two numbers"),
        pytest.param(WORKER, None, "4711 4712", id="the image's, by name"),
        pytest.param(WORKER, "4711", "4711 4712", id="a number with a group of its own"),
        pytest.param(WORKER, "worker:5", "4711 5", id="a name and a group"),
        pytest.param(WORKER, "0", "0 0", id="root in spite of the image"),
    ],
)
async def test_a_secret_belongs_to_the_containers_user(
    engine: DockerEngine, docker: DockerCli, image: str, user: str | None, owner: str
) -> None:
    """Nobody else can read it, and the program can."""
    spec = shell_spec(image=image, user=user, secrets=(SECRET,))

    started = await run(engine, spec)

    assert rights(docker, started) == f"400 {owner}"
    assert content(docker, started) == CONTENT


async def test_a_read_only_container_gets_its_secrets(
    engine: DockerEngine, docker: DockerCli
) -> None:
    """They lie in a volume of their own, which goes with the container."""
    spec = shell_spec(read_only=True, tmpfs=(("/run", ""),), secrets=(SECRET,))
    started = await run(engine, spec)
    assert content(docker, started) == CONTENT
    volume = docker.inspect(started.container_id, "(index .Mounts 0).Name")

    await engine.remove(started)

    assert volume not in docker.run("volume", "ls", "-q").split()


async def test_a_user_who_cannot_be_found_leaves_them_to_root(
    engine: DockerEngine, docker: DockerCli
) -> None:
    """A list of users without end is not read to its end: it is the tenant's."""
    started = await run(engine, shell_spec(image=CROWD, secrets=(SECRET,)))

    assert rights(docker, started) == "400 0 0"


async def test_a_user_with_an_impossible_number_is_the_tenants_fault(engine: DockerEngine) -> None:
    """The image is the tenant's, and may say anything; it is told as a start that failed."""
    made = await create(engine, shell_spec(image=ODD, secrets=(SECRET,)))

    with pytest.raises(EngineError, match=r"^failed to start container") as caught:
        await engine.start(made)

    assert caught.value.reason == Reason.START_FAILED


async def lose_replies_to_deliveries(request: Request) -> Fate:
    """Judge so; see `proxy.Judge`. Not one reply alone: HTTP clients repeat a PUT by themselves."""
    return Fate.LOSE_REPLY if request.method == "PUT" else Fate.PASS


async def test_a_lost_delivery_is_made_good_before_the_start(
    far_engine: tuple[DockerEngine, Proxy], docker: DockerCli
) -> None:
    """Whether the secrets are in it is not known then; it starts only once they are."""
    engine, line = far_engine
    made = await create(engine, shell_spec(secrets=(SECRET,)))
    line.judge = lose_replies_to_deliveries

    with pytest.raises(EngineUnavailable):
        await engine.start(made)
    line.mend()
    (seen,) = await engine.observe(TENANT_ID)
    started = await engine.start(seen)

    assert seen.status is ContainerStatus.CREATED
    assert content(docker, started) == CONTENT


async def test_a_new_start_brings_the_secret_of_that_day(
    engine: DockerEngine, docker: DockerCli, secrets_dir: Path
) -> None:
    """A secret that was changed meanwhile arrives when the consumer starts the container again."""
    stopped = await engine.stop(await run(engine, shell_spec(secrets=(SECRET,))))
    (secrets_dir / TENANT_ID / SECRET).write_bytes(b"new")

    started = await engine.start(stopped)

    assert content(docker, started) == b"new"


async def test_only_the_names_are_on_the_container(engine: DockerEngine, docker: DockerCli) -> None:
    """What `docker inspect` shows has no trace of the value."""
    started = await run(engine, shell_spec(secrets=(SECRET,)))

    shown = docker.run("inspect", started.container_id)

    assert started.secrets == (SECRET,)
    assert "s3cret" not in shown


async def test_secrets_go_with_their_container(
    docker_host: DockerHost, docker: DockerCli, secrets_dir: Path
) -> None:
    """Whoever removes it: we at once; after somebody else, what is left is found and removed."""
    prefix = "ll-secrets-left"

    def volumes() -> list[str]:
        words = ("volume", "ls", "-q", "--filter", f"name={prefix}-secrets-")
        return docker.run(*words).split()

    endpoint, naming = Endpoint(url=docker_host.url), Naming(prefix)
    async with DockerEngine(
        endpoint=endpoint, naming=naming, secrets_dir=secrets_dir
    ).opened() as it:
        removed = await run(it, shell_spec(secrets=(SECRET,)))
        held = volumes()
        await it.remove(removed)
        left = volumes()

        by_hand = await run(it, shell_spec(secrets=(SECRET,)))
        await it.tidy()
        await it.tidy()
        is_kept = content(docker, by_hand) == CONTENT
        docker.run("rm", "-f", by_hand.container_id)
        await it.tidy()
        after_once = volumes()
        await it.tidy()

    assert (held, left) == ([removed.secrets_volume], [])
    assert is_kept
    assert after_once == [by_hand.secrets_volume]
    assert volumes() == []
