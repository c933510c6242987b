"""Whose turn a pull is: who does not move, holds up nobody who would."""

import asyncio

import pytest

from consumer.adapters.pulls import Pace, Progress, PullLimits, PullPlaces, Ticket

pytestmark = [pytest.mark.asyncio, pytest.mark.looptime]

LIMITS = PullLimits(pulls=2, aside=3, aside_of_one=2)
GOOD, SLOW = "good.example.com", "slow.example.com"


def loop_time() -> float:
    return asyncio.get_running_loop().time()


class Bench:
    """Places, and who waits for one."""

    def __init__(self) -> None:
        self.places = PullPlaces(LIMITS, now=loop_time)
        self.waiting: list[asyncio.Task[Ticket]] = []

    async def enter(self, registry: str) -> Ticket:
        """Return the ticket of one that gets its turn at once."""
        async with asyncio.timeout(0.1):
            return await self.places.enter(registry)

    async def queue(self, registry: str) -> "asyncio.Task[Ticket]":
        """Have one wait for its turn."""
        task = asyncio.create_task(self.places.enter(registry))
        self.waiting.append(task)
        await asyncio.sleep(0)
        return task


@pytest.fixture
async def bench() -> Bench:
    """Set up two places, and three aside."""
    return Bench()


async def has_turn(task: "asyncio.Task[Ticket]") -> bool:
    """Whether it has its turn by now."""
    await asyncio.sleep(0.01)
    return task.done()


async def test_places_are_bounded(bench: Bench) -> None:
    """Who comes third waits until one of the two is done."""
    first, _ = await bench.enter(GOOD), await bench.enter(GOOD)
    third = await bench.queue(GOOD)
    before = await has_turn(third)

    bench.places.leave(first)

    assert (before, await has_turn(third)) == (False, True)
    assert not third.result().is_aside


async def test_who_steps_aside_makes_room(bench: Bench) -> None:
    """It goes on, and the next one has its place."""
    stuck, _ = await bench.enter(SLOW), await bench.enter(GOOD)
    next_one = await bench.queue(GOOD)

    has_room = bench.places.step_aside(stuck, is_registry_slow=True)

    assert (has_room, stuck.is_aside, await has_turn(next_one)) == (True, True, True)


async def test_it_is_known_whether_somebody_waits(bench: Bench) -> None:
    """Who waits for room aside waits for no place."""
    stuck, _ = await bench.enter(SLOW), await bench.enter(GOOD)
    nobody = bench.places.is_awaited
    first = await bench.queue(SLOW)
    somebody = bench.places.is_awaited
    bench.places.step_aside(stuck, is_registry_slow=True)
    later = [await bench.queue(SLOW) for _ in range(2)]

    assert (nobody, somebody, bench.places.is_awaited) == (False, True, False)
    assert [await has_turn(task) for task in (first, *later)] == [True, False, False]


async def test_many_from_a_slow_registry_hold_up_nobody(bench: Bench) -> None:
    """Those that wait already, and those that come, begin aside, and are bounded there."""
    stuck, _ = await bench.enter(SLOW), await bench.enter(SLOW)
    queued = [await bench.queue(SLOW) for _ in range(3)]
    good = await bench.queue(GOOD)

    bench.places.step_aside(stuck, is_registry_slow=True)
    went_on = await has_turn(good)
    turns = [await has_turn(task) for task in queued]
    bench.places.leave(stuck)
    turns_later = [await has_turn(task) for task in queued]

    assert went_on
    assert (turns, turns_later) == ([True, False, False], [True, True, False])
    assert all(task.result().is_aside for task in queued[:2])


async def test_places_aside_are_bounded_for_all_registries(bench: Bench) -> None:
    """Where none is left, it is said, and the place is for the caller to give back."""
    for number in range(LIMITS.aside):
        stuck = await bench.enter(f"{number}.example.com")
        assert bench.places.step_aside(stuck, is_registry_slow=True)
    last = await bench.enter("last.example.com")

    has_room = bench.places.step_aside(last, is_registry_slow=True)
    bench.places.leave(last)

    assert (has_room, last.is_aside) == (False, False)
    await bench.enter(GOOD)
    await bench.enter(GOOD)


async def test_a_slow_registry_is_remembered_for_a_while(bench: Bench) -> None:
    """For ten minutes what is wanted from it begins aside, unless it was quick meanwhile."""
    stuck = await bench.enter(SLOW)
    bench.places.step_aside(stuck, is_registry_slow=True)
    bench.places.leave(stuck)

    soon = await bench.enter(SLOW)
    bench.places.leave(soon)
    bench.places.forget_slow(SLOW)
    forgiven = await bench.enter(SLOW)
    bench.places.step_aside(forgiven, is_registry_slow=True)
    bench.places.leave(forgiven)
    await asyncio.sleep(600)
    later = await bench.enter(SLOW)

    assert (soon.is_aside, later.is_aside) == (True, False)


async def test_who_is_cancelled_takes_no_place(bench: Bench) -> None:
    """Whether it waited still, or was just given its turn."""
    first, second = await bench.enter(GOOD), await bench.enter(GOOD)
    waits, given = await bench.queue(GOOD), await bench.queue(GOOD)

    waits.cancel()
    bench.places.leave(first)
    given.cancel()
    await asyncio.wait((waits, given))
    bench.places.leave(second)

    await bench.enter(GOOD)
    await bench.enter(GOOD)


# --- pace ---------------------------------------------------------------------------------------


def downloading(current: int, total: int = 10**9) -> dict[str, object]:
    """Return a line of the engine's progress."""
    detail = {"current": current, "total": total}
    return {"status": "Downloading", "id": "a", "progressDetail": detail}


async def test_a_trickle_is_not_moving() -> None:
    """Signs alone are no progress: a byte now and then falls behind, enough of them does not."""
    progress = Progress("slow:1", now=loop_time)
    progress.note(downloading(0))
    fair = Pace(progress, 1000, now=loop_time())

    for second in range(10):
        await asyncio.sleep(1)
        progress.note(downloading(second))
    behind = fair.seconds_behind(loop_time())
    progress.note(downloading(20_000))

    assert (behind, fair.seconds_behind(loop_time())) == (10, 0)


@pytest.mark.parametrize(
    ("sign", "behind", "is_unpacking"),
    [
        pytest.param({"status": "Download complete", "id": "a"}, 0, True, id="downloaded"),
        pytest.param({"status": "Extracting", "id": "a"}, 0, True, id="being unpacked"),
        pytest.param({"status": "Pull complete", "id": "a"}, 0, False, id="unpacked"),
        pytest.param({"status": "Pulling fs layer", "id": "b"}, 0, False, id="another layer"),
        pytest.param({"status": "Retrying in 5 seconds", "id": "a"}, 60, False, id="a new try"),
        pytest.param(downloading(1), 60, False, id="a byte"),
        pytest.param({}, 60, False, id="nothing"),
    ],
)
async def test_a_step_of_a_layer_is_moving(
    sign: dict[str, object], behind: float, *, is_unpacking: bool
) -> None:
    """What the engine does by itself is told apart from what it waits for."""
    progress = Progress("web:1", now=loop_time)
    progress.note(downloading(0))
    pace = Pace(progress, 1000, now=loop_time())
    await asyncio.sleep(60)

    progress.note(sign)

    assert (pace.seconds_behind(loop_time()), progress.is_unpacking) == (behind, is_unpacking)
