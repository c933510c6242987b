"""What the broker has of our names and lets us do, tried without changing anything there.

A right is tried by a request that the broker, once it has granted the right, refuses for another
reason or that comes to nothing: a declaration with an impossible argument, a message with an
impossible property, a consumer with an impossible priority, the removal of a binding that nobody
made. A name that is there is declared again as it should be, which compares and changes nothing.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Final

from aio_pika.abc import AbstractConnection
from aio_pika.exceptions import ChannelNotFoundEntity, ChannelPreconditionFailed
from aiormq.abc import AbstractChannel
from aiormq.exceptions import ChannelAccessRefused
from pamqp.commands import Basic
from typing_extensions import override

from consumer.adapters.rabbitmq_topology import (
    DEAD_LETTER_ARGUMENTS,
    Arguments,
    BrokerLink,
    Kind,
    Topology,
    connect,
    explain,
    may_look_at,
    names,
    queue_arguments,
    translated,
)

_NAME: Final = "landlord-consumer-check"
_NEVER_BOUND: Final = "landlord.check.never-bound"
_IMPOSSIBLE: Final = "impossible"

Request = Callable[[AbstractChannel], Awaitable[object]]


@dataclass(frozen=True, slots=True)
class BrokerSight:
    """What is there, and what we may not do."""

    missing: tuple[str, ...]
    unseen: tuple[str, ...]
    """What this user may not ask for: whether it is there cannot be told."""
    mismatched: tuple[tuple[str, str], ...]
    """Which name (`queue x`), and what is the matter with it."""
    denied: tuple[str, ...]
    dead_letters: int | None = None
    """How many lie in their queue; None when we may not ask, or it is not there."""


@dataclass(frozen=True, slots=True)
class _Name:
    """An exchange or a queue that we need, and how it is declared."""

    kind: Kind
    name: str
    declare: Request

    @override
    def __str__(self) -> str:
        return f"{self.kind} {self.name}"


async def look_at_broker(
    link: BrokerLink, topology: Topology, *, is_declaring: bool
) -> BrokerSight:
    """Return what the broker has and denies us. Raises BrokerError when it cannot be asked."""
    async with connect(link, _NAME) as connection:
        trial = _Trial(connection, link)
        missing: list[str] = []
        unseen: list[str] = []
        mismatched: list[tuple[str, str]] = []
        for name in _wanted(topology):
            is_there = await trial.look(name)
            if is_there is not True:
                (unseen if is_there is None else missing).append(str(name))
                continue
            refusal = await trial.of(name.declare)
            if isinstance(refusal, ChannelPreconditionFailed):
                mismatched.append((str(name), explain(str(refusal))))
        denied = [
            right
            for right, request in _rights(topology, is_declaring=is_declaring)
            if isinstance(await trial.of(request), ChannelAccessRefused)
        ]
        count = await trial.count(topology.dead_letter)
    return BrokerSight(tuple(missing), tuple(unseen), tuple(mismatched), tuple(denied), count)


class _Trial:
    """Makes one request on a channel of its own, which the broker closes when it refuses."""

    def __init__(self, connection: AbstractConnection, link: BrokerLink) -> None:
        self._connection = connection
        self._link = link

    async def count(self, queue: str) -> int | None:
        """Return how many messages lie in the queue, None when that cannot be asked."""
        found: list[int | None] = []

        async def ask(channel: AbstractChannel) -> None:
            found.append((await channel.queue_declare(queue, passive=True)).message_count)

        await self.of(ask)
        return found[0] if found else None

    async def look(self, name: _Name) -> bool | None:
        """Return whether it is there, None when we may not ask; the question of a start."""
        with translated(self._link):
            async with asyncio.timeout(self._link.call_seconds):
                try:
                    may_look = await may_look_at(self._connection, name.kind, name.name)
                except ChannelNotFoundEntity:
                    return False
        return True if may_look else None

    async def of(self, request: Request) -> Exception | None:
        """Return how the broker refuses; None when it does not. Raises BrokerError."""
        with translated(self._link):
            async with asyncio.timeout(self._link.call_seconds):
                try:
                    async with self._connection.channel() as channel:
                        await request(await channel.get_underlay_channel())
                except (
                    ChannelAccessRefused,
                    ChannelNotFoundEntity,
                    ChannelPreconditionFailed,
                ) as refusal:
                    return refusal
        return None


def _wanted(topology: Topology) -> Iterator[_Name]:
    for kind, name in names(topology):
        is_dead_letter = name == topology.dead_letter
        if kind == "exchange":
            yield _exchange(name, "fanout" if is_dead_letter else "topic")
        else:
            arguments = DEAD_LETTER_ARGUMENTS if is_dead_letter else queue_arguments(topology)
            yield _queue(name, arguments)


def _exchange(name: str, kind: str) -> _Name:
    return _Name(
        "exchange",
        name,
        lambda channel: channel.exchange_declare(name, exchange_type=kind, durable=True),
    )


def _queue(name: str, arguments: Arguments) -> _Name:
    return _Name(
        "queue",
        name,
        lambda channel: channel.queue_declare(name, durable=True, arguments=arguments),
    )


def _rights(topology: Topology, *, is_declaring: bool) -> Iterator[tuple[str, Request]]:
    """Give each right that the consumer needs, in the broker's words, and what tries it."""
    if is_declaring:
        for exchange in (
            topology.dead_letter,
            topology.status_exchange,
            topology.tenant_exchange,
        ):
            yield f"configure exchange {exchange!r}", _declare_no_exchange(exchange)
        for queue in (topology.dead_letter, topology.queue):
            yield f"configure queue {queue!r}", _declare_no_queue(queue)
        pairs = (
            (topology.dead_letter, topology.dead_letter),
            (topology.queue, topology.tenant_exchange),
        )
        for queue, exchange in pairs:
            yield f"bind queue {queue!r} to {exchange!r}", _unbind(queue, exchange)
    for exchange in (topology.status_exchange, topology.dead_letter):
        yield f"write to exchange {exchange!r}", _publish_nothing(exchange)
    yield f"read queue {topology.queue!r}", _consume_nothing(topology.queue)


def _declare_no_exchange(name: str) -> Request:
    # The right is asked about before this argument, which has to be a name.
    arguments: Arguments = {"alternate-exchange": 1}
    return lambda channel: channel.exchange_declare(
        name, exchange_type="topic", durable=True, arguments=arguments
    )


def _declare_no_queue(name: str) -> Request:
    arguments: Arguments = {"x-queue-type": _IMPOSSIBLE, "x-max-length": -1}
    return lambda channel: channel.queue_declare(name, durable=True, arguments=arguments)


def _unbind(queue: str, exchange: str) -> Request:
    return lambda channel: channel.queue_unbind(queue, exchange, _NEVER_BOUND)


def _publish_nothing(exchange: str) -> Request:
    # Each of the two is reason enough to refuse; a user who may impersonate passes the first.
    properties = Basic.Properties(user_id=_IMPOSSIBLE, expiration=_IMPOSSIBLE)
    return lambda channel: channel.basic_publish(
        b"", exchange=exchange, routing_key=_NEVER_BOUND, properties=properties
    )


def _consume_nothing(queue: str) -> Request:
    async def ignore(_: object) -> None:
        """Take what never comes."""

    arguments: Arguments = {"x-priority": _IMPOSSIBLE}
    return lambda channel: channel.basic_consume(queue, ignore, arguments=arguments)
