"""Rows: many tenants at once, against the best of bare loops with a fixed number on their way.

All loops run once; the two that were best at making and the two at removing, and ours, run again by
turns. A floor that is chosen afterwards is one that nobody has: no fixed number is the best on
every host. The peers make the same burst in the same run, once each: they are what people use
instead of us.
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
    Maker,
    Ours,
    remove_burst,
    single_latencies,
)
from tests.bench.report import Line, Outcome, Peer, Target
from tests.bench.stand import IMAGE, Stand

_RATE: Final = "tenants/s"
_WIDTHS: Final = (1, 2, 4, 8, 16, 32)
_FINALISTS: Final = 2
_MODEL: Final = "burst-model"
_NEARLY: Final = Target(least_ratio=0.97)
_NO_WORSE: Final = Target(most_ratio=1.0)
_LOOP_SLACK: Final = 1.0
"""The best loop may have half or twice as many on their way the next time."""


@dataclass(slots=True)
class Result:
    """What a contender reached: one sample for each burst."""

    contender: Contender
    created: list[float] = field(default_factory=list)
    """Tenants in a second."""
    deleted: list[float] = field(default_factory=list)
    """The same."""
    single: list[float] = field(default_factory=list)
    """The 95th percentile of how long single starts took, in seconds."""

    async def run(self, stand: Stand, count: int) -> None:
        """Make a burst, and remove it again."""
        self.created.append(count / await self.contender.create(stand, count))
        latencies = await single_latencies(stand, self.contender, count)
        self.single.append(quantiles(latencies, n=20)[-1])
        self.deleted.append(count / await self.contender.delete(stand, count))


@dataclass(frozen=True, slots=True)
class Burst:
    """Many tenants at once: how many in a second start, and how many go."""

    name: str = "burst"
    title: str = "many tenants at once"
    tenants: int = 64
    quick_tenants: int = 10
    rounds: int = 3
    quick_rounds: int = 2

    async def measure(self, place: Stand, *, is_quick: bool) -> Outcome:
        """Return a line for starts, one for single ones, one for deletions; and the peers."""
        count = self.quick_tenants if is_quick else self.tenants
        model = await place.run_tenant(_MODEL)
        ours = Result(Ours())
        loops = [Result(BareLoop(width, model)) for width in _WIDTHS]
        for result in (*loops, ours):
            await result.run(place, count)
        for number in range(1, self.quick_rounds if is_quick else self.rounds):
            best = (*_best(loops, _created), *_best(loops, _deleted))
            again = [result for result in loops if result in best]
            for result in (*again, ours) if number % 2 == 0 else (ours, *again):
                await result.run(place, count)
        rates = [await _rate(place, peer, count) for peer in _peers(model)]
        await place.delete_tenant(_MODEL)
        return Outcome(
            _lines(count, loops, ours),
            [
                *(_peer(it.contender.name, it.created, ours) for it in loops),
                *(_peer(name, [rate], ours) for name, rate in rates),
            ],
        )


def _lines(count: int, loops: Sequence[Result], ours: Result) -> list[Line]:
    maker, remover = _best(loops, _created)[0], _best(loops, _deleted)[0]
    return [
        Line(
            name="burst-starts",
            title=f"{count} starts at once, against {maker.contender.name}",
            unit=_RATE,
            target=_NEARLY,
            floor=maker.created,
            ours=ours.created,
        ),
        Line(
            name="burst-single",
            title=f"one start of {count} at once, p95",
            target=_NO_WORSE,
            slack=_LOOP_SLACK,
            floor=maker.single,
            ours=ours.single,
        ),
        Line(
            name="burst-deletions",
            title=f"{count} deletions at once, against {remover.contender.name}",
            unit=_RATE,
            target=_NEARLY,
            floor=remover.deleted,
            ours=ours.deleted,
        ),
    ]


def _created(result: Result) -> float:
    return median(result.created)


def _deleted(result: Result) -> float:
    return median(result.deleted)


def _best(loops: Sequence[Result], rate: Callable[[Result], float]) -> list[Result]:
    return sorted(loops, key=rate, reverse=True)[:_FINALISTS]


def _peers(model: dict[str, object]) -> list[Maker]:
    return [
        DockerCommand(1, IMAGE),
        DockerCommand(8, IMAGE),
        DockerPy(8, IMAGE),
        *(FastStream(prefetch, model) for prefetch in (1, 8, 100)),
    ]


async def _rate(stand: Stand, peer: Maker, count: int) -> tuple[str, float]:
    """Return how many in a second the peer makes; what it made is taken away unmeasured."""
    seconds = await peer.create(stand, count)
    await remove_burst(stand)
    return peer.name, count / seconds


def _peer(name: str, theirs: list[float], ours: Result) -> Peer:
    return Peer(name=name, theirs=theirs, ours=ours.created)
