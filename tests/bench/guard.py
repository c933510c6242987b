"""A run against the committed one: which lines have become clearly worse. Knows no server.

Compared is the cost of each line that has a target: its ratio to the floor, of a rate the other way
round, so that more is always worse; without a floor, how much of the bound is used up. A line is a
clear loss when its cost exceeds the committed one by more than is tolerated: twice the noise of
both runs, and at least the line's slack, which is 5 %, and more where nothing beside it has met the
same machine or the floor may be another one. Noise is the standard error of the medians, from the
spread of the samples; that a few are near each other does not make them exact, so that each is
taken to be 5 % off at least, and one that is alone 10 %.

Full and quick runs are kept apart: a small burst costs something else than a large one.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from math import hypot, sqrt
from pathlib import Path
from statistics import median, stdev
from typing import Final

from tests.bench.report import Line, markdown

_HEAD: Final = (
    "what costs (more is worse)",
    "committed",
    "now",
    "change",
    "tolerated",
    "clear loss",
)
_SURE: Final = 2.0
_MEDIAN: Final = 1.25
"""How much wider a median's error is than a mean's."""
_ALONE: Final = 0.1
_EXACT: Final = 0.05


@dataclass(frozen=True, slots=True)
class Mark:
    """What a line cost, and by which part of it the figure may be off."""

    cost: float
    noise: float


@dataclass(frozen=True, slots=True)
class Comparison:
    """A line, and what was committed of it."""

    line: Line
    now: Mark
    committed: Mark

    @property
    def change(self) -> float:
        """By which part of the committed cost it is more now."""
        return self.now.cost / self.committed.cost - 1

    @property
    def tolerance(self) -> float:
        """Up to which change nothing is said."""
        return max(self.line.slack, _SURE * hypot(self.now.noise, self.committed.noise))

    @property
    def is_loss(self) -> bool:
        return self.change > self.tolerance

    def cells(self) -> tuple[str, ...]:
        """Return its line of the table."""
        return (
            self.line.title,
            f"{self.committed.cost:.2f}",
            f"{self.now.cost:.2f}",
            f"{self.change:+.0%}",
            f"{self.tolerance:+.0%}",
            "YES" if self.is_loss else "no",
        )


def marks(lines: Sequence[Line]) -> dict[str, Mark]:
    """Return what each line with a target costs, by its name."""
    return {line.name: _mark(line) for line in lines if line.share is not None}


def _mark(line: Line) -> Mark:
    return Mark(cost=_cost(line), noise=hypot(*map(_noise, filter(None, (line.floor, line.ours)))))


def _cost(line: Line) -> float:
    if line.ratio is None:
        assert line.share is not None
        return line.share
    return line.ratio if line.target.least_ratio is None else 1 / line.ratio


def _noise(samples: Sequence[float]) -> float:
    if len(samples) < 2:
        return _ALONE
    middle = median(samples)
    spread = stdev(samples) / middle if middle else 0.0
    return _MEDIAN * max(spread, _EXACT) / sqrt(len(samples))


def compare(lines: Sequence[Line], committed: Mapping[str, Mark]) -> list[Comparison]:
    """Compare what is in both; a line that is new, or was not measured, is passed over."""
    now = marks(lines)
    return [
        Comparison(line, now[line.name], committed[line.name])
        for line in lines
        if line.name in now and line.name in committed
    ]


def comparison_table(comparisons: Sequence[Comparison]) -> str:
    """Return the table, as Markdown."""
    return markdown([_HEAD, *(it.cells() for it in comparisons)])


def read(place: Path, kind: str) -> dict[str, Mark]:
    """Return what was committed of this kind of run; nothing when nothing was."""
    kept = json.loads(place.read_text()) if place.exists() else {}
    return {name: Mark(**mark) for name, mark in kept.get(kind, {}).get("lines", {}).items()}


def commit(place: Path, kind: str, about: str, lines: Sequence[Line]) -> None:
    """Keep what these lines cost, beside what is kept of others and of the other kind of run."""
    kept = json.loads(place.read_text()) if place.exists() else {}
    old = kept.get(kind, {}).get("lines", {})
    new = {
        name: {key: round(value, 4) for key, value in asdict(mark).items()}
        for name, mark in marks(lines).items()
    }
    kept[kind] = {"machine": about, "lines": {**old, **new}}
    place.write_text(json.dumps(kept, indent=2, sort_keys=True) + "\n")
