"""What a tenant may ask for on this host: pure, deny by default.

`check` names every rule that a spec breaks, with the setting it comes from; what the operator's own
options ask is no tenant's asking, and opens nothing to tenants. `harden` adds what every container
gets, asked for or not. `Admission` joins both with decoding, as the one way in for a tenant event,
and holds recorded specs to the same rules. A rule that needs to know the host (its CPUs, memory,
log drivers) is silent until the engine has been asked; the engine itself then refuses.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Final

from consumer.document import SpecDefaults
from consumer.errors import Fault, InvalidMessage
from consumer.free_text import faults as text_faults
from consumer.image_reference import parse_image
from consumer.messages import Delivery, content_key, decode_tenant_event, readdressed
from consumer.model import EngineFacts, Pairs, Reason, TenantEvent, TenantId, TenantSpec
from consumer.policy_images import is_listed, is_named, is_near
from consumer.policy_labels import is_reserved
from consumer.policy_options import (
    interval_fault,
    label_bytes_fault,
    log_option_faults,
    ulimit_faults,
)
from consumer.policy_volumes import OWN, Resolve, Volumes, unseen
from consumer.remembered import REMEMBERED

PortRange = tuple[int, int]

NO_NEW_PRIVILEGES: Final = "no-new-privileges"
_TIGHT: Final = frozenset(f"{NO_NEW_PRIVILEGES}{way}" for way in ("", ":true", "=true"))
"""The ways to ask for it."""
_PRIORITIES: Final = frozenset({"nice", "rtprio"})
_MEGABYTE: Final = 1024 * 1024
_MAPS: Final = ("log_options", "labels", "tmpfs", "ulimits", "cap_drop")
"""Of these a tenant may have more than is forced upon it."""
_TAKEN_OUT: Final = ("labels", "log_options", "ulimits", "volumes")
"""Of these what is the operator's is told by its entries, and all else is the tenant's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Own:
    """The operator's own options for every tenant: what lies under and over each document.

    `spec` is what a document that asks for nothing comes to; `forced` are the keys of
    `provider_config` that no tenant can take back. Volumes are as they are written: those that lie
    under each document's, and those that are forced.
    """

    spec: TenantSpec | None = None
    forced: frozenset[str] = frozenset()
    volumes: tuple[str, ...] = ()
    forced_volumes: tuple[str, ...] = ()

    def taken_out(self, spec: TenantSpec, tenant_id: str) -> TenantSpec:
        """Return the spec without those entries of maps and lists that are the operator's."""
        own = self.spec
        if own is None:
            return spec
        volumes = {*_of(tenant_id, self.volumes), *_of(tenant_id, self.forced_volumes)}
        return replace(
            spec,
            # Their places are kept: they are told by number.
            volumes=tuple("" if volume in volumes else volume for volume in spec.volumes),
            log_options=_less(spec.log_options, own.log_options),
            labels=_less(spec.labels, own.labels),
            ulimits=tuple(limit for limit in spec.ulimits if limit not in own.ulimits),
        )

    def forces(self, field: str) -> bool:
        """Whether what is at this path is the operator's alone."""
        key = field.removeprefix("provider_config.").partition("[")[0]
        is_option = field.startswith("provider_config.")
        return is_option and key in self.forced and key not in _TAKEN_OUT

    def lacking(self, spec: TenantSpec, tenant_id: str) -> Iterator[str]:
        """Yield the forced keys of which a recorded spec knows nothing."""
        for key in sorted(self.forced) if self.spec is not None else ():
            wanted, has = getattr(self.spec, key), getattr(spec, key)
            if key == "volumes":
                wanted = _of(tenant_id, self.forced_volumes)
            if key == "security_opt":
                wanted, has = {*wanted} - _TIGHT, {*has} - _TIGHT
            is_so = {*wanted} <= {*has} if key in _MAPS else wanted == has
            if not is_so:
                yield key


def _of(tenant_id: str, volumes: Iterable[str]) -> tuple[str, ...]:
    return tuple(volume.replace(OWN, tenant_id) for volume in volumes)


def _less(pairs: Pairs, own: Pairs) -> Pairs:
    return tuple(pair for pair in pairs if pair not in own)


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """The operator's rules; every default is the contract's.

    `images` None allows all. `max_cpu` (millicores) and `max_memory` (megabytes) None mean the
    host's. `network_modes` None means the configured network and `none`. `registries` are those
    that the operator has logins for; `own` are the operator's options for every tenant; `resolve`
    follows the links in a path of the host.
    """

    images: tuple[str, ...] | None = None
    require_digest: bool = False
    max_cpu: int | None = None
    max_memory: int | None = None
    host_ports: tuple[PortRange, ...] = ((1, 65535),)
    volumes: tuple[str, ...] = ()
    shared_volumes: bool = False
    network_modes: tuple[str, ...] | None = None
    network_name: str = "bridge"
    privileged: bool = False
    cap_add: tuple[str, ...] = ()
    security_opt: tuple[str, ...] = ()
    runtimes: tuple[str, ...] = ()
    log_drivers: tuple[str, ...] = ("json-file", "local", "none")
    pids_limit: int = 1024
    max_pids: int = 4096
    log_max_size: str = "100m"
    labels: tuple[str, ...] = ()
    cap_drop: tuple[str, ...] = ("NET_RAW",)
    registries: tuple[str, ...] = ()
    own: Own = Own()
    resolve: Resolve = unseen
    facts: EngineFacts | None = None


def check(spec: TenantSpec, policy: Policy, tenant_id: str = "") -> tuple[Fault, ...]:
    """Return every rule that the tenant's spec breaks; empty when it may run."""
    asked = policy.own.taken_out(spec, tenant_id)
    volumes = Volumes(
        policy.volumes,
        is_shared=policy.shared_volumes,
        resolve=policy.resolve,
        mounted=(*policy.own.volumes, *policy.own.forced_volumes),
    )
    found = [
        *(fault for rule in _RULES for fault in rule(asked, policy)),
        *_mounts(asked, spec, volumes, tenant_id),
    ]
    broken = tuple(fault for fault in found if not policy.own.forces(fault.field))
    # What no rule has a word for is held to the form that may reach the engine all the same.
    return broken or tuple(
        fault for fault in text_faults(asked) if not policy.own.forces(fault.field)
    )


def check_recorded(spec: TenantSpec, policy: Policy, tenant_id: str) -> Iterator[Fault]:
    """Yield every rule of the policy that a recorded spec breaks, by now."""
    yield from check(spec, policy, tenant_id)
    rule = "was recorded before compute.policy.{} had it; publish the document again"
    for key in policy.own.lacking(spec, tenant_id):
        yield Fault(f"provider_config.{key}", rule.format("force"))
    if not _always_dropped(spec, policy) <= {*spec.cap_drop}:
        yield Fault("provider_config.cap_drop", rule.format("cap_drop"))


def harden(spec: TenantSpec, policy: Policy) -> TenantSpec:
    """Return the spec with what every container gets: fewer capabilities, no new privileges."""
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
        cap_drop=tuple(sorted({*spec.cap_drop, *_always_dropped(spec, policy)})),
        security_opt=security_opt,
        pids_limit=spec.pids_limit or min(policy.pids_limit, policy.max_pids),
    )


def _always_dropped(spec: TenantSpec, policy: Policy) -> set[str]:
    # What `check` let the tenant add is not dropped again.
    return {*policy.cap_drop} - {*spec.cap_add}


def _image(spec: TenantSpec, policy: Policy) -> Iterator[Fault]:
    field = "containers[0].image"
    reference = parse_image(spec.image)
    if policy.require_digest and reference.digest is None:
        yield Fault(field, f"needs a digest (compute.policy.require_digest), got {spec.image!r}")
    if policy.images is not None and not is_listed(reference, policy.images):
        allowed = _listing(policy.images)
        yield Fault(field, f"compute.policy.images allows only {allowed}, got {spec.image!r}")
    elif is_near(reference.registry) and not is_named(
        reference.registry, policy.images or (), policy.registries
    ):
        rule = (
            "a registry at an address of the host or of a private network has to be named in "
            f"compute.policy.images or compute.docker.registries, got {spec.image!r}"
        )
        yield Fault(field, rule)


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


def _mounts(
    asked: TenantSpec, spec: TenantSpec, volumes: Volumes, tenant_id: str
) -> Iterator[Fault]:
    for place, (own, volume) in enumerate(zip(spec.volumes, asked.volumes, strict=True)):
        # The operator's are not held to what tenants may ask, but to where they lead by now.
        rule = volumes.fault(volume, tenant_id) if volume else volumes.link_fault(own, tenant_id)
        if rule is not None:
            yield Fault(f"provider_config.volumes[{place}]", rule)


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
    """Refuse what takes more of the host than the limits of the container count."""
    field = "provider_config.ulimits"
    for rule in ulimit_faults(spec.ulimits):
        yield Fault(field, rule)
    if not {"SYS_NICE", "ALL"}.isdisjoint(policy.cap_add):
        return
    for limit in spec.ulimits:
        # It would run before the processes of other tenants, whatever its CPU limit.
        if limit.name in _PRIORITIES and (limit.soft, limit.hard) != (0, 0):
            rule = f"{limit.name} other than 0 needs SYS_NICE in compute.policy.cap_add"
            yield Fault(field, rule)


def _logging(spec: TenantSpec, policy: Policy) -> Iterator[Fault]:
    field, driver = "provider_config.log_driver", spec.log_driver
    if driver not in policy.log_drivers:
        allowed = _listing(policy.log_drivers)
        yield Fault(field, f"compute.policy.log_drivers allows only {allowed}, got {driver!r}")
        return
    if policy.facts is not None and driver not in {*policy.facts.log_drivers, "none"}:
        known = _listing(sorted(policy.facts.log_drivers))
        yield Fault(field, f"this engine has only {known}, got {driver!r}")
    options = dict(spec.log_options)
    for name, rule in log_option_faults(driver, options, most_size=policy.log_max_size):
        yield Fault("provider_config.log_options", f"{name[:40]}: {rule}")


def _labels(spec: TenantSpec, policy: Policy) -> Iterator[Fault]:
    for key, _ in spec.labels:
        if is_reserved(key, policy.labels):
            rule = "a key that tools act upon, and not in compute.policy.labels"
            yield Fault("labels", f"{rule}, got {key!r}")
    rule_of_size = label_bytes_fault(spec.labels)
    if rule_of_size is not None:
        yield Fault("labels", rule_of_size)


def _health(spec: TenantSpec, _: Policy) -> Iterator[Fault]:
    rule = interval_fault(spec.healthcheck)
    if rule is not None:
        yield Fault("containers[0].healthcheck.interval_seconds", rule)


def _pids(spec: TenantSpec, policy: Policy) -> Iterator[Fault]:
    if spec.pids_limit is not None and spec.pids_limit > policy.max_pids:
        setting = "compute.policy.max_pids"
        yield _above("provider_config.pids_limit", setting, policy.max_pids, spec.pids_limit)


_RULES: Final = (
    _image,
    _resources,
    _ports,
    _network,
    _privileges,
    _limits,
    _logging,
    _pids,
    _labels,
    _health,
)


def _listing(values: Iterable[str]) -> str:
    return ", ".join(values) or "nothing"


class Admission:
    """The one way in for a tenant event: decoded, checked, hardened."""

    def __init__(self, *, defaults: SpecDefaults, policy: Policy) -> None:
        self._defaults = defaults
        self._policy = policy, object()
        """With a mark that is another one for each policy."""
        self._today = replace(policy, facts=None)

    def learn(self, facts: EngineFacts) -> None:
        """Take note of what the engine says of its host."""
        policy, _ = self._policy
        if facts != policy.facts:
            self._policy = replace(policy, facts=facts), object()

    def admits(self, tenant_id: TenantId, spec: TenantSpec) -> tuple[Fault, ...]:
        """Return every rule of today that a recorded spec breaks; the host's size is none."""
        return tuple(check_recorded(spec, self._today, tenant_id))

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
        faults = check(event.spec, policy, event.tenant_id)
        if faults:
            raise InvalidMessage(
                Reason.POLICY_DENIED, faults, tenant_id=event.tenant_id, event_id=event.event_id
            )
        return replace(event, spec=harden(event.spec, policy))
