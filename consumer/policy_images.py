"""Which images an operator's patterns let pass, part by part: registry, repository, tag, digest.

No part of a pattern reaches over into another, as it would if the whole were compared as text. Of a
reference with a digest the digest decides what runs, and its tag is decoration. A registry at an
address of the host or of a private network is let pass only by its name: the engine would fetch
from there what a tenant could not reach itself. Names are resolved by the engine, out of our sight:
this holds for literal addresses and for names that always mean the host.
"""

import ipaddress
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import lru_cache
from typing import Final

from consumer.image_reference import DEFAULT_REGISTRY, ImageReference

_ANY: Final = "*"
_NEAR_NAMES: Final = (
    *("localhost", "localdomain", "ip6-localhost", "ip6-loopback"),
    *("docker.internal", "containers.internal"),
    *("metadata", "metadata.google.internal", "instance-data", "instance-data.ec2.internal"),
)
"""These and what is below them always mean the host, or who answers for its cloud."""
_NUMBERS: Final = re.compile(r"(?:0x[0-9a-f]*|[0-9]+)(?:\.(?:0x[0-9a-f]*|[0-9]+))*")
_PORT: Final = re.compile(r":[0-9*?]*$")
_NAT64: Final = ipaddress.ip_network("64:ff9b::/96")
_PUBLIC_V6: Final = ipaddress.ip_network("2000::/3")
"""All that is handed out in IPv6: what lies outside is some host's, some link's, or nobody's."""
_OF_CLOUDS: Final = tuple(map(ipaddress.ip_network, ("168.63.129.16/32", "192.0.0.0/24")))
"""Read as public, and answered by the host of the virtual machine (Azure, Oracle)."""


@dataclass(frozen=True, slots=True)
class ImagePattern:
    """A pattern, each part of which may have `*` and `?`; None leaves tag or digest open."""

    registry: str
    repository: str
    tag: str | None
    digest: str | None

    def matches(self, image: ImageReference) -> bool:
        """Whether it lets the image pass."""
        return (
            self._covers(image.registry.lower())
            and fnmatchcase(image.repository, self.repository)
            and self._leaves_open(image)
        )

    def _covers(self, registry: str) -> bool:
        # The brackets of an IPv6 address would be a set of characters.
        return fnmatchcase(registry, self.registry.replace("[", "[[]"))

    def _leaves_open(self, image: ImageReference) -> bool:
        if image.digest is None:
            is_tagged = self.tag is None or fnmatchcase(image.tag or "", self.tag)
            return self.digest is None and is_tagged
        if self.digest is None:
            # A tag beside the digest says nothing of what runs.
            return self.tag in (None, _ANY)
        return fnmatchcase(image.digest, self.digest)

    def names(self, registry: str) -> bool:
        """Whether it is meant for this registry, and not for all of them."""
        host = _PORT.sub("", self.registry)
        return re.search(r"[a-z0-9]", host) is not None and self._covers(registry)


@lru_cache(maxsize=1024)
def image_pattern(text: str) -> ImagePattern:
    """Return the pattern, with what Docker fills in where it names no registry."""
    name, _, digest = text.partition("@")
    head, colon, tail = name.rpartition(":")
    tag = tail if colon and "/" not in tail else None
    registry, repository = _split(head if tag is not None else name)
    return ImagePattern(registry.lower(), repository, tag, digest or None)


def _split(name: str) -> tuple[str, str]:
    first, slash, rest = name.partition("/")
    if name == _ANY:
        return _ANY, _ANY
    if not slash:
        return DEFAULT_REGISTRY, f"library/{name}"
    if first in (DEFAULT_REGISTRY, "index.docker.io"):
        is_short = "/" not in rest and rest != _ANY
        return DEFAULT_REGISTRY, f"library/{rest}" if is_short else rest
    if first in ("localhost", _ANY) or "." in first or ":" in first:
        return first, rest
    return DEFAULT_REGISTRY, name


def is_listed(image: ImageReference, patterns: Iterable[str]) -> bool:
    """Whether one of the patterns lets the image pass."""
    return any(image_pattern(text).matches(image) for text in patterns)


def is_named(registry: str, patterns: Sequence[str], registries: Iterable[str]) -> bool:
    """Whether the operator names the registry: in a pattern, or among those with a login."""
    wanted = registry.lower()
    with_login = (re.sub(r"^https?://|/.*$", "", name.lower()) for name in registries)
    return wanted in with_login or any(image_pattern(text).names(wanted) for text in patterns)


@lru_cache(maxsize=1024)
def is_near(registry: str) -> bool:
    """Whether a registry is at an address of the host, of its link, or of a private network."""
    is_bracketed = registry.startswith("[")
    host = registry[1:].partition("]")[0] if is_bracketed else registry.partition(":")[0]
    host = host.lower()
    if any(host == name or host.endswith(f".{name}") for name in _NEAR_NAMES):
        return True
    try:
        return _is_near_address(ipaddress.ip_address(host))
    except ValueError:
        # What reads as a number in another spelling (127.1, 0x7f000001) is one to some resolvers.
        return _NUMBERS.fullmatch(host) is not None


def _is_near_address(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    if isinstance(address, ipaddress.IPv6Address):
        within = address.ipv4_mapped or address.sixtofour
        if within is None and address in _NAT64:
            within = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        if within is not None:
            return _is_near_address(within)
        if address not in _PUBLIC_V6:
            return True
    if any(address in network for network in _OF_CLOUDS):
        return True
    return not address.is_global or address.is_multicast
