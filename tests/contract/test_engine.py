"""What the engine promises: in memory, on a simulated engine behind a socket, and on Docker."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from consumer.errors import EngineError, EngineUnavailable
from consumer.model import (
    Container,
    ContainerStatus,
    EngineEvent,
    Health,
    HealthCheck,
    PortMapping,
    Reason,
    Resources,
    RestartPolicy,
    Role,
    TenantId,
)
from consumer.ports import Engine
from tests.builders import TENANT_ID, make_container, make_tenant
from tests.contract.engines import (
    EXIT_CODE,
    RESTART_NEVER,
    EngineUnderTest,
    create,
    docker_under_test,
    eventually,
    fake_under_test,
    glutton,
    has_exited,
    missing_image,
    run,
    shell_spec,
    simulated_under_test,
)

OTHER = TenantId("other")
PORT = 18231


@pytest.fixture(params=["fake", "simulated", pytest.param("docker", marks=pytest.mark.docker)])
async def subject(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[EngineUnderTest]:
    """Give an engine that has nothing of ours yet."""
    if request.param == "fake":
        yield fake_under_test()
        return
    if request.param == "simulated":
        async with simulated_under_test(tmp_path) as simulated:
            yield simulated
        return
    async with docker_under_test(request.getfixturevalue("docker_host"), tmp_path) as docker:
        yield docker


@pytest.fixture
def engine(subject: EngineUnderTest) -> Engine:
    """Give the port alone."""
    return subject.engine


# --- preparing and creating -------------------------------------------------------------------


async def test_preparing_twice_is_preparing_once(engine: Engine) -> None:
    """What is there already is success, and makes no container."""
    await engine.prepare(TENANT_ID, shell_spec())

    await engine.prepare(TENANT_ID, shell_spec())

    assert await engine.observe(TENANT_ID) == ()


async def test_an_image_that_is_nowhere_is_not_found(engine: Engine) -> None:
    """It is told with the contract's phrase and the image's name, and may come later."""
    with pytest.raises(EngineError, match=r"^failed to pull image .*never-there") as caught:
        await engine.prepare(TENANT_ID, missing_image())

    assert (caught.value.reason, caught.value.is_transient) == (Reason.IMAGE_NOT_FOUND, True)


async def test_an_image_that_vanished_is_not_found(engine: Engine) -> None:
    """Between preparing and creating somebody may remove it; nothing is left behind."""
    with pytest.raises(EngineError, match=r"^failed to create container") as caught:
        await engine.create(TENANT_ID, missing_image(), generation=1, role=Role.CURRENT, serial=1)

    assert (caught.value.reason, caught.value.is_transient) == (Reason.IMAGE_NOT_FOUND, True)
    assert await engine.observe(TENANT_ID) == ()


async def test_a_created_container_is_what_was_asked_for(engine: Engine) -> None:
    """It is not started, and shows its tenant, role, spec, generation, limits and grace period."""
    spec = shell_spec(restart_policy=RestartPolicy("on-failure", 2), stop_grace_seconds=4)

    made = await create(engine, spec)

    assert (made.tenant_id, made.role, made.generation) == (TENANT_ID, Role.CURRENT, 3)
    assert (made.fingerprint, made.image) == (spec.fingerprint, spec.image)
    assert (made.provider_type, made.status) == ("docker", ContainerStatus.CREATED)
    assert (made.resources, made.restart_policy) == (spec.resources, spec.restart_policy)
    assert made.stop_grace_seconds == 4
    assert (made.started_at, made.finished_at, made.exit_code) == (None, None, None)
    assert await engine.observe(TENANT_ID) == (made,)


async def test_creating_again_gives_the_one_there(engine: Engine) -> None:
    """So a lost answer never makes a second container."""
    first = await create(engine, shell_spec())

    again = await create(engine, shell_spec())

    assert again == first
    assert await engine.observe(TENANT_ID) == (first,)


async def test_a_name_taken_by_another_spec_is_a_conflict(engine: Engine) -> None:
    """The one that has the name stays as it is."""
    first = await create(engine, shell_spec())

    with pytest.raises(EngineError, match=r"^failed to create container") as caught:
        await create(engine, shell_spec(env=(("A", "1"),)))

    assert (caught.value.reason, caught.value.is_transient) == (Reason.NAME_CONFLICT, True)
    assert await engine.observe(TENANT_ID) == (first,)


async def test_roles_stand_side_by_side(engine: Engine) -> None:
    """A successor has a name of its own; both are seen, the older one first."""
    current = await create(engine, shell_spec())

    successor = await create(engine, shell_spec(env=(("A", "1"),)), role=Role.SUCCESSOR)

    assert successor.role is Role.SUCCESSOR
    assert successor.name != current.name
    assert await engine.observe(TENANT_ID) == (current, successor)


async def test_what_does_not_concern_is_not_looked_at(engine: Engine) -> None:
    """The list alone says enough of a container to tell."""
    current = await create(engine, shell_spec())
    await create(engine, shell_spec(env=(("A", "1"),)), role=Role.SUCCESSOR)

    seen = await engine.observe(TENANT_ID, concerns=lambda it: it.role is Role.CURRENT)

    assert seen == (current,)


async def test_a_port_of_another_tenant_is_refused_before_anything_is_made(engine: Engine) -> None:
    """It is told while preparing, with the port and the tenant that holds it."""
    spec = shell_spec(ports=(PortMapping(80, PORT),))
    await run(engine, spec)

    with pytest.raises(EngineError, match=f"{PORT}.*{TENANT_ID}") as caught:
        await engine.prepare(OTHER, spec)

    assert (caught.value.reason, caught.value.is_transient) == (Reason.PORT_CONFLICT, True)
    assert await engine.observe(OTHER) == ()


# --- secrets ----------------------------------------------------------------------------------


async def test_a_missing_secret_is_refused_before_anything_is_made(engine: Engine) -> None:
    """It is named; the operator may still put it there."""
    with pytest.raises(EngineError, match="db_password") as caught:
        await engine.prepare(TENANT_ID, shell_spec(secrets=("db_password",)))

    assert (caught.value.reason, caught.value.is_transient) == (Reason.INVALID_EVENT, True)
    assert await engine.observe(TENANT_ID) == ()


async def test_no_container_starts_without_its_secrets(subject: EngineUnderTest) -> None:
    """One that is gone between the making and the start keeps the container from starting."""
    subject.put_secret("db_password")
    made = await create(subject.engine, shell_spec(secrets=("db_password",), user="1000"))
    subject.remove_secret("db_password")

    with pytest.raises(EngineError, match="db_password") as caught:
        await subject.engine.start(made)

    assert (made.secrets, made.user) == (("db_password",), "1000")
    assert (caught.value.reason, caught.value.is_transient) == (Reason.INVALID_EVENT, True)
    assert await subject.engine.observe(TENANT_ID) == (made,)


async def test_a_container_that_has_its_secrets_starts_again(subject: EngineUnderTest) -> None:
    """What it was given stays in it, whatever became of the operator's file."""
    subject.put_secret("db_password")
    stopped = await subject.engine.stop(
        await run(subject.engine, shell_spec(secrets=("db_password",)))
    )
    subject.remove_secret("db_password")

    started = await subject.engine.start(stopped)

    assert started.status is ContainerStatus.RUNNING


# --- starting ---------------------------------------------------------------------------------


async def test_a_started_container_runs(engine: Engine) -> None:
    """What comes back is fresh: its status, its start and its ports."""
    made = await create(engine, shell_spec(ports=(PortMapping(80, PORT), PortMapping(81))))

    started = await engine.start(made)

    assert (started.container_id, started.status) == (made.container_id, ContainerStatus.RUNNING)
    assert started.started_at is not None
    assert (started.exit_code, started.restart_count) == (None, 0)
    assert [(port.container_port, port.host_port) for port in started.ports] == [
        (80, PORT),
        (81, None),
    ]
    assert await engine.observe(TENANT_ID) == (started,)


async def test_starting_what_runs_changes_nothing(engine: Engine) -> None:
    """Already so is success."""
    started = await run(engine, shell_spec())

    assert await engine.start(started) == started


async def test_starting_what_is_paused_unpauses_it(subject: EngineUnderTest) -> None:
    """It goes on where it was, without a new start."""
    started = await run(subject.engine, shell_spec())
    subject.pause(started)
    (paused,) = await subject.engine.observe(TENANT_ID)

    resumed = await subject.engine.start(paused)

    assert paused.status is ContainerStatus.PAUSED
    assert resumed == started


async def test_a_stopped_container_can_be_started_again(engine: Engine) -> None:
    """The former end is no longer told."""
    stopped = await engine.stop(await run(engine, shell_spec()))

    started = await engine.start(stopped)

    assert (started.status, started.exit_code) == (ContainerStatus.RUNNING, None)
    assert started.container_id == stopped.container_id


async def test_a_health_check_starts_with_the_container(engine: Engine) -> None:
    """Until the first check it is neither healthy nor unhealthy."""
    check = HealthCheck(("CMD-SHELL", "true"), interval_seconds=60)

    started = await run(engine, shell_spec(healthcheck=check))

    assert started.health is Health.STARTING


async def test_a_missing_program_is_a_failed_start(subject: EngineUnderTest) -> None:
    """Trying again unchanged is pointless; what was made is left for the caller to remove."""
    made = await create(subject.engine, subject.unstartable)

    with pytest.raises(EngineError, match=r"^failed to start container.*no such file") as caught:
        await subject.engine.start(made)

    assert (caught.value.reason, caught.value.is_transient) == (Reason.START_FAILED, False)
    (left,) = await subject.engine.observe(TENANT_ID)
    assert (left.container_id, left.status) == (made.container_id, ContainerStatus.CREATED)


async def test_a_port_that_is_taken_fails_the_start(engine: Engine) -> None:
    """It may be free later, so it is worth another try; what was made is left."""
    spec = shell_spec(ports=(PortMapping(80, PORT),))
    made = await create(engine, spec)
    await engine.create(OTHER, spec, generation=1, role=Role.CURRENT, serial=1)
    (other,) = await engine.observe(OTHER)
    await engine.start(other)

    with pytest.raises(EngineError, match=f"^failed to start container.*{PORT}") as caught:
        await engine.start(made)

    assert (caught.value.reason, caught.value.is_transient) == (Reason.PORT_CONFLICT, True)
    (left,) = await engine.observe(TENANT_ID)
    assert (left.container_id, left.status) == (made.container_id, ContainerStatus.CREATED)


async def test_what_is_gone_cannot_be_started(subject: EngineUnderTest) -> None:
    """It is told as what it is; the next look will put it right."""
    made = await create(subject.engine, shell_spec())
    subject.remove(made)

    with pytest.raises(EngineError) as caught:
        await subject.engine.start(made)

    assert (caught.value.reason, caught.value.is_transient) == (Reason.MISSING, True)


# --- stopping and removing --------------------------------------------------------------------


async def test_a_stopped_container_has_ended(engine: Engine) -> None:
    """It has an exit code and an end, and no port is bound any more."""
    started = await run(engine, shell_spec(ports=(PortMapping(80, PORT),)))

    stopped = await engine.stop(started)

    assert (stopped.container_id, stopped.status) == (started.container_id, ContainerStatus.EXITED)
    assert stopped.exit_code is not None
    assert stopped.finished_at is not None
    assert all(port.host_port is None for port in stopped.ports)
    assert await engine.observe(TENANT_ID) == (stopped,)


async def test_stopping_what_stands_still_changes_nothing(engine: Engine) -> None:
    """Stopped before or never started: already so is success."""
    made = await create(engine, shell_spec())
    never_started = await engine.stop(made)
    stopped = await engine.stop(await engine.start(made))

    again = await engine.stop(stopped)

    assert never_started == made
    assert again == stopped


async def test_a_paused_container_can_be_stopped(subject: EngineUnderTest) -> None:
    """It ends though it cannot take notice of the signal."""
    started = await run(subject.engine, shell_spec())
    subject.pause(started)

    stopped = await subject.engine.stop(started)

    assert stopped.status is ContainerStatus.EXITED


async def test_what_ignores_the_signal_is_killed(engine: Engine) -> None:
    """After the container's own grace period it is stopped all the same."""
    deaf = shell_spec("trap '' TERM; while :; do sleep 1; done", stop_grace_seconds=1)
    started = await run(engine, deaf)

    async with asyncio.timeout(6):
        stopped = await engine.stop(started)

    assert stopped.status is ContainerStatus.EXITED


async def test_what_is_gone_cannot_be_stopped(subject: EngineUnderTest) -> None:
    """There is no container to return; the next look will put it right."""
    started = await run(subject.engine, shell_spec())
    subject.remove(started)

    with pytest.raises(EngineError) as caught:
        await subject.engine.stop(started)

    assert (caught.value.reason, caught.value.is_transient) == (Reason.STOP_FAILED, True)


@pytest.mark.parametrize("is_running", [True, False])
async def test_a_removed_container_is_gone(engine: Engine, is_running: bool) -> None:
    """Whether it runs or not; its name is free again."""
    made = await create(engine, shell_spec())
    container = await engine.start(made) if is_running else made

    await engine.remove(container)

    assert await engine.observe(TENANT_ID) == ()
    assert (await create(engine, shell_spec())).container_id != made.container_id


async def test_removing_what_is_gone_is_success(subject: EngineUnderTest) -> None:
    """Already so is success."""
    made = await create(subject.engine, shell_spec())
    subject.remove(made)

    await subject.engine.remove(made)

    assert await subject.engine.observe(TENANT_ID) == ()


# --- changing ---------------------------------------------------------------------------------


async def test_a_renamed_container_has_the_role(engine: Engine) -> None:
    """It is the same container; renaming it again is already so."""
    current = await run(engine, shell_spec())

    renamed = await engine.rename(current, Role.PREDECESSOR)
    again = await engine.rename(renamed, Role.PREDECESSOR)
    back = await engine.rename(again, Role.CURRENT)

    assert renamed.role is Role.PREDECESSOR
    assert again == renamed
    assert back == current


async def test_many_can_be_discarded(engine: Engine) -> None:
    """That role has a name for each container."""
    first = await engine.rename(await create(engine, shell_spec()), Role.DISCARDED)
    second = await engine.rename(await create(engine, shell_spec()), Role.DISCARDED)

    assert first.role is second.role is Role.DISCARDED
    assert first.name != second.name
    assert [seen.role for seen in await engine.survey()] == [Role.DISCARDED] * 2


async def test_a_taken_name_cannot_be_given(engine: Engine) -> None:
    """Both containers keep the names they have."""
    current = await create(engine, shell_spec())
    successor = await create(engine, shell_spec(env=(("A", "1"),)), role=Role.SUCCESSOR)

    with pytest.raises(EngineError) as caught:
        await engine.rename(successor, Role.CURRENT)

    assert caught.value.reason == Reason.NAME_CONFLICT
    assert await engine.observe(TENANT_ID) == (current, successor)


@pytest.mark.parametrize("is_running", [True, False])
async def test_limits_are_changed_in_place(engine: Engine, is_running: bool) -> None:
    """CPU, memory and restart policy, up or down, without a new start; twice is once."""
    made = await create(engine, shell_spec())
    before = await engine.start(made) if is_running else made
    wanted = shell_spec(resources=Resources(250, 128), restart_policy=RestartPolicy("always"))

    after = await engine.adjust(before, wanted)
    again = await engine.adjust(after, wanted)

    assert (after.resources, after.restart_policy) == (wanted.resources, wanted.restart_policy)
    assert (after.container_id, after.started_at) == (before.container_id, before.started_at)
    assert again == after


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda engine, it: engine.adjust(it, shell_spec()), id="adjust"),
        pytest.param(lambda engine, it: engine.rename(it, Role.SUCCESSOR), id="rename"),
    ],
)
async def test_what_is_gone_cannot_be_changed(
    subject: EngineUnderTest, change: Callable[[Engine, Container], Awaitable[object]]
) -> None:
    """It is a failure that the next look will put right."""
    made = await create(subject.engine, shell_spec())
    subject.remove(made)

    with pytest.raises(EngineError) as caught:
        await change(subject.engine, made)

    assert caught.value.is_transient


# --- looking ----------------------------------------------------------------------------------


async def test_only_the_tenants_own_containers_are_observed(engine: Engine) -> None:
    """Another tenant's are not among them, not even of one with a name that begins alike."""
    await create(engine, shell_spec())
    longer = TenantId(f"{TENANT_ID}-2")
    other = await engine.create(longer, shell_spec(), generation=None, role=Role.CURRENT, serial=1)

    assert await engine.observe(longer) == (other,)
    assert other.generation is None
    assert len(await engine.observe(TENANT_ID)) == 1
    assert await engine.observe(OTHER) == ()


async def test_only_a_container_has_a_log(engine: Engine) -> None:
    """One that wrote nothing has an empty one."""
    await create(engine, shell_spec())

    assert await engine.tail(make_tenant()) == ""
    assert await engine.tail(make_tenant(tenant_id=OTHER)) is None


async def test_a_container_removed_by_hand_is_not_there(subject: EngineUnderTest) -> None:
    """Nothing is remembered of it."""
    subject.remove(await run(subject.engine, shell_spec()))

    assert await subject.engine.observe(TENANT_ID) == ()
    assert await subject.engine.survey() == ()


async def test_an_exit_is_observed_with_its_code(subject: EngineUnderTest) -> None:
    """Code and time of the end are those of the process."""
    started = await run(subject.engine, shell_spec(restart_policy=RESTART_NEVER))

    subject.exit(started)
    ended = await eventually(subject.engine, has_exited)

    assert (ended.exit_code, ended.oom_killed) == (EXIT_CODE, False)
    assert ended.restart_count == 0
    assert started.started_at is not None
    assert ended.finished_at is not None
    assert ended.finished_at >= started.started_at


async def test_a_restart_by_the_engine_is_counted(subject: EngineUnderTest) -> None:
    """The restart policy brings it up again; the count tells."""
    started = await run(subject.engine, shell_spec(restart_policy=RestartPolicy("on-failure", 5)))

    subject.restart_by_policy(started)
    again = await eventually(
        subject.engine,
        lambda seen: seen.restart_count == 1 and seen.status is ContainerStatus.RUNNING,
    )

    assert again.container_id == started.container_id
    assert again.exit_code is None
    assert started.started_at is not None
    assert again.started_at is not None
    assert again.started_at > started.started_at


async def test_a_stop_by_hand_is_observed(subject: EngineUnderTest) -> None:
    """It is an exit; the restart policy does not undo it."""
    started = await run(subject.engine, shell_spec(restart_policy=RestartPolicy("always")))

    subject.stop(started)

    (stopped,) = await subject.engine.observe(TENANT_ID)
    assert stopped.status is ContainerStatus.EXITED


async def test_too_much_memory_is_observed_as_such(subject: EngineUnderTest) -> None:
    """The engine tells a kill over the memory limit from any other."""
    started = await run(subject.engine, glutton())

    subject.exhaust_memory(started)
    ended = await eventually(subject.engine, has_exited)

    assert (ended.exit_code, ended.oom_killed) == (137, True)


async def test_a_survey_has_a_line_for_each_container(engine: Engine) -> None:
    """Of all tenants and in every status, with what tells whether a closer look is due."""
    running = await run(engine, shell_spec())
    made = await engine.create(OTHER, shell_spec(), generation=1, role=Role.SUCCESSOR, serial=1)

    lines = {line.tenant_id: line for line in await engine.survey()}

    assert set(lines) == {TENANT_ID, OTHER}
    assert lines[TENANT_ID].container_id == running.container_id
    assert lines[TENANT_ID].status is ContainerStatus.RUNNING
    assert lines[TENANT_ID].fingerprint == running.fingerprint
    assert (lines[OTHER].container_id, lines[OTHER].role) == (made.container_id, Role.SUCCESSOR)
    assert lines[OTHER].status is ContainerStatus.CREATED


async def test_the_engine_tells_of_itself(engine: Engine) -> None:
    """Versions, size of the host, log drivers."""
    facts = await engine.facts()

    assert facts.version
    assert facts.api_version
    assert facts.cpus >= 1
    assert facts.memory_bytes > 64 * 1024 * 1024
    assert {"json-file", "local"} <= facts.log_drivers


# --- events -----------------------------------------------------------------------------------


async def read_until(events: AsyncIterator[EngineEvent], action: str) -> list[EngineEvent]:
    """Return what is told up to this action."""
    told = []
    async with asyncio.timeout(10):
        async for event in events:
            told.append(event)
            if event.action == action:
                return told
    raise AssertionError(told)


async def test_what_happens_is_told(subject: EngineUnderTest) -> None:
    """From the opening on nothing is missed; each event names its tenant."""
    engine = subject.engine
    made = await create(engine, shell_spec(restart_policy=RESTART_NEVER))

    async with engine.events() as events:
        started = await engine.start(made)
        subject.exit(started)
        await eventually(engine, has_exited)
        subject.remove(made)
        told = await read_until(events, "destroy")

    actions = [event.action for event in told]
    assert [action for action in actions if action in ("start", "die", "destroy")] == [
        "start",
        "die",
        "destroy",
    ]
    assert {event.tenant_id for event in told} == {TENANT_ID}


async def test_each_stream_tells_everything(engine: Engine) -> None:
    """Two who listen do not share the events between them."""
    made = await create(engine, shell_spec())

    async with engine.events() as one, engine.events() as other:
        await engine.start(made)
        heard = [await read_until(one, "start"), await read_until(other, "start")]

    assert heard[0][-1].action == heard[1][-1].action == "start"


# --- an engine that is away -------------------------------------------------------------------


async def open_events(engine: Engine) -> None:
    async with engine.events():
        pass


@pytest.mark.parametrize(
    "ask",
    [
        pytest.param(lambda engine: engine.observe(TENANT_ID), id="observe"),
        pytest.param(lambda engine: engine.survey(), id="survey"),
        pytest.param(lambda engine: engine.prepare(TENANT_ID, shell_spec()), id="prepare"),
        pytest.param(
            lambda engine: engine.create(
                TENANT_ID, shell_spec(), generation=1, role=Role.CURRENT, serial=1
            ),
            id="create",
        ),
        pytest.param(lambda engine: engine.start(make_container()), id="start"),
        pytest.param(lambda engine: engine.stop(make_container()), id="stop"),
        pytest.param(lambda engine: engine.remove(make_container()), id="remove"),
        pytest.param(lambda engine: engine.rename(make_container(), Role.SUCCESSOR), id="rename"),
        pytest.param(lambda engine: engine.adjust(make_container(), shell_spec()), id="adjust"),
        pytest.param(lambda engine: engine.tail(make_tenant()), id="tail"),
        pytest.param(lambda engine: engine.facts(), id="facts"),
        pytest.param(open_events, id="events"),
    ],
)
async def test_an_engine_that_is_away_is_unknown(
    subject: EngineUnderTest, ask: Callable[[Engine], Awaitable[object]]
) -> None:
    """Whatever is asked: that nobody answers is never read as an answer."""
    with pytest.raises(EngineUnavailable, match=r"^failed to connect to docker daemon") as caught:
        await ask(subject.away)

    assert caught.value.is_transient
