"""The HTTP side in a process of its own, with few descriptors: for tests that come as attackers.

`python -m tests.doorway DESCRIPTORS LIMITS` serves ten thousand tenants and says its port on
stdout; LIMITS is a JSON object of `HttpLimits` and `FeedLimits`. SIGUSR1 has it use up all its
descriptors, SIGUSR2 has it give them back.
"""

import asyncio
import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TypeVar

from consumer import logs
from consumer.api import Api
from consumer.connections import HttpLimits
from consumer.feed import Feed, FeedLimits
from consumer.metrics import Metrics
from consumer.model import Status, Tenant, TenantId, TenantLine
from tests.builders import MOMENT, make_line, make_status, make_tenant

_T = TypeVar("_T")

TENANTS = 10_000
_WORDS = "x" * 1500


class Crowd:
    """Ten thousand tenants with much to say."""

    def __init__(self) -> None:
        self.ids = [TenantId(f"tenant-{number:05d}") for number in range(TENANTS)]

    async def read(self, tenant_id: TenantId) -> Tenant | None:
        return make_tenant(tenant_id=tenant_id, status=make_status(message=_WORDS))

    async def page(self, *, after: str, limit: int, state: str | None) -> list[Tenant]:
        del state
        status = make_status(message=_WORDS)
        return [make_tenant(tenant_id=name, status=status) for name in self._after(after, limit)]

    async def history(self, tenant_id: TenantId, *, limit: int) -> list[Status]:
        del tenant_id, limit
        return []

    async def lines(self, *, after: str, limit: int) -> list[TenantLine]:
        return [make_line(name, message=_WORDS) for name in self._after(after, limit)]

    async def lines_of(self, tenant_ids: Sequence[TenantId]) -> list[TenantLine]:
        return [make_line(name) for name in tenant_ids]

    async def startups(self, *, limit: int) -> list[float]:
        del limit
        return []

    def _after(self, after: str, limit: int) -> list[TenantId]:
        return [name for name in self.ids if name > after][:limit]


class Hog:
    """Uses up the process's descriptors."""

    def __init__(self) -> None:
        self._held: list[int] = []

    def take_all(self) -> None:
        try:
            while True:
                self._held.append(os.open(os.devnull, os.O_RDONLY))
        except OSError:
            return

    def give_all(self) -> None:
        while self._held:
            os.close(self._held.pop())


async def serve(descriptors: int, chosen: dict[str, float]) -> None:
    hog, loop = Hog(), asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGUSR1, hog.take_all)
    loop.add_signal_handler(signal.SIGUSR2, hog.give_all)
    crowd = Crowd()
    feed = Feed(
        ledger=crowd,
        readiness=dict,
        now=lambda: MOMENT,
        about={"version": "1"},
        limits=_of(FeedLimits, chosen),
    )

    async def tail(_: Tenant) -> str | None:
        return None

    api = Api(
        ledger=crowd,
        feed=feed,
        tail=tail,
        metrics=Metrics(version="1"),
        readiness=dict,
        observed_at=lambda _: MOMENT,
        is_stale=lambda _: False,
        is_live=lambda: True,
        asyncapi="",
        limits=_of(HttpLimits, chosen).within(descriptors),
    )
    async with api.serve("0.0.0.0", 0), asyncio.TaskGroup() as group:
        group.create_task(feed.run())
        sys.stdout.write(f"{api.bound_port}\n")
        sys.stdout.flush()
        await asyncio.Event().wait()


def _of(kind: type[_T], chosen: dict[str, float]) -> _T:
    names = {each.name for each in fields(kind)}  # type: ignore[arg-type]  # both are dataclasses
    return kind(**{name: value for name, value in chosen.items() if name in names})


@dataclass(frozen=True)
class Doorway:
    """The process, seen from outside."""

    process: subprocess.Popen[str]
    port: int
    log: Path

    def descriptors(self) -> int:
        return len(list(Path(f"/proc/{self.process.pid}/fd").iterdir()))

    def resident_bytes(self) -> int:
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * resource.getpagesize()

    def cpu_seconds(self) -> float:
        times = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(times[11]) + int(times[12])) / os.sysconf("SC_CLK_TCK")

    def log_lines(self) -> list[dict[str, object]]:
        return [json.loads(line) for line in self.log.read_text().splitlines()]


@contextmanager
def opened(folder: Path, descriptors: int, **limits: float) -> Iterator[Doorway]:
    """Run it for the length of the block."""
    log = folder / "log"
    with (
        log.open("w") as stderr,
        subprocess.Popen(
            [sys.executable, "-m", "tests.doorway", str(descriptors), json.dumps(limits)],
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
        ) as process,
    ):
        try:
            assert process.stdout is not None
            yield Doorway(process, int(process.stdout.readline()), log)
        finally:
            process.kill()


def main() -> None:
    descriptors, chosen = int(sys.argv[1]), json.loads(sys.argv[2])
    resource.setrlimit(resource.RLIMIT_NOFILE, (descriptors, descriptors))
    logs.configure(level="info", form="json")
    asyncio.run(serve(descriptors, chosen))


if __name__ == "__main__":
    main()
