"""Brokers under test, each with its other side: who sends tenant events, what became of ours."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Final, Protocol
from uuid import uuid4

import aio_pika
from aio_pika.abc import AbstractChannel, AbstractIncomingMessage, AbstractQueue

from consumer.adapters.rabbitmq import RabbitMQ, Retry
from consumer.adapters.rabbitmq_topology import BrokerLink, Topology
from consumer.errors import TopologyMismatch
from consumer.messages import DeadLetter, Delivery
from consumer.model import OutboxEntry, State
from consumer.ports import Deliveries, Publisher
from deploy.lab.names import Names, remove_names
from deploy.lab.servers import Broker
from tests.builders import MOMENT, TENANT_ID
from tests.fakes.broker import FakeBroker, Mode

CALL_SECONDS: Final = 5.0
RETRY: Final = Retry(least_seconds=0.05, most_seconds=0.2)
_LOOK_SECONDS: Final = 0.02
_QUIET_SECONDS: Final = 0.3
"""Nothing more comes after such a silence."""


class BrokerPorts(Deliveries, Publisher, Protocol):
    """Both ports in one, as both brokers have them."""


class BrokerUnderTest(Protocol):
    """A broker, and what stands on its other side."""

    @property
    def ports(self) -> BrokerPorts: ...

    async def send(self, *bodies: bytes) -> None:
        """Have tenant events with these bodies arrive."""
        ...

    async def stop_taking(self) -> None: ...

    async def left(self) -> list[bytes]:
        """End the session; return the bodies of what is not settled, oldest first."""
        ...

    async def next_status(self) -> tuple[bytes, str]:
        """Return body and routing key of the next status event that arrived."""
        ...

    async def next_dead_letter(self) -> tuple[bytes, Mapping[str, object]]:
        """Return body and headers of the next dead letter that arrived."""
        ...

    async def lose_confirms(self) -> None:
        """Have publishes fail from now on."""
        ...


def make_entry(number: int = 1, state: State = State.RUNNING) -> OutboxEntry:
    """Return a status event on its way out."""
    return OutboxEntry(
        entry_id=number,
        tenant_id=TENANT_ID,
        sequence=number,
        state=state,
        body=f'{{"sequence": {number}}}',
        created_at=MOMENT,
        correlation_id="correlation-1",
        traceparent=None,
    )


def make_delivery(tag: int, body: bytes, *, session: int = 1) -> Delivery:
    """Return a delivery of a tenant event."""
    return Delivery(
        body=body,
        tag=tag,
        session=session,
        received_at=MOMENT,
        routing_key="tenant.created",
        headers={},
        properties={},
    )


class FakeUnderTest:
    """The broker in memory."""

    def __init__(self) -> None:
        self.ports = FakeBroker()
        self._sent: list[bytes] = []
        self._statuses = 0
        self._letters = 0

    async def send(self, *bodies: bytes) -> None:
        tags = range(len(self._sent) + 1, len(self._sent) + len(bodies) + 1)
        self._sent += bodies
        self.ports.deliver(*map(make_delivery, tags, bodies))

    async def stop_taking(self) -> None:
        self.ports.stop_taking()

    async def left(self) -> list[bytes]:
        return [self._sent[tag - 1] for tag in self.ports.unsettled]

    async def next_status(self) -> tuple[bytes, str]:
        entry = self.ports.arrived[self._statuses]
        self._statuses += 1
        return entry.body.encode(), f"tenant.status.{entry.state.value}"

    async def next_dead_letter(self) -> tuple[bytes, Mapping[str, object]]:
        letter = self.ports.dead_letters[self._letters]
        self._letters += 1
        return letter.delivery.body, letter.headers

    async def lose_confirms(self) -> None:
        self.ports.mode = Mode.LOSE_CONFIRM


class OtherSide:
    """What another program sees of the broker, under one set of names."""

    def __init__(self, channel: AbstractChannel, names: Names) -> None:
        self.channel = channel
        self.names = names
        self._heard: deque[AbstractIncomingMessage] = deque()

    async def subscribe(self) -> None:
        """Hear status events from now on; the exchange has to be there."""
        queue = await self.channel.declare_queue(exclusive=True)
        await queue.bind(self.names.status_exchange, "#")
        await queue.consume(self._hear, no_ack=True)

    async def _hear(self, message: AbstractIncomingMessage) -> None:
        self._heard.append(message)

    async def send(self, *bodies: bytes, routing_key: str = "tenant.created") -> None:
        """Publish tenant events; each has to find a queue."""
        exchange = await self.channel.get_exchange(self.names.tenant_exchange, ensure=False)
        for body in bodies:
            message = aio_pika.Message(
                body, message_id=uuid4().hex, delivery_mode=aio_pika.DeliveryMode.PERSISTENT
            )
            await exchange.publish(message, routing_key, timeout=CALL_SECONDS)

    async def next_status(self) -> AbstractIncomingMessage:
        """Return the next status event."""
        await until(lambda: bool(self._heard))
        return self._heard.popleft()

    @property
    def has_heard(self) -> bool:
        return bool(self._heard)

    async def queue(self, name: str) -> AbstractQueue:
        return await self.channel.get_queue(name, ensure=False)

    async def take(self, name: str) -> AbstractIncomingMessage:
        """Take the next message of a queue."""
        queue = await self.queue(name)
        async with asyncio.timeout(10):
            while True:
                message = await queue.get(no_ack=True, fail=False)
                if message is not None:
                    return message
                await asyncio.sleep(_LOOK_SECONDS)

    async def drained(self, name: str) -> list[bytes]:
        """Take all messages of a queue that nobody else consumes from."""
        queue, bodies = await self.queue(name), list[bytes]()

        async def keep(message: AbstractIncomingMessage) -> None:
            bodies.append(message.body)

        # Not `get`: a queue with a single active consumer refuses it.
        tag = await queue.consume(keep, no_ack=True)
        await asyncio.sleep(_QUIET_SECONDS)
        await queue.cancel(tag)
        return bodies


@asynccontextmanager
async def other_side(url: str, names: Names) -> AsyncIterator[OtherSide]:
    """Connect to the broker for the length of the block."""
    connection = await aio_pika.connect(url, timeout=CALL_SECONDS)
    async with connection:
        channel = await connection.channel(publisher_confirms=True, on_return_raises=True)
        yield OtherSide(channel, names)


async def until(is_so: Callable[[], bool], *, seconds: float = 10.0) -> None:
    """Wait until it is so."""
    async with asyncio.timeout(seconds):
        while not is_so():  # noqa: ASYNC110 - what is waited for happens outside of this process
            await asyncio.sleep(_LOOK_SECONDS)


def fresh_names() -> Names:
    """Return names that nobody else has."""
    return Names(f"ll-{uuid4().hex[:8]}")


def topology_of(names: Names) -> Topology:
    """Return the names as the adapter takes them."""
    return Topology(
        tenant_exchange=names.tenant_exchange,
        queue=names.queue,
        status_exchange=names.status_exchange,
        dead_letter=names.dead_letter,
    )


def make_adapter(
    url: str,
    names: Names,
    *,
    prefetch: int = 500,
    is_declaring: bool = True,
    heartbeat_seconds: int = 10,
    call_seconds: float = CALL_SECONDS,
) -> RabbitMQ:
    """Return the adapter for these names, not yet running."""
    return RabbitMQ(
        link=BrokerLink(url=url, heartbeat_seconds=heartbeat_seconds, call_seconds=call_seconds),
        topology=topology_of(names),
        source="/landlord-consumer/test",
        now=lambda: datetime.now(UTC),
        on_change=lambda _is_up: None,
        prefetch=prefetch,
        is_declaring=is_declaring,
        retry=RETRY,
    )


def make_narrow_adapter(
    url: str, names: Names, *, most_bytes: int, pause_seconds: float = 10.0
) -> RabbitMQ:
    """Return an adapter that holds few bytes, and asks for more as soon as messages are small."""
    return RabbitMQ(
        link=BrokerLink(url=url, heartbeat_seconds=1, call_seconds=CALL_SECONDS),
        topology=topology_of(names),
        source="/landlord-consumer/test",
        now=lambda: datetime.now(UTC),
        on_change=lambda _is_up: None,
        most_in_flight_bytes=most_bytes,
        pause_seconds=pause_seconds,
        window_seconds=1.0,
        retry=RETRY,
    )


@asynccontextmanager
async def running(adapter: RabbitMQ) -> AsyncIterator[RabbitMQ]:
    """Keep the adapter's sessions up for the length of the block."""
    task = asyncio.create_task(adapter.run())
    try:
        await until(lambda: adapter.trouble is None or task.done())
        yield adapter
    finally:
        task.cancel()
        await asyncio.wait((task,))


class RabbitUnderTest:
    """A RabbitMQ node."""

    def __init__(
        self, ports: RabbitMQ, side: OtherSide, end_session: Callable[[], Awaitable[object]]
    ) -> None:
        self.ports = ports
        self._side = side
        self._end_session = end_session

    async def send(self, *bodies: bytes) -> None:
        await self._side.send(*bodies)

    async def stop_taking(self) -> None:
        await self.ports.stop_taking()

    async def left(self) -> list[bytes]:
        await self._end_session()
        return await self._side.drained(self._side.names.queue)

    async def next_status(self) -> tuple[bytes, str]:
        message = await self._side.next_status()
        return message.body, message.routing_key or ""

    async def next_dead_letter(self) -> tuple[bytes, Mapping[str, object]]:
        message = await self._side.take(self._side.names.dead_letter)
        return message.body, message.headers

    async def lose_confirms(self) -> None:
        for name in (self._side.names.status_exchange, self._side.names.dead_letter):
            await self._side.channel.exchange_delete(name)


@asynccontextmanager
async def rabbit_under_test(broker: Broker) -> AsyncIterator[RabbitUnderTest]:
    """Give an adapter with names of its own; take away what it declared."""
    names = fresh_names()
    adapter = make_adapter(broker.url, names)
    task = asyncio.create_task(adapter.run())

    async def end_session() -> None:
        task.cancel()
        await asyncio.wait((task,))

    try:
        await until(lambda: adapter.trouble is None)
        async with other_side(broker.url, names) as side:
            await side.subscribe()
            yield RabbitUnderTest(adapter, side, end_session)
    finally:
        await end_session()
        await remove_names(broker.url, names)


def make_letter(body: bytes, **headers: str) -> DeadLetter:
    """Return a dead letter with these headers, dashes for underscores."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return DeadLetter(delivery=make_delivery(1, body), headers=named)


async def mismatch(adapter: RabbitMQ) -> str:
    """Return what a start is refused with."""
    found: TopologyMismatch | None = None
    try:
        async with asyncio.timeout(10):
            await adapter.run()
    except* TopologyMismatch as failures:
        (first, *_) = failures.exceptions
        assert isinstance(first, TopologyMismatch)
        found = first
    assert found is not None
    return str(found)
