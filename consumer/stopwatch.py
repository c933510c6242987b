"""How long the things of a tenant have lasted: measured from when we first saw them.

Container times are the engine's, whose clock is not ours and may be set like ours; what is due
after a failure was written down as a wall time. Neither is reckoned with. A run of a container
counts from our first look at it, a retry from when it was put off, both by the clock that cannot
step. After a restart of the consumer a run counts anew (late is better than falsely too late), and
a retry that the wall clock puts off for longer than any backoff would is not believed.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from consumer.clock import Clock
from consumer.model import Container, ContainerId, Reason, Setback, TenantId

_Run = tuple[ContainerId, datetime | None]
_Try = tuple[int, Reason]


class Stopwatch:
    """Remembers, for each tenant, the runs of its containers and its setback."""

    def __init__(self, *, clock: Clock, most_seconds: Callable[[int], float]) -> None:
        self._clock = clock
        self._most_seconds = most_seconds
        """The longest delay that may follow the given attempt."""
        self._runs: dict[TenantId, dict[_Run, float]] = {}
        self._dues: dict[TenantId, tuple[_Try, float]] = {}

    def see(self, tenant_id: TenantId, containers: Sequence[Container]) -> tuple[Container, ...]:
        """Return the tenant's containers with `run_seen`; others of it are forgotten."""
        now = self._clock.steady()
        known = self._runs.get(tenant_id, {})
        runs = {_run(seen): known.get(_run(seen), now) for seen in containers}
        if runs:
            self._runs[tenant_id] = runs
        else:
            self._runs.pop(tenant_id, None)
        return tuple(replace(seen, run_seen=runs[_run(seen)]) for seen in containers)

    def time(self, tenant_id: TenantId, setback: Setback | None) -> Setback | None:
        """Return the setback with `due`, and with `next_attempt_at` as the wall clock now has it.

        To be called with what the ledger holds, before each pass.
        """
        if setback is None or setback.next_attempt_at is None:
            self._dues.pop(tenant_id, None)
            return setback
        known, due = self._dues.get(tenant_id, (None, 0.0))
        if known != _try(setback):
            due = self._clock.steady() + self._believed_delay(setback, setback.next_attempt_at)
            self._dues[tenant_id] = (_try(setback), due)
        return replace(setback, due=due, next_attempt_at=self._at(due, setback.next_attempt_at))

    def put_off(self, tenant_id: TenantId, setback: Setback, delay_seconds: float) -> Setback:
        """Return the setback of a try that is to be repeated after the delay."""
        due = self._clock.steady() + delay_seconds
        at = self._clock.now() + timedelta(seconds=delay_seconds)
        self._dues[tenant_id] = (_try(setback), due)
        return replace(setback, due=due, next_attempt_at=at)

    def forget(self, tenant_id: TenantId) -> None:
        """Forget a tenant that is gone."""
        self._runs.pop(tenant_id, None)
        self._dues.pop(tenant_id, None)

    def _believed_delay(self, setback: Setback, at: datetime) -> float:
        delay = (at - self._clock.now()).total_seconds()
        return min(max(0.0, delay), self._most_seconds(setback.attempt))

    def _at(self, due: float, told: datetime) -> datetime:
        """Return the wall time of `due`: as it was told, unless the clock was set since."""
        at = self._clock.now() + timedelta(seconds=due - self._clock.steady())
        return at if abs((at - told).total_seconds()) > 1 else told


def _run(container: Container) -> _Run:
    return (container.container_id, container.started_at)


def _try(setback: Setback) -> _Try:
    return (setback.attempt, setback.reason)
