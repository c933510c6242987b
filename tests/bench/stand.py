"""What every row works on: a consumer, both sides of its broker, and its engine without it."""

import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from aiodocker import Docker
from aiodocker.containers import DockerContainer

from deploy.lab.docker_cli import DockerCli
from deploy.lab.names import Names, remove_names
from deploy.lab.surroundings import Surroundings
from tests.bench.profiles import command
from tests.e2e.broker_clients import BrokerClients, Heard, connect
from tests.e2e.consumer_process import ConsumerProcess

IMAGE: Final = "landlord-bench/web:1"
_ANSWER_SECONDS: Final = 60.0


@dataclass(frozen=True, slots=True)
class Stand:
    """Published ports answer at `address`."""

    clients: BrokerClients
    docker: Docker
    names: Names
    address: str
    around: Surroundings
    profiles: Path | None
    """Where profiles of the consumers are to be written; None when they are not looked at."""

    def document(self, tenant_id: str, **container: object) -> dict[str, object]:
        """Return a document for a small web server."""
        return {
            "tenant_id": tenant_id,
            "containers": [{"image": IMAGE, **container}],
            "resources": {"cpu": 1000, "memory": 64},
        }

    async def answer(
        self, tenant_id: str, event_id: str, *, seconds: float = _ANSWER_SECONDS
    ) -> Heard:
        """Return the status event that answers the tenant event."""
        return await self.clients.subscriber.expect_message(
            tenant_id, event_id=event_id, timeout=seconds
        )

    async def run_tenant(self, tenant_id: str, **container: object) -> dict[str, object]:
        """Have the tenant run; return what the engine shows of its container."""
        document = self.document(tenant_id, **container)
        event_id = await self.clients.publisher.create(document)
        await self.answer(tenant_id, event_id)
        found = await self.docker.containers.get(self.names.container(tenant_id))
        return dict(await found.show())

    async def delete_tenant(self, tenant_id: str) -> None:
        """Have the tenant gone."""
        await self.answer(tenant_id, await self.clients.publisher.tell("deleted", tenant_id))

    async def twin(self, shown: dict[str, object], name: str) -> DockerContainer:
        """Make, without starting it, a container like the one that the engine shows.

        The same in everything but the labels, by which the consumer would take it for its own; so
        the floor asks no less of the engine than we do.
        """
        document = twin_document(shown)
        return await self.docker.containers.create(document, name=self.name(name))  # type: ignore[arg-type]  # JSON

    def name(self, name: str) -> str:
        """Return a name for a container of the floor."""
        return f"{self.names.prefix}-floor-{name}"


def twin_document(shown: dict[str, object]) -> dict[str, object]:
    """Return what asks for a container like the one that is shown."""
    config, host_config = shown["Config"], shown["HostConfig"]
    assert isinstance(config, dict)
    left_out = ("Labels", "Hostname", "Domainname")
    kept = {key: value for key, value in config.items() if key not in left_out}
    return {**kept, "HostConfig": host_config}


@asynccontextmanager
async def stand(
    around: Surroundings, folder: Path, *, profiles: Path | None
) -> AsyncIterator[Stand]:
    """Give a stand; nothing of it is left after the block."""
    names = Names(f"landlord-bench-{os.getpid()}")
    cli = DockerCli(around.docker_host)
    process = ConsumerProcess(
        names=names,
        broker_url=around.broker_url,
        docker_host=around.docker_host,
        folder=folder,
        command=command(profiles, "consumer"),
    )
    async with AsyncExitStack() as stack:
        cli.import_image(IMAGE, ('CMD ["/start.sh"]', "ENV PORT=8080"))
        stack.callback(cli.run, "rmi", "-f", IMAGE)
        stack.callback(cli.remove_volumes, names.label)
        stack.callback(cli.remove_containers, names.label)
        stack.push_async_callback(remove_names, around.broker_url, names)
        docker = await stack.enter_async_context(Docker(url=around.docker_host))
        clients = await stack.enter_async_context(connect(around.broker_url, names))
        process.start()
        stack.callback(process.terminate)
        yield Stand(clients, docker, names, around.address, around, profiles)
