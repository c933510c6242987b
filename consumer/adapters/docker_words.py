"""What a container said last: the end of its log, or what its failing health check wrote.

For people who look for the cause of a failure. Values of its environment and its secrets are taken
out. Where nothing can be read (a log driver without a way back), it is silent.
"""

from collections.abc import Mapping
from typing import Final

from consumer.adapters.docker_client import DockerClient, Refused
from consumer.adapters.docker_secrets import Secrets
from consumer.adapters.redaction import as_plain_text, redact
from consumer.errors import EngineError
from consumer.model import Container, ContainerStatus, Health

_SECONDS: Final = 5.0
_LINES: Final = 20
_MOST_BYTES: Final = 512 * 1024
"""More than so many lines have; the engine cuts longer ones into pieces of 16 KiB."""
_MOST_TOLD_BYTES: Final = 2048
_FRAME_HEADER: Final = 8
_EARLIER_SECONDS: Final = 2.0
"""The engine notes the time of a start when it is done; the program may have spoken before."""


class LastWords:
    """Reads what containers said last."""

    def __init__(self, client: DockerClient, secrets: Secrets) -> None:
        self._client = client
        self._secrets = secrets

    async def of(self, container: Container, shown: Mapping[str, object]) -> str:
        """Return at most 2 KiB of the container's last words; `shown` is what inspect shows of it.

        Raises EngineUnavailable.
        """
        is_checked = container.health in (Health.UNHEALTHY, Health.STARTING)
        is_up = container.status is ContainerStatus.RUNNING
        said = _health_output(shown) if is_up and is_checked else await self._log(container)
        if not said.strip():
            return ""
        values = [*_env_values(shown), *await self._secret_values(container)]
        return _end_of(redact(said, values).strip())

    async def _log(self, container: Container) -> str:
        """Return the last whole lines of the run that ended last."""
        params = {"stdout": "1", "stderr": "1", "tail": str(_LINES)}
        # Of one that is up again, the run before is what is asked about.
        if container.started_at is not None and container.status is not ContainerStatus.RUNNING:
            params["since"] = f"{container.started_at.timestamp() - _EARLIER_SECONDS:.3f}"
        path = f"containers/{container.container_id}/logs"
        try:
            raw = await self._client.read_some(
                "logs", path, params, seconds=_SECONDS, most_bytes=_MOST_BYTES
            )
        except Refused:
            return ""  # its log driver has no way back
        frames = _frames(raw)
        text = as_plain_text(b"".join(frames))
        # The first may be the end of a longer line, and begin within a value.
        return text.partition("\n")[2] if len(frames) >= _LINES else text

    async def _secret_values(self, container: Container) -> list[str]:
        """Return the secrets as they are now; those that cannot be read are not known here."""
        values = []
        for name in container.secrets:
            try:
                contents = await self._secrets.read(container.tenant_id, (name,))
            except EngineError:
                continue
            values += [content.decode(errors="replace") for content in contents.values()]
        return values


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
    output = last.get("Output") if isinstance(last, Mapping) else None
    return as_plain_text(str(output or "").encode(errors="replace"))


def _env_values(shown: Mapping[str, object]) -> list[str]:
    config = shown.get("Config")
    env = config.get("Env") if isinstance(config, Mapping) else None
    return [str(line).partition("=")[2] for line in env] if isinstance(env, list) else []


def _end_of(text: str) -> str:
    """Return the end of the text, in whole characters."""
    return text.encode()[-_MOST_TOLD_BYTES:].decode(errors="ignore")
