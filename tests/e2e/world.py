"""A running consumer and everything around it that a test may look at."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from uuid import uuid4

import aiohttp

from deploy.lab.docker_cli import DockerCli
from deploy.lab.names import Names, remove_names
from deploy.lab.packages import LabError
from deploy.lab.servers import Broker, EngineHost
from tests.conftest import WEB
from tests.e2e.broker_clients import BrokerClients, Publisher, Status, Subscriber, connect
from tests.e2e.consumer_process import ConsumerProcess, get

_LISTEN_SECONDS: Final = 10.0
_LOOK_SECONDS: Final = 0.05


@dataclass(frozen=True, slots=True)
class World:
    """The consumer, both sides of the broker, and the engine."""

    consumer: ConsumerProcess
    clients: BrokerClients
    docker: DockerCli
    host: EngineHost

    @property
    def names(self) -> Names:
        return self.consumer.names

    @property
    def publisher(self) -> Publisher:
        return self.clients.publisher

    @property
    def subscriber(self) -> Subscriber:
        return self.clients.subscriber

    async def run_tenant(
        self, tenant_id: str, *, container: Mapping[str, object] | None = None, **fields: object
    ) -> Status:
        """Create the tenant and return the status event that says it runs."""
        await self.publisher.create(make_document(tenant_id, container=container, **fields))
        return await self.subscriber.expect(tenant_id, state="running")

    async def delete_tenant(self, tenant_id: str) -> Status:
        """Delete the tenant and return the status event that says it is gone."""
        event_id = await self.publisher.tell("deleted", tenant_id)
        return await self.subscriber.expect(tenant_id, state="stopped", event_id=event_id)

    def container(self, tenant_id: str) -> str:
        return self.names.container(tenant_id)

    def inspect(self, tenant_id: str, template: str) -> object:
        """Return what `docker inspect` tells of the tenant's container at this place."""
        return self.docker.inspect(self.container(tenant_id), template)

    def containers(self, tenant_id: str) -> list[str]:
        """Return the ids of all containers of the tenant, in whatever state."""
        return self.docker.containers(f"{self.names.prefix}.tenant_id={tenant_id}")

    async def is_ready(self) -> bool:
        """Whether the consumer says that it can do its work."""
        code, _ = await self.consumer.http_get("/readyz")
        return code == 200

    def serves(self, tenant_id: str) -> bool:
        """Whether the program in the tenant's container has come as far as to serve.

        Before that it may not heed SIGTERM yet, and a stop takes its whole grace period.
        """
        try:
            self.docker.run("exec", self.container(tenant_id), "test", "-e", "/www/index.html")
        except LabError:
            return False
        return True

    async def fetch(self, port: int, path: str = "/") -> str:
        """Return what answers on a published port, once the server within listens."""
        deadline = time.monotonic() + _LISTEN_SECONDS
        while True:
            try:
                code, body = await get(f"http://{self.host.address}:{port}{path}")
            except aiohttp.ClientConnectionError:
                # The container runs; what is in it may need another moment.
                assert time.monotonic() < deadline, f"nobody listens on {port}"
                await asyncio.sleep(0.05)
            else:
                assert code == 200, body
                return body


def make_document(
    tenant_id: str, *, container: Mapping[str, object] | None = None, **fields: object
) -> dict[str, object]:
    """Return a document for a small web server; `container` differs within its container."""
    return {
        "tenant_id": tenant_id,
        "containers": [{"image": WEB, **(container or {})}],
        "resources": {"cpu": 100, "memory": 32},
        **fields,
    }


async def until(is_so: Callable[[], bool | Awaitable[bool]], *, seconds: float = 20.0) -> None:
    """Wait until it is so; what is asked may be something to await. Raises TimeoutError."""
    async with asyncio.timeout(seconds):
        while True:
            answer = is_so()
            if answer if isinstance(answer, bool) else await answer:
                return
            await asyncio.sleep(_LOOK_SECONDS)


def shell(script: str) -> dict[str, object]:
    """Return what makes a container run this script."""
    return {"command": ["/bin/sh", "-c", script]}


@contextmanager
def consumer_process(
    broker_url: str, docker_url: str, folder: Path, **settings: str
) -> Iterator[ConsumerProcess]:
    """Give a consumer with names of its own, not yet started; end it after the block."""
    process = ConsumerProcess(
        names=Names(f"ll-{uuid4().hex[:8]}"),
        broker_url=broker_url,
        docker_host=docker_url,
        folder=folder,
        settings=settings,
    )
    try:
        yield process
    finally:
        process.kill()


@asynccontextmanager
async def world_around(
    process: ConsumerProcess, broker: Broker, host: EngineHost
) -> AsyncIterator[World]:
    """Connect to both sides of the broker for the length of the block."""
    async with connect(broker.url, process.names) as clients:
        yield World(process, clients, DockerCli(host.url), host)


@asynccontextmanager
async def own_world(
    broker: Broker,
    host: EngineHost,
    folder: Path,
    *,
    broker_url: str | None = None,
    docker_url: str | None = None,
    **settings: str,
) -> AsyncIterator[World]:
    """Give a started consumer of the test's own, which it may kill, with all that is around it.

    The consumer reaches the servers by these URLs, where they are given: those of proxies.
    """
    with consumer_process(
        broker_url or broker.url, docker_url or host.url, folder, **settings
    ) as process:
        async with world_around(process, broker, host) as world:
            # In a thread: proxies that stand between run in this one.
            await asyncio.to_thread(process.start)
            yield world
            process.kill()
        await take_away(broker, host, process.names)


async def take_away(broker: Broker, host: EngineHost, names: Names) -> None:
    """Remove everything with these names from broker and engine."""
    docker = DockerCli(host.url)
    docker.remove_containers(names.label)
    docker.remove_volumes(names.label)
    docker.remove_networks(names.label)
    await remove_names(broker.url, names)


def examples_of_the_seed() -> dict[str, bytes]:
    """Return the tenant documents of the user's own description, as they stand there."""
    folder = Path(__file__).parent / "seed"
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}
