"""Image references: `registry.example:5000/team/app:1.2@sha256:…`, taken apart as Docker does.

The grammar is that of the distribution project's reference package: a first part with a dot, a
colon or the word `localhost` is a registry, everything else belongs to the repository.
"""

import re
from dataclasses import dataclass
from typing import Final

from typing_extensions import override

DEFAULT_REGISTRY: Final = "docker.io"
_OFFICIAL: Final = "library/"
_LONGEST_NAME: Final = 255

_DOMAIN: Final = re.compile(
    r"(?:[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?(?:\.[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?)*"
    r"|\[[0-9a-fA-F:]+\])(?::[0-9]+)?"
)
_REPOSITORY: Final = re.compile(
    r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*"
)
_TAG: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_DIGEST: Final = re.compile(r"sha256:[0-9a-f]{64}|sha384:[0-9a-f]{96}|sha512:[0-9a-f]{128}")
_IMAGE_ID: Final = re.compile(r"[0-9a-f]{1,64}|sha(?:256|384|512):[0-9a-f]+")
"""The engine takes the beginning of an id for an image that is there, whatever it is called."""


@dataclass(frozen=True, slots=True)
class ImageReference:
    """An image by registry and repository, and by tag, digest, or both."""

    registry: str
    repository: str
    tag: str | None
    digest: str | None

    @property
    def name(self) -> str:
        """Registry and repository."""
        return f"{self.registry}/{self.repository}"

    @override
    def __str__(self) -> str:
        tag = f":{self.tag}" if self.tag else ""
        digest = f"@{self.digest}" if self.digest else ""
        return f"{self.name}{tag}{digest}"


def parse_image(text: str) -> ImageReference:
    """Return the reference that the text stands for, defaults filled in.

    Raises ValueError with the broken rule.
    """
    if _IMAGE_ID.fullmatch(text):
        raise ValueError("reads as an image id; write it with its tag, or with its registry")
    name, at, digest = text.partition("@")
    if at and not _DIGEST.fullmatch(digest):
        raise ValueError("the digest has to be sha256: and 64 hex digits (or sha384:, sha512:)")
    name, tag = _split_tag(name)
    if tag is not None and not _TAG.fullmatch(tag):
        raise ValueError("the tag has to be 1 to 128 of A-Z a-z 0-9 _ . -, not first . or -")
    registry, repository = _split_registry(name)
    _check_name(registry, repository)
    if tag is None and not digest:
        tag = "latest"
    return ImageReference(registry, repository, tag, digest or None)


def _check_name(registry: str, repository: str) -> None:
    if not _DOMAIN.fullmatch(registry):
        raise ValueError("the registry has to be a host name with an optional port")
    if repository != repository.lower():
        raise ValueError("the repository name has to be lower case")
    if not _REPOSITORY.fullmatch(repository):
        raise ValueError("not a valid image reference")
    if len(registry) + 1 + len(repository) > _LONGEST_NAME:
        raise ValueError(f"the name has more than {_LONGEST_NAME} characters")


def _split_tag(name: str) -> tuple[str, str | None]:
    """Split at the last colon, unless it belongs to the registry's port."""
    head, colon, tail = name.rpartition(":")
    if not colon or "/" in tail:
        return name, None
    return head, tail


def _split_registry(name: str) -> tuple[str, str]:
    first, slash, rest = name.partition("/")
    is_registry = slash and ("." in first or ":" in first or first == "localhost")
    if not is_registry:
        return DEFAULT_REGISTRY, name if slash else _OFFICIAL + name
    if first in (DEFAULT_REGISTRY, "index.docker.io"):
        return DEFAULT_REGISTRY, rest if "/" in rest else _OFFICIAL + rest
    return first, rest
