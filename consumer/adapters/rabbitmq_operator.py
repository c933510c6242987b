"""What a person does with the broker from the command line: publish, watch, deal with dead letters.

Each call has a connection of its own and none disturbs a running consumer. Before it comes `cli`.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

import aio_pika
from aio_pika.abc import AbstractIncomingMessage
from aio_pika.exceptions import DeliveryError

from consumer.adapters.rabbitmq_topology import BrokerLink, Topology, connect, translated
from consumer.errors import BrokerError
from consumer.model import EventKind

_NAME: Final = "landlord-consumer-cli"


@dataclass(frozen=True, slots=True, kw_only=True)
class OutgoingEvent:
    """A tenant event to be published as it is."""

    kind: EventKind
    body: bytes
    content_type: str
    event_id: str


async def publish_tenant_event(link: BrokerLink, topology: Topology, event: OutgoingEvent) -> None:
    """Publish the event; return when the broker has confirmed it.

    Raises BrokerError, also when no queue is bound to take it.
    """
    message = aio_pika.Message(
        event.body,
        content_type=event.content_type,
        message_id=event.event_id,
        type=event.kind.value,
        delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
    )
    async with connect(link, _NAME) as connection:
        try:
            with translated(link):
                async with asyncio.timeout(link.call_seconds):
                    channel = await connection.channel(on_return_raises=True)
                    exchange = await channel.get_exchange(topology.tenant_exchange, ensure=False)
                    await exchange.publish(message, event.kind.value, mandatory=True)
        except BrokerError as error:
            if isinstance(error.__cause__, DeliveryError):
                place = topology.tenant_exchange
                raise BrokerError(
                    f"no queue takes it: nothing is bound to {place!r} for {event.kind.value}; "
                    "has the consumer ever run on this broker?"
                ) from error
            raise


@asynccontextmanager
async def watch_statuses(
    link: BrokerLink, topology: Topology
) -> AsyncIterator[AsyncIterator[bytes]]:
    """Give the bodies of status events as they come; on entering, none is missed any more."""
    arrived: asyncio.Queue[bytes | None] = asyncio.Queue()

    async def take(message: AbstractIncomingMessage) -> None:
        arrived.put_nowait(message.body)

    def on_close(_: object, __: BaseException | None) -> None:
        arrived.put_nowait(None)

    async def read() -> AsyncIterator[bytes]:
        while (body := await arrived.get()) is not None:
            yield body
        raise BrokerError(f"the connection to {link.place} was lost")

    async with connect(link, _NAME) as connection:
        with translated(link):
            async with asyncio.timeout(link.call_seconds):
                channel = await connection.channel()
                exchange = await channel.declare_exchange(
                    topology.status_exchange, aio_pika.ExchangeType.TOPIC, durable=True
                )
                queue = await channel.declare_queue(exclusive=True)
                await queue.bind(exchange, "#")
                await queue.consume(take, no_ack=True)
        connection.close_callbacks.add(on_close)
        channel.close_callbacks.add(on_close)
        yield read()
