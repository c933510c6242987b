"""The lease: never two who trust in it, and soon another when its holder is gone."""

import asyncio
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress

import pytest

from consumer.errors import EngineUnavailable, LeaseHeld
from consumer.lease import Lease, LeaseTimes
from tests.fakes.board import FakeBoard, Records

pytestmark = [pytest.mark.asyncio, pytest.mark.looptime]

TIMES = LeaseTimes()
_LOOK_SECONDS = 0.2


def now() -> float:
    return asyncio.get_running_loop().time()


def lease_of(holder: str, records: Records) -> Lease:
    return Lease(board=FakeBoard(records), holder=holder, clock=now)


@asynccontextmanager
async def kept(lease: Lease) -> AsyncIterator[asyncio.Task[None]]:
    """Have its holder live for the length of the block."""
    task: asyncio.Task[None] = asyncio.create_task(lease.keep())
    try:
        yield task
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError, LeaseHeld):
            await task


async def test_the_first_one_has_it_and_the_second_is_told() -> None:
    """At once, without waiting."""
    records = Records()
    first, second = lease_of("first", records), lease_of("second", records)

    await first.ensure()
    with pytest.raises(LeaseHeld, match="another consumer holds the lease"):
        await second.ensure()

    assert first.is_valid
    assert not second.is_valid
    assert now() == 0


async def test_a_holder_that_comes_back_need_not_wait() -> None:
    """It is known by its ledger, which has one owner at a time."""
    records = Records()
    await lease_of("first", records).ensure()

    again = lease_of("first", records)
    await again.ensure()

    assert again.is_valid
    assert now() == 0


async def test_a_holder_that_lives_keeps_it() -> None:
    """Bid upon bid is answered."""
    records = Records()
    first, second = lease_of("first", records), lease_of("second", records)
    await first.ensure()

    async with kept(first):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(300):
                await second.take_over()

    assert records["lease"] == "first"


async def test_a_holder_that_is_gone_is_followed_within_seconds() -> None:
    """The bid stays unanswered."""
    records = Records()
    first, second = lease_of("first", records), lease_of("second", records)
    await first.ensure()
    async with kept(first):
        taking_over = asyncio.create_task(second.take_over())
        await asyncio.sleep(20)
    died_at = now()

    await taking_over

    assert now() - died_at <= TIMES.rebid_seconds + TIMES.bid_seconds + 3 * TIMES.look_seconds
    assert second.is_valid
    assert not first.is_valid
    assert records == {"lease": "second"}


async def test_a_lease_given_back_is_taken_at_once() -> None:
    """A clean stop costs the next one no waiting for a sign of life."""
    records = Records()
    first, second = lease_of("first", records), lease_of("second", records)
    await first.ensure()
    async with kept(first):
        taking_over = asyncio.create_task(second.take_over())
        await asyncio.sleep(TIMES.look_seconds + 0.5)  # the bid was answered
    await first.release()
    released_at = now()

    await taking_over

    assert now() - released_at <= TIMES.rebid_seconds + TIMES.look_seconds
    assert not first.is_valid


async def test_a_former_holder_learns_that_it_is_none_any_more() -> None:
    """And gives nothing back that is another's."""
    records = Records()
    first, second = lease_of("first", records), lease_of("second", records)
    await first.ensure()
    await second.take_over()

    with pytest.raises(LeaseHeld):
        await first.keep()
    await first.release()

    assert records["lease"] == "second"


async def test_a_pruned_record_is_made_again() -> None:
    """`docker volume prune` may take it from under its holder."""
    records = Records()
    first = lease_of("first", records)
    await first.ensure()

    async with kept(first):
        records.clear()
        await asyncio.sleep(2 * TIMES.look_seconds)

    assert records == {"lease": "first"}


async def test_a_bid_of_a_dead_one_keeps_nobody_waiting_for_ever() -> None:
    """Holder and bidder both died; the third one takes over all the same."""
    records = Records(lease="dead", bid="of a dead one")

    third = lease_of("third", records)
    await third.take_over()

    assert third.is_valid
    assert now() < 60


async def test_a_holder_that_was_held_up_keeps_its_lease() -> None:
    """Nobody has taken it over meanwhile: it answers the bid late, waits, and goes on."""
    records = Records()
    first = lease_of("first", records)
    await first.ensure()
    await asyncio.sleep(TIMES.valid_seconds + 1)
    records["bid"] = "of somebody"

    await first.ensure()

    assert first.is_valid
    assert records == {"lease": "first"}


async def test_an_engine_that_is_away_leaves_it_open() -> None:
    """Unknown is not held, and not lost."""
    first = Lease(board=FakeBoard(Records(), lambda: (60, 0)), holder="first", clock=now)

    with pytest.raises(EngineUnavailable) as told:
        await first.ensure()

    assert not isinstance(told.value, LeaseHeld)
    assert not first.is_valid


@pytest.mark.parametrize("seed", range(6))
async def test_never_do_two_trust_in_it(seed: int) -> None:
    """Whatever is slow, late, lost or dies; somebody has it all the same."""
    dice = random.Random(seed)
    records = Records()

    def delays() -> tuple[float, float]:
        if dice.random() < 0.85:
            return dice.random() / 10, dice.random() / 10
        return dice.random() * 8, dice.random() * 8

    leases = [
        Lease(board=FakeBoard(records, delays), holder=f"holder {number}", clock=now)
        for number in range(3)
    ]
    lives = [asyncio.create_task(_live(lease, dice)) for lease in leases]
    watching = asyncio.create_task(_count(leases))
    done, _ = await asyncio.wait((watching, *lives), timeout=300, return_when="FIRST_COMPLETED")
    for task in (watching, *lives):
        task.cancel()
    await asyncio.gather(watching, *lives, return_exceptions=True)
    for task in done:
        task.result()


async def _live(lease: Lease, dice: random.Random) -> None:
    """One consumer: stands by, holds, dies now and then, comes back."""
    while True:
        with suppress(LeaseHeld, EngineUnavailable, TimeoutError):
            async with asyncio.timeout(dice.random() * 60):
                try:
                    await lease.ensure()
                except LeaseHeld:
                    await lease.take_over()
                await lease.keep()
        await asyncio.sleep(dice.random() * 12)


async def _count(leases: Sequence[Lease]) -> None:
    has_been_held = False
    while True:
        holders = [lease for lease in leases if lease.is_valid]
        assert len(holders) <= 1
        has_been_held = has_been_held or bool(holders)
        assert has_been_held or now() < 120, "nobody ever had it"
        await asyncio.sleep(_LOOK_SECONDS)
