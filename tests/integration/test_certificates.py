"""Certificates with slips of form, as `docker:dind` makes them: taken, or refused if so set."""

import socket
import ssl
import subprocess
from collections.abc import Callable
from pathlib import Path
from threading import Thread
from typing import Final

import pytest

from consumer.adapters.certificates import tls_context
from consumer.adapters.rabbitmq_topology import BrokerTls
from deploy.lab.packages import find

NAME: Final = "engine"
SECONDS: Final = 10.0
Door = Callable[[str, bool], ssl.SSLContext]


def at_engine(ca: str, is_strict: bool) -> ssl.SSLContext:
    """Return how TLS is spoken with an engine."""
    return tls_context(ca=ca, is_strict=is_strict)


def at_broker(ca: str, is_strict: bool) -> ssl.SSLContext:
    """Return how TLS is spoken with a broker."""
    return BrokerTls(ca=ca, is_strict=is_strict).context()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Give a folder with an authority whose certificate does not say what its key is for."""
    (tmp_path / "authority.cnf").write_text(
        "[req]\nprompt=no\ndistinguished_name=name\nx509_extensions=own\n[name]\nCN=authority\n"
        "[own]\nbasicConstraints=critical,CA:TRUE\nsubjectKeyIdentifier=hash\n"
    )
    (tmp_path / "server.cnf").write_text(f"subjectAltName = DNS:{NAME}")
    key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout")
    for words in (
        ("req", "-x509", *key, "ca-key.pem", "-config", "authority.cnf", "-out", "ca.pem"),
        ("req", *key, "key.pem", "-subj", f"/CN={NAME}", "-out", "asked.csr"),
        (
            *("x509", "-req", "-in", "asked.csr", "-CA", "ca.pem", "-CAkey", "ca-key.pem"),
            *("-CAcreateserial", "-extfile", "server.cnf", "-out", "cert.pem"),
        ),
    ):
        subprocess.run(
            [find("openssl"), *words], cwd=tmp_path, check=True, capture_output=True, timeout=30
        )
    return tmp_path


def shake_hands(context: ssl.SSLContext, folder: Path) -> None:
    """Open TLS with a server that shows the certificate. Raises SSLError."""
    theirs = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    theirs.load_cert_chain(folder / "cert.pem", folder / "key.pem")
    ours, other = socket.socketpair()
    ours.settimeout(SECONDS)
    other.settimeout(SECONDS)

    def answer() -> None:
        try:
            with theirs.wrap_socket(other, server_side=True) as line:
                line.recv(1)
        except OSError:
            other.close()

    thread = Thread(target=answer)
    thread.start()
    try:
        with context.wrap_socket(ours, server_hostname=NAME) as line:
            line.send(b"x")
    finally:
        ours.close()
        thread.join()


@pytest.mark.parametrize("door", [at_engine, at_broker])
def test_an_ordinary_certificate_is_taken_on_every_python(door: Door, folder: Path) -> None:
    """As the docker command takes it: authority, name and dates are right."""
    shake_hands(door(str(folder / "ca.pem"), False), folder)


@pytest.mark.parametrize("door", [at_engine, at_broker])
def test_strict_refuses_it_on_every_python(door: Door, folder: Path) -> None:
    """In OpenSSL's words, which say what the certificate lacks."""
    with pytest.raises(ssl.SSLCertVerificationError, match="key usage"):
        shake_hands(door(str(folder / "ca.pem"), True), folder)
