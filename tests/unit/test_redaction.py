"""What only a tenant may know is found in all the shapes in which programs write it."""

import base64
import random
import string
import time

import pytest

from consumer.adapters.redaction import PIECE, as_plain_text, forms_of
from consumer.adapters.redaction import redact as redact_forms


def redact(text: str, values: list[str], *, most_told: int | None = None) -> str:
    """Return the text without the values, which are not too many."""
    forms = forms_of(values)
    assert forms is not None
    return redact_forms(text, forms, most_told=most_told)


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
        pytest.param("a/b<&>", r"login a/b\u003c\u0026\u003e failed", id="in JSON made for HTML"),
        pytest.param("a/b c", r"login a\/b c failed", id="in JSON with its slashes escaped"),
        pytest.param("a/b:c", "login a%2fb%3ac failed", id="in a URL, in small digits"),
        pytest.param("hunter2", "login 68756e74657232 failed", id="in hexadecimal"),
        pytest.param("~~>>??~~", "login fn4-Pj8_fn4 failed", id="in base64 made for URLs"),
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


@pytest.mark.parametrize("user", ["", "a", "ab", "abc"])
def test_base64_of_something_longer_is_found(user: str) -> None:
    """A basic login is user and password in one; of its characters, those of the password alone."""
    told = base64.b64encode(f"{user}:correct horse battery:x".encode()).decode()

    found = redact(f"Authorization: Basic {told}", ["correct horse battery"])

    left = found.removeprefix("Authorization: Basic ").split("***")
    assert sum(map(len, left)) <= len(told) - 26
    assert len(left) == 2


def test_values_that_overlap_leave_no_rest() -> None:
    """What one of them covers is hidden, whichever is found first."""
    assert redact("a secretly told", ["secret", "retly"]) == "a *** told"


def test_a_long_value_is_found_in_pieces() -> None:
    """A program may cut it, or write it in lines; each 64 characters of it are enough."""
    value = "".join(random.Random(1).choices(string.printable.strip(), k=1000))

    assert redact(f"x {value[100:400]}\n{value[:PIECE]} y", [value]) == "x ***\n*** y"
    assert redact(f"x {value[100 : 99 + PIECE]} y", [value]) != "x *** y"


def test_of_a_text_that_was_cut_nothing_is_told_that_may_be_the_end_of_a_value() -> None:
    """What comes before is looked at and not told, however short the rest becomes."""
    value = "".join(random.Random(1).choices(string.ascii_letters, k=100))
    cut = f"{value[70:]} {'x' * 30} {value}"

    assert redact(cut, [value], most_told=len(cut) - PIECE) == "***"


def crowd(count: int) -> list[str]:
    numbers = random.Random(1)
    return ["a" * 40 + "".join(numbers.choices(string.printable, k=24)) for _ in range(count)]


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    ("values", "line"),
    [
        pytest.param(crowd(2000), "a" * 40 + "b", id="alike"),
        pytest.param(["a" * length for length in range(1, 700)], "a", id="one in the other"),
        pytest.param(["a" * 64 + str(n) for n in range(2000)], "a" * 64 + "1", id="long, alike"),
        pytest.param(["/" * 250_000], "/", id="one"),
        pytest.param([f"{n:04x}\n" * 10 for n in range(2000)], "0a0b", id="told in full"),
    ],
)
def test_no_values_make_a_text_take_its_time(values: list[str], line: str) -> None:
    """Whatever they have in common: twice of what is ever gone over takes a second."""
    text = line * (64 * 1024 // len(line))
    began = time.process_time()

    redact(text, values)

    assert time.process_time() - began < 8


def test_more_than_can_be_looked_for_is_refused() -> None:
    """Too many characters, or too many lines: then nothing may be told."""
    assert forms_of(["x" * (4 * 1024 * 1024 + 1)]) is None
    assert forms_of([chr(200 + place) + '\x01"<é' * 16_000 for place in range(16)]) is None
    assert forms_of(["\n".join(f"line {number}" for number in range(100_000))]) is None


@pytest.mark.parametrize("char", ["<", '"', "\x1f", "é", "\U0001f600", "/"])
def test_the_values_of_any_document_can_be_looked_for(char: str) -> None:
    """Of the longest body that is taken by default, in whatever way its forms grow."""
    most = 256 * 1024 // len(char.encode())

    assert forms_of([char * (most // 2), "x" + char * (most // 2)]) is not None


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
