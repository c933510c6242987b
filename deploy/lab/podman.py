"""Podman's service for Docker's API, on the network of a Docker host, with a store of its own.

It shares that host's address. Of the machine's own Podman it sees nothing, and shares with it only
what the network plugins keep in /var/lib/cni: which addresses are in use.
"""

import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from deploy.lab.daemon import Daemon
from deploy.lab.packages import find
from deploy.lab.servers import DockerHost, answers_ping, unmount_below

_COMMAND_SECONDS: Final = 60.0
_SETTINGS: Final = """\
[containers]
# Or more is asked for than a container may have that runs the lab.
default_ulimits = ["nofile=4096:4096", "nproc=4096:4096"]
"""


@dataclass(frozen=True, slots=True)
class Podman:
    """Where it is asked, and where published ports answer."""

    url: str
    address: str


@contextmanager
def podman(host: DockerHost) -> Iterator[Podman]:
    """Run it for the length of the block."""
    with tempfile.TemporaryDirectory(prefix="ll-podman-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        settings = folder / "containers.conf"
        settings.write_text(_SETTINGS)
        own = (
            *(
                "--root",
                f"{folder}/data",
                "--runroot",
                f"{folder}/run",
                "--tmpdir",
                f"{folder}/tmp",
            ),
            *("--network-config-dir", f"{folder}/net", "--runtime", "runc"),
            *("--cgroup-manager", "cgroupfs", "--events-backend", "file"),
        )
        environment = {
            "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
            "HOME": name,
            "CONTAINERS_CONF": str(settings),
        }
        _let_in(host)
        place = folder / "podman.sock"
        service = Daemon(
            "podman",
            host.inside(find("podman"), *own, "system", "service", "--time=0", f"unix://{place}"),
            environment=environment,
            log=folder / "podman.log",
            is_ready=lambda: answers_ping(place),
        )
        service.start()
        try:
            yield Podman(f"unix://{place}", host.address)
        finally:
            service.stop()
            # Containers live on without the service.
            subprocess.run(
                host.inside(find("podman"), *own, "rm", "--force", "--all", "--time=0"),
                env=environment,
                capture_output=True,
                check=False,
                timeout=_COMMAND_SECONDS,
            )
            unmount_below(folder)


def _let_in(host: DockerHost) -> None:
    """Have the host forward what comes for Podman's containers.

    Docker, which was there first, drops all that it does not know if it had to switch forwarding on
    itself; Podman has rules for answers alone, and leaves the rest to the host.
    """
    subprocess.run(
        host.inside(find("iptables"), "-P", "FORWARD", "ACCEPT"),
        capture_output=True,
        check=True,
        timeout=_COMMAND_SECONDS,
    )
