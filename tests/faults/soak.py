"""Random tenant events under random trouble, on a real broker and a real engine.

`python -m tests.faults.soak --seconds 1200 --seed 1` runs one by itself; the same seed gives the
same events and troubles in the same order. What must hold all the time is looked at while it runs:
never two running containers of one tenant. When it is over and everything is mended, each tenant
must have come to what the model says, and nothing may be lost, doubled or left over.
"""

import argparse
import asyncio
import json
import logging
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, ParamSpec, TypeVar

import aio_pika
import aiohttp
from aio_pika.abc import AbstractIncomingMessage
from aio_pika.exceptions import AMQPError
from typing_extensions import override

from deploy.lab.daemon import Daemon
from deploy.lab.docker_cli import DockerCli
from deploy.lab.packages import LabError
from deploy.lab.servers import Broker, DockerHost, free_port
from tests.conftest import import_web_image
from tests.e2e.consumer_process import ConsumerProcess
from tests.e2e.world import consumer_process, take_away
from tests.faults.plan import Expected, Message, Plan, Trouble
from tests.faults.proxy import Fate, Proxy, Request, proxy

P = ParamSpec("P")
R = TypeVar("R")

_RECOVERY_SECONDS: Final = 60.0
_SETTLE_SECONDS: Final = 120.0
_CALL_SECONDS: Final = 5.0
_LAST_WORDS: Final = 20_000
_LOST: Final = (AMQPError, ConnectionError, TimeoutError, aio_pika.exceptions.DeliveryError)
SETTINGS: Final = {
    "BROKER__HEARTBEAT_SECONDS": "5",
    "RECONCILE__RETRY_MAX_SECONDS": "4",
}
"""So that recovering takes seconds, not minutes."""


@dataclass(slots=True)
class Report:
    """What happened."""

    seed: int
    seconds: float = 0.0
    events: int = 0
    duplicates: int = 0
    stale: int = 0
    invalid: int = 0
    troubles: Counter[str] = field(default_factory=Counter)
    statuses: int = 0
    statuses_dropped: int = 0
    """Status events that came more than once."""
    worst_recovery_seconds: float = 0.0
    unremovable: dict[str, str] = field(default_factory=dict)
    """Dead containers that the engine could not remove, with their tenants: it was killed, and lost
    sight of a mount. The consumer has to get along with them."""

    @override
    def __str__(self) -> str:
        troubles = "\n".join(
            f"    {count:4} x {name}" for name, count in self.troubles.most_common()
        )
        return (
            f"seed {self.seed}, {self.seconds:.0f} s\n"
            f"  {self.events} events: {self.duplicates} duplicates, {self.stale} stale, "
            f"{self.invalid} malformed\n"
            f"  {sum(self.troubles.values())} troubles, worst recovery "
            f"{self.worst_recovery_seconds:.1f} s\n{troubles}\n"
            f"  {self.statuses} status events, {self.statuses_dropped} came twice and were dropped"
            f"\n  {len(self.unremovable)} containers that the engine could not remove"
        )


class Soak:
    """One run."""

    def __init__(
        self,
        plan: Plan,
        *,
        consumer: ConsumerProcess,
        broker: Broker,
        host: DockerHost,
        lines: tuple[Proxy, Proxy],
    ) -> None:
        self._plan = plan
        self._consumer = consumer
        self._broker = broker
        self._host = host
        self._to_broker, self._to_engine = lines
        self._docker = DockerCli(host.url)
        self._names = consumer.names
        self._heard: defaultdict[str, list[dict[str, object]]] = defaultdict(list)
        self.report = Report(plan.seed)

    async def run(self, seconds: float) -> None:
        """Run it. Raises AssertionError when something that must hold does not."""
        began = time.monotonic()
        async with asyncio.TaskGroup() as group:
            listening = group.create_task(self._listen(), name="listen")
            looking = group.create_task(self._look_for_doubles(), name="look")
            async with asyncio.TaskGroup() as busy:
                busy.create_task(self._publish(began + seconds), name="publish")
                busy.create_task(self._make_trouble(began + seconds), name="trouble")
            await self._settle()
            looking.cancel()
            listening.cancel()
        self._judge(await self._take_dead_letters())
        self._sum_up(time.monotonic() - began)

    # --- events

    async def _publish(self, until: float) -> None:
        for pause, message in self._plan.messages():
            await self._publish_surely(message)
            await asyncio.sleep(pause)
            if time.monotonic() > until:
                return

    async def _publish_surely(self, message: Message) -> None:
        outgoing = aio_pika.Message(
            message.body,
            content_type="application/json",
            message_id=message.message_id,
            delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
        )

        async def publish(channel: aio_pika.abc.AbstractChannel) -> None:
            exchange = await channel.get_exchange(self._names.tenant_exchange, ensure=False)
            await exchange.publish(outgoing, f"tenant.{message.kind}", timeout=_CALL_SECONDS)

        await self._on_broker(publish)

    async def _on_broker(
        self, work: Callable[[aio_pika.abc.AbstractChannel], Awaitable[None]]
    ) -> None:
        """Do it on a connection of its own, again and again until it succeeds."""
        while True:
            try:
                connection = await aio_pika.connect(self._broker.url, timeout=_CALL_SECONDS)
                async with connection:
                    channel = await connection.channel(on_return_raises=True)
                    await work(channel)
                    return
            except _LOST:
                await asyncio.sleep(0.2)

    async def _listen(self) -> None:
        async def hear(message: AbstractIncomingMessage) -> None:
            status = json.loads(message.body)
            self._heard[status["tenant_id"]].append(status)
            await message.ack()

        async def listen(channel: aio_pika.abc.AbstractChannel) -> None:
            queue = await channel.declare_queue(self._status_queue, durable=True)
            await queue.bind(self._names.status_exchange, "#")
            await queue.consume(hear)
            ended = asyncio.Event()
            channel.close_callbacks.add(lambda *_: ended.set())
            await ended.wait()

        while True:
            await self._on_broker(listen)

    @property
    def _status_queue(self) -> str:
        return f"{self._names.prefix}.soak"

    # --- trouble

    async def _make_trouble(self, until: float) -> None:
        for pause, trouble, seconds in self._plan.troubles():
            await asyncio.sleep(pause)
            await self._suffer(trouble, seconds)
            if time.monotonic() > until:
                return

    async def _suffer(self, trouble: Trouble, seconds: float) -> None:
        self.report.troubles[trouble.value] += 1
        async with self._unplugged(trouble):
            await asyncio.sleep(seconds)
        began = time.monotonic()
        await self._wait_until(self._is_ready, _RECOVERY_SECONDS, f"ready after {trouble.value}")
        took = time.monotonic() - began
        self.report.worst_recovery_seconds = max(self.report.worst_recovery_seconds, took)

    @asynccontextmanager
    async def _unplugged(self, trouble: Trouble) -> AsyncIterator[None]:
        """Have the trouble within the block, and none after it."""
        match trouble:
            case Trouble.KILL_CONSUMER | Trouble.STOP_CONSUMER:
                is_kill = trouble is Trouble.KILL_CONSUMER
                await _in_thread(self._consumer.kill if is_kill else self._consumer.terminate)
                yield
                await _in_thread(self._consumer.start)
            case Trouble.HOLD_BROKER | Trouble.HOLD_ENGINE:
                held = self._server_of(trouble)
                held.send(signal.SIGSTOP)
                yield
                held.send(signal.SIGCONT)
            case Trouble.RESTART_BROKER | Trouble.RESTART_ENGINE:
                await _in_thread(self._server_of(trouble).stop)
                yield
                await _in_thread(self._server_of(trouble).start)
            case Trouble.KILL_BROKER | Trouble.KILL_ENGINE:
                server = self._broker.node if trouble is Trouble.KILL_BROKER else self._host
                await _in_thread(server.kill)
                yield
                await _in_thread(server.start)
            case Trouble.REMOVE_CONTAINER | Trouble.KILL_CONTAINER | Trouble.STOP_CONTAINER:
                await _in_thread(self._meddle, trouble)
                yield
            case _:
                line = self._trouble_the_line(trouble)
                yield
                line.mend()

    def _server_of(self, trouble: Trouble) -> Daemon:
        return self._broker.node if "broker" in trouble.value else self._host.engine

    def _trouble_the_line(self, trouble: Trouble) -> Proxy:
        line = self._to_broker if "broker" in trouble.value else self._to_engine
        match trouble:
            case Trouble.DROP_BROKER_LINE | Trouble.DROP_ENGINE_LINE:
                line.drop()
            case Trouble.STALL_BROKER_LINE | Trouble.STALL_ENGINE_LINE:
                line.stall()
            case Trouble.HALF_OPEN_BROKER_LINE:
                line.half_open()
            case Trouble.CUT_BROKER_LINE:
                line.cut()
            case Trouble.SLOW_ENGINE_LINE:
                line.delay_seconds = 0.1
            case Trouble.LOSE_REQUESTS:
                line.judge = _losing(Fate.LOSE)
            case Trouble.LOSE_REPLIES:
                line.judge = _losing(Fate.LOSE_REPLY)
            case _:
                raise AssertionError(trouble)
        return line

    def _meddle(self, trouble: Trouble) -> None:
        try:
            running = self._docker.run("ps", "-q", "--filter", f"label={self._names.label}").split()
            if not running:
                return
            match trouble:
                case Trouble.REMOVE_CONTAINER:
                    self._docker.run("rm", "-f", running[0])
                case Trouble.KILL_CONTAINER:
                    self._docker.run("kill", running[-1])
                case _:
                    self._docker.run("stop", "-t", "1", running[0])
        except LabError:
            return  # the consumer was faster: it is gone already

    # --- what must hold

    async def _look_for_doubles(self) -> None:
        label = f"{self._names.prefix}.tenant_id"
        words = (
            "ps",
            "--filter",
            f"label={self._names.label}",
            "--format",
            f'{{{{.Label "{label}"}}}}',
        )
        while True:
            try:
                running = (await _in_thread(self._docker.run, *words)).split()
            except (LabError, subprocess.TimeoutExpired):
                running = []
            doubled = [tenant for tenant, count in Counter(running).items() if count > 1]
            assert not doubled, f"two running containers: {doubled}"
            await asyncio.sleep(0.3)

    async def _settle(self) -> None:
        await self._wait_until(self._is_ready, _RECOVERY_SECONDS, "ready in the end")
        await self._wait_until(self._is_quiet, _SETTLE_SECONDS, "what the model says")

    async def _is_ready(self) -> bool:
        try:
            code, _ = await self._consumer.http_get("/readyz")
        except (aiohttp.ClientError, TimeoutError):
            return False
        return code == 200

    async def _is_quiet(self) -> str | bool:
        if await self._consumer.metric("landlord_outbox_pending"):
            return "the outbox is not empty"
        for tenant_id, expected in self._plan.expected.items():
            trouble = await _in_thread(self._what_is_wrong, tenant_id, expected)
            if trouble:
                told = [status["reason"] for status in self._heard[tenant_id]][-5:]
                return f"{tenant_id}: {trouble}; last told {told}"
            # A container that was just brought back is told once it has stayed up.
            if not self._is_last_told(tenant_id, expected):
                return f"{tenant_id}: not told to be {expected.desired}"
        return True

    def _is_last_told(self, tenant_id: str, expected: Expected) -> bool:
        last = max(self._heard[tenant_id], key=lambda status: int(str(status["sequence"])))
        if expected.desired == "deleted" and tenant_id in self.report.unremovable.values():
            return last["reason"] in ("stop_failed", "deleted", "unchanged")
        return last["state"] == ("running" if expected.desired == "running" else "stopped")

    def _what_is_wrong(self, tenant_id: str, expected: Expected) -> str:
        """Return how the tenant differs from what the model says; "" when it does not."""
        try:
            return self._difference(tenant_id, expected)
        except LabError as error:
            return str(error)  # a container was replaced between the list and the look

    def _difference(self, tenant_id: str, expected: Expected) -> str:
        label = f"{self._names.prefix}.tenant_id={tenant_id}"
        containers = [
            it for it in self._docker.containers(label) if not self._is_dead(it, tenant_id)
        ]
        # A tenant that was suspended before it ever ran has none.
        allowed = {"running": {1}, "stopped": {0, 1}, "deleted": {0}}[expected.desired]
        if len(containers) not in allowed:
            return f"{len(containers)} containers, wanted {expected.desired}"
        for container in containers:
            state = self._docker.inspect(container, ".State.Status")
            name = self._docker.inspect(container, ".Name")
            environment = self._docker.inspect(container, ".Config.Env")
            if (state == "running") is not (expected.desired == "running"):
                return f"{state}, wanted {expected.desired}"
            if name != f"/{self._names.container(tenant_id)}":
                return f"is called {name}"
            is_wanted = f"VERSION={expected.version}" in environment  # type: ignore[operator]  # a list
            # What comes while a tenant is suspended is for when it is resumed.
            if expected.desired == "running" and not is_wanted:
                return f"not version {expected.version}"
        answered = {status["event_id"] for status in self._heard[tenant_id]}
        return "" if expected.last_event_id in answered else "the last event is not answered"

    def _is_dead(self, container: str, tenant_id: str) -> bool:
        """Whether the engine failed to remove it; then it can never run again."""
        if self._docker.inspect(container, ".State.Status") != "dead":
            return False
        self.report.unremovable[container] = tenant_id
        self._mend_mount(container)
        return True

    def _mend_mount(self, container: str) -> None:
        """Do what an operator would try first; it does not always help."""
        root = Path(str(self._docker.inspect(container, ".GraphDriver.Data.MergedDir")))
        # Each start of the engine mounts the folder of all roots over itself, which hides the one.
        for place in (root.parent.parent, root):
            while (
                subprocess.run(("umount", "-l", place), check=False, capture_output=True).returncode
                == 0
            ):
                pass

    async def _wait_until(
        self, holds: Callable[[], Awaitable[str | bool]], seconds: float, what: str
    ) -> None:
        deadline = time.monotonic() + seconds
        while (outcome := await holds()) is not True:
            assert time.monotonic() < deadline, f"not {what} after {seconds:g} s: {outcome}"
            await asyncio.sleep(0.1)

    def _judge(self, dead_letters: set[str]) -> None:
        assert dead_letters == self._plan.invalid, "other dead letters than what was malformed"
        for tenant_id, statuses in self._heard.items():
            sequences = sorted({int(str(status["sequence"])) for status in statuses})
            complete = list(range(sequences[0], sequences[-1] + 1))
            assert sequences == complete, f"{tenant_id}: status events are missing"
            seen = 0
            for status in statuses:
                is_news = int(str(status["sequence"])) > seen
                seen = max(seen, int(str(status["sequence"])))
                self.report.statuses += is_news
                self.report.statuses_dropped += not is_news
        for tenant_id, expected in self._plan.expected.items():
            assert self._is_last_told(tenant_id, expected), self._heard[tenant_id][-1]

    async def _take_dead_letters(self) -> set[str]:
        taken: set[str] = set()

        async def take(channel: aio_pika.abc.AbstractChannel) -> None:
            backlog = await channel.declare_queue(self._names.queue, passive=True)
            assert backlog.declaration_result.message_count == 0, "the queue is not empty"
            queue = await channel.get_queue(self._names.dead_letter, ensure=False)
            while letter := await queue.get(no_ack=True, fail=False, timeout=_CALL_SECONDS):
                taken.add(str(letter.message_id))
            await channel.queue_delete(self._status_queue)

        await self._on_broker(take)
        return taken

    def _sum_up(self, seconds: float) -> None:
        plan, report = self._plan, self.report
        report.seconds = seconds
        report.events, report.duplicates, report.stale = plan.events, plan.duplicates, plan.stale
        report.invalid = len(plan.invalid)


def _losing(fate: Fate) -> Callable[[Request], Awaitable[Fate]]:
    """Return a judge that lets every third request meet this fate."""
    seen = 0

    async def judge(_: Request) -> Fate:
        nonlocal seen
        seen += 1
        return fate if seen % 3 == 0 else Fate.PASS

    return judge


async def _in_thread(work: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    # The proxies run in the loop; nothing may block it.
    return await asyncio.to_thread(work, *args, **kwargs)


async def soak(
    broker: Broker, host: DockerHost, folder: Path, *, seed: int, seconds: float
) -> Report:
    """Run one soak on these servers and return what happened."""
    front, port = folder / "engine.sock", free_port()
    engine_place = Path(host.url.removeprefix("unix://"))
    async with AsyncExitStack() as stack:
        to_engine = await stack.enter_async_context(proxy(engine_place, front))
        to_broker = await stack.enter_async_context(
            proxy(("127.0.0.1", broker.port), ("127.0.0.1", port))
        )
        broker_url = broker.url.replace(str(broker.port), str(port))
        consumer = stack.enter_context(
            consumer_process(broker_url, f"unix://{front}", folder, **SETTINGS)
        )
        await _in_thread(consumer.start)
        run = Soak(
            Plan(seed), consumer=consumer, broker=broker, host=host, lines=(to_broker, to_engine)
        )
        try:
            await run.run(seconds)
        except BaseException:
            sys.stderr.write(
                f"--- what the consumer logged\n{consumer.log_text()[-_LAST_WORDS:]}\n"
            )
            raise
        consumer.kill()
        await take_away(broker, host, consumer.names)
    return run.report


def main() -> int:
    """Run one by itself; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=1200.0)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    chosen = parser.parse_args()
    # A broker that is away is what this is about.
    logging.getLogger("aiormq").setLevel(logging.CRITICAL + 1)
    with tempfile.TemporaryDirectory(prefix="landlord-soak-") as name:
        folder = Path(name)
        broker, host = Broker(folder / "broker"), DockerHost(folder / "docker")
        try:
            broker.start()
            host.start()
            import_web_image(host)
            (folder / "run").mkdir()
            sys.stdout.write(f"seed {chosen.seed}, {chosen.seconds:g} s\n")
            sys.stdout.flush()
            running = soak(broker, host, folder / "run", seed=chosen.seed, seconds=chosen.seconds)
            sys.stdout.write(f"{asyncio.run(running)}\n")
        finally:
            host.close()
            broker.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
