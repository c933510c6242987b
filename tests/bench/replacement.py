"""Row: for how long nobody answers on a tenant's host port while an update replaces its container.

The floor is `stop` of the old and `start` of the new one by a bare script, which has made the new
one beforehand. Both are seen by a client that polls the port; what the program within takes to
stop and to listen is in both.
"""

from tests.bench.report import Row, Target
from tests.bench.stand import Stand
from tests.e2e.polling import Poller, polling
from tests.e2e.world import until

_OURS_PORT, _FLOOR_PORT = 18080, 18081
_TENANT = "replaced"
_ANSWER_SECONDS = 0.05


async def _floor(stand: Stand, number: int) -> float:
    shown = await stand.run_tenant(_TENANT, **_container(0, _FLOOR_PORT))
    await stand.delete_tenant(_TENANT)
    old = await stand.twin(shown, f"old-{number}")
    new = await stand.twin(shown, f"new-{number}")
    await old.start()
    async with polling(stand.address, _FLOOR_PORT, answer_seconds=_ANSWER_SECONDS) as client:
        await _answered(client)
        await old.stop(t=10)
        await new.start()
        seconds = await _gap(client)
    for each in (old, new):
        await each.delete(force=True)
    return seconds


async def _ours(stand: Stand, number: int) -> float:
    await stand.run_tenant(_TENANT, **_container(1, _OURS_PORT))
    async with polling(stand.address, _OURS_PORT, answer_seconds=_ANSWER_SECONDS) as client:
        await _answered(client)
        document = stand.document(_TENANT, **_container(2, _OURS_PORT))
        heard = await stand.answer(_TENANT, await stand.clients.publisher.update(document))
        assert heard.status["reason"] == "updated", heard.status
        seconds = await _gap(client)
    await stand.delete_tenant(_TENANT)
    return seconds


def _container(version: int, port: int) -> dict[str, object]:
    return {
        "env": {"VERSION": str(version)},
        "ports": [{"container_port": 8080, "host_port": port}],
    }


async def _answered(client: Poller) -> None:
    """Return once the program within listens, and measure from here."""
    await until(lambda: client.is_answered)
    client.forget()


async def _gap(client: Poller) -> float:
    """Return the gap, once somebody answers again."""
    assert client.failures > 0, "nothing was replaced"
    await until(lambda: client.is_answered)
    return client.longest_gap_seconds


ROW = Row(
    name="replacement",
    title="downtime of a replacement",
    target=Target(most_ratio=1.05, most_more=0.015),
    rounds=16,
    quick_rounds=2,
    floor=_floor,
    ours=_ours,
)
