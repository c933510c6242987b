"""The consumer as a process that neither broker nor engine answers, ended by a fault of its own."""

import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

_POISON = """
    INSERT INTO outbox (tenant_id, sequence, state, body, created_at)
    VALUES ('t', 1, 'nonsense', '{}', '2026-01-01T00:00:00+00:00')
"""


@pytest.fixture
def consumer(tmp_path: Path) -> Iterator["subprocess.Popen[bytes]"]:
    """Start one that has only its ledger."""
    settings = {
        "LANDLORD_LEDGER__URL": f"sqlite:///{tmp_path}/ledger.db",
        "LANDLORD_BROKER__URL": "amqp://user:password@127.0.0.1:1/",
        "LANDLORD_HTTP__PORT": "0",
        "LANDLORD_LOG__FORMAT": "json",
        "DOCKER_HOST": f"unix://{tmp_path}/no.sock",
    }
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "consumer", "run"],
            env={**os.environ, **settings},
            cwd=tmp_path,
            stdout=log,
            stderr=log,
        )
    try:
        wait_for(tmp_path, '"listening"')
        yield process
    finally:
        process.kill()
        process.wait(10)


def wait_for(folder: Path, words: str) -> str:
    """Return the line of the log that has these words, once there is one."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        for line in (folder / "log").read_text().splitlines():
            if words in line:
                return line
        time.sleep(0.02)
    raise AssertionError((folder / "log").read_text())


def test_a_fault_ends_the_process_at_once(
    consumer: "subprocess.Popen[bytes]", tmp_path: Path
) -> None:
    """One line says which task and why; nothing is torn down before it ends."""
    with closing(sqlite3.connect(tmp_path / "ledger.db", timeout=10)) as ledger, ledger:
        ledger.execute(_POISON)

    line = wait_for(tmp_path, '"a task ended unasked"')
    began = time.monotonic()
    code = consumer.wait(10)
    seconds = time.monotonic() - began

    assert (code, '"task": "outbox"' in line) == (1, True)
    assert seconds < 1
    assert "Traceback" not in (tmp_path / "log").read_text()
