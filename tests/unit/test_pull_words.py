"""What is told of a failed pull: the engine's words, and nothing that a registry wrote."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consumer.adapters.pull_words import _KNOWN, engine_words

SECRET = "ami-id root:x:0:0 AKIAIOSFODNN7EXAMPLE"

DENIED = "repository does not exist or may require 'docker login'"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (
            "manifest for 127.0.0.1:5000/web:no not found: manifest unknown: manifest unknown",
            "not found: manifest unknown",
        ),
        (
            'Get "http://127.0.0.1:1/v2/": dial tcp 127.0.0.1:1: connect: connection refused',
            "dial tcp 127.0.0.1:1: connection refused",
        ),
        ("dial tcp: lookup r.example on [::1]:53: no such host", "no such host"),
        (
            f"pull access denied for x, {DENIED}: denied: {SECRET}",
            f"pull access denied: {DENIED}",
        ),
        (
            f"error parsing HTTP 403 response body: invalid character 'a': \"{SECRET}\"",
            "error parsing http 403 response body",
        ),
        (f"toomanyrequests: {SECRET}", "toomanyrequests"),
        (f"unknown: {SECRET}", "the engine's log says why"),
        (f"received unexpected HTTP status: 503 {SECRET}", "received unexpected http status: 503"),
        (
            "failed to register layer: write /a: no space left on device",
            "failed to register layer: no space left on device",
        ),
    ],
)
def test_the_engines_words_are_told(text: str, told: str) -> None:
    """Phrases that it writes itself, status codes and addresses."""
    assert engine_words(text).startswith(told)
    assert SECRET.rsplit(maxsplit=1)[-1] not in engine_words(text)


@settings(max_examples=200, deadline=None)
@given(parts=st.lists(st.one_of(st.sampled_from(_KNOWN), st.text(max_size=30)), max_size=6))
def test_nothing_else_is_told_whatever_stands_there(parts: list[str]) -> None:
    """A registry may write what it likes: nothing comes through but what is known anyway."""
    told = engine_words(" ".join(parts))
    known = {words.lower() for words in _KNOWN}

    for words in told.split(": "):
        is_code = words.startswith(("dial tcp", "error parsing http", "received", "unexpected"))
        assert words.lower() in known or is_code or words.isdecimal() or "engine's log" in told
    assert len(told) < 3000
