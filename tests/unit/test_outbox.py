"""The relay: at least once, in order for each tenant, marked only after the broker's confirm."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from consumer.metrics import Metrics
from consumer.model import EventId, OutboxEntry, TenantId
from consumer.outbox import Outbox
from consumer.ports import PassResult
from tests.builders import make_event, make_status
from tests.fakes.broker import FakeBroker, Mode
from tests.fakes.clock import HandClock
from tests.fakes.ledger import Crash, InlineLedger

pytestmark = [pytest.mark.asyncio, pytest.mark.looptime]

ACME, OTHER = TenantId("acme"), TenantId("other")


class Bench:
    """An outbox with all that is around it."""

    def __init__(self, ledger: InlineLedger) -> None:
        self.ledger = ledger
        self.broker = FakeBroker()
        self.metrics = Metrics(version="test")
        self.outbox = self.made_anew()

    def made_anew(self, *, batch_size: int = 500) -> Outbox:
        return Outbox(
            ledger=self.ledger,
            publisher=self.broker,
            metrics=self.metrics,
            clock=HandClock(),
            batch_size=batch_size,
        )

    async def commit(self, tenant_id: TenantId, count: int = 1) -> None:
        """Commit statuses of a tenant, each its own pass."""
        event_id = EventId("only")
        await self.ledger.record([make_event(tenant_id=tenant_id, event_id=event_id)])
        for _ in range(count):
            status = make_status(tenant_id=tenant_id)
            await self.ledger.commit(
                PassResult(tenant_id=tenant_id, revision=1, statuses=(status,), answered=True)
            )
        self.outbox.wake()

    @asynccontextmanager
    async def relaying(self) -> AsyncIterator[None]:
        """Run the outbox for the length of the block."""
        task = asyncio.create_task(self.outbox.run())
        yield
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    def arrived(self, tenant_id: TenantId) -> list[int]:
        """Return the sequences that reached the broker, from 0 on, in order."""
        found = [entry for entry in self.broker.arrived if entry.tenant_id == tenant_id]
        first = min((entry.sequence for entry in found), default=0)
        return [entry.sequence - first for entry in found]

    async def unsent(self) -> list[OutboxEntry]:
        return await self.ledger.unsent(limit=1000)


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    """Set up an outbox on a new ledger."""
    ledger = await InlineLedger.open(f"sqlite:///{tmp_path}/ledger.db", clock=HandClock())
    yield Bench(ledger)
    await ledger.close()


async def test_what_was_committed_is_published_in_order(bench: Bench) -> None:
    """Every entry goes out once, each tenant's by rising sequence, then the outbox is empty."""
    await bench.commit(ACME, 3)
    await bench.commit(OTHER, 2)

    async with bench.relaying():
        await bench.outbox.drain()

    assert bench.arrived(ACME) == [0, 1, 2]
    assert bench.arrived(OTHER) == [0, 1]
    assert await bench.unsent() == []
    labels = {"state": "running"}
    counted = bench.metrics.registry.get_sample_value("landlord_status_events_total", labels)
    assert counted == 5


async def test_batches_follow_one_another_without_waiting(bench: Bench) -> None:
    """More than one batch goes out at once, in no (virtual) time."""
    bench.outbox = bench.made_anew(batch_size=2)
    await bench.commit(ACME, 5)
    began = asyncio.get_running_loop().time()

    async with bench.relaying():
        await bench.outbox.drain()

    assert bench.arrived(ACME) == [0, 1, 2, 3, 4]
    assert asyncio.get_running_loop().time() - began < 0.1


async def test_a_commit_wakes_the_relay(bench: Bench) -> None:
    """A wake is answered at once, not at the next look."""
    async with bench.relaying():
        await asyncio.sleep(1)
        await bench.commit(ACME)
        await asyncio.sleep(0.01)
        arrived = bench.arrived(ACME)

    assert arrived == [0]


async def test_a_lost_wake_is_cured_by_looking(bench: Bench) -> None:
    """What nobody told of goes out at the next look."""
    async with bench.relaying():
        await asyncio.sleep(1)
        await bench.commit(ACME)
        bench.outbox._has_work.clear()
        await asyncio.sleep(6)

    assert bench.arrived(ACME) == [0]


async def test_one_tenants_refused_publish_holds_no_other(bench: Bench) -> None:
    """A tenant whose status is refused waits alone, and in order."""
    bench.broker.refused_tenants = {ACME}
    await bench.commit(ACME, 2)
    await bench.commit(OTHER, 2)

    async with bench.relaying():
        await asyncio.sleep(0.1)
        others, refused = bench.arrived(OTHER), bench.arrived(ACME)
        bench.broker.refused_tenants = set()
        await asyncio.sleep(10)

    assert (others, refused) == ([0, 1], [])
    assert bench.arrived(OTHER) == [0, 1]
    assert bench.arrived(ACME) == [0, 1]


async def test_a_long_refused_tenant_holds_up_no_newcomer(bench: Bench) -> None:
    """However long one tenant has been refused, another's new status waits no longer for it."""
    bench.broker.refused_tenants = {ACME}
    await bench.commit(ACME)

    async with bench.relaying():
        await asyncio.sleep(3600)
        await bench.commit(OTHER)
        await asyncio.sleep(0.25)
        arrived = bench.arrived(OTHER)

    assert arrived == [0]


async def test_a_refused_tenant_with_a_full_batch_holds_no_other(bench: Bench) -> None:
    """A tenant that fills whole batches with what is refused does not keep others from going."""
    bench.outbox = bench.made_anew(batch_size=2)
    bench.broker.refused_tenants = {ACME}
    await bench.commit(ACME, 5)
    await bench.commit(OTHER)

    async with bench.relaying():
        await asyncio.sleep(60)

    assert bench.arrived(OTHER) == [0]


async def test_a_refused_tenant_is_tried_ever_more_seldom(bench: Bench) -> None:
    """A refusal that lasts costs the broker little; once it ends, the first delay holds again."""
    bench.broker.refused_tenants = {ACME}
    await bench.commit(ACME)

    async with bench.relaying():
        await asyncio.sleep(600)
        tries = bench.broker.tries
        bench.broker.refused_tenants = set()
        await asyncio.sleep(5.1)
        bench.broker.refused_tenants, bench.broker.tries = {ACME}, 0
        await bench.commit(ACME)
        await asyncio.sleep(0.3)

    assert 100 < tries < 150
    assert bench.broker.tries == 2


async def test_draining_waits_for_refused_tenants(bench: Bench) -> None:
    """A drain does not end while a tenant is held, though everything else has gone."""
    bench.broker.refused_tenants = {ACME}
    await bench.commit(ACME)
    await bench.commit(OTHER)

    async with bench.relaying():
        draining = asyncio.create_task(bench.outbox.drain())
        await asyncio.sleep(60)
        is_done_early = draining.done()
        bench.broker.refused_tenants = set()
        await draining

    assert not is_done_early
    assert bench.arrived(ACME) == [0]


@pytest.mark.parametrize("mode", [Mode.AWAY, Mode.HANG])
async def test_only_a_confirm_marks_an_entry_sent(bench: Bench, mode: Mode) -> None:
    """While the broker does not confirm, the entry stays; afterwards it goes out, in order."""
    bench.broker.mode = mode
    await bench.commit(ACME, 2)

    async with bench.relaying():
        await asyncio.sleep(60)
        unsent, arrived = await bench.unsent(), bench.arrived(ACME)
        bench.broker.mode = Mode.CONFIRM
        bench.broker.released.set()
        await bench.outbox.drain()

    assert (len(unsent), arrived) == (2, [])
    assert bench.arrived(ACME) == [0, 1]
    assert await bench.unsent() == []


async def test_a_lost_confirm_publishes_again(bench: Bench) -> None:
    """What arrived without a confirm is published again, and the next one does not pass it."""
    bench.broker.mode = Mode.LOSE_CONFIRM
    await bench.commit(ACME, 2)

    async with bench.relaying():
        await asyncio.sleep(0.01)
        bench.broker.mode = Mode.CONFIRM
        await bench.outbox.drain()

    assert bench.arrived(ACME) == [0, 0, 1]


async def test_retries_slow_down_and_recover(bench: Bench) -> None:
    """While the broker is away, tries come ever more seldom; after it, the first delay holds."""
    bench.broker.mode = Mode.AWAY
    await bench.commit(ACME)

    async with bench.relaying():
        await asyncio.sleep(600)
        tries = bench.broker.tries
        bench.broker.mode = Mode.CONFIRM
        await asyncio.sleep(5.1)
        bench.broker.mode, bench.broker.tries = Mode.AWAY, 0
        await bench.commit(ACME)
        await asyncio.sleep(0.3)

    assert 100 < tries < 150
    assert bench.broker.tries == 2


async def test_a_crash_between_confirm_and_mark_publishes_again(bench: Bench) -> None:
    """What was confirmed but not marked is published once more by the next process."""
    await bench.commit(ACME, 2)
    bench.ledger.fail_at(1, Crash(), takes_effect=False)
    async with bench.relaying():
        await asyncio.sleep(1)
    await bench.ledger.revive()

    bench.outbox = bench.made_anew()
    async with bench.relaying():
        await bench.outbox.drain()

    assert bench.arrived(ACME) == [0, 1, 0, 1]
    assert await bench.unsent() == []


async def test_what_was_confirmed_before_a_cancel_is_marked(bench: Bench) -> None:
    """A shutdown in the middle loses no confirm."""
    await bench.commit(ACME)
    await bench.commit(OTHER)
    async with bench.relaying():
        await bench.outbox.drain()
        bench.broker.mode = Mode.HANG
        await bench.commit(ACME)
        await asyncio.sleep(1)

    assert [entry.tenant_id for entry in await bench.unsent()] == [ACME]


async def test_the_relay_outlives_a_ledger_that_is_down(bench: Bench) -> None:
    """While the ledger cannot be read nothing is lost, and the relay goes on afterwards."""
    await bench.commit(ACME)
    bench.ledger.is_down = True

    async with bench.relaying():
        await asyncio.sleep(60)
        arrived = bench.arrived(ACME)
        bench.ledger.is_down = False
        await bench.outbox.drain()

    assert arrived == []
    assert bench.arrived(ACME) == [0]


async def test_draining_waits_for_what_is_committed(bench: Bench) -> None:
    """A drain ends only when the broker has confirmed everything."""
    bench.broker.mode = Mode.AWAY
    await bench.commit(ACME)

    async with bench.relaying():
        draining = asyncio.create_task(bench.outbox.drain())
        await asyncio.sleep(60)
        is_done_early = draining.done()
        bench.broker.mode = Mode.CONFIRM
        await draining

    assert not is_done_early
    assert await bench.unsent() == []


async def test_a_commit_during_the_drain_is_drained_too(bench: Bench) -> None:
    """What is committed while the relay is busy does not slip behind the drain."""
    bench.broker.mode = Mode.HANG
    await bench.commit(ACME)

    async with bench.relaying():
        await asyncio.sleep(1)
        draining = asyncio.create_task(bench.outbox.drain())
        await bench.commit(OTHER)
        bench.broker.mode = Mode.CONFIRM
        bench.broker.released.set()
        await draining

    assert bench.arrived(OTHER) == [0]
    assert await bench.unsent() == []


async def test_a_slow_confirm_holds_up_no_other(bench: Bench) -> None:
    """Whoever is committed while one tenant waits for its confirm goes at once, again and again."""
    bench.broker.slow_tenants = {ACME: 9.0}
    await bench.commit(ACME, 2)

    async with bench.relaying():
        arrived = []
        for _ in range(3):
            await asyncio.sleep(1)
            await bench.commit(OTHER)
            await asyncio.sleep(0.01)
            arrived.append(len(bench.arrived(OTHER)))
        unsent = {entry.tenant_id for entry in await bench.unsent()}
        await asyncio.sleep(30)

    assert arrived == [1, 2, 3]
    assert unsent == {ACME}, "what was confirmed is marked meanwhile"
    assert bench.arrived(ACME) == [0, 1]


async def test_a_confirm_that_never_comes_holds_its_tenant_alone(bench: Bench) -> None:
    """The deadline of one is no sign that the broker is away while others are confirmed."""
    bench.broker.slow_tenants = {ACME: 3600.0}
    await bench.commit(ACME)

    async with bench.relaying():
        waits = []
        for _ in range(60):
            await bench.commit(OTHER)
            began, count = asyncio.get_running_loop().time(), len(bench.arrived(OTHER))
            while len(bench.arrived(OTHER)) == count:  # noqa: ASYNC110 - a fake has no event
                await asyncio.sleep(0.01)
            waits.append(asyncio.get_running_loop().time() - began)
            await asyncio.sleep(0.7)

    assert max(waits) < 0.05
    assert bench.arrived(ACME) == []


async def test_a_tenant_with_much_to_tell_holds_up_no_other(bench: Bench) -> None:
    """Its entries go a few at a time, in order, each once."""
    bench.broker.slow_tenants = {ACME: 0.1}
    await bench.commit(ACME, 30)

    async with bench.relaying():
        await asyncio.sleep(0.5)
        await bench.commit(OTHER)
        await asyncio.sleep(0.01)
        others = bench.arrived(OTHER)
        await asyncio.sleep(10)

    assert others == [0]
    assert bench.arrived(ACME) == list(range(30))


async def test_a_broker_that_is_away_is_tried_by_one_at_a_time(bench: Bench) -> None:
    """However many have something to tell."""
    bench.broker.mode = Mode.AWAY
    for number in range(20):
        await bench.commit(TenantId(f"t{number}"))

    async with bench.relaying():
        await asyncio.sleep(60)
        tries = bench.broker.tries
        bench.broker.mode = Mode.CONFIRM
        await bench.outbox.drain()

    assert tries < 20 + 20
    assert len(bench.broker.arrived) == 20
    assert repr(bench.outbox) == "<Outbox under_way=0 held=0 away=False>"


async def test_what_is_confirmed_is_marked_once_the_ledger_is_there(bench: Bench) -> None:
    """A ledger that is down at that moment costs no second publish."""
    bench.broker.slow_tenants = {ACME: 1.0}
    await bench.commit(ACME)

    async with bench.relaying():
        await asyncio.sleep(0.5)
        bench.ledger.is_down = True
        await asyncio.sleep(30)
        bench.ledger.is_down = False
        await bench.outbox.drain()

    assert bench.arrived(ACME) == [0]
    assert await bench.unsent() == []
