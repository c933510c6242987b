"""HTTP: what became of each tenant, whether we live and are ready, and the metrics.

Answers come from the ledger and from memory, so they come in milliseconds also while the engine
hangs; a tenant's log alone is asked of the engine, with a deadline. Every error has one shape,
`{"error": code, "message": sentence}`, and none of them ends the consumer. Nothing can be changed
through here: it is given no more of the ledger than reading. Before it stands `app`, which says
what live, ready and stale mean.
"""

import asyncio
import hmac
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Protocol

import structlog
from aiohttp import hdrs, web  # noqa: TID251 - the server's door, with `serving`

from consumer import page
from consumer.connections import HttpLimits, host_name, is_loopback
from consumer.contract import status_event_schema, tenant_event_schema
from consumer.errors import ConsumerError, EngineError, LedgerError
from consumer.exposition import Exposition
from consumer.faults import trace_of
from consumer.feed import Feed, FeedFull
from consumer.messages import instant, status_document
from consumer.metrics import Metrics
from consumer.model import (
    TENANT_ID_RULE,
    Document,
    Health,
    State,
    Status,
    Tenant,
    TenantId,
    as_tenant_id,
    authority,
)
from consumer.serving import (
    Connection,
    Serving,
    add_headers,
    as_json,
    error,
    http_error,
    quote,
)

_log: Final = structlog.get_logger(__name__)

PENDING: Final = "pending"
"""What is shown as the state of a tenant before its first status; never published."""

_STATES: Final = (*(state.value for state in State), PENDING)
_MOST_ON_A_PAGE: Final = 1000
_USUAL_PAGE: Final = 100
_HISTORY: Final = 50
_SHARE_OF_ENGINE: Final = 0.8
"""Of a request's time: so its answer says that it was the engine."""
_MOST_BODY_BYTES: Final = 1024  # nothing here takes a body
_ONLY_OPEN: Final = (
    "without http.token, only /healthz, /readyz and /metrics are answered on an address that is "
    "not loopback"
)
_OPEN_PATHS: Final = frozenset({"/healthz", "/readyz", "/metrics"})
Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Reads(Protocol):
    """As much of the ledger as is needed here; see `ports.Ledger` for the promises."""

    async def read(self, tenant_id: TenantId) -> Tenant | None: ...

    async def page(self, *, after: str, limit: int, state: str | None) -> list[Tenant]: ...

    async def history(self, tenant_id: TenantId, *, limit: int) -> list[Status]: ...


class Api:
    """The HTTP side of the consumer."""

    def __init__(  # noqa: PLR0913 - the outside is a constructor argument
        self,
        *,
        ledger: Reads,
        feed: Feed,
        tail: Callable[[Tenant], Awaitable[str | None]],
        metrics: Metrics,
        readiness: Callable[[], Mapping[str, str | None]],
        observed_at: Callable[[TenantId], datetime | None],
        is_stale: Callable[[TenantId], bool],
        is_live: Callable[[], bool],
        asyncapi: str,
        token: str | None = None,
        hosts: Collection[str] = (),
        request_seconds: float = 5.0,
        limits: HttpLimits | None = None,
    ) -> None:
        self._page = page.load()
        self._ledger = ledger
        self._feed = feed
        self._tail = tail
        self._exposition = Exposition(metrics)
        self._readiness = readiness
        self._observed_at = observed_at
        self._is_stale = is_stale
        self._is_live = is_live
        self._asyncapi = asyncapi
        self._token = token
        self._hosts = frozenset(host.lower() for host in hosts)
        self._request_seconds = request_seconds
        self._limits = limits or HttpLimits()
        self._long_page = asyncio.Lock()
        self._serving: Serving | None = None

    @property
    def bound_port(self) -> int:
        """The port that is listened on; 0 while it is none."""
        return self._serving.port if self._serving is not None else 0

    @asynccontextmanager
    async def serve(self, host: str, port: int) -> AsyncIterator[None]:
        """Listen for the length of the block; port 0 takes a free one.

        Raises ConsumerError when the address cannot be listened on.
        """
        serving = Serving(self._routes(), self._limits)
        async with AsyncExitStack() as stack:
            try:
                await stack.enter_async_context(serving.listening(host, port))
            except OSError as failure:
                why = failure.strerror or failure
                raise ConsumerError(
                    f"cannot listen on http {authority(host, port)}: {why}"
                ) from failure
            self._serving = serving
            stack.callback(self._forget)
            yield

    def _forget(self) -> None:
        self._serving = None

    def _routes(self) -> web.Application:
        routes: dict[str, Answer] = {
            "/": self._show_page,
            "/healthz": self._healthz,
            "/readyz": self._readyz,
            "/metrics": self._render_metrics,
            "/tenants": self._tenants,
            "/tenants/{tenant_id}/compute/status": self._status,
            "/tenants/{tenant_id}/history": self._history,
            "/tenants/{tenant_id}/log": self._log_of,
            "/schema/tenant-event.json": _tenant_event_schema,
            "/schema/status-event.json": _status_event_schema,
            "/asyncapi.yaml": self._describe,
        }
        site = web.Application(middlewares=[self._answer], client_max_size=_MOST_BODY_BYTES)
        site.add_routes(web.get(path, answer) for path, answer in routes.items())
        site.add_routes([web.get("/events", self._events, allow_head=False)])
        site.on_shutdown.append(self._end_streams)
        site.on_response_prepare.append(_prepare)
        return site

    @web.middleware
    async def _answer(self, request: web.Request, handler: Answer) -> web.StreamResponse:
        """Answer every request, whatever goes wrong; `handler` is aiohttp's name for the route."""
        connection = _connection_of(request)
        connection.answers()
        refused = self._refuse(request, connection)
        if refused is not None:
            return refused
        # A stream lasts as long as its reader, whose every step has a deadline of its own.
        seconds = None if request.path == "/events" else self._request_seconds
        try:
            async with asyncio.timeout(seconds):
                return await handler(request)
        except _NotFound as unknown:
            message = f"no tenant {quote(str(unknown))} is known"
            return error(404, "tenant_not_found", message)
        except web.HTTPException as refusal:
            return http_error(request, refusal)
        except LedgerError as failure:
            _log.warning("request waits for the ledger", route=_route(request), error=str(failure))
            return error(503, "ledger_unavailable", "the ledger cannot be read at the moment")
        except TimeoutError:
            _log.warning("request took too long", route=_route(request))
            return error(503, "deadline_exceeded", f"no answer within {self._request_seconds} s")
        except Exception as fault:  # noqa: BLE001 - one request's trouble stays its own
            _log.error("request failed", route=_route(request), error=trace_of(fault))
            return error(500, "internal_error", "the request failed; the log has the reason")

    def _refuse(self, request: web.Request, connection: Connection) -> web.StreamResponse | None:
        """Return why the request is not answered; None if it is.

        1. Probes and scrapers are answered by any name, but on loopback, where a browser may have
           been sent by a name that was pointed here.
        2. Nobody is answered by such a name.
        3. Without a token, only this host is; with one, whoever has it.
        """
        is_open = request.path in _OPEN_PATHS
        if is_open and not connection.held.is_here:
            return None
        if not self._is_ours(request, connection):
            asked_for = request.headers.get(hdrs.HOST, "")
            return error(421, "unknown_host", f"{quote(asked_for)} is none of http.hosts")
        if is_open:
            return None
        if self._token is None:
            return None if connection.held.is_here else error(403, "token_required", _ONLY_OPEN)
        return None if self._has_token(request, self._token) else self._refuse_stranger(request)

    def _is_ours(self, request: web.Request, connection: Connection) -> bool:
        asked_for = request.headers.getall(hdrs.HOST, [])
        if not asked_for:
            return True  # no browser leaves it out, and nobody else can be sent here by a name
        name = host_name(asked_for[0]) if len(asked_for) == 1 else None
        return name is not None and (
            is_loopback(name) or name in self._hosts or name == connection.held.own_address
        )

    def _has_token(self, request: web.Request, token: str) -> bool:
        scheme, _, given = request.headers.get(hdrs.AUTHORIZATION, "").partition(" ")
        # Compared as bytes: a header may hold what is not ASCII, which compare_digest refuses.
        is_right = hmac.compare_digest(
            given.strip().encode(errors="surrogateescape"), token.encode()
        )
        return is_right and scheme.lower() == "bearer"

    def _refuse_stranger(self, request: web.Request) -> web.StreamResponse:
        if request.path == "/" and "text/html" in request.headers.get(hdrs.ACCEPT, ""):
            # It holds no secret, and asks for the token.
            response: web.Response = self._page_response(401)
        else:
            response = error(401, "unauthorized", "a valid 'Authorization: Bearer ...' is needed")
        response.headers[hdrs.WWW_AUTHENTICATE] = 'Bearer realm="landlord-consumer"'
        return response

    async def _show_page(self, request: web.Request) -> web.StreamResponse:
        is_known = self._page.etag in request.headers.get(hdrs.IF_NONE_MATCH, "")
        response = self._page_response(304 if is_known else 200)
        response.headers[hdrs.ETAG] = self._page.etag
        response.headers[hdrs.CACHE_CONTROL] = "no-cache"  # kept, and asked for each time
        response.headers[hdrs.VARY] = hdrs.AUTHORIZATION
        return response

    def _page_response(self, status: int) -> web.Response:
        # A browser takes the policy of a 304 for that of what it has kept.
        headers = {
            hdrs.CONTENT_TYPE: "text/html; charset=utf-8",
            "Content-Security-Policy": self._page.policy,
        }
        body = None if status == 304 else self._page.body
        return web.Response(body=body, status=status, headers=headers)

    async def _events(self, request: web.Request) -> web.StreamResponse:
        headers = {
            hdrs.CONTENT_TYPE: "text/event-stream; charset=utf-8",
            "X-Accel-Buffering": "no",  # a proxy is not to keep it back
        }
        response = web.StreamResponse(headers=headers)
        connection = _connection_of(request)
        try:
            async with self._feed.view() as frames:
                connection.answers(as_stream=True)
                await response.prepare(request)
                async for frame in frames:
                    await response.write(frame)
        except FeedFull as full:
            return error(503, "too_many_viewers", str(full))
        except ConnectionError:
            connection.held.drop()  # gone, or takes nothing any more
        return response

    async def _end_streams(self, _: web.Application) -> None:
        self._feed.close()

    async def _healthz(self, _: web.Request) -> web.StreamResponse:
        if self._is_live():
            return as_json({"status": "live"})
        return error(503, "not_live", "the loops do not turn")

    async def _readyz(self, _: web.Request) -> web.StreamResponse:
        troubles = self._readiness()
        components = {name: trouble or "ok" for name, trouble in troubles.items()}
        wrong = [f"{name}: {trouble}" for name, trouble in troubles.items() if trouble]
        if not wrong:
            return as_json({"status": "ready", "components": components})
        return error(503, "not_ready", "; ".join(wrong), components=components)

    async def _render_metrics(self, request: web.Request) -> web.StreamResponse:
        accept = ",".join(request.headers.getall(hdrs.ACCEPT, []))
        body, content_type = await self._exposition.of(accept)
        return web.Response(body=body, headers={hdrs.CONTENT_TYPE: content_type})

    async def _describe(self, _: web.Request) -> web.StreamResponse:
        return web.Response(text=self._asyncapi, content_type="application/yaml")

    async def _status(self, request: web.Request) -> web.StreamResponse:
        return as_json(self._show(await self._find(request)))

    async def _history(self, request: web.Request) -> web.StreamResponse:
        tenant = await self._find(request)
        told = await self._ledger.history(tenant.tenant_id, limit=_HISTORY)
        if not told and tenant.status is not None:
            told = [tenant.status]  # older than what is kept
        return as_json({"history": [status_document(status) for status in told]})

    async def _log_of(self, request: web.Request) -> web.StreamResponse:
        tenant = await self._find(request)
        seconds = self._request_seconds * _SHARE_OF_ENGINE
        try:
            async with asyncio.timeout(seconds):
                text = await self._tail(tenant)
        except EngineError as failure:
            return error(503, "engine_unavailable", str(failure))
        except TimeoutError:
            return error(
                503, "engine_unavailable", f"the engine gave no answer within {seconds:g} s"
            )
        return as_json({"log": text})

    async def _find(self, request: web.Request) -> Tenant:
        """Return the tenant that is asked for. Raises _NotFound."""
        asked_for = request.match_info["tenant_id"]
        try:
            tenant = await self._ledger.read(as_tenant_id(asked_for))
        except ValueError:
            tenant = None
        if tenant is None:
            raise _NotFound(asked_for)
        return tenant

    async def _tenants(self, request: web.Request) -> web.StreamResponse:
        try:
            query = _read_query(request)
        except ValueError as fault:
            return error(400, "invalid_query", str(fault))
        if query.limit <= _USUAL_PAGE:
            return await self._page_of(query)
        # A long one is the loop's work for a while: many are made one after the other, and what is
        # asked for beside them has its turn in between.
        async with self._long_page:
            return await self._page_of(query)

    async def _page_of(self, query: "_Query") -> web.StreamResponse:
        # One more than asked for tells whether there is a next page.
        found = await self._ledger.page(after=query.after, limit=query.limit + 1, state=query.state)
        shown = found[: query.limit]
        following = shown[-1].tenant_id if len(found) > len(shown) else None
        return as_json({"tenants": [self._show(tenant) for tenant in shown], "next": following})

    def _show(self, tenant: Tenant) -> Document:
        status = tenant.status
        document = status_document(status) if status is not None else _pending_document(tenant)
        observed_at = self._observed_at(tenant.tenant_id)
        return {
            **document,
            "desired": tenant.desired.value,
            "observed_at": instant(observed_at),
            "stale": self._is_stale(tenant.tenant_id),
        }


class _NotFound(Exception):
    """No such tenant."""


@dataclass(frozen=True, slots=True)
class _Query:
    state: str | None
    limit: int
    after: str


def _read_query(request: web.Request) -> _Query:
    """Return the page that is asked for; raise ValueError naming field, value and rule."""
    given: dict[str, str] = {}
    for name, value in request.query.items():
        if name not in {"state", "limit", "after"}:
            raise ValueError(f"{name}: unknown, there are state, limit and after")
        if name in given:
            raise ValueError(f"{name}: given twice")
        given[name] = value
    return _Query(
        state=_read_state(given.get("state", "")),
        limit=_read_limit(given.get("limit", "")),
        after=_read_after(given.get("after", "")),
    )


def _read_state(text: str) -> str | None:
    if text and text not in _STATES:
        raise ValueError(f"state: {quote(text)} is none of {', '.join(_STATES)}")
    return text or None


def _read_limit(text: str) -> int:
    if not text:
        return _USUAL_PAGE
    rule = f"limit: {quote(text)} is no integer from 1 to {_MOST_ON_A_PAGE}"
    if not (text.isascii() and text.isdigit() and len(text) <= 4):
        raise ValueError(rule)
    if not 1 <= int(text) <= _MOST_ON_A_PAGE:
        raise ValueError(rule)
    return int(text)


def _read_after(text: str) -> str:
    if not text:
        return ""
    try:
        return as_tenant_id(text)
    except ValueError:
        raise ValueError(f"after: {quote(text)} is no tenant id, {TENANT_ID_RULE}") from None


def _pending_document(tenant: Tenant) -> Document:
    """Return what is known before the first status, in the shape of a status event."""
    return {
        "tenant_id": tenant.tenant_id,
        "state": PENDING,
        "reason": None,
        "message": "",
        "sequence": tenant.sequence,
        "generation": tenant.generation,
        "event_id": tenant.event_id,
        "provider_type": tenant.spec.provider_type if tenant.spec is not None else None,
        "container": None,
        "ports": [],
        "health": Health.NONE.value,
        "changes": [],
        "startup_seconds": None,
        "will_retry": False,
        "attempt": 0,
        "next_attempt_at": None,
        "occurred_at": None,
    }


async def _tenant_event_schema(_: web.Request) -> web.StreamResponse:
    return as_json(tenant_event_schema(), content_type="application/schema+json")


async def _status_event_schema(_: web.Request) -> web.StreamResponse:
    return as_json(status_event_schema(), content_type="application/schema+json")


async def _prepare(_: web.Request, response: web.StreamResponse) -> None:
    add_headers(response)


def _connection_of(request: web.Request) -> Connection:
    connection = request.protocol
    if not isinstance(connection, Connection):
        raise TypeError("requests come by connections of `serving`")
    return connection


def _route(request: web.Request) -> str:
    """Return what was asked for in our words: no stranger is to vary a line of the log."""
    resource = request.match_info.route.resource
    return resource.canonical if resource is not None else "none"
