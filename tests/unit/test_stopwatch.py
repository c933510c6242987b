"""The wall clock is set, or the engine's is another: everything takes as long as it takes."""

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from consumer.model import (
    ContainerStatus,
    EventKind,
    Health,
    HealthCheck,
    Reason,
    RestartPolicy,
    Setback,
)
from consumer.stopwatch import Stopwatch
from tests.builders import TENANT_ID, make_container
from tests.fakes.clock import HandClock
from tests.fakes.engine import FakeEngine
from tests.fakes.ledger import InlineLedger
from tests.unit.test_reconciler import NEW, NO_START, OLD, STARTED, Bench

HOUR = 3600.0
BACK_AND_AHEAD = pytest.mark.parametrize("step", [-HOUR, HOUR], ids=["back", "ahead"])
CHECKED = replace(OLD, healthcheck=HealthCheck(("CMD", "true")))
LONGEST = 300.0


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    """Set up a reconciler on a new ledger and a new engine of the same clock."""
    clock = HandClock()
    ledger = await InlineLedger.open(f"sqlite:///{tmp_path}/ledger.db", clock=clock)
    yield Bench(ledger, clock)
    await ledger.close()


def moments(told: dict[str, object]) -> tuple[datetime, datetime]:
    """Return when the status was told, and when it says that the next try is."""
    occurred, following = str(told["occurred_at"]), str(told["next_attempt_at"])
    return datetime.fromisoformat(occurred), datetime.fromisoformat(following)


@BACK_AND_AHEAD
async def test_a_retry_is_due_in_its_usual_time(bench: Bench, step: float) -> None:
    """However the clock is set after the failure, the next try comes neither sooner nor later."""
    bench.engine.missing_images = {"nginx:1"}
    await bench.want(EventKind.CREATED, OLD)
    await bench.one_pass()

    bench.clock.set_ahead(step)
    bench.clock.advance(0.75)
    due_in = await bench.one_pass()
    told_too_soon = len(await bench.told())
    bench.clock.advance(0.25)
    await bench.one_pass()

    assert (due_in, told_too_soon) == (0.25, 1)
    first, second = await bench.bodies()
    assert (first["attempt"], second["attempt"]) == (1, 2)


@BACK_AND_AHEAD
async def test_the_next_try_is_told_for_after_the_status(bench: Bench, step: float) -> None:
    """Also when the clock was set between two failures."""
    bench.engine.missing_images = {"nginx:1"}
    await bench.want(EventKind.CREATED, OLD)
    for _ in range(3):
        due_in = await bench.one_pass()
        assert due_in is not None
        bench.clock.set_ahead(step)
        bench.clock.advance(due_in)

    told = await bench.bodies()

    assert [(after - at).total_seconds() for at, after in map(moments, told)] == [1, 2, 4]


@BACK_AND_AHEAD
async def test_a_slow_start_is_timed_out_in_its_usual_time(bench: Bench, step: float) -> None:
    """A health check has its five minutes, whatever the clocks say."""
    await bench.want(EventKind.CREATED, CHECKED)
    await bench.one_pass()

    bench.clock.set_ahead(step)
    bench.clock.advance(299)
    due_in = await bench.one_pass()
    told_too_soon = await bench.told()
    bench.clock.advance(1)
    await bench.one_pass()

    assert (due_in, told_too_soon) == (1, [])
    assert await bench.told() == [("failed", "start_timeout")]


@BACK_AND_AHEAD
async def test_a_replacement_proves_itself_in_its_usual_time(bench: Bench, step: float) -> None:
    """The successor has to stay up a second; not an hour and a second."""
    await bench.running()
    await bench.want(EventKind.UPDATED, NEW)
    due_in = await bench.one_pass()
    bench.clock.set_ahead(step)
    too_soon = await bench.one_pass()
    bench.clock.advance(1)
    await bench.one_pass()

    assert (due_in, too_soon) == (1, 1)
    assert bench.engine.only.image == "nginx:2"
    assert await bench.told() == [STARTED, ("running", "updated")]


@BACK_AND_AHEAD
async def test_a_successor_that_fails_is_rolled_back_at_once(bench: Bench, step: float) -> None:
    """The clock is set while it is on trial."""
    old = await bench.running()
    await bench.want(EventKind.UPDATED, NEW)
    await bench.one_pass()
    bench.clock.set_ahead(step)
    (successor,) = (seen for seen in bench.engine.containers() if seen.image == "nginx:2")
    bench.engine.exit(successor, 1)
    began = bench.clock.steady()

    await bench.settle()

    assert bench.clock.steady() - began <= 2
    assert bench.engine.only.container_id == old.container_id
    assert await bench.told() == [STARTED, ("running", "rolled_back")]


@BACK_AND_AHEAD
async def test_restarts_are_forgotten_in_their_usual_time(bench: Bench, step: float) -> None:
    """What was started again often before the clock was set is not held back for an hour."""
    await bench.running()
    for _ in range(3):
        bench.engine.stop_by_hand(bench.engine.only)
        await bench.one_pass()
        bench.clock.advance(2)
        await bench.one_pass()
    bench.clock.set_ahead(step)
    bench.clock.advance(61)
    await bench.one_pass()
    bench.engine.stop_by_hand(bench.engine.only)

    await bench.one_pass()

    assert bench.engine.only.status is ContainerStatus.RUNNING


async def test_a_crash_loop_is_over_in_its_usual_time_after_a_step_back(bench: Bench) -> None:
    """A run that has lasted ten seconds ends it, though the clock shows the hour before."""
    await bench.running()
    container = bench.engine.exit(bench.engine.only, 1)
    for _ in range(4):
        container = bench.engine.exit(bench.engine.come_up(container), 1)
        await bench.one_pass()
    looping = (await bench.told())[-1]
    bench.engine.come_up(container)
    bench.clock.set_ahead(-HOUR)
    due_in = await bench.one_pass()
    bench.clock.advance(10)
    await bench.one_pass()

    assert looping == ("failed", "crash_loop")
    assert due_in == 10
    assert (await bench.told())[-1] == ("running", "restarted")


@BACK_AND_AHEAD
async def test_a_start_took_as_long_as_it_took(bench: Bench, step: float) -> None:
    """The clock is set between the receipt of the event and the running container."""
    await bench.want(EventKind.CREATED, CHECKED)
    await bench.one_pass()
    bench.clock.set_ahead(step)
    bench.clock.advance(2)
    bench.engine.change(bench.engine.only, health=Health.HEALTHY)

    await bench.one_pass()

    (told,) = await bench.bodies()
    assert told["startup_seconds"] == 2
    phase, healthy = "landlord_tenant_startup_phase_seconds_sum", {"phase": "healthy"}
    assert bench.metrics.registry.get_sample_value(phase, healthy) == 2


@pytest.mark.parametrize("skew", [-HOUR, HOUR], ids=["behind", "ahead"])
async def test_an_engine_with_a_clock_of_its_own_changes_nothing(bench: Bench, skew: float) -> None:
    """A start, a replacement, a rollback and a slow start, on an engine that is an hour off."""
    skewed = timedelta(seconds=skew)
    bench.engine = FakeEngine(now=lambda: bench.clock.now() + skewed)
    bench.reconciler._engine = bench.engine
    old = await bench.running()
    began = bench.clock.steady()
    bench.engine.broken_images = {"nginx:2": NO_START}
    await bench.want(EventKind.UPDATED, NEW)
    await bench.one_pass()
    rolled_back_to = bench.engine.only.container_id
    bench.engine.broken_images = {}
    await bench.settle()
    took = bench.clock.steady() - began
    await bench.want(EventKind.UPDATED, CHECKED)
    await bench.one_pass()
    bench.clock.advance(299)
    await bench.one_pass()
    told_too_soon = await bench.told()

    usual = [STARTED, ("running", "rolled_back"), ("running", "updated")]
    assert (rolled_back_to, told_too_soon) == (old.container_id, usual)
    assert took == pytest.approx(2, abs=1)


@pytest.mark.parametrize("step", [-30 * 24 * HOUR, -HOUR, HOUR])
async def test_a_setback_of_a_former_process_is_believed_within_bounds(
    bench: Bench, step: float
) -> None:
    """Whatever the clock was set to between the two, the next try is no later than any backoff."""
    bench.engine.missing_images = {"nginx:1"}
    await bench.want(EventKind.CREATED, OLD)
    for _ in range(3):
        bench.clock.advance(await bench.one_pass() or 0)
    bench.clock.set_ahead(step)

    next_life = Bench(bench.ledger, bench.clock)
    next_life.engine.missing_images = {"nginx:1"}
    due_in = await next_life.one_pass()

    assert due_in is not None
    # The third try was put off by four seconds; one more failed try puts it off by eight.
    assert due_in <= (4 if step < 0 else 8)


def test_a_run_is_measured_from_its_first_sight() -> None:
    """Looking again does not begin it anew, a restart does; what is gone is forgotten."""
    clock = HandClock()
    stopwatch = Stopwatch(clock=clock, most_seconds=lambda _: LONGEST)
    container = make_container(restart_policy=RestartPolicy("no"))
    runs = []
    for started_at in (clock.now(), clock.now(), clock.now() + timedelta(days=1)):
        clock.advance(5)
        (seen,) = stopwatch.see(TENANT_ID, [replace(container, started_at=started_at)])
        runs.append(seen.run_seen)

    assert runs == [5, 5, 15]
    assert (stopwatch.see(TENANT_ID, []), stopwatch._runs) == ((), {})


def test_a_setback_without_a_next_try_has_none() -> None:
    """What is given up for good is not due, now or ever."""
    stopwatch = Stopwatch(clock=HandClock(), most_seconds=lambda _: LONGEST)
    for_good = Setback(1, Reason.CREATE_FAILED, "no", None)

    assert stopwatch.time(TENANT_ID, for_good) == for_good
    assert stopwatch.time(TENANT_ID, None) is None
