"""Take out of a text what only its tenant may know.

Pure. A value is found as it stands and in the shapes in which programs write it: line by line, in
JSON, in a URL, in base64; of a URL with a login also the password alone.
"""

import base64
import json
import re
from collections.abc import Iterable, Iterator
from typing import Final
from urllib.parse import quote, quote_plus, unquote, urlsplit

_MARK: Final = "***"
_LEAST_ANYWHERE: Final = 4
"""Shorter values are taken out only where they stand alone: a `1` is part of every other word."""
_ESCAPES: Final = re.compile(
    r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[@-Z\\-_])"
)
_CONTROLS: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def as_plain_text(raw: bytes) -> str:
    """Return what a program wrote as lines of text, without colours and control characters."""
    text = raw.decode(errors="replace").replace("\r\n", "\n").replace("\r", "\n")
    return _CONTROLS.sub("", _ESCAPES.sub("", text))


def redact(text: str, values: Iterable[str]) -> str:
    """Return the text with every occurrence of the values replaced."""
    shapes = {shape for value in values for shape in _shapes(value)}
    for shape in sorted(shapes, key=len, reverse=True):
        if shape not in text:
            continue
        if len(shape) >= _LEAST_ANYWHERE:
            text = text.replace(shape, _MARK)
        else:
            text = re.sub(rf"(?<!\w){re.escape(shape)}(?!\w)", _MARK, text)
    return text


def _shapes(value: str) -> Iterator[str]:
    parts = [value, as_plain_text(value.encode(errors="replace"))]
    parts += [line for line in re.split(r"[\r\n]+", value) if line != value]
    password = _password(value)
    parts += [password, unquote(password)] if password else []
    for part in parts:
        plain = part.strip()
        if not plain.strip("*"):
            continue
        yield plain
        yield json.dumps(plain)[1:-1]
        yield json.dumps(plain, ensure_ascii=False)[1:-1]
        yield quote(plain, safe="")
        yield quote_plus(plain)
        yield base64.b64encode(part.encode(errors="replace")).decode().rstrip("=")


def _password(value: str) -> str | None:
    try:
        return urlsplit(value).password if "://" in value else None
    except ValueError:
        return None
