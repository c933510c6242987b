"""The product as a real process, with names of its own on broker and engine.

Nothing of the surroundings leaks in: settings come by environment variables alone, and everything
that is made on broker and engine begins with one unique prefix, so that it can be found and taken
away again. What the process logs is kept, for the tests and for whoever reads a failure.
"""

import json
import os
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import aiohttp
from prometheus_client.parser import text_string_to_metric_families

from deploy.lab.daemon import Daemon
from deploy.lab.names import Names
from deploy.lab.servers import free_port

_LOOK_SECONDS: Final = 0.05
_REQUEST_SECONDS: Final = 10.0


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
        command: Sequence[str] = (sys.executable, "-m", "consumer"),
    ) -> None:
        self.names = names
        self.http_port = free_port()
        self._log_path = folder / "consumer.log"
        self._log_path.touch()
        self._log_begin = 0
        self._awaited = "ready"
        own = names.environment(
            broker_url=broker_url, docker_host=docker_host, folder=folder, http_port=self.http_port
        )
        chosen = {f"LANDLORD_{key}": value for key, value in (settings or {}).items()}
        self.daemon = Daemon(
            "landlord-consumer",
            (*command, "run"),
            # The session's environment was scrubbed of our settings by then.
            environment={**os.environ, **own, **chosen, "PYTHONUNBUFFERED": "1"},
            log=self._log_path,
            is_ready=self._says_ready,
            folder=folder,
        )

    # --- its life

    def start(self, *, timeout: float = 60.0, until: str = "ready") -> None:
        """Start it and wait until it logs this event. Raises LabError when it does not."""
        assert not self.is_running, "it runs already"
        self._awaited = until
        self._log_begin = self.log_size
        self.daemon.start(seconds=timeout)

    def kill(self) -> None:
        """End it at once (SIGKILL); nothing happens when it does not run."""
        self.daemon.kill()

    def terminate(self, *, timeout: float = 30.0) -> int:
        """Ask it to stop (SIGTERM) and return its exit code."""
        return self.daemon.stop(seconds=timeout)

    def pause(self) -> None:
        """Hold it (SIGSTOP) as a machine that sleeps would."""
        os.kill(self.daemon.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on after a pause."""
        os.kill(self.daemon.pid, signal.SIGCONT)

    def restart(self, *, timeout: float = 60.0) -> None:
        """Start it again on the same ledger; end it first, by force, if it still runs."""
        self.kill()
        self.start(timeout=timeout)

    @property
    def is_running(self) -> bool:
        return self.daemon.is_running

    @property
    def memory_kilobytes(self) -> int:
        """How much memory it holds (VmRSS)."""
        return self._kilobytes("VmRSS:")

    @property
    def most_kilobytes(self) -> int:
        """How much memory it held at most (VmHWM)."""
        return self._kilobytes("VmHWM:")

    def _kilobytes(self, name: str) -> int:
        lines = Path(f"/proc/{self.daemon.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith(name))

    @property
    def cpu_seconds(self) -> float:
        """How much time of a core it has used so far."""
        return self.daemon.cpu_seconds

    def _says_ready(self) -> bool:
        lines = self.log_lines(begin=self._log_begin)
        return any(line.get("event") == self._awaited for line in lines)

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


def _parse(line: str) -> dict[str, object]:
    try:
        document = json.loads(line)
    except ValueError:
        return {"text": line}
    return document if isinstance(document, dict) else {"text": line}
