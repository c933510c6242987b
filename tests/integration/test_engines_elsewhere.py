"""Engines on other hosts and for other users: by TLS, behind a firewall, without a permission."""

import asyncio
import os
import ssl
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import pytest

from consumer.adapters.certificates import tls_context
from consumer.adapters.docker import DockerEngine
from consumer.adapters.docker_client import Endpoint
from consumer.adapters.docker_spec import Naming
from consumer.errors import EngineUnavailable
from consumer.model import ContainerStatus
from deploy.lab.packages import find
from deploy.lab.servers import DockerHost, free_port
from tests.contract.engines import run, shell_spec
from tests.faults.proxy import proxy
from tests.secured_engine import PORT, SecuredEngine, secured_engine

pytestmark = pytest.mark.docker

NOBODY = 65534


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecuredEngine]:
    """Run an engine that takes nobody without a certificate of its CA."""
    with secured_engine(tmp_path_factory.mktemp("tls")) as engine:
        yield engine


@asynccontextmanager
async def opened(url: str, tls: ssl.SSLContext | None = None) -> AsyncIterator[DockerEngine]:
    """Open an adapter."""
    endpoint = Endpoint(url=url, tls=tls)
    async with DockerEngine(endpoint=endpoint, naming=Naming("ll-elsewhere")).opened() as engine:
        yield engine


async def trouble(url: str, tls: ssl.SSLContext | None = None) -> str:
    """Return how it is told that the engine cannot be asked."""
    async with opened(url, tls) as engine:
        with pytest.raises(EngineUnavailable) as caught:
            await engine.survey()
    assert str(caught.value).startswith("failed to connect to docker daemon: ")
    return str(caught.value)


async def test_an_engine_is_driven_by_tls(secured: SecuredEngine) -> None:
    """With the CA and a client certificate: a container's life, and its events.

    (checklist 15, 17; weakness 48)
    """
    async with opened(secured.url, secured.context()) as engine:
        async with engine.events() as events:
            started = await run(engine, shell_spec())
            async with asyncio.timeout(10):
                actions = [(await anext(events)).action for _ in range(2)]
        await engine.remove(started)
        left = await engine.survey()

    assert (started.status, left) == (ContainerStatus.RUNNING, ())
    assert actions == ["create", "start"]


async def test_an_engine_may_go_unverified(secured: SecuredEngine) -> None:
    """Where the operator says so, its certificate is whoever's."""
    async with opened(secured.url, secured.context("other-ca", verify=False)) as engine:
        assert (await engine.facts()).version


async def test_the_certificate_of_another_ca_is_not_trusted(secured: SecuredEngine) -> None:
    """It is told by the setting to look at (checklist 17)."""
    words = await trouble(secured.url, secured.context("other-ca"))

    assert f"the certificate of {secured.url} is not trusted: " in words
    assert "compute.docker.tls.ca" in words


async def test_the_certificate_of_another_host_is_not_trusted(secured: SecuredEngine) -> None:
    """It was made for the engine's own address, not for this one."""
    here = ("127.0.0.1", free_port())
    async with proxy((secured.host.address, PORT), here):
        words = await trouble(f"tcp://127.0.0.1:{here[1]}", secured.context())

    assert "is not trusted: IP address mismatch" in words


@pytest.mark.parametrize("cert", [None, "other-"])
async def test_without_a_certificate_of_its_ca_nobody_is_let_in(
    secured: SecuredEngine, cert: str | None
) -> None:
    """It is told what the engine asks for, also when ours is another CA's (checklist 17)."""
    words = await trouble(secured.url, secured.context(cert=cert))

    assert "it asks for a client certificate (compute.docker.tls.cert and key)" in words


async def test_clear_text_to_a_tls_port_is_told(secured: SecuredEngine) -> None:
    """The engine answers in clear text that it would have TLS."""
    assert "it speaks TLS: set compute.docker.tls" in await trouble(secured.url)


async def test_tls_to_a_clear_text_port_is_told(docker_host: DockerHost) -> None:
    """What comes back is no TLS."""
    here = ("127.0.0.1", free_port())
    async with proxy(Path(docker_host.url.removeprefix("unix://")), here):
        words = await trouble(f"tcp://127.0.0.1:{here[1]}", tls_context())

    assert "does it speak TLS at all?" in words


@contextmanager
def dropped(host: DockerHost) -> Iterator[None]:
    """Have a firewall drop what comes for the engine, without a word."""
    rule = ("INPUT", "-p", "tcp", "--dport", str(PORT), "-j", "DROP")
    for verb in ("-I", "-D"):
        subprocess.run(host.inside(find("iptables"), verb, *rule), check=True, timeout=10)
        if verb == "-I":
            yield


async def test_dropped_packets_are_told_within_seconds(secured: SecuredEngine) -> None:
    """Long before a request's own deadline; the next try after that succeeds (checklist 61)."""
    async with opened(secured.url, secured.context()) as engine:
        with dropped(secured.host):
            began = time.monotonic()
            with pytest.raises(EngineUnavailable) as caught:
                await engine.survey()
            seconds = time.monotonic() - began
        lines = await engine.survey()

    assert f"no connection to {secured.url} within 5 s" in str(caught.value)
    assert str(caught.value).startswith("failed to connect to docker daemon: ")
    assert seconds < 8
    assert lines == ()


# --- who may use the socket -------------------------------------------------------------------


@contextmanager
def as_nobody(group: int = NOBODY) -> Iterator[None]:
    """Do it without any right of root's, as a member of this group."""
    groups = os.getgroups()
    os.setgroups([])
    os.setegid(group)
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)
        os.setgroups(groups)


@pytest.fixture
def public(docker_host: DockerHost) -> Iterator[Path]:
    """Give a folder that everybody may enter, with the engine's socket, for root's group alone."""
    with tempfile.TemporaryDirectory(prefix="ll-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        place = Path(docker_host.url.removeprefix("unix://"))
        (folder / "docker.sock").hardlink_to(place)
        mode, owner = place.stat().st_mode, place.stat()
        place.chmod(0o660)
        yield folder
        place.chmod(mode)
        os.chown(place, owner.st_uid, owner.st_gid)


async def test_a_forbidden_socket_is_told_from_a_missing_one(public: Path) -> None:
    """Each with its own cure, for a user without rights too (checklist 27)."""
    with as_nobody():
        forbidden = await trouble(f"unix://{public}/docker.sock")
        missing = await trouble(f"unix://{public}/none.sock")

    assert f"permission denied at unix://{public}/docker.sock; is this user in" in forbidden
    assert f"unix://{public}/none.sock is not there; does Docker run" in missing


async def test_the_sockets_group_is_enough(public: Path) -> None:
    """A user without rights who is in it drives the engine (checklist 27)."""
    socket = public / "docker.sock"
    os.chown(socket, 0, 4242)

    with as_nobody(group=4242):
        async with opened(f"unix://{socket}") as engine:
            assert (await engine.facts()).version
