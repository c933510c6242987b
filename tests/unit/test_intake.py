"""Intake: every delivery is settled on every path, and only after what it means is durable."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from consumer.dead_letters import DeadLetters
from consumer.decoding import Decoder
from consumer.document import SpecDefaults
from consumer.intake import Intake
from consumer.messages import DeadLetter, Delivery, decode_tenant_event
from consumer.metrics import Metrics
from consumer.model import Desired, EventId, State, TenantEvent, TenantId
from tests.builders import (
    TENANT_ID,
    make_bare_delivery,
    make_delivery,
    make_document,
)
from tests.fakes.broker import FakeBroker, Mode
from tests.fakes.clock import HandClock
from tests.fakes.ledger import InlineLedger

ACME, OTHER = TENANT_ID, TenantId("other")
DECODE = partial(decode_tenant_event, defaults=SpecDefaults())


class Bench:
    """An intake with all that is around it."""

    def __init__(self, ledger: InlineLedger) -> None:
        self.ledger = ledger
        self.broker = FakeBroker()
        self.metrics = Metrics(version="test")
        self.most_bytes = 1_000_000
        self.letters = self.dead_letters(most_bytes=self.most_bytes)
        self.wakes: list[tuple[TenantId, bool]] = []
        self.commits = 0

    def wake(self, tenant_id: TenantId, *, overtake: bool = False) -> None:
        self.wakes.append((tenant_id, overtake))

    def _commit(self) -> None:
        self.commits += 1

    def intake(
        self, decode: Callable[[Delivery], TenantEvent] = DECODE, *, batch_size: int = 200
    ) -> Intake:
        return self.intake_of(Decoder(decode).decode, batch_size=batch_size)

    def intake_of(
        self, decode: Callable[[Delivery], Awaitable[TenantEvent]], *, batch_size: int = 200
    ) -> Intake:
        return Intake(
            deliveries=self.broker,
            dead_letter=self._take_letters,
            ledger=self.ledger,
            decode=decode,
            wake=self.wake,
            on_commit=self._commit,
            metrics=self.metrics,
            batch_size=batch_size,
        )

    async def _take_letters(self, letters: Sequence[DeadLetter]) -> None:
        await self.letters.take(letters)

    def dead_letters(self, *, most_bytes: int) -> DeadLetters:
        return DeadLetters(
            deliveries=self.broker,
            publisher=self.broker,
            metrics=self.metrics,
            most_bytes=most_bytes,
        )

    async def take(
        self, *deliveries: Delivery, decode: Callable[[Delivery], TenantEvent] = DECODE
    ) -> None:
        """Take these in, to the end."""
        self.broker.deliver(*deliveries)
        self.broker.stop_taking()
        async with self.running(decode) as intake:
            await intake
            await self.letters.drain()
            await asyncio.sleep(0)

    @asynccontextmanager
    async def running(
        self, decode: Callable[[Delivery], TenantEvent] = DECODE
    ) -> AsyncIterator[asyncio.Task[None]]:
        """Run intake and dead letters for the length of the block."""
        self.letters = self.dead_letters(most_bytes=self.most_bytes)
        tasks = [
            asyncio.create_task(self.intake(decode).run()),
            asyncio.create_task(self.letters.run()),
        ]
        yield tasks[0]
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        assert [task.exception() for task in tasks if not task.cancelled()] in ([], [None])

    def counted(self, kind: str, outcome: str) -> float | None:
        labels = {"type": kind, "outcome": outcome}
        return self._registry.get_sample_value("landlord_tenant_events_total", labels)

    def failures(self, reason: str) -> float | None:
        labels = {"reason": reason}
        return self._registry.get_sample_value("landlord_tenant_failures_total", labels)

    def faults(self, part: str) -> float | None:
        return self._registry.get_sample_value("landlord_faults_total", {"part": part})

    @property
    def _registry(self) -> CollectorRegistry:
        return self.metrics.registry


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    """Set up an intake on a new ledger."""
    ledger = await InlineLedger.open(f"sqlite:///{tmp_path}/ledger.db", clock=HandClock())
    yield Bench(ledger)
    await ledger.close()


def acks(bench: Bench) -> list[str]:
    """Return the tags that were acknowledged, in order."""
    return [entry.of for entry in bench.broker.journal if entry.what == "ack"]


FIRST = make_delivery(1, message_id=None, body=make_document(generation=5))
UNREADABLE = "no decoder reads this"
UNWRITABLE = "half of a pair: \\ud800"
"""What a document of JSON can hold and no ledger can; read by a decoder that overlooks it."""


def decode_or_fail(delivery: Delivery) -> TenantEvent:
    """Decode, with two faults: an error of Python's over one body, an oversight over another."""
    if UNREADABLE.encode() in delivery.body:
        raise KeyError(UNREADABLE)
    event = DECODE(delivery)
    if UNWRITABLE.encode() in delivery.body:
        return replace(event, event_id=EventId("\ud800"))
    return event


@pytest.mark.parametrize("mode", [Mode.CONFIRM, Mode.LOSE_CONFIRM, Mode.AWAY, Mode.FULL])
@pytest.mark.parametrize(
    ("second", "kind", "outcome"),
    [
        pytest.param(make_delivery(2), "tenant.created", "recorded", id="recorded"),
        pytest.param(
            make_bare_delivery(2, "tenant.deleted"), "tenant.deleted", "recorded", id="deleted"
        ),
        pytest.param(
            make_delivery(2, "tenant.updated", make_document(generation=5)),
            "tenant.updated",
            "stale",
            id="not newer",
        ),
        pytest.param(
            make_delivery(2, message_id=None), "tenant.created", "duplicate", id="wants the same"
        ),
        pytest.param(
            make_delivery(2, body=b"\xff"), "tenant.created", "dead_lettered", id="no text"
        ),
        pytest.param(
            make_delivery(2, body=b"[]"), "tenant.created", "dead_lettered", id="no object"
        ),
        pytest.param(
            make_delivery(2, body=make_document(containers=[])),
            "tenant.created",
            "dead_lettered",
            id="breaks a rule",
        ),
        pytest.param(
            make_delivery(2, body=make_document(provider_type="vmware")),
            "tenant.created",
            "dead_lettered",
            id="no such provider",
        ),
        pytest.param(
            make_delivery(2, "tenant.sold"), "unknown", "dead_lettered", id="no such type"
        ),
        pytest.param(
            make_bare_delivery(2, "tenant.suspended", "unknown"),
            "tenant.suspended",
            "dead_lettered",
            id="nothing to suspend",
        ),
        pytest.param(
            make_bare_delivery(2, "tenant.resumed", "unknown"),
            "tenant.resumed",
            "dead_lettered",
            id="nothing to resume",
        ),
        pytest.param(
            make_delivery(2, body=make_document(labels={"a": UNREADABLE})),
            "tenant.created",
            "dead_lettered",
            id="a fault while reading",
        ),
        pytest.param(
            make_delivery(2, body=make_document(labels={"a": "half of a pair: \ud800"})),
            "tenant.created",
            "dead_lettered",
            id="a fault while recording",
        ),
        pytest.param(
            make_delivery(2, body=make_document(containers=[]), message_id="\ud800"),
            "tenant.created",
            "dead_lettered",
            id="a fault while telling of a refusal",
        ),
    ],
)
@pytest.mark.looptime
async def test_every_delivery_is_settled_and_counted(
    bench: Bench, mode: Mode, second: Delivery, kind: str, outcome: str
) -> None:
    """Whatever a delivery is, and however late the broker takes dead letters, it is settled once.

    It is counted under its type and outcome, and nothing waits for it.
    """
    bench.broker.mode = mode
    bench.broker.deliver(FIRST, second, make_delivery(3, body=make_document("other")))

    async with bench.running(decode_or_fail):
        await asyncio.sleep(60)
        at_first = bench.broker.unsettled
        bench.broker.mode = Mode.CONFIRM
        await asyncio.sleep(11)

    is_refused = outcome == "dead_lettered"
    assert at_first == ([2] if is_refused and mode is not Mode.CONFIRM else [])
    assert sorted(acks(bench)) == ["1", "2", "3"]
    assert bench.counted(kind, outcome) == (3 if (kind, outcome) == COUNTED_BESIDES else 1)
    assert [it.delivery.tag for it in bench.broker.dead_letters] == ([2] if is_refused else [])


COUNTED_BESIDES = ("tenant.created", "recorded")


async def test_a_redelivery_is_a_duplicate(bench: Bench) -> None:
    """What comes a second time under its id is acknowledged, counted, and wakes nobody."""
    await bench.take(make_delivery(1), make_delivery(2, message_id="event-1", redelivered=True))

    assert acks(bench) == ["1", "2"]
    assert bench.wakes == [(ACME, True)]
    assert bench.counted("tenant.created", "duplicate") == 1


async def test_what_is_acknowledged_is_in_the_ledger(bench: Bench) -> None:
    """The intention is committed before the delivery is settled."""
    await bench.take(make_delivery(1))

    tenant = await bench.ledger.read(ACME)
    assert tenant is not None
    assert (tenant.desired, tenant.event_id) == (Desired.RUNNING, "event-1")
    assert bench.commits == 0, "nothing was told"


@pytest.mark.looptime
async def test_without_the_ledger_nothing_is_settled(bench: Bench) -> None:
    """While the ledger is down a batch is kept, neither acknowledged nor dropped, and tried on."""
    bench.ledger.is_down = True
    bench.broker.deliver(
        make_delivery(1),
        make_delivery(2, body=b"bad"),
        make_delivery(3, body=make_document("other")),
    )
    async with bench.running():
        await asyncio.sleep(3600)
        settled_before, unsettled_before = list(bench.broker.journal), bench.broker.unsettled
        woken_before = list(bench.wakes)
        bench.ledger.is_down = False
        await asyncio.sleep(10.1)

    assert (settled_before, unsettled_before, woken_before) == ([], [1, 2, 3], [])
    assert sorted(acks(bench)) == ["1", "2", "3"]
    assert bench.wakes == [(ACME, True), (OTHER, True)]


async def test_a_crash_after_the_commit_is_healed_by_the_redelivery(bench: Bench) -> None:
    """What was committed and not acknowledged comes again and changes nothing."""
    taken = [make_delivery(1), make_delivery(2, body=b"bad")]
    await bench.ledger.record([DECODE(taken[0])])

    await bench.take(*(replace(it, session=2, redelivered=True) for it in taken))

    tenant = await bench.ledger.read(ACME)
    assert tenant is not None
    assert tenant.revision == 1
    assert bench.counted("tenant.created", "duplicate") == 1
    assert sorted(acks(bench)) == ["1", "2"]


@pytest.mark.looptime
async def test_a_try_that_was_not_answered_loses_no_wake(bench: Bench) -> None:
    """Where the first try is committed after all, the second finds a duplicate, and wakes it."""
    bench.broker.deliver(make_delivery(1))
    bench.ledger.released.clear()

    async with bench.running():
        await asyncio.sleep(31)
        bench.ledger.released.set()
        await asyncio.sleep(1)

    assert bench.counted("tenant.created", "duplicate") == 1
    assert bench.wakes == [(ACME, True)]
    assert acks(bench) == ["1"]


async def test_a_dead_letter_keeps_its_delivery_and_says_why(bench: Bench) -> None:
    """Body and properties go on unchanged; headers tell the reason and every fault."""
    bad = make_delivery(
        1, body=make_document(containers=[], colour="red"), properties={"priority": 3}
    )

    await bench.take(bad)

    (letter,) = bench.broker.dead_letters
    assert letter.delivery == bad
    assert letter.headers["landlord-reason"] == "invalid_event"
    assert "requires exactly 1 container, got 0" in letter.headers["landlord-error"]
    assert "colour" in letter.headers["landlord-error"]
    assert letter.headers["landlord-received-at"] == "2026-11-24T10:00:00.000Z"


async def test_a_refused_document_is_told_to_its_tenant(bench: Bench) -> None:
    """The tenant hears `failed` once, with the event's id and tracing, and nobody is woken."""
    bad = make_delivery(
        1,
        body=make_document(containers=[]),
        correlation_id="c",
        headers={"traceparent": "00-t"},
    )

    await bench.take(bad, make_delivery(2, body=bad.body, message_id="event-1"))

    (entry,) = await bench.ledger.unsent(limit=10)
    told = json.loads(entry.body)
    assert (entry.state, told["reason"], told["event_id"]) == (
        State.FAILED,
        "invalid_event",
        "event-1",
    )
    assert (entry.correlation_id, entry.traceparent) == ("c", "00-t")
    assert bench.commits == 1, "who relays is told that there is something"
    assert bench.failures("invalid_event") == 1
    assert bench.wakes == []


async def test_a_refused_document_without_an_id_is_told(bench: Bench) -> None:
    """An event without an id is refused like any other."""
    await bench.take(make_delivery(1, body=make_document(containers=[]), message_id=None))

    (entry,) = await bench.ledger.unsent(limit=10)
    assert json.loads(entry.body)["event_id"] is None


async def test_there_is_nothing_to_suspend_of_an_unknown_tenant(bench: Bench) -> None:
    """It is told, dead-lettered with the same words, and nobody is woken."""
    await bench.take(make_bare_delivery(1, "tenant.suspended"))

    (letter,) = bench.broker.dead_letters
    (entry,) = await bench.ledger.unsent(limit=10)
    assert letter.headers["landlord-reason"] == json.loads(entry.body)["reason"] == "invalid_event"
    assert letter.headers["landlord-error"] == json.loads(entry.body)["message"]
    assert "missing" in letter.headers["landlord-error"]
    assert bench.wakes == []
    assert bench.commits == 1
    assert bench.failures("invalid_event") == 1


async def test_what_names_no_tenant_is_told_to_nobody(bench: Bench) -> None:
    """Without a tenant there is a dead letter and nothing in the ledger."""
    await bench.take(make_delivery(1, body=b"{}"))

    assert len(bench.broker.dead_letters) == 1
    assert await bench.ledger.unsent(limit=10) == []
    assert bench.commits == 0


@pytest.mark.parametrize(
    "error", [RecursionError("deep"), ValueError("secret-value"), KeyError("k")]
)
async def test_a_fault_while_reading_is_told_as_ours(
    bench: Bench, error: Exception, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is logged with its place, counted, and set aside as ours; nobody's value is shown."""
    tries = 0

    def decode(one: Delivery) -> TenantEvent:
        nonlocal tries
        if one.tag == 1:
            tries += 1
            raise error
        return DECODE(one)

    await bench.take(make_delivery(1), make_delivery(2, body=make_document("other")), decode=decode)

    (letter,) = bench.broker.dead_letters
    logged = capsys.readouterr().out
    assert letter.headers["landlord-reason"] == "internal_error"
    assert "a fault of the consumer's own" in letter.headers["landlord-error"]
    assert tries == 3
    assert bench.faults("reading") == 1
    assert "fault of ours" in logged
    assert f"{type(error).__name__} at unit/test_intake.py" in logged
    assert "secret-value" not in f"{letter.headers} {logged}"
    assert bench.wakes == [(OTHER, True)]


async def test_a_fault_that_passes_costs_nothing(bench: Bench) -> None:
    """An event is tried again before it is set aside, and what came after it stays after it."""
    failures = [MemoryError(), MemoryError()]

    def decode(one: Delivery) -> TenantEvent:
        if one.tag == 1 and failures:
            raise failures.pop()
        return DECODE(one)

    await bench.take(make_delivery(1), make_bare_delivery(2, "tenant.deleted"), decode=decode)

    tenant = await bench.ledger.read(ACME)
    assert tenant is not None
    assert tenant.desired is Desired.DELETED
    assert bench.broker.dead_letters == []


async def test_a_fault_while_recording_is_told_to_the_tenant_as_ours(bench: Bench) -> None:
    """The event is set aside with `internal_error`, those beside it are recorded in their order."""
    poisoned = make_delivery(2, "tenant.updated", make_document(image="nginx:2"))

    def decode(one: Delivery) -> TenantEvent:
        event = DECODE(one)
        return replace(event, generation=2**70) if one.tag == 2 else event

    await bench.take(make_delivery(1), poisoned, make_bare_delivery(3, OTHER_KIND), decode=decode)

    (letter,) = bench.broker.dead_letters
    (entry,) = await bench.ledger.unsent(limit=10)
    told = json.loads(entry.body)
    tenant = await bench.ledger.read(ACME)
    assert letter.headers["landlord-reason"] == "internal_error"
    assert (told["state"], told["reason"], told["event_id"]) == (
        "failed",
        "internal_error",
        "event-2",
    )
    assert tenant is not None
    assert (tenant.desired, tenant.spec and tenant.spec.image) == (Desired.STOPPED, "nginx:alpine")
    assert bench.faults("recording") == 1
    assert bench.failures("internal_error") == 1


OTHER_KIND = "tenant.suspended"


@pytest.mark.parametrize(
    ("first", "second", "overtakes"),
    [
        pytest.param(make_delivery(1), make_delivery(2), False, id="created again, the same"),
        pytest.param(
            make_delivery(1),
            make_delivery(2, "tenant.updated", make_document(image="nginx:2")),
            True,
            id="another image",
        ),
        pytest.param(make_delivery(1), make_bare_delivery(2, "tenant.deleted"), True, id="deleted"),
        pytest.param(
            make_delivery(1), make_bare_delivery(2, "tenant.suspended"), True, id="suspended"
        ),
        pytest.param(
            make_delivery(1),
            make_bare_delivery(2, "tenant.resumed"),
            False,
            id="resumed while running",
        ),
        pytest.param(
            make_bare_delivery(1, "tenant.deleted"),
            make_bare_delivery(2, "tenant.deleted"),
            False,
            id="deleted twice",
        ),
    ],
)
async def test_a_wake_overtakes_only_when_the_intention_changes(
    bench: Bench, first: Delivery, second: Delivery, overtakes: bool
) -> None:
    """A running pass is cancelled for something else being wanted, and for nothing less."""
    await bench.take(first, second)

    assert bench.wakes[-1] == (ACME, overtakes)


async def test_batches_are_bounded_and_acknowledged_one_by_one(bench: Bench) -> None:
    """What has arrived is taken in batches no larger than the limit, in order."""
    bench.broker.deliver(
        *(make_delivery(tag, body=make_document(f"t{tag}")) for tag in range(1, 6))
    )
    bench.broker.stop_taking()

    await bench.intake(batch_size=2).run()

    assert bench.ledger.writes == 3
    assert acks(bench) == ["1", "2", "3", "4", "5"]


@pytest.mark.looptime
async def test_who_was_read_waits_for_nothing_that_is_costly_to_read(bench: Bench) -> None:
    """What came with it in one batch is read after it is recorded."""
    bench.broker.deliver(*(make_delivery(tag, message_id=f"e{tag}") for tag in range(1, 41)))

    async def decode(delivery: Delivery) -> TenantEvent:
        await asyncio.sleep(0.09)
        return DECODE(delivery)

    taking = asyncio.create_task(bench.intake_of(decode).run())
    await asyncio.sleep(0.2)
    early = acks(bench)
    await asyncio.sleep(10)
    taking.cancel()

    assert early == ["1", "2"]
    assert acks(bench) == [str(tag) for tag in range(1, 41)]


async def test_in_a_flood_who_is_unchanged_is_answered_after_it(bench: Bench) -> None:
    """Who is to be changed goes at once; with the last of the flood, or in a lull, the others."""
    await bench.take(make_delivery(1))
    bench.wakes.clear()
    bench.broker = FakeBroker()
    running = asyncio.create_task(bench.intake(batch_size=4).run())

    bench.broker.deliver(make_delivery(2), make_delivery(3, body=make_document(OTHER)))
    await asyncio.sleep(0.02)
    in_the_flood = list(bench.wakes)
    await asyncio.sleep(0.5)

    assert in_the_flood == [(OTHER, True)]
    assert bench.wakes == [(OTHER, True), (ACME, False)]
    bench.broker.stop_taking()
    await running


async def test_a_flood_in_small_batches_is_one_too(bench: Bench) -> None:
    """Many who are to be answered wait for a lull, however little comes at a time."""
    tenants = [f"t{number}" for number in range(4)]
    await bench.take(
        *(make_delivery(tag, body=make_document(it)) for tag, it in enumerate(tenants, 1))
    )
    bench.wakes.clear()
    bench.broker = FakeBroker()
    running = asyncio.create_task(bench.intake(batch_size=12).run())

    woken = []
    bench.broker.deliver(
        *(make_delivery(tag, body=make_document(it)) for tag, it in enumerate(tenants, 11))
    )
    for tag in range(21, 26):
        again = make_delivery(tag, message_id="event-1", body=make_document(tenants[0]))
        bench.broker.deliver(again)
        await asyncio.sleep(0.1)
        woken.append(len(bench.wakes))
    await asyncio.sleep(0.5)

    assert woken == [0] * 5
    assert len(bench.wakes) == 4
    bench.broker.stop_taking()
    await running


@pytest.mark.looptime
async def test_who_was_put_off_waits_for_no_batch_that_waits(bench: Bench) -> None:
    """An answer that was put off in a flood goes out though the next batch cannot be settled."""
    await bench.take(make_delivery(1))
    bench.wakes.clear()
    bench.broker = FakeBroker()
    running = asyncio.create_task(bench.intake(batch_size=4).run())

    bench.broker.deliver(make_delivery(2))
    await asyncio.sleep(0.1)
    bench.ledger.is_down = True
    bench.broker.deliver(make_delivery(3))
    await asyncio.sleep(60)

    assert bench.wakes == [(ACME, False)]
    running.cancel()


async def test_a_flood_that_does_not_end_puts_nobody_off_for_long(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("consumer.intake._MOST_PUT_OFF_SECONDS", 0.3)
    await bench.take(make_delivery(1))
    bench.wakes.clear()
    bench.broker = FakeBroker()
    running = asyncio.create_task(bench.intake(batch_size=4).run())

    for tag in range(2, 22):
        bench.broker.deliver(make_delivery(tag))
        await asyncio.sleep(0.03)

    assert 1 <= len(bench.wakes) <= 5
    bench.broker.stop_taking()
    await running


async def test_who_is_unchanged_is_answered_at_once_when_no_more_is_waiting(bench: Bench) -> None:
    await bench.take(make_delivery(1))
    bench.wakes.clear()
    bench.broker = FakeBroker()
    running = asyncio.create_task(bench.intake().run())

    bench.broker.deliver(make_delivery(2))
    await asyncio.sleep(0.02)

    assert bench.wakes == [(ACME, False)]
    bench.broker.stop_taking()
    await running
