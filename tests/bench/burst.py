"""Rows: many tenants at once, against the best of bare loops with a fixed number on their way.

All loops run once; the two that were best, and ours, run again by turns. A floor that is chosen
afterwards is one that nobody has: no fixed number is the best on every host. The peers, once each
on the same burst, are what people use instead of us.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from statistics import median, quantiles
from typing import Final

from tests.bench.contenders import (
    BareLoop,
    Contender,
    DockerCommand,
    DockerPy,
    FastStream,
    Ours,
    single_latencies,
)
from tests.bench.report import Line, Outcome, Target
from tests.bench.stand import IMAGE, Stand

_WIDTHS: Final = (1, 2, 4, 8, 16, 32)
_FINALISTS: Final = 2
_MODEL: Final = "burst-model"
_NEARLY: Final = Target(most_ratio=1 / 0.97)
_NO_WORSE: Final = Target(most_ratio=1.0)


@dataclass(slots=True)
class Result:
    """What a contender's bursts took, in seconds: one sample for each burst."""

    contender: Contender
    created: list[float] = field(default_factory=list)
    deleted: list[float] = field(default_factory=list)
    single: list[float] = field(default_factory=list)
    """The 95th percentile of how long single starts took."""

    async def run(self, stand: Stand, count: int) -> None:
        """Make a burst, and remove it again."""
        self.created.append(await self.contender.create(stand, count))
        latencies = await single_latencies(stand, self.contender, count)
        self.single.append(quantiles(latencies, n=20)[-1])
        self.deleted.append(await self.contender.delete(stand, count))


@dataclass(frozen=True, slots=True)
class Burst:
    """Many tenants at once: how long until all run, and until all are gone."""

    name: str = "burst"
    title: str = "many tenants at once"
    tenants: int = 64
    quick_tenants: int = 24
    rounds: int = 3
    quick_rounds: int = 2

    async def measure(self, place: Stand, *, is_quick: bool) -> Outcome:
        """Return a line for creations, one for single starts, one for deletions."""
        count = self.quick_tenants if is_quick else self.tenants
        rounds = self.quick_rounds if is_quick else self.rounds
        model = await place.run_tenant(_MODEL)
        ours = Result(Ours())
        loops = [Result(BareLoop(width, model)) for width in _WIDTHS]
        for result in (*loops, ours):
            await result.run(place, count)
        for number in range(1, rounds):
            again = [it for it in loops if it in (*_best(loops, _created), *_best(loops, _deleted))]
            for result in (*again, ours) if number % 2 == 0 else (ours, *again):
                await result.run(place, count)
        await place.delete_tenant(_MODEL)
        maker, remover = _best(loops, _created)[0], _best(loops, _deleted)[0]
        lines = [
            _line(f"{count} starts at once", maker, maker.created, ours.created, _NEARLY),
            _line("a single start among them, p95", maker, maker.single, ours.single, _NO_WORSE),
            _line(f"{count} deletions at once", remover, remover.deleted, ours.deleted, _NEARLY),
        ]
        return Outcome(lines)


@dataclass(frozen=True, slots=True)
class Peers:
    """The same burst by what people use instead of us; ours is the floor of their lines."""

    name: str = "peers"
    title: str = "what people use instead"
    tenants: int = 64
    quick_tenants: int = 12

    async def measure(self, place: Stand, *, is_quick: bool) -> Outcome:
        """Return a line for each peer."""
        count = self.quick_tenants if is_quick else self.tenants
        model = await place.run_tenant(_MODEL)
        ours = Result(Ours())
        peers = [
            Result(DockerCommand(1, IMAGE)),
            Result(DockerCommand(8, IMAGE)),
            Result(DockerPy(8, IMAGE)),
            *(Result(FastStream(prefetch, model)) for prefetch in (1, 8, 100)),
        ]
        for result in (ours, *peers, ours):
            await result.run(place, count)
        await place.delete_tenant(_MODEL)
        lines = [
            _line(f"{count} starts at once", peer, peer.created, ours.created, Target())
            for peer in peers
        ]
        return Outcome(lines)


def _created(result: Result) -> float:
    return median(result.created)


def _deleted(result: Result) -> float:
    return median(result.deleted)


def _best(loops: Sequence[Result], seconds: Callable[[Result], float]) -> list[Result]:
    return sorted(loops, key=seconds)[:_FINALISTS]


def _line(title: str, other: Result, floor: list[float], ours: list[float], target: Target) -> Line:
    name = f"{title}, against {other.contender.name}"
    return Line(name=name, title=name, target=target, floor=floor, ours=ours)
