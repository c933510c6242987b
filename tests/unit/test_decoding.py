"""Decoding beside the loop: nothing else waits for it, and order stays as it was."""

import asyncio
import threading
from functools import partial

import pytest

from consumer.decoding import Decoder
from consumer.document import SpecDefaults
from consumer.errors import InvalidMessage
from consumer.messages import Delivery, decode_tenant_event
from consumer.model import TenantEvent
from tests.builders import make_delivery

DECODE = partial(decode_tenant_event, defaults=SpecDefaults())
SMALL = make_delivery(1)
LARGE = make_delivery(2, body=b" " * 10_000 + SMALL.body)


class Clock:
    """Goes on only where it is told to."""

    def __init__(self) -> None:
        self.seconds = 100.0

    def __call__(self) -> float:
        return self.seconds


async def test_the_loop_turns_while_a_large_body_is_decoded() -> None:
    """What is long in decoding waits beside the loop."""
    may_go_on = threading.Event()

    def decode(delivery: Delivery) -> TenantEvent:
        assert may_go_on.wait(10), "the loop did not turn"
        return DECODE(delivery)

    asyncio.get_running_loop().call_soon(may_go_on.set)

    event = await Decoder(decode).decode(LARGE)

    assert event == DECODE(LARGE)


async def test_many_small_bodies_let_the_loop_turn_between_them() -> None:
    """After some milliseconds of decoding others get their turn."""
    clock, turns = Clock(), 0

    def decode(delivery: Delivery) -> TenantEvent:
        clock.seconds += 0.004
        return DECODE(delivery)

    async def turn() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    turning = asyncio.create_task(turn())
    decoder = Decoder(decode, clock=clock)
    for _ in range(30):
        await decoder.decode(SMALL)
    turning.cancel()

    assert turns == 10


@pytest.mark.parametrize("length", [0, 10_000])
async def test_a_refusal_comes_out_as_it_is(length: int) -> None:
    """Wherever it was decoded, a faulty document is refused with its faults."""
    with pytest.raises(InvalidMessage, match="not JSON"):
        await Decoder(DECODE).decode(make_delivery(1, body=b"!" * (length + 1)))
