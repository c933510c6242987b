"""AMQP messages become deliveries, and are sent as they came.

Shared by the consumer's own sessions (`rabbitmq`) and by what an operator does with dead letters
(`rabbitmq_letters`). `as_delivery` never fails, whatever came: a delivery that nobody gets is never
settled, and everything behind it waits for it.
"""

from collections.abc import Callable
from datetime import datetime
from typing import Final

import structlog
from aio_pika.abc import AbstractChannel, AbstractConnection
from aiormq.abc import ConfirmationFrameType, DeliveredMessage

from consumer.adapters.rabbitmq_frames import RawProperties, Received, received
from consumer.content_header import read
from consumer.errors import Fault
from consumer.messages import Delivery

_log: Final = structlog.get_logger(__name__)

_FRAME_MAX: Final = 131_072
"""What RabbitMQ proposes; of a header frame eight bytes are around the header itself."""
_AROUND_FRAME: Final = 8
_BEFORE_PROPERTIES: Final = 12


async def consume(
    channel: AbstractChannel, queue: str, take: Callable[[DeliveredMessage], None]
) -> str:
    """Have `take` called with each message as it comes; return the consumer tag.

    On the channel beneath the library's own: that one makes an object of twenty attributes and one
    more task of each message, a third of what receiving it costs.
    """

    async def call(message: DeliveredMessage) -> None:
        take(message)

    underlay = await channel.get_underlay_channel()
    answer = await underlay.basic_consume(queue, call)
    return str(answer.consumer_tag)


async def publish(
    channel: AbstractChannel, exchange: str, routing_key: str, body: bytes, properties: bytes
) -> ConfirmationFrameType | None:
    """Publish a message with these properties as they are; a message that no queue takes raises."""
    underlay = await channel.get_underlay_channel()
    return await underlay.basic_publish(
        body,
        exchange=exchange,
        routing_key=routing_key,
        properties=RawProperties(properties),
        mandatory=True,
    )


def most_properties(connection: AbstractConnection) -> int:
    """Return how many bytes of properties the broker takes: their frame cannot be split."""
    transport = connection.transport
    tune = None if transport is None else transport.connection.connection_tune
    frame_max = (tune.frame_max if tune is not None else 0) or _FRAME_MAX
    return frame_max - _AROUND_FRAME - _BEFORE_PROPERTIES


def as_delivery(message: DeliveredMessage, session: int, received_at: datetime) -> Delivery:
    """Return the message as the delivery that it is; what of it cannot be read is told as such."""
    came = received(message)
    try:
        return _readable(message, came, session, received_at)
    except Exception as error:  # noqa: BLE001 - whatever it is, the delivery has to be settled
        _log.exception("message not read", tag=message.delivery_tag)
        return Delivery(
            body=message.body,
            tag=message.delivery_tag or 0,
            session=session,
            received_at=received_at,
            routing_key=message.routing_key or "",
            headers={},
            properties={},
            raw_properties=came.raw,
            faults=(Fault("properties", f"cannot be read ({type(error).__name__})"),),
        )


def _readable(
    message: DeliveredMessage, came: Received, session: int, received_at: datetime
) -> Delivery:
    told = read(came.raw)
    names = (("exchange", came.exchange), ("routing_key", came.routing_key))
    odd = tuple(Fault(name, "is not UTF-8") for name, value in names if value is not None)
    return Delivery(
        body=message.body,
        tag=message.delivery_tag or 0,
        session=session,
        received_at=received_at,
        routing_key=_as_text(came.routing_key, message.routing_key),
        exchange=_as_text(came.exchange, message.exchange),
        redelivered=bool(message.redelivered),
        headers=told.headers,
        properties=told.values,
        raw_properties=came.raw,
        faults=odd + told.faults,
        content_type=told.text("content_type"),
        message_id=told.text("message_id"),
        event_type=told.text("type"),
        correlation_id=told.text("correlation_id"),
    )


def _as_text(odd: bytes | None, text: str | None) -> str:
    return (text or "") if odd is None else odd.decode("utf-8", "backslashreplace")
