"""The review at the start: who has to hear of a policy that has changed."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from consumer.errors import Fault
from consumer.model import EventKind, Reason, Setback, TenantId
from consumer.ports import PassResult
from consumer.review import review
from tests.builders import make_event, make_spec
from tests.fakes.clock import LoopClock
from tests.fakes.ledger import InlineLedger

pytestmark = [pytest.mark.asyncio, pytest.mark.looptime]

RULE = Fault("containers[0].image", "compute.policy.images allows only other")
HELD = Setback(1, Reason.POLICY_DENIED, str(RULE), None)
DENIED = make_spec(image="denied")


@pytest.fixture
async def ledger(tmp_path: Path) -> AsyncIterator[InlineLedger]:
    """Give a new ledger."""
    opened = await InlineLedger.open(f"sqlite:///{tmp_path}/ledger.db", clock=LoopClock())
    yield opened
    await opened.close()


async def reviewed(ledger: InlineLedger) -> list[TenantId]:
    """Return who is woken where the policy is against one of two images."""
    woken: list[TenantId] = []
    await review(
        ledger=ledger,
        admits=lambda _, spec: (RULE,) if spec == DENIED else (),
        wake=woken.append,
    )
    return woken


async def test_it_wakes_whom_the_policy_is_against_by_now_and_no_longer(
    ledger: InlineLedger,
) -> None:
    """Of four tenants two have something to hear; the others stand as they should."""
    allowed = make_spec()
    for name, spec, setback in (
        ("allowed", allowed, None),
        ("allowed-again", allowed, HELD),
        ("denied", DENIED, None),
        ("denied-still", DENIED, HELD),
    ):
        tenant_id = TenantId(name)
        await ledger.record([make_event(tenant_id=tenant_id, spec=spec)])
        await ledger.commit(PassResult(tenant_id=tenant_id, revision=1, setback=setback))

    assert await reviewed(ledger) == ["allowed-again", "denied"]


async def test_who_is_not_wanted_running_is_left_alone(ledger: InlineLedger) -> None:
    """A policy says nothing of the suspended and the deleted."""
    for kind in (EventKind.SUSPENDED, EventKind.DELETED):
        tenant_id = TenantId(kind.name)
        await ledger.record([make_event(tenant_id=tenant_id, spec=DENIED)])
        await ledger.record([make_event(kind, tenant_id=tenant_id, event_id=None)])

    assert await reviewed(ledger) == []


async def test_it_goes_through_all_pages_and_waits_for_a_ledger_that_is_down(
    ledger: InlineLedger,
) -> None:
    """None of many is left out, also when the first try cannot read them."""
    names = [TenantId(f"t-{number:03}") for number in range(250)]
    await ledger.record([make_event(tenant_id=name, event_id=None, spec=DENIED) for name in names])
    ledger.is_down = True
    asyncio.get_running_loop().call_later(7, setattr, ledger, "is_down", False)

    assert await reviewed(ledger) == names
