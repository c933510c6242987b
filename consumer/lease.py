"""The lease: one consumer for an instance on an engine.

Two consumers of one instance would fight over its containers, whatever brokers, ledgers and hosts
they have; so the record of who holds the lease is kept by the engine itself. The record has no end
of its own, and costs the engine nothing but a look now and then. Whoever wants the lease puts a bid
beside it. A holder that lives takes the bid away; a bid that stays is answered by nobody, and its
bidder takes the lease over.

No clock is compared with another, only lengths of time are. A holder trusts in its lease for
`valid_seconds` after a look that began without a bid; a bidder waits longer than that. A holder
that comes late (a paused process, an engine that hung) takes the bid away all the same, but then
waits out what a bidder may take from its last look to the new record, before it trusts in its lease
again.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, NoReturn
from uuid import uuid4

import structlog

from consumer.clock import since_boot
from consumer.errors import EngineUnavailable, LeaseHeld
from consumer.ports import Board

_log: Final = structlog.get_logger(__name__)

_LEASE: Final = "lease"
_BID: Final = "bid"
_NEVER: Final = float("-inf")


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseTimes:
    """Seconds; `valid_seconds` has to be less than `bid_seconds`."""

    look_seconds: float = 1.0
    """Between two looks at the records."""
    valid_seconds: float = 4.0
    """How long after a look the holder trusts in its lease."""
    bid_seconds: float = 5.0
    """How long a bid has to stay before its bidder takes the lease over."""
    rebid_seconds: float = 2.0
    """How long a bidder rests after its bid was answered."""
    take_seconds: float = 3.0
    """The most that may pass from a bidder's last look to its new record."""
    stale_bid_seconds: float = 15.0
    """A bid of another that has stayed this long is a dead one's."""


class Lease:
    """One consumer's side of it; `holder` is what it is known by, also after a restart."""

    def __init__(
        self,
        *,
        board: Board,
        holder: str,
        clock: Callable[[], float] = since_boot,
        times: LeaseTimes | None = None,
    ) -> None:
        self._board = board
        self._holder = holder
        self._clock = clock
        self._times = times or LeaseTimes()
        self._valid_until = _NEVER
        self._looking = asyncio.Lock()
        self._bid_of_another = ("", 0.0)

    @property
    def is_valid(self) -> bool:
        """Whether the lease is ours at this moment, without asking."""
        return self._clock() < self._valid_until

    async def ensure(self) -> None:
        """Return while the lease is ours; look, and take it if it is free, when that is not sure.

        Raises LeaseHeld when it is another's, EngineUnavailable when the engine cannot be asked.
        """
        if self.is_valid:
            return
        async with self._looking:
            if not self.is_valid:
                await self._look()

    async def keep(self) -> NoReturn:
        """Show that we live, again and again. Raises LeaseHeld when the lease is lost."""
        while True:
            try:
                async with self._looking:
                    await self._look()
            except LeaseHeld:
                raise
            except EngineUnavailable as error:
                _log.debug("lease not looked at", error=str(error))
            await asyncio.sleep(self._times.look_seconds)

    async def take_over(self) -> None:
        """Wait until the lease is free or its holder is gone, and take it; the engine may be away.

        Cancelled, it may leave a bid behind; the holder, or the next bidder, removes it.
        """
        while True:
            try:
                if await self._has_taken_over():
                    return
            except EngineUnavailable as error:
                _log.debug("no bid for the lease", error=str(error))
            await asyncio.sleep(self._times.rebid_seconds)

    async def release(self) -> None:
        """Give the lease back, so that the next one need not wait. Raises EngineUnavailable."""
        is_ours, self._valid_until = self.is_valid, _NEVER
        if is_ours and await self._board.read(_LEASE) == self._holder:
            await self._board.remove(_LEASE)

    async def _look(self) -> None:
        if not self.is_valid:
            # Bids are the holder's to answer.
            self._check(await self._board.read(_LEASE))
        while True:
            began = self._clock()
            # Bids before the record: who bids after this cannot have taken over before our time.
            if await self._board.read(_BID) is None:
                break
            await self._board.remove(_BID)
            if self.is_valid:
                break
            await asyncio.sleep(self._times.take_seconds + self._times.look_seconds)
        owner = await self._board.read(_LEASE)
        if owner is None:
            owner = await self._board.put(_LEASE, self._holder)
        self._check(owner)
        self._valid_until = began + self._times.valid_seconds

    def _check(self, owner: str | None) -> None:
        if owner not in (None, self._holder):
            self._valid_until = _NEVER
            raise LeaseHeld(self._board.place)

    async def _has_taken_over(self) -> bool:
        """Take the lease if it is free, else bid for it."""
        owner = await self._board.read(_LEASE)
        if owner is not None and owner != self._holder:
            return await self._has_outbid()
        try:
            await self.ensure()
        except LeaseHeld:
            return False
        return True

    async def _has_outbid(self) -> bool:
        bid = uuid4().hex
        if not await self._has_put(bid):
            return False
        times = self._times
        until = self._clock() + times.bid_seconds
        while self._clock() < until:
            await asyncio.sleep(times.look_seconds)
            if await self._board.read(_BID) != bid:
                return False  # the holder lives
        began = self._clock()
        if await self._board.read(_BID) != bid:
            return False
        await self._board.remove(_LEASE)
        owner = await self._board.put(_LEASE, self._holder)
        if owner != self._holder:
            return False
        if self._clock() - began > times.take_seconds:
            # The former holder may have come back, and trust in its lease again.
            await self._board.remove(_LEASE)
            return False
        self._valid_until = began + times.valid_seconds
        await self._board.remove(_BID)
        return True

    async def _has_put(self, bid: str) -> bool:
        """Put the bid, unless another's is there; one that stays for long is a dead one's."""
        found = await self._board.put(_BID, bid)
        if found == bid:
            return True
        known, since = self._bid_of_another
        if found != known:
            self._bid_of_another = (found, self._clock())
        elif self._clock() - since > self._times.stale_bid_seconds:
            await self._board.remove(_BID)
        return False
