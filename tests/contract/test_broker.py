"""What the broker's ports promise, in memory and on RabbitMQ."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from consumer.errors import BrokerError
from consumer.messages import Delivery
from consumer.model import State
from tests.contract.brokers import (
    BrokerUnderTest,
    FakeUnderTest,
    make_entry,
    make_letter,
    rabbit_under_test,
)


@pytest.fixture(params=["fake", pytest.param("rabbitmq", marks=pytest.mark.rabbitmq)])
async def subject(request: pytest.FixtureRequest) -> AsyncIterator[BrokerUnderTest]:
    """Give a broker that has nothing of ours yet."""
    if request.param == "fake":
        yield FakeUnderTest()
        return
    async with rabbit_under_test(request.getfixturevalue("broker")) as rabbit:
        yield rabbit


async def take(subject: BrokerUnderTest, count: int) -> list[Delivery]:
    """Take so many deliveries, in however many batches."""
    taken: list[Delivery] = []
    async with asyncio.timeout(10):
        while len(taken) < count:
            taken += await subject.ports.next_batch(limit=count - len(taken))
    return taken


async def test_deliveries_come_oldest_first(subject: BrokerUnderTest) -> None:
    """Whole, each with its own tag, all of one session."""
    await subject.send(b"1", b"2", b"3")

    taken = await take(subject, 3)

    assert [delivery.body for delivery in taken] == [b"1", b"2", b"3"]
    assert [delivery.tag for delivery in taken] == [1, 2, 3]
    assert {delivery.routing_key for delivery in taken} == {"tenant.created"}
    assert len({delivery.session for delivery in taken}) == 1


async def test_a_batch_has_no_more_than_was_asked_for(subject: BrokerUnderTest) -> None:
    """The rest comes with the next one."""
    await subject.send(*(b"%d" % number for number in range(5)))
    await asyncio.sleep(0.2)

    batches = [await subject.ports.next_batch(limit=2) for _ in range(3)]

    assert [len(batch) for batch in batches] == [2, 2, 1]


async def test_a_batch_waits_for_its_first_delivery(subject: BrokerUnderTest) -> None:
    """It is never empty while deliveries are taken."""
    waiting = asyncio.create_task(subject.ports.next_batch(limit=10))
    await asyncio.sleep(0.1)
    has_waited = not waiting.done()

    await subject.send(b"late")

    async with asyncio.timeout(10):
        assert [delivery.body for delivery in await waiting] == [b"late"]
    assert has_waited


async def test_who_waits_is_told_that_taking_has_stopped(subject: BrokerUnderTest) -> None:
    """The batch then has nothing, also every later one."""
    waiting = asyncio.create_task(subject.ports.next_batch(limit=10))
    await asyncio.sleep(0.05)

    await subject.stop_taking()

    async with asyncio.timeout(10):
        assert await waiting == []
        assert await subject.ports.next_batch(limit=10) == []


async def test_a_delivery_can_be_settled_after_taking_has_stopped(
    subject: BrokerUnderTest,
) -> None:
    """What was handed out is finished in peace."""
    await subject.send(b"1")
    (delivery,) = await take(subject, 1)
    await subject.stop_taking()

    await subject.ports.ack([delivery])

    assert await subject.left() == []


async def test_an_ack_settles_what_it_is_about_and_nothing_else(subject: BrokerUnderTest) -> None:
    """Neither what came before nor what came after, in whatever order it is told."""
    await subject.send(*(b"%d" % number for number in range(1, 8)))
    taken = await take(subject, 7)

    await subject.ports.ack([taken[3], taken[1]])
    await subject.ports.ack([taken[0]])
    async with asyncio.TaskGroup() as group:
        group.create_task(subject.ports.ack([taken[2]]))
        group.create_task(subject.ports.ack([taken[6], taken[3]]))

    assert await subject.left() == [b"5", b"6"]


async def test_an_ack_of_another_session_settles_nothing(subject: BrokerUnderTest) -> None:
    """It is no error: whatever it was about will be delivered again."""
    await subject.send(b"1")
    (delivery,) = await take(subject, 1)

    await subject.ports.ack([replace(delivery, session=delivery.session + 7)])

    assert await subject.left() == [b"1"]


async def test_nothing_is_settled_by_itself(subject: BrokerUnderTest) -> None:
    """What was taken and not acknowledged is there again after the session."""
    await subject.send(b"1", b"2")
    await take(subject, 2)

    assert await subject.left() == [b"1", b"2"]


async def test_status_events_arrive_in_order(subject: BrokerUnderTest) -> None:
    """Each with its body byte for byte, under the state's routing key."""
    entries = [make_entry(1), make_entry(2, State.FAILED), make_entry(3, State.STOPPED)]

    for entry in entries:
        await subject.ports.publish_status(entry)

    arrived = [await subject.next_status() for _ in entries]
    assert arrived == [
        (b'{"sequence": 1}', "tenant.status.running"),
        (b'{"sequence": 2}', "tenant.status.failed"),
        (b'{"sequence": 3}', "tenant.status.stopped"),
    ]


async def test_many_publishes_at_a_time_are_all_confirmed(subject: BrokerUnderTest) -> None:
    """Each waits for its own confirm."""
    async with asyncio.TaskGroup() as group:
        for number in range(50):
            group.create_task(subject.ports.publish_status(make_entry(number)))

    arrived = [(await subject.next_status())[0] for _ in range(50)]
    assert len(set(arrived)) == 50


async def test_a_dead_letter_arrives_with_its_reason(subject: BrokerUnderTest) -> None:
    """The body is as it came, the headers say why it is here."""
    letter = make_letter(b"\x00 not a document", landlord_reason="invalid_event")

    await subject.ports.publish_dead_letter(letter)

    count = await subject.ports.count_dead_letters()
    body, headers = await subject.next_dead_letter()
    assert count == 1
    assert body == b"\x00 not a document"
    assert headers["landlord-reason"] == "invalid_event"


async def test_what_is_not_confirmed_is_an_error(subject: BrokerUnderTest) -> None:
    """Whether it arrived is unknown, so both are told as failed."""
    await subject.lose_confirms()

    with pytest.raises(BrokerError):
        await subject.ports.publish_status(make_entry())
    with pytest.raises(BrokerError):
        await subject.ports.publish_dead_letter(make_letter(b"1"))
