"""What wakes tenants besides tenant events: the start, engine events, the resync.

Engine events are reasons to look, never facts. After every (re)connection the subscription comes
first, then the list, so that nothing in between is missed. Losing the engine is unknown, never
"stopped": it wakes nobody. The list also shows containers of ours that the ledger does not know:
orphans, adopted or removed after a grace, as set.
"""

import asyncio
import random
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from functools import partial
from typing import Final, Protocol, assert_never

import structlog

from consumer.errors import ConsumerError, EngineError
from consumer.faults import for_ever
from consumer.metrics import Metrics
from consumer.model import EngineEvent, EngineFacts, Sighting, TenantId
from consumer.plan import deserves_look
from consumer.ports import Engine, Ledger

_log: Final = structlog.get_logger(__name__)


class Wake(Protocol):
    """Gives a tenant a pass soon, unless the last one has seen what this is about."""

    def __call__(
        self, tenant_id: TenantId, *, unless: Callable[[], bool] | None = None
    ) -> None: ...


class OrphanRule(StrEnum):
    """What becomes of containers with our labels whose tenant the ledger does not know."""

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
        now: Callable[[], datetime],
        on_facts: Callable[[EngineFacts], None],
        orphans: OrphanRule = OrphanRule.ADOPT,
        times: WatchTimes | None = None,
    ) -> None:
        self._engine = engine
        self._ledger = ledger
        self._wake = wake
        self._has_seen = has_seen
        self._metrics = metrics
        self._now = now
        self._on_facts = on_facts
        self._orphans = orphans
        self._times = times or WatchTimes()
        self._trouble: str | None = "the engine has not been asked yet"
        self._resynced_at: datetime | None = None

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
        began_at = self._now()
        sightings: defaultdict[TenantId, list[Sighting]] = defaultdict(list)
        for sighting in await self._engine.survey():
            sightings[sighting.tenant_id].append(sighting)
        for standing in await self._ledger.list_for_resync():
            if deserves_look(standing, sightings.pop(standing.tenant_id, ())):
                self._wake(standing.tenant_id)
        for tenant_id, unknown in sightings.items():
            await self._take_care_of(tenant_id, unknown)
        self._resynced_at = self._now()
        self._metrics.resync_seconds.observe((self._resynced_at - began_at).total_seconds())
        self._metrics.last_resync_timestamp_seconds.set(self._resynced_at.timestamp())
        self._note_trouble(None)

    async def _take_care_of(self, tenant_id: TenantId, unknown: Sequence[Sighting]) -> None:
        if await self._ledger.read(tenant_id) is not None:
            self._wake(tenant_id)
            return
        match self._orphans:
            case OrphanRule.ADOPT:
                await self._ledger.adopt(unknown, at=self._now())
                _log.info("orphan adopted", tenant_id=tenant_id)
                self._wake(tenant_id)
            case OrphanRule.REMOVE:
                await self._remove_orphans(tenant_id)
            case OrphanRule.IGNORE:
                _log.debug("orphan ignored", tenant_id=tenant_id)
            case _:
                assert_never(self._orphans)

    async def _remove_orphans(self, tenant_id: TenantId) -> None:
        grace = timedelta(seconds=self._times.orphan_grace_seconds)
        for container in await self._engine.observe(tenant_id):
            if self._now() - container.created_at < grace:
                continue
            try:
                await self._engine.remove(container)
            except EngineError as error:
                _log.warning("orphan not removed", tenant_id=tenant_id, error=str(error))
            else:
                _log.warning("orphan removed", tenant_id=tenant_id, container=container.name)

    def _note_trouble(self, trouble: str | None) -> None:
        if (trouble is None) != (self._trouble is None):
            if trouble is None:
                _log.info("engine reached")
            else:
                _log.error("engine lost", error=trouble)
        self._trouble = trouble
        self._metrics.engine_up.set(0 if trouble else 1)
