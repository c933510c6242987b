"""Between socket and client library: no frame of a message can end a session, nor fill the memory.

The library decodes whatever comes before anybody sees it, and ends the session where it cannot; the
broker then delivers the same message again, for ever. So its reader is given frames through here
(by `transport_factory`, its own way of having another transport): properties and headers go past it
as plain bytes, and so do names that are no text. `received` gives them back, as they came.

Besides, it is here that memory is bounded. Prefetch counts messages; `InFlight` counts bytes, and
while there are too many nothing more is taken off the socket. The library is then told that the
peer lives, by heartbeats of ours: it listens to nobody else meanwhile. It is a pause, and no way to
wait: see `prefetch` for what keeps it short.
"""

import asyncio
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from aiormq.abc import DeliveredMessage
from aiormq.connection import TCPTransportFactory, TLSTransportFactory, TransportFactory
from pamqp.commands import Basic
from typing_extensions import override

from consumer.content_header import (
    EMPTY,
    NO_HEADERS,
    Malformed,
    bytes_entry,
    join,
    short_text,
    split,
    table_of,
)
from consumer.letters import LETTER_ID

_HEAD: Final = struct.Struct(">BHI")
_METHOD, _HEADER, _HEARTBEAT = 1, 2, 8
_END: Final = b"\xce"
_HEARTBEAT_FRAME: Final = _HEAD.pack(_HEARTBEAT, 0, 0) + _END
_BASIC: Final = 60
_RETURN, _DELIVER, _GET_OK = (struct.pack(">HH", _BASIC, method) for method in (50, 60, 71))
_WITH_CONTENT: Final = frozenset((_RETURN, _DELIVER, _GET_OK))
_BEFORE_PROPERTIES: Final = 12
_LENGTH: Final = struct.Struct(">I")
_HEADERS_ALONE: Final = join({"headers": b""})
_BEFORE_RAW: Final = b"\3rawx"
_BODY_SIZE: Final = struct.Struct(">4xQ")

_RAW, _EXCHANGE, _ROUTING_KEY = "raw", "exchange", "routing-key"
_BEFORE_LETTER_ID: Final = bytes((len(LETTER_ID),)) + LETTER_ID.encode() + b"S"
_LONGEST_ID: Final = 60
"""Of characters, so that they are a short text in any script."""

_OF_EACH_BYTE: Final = 8
"""What a byte of headers costs as objects, at most."""
_OF_EACH_MESSAGE: Final = 4096
PAUSE_SECONDS: Final = 10.0
"""A pause is no longer: RabbitMQ ends a connection when its sending stalls for half a minute."""


# --- what is in flight ------------------------------------------------------------------------


def weight(body_size: int, properties_size: int) -> int:
    """Return how many bytes of memory a message costs until it is settled."""
    return body_size + properties_size * _OF_EACH_BYTE + _OF_EACH_MESSAGE


class InFlight:
    """How many bytes of messages are held; who wants more waits. One message always has room."""

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._held = 0
        self._has_changed = asyncio.Event()

    @property
    def held(self) -> int:
        """How many bytes are held."""
        return self._held

    def take(self, size: int) -> bool:
        """Hold so many more; return False, holding nothing, when there is no room for them."""
        has_room = self.has_room(size)
        self._held += size if has_room else 0
        return has_room

    def has_room(self, size: int) -> bool:
        """Whether there is room for so many more."""
        return not self._held or self._held + size <= self._most_bytes

    def give_back(self, size: int) -> None:
        """Hold so many less."""
        self._held -= size
        self._has_changed.set()

    async def room(self, size: int) -> None:
        """Wait until there is room for so many more, without holding them."""
        while not self.has_room(size):
            self._has_changed.clear()
            await self._has_changed.wait()

    async def change(self, seconds: float) -> None:
        """Wait until something was given back, or for so long."""
        self._has_changed.clear()
        try:
            async with asyncio.timeout(seconds):
                await self._has_changed.wait()
        except TimeoutError:
            return


@dataclass(slots=True)
class Share:
    """What one connection has of what is in flight.

    `note` is told the size of each message that comes. `is_patient` says whether a message that has
    no room for long may wait for it; otherwise the connection ends, so that whoever opens the next
    one can ask for fewer.
    """

    in_flight: InFlight
    beat_seconds: float
    """How often the library wants to hear that the peer lives."""
    patience_seconds: float = PAUSE_SECONDS
    note: Callable[[int], None] = lambda _: None
    is_patient: Callable[[], bool] = lambda: True
    held: int = 0
    is_spent: bool = False
    """Whether the connection ended because it had more on its way than there was room for."""
    is_closed: bool = False

    def take(self, size: int) -> bool:
        """Hold so many more, if there is room; nothing more once it is closed."""
        if self.is_closed:
            return True  # the library may read on for a moment; nobody gets it, or gives it back
        self.note(size)
        has_room = self.in_flight.take(size)
        self.held += size if has_room else 0
        return has_room

    def hand_over(self, size: int) -> None:
        """Hold so many less, because somebody else does now."""
        self.held -= size

    def close(self) -> None:
        """Give back what is held: nothing more comes."""
        self.is_closed = True
        held, self.held = self.held, 0
        self.in_flight.give_back(held)


# --- frames -----------------------------------------------------------------------------------


class Frames(asyncio.StreamReader):
    """The frames of a connection, as the library can bear them.

    The library asks for the bytes of one frame after the other; each is read whole first.
    """

    def __init__(self, source: asyncio.StreamReader, share: Share | None) -> None:
        super().__init__()
        self._source = source
        self._share = share
        self._frame = b""
        self._given = 0
        """So much of the frame the library has."""
        self._waiting: bytes | None = None
        """A header whose message has no room yet."""
        self._paused_seconds = 0.0
        self._methods: dict[int, tuple[bytes, dict[str, bytes]]] = {}
        """By channel: whose content comes next, and its names that are no text."""

    @override
    def at_eof(self) -> bool:
        has_more = self._given < len(self._frame) or self._waiting is not None
        return not has_more and self._source.at_eof()

    @override
    async def readexactly(self, n: int) -> bytes:
        """Return so many bytes; a request never reaches beyond its frame."""
        if self._given == len(self._frame):
            self._frame, self._given = await self._next(), 0
        part = self._frame[self._given : self._given + n]
        self._given += len(part)
        return part

    async def _next(self) -> bytes:
        if self._waiting is None:
            head = await self._source.readexactly(_HEAD.size)
            kind, channel, length = _HEAD.unpack(head)
            rest = await self._source.readexactly(length + 1)
            if kind == _METHOD and rest[:4] in _WITH_CONTENT:
                return _frame(kind, channel, self._method(channel, rest[:-1]))
            if kind != _HEADER:
                return head + rest
            self._waiting = head + rest[:-1]
        return await self._content()

    async def _content(self) -> bytes:
        """Return the header that waits, once there is room for its message; till then a sign."""
        waiting = self._waiting or b""
        _, channel, _ = _HEAD.unpack_from(waiting)
        payload = waiting[_HEAD.size :]
        method, names = self._methods.get(channel, (_DELIVER, {}))
        share = self._share
        if share is not None and method != _RETURN and self._source.exception() is None:
            (body_size,) = _BODY_SIZE.unpack_from(payload)
            size = weight(body_size, len(payload) - _BEFORE_PROPERTIES)
            if not share.take(size):
                await self._pause(share)
                return _HEARTBEAT_FRAME
        self._waiting, self._paused_seconds = None, 0.0
        self._methods.pop(channel, None)
        raw = payload[_BEFORE_PROPERTIES:]
        passed = _named(raw) if method == _RETURN else _wrapped(raw, names)
        return _frame(_HEADER, channel, payload[:_BEFORE_PROPERTIES] + passed)

    async def _pause(self, share: Share) -> None:
        if self._paused_seconds >= share.patience_seconds and not share.is_patient():
            share.is_spent = True
            raise ConnectionAbortedError("too many large messages on their way")
        loop = asyncio.get_running_loop()
        began = loop.time()
        await share.in_flight.change(share.beat_seconds)
        self._paused_seconds += loop.time() - began

    def _method(self, channel: int, payload: bytes) -> bytes:
        """Remember whose content comes next; take out its names that are no text."""
        method = payload[:4]
        passed, names = _cleaned(method, payload)
        self._methods[channel] = (method, names)
        return passed


def _frame(kind: int, channel: int, payload: bytes) -> bytes:
    return _HEAD.pack(kind, channel, len(payload)) + payload + _END


def _cleaned(method: bytes, payload: bytes) -> tuple[bytes, dict[str, bytes]]:
    """Return the method without names that are no text, and those names."""
    begin = _names_begin(method, payload)
    middle = begin + 1 + payload[begin]
    end = middle + 1 + payload[middle]
    exchange, key = payload[begin + 1 : middle], payload[middle + 1 : end]
    if exchange.isascii() and key.isascii():
        return payload, {}
    odd = {
        name: value
        for name, value in ((_EXCHANGE, exchange), (_ROUTING_KEY, key))
        if not _is_text(value)
    }
    if not odd:
        return payload, {}
    kept = [
        b"\0" if name in odd else bytes((len(value),)) + value
        for name, value in ((_EXCHANGE, exchange), (_ROUTING_KEY, key))
    ]
    return payload[:begin] + b"".join(kept) + payload[end:], odd


def _names_begin(method: bytes, payload: bytes) -> int:
    """Return where the names of exchange and routing key are."""
    if method == _GET_OK:
        return 4 + 8 + 1
    if method == _RETURN:
        return 4 + 2 + 1 + payload[6]
    return 4 + 1 + payload[4] + 8 + 1


def _is_text(value: bytes) -> bool:
    try:
        value.decode()
    except UnicodeDecodeError:
        return False
    return True


def _wrapped(raw: bytes, names: dict[str, bytes]) -> bytes:
    """Return properties that hold all this as bytes, which is nothing that fails to decode."""
    table = b"".join((_BEFORE_RAW, _LENGTH.pack(len(raw)), raw))
    if names:
        table += table_of(bytes_entry(*name) for name in names.items())[_LENGTH.size :]
    return b"".join((_HEADERS_ALONE, _LENGTH.pack(len(table)), table))


def _named(raw: bytes) -> bytes:
    """Return properties that hold nothing but what the library knows the message by."""
    return join({"message_id": short_text(returned_by(raw))})


def returned_by(raw: bytes) -> str:
    """Return by which name the library is to know a message with these properties.

    It is the same for what was sent and for what comes back. A letter has a name of its own; of
    others with one message id, or none, only one at a time may be on its way in a channel. However
    many headers there are, it costs next to nothing: this is done in the loop.
    """
    try:
        parts = split(raw)
    except Malformed:
        return "-"
    message_id = parts.get("message_id", b"\0")[1:]
    return _letter_id(parts.get("headers", NO_HEADERS)) or _as_name(message_id) or "-"


def _as_name(message_id: bytes) -> str:
    try:
        return message_id.decode()
    except UnicodeDecodeError:
        return repr(message_id)[:_LONGEST_ID]


def _letter_id(table: bytes) -> str:
    """Return the letter's own name, which is the last header of a letter; else nothing."""
    value = table.rpartition(_BEFORE_LETTER_ID)[2]
    length, name = value[: _LENGTH.size], value[_LENGTH.size :]
    if length != _LENGTH.pack(len(name)) or len(value) == len(table):
        return ""
    return name.decode("utf-8", "backslashreplace")[:_LONGEST_ID]


# --- the seam ---------------------------------------------------------------------------------


class FrameTransport(TransportFactory):
    """Opens a connection whose frames come through here."""

    def __init__(self, share: Share | None = None) -> None:
        self._share = share

    @override
    async def create(
        self, url: Any, **kwargs: Any
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        plain = TLSTransportFactory() if url.scheme == "amqps" else TCPTransportFactory()
        reader, writer = await plain.create(url, **kwargs)
        return Frames(reader, self._share), writer


@dataclass(frozen=True, slots=True)
class Received:
    """A message's properties as they came; and the names by which it came that are no text."""

    raw: bytes
    exchange: bytes | None
    routing_key: bytes | None


def received(message: DeliveredMessage) -> Received:
    """Return what was taken past the library; the message has to have come through `Frames`."""
    headers = message.header.properties.headers or {}
    raw, exchange, key = headers.get(_RAW), headers.get(_EXCHANGE), headers.get(_ROUTING_KEY)
    return Received(
        raw=bytes(raw) if isinstance(raw, bytearray) else EMPTY,
        exchange=bytes(exchange) if isinstance(exchange, bytearray) else None,
        routing_key=bytes(key) if isinstance(key, bytearray) else None,
    )


class RawProperties(Basic.Properties):
    """Properties that are sent as the bytes that they are given as."""

    def __init__(self, raw: bytes) -> None:
        super().__init__(message_id=returned_by(raw))
        self._raw = raw

    @override
    def marshal(self) -> bytes:
        return self._raw
