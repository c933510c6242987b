"""What is clearly worse than the committed run, and what is noise."""

from pathlib import Path

import pytest

from tests.bench.guard import Mark, commit, compare, comparison_table, marks, read
from tests.bench.report import Line, Target

_TIME = Target(most_ratio=1.05)
_RATE = Target(least_ratio=0.97)
_BOUND = Target(most=200.0)
_ENOUGH = Target(least=1000.0)
_STEADY = [1.0] * 40


def _line(target: Target, floor: list[float], ours: list[float], name: str = "x") -> Line:
    slack = 0.05 if floor else 0.25
    return Line(
        name=name,
        title=f"what {name} takes",
        target=target,
        slack=slack,
        floor=floor,
        ours=ours,
    )


def _times(samples: list[float], factor: float) -> list[float]:
    return [sample * factor for sample in samples]


@pytest.mark.parametrize(
    ("before", "after", "is_loss"),
    [
        (_line(_TIME, _STEADY, _STEADY), _line(_TIME, _STEADY, _times(_STEADY, 1.04)), False),
        (_line(_TIME, _STEADY, _STEADY), _line(_TIME, _STEADY, _times(_STEADY, 1.06)), True),
        (_line(_TIME, _STEADY, _STEADY), _line(_TIME, _STEADY, _times(_STEADY, 0.5)), False),
        # A slower machine is slower for both.
        (
            _line(_TIME, _STEADY, _STEADY),
            _line(_TIME, _times(_STEADY, 3), _times(_STEADY, 3)),
            False,
        ),
        (_line(_RATE, _STEADY, _STEADY), _line(_RATE, _STEADY, _times(_STEADY, 0.96)), False),
        (_line(_RATE, _STEADY, _STEADY), _line(_RATE, _STEADY, _times(_STEADY, 0.94)), True),
        (_line(_RATE, _STEADY, _STEADY), _line(_RATE, _STEADY, _times(_STEADY, 2)), False),
        # Without a floor, the machine may be another one.
        (_line(_BOUND, [], [100.0, 100.0]), _line(_BOUND, [], [120.0, 120.0]), False),
        (_line(_BOUND, [], [100.0, 100.0]), _line(_BOUND, [], [130.0, 130.0]), True),
        (_line(_ENOUGH, [], [2000.0, 2000.0]), _line(_ENOUGH, [], [1500.0, 1500.0]), True),
        (_line(_ENOUGH, [], [2000.0, 2000.0]), _line(_ENOUGH, [], [3000.0, 3000.0]), False),
        # Where nothing is allowed, anything is a loss.
        (_line(Target(most=0), [], [0.0, 0.0]), _line(Target(most=0), [], [0.0, 0.0]), False),
        (_line(Target(most=0), [], [0.0, 0.0]), _line(Target(most=0), [], [1.0, 1.0]), True),
        # What scatters has to be worse by more.
        (
            _line(_TIME, _STEADY, [0.7, 1.0, 1.3]),
            _line(_TIME, _STEADY, [0.9, 1.2, 1.5]),
            False,
        ),
        (_line(_TIME, _STEADY, [0.7, 1.0, 1.3]), _line(_TIME, _STEADY, [2.0, 2.2, 2.4]), True),
        # A few that happen to be equal say less than many.
        (_line(_TIME, [1.0] * 2, [1.0] * 2), _line(_TIME, [1.0] * 2, [1.1] * 2), False),
        (_line(_TIME, [1.0] * 2, [1.0] * 2), _line(_TIME, [1.0] * 2, [1.2] * 2), True),
        # One sample says little.
        (_line(_TIME, [1.0], [1.0]), _line(_TIME, [1.0], [1.3]), False),
        (_line(_TIME, [1.0], [1.0]), _line(_TIME, [1.0], [1.5]), True),
    ],
)
def test_a_line_is_lost_when_it_is_worse_by_more_than_noise(
    before: Line, after: Line, is_loss: bool
) -> None:
    """Better is never a loss, and neither is a machine that is slower for both."""
    (compared,) = compare([after], marks([before]))

    assert compared.is_loss is is_loss


def test_only_what_was_measured_both_times_is_compared() -> None:
    """New lines, lines that were left out and lines without a target are passed over."""
    committed = {"both": Mark(1.0, 0.0), "left out": Mark(1.0, 0.0), "told": Mark(1.0, 0.0)}
    lines = [
        _line(_TIME, [1.0], [1.0], "both"),
        _line(_TIME, [1.0], [1.0], "new"),
        _line(Target(), [1.0], [1.0], "told"),
    ]

    assert [it.line.name for it in compare(lines, committed)] == ["both"]


def test_the_table_names_the_loss() -> None:
    """What was committed, what it is now, and what would have been tolerated."""
    compared = compare([_line(_TIME, _STEADY, _times(_STEADY, 1.5))], {"x": Mark(1.0, 0.0)})

    *_, line = comparison_table(compared).splitlines()

    cells = [cell.strip() for cell in line.strip("|").split("|")]
    assert cells == ["what x takes", "1.00", "1.50", "+50%", "+5%", "YES"]


def test_what_is_committed_is_read_again(tmp_path: Path) -> None:
    """Rows that were not run stay as they were; a quick run is no full one."""
    place = tmp_path / "ratios.json"
    commit(place, "full", "a machine", [_line(_TIME, _STEADY, _times(_STEADY, 2), "one")])
    commit(place, "full", "a machine", [_line(_TIME, _STEADY, _times(_STEADY, 3), "two")])

    assert read(place, "full") == {"one": Mark(2.0, 0.014), "two": Mark(3.0, 0.014)}
    assert read(place, "quick") == {}
