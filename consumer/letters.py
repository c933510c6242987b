"""A delivery becomes a dead letter, and a dead letter what it was before. Pure.

A dead letter has the bytes of its original, body, properties and headers alike, and after them what
the consumer says of it, in headers that begin with `landlord-`. A publisher's headers that begin so
too, and those that the broker acts upon, are kept under another name: whatever a publisher sends,
only what we set counts. On the way back that is undone, and headers that route are left out. It is
never decided here whether the original is any better now: it goes through the front door, and
intake judges it again. Before it comes the broker adapter, after it the command line.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Final

from consumer.content_header import (
    NO_HEADERS,
    Entry,
    Malformed,
    bytes_entry,
    entries,
    join,
    joined,
    number_entry,
    read,
    renamed,
    short_text,
    split,
    table_of,
    text_entry,
)
from consumer.document import SpecDefaults
from consumer.errors import InvalidMessage
from consumer.messages import DeadLetter, Delivery, decode_tenant_event, event_type
from consumer.model import Document

REPLAYS: Final = "landlord-replays"
"""Header: how often this event was put back. It stays when the event is dead-lettered again."""
LETTER_ID: Final = "landlord-letter-id"
"""Header: by which the broker's answers to it are told apart; another one for each try.

It is the last one, so that it is found without going through those before it."""
MOST_REDELIVERIES: Final = 10
"""A letter that was looked at more often is put back anew: RabbitMQ 4 drops what is redelivered
twenty times from a quorum queue that names no limit of its own."""

_OURS: Final = "landlord-"
_PUBLISHERS: Final = "landlord-publisher-"
"""Stands before the name of a header that would otherwise be taken for ours or the broker's."""
_REASON: Final = "landlord-reason"
_ERROR: Final = "landlord-error"
_RECEIVED_AT: Final = "landlord-received-at"
_EXCHANGE: Final = "landlord-exchange"
_ROUTING_KEY: Final = "landlord-routing-key"
_EXPIRATION: Final = "landlord-original-expiration"
_USER_ID: Final = "landlord-original-user-id"
_REPLY_TO: Final = "landlord-original-reply-to"
_ODD_PROPERTIES: Final = "landlord-original-properties"
_HEADERS_DROPPED: Final = "landlord-headers-dropped"
_REDELIVERIES: Final = "x-delivery-count"
_DEATHS: Final = "x-death"
_COUNTS: Final = frozenset((_REDELIVERIES.encode(), b"x-acquired-count"))
_ROUTES: Final = frozenset((b"CC", b"BCC"))
"""The broker sends a message to these routing keys too, whoever publishes it."""
_SET_ASIDE: Final = _COUNTS | _ROUTES | {_DEATHS.encode()}
_ADDED_BY_BROKER: Final = (b"x-first-death-", b"x-last-death-")
_DIRECT_REPLY: Final = short_text("amq.rabbitmq.reply-to")
"""The broker closes the channel over it, unless whoever publishes takes answers there. A publisher
by another protocol than ours is not held to that."""
_PERSISTENT: Final = b"\2"
_LONGEST_NAME: Final = 255
_MOST_REPLAYS: Final = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Letter:
    """A dead letter as it lies in its queue, and what can be read of it.

    `position` counts from 1, the oldest. `exchange` and `routing_key` are those by which the
    original came.
    """

    position: int
    delivery: Delivery
    reason: str
    error: str
    received_at: str
    exchange: str
    routing_key: str
    event_type: str
    event_id: str | None
    tenant_id: str | None
    replays: int = 0

    @property
    def name(self) -> str:
        """What a person calls it: the event's id, or where it lies."""
        return self.event_id or f"#{self.position}"

    @property
    def is_worn(self) -> bool:
        """Whether it was redelivered so often that the broker may soon drop it."""
        count = _telling(self.delivery).get(_REDELIVERIES)
        return isinstance(count, int) and count >= MOST_REDELIVERIES

    @property
    def obstacle(self) -> str | None:
        """Why the original cannot be put back; None when it can."""
        headers = _telling(self.delivery)
        if _is_ours(headers) and _HEADERS_DROPPED in headers:
            return "its headers were too long to be kept; publish the event again instead"
        if _is_ours(headers) and _ODD_PROPERTIES in headers:
            return "its properties cannot be sent again; publish the event again instead"
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Original:
    """A message to be published: what the letter was, or the letter again."""

    body: bytes
    properties: bytes
    """As they are sent, headers and all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """Which dead letters are meant; what is None holds nobody back."""

    event_id: str | None = None
    reason: str | None = None

    def matches(self, letter: Letter) -> bool:
        """Whether the letter is meant."""
        ids = (letter.event_id, letter.delivery.message_id)
        return self.event_id in (None, *ids) and self.reason in (None, letter.reason)


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Dead letters of one reason."""

    reason: str
    count: int
    newest: str
    tenant_id: str | None
    """The tenant of the newest of them that names one."""


# --- becoming a letter --------------------------------------------------------------------------


def letter_properties(letter: DeadLetter, letter_id: str, most_bytes: int) -> bytes:
    """Return the properties of the dead letter: the original's as they came, and what we say.

    Those move to headers that the broker would act upon: `expiration` would let the dead letter
    expire, `user_id` has to be the login of whoever publishes, a `reply_to` that names RabbitMQ's
    direct answers would have the letter refused. What could not be sent
    (more bytes than a frame has, or none that are properties) is left out, with a note that says
    so. It is always kept durably, however it was sent.
    """
    delivery = letter.delivery
    said = [text_entry(name, value) for name, value in letter.headers.items()]
    said.append(text_entry(_EXCHANGE, delivery.exchange))
    said.append(text_entry(_ROUTING_KEY, delivery.routing_key))
    try:
        parts = split(delivery.raw_properties)
        kept = renamed(parts.get("headers", NO_HEADERS), _kept_name)
    except Malformed:
        parts, kept = {}, NO_HEADERS
        said.append(bytes_entry(_ODD_PROPERTIES, delivery.raw_properties))
    moved = {"expiration": _EXPIRATION, "user_id": _USER_ID}
    if parts.get("reply_to") == _DIRECT_REPLY:
        moved["reply_to"] = _REPLY_TO
    for name, header in moved.items():
        value = parts.pop(name, None)
        if value is not None:
            said.append(_as_entry(header, value[1:]))
    parts["delivery_mode"] = _PERSISTENT
    said.append(text_entry(LETTER_ID, letter_id))
    return _fitting(parts, kept, said, most_bytes)


def _headers(parts: Mapping[str, bytes]) -> list[Entry]:
    return entries(parts.get("headers", NO_HEADERS))


def _as_entry(name: str, text: bytes) -> Entry:
    try:
        return text_entry(name, text.decode())
    except UnicodeDecodeError:
        return bytes_entry(name, text)


def _kept_name(name: bytes) -> bytes:
    is_reserved = name.startswith(_OURS.encode()) or name in _SET_ASIDE
    return _PUBLISHERS.encode() + name if is_reserved else name


def _unrouted(name: bytes) -> bytes:
    return _kept_name(name) if name in _ROUTES else name


def _fitting(
    parts: Mapping[str, bytes], kept: bytes | None, said: Sequence[Entry], most_bytes: int
) -> bytes:
    """Return it whole; else without the original's headers, and at last without its properties."""
    if kept is not None:
        whole = join({**parts, "headers": joined(kept, said)})
        if len(whole) <= most_bytes:
            return whole
    size = len(parts.get("headers", NO_HEADERS))
    note = text_entry(_HEADERS_DROPPED, f"{size} bytes of headers are too long to send")
    table = table_of([note, *(entry for entry in said if entry[0] != _ODD_PROPERTIES.encode())])
    less = join({**parts, "headers": table})
    if len(less) <= most_bytes:
        return less
    return join({"delivery_mode": _PERSISTENT, "headers": table})


# --- reading a letter ---------------------------------------------------------------------------


def read_letter(delivery: Delivery, position: int) -> Letter:
    """Return what can be read of a dead letter, whoever dead-lettered it."""
    headers = _telling(delivery)
    said = headers if _is_ours(headers) else {}
    death = _last_death(headers)
    came_by = replace(delivery, routing_key=_origin(delivery, said, death))
    event_id, tenant_id = _ids(came_by)
    return Letter(
        position=position,
        delivery=delivery,
        reason=_text(said.get(_REASON)) or _text(death.get("reason")) or "unknown",
        error=_text(said.get(_ERROR)),
        received_at=_text(said.get(_RECEIVED_AT)) or _moment(death.get("time")),
        exchange=_text(said.get(_EXCHANGE)) or _text(death.get("exchange")),
        routing_key=came_by.routing_key,
        event_type=event_type(came_by),
        event_id=event_id,
        tenant_id=tenant_id,
        replays=_replays(headers),
    )


def unread_letter(delivery: Delivery, position: int, fault: str) -> Letter:
    """Return a dead letter that we fail over: it is counted and can be dropped, or put back."""
    return Letter(
        position=position,
        delivery=delivery,
        reason="unknown",
        error=f"it cannot be read: a fault of ours ({fault})",
        received_at="",
        exchange=delivery.exchange,
        routing_key=delivery.routing_key,
        event_type="",
        event_id=delivery.message_id,
        tenant_id=None,
    )


def _telling(delivery: Delivery) -> Mapping[str, object]:
    """Return the headers that tell of the letter's way, however many others there are."""
    if not delivery.faults:
        return delivery.headers
    try:
        found = [
            entry
            for entry in _headers(split(delivery.raw_properties))
            if entry[0].startswith(_OURS.encode()) or entry[0] in _SET_ASIDE
        ]
    except Malformed:
        return delivery.headers
    return read(join({"headers": table_of(found)})).headers


def _is_ours(headers: Mapping[str, object]) -> bool:
    """Whether the consumer made it a dead letter, and not the broker.

    What the broker dead-letters has a note of the broker's; in what we do, a note of that name is
    the publisher's and has another one.
    """
    return _REASON in headers and _DEATHS not in headers


def _last_death(headers: Mapping[str, object]) -> Mapping[str, object]:
    """Return what the broker noted when it dead-lettered the message itself; else nothing."""
    deaths = headers.get(_DEATHS)
    last = deaths[0] if isinstance(deaths, list) and deaths else None
    return last if isinstance(last, dict) else {}


def _origin(delivery: Delivery, said: Mapping[str, object], death: Mapping[str, object]) -> str:
    kept = said.get(_ROUTING_KEY)
    if isinstance(kept, str):
        return kept
    keys = death.get("routing-keys")
    first = keys[0] if isinstance(keys, list) and keys else None
    return first if isinstance(first, str) else delivery.routing_key


def _replays(headers: Mapping[str, object]) -> int:
    """Return how often it was put back, as far as that can be believed."""
    for name in (_PUBLISHERS + REPLAYS, REPLAYS):
        count = headers.get(name)
        if isinstance(count, int) and 0 <= count < _MOST_REPLAYS:
            return int(count)
    return 0


def _ids(delivery: Delivery) -> tuple[str | None, str | None]:
    """Return the event's and the tenant's id, as far as they can be read."""
    try:
        event = decode_tenant_event(delivery, SpecDefaults())
    except InvalidMessage as error:
        return error.event_id, error.tenant_id
    except Exception:  # noqa: BLE001 - one letter's trouble stays its own, as at intake
        return delivery.message_id, None
    return event.event_id, event.tenant_id


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _moment(value: object) -> str:
    if not isinstance(value, datetime):
        return ""
    return value.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


# --- back to the original -----------------------------------------------------------------------


def original(letter: Letter) -> Original:
    """Return what the letter was, with one more replay counted. Raises Malformed."""
    delivery, telling = letter.delivery, _telling(letter.delivery)
    is_ours = _is_ours(telling)
    parts = split(delivery.raw_properties)
    headers = [
        (before, value)
        for name, value in _headers(parts)
        if (before := _name_before(name, is_ours=is_ours)) is not None
    ]
    counted = number_entry(REPLAYS, letter.replays + 1)
    _leave_out_refused(parts)
    expiration = _milliseconds(telling.get(_EXPIRATION)) if is_ours else None
    if expiration is not None:
        parts["expiration"] = short_text(expiration)
    parts["delivery_mode"] = _PERSISTENT
    parts["headers"] = table_of([*headers, counted])
    return Original(body=delivery.body, properties=join(parts))


def _leave_out_refused(parts: dict[str, bytes]) -> None:
    """Take out what the broker would not let us publish."""
    parts.pop("user_id", None)
    if parts.get("reply_to") == _DIRECT_REPLY:
        del parts["reply_to"]


def _name_before(raw: bytes, *, is_ours: bool) -> bytes | None:
    """Return the name that the header had; None for what was added, or would route."""
    before = raw
    if is_ours and raw.startswith(_OURS.encode()):
        if not raw.startswith(_PUBLISHERS.encode()):
            return None
        before = raw.removeprefix(_PUBLISHERS.encode())
    is_added = before in _SET_ASIDE or before.startswith(_ADDED_BY_BROKER)
    return None if is_added or before == REPLAYS.encode() else before


def _milliseconds(value: object) -> str | None:
    """Return the expiration as the broker takes it; earlier versions noted seconds."""
    text = _text(value)
    if text.isascii() and text.isdigit():
        return text
    try:
        return str(max(0, round(float(text) * 1000)))
    except (ValueError, OverflowError):
        return None


def renewed(letter: Letter) -> Original:
    """Return the letter as it is to lie in its queue again, its redeliveries forgotten.

    What is no letter of ours becomes one, because on its new way nobody could tell how it came.
    Raises Malformed.
    """
    delivery, telling = letter.delivery, _telling(letter.delivery)
    parts = split(delivery.raw_properties)
    headers = [entry for entry in _headers(parts) if entry[0] not in _COUNTS]
    if _is_ours(telling) and _ROUTING_KEY in telling:
        headers = [(_unrouted(name), value) for name, value in headers]
    else:
        headers = [(_kept_name(name), value) for name, value in headers]
        headers += [text_entry(name, value) for name, value in _said_of(letter).items()]
    _leave_out_refused(parts)
    parts["delivery_mode"] = _PERSISTENT
    parts["headers"] = table_of(headers)
    return Original(body=delivery.body, properties=join(parts))


def _said_of(letter: Letter) -> dict[str, str]:
    return {
        _REASON: letter.reason,
        _ERROR: letter.error,
        _RECEIVED_AT: letter.received_at,
        _EXCHANGE: letter.exchange,
        _ROUTING_KEY: letter.routing_key,
    }


def grouped(letters: Iterable[Letter]) -> list[Group]:
    """Return one group for each reason, the largest first."""
    of_reason: dict[str, list[Letter]] = {}
    for letter in sorted(letters, key=lambda letter: letter.received_at, reverse=True):
        of_reason.setdefault(letter.reason, []).append(letter)
    groups = [
        Group(
            reason=reason,
            count=len(members),
            newest=members[0].received_at,
            tenant_id=next((one.tenant_id for one in members if one.tenant_id), None),
        )
        for reason, members in of_reason.items()
    ]
    return sorted(groups, key=lambda group: (-group.count, group.reason))


def summary(letter: Letter) -> Document:
    """Return the letter in one line's worth of fields, without its body."""
    return {
        "position": letter.position,
        "event_id": letter.event_id,
        "message_id": letter.delivery.message_id,
        "type": letter.event_type,
        "tenant_id": letter.tenant_id,
        "reason": letter.reason,
        "error": letter.error,
        "received_at": letter.received_at or None,
        "replays": letter.replays,
    }
