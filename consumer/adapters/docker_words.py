"""What a container said last: the end of its log, or what its failing health check wrote.

For people who look for the cause of a failure. Values of its environment and its secrets are taken
out (`redaction` names the forms they are found in), by a thread, one container at a time: the work
is bounded, and is nobody else's wait. Where nothing can be read (a log driver without a way back),
or there is more to take out than can be looked for, it is silent.
"""

import asyncio
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final

from consumer.adapters.docker_client import DockerClient, Refused
from consumer.adapters.docker_secrets import Secrets
from consumer.adapters.redaction import PIECE, as_plain_text, forms_of, redact
from consumer.errors import EngineError
from consumer.model import Container, ContainerStatus, Health

_SECONDS: Final = 5.0
_LINE_BYTES: Final = 24 * 1024
"""More than a line has: the engine cuts longer ones into pieces of 16 KiB."""
_MOST_OUTPUT_BYTES: Final = 4096
"""The engine keeps so much of what a health check writes, and cuts off the rest."""
_SHARE_READ: Final = 2
"""So much more than is told is gone over, because it becomes shorter without its values."""
_FRAME_HEADER: Final = 8
_EARLIER_SECONDS: Final = 2.0
"""The engine notes the time of a start when it is done; the program may have spoken before."""


@dataclass(frozen=True, slots=True)
class _Extent:
    """How much is read, and how much of that is told."""

    lines: int
    most_told_bytes: int


_WORDS: Final = _Extent(lines=20, most_told_bytes=2048)
_TAIL: Final = _Extent(lines=60, most_told_bytes=16 * 1024)


class LastWords:
    """Reads what containers said last."""

    def __init__(self, client: DockerClient, secrets: Secrets) -> None:
        self._client = client
        self._secrets = secrets
        # One thread: whoever waits no longer leaves his turn to the next, never a second at work.
        self._redacting = ThreadPoolExecutor(max_workers=1, thread_name_prefix="redaction")

    async def of(self, container: Container, shown: Mapping[str, object]) -> str:
        """Return at most 2 KiB of the container's last words; `shown` is what inspect shows of it.

        Raises EngineUnavailable.
        """
        is_checked = container.health in (Health.UNHEALTHY, Health.STARTING)
        is_up = container.status is ContainerStatus.RUNNING
        if is_up and is_checked:
            said = _health_output(shown)
        else:
            # Of one that is up again, the run before is what is asked about.
            said = await self._log(container, _WORDS, is_of_this_run=not is_up)
        return await self._without_secrets(container, shown, said, _WORDS)

    async def tail(self, container: Container, shown: Mapping[str, object]) -> str:
        """Return at most 16 KiB of the end of the container's log, whatever its state.

        Raises EngineUnavailable.
        """
        # A run before this one may have told a secret that is known no more.
        said = await self._log(container, _TAIL, is_of_this_run=bool(container.secrets))
        return await self._without_secrets(container, shown, said, _TAIL)

    async def _without_secrets(
        self, container: Container, shown: Mapping[str, object], said: str, extent: _Extent
    ) -> str:
        if not said.strip():
            return ""
        secrets = await self._secret_values(container)
        if secrets is None:
            return ""
        values = [*_env_values(shown), *secrets]
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(
            self._redacting, _tell, said, values, extent.most_told_bytes
        )

    async def _log(self, container: Container, extent: _Extent, *, is_of_this_run: bool) -> str:
        """Return the last whole lines, of the last run alone or of those before it too."""
        params = {"stdout": "1", "stderr": "1", "tail": str(extent.lines)}
        if is_of_this_run and container.started_at is not None:
            params["since"] = f"{container.started_at.timestamp() - _EARLIER_SECONDS:.3f}"
        most_bytes = extent.lines * _LINE_BYTES
        path = f"containers/{container.container_id}/logs"
        try:
            raw = await self._client.read_some(
                "logs", path, params, seconds=_SECONDS, most_bytes=most_bytes
            )
        except Refused:
            return ""  # its log driver has no way back
        return await asyncio.to_thread(_lines, raw, extent.lines, is_cut=len(raw) >= most_bytes)

    async def _secret_values(self, container: Container) -> list[str] | None:
        """Return the secrets as it was given them and as they are now; None if one is not known.

        What is not known cannot be taken out, and so nothing may be told.
        """
        held = await self._secrets.held_by(container)
        try:
            given = await self._secrets.read(container.tenant_id, container.secrets)
        except EngineError:
            given = {}  # it is gone, or another was put in its place
        if not held.keys() | given.keys() >= set(container.secrets):
            return None
        contents = [*held.values(), *given.values()]
        return [content.decode(errors="replace") for content in contents]


def _tell(said: str, values: list[str], most_bytes: int) -> str:
    """Return the end of what was said, without the values; nothing where they are too many."""
    forms = forms_of(values)
    if forms is None:
        return ""
    most_told = _SHARE_READ * most_bytes
    near = said.rstrip()[-(most_told + PIECE) :]
    return _end_of(redact(near, forms, most_told=most_told).strip(), most_bytes)


def _lines(raw: bytes, most_lines: int, *, is_cut: bool) -> str:
    """Return the whole lines of what the engine gave of a log."""
    frames = _frames(raw)
    text = as_plain_text(b"".join(frames))
    if is_cut:
        text = _without_last_line(text)
    # The first may be the end of a longer line, and begin within a value.
    return text.partition("\n")[2] if len(frames) >= most_lines else text


def _frames(raw: bytes) -> list[bytes]:
    """Return the payloads of the engine's stream: eight bytes, the last four of them the length."""
    frames, at = [], 0
    while len(raw) - at > _FRAME_HEADER:
        length = int.from_bytes(raw[at + 4 : at + _FRAME_HEADER], "big")
        at += _FRAME_HEADER
        frames.append(raw[at : at + length])
        at += length
    return frames


def _health_output(shown: Mapping[str, object]) -> str:
    state = shown.get("State")
    health = state.get("Health") if isinstance(state, Mapping) else None
    log = health.get("Log") if isinstance(health, Mapping) else None
    last = log[-1] if isinstance(log, list) and log else None
    output = str((last.get("Output") if isinstance(last, Mapping) else None) or "").encode()
    text = as_plain_text(output)
    return _without_last_line(text) if len(output) >= _MOST_OUTPUT_BYTES else text


def _without_last_line(text: str) -> str:
    """Return the text without a line that was cut off: it may end within a value."""
    return text.rpartition("\n")[0]


def _env_values(shown: Mapping[str, object]) -> list[str]:
    config = shown.get("Config")
    env = config.get("Env") if isinstance(config, Mapping) else None
    return [str(line).partition("=")[2] for line in env] if isinstance(env, list) else []


def _end_of(text: str, most_bytes: int) -> str:
    """Return the end of the text, in whole characters."""
    return text.encode()[-most_bytes:].decode(errors="ignore")
