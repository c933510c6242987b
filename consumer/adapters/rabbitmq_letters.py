"""What an operator does with dead letters: look at them, put them back, drop them.

Letters are taken by one consumer without acks and go back to where they lay when its channel is
closed, in their order; only what was replayed or dropped is acknowledged. Meanwhile nobody else
sees them. A replay is acknowledged after the broker has confirmed that a queue took the original:
whoever is killed in between leaves it there twice, never lost. What arrives after the look began is
left alone, so that a letter which comes back is not replayed again by the same command. What is
published goes by a connection of its own, which is opened anew when the broker ends it over a
letter: that one stays, and the others pass.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import replace
from typing import Final

from aio_pika.abc import (
    AbstractChannel,
    AbstractConnection,
    AbstractQueue,
)
from aio_pika.exceptions import AMQPError, ChannelNotFoundEntity, DeliveryError
from aiormq.abc import DeliveredMessage

from consumer.adapters.rabbitmq_messages import as_delivery, consume, most_properties, publish
from consumer.adapters.rabbitmq_topology import BrokerLink, Topology, connect, translated
from consumer.clock import utc_now
from consumer.content_header import Malformed
from consumer.errors import BrokerError, MessageRefused
from consumer.letters import (
    Letter,
    Original,
    original,
    read_letter,
    renewed,
    unread_letter,
)
from consumer.messages import Delivery

_NAME: Final = "landlord-consumer-cli"
_QUIET_SECONDS: Final = 5.0
"""Of what the broker counted, nothing more comes after such a silence: somebody else has it."""
_MOST_PREFETCH: Final = 65_535
_LONGEST_KEY: Final = 255
_MOST_BYTES: Final = 256 * 1024 * 1024


class _Outlet:
    """The way out: a connection that is opened when it is needed, and again when it was lost."""

    def __init__(self, link: BrokerLink) -> None:
        self._link = link
        self._open = AsyncExitStack()
        self._channel: AbstractChannel | None = None
        self._most_properties = 0

    async def publish(self, message: Original, exchange: str, routing_key: str) -> None:
        """Return when a queue has it.

        Raises MessageRefused when the broker does not take this message, by whatever answer, and
        BrokerError when there is no broker.
        """
        channel = await self._opened()
        if len(message.properties) > self._most_properties:
            raise MessageRefused("its headers are too long to send")
        try:
            with translated(self._link):
                async with asyncio.timeout(self._link.call_seconds):
                    await publish(channel, exchange, routing_key, message.body, message.properties)
        except BrokerError as error:
            if isinstance(error.__cause__, DeliveryError):
                raise MessageRefused(
                    f"no queue takes it: {exchange or 'the default exchange'!r} for {routing_key!r}"
                ) from error
            if isinstance(error.__cause__, AMQPError | asyncio.CancelledError):
                raise MessageRefused(f"the broker broke off over it: {error}") from error
            raise

    async def _opened(self) -> AbstractChannel:
        if self._channel is not None and not self._channel.is_closed:
            return self._channel
        await self.close()
        connection = await self._open.enter_async_context(connect(self._link, _NAME))
        with translated(self._link):
            async with asyncio.timeout(self._link.call_seconds):
                channel = await connection.channel(publisher_confirms=True, on_return_raises=True)
        self._most_properties = most_properties(connection)
        self._channel = channel
        return channel

    async def close(self) -> None:
        """Let go of the connection."""
        self._channel = None
        await self._open.aclose()


class HeldLetters:
    """Dead letters in our hands: nobody else gets them until they are given back."""

    def __init__(
        self,
        link: BrokerLink,
        topology: Topology,
        channel: AbstractChannel,
        outlet: _Outlet,
        *,
        most_bytes: int,
    ) -> None:
        self._link = link
        self._topology = topology
        self._channel = channel
        self._outlet = outlet
        self._bytes_left = most_bytes
        self._worn: dict[int, Letter] = {}
        self.letters: list[Letter] = []
        """Those that are wanted, oldest first."""
        self.seen = 0
        """How many were looked at."""
        self.left = 0
        """How many were there and could not be looked at."""

    def put_in(self, letter: Letter, *, is_wanted: bool, keeps_body: bool) -> bool:
        """Keep the letter if it is wanted; return False when there is no room for it."""
        keeps = (is_wanted and keeps_body) or letter.is_worn
        size = len(letter.delivery.body) if keeps else 0
        if size > self._bytes_left:
            return False
        self._bytes_left -= size
        if letter.is_worn:
            self._worn[letter.position] = letter
        if is_wanted:
            self.letters.append(letter if keeps_body else _without_body(letter))
        return True

    async def replay(self, letter: Letter) -> None:
        """Publish the original to the tenant exchange; acknowledge the letter once it is taken.

        Raises MessageRefused when this one cannot be put back (it stays where it is, others may
        pass), BrokerError when the broker is lost.
        """
        if letter.obstacle is not None:
            raise MessageRefused(letter.obstacle)
        self._check_open()
        await self._publish_original(letter)
        await self.drop(letter)

    async def drop(self, letter: Letter) -> None:
        """Acknowledge the letter: it is gone."""
        self._check_open()
        with translated(self._link):
            async with asyncio.timeout(self._link.call_seconds):
                underlay = await self._channel.get_underlay_channel()
                await underlay.basic_ack(letter.delivery.tag)
        self._worn.pop(letter.position, None)

    async def _publish_original(self, letter: Letter) -> None:
        # What was sent to our queue by its name goes there again: no binding leads there.
        is_direct = not letter.exchange and letter.routing_key == self._topology.queue
        exchange = "" if is_direct else self._topology.tenant_exchange
        try:
            before = original(letter)
        except Malformed as error:
            raise MessageRefused(f"its properties cannot be sent: {error}") from error
        if len(letter.routing_key.encode("utf-8", "replace")) > _LONGEST_KEY:
            raise MessageRefused("its routing key is too long to send")
        await self._outlet.publish(before, exchange, letter.routing_key)

    async def renew_worn(self) -> None:
        """Put those that were redelivered too often at the queue's end, as if they were new.

        One that cannot be stays where it is.
        """
        for letter in list(self._worn.values()):
            with suppress(MessageRefused, Malformed):
                await self._outlet.publish(renewed(letter), "", self._topology.dead_letter)
                await self.drop(letter)

    def _check_open(self) -> None:
        if self._channel.is_closed:
            raise BrokerError(
                f"{self._link.place} took the letters back (a lost connection, or held for longer "
                "than its consumer timeout); what is done is done, run it again for the rest"
            )


@asynccontextmanager
async def hold_letters(
    link: BrokerLink,
    topology: Topology,
    wanted: Callable[[Letter], bool],
    *,
    keeps_bodies: bool = True,
    most_bytes: int = _MOST_BYTES,
) -> AsyncIterator[HeldLetters]:
    """Hold all dead letters for the length of the block, and keep those that are wanted.

    Whatever is not replayed or dropped within goes back. Raises BrokerError.
    """
    outlet = _Outlet(link)
    async with AsyncExitStack() as stack:
        stack.push_async_callback(outlet.close)
        connection = await stack.enter_async_context(connect(link, _NAME))
        with _explained(topology), translated(link):
            async with asyncio.timeout(link.call_seconds):
                channel, queue, count = await _open(connection, topology)
        held = HeldLetters(link, topology, channel, outlet, most_bytes=most_bytes)
        if count:
            await _take(held, queue, count, (wanted, keeps_bodies), link)
        yield held
        await held.renew_worn()
        # The answer to it comes after everything else on the channel was done.
        with translated(link):
            async with asyncio.timeout(link.call_seconds):
                await queue.channel.close()


async def look_at_letters(link: BrokerLink, topology: Topology) -> list[Letter]:
    """Return all dead letters, oldest first, without their bodies; leave them where they are."""
    async with hold_letters(link, topology, lambda _: True, keeps_bodies=False) as held:
        return held.letters


async def _open(
    connection: AbstractConnection, topology: Topology
) -> tuple[AbstractChannel, AbstractQueue, int]:
    channel = await connection.channel(publisher_confirms=False)
    queue = await channel.declare_queue(topology.dead_letter, passive=True)
    count = queue.declaration_result.message_count or 0
    await channel.set_qos(prefetch_count=count if count <= _MOST_PREFETCH else 0)
    return channel, queue, count


async def _take(
    held: HeldLetters,
    queue: AbstractQueue,
    count: int,
    wish: tuple[Callable[[Letter], bool], bool],
    link: BrokerLink,
) -> None:
    """Take as many letters as were there when we came."""
    wanted, keeps_bodies = wish
    news = asyncio.Event()
    has_room = True

    def take(message: DeliveredMessage) -> None:
        nonlocal has_room
        delivery = as_delivery(message, 1, utc_now())
        # The one consumer of its channel: tags count from 1 in the queue's order.
        if delivery.tag > count or not has_room:
            return
        letter = _read(delivery)
        has_room = held.put_in(letter, is_wanted=wanted(letter), keeps_body=keeps_bodies)
        held.seen += int(has_room)
        news.set()

    def on_close(_: object, __: BaseException | None) -> None:
        news.set()

    queue.channel.close_callbacks.add(on_close)
    with translated(link):
        async with asyncio.timeout(link.call_seconds):
            await consume(queue.channel, queue.name, take)
    try:
        while has_room and held.seen < count and not queue.channel.is_closed:
            news.clear()
            async with asyncio.timeout(_QUIET_SECONDS):
                await news.wait()
    except TimeoutError:
        pass  # the rest is not to be had now, which `left` tells
    if queue.channel.is_closed:
        raise BrokerError(f"the connection to {link.place} was lost")
    held.letters.sort(key=lambda letter: letter.position)
    held.left = count - held.seen


def _read(delivery: Delivery) -> Letter:
    try:
        return read_letter(delivery, delivery.tag)
    except Exception as error:  # noqa: BLE001 - one letter's trouble stays its own
        return unread_letter(delivery, delivery.tag, type(error).__name__)


def _without_body(letter: Letter) -> Letter:
    return replace(letter, delivery=replace(letter.delivery, body=b""))


@contextmanager
def _explained(topology: Topology) -> Iterator[None]:
    try:
        yield
    except BrokerError as error:
        if isinstance(error.__cause__, ChannelNotFoundEntity):
            raise BrokerError(
                f"no queue {topology.dead_letter!r}: has the consumer ever run on this broker?"
            ) from error
        raise
