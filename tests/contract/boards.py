"""Boards under test: the one in memory and the one that a real engine keeps."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Final
from uuid import uuid4

from consumer.adapters.docker_board import DockerBoard
from consumer.adapters.docker_client import Endpoint
from consumer.adapters.docker_spec import Naming
from consumer.ports import Board
from deploy.lab.docker_cli import DockerCli
from deploy.lab.servers import DockerHost
from tests.fakes.board import FakeBoard, Records

OpenBoards = Callable[[], AbstractAsyncContextManager[tuple[Board, Board]]]
"""Two consumers' ways to the same records; the records are gone afterwards."""

BOARDS: Final = ("fake", "docker")


@asynccontextmanager
async def fake_boards() -> AsyncIterator[tuple[Board, Board]]:
    records = Records()
    yield FakeBoard(records), FakeBoard(records)


@asynccontextmanager
async def docker_boards(host: DockerHost) -> AsyncIterator[tuple[Board, Board]]:
    naming = Naming(prefix=f"board-{uuid4().hex[:8]}", instance="of-a-test")
    first, second = [
        DockerBoard(endpoint=Endpoint(url=host.url), naming=naming, host_name=f"host-{number}")
        for number in (1, 2)
    ]
    try:
        async with first.opened(), second.opened():
            yield first, second
    finally:
        DockerCli(host.url).remove_volumes(f"{naming.label('owner')}={naming.prefix}")
