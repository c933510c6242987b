"""Properties and headers are read without ever failing, as the library reads them, and kept."""

import random
import struct
from collections.abc import Mapping
from dataclasses import fields
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pamqp.header import ContentHeader

from consumer.content_header import (
    DEEPEST,
    EMPTY,
    MOST_VALUES,
    NO_HEADERS,
    Malformed,
    Properties,
    entries,
    join,
    read,
    renamed,
    split,
    table_of,
    text_entry,
)
from tests.faults.frames import field_value, raw_message

ALIKE = {"message_type": "type"}


def as_the_library_reads(raw: bytes) -> tuple[Mapping[str, object], Mapping[str, object]]:
    """Return properties and headers as the client library decodes them."""
    header = ContentHeader()
    header.unmarshal(struct.pack(">HHQ", 60, 0, 0) + raw)
    told = {ALIKE.get(name, name): value for name, value in header.properties}
    flagged = split(raw).keys() - {"headers"}
    values = {name: value for name, value in told.items() if name in flagged}
    return values, header.properties.headers or {}


def long_bytes(value: bytes) -> bytes:
    return struct.pack(">I", len(value)) + value


# --- valid ones, as the library has them -------------------------------------------------------

names = st.text(max_size=20).map(lambda text: text.encode()[:60].decode("utf-8", "ignore").encode())
short_texts = st.text(max_size=60).map(str.encode).map(lambda text: bytes((len(text),)) + text)
times = st.one_of(st.integers(0, 253402300799), st.integers(1 << 32, 253402300799999)).map(
    lambda seconds: struct.pack(">Q", seconds)
)


def sized(tag: bytes, count: int) -> st.SearchStrategy[bytes]:
    return st.binary(min_size=count, max_size=count).map(lambda value: tag + value)


scalars = st.one_of(
    *(sized(tag, 1) for tag in (b"t", b"b", b"B")),
    *(sized(tag, 2) for tag in (b"s", b"u")),
    *(sized(tag, 4) for tag in (b"I", b"i")),
    *(sized(tag, 8) for tag in (b"l", b"L")),
    st.floats(width=32, allow_nan=False).map(lambda value: b"f" + struct.pack(">f", value)),
    st.floats(allow_nan=False).map(lambda value: b"d" + struct.pack(">d", value)),
    sized(b"D", 5),
    times.map(lambda value: b"T" + value),
    st.binary(max_size=40).map(lambda value: b"S" + long_bytes(value)),
    st.binary(max_size=40).map(lambda value: b"x" + long_bytes(value)),
    st.sampled_from([b"V", b"\0"]),
)
values = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4).map(lambda items: b"A" + long_bytes(b"".join(items))),
        st.lists(st.tuples(names, inner), max_size=4).map(lambda found: b"F" + table_of(found)),
    ),
    max_leaves=12,
)
tables = st.lists(st.tuples(names, values), max_size=6).map(table_of)
octets = st.binary(min_size=1, max_size=1)
valid = st.fixed_dictionaries(
    {},
    optional={
        "content_type": short_texts,
        "content_encoding": short_texts,
        "headers": tables,
        "delivery_mode": octets,
        "priority": octets,
        "correlation_id": short_texts,
        "reply_to": short_texts,
        "expiration": short_texts,
        "message_id": short_texts,
        "timestamp": times,
        "type": short_texts,
        "user_id": short_texts,
        "app_id": short_texts,
        "cluster_id": short_texts,
    },
).map(join)


@given(valid)
def test_valid_properties_are_read_as_the_library_reads_them(raw: bytes) -> None:
    """Every type, nested too; so nobody notices that it is another decoder."""
    told = read(raw)

    assert (told.values, told.headers) == as_the_library_reads(raw)
    assert told.faults == ()


@given(valid)
def test_valid_properties_are_the_same_bytes_again(raw: bytes) -> None:
    """Taken apart and put together."""
    parts = split(raw)

    assert join(parts) == raw
    if "headers" in parts:
        assert table_of(entries(parts["headers"])) == parts["headers"]


# --- odd ones ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("raw", "name", "value"),
    [
        (join({"correlation_id": b"\2\xff\xfe"}), "correlation_id", b"\xff\xfe"),
        (join({"message_id": b"\1\xe4"}), "message_id", b"\xe4"),
        (join({"timestamp": struct.pack(">Q", 1 << 62)}), "timestamp", struct.pack(">Q", 1 << 62)),
    ],
)
def test_a_property_that_cannot_be_read_is_its_bytes(raw: bytes, name: str, value: bytes) -> None:
    """And a fault with its name; what stands beside it is read."""
    told = read(join({**split(raw), "app_id": b"\1a"}))

    assert told.values == {name: value, "app_id": "a"}
    assert [fault.field for fault in told.faults] == [name]
    assert told.text(name) is None
    assert told.text("app_id") == "a"


def test_a_header_that_cannot_be_read_is_its_bytes() -> None:
    """Named by its path, also within others; the ones after it are read."""
    time = b"T" + struct.pack(">Q", 1 << 62)
    inner = b"A" + long_bytes(b"V" + time)
    table = table_of([(b"a", b"F" + table_of([(b"b", inner)])), (b"c", b"t\1")])

    told = read(join({"headers": table}))

    assert told.headers == {"a": {"b": [None, time[1:]]}, "c": True}
    assert [fault.field for fault in told.faults] == ["headers.a.b[1]"]


def test_a_name_that_is_no_text_is_a_fault() -> None:
    """Its header is told all the same."""
    told = read(join({"headers": table_of([(b"\xff", b"V")])}))

    assert told.headers == {"\\xff": None}
    assert len(told.faults) == 1


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"\0",
        b"\0\1",
        b"\0\2\0\0",
        EMPTY + b"more",
        b"\x80\0\5cut",
        b"\x20\0\0\0\0\5cut",
        b"\x20\0\0\0",
        b"\0\x40\0\0\0",
        join({"headers": table_of([(b"x", b"Zwhat")])}),
        join({"headers": table_of([(b"x", b"S\xff\xff\xff\xff")])}),
        join({"headers": b"\0\0\0\1\5"}),
    ],
)
def test_what_is_no_properties_is_a_fault(raw: bytes) -> None:
    """Whatever of them could be read is there; nothing raises."""
    assert read(raw).faults


@pytest.mark.parametrize("raw", [b"", EMPTY + b"more", b"\x80\0\5cut", b"\0\1"])
def test_what_is_no_properties_is_not_taken_apart(raw: bytes) -> None:
    """Whoever passes it on has to find another way."""
    with pytest.raises(Malformed):
        split(raw)


@pytest.mark.parametrize("table", [b"", b"\0\0\0\4abc", b"\0\0\0\1\5", b"\0\0\0\3\1xZ"])
def test_what_is_no_table_is_not_taken_apart(table: bytes) -> None:
    """As with properties."""
    with pytest.raises(Malformed):
        entries(table)


def test_a_table_is_not_read_deeper_than_anybody_needs() -> None:
    """Where the library would end in a RecursionError."""
    value = b"V"
    for _ in range(10_000):
        value = b"F" + long_bytes(b"\0" + value)

    told = read(join({"headers": table_of([(b"deep", value)])}))

    assert [fault.rule for fault in told.faults] == ["is nested too deeply"]


def test_a_table_of_a_few_levels_is_read() -> None:
    """As deep as is said."""
    value = b"V"
    for _ in range(DEEPEST):
        value = b"A" + long_bytes(value)

    assert read(join({"headers": table_of([(b"deep", value)])})).faults == ()


def test_a_table_is_not_read_longer_than_anybody_needs() -> None:
    """60,000 values cost the memory and the time of some thousands."""
    table = table_of((b"", b"V") for _ in range(60_000))
    names = table_of((b"%d" % number, b"V") for number in range(MOST_VALUES + 1))

    assert len(read(join({"headers": names})).headers) == MOST_VALUES
    assert "more than" in read(join({"headers": table})).faults[0].rule


def test_faults_are_told_up_to_a_number() -> None:
    """A thousand of one kind help nobody."""
    time = b"T" + struct.pack(">Q", 1 << 62)

    assert len(read(join({"headers": table_of([(b"x", time)] * 1000)})).faults) == 16


def test_a_text_with_half_a_character_can_be_sent() -> None:
    """JSON may hold a lone surrogate, which no UTF-8 has."""
    name, value = text_entry("landlord-error", "\ud800")

    assert (name, value) == (b"landlord-error", b"S\0\0\0\1?")


def test_a_header_name_that_is_too_long_is_left_out() -> None:
    """There is no way to write it."""
    assert entries(table_of([(b"n" * 256, b"V"), (b"x", b"V")])) == [(b"x", b"V")]


# --- the fuzzer --------------------------------------------------------------------------------


@pytest.mark.parametrize("block", range(4))
def test_no_message_of_the_fuzzer_raises(block: int) -> None:
    """Thousands of them; what is sound is the same bytes again, and its values are the library's.

    As far as the library reads them at all.
    """
    for seed in range(block * 1000, block * 1000 + 1000):
        message = raw_message(seed)
        told = read(message.properties)
        assert {field.name for field in fields(told)} == {"values", "headers", "faults"}
        if message.is_sound:
            assert join(split(message.properties)) == message.properties
            if not told.faults:
                assert (told.values, told.headers) == as_the_library_reads(message.properties)


def test_every_type_is_among_the_fuzzers() -> None:
    """A list that is forgotten shows here."""
    chance = random.Random(1)

    assert {field_value(chance)[:1] for _ in range(2000)} == {
        bytes((tag,)) for tag in b"tbBsuIildfDSxVTAF"
    }


def test_a_time_in_milliseconds_is_told() -> None:
    """As AMQP 1.0 leaves it behind."""
    told: Properties = read(join({"timestamp": struct.pack(">Q", 1_795_514_400_123)}))

    assert told.values["timestamp"] == datetime(2026, 11, 24, 10, 0, 0, 123000, tzinfo=UTC)


def _of_another_name(name: bytes) -> bytes:
    return b"z" * 20 + name if len(name) % 2 else name


@pytest.mark.parametrize("seed", range(0, 3000, 25))
def test_a_table_is_renamed_as_its_headers_are(seed: int) -> None:
    """One by one or as it lies, the bytes are the same; or some name does not fit."""
    for number in range(seed, seed + 25):
        try:
            table = split(raw_message(number).properties).get("headers", NO_HEADERS)
            found = [(_of_another_name(name), value) for name, value in entries(table)]
        except Malformed:
            continue
        has_fit = all(len(name) <= 255 for name, _ in found)

        assert renamed(table, _of_another_name) == (table_of(found) if has_fit else None)


@pytest.mark.parametrize("table", [b"\0\0\0\5\1aV", b"\0\0\0\4\1aS\0", b"\0\0\0\3\1aZ"])
def test_a_table_that_breaks_off_is_not_renamed(table: bytes) -> None:
    """As it has no headers either."""
    with pytest.raises(Malformed):
        entries(table)
    with pytest.raises(Malformed):
        renamed(table, _of_another_name)
