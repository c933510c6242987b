"""aiohttp's server behind our bounds, and with our headers and words on its own errors too.

aiohttp gives each connection to a RequestHandler; this one tells `connections` what becomes of it:
that a request is worked on, that it has its answer, that the other side takes nothing. What aiohttp
would answer by itself, to what is no HTTP for instance, has the one shape of errors, and costs a
line in the log rather than a traceback.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Final, cast

import structlog
from aiohttp import hdrs, web  # noqa: TID251 - the server's door, with `api`
from typing_extensions import override

from consumer.acceptor import Acceptor
from consumer.connections import Connections, Held, HttpLimits
from consumer.faults import trace_of

_log: Final = structlog.get_logger(__name__)

_STOP_SECONDS: Final = 2.0
_LINGER_SECONDS: Final = 1.0
"""For the rest of a body that nobody asked for."""
_MOST_MESSAGE: Final = 200
_HEADERS: Final = {
    hdrs.CACHE_CONTROL: "no-store",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
}
_SERVER: Final = "landlord-consumer"
_FULL: Final = "as many connections as there may be are being answered"


class Connection(web.RequestHandler):
    """A connection that is held within bounds."""

    def __init__(self, server: web.Server, connections: Connections) -> None:
        limits = connections.limits
        super().__init__(
            server,
            loop=asyncio.get_running_loop(),
            keepalive_timeout=limits.idle_seconds,
            access_log=None,  # type: ignore[arg-type]  # as the library's own runner has it
            lingering_time=_LINGER_SECONDS,
        )
        self.held = Held(connections)
        self._limits = limits
        self._is_between = False
        """Whether an answer is given and nothing more has come."""
        self._unanswered_bytes = 0

    def answers(self, *, as_stream: bool = False) -> None:
        """Say that a request is being answered."""
        self.held.is_answered(as_stream=as_stream)

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        wire = cast("asyncio.Transport", transport)
        is_held = self.held.opened(wire)
        super().connection_made(transport)
        if not is_held:
            wire.write(_raw(503, "too_many_connections", _FULL))
            self.force_close()

    @override
    def connection_lost(self, exc: BaseException | None) -> None:
        self.held.closed()
        super().connection_lost(exc)

    @override
    def data_received(self, data: bytes) -> None:
        self._unanswered_bytes += len(data)
        if self._unanswered_bytes > self._limits.most_head_bytes:
            self.held.drop()
            return
        if self._is_between and data:
            self._is_between = False
            self.held.waits(self._limits.head_seconds)
        super().data_received(data)

    @override
    def pause_writing(self) -> None:
        super().pause_writing()
        self.held.stops_reading()

    @override
    def resume_writing(self) -> None:
        super().resume_writing()
        self.held.reads_again()

    @override
    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        if isinstance(resp, web.HTTPException):
            resp = http_error(request, resp)
        if not resp.prepared:
            add_headers(resp)
        try:
            return await super().finish_response(request, resp, start_time)
        finally:
            self._unanswered_bytes = 0
            self._is_between = True
            # What it is sent may still be on the way when the time is over, and then never comes.
            self.held.waits(self._limits.idle_seconds + self._limits.stall_seconds)

    @override
    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        if status < 500:
            # Not from whom: who has many addresses would write as many lines.
            _log.warning("http request not understood")
            _log.debug("not understood", address=self.held.address)
            words = (message or "").partition("\n")[0][:_MOST_MESSAGE]
            response = error(status, "bad_request", words or "this is no HTTP request")
        else:
            _log.error("http request failed", error="" if exc is None else trace_of(exc))
            response = error(status, "internal_error", "the request failed; the log has the reason")
        if request.writer.output_size > 0:
            raise ConnectionError("it is too late for an answer of another kind")
        response.force_close()
        return response

    @override
    def log_exception(self, *args: object, **kw: object) -> None:
        failure = kw.get("exc_info")
        words = trace_of(failure) if isinstance(failure, BaseException) else ""
        _log.error("http connection failed", error=words)


class Serving:
    """Serves an application within bounds."""

    def __init__(self, site: web.Application, limits: HttpLimits) -> None:
        self._runner = web.AppRunner(
            site, access_log=None, shutdown_timeout=_STOP_SECONDS, handle_signals=False
        )
        self.connections = Connections(limits)
        self._acceptor = Acceptor(
            self._connection,
            make_room=self.connections.make_room,
            retry_seconds=limits.retry_seconds,
        )

    @property
    def port(self) -> int:
        """The port that is listened on; 0 while it is none."""
        return self._acceptor.port

    def _connection(self) -> Connection:
        # Nothing is accepted before there is a server, and after.
        return Connection(cast("web.Server", self._runner.server), self.connections)

    @asynccontextmanager
    async def listening(self, host: str, port: int) -> AsyncIterator[None]:
        """Serve for the length of the block. Raises OSError where the address cannot be had."""
        await self._runner.setup()
        try:
            async with self._acceptor.listening(host, port):
                yield
        finally:
            self.connections.drop_all_unread()
            await self._runner.cleanup()


# --- answers ----------------------------------------------------------------------------------


def add_headers(response: web.StreamResponse) -> None:
    """Put on the answer what every answer has."""
    for name, value in _HEADERS.items():
        response.headers.setdefault(name, value)
    response.headers[hdrs.SERVER] = _SERVER


def http_error(request: web.BaseRequest, refusal: web.HTTPException) -> web.Response:
    """Return aiohttp's own refusals (no such path, no such method) in our shape."""
    match refusal:
        case web.HTTPMethodNotAllowed():
            allowed = ", ".join(sorted(refusal.allowed_methods))
            response = error(405, "method_not_allowed", f"{request.path} answers {allowed}")
            response.headers[hdrs.ALLOW] = allowed
            return response
        case web.HTTPNotFound():
            return error(404, "not_found", f"there is no {quote(request.path)}")
        case _:
            return error(refusal.status, refusal.reason.lower().replace(" ", "_"), refusal.reason)


def error(status: int, code: str, message: str, **more: object) -> web.Response:
    """Return an error in the one shape that errors have."""
    return as_json({"error": code, "message": message, **more}, status=status)


def as_json(
    document: Mapping[str, object],
    *,
    status: int = 200,
    content_type: str = "application/json",
) -> web.Response:
    """Return the document as an answer."""
    headers = {hdrs.CONTENT_TYPE: f"{content_type}; charset=utf-8"}
    return web.Response(body=_json_bytes(document), status=status, headers=headers)


def _json_bytes(document: Mapping[str, object]) -> bytes:
    text = json.dumps(document, ensure_ascii=False) + "\n"
    return text.encode(errors="replace")  # a path may hold half a surrogate pair


def quote(text: str) -> str:
    """Return what was asked for, short enough to be told back."""
    return json.dumps(text if len(text) <= 150 else f"{text[:150]}...", ensure_ascii=False)


def _raw(status: int, code: str, message: str) -> bytes:
    """Return the bytes of an error, for who is not given to the server at all."""
    body = _json_bytes({"error": code, "message": message})
    headers = {
        hdrs.CONTENT_TYPE: "application/json; charset=utf-8",
        hdrs.CONTENT_LENGTH: str(len(body)),
        hdrs.CONNECTION: "close",
        hdrs.SERVER: _SERVER,
        **_HEADERS,
    }
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"HTTP/1.1 {status} Service Unavailable\r\n{lines}\r\n".encode() + body
