"""An engine in memory: containers that behave as Docker's do, and fail as they are told to.

It keeps the promises of `ports.Engine`: it finds by tenant, names are unique, "already so" is
success, a cancelled change is seen through. Beyond the port it has hands (`exit`, `stop_by_hand`,
`remove_by_hand`, …) for what happens behind the consumer's back, and scripts for what goes wrong.
Every call is recorded as a value. Time is the clock it is given.
"""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import Final, TypeVar

from consumer.belonging import ours_among
from consumer.errors import EngineError, EngineUnavailable
from consumer.finding import ALIVE
from consumer.model import (
    BoundPort,
    Container,
    ContainerId,
    ContainerStatus,
    EngineEvent,
    EngineFacts,
    Origin,
    Reason,
    Role,
    Sighting,
    Tenant,
    TenantId,
    TenantSpec,
)
from tests.fakes import life

T = TypeVar("T")

FACTS: Final = EngineFacts("24.0", "1.43", 8, 16 * 1024**3, frozenset({"json-file", "local"}))
_CHANGING: Final = frozenset({"create", "start", "stop", "remove", "rename", "adjust"})


@dataclass(frozen=True, slots=True)
class Call:
    """One call of the port; `subject` is the role or the container id it was about."""

    operation: str
    tenant_id: TenantId | None = None
    subject: str = ""


class Interruption(StrEnum):
    """How a call can be cut short; after a crash no call returns until the engine is revived."""

    CRASH = "crash"
    CANCEL = "cancel"
    UNAVAILABLE = "unavailable"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class _Fault:
    number: int
    interruption: Interruption
    takes_effect: bool


class FakeEngine:
    """See `ports.Engine` for the promises; the rest is for tests."""

    def __init__(self, *, now: Callable[[], datetime]) -> None:
        self._now = now
        self._containers: dict[ContainerId, Container] = {}
        self._specs: dict[ContainerId, TenantSpec] = {}
        self._made = 0
        self._images: set[str] = set()
        self._fault: _Fault | None = None
        self._errors: defaultdict[str, list[BaseException]] = defaultdict(list)
        self._gates: dict[str, asyncio.Event] = {}
        self._subscribers: list[asyncio.Queue[EngineEvent | EngineUnavailable | None]] = []
        self.calls: list[Call] = []
        self.most_alive = 0
        """How many containers of one tenant were ever alive at a time."""
        self.has_crashed = False
        """Whether the process is to be taken for dead: its calls do not return."""
        self.is_away = False
        """While set, it cannot be asked."""
        self.missing_images: set[str] = set()
        """Images that no registry has."""
        self.broken_images: dict[str, EngineError] = {}
        """Images whose containers cannot be started."""
        self.secrets: set[str] = set()
        """Names of the secrets that are there, for every tenant."""
        self.words: dict[str, str] = {}
        """What the containers of an image say before they end."""
        self.stuck: set[ContainerId] = set()
        """Containers that cannot be removed; the try leaves them dead."""
        self.facts_told = FACTS

    # --- what a test looks at

    def containers(self, tenant_id: TenantId | None = None) -> tuple[Container, ...]:
        """Return the containers there are, oldest first, without it counting as a call."""
        return tuple(
            seen for seen in self._containers.values() if tenant_id in (None, seen.tenant_id)
        )

    @property
    def only(self) -> Container:
        """The one container there is."""
        (container,) = self._containers.values()
        return container

    def operations(self) -> list[str]:
        """Return the names of the calls that were made, without the looking."""
        return [call.operation for call in self.calls if call.operation in _CHANGING]

    @property
    def has_interrupted(self) -> bool:
        """Whether the interruption that was asked for has come."""
        return self._fault is None

    # --- what a test makes go wrong

    def fail(self, operation: str, *errors: BaseException) -> None:
        """Have the next calls of this operation raise these, one each, without effect."""
        self._errors[operation] += errors

    def interrupt_at(
        self, nth: int, interruption: Interruption, *, takes_effect: bool = False
    ) -> None:
        """Cut the n-th call from now on short, before it takes effect or after it."""
        self._fault = _Fault(len(self.calls) + nth, interruption, takes_effect)

    def hang(self, operation: str) -> asyncio.Event:
        """Have calls of this operation hang until the returned event is set."""
        return self._gates.setdefault(operation, asyncio.Event())

    def revive(self) -> None:
        """Have a new process call from now on."""
        self.has_crashed = False
        self._fault = None

    def saved(self) -> "FakeEngine":
        """Return another engine with the same containers and images."""
        other = FakeEngine(now=self._now)
        other._containers = dict(self._containers)
        other._specs = dict(self._specs)
        other._images = set(self._images)
        other._made = self._made
        other.secrets = set(self.secrets)
        return other

    def lose_events(self, error: EngineUnavailable | None = None) -> None:
        """End every stream of events, by the error or quietly."""
        for subscriber in self._subscribers:
            subscriber.put_nowait(error)

    # --- what happens behind the consumer's back

    def exit(self, container: Container, code: int, *, is_oom: bool = False) -> Container:
        """End the container's process by itself; its restart policy says what then."""
        return self._keep(life.ended(container, code, is_oom=is_oom, at=self._now()), "die")

    def come_up(self, container: Container) -> Container:
        """End the engine's own backoff: a restarting container runs again."""
        return self._keep(self._started(container), "start")

    def stop_by_hand(self, container: Container, code: int = 143) -> Container:
        """Do what `docker stop` does."""
        return self._keep(self._stopped(container, code), "die")

    def start_by_hand(self, container: Container) -> Container:
        """Do what `docker start` does."""
        return self._keep(replace(self._started(container), restart_count=0), "start")

    def pause_by_hand(self, container: Container) -> Container:
        """Do what `docker pause` does."""
        return self._keep(replace(container, status=ContainerStatus.PAUSED), "pause")

    def remove_by_hand(self, container: Container) -> None:
        """Do what `docker rm -f` does."""
        del self._containers[container.container_id]
        self._emit(container, "destroy")

    def change(self, container: Container, **changes: object) -> Container:
        """Have the container look otherwise (health, status, limits)."""
        changed = replace(container, **changes)  # type: ignore[arg-type]  # names are checked by replace
        return self._keep(changed, "health_status")

    def put(self, container: Container) -> Container:
        """Have a container there that this process never made."""
        return self._keep(container, "create")

    # --- the port

    async def observe(
        self, tenant_id: TenantId, *, concerns: Callable[[Sighting], bool] | None = None
    ) -> tuple[Container, ...]:
        """Return every container of the tenant that concerns it, oldest first."""

        def look() -> tuple[Container, ...]:
            seen = self.containers(tenant_id)
            return tuple(it for it in seen if concerns is None or concerns(_sighting(it)))

        return await self._answer(Call("observe", tenant_id), look)

    async def survey(self) -> tuple[Sighting, ...]:
        """Return one line for each container."""
        return await self._answer(
            Call("survey"), lambda: tuple(_sighting(seen) for seen in self.containers())
        )

    async def prepare(self, tenant_id: TenantId, spec: TenantSpec) -> None:
        """Bring in the image; refuse a host port that another tenant holds."""

        def pull() -> None:
            self._check_secrets(spec.secrets)
            for other in self._containers.values():
                taken = _host_ports(self._specs.get(other.container_id)) & _host_ports(spec)
                if other.tenant_id != tenant_id and other.status in ALIVE and taken:
                    message = (
                        f"failed to create container: host port {min(taken)} is held by tenant "
                        f"{other.tenant_id}"
                    )
                    raise EngineError(Reason.PORT_CONFLICT, message, is_transient=True)
            if spec.image in self.missing_images:
                message = f"failed to pull image {spec.image}: manifest unknown"
                raise EngineError(Reason.IMAGE_NOT_FOUND, message, is_transient=True)
            self._images.add(spec.image)

        await self._answer(Call("prepare", tenant_id, spec.image), pull)

    async def create(
        self,
        tenant_id: TenantId,
        spec: TenantSpec,
        *,
        generation: int | None,
        role: Role,
        serial: int,
    ) -> Container:
        """Return a new container, created and not started."""

        def make() -> Container:
            if spec.image not in self._images:
                message = "failed to create container: no such image"
                raise EngineError(Reason.IMAGE_NOT_FOUND, message, is_transient=True)
            holder = self._holder(_name(tenant_id, role))
            origin = Origin(serial=serial)
            if holder is None:
                made = self._make(tenant_id, spec, generation, role)
                return self._keep(replace(made, origin=origin), "create")
            if holder.origin == origin and holder.fingerprint == spec.fingerprint:
                return holder
            raise _name_conflict(holder)

        return await self._answer(Call("create", tenant_id, role.value), make)

    async def start(self, container: Container) -> Container:
        """Return the container, running."""

        def start() -> Container:
            seen = self._there(container, Reason.MISSING)
            if seen.status is ContainerStatus.PAUSED:
                return self._keep(replace(seen, status=ContainerStatus.RUNNING), "unpause")
            if seen.status in ALIVE:
                return seen
            if seen.status is ContainerStatus.CREATED:
                self._check_secrets(seen.secrets)
            self._check_start(seen)
            return self._keep(replace(self._started(seen), restart_count=0), "start")

        return await self._answer(_about("start", container), start)

    async def stop(self, container: Container, *, is_hurried: bool = False) -> Container:  # noqa: ARG002 - nothing here has a grace period
        """Return the container, stopped."""

        def stop() -> Container:
            seen = self._there(container, Reason.STOP_FAILED)
            if seen.status not in ALIVE:
                return seen
            return self._keep(self._stopped(seen, 143), "die")

        return await self._answer(_about("stop", container), stop)

    async def remove(self, container: Container) -> None:
        """Remove the container."""

        def remove() -> None:
            if container.container_id in self.stuck:
                seen = self._there(container, Reason.STOP_FAILED)
                if seen.status is not ContainerStatus.REMOVING:
                    self._keep(replace(seen, status=ContainerStatus.DEAD), "die")
                message = "failed to remove container: device or resource busy"
                raise EngineError(Reason.STOP_FAILED, message, is_transient=True)
            if self._containers.pop(container.container_id, None) is not None:
                self._emit(container, "destroy")

        await self._answer(_about("remove", container), remove)

    async def tidy(self) -> None:
        """Nothing is left behind here; to be looked at, all the same."""
        await self._answer(Call("tidy"), lambda: None)

    async def rename(self, container: Container, role: Role) -> Container:
        """Return the container under the role's name."""

        def rename() -> Container:
            seen = self._there(container, Reason.NAME_CONFLICT)
            name = _name(container.tenant_id, role)
            if role is Role.DISCARDED:
                name = f"landlord-discarded-{container.container_id}"
            holder = self._holder(name)
            if holder is not None and holder.container_id != container.container_id:
                raise _name_conflict(holder)
            return self._keep(replace(seen, role=role, name=name), "rename")

        return await self._answer(_about("rename", container), rename)

    async def adjust(self, container: Container, spec: TenantSpec) -> Container:
        """Return the container with the spec's limits and restart policy."""

        def adjust() -> Container:
            seen = self._there(container, Reason.CREATE_FAILED)
            changed = replace(seen, resources=spec.resources, restart_policy=spec.restart_policy)
            return self._keep(changed, "update")

        return await self._answer(_about("adjust", container), adjust)

    async def last_words(self, container: Container) -> str:
        """Return what the container said."""
        words = self.words.get(container.image, "")
        return await self._answer(_about("last_words", container), lambda: words)

    async def tail(self, tenant: Tenant) -> str | None:
        """Return what the tenant's newest container said."""

        def tail() -> str | None:
            there = ours_among(tenant, self.containers(tenant.tenant_id))
            return self.words.get(there[-1].image, "") if there else None

        return await self._answer(Call("tail", tenant.tenant_id), tail)

    async def facts(self) -> EngineFacts:
        """Return what the engine says of itself."""
        return await self._answer(Call("facts"), lambda: self.facts_told)

    def events(self) -> AbstractAsyncContextManager[AsyncIterator[EngineEvent]]:
        """Open the stream of engine events."""
        return self._open_events()

    # --- inside

    @asynccontextmanager
    async def _open_events(self) -> AsyncIterator[AsyncIterator[EngineEvent]]:
        await self._answer(Call("events"), lambda: None)
        subscriber: asyncio.Queue[EngineEvent | EngineUnavailable | None] = asyncio.Queue()
        self._subscribers.append(subscriber)
        try:
            yield _drain(subscriber)
        finally:
            self._subscribers.remove(subscriber)

    async def _answer(self, call: Call, effect: Callable[[], T]) -> T:
        await self._die_if_crashed()
        self.calls.append(call)
        fault = self._fault
        if fault is None or fault.number != len(self.calls):
            return await self._plain_answer(call, effect)
        self._fault = None
        if fault.takes_effect:
            await self._plain_answer(call, effect)
        self.has_crashed = fault.interruption is Interruption.CRASH
        await self._die_if_crashed()
        return await _cut_short(fault.interruption)

    async def _die_if_crashed(self) -> None:
        if self.has_crashed:
            await asyncio.get_running_loop().create_future()

    async def _plain_answer(self, call: Call, effect: Callable[[], T]) -> T:
        if self.is_away:
            raise EngineUnavailable("failed to connect to docker daemon: connection refused")
        errors = self._errors[call.operation]
        if errors:
            raise errors.pop(0)
        gate = self._gates.get(call.operation)
        if gate is None:
            await asyncio.sleep(0)
            return effect()
        try:
            await gate.wait()
        except asyncio.CancelledError:
            if call.operation in _CHANGING:
                await gate.wait()  # seen through to its end
                effect()
            raise
        return effect()

    def _make(
        self, tenant_id: TenantId, spec: TenantSpec, generation: int | None, role: Role
    ) -> Container:
        self._made += 1
        container = Container(
            container_id=ContainerId(f"container-{self._made}"),
            name=_name(tenant_id, role),
            tenant_id=tenant_id,
            role=role,
            fingerprint=spec.fingerprint,
            image=spec.image,
            image_id=f"sha256:{spec.image}",
            provider_type=spec.provider_type,
            generation=generation,
            status=ContainerStatus.CREATED,
            created_at=self._now(),
            resources=spec.resources,
            restart_policy=spec.restart_policy,
            stop_grace_seconds=spec.stop_grace_seconds,
            ports=_ports(spec, is_bound=False),
            secrets=spec.secrets,
            user=spec.user or "",
        )
        self._specs[container.container_id] = spec
        return container

    def _check_secrets(self, names: tuple[str, ...]) -> None:
        missing = [name for name in names if name not in self.secrets]
        if missing:
            message = f"failed to create container: containers[0].secrets: {missing[0]!r}"
            raise EngineError(Reason.INVALID_EVENT, message, is_transient=True)

    def _check_start(self, container: Container) -> None:
        error = self.broken_images.get(container.image)
        if error is not None:
            raise error
        wanted = _host_ports(self._specs.get(container.container_id))
        for other in self._containers.values():
            is_up = other is not container and other.status in ALIVE
            taken = _host_ports(self._specs.get(other.container_id)) & wanted
            if is_up and taken:
                message = f"failed to start container: port {min(taken)} is already allocated"
                raise EngineError(Reason.PORT_CONFLICT, message, is_transient=True)

    def _started(self, container: Container) -> Container:
        spec = self._specs.get(container.container_id)
        return life.started(
            container,
            ports=_ports(spec, is_bound=True),
            has_check=spec is not None and spec.healthcheck is not None,
            at=self._now(),
        )

    def _stopped(self, container: Container, code: int) -> Container:
        ports = _ports(self._specs.get(container.container_id), is_bound=False)
        return life.stopped(container, code, ports=ports, at=self._now())

    def _there(self, container: Container, reason: Reason) -> Container:
        seen = self._containers.get(container.container_id)
        if seen is None:
            raise EngineError(reason, f"{container.name} is gone", is_transient=True)
        return seen

    def _holder(self, name: str) -> Container | None:
        return next((seen for seen in self._containers.values() if seen.name == name), None)

    def _keep(self, container: Container, action: str) -> Container:
        self._containers[container.container_id] = container
        alive = [
            seen
            for seen in self._containers.values()
            if seen.tenant_id == container.tenant_id and seen.status in ALIVE
        ]
        self.most_alive = max(self.most_alive, len(alive))
        self._emit(container, action)
        return container

    def _emit(self, container: Container, action: str) -> None:
        for subscriber in self._subscribers:
            subscriber.put_nowait(
                EngineEvent(container.tenant_id, container.container_id, action, self._now())
            )


async def _cut_short(interruption: Interruption) -> T:
    match interruption:
        case Interruption.UNAVAILABLE:
            raise EngineUnavailable("failed to connect to docker daemon: connection reset")
        case Interruption.REFUSED:
            message = "failed to start container: Error response from daemon: try again"
            raise EngineError(Reason.START_FAILED, message, is_transient=True)
        case Interruption.CANCEL:
            task = asyncio.current_task()
            assert task is not None
            task.cancel()
            await asyncio.sleep(0)
        case Interruption.CRASH:
            pass
    raise AssertionError(interruption)


async def _drain(
    subscriber: asyncio.Queue[EngineEvent | EngineUnavailable | None],
) -> AsyncIterator[EngineEvent]:
    while (event := await subscriber.get()) is not None:
        if isinstance(event, EngineUnavailable):
            raise event
        yield event


def _about(operation: str, container: Container) -> Call:
    return Call(operation, container.tenant_id, container.container_id)


def _name(tenant_id: TenantId, role: Role) -> str:
    return f"landlord-{role.value}-{tenant_id}"


def _ports(spec: TenantSpec | None, *, is_bound: bool) -> tuple[BoundPort, ...]:
    return tuple(
        BoundPort(port.container_port, port.protocol, "0.0.0.0", port.host_port)
        if is_bound and port.host_port
        else BoundPort(port.container_port, port.protocol)
        for port in (spec.ports if spec is not None else ())
    )


def _host_ports(spec: TenantSpec | None) -> set[int]:
    return {port.host_port for port in spec.ports if port.host_port} if spec is not None else set()


def _name_conflict(holder: Container) -> EngineError:
    message = f"failed to create container: the name {holder.name} is in use"
    return EngineError(Reason.NAME_CONFLICT, message, is_transient=True)


def _sighting(container: Container) -> Sighting:
    return Sighting(
        tenant_id=container.tenant_id,
        container_id=container.container_id,
        role=container.role,
        status=container.status,
        health=container.health,
        fingerprint=container.fingerprint,
        created_at=container.created_at,
        origin=container.origin,
    )
