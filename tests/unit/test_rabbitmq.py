"""Whatever comes by a session is handed out and let go of, on every path. Without a broker."""

import asyncio
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Protocol

import pytest
from aiormq.abc import DeliveredMessage
from pamqp.commands import Basic
from pamqp.header import ContentHeader

from consumer.adapters.rabbitmq import RabbitMQ, _Intake
from consumer.adapters.rabbitmq_frames import weight
from consumer.adapters.rabbitmq_topology import BrokerLink, Topology
from consumer.content_header import bytes_entry, join, table_of
from consumer.messages import Delivery
from tests.builders import MOMENT
from tests.faults.frames import RawMessage, raw_message

MESSAGES = [raw_message(seed) for seed in range(400)]


class AckChannel:
    """A channel that acks are sent by."""

    def __init__(self) -> None:
        self.acked: list[tuple[int, bool]] = []

    async def get_underlay_channel(self) -> "AckChannel":
        return self

    async def basic_ack(self, tag: int, *, multiple: bool) -> None:
        self.acked.append((tag, multiple))


def adapter(now: Callable[[], datetime] = lambda: MOMENT) -> RabbitMQ:
    """Return an adapter that is not connected."""
    return RabbitMQ(
        link=BrokerLink(url="amqp://127.0.0.1"),
        topology=Topology(),
        source="/test",
        now=now,
        on_change=lambda _: None,
    )


def open_session(
    broker: RabbitMQ, number: int = 1
) -> tuple[Callable[[DeliveredMessage], None], _Intake]:
    """Have a session; return what takes its messages."""
    session = _Intake(number, AckChannel(), broker._new_share(), {})  # type: ignore[arg-type]  # acks alone
    broker._intake = session
    lost = asyncio.get_running_loop().create_future()
    return broker._taker(session, lost), session


def arrived(tag: int, message: RawMessage, session: _Intake) -> DeliveredMessage:
    """Return the message as the library hands it over, room for it taken."""
    passed = join({"headers": table_of([bytes_entry("raw", message.properties)])})
    header = ContentHeader()
    header.unmarshal(b"\0\x3c\0\0" + bytes(8) + passed)
    body = b"".join(message.body)
    session.share.take(weight(len(body), len(message.properties)))
    method = Basic.Deliver("c", tag, False, "landlord.tenants", "tenant.created")
    return DeliveredMessage(delivery=method, header=header, body=body, channel=None)  # type: ignore[arg-type]


async def taken(broker: RabbitMQ, count: int) -> list[Delivery]:
    """Take so many deliveries."""
    found: list[Delivery] = []
    while len(found) < count:
        found += await broker.next_batch(limit=7)
    return found


class Path(Protocol):
    """What becomes of deliveries that were handed out."""

    async def __call__(self, broker: RabbitMQ, found: Sequence[Delivery]) -> None: ...


async def all_at_once(broker: RabbitMQ, found: Sequence[Delivery]) -> None:
    """Recorded, duplicate or stale: the whole batch."""
    await broker.ack(found)


async def one_by_one_from_behind(broker: RabbitMQ, found: Sequence[Delivery]) -> None:
    """Dead-lettered: each when its letter is confirmed."""
    for delivery in reversed(found):
        await broker.ack([delivery])


async def after_the_session(broker: RabbitMQ, found: Sequence[Delivery]) -> None:
    """The session was lost meanwhile; the broker delivers them again."""
    broker._intake = None
    await broker.ack(found)


async def in_another_session(broker: RabbitMQ, found: Sequence[Delivery]) -> None:
    """And the next one is there already, with the same tags."""
    open_session(broker, 2)
    await broker.ack(found)


async def while_stopping(broker: RabbitMQ, found: Sequence[Delivery]) -> None:
    """Nothing more is taken, and what was is settled in peace."""
    await broker.stop_taking()
    await broker.ack(found)


async def twice(broker: RabbitMQ, found: Sequence[Delivery]) -> None:
    """Which is no error."""
    await broker.ack(found)
    await broker.ack(found)


@pytest.mark.parametrize(
    "path",
    [
        all_at_once,
        one_by_one_from_behind,
        after_the_session,
        in_another_session,
        while_stopping,
        twice,
    ],
)
async def test_whatever_comes_is_handed_out_and_let_go_of(path: Path) -> None:
    """Every message of the fuzzer, sound or broken, on every path; nothing weighs on afterwards."""
    broker = adapter()
    take, session = open_session(broker)

    for tag, message in enumerate(MESSAGES, 1):
        take(arrived(tag, message, session))
    found = await taken(broker, len(MESSAGES))
    held = broker._in_flight.held
    await path(broker, found)

    assert [delivery.tag for delivery in found] == list(range(1, len(MESSAGES) + 1))
    assert [delivery.raw_properties for delivery in found] == [it.properties for it in MESSAGES]
    assert held == sum(weight(len(it.body), len(it.raw_properties)) for it in found)
    assert broker._in_flight.held == 0


async def test_what_nobody_took_is_let_go_of_with_its_session() -> None:
    """The rest, once it is settled."""
    broker = adapter()
    take, session = open_session(broker)
    for tag, message in enumerate(MESSAGES[:20], 1):
        take(arrived(tag, message, session))

    found = await broker.next_batch(limit=5)
    session.share.close()
    of_found = broker._in_flight.held
    await broker.ack(found)

    assert of_found == sum(weight(len(it.body), len(it.raw_properties)) for it in found)
    assert broker._in_flight.held == 0


async def test_who_waits_for_a_batch_is_woken_by_the_first_message() -> None:
    """However odd it is."""
    broker = adapter()
    take, session = open_session(broker)
    waiting = asyncio.create_task(broker.next_batch(limit=5))
    await asyncio.sleep(0)

    take(arrived(1, RawMessage(b"\xff", (), is_sound=False), session))

    (delivery,) = await waiting
    assert delivery.faults


async def test_a_message_that_is_lost_on_its_way_in_ends_its_session() -> None:
    """By a fault that nobody foresaw: it comes again, and what is behind it waits for no gap."""

    def now() -> datetime:
        raise KeyError("s3cr3t")

    broker = adapter(now)
    session = _Intake(1, AckChannel(), broker._new_share(), {})  # type: ignore[arg-type]  # acks alone
    lost: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    take = broker._taker(session, lost)

    for tag, message in enumerate(MESSAGES[:2], 1):
        take(arrived(tag, message, session))

    assert lost.result().startswith("a fault of ours: KeyError at")
    assert "s3cr3t" not in lost.result()
