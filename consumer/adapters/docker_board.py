"""Records that the Docker Engine keeps for the consumers of one instance: labels on empty volumes.

A volume is the one thing of the engine that is made by name, at most once, without an image and
without a network; making one that is there already gives the one that is there. Labels never
change, so a record is replaced by removing its volume. A volume that somebody prunes is a record
that is gone, which its reader has to stand.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from consumer.adapters.docker_client import DockerClient, Endpoint, Refused, see_through
from consumer.adapters.docker_spec import Naming
from consumer.errors import EngineUnavailable

_NOT_FOUND: Final = 404
_REQUEST_SECONDS: Final = 5.0


class DockerBoard:
    """See `ports.Board` for the promises."""

    def __init__(self, *, endpoint: Endpoint, naming: Naming, host_name: str) -> None:
        self._client = DockerClient(endpoint)
        self._naming = naming
        self._host_name = host_name

    @asynccontextmanager
    async def opened(self) -> AsyncIterator["DockerBoard"]:
        """Hold the connections for the length of the block; the engine may be away."""
        async with self._client.opened():
            yield self

    @property
    def place(self) -> str:
        """The name of the lease's volume."""
        return f"volume {self._volume('lease')} of the engine"

    def _volume(self, name: str) -> str:
        return f"{self._naming.prefix}-{name}-{self._naming.instance}"

    async def read(self, name: str) -> str | None:
        """Return the record of this name; None when there is none."""
        try:
            async with self._client.asking("volume inspect", _REQUEST_SECONDS) as docker:
                shown = await docker._query_json(  # noqa: SLF001 - the library asks twice
                    f"volumes/{self._volume(name)}"
                )
        except Refused as error:
            if error.status == _NOT_FOUND:
                return None
            raise _refused(error) from error
        labels = shown.get("Labels") or {}
        # One without our label was made by somebody else: not ours, and there all the same.
        return str(labels.get(self._naming.label("record"), ""))

    async def put(self, name: str, value: str) -> str:
        """Put the record there unless there is one; return the one that is there afterwards."""
        return await see_through(self._put(name, value))

    async def _put(self, name: str, value: str) -> str:
        labels = {
            "owner": self._naming.prefix,
            "instance": self._naming.instance,
            "record": value,
            "host": self._host_name,
        }
        document = {
            "Name": self._volume(name),
            "Labels": {self._naming.label(label): text for label, text in labels.items()},
        }
        try:
            async with self._client.asking("volume create", _REQUEST_SECONDS) as docker:
                await docker.volumes.create(document)  # type: ignore[no-untyped-call]  # untyped there
        except Refused as error:
            raise _refused(error) from error
        found = await self.read(name)
        if found is None:
            raise EngineUnavailable(f"{self._volume(name)} was removed the moment it was made")
        return found

    async def remove(self, name: str) -> None:
        """Remove the record; none is no error."""
        try:
            async with self._client.asking("volume remove", _REQUEST_SECONDS) as docker:
                await docker._query_json(  # noqa: SLF001 - the library looks for it first
                    f"volumes/{self._volume(name)}", "DELETE"
                )
        except Refused as error:
            if error.status != _NOT_FOUND:
                raise _refused(error) from error


def _refused(error: Refused) -> EngineUnavailable:
    return EngineUnavailable(f"the engine does not keep the lease (a volume): {error}")
