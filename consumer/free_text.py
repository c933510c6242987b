"""Every text of a document that reaches the engine, and what the engine takes it for.

One row for each: is it a path, an address, a size, a name, or content that nobody reads but the
container? None is a template or a pattern that the engine would evaluate; such options are not a
tenant's to set. `faults` holds what is about to be asked of the engine to the rows, whatever the
document's own rules let pass; a test holds the rows to the schema, so that no field comes without
an answer.

The answers are those of containers. In a swarm's services variables, host name and mounts are
templates to the engine: what makes those has to refuse `{{` there.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from consumer.engine_options import CAPABILITIES, ULIMITS
from consumer.errors import Fault
from consumer.model import TENANT_ID_PATTERN, TenantSpec


class Reading(StrEnum):
    """What the engine takes a text for."""

    CHOICE = "one of a closed set"
    LISTED = "one of those that the operator lists in compute.policy"
    NAME = "a name"
    REFERENCE = "an image reference"
    HOST_PATH = "a path of the host, or a volume's name"
    PATH = "a path in the container"
    SIZE = "a size, a count or a switch"
    ADDRESS = "an address"
    CONTENT = "content, which only the container's own processes or other readers of labels read"
    NOT_SENT = "nothing: it is not sent"


@dataclass(frozen=True, slots=True)
class Answer:
    """What a text is taken for, the form that may reach the engine, and what bounds it."""

    reading: Reading
    form: re.Pattern[str]
    bounds: str

    def holds(self, text: str) -> bool:
        """Whether the text may reach the engine."""
        return self.form.fullmatch(text) is not None


def _row(reading: Reading, form: str, bounds: str) -> Answer:
    return Answer(reading, re.compile(form, re.DOTALL), bounds)


def _one_of(*words: str) -> str:
    return "|".join(map(re.escape, sorted(words)))


_ANY: Final = r"[^\0]*"
_NAME: Final = _row(Reading.NAME, TENANT_ID_PATTERN, "128 characters")
_WORD: Final = _row(Reading.CONTENT, _ANY, "131,071 bytes, and the event's size")
_LABEL_KEY: Final = _row(
    Reading.CONTENT, r"[^\x00-\x1f\x7f-\x9f]{1,128}", "compute.policy.labels; 16 KiB of labels"
)
_LABEL: Final = _row(Reading.CONTENT, _ANY, "16 KiB of labels")
_LISTED: Final = _row(Reading.LISTED, r"[^\0]+", "the operator's list")
_CAPABILITY: Final = _row(Reading.CHOICE, _one_of(*CAPABILITIES), "compute.policy.cap_add")

TEXTS: Final[Mapping[str, Answer]] = {
    "tenant_id": _NAME,
    "provider_type": _row(Reading.CHOICE, r"[a-z]+", "the configured providers"),
    "labels key": _LABEL_KEY,
    "labels": _LABEL,
    "containers[0].name": _NAME,
    "containers[0].image": _row(
        Reading.REFERENCE, r"[A-Za-z0-9\[][A-Za-z0-9._:/@\[\]-]*", "compute.policy.images"
    ),
    "containers[0].command": _WORD,
    "containers[0].args": _WORD,
    "containers[0].env key": _row(Reading.CONTENT, r"[^=\0]+", "131,071 bytes with its value"),
    "containers[0].env": _WORD,
    "containers[0].ports[0].protocol": _row(Reading.CHOICE, r"tcp|udp|sctp", "any case"),
    "containers[0].ports[0].name": _row(Reading.NOT_SENT, _ANY, "the event's size"),
    "containers[0].healthcheck.test": _WORD,
    "containers[0].healthcheck.command": _WORD,
    "containers[0].healthcheck.type": _row(Reading.NOT_SENT, r"exec", "one word"),
    "containers[0].secrets": _NAME,
    "provider_config.restart_policy": _row(
        Reading.CHOICE, _one_of("no", "always", "unless-stopped", "on-failure"), "the set"
    ),
    "provider_config.log_driver": _row(
        Reading.LISTED, r"[a-z][a-z0-9_./:-]{0,127}", "compute.policy.log_drivers"
    ),
    "provider_config.log_options key": _row(
        Reading.CHOICE, r"max-size|max-file|compress", "the set; all others are the operator's"
    ),
    "provider_config.log_options": _row(
        Reading.SIZE,
        r"[0-9]{1,9}(\.[0-9]{1,9})? ?[kKmMgG]?[iI]?[bB]?|[tTfF]|true|false|True|False|TRUE|FALSE",
        "compute.policy.log_max_size; 20 files",
    ),
    "provider_config.pull_policy": _row(
        Reading.NOT_SENT, r"if_not_present|always|never", "the set"
    ),
    "provider_config.volumes": _row(
        Reading.HOST_PATH,
        r"(/[^:\x00-\x1f\x7f]*|[a-zA-Z0-9][a-zA-Z0-9_.-]{1,254}):/[^:\x00-\x1f\x7f]*(:[a-zA-Z,]+)?",
        "compute.policy.volumes",
    ),
    "provider_config.tmpfs key": _row(Reading.PATH, r"/[^\x00-\x1f]*", "the container"),
    "provider_config.tmpfs": _row(
        Reading.SIZE, r"[a-zA-Z0-9_=,%]*", "its content counts to resources.memory"
    ),
    "provider_config.network_mode": _row(
        Reading.LISTED, r"(container:)?[A-Za-z0-9][A-Za-z0-9_.-]*", "compute.policy.network_modes"
    ),
    "provider_config.labels key": _LABEL_KEY,
    "provider_config.labels": _LABEL,
    "provider_config.user": _row(
        Reading.NAME, r"[A-Za-z0-9_.$-]+(:[A-Za-z0-9_.$-]+)?", "the container's /etc/passwd"
    ),
    "provider_config.working_dir": _row(Reading.PATH, r"/[^\x00-\x1f]*", "the container"),
    "provider_config.hostname": _row(
        Reading.NAME, r"[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?", "63 characters"
    ),
    "provider_config.stop_signal": _row(Reading.CHOICE, r"[A-Z0-9+-]{1,16}", "Linux's signals"),
    "provider_config.ulimits key": _row(Reading.CHOICE, _one_of(*ULIMITS), "ceilings by name"),
    "provider_config.cap_add": _CAPABILITY,
    "provider_config.cap_drop": _CAPABILITY,
    "provider_config.security_opt": _LISTED,
    "provider_config.runtime": _LISTED,
    "provider_config.extra_hosts": _row(
        Reading.ADDRESS,
        r"[A-Za-z0-9][A-Za-z0-9_.-]*:(host-gateway|\[?[0-9a-fA-F:.]+(%[A-Za-z0-9]+)?\]?)",
        "the container's /etc/hosts",
    ),
    "provider_config.dns": _row(
        Reading.ADDRESS, r"[0-9a-fA-F:.]+(%[A-Za-z0-9]+)?", "asked from the container's network"
    ),
}
"""By path; ` key` stands for the keys of a map."""


def faults(spec: TenantSpec) -> Iterator[Fault]:
    """Yield what is not of the form that may reach the engine; the text itself is not told."""
    for path, text in texts_of(spec):
        answer = TEXTS[path]
        if not answer.holds(text):
            yield Fault(path.removesuffix(" key"), f"does not read as {answer.reading.value}")


def texts_of(spec: TenantSpec) -> Iterator[tuple[str, str]]:
    """Yield every text that the engine is sent for the spec, by its row."""
    yield "containers[0].name", spec.container_name
    yield "containers[0].image", spec.image
    yield "provider_config.restart_policy", spec.restart_policy.name
    yield "provider_config.log_driver", spec.log_driver
    yield from _lists(spec)
    yield from _maps(spec)
    for key in ("network_mode", "user", "working_dir", "hostname", "stop_signal", "runtime"):
        text = getattr(spec, key)
        if text is not None:
            yield f"provider_config.{key}", text


def _lists(spec: TenantSpec) -> Iterator[tuple[str, str]]:
    check = spec.healthcheck.test if spec.healthcheck is not None else ()
    for path, texts in (
        ("containers[0].command", spec.command),
        ("containers[0].args", spec.args),
        ("containers[0].healthcheck.test", check),
        ("containers[0].secrets", spec.secrets),
        ("containers[0].ports[0].protocol", [port.protocol.value for port in spec.ports]),
        ("provider_config.volumes", filter(None, spec.volumes)),
        ("provider_config.ulimits key", [limit.name for limit in spec.ulimits]),
        ("provider_config.cap_add", spec.cap_add),
        ("provider_config.cap_drop", spec.cap_drop),
        ("provider_config.security_opt", spec.security_opt),
        ("provider_config.extra_hosts", spec.extra_hosts),
        ("provider_config.dns", spec.dns),
    ):
        for text in texts:
            yield path, text


def _maps(spec: TenantSpec) -> Iterator[tuple[str, str]]:
    for path, pairs in (
        ("labels", spec.labels),
        ("containers[0].env", spec.env),
        ("provider_config.log_options", spec.log_options),
        ("provider_config.tmpfs", spec.tmpfs),
    ):
        for key, text in pairs:
            yield f"{path} key", key
            yield path, text
