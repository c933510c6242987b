"""Interrupted anywhere, the newest intention holds in the end: one container, nothing untold.

Each case cuts every single call to the engine or write to the ledger in turn, before it takes
effect or after it, and lets a new process go on with what ledger, engine and broker have kept.
"""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import structlog

from consumer.errors import EngineError
from consumer.messages import Delivery
from consumer.model import Reason
from tests.builders import make_bare_delivery, make_delivery, make_document
from tests.crash.spine import CUTS, Cut, World
from tests.fakes.clock import LoopClock
from tests.fakes.ledger import InlineLedger

pytestmark = [pytest.mark.asyncio, pytest.mark.looptime]

CREATED = make_delivery(1)
UPDATED = make_delivery(2, "tenant.updated", make_document(image="nginx:2"))
ADJUSTED = make_delivery(2, "tenant.updated", make_document(resources={"cpu": 250, "memory": 64}))
SUSPENDED = make_bare_delivery(3, "tenant.suspended")
RESUMED = make_bare_delivery(4, "tenant.resumed")
DELETED = make_bare_delivery(5, "tenant.deleted")
AGAIN = make_delivery(6)
NO_START = EngineError(Reason.START_FAILED, "failed to start container: no", is_transient=False)

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


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    """Make a world with a new ledger."""
    ledger = await InlineLedger.open(f"sqlite:///{tmp_path}/ledger.db", clock=LoopClock())
    yield World(ledger)
    await ledger.close()


@pytest.mark.parametrize("cut", CUTS.values(), ids=CUTS)
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


@pytest.mark.parametrize("cut", CUTS.values(), ids=CUTS)
async def test_cut_anywhere_a_failing_update_is_rolled_back(world: World, cut: Cut) -> None:
    """Whichever call is cut, also of the rollback, the former container runs and it is told so."""
    await world.live(CREATED)
    former = world.engine.only

    nth = 0
    async for again in world.relived():
        nth += 1
        again.engine.broken_images = {"nginx:2": NO_START}
        cut(again, nth)
        await again.live(UPDATED) or await again.live()

        await again.check_rolled_back(former, UPDATED.message_id)
        if not again.has_been_cut:
            break

    assert nth > 3
