"""What an image would bring into a container beside its files, and may not: pure.

An image's labels become the container's, and its health check fills in what ours leaves open: an
image is as much a tenant's word as its document, and is held to the same rules. What is reserved to
tools is emptied, what is too often is made seldom enough; all else comes in as the image has it.
What cannot be overridden has bounds: each port, volume and label is work for the engine, and for
whoever lists containers or is told of them.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from consumer.model import Document
from consumer.policy_options import LEAST_INTERVAL_SECONDS

_LEAST: Final = round(LEAST_INTERVAL_SECONDS * 1_000_000_000)
_INTERVALS: Final = ("Interval", "StartInterval")
_MOST_PORTS: Final = 20_000
"""Some images name all that a protocol could take."""
_MOST_VOLUMES: Final = 256
_MOST_LABEL_BYTES: Final = 1_048_576
"""Builders write down there what went into an image."""


@dataclass(frozen=True, slots=True)
class Inherited:
    """What has to be overridden: keys of labels, and which of the check's intervals."""

    labels: tuple[str, ...] = ()
    intervals: tuple[str, ...] = ()
    excess: str | None = None
    """What there is too much of, in words; nothing is made of such an image."""


def inherited(image: Mapping[str, object], is_reserved: Callable[[str], bool]) -> Inherited:
    """Return what of an inspected image has to be overridden."""
    config = _mapping(image.get("Config"))
    check = _mapping(config.get("Healthcheck"))
    excess = _excess(config)
    return Inherited(
        labels=() if excess else tuple(filter(is_reserved, _mapping(config.get("Labels")))),
        intervals=tuple(name for name in _INTERVALS if _is_too_often(check.get(name))),
        excess=excess,
    )


def _excess(config: Mapping[str, object]) -> str | None:
    labels = _mapping(config.get("Labels"))
    size = sum(len(key) + len(str(value)) for key, value in labels.items())
    for what, found, most in (
        ("ports", len(_mapping(config.get("ExposedPorts"))), _MOST_PORTS),
        ("volumes", len(_mapping(config.get("Volumes"))), _MOST_VOLUMES),
        ("characters of labels", size, _MOST_LABEL_BYTES),
    ):
        if found > most:
            return f"has {found} {what}, at most {most} are taken"
    return None


def override(document: Document, brought: Inherited) -> Document:
    """Return the create request, with what the image may not bring in overridden."""
    if brought == Inherited():
        return document
    labels = {**dict.fromkeys(brought.labels, ""), **_mapping(document.get("Labels"))}
    # An interval that the document leaves open would be the image's.
    check = {**dict.fromkeys(brought.intervals, _LEAST), **_mapping(document.get("Healthcheck"))}
    return {**document, "Labels": labels} | ({"Healthcheck": check} if check else {})


def _is_too_often(interval: object) -> bool:
    # 0 is the engine's default. Below that, which no engine refuses of an image, it never rests.
    return isinstance(interval, int) and interval != 0 and interval < _LEAST


def _mapping(value: object) -> Mapping[str, object]:
    return value if isinstance(value, dict) else {}
