"""An engine that cannot be asked: found out in time, and told so that somebody can mend it."""

import asyncio
import json
import signal
import socket
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import pytest

from consumer.adapters.docker import DockerEngine, EngineLimits
from consumer.adapters.docker_client import Endpoint
from consumer.adapters.docker_spec import Naming
from consumer.errors import EngineUnavailable
from deploy.lab.servers import DockerHost
from tests.builders import TENANT_ID

LIMITS = EngineLimits(request_seconds=1.0, facts_seconds=1.0)


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[DockerEngine]:
    """Open an adapter with short deadlines."""
    engine = DockerEngine(endpoint=Endpoint(url=url), naming=Naming("ll-client"), limits=LIMITS)
    async with engine.opened():
        yield engine


@contextmanager
def held(host: DockerHost) -> Iterator[None]:
    """Have the engine do nothing within the block, not even close a connection."""
    host.engine.send(signal.SIGSTOP)
    try:
        yield
    finally:
        host.engine.send(signal.SIGCONT)


@pytest.mark.docker
async def test_an_engine_that_hangs_is_unavailable(docker_host: DockerHost) -> None:
    """Each request has its deadline; once the engine goes on, so do we."""
    async with opened(docker_host.url) as engine:
        await engine.facts()
        with held(docker_host):
            began = time.monotonic()
            with pytest.raises(EngineUnavailable, match=r"gave no answer to list within 1 s"):
                await engine.observe(TENANT_ID)
            with pytest.raises(EngineUnavailable, match=r"gave no answer to info within 1 s"):
                await engine.facts()
            seconds = time.monotonic() - began

        assert seconds < 4
        assert await engine.observe(TENANT_ID) == ()


async def test_a_peer_that_never_answers_is_unavailable() -> None:
    """It takes the connection and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as mute:
        async with opened(f"tcp://127.0.0.1:{mute.getsockname()[1]}") as engine:
            async with asyncio.timeout(5):
                with pytest.raises(EngineUnavailable, match="gave no answer"):
                    await engine.facts()


async def test_an_address_that_nobody_has_is_unavailable() -> None:
    """It is told within seconds, though nothing ever comes back (RFC 5737's address).

    (checklist 61; weakness 49)
    """
    async with opened("tcp://192.0.2.1:2375") as engine, asyncio.timeout(8):
        with pytest.raises(EngineUnavailable, match=r"^failed to connect to docker daemon"):
            await engine.survey()


async def test_a_missing_socket_is_told_as_one(tmp_path: Path) -> None:
    """With what may be the matter (checklist 27)."""
    async with opened(f"unix://{tmp_path}/none.sock") as engine:
        with pytest.raises(EngineUnavailable, match=r"none\.sock is not there; does Docker run"):
            await engine.facts()


async def test_a_socket_without_a_listener_is_told_as_one(tmp_path: Path) -> None:
    """What a dead engine leaves behind is no missing socket."""
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(tmp_path / "left.sock"))

    async with opened(f"unix://{tmp_path}/left.sock") as engine:
        with pytest.raises(EngineUnavailable, match="nothing listens at"):
            await engine.facts()


# --- the version of the API -------------------------------------------------------------------


@asynccontextmanager
async def answering(document: object, status: str = "200 OK") -> AsyncIterator[str]:
    """Have somebody answer every request with this; give the address."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        body = json.dumps(document).encode()
        head = f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
        writer.write(f"{head}\r\nConnection: close\r\n\r\n".encode() + body)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        yield f"tcp://127.0.0.1:{server.sockets[0].getsockname()[1]}"


async def test_an_engine_that_is_too_old_is_refused() -> None:
    """Whatever is asked, it is told which version would do, and nothing is tried."""
    async with (
        answering({"ApiVersion": "1.40", "Version": "19.03.15"}) as url,
        opened(url) as engine,
    ):
        with pytest.raises(EngineUnavailable, match=r"speaks version 1\.40 .*1\.41 is the least"):
            await engine.observe(TENANT_ID)
        with pytest.raises(EngineUnavailable, match=r"^failed to connect to docker daemon: tcp:"):
            await engine.facts()


async def test_what_is_no_engine_is_told_as_such() -> None:
    """Another service on the port, for instance."""
    async with answering({"hello": "world"}) as url, opened(url) as engine:
        with pytest.raises(EngineUnavailable, match="does not answer as a Docker Engine does"):
            await engine.survey()


@pytest.mark.parametrize("document", [{"error": "away"}, ["away"], None])
async def test_an_error_in_other_words_than_an_engines_is_unavailable(document: object) -> None:
    """A proxy before the socket, for instance, that says itself that the engine is away."""
    async with answering(document, "503 Away") as url, opened(url) as engine:
        with pytest.raises(EngineUnavailable, match="an error without a message"):
            await engine.survey()


@pytest.mark.docker
async def test_another_engine_in_its_place_is_agreed_with_anew(docker_host: DockerHost) -> None:
    """One that no longer knows the version that was agreed upon is no tenant's fault."""
    async with opened(docker_host.url) as engine:
        await engine.facts()
        engine._client._use_version("v1.99")
        with pytest.raises(EngineUnavailable, match=r"client version 1\.99 is too new"):
            await engine.observe(TENANT_ID)

        assert await engine.observe(TENANT_ID) == ()
