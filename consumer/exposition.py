"""The metrics for whoever asks, made a few times a second at most.

Anybody who reaches the port may ask, without a token, and making them is some milliseconds of the
loop's time. So who asks shortly after another waits a moment, and all who wait are given the same:
it is never older than the request, and however many ask, most of the loop's time is others'.
"""

import asyncio
from typing import Final

from consumer.metrics import Metrics

_PAUSE_SECONDS: Final = 0.2


class Exposition:
    """Gives the metrics."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._free_at = 0.0
        self._coming: dict[str, asyncio.Task[bytes]] = {}
        """By content type, those that are not begun."""

    async def of(self, accept: str) -> tuple[bytes, str]:
        """Return all samples as they are from now on, and their content type."""
        content_type = self._metrics.content_type(accept)
        coming = self._coming.get(content_type)
        if coming is None:
            coming = asyncio.create_task(self._make(accept, content_type), name="metrics")
            self._coming[content_type] = coming
        return await asyncio.shield(coming), content_type

    async def _make(self, accept: str, content_type: str) -> bytes:
        loop = asyncio.get_running_loop()
        begins_at = max(self._free_at, loop.time())
        self._free_at = begins_at + _PAUSE_SECONDS
        await asyncio.sleep(begins_at - loop.time())
        del self._coming[content_type]
        body, _ = self._metrics.render(accept)
        return body
