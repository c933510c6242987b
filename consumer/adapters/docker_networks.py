"""The network that tenants join: made if missing, put right when it keeps one from starting.

Its name may be made by others too: by hand, by another instance, at the same instant. What counts
is what the engine tells of the name afterwards, also for whether it keeps tenants from each other:
where it does not and should, the log says so, at every start.
"""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, Literal

import structlog

from consumer.adapters.docker_client import DockerClient, Refused, see_through
from consumer.adapters.docker_spec import Naming, network_trouble
from consumer.errors import EngineError, EngineUnavailable
from consumer.model import Container, Document, Reason

_log: Final = structlog.get_logger(__name__)

_NOT_FOUND, _CONFLICT = 404, 409
BUILT_IN: Final = frozenset({"bridge", "host", "none", "default"})
_STALE_ENDPOINT: Final = "endpoint with name"
_LOOKS: Final = 10
_LOOK_SECONDS: Final = 0.2
_APART: Final = "com.docker.network.bridge.enable_icc"
"""The option of a bridge that says whether containers on it reach each other."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """The network tenants are attached to, and the host address their ports are bound on."""

    name: str = "bridge"
    driver: str = "bridge"
    is_isolating: bool = True
    bind_address: str = "0.0.0.0"  # noqa: S104 - the contract's default


class TenantNetwork:
    """Sees to the configured network."""

    def __init__(
        self, client: DockerClient, *, naming: Naming, network: Network, request_seconds: float
    ) -> None:
        self._client = client
        self._naming = naming
        self._network = network
        self._request_seconds = request_seconds
        self._lock = asyncio.Lock()
        self._told: str | None = None

    async def look(self, seconds: float) -> None:
        """Say in the log where tenants are to be kept from each other and are not.

        Says nothing when the engine cannot be asked: a tenant that comes is the next occasion.
        """
        with suppress(Refused, EngineUnavailable):
            self._tell(await self._find(seconds))

    async def ensure(self) -> None:
        """Have the network there, made if it is missing, and fit to be joined.

        Raises EngineError network_failed, EngineUnavailable.
        """
        network, seconds = self._network, self._request_seconds
        if network.name in BUILT_IN:
            return
        async with self._lock:
            try:
                found = await self._find(seconds)
                if not found:
                    found = await see_through(self._make())
            except Refused as error:
                message = f"network {network.name!r}: Error response from daemon: {error}"
                raise _failed(message) from error
        trouble = network_trouble(found, network.driver)
        if trouble is not None:
            raise _failed(f"network {network.name!r} {trouble}")
        self._tell(found)

    def _tell(self, found: Sequence[Document]) -> None:
        network = self._network
        why = openness(network.name, network.driver, found) if network.is_isolating else None
        if why is not None and why != self._told:
            _log.warning("tenants are not kept from each other", network=network.name, why=why)
        self._told = why

    async def _find(self, seconds: float) -> list[Document]:
        """Return what the engine tells of networks with the configured name."""
        name = real_name(self._network.name)
        async with self._client.asking("network list", seconds) as docker:
            listed = await docker.networks.list(filters={"name": [name]})
        # The filter takes parts of names.
        return [line for line in listed if line["Name"] == name]

    async def _make(self) -> list[Document]:
        """Make the network; return what is there of the name afterwards.

        Older engines let two consumers make one each at the same instant. The newer one then goes,
        by whoever made it; the other consumer waits for that. Whoever made the newer one may have
        looked before the older one was there, and go on with it: then ours goes, which nobody has
        joined yet.
        """
        seconds = self._request_seconds
        made = await self._create()
        found = await self._find(seconds)
        for _ in range(_LOOKS):
            if len(found) < 2:
                break
            oldest = min(found, key=lambda line: (str(line.get("Created")), str(line.get("Id"))))
            if made is not None and made != oldest.get("Id"):
                await self._remove(made)
                made = None
            else:
                await asyncio.sleep(_LOOK_SECONDS)
            found = await self._find(seconds)
        if len(found) > 1 and made is not None:
            await self._remove(made)
            found = await self._find(seconds)
        return found

    async def _remove(self, network_id: str) -> None:
        seconds = self._request_seconds
        async with self._client.asking("network remove", seconds) as docker:
            # The library looks for it first.
            await docker._query_json(f"networks/{network_id}", "DELETE")  # noqa: SLF001 - see above

    async def _create(self) -> str | None:
        """Return the id of a new network; None when there is one of the name."""
        network = self._network
        document: dict[str, object] = {
            "Name": network.name,
            "Driver": network.driver,
            # Or engines before API 1.44 would make a second one of the name.
            "CheckDuplicate": True,
            "Labels": {self._naming.label("owner"): self._naming.prefix},
        }
        if network.driver == "overlay":
            document["Attachable"] = True
        if network.driver == "bridge" and network.is_isolating:
            document["Options"] = {_APART: "false"}
        try:
            async with self._client.asking("network create", self._request_seconds) as docker:
                made = await docker.networks.create(document)
        except Refused as error:
            if error.status != _CONFLICT:
                raise
            return None  # somebody else was faster
        _log.info("network created", network=network.name, driver=network.driver)
        return str(made.id)

    async def mend(self, container: Container, mode: str, error: Refused) -> None:
        """Put right what keeps a container from joining; `mode` is the network it is to be on.

        Raises the error again when that is not it.
        """
        is_stale = _STALE_ENDPOINT in error.message
        if mode != self._network.name or not (is_stale or lacks_network(error)):
            raise error
        # A refusal is no matter here: the next start shows whether it helped.
        if is_stale:  # an engine that died left the container's old connection behind
            with suppress(Refused):
                await self._ask("network disconnect", {"Container": container.name, "Force": True})
        await self.ensure()
        # The engine remembers the id of the network that the container was on, and so finds no
        # other of the name by itself. One that never started needs no more than the name.
        with suppress(Refused):
            await self._ask("network connect", {"Container": container.container_id})

    async def _ask(
        self, operation: Literal["network connect", "network disconnect"], whom: Document
    ) -> None:
        verb = operation.removeprefix("network ")
        async with self._client.asking(operation, self._request_seconds) as docker:
            # The library looks for the network first.
            await docker._query_json(f"networks/{self._network.name}/{verb}", "POST", data=whom)  # noqa: SLF001 - see above


def real_name(name: str) -> str:
    """Return what the engine lists the network as."""
    return "bridge" if name == "default" else name


def openness(name: str, driver: str, found: Sequence[Document]) -> str | None:
    """Return why tenants on the network reach each other; the words follow its name.

    None when they do not, or will not on one that is still to be made.
    """
    if name == "none":
        return None
    if name == "host":
        return "is the host's own, and whoever is on it reaches whatever listens there"
    if name in BUILT_IN:
        is_apart = bool(found) and all(map(_keeps_apart, found))
        return None if is_apart else "is the engine's own, on which all containers reach each other"
    if driver != "bridge":
        return f"is of the driver {driver!r}, which keeps nobody from anybody"
    if all(map(_keeps_apart, found)):
        return None
    return "was made so that containers on it reach each other"


def _keeps_apart(network: Document) -> bool:
    options = network.get("Options")
    return isinstance(options, dict) and str(options.get(_APART)).lower() in ("false", "0", "f")


def lacks_network(error: Refused) -> bool:
    """Whether the engine refuses because a network is not there."""
    return error.status == _NOT_FOUND and error.message.startswith("network ")


def _failed(message: str) -> EngineError:
    phrase = "failed to create container"
    return EngineError(Reason.NETWORK_FAILED, f"{phrase}: {message}", is_transient=True)
