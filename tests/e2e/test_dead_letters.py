"""Dead letters on real servers, by the command line: seen, put back once mended, or dropped."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from consumer.adapters.rabbitmq_letters import look_at_letters
from consumer.adapters.rabbitmq_topology import BrokerLink
from consumer.letters import Letter
from deploy.lab.servers import Broker, DockerHost
from tests.conftest import WEB
from tests.contract.brokers import topology_of
from tests.e2e.commands import command, command_on_terminal, settings_of
from tests.e2e.consumer_process import ConsumerProcess
from tests.e2e.world import World, make_document, own_world, until

pytestmark = [pytest.mark.docker, pytest.mark.rabbitmq]


class Desk:
    """Where the operator of one consumer sits."""

    def __init__(self, world: World, broker: Broker, host: DockerHost, folder: Path) -> None:
        self.settings = settings_of(world.names, broker, host, folder)
        self.folder = folder
        self.http_port = world.consumer.http_port
        self._link = BrokerLink(url=broker.url)
        self._topology = topology_of(world.names)

    def run(self, *words: str, code: int = 0) -> list[dict[str, object]]:
        """Run a command on dead letters and return its answer."""
        done = command("dead-letters", *words, "--json", folder=self.folder, **self.settings)
        assert done.returncode == code, done.stderr
        return [json.loads(line) for line in done.stdout.splitlines()]

    def checks(self) -> dict[str, dict[str, object]]:
        """Return what `check` tells, by name."""
        settings = {**self.settings, "LANDLORD_HTTP__PORT": str(self.http_port)}
        told = command("check", "--json", folder=self.folder, **settings).stdout.splitlines()
        return {line["name"]: line for line in map(json.loads, told)}

    def say(self, *words: str) -> tuple[int, str]:
        """Run a command on dead letters; return its exit code and what a person reads."""
        done = command("dead-letters", *words, folder=self.folder, **self.settings)
        return done.returncode, done.stdout + done.stderr

    def answer(self, answer: str, *words: str) -> int:
        """Run a command on a terminal and answer what it asks."""
        return command_on_terminal(
            answer, "dead-letters", *words, folder=self.folder, **self.settings
        )

    async def letters(self, count: int) -> list[Letter]:
        """Return the dead letters once there are so many."""
        deadline = time.monotonic() + 20
        while len(found := await look_at_letters(self._link, self._topology)) != count:
            assert time.monotonic() < deadline, found
        return found


@pytest.fixture
async def desk(
    world: World, broker: Broker, docker_host: DockerHost, tmp_path: Path
) -> AsyncIterator[Desk]:
    """Give a desk whose queue is empty at the end."""
    yield Desk(world, broker, docker_host, tmp_path)
    queue = await world.clients._channel.get_queue(world.names.dead_letter, ensure=False)
    await queue.purge()


def bad_document(tenant_id: str) -> dict[str, object]:
    """Return a document that no policy makes any better."""
    return {**make_document(tenant_id), "containers": [{"image": WEB}, {"image": WEB}]}


async def test_a_denied_event_is_applied_after_the_policy_changed(
    broker: Broker, docker_host: DockerHost, tmp_path: Path
) -> None:
    """The replayed event is no duplicate of its own refusal: its tenant runs."""
    async with own_world(
        broker, docker_host, tmp_path, COMPUTE__POLICY__IMAGES="registry.example.com/*"
    ) as world:
        desk = Desk(world, broker, docker_host, tmp_path)
        event_id = await world.publisher.create(make_document("denied"))
        denied = await world.subscriber.expect("denied", event_id=event_id)
        await desk.letters(1)
        (group,) = desk.run("list")
        (dry,) = desk.run("replay", "--reason", "policy_denied", "--dry-run")
        world.consumer.terminate()
        mended = ConsumerProcess(
            names=world.names, broker_url=broker.url, docker_host=docker_host.url, folder=tmp_path
        )
        try:
            mended.start()
            (done,) = desk.run("replay", "--reason", "policy_denied", "--yes")
            status = await world.subscriber.expect("denied", event_id=event_id, state="running")
        finally:
            mended.kill()
        await desk.letters(0)

    assert (denied["state"], denied["reason"]) == ("failed", "policy_denied")
    assert (group["reason"], group["count"], group["tenant_id"]) == ("policy_denied", 1, "denied")
    assert (dry["outcome"], done["outcome"]) == ("would be replayed", "replayed")
    assert status["reason"] == "started"


async def test_an_event_that_is_still_bad_comes_back_once(world: World, desk: Desk) -> None:
    """With its replays counted, and without going round in circles."""
    event_id = await world.publisher.create(bad_document("still-bad"))
    other_id = await world.publisher.create(bad_document("other"))
    await desk.letters(2)

    done = desk.run("replay", "--id", event_id, "--rate", "100", "--yes")
    await asyncio.sleep(0.5)
    letters = {letter.event_id: letter for letter in await desk.letters(2)}

    assert [letter["outcome"] for letter in done] == ["replayed"]
    assert (letters[event_id].replays, letters[other_id].replays) == (1, 0)
    assert letters[event_id].reason == "invalid_event"


async def test_a_letter_can_be_read(world: World, desk: Desk) -> None:
    """By its id or its place: properties, headers, body; it stays where it is."""
    event_id = await world.publisher.create(bad_document("readable"))
    await desk.letters(1)

    (by_id,) = desk.run("show", event_id)
    (by_place,) = desk.run("show", "--position", "1")
    code, text = desk.say("show", event_id)

    assert by_id["body"] == by_place["body"] == json.dumps(bad_document("readable"))
    assert by_id["headers"]["landlord-reason"] == "invalid_event"  # type: ignore[index]  # a dict
    assert by_id["routing_key"] == "tenant.created"
    assert code == 0
    assert "headers.landlord-error: containers: docker provider requires exactly 1" in text
    await desk.letters(1)


async def test_a_letter_cannot_write_on_the_terminal(world: World, desk: Desk) -> None:
    """Control characters of a body are written out."""
    event_id = await world.publisher.publish("created", b"\x1b[2Jgone")
    await desk.letters(1)

    _, text = desk.say("show", event_id)
    _, listed = desk.say("list", "--each")

    assert "\\x1b[2Jgone" in text
    assert "\x1b" not in text + listed


async def test_a_letter_is_dropped_when_somebody_agrees(world: World, desk: Desk) -> None:
    """It asks on a terminal; without one it wants to be told."""
    event_id = await world.publisher.create(bad_document("dropped"))
    await desk.letters(1)

    unasked, said = desk.say("drop", "--id", event_id)
    no = desk.answer("n", "drop", "--id", event_id)
    await desk.letters(1)
    yes = desk.answer("y", "drop", "--id", event_id)
    gone, nothing = desk.say("show", event_id)

    assert (unasked, no, yes, gone) == (2, 1, 0, 1)
    assert "give --yes" in said
    assert "no such dead letter" in nothing
    await desk.letters(0)


BAD_EVENTS = 40
"""Many more than a full queue takes: that of a quorum queue is a soft limit."""


@pytest.mark.timeout(240)
async def test_a_full_dead_letter_queue_holds_up_no_good_event(
    world: World, broker: Broker, desk: Desk
) -> None:
    """Only what is refused waits, and readiness and metric say so; then each goes aside once."""
    names, limit = world.names, '{"max-length": 1, "overflow": "reject-publish"}'
    await world.run_tenant("served")
    begin = world.consumer.log_size
    broker.control("set_policy", "full", f"^{names.dead_letter}$", limit, "--apply-to", "queues")
    try:
        for number in range(BAD_EVENTS):
            await world.publisher.create(bad_document(f"bad-{number}"))
        await until(lambda: _is_held(world))
        refused_at = time.monotonic()
        served = await world.run_tenant("served", labels={"a": "b"})
        seconds = time.monotonic() - refused_at
        code, told = await world.consumer.http_get("/readyz")
        held = await world.consumer.metric("landlord_dead_letters")
        checked = desk.checks()["dead letters"]
        told_of = await world.clients.drain_dead_letters()
    finally:
        broker.control("clear_policy", "full")
    # It takes more once there is room: that is what the broker tells its publishers by.
    await until(world.is_ready, seconds=30)
    told_of |= await world.clients.drain_dead_letters()

    assert served["state"] == "running"
    assert seconds < 5
    assert code == 503
    trouble = json.loads(told)["components"]["dead_letters"]
    assert "refused events wait to be dead-lettered" in trouble
    assert held > 0
    assert checked["outcome"] == "wrong"
    assert "refused events wait to be dead-lettered" in str(checked["message"])
    assert len(told_of) == BAD_EVENTS
    assert "broker session lost" not in world.consumer.log_text(begin=begin)


async def _is_held(world: World) -> bool:
    return not await world.is_ready()
