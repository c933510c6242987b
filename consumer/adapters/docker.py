"""The engine port on Docker: observe, prepare, create, start, stop, remove, events.

Sees only containers with our labels and instance, and touches of them only those it is told to; of
others it sees the ports that they hold. After an unclear answer it looks before it says anything.
"Already so" is success. Requests that change something are seen through to their end even when the
caller is cancelled; only a creation that hangs, and a grace period, are not waited for. Reasons
come from status codes and from the container's own state; the engine's words are only a second
hint, in one table.
"""

import asyncio
import json
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from functools import partial
from pathlib import Path
from typing import Final, TypeVar
from uuid import uuid4

import aiohttp
import structlog

from consumer.adapters.docker_client import (
    DockerClient,
    Endpoint,
    Permit,
    Refused,
    see_through,
    unconditional,
)
from consumer.adapters.docker_creations import Creations
from consumer.adapters.docker_inherited import override
from consumer.adapters.docker_networks import Network, TenantNetwork, lacks_network
from consumer.adapters.docker_secrets import Secrets
from consumer.adapters.docker_spec import (
    Naming,
    UnknownState,
    as_filter,
    holder_of,
    is_at_rest,
    listed_name,
    to_container,
    to_create_document,
    to_labels,
    to_sighting,
    to_update_document,
    who_is,
)
from consumer.adapters.docker_stops import Stops, Waiting
from consumer.adapters.docker_words import LastWords
from consumer.adapters.images import Images
from consumer.adapters.places import Places
from consumer.adapters.pulls import PullLimits
from consumer.adapters.registries import FindCredentials
from consumer.adapters.start_limit import StartGate
from consumer.belonging import CURE_OF_LOST_LEDGER, may_concern, ours_among
from consumer.errors import EngineError, EngineUnavailable
from consumer.finding import ALIVE
from consumer.model import (
    Container,
    ContainerId,
    ContainerStatus,
    EngineEvent,
    EngineFacts,
    Maker,
    PortMapping,
    Reason,
    Role,
    Sighting,
    Tenant,
    TenantId,
    TenantSpec,
    as_tenant_id,
)
from consumer.policy_labels import is_reserved

_T = TypeVar("_T")
_log: Final = structlog.get_logger(__name__)

_BAD_REQUEST, _NOT_FOUND, _CONFLICT, _SERVER_ERROR = 400, 404, 409, 500
_CREATE: Final = "failed to create container"
_START: Final = "failed to start container"
_REMOVE: Final = "failed to remove container"
_SHORT_WAIT_SECONDS: Final = 0.001
"""A place that was free, and no wait worth a sample."""
_COMMAND_FAULTS: Final = frozenset({126, 127})
"""Exit codes of a container whose command cannot be run or is not there."""
_NO_COMMAND: Final = "attempted to invoke a command that was not found"
"""How Podman says it, which tells no exit code."""
_MARGIN_SECONDS: Final = 15.0
_REMOVAL_PATIENCE_SECONDS: Final = 5.0
"""A removal that lasts longer waits for the host, for a mount that hangs perhaps."""
_LOOK_SECONDS: Final = 0.2
_MOST_EVENT_BYTES: Final = 4 * 1024 * 1024
_WAKING: Final = frozenset(
    {"create", "start", "die", "oom", "stop", "pause", "unpause", "destroy", "restart", "update"}
)
_PODMAN_ACTIONS: Final = {"remove": "destroy"}
_RUNNING: Final = frozenset({ContainerStatus.RUNNING, ContainerStatus.RESTARTING})
_HINTS: Final = (
    (("port is already allocated", "address already in use"), Reason.PORT_CONFLICT),
    (
        (
            *("no space left", "cannot allocate memory", "range of cpus", "minimum memory"),
            "unable to set memory limit",
        ),
        Reason.INSUFFICIENT_RESOURCES,
    ),
    (
        (
            *("network ", "endpoint with name", "not manually attachable", "not a swarm manager"),
            "failed to create endpoint",
        ),
        Reason.NETWORK_FAILED,
    ),
)
"""Words of the engine and what they hint at, in this order."""
_PORT: Final = re.compile(r":(\d{1,5})\b")


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineLimits:
    """How many starts, at most, and signals, kills and removals at a time; deadlines in seconds."""

    starts: int = 32
    stops: int = 16
    hurried_seconds: float = 10.0
    """What is left of a grace period once the container is to go, or to run again: Docker's own."""
    request_seconds: float = 60.0
    facts_seconds: float = 10.0
    """Podman starts other programs to tell of itself, which takes its time on a busy host."""
    event_idle_seconds: float = 300.0
    """A silent stream is opened anew after this long: a dead peer looks the same."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Observers:
    """Who is told of requests (operation, outcome, seconds), phases (name, seconds), start limits.

    The phases are pull, create and start, and queue: the wait for a place to create or start in.
    """

    request: Callable[[str, str, float], None] = lambda _operation, _outcome, _seconds: None
    phase: Callable[[str, float], None] = lambda _phase, _seconds: None
    start_limit: Callable[[int], None] = lambda _limit: None


class DockerEngine:
    """See `ports.Engine` for the promises."""

    def __init__(  # noqa: PLR0913 - the outside is a constructor argument
        self,
        *,
        endpoint: Endpoint,
        naming: Naming,
        network: Network | None = None,
        limits: EngineLimits | None = None,
        pull_limits: PullLimits | None = None,
        credentials: FindCredentials = lambda _registry: None,
        secrets_dir: Path | None = None,
        observers: Observers | None = None,
        permit: Permit = unconditional,
        waiting: Waiting = nullcontext,
        allowed_labels: tuple[str, ...] = (),
    ) -> None:
        observers = observers or Observers()
        self._client = DockerClient(endpoint, observe_request=observers.request, permit=permit)
        self._images = Images(
            self._client,
            credentials=credentials,
            limits=pull_limits or PullLimits(),
            observe_pull=partial(observers.phase, "pull"),
            waiting=waiting,
            is_reserved=partial(is_reserved, allowed=allowed_labels),
        )
        self._naming = naming
        self._limits = limits or EngineLimits()
        seconds = self._limits.request_seconds
        self._network = network or Network()
        self._tenant_network = TenantNetwork(
            self._client, naming=naming, network=self._network, request_seconds=seconds
        )
        self._secrets = Secrets(
            self._client, naming=naming, folder=secrets_dir, request_seconds=seconds
        )
        self._last_words = LastWords(self._client, self._secrets)
        self._observe_phase = observers.phase
        self._gate = StartGate(self._limits.starts, on_change=observers.start_limit)
        self._creations = Creations()
        self._stops = Stops(
            self._client,
            inspect=self._inspect,
            at_rest=self._at_rest,
            places=self._limits.stops,
            hurried_seconds=self._limits.hurried_seconds,
            waiting=waiting,
        )
        self._removals = Places(self._limits.stops, patience_seconds=_REMOVAL_PATIENCE_SECONDS)

    @asynccontextmanager
    async def opened(self) -> AsyncIterator["DockerEngine"]:
        """Hold the connections for the length of the block; the engine may be away."""
        async with self._client.opened():
            yield self

    # --- looking

    async def observe(
        self, tenant_id: TenantId, *, concerns: Callable[[Sighting], bool] | None = None
    ) -> tuple[Container, ...]:
        """Return every container labelled as the tenant's that concerns it, oldest first."""
        listed = await self._list(self._naming.filters(tenant_id))
        if concerns is not None:
            listed = [line for line in listed if self._is_such(line, concerns)]
        found = [await self._inspect(str(line.get("Id"))) for line in listed]
        containers = [container for container in found if container is not None]
        return tuple(sorted(containers, key=lambda container: container.created_at))

    def _is_such(self, line: dict[str, object], concerns: Callable[[Sighting], bool]) -> bool:
        try:
            return concerns(to_sighting(line, self._naming))
        except ValueError:
            return True  # only inspecting it can tell

    async def survey(self) -> tuple[Sighting, ...]:
        """Return one line for each container with our labels."""
        sightings = []
        for line in await self._list(self._naming.filters()):
            try:
                sightings.append(to_sighting(line, self._naming))
            except ValueError:
                # Somebody wrote our labels on a container by hand; it is no tenant's.
                _log.debug("not a tenant's container", container=listed_name(line))
        return tuple(sightings)

    async def last_words(self, container: Container) -> str:
        """Return the end of what the container wrote, without what only its tenant may know."""
        document = await self._show(container.container_id)
        return "" if document is None else await self._last_words.of(container, document)

    async def tail(self, tenant: Tenant) -> str | None:
        """Return the last lines of the tenant's container; of an old and a new one, the new's."""
        concerns = partial(may_concern, tenant)
        containers = ours_among(tenant, await self.observe(tenant.tenant_id, concerns=concerns))
        if not containers:
            return None
        current = next((seen for seen in containers if seen.role is Role.CURRENT), containers[-1])
        document = await self._show(current.container_id)
        return None if document is None else await self._last_words.tail(current, document)

    async def facts(self) -> EngineFacts:
        """Return what the engine says of itself."""
        try:
            async with self._client.asking("info", self._limits.facts_seconds) as docker:
                version = await docker.version()
                told = await docker.system.info()
        except Refused as error:
            raise EngineUnavailable(f"the engine tells nothing of itself: {error}") from error
        await self._tenant_network.look(self._limits.facts_seconds)
        plugins = set((told.get("Plugins") or {}).get("Log") or [])
        if "k8s-file" in plugins:
            plugins.add("json-file")  # Podman takes it, and does not say so
        return EngineFacts(
            version=str(version.get("Version", "")),
            api_version=str(version.get("ApiVersion", "")),
            cpus=int(told.get("NCPU") or 0),
            memory_bytes=int(told.get("MemTotal") or 0),
            log_drivers=frozenset(str(name) for name in plugins),
        )

    async def _list(self, filters: dict[str, list[str]]) -> list[dict[str, object]]:
        seconds = self._limits.request_seconds
        try:
            async with self._client.asking("list", seconds) as docker:
                # The library's own `containers.list` wraps each line and hides it.
                listed = await docker._query_json(  # noqa: SLF001 - see above
                    "containers/json", params={"all": "1", "filters": as_filter(filters)}
                )
        except Refused as error:
            raise EngineUnavailable(f"the engine cannot list containers: {error}") from error
        return [line for line in listed if isinstance(line, dict)]

    async def _inspect(self, name: str) -> Container | None:
        """Return the container of this id or name; None when there is none or it is not ours."""
        document = await self._show(name)
        return None if document is None else self._read(document)

    def _read(self, document: dict[str, object]) -> Container | None:
        try:
            seen = to_container(document, self._naming)
            is_stopping = self._stops.is_under_way(seen.container_id) and seen.status in ALIVE
            return replace(seen, is_stopping=True) if is_stopping else seen
        except UnknownState as error:
            # Not "not there": another one would be made beside it.
            words = f"{document.get('Name')} is in {error}, which this consumer does not know"
            raise EngineUnavailable(f"the engine shows what is not understood: {words}") from error
        except ValueError:
            return None

    async def _show(self, name: str) -> dict[str, object] | None:
        try:
            async with self._client.asking("inspect", self._limits.request_seconds) as docker:
                container = await docker.containers.get(name)
        except Refused as error:
            if error.status == _NOT_FOUND:
                return None
            raise EngineUnavailable(f"the engine cannot inspect {name}: {error}") from error
        shown: dict[str, object] = container._container  # noqa: SLF001 - what `get` has just read
        return shown

    # --- preparing

    async def prepare(self, tenant_id: TenantId, spec: TenantSpec) -> None:
        """Bring in image and network; refuse a missing secret and a port of another tenant's."""
        await self._check_ports(tenant_id, spec)
        await self._secrets.read(tenant_id, spec.secrets)
        await self._images.ensure(spec.image, spec.pull_policy)
        if (spec.network_mode or self._network.name) == self._network.name:
            await self._tenant_network.ensure()

    async def _check_ports(self, tenant_id: TenantId, spec: TenantSpec) -> None:
        found = await self._find_holder(tenant_id, spec.ports)
        if found is not None:
            port, holder = found
            message = (
                f"{_CREATE}: host port {port.host_port}/{port.protocol.value} is held by {holder}"
            )
            raise EngineError(Reason.PORT_CONFLICT, message, is_transient=True)

    async def _find_holder(
        self, tenant_id: TenantId, ports: tuple[PortMapping, ...]
    ) -> tuple[PortMapping, str] | None:
        if not any(port.host_port for port in ports):
            return None
        # Whoever has the port, of whatever instance, the start would fail. What has a name of the
        # tenant's is its own, or its name is taken, which is told in its turn.
        others = [line for line in await self._list({}) if not self._has_name_of(tenant_id, line)]
        return holder_of(ports, others, self._naming, self._network.bind_address)

    def _has_name_of(self, tenant_id: TenantId, line: dict[str, object]) -> bool:
        container_id = ContainerId(str(line.get("Id")))
        return self._naming.gives(listed_name(line), tenant_id, container_id)

    # --- creating

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
        asked = _Asked(tenant_id, spec, generation, role, serial)
        name = self._naming.container(tenant_id, role)
        leftover = await self._creations.leftover(name)
        if leftover is not None and not asked.is_answered_by(leftover):
            await see_through(self._remove(leftover))  # never started, and wanted by nobody now
        async with self._timed("create", self._gate.creating()) as creation:
            created = await self._creations.see(name, self._create(name, asked))
            creation.container_id = created.container_id
        return created

    async def _create(self, name: str, asked: "_Asked") -> Container:
        naming, spec = self._naming, asked.spec
        document = to_create_document(
            spec,
            to_labels(naming, asked.tenant_id, spec, asked.generation, asked.serial),
            network=self._network.name,
            bind_address=self._network.bind_address,
            secrets_volume=naming.secrets_volume(uuid4().hex),
        )
        brought = self._images.brought_by(spec.image)
        if brought.excess is not None:
            message = f"{_CREATE}: the image {spec.image} {brought.excess}"
            raise EngineError(Reason.CREATE_FAILED, message, is_transient=False)
        document = override(document, brought)
        try:
            async with self._client.asking(
                "create", self._limits.request_seconds, may_hang=True
            ) as docker:
                await docker.containers.create(document, name=name)  # type: ignore[arg-type]  # JSON
        except (Refused, EngineUnavailable) as error:
            return await self._after_create_failed(name, asked, error)
        return await self._fresh(name, _CREATE)

    async def _after_create_failed(
        self, name: str, asked: "_Asked", error: Refused | EngineUnavailable
    ) -> Container:
        """Look whether it was created all the same; otherwise say why not.

        A lost answer or an internal error leaves that open, and a taken name may be our own from a
        try whose answer was lost.
        """
        is_clear = isinstance(error, Refused) and error.status in (_BAD_REQUEST, _NOT_FOUND)
        holder = None if is_clear else await self._show(name)
        if holder is not None:
            labelled = self._as_labelled(holder, asked.tenant_id)
            if labelled is not None and asked.is_answered_by(labelled):
                return labelled
            if isinstance(error, Refused):
                # Podman says 500 of it. Whatever else was wrong, the name cannot be had.
                raise self._name_conflict(name, holder, labelled) from error
        if isinstance(error, EngineUnavailable):
            raise error
        raise _create_failure(asked.spec, error) from error

    def _name_conflict(
        self, name: str, holder: dict[str, object], labelled: Container | None
    ) -> EngineError:
        container_id = str(holder.get("Id", ""))[:12]
        config = holder.get("Config")
        labels = config.get("Labels") if isinstance(config, dict) else None
        whose = who_is({"Labels": labels}, self._naming)
        if labelled is not None and labelled.origin.maker is Maker.US:
            words = "labelled as this tenant's, which is not the one that was asked for"
        elif labelled is not None:
            words = f"which another ledger's consumer made; {CURE_OF_LOST_LEDGER}"
        elif whose.startswith("tenant "):
            words = f"that of {whose}; two instances need tenants of their own, or two label_prefix"
        else:
            words = "not this tenant's"
        message = f"{_CREATE}: the name {name} is taken by container {container_id}, {words}"
        return EngineError(Reason.NAME_CONFLICT, message, is_transient=True)

    def _as_labelled(self, document: dict[str, object], tenant_id: TenantId) -> Container | None:
        config = document.get("Config")
        labels = config.get("Labels") if isinstance(config, dict) else None
        if not isinstance(labels, dict) or not self._naming.owns(labels):
            return None
        container = self._read(document)
        return container if container is not None and container.tenant_id == tenant_id else None

    async def _fresh(self, name: str, phrase: str) -> Container:
        container = await self._inspect(name)
        if container is None:
            # Removed by somebody this very moment: the next pass sees what there is.
            raise EngineError(
                Reason.CREATE_FAILED, f"{phrase}: {name} is not there any more", is_transient=True
            )
        return container

    # --- starting

    async def start(self, container: Container) -> Container:
        """Return the container, running."""
        if container.status is ContainerStatus.PAUSED:
            return await see_through(self._start(container))  # costs the host nothing
        async with self._timed("start", self._gate.starting(container.container_id)):
            return await see_through(self._start(container))

    @asynccontextmanager
    async def _timed(self, phase: str, place: AbstractAsyncContextManager[_T]) -> AsyncIterator[_T]:
        """Measure the work in the place, and apart from it the wait for the place."""
        asked = time.perf_counter()
        async with place as given:
            began = time.perf_counter()
            if began - asked > _SHORT_WAIT_SECONDS:
                self._observe_phase("queue", began - asked)
            yield given
            self._observe_phase(phase, time.perf_counter() - began)

    async def _start(self, container: Container) -> Container:
        self._stops.forget(container.container_id)
        if container.status is not ContainerStatus.PAUSED:
            await self._secrets.deliver(container)
        try:
            try:
                await self._ask_to_start(container)
            except Refused as error:
                mode = await self._network_mode(container)
                await self._tenant_network.mend(container, mode, error)
                await self._ask_to_start(container)
        except (Refused, EngineUnavailable) as error:
            return await self._after_start_failed(container, error)
        return await self._fresh_started(container)

    async def _ask_to_start(self, container: Container) -> None:
        async with self._client.asking(
            "start", self._limits.request_seconds, may_hang=True
        ) as docker:
            handle = docker.containers.container(container.container_id)
            if container.status is ContainerStatus.PAUSED:
                await handle.unpause()
            else:
                await handle.start()

    async def _network_mode(self, container: Container) -> str:
        shown = await self._show(container.container_id)
        host = shown.get("HostConfig") if shown is not None else None
        return str(host.get("NetworkMode")) if isinstance(host, dict) else ""

    async def _after_start_failed(
        self, container: Container, error: Refused | EngineUnavailable
    ) -> Container:
        seen = await self._inspect(container.container_id)
        if seen is not None and seen.status in _RUNNING:
            return seen
        if isinstance(error, EngineUnavailable):
            raise error
        if seen is None or seen.status is ContainerStatus.REMOVING:
            raise _vanished(container) from error
        raise await self._start_failure(container, seen, error) from error

    async def _fresh_started(self, container: Container) -> Container:
        seen = await self._inspect(container.container_id)
        if seen is None:
            raise _vanished(container)
        return seen

    async def _start_failure(
        self, container: Container, seen: Container, error: Refused
    ) -> EngineError:
        words = seen.error or error.message
        message = f"{_START}: Error response from daemon: {words}"
        exit_code = await self._exit_code(container)
        is_hopeless = exit_code in _COMMAND_FAULTS or _NO_COMMAND in words
        if is_hopeless or error.status == _BAD_REQUEST:
            return EngineError(Reason.START_FAILED, message, is_transient=False)
        reason = _hint(words) or _hint(error.message) or Reason.START_FAILED
        if reason is Reason.PORT_CONFLICT:
            message += await self._name_holder(container, words)
        return EngineError(reason, message, is_transient=True)

    async def _exit_code(self, container: Container) -> int | None:
        """Return the exit code of a start that failed: `State.ExitCode` while still `created`."""
        document = await self._show(container.container_id)
        state = document.get("State") if document is not None else None
        code = state.get("ExitCode") if isinstance(state, dict) else None
        return code if isinstance(code, int) else None

    async def _name_holder(self, container: Container, words: str) -> str:
        ports = tuple(
            PortMapping(1, int(number), protocol)
            for number in _PORT.findall(words)
            for protocol in {port.protocol for port in container.ports}
        )
        found = await self._find_holder(container.tenant_id, ports)
        return f" (held by {found[1]})" if found is not None else ""

    # --- stopping and removing

    async def stop(self, container: Container, *, is_hurried: bool = False) -> Container:
        """Return the container, stopped; killed when it outlives its own grace period."""
        return await self._stops.stop(container, is_hurried=is_hurried)

    async def _at_rest(self, container_ids: Sequence[ContainerId]) -> set[ContainerId]:
        """Return which of these do not run, or are gone."""
        listed = await self._list({"id": list(container_ids)})
        alive = {line.get("Id") for line in listed if not is_at_rest(line.get("State"))}
        return {container_id for container_id in container_ids if container_id not in alive}

    async def remove(self, container: Container) -> None:
        """Remove the container with its anonymous volumes, killing it if it runs."""
        async with self._removals.taken():
            await see_through(self._remove(container))
        self._stops.forget(container.container_id)

    async def _remove(self, container: Container) -> None:
        trouble: Exception | None = None
        try:
            async with self._client.asking(
                "remove", self._limits.request_seconds, may_hang=True
            ) as docker:
                handle = docker.containers.container(container.container_id)
                await handle.delete(force=True, v=True)
        except (Refused, EngineUnavailable) as error:
            trouble = error
        if trouble is None or await self._await_gone(container):
            await self._secrets.discard(container)
            return
        if isinstance(trouble, EngineUnavailable):
            raise trouble
        message = f"{_REMOVE}: Error response from daemon: {trouble}"
        raise EngineError(Reason.STOP_FAILED, message, is_transient=True) from trouble

    async def tidy(self) -> None:
        """Remove the volumes of secrets that no container has, once they are seen twice so."""
        await self._secrets.tidy()

    async def _await_gone(self, container: Container) -> bool:
        """Wait while it is being removed (an answer of 409 may mean that); say whether it went."""
        deadline = asyncio.get_running_loop().time() + _MARGIN_SECONDS
        while True:
            seen = await self._inspect(container.container_id)
            if seen is None:
                return True
            is_late = asyncio.get_running_loop().time() > deadline
            if seen.status is not ContainerStatus.REMOVING or is_late:
                return False
            await asyncio.sleep(_LOOK_SECONDS)

    # --- changing

    async def rename(self, container: Container, role: Role) -> Container:
        """Return the container under the role's name."""
        if role is Role.DISCARDED:
            name = self._naming.discarded(container.container_id)
        else:
            name = self._naming.container(container.tenant_id, role)

        async def ask() -> None:
            async with self._client.asking("rename", self._limits.request_seconds) as docker:
                await docker.containers.container(container.container_id).rename(name)

        return await see_through(
            self._change(container, ask, lambda seen: seen.name == name, Reason.NAME_CONFLICT)
        )

    async def adjust(self, container: Container, spec: TenantSpec) -> Container:
        """Return the container with the spec's CPU, memory and restart policy."""
        path = f"containers/{container.container_id}/update"

        async def ask() -> None:
            async with self._client.asking("update", self._limits.request_seconds) as docker:
                # The library has no method for it.
                await docker._query_json(path, "POST", data=to_update_document(spec))  # noqa: SLF001 - see above

        def is_so(seen: Container) -> bool:
            has_limits = seen.resources == spec.resources
            return has_limits and seen.restart_policy == spec.restart_policy

        return await see_through(self._change(container, ask, is_so, Reason.CREATE_FAILED))

    async def _change(
        self,
        container: Container,
        ask: Callable[[], Awaitable[None]],
        is_so: Callable[[Container], bool],
        reason: Reason,
    ) -> Container:
        """Ask for a change; what counts is what inspect shows afterwards."""
        trouble: Refused | EngineUnavailable | None = None
        try:
            await ask()
        except (Refused, EngineUnavailable) as error:
            trouble = error
        seen = await self._inspect(container.container_id)
        if seen is not None and is_so(seen):
            return seen
        if isinstance(trouble, EngineUnavailable):
            raise trouble
        if trouble is None and seen is not None:
            return seen
        if trouble is not None and trouble.status == _NOT_FOUND and seen is not None:
            message = (
                f"failed to change container: this engine cannot do that ({trouble.message}); "
                "delete the tenant and create it again"
            )
            raise EngineError(reason, message, is_transient=False) from trouble
        words = trouble.message if trouble is not None else "the container is gone"
        is_transient = trouble is None or trouble.status != _BAD_REQUEST
        message = f"failed to change container: Error response from daemon: {words}"
        raise EngineError(_hint(words) or reason, message, is_transient=is_transient) from trouble

    # --- events

    @asynccontextmanager
    async def events(self) -> AsyncIterator[AsyncIterator[EngineEvent]]:
        """Open the stream of engine events about our containers."""
        self._client.forget_version()
        since = await self._engine_second()
        filters = {"type": ["container"], **self._naming.filters()}
        idle = self._limits.event_idle_seconds
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=5.0, sock_read=idle)
        try:
            with self._client.streaming("events", self._limits.facts_seconds) as docker:
                async with asyncio.timeout(self._limits.facts_seconds):
                    response = await docker._do_query(  # noqa: SLF001 - the library's own loop never comes back after a loss
                        "events",
                        "GET",
                        params={"filters": as_filter(filters), "since": since},
                        timeout=timeout,
                    )
        except Refused as error:
            raise EngineUnavailable(f"the engine tells no events: {error}") from error
        try:
            yield self._read_events(response)
        finally:
            response.close()

    async def _engine_second(self) -> str:
        """Return the engine's time, a second ago, as it writes it itself.

        The engine sends its headers before it subscribes us; what happens in between is in its
        history, which `since` asks for.
        """
        try:
            async with self._client.asking("ping", self._limits.facts_seconds) as docker:
                response = await docker._do_query("_ping", "GET", versioned_api=False)  # noqa: SLF001 - no such method
                await response.read()
        except Refused as error:
            raise EngineUnavailable(f"the engine answers no ping: {error}") from error
        try:
            at = parsedate_to_datetime(response.headers.get("Date", ""))
        except ValueError:
            return "0"  # all of its history, a few hundred events: our time is none of its own
        return str(int((at - timedelta(seconds=1)).timestamp()))

    async def _read_events(self, response: aiohttp.ClientResponse) -> AsyncIterator[EngineEvent]:
        lines = bytearray()
        while True:
            with self._client.streaming("events", self._limits.event_idle_seconds):
                try:
                    chunk = await response.content.readany()
                except TimeoutError:
                    # Nothing happened, or the peer is dead: only a new stream can tell.
                    return
            if not chunk:
                return
            lines += chunk
            *whole, rest = lines.split(b"\n")
            lines = rest if len(rest) < _MOST_EVENT_BYTES else bytearray()
            for line in whole:
                event = self._event(bytes(line))
                if event is not None:
                    yield event

    def _event(self, line: bytes) -> EngineEvent | None:
        """Return what the line tells; None for what wakes nobody."""
        try:
            document = json.loads(line)
            action = str(document.get("Action") or document.get("status") or "")
            attributes = document["Actor"]["Attributes"]
            tenant_id = as_tenant_id(str(attributes[self._naming.label("tenant_id")]))
            container_id = ContainerId(str(document["Actor"]["ID"]))
            nanoseconds = int(document["timeNano"])
        except (ValueError, KeyError, TypeError, AttributeError):
            return None
        action = _PODMAN_ACTIONS.get(action, action)
        if action not in _WAKING and not action.startswith("health_status"):
            return None
        at = datetime.fromtimestamp(nanoseconds / 1e9, UTC)
        return EngineEvent(tenant_id, container_id, action, at)


@dataclass(frozen=True, slots=True)
class _Asked:
    """What is to be made."""

    tenant_id: TenantId
    spec: TenantSpec
    generation: int | None
    role: Role
    serial: int

    def is_answered_by(self, there: Container) -> bool:
        """Whether it is what was asked for, by this try or one before whose answer was lost."""
        origin = there.origin
        is_so = origin.maker is Maker.US and origin.serial == self.serial
        return is_so and there.fingerprint == self.spec.fingerprint


def _vanished(container: Container) -> EngineError:
    message = f"{_START}: {container.name} was removed by someone else meanwhile"
    return EngineError(Reason.MISSING, message, is_transient=True)


def _hint(words: str) -> Reason | None:
    text = words.lower()
    found = (reason for marks, reason in _HINTS if any(mark in text for mark in marks))
    return next(found, None)


def _create_failure(spec: TenantSpec, error: Refused) -> EngineError:
    message = f"{_CREATE}: Error response from daemon: {error.message}"
    if error.status == _NOT_FOUND and not lacks_network(error):
        return EngineError(Reason.IMAGE_NOT_FOUND, f"{message} ({spec.image})", is_transient=True)
    if error.status == _CONFLICT:
        return EngineError(Reason.NAME_CONFLICT, message, is_transient=True)
    reason = _hint(error.message) or Reason.CREATE_FAILED
    return EngineError(reason, message, is_transient=error.status != _BAD_REQUEST)
