"""The engine from the outside: Docker's own command line, and images made without a registry.

The images are made of the host's static busybox. `/start.sh` in them serves `/www` on $PORT (8080
when unset), shows its environment and arguments there, and ends at once on SIGTERM. No image has
an EXPOSE or an ENTRYPOINT.
"""

import io
import json
import subprocess
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Final

from deploy.lab.packages import LabError, find

_COMMAND_SECONDS: Final = 60.0
_MANY_SECONDS: Final = 180.0
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
        self.host = host

    def run(
        self, *words: str, stdin: bytes | None = None, seconds: float = _COMMAND_SECONDS
    ) -> str:
        """Return what the command prints. Raises LabError with what it complains about."""
        outcome = subprocess.run(
            [find("docker"), "-H", self.host, *words],
            input=stdin,
            capture_output=True,
            check=False,
            timeout=seconds,
        )
        if outcome.returncode != 0:
            raise LabError(f"docker {' '.join(words)}: {outcome.stderr.decode().strip()}")
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
        containers = self.containers(label)
        if containers:
            # All in one command: it does many at a time.
            self.run("rm", "-f", "-v", *containers, seconds=_MANY_SECONDS)

    def remove_volumes(self, label: str) -> None:
        """Remove all volumes with the label."""
        for volume in self.run("volume", "ls", "-q", "--filter", f"label={label}").split():
            self.run("volume", "rm", "-f", volume)

    def remove_networks(self, label: str) -> None:
        """Remove all networks with the label."""
        for network in self.run("network", "ls", "-q", "--filter", f"label={label}").split():
            self.run("network", "rm", network)

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

    def import_image(
        self, name: str, changes: Sequence[str], *, files: Mapping[str, str] | None = None
    ) -> None:
        """Make an image of busybox, `/start.sh`, `/app/api` and further files by their paths."""
        words = [word for change in changes for word in ("-c", change)]
        self.run("import", *words, "-", name, stdin=_root_archive(files or {}))


def _root_archive(files: Mapping[str, str]) -> bytes:
    busybox = find("busybox")
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
        for path, content in {"start.sh": _START, "app/api": _API, **files}.items():
            member = tarfile.TarInfo(path)
            member.size, member.mode = len(content.encode()), 0o755
            archive.addfile(member, io.BytesIO(content.encode()))
    return buffer.getvalue()
