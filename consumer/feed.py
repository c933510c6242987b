"""What happens, for those who look on: a line for each tenant, then every change of one.

Before it stands the ledger, which names the tenants a commit was about; the facts are read from it,
many changes at a time, and told to everybody at once. So what it costs does not grow with the
number of those who look on, and is nothing while nobody does. Who reads too slowly is left behind
and begins anew: nothing grows for him. After it comes `api`, which sends the frames.
"""

import asyncio
import json
import math
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from typing import Final, Protocol

import structlog

from consumer.errors import ConsumerError, LedgerError
from consumer.messages import instant
from consumer.model import Document, TenantId, TenantLine

_log: Final = structlog.get_logger(__name__)

_STARTUPS: Final = 1000
"""How many of the last starts the percentiles are of."""


class FeedFull(ConsumerError):
    """Enough people look on."""


class Lines(Protocol):
    """As much of the ledger as is needed here; see `ports.Ledger` for the promises."""

    async def lines(self, *, after: str, limit: int) -> list[TenantLine]: ...

    async def lines_of(self, tenant_ids: Sequence[TenantId]) -> list[TenantLine]: ...

    async def startups(self, *, limit: int) -> list[float]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class FeedLimits:
    """How long changes are gathered, how often a sign of life comes, and what may lie in wait."""

    gather_seconds: float = 0.2
    beat_seconds: float = 2.0
    lines: int = 250
    viewers: int = 32
    settled_seconds: float = 10.0
    """After which the one who has looked on longest makes room for one who comes."""
    most_waiting_bytes: int = 4 * 1024 * 1024


class Feed:
    """Tells everybody who looks on."""

    def __init__(
        self,
        *,
        ledger: Lines,
        readiness: Callable[[], Mapping[str, str | None]],
        now: Callable[[], datetime],
        about: Mapping[str, str],
        limits: FeedLimits | None = None,
    ) -> None:
        self._ledger = ledger
        self._readiness = readiness
        self._now = now
        self._about = about
        self._limits = limits or FeedLimits()
        self._viewers: dict[_Viewer, float] = {}
        """Since when each looks on; who has longest is first."""
        self._changed: dict[TenantId, None] = {}
        self._has_news = asyncio.Event()

    def note(self, tenant_ids: Iterable[TenantId]) -> None:
        """Say that these tenants may have changed."""
        if self._viewers:
            self._changed.update(dict.fromkeys(tenant_ids))
            self._has_news.set()

    async def run(self) -> None:
        """Tell until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._tell_changes(), name="feed changes")
            group.create_task(self._beat(), name="feed beat")

    def close(self) -> None:
        """End every stream: the server stops."""
        for viewer in self._viewers:
            viewer.end()

    @asynccontextmanager
    async def view(self) -> AsyncIterator[AsyncIterator[bytes]]:
        """Look on for the length of the block: frames of server-sent events.

        First every tenant's line, then what changes; they end when the viewer is left behind or the
        server stops. Where enough look on, the one who has longest is left behind: whether he still
        reads cannot be known, and if he does he begins anew. Raises FeedFull while all of them have
        only come.
        """
        now = asyncio.get_running_loop().time()
        if len(self._viewers) >= self._limits.viewers:
            self._make_room(now)
        viewer = _Viewer(self._limits.most_waiting_bytes)
        self._viewers[viewer] = now
        try:
            async with aclosing(self._frames(viewer)) as frames:
                yield frames
        finally:
            self._viewers.pop(viewer, None)
            if not self._viewers:
                self._changed.clear()

    def _make_room(self, now: float) -> None:
        oldest, since = next(iter(self._viewers.items()))
        if now - since < self._limits.settled_seconds:
            raise FeedFull(f"{self._limits.viewers} look on already")
        oldest.end()
        del self._viewers[oldest]

    async def _frames(self, viewer: "_Viewer") -> AsyncGenerator[bytes, None]:
        # What changes meanwhile waits with the viewer and is told after: later than what it is of,
        # at worst twice.
        yield await self._head()
        yield _frame("begin", {})
        after: str | None = ""
        while after is not None and not viewer.is_over:
            try:
                lines = await self._ledger.lines(after=after, limit=self._limits.lines)
            except LedgerError:
                await asyncio.sleep(self._limits.beat_seconds)
                yield await self._head()
                continue
            yield _frame("lines", {"lines": [line_document(line) for line in lines]})
            after = lines[-1].tenant_id if len(lines) == self._limits.lines else None
        if not viewer.is_over:
            yield _frame("complete", {})
        while (frame := await viewer.next()) is not None:
            yield frame

    async def _tell_changes(self) -> None:
        while True:
            await self._has_news.wait()
            await asyncio.sleep(self._limits.gather_seconds)
            batch = list(islice(self._changed, self._limits.lines))
            for tenant_id in batch:
                del self._changed[tenant_id]
            if not self._changed:
                self._has_news.clear()
            if batch:
                await self._tell(batch)

    async def _tell(self, batch: Sequence[TenantId]) -> None:
        try:
            lines = await self._ledger.lines_of(batch)
        except LedgerError as error:
            _log.debug("feed waits for the ledger", error=str(error))
            self.note(batch)
            await asyncio.sleep(self._limits.beat_seconds)
            return
        there = {line.tenant_id for line in lines}
        gone = [tenant_id for tenant_id in batch if tenant_id not in there]
        self._tell_all(
            _frame("lines", {"lines": [line_document(line) for line in lines], "gone": gone})
        )

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(self._limits.beat_seconds)
            if self._viewers:
                self._tell_all(await self._head())

    def _tell_all(self, frame: bytes) -> None:
        for viewer in self._viewers:
            viewer.put(frame)

    async def _head(self) -> bytes:
        """Return what is true of all together: it is also the sign that the consumer lives."""
        try:
            async with asyncio.timeout(self._limits.beat_seconds):
                startups = await self._ledger.startups(limit=_STARTUPS)
        except (LedgerError, TimeoutError):
            startups = []
        document: Document = {
            **self._about,
            "at": instant(self._now()),
            "troubles": dict(self._readiness()),
            "startups": percentiles(startups),
        }
        return _frame("head", document)


class _Viewer:
    """One who looks on, and the frames that wait for him."""

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._frames: deque[bytes] = deque()
        self._bytes = 0
        self.is_over = False
        self._has_frames = asyncio.Event()

    def put(self, frame: bytes) -> None:
        """Have the frame wait; if that is too much, leave him behind."""
        if self.is_over:
            return
        if self._bytes + len(frame) > self._most_bytes:
            self.end()
            return
        self._frames.append(frame)
        self._bytes += len(frame)
        self._has_frames.set()

    def end(self) -> None:
        """Tell him nothing more."""
        self.is_over = True
        self._frames.clear()
        self._has_frames.set()

    async def next(self) -> bytes | None:
        """Return the next frame, None when there will be no more."""
        await self._has_frames.wait()
        if self.is_over:
            return None
        frame = self._frames.popleft()
        self._bytes -= len(frame)
        if not self._frames:
            self._has_frames.clear()
        return frame


def percentiles(seconds: Sequence[float]) -> Document:
    """Return of how many these are, and below what a half, 95 and 99 of a hundred of them lie."""
    ordered = sorted(seconds)

    def rank(share: float) -> float | None:
        return ordered[math.ceil(share * len(ordered)) - 1] if ordered else None

    return {"count": len(ordered), "p50": rank(0.5), "p95": rank(0.95), "p99": rank(0.99)}


def line_document(line: TenantLine) -> Document:
    """Return the line as a JSON object, without what is not there."""
    document: Document = {
        "tenant_id": line.tenant_id,
        "desired": line.desired.value,
        "state": line.state,
        "reason": line.reason,
        "message": line.message.partition("\n")[0],
        "health": line.health if line.health != "none" else None,
        "image": line.image,
        "ports": [
            [port.host_port, port.container_port, port.protocol.value] for port in line.ports
        ],
        "restarts": line.restart_count,
        "since": instant(line.since),
        "attempt": line.attempt,
        "next_attempt_at": instant(line.next_attempt_at),
        "is_waiting": not line.is_answered,
    }
    return {name: content for name, content in document.items() if content}


def _frame(name: str, document: Document) -> bytes:
    text = json.dumps(document, ensure_ascii=False, separators=(",", ":"))
    return f"event: {name}\ndata: {text}\n\n".encode(errors="replace")
