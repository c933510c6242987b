"""AMQP messages become deliveries, and deliveries messages again.

Shared by the consumer's own sessions (`rabbitmq`) and by what an operator does with dead letters
(`rabbitmq_letters`). But for `consume`, nothing here talks to the broker.
"""

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Final

import aio_pika
from aio_pika.abc import AbstractChannel
from aiormq.abc import DeliveredMessage
from pamqp import encode

from consumer.errors import BrokerError
from consumer.letters import Original
from consumer.messages import DeadLetter, Delivery

_MOST_HEADER_BYTES: Final = 120_000
"""A header frame cannot be split, and one beyond frame_max (131072) ends the whole connection."""


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


def as_delivery(message: DeliveredMessage, session: int, received_at: datetime) -> Delivery:
    """Return the message as the delivery that it is."""
    told = message.header.properties
    properties: dict[str, object] = {
        "content_type": told.content_type,
        "content_encoding": told.content_encoding,
        "priority": told.priority,
        "correlation_id": told.correlation_id,
        "reply_to": told.reply_to,
        "expiration": _seconds(told.expiration),
        "message_id": told.message_id,
        "timestamp": told.timestamp,
        "type": told.message_type,
        "user_id": told.user_id,
        "app_id": told.app_id,
    }
    if message.delivery_tag is None:
        raise BrokerError("a delivery without a tag")
    return Delivery(
        body=message.body,
        tag=message.delivery_tag,
        session=session,
        received_at=received_at,
        routing_key=message.routing_key or "",
        exchange=message.exchange or "",
        redelivered=bool(message.redelivered),
        headers=dict(told.headers or {}),
        properties={name: value for name, value in properties.items() if value is not None},
        content_type=told.content_type,
        message_id=told.message_id,
        event_type=told.message_type,
        correlation_id=told.correlation_id,
    )


def _seconds(milliseconds: str | None) -> float | None:
    return None if milliseconds is None else int(milliseconds) / 1000


def as_letter(letter: DeadLetter) -> aio_pika.Message:
    """Return the delivery as it came, with the new headers.

    Two properties move to headers, because the broker would act upon them: `expiration` would let
    the dead letter expire, `user_id` has to be the login of whoever publishes.
    """
    delivery = letter.delivery
    kept = dict(delivery.properties)
    added: dict[str, object] = {
        **letter.headers,
        "landlord-exchange": delivery.exchange,
        "landlord-routing-key": delivery.routing_key,
    }
    for name in ("expiration", "user_id"):
        value = kept.pop(name, None)
        if value is not None:
            added[f"landlord-original-{name.replace('_', '-')}"] = str(value)
    return aio_pika.Message(
        delivery.body,
        headers=_fitting({**delivery.headers, **added}, added),  # type: ignore[arg-type]  # field values
        delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
        **kept,  # type: ignore[arg-type]  # each came out of a message under the same name
    )


def _fitting(headers: Mapping[str, object], added: Mapping[str, object]) -> dict[str, object]:
    """Return the headers, or only our own with a note when all together are too long to send."""
    size = len(encode.field_table(dict(headers)))  # type: ignore[arg-type]  # field values
    if size <= _MOST_HEADER_BYTES:
        return dict(headers)
    return {**added, "landlord-headers-dropped": f"{size} bytes of headers are too long to send"}


def as_message(original: Original) -> aio_pika.Message:
    """Return it as it is to be published; `user_id` was set aside when it was dead-lettered."""
    return aio_pika.Message(
        original.body,
        headers=dict(original.headers),  # type: ignore[arg-type]  # field values
        delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
        **{name: value for name, value in original.properties.items() if name != "user_id"},  # type: ignore[arg-type]  # as above
    )
