"""What Prometheus scrapes is well formed, and holds what really happened."""

import asyncio
import subprocess

import pytest

from deploy.lab.packages import find
from tests.e2e.world import World, make_document

pytestmark = [pytest.mark.docker, pytest.mark.rabbitmq]


async def test_metrics_pass_promtools_check(world: World) -> None:
    """Prometheus' own linter has nothing to say (checklist 44)."""
    await world.run_tenant("linted")
    _, text = await world.consumer.http_get("/metrics")

    outcome = subprocess.run(  # noqa: ASYNC221 - nothing else goes on meanwhile
        [find("promtool"), "check", "metrics"],
        input=text,
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )

    assert (outcome.returncode, outcome.stdout, outcome.stderr) == (0, "", "")


async def test_startup_seconds_hold_what_really_happened(world: World) -> None:
    """Each start is one observation, and their sum is what the statuses told."""
    name = "landlord_tenant_startup_seconds"
    count = await world.consumer.metric(f"{name}_count")
    total = await world.consumer.metric(f"{name}_sum")

    started = [await world.run_tenant(tenant) for tenant in ("timed-1", "timed-2", "timed-3")]

    seconds = [float(str(status["startup_seconds"])) for status in started]
    assert await world.consumer.metric(f"{name}_count") == count + 3
    grown = await world.consumer.metric(f"{name}_sum") - total
    assert grown == pytest.approx(sum(seconds), abs=0.01)
    assert all(0.05 < each < 20 for each in seconds)


async def test_buckets_tell_one_second_from_five(world: World) -> None:
    """The histogram resolves 50 ms to ten minutes (checklist 45)."""
    samples = await world.consumer.metrics()

    buckets = [
        float(dict(labels)["le"])
        for name, labels in samples
        if name == "landlord_tenant_startup_seconds_bucket"
    ]

    assert min(buckets) <= 0.05
    assert max(bucket for bucket in buckets if bucket != float("inf")) >= 600
    assert sum(1 for bucket in buckets if 1 <= bucket <= 5) >= 3


async def test_failures_are_counted_by_reason(world: World) -> None:
    """A failure moves the counter of its reason, and of no other."""
    name = "landlord_tenant_failures_total"
    before = await world.consumer.metric(name, reason="start_failed")
    other = await world.consumer.metric(name, reason="image_not_found")

    await world.publisher.create(make_document("counted", container={"command": ["/nowhere"]}))
    await world.subscriber.expect("counted", state="failed")

    assert await world.consumer.metric(name, reason="start_failed") >= before + 1
    assert await world.consumer.metric(name, reason="image_not_found") == other


async def test_what_a_pass_does_makes_no_more_passes(world: World) -> None:
    """The engine's events of our own deeds are no reason to look again."""

    async def looks() -> float:
        lists = await world.consumer.metric(
            "landlord_engine_request_seconds_count", operation="list", outcome="ok"
        )
        return lists - await world.consumer.metric("landlord_resync_seconds_count")

    before = await looks()

    await world.run_tenant("seen")
    await world.delete_tenant("seen")
    await asyncio.sleep(1)  # the last of the events come after the answer

    assert await looks() == before + 2
