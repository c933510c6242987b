"""How many HTTP connections are held, by whom, and for how long.

Every connection has a deadline at any time: for the head of a request, for being idle, for taking
what it is sent. There are at most so many, in all and of one address; who comes then takes the
place of the one that has waited longest, of a reader that takes nothing, or of a stream that is
open longest, in this order, and of an address that holds many before all others. Only where all of
them are being answered is he refused. So nobody who holds connections open keeps others from an
answer, and nobody uses up the process's descriptors.
`acceptor` brings the connections, `serving` makes each an HTTP server's.
"""

import asyncio
import ipaddress
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from typing import Final

_SHARE_OF_DESCRIPTORS: Final = 4
"""The rest is for the engine, the broker, the ledger and what libraries open."""
_LEAST: Final = 4
_HOST: Final = re.compile(r"(\[[0-9a-f:.]+\]|[^\s:/@\[\]]+)(?::\d{1,5})?")
_FEW: Final = 8
"""A browser or a scraper holds no more."""
_PREFIX_OF_V6: Final = 64
"""Whoever has one address there has all of its network."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpLimits:
    """How many connections there may be, and how long each step of one may take."""

    connections: int = 256
    per_address: int = 64
    head_seconds: float = 10.0
    """From the connection, or from a request's first byte, to the end of its head."""
    idle_seconds: float = 75.0
    """Between two requests; longer than scrapers and probes leave between theirs."""
    stall_seconds: float = 30.0
    """In which a reader has to take something of what lies ready for him."""
    most_unread_bytes: int = 16 * 1024 * 1024
    """What may lie ready for all readers together that have stopped reading."""
    most_head_bytes: int = 64 * 1024
    """What one may send before he has his answer; nothing here takes a body."""
    retry_seconds: float = 0.5
    """Until accepting is tried again, when the system has no descriptors left."""

    def within(self, descriptors: int) -> "HttpLimits":
        """Return the limits that leave most of the process's descriptors to its other parts."""
        most = max(min(self.connections, descriptors // _SHARE_OF_DESCRIPTORS), _LEAST)
        return replace(self, connections=most, per_address=min(self.per_address, most // 2))


class Held:
    """A connection, as far as the bounds are concerned; `serving` makes it one of HTTP."""

    def __init__(self, owner: "Connections") -> None:
        self.address = ""
        self.own_address = ""
        """The one of ours that it was made to."""
        self.is_here = False
        """Whether it was made on this host, to a loopback address."""
        self.begun_at = 0.0
        self._owner = owner
        self._wire: asyncio.Transport | None = None
        self._deadline: asyncio.TimerHandle | None = None
        self._stall: asyncio.TimerHandle | None = None
        self._unread_bytes = 0

    @property
    def unread_bytes(self) -> int:
        """How much lies ready for a reader who does not take it; 0 for one who does."""
        return self._wire.get_write_buffer_size() if self._wire and self._stall else 0

    def opened(self, wire: asyncio.Transport) -> bool:
        """Take the connection in; return whether there is room for it."""
        self._wire = wire
        self.address, self.own_address, self.is_here = _ends(wire)
        is_held = self._owner.admit(self)
        self.waits(self._owner.limits.head_seconds)
        return is_held

    def closed(self) -> None:
        """Count it no more."""
        self._owner.forget(self)
        self._wire = None
        for timer in (self._deadline, self._stall):
            if timer is not None:
                timer.cancel()

    def waits(self, seconds: float) -> None:
        """Say that nothing is asked for; it is dropped after this time."""
        self._owner.move(self, WAITING)
        self._set_deadline(seconds)

    def is_answered(self, *, as_stream: bool = False) -> None:
        """Say that a request is worked on, which has deadlines of its own."""
        self._owner.move(self, STREAMING if as_stream else ANSWERING)
        self._set_deadline(None)

    def _set_deadline(self, seconds: float | None) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
        if seconds is not None and self._wire is not None:
            self._deadline = asyncio.get_running_loop().call_later(seconds, self.drop)

    def stops_reading(self) -> None:
        """Say that he takes nothing at the moment."""
        self._unread_bytes = self._wire.get_write_buffer_size() if self._wire else 0
        loop = asyncio.get_running_loop()
        self._stall = loop.call_later(self._owner.limits.stall_seconds, self._look)
        self._owner.drop_unread()

    def reads_again(self) -> None:
        """Say that he took what was ready for him."""
        if self._stall is not None:
            self._stall.cancel()
            self._stall = None

    def _look(self) -> None:
        left = self._wire.get_write_buffer_size() if self._wire else 0
        if left >= self._unread_bytes:
            self.drop()
            return
        self._unread_bytes = left
        loop = asyncio.get_running_loop()
        self._stall = loop.call_later(self._owner.limits.stall_seconds, self._look)

    def drop(self) -> None:
        """End it at once, whatever is on the way."""
        self._owner.forget(self)
        if self._wire is not None:
            self._wire.abort()


WAITING: Final = 0
STREAMING: Final = 1
ANSWERING: Final = 2


class Connections:
    """All that are held."""

    def __init__(self, limits: HttpLimits) -> None:
        self.limits = limits
        self._held: dict[Held, int] = {}
        """In the order in which they came to be as they are."""
        self._of_address: dict[str, dict[Held, None]] = {}

    def __len__(self) -> int:
        return len(self._held)

    def admit(self, newcomer: Held) -> bool:
        """Take him in, at the cost of another where there are enough; else return that he is not.

        There is no await here: what is counted is what there is.
        """
        neighbours = self._of_address.get(newcomer.address, {})
        if len(neighbours) >= self.limits.per_address and not self._make_room(neighbours):
            return False
        if len(self._held) >= self.limits.connections and not self._make_room_in_all():
            return False
        self._held[newcomer] = WAITING
        self._of_address.setdefault(newcomer.address, {})[newcomer] = None
        return True

    def move(self, held: Held, state: int) -> None:
        """Note what becomes of it."""
        if held not in self._held:
            return
        neighbours = self._of_address[held.address]
        for order in (self._held, neighbours):
            order.pop(held)
        self._held[held] = state
        neighbours[held] = None

    def forget(self, held: Held) -> None:
        """Count it no more."""
        if self._held.pop(held, None) is None:
            return
        neighbours = self._of_address[held.address]
        del neighbours[held]
        if not neighbours:
            del self._of_address[held.address]

    def make_room(self) -> bool:
        """Give a descriptor back to the process; return whether one could be spared."""
        return self._make_room_in_all()

    def drop_unread(self) -> None:
        """Let go of those who left most unread, while that is too much in all."""
        unread = {held: held.unread_bytes for held in self._held}
        total = sum(unread.values())
        for held in sorted(unread, key=unread.__getitem__, reverse=True):
            if total <= self.limits.most_unread_bytes:
                return
            total -= unread[held]
            held.drop()

    def drop_all_unread(self) -> None:
        """Let go of whoever takes nothing: nothing is to wait for him."""
        for held in [held for held in self._held if held.unread_bytes]:
            held.drop()

    def _make_room_in_all(self) -> bool:
        # Of those with most connections first: who has few is not to pay for who has many. Among
        # those who have few, whose it is says nothing: what is cheapest to lose goes.
        few = min(_FEW, self.limits.per_address // 2)
        crowds = [held for held in self._of_address.values() if len(held) > few]
        if any(map(self._make_room, sorted(crowds, key=len, reverse=True))):
            return True
        return self._make_room(self._held)

    def _make_room(self, neighbours: Collection[Held]) -> bool:
        dropped = next(self._spare(neighbours), None)
        if dropped is None:
            return False
        dropped.drop()
        return True

    def _spare(self, neighbours: Collection[Held]) -> Iterator[Held]:
        yield from (held for held in neighbours if self._held[held] == WAITING)
        yield from (held for held in neighbours if held.unread_bytes)
        yield from (held for held in neighbours if self._held[held] == STREAMING)


def host_name(header: str) -> str | None:
    """Return the host that a `Host` header names, without its port; None where it names none."""
    found = _HOST.fullmatch(header.strip().lower())
    if found is None:
        return None
    name = found[1].strip("[]").removesuffix(".")
    try:
        return str(_address(name))
    except ValueError:
        return name


def is_loopback(name: str) -> bool:
    """Whether the name cannot be another host's."""
    try:
        return _address(name).is_loopback
    except ValueError:
        return name == "localhost" or name.endswith(".localhost")


def _ends(wire: asyncio.Transport) -> tuple[str, str, bool]:
    """Return whose the connection is, where it came to, and whether it never left this host."""
    peer, own = (wire.get_extra_info(name) for name in ("peername", "sockname"))
    if not peer or not own:
        return "", "", False
    there, here = _address(peer[0]), _address(own[0])
    if isinstance(there, ipaddress.IPv6Address):
        whose = str(ipaddress.ip_network((int(there), _PREFIX_OF_V6), strict=False))
    else:
        whose = str(there)
    return whose, str(here), there.is_loopback and here.is_loopback


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    address = ipaddress.ip_address(text.partition("%")[0])
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address
