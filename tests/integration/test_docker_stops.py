"""Stops on a real engine: who only waits for a grace period holds up nobody, and can be hurried."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from consumer.adapters.docker import DockerEngine, EngineLimits
from consumer.adapters.docker_client import Endpoint
from consumer.adapters.docker_spec import Naming
from consumer.model import Container, ContainerStatus, Role, TenantId
from deploy.lab.docker_cli import DockerCli
from deploy.lab.servers import DockerHost
from tests.contract.engines import shell_spec
from tests.faults.proxy import Fate, Request, proxy

pytestmark = pytest.mark.docker

PREFIX = "ll-stops"
LIMITS = EngineLimits(stops=2, hurried_seconds=1.0)
DEAF = "trap '' TERM; while :; do sleep 1; done"
LONG_SECONDS = 3600


@pytest.fixture
async def engine(docker_host: DockerHost) -> AsyncIterator[DockerEngine]:
    """Give an adapter with two places for stops; take away what it made."""
    endpoint, naming = Endpoint(url=docker_host.url), Naming(PREFIX)
    async with DockerEngine(endpoint=endpoint, naming=naming, limits=LIMITS).opened() as it:
        yield it
    DockerCli(docker_host.url).remove_containers(f"{PREFIX}.owner={PREFIX}")


async def run_one(
    engine: DockerEngine, tenant_id: str, script: str = DEAF, *, grace: int = LONG_SECONDS
) -> Container:
    """Return a tenant's container, started."""
    spec = shell_spec(script, stop_grace_seconds=grace)
    await engine.prepare(TenantId(tenant_id), spec)
    made = await engine.create(TenantId(tenant_id), spec, generation=1, role=Role.CURRENT, serial=1)
    return await engine.start(made)


async def overtaken(engine: DockerEngine, container: Container, *, after: float = 1.5) -> Container:
    """Stop the container, be overtaken while it has its grace period, return how it is then."""
    stopping = asyncio.create_task(engine.stop(container))
    await asyncio.wait((stopping,), timeout=after)
    stopping.cancel()
    await asyncio.wait((stopping,), timeout=1.0)
    assert stopping.cancelled()
    (seen,) = await engine.observe(container.tenant_id)
    return seen


async def end(*tasks: "asyncio.Task[Container]") -> None:
    """Cancel them, and wait until they have ended."""
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)


async def test_long_grace_periods_hold_up_nobody(engine: DockerEngine) -> None:
    """More of them than there are places: others stop and go in the usual time."""
    deaf = [await run_one(engine, f"deaf-{number}") for number in range(4)]
    other = await run_one(engine, "other", "trap 'exit 0' TERM; while :; do sleep .1; done")
    stopping = [asyncio.create_task(engine.stop(container)) for container in deaf]
    await asyncio.sleep(1.5)

    async with asyncio.timeout(5):
        stopped = await engine.stop(other)
        await engine.remove(stopped)

    assert not any(task.done() for task in stopping)
    await end(*stopping)


async def test_an_overtaken_stop_waits_for_nobody_and_can_be_hurried(engine: DockerEngine) -> None:
    """The container has its signal; who stops it because it is to go gives it little time more."""
    seen = await overtaken(engine, await run_one(engine, "overtaken"))

    async with asyncio.timeout(6):
        stopped = await engine.stop(seen, is_hurried=True)

    assert (seen.status, seen.is_stopping) == (ContainerStatus.RUNNING, True)
    assert (stopped.status, stopped.is_stopping) == (ContainerStatus.EXITED, False)
    assert stopped.exit_code == 137


async def test_an_overtaken_stop_goes_on_with_the_same_grace_period(engine: DockerEngine) -> None:
    """Stopped again, and not hurried, it gets no second one."""
    container = await run_one(engine, "again", grace=5)
    began = asyncio.get_running_loop().time()
    seen = await overtaken(engine, container, after=3)

    stopped = await engine.stop(seen)
    took = asyncio.get_running_loop().time() - began

    assert stopped.exit_code == 137
    assert took < 7.5


async def test_who_ends_late_is_noticed_soon(engine: DockerEngine) -> None:
    """A program that takes its time within the grace period is not waited for beyond its end."""
    script = "trap 'sleep 2; exit 3' TERM; while :; do sleep .1; done"
    container = await run_one(engine, "late", script)

    async with asyncio.timeout(6):
        stopped = await engine.stop(container)

    assert stopped.exit_code == 3


async def test_the_containers_own_signal_is_sent(engine: DockerEngine) -> None:
    """A program that waits for another signal than SIGTERM gets that one."""
    script = "trap 'exit 5' USR1; while :; do sleep .1; done"
    tenant_id = TenantId("signal")
    spec = shell_spec(script, stop_signal="SIGUSR1", stop_grace_seconds=LONG_SECONDS)
    await engine.prepare(tenant_id, spec)
    made = await engine.create(tenant_id, spec, generation=1, role=Role.CURRENT, serial=1)
    started = await engine.start(made)
    await asyncio.sleep(0.5)

    async with asyncio.timeout(5):
        stopped = await engine.stop(started)

    assert stopped.exit_code == 5


async def test_removals_that_hang_hold_up_nobody_for_long(
    engine: DockerEngine, docker_host: DockerHost, tmp_path: Path
) -> None:
    """More than there are places: they give these up, and another goes."""
    place = tmp_path / "proxy.sock"
    gone = [await run_one(engine, f"hung-{number}", grace=1) for number in range(2)]
    other = await run_one(engine, "goes", grace=1)

    async def judge(request: Request) -> Fate:
        is_hung = any(it.container_id in request.path for it in gone)
        return Fate.HOLD if request.method == "DELETE" and is_hung else Fate.PASS

    async with proxy(Path(docker_host.url.removeprefix("unix://")), place) as between:
        between.judge = judge
        behind = DockerEngine(
            endpoint=Endpoint(url=f"unix://{place}"), naming=Naming(PREFIX), limits=LIMITS
        )
        async with behind.opened():
            hung = [asyncio.create_task(behind.remove(container)) for container in gone]
            await asyncio.sleep(0.2)
            async with asyncio.timeout(8):
                await behind.remove(other)
            still_hung = not any(task.done() for task in hung)
            between.mend()
            await asyncio.wait(hung)

    assert still_hung
