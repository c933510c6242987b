"""Every tunable: grouped, documented where it is declared, validated before anything starts.

The only reader of the environment and of the configuration file. The environment wins over the
file, and Docker's own variables win over both where the engine is concerned. An unknown key or a
value that does not fit is a fault; all faults are told at once, never with a secret in them. The
spine takes plain values made from these in `app`.
"""

import difflib
import json
import os
import re
from collections.abc import Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final, Literal, Self
from urllib.parse import urlsplit

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    PrivateAttr,
    Tag,
    ValidationError,
    model_validator,
)
from pydantic.fields import FieldInfo
from typing_extensions import override

from consumer.errors import Fault, SettingsError
from consumer.policy_options import LEAST_LOG_BYTES, size_bytes
from consumer.policy_volumes import kept_faults, shared_faults

PREFIX: Final = "LANDLORD_"
CONFIG_VARIABLE: Final = "LANDLORD_CONFIG"
_USUAL_FILE: Final = "config.yaml"
_REGISTRIES: Final = "compute.docker.registries"
_UNTOLD: Final = (
    "broker.url",
    "http.token",
    "ledger.url",
    "compute.docker.provider_config",
    "compute.policy.force",
    _REGISTRIES,
)
"""Settings whose values, and what lies below them, never appear in a fault."""
_SECRET: Final = frozenset({"broker.url", "http.token", "ledger.url"})
"""Settings in which a password may stand."""
_TLS_PORT: Final = 2376
_STANDARD_SOCKET: Final = "unix:///var/run/docker.sock"
_NAME: Final = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9_.-]{0,62}[A-Za-z0-9])?")
_MISREAD_IN_URLS: Final = re.compile(r"[\s\\\x00-\x1f\x7f]")
_HOST: Final = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,251}[A-Za-z0-9_])?|[0-9A-Fa-f:]{2,45}")
_RANGE: Final = re.compile(r"\s*(\d{1,5})(?:\s*-\s*(\d{1,5}))?\s*")

Seconds = Annotated[float, Field(gt=0, le=86_400 * 366)]
Count = Annotated[int, Field(ge=1, le=100_000)]
PortRange = tuple[int, int]


def _list_from_text(value: object) -> object:
    """Take a list from one variable: as JSON, or with commas between."""
    if not isinstance(value, str):
        return value
    if value.lstrip()[:1] in ("[", "{"):
        return _from_json(value)
    return [part.strip() for part in value.split(",") if part.strip()]


def _map_from_text(value: object) -> object:
    """Take a map from one variable, as JSON; an empty one is an empty map."""
    if not isinstance(value, str):
        return value
    return _from_json(value) if value.strip() else {}


def _from_json(text: str) -> object:
    try:
        parsed: object = json.loads(text)
    except ValueError:
        raise ValueError("is no JSON") from None
    return parsed


def _as_ranges(value: object) -> object:
    parts = _list_from_text(value if not isinstance(value, int) else str(value))
    return [_as_range(str(part)) for part in parts] if isinstance(parts, list) else value


def _as_range(text: str) -> PortRange:
    found = _RANGE.fullmatch(text)
    low = int(found[1]) if found else 0
    high = int(found[2] or low) if found else 0
    if not 1 <= low <= high <= 65535:
        raise ValueError("has to be ports or ranges of them, like 8000-8999")
    return low, high


def _as_size(text: str) -> str:
    if (size_bytes(text) or 0) < LEAST_LOG_BYTES:
        raise ValueError("has to be a size like 100m, of at least 64k")
    return text


def _as_name(text: str) -> str:
    if not _NAME.fullmatch(text):
        raise ValueError("1 to 64 of A-Z a-z 0-9 _ . -, the first and the last a letter or a digit")
    return text


def _as_capabilities(names: tuple[str, ...]) -> tuple[str, ...]:
    """Return the names as tenant documents are read: upper case, without `CAP_`."""
    return tuple(name.upper().removeprefix("CAP_") for name in names)


def _as_hosts(names: tuple[str, ...]) -> tuple[str, ...]:
    for name in names:
        if not _HOST.fullmatch(name):
            raise ValueError(f"{name!r} is no host name or address; it is given without a port")
    return tuple(name.lower() for name in names)


def _as_file(path: Path) -> Path:
    if not path.is_file():
        raise ValueError("is no file")
    return path


def _as_engine_url(text: str) -> str:
    if not text:
        return text
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        raise ValueError("is no URL") from None
    match parts.scheme:
        case "unix" if parts.netloc or not parts.path:
            raise ValueError("needs an absolute path: unix:///var/run/docker.sock")
        case "tcp" if not parts.hostname or port is None:
            raise ValueError("needs a host and a port (2375 plain, 2376 TLS)")
        case "tcp" if parts.username is not None or parts.path.strip("/") or parts.query:
            raise ValueError("has to be tcp://host:port and no more; the engine knows no users")
        case "unix" | "tcp":
            return text
        case "ssh":
            raise ValueError(
                "has to be unix:// or tcp://; for ssh:// forward the socket (ssh -nNT -L "
                "/run/engine.sock:/var/run/docker.sock HOST) and use unix:///run/engine.sock"
            )
        case _:
            raise ValueError("has to be unix:// or tcp://")


def _as_broker_url(text: str) -> str:
    try:
        parts = urlsplit(text)
        _ = parts.port
    except ValueError:
        raise ValueError("is no URL") from None
    if parts.scheme not in ("amqp", "amqps") or not parts.hostname:
        raise ValueError("has to be amqp://user:password@host:port/ (or amqps)")
    if _MISREAD_IN_URLS.search(text) or "@" in parts.path + parts.query + parts.fragment:
        # Else the rest of a password is taken for the host's port and the virtual host, and told.
        raise ValueError(
            "needs what is no letter or digit in user, password and virtual host percent-encoded: "
            "%2F for /, %40 for @"
        )
    if bool(parts.username) is not (parts.password is not None):
        raise ValueError("needs user and password, or neither")
    if "@" in f"{parts.path}{parts.query}{parts.fragment}":
        # Else a part of the password would be taken for the host, and be told wherever that is.
        raise ValueError("needs / ? # and @ in user, password or virtual host as %2F %3F %23 %40")
    return text


def _as_ledger_url(text: str) -> str:
    if text.startswith("postgresql"):
        raise ValueError("PostgreSQL is not supported yet; use sqlite:///path")
    if not text.startswith("sqlite:///") or text == "sqlite:///":
        raise ValueError("has to be sqlite:///path (four slashes for an absolute path)")
    return text


def _login_or_path(value: object) -> str:
    return "path" if isinstance(value, str) else "login"


Texts = Annotated[tuple[str, ...], BeforeValidator(_list_from_text)]
Capabilities = Annotated[Texts, AfterValidator(_as_capabilities)]
Name = Annotated[str, AfterValidator(_as_name)]
Ranges = Annotated[tuple[PortRange, ...], BeforeValidator(_as_ranges)]
File = Annotated[Path, AfterValidator(_as_file)]
BrokerName = Annotated[str, Field(min_length=1, max_length=255)]


class _Group(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class Tls(_Group):
    ca: File | None = Field(None, description="CA certificate (PEM file)")
    cert: File | None = Field(None, description="client certificate (PEM file)")
    key: File | None = Field(None, description="client key (PEM file)")
    verify: bool = Field(True, description="whether the other side's certificate is checked")
    strict: bool = Field(
        False, description="whether a slip of form in it is refused too (RFC 5280 to the letter)"
    )

    @model_validator(mode="after")
    def _check_pair(self) -> Self:
        if (self.cert is None) != (self.key is None):
            raise ValueError("cert and key belong together")
        return self

    @property
    def is_given(self) -> bool:
        """Whether anybody asked for TLS; `verify` and `strict`, whatever they say, ask too."""
        has_files = self.ca is not None or self.cert is not None
        return has_files or bool({"verify", "strict"} & self.model_fields_set)


class TenantDefaults(_Group):
    cpu: int = Field(1000, ge=10, description="millicores for tenants that set none")
    memory: int = Field(512, ge=6, description="megabytes for tenants that set none")


class RegistryLogin(_Group):
    username: str = Field(min_length=1)
    password_file: Path


Registry = Annotated[
    Annotated[RegistryLogin, Tag("login")] | Annotated[Path, Tag("path")],
    Discriminator(_login_or_path),
]


class Docker(_Group):
    host: Annotated[str, AfterValidator(_as_engine_url)] = Field(
        "", description="`unix://` or `tcp://` of the engine; empty is the standard socket"
    )
    tls: Tls = Tls()
    network_name: str = Field(
        "bridge", min_length=1, description="network tenants are attached to; made when missing"
    )
    network_driver: str = Field("bridge", min_length=1, description="driver of that network")
    label_prefix: Name = Field("landlord", description="begins every label and container name")
    bind_address: str = Field("0.0.0.0", description="host address of published ports")  # noqa: S104 - the contract's default
    isolate_tenants: bool = Field(
        True, description="no traffic between tenants on a bridge network; warns where it is not so"
    )
    provider_config: Annotated[dict[str, object], BeforeValidator(_map_from_text)] = Field(
        {}, description="lies under each tenant's own `provider_config`", repr=False
    )
    defaults: TenantDefaults = TenantDefaults()
    secrets_dir: Path | None = Field(None, description="where tenants' secrets are read from")
    registries: Annotated[dict[str, Registry], BeforeValidator(_map_from_text)] = Field(
        {},
        description="logins: per registry `username`, `password_file`; or `docker_config`: a path",
    )

    @model_validator(mode="after")
    def _check_host(self) -> Self:
        if urlsplit(self.host).port == _TLS_PORT and not self.tls.is_given:
            raise ValueError(
                "host: port 2376 speaks TLS; set compute.docker.tls.{ca,cert,key}, or "
                "DOCKER_TLS_VERIFY and DOCKER_CERT_PATH; it is not tried in clear text"
            )
        return self

    @model_validator(mode="after")
    def _check_registries(self) -> Self:
        for name, login in self.registries.items():
            if isinstance(login, Path) is not (name == "docker_config"):
                raise ValueError(
                    f"registries.{name}: a registry has username and password_file, "
                    "docker_config has a path"
                )
        return self

    @property
    def url(self) -> str:
        """The engine's address, the default filled in."""
        return self.host or _STANDARD_SOCKET

    @property
    def is_tls(self) -> bool:
        """Whether the engine is asked by TLS; a socket of this host never is."""
        return self.url.startswith("tcp:") and self.tls.is_given


class Policy(_Group):
    images: Texts | None = Field(None, description="patterns of images allowed; none allows all")
    require_digest: bool = Field(False, description="whether an image needs a digest")
    max_cpu: int | None = Field(None, ge=10, description="millicores; the host's when not set")
    max_memory: int | None = Field(None, ge=6, description="megabytes; the host's when not set")
    host_ports: Ranges = Field(((1, 65535),), description="ports that tenants may publish")
    volumes: Texts = Field(
        (),
        description="host path prefixes and volume names; with `{tenant_id}` one for each tenant, "
        "with `:ro` at the end for reading",
    )
    shared_volumes: bool = Field(
        False, description="whether a path in `volumes` may be written by several tenants"
    )
    network_modes: Texts | None = Field(
        None, description="when not set: the configured network and `none`"
    )
    privileged: bool = Field(False, description="whether privileged containers are allowed")
    cap_add: Capabilities = Field((), description="capabilities that may be asked for")
    security_opt: Texts = Field((), description="security options that may be asked for")
    runtimes: Texts = Field((), description="runtimes that may be asked for")
    log_drivers: Texts = Field(("json-file", "local", "none"), description="log drivers allowed")
    log_max_size: Annotated[str, AfterValidator(_as_size)] = Field(
        "100m", description="most that a file of a tenant's log may have"
    )
    labels: Texts = Field(
        (), description="keys of other tools that tenants may set; `*` at the end for all below"
    )
    force: Annotated[dict[str, object], BeforeValidator(_map_from_text)] = Field(
        {}, description="lies over each tenant's own `provider_config`", repr=False
    )
    pids_limit: Count = Field(1024, description="processes of a tenant that sets no limit")
    max_pids: Count = Field(4096, description="most a tenant may ask for")
    cap_drop: Capabilities = Field(("NET_RAW",), description="dropped unless allowed in `cap_add`")
    on_tightened: Literal["keep", "stop"] = Field(
        "keep", description="what becomes of running tenants that the policy is against by now"
    )


class Compute(_Group):
    default_provider: Literal["docker"] = Field(
        "docker", description="provider of documents that name none"
    )
    docker: Docker = Docker()
    policy: Policy = Policy()

    @model_validator(mode="after")
    def _check_volumes(self) -> Self:
        # A publisher chooses the ids, and so what `{tenant_id}` stands for.
        secrets = self.docker.secrets_dir
        kept = [str(secrets)] if secrets is not None else []
        for fault in kept_faults(self.policy.volumes, kept):
            raise ValueError(f"policy.volumes: {fault}")
        if self.policy.shared_volumes:
            return self
        lists = (
            options.get("volumes") for options in (self.docker.provider_config, self.policy.force)
        )
        mounted = [str(volume) for each in lists if isinstance(each, list) for volume in each]
        for fault in shared_faults(self.policy.volumes, mounted):
            raise ValueError(f"policy.volumes: {fault}")
        return self


class Broker(_Group):
    url: Annotated[str, AfterValidator(_as_broker_url)] = Field(
        "amqp://guest:guest@localhost:5672/", description="`amqp://` or `amqps://`", repr=False
    )
    tls: Tls = Tls()
    tenant_exchange: BrokerName = Field(
        "landlord.tenants", description="exchange that tenant events come by"
    )
    queue: BrokerName = Field(
        "landlord.consumer", description="queue that tenant events are taken from"
    )
    status_exchange: BrokerName = Field(
        "landlord.status", description="exchange that status events go to"
    )
    dead_letter: BrokerName = Field(
        "landlord.dead-letter", description="exchange and queue of dead letters"
    )
    prefetch: int = Field(
        500, ge=1, le=65535, description="unacked deliveries at a time; fewer while they are large"
    )
    declare: bool = Field(True, description="whether missing names are declared")
    heartbeat_seconds: int = Field(
        10, ge=1, le=600, description="between heartbeats; three missed ones end a connection"
    )
    request_seconds: Seconds = Field(10.0, description="deadline of requests and publishes")
    _is_astray: bool = PrivateAttr(default=False)

    @property
    def is_trust_astray(self) -> bool:
        """Whether the login was chosen, and whom to trust with it comes from a file only found."""
        return self._is_astray

    def find_astray(self, found: AbstractSet[str], chosen: AbstractSet[str]) -> None:
        """Take what the file that happened to be there says, and what somebody chose."""
        is_weaker = ("broker.tls.verify" in found and not self.tls.verify) or (
            "broker.tls.ca" in found and self.tls.ca is not None
        )
        self._is_astray = is_weaker and "broker.url" in chosen


class Ledger(_Group):
    url: Annotated[str, AfterValidator(_as_ledger_url)] = Field(
        "sqlite:///landlord.db", description="`sqlite:///path`", repr=False
    )
    retention_seconds: Seconds = Field(
        604_800.0,
        description="how long event ids, sent status events and tombstones are kept at least, by "
        "the clock and by the time that consumers have run",
    )
    adopt_on_empty: bool = Field(
        False,
        description=(
            "take over what another ledger's consumer left, when this one is empty at the start"
        ),
    )


class Http(_Group):
    host: str = Field("127.0.0.1", min_length=1, description="address the HTTP API listens on")
    port: int = Field(8080, ge=0, le=65535, description="0 takes a free one")
    token: str | None = Field(
        None, min_length=1, repr=False, description="bearer token asked for, if set"
    )
    hosts: Annotated[Texts, AfterValidator(_as_hosts)] = Field(
        (), description="names accepted in `Host` besides loopback's"
    )

    _is_astray: bool = PrivateAttr(default=False)

    @property
    def is_address_astray(self) -> bool:
        """Whether the token was chosen, and the address comes from a file that was only found."""
        return self._is_astray

    def find_astray(self, found: AbstractSet[str], chosen: AbstractSet[str]) -> None:
        """Take what the file that happened to be there says, and what somebody chose."""
        is_found = not found.isdisjoint({"http.host", "http.port"})
        self._is_astray = is_found and "http.token" in chosen


class Reconcile(_Group):
    resync_seconds: Seconds = Field(60.0, description="how often everything is compared")
    retry_min_seconds: Seconds = Field(1.0, description="first delay after a failure")
    retry_max_seconds: Seconds = Field(300.0, description="longest delay after failures")
    orphans: Literal["adopt", "remove", "ignore"] = Field(
        "adopt",
        description="what becomes of containers this ledger's consumer made, of tenants not known",
    )
    orphan_grace_seconds: Seconds = Field(
        300.0, description="from the first sight of an orphan to its removal"
    )
    start_timeout_seconds: Seconds = Field(300.0, description="until a container is healthy")
    stable_seconds: Seconds = Field(10.0, description="uptime that ends a crash loop")
    crash_loop_restarts: Count = Field(3, description="restarts that make a crash loop ...")
    crash_loop_window_seconds: Seconds = Field(60.0, description="... within this time")

    @model_validator(mode="after")
    def _check_retries(self) -> Self:
        if self.retry_max_seconds < self.retry_min_seconds:
            raise ValueError("retry_max_seconds: has to be at least retry_min_seconds")
        return self


class Limits(_Group):
    pulls: Count = Field(
        3, description="images pulled at a time; those that do not move go on beside them"
    )
    starts: Count = Field(
        32, description="most containers made at a time; fewer as the host does best"
    )
    stops: Count = Field(
        16,
        description="signals, kills and removals at a time; a grace period takes no place",
    )
    passes: Count = Field(1024, description="tenants in a pass at a time")
    max_event_bytes: int = Field(262_144, ge=256, le=16_777_216, description="longest body taken")
    max_yaml_bytes: int = Field(
        262_144, ge=256, le=16_777_216, description="longest body taken in YAML"
    )
    memory_mb: int = Field(
        64, ge=8, le=65_536, description="for what is in flight and what is remembered, in MiB"
    )
    engine_request_seconds: Seconds = Field(60.0, description="deadline of an engine request")


class Log(_Group):
    level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="the least severe lines that are written"
    )
    format: Literal["auto", "text", "json"] = Field(
        "auto", description="auto: text on a terminal, JSON otherwise"
    )


class Shutdown(_Group):
    drain_seconds: Seconds = Field(20.0, description="for passes to finish and the outbox to empty")


class Settings(_Group):
    """All of it. Made by `load`."""

    compute: Compute = Compute()
    broker: Broker = Broker()
    ledger: Ledger = Ledger()
    http: Http = Http()
    reconcile: Reconcile = Reconcile()
    limits: Limits = Limits()
    shutdown: Shutdown = Shutdown()
    log: Log = Log()
    instance: Name = Field("default", description="name of this consumer on its engine")

    def warnings(self) -> list[str]:
        """Return what is allowed but dangerous, one sentence each."""
        warnings = []
        docker = self.compute.docker
        parts = urlsplit(docker.host)
        is_elsewhere = parts.scheme == "tcp" and not _is_loopback(parts.hostname)
        if is_elsewhere and not docker.is_tls:
            warnings.append(
                f"compute.docker.host: {docker.host} is clear text; who reaches it owns the host"
            )
        if is_elsewhere and docker.is_tls and not docker.tls.verify:
            warnings.append(
                f"compute.docker.tls.verify: false; whoever answers at {docker.host} is taken for "
                "the engine"
            )
        modes = set(self.compute.policy.network_modes or ()) - {docker.network_name, "none"}
        if docker.isolate_tenants and modes:
            warnings.append(
                f"compute.policy.network_modes: {', '.join(sorted(modes))}; isolate_tenants is not "
                "seen to there, tenants may reach each other"
            )
        if self.http.token is None and not _is_loopback(self.http.host):
            warnings.append(
                f"http.token: not set, so that on {self.http.host} only /healthz, /readyz and "
                "/metrics are answered"
            )
        return warnings


def _is_loopback(host: str | None) -> bool:
    return host in (None, "localhost", "::1") or str(host).startswith("127.")


# --- loading ----------------------------------------------------------------------------------


def load(path: Path | None = None, environ: Mapping[str, str] | None = None) -> Settings:
    """Return the settings of file and environment.

    The file is the one given, else that of `LANDLORD_CONFIG`, else `./config.yaml` if it is there.
    Raises SettingsError with every fault.
    """
    environ = os.environ if environ is None else environ
    tree = _read_file(path, environ)
    found = _keys(tree) if _chosen(path, environ) is None else frozenset[str]()
    faults, variables = _overlay_environment(tree, environ)
    variables |= _overlay_docker(tree, environ)
    try:
        settings = Settings.model_validate(tree)
    except ValidationError as error:
        faults += [_fault(dict(problem), variables) for problem in error.errors()]
    else:
        faults += _above_ceilings(settings, variables)
        if not faults:
            for group in (settings.http, settings.broker):
                group.find_astray(found - variables.keys(), variables.keys())
            return settings
    raise SettingsError(tuple(faults))


def tracing_variable(environ: Mapping[str, str] | None = None) -> str | None:
    """Return the variable of OpenTelemetry's own by which traces are asked for, None where none is.

    All that it means to the library is the library's to read.
    """
    environ = os.environ if environ is None else environ
    is_off = environ.get("OTEL_SDK_DISABLED", "").lower() == "true"
    if is_off or environ.get("OTEL_TRACES_EXPORTER") == "none":
        return None
    names = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
    return next((name for name in names if environ.get(name)), None)


def origin_of_engine(path: Path | None = None, environ: Mapping[str, str] | None = None) -> str:
    """Return which of its sources said where the engine is. Raises SettingsError."""
    environ = os.environ if environ is None else environ
    key = "compute.docker.host"
    for variable in ("DOCKER_HOST", f"{PREFIX}{key.upper().replace('.', '__')}"):
        if environ.get(variable):
            return variable
    group: object = _read_file(path, environ)
    for name in key.split("."):
        group = group.get(name) if isinstance(group, dict) else None
    return f"{key} of the file" if group else "the default: nothing sets another"


def _above_ceilings(settings: Settings, variables: Mapping[str, str]) -> list[Fault]:
    """Return a fault for each default that the operator set above the operator's own ceiling.

    Every tenant that relies on it would be refused. A default nobody set stays below by itself.
    """
    defaults, policy = settings.compute.docker.defaults, settings.compute.policy
    pairs = (
        ("compute.docker.defaults.cpu", defaults, "max_cpu", policy.max_cpu),
        ("compute.docker.defaults.memory", defaults, "max_memory", policy.max_memory),
        ("compute.policy.pids_limit", policy, "max_pids", policy.max_pids),
    )
    faults = []
    for key, group, ceiling, most in pairs:
        name = key.rpartition(".")[2]
        value = getattr(group, name)
        if name in group.model_fields_set and most is not None and value > most:
            variable = variables.get(key)
            place = f"{key} ({variable})" if variable else key
            faults.append(Fault(place, f"{value} is above compute.policy.{ceiling}, {most}"))
    return faults


@dataclass(frozen=True, slots=True)
class FileInUse:
    """The file that settings are read from."""

    path: Path
    has_secrets: bool
    """Whether a login or the token stands in it."""


def file_in_use(
    path: Path | None = None, environ: Mapping[str, str] | None = None
) -> FileInUse | None:
    """Return which file is read, None where it is none. Raises SettingsError."""
    environ = os.environ if environ is None else environ
    keys = _keys(_read_file(path, environ))
    chosen = _chosen(path, environ) or Path(_USUAL_FILE)
    return FileInUse(chosen, bool(keys & _SECRET)) if chosen.is_file() else None


def _keys(tree: Mapping[str, object]) -> frozenset[str]:
    """Return the settings of the groups in the tree that somebody gave a value."""
    return frozenset(_below(tree, ""))


def _below(tree: Mapping[str, object], path: str) -> Iterator[str]:
    for name, value in tree.items():
        if path:
            yield f"{path}{name}"
        if isinstance(value, dict):
            yield from _below(value, f"{path}{name}.")


def _chosen(path: Path | None, environ: Mapping[str, str]) -> Path | None:
    """Return the file that somebody named; None where it is one that happens to be there."""
    variable = environ.get(CONFIG_VARIABLE)
    return path or (Path(variable) if variable else None)


def _read_file(path: Path | None, environ: Mapping[str, str]) -> dict[str, object]:
    chosen = _chosen(path, environ)
    if chosen is None:
        chosen = Path(_USUAL_FILE)
        if not chosen.is_file():
            return {}
    content = _parsed(chosen)
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise SettingsError((Fault(str(chosen), "has to be a map of settings"),))
    return content


def _parsed(chosen: Path) -> object:
    try:
        return yaml.load(chosen.read_bytes(), Loader=_Loader)  # noqa: S506 - a SafeLoader
    except OSError as error:
        raise SettingsError((Fault(str(chosen), f"cannot be read: {error.strerror}"),)) from None
    except yaml.YAMLError as error:
        where = getattr(error, "problem_mark", None)
        line = f" (line {where.line + 1})" if where is not None else ""
        problem = _without_names(getattr(error, "problem", None) or "not readable")
        raise SettingsError((Fault(str(chosen), f"not YAML: {problem}{line}"),)) from None
    except RecursionError:
        raise SettingsError((Fault(str(chosen), "not YAML: too deeply nested"),)) from None
    except (AttributeError, LookupError, ValueError):
        # What the library meets in a value that is written as a date or a number, and is none; its
        # own words would quote the value.
        rule = "not YAML: a value is written as a date or a number, and is none"
        raise SettingsError((Fault(str(chosen), rule),)) from None


def _without_names(problem: str) -> str:
    """Leave out what an unquoted secret with a leading `*`, `&` or `!` would be taken for."""
    return re.sub(r"(alias|anchor|tag|handle) '.*'", r"\1", problem, flags=re.DOTALL)


class _Loader(yaml.SafeLoader):
    """Refuses a key that is there twice: one of them would silently not count."""

    @override
    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[object, object]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for place, key in enumerate(keys):
            if key in keys[:place]:
                raise yaml.constructor.ConstructorError(
                    None,
                    None,
                    f"duplicate key {str(key).partition('=')[0]!r}",
                    node.value[place][0].start_mark,
                )
        mapping: dict[object, object] = super().construct_mapping(node, deep=deep)
        return mapping


def _overlay_environment(
    tree: dict[str, object], environ: Mapping[str, str]
) -> tuple[list[Fault], dict[str, str]]:
    """Put the environment over the file; return faults and the variable behind each key."""
    faults: list[Fault] = []
    variables: dict[str, str] = {}
    known = dict(_fields(Settings, ""))
    for variable, text in environ.items():
        if not variable.startswith(PREFIX) or variable == CONFIG_VARIABLE:
            continue
        key = variable.removeprefix(PREFIX).lower().replace("__", ".")
        if key not in known:
            faults.append(Fault(variable, f"unknown setting{_suggest(key, known)}"))
            continue
        variables[key] = variable
        is_unset = text == "" and known[key].default is None
        _put(tree, key, None if is_unset else text)
    return faults, variables


def _put(tree: dict[str, object], key: str, value: object) -> None:
    *groups, last = key.split(".")
    for group in groups:
        below = tree.get(group)
        if below is None:
            below = tree[group] = {}
        if not isinstance(below, dict):
            return  # no group, and told as such
        tree = below
    tree[last] = value


def _overlay_docker(tree: dict[str, object], environ: Mapping[str, str]) -> dict[str, str]:
    """Let Docker's own variables win, as its own command line does; return who set which key."""
    variables: dict[str, str] = {}

    def put(key: str, value: object, variable: str) -> None:
        variables[f"compute.docker.{key}"] = variable
        _put(tree, f"compute.docker.{key}", value)

    host, verify, folder = (
        environ.get(f"DOCKER_{name}") for name in ("HOST", "TLS_VERIFY", "CERT_PATH")
    )
    if host:
        put("host", host, "DOCKER_HOST")
    if verify:
        put("tls.verify", True, "DOCKER_TLS_VERIFY")
    if verify or folder:
        origin = "DOCKER_CERT_PATH" if folder else "DOCKER_TLS_VERIFY"
        place = Path(folder or Path.home() / ".docker")
        ca, cert, key = (place / f"{name}.pem" for name in ("ca", "cert", "key"))
        put("tls.ca", str(ca), origin)
        # Not every engine asks for the client's certificate; then there is none in the folder.
        has_own = cert.exists() or key.exists()
        put("tls.cert", str(cert) if has_own else None, origin)
        put("tls.key", str(key) if has_own else None, origin)
    return variables


_RULES: Final = {
    "model_type": "has to be a map of settings",
    "dict_type": "has to be a map",
    "tuple_type": "has to be a list",
    "missing": "is required",
}


def _fault(problem: Mapping[str, object], variables: Mapping[str, str]) -> Fault:
    location, kind = problem["loc"], str(problem["type"])
    key = _key(location if isinstance(location, tuple) else ())
    known = dict(_fields(Settings, ""))
    rule = _RULES.get(kind) or _in_our_words(str(problem["msg"]))
    below, colon, rest = rule.partition(": ")
    if kind == "extra_forbidden":
        rule = f"unknown setting{_suggest(key, known)}"
    elif kind == "value_error" and colon and re.fullmatch(r"[a-z_.]+", below):
        key, rule = f"{key}.{below}", rest
    elif kind != "missing" and _is_told(key, known):
        rule += f", got {_without_login(repr(problem['input'])):.80}"
    variable = variables.get(key)
    return Fault(f"{key} ({variable})" if variable else key, rule)


def _without_login(text: str) -> str:
    return re.sub(r"//[^/@\s]*:[^/@\s]*@", "//…@", text)


def _in_our_words(message: str) -> str:
    ours = message.removeprefix("Value error, ")
    return ours if ours != message else message[:1].lower() + message[1:]


def _key(location: tuple[object, ...]) -> str:
    parts = [str(part) for part in location]
    if parts[:3] == _REGISTRIES.split("."):
        del parts[4:5]  # which of login and path it was taken for
    return ".".join(parts)


def _is_told(key: str, known: Mapping[str, object]) -> bool:
    """Whether a value may be shown: it is that of a setting, and of none that holds secrets."""

    def is_within(upper: str) -> bool:
        return key == upper or key.startswith(f"{upper}.")

    return any(map(is_within, known)) and not any(map(is_within, _UNTOLD))


def _suggest(key: str, known: Mapping[str, object]) -> str:
    close = difflib.get_close_matches(key, list(known), n=1)
    return f"; did you mean {close[0]}?" if close else ""


# --- for people -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SettingDoc:
    """One line of the settings table."""

    key: str
    default: str
    meaning: str


def describe() -> list[SettingDoc]:
    """Return every setting, in the order of declaration."""
    return [
        SettingDoc(key, _default(field), field.description or "")
        for key, field in _fields(Settings, "")
    ]


def _fields(group: type[BaseModel], prefix: str) -> Iterator[tuple[str, FieldInfo]]:
    for name, field in group.model_fields.items():
        key = f"{prefix}{name}"
        below = field.annotation
        if isinstance(below, type) and issubclass(below, _Group):
            yield from _fields(below, f"{key}.")
        else:
            yield key, field


def _default(field: FieldInfo) -> str:
    match field.default:
        case None | ():
            return "none"
        case "":
            return '""'
        case bool(switch):
            return str(switch).lower()
        case ((int(low), int(high)),):
            return f"{low}-{high}"
        case tuple(texts):
            return ", ".join(texts)
        case float(number):
            return f"{number:g}"
        case other:
            return str(other)
