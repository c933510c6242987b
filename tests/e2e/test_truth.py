"""What happens to a container after its start becomes the right status, and is put right."""

import time
from datetime import UTC, datetime, timedelta

import pytest

from tests.e2e.broker_clients import Status
from tests.e2e.world import World, make_document, shell, until

pytestmark = [pytest.mark.docker, pytest.mark.rabbitmq]

SOON = timedelta(seconds=2)


def told_within(status: Status, since: datetime) -> timedelta:
    """Return how long after the moment the status was said."""
    return datetime.fromisoformat(str(status["occurred_at"])) - since


def finished_at(status: Status) -> datetime:
    """Return when the status' container ended, as Docker tells."""
    container = status["container"]
    assert isinstance(container, dict)
    return datetime.fromisoformat(container["finished_at"])


@pytest.mark.parametrize(
    ("code", "state"), [pytest.param(3, "failed", id="3"), pytest.param(0, "stopped", id="0")]
)
async def test_an_exit_is_told_by_its_code(world: World, code: int, state: str) -> None:
    """Exit code 3 is `failed`/`exited`, 0 is `stopped`/`exited`; neither is started again."""
    tenant = f"exit-{code}"
    document = make_document(
        tenant,
        container=shell(f"sleep 1; exit {code}"),
        provider_config={"restart_policy": "no"},
    )

    await world.publisher.create(document)
    await world.subscriber.expect(tenant, state="running")
    status = await world.subscriber.expect(tenant, state=state)

    assert status["reason"] == "exited"
    assert status["container"]["exit_code"] == code  # type: ignore[index]  # a dict
    assert told_within(status, finished_at(status)) < SOON
    assert world.inspect(tenant, ".State.Status") == "exited"


async def test_an_exit_right_after_the_start_is_no_success(world: World) -> None:
    """A container that ends at once is told by its code, never left as running (weakness 41)."""
    document = make_document(
        "at-once", container=shell("exit 7"), provider_config={"restart_policy": "no"}
    )

    await world.publisher.create(document)
    status = await world.subscriber.expect("at-once", state="failed")

    assert status["reason"] == "exited"
    assert (await world.consumer.status("at-once"))["state"] == "failed"


async def test_a_memory_hog_is_told_within_two_seconds(world: World) -> None:
    """A process over the limit is `failed`/`oom_killed`."""
    document = make_document(
        "hog-later",
        container=shell("sleep 1; x=a; while :; do x=$x$x; done"),
        resources={"cpu": 500, "memory": 16},
        provider_config={"restart_policy": "no"},
    )

    await world.publisher.create(document)
    status = await world.subscriber.expect("hog-later", state="failed")

    assert status["reason"] == "oom_killed"
    assert told_within(status, finished_at(status)) < SOON


async def test_a_removed_container_is_made_again(world: World) -> None:
    """`docker rm -f` by hand is told as `failed`/`missing`, then a new container runs."""
    before = await world.run_tenant("removed")

    since = datetime.now(UTC)
    world.docker.run("rm", "-f", world.container("removed"))
    missing = await world.subscriber.expect("removed", state="failed")
    after = await world.subscriber.expect("removed", state="running")

    assert missing["reason"] == "missing"
    assert told_within(missing, since) < SOON
    assert before["container"] != after["container"]
    assert len(world.containers("removed")) == 1


@pytest.mark.parametrize(
    "act",
    [
        pytest.param(("stop", "-t", "1"), id="stop"),
        pytest.param(("kill",), id="kill"),
        pytest.param(("pause",), id="pause"),
    ],
)
async def test_a_container_stopped_by_hand_runs_again(world: World, act: tuple[str, ...]) -> None:
    """It is told as stopped by someone else, then as restarted, and is the same container."""
    tenant = f"by-hand-{act[0]}"
    before = await world.run_tenant(tenant)

    world.docker.run(*act, world.container(tenant))
    since = datetime.now(UTC)
    stopped = await world.subscriber.expect(tenant, state="stopped")
    again = await world.subscriber.expect(tenant, state="running")

    assert stopped["reason"] == "stopped_externally"
    assert told_within(stopped, since) < SOON
    assert again["reason"] == "restarted"
    assert again["container"]["id"] == before["container"]["id"]  # type: ignore[index]  # dicts
    assert world.inspect(tenant, ".State.Status") == "running"


async def test_a_restart_by_the_policy_is_told(world: World) -> None:
    """What Docker restarts by itself is `failed`/`exited` with its code, then `restarted`."""
    script = "if [ -e /once ]; then exec sleep 3600; fi; touch /once; sleep 1; exit 4"

    await world.run_tenant("policy", container=shell(script))
    failed = await world.subscriber.expect("policy", state="failed")
    again = await world.subscriber.expect("policy", state="running")

    assert failed["reason"] == "exited"
    assert failed["container"]["exit_code"] == 4  # type: ignore[index]  # a dict
    assert again["reason"] == "restarted"
    assert again["container"]["restart_count"] == 1  # type: ignore[index]  # a dict


async def test_a_crash_loop_is_told_as_one(world: World) -> None:
    """A container that ends again and again is no running one (weaknesses 32, 36)."""
    await world.publisher.create(make_document("loop", container=shell("exit 5")))

    status = await world.subscriber.expect("loop", state="failed", reason="crash_loop", timeout=30)

    assert status["container"]["restart_count"] >= 3  # type: ignore[index]  # a dict
    assert (await world.consumer.status("loop"))["reason"] == "crash_loop"


async def test_one_tenants_slow_stop_holds_up_no_other(world: World) -> None:
    """While one container ignores SIGTERM, another tenant comes and goes (promise 5)."""
    stubborn = shell("trap '' TERM; while :; do sleep 1; done")
    await world.run_tenant(
        "stubborn", container=stubborn, provider_config={"stop_grace_seconds": 6}
    )

    slow = await world.publisher.tell("deleted", "stubborn")
    await world.run_tenant("brisk")
    await until(lambda: world.serves("brisk"))
    await world.delete_tenant("brisk")
    is_still_stopping = bool(world.containers("stubborn"))
    status = await world.subscriber.expect("stubborn", event_id=slow)

    assert is_still_stopping
    assert status["reason"] == "deleted"
    assert world.containers("stubborn") == []


async def test_a_deleted_tenant_still_has_its_own_grace_period(world: World) -> None:
    """What ignores SIGTERM is killed after the time that its document gave, not the usual one."""
    stubborn = shell("trap '' TERM; while :; do sleep 1; done")
    await world.run_tenant("patient", container=stubborn, provider_config={"stop_grace_seconds": 3})
    began = time.monotonic()

    await world.delete_tenant("patient")

    assert 3.0 <= time.monotonic() - began < 6.0
    assert world.containers("patient") == []
