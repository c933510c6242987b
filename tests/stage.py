"""The operator's page on a stage: HTTP, feed and ledger are the real ones, the rest is told.

It runs in a thread of its own, so that a test drives a browser as it stands there. Also what the
pictures of the page are taken of.
"""

import asyncio
import threading
from collections.abc import Coroutine, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final, TypeVar

from consumer.adapters import ledger as ledger_module
from consumer.api import Api
from consumer.clock import Clock
from consumer.feed import Feed
from consumer.metrics import Metrics
from consumer.model import (
    BoundPort,
    ContainerId,
    EventId,
    EventKind,
    Health,
    Reason,
    Setback,
    State,
    Status,
    Tenant,
    TenantId,
    TenantSpec,
    Transport,
)
from consumer.ports import PassResult
from consumer.status import report
from tests.builders import make_container, make_event, make_spec, make_status, make_tenant
from tests.fakes.ledger import InlineLedger

T = TypeVar("T")

_SECONDS: Final = 30.0


def now() -> datetime:
    return datetime.now(UTC)


def status_of(
    tenant_id: str, state: State = State.RUNNING, reason: Reason = Reason.STARTED, **fields: object
) -> Status:
    """Return a status with a container and one port of its own."""
    digest = f"{abs(hash(tenant_id)) % 16**12:012x}"
    image = str(fields.pop("image", "nginx:alpine"))
    restart_count = fields.pop("restart_count", 0)
    container = make_container(
        tenant_id=TenantId(tenant_id),
        name=f"landlord-tenant-{tenant_id}",
        container_id=ContainerId(digest * 5),
        image=image,
        restart_count=restart_count,
        health=fields.get("health", Health.NONE),
    )
    host_port = fields.pop("host_port", 8080)
    port = BoundPort(80, Transport.TCP, "0.0.0.0", int(str(host_port)), "http")
    chosen: dict[str, object] = {
        "tenant_id": TenantId(tenant_id),
        "state": state,
        "reason": reason,
        "occurred_at": now(),
        "container": report(container) if fields.pop("has_container", True) else None,
        "ports": (port,) if state is State.RUNNING else (),
    }
    return make_status(**(chosen | fields))


class Stage:
    """What the page shows, and a hand to change it."""

    def __init__(self, folder: Path, *, token: str | None = None, port: int = 0) -> None:
        self.troubles: dict[str, str | None] = {"broker": None, "engine": None, "ledger": None}
        self.log: str | Exception | None = None
        """What the engine gives as the log of a tenant; None is no container."""
        self.hangs = False
        """Whether the engine gives no answer."""
        self.port = port
        self._folder = folder
        self._token = token
        self._loop = asyncio.new_event_loop()
        self._is_up = threading.Event()
        self._thread = threading.Thread(target=self._loop.run_forever, name="stage")
        self._life: asyncio.Task[None] | None = None
        self._end = asyncio.Event()
        self._ledger: InlineLedger | None = None
        self._feed: Feed | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/"

    @property
    def ledger(self) -> InlineLedger:
        assert self._ledger is not None
        return self._ledger

    # --- its life

    @contextmanager
    def up(self) -> Iterator["Stage"]:
        """Serve for the length of the block."""
        self._thread.start()
        try:
            self.serve()
            yield self
        finally:
            self.end()
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(_SECONDS)
            self._loop.close()

    def serve(self) -> None:
        """Begin to serve, at the port it had if it served before."""
        self._is_up.clear()
        self._do(self._begin())
        assert self._is_up.wait(_SECONDS)

    def end(self) -> None:
        """Serve no more; what the ledger holds stays."""
        self._do(self._finish())

    async def _begin(self) -> None:
        self._end = asyncio.Event()
        self._life = asyncio.create_task(self._live())

    async def _finish(self) -> None:
        self._end.set()
        if self._life is not None:
            await self._life

    async def _live(self) -> None:
        ledger = await InlineLedger.open(
            f"sqlite:///{self._folder / 'landlord.db'}", clock=Clock(wall=now)
        )
        about = {"version": "0.1.0", "instance": "default"}
        feed = Feed(ledger=ledger, readiness=lambda: self.troubles, now=now, about=about)
        api = Api(
            ledger=ledger,
            feed=feed,
            tail=self._tail,
            metrics=Metrics(version="0.1.0"),
            readiness=lambda: self.troubles,
            observed_at=lambda _: now(),
            is_stale=lambda _: self.troubles["engine"] is not None,
            is_live=lambda: True,
            asyncapi="",
            token=self._token,
            request_seconds=1.0,
        )
        self._ledger, self._feed = ledger, feed
        async with asyncio.TaskGroup() as group:
            telling = group.create_task(feed.run())
            with ledger.telling(feed.note):
                async with api.serve("127.0.0.1", self.port):
                    self.port = api.bound_port
                    self._is_up.set()
                    await self._end.wait()
            telling.cancel()
        await ledger.close()

    async def _tail(self, _: Tenant) -> str | None:
        if self.hangs:
            await asyncio.Event().wait()
        if isinstance(self.log, Exception):
            raise self.log
        return self.log

    def _do(self, work: Coroutine[object, object, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(_SECONDS)

    # --- what happens

    def want(self, tenant_id: str, *, spec: TenantSpec | None = None) -> None:
        """Have an event recorded that wants the tenant running."""
        self._do(self._want(tenant_id, spec or make_spec()))

    async def _want(self, tenant_id: str, spec: TenantSpec) -> None:
        event_id = EventId(f"{tenant_id}-{now().timestamp()}")
        name = TenantId(tenant_id)
        await self.ledger.record(
            [make_event(tenant_id=name, event_id=event_id, spec=spec, received_at=now())]
        )

    def tell(self, *statuses: Status, setback: Setback | None = None) -> None:
        """Have these statuses committed, one after another; their tenants are made if need be."""
        self._do(self._tell(statuses, setback))

    async def _tell(self, statuses: Sequence[Status], setback: Setback | None) -> None:
        for status in statuses:
            if await self.ledger.read(status.tenant_id) is None:
                await self._want(status.tenant_id, make_spec())
            tenant = await self.ledger.read(status.tenant_id)
            assert tenant is not None
            result = PassResult(
                tenant_id=status.tenant_id,
                revision=tenant.revision,
                statuses=(status,),
                answered=True,
                setback=setback,
            )
            await self.ledger.commit(result)

    def delete(self, tenant_id: str) -> None:
        """Have the tenant deleted and told gone."""
        self._do(self._delete(tenant_id))

    async def _delete(self, tenant_id: str) -> None:
        name = TenantId(tenant_id)
        event_id = EventId(f"{tenant_id}-deleted")
        await self.ledger.record(
            [make_event(EventKind.DELETED, tenant_id=name, event_id=event_id, received_at=now())]
        )
        gone = status_of(tenant_id, State.STOPPED, Reason.DELETED, has_container=False)
        await self._tell([gone], None)

    def crowd(self, count: int) -> None:
        """Have so many tenants in the ledger at once; one of fifty has failed."""
        kinds = [_kind(number) for number in range(100)]

        async def fill() -> None:
            rows = [_like(kinds[number % 100], number) for number in range(count)]
            with self.ledger._engine.begin() as connection:
                ledger_module._execute_many(connection, ledger_module._PUT_TENANT, rows)

        self._do(fill())


_KIND: Final = "tenant-kind"


def _kind(number: int) -> dict[str, object]:
    """Return the row of one of the kinds of tenants that there are many of."""
    since = now() - timedelta(seconds=number * 3700)
    image = ("nginx:alpine", "registry.example.com/shop/web:2.4.1", "redis:7")[number % 3]
    if number % 50 == 7:
        message = "the container ended with code 1"
        status = status_of(
            _KIND, State.FAILED, Reason.EXITED, image=image, message=message, occurred_at=since
        )
    else:
        status = status_of(_KIND, image=image, occurred_at=since, host_port=10_000 + number)
    tenant = make_tenant(
        tenant_id=TenantId(_KIND), answered_revision=1, status=status, since=since, sequence=1
    )
    return ledger_module._row(tenant, now())


def _like(kind: dict[str, object], number: int) -> dict[str, object]:
    tenant_id = f"tenant-{number:05}"
    return {**kind, "tenant_id": tenant_id, "status": str(kind["status"]).replace(_KIND, tenant_id)}
