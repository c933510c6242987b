"""The watcher: what wakes tenants besides tenant events, and what becomes of orphans."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from consumer.errors import EngineError, EngineUnavailable
from consumer.metrics import Metrics
from consumer.model import (
    Container,
    ContainerId,
    EngineEvent,
    EngineFacts,
    EventKind,
    Maker,
    Origin,
    Reason,
    State,
    TenantId,
)
from consumer.ports import PassResult
from consumer.status import report
from consumer.watcher import OrphanRule, Watcher
from tests.builders import MOMENT, TENANT_ID, make_container, make_event, make_status
from tests.crash.spine import loop_now
from tests.fakes.clock import LoopClock
from tests.fakes.engine import FACTS, FakeEngine
from tests.fakes.ledger import InlineLedger

pytestmark = [pytest.mark.asyncio, pytest.mark.looptime]

LOST = EngineUnavailable("failed to connect to docker daemon: connection reset")
OTHER = TenantId("other")


class Bench:
    """A watcher with all that is around it."""

    def __init__(self, ledger: InlineLedger) -> None:
        self.ledger = ledger
        self.clock = LoopClock()
        self.engine = FakeEngine(now=loop_now)
        self.metrics = Metrics(version="test")
        self.woken: list[TenantId] = []
        self.seen: list[EngineEvent] = []
        self.facts: list[EngineFacts] = []
        self.watcher = self.made_anew(OrphanRule.ADOPT)

    def made_anew(self, orphans: OrphanRule) -> Watcher:
        return Watcher(
            engine=self.engine,
            ledger=self.ledger,
            wake=self._wake,
            has_seen=lambda event: event in self.seen,
            metrics=self.metrics,
            clock=self.clock,
            on_facts=self.facts.append,
            orphans=orphans,
        )

    def _wake(self, tenant_id: TenantId, *, unless: Callable[[], bool] | None = None) -> None:
        if unless is None or not unless():
            self.woken.append(tenant_id)

    @asynccontextmanager
    async def watching(self) -> AsyncIterator[None]:
        """Run the watcher for the length of the block, which begins when it has settled."""
        task = asyncio.create_task(self.watcher.run())
        await asyncio.sleep(1)
        yield
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    async def at_rest(self, tenant_id: TenantId = TENANT_ID) -> Container:
        """Have a tenant run, answered and told."""
        identity = ContainerId(f"of-{tenant_id}")
        container = make_container(tenant_id=tenant_id, container_id=identity)
        self.engine.put(container)
        await self.ledger.record([make_event(tenant_id=tenant_id)])
        status = make_status(tenant_id=tenant_id, container=report(container))
        result = PassResult(tenant_id=tenant_id, revision=1, statuses=(status,), answered=True)
        await self.ledger.commit(result)
        return container

    def surveys(self) -> int:
        return sum(1 for call in self.engine.calls if call.operation == "survey")

    def gauge(self, name: str) -> float | None:
        return self.metrics.registry.get_sample_value(f"landlord_{name}")


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    """Set up a watcher on a new ledger and a new engine."""
    ledger = await InlineLedger.open(f"sqlite:///{tmp_path}/ledger.db", clock=LoopClock())
    yield Bench(ledger)
    await ledger.close()


async def test_the_start_wakes_who_has_something_to_be_done(bench: Bench) -> None:
    """Who waits for an answer is woken, who is at rest is not."""
    await bench.at_rest()
    await bench.ledger.record([make_event(tenant_id=OTHER)])

    async with bench.watching():
        woken = list(bench.woken)

    assert woken == [OTHER]


async def test_the_start_tells_what_the_engine_is(bench: Bench) -> None:
    """The engine's facts are passed on, and the watcher has no more trouble."""
    before = bench.watcher.trouble

    async with bench.watching():
        assert bench.watcher.trouble is None

    assert before == "the engine has not been asked yet"
    assert bench.facts == [FACTS]
    assert bench.gauge("engine_up") == 1
    assert bench.watcher.resynced_at == MOMENT
    assert bench.gauge("last_resync_timestamp_seconds") == MOMENT.timestamp()


async def test_an_engine_event_wakes_its_tenant(bench: Bench) -> None:
    """What happens to a container gives its tenant a look, and no other's."""
    container = await bench.at_rest()
    await bench.at_rest(OTHER)

    async with bench.watching():
        bench.engine.exit(container, 1)
        await asyncio.sleep(0)

    assert bench.woken == [TENANT_ID]
    at = (loop_now() - MOMENT).total_seconds()
    assert bench.gauge("last_engine_event_timestamp_seconds") == MOMENT.timestamp() + at


async def test_the_resync_finds_what_no_event_told_of(bench: Bench) -> None:
    """A container that changed unseen is noticed within a minute."""
    container = await bench.at_rest()

    async with bench.watching():
        del bench.engine._containers[container.container_id]
        await asyncio.sleep(57)
        woken_before = list(bench.woken)
        await asyncio.sleep(5)

    assert (woken_before, bench.woken) == ([], [TENANT_ID])


@pytest.mark.parametrize("error", [None, LOST], ids=["ended", "broken"])
async def test_after_a_lost_stream_everything_is_listed_anew(
    bench: Bench, error: EngineUnavailable | None
) -> None:
    """What happened while nobody listened is found as soon as the stream is back."""
    container = await bench.at_rest()

    async with bench.watching():
        bench.engine.lose_events(error)
        await asyncio.sleep(0)
        bench.engine.remove_by_hand(container)
        await asyncio.sleep(1)

    assert bench.woken == [TENANT_ID]
    assert bench.watcher.trouble is None


async def test_what_a_pass_has_seen_wakes_nobody(bench: Bench) -> None:
    container = await bench.at_rest()

    async with bench.watching(), bench.engine.events() as events:
        bench.engine.exit(container, 1)
        bench.seen.append(await anext(events))
        await asyncio.sleep(0)

    assert bench.woken == []


async def test_a_lost_engine_wakes_nobody(bench: Bench) -> None:
    """Unknown is not stopped: while the engine is away no tenant is looked at, and that is said."""
    await bench.at_rest()

    async with bench.watching():
        bench.engine.is_away = True
        bench.engine.lose_events(LOST)
        await asyncio.sleep(600)
        trouble, tries = bench.watcher.trouble, len(bench.engine.calls)
        is_up = bench.gauge("engine_up")

    assert trouble is not None
    assert "connection refused" in trouble
    assert (bench.woken, is_up) == ([], 0)
    assert 100 < tries < 300


async def test_a_returning_engine_is_watched_within_seconds(bench: Bench) -> None:
    """However long it was away, a few seconds after its return all is well."""
    bench.engine.is_away = True

    async with bench.watching():
        await asyncio.sleep(3600)
        bench.engine.is_away = False
        await asyncio.sleep(5)
        trouble = bench.watcher.trouble

    assert trouble is None
    assert bench.facts == [FACTS]


async def test_a_failing_resync_does_not_end_the_watch(bench: Bench) -> None:
    """A ledger that cannot be read is told as trouble until a resync succeeds again."""
    async with bench.watching():
        bench.ledger.is_down = True
        await asyncio.sleep(60)
        trouble = bench.watcher.trouble
        bench.ledger.is_down = False
        await asyncio.sleep(60)
        trouble_after = bench.watcher.trouble

    assert trouble == "the ledger failed: disk full"
    assert trouble_after is None


async def test_an_orphan_is_adopted(bench: Bench) -> None:
    """A container of ours whose tenant the ledger lost becomes that tenant's again."""
    bench.engine.put(make_container())

    async with bench.watching():
        tenant = await bench.ledger.read(TENANT_ID)

    assert tenant is not None
    assert tenant.fingerprint == make_container().fingerprint
    assert bench.woken == [TENANT_ID]


async def test_what_is_left_of_a_deleted_tenant_is_no_orphan(bench: Bench) -> None:
    """A tombstone is knowledge too: its tenant is woken, also where orphans are ignored."""
    bench.watcher = bench.made_anew(OrphanRule.IGNORE)
    await bench.ledger.record([make_event(EventKind.DELETED)])
    gone = make_status(state=State.STOPPED, reason=Reason.DELETED)
    await bench.ledger.commit(
        PassResult(tenant_id=TENANT_ID, revision=1, statuses=(gone,), answered=True)
    )
    bench.engine.put(make_container())

    async with bench.watching():
        tenant = await bench.ledger.read(TENANT_ID)

    assert tenant is not None
    assert tenant.desired == "deleted"
    assert bench.woken == [TENANT_ID]


async def test_an_orphan_is_removed_after_its_grace(bench: Bench) -> None:
    """Where orphans are to go, a young one may still belong to a ledger on its way back."""
    bench.watcher = bench.made_anew(OrphanRule.REMOVE)
    bench.engine.put(make_container())

    async with bench.watching():
        await asyncio.sleep(290)
        left_before = len(bench.engine.containers())
        await asyncio.sleep(60)

    assert (left_before, bench.engine.containers()) == (1, ())
    assert (await bench.ledger.read(TENANT_ID), bench.woken) == (None, [TENANT_ID])


@pytest.mark.parametrize("step", [-3600, 3600], ids=["back", "ahead"])
async def test_a_clock_that_is_set_changes_nothing_of_an_orphans_grace(
    bench: Bench, step: float
) -> None:
    """An engine whose clock shows another time is no reason to remove it sooner, or never."""
    bench.watcher = bench.made_anew(OrphanRule.REMOVE)
    bench.engine.put(make_container(created_at=MOMENT - timedelta(seconds=step)))

    async with bench.watching():
        bench.clock.set_ahead(step)
        await asyncio.sleep(290)
        left_before = len(bench.engine.containers())
        await asyncio.sleep(60)

    resyncs = bench.gauge("resync_seconds_sum")
    assert (left_before, bench.engine.containers()) == (1, ())
    assert resyncs == pytest.approx(0, abs=1)


async def test_an_orphan_that_cannot_be_removed_stops_nothing(bench: Bench) -> None:
    """A refusal over one orphan is tried again at the next resync; the others go when due."""
    bench.watcher = bench.made_anew(OrphanRule.REMOVE)
    old = make_container()
    bench.engine.put(old)
    bench.engine.put(replace(old, container_id=ContainerId("two"), tenant_id=OTHER))
    bench.engine.fail("remove", EngineError(Reason.STOP_FAILED, "no", is_transient=True))

    async with bench.watching():
        await asyncio.sleep(310)
        left_before = len(bench.engine.containers())
        await asyncio.sleep(60)

    assert (left_before, bench.engine.containers()) == (1, ())


@pytest.mark.parametrize("operation", ["observe", "remove", "tidy"])
async def test_an_orphan_that_hangs_keeps_nobody_from_being_watched(
    bench: Bench, operation: str
) -> None:
    """Engine events and the resync go on while an orphan is removed, and it is asked for once."""
    bench.watcher = bench.made_anew(OrphanRule.REMOVE)
    bench.engine.put(make_container())
    hung = bench.engine.hang(operation)

    async with bench.watching():
        await asyncio.sleep(600)
        woken_before, surveys = len(bench.woken), bench.surveys()
        bench.engine.put(make_container(tenant_id=OTHER, container_id=ContainerId("two")))
        await asyncio.sleep(1)
        woken = bench.woken[woken_before:]
        hung.set()

    asked = [call.operation for call in bench.engine.calls].count(operation)
    assert surveys > 5
    assert woken == [OTHER]
    assert asked == 1


async def test_an_orphan_is_left_alone_where_so_set(bench: Bench) -> None:
    """Ignored orphans are neither recorded nor removed nor looked at."""
    bench.watcher = bench.made_anew(OrphanRule.IGNORE)
    bench.engine.put(make_container(created_at=MOMENT.replace(hour=1)))

    async with bench.watching():
        await asyncio.sleep(600)

    assert len(bench.engine.containers()) == 1
    assert (await bench.ledger.read(TENANT_ID), bench.woken) == (None, [])


# --- strangers --------------------------------------------------------------------------------

COPY = Origin(serial=5, has_our_name=False)
FOREIGN = Origin(Maker.ANOTHER, serial=5)


async def test_a_copy_of_a_container_wakes_nobody_and_is_told_once(bench: Bench) -> None:
    """Its tenant is at rest all the same; the copy is counted as a stranger."""
    original = await bench.at_rest()
    bench.engine.put(replace(original, container_id=ContainerId("copy"), origin=COPY))

    with capture_logs() as lines:
        async with bench.watching():
            await asyncio.sleep(600)

    told = [line for line in lines if line.get("container_id") == "copy"]
    assert (bench.woken, len(told), bench.gauge("strangers")) == ([], 1, 1)


@pytest.mark.parametrize("orphans", list(OrphanRule))
@pytest.mark.parametrize("origin", [COPY, FOREIGN], ids=["copy", "another ledger's"])
async def test_what_we_did_not_make_is_no_orphan(
    bench: Bench, orphans: OrphanRule, origin: Origin
) -> None:
    """It is neither adopted nor removed, whatever is to become of orphans, however old it is."""
    bench.watcher = bench.made_anew(orphans)
    bench.engine.put(make_container(created_at=MOMENT.replace(hour=1), origin=origin))

    async with bench.watching():
        await asyncio.sleep(600)

    assert len(bench.engine.containers()) == 1
    assert (await bench.ledger.read(TENANT_ID), bench.woken) == (None, [])
    assert bench.gauge("strangers") == 1


async def test_a_take_over_adopts_what_another_ledger_left(bench: Bench) -> None:
    """Once, when somebody asked; a copy stays a stranger also then."""
    bench.engine.put(make_container(origin=FOREIGN))
    bench.engine.put(make_container(container_id=ContainerId("copy"), origin=COPY))

    async with bench.watching():
        before = await bench.ledger.read(TENANT_ID)
        await bench.ledger.ask_take_over()
        await asyncio.sleep(60)
        tenant = await bench.ledger.read(TENANT_ID)

    assert (before, bench.woken) == (None, [TENANT_ID])
    assert tenant is not None
    assert tenant.containers == (make_container().container_id,)
    assert (bench.gauge("strangers"), await bench.ledger.is_take_over_asked()) == (1, False)


async def test_what_another_ledger_left_is_told_with_its_cure(bench: Bench) -> None:
    """One line for all of it, that names the command."""
    for number in range(3):
        tenant_id, container_id = TenantId(f"t{number}"), ContainerId(f"c{number}")
        bench.engine.put(
            make_container(tenant_id=tenant_id, container_id=container_id, origin=FOREIGN)
        )

    with capture_logs() as lines:
        async with bench.watching():
            await asyncio.sleep(600)

    (told,) = [line for line in lines if "another ledger" in line["event"]]
    assert (told["containers"], told["tenants"]) == (3, ["t0", "t1", "t2"])
    assert "landlord-consumer take-over" in told["cure"]
