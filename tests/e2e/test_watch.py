"""What is watched from the command line: lines in a pipe, a table on a terminal, until Ctrl-C."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from deploy.lab.servers import Broker, DockerHost, free_port
from tests.e2e.commands import settings_of
from tests.e2e.world import World, until
from tests.faults.proxy import proxy

pytestmark = [pytest.mark.docker, pytest.mark.rabbitmq]

SECONDS = 40.0
_HEEDING = ("env", "--default-signal=INT")
"""Ctrl-C does nothing to what descends from a shell's background job, unless it is told to."""


class Watching:
    """A command that goes on."""

    def __init__(self, process: "subprocess.Popen[bytes]", output: Path) -> None:
        self.process = process
        self._output = output

    def output(self) -> str:
        return self._output.read_text()

    async def expect(self, words: str) -> None:
        """Wait until it has printed them."""
        await until(lambda: words in self.output(), seconds=SECONDS)

    async def interrupt(self) -> int:
        """Press Ctrl-C and return the exit code."""
        self.process.send_signal(signal.SIGINT)
        return await self.ended()

    async def ended(self) -> int:
        """Wait for its end and return the exit code."""
        return await asyncio.to_thread(self.process.wait, SECONDS)


@contextmanager
def watching(
    *words: str, folder: Path, settings: dict[str, str], stdout: int | None = None
) -> Iterator[Watching]:
    """Run the command for the length of the block; what it prints goes to a file."""
    path = folder / "watched"
    with path.open("wb") as output:
        process = subprocess.Popen(
            [*_HEEDING, sys.executable, "-m", "consumer", *words],
            env={**os.environ, **settings},
            cwd=folder,
            stdout=output if stdout is None else stdout,
            stderr=output,
        )
        try:
            yield Watching(process, path)
        finally:
            process.kill()
            process.wait()


def desk(world: World, broker: Broker, host: DockerHost, folder: Path) -> dict[str, str]:
    """Return the settings by which the world's consumer is asked."""
    settings = settings_of(world.names, broker, host, folder)
    return settings | {"LANDLORD_HTTP__PORT": str(world.consumer.http_port)}


async def test_events_are_watched_through_a_lost_connection(
    world: World, broker: Broker, docker_host: DockerHost, tmp_path: Path
) -> None:
    """It says that the broker was lost, goes on when it is back, and ends well on Ctrl-C."""
    port = free_port()
    settings = desk(world, broker, docker_host, tmp_path)
    settings["LANDLORD_BROKER__URL"] = f"amqp://guest:guest@127.0.0.1:{port}/"
    async with proxy(("127.0.0.1", broker.port), ("127.0.0.1", port)) as between:
        with watching("watch", folder=tmp_path, settings=settings) as watch:
            await watch.expect("watching ")
            await world.run_tenant("watched")
            await watch.expect("watched  running/started")
            between.drop()
            await watch.expect("was lost; status events are missed until it is back")
            await until(lambda: watch.output().count("watching ") == 2, seconds=SECONDS)
            await world.delete_tenant("watched")
            await watch.expect("watched  stopped/deleted")
            code = await watch.interrupt()

    assert code == 0
    assert "Traceback" not in watch.output()


async def test_a_watch_whose_pipe_is_closed_ends_well(
    world: World, broker: Broker, docker_host: DockerHost, tmp_path: Path
) -> None:
    """As of `watch | head -1`: no traceback, exit code 0."""
    reading, writing = os.pipe()
    os.close(reading)
    settings = desk(world, broker, docker_host, tmp_path)
    with watching("watch", folder=tmp_path, stdout=writing, settings=settings) as watch:
        os.close(writing)
        await watch.expect("watching ")
        await world.publisher.tell("deleted", "nobody-there")
        code = await watch.ended()

    assert (code, watch.output().count("\n")) == (0, 1)


async def test_tenants_are_watched_in_lines_where_there_is_no_terminal(
    world: World, broker: Broker, docker_host: DockerHost, tmp_path: Path
) -> None:
    """A line for each tenant and for each change; a note while the consumer cannot be asked."""
    place = ("127.0.0.1", free_port())
    words = ("tenants", "--watch", "--json", "--url", f"http://{place[0]}:{place[1]}")
    settings = desk(world, broker, docker_host, tmp_path)
    await world.run_tenant("in-lines")
    async with proxy(("127.0.0.1", world.consumer.http_port), place) as between:
        with watching(*words, folder=tmp_path, settings=settings) as watch:
            await watch.expect('"in-lines"')
            between.cut()
            await watch.expect("trying again")
            between.mend()
            await world.delete_tenant("in-lines")
            await until(lambda: states_told(watch, "in-lines")[-1] == "stopped", seconds=SECONDS)
            code = await watch.interrupt()

    assert (code, states_told(watch, "in-lines")) == (0, ["running", "stopped"])


def states_told(watch: Watching, tenant_id: str) -> list[str]:
    """Return the states that were told of the tenant, oldest first."""
    *lines, _ = watch.output().split("\n")
    told = [json.loads(line) for line in lines if line.startswith("{")]
    return [line["state"] for line in told if line["tenant_id"] == tenant_id]


async def test_tenants_are_watched_in_a_table_on_a_terminal(
    world: World, broker: Broker, docker_host: DockerHost, tmp_path: Path
) -> None:
    """The table is drawn anew when a tenant changes, until Ctrl-C."""
    ours, its = os.openpty()
    os.set_blocking(ours, False)
    settings = desk(world, broker, docker_host, tmp_path) | {"TERM": "xterm", "COLUMNS": "100"}
    shown = bytearray()

    def shows(words: bytes) -> bool:
        with suppress(BlockingIOError):
            shown.extend(os.read(ours, 65536))
        return words in shown

    await world.run_tenant("on-screen")
    with watching("tenants", "--watch", folder=tmp_path, stdout=its, settings=settings) as watch:
        await until(lambda: shows(b"on-screen"), seconds=SECONDS)
        await world.delete_tenant("on-screen")
        await until(lambda: shows(b"deleted"), seconds=SECONDS)
        code = await watch.interrupt()
    os.close(ours)
    os.close(its)

    assert code == 0
    assert b"\x1b[" in shown
