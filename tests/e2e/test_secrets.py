"""What only a tenant may know arrives in its container, and nowhere else."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from deploy.lab.servers import Broker, DockerHost
from tests.e2e.world import World, make_document, own_world, shell

pytestmark = [pytest.mark.docker, pytest.mark.rabbitmq]

SECRET = "marker-of-the-secret"
VALUE = "marker-of-the-environment"


@dataclass(frozen=True, slots=True)
class Bench:
    """A consumer that is given secrets, and the folder of them."""

    world: World
    folder: Path

    def put(self, tenant_id: str, name: str) -> None:
        path = self.folder / "secrets" / tenant_id / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(SECRET)


@pytest.fixture
async def bench(broker: Broker, docker_host: DockerHost, tmp_path: Path) -> AsyncIterator[Bench]:
    """Run a consumer that reads secrets."""
    folder = str(tmp_path / "secrets")
    async with own_world(
        broker,
        docker_host,
        tmp_path,
        COMPUTE__DOCKER__SECRETS_DIR=folder,
        LOG__LEVEL="debug",
    ) as world:
        yield Bench(world, tmp_path)


async def test_a_missing_secret_is_named_and_waited_for(bench: Bench) -> None:
    """The operator puts it there, and the tenant runs without another event."""
    world = bench.world
    document = make_document("waiting", container={"secrets": ["db_password"]})

    event_id = await world.publisher.create(document)
    failed = await world.subscriber.expect("waiting", state="failed")
    left = world.containers("waiting")
    bench.put("waiting", "db_password")
    running = await world.subscriber.expect("waiting", state="running")

    assert (failed["reason"], failed["will_retry"]) == ("invalid_event", True)
    assert "'db_password'" in str(failed["message"])
    assert left == []
    assert running["event_id"] == event_id


async def test_an_update_of_the_secrets_alone_replaces_the_container(bench: Bench) -> None:
    """The new one has what it wants; nothing of the old one is left."""
    world = bench.world
    bench.put("more", "one")
    bench.put("more", "two")
    before = await world.run_tenant("more", container={"secrets": ["one"]})

    event_id = await world.publisher.update(
        make_document("more", container={"secrets": ["one", "two"]})
    )
    after = await world.subscriber.expect("more", event_id=event_id)

    assert (after["reason"], after["changes"]) == ("updated", ["secrets"])
    assert before["container"] != after["container"]
    listed = world.docker.run("exec", world.container("more"), "ls", "/run/secrets")
    assert listed.split() == ["one", "two"]


async def test_nothing_of_it_is_anywhere_else(bench: Bench) -> None:
    """Not in a status event, the log, the ledger, the metrics, the API, nor in a dead letter.

    The container does its best to tell. Its environment's values are in the ledger, as part of the
    document, and in `docker inspect`; secrets are not even there.
    """
    world = bench.world
    bench.put("teller", "token")
    telling = shell('echo "it broke: $VALUE $(cat /run/secrets/token)"; exit 1')
    document = make_document(
        "teller",
        container={**telling, "env": {"VALUE": VALUE}, "secrets": ["token"]},
        provider_config={"restart_policy": "no"},
    )

    await world.publisher.create(document)
    status = await world.subscriber.expect("teller", state="failed")
    await world.publisher.create({**document, "containers": [{"env": {"A": [VALUE]}}]})
    letter = await world.clients.take_dead_letter()
    _, metrics = await world.consumer.http_get("/metrics")
    shown = world.docker.run("inspect", world.container("teller"))
    told = [
        *map(str, world.subscriber.statuses("teller")),
        str(await world.consumer.status("teller")),
        metrics,
        world.consumer.log_text(),
    ]
    ledger = b"".join(path.read_bytes() for path in bench.folder.glob("*.db*"))

    assert "it broke: *** ***" in str(status["message"])
    assert not [text for text in told if SECRET in text or VALUE in text]
    assert VALUE.encode() in ledger
    assert SECRET.encode() not in ledger
    assert SECRET not in shown
    assert not [text for text in map(str, letter.headers.values()) if VALUE in text]
