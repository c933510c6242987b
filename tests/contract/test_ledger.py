"""What the ledger promises, on a SQLite file, with its own thread and in the caller's."""

import asyncio
import json
import sqlite3
import threading
from collections.abc import AsyncIterator, Awaitable
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from importlib import resources
from pathlib import Path

import pytest

from consumer.adapters.ledger import SqlLedger, ask_for_take_over, look_at_ledger
from consumer.errors import LedgerError, LedgerFault, LedgerUnanswered
from consumer.messages import encode_status
from consumer.model import (
    BoundPort,
    ContainerId,
    ContainerStatus,
    Desired,
    EventId,
    EventKind,
    Health,
    Reason,
    Refusal,
    Role,
    Setback,
    Sighting,
    State,
    Tenant,
    TenantId,
    TenantLine,
    Transport,
    Verdict,
)
from consumer.ports import PassResult
from consumer.status import report
from tests.builders import (
    MOMENT,
    TENANT_ID,
    make_container,
    make_event,
    make_spec,
    make_status,
    standing_of,
)
from tests.fakes.clock import HandClock
from tests.fakes.ledger import InlineLedger

NOW = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
MINUTES = 600.0
UNIX_MS = int(NOW.timestamp() * 1000)
OTHER = TenantId("other")


@pytest.fixture
def clock() -> HandClock:
    """Make the clock of `ledger`: it stands still unless it is moved."""
    return HandClock(NOW)


async def run_on(ledger: SqlLedger, clock: HandClock, *, seconds: float) -> None:
    """Have a consumer run on the ledger for so long."""
    for _ in range(int(seconds / MINUTES)):
        clock.advance(MINUTES)
        await ledger.probe()


@pytest.fixture(params=[SqlLedger, InlineLedger])
async def ledger(
    tmp_path: Path, clock: HandClock, request: pytest.FixtureRequest
) -> AsyncIterator[SqlLedger]:
    """Open a new ledger whose clock stands still."""
    kind: type[SqlLedger] = request.param
    opened = await kind.open(f"sqlite:///{tmp_path}/ledger.db", clock=clock)
    yield opened
    await opened.close()


async def known(ledger: SqlLedger, tenant_id: TenantId = TENANT_ID) -> Tenant:
    """Return the tenant, which has to be there."""
    tenant = await ledger.read(tenant_id)
    assert tenant is not None
    return tenant


def event_number(number: int) -> EventId:
    """Return one of many event ids."""
    return EventId(f"event-{number}")


async def answer(ledger: SqlLedger, **changes: object) -> None:
    """Commit a pass that answers the tenant's last event."""
    tenant = await known(ledger)
    fields: dict[str, object] = {"statuses": (make_status(),), "answered": True}
    await ledger.commit(
        PassResult(tenant_id=TENANT_ID, revision=tenant.revision, **(fields | changes))  # type: ignore[arg-type]  # checked at run time
    )


async def test_a_recorded_event_is_the_desired_state(ledger: SqlLedger) -> None:
    """What an event wants can be read back whole."""
    event = make_event(generation=3, correlation_id="c", traceparent="t")

    recorded = await ledger.record([event])

    tenant = await known(ledger)
    assert [entry.verdict for entry in recorded] == [Verdict.RECORDED]
    assert recorded[0].changes_intention
    assert (tenant.spec, tenant.desired, tenant.generation) == (event.spec, Desired.RUNNING, 3)
    assert (tenant.event_id, tenant.correlation_id, tenant.traceparent) == ("event-1", "c", "t")
    assert tenant.received_at == MOMENT
    assert not tenant.is_answered


async def test_an_event_id_seen_before_is_a_duplicate(ledger: SqlLedger) -> None:
    """The same event changes nothing, in a later batch and within one."""
    twice = await ledger.record([make_event(), make_event()])
    later = await ledger.record([make_event()])

    verdicts = [entry.verdict for entry in (*twice, *later)]
    assert verdicts == [Verdict.RECORDED, Verdict.DUPLICATE, Verdict.DUPLICATE]
    assert (await known(ledger)).revision == 1


async def test_event_ids_belong_to_their_tenant(ledger: SqlLedger) -> None:
    """Two tenants may use the same event id."""
    recorded = await ledger.record([make_event(), make_event(tenant_id=OTHER)])

    assert [entry.verdict for entry in recorded] == [Verdict.RECORDED] * 2


@pytest.mark.parametrize("generation", [1, 2])
async def test_what_is_not_newer_is_stale(ledger: SqlLedger, generation: int) -> None:
    """An event with a lower or equal generation changes nothing, also after a delete."""
    await ledger.record([make_event(generation=2)])
    await ledger.record([make_event(EventKind.DELETED, event_id=event_number(2), generation=3)])

    late = make_event(event_id=event_number(3), generation=generation)
    recorded = await ledger.record([late])

    assert recorded[0].verdict is Verdict.STALE
    assert (await known(ledger)).desired is Desired.DELETED


async def test_without_id_and_generation_an_equal_spec_is_a_duplicate(ledger: SqlLedger) -> None:
    """An event that can be told by nothing else is told by what it wants."""
    first = await ledger.record([make_event(event_id=None)])
    same = await ledger.record([make_event(event_id=None)])
    other = await ledger.record([make_event(event_id=None, spec=make_spec(image="nginx:2"))])

    verdicts = [entry.verdict for entry in (*first, *same, *other)]
    assert verdicts == [Verdict.RECORDED, Verdict.DUPLICATE, Verdict.RECORDED]


async def test_a_batch_is_taken_in_order(ledger: SqlLedger) -> None:
    """The last event of a batch is what is wanted."""
    kinds = [EventKind.CREATED, EventKind.SUSPENDED, EventKind.RESUMED, EventKind.DELETED]
    events = [make_event(kind, event_id=event_number(n)) for n, kind in enumerate(kinds)]

    await ledger.record(events)

    tenant = await known(ledger)
    assert (tenant.desired, tenant.revision, tenant.event_id) == (Desired.DELETED, 4, "event-3")
    assert tenant.spec is None


async def test_suspension_outlives_an_update(ledger: SqlLedger) -> None:
    """A suspended tenant keeps a new spec for when it is resumed."""
    await ledger.record([make_event(), make_event(EventKind.SUSPENDED, event_id=event_number(2))])
    new = make_spec(image="nginx:2")
    await ledger.record([make_event(EventKind.UPDATED, event_id=event_number(3), spec=new)])

    tenant = await known(ledger)
    assert (tenant.desired, tenant.spec) == (Desired.STOPPED, new)


async def test_a_commit_puts_its_statuses_in_the_outbox(ledger: SqlLedger) -> None:
    """Statuses are numbered from the Unix time in milliseconds on, and wait to be sent in order."""
    await ledger.record([make_event(correlation_id="c", traceparent="t")])

    told = await ledger.commit(
        PassResult(
            tenant_id=TENANT_ID,
            revision=1,
            statuses=(make_status(), make_status(state=State.FAILED, reason=Reason.EXITED)),
            answered=True,
            applied=make_spec(),
            restarts=(MOMENT,),
        )
    )

    unsent = await ledger.unsent(limit=10)
    tenant = await known(ledger)
    assert [status.sequence for status in told] == [UNIX_MS, UNIX_MS + 1]
    assert [(entry.sequence, entry.state) for entry in unsent] == [
        (UNIX_MS, State.RUNNING),
        (UNIX_MS + 1, State.FAILED),
    ]
    assert {(entry.correlation_id, entry.traceparent) for entry in unsent} == {("c", "t")}
    assert tenant.status == told[-1]
    assert (tenant.applied, tenant.restarts) == (make_spec(), (MOMENT,))
    assert tenant.is_answered


async def test_what_is_marked_sent_is_not_sent_again(ledger: SqlLedger) -> None:
    """Only the confirmed entries leave the outbox."""
    await ledger.record([make_event()])
    await answer(ledger)
    await answer(ledger)
    first, second = await ledger.unsent(limit=10)

    await ledger.mark_sent([first.entry_id], at=NOW)

    assert await ledger.unsent(limit=10) == [second]
    assert await ledger.outbox_depth() == (1, MOMENT)


async def test_held_tenants_are_passed_over(ledger: SqlLedger) -> None:
    """However many names are passed over, the limit is filled with entries of the others."""
    await ledger.record([make_event(), make_event(tenant_id=OTHER)])
    await answer(ledger)
    await answer(ledger)
    status = make_status(tenant_id=OTHER)
    await ledger.commit(PassResult(tenant_id=OTHER, revision=1, statuses=(status,), answered=True))
    held = [TENANT_ID, *(TenantId(f"t{number}") for number in range(40_000))]

    unsent = await ledger.unsent(limit=1, without=held)

    assert [entry.tenant_id for entry in unsent] == [OTHER]
    assert len(await ledger.unsent(limit=10)) == 3


async def test_a_newer_event_keeps_what_an_older_pass_would_undo(ledger: SqlLedger) -> None:
    """A pass for an older revision tells its status, but does not answer for the newer."""
    await ledger.record([make_event()])
    await ledger.record([make_event(EventKind.DELETED, event_id=event_number(2))])
    late = PassResult(
        tenant_id=TENANT_ID,
        revision=1,
        statuses=(make_status(),),
        answered=True,
        setback=Setback(1, Reason.IMAGE_NOT_FOUND, "no", NOW),
    )

    told = await ledger.commit(late)

    tenant = await known(ledger)
    assert len(told) == 1
    assert (tenant.answered_revision, tenant.setback) == (1, None)
    assert not tenant.is_answered


async def test_a_setback_is_kept_and_cleared_by_the_next_event(ledger: SqlLedger) -> None:
    """A failed try holds back until something new is wanted."""
    await ledger.record([make_event()])
    setback = Setback(2, Reason.PORT_CONFLICT, "8080", NOW)
    await answer(ledger, setback=setback)
    held_back = await known(ledger)
    await ledger.record([make_event(EventKind.UPDATED, event_id=event_number(2))])

    assert held_back.setback == setback
    assert (await known(ledger)).setback is None


async def test_sequences_go_on_through_delete_and_creation(ledger: SqlLedger) -> None:
    """The next status of a tenant has the next number, whatever became of it."""
    for number, kind in enumerate((EventKind.CREATED, EventKind.DELETED, EventKind.CREATED)):
        await ledger.record([make_event(kind, event_id=event_number(number))])
        await answer(ledger)

    sequences = [entry.sequence for entry in await ledger.unsent(limit=10)]
    assert sequences == [UNIX_MS, UNIX_MS + 1, UNIX_MS + 2]


def refusal(**changes: object) -> Refusal:
    """Return a refused event."""
    fields: dict[str, object] = {
        "tenant_id": TENANT_ID,
        "received_at": NOW,
        "reason": Reason.INVALID_EVENT,
        "message": "containers: docker provider requires exactly 1 container, got 2",
        "event_id": EventId("bad"),
    }
    return Refusal(**(fields | changes))  # type: ignore[arg-type]  # checked at run time


async def test_a_refused_event_of_an_unknown_tenant_is_told(ledger: SqlLedger) -> None:
    """It is answered once, and no tenant comes into being."""
    recorded = await ledger.record([refusal(), refusal()])
    again = await ledger.record([refusal()])

    (entry,) = await ledger.unsent(limit=10)
    verdicts = [it.verdict for it in (*recorded, *again)]
    assert verdicts == [Verdict.RECORDED, Verdict.DUPLICATE, Verdict.DUPLICATE]
    assert (entry.state, json.loads(entry.body)["event_id"]) == (State.FAILED, "bad")
    assert await ledger.read(TENANT_ID) is None
    assert await ledger.page(after="", limit=10, state=None) == []
    assert await ledger.lines(after="", limit=10) == []
    assert set((await ledger.counts()).values()) == {0}


@pytest.mark.parametrize("kind", [EventKind.SUSPENDED, EventKind.RESUMED])
async def test_there_is_nothing_to_suspend_of_an_unknown_tenant(
    ledger: SqlLedger, kind: EventKind
) -> None:
    """It is refused as about nothing, answered once, and no tenant comes into being."""
    (first,) = await ledger.record([make_event(kind, correlation_id="c")])
    (second,) = await ledger.record([make_event(kind)])

    (entry,) = await ledger.unsent(limit=10)
    told = json.loads(entry.body)
    assert first.verdict is second.verdict is Verdict.MISSING
    assert (told["state"], told["reason"], told["event_id"]) == (
        "failed",
        "invalid_event",
        "event-1",
    )
    assert "missing" in told["message"]
    assert entry.correlation_id == "c"
    assert await ledger.read(TENANT_ID) is None


@pytest.mark.parametrize("is_adopted", [False, True])
async def test_sequences_rise_from_before_a_tenant_was_known(
    ledger: SqlLedger, is_adopted: bool
) -> None:
    """What was told of it while it was not known comes before all that is told of it later."""
    await ledger.record([refusal(event_id=event_number(number)) for number in range(5, 8)])
    await ledger.record([refusal(event_id=event_number(8))])
    if is_adopted:
        await ledger.adopt([sighting(ContainerStatus.RUNNING)], at=NOW)
    else:
        await ledger.record([make_event()])
    await answer(ledger)

    sequences = [entry.sequence for entry in await ledger.unsent(limit=10)]
    assert sequences == [UNIX_MS + number for number in range(5)]


async def test_what_is_told_again_carries_what_it_carried(ledger: SqlLedger) -> None:
    """After a refusal the truth is told as of its own event, not as of one still unanswered."""
    await ledger.record([make_event(correlation_id="first", traceparent="t1")])
    await answer(ledger)
    await ledger.record([make_event(event_id=event_number(2), correlation_id="second")])

    await ledger.record([refusal(correlation_id="refused")])

    (*_, refused, truth) = await ledger.unsent(limit=10)
    assert refused.correlation_id == "refused"
    assert json.loads(truth.body)["event_id"] == make_status().event_id
    assert (truth.correlation_id, truth.traceparent) == ("first", "t1")


async def test_a_status_of_an_older_event_carries_the_older_ones_tracing(
    ledger: SqlLedger,
) -> None:
    """A pass that a newer event overtook answers its own, not the newer one."""
    await ledger.record([make_event(correlation_id="first", traceparent="t1")])
    await ledger.record(
        [make_event(EventKind.DELETED, event_id=event_number(2), correlation_id="2")]
    )

    await ledger.commit(
        PassResult(
            tenant_id=TENANT_ID,
            revision=1,
            statuses=(make_status(),),
            answered=True,
            correlation_id="first",
            traceparent="t1",
        )
    )

    (entry,) = await ledger.unsent(limit=10)
    assert (entry.correlation_id, entry.traceparent) == ("first", "t1")


async def test_after_a_refused_event_the_truth_is_told_again(ledger: SqlLedger) -> None:
    """A running tenant's refused update is told, then that it still runs; both in order."""
    await ledger.record([make_event()])
    await answer(ledger, statuses=(make_status(container=report(make_container())),))

    await ledger.record([refusal()])

    tenant = await known(ledger)
    entries = await ledger.unsent(limit=10)
    assert [entry.state for entry in entries] == [State.RUNNING, State.FAILED, State.RUNNING]
    assert [entry.sequence for entry in entries] == [UNIX_MS, UNIX_MS + 1, UNIX_MS + 2]
    assert tenant.status is not None
    assert (tenant.status.state, tenant.status.reason) == (State.RUNNING, Reason.UNCHANGED)
    assert tenant.status.container == report(make_container())
    assert tenant.desired is Desired.RUNNING


async def test_a_refused_event_is_told_once(ledger: SqlLedger) -> None:
    """A redelivered refused event is a duplicate."""
    await ledger.record([refusal()])

    recorded = await ledger.record([refusal()])

    assert recorded[0].verdict is Verdict.DUPLICATE
    assert len(await ledger.unsent(limit=10)) == 1


async def test_what_was_refused_is_recorded_once_it_is_no_longer_refused(
    ledger: SqlLedger,
) -> None:
    """A replay under the same id, after the policy changed, is news; a second one is not."""
    await ledger.record([refusal()])
    event = make_event(event_id=EventId("bad"))

    recorded = await ledger.record([event])
    again = await ledger.record([event])

    assert (recorded[0].verdict, again[0].verdict) == (Verdict.RECORDED, Verdict.DUPLICATE)
    assert (await known(ledger)).desired is Desired.RUNNING


async def test_what_was_recorded_stays_so_when_it_is_refused_later(ledger: SqlLedger) -> None:
    """A redelivery under a stricter policy neither tells a failure nor makes room for another."""
    event = make_event(event_id=EventId("bad"))
    await ledger.record([event])

    (refused, again) = await ledger.record([refusal(), event])

    assert (refused.verdict, again.verdict) == (Verdict.DUPLICATE, Verdict.DUPLICATE)


async def test_a_ledger_of_an_older_version_is_brought_up(tmp_path: Path) -> None:
    """The ids that it saw are those of events that were recorded; states began when last told."""
    first = resources.files("consumer.adapters") / "migrations" / "0001_start.sql"
    with closing(sqlite3.connect(tmp_path / "ledger.db")) as old:
        old.executescript(first.read_text(encoding="utf-8"))
        old.execute("INSERT INTO event_ids VALUES (?, 'old', '2026-11-24')", (TENANT_ID,))
        old.execute(
            "INSERT INTO tenants (tenant_id, desired, revision, answered_revision, received_at,"
            " status, state, touched_at) VALUES (?, 'stopped', 1, 1, '2026-11-01T00:00:00+00:00',"
            " ?, 'running', '')",
            (OTHER, encode_status(make_status(tenant_id=OTHER))),
        )
        old.execute("PRAGMA user_version = 1")
        old.commit()

    opened = await SqlLedger.open(f"sqlite:///{tmp_path}/ledger.db", clock=HandClock(NOW))
    recorded = await opened.record([make_event(event_id=EventId("old")), make_event()])
    tenant = await known(opened, OTHER)
    await opened.close()

    assert [one.verdict for one in recorded] == [Verdict.DUPLICATE, Verdict.RECORDED]
    assert tenant.since == make_status().occurred_at
    assert (tenant.containers, tenant.made) == ((), -1)


async def test_a_look_at_a_ledger_tells_what_is_the_matter(tmp_path: Path) -> None:
    """Missing, owned, sound, damaged or too new; and a look makes no file."""
    place = tmp_path / "ledger.db"
    url = f"sqlite:///{place}"

    missing, has_made = look_at_ledger(url), place.exists()
    opened = await SqlLedger.open(url, clock=HandClock(NOW))
    owned = look_at_ledger(url)
    await opened.close()
    sound = look_at_ledger(url)
    with closing(sqlite3.connect(place)) as newer:
        newer.execute("PRAGMA user_version = 999")
    new = look_at_ledger(url)
    place.write_bytes(b"no database" * 100)
    damaged = look_at_ledger(url)

    assert (missing.is_there, has_made) == (False, False)
    assert (owned.is_owned, owned.fault) == (True, None)
    assert (sound.is_there, sound.is_owned, sound.is_writable, sound.fault) == (
        *(True, False, True),
        None,
    )
    assert (new.is_newer, "newer consumer (schema 999" in (new.fault or "")) == (True, True)
    assert (damaged.is_newer, damaged.fault) == (False, "file is not a database")


def sighting(status: ContainerStatus, tenant_id: TenantId = TENANT_ID) -> Sighting:
    """Return an entry of the engine's list."""
    container = make_container()
    return Sighting(
        tenant_id=tenant_id,
        container_id=container.container_id,
        role=Role.CURRENT,
        status=status,
        health=Health.NONE,
        fingerprint="print",
        created_at=MOMENT,
    )


async def test_adoption_takes_what_is_there_for_what_is_wanted(ledger: SqlLedger) -> None:
    """A running container is wanted running, a stopped one stopped; nobody waits for an answer."""
    seen = [sighting(ContainerStatus.RUNNING), sighting(ContainerStatus.EXITED, OTHER)]

    adopted = await ledger.adopt(seen, at=NOW)

    running, stopped = await known(ledger), await known(ledger, OTHER)
    assert adopted == [TENANT_ID, OTHER]
    assert (running.desired, stopped.desired) == (Desired.RUNNING, Desired.STOPPED)
    assert running.fingerprint == "print"
    assert running.is_answered


async def test_adoption_leaves_known_tenants_alone(ledger: SqlLedger) -> None:
    """What an event wanted is not overruled by what is seen."""
    await ledger.record([make_event(EventKind.DELETED)])

    adopted = await ledger.adopt([sighting(ContainerStatus.RUNNING)], at=NOW)

    assert adopted == []
    assert (await known(ledger)).desired is Desired.DELETED


async def test_a_pass_leaves_the_ids_of_the_tenants_containers(ledger: SqlLedger) -> None:
    """They are read back, also by the resync; the serial never falls."""
    await ledger.record([make_event()])
    before = (await known(ledger)).made
    ids = (ContainerId("one"), ContainerId("two"))

    await answer(ledger, containers=ids, made=before + 2)
    await ledger.record([make_event(EventKind.SUSPENDED, event_id=event_number(2))])
    await answer(ledger, containers=ids[1:], gone=ids[:1], made=before + 1)
    tenant, (standing,) = await known(ledger), await ledger.list_for_resync()

    assert (tenant.containers, tenant.made) == (ids[1:], before + 2)
    assert (standing.containers, standing.made) == (ids[1:], before + 2)


async def test_a_take_over_records_what_another_ledger_knew(ledger: SqlLedger) -> None:
    """Unknown tenants are adopted; known ones get their container, and what is wanted stays."""
    await ledger.record([make_event(EventKind.DELETED)])
    conflict = Setback(3, Reason.NAME_CONFLICT, "taken", NOW)
    await answer(ledger, statuses=(), answered=False, setback=conflict)
    await ledger.ask_take_over()
    is_asked = await ledger.is_take_over_asked()

    seen = [sighting(ContainerStatus.RUNNING), sighting(ContainerStatus.RUNNING, OTHER)]
    taken = await ledger.take_over(seen, at=NOW)
    tenant, other = await known(ledger), await known(ledger, OTHER)

    assert (is_asked, await ledger.is_take_over_asked()) == (True, False)
    assert taken == [TENANT_ID, OTHER]
    assert (tenant.desired, tenant.setback) == (Desired.DELETED, None)
    assert tenant.containers == other.containers == (make_container().container_id,)
    assert other.desired is Desired.RUNNING


async def test_a_pass_does_not_forget_what_was_taken_over_meanwhile(ledger: SqlLedger) -> None:
    """Only what a pass removed itself is forgotten by it."""
    await ledger.record([make_event()])
    await ledger.take_over([sighting(ContainerStatus.RUNNING)], at=NOW)

    await answer(ledger, containers=(ContainerId("one"),))

    assert (await known(ledger)).containers == (make_container().container_id, ContainerId("one"))


async def test_a_ledger_is_empty_until_it_knows_a_tenant(ledger: SqlLedger) -> None:
    """A tombstone is knowledge too."""
    is_new = await ledger.is_empty()

    await ledger.record([make_event(EventKind.DELETED)])

    assert (is_new, await ledger.is_empty()) == (True, False)


async def test_a_take_over_is_asked_for_beside_a_running_consumer(tmp_path: Path) -> None:
    """The request is written, and it is told whether somebody runs who sees it."""
    url = f"sqlite:///{tmp_path}/ledger.db"
    before = await ask_for_take_over(url, clock=HandClock(NOW))
    ledger = await SqlLedger.open(url, clock=HandClock(NOW))
    is_kept = await ledger.is_take_over_asked()
    await ledger.take_over([], at=NOW)
    beside = await ask_for_take_over(url, clock=HandClock(NOW))
    is_seen = await ledger.is_take_over_asked()
    await ledger.close()

    assert (before, is_kept, beside, is_seen) == (False, True, True, True)


async def test_pages_and_counts_go_by_state(ledger: SqlLedger) -> None:
    """Tenants can be paged in order, by state, and counted."""
    ids = [TenantId(f"t{number}") for number in range(4)]
    await ledger.record([make_event(tenant_id=tenant_id) for tenant_id in ids])
    for tenant_id in ids[:2]:
        status = make_status(tenant_id=tenant_id)
        result = PassResult(tenant_id=tenant_id, revision=1, statuses=(status,), answered=True)
        await ledger.commit(result)

    everything = await ledger.page(after="", limit=3, state=None)
    rest = await ledger.page(after="t2", limit=3, state=None)
    pending = await ledger.page(after="", limit=9, state="pending")

    assert [tenant.tenant_id for tenant in everything] == ids[:3]
    assert [tenant.tenant_id for tenant in rest] == ids[3:]
    assert [tenant.tenant_id for tenant in pending] == ids[2:]
    assert await ledger.counts() == {"running": 2, "stopped": 0, "failed": 0, "pending": 2}


async def test_lines_show_what_is_counted(ledger: SqlLedger) -> None:
    """A line has what its tenant's status tells, in short; finished tombstones have none."""
    ids = [TenantId(f"t{number}") for number in range(4)]
    await ledger.record([make_event(tenant_id=tenant_id) for tenant_id in ids])
    port = BoundPort(80, Transport.TCP, "0.0.0.0", 8080, "http")
    failed = make_status(
        tenant_id=ids[1],
        state=State.FAILED,
        reason=Reason.PORT_CONFLICT,
        message="x" * 1000,
        container=report(make_container(image="nginx:2", restart_count=3)),
        ports=(port,),
        health=Health.UNHEALTHY,
    )
    setback = Setback(2, Reason.PORT_CONFLICT, "8080", NOW)
    told = await ledger.commit(
        PassResult(tenant_id=ids[1], revision=1, statuses=(failed,), answered=True, setback=setback)
    )
    await ledger.record([make_event(EventKind.DELETED, tenant_id=ids[3], event_id=EventId("del"))])
    await ledger.commit(PassResult(tenant_id=ids[3], revision=2, answered=True))

    lines = await ledger.lines(after="", limit=2)

    assert [line.tenant_id for line in lines] == ids[:2]
    assert lines[0] == TenantLine(
        tenant_id=ids[0],
        desired=Desired.RUNNING,
        state="pending",
        sequence=0,
        since=MOMENT,
        is_answered=False,
        image="nginx:alpine",
    )
    assert lines[1] == TenantLine(
        tenant_id=ids[1],
        desired=Desired.RUNNING,
        state="failed",
        sequence=told[0].sequence,
        since=MOMENT,
        is_answered=True,
        reason="port_conflict",
        message="x" * 200,
        health="unhealthy",
        image="nginx:2",
        ports=(port,),
        restart_count=3,
        attempt=2,
        next_attempt_at=NOW,
    )
    assert [line.tenant_id for line in await ledger.lines(after="t1", limit=9)] == ids[2:3]
    assert [line.tenant_id for line in await ledger.lines_of([*ids[2:], OTHER])] == ids[2:3]


async def test_a_state_that_is_told_again_began_when_it_did(ledger: SqlLedger) -> None:
    """Neither a retry, nor an event that was refused, nor a restart makes a state look new."""
    moments = [MOMENT + timedelta(minutes=minute) for minute in range(5)]
    await ledger.record([make_event()])
    since = []
    for moment, state in zip(moments[:3], (State.FAILED, State.FAILED, State.RUNNING), strict=True):
        reason = Reason.EXITED if state is State.FAILED else Reason.RESTARTED
        await answer(
            ledger, statuses=(make_status(state=state, reason=reason, occurred_at=moment),)
        )
        since.append((await known(ledger)).since)
    await ledger.record([refusal()])

    assert since == [moments[0], moments[0], moments[2]]
    assert (await known(ledger)).since == moments[2]
    assert (await ledger.lines(after="", limit=1))[0].since == moments[2]


async def test_the_history_is_what_was_told(ledger: SqlLedger, clock: HandClock) -> None:
    """Newest first, of this tenant alone, sent or not; swept when it is old."""
    await ledger.record([make_event(), make_event(tenant_id=OTHER)])
    for reason in (Reason.STARTED, Reason.RESTARTED, Reason.HEALTHY):
        await answer(ledger, statuses=(make_status(reason=reason),))
    other = make_status(tenant_id=OTHER)
    await ledger.commit(PassResult(tenant_id=OTHER, revision=1, statuses=(other,), answered=True))
    unsent = await ledger.unsent(limit=10)
    await ledger.mark_sent([entry.entry_id for entry in unsent[:2]], at=NOW)

    everything = await ledger.history(TENANT_ID, limit=9)
    newest = await ledger.history(TENANT_ID, limit=2)
    await run_on(ledger, clock, seconds=4 * MINUTES)
    await ledger.sweep(older_than_seconds=2 * MINUTES)
    left = await ledger.history(TENANT_ID, limit=9)

    reasons = [status.reason for status in everything]
    assert reasons == [Reason.HEALTHY, Reason.RESTARTED, Reason.STARTED]
    assert everything[0] == (await known(ledger)).status
    assert newest == everything[:2]
    assert left == everything[:1]


async def test_the_last_startups_are_remembered(ledger: SqlLedger) -> None:
    """Of all tenants, newest first; a status that is no start has none."""
    await ledger.record([make_event()])
    for seconds in (0.25, None, 4.0, 0.5):
        await answer(ledger, statuses=(make_status(startup_seconds=seconds),))

    assert await ledger.startups(limit=9) == [0.5, 4.0, 0.25]
    assert await ledger.startups(limit=1) == [0.5]


async def test_who_listens_is_told_of_whom_a_commit_was(ledger: SqlLedger) -> None:
    """Every commit about a tenant names it, also when nobody waits for it any more."""
    heard: list[TenantId] = []
    with ledger.telling(heard.extend):
        await ledger.record([make_event()])
        await answer(ledger)
        await ledger.adopt([sighting(ContainerStatus.RUNNING, OTHER)], at=NOW)
        given_up = asyncio.create_task(ledger.record([make_event(event_id=event_number(9))]))
        await asyncio.sleep(0)
        given_up.cancel()
        await ledger.probe()

    await ledger.record([make_event(event_id=event_number(10))])

    assert heard == [TENANT_ID, TENANT_ID, OTHER, TENANT_ID]


async def test_tenants_are_counted_as_they_are(ledger: SqlLedger, clock: HandClock) -> None:
    """After every kind of change, however often they were counted before."""

    async def counted() -> dict[str, int]:
        return {state: count for state, count in (await ledger.counts()).items() if count}

    before = await counted()
    await ledger.record([make_event()])
    recorded = await counted()
    await ledger.adopt([sighting(ContainerStatus.RUNNING, OTHER)], at=NOW)
    adopted = await counted()
    await answer(ledger)
    answered = await counted()
    await ledger.record([make_event(EventKind.DELETED, event_id=event_number(2))])
    gone = make_status(state=State.FAILED, reason=Reason.STOP_FAILED)
    await answer(ledger, statuses=(gone,))
    failed = await counted()
    unsent = await ledger.unsent(limit=10)
    await ledger.mark_sent([entry.entry_id for entry in unsent], at=NOW)
    await run_on(ledger, clock, seconds=4 * MINUTES)
    await ledger.sweep(older_than_seconds=2 * MINUTES)
    swept = await counted()

    assert (before, recorded, adopted) == ({}, {"pending": 1}, {"pending": 2})
    assert (answered, failed) == ({"running": 1, "pending": 1}, {"failed": 1, "pending": 1})
    assert swept == {"pending": 1}


async def test_the_resync_list_leaves_out_finished_tombstones(ledger: SqlLedger) -> None:
    """Deleted and answered tenants need no look; deleted and unanswered ones do."""
    await ledger.record([make_event(), make_event(EventKind.DELETED, tenant_id=OTHER)])
    before = {tenant.tenant_id for tenant in await ledger.list_for_resync()}
    result = PassResult(tenant_id=OTHER, revision=1, answered=True)
    await ledger.commit(result)

    assert before == {TENANT_ID, OTHER}
    assert [tenant.tenant_id for tenant in await ledger.list_for_resync()] == [TENANT_ID]


async def test_the_resync_list_says_how_tenants_stand(ledger: SqlLedger) -> None:
    """Before the first status and after it, with a container and without, after a failure."""
    setback = Setback(2, Reason.CREATE_FAILED, "no", NOW)
    failed = make_status(tenant_id=OTHER, state=State.FAILED, reason=Reason.CREATE_FAILED)
    await ledger.record([make_event(), make_event(tenant_id=OTHER)])
    await ledger.record([make_event(tenant_id=TenantId("new"))])
    await answer(ledger, statuses=(make_status(container=report(make_container())),))
    await ledger.commit(
        PassResult(tenant_id=OTHER, revision=1, statuses=(failed,), answered=True, setback=setback)
    )

    standings = await ledger.list_for_resync()

    tenants = await ledger.page(after="", limit=9, state=None)
    assert len(tenants) == 3
    assert {standing.tenant_id: standing for standing in standings} == {
        tenant.tenant_id: standing_of(tenant) for tenant in tenants
    }


async def test_sweeping_forgets_only_what_is_finished(ledger: SqlLedger, clock: HandClock) -> None:
    """Old ids, sent entries and told tombstones go; what lives or is unsent stays."""
    await ledger.record([make_event(), make_event(EventKind.DELETED, tenant_id=OTHER)])
    await answer(ledger)
    gone = make_status(tenant_id=OTHER, state=State.STOPPED, reason=Reason.DELETED)
    await ledger.commit(PassResult(tenant_id=OTHER, revision=1, statuses=(gone,), answered=True))
    await run_on(ledger, clock, seconds=4 * MINUTES)

    await ledger.sweep(older_than_seconds=2 * MINUTES)
    unsent = await ledger.unsent(limit=10)
    assert await ledger.read(OTHER) is not None
    await ledger.mark_sent([entry.entry_id for entry in unsent], at=NOW)
    await run_on(ledger, clock, seconds=4 * MINUTES)
    await ledger.sweep(older_than_seconds=2 * MINUTES)

    assert await ledger.read(OTHER) is None
    assert await ledger.read(TENANT_ID) is not None
    recorded = await ledger.record([make_event(EventKind.UPDATED)])
    assert recorded[0].verdict is Verdict.RECORDED


async def tombstone(ledger: SqlLedger, *, at: datetime) -> None:
    """Have a tenant that was deleted and told so, with nothing left to send."""
    await ledger.record([make_event(EventKind.DELETED, event_id=event_number(1))])
    gone = make_status(state=State.STOPPED, reason=Reason.DELETED)
    await answer(ledger, statuses=(gone,))
    (entry,) = await ledger.unsent(limit=9)
    await ledger.mark_sent([entry.entry_id], at=at)


YEARS = 56 * 365 * 86400.0


@pytest.mark.parametrize(
    ("before", "after"),
    [(0, YEARS), (0, 4 * MINUTES), (-YEARS, YEARS), (YEARS, -YEARS), (-4 * MINUTES, 4 * MINUTES)],
    ids=["far ahead", "ahead", "from the epoch to now", "there and back", "back and ahead"],
)
async def test_a_clock_that_is_set_makes_nothing_old(
    ledger: SqlLedger, clock: HandClock, before: float, after: float
) -> None:
    """A tombstone stays until consumers have run for as long as it is to be kept, and then goes."""
    await ledger.probe()
    await run_on(ledger, clock, seconds=3 * MINUTES)
    clock.set_ahead(before)
    await tombstone(ledger, at=clock.now())
    clock.set_ahead(after)

    swept_at_once = await ledger.sweep(older_than_seconds=2 * MINUTES)
    await run_on(ledger, clock, seconds=MINUTES)
    swept_too_soon = await ledger.sweep(older_than_seconds=2 * MINUTES)
    kept = await ledger.read(TENANT_ID)
    await run_on(ledger, clock, seconds=3 * MINUTES)
    clock.advance(max(0, before))  # by both clocks: as long as its stamp lies ahead, it is not old
    await run_on(ledger, clock, seconds=4 * MINUTES)
    await ledger.sweep(older_than_seconds=2 * MINUTES)

    assert (swept_at_once, swept_too_soon) == (0, 0)
    assert kept is not None
    assert await ledger.read(TENANT_ID) is None


async def test_running_time_is_counted_across_restarts(tmp_path: Path) -> None:
    """What one consumer left to be swept, the next sweeps when both have run for long enough."""
    clock, url = HandClock(NOW), f"sqlite:///{tmp_path}/ledger.db"
    first = await SqlLedger.open(url, clock=clock)
    await first.probe()
    await tombstone(first, at=clock.now())
    await run_on(first, clock, seconds=2 * MINUTES)
    await first.close()
    clock.advance(YEARS)

    second = await SqlLedger.open(url, clock=HandClock(clock.now()))
    swept_at_once = await second.sweep(older_than_seconds=3 * MINUTES)
    await second.close()
    clock = HandClock(clock.now())
    third = await SqlLedger.open(url, clock=clock)
    await third.probe()
    await run_on(third, clock, seconds=3 * MINUTES)
    await third.sweep(older_than_seconds=3 * MINUTES)
    kept = await third.read(TENANT_ID)
    await third.close()

    assert swept_at_once == 0
    assert kept is None


async def test_many_commits_at_once_all_hold(ledger: SqlLedger) -> None:
    """Commits that wait together are committed together, each returning its own numbers."""
    ids = [TenantId(f"t{number}") for number in range(50)]
    await ledger.record([make_event(tenant_id=tenant_id) for tenant_id in ids])

    async def one_pass(tenant_id: TenantId) -> int:
        status = make_status(tenant_id=tenant_id)
        result = PassResult(tenant_id=tenant_id, revision=1, statuses=(status,), answered=True)
        return (await ledger.commit(result))[0].sequence

    async with asyncio.TaskGroup() as group:
        passes = [group.create_task(one_pass(tenant_id)) for tenant_id in ids]

    assert {done.result() for done in passes} == {UNIX_MS}
    assert len(await ledger.unsent(limit=100)) == 50


async def test_one_bad_write_does_not_fail_its_neighbours(ledger: SqlLedger) -> None:
    """A write that cannot be done fails alone, though it was committed together with others."""
    bad = replace(make_event(tenant_id=OTHER), correlation_id=object())  # type: ignore[arg-type]

    async with asyncio.TaskGroup() as group:
        good = group.create_task(ledger.record([make_event()]))
        failing = group.create_task(expect_ledger_error(ledger, bad))

    assert good.result()[0].verdict is Verdict.RECORDED
    assert failing.result()
    assert await ledger.read(OTHER) is None


async def expect_ledger_error(ledger: SqlLedger, event: object) -> bool:
    """Record what cannot be recorded; return whether it failed as promised."""
    with pytest.raises(LedgerError):
        await ledger.record([event])  # type: ignore[list-item]  # wrong on purpose
    return True


async def test_a_cancelled_write_does_not_hang_the_others(ledger: SqlLedger) -> None:
    """Whoever gives up waiting harms nobody."""
    impatient = asyncio.create_task(ledger.record([make_event()]))
    patient = asyncio.create_task(ledger.record([make_event(tenant_id=OTHER)]))
    await asyncio.sleep(0)
    impatient.cancel()

    assert (await patient)[0].verdict is Verdict.RECORDED
    with pytest.raises(asyncio.CancelledError):
        await impatient


# --- faults of our own, and a disk that hangs ------------------------------------------------

UNWRITABLE = EventId("half of a pair: \ud800")
"""No ledger can hold it: the database's own library fails over it, with an error of Python's."""


async def test_what_nobody_foresaw_is_an_error_to_whoever_waits(ledger: SqlLedger) -> None:
    """A fault of ours over one write fails that write, and those beside it are committed."""
    async with asyncio.timeout(5):
        async with asyncio.TaskGroup() as group:
            good = group.create_task(ledger.record([make_event(tenant_id=OTHER)]))
            bad = group.create_task(outcome(ledger.record([make_event(event_id=UNWRITABLE)])))
        again = await ledger.record([make_event()])

    assert isinstance(bad.result(), LedgerFault)
    assert [entry.verdict for entry in (*good.result(), *again)] == [Verdict.RECORDED] * 2


async def test_a_fault_of_ours_tells_no_value(ledger: SqlLedger) -> None:
    """Its words are kind and place: what it met may be a tenant's secret."""
    fault = await outcome(ledger.record([make_event(event_id=UNWRITABLE)]))

    assert "UnicodeEncodeError at" in str(fault)
    assert "half of a pair" not in str(fault)


async def outcome(call: Awaitable[object]) -> Exception:
    """Return what the call raises, which has to be something."""
    with pytest.raises(LedgerError) as caught:
        await call
    return caught.value


async def test_when_the_writer_ends_whoever_waits_is_told(ledger: SqlLedger) -> None:
    """What ends the writer is raised to who watches it, and nobody waits for it in vain."""
    watching = asyncio.create_task(ledger.watch_writer())

    def listen(_: object) -> None:
        raise KeyError("listener")

    with ledger.telling(listen):
        async with asyncio.timeout(5), asyncio.TaskGroup() as group:
            first = group.create_task(ledger.record([make_event()]))
            second = group.create_task(
                outcome_or_none(ledger.record([make_event(tenant_id=OTHER)]))
            )
    with pytest.raises(KeyError):
        async with asyncio.timeout(5):
            await watching

    assert [entry.verdict for entry in first.result()] == [Verdict.RECORDED]
    assert isinstance(second.result(), LedgerUnanswered)
    assert (await known(ledger, OTHER)).revision == 1, "unanswered is not undone"


async def outcome_or_none(call: Awaitable[object]) -> Exception | None:
    """Return what the call raises."""
    try:
        await call
    except LedgerError as error:
        return error
    return None


async def test_a_disk_that_hangs_is_an_error_in_time(tmp_path: Path) -> None:
    """Reads and writes have a deadline; what has not begun is dropped, what has may hold yet."""
    url = f"sqlite:///{tmp_path}/ledger.db"
    ledger = await SqlLedger.open(url, clock=HandClock(NOW), call_seconds=0.2)
    released = threading.Event()
    ledger._thread.submit(released.wait, 10)

    async with asyncio.timeout(5):
        begun = asyncio.create_task(outcome(ledger.record([make_event()])))
        await asyncio.sleep(0.05)
        waiting = asyncio.create_task(outcome(ledger.record([make_event(tenant_id=OTHER)])))
        read = asyncio.create_task(outcome(ledger.read(TENANT_ID)))
        told = [await begun, await waiting, await read]
        released.set()
        tenants = [await ledger.read(tenant_id) for tenant_id in (TENANT_ID, OTHER)]
    await ledger.close()

    assert [type(error) for error in told] == [LedgerUnanswered, LedgerError, LedgerUnanswered]
    assert [tenant is not None for tenant in tenants] == [True, False]


@pytest.mark.parametrize("other", [None, b"", "a copy"])
async def test_what_would_be_gone_with_the_process_is_not_committed(
    tmp_path: Path, other: bytes | str | None
) -> None:
    """A file that was removed or replaced under us takes nothing more, until it is back."""
    place, aside = tmp_path / "ledger.db", tmp_path / "aside"
    ledger = await SqlLedger.open(f"sqlite:///{place}", clock=HandClock(NOW))
    await ledger.record([make_event()])
    place.rename(aside)
    if other is not None:
        place.write_bytes(aside.read_bytes() if isinstance(other, str) else other)

    told = [await outcome_or_none(ledger.probe()) for _ in range(2)]
    told.append(await outcome_or_none(ledger.record([make_event(tenant_id=OTHER)])))
    aside.rename(place)
    await ledger.probe()
    tenants = [await ledger.read(tenant_id) for tenant_id in (TENANT_ID, OTHER)]
    await ledger.close()

    assert [type(error) for error in told] == [LedgerError] * 3
    assert str(place) in str(told[0])
    assert [tenant is not None for tenant in tenants] == [True, False]
