"""How much of the engine's own work a tenant's options may cost: its log, its checks, its limits.

What the options of a log driver say is done by the engine itself, outside of every limit of the
container: a template is run there, a count of files is a loop, labels and variables are copied into
every line. So a tenant sets no more than how much of its log is kept, within ceilings. All else is
the operator's to set, by `compute.docker.provider_config` and `compute.policy.force`.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from consumer.model import HealthCheck, Ulimit

LEAST_INTERVAL_SECONDS: Final = 1.0
"""Each check starts a process, by the engine."""
_ROTATED: Final = ("json-file", "local", "none")
"""The drivers that tenants may set options of."""
_SETTABLE: Final = ("max-size", "max-file", "compress")
LEAST_LOG_BYTES: Final = 65_536
"""A log is rotated as often as it is full: smaller files are work for the engine alone."""
_MOST_FILES: Final = 20
_SIZE: Final = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,12})?) ?([kmgtp]?)i?b?", re.IGNORECASE)
_UNITS: Final = {unit: 1024**power for power, unit in enumerate(("", "k", "m", "g", "t", "p"))}
_MOST_LABEL_BYTES: Final = 16_384
"""Of keys and values together: every list of containers carries them."""
_CEILINGS: Final = {"nofile": 1_048_576, "sigpending": 1_048_576, "msgqueue": 16_777_216}
"""Of limits on memory of the kernel's, which no limit of the container's may count."""


def size_bytes(text: str) -> int | None:
    """Return how many bytes a size like `10m` is, as the engine reads it; None where it is none."""
    found = _SIZE.fullmatch(text)
    return None if found is None else int(float(found[1]) * _UNITS[found[2].lower()])


def log_option_faults(
    driver: str, options: Mapping[str, str], *, most_size: str
) -> Iterator[tuple[str, str]]:
    """Yield each option that a tenant may not set so, with the rule."""
    most = size_bytes(most_size) or 0
    for name, value in options.items():
        if driver not in _ROTATED or name not in _SETTABLE:
            settable = ", ".join(_SETTABLE)
            yield name, f"a tenant may set only {settable}, of json-file and local"
        elif name == "max-size" and not LEAST_LOG_BYTES <= (size_bytes(value) or 0) <= most:
            yield name, f"has to be 64k to {most_size} (compute.policy.log_max_size)"
        elif name == "max-file" and not (value.isdecimal() and 1 <= int(value[:9]) <= _MOST_FILES):
            yield name, f"has to be 1 to {_MOST_FILES}"


def ulimit_faults(limits: Iterable[Ulimit]) -> Iterator[str]:
    """Say of each limit what is above its ceiling; -1 is endless."""
    for limit in limits:
        most = _CEILINGS.get(limit.name)
        if most is not None and not 0 <= limit.hard <= most:
            yield f"{limit.name} is at most {most}, got {limit.hard}"


def interval_fault(check: HealthCheck | None) -> str | None:
    """Say what is wrong with how often a health check runs; 0 is the engine's default."""
    seconds = check.interval_seconds if check is not None else None
    if not seconds or seconds >= LEAST_INTERVAL_SECONDS:
        return None
    return f"has to be at least {LEAST_INTERVAL_SECONDS:g}, got {seconds:g}"


def label_bytes_fault(labels: Iterable[tuple[str, str]]) -> str | None:
    """Say whether labels are too long altogether."""
    size = sum(len(text.encode(errors="surrogatepass")) for pair in labels for text in pair)
    if size <= _MOST_LABEL_BYTES:
        return None
    return f"have {size} bytes, at most {_MOST_LABEL_BYTES} are taken"
