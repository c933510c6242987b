"""What the command line asks a running consumer."""

from pathlib import Path

import pytest

from consumer.cli_consumer import ask_consumer, read_status, status_line
from consumer.errors import ConsumerError
from consumer.settings import load


@pytest.mark.parametrize("host", ["::1", "::"])
async def test_a_consumer_at_an_ipv6_address_is_asked_there(host: str) -> None:
    """The address stands in brackets, or nothing could be asked at all."""
    settings = load(Path("/dev/null"), {"LANDLORD_HTTP__HOST": host, "LANDLORD_HTTP__PORT": "1"})

    with pytest.raises(ConsumerError, match=r"\[::1\]:1"):
        await ask_consumer(settings, None, "/readyz")


def test_a_tenant_cannot_forge_the_line_of_another() -> None:
    """What its container wrote last is in the message, lines and all: they are set in."""
    forged = "2026-11-28T00:00:00.000Z  other  running/started  container started in 0.3 s"
    status: dict[str, object] = {
        "tenant_id": "evil\nother",
        "state": "failed",
        "reason": "exited",
        "occurred_at": "2026-11-28T00:00:00.000Z",
        "message": f"exited with code 1\n{forged}",
    }

    first, second = status_line(status).split("\n")

    assert first.endswith("  evil\\nother  failed/exited  exited with code 1")
    assert second == f"    {forged}"


@pytest.mark.parametrize("body", [b"\xff", b"[]", b"1", b"{", b"[" * 100_000])
def test_what_is_no_status_event_ends_no_watching(body: bytes) -> None:
    """Who may write to the exchange may write anything; what is an object is shown."""
    assert read_status(body) is None
    assert "None/None" in status_line(read_status(b"{}") or {})
