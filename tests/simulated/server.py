"""The Engine API over a unix socket, with a simulated host behind it.

As much of it as the consumer asks for, with the statuses and the words of Docker 20.10. Each
operation waits for its latency first and is counted; `GET /simulated/requests`, which no engine
has, tells the counts.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from aiohttp import web

from tests.simulated.host import API_VERSION, Document, Refusal, SimulatedHost

_NO_CONTENT, _NOT_MODIFIED, _CREATED = 204, 304, 201
_LOOK_SECONDS: Final = 0.005
_MOST_BODY_BYTES: Final = 64 * 1024 * 1024

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


@asynccontextmanager
async def serving(host: SimulatedHost, socket: Path) -> AsyncIterator[str]:
    """Serve the host for the length of the block; give its URL."""
    runner = web.AppRunner(
        _Api(host).app(), access_log=None, handler_cancellation=True, shutdown_timeout=1.0
    )
    await runner.setup()
    await web.UnixSite(runner, str(socket)).start()
    try:
        yield f"unix://{socket}"
    finally:
        host.end_events()
        await runner.cleanup()


class _Api:
    """The routes; each method is one operation."""

    def __init__(self, host: SimulatedHost) -> None:
        self._host = host

    def app(self) -> web.Application:
        app = web.Application(client_max_size=_MOST_BODY_BYTES)
        for method, path, operation, answer in self._routes():
            for prefix in ("", r"/{version:v\d+\.\d+}"):
                app.router.add_route(method, prefix + path, self._served(operation, answer))
        app.router.add_get("/simulated/requests", self._requests)
        return app

    def _routes(self) -> tuple[tuple[str, str, str, Answer], ...]:
        container = "/containers/{name}"
        return (
            ("GET", "/_ping", "ping", self._ping),
            ("GET", "/version", "version", self._version),
            ("GET", "/info", "info", self._info),
            ("GET", "/events", "events", self._events),
            ("GET", "/containers/json", "list", self._list),
            ("POST", "/containers/create", "create", self._create),
            ("GET", f"{container}/json", "inspect", self._inspect),
            ("GET", f"{container}/logs", "logs", self._logs),
            ("GET", f"{container}/archive", "get archive", self._get_archive),
            ("PUT", f"{container}/archive", "put archive", self._put_archive),
            ("POST", f"{container}/start", "start", self._start),
            ("POST", f"{container}/stop", "stop", self._stop),
            ("POST", f"{container}/kill", "kill", self._kill),
            ("POST", f"{container}/wait", "wait", self._wait),
            ("POST", f"{container}/pause", "pause", self._pause),
            ("POST", f"{container}/unpause", "unpause", self._unpause),
            ("POST", f"{container}/rename", "rename", self._rename),
            ("POST", f"{container}/update", "update", self._update),
            ("DELETE", container, "remove", self._remove),
            ("POST", "/images/create", "pull", self._pull),
            ("GET", "/images/{name:.+}/json", "image inspect", self._image),
            ("GET", "/networks", "network list", self._networks),
            ("POST", "/networks/create", "network create", self._create_network),
            ("GET", "/networks/{name}", "network inspect", self._network),
            ("DELETE", "/networks/{name}", "network remove", self._remove_network),
            ("POST", "/networks/{name}/{verb:connect|disconnect}", "network join", self._join),
            ("POST", "/volumes/create", "volume create", self._create_volume),
            ("GET", "/volumes/{name}", "volume inspect", self._volume),
            ("DELETE", "/volumes/{name}", "volume remove", self._remove_volume),
        )

    def _served(self, operation: str, answer: Answer) -> Answer:
        host = self._host

        async def serve(request: web.Request) -> web.StreamResponse:
            host.requests[operation] += 1
            seconds = host.latencies.get(operation)
            if seconds:
                await asyncio.sleep(seconds)
            try:
                return await answer(request)
            except Refusal as refusal:
                return web.json_response({"message": refusal.message}, status=refusal.status)

        return serve

    async def _requests(self, _request: web.Request) -> web.Response:
        return web.json_response(self._host.requests)

    # --- the engine

    async def _ping(self, _request: web.Request) -> web.Response:
        return web.Response(text="OK", headers={"Api-Version": API_VERSION})

    async def _version(self, _request: web.Request) -> web.Response:
        return web.json_response(self._host.version())

    async def _info(self, _request: web.Request) -> web.Response:
        return web.json_response(self._host.info())

    async def _events(self, request: web.Request) -> web.StreamResponse:
        since = request.query.get("since")
        lines: asyncio.Queue[bytes] = asyncio.Queue()
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        labels = _filters(request).get("label", [])
        with self._host.listening(lines, labels, float(since) if since else None):
            await response.prepare(request)
            while line := await lines.get():
                await response.write(line)
        return response

    # --- containers

    async def _list(self, request: web.Request) -> web.Response:
        body = self._host.list_lines(_filters(request))
        return web.Response(body=body, content_type="application/json")

    async def _create(self, request: web.Request) -> web.Response:
        made = self._host.create(request.query["name"], await request.json())
        return web.json_response(made, status=_CREATED)

    async def _inspect(self, request: web.Request) -> web.Response:
        return web.json_response(self._host.inspect(_name(request)))

    async def _logs(self, request: web.Request) -> web.Response:
        return web.Response(body=self._host.log(_name(request)))

    async def _get_archive(self, request: web.Request) -> web.Response:
        archive = self._host.read_archive(_name(request), request.query["path"])
        return web.Response(body=archive, content_type="application/x-tar")

    async def _put_archive(self, request: web.Request) -> web.Response:
        self._host.put_archive(_name(request), request.query["path"], await request.read())
        return web.Response()

    async def _start(self, request: web.Request) -> web.Response:
        return _done(is_change=self._host.start(_name(request)))

    async def _stop(self, request: web.Request) -> web.Response:
        asked = request.query.get("t")
        seconds = self._host.grace_seconds(_name(request), float(asked) if asked else None)
        if seconds:
            await asyncio.sleep(seconds)
        return _done(is_change=self._host.stop(_name(request)))

    async def _kill(self, request: web.Request) -> web.Response:
        if request.query.get("signal", "SIGKILL") == "SIGKILL":
            self._host.kill(_name(request))
        else:
            self._host.signal(_name(request))
        return _done()

    async def _wait(self, request: web.Request) -> web.Response:
        while self._host.is_running(_name(request)):  # noqa: ASYNC110 - one look costs nothing here
            await asyncio.sleep(_LOOK_SECONDS)
        return web.json_response({"StatusCode": 0})

    async def _pause(self, request: web.Request) -> web.Response:
        self._host.pause(_name(request))
        return _done()

    async def _unpause(self, request: web.Request) -> web.Response:
        self._host.unpause(_name(request))
        return _done()

    async def _rename(self, request: web.Request) -> web.Response:
        self._host.rename(_name(request), request.query["name"])
        return _done()

    async def _update(self, request: web.Request) -> web.Response:
        self._host.update(_name(request), await request.json())
        return web.json_response({"Warnings": []})

    async def _remove(self, request: web.Request) -> web.Response:
        is_forced = request.query.get("force", "").lower() in ("1", "true")
        self._host.remove(_name(request), is_forced=is_forced)
        return _done()

    # --- images, networks, volumes

    async def _pull(self, request: web.Request) -> web.Response:
        image, tag = request.query["fromImage"], request.query.get("tag")
        lines = self._host.pull(f"{image}:{tag}" if tag else image)
        body = "".join(f"{json.dumps(line)}\r\n" for line in lines)
        return web.Response(text=body, content_type="application/json")

    async def _image(self, request: web.Request) -> web.Response:
        return web.json_response(self._host.inspect_image(_name(request)))

    async def _networks(self, request: web.Request) -> web.Response:
        parts = _filters(request).get("name", [])
        found = [
            line
            for name, line in self._host.networks.items()
            if not parts or any(part in name for part in parts)
        ]
        return web.json_response(found)

    async def _create_network(self, request: web.Request) -> web.Response:
        return web.json_response(self._host.create_network(await request.json()), status=_CREATED)

    async def _network(self, request: web.Request) -> web.Response:
        return web.json_response(self._host.find_network(_name(request)))

    async def _remove_network(self, request: web.Request) -> web.Response:
        self._host.remove_network(_name(request))
        return _done()

    async def _join(self, request: web.Request) -> web.Response:
        self._host.find_network(_name(request))
        return web.Response()

    async def _create_volume(self, request: web.Request) -> web.Response:
        return web.json_response(self._host.create_volume(await request.json()), status=_CREATED)

    async def _volume(self, request: web.Request) -> web.Response:
        return web.json_response(self._host.inspect_volume(_name(request)))

    async def _remove_volume(self, request: web.Request) -> web.Response:
        self._host.remove_volume(_name(request))
        return _done()


def _done(*, is_change: bool = True) -> web.Response:
    return web.Response(status=_NO_CONTENT if is_change else _NOT_MODIFIED)


def _name(request: web.Request) -> str:
    return request.match_info["name"]


def _filters(request: web.Request) -> dict[str, list[str]]:
    """Return the filters, in either of the two ways in which the API takes them."""
    told: Document = json.loads(request.query.get("filters") or "{}")
    return {key: list(values) for key, values in told.items() if isinstance(values, list | dict)}
