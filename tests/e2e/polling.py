"""A client that asks a published port again and again, and knows for how long nobody answered."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

_PAUSE_SECONDS: Final = 0.005
_ANSWER_SECONDS: Final = 0.25


class Poller:
    """What a client sees of one port.

    A request that takes longer than `answer_seconds` is given up and sent anew: its server went
    while it was asked.
    """

    def __init__(self, address: str, port: int, path: str, answer_seconds: float) -> None:
        self._place = (address, port)
        self._answer_seconds = answer_seconds
        self._request = f"GET {path} HTTP/1.0\r\n\r\n".encode()
        self._last_answer_at = time.monotonic()
        self._gap_seconds = 0.0
        self.last_answer = ""
        self.failures = 0
        """How many requests were not answered, or not in time."""
        self.refused = 0
        """How many of them because nobody was there; one that is only slow never says so."""
        self.is_answered = False
        """Whether the last request was answered."""

    @property
    def longest_gap_seconds(self) -> float:
        """The longest time between two answers, the time since the last one included."""
        return max(self._gap_seconds, time.monotonic() - self._last_answer_at)

    def forget(self) -> None:
        """Begin anew to measure, and to be answered."""
        self._last_answer_at, self._gap_seconds = time.monotonic(), 0.0
        self.failures = self.refused = 0
        self.last_answer, self.is_answered = "", False

    async def run(self) -> None:
        """Ask, until cancelled."""
        while True:
            try:
                async with asyncio.timeout(self._answer_seconds):
                    answer = await self._ask()
            except (OSError, asyncio.IncompleteReadError) as error:
                # A timeout is an OSError too.
                self.failures += 1
                self.refused += not isinstance(error, TimeoutError)
                self.is_answered = False
            else:
                now = time.monotonic()
                self._gap_seconds = max(self._gap_seconds, now - self._last_answer_at)
                self._last_answer_at, self.last_answer, self.is_answered = now, answer, True
            await asyncio.sleep(_PAUSE_SECONDS)

    async def _ask(self) -> str:
        reader, writer = await asyncio.open_connection(*self._place)
        try:
            writer.write(self._request)
            head = await reader.readuntil(b"\r\n\r\n")
            if b" 200 " not in head:
                raise ConnectionError(head.decode(errors="replace"))
            return (await reader.read()).decode()
        finally:
            writer.close()


@asynccontextmanager
async def polling(
    address: str, port: int, path: str = "/", *, answer_seconds: float = _ANSWER_SECONDS
) -> AsyncIterator[Poller]:
    """Have a client poll the port for the length of the block."""
    poller = Poller(address, port, path, answer_seconds)
    async with asyncio.TaskGroup() as group:
        task = group.create_task(poller.run(), name=f"poll {port}")
        yield poller
        task.cancel()
