"""Pulls from a real registry: shared, bounded, given up when nothing moves, with a login."""

import asyncio
import io
import os
import tarfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from consumer.adapters.docker import DockerEngine, Observers
from consumer.adapters.docker_client import Endpoint
from consumer.adapters.docker_spec import Naming
from consumer.adapters.pulls import PullLimits
from consumer.adapters.registries import FindCredentials, LoginFile, RegistryLogins
from consumer.errors import EngineError
from consumer.model import Reason, TenantId
from deploy.lab.docker_cli import DockerCli
from deploy.lab.registry import PASSWORD, USERNAME, registry
from deploy.lab.servers import DockerHost
from tests.builders import TENANT_ID, make_spec
from tests.conftest import WEB
from tests.faults.proxy import Proxy, proxy
from tests.faults.trickle import trickling_registry

pytestmark = pytest.mark.docker

OTHER = TenantId("other")
LIMITS = PullLimits(first_sign_seconds=1.0, idle_seconds=1.0)
LAYER_BYTES = 2_000_000
HALF = LAYER_BYTES // 2
"""More bytes than the registry's documents have, fewer than the image's one layer."""


@pytest.fixture(scope="module")
def place(docker_host: DockerHost) -> Iterator[str]:
    """Run a registry that has `web:1`, and `small:1` whose layer the engine has already."""
    with registry(docker_host) as address:
        docker = DockerCli(docker_host.url)
        push(docker, f"{address}/web:1")
        docker.run("tag", WEB, f"{address}/small:1")
        docker.run("push", f"{address}/small:1")
        docker.run("rmi", f"{address}/small:1")
        yield address


def push(docker: DockerCli, image: str, *options: str) -> None:
    """Have an image in its registry, of one layer that the engine has no more."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        member = tarfile.TarInfo("noise")
        member.size = LAYER_BYTES
        archive.addfile(member, io.BytesIO(os.urandom(LAYER_BYTES)))
    docker.run("import", "-", image, stdin=buffer.getvalue())
    docker.run(*options, "push", image)
    docker.run("rmi", image)


@asynccontextmanager
async def opened(
    host: DockerHost,
    *,
    url: str | None = None,
    limits: PullLimits | None = None,
    credentials: FindCredentials = lambda _registry: None,
    pulled: Callable[[float], None] = lambda _seconds: None,
) -> AsyncIterator[DockerEngine]:
    """Open an adapter."""
    engine = DockerEngine(
        endpoint=Endpoint(url=url or host.url),
        naming=Naming("ll-images"),
        pull_limits=limits,
        credentials=credentials,
        observers=Observers(phase=lambda _phase, seconds: pulled(seconds)),
    )
    async with engine.opened():
        yield engine


@pytest.fixture
async def slow(
    docker_host: DockerHost, docker: DockerCli, place: str
) -> AsyncIterator[tuple[Proxy, str]]:
    """Give a proxy before the registry, and the image's name there; the engine forgets it after."""
    listening = docker_host.listen()
    image = f"127.0.0.1:{listening.getsockname()[1]}/web:1"
    target = (docker_host.address, int(place.rpartition(":")[2]))
    async with proxy(target, listening) as line:
        yield line, image
    if docker.has_image(image):
        docker.run("rmi", image)


async def until(is_so: Callable[[], bool]) -> None:
    """Wait until it is so."""
    async with asyncio.timeout(10):
        while not is_so():  # noqa: ASYNC110 - what is waited for happens outside of this process
            await asyncio.sleep(0.02)


async def test_equal_pulls_are_one(docker_host: DockerHost, slow: tuple[Proxy, str]) -> None:
    """Two tenants that want the same image wait for one transfer."""
    line, image = slow
    pulls: list[float] = []
    line.stall_replies_after(HALF)

    async with opened(docker_host, pulled=pulls.append) as engine, asyncio.TaskGroup() as group:
        group.create_task(engine.prepare(TENANT_ID, make_spec(image=image)))
        group.create_task(engine.prepare(OTHER, make_spec(image=image)))
        await until(lambda: line.stalled > 0)
        line.mend()

    assert len(pulls) == 1


async def test_a_stalled_transfer_is_given_up(
    docker_host: DockerHost, slow: tuple[Proxy, str]
) -> None:
    """Without progress for so long it is a failed pull, not an engine that is away."""
    line, image = slow
    line.stall_replies_after(HALF)

    async with opened(docker_host, limits=LIMITS) as engine:
        with pytest.raises(EngineError, match=r"^failed to pull image .*no progress") as caught:
            await engine.prepare(TENANT_ID, make_spec(image=image))

    assert (caught.value.reason, caught.value.is_transient) == (Reason.IMAGE_PULL_FAILED, True)


async def test_a_mute_registry_is_given_up(
    docker_host: DockerHost, slow: tuple[Proxy, str]
) -> None:
    """So is one that takes the connection and never says a word."""
    line, image = slow
    line.stall_replies()

    async with opened(docker_host, limits=LIMITS) as engine:
        with pytest.raises(EngineError, match=r"^failed to pull image .*no progress") as caught:
            await engine.prepare(TENANT_ID, make_spec(image=image))

    assert (caught.value.reason, caught.value.is_transient) == (Reason.IMAGE_PULL_FAILED, True)


async def test_a_given_up_pull_can_be_tried_again(
    docker_host: DockerHost, docker: DockerCli, slow: tuple[Proxy, str]
) -> None:
    """Once the registry answers again, the next try brings the image in."""
    line, image = slow
    line.stall_replies_after(HALF)

    async with opened(docker_host, limits=LIMITS) as engine:
        with pytest.raises(EngineError):
            await engine.prepare(TENANT_ID, make_spec(image=image))
        line.mend()
        await engine.prepare(TENANT_ID, make_spec(image=image))

    assert docker.has_image(image)


async def test_a_pull_goes_on_while_somebody_waits(
    docker_host: DockerHost, docker: DockerCli, slow: tuple[Proxy, str]
) -> None:
    """One of two who waited is cancelled, at once; the other still gets the image."""
    line, image = slow
    line.stall_replies_after(HALF)

    async with opened(docker_host) as engine:
        leaving = asyncio.create_task(engine.prepare(TENANT_ID, make_spec(image=image)))
        staying = asyncio.create_task(engine.prepare(OTHER, make_spec(image=image)))
        await until(lambda: line.stalled > 0)
        leaving.cancel()
        await asyncio.wait((leaving,), timeout=1)
        line.mend()
        await staying

    assert leaving.cancelled()
    assert docker.has_image(image)


async def test_a_pull_that_nobody_waits_for_ends(
    docker_host: DockerHost, docker: DockerCli, slow: tuple[Proxy, str]
) -> None:
    """The engine does not bring in what nobody wants; somebody who comes later starts anew."""
    line, image = slow
    line.stall_replies_after(HALF)

    async with opened(docker_host) as engine:
        waiting = asyncio.create_task(engine.prepare(TENANT_ID, make_spec(image=image)))
        await until(lambda: line.stalled > 0)
        waiting.cancel()
        await asyncio.sleep(0.5)
        line.mend()
        await asyncio.sleep(1)
        is_there = docker.has_image(image)
        await engine.prepare(TENANT_ID, make_spec(image=image))

    assert not is_there
    assert docker.has_image(image)


async def test_a_held_pull_holds_up_nothing_else(
    docker_host: DockerHost, slow: tuple[Proxy, str]
) -> None:
    """While the one place for pulls is taken, requests and images that are there go on."""
    line, image = slow
    line.stall_replies_after(HALF)

    async with opened(docker_host, limits=PullLimits(pulls=1)) as engine:
        waiting = asyncio.create_task(engine.prepare(TENANT_ID, make_spec(image=image)))
        await until(lambda: line.stalled > 0)
        async with asyncio.timeout(2):
            await engine.facts()
            await engine.prepare(OTHER, make_spec(image=WEB))
        waiting.cancel()
        await asyncio.wait((waiting,))


@pytest.mark.parametrize("kind", ["mute", "stalled", "trickling"])
async def test_a_pull_that_does_not_move_holds_up_no_other(
    docker_host: DockerHost, docker: DockerCli, place: str, slow: tuple[Proxy, str], kind: str
) -> None:
    """It steps aside, and the one place for pulls is another registry's."""
    line, image = slow
    if kind == "mute":
        line.stall_replies()
    else:
        line.stall_replies_after(HALF)
    limits = PullLimits(pulls=1, patience_seconds=0.5)

    async with (
        opened(docker_host, limits=limits) as engine,
        trickling_registry(docker_host, pause_seconds=0.005) as trickle,
    ):
        wanted = trickle if kind == "trickling" else image
        waiting = asyncio.create_task(engine.prepare(TENANT_ID, make_spec(image=wanted)))
        await asyncio.sleep(0.2)
        async with asyncio.timeout(8):
            await engine.prepare(OTHER, make_spec(image=f"{place}/small:1"))
        is_waiting = not waiting.done()
        waiting.cancel()
        await asyncio.wait((waiting,))

    docker.run("rmi", f"{place}/small:1")
    assert is_waiting


async def test_who_waits_for_a_place_does_not_wait_for_all_patience(
    docker_host: DockerHost, docker: DockerCli, place: str, slow: tuple[Proxy, str]
) -> None:
    """Registries that are mute by the dozen would keep it waiting ten seconds each."""
    line, image = slow
    line.stall_replies()

    async with opened(docker_host, limits=PullLimits(pulls=1)) as engine:
        waiting = asyncio.create_task(engine.prepare(TENANT_ID, make_spec(image=image)))
        await asyncio.sleep(0.2)
        async with asyncio.timeout(8):
            await engine.prepare(OTHER, make_spec(image=f"{place}/small:1"))
        is_waiting = not waiting.done()
        waiting.cancel()
        await asyncio.wait((waiting,))

    docker.run("rmi", f"{place}/small:1")
    assert is_waiting


async def test_a_trickle_is_given_up(docker_host: DockerHost) -> None:
    """Signs come all the time; what counts is how far they get."""
    async with (
        opened(docker_host, limits=LIMITS) as engine,
        trickling_registry(docker_host, pause_seconds=0.002) as image,
    ):
        with pytest.raises(EngineError, match=r"^failed to pull image .*no progress") as caught:
            async with asyncio.timeout(10):
                await engine.prepare(TENANT_ID, make_spec(image=image))

    assert (caught.value.reason, caught.value.is_transient) == (Reason.IMAGE_PULL_FAILED, True)


async def test_places_aside_are_bounded_too(
    docker_host: DockerHost, slow: tuple[Proxy, str]
) -> None:
    """Where none is left, a pull that does not move is given up, to be tried again."""
    line, image = slow
    line.stall_replies()
    limits = PullLimits(aside=0, patience_seconds=0.5)

    async with opened(docker_host, limits=limits) as engine:
        with pytest.raises(EngineError, match=r"no progress for .* leave it no room") as caught:
            async with asyncio.timeout(8):
                await engine.prepare(TENANT_ID, make_spec(image=image))

    assert caught.value.is_transient


async def test_pulls_are_bounded_in_number(
    docker_host: DockerHost, docker: DockerCli, place: str, slow: tuple[Proxy, str]
) -> None:
    """With one place, a second image waits for the first, whoever would be faster."""
    line, image = slow
    order: list[str] = []
    line.stall_replies_after(HALF)

    async def prepare(tenant_id: TenantId, wanted: str) -> None:
        await engine.prepare(tenant_id, make_spec(image=wanted, pull_policy="always"))
        order.append(wanted)

    limits = PullLimits(pulls=1, awaited_patience_seconds=10)
    async with opened(docker_host, limits=limits) as engine:
        first = asyncio.create_task(prepare(TENANT_ID, image))
        await until(lambda: line.stalled > 0)
        second = asyncio.create_task(prepare(OTHER, f"{place}/small:1"))
        await asyncio.wait((second,), timeout=2)
        line.mend()
        await asyncio.gather(first, second)

    docker.run("rmi", f"{place}/small:1")
    assert order == [image, f"{place}/small:1"]


async def test_a_cut_transfer_is_taken_up_again(
    docker_host: DockerHost, docker: DockerCli, slow: tuple[Proxy, str]
) -> None:
    """The engine tries on by itself; its waiting is progress too."""
    line, image = slow
    line.stall_replies_after(HALF)

    async with opened(docker_host) as engine:
        waiting = asyncio.create_task(engine.prepare(TENANT_ID, make_spec(image=image)))
        await until(lambda: line.stalled > 0)
        line.drop()
        line.mend()
        await waiting

    assert docker.has_image(image)


async def test_a_pull_whose_progress_is_lost_is_no_success(
    docker_host: DockerHost, slow: tuple[Proxy, str], tmp_path: Path
) -> None:
    """The connection to the engine breaks amid the transfer: the image is not there."""
    line, image = slow
    line.stall_replies_after(HALF)
    place = tmp_path / "proxy.sock"

    async with (
        proxy(Path(docker_host.url.removeprefix("unix://")), place) as between,
        opened(docker_host, url=f"unix://{place}") as engine,
    ):
        waiting = asyncio.create_task(engine.prepare(TENANT_ID, make_spec(image=image)))
        await until(lambda: line.stalled > 0)
        between.drop()
        with pytest.raises(EngineError) as caught:
            await waiting

    assert caught.value.is_transient


# --- pull policies and references -------------------------------------------------------------


async def test_a_digest_is_pulled(docker_host: DockerHost, docker: DockerCli, place: str) -> None:
    """Also together with a tag, which then only is for people."""
    docker.run("pull", f"{place}/web:1")
    (named,) = docker.run(
        "inspect", "-f", "{{range .RepoDigests}}{{println .}}{{end}}", f"{place}/web:1"
    ).split()
    digest = named.partition("@")[2]
    docker.run("rmi", f"{place}/web:1")

    async with opened(docker_host) as engine:
        await engine.prepare(TENANT_ID, make_spec(image=f"{place}/web:other@{digest}"))

    assert docker.run("inspect", "-f", "{{.RepoDigests}}", named) == f"[{named}]"
    docker.run("rmi", named)


@pytest.mark.parametrize(("policy", "pulls"), [("always", 2), ("if_not_present", 1)])
async def test_an_image_that_is_there_is_pulled_by_policy(
    docker_host: DockerHost, docker: DockerCli, place: str, policy: str, pulls: int
) -> None:
    """`always` asks the registry each time; the default takes what is there."""
    image = f"{place}/web:1"
    done: list[float] = []

    async with opened(docker_host, pulled=done.append) as engine:
        for _ in range(2):
            await engine.prepare(TENANT_ID, make_spec(image=image, pull_policy=policy))

    docker.run("rmi", image)
    assert len(done) == pulls


# --- logins -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def private(
    docker_host: DockerHost, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[str, Path]]:
    """Run a private registry that has `web:1`; give its address and Docker's config.json for it."""
    folder = tmp_path_factory.mktemp("login")
    docker = DockerCli(docker_host.url)
    with registry(docker_host, is_private=True) as address:
        login = ("login", "-u", USERNAME, "--password-stdin", address)
        docker.run("--config", str(folder), *login, stdin=PASSWORD.encode())
        push(docker, f"{address}/web:1", "--config", str(folder))
        yield address, folder / "config.json"


async def test_without_a_login_the_pull_is_denied(
    docker_host: DockerHost, private: tuple[str, Path]
) -> None:
    """It is told as such, with the engine's own words."""
    async with opened(docker_host) as engine:
        with pytest.raises(EngineError, match=r"^failed to pull image") as caught:
            await engine.prepare(TENANT_ID, make_spec(image=f"{private[0]}/web:1"))

    assert (caught.value.reason, caught.value.is_transient) == (Reason.IMAGE_PULL_DENIED, True)
    assert "no basic auth credentials" in str(caught.value)


@pytest.mark.parametrize(
    ("status", "body"),
    [
        pytest.param("403 Forbidden", "<html>{}</html>", id="a page"),
        pytest.param(
            "401 Unauthorized", '{{"errors": [{{"code": "UNKNOWN", "message": "{}"}}]}}', id="error"
        ),
        pytest.param(
            "503 Service Unavailable",
            '{{"errors": [{{"code": "UNAVAILABLE", "message": "{}", "detail": "{}"}}]}}',
            id="unavailable",
        ),
        pytest.param("200 OK", '{{"schemaVersion": "{}", "mediaType": "{}"}}', id="a manifest"),
    ],
)
async def test_nothing_of_what_a_registry_answers_is_passed_on(
    docker_host: DockerHost, status: str, body: str
) -> None:
    """Whoever may name an image does not hear what a server within the engine's reach says."""
    content = body.format(*["private-page"] * 2).encode()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = await reader.readuntil(b"\r\n\r\n")
        is_ping = request.startswith(b"GET /v2/ ")
        said = "200 OK" if is_ping else status
        head = f"HTTP/1.1 {said}\r\nContent-Type: application/json\r\nConnection: close\r\n"
        length = f"Content-Length: {0 if is_ping else len(content)}\r\n\r\n"
        writer.write((head + length).encode() + (b"" if is_ping else content))
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, sock=docker_host.listen())
    port = server.sockets[0].getsockname()[1]
    async with server, opened(docker_host) as engine:
        with pytest.raises(EngineError, match=r"^failed to pull image") as caught:
            await engine.prepare(TENANT_ID, make_spec(image=f"127.0.0.1:{port}/web:1"))

    assert "private-page" not in str(caught.value)
    assert Reason(caught.value.reason).value.startswith("image_")


async def test_a_wrong_password_is_denied_and_not_told(
    docker_host: DockerHost, private: tuple[str, Path], tmp_path: Path
) -> None:
    """What was tried stands in no message."""
    address, _ = private
    (tmp_path / "password").write_text("s3cret-and-wrong")
    logins = RegistryLogins({address: LoginFile(USERNAME, tmp_path / "password")})

    async with opened(docker_host, credentials=logins.find) as engine:
        with pytest.raises(EngineError) as caught:
            await engine.prepare(TENANT_ID, make_spec(image=f"{address}/web:1"))

    assert caught.value.reason == Reason.IMAGE_PULL_DENIED
    assert "s3cret" not in str(caught.value)


async def test_a_password_file_opens_the_registry(
    docker_host: DockerHost, docker: DockerCli, private: tuple[str, Path], tmp_path: Path
) -> None:
    """It is read when it is needed: a password that comes later holds."""
    address, _ = private
    logins = RegistryLogins({address: LoginFile(USERNAME, tmp_path / "password")})
    spec = make_spec(image=f"{address}/web:1")

    async with opened(docker_host, credentials=logins.find) as engine:
        with pytest.raises(EngineError, match="No such file") as caught:
            await engine.prepare(TENANT_ID, spec)
        (tmp_path / "password").write_text(f"{PASSWORD}\n")
        await engine.prepare(TENANT_ID, spec)

    assert caught.value.reason == Reason.IMAGE_PULL_DENIED
    docker.run("rmi", spec.image)


async def test_dockers_own_file_opens_the_registry(
    docker_host: DockerHost, docker: DockerCli, private: tuple[str, Path]
) -> None:
    """What `docker login` wrote is understood."""
    address, config = private
    logins = RegistryLogins({}, docker_config=config)
    spec = make_spec(image=f"{address}/web:1")

    async with opened(docker_host, credentials=logins.find) as engine:
        await engine.prepare(TENANT_ID, spec)

    docker.run("rmi", spec.image)
