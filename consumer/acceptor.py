"""Listens, and takes connections in: also where the process has no descriptors left.

asyncio's own loop then logs a traceback for each of a hundred tries a second and accepts nothing
until somebody else gives a descriptor back. Here it is said once that it is so, and once that it is
over; each try waits a little, and has one of our own connections given up for it.
"""

import asyncio
import errno
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack, asynccontextmanager
from typing import Final

import structlog

_log: Final = structlog.get_logger(__name__)

_BACKLOG: Final = 128
_MOST_AT_ONCE: Final = 32
"""Accepted before others have their turn in the loop."""
_SHORTAGES: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})


class Acceptor:
    """Hands each connection to a protocol."""

    def __init__(
        self,
        protocol: Callable[[], asyncio.Protocol],
        *,
        make_room: Callable[[], bool],
        retry_seconds: float,
    ) -> None:
        self._protocol = protocol
        self._make_room = make_room
        self._retry_seconds = retry_seconds
        self._is_short = False
        self._listening: dict[socket.socket, asyncio.TimerHandle | None] = {}
        self._opening: set[asyncio.Task[None]] = set()

    @property
    def port(self) -> int:
        """The port of the first address that is listened on; 0 while it is none."""
        first = next(iter(self._listening), None)
        return int(first.getsockname()[1]) if first is not None else 0

    @asynccontextmanager
    async def listening(self, host: str, port: int) -> AsyncIterator[None]:
        """Accept for the length of the block. Raises OSError where the address cannot be had."""
        with ExitStack() as stack:
            for sock in await _bound(host, port, stack):
                sock.listen(_BACKLOG)
                self._begin(sock)
            try:
                yield
            finally:
                self._end()
                if self._opening:
                    await asyncio.wait(self._opening)

    def _begin(self, sock: socket.socket) -> None:
        self._listening[sock] = None
        asyncio.get_running_loop().add_reader(sock, self._accept, sock)

    def _end(self) -> None:
        loop = asyncio.get_running_loop()
        for sock, timer in self._listening.items():
            loop.remove_reader(sock)
            if timer is not None:
                timer.cancel()
        self._listening.clear()

    def _accept(self, sock: socket.socket) -> None:
        for _ in range(_MOST_AT_ONCE):
            try:
                wire, _address = sock.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                self._rest(sock, error)
                return
            if self._is_short:
                self._is_short = False
                _log.info("http accepts again")
            task = asyncio.get_running_loop().create_task(self._open(wire), name="http connection")
            self._opening.add(task)
            task.add_done_callback(self._opening.discard)

    def _rest(self, sock: socket.socket, error: OSError) -> None:
        """Try again a little later: the socket would be ready at once, for ever."""
        if error.errno not in _SHORTAGES:
            _log.warning("http cannot accept", error=error.strerror)
        else:
            self._make_room()
            if not self._is_short:
                self._is_short = True
                _log.error("http cannot accept", error=error.strerror, cure="raise LimitNOFILE")
        loop = asyncio.get_running_loop()
        loop.remove_reader(sock)
        self._listening[sock] = loop.call_later(self._retry_seconds, self._begin, sock)

    async def _open(self, wire: socket.socket) -> None:
        try:
            await asyncio.get_running_loop().connect_accepted_socket(self._protocol, wire)
        except OSError as error:
            wire.close()
            _log.debug("http connection is gone already", error=error.strerror)


async def _bound(host: str, port: int, stack: ExitStack) -> list[socket.socket]:
    """Return a socket for each address of the host; the stack closes them."""
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    sockets = []
    for family, kind, protocol, _, address in dict.fromkeys(found):
        sock = stack.enter_context(socket.socket(family, kind, protocol))
        sock.settimeout(0)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind(address)
        sockets.append(sock)
    return sockets
