"""Whatever comes, in whatever order and however interrupted, the newest intention holds."""

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
import structlog
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from consumer.document import SpecDefaults
from consumer.intention import intend, weigh
from consumer.messages import Delivery, decode_tenant_event
from consumer.model import EventKind, Tenant, TenantId, Verdict
from tests.builders import make_bare_delivery, make_delivery, make_document
from tests.crash.spine import CUTS, World
from tests.fakes.clock import LoopClock
from tests.fakes.ledger import InlineLedger

pytestmark = [pytest.mark.asyncio, pytest.mark.looptime]

TENANTS = [TenantId("acme"), TenantId("other")]


@st.composite
def deliveries(draw: st.DrawFn) -> Delivery:
    """Draw a tenant event; few ids and generations make many duplicates and stale ones."""
    kind = draw(st.sampled_from(EventKind)).value
    tenant_id = draw(st.sampled_from(TENANTS))
    number = draw(st.integers(1, 12))
    generation = draw(st.integers(1, 9))
    if kind in (EventKind.CREATED, EventKind.UPDATED):
        image = draw(st.sampled_from(["nginx:1", "nginx:2"]))
        return make_delivery(number, kind, make_document(tenant_id, image, generation=generation))
    return make_bare_delivery(number, kind, tenant_id, generation=generation)


def newest(tenant_id: TenantId, delivered: list[Delivery]) -> Tenant | None:
    """Return what is wanted of the tenant after all of these, each looked at once."""
    tenant: Tenant | None = None
    seen: set[str | None] = set()
    for delivery in delivered:
        event = decode_tenant_event(delivery, defaults=SpecDefaults())
        if event.tenant_id != tenant_id or event.event_id in seen:
            continue
        if weigh(tenant, event) is Verdict.RECORDED:
            tenant = intend(tenant, event)
            seen.add(event.event_id)
    return tenant


@pytest.fixture
async def worlds(tmp_path: Path) -> AsyncIterator[AsyncIterator[World]]:
    """Give a new world each time it is asked."""
    ledger = await InlineLedger.open(f"sqlite:///{tmp_path}/ledger.db", clock=LoopClock())
    with structlog.testing.capture_logs():
        yield World(ledger).relived()
    await ledger.close()


@settings(
    max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.lists(st.tuples(deliveries(), st.integers(0, 40)), min_size=1, max_size=12),
    st.lists(st.tuples(st.sampled_from(sorted(CUTS)), st.integers(1, 30)), max_size=3),
)
async def test_any_sequence_ends_in_the_newest_intention(
    worlds: AsyncIterator[World],
    to_come: list[tuple[Delivery, int]],
    cuts: list[tuple[str, int]],
) -> None:
    """Each tenant has its one container as last wanted, or none, and was told everything."""
    world = await anext(worlds)
    delivered = [replace(delivery, tag=tag) for tag, (delivery, _) in enumerate(to_come, start=1)]
    world.to_come.extend(zip(delivered, (pause for _, pause in to_come), strict=True))

    for cut, nth in cuts:
        CUTS[cut](world, nth)
        await world.live()
    await world.live()

    for wanted in filter(None, (newest(tenant_id, delivered) for tenant_id in TENANTS)):
        await world.check(wanted.event_id, wanted.tenant_id)
        tenant = await world.tenant(wanted.tenant_id)
        assert (tenant.desired, tenant.spec) == (wanted.desired, wanted.spec)
