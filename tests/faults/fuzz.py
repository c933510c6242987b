"""Malformed tenant events without end, made from a seed: valid ones spoilt, and pure noise.

Each comes with words that have to stand in what is said of its fault, so that a test can tell
whether the reason given is the right one.
"""

import json
import random
import string
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from tests.e2e.world import make_document

_NOT_TEXT: Final = "the body is not UTF-8"
_NOT_JSON: Final = "not JSON"


@dataclass(frozen=True, slots=True)
class Malformed:
    """A body that no consumer can take, and what is wrong with it."""

    body: bytes
    fault: str


def malformed(seed: int, *, tenants: int = 50) -> Iterator[Malformed]:
    """Give malformed events without end; the same seed gives the same ones."""
    chance = random.Random(seed)
    while True:
        document = make_document(f"spoilt-{chance.randrange(tenants)}")
        yield chance.choice(_SPOILERS)(chance, document)


Spoiler = Callable[[random.Random, dict[str, object]], Malformed]


def _noise(chance: random.Random, _: dict[str, object]) -> Malformed:
    # No text in UTF-8 has this byte.
    return Malformed(b"\xff" + chance.randbytes(chance.randrange(2000)), _NOT_TEXT)


def _readable_noise(chance: random.Random, _: dict[str, object]) -> Malformed:
    letters = "".join(chance.choices(string.printable, k=chance.randrange(2000)))
    return Malformed(f"!{letters}".encode(), _NOT_JSON)


def _nothing(_: random.Random, __: dict[str, object]) -> Malformed:
    return Malformed(b"", _NOT_JSON)


def _broken_off(chance: random.Random, document: dict[str, object]) -> Malformed:
    good = json.dumps(document).encode()
    return Malformed(good[: chance.randrange(1, len(good))], _NOT_JSON)


def _hit(chance: random.Random, document: dict[str, object]) -> Malformed:
    # A control character is allowed nowhere in JSON, within strings neither.
    good = json.dumps(document)
    place = chance.randrange(len(good))
    return Malformed(f"{good[:place]}\x01{good[place:]}".encode(), _NOT_JSON)


def _nested(chance: random.Random, document: dict[str, object]) -> Malformed:
    # Deeper still is more values than are taken, and told so.
    depth = chance.randrange(2000, 11_000)
    good = json.dumps(document | {"labels": "HERE"})
    return Malformed(good.replace('"HERE"', "[" * depth + "]" * depth).encode(), "nested")


def _misspelt(chance: random.Random, document: dict[str, object]) -> Malformed:
    name = "x" + "".join(chance.choices(string.ascii_lowercase, k=8))
    return _faulty(document | {name: chance.random()}, name)


def _no_containers(chance: random.Random, document: dict[str, object]) -> Malformed:
    count = chance.choice((0, 2, 3))
    containers = [{"image": "web"}] * count
    return _faulty(document | {"containers": containers}, f"exactly 1 container, got {count}")


def _no_image(_: random.Random, document: dict[str, object]) -> Malformed:
    return _faulty(document | {"containers": [{"name": "app"}]}, "containers[0].image")


def _greedy(chance: random.Random, document: dict[str, object]) -> Malformed:
    cpu: object = chance.choice((-1, 0, 9, 0.5, "lots", [], 10**30))
    return _faulty(document | {"resources": {"cpu": cpu, "memory": 32}}, "resources.cpu")


def _misplaced_port(chance: random.Random, document: dict[str, object]) -> Malformed:
    port = chance.choice((-1, 65536, 10**12))
    container = {"image": "web", "ports": [{"container_port": 80, "host_port": port}]}
    return _faulty(document | {"containers": [container]}, "containers[0].ports[0].host_port")


def _nobody(chance: random.Random, document: dict[str, object]) -> Malformed:
    name: object = chance.choice(("", "-", "a b", "a/b", "x" * 129, None, 7, [], "\u00fc"))
    return _faulty(document | {"tenant_id": name}, "tenant_id")


def _faulty(document: dict[str, object], fault: str) -> Malformed:
    return Malformed(json.dumps(document).encode(), fault)


_SPOILERS: Final[tuple[Spoiler, ...]] = (
    _noise,
    _readable_noise,
    _nothing,
    _broken_off,
    _hit,
    _nested,
    _misspelt,
    _no_containers,
    _no_image,
    _greedy,
    _misplaced_port,
    _nobody,
)
