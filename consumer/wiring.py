"""Settings become the plain values and adapters that the parts are made of.

So the spine never sees a setting, and `app` reads as a list. Also used by the command line, which
needs the broker's link and names without the rest.
"""

import platform
import re
import resource
from collections.abc import Callable, Iterable, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

from consumer.adapters.certificates import TlsFault, tls_context
from consumer.adapters.docker import DockerEngine, EngineLimits, Observers
from consumer.adapters.docker_board import DockerBoard
from consumer.adapters.docker_checkup import DockerCheckup
from consumer.adapters.docker_client import (
    DockerClient,
    Endpoint,
    Permit,
    unconditional,
)
from consumer.adapters.docker_networks import Network
from consumer.adapters.docker_spec import Naming
from consumer.adapters.docker_stops import Waiting
from consumer.adapters.pulls import PullLimits
from consumer.adapters.rabbitmq import RabbitMQ
from consumer.adapters.rabbitmq_topology import (
    BrokerLink,
    BrokerTls,
    Topology,
)
from consumer.adapters.registries import LoginFile, RegistryLogins
from consumer.adapters.surroundings import follow_links_below
from consumer.checkup import BrokerUser
from consumer.clock import Clock
from consumer.connections import HttpLimits
from consumer.contract import BrokerNames
from consumer.document import DocumentError, SpecDefaults, read_document, to_spec
from consumer.errors import ConsumerError, Fault, SettingsError
from consumer.finding import Rules
from consumer.memory import MemoryBudget
from consumer.metrics import Metrics
from consumer.model import TenantId, TenantSpec, authority
from consumer.policy import Admission, Own, Policy, check
from consumer.policy_options import size_bytes
from consumer.policy_volumes import folders, unseen
from consumer.reconciler import Backoff
from consumer.settings import Docker, Settings
from consumer.tracing import UNTRACED, Traces
from consumer.watcher import WatchTimes

_CLIENT_NAME: Final = "landlord-consumer"
_LOG_SIZE: Final = "10m"
_ANY: Final = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - compared
"""Where one on this host answers that listens on every address."""
_CHECK_SECONDS: Final = 10.0
"""Somebody waits for a check, and an engine that needs longer for so little is in trouble."""


def broker_link(settings: Settings) -> BrokerLink:
    """Return where the broker is."""
    broker = settings.broker
    return BrokerLink(
        url=broker.url,
        tls=BrokerTls(
            ca=_path(broker.tls.ca),
            cert=_path(broker.tls.cert),
            key=_path(broker.tls.key),
            verify=broker.tls.verify,
            is_strict=broker.tls.strict,
        ),
        heartbeat_seconds=broker.heartbeat_seconds,
        call_seconds=broker.request_seconds,
    )


def operators_link(settings: Settings) -> BrokerLink:
    """Return where the broker is, for a command that an operator runs in whatever folder.

    A login that was chosen goes to nobody whom a file that was only found would have trusted.
    Raises ConsumerError.
    """
    if settings.broker.is_trust_astray:
        raise ConsumerError(
            "the login of broker.url is not sent to whom broker.tls in ./config.yaml would trust, "
            "which was found in this folder and chosen by nobody: give --config config.yaml, if "
            "it is yours"
        )
    return broker_link(settings)


def check_broker_tls(settings: Settings) -> None:
    """Raise SettingsError for a file of `broker.tls` that cannot be used."""
    if not urlsplit(settings.broker.url).scheme.startswith("amqps"):
        return
    try:
        broker_link(settings).tls.context()
    except TlsFault as fault:
        raise SettingsError((Fault(f"broker.tls.{fault.name}", fault.rule),)) from fault


def topology(settings: Settings) -> Topology:
    """Return the names on the broker."""
    broker = settings.broker
    return Topology(
        tenant_exchange=broker.tenant_exchange,
        queue=broker.queue,
        status_exchange=broker.status_exchange,
        dead_letter=broker.dead_letter,
    )


def broker_names(settings: Settings) -> BrokerNames:
    """Return what the contract's documents name on the broker; no login is among it."""
    broker, parts = settings.broker, urlsplit(settings.broker.url)
    is_encrypted = parts.scheme == "amqps"
    port = parts.port or (5671 if is_encrypted else 5672)
    return BrokerNames(
        host=f"{parts.hostname or 'localhost'}:{port}",
        virtual_host=unquote(parts.path[1:]) or "/",
        is_encrypted=is_encrypted,
        tenant_exchange=broker.tenant_exchange,
        queue=broker.queue,
        status_exchange=broker.status_exchange,
        dead_letter=broker.dead_letter,
    )


def broker_user(settings: Settings) -> BrokerUser:
    """Return whom the broker knows us as, and the names that we need there."""
    link, names = broker_link(settings), topology(settings)
    return BrokerUser(
        user=link.user,
        vhost=link.vhost,
        names=(names.tenant_exchange, names.queue, names.status_exchange, names.dead_letter),
    )


def memory_budget(settings: Settings) -> MemoryBudget:
    """Return what may be held in memory, in flight and remembered."""
    return MemoryBudget(settings.limits.memory_mb)


def rabbitmq(settings: Settings, on_change: Callable[[bool], None], *, clock: Clock) -> RabbitMQ:
    """Return the broker's adapter; it connects once it runs."""
    return RabbitMQ(
        link=broker_link(settings),
        topology=topology(settings),
        source=f"/{_CLIENT_NAME}/{settings.instance}",
        now=clock.now,
        on_change=on_change,
        prefetch=settings.broker.prefetch,
        most_in_flight_bytes=memory_budget(settings).in_flight_bytes,
        is_declaring=settings.broker.declare,
    )


def http_url(settings: Settings) -> str:
    """Return where a consumer with these settings answers, asked from its own host."""
    host = _ANY.get(settings.http.host, settings.http.host)
    return f"http://{authority(host, settings.http.port)}"


def http_token(settings: Settings, url: str | None) -> str | None:
    """Return the token that is sent to the address given, or else to that of the settings.

    One that was chosen never goes to an address that was found: whoever may put a file into the
    folder would be sent it. Raises ConsumerError.
    """
    if url is None and settings.http.is_address_astray:
        raise ConsumerError(
            "http.token is not sent to the address in ./config.yaml, which was found in this "
            "folder and chosen by nobody: give --config config.yaml, if it is yours, or --url"
        )
    return settings.http.token


def docker_board(settings: Settings) -> DockerBoard:
    """Return where the engine keeps the record of the lease; it connects once it is asked."""
    docker = settings.compute.docker
    return DockerBoard(
        endpoint=_endpoint(docker),
        naming=naming(settings),
        host_name=platform.node(),
    )


def docker_checkup(settings: Settings) -> DockerCheckup:
    """Return who looks the engine over; it connects once it is asked. Raises SettingsError."""
    docker = settings.compute.docker
    return DockerCheckup(
        DockerClient(_endpoint(docker)),
        request_seconds=min(settings.limits.engine_request_seconds, _CHECK_SECONDS),
    )


def docker_engine(
    settings: Settings,
    metrics: Metrics,
    *,
    ledger_id: str,
    permit: Permit = unconditional,
    waiting: Waiting = nullcontext,
    traces: Traces = UNTRACED,
) -> DockerEngine:
    """Return the engine's adapter; it connects once it is asked, and asks by permit alone."""

    def observe_request(operation: str, outcome: str, seconds: float) -> None:
        labelled = metrics.engine_request_seconds.labels(operation=operation, outcome=outcome)
        labelled.observe(seconds)

    docker, limits = settings.compute.docker, settings.limits
    return DockerEngine(
        endpoint=_endpoint(docker),
        naming=naming(settings, ledger_id),
        network=Network(
            name=docker.network_name,
            driver=docker.network_driver,
            is_isolating=docker.isolate_tenants,
            bind_address=docker.bind_address,
        ),
        limits=EngineLimits(
            starts=limits.starts, stops=limits.stops, request_seconds=limits.engine_request_seconds
        ),
        pull_limits=PullLimits(pulls=limits.pulls),
        credentials=registry_logins(settings).find,
        secrets_dir=docker.secrets_dir,
        observers=Observers(
            request=traces.observe(observe_request),
            phase=traces.observe_phase(metrics.observe_phase),
            start_limit=metrics.engine_start_limit.set,
        ),
        permit=permit,
        allowed_labels=settings.compute.policy.labels,
        waiting=waiting,
    )


def registry_logins(settings: Settings) -> RegistryLogins:
    """Return where logins at registries are read from."""
    logins = {}
    docker_config = None
    for registry, login in settings.compute.docker.registries.items():
        if isinstance(login, Path):
            docker_config = login
        else:
            logins[registry] = LoginFile(login.username, login.password_file)
    return RegistryLogins(logins, docker_config=docker_config)


def naming(settings: Settings, ledger_id: str = "") -> Naming:
    """Return how what is ours is named on the engine, and marked with the ledger's id."""
    return Naming(
        prefix=settings.compute.docker.label_prefix,
        instance=settings.instance,
        ledger_id=ledger_id,
    )


def _endpoint(docker: Docker) -> Endpoint:
    """Return where the engine is. Raises SettingsError when a TLS file cannot be used."""
    tls = docker.tls
    if not docker.is_tls:
        return Endpoint(url=docker.url)
    try:
        context = tls_context(
            ca=_path(tls.ca),
            cert=_path(tls.cert),
            key=_path(tls.key),
            verify=tls.verify,
            is_strict=tls.strict,
        )
    except TlsFault as fault:
        raise SettingsError((Fault(f"compute.docker.tls.{fault.name}", fault.rule),)) from fault
    return Endpoint(url=docker.url, tls=context)


def _path(path: object) -> str | None:
    return None if path is None else str(path)


def spec_defaults(settings: Settings) -> SpecDefaults:
    """Return what lies under every tenant document."""
    compute = settings.compute
    defaults, policy = compute.docker.defaults, compute.policy
    return SpecDefaults(
        provider_type=compute.default_provider,
        providers=frozenset({compute.default_provider}),
        # Only what nobody set can be above its ceiling: `load` refuses the rest.
        cpu=min(defaults.cpu, policy.max_cpu or defaults.cpu),
        memory=min(defaults.memory, policy.max_memory or defaults.memory),
        label_prefix=compute.docker.label_prefix,
        provider_config=compute.docker.provider_config,
        force=policy.force,
        log_size=min((_LOG_SIZE, policy.log_max_size), key=lambda size: size_bytes(size) or 0),
        max_body_bytes=settings.limits.max_event_bytes,
        max_yaml_bytes=settings.limits.max_yaml_bytes,
    )


def policy(settings: Settings) -> Policy:
    """Return the operator's rules."""
    rules, docker = settings.compute.policy, settings.compute.docker
    is_here = docker.url.startswith("unix:")
    own = _own_options(settings)
    given = (volume.partition(":")[0] for volume in (*own.volumes, *own.forced_volumes))
    tops = folders((*rules.volumes, *given))
    return Policy(
        images=rules.images,
        require_digest=rules.require_digest,
        max_cpu=rules.max_cpu,
        max_memory=rules.max_memory,
        host_ports=rules.host_ports,
        volumes=rules.volumes,
        shared_volumes=rules.shared_volumes,
        network_modes=rules.network_modes,
        network_name=docker.network_name,
        privileged=rules.privileged,
        cap_add=rules.cap_add,
        security_opt=rules.security_opt,
        runtimes=rules.runtimes,
        log_drivers=rules.log_drivers,
        log_max_size=rules.log_max_size,
        labels=rules.labels,
        pids_limit=rules.pids_limit,
        max_pids=rules.max_pids,
        cap_drop=rules.cap_drop,
        registries=tuple(name for name in docker.registries if name != "docker_config"),
        own=own,
        resolve=follow_links_below(tops) if is_here else unseen,
    )


def _own_options(settings: Settings) -> Own:
    """Return what the operator's own options come to; nothing while they are not valid."""
    under, over = settings.compute.docker.provider_config, settings.compute.policy.force
    try:
        spec = _bare_spec(spec_defaults(settings))
    except DocumentError:
        return Own()
    return Own(
        spec=spec,
        forced=frozenset(over),
        volumes=_volumes(under),
        forced_volumes=_volumes(over),
    )


def _volumes(options: Mapping[str, object]) -> tuple[str, ...]:
    volumes = options.get("volumes")
    return tuple(map(str, volumes)) if isinstance(volumes, list) else ()


def _bare_spec(defaults: SpecDefaults) -> TenantSpec:
    """Return what a tenant gets that asks for nothing. Raises DocumentError."""
    raw = {"tenant_id": "any", "containers": [{"name": "app", "image": "any"}]}
    return to_spec(read_document(raw, defaults), defaults)


def admission(settings: Settings) -> Admission:
    """Return the one way in for tenant events."""
    return Admission(defaults=spec_defaults(settings), policy=policy(settings))


def denied(settings: Settings, recorded: Iterable[tuple[TenantId, TenantSpec]]) -> list[str]:
    """Return which recorded tenants the policy of today is against, each with what it breaks."""
    way_in = admission(settings)
    found = ((tenant_id, way_in.admits(tenant_id, spec)) for tenant_id, spec in recorded)
    return [f"{tenant_id}: {'; '.join(map(str, faults))}" for tenant_id, faults in found if faults]


def http_hosts(settings: Settings) -> tuple[str, ...]:
    """Return the names that may be asked for, besides loopback's."""
    return (*settings.http.hosts, settings.http.host)


def http_limits() -> HttpLimits:
    """Return how many connections may be held, of the descriptors that this process has."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return HttpLimits() if soft == resource.RLIM_INFINITY else HttpLimits().within(soft)


def rules(settings: Settings) -> Rules:
    """Return the times that decisions depend on."""
    reconcile = settings.reconcile
    return Rules(
        start_timeout_seconds=reconcile.start_timeout_seconds,
        stable_seconds=reconcile.stable_seconds,
        crash_loop_restarts=reconcile.crash_loop_restarts,
        crash_loop_window_seconds=reconcile.crash_loop_window_seconds,
    )


def backoff(settings: Settings) -> Backoff:
    """Return the delays between retries."""
    reconcile = settings.reconcile
    return Backoff(
        least_seconds=reconcile.retry_min_seconds, most_seconds=reconcile.retry_max_seconds
    )


def watch_times(settings: Settings) -> WatchTimes:
    """Return how often the engine is looked at."""
    reconcile = settings.reconcile
    return WatchTimes(
        resync_seconds=reconcile.resync_seconds,
        orphan_grace_seconds=reconcile.orphan_grace_seconds,
    )


def check_provider_config(settings: Settings) -> None:
    """Raise SettingsError for options of the operator's that refuse every tenant."""
    defaults, allowed = spec_defaults(settings), policy(settings)
    try:
        spec = _bare_spec(defaults)
    except DocumentError as error:
        found: Iterable[Fault] = error.faults
    else:
        # Of this document only the operator's part is real.
        found = (
            fault for fault in check(spec, allowed) if fault.field.startswith("provider_config.")
        )
    faults = tuple(Fault(_setting_of(fault.field, settings), fault.rule) for fault in found)
    if faults:
        raise SettingsError(faults)


def _setting_of(field: str, settings: Settings) -> str:
    """Return which setting an option comes from: the one that lies over the other."""
    option = field.removeprefix("provider_config.")
    is_forced = re.split(r"[.\[]", option)[0] in settings.compute.policy.force
    return f"compute.policy.force.{option}" if is_forced else f"compute.docker.{field}"
