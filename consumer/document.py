"""The tenant document: what a service may say about a tenant's container, checked field by field.

Refuses before the engine would, and with every fault at once; an unknown field is a fault, so that
a typo is never silently ignored. What an operator allows is not asked here: that is `policy`.
Values come parsed from JSON or YAML by `messages`; YAML's unquoted scalars arrive as `Plain` text
and become numbers or booleans only where the field is one.
"""

import ipaddress
import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Final, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    ValidationError,
    ValidationInfo,
    model_validator,
)

from consumer import engine_options
from consumer.errors import Fault
from consumer.image_reference import parse_image
from consumer.model import (
    SECRETS_FOLDER,
    TENANT_ID_PATTERN,
    TENANT_ID_RULE,
    HealthCheck,
    PortMapping,
    Resources,
    RestartPolicy,
    TenantSpec,
    Transport,
    Ulimit,
    as_pairs,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class SpecDefaults:
    """What lies under every document: the operator's settings.

    `cpu` in millicores and `memory` in megabytes go to tenants that set none; `provider_config`
    lies under each tenant's own, `force` over it (maps merge, lists replace). `log_size` is how
    large a log file gets where nobody says so.
    """

    provider_type: str = "docker"
    providers: frozenset[str] = frozenset({"docker"})
    cpu: int = 1000
    memory: int = 512
    label_prefix: str = "landlord"
    provider_config: Mapping[str, object] = field(default_factory=dict)
    force: Mapping[str, object] = field(default_factory=dict)
    log_size: str = "10m"
    max_body_bytes: int = 262_144
    max_yaml_bytes: int = 262_144


class Plain(str):
    """An unquoted YAML scalar: text as written, whose type the field decides."""

    __slots__ = ()


class Number(float):
    """A JSON number with a fraction or exponent, which remembers how it was written."""

    __slots__ = ("text",)

    def __new__(cls, text: str) -> Self:
        number = super().__new__(cls, text)
        number.text = text
        return number

    text: str


# --- scalars ----------------------------------------------------------------------------------

_NULLS: Final = frozenset({"", "~", "null", "Null", "NULL"})
_BOOLEANS: Final = {"true": True, "True": True, "false": False, "False": False}
_INTEGER: Final = re.compile(r"[-+]?(0|[1-9][0-9]*)")
_DECIMAL: Final = re.compile(r"[-+]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][-+]?[0-9]+)?")


def _as_integer(value: object) -> object:
    if isinstance(value, Plain) and _INTEGER.fullmatch(value):
        return int(value)
    return value


def _as_number(value: object) -> object:
    if isinstance(value, Plain) and _DECIMAL.fullmatch(value):
        return float(value)
    if isinstance(value, float):
        return float(value)
    return value


def _as_boolean(value: object) -> object:
    return _BOOLEANS.get(value, value) if isinstance(value, Plain) else value


def _as_text(value: object) -> object:
    """Take text as written; refuse what would break in a C string."""
    if is_null(value):
        return None
    if isinstance(value, str):
        if "\0" in value:
            raise ValueError("must not contain a NUL character")
        return str(value)
    return value


def _as_rendered(value: object) -> object:
    """Write numbers and booleans as JSON writes them."""
    if isinstance(value, Number):
        return value.text
    if isinstance(value, bool | int | float):
        return json.dumps(value)
    return _as_text(value)


def is_null(value: object) -> bool:
    """Whether the value is null, or what YAML writes for it."""
    return value is None or (isinstance(value, Plain) and value in _NULLS)


def _absent_if_null(value: object) -> object:
    return None if is_null(value) else value


def _not_empty(value: str) -> str:
    if not value:
        raise ValueError("must not be empty")
    return value


@dataclass(frozen=True, slots=True)
class _Told:
    """A validator, and the keywords by which JSON Schema tells what it can of it."""

    validator: AfterValidator | BeforeValidator
    keywords: tuple[tuple[str, str | int], ...]

    def __get_pydantic_core_schema__(self, source: object, handler: GetCoreSchemaHandler) -> object:
        return self.validator.__get_pydantic_core_schema__(source, handler)

    def __get_pydantic_json_schema__(
        self, schema: object, handler: GetJsonSchemaHandler
    ) -> Mapping[str, object]:
        told = handler(schema)  # type: ignore[arg-type]  # as pydantic gave it
        return {**told, **dict(self.keywords)}


def _matching(pattern: str, rule: str) -> _Told:
    compiled = re.compile(pattern)

    def check(value: str) -> str:
        if not compiled.fullmatch(value):
            raise ValueError(rule)
        return value

    return _Told(AfterValidator(check), (("pattern", f"^({pattern})$"),))


# These two stand outside of a field's limits, or JSON Schema would not be told of the limits.
AsInteger: Final = BeforeValidator(_as_integer)
AsNumber: Final = BeforeValidator(_as_number)
Boolean = Annotated[bool, BeforeValidator(_as_boolean)]
Text = Annotated[str, BeforeValidator(_as_text)]
Rendered = Annotated[str, BeforeValidator(_as_rendered, json_schema_input_type=str | float | bool)]
Nullable = BeforeValidator(_absent_if_null)
Filled = Annotated[Text, _Told(AfterValidator(_not_empty), (("minLength", 1),))]

Name = Annotated[Text, _matching(TENANT_ID_PATTERN, f"has to be {TENANT_ID_RULE}")]
AbsolutePath = Annotated[Text, _matching(r"/[^\x00-\x1f]*", "has to be an absolute path")]


_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f]")


def _label_key(key: str, info: ValidationInfo) -> str:
    defaults = info.context
    reserved = f"{defaults.label_prefix}." if isinstance(defaults, SpecDefaults) else None
    if not key or len(key) > 128 or _CONTROL.search(key):
        raise ValueError("keys have to be 1 to 128 characters without control characters")
    if reserved is not None and key.startswith(reserved):
        raise ValueError(f"keys under {reserved} are reserved")
    return key


LabelKey = Annotated[Text, AfterValidator(_label_key)]


def _at_most(count: int) -> _Told:
    """Refuse more entries with one fault, before each of them is looked at."""

    def check(value: object) -> object:
        if isinstance(value, list | dict) and len(value) > count:
            raise ValueError(f"has {len(value)} entries, at most {count} are taken")
        return value

    return _Told(BeforeValidator(check), (("maxItems", count), ("maxProperties", count)))


Many: Final = _at_most(1000)
Some: Final = _at_most(256)


def _unique(values: Sequence[str]) -> Sequence[str]:
    twice = sorted(value for value, count in Counter(values).items() if count > 1)
    if twice:
        raise ValueError(f"named twice: {', '.join(twice)}")
    return values


# --- parts of the document --------------------------------------------------------------------


class _Part(BaseModel):
    model_config = ConfigDict(
        extra="forbid", strict=True, frozen=True, use_attribute_docstrings=True
    )


def _lower(value: object) -> object:
    return value.lower() if isinstance(value, str) else value


_AnyCase = Annotated[str, Field(pattern="^([Tt][Cc][Pp]|[Uu][Dd][Pp]|[Ss][Cc][Tt][Pp])$")]


class PortDocument(_Part):
    """A port; without `host_port`, or with 0, it is exposed and not published."""

    container_port: Annotated[int, Field(ge=1, le=65535), AsInteger]
    """What the program in the container listens on."""
    host_port: Annotated[int, Field(ge=0, le=65535), AsInteger] = 0
    """Where it is published on the host; 0 is not at all."""
    protocol: Annotated[
        Literal["tcp", "udp", "sctp"], BeforeValidator(_lower, json_schema_input_type=_AnyCase)
    ] = "tcp"
    """In any case of letters."""
    name: Annotated[Filled | None, Nullable] = None
    """Told again in the status; no two are equal."""

    def mapping(self) -> PortMapping:
        """Return the port as a value of the model."""
        return PortMapping(self.container_port, self.host_port, Transport(self.protocol), self.name)


def _ports_differ(ports: list[PortDocument]) -> list[PortDocument]:
    published = [f"{port.host_port}/{port.protocol}" for port in ports if port.host_port]
    _unique(published)
    _unique([port.name for port in ports if port.name is not None])
    return ports


def _as_words(value: object) -> object:
    """Bring a test to the engine's form of it; a line of text is for the shell."""
    if isinstance(value, str):
        return None if is_null(value) else ["CMD-SHELL", _not_empty(value)]
    return value


def _can_be_run(kind: str) -> str:
    if kind in ("http", "tcp"):
        raise ValueError(
            f"type {kind} is not supported: the engine runs a command in the container"
        )
    if kind != "exec":
        raise ValueError("type has to be exec")
    return kind


_Test = Annotated[
    list[Text] | None, BeforeValidator(_as_words, json_schema_input_type=str | list[str] | None)
]


class HealthCheckDocument(_Part):
    """A health check by a command run in the container."""

    test: Annotated[_Test, Many] = None
    """A line for the shell; or words to run, with or without CMD; or CMD-SHELL and a line."""
    command: Annotated[_Test, Many] = None
    """Another word for test."""
    type: Annotated[Text, AfterValidator(_can_be_run)] = "exec"
    """exec is the only one."""
    disable: Boolean = False
    """No check, whatever the image says."""
    interval_seconds: Annotated[
        Annotated[float, Field(ge=0, le=86400), AsNumber] | None, Nullable
    ] = None
    """From one check to the next; 0 is the engine's default, as below."""
    timeout_seconds: Annotated[
        Annotated[float, Field(ge=0, le=86400), AsNumber] | None, Nullable
    ] = None
    """A check that takes longer has failed."""
    start_period_seconds: Annotated[
        Annotated[float, Field(ge=0, le=86400), AsNumber] | None, Nullable
    ] = None
    """Failures within it do not count."""
    retries: Annotated[Annotated[int, Field(ge=0, le=1000), AsInteger] | None, Nullable] = None
    """So many failures in a row make it unhealthy."""

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.test is not None and self.command is not None:
            raise ValueError("test and command are two words for one thing; give one")
        words = self.test or self.command or []
        if not self.disable and not words:
            raise ValueError("needs test, or disable: true")
        if (words[:1] == ["CMD"] and len(words) == 1) or (
            words[:1] == ["CMD-SHELL"] and len(words) != 2
        ):
            raise ValueError("test needs what is to be run after CMD, one line after CMD-SHELL")
        for seconds in (self.interval_seconds, self.timeout_seconds, self.start_period_seconds):
            if seconds is not None and 0 < seconds < 0.001:
                raise ValueError("durations have to be 0 or at least 0.001 seconds")
        return self

    def check(self) -> HealthCheck:
        """Return the health check as a value of the model."""
        return HealthCheck(
            test=self._engine_form(),
            interval_seconds=self.interval_seconds,
            timeout_seconds=self.timeout_seconds,
            start_period_seconds=self.start_period_seconds,
            retries=self.retries,
        )

    def _engine_form(self) -> tuple[str, ...]:
        test = self.test or self.command or []
        if self.disable:
            return ("NONE",)
        # The engine silently ignores a test whose first word is not one of these.
        if test[0] in ("CMD", "CMD-SHELL", "NONE"):
            return tuple(test)
        return ("CMD", *test)


def _env_name(name: str) -> str:
    if not name or "=" in name:
        raise ValueError("names must not be empty nor contain = or NUL")
    return name


EnvName = Annotated[Text, AfterValidator(_env_name)]

_LONGEST_WORD: Final = 131_071
"""In bytes, of an argument or of a variable with its value: Linux starts nothing with a longer."""


def _word(value: str) -> str:
    if len(value.encode(errors="surrogatepass")) > _LONGEST_WORD:
        raise ValueError(f"has to be at most {_LONGEST_WORD} bytes")
    return value


def _env_entries(env: dict[str, str]) -> dict[str, str]:
    for name, value in env.items():
        if len(f"{name}={value}".encode(errors="surrogatepass")) > _LONGEST_WORD:
            raise ValueError(f"{name[:80]}=… has to be at most {_LONGEST_WORD} bytes")
    return env


_Word = Annotated[Text, AfterValidator(_word)]


def _reference(value: str) -> str:
    parse_image(value)
    return value


class ContainerDocument(_Part):
    """The container."""

    name: Name = "app"
    """Kept as a label; it is not the name of the container."""
    image: Annotated[Filled, AfterValidator(_reference)]
    """A reference as Docker takes it: registry, port, tag and digest."""
    command: Annotated[list[_Word] | None, Many, Nullable] = None
    """Replaces the image's ENTRYPOINT; an empty list is as none."""
    args: Annotated[list[_Word] | None, Many, Nullable] = None
    """Replaces the image's CMD; an empty list is as none."""
    env: Annotated[
        Annotated[dict[EnvName, Rendered], AfterValidator(_env_entries)] | None, Many, Nullable
    ] = None
    """Reaches the process as it stands; numbers and booleans are written as JSON writes them."""
    ports: Annotated[
        Annotated[list[PortDocument], AfterValidator(_ports_differ)] | None, Some, Nullable
    ] = None
    """Every port is exposed, those with a host port are published."""
    healthcheck: Annotated[HealthCheckDocument | None, Nullable] = None
    """In place of the image's."""
    health_check: Annotated[HealthCheckDocument | None, Nullable] = None
    """Another word for healthcheck."""
    secrets: Annotated[Annotated[list[Name], AfterValidator(_unique)] | None, Some, Nullable] = None
    """Names; each arrives as the file /run/secrets/<name>."""

    @model_validator(mode="after")
    def _has_one_health_check(self) -> Self:
        if self.healthcheck is not None and self.health_check is not None:
            raise ValueError("healthcheck and health_check are two words for one thing; give one")
        return self


class ResourcesDocument(_Part):
    """Hard limits; the operator's defaults where they are left out."""

    cpu: Annotated[Annotated[int, Field(ge=10, le=1_000_000), AsInteger] | None, Nullable] = None
    """Millicores: 1000 is one CPU."""
    memory: Annotated[Annotated[int, Field(ge=6, le=16_777_216), AsInteger] | None, Nullable] = None
    """Megabytes of 1024 * 1024 bytes, without swap on top."""


class UlimitDocument(_Part):
    """A pair of limits; -1 means unlimited."""

    soft: Annotated[int, Field(ge=-1), AsInteger]
    """What holds; a process may raise it as far as the hard one."""
    hard: Annotated[int, Field(ge=-1), AsInteger]
    """At least the soft one."""


_RESTART: Final = re.compile(r"(no|always|unless-stopped|on-failure)(?::([0-9]{1,6}))?")


def _restart_policy(value: str) -> str:
    found = _RESTART.fullmatch(value)
    if not found or (found[2] is not None and found[1] != "on-failure"):
        raise ValueError("has to be no, always, unless-stopped, on-failure or on-failure:N")
    return value


_VOLUME_NAME: Final = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{1,254}")


def _refuse(fault: str | None) -> None:
    if fault is not None:
        raise ValueError(fault)


def _volume(value: str) -> str:
    parts = value.split(":")
    if len(parts) not in (2, 3):
        raise ValueError("has to be src:dst or src:dst:mode")
    source, target = parts[0], parts[1]
    is_path = source.startswith("/")
    if not is_path and not _VOLUME_NAME.fullmatch(source):
        raise ValueError("the source has to be an absolute path or a volume name")
    if not target.startswith("/"):
        raise ValueError("the target has to be an absolute path other than /")
    _refuse(engine_options.target_fault(target))
    modes = parts[2].split(",") if len(parts) == 3 else []
    _refuse(engine_options.mode_fault(modes, is_path=is_path))
    return value


def _tmpfs_target(path: str) -> str:
    _refuse(engine_options.target_fault(path))
    return path


def _tmpfs_options(options: str) -> str:
    _refuse(engine_options.tmpfs_fault(options))
    return options


def _targets_differ(targets: Iterable[str]) -> None:
    _unique([engine_options.lands_on(target) for target in targets])


def _volume_targets_differ(volumes: list[str]) -> list[str]:
    _targets_differ(volume.split(":")[1] for volume in volumes)
    return volumes


def _tmpfs_targets_differ(tmpfs: dict[str, str], info: ValidationInfo) -> dict[str, str]:
    _targets_differ([*tmpfs, *(volume.split(":")[1] for volume in info.data.get("volumes") or ())])
    return tmpfs


def _log_options_fit(options: dict[str, str], info: ValidationInfo) -> dict[str, str]:
    faults = engine_options.log_option_faults(info.data.get("log_driver", ""), options)
    _refuse("; ".join(f"{name[:40]}: {rule}" for name, rule in faults.items()) or None)
    return options


def _signal(value: str) -> str:
    _refuse(engine_options.signal_fault(value))
    return value


def _known_capability(name: str) -> str:
    if name not in engine_options.CAPABILITIES:
        raise ValueError("has to be a capability")
    return name


def _limits(limits: "dict[str, UlimitDocument]") -> "dict[str, UlimitDocument]":
    faults = [
        f"{name[:40]}: {fault}"
        for name, limit in limits.items()
        if (fault := engine_options.ulimit_fault(name, limit.soft, limit.hard)) is not None
    ]
    _refuse("; ".join(faults) or None)
    return limits


_HIGHEST_ID: Final = 2**31 - 1


def _user(value: str) -> str:
    for part in value.split(":"):
        if part.isascii() and part.isdigit() and int(part[:20]) > _HIGHEST_ID:
            raise ValueError(f"numbers have to be at most {_HIGHEST_ID}")
    return value


def _capability(value: object) -> object:
    return value.upper().removeprefix("CAP_") if isinstance(value, str) else value


def _extra_host(value: str) -> str:
    host, colon, address = value.partition(":")
    if not colon or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", host):
        raise ValueError("has to be host:ip")
    if address != "host-gateway":
        _ip_address(address.strip("[]"))
    return value


def _ip_address(value: str) -> str:
    try:
        ipaddress.ip_address(value)
    except ValueError:
        raise ValueError("has to be an IP address") from None
    return value


_Capability = Annotated[Text, BeforeValidator(_capability), AfterValidator(_known_capability)]
_Tmpfs = Annotated[
    dict[
        Annotated[AbsolutePath, AfterValidator(_tmpfs_target)],
        Annotated[Text, AfterValidator(_tmpfs_options)],
    ],
    AfterValidator(_tmpfs_targets_differ),
]
_Strings = Annotated[list[Filled] | None, Some, Nullable]


class ProviderConfigDocument(_Part):
    """What only the Docker provider knows."""

    restart_policy: Annotated[Text, AfterValidator(_restart_policy)] = "unless-stopped"
    """no, always, unless-stopped, on-failure or on-failure:N."""
    log_driver: Annotated[
        Text, _matching(r"[a-z][a-z0-9_./:-]{0,127}", "has to be the name of a log driver")
    ] = "json-file"
    """One that the operator allows."""
    log_options: Annotated[
        Annotated[dict[Filled, Rendered], AfterValidator(_log_options_fit)] | None, Some, Nullable
    ] = None
    """max-size, max-file and compress; for json-file and local, 10m and 3 lie under them."""
    pull_policy: Annotated[
        Literal["if_not_present", "always", "never"], BeforeValidator(_as_text)
    ] = "if_not_present"
    """When the image is pulled."""
    volumes: Annotated[
        Annotated[
            list[Annotated[Text, AfterValidator(_volume)]], AfterValidator(_volume_targets_differ)
        ]
        | None,
        Some,
        Nullable,
    ] = None
    """src:dst or src:dst:mode; src is an absolute path of the host or the name of a volume."""
    tmpfs: Annotated[_Tmpfs | None, Some, Nullable] = None
    """Options by the path they are mounted on."""
    network_mode: Annotated[
        Annotated[Text, _matching(r"(container:)?[A-Za-z0-9][A-Za-z0-9_.-]*", "no such mode")]
        | None,
        Nullable,
    ] = None
    """In place of the operator's network; only what the operator allows."""
    labels: Annotated[dict[LabelKey, Text] | None, Some, Nullable] = None
    """Labels of the container, beside those of the document."""
    user: Annotated[
        Annotated[
            Text,
            _matching(r"[A-Za-z0-9_.$-]+(:[A-Za-z0-9_.$-]+)?", "has to be user[:group]"),
            AfterValidator(_user),
        ]
        | None,
        Nullable,
    ] = None
    """user or user:group, names or numbers."""
    working_dir: Annotated[AbsolutePath | None, Nullable] = None
    """In place of the image's."""
    hostname: Annotated[
        Annotated[
            Text,
            _matching(r"(?=.{1,63}$)[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?", "no host name"),
        ]
        | None,
        Nullable,
    ] = None
    """As the container sees itself."""
    read_only: Boolean = False
    """Whether the root file system can only be read."""
    init: Boolean = False
    """Whether a small init runs as process 1."""
    stop_signal: Annotated[
        Annotated[Text, AfterValidator(_signal)] | None,
        BeforeValidator(_as_rendered, json_schema_input_type=str | float | bool | None),
    ] = None
    """A name or a number."""
    stop_grace_seconds: Annotated[int, Field(ge=0, le=3600), AsInteger] = 10
    """From the stop signal to the kill."""
    shm_size_mb: Annotated[
        Annotated[int, Field(ge=1, le=1_048_576), AsInteger] | None, Nullable
    ] = None
    """Size of /dev/shm in megabytes."""
    pids_limit: Annotated[Annotated[int, Field(ge=1, le=4_194_304), AsInteger] | None, Nullable] = (
        None
    )
    """Most processes and threads; the operator's when not set."""
    ulimits: Annotated[
        Annotated[dict[Text, UlimitDocument], AfterValidator(_limits)] | None, Some, Nullable
    ] = None
    """Limits by name: nofile, nproc and so on."""
    cap_add: Annotated[list[_Capability] | None, Some, Nullable] = None
    """Capabilities, with or without CAP_; only what the operator allows."""
    cap_drop: Annotated[list[_Capability] | None, Some, Nullable] = None
    """Capabilities, with or without CAP_."""
    security_opt: _Strings = None
    """Only what the operator allows."""
    privileged: Boolean = False
    """Only if the operator allows it."""
    runtime: Annotated[Filled | None, Nullable] = None
    """Only what the operator allows."""
    extra_hosts: Annotated[
        list[Annotated[Text, AfterValidator(_extra_host)]] | None, Some, Nullable
    ] = None
    """host:ip; the ip may be host-gateway."""
    dns: Annotated[list[Annotated[Text, AfterValidator(_ip_address)]] | None, Some, Nullable] = None
    """IP addresses of name servers."""


class _Subject(_Part):
    tenant_id: Name
    """1 to 128 characters of A-Z a-z 0-9 _ . -, the first a letter or a digit."""
    generation: Annotated[Annotated[int, Field(ge=1, le=2**63 - 1), AsInteger] | None, Nullable] = (
        None
    )
    """Rises for each tenant; what is not above the recorded one is stale and changes nothing."""


class SubjectDocument(_Subject):
    """The body of deleted, suspended and resumed; a full document is taken too."""

    model_config = ConfigDict(extra="ignore", strict=True, frozen=True)


class TenantDocument(_Subject):
    """The body of created and updated: the tenant's desired state."""

    provider_type: Annotated[Filled | None, Nullable] = None
    """The operator's default when not set."""
    containers: Annotated[
        list[ContainerDocument], Field(json_schema_extra={"minItems": 1, "maxItems": 1})
    ]
    """Exactly one."""
    resources: Annotated[ResourcesDocument | None, Nullable] = None
    """Hard limits."""
    labels: Annotated[dict[LabelKey, Text] | None, Some, Nullable] = None
    """Labels of the container; keys below the operator's prefix are refused."""
    provider_config: ProviderConfigDocument = ProviderConfigDocument()
    """The operator's own lies under it: maps merge, lists replace."""


# --- reading a document -----------------------------------------------------------------------

ALWAYS_SENT: Final = ("networking", "annotations", "secrets")
"""Top-level fields that serialisers of the original always send; taken while they are empty."""
_FIELDS: Final = frozenset((*TenantDocument.model_fields, *ALWAYS_SENT))
_UNTOLD: Final = frozenset({"env", "log_options", "secrets", "command", "args", "test"})
"""Fields whose values never appear in a fault: they may hold what only the tenant may know."""


class DocumentError(ValueError):
    """A document breaks rules; `faults` has one entry for each."""

    def __init__(self, faults: Iterable[Fault]) -> None:
        self.faults = tuple(faults)
        super().__init__("; ".join(str(fault) for fault in self.faults))


def read_subject(raw: Mapping[str, object]) -> SubjectDocument:
    """Return tenant id and generation; a document's other fields are not looked into.

    Raises DocumentError.
    """
    unknown = [Fault(_path((name,)), "unknown field") for name in raw if name not in _FIELDS]
    try:
        subject = SubjectDocument.model_validate(raw)
    except ValidationError as error:
        raise DocumentError((*_faults(error), *unknown)) from None
    if unknown:
        # Else a misspelt generation would let an old event pass for a new one.
        raise DocumentError(unknown)
    return subject


def read_document(raw: Mapping[str, object], defaults: SpecDefaults) -> TenantDocument:
    """Return the document, operator's defaults laid under it. Raises DocumentError."""
    pruned, faults = _prune(raw)
    faults += _count_fault(pruned.get("containers"))
    merged = _with_defaults(pruned, defaults.provider_config)
    merged = _with_force(merged, defaults.force)
    faults += _network_fault(merged)
    faults += _mounts_over_secrets(merged)
    try:
        document = TenantDocument.model_validate(merged, context=defaults)
    except ValidationError as error:
        raise DocumentError((*faults, *_faults(error))) from None
    if faults:
        raise DocumentError(faults)
    return document


def to_spec(document: TenantDocument, defaults: SpecDefaults) -> TenantSpec:
    """Return what the document asks for, as a value of the model."""
    container = document.containers[0]
    config = document.provider_config
    resources = document.resources or ResourcesDocument()
    health = container.healthcheck or container.health_check
    name, _, retries = config.restart_policy.partition(":")
    labels = {**(config.labels or {}), **(document.labels or {})}
    ulimits = (config.ulimits or {}).items()
    return TenantSpec(
        provider_type=document.provider_type or defaults.provider_type,
        image=container.image,
        resources=Resources(resources.cpu or defaults.cpu, resources.memory or defaults.memory),
        container_name=container.name,
        command=tuple(container.command or ()),
        args=tuple(container.args or ()),
        env=as_pairs(container.env or {}),
        ports=tuple(sorted((port.mapping() for port in container.ports or ()), key=_port_order)),
        healthcheck=health.check() if health is not None else None,
        secrets=tuple(sorted(container.secrets or ())),
        labels=as_pairs(labels),
        restart_policy=RestartPolicy(name, int(retries or 0)),
        log_driver=config.log_driver,
        log_options=as_pairs(_log_options(config, defaults.log_size)),
        pull_policy=config.pull_policy,
        volumes=tuple(config.volumes or ()),
        tmpfs=as_pairs(config.tmpfs or {}),
        network_mode=config.network_mode,
        user=config.user,
        working_dir=config.working_dir,
        hostname=config.hostname,
        read_only=config.read_only,
        init=config.init,
        stop_signal=config.stop_signal,
        stop_grace_seconds=config.stop_grace_seconds,
        shm_size_mb=config.shm_size_mb,
        pids_limit=config.pids_limit,
        ulimits=tuple(sorted((Ulimit(n, u.soft, u.hard) for n, u in ulimits), key=_ulimit_order)),
        cap_add=tuple(sorted(set(config.cap_add or ()))),
        cap_drop=tuple(sorted(set(config.cap_drop or ()))),
        security_opt=tuple(config.security_opt or ()),
        privileged=config.privileged,
        runtime=config.runtime,
        extra_hosts=tuple(config.extra_hosts or ()),
        dns=tuple(config.dns or ()),
    )


def _port_order(port: PortMapping) -> tuple[int, str, int]:
    return (port.container_port, port.protocol.value, port.host_port)


def _ulimit_order(ulimit: Ulimit) -> str:
    return ulimit.name


def _log_options(config: ProviderConfigDocument, size: str) -> dict[str, str]:
    given = config.log_options or {}
    if config.log_driver not in ("json-file", "local"):
        return given
    return {"max-size": size, "max-file": "3"} | given


def _prune(raw: Mapping[str, object]) -> tuple[dict[str, object], list[Fault]]:
    """Take away the fields that serialisers of the original always send empty."""
    pruned = dict(raw)
    faults = [_drop(pruned, name, name) for name in ALWAYS_SENT]
    resources = pruned.get("resources")
    if isinstance(resources, Mapping):
        pruned["resources"] = inner = dict(resources)
        faults.append(_drop(inner, "storage", "resources.storage"))
    containers = pruned.get("containers")
    if isinstance(containers, list):
        pruned["containers"] = containers = [
            dict(member) if isinstance(member, Mapping) else member for member in containers
        ]
        for place, member in enumerate(containers):
            if isinstance(member, dict):
                faults.append(_drop(member, "resources", f"containers[{place}].resources"))
    return pruned, [fault for fault in faults if fault is not None]


def _drop(content: dict[str, object], name: str, path: str) -> Fault | None:
    if name not in content or _is_empty(content[name]):
        content.pop(name, None)
        return None
    del content[name]
    return Fault(path, "is not supported here and has to be left out or empty")


def _is_empty(value: object) -> bool:
    if isinstance(value, Mapping):
        return all(_is_empty(member) for member in value.values())
    if isinstance(value, Plain):
        return value in _NULLS or value in ("0", "false", "False")
    return not value


def _count_fault(containers: object) -> list[Fault]:
    if isinstance(containers, list) and len(containers) != 1:
        rule = f"docker provider requires exactly 1 container, got {len(containers)}"
        return [Fault("containers", rule)]
    return []


def _network_fault(raw: Mapping[str, object]) -> list[Fault]:
    config, containers = raw.get("provider_config"), raw.get("containers")
    mode = config.get("network_mode") if isinstance(config, Mapping) else None
    if not isinstance(mode, str) or not isinstance(containers, list):
        return []
    is_bare = mode in ("host", "none") or mode.startswith("container:")
    if not is_bare or not any(_publishes(member) for member in containers):
        return []
    rule = f"{mode} has no ports of its own; leave out host_port or choose another mode"
    return [Fault("provider_config.network_mode", rule)]


def _mounts_over_secrets(raw: Mapping[str, object]) -> list[Fault]:
    """Return a fault for each mount of the tenant's that would hide or outlive its secrets."""
    config, containers = raw.get("provider_config"), raw.get("containers")
    if not isinstance(config, Mapping) or not isinstance(containers, list):
        return []
    if not any(isinstance(member, Mapping) and member.get("secrets") for member in containers):
        return []
    volumes, tmpfs = config.get("volumes"), config.get("tmpfs")
    targets = {
        f"provider_config.volumes[{place}]": volume.split(":")[1]
        for place, volume in enumerate(volumes if isinstance(volumes, list) else [])
        if isinstance(volume, str) and ":" in volume
    }
    targets |= {
        f"provider_config.tmpfs.{path}": path
        for path in (tmpfs if isinstance(tmpfs, Mapping) else {})
        if isinstance(path, str)
    }
    rule = f"{SECRETS_FOLDER} is where containers[0].secrets arrive; choose another path"
    return [Fault(field, rule) for field, path in targets.items() if _is_for_secrets(path)]


def _is_for_secrets(path: str) -> bool:
    inside = engine_options.lands_on(path)
    return inside == SECRETS_FOLDER or inside.startswith(f"{SECRETS_FOLDER}/")


def _publishes(container: object) -> bool:
    ports = container.get("ports") if isinstance(container, Mapping) else None
    if not isinstance(ports, list):
        return False
    return any(
        isinstance(port, Mapping) and port.get("host_port") not in (None, 0, "0") for port in ports
    )


def _with_defaults(raw: dict[str, object], defaults: Mapping[str, object]) -> dict[str, object]:
    config = raw.get("provider_config")
    under = _filled_in(defaults, raw)
    if is_null(config):
        return raw | {"provider_config": under}
    if not isinstance(config, Mapping) or not defaults:
        return raw
    if config.get("log_driver", under.get("log_driver")) != under.get("log_driver"):
        del under["log_driver"]
        under.pop("log_options", None)  # another driver's
    return raw | {"provider_config": _merged(under, config)}


def _with_force(raw: dict[str, object], force: Mapping[str, object]) -> dict[str, object]:
    config = raw.get("provider_config")
    if not isinstance(config, Mapping) or not force:
        return raw
    over, under = _filled_in(force, raw), dict(config)
    if "log_driver" in over:
        under.pop("log_options", None)  # another driver's, or what the operator left out
    labels, forced_labels = raw.get("labels"), over.get("labels")
    if isinstance(labels, Mapping) and isinstance(forced_labels, Mapping):
        # The tenant's own lie over those of its provider_config, and must not over these.
        raw = raw | {"labels": {**labels, **forced_labels}}
    dropped, forced = under.get("cap_drop"), over.get("cap_drop")
    if isinstance(dropped, list) and isinstance(forced, list):
        over["cap_drop"] = [*forced, *dropped]  # a tenant may always do with less
    return raw | {"provider_config": _merged(under, over)}


def _filled_in(config: Mapping[str, object], raw: Mapping[str, object]) -> dict[str, object]:
    """Return the operator's options for this tenant: its volumes may hold `{tenant_id}`."""
    volumes, tenant_id = config.get("volumes"), raw.get("tenant_id")
    if not isinstance(volumes, list) or not isinstance(tenant_id, str):
        return dict(config)
    filled = [
        volume.replace("{tenant_id}", tenant_id) if isinstance(volume, str) else volume
        for volume in volumes
    ]
    return {**config, "volumes": filled}


def _merged(under: Mapping[str, object], over: Mapping[str, object]) -> dict[str, object]:
    merged = dict(under)
    for key, value in over.items():
        below = merged.get(key)
        both_maps = isinstance(below, Mapping) and isinstance(value, Mapping)
        merged[key] = {**below, **value} if both_maps else value  # type: ignore[dict-item]  # maps
    return merged


def _faults(error: ValidationError) -> list[Fault]:
    faults = []
    for detail in error.errors(include_url=False, include_context=False):
        kind, location = detail["type"], detail["loc"]
        if location[-1:] == ("[key]",) and kind != "extra_forbidden":
            location = location[:-2]  # a map's key broke the rule: the map is what can be named
        rule = _rule(kind, detail["msg"], location, detail["input"])
        faults.append(Fault(_path(location), rule))
    return list(dict.fromkeys(faults))


def _path(location: tuple[int | str, ...]) -> str:
    path = ""
    for part in location:
        if isinstance(part, int):
            path += f"[{part}]"
            continue
        # What follows an equals sign may be a value that slipped into the name.
        name = part.partition("=")[0]
        path += f".{name}" if path else name
    return path


_RULES: Final = {
    "extra_forbidden": "unknown field",
    "missing": "is required",
    "list_type": "has to be a list",
    "dict_type": "has to be an object",
    "model_type": "has to be an object",
}
"""Rules told without what was found: where a list or an object belongs, it may hold anything."""


def _rule(kind: str, message: str, location: tuple[int | str, ...], value: object) -> str:
    if kind in _RULES:
        return _RULES[kind]
    rule = message.removeprefix("Value error, ").removeprefix("Input should be ")
    rule = rule if rule == message or kind == "value_error" else f"has to be {rule}"
    is_untold = any(part in _UNTOLD for part in location)
    if is_untold or not isinstance(value, str | int | float):
        return rule
    found = str(value)[:80]
    return f"{rule}, got {found!r}" if isinstance(value, str) else f"{rule}, got {found}"
