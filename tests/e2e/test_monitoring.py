"""The dashboard and the alerts on a real Prometheus that scraped a real run."""

import asyncio
import json
import math
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio

from deploy.lab.prometheus import Prometheus, prometheus
from deploy.lab.servers import Broker, DockerHost
from tests.e2e.world import World, make_document, own_world, until

pytestmark = [
    pytest.mark.docker,
    pytest.mark.rabbitmq,
    pytest.mark.asyncio(loop_scope="module"),
]

DASHBOARD = Path(__file__).parents[2] / "deploy" / "grafana" / "dashboards" / "landlord.json"
VARIABLES = {"$instance": ".*", "$__rate_interval": "5m", "$__range": "5m"}
"""What Grafana would put in their place."""
SCRAPED_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Query:
    """What a panel asks."""

    panel: str
    expression: str


def queries() -> Iterator[Query]:
    """Yield each query of the dashboard, ready to be asked."""
    dashboard = json.loads(DASHBOARD.read_text(encoding="utf-8"))
    for panel in dashboard["panels"]:
        for target in panel.get("targets", ()):
            expression = target["expr"]
            for name, value in VARIABLES.items():
                expression = expression.replace(name, value)
            yield Query(panel["title"], expression)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server(
    broker: Broker, docker_host: DockerHost, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Prometheus]:
    """Run a Prometheus that scraped a consumer before, while and after something happened.

    Rates need the beginning.
    """
    folder = tmp_path_factory.mktemp("watched")
    async with own_world(broker, docker_host, folder, RECONCILE__RESYNC_SECONDS="2") as world:
        with prometheus(folder, consumer=f"127.0.0.1:{world.consumer.http_port}") as running:
            await until(lambda: has_data(running, "landlord_build_info"), seconds=SCRAPED_SECONDS)
            await live(world)
            yield running


async def has_data(server: Prometheus, expression: str) -> bool:
    """Whether the expression has a number now."""
    found = await asyncio.to_thread(server.query, expression)
    return any(math.isfinite(value) for _, value in found)


async def live(world: World) -> None:
    """Have something of everything happen: a start, failures, and a dead letter."""
    check = {"test": ["CMD", "true"], "interval_seconds": 1}
    await world.run_tenant("watched", container={"healthcheck": check})
    await world.publisher.create(make_document("lost", container={"command": ["/nowhere"]}))
    await world.subscriber.expect("lost", state="failed", reason="start_failed")
    await world.publisher.create(make_document("wrong", resources={"cpu": 1}))
    await world.subscriber.expect("wrong", state="failed", reason="invalid_event")


async def test_every_query_of_the_dashboard_has_data(server: Prometheus) -> None:
    """Each is accepted, and shows a number of what happened; none is empty on a run like this."""
    asked = list(queries())

    async def is_shown() -> bool:
        empty[:] = [query for query in empty if not await has_data(server, query.expression)]
        return not empty

    empty = asked.copy()
    try:
        await until(is_shown, seconds=SCRAPED_SECONDS)
    except TimeoutError:
        assert empty == []

    assert len(asked) > 30


async def test_every_rule_can_be_reckoned_and_a_dead_letter_alarms(
    server: Prometheus,
) -> None:
    """Prometheus finds no fault with any rule, and fires what this run gives it reason for."""
    await until(lambda: is_firing(server, "LandlordDeadLetters"), seconds=SCRAPED_SECONDS)
    await until(lambda: are_reckoned(server), seconds=SCRAPED_SECONDS)
    rules = await rules_of(server)
    pending = await asyncio.to_thread(server.query, 'ALERTS{severity="critical"}')

    assert {
        rule["name"]: rule.get("lastError", "") for rule in rules if rule["health"] == "err"
    } == {}
    assert len(rules) > 10
    assert pending == []


async def is_firing(server: Prometheus, alert: str) -> bool:
    """Whether the alert fires."""
    return await has_data(server, f'ALERTS{{alertname="{alert}", alertstate="firing"}}')


async def are_reckoned(server: Prometheus) -> bool:
    """Whether each rule was evaluated once, whatever came of it."""
    return all(rule["health"] != "unknown" for rule in await rules_of(server))


async def rules_of(server: Prometheus) -> list[dict[str, object]]:
    """Return what Prometheus says of each rule."""
    told = await asyncio.to_thread(server.ask, "rules")
    assert isinstance(told, dict)
    return [rule for group in told["groups"] for rule in group["rules"]]
