"""What a dead letter says of itself, and what it was before it became one. Pure.

The original is the dead letter without the headers that were added on the way, counting its
replays; body, other headers and properties are left as they came. It is never decided here whether
the original is any better now: it goes through the front door, and intake judges it again. Before
it comes the broker adapter, after it the command line.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Final

from consumer.document import SpecDefaults
from consumer.errors import InvalidMessage
from consumer.messages import Delivery, decode_tenant_event, event_type
from consumer.model import Document

REPLAYS: Final = "landlord-replays"
"""Header: how often this event was put back. It stays when the event is dead-lettered again."""
MOST_REDELIVERIES: Final = 10
"""A letter that was looked at more often is put back anew: RabbitMQ 4 drops what is redelivered
twenty times from a quorum queue that names no limit of its own."""

_EXCHANGE: Final = "landlord-exchange"
_ROUTING_KEY: Final = "landlord-routing-key"
_EXPIRATION: Final = "landlord-original-expiration"
_HEADERS_DROPPED: Final = "landlord-headers-dropped"
_REDELIVERIES: Final = "x-delivery-count"
_COUNTS: Final = frozenset((_REDELIVERIES, "x-acquired-count"))
_ADDED: Final = _COUNTS | {
    "landlord-reason",
    "landlord-error",
    "landlord-received-at",
    _EXCHANGE,
    _ROUTING_KEY,
    _EXPIRATION,
    "x-death",
}
_ADDED_BY_BROKER: Final = ("x-first-death-", "x-last-death-")


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
        count = self.delivery.headers.get(_REDELIVERIES)
        return isinstance(count, int) and count >= MOST_REDELIVERIES

    @property
    def obstacle(self) -> str | None:
        """Why the original cannot be put back; None when it can."""
        if _HEADERS_DROPPED in self.delivery.headers:
            return "its headers were too long to be kept; publish the event again instead"
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Original:
    """A message to be published: what the letter was, or the letter again."""

    body: bytes
    headers: Mapping[str, object]
    properties: Mapping[str, object]


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


def read_letter(delivery: Delivery, position: int) -> Letter:
    """Return what can be read of a dead letter, whoever dead-lettered it."""
    headers = delivery.headers
    death = _first_death(headers)
    came_by = replace(delivery, routing_key=_origin(delivery, death))
    event_id, tenant_id = _ids(came_by)
    replays = headers.get(REPLAYS)
    return Letter(
        position=position,
        delivery=delivery,
        reason=_text(headers.get("landlord-reason")) or _text(death.get("reason")) or "unknown",
        error=_text(headers.get("landlord-error")),
        received_at=_text(headers.get("landlord-received-at")) or _moment(death.get("time")),
        exchange=_text(headers.get(_EXCHANGE)) or _text(death.get("exchange")),
        routing_key=came_by.routing_key,
        event_type=event_type(came_by),
        event_id=event_id,
        tenant_id=tenant_id,
        replays=replays if isinstance(replays, int) else 0,
    )


def _first_death(headers: Mapping[str, object]) -> Mapping[str, object]:
    """Return what the broker noted when it dead-lettered the message itself; else nothing."""
    deaths = headers.get("x-death")
    first = deaths[-1] if isinstance(deaths, list) and deaths else None
    return first if isinstance(first, dict) else {}


def _origin(delivery: Delivery, death: Mapping[str, object]) -> str:
    kept = delivery.headers.get(_ROUTING_KEY)
    if isinstance(kept, str):
        return kept
    keys = death.get("routing-keys")
    return str(keys[0]) if isinstance(keys, list) and keys else delivery.routing_key


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


def original(letter: Letter) -> Original:
    """Return what the letter was, with one more replay counted."""
    headers = {
        name: value
        for name, value in letter.delivery.headers.items()
        if name not in _ADDED and not name.startswith(_ADDED_BY_BROKER)
    }
    properties = dict(letter.delivery.properties)
    seconds = _seconds(letter.delivery.headers.get(_EXPIRATION))
    if seconds is not None:
        properties["expiration"] = seconds
    return Original(
        body=letter.delivery.body,
        headers={**headers, REPLAYS: letter.replays + 1},
        properties=properties,
    )


def _seconds(value: object) -> float | None:
    try:
        return float(_text(value))
    except ValueError:
        return None


def renewed(letter: Letter) -> Original:
    """Return the letter as it is to lie in its queue again, its redeliveries forgotten."""
    headers = {
        name: value for name, value in letter.delivery.headers.items() if name not in _COUNTS
    }
    came_by = {_EXCHANGE: letter.exchange, _ROUTING_KEY: letter.routing_key}
    return Original(
        body=letter.delivery.body,
        headers={**headers, **came_by},
        properties=letter.delivery.properties,
    )


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
