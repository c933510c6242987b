"""Interrupted anywhere, the newest intention holds in the end: one container, nothing untold.

Each case cuts every single call to the engine or write to the ledger in turn, before it takes
effect or after it, and lets a new process go on with what ledger, engine and broker have kept.
"""

from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
import structlog

from consumer.errors import LedgerError
from consumer.messages import Delivery
from tests.builders import make_bare_delivery, make_delivery, make_document
from tests.fakes.engine import Interruption
from tests.fakes.ledger import Crash, InlineLedger
from tests.spine import World, loop_now

pytestmark = [pytest.mark.asyncio, pytest.mark.looptime]

CREATED = make_delivery(1)
UPDATED = make_delivery(2, "tenant.updated", make_document(image="nginx:2"))
ADJUSTED = make_delivery(2, "tenant.updated", make_document(resources={"cpu": 250, "memory": 64}))
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
    pytest.param([CREATED, DELETED], AGAIN, id="create again"),
]


@pytest.fixture(autouse=True)
def _quiet_logs() -> Iterator[None]:
    """Keep what is logged from being printed: for thousands of passes that takes its time."""
    with structlog.testing.capture_logs():
        yield


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


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    """Make a world with a new ledger."""
    ledger = await InlineLedger.open(f"sqlite:///{tmp_path}/ledger.db", now=loop_now)
    yield World(ledger)
    await ledger.close()


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize(("before", "event"), SCENARIOS)
async def test_cut_anywhere_it_comes_to_the_newest_intention(
    world: World, before: list[Delivery], event: Delivery, cut: Cut
) -> None:
    """Whichever call is cut, there is one container as wanted, and every status is told."""
    for earlier in before:
        await world.live(earlier)

    nth = 0
    async for again in world.relived():
        nth += 1
        cut(again, nth)
        await again.live(event) or await again.live()

        await again.check(event.message_id)
        if not again.has_been_cut:
            break

    assert nth > 3
