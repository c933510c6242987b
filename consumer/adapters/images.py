"""Pulls: an image is here when inspecting it says so, and not before.

Equal pulls (same reference, same credentials) are one; how many run at a time is bounded. A pull
has no total deadline, only one for its first sign of progress and one between signs. The progress
stream can carry an error inside a success, and can end early without one; so the engine is asked
for the image afterwards, whatever the stream said.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

import structlog
from aiodocker import Docker
from aiodocker.jsonstream import json_stream_stream
from aiodocker.utils import compose_auth_header

from consumer.adapters.docker_client import DockerClient, Refused
from consumer.adapters.registries import Credentials, FindCredentials, LoginError
from consumer.errors import EngineError
from consumer.image_reference import ImageReference, parse_image
from consumer.model import Reason

_log: Final = structlog.get_logger(__name__)

_NOT_FOUND: Final = 404
_PHRASE: Final = "failed to pull image"
_TELL_SECONDS: Final = 10.0
_MEGABYTE: Final = 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class PullLimits:
    """How many pulls at a time, and how long (seconds) one may show no progress."""

    pulls: int = 3
    first_sign_seconds: float = 120.0
    idle_seconds: float = 300.0
    inspect_seconds: float = 30.0


@dataclass(slots=True)
class _Pull:
    """A pull that is going on, and how many wait for it."""

    task: "asyncio.Task[None]"
    waiters: int = 0


class Progress:
    """How far a pull has come, told in the log every ten seconds."""

    def __init__(self, image: str, *, now: Callable[[], float]) -> None:
        self._image = image
        self._now = now
        self._told_at = now()
        self._layers: dict[object, tuple[int, int]] = {}

    def note(self, sign: Mapping[str, object]) -> None:
        """Take in one line of the engine's progress; one without numbers says that it goes on."""
        detail = sign.get("progressDetail")
        if sign.get("status") == "Downloading" and isinstance(detail, Mapping):
            current, total = detail.get("current"), detail.get("total")
            if isinstance(current, int) and isinstance(total, int):
                self._layers[sign.get("id")] = (current, total)
        if self._now() - self._told_at < _TELL_SECONDS:
            return
        self._told_at = self._now()
        done, whole = (sum(sizes) for sizes in zip((0, 0), *self._layers.values(), strict=True))
        _log.info(
            "pull progress",
            image=self._image,
            megabytes=round(done / _MEGABYTE, 1),
            of_megabytes=round(whole / _MEGABYTE, 1),
        )


class Images:
    """Sees to it that images are on the engine's host."""

    def __init__(
        self,
        client: DockerClient,
        *,
        credentials: FindCredentials,
        limits: PullLimits,
        observe_pull: Callable[[float], None],
    ) -> None:
        self._client = client
        self._credentials = credentials
        self._limits = limits
        self._observe_pull = observe_pull
        self._slots = asyncio.Semaphore(limits.pulls)
        self._pulls: dict[tuple[str, str], _Pull] = {}

    async def ensure(self, image: str, pull_policy: str) -> None:
        """Return when the image is there. Cancelling it stops waiting at once.

        `pull_policy` is `if_not_present`, `always` or `never`. Raises EngineError image_not_found,
        image_pull_denied or image_pull_failed.
        """
        if pull_policy != "always" and await self._is_there(image):
            return
        if pull_policy == "never":
            message = f"{_PHRASE} {image}: it is not there, and pull_policy is never"
            raise EngineError(Reason.IMAGE_NOT_FOUND, message, is_transient=True)
        await self._join_pull(image)

    async def _is_there(self, image: str) -> bool:
        try:
            async with self._client.asking("image inspect", self._limits.inspect_seconds) as docker:
                await docker.images.inspect(image)
        except Refused as error:
            if error.status == _NOT_FOUND:
                return False
            raise _failure(image, error) from error
        return True

    async def _join_pull(self, image: str) -> None:
        """Wait for the pull of this image, starting it if nobody has; the last to go ends it."""
        reference = parse_image(image)
        credentials = self._login(image, reference.registry)
        key = (str(reference), credentials.username if credentials else "")
        pull = self._pulls.get(key)
        if pull is None:
            task = asyncio.create_task(
                self._pull(image, reference, credentials), name=f"pull {image}"
            )
            pull = self._pulls[key] = _Pull(task)
            task.add_done_callback(lambda done: self._forget(key, done))
        pull.waiters += 1
        try:
            await asyncio.shield(pull.task)
        finally:
            pull.waiters -= 1
            if pull.waiters == 0 and not pull.task.done():
                pull.task.cancel()
                # Whoever comes now starts a new one instead of joining one that is ending.
                self._pulls.pop(key, None)

    def _login(self, image: str, registry: str) -> Credentials | None:
        try:
            return self._credentials(registry)
        except LoginError as error:
            message = f"{_PHRASE} {image}: {error}"
            raise EngineError(Reason.IMAGE_PULL_DENIED, message, is_transient=True) from error

    def _forget(self, key: tuple[str, str], done: "asyncio.Task[None]") -> None:
        pull = self._pulls.get(key)
        if pull is not None and pull.task is done:
            del self._pulls[key]
        if not done.cancelled():
            done.exception()  # looked at: every waiter may have gone

    async def _pull(
        self, image: str, reference: ImageReference, credentials: Credentials | None
    ) -> None:
        async with self._slots:
            began = time.perf_counter()
            _log.info("pulling", image=image)
            try:
                why_not = await self._follow(image, reference, credentials)
            except Refused as error:
                raise _failure(image, error) from error
            # Also after a silence: an engine that is away is another matter than a slow registry.
            if not await self._is_there(image):
                message = f"{_PHRASE} {image}: {why_not}"
                raise EngineError(Reason.IMAGE_PULL_FAILED, message, is_transient=True)
            seconds = time.perf_counter() - began
            self._observe_pull(seconds)
            _log.info("pulled", image=image, seconds=round(seconds, 3))

    async def _follow(
        self, image: str, reference: ImageReference, credentials: Credentials | None
    ) -> str:
        """Follow the engine's progress to its end; say why the image is not there if it is not."""
        loop = asyncio.get_running_loop()
        told = Progress(image, now=loop.time)
        seconds = self._limits.first_sign_seconds
        try:
            async with asyncio.timeout(seconds) as deadline:
                with self._client.streaming("pull", seconds) as docker:
                    async with _asked_for(docker, reference, credentials) as progress:
                        async for sign in progress:
                            told.note(sign)
                            seconds = self._limits.idle_seconds
                            deadline.reschedule(loop.time() + seconds)
        except TimeoutError:
            return f"no progress for {seconds:g} s"
        return "the transfer broke off, the image is not there"


@asynccontextmanager
async def _asked_for(
    docker: Docker, reference: ImageReference, credentials: Credentials | None
) -> AsyncIterator[AsyncIterator[dict[str, object]]]:
    """Ask the engine for the image; give its progress. On leaving, the engine lets go of it.

    Not by the library's `pull`: that one leaves the connection open when nobody reads on, and the
    engine then goes on with the transfer.
    """
    params = {"fromImage": reference.name}
    if reference.digest:
        params["fromImage"] += f"@{reference.digest}"
    elif reference.tag:
        params["tag"] = reference.tag
    headers = {}
    if credentials is not None:
        login = {"username": credentials.username, "password": credentials.password}
        headers["X-Registry-Auth"] = compose_auth_header(login, reference.registry)
    response = await docker._do_query(  # noqa: SLF001 - see above
        "images/create", "POST", params=params, headers=headers
    )
    try:
        yield json_stream_stream(response)
    finally:
        response.close()


def _failure(image: str, error: Refused) -> EngineError:
    """Return what the refusal of a pull means.

    An engine answers nearly every failure of a registry with status 500, so its words decide here:
    the one place where they do.
    """
    text = error.message.lower()
    words = f"{_PHRASE} {image}: Error response from daemon: {error.message}"
    for marks, reason in _FAILURES:
        if any(mark in text for mark in marks):
            return EngineError(reason, words, is_transient=True)
    if error.status == _NOT_FOUND:
        return EngineError(Reason.IMAGE_NOT_FOUND, words, is_transient=True)
    return EngineError(Reason.IMAGE_PULL_FAILED, words, is_transient=True)


_FAILURES: Final = (
    (("toomanyrequests", "too many requests"), Reason.IMAGE_PULL_FAILED),
    (
        ("unauthorized", "access denied", "denied: ", "authentication required", "no basic auth"),
        Reason.IMAGE_PULL_DENIED,
    ),
    (
        ("manifest unknown", "name unknown", "not found", "no such image", "no matching manifest"),
        Reason.IMAGE_NOT_FOUND,
    ),
)
