"""Which tenants are due: one pass at a time for each, many tenants side by side.

Holds names, never facts: waking a tenant twice is free, and a lost wake is cured by the next
resync. A tenant woken during its pass gets one more afterwards, however often it was woken. A wake
that overtakes cancels the running pass, so that a delete never waits behind a pull. A pass that
only waits for its own tenant holds up no other. Before it come
intake and watcher with their wakes; it calls the reconcile it was given. A wake with a doubt
(`unless`) is dropped where nothing is left to be seen: most engine events tell of what a pass did.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

import structlog
from typing_extensions import override

from consumer.errors import ConsumerError
from consumer.faults import trace_of, was_cancelled
from consumer.model import TenantId

_log: Final = structlog.get_logger(__name__)

_MOST_DOUBTS: Final = 32
"""Of one pass: where more is asked, looking once more costs less than remembering it all."""

Reconcile = Callable[[TenantId], Awaitable[float | None]]
"""Makes a pass; returns in how many seconds the next is due, None when a wake will tell."""


@dataclass(slots=True)
class _Slot:
    """A tenant that is queued, in a pass, or due later; dropped when it is none of these."""

    task: asyncio.Task[None] | None = None
    timer: asyncio.TimerHandle | None = None
    is_queued: bool = False
    has_begun: bool = False
    """Whether the pass has looked at anything; until then it will see all that is new."""
    is_woken: bool = False
    doubts: list[Callable[[], bool]] = field(default_factory=list)
    """Of the wakes during the pass that come to nothing if it has seen what they are about."""
    is_overtaken: bool = False
    failures: int = 0


class Dispatcher:
    """Gives turns to tenants."""

    def __init__(
        self,
        *,
        reconcile: Reconcile,
        passes: int = 1024,
        failure_delay_seconds: float = 1.0,
        most_delay_seconds: float = 60.0,
    ) -> None:
        self._reconcile = reconcile
        self._passes = passes
        self._failure_delay_seconds = failure_delay_seconds
        self._most_delay_seconds = most_delay_seconds
        self._slots: dict[TenantId, _Slot] = {}
        self._queue: deque[TenantId] = deque()
        self._group: asyncio.TaskGroup | None = None
        self._running = 0
        self._waiting = 0
        self._is_idle = asyncio.Event()
        self._is_idle.set()

    @override
    def __repr__(self) -> str:
        later = sum(1 for slot in self._slots.values() if slot.timer is not None)
        return (
            f"<Dispatcher due={len(self._queue)} running={self._running} "
            f"waiting={self._waiting} later={later}>"
        )

    def wake(
        self,
        tenant_id: TenantId,
        *,
        overtake: bool = False,
        unless: Callable[[], bool] | None = None,
    ) -> None:
        """Give the tenant a pass soon. `overtake` cancels the one that is running.

        `unless` says whether the last pass has seen all there is to see; it is asked once no pass
        is running.
        """
        slot = self._slots.setdefault(tenant_id, _Slot())
        if slot.task is not None:
            if slot.has_begun:
                self._wake_again(slot, slot.task, overtake=overtake, unless=unless)
            return
        if unless is not None and unless():
            self._forget_if_idle(tenant_id, slot)
            return
        self._cancel_timer(slot)
        if not slot.is_queued:
            slot.is_queued = True
            self._queue.append(tenant_id)
            self._is_idle.clear()
        self._fill()

    @staticmethod
    def _wake_again(
        slot: _Slot,
        task: asyncio.Task[None],
        *,
        overtake: bool,
        unless: Callable[[], bool] | None,
    ) -> None:
        if unless is not None and len(slot.doubts) < _MOST_DOUBTS and not slot.is_woken:
            slot.doubts.append(unless)
            return
        slot.is_woken = True
        slot.doubts.clear()
        if overtake and not slot.is_overtaken:
            slot.is_overtaken = True
            task.cancel()

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """For the length of the block, have another tenant's pass run in the place of this one.

        Entered by a pass that only waits for its own tenant, for a grace period or a registry: it
        takes nothing that others need, least of all their turns.
        """
        self._running -= 1
        self._waiting += 1
        self._fill()
        try:
            yield
        finally:
            # Beyond the bound for a moment, perhaps; the next turns are given once it is kept.
            self._waiting -= 1
            self._running += 1

    async def run(self) -> None:
        """Run passes until cancelled; cancelling drops the passes that run."""
        async with asyncio.TaskGroup() as group:
            self._group = group
            self._fill()
            try:
                await asyncio.get_running_loop().create_future()
            finally:
                # Before the passes are cancelled: none may begin at the end of another.
                self._group = None
                for slot in self._slots.values():
                    self._cancel_timer(slot)

    async def drain(self) -> None:
        """Return when no pass is running or due at once. Later turns are left to the next start."""
        await self._is_idle.wait()

    def _fill(self) -> None:
        # No await between the check and the change: one task for each tenant, at most `passes`.
        while self._group is not None and self._queue and self._running < self._passes:
            tenant_id = self._queue.popleft()
            slot = self._slots[tenant_id]
            slot.is_queued = False
            self._running += 1
            slot.task = self._group.create_task(
                self._take_turn(tenant_id, slot), name=f"pass {tenant_id}"
            )

    async def _take_turn(self, tenant_id: TenantId, slot: _Slot) -> None:
        due_in: float | None = None
        slot.has_begun = True
        try:
            due_in = await self._pass(tenant_id, slot)
        except asyncio.CancelledError:
            if not slot.is_overtaken:
                raise
        finally:
            self._end_turn(tenant_id, slot, due_in)

    async def _pass(self, tenant_id: TenantId, slot: _Slot) -> float | None:
        structlog.contextvars.bind_contextvars(tenant_id=tenant_id)
        try:
            due_in = await self._reconcile(tenant_id)
        except ConsumerError as error:
            _log.warning("pass failed", error=str(error))
        except Exception as fault:  # noqa: BLE001 - one tenant's trouble stays its own
            # It was not even possible to tell the tenant.
            _log.error("fault of ours", part="pass", error=trace_of(fault))
        except asyncio.CancelledError as error:
            if was_cancelled():
                raise
            _log.error("fault of ours", part="pass", error=trace_of(error))
        else:
            slot.failures = 0
            return due_in
        slot.failures += 1
        delay = self._failure_delay_seconds * 2.0 ** min(slot.failures - 1, 16)
        self._come_back(tenant_id, slot, min(delay, self._most_delay_seconds))
        return None

    def _end_turn(self, tenant_id: TenantId, slot: _Slot, due_in: float | None) -> None:
        slot.task = None
        slot.has_begun = False
        slot.is_overtaken = False
        self._running -= 1
        doubts, slot.doubts = slot.doubts, []
        if slot.is_woken or not all(unless() for unless in doubts):
            slot.is_woken = False
            self.wake(tenant_id)
        elif due_in is not None:
            self._come_back(tenant_id, slot, due_in)
        else:
            self._forget_if_idle(tenant_id, slot)
        self._fill()
        if not self._queue and self._running == self._waiting == 0:
            self._is_idle.set()

    def _forget_if_idle(self, tenant_id: TenantId, slot: _Slot) -> None:
        if slot.timer is None and not slot.is_queued:
            del self._slots[tenant_id]

    def _come_back(self, tenant_id: TenantId, slot: _Slot, delay_seconds: float) -> None:
        loop = asyncio.get_running_loop()
        slot.timer = loop.call_later(max(0.0, delay_seconds), self.wake, tenant_id)

    @staticmethod
    def _cancel_timer(slot: _Slot) -> None:
        if slot.timer is not None:
            slot.timer.cancel()
            slot.timer = None
