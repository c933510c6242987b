"""At the start: whom of the recorded tenants the policy of today is against, or no longer against.

Those are woken, and their passes tell and do what follows; all others are left at rest. It ends
when everybody was looked at: a policy does not change while the consumer runs.
"""

import asyncio
from collections.abc import Callable, Iterable
from typing import Final, Protocol

import structlog

from consumer.errors import Fault, LedgerError
from consumer.model import Desired, Reason, Tenant, TenantId, TenantSpec

_log: Final = structlog.get_logger(__name__)

_PAGE: Final = 100
"""Their documents are decoded in the loop, so not too many at a time."""
_RETRY_SECONDS: Final = 5.0

Admits = Callable[[TenantId, TenantSpec], Iterable[Fault]]


class Pages(Protocol):
    """Gives the recorded tenants in order of id."""

    async def page(self, *, after: str, limit: int, state: str | None) -> list[Tenant]: ...


async def review(*, ledger: Pages, admits: Admits, wake: Callable[[TenantId], None]) -> None:
    """Wake every tenant that is to be held back from now on, or no longer."""
    after, denied = "", 0
    while True:
        try:
            tenants = await ledger.page(after=after, limit=_PAGE, state=None)
        except LedgerError as error:
            _log.warning("policy review put off", error=str(error))
            await asyncio.sleep(_RETRY_SECONDS)
            continue
        for tenant in tenants:
            is_denied = denies(tenant, admits)
            denied += is_denied
            if is_denied is not _is_held_back(tenant):
                wake(tenant.tenant_id)
        if len(tenants) < _PAGE:
            break
        after = tenants[-1].tenant_id
    if denied:
        _log.warning("policy tightened", tenants_denied=denied)


def denies(tenant: Tenant, admits: Admits) -> bool:
    """Whether the policy is against a tenant that is wanted running."""
    if tenant.spec is None or tenant.desired is not Desired.RUNNING:
        return False
    return any(True for _ in admits(tenant.tenant_id, tenant.spec))


def _is_held_back(tenant: Tenant) -> bool:
    return tenant.setback is not None and tenant.setback.reason is Reason.POLICY_DENIED
