"""The promises we need from outside: an engine, a ledger, a publisher.

Each method says what holds after it returns, what it raises, and whether it may be repeated. All
may be cancelled; a cancelled engine call that could change something is first seen through to its
end (it has a deadline), so that no request is still on its way when the caller goes on; `create`
and `stop` say what holds of them instead. Fakes and real adapters are held to the same contract
tests.
"""

from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from consumer.messages import DeadLetter, Delivery
from consumer.model import (
    Container,
    ContainerId,
    EngineEvent,
    EngineFacts,
    OutboxEntry,
    Refusal,
    Role,
    Setback,
    Sighting,
    Standing,
    Status,
    Tenant,
    TenantEvent,
    TenantId,
    TenantLine,
    TenantSpec,
    Verdict,
)


class Engine(Protocol):
    """The container runtime. Sees containers that carry our labels and instance, and no others.

    Labels prove nothing: which of them are a tenant's, `belonging` says, by what the ledger has.

    Every method raises EngineUnavailable when the engine cannot be asked or its answer is lost, and
    EngineError (with a contract reason) when it refuses. "Already so" is success.
    """

    async def observe(
        self, tenant_id: TenantId, *, concerns: Callable[[Sighting], bool] | None = None
    ) -> tuple[Container, ...]:
        """Return every container labelled as the tenant's that concerns it, oldest first.

        Of the others the engine is asked nothing: whatever is the matter with one, it costs the
        tenant nothing.
        """
        ...

    async def survey(self) -> tuple[Sighting, ...]:
        """Return one line for each container with our labels, in one request."""
        ...

    async def prepare(self, tenant_id: TenantId, spec: TenantSpec) -> None:
        """Bring in what a container of this spec needs: its image and its network.

        May take as long as a pull; cancelling it stops waiting at once. Safe to repeat.
        Raises EngineError image_not_found, image_pull_denied, image_pull_failed, network_failed,
        invalid_event when a secret is not there, and port_conflict when a container of another
        tenant of ours holds a wanted host port.
        """
        ...

    async def create(
        self,
        tenant_id: TenantId,
        spec: TenantSpec,
        *,
        generation: int | None,
        role: Role,
        serial: int,
    ) -> Container:
        """Return a new container, created and not started, under the role's name.

        Cancelled, it waits a moment for the engine, no longer: what is made later is told by the
        engine event `create`, and a later call for the same name waits for it.
        It carries its serial and our ledger's id. After an unclear answer it looks by name before
        it gives up or tries again, so repeating it with the same serial never makes a second one of
        the same role. Raises EngineError create_failed, name_conflict,
        image_not_found (the image vanished), insufficient_resources.
        """
        ...

    async def start(self, container: Container) -> Container:
        """Return the container, running (a paused one is unpaused); fresh from inspect.

        It never starts without its secrets. Raises EngineError invalid_event when one of them is
        not there, start_failed, port_conflict, network_failed, insufficient_resources; the
        container then is still there, for the caller to remove. Raises EngineError missing when
        somebody removed it meanwhile.
        """
        ...

    async def stop(self, container: Container, *, is_hurried: bool = False) -> Container:
        """Return the container, stopped; killed when it outlives its own grace period.

        Cancelling it stops waiting at once: the container then is stopping (`is_stopping`), and
        stopping it again goes on with the same grace period, of which 10 s are left when
        `is_hurried`. Raises EngineError stop_failed when it runs even so.
        """
        ...

    async def remove(self, container: Container) -> None:
        """Remove the container with its anonymous volumes, killing it if it runs.

        Raises EngineError stop_failed when it is still there after the deadline.
        """
        ...

    async def tidy(self) -> None:
        """Remove what a container that somebody else removed left behind of its secrets.

        What is found only once is left: it may belong to a container that is being made.
        """
        ...

    async def rename(self, container: Container, role: Role) -> Container:
        """Return the container under the role's name. Raises EngineError name_conflict."""
        ...

    async def adjust(self, container: Container, spec: TenantSpec) -> Container:
        """Return the container with the spec's CPU, memory and restart policy, changed in place."""
        ...

    async def last_words(self, container: Container) -> str:
        """Return the end of what the container wrote (at most 2 KiB), for people to read.

        Of a run that ended, or of the health check of one that is up. Empty where there is nothing
        or it cannot be read. Values of its environment and its secrets are never in it.
        """
        ...

    async def tail(self, tenant: Tenant) -> str | None:
        """Return the last lines that the tenant's container wrote (at most 16 KiB), for people.

        None where there is no container, empty where it wrote nothing or its log cannot be read.
        Values of its environment and its secrets are never in it.
        """
        ...

    async def facts(self) -> EngineFacts:
        """Return what the engine says of itself; the way to ask whether it is there."""
        ...

    def events(self) -> AbstractAsyncContextManager[AsyncIterator[EngineEvent]]:
        """Open the stream of engine events about our containers.

        On entering, the subscription stands: nothing that happens afterwards is missed. The
        iterator ends, or raises EngineUnavailable, when the connection is lost; the caller opens a
        new one and lists everything anew.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class PassResult:
    """What one pass leaves behind, to be committed in one transaction.

    `statuses` are told in this order (their sequence numbers are given by the ledger). `answered`
    says that they answer the tenant's recorded event. `applied` is set when the pass reached what
    was wanted. `containers` and `made` are as in `Tenant`; `gone`
    are the ids of those that the pass removed.
    """

    tenant_id: TenantId
    revision: int
    statuses: tuple[Status, ...] = ()
    answered: bool = False
    setback: Setback | None = None
    applied: TenantSpec | None = None
    restarts: tuple[datetime, ...] = ()
    containers: tuple[ContainerId, ...] = ()
    gone: tuple[ContainerId, ...] = ()
    made: int = 0
    correlation_id: str | None = None
    """Of the event that the pass acted upon, as `traceparent`; it need not be the newest."""
    traceparent: str | None = None


@dataclass(frozen=True, slots=True)
class Recorded:
    """What recording one event came to, and whether it changed what is wanted of the tenant."""

    verdict: Verdict
    tenant_id: TenantId
    changes_intention: bool = False


class Ledger(Protocol):
    """The durable store of desired state, last status and outbox. One transaction for each call.

    Every method raises LedgerError when it could not be done; then nothing of it holds, and it may
    be repeated. LedgerUnanswered, when there was no answer in time: it may be done yet, before
    anything that is asked for later. LedgerFault, when our own code failed over what it was given:
    repeating it alone is of no use.
    """

    async def record(self, batch: Sequence[TenantEvent | Refusal]) -> list[Recorded]:
        """Commit what a batch of events, in this order, means for the desired states.

        Returns one entry for each event. For a Refusal the tenant's `failed` status event is
        committed, followed by its former status told again where it had one, so that the last word
        is the truth. One that is not known is told, and is not known afterwards either.
        """
        ...

    async def adopt(self, sightings: Sequence[Sighting], *, at: datetime) -> list[TenantId]:
        """Record tenants we know only by their containers; those already known are left alone."""
        ...

    async def is_take_over_asked(self) -> bool:
        """Return whether a person asked for a take-over that has not been done yet."""
        ...

    async def take_over(self, sightings: Sequence[Sighting], *, at: datetime) -> list[TenantId]:
        """Record containers of another ledger's consumer as ours, and their tenants where unknown.

        What is wanted of a known tenant stays. Returns whom it is about; the asking is over.
        """
        ...

    async def read(self, tenant_id: TenantId) -> Tenant | None:
        """Return what is known of the tenant."""
        ...

    async def commit(self, result: PassResult) -> tuple[Status, ...]:
        """Commit a pass: number its statuses, put them in the outbox, remember how it went.

        Returns the statuses with their sequence numbers. Where a newer event was recorded
        meanwhile, the statuses are told all the same, but setback and answered revision of the
        newer one stay.
        """
        ...

    async def unsent(self, *, limit: int, without: Collection[TenantId] = ()) -> list[OutboxEntry]:
        """Return the oldest outbox entries not yet confirmed, in order of commit.

        Those of the tenants in `without` are passed over.
        """
        ...

    async def mark_sent(self, entry_ids: Collection[int], *, at: datetime) -> None:
        """Remember that the broker confirmed these entries."""
        ...

    async def outbox_depth(self) -> tuple[int, datetime | None]:
        """Return how many entries are unsent and when the oldest of them was committed."""
        ...

    async def page(self, *, after: str, limit: int, state: str | None) -> list[Tenant]:
        """Return tenants in order of id, after the given one; `state` may also be `pending`."""
        ...

    async def list_for_resync(self) -> list[Standing]:
        """Return how every tenant stands that is wanted, unanswered or held back by a failure."""
        ...

    async def counts(self) -> Mapping[str, int]:
        """Return the number of tenants by state: running, stopped, failed, pending."""
        ...

    async def lines(self, *, after: str, limit: int) -> list[TenantLine]:
        """Return lines of the tenants that `counts` counts, in order of id, after the given one."""
        ...

    async def lines_of(self, tenant_ids: Collection[TenantId]) -> list[TenantLine]:
        """Return the lines of those of these tenants that `counts` counts."""
        ...

    async def history(self, tenant_id: TenantId, *, limit: int) -> list[Status]:
        """Return what was told of the tenant, newest first, as far back as it is kept."""
        ...

    async def startups(self, *, limit: int) -> list[float]:
        """Return how many seconds the last starts took, newest first, of all tenants."""
        ...

    async def sweep(self, *, older_than_seconds: float) -> int:
        """Forget event ids, sent status events and tombstones older than this; count them.

        Older by the wall clock, and by the time that consumers have run on this ledger: a clock
        that was set, in whatever direction and however often, makes nothing older than it is.
        """
        ...

    async def probe(self) -> None:
        """Raise LedgerError unless the ledger can be written."""
        ...


class Board(Protocol):
    """Where the engine keeps the few short records that consumers of one instance share.

    Every method raises EngineUnavailable when the engine cannot be asked or refuses.
    """

    @property
    def place(self) -> str:
        """Where a person finds the records."""
        ...

    async def read(self, name: str) -> str | None:
        """Return the record of this name; None when there is none."""
        ...

    async def put(self, name: str, value: str) -> str:
        """Put the record there unless there is one; return the one that is there afterwards.

        Of several that put at a time, exactly one finds its own.
        """
        ...

    async def remove(self, name: str) -> None:
        """Remove the record; none is no error."""
        ...


class Publisher(Protocol):
    """The way out to the broker. Every method returns only after the broker's confirm.

    Raises MessageRefused when the broker answers that it does not take this message, BrokerError
    when there is no answer; whether the message arrived is then unknown, and it may be repeated.
    """

    async def publish_status(self, entry: OutboxEntry) -> None:
        """Publish a status event."""
        ...

    async def publish_dead_letter(self, letter: DeadLetter) -> None:
        """Publish to the dead-letter exchange; a message that no queue takes is an error."""
        ...

    async def count_dead_letters(self) -> int:
        """Return how many lie in their queue. Raises BrokerError, also where we may not ask."""
        ...


class Deliveries(Protocol):
    """The way in from the broker."""

    async def next_batch(self, *, limit: int) -> list[Delivery]:
        """Wait for at least one delivery and return those that have arrived, oldest first.

        All of one batch belong to one session. Survives reconnects. Returns none once taking has
        stopped.
        """
        ...

    async def ack(self, deliveries: Sequence[Delivery]) -> None:
        """Acknowledge these and no others, in whatever order.

        A lost session is no error: the broker will deliver them again, and these are held no more.
        Nor is a delivery that was acknowledged before.
        """
        ...
