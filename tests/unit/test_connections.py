"""Which connections are held, for how long, and who makes room for whom."""

import asyncio
from collections.abc import Callable

import pytest
from typing_extensions import override

from consumer.connections import Connections, Held, HttpLimits, host_name, is_loopback

pytestmark = [pytest.mark.asyncio, pytest.mark.looptime]

LIMITS = HttpLimits(connections=6, per_address=3, head_seconds=10, stall_seconds=30)


class Wire(asyncio.Transport):
    """A connection of which the test says what is on it."""

    def __init__(self, peer: str = "127.0.0.1", own: str = "127.0.0.1") -> None:
        super().__init__(
            {"peername": (peer, 40_000), "sockname": (own, 9580)} if peer and own else {}
        )
        self.unread_bytes = 0
        self.is_aborted = False

    @override
    def get_write_buffer_size(self) -> int:
        return self.unread_bytes

    @override
    def abort(self) -> None:
        self.is_aborted = True


class Street:
    """Those who are held."""

    def __init__(self, limits: HttpLimits = LIMITS) -> None:
        self.connections = Connections(limits)
        self.refused: list[Held] = []

    def comes(self, wire: Wire) -> Held:
        held = Held(self.connections)
        if not held.opened(wire):
            self.refused.append(held)
        return held


def waits(_: Held) -> None:
    """Have sent nothing yet."""


def streams(held: Held) -> None:
    held.is_answered(as_stream=True)


def is_answered(held: Held) -> None:
    held.is_answered()


async def test_who_has_waited_longest_makes_room() -> None:
    """Of the newcomer's own address first; the others stay."""
    street, wires = Street(), [Wire() for _ in range(4)]
    other = Wire("192.0.2.1")

    street.comes(other)
    for wire in wires:
        street.comes(wire)

    assert [wire.is_aborted for wire in wires] == [True, False, False, False]
    assert not other.is_aborted
    assert len(street.connections) == 4


@pytest.mark.parametrize(
    ("first", "second", "is_second"),
    [
        pytest.param(streams, waits, True, id="one who waits before a stream"),
        pytest.param(is_answered, streams, True, id="a stream before an answer"),
        pytest.param(streams, streams, False, id="the older stream"),
        pytest.param(is_answered, waits, True, id="one who waits before an answer"),
    ],
)
async def test_what_costs_least_is_given_up(
    first: Callable[[Held], None], second: Callable[[Held], None], is_second: bool
) -> None:
    """In order: who asks for nothing, a stream that begins anew, never an answer in the making."""
    street, wires = Street(HttpLimits(per_address=2)), [Wire(), Wire()]
    for wire, becomes in zip(wires, (first, second), strict=True):
        becomes(street.comes(wire))

    street.comes(Wire())

    assert [wire.is_aborted for wire in wires] == [not is_second, is_second]
    assert street.refused == []


async def test_a_reader_who_takes_nothing_makes_room() -> None:
    """Though he is being answered."""
    street, wires = Street(HttpLimits(per_address=2)), [Wire(), Wire()]
    helds = [street.comes(wire) for wire in wires]
    for held in helds:
        held.is_answered()
    wires[1].unread_bytes = 1
    helds[1].stops_reading()

    street.comes(Wire())

    assert [wire.is_aborted for wire in wires] == [False, True]


async def test_where_all_are_answered_the_newcomer_is_refused() -> None:
    """Each has its answer within its deadline, and then there is room."""
    street, wires = Street(), [Wire() for _ in range(3)]
    helds = [street.comes(wire) for wire in wires]
    for held in helds:
        held.is_answered()

    late = street.comes(Wire())
    helds[0].closed()
    street.comes(Wire())

    assert street.refused == [late]
    assert not any(wire.is_aborted for wire in wires)


async def test_in_all_the_crowd_makes_room() -> None:
    """Who has one connection does not pay for who has many."""
    street = Street()
    single, crowd = Wire("192.0.2.1"), [Wire("192.0.2.2") for _ in range(3)]
    for wire in (single, *crowd, Wire("192.0.2.3"), Wire("192.0.2.4")):
        street.comes(wire)

    street.comes(Wire("192.0.2.5"))

    assert [wire.is_aborted for wire in crowd] == [True, False, False]
    assert not single.is_aborted
    assert len(street.connections) == 6


async def test_who_looks_on_does_not_pay_for_one_each_from_everywhere() -> None:
    """A page keeps its stream, however many addresses hold an idle connection each."""
    street = Street(HttpLimits(connections=20, per_address=10))
    stream, idle = Wire("192.0.2.1"), Wire("192.0.2.1")
    streams(street.comes(stream))
    street.comes(idle)

    crowd = [Wire(f"198.51.100.{number}") for number in range(1, 60)]
    for wire in crowd:
        street.comes(wire)

    assert not stream.is_aborted
    assert [wire.is_aborted for wire in crowd].count(False) == 19


async def test_one_network_of_ipv6_is_one_address() -> None:
    """Whoever has one of its addresses has all."""
    street = Street()
    wires = [Wire(f"2001:db8::{number}") for number in range(1, 5)]

    for wire in wires:
        street.comes(wire)

    assert [wire.is_aborted for wire in wires] == [True, False, False, False]


async def test_who_sends_nothing_is_dropped() -> None:
    """At the deadline; not while his request is worked on."""
    street = Street()
    silent, asking = Wire(), Wire()
    street.comes(silent)
    street.comes(asking).is_answered()

    await asyncio.sleep(9.9)
    dropped = [silent.is_aborted]
    await asyncio.sleep(0.2)
    dropped.append(silent.is_aborted)

    assert dropped == [False, True]
    assert not asking.is_aborted
    assert len(street.connections) == 1


async def test_who_takes_nothing_is_dropped() -> None:
    """Once nothing was taken in the time given; who takes a little has the time again."""
    street = Street()
    wires = [Wire(), Wire()]
    for wire in wires:
        held = street.comes(wire)
        held.is_answered()
        wire.unread_bytes = 100
        held.stops_reading()

    await asyncio.sleep(29)
    wires[1].unread_bytes = 99
    await asyncio.sleep(2)
    dropped = [wire.is_aborted for wire in wires]
    await asyncio.sleep(30)

    assert dropped == [True, False]
    assert all(wire.is_aborted for wire in wires)


async def test_who_reads_again_stays() -> None:
    """For as long as he likes."""
    street, wire = Street(), Wire()
    held = street.comes(wire)
    held.is_answered()
    wire.unread_bytes = 100
    held.stops_reading()
    held.reads_again()

    await asyncio.sleep(1000)

    assert not wire.is_aborted
    assert held.unread_bytes == 0


async def test_what_lies_unread_is_bounded() -> None:
    """In all; who left most goes first."""
    street = Street(HttpLimits(most_unread_bytes=100))
    wires = [Wire() for _ in range(3)]
    for wire, unread in zip(wires, (30, 60, 40), strict=True):
        held = street.comes(wire)
        held.is_answered()
        wire.unread_bytes = unread
        held.stops_reading()

    assert [wire.is_aborted for wire in wires] == [False, True, False]


async def test_at_the_end_nobody_is_waited_for() -> None:
    """Who takes nothing is let go, the others have the end of their answers."""
    street, wires = Street(), [Wire(), Wire()]
    helds = [street.comes(wire) for wire in wires]
    wires[0].unread_bytes = 1
    helds[0].stops_reading()

    street.connections.drop_all_unread()

    assert [wire.is_aborted for wire in wires] == [True, False]


async def test_a_closed_connection_has_no_deadline() -> None:
    """And counts no more, however often it is said."""
    street, wire = Street(), Wire()
    held = street.comes(wire)

    held.stops_reading()
    held.closed()
    held.closed()
    held.drop()
    held.waits(10)
    await asyncio.sleep(1000)

    assert held._deadline is None
    assert len(street.connections) == 0
    assert not wire.is_aborted


@pytest.mark.parametrize(
    ("descriptors", "connections", "per_address"),
    [(1024, 256, 64), (65_536, 256, 64), (128, 32, 16), (4, 4, 2)],
)
async def test_most_descriptors_are_left_to_others(
    descriptors: int, connections: int, per_address: int
) -> None:
    """A quarter of them is for HTTP, and half of that for one address."""
    limits = HttpLimits().within(descriptors)

    assert (limits.connections, limits.per_address) == (connections, per_address)


@pytest.mark.parametrize(
    ("peer", "own", "is_here"),
    [
        ("127.0.0.1", "127.0.0.1", True),
        ("::1", "::1", True),
        ("::ffff:127.0.0.1", "::ffff:127.0.0.1", True),
        ("192.0.2.1", "192.0.2.1", False),
        ("192.0.2.1", "127.0.0.1", False),
        ("127.0.0.1", "192.0.2.1", False),
        ("fe80::1%eth0", "fe80::2%eth0", False),
        ("", "", False),
    ],
)
async def test_only_loopback_is_here(peer: str, own: str, is_here: bool) -> None:
    """Both ends are on it, or somebody was let in from elsewhere."""
    assert Street().comes(Wire(peer, own)).is_here is is_here


@pytest.mark.parametrize(
    ("header", "name"),
    [
        ("localhost", "localhost"),
        ("LOCALHOST:9580", "localhost"),
        ("localhost.:9580", "localhost"),
        ("127.0.0.1:9580", "127.0.0.1"),
        ("[::1]:9580", "::1"),
        ("[0:0:0:0:0:0:0:1]", "::1"),
        ("[::ffff:127.0.0.1]", "127.0.0.1"),
        ("evil.example", "evil.example"),
        ("", None),
        ("localhost:port", None),
        ("localhost@evil.example", None),
        ("localhost/evil.example", None),
        ("localhost evil.example", None),
        ("::1", None),
    ],
)
async def test_a_host_header_names_one_host(header: str, name: str | None) -> None:
    """With or without a port, however it is written; what is no name names none."""
    assert host_name(header) == name


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("localhost", True),
        ("consumer.localhost", True),
        ("127.0.0.53", True),
        ("::1", True),
        ("notlocalhost", False),
        ("localhost.evil.example", False),
        ("127.0.0.1.evil.example", False),
        ("0.0.0.0", False),
        ("192.0.2.1", False),
    ],
)
async def test_only_loopbacks_names_are_its(name: str, expected: bool) -> None:
    """No other host can have them."""
    assert is_loopback(name) is expected
