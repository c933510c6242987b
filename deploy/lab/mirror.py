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
_FILES: Final = ("requirements.txt", "deploy/requirements/build.txt")
"""What it is made of, and what builds it."""
_PYTHON: Final = "/usr/bin/python3"
"""Debian's own, which is the image's too, whichever one is used here."""
_PIP: Final = str(_ROOT / ".lab" / "uv" / "bin" / "pip")
"""That of `deploy/bootstrap`."""
_SECONDS: Final = 300.0


def fill(folder: Path) -> None:
    """Put the wheels and their index into the folder. Raises LabError."""
    show = "import sys; print('%d.%d' % sys.version_info[:2])"
    version = _run(_PYTHON, "-c", show).strip()
    wheels = ("--only-binary=:all:", f"--python-version={version}", "-d", str(folder))
    files = [word for file in _FILES for word in ("-r", file)]
    # What is locked is complete; to find that out again would take pip long.
    _run(_PIP, "download", "--quiet", "--require-hashes", "--no-deps", *wheels, *files)
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


def _run(program: str, *words: str) -> str:
    if not Path(program).exists():
        raise LabError(f"{program} is not there; run: deploy/bootstrap")
    outcome = subprocess.run(
        [program, *words], cwd=_ROOT, capture_output=True, text=True, check=False, timeout=_SECONDS
    )
    if outcome.returncode != 0:
        raise LabError(f"{program} {words[0]}: {outcome.stderr.strip()}")
    return outcome.stdout


class _Silent(SimpleHTTPRequestHandler):
    @override
    def log_request(self, code: object = "-", size: object = "-") -> None:
        """Say nothing of requests."""
