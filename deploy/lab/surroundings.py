"""A broker and an engine to work with: those that can be reached, or our own.

What answers is used as it is. What does not is installed, brought up for the length of the block,
and taken down after it.
"""

import asyncio
import logging
import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import aio_pika
from aio_pika.exceptions import AMQPError

from deploy.lab import packages
from deploy.lab.servers import Broker, DockerHost

_STANDARD_SOCKET: Final = "unix:///var/run/docker.sock"
_STANDARD_BROKER: Final = "amqp://guest:guest@localhost:5672/"
_PROBE_SECONDS: Final = 5.0

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Surroundings:
    """Where broker and engine are; published ports answer at `address`."""

    broker_url: str
    docker_host: str
    address: str
    has_own_engine: bool
    folder: Path

    def free_port(self, wanted: int) -> int:
        """Return the wanted port of the engine's host, or another one when it is taken."""
        if self.has_own_engine or self.address not in ("127.0.0.1", "localhost"):
            return wanted
        with socket.socket() as probe:
            try:
                probe.bind(("0.0.0.0", wanted))
            except OSError:
                probe.bind(("0.0.0.0", 0))
            return int(probe.getsockname()[1])


@contextmanager
def surroundings(say: Say) -> Iterator[Surroundings]:
    """Give what is there, or what was brought up. Raises LabError when it cannot be had."""
    docker_host = os.environ.get("DOCKER_HOST") or _STANDARD_SOCKET
    broker_url = os.environ.get("LANDLORD_BROKER__URL") or _STANDARD_BROKER
    has_engine, has_broker = _has_engine(docker_host), _has_broker(broker_url)
    packages.ensure(
        (() if has_engine else packages.ENGINE) + (() if has_broker else packages.BROKER)
    )
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="landlord-")))
        address = urlsplit(docker_host).hostname or "127.0.0.1"
        if has_engine:
            say(f"Docker Engine: found at {docker_host}")
        else:
            host = DockerHost(folder / "docker")
            stack.callback(host.close)
            host.start()
            docker_host, address = host.url, host.address
            say(f"Docker Engine: none found, started one (a host of its own, {address})")
        if has_broker:
            say(f"RabbitMQ: found at {_without_password(broker_url)}")
        else:
            broker = Broker(folder / "rabbitmq")
            stack.callback(broker.close)
            broker.start()
            broker_url = broker.url
            say(f"RabbitMQ: none found, started one at {_without_password(broker_url)}")
        yield Surroundings(broker_url, docker_host, address, not has_engine, folder)


def _without_password(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.hostname}:{parts.port or 5672}"


def _has_engine(host: str) -> bool:
    docker = shutil.which("docker")
    if docker is None:
        return False
    try:
        outcome = subprocess.run(
            [docker, "-H", host, "version"],
            capture_output=True,
            check=False,
            timeout=_PROBE_SECONDS,
        )
    except subprocess.TimeoutExpired:
        return False
    return outcome.returncode == 0


def _has_broker(url: str) -> bool:
    async def knock() -> None:
        async with asyncio.timeout(_PROBE_SECONDS):
            connection = await aio_pika.connect(url, timeout=_PROBE_SECONDS)
            await connection.close()

    # That nobody answers is an answer here, nothing to be logged.
    logging.getLogger("aiormq").addHandler(logging.NullHandler())
    try:
        asyncio.run(knock())
    except (AMQPError, OSError, TimeoutError):
        return False
    return True
