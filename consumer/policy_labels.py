"""Which label keys a tenant may set: those of no tool that acts on labels.

Labels are how tools on a host find what is theirs. Ours are forced over a tenant's, but another
consumer, with another prefix, reads other keys; Compose, Traefik and their like act on labels too,
whoever set them. What only describes is a tenant's to choose.
"""

import re
from collections.abc import Iterable
from typing import Final

_OURS: Final = ("tenant_id", "instance", "generation", "container_name")
"""Under whatever prefix: by these a consumer knows its containers."""
_OURS_UNDER_A_WORD: Final = (
    "spec",
    "schema",
    "owner",
    "provider",
    "ledger",
    "serial",
    "secrets",
)
"""Everyday words: ours only under a prefix of one word. Without those above they prove nothing."""
_PREFIXED: Final = re.compile(
    rf"[a-z0-9](?:[a-z0-9_.-]*[a-z0-9])?\.(?:{'|'.join(_OURS)})"
    rf"|[a-z0-9](?:[a-z0-9_-]*[a-z0-9])?\.(?:{'|'.join(_OURS_UNDER_A_WORD)})"
)
_ACTED_UPON: Final = (
    "com.docker",
    "io.docker",
    "co.elastic",
    "com.centurylinklabs.watchtower",
    "com.datadoghq",
    "com.gitlab.gitlab-runner",
    "com.newrelic",
    "io.balena",
    "io.containers",
    "io.kubernetes",
    "io.podman",
    "io.portainer",
    "io.rancher",
    "org.testcontainers",
    "prometheus.io",
    "autoheal",
    "caddy",
    "chadburn",
    "coolify",
    "deunhealth",
    "diun",
    "docker-volume-backup",
    "dokku",
    "ofelia",
    "sablier",
    "swag",
    "swarm.cronjob",
    "traefik",
    "tsdproxy",
    "wud",
)
"""Begin the keys that tools act upon. Traefik reads its own in any case of letters."""


def is_reserved(key: str, allowed: Iterable[str]) -> bool:
    """Whether a key is another's, and not among the allowed: exact ones, or with `*` at the end."""
    folded = key.lower()
    is_theirs = _PREFIXED.fullmatch(folded) is not None or any(
        re.match(rf"{re.escape(name)}(?:[._/-]|$)", folded) for name in _ACTED_UPON
    )
    return is_theirs and not any(_fits(folded, entry.lower()) for entry in allowed)


def _fits(key: str, entry: str) -> bool:
    return key.startswith(entry[:-1]) if entry.endswith("*") else key == entry
