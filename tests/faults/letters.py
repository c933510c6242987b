"""What was published, and whether what was dead-lettered of it is the same, and how often."""

import struct
from collections import Counter
from hashlib import blake2b

from consumer.content_header import entries, join, split, table_of
from tests.faults.fuzzed import MARK, Fuzzed

# A queue that counts deliveries says so in a header, and has the others in an order of its own.
_ADDED = (b"landlord-", b"x-delivery-count")


class Letters:
    """What was published, and which of it was dead-lettered."""

    def __init__(self) -> None:
        self._marked: dict[int, tuple[bytes, bytes]] = {}
        self._others: Counter[bytes] = Counter()
        self._taken: set[int] = set()
        self.valid: list[Fuzzed] = []
        self.count = 0
        self.copies = 0
        """Of dead letters: one that is not confirmed in time is published again."""

    def sent(self, fuzzed: Fuzzed) -> None:
        """Note a message that is published."""
        body = b"".join(fuzzed.message.body)
        if fuzzed.sort == "framed":
            self._others[_digest(body)] += 1
            return
        published = _as_published(fuzzed.message.properties)
        self._marked[fuzzed.number] = published, _digest(body)
        if fuzzed.event_id is not None:
            self.valid.append(fuzzed)

    def dead_lettered(self, properties: bytes, body: bytes) -> None:
        """Note a dead letter: it is one of those sent, byte for byte; a second one is a copy."""
        self.count += 1
        marks = [value for name, value in entries(split(properties)["headers"]) if name == MARK]
        if not marks:
            # What has odd headers has them changed where the broker would act upon them; that they
            # are kept otherwise is seen in the tests of the frames.
            assert _digest(body) in self._others, "a dead letter that nobody sent"
            self._others[_digest(body)] -= 1
            self.copies += self._others[_digest(body)] < 0
            return
        (number,) = struct.unpack(">i", marks[0][1:])
        self.copies += number in self._taken
        self._taken.add(number)
        published = self._marked[number]
        came = _as_published(properties), _digest(body)
        assert came == published, f"{number} has changed: {came} instead of {published}"


def _as_published(properties: bytes) -> bytes:
    """Return the properties without what dead letter and queue add; a dead letter is durable."""
    parts = split(properties)
    found = entries(parts["headers"])
    own = sorted(entry for entry in found if not entry[0].startswith(_ADDED))
    return join({**parts, "headers": table_of(own), "delivery_mode": b"\2"})


def _digest(*parts: bytes) -> bytes:
    return blake2b(b"\0".join(parts), digest_size=16).digest()
