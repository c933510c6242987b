"""Tenant events as they could come, made from a seed: documents, envelopes and texts that are odd.

They know the structure of what they spoil: a document is valid at first, then a few of its values,
names and lists are changed; it is written as JSON or YAML in one of many ways, sometimes broken
afterwards; and sent with the type, ids, content type and CloudEvents attributes that some publisher
might give it. A part of them is valid as it is, a part has the odd frames of `frames`, a few cost
their reader as much as they can (`hostile`).
"""

import base64
import json
import random
import struct
from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass
from itertools import islice
from typing import Final

import yaml

from consumer.content_header import Entry, join, short_text, table_of, text_entry
from tests.conftest import WEB
from tests.e2e.world import examples_of_the_seed, make_document
from tests.faults.frames import RawMessage, field_value, raw_message
from tests.faults.hostile import HOSTILE, JSON, LONGEST, STRUCTURED, YAML
from tests.fields import DOCUMENTS

MARK: Final = b"x-fuzz"
"""The header by which a message of ours is known again."""
KINDS: Final = ("created", "updated", "deleted", "suspended", "resumed")
_BUSY_TENANTS: Final = 3
"""So many of them ask for an image that is there, and run."""


@dataclass(frozen=True, slots=True)
class Fuzzed:
    """A message; of a valid one also what it is about."""

    number: int
    sort: str
    key: str
    message: RawMessage
    tenant_id: str | None = None
    event_id: str | None = None


class Fuzzer:
    """Makes messages without end; the same seed makes the same ones."""

    def __init__(self, seed: int, *, tenants: int = 40) -> None:
        self._chance = random.Random(seed)
        self._seed = seed
        self._tenants = tenants
        self._generations: dict[str, int] = {}
        self._past_ids: list[str] = ["first"]
        self._number = 0

    def messages(self) -> Iterator[Fuzzed]:
        """Give messages without end."""
        sorts = list(_SORTS)
        shares = [share for share, _ in _SORTS.values()]
        while True:
            self._number += 1
            (sort,) = self._chance.choices(sorts, shares)
            yield _SORTS[sort][1](self, sort)

    # --- the sorts of messages

    def valid(self, sort: str) -> Fuzzed:
        """A document that breaks no rule; with an id of its own, and no generation."""
        tenant_id, kind = self._tenant(), self._chance.choice(KINDS)
        document = self._of(tenant_id) if kind in KINDS[:2] else {"tenant_id": tenant_id}
        event_id = f"{self._seed}-{self._number}"
        properties = {
            "message_id": short_text(event_id),
            "content_type": short_text(JSON),
            "headers": self._marked(),
        }
        body = json.dumps(document).encode()
        message = RawMessage(join(properties), _in_frames(body), is_sound=True)
        return Fuzzed(self._number, sort, f"tenant.{kind}", message, tenant_id, event_id)

    def spoilt(self, sort: str) -> Fuzzed:
        """A document with some of its values, names or lists changed, in any envelope."""
        document = self._document()
        for _ in range(self._chance.choice((0, 1, 1, 1, 2, 3, 8))):
            _CHANGES[self._chance.randrange(len(_CHANGES))](self._chance, document)
        return self._sent(sort, *self._written(document))

    def broken(self, sort: str) -> Fuzzed:
        """A text that was a document until something happened to it."""
        body, content_type = self._written(self._document())
        for _ in range(self._chance.choice((1, 1, 2))):
            body = self._chance.choice(_BREAKERS)(self._chance, body)
        return self._sent(sort, body, content_type)

    def framed(self, sort: str) -> Fuzzed:
        """Properties and frames of any kind that a broker takes, around a document."""
        body, _ = self._written(self._document())
        while not (made := raw_message(self._chance.randrange(1 << 40), body)).is_sound:
            pass
        return Fuzzed(self._number, sort, f"tenant.{self._chance.choice(KINDS)}", made)

    def hostile(self, sort: str) -> Fuzzed:
        """A body that costs its reader as much as it can."""
        hostile = self._chance.choice(HOSTILE)
        return self._sent(sort, hostile.body, hostile.content_type)

    def large(self, sort: str) -> Fuzzed:
        """A body about as long as is taken, or longer."""
        body = json.dumps(self._document()).encode()
        length = self._chance.choice((LONGEST - 1, LONGEST, LONGEST + 1, 2 * LONGEST))
        return self._sent(sort, body.rjust(length), JSON)

    # --- documents

    def _tenant(self) -> str:
        return f"fuzz-{self._chance.randrange(self._tenants)}"

    def _of(self, tenant_id: str) -> dict[str, object]:
        if int(tenant_id.rpartition("-")[2]) < _BUSY_TENANTS:
            return make_document(tenant_id, container={"env": {"N": str(self._number)}})
        container = {"image": "landlord-test/absent:1", "env": {"N": str(self._number)}}
        return make_document(
            tenant_id, container=container, provider_config={"pull_policy": "never"}
        )

    def _document(self) -> dict[str, object]:
        tenant_id = self._tenant()
        if self._chance.random() < 0.5:
            document = self._of(tenant_id)
        else:
            document = deepcopy(dict(self._chance.choice(_BASES)))
            document["tenant_id"] = tenant_id
        if self._chance.random() < 0.3:
            document["generation"] = self._generation(tenant_id)
        return document

    def _generation(self, tenant_id: str) -> object:
        if self._chance.random() < 0.15:
            return self._chance.choice((0, -1, "1", "1.0", 1.5, True, None, 2**63, 10**30, [], ""))
        number = self._generations.get(tenant_id, 0) + self._chance.choice((-1, 0, 1, 1, 1, 7))
        self._generations[tenant_id] = max(1, number)
        return max(1, number)

    # --- texts

    def _written(self, document: object) -> tuple[bytes, str | None]:
        """Return the document in one of the ways to write it, and what it says it is."""
        way = self._chance.choice(_WRITERS)
        return way(self._chance, document)

    # --- envelopes

    def _sent(self, sort: str, body: bytes, content_type: str | None) -> Fuzzed:
        chance = self._chance
        properties: dict[str, bytes] = {"headers": self._marked(*self._attributes())}
        if content_type is not None:
            properties["content_type"] = short_text(content_type)
        if chance.random() < 0.08:
            properties["content_type"] = short_text(chance.choice(_CONTENT_TYPES))
        if chance.random() < 0.8:
            properties["message_id"] = short_text(self._id())
        if chance.random() < 0.1:
            properties["type"] = short_text(chance.choice(_TYPES))
        if chance.random() < 0.2:
            properties["correlation_id"] = short_text(chance.choice(_WORDS)[:200])
        if chance.random() < 0.2:
            properties["timestamp"] = struct.pack(">Q", chance.randrange(1 << 34))
            properties["app_id"] = short_text(chance.choice(_WORDS)[:200])
            properties["priority"] = bytes((chance.randrange(10),))
            properties["delivery_mode"] = b"\2"
        message = RawMessage(join(properties), _in_frames(body), is_sound=True)
        return Fuzzed(self._number, sort, f"tenant.{chance.choice(KINDS)}", message)

    def _id(self) -> str:
        roll = self._chance.random()
        if roll < 0.05:
            return self._chance.choice(self._past_ids)
        if roll < 0.1:
            return self._chance.choice(_WORDS)[:200]
        made = f"{self._seed}-{self._number}"
        self._past_ids.append(made)
        del self._past_ids[:-100]
        return made

    def _attributes(self) -> Iterator[Entry]:
        """Give headers: CloudEvents in binary mode, a trace, or any at all."""
        chance = self._chance
        if chance.random() < 0.15:
            prefix = chance.choice(("cloudEvents:", "cloudEvents_", "ce-", "cloudevents:"))
            yield text_entry(
                f"{prefix}specversion", chance.choice(("1.0", "1.0", "1.0", "0.3", ""))
            )
            yield text_entry(f"{prefix}id", self._id())
            yield text_entry(f"{prefix}type", chance.choice(_TYPES))
            yield text_entry(f"{prefix}source", "/fuzz")
        if chance.random() < 0.1:
            yield text_entry("traceparent", chance.choice(_WORDS))
        if chance.random() < 0.1:
            yield b"x-odd", field_value(chance)

    def _marked(self, *others: Entry) -> bytes:
        return table_of([(MARK, b"I" + struct.pack(">i", self._number)), *others])


Document = dict[str, object]
Change = Callable[[random.Random, Document], None]
Break = Callable[[random.Random, bytes], bytes]
Write = Callable[[random.Random, object], tuple[bytes, str | None]]

_BASES: Final[tuple[Mapping[str, object], ...]] = (
    *DOCUMENTS.values(),
    *(
        document
        for name, text in examples_of_the_seed().items()
        if name.endswith("yaml") and isinstance(document := yaml.safe_load(text), dict)
    ),
)
_WORDS: Final = (
    "",
    " ",
    "x",
    "no",
    "~",
    "null",
    "1e999",
    "-",
    "../../etc",
    "a b",
    "\u00fcml\u00e4ut",
    "\U0001f4a5" * 40,
    "\u202egnp",
    "a\nb",
    "a\x1b[31m",
    "\x7f",
    "{{.ID}}",
    "${HOME}",
    "$(id)",
    "x" * 255,
    "x" * 5000,
    WEB,
    "registry.example:5000/team/app:1.2",
    "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
)
_TYPES: Final = (
    *(f"tenant.{kind}" for kind in KINDS),
    "tenant.sold",
    "tenant.created ",
    "Tenant.Created",
    "",
    "x" * 200,
)
_CONTENT_TYPES: Final = (
    "",
    "text/plain",
    "application/json; charset=utf-16",
    "Application/YAML;x",
    "application/xml",
    "\u00fc",
    STRUCTURED,
    YAML,
    JSON,
    "x" * 200,
)
_VALUES: Final[tuple[object, ...]] = (
    None,
    True,
    False,
    0,
    -1,
    1,
    0.5,
    65536,
    2**31,
    2**63,
    10**40,
    1e300,
    [],
    {},
    [[]],
    {"": ""},
    [None],
    ["x"] * 2000,
    {str(place): place for place in range(2000)},
    {"a": {"b": {"c": {"d": []}}}},
    *_WORDS,
)


# --- changing a document ------------------------------------------------------------------------


def _places(value: object) -> Iterator[Document | list[object]]:
    """Give every map and list of the document."""
    if isinstance(value, dict):
        yield value
    if isinstance(value, list):
        yield value
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    for member in inner:
        yield from _places(member)


def _some_place(
    chance: random.Random, document: Document
) -> tuple[Document | list[object], object]:
    place = chance.choice(list(islice(_places(document), 300)))
    keys: list[object] = list(place) if isinstance(place, dict) else list(range(len(place)))
    return place, chance.choice(keys) if keys else None


def _set(place: Document | list[object], key: object, value: object) -> None:
    if isinstance(place, dict):
        place[str(key)] = value
    elif isinstance(key, int):
        place[key] = value
    else:
        place.append(value)


def _get(place: Document | list[object], key: object) -> object:
    if isinstance(place, dict):
        return place.get(str(key))
    return place[key] if isinstance(key, int) else None


def _value(chance: random.Random) -> object:
    return deepcopy(chance.choice(_VALUES))


def _other_value(chance: random.Random, document: Document) -> None:
    _set(*_some_place(chance, document), _value(chance))


def _moved_value(chance: random.Random, document: Document) -> None:
    moved = deepcopy(_get(*_some_place(chance, document)))
    _set(*_some_place(chance, document), moved)


def _wrapped_value(chance: random.Random, document: Document) -> None:
    place, key = _some_place(chance, document)
    value = _get(place, key)
    many = [value] * (1 if isinstance(value, dict | list) else 300)
    _set(place, key, chance.choice((many, [value], {"value": value}, str(value)[:10_000])))


def _no_value(chance: random.Random, document: Document) -> None:
    place, key = _some_place(chance, document)
    if isinstance(place, dict):
        place.pop(str(key), None)
    elif place:
        place.pop()


def _other_name(chance: random.Random, document: Document) -> None:
    place, key = _some_place(chance, document)
    if isinstance(place, dict) and key is not None:
        name = str(key)
        value = place.pop(name)
        other = chance.choice((name.upper(), f"{name} ", name[1:], f"{name}s", *_WORDS))
        place[other] = value


def _one_more(chance: random.Random, document: Document) -> None:
    place, _ = _some_place(chance, document)
    if isinstance(place, dict):
        place[chance.choice(_WORDS)] = _value(chance)
    else:
        place.append(deepcopy(chance.choice(place)) if place else _value(chance))


_CHANGES: Final[tuple[Change, ...]] = (
    _other_value,
    _other_value,
    _moved_value,
    _wrapped_value,
    _no_value,
    _other_name,
    _one_more,
)


# --- writing it ---------------------------------------------------------------------------------


def _as_json(chance: random.Random, document: object) -> tuple[bytes, str | None]:
    text = json.dumps(
        document,
        ensure_ascii=chance.random() < 0.5,
        indent=chance.choice((None, None, 2, "\t")),
        allow_nan=True,
    )
    return text.encode("utf-8", "replace"), chance.choice((JSON, JSON, None))


def _as_commented_json(chance: random.Random, document: object) -> tuple[bytes, str | None]:
    text = json.dumps(document, indent=1)
    comment = chance.choice((" // here\n", " /* there */\n", ' // "\n', " /* // */\n", " /*\n*/\n"))
    return text.replace(",\n", f",{comment}", chance.randrange(1, 9)).encode(), JSON


def _as_yaml(chance: random.Random, document: object) -> tuple[bytes, str | None]:
    text = yaml.safe_dump(
        json.loads(json.dumps(document)),
        default_flow_style=chance.choice((True, False, None)),
        allow_unicode=chance.random() < 0.5,
        width=chance.choice((20, 80, 10_000)),
        explicit_start=chance.random() < 0.2,
    )
    return text.encode("utf-8", "replace"), chance.choice((YAML, YAML, "application/x-yaml"))


def _as_cloud_event(chance: random.Random, document: object) -> tuple[bytes, str | None]:
    event: Document = {
        "specversion": "1.0",
        "type": f"tenant.{chance.choice(KINDS)}",
        "id": f"ce-{chance.randrange(1 << 40)}",
        "source": "/fuzz",
    }
    way = chance.random()
    if way < 0.5:
        event["data"] = document
    elif way < 0.75:
        event["data_base64"] = base64.b64encode(_as_json(chance, document)[0]).decode()
    else:
        event |= {"datacontenttype": YAML, "data": _as_yaml(chance, document)[0].decode()}
    if chance.random() < 0.3:
        _CHANGES[chance.randrange(len(_CHANGES))](chance, event)
    return json.dumps(event).encode(), chance.choice((STRUCTURED, f"{STRUCTURED}; charset=utf-8"))


_WRITERS: Final[tuple[Write, ...]] = (
    _as_json,
    _as_json,
    _as_commented_json,
    _as_yaml,
    _as_yaml,
    _as_cloud_event,
)


# --- breaking it --------------------------------------------------------------------------------

_PIECES: Final = (
    b"",
    b"\0",
    b"\xff",
    b"\xef\xbb\xbf",
    b"\r",
    b"\t",
    b"\xc2\x85",
    b"{",
    b"[" * 50,
    b"}",
    b'"',
    b"'",
    b"\\",
    b"\\ud800",
    b"/*",
    b"//",
    b"&a ",
    b"*a",
    b"!x ",
    b"<<: ",
    b"---\n",
    b"%YAML 1.1\n",
    b": ",
    b"- ",
    b"? ",
    b"| ",
    b"NaN",
    b"-0",
    b"1" * 5000,
    b'"tenant_id": "other", ',
)


def _with_a_piece(chance: random.Random, body: bytes) -> bytes:
    place = chance.randrange(len(body) + 1)
    return body[:place] + chance.choice(_PIECES) + body[place:]


def _cut_off(chance: random.Random, body: bytes) -> bytes:
    return body[: chance.randrange(len(body) + 1)]


def _without_a_part(chance: random.Random, body: bytes) -> bytes:
    place = chance.randrange(len(body) + 1)
    return body[:place] + body[place + chance.randrange(20) :]


def _doubled(chance: random.Random, body: bytes) -> bytes:
    place = chance.randrange(len(body) + 1)
    return body[:place] + body[chance.randrange(len(body) + 1) :]


def _other_byte(chance: random.Random, body: bytes) -> bytes:
    place = chance.randrange(len(body) + 1)
    return body[:place] + chance.randbytes(1) + body[place + 1 :]


def _other_encoding(chance: random.Random, body: bytes) -> bytes:
    text = body.decode("utf-8", "replace")
    return text.encode(chance.choice(("utf-16", "utf-32", "latin-1", "utf-8-sig")), "replace")


_BREAKERS: Final[tuple[Break, ...]] = (
    _with_a_piece,
    _with_a_piece,
    _cut_off,
    _without_a_part,
    _doubled,
    _other_byte,
    _other_encoding,
)

_SORTS: Final[Mapping[str, tuple[float, Callable[[Fuzzer, str], Fuzzed]]]] = {
    "valid": (10, Fuzzer.valid),
    "spoilt": (50, Fuzzer.spoilt),
    "broken": (24, Fuzzer.broken),
    "framed": (15, Fuzzer.framed),
    "hostile": (0.7, Fuzzer.hostile),
    "large": (0.3, Fuzzer.large),
}


def _in_frames(body: bytes) -> tuple[bytes, ...]:
    return tuple(body[at : at + 100_000] for at in range(0, len(body), 100_000))
