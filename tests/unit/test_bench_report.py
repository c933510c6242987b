"""The bench's tables: medians, spreads and targets."""

import json

import pytest

from tests.bench.report import Line, Outcome, Peer, Target, as_json, peers_table, table


@pytest.mark.parametrize(
    ("target", "floor", "ours", "is_met"),
    [
        (Target(most_ratio=1.05), 1.0, 1.05, True),
        (Target(most_ratio=1.05), 1.0, 1.06, False),
        (Target(least_ratio=0.97), 100.0, 97.0, True),
        (Target(least_ratio=0.97), 100.0, 96.0, False),
        (Target(most_more=0.015), 0.400, 0.414, True),
        (Target(most_more=0.015), 0.400, 0.416, False),
        (Target(most_more=0.015), 0.400, 0.300, True),
        (Target(most_ratio=1.05, most_more=0.015), 1.0, 1.02, False),
        (Target(most_ratio=1.05, most_more=0.015), 0.1, 0.11, False),
        (Target(most=5.0), None, 5.0, True),
        (Target(most=5.0), None, 5.1, False),
        (Target(least=1000.0), None, 1000.0, True),
        (Target(least=1000.0), None, 999.0, False),
        (Target(most=0.0), None, 0.0, True),
        (Target(most=0.0), None, 1.0, False),
        (Target(), 1.0, 9.0, None),
        (Target(), None, 9.0, None),
    ],
)
def test_a_target_is_met_when_all_of_it_holds(
    target: Target, floor: float | None, ours: float, is_met: bool | None
) -> None:
    """A line without a target is not judged."""
    line = Line(name="x", title="x", target=target, floor=_one(floor), ours=[ours])

    assert line.is_met is is_met


def _one(sample: float | None) -> list[float]:
    return [] if sample is None else [sample]


def test_a_line_is_judged_by_its_median() -> None:
    """One bad sample does not decide."""
    line = Line(
        name="x",
        title="x",
        target=Target(most_ratio=1.05),
        floor=[1.0, 1.0, 1.0],
        ours=[1.0, 1.04, 9.0],
    )

    assert (line.ratio, line.is_met) == (1.04, True)


def test_the_table_shows_medians_spreads_and_targets() -> None:
    """Times below ten seconds are in milliseconds, everything else in the line's unit."""
    lines = [
        Line(
            name="start",
            title="start",
            target=Target(most_ratio=1.05, most_more=0.015),
            floor=[0.4, 0.4, 0.5],
            ours=[0.41, 0.44, 0.5],
        ),
        Line(
            name="flood",
            title="flood",
            unit="events/s",
            target=Target(least_ratio=1.0),
            floor=[4000.0],
            ours=[5000.0],
        ),
        Line(name="told", title="told", ours=[12.0]),
        Line(name="memory", title="memory", unit="MiB", target=Target(most=200.0), ours=[93.1]),
    ]

    assert [line[1:3] for line in _cells(table(lines))] == [
        ["400 ms (400 to 500)", "440 ms (410 to 500)"],
        ["4,000 events/s (4,000 to 4,000)", "5,000 events/s (5,000 to 5,000)"],
        ["-", "12 s (12 to 12)"],
        ["-", "93.1 MiB (93.1 to 93.1)"],
    ]
    assert [line[3:] for line in _cells(table(lines))] == [
        ["1.10", "40 ms", "≤ 1.05, ≤ 15 ms more", "no"],
        ["1.25", "-", "≥ 1.00", "yes"],
        ["-", "-", "-", "-"],
        ["-", "-", "≤ 200 MiB", "yes"],
    ]


def _cells(markdown: str) -> list[list[str]]:
    """Return what stands below the head."""
    lines = markdown.splitlines()[2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_peers_are_told_by_what_they_reach_of_ours() -> None:
    """Ours comes first."""
    peers = [Peer(name="docker run", theirs=[2.0], ours=[4.0, 5.0])]

    assert _cells(peers_table(peers)) == [
        ["landlord-consumer", "4.5 tenants/s (4 to 5)", "1.00"],
        ["docker run", "2 tenants/s (2 to 2)", "0.44"],
    ]


def test_every_sample_is_kept() -> None:
    """The file has what the tables are made of."""
    line = Line(name="x", title="x", floor=[1.0], ours=[2.0, 3.0])

    kept = json.loads(as_json("a machine", Outcome([line])))

    assert kept["machine"] == "a machine"
    assert kept["lines"][0] | {"floor": [1.0], "ours": [2.0, 3.0], "ratio": 2.5} == kept["lines"][0]
