"""The dispatcher: one pass at a time for each tenant, many tenants side by side."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from consumer.dispatcher import Dispatcher
from consumer.errors import LedgerError
from consumer.model import TenantId

pytestmark = [pytest.mark.asyncio, pytest.mark.looptime]

ACME = TenantId("acme")
OTHER = TenantId("other")


class Passes:
    """A reconcile that takes time and keeps a record of what overlapped."""

    def __init__(self, seconds: float = 1.0) -> None:
        self.seconds = seconds
        self.begun: list[TenantId] = []
        self.ended: list[TenantId] = []
        self.cancelled: list[TenantId] = []
        self.running: set[TenantId] = set()
        self.most_at_once = 0
        self.due_after: dict[TenantId, float] = {}
        self.fail: Callable[[TenantId], None] = lambda _: None

    async def reconcile(self, tenant_id: TenantId) -> float | None:
        assert tenant_id not in self.running
        self.begun.append(tenant_id)
        self.running.add(tenant_id)
        self.most_at_once = max(self.most_at_once, len(self.running))
        try:
            await asyncio.sleep(self.seconds)
            self.fail(tenant_id)
        except asyncio.CancelledError:
            self.cancelled.append(tenant_id)
            raise
        finally:
            self.running.discard(tenant_id)
        self.ended.append(tenant_id)
        return self.due_after.pop(tenant_id, None)


@asynccontextmanager
async def dispatching(passes: Passes, *, limit: int = 100) -> AsyncIterator[Dispatcher]:
    """Run a dispatcher for the length of the block."""
    dispatcher = Dispatcher(reconcile=passes.reconcile, passes=limit)
    task = asyncio.create_task(dispatcher.run())
    yield dispatcher
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_wakes_during_a_pass_make_one_more() -> None:
    """Ten wakes while a pass runs make one more pass, not ten, and never two at a time."""
    passes = Passes()
    async with dispatching(passes) as dispatcher:
        dispatcher.wake(ACME)
        await asyncio.sleep(0.5)
        for _ in range(10):
            dispatcher.wake(ACME)
        await dispatcher.drain()

    assert passes.ended == [ACME, ACME]


async def test_a_wake_for_what_the_pass_has_seen_makes_none_more() -> None:
    """Asked once the pass is over: what it sees last is not known before."""
    passes = Passes()
    seen: list[str] = []
    async with dispatching(passes) as dispatcher:
        dispatcher.wake(ACME)
        await asyncio.sleep(0.5)
        dispatcher.wake(ACME, unless=lambda: "start" in seen)
        seen.append("start")
        await dispatcher.drain()
        dispatcher.wake(ACME, unless=lambda: "start" in seen)
        await dispatcher.drain()

    assert passes.ended == [ACME]
    assert not dispatcher._slots


async def test_a_wake_for_what_the_pass_has_not_seen_makes_one_more() -> None:
    """One of them is enough, whatever the others say."""
    passes = Passes()
    async with dispatching(passes) as dispatcher:
        dispatcher.wake(ACME)
        await asyncio.sleep(0.5)
        dispatcher.wake(ACME, unless=lambda: True)
        dispatcher.wake(ACME, unless=lambda: False)
        dispatcher.wake(ACME, unless=lambda: True)
        await dispatcher.drain()
        dispatcher.wake(ACME, unless=lambda: False)
        await dispatcher.drain()

    assert passes.ended == [ACME, ACME, ACME]


async def test_no_number_of_wakes_with_a_doubt_is_kept() -> None:
    """Where very much happens during a pass there is one more, and little is remembered."""
    passes = Passes()
    async with dispatching(passes) as dispatcher:
        dispatcher.wake(ACME)
        await asyncio.sleep(0.5)
        for _ in range(10_000):
            dispatcher.wake(ACME, unless=lambda: True)
        kept = len(dispatcher._slots[ACME].doubts)
        await dispatcher.drain()

    assert kept < 100
    assert passes.ended == [ACME, ACME]


async def test_a_wake_for_what_was_seen_leaves_a_later_turn_where_it_is() -> None:
    passes = Passes(seconds=0)
    passes.due_after[ACME] = 10
    async with dispatching(passes) as dispatcher:
        dispatcher.wake(ACME)
        await asyncio.sleep(5)
        dispatcher.wake(ACME, unless=lambda: True)
        await asyncio.sleep(1)
        early = list(passes.ended)
        await asyncio.sleep(5)

    assert early == [ACME]
    assert passes.ended == [ACME, ACME]


async def test_tenants_go_side_by_side_up_to_the_limit() -> None:
    """Tenants are reconciled in parallel, never more than the limit, all in the end."""
    passes = Passes()
    async with dispatching(passes, limit=4) as dispatcher:
        for number in range(10):
            dispatcher.wake(TenantId(f"t{number}"))
        await dispatcher.drain()

    assert passes.most_at_once == 4
    assert sorted(passes.ended) == sorted(f"t{number}" for number in range(10))


async def test_a_wake_that_overtakes_cancels_the_running_pass() -> None:
    """A newer intention does not wait behind a pass that takes ten minutes."""
    passes = Passes(seconds=600)
    async with dispatching(passes) as dispatcher:
        dispatcher.wake(ACME)
        await asyncio.sleep(1)
        passes.seconds = 1
        began = asyncio.get_running_loop().time()
        dispatcher.wake(ACME, overtake=True)
        await dispatcher.drain()
        took = asyncio.get_running_loop().time() - began

    assert passes.cancelled == [ACME]
    assert passes.ended == [ACME]
    assert took == pytest.approx(1, abs=0.1)


async def test_a_tenant_comes_back_when_it_asked_to() -> None:
    """The time a pass returns is when the next one begins."""
    passes = Passes(seconds=0)
    passes.due_after[ACME] = 30
    async with dispatching(passes) as dispatcher:
        dispatcher.wake(ACME)
        await asyncio.sleep(29)
        begun_before = len(passes.begun)
        await asyncio.sleep(2)

    assert (begun_before, len(passes.begun)) == (1, 2)


async def test_a_wake_comes_before_a_later_turn_and_replaces_it() -> None:
    """A backoff never delays a wake, and its own turn does not come twice."""
    passes = Passes(seconds=0)
    passes.due_after[ACME] = 30
    async with dispatching(passes) as dispatcher:
        dispatcher.wake(ACME)
        await asyncio.sleep(1)
        dispatcher.wake(ACME)
        await asyncio.sleep(100)

    assert len(passes.begun) == 2


@pytest.mark.parametrize(
    "error",
    [
        LedgerError("disk full"),
        ValueError("a bug"),
        pytest.param(asyncio.CancelledError(), id="a cancel that nobody asked for"),
    ],
)
async def test_a_failed_pass_is_tried_again_and_stays_its_tenants_own(
    error: BaseException,
) -> None:
    """A pass that raises, whatever it is, comes back later; other tenants do not notice."""
    passes = Passes(seconds=0)
    failures = iter([error, error])

    def fail(tenant_id: TenantId) -> None:
        if tenant_id == ACME and (failure := next(failures, None)) is not None:
            raise failure

    passes.fail = fail
    async with dispatching(passes) as dispatcher:
        dispatcher.wake(ACME)
        dispatcher.wake(TenantId("other"))
        await asyncio.sleep(10)

    assert passes.begun.count(ACME) == 3
    assert sorted(passes.ended) == [ACME, "other"]


async def test_a_tenant_at_rest_is_forgotten() -> None:
    """Nothing is kept of tenants that have no turn to come."""
    passes = Passes()
    async with dispatching(passes) as dispatcher:
        dispatcher.wake(ACME)
        during = repr(dispatcher)
        await dispatcher.drain()
        kept = dict(dispatcher._slots)

    assert during == "<Dispatcher due=1 running=0 waiting=0 later=0>"
    assert kept == {}


async def test_a_stop_begins_no_pass_for_who_was_woken_meanwhile() -> None:
    """Stopping ends quietly, also while a tenant was woken during its pass or waits for a turn."""
    passes = Passes(seconds=600)
    async with dispatching(passes, limit=1) as dispatcher:
        dispatcher.wake(ACME)
        await asyncio.sleep(1)
        dispatcher.wake(ACME)
        dispatcher.wake(TenantId("other"))

    assert passes.begun == [ACME]
    assert passes.cancelled == [ACME]


async def test_waking_before_the_start_is_kept() -> None:
    """Who was woken before the dispatcher runs has its turn once it does, and only one."""
    passes = Passes()
    dispatcher = Dispatcher(reconcile=passes.reconcile)
    dispatcher.wake(ACME)
    dispatcher.wake(ACME)
    task = asyncio.create_task(dispatcher.run())

    await dispatcher.drain()
    task.cancel()

    assert passes.ended == [ACME]
    assert task.cancelling()


async def test_a_stop_forgets_later_turns() -> None:
    """No turn comes after the end."""
    passes = Passes(seconds=0)
    passes.due_after[ACME] = 30
    async with dispatching(passes) as dispatcher:
        dispatcher.wake(ACME)
        await asyncio.sleep(1)

    await asyncio.sleep(60)

    assert passes.begun == [ACME]


async def test_overtaking_twice_cancels_one_pass() -> None:
    """Several newer intentions during one pass make one more pass, on the newest."""
    passes = Passes(seconds=600)
    async with dispatching(passes) as dispatcher:
        dispatcher.wake(ACME)
        await asyncio.sleep(1)
        passes.seconds = 1
        dispatcher.wake(ACME, overtake=True)
        dispatcher.wake(ACME, overtake=True)
        await dispatcher.drain()

    assert passes.cancelled == [ACME]
    assert passes.ended == [ACME]


async def test_overtaking_a_pass_that_has_not_begun_loses_no_turn() -> None:
    """Two intentions in one breath make one pass, which sees both, and the tenant goes on."""
    passes = Passes()
    async with dispatching(passes) as dispatcher:
        await asyncio.sleep(1)
        dispatcher.wake(ACME)
        dispatcher.wake(ACME, overtake=True)
        await asyncio.sleep(10)
        ended_first = list(passes.ended)
        dispatcher.wake(ACME)
        await dispatcher.drain()

    assert ended_first == [ACME]
    assert passes.ended == [ACME, ACME]


async def test_a_pass_that_waits_for_its_own_tenant_takes_no_turn_from_others() -> None:
    """Others run in its place, and a drain waits for it all the same."""
    ended: list[TenantId] = []

    async def reconcile(tenant_id: TenantId) -> None:
        if tenant_id != OTHER:
            with dispatcher.waiting():
                await asyncio.sleep(3600)
        ended.append(tenant_id)

    dispatcher = Dispatcher(reconcile=reconcile, passes=2)
    task = asyncio.create_task(dispatcher.run())
    for number in range(5):
        dispatcher.wake(TenantId(f"slow-{number}"))
    dispatcher.wake(OTHER)
    await asyncio.sleep(1)
    ended_soon, told = list(ended), repr(dispatcher)
    await dispatcher.drain()
    task.cancel()
    await asyncio.wait((task,))

    assert ended_soon == [OTHER]
    assert told == "<Dispatcher due=0 running=0 waiting=5 later=0>"
    assert len(ended) == 6


async def test_after_waiting_the_bound_holds_again() -> None:
    """Those that come back from their waits are counted like all others."""
    running = most = 0

    async def reconcile(tenant_id: TenantId) -> None:
        nonlocal running, most
        if tenant_id == ACME:
            with dispatcher.waiting():
                await asyncio.sleep(10)
        running += 1
        most = max(most, running)
        await asyncio.sleep(20)
        running -= 1

    dispatcher = Dispatcher(reconcile=reconcile, passes=1)
    task = asyncio.create_task(dispatcher.run())
    for tenant_id in (ACME, OTHER, TenantId("third"), TenantId("fourth")):
        dispatcher.wake(tenant_id)
    await dispatcher.drain()
    task.cancel()
    await asyncio.wait((task,))

    assert most == 2
