"""The feed: everything at first, then every change, for as many as look on."""

import asyncio
import json
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager

import pytest

from consumer.errors import LedgerError
from consumer.feed import Feed, FeedFull, FeedLimits, line_document, percentiles
from consumer.model import BoundPort, Desired, TenantId, TenantLine, Transport
from tests.builders import MOMENT, make_line

pytestmark = [pytest.mark.asyncio, pytest.mark.looptime]

LIMITS = FeedLimits(lines=2, viewers=2, most_waiting_bytes=4000)

Told = tuple[str, dict[str, object]]


class Lines:
    """Lines to read, with a way to fail."""

    def __init__(self, *tenant_ids: str) -> None:
        self.lines_there = {TenantId(name): make_line(name) for name in tenant_ids}
        self.is_down = False
        self.reads: list[list[TenantId]] = []
        """Which changes were read together."""

    def put(self, line: TenantLine) -> None:
        self.lines_there[line.tenant_id] = line

    async def lines(self, *, after: str, limit: int) -> list[TenantLine]:
        self._suffer()
        names = [name for name in sorted(self.lines_there) if name > after]
        return [self.lines_there[name] for name in names[:limit]]

    async def lines_of(self, tenant_ids: Collection[TenantId]) -> list[TenantLine]:
        self._suffer()
        self.reads.append(list(tenant_ids))
        return [self.lines_there[name] for name in tenant_ids if name in self.lines_there]

    async def startups(self, *, limit: int) -> list[float]:
        self._suffer()
        return [0.5, 0.25][:limit]

    def _suffer(self) -> None:
        if self.is_down:
            raise LedgerError("disk full")


class Bench:
    """A feed and what it reads from."""

    def __init__(self, *tenant_ids: str, limits: FeedLimits = LIMITS) -> None:
        self.lines = Lines(*tenant_ids)
        self.troubles: dict[str, str | None] = {"engine": None}
        self.feed = Feed(
            ledger=self.lines,
            readiness=lambda: self.troubles,
            now=lambda: MOMENT,
            about={"instance": "default"},
            limits=limits,
        )

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        async with asyncio.TaskGroup() as group:
            task = group.create_task(self.feed.run())
            yield
            task.cancel()

    @asynccontextmanager
    async def viewing(self) -> AsyncIterator["View"]:
        """Look on, having been told everything."""
        async with self.feed.view() as frames:
            view = View(frames)
            await view.through("complete")
            yield view


class View:
    """What one who looks on is told."""

    def __init__(self, frames: AsyncIterator[bytes]) -> None:
        self._frames = frames
        self.told: list[Told] = []

    async def next(self) -> Told:
        event, data, *rest = (await anext(self._frames)).decode().split("\n")
        assert rest == ["", ""]
        told = event.removeprefix("event: "), json.loads(data.removeprefix("data: "))
        self.told.append(told)
        return told

    async def through(self, name: str) -> dict[str, object]:
        """Read on through the next frame of this name."""
        while True:
            told, content = await self.next()
            if told == name:
                return content


def names(content: dict[str, object]) -> list[str]:
    lines = content["lines"]
    assert isinstance(lines, list)
    return [line["tenant_id"] for line in lines]


async def test_at_first_everything_is_told() -> None:
    """What is true of all, then every tenant, in parts."""
    bench = Bench("a", "b", "c")
    async with bench.viewing() as view:
        kinds = [name for name, _ in view.told]
        told = [name for kind, content in view.told if kind == "lines" for name in names(content)]

    assert kinds == ["head", "begin", "lines", "lines", "complete"]
    assert told == ["a", "b", "c"]
    assert view.told[0][1] == {
        "instance": "default",
        "at": "2026-11-24T10:00:00.000Z",
        "troubles": {"engine": None},
        "startups": {"count": 2, "p50": 0.25, "p95": 0.5, "p99": 0.5},
    }


async def test_changes_are_gathered_and_told_to_all_at_once() -> None:
    """However often a tenant changes in a moment, and however many look on, it is read once."""
    bench = Bench("a", "b")
    async with bench.running(), bench.viewing() as one, bench.viewing() as other:
        began = asyncio.get_running_loop().time()
        for restart_count in range(1, 4):
            bench.lines.put(make_line("a", restart_count=restart_count))
            bench.feed.note([TenantId("a")])
        told = await one.through("lines")
        took = asyncio.get_running_loop().time() - began
        same = await other.through("lines")

    assert told == same == {"lines": [line_document(make_line("a", restart_count=3))], "gone": []}
    assert bench.lines.reads == [["a"]]
    assert took < 0.3


async def test_who_is_gone_is_told_gone() -> None:
    """A tenant without a line is not one of those shown any more."""
    bench = Bench("a", "b")
    async with bench.running(), bench.viewing() as view:
        del bench.lines.lines_there[TenantId("a")]
        bench.feed.note([TenantId("a")])

        assert await view.through("lines") == {"lines": [], "gone": ["a"]}


async def test_a_flood_is_told_part_by_part() -> None:
    """Only so many are read at a time, and between them others have their turn."""
    ids = [TenantId(f"t{number}") for number in range(5)]
    bench = Bench(*ids)
    async with bench.running(), bench.viewing() as view:
        bench.feed.note(ids)
        for _ in range(3):
            await view.through("lines")

    assert [len(read) for read in bench.lines.reads] == [2, 2, 1]


async def test_what_changes_while_it_is_told_is_told_after() -> None:
    """Nothing is missed between the first telling and the changes."""
    bench = Bench("a", "b", "c")
    async with bench.running(), bench.feed.view() as frames:
        view = View(frames)
        await view.through("lines")
        bench.lines.put(make_line("a", state="failed"))
        bench.feed.note([TenantId("a")])
        await view.through("complete")

        told = await view.through("lines")

    assert told["lines"] == [line_document(make_line("a", state="failed"))]


async def test_a_sign_of_life_comes_every_two_seconds() -> None:
    """It says what is in trouble at that moment."""
    bench = Bench()
    async with bench.running(), bench.viewing() as view:
        bench.troubles["engine"] = "away"
        began = asyncio.get_running_loop().time()
        head = await view.through("head")

        assert head["troubles"] == {"engine": "away"}
        assert asyncio.get_running_loop().time() - began <= 2


async def test_a_ledger_that_fails_holds_up_what_it_holds_alone() -> None:
    """Signs of life go on, without the figures; the lines come once it can be read again."""
    bench = Bench("a")
    bench.lines.is_down = True
    async with bench.running(), bench.feed.view() as frames:
        view = View(frames)
        head = await view.through("head")
        assert head["startups"] == {"count": 0, "p50": None, "p95": None, "p99": None}
        await view.through("head")
        bench.lines.is_down = False
        assert names(await view.through("lines")) == ["a"]

        bench.lines.is_down = True
        bench.feed.note([TenantId("a")])
        await view.through("head")
        bench.lines.is_down = False
        assert names(await view.through("lines")) == ["a"]


async def test_who_reads_too_slowly_is_left_behind() -> None:
    """His stream ends, so that he begins anew; the others go on, and nothing is kept for him."""
    bench = Bench("a")
    async with bench.running(), bench.viewing() as slow, bench.viewing() as quick:
        for _ in range(200):
            bench.feed.note([TenantId("a")])
            await quick.through("lines")
        with pytest.raises(StopAsyncIteration):
            await slow.next()
        bench.feed.note([TenantId("a")])
        await quick.through("lines")


async def test_only_so_many_may_look_on() -> None:
    """Another one is refused, until one goes."""
    bench = Bench()
    async with bench.viewing():
        async with bench.viewing():
            with pytest.raises(FeedFull):
                async with bench.feed.view():
                    pass
        async with bench.viewing():
            pass


async def test_who_has_looked_on_longest_makes_room() -> None:
    """Once he has for a while: whether he still reads cannot be known, and he begins anew."""
    bench = Bench("a")
    async with bench.running(), bench.viewing() as first, bench.viewing() as second:
        await asyncio.sleep(LIMITS.settled_seconds)
        async with bench.viewing():
            with pytest.raises(StopAsyncIteration):
                await first.next()
            bench.feed.note([TenantId("a")])
            await second.through("lines")


async def test_while_nobody_looks_on_nothing_is_read() -> None:
    """Changes cost nothing then, and what was noted before is forgotten."""
    bench = Bench("a")
    async with bench.running():
        bench.feed.note([TenantId("a")])
        await asyncio.sleep(10)
        async with bench.viewing():
            bench.feed.note([TenantId("a")])
        await asyncio.sleep(10)

    assert bench.lines.reads == []


async def test_closing_ends_every_stream() -> None:
    """The server need not wait for those who look on."""
    bench = Bench()
    async with bench.running(), bench.viewing() as view:
        bench.feed.close()
        with pytest.raises(StopAsyncIteration):
            await view.next()


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        ([], (0, None, None, None)),
        ([0.3], (1, 0.3, 0.3, 0.3)),
        ([float(n) for n in range(100, 0, -1)], (100, 50.0, 95.0, 99.0)),
    ],
)
async def test_percentiles_are_values_that_were_measured(
    seconds: list[float], expected: tuple[float | None, ...]
) -> None:
    """By the nearest rank; of nothing there are none."""
    assert tuple(percentiles(seconds).values()) == expected


async def test_a_line_leaves_out_what_is_not_there() -> None:
    """Ten thousand of them are sent at once; a message is cut to its first line."""
    plain = line_document(make_line())
    full = line_document(
        make_line(
            state="failed",
            desired=Desired.STOPPED,
            reason="port_conflict",
            message="first\nsecond",
            ports=(BoundPort(80, Transport.UDP, "0.0.0.0", 8080, "dns"),),
            next_attempt_at=MOMENT,
            is_answered=False,
            restart_count=2,
            attempt=3,
            image="nginx",
            health="unhealthy",
        )
    )

    assert plain == {
        "tenant_id": "acme-corp",
        "desired": "running",
        "state": "running",
        "since": "2026-11-24T10:00:00.000Z",
    }
    assert full == {
        "tenant_id": "acme-corp",
        "desired": "stopped",
        "state": "failed",
        "reason": "port_conflict",
        "message": "first",
        "health": "unhealthy",
        "image": "nginx",
        "ports": [[8080, 80, "udp"]],
        "restarts": 2,
        "since": "2026-11-24T10:00:00.000Z",
        "attempt": 3,
        "next_attempt_at": "2026-11-24T10:00:00.000Z",
        "is_waiting": True,
    }
