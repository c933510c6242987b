"""What was made of a value once is not made again: one store for all of it, bounded in bytes.

The least recently used goes first, whatever it is, so that many small things are kept, or few large
ones. Keys are weighed with what was made of them: a text is as heavy as what it says. Only speed
depends on what is kept. Safe to use from several threads; nobody waits here but for a dictionary.
"""

from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping
from datetime import datetime
from enum import Enum
from functools import wraps
from sys import getsizeof
from threading import Lock
from typing import Final, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

_DEFAULT_BYTES: Final = 32 * 1024 * 1024
_ENTRY_BYTES: Final = 512
"""What an entry needs beside its key and its value."""
_LARGEST_SHARE: Final = 16
"""What weighs more than this part of all is not kept: it would push out too much."""


class Remembered:
    """What was made, by the value that it was made of."""

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._entries: OrderedDict[Hashable, tuple[object, int]] = OrderedDict()
        self._bytes = 0
        self._lock = Lock()

    @property
    def bytes(self) -> int:
        """How much is kept."""
        return self._bytes

    def limit(self, most_bytes: int) -> None:
        """Keep at most so much from now on."""
        with self._lock:
            self._most_bytes = most_bytes
            self._make_room()

    def get(self, key: Hashable) -> object:
        """Return what was put under the key, None if it is not there any more."""
        with self._lock:
            entry = self._entries.get(key)
            if entry is None:
                return None
            self._entries.move_to_end(key)
            return entry[0]

    def put(self, key: Hashable, value: object) -> None:
        """Keep the value, unless it is too heavy."""
        weight = _ENTRY_BYTES + weigh(key) + weigh(value)
        with self._lock:
            if weight > self._most_bytes // _LARGEST_SHARE or key in self._entries:
                return
            self._entries[key] = value, weight
            self._bytes += weight
            self._make_room()

    def _make_room(self) -> None:
        while self._bytes > self._most_bytes:
            _, (_, weight) = self._entries.popitem(last=False)
            self._bytes -= weight


REMEMBERED: Final = Remembered(_DEFAULT_BYTES)
"""The process's own; it is limited at the start, by the settings."""


def remembered(make: Callable[[K], V]) -> Callable[[K], V]:
    """Have the function make of a value what it makes of it only once, while that is remembered."""

    @wraps(make)
    def made(value: K) -> V:
        key = (make, value)
        known = REMEMBERED.get(key)
        if known is None:
            known = make(value)
            REMEMBERED.put(key, known)
        return known  # type: ignore[return-value]  # what this function made before

    return made


_LEAVES: Final = frozenset((str, bytes, int, float, datetime))


def weigh(value: object) -> int:
    """Return how many bytes the value holds, with what is in it; what is shared counts twice."""
    kind = type(value)
    if kind in _LEAVES:
        return getsizeof(value)
    if value is None or kind is bool or isinstance(value, Enum) or callable(value):
        return 0
    size = getsizeof(value)
    if isinstance(value, tuple | list):
        return size + sum(map(weigh, value))
    if isinstance(value, Mapping):
        return size + sum(weigh(key) + weigh(member) for key, member in value.items())
    for name in getattr(kind, "__slots__", ()):
        part = getattr(value, name)
        if part is not None and part != ():
            size += weigh(part)
    return size
