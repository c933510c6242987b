"""The properties and headers of an AMQP message: read without ever failing, kept byte for byte.

Whatever a broker passes on is read here: what is well formed becomes what the client library makes
of it (a property test holds both together), what is not becomes its raw bytes and a fault that
names it. Nothing raises, however odd the bytes, and no table is read deeper or longer than a
message of ours could need. The raw bytes are split and joined again without being understood, so
that what is passed on is what came.
"""

import struct
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from typing import Final

from consumer.errors import Fault

EMPTY: Final = b"\0\0"
"""Properties of which none is set."""
NO_HEADERS: Final = b"\0\0\0\0"
MOST_VALUES: Final = 4096
"""Of all tables and arrays of one message together."""
DEEPEST: Final = 32
_MOST_FAULTS: Final = 16
_LONGEST_NAME: Final = 255

_NAMES: Final = (
    ("content_type", 15),
    ("content_encoding", 14),
    ("headers", 13),
    ("delivery_mode", 12),
    ("priority", 11),
    ("correlation_id", 10),
    ("reply_to", 9),
    ("expiration", 8),
    ("message_id", 7),
    ("timestamp", 6),
    ("type", 5),
    ("user_id", 4),
    ("app_id", 3),
    ("cluster_id", 2),
)
"""In the order of their values; each with its bit among the flags."""
_FLAGS: Final = tuple((name, 1 << bit) for name, bit in _NAMES)
_UNKNOWN_FLAGS: Final = 0b11
_OCTETS: Final = frozenset(("delivery_mode", "priority"))
_TEXTS: Final = frozenset(name for name, _ in _NAMES) - _OCTETS - {"timestamp", "headers"}

_U16: Final = struct.Struct(">H")
_U32: Final = struct.Struct(">I")
_U64: Final = struct.Struct(">Q")
_DECIMAL: Final = struct.Struct(">Bi")
_NUMBERS: Final = {
    ord(tag): struct.Struct(form)
    for tag, form in (
        ("b", ">b"),
        ("B", ">B"),
        ("s", ">h"),
        ("u", ">H"),
        ("I", ">i"),
        ("i", ">I"),
        ("l", ">q"),
        ("L", ">q"),
        ("f", ">f"),
        ("d", ">d"),
    )
}
_BOOLEAN, _DECIMALS, _TIME = ord("t"), ord("D"), ord("T")
_TEXT, _BYTES, _ARRAY, _TABLE = ord("S"), ord("x"), ord("A"), ord("F")
_VOIDS: Final = frozenset((ord("V"), 0))
_SIZES: Final = {
    **{tag: form.size for tag, form in _NUMBERS.items()},
    **dict.fromkeys(_VOIDS, 0),
    _BOOLEAN: 1,
    _DECIMALS: 5,
    _TIME: 8,
}
_LONG: Final = frozenset((_TEXT, _BYTES, _ARRAY, _TABLE))
"""Types that begin with their length."""
_MILLISECONDS_FROM: Final = 0xFFFFFFFF
"""A time beyond it is told in milliseconds."""


class Malformed(Exception):
    """The bytes are not what they should be; never shown to anybody but as a fault."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Properties:
    """What can be read of a message's properties.

    `values` are the properties that are set, by their AMQP names, without the headers. What could
    not be read has its raw bytes for a value.
    """

    values: Mapping[str, object] = field(default_factory=dict)
    headers: Mapping[str, object] = field(default_factory=dict)
    faults: tuple[Fault, ...] = ()

    def text(self, name: str) -> str | None:
        """Return the property if it is a text."""
        value = self.values.get(name)
        return value if isinstance(value, str) else None


def read(raw: bytes) -> Properties:
    """Return what can be read of the bytes behind a content header's body size."""
    values: dict[str, object] = {}
    reading = _Reading()
    try:
        for name, value in _split(raw):
            values[name] = reading.property(name, value)
    except Malformed as error:
        reading.blame("properties", str(error))
    headers = values.pop("headers", {})
    return Properties(
        values=values,
        headers=headers if isinstance(headers, dict) else {},
        faults=tuple(reading.faults),
    )


def split(raw: bytes) -> dict[str, bytes]:
    """Return the bytes of each property that is set. Raises Malformed."""
    return dict(_split(raw))


def join(parts: Mapping[str, bytes]) -> bytes:
    """Return the bytes of these properties together: the reverse of `split`."""
    flags = sum(flag for name, flag in _FLAGS if name in parts)
    return _U16.pack(flags) + b"".join(parts[name] for name, _ in _NAMES if name in parts)


def _split(raw: bytes) -> Iterator[tuple[str, bytes]]:
    if len(raw) < _U16.size:
        raise Malformed("the flags are cut off")
    (flags,) = _U16.unpack_from(raw)
    offset, size = _U16.size, len(raw)
    for name, flag in _FLAGS:
        if flags & flag:
            end = offset + _property_size(raw, name, offset)
            if end > size:
                raise Malformed(f"{name} is cut off")
            yield name, raw[offset:end]
            offset = end
    if flags & _UNKNOWN_FLAGS:
        raise Malformed("a property is set that nobody knows")
    if offset != size:
        raise Malformed("more bytes than the properties that are set")


def _property_size(raw: bytes, name: str, offset: int) -> int:
    if name in _TEXTS:
        return (raw[offset] if offset < len(raw) else 0) + 1
    if name in _OCTETS:
        return 1
    return _U64.size if name == "timestamp" else _length(raw, offset) + _U32.size


def _length(raw: bytes, offset: int) -> int:
    if offset + _U32.size > len(raw):
        raise Malformed("a length is cut off")
    return int(_U32.unpack_from(raw, offset)[0])


# --- headers, without looking into their values -------------------------------------------------

Entry = tuple[bytes, bytes]
"""A header: its name, and its value with the type before it."""


def entries(table: bytes) -> list[Entry]:
    """Return the headers of a table, given with its length, in their order. Raises Malformed."""
    found: list[Entry] = []
    offset, end = _U32.size, len(table)
    if _length(table, 0) != end - offset:
        raise Malformed("the table's length is not that of its bytes")
    while offset < end:
        name_end = offset + 1 + table[offset]
        value_end = name_end + _value_size(table, name_end, end)
        if value_end > end:
            raise Malformed("a header is cut off")
        found.append((table[offset + 1 : name_end], table[name_end:value_end]))
        offset = value_end
    return found


def renamed(table: bytes, name_of: Callable[[bytes], bytes]) -> bytes | None:
    """Return the table with each header under the name its own becomes; None if that is too long.

    What keeps its name is copied as it lies: of tens of thousands it costs as little as can be.
    Raises Malformed.
    """
    parts: list[bytes] = []
    has_fit = True
    offset, copied, end = _U32.size, _U32.size, len(table)
    if _length(table, 0) != end - offset:
        raise Malformed("the table's length is not that of its bytes")
    while offset < end:
        name_end = offset + 1 + table[offset]
        name = table[offset + 1 : name_end]
        other = name_of(name)
        if other is not name:
            has_fit = has_fit and len(other) <= _LONGEST_NAME
            parts += (table[copied:offset], bytes((len(other) & 0xFF,)), other)
            copied = name_end
        offset = name_end + _value_size(table, name_end, end)
        if offset > end:
            raise Malformed("a header is cut off")
    body = b"".join((*parts, table[copied:]))
    return _U32.pack(len(body)) + body if has_fit else None


def joined(table: bytes, headers: Iterable[Entry]) -> bytes:
    """Return the table with these headers after its own."""
    body = table[_U32.size :] + table_of(headers)[_U32.size :]
    return _U32.pack(len(body)) + body


def table_of(headers: Iterable[Entry]) -> bytes:
    """Return these headers as a table with its length: the reverse of `entries`."""
    body = b"".join(
        b"".join((bytes((len(name),)), name, value))
        for name, value in headers
        if len(name) <= _LONGEST_NAME
    )
    return _U32.pack(len(body)) + body


def text_entry(name: str, value: str) -> Entry:
    """Return a header that is a text."""
    encoded = value.encode("utf-8", "replace")
    return name.encode(), b"S" + _U32.pack(len(encoded)) + encoded


def bytes_entry(name: str, value: bytes) -> Entry:
    """Return a header that is a row of bytes."""
    return name.encode(), b"x" + _U32.pack(len(value)) + value


def number_entry(name: str, value: int) -> Entry:
    """Return a header that is a whole number of 32 bits."""
    return name.encode(), b"I" + struct.pack(">i", value)


def short_text(value: str) -> bytes:
    """Return a property that is a text; what is too long is cut."""
    encoded = value.encode("utf-8", "replace")[:_LONGEST_NAME]
    return bytes((len(encoded),)) + encoded


def _value_size(raw: bytes, offset: int, end: int) -> int:
    if offset >= end:
        raise Malformed("a value is missing")
    tag = raw[offset]
    if tag in _LONG:
        return 1 + _U32.size + _length(raw, offset + 1)
    size = _SIZES.get(tag)
    if size is None:
        raise Malformed(f"a value has the type {chr(tag)!r}, which nobody knows")
    return 1 + size


# --- reading ------------------------------------------------------------------------------------


class _Reading:
    """One message being read: what was found wrong, and how much may still be read."""

    def __init__(self) -> None:
        self.faults: list[Fault] = []
        self._left = MOST_VALUES

    def blame(self, path: str, rule: str) -> None:
        if len(self.faults) < _MOST_FAULTS:
            self.faults.append(Fault(path, rule))

    def property(self, name: str, raw: bytes) -> object:
        if name in _TEXTS:
            try:
                return raw[1:].decode()
            except UnicodeDecodeError:
                self.blame(name, "is not UTF-8")
                return raw[1:]
        if name in _OCTETS:
            return raw[0]
        if name == "timestamp":
            return self._time(raw, name)
        return self._table(raw, _U32.size, len(raw), name, 0)

    def _time(self, raw: bytes, path: str) -> object:
        seconds = _U64.unpack(raw)[0]
        try:
            return datetime.fromtimestamp(
                seconds / 1000.0 if seconds > _MILLISECONDS_FROM else seconds, tz=UTC
            )
        except (ValueError, OverflowError, OSError):
            self.blame(path, f"is not a time that can be told: {seconds}")
            return raw

    def _table(self, raw: bytes, offset: int, end: int, path: str, depth: int) -> object:
        """Return the table; of one that breaks off, what comes before."""
        table: dict[str, object] = {}
        try:
            while offset < end:
                name_end = offset + 1 + raw[offset]
                name = self._name(raw[offset + 1 : name_end], path)
                offset = name_end + _value_size(raw, name_end, end)
                table[name] = self._value(raw, name_end, (offset, end), f"{path}.{name}", depth)
        except Malformed as error:
            self.blame(path, str(error))
        return table

    def _array(self, raw: bytes, offset: int, end: int, path: str, depth: int) -> object:
        array: list[object] = []
        try:
            while offset < end:
                begin, offset = offset, offset + _value_size(raw, offset, end)
                place = f"{path}[{len(array)}]"
                array.append(self._value(raw, begin, (offset, end), place, depth))
        except Malformed as error:
            self.blame(path, str(error))
        return array

    def _name(self, raw: bytes, path: str) -> str:
        try:
            return raw.decode()
        except UnicodeDecodeError:
            self.blame(path, "has a name that is not UTF-8")
            return raw.decode("utf-8", "backslashreplace")

    def _value(
        self, raw: bytes, offset: int, ends: tuple[int, int], path: str, depth: int
    ) -> object:
        end, most = ends
        if end > most:
            raise Malformed("a value is cut off")
        self._left -= 1
        if self._left < 0:
            raise Malformed(f"has more than {MOST_VALUES} values")
        tag, offset = raw[offset], offset + 1
        number = _NUMBERS.get(tag)
        if number is not None:
            return number.unpack_from(raw, offset)[0]
        if tag in _LONG:
            return self._long(tag, raw, (offset + _U32.size, end), path, depth)
        if tag == _BOOLEAN:
            return bool(raw[offset])
        if tag == _TIME:
            return self._time(raw[offset:end], path)
        if tag == _DECIMALS:
            places, whole = _DECIMAL.unpack_from(raw, offset)
            return Decimal(whole) * (Decimal(10) ** -places)
        return None

    def _long(self, tag: int, raw: bytes, bounds: tuple[int, int], path: str, depth: int) -> object:
        offset, end = bounds
        if tag == _BYTES:
            return bytearray(raw[offset:end])
        if tag == _TEXT:
            text = raw[offset:end]
            try:
                return text.decode()
            except UnicodeDecodeError:
                return text
        if depth >= DEEPEST:
            self.blame(path, "is nested too deeply")
            return raw[offset:end]
        inner = self._array if tag == _ARRAY else self._table
        return inner(raw, offset, end, path, depth + 1)
