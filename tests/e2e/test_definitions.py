"""`deploy/rabbitmq/definitions.json` on a real broker: our topology, users with least rights."""

import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import aio_pika
import pytest
from aio_pika.abc import AbstractChannel
from aiormq.exceptions import ChannelAccessRefused

from consumer.adapters import rabbitmq_topology
from deploy.lab.docker_cli import DockerCli
from deploy.lab.names import Names
from deploy.lab.servers import Broker, DockerHost
from tests.e2e.broker_clients import Publisher, Subscriber
from tests.e2e.consumer_process import ConsumerProcess
from tests.e2e.world import make_document, until

pytestmark = [pytest.mark.docker, pytest.mark.rabbitmq, pytest.mark.timeout(300)]

FILE: Final = Path(__file__).parents[2] / "deploy" / "rabbitmq" / "definitions.json"
VHOST: Final = "landlord"
NAMES: Final = Names("landlord")
USERS: Final = ("consumer", "publisher", "subscriber")
PASSWORD: Final = "least"
EVERYTHING: Final = r"^landlord\.(tenants|status|consumer|dead-letter)$"
"""What a consumer configures, writes and reads that declares its names by itself."""


@pytest.fixture
def defined(broker: Broker) -> Iterator[Broker]:
    """Have the definitions on the broker, and a password for each user."""
    broker.control("import_definitions", str(FILE))
    for user in USERS:
        broker.control("change_password", f"landlord-{user}", PASSWORD)
    yield broker
    broker.control("delete_vhost", VHOST)
    for user in USERS:
        broker.control("delete_user", f"landlord-{user}")


def url_of(broker: Broker, user: str) -> str:
    """Return the broker's URL for one of the users."""
    return f"amqp://landlord-{user}:{PASSWORD}@127.0.0.1:{broker.port}/{VHOST}"


@asynccontextmanager
async def channel_of(broker: Broker, user: str) -> AsyncIterator[AbstractChannel]:
    """Give a channel of the user."""
    connection = await aio_pika.connect(url_of(broker, user), timeout=10)
    async with connection:
        yield await connection.channel()


def topology_of(broker: Broker, vhost: str) -> dict[str, list[str]]:
    """Return what is declared in the virtual host, in an order of its own."""
    exported = json.loads(broker.control("export_definitions", "-", "--format=json"))
    return {
        kind: sorted(
            json.dumps({**one, "vhost": ""}, sort_keys=True)
            for one in exported[kind]
            if one["vhost"] == vhost
        )
        for kind in ("exchanges", "queues", "bindings")
    }


async def test_the_definitions_are_what_the_consumer_declares(defined: Broker) -> None:
    """Every name, argument and binding, and no other."""
    defined.control("add_vhost", "declared")
    defined.control("set_permissions", "-p", "declared", "guest", ".*", ".*", ".*")
    try:
        link = rabbitmq_topology.BrokerLink(url=f"{defined.url}declared")
        async with rabbitmq_topology.connect(link, "test") as connection:
            await rabbitmq_topology.declare(connection, link, rabbitmq_topology.Topology())
        declared = topology_of(defined, "declared")
    finally:
        defined.control("delete_vhost", "declared")

    assert topology_of(defined, VHOST) == declared
    assert all(declared.values())


@pytest.mark.parametrize("declares", [False, True])
async def test_a_tenant_lives_with_least_rights(
    defined: Broker, docker_host: DockerHost, tmp_path: Path, declares: bool
) -> None:
    """Consumer, publisher and subscriber, each as the user that is meant for it."""
    if declares:
        rights = (EVERYTHING, EVERYTHING, EVERYTHING)
        defined.control("set_permissions", "-p", VHOST, "landlord-consumer", *rights)
    process = ConsumerProcess(
        names=NAMES,
        broker_url=url_of(defined, "consumer"),
        docker_host=docker_host.url,
        folder=tmp_path,
        settings={"BROKER__DECLARE": str(declares).lower()},
    )
    subscriber = Subscriber()
    async with (
        channel_of(defined, "publisher") as publishing,
        channel_of(defined, "subscriber") as hearing,
    ):
        exchange = await publishing.get_exchange(NAMES.tenant_exchange, ensure=False)
        publisher = Publisher(exchange)
        queue = await hearing.declare_queue("landlord.subscriber.test", exclusive=True)
        await queue.bind(NAMES.status_exchange, "#")
        await queue.consume(subscriber.hear, no_ack=True)
        try:
            process.start()
            await publisher.create(make_document("least"))
            await subscriber.expect("least", state="running", timeout=60)
            await publisher.publish("created", b"no document", message_id="bad")
            await publisher.tell("deleted", "least")
            await subscriber.expect("least", state="stopped", reason="deleted", timeout=60)
            await until(lambda: has_one_dead_letter(defined), seconds=60)
        finally:
            process.kill()
            docker = DockerCli(docker_host.url)
            docker.remove_containers(NAMES.label)
            docker.remove_volumes(NAMES.label)


def has_one_dead_letter(broker: Broker) -> bool:
    """Whether the broker counts one; it counts every few seconds."""
    told = broker.control("list_queues", "-p", VHOST, "name", "messages", "--formatter=json")
    return {"name": NAMES.dead_letter, "messages": 1} in json.loads(told)


@pytest.mark.parametrize("user", ["publisher", "subscriber"])
async def test_nobody_else_reads_the_queues(defined: Broker, user: str) -> None:
    """Neither tenant events nor dead letters."""
    for name in (NAMES.queue, NAMES.dead_letter):
        async with channel_of(defined, user) as channel:
            queue = await channel.get_queue(name, ensure=False)
            with pytest.raises(ChannelAccessRefused):
                await queue.get(fail=False)


@pytest.mark.parametrize("user", ["consumer", "subscriber"])
async def test_nobody_else_publishes_tenant_events(defined: Broker, user: str) -> None:
    """A subscriber cannot make a tenant."""
    async with channel_of(defined, user) as channel:
        exchange = await channel.get_exchange(NAMES.tenant_exchange, ensure=False)
        with pytest.raises(ChannelAccessRefused):
            await Publisher(exchange).tell("deleted", "somebody")
