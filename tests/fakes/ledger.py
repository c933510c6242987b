"""The real ledger without its thread, so that it goes with virtual time and can be made to fail.

Everything but the thread is `SqlLedger` on a file: same statements, same transactions. It is held
to the same contract suite. It may be down, or fail at a chosen write, before or after the commit.
"""

import asyncio
import os
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from typing import TypeVar

from sqlalchemy import Engine, event
from typing_extensions import override

from consumer.adapters.ledger import SqlLedger, _Write, translated
from consumer.clock import Clock
from consumer.errors import LedgerError, LedgerFault

T = TypeVar("T")


class Crash(Exception):
    """Stands for the end of the process: the write it is raised at never returns."""


class InlineLedger(SqlLedger):
    """A ledger whose work is done at once, in the caller's thread."""

    def __init__(
        self,
        engine: Engine,
        lock: int | None,
        *,
        clock: Clock,
        call_seconds: float = 30.0,
    ) -> None:
        super().__init__(engine, lock, clock=clock, call_seconds=call_seconds)
        # No waiting for the disk: a test ends no machine.
        event.listen(engine, "connect", lambda made, _: made.execute("PRAGMA synchronous = OFF"))
        self.is_down = False
        """While set, nothing can be read or written."""
        self.released = asyncio.Event()
        """While it is not set, whatever is asked hangs, as a disk does."""
        self.released.set()
        self.writes = 0
        """How many transactions were tried."""
        self.has_crashed = False
        """Whether the process is to be taken for dead: its writes do not return."""
        self._fault: tuple[int, Exception, bool] | None = None
        self._copies = ExitStack()

    async def revive(self) -> None:
        """Have a new process write from now on: whatever waits for a dead one's write is gone."""
        self.has_crashed = False
        self._fault = None
        self._writes.clear()
        if self._writer is not None:
            self._writer.cancel()
            await asyncio.wait((self._writer,))

    def fail_at(self, nth: int, error: Exception, *, takes_effect: bool) -> None:
        """Raise at the n-th write from now on, before its commit or after it."""
        self._fault = (self.writes + nth, error, takes_effect)

    def saved(self) -> sqlite3.Connection:
        """Return a copy of all that is in it; it is there until this ledger is closed."""
        copy = self._copies.enter_context(closing(sqlite3.connect(":memory:")))
        with closing(self._engine.raw_connection()) as connection:
            connection.driver_connection.backup(copy)  # type: ignore[union-attr]  # SQLite's own
        return copy

    def restore(self, copy: sqlite3.Connection) -> None:
        """Have in it what was in it when the copy was made."""
        with closing(self._engine.raw_connection()) as connection:
            copy.backup(connection.driver_connection)  # type: ignore[arg-type]  # SQLite's own
        self._counts = None

    @property
    def has_failed(self) -> bool:
        """Whether the fault that was asked for has come."""
        return self._fault is None

    @override
    async def close(self) -> None:
        self._copies.close()
        self._engine.dispose()
        self._thread.shutdown(wait=False)
        if self._lock is not None:
            os.close(self._lock)

    @override
    def _together(self, writes: Sequence[_Write]) -> list[object]:
        self.writes += 1
        fault = self._fault
        if fault is None or fault[0] != self.writes:
            return super()._together(writes)
        self._fault = None
        _, error, takes_effect = fault
        if takes_effect:
            super()._together(writes)
        raise error

    @override
    async def _in_thread(self, work: Callable[[], T]) -> T:
        if self.is_down:
            raise LedgerError("the ledger failed: disk full")
        await self._have_turn()
        try:
            with translated():
                return work()
        except LedgerFault as error:
            if not isinstance(error.__cause__, Crash):
                raise
            self.has_crashed = True
            never: asyncio.Future[T] = asyncio.get_running_loop().create_future()
            return await never

    async def _have_turn(self) -> None:
        if not self.released.is_set():
            await self.released.wait()
