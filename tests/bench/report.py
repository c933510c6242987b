"""Samples become medians with their spread, a table, and a JSON file; knows no server."""

import json
import os
import platform
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median, quantiles
from typing import Final, Generic, TypeVar

from aiodocker import Docker
from typing_extensions import override

_HEAD: Final = ("what", "floor", "ours", "ratio", "more", "target", "met")
_GIB: Final = 2**30
_FEW: Final = 4

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Target:
    """What a row is to reach at the median, in seconds and as a ratio; both have to hold."""

    most_ratio: float | None = None
    most_more_seconds: float | None = None

    def is_met(self, floor: float, ours: float) -> bool:
        """Whether ours is good enough for this floor."""
        is_near = self.most_ratio is None or ours <= self.most_ratio * floor
        is_short = self.most_more_seconds is None or ours - floor <= self.most_more_seconds
        return is_near and is_short

    @override
    def __str__(self) -> str:
        parts = []
        if self.most_ratio is not None:
            parts.append(f"≤ {self.most_ratio:.2f}")
        if self.most_more_seconds is not None:
            parts.append(f"≤ {_milliseconds(self.most_more_seconds)} more")
        return ", ".join(parts) or "none"


@dataclass(frozen=True, slots=True)
class Measured:
    """The samples of one row, in seconds, in the order in which they were taken."""

    name: str
    title: str
    target: Target
    floor: list[float] = field(default_factory=list)
    ours: list[float] = field(default_factory=list)

    @property
    def ratio(self) -> float:
        return median(self.ours) / median(self.floor)


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """The samples of something that has no floor, only a bound on one side."""

    name: str
    title: str
    unit: str
    most: float | None = None
    least: float | None = None
    samples: list[float] = field(default_factory=list)

    @property
    def is_met(self) -> bool:
        """Whether the median keeps within the bounds."""
        middle = median(self.samples)
        is_enough = self.least is None or middle >= self.least
        return is_enough and (self.most is None or middle <= self.most)

    def cells(self) -> tuple[str, ...]:
        """Return its line of the table."""
        low, middle, high = _spread_of(self.samples)
        unit = f" {self.unit}" if self.unit else ""
        ours = f"{_plain(middle)}{unit} ({_plain(low)} to {_plain(high)})"
        bound = f"≤ {self.most:g}" if self.most is not None else f"≥ {self.least:g}"
        target = f"{bound}{unit}"
        return (self.title, "-", ours, "-", "-", target, "yes" if self.is_met else "no")


def _plain(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


@dataclass(frozen=True, slots=True)
class Row(Generic[T]):
    """One line of the table: what it measures on a place, and how often."""

    name: str
    title: str
    target: Target
    rounds: int
    quick_rounds: int
    floor: Callable[[T, int], Awaitable[float]]
    """Makes the n-th round of the floor; returns its seconds."""
    ours: Callable[[T, int], Awaitable[float]]

    async def measure(self, place: T, *, is_quick: bool) -> list[Measured]:
        """Run floor and ours by turns, each first in every second round; one round warms up."""
        measured = Measured(self.name, self.title, self.target)
        await self.floor(place, 0)
        await self.ours(place, 0)
        for number in range(1, 1 + (self.quick_rounds if is_quick else self.rounds)):
            turns = [(self.floor, measured.floor), (self.ours, measured.ours)]
            for run, samples in turns if number % 2 else reversed(turns):
                samples.append(await run(place, number))
        return [measured]


def table(measured: Sequence[Measured | Figure]) -> str:
    """Return the table, as Markdown."""
    cells = (row.cells() if isinstance(row, Figure) else _cells(row) for row in measured)
    lines = [_HEAD, tuple("---" for _ in _HEAD), *cells]
    widths = [max(len(line[place]) for line in lines) for place in range(len(_HEAD))]
    return "\n".join(
        "| "
        + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        + " |"
        for line in lines
    )


def _cells(row: Measured) -> tuple[str, ...]:
    floor, ours = median(row.floor), median(row.ours)
    return (
        row.title,
        _spread(row.floor),
        _spread(row.ours),
        f"{row.ratio:.2f}",
        _milliseconds(ours - floor),
        str(row.target),
        "yes" if row.target.is_met(floor, ours) else "no",
    )


def _spread(samples: Sequence[float]) -> str:
    """Return the median, and between which values half of the samples lie; few are all shown."""
    low, middle, high = _spread_of(samples)
    return f"{_milliseconds(middle)} ({low * 1000:.0f} to {high * 1000:.0f})"


def _spread_of(samples: Sequence[float]) -> tuple[float, float, float]:
    if len(samples) <= _FEW:
        return min(samples), median(samples), max(samples)
    low, middle, high = quantiles(samples, n=4)
    return low, middle, high


def _milliseconds(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms"


async def machine(docker: Docker) -> str:
    """Return in one line what it ran on."""
    told = await docker.system.info()
    return (
        f"{os.cpu_count()} cores ({_processor()}), "
        f"{told['MemTotal'] / _GIB:.0f} GiB, Linux {platform.release()}, "
        f"Docker {told['ServerVersion']} ({told['Driver']}), Python {platform.python_version()}"
    )


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    models = (line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    return next(models, platform.machine())


def write(place: Path, about: str, measured: Sequence[Measured | Figure]) -> Path:
    """Keep every sample; return where."""
    place.parent.mkdir(parents=True, exist_ok=True)
    rows = [
        asdict(row) | ({"ratio": row.ratio} if isinstance(row, Measured) else {})
        for row in measured
    ]
    place.write_text(json.dumps({"machine": about, "rows": rows}, indent=1) + "\n")
    return place
