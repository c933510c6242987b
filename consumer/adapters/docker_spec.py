"""Between our values and the Engine API's documents: names, labels, what is sent, what is read.

Pure. What the engine takes without a word and then does wrong (a binding of a port that is not
exposed, an empty host port, a swap twice the limit) is never sent. What it shows is read
tolerantly, so that older engines and Podman are understood. Our labels are forced last: no label
of a tenant can stand for one of ours.
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from consumer.model import (
    SECRETS_FOLDER,
    BoundPort,
    Container,
    ContainerId,
    ContainerStatus,
    Document,
    Health,
    HealthCheck,
    Maker,
    Origin,
    PortMapping,
    Resources,
    RestartPolicy,
    Role,
    Sighting,
    TenantId,
    TenantSpec,
    Transport,
    as_tenant_id,
)

SCHEMA: Final = "1"
"""Version of our labels, for a later consumer that reads them."""

_MEGABYTE: Final = 1024 * 1024
_NANOCPUS_PER_MILLICORE: Final = 1_000_000
_NANOSECONDS: Final = 1_000_000_000
_INSTANT: Final = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d+))?(Z|[+-]\d\d:\d\d)")
_TOKEN: Final = re.compile(r"[0-9a-f]{32}")
_NEVER: Final = "0001-01-01"
_USUAL_GRACE_SECONDS: Final = 10
_USUAL_SIGNAL: Final = "SIGTERM"
_MOST_DIGITS: Final = 18
"""Of what still fits into 64 bits; a label may say anything."""
_PORT_KEY: Final = re.compile(r"(\d{1,5})(?:/(tcp|udp|sctp)?)?", re.IGNORECASE | re.ASCII)
_ENDED: Final = frozenset(
    {ContainerStatus.EXITED, ContainerStatus.DEAD, ContainerStatus.RESTARTING}
)
_AT_REST: Final = frozenset({ContainerStatus.CREATED, ContainerStatus.EXITED, ContainerStatus.DEAD})
_STATUS: Final = {
    **{status.value: status for status in ContainerStatus},
    # Podman's own.
    "configured": ContainerStatus.CREATED,
    "initialized": ContainerStatus.CREATED,
    "stopping": ContainerStatus.RUNNING,
    "stopped": ContainerStatus.EXITED,
}
_HEALTH_WORDS: Final = (
    ("(healthy)", Health.HEALTHY),
    ("(unhealthy)", Health.UNHEALTHY),
    ("(health: starting)", Health.STARTING),
)


class UnknownState(ValueError):
    """The engine shows a container of ours in a state that the model does not know."""


@dataclass(frozen=True, slots=True)
class Naming:
    """How what is ours is recognised on an engine: by prefix and instance, in labels and names."""

    prefix: str = "landlord"
    instance: str = "default"
    ledger_id: str = ""
    """Whose consumer makes containers under these names."""

    def label(self, name: str) -> str:
        """Return the key of one of our labels."""
        return f"{self.prefix}.{name}"

    def container(self, tenant_id: TenantId, role: Role) -> str:
        """Return the name of a tenant's container in this role."""
        return f"{self.prefix}-{role.value}-{tenant_id}"

    def discarded(self, container_id: ContainerId) -> str:
        """Return the name of a container that is set aside; there may be many of a tenant."""
        return f"{self.prefix}-{Role.DISCARDED.value}-{container_id[:12]}"

    def secrets_volume(self, token: str) -> str:
        """Return the name of a volume for the secrets of one container."""
        return f"{self.prefix}-secrets-{self.instance}-{token}"

    def is_secrets_volume(self, name: str) -> bool:
        """Whether `secrets_volume` gave this name."""
        begin = self.secrets_volume("")
        return name.startswith(begin) and _TOKEN.fullmatch(name[len(begin) :]) is not None

    def role(self, name: str, tenant_id: TenantId) -> Role:
        """Return the role that the name stands for; a foreign name stands for the current one."""
        if name == self.container(tenant_id, Role.CURRENT):
            return Role.CURRENT  # nearly always, and a resync asks for every container
        if name.startswith(self.discarded(ContainerId(""))):
            return Role.DISCARDED
        found = (role for role in Role if name == self.container(tenant_id, role))
        return next(found, Role.CURRENT)

    def origin(
        self,
        labels: Mapping[str, object],
        name: str,
        tenant_id: TenantId,
        container_id: ContainerId,
    ) -> Origin:
        """Return what labels and name say of a container's making."""
        return Origin(
            maker=self._maker(labels.get(self.label("ledger"))),
            serial=_number(labels.get(self.label("serial"))) or 0,
            has_our_name=self.gives(name, tenant_id, container_id),
        )

    def gives(self, name: str, tenant_id: TenantId, container_id: ContainerId) -> bool:
        """Whether we would have given this name to this container of the tenant."""
        if name == self.container(tenant_id, Role.CURRENT):
            return True  # nearly always, and a resync asks for every container
        others = (self.container(tenant_id, role) for role in (Role.SUCCESSOR, Role.PREDECESSOR))
        return name in others or name == self.discarded(container_id)

    def _maker(self, ledger_id: object) -> Maker:
        if ledger_id is None:
            return Maker.UNKNOWN
        return Maker.US if ledger_id == self.ledger_id else Maker.ANOTHER

    def filters(self, tenant_id: TenantId | None = None) -> dict[str, list[str]]:
        """Return the engine's label filter for all containers of ours, or one tenant's."""
        mine = self.label("tenant_id")
        wanted = mine if tenant_id is None else f"{mine}={tenant_id}"
        return {"label": [wanted, f"{self.label('instance')}={self.instance}"]}

    def owns(self, labels: Mapping[str, object]) -> bool:
        """Whether a container with these labels is ours."""
        is_of_instance = labels.get(self.label("instance")) == self.instance
        return is_of_instance and self.label("tenant_id") in labels


# --- what is sent -----------------------------------------------------------------------------


def to_labels(
    naming: Naming, tenant_id: TenantId, spec: TenantSpec, generation: int | None, serial: int
) -> dict[str, str]:
    """Return the tenant's labels with ours over them."""
    ours = {
        "tenant_id": tenant_id,
        "instance": naming.instance,
        "generation": "" if generation is None else str(generation),
        "spec": spec.fingerprint,
        "schema": SCHEMA,
        "container_name": spec.container_name,
        "owner": naming.prefix,
        "provider": spec.provider_type,
        "ledger": naming.ledger_id,
        "serial": str(serial),
        # The names alone: whoever starts the container knows by them what to put in.
        "secrets": ",".join(spec.secrets),
    }
    return {**dict(spec.labels), **{naming.label(name): value for name, value in ours.items()}}


def to_create_document(
    spec: TenantSpec,
    labels: Mapping[str, str],
    *,
    network: str,
    bind_address: str,
    secrets_volume: str | None = None,
) -> Document:
    """Return the body of the engine's create request; the volume is for the tenant's secrets."""
    document: Document = {
        "Image": spec.image,
        "Labels": dict(labels),
        "Env": [f"{name}={value}" for name, value in spec.env],
        "ExposedPorts": {_port_key(port): {} for port in spec.ports},
        "HostConfig": _host_document(spec, network, bind_address),
    }
    if spec.secrets and secrets_volume is not None:
        mount = {"Type": "volume", "Source": secrets_volume, "Target": SECRETS_FOLDER}
        document["HostConfig"] = {**_mapping(document["HostConfig"]), "Mounts": [mount]}
    # The Kubernetes reading: command replaces ENTRYPOINT, args replace CMD. An empty list is not
    # sent: the engine would take it for "nothing to run".
    optional: Document = {
        "Entrypoint": list(spec.command),
        "Cmd": list(spec.args),
        "User": spec.user,
        "WorkingDir": spec.working_dir,
        "Hostname": spec.hostname,
        "StopSignal": spec.stop_signal,
        "Healthcheck": _healthcheck_document(spec.healthcheck),
        # A volume can be filled before the start, also when the root file system is read-only.
        "Volumes": {SECRETS_FOLDER: {}} if spec.secrets else {},
    }
    document.update({key: value for key, value in optional.items() if value})
    # Read back for our own stop, also when the spec is no longer known; `docker stop` by hand waits
    # as long.
    document["StopTimeout"] = spec.stop_grace_seconds
    return document


def _host_document(spec: TenantSpec, network: str, bind_address: str) -> Document:
    memory = spec.resources.memory * _MEGABYTE
    document: Document = {
        "NetworkMode": spec.network_mode or network,
        "PortBindings": _bindings(spec.ports, bind_address),
        "NanoCpus": spec.resources.cpu * _NANOCPUS_PER_MILLICORE,
        "Memory": memory,
        # Equal, or the engine grants as much swap again.
        "MemorySwap": memory,
        "RestartPolicy": to_restart_document(spec.restart_policy),
        "LogConfig": {"Type": spec.log_driver, "Config": dict(spec.log_options)},
        "AutoRemove": False,
        "Privileged": spec.privileged,
        "ReadonlyRootfs": spec.read_only,
        "Init": spec.init,
    }
    optional: Document = {
        "Binds": list(spec.volumes),
        "Tmpfs": dict(spec.tmpfs),
        "ShmSize": (spec.shm_size_mb or 0) * _MEGABYTE,
        "PidsLimit": spec.pids_limit,
        "Ulimits": [
            {"Name": limit.name, "Soft": limit.soft, "Hard": limit.hard} for limit in spec.ulimits
        ],
        "CapAdd": list(spec.cap_add),
        "CapDrop": list(spec.cap_drop),
        "SecurityOpt": list(spec.security_opt),
        "Runtime": spec.runtime,
        "ExtraHosts": list(spec.extra_hosts),
        "Dns": list(spec.dns),
    }
    document.update({key: value for key, value in optional.items() if value})
    return document


def to_restart_document(policy: RestartPolicy) -> Document:
    """Return the policy as the engine writes it."""
    return {"Name": policy.name, "MaximumRetryCount": policy.max_retries}


def to_update_document(spec: TenantSpec) -> Document:
    """Return the body of the engine's update request: what changes without a new container."""
    memory = spec.resources.memory * _MEGABYTE
    return {
        "NanoCpus": spec.resources.cpu * _NANOCPUS_PER_MILLICORE,
        "Memory": memory,
        "MemorySwap": memory,
        "RestartPolicy": to_restart_document(spec.restart_policy),
    }


def _port_key(port: PortMapping) -> str:
    return f"{port.container_port}/{port.protocol.value}"


def _bindings(ports: Iterable[PortMapping], bind_address: str) -> Document:
    """Return the bindings of published ports; host port "" or "0" would mean any free one."""
    bindings: dict[str, list[Document]] = {}
    for port in ports:
        if port.host_port:
            binding: Document = {"HostIp": bind_address, "HostPort": str(port.host_port)}
            bindings.setdefault(_port_key(port), []).append(binding)
    return dict(bindings)


def _healthcheck_document(healthcheck: HealthCheck | None) -> Document:
    if healthcheck is None:
        return {}
    times = {
        "Interval": healthcheck.interval_seconds,
        "Timeout": healthcheck.timeout_seconds,
        "StartPeriod": healthcheck.start_period_seconds,
    }
    document: Document = {"Test": list(healthcheck.test)}
    document.update(
        {name: round(seconds * _NANOSECONDS) for name, seconds in times.items() if seconds}
    )
    if healthcheck.retries is not None:
        document["Retries"] = healthcheck.retries
    return document


# --- what is read -----------------------------------------------------------------------------


def to_container(inspected: object, naming: Naming) -> Container:
    """Return the container that an inspect document shows.

    Raises ValueError when it has not our labels, UnknownState when it has.
    """
    document = _mapping(inspected)
    config = _mapping(document.get("Config"))
    host = _mapping(document.get("HostConfig"))
    state = _mapping(document.get("State"))
    labels = _mapping(config.get("Labels"))
    tenant_id = as_tenant_id(_text(labels.get(naming.label("tenant_id"))))
    name = _text(document.get("Name")).removeprefix("/")
    status = _status(state.get("Status"))
    container_id = ContainerId(_text(document.get("Id")))
    return Container(
        container_id=container_id,
        name=name,
        tenant_id=tenant_id,
        role=naming.role(name, tenant_id),
        fingerprint=_text(labels.get(naming.label("spec"))),
        provider_type=_text(labels.get(naming.label("provider"))) or "docker",
        generation=_number(labels.get(naming.label("generation"))),
        image=_text(config.get("Image")),
        image_id=_text(document.get("Image")),
        status=status,
        created_at=_instant(document.get("Created")) or datetime.fromtimestamp(0, UTC),
        started_at=_instant(state.get("StartedAt")),
        finished_at=_instant(state.get("FinishedAt")),
        exit_code=_integer(state.get("ExitCode")) if status in _ENDED else None,
        restart_count=_integer(document.get("RestartCount")),
        oom_killed=state.get("OOMKilled") is True and status in _ENDED,
        error=_text(state.get("Error")),
        health=_health(_mapping(state.get("Health")).get("Status")),
        ports=_bound_ports(config, _mapping(document.get("NetworkSettings")), status),
        resources=_resources(host),
        restart_policy=_restart_policy(_mapping(host.get("RestartPolicy"))),
        stop_grace_seconds=_stop_grace(config.get("StopTimeout")),
        secrets=_secrets(labels.get(naming.label("secrets"))),
        user=_text(config.get("User")),
        stop_signal=_text(config.get("StopSignal")) or _USUAL_SIGNAL,
        secrets_volume=_secrets_volume(document.get("Mounts"), naming),
        origin=naming.origin(labels, name, tenant_id, container_id),
    )


def to_sighting(listed: object, naming: Naming) -> Sighting:
    """Return what one line of the engine's list shows. Raises ValueError without our labels."""
    document = _mapping(listed)
    labels = _mapping(document.get("Labels"))
    tenant_id = as_tenant_id(_text(labels.get(naming.label("tenant_id"))))
    container_id, name = ContainerId(_text(document.get("Id"))), listed_name(document)
    return Sighting(
        tenant_id=tenant_id,
        container_id=container_id,
        role=naming.role(name, tenant_id),
        status=_status(document.get("State")),
        health=_listed_health(document),
        fingerprint=_text(labels.get(naming.label("spec"))),
        created_at=datetime.fromtimestamp(_integer(document.get("Created")), UTC),
        origin=naming.origin(labels, name, tenant_id, container_id),
    )


def listed_name(listed: Mapping[str, object]) -> str:
    """Return the name in a line of the list; links make further names, with more slashes."""
    names = listed.get("Names")
    plain = (
        name.removeprefix("/")
        for name in (names if isinstance(names, list) else [])
        if isinstance(name, str) and name.count("/") <= 1
    )
    return next(plain, "")


def holder_of(
    ports: Iterable[PortMapping], listed: Iterable[object], naming: Naming, bind_address: str
) -> tuple[PortMapping, str] | None:
    """Return the first wanted host port that a listed container has, and who that is."""
    held: dict[tuple[int, str], str] = {}
    for line in listed:
        document = _mapping(line)
        # Podman shows those of containers at rest as well.
        rests = is_at_rest(document.get("State"))
        bound = None if rests else document.get("Ports")
        for entry in bound if isinstance(bound, list) else []:
            has = _mapping(entry)
            if _overlap(_text(has.get("IP")), bind_address):
                place = _integer(has.get("PublicPort")), _text(has.get("Type"))
                held[place] = who_is(document, naming)
    for port in ports:
        holder = held.get((port.host_port, port.protocol.value))
        if port.host_port and holder is not None:
            return port, holder
    return None


def is_at_rest(state: object) -> bool:
    """Whether a container in this state, as the list has it, does not run."""
    try:
        return _status(state) in _AT_REST
    except ValueError:
        return False  # unheard of: better taken for one that holds its ports


def _overlap(one: str, other: str) -> bool:
    """Whether a port bound at one address cannot be bound at the other too."""
    is_everywhere = {"", "0.0.0.0", "::"} & {one, other}  # noqa: S104 - compared
    are_alike = not one or not other or (":" in one) == (":" in other)
    return one == other or (bool(is_everywhere) and are_alike)


def who_is(listed: Mapping[str, object], naming: Naming) -> str:
    """Return whose a container is, as far as its labels tell; its name if they tell nothing."""
    labels = _mapping(listed.get("Labels"))
    tenant_id = _text(labels.get(naming.label("tenant_id")))
    instance = _text(labels.get(naming.label("instance")))
    if not tenant_id:
        return f"container {listed_name(listed)}"
    return f"tenant {tenant_id}" + ("" if naming.owns(labels) else f" of instance {instance!r}")


def network_trouble(found: Sequence[Mapping[str, object]], driver: str) -> str | None:
    """Return why containers cannot join the networks of one name; the words follow the name."""
    if len(found) > 1:
        ids = ", ".join(_text(line.get("Id"))[:12] for line in found)
        return f"is there {len(found)} times ({ids}); remove all but one"
    for line in found:
        theirs = _text(line.get("Driver"))
        # A swarm tells none of a network that it has only just been asked for.
        if theirs and theirs != driver:
            return (
                f"exists with driver {theirs!r}, wanted is {driver!r} "
                "(compute.docker.network_driver)"
            )
        if driver == "overlay" and line.get("Attachable") is not True:
            return (
                "is an overlay that is not attachable: only services can join it; make it with "
                "--attachable, or let it be made"
            )
    return None


def _bound_ports(
    config: Mapping[str, object], network: Mapping[str, object], status: ContainerStatus
) -> tuple[BoundPort, ...]:
    # A container that does not run has bound none, though Podman shows them even so; what it
    # exposes is all that can be said.
    bound = {} if status in _AT_REST else _mapping(network.get("Ports"))
    keys = {**_mapping(config.get("ExposedPorts")), **bound}
    ports = [port for key in keys for port in _ports_of(key, bound.get(key))]
    return tuple(sorted(ports, key=lambda port: (port.container_port, port.protocol, _order(port))))


def _order(port: BoundPort) -> tuple[int, str]:
    return port.host_port or 0, port.host_ip or ""


def _ports_of(key: str, bindings: object) -> list[BoundPort]:
    found = _PORT_KEY.fullmatch(key)
    if found is None:
        # An image's `EXPOSE` may stand there as somebody wrote it, a range too: nothing of ours.
        return []
    exposed = BoundPort(int(found[1]), Transport((found[2] or "tcp").lower()))
    if not isinstance(bindings, list) or not bindings:
        return [exposed]
    pairs = {
        (_text(binding.get("HostIp")) or "0.0.0.0", int(_text(binding.get("HostPort")) or 0))  # noqa: S104 - read
        for binding in map(_mapping, bindings)
    }
    # An engine that binds "all addresses" twice, once for IPv6, binds one port.
    shown = {pair for pair in pairs if pair[0] != "::" or ("0.0.0.0", pair[1]) not in pairs}  # noqa: S104 - compared
    return [
        BoundPort(exposed.container_port, exposed.protocol, host_ip, host_port)
        for host_ip, host_port in shown
    ]


def _resources(host: Mapping[str, object]) -> Resources | None:
    nanocpus, memory = _integer(host.get("NanoCpus")), _integer(host.get("Memory"))
    if not nanocpus and not memory:
        return None
    return Resources(nanocpus // _NANOCPUS_PER_MILLICORE, memory // _MEGABYTE)


def _restart_policy(policy: Mapping[str, object]) -> RestartPolicy:
    name = _text(policy.get("Name")) or "no"
    return RestartPolicy(name, _integer(policy.get("MaximumRetryCount")))


def _stop_grace(seconds: object) -> int:
    """Return the grace period; what is not shown, or below 0 (without end), is the usual one."""
    return seconds if isinstance(seconds, int) and seconds >= 0 else _USUAL_GRACE_SECONDS


def _status(status: object) -> ContainerStatus:
    text = _text(status)
    known = _STATUS.get(text)
    if known is None:
        raise UnknownState(f"state {text!r}")
    return known


def _health(status: object) -> Health:
    text = _text(status)
    return Health(text) if text in {member.value for member in Health} else Health.NONE


def _listed_health(listed: Mapping[str, object]) -> Health:
    """Read the health from a line's field, before API 1.52 from its words: `Up 1 day (healthy)`."""
    if "Health" in listed:
        return _health(_mapping(listed["Health"]).get("Status"))
    status = _text(listed.get("Status"))
    told = (health for words, health in _HEALTH_WORDS if words in status)
    # Most lines have none of them, nor brackets.
    return next(told, Health.NONE) if "(" in status else Health.NONE


def _number(label: object) -> int | None:
    text = _text(label)
    is_number = text.isascii() and text.isdigit() and len(text) <= _MOST_DIGITS
    return int(text) if is_number else None


def _secrets(label: object) -> tuple[str, ...]:
    return tuple(name for name in _text(label).split(",") if name)


def _secrets_volume(mounts: object, naming: Naming) -> str | None:
    for mount in map(_mapping, mounts if isinstance(mounts, list) else []):
        name = _text(mount.get("Name"))
        if mount.get("Destination") == SECRETS_FOLDER and naming.is_secrets_volume(name):
            return name
    return None


def _instant(value: object) -> datetime | None:
    """Return the time in milliseconds: what a status event can carry, so both compare equal."""
    found = _INSTANT.fullmatch(_text(value))
    if found is None or _text(value).startswith(_NEVER):
        return None
    seconds, fraction, offset = found.groups()
    zone = "+00:00" if offset == "Z" else offset
    moment = f"{seconds}.{(fraction or '')[:3].ljust(3, '0')}{zone}"
    return datetime.fromisoformat(moment).astimezone(UTC)


def _mapping(value: object) -> dict[str, object]:
    return value if isinstance(value, dict) else {}


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _integer(value: object) -> int:
    return value if isinstance(value, int) else 0


def as_filter(filters: Mapping[str, list[str]]) -> str:
    """Return list filters as the engine takes them in a query."""
    return json.dumps(filters)
