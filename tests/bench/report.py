"""Samples become medians with their spread, tables, and a JSON file; knows no server."""

import json
import os
import platform
import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median, quantiles
from typing import Final, Generic, TypeVar

from aiodocker import Docker

SECONDS: Final = "s"
"""The unit of every time; all other units are written as they are."""
_HEAD: Final = ("what", "floor", "ours", "ratio", "more", "target", "met")
_PEERS_HEAD: Final = ("who", "starts", "ratio to ours")
_GIB: Final = 2**30
_FEW: Final = 4
NO_FLOOR_SLACK: Final = 0.25
"""Where nothing beside it has met the same machine."""
_LONG_SECONDS: Final = 10.0

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """What a line is to keep at the median, in the line's unit or as a ratio; all have to hold."""

    most_ratio: float | None = None
    least_ratio: float | None = None
    most_more: float | None = None
    most: float | None = None
    least: float | None = None

    def shares(self, floor: float | None, ours: float) -> list[float]:
        """Return how much of each bound is used up: 1 is just enough, more is a miss."""
        shares = []
        if self.most is not None:
            shares.append(_share(ours, self.most))
        if self.least is not None:
            shares.append(_share(self.least, ours))
        if floor is None:
            return shares
        if self.most_ratio is not None:
            shares.append(_share(ours / floor, self.most_ratio))
        if self.least_ratio is not None:
            shares.append(_share(self.least_ratio, ours / floor))
        if self.most_more is not None:
            shares.append(_share(ours - floor, self.most_more))
        return shares

    def words(self, unit: str) -> str:
        """Return it as the table shows it, `-` when there is none."""
        parts = {
            "≤ {}": _ratio(self.most_ratio),
            "≥ {}": _ratio(self.least_ratio),
            "≤ {} more": _amount(self.most_more, unit),
            "≤ {} ": _amount(self.most, unit),
            "≥ {} ": _amount(self.least, unit),
        }
        told = [form.format(value).strip() for form, value in parts.items() if value is not None]
        return ", ".join(told) or "-"


def _share(value: float, bound: float) -> float:
    """Return the used part of the bound; of nothing, nothing is all there is to use."""
    return 1 + value if bound == 0 else max(0.0, value / bound)


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """The samples of one line of the table, in the order in which they were taken.

    Without a floor there is only a bound; without a target it is told and not judged.
    """

    name: str
    title: str
    unit: str = SECONDS
    target: Target = Target()
    slack: float = 0.05
    """By which part it may cost more than in another run before that tells anything."""
    floor: list[float] = field(default_factory=list)
    ours: list[float] = field(default_factory=list)

    @property
    def ratio(self) -> float | None:
        """Ours to the floor, at the median; None without a floor."""
        return median(self.ours) / median(self.floor) if self.floor else None

    @property
    def share(self) -> float | None:
        """How much of the tightest bound is used up; None without a target."""
        floor = median(self.floor) if self.floor else None
        return max(self.target.shares(floor, median(self.ours)), default=None)

    @property
    def is_met(self) -> bool | None:
        """Whether the median keeps to the target; None without one."""
        return None if self.share is None else self.share <= 1

    def cells(self) -> tuple[str, ...]:
        """Return its line of the table."""
        more = median(self.ours) - median(self.floor) if self.floor else None
        is_time = self.unit == SECONDS
        return (
            self.title,
            _spread(self.floor, self.unit) if self.floor else "-",
            _spread(self.ours, self.unit),
            _ratio(self.ratio) or "-",
            (_amount(more, self.unit) if is_time else None) or "-",
            self.target.words(self.unit),
            {True: "yes", False: "no", None: "-"}[self.is_met],
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """What people use instead of us on the same burst: tenants started in a second, of both."""

    name: str
    theirs: list[float]
    ours: list[float]

    @property
    def ratio(self) -> float:
        """Theirs to ours: below 1 is slower than we are."""
        return median(self.theirs) / median(self.ours)

    def cells(self) -> tuple[str, ...]:
        """Return its line of the table."""
        return (self.name, _spread(self.theirs, "tenants/s"), f"{self.ratio:.2f}")


@dataclass(frozen=True, slots=True)
class Outcome:
    """All that a row has measured."""

    lines: Sequence[Line]
    peers: Sequence[Peer] = ()


@dataclass(frozen=True, slots=True)
class Row(Generic[T]):
    """One line of the table: what it measures on a place, in seconds, and how often."""

    name: str
    title: str
    target: Target
    rounds: int
    quick_rounds: int
    floor: Callable[[T, int], Awaitable[float]]
    """Makes the n-th round of the floor; returns its seconds."""
    ours: Callable[[T, int], Awaitable[float]]

    async def measure(self, place: T, *, is_quick: bool) -> Outcome:
        """Run floor and ours by turns, each first in every second round; one round warms up."""
        line = Line(name=self.name, title=self.title, target=self.target)
        await self.floor(place, 0)
        await self.ours(place, 0)
        for number in range(1, 1 + (self.quick_rounds if is_quick else self.rounds)):
            turns = [(self.floor, line.floor), (self.ours, line.ours)]
            for run, samples in turns if number % 2 else reversed(turns):
                samples.append(await run(place, number))
        return Outcome([line])


def table(lines: Sequence[Line]) -> str:
    """Return the table of targets, as Markdown."""
    return markdown([_HEAD, *(line.cells() for line in lines)])


def peers_table(peers: Sequence[Peer]) -> str:
    """Return the table of peers, as Markdown, ours first."""
    ours = ("landlord-consumer", _spread(peers[0].ours, "tenants/s"), "1.00")
    return markdown([_PEERS_HEAD, ours, *(peer.cells() for peer in peers)])


def markdown(lines: Sequence[tuple[str, ...]]) -> str:
    """Return a table of these lines, the first its head."""
    head, *rest = lines
    widths = [max(len(line[place]) for line in lines) for place in range(len(head))]
    return "\n".join(
        "| "
        + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        + " |"
        for line in (head, tuple("---" for _ in head), *rest)
    )


def _spread(samples: Sequence[float], unit: str) -> str:
    """Return the median, and between which values half of the samples lie; few are all shown."""
    low, middle, high = spread_of(samples)
    scale = 1000 if unit == SECONDS and middle < _LONG_SECONDS else 1
    return f"{_amount(middle, unit)} ({_plain(low * scale)} to {_plain(high * scale)})"


def spread_of(samples: Sequence[float]) -> tuple[float, float, float]:
    """Return the quartiles; of few samples the lowest, the median and the highest."""
    if len(samples) <= _FEW:
        return min(samples), median(samples), max(samples)
    low, middle, high = quantiles(samples, n=4)
    return low, middle, high


def _amount(value: float | None, unit: str) -> str | None:
    if value is None:
        return None
    if unit == SECONDS and abs(value) < _LONG_SECONDS:
        return f"{value * 1000:,.0f} ms"
    return f"{_plain(value)} {unit}".strip()


def _ratio(value: float | None) -> str | None:
    return None if value is None else f"{value:.2f}"


def _plain(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


async def machine(docker: Docker) -> str:
    """Return in one line what it ran on."""
    told = await docker.system.info()
    return (
        f"{os.cpu_count()} cores ({_processor()}), "
        f"{told['MemTotal'] / _GIB:.0f} GiB, Linux {_number(platform.release())}, "
        f"Docker {_number(told['ServerVersion'])} ({told['Driver']}), "
        f"Python {platform.python_version()}"
    )


def _number(version: str) -> str:
    """Return the version without what its packager has added."""
    return re.split(r"[-+]", version)[0]


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    models = (line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    return next(models, platform.machine())


def as_json(about: str, outcome: Outcome) -> str:
    """Return every sample, with what was made of them."""
    lines = [asdict(it) | {"ratio": it.ratio, "met": it.is_met} for it in outcome.lines]
    peers = [asdict(it) | {"ratio": it.ratio} for it in outcome.peers]
    return json.dumps({"machine": about, "lines": lines, "peers": peers}, indent=1) + "\n"
