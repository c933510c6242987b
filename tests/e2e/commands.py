"""The command line as a person or a script uses it: run to its end, with settings of its own."""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from deploy.lab.names import Names
from deploy.lab.servers import Broker, DockerHost, free_port


def command(
    *words: str,
    folder: Path,
    stdin: str = "",
    before: Sequence[str] = (),
    **environment: str,
) -> subprocess.CompletedProcess[str]:
    """Run the command line to its end; `before` is the program that runs it, if one does."""
    return subprocess.run(
        [*before, sys.executable, "-m", "consumer", *words],
        env={**os.environ, **environment},
        cwd=folder,
        input=stdin,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def settings_of(names: Names, broker: Broker, host: DockerHost, folder: Path) -> dict[str, str]:
    """Return a consumer's settings as environment variables."""
    return dict(
        names.environment(
            broker_url=broker.url, docker_host=host.url, folder=folder, http_port=free_port()
        )
    )


def command_on_terminal(answer: str, *words: str, folder: Path, **environment: str) -> int:
    """Run the command line with a terminal as its stdin, give the answer, return the exit code."""
    ours, its = os.openpty()
    try:
        os.write(ours, answer.encode() + b"\n")
        done = subprocess.run(
            [sys.executable, "-m", "consumer", *words],
            env={**os.environ, **environment},
            cwd=folder,
            stdin=its,
            check=False,
            timeout=60,
        )
    finally:
        os.close(ours)
        os.close(its)
    return done.returncode
