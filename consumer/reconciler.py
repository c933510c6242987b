"""One pass for one tenant: observe, plan, act, commit what became of it.

A pass is a bounded number of actions, each on a fresh observation; it never loops in wait. It
returns in how many seconds to come back. What it finds changed without a tenant event (a crash, a
stop by hand) it tells before it acts. It may be cancelled at any await: the next pass starts by
looking. Before it comes the dispatcher, which sees to it that there is one pass at a time for a
tenant; after it the outbox.
"""

import asyncio
import random
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import partial
from typing import Final, TypeGuard, assert_never

import structlog

from consumer.belonging import (
    CURE_OF_LOST_LEDGER,
    MOST_RECORDED,
    is_left_by_another,
    may_concern,
    ours_among,
)
from consumer.clock import Clock
from consumer.errors import (
    ConsumerError,
    EngineError,
    EngineUnavailable,
    Fault,
    LedgerFault,
)
from consumer.faults import trace_of, was_cancelled
from consumer.finding import (
    ALIVE,
    PAST_USE,
    Finding,
    Rules,
    assess,
    has_fallen_back,
    is_held_back,
    main_container,
    note_restart,
    up_seconds,
)
from consumer.flapping import Flapping
from consumer.losses import MOST_LOSSES, Losses
from consumer.metrics import Metrics
from consumer.model import (
    Container,
    ContainerId,
    ContainerStatus,
    Desired,
    EngineEvent,
    Health,
    Maker,
    Reason,
    Role,
    Setback,
    State,
    Status,
    Tenant,
    TenantId,
    TenantSpec,
)
from consumer.plan import (
    Adjust,
    Create,
    GiveUp,
    Nothing,
    Remove,
    Rename,
    Start,
    Stop,
    Wait,
    decide,
)
from consumer.ports import Engine, Ledger, PassResult
from consumer.status import asks_why, tell, with_last_words
from consumer.stopwatch import Stopwatch

Admits = Callable[[TenantId, TenantSpec], Iterable[Fault]]
"""Returns what the policy of today has against a tenant's spec; nothing when it may run."""

_Deed = Create | Start | Stop | Remove | Rename | Adjust

_log: Final = structlog.get_logger(__name__)

_MOST_ACTIONS: Final = 16
"""Enough for the longest way (a replacement that is rolled back); more is left to the next pass."""
_MOST_DELETED: Final = 1000
_SERIAL_STEP: Final = {Role.CURRENT: 1, Role.SUCCESSOR: 2}
"""A successor that the engine makes too late, when its tenant was deleted and made anew meanwhile,
is still above what was recorded then, and so ours to remove."""
_OF_NO_CONTAINER: Final = (Reason.ENGINE_UNAVAILABLE, Reason.INTERNAL_ERROR)
"""Setbacks that are over once the tenant's containers are seen."""
_LONGEST_ATTEMPT: Final = 31
_QUIET_ATTEMPT: Final = 3
"""Which step of the backoff a tenant at rest waits while the engine is away."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Backoff:
    """Delay before the n-th retry: exponential from `least_seconds` to `most_seconds`, jittered."""

    least_seconds: float = 1.0
    most_seconds: float = 300.0
    jitter: Callable[[], float] = random.random

    def seconds(self, attempt: int) -> float:
        """Return the delay after the given failed attempt (1 is the first)."""
        full = self.most_after(attempt)
        return max(self.least_seconds, full * (0.5 + 0.5 * self.jitter()))

    def most_after(self, attempt: int) -> float:
        """Return the longest delay there can be after the given failed attempt."""
        full = min(self.most_seconds, self.least_seconds * 2.0 ** min(attempt - 1, 30))
        return max(self.least_seconds, full)


def _admit_all(_: TenantId, __: TenantSpec) -> Iterable[Fault]:
    return ()


class Reconciler:
    """Carries tenants towards what is wanted of them, one pass at a call.

    What `admits` has faults for is neither made nor started; what runs of it goes on, or is stopped
    where `is_stopping_denied` says so.
    """

    def __init__(  # noqa: PLR0913 - the outside is a constructor argument
        self,
        *,
        ledger: Ledger,
        engine: Engine,
        metrics: Metrics,
        clock: Clock,
        on_commit: Callable[[], None],
        rules: Rules | None = None,
        backoff: Backoff | None = None,
        admits: Admits = _admit_all,
        is_stopping_denied: bool = False,
    ) -> None:
        self._ledger = ledger
        self._engine = engine
        self._metrics = metrics
        self._clock = clock
        self._on_commit = on_commit
        self._rules = rules or Rules()
        self._backoff = backoff or Backoff()
        self._admits = admits
        self._is_stopping_denied = is_stopping_denied
        self._stopwatch = Stopwatch(clock=clock, most_seconds=self._backoff.most_after)
        self._flapping = Flapping()
        self._losses = Losses()
        self._observed_at: dict[TenantId, datetime] = {}
        self._seen: dict[TenantId, Mapping[ContainerId, ContainerStatus]] = {}
        """What the last pass saw at its end; nothing of a tenant while one runs."""
        self._deleted: deque[TenantId] = deque()
        """Of whom is seen that there is nothing, oldest first."""

    def has_seen(self, event: EngineEvent) -> bool:
        """Return whether the tenant's last pass saw the container as the event leaves it.

        What happens to a container after it was seen begins with an event that does not leave it
        so: nothing is missed when those that do are passed over. Most engine events tell of what a
        pass has just done.
        """
        seen = self._seen.get(event.tenant_id)
        if seen is None:
            return False
        status = seen.get(event.container_id)
        match event.action:
            case "start" | "restart":
                return status is ContainerStatus.RUNNING
            case "die" | "stop":
                return status in (None, ContainerStatus.EXITED, ContainerStatus.DEAD)
            case "destroy":
                return status is None
            case "create":
                # One of ours that nobody waited for any more may be made late.
                return status is not None
            case "oom":
                # One of its processes, as often as it likes; the container's own end is told apart.
                return status is not None
            case action if action.startswith("health_status"):
                # A pass is due by itself when it can be told.
                return self._flapping.passes_over(event.tenant_id, self._clock.steady(), event.at)
            case _:
                return False

    def observed_at(self, tenant_id: TenantId) -> datetime | None:
        """Return when a pass last saw the tenant's containers, None if not since the start."""
        return self._observed_at.get(tenant_id)

    async def reconcile(self, tenant_id: TenantId) -> float | None:
        """Make one pass; return in how many seconds the next is due, None when a wake will tell.

        A fault of ours is told to the tenant as ours, and tried again with backoff. Raises
        LedgerError when the ledger failed; the pass then left nothing behind but what it did to the
        engine, which the next one sees.
        """
        try:
            return await self._make_pass(tenant_id)
        except LedgerFault as fault:
            return await self._tell_fault(tenant_id, fault)
        except ConsumerError:
            raise
        except asyncio.CancelledError as error:
            if was_cancelled():
                raise
            return await self._tell_fault(tenant_id, error)
        except Exception as fault:  # noqa: BLE001 - one tenant's trouble stays its own
            return await self._tell_fault(tenant_id, fault)

    async def _tell_fault(self, tenant_id: TenantId, fault: BaseException) -> float | None:
        """Tell that we failed over this tenant; whatever could have failed again is left out."""
        self._metrics.faults.labels(part="pass").inc()
        _log.error("fault of ours", part="pass", tenant_id=tenant_id, error=trace_of(fault))
        tenant = await self._ledger.read(tenant_id)
        if tenant is None:
            return None
        kind = type(fault.__cause__ or fault).__name__
        message = f"a fault of the consumer's own ({kind}), which its log tells of"
        tenant = replace(tenant, setback=self._stopwatch.time(tenant_id, tenant.setback))
        one_pass = _Pass(tenant=tenant, committed=tenant)
        reason = Reason.INTERNAL_ERROR
        self._set_back(one_pass, EngineError(reason, message, is_transient=True))
        finding = Finding(state=State.FAILED, reason=reason, message=message)
        await self._commit(one_pass, finding)
        return self._due_in(one_pass)

    async def _make_pass(self, tenant_id: TenantId) -> float | None:
        tenant = await self._ledger.read(tenant_id)
        if tenant is None:
            return None
        setback = self._stopwatch.time(tenant_id, tenant.setback)
        tenant = replace(tenant, setback=setback)
        has_failed_us = setback is not None and setback.reason is Reason.INTERNAL_ERROR
        now = self._clock.steady()
        if setback is not None and has_failed_us and is_held_back(tenant, now):
            # Whoever wakes it: what we fail over is met no sooner for it.
            return None if setback.due is None else setback.due - now
        self._seen.pop(tenant_id, None)
        if not tenant.is_answered:
            self._time_phase("queue", self._clock.seconds_since(tenant.received_at))
        one_pass = _Pass(tenant=tenant, committed=tenant)
        try:
            await self._observe(one_pass)
            if self._is_denied(one_pass):
                await self._hold_back(one_pass)
            else:
                await self._stop_denied_former(one_pass)
                await self._tell_what_was_found(one_pass)
                await self._act(one_pass)
        except EngineUnavailable as error:
            self._lose_sight(one_pass, error)
        except EngineError as error:
            self._set_back(one_pass, error)
        await self._conclude(one_pass)
        if one_pass.is_in_sight:
            seen = (*one_pass.containers, *one_pass.strangers)
            self._seen[tenant_id] = {it.container_id: it.status for it in seen}
        return self._due_in(one_pass)

    async def _observe(self, one_pass: "_Pass") -> None:
        tenant = one_pass.tenant
        concerns = partial(may_concern, tenant)
        labelled = await self._engine.observe(tenant.tenant_id, concerns=concerns)
        ours = ours_among(tenant, labelled)
        one_pass.is_in_sight = True
        one_pass.strangers = tuple(it for it in labelled if it not in ours)
        one_pass.tenant = _with_recorded(tenant, ours)
        self._see(one_pass, ours)

    def _see(self, one_pass: "_Pass", containers: tuple[Container, ...]) -> None:
        tenant = one_pass.tenant
        containers = self._stopwatch.see(tenant.tenant_id, containers)
        one_pass.containers = containers
        self._observed_at[tenant.tenant_id] = self._clock.now()
        setback = tenant.setback
        if setback is not None and setback.reason in _OF_NO_CONTAINER:
            setback = None
        restarts = note_restart(tenant, containers, self._clock.steady(), self._rules)
        one_pass.tenant = replace(tenant, restarts=restarts, setback=setback)

    def _is_denied(self, one_pass: "_Pass") -> bool:
        """Whether the policy of today is against the recorded spec; the setback says why."""
        tenant = one_pass.tenant
        faults = self._faults(tenant, tenant.spec)
        if faults:
            denial = Setback(1, Reason.POLICY_DENIED, f"not allowed any more: {faults}", None)
            one_pass.tenant = replace(tenant, setback=denial)
        elif tenant.setback is not None and tenant.setback.reason is Reason.POLICY_DENIED:
            one_pass.tenant = replace(tenant, setback=None)
        one_pass.is_denied = bool(faults)
        return one_pass.is_denied

    def _faults(self, tenant: Tenant, spec: TenantSpec | None) -> str:
        if spec is None or tenant.desired is not Desired.RUNNING:
            return ""
        return "; ".join(map(str, self._admits(tenant.tenant_id, spec)))

    async def _hold_back(self, one_pass: "_Pass") -> None:
        """Make and start nothing of what is denied; stop what runs of it, if that is wanted."""
        if not self._is_stopping_denied:
            return
        for container in one_pass.containers:
            if container.status in ALIVE:
                await self._carry_out(one_pass, Stop(container))

    async def _stop_denied_former(self, one_pass: "_Pass") -> None:
        """Stop what runs of a former spec that is denied, where that is wanted.

        What the recorded one asks for is allowed, but may never come to run in its place.
        """
        former = one_pass.tenant.applied
        if not self._is_stopping_denied or former is None or former == one_pass.tenant.spec:
            return
        if not self._faults(one_pass.tenant, former):
            return
        one_pass.denied_former = former.fingerprint
        for container in one_pass.containers:
            if container.status in ALIVE and container.fingerprint == former.fingerprint:
                await self._carry_out(one_pass, Stop(container))

    async def _tell_what_was_found(self, one_pass: "_Pass") -> None:
        """Tell of a change that no tenant event asked for, before anything is done about it."""
        tenant = one_pass.tenant
        if not tenant.is_answered or one_pass.is_on_denied_former:
            return
        finding = assess(tenant, one_pass.containers, self._clock.steady(), self._rules)
        seen = finding.container
        is_explained = one_pass.committed.setback is not None and (
            seen is None or not has_fallen_back(tenant, seen)
        )
        if finding.state is not State.RUNNING and not is_explained:
            await self._commit(one_pass, finding)

    async def _act(self, one_pass: "_Pass") -> None:
        _mind_what_another_left(one_pass, self._clock.steady())
        for _ in range(_MOST_ACTIONS):
            action = decide(one_pass.tenant, one_pass.containers, self._clock.steady(), self._rules)
            self._metrics.passes.labels(action=type(action).__name__.lower()).inc()
            match action:
                case Nothing():
                    return
                case Wait(seconds):
                    self._come_back(one_pass, seconds)
                    return
                case GiveUp(finding):
                    message = await self._with_last_words(finding.message, finding)
                    given_up = _for_good(replace(finding, message=message))
                    one_pass.tenant = replace(one_pass.tenant, setback=given_up)
                    one_pass.is_cleaning_up = True
                case _:
                    await self._try(one_pass, action)
        self._come_back(one_pass, 0)

    async def _try(self, one_pass: "_Pass", action: _Deed) -> None:
        try:
            await self._carry_out(one_pass, action)
        except EngineUnavailable:
            raise
        except EngineError as error:
            if _is_past_use(action, one_pass.tenant):
                await self._set_aside(one_pass, action.container, error)
                return
            if one_pass.is_cleaning_up:
                raise
            # The plan says what is left to do: remove what is half-made, start the former one.
            one_pass.is_cleaning_up = True
            self._set_back(one_pass, error)
            await self._observe(one_pass)

    async def _set_aside(self, one_pass: "_Pass", dead: Container, error: EngineError) -> None:
        """Go on without a container that is past use, once its name is free.

        The engine could not remove it, or is at it for too long: a mount that leaked is enough, and
        may stay until somebody mends the host. Every later pass tries again.
        """
        _log.warning("container left behind", container=dead.name, error=str(error))
        if dead.role is not Role.DISCARDED:
            try:
                await self._engine.rename(dead, Role.DISCARDED)
            except EngineUnavailable:
                raise
            except EngineError:
                raise error from None
        one_pass.exchange(dead, None)

    async def _carry_out(self, one_pass: "_Pass", action: _Deed) -> None:
        engine = self._engine
        match action:
            case Create(role, wanted):
                await self._create(one_pass, role, wanted)
            case Start(container):
                self._check_former(one_pass.tenant, container)
                one_pass.under_way = Reason.START_FAILED
                started = await engine.start(container)
                one_pass.under_way = None
                self._see(one_pass, one_pass.containers_with(container, started))
            case Stop(container, is_hurried):
                stopped = await engine.stop(container, is_hurried=is_hurried)
                one_pass.exchange(container, stopped)
            case Remove(container):
                await engine.remove(container)
                one_pass.exchange(container, None)
                one_pass.tenant = _without(one_pass.tenant, container)
                one_pass.gone.append(container.container_id)
            case Rename(container, role):
                one_pass.exchange(container, await engine.rename(container, role))
            case Adjust(container, wanted):
                one_pass.under_way = Reason.CREATE_FAILED
                adjusted = await engine.adjust(container, wanted)
                one_pass.under_way = None
                one_pass.tenant = _with_applied_known(one_pass.tenant, container)
                one_pass.exchange(container, adjusted)
            case _:
                assert_never(action)

    def _check_former(self, tenant: Tenant, container: Container) -> None:
        """Raise EngineError for a fallback that the policy of today is against.

        One whose document is not known, for it was adopted, is taken as it is.
        """
        applied = tenant.applied
        if applied is None or applied == tenant.spec:
            return
        if applied.fingerprint != container.fingerprint:
            return
        faults = self._faults(tenant, applied)
        if faults:
            words = f"failed to start container: the former one is not allowed any more: {faults}"
            raise EngineError(Reason.START_FAILED, words, is_transient=True)

    async def _create(self, one_pass: "_Pass", role: Role, spec: TenantSpec) -> None:
        tenant = one_pass.tenant
        await self._engine.prepare(tenant.tenant_id, spec)
        one_pass.under_way = Reason.CREATE_FAILED
        created = await self._engine.create(
            tenant.tenant_id,
            spec,
            generation=tenant.generation,
            role=role,
            # The same until one is recorded: so a try whose answer was lost is known again.
            serial=tenant.made + _SERIAL_STEP[role],
        )
        one_pass.under_way = None
        one_pass.containers = (*one_pass.containers, created)
        one_pass.tenant = _with_recorded(tenant, (created,))

    def _lose_sight(self, one_pass: "_Pass", error: EngineUnavailable) -> None:
        """Tell those who wait for an answer that the engine is away; the others wait quietly."""
        one_pass.is_in_sight = False
        tenant, under_way = one_pass.tenant, one_pass.under_way
        if under_way is not None:
            losses = self._losses.count(tenant.tenant_id, tenant.revision)
            if losses >= MOST_LOSSES:
                words = f"the engine was lost over this tenant's request, {losses} times in a row"
                lost = EngineError(under_way, f"{words}: {error}", is_transient=True)
                self._set_back(one_pass, lost, delay=self._backoff.seconds(_LONGEST_ATTEMPT))
                return
        if one_pass.tenant.is_answered and one_pass.tenant.setback is None:
            self._come_back(one_pass, self._backoff.seconds(_QUIET_ATTEMPT))
            return
        self._set_back(one_pass, error)

    def _set_back(
        self, one_pass: "_Pass", error: EngineError, *, delay: float | None = None
    ) -> None:
        tenant = one_pass.tenant
        earlier = one_pass.committed.setback
        attempt = earlier.attempt + 1 if earlier is not None else 1
        setback = Setback(attempt, Reason(error.reason), str(error), None)
        if error.is_transient:
            delay = self._backoff.seconds(attempt) if delay is None else delay
            setback = self._stopwatch.put_off(tenant.tenant_id, setback, delay)
            self._come_back(one_pass, delay)
        one_pass.tenant = replace(tenant, setback=setback)
        _log.warning(
            "try failed",
            tenant_id=tenant.tenant_id,
            reason=error.reason,
            message=str(error),
            attempt=attempt,
            will_retry=error.is_transient,
        )

    async def _conclude(self, one_pass: "_Pass") -> None:
        if not one_pass.is_in_sight:
            finding = _unreachable(one_pass.tenant)
        elif one_pass.is_denied or one_pass.is_on_denied_former:
            finding = _denied(one_pass.tenant, one_pass.containers)
        else:
            now = self._clock.steady()
            finding = assess(one_pass.tenant, one_pass.containers, now, self._rules)
        if finding.look_in_seconds is not None:
            self._come_back(one_pass, finding.look_in_seconds)
        if _has_succeeded(finding):
            self._losses.forget(one_pass.tenant.tenant_id)
            one_pass.tenant = replace(one_pass.tenant, setback=None)
        setback = one_pass.tenant.setback
        if setback is not None and setback.due is not None:
            remaining = setback.due - self._clock.steady()
            if remaining > 0:
                self._come_back(one_pass, remaining)
        await self._commit(one_pass, finding)
        if finding.reason is Reason.DELETED:
            self._forget(one_pass.tenant.tenant_id)

    def _forget(self, tenant_id: TenantId) -> None:
        """Forget a tenant that is gone; the last of its engine events may be still to come."""
        self._observed_at.pop(tenant_id, None)
        self._stopwatch.forget(tenant_id)
        self._losses.forget(tenant_id)
        self._deleted.append(tenant_id)
        if len(self._deleted) > _MOST_DELETED:
            self._seen.pop(self._deleted.popleft(), None)

    async def _commit(self, one_pass: "_Pass", finding: Finding) -> None:
        """Commit the status that the finding calls for, and what the next pass has to know."""
        tenant = one_pass.tenant
        since_receipt = self._clock.seconds_since(tenant.received_at)
        news = tell(tenant, finding, self._clock.now(), since_receipt=since_receipt)
        status = self._in_time(one_pass, news)
        if status is not None and not _comes_from(tenant.setback, finding):
            message = await self._with_last_words(status.message, finding)
            status = replace(status, message=message)
        applied = tenant.spec if _has_reached(tenant, finding) else tenant.applied
        after = replace(tenant, applied=applied)
        if status is None and after == one_pass.committed:
            return
        told = await self._ledger.commit(
            PassResult(
                tenant_id=tenant.tenant_id,
                revision=tenant.revision,
                statuses=(status,) if status is not None else (),
                answered=status is not None,
                setback=tenant.setback,
                applied=applied,
                restarts=tenant.restarts,
                containers=tenant.containers,
                gone=tuple(one_pass.gone),
                made=tenant.made,
                correlation_id=tenant.correlation_id,
                traceparent=tenant.traceparent,
            )
        )
        for status in told:
            after = replace(after, status=status, answered_revision=tenant.revision)
            self._count(status, tenant.setback, finding.container)
        one_pass.tenant = one_pass.committed = after
        if told:
            self._on_commit()

    def _in_time(self, one_pass: "_Pass", status: Status | None) -> Status | None:
        """Return the status if it is told now; one that is held comes with the next that is."""
        if status is None or not one_pass.tenant.is_answered:
            return status
        until = self._flapping.hold_until(status, self._clock.steady())
        if until is not None:
            one_pass.come_back(until)
            return None
        return replace(status, message=self._flapping.folded(status))

    async def _with_last_words(self, message: str, finding: Finding) -> str:
        """Return the message with what the container said, where it died or fails a check."""
        if finding.container is None or not asks_why(finding):
            return message
        try:
            words = await self._engine.last_words(finding.container)
        except EngineError:
            return message  # the fact itself is known, and must not wait for its explanation
        return with_last_words(message, words)

    def _count(self, status: Status, setback: Setback | None, container: Container | None) -> None:
        _log.info(
            "status",
            tenant_id=status.tenant_id,
            state=status.state.value,
            reason=status.reason.value,
            generation=status.generation,
            sequence=status.sequence,
        )
        if status.state is State.FAILED:
            self._metrics.tenant_failures.labels(reason=status.reason.value).inc()
        if status.reason is Reason.ROLLED_BACK and setback is not None:
            self._metrics.tenant_failures.labels(reason=setback.reason.value).inc()
        if status.state is State.RUNNING and status.startup_seconds is not None:
            self._metrics.startup_seconds.observe(status.startup_seconds)
            if status.health is Health.HEALTHY and container is not None:
                self._time_phase("healthy", up_seconds(container, self._clock.steady()))

    def _due_in(self, one_pass: "_Pass") -> float | None:
        return None if one_pass.due is None else max(0.0, one_pass.due - self._clock.steady())

    def _come_back(self, one_pass: "_Pass", seconds: float) -> None:
        one_pass.come_back(self._clock.steady() + seconds)

    def _time_phase(self, phase: str, seconds: float) -> None:
        self._metrics.observe_phase(phase, max(0.0, seconds))


@dataclass(slots=True, kw_only=True)
class _Pass:
    """What one pass knows: the tenant as it goes along and as last committed, and what it sees.

    `strangers` only carry the tenant's labels and one of its names, `gone` is what it removed.
    `is_in_sight` is False while the engine has not been seen, or was lost from sight; `is_denied`
    is whether the policy of today is against what is recorded.
    """

    tenant: Tenant
    committed: Tenant
    containers: tuple[Container, ...] = ()
    strangers: tuple[Container, ...] = ()
    gone: list[ContainerId] = field(default_factory=list)
    is_in_sight: bool = False
    is_denied: bool = False
    denied_former: str | None = None
    """The fingerprint of a former spec that nothing may run of any more."""
    under_way: Reason | None = None
    """What a failure of the request would be called that makes, starts or changes a container."""
    is_cleaning_up: bool = False
    due: float | None = None

    @property
    def is_on_denied_former(self) -> bool:
        """Whether the tenant has nothing else; that we stopped it explains its end."""
        return bool(self.containers) and all(
            seen.fingerprint == self.denied_former for seen in self.containers
        )

    def come_back(self, due: float) -> None:
        """Have the next pass at this time, or earlier if it was so already."""
        self.due = due if self.due is None else min(due, self.due)

    def exchange(self, old: Container, new: Container | None) -> None:
        """Put the container's new observation in the place of the old one."""
        self.containers = self.containers_with(old, new)

    def containers_with(self, old: Container, new: Container | None) -> tuple[Container, ...]:
        """Return what is seen, with the new observation in the place of the old one."""
        if new is not None and new.started_at == old.started_at:
            new = replace(new, run_seen=old.run_seen)
        kept = (new if seen is old else seen for seen in self.containers)
        return tuple(seen for seen in kept if seen is not None)


def _with_recorded(tenant: Tenant, ours: tuple[Container, ...]) -> Tenant:
    """Return the tenant with the ids of these, and the highest of their serials.

    An id is forgotten when the container was removed by us, not when it is out of sight.
    """
    ids = dict.fromkeys((*tenant.containers, *(it.container_id for it in ours)))
    serials = [it.origin.serial for it in ours if it.origin.maker is Maker.US]
    made = max(tenant.made, *serials, 0)
    return replace(tenant, containers=tuple(ids)[-MOST_RECORDED:], made=made)


def _without(tenant: Tenant, gone: Container) -> Tenant:
    kept = (it for it in tenant.containers if it != gone.container_id)
    return replace(tenant, containers=tuple(kept))


def _mind_what_another_left(one_pass: _Pass, now: float) -> None:
    """Raise while the tenant has nothing but what another ledger's consumer left under its name.

    To say that there is nothing, or to try to make one beside it, would both be wrong.
    """
    tenant = one_pass.tenant
    left = [it for it in one_pass.strangers if is_left_by_another(it)]
    if one_pass.containers or not left:
        setback = tenant.setback
        is_over = setback is not None and setback.reason is Reason.NAME_CONFLICT
        if is_over and tenant.desired is not Desired.RUNNING:
            one_pass.tenant = replace(tenant, setback=None)
    elif not is_held_back(tenant, now):
        message = (
            f"the name {left[0].name} is taken by container {left[0].container_id[:12]}, which "
            f"another ledger's consumer made; {CURE_OF_LOST_LEDGER}"
        )
        raise EngineError(Reason.NAME_CONFLICT, message, is_transient=True)


def _is_past_use(action: _Deed, tenant: Tenant) -> TypeGuard[Remove]:
    """Whether the tenant can be as it should be though this removal failed."""
    is_lost = isinstance(action, Remove) and action.container.status in PAST_USE
    return is_lost and tenant.desired is not Desired.DELETED


def _for_good(finding: Finding) -> Setback:
    """Return the setback of a failed successor: trying it again would cost downtime."""
    return Setback(1, finding.reason, finding.message, None)


def _with_applied_known(tenant: Tenant, before: Container) -> Tenant:
    """Return the tenant with what its adopted container had before it was changed in place.

    All else is as wanted, or it would have been replaced; the engine told the rest.
    """
    if tenant.applied is not None or tenant.spec is None or before.resources is None:
        return tenant
    was = replace(tenant.spec, resources=before.resources, restart_policy=before.restart_policy)
    return replace(tenant, applied=was)


def _comes_from(setback: Setback | None, finding: Finding) -> bool:
    """Whether the finding says again what a failed try, or what was given up, said already."""
    return setback is not None and finding.message == setback.message


def _unreachable(tenant: Tenant) -> Finding:
    if tenant.setback is None:
        return Finding(state=None)
    return Finding(state=State.FAILED, reason=tenant.setback.reason, message=tenant.setback.message)


def _denied(tenant: Tenant, containers: tuple[Container, ...]) -> Finding:
    """Return the finding of a tenant that is held back by the policy, whatever still runs of it."""
    container = main_container(tenant, containers) if containers else None
    return replace(_unreachable(tenant), container=container)


def _has_succeeded(finding: Finding) -> bool:
    if finding.state is State.RUNNING:
        return finding.reason is not Reason.ROLLED_BACK
    return finding.state is State.STOPPED


def _has_reached(tenant: Tenant, finding: Finding) -> bool:
    """Whether the recorded spec is what the tenant now has."""
    has_ended_well = finding.state is State.STOPPED and finding.reason is Reason.EXITED
    is_up = finding.state is State.RUNNING and finding.reason is not Reason.ROLLED_BACK
    return tenant.desired is Desired.RUNNING and (is_up or has_ended_well)
