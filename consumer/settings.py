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
    Field,
    ValidationError,
    model_validator,
)
from pydantic.fields import FieldInfo
from typing_extensions import override

from consumer.errors import Fault, SettingsError

PREFIX: Final = "LANDLORD_"
CONFIG_VARIABLE: Final = "LANDLORD_CONFIG"
_USUAL_FILE: Final = "config.yaml"
_SECRET_KEYS: Final = frozenset({"broker.url", "http.token", "ledger.url"})
_STANDARD_SOCKET: Final = "unix:///var/run/docker.sock"
_NAME: Final = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9_.-]{0,62}[A-Za-z0-9])?")
_RANGE: Final = re.compile(r"\s*(\d{1,5})(?:\s*-\s*(\d{1,5}))?\s*")

Seconds = Annotated[float, Field(gt=0, le=86_400 * 366)]
Count = Annotated[int, Field(ge=1, le=100_000)]
PortRange = tuple[int, int]


def _from_text(value: object) -> object:
    """Take a list or a map from one variable: as JSON, or a list with commas between."""
    if not isinstance(value, str):
        return value
    text = value.strip()
    if text[:1] in ("[", "{"):
        try:
            parsed: object = json.loads(text)
        except ValueError:
            raise ValueError("is no JSON") from None
        return parsed
    return [part.strip() for part in text.split(",") if part.strip()]


def _as_ranges(value: object) -> object:
    parts = _from_text(value if not isinstance(value, int) else str(value))
    if not isinstance(parts, list | tuple):
        return value
    return [_as_range(str(part)) if isinstance(part, str | int) else part for part in parts]


def _as_range(text: str) -> PortRange:
    found = _RANGE.fullmatch(text)
    low = int(found[1]) if found else 0
    high = int(found[2] or low) if found else 0
    if not 1 <= low <= high <= 65535:
        raise ValueError("has to be ports or ranges of them, like 8000-8999")
    return low, high


def _as_name(text: str) -> str:
    if not _NAME.fullmatch(text):
        raise ValueError("1 to 64 of A-Z a-z 0-9 _ . -, the first and the last a letter or a digit")
    return text


Texts = Annotated[tuple[str, ...], BeforeValidator(_from_text)]
Name = Annotated[str, AfterValidator(_as_name)]
Ranges = Annotated[tuple[PortRange, ...], BeforeValidator(_as_ranges)]


class _Group(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class Tls(_Group):
    ca: Path | None = Field(None, description="CA certificate (PEM file)")
    cert: Path | None = Field(None, description="client certificate (PEM file)")
    key: Path | None = Field(None, description="client key (PEM file)")
    verify: bool = Field(True, description="whether the other side's certificate is checked")

    @model_validator(mode="after")
    def _check_files(self) -> Self:
        for name in ("ca", "cert", "key"):
            path = getattr(self, name)
            if path is not None and not path.is_file():
                raise ValueError(f"{name}: {path} is no file")
        if (self.cert is None) != (self.key is None):
            raise ValueError("cert and key belong together")
        return self

    @property
    def is_given(self) -> bool:
        return self.ca is not None or self.cert is not None


class TenantDefaults(_Group):
    cpu: int = Field(1000, ge=10, description="millicores for tenants that set none")
    memory: int = Field(512, ge=6, description="megabytes for tenants that set none")


class RegistryLogin(_Group):
    username: str = Field(min_length=1)
    password_file: Path


class Docker(_Group):
    host: str = Field(
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
        True, description="no traffic between tenants on a bridge network made by us"
    )
    provider_config: Annotated[dict[str, object], BeforeValidator(_from_text)] = Field(
        {}, description="lies under each tenant's own `provider_config`"
    )
    defaults: TenantDefaults = TenantDefaults()
    secrets_dir: Path | None = Field(None, description="where tenants' secrets are read from")
    registries: Annotated[dict[str, RegistryLogin | Path], BeforeValidator(_from_text)] = Field(
        {},
        description="logins: per registry `username`, `password_file`; or `docker_config`: a path",
    )

    @model_validator(mode="after")
    def _check_host(self) -> Self:
        scheme = urlsplit(self.host).scheme
        if self.host and scheme not in ("unix", "tcp"):
            raise ValueError(f"host: has to be unix:// or tcp://, got {self.host!r}")
        if scheme == "tcp" and urlsplit(self.host).port is None:
            raise ValueError(f"host: needs a port (2375 plain, 2376 TLS), got {self.host!r}")
        if scheme == "tcp" and urlsplit(self.host).port == 2376 and not self.tls.is_given:
            raise ValueError(
                "host: port 2376 speaks TLS; set compute.docker.tls.{ca,cert,key}, or "
                "DOCKER_TLS_VERIFY and DOCKER_CERT_PATH"
            )
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


class Policy(_Group):
    images: Texts | None = Field(None, description="patterns of images allowed; none allows all")
    require_digest: bool = Field(False, description="whether an image needs a digest")
    max_cpu: int | None = Field(None, ge=10, description="millicores; the host's when not set")
    max_memory: int | None = Field(None, ge=6, description="megabytes; the host's when not set")
    host_ports: Ranges = Field(((1, 65535),), description="ports that tenants may publish")
    volumes: Texts = Field((), description="allowed host path prefixes and volume names")
    network_modes: Texts | None = Field(
        None, description="when not set: the configured network, `bridge`, `none`"
    )
    privileged: bool = Field(False, description="whether privileged containers are allowed")
    cap_add: Texts = Field((), description="capabilities that may be asked for")
    security_opt: Texts = Field((), description="security options that may be asked for")
    runtimes: Texts = Field((), description="runtimes that may be asked for")
    log_drivers: Texts = Field(("json-file", "local", "none"), description="log drivers allowed")
    pids_limit: Count = Field(1024, description="processes of a tenant that sets no limit")
    max_pids: Count = Field(4096, description="most a tenant may ask for")
    cap_drop: Texts = Field(("NET_RAW",), description="dropped unless allowed in `cap_add`")


class Compute(_Group):
    default_provider: Literal["docker"] = Field(
        "docker", description="provider of documents that name none"
    )
    docker: Docker = Docker()
    policy: Policy = Policy()


class Broker(_Group):
    url: str = Field(
        "amqp://guest:guest@localhost:5672/", description="`amqp://` or `amqps://`", repr=False
    )
    tls: Tls = Tls()
    tenant_exchange: str = Field("landlord.tenants", min_length=1, max_length=255)
    queue: str = Field("landlord.consumer", min_length=1, max_length=255)
    status_exchange: str = Field("landlord.status", min_length=1, max_length=255)
    dead_letter: str = Field(
        "landlord.dead-letter",
        min_length=1,
        max_length=255,
        description="exchange and queue of dead letters",
    )
    prefetch: int = Field(500, ge=1, le=65535, description="unacked deliveries at a time")
    declare: bool = Field(True, description="whether missing names are declared")
    heartbeat_seconds: int = Field(10, ge=1, le=600)
    request_seconds: Seconds = Field(10.0, description="deadline of requests and publishes")

    @model_validator(mode="after")
    def _check_url(self) -> Self:
        try:
            parts = urlsplit(self.url)
            _ = parts.port
        except ValueError:
            raise ValueError("url: is no URL") from None
        if parts.scheme not in ("amqp", "amqps") or not parts.hostname:
            raise ValueError("url: has to be amqp://user:password@host:port/ (or amqps)")
        if bool(parts.username) is not (parts.password is not None):
            raise ValueError("url: needs user and password, or neither")
        return self


class Ledger(_Group):
    url: str = Field("sqlite:///landlord.db", description="`sqlite:///path`", repr=False)
    retention_seconds: Seconds = Field(
        604_800.0, description="how long event ids, sent status events and tombstones are kept"
    )

    @model_validator(mode="after")
    def _check_url(self) -> Self:
        if self.url.startswith("postgresql"):
            raise ValueError("url: PostgreSQL is not supported yet; use sqlite:///path")
        if not self.url.startswith("sqlite:///") or self.url == "sqlite:///":
            raise ValueError("url: has to be sqlite:///path (four slashes for an absolute path)")
        return self


class Http(_Group):
    host: str = Field("127.0.0.1", min_length=1)
    port: int = Field(8080, ge=0, le=65535, description="0 takes a free one")
    token: str | None = Field(
        None, min_length=1, repr=False, description="bearer token asked for, if set"
    )


class Reconcile(_Group):
    resync_seconds: Seconds = Field(60.0, description="how often everything is compared")
    retry_min_seconds: Seconds = Field(1.0, description="first delay after a failure")
    retry_max_seconds: Seconds = Field(300.0, description="longest delay after failures")
    orphans: Literal["adopt", "remove", "ignore"] = Field(
        "adopt", description="what becomes of our containers that no tenant is known for"
    )
    orphan_grace_seconds: Seconds = Field(300.0, description="age before an orphan is removed")
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
    pulls: Count = Field(3, description="images pulled at a time")
    starts: Count = Field(8, description="containers starting at a time")
    stops: Count = Field(16, description="containers stopping at a time")
    passes: Count = Field(1024, description="tenants in a pass at a time")
    max_event_bytes: int = Field(262_144, ge=256, le=16_777_216, description="longest body taken")
    engine_request_seconds: Seconds = Field(60.0, description="deadline of an engine request")


class Log(_Group):
    level: Literal["debug", "info", "warning", "error"] = Field("info")
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
        if parts.scheme == "tcp" and not docker.tls.is_given and not _is_loopback(parts.hostname):
            warnings.append(
                f"compute.docker.host: {docker.host} is clear text; who reaches it owns the host"
            )
        if self.http.token is None and not _is_loopback(self.http.host):
            warnings.append("http.token: not set, though the API listens beyond this host")
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
    faults, variables = _overlay_environment(tree, environ)
    _overlay_docker(tree, environ)
    try:
        settings = Settings.model_validate(tree)
    except ValidationError as error:
        faults += [_fault(dict(problem), variables) for problem in error.errors()]
    else:
        if not faults:
            return settings
    raise SettingsError(tuple(faults))


def _read_file(path: Path | None, environ: Mapping[str, str]) -> dict[str, object]:
    chosen = path or (Path(environ[CONFIG_VARIABLE]) if environ.get(CONFIG_VARIABLE) else None)
    if chosen is None:
        chosen = Path(_USUAL_FILE)
        if not chosen.is_file():
            return {}
    try:
        content = yaml.load(chosen.read_bytes(), Loader=_Loader)  # noqa: S506 - a SafeLoader
    except OSError as error:
        raise SettingsError((Fault(str(chosen), f"cannot be read: {error.strerror}"),)) from None
    except yaml.YAMLError as error:
        where = getattr(error, "problem_mark", None)
        line = f" (line {where.line + 1})" if where is not None else ""
        problem = getattr(error, "problem", None) or "not readable"
        raise SettingsError((Fault(str(chosen), f"not YAML: {problem}{line}"),)) from None
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise SettingsError((Fault(str(chosen), "has to be a map of settings"),))
    return content


class _Loader(yaml.SafeLoader):
    """Refuses a key that is there twice: one of them would silently not count."""

    @override
    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[object, object]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for place, key in enumerate(keys):
            if key in keys[:place]:
                raise yaml.constructor.ConstructorError(
                    None, None, f"duplicate key {key!r}", node.value[place][0].start_mark
                )
        mapping: dict[object, object] = super().construct_mapping(node, deep=deep)
        return mapping


def _overlay_environment(
    tree: dict[str, object], environ: Mapping[str, str]
) -> tuple[list[Fault], dict[str, str]]:
    """Put the environment over the file; return faults and the variable behind each key."""
    faults: list[Fault] = []
    variables: dict[str, str] = {}
    known = {doc.key: doc for doc in describe()}
    for variable, text in environ.items():
        if not variable.startswith(PREFIX) or variable == CONFIG_VARIABLE:
            continue
        key = variable.removeprefix(PREFIX).lower().replace("__", ".")
        if key not in known:
            faults.append(Fault(variable, f"unknown setting{_suggest(key, known)}"))
            continue
        variables[key] = variable
        if text == "" and known[key].default == "none":
            _put(tree, key, None)
        else:
            _put(tree, key, text)
    return faults, variables


def _put(tree: dict[str, object], key: str, value: object) -> None:
    *groups, last = key.split(".")
    for group in groups:
        below = tree.get(group)
        if not isinstance(below, dict):
            below = tree[group] = {}
        tree = below
    tree[last] = value


def _overlay_docker(tree: dict[str, object], environ: Mapping[str, str]) -> None:
    """Let Docker's own variables win, as its own command line does."""
    if environ.get("DOCKER_HOST"):
        _put(tree, "compute.docker.host", environ["DOCKER_HOST"])
    if environ.get("DOCKER_TLS_VERIFY"):
        folder = Path(environ.get("DOCKER_CERT_PATH") or Path.home() / ".docker")
        for name in ("ca", "cert", "key"):
            _put(tree, f"compute.docker.tls.{name}", str(folder / f"{name}.pem"))
        _put(tree, "compute.docker.tls.verify", value=True)


def _fault(problem: Mapping[str, object], variables: Mapping[str, str]) -> Fault:
    location = problem["loc"]
    key = ".".join(str(part) for part in location) if isinstance(location, tuple) else ""
    rule = str(problem["msg"]).removeprefix("Value error, ")
    rule = rule[:1].lower() + rule[1:]
    if problem["type"] == "extra_forbidden":
        rule = f"unknown setting{_suggest(key, {doc.key: doc for doc in describe()})}"
    elif key not in _SECRET_KEYS and not isinstance(problem.get("input"), dict | _Group):
        rule += f", got {problem.get('input')!r:.80}"
    below, colon, rest = rule.partition(": ")
    if problem["type"] == "value_error" and colon and re.fullmatch(r"[a-z_.]+", below):
        key, rule = f"{key}.{below}".strip("."), rest
    variable = variables.get(key)
    return Fault(f"{key} ({variable})" if variable else key, rule)


def _suggest(key: str, known: Mapping[str, "SettingDoc"]) -> str:
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
    return list(_describe(Settings, ""))


def _describe(group: type[BaseModel], prefix: str) -> Iterator[SettingDoc]:
    for name, field in group.model_fields.items():
        key = f"{prefix}{name}"
        below = field.annotation
        if isinstance(below, type) and issubclass(below, _Group):
            yield from _describe(below, f"{key}.")
        else:
            yield SettingDoc(key, _default(field), field.description or "")


def _default(field: FieldInfo) -> str:
    match field.default:
        case None | () | {}:
            return "none"
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
