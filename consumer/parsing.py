"""Text becomes plain values: JSON with comments, and YAML with its scalars as written.

What a text can cost is bounded before it is paid: values are counted, depth is counted, and YAML is
read by libyaml, event by event, so that a text that goes too far is given up there. An error says
what is wrong and where, and nothing of what the text says. Nothing here waits. Before it comes
`messages`, after it `document`.
"""

import json
import re
from typing import Final

import yaml

from consumer.document import DocumentError, Number, Plain
from consumer.errors import Fault

MOST_VALUES: Final = 12_000
"""More than any document that breaks no rule can have: their lists and maps are bounded."""
DEEPEST: Final = 32
"""Lists and maps in one another; a document that breaks no rule has seven."""
_LONGEST_NAME: Final = 80

_TOO_MANY: Final = f"has more than {MOST_VALUES} values"
_TOO_DEEP: Final = f"the document is nested too deeply (more than {DEEPEST} levels)"


def as_text(body: bytes) -> str:
    """Return the body, which has to be UTF-8, without a byte order mark."""
    try:
        return body.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        rule = f"the body is not UTF-8 (byte {error.start})"
        raise DocumentError([Fault("", rule)]) from None


# --- JSON -------------------------------------------------------------------------------------


def parse_json(text: str) -> object:
    """Return the parsed JSON; `//` and `/* */` comments are taken. Raises DocumentError."""
    _check_size(text)
    try:
        content = _json(text)
    except json.JSONDecodeError as error:
        rule = f"not JSON: {error.msg} (line {error.lineno}, column {error.colno})"
        raise DocumentError([Fault("", rule)]) from None
    except DocumentError:
        raise
    except ValueError:
        # A number of more digits than Python takes (RFC 8259 leaves the limit to the reader).
        raise DocumentError([Fault("", "not JSON: a number has too many digits")]) from None
    if "\\ud" in text.lower():
        _refuse_surrogates(content)
    return content


def _json(text: str) -> object:
    try:
        return _strict_json(text)
    except json.JSONDecodeError:
        if "/" not in text:
            raise
    return _strict_json(_without_comments(text))


def _strict_json(text: str) -> object:
    content: object = json.loads(
        text,
        object_pairs_hook=_without_duplicates,
        parse_constant=_refuse_constant,
        parse_float=Number,
    )
    return content


_NO_STRUCTURE: Final = re.compile(
    r""""(?:[^"\\]++|\\.)*+"?|//[^\n]*|/\*(?:.*?\*/|.*)|[^][{},"/]++|/""", re.DOTALL
)
"""All that is neither a comma nor a bracket: strings, comments, scalars, space."""


def _check_size(text: str) -> None:
    """Refuse a text that is too deep, or of too many values, before any of them is made.

    A comma or an opening bracket stands before every value but the first, a closed bracket for
    none; in strings and comments they stand for nothing.
    """
    opening = text.count("[") + text.count("{")
    if opening <= DEEPEST and opening + text.count(",") < MOST_VALUES:
        return
    structure = _NO_STRUCTURE.sub("", text)
    if structure.count(",") + structure.count("[") + structure.count("{") >= MOST_VALUES:
        raise DocumentError([Fault("", _TOO_MANY)])
    depth = 0
    for mark in structure:
        if mark in "[{":
            depth += 1
        elif mark in "]}":
            depth -= 1
        if depth > DEEPEST:
            raise DocumentError([Fault("", _TOO_DEEP)])


def _without_duplicates(pairs: list[tuple[str, object]]) -> dict[str, object]:
    mapping = dict(pairs)
    if len(mapping) == len(pairs):
        return mapping
    known: set[str] = set()
    for name, _ in pairs:
        if name in known:
            raise _duplicate(name)
        known.add(name)
    return mapping


def _duplicate(name: str) -> DocumentError:
    # What follows an equals sign may be a value that slipped into the name.
    return DocumentError([Fault("", f"duplicate key {name.partition('=')[0][:_LONGEST_NAME]!r}")])


def _refuse_constant(text: str) -> object:
    raise DocumentError([Fault("", f"{text} is not a JSON number")])


_STRING_OR_COMMENT: Final = re.compile(
    r""""(?:[^"\\]++|\\.)*+"?|//[^\n]*|/\*(?:.*?\*/|.*)""", re.DOTALL
)
"""Takes what is left unclosed to its end, so that no text is gone through more than twice."""


def _without_comments(text: str) -> str:
    """Blank out `//` and `/* */` comments outside strings; every other character stays in place."""
    return _STRING_OR_COMMENT.sub(_blank, text)


def _blank(found: re.Match[str]) -> str:
    token = found[0]
    is_unclosed = token.startswith("/*") and not (token.endswith("*/") and len(token) >= 4)
    if token.startswith('"') or is_unclosed:
        return token
    return " " * len(token) if "\n" not in token else re.sub(r"[^\n]", " ", token)


def _refuse_surrogates(content: object) -> None:
    try:
        json.dumps(content, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        rule = "a string holds half of a surrogate pair, which is no text"
        raise DocumentError([Fault("", rule)]) from None


# --- YAML -------------------------------------------------------------------------------------

_ITS_OWN_DEPTH: Final = "exceeded maximum nesting depth"
"""libyaml's words: it looks ahead, and may come to its limit before we come to ours."""


def parse_yaml(text: str) -> object:
    """Return the one document of the text, None where there is none. Raises DocumentError.

    Unquoted scalars come as `Plain`. Aliases, tags, merge keys and duplicate keys are refused.
    """
    parser = yaml.CSafeLoader(text)
    try:
        content = _Reading(parser).document()
    except yaml.YAMLError as error:
        # libyaml's words are constants; of a mark it has the place alone.
        problem = getattr(error, "problem", None) or "not readable"
        if problem == _ITS_OWN_DEPTH:
            raise DocumentError([Fault("", _TOO_DEEP)]) from None
        where = _line(getattr(error, "problem_mark", None))
        raise DocumentError([Fault("", f"not YAML: {problem}{where}")]) from None
    finally:
        parser.dispose()
    return content


class _Reading:
    """Makes a document of libyaml's events, as they come."""

    def __init__(self, parser: yaml.CSafeLoader) -> None:
        self._parser = parser
        self._values = 0

    def document(self) -> object:
        """Return the content of the stream, which may have one document at most."""
        self._next()  # the stream begins
        if isinstance(self._next(), yaml.StreamEndEvent):
            return None
        content = self._value(self._next(), depth=0)
        self._next()  # the document ends
        beyond = self._next()
        if not isinstance(beyond, yaml.StreamEndEvent):
            rule = f"not YAML: expected a single document in the stream{_line(beyond.start_mark)}"
            raise DocumentError([Fault("", rule)])
        return content

    def _next(self) -> yaml.Event:
        return self._parser.get_event()  # type: ignore[return-value]  # None only after its end

    def _value(self, event: yaml.Event, *, depth: int) -> object:
        self._values += 1
        if self._values > MOST_VALUES:
            raise DocumentError([Fault("", _TOO_MANY)])
        _refuse_surprises(event)
        if isinstance(event, yaml.ScalarEvent):
            return str(event.value) if event.style else Plain(event.value)
        if depth == DEEPEST:
            raise DocumentError([Fault("", _TOO_DEEP)])
        if isinstance(event, yaml.MappingStartEvent):
            return self._mapping(depth + 1)
        return self._sequence(depth + 1)

    def _sequence(self, depth: int) -> list[object]:
        members: list[object] = []
        while not isinstance(event := self._next(), yaml.SequenceEndEvent):
            members.append(self._value(event, depth=depth))
        return members

    def _mapping(self, depth: int) -> dict[str, object]:
        mapping: dict[str, object] = {}
        while not isinstance(event := self._next(), yaml.MappingEndEvent):
            name = _key(event)
            value = self._value(self._next(), depth=depth)
            if name in mapping:
                raise _duplicate(name)
            mapping[name] = value
        return mapping


def _refuse_surprises(event: yaml.Event) -> None:
    if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
        raise DocumentError([Fault("", f"YAML aliases are refused{_line(event.start_mark)}")])
    if getattr(event, "tag", None):
        raise DocumentError([Fault("", f"YAML tags are refused{_line(event.start_mark)}")])


def _key(event: yaml.Event) -> str:
    _refuse_surprises(event)
    if not isinstance(event, yaml.ScalarEvent):
        raise DocumentError([Fault("", f"a YAML key has to be text{_line(event.start_mark)}")])
    if not event.style and event.value == "<<":
        raise DocumentError([Fault("", f"YAML merge keys are refused{_line(event.start_mark)}")])
    return str(event.value)


def _line(mark: object) -> str:
    line = getattr(mark, "line", None)
    return f" (line {line + 1})" if isinstance(line, int) else ""
