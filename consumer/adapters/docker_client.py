"""The one way to ask the Docker Engine: connections, deadlines, measures, translation of errors.

Two connections pools: one for short requests, one without a limit for streams (pulls, events) and
for what a single container can make hang, so that neither keeps a short request waiting. Every
request has a deadline; the library's default is none. Client and engine agree on a version of the
API that both know. A refusal (an HTTP status of 400 and above) becomes `Refused`, with status and
the engine's words; anything that leaves the outcome unknown becomes EngineUnavailable.
"""

import asyncio
import re
import ssl
import time
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Final, Literal, TypeVar
from urllib.parse import urlsplit

import aiohttp
from aiodocker import Docker
from aiodocker.exceptions import DockerError

from consumer.errors import ConsumerError, EngineUnavailable

STANDARD_SOCKET: Final = "unix:///var/run/docker.sock"
_CANNOT_CONNECT: Final = 900  # aiodocker's own number
_LEAST_API: Final = (1, 41)
_NEWEST_API: Final = (1, 52)
"""What later versions change is not asked for, unless the engine knows nothing older."""
_BAD_REQUEST: Final = 400
_NOT_FOUND: Final = 404
_NOT_NOW: Final = frozenset({502, 503, 504})
_UNKNOWN: Final = "auto"
"""How the library calls a version that is not known yet."""
_VERSION: Final = re.compile(r"(\d{1,4})\.(\d{1,4})")
_CONNECT_SECONDS: Final = 5.0
_POOL_SIZE: Final = 100
_PHRASE: Final = "failed to connect to docker daemon"

_T = TypeVar("_T")

Operation = Literal[
    "create",
    "get archive",
    "image inspect",
    "info",
    "inspect",
    "kill",
    "list",
    "login",
    "logs",
    "network connect",
    "network create",
    "network disconnect",
    "network list",
    "network remove",
    "ping",
    "put archive",
    "remove",
    "rename",
    "start",
    "update",
    "volume create",
    "volume inspect",
    "volume list",
    "volume remove",
]
"""What is asked of the engine: the closed set of a metric's label."""
ObserveRequest = Callable[[str, str, float], None]
"""Told of every request: operation, outcome (ok, refused, unavailable), seconds."""
Permit = Callable[[], Awaitable[None]]
"""Awaited before every short request; raises EngineUnavailable when there is to be none."""


async def unconditional() -> None:
    """Permit every request."""


class Refused(ConsumerError):
    """The engine answered, and the answer is no. Stays within the adapter."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """Where the engine is: `unix://` or `tcp://`, the latter in clear text or by TLS."""

    url: str = STANDARD_SOCKET
    tls: ssl.SSLContext | None = None

    def connector(self, limit: int) -> aiohttp.BaseConnector:
        """Return a connection pool."""
        if self.url.startswith("unix://"):
            return aiohttp.UnixConnector(self.url.removeprefix("unix://"), limit=limit)
        return aiohttp.TCPConnector(ssl=self.tls or False, limit=limit)

    @property
    def base_url(self) -> str:
        """What requests are sent to; the path of a socket belongs to the connector."""
        if self.url.startswith("unix://"):
            return "unix://localhost"
        scheme = "http" if self.tls is None else "https"
        return f"{scheme}://{urlsplit(self.url).netloc}"


class DockerClient:
    """Asks one engine."""

    def __init__(
        self,
        endpoint: Endpoint,
        *,
        observe_request: ObserveRequest = lambda _operation, _outcome, _seconds: None,
        permit: Permit = unconditional,
    ) -> None:
        self._endpoint = endpoint
        self._observe_request = observe_request
        self._permit = permit
        self._short: Docker | None = None
        self._streams: Docker | None = None

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[None]:
        """Hold the connection pools for the length of the block; connects only when asked."""
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_SECONDS)
        async with (
            aiohttp.ClientSession(connector=self._endpoint.connector(_POOL_SIZE)) as short,
            aiohttp.ClientSession(connector=self._endpoint.connector(0)) as streams,
        ):
            url = self._endpoint.base_url
            self._short, self._streams = [
                Docker(url=url, connector=session.connector, session=session, timeout=timeout)
                for session in (short, streams)
            ]
            try:
                yield
            finally:
                self._short = self._streams = None

    def forget_version(self) -> None:
        """Agree on the API's version anew: the engine may have been upgraded while it was away."""
        self._use_version(_UNKNOWN)

    def _use_version(self, version: str) -> None:
        for docker in (self._short, self._streams):
            if docker is not None:
                docker.api_version = version

    @asynccontextmanager
    async def asking(
        self, operation: Operation, seconds: float, *, may_hang: bool = False
    ) -> AsyncIterator[Docker]:
        """Ask for something short: at most `seconds`. Raises Refused or EngineUnavailable.

        What may hang by a tenant's doing, or by a fault of its own container, has a connection of
        its own: however many do, the others find one.
        """
        if self._short is None or self._streams is None:
            raise EngineUnavailable(f"{_PHRASE}: the client is closed")
        await self._permit()
        with self._measured(operation), self._translated(operation, seconds):
            async with asyncio.timeout(seconds):
                if self._short.api_version == _UNKNOWN:
                    await self._agree_on_version(self._short)
                yield self._streams if may_hang else self._short

    async def _agree_on_version(self, docker: Docker) -> None:
        try:
            told = await docker._query_json("version", versioned_api=False)  # noqa: SLF001 - before there is a version
            self._use_version(common_version(told))
        except DockerError as error:
            if is_unavailable(error.status, error.message):
                raise
            words = f"{_words(error.message)}{_hint(error.message)}"
            raise EngineUnavailable(f"{_PHRASE}: {self._endpoint.url}: {words}") from error
        except VersionFault as fault:
            raise EngineUnavailable(f"{_PHRASE}: {self._endpoint.url} {fault}") from fault

    async def read_some(
        self,
        operation: Operation,
        path: str,
        params: dict[str, str],
        *,
        seconds: float,
        most_bytes: int,
    ) -> bytes:
        """Return the beginning of what the engine answers to a GET, at most so many bytes.

        For what a tenant decides the size of; the library's own methods read it all. Raises Refused
        or EngineUnavailable.
        """
        async with (
            self.asking(operation, seconds) as docker,
            docker._query(path, params=params) as response,  # noqa: SLF001 - see above
        ):
            try:
                return await response.content.readexactly(most_bytes)
            except asyncio.IncompleteReadError as whole:
                return whole.partial
            finally:
                response.close()

    @contextmanager
    def streaming(self, operation: str, seconds: float) -> Iterator[Docker]:
        """Use the pool for streams; the caller sees to deadlines and says which it chose.

        What is asked has to follow a short request: that one agrees on the API's version.
        """
        if self._streams is None:
            raise EngineUnavailable(f"{_PHRASE}: the client is closed")
        with self._translated(operation, seconds):
            yield self._streams

    @contextmanager
    def _measured(self, operation: str) -> Iterator[None]:
        began = time.perf_counter()
        outcome = "unavailable"
        try:
            yield
            outcome = "ok"
        except Refused:
            outcome = "refused"
            raise
        finally:
            self._observe_request(operation, outcome, time.perf_counter() - began)

    @contextmanager
    def _translated(self, operation: str, seconds: float) -> Iterator[None]:
        try:
            with _telling_why():
                yield
        except DockerError as error:
            if is_unavailable(error.status, error.message):
                raise EngineUnavailable(f"{_PHRASE}: {self._why(error)}") from error
            if error.status == _BAD_REQUEST and "client version" in error.message.lower():
                # Another engine has come in place of the one that we agreed with.
                self.forget_version()
                raise EngineUnavailable(f"{_PHRASE}: {_words(error.message)}") from error
            raise as_refused(error.status, error.message) from error
        except aiohttp.ConnectionTimeoutError as error:
            raise EngineUnavailable(
                f"{_PHRASE}: no connection to {self._endpoint.url} within "
                f"{_CONNECT_SECONDS:g} s; is the address right, does a firewall drop it?"
            ) from error
        except TimeoutError as error:
            place = self._endpoint.url
            raise EngineUnavailable(
                f"{_PHRASE}: {place} gave no answer to {operation} within {seconds:g} s"
            ) from error
        except (aiohttp.ClientError, OSError, ValueError) as error:
            # ValueError: a body that is no JSON, for instance cut off by a dying engine, or that
            # is no error as an engine tells it.
            raise EngineUnavailable(f"{_PHRASE}: {operation}: {_words(str(error))}") from error

    def _why(self, error: DockerError) -> str:
        """Tell what keeps us from connecting, one from the other; each has its own cure."""
        url = self._endpoint.url
        cause = error.__context__
        reason = getattr(cause, "certificate_error", None) or getattr(cause, "os_error", cause)
        match reason:
            case FileNotFoundError():
                return f"{url} is not there; does Docker run, is its socket mounted here?"
            case PermissionError():
                return f"permission denied at {url}; is this user in the socket's group?"
            case ConnectionRefusedError():
                return f"nothing listens at {url}; does Docker run?"
            case ssl.SSLCertVerificationError(verify_message=str(words)):
                return (
                    f"the certificate of {url} is not trusted: {words}; is compute.docker.tls.ca "
                    "that of its CA?"
                )
            case _:
                return f"{url}: {_words(error.message)}{_hint(reason)}"


class VersionFault(ValueError):
    """Who answers speaks no version of the API that we do; the words follow the address."""


def common_version(told: object) -> str:
    """Return the newest version of the API that we and who told this of itself both know.

    Raises VersionFault when there is none.
    """
    document = told if isinstance(told, dict) else {}
    newest = _as_version(document.get("ApiVersion"))
    if newest is None:
        raise VersionFault("does not answer as a Docker Engine does")
    if newest < _LEAST_API:
        raise VersionFault(
            f"speaks version {_in_words(newest)} of the API (engine {document.get('Version')}); "
            f"{_in_words(_LEAST_API)} is the least, that of Docker 20.10"
        )
    oldest = _as_version(document.get("MinAPIVersion")) or _LEAST_API
    return f"v{_in_words(max(min(newest, _NEWEST_API), oldest))}"


def _as_version(text: object) -> tuple[int, int] | None:
    found = _VERSION.fullmatch(text) if isinstance(text, str) else None
    return (int(found[1]), int(found[2])) if found is not None else None


def _in_words(version: tuple[int, int]) -> str:
    return ".".join(map(str, version))


def _hint(reason: object) -> str:
    words = str(reason).upper().replace(" ", "_")
    if "HTTP_REQUEST_TO_AN_HTTPS_SERVER" in words:
        return "; it speaks TLS: set compute.docker.tls"
    if "ALERT_" in words and ("CERTIFICATE" in words or "UNKNOWN_CA" in words):
        # Told by the engine, of us: none was sent, or one of another CA, or one that has expired.
        return "; it asks for a client certificate (compute.docker.tls.cert and key) of its CA"
    if "WRONG_VERSION_NUMBER" in words or "RECORD_LAYER_FAILURE" in words:
        return "; does it speak TLS at all?"
    return ""


def is_unavailable(status: int, message: str) -> bool:
    """Whether this means that the engine, or a proxy before it, cannot be asked now.

    An engine that is no swarm manager says 503 of that, which is an answer.
    """
    if status == _CANNOT_CONNECT:
        return True
    return status in _NOT_NOW and "swarm" not in message.lower()


def as_refused(status: int, message: str) -> Refused:
    """Return the engine's answer as one of Docker's.

    Podman says 500 of a container that is removed while it is asked about (seen with 4.3).
    """
    words = _words(message)
    is_gone = words.lower().endswith("no such container")
    return Refused(_NOT_FOUND if is_gone else status, words)


def _words(text: str) -> str:
    """Return the engine's words on one line; its errors are JSON when the type has a charset."""
    stripped = text.strip()
    if stripped.startswith('{"message":'):
        stripped = stripped.removeprefix('{"message":').rstrip("}").strip().strip('"')
        stripped = stripped.replace('\\"', '"').replace("\\n", " ")
    return " ".join(stripped.split())


async def see_through(work: Coroutine[object, object, _T]) -> _T:
    """Await the work to its end, also when the caller is cancelled meanwhile.

    For requests that change something: when the caller goes on, none is still on its way. A second
    cancellation ends the work too.
    """
    task = asyncio.create_task(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await _end(task)
        raise


async def _end(task: "asyncio.Task[_T]") -> None:
    try:
        await asyncio.wait((task,))
    finally:
        task.cancel()
        if task.done() and not task.cancelled():
            task.exception()  # looked at, so that nobody warns of it


@contextmanager
def _telling_why() -> Iterator[None]:
    """Take an error in JSON without the message that the library looks for, as a proxy may tell.

    It may also be no object at all. Only what was raised in the library itself is meant.
    """
    try:
        yield
    except (KeyError, TypeError) as error:
        *_, (raised_in, _) = traceback.walk_tb(error.__traceback__)
        if not str(raised_in.f_globals.get("__name__")).startswith("aiodocker."):
            raise
        raise ValueError("an error without a message") from error
