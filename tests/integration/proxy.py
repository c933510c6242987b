"""A proxy between a client and a server, for what happens on the way between them."""

import asyncio
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
        self.connections = 0
        """How many were taken."""
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
        self.connections += 1
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
                await self.flows.wait()
                writer.write(chunk)
                await writer.drain()


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
async def port_proxy(address: str, target: tuple[str, int]) -> AsyncIterator[tuple[Proxy, int]]:
    """Stand before a TCP port, at a free one of this address; give that too."""
    proxy = Proxy()

    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        upstream = await asyncio.open_connection(*target)
        await proxy.serve(upstream, (reader, writer))

    server = await asyncio.start_server(take, address, 0)
    async with _serving(server, proxy):
        yield proxy, server.sockets[0].getsockname()[1]


@asynccontextmanager
async def _serving(server: asyncio.Server, proxy: Proxy) -> AsyncIterator[None]:
    try:
        yield
    finally:
        server.close()
        proxy.cut()
        await asyncio.sleep(0.05)
