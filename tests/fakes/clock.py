"""Clocks that a test moves: time goes on for both, and the wall clock alone can be set."""

import asyncio
from datetime import datetime, timedelta

from consumer.clock import Clock
from tests.builders import MOMENT


class HandClock(Clock):
    """Stands still until it is moved. Called, it says what time it is."""

    def __init__(self, at: datetime = MOMENT) -> None:
        super().__init__(wall=lambda: self.at, steady=lambda: self.lasted)
        self.at = at
        self.lasted = 0.0

    def __call__(self) -> datetime:
        return self.now()

    def advance(self, seconds: float) -> None:
        """Have time go on."""
        self.at += timedelta(seconds=seconds)
        self.lasted += seconds

    def set_ahead(self, seconds: float) -> None:
        """Set the wall clock by so much, back where it is negative; no time goes by."""
        self.at += timedelta(seconds=seconds)


class LoopClock(Clock):
    """Goes with the loop's (virtual) time."""

    def __init__(self) -> None:
        super().__init__(wall=self._read, steady=lambda: asyncio.get_running_loop().time())
        self._ahead = timedelta()

    def _read(self) -> datetime:
        lasted = timedelta(seconds=asyncio.get_running_loop().time())
        return MOMENT + lasted + self._ahead

    def set_ahead(self, seconds: float) -> None:
        """Set the wall clock by so much, back where it is negative; no time goes by."""
        self._ahead += timedelta(seconds=seconds)
