"""What a tenant may ask for on this host: pure, deny by default.

`check` names every rule that a spec breaks, with the setting it comes from; `harden` adds what
every container gets, asked for or not. `Admission` joins both with decoding, as the one way in for
a tenant event. A rule that needs to know the host (its CPUs, memory, log drivers) is silent until
the engine has been asked; the engine itself then refuses.
"""

import posixpath
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Final

from consumer.document import SpecDefaults
from consumer.errors import Fault, InvalidMessage
from consumer.image_reference import DEFAULT_REGISTRY, ImageReference, parse_image
from consumer.messages import Delivery, content_key, decode_tenant_event, readdressed
from consumer.model import EngineFacts, Reason, TenantEvent, TenantId, TenantSpec
from consumer.remembered import REMEMBERED

PortRange = tuple[int, int]

NO_NEW_PRIVILEGES: Final = "no-new-privileges"
_TIGHT: Final = frozenset(f"{NO_NEW_PRIVILEGES}{way}" for way in ("", ":true", "=true"))
"""The ways to ask for it."""
_PRIORITIES: Final = frozenset({"nice", "rtprio"})
_MEGABYTE: Final = 1024 * 1024
_PRECIOUS: Final = ("/", "/proc", "/sys", "/dev", "/etc", "/var/lib/docker", "/run", "/var/run")
"""Host paths that an allowed prefix does not open; only writing exactly them in the policy does."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """The operator's rules; every default is the contract's.

    `images` None allows all. `max_cpu` (millicores) and `max_memory` (megabytes) None mean the
    host's. `network_modes` None means the configured network and `none`.
    """

    images: tuple[str, ...] | None = None
    require_digest: bool = False
    max_cpu: int | None = None
    max_memory: int | None = None
    host_ports: tuple[PortRange, ...] = ((1, 65535),)
    volumes: tuple[str, ...] = ()
    network_modes: tuple[str, ...] | None = None
    network_name: str = "bridge"
    privileged: bool = False
    cap_add: tuple[str, ...] = ()
    security_opt: tuple[str, ...] = ()
    runtimes: tuple[str, ...] = ()
    log_drivers: tuple[str, ...] = ("json-file", "local", "none")
    pids_limit: int = 1024
    max_pids: int = 4096
    cap_drop: tuple[str, ...] = ("NET_RAW",)
    facts: EngineFacts | None = None


def check(spec: TenantSpec, policy: Policy) -> tuple[Fault, ...]:
    """Return every rule that the spec breaks; empty when it may run."""
    return tuple(
        fault
        for rule in (
            _image,
            _resources,
            _ports,
            _mounts,
            _network,
            _privileges,
            _limits,
            _logging,
            _pids,
        )
        for fault in rule(spec, policy)
    )


def harden(spec: TenantSpec, policy: Policy) -> TenantSpec:
    """Return the spec with what every container gets: fewer capabilities, no new privileges."""
    # What `check` let the tenant add is not dropped again.
    dropped = {*policy.cap_drop} - {*spec.cap_add}
    # Whoever wrote it, nothing that says the opposite is kept: the engine takes the last word.
    security_opt = tuple(
        option
        for option in spec.security_opt
        if option in _TIGHT or not option.startswith(NO_NEW_PRIVILEGES)
    )
    if _TIGHT.isdisjoint(security_opt):
        security_opt = (*security_opt, NO_NEW_PRIVILEGES)
    return replace(
        spec,
        cap_drop=tuple(sorted({*spec.cap_drop, *dropped})),
        security_opt=security_opt,
        pids_limit=spec.pids_limit or min(policy.pids_limit, policy.max_pids),
    )


def _image(spec: TenantSpec, policy: Policy) -> Iterator[Fault]:
    field = "containers[0].image"
    reference = parse_image(spec.image)
    if policy.require_digest and reference.digest is None:
        yield Fault(field, f"needs a digest (compute.policy.require_digest), got {spec.image!r}")
    if policy.images is not None and not _is_listed(reference, policy.images):
        allowed = _listing(policy.images)
        yield Fault(field, f"compute.policy.images allows only {allowed}, got {spec.image!r}")


def _is_listed(reference: ImageReference, patterns: Iterable[str]) -> bool:
    """Whether a pattern matches the canonical reference, its name, or Docker's short form."""
    full = (str(reference), reference.name)
    written = _as_written(reference)
    short = [written + name.removeprefix(reference.name) for name in full] if written else []
    return any(fnmatchcase(name, pattern) for pattern in patterns for name in (*full, *short))


def _as_written(reference: ImageReference) -> str | None:
    """Return the name without what Docker fills in; None where that would name another image."""
    short = reference.repository
    if short.count("/") == 1:
        short = short.removeprefix("library/")
    first, slash, _ = short.partition("/")
    is_registry = slash and ("." in first or first == "localhost")
    return None if is_registry or reference.registry != DEFAULT_REGISTRY else short


def _resources(spec: TenantSpec, policy: Policy) -> Iterator[Fault]:
    facts = policy.facts
    cpu = _least(policy.max_cpu, facts.cpus * 1000 if facts is not None else None)
    memory = _least(policy.max_memory, facts.memory_bytes // _MEGABYTE if facts else None)
    if cpu is not None and spec.resources.cpu > cpu:
        yield _above("resources.cpu", "compute.policy.max_cpu", cpu, spec.resources.cpu)
    if memory is not None and spec.resources.memory > memory:
        yield _above("resources.memory", "compute.policy.max_memory", memory, spec.resources.memory)


def _least(*limits: int | None) -> int | None:
    return min((limit for limit in limits if limit is not None), default=None)


def _above(field: str, setting: str, limit: int, value: int) -> Fault:
    return Fault(field, f"at most {limit} on this host ({setting}), got {value}")


def _ports(spec: TenantSpec, policy: Policy) -> Iterator[Fault]:
    for port in spec.ports:
        ranges = policy.host_ports
        if port.host_port and not any(low <= port.host_port <= high for low, high in ranges):
            allowed = _listing(f"{low}-{high}" for low, high in ranges)
            rule = f"compute.policy.host_ports allows only {allowed}, got {port.host_port}"
            # By its value: the spec has the ports in an order of its own.
            yield Fault("containers[0].ports", rule)


def _mounts(spec: TenantSpec, policy: Policy) -> Iterator[Fault]:
    for place, volume in enumerate(spec.volumes):
        source = volume.split(":")[0]
        if not _may_mount(source, policy.volumes):
            allowed = _listing(policy.volumes)
            yield Fault(
                f"provider_config.volumes[{place}]",
                f"compute.policy.volumes allows only {allowed}, got {source!r}",
            )


def _may_mount(source: str, allowed: Iterable[str]) -> bool:
    """Whether the source is an allowed volume name, or lies below an allowed host path."""
    if not source.startswith("/"):
        return source in allowed
    if ".." in source.split("/"):
        return False
    path = posixpath.normpath("/" + source.lstrip("/"))
    prefixes = [
        posixpath.normpath("/" + entry.lstrip("/")) for entry in allowed if entry[:1] == "/"
    ]
    if path in prefixes:
        return True
    if path.endswith("/docker.sock") or any(_is_at_or_above(path, kept) for kept in _PRECIOUS):
        return False
    below = [prefix for prefix in prefixes if _is_at_or_above(prefix, path)]
    opened = [kept for kept in _PRECIOUS[1:] if _is_at_or_above(kept, path)]
    # Below a precious path only a prefix that itself lies in it opens the way.
    return any(
        prefix != "/" and all(_is_at_or_above(kept, prefix) for kept in opened) for prefix in below
    )


def _is_at_or_above(upper: str, path: str) -> bool:
    return upper == path or path.startswith(upper.rstrip("/") + "/")


def _network(spec: TenantSpec, policy: Policy) -> Iterator[Fault]:
    mode = spec.network_mode
    if mode is None:
        return
    modes = policy.network_modes
    usual = dict.fromkeys((policy.network_name, "none"))
    allowed = tuple(usual) if modes is None else modes
    if mode not in allowed:
        yield Fault(
            "provider_config.network_mode",
            f"compute.policy.network_modes allows only {_listing(allowed)}, got {mode!r}",
        )


def _privileges(spec: TenantSpec, policy: Policy) -> Iterator[Fault]:
    if spec.privileged and not policy.privileged:
        yield Fault("provider_config.privileged", "compute.policy.privileged does not allow it")
    yield from _unlisted("cap_add", spec.cap_add, policy.cap_add)
    yield from _unlisted("security_opt", _asked_options(spec), policy.security_opt)
    if spec.runtime is not None:
        yield from _unlisted("runtime", (spec.runtime,), policy.runtimes, setting="runtimes")


def _asked_options(spec: TenantSpec) -> tuple[str, ...]:
    """Return the security options but the one that takes rights away."""
    return tuple(option for option in spec.security_opt if option not in _TIGHT)


def _unlisted(
    key: str, asked: Iterable[str], allowed: Iterable[str], *, setting: str | None = None
) -> Iterator[Fault]:
    for name in asked:
        if name not in allowed:
            rule = f"compute.policy.{setting or key} allows only {_listing(allowed)}, got {name!r}"
            yield Fault(f"provider_config.{key}", rule)


def _limits(spec: TenantSpec, policy: Policy) -> Iterator[Fault]:
    """Refuse what would let a process run before those of other tenants, whatever its CPU limit."""
    if not {"SYS_NICE", "ALL"}.isdisjoint(policy.cap_add):
        return
    for limit in spec.ulimits:
        if limit.name in _PRIORITIES and (limit.soft, limit.hard) != (0, 0):
            rule = f"{limit.name} other than 0 needs SYS_NICE in compute.policy.cap_add"
            yield Fault("provider_config.ulimits", rule)


def _logging(spec: TenantSpec, policy: Policy) -> Iterator[Fault]:
    field, driver = "provider_config.log_driver", spec.log_driver
    if driver not in policy.log_drivers:
        allowed = _listing(policy.log_drivers)
        yield Fault(field, f"compute.policy.log_drivers allows only {allowed}, got {driver!r}")
    elif policy.facts is not None and driver not in {*policy.facts.log_drivers, "none"}:
        known = _listing(sorted(policy.facts.log_drivers))
        yield Fault(field, f"this engine has only {known}, got {driver!r}")


def _pids(spec: TenantSpec, policy: Policy) -> Iterator[Fault]:
    if spec.pids_limit is not None and spec.pids_limit > policy.max_pids:
        setting = "compute.policy.max_pids"
        yield _above("provider_config.pids_limit", setting, policy.max_pids, spec.pids_limit)


def _listing(values: Iterable[str]) -> str:
    return ", ".join(values) or "nothing"


class Admission:
    """The one way in for a tenant event: decoded, checked, hardened."""

    def __init__(self, *, defaults: SpecDefaults, policy: Policy) -> None:
        self._defaults = defaults
        self._policy = policy, object()
        """With a mark that is another one for each policy."""

    def learn(self, facts: EngineFacts) -> None:
        """Take note of what the engine says of its host."""
        policy, _ = self._policy
        if facts != policy.facts:
            self._policy = replace(policy, facts=facts), object()

    def admits(self, _: TenantId, spec: TenantSpec) -> tuple[Fault, ...]:
        """Return every rule of today that a recorded spec breaks; the host's size is none."""
        return check(spec, replace(self._policy[0], facts=None))

    def admit(self, delivery: Delivery) -> TenantEvent:
        """Return the tenant event. Raises InvalidMessage with every fault."""
        (policy, mark), content = self._policy, content_key(delivery)
        if content is None:
            return self._admit(delivery, policy)
        # Publishers repeat themselves. What was admitted was so by one policy.
        key = (mark, content)
        known = REMEMBERED.get(key)
        if isinstance(known, TenantEvent):
            return readdressed(known, delivery)
        event = self._admit(delivery, policy)
        REMEMBERED.put(key, event)
        return event

    def _admit(self, delivery: Delivery, policy: Policy) -> TenantEvent:
        event = decode_tenant_event(delivery, self._defaults)
        if event.spec is None:
            return event
        faults = check(event.spec, policy)
        if faults:
            raise InvalidMessage(
                Reason.POLICY_DENIED, faults, tenant_id=event.tenant_id, event_id=event.event_id
            )
        return replace(event, spec=harden(event.spec, policy))
