"""What a tenant event does to what is wanted: the tables of verdicts and of desired states."""

from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consumer.intention import changes, intend, wanted_after, weigh
from consumer.model import (
    Desired,
    EventId,
    EventKind,
    Reason,
    Setback,
    Tenant,
    TenantEvent,
    Verdict,
)
from tests.builders import MOMENT, TENANT_ID, make_event, make_spec, make_status, make_tenant

CREATED, UPDATED, DELETED, SUSPENDED, RESUMED = EventKind
RUN, STOP, GONE = Desired.RUNNING, Desired.STOPPED, Desired.DELETED
OTHER = make_spec(image="nginx:1.27")
LATER = MOMENT + timedelta(minutes=1)


def tenant(desired: Desired = RUN, **changes: object) -> Tenant:
    """Return a tenant of which this is wanted; without a spec when it is deleted."""
    kept = desired is not GONE
    fields: dict[str, object] = {
        "desired": desired,
        "spec": make_spec() if kept else None,
        "fingerprint": make_spec().fingerprint if kept else None,
    }
    return make_tenant(**(fields | changes))


def event(kind: EventKind = UPDATED, **changes: object) -> TenantEvent:
    """Return a later event without an id; created and updated carry the spec of `tenant`."""
    return make_event(kind, **({"event_id": None, "received_at": LATER} | changes))


# --- what is wanted ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("before", "kind", "after"),
    [
        (None, CREATED, RUN),
        (None, UPDATED, RUN),
        (None, DELETED, GONE),
        (RUN, CREATED, RUN),
        (RUN, UPDATED, RUN),
        (RUN, DELETED, GONE),
        (RUN, SUSPENDED, STOP),
        (RUN, RESUMED, RUN),
        (STOP, CREATED, STOP),
        (STOP, UPDATED, STOP),
        (STOP, DELETED, GONE),
        (STOP, SUSPENDED, STOP),
        (STOP, RESUMED, RUN),
        (GONE, CREATED, RUN),
        (GONE, UPDATED, RUN),
        (GONE, DELETED, GONE),
        (GONE, SUSPENDED, GONE),
        (GONE, RESUMED, GONE),
    ],
)
def test_what_is_wanted_after_an_event(
    before: Desired | None, kind: EventKind, after: Desired
) -> None:
    """Create and update run unless suspended; what is not there can be neither stopped nor run."""
    known = None if before is None else tenant(before)

    assert wanted_after(known, event(kind)) is after
    assert intend(known, event(kind)).desired is after


# --- whether it is news -----------------------------------------------------------------------

NO_ID, SOME_ID = None, EventId("event-2")


@pytest.mark.parametrize(
    ("known", "told", "verdict"),
    [
        pytest.param(None, event(), Verdict.RECORDED, id="unknown tenant"),
        pytest.param(None, event(DELETED), Verdict.RECORDED, id="delete of an unknown tenant"),
        pytest.param(
            tenant(generation=3), event(generation=2), Verdict.STALE, id="lower generation"
        ),
        pytest.param(
            tenant(generation=3), event(generation=3), Verdict.STALE, id="equal generation"
        ),
        pytest.param(
            tenant(generation=3),
            event(generation=3, spec=OTHER, event_id=SOME_ID),
            Verdict.STALE,
            id="equal generation, other document",
        ),
        pytest.param(
            tenant(generation=3), event(generation=4), Verdict.RECORDED, id="higher generation"
        ),
        pytest.param(
            tenant(GONE, generation=3),
            event(CREATED, generation=3),
            Verdict.STALE,
            id="late create after the delete",
        ),
        pytest.param(
            tenant(GONE, generation=3),
            event(CREATED, generation=4),
            Verdict.RECORDED,
            id="created again after the delete",
        ),
        pytest.param(tenant(), event(generation=1), Verdict.RECORDED, id="the first generation"),
        pytest.param(
            tenant(generation=3), event(spec=OTHER), Verdict.RECORDED, id="no generation: as come"
        ),
        pytest.param(
            tenant(generation=3), event(), Verdict.DUPLICATE, id="no generation, equal spec"
        ),
        pytest.param(tenant(), event(), Verdict.DUPLICATE, id="no id, equal spec"),
        pytest.param(tenant(), event(spec=OTHER), Verdict.RECORDED, id="no id, other spec"),
        pytest.param(tenant(), event(event_id=SOME_ID), Verdict.RECORDED, id="id, equal spec"),
        pytest.param(tenant(GONE), event(DELETED), Verdict.DUPLICATE, id="no id, deleted twice"),
        pytest.param(None, event(CREATED), Verdict.RECORDED, id="created, not known"),
        pytest.param(None, event(DELETED), Verdict.RECORDED, id="deleted, not known"),
        pytest.param(None, event(SUSPENDED), Verdict.MISSING, id="suspended, not known"),
        pytest.param(None, event(RESUMED), Verdict.MISSING, id="resumed, not known"),
        pytest.param(tenant(GONE), event(RESUMED, event_id=SOME_ID), Verdict.RECORDED, id="gone"),
        pytest.param(tenant(), event(DELETED), Verdict.RECORDED, id="no id, deleted"),
        pytest.param(tenant(STOP), event(SUSPENDED), Verdict.DUPLICATE, id="no id, suspended"),
        pytest.param(tenant(STOP), event(RESUMED), Verdict.RECORDED, id="no id, resumed"),
    ],
)
def test_whether_an_event_is_news(
    known: Tenant | None, told: TenantEvent, verdict: Verdict
) -> None:
    """A generation decides; without one, and without an id, it has to change something."""
    assert weigh(known, told) is verdict


@pytest.mark.parametrize(
    ("known", "told", "expected"),
    [
        pytest.param(None, event(), True, id="unknown tenant"),
        pytest.param(tenant(), event(), False, id="equal spec"),
        pytest.param(tenant(), event(spec=OTHER), True, id="other spec"),
        pytest.param(tenant(), event(SUSPENDED), True, id="other state"),
        pytest.param(tenant(), event(RESUMED), False, id="same state"),
        pytest.param(tenant(spec=None), event(), True, id="first document of an adopted tenant"),
    ],
)
def test_whether_an_event_changes_something(
    known: Tenant | None, told: TenantEvent, expected: bool
) -> None:
    """An event changes something when state or spec are not as recorded."""
    assert changes(known, told) is expected


# --- what is recorded -------------------------------------------------------------------------


def test_the_first_event_makes_the_tenant() -> None:
    """A tenant that was not known begins at revision 1, with all that its event says."""
    told = event(
        CREATED,
        generation=7,
        event_id=SOME_ID,
        correlation_id="order-1",
        traceparent="00-trace",
    )

    assert intend(None, told) == Tenant(
        tenant_id=TENANT_ID,
        desired=RUN,
        revision=1,
        received_at=LATER,
        kind=CREATED,
        spec=make_spec(),
        fingerprint=make_spec().fingerprint,
        generation=7,
        event_id=SOME_ID,
        correlation_id="order-1",
        traceparent="00-trace",
    )


def test_an_update_takes_the_new_spec_and_clears_the_setback() -> None:
    """The newest document counts, and an earlier failure does not hold it back."""
    setback = Setback(5, Reason.START_FAILED, "words", LATER)

    after = intend(tenant(setback=setback, revision=4), event(spec=OTHER))

    assert (after.spec, after.fingerprint) == (OTHER, OTHER.fingerprint)
    assert (after.revision, after.setback, after.is_answered) == (5, None, False)


def test_what_was_told_and_applied_is_kept() -> None:
    """An event changes what is wanted, not what is known of the past."""
    told = make_status()
    before = tenant(
        applied=make_spec(), status=told, sequence=9, restarts=(MOMENT,), answered_revision=1
    )

    after = intend(before, event(spec=OTHER))

    assert (after.applied, after.status, after.sequence) == (make_spec(), told, 9)
    assert (after.restarts, after.answered_revision) == ((MOMENT,), 1)


@pytest.mark.parametrize(
    ("recorded", "given", "kept"), [(3, None, 3), (3, 4, 4), (None, 1, 1), (None, None, None)]
)
def test_an_event_without_a_generation_leaves_the_number(
    recorded: int | None, given: int | None, kept: int | None
) -> None:
    """The recorded generation changes only by an event that carries one."""
    assert intend(tenant(generation=recorded), event(generation=given)).generation == kept


def test_the_ids_are_those_of_the_last_event() -> None:
    """An event without ids leaves none of an earlier event behind."""
    before = tenant(event_id=SOME_ID, correlation_id="order-1", traceparent="00-trace")

    after = intend(before, event(SUSPENDED))

    assert (after.event_id, after.correlation_id, after.traceparent) == (None, None, None)
    assert (after.kind, after.received_at) == (SUSPENDED, LATER)


def test_a_tombstone_keeps_no_document() -> None:
    """After a delete nothing of the spec is left, but the generation is."""
    after = intend(tenant(generation=3), event(DELETED))

    assert (after.spec, after.fingerprint, after.generation) == (None, None, 3)


def test_a_suspended_tenant_keeps_its_spec() -> None:
    """Suspending and resuming carry no document; the recorded one stays."""
    suspended = intend(tenant(), event(SUSPENDED))
    resumed = intend(suspended, event(RESUMED))

    assert suspended.spec == resumed.spec == make_spec()
    assert (suspended.desired, resumed.desired) == (STOP, RUN)


def test_an_update_while_suspended_waits_for_the_resume() -> None:
    """A suspended tenant takes the new document and stays stopped."""
    updated = intend(tenant(STOP), event(spec=OTHER))

    assert (updated.desired, updated.spec) == (STOP, OTHER)
    assert intend(updated, event(RESUMED)).spec == OTHER


def test_a_tenant_known_by_its_container_keeps_the_fingerprint() -> None:
    """Without a document the container's label is all there is; a delete drops it, too."""
    adopted = tenant(spec=None, fingerprint="label")

    assert intend(adopted, event(SUSPENDED)).fingerprint == "label"
    assert intend(adopted, event(DELETED)).fingerprint is None


@pytest.mark.parametrize("kind", [SUSPENDED, RESUMED])
def test_an_event_for_nobody_leaves_a_tombstone(kind: EventKind) -> None:
    """Suspending or resuming an unknown tenant is recorded, so that it is answered."""
    after = intend(None, event(kind))

    assert (after.desired, after.spec, after.is_answered) == (GONE, None, False)


# --- every sequence ---------------------------------------------------------------------------

EVENTS = st.builds(
    event,
    st.sampled_from(EventKind),
    generation=st.one_of(st.none(), st.integers(1, 5)),
    event_id=st.sampled_from([NO_ID, SOME_ID]),
)


@given(st.lists(EVENTS, max_size=8))
@settings(max_examples=100, deadline=None)
def test_generations_never_fall(events: list[TenantEvent]) -> None:
    """In any order of events revisions count up, generations never fall, tombstones are empty."""
    known: Tenant | None = None
    for told in events:
        before = known
        known = intend(before, told) if weigh(before, told) is Verdict.RECORDED else before
        if known is None:
            assert told.kind in (SUSPENDED, RESUMED)
            continue
        assert known.revision >= (before.revision if before is not None else 1)
        assert (known.generation or 0) >= ((before.generation if before else None) or 0)
        assert (known.spec is None) is (known.desired is GONE)
