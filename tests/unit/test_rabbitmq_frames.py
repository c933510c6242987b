"""Frames on their way to the client library, and how many bytes of messages are held."""

import asyncio
import inspect
import struct

import aiormq
import pytest
from aiormq.abc import DeliveredMessage
from aiormq.connection import FrameReceiver
from pamqp import body, commands, frame, header, heartbeat

from consumer.adapters.rabbitmq_frames import (
    Frames,
    InFlight,
    RawProperties,
    Share,
    received,
    returned_by,
    weight,
)
from consumer.content_header import EMPTY, bytes_entry, join, table_of, text_entry
from tests.faults.frames import raw_message

HEAD = struct.Struct(">BHI")


def framed(kind: int, payload: bytes, channel: int = 1) -> bytes:
    return HEAD.pack(kind, channel, len(payload)) + payload + b"\xce"


def delivered(tag: int, routing_key: bytes = b"tenant.created", channel: int = 1) -> bytes:
    names = b"".join(bytes((len(name),)) + name for name in (b"landlord.tenants", routing_key))
    return framed(
        1, struct.pack(">HH", 60, 60) + b"\1c" + struct.pack(">QB", tag, 0) + names, channel
    )


def returned(routing_key: bytes = b"k") -> bytes:
    names = b"\1e" + bytes((len(routing_key),)) + routing_key
    return framed(1, struct.pack(">HHH", 60, 50, 312) + b"\x08NO_ROUTE" + names)


def content(raw: bytes, *parts: bytes, channel: int = 1) -> bytes:
    size = sum(map(len, parts))
    bodies = b"".join(framed(3, part, channel) for part in parts)
    return framed(2, struct.pack(">HHQ", 60, 0, size) + raw, channel) + bodies


class Line:
    """A connection: what comes off it, as the library gets to see it."""

    def __init__(self, share: Share | None = None) -> None:
        self.source = asyncio.StreamReader()
        self._receiver = FrameReceiver(Frames(self.source, share))

    async def next(self) -> frame.FrameTypes:
        """Return the next frame as the library decodes it."""
        return (await self._receiver.get_frame())[2]

    async def message(self) -> DeliveredMessage:
        """Return the next message."""
        method, head, whole = await self.next(), await self.next(), b""
        assert isinstance(head, header.ContentHeader)
        while len(whole) < head.body_size:
            part = await self.next()
            assert isinstance(part, body.ContentBody)
            whole += part.value
        return DeliveredMessage(delivery=method, header=head, body=whole, channel=None)  # type: ignore[arg-type]


def test_the_library_takes_another_transport() -> None:
    """The seam: its connection is given one, and reads whole frames by three requests each."""
    assert "transport_factory" in inspect.signature(aiormq.Connection.__init__).parameters
    source = inspect.getsource(FrameReceiver.get_frame)
    assert source.count("self.reader.readexactly(") == 3
    assert {"at_eof", "readexactly", "read"} == {
        part.split("(")[0] for part in source.split("self.reader.")[1:]
    }


@pytest.mark.parametrize("block", range(2))
async def test_every_message_of_the_fuzzer_passes_the_library(block: int) -> None:
    """Sound or broken; what it came with is there, byte for byte."""
    line = Line()
    for seed in range(block * 1000, block * 1000 + 1000):
        message = raw_message(seed)
        line.source.feed_data(delivered(seed) + content(message.properties, *message.body))
        arrived = await line.message()
        assert received(arrived).raw == message.properties
        assert arrived.body == b"".join(message.body)
        assert arrived.delivery_tag == seed


@pytest.mark.parametrize("routing_key", [b"", b"\xff" * 255, "\u20ac".encode(), b"tenant.created"])
async def test_a_routing_key_of_any_bytes_passes(routing_key: bytes) -> None:
    """Of each channel its own."""
    line = Line()
    line.source.feed_data(delivered(1, routing_key) + content(EMPTY, b"body"))

    message = await line.message()

    odd = received(message).routing_key
    assert received(message).exchange is None
    assert message.exchange == "landlord.tenants"
    assert ((message.routing_key or "").encode() if odd is None else odd) == routing_key


async def test_channels_do_not_mix() -> None:
    """Frames of several may come in turns."""
    line = Line()
    line.source.feed_data(delivered(1, b"\xff", 1) + delivered(1, b"\xfe", 2))
    line.source.feed_data(content(EMPTY, channel=2) + content(EMPTY, channel=1))

    await line.next(), await line.next()
    second, first = await line.next(), await line.next()

    for head, key in ((second, b"\xfe"), (first, b"\xff")):
        assert isinstance(head, header.ContentHeader)
        assert head.properties.headers is not None
        assert head.properties.headers["routing-key"] == key


async def test_what_is_no_content_passes_as_it_is() -> None:
    """Methods of any other kind, heartbeats, and the end."""
    line = Line()
    asked = commands.Queue.DeclareOk("q", 3, 1)
    line.source.feed_data(frame.marshal(asked, 1) + frame.marshal(heartbeat.Heartbeat(), 0))
    line.source.feed_eof()

    first = await line.next()

    assert isinstance(first, commands.Queue.DeclareOk)
    assert isinstance(await line.next(), heartbeat.Heartbeat)
    with pytest.raises(StopAsyncIteration):
        await line.next()


@pytest.mark.parametrize(
    ("raw", "name"),
    [
        (join({"message_id": b"\1m"}), "m"),
        (join({"message_id": b"\2\xff\xfe"}), repr(b"\xff\xfe")),
        (EMPTY, "-"),
        (b"\xff", "-"),
        (join({"headers": table_of([text_entry("landlord-letter-id", "l-1")])}), "l-1"),
        (
            join(
                {
                    "message_id": b"\1m",
                    "headers": table_of(
                        [*((b"", b"V") for _ in range(9000)), text_entry("landlord-letter-id", "l")]
                    ),
                }
            ),
            "l",
        ),
        (join({"headers": table_of([bytes_entry("landlord-letter-id", b"\xff" * 300)])}), None),
        (join({"message_id": b"\xff" + b"\xff" * 255}), None),
    ],
)
async def test_what_comes_back_is_known_by_what_it_was_sent_as(
    raw: bytes, name: str | None
) -> None:
    """The library finds the publish that it belongs to, whatever its properties are."""
    line = Line()
    line.source.feed_data(returned(b"\xff") + content(raw, b"1"))

    back = await line.message()

    known = back.header.properties.message_id
    assert known == RawProperties(raw).message_id == returned_by(raw)
    assert name in (None, known)
    assert RawProperties(raw).marshal() == raw


# --- what is in flight --------------------------------------------------------------------------


@pytest.mark.looptime
async def test_no_more_is_taken_off_the_socket_than_there_is_room_for() -> None:
    """Until something is settled; meanwhile the library hears heartbeats."""
    in_flight = InFlight(10_000)
    line = Line(Share(in_flight, 5.0))
    for tag in (1, 2):
        line.source.feed_data(delivered(tag) + content(EMPTY, b"x" * 4000))

    first = await line.message()
    method = await line.next()
    began = asyncio.get_running_loop().time()
    beats = [await line.next() for _ in range(3)]
    waited = asyncio.get_running_loop().time() - began
    in_flight.give_back(weight(4000, 2))
    head = await line.next()

    assert first.delivery_tag == 1
    assert isinstance(method, commands.Basic.Deliver)
    assert waited == 15
    assert all(isinstance(beat, heartbeat.Heartbeat) for beat in beats)
    assert isinstance(head, header.ContentHeader)


async def test_one_message_always_has_room() -> None:
    """However large; otherwise it would be waited for for ever."""
    in_flight = InFlight(10)
    line = Line(Share(in_flight, 5.0))
    line.source.feed_data(delivered(1) + content(EMPTY, b"x" * 100_000))

    assert (await line.message()).body == b"x" * 100_000
    assert in_flight.held == weight(100_000, 2)


@pytest.mark.looptime
async def test_a_loss_is_noticed_while_there_is_no_room() -> None:
    """Instead of heartbeats for ever."""
    in_flight = InFlight(10)
    line = Line(Share(in_flight, 5.0))
    line.source.feed_data(delivered(1) + content(EMPTY) + delivered(2) + content(EMPTY))
    await line.message()
    await line.next()
    beat = await line.next()
    line.source.set_exception(ConnectionResetError())
    await line.next()

    assert isinstance(beat, heartbeat.Heartbeat)
    with pytest.raises(aiormq.exceptions.AMQPConnectionError):
        await line.next()


@pytest.mark.looptime
async def test_a_pause_that_fewer_messages_would_not_need_ends_the_connection() -> None:
    """In time, before the broker does: what is on its way cannot be told to wait."""
    in_flight, sizes = InFlight(10), list[int]()
    share = Share(in_flight, 4.0, note=sizes.append, is_patient=lambda: False)
    line = Line(share)
    line.source.feed_data(delivered(1) + content(EMPTY, b"x") + delivered(2) + content(EMPTY))
    await line.message()
    await line.next()

    beats = [await line.next() for _ in range(3)]
    with pytest.raises(aiormq.exceptions.AMQPConnectionError, match="too many large messages"):
        await line.next()

    assert all(isinstance(beat, heartbeat.Heartbeat) for beat in beats)
    assert asyncio.get_running_loop().time() == 12
    assert share.is_spent
    assert sizes[0] == weight(1, 2)


async def test_who_wants_room_waits_for_it() -> None:
    """Without holding it."""
    in_flight = InFlight(1000)
    in_flight.take(900)
    waiting = asyncio.create_task(in_flight.room(200))
    await asyncio.sleep(0)
    is_waiting = not waiting.done()

    in_flight.give_back(800)
    await waiting

    assert is_waiting
    assert in_flight.held == 100


async def test_what_a_connection_held_is_given_back_with_it() -> None:
    """But for what somebody else holds by now."""
    in_flight = InFlight(1000)
    share, other = Share(in_flight, 5.0), Share(in_flight, 5.0)
    assert share.take(400)
    assert share.take(500)
    assert not other.take(200)

    share.hand_over(400)
    share.close()
    share.close()

    assert share.take(300), "read on after its end, and given to nobody"
    assert in_flight.held == 400
    assert other.take(600)


async def test_headers_weigh_more_than_their_bytes() -> None:
    """As objects they cost several times as much."""
    assert weight(1000, 100) > weight(1100, 0) > 1100
