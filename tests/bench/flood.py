"""Row: a flood of tenant events that change nothing, against a consumer that only parses and acks.

A third of the events are duplicates (an event id that was recorded), a third stale (a generation
below the recorded one), a third new events with the spec that is recorded; each tenant has all
three. Both sides are processes of their own with the same prefetch, on queues of the same
arguments, and take the same bytes. Each is held (SIGSTOP) while its queue is filled with
persistent, confirmed messages, so that publishing is not measured; up to a prefetch of them are on
its socket by then. The clock begins as it is let go. It ends for the floor with its last ack, for
us as soon as all are seen to be counted: after their commit, and just before the ack of the last
ones; that is looked for every 50 ms, and costs us what it takes.

What is acked is not done yet: an equal spec is answered too. How long until the last answer that
is due, and the CPU of both until all was acked, are told beside it.
"""

import asyncio
import json
import os
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from signal import SIGCONT, SIGSTOP
from tempfile import TemporaryDirectory
from typing import Final
from uuid import uuid4

import aio_pika
from aio_pika.abc import AbstractChannel, AbstractExchange, AbstractQueue

from consumer.adapters.rabbitmq_topology import Topology, queue_arguments
from deploy.lab.daemon import Daemon
from tests.bench.crowd import Crowd, crowd
from tests.bench.report import Line, Outcome, Target
from tests.bench.stand import Stand
from tests.e2e.world import until
from tests.simulated import population

_PROJECT: Final = Path(__file__).parents[2]
_TENANTS: Final = 2000
_OLD, _RECORDED = 1, 2
"""Generations."""
_PREFETCH: Final = "500"
_HEARTBEAT_SECONDS: Final = "120"
"""Longer than it takes to fill a queue: who is held sends none."""
_PUBLISHED_AT_ONCE: Final = 500
_ALL_SECONDS: Final = 120.0


@dataclass(frozen=True, slots=True)
class Flood:
    """More events at once than anybody should send, and nothing to be done about any."""

    name: str = "flood"
    title: str = f"events that change nothing for {_TENANTS:,} tenants"
    events: int = 20_000
    quick_events: int = 3_000
    rounds: int = 3
    quick_rounds: int = 3

    async def measure(self, place: Stand, *, is_quick: bool) -> Outcome:
        """Flood both by turns; each is first in every second round."""
        count = self.quick_events if is_quick else self.events
        answered: list[float] = []
        async with _sides(place, count) as (floor, ours, tenants):
            await _record_all(ours, tenants)
            for turn in range(self.quick_rounds if is_quick else self.rounds):
                # New ones for each round: what was recorded is a duplicate from then on.
                events = [_event(number) for number in range(count)]
                for side in (floor, ours) if turn % 2 else (ours, floor):
                    began = await _flood(side, events)
                    if side is ours:
                        answered.append(await _last_answer(tenants, events) - began)
        title = f"{count:,} events that change nothing"
        return Outcome(
            [
                Line(
                    name="flood",
                    title=f"{title}, until acked",
                    unit="events/s",
                    target=Target(least_ratio=1.0),
                    floor=floor.rates,
                    ours=ours.rates,
                ),
                Line(name="flood-cpu", title=f"{title}: CPU", floor=floor.cpu, ours=ours.cpu),
                Line(name="flood-answers", title=f"{title}: until answered", ours=answered),
            ]
        )


async def _record_all(ours: "_Side", tenants: Crowd) -> None:
    """Have every tenant's generation recorded, and its container seen."""
    events = [_first(number) for number in range(_TENANTS)]
    await _publish(ours, events)
    await _last_answer(tenants, events)


async def _flood(side: "_Side", events: Sequence["_Event"]) -> float:
    """Have the side take all events; return when it began."""
    side.process.send(SIGSTOP)
    try:
        await _publish(side, events)
    finally:
        cpu = side.process.cpu_seconds
        began = time.monotonic()
        side.process.send(SIGCONT)
    await until(lambda: _is_empty(side.queue), seconds=_ALL_SECONDS)
    ended = await side.all_acked()
    side.rates.append(len(events) / (ended - began))
    side.cpu.append(side.process.cpu_seconds - cpu)
    return began


async def _publish(side: "_Side", events: Sequence["_Event"]) -> None:
    for start in range(0, len(events), _PUBLISHED_AT_ONCE):
        async with asyncio.TaskGroup() as group:
            for event in events[start : start + _PUBLISHED_AT_ONCE]:
                message = aio_pika.Message(
                    event.body,
                    content_type="application/json",
                    message_id=event.event_id,
                    delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
                )
                group.create_task(side.exchange.publish(message, side.routing_key))


async def _is_empty(queue: AbstractQueue) -> bool:
    """Whether all has been delivered; what is unacked counts again once its consumer has ended."""
    seen = await queue.channel.declare_queue(queue.name, passive=True)
    return not seen.declaration_result.message_count


async def _last_answer(tenants: Crowd, events: Sequence["_Event"]) -> float:
    """Return when the last answer came: each tenant's newest stands for those before it."""
    newest = {event.tenant_id: event.event_id for event in events if not event.is_old}
    heard = [
        await tenants.clients.subscriber.expect_message(
            tenant_id, event_id=event_id, state="running", timeout=_ALL_SECONDS
        )
        for tenant_id, event_id in newest.items()
    ]
    return max(it.at for it in heard)


# --- events


@dataclass(frozen=True, slots=True)
class _Event:
    """A tenant event of a flood; an old one is a duplicate or stale, and not answered."""

    tenant_id: str
    event_id: str
    body: bytes
    is_old: bool


def _event(number: int) -> _Event:
    """Return the flood's n-th event: every tenant has all three kinds, by turns."""
    tenant = number % _TENANTS
    match number % 3:
        case 0:
            return replace(_first(tenant), is_old=True)
        case 1:
            return _told(tenant, str(uuid4()), generation=_OLD)
        case _:
            return _told(tenant, str(uuid4()), generation=None)


def _first(tenant: int) -> _Event:
    """Return what is recorded of the tenant before the first flood."""
    return replace(_told(tenant, f"first-{tenant}", generation=_RECORDED), is_old=False)


def _told(tenant: int, event_id: str, *, generation: int | None) -> _Event:
    document = population.document(tenant)
    if generation is not None:
        document["generation"] = generation
    body = json.dumps(document).encode()
    return _Event(str(document["tenant_id"]), event_id, body, is_old=generation is not None)


# --- sides


@dataclass(frozen=True, slots=True)
class _Side:
    """Who is flooded, and what came of it: one sample for each flood."""

    process: Daemon
    exchange: AbstractExchange
    routing_key: str
    queue: AbstractQueue
    all_acked: Callable[[], Awaitable[float]]
    """Waits for the end of the flood; returns when it was (`time.monotonic`)."""
    rates: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)


@asynccontextmanager
async def _sides(place: Stand, count: int) -> AsyncIterator[tuple[_Side, _Side, Crowd]]:
    """Give the floor and ours, both consuming; nothing is unacked when they have ended."""
    url = place.around.broker_url
    settings = {"BROKER__PREFETCH": _PREFETCH, "BROKER__HEARTBEAT_SECONDS": _HEARTBEAT_SECONDS}
    async with AsyncExitStack() as stack:
        # The path of a socket is short.
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="ll-")))
        tenants = await stack.enter_async_context(crowd(place, folder, "flood", _TENANTS, settings))
        await tenants.start()
        connection = await stack.enter_async_context(await aio_pika.connect(url))
        channel = await connection.channel()
        floor = await stack.enter_async_context(_floor(channel, url, folder, count))
        ours = await _ours(channel, tenants, count)
        yield floor, ours, tenants
        for side in (floor, ours):
            await asyncio.to_thread(side.process.stop)
            assert await _is_empty(side.queue), f"unacked in {side.queue.name}"


async def _ours(channel: AbstractChannel, tenants: Crowd, count: int) -> _Side:
    names = tenants.process.names
    expected = _TENANTS

    async def is_counted() -> bool:
        return await _counted(tenants) >= expected

    async def all_acked() -> float:
        nonlocal expected
        expected += count
        await until(is_counted, seconds=_ALL_SECONDS)
        return time.monotonic()

    exchange = await channel.get_exchange(names.tenant_exchange)
    queue = await channel.get_queue(names.queue)
    return _Side(tenants.process.daemon, exchange, "tenant.updated", queue, all_acked)


async def _counted(tenants: Crowd) -> float:
    """Return how many events were found news, duplicate or stale."""
    samples = (await tenants.process.metrics()).items()
    return sum(value for (name, _), value in samples if name == "landlord_tenant_events_total")


@asynccontextmanager
async def _floor(
    channel: AbstractChannel, url: str, folder: Path, count: int
) -> AsyncIterator[_Side]:
    name = f"{folder.name}-floor"
    arguments = queue_arguments(Topology(dead_letter=f"{name}-letters"))
    queue = await channel.declare_queue(name, durable=True, arguments=arguments)
    log = folder / "floor.log"
    log.touch()
    process = Daemon(
        "floor of the flood",
        (sys.executable, "-m", "tests.bench.flood_floor"),
        environment={
            **os.environ,
            "FLOOR_BROKER_URL": f"{url}?heartbeat={_HEARTBEAT_SECONDS}",
            "FLOOR_QUEUE": name,
            "FLOOR_PREFETCH": _PREFETCH,
            "FLOOR_COUNT": str(count),
        },
        log=log,
        is_ready=lambda: "ready" in log.read_text(),
        folder=_PROJECT,
    )
    floods = 0

    async def all_acked() -> float:
        nonlocal floods
        floods += 1
        await until(lambda: len(log.read_text().splitlines()) > floods)
        return float(log.read_text().splitlines()[floods])

    try:
        await asyncio.to_thread(process.start)
        yield _Side(process, channel.default_exchange, name, queue, all_acked)
    finally:
        process.kill()
        await queue.delete(if_unused=False, if_empty=False)
