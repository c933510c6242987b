"""Deliveries are decoded without holding up the loop: heartbeats and other tenants go on meanwhile.

What is small is decoded at once, and after some milliseconds of it the loop gets a turn; what is
large is decoded by a thread beside the loop. One at a time either way, so order stays as it was.
What a document can cost is bounded before (`parsing`); here it is only kept out of the way. Before
it comes `intake`, after it the decoding it was given.
"""

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from typing import Final

from consumer.messages import Delivery
from consumer.model import TenantEvent

_MOST_AT_ONCE_BYTES: Final = 4096
"""Decoded in a millisecond or two, whatever it says; going to a thread and back costs a tenth."""
_SLICE_SECONDS: Final = 0.01


class Decoder:
    """Decodes deliveries, one after another."""

    def __init__(
        self,
        decode: Callable[[Delivery], TenantEvent],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._decode = decode
        self._clock = clock
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="decoding")
        self._turn_ends_at = 0.0

    async def decode(self, delivery: Delivery) -> TenantEvent:
        """Return the tenant event. Raises what the decoding raises."""
        if len(delivery.body) > _MOST_AT_ONCE_BYTES:
            loop = asyncio.get_running_loop()
            decode = copy_context().run
            return await loop.run_in_executor(self._thread, decode, self._decode, delivery)
        if self._clock() >= self._turn_ends_at:
            await asyncio.sleep(0)
            self._turn_ends_at = self._clock() + _SLICE_SECONDS
        return self._decode(delivery)
