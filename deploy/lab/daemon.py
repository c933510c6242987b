"""A server process of ours: started, watched until it is ready, stopped by its own pid.

It dies with whoever started it, also when that one is killed.
"""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final, ParamSpec, TypeVar

from deploy.lab.packages import LabError, find

P = ParamSpec("P")
T = TypeVar("T")

_LOOK_SECONDS: Final = 0.05
_LAST_WORDS: Final = 3000


_lasting: Final = ThreadPoolExecutor(1, "daemons")


def _in_lasting_thread(work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Do it in a thread that ends with this process.

    The kernel takes a thread for the parent: started in one that ends, a server would end with it.
    """
    return _lasting.submit(work, *args, **kwargs).result()


class Daemon:
    """One server; may be started again after it was stopped or killed."""

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        *,
        environment: Mapping[str, str],
        log: Path,
        is_ready: Callable[[], bool],
        folder: Path | None = None,
    ) -> None:
        self._name = name
        self._command = (find("setpriv"), "--pdeathsig", "TERM", *command)
        self.environment = dict(environment)
        self._log = log
        self._folder = folder
        self._is_ready = is_ready
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """The process id; 0 while it does not run."""
        return self._process.pid if self.is_running and self._process is not None else 0

    @property
    def is_running(self) -> bool:
        """Whether the process is there; says nothing of its readiness."""
        return self._process is not None and self._process.poll() is None

    @property
    def exit_code(self) -> int | None:
        """What it ended with; None while it runs."""
        return None if self._process is None else self._process.poll()

    @property
    def cpu_seconds(self) -> float:
        """How much time of a core it has used so far."""
        stat = Path(f"/proc/{self.pid}/stat").read_text()
        # After the name, which may hold anything: utime and stime are the 14th and 15th field.
        user, system = stat.rpartition(")")[2].split()[11:13]
        return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")

    def start(self, *, seconds: float = 60.0) -> None:
        """Start it and wait until it is ready. Raises LabError with its last words."""
        if self.is_running:
            return
        with self._log.open("ab") as log:
            self._process = _in_lasting_thread(
                subprocess.Popen,
                self._command,
                env=self.environment,
                cwd=self._folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                # A Ctrl-C is for whoever started us; the servers are stopped in their turn.
                start_new_session=True,
            )
        deadline = time.monotonic() + seconds
        while not self._is_ready():
            has_ended = self._process.poll() is not None
            if has_ended or time.monotonic() > deadline:
                self.kill()
                why = "it ended at once" if has_ended else f"not ready after {seconds:g} s"
                raise LabError(f"{self._name}: {why}\n{self._last_words()}")
            time.sleep(_LOOK_SECONDS)

    def stop(self, *, seconds: float = 40.0) -> int:
        """Ask it to end, and see that it does; return its exit code."""
        self.send(signal.SIGTERM)
        if self._process is None:
            return 0
        try:
            return self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill()
            return -signal.SIGKILL

    def kill(self) -> None:
        """End it at once."""
        self.send(signal.SIGKILL)
        if self._process is not None:
            self._process.wait(10)

    def send(self, number: signal.Signals) -> None:
        """Send it a signal (SIGSTOP and SIGCONT hold it and let it go); none when it is gone."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(number)

    def _last_words(self) -> str:
        return self._log.read_text(errors="replace")[-_LAST_WORDS:]
