"""The proxy does to connections what it says, and nothing when it is not told to."""

import asyncio
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.faults.proxy import Fate, Proxy, Request, proxy

SOON = 0.3


class Echo:
    """A server that gives back what it gets, and remembers it."""

    def __init__(self) -> None:
        self.heard = b""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one connection."""
        while chunk := await reader.read(1000):
            self.heard += chunk
            writer.write(chunk)
            await writer.drain()
        writer.close()


class Client:
    """One connection through the proxy."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    def say(self, words: bytes) -> None:
        self._writer.write(words)

    async def ask(self, words: bytes) -> bytes | None:
        """Return the answer: empty when the connection has ended, None when none comes."""
        self.say(words)
        try:
            return await asyncio.wait_for(self._reader.read(1000), SOON)
        except TimeoutError:
            return None
        except ConnectionError:
            return b""

    def close(self) -> None:
        self._writer.transport.abort()


@pytest.fixture
async def echo(tmp_path: Path) -> AsyncIterator[Echo]:
    """Run an echo server behind the proxy."""
    server = Echo()
    async with await asyncio.start_unix_server(server.serve, tmp_path / "behind"):
        yield server


@pytest.fixture
async def between(echo: Echo, tmp_path: Path) -> AsyncIterator[Proxy]:
    """Run the proxy."""
    async with proxy(tmp_path / "behind", tmp_path / "front") as made:
        yield made


@pytest.fixture
async def client(between: Proxy, tmp_path: Path) -> AsyncIterator[Client]:
    """Connect through the proxy, and have said a first word."""
    made = Client(*await asyncio.open_unix_connection(tmp_path / "front"))
    assert await made.ask(b"first") == b"first"
    yield made
    made.close()


async def test_a_cut_ends_connections_and_refuses_new_ones(
    between: Proxy, client: Client, tmp_path: Path
) -> None:
    """As if the server had died; after mending, new ones are welcome."""
    between.cut()
    ended = await client.ask(b"more")
    refused = await Client(*await asyncio.open_unix_connection(tmp_path / "front")).ask(b"x")
    between.mend()
    welcome = Client(*await asyncio.open_unix_connection(tmp_path / "front"))

    assert (ended, refused, await welcome.ask(b"again")) == (b"", b"", b"again")
    welcome.close()


async def test_a_stall_holds_everything_until_it_is_mended(between: Proxy, client: Client) -> None:
    """Nothing passes, nothing ends; then what was held arrives."""
    between.stall()
    held = await client.ask(b"held")
    between.mend()

    assert held is None
    assert await client.ask(b"") == b"held"


async def test_a_half_open_connection_says_nothing(between: Proxy, client: Client) -> None:
    """The far end is gone and ours does not hear of it, until it is mended."""
    between.half_open()
    silent = await client.ask(b"anybody?")
    between.mend()

    assert silent is None
    assert await client.ask(b"") == b""


async def test_a_slow_line_is_slow(between: Proxy, client: Client) -> None:
    """Each piece is held up in both directions."""
    between.delay_seconds = 0.1
    began = asyncio.get_running_loop().time()

    answer = await client.ask(b"slowly")

    assert answer == b"slowly"
    assert asyncio.get_running_loop().time() - began >= 0.2


async def test_a_connection_ends_after_so_many_bytes(
    between: Proxy, client: Client, echo: Echo
) -> None:
    """The server gets the beginning, and no more."""
    between.drop_after(4)

    await client.ask(b"half a word")
    await asyncio.sleep(0.05)

    assert echo.heard == b"firsthalf"
    assert await client.ask(b"more") == b""


@pytest.mark.parametrize(
    ("fate", "heard"),
    [
        pytest.param(Fate.LOSE, b"", id="request"),
        pytest.param(Fate.LOSE_REPLY, b"POST /x", id="reply"),
    ],
)
async def test_a_request_or_its_reply_may_be_lost(
    between: Proxy, client: Client, echo: Echo, fate: Fate, heard: bytes
) -> None:
    """Lost on its way, the server never hears of it; with its reply lost, it has done it."""
    seen: list[Request] = []

    async def judge(request: Request) -> Fate:
        seen.append(request)
        return fate

    between.judge = judge
    answer = await client.ask(b"POST /x HTTP/1.1")
    await asyncio.sleep(0.05)

    assert answer == b""
    assert seen == [Request("POST", "/x")]
    assert echo.heard.removeprefix(b"first").startswith(heard)
    assert bool(echo.heard.removeprefix(b"first")) is bool(heard)


async def test_one_reply_is_lost_by_what_was_asked(
    between: Proxy, client: Client, echo: Echo, tmp_path: Path
) -> None:
    """In whatever protocol; the request was heard, and the next one like it is answered."""
    between.lose_reply_to = b"key"

    unlike = await client.ask(b"other")
    lost = await client.ask(b"the key 1")
    again = Client(*await asyncio.open_unix_connection(tmp_path / "front"))

    assert (unlike, lost, await again.ask(b"the key 2")) == (b"other", b"", b"the key 2")
    assert b"the key 1" in echo.heard
    again.close()


async def test_a_reply_is_lost_though_its_request_comes_in_pieces(
    between: Proxy, client: Client, echo: Echo
) -> None:
    """What follows the piece with the bytes belongs to the same request."""
    between.lose_reply_to = b"head"
    between.delay_seconds = 0.05

    client.say(b"head")
    await asyncio.sleep(0.02)
    answer = await client.ask(b"body")

    assert answer == b""
    assert echo.heard == b"firsthead"


async def test_replies_stall_after_so_many_bytes(
    between: Proxy, client: Client, echo: Echo, tmp_path: Path
) -> None:
    """The piece that reaches the count is the last, on every connection; requests go on."""
    other = Client(*await asyncio.open_unix_connection(tmp_path / "front"))
    between.stall_replies_after(8)

    passed = (await client.ask(b"12345"), await other.ask(b"12345"))
    before = between.stalled
    held = (await client.ask(b"6"), await other.ask(b"7"))
    while_stalled, heard = between.stalled, echo.heard
    between.mend()

    assert (passed, held) == ((b"12345", b"12345"), (None, None))
    assert (await client.ask(b""), await other.ask(b"")) == (b"6", b"7")
    assert (before, while_stalled, between.stalled) == (0, 2, 0)
    assert heard.endswith(b"67")
    other.close()


async def test_mending_takes_back_what_has_not_happened_yet(between: Proxy, client: Client) -> None:
    """A reply that was to be lost, a stall that was to come."""
    between.lose_reply_to = b"key"
    between.stall_replies_after(1)
    between.mend()

    assert await client.ask(b"key") == b"key"
    assert await client.ask(b"more") == b"more"


async def test_a_listening_socket_may_be_given(echo: Echo, tmp_path: Path) -> None:
    """For one whose port is to be known before, or that listens in another network."""
    listening = socket.create_server(("127.0.0.1", 0))
    address = listening.getsockname()

    async with proxy(tmp_path / "behind", listening):
        client = Client(*await asyncio.open_connection(*address))
        answer = await client.ask(b"hello")
        client.close()

    assert answer == b"hello"
