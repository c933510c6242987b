"""A log line that comes again and again is written once, and then with how often it came.

The first is written at once. While the same comes again (the same but for its time), it is counted,
and written with the count when a while is over, which grows from ten seconds to ten minutes. So
whoever can cause a line, be it a stranger or a fault, causes some hundred a day and not a full
disk. What is remembered is bounded: a digest of each of the last lines, and of one that was counted
the line as it came last.
"""

import copy
import hashlib
import logging
import re
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, TextIO

from typing_extensions import override

_WHEN: Final = "timestamp"
_PLACE_IN_MEMORY: Final = re.compile(r"\b0x[0-9a-f]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class FoldLimits:
    """How long a line is counted before it is written again, and how many are remembered."""

    first_seconds: float = 10.0
    most_seconds: float = 600.0
    lines: int = 256
    most_chars: int = 16 * 1024
    """A longer line is written each time: it is not worth its place."""


@dataclass(slots=True)
class _Seen:
    until: float
    seconds: float
    count: int = 0
    last: logging.LogRecord | None = None


class Folding:
    """Says what is to be written when a line comes."""

    def __init__(self, *, now: Callable[[], float], limits: FoldLimits) -> None:
        self._now = now
        self._limits = limits
        self._seen: OrderedDict[bytes, _Seen] = OrderedDict()
        """Those that came last are last."""
        self._look_at = 0.0

    def take(self, record: logging.LogRecord) -> list[logging.LogRecord]:
        """Return what is to be written now: counts that are due, and the line if it is new."""
        now = self._now()
        due = self._due(now) if now >= self._look_at else []
        line = _line(record)
        if len(line) > self._limits.most_chars:
            return [*due, record]
        key = hashlib.blake2b(line.encode(errors="replace"), digest_size=16).digest()
        seen = self._seen.get(key)
        if seen is None:
            return [*due, *self._remember(key, now), record]
        self._seen.move_to_end(key)
        seen.count += 1
        seen.last = _kept(record, seen.last)
        return due

    def rest(self) -> list[logging.LogRecord]:
        """Return the counts of all that is not written yet; it is the end."""
        counts = [count for seen in self._seen.values() for count in _count_of(seen)]
        self._seen.clear()
        return counts

    def _remember(self, key: bytes, now: float) -> list[logging.LogRecord]:
        """Remember a new line; return the count of the one that is forgotten for it."""
        forgotten = []
        if len(self._seen) >= self._limits.lines:
            forgotten = _count_of(self._seen.popitem(last=False)[1])
        self._seen[key] = _Seen(now + self._limits.first_seconds, self._limits.first_seconds)
        self._look_at = min(self._look_at, now + self._limits.first_seconds)
        return forgotten

    def _due(self, now: float) -> list[logging.LogRecord]:
        due = []
        for key, seen in list(self._seen.items()):
            if now < seen.until:
                continue
            if not seen.count:
                del self._seen[key]
                continue
            due += _count_of(seen)
            seen.seconds = min(seen.seconds * 2, self._limits.most_seconds)
            seen.until, seen.count, seen.last = now + seen.seconds, 0, None
        waits = (seen.until for seen in self._seen.values())
        self._look_at = min(waits, default=now + self._limits.first_seconds)
        return due


def _line(record: logging.LogRecord) -> str:
    """Return what the line says, without what makes no difference."""
    if isinstance(record.msg, dict):
        said = repr([item for item in record.msg.items() if item[0] != _WHEN])
    else:
        said = record.getMessage() + (repr(record.exc_info[1]) if record.exc_info else "")
    return _PLACE_IN_MEMORY.sub("0x", f"{record.name} {record.levelname} {said}")


def _kept(record: logging.LogRecord, before: logging.LogRecord | None) -> logging.LogRecord:
    """Return what is kept of a line: never a traceback, which holds all that its functions held."""
    if record.exc_info is None:
        return record
    if before is not None:
        return before
    kept = copy.copy(record)
    kept.msg = f"{record.getMessage()}: {record.exc_info[1]!r}"
    kept.args = kept.exc_info = None
    return kept


def _count_of(seen: _Seen) -> list[logging.LogRecord]:
    """Return the line as it came last, with how often it came since it was written."""
    if seen.last is None:
        return []
    counted = copy.copy(seen.last)
    if isinstance(counted.msg, dict):
        counted.msg = {**counted.msg, "repeated": seen.count}
    else:
        counted.msg = f"{counted.getMessage()} (repeated {seen.count} times)"
        counted.args = None
    return [counted]


class FoldingHandler(logging.StreamHandler[TextIO]):
    """Writes to the stream what `Folding` says."""

    def __init__(
        self,
        stream: TextIO,
        *,
        now: Callable[[], float] = time.monotonic,
        limits: FoldLimits | None = None,
    ) -> None:
        super().__init__(stream)
        self._folding = Folding(now=now, limits=limits or FoldLimits())

    @override
    def emit(self, record: logging.LogRecord) -> None:
        for line in self._folding.take(record):
            super().emit(line)

    @override
    def close(self) -> None:
        for line in self._folding.rest():
            super().emit(line)
        super().close()
