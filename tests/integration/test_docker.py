"""The Docker adapter among strangers, and when its requests are interrupted."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import pytest

from consumer.adapters.docker import DockerEngine, EngineLimits, Observers
from consumer.adapters.docker_client import Endpoint
from consumer.adapters.docker_spec import Naming
from consumer.errors import EngineError
from consumer.model import (
    Container,
    ContainerStatus,
    EngineEvent,
    PortMapping,
    Reason,
    Role,
    TenantId,
)
from deploy.lab.docker_cli import DockerCli
from deploy.lab.servers import DockerHost
from tests.builders import TENANT_ID
from tests.conftest import WEB
from tests.contract.engines import create, run, shell_spec
from tests.faults.proxy import Fate, Proxy, Request, proxy

pytestmark = pytest.mark.docker

PREFIX = "ll-among-strangers"
NAMING = Naming(PREFIX, "mine")
OTHER = TenantId("other")
PORT = 18232


@pytest.fixture
async def engine(docker_host: DockerHost, docker: DockerCli) -> AsyncIterator[DockerEngine]:
    """Open an adapter; take away all containers of its prefix."""
    async with DockerEngine(endpoint=Endpoint(url=docker_host.url), naming=NAMING).opened() as it:
        yield it
    for container in docker.run("ps", "-aq", "--filter", f"name={PREFIX}").split():
        docker.run("rm", "-f", "-v", container)


def run_stranger(docker: DockerCli, name: str, **labels: str) -> str:
    """Start a container by hand; return its id."""
    words = [word for key, value in labels.items() for word in ("-l", f"{PREFIX}.{key}={value}")]
    return docker.run("run", "-d", "--name", name, *words, WEB)


async def first_since(moment: datetime, events: AsyncIterator[EngineEvent]) -> EngineEvent:
    """Return the first event since then: a new stream begins with what was told shortly before."""
    async with asyncio.timeout(10):
        return await anext(event async for event in events if event.at >= moment)


@pytest.mark.parametrize(
    "labels",
    [
        pytest.param({}, id="no labels"),
        pytest.param({"tenant_id": TENANT_ID, "instance": "theirs"}, id="another instance"),
        pytest.param({"tenant_id": OTHER, "instance": "mine"}, id="another tenant"),
        pytest.param({"tenant_id": "!! odd", "instance": "mine"}, id="odd labels"),
        pytest.param({"tenant_id": "", "instance": "mine"}, id="empty labels"),
    ],
)
async def test_a_strangers_container_under_our_name_is_a_conflict(
    engine: DockerEngine, docker: DockerCli, labels: dict[str, str]
) -> None:
    """It is told, with its id, and left alone."""
    stranger = run_stranger(docker, NAMING.container(TENANT_ID, Role.CURRENT), **labels)

    with pytest.raises(EngineError, match=f"is taken by container {stranger[:12]}") as caught:
        await create(engine, shell_spec())

    assert (caught.value.reason, caught.value.is_transient) == (Reason.NAME_CONFLICT, True)
    assert docker.inspect(stranger, ".State.Running") is True


async def test_odd_labels_blind_nobody(engine: DockerEngine, docker: DockerCli) -> None:
    """A container with our labels written by hand is no tenant's; the others are seen as ever."""
    run_stranger(docker, f"{PREFIX}-odd", tenant_id="!! odd", instance="mine")
    mine = await run(engine, shell_spec())
    began = datetime.now(UTC)

    async with engine.events() as events:
        docker.run("rm", "-f", f"{PREFIX}-odd")
        stopped = await engine.stop(mine)
        first = await first_since(began, events)

    assert await engine.observe(TENANT_ID) == (stopped,)
    assert [line.tenant_id for line in await engine.survey()] == [TENANT_ID]
    assert first.tenant_id == TENANT_ID


async def test_two_instances_never_see_one_another(
    engine: DockerEngine, docker_host: DockerHost
) -> None:
    """Each sees its own containers and events alone, though prefix and engine are the same."""
    theirs = DockerEngine(endpoint=Endpoint(url=docker_host.url), naming=Naming(PREFIX, "theirs"))
    mine = await run(engine, shell_spec())
    began = datetime.now(UTC)

    async with theirs.opened(), theirs.events() as events:
        seen = (await theirs.observe(TENANT_ID), await theirs.survey())
        await engine.remove(mine)
        made = await theirs.create(OTHER, shell_spec(), generation=1, role=Role.CURRENT, serial=1)
        await theirs.start(made)
        first = await first_since(began, events)

    assert seen == ((), ())
    assert (first.tenant_id, first.action) == (OTHER, "create")
    assert await engine.survey() == ()


async def test_the_holder_of_a_port_is_named(engine: DockerEngine) -> None:
    """Also when it took the port between preparing and starting."""
    spec = shell_spec(ports=(PortMapping(80, PORT),))
    made = await create(engine, spec)
    await engine.start(await engine.create(OTHER, spec, generation=1, role=Role.CURRENT, serial=1))

    with pytest.raises(EngineError, match=rf"port is already allocated.*held by tenant {OTHER}"):
        await engine.start(made)


async def test_the_same_tenant_of_another_instance_is_told_as_such(
    engine: DockerEngine, docker_host: DockerHost
) -> None:
    """With one label prefix there is one name for both: whose it is, and what to change."""
    theirs = DockerEngine(endpoint=Endpoint(url=docker_host.url), naming=Naming(PREFIX, "theirs"))
    spec = shell_spec(ports=(PortMapping(80, PORT),))
    await run(engine, spec)

    async with theirs.opened():
        with pytest.raises(
            EngineError, match="that of tenant acme-corp of instance 'mine'; two in"
        ) as caught:
            await create(theirs, spec)

    assert caught.value.reason == Reason.NAME_CONFLICT


@pytest.mark.parametrize(
    "whose", ["tenant acme-corp of instance 'mine'", f"container {PREFIX}-web"]
)
async def test_a_port_of_others_is_refused_before_anything_is_made(
    engine: DockerEngine, docker: DockerCli, docker_host: DockerHost, whose: str
) -> None:
    """Another instance's tenant or anybody's container: whoever holds it is named."""
    theirs = DockerEngine(endpoint=Endpoint(url=docker_host.url), naming=Naming(PREFIX, "theirs"))
    spec = shell_spec(ports=(PortMapping(80, PORT),))
    if whose.startswith("tenant"):
        await run(engine, spec)
    else:
        docker.run("run", "-d", "--name", f"{PREFIX}-web", "-p", f"{PORT}:80", WEB)

    async with theirs.opened():
        with pytest.raises(EngineError, match=f"host port {PORT}/tcp is held by {whose}") as caught:
            await theirs.prepare(OTHER, spec)
        left = await theirs.survey()

    assert (caught.value.reason, left) == (Reason.PORT_CONFLICT, ())


# --- interruptions ----------------------------------------------------------------------------


@pytest.mark.parametrize("seconds", [0.0, 0.005, 0.02, 0.05])
async def test_a_cancelled_creation_is_seen_through(engine: DockerEngine, seconds: float) -> None:
    """When the caller goes on, no request is on its way: what is there, stays."""
    await engine.prepare(TENANT_ID, shell_spec())
    task = asyncio.create_task(
        engine.create(TENANT_ID, shell_spec(), generation=1, role=Role.CURRENT, serial=1)
    )
    await asyncio.sleep(seconds)

    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
    at_once = await engine.observe(TENANT_ID)
    await asyncio.sleep(0.3)

    assert await engine.observe(TENANT_ID) == at_once


async def cancelled(task: "asyncio.Task[Container]") -> None:
    """Cancel the creation, which has to go on soon."""
    await asyncio.sleep(0.2)
    task.cancel()
    async with asyncio.timeout(3):
        await asyncio.wait((task,))


@pytest.mark.parametrize("fate", [Fate.HOLD, Fate.HOLD_REPLY], ids=["hangs", "answer is lost"])
async def test_nobody_waits_behind_a_creation_that_hangs(
    engine: DockerEngine, docker_host: DockerHost, tmp_path: Path, fate: Fate
) -> None:
    """Who is overtaken goes on; what is made late is told; the next of that name waits for it."""
    place = tmp_path / "proxy.sock"
    former, wanted = shell_spec(), shell_spec(env=(("NEW", "1"),))
    began = datetime.now(UTC)
    await engine.prepare(TENANT_ID, former)

    async def judge(request: Request) -> Fate:
        return fate if "/containers/create" in request.path else Fate.PASS

    async with (
        proxy(Path(docker_host.url.removeprefix("unix://")), place) as between,
        DockerEngine(endpoint=Endpoint(url=f"unix://{place}"), naming=NAMING).opened() as behind,
        engine.events() as events,
    ):
        between.judge = judge
        making = asyncio.create_task(
            behind.create(TENANT_ID, former, generation=1, role=Role.CURRENT, serial=1)
        )
        await cancelled(making)
        there = await behind.observe(TENANT_ID)
        anew = asyncio.create_task(
            behind.create(TENANT_ID, wanted, generation=2, role=Role.CURRENT, serial=1)
        )
        await asyncio.sleep(0.2)
        has_waited = not anew.done()
        between.mend()
        async with asyncio.timeout(10):
            made = await anew
            told = await first_since(began, events)

    assert len(there) == (1 if fate is Fate.HOLD_REPLY else 0)
    assert has_waited
    assert (made.fingerprint, await engine.observe(TENANT_ID)) == (wanted.fingerprint, (made,))
    assert told.action == "create"


async def test_a_quiet_engine_is_not_a_lost_one(docker_host: DockerHost) -> None:
    """A stream in which nothing happens ends, to be opened anew; it is no trouble."""
    endpoint, limits = Endpoint(url=docker_host.url), EngineLimits(event_idle_seconds=0.3)
    naming = Naming(PREFIX, "quiet")  # nothing of its own was told shortly before
    async with (
        DockerEngine(endpoint=endpoint, naming=naming, limits=limits).opened() as engine,
        asyncio.timeout(10),
        engine.events() as events,
    ):
        heard = [event async for event in events]

    assert heard == []


@pytest.mark.usefixtures("engine")  # takes away what was made
async def test_waiting_for_a_turn_is_not_told_as_making(docker_host: DockerHost) -> None:
    """One at a time: what the second waits is told as queue, not as start."""
    phases: list[tuple[str, float]] = []
    async with DockerEngine(
        endpoint=Endpoint(url=docker_host.url),
        naming=NAMING,
        limits=EngineLimits(starts=1),
        observers=Observers(phase=lambda phase, seconds: phases.append((phase, seconds))),
    ).opened() as narrow:

        async def make(tenant_id: TenantId) -> None:
            spec = shell_spec()
            await narrow.prepare(tenant_id, spec)
            made = await narrow.create(tenant_id, spec, generation=1, role=Role.CURRENT, serial=1)
            await narrow.start(made)

        began = time.monotonic()
        await asyncio.gather(make(TENANT_ID), make(OTHER))
        took = time.monotonic() - began

    told = [phase for phase, _ in phases]
    assert sorted(told) == ["create", "create", "queue", "start", "start"]
    assert sum(seconds for phase, seconds in phases if phase != "queue") <= took


@pytest.fixture
async def far_engine(
    docker_host: DockerHost, docker: DockerCli, tmp_path: Path
) -> AsyncIterator[tuple[DockerEngine, Proxy]]:
    """Open an adapter behind a proxy that can lose answers."""
    place = tmp_path / "proxy.sock"
    async with proxy(Path(docker_host.url.removeprefix("unix://")), place) as line:
        endpoint = Endpoint(url=f"unix://{place}")
        async with DockerEngine(endpoint=endpoint, naming=NAMING).opened() as engine:
            yield engine, line
    docker.remove_containers(f"{PREFIX}.owner={PREFIX}")


async def test_a_lost_answer_to_a_creation_is_looked_up(
    far_engine: tuple[DockerEngine, Proxy],
) -> None:
    """The container that was made all the same is found and returned; there is one."""
    engine, line = far_engine
    line.lose_reply_to = b"/containers/create"

    made = await create(engine, shell_spec())

    assert made.status is ContainerStatus.CREATED
    assert await engine.observe(TENANT_ID) == (made,)


async def test_a_lost_answer_to_a_start_is_looked_up(
    far_engine: tuple[DockerEngine, Proxy],
) -> None:
    """It runs, whatever became of the answer."""
    engine, line = far_engine
    made = await create(engine, shell_spec())
    line.lose_reply_to = b"/start"

    started = await engine.start(made)

    assert started.status is ContainerStatus.RUNNING


async def test_a_lost_answer_to_a_stop_is_looked_up(
    far_engine: tuple[DockerEngine, Proxy],
) -> None:
    """It is stopped, whatever became of the answer."""
    engine, line = far_engine
    started = await run(engine, shell_spec())
    line.lose_reply_to = b"/stop"

    stopped = await engine.stop(started)

    assert stopped.status is ContainerStatus.EXITED


async def test_a_lost_answer_to_a_removal_is_looked_up(
    far_engine: tuple[DockerEngine, Proxy],
) -> None:
    """It is gone, whatever became of the answer."""
    engine, line = far_engine
    made = await create(engine, shell_spec())
    line.lose_reply_to = b"DELETE "

    await engine.remove(made)

    assert await engine.observe(TENANT_ID) == ()


async def test_lost_answers_to_changes_are_looked_up(
    far_engine: tuple[DockerEngine, Proxy],
) -> None:
    """A new name and new limits hold, whatever became of the answers."""
    engine, line = far_engine
    made = await create(engine, shell_spec())
    wanted = shell_spec(restart_policy=shell_spec().restart_policy)

    line.lose_reply_to = b"/rename"
    renamed = await engine.rename(made, Role.PREDECESSOR)
    line.lose_reply_to = b"/update"
    adjusted = await engine.adjust(renamed, wanted)

    assert renamed.role is Role.PREDECESSOR
    assert adjusted.resources == wanted.resources


async def test_events_end_when_the_engine_is_lost(
    far_engine: tuple[DockerEngine, Proxy],
) -> None:
    """The stream ends or says so, so that the caller opens a new one; that one works."""
    engine, line = far_engine
    made = await create(engine, shell_spec())
    began = datetime.now(UTC)

    async with engine.events() as events:
        line.drop()
        async with asyncio.timeout(5):
            with suppress(EngineError):
                assert [event async for event in events if event.at >= began] == []
    async with engine.events() as events:
        await engine.start(made)
        assert (await first_since(began, events)).action == "start"
