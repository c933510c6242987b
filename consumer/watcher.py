"""What wakes tenants besides tenant events: the start, engine events, the resync.

Engine events are reasons to look, never facts. After every (re)connection the subscription comes
first, then the list, so that nothing in between is missed. Losing the engine is unknown, never
"stopped": it wakes nobody. The list also shows containers that we made of tenants that the ledger
does not know: orphans, adopted or removed after a grace, as set. What only looks like ours is left
alone; what another ledger's consumer made is taken over when somebody asks for it. Removing and
tidying goes on beside the watching: one that hangs keeps nobody's events waiting.
"""

import asyncio
import random
from collections import defaultdict
from collections.abc import Callable, Collection, Coroutine, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from functools import partial
from typing import Final, Protocol, assert_never

import structlog

from consumer.belonging import (
    CURE_OF_LOST_LEDGER,
    is_left_by_another,
    is_orphan,
    ours_among,
)
from consumer.clock import Clock
from consumer.errors import ConsumerError, EngineError
from consumer.faults import for_ever
from consumer.metrics import Metrics
from consumer.model import ContainerId, EngineEvent, EngineFacts, Sighting, TenantId
from consumer.plan import deserves_look
from consumer.ports import Engine, Ledger

_log: Final = structlog.get_logger(__name__)

_MOST_NAMED: Final = 5
"""Of the tenants whose containers are left alone, in one line of the log."""


class Wake(Protocol):
    """Gives a tenant a pass soon, unless the last one has seen what this is about."""

    def __call__(
        self, tenant_id: TenantId, *, unless: Callable[[], bool] | None = None
    ) -> None: ...


class OrphanRule(StrEnum):
    """What becomes of containers that this ledger's consumer made, of tenants it does not know."""

    ADOPT = "adopt"
    REMOVE = "remove"
    IGNORE = "ignore"


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchTimes:
    """Seconds between resyncs, before an orphan is removed, between tries to reach the engine."""

    resync_seconds: float = 60.0
    orphan_grace_seconds: float = 300.0
    retry_seconds: float = 0.5
    most_retry_seconds: float = 5.0


class Watcher:
    """Watches the engine."""

    def __init__(  # noqa: PLR0913 - the outside is a constructor argument
        self,
        *,
        engine: Engine,
        ledger: Ledger,
        wake: Wake,
        has_seen: Callable[[EngineEvent], bool],
        metrics: Metrics,
        clock: Clock,
        on_facts: Callable[[EngineFacts], None],
        orphans: OrphanRule = OrphanRule.ADOPT,
        times: WatchTimes | None = None,
    ) -> None:
        self._engine = engine
        self._ledger = ledger
        self._wake = wake
        self._has_seen = has_seen
        self._metrics = metrics
        self._clock = clock
        self._on_facts = on_facts
        self._orphans = orphans
        self._times = times or WatchTimes()
        self._trouble: str | None = "the engine has not been asked yet"
        self._resynced_at: datetime | None = None
        self._strangers: frozenset[ContainerId] = frozenset()
        """With our labels, and not ours, as far as they have been told of."""
        self._orphaned: dict[ContainerId, float] = {}
        """Orphans that wait for their removal, and since when we know of them: the engine's word of
        their age is of another clock."""
        self._group: asyncio.TaskGroup | None = None
        self._beside: set[str] = set()
        """What is under way beside the watching, by name."""

    @property
    def trouble(self) -> str | None:
        """What keeps the engine from being watched; None when all is well."""
        return self._trouble

    @property
    def resynced_at(self) -> datetime | None:
        """When the engine's whole list was last compared with the ledger."""
        return self._resynced_at

    async def run(self) -> None:
        """Watch until cancelled, for ever trying to come back to a lost engine."""
        async with asyncio.TaskGroup() as group:
            self._group = group
            following = for_ever("engine events", self._follow_events())
            group.create_task(following, name="engine events")
            resyncing = for_ever("resync", self._resync_now_and_then())
            group.create_task(resyncing, name="resync")

    async def _follow_events(self) -> None:
        delay = self._times.retry_seconds
        while True:
            has_watched = False
            try:
                async with self._engine.events() as events:
                    # An engine that was away may be another one now.
                    self._on_facts(await self._engine.facts())
                    await self._resync()
                    has_watched = True
                    async for event in events:
                        self._metrics.last_engine_event_timestamp_seconds.set(event.at.timestamp())
                        self._wake(event.tenant_id, unless=partial(self._has_seen, event))
                _log.debug("engine events ended")
            except ConsumerError as error:
                self._note_trouble(str(error))
            if has_watched:
                delay = self._times.retry_seconds
            await asyncio.sleep(delay * (0.5 + random.random() / 2))  # noqa: S311 - jitter
            delay = min(delay * 2, self._times.most_retry_seconds)

    async def _resync_now_and_then(self) -> None:
        while True:
            await asyncio.sleep(self._times.resync_seconds)
            try:
                await self._resync()
            except ConsumerError as error:
                self._note_trouble(str(error))

    async def _resync(self) -> None:
        """Compare the engine's list with the ledger; wake every tenant that deserves a look."""
        began = self._clock.steady()
        sightings: defaultdict[TenantId, list[Sighting]] = defaultdict(list)
        for sighting in await self._engine.survey():
            sightings[sighting.tenant_id].append(sighting)
        strangers: list[Sighting] = []
        for standing in await self._ledger.list_for_resync():
            seen = sightings.pop(standing.tenant_id, [])
            ours = ours_among(standing, seen)
            strangers += (it for it in seen if it not in ours)
            if deserves_look(standing, ours):
                self._wake(standing.tenant_id)
        for tenant_id, seen in sightings.items():
            cared_for = await self._take_care_of(tenant_id, seen)
            strangers += (it for it in seen if it not in cared_for)
        await self._leave_alone(strangers)
        self._forget_orphans_but({seen.container_id for row in sightings.values() for seen in row})
        self._resynced_at = self._clock.now()
        self._metrics.resync_seconds.observe(self._clock.steady() - began)
        self._metrics.last_resync_timestamp_seconds.set(self._resynced_at.timestamp())
        self._note_trouble(None)
        self._do_beside("tidying", self._tidy())

    def _do_beside(self, name: str, work: Coroutine[object, object, None]) -> None:
        """Have it done while the watching goes on, unless it is still under way."""
        if self._group is None or name in self._beside:
            work.close()
            return
        self._beside.add(name)
        task = self._group.create_task(work, name=name)
        task.add_done_callback(lambda _: self._beside.discard(name))

    async def _tidy(self) -> None:
        try:
            await self._engine.tidy()
        except EngineError as error:
            _log.debug("not tidied", error=str(error))

    async def _take_care_of(
        self, tenant_id: TenantId, seen: Sequence[Sighting]
    ) -> Sequence[Sighting]:
        """See to a tenant that is not expected to have any; return which of these are ours."""
        tenant = await self._ledger.read(tenant_id)
        if tenant is not None:
            ours = ours_among(tenant, seen)
            if ours:
                self._wake(tenant_id)
            return ours
        orphans = [it for it in seen if is_orphan(it)]
        if orphans:
            await self._take_in(tenant_id, orphans)
        return orphans

    async def _take_in(self, tenant_id: TenantId, orphans: Sequence[Sighting]) -> None:
        match self._orphans:
            case OrphanRule.ADOPT:
                await self._ledger.adopt(orphans, at=self._clock.now())
                _log.info("orphan adopted", tenant_id=tenant_id)
                self._wake(tenant_id)
            case OrphanRule.REMOVE:
                self._do_beside(f"orphans of {tenant_id}", self._remove_orphans(tenant_id))
            case OrphanRule.IGNORE:
                _log.debug("orphan ignored", tenant_id=tenant_id)
            case _:
                assert_never(self._orphans)

    async def _remove_orphans(self, tenant_id: TenantId) -> None:
        try:
            seen = await self._engine.observe(tenant_id)
        except EngineError as error:
            _log.warning("orphan not looked at", tenant_id=tenant_id, error=str(error))
            return
        now = self._clock.steady()
        for container in seen:
            since = self._orphaned.setdefault(container.container_id, now)
            is_young = now - since < self._times.orphan_grace_seconds
            if is_young or not is_orphan(container):
                continue
            try:
                await self._engine.remove(container)
            except EngineError as error:
                _log.warning("orphan not removed", tenant_id=tenant_id, error=str(error))
            else:
                _log.warning("orphan removed", tenant_id=tenant_id, container=container.name)

    async def _leave_alone(self, strangers: list[Sighting]) -> None:
        """Tell once of what carries our labels and is not ours, and touch none of it.

        Of that, what another ledger's consumer made is taken over where somebody asked for it.
        """
        left = [it for it in strangers if is_left_by_another(it)]
        if await self._ledger.is_take_over_asked():
            for tenant_id in await self._ledger.take_over(left, at=self._clock.now()):
                _log.info("taken over", tenant_id=tenant_id)
                self._wake(tenant_id)
            strangers, left = [it for it in strangers if not is_left_by_another(it)], []
        self._metrics.strangers.set(len(strangers))
        known, self._strangers = self._strangers, frozenset(it.container_id for it in strangers)
        if any(it.container_id not in known for it in left):
            _log.warning(
                "containers of another ledger left alone",
                containers=len(left),
                tenants=[it.tenant_id for it in left[:_MOST_NAMED]],
                cure=CURE_OF_LOST_LEDGER,
            )
        for it in strangers:
            if it.container_id not in known and not is_left_by_another(it):
                _log.warning(
                    "container with our labels left alone: this consumer did not make it",
                    tenant_id=it.tenant_id,
                    container_id=it.container_id,
                )

    def _forget_orphans_but(self, seen: Collection[ContainerId]) -> None:
        for gone in self._orphaned.keys() - seen:
            del self._orphaned[gone]

    def _note_trouble(self, trouble: str | None) -> None:
        if (trouble is None) != (self._trouble is None):
            if trouble is None:
                _log.info("engine reached")
            else:
                _log.error("engine lost", error=trouble)
        self._trouble = trouble
        self._metrics.engine_up.set(0 if trouble else 1)
