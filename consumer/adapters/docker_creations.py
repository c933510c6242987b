"""Creations that are under way: one for a name at a time, and nobody waits behind one that hangs.

Who is overtaken while the engine makes a container waits a moment for its answer, no longer: the
request goes on, and what it makes shows itself by an engine event, to be removed if it is not
wanted. Whoever wants to make another of that name waits until the first is over.
"""

import asyncio
from collections.abc import Coroutine
from typing import Final

from consumer.model import Container

_OVERTAKEN_SECONDS: Final = 1.0
"""An engine that is well has answered by then."""


class Creations:
    """Knows the requests for containers that have not been answered, by name."""

    def __init__(self) -> None:
        self._under_way: dict[str, asyncio.Task[Container]] = {}

    async def leftover(self, name: str) -> Container | None:
        """Wait until nothing is under way under this name; return what came of what was."""
        task = self._under_way.get(name)
        if task is None:
            return None
        await asyncio.wait((task,))
        if task.cancelled() or task.exception() is not None:
            return None
        return task.result()

    async def see(self, name: str, creation: Coroutine[object, object, Container]) -> Container:
        """Return what is made; cancelled, leave it to its end after a moment."""
        task = asyncio.create_task(creation, name=f"create {name}")
        self._under_way[name] = task
        task.add_done_callback(lambda done: self._forget(name, done))
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            await asyncio.wait((task,), timeout=_OVERTAKEN_SECONDS)
            raise

    def _forget(self, name: str, done: "asyncio.Task[Container]") -> None:
        if self._under_way.get(name) is done:
            del self._under_way[name]
        if not done.cancelled():
            done.exception()  # looked at: nobody may wait for it any more
