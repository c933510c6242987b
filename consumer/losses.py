"""Whose request was under way when the engine was lost, again and again: what kills it, waits.

A document that takes the engine down takes it down at every retry, and all tenants with it. Which
of the requests under way it was cannot be told from one loss; whose request is under way each time
is put off for as long as a retry ever is. An innocent one that is caught twice waits as long, once:
with the others put off it is seldom caught again, and what it gets done clears it.
"""

from typing import Final

from consumer.model import TenantId

MOST_LOSSES: Final = 2
"""In a row; the next try is put off for longest then."""


class Losses:
    """Counts, for each tenant and what is wanted of it, the losses in a row."""

    def __init__(self) -> None:
        self._counts: dict[TenantId, tuple[int, int]] = {}

    def count(self, tenant_id: TenantId, revision: int) -> int:
        """Return how many there were with this one; another revision begins anew."""
        known, count = self._counts.get(tenant_id, (revision, 0))
        count = count + 1 if known == revision else 1
        self._counts[tenant_id] = (revision, count)
        return count

    def forget(self, tenant_id: TenantId) -> None:
        """Count anew: it got done what was wanted, or is gone."""
        self._counts.pop(tenant_id, None)
