"""Images come from a registry when they are not there, and tell what keeps them away."""

import base64
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.lab.docker_cli import DockerCli
from deploy.lab.registry import PASSWORD, USERNAME, registry
from deploy.lab.servers import Broker, DockerHost
from tests.conftest import WEB
from tests.e2e.world import World, make_document, own_world

pytestmark = [pytest.mark.docker, pytest.mark.rabbitmq]


@pytest.fixture(scope="module")
def place(docker_host: DockerHost) -> Iterator[str]:
    """Run a registry that has one image, `web:1`; the engine has it no more."""
    with registry(docker_host) as address:
        docker, image = DockerCli(docker_host.url), f"{address}/web:1"
        docker.run("tag", WEB, image)
        docker.run("push", image)
        docker.run("rmi", image)
        yield address


async def test_a_missing_image_is_pulled(world: World, place: str) -> None:
    """What the engine does not have is pulled, and runs (checklist 10; weakness 5)."""
    status = await world.run_tenant("pulled", container={"image": f"{place}/web:1"})

    container = status["container"]
    assert isinstance(container, dict)
    assert container["image"] == f"{place}/web:1"
    assert await world.consumer.metric("landlord_tenant_startup_phase_seconds_count", phase="pull")


async def test_an_unknown_image_is_not_found(world: World, place: str) -> None:
    """It is told with the image's name and the registry's own words (checklist 55)."""
    image = f"{place}/web:no-such-tag"

    await world.publisher.create(make_document("unknown", container={"image": image}))
    status = await world.subscriber.expect("unknown", state="failed")

    assert (status["reason"], status["will_retry"]) == ("image_not_found", True)
    assert str(status["message"]).startswith("failed to pull image")
    assert image in str(status["message"])
    assert "manifest unknown" in str(status["message"])
    assert world.containers("unknown") == []


async def test_a_dead_registry_is_a_failed_pull(world: World) -> None:
    """A registry that does not answer is another matter than an image that is not there."""
    await world.publisher.create(make_document("dead", container={"image": "127.0.0.1:1/web:1"}))

    status = await world.subscriber.expect("dead", state="failed")

    assert (status["reason"], status["will_retry"]) == ("image_pull_failed", True)


async def test_a_login_opens_a_private_registry_and_is_told_nowhere(
    broker: Broker, docker_host: DockerHost, tmp_path: Path
) -> None:
    """The password is in no log, status, answer, label or ledger (checklist 11)."""
    (tmp_path / "password").write_text(PASSWORD)
    docker = DockerCli(docker_host.url)
    with registry(docker_host, is_private=True) as place:
        push_to_private(docker, f"{place}/web:1", tmp_path / "login")
        login = {place: {"username": USERNAME, "password_file": str(tmp_path / "password")}}
        settings = {
            "COMPUTE__DOCKER__REGISTRIES": json.dumps(login),
            "LOG__LEVEL": "debug",
        }
        async with own_world(broker, docker_host, tmp_path, **settings) as world:
            await world.run_tenant("private", container={"image": f"{place}/web:1"})
            document = make_document("denied", container={"image": f"{place}/nothing:1"})
            await world.publisher.create(document)
            await world.subscriber.expect("denied", state="failed")
            told = [
                world.consumer.log_text(),
                json.dumps([world.subscriber.statuses(name) for name in ("private", "denied")]),
                json.dumps(world.inspect("private", ".")),
                *[(await world.consumer.http_get(path))[1] for path in ("/metrics", "/tenants")],
                *ledger_files(tmp_path),
            ]
        docker.run("rmi", f"{place}/web:1")

    auth = base64.b64encode(f"{USERNAME}:{PASSWORD}".encode()).decode()
    assert "denied" in told[0]
    assert len(told) > 5, "no ledger was looked at"
    assert [text for text in told if PASSWORD in text or auth in text] == []


def ledger_files(folder: Path) -> list[str]:
    return [path.read_bytes().decode(errors="replace") for path in folder.glob("*.db*")]


def push_to_private(docker: DockerCli, image: str, config: Path) -> None:
    """Have the image in the private registry, and no more on the engine."""
    place = image.partition("/")[0]
    login = ("login", "-u", USERNAME, "--password-stdin", place)
    docker.run("--config", str(config), *login, stdin=PASSWORD.encode())
    docker.run("tag", WEB, image)
    docker.run("--config", str(config), "push", image)
    docker.run("rmi", image)


async def test_a_delete_overtakes_a_retry(world: World) -> None:
    """A tenant whose image cannot be had is deleted at once, whatever it waits for."""
    await world.publisher.create(make_document("undone", container={"image": "127.0.0.1:1/w:1"}))
    await world.subscriber.expect("undone", state="failed")

    status = await world.delete_tenant("undone")

    assert status["state"] == "stopped"
    last = world.subscriber.summary("undone")[-1]
    assert last[0] == "stopped"
