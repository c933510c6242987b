"""Odd tenant events by the thousand, on a real broker and engine, and who is served meanwhile.

`python -m tests.faults.barrage --count 100000 --seed 1` runs one by itself. Beside it a tenant that
behaves well is published every second. What must hold: the process is never started again and never
loses the broker, its memory comes to a plateau, its loop turns, every message is answered or in the
dead-letter queue byte for byte, none is there twice, and who behaves well waits no longer than on a
quiet day.
"""

import argparse
import asyncio
import http.client
import statistics
import struct
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Final

from pamqp import commands
from typing_extensions import override

from consumer.content_header import Malformed
from deploy.lab.servers import Broker, DockerHost
from tests.conftest import import_web_image
from tests.e2e.world import World, make_document, own_world, until
from tests.faults.frames import RawPublisher, raw_publisher
from tests.faults.fuzzed import Fuzzer
from tests.faults.letters import Letters

SETTINGS: Final = {"COMPUTE__POLICY__IMAGES": '["landlord-test/*"]'}
"""So that no odd document makes the engine fetch something."""
_SIDE_BY_SIDE: Final = 25
_EACH_SECOND: Final = 100
"""Below what a consumer takes on a machine of two cores: a queue is first come, first served."""
_MOST_WAITING: Final = 200
"""How many may be published and not yet counted by the consumer, where it takes fewer."""
_SETTLE_SECONDS: Final = 120.0


@dataclass(slots=True)
class Report:
    """What happened."""

    seed: int
    count: int
    seconds: float = 0.0
    sorts: Counter[str] = field(default_factory=Counter)
    outcomes: Counter[str] = field(default_factory=Counter)
    letters: int = 0
    copies: int = 0
    """Of dead letters: one that the broker does not confirm in time is published again."""
    quiet: list[float] = field(default_factory=list)
    """Seconds from publishing a well-behaved tenant to `running`, before."""
    busy: list[float] = field(default_factory=list)
    """The same, meanwhile."""
    answers: list[float] = field(default_factory=list)
    """Seconds that `/healthz` took, meanwhile."""
    memory: list[int] = field(default_factory=list)
    """In kilobytes, as time went."""

    @property
    def plateau(self) -> float:
        """Memory in the middle of the run, in kilobytes."""
        if not self.memory:
            return 0.0
        half = len(self.memory) // 2
        return statistics.median(self.memory[half - half // 4 : half + half // 4 + 1])

    @property
    def end(self) -> float:
        """Memory at the end of the run, in kilobytes."""
        return statistics.median(self.memory[-5:] or [0])

    @override
    def __str__(self) -> str:
        return "\n".join(
            (
                f"seed {self.seed}: {self.count} messages in {self.seconds:.0f} s",
                f"  sorts      {dict(self.sorts)}",
                f"  outcomes   {dict(self.outcomes)}",
                f"  letters    {self.letters}, copies {self.copies}",
                f"  tenant     quiet {_told(self.quiet)}; meanwhile {_told(self.busy)}",
                f"  /healthz   {_told(self.answers)}",
                f"  MiB        {_mib(self.plateau)}, at the end {_mib(self.end)}",
            )
        )


def rank(seconds: list[float], share: float) -> float:
    """Return below what so many of them lie."""
    ordered = sorted(seconds)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def _mib(kilobytes: float) -> str:
    return f"{kilobytes / 1024:.1f}"


def _told(seconds: list[float]) -> str:
    if not seconds:
        return "none"
    return (
        f"p50 {rank(seconds, 0.5):.3f} p99 {rank(seconds, 0.99):.3f} max {max(seconds):.3f} s"
        f" of {len(seconds)}"
    )


# --- who behaves well ---------------------------------------------------------------------------


class Steady:
    """A tenant that is created and deleted again, one every second."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.events = 0
        self.is_over = False

    async def measure(self, seconds: list[float], count: float) -> None:
        """Add how long each takes to run, so often, or until it is over."""
        while count > 0 and not self.is_over:
            count -= 1
            began = time.monotonic()
            seconds.append(await self._one())
            await asyncio.sleep(max(0.0, 1.0 - (time.monotonic() - began)))

    async def _one(self) -> float:
        tenant_id = f"steady-{self.events}"
        began = time.monotonic()
        await self._world.publisher.create(make_document(tenant_id))
        self.events += 1
        heard = await self._world.subscriber.expect_message(tenant_id, state="running", timeout=60)
        await self._world.publisher.tell("deleted", tenant_id)
        self.events += 1
        return heard.at - began


# --- what comes back ----------------------------------------------------------------------------


async def _take_letters(broker_url: str, queue: str, letters: Letters) -> None:
    """Take dead letters until cancelled."""
    async with raw_publisher(broker_url) as client:
        while True:
            if not await _take_letter(client, queue, letters):
                await asyncio.sleep(0.05)


async def _take_letter(client: RawPublisher, queue: str, letters: Letters) -> bool:
    answer = await client.ask(commands.Basic.Get(queue=queue, no_ack=True), 1)
    if not isinstance(answer, commands.Basic.GetOk):
        return False
    header = (await client._frame())[1]
    (size,) = struct.unpack_from(">4xQ", header)
    body = b""
    while len(body) < size:
        body += (await client._frame())[1]
    try:
        letters.dead_lettered(header[12:], body)
    except Malformed as error:
        raise AssertionError(f"a dead letter that cannot be read: {header[12:]!r}") from error
    return True


# --- the run ------------------------------------------------------------------------------------


class Barrage:
    """One run on a consumer of its own."""

    def __init__(self, world: World, broker: Broker, report: Report) -> None:
        self._world = world
        self._broker = broker
        self._report = report
        self._letters = Letters()
        self._steady = Steady(world)
        self._published = 0

    async def run(self, *, quiet: int) -> None:
        """Measure on a quiet day, then publish them all, and see what has become of them."""
        report = self._report
        await self._steady.measure([], 3)
        await self._steady.measure(report.quiet, quiet)
        pid, began = self._world.consumer.daemon.pid, time.monotonic()
        async with asyncio.TaskGroup() as group:
            taking = group.create_task(
                _take_letters(self._broker.url, self._world.names.dead_letter, self._letters)
            )
            steady = group.create_task(self._steady.measure(report.busy, float("inf")))
            with self._looking():
                await self._publish()
                await self._until_counted()
            report.seconds = time.monotonic() - began
            self._steady.is_over = True
            await steady
            await self._until_all_letters_are_taken()
            taking.cancel()
        assert self._world.consumer.daemon.pid == pid
        assert self._world.consumer.is_running
        await self._see_that_all_are_answered()

    async def _publish(self) -> None:
        fuzzer = Fuzzer(self._report.seed)
        messages = islice(fuzzer.messages(), self._report.count)
        due = time.monotonic()
        async with raw_publisher(self._broker.url) as client:
            while batch := list(islice(messages, _SIDE_BY_SIDE)):
                for fuzzed in batch:
                    self._letters.sent(fuzzed)
                    self._report.sorts[fuzzed.sort] += 1
                    client.send(
                        fuzzed.message, self._world.names.tenant_exchange, fuzzed.key.encode()
                    )
                await client.confirmed()
                self._published += len(batch)
                due = max(due + len(batch) / _EACH_SECOND, time.monotonic())
                await asyncio.sleep(due - time.monotonic())
                if self._published % (10 * _SIDE_BY_SIDE) == 0:
                    await self._until_few_wait()

    async def _until_few_wait(self) -> None:
        async def do_few_wait() -> bool:
            return self._published - await self._counted() < _MOST_WAITING

        await until(do_few_wait, seconds=_SETTLE_SECONDS)

    async def _counted(self) -> int:
        """Return how many of ours have an outcome."""
        self._report.outcomes = outcomes = Counter[str]()
        for (name, labels), value in (await self._world.consumer.metrics()).items():
            if name == "landlord_tenant_events_total":
                outcomes[dict(labels)["outcome"]] += int(value)
        return outcomes.total() - self._steady.events

    async def _until_counted(self) -> None:
        async def are_counted() -> bool:
            return await self._counted() >= self._published

        await until(are_counted, seconds=_SETTLE_SECONDS)

    async def _until_all_letters_are_taken(self) -> None:
        await self._until_counted()
        wanted = self._report.outcomes["dead_lettered"]
        letters = self._letters
        await until(lambda: letters.count - letters.copies >= wanted, seconds=_SETTLE_SECONDS)
        await asyncio.sleep(1)
        self._report.letters, self._report.copies = wanted, letters.copies
        assert letters.count - letters.copies == wanted, "more dead letters than were told"
        assert await self._counted() == self._published, "more outcomes than messages"

    async def _see_that_all_are_answered(self) -> None:
        """See each tenant answered at the end: its newest answer stands for those before it.

        A status that the broker does not confirm in time comes once more, but none comes late.
        """
        subscriber = self._world.subscriber
        for tenant_id in sorted({fuzzed.tenant_id or "" for fuzzed in self._letters.valid}):
            event_id = await self._world.publisher.tell("deleted", tenant_id)
            await subscriber.expect(tenant_id, event_id=event_id, timeout=_SETTLE_SECONDS)
            sequences = subscriber.arrivals(tenant_id)
            assert sequences == sorted(sequences), f"{tenant_id}: a status came late"

    @contextmanager
    def _looking(self) -> Iterator[None]:
        """Look at memory and loop, by a thread, for the length of the block."""
        is_over = threading.Event()
        thread = threading.Thread(target=self._look, args=(is_over,))
        thread.start()
        try:
            yield
        finally:
            is_over.set()
            thread.join()

    def _look(self, is_over: threading.Event) -> None:
        consumer, report = self._world.consumer, self._report
        while not is_over.wait(0.2):
            report.memory.append(consumer.memory_kilobytes)
            connection = http.client.HTTPConnection("127.0.0.1", consumer.http_port, timeout=30)
            began = time.monotonic()
            connection.request("GET", "/healthz")
            connection.getresponse().read()
            report.answers.append(time.monotonic() - began)
            connection.close()


async def barrage(
    broker: Broker, host: DockerHost, folder: Path, *, seed: int, count: int, quiet: int
) -> Report:
    """Run one on these servers and return what happened."""
    report = Report(seed, count)
    async with own_world(broker, host, folder, **SETTINGS) as world:
        try:
            await Barrage(world, broker, report).run(quiet=quiet)
        except BaseException:
            sys.stderr.write(
                f"{report}\n--- the consumer's log\n{world.consumer.log_text()[-20_000:]}\n"
            )
            raise
        told = Counter(str(line.get("event")) for line in world.consumer.log_lines())
        assert told["broker session lost"] == 0
        assert told["fault of ours"] == 0
        assert report.copies == 0 or told["dead letter not taken"], "a dead letter came twice"
    return report


def main() -> int:
    """Run one by itself; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--quiet", type=int, default=100, help="quiet seconds before")
    parser.add_argument("--seed", type=int, default=int(time.time()))
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="landlord-fuzz-") as name:
        folder = Path(name)
        broker, host = Broker(folder / "broker"), DockerHost(folder / "docker")
        try:
            broker.start()
            host.start()
            import_web_image(host)
            (folder / "run").mkdir()
            sys.stdout.write(f"seed {chosen.seed}, {chosen.count} messages\n")
            sys.stdout.flush()
            running = barrage(
                broker,
                host,
                folder / "run",
                seed=chosen.seed,
                count=chosen.count,
                quiet=chosen.quiet,
            )
            sys.stdout.write(f"{asyncio.run(running)}\n")
        finally:
            host.close()
            broker.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
