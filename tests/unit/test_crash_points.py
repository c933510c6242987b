"""Interrupted anywhere, the newest intention holds in the end: one container, nothing untold.

Each case cuts every single call to the engine or write to the ledger in turn, before it takes
effect or after it, and lets a new process go on with what ledger, engine and broker have kept.
"""

from collections.abc import Awaitable, Callable
from itertools import count
from pathlib import Path

import pytest

from consumer.errors import LedgerError
from consumer.messages import Delivery
from tests.builders import make_bare_delivery, make_delivery, make_document
from tests.fakes.engine import Interruption
from tests.fakes.ledger import Crash
from tests.spine import World, new_world

pytestmark = [pytest.mark.asyncio, pytest.mark.looptime]

CREATED = make_delivery(1)
UPDATED = make_delivery(2, "tenant.updated", make_document(image="nginx:2"))
ADJUSTED = make_delivery(
    2, "tenant.updated", make_document(resource_limits={"cpu": 250, "memory": 64})
)
SUSPENDED = make_bare_delivery(3, "tenant.suspended")
RESUMED = make_bare_delivery(4, "tenant.resumed")
DELETED = make_bare_delivery(5, "tenant.deleted")
AGAIN = make_delivery(6)

SCENARIOS = [
    pytest.param([], CREATED, id="create"),
    pytest.param([CREATED], UPDATED, id="update"),
    pytest.param([CREATED], ADJUSTED, id="adjust"),
    pytest.param([CREATED], SUSPENDED, id="suspend"),
    pytest.param([CREATED, SUSPENDED], RESUMED, id="resume"),
    pytest.param([CREATED, SUSPENDED, UPDATED], RESUMED, id="resume with another image"),
    pytest.param([CREATED], DELETED, id="delete"),
    pytest.param([CREATED, SUSPENDED], DELETED, id="delete while suspended"),
    pytest.param([CREATED, DELETED], AGAIN, id="create again"),
]

Cut = Callable[[World, int], None]
"""Arranges that the n-th call of a world goes wrong."""


def engine_cut(interruption: Interruption, *, takes_effect: bool) -> Cut:
    """Cut a call to the engine."""
    return lambda world, nth: world.engine.interrupt_at(
        nth, interruption, takes_effect=takes_effect
    )


def ledger_cut(error: type[Exception], *, takes_effect: bool) -> Cut:
    """Cut a write to the ledger."""
    return lambda world, nth: world.ledger.fail_at(nth, error(), takes_effect=takes_effect)


CUTS = [
    pytest.param(engine_cut(Interruption.CRASH, takes_effect=False), id="crash before engine"),
    pytest.param(engine_cut(Interruption.CRASH, takes_effect=True), id="crash after engine"),
    pytest.param(engine_cut(Interruption.UNAVAILABLE, takes_effect=False), id="engine away"),
    pytest.param(engine_cut(Interruption.UNAVAILABLE, takes_effect=True), id="answer lost"),
    pytest.param(engine_cut(Interruption.REFUSED, takes_effect=False), id="engine refuses"),
    pytest.param(ledger_cut(Crash, takes_effect=False), id="crash before commit"),
    pytest.param(ledger_cut(Crash, takes_effect=True), id="crash after commit"),
    pytest.param(ledger_cut(LedgerError, takes_effect=False), id="ledger fails"),
]


async def for_every_nth(path: Path, scenario: Callable[[World, int], Awaitable[bool]]) -> int:
    """Play the scenario in a new world for each n until n is beyond its end; return how many."""
    for nth in count(1):
        async with new_world(path / f"{nth}.db") as world:
            if not await scenario(world, nth):
                return nth
    raise AssertionError


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize(("before", "event"), SCENARIOS)
async def test_cut_anywhere_it_comes_to_the_newest_intention(
    tmp_path: Path, before: list[Delivery], event: Delivery, cut: Cut
) -> None:
    """Whichever call is cut, there is one container as wanted, and every status is told once."""

    async def scenario(world: World, nth: int) -> bool:
        for earlier in before:
            await world.live(earlier)
        cut(world, nth)

        await world.live(event) or await world.live()

        await world.check()
        return world.engine.has_interrupted and world.ledger.has_failed

    assert await for_every_nth(tmp_path, scenario) > 3
