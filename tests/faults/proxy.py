"""A proxy before a TCP or unix address that can do to a connection what networks do.

It stands before RabbitMQ, Docker or a registry, and passes everything on until told otherwise.
Connections may be cut, stalled, left half-open, slowed down, or ended or stalled after so many
bytes; a request, or its reply, may be lost or held. `mend` ends the trouble.
"""

import asyncio
import json
import math
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Final

Place = Path | tuple[str, int]
"""A unix socket, or host and port."""
_CHUNK_BYTES: Final = 64 * 1024
_METHODS: Final = (b"GET ", b"POST ", b"DELETE ", b"HEAD ", b"PUT ")


class Fate(Enum):
    """What becomes of a request."""

    PASS = "pass"
    LOSE = "lost on its way"
    LOSE_REPLY = "done, its reply lost"
    HOLD = "held on its way"
    HOLD_REPLY = "done, its reply held"
    REFUSE = "answered here, in the engine's place"


@dataclass(frozen=True, slots=True)
class Request:
    """An HTTP request on its way to the engine."""

    method: str
    path: str


Judge = Callable[[Request], Awaitable[Fate]]


class Proxy:
    """Passes bytes between those who connect ("requests") and the place behind it ("replies")."""

    def __init__(self, behind: Place) -> None:
        self._behind = behind
        self._links: set[_Link] = set()
        self._may_go = asyncio.Event()
        self._may_go.set()
        self._may_return = asyncio.Event()
        self._may_return.set()
        self.held = asyncio.Event()
        """Set once a request, or its reply, is held; see `Fate`."""
        self._let_go = asyncio.Event()
        self.is_refusing = False
        """Whether new connections are closed at once."""
        self.delay_seconds = 0.0
        """How long every piece is held up, in both directions."""
        self.judge: Judge | None = None
        """Decides what becomes of each HTTP request."""
        self.lose_reply_to = b""
        """The reply to the next request that has these bytes is lost, with its connection; once."""
        self.refusal = (500, "no")
        """Status and words of the answer to requests that are refused here."""
        self.connections = 0
        """How many connections were taken."""
        self.stalled = 0
        """How many connections have a reply that a stall holds up."""
        self._reply_bytes_left = math.inf

    # --- trouble

    def cut(self) -> None:
        """Close every connection and refuse new ones, as if the server had died."""
        self.is_refusing = True
        self.drop()

    def drop(self) -> None:
        """Close every connection; new ones are welcome."""
        for link in list(self._links):
            link.close()

    def stall(self) -> None:
        """Let nothing pass in either direction; connections stay, and new ones are taken."""
        self.stall_requests()
        self.stall_replies()

    def stall_requests(self) -> None:
        """Let nothing pass towards the server."""
        self._may_go.clear()

    def stall_replies(self) -> None:
        """Let nothing pass towards those who connect."""
        self._may_return.clear()

    def stall_replies_after(self, count: int) -> None:
        """Stall replies once so many more bytes of them have passed, of all connections together.

        The piece that reaches the count still passes whole.
        """
        self._reply_bytes_left = count

    def half_open(self) -> None:
        """Have the other side gone without a word: its end is closed, ours hears nothing of it."""
        self.stall()
        for link in self._links:
            link.close_far_side()

    def drop_after(self, count: int) -> None:
        """Close each connection once so many more bytes have passed towards the server."""
        for link in self._links:
            link.bytes_left = count

    def mend(self) -> None:
        """End the trouble. Connections that were stalled go on; half-open ones are closed."""
        self.is_refusing = False
        self.delay_seconds = 0.0
        self.judge = None
        self.lose_reply_to = b""
        self._reply_bytes_left = math.inf
        for link in list(self._links):
            link.bytes_left = None
            if link.is_half_open:
                link.close()
        self.held.clear()
        self._let_go.set()
        self._may_go.set()
        self._may_return.set()

    async def ended(self) -> None:
        """Wait until no connection is left."""
        while self._links:
            await asyncio.wait([link.ended for link in self._links])

    # --- passing

    async def take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection until either side ends it."""
        self.connections += 1
        if self.is_refusing:
            writer.transport.abort()
            return
        try:
            far_reader, far_writer = await _connect(self._behind)
        except OSError:
            writer.transport.abort()
            return
        link = _Link(writer, far_writer)
        self._links.add(link)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._pass_requests(reader, link), name="requests")
                group.create_task(self._pass_replies(far_reader, link), name="replies")
        except* (ConnectionError, _Ended):
            pass
        finally:
            self._links.discard(link)
            link.close()
            link.ended.set_result(None)

    async def _pass_requests(self, reader: asyncio.StreamReader, link: "_Link") -> None:
        while chunk := await reader.read(_CHUNK_BYTES):
            if link.fate is not Fate.LOSE_REPLY:  # a request may come in more pieces than one
                link.fate = await self._judge(chunk)
            if link.fate is Fate.LOSE:
                raise _Ended
            if link.fate is Fate.HOLD:
                await self._hold()
            if link.fate is Fate.REFUSE:
                link.near.write(_answer(*self.refusal))
                await link.near.drain()
                continue
            await asyncio.sleep(self.delay_seconds)
            await self._may_go.wait()
            link.far.write(link.what_may_pass(chunk))
            await link.far.drain()
            if link.bytes_left == 0:
                raise _Ended
        raise _Ended

    async def _pass_replies(self, reader: asyncio.StreamReader, link: "_Link") -> None:
        while chunk := await reader.read(_CHUNK_BYTES):
            if link.fate is Fate.LOSE_REPLY:
                raise _Ended
            if link.fate is Fate.HOLD_REPLY:
                await self._hold()
            await asyncio.sleep(self.delay_seconds)
            await self._until_it_may_return()
            self._count_reply(chunk)
            link.near.write(chunk)
            await link.near.drain()
        if link.is_half_open:
            await asyncio.Event().wait()  # until somebody closes it
        raise _Ended

    async def _until_it_may_return(self) -> None:
        self.stalled += 1
        try:
            await self._may_return.wait()
        finally:
            self.stalled -= 1

    def _count_reply(self, chunk: bytes) -> None:
        self._reply_bytes_left -= len(chunk)
        if self._reply_bytes_left <= 0:
            self._reply_bytes_left = math.inf
            self.stall_replies()

    async def _hold(self) -> None:
        self._let_go.clear()
        self.held.set()
        await self._let_go.wait()

    async def _judge(self, chunk: bytes) -> Fate:
        if self.lose_reply_to and self.lose_reply_to in chunk:
            self.lose_reply_to = b""
            return Fate.LOSE_REPLY
        # A client writes the head of a request at once, and so it begins a piece.
        if self.judge is None or not chunk.startswith(_METHODS):
            return Fate.PASS
        method, path = chunk.split(b" ", 2)[:2]
        return await self.judge(Request(method.decode(), path.decode()))


class _Link:
    """One connection: the side of those who connect, and the far side."""

    def __init__(self, near: asyncio.StreamWriter, far: asyncio.StreamWriter) -> None:
        self.near = near
        self.far = far
        self.bytes_left: int | None = None
        self.fate = Fate.PASS
        self.is_half_open = False
        self.ended = asyncio.get_running_loop().create_future()

    def close(self) -> None:
        # Aborted, not closed: nothing that is still held here may arrive later.
        self.near.transport.abort()
        self.far.transport.abort()

    def what_may_pass(self, chunk: bytes) -> bytes:
        """Return as much of the piece as may still pass, and count it."""
        if self.bytes_left is None:
            return chunk
        passing = chunk[: self.bytes_left]
        self.bytes_left -= len(passing)
        return passing

    def close_far_side(self) -> None:
        self.is_half_open = True
        self.far.transport.abort()


class _Ended(Exception):
    """A side ended the connection, or we do."""


def _answer(status: int, words: str) -> bytes:
    body = json.dumps({"message": words}).encode()
    head = f"HTTP/1.1 {status} Refused\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


async def _connect(place: Place) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    if isinstance(place, Path):
        return await asyncio.open_unix_connection(place)
    return await asyncio.open_connection(*place)


@asynccontextmanager
async def proxy(behind: Place, at: Place | socket.socket) -> AsyncIterator[Proxy]:
    """Run a proxy at a place, or on a listening socket, for the length of the block."""
    made = Proxy(behind)
    if isinstance(at, Path):
        server = await asyncio.start_unix_server(made.take, at)
    elif isinstance(at, socket.socket):
        server = await asyncio.start_server(made.take, sock=at)
    else:
        server = await asyncio.start_server(made.take, *at)
    try:
        yield made
    finally:
        server.close()
        made.mend()
        made.drop()
        await made.ended()
