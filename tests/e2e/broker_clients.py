"""What stands on the other side of the broker: who publishes tenant events, who hears statuses.

Both speak AMQP alone, as any other program would, and know nothing of the consumer's code. The
subscriber binds its own queue before the consumer starts or tenant events are published, so that it
misses nothing, and it keeps all it heard in order of arrival.
"""

import asyncio
import json
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final
from uuid import uuid4

import aio_pika
from aio_pika.abc import AbstractChannel, AbstractExchange, AbstractIncomingMessage

from deploy.lab.names import Names

FRESH_ID: Final = "fresh"
"""Given as `message_id`: choose a new one."""
_CALL_SECONDS: Final = 10.0
_LOOK_SECONDS: Final = 0.05
_QUEUE_EXPIRY_MS: Final = 600_000

Status = dict[str, object]
"""The body of a status event."""


class Publisher:
    """Publishes tenant events, each confirmed by the broker."""

    def __init__(self, exchange: AbstractExchange) -> None:
        self._exchange = exchange

    async def publish(
        self,
        kind: str,
        body: bytes | Mapping[str, object],
        *,
        content_type: str | None = "application/json",
        message_id: str | None = FRESH_ID,
        headers: Mapping[str, str] | None = None,
    ) -> str:
        """Publish `tenant.<kind>` and return its message id ("" when it has none)."""
        chosen = str(uuid4()) if message_id == FRESH_ID else message_id
        message = aio_pika.Message(
            body=body if isinstance(body, bytes) else json.dumps(body).encode(),
            content_type=content_type,
            message_id=chosen,
            headers=dict(headers or {}),
            delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
        )
        await self._exchange.publish(message, f"tenant.{kind}", timeout=_CALL_SECONDS)
        return chosen or ""

    async def create(self, document: Mapping[str, object]) -> str:
        """Publish `tenant.created`."""
        return await self.publish("created", document)

    async def update(self, document: Mapping[str, object]) -> str:
        """Publish `tenant.updated`."""
        return await self.publish("updated", document)

    async def tell(self, kind: str, tenant_id: str) -> str:
        """Publish an event that carries the tenant id alone: deleted, suspended, resumed."""
        return await self.publish(kind, {"tenant_id": tenant_id})


@dataclass(frozen=True, slots=True)
class Heard:
    """A status event as it came: the body, what was around it, and when (`time.monotonic`)."""

    status: Status
    message: AbstractIncomingMessage
    at: float


class Subscriber:
    """Hears every status event and lets a test wait for the one it expects."""

    def __init__(self) -> None:
        self._heard: defaultdict[str, list[Heard]] = defaultdict(list)
        self._next: defaultdict[str, int] = defaultdict(int)
        self._arrivals: defaultdict[str, list[int]] = defaultdict(list)
        self._has_news = asyncio.Event()

    async def hear(self, message: AbstractIncomingMessage) -> None:
        """Keep a status event; what is not greater than the last heard of its tenant is dropped."""
        at = time.monotonic()
        status: Status = json.loads(message.body)
        self._arrivals[str(status["tenant_id"])].append(_sequence(status))
        heard = self._heard[str(status["tenant_id"])]
        if not heard or _sequence(status) > _sequence(heard[-1].status):
            heard.append(Heard(status, message, at))
            self._has_news.set()

    async def expect(self, tenant_id: str, *, timeout: float = 20.0, **fields: object) -> Status:
        """Wait for the tenant's next status event with these fields, passing over others.

        Each status event is given out once: a second call waits for a later one.
        """
        return (await self.expect_message(tenant_id, timeout=timeout, **fields)).status

    async def expect_message(
        self, tenant_id: str, *, timeout: float = 20.0, **fields: object
    ) -> Heard:
        """Do as `expect` does, and return what was around the body too."""
        deadline = time.monotonic() + timeout
        while True:
            heard = self._heard[tenant_id]
            for index in range(self._next[tenant_id], len(heard)):
                if fields.items() <= heard[index].status.items():
                    self._next[tenant_id] = index + 1
                    return heard[index]
            # No await since the look: what is heard from now on sets it again.
            self._has_news.clear()
            try:
                await asyncio.wait_for(self._has_news.wait(), deadline - time.monotonic())
            except TimeoutError:
                seen = self._describe(tenant_id)
                raise AssertionError(
                    f"{tenant_id}: no {fields} within {timeout} s; seen:\n{seen}"
                ) from None

    def statuses(self, tenant_id: str) -> list[Status]:
        """Return all status events heard of the tenant, oldest first."""
        return [heard.status for heard in self._heard[tenant_id]]

    def arrivals(self, tenant_id: str) -> list[int]:
        """Return the sequence of all that came of the tenant, what was dropped included."""
        return self._arrivals[tenant_id]

    def summary(self, tenant_id: str) -> list[tuple[object, object]]:
        """Return state and reason of all status events heard of the tenant, oldest first."""
        return [(status["state"], status["reason"]) for status in self.statuses(tenant_id)]

    def _describe(self, tenant_id: str) -> str:
        names = ("sequence", "state", "reason", "event_id", "message")
        lines = [
            f"  {'>' if index >= self._next[tenant_id] else ' '} "
            + " ".join(f"{name}={status[name]!r}" for name in names)
            for index, status in enumerate(self.statuses(tenant_id))
        ]
        return "\n".join(lines) or "  nothing"


def _sequence(status: Status) -> int:
    sequence = status["sequence"]
    assert isinstance(sequence, int)
    return sequence


@dataclass(frozen=True, slots=True)
class BrokerClients:
    """Everything on the broker's other side."""

    publisher: Publisher
    subscriber: Subscriber
    _channel: AbstractChannel
    _names: Names

    async def take_dead_letter(self, *, timeout: float = 10.0) -> AbstractIncomingMessage:
        """Take the oldest dead letter."""
        deadline = time.monotonic() + timeout
        while True:
            queue = await self._channel.get_queue(self._names.dead_letter, ensure=False)
            letter = await queue.get(no_ack=True, fail=False, timeout=_CALL_SECONDS)
            if letter is not None:
                return letter
            assert time.monotonic() < deadline, f"no dead letter within {timeout} s"
            await asyncio.sleep(_LOOK_SECONDS)

    async def dead_letters(self) -> int:
        """Return how many dead letters wait to be looked at."""
        queue = await self._channel.declare_queue(
            self._names.dead_letter, passive=True, timeout=_CALL_SECONDS
        )
        return queue.declaration_result.message_count or 0

    async def drain_dead_letters(self) -> dict[str, tuple[str, str]]:
        """Take every dead letter; return reason and error of each by its message id.

        Fails when a message was dead-lettered twice.
        """
        left = await self.dead_letters()
        queue = await self._channel.get_queue(self._names.dead_letter, ensure=False)
        told: dict[str, tuple[str, str]] = {}
        is_empty = asyncio.Event()

        async def take(letter: AbstractIncomingMessage) -> None:
            reason, error = letter.headers["landlord-reason"], letter.headers["landlord-error"]
            told[letter.message_id or ""] = (str(reason), str(error))
            nonlocal left
            left -= 1
            if left == 0:
                is_empty.set()

        count = left
        tag = await queue.consume(take, no_ack=True, timeout=_CALL_SECONDS)
        await asyncio.wait_for(is_empty.wait(), 30)
        await queue.cancel(tag, timeout=_CALL_SECONDS)
        assert len(told) == count, "a message was dead-lettered twice"
        return told

    @asynccontextmanager
    async def peek(self) -> AsyncIterator[AbstractIncomingMessage]:
        """Look at the one delivery in the consumer's queue; it goes back after the block.

        The consumer must not run: while it does, nobody else is given any.
        """
        queue = await self._channel.get_queue(self._names.queue, ensure=False)
        taken: asyncio.Future[AbstractIncomingMessage] = asyncio.get_running_loop().create_future()

        async def take(message: AbstractIncomingMessage) -> None:
            taken.set_result(message)

        tag = await queue.consume(take, timeout=_CALL_SECONDS)
        message = await asyncio.wait_for(taken, _CALL_SECONDS)
        try:
            yield message
        finally:
            await queue.cancel(tag, timeout=_CALL_SECONDS)
            await message.nack(requeue=True)

    async def backlog(self) -> int:
        """Return how many deliveries wait in the consumer's queue, not counting unacked ones."""
        queue = await self._channel.declare_queue(
            self._names.queue, passive=True, timeout=_CALL_SECONDS
        )
        return queue.declaration_result.message_count or 0


@asynccontextmanager
async def connect(
    broker_url: str, names: Names, *, queue_name: str | None = None
) -> AsyncIterator[BrokerClients]:
    """Connect to the broker for the length of the block.

    A named queue keeps what comes while nobody is connected, also over a restart of the broker,
    which removes it when it was left alone for long.
    """
    connection = await aio_pika.connect(broker_url, timeout=_CALL_SECONDS)
    async with connection:
        channel = await connection.channel(publisher_confirms=True, on_return_raises=True)
        tenants, statuses = [
            await channel.declare_exchange(
                name, aio_pika.ExchangeType.TOPIC, durable=True, timeout=_CALL_SECONDS
            )
            for name in (names.tenant_exchange, names.status_exchange)
        ]
        queue = await channel.declare_queue(
            queue_name,
            durable=queue_name is not None,
            exclusive=queue_name is None,
            arguments={"x-expires": _QUEUE_EXPIRY_MS} if queue_name is not None else None,
            timeout=_CALL_SECONDS,
        )
        await queue.bind(statuses, "#", timeout=_CALL_SECONDS)
        subscriber = Subscriber()
        await queue.consume(subscriber.hear, no_ack=True, timeout=_CALL_SECONDS)
        yield BrokerClients(Publisher(tenants), subscriber, channel, names)
