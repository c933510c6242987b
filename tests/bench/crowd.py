"""A consumer with so many tenants that were there before it started, on a simulated engine.

The engine is a process of its own. The ledger is filled by the ledger's own adapter: each tenant
has its spec, its answered event and the status that was told of it.
"""

import asyncio
import os
import sys
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import aiohttp

from consumer.adapters.docker import DockerEngine
from consumer.adapters.docker_client import Endpoint
from consumer.adapters.docker_spec import Naming
from consumer.adapters.ledger import SqlLedger
from consumer.clock import Clock
from consumer.model import (
    ContainerReport,
    EventId,
    EventKind,
    Health,
    Reason,
    Sighting,
    State,
    Status,
    TenantEvent,
    TenantSpec,
)
from consumer.ports import PassResult
from deploy.lab.daemon import Daemon
from deploy.lab.names import Names, remove_names
from tests.bench.profiles import command
from tests.bench.stand import Stand
from tests.e2e.broker_clients import BrokerClients, connect
from tests.e2e.consumer_process import ConsumerProcess
from tests.simulated import population

_BATCH: Final = 500
_START_SECONDS: Final = 120.0
_PROJECT: Final = Path(__file__).parents[2]


@dataclass(frozen=True, slots=True)
class Crowd:
    """The consumer, not started yet, and what is around it."""

    size: int
    process: ConsumerProcess
    clients: BrokerClients
    socket: Path

    async def start(self) -> None:
        """Start the consumer, on its ledger, and wait until it is ready."""
        await asyncio.to_thread(self.process.start, timeout=_START_SECONDS)

    async def requests(self) -> Counter[str]:
        """Return how often the engine has been asked for what."""
        async with (
            aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(self.socket))) as session,
            session.get("http://engine/simulated/requests") as response,
        ):
            return Counter(await response.json())


@asynccontextmanager
async def crowd(
    place: Stand, folder: Path, name: str, size: int, settings: Mapping[str, str]
) -> AsyncIterator[Crowd]:
    """Give a consumer with so many tenants; nothing of it is left after the block."""
    names = Names(f"ll-{name}-{os.getpid()}")
    broker_url = place.around.broker_url
    home = folder / name
    home.mkdir()
    socket = home / "e.sock"
    engine = _engine(names, home, socket, size)
    url = f"unix://{socket}"
    process = ConsumerProcess(
        names=names,
        broker_url=broker_url,
        docker_host=url,
        folder=home,
        settings=settings,
        command=command(place.profiles, name),
    )
    async with AsyncExitStack() as stack:
        stack.callback(engine.kill)
        await asyncio.to_thread(engine.start, seconds=_START_SECONDS)
        await _fill(home / "landlord.db", url, Naming(names.prefix, names.prefix), size)
        stack.push_async_callback(remove_names, broker_url, names)
        clients = await stack.enter_async_context(connect(broker_url, names))
        stack.callback(process.terminate)
        yield Crowd(size, process, clients, socket)


def _engine(names: Names, place: Path, socket: Path, size: int) -> Daemon:
    log = place / "engine.log"
    options = {
        "--socket": str(socket),
        "--containers": str(size),
        "--prefix": names.prefix,
        "--instance": names.prefix,
    }
    words = (word for option in options.items() for word in option)
    return Daemon(
        "simulated engine",
        (sys.executable, "-m", "tests.simulated", *words),
        environment=os.environ,
        log=log,
        is_ready=lambda: "ready" in log.read_text(),
        folder=_PROJECT,
    )


async def _fill(path: Path, engine_url: str, naming: Naming, size: int) -> None:
    """Have a ledger there that knows every tenant, as an earlier run would have left it."""
    async with DockerEngine(endpoint=Endpoint(url=engine_url), naming=naming).opened() as engine:
        sightings = {seen.tenant_id: seen for seen in await engine.survey()}
    ledger = await SqlLedger.open(f"sqlite:///{path}", clock=Clock())
    try:
        tenants = list(population.population(size))
        for start in range(0, size, _BATCH):
            batch = [
                (_event(sightings[tenant], spec), _answer(sightings[tenant], spec))
                for tenant, spec in tenants[start : start + _BATCH]
            ]
            await ledger.record([event for event, _ in batch])
            async with asyncio.TaskGroup() as group:
                for _, answer in batch:
                    group.create_task(ledger.commit(answer))
        told = await ledger.unsent(limit=size)
        await ledger.mark_sent([entry.entry_id for entry in told], at=datetime.now(UTC))
    finally:
        await ledger.close()


def _event(seen: Sighting, spec: TenantSpec) -> TenantEvent:
    return TenantEvent(
        kind=EventKind.CREATED,
        tenant_id=seen.tenant_id,
        received_at=seen.created_at,
        event_id=EventId(f"of-{seen.tenant_id}"),
        spec=spec,
    )


def _answer(seen: Sighting, spec: TenantSpec) -> PassResult:
    report = ContainerReport(
        container_id=seen.container_id,
        name=f"landlord-tenant-{seen.tenant_id}",
        image=spec.image,
        image_id="sha256:" + "a" * 64,
        started_at=seen.created_at,
        finished_at=None,
        exit_code=None,
        restart_count=0,
        oom_killed=False,
        health=Health.NONE,
    )
    status = Status(
        tenant_id=seen.tenant_id,
        state=State.RUNNING,
        reason=Reason.STARTED,
        message="container started in 0.31 s",
        occurred_at=seen.created_at,
        provider_type="docker",
        event_id=EventId(f"of-{seen.tenant_id}"),
        container=report,
        startup_seconds=0.31,
    )
    return PassResult(
        tenant_id=seen.tenant_id, revision=1, statuses=(status,), answered=True, applied=spec
    )
