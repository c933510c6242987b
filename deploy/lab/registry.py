"""An image registry on a Docker host's own loopback, which Docker trusts without TLS."""

import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from deploy.lab.daemon import Daemon
from deploy.lab.packages import find
from deploy.lab.servers import DockerHost, free_port


@contextmanager
def registry(host: DockerHost) -> Iterator[str]:
    """Run a registry for the length of the block; give its address as that host sees it."""
    port = free_port()

    def answers() -> bool:
        with suppress(OSError), socket.create_connection((host.address, port), 1.0) as link:
            link.sendall(b"GET /v2/ HTTP/1.0\r\n\r\n")
            return b" 200 " in link.recv(64)
        return False

    with tempfile.TemporaryDirectory(prefix="landlord-registry-") as name:
        folder = Path(name)
        config = folder / "registry.yml"
        config.write_text(
            "version: 0.1\n"
            f"storage: {{filesystem: {{rootdirectory: {folder / 'images'}}}}}\n"
            f"http: {{addr: '0.0.0.0:{port}'}}\n"
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
