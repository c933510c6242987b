"""How often what a tenant does by itself is told: one that flaps fills no ledger and no broker.

A tenant has some tellings in hand, which come back one by one. Within them every change is told as
it is seen; beyond them changes are held, and the next telling says how many there were, and since
when. It comes within the time of one, and tells what is so then: the last word is never held for
longer. Answers to tenant events are not counted: whoever publishes them sets their pace.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from consumer.model import Reason, State, Status, TenantId

_Change = tuple[State, Reason]

BURST: Final = 20
COME_BACK_SECONDS: Final = 60.0


@dataclass(slots=True)
class _Purse:
    """What a tenant has in hand, and what is held of it."""

    left: float
    counted_at: float
    held: int = 0
    first_at: datetime | None = None
    last: _Change | None = None
    due: float | None = None
    """When a pass was promised that tells what is so then."""


class Flapping:
    """Says what of the tenants' own changes is told now."""

    def __init__(self, *, burst: int = BURST, come_back_seconds: float = COME_BACK_SECONDS) -> None:
        self._burst = burst
        self._seconds = come_back_seconds
        self._purses: dict[TenantId, _Purse] = {}
        """Of those that have less than all in hand."""

    def passes_over(self, tenant_id: TenantId, now: float, at: datetime) -> bool:
        """Whether a change of the tenant need not be seen now: a pass is due by itself to tell it.

        It is counted. `now` is by a clock that only goes on; `at` is when it was, for people.
        """
        purse = self._purse(tenant_id, now)
        if purse is None or purse.due is None or now >= purse.due:
            return False
        purse.last = None
        self._count(purse, at)
        return True

    def hold_until(self, status: Status, now: float) -> float | None:
        """Take one telling for the status; return when one is there again if there is none."""
        purse = self._purse(status.tenant_id, now)
        if purse is None:
            purse = self._purses[status.tenant_id] = _Purse(float(self._burst), now)
        if purse.left >= 1:
            purse.left -= 1
            purse.due = None
            return None
        change = (status.state, status.reason)
        if change != purse.last:
            purse.last = change
            self._count(purse, status.occurred_at)
        # A little later, so that it is there by then, however it is rounded.
        purse.due = now + (1 - purse.left) * self._seconds + 0.001
        return purse.due

    def folded(self, status: Status) -> str:
        """Return the status' message with what was held before it, which is told with it."""
        purse = self._purses.get(status.tenant_id)
        if purse is None or not purse.held or purse.first_at is None:
            return status.message
        since, held = purse.first_at, purse.held
        purse.held, purse.first_at, purse.last = 0, None, None
        return f"{status.message} ({held} changes since {since:%H:%M:%S} UTC are told as one)"

    @staticmethod
    def _count(purse: _Purse, at: datetime) -> None:
        purse.held += 1
        purse.first_at = purse.first_at or at

    def _purse(self, tenant_id: TenantId, now: float) -> _Purse | None:
        purse = self._purses.get(tenant_id)
        if purse is None:
            return None
        passed = max(0.0, now - purse.counted_at)
        purse.left = min(float(self._burst), purse.left + passed / self._seconds)
        purse.counted_at = now
        if purse.left >= self._burst and not purse.held:
            del self._purses[tenant_id]
            return None
        return purse
