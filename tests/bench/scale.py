"""Rows: what ten thousand tenants cost, on a simulated engine that costs nothing.

Bounds instead of floors: nobody else does the same work. Only the cost of an event has one: the
same consumer with a hundred tenants. CPU and memory are the consumer's process alone; the engine
has a process of its own, and answers without a delay.
"""

import asyncio
import time
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from tests.bench.crowd import Crowd, crowd
from tests.bench.report import NO_FLOOR_SLACK, SECONDS, Line, Outcome, Target
from tests.bench.stand import Stand
from tests.simulated import population

_MANY, _FEW = 10_000, 100
_REST_SECONDS: Final = 60.0
"""As long as from one resync to the next: whenever it begins, there is one in it."""
_SETTLE_SECONDS: Final = 2.0
_ANSWER_SECONDS: Final = 120.0
_EVENTS: Final = 100
_MIB: Final = 1024
_RESYNCS = "landlord_resync_seconds"


@dataclass(frozen=True, slots=True)
class _Figures:
    """All that is measured of the many."""

    ready: Line = field(
        default_factory=lambda: _line("ready", "restart until ready", SECONDS, most=5.0)
    )
    resync: Line = field(default_factory=lambda: _line("resync", "one resync", SECONDS, most=1.0))
    lists: Line = field(
        default_factory=lambda: _line("lists", "lists asked for by a resync", "", most=1.0)
    )
    looks: Line = field(
        default_factory=lambda: _line("looks", "inspections by a restart", "", most=0.0)
    )
    memory: Line = field(default_factory=lambda: _line("memory", "memory", "MiB", most=200.0))
    idle: Line = field(
        default_factory=lambda: _line("idle", "CPU at rest, resyncs included", "%", most=2.0)
    )

    def all(self) -> list[Line]:
        return [self.ready, self.resync, self.lists, self.looks, self.memory, self.idle]


def _line(name: str, title: str, unit: str, *, most: float) -> Line:
    title = f"{_MANY:,} tenants: {title}"
    return Line(
        name=f"scale-{name}",
        title=title,
        unit=unit,
        target=Target(most=most),
        slack=NO_FLOOR_SLACK,
    )


class Scale:
    """Many tenants live; a quick run leaves out what takes a minute's rest."""

    name = "scale"
    title = f"{_MANY:,} tenants on a simulated engine"

    async def measure(self, place: Stand, *, is_quick: bool) -> Outcome:
        """Start it again and again, let it rest, have events come in, create tenants."""
        figures = _Figures()
        events = Line(
            name="scale-event", title="CPU of 100 events, 100 to 10,000 tenants", target=_FLAT
        )
        creations = Line(
            name="scale-creations",
            title="creations on an engine without delays",
            unit="tenants/s",
            target=Target(least=1000.0),
            slack=NO_FLOOR_SLACK,
        )
        # The path of a socket is short.
        with TemporaryDirectory(prefix="ll-") as folder:
            async with (
                crowd(place, Path(folder), "few", _FEW, {}) as few,
                crowd(place, Path(folder), "many", _MANY, {}) as many,
            ):
                await few.start()
                for _ in range(1 if is_quick else 3):
                    await _restart(many, figures)
                if not is_quick:
                    await _rest(many, figures)
                await _events(few, many, events, rounds=2 if is_quick else 5)
                figures.memory.ours.append(many.process.memory_kilobytes / _MIB)
                for number in range(1 if is_quick else 3):
                    creations.ours.append(
                        await _create(few, f"new-{number}", 250 if is_quick else 500)
                    )
        return Outcome([*(line for line in figures.all() if line.ours), events, creations])


_FLAT: Final = Target(most_ratio=1.1)


async def _restart(crowd: Crowd, figures: _Figures) -> None:
    crowd.process.kill()
    before = await crowd.requests()
    began = time.monotonic()
    await crowd.start()
    figures.ready.ours.append(time.monotonic() - began)
    figures.resync.ours.append(await crowd.process.metric(f"{_RESYNCS}_sum"))
    await asyncio.sleep(_SETTLE_SECONDS)
    figures.looks.ours.append(float((await crowd.requests() - before)["inspect"]))


async def _rest(crowd: Crowd, figures: _Figures) -> None:
    requests, cpu = await crowd.requests(), crowd.process.cpu_seconds
    sums = await crowd.process.metric(f"{_RESYNCS}_sum")
    await asyncio.sleep(_REST_SECONDS)
    share = (crowd.process.cpu_seconds - cpu) / _REST_SECONDS
    figures.idle.ours.append(share * 100)
    figures.lists.ours.append(float((await crowd.requests() - requests)["list"]))
    figures.resync.ours.append(await crowd.process.metric(f"{_RESYNCS}_sum") - sums)


async def _events(few: Crowd, many: Crowd, measured: Line, *, rounds: int) -> None:
    """Have events that change nothing answered, by turns.

    The first of each warms up, and has the consumer see the tenants' containers for itself.
    """
    for number in range(rounds + 1):
        for side, samples in ((few, measured.floor), (many, measured.ours)):
            seconds = await _answer_events(side)
            if number:
                samples.append(seconds)


async def _answer_events(crowd: Crowd) -> float:
    """Return the CPU time of as many events, each of a tenant of its own."""
    step = crowd.size // _EVENTS
    began = crowd.process.cpu_seconds
    async with asyncio.TaskGroup() as group:
        for number in range(0, crowd.size, step):
            group.create_task(_tell(crowd, population.document(number)))
    return crowd.process.cpu_seconds - began


async def _create(crowd: Crowd, name: str, count: int) -> float:
    """Return how many new tenants ran in a second, all asked for at once."""
    began = time.monotonic()
    async with asyncio.TaskGroup() as group:
        for number in range(count):
            document = population.document(number) | {"tenant_id": f"{name}-{number}"}
            group.create_task(_tell(crowd, document))
    return count / (time.monotonic() - began)


async def _tell(crowd: Crowd, document: dict[str, object]) -> None:
    event_id = await crowd.clients.publisher.update(document)
    await crowd.clients.subscriber.expect_message(
        str(document["tenant_id"]), event_id=event_id, state="running", timeout=_ANSWER_SECONDS
    )
