"""Row: from the publishing of a tenant event to the receipt of its `running`, one at a time.

The floor is create and start of a like container by a bare script, and nothing else: no broker, no
ledger, no look at what became of it.
"""

import time

from tests.bench.report import Row, Target
from tests.bench.stand import Stand

_MODEL = "startup-model"


async def _floor(stand: Stand, number: int) -> float:
    shown = await stand.run_tenant(_MODEL)  # the same one every time: it stays
    began = time.monotonic()
    container = await stand.twin(shown, f"startup-{number}")
    await container.start()
    seconds = time.monotonic() - began
    await container.delete(force=True)
    return seconds


async def _ours(stand: Stand, number: int) -> float:
    tenant = f"startup-{number}"
    document = stand.document(tenant)
    began = time.monotonic()
    event_id = await stand.clients.publisher.create(document)
    heard = await stand.answer(tenant, event_id)
    seconds = heard.at - began
    assert heard.status["state"] == "running", heard.status
    await stand.delete_tenant(tenant)
    return seconds


ROW = Row(
    name="startup",
    title="start of a tenant",
    target=Target(most_ratio=1.05, most_more=0.015),
    rounds=80,
    quick_rounds=8,
    floor=_floor,
    ours=_ours,
)
