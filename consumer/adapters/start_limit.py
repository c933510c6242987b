"""How many containers are made at a time: as many as the host does best, found by itself.

A host makes containers faster side by side up to some number, which depends on its cores, its disk
and on what else it does; beyond it each takes longer and none comes sooner. `Vegas` finds that
number, `StartGate` keeps to it. Before it come the engine's create and start; it calls nobody.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from math import sqrt
from statistics import median
from typing import Final, TypeVar

from typing_extensions import override

_T = TypeVar("_T")

_KEPT_SECONDS: Final = 1.0
_FIRST_PATIENCE_SECONDS: Final = 3.0
_LEAST_PATIENCE_SECONDS: Final = 1.0
_HURRIED_SECONDS: Final = 0.25
_PATIENCE_FACTOR: Final = 4.0
_FEWEST_SAMPLES: Final = 4
_SHARE_OF_NEW: Final = 0.3
_LEAST_WAITING: Final = 1.75
_MOST_WAITING: Final = 2.25
"""How many may wait for each other, in square roots of the limit."""


class Vegas:
    """Finds the limit as TCP Vegas finds its window, from latencies alone.

    Of `limit` starts at a time that take `usual` seconds each, and `alone` seconds with nothing
    else to do, `limit * (1 - alone / usual)` do nothing but wait for the others. The limit rises
    while that is less than 1.75 times its square root, and falls to that when it is more than 2.25
    times the root. Some have to wait: a start uses the cores, the disk and the kernel's locks by
    turns, and keeps the others idle meanwhile. (On two cores 4.6 containers a second were started
    one at a time, 6.7 two, 7.5 four, 8.7 eight and 8.4 sixteen.) More would only make each start
    slower. At first the limit doubles, as in slow start. What a start takes alone is measured
    whenever one is alone. After a host became slower the limit may be too low until then, but not
    below five, where all may wait.

    Source: Brakmo and Peterson, "TCP Vegas: End to End Congestion Avoidance on a Global Internet"
    (1995); bounds that grow with the limit's square root as in Netflix's concurrency-limits.
    """

    def __init__(self, most: int) -> None:
        """Begin with one at a time; never more than `most`."""
        self.most = most
        self.limit = 1
        self.usual_seconds: float | None = None
        """What a start took lately, however many were on their way."""
        self._alone_seconds: float | None = None
        self._is_doubling = True
        self._samples: list[float] = []

    @override
    def __repr__(self) -> str:
        return f"<Vegas limit={self.limit} alone={self._alone_seconds} usual={self.usual_seconds}>"

    def learn(self, seconds: float, *, was_alone: bool, was_full: bool) -> None:
        """Take in what one start took.

        `was_alone`: nothing else was on its way. `was_full`: the limit was reached, so that it
        matters; a limit that nobody reaches says nothing.
        """
        self.usual_seconds = _blend(self.usual_seconds, seconds)
        if was_alone or self._alone_seconds is None:
            self._alone_seconds = _blend(self._alone_seconds, seconds)
        if not was_full:
            return
        self._samples.append(seconds)
        if len(self._samples) >= self._wanted_samples():
            self._adapt(self._alone_seconds, median(self._samples))
            self._samples.clear()

    def _wanted_samples(self) -> int:
        return self.limit if self._is_doubling else max(self.limit, _FEWEST_SAMPLES)

    def _adapt(self, alone: float, usual: float) -> None:
        if usual < alone:
            alone = self._alone_seconds = usual  # the host became faster
        waiting, root = self.limit * (1 - alone / usual) if usual else 0.0, sqrt(self.limit)
        if waiting < _LEAST_WAITING * root:
            wanted = self.limit * 2 if self._is_doubling else self.limit + 1
        elif waiting <= _MOST_WAITING * root:
            wanted = self.limit
        else:
            wanted = min(round(self.limit - waiting + _LEAST_WAITING * root), self.limit - 1)
        self._is_doubling = self._is_doubling and waiting < _LEAST_WAITING * root
        self.limit = min(max(wanted, 1), self.most)


class StartGate:
    """Lets containers be created and started, as many at a time as `Vegas` says.

    Who has created a container keeps the place for its start, which comes at once or not at all;
    other starts go before creations, so that what was begun is ended first. What hangs, a creation
    or a start, gives up its place after a while, but counts against `most`: a host that is slow all
    over is not given ever more to do. However many hang, one at a time goes on beside them.
    """

    def __init__(
        self, most: int, *, on_change: Callable[[int], None] = lambda _limit: None
    ) -> None:
        self._vegas = Vegas(most)
        self._on_change = on_change
        self._places: set[_Place] = set()
        self._overdue: set[_Place] = set()
        self._kept: dict[str, _Place] = {}
        self._starting: deque[asyncio.Future[_Place]] = deque()
        self._creating: deque[asyncio.Future[_Place]] = deque()
        self._entries = 0
        on_change(self._vegas.limit)

    @override
    def __repr__(self) -> str:
        waiting = len(self._starting) + len(self._creating)
        return f"<StartGate {self._vegas} on their way={len(self._places)} waiting={waiting}>"

    @asynccontextmanager
    async def creating(self) -> AsyncIterator["Creation"]:
        """Give a place to make a container in."""
        place = await self._enter(self._creating)
        self._be_patient(place)
        creation = Creation()
        try:
            yield creation
        finally:
            if creation.container_id is None or place in self._overdue:
                self._leave(place)
            else:
                self._keep(place, creation.container_id)

    @asynccontextmanager
    async def starting(self, container_id: str) -> AsyncIterator[None]:
        """Give a place to start the container in, and learn from how long it takes."""
        place = self._kept.pop(container_id, None) or await self._enter(self._starting)
        loop = asyncio.get_running_loop()
        began, entries, patience = loop.time(), self._entries, self._full_patience()
        was_full = len(self._places) >= self._vegas.limit
        was_alone = len(self._places) == 1
        self._be_patient(place)
        try:
            yield
            was_alone = was_alone and entries == self._entries
            # One that hung says little of the host, and is not to teach patience with the next.
            seconds = min(loop.time() - began, patience)
            self._learn(seconds, was_alone=was_alone, was_full=was_full)
        finally:
            self._leave(place)

    def _learn(self, seconds: float, *, was_alone: bool, was_full: bool) -> None:
        before = self._vegas.limit
        self._vegas.learn(seconds, was_alone=was_alone, was_full=was_full)
        if self._vegas.limit != before:
            self._on_change(self._vegas.limit)

    def _patience(self) -> float:
        """Return how long one may take that begins now: the more hang, the sooner it gives way.

        Many that hang, before others in the queue, would all take that long one after another.
        """
        usual, full = self._vegas.usual_seconds, self._full_patience()
        least = min(full, max(_HURRIED_SECONDS, usual or 0.0))
        return max(least, full / (1 + len(self._overdue)))

    def _full_patience(self) -> float:
        usual = self._vegas.usual_seconds
        if usual is None:
            return _FIRST_PATIENCE_SECONDS
        return max(_LEAST_PATIENCE_SECONDS, _PATIENCE_FACTOR * usual)

    # --- places

    async def _enter(self, queue: "deque[asyncio.Future[_Place]]") -> "_Place":
        if self._has_room() and not self._starting and not queue:
            return self._take()
        turn: asyncio.Future[_Place] = asyncio.get_running_loop().create_future()
        queue.append(turn)
        try:
            return await turn
        except asyncio.CancelledError:
            if turn.cancelled():
                with suppress(ValueError):  # passed over already, in the same moment
                    queue.remove(turn)
            else:
                self._leave(turn.result())  # given in the same moment
            raise

    def _has_room(self) -> bool:
        taken = len(self._places)
        is_within = taken + len(self._overdue) < self._vegas.most
        return taken < self._vegas.limit and (is_within or not taken)

    def _take(self) -> "_Place":
        place = _Place()
        self._places.add(place)
        self._entries += 1
        return place

    def _keep(self, place: "_Place", container_id: str) -> None:
        self._kept[container_id] = place
        place.wake_after(_KEPT_SECONDS, self._take_back, container_id)

    def _be_patient(self, place: "_Place") -> None:
        place.wake_after(self._patience(), self._pass_over, place)

    def _take_back(self, container_id: str) -> None:
        self._leave(self._kept.pop(container_id))

    def _pass_over(self, place: "_Place") -> None:
        self._places.discard(place)
        self._overdue.add(place)
        self._fill()

    def _leave(self, place: "_Place") -> None:
        place.stop_timer()
        self._places.discard(place)
        self._overdue.discard(place)
        self._fill()

    def _fill(self) -> None:
        while (self._starting or self._creating) and self._has_room():
            turn = (self._starting or self._creating).popleft()
            if not turn.done():
                turn.set_result(self._take())


@dataclass(slots=True, eq=False)
class _Place:
    timer: asyncio.TimerHandle | None = None

    def wake_after(self, seconds: float, call: Callable[[_T], None], whom: _T) -> None:
        """Make the call then, in place of what was to come."""
        self.stop_timer()
        self.timer = asyncio.get_running_loop().call_later(seconds, call, whom)

    def stop_timer(self) -> None:
        """Make no call."""
        if self.timer is not None:
            self.timer.cancel()


@dataclass(slots=True)
class Creation:
    """What became of a creation: the container, once it is made."""

    container_id: str | None = None


def _blend(old: float | None, new: float) -> float:
    """Return what was known, moved towards what is new."""
    return new if old is None else old + _SHARE_OF_NEW * (new - old)
