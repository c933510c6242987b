"""A mirror of PyPI with what the consumer's image needs, for builds that cannot reach PyPI itself.

The wheels come from wherever this machine's pip takes them.
"""

import re
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Final

from typing_extensions import override

from deploy.lab.packages import LabError

_ROOT: Final = Path(__file__).parents[2]
_TOOLS: Final = ("uv>=0.11,<1", "hatchling>=1.27,<2")
"""What builds it."""
_SECONDS: Final = 300.0


def fill(folder: Path) -> None:
    """Put the wheels and their index into the folder. Raises LabError."""
    requirements = str(folder / "requirements.txt")
    only_ours = ("--no-dev", "--no-emit-project", "--no-hashes")
    _run("uv", "export", "--quiet", "--frozen", *only_ours, "-o", requirements)
    # For Debian's own Python, whichever one is used here.
    wheels = ("--only-binary=:all:", "--python-version=3.11", "-d", str(folder))
    # What is locked is complete; to find that out again would take pip long.
    _run("pip", "download", "--quiet", *wheels, "--no-deps", "-r", requirements)
    _run("pip", "download", "--quiet", *wheels, *_TOOLS)
    for wheel in folder.glob("*.whl"):
        page = folder / "simple" / re.sub(r"[-_.]+", "-", wheel.name.split("-")[0]).lower()
        page.mkdir(parents=True, exist_ok=True)
        with (page / "index.html").open("a") as index:
            index.write(f'<a href="../../{wheel.name}">{wheel.name}</a>\n')


@contextmanager
def serve(folder: Path, listening: socket.socket) -> Iterator[str]:
    """Serve the folder there for the length of the block; give the index's URL."""
    server = ThreadingHTTPServer(
        ("", 0), partial(_Silent, directory=folder), bind_and_activate=False
    )
    server.socket.close()
    server.socket = listening
    thread = Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}/simple"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _run(tool: str, *words: str) -> None:
    """Run one of the tools that `deploy/bootstrap` installed."""
    program = _ROOT / ".lab" / "uv" / "bin" / tool
    if not program.exists():
        raise LabError(f"{program} is not there; run: deploy/bootstrap")
    outcome = subprocess.run(
        [program, *words], cwd=_ROOT, capture_output=True, check=False, timeout=_SECONDS
    )
    if outcome.returncode != 0:
        raise LabError(f"{tool} {words[0]}: {outcome.stderr.decode().strip()}")


class _Silent(SimpleHTTPRequestHandler):
    @override
    def log_request(self, code: object = "-", size: object = "-") -> None:
        """Say nothing of requests."""
