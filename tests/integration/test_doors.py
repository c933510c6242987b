"""Strangers at the door of HTTP: whatever they hold, send or leave unread, others are served.

The server runs in a process of its own that has few descriptors; the clients are plain sockets.
"""

import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import pytest

from tests.doorway import Doorway, opened

DESCRIPTORS = 128
"""Of which HTTP has a quarter."""
BIG = "/tenants?limit=1000"
MOST_LOG_BYTES = 20_000
MOST_BYTES = 60 * 1024 * 1024


@pytest.fixture(scope="module")
def doorway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Doorway]:
    """Run one with the usual limits; each test says how much it may write to its log."""
    with opened(tmp_path_factory.mktemp("doorway"), DESCRIPTORS, settled_seconds=0.0) as running:
        yield running


@pytest.fixture(scope="module")
def impatient(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Doorway]:
    """Run one that waits for nobody longer than a moment."""
    limits = {"stall_seconds": 0.3, "head_seconds": 0.3, "idle_seconds": 0.3}
    with opened(tmp_path_factory.mktemp("impatient"), DESCRIPTORS, **limits) as running:
        yield running


def own_address() -> str:
    """Return the address by which this host is known to others."""
    with socket.socket(type=socket.SOCK_DGRAM) as wire:
        wire.connect(("192.0.2.1", 9))  # nothing is sent
        return str(wire.getsockname()[0])


def reach(doorway: Doorway, address: str = "127.0.0.1", to: str = "127.0.0.1") -> socket.socket:
    wire = socket.socket()
    wire.bind((address, 0))
    wire.settimeout(5)
    wire.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    wire.connect((to, doorway.port))
    return wire


def request(path: str, host: str = "localhost") -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode()


def answer(doorway: Doorway, path: str, *, enough: bytes = b"\r\n\r\n") -> bytes:
    """Return the beginning of what is answered, up to what is enough."""
    with reach(doorway) as wire:
        wire.sendall(request(path))
        told = b""
        while enough not in told:
            part = wire.recv(65536)
            assert part, told
            told += part
        return told


def is_served(doorway: Doorway) -> bool:
    """Whether probes, the page and what it lives on are answered."""
    codes = [answer(doorway, path)[9:12] for path in ("/healthz", "/", "/tenants?limit=1")]
    return codes == [b"200"] * 3 and b"event: head" in answer(
        doorway, "/events", enough=b"event: head"
    )


def until(happens: Callable[[], bool], seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not happens():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@contextmanager
def crowd(doorway: Doorway, count: int, sent: bytes) -> Iterator[list[socket.socket]]:
    """Have so many connections open, and this sent by each."""
    with ExitStack() as stack:
        wires = []
        for _ in range(count):
            wire = stack.enter_context(reach(doorway))
            wires.append(wire)
            try:
                wire.sendall(sent)
            except OSError:
                continue  # it was ended for a later one
        yield wires


@pytest.mark.parametrize(
    "sent",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"GET / HTTP/1.1\r\nHost: loc", id="half a head"),
        pytest.param(
            b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99\r\n\r\nx", id="body"
        ),
        pytest.param(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", id="no HTTP"),
        pytest.param(request("/healthz"), id="a whole request"),
    ],
)
def test_who_holds_connections_open_keeps_nobody_out(doorway: Doorway, sent: bytes) -> None:
    """Four hundred of them, with 128 descriptors: all is served, and the log stays short."""
    written = doorway.log.stat().st_size

    with crowd(doorway, 400, sent):
        assert is_served(doorway)
        assert doorway.descriptors() < DESCRIPTORS // 2

    assert doorway.log.stat().st_size - written < MOST_LOG_BYTES


def test_who_never_reads_keeps_nobody_out(doorway: Doorway) -> None:
    """Neither by megabytes that lie ready for him, nor by streams: the page goes on, memory too."""
    before, written = doorway.resident_bytes(), doorway.log.stat().st_size

    with crowd(doorway, 40, request(BIG) * 2), crowd(doorway, 60, request("/events")):
        assert is_served(doorway)
        assert doorway.resident_bytes() - before < MOST_BYTES

    assert doorway.log.stat().st_size - written < MOST_LOG_BYTES


@pytest.mark.parametrize(
    "sent",
    [
        pytest.param(request(BIG), id="a long answer"),
        pytest.param(request("/events"), id="a stream"),
        pytest.param(request("/healthz"), id="between two requests"),
        pytest.param(b"GET / HT", id="half a head"),
        pytest.param(b"", id="nothing"),
    ],
)
def test_who_does_nothing_more_is_let_go(impatient: Doorway, sent: bytes) -> None:
    """After a while, though nobody else needs his place."""
    alone = impatient.descriptors()

    with crowd(impatient, 5, sent):
        until(lambda: impatient.descriptors() > alone)
        until(lambda: impatient.descriptors() == alone)


def test_a_slow_reader_has_it_all(impatient: Doorway) -> None:
    """Who goes on taking is not let go, however long it lasts."""
    with reach(impatient) as wire:
        wire.sendall(request("/tenants?limit=400"))
        began, told = time.monotonic(), b""
        while not told.endswith(b"\n"):
            told += wire.recv(40_000)
            time.sleep(0.02 if time.monotonic() - began < 1 else 0)

    assert told.endswith(b'"next": "tenant-00399"}\n')


def test_without_descriptors_it_waits_quietly(doorway: Doorway) -> None:
    """A line or two, no spinning; a connection of its own is given up for who comes."""
    written = len(doorway.log_lines())
    with reach(doorway) as idle:
        idle.sendall(request("/healthz"))
        assert idle.recv(4096)
        doorway.process.send_signal(signal.SIGUSR1)
        until(lambda: doorway.descriptors() == DESCRIPTORS)

        assert answer(doorway, "/healthz")[9:12] == b"200"

    before = doorway.cpu_seconds()
    with crowd(doorway, 20, b""):
        time.sleep(1)
        assert doorway.cpu_seconds() - before < 0.5
        assert len(doorway.log_lines()) - written < 10
        doorway.process.send_signal(signal.SIGUSR2)
        assert is_served(doorway)


def test_noise_is_folded(doorway: Doorway) -> None:
    """A thousand requests that are none, from as many addresses, are a line or two."""
    written, told = len(doorway.log_lines()), b""

    for number in range(1000):
        with reach(doorway, f"127.1.{number // 250}.{number % 250 + 1}") as wire:
            wire.sendall(b"\x16\x03\x01 nonsense\r\n\r\n")
            told = wire.recv(4096)

    lines = doorway.log_lines()[written:]
    assert len(lines) < 5
    assert {line["event"] for line in lines} <= {"http request not understood"}
    assert told.startswith(b"HTTP/1.")
    assert b"X-Content-Type-Options: nosniff" in told
    assert b'"error": "bad_request"' in told
    assert b"aiohttp" not in told


def test_one_address_does_not_take_the_place_of_others(doorway: Doorway) -> None:
    """However many come from one place, who came from elsewhere before them stays."""
    with reach(doorway, "127.0.0.2") as other, crowd(doorway, 100, request("/events")):
        other.sendall(request("/healthz"))
        assert other.recv(12)[9:] == b"200"


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("/healthz", b"200"),
        ("/readyz", b"200"),
        ("/metrics", b"200"),
        ("/", b"403"),
        ("/tenants", b"403"),
        ("/events", b"403"),
        ("/asyncapi.yaml", b"403"),
        ("/nowhere", b"403"),
    ],
)
def test_without_a_token_others_are_told_of_no_tenant(
    doorway: Doorway, path: str, code: bytes
) -> None:
    """By an address that is not loopback: probes and scrapers alone, by whatever name they ask."""
    address = own_address()

    for name in (address, "consumer", "localhost"):
        with reach(doorway, address, to=address) as wire:
            wire.sendall(request(path, name))
            told = wire.recv(65536)
        expected = b"421" if name == "consumer" and code == b"403" else code
        assert told[9:12] == expected
