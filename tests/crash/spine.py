"""The consumer's spine as `app` joins it, in virtual time, on fakes that outlive it.

A `World` is what a crash leaves: ledger, engine, broker. Each `live` is one process on it, from the
start until nothing is left to be done or until it dies of a crash; nothing in memory outlives it.
"""

import asyncio
import json
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine
from datetime import datetime, timedelta
from functools import partial

from consumer.dead_letters import DeadLetters
from consumer.decoding import Decoder
from consumer.dispatcher import Dispatcher
from consumer.document import SpecDefaults
from consumer.errors import LedgerError
from consumer.intake import Intake
from consumer.messages import Delivery, decode_tenant_event
from consumer.metrics import Metrics
from consumer.model import (
    Container,
    ContainerStatus,
    Desired,
    Reason,
    Role,
    Standing,
    State,
    Tenant,
    TenantId,
)
from consumer.outbox import Outbox
from consumer.reconciler import Backoff, Reconciler
from consumer.watcher import Watcher
from tests.builders import MOMENT, TENANT_ID
from tests.fakes.broker import FakeBroker
from tests.fakes.clock import LoopClock
from tests.fakes.engine import FakeEngine, Interruption
from tests.fakes.ledger import Crash, InlineLedger

_STEP_SECONDS = 0.5
_MOST_STEPS = 240
_STATES = {
    Desired.RUNNING: State.RUNNING,
    Desired.STOPPED: State.STOPPED,
    Desired.DELETED: State.STOPPED,
}


Cut = Callable[["World", int], None]
"""Arranges that the n-th call of a world to its engine, or write to its ledger, goes wrong."""


def _engine_cut(interruption: Interruption, *, takes_effect: bool) -> Cut:
    return lambda world, nth: world.engine.interrupt_at(
        nth, interruption, takes_effect=takes_effect
    )


def _ledger_cut(error: type[Exception], *, takes_effect: bool) -> Cut:
    return lambda world, nth: world.ledger.fail_at(nth, error(), takes_effect=takes_effect)


CUTS = {
    "crash before engine": _engine_cut(Interruption.CRASH, takes_effect=False),
    "crash after engine": _engine_cut(Interruption.CRASH, takes_effect=True),
    "engine away": _engine_cut(Interruption.UNAVAILABLE, takes_effect=False),
    "answer lost": _engine_cut(Interruption.UNAVAILABLE, takes_effect=True),
    "engine refuses": _engine_cut(Interruption.REFUSED, takes_effect=False),
    "crash before commit": _ledger_cut(Crash, takes_effect=False),
    "crash after commit": _ledger_cut(Crash, takes_effect=True),
    "ledger fails": _ledger_cut(LedgerError, takes_effect=False),
}


def loop_now() -> datetime:
    """Return the loop's (virtual) time as a date."""
    return MOMENT + timedelta(seconds=asyncio.get_running_loop().time())


class World:
    """What outlives the process."""

    def __init__(self, ledger: InlineLedger) -> None:
        self.ledger = ledger
        self.engine = FakeEngine(now=loop_now)
        self.broker = FakeBroker()
        self.metrics = Metrics(version="test")
        self.to_come: deque[tuple[Delivery, int]] = deque()
        """What will be delivered, each with the pause after it: see `_pause`."""

    async def live(self, *deliveries: Delivery) -> bool:
        """Take these in and live until all is quiet; return False when the process died of it."""
        self.broker.reconnect()
        self.broker.deliver(*deliveries)
        dispatcher, parts = self._spine()
        parts.append(self._deliver_what_is_to_come())
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(part) for part in parts]
            has_lived = await self._be_quiet(dispatcher)
            for task in tasks:
                task.cancel()
        if not has_lived:
            self.engine.revive()
            await self.ledger.revive()
        return has_lived

    async def _deliver_what_is_to_come(self) -> None:
        while self.to_come:
            delivery, pause = self.to_come.popleft()
            self.broker.deliver(delivery)
            await _pause(pause)

    def _spine(self) -> tuple[Dispatcher, list[Coroutine[object, object, None]]]:
        ledger, engine, broker, metrics = self.ledger, self.engine, self.broker, self.metrics
        clock = LoopClock()
        outbox = Outbox(ledger=ledger, publisher=broker, metrics=metrics, clock=clock)
        reconciler = Reconciler(
            ledger=ledger,
            engine=engine,
            metrics=metrics,
            clock=clock,
            on_commit=outbox.wake,
            backoff=Backoff(jitter=lambda: 0.5),
        )
        dispatcher = Dispatcher(reconcile=reconciler.reconcile)
        dead_letters = DeadLetters(deliveries=broker, publisher=broker, metrics=metrics)
        intake = Intake(
            deliveries=broker,
            dead_letter=dead_letters.take,
            ledger=ledger,
            decode=Decoder(partial(decode_tenant_event, defaults=SpecDefaults())).decode,
            wake=dispatcher.wake,
            on_commit=outbox.wake,
            metrics=metrics,
        )
        watcher = Watcher(
            engine=engine,
            ledger=ledger,
            wake=dispatcher.wake,
            has_seen=reconciler.has_seen,
            metrics=metrics,
            clock=clock,
            on_facts=lambda _: None,
        )
        lasting = [dead_letters.run(), dispatcher.run(), outbox.run(), watcher.run()]
        return dispatcher, [intake.run(), *lasting]

    async def _be_quiet(self, dispatcher: Dispatcher) -> bool:
        for _ in range(_MOST_STEPS):
            await asyncio.sleep(_STEP_SECONDS)
            if self.engine.has_crashed or self.ledger.has_crashed:
                return False
            if not dispatcher._slots and await self._is_quiet():
                return True
        raise AssertionError(f"no rest: {dispatcher!r}, {await self.ledger.list_for_resync()}")

    async def _is_quiet(self) -> bool:
        depth, _ = await self.ledger.outbox_depth()
        standings = await self.ledger.list_for_resync()
        is_settled = all(each.is_answered and not _is_to_be_retried(each) for each in standings)
        return is_settled and depth == 0 and not self.broker.has_deliveries and not self.to_come

    async def relived(self) -> AsyncIterator["World"]:
        """Return to this moment again and again, each time as a world that goes on from it."""
        saved, engine, arrived = self.ledger.saved(), self.engine, self.broker.arrived
        while True:
            await self.ledger.revive()
            self.ledger.restore(saved)
            self.engine, self.broker = engine.saved(), FakeBroker()
            self.broker.arrived = list(arrived)
            yield self

    # --- what a test looks at

    async def tenant(self, tenant_id: TenantId = TENANT_ID) -> Tenant:
        """Return what the ledger knows of the tenant, which has to be there."""
        tenant = await self.ledger.read(tenant_id)
        assert tenant is not None
        return tenant

    def told(self, tenant_id: TenantId = TENANT_ID) -> list[dict[str, object]]:
        """Return the tenant's status events as they first arrived at the broker, in that order."""
        arrived = {
            entry.sequence: entry.body
            for entry in self.broker.arrived
            if entry.tenant_id == tenant_id
        }
        return [json.loads(body) for body in arrived.values()]

    @property
    def has_been_cut(self) -> bool:
        """Whether what was arranged to go wrong has gone wrong."""
        return self.engine.has_interrupted and self.ledger.has_failed

    async def check(self, event_id: str | None, tenant_id: TenantId = TENANT_ID) -> None:
        """Assert that the newest intention holds, whole and alone, and that all of it was told."""
        tenant = await self.tenant(tenant_id)
        _check_containers(tenant, self.engine.containers(tenant_id))
        self._check_told(tenant, event_id)
        assert tenant.status is not None
        assert tenant.status.state is _STATES[tenant.desired]

    async def check_rolled_back(self, former: Container, event_id: str | None) -> None:
        """Assert that the former container runs, alone, and that this was the last word."""
        tenant = await self.tenant(former.tenant_id)
        (container,) = self.engine.containers(former.tenant_id)
        assert (container.container_id, container.role) == (former.container_id, Role.CURRENT)
        assert container.status is ContainerStatus.RUNNING
        self._check_told(tenant, event_id)
        assert tenant.status is not None
        assert tenant.status.reason is Reason.ROLLED_BACK

    def _check_told(self, tenant: Tenant, event_id: str | None) -> None:
        assert self.engine.most_alive <= 1
        told = self.told(tenant.tenant_id)
        sequences = [status["sequence"] for status in told]
        assert sequences == list(range(tenant.sequence - len(told) + 1, tenant.sequence + 1))
        assert event_id in [status["event_id"] for status in told]
        assert "missing" not in [status["reason"] for status in told]


def _is_to_be_retried(standing: Standing) -> bool:
    setback = standing.setback
    return setback is not None and setback.next_attempt_at is not None


async def _pause(length: int) -> None:
    """Let so many turns of the loop go by, so that it ends within a pass; from 30 on, seconds."""
    for _ in range(length):
        await asyncio.sleep(0 if length < 30 else 0.1)


def _check_containers(tenant: Tenant, containers: tuple[Container, ...]) -> None:
    assert all(container.role is Role.CURRENT for container in containers)
    seen = [(container.status, container.fingerprint) for container in containers]
    match tenant.desired:
        case Desired.RUNNING:
            assert seen == [(ContainerStatus.RUNNING, tenant.fingerprint)]
        case Desired.STOPPED:
            # None when it never ran; a newer spec waits for the resumption.
            assert [status for status, _ in seen] in ([], [ContainerStatus.EXITED])
        case Desired.DELETED:
            assert seen == []
