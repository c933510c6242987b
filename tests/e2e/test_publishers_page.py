"""The page for publishers and subscribers: every program on it does what the page says.

They run as they stand there, by the commands that stand there, as a user with the rights that stand
there, on a broker with the default names.
"""

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from uuid import uuid4

import aio_pika
import pytest
from aio_pika.abc import AbstractQueue
from aio_pika.exceptions import ChannelNotFoundEntity

from deploy.lab.daemon import Daemon
from deploy.lab.docker_cli import DockerCli
from deploy.lab.names import Names
from deploy.lab.servers import Broker, DockerHost
from tests.e2e.broker_clients import connect
from tests.e2e.consumer_process import ConsumerProcess
from tests.e2e.world import World, make_document, until

pytestmark = [pytest.mark.docker, pytest.mark.rabbitmq]

PAGE: Final = (Path(__file__).parents[2] / "deploy" / "publishers.md").read_text(encoding="utf-8")
PROGRAMS: Final = dict(
    re.findall(r"(?ms)^```(?:python|sh)\n(?=# (\S+)\n)(.*?)^```", PAGE),
)
"""Each program of the page by the name in its first line."""
PUBLISHERS: Final = ("publish_aio_pika.py", "publish_pika.py", "publish_amqp.sh", "publish_curl.sh")
SUBSCRIBERS: Final = {
    "subscribe_aio_pika.py": "billing.tenant-status",
    "subscribe_pika.py": "billing.tenant-status",
    "subscribe_amqp.sh": "billing.shell",
}
"""Those that stay, and their queues."""
NAMES: Final = Names("landlord")
SECONDS: Final = 60.0


@dataclass(frozen=True, slots=True)
class Desk:
    """Where somebody sits who has this page, and the rights it asks for."""

    broker: Broker
    folder: Path

    @property
    def environment(self) -> dict[str, str]:
        return {
            **os.environ,
            "AMQP_URL": f"amqp://billing:PASSWORD@127.0.0.1:{self.broker.port}/%2F",
            "RABBITMQ_API": f"http://127.0.0.1:{self.broker.api_port}/api",
            "RABBITMQ_LOGIN": "billing:PASSWORD",
        }

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run a program of the page to its end."""
        return subprocess.run(
            words,
            env=self.environment,
            cwd=self.folder,
            capture_output=True,
            text=True,
            check=False,
            timeout=SECONDS,
        )

    def publish(self, words: list[str], document: object) -> str:
        """Publish the document as `acme-corp.json` and return what is printed: the event's id."""
        (self.folder / "acme-corp.json").write_text(json.dumps(document), encoding="utf-8")
        done = self.run(*words)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def make_queue(self) -> None:
        """Make the queue of the shell's programs, or see that it is there."""
        done = self.run(*command_of("make_queue.sh"))
        assert done.returncode == 0, done.stdout + done.stderr

    @contextmanager
    def running(self, program: str) -> Iterator[Path]:
        """Run a program that stays, for the length of the block; give the file of what it says."""
        log = self.folder / f"{uuid4().hex}.log"
        daemon = Daemon(
            program,
            command_of(program),
            environment=self.environment,
            log=log,
            folder=self.folder,
            is_ready=lambda: True,
        )
        daemon.start()
        try:
            yield log
        finally:
            daemon.kill()


def command_of(program: str) -> list[str]:
    """Return the command that the page gives for the program."""
    found = re.search(rf"`((?:python|sh) {re.escape(program)}[^`]*)`", PAGE)
    assert found is not None, f"the page does not say how {program} is run"
    interpreter, *words = found[1].split()
    return [sys.executable if interpreter == "python" else interpreter, *words]


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    """Give a broker with its management API, the page's user on it, and the page's programs."""
    broker = Broker(tmp_path_factory.mktemp("managed") / "node", is_managed=True)
    broker.start()
    try:
        for line in re.findall(r"(?m)^# rabbitmqctl (.+)$", PAGE):
            broker.control(*shlex.split(line, comments=True))
        folder = tmp_path_factory.mktemp("page")
        for name, text in PROGRAMS.items():
            (folder / name).write_text(text, encoding="utf-8")
        yield Desk(broker, folder)
    finally:
        broker.close()


@pytest.fixture(scope="module")
def landlord(
    desk: Desk, docker_host: DockerHost, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ConsumerProcess]:
    """Run a consumer with the default names."""
    process = ConsumerProcess(
        names=NAMES,
        broker_url=desk.broker.url,
        docker_host=docker_host.url,
        folder=tmp_path_factory.mktemp("landlord"),
    )
    try:
        process.start()
        yield process
    finally:
        process.kill()
        docker = DockerCli(docker_host.url)
        docker.remove_containers(NAMES.label)
        docker.remove_volumes(NAMES.label)


@pytest.fixture
async def world(
    desk: Desk, landlord: ConsumerProcess, docker_host: DockerHost
) -> AsyncIterator[World]:
    """Give the consumer and everything around it."""
    async with connect(desk.broker.url, NAMES) as clients:
        yield World(landlord, clients, DockerCli(docker_host.url), docker_host)


@pytest.fixture
async def created(desk: Desk, landlord: ConsumerProcess) -> AsyncIterator[AbstractQueue]:
    """Give a queue that gets every `tenant.created`, beside the consumer's."""
    async with await aio_pika.connect(desk.broker.url) as connection:
        channel = await connection.channel()
        queue = await channel.declare_queue(exclusive=True)
        await queue.bind(NAMES.tenant_exchange, "tenant.created")
        yield queue


def test_the_page_has_no_other_programs() -> None:
    """Each that is shown is run below."""
    assert set(PROGRAMS) == {*PUBLISHERS, *SUBSCRIBERS, "make_queue.sh", "subscribe_curl.sh"}


@pytest.mark.parametrize("program", PUBLISHERS)
async def test_a_published_event_is_applied_once(
    desk: Desk, world: World, created: AbstractQueue, program: str
) -> None:
    """As persistent JSON, under the id that is printed; a second try of it is a duplicate."""
    tenant_id = program.replace(".", "-")
    document = make_document(tenant_id, generation=1)
    words = command_of(program)
    duplicates = {"type": "tenant.created", "outcome": "duplicate"}
    before = await world.consumer.metric("landlord_tenant_events_total", **duplicates)

    event_id = desk.publish(words, document)
    await world.subscriber.expect(tenant_id, state="running", event_id=event_id)
    again = desk.publish([*words, event_id], document)
    await until(lambda: world.serves(tenant_id))
    gone = desk.publish(
        ["tenant.deleted" if word == "tenant.created" else word for word in words],
        {"tenant_id": tenant_id},
    )
    await world.subscriber.expect(tenant_id, state="stopped", event_id=gone)

    assert again == event_id != gone
    reasons = [status["reason"] for status in world.subscriber.statuses(tenant_id)]
    assert reasons == ["started", "deleted"]
    after = await world.consumer.metric("landlord_tenant_events_total", **duplicates)
    assert after == before + 1
    message = await created.get(no_ack=True)
    assert message is not None
    assert message.delivery_mode == aio_pika.DeliveryMode.PERSISTENT
    assert message.content_type == "application/json"
    assert json.loads(message.body) == document


@pytest.mark.parametrize(
    ("program", "words"),
    [
        ("publish_aio_pika.py", "NO_ROUTE"),
        ("publish_pika.py", "UnroutableError"),
        ("publish_curl.sh", '"routed":false'),
    ],
)
def test_an_event_that_no_queue_takes_is_an_error(
    desk: Desk, landlord: ConsumerProcess, program: str, words: str
) -> None:
    """In the words that the page leads from."""
    command = command_of(program)
    command[2:] = ["tenant.renamed", os.devnull]

    done = desk.run(*command)

    assert done.returncode != 0
    assert words in done.stderr
    assert words in PAGE


@pytest.mark.parametrize("program", SUBSCRIBERS)
async def test_a_subscriber_misses_nothing_while_it_is_away(
    desk: Desk, world: World, program: str
) -> None:
    """Its durable queue keeps what comes; what was acted upon is not told again."""
    tenant_id = program.replace(".", "-")
    if program.endswith(".sh"):
        desk.make_queue()
    with desk.running(program) as log:
        await until(lambda: has_subscriber(desk.broker, program), seconds=SECONDS)
        first = await world.publisher.tell("deleted", tenant_id)
        await tells(log, first)
        second = await world.publisher.tell("deleted", tenant_id)
        await tells(log, second)

    third = await world.publisher.tell("deleted", tenant_id)
    await world.subscriber.expect(tenant_id, event_id=third)
    with desk.running(program) as log:
        await tells(log, third)

    assert first not in said(log)


@pytest.mark.parametrize("program", ["subscribe_aio_pika.py", "subscribe_pika.py"])
async def test_a_subscriber_passes_over_what_is_not_newer(
    desk: Desk, world: World, program: str
) -> None:
    """A status that comes again is told once, and so is one of a lower sequence."""
    tenant_id = f"again-{program.replace('.', '-')}"
    with desk.running(program) as log:
        await until(lambda: has_subscriber(desk.broker, program), seconds=SECONDS)
        first = await world.publisher.tell("deleted", tenant_id)
        heard = await world.subscriber.expect_message(tenant_id, event_id=first)
        second = await world.publisher.tell("deleted", tenant_id)
        await world.subscriber.expect(tenant_id, event_id=second)
        # The last one as well: when it is there, those before it were.
        await repeat(desk.broker, heard.message.body)
        third = await world.publisher.tell("deleted", tenant_id)
        await tells(log, third)

    told = [line.split()[-1] for line in said(log).splitlines() if tenant_id in line]
    assert told == [first, second, third]


async def test_a_subscriber_comes_back_after_a_lost_connection(desk: Desk, world: World) -> None:
    """The one that says so of itself."""
    program = "subscribe_aio_pika.py"
    with desk.running(program) as log:
        await until(lambda: has_subscriber(desk.broker, program), seconds=SECONDS)
        desk.broker.control("close_all_user_connections", "billing", "tried")
        event_id = await world.publisher.tell("deleted", "cut-off")
        await tells(log, event_id)

    assert said(log).count("subscribed") == 2


async def test_what_has_come_is_fetched_with_curl(desk: Desk, world: World) -> None:
    """Each call takes out what has come since the last one."""
    desk.make_queue()
    event_id = await world.publisher.tell("deleted", "fetched")
    await world.subscriber.expect("fetched", event_id=event_id)

    async def has_come() -> bool:
        # The queue may get it a moment after the test did.
        fetched = desk.run(*command_of("subscribe_curl.sh"))
        assert fetched.returncode == 0, fetched.stdout + fetched.stderr
        letters = [json.loads(letter["payload"]) for letter in json.loads(fetched.stdout)]
        return event_id in [letter["event_id"] for letter in letters]

    await until(has_come, seconds=SECONDS)
    assert not await has_come()


def said(log: Path) -> str:
    """Return what the program that writes there has said."""
    return log.read_text(encoding="utf-8")


async def tells(log: Path, event_id: str) -> None:
    """Wait until the program that writes there tells of the event."""
    try:
        await until(lambda: event_id in said(log), seconds=SECONDS)
    except TimeoutError:
        raise AssertionError(f"no {event_id} in:\n{said(log)}") from None


async def has_subscriber(broker: Broker, program: str) -> bool:
    """Whether somebody takes from the program's queue."""
    async with await aio_pika.connect(broker.url) as connection:
        channel = await connection.channel()
        try:
            queue = await channel.declare_queue(SUBSCRIBERS[program], passive=True)
        except ChannelNotFoundEntity:
            return False
        return bool(queue.declaration_result.consumer_count)


async def repeat(broker: Broker, body: bytes) -> None:
    """Publish a status event as it came before."""
    async with await aio_pika.connect(broker.url) as connection:
        channel = await connection.channel()
        exchange = await channel.get_exchange(NAMES.status_exchange)
        await exchange.publish(aio_pika.Message(body), "tenant.status.stopped", timeout=SECONDS)
