"""Refused events on their way to the dead-letter exchange: each is acknowledged once confirmed.

They hold up nobody but themselves. While the broker does not take them (the dead-letter queue is
full and refuses, the exchange is gone) their deliveries stay unacknowledged, and what is not
refused goes on being taken in beside them. That has two bounds. Each of them has one of the places
that `broker.prefetch` gives; when all are taken, the broker hands nothing more out. And their
bodies are held in memory, up to a number of bytes; beyond it intake waits. Either way everything is
where it was: in the consumer's queue, in order, until the dead letters are taken again. They are
not given back meanwhile: the broker would hand them out again at once, for ever; and what it
dead-letters by itself has no reason with it, and is refused by the same full queue. (After half an
hour the broker ends a session in which something is not acknowledged; all of it then comes again.)

Before it comes intake; nothing comes after it.
"""

import asyncio
from collections import deque
from collections.abc import Collection, Sequence
from typing import Final

import structlog
from typing_extensions import override

from consumer.errors import BrokerError
from consumer.faults import for_ever, trace_of
from consumer.messages import DeadLetter, Delivery
from consumer.metrics import Metrics
from consumer.ports import Deliveries, Publisher

_log: Final = structlog.get_logger(__name__)

_MEGABYTE: Final = 1024 * 1024
_COUNT_SECONDS: Final = 10.0
"""Between two counts of those in the queue; somebody else takes them out of it."""
_SOON_SECONDS: Final = 1.0
"""After those that were just confirmed, all at once."""


class DeadLetters:
    """Publishes dead letters, side by side; while they are refused, one now and then."""

    def __init__(  # noqa: PLR0913 - the outside is a constructor argument
        self,
        *,
        deliveries: Deliveries,
        publisher: Publisher,
        metrics: Metrics,
        most_bytes: int = 16 * _MEGABYTE,
        side_by_side: int = 64,
        retry_seconds: float = 0.5,
        most_retry_seconds: float = 10.0,
    ) -> None:
        self._deliveries = deliveries
        self._publisher = publisher
        self._metrics = metrics
        self._most_bytes = most_bytes
        self._side_by_side = side_by_side
        self._retry_seconds = retry_seconds
        self._most_retry_seconds = most_retry_seconds
        self._waiting: deque[DeadLetter] = deque()
        self._under_way: list[DeadLetter] = []
        self._confirmed: list[Delivery] = []
        self._bytes = 0
        self._session = 0
        self._refusal: str | None = None
        self._delay = retry_seconds
        self._pause: asyncio.TimerHandle | None = None
        self._has_work = asyncio.Event()
        self._has_room = asyncio.Event()
        self._in_queue = 0
        self._has_confirmed = asyncio.Event()
        self._is_tried = asyncio.Event()
        self._is_tried.set()

    @override
    def __repr__(self) -> str:
        waiting, under_way = len(self._waiting), len(self._under_way)
        return f"<DeadLetters waiting={waiting} under_way={under_way} bytes={self._bytes}>"

    @property
    def held(self) -> int:
        """How many refused events are not acknowledged yet."""
        return len(self._waiting) + len(self._under_way)

    @property
    def trouble(self) -> str | None:
        """What keeps dead letters from being taken; None when all is well."""
        if self._refusal is None:
            return None
        stopped = "; no more events are taken in" if self._bytes > self._most_bytes else ""
        return f"{self.held} refused events wait to be dead-lettered: {self._refusal}{stopped}"

    async def take(self, letters: Sequence[DeadLetter]) -> None:
        """Take over these, of one batch; return once there is room in memory for more."""
        for letter in letters:
            self._put(letter)
        self._note_change()
        if self._bytes <= self._most_bytes:
            return
        _log.warning("intake waits for dead letters to be taken", held=self.held, bytes=self._bytes)
        while self._bytes > self._most_bytes:
            self._has_room.clear()
            await self._has_room.wait()
        _log.info("intake goes on")

    def _put(self, letter: DeadLetter) -> None:
        """Keep it; let go of what came by a lost session, whose ack says nothing to the broker."""
        session = letter.delivery.session
        if session > self._session:
            # What came by a lost session comes again; a second letter for it would be one too many.
            self._session = session
            self._let_go(self._waiting)
            self._waiting.clear()
        self._bytes += len(letter.delivery.body)
        self._waiting.append(letter)

    def _let_go(self, letters: Collection[DeadLetter]) -> None:
        # To acknowledge it now says only that it is not held any more.
        self._confirmed += [letter.delivery for letter in letters]
        self._bytes -= sum(len(letter.delivery.body) for letter in letters)

    async def run(self) -> None:
        """Publish until cancelled; what is not confirmed then comes again with the next start."""
        async with asyncio.TaskGroup() as group:
            counting = for_ever("counting dead letters", self._count_now_and_then())
            group.create_task(counting, name="counting dead letters")
            while True:
                await self._has_work.wait()
                self._has_work.clear()
                while (letter := self._next()) is not None:
                    self._under_way.append(letter)
                    group.create_task(self._send(letter), name="dead letter")
                confirmed, self._confirmed = self._confirmed, []
                if confirmed:
                    self._has_confirmed.set()
                    await self._deliveries.ack(confirmed)

    async def _count_now_and_then(self) -> None:
        while True:
            try:
                self._in_queue = await self._publisher.count_dead_letters()
            except BrokerError as error:
                _log.debug("dead letters not counted", error=str(error))
            self._metrics.dead_letters.set(self._in_queue + self.held)
            await self._until_there_are_more()

    async def _until_there_are_more(self) -> None:
        try:
            async with asyncio.timeout(_COUNT_SECONDS):
                await self._has_confirmed.wait()
                self._has_confirmed.clear()
                await asyncio.sleep(_SOON_SECONDS)
        except TimeoutError:
            return

    async def drain(self) -> None:
        """Return when all that was taken over is confirmed, or was tried in vain."""
        await self._is_tried.wait()

    def _next(self) -> DeadLetter | None:
        """Take the next one out of the row, if one may go now."""
        most = self._side_by_side if self._refusal is None else 1
        if self._pause is not None or len(self._under_way) >= most:
            return None
        return self._waiting.popleft() if self._waiting else None

    async def _send(self, letter: DeadLetter) -> None:
        trouble: str | None = None
        try:
            await self._publisher.publish_dead_letter(letter)
        except BrokerError as error:
            trouble = str(error)
        except Exception as error:  # noqa: BLE001 - one letter's trouble stays its own
            trouble = f"a fault of ours: {trace_of(error)}"
            self._metrics.faults.labels(part="dead letters").inc()
        self._under_way.remove(letter)
        if trouble is None:
            self._note_confirmed(letter)
        else:
            # Behind the others: it may be about this one alone.
            self._put_back(letter)
            self._note_refused(trouble)
        self._note_change()

    def _put_back(self, letter: DeadLetter) -> None:
        if letter.delivery.session == self._session:
            self._waiting.append(letter)
        else:
            self._let_go([letter])

    def _note_confirmed(self, letter: DeadLetter) -> None:
        self._confirmed.append(letter.delivery)
        self._bytes -= len(letter.delivery.body)
        self._delay = self._retry_seconds
        if self._refusal is not None:
            self._refusal = None
            _log.info("dead letters are taken again", held=self.held)

    def _note_refused(self, trouble: str) -> None:
        if self._refusal is None:
            _log.error("dead letter not taken", error=trouble, held=self.held)
        self._refusal = trouble
        if self._pause is None:
            self._pause = asyncio.get_running_loop().call_later(self._delay, self._end_pause)
            self._delay = min(self._delay * 2, self._most_retry_seconds)

    def _end_pause(self) -> None:
        self._pause = None
        self._has_work.set()

    def _note_change(self) -> None:
        self._metrics.dead_letters.set(self._in_queue + self.held)
        self._has_work.set()
        if self._bytes <= self._most_bytes:
            self._has_room.set()
        is_tried = not self._under_way and (not self._waiting or self._refusal is not None)
        if is_tried:
            self._is_tried.set()
        else:
            self._is_tried.clear()
