"""Dead letters: they hold up nobody but themselves, within a bound, and none is lost or doubled."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest

from consumer.dead_letters import DeadLetters
from consumer.messages import DeadLetter, Delivery
from consumer.metrics import Metrics
from tests.builders import make_delivery
from tests.fakes.broker import Entry, FakeBroker, Mode

pytestmark = [pytest.mark.asyncio, pytest.mark.looptime]


class Bench:
    """Dead letters on a broker in memory, which has handed their deliveries out."""

    def __init__(self, *, most_bytes: int = 1000) -> None:
        self.broker = FakeBroker()
        self.metrics = Metrics(version="test")
        self.letters = DeadLetters(
            deliveries=self.broker,
            publisher=self.broker,
            metrics=self.metrics,
            most_bytes=most_bytes,
            side_by_side=4,
        )

    async def take(self, *deliveries: Delivery) -> None:
        """Have these delivered and refused."""
        self.broker.deliver(*deliveries)
        taken = await self.broker.next_batch(limit=len(deliveries))
        await self.letters.take([DeadLetter(delivery=it, headers={}) for it in taken])

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        task = asyncio.create_task(self.letters.run())
        yield
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    @property
    def gauge(self) -> float | None:
        return self.metrics.registry.get_sample_value("landlord_dead_letters")


def bad(tags: Sequence[int], *, size: int = 10, ids: Sequence[str | None] = ()) -> list[Delivery]:
    """Return deliveries that nobody can read, each with an id of its own if none is given."""
    named = ids or [f"event-{tag}" for tag in tags]
    pairs = zip(tags, named, strict=True)
    return [make_delivery(tag, body=b"x" * size, message_id=name) for tag, name in pairs]


@pytest.mark.parametrize(
    ("ids", "at_once"),
    [
        pytest.param(["a", "b", "c"], 3, id="each has its own"),
        pytest.param([None, None, None], 3, id="none has one"),
        pytest.param(["a", "b", "a"], 3, id="one comes twice"),
        pytest.param(["a", "b", "c", "d", "e"], 4, id="more than go side by side"),
    ],
)
async def test_they_go_side_by_side(ids: list[str | None], at_once: int) -> None:
    """None waits for the confirm of another, whatever its message id."""
    bench = Bench()
    bench.broker.mode = Mode.HANG

    async with bench.running():
        await bench.take(*bad(range(1, len(ids) + 1), ids=ids))
        await asyncio.sleep(1)
        tries = bench.broker.tries
        bench.broker.released.set()
        await bench.letters.drain()
        await asyncio.sleep(0)

    assert tries == at_once
    assert len(bench.broker.dead_letters) == len(ids)
    assert bench.broker.unsettled == []


async def test_a_dead_letter_is_confirmed_before_the_ack() -> None:
    """Its delivery stays unsettled until the broker has it, and is settled once."""
    bench = Bench()
    bench.broker.mode = Mode.FULL

    async with bench.running():
        await bench.take(*bad([1]))
        await asyncio.sleep(60)
        unsettled, gauge = bench.broker.unsettled, bench.gauge
        bench.broker.mode = Mode.CONFIRM
        await asyncio.sleep(10.1)

    assert (unsettled, gauge) == ([1], 1)
    assert bench.broker.journal == [Entry("dead letter", "1"), Entry("ack", "1")]
    assert bench.broker.unsettled == []


async def test_the_gauge_has_those_in_the_queue_too() -> None:
    """As they were last counted: soon after one was added, and now and then."""
    bench = Bench()
    bench.broker.mode = Mode.FULL

    async with bench.running():
        await bench.take(*bad([1, 2]))
        await asyncio.sleep(1)
        held = bench.gauge
        bench.broker.mode = Mode.CONFIRM
        await asyncio.sleep(3)
        added = bench.gauge
        bench.broker.dead_letters.clear()
        await asyncio.sleep(10.1)
        taken_out = bench.gauge

    assert (held, added, taken_out) == (2, 2, 0)


async def test_a_queue_that_refuses_is_tried_now_and_then() -> None:
    """However many wait, one is tried at a time, ever more seldom; then all go at once."""
    bench = Bench()
    bench.broker.mode = Mode.FULL

    async with bench.running():
        await bench.take(*bad(range(1, 31)))
        await asyncio.sleep(600)
        tries, trouble = bench.broker.tries, bench.letters.trouble
        bench.broker.mode = Mode.CONFIRM
        await asyncio.sleep(10.1)

    assert 50 < tries < 80
    assert trouble == (
        "30 refused events wait to be dead-lettered: landlord.dead-letter takes no message: nack"
    )
    assert len(bench.broker.dead_letters) == 30
    assert bench.letters.trouble is None


async def test_one_letter_that_is_never_taken_holds_up_no_other() -> None:
    """It goes behind the others each time."""
    bench = Bench()
    bench.broker.refused_tags = {1}

    async with bench.running():
        await bench.take(*bad(range(1, 7)))
        await asyncio.sleep(60)

    assert bench.broker.unsettled == [1]
    assert bench.letters.held == 1


async def test_a_fault_over_one_letter_holds_up_no_other() -> None:
    """What nobody foresaw about one is counted and told, and the others go."""
    bench = Bench()
    bench.broker.broken_tags = {1}

    async with bench.running():
        await bench.take(*bad([1, 2]))
        await asyncio.sleep(1)
        trouble = bench.letters.trouble

    assert bench.broker.unsettled == [1]
    assert "a fault of ours: KeyError at" in str(trouble)
    faults = bench.metrics.registry.get_sample_value(
        "landlord_faults_total", {"part": "dead letters"}
    )
    assert faults
    assert faults >= 1


async def test_what_is_held_is_bounded_in_bytes() -> None:
    """Beyond the bound whoever hands over waits, and readiness says so; then it goes on."""
    bench = Bench(most_bytes=100)
    bench.broker.mode = Mode.FULL

    async with bench.running():
        await bench.take(*bad([1], size=100))
        taking = asyncio.create_task(bench.take(*bad([2], size=1)))
        await asyncio.sleep(60)
        is_waiting, trouble = not taking.done(), bench.letters.trouble
        bench.broker.mode = Mode.CONFIRM
        await taking

    assert is_waiting
    assert str(trouble).endswith("; no more events are taken in")


async def test_what_came_by_a_lost_session_is_left_to_its_redelivery() -> None:
    """One dead letter comes of it, not two, and it is not held in memory twice."""
    bench = Bench()
    bench.broker.mode = Mode.FULL

    async with bench.running():
        await bench.take(*bad([1]))
        await asyncio.sleep(1)
        bench.broker.reconnect()
        (again,) = await bench.broker.next_batch(limit=9)
        await bench.letters.take([DeadLetter(delivery=again, headers={})])
        bench.broker.mode = Mode.CONFIRM
        await asyncio.sleep(10.1)

    assert [letter.delivery.session for letter in bench.broker.dead_letters] == [2]
    assert [delivery.session for delivery in bench.broker.let_go] == [1, 2], "neither is held"
    assert bench.broker.unsettled == []


async def test_what_is_under_way_while_its_session_is_lost_is_left_to_it_as_well() -> None:
    """The broker does not answer, and the other connection is lost meanwhile."""
    bench = Bench()
    bench.broker.mode = Mode.HANG

    async with bench.running():
        await bench.take(*bad([1]))
        await asyncio.sleep(1)
        bench.broker.reconnect()
        (again,) = await bench.broker.next_batch(limit=9)
        await bench.letters.take([DeadLetter(delivery=again, headers={})])
        bench.broker.mode = Mode.LOSE_CONFIRM
        bench.broker.released.set()
        await asyncio.sleep(1)
        bench.broker.mode = Mode.CONFIRM
        await asyncio.sleep(10.1)

    assert [letter.delivery.session for letter in bench.broker.dead_letters] == [2]
    assert [delivery.session for delivery in bench.broker.let_go] == [1, 2], "neither is held"
    assert (bench.letters.held, bench.broker.unsettled) == (0, [])


@pytest.mark.parametrize("mode", [Mode.CONFIRM, Mode.FULL])
async def test_a_drain_ends_when_each_was_tried(mode: Mode) -> None:
    """What is not taken comes again with the next start; the stop does not wait for it."""
    bench = Bench()
    bench.broker.mode = mode
    began = asyncio.get_running_loop().time()

    async with bench.running():
        await bench.take(*bad(range(1, 7)))
        await bench.letters.drain()

    assert asyncio.get_running_loop().time() - began < 0.1
    assert repr(bench.letters).startswith("<DeadLetters waiting=")
