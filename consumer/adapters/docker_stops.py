"""Stops: the signal and the kill cost the engine and are bounded; the grace period is only waited.

A tenant may have a grace period of an hour. While it lasts nothing is held that another needs: no
place, no connection; whoever waits is looked for by one request for all of them. A stop that is
overtaken is left as it is, with its signal sent, and whoever stops the container next goes on with
the same grace period, or cuts it short.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractContextManager
from typing import Final

import structlog

from consumer.adapters.docker_client import DockerClient, Refused, see_through
from consumer.adapters.places import Places
from consumer.errors import ConsumerError, EngineError, EngineUnavailable
from consumer.model import Container, ContainerId, ContainerStatus, Reason

_log: Final = structlog.get_logger(__name__)

AT_REST: Final = frozenset({ContainerStatus.CREATED, ContainerStatus.EXITED, ContainerStatus.DEAD})
STOP: Final = "failed to stop container"
_MARGIN_SECONDS: Final = 15.0
_LOOK_SECONDS: Final = 0.2
_AT_ONCE_SECONDS: Final = 1.0
"""How long the engine is asked to say when it ends; most that heed the signal do so within this."""
_MOST_ASKED: Final = 64
"""Of how many at a time: each costs a connection. The others are looked for."""
_CHUNK: Final = 100
_PATIENCE_SECONDS: Final = 5.0

Inspect = Callable[[ContainerId], Awaitable[Container | None]]
ListAtRest = Callable[[Sequence[ContainerId]], Awaitable[set[ContainerId]]]
"""Returns which of these do not run, or are gone."""
Waiting = Callable[[], AbstractContextManager[None]]
"""Entered while a pass only waits for its own tenant."""


class Stops:
    """Stops containers of one engine; knows which have been sent their signal."""

    def __init__(
        self,
        client: DockerClient,
        *,
        inspect: Inspect,
        at_rest: ListAtRest,
        places: int,
        hurried_seconds: float,
        waiting: Waiting,
    ) -> None:
        self._client = client
        self._inspect = inspect
        # Apart: a hundred grace periods that end together, each with a kill, keep no other's signal
        # waiting. (Killed all at once, they held up another's start for ten seconds.)
        self._signals = Places(places, patience_seconds=_PATIENCE_SECONDS)
        self._kills = Places(places, patience_seconds=_PATIENCE_SECONDS)
        self._hurried_seconds = hurried_seconds
        self._waiting = waiting
        self._lookout = _Lookout(at_rest)
        self._deadlines: dict[ContainerId, float] = {}
        """Until when each that was sent its signal may take; by the loop's clock."""
        self._asked = 0

    def is_under_way(self, container_id: ContainerId) -> bool:
        """Whether the container was sent its signal, and has not been seen at rest since."""
        return container_id in self._deadlines

    def forget(self, container_id: ContainerId) -> None:
        """Know nothing of a stop any more: the container is gone, or was started."""
        self._deadlines.pop(container_id, None)

    async def stop(self, container: Container, *, is_hurried: bool) -> Container:
        """See `ports.Engine.stop`."""
        container_id = container.container_id
        deadline = self._deadlines.get(container_id)
        trouble = None
        if deadline is None:
            async with self._signals.taken():
                trouble = await see_through(self._signal(container))
        elif is_hurried:
            soon = asyncio.get_running_loop().time() + self._hurried_seconds
            self._deadlines[container_id] = min(deadline, soon)
        if trouble is None:
            with self._waiting():
                await self._wait(container_id)
        return await see_through(self._finish(container, trouble))

    async def _signal(self, container: Container) -> Refused | EngineUnavailable | None:
        loop = asyncio.get_running_loop()
        self._deadlines[container.container_id] = loop.time() + container.stop_grace_seconds
        try:
            async with self._client.asking("kill", _MARGIN_SECONDS, may_hang=True) as docker:
                # Not `stop`: that one holds a connection for the whole grace period, and some
                # engines kill at once when it is closed.
                handle = docker.containers.container(container.container_id)
                await handle.kill(signal=container.stop_signal)
        except (Refused, EngineUnavailable) as error:
            # It may not have got it: whoever stops it next sends it again.
            self.forget(container.container_id)
            return error
        return None

    async def _wait(self, container_id: ContainerId) -> None:
        """Return when the container has ended, or its time is over."""
        seconds = self._seconds_left(container_id)
        if self._asked < _MOST_ASKED and seconds > 0:
            self._asked += 1
            try:
                if await self._has_ended(container_id, min(seconds, _AT_ONCE_SECONDS)):
                    return
            finally:
                self._asked -= 1
        await self._lookout.wait(container_id, self._seconds_left(container_id))

    def _seconds_left(self, container_id: ContainerId) -> float:
        now = asyncio.get_running_loop().time()
        return self._deadlines.get(container_id, now) - now

    async def _has_ended(self, container_id: ContainerId, seconds: float) -> bool:
        """Ask the engine to say when it has; False when it does not say so in time."""
        try:
            with self._client.streaming("wait", seconds) as docker:
                async with asyncio.timeout(seconds):
                    handle = docker.containers.container(container_id)
                    await handle.wait(condition="not-running")
        except (Refused, EngineUnavailable):
            return False
        return True

    async def _finish(
        self, container: Container, trouble: Refused | EngineUnavailable | None
    ) -> Container:
        """Return the container at rest, killed if it is not yet."""
        container_id = container.container_id
        seen = await self._inspect(container_id)
        if seen is not None and seen.status not in AT_REST:
            async with self._kills.taken():
                trouble = await self._kill(container_id) or trouble
                seen = await self._await_rest(container_id)
        if seen is None:
            self.forget(container_id)
            raise EngineError(
                Reason.STOP_FAILED, f"{STOP}: {container.name} is gone", is_transient=True
            )
        if seen.status not in AT_REST:
            words = f"{STOP}: it is {seen.status.value} even so; {trouble or 'killed in vain'}"
            raise EngineError(Reason.STOP_FAILED, words, is_transient=True)
        self.forget(container_id)
        return seen

    async def _kill(self, container_id: ContainerId) -> Refused | None:
        try:
            async with self._client.asking("kill", _MARGIN_SECONDS, may_hang=True) as docker:
                await docker.containers.container(container_id).kill()
        except Refused as error:
            return error
        return None

    async def _await_rest(self, container_id: ContainerId) -> Container | None:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + _MARGIN_SECONDS
        while True:
            seen = await self._inspect(container_id)
            if seen is None or seen.status in AT_REST or loop.time() > deadline:
                return seen
            await asyncio.sleep(_LOOK_SECONDS)


class _Lookout:
    """Looks now and then which of those that are waited for have ended, all by one request."""

    def __init__(self, at_rest: ListAtRest) -> None:
        self._at_rest = at_rest
        self._awaited: dict[ContainerId, asyncio.Event] = {}
        self._looking: asyncio.Task[None] | None = None

    async def wait(self, container_id: ContainerId, seconds: float) -> None:
        """Return when the container has been seen at rest, or so many seconds are over."""
        ended = self._awaited.setdefault(container_id, asyncio.Event())
        if self._looking is None:
            self._looking = asyncio.create_task(self._look_on(), name="stops")
        try:
            async with asyncio.timeout(seconds):
                await ended.wait()
        except TimeoutError:
            pass
        finally:
            self._awaited.pop(container_id, None)

    async def _look_on(self) -> None:
        try:
            while self._awaited:
                await asyncio.sleep(_LOOK_SECONDS)
                awaited = list(self._awaited)
                for start in range(0, len(awaited), _CHUNK):
                    await self._look(awaited[start : start + _CHUNK])
        finally:
            self._looking = None

    async def _look(self, container_ids: Sequence[ContainerId]) -> None:
        try:
            ended = await self._at_rest(container_ids)
        except ConsumerError as error:
            # Unknown is not stopped: whoever waits goes on, and its deadline stands.
            _log.debug("stops not looked at", error=str(error))
            return
        for container_id in ended:
            event = self._awaited.get(container_id)
            if event is not None:
                event.set()
