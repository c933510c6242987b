"""What every board promises: the one in memory as much as a real engine."""

import asyncio
from functools import partial

import pytest

from tests.contract.boards import BOARDS, OpenBoards, docker_boards, fake_boards, simulated_boards

pytestmark = [pytest.mark.asyncio, pytest.mark.docker]


@pytest.fixture(params=BOARDS)
def boards(request: pytest.FixtureRequest) -> OpenBoards:
    """Return what opens two ways to the same records."""
    if request.param == "fake":
        return fake_boards
    if request.param == "simulated":
        return simulated_boards
    return partial(docker_boards, request.getfixturevalue("docker_host"))


async def test_what_is_not_there_reads_as_nothing(boards: OpenBoards) -> None:
    """And can be removed."""
    async with boards() as (board, _):
        await board.remove("lease")

        assert await board.read("lease") is None


async def test_the_first_one_stays_until_it_is_removed(boards: OpenBoards) -> None:
    """Whoever puts a second one is told of the first."""
    async with boards() as (board, other):
        first = await board.put("lease", "one")
        second = await other.put("lease", "two")
        await other.remove("lease")
        third = await other.put("lease", "three")

        assert (first, second, third) == ("one", "one", "three")
        assert await board.read("lease") == "three"


async def test_records_have_names(boards: OpenBoards) -> None:
    """One does not stand for another."""
    async with boards() as (board, other):
        await board.put("lease", "one")
        await other.put("bid", "two")

        assert (await other.read("lease"), await board.read("bid")) == ("one", "two")


async def test_of_many_at_a_time_exactly_one_finds_its_own(boards: OpenBoards) -> None:
    """This is what makes a lease of it."""
    async with boards() as (board, other):
        values = [str(number) for number in range(20)]
        found = await asyncio.gather(
            *((board, other)[int(value) % 2].put("lease", value) for value in values)
        )

        assert len(set(found)) == 1
        assert found[0] in values
