"""What only a tenant may know is found in all the shapes in which programs write it."""

import base64

import pytest

from consumer.adapters.redaction import as_plain_text, redact


@pytest.mark.parametrize(
    ("value", "text"),
    [
        pytest.param("hunter2", "login hunter2 failed", id="as it stands"),
        pytest.param("hunter2\n", "login hunter2 failed", id="without the last line break"),
        pytest.param('a"b\\c', r"login a\"b\\c failed", id="in JSON"),
        pytest.param("Zürich☂", r"login Z\u00fcrich\u2602 failed", id="in JSON, escaped"),
        pytest.param("p@ss word", "login p%40ss%20word failed", id="in a URL"),
        pytest.param("p@ss word", "login p%40ss+word failed", id="in a form"),
        pytest.param("postgres://me:hunter2@db/x", "login hunter2 failed", id="of a URL"),
        pytest.param("amqp://me:p%40ss@db/x", "login p@ss failed", id="of a URL, decoded"),
        pytest.param(
            "hunter2", f"login {base64.b64encode(b'hunter2').decode()} failed", id="in base64"
        ),
        pytest.param("7", "login 7 failed", id="short, alone"),
    ],
)
def test_a_value_is_found_in_every_shape(value: str, text: str) -> None:
    """Nothing of it is left."""
    found = redact(text, [value])

    assert found.removesuffix("failed").removesuffix("= ").startswith("login ***")
    assert "hunter2" not in found


def test_the_lines_of_a_value_are_found_alone() -> None:
    """A key of many lines may be written one by one, or be cut at its beginning."""
    key = "-----BEGIN KEY-----\nabcdefgh\nijklmnop\n-----END KEY-----\n"

    assert redact("x\nijklmnop\n-----END KEY-----", [key]) == "x\n***\n***"


def test_longer_values_go_first() -> None:
    """One that holds another leaves no rest."""
    assert redact("secret-and-more", ["secret", "secret-and-more"]) == "***"


def test_a_short_value_is_no_part_of_a_word() -> None:
    """Or nothing would be left to read."""
    assert redact("exit 11 in 1.5 s at line1", ["1"]) == "exit 11 in ***.5 s at line1"


@pytest.mark.parametrize("value", ["", " ", "\n", "***"])
def test_a_value_of_nothing_changes_nothing(value: str) -> None:
    """An empty value stands between any two characters."""
    assert redact("all *** is well", [value]) == "all *** is well"


def test_colours_and_controls_are_left_out() -> None:
    """A status event is read in terminals, logs and pages."""
    raw = b"\x1b[1;31mred\x1b[0m\r\n50%\r100%\n\x1b]0;title\x07bell\x07\ttab\xff"

    assert as_plain_text(raw) == "red\n50%\n100%\nbell\ttab�"
