"""What the engine says of itself, for a check: nothing is made, pulled or changed there."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from consumer.adapters.docker_client import DockerClient, Refused
from consumer.adapters.docker_networks import BUILT_IN, openness, real_name
from consumer.adapters.docker_spec import Naming, as_filter, network_trouble, to_sighting
from consumer.adapters.registries import Credentials
from consumer.clock import utc_now
from consumer.errors import EngineUnavailable
from consumer.image_reference import DEFAULT_REGISTRY
from consumer.model import Document, Sighting

_HUB_LOGIN: Final = "https://index.docker.io/v1/"
_LIMITS: Final = {
    "MemoryLimit": "memory",
    "CpuCfsQuota": "CPU",
    "PidsLimit": "the number of processes",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineSight:
    """What the engine says of itself and its host."""

    version: str
    api_version: str
    cpus: int
    memory_bytes: int
    folder: str
    """Where it keeps images and containers, on its host."""
    skew_seconds: float | None
    """How far our clock is ahead of its; None when it does not tell the time."""
    network_drivers: frozenset[str]
    runtimes: frozenset[str]
    is_swarm: bool
    unlimited: tuple[str, ...]
    """What its kernel cannot limit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkSight:
    """What the engine says of the tenants' network."""

    is_there: bool
    trouble: str | None
    """What keeps tenants from joining it."""
    openness: str | None
    """Why tenants on it reach each other."""


class DockerCheckup:
    """Asks one engine. Everything raises EngineUnavailable when it cannot be asked."""

    def __init__(self, client: DockerClient, *, request_seconds: float) -> None:
        self._client = client
        self._seconds = request_seconds

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[None]:
        """Hold the connections for the length of the block."""
        async with self._client.opened():
            yield

    async def look(self) -> EngineSight:
        """Return what the engine says of itself."""
        try:
            async with self._client.asking("info", self._seconds) as docker:
                version = await docker.version()
                asked_at = utc_now().timestamp()
                told = await docker.system.info()
                answered_at = utc_now().timestamp()
        except Refused as error:
            raise EngineUnavailable(f"the engine tells nothing of itself: {error}") from error
        its = _as_time(told.get("SystemTime"))
        # It looked at its clock some time between question and answer.
        ours = (asked_at + answered_at) / 2
        return EngineSight(
            version=str(version.get("Version", "")),
            api_version=str(version.get("ApiVersion", "")),
            cpus=int(told.get("NCPU") or 0),
            memory_bytes=int(told.get("MemTotal") or 0),
            folder=str(told.get("DockerRootDir") or ""),
            skew_seconds=None if its is None else ours - its.timestamp(),
            network_drivers=frozenset((told.get("Plugins") or {}).get("Network") or ()),
            runtimes=frozenset(told.get("Runtimes") or ()),
            is_swarm=(told.get("Swarm") or {}).get("LocalNodeState") == "active",
            unlimited=tuple(words for key, words in _LIMITS.items() if told.get(key) is False),
        )

    async def look_at_network(self, name: str, driver: str) -> NetworkSight:
        """Return what there is of the network."""
        name = real_name(name)
        try:
            async with self._client.asking("network list", self._seconds) as docker:
                listed: list[Document] = await docker.networks.list(filters={"name": [name]})
        except Refused as error:
            raise EngineUnavailable(f"the engine cannot list networks: {error}") from error
        found = [line for line in listed if line.get("Name") == name]
        is_built_in = name in BUILT_IN
        return NetworkSight(
            is_there=is_built_in or bool(found),
            trouble=None if is_built_in else network_trouble(found, driver),
            openness=openness(name, driver, found),
        )

    async def look_at_containers(self, naming: Naming) -> list[Sighting]:
        """Return one line for each container with our labels."""
        filters = as_filter(naming.filters())
        try:
            async with self._client.asking("list", self._seconds) as docker:
                listed = await docker._query_json(  # noqa: SLF001 - the library's own hides each line
                    "containers/json", params={"all": "1", "filters": filters}
                )
        except Refused as error:
            raise EngineUnavailable(f"the engine cannot list containers: {error}") from error
        seen = []
        for line in listed:
            with suppress(ValueError):  # somebody wrote our labels by hand; it is no tenant's
                seen.append(to_sighting(line, naming))
        return seen

    async def try_login(self, registry: str, login: Credentials) -> str | None:
        """Have the engine log in at the registry; return why that failed, None when it did not."""
        address = _HUB_LOGIN if registry == DEFAULT_REGISTRY else registry
        try:
            async with self._client.asking("login", self._seconds) as docker:
                await docker.auth(
                    username=login.username, password=login.password, serveraddress=address
                )
        except Refused as error:
            return error.message.replace(login.password, "***")
        return None


def _as_time(text: object) -> datetime | None:
    """Return the time that the engine told; its fraction has more digits than Python takes."""
    try:
        return datetime.strptime(str(text)[:19], "%Y-%m-%dT%H:%M:%S").replace(tzinfo=UTC)
    except ValueError:
        return None
