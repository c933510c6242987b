"""The broker: deliveries in, status events and dead letters out, over two supervised connections.

One connection consumes and one publishes, so that a broker that blocks publishers still takes our
acks. Each is under a supervisor of ours: any loss of connection, channel or consumer tears that
session down and rebuilds it whole, for ever, with backoff. The consume callback only puts a
delivery into a buffer; what is done about it is intake's. A delivery can be settled only in the
session it came by; a lost session is no error, the broker delivers again. What has come and is not
settled is bounded by bytes, whatever the prefetch.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import Final
from uuid import uuid4

import aio_pika
import structlog
from aio_pika.abc import (
    AbstractChannel,
    AbstractConnection,
    AbstractExchange,
)
from aio_pika.exceptions import DeliveryError, PublishError
from aiormq.abc import DeliveredMessage
from pamqp.commands import Basic

from consumer.adapters.prefetch import Prefetch
from consumer.adapters.rabbitmq_frames import PAUSE_SECONDS, InFlight, Share, weight
from consumer.adapters.rabbitmq_messages import as_delivery, consume, most_properties, publish
from consumer.adapters.rabbitmq_topology import (
    BrokerLink,
    Topology,
    check,
    connect,
    declare,
    translated,
)
from consumer.adapters.settled import Settled
from consumer.errors import BrokerError, MessageRefused, TopologyMismatch
from consumer.faults import for_ever, trace_of
from consumer.letters import letter_properties
from consumer.messages import DeadLetter, Delivery, status_headers
from consumer.model import OutboxEntry

_log: Final = structlog.get_logger(__name__)

_CONNECTING: Final = "not connected yet"
_BLOCKED: Final = "the broker blocks publishers (a memory or disk alarm)"
_BLOCKED_PROBE_SECONDS: Final = 0.05
_STEADY_SECONDS: Final = 5.0
"""A session that lasted this long starts the backoff anew."""

_LARGE_LETTER: Final = 1024 * 1024
"""Of bytes: a letter on its way is there several times over, so a large one goes alone."""
_MOST_AT_ONCE_BYTES: Final = 4096
"""Of properties: such a letter is made in a millisecond or two, however many headers it has."""
_SLOWEST_BYTES: Final = 128 * 1024
"""Of a body, in a second: a link that takes less is too slow for what large bodies there are."""
_LONGEST_KEY: Final = 255
_MOST_REFUSALS: Final = 5
"""Of letters in a row on one channel."""
_WINDOW_SECONDS: Final = 60.0
"""How long messages have to be small before more of them are asked for again."""

_OnChange = Callable[[bool], None]
_Session = Callable[[AbstractConnection, Share], Awaitable[None]]
_Closable = AbstractConnection | AbstractChannel


@dataclass(frozen=True, slots=True, kw_only=True)
class Retry:
    """Seconds between tries to connect: doubling, with full jitter."""

    least_seconds: float = 0.5
    most_seconds: float = 30.0

    def seconds(self, attempt: int) -> float:
        """Return the delay after the given failed attempt (1 is the first)."""
        full = min(self.most_seconds, self.least_seconds * 2.0 ** min(attempt, 16))
        return random.uniform(self.least_seconds, full)  # noqa: S311 - jitter


@dataclass(slots=True)
class _Intake:
    """The consuming session: what has arrived by it and is not handed out yet."""

    number: int
    channel: AbstractChannel
    share: Share
    arrived: dict[int, Delivery]
    next_tag: int = 1
    consumer_tag: str = ""
    settled: Settled = field(default_factory=Settled)
    acking: asyncio.Lock = field(default_factory=asyncio.Lock)


@dataclass(slots=True)
class _Outlet:
    """The publishing session.

    Each exchange has a channel of its own: a return on one cannot end the other. That of the
    letters may be lost without the session, and is opened again for the next one: some answers of
    the broker to a letter end its channel (no such exchange, no right to it, a body larger than it
    takes by now).
    """

    connection: AbstractConnection
    statuses: AbstractExchange
    letters: AbstractChannel
    most_properties: int
    opening: asyncio.Lock = field(default_factory=asyncio.Lock)
    refusals: int = 0
    """Of letters in a row, on their channel."""


class RabbitMQ:
    """Both ports to the broker: `Deliveries` and `Publisher`."""

    def __init__(  # noqa: PLR0913 - the outside is a constructor argument
        self,
        *,
        link: BrokerLink,
        topology: Topology,
        source: str,
        now: Callable[[], datetime],
        on_change: _OnChange,
        prefetch: int = 500,
        most_in_flight_bytes: int = 32 * 1024 * 1024,
        pause_seconds: float = PAUSE_SECONDS,
        window_seconds: float = _WINDOW_SECONDS,
        is_declaring: bool = True,
        retry: Retry | None = None,
    ) -> None:
        self._link = link
        self._topology = topology
        self._source = source
        self._now = now
        self._on_change = on_change
        self._prefetch = Prefetch(prefetch, most_in_flight_bytes)
        self._pause_seconds = pause_seconds
        self._window_seconds = window_seconds
        self._prepare = declare if is_declaring else check
        self._retry = retry or Retry()
        self._intake: _Intake | None = None
        self._outlet: _Outlet | None = None
        self._in_flight = InFlight(most_in_flight_bytes)
        self._handed_out: dict[tuple[int, int], int] = {}
        """By session and tag: what weighs upon memory until it is settled."""
        self._large_letter = asyncio.Lock()
        self._long_table = asyncio.Lock()
        self._sessions = 0
        self._has_arrived = asyncio.Event()
        self._is_taking = True
        self._troubles: dict[str, str | None] = {"consume": _CONNECTING, "publish": _CONNECTING}
        self._is_blocked = False

    @property
    def trouble(self) -> str | None:
        """What keeps the broker from being used; None when all is well."""
        lost = next((trouble for trouble in self._troubles.values() if trouble), None)
        return lost or (_BLOCKED if self._is_blocked else None)

    async def run(self) -> None:
        """Keep both sessions up until cancelled.

        Raises TopologyMismatch when a name exists with other arguments at the first connection.
        """
        async with asyncio.TaskGroup() as group:
            for direction, session in (("consume", self._consume), ("publish", self._publish)):
                name = f"broker {direction}"
                group.create_task(for_ever(name, self._keep(direction, session)), name=name)

    # --- supervision

    async def _keep(self, direction: str, session: _Session) -> None:
        loop = asyncio.get_running_loop()
        attempt = 0
        while True:
            began = loop.time()
            has_been_up = self._troubles[direction] is None
            share = self._new_share()
            name = f"landlord-consumer-{direction}"
            try:
                async with connect(self._link, name, share) as connection:
                    await self._prepare(connection, self._link, self._topology)
                    await session(connection, share)
            except TopologyMismatch as error:
                if not has_been_up and attempt == 0:
                    raise
                self._note(direction, str(error))
            except BrokerError as error:
                self._note(direction, str(error))
            finally:
                share.close()
                if share.is_spent:
                    self._prefetch.fit()
                    _log.warning("large messages: fewer at a time", prefetch=self._prefetch.now)
            attempt = 1 if loop.time() - began >= _STEADY_SECONDS else attempt + 1
            await asyncio.sleep(self._retry.seconds(attempt))

    def _new_share(self) -> Share:
        prefetch = self._prefetch
        return Share(
            self._in_flight,
            max(1.0, self._link.heartbeat_seconds / 2),
            patience_seconds=self._pause_seconds,
            note=prefetch.note,
            # A session with fewer on their way would not have to wait.
            is_patient=lambda: not prefetch.is_too_high,
        )

    def _note(self, direction: str, trouble: str | None) -> None:
        was_up = self.trouble is None
        before, self._troubles[direction] = self._troubles[direction], trouble
        if trouble is None and before is not None:
            _log.info("broker session up", direction=direction, place=self._link.place)
        elif trouble is not None and before in {None, _CONNECTING}:
            _log.error("broker session lost", direction=direction, error=trouble)
        if was_up != (self.trouble is None):
            self._on_change(self.trouble is None)

    def _watch(self, lost: "asyncio.Future[str]", *closables: _Closable) -> None:
        """Have `lost` tell the reason as soon as one of them is closed."""

        def on_close(_: object, reason: BaseException | None) -> None:
            if not lost.done():
                lost.set_result(str(reason or "closed"))

        for closable in closables:
            closable.close_callbacks.add(on_close)

    # --- consuming

    async def _consume(self, connection: AbstractConnection, share: Share) -> None:
        """Take deliveries; return when the next session is to ask for more at a time."""
        lost: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        with translated(self._link):
            async with asyncio.timeout(self._link.call_seconds):
                channel = await connection.channel(publisher_confirms=False)
                await channel.set_qos(prefetch_count=self._prefetch.now)
                self._watch(lost, connection, channel)
                await self._watch_cancel(channel, lost)
        self._sessions += 1
        intake = _Intake(self._sessions, channel, share, {})
        self._intake = intake
        try:
            await self._begin_taking(intake, lost)
            self._note("consume", None)
            while not (await asyncio.wait((lost,), timeout=self._window_seconds))[0]:
                if self._prefetch.rise():
                    _log.info("smaller messages: more at a time", prefetch=self._prefetch.now)
                    return
        finally:
            # What it brought and nobody took will be delivered again.
            self._intake = None
        reason = lost.result()
        raise BrokerError(f"the consuming session with {self._link.place} ended: {reason}")

    async def _begin_taking(self, intake: _Intake, lost: "asyncio.Future[str]") -> None:
        """Ask for deliveries, once there is room for one as large as was seen lately.

        Whatever is asked for is on its way at once, and cannot be told to wait for long.
        """
        if not self._in_flight.has_room(self._prefetch.largest):
            self._note("consume", None)
            room = asyncio.create_task(self._in_flight.room(self._prefetch.largest))
            await asyncio.wait((room, lost), return_when=asyncio.FIRST_COMPLETED)
            room.cancel()
        if not self._is_taking or lost.done():
            return
        take = self._taker(intake, lost)
        with translated(self._link):
            try:
                async with asyncio.timeout(self._link.call_seconds):
                    queue = self._topology.queue
                    intake.consumer_tag = await consume(intake.channel, queue, take)
            except TimeoutError:
                # Before it answers, the broker reads off its disk whatever it may send.
                self._prefetch.lower()
                raise

    async def _watch_cancel(self, channel: AbstractChannel, lost: "asyncio.Future[str]") -> None:
        """Count the broker's own cancel (queue deleted, consumer timeout) as a lost session."""
        underlay = await channel.get_underlay_channel()

        def on_cancel(*_: object) -> None:
            if not lost.done():
                lost.set_result("the broker cancelled the consumer")

        underlay.on_consumer_cancel_callbacks.add(on_cancel)

    def _taker(
        self, intake: _Intake, lost: "asyncio.Future[str]"
    ) -> Callable[[DeliveredMessage], None]:
        def take(message: DeliveredMessage) -> None:
            try:
                delivery = as_delivery(message, intake.number, self._now())
            except Exception as fault:  # noqa: BLE001 - nobody else would hear of it
                # What comes after it would wait for it, for ever: it has to come again.
                if not lost.done():
                    lost.set_result(f"a fault of ours: {trace_of(fault)}")
                return
            intake.arrived[delivery.tag] = delivery
            self._has_arrived.set()

        return take

    async def next_batch(self, *, limit: int) -> list[Delivery]:
        """Wait for at least one delivery and return those that have arrived, oldest first.

        All of one batch belong to one session. Returns nothing once taking has stopped.
        """
        while self._is_taking:
            batch = self._take_arrived(limit)
            if batch:
                return batch
            self._has_arrived.clear()
            await self._has_arrived.wait()
        return []

    def _take_arrived(self, limit: int) -> list[Delivery]:
        intake = self._intake
        batch: list[Delivery] = []
        if intake is None:
            return batch
        while len(batch) < limit and intake.next_tag in intake.arrived:
            delivery = intake.arrived.pop(intake.next_tag)
            size = weight(len(delivery.body), len(delivery.raw_properties))
            intake.share.hand_over(size)
            self._handed_out[delivery.session, delivery.tag] = size
            batch.append(delivery)
            intake.next_tag += 1
        return batch

    async def ack(self, deliveries: Sequence[Delivery]) -> None:
        """Acknowledge these and no others."""
        for delivery in deliveries:
            size = self._handed_out.pop((delivery.session, delivery.tag), 0)
            self._in_flight.give_back(size)
        intake = self._intake
        if intake is None:
            return
        tags = [delivery.tag for delivery in deliveries if delivery.session == intake.number]
        try:
            with translated(self._link):
                # In turn: an ack that is overtaken names what the broker no longer waits for.
                async with asyncio.timeout(self._link.call_seconds), intake.acking:
                    underlay = await intake.channel.get_underlay_channel()
                    for ack in intake.settled.add(tags):
                        await underlay.basic_ack(ack.tag, multiple=ack.is_through)
        except BrokerError as error:
            _log.info("ack not sent; the broker delivers again", error=str(error))

    async def stop_taking(self) -> None:
        """Take no more deliveries; what was handed out can still be settled."""
        self._is_taking = False
        self._has_arrived.set()
        intake = self._intake
        if intake is None or not intake.consumer_tag:
            return
        try:
            with translated(self._link):
                async with asyncio.timeout(self._link.call_seconds):
                    underlay = await intake.channel.get_underlay_channel()
                    await underlay.basic_cancel(intake.consumer_tag)
        except BrokerError as error:
            _log.info("consumer not cancelled", error=str(error))

    # --- publishing

    async def _publish(self, connection: AbstractConnection, _: Share) -> None:
        lost: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        async with AsyncExitStack() as stack:
            with translated(self._link):
                async with asyncio.timeout(self._link.call_seconds):
                    statuses = await connection.channel(publisher_confirms=True)
                    letters = await _open_letters(connection)
                    outlet = _Outlet(
                        connection,
                        await statuses.get_exchange(self._topology.status_exchange, ensure=False),
                        letters,
                        most_properties(connection),
                    )
            self._watch(lost, connection, statuses)
            stack.callback(setattr, self, "_outlet", None)
            self._outlet = outlet
            self._is_blocked = False
            self._note("publish", None)
            reason = await lost
        raise BrokerError(f"the publishing session with {self._link.place} ended: {reason}")

    async def publish_status(self, entry: OutboxEntry) -> None:
        """Publish a status event; that nobody is subscribed is no error."""
        outlet = self._open_outlet()
        await self._check_unblocked(outlet)
        kind = f"tenant.status.{entry.state.value}"
        message = aio_pika.Message(
            entry.body.encode(),
            headers=dict(status_headers(entry, source=self._source)),
            content_type="application/json",
            delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
            # Fresh for each try: the client matches returned messages by it.
            message_id=uuid4().hex,
            correlation_id=entry.correlation_id,
            timestamp=entry.created_at,
            type=kind,
        )
        sent = outlet.statuses.publish(message, kind, mandatory=False)
        await self._confirmed(outlet, outlet.statuses.name, sent)

    async def publish_dead_letter(self, letter: DeadLetter) -> None:
        """Publish to the dead-letter exchange; a message that no queue takes is an error."""
        if len(letter.delivery.body) < _LARGE_LETTER:
            await self._publish_letter(letter)
            return
        async with self._large_letter:
            await self._publish_letter(letter)

    async def _publish_letter(self, letter: DeadLetter) -> None:
        outlet, name = self._open_outlet(), self._topology.dead_letter
        properties = await self._letter_properties(letter, outlet.most_properties)
        key = letter.delivery.routing_key.encode("utf-8", "replace")[:_LONGEST_KEY]
        key_text = key.decode("utf-8", "ignore")
        await self._check_unblocked(outlet)
        channel = await self._letters_channel(outlet)
        sent = publish(channel, name, key_text, letter.delivery.body, properties)
        try:
            await self._confirmed(outlet, name, sent, size=len(letter.delivery.body))
        except MessageRefused as error:
            if _is_returned(error):
                await self._declare_again(outlet)
            else:
                await self._note_full(outlet)
            raise
        outlet.refusals = 0

    async def _letter_properties(self, letter: DeadLetter, most_bytes: int) -> bytes:
        """Return what it is sent with; a table of many headers is gone through beside the loop."""
        # The broker's answers are told apart by an id of its own: the original's may be that of
        # many, or none that can be read.
        make = partial(letter_properties, letter, uuid4().hex, most_bytes)
        if len(letter.delivery.raw_properties) <= _MOST_AT_ONCE_BYTES:
            return make()
        async with self._long_table:
            return await asyncio.to_thread(make)

    async def _letters_channel(self, outlet: _Outlet) -> AbstractChannel:
        """Return the channel for letters; it is opened again where the broker ended it.

        Whoever had to wait for that in vain does not try once more: many may wait.
        """
        has_waited = outlet.opening.locked()
        async with outlet.opening:
            if outlet.letters.is_closed:
                if has_waited or outlet is not self._outlet:
                    raise BrokerError("the channel for dead letters is closed")
                await self._declare_again(outlet)  # it may have been over a name that is gone
                with translated(self._link):
                    async with asyncio.timeout(self._link.call_seconds):
                        outlet.letters = await _open_letters(outlet.connection)
                outlet.refusals = 0
            return outlet.letters

    async def _note_full(self, outlet: _Outlet) -> None:
        """Have a new channel for letters when one goes on refusing.

        The broker (3.10) does so on a channel that it once refused on, until the queue has room
        again by its old limit: a limit that was lifted meanwhile would go unnoticed for ever.
        """
        outlet.refusals += 1
        if outlet.refusals < _MOST_REFUSALS:
            return
        outlet.refusals, former = 0, outlet.letters
        try:
            with translated(self._link):
                async with asyncio.timeout(self._link.call_seconds):
                    outlet.letters = await _open_letters(outlet.connection)
                    await former.close()
        except BrokerError as error:
            _log.info("no new channel for dead letters", error=str(error))

    async def _declare_again(self, outlet: _Outlet) -> None:
        """Somebody took a name or a binding away: have them again for the next try."""
        try:
            await self._prepare(outlet.connection, self._link, self._topology)
        except BrokerError as error:
            _log.warning("not declared again", error=str(error))

    async def count_dead_letters(self) -> int:
        """Return how many lie in their queue."""
        outlet = self._open_outlet()
        with translated(self._link):
            async with asyncio.timeout(self._link.call_seconds):
                # On a channel of its own: a question that is refused ends the channel.
                async with outlet.connection.channel(publisher_confirms=False) as channel:
                    queue = await channel.declare_queue(self._topology.dead_letter, passive=True)
        return queue.declaration_result.message_count or 0

    def _open_outlet(self) -> _Outlet:
        if self._outlet is None:
            raise BrokerError(self._troubles["publish"] or _CONNECTING)
        return self._outlet

    async def _confirmed(
        self, outlet: _Outlet, name: str, sent: Coroutine[object, object, object], *, size: int = 0
    ) -> None:
        seconds = self._link.call_seconds
        if size >= _LARGE_LETTER:
            # What is given up on its way arrives all the same, and would be sent again for ever.
            seconds += size / _SLOWEST_BYTES
            sent = self._watched(outlet, sent)
        try:
            with translated(self._link):
                async with asyncio.timeout(seconds):
                    answer = await sent
        except BrokerError as error:
            if isinstance(error.__cause__, TimeoutError):
                await self._note_blocked(outlet)
            if isinstance(error.__cause__, DeliveryError):
                raise MessageRefused(f"{name} takes no message: {error}") from error
            raise
        if not isinstance(answer, Basic.Ack):
            raise MessageRefused(f"not confirmed by {name}: {type(answer).__name__}")
        if self._is_blocked:
            self._set_blocked(is_blocked=False)

    async def _watched(self, outlet: _Outlet, sent: Coroutine[object, object, object]) -> object:
        """Await it; while that takes longer than an answer, find out whether the broker blocks."""
        sending = asyncio.create_task(sent, name="publish")
        try:
            while not (await asyncio.wait((sending,), timeout=self._link.call_seconds))[0]:
                await self._note_blocked(outlet)
            return sending.result()
        finally:
            sending.cancel()

    async def _check_unblocked(self, outlet: _Outlet) -> None:
        """Raise BrokerError while the broker is known to block us.

        What is sent meanwhile is not read, but it will be: each try is one more copy, which we
        hold in memory until then.
        """
        if self._is_blocked:
            await self._note_blocked(outlet)
        if self._is_blocked:
            raise BrokerError(_BLOCKED)

    async def _note_blocked(self, outlet: _Outlet) -> None:
        """Find out whether the broker blocks us: the client only shows it by not being ready."""
        transport = outlet.connection.transport
        if transport is None:
            return
        is_blocked = False
        try:
            async with asyncio.timeout(_BLOCKED_PROBE_SECONDS):
                await transport.connection.ready()
        except TimeoutError:
            is_blocked = True
        self._set_blocked(is_blocked=is_blocked)

    def _set_blocked(self, *, is_blocked: bool) -> None:
        if is_blocked == self._is_blocked:
            return
        self._is_blocked = is_blocked
        if is_blocked:
            _log.error("broker blocks publishers")
        else:
            _log.info("broker takes messages again")
        self._on_change(self.trouble is None)


def _is_returned(error: BrokerError) -> bool:
    """Whether no queue took the message, rather than one that had no room for it."""
    cause = error.__cause__
    return cause is not None and isinstance(cause.__cause__, PublishError)


async def _open_letters(connection: AbstractConnection) -> AbstractChannel:
    return await connection.channel(publisher_confirms=True, on_return_raises=True)
