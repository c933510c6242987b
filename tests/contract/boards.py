"""Boards under test: the one in memory and those that engines keep, simulated and real."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final
from uuid import uuid4

from consumer.adapters.docker_board import DockerBoard
from consumer.adapters.docker_client import Endpoint
from consumer.adapters.docker_spec import Naming
from consumer.ports import Board
from deploy.lab.docker_cli import DockerCli
from deploy.lab.servers import DockerHost
from tests.fakes.board import FakeBoard, Records
from tests.simulated.host import SimulatedHost
from tests.simulated.server import serving

OpenBoards = Callable[[], AbstractAsyncContextManager[tuple[Board, Board]]]
"""Two consumers' ways to the same records; the records are gone afterwards."""

BOARDS: Final = ("fake", "simulated", "docker")


@asynccontextmanager
async def fake_boards() -> AsyncIterator[tuple[Board, Board]]:
    records = Records()
    yield FakeBoard(records), FakeBoard(records)


@asynccontextmanager
async def docker_boards(host: DockerHost) -> AsyncIterator[tuple[Board, Board]]:
    naming = Naming(prefix=f"board-{uuid4().hex[:8]}", instance="of-a-test")
    try:
        async with _boards(host.url, naming) as both:
            yield both
    finally:
        DockerCli(host.url).remove_volumes(f"{naming.label('owner')}={naming.prefix}")


@asynccontextmanager
async def simulated_boards() -> AsyncIterator[tuple[Board, Board]]:
    with TemporaryDirectory(prefix="ll-") as folder:
        async with (
            serving(SimulatedHost(), Path(folder) / "engine.sock") as url,
            _boards(url, Naming(instance="of-a-test")) as both,
        ):
            yield both


@asynccontextmanager
async def _boards(url: str, naming: Naming) -> AsyncIterator[tuple[Board, Board]]:
    first, second = [
        DockerBoard(endpoint=Endpoint(url=url), naming=naming, host_name=f"host-{number}")
        for number in (1, 2)
    ]
    async with first.opened(), second.opened():
        yield first, second
