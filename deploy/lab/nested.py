"""A Docker Engine in a container of another one (Docker-in-Docker), which listens in clear text.

The container sees this machine's own programs, read-only; what the engine stores is in a volume
that goes with the container.
"""

import socket
import time
from contextlib import suppress
from typing import Final

from deploy.lab.docker_cli import DockerCli
from deploy.lab.packages import LabError
from deploy.lab.servers import DockerHost

_PORT: Final = 2375
_START_SECONDS: Final = 60.0
_LOOK_SECONDS: Final = 0.05
_NAME: Final = "ll-nested-engine"
PROGRAMS: Final = {
    "/usr": "/usr",
    "/usr/bin": "/bin",
    "/usr/sbin": "/sbin",
    "/usr/lib": "/lib",
    "/usr/lib64": "/lib64",
    "/etc/alternatives": "/etc/alternatives",
}
"""Where they are here, and where they are wanted within."""


_RIGHTS: Final = (
    # What an engine needs of `--privileged`, which asks for more than a lab may have that is in a
    # container itself.
    *("--cap-add", "SYS_ADMIN", "--cap-add", "NET_ADMIN"),
    *("--security-opt", "seccomp=unconfined", "--security-opt", "apparmor=unconfined"),
    *("--security-opt", "systempaths=unconfined"),
    *("-v", "/sys/fs/cgroup:/sys/fs/cgroup", "--device-cgroup-rule", "a *:* rwm"),
    # Without `--privileged` it cannot be switched on from within, where this machine has it off.
    *("--sysctl", "net.ipv4.ip_forward=1"),
)


class NestedEngine:
    """One engine; `ports` are those of its containers that answer at `address` too."""

    def __init__(self, host: DockerHost, image: str, *, ports: tuple[int, ...] = ()) -> None:
        self._docker = DockerCli(host.url)
        self.address = host.address
        self.url = f"tcp://{host.address}:{_PORT}"
        mounts = [f"{here}:{within}:ro" for here, within in PROGRAMS.items()]
        published = [f"{port}:{port}" for port in (_PORT, *ports)]
        self._docker.run(
            *("create", "--name", _NAME, "-v", "/var/lib/docker", *_RIGHTS),
            *(word for mount in mounts for word in ("-v", mount)),
            *(word for port in published for word in ("-p", port)),
            *("--entrypoint", "/usr/sbin/dockerd", image),
            *("-H", f"tcp://0.0.0.0:{_PORT}", "--tls=false"),
        )

    def start(self) -> None:
        """Start it and wait until it answers. Raises LabError."""
        self._docker.run("start", _NAME)
        deadline = time.monotonic() + _START_SECONDS
        while not self._answers():
            if time.monotonic() > deadline:
                raise LabError(f"the engine in {_NAME} does not answer; see docker logs {_NAME}")
            time.sleep(_LOOK_SECONDS)

    def close(self) -> None:
        """Remove it with everything within."""
        self._docker.run("rm", "-f", "-v", _NAME)

    def _answers(self) -> bool:
        with suppress(OSError), socket.create_connection((self.address, _PORT), 2.0) as link:
            link.sendall(b"GET /_ping HTTP/1.0\r\n\r\n")
            return b" 200 " in link.recv(64)
        return False
