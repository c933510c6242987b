"""The limit settles where the host does best; the gate keeps to it, and nobody waits for one."""

import asyncio
import random
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from math import sqrt

import pytest

from consumer.adapters.start_limit import StartGate, Vegas

_MOST = 64
_LIMITS = range(1, _MOST + 1)


@dataclass
class Host:
    """A host that makes `cores` containers at full speed, and each more at the others' cost."""

    cores: float
    alone: float = 0.3
    thrashing: float = 0.01

    def seconds(self, on_their_way: int) -> float:
        crowd = max(0.0, on_their_way - self.cores)
        return self.alone * max(1.0, on_their_way / self.cores) * (1 + self.thrashing * crowd)

    def throughput(self, on_their_way: int) -> float:
        return on_their_way / self.seconds(on_their_way)

    def best(self) -> float:
        return max(self.throughput(limit) for limit in _LIMITS)


def work(vegas: Vegas, host: Host, starts: int, noise: float = 0.15) -> None:
    """Have the starts happen, always as many at a time as the limit lets."""
    chance = random.Random(20261125)
    for _ in range(starts):
        seconds = host.seconds(vegas.limit) * chance.lognormvariate(0, noise)
        vegas.learn(seconds, was_alone=vegas.limit == 1, was_full=True)


HOSTS = [pytest.param(Host(cores), id=f"{cores:g} cores") for cores in (1, 1.6, 2, 4, 8, 16, 32)]


@pytest.mark.parametrize("host", HOSTS)
def test_the_limit_settles_where_the_host_does_best(host: Host) -> None:
    """Nearly all of the throughput that any limit gives, and few that only wait for others."""
    vegas = Vegas(_MOST)

    work(vegas, host, 400)

    assert host.throughput(vegas.limit) >= 0.9 * host.best(), vegas
    assert vegas.limit - host.cores <= 2.5 * sqrt(vegas.limit), vegas


@pytest.mark.parametrize("host", HOSTS)
def test_it_is_found_within_one_burst(host: Host) -> None:
    """A burst of 64 is over before a slow search would have ended."""
    vegas = Vegas(_MOST)

    work(vegas, host, 64)

    assert host.throughput(vegas.limit) >= 0.75 * host.best(), vegas


@pytest.mark.parametrize("factor", [0.25, 4.0])
def test_a_host_that_changes_is_learned_anew(factor: float) -> None:
    """Slower or faster by far: what a start takes alone is not believed for ever."""
    vegas, host = Vegas(_MOST), Host(4)
    work(vegas, host, 200)
    host.alone *= factor

    work(vegas, host, 400)

    assert host.throughput(vegas.limit) >= 0.85 * host.best(), vegas


def test_a_limit_that_nobody_reaches_says_nothing() -> None:
    """One start after another is no proof that more could be made at a time."""
    vegas = Vegas(_MOST)
    work(vegas, Host(4), 100)
    before = vegas.limit

    for _ in range(100):
        vegas.learn(0.3, was_alone=True, was_full=False)

    assert vegas.limit == before


def test_there_is_a_most() -> None:
    vegas = Vegas(3)

    work(vegas, Host(32), 100)

    assert vegas.limit == 3


# --- the gate ---------------------------------------------------------------------------------


class Work:
    """Starts that last until they are told to end."""

    def __init__(self, gate: StartGate) -> None:
        self._gate = gate
        self.begun: list[str] = []
        self.ends: dict[str, asyncio.Event] = {}

    async def start(self, name: str) -> None:
        async with self._gate.starting(name):
            await self._last(name)

    async def create(self, name: str) -> None:
        async with self._gate.creating() as creation:
            await self._last(name)
            creation.container_id = name

    async def _last(self, name: str) -> None:
        self.begun.append(name)
        self.ends[name] = asyncio.Event()
        await self.ends[name].wait()


async def settle() -> None:
    """Let every task go as far as it can."""
    for _ in range(20):
        await asyncio.sleep(0)


async def spawn(group: asyncio.TaskGroup, *works: Callable[[], object]) -> None:
    for one in works:
        group.create_task(one())  # type: ignore[arg-type]  # coroutines
    await settle()


async def test_what_was_begun_goes_before_what_is_new() -> None:
    """One at a time at first: the start of what is there before the making of more."""
    work = Work(StartGate(1))
    async with asyncio.TaskGroup() as group:
        await spawn(group, lambda: work.create("a"))
        await spawn(group, lambda: work.create("b"), lambda: work.start("old"))
        work.ends["a"].set()
        await settle()
        first = list(work.begun)
        await spawn(group, lambda: work.start("a"))
        second = list(work.begun)
        work.ends["a"].set()
        await settle()
        third = list(work.begun)
        work.ends["old"].set()
        await settle()
        work.ends["b"].set()

    assert first == ["a"], "its place is kept for the start that follows"
    assert second == ["a", "a"]
    assert third == ["a", "a", "old"]
    assert work.begun == ["a", "a", "old", "b"]


async def test_a_failed_creation_frees_its_place_at_once() -> None:
    gate = StartGate(1)
    with suppress(RuntimeError):
        async with gate.creating():
            raise RuntimeError

    async with asyncio.timeout(0.5), gate.creating():
        pass


async def test_a_creation_that_is_not_followed_frees_its_place() -> None:
    """The start of an update's container comes after the stop of the former one."""
    gate = StartGate(1)
    async with gate.creating() as creation:
        creation.container_id = "a"

    async with asyncio.timeout(5), gate.starting("b"):
        pass


async def test_who_gives_up_waiting_leaves_no_trace() -> None:
    """Cancelled in the queue, or in the very moment in which the place was given."""
    work = Work(gate := StartGate(1))
    async with asyncio.TaskGroup() as group:
        await spawn(group, lambda: work.start("a"))
        in_queue = group.create_task(work.start("b"))
        given = group.create_task(work.start("c"))
        await settle()
        in_queue.cancel()
        await settle()
        work.ends["a"].set()
        await asyncio.sleep(0)
        given.cancel()
        await settle()
    async with asyncio.timeout(0.5), gate.starting("d"):
        pass

    assert "b" not in work.begun


async def test_who_gives_up_as_a_place_comes_free_is_cancelled_and_no_more() -> None:
    """Its turn comes between its cancellation and its hearing of it."""
    work = Work(gate := StartGate(1))
    async with gate.starting("a"):
        waiting = asyncio.create_task(work.start("b"))
        await settle()
        waiting.cancel()

    with pytest.raises(asyncio.CancelledError):
        await waiting
    async with asyncio.timeout(0.5), gate.starting("c"):
        pass


async def test_a_start_that_hangs_holds_up_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """It gives up its place; where the most hang, one at a time goes on beside them."""
    monkeypatch.setattr("consumer.adapters.start_limit._FIRST_PATIENCE_SECONDS", 0.05)
    work = Work(StartGate(2))
    async with asyncio.TaskGroup() as group:
        hung = [group.create_task(work.start("hung")), group.create_task(work.start("too"))]
        await asyncio.sleep(0.2)  # both have given up their places
        await spawn(group, lambda: work.start("third"), lambda: work.start("fourth"))
        while_two_hang = list(work.begun)
        work.ends["third"].set()
        await settle()
        after_one_ended = list(work.begun)
        for end in work.ends.values():
            end.set()

    assert all(task.done() for task in hung)
    assert while_two_hang == ["hung", "too", "third"]
    assert after_one_ended == ["hung", "too", "third", "fourth"]


@pytest.mark.looptime
async def test_many_that_hang_are_passed_over_sooner_and_sooner() -> None:
    """Who comes after two dozen of them waits for seconds, also where nothing is known yet."""
    gate = StartGate(8)
    is_over = asyncio.Event()

    async def hang(number: int) -> None:
        async with gate.starting(str(number)):
            await is_over.wait()

    async with asyncio.TaskGroup() as group:
        for number in range(24):
            group.create_task(hang(number))
        await asyncio.sleep(0)
        began = asyncio.get_running_loop().time()
        async with gate.starting("next"):
            waited = asyncio.get_running_loop().time() - began
        is_over.set()

    assert waited < 15


@pytest.mark.looptime
async def test_a_start_that_hung_teaches_no_patience() -> None:
    """One that was long in coming is not what the host usually needs: the next waits no longer."""
    gate = StartGate(1)
    for name in ("usual", "hung"):
        async with gate.starting(name):
            await asyncio.sleep(1 if name == "usual" else 60)
    began = asyncio.get_running_loop().time()

    async def hang() -> None:
        async with gate.starting("again"):
            await asyncio.sleep(60)

    async with asyncio.TaskGroup() as group:
        group.create_task(hang())
        await asyncio.sleep(0)
        async with gate.starting("next"):
            waited = asyncio.get_running_loop().time() - began

    assert waited < 10


async def test_a_creation_that_hangs_holds_up_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """A volume's driver may keep the engine waiting; when it is done after all, nothing is kept."""
    monkeypatch.setattr("consumer.adapters.start_limit._FIRST_PATIENCE_SECONDS", 0.05)
    work = Work(gate := StartGate(2))
    async with asyncio.TaskGroup() as group:
        await spawn(group, lambda: work.create("hung"))
        async with asyncio.timeout(0.5), gate.starting("other"):
            pass
        work.ends["hung"].set()
        await settle()
        async with asyncio.timeout(0.5), gate.creating(), gate.creating():
            pass


async def test_the_limit_is_told() -> None:
    told: list[int] = []
    gate = StartGate(8, on_change=told.append)

    async with gate.starting("a"):
        pass

    assert told == [1, 2]
