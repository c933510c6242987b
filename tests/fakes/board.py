"""A board in memory, whose requests take their time and may lose their answer."""

import asyncio
from collections.abc import Callable
from typing import Final

from consumer.errors import EngineUnavailable

DEADLINE_SECONDS: Final = 5.0


class Records(dict[str, str]):
    """What the engine keeps, whoever asks."""


class FakeBoard:
    """One consumer's way to the records.

    `delays` gives, for each request, the seconds before it takes effect and those before its answer
    is there; past the deadline the caller is told that the engine is away, and the effect may still
    come.
    """

    def __init__(
        self,
        records: Records,
        delays: Callable[[], tuple[float, float]] = lambda: (0.0, 0.0),
    ) -> None:
        self.records = records
        self._delays = delays
        self._on_their_way: set[asyncio.Task[str | None]] = set()

    @property
    def place(self) -> str:
        return "a record of the fake"

    async def read(self, name: str) -> str | None:
        return await self._ask(lambda: self.records.get(name))

    async def put(self, name: str, value: str) -> str:
        found = await self._ask(lambda: self.records.setdefault(name, value))
        assert found is not None
        return found

    async def remove(self, name: str) -> None:
        await self._ask(lambda: self.records.pop(name, None))

    async def _ask(self, effect: Callable[[], str | None]) -> str | None:
        before, after = self._delays()

        async def request() -> str | None:
            await asyncio.sleep(before)
            answer = effect()
            await asyncio.sleep(after)
            return answer

        task = asyncio.create_task(request())
        self._on_their_way.add(task)
        task.add_done_callback(self._on_their_way.discard)
        done, _ = await asyncio.wait((task,), timeout=DEADLINE_SECONDS)
        if not done:
            raise EngineUnavailable("no answer")
        return task.result()
