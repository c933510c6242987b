"""Who can make and remove many containers: bare loops, what people use instead of us, and we.

All make the same containers on the same engine, and tell how long all took. How long each single
one took is read from the engine afterwards, for all in the same way.
"""

import asyncio
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Final, Protocol

import aio_pika
import docker as docker_py
from aio_pika.abc import AbstractChannel, AbstractIncomingMessage, AbstractQueue
from typing_extensions import override

from deploy.lab.packages import find
from tests.bench.stand import Stand, twin_document

LABEL: Final = "landlord-bench.burst"
"""The label of every container of a burst that is not ours."""
_READY_SECONDS: Final = 30.0
_ALL_SECONDS: Final = 300.0


class Maker(Protocol):
    """Makes a burst of containers."""

    name: str

    async def create(self, stand: Stand, count: int) -> float:
        """Make that many running containers; return the seconds until all were there."""
        ...


class Contender(Maker, Protocol):
    """Removes them too, as gently as we do."""

    async def delete(self, stand: Stand, count: int) -> float:
        """Remove them; return the seconds until all were gone."""
        ...


class Ours:
    """A consumer: from the first event published to the last answer received."""

    name = "landlord-consumer"

    async def create(self, stand: Stand, count: int) -> float:
        """Publish all at once, and wait for every `running`."""
        publisher = stand.clients.publisher
        documents = [stand.document(f"burst-{number}") for number in range(count)]
        return await self._answered(stand, [publisher.create(it) for it in documents])

    async def delete(self, stand: Stand, count: int) -> float:
        """Publish all at once, and wait for every `deleted`."""
        publisher = stand.clients.publisher
        names = [f"burst-{number}" for number in range(count)]
        return await self._answered(stand, [publisher.tell("deleted", it) for it in names])

    @staticmethod
    async def _answered(stand: Stand, publications: Sequence[Awaitable[str]]) -> float:
        began = time.monotonic()
        event_ids = await asyncio.gather(*publications)
        heard = [
            await stand.answer(f"burst-{number}", event_id, seconds=_ALL_SECONDS)
            for number, event_id in enumerate(event_ids)
        ]
        assert {it.status["state"] for it in heard} <= {"running", "stopped"}
        return max(it.at for it in heard) - began


class BareLoop:
    """A script on aiodocker with a fixed number on their way: no broker, no ledger."""

    def __init__(self, width: int, model: dict[str, object]) -> None:
        self.width = width
        self.name = f"aiodocker, {width} at a time"
        self._document = burst_document(model)

    @override
    def __repr__(self) -> str:
        return f"<BareLoop {self.width}>"

    async def create(self, stand: Stand, count: int) -> float:
        """Create and start each."""

        async def make(number: int) -> None:
            name = stand.name(f"burst-{number}")
            made = await stand.docker.containers.create(self._document, name=name)  # type: ignore[arg-type]  # JSON
            await made.start()

        return await side_by_side(self.width, make, range(count))

    async def delete(self, stand: Stand, count: int) -> float:
        """Stop and remove each."""

        async def remove(number: int) -> None:
            made = stand.docker.containers.container(stand.name(f"burst-{number}"))
            await made.stop(t=10)
            await made.delete(force=True, v=True)

        return await side_by_side(self.width, remove, range(count))


class _Threads:
    """Programs that block, some at a time."""

    def __init__(self, width: int) -> None:
        self.width = width

    async def _all(self, work: Callable[[int], None], count: int) -> float:
        began = time.monotonic()
        with ThreadPoolExecutor(self.width) as pool:
            loop = asyncio.get_running_loop()
            await asyncio.gather(
                *(loop.run_in_executor(pool, work, number) for number in range(count))
            )
        return time.monotonic() - began


class DockerCommand(_Threads):
    """A loop of `docker run -d` in a shell."""

    def __init__(self, width: int, image: str) -> None:
        super().__init__(width)
        self.name = f"docker run -d, {width} at a time"
        self._image = image

    async def create(self, stand: Stand, count: int) -> float:
        """Run the command for each."""
        words = ("run", "-d", "-m", "64m", "--cpus", "1", "--label", f"{LABEL}=1")

        def run(number: int) -> None:
            name = stand.name(f"burst-{number}")
            self._docker(stand, *words, "--name", name, self._image)

        return await self._all(run, count)

    @staticmethod
    def _docker(stand: Stand, *words: str) -> None:
        command = [find("docker"), "-H", stand.around.docker_host, *words]
        subprocess.run(command, check=True, capture_output=True, timeout=_ALL_SECONDS)


class DockerPy(_Threads):
    """Docker's own library for Python, with a pool of threads; it knows no asyncio."""

    def __init__(self, width: int, image: str) -> None:
        super().__init__(width)
        self.name = f"docker-py, {width} threads"
        self._image = image
        self._local = threading.local()

    async def create(self, stand: Stand, count: int) -> float:
        """Call `run` for each."""

        def run(number: int) -> None:
            self._client(stand).containers.run(
                self._image,
                name=stand.name(f"burst-{number}"),
                detach=True,
                mem_limit="64m",
                nano_cpus=10**9,
                labels={LABEL: "1"},
            )

        return await self._all(run, count)

    def _client(self, stand: Stand) -> docker_py.DockerClient:
        if not hasattr(self._local, "client"):
            self._local.client = docker_py.DockerClient(base_url=stand.around.docker_host)
        client: docker_py.DockerClient = self._local.client
        return client


class FastStream:
    """A consumer in FastStream that starts a container for each event, and keeps no ledger.

    What a team would write in an afternoon: acknowledged after the start, published `running`.
    """

    def __init__(self, prefetch: int, model: dict[str, object]) -> None:
        self.name = f"FastStream, prefetch {prefetch}"
        self._prefetch = prefetch
        self._document = burst_document(model)

    async def create(self, stand: Stand, count: int) -> float:
        """Publish all at once, and wait for every `running`."""
        async with self._connected(stand) as (channel, work, answers):
            done: asyncio.Future[float] = asyncio.get_running_loop().create_future()
            heard: set[bytes] = set()

            async def hear(message: AbstractIncomingMessage) -> None:
                heard.add(message.body)
                if len(heard) == count:
                    done.set_result(time.monotonic())

            await answers.consume(hear, no_ack=True)
            began = time.monotonic()
            for number in range(count):
                body = {"name": stand.name(f"burst-{number}"), "document": self._document}
                message = aio_pika.Message(
                    json.dumps(body).encode(),
                    content_type="application/json",
                    delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
                )
                await channel.default_exchange.publish(message, work.name)
            return await asyncio.wait_for(done, _ALL_SECONDS) - began

    @asynccontextmanager
    async def _connected(
        self, stand: Stand
    ) -> AsyncIterator[tuple[AbstractChannel, AbstractQueue, AbstractQueue]]:
        connection = await aio_pika.connect(stand.around.broker_url)
        async with connection:
            channel = await connection.channel()
            prefix = f"{stand.names.prefix}-faststream"
            work = await channel.declare_queue(f"{prefix}-work", durable=True)
            answers = await channel.declare_queue(f"{prefix}-answers", exclusive=True)
            environment = {
                **os.environ,
                "PEER_BROKER_URL": stand.around.broker_url,
                "PEER_DOCKER_HOST": stand.around.docker_host,
                "PEER_PREFIX": prefix,
                "PEER_PREFETCH": str(self._prefetch),
            }
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "tests.bench.faststream_peer"), env=environment
            )
            try:
                await self._listening(channel, work)
                yield channel, work, answers
            finally:
                process.terminate()
                await process.wait()
                await work.delete(if_unused=False, if_empty=False)

    @staticmethod
    async def _listening(channel: AbstractChannel, work: AbstractQueue) -> None:
        deadline = time.monotonic() + _READY_SECONDS
        while time.monotonic() < deadline:
            seen = await channel.declare_queue(work.name, passive=True)
            if seen.declaration_result.consumer_count:
                return
            await asyncio.sleep(0.1)
        raise TimeoutError(f"nobody listens at {work.name}")


async def side_by_side(
    width: int, work: Callable[[int], Awaitable[None]], numbers: Iterable[int]
) -> float:
    """Do the work for each number, so many at a time; return the seconds it took."""
    left: Iterator[int] = iter(numbers)

    async def loop() -> None:
        for number in left:
            await work(number)

    began = time.monotonic()
    await asyncio.gather(*(loop() for _ in range(width)))
    return time.monotonic() - began


def burst_document(model: dict[str, object]) -> dict[str, object]:
    """Return what asks for a container like the model, marked as one of a burst."""
    return {**twin_document(model), "Labels": {LABEL: "1"}}


async def remove_burst(stand: Stand) -> None:
    """Remove what a peer made, by force."""
    made = await stand.docker.containers.list(filters={"label": [LABEL]}, all=True)

    async def remove(number: int) -> None:
        await made[number].delete(force=True, v=True)

    await side_by_side(8, remove, range(len(made)))


async def single_latencies(stand: Stand, contender: Contender, count: int) -> list[float]:
    """Return, in seconds, how long after the engine had created each container it was started."""
    is_ours = isinstance(contender, Ours)
    name = stand.names.container if is_ours else stand.name
    shown = [await _shown(stand, name(f"burst-{number}")) for number in range(count)]
    return [(_time(state) - _time(created)).total_seconds() for created, state in shown]


async def _shown(stand: Stand, name: str) -> tuple[str, str]:
    shown = await (await stand.docker.containers.get(name)).show()
    return str(shown["Created"]), str(shown["State"]["StartedAt"])


def _time(text: str) -> datetime:
    """Return the engine's time, which has nanoseconds."""
    return datetime.fromisoformat(text[:26].rstrip("Z"))
