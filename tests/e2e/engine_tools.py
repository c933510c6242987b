"""The engine from the outside: Docker's own command line, test images, a loopback registry.

The images are made of the host's static busybox, so no registry is needed. `/start.sh` in them
serves `/www` on $PORT (8080 when unset), shows its environment and arguments there, and ends at
once on SIGTERM. No image has an EXPOSE or an ENTRYPOINT.
"""

import io
import json
import shutil
import subprocess
import tarfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from tests.e2e.consumer_process import free_port

_COMMAND_SECONDS: Final = 60.0
_REST: Final = "while :; do sleep 3600 & wait $!; done\n"
_START: Final = f"""#!/bin/sh
trap 'exit 0' TERM INT
mkdir -p /www
env > /www/env
echo "$@" > /www/args
echo hello > /www/index.html
httpd -p "${{PORT:-8080}}" -h /www
{_REST}"""
_API: Final = f"""#!/bin/sh
trap 'exit 0' TERM INT
mkdir -p /www
echo "$@" > /www/args
httpd -p 3000 -h /www
httpd -p 9090 -h /www
{_REST}"""


class DockerCli:
    """The `docker` command on one engine."""

    def __init__(self, host: str) -> None:
        self._host = host

    def run(self, *words: str, stdin: bytes | None = None) -> str:
        """Return what the command prints; fail with what it complains about."""
        outcome = subprocess.run(
            ["docker", "-H", self._host, *words],
            input=stdin,
            capture_output=True,
            check=False,
            timeout=_COMMAND_SECONDS,
        )
        assert outcome.returncode == 0, f"docker {' '.join(words)}: {outcome.stderr.decode()}"
        return outcome.stdout.decode().strip()

    def inspect(self, container: str, template: str) -> object:
        """Return what is at the place the template names, for example `.HostConfig.Memory`."""
        return json.loads(self.run("inspect", "-f", f"{{{{json {template}}}}}", container))

    def containers(self, label: str) -> list[str]:
        """Return the ids of all containers with the label, running or not."""
        return self.run("ps", "-aq", "--no-trunc", "--filter", f"label={label}").split()

    def has_image(self, image: str) -> bool:
        return bool(self.run("images", "-q", image))

    def remove_containers(self, label: str) -> None:
        """Remove all containers with the label, by force, with their anonymous volumes."""
        for container in self.containers(label):
            self.run("rm", "-f", "-v", container)

    @contextmanager
    def image(self, name: str, *, port: int = 8080) -> Iterator[str]:
        """Have an image of this name for the length of the block; one already there is left."""
        if self.has_image(name):
            yield name
            return
        self.import_image(name, ('CMD ["/start.sh"]', f"ENV PORT={port}"))
        try:
            yield name
        finally:
            self.run("rmi", "-f", name)

    def import_image(self, name: str, changes: Sequence[str]) -> None:
        """Make an image of busybox, `/start.sh` and `/app/api`."""
        words = [word for change in changes for word in ("-c", change)]
        self.run("import", *words, "-", name, stdin=_root_archive())


def _root_archive() -> bytes:
    busybox = shutil.which("busybox")
    assert busybox is not None, "busybox-static is needed for test images"
    applets = subprocess.run(
        [busybox, "--list"], capture_output=True, text=True, check=True, timeout=_COMMAND_SECONDS
    ).stdout.split()
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.add(busybox, "bin/busybox")
        for applet in applets:
            if applet == "busybox":
                continue
            link = tarfile.TarInfo(f"bin/{applet}")
            link.type, link.linkname = tarfile.SYMTYPE, "busybox"
            archive.addfile(link)
        for path, script in (("start.sh", _START), ("app/api", _API)):
            member = tarfile.TarInfo(path)
            member.size, member.mode = len(script), 0o755
            archive.addfile(member, io.BytesIO(script.encode()))
    return buffer.getvalue()


@contextmanager
def registry(folder: Path) -> Iterator[str]:
    """Run an image registry on loopback for the length of the block; give its address."""
    port = free_port()
    config = folder / "registry.yml"
    config.write_text(
        "version: 0.1\n"
        f"storage: {{filesystem: {{rootdirectory: {folder / 'registry'}}}}}\n"
        f"http: {{addr: '127.0.0.1:{port}'}}\n"
    )
    with (folder / "registry.log").open("wb") as log:
        process = subprocess.Popen(
            ["docker-registry", "serve", str(config)], stdout=log, stderr=subprocess.STDOUT
        )
    try:
        _wait_for(f"http://127.0.0.1:{port}/v2/")
        yield f"127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(10)


def _wait_for(url: str, *, timeout: float = 10.0) -> None:
    deadline = time.monotonic() + timeout
    while True:
        try:
            with urllib.request.urlopen(url, timeout=1):
                return
        except OSError:
            assert time.monotonic() < deadline, f"{url} does not answer"
            time.sleep(0.05)
