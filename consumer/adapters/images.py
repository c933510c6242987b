"""Pulls: an image is here when inspecting it says so, and not before.

Equal pulls (same reference, same credentials) are one; how many run at a time is bounded. A pull
has no total deadline, only one for its first sign of progress and one between signs. The progress
stream can carry an error inside a success, and can end early without one; so the engine is asked
for the image afterwards, whatever the stream said.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Final

import structlog

from consumer.adapters.docker_client import DockerClient, Refused
from consumer.errors import EngineError
from consumer.image_reference import ImageReference, parse_image
from consumer.model import Reason

_log: Final = structlog.get_logger(__name__)

_NOT_FOUND: Final = 404
_PHRASE: Final = "failed to pull image"


@dataclass(frozen=True, slots=True)
class Credentials:
    """A login at a registry."""

    username: str
    password: str = field(repr=False)


FindCredentials = Callable[[str], Credentials | None]
"""Given the registry's host (and port), returns the login to use there, if any."""


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
        credentials = self._credentials(reference.registry)
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
                await self._follow(reference, credentials)
            except Refused as error:
                raise _failure(image, error) from error
            if not await self._is_there(image):
                message = f"{_PHRASE} {image}: the transfer broke off, the image is not there"
                raise EngineError(Reason.IMAGE_PULL_FAILED, message, is_transient=True)
            seconds = time.perf_counter() - began
            self._observe_pull(seconds)
            _log.info("pulled", image=image, seconds=round(seconds, 3))

    async def _follow(self, reference: ImageReference, credentials: Credentials | None) -> None:
        """Follow the engine's progress to its end."""
        limits = self._limits
        auth = None
        if credentials is not None:
            auth = {"username": credentials.username, "password": credentials.password}
        # The registry always in front: the library takes the first part for it once there is a
        # login. A digest stays with the name.
        name = f"{reference.name}@{reference.digest}" if reference.digest else reference.name
        tag = None if reference.digest else reference.tag
        with self._client.streaming("pull", limits.first_sign_seconds) as docker:
            progress = docker.images.pull(name, tag=tag, auth=auth, stream=True)
            async with asyncio.timeout(limits.first_sign_seconds):
                more = await _advance(progress)
        with self._client.streaming("pull", limits.idle_seconds):
            while more:
                async with asyncio.timeout(limits.idle_seconds):
                    more = await _advance(progress)


async def _advance(progress: AsyncIterator[dict[str, object]]) -> bool:
    """Take the next sign of progress; return whether there was one."""
    async for sign in progress:
        _log.debug("pull progress", status=sign.get("status"), layer=sign.get("id"))
        return True
    return False


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
