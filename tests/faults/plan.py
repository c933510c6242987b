"""What a soak run does, made from a seed: tenant events, and what is unplugged meanwhile.

Beside the events goes the model: what each tenant must come to once all are applied. It knows the
contract's rules alone: the newest intention wins, a stale generation and a duplicate change
nothing, and what cannot be read, or is about a tenant that nobody knows, is dead-lettered.
"""

import json
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum

from tests.e2e.world import make_document


class Trouble(Enum):
    """What may be done to the consumer, the lines and the servers."""

    KILL_CONSUMER = "consumer killed"
    STOP_CONSUMER = "consumer stopped"
    DROP_BROKER_LINE = "broker connections dropped"
    STALL_BROKER_LINE = "broker connections stalled"
    HALF_OPEN_BROKER_LINE = "broker connections half-open"
    CUT_BROKER_LINE = "broker connections cut"
    DROP_ENGINE_LINE = "engine connections dropped"
    STALL_ENGINE_LINE = "engine connections stalled"
    LOSE_REQUESTS = "engine requests lost"
    LOSE_REPLIES = "engine replies lost"
    SLOW_ENGINE_LINE = "engine line slow"
    HOLD_ENGINE = "engine held"
    HOLD_BROKER = "broker held"
    RESTART_BROKER = "broker restarted"
    KILL_BROKER = "broker killed"
    RESTART_ENGINE = "engine restarted"
    KILL_ENGINE = "engine killed"
    REMOVE_CONTAINER = "container removed by hand"
    KILL_CONTAINER = "container killed by hand"
    STOP_CONTAINER = "container stopped by hand"


_FREQUENT = 3
_WEIGHTS = {
    trouble: 1 if trouble.value.endswith(("restarted", "killed")) else _FREQUENT
    for trouble in Trouble
} | {Trouble.KILL_CONSUMER: _FREQUENT}


@dataclass(frozen=True, slots=True)
class Message:
    """A tenant event to be published; the same one may be published again."""

    kind: str
    tenant_id: str
    message_id: str
    body: bytes


@dataclass(slots=True)
class Expected:
    """What a tenant must come to."""

    desired: str = "deleted"
    version: int = 0
    generation: int = 0
    last_event_id: str = ""
    """Of the newest event that counts; it must have been answered."""


@dataclass(slots=True)
class Plan:
    """The events of a run, one after another, and what they must lead to."""

    seed: int
    tenants: int = 8
    expected: dict[str, Expected] = field(default_factory=dict)
    invalid: set[str] = field(default_factory=set)
    """Message ids of what must be dead-lettered."""
    events: int = 0
    duplicates: int = 0
    stale: int = 0
    _past: list[Message] = field(default_factory=list)
    _random: random.Random = field(init=False)

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)

    def troubles(self) -> Iterator[tuple[float, Trouble, float]]:
        """Give, without end: the pause before the next trouble, which it is, and how long."""
        chance = random.Random(f"trouble {self.seed}")
        while True:
            (trouble,) = chance.choices(list(_WEIGHTS), list(_WEIGHTS.values()))
            yield chance.uniform(0.5, 4.0), trouble, chance.uniform(0.2, 4.0)

    def messages(self) -> Iterator[tuple[float, Message]]:
        """Give, without end: the pause before the next event, and the event."""
        while True:
            pause = self._random.choice((0.0, 0.0, 0.05, 0.5, 1.0))
            yield pause, self._next()

    def _next(self) -> Message:
        self.events += 1
        roll = self._random.random()
        if roll < 0.08 and self._past:
            self.duplicates += 1
            return self._random.choice(self._past)
        if roll < 0.16:
            return self._malformed()
        message = self._valid()
        # What was refused is no duplicate when it comes again.
        if message.message_id not in self.invalid:
            self._past.append(message)
        return message

    def _malformed(self) -> Message:
        tenant_id = self._choose_tenant()
        good = json.dumps(make_document(tenant_id)).encode()
        body = self._random.choice(
            (
                self._random.randbytes(40),
                good[: self._random.randrange(1, len(good))],
                good.replace(b'"image"', b'"imgae"'),
                json.dumps(make_document(tenant_id, resources={"cpu": -1, "memory": 1})).encode(),
                json.dumps(make_document(tenant_id) | {"containers": []}).encode(),
                b"",
            )
        )
        message_id = self._new_id()
        self.invalid.add(message_id)
        return Message("updated", tenant_id, message_id, body)

    def _valid(self) -> Message:
        tenant_id = self._choose_tenant()
        kind = self._random.choices(
            ("created", "updated", "deleted", "suspended", "resumed"), (4, 4, 2, 1, 2)
        )[0]
        message_id = self._new_id()
        body: dict[str, object] = {"tenant_id": tenant_id}
        if kind in ("suspended", "resumed") and tenant_id not in self.expected:
            self.invalid.add(message_id)
            return Message(kind, tenant_id, message_id, json.dumps(body).encode())
        expected = self.expected.setdefault(tenant_id, Expected())
        if kind in ("created", "updated"):
            body = make_document(tenant_id, container={"env": {"VERSION": str(self.events)}})
        is_stale = False
        # Half of the tenants count generations, the others go by order of arrival.
        if int(tenant_id.rsplit("-", 1)[1]) % 2:
            is_stale = expected.generation > 1 and self._random.random() < 0.2
            step = self._random.randrange(-expected.generation + 1, 1) if is_stale else 1
            body["generation"] = expected.generation + step
        if is_stale:
            self.stale += 1
        else:
            self._apply(expected, kind, message_id, body)
        return Message(kind, tenant_id, message_id, json.dumps(body).encode())

    def _apply(
        self, expected: Expected, kind: str, message_id: str, body: dict[str, object]
    ) -> None:
        expected.last_event_id = message_id
        expected.generation = int(str(body.get("generation", 0)))
        if kind in ("created", "updated"):
            expected.version = self.events
            if expected.desired == "deleted":
                expected.desired = "running"
        elif kind == "deleted":
            expected.desired = "deleted"
        elif expected.desired != "deleted":
            expected.desired = "stopped" if kind == "suspended" else "running"

    def _choose_tenant(self) -> str:
        return f"soak-{self._random.randrange(self.tenants)}"

    def _new_id(self) -> str:
        return f"{self.seed}-{self.events}"
