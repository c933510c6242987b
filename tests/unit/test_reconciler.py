"""One pass: it looks, does what is needed, and leaves the truth in the ledger."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from datetime import timedelta
from inspect import isawaitable
from pathlib import Path

import pytest

from consumer.errors import EngineError, EngineUnavailable, Fault, LedgerError
from consumer.metrics import Metrics
from consumer.model import (
    Container,
    ContainerId,
    ContainerStatus,
    EngineEvent,
    EventId,
    EventKind,
    Health,
    HealthCheck,
    Maker,
    Origin,
    Reason,
    Resources,
    RestartPolicy,
    Role,
    TenantId,
    TenantSpec,
)
from consumer.reconciler import Admits, Backoff, Reconciler
from tests.builders import TENANT_ID, make_container, make_event, make_spec
from tests.fakes.clock import HandClock
from tests.fakes.engine import FakeEngine, Interruption
from tests.fakes.ledger import InlineLedger

OLD, NEW = make_spec(image="nginx:1"), make_spec(image="nginx:2")
NO_START = EngineError(Reason.START_FAILED, "failed to start container: no", is_transient=True)
NO_STOP = EngineError(Reason.STOP_FAILED, "failed to stop container: no", is_transient=True)
NO_RESTART = RestartPolicy("no")
NO_CHANGE = EngineError(
    Reason.INSUFFICIENT_RESOURCES, "failed to change container: no", is_transient=True
)
NEVER = EngineError(Reason.CREATE_FAILED, "failed to create container: bad", is_transient=False)


class Bench:
    """A reconciler with all that is around it."""

    def __init__(self, ledger: InlineLedger, clock: HandClock) -> None:
        self.ledger = ledger
        self.clock = clock
        self.engine = FakeEngine(now=clock)
        self.metrics = Metrics(version="test")
        self.commits = 0
        self._events = 0
        self.renew()

    def renew(self, *, admits: Admits = lambda *_: (), is_stopping_denied: bool = False) -> None:
        """Have the consumer start anew, under this policy."""
        self.reconciler = Reconciler(
            ledger=self.ledger,
            engine=self.engine,
            metrics=self.metrics,
            clock=self.clock,
            on_commit=self._commit,
            backoff=Backoff(least_seconds=1, most_seconds=60, jitter=lambda: 1.0),
            admits=admits,
            is_stopping_denied=is_stopping_denied,
        )

    def _commit(self) -> None:
        self.commits += 1

    async def want(self, kind: EventKind, spec: TenantSpec | None = None) -> None:
        """Record a tenant event."""
        self._events += 1
        event_id = EventId(f"event-{self._events}")
        at = self.clock()
        await self.ledger.record([make_event(kind, event_id=event_id, spec=spec, received_at=at)])

    async def one_pass(self) -> float | None:
        return await self.reconciler.reconcile(TENANT_ID)

    async def settle(self) -> None:
        """Make passes, each when it is due, until there are none to come."""
        while (due_in := await self.one_pass()) is not None:
            self.clock.advance(due_in)

    async def running(self, spec: TenantSpec = OLD) -> Container:
        """Have the tenant run, told and at rest."""
        await self.want(EventKind.CREATED, spec)
        await self.settle()
        self.clock.advance(60)
        return self.engine.only

    async def told(self) -> list[tuple[str, str]]:
        """Return state and reason of every status event, in order."""
        return [(str(told["state"]), str(told["reason"])) for told in await self.bodies()]

    async def bodies(self) -> list[dict[str, object]]:
        return [json.loads(entry.body) for entry in await self.ledger.unsent(limit=100)]

    def failures(self, reason: Reason) -> float | None:
        labels = {"reason": reason.value}
        return self.metrics.registry.get_sample_value("landlord_tenant_failures_total", labels)


STARTED = ("running", "started")
ROLLED_BACK = ("running", "rolled_back")


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    """Set up a reconciler on a new ledger and a new engine."""
    clock = HandClock()
    ledger = await InlineLedger.open(f"sqlite:///{tmp_path}/ledger.db", clock=clock)
    yield Bench(ledger, clock)
    await ledger.close()


async def test_an_adopted_container_that_is_changed_in_place_is_told_as_updated(
    bench: Bench,
) -> None:
    """What its limits were is read off the container; nobody else knows any more."""
    await bench.engine.prepare(TENANT_ID, OLD)
    created = await bench.engine.create(
        TENANT_ID, OLD, generation=None, role=Role.CURRENT, serial=1
    )
    await bench.engine.start(created)
    await bench.ledger.adopt(await bench.engine.survey(), at=bench.clock())
    await bench.settle()

    more = Resources(cpu=OLD.resources.cpu, memory=OLD.resources.memory * 2)
    await bench.want(EventKind.UPDATED, replace(OLD, resources=more))
    await bench.settle()

    assert await bench.told() == [("running", "adopted"), ("running", "updated")]
    assert (await bench.bodies())[-1]["changes"] == ["resources"]
    assert bench.engine.only.resources == more


async def test_a_created_tenant_runs_and_is_told(bench: Bench) -> None:
    """Pull, create, start, then one status that answers the event; nothing is due after it."""
    await bench.want(EventKind.CREATED, OLD)

    due_in = await bench.one_pass()

    assert due_in is None
    assert bench.engine.operations() == ["create", "start"]
    assert bench.engine.only.status is ContainerStatus.RUNNING
    assert await bench.told() == [STARTED]
    assert bench.commits == 1


async def test_a_pass_over_a_tenant_at_rest_changes_nothing(bench: Bench) -> None:
    """Looking again neither touches the engine nor writes to the ledger."""
    await bench.running()
    writes, operations = bench.ledger.writes, len(bench.engine.operations())

    due_in = await bench.one_pass()

    assert due_in is None
    assert (bench.ledger.writes, len(bench.engine.operations())) == (writes, operations)


async def test_an_unknown_tenant_is_left_alone(bench: Bench) -> None:
    """Without a record there is nothing to do."""
    assert await bench.reconciler.reconcile(TenantId("nobody")) is None
    assert bench.engine.calls == []


async def test_without_the_ledger_nothing_is_done(bench: Bench) -> None:
    """What is wanted cannot be known, so the engine is not even asked."""
    await bench.want(EventKind.CREATED, OLD)
    bench.ledger.is_down = True

    with pytest.raises(LedgerError):
        await bench.one_pass()

    assert bench.engine.calls == []


async def test_an_update_replaces_and_tells_what_changed(bench: Bench) -> None:
    """The new container takes the place of the old, never beside it, and the change is named."""
    old = await bench.running()
    await bench.want(EventKind.UPDATED, NEW)

    await bench.settle()

    assert bench.engine.only.image == "nginx:2"
    assert bench.engine.only.container_id != old.container_id
    assert bench.engine.most_alive == 1
    assert await bench.told() == [STARTED, ("running", "updated")]
    assert (await bench.bodies())[-1]["changes"] == ["image"]


async def test_limits_change_in_place(bench: Bench) -> None:
    """A change of CPU and memory alone keeps the container and its run."""
    old = await bench.running()
    await bench.want(EventKind.UPDATED, make_spec(image="nginx:1", resources=Resources(250, 64)))

    await bench.settle()

    assert bench.engine.only.container_id == old.container_id
    assert bench.engine.only.started_at == old.started_at
    assert bench.engine.only.resources == Resources(250, 64)
    assert await bench.told() == [STARTED, ("running", "updated")]


async def test_an_update_without_its_image_leaves_the_old_one_running(bench: Bench) -> None:
    """A failed pull stops nothing, is told as rolled back with its cause, and counted under it."""
    old = await bench.running()
    bench.engine.missing_images = {"nginx:2"}
    await bench.want(EventKind.UPDATED, NEW)

    due_in = await bench.one_pass()

    assert bench.engine.only == old
    assert (await bench.told())[1:] == [("running", "rolled_back")]
    assert "manifest unknown" in str((await bench.bodies())[-1]["message"])
    assert bench.failures(Reason.IMAGE_NOT_FOUND) == 1
    assert due_in == 1


async def test_an_update_that_does_not_start_brings_the_old_one_back(bench: Bench) -> None:
    """The old container is started again, nothing half-made stays, and the cause is counted."""
    old = await bench.running()
    bench.engine.broken_images = {"nginx:2": NO_START}
    await bench.want(EventKind.UPDATED, NEW)

    await bench.one_pass()

    assert bench.engine.only.container_id == old.container_id
    assert bench.engine.only.status is ContainerStatus.RUNNING
    assert bench.engine.only.role is Role.CURRENT
    assert (await bench.told())[-1] == ("running", "rolled_back")
    assert bench.failures(Reason.START_FAILED) == 1


async def test_a_rolled_back_update_is_made_when_its_cause_is_gone(bench: Bench) -> None:
    """The update is tried again when due, and then told."""
    await bench.running()
    bench.engine.broken_images = {"nginx:2": NO_START}
    await bench.want(EventKind.UPDATED, NEW)
    due_in = await bench.one_pass()
    assert due_in is not None
    bench.engine.broken_images = {}
    bench.clock.advance(due_in)

    await bench.settle()

    assert bench.engine.only.image == "nginx:2"
    assert (await bench.told())[-1] == ("running", "updated")


async def test_a_successor_that_ends_is_given_up_for_good(bench: Bench) -> None:
    """What dies right after its start gives way to the old one, without another try."""
    old = await bench.running()
    await bench.want(EventKind.UPDATED, NEW)
    await bench.one_pass()
    (successor,) = (seen for seen in bench.engine.containers() if seen.image == "nginx:2")
    bench.engine.exit(successor, 1)

    await bench.settle()

    assert bench.engine.only.container_id == old.container_id
    assert bench.engine.only.status is ContainerStatus.RUNNING
    assert await bench.told() == [STARTED, ("running", "rolled_back")]
    assert bench.failures(Reason.EXITED) == 1


async def test_a_successor_that_is_given_up_is_quoted(bench: Bench) -> None:
    """It is gone by the time anybody could read its log."""
    await bench.running()
    await bench.want(EventKind.UPDATED, NEW)
    await bench.one_pass()
    (successor,) = (seen for seen in bench.engine.containers() if seen.image == "nginx:2")
    bench.engine.words["nginx:2"] = "no such table"
    bench.engine.exit(successor, 1)

    await bench.settle()

    message = str((await bench.bodies())[-1]["message"])
    assert message.startswith("still on the former container: exited with code 1")
    assert message.endswith("\nno such table")


async def test_what_ended_is_quoted(bench: Bench) -> None:
    """Below the fact, its last words; they are asked for once, when there is news."""
    container = await bench.running(replace(OLD, restart_policy=NO_RESTART))
    bench.engine.words["nginx:1"] = "no such table"
    bench.engine.exit(container, 1)

    await bench.settle()
    await bench.one_pass()

    assert (await bench.bodies())[-1]["message"] == "exited with code 1\nno such table"
    asked = [call for call in bench.engine.calls if call.operation == "last_words"]
    assert len(asked) == 1


async def test_what_ended_is_told_though_it_cannot_be_quoted(bench: Bench) -> None:
    """The fact does not wait for its explanation."""
    container = await bench.running(replace(OLD, restart_policy=NO_RESTART))
    bench.engine.exit(container, 1)
    bench.engine.fail("last_words", EngineUnavailable("no answer"))

    await bench.settle()

    assert (await bench.bodies())[-1]["message"] == "exited with code 1"


async def test_how_long_it_took_to_be_healthy_is_measured(bench: Bench) -> None:
    """From the start of the container to the check that passed."""
    await bench.want(EventKind.CREATED, replace(OLD, healthcheck=HealthCheck(("CMD", "true"))))
    await bench.one_pass()
    bench.clock.advance(7)
    bench.engine.change(bench.engine.only, health=Health.HEALTHY)

    await bench.one_pass()

    name, labels = "landlord_tenant_startup_phase_seconds_sum", {"phase": "healthy"}
    assert bench.metrics.registry.get_sample_value(name, labels) == 7


async def test_a_missing_secret_is_told_and_tried_again(bench: Bench) -> None:
    """It is the document's fault until the operator puts it there."""
    await bench.want(EventKind.CREATED, replace(OLD, secrets=("db_password",)))

    due_in = await bench.one_pass()
    assert due_in is not None
    (told,) = await bench.bodies()
    bench.engine.secrets.add("db_password")
    bench.clock.advance(due_in)
    await bench.settle()

    assert (told["reason"], told["will_retry"]) == ("invalid_event", True)
    assert "db_password" in str(told["message"])
    assert (await bench.told())[-1] == STARTED


async def test_a_container_that_cannot_be_removed_keeps_nobody_from_running(bench: Bench) -> None:
    """An update goes through; what is dead is out of the way, and is removed once it can be."""
    old = await bench.running()
    bench.engine.stuck.add(old.container_id)
    await bench.want(EventKind.UPDATED, NEW)

    await bench.settle()
    dead, new = bench.engine.containers()
    told = await bench.told()
    bench.engine.stuck.clear()
    await bench.one_pass()

    assert told == [STARTED, ("running", "updated")]
    assert (dead.status, dead.role) == (ContainerStatus.DEAD, Role.DISCARDED)
    assert (new.status, new.role) == (ContainerStatus.RUNNING, Role.CURRENT)
    assert bench.engine.containers() == (new,)
    assert await bench.told() == told


async def test_a_dead_container_under_the_tenants_name_is_set_aside(bench: Bench) -> None:
    """Another one takes its name and runs."""
    old = await bench.running()
    bench.engine.stuck.add(old.container_id)
    bench.engine.change(old, status=ContainerStatus.DEAD)

    await bench.settle()

    dead, new = bench.engine.containers()
    assert dead.role is Role.DISCARDED
    assert (new.status, new.role) == (ContainerStatus.RUNNING, Role.CURRENT)
    assert (await bench.told())[-1] == ("running", "restarted")


async def test_a_removal_by_somebody_else_is_told_and_waited_for(bench: Bench) -> None:
    """It is as good as gone: told as missing at once, and made again when its name is free."""
    old = await bench.running()
    bench.engine.change(old, status=ContainerStatus.REMOVING)

    await bench.settle()

    (new,) = bench.engine.containers()
    assert new.container_id != old.container_id
    assert await bench.told() == [STARTED, ("failed", "missing"), ("running", "restarted")]


async def test_a_removal_that_never_ends_keeps_nobody_from_running(bench: Bench) -> None:
    """It is set aside like a dead one."""
    old = await bench.running()
    bench.engine.stuck.add(old.container_id)
    bench.engine.change(old, status=ContainerStatus.REMOVING)

    await bench.settle()

    left, new = bench.engine.containers()
    assert (left.status, left.role) == (ContainerStatus.REMOVING, Role.DISCARDED)
    assert (new.status, new.role) == (ContainerStatus.RUNNING, Role.CURRENT)
    assert (await bench.told())[-1] == ("running", "restarted")


async def test_a_removal_that_never_ends_is_told_to_who_deletes(bench: Bench) -> None:
    """Nobody waits for ever without a word."""
    old = await bench.running()
    bench.engine.stuck.add(old.container_id)
    bench.engine.change(old, status=ContainerStatus.REMOVING)
    await bench.want(EventKind.DELETED)

    await bench.one_pass()

    assert (await bench.told())[-1] == ("failed", "stop_failed")


async def test_many_that_cannot_be_removed_keep_nobody_from_running(bench: Bench) -> None:
    """Each is set aside under a name of its own."""
    for spec in (OLD, NEW, OLD):
        await bench.want(EventKind.UPDATED, spec)
        await bench.settle()
        bench.clock.advance(60)
        bench.engine.stuck |= {seen.container_id for seen in bench.engine.containers()}

    *dead, new = bench.engine.containers()

    assert [seen.role for seen in dead] == [Role.DISCARDED] * 2
    assert (new.image, new.status) == ("nginx:1", ContainerStatus.RUNNING)
    assert (await bench.told())[-1] == ("running", "updated")


async def test_a_deleted_tenant_is_not_told_gone_while_something_is_left(bench: Bench) -> None:
    """A container that cannot be removed is a failure then, tried again with backoff."""
    container = await bench.running()
    bench.engine.stuck.add(container.container_id)
    await bench.want(EventKind.DELETED)

    due_in = await bench.one_pass()
    assert due_in is not None
    failed = (await bench.told())[-1]
    bench.engine.stuck.clear()
    bench.clock.advance(due_in)
    await bench.settle()

    assert failed == ("failed", "stop_failed")
    assert bench.engine.containers() == ()
    assert (await bench.told())[-1] == ("stopped", "deleted")


async def test_limits_that_cannot_be_changed_are_told_as_rolled_back(bench: Bench) -> None:
    """The former limits hold, the cause is told and counted, and the change is tried again."""
    old = await bench.running()
    bench.engine.fail("adjust", NO_CHANGE)
    await bench.want(EventKind.UPDATED, make_spec(image="nginx:1", resources=Resources(250, 64)))
    await bench.one_pass()
    limits_between = bench.engine.only.resources

    await bench.settle()

    assert limits_between == old.resources
    assert bench.engine.only.resources == Resources(250, 64)
    rolled_back, updated = (await bench.bodies())[1:]
    assert (rolled_back["reason"], updated["reason"]) == ("rolled_back", "updated")
    assert NO_CHANGE.args[0] in str(rolled_back["message"])
    assert (rolled_back["will_retry"], updated["changes"]) == (True, ["resources"])
    assert bench.failures(Reason.INSUFFICIENT_RESOURCES) == 1


async def test_a_fallback_stopped_by_hand_is_told_and_runs_again(bench: Bench) -> None:
    """That an update was rolled back does not hide what becomes of the former container."""
    await bench.running()
    bench.engine.missing_images = {"nginx:2"}
    await bench.want(EventKind.UPDATED, NEW)
    await bench.one_pass()
    bench.engine.stop_by_hand(bench.engine.only)

    await bench.one_pass()
    bench.clock.advance(1)
    await bench.one_pass()

    assert bench.engine.only.status is ContainerStatus.RUNNING
    assert (await bench.told())[2:] == [("stopped", "stopped_externally"), ROLLED_BACK]


async def test_a_wake_in_between_does_not_put_off_the_next_try(bench: Bench) -> None:
    """Engine events follow a rollback at once; the retry is due when it was told to be."""
    await bench.running()
    bench.engine.missing_images = {"nginx:2"}
    await bench.want(EventKind.UPDATED, NEW)
    due_in = await bench.one_pass()
    bench.clock.advance(0.5)

    assert due_in is not None
    assert await bench.one_pass() == due_in - 0.5


async def test_a_deleted_tenant_has_no_container(bench: Bench) -> None:
    """It is stopped, removed, told, and forgotten by the reconciler."""
    await bench.running()
    await bench.want(EventKind.DELETED)

    await bench.settle()

    assert bench.engine.containers() == ()
    assert bench.engine.operations()[-2:] == ["stop", "remove"]
    assert (await bench.told())[-1] == ("stopped", "deleted")
    assert bench.reconciler.observed_at(TENANT_ID) is None


async def test_a_container_that_does_not_stop_is_removed_by_force(bench: Bench) -> None:
    """A failed stop is told, and the next try removes the container all the same."""
    await bench.running()
    bench.engine.fail("stop", NO_STOP)
    await bench.want(EventKind.DELETED)

    await bench.settle()

    assert bench.engine.containers() == ()
    assert (await bench.told())[1:] == [("failed", "stop_failed"), ("stopped", "deleted")]


async def test_suspending_keeps_the_container_and_resuming_starts_it(bench: Bench) -> None:
    """The same container is stopped and started again, each told once."""
    old = await bench.running()
    await bench.want(EventKind.SUSPENDED)
    await bench.settle()
    status_between = bench.engine.only.status
    await bench.want(EventKind.RESUMED)

    await bench.settle()

    assert status_between is ContainerStatus.EXITED
    assert bench.engine.only.container_id == old.container_id
    assert bench.engine.only.status is ContainerStatus.RUNNING
    assert (await bench.told())[1:] == [("stopped", "suspended"), ("running", "resumed")]


async def test_a_transient_failure_is_tried_again_ever_later(bench: Bench) -> None:
    """Each failed try is told with its number, and waits twice as long as the one before."""
    bench.engine.missing_images = {"nginx:1"}
    await bench.want(EventKind.CREATED, OLD)
    delays = []
    for _ in range(3):
        due_in = await bench.one_pass()
        assert due_in is not None
        delays.append(due_in)
        bench.clock.advance(due_in)
    bench.engine.missing_images = set()

    await bench.settle()

    assert delays == [1, 2, 4]
    assert await bench.told() == [("failed", "image_not_found")] * 3 + [STARTED]
    assert bench.failures(Reason.IMAGE_NOT_FOUND) == 3


async def test_a_permanent_failure_waits_for_a_new_event(bench: Bench) -> None:
    """Trying again unchanged is pointless; the next tenant event is tried at once."""
    bench.engine.fail("create", NEVER)
    await bench.want(EventKind.CREATED, OLD)
    due_in = await bench.one_pass()
    tries = len(bench.engine.operations())
    await bench.one_pass()
    tries_later = len(bench.engine.operations())
    await bench.want(EventKind.UPDATED, NEW)

    await bench.settle()

    assert (due_in, tries_later) == (None, tries)
    assert await bench.told() == [("failed", "create_failed"), STARTED]


async def test_a_failed_start_leaves_nothing_half_made(bench: Bench) -> None:
    """The container that did not start is removed, the failure told."""
    bench.engine.fail("start", NO_START)
    await bench.want(EventKind.CREATED, OLD)

    await bench.one_pass()

    assert bench.engine.containers() == ()
    assert await bench.told() == [("failed", "start_failed")]


async def test_cleaning_up_may_fail_too(bench: Bench) -> None:
    """When what is half-made cannot be removed either, the next pass sees to it."""
    bench.engine.fail("start", NO_START)
    bench.engine.fail("remove", NO_STOP)
    await bench.want(EventKind.CREATED, OLD)

    await bench.settle()

    assert bench.engine.only.status is ContainerStatus.RUNNING
    assert await bench.told() == [("failed", "stop_failed"), STARTED]


async def test_who_waits_for_an_answer_is_told_that_the_engine_is_away(bench: Bench) -> None:
    """It is told once, however long it lasts, and the tenant is started when the engine is back."""
    bench.engine.is_away = True
    await bench.want(EventKind.CREATED, OLD)
    for _ in range(4):
        due_in = await bench.one_pass()
        assert due_in is not None
        bench.clock.advance(due_in)
    bench.engine.is_away = False

    await bench.settle()

    assert await bench.told() == [("failed", "engine_unavailable"), STARTED]


@pytest.mark.parametrize("request_", ["create", "start"])
async def test_what_takes_the_engine_down_again_and_again_waits_longest(
    bench: Bench, request_: str
) -> None:
    """Whoever wakes it: every other tenant would be lost with it each time."""
    await bench.want(EventKind.CREATED, OLD)
    delays = []
    for _ in range(3):
        bench.engine.fail(request_, EngineUnavailable("connection reset"))
        due_in = await bench.one_pass()
        assert due_in is not None
        delays.append(due_in)
        tries = len(bench.engine.calls)
        if due_in == 60:
            bench.clock.advance(30)
            await bench.one_pass()
            since = [call.operation for call in bench.engine.calls[tries:]]
            assert {"create", "start"}.isdisjoint(since)
            due_in = 30.001
        bench.clock.advance(due_in)

    await bench.settle()

    assert delays == [1, 60, 60]
    lost = ("failed", f"{request_}_failed")
    assert await bench.told() == [("failed", "engine_unavailable"), lost, lost, STARTED]
    assert "2 times in a row" in str((await bench.bodies())[1]["message"])


async def test_a_new_intention_is_tried_at_once_though_the_last_lost_the_engine(
    bench: Bench,
) -> None:
    """Another document may be another matter; what succeeds is counted no more."""
    for spec in (OLD, NEW):
        await bench.want(EventKind.UPDATED, spec)
        bench.engine.fail("create", EngineUnavailable("connection reset"))
        assert await bench.one_pass() == 1

    await bench.settle()

    assert (await bench.told())[-1] == STARTED


async def test_an_engine_lost_during_a_pull_tells_of_no_missing_container(bench: Bench) -> None:
    """A container that was never made was not removed by someone else."""
    bench.engine.fail("prepare", EngineUnavailable("connection reset"))
    await bench.want(EventKind.CREATED, OLD)

    await bench.settle()

    assert await bench.told() == [("failed", "engine_unavailable"), STARTED]


async def test_a_lost_engine_says_nothing_about_a_running_tenant(bench: Bench) -> None:
    """Unknown is not stopped: nothing is told, and the pass comes back."""
    await bench.running()
    bench.engine.is_away = True

    due_in = await bench.one_pass()

    assert due_in == 4
    assert await bench.told() == [STARTED]


@pytest.mark.parametrize(
    ("hand", "told"),
    [
        ("stop_by_hand", ("stopped", "stopped_externally")),
        ("pause_by_hand", ("stopped", "stopped_externally")),
        ("remove_by_hand", ("failed", "missing")),
    ],
)
async def test_what_someone_else_did_is_told_and_mended(
    bench: Bench, hand: str, told: tuple[str, str]
) -> None:
    """The change is told before it is undone, and then that the tenant runs again."""
    getattr(bench.engine, hand)(await bench.running())

    await bench.settle()

    assert bench.engine.only.status is ContainerStatus.RUNNING
    assert await bench.told() == [STARTED, told, ("running", "restarted")]


async def test_health_is_waited_for(bench: Bench) -> None:
    """A container with a health check is told as running once that passes, not before."""
    await bench.want(EventKind.CREATED, make_spec(healthcheck=HealthCheck(("CMD", "true"))))
    due_in = await bench.one_pass()
    told_before = await bench.told()
    bench.engine.change(bench.engine.only, health=Health.HEALTHY)

    await bench.settle()

    assert (due_in, told_before) == (300, [])
    assert await bench.told() == [STARTED]


async def test_a_cancelled_pass_is_taken_up_by_the_next(bench: Bench) -> None:
    """Whatever a pass was doing when it was cancelled, the next makes no second container."""
    bench.engine.interrupt_at(3, Interruption.CANCEL, takes_effect=True)
    await bench.want(EventKind.CREATED, OLD)
    cancelled = asyncio.create_task(bench.one_pass())
    with pytest.raises(asyncio.CancelledError):
        await cancelled

    await bench.settle()

    assert bench.engine.operations() == ["create", "start"]
    assert await bench.told() == [STARTED]


async def test_a_pass_is_bounded(bench: Bench) -> None:
    """More leftovers than one pass clears away are left to the next one, at once."""
    await bench.want(EventKind.DELETED)
    for number in range(20):
        bench.engine.put(
            make_container(
                container_id=ContainerId(f"left-{number}"), status=ContainerStatus.EXITED
            )
        )

    due_in = await bench.one_pass()
    left = len(bench.engine.containers())
    await bench.settle()

    assert (due_in, left) == (0, 4)
    assert bench.engine.containers() == ()


async def test_a_tenant_without_a_document_is_kept_but_not_made_anew(bench: Bench) -> None:
    """What was adopted is told as it is; once its container is gone, that is told too."""
    container = bench.engine.put(make_container(created_at=bench.clock()))
    await bench.ledger.adopt(await bench.engine.survey(), at=bench.clock())
    await bench.settle()
    bench.engine.remove_by_hand(container)

    due_in = await bench.one_pass()

    assert due_in is None
    assert bench.engine.containers() == ()
    assert await bench.told() == [("running", "adopted"), ("failed", "missing")]


def test_backoff_doubles_to_its_limit_and_never_undercuts_its_least() -> None:
    """The delay grows by powers of two, capped; jitter takes away half at most."""
    full = Backoff(least_seconds=1, most_seconds=10, jitter=lambda: 1.0)
    short = Backoff(least_seconds=1, most_seconds=10, jitter=lambda: 0.0)

    assert [full.seconds(attempt) for attempt in (1, 2, 3, 4, 5, 10_000)] == [1, 2, 4, 8, 10, 10]
    assert [short.seconds(attempt) for attempt in (1, 2, 3)] == [1, 1, 2]


# --- engine events ------------------------------------------------------------------------------


async def unseen(bench: Bench, deed: Callable[[], object]) -> list[str]:
    """Do it; return the actions of the engine events of it that no pass has seen."""
    async with bench.engine.events() as events:
        result = deed()
        if isawaitable(result):
            await result
        bench.engine.lose_events()
        return [event.action async for event in events if not bench.reconciler.has_seen(event)]


async def test_events_of_what_a_pass_did_are_seen(bench: Bench) -> None:
    """From the first start to the last trace, a tenant's passes wake nobody."""
    await bench.want(EventKind.CREATED, OLD)
    assert await unseen(bench, bench.settle) == []
    await bench.want(EventKind.UPDATED, NEW)
    assert set(await unseen(bench, bench.settle)) <= {"rename"}
    await bench.want(EventKind.SUSPENDED)
    assert await unseen(bench, bench.settle) == []
    await bench.want(EventKind.RESUMED)
    assert await unseen(bench, bench.settle) == []
    await bench.want(EventKind.DELETED)
    assert await unseen(bench, bench.settle) == []


async def test_events_of_what_others_do_are_not_seen(bench: Bench) -> None:
    """Each begins with one that leaves the container otherwise than it was seen."""
    running = await bench.running(replace(OLD, restart_policy=NO_RESTART))
    engine = bench.engine

    assert await unseen(bench, lambda: engine.exit(running, 1)) == ["die"]
    await bench.settle()
    exited = engine.only
    assert await unseen(bench, lambda: engine.start_by_hand(exited)) == ["start"]
    await bench.settle()
    assert await unseen(bench, lambda: engine.pause_by_hand(engine.only)) == ["pause"]
    await bench.settle()
    assert await unseen(bench, lambda: engine.remove_by_hand(engine.only)) == ["destroy"]


async def test_an_exit_and_a_start_between_two_looks_are_not_seen(bench: Bench) -> None:
    """The start leaves the container as it was seen; the exit before it does not."""
    running = await bench.running(replace(OLD, restart_policy=NO_RESTART))

    def exit_and_start() -> None:
        bench.engine.start_by_hand(bench.engine.exit(running, 1))

    assert await unseen(bench, exit_and_start) == ["die"]


async def test_nothing_is_seen_while_the_engine_is_away(bench: Bench) -> None:
    running = await bench.running(replace(OLD, restart_policy=NO_RESTART))
    bench.engine.fail("observe", EngineUnavailable("failed to connect to docker daemon"))
    await bench.one_pass()

    assert await unseen(bench, lambda: bench.engine.start_by_hand(running)) == ["start"]


# --- faults of our own ------------------------------------------------------------------------

FAILED_US = ("failed", "internal_error")


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(KeyError("s3cr3t"), id="what nobody foresaw"),
        pytest.param(asyncio.CancelledError("s3cr3t"), id="a cancel that nobody asked for"),
    ],
)
async def test_a_fault_of_ours_is_told_as_ours_and_retried(
    bench: Bench, fault: BaseException, capsys: pytest.CaptureFixture[str]
) -> None:
    """The tenant hears that it was we, and that it is tried again; values are told to nobody."""
    bench.engine.fail("create", fault)
    await bench.want(EventKind.CREATED, OLD)

    due_in = await bench.one_pass()
    (told,) = await bench.bodies()
    await bench.settle()

    logged = capsys.readouterr().out
    assert due_in == 1
    assert (told["reason"], told["will_retry"], told["event_id"]) == (
        "internal_error",
        True,
        "event-1",
    )
    assert "fault of ours" in logged
    assert "s3cr3t" not in f"{told} {logged}"
    assert await bench.told() == [FAILED_US, STARTED]
    assert bench.failures(Reason.INTERNAL_ERROR) == 1
    faults = bench.metrics.registry.get_sample_value("landlord_faults_total", {"part": "pass"})
    assert faults == 1


async def test_a_fault_that_lasts_is_met_ever_more_seldom(bench: Bench) -> None:
    """A wake brings it no sooner; each try is told with its number."""
    bench.engine.fail("observe", *(KeyError("k") for _ in range(3)))
    await bench.want(EventKind.CREATED, OLD)

    for _ in range(3):
        due_in = await bench.one_pass()
        assert due_in is not None
        assert await bench.one_pass() == due_in, "woken early"
        bench.clock.advance(due_in)
    attempts = [told["attempt"] for told in await bench.bodies()]
    await bench.settle()

    assert attempts == [1, 2, 3]
    assert (await bench.told())[-1] == STARTED


async def test_a_new_event_waits_for_no_fault(bench: Bench) -> None:
    """What is wanted now may go well at once."""
    bench.engine.fail("create", KeyError("k"))
    await bench.want(EventKind.CREATED, OLD)
    await bench.one_pass()

    await bench.want(EventKind.CREATED, NEW)
    await bench.one_pass()

    assert (await bench.told())[-1] == STARTED


async def test_a_fault_over_a_tenant_at_rest_is_taken_back(bench: Bench) -> None:
    """Once it is seen that the container runs as before, that is told."""
    await bench.running()
    bench.engine.fail("observe", KeyError("k"))

    await bench.settle()

    assert await bench.told() == [STARTED, FAILED_US, ("running", "unchanged")]


async def test_a_fault_while_committing_is_told_too(bench: Bench) -> None:
    """What cannot be written about the pass is left out, and the fault is told instead."""
    await bench.want(EventKind.CREATED, OLD)
    bench.ledger.fail_at(1, KeyError("k"), takes_effect=False)

    await bench.one_pass()

    assert await bench.told() == [FAILED_US]


# --- strangers --------------------------------------------------------------------------------


def copy_of(container: Container, **changes: object) -> Container:
    """Return what `docker run` makes of the container's committed image: all labels, no name."""
    origin = replace(container.origin, has_our_name=False)
    fields: dict[str, object] = {
        "container_id": ContainerId("copy"),
        "name": "frosty_copy",
        "created_at": container.created_at + timedelta(seconds=30),
        "origin": origin,
    }
    return replace(container, **(fields | changes))  # type: ignore[arg-type]  # at run time


@pytest.mark.parametrize("kind", list(EventKind))
async def test_a_copy_of_the_container_is_never_touched(bench: Bench, kind: EventKind) -> None:
    """Whatever is wanted of the tenant, the copy is neither taken for it nor removed."""
    original = await bench.running()
    copy = bench.engine.put(copy_of(original))
    bench.engine.calls.clear()

    await bench.want(kind, NEW if kind in (EventKind.CREATED, EventKind.UPDATED) else None)
    await bench.settle()

    assert copy in bench.engine.containers()
    assert copy.container_id not in [call.subject for call in bench.engine.calls]
    assert not any(state == "failed" for state, _ in await bench.told())
    assert len(bench.engine.containers()) == (1 if kind is EventKind.DELETED else 2)


async def test_a_copy_under_the_containers_name_is_a_conflict(bench: Bench) -> None:
    """It is no longer the tenant's, and is left there; the tenant is made once the name is free."""
    original = await bench.running()
    bench.engine.remove_by_hand(original)
    copy = bench.engine.put(
        copy_of(original, name=original.name, origin=original.origin, fingerprint="same")
    )

    await bench.one_pass()
    was = bench.engine.containers()
    bench.engine.remove_by_hand(copy)
    bench.clock.advance(60)
    await bench.settle()

    assert was == (copy,)
    assert (await bench.told())[-2:] == [("failed", "name_conflict"), ("running", "restarted")]


async def test_what_was_made_and_not_recorded_is_found_again(bench: Bench) -> None:
    """A process that ended between making and recording leaves no stranger behind."""
    await bench.want(EventKind.CREATED, OLD)
    tenant = await bench.ledger.read(TENANT_ID)
    assert tenant is not None
    await bench.engine.prepare(TENANT_ID, OLD)
    made = await bench.engine.create(
        TENANT_ID, OLD, generation=None, role=Role.CURRENT, serial=tenant.made + 1
    )

    await bench.settle()
    after = await bench.ledger.read(TENANT_ID)

    assert bench.engine.only.container_id == made.container_id
    assert after is not None
    assert (after.containers, after.made) == ((made.container_id,), tenant.made + 1)


async def test_a_container_that_is_out_of_sight_for_a_while_stays_the_tenants(
    bench: Bench,
) -> None:
    """An id is forgotten when we removed it, not when the engine does not show it."""
    original = await bench.running()
    del bench.engine._containers[original.container_id]
    bench.engine.missing_images.add(OLD.image)
    await bench.one_pass()
    bench.engine.put(original)
    bench.clock.advance(60)
    await bench.settle()

    assert bench.engine.only.container_id == original.container_id
    assert (await bench.told())[-1][0] == "running"


@pytest.mark.parametrize("kind", [EventKind.CREATED, EventKind.DELETED])
async def test_what_another_ledger_left_is_a_conflict_that_names_the_cure(
    bench: Bench, kind: EventKind
) -> None:
    """It is not touched, and nobody is told that there is nothing; after a take-over it is ours."""
    left = bench.engine.put(
        make_container(fingerprint=OLD.fingerprint, origin=Origin(Maker.ANOTHER, serial=3))
    )

    await bench.want(kind, OLD if kind is EventKind.CREATED else None)
    await bench.one_pass()
    again = await bench.one_pass()
    told, was = await bench.bodies(), bench.engine.containers()
    await bench.ledger.take_over(await bench.engine.survey(), at=bench.clock())
    await bench.settle()

    (failed,) = told
    assert (failed["state"], failed["reason"], was) == ("failed", "name_conflict", (left,))
    assert "landlord-consumer take-over" in str(failed["message"])
    assert again is not None
    assert "create" not in bench.engine.operations()
    assert len(bench.engine.containers()) == (1 if kind is EventKind.CREATED else 0)
    assert (await bench.told())[-1] == (
        ("running", "started") if kind is EventKind.CREATED else ("stopped", "deleted")
    )


async def test_a_conflict_ends_with_what_caused_it(bench: Bench) -> None:
    """A delete that met another ledger's container is done once somebody removed that one."""
    left = bench.engine.put(make_container(origin=Origin(Maker.ANOTHER)))
    await bench.want(EventKind.DELETED)
    await bench.one_pass()

    bench.engine.remove_by_hand(left)
    await bench.one_pass()

    assert await bench.told() == [("failed", "name_conflict"), ("stopped", "deleted")]


# --- a policy that was tightened --------------------------------------------------------------

RULE = Fault("provider_config.cap_add", "compute.policy.cap_add allows only nothing")
DENIED = ("failed", "policy_denied")


def tightened(bench: Bench, *, against: TenantSpec = OLD, is_stopping: bool = False) -> None:
    """Have the consumer start anew under a policy that is against the spec."""
    bench.renew(
        admits=lambda _, spec: (RULE,) if spec == against else (), is_stopping_denied=is_stopping
    )


async def test_a_tenant_that_the_policy_is_against_by_now_is_told_and_goes_on(
    bench: Bench,
) -> None:
    """It is told once, with the rule; its container is left alone, pass after pass."""
    before = await bench.running()
    tightened(bench)

    assert await bench.one_pass() is None
    assert await bench.one_pass() is None

    assert await bench.told() == [STARTED, DENIED]
    assert str(RULE) in str((await bench.bodies())[-1]["message"])
    assert (bench.engine.only.container_id, bench.engine.only.status) == (
        before.container_id,
        ContainerStatus.RUNNING,
    )


async def test_a_tenant_that_the_policy_is_against_by_now_is_stopped_where_it_says_so(
    bench: Bench,
) -> None:
    """With `on_tightened: stop` nothing of it runs any more; its container is kept."""
    await bench.running()
    tightened(bench, is_stopping=True)

    await bench.settle()

    assert bench.engine.only.status is ContainerStatus.EXITED
    assert await bench.told() == [STARTED, DENIED]


@pytest.mark.parametrize("ending", ["removed", "exited"])
async def test_what_the_policy_is_against_is_neither_made_nor_started_again(
    bench: Bench, ending: str
) -> None:
    """A recorded tenant gets back no container that no new tenant would get."""
    container = await bench.running()
    if ending == "removed":
        await bench.engine.remove(container)
    else:
        await bench.engine.stop(container)
    tightened(bench)

    await bench.settle()

    assert await bench.told() == [STARTED, DENIED]
    assert all(seen.status is ContainerStatus.EXITED for seen in bench.engine.containers(TENANT_ID))


async def test_a_tenant_that_was_denied_may_be_suspended_and_deleted(bench: Bench) -> None:
    """What takes its container away is done under every policy; a resumption is refused."""
    await bench.running()
    tightened(bench)
    await bench.settle()

    for kind in (EventKind.SUSPENDED, EventKind.RESUMED, EventKind.DELETED):
        await bench.want(kind)
        await bench.settle()

    told = [STARTED, DENIED, ("stopped", "suspended"), DENIED, ("stopped", "deleted")]
    assert await bench.told() == told
    assert bench.engine.containers(TENANT_ID) == ()


async def test_a_tenant_that_is_allowed_again_is_told_so(bench: Bench) -> None:
    """When the policy lets it run again it is as it was, without a new event."""
    before = await bench.running()
    tightened(bench)
    await bench.settle()
    bench.renew()

    await bench.settle()

    assert await bench.told() == [STARTED, DENIED, ("running", "unchanged")]
    assert bench.engine.only.container_id == before.container_id


async def test_a_former_container_that_the_policy_is_against_is_no_fallback(bench: Bench) -> None:
    """An update that fails does not bring back what may not be started any more."""
    await bench.running(OLD)
    tightened(bench, against=OLD)
    await bench.want(EventKind.UPDATED, NEW)
    bench.engine.fail("start", NO_START)

    await bench.one_pass()

    assert (await bench.told())[-1] == ("failed", "start_failed")
    assert all(
        seen.status is not ContainerStatus.RUNNING for seen in bench.engine.containers(TENANT_ID)
    )
    assert "not allowed any more" in str((await bench.bodies())[-1]["message"])


async def test_a_fallback_that_the_policy_is_against_is_stopped_where_it_says_so(
    bench: Bench,
) -> None:
    """An update that cannot be had keeps alive nothing that was withdrawn since."""
    await bench.running(OLD)
    await bench.want(EventKind.UPDATED, NEW)
    bench.engine.fail("create", NO_START)
    await bench.one_pass()
    before = bench.engine.only.status
    tightened(bench, against=OLD, is_stopping=True)
    bench.engine.fail("create", NO_START)

    await bench.one_pass()
    await bench.one_pass()

    assert (before, bench.engine.only.status) == (ContainerStatus.RUNNING, ContainerStatus.EXITED)
    assert (await bench.told())[-1][0] == "failed"


# --- flapping ---------------------------------------------------------------------------------


async def test_processes_that_are_killed_for_memory_make_no_passes(bench: Bench) -> None:
    """A program may have its children killed without end: only the container's own end is news."""
    running = await bench.running()
    killed = EngineEvent(TENANT_ID, running.container_id, "oom", bench.clock())

    assert bench.reconciler.has_seen(killed)
    assert not bench.reconciler.has_seen(replace(killed, container_id=ContainerId("unseen")))


@pytest.mark.parametrize("seconds", [30, 600, 601])
async def test_a_health_check_that_flaps_fills_no_outbox(bench: Bench, seconds: int) -> None:
    """Changes beyond a few are told as one; passes for them are put off; the last word is told."""
    checked = replace(OLD, healthcheck=HealthCheck(("CMD", "true"), interval_seconds=1))
    await bench.want(EventKind.CREATED, checked)
    await bench.one_pass()
    bench.engine.change(bench.engine.only, health=Health.HEALTHY)
    await bench.settle()
    bench.clock.advance(60)
    left: float | None = None
    passes = 0

    for second in range(seconds):
        bench.clock.advance(1)
        left = None if left is None else left - 1
        health = Health.UNHEALTHY if second % 2 == 0 else Health.HEALTHY
        container = bench.engine.change(bench.engine.only, health=health)
        event = EngineEvent(
            TENANT_ID, container.container_id, f"health_status: {health}", bench.clock()
        )
        if (left is not None and left <= 0) or not bench.reconciler.has_seen(event):
            left, passes = await bench.one_pass(), passes + 1
    waited = 0.0
    while left is not None:
        waited += max(0.0, left)
        bench.clock.advance(max(0.0, left))
        left = await bench.one_pass()

    told = await bench.told()
    assert len(told) <= 1 + 20 + seconds / 60 + 2
    assert passes <= 2 * len(told)
    assert told[-1][0] == ("failed" if seconds % 2 else "running")
    assert waited <= 61
    folded = [body for body in await bench.bodies() if "are told as one" in str(body["message"])]
    assert len(folded) >= seconds // 60 - 1
