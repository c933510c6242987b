"""Upkeep: gauges that tell the truth, a ledger that does not grow for ever, a pulse."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path

import pytest

from consumer.metrics import Metrics
from consumer.model import EventId, EventKind, Reason, State, TenantId
from consumer.ports import PassResult
from consumer.upkeep import Upkeep
from tests.builders import TENANT_ID, make_event, make_status
from tests.fakes.clock import LoopClock
from tests.fakes.ledger import InlineLedger

pytestmark = [pytest.mark.asyncio, pytest.mark.looptime]

HOUR = 3600


CHURN = 25
"""Tenants that come and go in an hour; enough to fill many pages of the file."""


class Bench:
    """An upkeep with all that is around it."""

    def __init__(self, ledger: InlineLedger, clock: LoopClock, path: Path) -> None:
        self.ledger = ledger
        self.clock = clock
        self.path = path
        self.metrics = Metrics(version="test")
        self.upkeep = Upkeep(
            ledger=ledger, metrics=self.metrics, clock=clock, retention_seconds=HOUR
        )

    @asynccontextmanager
    async def keeping(self) -> AsyncIterator[None]:
        """Run the upkeep for the length of the block, which begins after its first look."""
        task = asyncio.create_task(self.upkeep.run())
        await asyncio.sleep(0.1)
        yield
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    async def delete_and_tell(
        self, tenant_id: TenantId = TENANT_ID, *, event_id: EventId | None = None
    ) -> None:
        """Have a tenant that was deleted and told so, with nothing left to send."""
        event = make_event(EventKind.DELETED, tenant_id=tenant_id, event_id=event_id)
        await self.ledger.record([event])
        gone = make_status(tenant_id=tenant_id, state=State.STOPPED, reason=Reason.DELETED)
        await self.ledger.commit(
            PassResult(tenant_id=tenant_id, revision=1, statuses=(gone,), answered=True)
        )
        (entry,) = await self.ledger.unsent(limit=9)
        await self.ledger.mark_sent([entry.entry_id], at=self.clock.now())

    async def churn(self, *, hours: int, began: int) -> int:
        """Have tenants come and go for so long; return how many bytes the ledger takes."""
        for hour in range(began, began + hours):
            for number in range(CHURN):
                name = f"{hour}-{number}"
                await self.delete_and_tell(TenantId(name), event_id=EventId(name))
            for _ in range(6):
                await asyncio.sleep(HOUR / 6)
                await self.upkeep.look()
        with closing(sqlite3.connect(self.path)) as file:
            # What is in SQLite's log of changes goes into the file, or its size would hide it.
            file.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        return self.path.stat().st_size

    def gauge(self, name: str, **labels: str) -> float | None:
        return self.metrics.registry.get_sample_value(f"landlord_{name}", labels)


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    """Set up an upkeep on a new ledger."""
    path = tmp_path / "ledger.db"
    clock = LoopClock()
    ledger = await InlineLedger.open(f"sqlite:///{path}", clock=clock)
    yield Bench(ledger, clock, path)
    await ledger.close()


async def test_the_gauges_follow_the_ledger(bench: Bench) -> None:
    """Tenants by state and the outbox with the age of its oldest entry, within seconds."""
    await bench.ledger.record([make_event(), make_event(tenant_id=TenantId("other"))])
    status = make_status(occurred_at=bench.clock.now())

    async with bench.keeping():
        await bench.ledger.commit(
            PassResult(tenant_id=TENANT_ID, revision=1, statuses=(status,), answered=True)
        )
        await asyncio.sleep(10)

    assert bench.gauge("tenants", state="running") == 1
    assert bench.gauge("tenants", state="pending") == 1
    assert bench.gauge("outbox_pending") == 1
    assert bench.gauge("outbox_oldest_seconds") == pytest.approx(10, abs=2.1)


async def test_an_empty_outbox_has_no_age(bench: Bench) -> None:
    """With nothing to send the gauges are at zero."""
    async with bench.keeping():
        assert bench.gauge("outbox_pending") == 0

    assert bench.gauge("outbox_oldest_seconds") == 0


async def test_what_is_finished_is_swept_after_the_retention_time(bench: Bench) -> None:
    """A tombstone stays as long as late events may come, and no longer."""
    await bench.delete_and_tell()

    async with bench.keeping():
        await asyncio.sleep(HOUR - 1)
        kept = await bench.ledger.read(TENANT_ID)
        await asyncio.sleep(700)

    assert kept is not None
    assert await bench.ledger.read(TENANT_ID) is None


@pytest.mark.parametrize("step", [-30 * 24 * HOUR, 30 * 24 * HOUR], ids=["back", "ahead"])
async def test_a_clock_that_is_set_neither_ages_nor_stops_the_upkeep(
    bench: Bench, step: float
) -> None:
    """Tombstone, pulse, and the age of what waits to be sent are as if nobody had set it."""
    await bench.delete_and_tell()
    await bench.ledger.record([make_event(tenant_id=TenantId("other"))])
    status = make_status(tenant_id=TenantId("other"), occurred_at=bench.clock.now())
    waiting = PassResult(tenant_id=TenantId("other"), revision=1, statuses=(status,))

    async with bench.keeping():
        await bench.ledger.commit(waiting)
        bench.clock.set_ahead(step)
        idle_seconds = bench.upkeep.idle_seconds
        await asyncio.sleep(700)
        kept = await bench.ledger.read(TENANT_ID)

    assert idle_seconds <= 2
    assert kept is not None
    assert bench.gauge("outbox_oldest_seconds") == pytest.approx(700, abs=3)


async def test_the_ledger_stays_bounded_under_churn(bench: Bench) -> None:
    """What comes and goes leaves no growing file: after the retention time it has its size."""
    full = await bench.churn(hours=3, began=0)
    later = await bench.churn(hours=12, began=3)

    assert later <= full * 1.1


async def test_a_ledger_that_cannot_be_written_is_told(bench: Bench) -> None:
    """The trouble is there for readiness as long as it lasts, and the gauge shows it."""
    async with bench.keeping():
        bench.ledger.is_down = True
        await asyncio.sleep(60)
        trouble, is_up = bench.upkeep.trouble, bench.gauge("ledger_up")
        bench.ledger.is_down = False
        await asyncio.sleep(3)

    assert (trouble, is_up) == ("the ledger failed: disk full", 0)
    assert (bench.upkeep.trouble, bench.gauge("ledger_up")) == (None, 1)


async def test_the_pulse_beats_also_in_trouble(bench: Bench) -> None:
    """A ledger that is down does not make the process look dead."""
    bench.ledger.is_down = True

    async with bench.keeping():
        await asyncio.sleep(600)
        age = bench.upkeep.idle_seconds

    assert 0 <= age <= 2


async def test_a_disk_that_hangs_is_told_before_the_deadline(bench: Bench) -> None:
    """Readiness says within seconds that the ledger does not answer, and when it does again."""
    async with bench.keeping():
        bench.ledger.released.clear()
        await asyncio.sleep(8)
        told = bench.upkeep.trouble
        bench.ledger.released.set()
        await asyncio.sleep(3)
        healed = bench.upkeep.trouble

    assert told == "no answer from the ledger for 5 s"
    assert healed is None
