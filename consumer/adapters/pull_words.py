"""Why a pull failed, in the engine's own words and none of a registry's.

The engine puts into its errors what a registry answered, whole pages among it: whoever may name an
image could have it read aloud what a server within its reach says. So only words that are known to
be written in the engine, or in its registry client, are passed on, with status codes and the
address that was dialled. The rest is in the engine's own log.
"""

import re
from collections.abc import Iterator
from typing import Final

_LONGEST: Final = 16_384
"""Characters that are looked at: a registry may answer with more."""
_UNTOLD: Final = (
    "the engine's log says why; a registry may have written it, and it is not told here"
)
_KNOWN: Final = (
    "no basic auth credentials",
    "authentication required",
    "unauthorized",
    "pull access denied",
    "requested access to the resource is denied",
    "repository does not exist or may require 'docker login'",
    "insufficient_scope",
    "authorization failed",
    "toomanyrequests",
    "too many requests",
    "manifest unknown",
    "name unknown",
    "name invalid",
    "blob unknown",
    "no matching manifest",
    "unsupported manifest",
    "invalid reference format",
    "no such image",
    "not found",
    "error parsing HTTP response body",
    "unexpected status",
    "filesystem layer verification failed",
    "failed to register layer",
    "no space left on device",
    "read-only file system",
    "operation not permitted",
    "permission denied",
    "connection refused",
    "connection reset by peer",
    "broken pipe",
    "network is unreachable",
    "no route to host",
    "no such host",
    "server misbehaving",
    "temporary failure in name resolution",
    "i/o timeout",
    "TLS handshake timeout",
    "request canceled",
    "context deadline exceeded",
    "context canceled",
    "server gave HTTP response to HTTPS client",
    "first record does not look like a TLS handshake",
    "certificate signed by unknown authority",
    "certificate has expired or is not yet valid",
    "certificate is not valid for",
    "certificate is valid for",
    "proxyconnect tcp",
    "unexpected EOF",
)
_SAID: Final = re.compile(
    "|".join(
        (
            *map(re.escape, _KNOWN),
            r"dial tcp \[?[0-9a-f.:]{2,45}\]?:\d{1,5}",
            r"(?:received unexpected HTTP status|unexpected status code|HTTP status): \d{3}\b",
            r"error parsing HTTP \d{3} response body",
        )
    ),
    re.IGNORECASE,
)


def engine_words(text: str) -> str:
    """Return what of an engine's error on a pull is its own, in the order in which it stands."""
    said = list(dict.fromkeys(_found(text[:_LONGEST])))
    return ": ".join(said) if said else _UNTOLD


def _found(text: str) -> Iterator[str]:
    known = {words.lower(): words for words in _KNOWN}
    for found in _SAID.finditer(text):
        # As we write it: a registry's own case of letters would be a word of its.
        yield known.get(found[0].lower(), found[0].lower())
