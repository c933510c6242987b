"""The product as a real process, with names of its own on broker and engine.

Nothing of the surroundings leaks in: settings come by environment variables alone, and everything
that is made on broker and engine begins with one unique prefix, so that it can be found and taken
away again. What the process logs is kept, for the tests and for whoever reads a failure.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from uuid import uuid4

import aiohttp
from prometheus_client.parser import text_string_to_metric_families

import consumer

_ROOT: Final = Path(consumer.__file__).parents[1]
_LOOK_SECONDS: Final = 0.05
_REQUEST_SECONDS: Final = 10.0


@dataclass(frozen=True, slots=True)
class Names:
    """What one consumer calls its things; all begin with the prefix."""

    prefix: str = field(default_factory=lambda: f"ll-{uuid4().hex[:8]}")

    @property
    def tenant_exchange(self) -> str:
        return f"{self.prefix}.tenants"

    @property
    def queue(self) -> str:
        return f"{self.prefix}.consumer"

    @property
    def status_exchange(self) -> str:
        return f"{self.prefix}.status"

    @property
    def dead_letter(self) -> str:
        return f"{self.prefix}.dead-letter"

    def container(self, tenant_id: str) -> str:
        """Return the container name of the tenant."""
        return f"{self.prefix}-tenant-{tenant_id}"


def free_port() -> int:
    """Return a TCP port that nobody listens on at the moment."""
    with socket.socket() as probe:
        probe.bind(("0.0.0.0", 0))
        return int(probe.getsockname()[1])


class ConsumerProcess:
    """One consumer, `python -m consumer run`."""

    def __init__(
        self,
        *,
        names: Names,
        broker_url: str,
        docker_host: str,
        folder: Path,
        settings: Mapping[str, str] | None = None,
    ) -> None:
        self.names = names
        self.http_port = free_port()
        self._folder = folder
        self._log_path = folder / "consumer.log"
        self._log_path.touch()
        self._process: subprocess.Popen[bytes] | None = None
        own = {
            "BROKER__URL": broker_url,
            "BROKER__TENANT_EXCHANGE": names.tenant_exchange,
            "BROKER__QUEUE": names.queue,
            "BROKER__STATUS_EXCHANGE": names.status_exchange,
            "BROKER__DEAD_LETTER": names.dead_letter,
            "COMPUTE__DOCKER__HOST": docker_host,
            "COMPUTE__DOCKER__LABEL_PREFIX": names.prefix,
            "INSTANCE": names.prefix,
            "LEDGER__URL": f"sqlite:///{folder / 'landlord.db'}",
            "HTTP__HOST": "127.0.0.1",
            "HTTP__PORT": str(self.http_port),
            "LOG__FORMAT": "json",
        }
        chosen = own | dict(settings or {})
        self._environment = _bare_environment() | {
            f"LANDLORD_{key}": value for key, value in chosen.items()
        }

    # --- its life

    def start(self, *, timeout: float = 30.0) -> None:
        """Start it and wait until it says that it is ready."""
        assert not self.is_running, "it runs already"
        begin = self.log_size
        with self._log_path.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "consumer", "run"],
                cwd=self._folder,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        try:
            self.wait_for_log("ready", timeout=timeout, begin=begin)
        except AssertionError:
            self.kill()
            raise

    def kill(self) -> None:
        """End it at once (SIGKILL); nothing happens when it does not run."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(10)

    def terminate(self, *, timeout: float = 30.0) -> int:
        """Ask it to stop (SIGTERM) and return its exit code."""
        assert self._process is not None, "it was never started"
        self._process.send_signal(signal.SIGTERM)
        return self._process.wait(timeout)

    def restart(self, *, timeout: float = 30.0) -> None:
        """Start it again on the same ledger; end it first, by force, if it still runs."""
        self.kill()
        self.start(timeout=timeout)

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    # --- what it says

    @property
    def log_size(self) -> int:
        """How much was logged up to now, to be given as `begin`."""
        return self._log_path.stat().st_size

    def log_text(self, *, begin: int = 0) -> str:
        """Return what was logged since `begin`."""
        with self._log_path.open("rb") as log:
            log.seek(begin)
            return log.read().decode(errors="replace")

    def log_lines(self, *, begin: int = 0) -> list[dict[str, object]]:
        """Return the log since `begin`, one object for each line; what is no JSON as `text`."""
        return [_parse(line) for line in self.log_text(begin=begin).splitlines()]

    def wait_for_log(self, event: str, *, timeout: float, begin: int = 0) -> dict[str, object]:
        """Return the first line with this event since `begin`; fail when the process ends."""
        deadline = time.monotonic() + timeout
        while True:
            for line in self.log_lines(begin=begin):
                if line.get("event") == event:
                    return line
            log = self.log_text(begin=begin)
            assert self.is_running, f"the consumer ended before {event!r}:\n{log}"
            assert time.monotonic() < deadline, f"no {event!r} within {timeout} s:\n{log}"
            time.sleep(_LOOK_SECONDS)

    # --- what it answers

    async def http_get(self, path: str, **headers: str) -> tuple[int, str]:
        """Return status code and body of a GET."""
        return await get(f"http://127.0.0.1:{self.http_port}{path}", **headers)

    async def status(self, tenant_id: str) -> dict[str, object]:
        """Return the tenant's status as the HTTP API tells it."""
        code, body = await self.http_get(f"/tenants/{tenant_id}/compute/status")
        assert code == 200, body
        document: dict[str, object] = json.loads(body)
        return document

    async def metrics(self) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
        """Return every sample by name and sorted labels."""
        code, body = await self.http_get("/metrics")
        assert code == 200, body
        return {
            (sample.name, tuple(sorted(sample.labels.items()))): sample.value
            for family in text_string_to_metric_families(body)
            for sample in family.samples
        }

    async def metric(self, name: str, **labels: str) -> float:
        """Return one sample."""
        return (await self.metrics())[name, tuple(sorted(labels.items()))]


async def get(url: str, **headers: str) -> tuple[int, str]:
    """Return status code and body of a GET."""
    timeout = aiohttp.ClientTimeout(total=_REQUEST_SECONDS)
    async with (
        aiohttp.ClientSession(timeout=timeout) as session,
        session.get(url, headers=headers) as response,
    ):
        return response.status, await response.text()


def _bare_environment() -> dict[str, str]:
    inherited = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("LANDLORD_", "DOCKER_"))
    }
    return inherited | {"PYTHONPATH": str(_ROOT), "PYTHONUNBUFFERED": "1"}


def _parse(line: str) -> dict[str, object]:
    try:
        document = json.loads(line)
    except ValueError:
        return {"text": line}
    return document if isinstance(document, dict) else {"text": line}
