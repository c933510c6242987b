"""A container with a health check runs when it is healthy, and only then."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from deploy.lab.docker_cli import DockerCli
from deploy.lab.servers import Broker, DockerHost
from tests.e2e.world import World, make_document, own_world, until

pytestmark = [pytest.mark.docker, pytest.mark.rabbitmq]

CHECKED = "landlord-test/checked:1"
"""Its own health check passes once there is a file `/healthy`."""
START_TIMEOUT_SECONDS = 4


def check(script: str) -> dict[str, object]:
    return {"test": ["CMD-SHELL", script], "interval_seconds": 1, "retries": 2}


@pytest.fixture(scope="module", autouse=True)
def image(docker_host: DockerHost) -> Iterator[None]:
    """Have an image with a health check of its own."""
    cli = DockerCli(docker_host.url)
    changes = (
        'CMD ["/start.sh"]',
        "HEALTHCHECK --interval=500ms --retries=20 CMD test -e /healthy",
    )
    cli.import_image(CHECKED, changes)
    yield
    cli.run("rmi", "-f", CHECKED)


@pytest.fixture
async def impatient(
    broker: Broker, docker_host: DockerHost, tmp_path: Path
) -> AsyncIterator[World]:
    """Run a consumer that soon gives up waiting for health."""
    settings = {"RECONCILE__START_TIMEOUT_SECONDS": str(START_TIMEOUT_SECONDS)}
    async with own_world(broker, docker_host, tmp_path, **settings) as world:
        yield world


async def test_a_tenant_runs_once_it_is_healthy(world: World) -> None:
    """Not before; how long that took is a phase of its start."""
    document = make_document("slow", container={"healthcheck": check("test -e /healthy")})

    event_id = await world.publisher.create(document)
    await until(lambda: world.serves("slow"))
    before = world.subscriber.statuses("slow")
    pending = await world.consumer.status("slow")
    world.docker.run("exec", world.container("slow"), "touch", "/healthy")
    status = await world.subscriber.expect("slow", event_id=event_id)

    assert before == []
    assert pending["state"] == "pending"
    assert (status["state"], status["reason"], status["health"]) == (
        "running",
        "started",
        "healthy",
    )
    name, labels = "landlord_tenant_startup_phase_seconds_count", {"phase": "healthy"}
    assert await world.consumer.metric(name, **labels) >= 1


async def test_the_images_own_check_counts_too(world: World) -> None:
    """Unless the document says what counts, or switches it off."""
    await world.publisher.create(make_document("imaged", container={"image": CHECKED}))
    await until(lambda: world.serves("imaged"))
    off = await world.run_tenant(
        "unchecked", container={"image": CHECKED, "healthcheck": {"disable": True}}
    )
    before = world.subscriber.statuses("imaged")
    world.docker.run("exec", world.container("imaged"), "touch", "/healthy")
    on = await world.subscriber.expect("imaged", state="running")

    assert before == []
    assert (on["health"], off["health"]) == ("healthy", "none")


async def test_a_failing_check_is_a_failure_and_may_pass_again(world: World) -> None:
    """The container is left running; the status quotes the check, and tells when it passes."""
    failing = check("test ! -e /broken || { echo cannot reach the database; exit 1; }")
    before = await world.run_tenant("sick", container={"healthcheck": failing})

    world.docker.run("exec", world.container("sick"), "touch", "/broken")
    sick = await world.subscriber.expect("sick", state="failed")
    asked = await world.consumer.status("sick")
    world.docker.run("exec", world.container("sick"), "rm", "/broken")
    well = await world.subscriber.expect("sick", state="running")

    assert (sick["reason"], sick["health"]) == ("unhealthy", "unhealthy")
    assert "cannot reach the database" in str(sick["message"])
    assert (asked["state"], asked["reason"]) == ("failed", "unhealthy")
    assert (well["reason"], well["health"]) == ("healthy", "healthy")
    assert well["container"]["id"] == before["container"]["id"]  # type: ignore[index]  # dicts


async def test_who_never_becomes_healthy_is_told_after_the_start_timeout(impatient: World) -> None:
    """It is left running, and told as healthy when it is after all."""
    world = impatient
    never = {"test": ["CMD-SHELL", "test -e /healthy"], "interval_seconds": 1, "retries": 1000}
    document = make_document("late", container={"healthcheck": never})

    await world.publisher.create(document)
    late = await world.subscriber.expect("late", state="failed")
    running = world.inspect("late", ".State.Running")
    world.docker.run("exec", world.container("late"), "touch", "/healthy")
    well = await world.subscriber.expect("late", state="running")

    assert late["reason"] == "start_timeout"
    assert f"{START_TIMEOUT_SECONDS} s" in str(late["message"])
    assert running is True
    assert well["state"] == "running"
