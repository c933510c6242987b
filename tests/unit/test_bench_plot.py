"""The picture of a bench run."""

from xml.etree import ElementTree as ET

from tests.bench.plot import plot
from tests.bench.report import Line, Outcome, Peer, Target

_SVG = "{http://www.w3.org/2000/svg}"


def _texts(picture: str) -> list[str]:
    return [node.text or "" for node in ET.fromstring(picture).iter(f"{_SVG}text")]


def _places(picture: str) -> list[float]:
    root = ET.fromstring(picture)
    return [float(node.attrib["cx"]) for node in root.iter(f"{_SVG}circle")]


def test_every_line_with_a_target_is_in_the_picture() -> None:
    """Of each its title, what it is judged by, and whether the target is met."""
    lines = [
        Line(name="a", title="start <1>", target=Target(most_ratio=1.05), floor=[1.0], ours=[1.2]),
        Line(
            name="b",
            title="flood",
            unit="events/s",
            target=Target(least_ratio=1.0),
            floor=[100.0],
            ours=[120.0],
        ),
        Line(name="c", title="memory", unit="MiB", target=Target(most=200.0), ours=[100.0]),
        Line(name="d", title="only told", ours=[1.0]),
    ]

    told = _texts(plot(Outcome(lines), "a machine"))

    assert told[0] == "What the consumer costs: 2 of 3 targets met"
    assert {"start <1>", "1.20", "✗ ≤ 1.05"} <= set(told)
    assert {"flood", "✓ ≥ 1.00", "memory", "50%", "✓ ≤ 200 MiB"} <= set(told)
    assert "only told" not in told
    heading = told.index("Throughput, as a part of the floor's")
    assert told.index("start <1>") < heading < told.index("flood")


def test_what_takes_longer_is_farther_to_the_right() -> None:
    """Nothing at all is at the edge of the scale, and not off it."""
    target = Target(most=10.0)
    line = Line(name="x", title="x", unit="", target=target, ours=[0.0, 1.0, 9.0, 20.0])

    places = _places(plot(Outcome([line]), "a machine"))

    assert places == sorted(places)
    assert len(set(places)) == 4


def test_peers_are_beside_ours() -> None:
    """Without a peer there is no such part."""
    peers = [Peer(name="docker run", theirs=[2.0], ours=[4.0])]

    told = _texts(plot(Outcome([], peers), "a machine"))

    assert {"landlord-consumer", "4.0", "docker run", "2.0", "0.50 of ours"} <= set(told)
    assert "landlord-consumer" not in _texts(plot(Outcome([]), "a machine"))
