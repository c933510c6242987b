"""One picture of a run, as SVG: each line with a target against it, and the peers.

A line is drawn by what it is judged by: its ratio to the floor, or how much of its bound is used
up. Shown are each of our samples, half of them as a bar, the median as a diamond; the floor's own
spread as a grey band around 1; what keeps to the target as a green ground. Scales are logarithmic.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from html import escape
from math import log
from statistics import median
from typing import Final

from tests.bench.report import Line, Outcome, Peer, Target, spread_of

_WIDTH: Final = 1040
_LEFT, _RIGHT = 400, 790
"""Where the scale begins and ends; names are before it, figures after it."""
_MARGIN: Final = 28
_ROW: Final = 30
_TICKS: Final = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0)
_LOWEST, _HIGHEST = _TICKS[0], _TICKS[-1]

_INK, _FAINT, _GRID, _BAND = "#1f2933", "#66727f", "#e3e7eb", "#d5dae0"
_ALLOWED, _MET, _MISSED, _OURS = "#e5f3ea", "#1b7f4b", "#c0392b", "#2f6db5"
_LEGEND: Final = (
    "◆ median of ours, bar: half of its samples; grey: the floor's own; green: on target"
)
_FONT: Final = "system-ui, -apple-system, 'Segoe UI', 'DejaVu Sans', sans-serif"


@dataclass(frozen=True, slots=True)
class _Drawn:
    """A line as it is drawn: all as parts of the floor's median, or of the bound."""

    line: Line
    samples: list[float]
    floor: list[float]
    target: float
    is_rate: bool
    words: str


def plot(outcome: Outcome, about: str) -> str:
    """Return the picture."""
    judged = [line for line in outcome.lines if line.is_met is not None]
    against = [_against_floor(line) for line in judged if _ratio_of(line.target) is not None]
    bound = [_against_bound(line) for line in judged if _ratio_of(line.target) is None]
    page = _Page()
    met = sum(1 for line in judged if line.is_met)
    page.title(f"What the consumer costs: {met} of {len(judged)} targets met", about)
    page.lines("Time, as a multiple of the floor's", "less is better", _of(against, is_rate=False))
    page.lines("Throughput, as a part of the floor's", "more is better", _of(against, is_rate=True))
    page.lines("Share of what is allowed, where there is no ratio", "less is better", bound)
    page.peers(outcome.peers)
    return page.svg()


def _of(drawn: Iterable[_Drawn], *, is_rate: bool) -> list[_Drawn]:
    return [it for it in drawn if it.is_rate is is_rate]


def _ratio_of(target: Target) -> float | None:
    return target.most_ratio if target.least_ratio is None else target.least_ratio


def _against_floor(line: Line) -> _Drawn:
    target = _ratio_of(line.target)
    assert target is not None
    middle = median(line.floor)
    return _Drawn(
        line,
        [sample / middle for sample in line.ours],
        [sample / middle for sample in line.floor],
        target,
        line.target.least_ratio is not None,
        f"{line.ratio:.2f}",
    )


def _against_bound(line: Line) -> _Drawn:
    floor = median(line.floor) if line.floor else None
    samples = [max(line.target.shares(floor, sample)) for sample in line.ours]
    return _Drawn(line, samples, [], 1.0, False, f"{median(samples):.0%}")


@dataclass(frozen=True, slots=True)
class _Scale:
    """From values to places."""

    low: float
    high: float

    def __call__(self, value: float) -> float:
        held = min(max(value, self.low), self.high)
        return _LEFT + (_RIGHT - _LEFT) * log(held / self.low) / log(self.high / self.low)

    def ticks(self) -> list[float]:
        return [tick for tick in _TICKS if self.low <= tick <= self.high]


def _scale(drawn: Sequence[_Drawn]) -> _Scale:
    """Return one that has 1 in it, every sample, and a tick at either end."""
    values = [value for it in drawn for value in (*it.samples, *it.floor, it.target, 1.0)]
    low = max((tick for tick in _TICKS if tick < min(values) * 0.98), default=_LOWEST)
    high = min((tick for tick in _TICKS if tick > max(values) * 1.02), default=_HIGHEST)
    return _Scale(low, high)


class _Page:
    """Filled from above."""

    def __init__(self) -> None:
        self._parts: list[str] = []
        self._y = float(_MARGIN)

    def svg(self) -> str:
        height = self._y + _MARGIN
        head = (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height:.0f}" '
            f'width="{_WIDTH}" height="{height:.0f}" font-family="{_FONT}" font-size="13">'
        )
        ground = f'<rect width="{_WIDTH}" height="{height:.0f}" fill="#fff"/>'
        return "\n".join([head, ground, *self._parts, "</svg>\n"])

    def title(self, words: str, about: str) -> None:
        self._text(_MARGIN, self._y + 14, words, size=20, weight=600)
        self._text(_MARGIN, self._y + 36, about, fill=_FAINT, size=12)
        self._text(_MARGIN, self._y + 54, _LEGEND, fill=_FAINT, size=12)
        self._y += 76

    def lines(self, words: str, better: str, drawn: Sequence[_Drawn]) -> None:
        if not drawn:
            return
        self._heading(words, better)
        scale = _scale(drawn)
        top, bottom = self._y, self._y + _ROW * len(drawn)
        for number, each in enumerate(drawn):
            self._ground(scale, each, top + _ROW * number)
        self._axis(scale.ticks(), scale, lambda tick: f"{tick:g}", top, bottom)
        for number, each in enumerate(drawn):
            self._line(scale, each, top + _ROW * (number + 0.5))
        self._y = bottom + 34

    def peers(self, peers: Sequence[Peer]) -> None:
        if not peers:
            return
        self._heading("Starts of the same burst by others, tenants in a second", "more is better")
        rows = [("landlord-consumer", peers[0].ours, _OURS, "")]
        rows += [(it.name, it.theirs, "#a9b4bf", f"{it.ratio:.2f} of ours") for it in peers]
        most = max(value for _, samples, _, _ in rows for value in samples) * 1.05
        top = self._y
        for number, (name, samples, fill, words) in enumerate(rows):
            y = top + 24 * (number + 0.5)
            low, middle, high = (
                _LEFT + (_RIGHT - _LEFT) * value / most for value in spread_of(samples)
            )
            self._text(_LEFT - 14, y + 4, name, anchor="end")
            self._rect(_LEFT, y - 7, middle - _LEFT, 14, fill)
            self._stroke(low, y, high, y, _INK, 1.5)
            self._text(_RIGHT + 16, y + 4, f"{median(samples):.1f}", weight=600)
            self._text(_RIGHT + 60, y + 4, words, fill=_FAINT)
        self._y = top + 24 * len(rows)

    def _heading(self, words: str, better: str) -> None:
        self._text(_MARGIN, self._y + 14, words, size=14, weight=600)
        self._text(_RIGHT, self._y + 14, better, fill=_FAINT, size=12, anchor="end")
        self._y += 26

    def _ground(self, scale: _Scale, each: _Drawn, y: float) -> None:
        target = scale(each.target)
        begin, end = (target, float(_RIGHT)) if each.is_rate else (float(_LEFT), target)
        self._rect(begin, y, end - begin, _ROW, _ALLOWED)
        if each.floor:
            low, _, high = (scale(value) for value in spread_of(each.floor))
            self._rect(low, y + 5, max(high - low, 1.0), _ROW - 10, _BAND)

    def _axis(
        self,
        ticks: Sequence[float],
        place: Callable[[float], float],
        words: Callable[[float], str],
        top: float,
        bottom: float,
    ) -> None:
        for tick in ticks:
            x = place(tick)
            self._stroke(x, top, x, bottom, _FAINT if tick == 1 else _GRID, 1)
            self._text(x, bottom + 16, words(tick), fill=_FAINT, size=11, anchor="middle")

    def _line(self, scale: _Scale, each: _Drawn, y: float) -> None:
        fill = _MET if each.line.is_met else _MISSED
        target = scale(each.target)
        self._text(_LEFT - 14, y + 4, each.line.title, anchor="end")
        self._stroke(target, y - _ROW / 2 + 3, target, y + _ROW / 2 - 3, _MET, 2)
        low, middle, high = (scale(value) for value in spread_of(each.samples))
        self._stroke(low, y, high, y, fill, 5, opacity=0.35)
        for sample in each.samples:
            self._parts.append(
                f'<circle cx="{scale(sample):.1f}" cy="{y:.1f}" r="2.6" fill="{fill}" '
                'fill-opacity=".45"/>'
            )
        self._parts.append(
            f'<path d="M{middle:.1f} {y - 7:.1f}l6 7l-6 7l-6 -7z" fill="{fill}" stroke="#fff"/>'
        )
        self._text(_RIGHT + 16, y + 4, each.words, fill=fill, weight=600)
        verdict = each.line.target.words(each.line.unit)
        self._text(_RIGHT + 66, y + 4, f"{'✓' if each.line.is_met else '✗'} {verdict}", fill=fill)

    def _text(
        self,
        x: float,
        y: float,
        words: str,
        *,
        fill: str = _INK,
        size: int = 13,
        weight: int = 400,
        anchor: str = "start",
    ) -> None:
        self._parts.append(
            f'<text x="{x:.1f}" y="{y:.1f}" fill="{fill}" font-size="{size}" '
            f'font-weight="{weight}" text-anchor="{anchor}">{escape(words)}</text>'
        )

    def _rect(self, x: float, y: float, width: float, height: float, fill: str) -> None:
        self._parts.append(
            f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" '
            f'fill="{fill}"/>'
        )

    def _stroke(
        self,
        x: float,
        y: float,
        to_x: float,
        to_y: float,
        colour: str,
        width: float,
        *,
        opacity: float = 1.0,
    ) -> None:
        self._parts.append(
            f'<path d="M{x:.1f} {y:.1f}L{to_x:.1f} {to_y:.1f}" stroke="{colour}" '
            f'stroke-width="{width}" stroke-opacity="{opacity}"/>'
        )
