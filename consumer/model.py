"""The values everybody speaks of: what is wanted of a tenant, what is seen, what was told.

All of them are frozen; changing one makes a new one. Nothing here waits, logs, measures or reads a
clock. Wire shapes are made of these values in `messages`, rows in `adapters/ledger`, engine
documents in `adapters/docker_spec`. Points in time are timezone-aware UTC.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields, is_dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final, NewType

from consumer.remembered import remembered

TenantId = NewType("TenantId", str)
EventId = NewType("EventId", str)
ContainerId = NewType("ContainerId", str)

TENANT_ID_PATTERN: Final = r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}"
TENANT_ID_RULE: Final = (
    "1 to 128 characters of A-Z a-z 0-9 _ . -, the first an ASCII letter or a digit"
)


def as_tenant_id(text: str) -> TenantId:
    """Return the text as a tenant id; raise ValueError with the rule when it is none."""
    if not re.fullmatch(TENANT_ID_PATTERN, text):
        raise ValueError(TENANT_ID_RULE)
    return TenantId(text)


def authority(host: str, port: int) -> str:
    """Return host and port as they stand in a URL: an IPv6 address in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


# --- what is wanted ---------------------------------------------------------------------------


class EventKind(StrEnum):
    """The tenant events of the contract."""

    CREATED = "tenant.created"
    UPDATED = "tenant.updated"
    DELETED = "tenant.deleted"
    SUSPENDED = "tenant.suspended"
    RESUMED = "tenant.resumed"


class Desired(StrEnum):
    """What should be true of a tenant's container."""

    RUNNING = "running"
    STOPPED = "stopped"
    DELETED = "deleted"


class Transport(StrEnum):
    """Protocol of a port."""

    TCP = "tcp"
    UDP = "udp"
    SCTP = "sctp"


@dataclass(frozen=True, slots=True)
class PortMapping:
    """A port of the container; `host_port` 0 means exposed but not published."""

    container_port: int
    host_port: int = 0
    protocol: Transport = Transport.TCP
    name: str | None = None


@dataclass(frozen=True, slots=True)
class RestartPolicy:
    """Docker's restart policy; `max_retries` counts for `on-failure` only, 0 = without end."""

    name: str = "unless-stopped"
    max_retries: int = 0


@dataclass(frozen=True, slots=True)
class Resources:
    """Hard limits: CPU in millicores (1000 = 1 CPU), memory in megabytes (1024 x 1024 bytes)."""

    cpu: int
    memory: int


@dataclass(frozen=True, slots=True)
class HealthCheck:
    """How the engine tests a container; an unset value is the engine's default.

    `test` is the engine's form (`("CMD", …)`, `("CMD-SHELL", …)`); `("NONE",)` switches off the
    image's.
    """

    test: tuple[str, ...]
    interval_seconds: float | None = None
    timeout_seconds: float | None = None
    start_period_seconds: float | None = None
    retries: int | None = None


@dataclass(frozen=True, slots=True)
class Ulimit:
    """A resource limit of the container's processes."""

    name: str
    soft: int
    hard: int


SECRETS_FOLDER: Final = "/run/secrets"
"""Where a container finds its secrets, as in Docker's Swarm and Compose."""

Pairs = tuple[tuple[str, str], ...]
"""A map of strings as sorted pairs: hashable, and equal whatever order it was written in."""


def as_pairs(mapping: Mapping[str, str]) -> Pairs:
    """Return the map as sorted pairs."""
    return tuple(sorted(mapping.items()))


@dataclass(frozen=True, slots=True, kw_only=True)
class TenantSpec:
    """Everything needed to create a tenant's container, defaults already filled in.

    Two specs are equal exactly when they ask for the same. Adding a field with a default does not
    change the fingerprint of specs that leave it alone, so an upgrade of the consumer replaces no
    container.
    """

    provider_type: str
    image: str
    resources: Resources
    container_name: str = "app"
    command: tuple[str, ...] = ()
    args: tuple[str, ...] = ()
    env: Pairs = ()
    ports: tuple[PortMapping, ...] = ()
    healthcheck: HealthCheck | None = None
    secrets: tuple[str, ...] = ()
    labels: Pairs = ()
    restart_policy: RestartPolicy = RestartPolicy()
    log_driver: str = "json-file"
    log_options: Pairs = ()
    pull_policy: str = "if_not_present"
    volumes: tuple[str, ...] = ()
    tmpfs: Pairs = ()
    network_mode: str | None = None
    user: str | None = None
    working_dir: str | None = None
    hostname: str | None = None
    read_only: bool = False
    init: bool = False
    stop_signal: str | None = None
    stop_grace_seconds: int = 10
    shm_size_mb: int | None = None
    pids_limit: int | None = None
    ulimits: tuple[Ulimit, ...] = ()
    cap_add: tuple[str, ...] = ()
    cap_drop: tuple[str, ...] = ()
    security_opt: tuple[str, ...] = ()
    privileged: bool = False
    runtime: str | None = None
    extra_hosts: tuple[str, ...] = ()
    dns: tuple[str, ...] = ()

    @property
    def fingerprint(self) -> str:
        """SHA-256 (hex) of all that can only be changed by making a new container.

        CPU, memory and the restart policy are left out: the engine changes them in place, and what
        it has is read back from it. So is the pull policy, which no container keeps.
        """
        return _fingerprint(self)


@remembered
def _fingerprint(spec: TenantSpec) -> str:
    document = as_document(spec)
    for adjustable in _NOT_IN_FINGERPRINT:
        document.pop(adjustable, None)
    canonical = json.dumps(document, sort_keys=True, ensure_ascii=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


_NOT_IN_FINGERPRINT: Final = ("resources", "restart_policy", "pull_policy")

Document = dict[str, object]
"""A JSON object on its way in or out."""


def as_document(value: object) -> Document:
    """Return a value of this module as a JSON object, without the fields at their default."""
    document: Document = {}
    if not is_dataclass(value):
        raise TypeError(type(value).__name__)
    for each in fields(value):
        content = getattr(value, each.name)
        if each.default is not MISSING and content == each.default:
            continue
        document[each.name] = _plain(content)
    return document


def _plain(content: object) -> object:
    if isinstance(content, tuple):
        return [_plain(member) for member in content]
    if is_dataclass(content):
        return as_document(content)
    return content


@dataclass(frozen=True, slots=True, kw_only=True)
class TenantEvent:
    """A valid tenant event. `spec` is there for created and updated, None for the others."""

    kind: EventKind
    tenant_id: TenantId
    received_at: datetime
    event_id: EventId | None = None
    generation: int | None = None
    spec: TenantSpec | None = None
    correlation_id: str | None = None
    traceparent: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """A tenant event that will not be acted upon, but whose tenant is to be told why."""

    tenant_id: TenantId
    received_at: datetime
    reason: "Reason"
    message: str
    event_id: EventId | None = None
    correlation_id: str | None = None
    traceparent: str | None = None


class Verdict(StrEnum):
    """What recording a tenant event came to."""

    RECORDED = "recorded"
    DUPLICATE = "duplicate"
    STALE = "stale"
    MISSING = "missing"
    """It is about a tenant that is not known, and there is nothing it could be about: refused."""


# --- what the engine shows --------------------------------------------------------------------


class ContainerStatus(StrEnum):
    """The engine's `State.Status`; never its `State.Running`, which is true in a backoff."""

    CREATED = "created"
    RUNNING = "running"
    PAUSED = "paused"
    RESTARTING = "restarting"
    REMOVING = "removing"
    EXITED = "exited"
    DEAD = "dead"


class Health(StrEnum):
    """The engine's health check: `none` where there is none."""

    NONE = "none"
    STARTING = "starting"
    HEALTHY = "healthy"
    UNHEALTHY = "unhealthy"


class Role(StrEnum):
    """Which of its tenant's names a container has.

    SUCCESSOR and PREDECESSOR are had only during a replacement, DISCARDED only by a container that
    is past use and that the engine cannot remove.
    """

    CURRENT = "tenant"
    SUCCESSOR = "successor"
    PREDECESSOR = "predecessor"
    DISCARDED = "discarded"


class Maker(StrEnum):
    """Which ledger's consumer made a container, as a label tells: its word, and no proof."""

    US = "us"
    ANOTHER = "another"
    UNKNOWN = "unknown"
    """The label is not there: an older consumer wrote none."""


@dataclass(frozen=True, slots=True)
class Origin:
    """What a container's labels and name say of its making.

    A copy (`docker commit` keeps labels) says the same, but has neither the name, of which there is
    one on an engine, nor the id that the ledger recorded. `serial` counts what was made for the
    tenant; 0 where it is not told. `has_our_name` says that the name is one that we give.
    """

    maker: Maker = Maker.US
    serial: int = 0
    has_our_name: bool = True


@dataclass(frozen=True, slots=True)
class BoundPort:
    """A port as the engine has it; `host_ip` and `host_port` are None where it is not published."""

    container_port: int
    protocol: Transport
    host_ip: str | None = None
    host_port: int | None = None
    name: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Container:
    """One container with our labels, as inspected; `fingerprint` and `generation` are among them.

    `secrets` are the names of those it is to be given before it starts, into `secrets_volume` (None
    where an older consumer gave that no name), `user` is whom it runs as.
    `is_stopping` says that we sent it its stop signal, and that it runs still.
    Its times are the engine's, to be compared with no clock but the engine's own; `run_seen` is
    when we first saw the run that began at `started_at`, by the clock that cannot step.
    """

    container_id: ContainerId
    name: str
    tenant_id: TenantId
    role: Role
    fingerprint: str
    image: str
    status: ContainerStatus
    created_at: datetime
    image_id: str = ""
    provider_type: str = "docker"
    generation: int | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None
    exit_code: int | None = None
    restart_count: int = 0
    oom_killed: bool = False
    error: str = ""
    health: Health = Health.NONE
    ports: tuple[BoundPort, ...] = ()
    resources: Resources | None = None
    restart_policy: RestartPolicy = RestartPolicy()
    stop_grace_seconds: int = 10
    secrets: tuple[str, ...] = ()
    secrets_volume: str | None = None
    user: str = ""
    origin: Origin = Origin()
    stop_signal: str = "SIGTERM"
    is_stopping: bool = False
    run_seen: float | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class Sighting:
    """One line of the engine's list: enough to see whether a closer look is due."""

    tenant_id: TenantId
    container_id: ContainerId
    role: Role
    status: ContainerStatus
    health: Health
    fingerprint: str
    created_at: datetime
    origin: Origin = Origin()


@dataclass(frozen=True, slots=True)
class EngineEvent:
    """Something happened to one of a tenant's containers: a reason to look, never a fact."""

    tenant_id: TenantId
    container_id: ContainerId
    action: str
    at: datetime


@dataclass(frozen=True, slots=True)
class EngineFacts:
    """What the engine says of itself: versions, CPUs (count), memory (bytes), log drivers."""

    version: str
    api_version: str
    cpus: int
    memory_bytes: int
    log_drivers: frozenset[str]


# --- what is told -----------------------------------------------------------------------------


class State(StrEnum):
    """The published summary."""

    RUNNING = "running"
    STOPPED = "stopped"
    FAILED = "failed"


class Reason(StrEnum):
    """Why a state is what it is: the closed set of the contract."""

    STARTED = "started"
    UPDATED = "updated"
    RESUMED = "resumed"
    RESTARTED = "restarted"
    ADOPTED = "adopted"
    HEALTHY = "healthy"
    UNCHANGED = "unchanged"
    ROLLED_BACK = "rolled_back"
    DELETED = "deleted"
    SUSPENDED = "suspended"
    EXITED = "exited"
    STOPPED_EXTERNALLY = "stopped_externally"
    INVALID_EVENT = "invalid_event"
    POLICY_DENIED = "policy_denied"
    PROVIDER_NOT_SUPPORTED = "provider_not_supported"
    IMAGE_NOT_FOUND = "image_not_found"
    IMAGE_PULL_DENIED = "image_pull_denied"
    IMAGE_PULL_FAILED = "image_pull_failed"
    CREATE_FAILED = "create_failed"
    START_FAILED = "start_failed"
    PORT_CONFLICT = "port_conflict"
    NETWORK_FAILED = "network_failed"
    NAME_CONFLICT = "name_conflict"
    INSUFFICIENT_RESOURCES = "insufficient_resources"
    OOM_KILLED = "oom_killed"
    CRASH_LOOP = "crash_loop"
    UNHEALTHY = "unhealthy"
    START_TIMEOUT = "start_timeout"
    STOP_FAILED = "stop_failed"
    MISSING = "missing"
    ENGINE_UNAVAILABLE = "engine_unavailable"
    INTERNAL_ERROR = "internal_error"


REASONS: Final[Mapping[State, frozenset[Reason]]] = {
    State.RUNNING: frozenset(
        {
            Reason.STARTED,
            Reason.UPDATED,
            Reason.RESUMED,
            Reason.RESTARTED,
            Reason.ADOPTED,
            Reason.HEALTHY,
            Reason.UNCHANGED,
            Reason.ROLLED_BACK,
        }
    ),
    State.STOPPED: frozenset(
        {
            Reason.DELETED,
            Reason.SUSPENDED,
            Reason.EXITED,
            Reason.STOPPED_EXTERNALLY,
            Reason.UNCHANGED,
        }
    ),
    State.FAILED: frozenset(
        {
            Reason.INVALID_EVENT,
            Reason.POLICY_DENIED,
            Reason.PROVIDER_NOT_SUPPORTED,
            Reason.IMAGE_NOT_FOUND,
            Reason.IMAGE_PULL_DENIED,
            Reason.IMAGE_PULL_FAILED,
            Reason.CREATE_FAILED,
            Reason.START_FAILED,
            Reason.PORT_CONFLICT,
            Reason.NETWORK_FAILED,
            Reason.NAME_CONFLICT,
            Reason.INSUFFICIENT_RESOURCES,
            Reason.EXITED,
            Reason.OOM_KILLED,
            Reason.CRASH_LOOP,
            Reason.UNHEALTHY,
            Reason.START_TIMEOUT,
            Reason.STOP_FAILED,
            Reason.MISSING,
            Reason.ENGINE_UNAVAILABLE,
            Reason.INTERNAL_ERROR,
        }
    ),
}
"""Which reasons go with which state."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """What became of a tenant: the value behind a status event.

    `sequence` is 0 until the ledger commits it and gives it its number. `container` is None when
    there is none. `startup_seconds` runs from the receipt of the event that is answered.
    """

    tenant_id: TenantId
    state: State
    reason: Reason
    message: str
    occurred_at: datetime
    provider_type: str
    sequence: int = 0
    generation: int | None = None
    event_id: EventId | None = None
    container: "ContainerReport | None" = None
    ports: tuple[BoundPort, ...] = ()
    health: Health = Health.NONE
    changes: tuple[str, ...] = ()
    startup_seconds: float | None = None
    will_retry: bool = False
    attempt: int = 1
    next_attempt_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerReport:
    """What a status tells of the container."""

    container_id: ContainerId
    name: str
    image: str
    image_id: str
    started_at: datetime | None
    finished_at: datetime | None
    exit_code: int | None
    restart_count: int
    oom_killed: bool
    health: Health


@dataclass(frozen=True, slots=True, kw_only=True)
class OutboxEntry:
    """A status event that the broker has not confirmed yet; `body` is its JSON, ready to send."""

    entry_id: int
    tenant_id: TenantId
    sequence: int
    state: State
    body: str
    created_at: datetime
    correlation_id: str | None
    traceparent: str | None


# --- what is remembered -----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Setback:
    """The last try at the recorded intention failed.

    `next_attempt_at` is None when trying again unchanged is pointless; a new tenant event clears
    it. It is for people: `due` is the same by the clock that cannot step, and never leaves the
    process.
    """

    attempt: int
    reason: Reason
    message: str
    next_attempt_at: datetime | None
    due: float | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tenant:
    """What the ledger knows of one tenant.

    `revision` counts recorded intentions and never leaves this process; `answered_revision` is the
    last one that a status event answered. `spec` is None for a tenant we know only by its container
    (a lost ledger) or by an event that carries none; `fingerprint` then is the container's label,
    if any. `applied` is the spec of the last pass that succeeded. `kind` is that of the last
    recorded event, None when it was adopted. `since` is when the state of `status` began, however
    often it was told since. `restarts` are the engine's times of restarts in the crash-loop window,
    oldest first. `containers` are the ids of those that we made for it, or took over, and did not
    remove; `made` is the serial of the last that is recorded, -1 where an older consumer counted
    none.
    """

    tenant_id: TenantId
    desired: Desired
    revision: int
    received_at: datetime
    answered_revision: int = 0
    kind: EventKind | None = None
    spec: TenantSpec | None = None
    fingerprint: str | None = None
    applied: TenantSpec | None = None
    generation: int | None = None
    event_id: EventId | None = None
    correlation_id: str | None = None
    traceparent: str | None = None
    sequence: int = 0
    status: Status | None = None
    since: datetime | None = None
    setback: Setback | None = None
    restarts: tuple[datetime, ...] = ()
    containers: tuple[ContainerId, ...] = ()
    made: int = 0

    @property
    def told_container(self) -> ContainerId | None:
        """The id of the container that the last status tells of."""
        told = self.status.container if self.status is not None else None
        return told.container_id if told is not None else None

    @property
    def is_answered(self) -> bool:
        """Whether the last recorded event has had its status event."""
        return self.answered_revision >= self.revision


@dataclass(frozen=True, slots=True, kw_only=True)
class TenantLine:
    """One tenant in a list for operators: short, and cheap to read by the thousand.

    `state` is that of the last status, or `pending` before it; `since` is when it began. `message`
    is the beginning of the status' own. `is_answered` as in `Tenant`.
    """

    tenant_id: TenantId
    desired: Desired
    state: str
    sequence: int
    since: datetime
    is_answered: bool
    reason: str | None = None
    message: str = ""
    health: str = Health.NONE.value
    image: str | None = None
    ports: tuple[BoundPort, ...] = ()
    restart_count: int = 0
    attempt: int = 0
    next_attempt_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Standing:
    """How a tenant stands, in few words: enough to see whether the engine's list fits.

    `state`, `reason` and `container_id` are those of the last status; None before the first, the
    latter also when it tells of no container.
    """

    tenant_id: TenantId
    desired: Desired
    is_answered: bool
    fingerprint: str | None = None
    setback: Setback | None = None
    state: State | None = None
    reason: Reason | None = None
    container_id: ContainerId | None = None
    containers: tuple[ContainerId, ...] = ()
    made: int = 0

    @property
    def told_container(self) -> ContainerId | None:
        """The id of the container that the last status tells of."""
        return self.container_id
