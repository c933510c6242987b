"""Row: from the death of a container to the receipt of its `failed`.

The floor is the receipt of Docker's own event of the death by a bare script.
"""

import asyncio
import time
from typing import Final

from tests.bench.report import Row, Target
from tests.bench.stand import Stand

_TENANT: Final = "mortal"
_EVENT_SECONDS: Final = 30.0
_BOOT_SECONDS: Final = 1.0
"""Until the shell within heeds the signal."""
_DIES_WHEN_TOLD: Final = [
    "/bin/sh",
    "-c",
    # TERM too: the first process of a container heeds none that it has not asked for.
    "trap 'exit 3' USR1; trap 'exit 0' TERM; while :; do sleep 1 & wait $!; done",
]


async def _floor(stand: Stand, number: int) -> float:
    shown = await _run(stand, "truth-model")  # the same one every time: it stays
    container = await stand.twin(shown, f"truth-{number}")
    await container.start()
    await asyncio.sleep(_BOOT_SECONDS)
    events = stand.docker.events.subscribe()  # type: ignore[no-untyped-call]  # untyped there
    began = time.monotonic()
    killed = asyncio.create_task(container.kill(signal="SIGUSR1"))
    async with asyncio.timeout(_EVENT_SECONDS):
        while True:
            event = await events.get()
            assert event is not None, "the stream of events ended"
            if event["Action"] == "die" and event["Actor"]["ID"] == container.id:
                break
    seconds = time.monotonic() - began
    await killed
    await container.delete(force=True)
    return seconds


async def _ours(stand: Stand, number: int) -> float:
    shown = await _run(stand, _TENANT)
    container = stand.docker.containers.container(str(shown["Id"]))
    await asyncio.sleep(_BOOT_SECONDS)
    began = time.monotonic()
    killed = asyncio.create_task(container.kill(signal="SIGUSR1"))
    heard = await stand.clients.subscriber.expect_message(
        _TENANT, state="failed", timeout=_EVENT_SECONDS
    )
    await killed
    await stand.delete_tenant(_TENANT)
    return heard.at - began


async def _run(stand: Stand, tenant_id: str) -> dict[str, object]:
    return await stand.run_tenant(tenant_id, command=_DIES_WHEN_TOLD)


ROW = Row(
    name="truth",
    title="death of a container until it is told",
    target=Target(most_more=0.05),
    rounds=12,
    quick_rounds=2,
    floor=_floor,
    ours=_ours,
)
