"""Tenants' secrets: read on the consumer's side, put into the container before it starts.

A container carries the names of its secrets in a label, so whoever starts it knows what it needs,
also after a crash between its making and its start. The contents go through the engine's archive
API, so it may be on another host. They lie in a volume of the container's own: it goes when we
remove the container, and when somebody else did, as soon as it is found without one.
"""

import asyncio
import io
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final

import structlog

from consumer.adapters.docker_client import DockerClient, Refused
from consumer.adapters.docker_spec import Naming, as_filter
from consumer.errors import EngineError, EngineUnavailable
from consumer.model import SECRETS_FOLDER, Container, ContainerStatus, Reason, TenantId

_log: Final = structlog.get_logger(__name__)

_MOST_BYTES: Final = 500 * 1024
"""As much as a secret of Docker's own Swarm can hold."""
_READ_SECONDS: Final = 10.0
_USERS: Final = "/etc/passwd"
_MOST_USERS_BYTES: Final = 1024 * 1024
_MEMBER_BYTES: Final = 4 * 512
"""What a tar archive adds to a file: its header, and the fill to whole blocks."""
_HIGHEST_ID: Final = 2**31 - 1
_MODE: Final = 0o400
_PHRASE: Final = "failed to create container"


@dataclass(frozen=True, slots=True)
class _Owner:
    uid: int = 0
    gid: int = 0


class Secrets:
    """Brings tenants' secrets from a folder, `<folder>/<tenant_id>/<name>`, into containers."""

    def __init__(
        self,
        client: DockerClient,
        *,
        naming: Naming,
        folder: Path | None,
        request_seconds: float,
    ) -> None:
        self._client = client
        self._naming = naming
        self._unused: frozenset[str] = frozenset()
        self._folder = folder
        self._request_seconds = request_seconds

    async def read(self, tenant_id: TenantId, names: Sequence[str]) -> dict[str, bytes]:
        """Return the contents by name, of all of them.

        Raises EngineError invalid_event for one that is not there, create_failed for one that
        cannot be read. Both are transient: the operator can put it there without a new event.
        """
        if not names:
            return {}
        if self._folder is None:
            raise _failure(Reason.INVALID_EVENT, names[0], "compute.docker.secrets_dir is not set")
        folder = self._folder / tenant_id
        try:
            async with asyncio.timeout(_READ_SECONDS):
                return {name: await asyncio.to_thread(_read, folder, name) for name in names}
        except TimeoutError as error:
            words = f"compute.docker.secrets_dir gave no answer within {_READ_SECONDS:g} s"
            raise _failure(Reason.CREATE_FAILED, names[0], words) from error

    async def deliver(self, container: Container) -> None:
        """Put all its secrets into the container, or raise EngineError and put in none.

        One that ran before is not kept from running again by a secret that is gone meanwhile: it
        has what it was given then.
        """
        try:
            contents = await self.read(container.tenant_id, container.secrets)
        except EngineError as error:
            if container.status is ContainerStatus.CREATED:
                raise
            _log.warning("secrets not renewed", container=container.name, error=str(error))
            return
        if not contents:
            return
        archive = _pack(contents, await self._owner(container))
        try:
            async with self._client.asking("put archive", self._request_seconds) as docker:
                handle = docker.containers.container(container.container_id)
                await handle.put_archive(SECRETS_FOLDER, archive)  # type: ignore[no-untyped-call]  # untyped there
        except Refused as error:
            message = f"{_PHRASE}: secrets not delivered: Error response from daemon: {error}"
            raise EngineError(Reason.CREATE_FAILED, message, is_transient=True) from error

    async def held_by(self, container: Container) -> dict[str, bytes]:
        """Return by name what lies in the container: what its program may have read, and told.

        Those that its program removed, or all if it put too much beside them, are left out. Raises
        EngineUnavailable.
        """
        if not container.secrets:
            return {}
        most_bytes = (len(container.secrets) + 1) * (_MOST_BYTES + _MEMBER_BYTES)
        archive = await self._read_archive(container, SECRETS_FOLDER, most_bytes)
        return _unpack(archive) if len(archive) < most_bytes else {}

    async def discard(self, container: Container) -> None:
        """Remove the volume that held its secrets; what is left is found by `tidy`."""
        if container.secrets_volume is not None:
            await self._remove(container.secrets_volume)

    async def tidy(self) -> None:
        """Remove volumes of secrets that no container has, now and the last time.

        One that is seen once may belong to a container that is being made. Raises
        EngineUnavailable.
        """
        if self._folder is None:
            return
        filters = {"dangling": ["true"], "name": [self._naming.secrets_volume("")]}
        try:
            async with self._client.asking("volume list", self._request_seconds) as docker:
                told = await docker._query_json("volumes", params={"filters": as_filter(filters)})  # noqa: SLF001 - the library's own takes no filters
        except Refused as error:
            _log.debug("volumes not listed", error=str(error))
            return
        listed = told.get("Volumes") if isinstance(told, dict) else None
        names = (str(line.get("Name")) for line in listed or [] if isinstance(line, dict))
        unused = frozenset(name for name in names if self._naming.is_secrets_volume(name))
        for name in unused & self._unused:
            _log.info("secrets of a removed container removed", volume=name)
            await self._remove(name)
        self._unused = unused

    async def _remove(self, volume: str) -> None:
        try:
            async with self._client.asking("volume remove", self._request_seconds) as docker:
                await docker._query_json(f"volumes/{volume}", "DELETE")  # noqa: SLF001 - the library looks for it first
        except (Refused, EngineUnavailable) as error:
            _log.debug("volume not removed", volume=volume, error=str(error))

    async def _owner(self, container: Container) -> _Owner:
        """Return the ids of the user that the container runs as; root's where they are unknown."""
        user, _, group = container.user.partition(":")
        uid, gid = _as_id(user), _as_id(group)
        if uid is not None and gid is not None:
            return _Owner(uid, gid)
        found = None if user in ("", "0", "root") else await self._look_up(container, user)
        if found is None:
            if uid is None and user not in ("", "root"):
                _log.warning("secrets belong to root", container=container.name, user=user[:80])
            found = _Owner(uid or 0)
        return found if gid is None else _Owner(found.uid, gid)

    async def _look_up(self, container: Container, user: str) -> _Owner | None:
        """Return the ids of a user, by name or number, as the container's own passwd has them."""
        archive = await self._read_archive(container, _USERS, _MOST_USERS_BYTES)
        users = _unpack(archive).get(PurePosixPath(_USERS).name, b"")
        return _find_user(users.decode(errors="replace"), user)

    async def _read_archive(self, container: Container, path: str, most_bytes: int) -> bytes:
        """Return the beginning of what lies at the path, as tar; empty when nothing does."""
        try:
            return await self._client.read_some(
                "get archive",
                f"containers/{container.container_id}/archive",
                {"path": path},
                seconds=self._request_seconds,
                most_bytes=most_bytes,
            )
        except Refused:
            return b""


def _read(folder: Path, name: str) -> bytes:
    """Return one secret's contents. A link is followed: the folder is the operator's."""
    path = folder / name
    try:
        if not path.exists():
            raise _failure(Reason.INVALID_EVENT, name, "it is not there")
        if not path.is_file():
            raise _failure(Reason.INVALID_EVENT, name, "it is no file")
        with path.open("rb") as file:
            content = file.read(_MOST_BYTES + 1)
    except OSError as error:
        words = f"it cannot be read: {error.strerror}"
        raise _failure(Reason.CREATE_FAILED, name, words) from error
    if len(content) > _MOST_BYTES:
        raise _failure(Reason.INVALID_EVENT, name, f"it has more than {_MOST_BYTES} bytes")
    return content


def _failure(reason: Reason, name: str, words: str) -> EngineError:
    place = f"compute.docker.secrets_dir/<tenant_id>/{name}"
    message = f"{_PHRASE}: containers[0].secrets: {name!r} ({place}): {words}"
    return EngineError(reason, message, is_transient=True)


def _pack(contents: dict[str, bytes], owner: _Owner) -> bytes:
    """Return the secrets as a tar archive, readable by the owner alone."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in contents.items():
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(content), _MODE
            member.uid, member.gid = owner.uid, owner.gid
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def _unpack(archive: bytes) -> dict[str, bytes]:
    """Return the whole files of the archive by their names, without their folders."""
    files = {}
    try:
        with tarfile.open(fileobj=io.BytesIO(archive), mode="r:") as members:
            for member in members:
                file = members.extractfile(member) if member.isfile() else None
                if file is not None:
                    files[PurePosixPath(member.name).name] = file.read()
    except (tarfile.TarError, OSError):
        return {}  # cut off, or none
    return files


def _find_user(passwd: str, user: str) -> _Owner | None:
    for line in passwd.splitlines():
        name, _, uid, gid, *_ = (*line.split(":"), "", "", "", "")
        found = _as_id(uid), _as_id(gid)
        if user in (name, uid) and found[0] is not None and found[1] is not None:
            return _Owner(found[0], found[1])
    return None


def _as_id(text: str) -> int | None:
    """Return the number of a user or group; the image is the tenant's, and may say anything."""
    if not text.isascii() or not text.isdecimal() or len(text) > len(str(_HIGHEST_ID)):
        return None
    return int(text) if int(text) <= _HIGHEST_ID else None
