"""Logins at registries, read from the operator's files each time one is needed.

So a password that was changed holds from the next pull on, and none is kept. What is read goes to
the engine's pull request and nowhere else. A login of its own for a registry comes before that of a
Docker `config.json`.
"""

import base64
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from consumer.errors import ConsumerError
from consumer.image_reference import DEFAULT_REGISTRY

_HUB: Final = frozenset({"docker.io", "index.docker.io", "registry-1.docker.io"})


class LoginError(ConsumerError):
    """A login is configured and cannot be read; the message names the file, never its content."""


@dataclass(frozen=True, slots=True)
class Credentials:
    """A login at a registry."""

    username: str
    password: str = field(repr=False)


FindCredentials = Callable[[str], Credentials | None]
"""Given the registry's host (and port), returns the login to use there, if any.

Raises LoginError.
"""


@dataclass(frozen=True, slots=True)
class LoginFile:
    """A user name, and the file with its password."""

    username: str
    password_file: Path


class RegistryLogins:
    """Finds the login for a registry."""

    def __init__(
        self, logins: Mapping[str, LoginFile], *, docker_config: Path | None = None
    ) -> None:
        self._logins = {_host(registry): login for registry, login in logins.items()}
        self._docker_config = docker_config

    def known(self) -> list[str]:
        """Return the registries that there is a login for. Raises LoginError."""
        known = set(self._logins)
        if self._docker_config is not None:
            document = _document(self._docker_config)
            auths = document.get("auths") if isinstance(document, dict) else None
            known |= {_host(str(name)) for name in auths} if isinstance(auths, dict) else set()
        return sorted(known)

    def find(self, registry: str) -> Credentials | None:
        """Return the login to use at the registry, None when there is none. Raises LoginError."""
        login = self._logins.get(_host(registry))
        if login is not None:
            password = _read(login.password_file).rstrip("\r\n")
            return Credentials(login.username, password)
        if self._docker_config is None:
            return None
        return _find_in(self._docker_config, registry)


def _host(registry: str) -> str:
    """Return host and port of what may be a URL; Docker Hub has several names."""
    host = urlsplit(registry if "://" in registry else f"//{registry}").netloc.lower()
    return DEFAULT_REGISTRY if host in _HUB else host


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise LoginError(f"the login in {path} cannot be read: {error.strerror}") from error
    except ValueError:
        raise LoginError(f"the login in {path} is not UTF-8") from None


def _find_in(path: Path, registry: str) -> Credentials | None:
    """Return the login in a Docker `config.json`, as `docker login` writes it."""
    document = _document(path)
    entry = _entry(document, "auths", registry)
    if entry is not None:
        credentials = _credentials(entry)
        if credentials is not None:
            return credentials
    # `docker login` with a helper leaves an empty entry; a helper is a program of the person's who
    # logged in, and not to be had here.
    if entry is not None or _entry(document, "credHelpers", registry) is not None:
        raise LoginError(
            f"{path} has no password for {registry} (a credential helper keeps it); "
            "set compute.docker.registries with a password_file"
        )
    return None


def _document(path: Path) -> object:
    try:
        document: object = json.loads(_read(path))
    except ValueError:
        raise LoginError(f"{path} is no JSON") from None
    return document


def _entry(document: object, section: str, registry: str) -> object:
    entries = document.get(section) if isinstance(document, dict) else None
    if not isinstance(entries, dict):
        return None
    wanted = _host(registry)
    return next((entry for name, entry in entries.items() if _host(str(name)) == wanted), None)


def _credentials(entry: object) -> Credentials | None:
    if not isinstance(entry, dict):
        return None
    username, password = entry.get("username"), entry.get("password")
    if not username:
        try:
            joined = base64.b64decode(str(entry.get("auth") or ""), validate=True).decode()
        except ValueError:
            return None
        username, _, password = joined.partition(":")
    if not username or not password:
        return None
    return Credentials(str(username), str(password))
