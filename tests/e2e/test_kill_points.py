"""The consumer is killed (SIGKILL) at every step towards the engine and the broker.

A proxy stands before the engine, and holds the n-th request that changes something: on its way, or
its reply after the engine has done it. There the consumer is killed and started again, for every n
until the event is answered without reaching an n-th one. The same before the broker: with its
acks withheld, and with the confirms of what it published withheld.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from deploy.lab.servers import Broker, DockerHost, free_port
from tests.e2e.broker_clients import Status
from tests.e2e.world import World, make_document, own_world
from tests.faults.proxy import Fate, Proxy, Request, proxy

pytestmark = [pytest.mark.docker, pytest.mark.rabbitmq, pytest.mark.timeout(180)]


@dataclass(frozen=True, slots=True)
class Bench:
    """The world, with proxies before broker and engine."""

    world: World
    to_broker: Proxy
    to_engine: Proxy
    secrets_dir: Path

    async def is_held_or_answered(self, tenant_id: str, event_id: str) -> bool:
        """Wait until a request is held (True) or the event is answered (False)."""
        async with asyncio.timeout(60):
            while not self.to_engine.held.is_set():
                statuses = self.world.subscriber.statuses(tenant_id)
                if any(status["event_id"] == event_id for status in statuses):
                    return False
                await asyncio.sleep(0.02)
        return True

    async def kill_and_start(self) -> None:
        """Kill the consumer, let everything pass again, and start it."""
        self.world.consumer.kill()
        for line in (self.to_engine, self.to_broker):
            line.drop()  # what was held must not arrive after all
            line.mend()
        await asyncio.to_thread(self.world.consumer.start)


class Trap:
    """Holds the n-th request that changes something on the engine."""

    def __init__(self, nth: int, fate: Fate) -> None:
        self._left = nth
        self._fate = fate

    async def judge(self, request: Request) -> Fate:
        """Count it; see `proxy.Judge`."""
        if request.method not in ("POST", "PUT", "DELETE"):
            return Fate.PASS
        self._left -= 1
        return self._fate if self._left == 0 else Fate.PASS


@pytest.fixture
async def bench(broker: Broker, docker_host: DockerHost, tmp_path: Path) -> AsyncIterator[Bench]:
    """Run a consumer behind two proxies."""
    engine_place, front = Path(docker_host.url.removeprefix("unix://")), tmp_path / "engine.sock"
    port = free_port()
    async with (
        proxy(engine_place, front) as to_engine,
        proxy(("127.0.0.1", broker.port), ("127.0.0.1", port)) as to_broker,
        own_world(
            broker,
            docker_host,
            tmp_path,
            broker_url=broker.url.replace(str(broker.port), str(port)),
            docker_url=f"unix://{front}",
            COMPUTE__DOCKER__SECRETS_DIR=str(tmp_path / "secrets"),
        ) as world,
    ):
        yield Bench(world, to_broker, to_engine, tmp_path / "secrets")


SECRET = "s3cret of this tenant"


async def publish(world: World, kind: str, tenant_id: str) -> str:
    """Publish the event of this kind, with a changed document where it takes one."""
    if kind in ("created", "updated"):
        document = make_document(tenant_id, container=own_container(kind))
        return await world.publisher.publish(kind, document)
    if kind == ROLLED_BACK:
        document = make_document(tenant_id, container={"command": ["/no/such/program"]})
        return await world.publisher.update(document)
    return await world.publisher.tell(kind, tenant_id)


def own_container(kind: str) -> dict[str, object]:
    return {"env": {"KIND": kind}, "secrets": ["db_password"]}


async def prepare(bench: Bench, kind: str, tenant_id: str) -> None:
    """Bring the tenant to where an event of this kind has work to do."""
    folder = bench.secrets_dir / tenant_id
    folder.mkdir(parents=True)
    (folder / "db_password").write_text(SECRET)
    if kind == "created":
        return
    world = bench.world
    await world.run_tenant(tenant_id, container=own_container("before"))
    if kind == "resumed":
        event_id = await world.publisher.tell("suspended", tenant_id)
        await world.subscriber.expect(tenant_id, event_id=event_id)


ROLLED_BACK, FAILED_START = "rolled_back", 5
"""An update that fails, and its request at which it does: before it come one creation, two new
names and a stop, as in every update.
"""
ENDS = {
    "created": ("running", 1),
    "updated": ("running", 1),
    "deleted": ("stopped", 0),
    "suspended": ("stopped", 1),
    "resumed": ("running", 1),
}


@pytest.mark.parametrize("fate", [Fate.HOLD, Fate.HOLD_REPLY], ids=["before", "after"])
@pytest.mark.parametrize("kind", list(ENDS))
async def test_killed_at_each_request_to_the_engine(bench: Bench, kind: str, fate: Fate) -> None:
    """Wherever it is killed, the event is answered and one container or none is left."""
    async for tenant, status in killed_at_each_request(bench, kind, fate):
        assert_ended_well(bench.world, tenant, status, *ENDS[kind])


async def test_killed_at_each_request_of_a_rollback(bench: Bench) -> None:
    """Wherever it is killed, the former container runs again, alone, and it is told so."""
    way_back = killed_at_each_request(bench, ROLLED_BACK, Fate.HOLD_REPLY, first=FAILED_START)
    async for tenant, status in way_back:
        assert_ended_well(bench.world, tenant, status, "running", 1)
        assert status["reason"] == "rolled_back"


async def killed_at_each_request(
    bench: Bench, kind: str, fate: Fate, *, first: int = 1
) -> AsyncIterator[tuple[str, Status]]:
    """Go through an event of this kind again and again, each time killed at a later request.

    Give the tenant and the answer each time; at last that of a tenant whose consumer lived.
    """
    nth, is_held = first - 1, True
    while is_held:
        nth += 1
        tenant = f"{kind}-{nth}"
        await prepare(bench, kind, tenant)
        bench.to_engine.judge = Trap(nth, fate).judge

        event_id = await publish(bench.world, kind, tenant)
        is_held = await bench.is_held_or_answered(tenant, event_id)
        if is_held:
            await bench.kill_and_start()
        status = await bench.world.subscriber.expect(tenant, event_id=event_id, timeout=30)

        yield tenant, status
    assert nth > first, "nothing was ever held"


def assert_ended_well(world: World, tenant_id: str, status: Status, state: str, count: int) -> None:
    """What is told is true, complete and in order; nothing is doubled or left over."""
    containers = world.containers(tenant_id)
    assert (status["state"], len(containers)) == (state, count)
    if count:
        assert world.inspect(tenant_id, ".Id") == containers[0]
        assert world.inspect(tenant_id, ".State.Running") is (state == "running")
    if state == "running":
        given = world.docker.run("exec", containers[0], "cat", "/run/secrets/db_password")
        assert given == SECRET
    sequences = [int(str(each["sequence"])) for each in world.subscriber.statuses(tenant_id)]
    first = sequences[0]
    assert sequences == list(range(first, first + len(sequences)))


def wait_for_container(world: World, tenant_id: str) -> None:
    """Return once the tenant has a container."""
    deadline = time.monotonic() + 30
    while not world.containers(tenant_id):
        assert time.monotonic() < deadline, "no container"
        time.sleep(0.05)


async def test_killed_with_its_acks_on_the_way(bench: Bench) -> None:
    """What was recorded but not acked comes again, and changes nothing."""
    bench.to_broker.stall_requests()
    event_id = await bench.world.publisher.create(make_document("unacked"))
    await asyncio.to_thread(wait_for_container, bench.world, "unacked")

    await bench.kill_and_start()
    await bench.world.subscriber.expect("unacked", state="running", event_id=event_id)
    await bench.world.run_tenant("fence")

    assert len(bench.world.containers("unacked")) == 1
    assert bench.world.subscriber.summary("unacked") == [("running", "started")]
    assert await bench.world.clients.backlog() == 0


async def test_killed_with_a_confirm_on_the_way(bench: Bench) -> None:
    """What was published but not confirmed is published again, with the same sequence."""
    bench.to_engine.judge = Trap(1, Fate.HOLD).judge
    event_id = await bench.world.publisher.create(make_document("unconfirmed"))
    await bench.is_held_or_answered("unconfirmed", event_id)
    bench.to_broker.stall_replies()
    bench.to_engine.mend()

    await bench.world.subscriber.expect("unconfirmed", state="running", event_id=event_id)
    await bench.kill_and_start()
    await bench.world.run_tenant("fence")

    arrived = bench.world.subscriber.arrivals("unconfirmed")
    assert len(arrived) >= 2
    assert len(set(arrived)) == 1
