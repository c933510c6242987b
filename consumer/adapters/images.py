"""Pulls: an image is here when inspecting it says so, and not before.

Equal pulls (same reference, same credentials) are one; how many run at a time is bounded, and who
does not move steps aside (see `pulls`), sooner where others wait. A pull has no total deadline,
only one for its first sign of progress, and one for moving on: signs without progress are none. The
progress stream can carry an error inside a success, and can end early without one; so the engine is
asked for the image afterwards, whatever the stream said.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager, asynccontextmanager, nullcontext
from dataclasses import dataclass
from typing import Final

import structlog
from aiodocker import Docker, DockerError
from aiodocker.jsonstream import json_stream_stream
from aiodocker.utils import compose_auth_header

from consumer.adapters.docker_client import DockerClient, Refused, as_refused
from consumer.adapters.docker_inherited import Inherited, inherited
from consumer.adapters.pull_words import engine_words
from consumer.adapters.pulls import Pace, Progress, PullLimits, PullPlaces, Ticket
from consumer.adapters.registries import Credentials, FindCredentials, LoginError
from consumer.errors import EngineError
from consumer.image_reference import ImageReference, parse_image
from consumer.model import Reason

_log: Final = structlog.get_logger(__name__)

_NOT_FOUND: Final = 404
_OF_REGISTRY: Final = frozenset({502, 503, 504})
"""Elsewhere they say that the engine is away; here, that the registry is."""
_PHRASE: Final = "failed to pull image"
_MOST_STEP_SECONDS: Final = 1.0
"""Between two looks at how far a pull has come."""


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
        is_reserved: Callable[[str], bool],
        waiting: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        self._client = client
        self._credentials = credentials
        self._limits = limits
        self._observe_pull = observe_pull
        self._waiting = waiting
        self._places = PullPlaces(limits, now=time.monotonic)
        self._is_reserved = is_reserved
        self._brought: dict[str, Inherited] = {}
        """Of the images that were found last; those that bring in nothing are left out."""
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
                shown = await docker.images.inspect(image)
        except Refused as error:
            if error.status == _NOT_FOUND:
                return False
            message = f"{_PHRASE} {image}: Error response from daemon: {error.message}"
            raise EngineError(Reason.IMAGE_PULL_FAILED, message, is_transient=True) from error
        self._brought.pop(image, None)
        brought = inherited(shown, self._is_reserved)
        if brought != Inherited():
            self._brought[image] = brought
        return True

    def brought_by(self, image: str) -> Inherited:
        """Return what the image, as it was found last, would bring in and may not."""
        return self._brought.get(image, Inherited())

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
            with self._waiting():
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
        ticket = await self._places.enter(reference.registry)
        try:
            began = time.perf_counter()
            _log.info("pulling", image=image)
            try:
                why_not = await self._follow(image, reference, credentials, ticket)
            except Refused as error:
                raise _pull_failure(image, error) from None
            # Also after a silence: an engine that is away is another matter than a slow registry.
            if not await self._is_there(image):
                message = f"{_PHRASE} {image}: {why_not}"
                raise EngineError(Reason.IMAGE_PULL_FAILED, message, is_transient=True)
            seconds = time.perf_counter() - began
            self._observe_pull(seconds)
            _log.info("pulled", image=image, seconds=round(seconds, 3))
        finally:
            self._places.leave(ticket)

    async def _follow(
        self,
        image: str,
        reference: ImageReference,
        credentials: Credentials | None,
        ticket: Ticket,
    ) -> str:
        """Follow the engine's progress to its end; say why the image is not there if it is not."""
        loop = asyncio.get_running_loop()
        course = _Course(Progress(image, now=loop.time), ticket, self._limits, loop.time())
        try:
            async with asyncio.timeout(None) as deadline:
                pacing = asyncio.create_task(
                    self._keep_pace(course, deadline), name=f"pace of {image}"
                )
                try:
                    with self._client.streaming("pull", self._limits.first_sign_seconds) as docker:
                        async with _asked_for(docker, reference, credentials) as progress:
                            async for sign in progress:
                                course.note(sign)
                finally:
                    pacing.cancel()
        except TimeoutError:
            return course.why_not
        if not course.has_lagged:
            self._places.forget_slow(reference.registry)
        return "the transfer broke off, the image is not there"

    async def _keep_pace(self, course: "_Course", deadline: asyncio.Timeout) -> None:
        """Have a pull that does not move step aside, and end it when it has not for too long."""
        loop = asyncio.get_running_loop()
        limits = self._limits
        soonest = min(limits.patience_seconds / 4, limits.awaited_patience_seconds / 2)
        step = min(_MOST_STEP_SECONDS, soonest)
        while not course.is_over(loop.time()):
            if not self._has_room(course, loop.time()):
                course.why_not += ", and others that do not move either leave it no room"
                break
            await asyncio.sleep(step)
        deadline.reschedule(loop.time())

    def _has_room(self, course: "_Course", now: float) -> bool:
        """Have it step aside if it is in the way; False when it is, and there is no room aside."""
        places, ticket = self._places, course.ticket
        if course.lags(now):
            is_slow = not course.is_unpacking
            if not ticket.is_aside:
                return places.step_aside(ticket, is_registry_slow=is_slow)
            if is_slow:
                places.remember_slow(ticket.registry)
        elif not ticket.is_aside and places.is_awaited and course.rests(now):
            places.step_aside(ticket, is_registry_slow=False)
        return True


class _Course:
    """What becomes of one pull: how far it has come, measured by what is asked of it."""

    def __init__(self, progress: Progress, ticket: Ticket, limits: PullLimits, now: float) -> None:
        self.ticket = ticket
        self.has_lagged = False
        """Whether its registry kept it waiting for long at any time."""
        self.why_not = ""
        self._progress = progress
        self._limits = limits
        self._has_sign = False
        self._fair = Pace(progress, limits.fair_bytes_per_second, now=now)
        self._least = Pace(progress, limits.least_bytes_per_second, now=now)

    @property
    def is_unpacking(self) -> bool:
        """Whether the engine is at work on what has come."""
        return self._progress.is_unpacking

    def note(self, sign: dict[str, object]) -> None:
        """Take in one line of the engine's progress."""
        self._has_sign = True
        self._progress.note(sign)

    def rests(self, now: float) -> bool:
        """Whether it has not moved for as long as others may be kept waiting for its place."""
        behind = self._fair.seconds_behind(now)
        return behind >= self._limits.awaited_patience_seconds and not self.is_unpacking

    def lags(self, now: float) -> bool:
        """Whether it has not moved for longer than anyone may hold a place so."""
        limits = self._limits
        patience = (
            limits.extraction_patience_seconds if self.is_unpacking else limits.patience_seconds
        )
        behind = self._fair.seconds_behind(now)
        if behind < patience:
            return False
        self.has_lagged = self.has_lagged or not self.is_unpacking
        self.why_not = f"no progress for {behind:.3g} s"
        return True

    def is_over(self, now: float) -> bool:
        """Whether it is to be given up."""
        limits = self._limits
        most = limits.extraction_seconds if self.is_unpacking else limits.idle_seconds
        if not self._has_sign:
            most = limits.first_sign_seconds
        behind = self._least.seconds_behind(now)
        if behind < most:
            return False
        self.why_not = f"no progress for {most:g} s"
        return True


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
    try:
        response = await docker._do_query(  # noqa: SLF001 - see above
            "images/create", "POST", params=params, headers=headers
        )
    except DockerError as error:
        if error.status in _OF_REGISTRY:
            raise as_refused(error.status, error.message) from None
        raise
    try:
        yield json_stream_stream(response)
    finally:
        response.close()


def _pull_failure(image: str, error: Refused) -> EngineError:
    """Return what the refusal of a pull means.

    An engine answers nearly every failure of a registry with status 500, so its words decide here:
    the one place where they do.
    """
    text = error.message.lower()
    words = f"{_PHRASE} {image}: Error response from daemon: {engine_words(error.message)}"
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
