"""Places to work in, for so many at a time: what costs the engine is bounded, waiting is not.

Work that lasts longer than it can cost (a mount that hangs, a process that cannot be killed) only
waits, and gives its place up: so a few that hang never hold up all the others.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Places:
    """So many places, each given up after `patience_seconds` at the latest."""

    def __init__(self, count: int, *, patience_seconds: float) -> None:
        self._free = asyncio.Semaphore(count)
        self._patience_seconds = patience_seconds

    @asynccontextmanager
    async def taken(self) -> AsyncIterator[None]:
        """Hold a place for the length of the block, or as long as the patience lasts."""
        await self._free.acquire()
        giving_up = asyncio.get_running_loop().call_later(
            self._patience_seconds, self._free.release
        )
        try:
            yield
        finally:
            # No await between the check and the release: a place is given back once.
            if not _has_run(giving_up):
                giving_up.cancel()
                self._free.release()


def _has_run(timer: asyncio.TimerHandle) -> bool:
    return asyncio.get_running_loop().time() >= timer.when()
