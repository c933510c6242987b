"""An engine that takes nobody without a certificate of its CA, and certificates, good and bad."""

import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import trustme

from consumer.adapters.certificates import tls_context
from deploy.lab.servers import DockerHost
from tests.conftest import import_web_image

PORT: Final = 2376


class SecuredEngine:
    """The engine's host, its address, and a folder with PEM files.

    `ca.pem`, `cert.pem` and `key.pem` are what a client needs, under the names of Docker's own
    command line; those that begin with `other-` are of another CA.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        engine = folder / "engine"
        engine.mkdir()
        self.host = DockerHost(
            folder / "host",
            *("-H", f"tcp://0.0.0.0:{PORT}", "--tlsverify", f"--tlscacert={folder}/ca.pem"),
            *(f"--tlscert={engine}/cert.pem", f"--tlskey={engine}/key.pem"),
        )
        self.url = f"tcp://{self.host.address}:{PORT}"
        authority, other = trustme.CA(), trustme.CA()
        authority.cert_pem.write_to_path(folder / "ca.pem")
        other.cert_pem.write_to_path(folder / "other-ca.pem")
        _write(authority.issue_cert(self.host.address), engine)
        _write(authority.issue_cert("consumer"), folder)
        _write(other.issue_cert("consumer"), folder, "other-")

    def context(
        self, ca: str = "ca", cert: str | None = "", *, verify: bool = True
    ) -> ssl.SSLContext:
        """Return what a client has with this CA, and with the certificate of this prefix."""
        return tls_context(
            ca=f"{self.folder}/{ca}.pem",
            cert=None if cert is None else f"{self.folder}/{cert}cert.pem",
            key=None if cert is None else f"{self.folder}/{cert}key.pem",
            verify=verify,
        )


def _write(pair: trustme.LeafCert, folder: Path, prefix: str = "") -> None:
    pair.cert_chain_pems[0].write_to_path(folder / f"{prefix}cert.pem")
    pair.private_key_pem.write_to_path(folder / f"{prefix}key.pem")


@contextmanager
def secured_engine(folder: Path) -> Iterator[SecuredEngine]:
    """Run it for the length of the block, with the image that most tests start from."""
    engine = SecuredEngine(folder)
    try:
        engine.host.start()
        import_web_image(engine.host)
        yield engine
    finally:
        engine.host.close()
