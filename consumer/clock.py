"""The two clocks: what time it is, and how long something has lasted.

The wall clock says what is shown to people and what goes on the wire. It may be set at any moment,
by an hour or by years, in both directions; so no length of time is ever the difference of two of
its times. Lengths come from the steady clock, which only goes on (and stands still while the
machine sleeps: what a sleeping machine did not see has not lasted). Where all that is known of a
past moment is its wall time, `seconds_since` says how long ago it was: the clock knows by how much,
and when, the wall clock was set since the process began. Given to every part; none asks the time
elsewhere.
"""

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

_STEP_SECONDS: Final = 0.1
"""Less is no step: the clocks are read one after the other, on a machine that is busy besides."""
_MOST_ERAS: Final = 64
_MARGIN_SECONDS: Final = 1.0


def utc_now() -> datetime:
    """Return the time of day."""
    return datetime.now(UTC)


def since_boot() -> float:
    """Return a clock in seconds that also runs while the machine sleeps."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


@dataclass(slots=True)
class _Era:
    """A time in which nobody set the wall clock: its first and last second seen, as Unix times."""

    began: float
    last: float
    ahead: float
    """By how much the wall clock is ahead of the steady one."""


class Clock:
    """Tells the time of day, and how long ago something was."""

    def __init__(
        self,
        *,
        wall: Callable[[], datetime] = utc_now,
        steady: Callable[[], float] = time.monotonic,
    ) -> None:
        self._wall = wall
        self._steady = steady
        self._eras: deque[_Era] = deque(maxlen=_MOST_ERAS)

    def now(self) -> datetime:
        """Return the time of day: for people and the wire, not to be reckoned with."""
        at = self._wall()
        self._note(at.timestamp(), self._steady())
        return at

    def steady(self) -> float:
        """Return seconds that only go on, since some moment before this process began."""
        return self._steady()

    def seconds_since(self, at: datetime) -> float:
        """Return how long ago the wall clock showed this time; never less than nothing.

        What was shown before this process began is measured by the wall time of its beginning. A
        time that the wall clock has not shown yet has only just been.
        """
        self.now()
        shown = at.timestamp()
        eras = tuple(self._eras)
        era = eras[0]
        for later in reversed(eras):
            # The newest that fits: a clock that was set back shows the same times again.
            if later.began - _STEP_SECONDS <= shown <= later.last + _STEP_SECONDS:
                era = later
                break
        else:
            if shown > era.last:
                return 0.0
        return max(0.0, self._steady() - (shown - era.ahead))

    def earliest_since(self, steady: float) -> datetime:
        """Return the earliest time that the wall clock has shown since then, a second given in.

        Whatever was stamped since by this clock bears no earlier time.
        """
        shown = [self.now().timestamp()]
        shown.extend(
            max(era.began, steady + era.ahead)
            for era in tuple(self._eras)  # a copy: the ledger's thread asks too
            if era.last - era.ahead >= steady - _MARGIN_SECONDS
        )
        return datetime.fromtimestamp(min(shown) - _MARGIN_SECONDS, UTC)

    def _note(self, wall: float, steady: float) -> None:
        ahead = wall - steady
        newest = self._eras[-1] if self._eras else None
        if newest is None or abs(ahead - newest.ahead) > _STEP_SECONDS:
            self._eras.append(_Era(wall, wall, ahead))
        else:
            newest.last = max(newest.last, wall)
            # Whatever came between the two readings can only have made it smaller.
            newest.ahead = max(newest.ahead, ahead)
