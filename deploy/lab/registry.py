"""An image registry on a Docker host's own loopback, which Docker trusts without TLS.

A private one asks for a login, for whatever is done with it.
"""

import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from deploy.lab.daemon import Daemon
from deploy.lab.packages import find
from deploy.lab.servers import DockerHost, free_port

USERNAME: Final = "robot"
PASSWORD: Final = "let-me-in"
_HTPASSWD: Final = f"{USERNAME}:$2b$04$o1/W/.oapxrNtHe7YzqYE.DMfnye4WTFlPX2JC7RYKX5bJ/QHeuIC\n"


@contextmanager
def registry(host: DockerHost, *, is_private: bool = False) -> Iterator[str]:
    """Run a registry for the length of the block; give its address as that host sees it."""
    port = free_port()
    ready = b" 401 " if is_private else b" 200 "

    def answers() -> bool:
        with suppress(OSError), socket.create_connection((host.address, port), 1.0) as link:
            link.sendall(b"GET /v2/ HTTP/1.0\r\n\r\n")
            return ready in link.recv(64)
        return False

    with tempfile.TemporaryDirectory(prefix="landlord-registry-") as name:
        folder = Path(name)
        config = folder / "registry.yml"
        logins = folder / "htpasswd"
        logins.write_text(_HTPASSWD)
        config.write_text(
            "version: 0.1\n"
            f"storage: {{filesystem: {{rootdirectory: {folder / 'images'}}}}}\n"
            f"http: {{addr: '0.0.0.0:{port}'}}\n"
            + (f"auth: {{htpasswd: {{realm: lab, path: {logins}}}}}\n" if is_private else "")
        )
        server = Daemon(
            "docker-registry",
            host.inside(find("docker-registry"), "serve", str(config)),
            environment={"OTEL_TRACES_EXPORTER": "none"},
            log=folder / "registry.log",
            is_ready=answers,
        )
        server.start()
        try:
            yield f"127.0.0.1:{port}"
        finally:
            server.stop()
