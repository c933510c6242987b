"""HTTP: what is answered, to whom, and that trouble stays in its request."""

import asyncio
import base64
import hashlib
import json
import logging
import re
import socket
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta, timezone

import aiohttp
import pytest
from typing_extensions import override

from consumer.api import Api
from consumer.connections import HttpLimits
from consumer.errors import ConsumerError, EngineUnavailable, LedgerError
from consumer.feed import Feed, FeedLimits
from consumer.messages import encode_status
from consumer.metrics import Metrics
from consumer.model import (
    BoundPort,
    Desired,
    EventId,
    Reason,
    State,
    Status,
    Tenant,
    TenantId,
    TenantLine,
    Transport,
)
from tests.builders import make_line, make_status, make_tenant

STATUS_PATH = "/tenants/acme-corp/compute/status"
OBSERVED_AT = datetime(2026, 11, 24, 10, 0, 7, 5000, tzinfo=UTC)


class Shelf:
    """Tenants to read, with a way to fail and a way to hang."""

    def __init__(self, *tenants: Tenant) -> None:
        self.tenants = {tenant.tenant_id: tenant for tenant in tenants}
        self.failure: Exception | None = None
        self.hangs = False
        self.asked_for: list[tuple[str, int, str | None]] = []
        self.told: list[Status] = []
        self.words = ""
        """The message in every line."""

    async def read(self, tenant_id: TenantId) -> Tenant | None:
        await self._suffer()
        return self.tenants.get(tenant_id)

    async def page(self, *, after: str, limit: int, state: str | None) -> list[Tenant]:
        await self._suffer()
        self.asked_for.append((after, limit, state))
        return [self.tenants[key] for key in sorted(self.tenants) if key > after][:limit]

    async def history(self, tenant_id: TenantId, *, limit: int) -> list[Status]:
        await self._suffer()
        assert tenant_id in self.tenants
        return self.told[:limit]

    async def lines(self, *, after: str, limit: int) -> list[TenantLine]:
        await self._suffer()
        names = [name for name in sorted(self.tenants) if name > after][:limit]
        return [make_line(name, message=self.words) for name in names]

    async def lines_of(self, tenant_ids: Collection[TenantId]) -> list[TenantLine]:
        return [make_line(tenant_id) for tenant_id in tenant_ids if tenant_id in self.tenants]

    async def startups(self, *, limit: int) -> list[float]:
        return [][:limit]

    async def _suffer(self) -> None:
        if self.failure is not None:
            raise self.failure
        if self.hangs:
            await asyncio.Event().wait()


@dataclass
class World:
    """What the API is told by those around it; every test changes what it needs."""

    shelf: Shelf = field(default_factory=Shelf)
    metrics: Metrics = field(default_factory=lambda: Metrics(version="1.2.3"))
    troubles: dict[str, str | None] = field(
        default_factory=lambda: {"broker": None, "engine": None, "ledger": None}
    )
    observed_at: datetime | None = OBSERVED_AT
    stale: bool = False
    live: bool = True
    token: str | None = None
    request_seconds: float = 5.0
    log: str | Exception | None = None
    engine_hangs: bool = False
    hosts: tuple[str, ...] = ()
    limits: HttpLimits = field(default_factory=HttpLimits)
    feed_limits: FeedLimits = field(default_factory=lambda: FeedLimits(viewers=1))

    async def tail(self, _: Tenant) -> str | None:
        if self.engine_hangs:
            await asyncio.Event().wait()
        if isinstance(self.log, Exception):
            raise self.log
        return self.log

    def api(self) -> Api:
        feed = Feed(
            ledger=self.shelf,
            readiness=lambda: self.troubles,
            now=lambda: OBSERVED_AT,
            about={"version": "1.2.3"},
            limits=self.feed_limits,
        )
        return Api(
            ledger=self.shelf,
            feed=feed,
            tail=self.tail,
            metrics=self.metrics,
            readiness=lambda: self.troubles,
            observed_at=lambda _: self.observed_at,
            is_stale=lambda _: self.stale,
            is_live=lambda: self.live,
            asyncapi="asyncapi: 3.0.0\n",
            token=self.token,
            request_seconds=self.request_seconds,
            hosts=self.hosts,
            limits=self.limits,
        )


@dataclass(frozen=True)
class Reply:
    """What came back."""

    status: int
    headers: Mapping[str, str]
    text: str

    @property
    def document(self) -> dict[str, object]:
        document: dict[str, object] = json.loads(self.text)
        return document

    @property
    def error(self) -> object:
        assert self.document["message"]
        return self.document["error"]


class Client:
    """Asks one running API."""

    def __init__(self, session: aiohttp.ClientSession, port: int) -> None:
        self._session = session
        self._base = f"http://127.0.0.1:{port}"

    async def get(self, path: str, *, method: str = "GET", **headers: str) -> Reply:
        async with self._session.request(method, self._base + path, headers=headers) as response:
            return Reply(response.status, dict(response.headers), await response.text())

    def reading(self, path: str) -> AbstractAsyncContextManager[aiohttp.ClientResponse]:
        """Give the answer while it comes."""
        return self._session.get(self._base + path)


@asynccontextmanager
async def asking(world: World) -> AsyncIterator[Client]:
    """Serve the world's API on a free loopback port for the length of the block."""
    api = world.api()
    timeout = aiohttp.ClientTimeout(total=2)
    async with api.serve("127.0.0.1", 0), aiohttp.ClientSession(timeout=timeout) as session:
        yield Client(session, api.bound_port)


async def ask(world: World, path: str, *, method: str = "GET", **headers: str) -> Reply:
    """Return the answer to one request."""
    async with asking(world) as client:
        return await client.get(path, method=method, **headers)


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def shelf_of(count: int) -> Shelf:
    tenant = make_tenant(status=make_status())
    return Shelf(
        *(replace(tenant, tenant_id=TenantId(f"tenant-{number}")) for number in range(count))
    )


# --- one tenant -------------------------------------------------------------------------------


async def test_status_is_the_last_status_event_with_what_only_we_know() -> None:
    """A tenant's status has every field of its last status event, and four more."""
    port = BoundPort(80, Transport.TCP, "0.0.0.0", 8080, "http")
    status = make_status(sequence=1795514400123, ports=(port,), event_id=EventId("event-1"))
    world = World(Shelf(make_tenant(status=status)))

    reply = await ask(world, STATUS_PATH)

    told = json.loads(encode_status(status))
    assert reply.status == 200
    assert reply.headers["Content-Type"] == "application/json; charset=utf-8"
    assert reply.document == told | {
        "desired": "running",
        "observed_at": "2026-11-24T10:00:07.005Z",
        "stale": False,
    }
    assert reply.document["health"] == "none"


async def test_before_the_first_status_the_state_is_pending() -> None:
    """A tenant of which nothing was told yet has the same fields, and state pending."""
    world = World(Shelf(make_tenant(generation=3)), observed_at=None)
    told = await ask(World(Shelf(make_tenant(status=make_status()))), STATUS_PATH)

    reply = await ask(world, STATUS_PATH)

    assert reply.status == 200
    assert set(reply.document) == set(told.document)
    assert reply.document["state"] == "pending"
    assert (reply.document["generation"], reply.document["event_id"]) == (3, "event-1")
    assert (reply.document["provider_type"], reply.document["desired"]) == ("docker", "running")
    for name in ("reason", "container", "occurred_at", "observed_at", "startup_seconds"):
        assert reply.document[name] is None


async def test_pending_without_a_spec_names_no_provider() -> None:
    """A pending tenant whose spec is not known has provider_type null."""
    reply = await ask(World(Shelf(make_tenant(spec=None))), STATUS_PATH)

    assert reply.document["provider_type"] is None


async def test_a_deleted_tenant_keeps_its_last_status() -> None:
    """A tombstone shows stopped/deleted, and that deleted is what is wanted."""
    status = make_status(state=State.STOPPED, reason=Reason.DELETED)
    world = World(Shelf(make_tenant(desired=Desired.DELETED, spec=None, status=status)))

    reply = await ask(world, STATUS_PATH)

    assert reply.status == 200
    assert reply.document["state"] == "stopped"
    assert reply.document["reason"] == "deleted"
    assert reply.document["desired"] == "deleted"


async def test_what_was_not_seen_lately_is_called_stale() -> None:
    """While the engine cannot be asked, the last status is given and marked stale."""
    world = World(Shelf(make_tenant(status=make_status())), stale=True)

    reply = await ask(world, STATUS_PATH)

    assert reply.document["state"] == "running"
    assert reply.document["stale"] is True


async def test_observed_at_is_told_in_utc() -> None:
    """A point in time given in another zone is told in UTC, to the millisecond."""
    elsewhere = OBSERVED_AT.astimezone(timezone(timedelta(hours=2)))
    world = World(Shelf(make_tenant(status=make_status())), observed_at=elsewhere)

    reply = await ask(world, STATUS_PATH)

    assert reply.document["observed_at"] == "2026-11-24T10:00:07.005Z"


@pytest.mark.parametrize("tenant_id", ["nobody", "-bad-", "a%20b", "x" * 129, "%F0%9F", "a%2Fb"])
async def test_an_unknown_tenant_is_not_found(tenant_id: str) -> None:
    """A tenant id nobody has, or nobody can have, is 404 tenant_not_found."""
    reply = await ask(World(Shelf(make_tenant())), f"/tenants/{tenant_id}/compute/status")

    assert reply.status == 404
    assert reply.error == "tenant_not_found"


# --- all tenants ------------------------------------------------------------------------------


async def test_tenants_come_page_by_page() -> None:
    """Following `next` until it is null gives every tenant once, in order of id."""
    seen: list[object] = []
    sizes: list[int] = []
    async with asking(World(shelf_of(5))) as client:
        after: object = ""
        while after is not None:
            page = (await client.get(f"/tenants?limit=2&after={after}")).document
            rows = page["tenants"]
            assert isinstance(rows, list)
            sizes.append(len(rows))
            after = page["next"]
            seen += [row["desired"] for row in rows]

    assert sizes == [2, 2, 1]
    assert len(seen) == 5


async def test_a_full_last_page_has_no_next() -> None:
    """When exactly the asked number is left, `next` is null."""
    reply = await ask(World(shelf_of(2)), "/tenants?limit=2")

    assert reply.document["next"] is None


async def test_rows_are_like_the_status_of_one() -> None:
    """A row of the list is what the tenant's own status answers."""
    async with asking(World(Shelf(make_tenant(status=make_status())))) as client:
        page = await client.get("/tenants")
        alone = await client.get(STATUS_PATH)

    assert page.document == {"tenants": [alone.document], "next": None}


@pytest.mark.parametrize(
    ("query", "asked_for"),
    [
        ("", ("", 101, None)),
        ("?state=&limit=&after=", ("", 101, None)),
        ("?state=pending&limit=1000&after=acme", ("acme", 1001, "pending")),
        ("?state=failed&limit=1", ("", 2, "failed")),
    ],
)
async def test_the_query_says_which_tenants(
    query: str, asked_for: tuple[str, int, str | None]
) -> None:
    """State, limit (100 when left out) and after choose the page; empty ones count as left out."""
    world = World()

    reply = await ask(world, f"/tenants{query}")

    assert reply.status == 200
    assert world.shelf.asked_for == [asked_for]


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("limit=0", ("limit", '"0"', "1 to 1000")),
        ("limit=1001", ("limit", '"1001"', "1 to 1000")),
        ("limit=-1", ("limit", '"-1"', "integer")),
        ("limit=%D9%A3", ("limit", "integer")),
        ("limit=99999999999999999999", ("limit", "integer")),
        ("state=dead", ("state", '"dead"', "running, stopped, failed, pending")),
        ("after=%20x", ("after", '" x"', "tenant id")),
        ("limt=3", ("limt", "unknown")),
        ("limit=3&limit=4", ("limit", "twice")),
    ],
)
async def test_a_bad_query_is_told_with_field_value_and_rule(
    query: str, words: tuple[str, ...]
) -> None:
    """A query that does not fit is 400 and says which field, what was given, what would fit."""
    reply = await ask(World(), f"/tenants?{query}")

    assert (reply.status, reply.error) == (400, "invalid_query")
    for word in words:
        assert word in str(reply.document["message"])


# --- live, ready, metrics ---------------------------------------------------------------------


@pytest.mark.parametrize(("live", "status"), [(True, 200), (False, 503)])
async def test_healthz_says_whether_the_loops_turn(live: bool, status: int) -> None:
    """Live is 200, not live is 503."""
    reply = await ask(World(live=live), "/healthz")

    assert reply.status == status


async def test_healthz_does_not_ask_the_outside() -> None:
    """Broker, engine and ledger being away does not make the consumer dead."""
    world = World(troubles={"broker": "away", "engine": "away", "ledger": "away"})
    world.shelf.failure = LedgerError("away")

    assert (await ask(world, "/healthz")).status == 200


async def test_readyz_is_200_when_all_can_be_reached() -> None:
    """With broker, engine and ledger reachable the consumer is ready."""
    reply = await ask(World(), "/readyz")

    assert reply.status == 200
    assert reply.document["components"] == {"broker": "ok", "engine": "ok", "ledger": "ok"}


async def test_readyz_names_what_is_not() -> None:
    """Whatever cannot be reached is named, with its reason, and only that."""
    world = World(troubles={"broker": None, "engine": "no such socket", "ledger": "disk full"})

    reply = await ask(world, "/readyz")

    assert (reply.status, reply.error) == (503, "not_ready")
    assert reply.document["message"] == "engine: no such socket; ledger: disk full"
    assert reply.document["components"] == {
        "broker": "ok",
        "engine": "no such socket",
        "ledger": "disk full",
    }


class CountedMetrics(Metrics):
    """Counts how often they are made."""

    made = 0

    @override
    def render(self, accept: str) -> tuple[bytes, str]:
        self.made += 1
        return super().render(accept)


async def test_who_asks_for_metrics_without_an_end_costs_little() -> None:
    """Anybody may: they are made for the first, and then for all the others together."""
    metrics = CountedMetrics(version="1.2.3")
    async with asking(World(metrics=metrics)) as client:
        replies = await asyncio.gather(*(client.get("/metrics") for _ in range(40)))

    assert {reply.status for reply in replies} == {200}
    assert metrics.made < 10


async def test_metrics_are_text_by_default_and_openmetrics_when_asked_for() -> None:
    """The Accept header chooses between Prometheus text and OpenMetrics."""
    world = World()
    world.metrics.passes.labels(action="create").inc()
    async with asking(world) as client:
        text = await client.get("/metrics")
        openmetrics = await client.get("/metrics", Accept="application/openmetrics-text")

    assert text.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert 'landlord_passes_total{action="create"} 1.0' in text.text
    assert openmetrics.headers["Content-Type"].startswith("application/openmetrics-text")
    assert openmetrics.text.endswith("# EOF\n")


@pytest.mark.parametrize("name", ["tenant-event", "status-event"])
async def test_schemas_are_served(name: str) -> None:
    """The schemas of both kinds of events are JSON schemas."""
    reply = await ask(World(), f"/schema/{name}.json")

    assert reply.status == 200
    assert reply.headers["Content-Type"] == "application/schema+json; charset=utf-8"
    assert "tenant_id" in reply.text


async def test_the_asyncapi_document_is_served() -> None:
    """`GET /asyncapi.yaml` is the document that the API was given, as YAML."""
    reply = await ask(World(), "/asyncapi.yaml")

    assert reply.status == 200
    assert reply.headers["Content-Type"] == "application/yaml; charset=utf-8"
    assert reply.text == "asyncapi: 3.0.0\n"


# --- the page ---------------------------------------------------------------------------------


async def test_the_root_is_the_page() -> None:
    """One document with all that it needs, and a policy that lets nothing else in."""
    reply = await ask(World(), "/")

    policy = reply.headers["Content-Security-Policy"]
    assert reply.status == 200
    assert reply.headers["Content-Type"] == "text/html; charset=utf-8"
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert not re.search(r"(src|href)=\"(?!#|data:)", reply.text)
    for content in re.findall(r"<(?:script|style)>(.*?)</(?:script|style)>", reply.text, re.DOTALL):
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert f"'sha256-{digest}'" in policy


async def test_a_page_that_is_kept_is_not_sent_again() -> None:
    """Asked with its tag, it is 304 under the same policy; with another one it is sent."""
    async with asking(World()) as client:
        first = await client.get("/")
        kept = await client.get("/", **{"If-None-Match": first.headers["Etag"]})
        other = await client.get("/", **{"If-None-Match": '"other"'})

    assert first.headers["Cache-Control"] == "no-cache"
    assert (kept.status, kept.text) == (304, "")
    policy = "Content-Security-Policy"
    assert kept.headers[policy] == first.headers[policy]
    assert (other.status, other.text) == (200, first.text)


async def test_without_the_token_a_browser_gets_the_page_as_a_refusal() -> None:
    """It is 401, asks for the token, is not kept, and holds nothing of any tenant."""
    async with asking(World(Shelf(make_tenant()), token="secret")) as client:
        browser = await client.get("/", Accept="text/html,application/xhtml+xml")
        program = await client.get("/", Accept="application/json")
        elsewhere = await client.get("/tenants", Accept="text/html")
        allowed = await client.get("/", **bearer("secret"))

    assert browser.status == 401
    assert browser.headers["WWW-Authenticate"].startswith("Bearer")
    assert browser.headers["Cache-Control"] == "no-store"
    assert browser.text == allowed.text
    assert allowed.status == 200
    assert "acme" not in browser.text
    assert (program.status, program.error) == (401, "unauthorized")
    assert (elsewhere.status, elsewhere.error) == (401, "unauthorized")


async def test_events_begin_with_every_tenant() -> None:
    """The stream tells of all together, then of each; who comes when it is full is refused."""
    world = World(shelf_of(2))
    async with asking(world) as client:
        async with client.reading("/events") as response:
            kind = response.headers["Content-Type"]
            text = ""
            while "event: complete" not in text:
                text += (await response.content.readany()).decode()
            full = await client.get("/events")
        head = await client.get("/events", method="HEAD")

    assert kind == "text/event-stream; charset=utf-8"
    assert re.findall(r"event: (\w+)", text) == ["head", "begin", "lines", "complete"]
    assert '"tenant_id":"tenant-1"' in text
    assert (full.status, full.error) == (503, "too_many_viewers")
    assert head.status == 405


async def test_an_open_stream_does_not_hold_up_the_stop() -> None:
    """It is ended with the server, and outlives the deadline of other requests."""
    world = World(request_seconds=0.05)
    api = world.api()
    loop = asyncio.get_running_loop()
    async with aiohttp.ClientSession() as session:
        async with (
            api.serve("127.0.0.1", 0),
            session.get(f"http://127.0.0.1:{api.bound_port}/events") as response,
        ):
            await asyncio.sleep(0.1)
            assert b"event: head" in await response.content.readany()
            began = loop.time()
        took = loop.time() - began

    assert took < 1


async def test_who_takes_nothing_any_more_is_let_go() -> None:
    """His place is free for another one, and the server's stop does not wait for him."""
    world = World(shelf_of(2_000), limits=HttpLimits(stall_seconds=0.2))
    world.shelf.words = "x" * 10_000  # more than the system keeps on the way
    api = world.api()
    loop = asyncio.get_running_loop()
    with socket.socket() as sleeper:
        sleeper.setblocking(False)
        sleeper.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        async with api.serve("127.0.0.1", 0), aiohttp.ClientSession() as session:
            await loop.sock_connect(sleeper, ("127.0.0.1", api.bound_port))
            await loop.sock_sendall(sleeper, b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert await loop.sock_recv(sleeper, 12) == b"HTTP/1.1 200"
            url = f"http://127.0.0.1:{api.bound_port}/events"
            codes: list[int] = []
            async with asyncio.timeout(10):
                while 200 not in codes:
                    async with session.get(url) as response:
                        codes.append(response.status)
                    await asyncio.sleep(0.02)
    assert codes[0] == 503


# --- history and log --------------------------------------------------------------------------

HISTORY_PATH = "/tenants/acme-corp/history"
LOG_PATH = "/tenants/acme-corp/log"


async def test_the_history_is_what_was_told() -> None:
    """At most fifty status events, as they were published."""
    world = World(Shelf(make_tenant(status=make_status())))
    world.shelf.told = [make_status(sequence=sequence) for sequence in range(60, 0, -1)]

    history = (await ask(world, HISTORY_PATH)).document["history"]

    assert isinstance(history, list)
    assert len(history) == 50
    assert history[0] == json.loads(encode_status(world.shelf.told[0]))


async def test_a_history_that_was_swept_still_has_the_last_status() -> None:
    """However long ago that was; before the first status there is none."""
    status = make_status()
    swept = await ask(World(Shelf(make_tenant(status=status))), HISTORY_PATH)
    pending = await ask(World(Shelf(make_tenant())), HISTORY_PATH)

    assert swept.document == {"history": [json.loads(encode_status(status))]}
    assert pending.document == {"history": []}


@pytest.mark.parametrize("log", ["a line\n<b>another</b>", "", None])
async def test_the_log_is_what_the_engine_gives(log: str | None) -> None:
    """Its last lines, nothing, or that there is no container."""
    reply = await ask(World(Shelf(make_tenant()), log=log), LOG_PATH)

    assert (reply.status, reply.document) == (200, {"log": log})


async def test_without_the_engine_there_is_no_log() -> None:
    """It is said at once, or at the deadline, that it is the engine."""
    away = World(Shelf(make_tenant()), log=EngineUnavailable("nothing listens"))
    hanging = World(Shelf(make_tenant()), engine_hangs=True, request_seconds=0.1)

    for world, words in ((away, "nothing listens"), (hanging, "no answer")):
        reply = await ask(world, LOG_PATH)
        assert (reply.status, reply.error) == (503, "engine_unavailable")
        assert words in str(reply.document["message"])


@pytest.mark.parametrize("path", ["history", "log"])
async def test_who_is_not_known_has_neither(path: str) -> None:
    """404, as for the status."""
    reply = await ask(World(), f"/tenants/nobody/{path}")

    assert (reply.status, reply.error) == (404, "tenant_not_found")


# --- the token --------------------------------------------------------------------------------


GUARDED = [
    "/",
    "/tenants",
    "/events",
    STATUS_PATH,
    HISTORY_PATH,
    LOG_PATH,
    "/asyncapi.yaml",
    "/schema/tenant-event.json",
    "/no/such/path",
]


@pytest.mark.parametrize("path", GUARDED)
@pytest.mark.parametrize(
    "headers",
    [
        {},
        bearer("wrong"),
        bearer("secret-"),
        bearer(""),
        bearer("s\u00e9cret"),
        {"Authorization": "Basic secret"},
        {"Authorization": "secret"},
    ],
)
async def test_without_the_token_nobody_gets_in(path: str, headers: dict[str, str]) -> None:
    """With a token set, a request without exactly this token is 401 and says what is needed."""
    reply = await ask(World(token="secret"), path, **headers)

    assert (reply.status, reply.error) == (401, "unauthorized")
    assert reply.headers["WWW-Authenticate"].startswith("Bearer")
    assert "secret" not in reply.text


@pytest.mark.parametrize("scheme", ["Bearer", "bearer"])
async def test_the_token_opens(scheme: str) -> None:
    """The right token gets its answer, however the scheme is written."""
    reply = await ask(World(token="secret"), "/tenants", Authorization=f"{scheme} secret")

    assert reply.status == 200


@pytest.mark.parametrize("token", [None, "secret"])
@pytest.mark.parametrize("path", [*GUARDED, "/healthz", "/readyz", "/metrics"])
@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:9580", "localhost.evil.example", ""]
)
async def test_a_name_that_was_pointed_here_is_not_answered(
    path: str, token: str | None, host: str
) -> None:
    """A browser asks by the name it was given: with that of another place, it is told nothing."""
    headers = {"Host": host, **bearer("secret")}

    reply = await ask(World(Shelf(make_tenant()), token=token), path, **headers)

    assert (reply.status, reply.error) == (421, "unknown_host")
    assert "http.hosts" in str(reply.document["message"])
    assert "acme" not in reply.text


@pytest.mark.parametrize(
    "host", ["localhost", "127.0.0.1:80", "[::1]", "consumer.lan", "CONSUMER.lan:443", "127.0.0.1"]
)
async def test_loopbacks_names_and_those_of_the_settings_are_answered(host: str) -> None:
    """However they are written, with any port: a forwarded one is another."""
    reply = await ask(World(hosts=("Consumer.lan",)), "/tenants", Host=host)

    assert reply.status == 200


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/metrics"])
async def test_probes_and_scrapers_need_no_token(path: str) -> None:
    """Health, readiness and metrics are open even with a token set."""
    assert (await ask(World(token="secret"), path)).status == 200


# --- trouble ----------------------------------------------------------------------------------


async def test_an_unknown_path_is_404_in_the_one_shape() -> None:
    """A path that is not there is a JSON error like every other."""
    reply = await ask(World(), "/nowhere")

    assert (reply.status, reply.error) == (404, "not_found")


async def test_another_method_is_405_in_the_one_shape() -> None:
    """Nothing can be changed by HTTP; the answer says what is allowed."""
    reply = await ask(World(), "/tenants", method="POST")

    assert (reply.status, reply.error) == (405, "method_not_allowed")
    assert reply.headers["Allow"] == "GET, HEAD"


async def test_head_is_answered_without_a_body() -> None:
    """HEAD gets the status of GET."""
    reply = await ask(World(), "/healthz", method="HEAD")

    assert (reply.status, reply.text) == (200, "")


@pytest.mark.parametrize("path", [STATUS_PATH, "/tenants"])
async def test_a_ledger_that_cannot_be_read_is_503(path: str) -> None:
    """Without the ledger the answer is 503, never 404 and never an empty list."""
    world = World()
    world.shelf.failure = LedgerError("disk full at /var/lib/x")

    reply = await ask(world, path)

    assert (reply.status, reply.error) == (503, "ledger_unavailable")
    assert "/var/lib" not in reply.text


async def test_a_ledger_that_hangs_ends_at_the_deadline() -> None:
    """No request waits longer than its deadline."""
    world = World(request_seconds=0.05)
    world.shelf.hangs = True
    began = asyncio.get_running_loop().time()

    reply = await ask(world, STATUS_PATH)

    assert (reply.status, reply.error) == (503, "deadline_exceeded")
    assert asyncio.get_running_loop().time() - began < 0.5


async def test_a_fault_of_ours_is_500_and_stays_in_its_request(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """An unforeseen error is a 500 that gives nothing away; the next request is answered."""
    caplog.set_level(logging.CRITICAL)
    world = World()
    world.shelf.failure = ZeroDivisionError("inner words")
    async with asking(world) as client:
        broken = await client.get(STATUS_PATH)
        world.shelf.failure = None
        following = await client.get("/tenants")

    assert (broken.status, broken.error) == (500, "internal_error")
    assert "inner words" not in broken.text
    assert following.status == 200


def assert_is_guarded(headers: Mapping[str, str]) -> None:
    assert headers["Cache-Control"] == "no-store"
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert "default-src 'none'" in headers["Content-Security-Policy"]
    assert "aiohttp" not in headers["Server"]


@pytest.mark.parametrize("path", ["/tenants", "/healthz", "/metrics", "/nowhere"])
async def test_every_answer_has_the_security_headers(path: str) -> None:
    """No answer is cached, sniffed, framed, or tells which library serves it."""
    assert_is_guarded((await ask(World(), path)).headers)


async def raw(world: World, sent: bytes) -> Reply:
    """Return what is answered to these bytes."""
    api = world.api()
    async with api.serve("127.0.0.1", 0), asyncio.timeout(5):
        reader, writer = await asyncio.open_connection("127.0.0.1", api.bound_port)
        writer.write(sent)
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        lines = [line.partition(": ") for line in head.splitlines()[1:] if line]
        headers = {name: value for name, _, value in lines}
        body = await reader.readexactly(int(headers["Content-Length"]))
        writer.close()
    return Reply(int(head.split()[1]), headers, body.decode())


@pytest.mark.parametrize(
    ("sent", "status", "code"),
    [
        pytest.param(b"nonsense\r\n\r\n", 400, "bad_request", id="no HTTP"),
        pytest.param(
            b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400, "bad_request", id="hosts"
        ),
        pytest.param(b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\n\r\n", 400, "bad_request", id="long"),
        pytest.param(
            b"PUT / HTTP/1.1\r\nHost: localhost\r\n\r\n", 405, "method_not_allowed", id="PUT"
        ),
        pytest.param(
            b"GET / HTTP/1.1\r\nHost: localhost\r\nExpect: wonders\r\n\r\n",
            417,
            "expectation_failed",
            id="expectation",
        ),
    ],
)
async def test_the_servers_own_errors_are_like_ours(
    sent: bytes, status: int, code: str, caplog: pytest.LogCaptureFixture
) -> None:
    """In their shape and their headers; none of them is a traceback in the log."""
    reply = await raw(World(), sent)

    assert (reply.status, reply.error) == (status, code)
    assert_is_guarded(reply.headers)
    assert "Traceback" not in caplog.text


async def test_a_fault_outside_of_a_request_is_a_500_like_others(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Also where the server itself fails, it gives nothing away."""
    caplog.set_level(logging.CRITICAL)
    world = World(hosts=("a",))
    api = world.api()
    async with api.serve("127.0.0.1", 0), aiohttp.ClientSession() as session:
        api._hosts = None  # type: ignore[assignment]  # a fault before the answer is begun
        async with session.get(
            f"http://127.0.0.1:{api.bound_port}/tenants", headers={"Host": "a"}
        ) as response:
            reply = Reply(response.status, dict(response.headers), await response.text())

    assert (reply.status, reply.error) == (500, "internal_error")
    assert_is_guarded(reply.headers)


# --- the socket -------------------------------------------------------------------------------


async def test_a_port_in_use_is_a_clear_error() -> None:
    """Not being able to listen raises one sentence naming the address."""
    with socket.create_server(("127.0.0.1", 0)) as holder:
        port = holder.getsockname()[1]
        with pytest.raises(ConsumerError, match=f"127.0.0.1:{port}.*in use"):
            async with World().api().serve("127.0.0.1", port):
                pass


async def test_after_the_block_nobody_listens() -> None:
    """The port is known while it is served and free again afterwards."""
    api = World().api()
    before = api.bound_port
    async with api.serve("127.0.0.1", 0):
        port = api.bound_port
    after = api.bound_port

    assert (before, after) == (0, 0)
    with socket.create_server(("127.0.0.1", port)):
        pass


async def test_an_address_that_is_not_ours_is_told_as_in_a_url() -> None:
    """One of IPv6 stands in brackets, so that it can be told from the port."""
    with pytest.raises(ConsumerError, match=r"cannot listen on http \[2001:db8::1\]:9580: "):
        async with World().api().serve("2001:db8::1", 9580):
            pass


async def test_stopping_does_not_wait_for_idle_connections() -> None:
    """A client that keeps its connection open does not hold up the stop."""
    api = World().api()
    loop = asyncio.get_running_loop()
    async with aiohttp.ClientSession() as session:
        async with api.serve("127.0.0.1", 0):
            async with session.get(f"http://127.0.0.1:{api.bound_port}/healthz") as response:
                assert response.status == 200
            began = loop.time()
        took = loop.time() - began

    assert took < 0.5


def test_nothing_listens_by_being_made() -> None:
    """Making the API opens nothing; there is no port yet."""
    assert World().api().bound_port == 0
