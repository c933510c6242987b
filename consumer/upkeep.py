"""What has to be done now and then: refresh the gauges, sweep what is no longer needed.

Also the ledger's pulse: its probe says whether it can be written, for readiness. A failure here is
told and tried again; it never ends the consumer.
"""

import asyncio
from typing import Final

import structlog

from consumer.clock import Clock
from consumer.errors import LedgerError
from consumer.metrics import Metrics
from consumer.ports import Ledger

_log: Final = structlog.get_logger(__name__)


class Upkeep:
    """Looks after the ledger."""

    def __init__(  # noqa: PLR0913 - the outside is a constructor argument
        self,
        *,
        ledger: Ledger,
        metrics: Metrics,
        clock: Clock,
        retention_seconds: float,
        look_seconds: float = 2.0,
        slow_seconds: float = 5.0,
        sweep_seconds: float = 600.0,
    ) -> None:
        self._ledger = ledger
        self._metrics = metrics
        self._clock = clock
        self._retention_seconds = retention_seconds
        self._look_seconds = look_seconds
        self._slow_seconds = slow_seconds
        self._sweep_seconds = sweep_seconds
        self._trouble: str | None = None
        self._swept: float | None = None
        self._looked = clock.steady()

    @property
    def trouble(self) -> str | None:
        """What keeps the ledger from being written; None when all is well."""
        return self._trouble

    @property
    def idle_seconds(self) -> float:
        """How long ago it last looked, well or in vain: the pulse of the process."""
        return self._clock.steady() - self._looked

    async def run(self) -> None:
        """Look and sweep until cancelled."""
        while True:
            try:
                await self.look()
            except LedgerError as error:
                self._note_trouble(str(error))
            self._looked = self._clock.steady()
            await asyncio.sleep(self._look_seconds)

    async def look(self) -> None:
        """Probe the ledger, set the gauges, and sweep when it is time. Raises LedgerError."""
        await self._probe()
        for state, count in (await self._ledger.counts()).items():
            self._metrics.tenants.labels(state=state).set(count)
        depth, oldest_at = await self._ledger.outbox_depth()
        self._metrics.outbox_pending.set(depth)
        age = self._clock.seconds_since(oldest_at) if oldest_at is not None else 0.0
        self._metrics.outbox_oldest_seconds.set(age)
        await self._sweep_when_due()

    async def _probe(self) -> None:
        # A disk that hangs is told before the ledger's own deadline: who waits wants to know why.
        trouble = f"no answer from the ledger for {self._slow_seconds:g} s"
        loop = asyncio.get_running_loop()
        slow = loop.call_later(self._slow_seconds, self._note_trouble, trouble)
        try:
            await self._ledger.probe()
        finally:
            slow.cancel()
        self._note_trouble(None)

    async def _sweep_when_due(self) -> None:
        now = self._clock.steady()
        if self._swept is None or now - self._swept >= self._sweep_seconds:
            swept = await self._ledger.sweep(older_than_seconds=self._retention_seconds)
            self._swept = now
            _log.debug("swept", rows=swept)

    def _note_trouble(self, trouble: str | None) -> None:
        if (trouble is None) != (self._trouble is None):
            if trouble is None:
                _log.info("ledger writable")
            else:
                _log.error("ledger not writable", error=trouble)
        self._trouble = trouble
        self._metrics.ledger_up.set(0 if trouble else 1)
