"""The ledger on SQLite, through SQLAlchemy Core.

One thread owns the database. Writes that arrive while it is busy wait in a row and are then
committed together: one flush to disk serves them all, and each caller returns only after it. A lock
file beside the database keeps a second consumer out; a database whose file was removed or replaced
under it takes no write any more. Foreign errors become LedgerError here, and so
do our own; after one, nothing of the transaction holds and the next call starts afresh.

Every call has a deadline. A thread that hangs in the disk cannot be cancelled: its callers get an
error, what has not begun is dropped, and the thread is waited for as long as it takes. When it
comes back, what it was at is committed before anything that was asked for later.
"""

import asyncio
import fcntl
import json
import os
from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from importlib import resources
from pathlib import Path
from typing import Final, Self, TypeVar
from urllib.parse import quote

from sqlalchemy import Connection, Engine, Row, TextClause, bindparam, create_engine, event, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import (
    ArgumentError,
    DataError,
    DBAPIError,
    IntegrityError,
    InterfaceError,
    SQLAlchemyError,
    StatementError,
)

from consumer.adapters.ledger_file import LedgerFile
from consumer.adapters.surroundings import may_write, nearest_folder, user_name
from consumer.belonging import MOST_RECORDED, belongs, is_orphan
from consumer.checkup import LedgerSight
from consumer.clock import Clock
from consumer.errors import LedgerError, LedgerFault, LedgerInUse, LedgerUnanswered
from consumer.faults import trace_of
from consumer.intention import changes, intend, refusal_of_missing, weigh
from consumer.messages import decode_spec, decode_status, encode_spec, encode_status
from consumer.model import (
    BoundPort,
    ContainerId,
    ContainerStatus,
    Desired,
    EventId,
    EventKind,
    Health,
    Maker,
    OutboxEntry,
    Reason,
    Refusal,
    Role,
    Setback,
    Sighting,
    Standing,
    State,
    Status,
    Tenant,
    TenantEvent,
    TenantId,
    TenantLine,
    TenantSpec,
    Transport,
    Verdict,
)
from consumer.ports import PassResult, Recorded

T = TypeVar("T")

_CALL_SECONDS: Final = 30.0
"""Sweeping and listing a large ledger on a slow disk takes seconds; after this nothing goes on."""
_CHUNK: Final = 400
"""How many names go into one IN list; SQLite takes 32,766, a plan for few is the better one."""
_LINE_MESSAGE: Final = 200
"""How many characters of its message a line shows."""
_UP: Final = frozenset(
    (
        ContainerStatus.RUNNING,
        ContainerStatus.RESTARTING,
        ContainerStatus.PAUSED,
        ContainerStatus.CREATED,
    )
)

_TENANTS: Final = text("SELECT * FROM tenants WHERE tenant_id IN :ids").bindparams(
    bindparam("ids", expanding=True)
)
_TENANT: Final = text("SELECT * FROM tenants WHERE tenant_id = :tenant_id")
_PUT_TENANT: Final = text("""
    INSERT INTO tenants (tenant_id, desired, revision, answered_revision, received_at, kind,
        event_id, correlation_id, traceparent, generation, spec, fingerprint, applied, sequence,
        state, status, since, setback, restarts, containers, made, touched_at)
    VALUES (:tenant_id, :desired, :revision, :answered_revision, :received_at, :kind,
        :event_id, :correlation_id, :traceparent, :generation, :spec, :fingerprint, :applied,
        :sequence, :state, :status, :since, :setback, :restarts, :containers,
        :made, :touched_at)
    ON CONFLICT (tenant_id) DO UPDATE SET
        desired = excluded.desired, revision = excluded.revision,
        answered_revision = excluded.answered_revision, received_at = excluded.received_at,
        kind = excluded.kind, event_id = excluded.event_id,
        correlation_id = excluded.correlation_id, traceparent = excluded.traceparent,
        generation = excluded.generation, spec = excluded.spec,
        fingerprint = excluded.fingerprint, applied = excluded.applied,
        sequence = excluded.sequence, state = excluded.state, status = excluded.status,
        since = excluded.since, setback = excluded.setback, restarts = excluded.restarts,
        containers = excluded.containers, made = excluded.made,
        touched_at = excluded.touched_at
""")
# Pair by pair: two IN lists would have SQLite look for every tenant with every event id.
_SEEN: Final = text("""
    SELECT event_ids.tenant_id, event_ids.event_id, event_ids.refused
    FROM json_each(:pairs) AS pair CROSS JOIN event_ids
        ON event_ids.tenant_id = json_extract(pair.value, '$[0]')
        AND event_ids.event_id = json_extract(pair.value, '$[1]')
""")
_TOLD: Final = text("""
    SELECT tenant_id, max(sequence) AS sequence FROM outbox
    WHERE tenant_id IN :ids GROUP BY tenant_id
""").bindparams(bindparam("ids", expanding=True))
_ANSWER_TO: Final = text("""
    SELECT correlation_id, traceparent FROM outbox
    WHERE tenant_id = :tenant_id AND sequence = :sequence
""")
_PUT_SEEN: Final = text("""
    INSERT INTO event_ids (tenant_id, event_id, recorded_at, refused)
    VALUES (:tenant_id, :event_id, :recorded_at, :refused)
    ON CONFLICT (tenant_id, event_id) DO UPDATE SET
        recorded_at = excluded.recorded_at, refused = excluded.refused
""")
_PUT_OUTBOX: Final = text("""
    INSERT INTO outbox (tenant_id, sequence, state, body, created_at, correlation_id, traceparent)
    VALUES (:tenant_id, :sequence, :state, :body, :created_at, :correlation_id, :traceparent)
""")
_UNSENT: Final = text("""
    SELECT * FROM outbox
    WHERE sent_at IS NULL AND tenant_id NOT IN (SELECT value FROM json_each(:without))
    ORDER BY entry_id LIMIT :limit
""")
_MARK_SENT: Final = text("UPDATE outbox SET sent_at = :at WHERE entry_id = :entry_id")
_DEPTH: Final = text("""
    SELECT count(*) AS depth, min(created_at) AS oldest FROM outbox WHERE sent_at IS NULL
""")
_PAGE: Final = text("""
    SELECT * FROM tenants WHERE tenant_id > :after ORDER BY tenant_id LIMIT :limit
""")
_PAGE_OF_STATE: Final = text("""
    SELECT * FROM tenants
    WHERE tenant_id > :after AND coalesce(state, 'pending') = :state
    ORDER BY tenant_id LIMIT :limit
""")
_RECORDED: Final = text("""
    SELECT tenant_id, spec FROM tenants
    WHERE desired = 'running' AND spec IS NOT NULL ORDER BY tenant_id
""")
_STANDING: Final = """
    SELECT tenant_id, desired, answered_revision >= revision AS is_answered, fingerprint, setback,
        state, json_extract(status, '$.reason') AS reason,
        json_extract(status, '$.container.id') AS container_id, containers, made
    FROM tenants
"""
_STANDINGS: Final = text(_STANDING)
_FOR_RESYNC: Final = text(f"""
    {_STANDING} WHERE desired <> 'deleted' OR answered_revision < revision OR setback IS NOT NULL
""")
_IS_COUNTED: Final = "(desired <> 'deleted' OR answered_revision < revision OR state = 'failed')"
_COUNTS: Final = text(f"""
    SELECT coalesce(state, 'pending') AS state, count(*) AS tenants FROM tenants
    WHERE {_IS_COUNTED} GROUP BY 1
""")  # noqa: S608 - of constants
# SQLite takes the few things that a line shows out of the JSON: reading it all costs far more.
_LINE: Final = f"""
    SELECT tenant_id, desired, coalesce(state, 'pending') AS state, sequence,
        coalesce(since, received_at) AS since, answered_revision >= revision AS is_answered,
        json_extract(status, '$.reason') AS reason,
        substr(json_extract(status, '$.message'), 1, {_LINE_MESSAGE}) AS message,
        json_extract(status, '$.health') AS health,
        coalesce(json_extract(status, '$.container.image'), json_extract(spec, '$.image'))
            AS image,
        json_extract(status, '$.ports') AS ports,
        json_extract(status, '$.container.restart_count') AS restart_count,
        json_extract(setback, '$.attempt') AS attempt,
        json_extract(setback, '$.next_attempt_at') AS next_attempt_at
    FROM tenants WHERE {_IS_COUNTED}
"""  # noqa: S608 - of constants
_LINES: Final = text(f"{_LINE} AND tenant_id > :after ORDER BY tenant_id LIMIT :limit")
_LINES_OF: Final = text(
    f"{_LINE} AND tenant_id IN (SELECT value FROM json_each(:ids))"  # noqa: S608 - of constants
)
_HISTORY: Final = text("""
    SELECT body FROM outbox WHERE tenant_id = :tenant_id ORDER BY entry_id DESC LIMIT :limit
""")
_STARTUPS: Final = text("""
    SELECT json_extract(body, '$.startup_seconds') AS seconds FROM outbox
    WHERE json_extract(body, '$.startup_seconds') IS NOT NULL ORDER BY entry_id DESC LIMIT :limit
""")
_SWEEPS: Final = (
    text("DELETE FROM event_ids WHERE recorded_at < :before"),
    text("DELETE FROM outbox WHERE sent_at < :before"),
    text("""
        DELETE FROM tenants WHERE desired = 'deleted' AND answered_revision >= revision
            AND touched_at < :before AND setback IS NULL
            AND tenant_id NOT IN (SELECT tenant_id FROM outbox WHERE sent_at IS NULL)
    """),
)
_ASK_TAKE_OVER: Final = text("""
    INSERT INTO take_over (only_row, asked_at) VALUES (1, :at)
    ON CONFLICT (only_row) DO UPDATE SET asked_at = excluded.asked_at
""")
_ASKED_TAKE_OVER: Final = text("SELECT asked_at FROM take_over")
_END_TAKE_OVER: Final = text("DELETE FROM take_over")
_IS_EMPTY: Final = text("SELECT NOT EXISTS (SELECT 1 FROM tenants) AS is_empty")
_IDENTITY: Final = text("SELECT ledger_id FROM identity")
_BEAT: Final = text("""
    INSERT INTO pulse (only_row, beat_at, ran_seconds) VALUES (1, :at, :ran)
    ON CONFLICT (only_row) DO UPDATE SET
        beat_at = excluded.beat_at, ran_seconds = pulse.ran_seconds + excluded.ran_seconds
    RETURNING ran_seconds
""")
_PERIOD_SECONDS: Final = 600.0
_NOTE_PERIOD: Final = text("""
    INSERT INTO running_time (period, earliest_at) VALUES (:period, :earliest)
    ON CONFLICT (period) DO UPDATE SET
        earliest_at = min(running_time.earliest_at, excluded.earliest_at)
""")
_RAN: Final = text("SELECT ran_seconds FROM pulse")
_EARLIEST: Final = text("SELECT min(earliest_at) FROM running_time WHERE period >= :period")
_FORGET_PERIODS: Final = text("DELETE FROM running_time WHERE period < :period")


@dataclass(slots=True)
class _Write:
    """A write that waits for its turn, the caller who waits for it, and whom it is about."""

    work: Callable[[Connection], object]
    done: asyncio.Future[object]
    tenant_ids: tuple[TenantId, ...]


class SqlLedger:
    """The ledger port on a SQL database."""

    def __init__(
        self,
        engine: Engine,
        lock: int | None,
        *,
        clock: Clock,
        call_seconds: float = _CALL_SECONDS,
    ) -> None:
        self._engine = engine
        self._lock = lock
        self._call_seconds = call_seconds
        self._clock = clock
        self._file: LedgerFile | None = None
        self._beaten: float | None = None
        """Until when running time is counted; the ledger's thread's own."""
        self._covered = float("-inf")
        """Until when it is noted what the wall clock showed."""
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="ledger")
        self._writes: list[_Write] = []
        self._listeners: list[Callable[[Iterable[TenantId]], None]] = []
        self._writer: asyncio.Task[None] | None = None
        self._writer_fault: asyncio.Future[BaseException] = asyncio.Future()
        self._counts: Mapping[str, int] | None = None
        """As they were counted last, until a tenant's row changes; the ledger's thread's own."""

    @classmethod
    async def open(cls, url: str, *, clock: Clock, call_seconds: float = _CALL_SECONDS) -> Self:
        """Open (and if need be make or migrate) the ledger at `sqlite:///path`.

        Raises LedgerInUse when another consumer owns it, LedgerError when it cannot be opened.
        """
        path = _path(url)
        lock = _take_lock(path)
        ledger = cls(_connect(path), lock, clock=clock, call_seconds=call_seconds)
        try:
            # Without a deadline: bringing a large ledger to a new schema takes what it takes.
            await ledger._in_thread(lambda: _migrate(ledger._engine))
            ledger._file = await ledger._in_thread(lambda: LedgerFile.at(path))
        except LedgerError:
            await ledger.close()
            raise
        return ledger

    async def close(self) -> None:
        """Finish the writes that wait, and let go of the database."""
        if self._writer is not None:
            await self._writer
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(self._thread, self._engine.dispose)
        self._thread.shutdown(wait=False)
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    async def watch_writer(self) -> None:
        """Wait until the writer ends by what nobody foresaw, and raise that."""
        raise await self._writer_fault

    @contextmanager
    def telling(self, listener: Callable[[Iterable[TenantId]], None]) -> Iterator[None]:
        """For the length of the block, name to the listener the tenants that may have changed.

        It is called after each commit, also where the caller gave up waiting for it.
        """
        self._listeners.append(listener)
        try:
            yield
        finally:
            self._listeners.remove(listener)

    # --- writing ------------------------------------------------------------------------------

    async def record(self, batch: Sequence[TenantEvent | Refusal]) -> list[Recorded]:
        """Commit what a batch of events means for the desired states."""
        return await self._change(
            lambda connection: _record(connection, batch, self._clock.now()),
            tenant_ids=[entry.tenant_id for entry in batch],
        )

    async def adopt(self, sightings: Sequence[Sighting], *, at: datetime) -> list[TenantId]:
        """Record tenants we know only by their containers."""
        return await self._change(
            lambda connection: _adopt(connection, sightings, at),
            tenant_ids=[sighting.tenant_id for sighting in sightings],
        )

    async def ask_take_over(self) -> None:
        """Have what another ledger's consumer left on the engine taken over, once."""
        values = {"at": _stamp(self._clock.now())}
        await self._write(lambda connection: connection.execute(_ASK_TAKE_OVER, values))

    async def take_over(self, sightings: Sequence[Sighting], *, at: datetime) -> list[TenantId]:
        """Record these as ours, with their tenants where unknown; what was asked for is done."""

        def take(connection: Connection) -> list[TenantId]:
            connection.execute(_END_TAKE_OVER)
            return _take_over(connection, sightings, at)

        return await self._change(take, tenant_ids=[seen.tenant_id for seen in sightings])

    async def commit(self, result: PassResult) -> tuple[Status, ...]:
        """Commit a pass: number its statuses, put them in the outbox, remember how it went."""
        return await self._change(
            lambda connection: _commit(connection, result, self._clock.now()),
            tenant_ids=[result.tenant_id],
        )

    async def mark_sent(self, entry_ids: Collection[int], *, at: datetime) -> None:
        """Remember that the broker confirmed these entries."""
        rows = [{"entry_id": entry_id, "at": _stamp(at)} for entry_id in entry_ids]
        await self._write(lambda connection: _execute_many(connection, _MARK_SENT, rows))

    async def sweep(self, *, older_than_seconds: float) -> int:
        """Forget event ids, sent status events and tombstones older than this; count them."""
        await self.probe()
        return await self._change(lambda connection: self._sweep(connection, older_than_seconds))

    def _sweep(self, connection: Connection, seconds: float) -> int:
        ran: float = connection.execute(_RAN).scalar_one()
        if ran < seconds:
            return 0  # by the time that consumers have run here, nothing can be so old
        period = int((ran - seconds) // _PERIOD_SECONDS)
        noted = str(connection.execute(_EARLIEST, {"period": period}).scalar_one())
        before = min(noted, _stamp(self._clock.now() - timedelta(seconds=seconds)))
        connection.execute(_FORGET_PERIODS, {"period": period})
        return sum(
            connection.execute(statement, {"before": before}).rowcount for statement in _SWEEPS
        )

    async def probe(self) -> None:
        """Raise LedgerError unless the ledger can be written; count how long we have run on it."""
        # It has to be a change: a transaction without one touches no disk, be it full or not.
        self._covered = await self._write(self._beat)

    def _beat(self, connection: Connection) -> float:
        """Return until when the wall clock's times are noted, once this is committed."""
        steady = self._clock.steady()
        # Lost if it is not committed: rather too little has been run than too much.
        ran = 0.0 if self._beaten is None else steady - self._beaten
        self._beaten = steady
        values = {"at": _stamp(self._clock.now()), "ran": ran}
        whole: float = connection.execute(_BEAT, values).scalar_one()
        earliest = _stamp(self._clock.earliest_since(self._covered))
        connection.execute(
            _NOTE_PERIOD, {"period": int(whole // _PERIOD_SECONDS), "earliest": earliest}
        )
        return steady

    async def _change(
        self, work: Callable[[Connection], T], *, tenant_ids: Iterable[TenantId] = ()
    ) -> T:
        """Write what may change tenants' rows."""

        def change(connection: Connection) -> T:
            self._counts = None
            return work(connection)

        return await self._write(change, tenant_ids=tenant_ids)

    async def _write(
        self, work: Callable[[Connection], T], *, tenant_ids: Iterable[TenantId] = ()
    ) -> T:
        done: asyncio.Future[object] = asyncio.get_running_loop().create_future()
        write = _Write(work, done, tuple(tenant_ids))
        self._writes.append(write)
        if self._writer is None:
            self._writer = asyncio.create_task(self._write_all(), name="ledger writer")
            self._writer.add_done_callback(self._note_end)
        try:
            async with asyncio.timeout(self._call_seconds):
                return await done  # type: ignore[return-value]  # what `work` returned
        except TimeoutError:
            if write not in self._writes:
                raise self._unanswered() from None
            self._writes.remove(write)
            raise LedgerError(f"the ledger is busy for {self._call_seconds:g} s") from None

    def _unanswered(self) -> LedgerUnanswered:
        return LedgerUnanswered(f"no answer from the ledger within {self._call_seconds:g} s")

    async def _write_all(self) -> None:
        """Commit everything that waits, together, until nothing waits any more."""
        writes: list[_Write] = []
        try:
            while self._writes:
                writes, self._writes = self._writes, []
                try:
                    results = await self._in_thread(partial(self._together, writes))
                except LedgerError as error:
                    if len(writes) == 1:
                        _fail(writes[0], error)
                    else:
                        await self._one_by_one(writes)
                else:
                    for write, result in zip(writes, results, strict=True):
                        self._conclude(write, result)
        finally:
            # No await since the check that nothing waits: nobody can have come in between.
            self._writer = None
            left, self._writes = [*writes, *self._writes], []
            for write in left:
                # None when all went well; else, whatever ended the writer, nobody waits for it.
                _fail(write, LedgerUnanswered("the ledger's writer ended"))

    def _note_end(self, writer: asyncio.Task[None]) -> None:
        fault = None if writer.cancelled() else writer.exception()
        if fault is not None and not self._writer_fault.done():
            self._writer_fault.set_result(fault)

    async def _one_by_one(self, writes: Sequence[_Write]) -> None:
        """After a batch failed: let each write succeed or fail by itself."""
        for write in writes:
            try:
                results = await self._in_thread(partial(self._together, [write]))
            except LedgerError as error:
                _fail(write, error)
            else:
                self._conclude(write, results[0])

    def _conclude(self, write: _Write, result: object) -> None:
        if not write.done.done():
            write.done.set_result(result)
        if write.tenant_ids:
            for listener in self._listeners:
                listener(write.tenant_ids)

    def _together(self, writes: Sequence[_Write]) -> list[object]:
        with self._engine.begin() as connection:
            results = [write.work(connection) for write in writes]
            if self._file is not None:
                self._file.check()
            return results

    # --- reading ------------------------------------------------------------------------------

    async def identity(self) -> str:
        """Return what tells this ledger from every other; the same as long as it exists."""
        ledger_id: str = (await self._rows(_IDENTITY, {}))[0].ledger_id
        return ledger_id

    async def is_take_over_asked(self) -> bool:
        """Return whether somebody asked for it, and it has not been done yet."""
        return bool(await self._rows(_ASKED_TAKE_OVER, {}))

    async def is_empty(self) -> bool:
        """Return whether not one tenant is recorded, nor any that was deleted lately."""
        return bool((await self._rows(_IS_EMPTY, {}))[0].is_empty)

    async def read(self, tenant_id: TenantId) -> Tenant | None:
        """Return what is known of the tenant."""
        rows = await self._rows(_TENANT, {"tenant_id": tenant_id})
        return _tenant(rows[0]) if rows else None

    async def unsent(self, *, limit: int, without: Collection[TenantId] = ()) -> list[OutboxEntry]:
        """Return the oldest outbox entries not yet confirmed, in order of commit."""
        # One value, not a list of names: of those a statement takes only so many.
        values = {"limit": limit, "without": json.dumps(list(without))}
        return [_entry(row) for row in await self._rows(_UNSENT, values)]

    async def outbox_depth(self) -> tuple[int, datetime | None]:
        """Return how many entries are unsent and when the oldest of them was committed."""
        row = (await self._rows(_DEPTH, {}))[0]
        return row.depth, _moment(row.oldest)

    async def page(self, *, after: str, limit: int, state: str | None) -> list[Tenant]:
        """Return tenants in order of id, after the given one; `state` may also be `pending`."""
        values = {"after": after, "limit": limit}
        if state is None:
            rows = await self._rows(_PAGE, values)
        else:
            rows = await self._rows(_PAGE_OF_STATE, values | {"state": state})
        return [_tenant(row) for row in rows]

    async def list_for_resync(self) -> list[Standing]:
        """Return how every tenant stands that is wanted, unanswered or held back by a failure."""
        # Of all tenants, again and again: their documents and statuses are not decoded for it.
        return [_standing(row) for row in await self._rows(_FOR_RESYNC, {})]

    async def counts(self) -> Mapping[str, int]:
        """Return the number of tenants by state: running, stopped, failed, pending."""
        return await self._answered(self._in_thread(self._count))

    def _count(self) -> Mapping[str, int]:
        # They are asked for every few seconds, and counting goes through all tenants.
        if self._counts is None:
            with self._engine.begin() as connection:
                rows = connection.execute(_COUNTS).all()
            counts = dict.fromkeys(("running", "stopped", "failed", "pending"), 0)
            self._counts = counts | {row.state: row.tenants for row in rows}
        return self._counts

    async def lines(self, *, after: str, limit: int) -> list[TenantLine]:
        """Return lines of the tenants that are counted, in order of id, after the given one."""
        return [_line(row) for row in await self._rows(_LINES, {"after": after, "limit": limit})]

    async def lines_of(self, tenant_ids: Collection[TenantId]) -> list[TenantLine]:
        """Return the lines of those of these tenants that are counted."""
        values = {"ids": json.dumps(list(tenant_ids))}
        return [_line(row) for row in await self._rows(_LINES_OF, values)]

    async def history(self, tenant_id: TenantId, *, limit: int) -> list[Status]:
        """Return what was told of the tenant, newest first, as far back as the outbox keeps it."""
        rows = await self._rows(_HISTORY, {"tenant_id": tenant_id, "limit": limit})
        return [decode_status(str(row.body)) for row in rows]

    async def startups(self, *, limit: int) -> list[float]:
        """Return how many seconds the last starts took, newest first, of all tenants."""
        return [float(row.seconds) for row in await self._rows(_STARTUPS, {"limit": limit})]

    async def _rows(
        self, statement: TextClause, values: Mapping[str, object]
    ) -> Sequence[Row[tuple[object, ...]]]:
        def ask() -> Sequence[Row[tuple[object, ...]]]:
            with self._engine.begin() as connection:
                return connection.execute(statement, values).all()

        return await self._answered(self._in_thread(ask))

    async def _answered(self, asked: Awaitable[T]) -> T:
        try:
            async with asyncio.timeout(self._call_seconds):
                return await asked
        except TimeoutError:
            raise self._unanswered() from None

    async def _in_thread(self, work: Callable[[], T]) -> T:
        with translated():
            return await asyncio.get_running_loop().run_in_executor(self._thread, work)


@contextmanager
def translated() -> Iterator[None]:
    """Turn whatever is raised into a LedgerError; of an unforeseen one only the kind is told."""
    try:
        yield
    except LedgerError:
        raise
    except (SQLAlchemyError, OSError) as error:
        cause = getattr(error, "orig", None) or error
        kind = LedgerFault if _is_about_values(error) else LedgerError
        raise kind(f"the ledger failed: {cause}") from error
    except Exception as error:
        raise LedgerFault(f"a fault of ours: {trace_of(error)}") from error


def _is_about_values(error: Exception) -> bool:
    """Whether the database is there and takes other values, so that the fault is ours."""
    if isinstance(error, DBAPIError):
        return isinstance(error, IntegrityError | DataError | InterfaceError)
    return isinstance(error, StatementError)


def _fail(write: _Write, error: LedgerError) -> None:
    if not write.done.done():
        write.done.set_exception(error)


# --- opening ----------------------------------------------------------------------------------


def _path(url: str) -> Path:
    try:
        parsed = make_url(url)
    except ArgumentError as error:
        raise LedgerError(f"ledger.url is no database URL: {error}") from error
    if parsed.get_backend_name() != "sqlite" or not parsed.database:
        raise LedgerError("ledger.url has to be sqlite:///path")
    return Path(parsed.database)


def _take_lock(path: Path) -> int:
    """Own the ledger as long as the returned descriptor is open; the kernel ends it at death."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
        lock = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise LedgerError(f"the ledger cannot be opened: {error}") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(lock)
        raise LedgerInUse(f"another consumer owns the ledger {path}") from error
    return lock


async def ask_for_take_over(url: str, *, clock: Clock) -> bool:
    """Have the ledger's consumer take over what another's left; return whether it runs already.

    If it does, its next resync will. Raises LedgerError.
    """
    is_running = False
    try:
        ledger = await SqlLedger.open(url, clock=clock)
    except LedgerInUse:
        # One short write beside the owner's: the database itself keeps them apart.
        ledger = SqlLedger(_connect(_path(url)), None, clock=clock)
        is_running = True
    try:
        await ledger.ask_take_over()
    finally:
        await ledger.close()
    return is_running


def ledger_folder(url: str) -> str:
    """Return the folder that the ledger is in, or the nearest one above. Raises LedgerError."""
    return str(nearest_folder(str(_path(url))))


def ledger_files(url: str) -> list[str]:
    """Return the files that the ledger has, or may have. Raises LedgerError for the URL."""
    path = str(_path(url))
    return [path, f"{path}-wal", f"{path}-shm"]


def look_at_ledger(url: str) -> LedgerSight:
    """Return what is there of the ledger; change nothing of it. Raises LedgerError for the URL."""
    path, folder = _path(url), ledger_folder(url)
    is_there = path.exists()
    is_writable = may_write(folder) and (not is_there or may_write(str(path)))
    fault, is_newer = _fault_within(path) if is_there and is_writable else (None, False)
    return LedgerSight(
        path=str(path),
        folder=folder,
        is_there=is_there,
        is_writable=is_writable,
        is_owned=_is_owned(path),
        fault=fault,
        is_newer=is_newer,
        user=user_name(),
    )


def recorded_specs(url: str) -> list[tuple[TenantId, TenantSpec]]:
    """Return what is recorded of tenants that are wanted running; nothing of it is changed.

    Also while another consumer owns it. Raises LedgerError.
    """
    path = _path(url)
    if not path.exists():
        return []
    engine = create_engine(f"sqlite:///file:{quote(str(path.absolute()))}?mode=rw&uri=true")
    try:
        with engine.connect() as connection:
            rows = connection.execute(_RECORDED).all()
    except SQLAlchemyError as error:
        raise LedgerError(str(getattr(error, "orig", error))) from error
    finally:
        engine.dispose()
    return [(TenantId(row.tenant_id), decode_spec(row.spec)) for row in rows]


@dataclass(frozen=True, slots=True)
class RecordedContainers:
    """Which containers a ledger has recorded, of which tenants; `ledger_id` is its own."""

    ledger_id: str
    of_tenants: Mapping[TenantId, Standing]

    def has(self, seen: Sighting) -> bool:
        """Whether the container is its tenant's, or was made for one that is not known any more."""
        standing = self.of_tenants.get(seen.tenant_id)
        if standing is None:
            return is_orphan(seen)
        return belongs(standing, seen.container_id, seen.origin)


def look_at_containers(url: str) -> RecordedContainers:
    """Return what the ledger has recorded of containers; nothing where there is none.

    Changes nothing, also beside a running consumer. Raises LedgerError.
    """
    path = _path(url)
    if not path.exists():
        return RecordedContainers("", {})
    engine = create_engine(f"sqlite:///file:{quote(str(path.absolute()))}?mode=rw&uri=true")
    try:
        with engine.connect() as connection:
            ledger_id = connection.execute(_IDENTITY).scalar_one()
            standings = [_standing(row) for row in connection.execute(_STANDINGS)]
    except SQLAlchemyError as error:
        raise LedgerError(f"the ledger tells nothing of containers: {error.args[0]}") from error
    finally:
        engine.dispose()
    return RecordedContainers(ledger_id, {each.tenant_id: each for each in standings})


def _is_owned(path: Path) -> bool:
    """Whether somebody holds the lock file. We hold it for no longer than it takes to find out."""
    try:
        lock = os.open(f"{path}.lock", os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(lock)
    return False


def _fault_within(path: Path) -> tuple[str | None, bool]:
    """Return what is the matter with the database, and whether it is only too new for us."""
    # As a file of that name that has to be there: what is gone meanwhile is not made.
    engine = create_engine(f"sqlite:///file:{quote(str(path.absolute()))}?mode=rw&uri=true")
    try:
        with engine.connect() as connection:
            told = connection.exec_driver_sql("PRAGMA quick_check(1)").scalar_one()
            version = connection.exec_driver_sql("PRAGMA user_version").scalar_one()
    except SQLAlchemyError as error:
        return str(getattr(error, "orig", error)), False
    finally:
        engine.dispose()
    if told != "ok":
        return " ".join(str(told).split()), False
    known = len(_scripts())
    return (_newer(version, known), True) if version > known else (None, False)


def _connect(path: Path) -> Engine:
    engine = create_engine(f"sqlite:///{path}", pool_size=1, max_overflow=0)

    @event.listens_for(engine, "connect")
    def prepare(connection: object, _record: object) -> None:
        # SQLAlchemy's recipe for explicit transactions: its own BEGIN, below, is the only one.
        connection.isolation_level = None  # type: ignore[attr-defined]  # sqlite3.Connection
        for pragma in ("journal_mode = WAL", "synchronous = FULL", "busy_timeout = 5000"):
            connection.execute(f"PRAGMA {pragma}").fetchall()  # type: ignore[attr-defined]  # same

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    return engine


def _migrate(engine: Engine) -> None:
    """Bring the schema to the newest version, one transaction for each step."""
    scripts = _scripts()
    with engine.begin() as connection:
        version = connection.exec_driver_sql("PRAGMA user_version").scalar_one()
    if version > len(scripts):
        raise LedgerError(_newer(version, len(scripts)))
    for number, (_, script) in enumerate(scripts, start=1):
        if number <= version:
            continue
        with engine.begin() as connection:
            for statement in _statements(script):
                connection.exec_driver_sql(statement)
            connection.exec_driver_sql(f"PRAGMA user_version = {number}")


def _scripts() -> list[tuple[str, str]]:
    return sorted(
        (script.name, script.read_text(encoding="utf-8"))
        for script in (resources.files("consumer.adapters") / "migrations").iterdir()
        if script.name.endswith(".sql")
    )


def _newer(version: int, known: int) -> str:
    return (
        f"the ledger was written by a newer consumer (schema {version}, this one knows {known}); "
        "run that version or newer"
    )


def _statements(script: str) -> Iterable[str]:
    bare = "\n".join(line.partition("--")[0] for line in script.splitlines())
    return [statement for part in bare.split(";") if (statement := part.strip())]


# --- recording --------------------------------------------------------------------------------


def _record(
    connection: Connection, batch: Sequence[TenantEvent | Refusal], now: datetime
) -> list[Recorded]:
    ids = list(dict.fromkeys(entry.tenant_id for entry in batch))
    tenants = _read_many(connection, ids)
    seen = _read_seen(connection, batch)
    told = _read_told(connection, [tenant_id for tenant_id in ids if tenant_id not in tenants])
    recording = _Recording(tenants, seen, told, now)
    for entry in batch:
        if isinstance(entry, Refusal) and entry.tenant_id in tenants:
            recording.answers[entry.tenant_id] = _read_answer(connection, tenants[entry.tenant_id])
    outcome = [recording.take(entry) for entry in batch]
    touched = [_row(tenants[tenant_id], now) for tenant_id in recording.touched]
    _execute_many(connection, _PUT_TENANT, touched)
    _execute_many(connection, _PUT_SEEN, recording.newly_seen)
    _execute_many(connection, _PUT_OUTBOX, recording.outbox)
    return outcome


class _Recording:
    """One batch on its way into the tenants' rows."""

    def __init__(
        self,
        tenants: dict[TenantId, Tenant],
        seen: dict[tuple[str, str], bool],
        told: dict[TenantId, int],
        now: datetime,
    ) -> None:
        self._tenants = tenants
        self._seen = seen  # whether the event with this id was refused
        self._told = told  # of those that are not known, the last sequence
        self._now = now
        self.touched: dict[TenantId, None] = {}
        self.newly_seen: list[dict[str, object]] = []
        self.answers: dict[TenantId, _Answer] = {}
        """What the last status of a tenant carried, which is told again after a refusal."""
        self.outbox: list[dict[str, object]] = []

    def take(self, entry: TenantEvent | Refusal) -> Recorded:
        if self._is_duplicate(entry):
            return Recorded(Verdict.DUPLICATE, entry.tenant_id)
        if isinstance(entry, Refusal):
            return self._refuse(entry)
        tenant = self._tenants.get(entry.tenant_id)
        verdict = weigh(tenant, entry)
        if verdict is Verdict.MISSING:
            refusal = refusal_of_missing(entry)
            if not self._is_duplicate(refusal):
                self._refuse(refusal)
        if verdict is not Verdict.RECORDED:
            return Recorded(verdict, entry.tenant_id)
        is_change = changes(tenant, entry)
        intended = intend(tenant, entry)
        if tenant is None:
            intended = replace(intended, sequence=self._told.get(entry.tenant_id, 0))
        self._put(intended)
        self._note(entry)
        return Recorded(Verdict.RECORDED, entry.tenant_id, changes_intention=is_change)

    def _is_duplicate(self, entry: TenantEvent | Refusal) -> bool:
        """Whether it was told or done before; what was refused may be done the next time."""
        if entry.event_id is None:
            return False
        was_refused = self._seen.get((entry.tenant_id, entry.event_id))
        return was_refused is not None and (isinstance(entry, Refusal) or not was_refused)

    def _refuse(self, refusal: Refusal) -> Recorded:
        """Tell the tenant; then tell again what is true of it, so that this is the last word.

        One that is not known is told, and does not come into being by it.
        """
        known = self._tenants.get(refusal.tenant_id)
        tenant = known or Tenant(
            tenant_id=refusal.tenant_id,
            desired=Desired.DELETED,
            revision=0,
            received_at=refusal.received_at,
            sequence=self._told.get(refusal.tenant_id, 0),
        )
        told = Status(
            tenant_id=refusal.tenant_id,
            state=State.FAILED,
            reason=refusal.reason,
            message=refusal.message,
            occurred_at=self._now,
            provider_type=tenant.spec.provider_type if tenant.spec is not None else "docker",
            generation=tenant.generation,
            event_id=refusal.event_id,
        )
        former = tenant.status
        answer = _Answer(refusal.correlation_id, refusal.traceparent)
        tenant = self._tell(tenant, told, answer)
        if former is not None and not _is_refusal(former):
            truth = replace(former, reason=_retold(former), occurred_at=self._now)
            since = known.since if known is not None else None
            tenant = self._tell(tenant, truth, self.answers[tenant.tenant_id])
            tenant = replace(tenant, since=since)  # what was refused did not interrupt it
        if known is None:
            self._told[refusal.tenant_id] = tenant.sequence
        else:
            self._put(tenant)
        self._note(refusal)
        return Recorded(Verdict.RECORDED, refusal.tenant_id)

    def _tell(self, tenant: Tenant, status: Status, answer: "_Answer") -> Tenant:
        told = replace(status, sequence=_next_sequence(tenant, self._now))
        self.outbox.append(_outbox_row(told, answer))
        return _with_status(tenant, told)

    def _put(self, tenant: Tenant) -> None:
        self._tenants[tenant.tenant_id] = tenant
        self.touched[tenant.tenant_id] = None

    def _note(self, entry: TenantEvent | Refusal) -> None:
        if entry.event_id is None:
            return
        is_refused = isinstance(entry, Refusal)
        self._seen[entry.tenant_id, entry.event_id] = is_refused
        row = {"tenant_id": entry.tenant_id, "event_id": entry.event_id, "refused": is_refused}
        self.newly_seen.append({**row, "recorded_at": _stamp(self._now)})


@dataclass(frozen=True, slots=True)
class _Answer:
    """What a status event carries over from the tenant event it answers."""

    correlation_id: str | None
    traceparent: str | None


def _read_answer(connection: Connection, tenant: Tenant) -> _Answer:
    """Return what the tenant's last status carried: its event need not be the newest one."""
    values = {"tenant_id": tenant.tenant_id, "sequence": tenant.sequence}
    row = connection.execute(_ANSWER_TO, values).first()
    return _Answer(row.correlation_id, row.traceparent) if row is not None else _Answer(None, None)


_REFUSALS: Final = frozenset(
    (Reason.INVALID_EVENT, Reason.POLICY_DENIED, Reason.PROVIDER_NOT_SUPPORTED)
)


def _is_refusal(status: Status) -> bool:
    return status.reason in _REFUSALS


def _retold(former: Status) -> Reason:
    return Reason.UNCHANGED if former.state is State.RUNNING else former.reason


def _next_sequence(tenant: Tenant, now: datetime) -> int:
    return tenant.sequence + 1 if tenant.sequence else int(now.timestamp() * 1000)


def _with_status(tenant: Tenant, status: Status) -> Tenant:
    """Return the tenant with its newest status; a state that is told again began when it did."""
    is_same = tenant.status is not None and tenant.status.state is status.state
    since = tenant.since if is_same else status.occurred_at
    return replace(tenant, status=status, sequence=status.sequence, since=since)


def _read_many(connection: Connection, ids: Sequence[TenantId]) -> dict[TenantId, Tenant]:
    rows = (
        row
        for start in range(0, len(ids), _CHUNK)
        for row in connection.execute(_TENANTS, {"ids": ids[start : start + _CHUNK]})
    )
    return {TenantId(row.tenant_id): _tenant(row) for row in rows}


def _read_seen(
    connection: Connection, batch: Sequence[TenantEvent | Refusal]
) -> dict[tuple[str, str], bool]:
    pairs = [[entry.tenant_id, entry.event_id] for entry in batch if entry.event_id is not None]
    rows = connection.execute(_SEEN, {"pairs": json.dumps(pairs)})
    return {(row.tenant_id, row.event_id): bool(row.refused) for row in rows}


def _read_told(connection: Connection, ids: Sequence[TenantId]) -> dict[TenantId, int]:
    """Return the last sequence of those that were told something though they are not known."""
    rows = (
        row
        for start in range(0, len(ids), _CHUNK)
        for row in connection.execute(_TOLD, {"ids": ids[start : start + _CHUNK]})
    )
    return {TenantId(row.tenant_id): row.sequence for row in rows}


def _adopt(connection: Connection, sightings: Sequence[Sighting], at: datetime) -> list[TenantId]:
    by_tenant = _by_tenant(sightings)
    known = _read_many(connection, list(by_tenant))
    told = _read_told(connection, list(by_tenant))
    adopted = [
        replace(_adopted(tenant_id, seen, at), sequence=told.get(tenant_id, 0))
        for tenant_id, seen in by_tenant.items()
        if tenant_id not in known
    ]
    _execute_many(connection, _PUT_TENANT, [_row(tenant, at) for tenant in adopted])
    return [tenant.tenant_id for tenant in adopted]


def _by_tenant(sightings: Sequence[Sighting]) -> Mapping[TenantId, Sequence[Sighting]]:
    grouped: dict[TenantId, list[Sighting]] = {}
    for seen in sightings:
        grouped.setdefault(seen.tenant_id, []).append(seen)
    return grouped


def _adopted(tenant_id: TenantId, seen: Sequence[Sighting], at: datetime) -> Tenant:
    """Return a tenant that is known only by its containers, of which the current one counts."""
    current = max(seen, key=lambda one: one.role is Role.CURRENT)
    serials = (one.origin.serial for one in seen if one.origin.maker is Maker.US)
    return Tenant(
        tenant_id=tenant_id,
        desired=Desired.RUNNING if current.status in _UP else Desired.STOPPED,
        revision=1,
        answered_revision=1,
        received_at=at,
        fingerprint=current.fingerprint,
        containers=_ids_of(seen),
        made=max(serials, default=0),
    )


def _ids_of(seen: Sequence[Sighting]) -> tuple[ContainerId, ...]:
    return tuple(one.container_id for one in seen)


def _take_over(
    connection: Connection, sightings: Sequence[Sighting], at: datetime
) -> list[TenantId]:
    by_tenant = _by_tenant(sightings)
    known = _read_many(connection, list(by_tenant))
    changed = [
        replace(
            tenant,
            containers=tuple(dict.fromkeys((*tenant.containers, *_ids_of(by_tenant[tenant_id])))),
            # It kept the tenant from having a container.
            setback=None if _is_name_conflict(tenant.setback) else tenant.setback,
        )
        for tenant_id, tenant in known.items()
    ]
    adopted = _adopt(connection, sightings, at)
    _execute_many(connection, _PUT_TENANT, [_row(tenant, at) for tenant in changed])
    return [*known, *adopted]


def _is_name_conflict(setback: Setback | None) -> bool:
    return setback is not None and setback.reason is Reason.NAME_CONFLICT


# --- committing a pass ------------------------------------------------------------------------


def _commit(connection: Connection, result: PassResult, now: datetime) -> tuple[Status, ...]:
    rows = connection.execute(_TENANT, {"tenant_id": result.tenant_id}).all()
    if not rows:
        return ()
    tenant = _tenant(rows[0])
    told: list[Status] = []
    for status in result.statuses:
        numbered = replace(status, sequence=_next_sequence(tenant, now))
        told.append(numbered)
        tenant = _with_status(tenant, numbered)
    # Where a newer event was recorded meanwhile, these are not its answer.
    is_newest = tenant.revision == result.revision
    causing = tenant if is_newest else result
    answer = _Answer(causing.correlation_id, causing.traceparent)
    _execute_many(connection, _PUT_OUTBOX, [_outbox_row(status, answer) for status in told])
    connection.execute(_PUT_TENANT, _row(_after_pass(tenant, result), now))
    return tuple(told)


def _with_seen(recorded: Sequence[ContainerId], result: PassResult) -> tuple[ContainerId, ...]:
    ids = dict.fromkeys((*recorded, *result.containers))
    kept = [container_id for container_id in ids if container_id not in result.gone]
    return tuple(kept[-MOST_RECORDED:])


def _after_pass(tenant: Tenant, result: PassResult) -> Tenant:
    answered = max(tenant.answered_revision, result.revision if result.answered else 0)
    applied = tenant.applied if result.applied is None else result.applied
    if tenant.desired is Desired.DELETED:
        applied = None
    after = replace(
        tenant,
        answered_revision=answered,
        applied=applied,
        # A take-over may have recorded another one meanwhile.
        containers=_with_seen(tenant.containers, result),
        made=max(tenant.made, result.made),
    )
    if tenant.revision != result.revision:
        # A newer event cleared the setback; the pass knew nothing of it.
        return after
    return replace(after, setback=result.setback, restarts=result.restarts)


# --- rows -------------------------------------------------------------------------------------


def _execute_many(
    connection: Connection, statement: TextClause, rows: Sequence[Mapping[str, object]]
) -> None:
    if rows:
        connection.execute(statement, rows)


def _stamp(at: datetime) -> str:
    return at.astimezone(UTC).isoformat(timespec="microseconds")


def _moment(stamp: str | None) -> datetime | None:
    return None if stamp is None else datetime.fromisoformat(stamp)


def _spec(content: str | None) -> TenantSpec | None:
    return None if content is None else decode_spec(content)


def _row(tenant: Tenant, now: datetime) -> dict[str, object]:
    status = tenant.status
    return {
        "tenant_id": tenant.tenant_id,
        "desired": tenant.desired.value,
        "revision": tenant.revision,
        "answered_revision": tenant.answered_revision,
        "received_at": _stamp(tenant.received_at),
        "kind": tenant.kind.value if tenant.kind is not None else None,
        "event_id": tenant.event_id,
        "correlation_id": tenant.correlation_id,
        "traceparent": tenant.traceparent,
        "generation": tenant.generation,
        "spec": encode_spec(tenant.spec) if tenant.spec is not None else None,
        "fingerprint": tenant.fingerprint,
        "applied": encode_spec(tenant.applied) if tenant.applied is not None else None,
        "sequence": tenant.sequence,
        "state": status.state.value if status is not None else None,
        "status": encode_status(status) if status is not None else None,
        "since": _stamp(tenant.since) if tenant.since is not None else None,
        "setback": _setback_text(tenant.setback),
        "restarts": " ".join(_stamp(at) for at in tenant.restarts),
        "containers": " ".join(tenant.containers),
        "made": tenant.made,
        "touched_at": _stamp(now),
    }


def _tenant(row: Row[tuple[object, ...]]) -> Tenant:
    return Tenant(
        tenant_id=TenantId(row.tenant_id),
        desired=Desired(row.desired),
        revision=row.revision,
        answered_revision=row.answered_revision,
        received_at=datetime.fromisoformat(row.received_at),
        kind=EventKind(row.kind) if row.kind is not None else None,
        event_id=EventId(row.event_id) if row.event_id is not None else None,
        correlation_id=row.correlation_id,
        traceparent=row.traceparent,
        generation=row.generation,
        spec=_spec(row.spec),
        fingerprint=row.fingerprint,
        applied=_spec(row.applied),
        sequence=row.sequence,
        status=decode_status(row.status) if row.status is not None else None,
        since=_moment(row.since),
        setback=_setback(row.setback),
        restarts=tuple(datetime.fromisoformat(stamp) for stamp in row.restarts.split()),
        containers=_container_ids(row.containers),
        made=row.made,
    )


def _container_ids(content: str) -> tuple[ContainerId, ...]:
    return tuple(ContainerId(text) for text in content.split())


def _line(row: Row[tuple[object, ...]]) -> TenantLine:
    return TenantLine(
        tenant_id=TenantId(row.tenant_id),
        desired=Desired(row.desired),
        state=row.state,
        sequence=row.sequence,
        since=datetime.fromisoformat(row.since),
        is_answered=bool(row.is_answered),
        reason=row.reason,
        message=row.message or "",
        health=row.health or Health.NONE.value,
        image=row.image,
        ports=_ports(row.ports),
        restart_count=row.restart_count or 0,
        attempt=row.attempt or 0,
        next_attempt_at=_moment(row.next_attempt_at),
    )


def _ports(content: str | None) -> tuple[BoundPort, ...]:
    return tuple(
        BoundPort(
            port["container_port"],
            Transport(port["protocol"]),
            port["host_ip"],
            port["host_port"],
            port["name"],
        )
        for port in json.loads(content or "[]")
    )


def _standing(row: Row[tuple[object, ...]]) -> Standing:
    return Standing(
        tenant_id=TenantId(row.tenant_id),
        desired=Desired(row.desired),
        is_answered=bool(row.is_answered),
        fingerprint=row.fingerprint,
        setback=_setback(row.setback),
        state=State(row.state) if row.state is not None else None,
        reason=Reason(row.reason) if row.reason is not None else None,
        container_id=ContainerId(row.container_id) if row.container_id is not None else None,
        containers=_container_ids(row.containers),
        made=row.made,
    )


def _setback_text(setback: Setback | None) -> str | None:
    if setback is None:
        return None
    due = setback.next_attempt_at
    fields = {
        "attempt": setback.attempt,
        "reason": setback.reason.value,
        "message": setback.message,
        "next_attempt_at": _stamp(due) if due is not None else None,
    }
    return json.dumps(fields)


def _setback(content: str | None) -> Setback | None:
    if content is None:
        return None
    fields = json.loads(content)
    return Setback(
        attempt=fields["attempt"],
        reason=Reason(fields["reason"]),
        message=fields["message"],
        next_attempt_at=_moment(fields["next_attempt_at"]),
    )


def _outbox_row(status: Status, answer: _Answer) -> dict[str, object]:
    return {
        "tenant_id": status.tenant_id,
        "sequence": status.sequence,
        "state": status.state.value,
        "body": encode_status(status),
        "created_at": _stamp(status.occurred_at),
        "correlation_id": answer.correlation_id,
        "traceparent": answer.traceparent,
    }


def _entry(row: Row[tuple[object, ...]]) -> OutboxEntry:
    return OutboxEntry(
        entry_id=row.entry_id,
        tenant_id=TenantId(row.tenant_id),
        sequence=row.sequence,
        state=State(row.state),
        body=row.body,
        created_at=datetime.fromisoformat(row.created_at),
        correlation_id=row.correlation_id,
        traceparent=row.traceparent,
    )
