"""A proxy between a client and a server, for what happens on the way between them."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Final

_CHUNK: Final = 65536


class Proxy:
    """Passes bytes on; can lose answers, hold everything back, or cut the lines."""

    def __init__(self) -> None:
        self.lose_answer_to = b""
        """The answer to a request that has these bytes is lost, with its connection; once."""
        self.flows = asyncio.Event()
        """While not set, no answer is passed on."""
        self.flows.set()
        self.hold_after: int | None = None
        """After so many bytes of answers it stops to flow by itself."""
        self.passed = 0
        """How many bytes of answers were passed on."""
        self.held = 0
        """How many connections wait for it to flow again."""
        self._open: set[asyncio.StreamWriter] = set()

    def cut(self) -> None:
        """Reset every connection."""
        for writer in tuple(self._open):
            writer.transport.abort()

    async def serve(
        self,
        upstream: tuple[asyncio.StreamReader, asyncio.StreamWriter],
        client: tuple[asyncio.StreamReader, asyncio.StreamWriter],
    ) -> None:
        """Pass on between the two until either has nothing more to say."""
        self._open |= {upstream[1], client[1]}
        is_losing = asyncio.Event()
        tasks = [
            asyncio.create_task(self._ask(client[0], upstream[1], is_losing)),
            asyncio.create_task(self._answer(upstream[0], client[1], is_losing)),
        ]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            for writer in (upstream[1], client[1]):
                self._open.discard(writer)
                writer.transport.abort()

    async def _ask(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, is_losing: asyncio.Event
    ) -> None:
        with suppress(OSError):
            while chunk := await reader.read(_CHUNK):
                if self.lose_answer_to and self.lose_answer_to in chunk:
                    self.lose_answer_to = b""
                    is_losing.set()
                writer.write(chunk)
                await writer.drain()

    async def _answer(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, is_losing: asyncio.Event
    ) -> None:
        with suppress(OSError):
            while chunk := await reader.read(_CHUNK):
                if is_losing.is_set():
                    return
                if self.hold_after is not None and self.passed >= self.hold_after:
                    self.hold_after = None
                    self.flows.clear()
                await self._wait_for_flow()
                self.passed += len(chunk)
                writer.write(chunk)
                await writer.drain()

    async def _wait_for_flow(self) -> None:
        self.held += 1
        try:
            await self.flows.wait()
        finally:
            self.held -= 1


@asynccontextmanager
async def socket_proxy(place: Path, target: str) -> AsyncIterator[Proxy]:
    """Stand before a Unix socket."""
    proxy = Proxy()

    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        upstream = await asyncio.open_unix_connection(target)
        await proxy.serve(upstream, (reader, writer))

    server = await asyncio.start_unix_server(take, place)
    async with _serving(server, proxy):
        yield proxy


@asynccontextmanager
async def port_proxy(listening: socket.socket, target: tuple[str, int]) -> AsyncIterator[Proxy]:
    """Stand before a TCP port; takes over the listening socket."""
    proxy = Proxy()

    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        upstream = await asyncio.open_connection(*target)
        await proxy.serve(upstream, (reader, writer))

    server = await asyncio.start_server(take, sock=listening)
    async with _serving(server, proxy):
        yield proxy


@asynccontextmanager
async def _serving(server: asyncio.Server, proxy: Proxy) -> AsyncIterator[None]:
    try:
        yield
    finally:
        server.close()
        proxy.flows.set()
        proxy.cut()
        await asyncio.sleep(0.05)
