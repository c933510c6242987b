"""The command line among strangers: files in its folder, servers that answer, text from outside."""

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.e2e.commands import command

TOKEN = "s3same"
HOSTILE = "\x1b[2Jgone\nlandlord-consumer: all is well"


class Server:
    """Answers each request with the same, and keeps what was asked."""

    def __init__(self, answer: bytes) -> None:
        self.heard = b""
        self._answer = answer
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]

    def run(self) -> None:
        while True:
            try:
                wire, _ = self._socket.accept()
            except OSError:
                return
            with wire:
                self.heard += wire.recv(65536)
                wire.sendall(self._answer)

    def close(self) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()


@contextmanager
def serving(status: str, body: str = "", **headers: str) -> Iterator[Server]:
    """Have a server that answers so for the length of the block."""
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    head = f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n{lines}\r\n"
    server = Server((head + body).encode())
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        yield server
    finally:
        server.close()
        thread.join()


def found(folder: Path, port: int) -> None:
    """Put a file of settings into the folder that somebody else wrote."""
    (folder / "config.yaml").write_text(f"http: {{host: 127.0.0.1, port: {port}}}\n")


def test_a_token_is_not_sent_to_an_address_that_was_found(tmp_path: Path) -> None:
    """A file that lies in the folder does not decide who is sent it."""
    with serving("200 OK", '{"tenants": [], "next": null}') as server:
        found(tmp_path, server.port)
        refused = command("tenants", folder=tmp_path, LANDLORD_HTTP__TOKEN=TOKEN)
        heard = server.heard
        chosen = command(
            "tenants", "--config", "config.yaml", folder=tmp_path, LANDLORD_HTTP__TOKEN=TOKEN
        )

    assert refused.returncode == 1
    assert "--config config.yaml" in refused.stderr
    assert heard == b""
    assert chosen.returncode == 0
    assert TOKEN.encode() in server.heard


@pytest.mark.parametrize("tls", ["verify: false", "ca: ca.pem"])
@pytest.mark.parametrize(
    "words", [("watch",), ("publish", "deleted", "--tenant", "x"), ("dead-letters", "list")]
)
def test_a_login_is_not_sent_to_whom_a_found_file_trusts(
    tmp_path: Path, tls: str, words: tuple[str, ...]
) -> None:
    """The certificate's check is not taken off a broker of one's own by a file in the folder."""
    (tmp_path / "ca.pem").touch()
    (tmp_path / "config.yaml").write_text(f"broker: {{tls: {{{tls}}}}}\n")
    url = {"LANDLORD_BROKER__URL": f"amqps://u:{TOKEN}@127.0.0.1:1/"}

    refused = command(*words, folder=tmp_path, **url)
    chosen = command(*words, "--config", "config.yaml", folder=tmp_path, **url)

    assert refused.returncode == 1
    assert "--config config.yaml" in refused.stderr
    assert "--config config.yaml" not in chosen.stderr
    assert chosen.returncode != 0


def test_a_token_does_not_follow_a_redirection(tmp_path: Path) -> None:
    """It is for the address that was asked, not for where that points."""
    with (
        serving("200 OK", '{"tenants": [], "next": null}') as far,
        serving("302 Found", Location=f"http://127.0.0.1:{far.port}/tenants") as near,
    ):
        done = command(
            *("tenants", "--url", f"http://127.0.0.1:{near.port}"),
            folder=tmp_path,
            LANDLORD_HTTP__TOKEN=TOKEN,
        )

    assert done.returncode == 1
    assert far.heard == b""


def test_the_words_of_a_server_cannot_rewrite_the_terminal(tmp_path: Path) -> None:
    """They are on stderr, in the one line that is ours."""
    with serving("503 Service Unavailable", json.dumps({"message": HOSTILE})) as server:
        done = command("status", "x", "--url", f"http://127.0.0.1:{server.port}", folder=tmp_path)

    assert done.stderr == (
        "landlord-consumer: 503: \\x1b[2Jgone\\nlandlord-consumer: all is well\n"
    )


def test_what_a_tenant_is_told_of_cannot_rewrite_the_terminal(tmp_path: Path) -> None:
    """A tenant's message and an id of an event, in the table and in the status."""
    tenant = {"tenant_id": HOSTILE, "state": HOSTILE, "message": HOSTILE, "event_id": HOSTILE}
    listed = json.dumps({"tenants": [tenant], "next": None, **tenant})
    with serving("200 OK", listed) as server:
        url = f"http://127.0.0.1:{server.port}"
        shown = [
            command(*words, "--url", url, folder=tmp_path)
            for words in (("tenants",), ("status", "x"))
        ]

    for done in shown:
        assert done.returncode == 0
        assert "gone" in done.stdout
        assert "\x1b" not in done.stdout


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param('{"tenants": [1, null], "next": null}', id="no tenants"),
        pytest.param('{"tenants": [], "next": "a"}', id="no end"),
        pytest.param("[" * 100_000, id="no JSON"),
    ],
)
def test_who_is_no_consumer_is_told_in_one_line(tmp_path: Path, answer: str) -> None:
    """Whatever listens there instead: no traceback, and no waiting without an end."""
    with serving("200 OK", answer) as server:
        done = command("tenants", "--url", f"http://127.0.0.1:{server.port}", folder=tmp_path)

    assert done.returncode == 1
    assert done.stderr.count("\n") == 1


def files_of(folder: Path) -> list[dict[str, str]]:
    """Return what `check` comes to on the files."""
    done = command(
        *("check", "--json"), folder=folder, DOCKER_HOST=f"unix://{folder}/none", LANDLORD_CONFIG=""
    )
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    return [line for line in lines if line["name"] == "files"]


def test_check_tells_of_files_that_others_may_read(tmp_path: Path) -> None:
    """The settings, where secrets stand in them, and the ledger; not once they are shut."""
    config, ledger = tmp_path / "config.yaml", tmp_path / "landlord.db"
    config.write_text("broker: {url: 'amqp://a:b@127.0.0.1:1/'}\n")
    ledger.touch()
    for path in (config, ledger):
        path.chmod(0o644)

    opened = files_of(tmp_path)
    for path in (config, ledger):
        path.chmod(0o600)
    shut = files_of(tmp_path)

    assert [line["outcome"] for line in opened] == ["warning", "warning"]
    assert [line["cure"] for line in opened] == [
        "chmod o-rwx config.yaml",
        f"chmod o-rwx {ledger.name}",
    ]
    assert [line["outcome"] for line in shut] == ["ok"]
