"""Text from outside cannot rewrite, hide or forge what a person sees."""

import pytest

from consumer.harmless import harmless, in_its_place, in_one_line


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[2Jgone\r", "\\x1b[2Jgone\\r"),
        ("two\n\tlines, \u00fcml\u00e4uts", "two\n\tlines, \u00fcml\u00e4uts"),
        ("\u202eright to left", "\\u202eright to left"),
        ("\x9b2J\x7f\udc80", "\\x9b2J\\x7f\\udc80"),
    ],
)
def test_what_is_printed_cannot_rewrite_the_terminal(text: str, shown: str) -> None:
    """Control characters are written out; text is left as it is."""
    assert harmless(text) == shown


def test_words_of_others_have_no_line_of_their_own() -> None:
    """A line of ours is not to be forged."""
    assert in_one_line("no\nlandlord-consumer:\tok") == "no\\nlandlord-consumer:\\tok"


def test_further_lines_look_like_none_of_ours() -> None:
    """What a tenant wrote may have lines, which are set in."""
    assert in_its_place("no\nother  running\x1b") == "no\n    other  running\\x1b"
