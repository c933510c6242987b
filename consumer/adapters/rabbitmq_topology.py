"""How the broker is reached, and the names we need on it: connect, declare, translate errors.

Shared by the consumer's own sessions (`rabbitmq`) and by what an operator does from the command
line (`rabbitmq_operator`). A password never shows in an error or a repr. Declarations run on
throw-away channels, because the broker closes a channel whose declaration it refuses.
"""

import asyncio
import re
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Final, Literal
from urllib.parse import unquote, urlsplit

import aio_pika
from aio_pika.abc import AbstractChannel, AbstractConnection, ConnectionParameter
from aio_pika.connection import make_url
from aio_pika.exceptions import (
    AMQPError,
    AuthenticationError,
    ChannelNotFoundEntity,
    ChannelPreconditionFailed,
    InvalidFrameError,
    ProbableAuthenticationError,
)
from aiormq.exceptions import ChannelAccessRefused
from pamqp.common import FieldValue

from consumer.adapters.certificates import TlsFault, tls_context
from consumer.adapters.rabbitmq_frames import FrameTransport, Share
from consumer.adapters.redaction import forms_of, redact
from consumer.errors import BrokerError, LoginRefused, TopologyMismatch, VhostRefused
from consumer.model import EventKind

Arguments = dict[str, FieldValue]
Kind = Literal["exchange", "queue"]

DELIVERY_LIMIT: Final = 1000
"""High on purpose: every crash of a consumer counts against all its unacked deliveries. And a
number: -1 means "dead-letter at once" to RabbitMQ 3.10 (seen)."""

DEAD_LETTER_ARGUMENTS: Final[Arguments] = {"x-queue-type": "quorum"}

_INEQUIVALENT: Final = re.compile(
    r"inequivalent arg '(?P<argument>[^']+)' for (?P<kind>\w+) '(?P<name>[^']+)'.*?: "
    r"received (?P<wanted>.+?) but current is (?P<found>.+?)$",
    re.DOTALL,
)
_AS_VALUE: Final = re.compile(r"^the value '(?P<value>.*)' of type '.*'$", re.DOTALL)


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerTls:
    """Files (PEM) for `amqps://`; `verify` False trusts any certificate.

    `is_strict` refuses one for a slip of form as well.
    """

    ca: str | None = None
    cert: str | None = None
    key: str | None = None
    verify: bool = True
    is_strict: bool = False

    def context(self) -> ssl.SSLContext:
        """Return the context. Raises TlsFault when a file is no good."""
        return tls_context(
            ca=self.ca,
            cert=self.cert,
            key=self.key,
            verify=self.verify,
            is_strict=self.is_strict,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerLink:
    """Where the broker is and how long to wait for it; `url` holds the password."""

    url: str = field(repr=False)
    tls: BrokerTls = BrokerTls()
    heartbeat_seconds: int = 10
    """The client's choice; a dead peer is noticed after three of them."""
    call_seconds: float = 10.0
    """Deadline of every request to the broker."""

    @property
    def user(self) -> str:
        """Whom the broker knows us as."""
        return unquote(urlsplit(self.url).username or "guest")

    @property
    def vhost(self) -> str:
        """The virtual host; none in the URL is the usual one."""
        return unquote(urlsplit(self.url).path.removeprefix("/")) or "/"

    def without_password(self, text: str) -> str:
        """Return the text without the password, however a client may have written it."""
        password = urlsplit(self.url).password or ""
        forms = forms_of((password, unquote(password)))
        return redact(text, forms) if forms is not None else ""

    @property
    def place(self) -> str:
        """The URL without its password."""
        parts = urlsplit(self.url)
        host = parts.hostname or "localhost"
        port = parts.port or (5671 if parts.scheme == "amqps" else 5672)
        return f"{parts.scheme}://{parts.username or 'guest'}@{host}:{port}{parts.path}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Topology:
    """The names on the broker, as the contract gives them."""

    tenant_exchange: str = "landlord.tenants"
    queue: str = "landlord.consumer"
    status_exchange: str = "landlord.status"
    dead_letter: str = "landlord.dead-letter"


class _FramedConnection(aio_pika.Connection):
    """A connection that hands a transport of ours on to the library beneath."""

    PARAMETERS = (
        *aio_pika.Connection.PARAMETERS,
        ConnectionParameter("transport_factory", lambda factory: factory, is_kwarg=True),
    )


@asynccontextmanager
async def connect(
    link: BrokerLink, name: str, share: Share | None = None
) -> AsyncIterator[AbstractConnection]:
    """Hold a connection for the length of the block. Raises BrokerError when there is none.

    Plain, not robust: a robust channel can stay closed for ever while its connection is up, so
    whoever holds this rebuilds everything at any loss. Messages come through `Frames`, and no more
    of them at a time than the share has room for.
    """
    tls = _tls_context(link)
    with translated(link), _url_read(link):
        connection = _FramedConnection(
            # aiormq takes these two from the URL alone.
            make_url(link.url, heartbeat=link.heartbeat_seconds, name=name),
            ssl_context=tls,
            transport_factory=FrameTransport(share),
        )
        await connection.connect(timeout=link.call_seconds)
    try:
        yield connection
    finally:
        await _close(connection, link.call_seconds)


@contextmanager
def _url_read(link: BrokerLink) -> Iterator[None]:
    try:
        yield
    except ssl.SSLError:
        raise  # a certificate that is refused is a ValueError too
    except ValueError:
        # It quotes the URL, whose password may hold anything.
        raise BrokerError(
            f"the client cannot read broker.url for {link.place}: what is no letter or digit in it "
            "has to be percent-encoded"
        ) from None


def _tls_context(link: BrokerLink) -> ssl.SSLContext | None:
    try:
        return link.tls.context() if link.url.startswith("amqps:") else None
    except TlsFault as fault:
        # Found good at the start; it may be just being replaced.
        raise BrokerError(f"broker.tls.{fault}") from fault


async def _close(connection: AbstractConnection, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await connection.close()
    except (AMQPError, OSError, TimeoutError, RuntimeError):
        return  # it was lost already; there is nothing more to let go of


@contextmanager
def translated(link: BrokerLink) -> Iterator[None]:
    """Turn whatever the client library raises into a BrokerError with an operator's words."""
    try:
        yield
    except asyncio.CancelledError as error:
        # The library rejects pending calls of a closed channel by cancelling them.
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        raise BrokerError(f"the connection to {link.place} was lost") from error
    except TimeoutError as error:
        raise BrokerError(f"no answer from {link.place} within {link.call_seconds:g} s") from error
    except (AuthenticationError, ProbableAuthenticationError) as error:
        raise LoginRefused(
            f"{link.place} refuses the login: check user and password of broker.url"
        ) from error
    except InvalidFrameError as error:
        # The answer to opening the virtual host is a close, which the library does not expect.
        raise VhostRefused(
            f"{link.place} refuses the virtual host {link.vhost!r}: is it there, may this user "
            "enter it?"
        ) from error
    except ssl.SSLError as error:
        raise BrokerError(f"no TLS with {link.place}: {error.reason or error}") from error
    except (AMQPError, OSError, RuntimeError) as error:
        words = _words(error, link.without_password(str(error)))
        raise BrokerError(f"trouble with {link.place}: {words}") from error


def _words(error: BaseException, told: str | None = None) -> str:
    text = " ".join((str(error) if told is None else told).split()) or type(error).__name__
    return re.sub(r"(amqps?://[^:@/\s]*):\S*@", r"\1:***@", text)


async def declare(connection: AbstractConnection, link: BrokerLink, topology: Topology) -> None:
    """Declare what is missing, the dead-letter side first; leave alone what is there as wanted.

    Raises TopologyMismatch naming object, argument, what is there and what was wanted.
    """
    with translated(link), _explained():
        async with asyncio.timeout(link.call_seconds):
            await _declare_dead_letter(connection, topology)
            await _declare_exchange(connection, topology.status_exchange, "topic")
            await _declare_exchange(connection, topology.tenant_exchange, "topic")
            await _declare_queue(connection, topology)


async def check(connection: AbstractConnection, link: BrokerLink, topology: Topology) -> None:
    """Raise TopologyMismatch when a name is missing; declare nothing.

    One that may not be asked for is taken to be there.
    """
    with translated(link), _explained():
        async with asyncio.timeout(link.call_seconds):
            for kind, name in names(topology):
                await may_look_at(connection, kind, name)


def names(topology: Topology) -> Iterator[tuple[Kind, str]]:
    """Give every name with what it is of, in the order in which they are declared."""
    yield "exchange", topology.dead_letter
    yield "queue", topology.dead_letter
    yield "exchange", topology.status_exchange
    yield "exchange", topology.tenant_exchange
    yield "queue", topology.queue


async def may_look_at(connection: AbstractConnection, kind: Kind, name: str) -> bool:
    """Ask whether the name is there, and return whether that may be asked; declare nothing.

    From RabbitMQ 4.3 on it takes a right to an exchange to ask for it, and least rights have none
    to the one that tenant events come by. Raises ChannelNotFoundEntity when it is not there.
    """
    async with connection.channel() as channel:
        try:
            if kind == "exchange":
                await channel.get_exchange(name, ensure=True)
            else:
                await channel.get_queue(name, ensure=True)
        except ChannelAccessRefused:
            return False
    return True


async def _declare_dead_letter(connection: AbstractConnection, topology: Topology) -> None:
    await _declare_exchange(connection, topology.dead_letter, "fanout")
    async with connection.channel() as channel:
        queue = await channel.declare_queue(
            topology.dead_letter, durable=True, arguments=DEAD_LETTER_ARGUMENTS
        )
        await queue.bind(topology.dead_letter, "")


async def _declare_exchange(connection: AbstractConnection, name: str, kind: str) -> None:
    channel: AbstractChannel
    async with connection.channel() as channel:
        await channel.declare_exchange(name, kind, durable=True)


def queue_arguments(topology: Topology) -> Arguments:
    """Return what the consumer's queue is declared with."""
    return {
        "x-queue-type": "quorum",
        "x-single-active-consumer": True,
        "x-delivery-limit": DELIVERY_LIMIT,
        "x-dead-letter-exchange": topology.dead_letter,
        # At least once needs reject-publish; without it the broker silently gives at most
        # once (RabbitMQ's page on quorum queues).
        "x-dead-letter-strategy": "at-least-once",
        "x-overflow": "reject-publish",
    }


async def _declare_queue(connection: AbstractConnection, topology: Topology) -> None:
    async with connection.channel() as channel:
        queue = await channel.declare_queue(
            topology.queue, durable=True, arguments=queue_arguments(topology)
        )
        for kind in EventKind:
            await queue.bind(topology.tenant_exchange, kind.value)


@contextmanager
def _explained() -> Iterator[None]:
    try:
        yield
    except ChannelPreconditionFailed as error:
        raise TopologyMismatch(explain(str(error))) from error
    except ChannelNotFoundEntity as error:
        raise TopologyMismatch(f"missing on the broker: {_words(error)}") from error


def explain(text: str) -> str:
    """Return one line naming the object, the argument, what is there and what was wanted."""
    found = _INEQUIVALENT.search(text)
    if found is None:
        return f"the broker refuses a declaration: {' '.join(text.split())}"
    return (
        f"{found['kind']} {found['name']!r} exists with {found['argument']} = "
        f"{_value(found['found'])}, wanted is {_value(found['wanted'])}"
    )


def _value(text: str) -> str:
    text = text.strip().rstrip("\"'),")
    as_value = _AS_VALUE.match(text + "'" if text.count("'") % 2 else text)
    return as_value["value"] if as_value else text.strip("'")
