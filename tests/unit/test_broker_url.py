"""The password of the broker's URL, however strange, is in nothing that is told."""

import string

import pytest

from consumer import wiring
from consumer.adapters.rabbitmq_topology import BrokerLink, connect, translated
from consumer.errors import BrokerError, SettingsError
from consumer.settings import load

CHARACTERS = [*string.printable, "\u00e9", "%zz", "%40", "%2F"]
"""What may stand in the middle of a password."""


def told_of(url: str, error: Exception | None = None) -> str:
    """Return all that is told of the URL: its faults, or its names and the client's trouble."""
    try:
        settings = load(environ={"LANDLORD_BROKER__URL": url})
    except SettingsError as refused:
        return str(refused)
    link = wiring.broker_link(settings)
    names = wiring.broker_names(settings), wiring.broker_user(settings)
    with pytest.raises(BrokerError) as raised, translated(link):
        raise error or OSError(f"cannot reach {url}")
    return " ".join((*map(repr, (link.place, link, settings, *names)), str(raised.value)))


@pytest.mark.parametrize("begin", ["12", "quite"])
@pytest.mark.parametrize("character", CHARACTERS)
def test_no_character_gives_a_password_away(character: str, begin: str) -> None:
    """As it stands in the URL: it is refused there, or left out of all that is told."""
    url = f"amqp://user:{begin}{character}strange@127.0.0.1:1/vhost"

    told = told_of(url)

    assert "strange" not in told
    assert "broker" in told


@pytest.mark.parametrize("character", CHARACTERS)
def test_a_password_is_left_out_decoded_too(character: str) -> None:
    """A client may tell it in another form than the URL has it in."""
    password = f"quite{character}strange"
    url = "amqp://user:" + "".join(f"%{byte:02X}" for byte in password.encode()) + "@127.0.0.1:1/"

    told = told_of(url, RuntimeError(f"login with {password} failed"))

    assert "strange" not in told


async def test_a_url_that_the_client_cannot_read_is_not_quoted() -> None:
    """It says so with the whole URL."""
    link = BrokerLink(url="amqp://user:quite\\strange@127.0.0.1:1/")

    with pytest.raises(BrokerError, match=r"broker.url .*percent-encoded") as raised:
        async with connect(link, "any"):
            pass

    assert "strange" not in str(raised.value)


def test_what_is_misread_is_refused_with_its_cure() -> None:
    """A slash ends the host, and the rest would be taken for the virtual host."""
    with pytest.raises(SettingsError, match="percent-encoded: %2F for /"):
        load(environ={"LANDLORD_BROKER__URL": "amqp://user:12/34@127.0.0.1:1/"})


def test_the_words_of_a_client_are_kept() -> None:
    """All but the password."""
    link = BrokerLink(url="amqp://user:secret@broker/")

    with pytest.raises(BrokerError) as raised, translated(link):
        raise OSError("no route to broker")

    assert str(raised.value) == "trouble with amqp://user@broker:5672/: no route to broker"
