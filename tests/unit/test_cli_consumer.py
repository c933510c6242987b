"""What the command line asks a running consumer."""

from pathlib import Path

import pytest

from consumer.cli_consumer import ask_consumer
from consumer.errors import ConsumerError
from consumer.settings import load


@pytest.mark.parametrize("host", ["::1", "::"])
async def test_a_consumer_at_an_ipv6_address_is_asked_there(host: str) -> None:
    """The address stands in brackets, or nothing could be asked at all."""
    settings = load(Path("/dev/null"), {"LANDLORD_HTTP__HOST": host, "LANDLORD_HTTP__PORT": "1"})

    with pytest.raises(ConsumerError, match=r"\[::1\]:1"):
        await ask_consumer(settings, None, "/readyz")
