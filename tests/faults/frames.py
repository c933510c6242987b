"""AMQP messages as they could come off a wire, made from a seed; and a client that sends them.

`raw_message` gives property flags, field tables of every type with their edge values, nested ones,
texts in wrong encodings, bodies of no, one and many frames; some of it well formed, some of it
such that only the broker's own parser bears it, some of it broken. `RawPublisher` is a client
without the guards of a client: it sends what it is given.
"""

import asyncio
import random
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final
from urllib.parse import unquote, urlsplit

from pamqp import commands, frame

from consumer.content_header import Entry, join, table_of

_TEXTS: Final = (
    b"",
    b"x",
    "\u00fcml\u00e4ut".encode(),
    b"\xff\xfe",
    b"\xc3\x28",
    b"\0",
    b"a" * 255,
)
_NAMES: Final = (
    b"x",
    b"",
    b"landlord-reason",
    b"landlord-error",
    b"landlord-replays",
    b"landlord-letter-id",
    b"landlord-headers-dropped",
    b"landlord-publisher-CC",
    b"cloudEvents:id",
    b"traceparent",
    b"x-death",
    b"x-delivery-count",
    b"\xff\xff",
    b"n" * 255,
)
_TIMES: Final = (
    0,
    1,
    0xFFFFFFFF,
    0x100000000,
    253402300799,
    253402300800000,
    1 << 62,
    (1 << 64) - 1,
)
_FLOATS: Final = (0.0, -0.0, 1.5, 3.3e38, -1e-40)
_DOUBLES: Final = (*_FLOATS, 3.5e38, 1.7976931348623157e308, 5e-324)
_SHORT: Final = (
    "content_type",
    "content_encoding",
    "correlation_id",
    "reply_to",
    "message_id",
    "type",
    "app_id",
)
_FRAME: Final = struct.Struct(">BHI")
_END: Final = b"\xce"


@dataclass(frozen=True, slots=True)
class RawMessage:
    """A message: its properties and the frames of its body.

    `is_sound` says that a broker's parser takes it, however odd.
    """

    properties: bytes
    body: tuple[bytes, ...]
    is_sound: bool


def raw_message(seed: int, body: bytes | None = None) -> RawMessage:
    """Return the message of this seed; with this body, where one is given."""
    chance = random.Random(seed)
    properties = _properties(chance)
    is_sound = chance.random() > 0.3
    if not is_sound:
        properties = chance.choice(_BREAKERS)(chance, properties)
    return RawMessage(properties, _frames(chance, body), is_sound)


def _properties(chance: random.Random) -> bytes:
    made: dict[str, bytes] = {
        **{name: _short(chance.choice(_TEXTS)) for name in _SHORT},
        "expiration": _short(b"3600000"),
        "user_id": _short(b"guest"),
        "timestamp": struct.pack(">Q", chance.choice(_TIMES)),
        "delivery_mode": bytes((chance.choice((1, 2)),)),
        "priority": bytes((chance.randrange(256),)),
        "headers": _headers(chance),
    }
    return join({name: value for name, value in made.items() if chance.random() < 0.45})


def _short(text: bytes) -> bytes:
    return bytes((len(text),)) + text


def _headers(chance: random.Random) -> bytes:
    shape = chance.random()
    if shape < 0.004:
        return table_of((b"%d" % number, b"V") for number in range(5000))
    if shape < 0.008:
        return table_of([(b"deep", _deep(chance.choice((10, 100, 2000))))])
    found: list[Entry] = [
        (chance.choice(_NAMES), field_value(chance)) for _ in range(chance.randrange(8))
    ]
    if chance.random() < 0.1:
        routes = b"".join(b"S" + _long(key) for key in (b"elsewhere", b"\xff"))
        found.append((chance.choice((b"CC", b"BCC")), b"A" + _long(routes)))
    return table_of(found)


def _deep(levels: int) -> bytes:
    value = b"V"
    for _ in range(levels):
        value = b"F" + _long(b"\0" + value)
    return value


def _long(value: bytes) -> bytes:
    return struct.pack(">I", len(value)) + value


def field_value(chance: random.Random, depth: int = 0) -> bytes:
    """Return a value of any type, with its type before it."""
    kind = chance.choice("tbBsuIildfDSxVTAF" if depth < 3 else "tbsIldSV")
    numbers = {"b": ">b", "B": ">B", "s": ">h", "u": ">H", "I": ">i", "i": ">I", "l": ">q"}
    tag = kind.encode()
    if kind in numbers:
        size = struct.calcsize(numbers[kind])
        edge = chance.choice((b"\0" * size, b"\xff" * size, b"\x7f" + b"\xff" * (size - 1)))
        return tag + chance.choice((edge, b"\x80" + b"\0" * (size - 1), chance.randbytes(size)))
    if kind == "A":
        items = (field_value(chance, depth + 1) for _ in range(chance.randrange(4)))
        return tag + _long(b"".join(items))
    if kind == "F":
        inner = [
            (chance.choice(_NAMES), field_value(chance, depth + 1))
            for _ in range(chance.randrange(4))
        ]
        return tag + table_of(inner)
    return tag + _OTHERS[kind](chance)


_OTHERS: Final[dict[str, Callable[[random.Random], bytes]]] = {
    "t": lambda chance: bytes((chance.choice((0, 1)),)),
    "f": lambda chance: struct.pack(">f", chance.choice(_FLOATS)),
    "d": lambda chance: struct.pack(">d", chance.choice(_DOUBLES)),
    "D": lambda chance: bytes((chance.randrange(256),)) + chance.randbytes(4),
    "S": lambda chance: _long(chance.choice(_TEXTS)),
    "x": lambda chance: _long(chance.randbytes(chance.randrange(20))),
    "V": lambda _: b"",
    "T": lambda chance: struct.pack(">Q", chance.choice(_TIMES)),
}


# --- breaking what was well formed --------------------------------------------------------------


def _cut(chance: random.Random, raw: bytes) -> bytes:
    return raw[: chance.randrange(len(raw))]


def _longer(chance: random.Random, raw: bytes) -> bytes:
    return raw + chance.randbytes(chance.randrange(1, 20))


def _hit(chance: random.Random, raw: bytes) -> bytes:
    place = chance.randrange(len(raw))
    return raw[:place] + chance.randbytes(1) + raw[place + 1 :]


def _noise(chance: random.Random, _: bytes) -> bytes:
    return chance.randbytes(chance.randrange(200))


def _other_flags(chance: random.Random, raw: bytes) -> bytes:
    return chance.randbytes(2) + raw[2:]


def _unknown_type(chance: random.Random, _: bytes) -> bytes:
    tag = chance.choice((b"Z", b"L", b"\xff", b"\0"))
    return join({"headers": table_of([(b"x", tag + chance.randbytes(8))])})


_BREAKERS: Final = (_cut, _longer, _hit, _noise, _other_flags, _unknown_type)


def _frames(chance: random.Random, body: bytes | None) -> tuple[bytes, ...]:
    whole = chance.randbytes(chance.choice((0, 0, 1, 200, 5000))) if body is None else body
    size = chance.choice((1, 7, 100_000)) if len(whole) < 1000 else 100_000
    return tuple(whole[at : at + size] for at in range(0, len(whole), size))


# --- sending it ---------------------------------------------------------------------------------


class Refused(Exception):
    """The broker closed channel or connection over it."""


class RawPublisher:
    """A connection with one channel, in confirm mode, that sends what it is given."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._sent = 0
        self._unconfirmed: set[int] = set()

    async def publish(
        self, message: RawMessage, exchange: str, routing_key: bytes, *, mandatory: bool = True
    ) -> None:
        """Send it; return once the broker has confirmed it. Raises Refused."""
        self.send(message, exchange, routing_key, mandatory=mandatory)
        await self.confirmed()

    def send(
        self, message: RawMessage, exchange: str, routing_key: bytes, *, mandatory: bool = True
    ) -> None:
        """Send it without waiting for anything."""
        self._sent += 1
        self._unconfirmed.add(self._sent)
        arguments = struct.pack(">HHH", 60, 40, 0) + _short(exchange.encode())
        arguments += _short(routing_key) + bytes((int(mandatory),))
        size = sum(map(len, message.body))
        header = struct.pack(">HHQ", 60, 0, size) + message.properties
        self._writer.write(_frame(1, arguments) + _frame(2, header))
        for part in message.body:
            self._writer.write(_frame(3, part))

    async def confirmed(self) -> None:
        """Wait until all are confirmed. Raises Refused, also when no queue took one."""
        while self._unconfirmed:
            answer = await self._next()
            if isinstance(answer, commands.Basic.Return):
                raise Refused("no queue takes it")
            if isinstance(answer, commands.Channel.Close | commands.Connection.Close):
                raise Refused(answer.reply_text)
            if isinstance(answer, commands.Basic.Ack):
                tag = answer.delivery_tag or 0
                done = range(tag + 1) if answer.multiple else (tag,)
                self._unconfirmed.difference_update(done)

    async def take(self, queue: str, count: int) -> list[tuple[bytes, bytes]]:
        """Take so many messages of a queue: of each its properties and its body, as they lie."""
        consume = commands.Basic.Consume(queue=queue, no_ack=True, consumer_tag="raw")
        await self.ask(consume, 1)
        taken = []
        for _ in range(count):
            await self._frame()
            header = (await self._frame())[1]
            (size,) = struct.unpack_from(">4xQ", header)
            body = b""
            while len(body) < size:
                body += (await self._frame())[1]
            taken.append((header[12:], body))
        await self.ask(commands.Basic.Cancel("raw"), 1)
        return taken

    async def ask(self, method: frame.FrameTypes, channel: int) -> frame.FrameTypes:
        """Send a method and return its answer."""
        self._writer.write(frame.marshal(method, channel))
        return await self._next()

    async def _next(self) -> frame.FrameTypes:
        kind, payload = await self._frame()
        return frame.unmarshal(_frame(kind, payload))[2]

    async def _frame(self) -> tuple[int, bytes]:
        """Return kind and payload of the next frame that is no heartbeat."""
        kind, payload = 8, b""
        while kind == 8:
            try:
                head = await self._reader.readexactly(_FRAME.size)
                kind, _, length = _FRAME.unpack(head)
                payload = (await self._reader.readexactly(length + 1))[:-1]
            except (asyncio.IncompleteReadError, ConnectionError) as error:
                raise Refused("the connection is gone") from error
        return kind, payload


def _frame(kind: int, payload: bytes, channel: int = 1) -> bytes:
    return _FRAME.pack(kind, channel, len(payload)) + payload + _END


@asynccontextmanager
async def raw_publisher(url: str) -> AsyncIterator[RawPublisher]:
    """Connect for the length of the block."""
    parts = urlsplit(url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    client = RawPublisher(reader, writer)
    login = f"\0{unquote(parts.username or 'guest')}\0{unquote(parts.password or 'guest')}"
    try:
        writer.write(b"AMQP\0\0\x09\x01")
        await client._next()
        start = commands.Connection.StartOk(mechanism="PLAIN", response=login)
        tune = await client.ask(start, 0)
        assert isinstance(tune, commands.Connection.Tune)
        tuned = commands.Connection.TuneOk(tune.channel_max or 0, tune.frame_max or 0, 0)
        writer.write(frame.marshal(tuned, 0))
        await client.ask(commands.Connection.Open(unquote(parts.path[1:]) or "/"), 0)
        await client.ask(commands.Channel.Open(), 1)
        await client.ask(commands.Confirm.Select(), 1)
        yield client
    finally:
        writer.close()
