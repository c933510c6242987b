"""Pulls side by side: how far each has come, and whose turn it is.

There are few places, for pulls that move. One that does not (a registry that is mute, or sends a
byte now and then) steps aside, where others of its kind are; who is asked next does not wait for
it. Its registry is remembered as slow for a while, and what is wanted from it begins aside. Aside
there are places too, few for each registry; where none is left, the pull is given up for now.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

import structlog

_log: Final = structlog.get_logger(__name__)

_TELL_SECONDS: Final = 10.0
_MEGABYTE: Final = 1024 * 1024
_FETCHED: Final = frozenset({"Verifying Checksum", "Download complete", "Extracting"})
"""Said of a layer that the registry has no more part in, and that is not in its place yet."""
_SLOW_SECONDS: Final = 600.0
_MOST_REMEMBERED: Final = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class PullLimits:
    """How many pulls at a time, and how long (seconds) and how far one may fall behind."""

    pulls: int = 3
    aside: int = 64
    """How many that do not move may go on beside those that do ..."""
    aside_of_one: int = 3
    """... and how many of them from one registry."""
    patience_seconds: float = 10.0
    """How long one may hold its place without moving."""
    awaited_patience_seconds: float = 2.0
    """The same while another waits for a place, as long as there is room aside."""
    extraction_patience_seconds: float = 60.0
    """The same while the engine unpacks, of which it says little."""
    first_sign_seconds: float = 120.0
    idle_seconds: float = 300.0
    """How long one may not move before it is given up."""
    extraction_seconds: float = 1800.0
    """The same while the engine unpacks."""
    least_bytes_per_second: float = 1024.0
    """What counts as moving where it is about giving up ..."""
    fair_bytes_per_second: float = 16 * 1024.0
    """... and where it is about holding a place."""
    inspect_seconds: float = 30.0


class Progress:
    """How far a pull has come, told in the log every ten seconds."""

    def __init__(self, image: str, *, now: Callable[[], float]) -> None:
        self._image = image
        self._now = now
        self._told_at = now()
        self._sizes: dict[object, tuple[int, int]] = {}
        self._stages: dict[object, str] = {}
        self.steps = 0
        """How often a layer went on to its next stage."""

    @property
    def fetched_bytes(self) -> int:
        """How much has come from the registry."""
        return sum(current for current, _ in self._sizes.values())

    @property
    def is_unpacking(self) -> bool:
        """Whether the engine has something to do that the registry has no part in."""
        return any(stage in _FETCHED for stage in self._stages.values())

    def note(self, sign: Mapping[str, object]) -> None:
        """Take in one line of the engine's progress."""
        layer, stage, detail = sign.get("id"), sign.get("status"), sign.get("progressDetail")
        if isinstance(stage, str) and not stage.startswith("Retrying"):
            self.steps += self._stages.get(layer) != stage
            self._stages[layer] = stage
        if stage == "Downloading" and isinstance(detail, Mapping):
            current, total = detail.get("current"), detail.get("total")
            if isinstance(current, int) and isinstance(total, int):
                self._sizes[layer] = (current, total)
        if self._now() - self._told_at >= _TELL_SECONDS:
            self._told_at = self._now()
            self._tell()

    def _tell(self) -> None:
        whole = sum(total for _, total in self._sizes.values())
        _log.info(
            "pull progress",
            image=self._image,
            megabytes=round(self.fetched_bytes / _MEGABYTE, 1),
            of_megabytes=round(whole / _MEGABYTE, 1),
        )


class Pace:
    """Whether a pull moves: so many bytes a second come, or a layer goes on to its next stage."""

    def __init__(self, progress: Progress, bytes_per_second: float, *, now: float) -> None:
        self._progress = progress
        self._bytes_per_second = bytes_per_second
        self._since = now
        self._bytes = progress.fetched_bytes
        self._steps = progress.steps

    def seconds_behind(self, now: float) -> float:
        """Return for how long it has not moved enough."""
        fetched = self._progress.fetched_bytes - self._bytes
        has_stepped = self._progress.steps != self._steps
        if has_stepped or fetched >= self._bytes_per_second * max(now - self._since, 1.0):
            self._since = now
            self._bytes = self._progress.fetched_bytes
            self._steps = self._progress.steps
        return now - self._since


@dataclass(slots=True, eq=False)
class Ticket:
    """A pull's turn; `is_aside` once it stepped, or began, aside."""

    registry: str
    turn: "asyncio.Future[None]" = field(repr=False)
    is_aside: bool = False


class PullPlaces:
    """Gives pulls their turns."""

    def __init__(self, limits: PullLimits, *, now: Callable[[], float]) -> None:
        self._limits = limits
        self._now = now
        self._holding = 0
        self._aside: Counter[str] = Counter()
        self._queue: list[Ticket] = []
        self._slow_until: dict[str, float] = {}

    async def enter(self, registry: str) -> Ticket:
        """Wait for a turn; it has to be given back by `leave`."""
        ticket = Ticket(registry, asyncio.get_running_loop().create_future())
        self._queue.append(ticket)
        self._give_turns()
        try:
            await ticket.turn
        except asyncio.CancelledError:
            if ticket in self._queue:
                self._queue.remove(ticket)
            else:
                self.leave(ticket)
            raise
        return ticket

    def leave(self, ticket: Ticket) -> None:
        """Give the place back."""
        if ticket.is_aside:
            self._aside[ticket.registry] -= 1
        else:
            self._holding -= 1
        self._give_turns()

    @property
    def is_awaited(self) -> bool:
        """Whether somebody waits for a place that a pull that does not move may hold."""
        return any(not self._is_slow(ticket.registry) for ticket in self._queue)

    def step_aside(self, ticket: Ticket, *, is_registry_slow: bool) -> bool:
        """Give the place up and go on aside; False where there is no place left."""
        if is_registry_slow:
            self.remember_slow(ticket.registry)
        if not self._has_room_aside(ticket.registry):
            return False
        self._holding -= 1
        ticket.is_aside = True
        self._aside[ticket.registry] += 1
        self._give_turns()
        return True

    def remember_slow(self, registry: str) -> None:
        """Have what is wanted from the registry begin aside for a while."""
        self._slow_until.pop(registry, None)
        self._slow_until[registry] = self._now() + _SLOW_SECONDS
        while len(self._slow_until) > _MOST_REMEMBERED:
            del self._slow_until[next(iter(self._slow_until))]

    def forget_slow(self, registry: str) -> None:
        """Have what is wanted from the registry wait for a place as others do."""
        if self._slow_until.pop(registry, None) is not None:
            self._give_turns()

    def _give_turns(self) -> None:
        # No await: whoever is given a turn has its place from here on.
        for ticket in list(self._queue):
            if ticket.turn.cancelled():
                continue  # on its way out
            if self._is_slow(ticket.registry):
                if not self._has_room_aside(ticket.registry):
                    continue
                ticket.is_aside = True
                self._aside[ticket.registry] += 1
            elif self._holding < self._limits.pulls:
                self._holding += 1
            else:
                continue
            self._queue.remove(ticket)
            ticket.turn.set_result(None)

    def _has_room_aside(self, registry: str) -> bool:
        if self._aside[registry] >= self._limits.aside_of_one:
            return False
        return self._aside.total() < self._limits.aside

    def _is_slow(self, registry: str) -> bool:
        return self._slow_until.get(registry, 0.0) > self._now()
