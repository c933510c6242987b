"""Take out of a text what only its tenant may know.

Pure, and linear in what is read: each value is gone over once to write down the forms it is looked
for in, the text once to find them. However many values there are, and whatever they have in common
with each other and with the text, nothing is multiplied. What would be too much is refused by
`forms_of`; then nothing of the text may be told.

A value is found in these forms, and in no others: as it stands and line by line; each of these
also as JSON strings hold it and as URLs and forms do; the whole value also in base64 (by itself or
within something longer, both alphabets) and in hexadecimal. Of a URL with a login, the password
alone as well. Of a form longer than 64 characters also any 64 of it in a row. A value shorter than
4 characters is taken out only where it stands alone as a word, as a `1` is part of every other.
"""

import base64
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote, quote_plus, unquote, urlsplit

_MARK: Final = "***"
_LEAST_ANYWHERE: Final = 4
PIECE: Final = 64
"""So much of a longer form gives it away; also how much of a text has to be seen before what is
told of it, for a value that begins there to be known."""
_BLOCK: Final = PIECE // 2
"""A piece holds at least one whole block, counted from the beginning of its form."""
_MOST_CHARS: Final = 16 * 1024 * 1024
"""Of all forms together: more than those of any document that is taken."""
_MOST_FORMS: Final = 100_000
_LINE_ENDS: Final = re.compile(r"[\r\n]+")
_UNCHANGED: Final = re.compile(r"[A-Za-z0-9_.~-]*")
"""What JSON and URLs hold as it stands."""
_HTML_IN_JSON: Final = str.maketrans({"<": r"\u003c", ">": r"\u003e", "&": r"\u0026"})
_ESCAPES: Final = re.compile(
    r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[@-Z\\-_])"
)
_CONTROLS: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def as_plain_text(raw: bytes) -> str:
    """Return what a program wrote as lines of text, without colours and control characters."""
    text = raw.decode(errors="replace").replace("\r\n", "\n").replace("\r", "\n")
    return _CONTROLS.sub("", _ESCAPES.sub("", text))


@dataclass(frozen=True, slots=True)
class Forms:
    """What is looked for."""

    alone: frozenset[str]
    """Shorter than can be taken out anywhere."""
    whole: frozenset[str]
    """Up to the length of a piece."""
    long: tuple[str, ...]


def forms_of(values: Iterable[str]) -> Forms | None:
    """Return the forms in which the values are looked for; None where they are too many."""
    forms: set[str] = set()
    chars = 0
    for value in dict.fromkeys(values):
        if len(value) > _MOST_CHARS:
            return None
        for form in _forms(value):
            if form not in forms:
                forms.add(form)
                chars += len(form)
            if chars > _MOST_CHARS or len(forms) > _MOST_FORMS:
                return None
    return Forms(
        alone=frozenset(form for form in forms if len(form) < _LEAST_ANYWHERE),
        whole=frozenset(form for form in forms if _LEAST_ANYWHERE <= len(form) <= PIECE),
        long=tuple(form for form in forms if len(form) > PIECE),
    )


def _forms(value: str) -> Iterator[str]:
    for whole in (value, *_passwords(value)):
        plain = whole.strip()
        if not plain.strip("*"):
            continue
        yield from _as_strings_hold(plain)
        yield from _as_strings_hold(as_plain_text(plain.encode(errors="replace")))
        if len(plain) >= _LEAST_ANYWHERE:
            yield from _as_bytes_are_told(whole)
            if plain != whole:
                yield from _as_bytes_are_told(plain)
    lines = _LINE_ENDS.split(value)
    for line in map(str.strip, lines if len(lines) > 1 else ()):
        if len(line) >= _LEAST_ANYWHERE and line.strip("*"):
            yield from _as_strings_hold(line)


def _as_strings_hold(plain: str) -> Iterator[str]:
    yield plain
    if _UNCHANGED.fullmatch(plain):
        return
    for in_json in (json.dumps(plain)[1:-1], json.dumps(plain, ensure_ascii=False)[1:-1]):
        yield in_json
        yield in_json.translate(_HTML_IN_JSON)
        yield in_json.replace("/", r"\/")
    for in_url in (quote(plain, safe="", errors="replace"), quote_plus(plain, errors="replace")):
        yield in_url
        yield _with_small_digits(in_url)
    yield quote(plain, errors="replace")


def _with_small_digits(in_url: str) -> str:
    first, *rest = in_url.split("%")
    return "%".join((first, *(f"{part[:2].lower()}{part[2:]}" for part in rest)))


def _as_bytes_are_told(plain: str) -> Iterator[str]:
    raw = plain.encode(errors="replace")
    yield raw.hex()
    yield raw.hex().upper()
    for before in range(3):
        # Within something longer it may begin at any of three places of a group of four; what its
        # neighbours have a part in is left out.
        filled = b"\0" * before + raw
        told = base64.b64encode(filled).decode().rstrip("=")
        inner = told[(before * 8 + 5) // 6 : len(filled) * 8 // 6]
        if len(inner) >= _LEAST_ANYWHERE:
            yield inner
            yield inner.replace("+", "-").replace("/", "_")
        if before == 0:
            yield told
            yield told.replace("+", "-").replace("/", "_")


def _passwords(value: str) -> tuple[str, ...]:
    try:
        password = urlsplit(value).password if "://" in value else None
    except ValueError:
        return ()
    return (password, unquote(password)) if password else ()


def redact(text: str, forms: Forms, *, most_told: int | None = None) -> str:
    """Return the text with everything replaced that is part of one of the forms.

    Of a text that was cut off at its beginning, at most the last `most_told` characters are told: a
    form that ends among them is known by what is seen of it, if that is `PIECE` more.
    """
    hidden = bytearray(len(text))
    _hide_whole(text, forms.whole, hidden)
    _hide_pieces(text, forms.long, hidden)
    _hide_alone(text, forms.alone, hidden)
    begin = 0 if most_told is None else max(len(text) - most_told, 0)
    return _without(text[begin:], hidden[begin:])


def _hide_whole(text: str, forms: frozenset[str], hidden: bytearray) -> None:
    """Hide, at each place, the longest form that begins there; the shorter ones lie within it."""
    lengths: dict[str, set[int]] = {}
    for form in forms:
        lengths.setdefault(form[:_LEAST_ANYWHERE], set()).add(len(form))
    longest_first = {start: sorted(found, reverse=True) for start, found in lengths.items()}
    for at in range(len(text) - _LEAST_ANYWHERE + 1):
        for length in longest_first.get(text[at : at + _LEAST_ANYWHERE], ()):
            if text[at : at + length] in forms:
                hidden[at : at + length] = b"\1" * length
                break


def _hide_pieces(text: str, forms: tuple[str, ...], hidden: bytearray) -> None:
    if not forms:
        return
    blocks = {text[at : at + _BLOCK] for at in range(len(text) - _BLOCK + 1)}
    pieces = {text[at : at + PIECE] for at in range(len(text) - PIECE + 1)}
    found: set[str] = set()
    for form in forms:
        # Nearly always, nothing of it is there, and that is seen at a few places.
        starts = range(0, len(form) - _BLOCK + 1, _BLOCK)
        if any(form[at : at + _BLOCK] in blocks for at in starts):
            here = (form[at : at + PIECE] for at in range(len(form) - PIECE + 1))
            found.update(piece for piece in here if piece in pieces)
    if not found:
        return
    for at in range(len(text) - PIECE + 1):
        if text[at : at + PIECE] in found:
            hidden[at : at + PIECE] = b"\1" * PIECE


def _hide_alone(text: str, forms: frozenset[str], hidden: bytearray) -> None:
    if not forms:
        return
    for length in range(1, _LEAST_ANYWHERE):
        for at in range(len(text) - length + 1):
            if text[at : at + length] in forms and _is_alone(text, at, at + length):
                hidden[at : at + length] = b"\1" * length


def _is_alone(text: str, begin: int, end: int) -> bool:
    return not (_is_word(text[begin - 1 : begin]) or _is_word(text[end : end + 1]))


def _is_word(char: str) -> bool:
    return char.isalnum() or char == "_"


def _without(text: str, hidden: bytearray) -> str:
    parts: list[str] = []
    at = 0
    for run in re.finditer(rb"\x01+", hidden):
        parts += [text[at : run.start()], _MARK]
        at = run.end()
    return "".join((*parts, text[at:]))
