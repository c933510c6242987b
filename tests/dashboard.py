"""A picture of the Grafana dashboard, drawn without Grafana: `python -m tests.dashboard FILE`.

What is seen is real: for four minutes a consumer works for some tens of tenants, with a RabbitMQ
and a Prometheus of its own, and each panel's queries are asked as Grafana would ask them. The
engine is simulated, so that it takes as long as a usual one, and some things go wrong. Where a
panel lies, its title, unit and colours are the dashboard's own; `dashboard.html` draws them.
"""

import asyncio
import json
import math
import random
import re
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Final

from deploy.lab.names import Names
from deploy.lab.prometheus import Prometheus, prometheus
from deploy.lab.servers import Broker
from tests.browser import chromium
from tests.e2e.broker_clients import BrokerClients, connect
from tests.e2e.consumer_process import ConsumerProcess
from tests.e2e.world import until
from tests.simulated.host import Refusal, SimulatedHost
from tests.simulated.server import serving

_DASHBOARD: Final = (
    Path(__file__).parents[1] / "deploy" / "grafana" / "dashboards" / "landlord.json"
)
_PAGE: Final = Path(__file__).with_suffix(".html")
_WIDTH: Final = 1120
_SECONDS: Final = 240
_STEP_SECONDS: Final = 4
_SCRAPED_SECONDS: Final = 60.0
_VARIABLES: Final = {
    "$instance": ".*",
    "$__rate_interval": "30s",
    "$__range": f"{_SECONDS}s",
}
"""What Grafana would put in their place, for a range as short as this."""

_PACE_SECONDS: Final = 1.2
_CROWD_EVERY_SECONDS: Final = 70.0
_CROWD: Final = 8
_RESTART_SECONDS: Final = 0.3
_SEED: Final = 5
_IMAGE: Final = "registry.example.com/shop/web:{}"
_MISSING: Final = _IMAGE.format("missing")
_LATENCIES: Final = {
    "list": 0.02,
    "inspect": 0.01,
    "pull": 0.9,
    "stop": 0.2,
    "remove": 0.06,
    "rename": 0.02,
    "update": 0.02,
}
_HEAVY: Final = {"create": 0.2, "start": 0.3}
"""Those that take now longer, now shorter."""


class _Town:
    """Tenants that come, change and go; what is published for them is not waited for."""

    def __init__(self, clients: BrokerClients, host: SimulatedHost, names: Names) -> None:
        self._publisher = clients.publisher
        self._host = host
        self._names = names
        self._chance = random.Random(_SEED)
        self._known = 0
        self._release = 1
        self._well: list[str] = []
        self._suspended: list[str] = []
        self._wrong: list[str] = []

    async def live(self, seconds: float) -> None:
        """Have this and that happen for so long."""
        end = time.monotonic() + seconds
        crowd_at = time.monotonic() + _CROWD_EVERY_SECONDS / 3
        acts = {
            self.create: 7,
            self.update: 8,
            self.delete: 6,
            self.suspend: 2,
            self.resume: 2,
            self.ask_wrongly: 2,
            self.mend: 1.5,
            self.crash: 1,
            self.repeat: 2,
            self.babble: 0.5,
        }
        while time.monotonic() < end:
            if time.monotonic() > crowd_at:
                crowd_at += _CROWD_EVERY_SECONDS
                for _ in range(_CROWD):
                    await self.create()
            for operation, usual in _HEAVY.items():
                self._host.latencies[operation] = usual * self._chance.lognormvariate(0, 0.5)
            (act,) = self._chance.choices(list(acts), list(acts.values()))
            await act()
            await asyncio.sleep(self._chance.expovariate(1 / _PACE_SECONDS))

    async def create(self) -> None:
        await self._publisher.create(self._document(self._newcomer(self._well)))

    async def update(self) -> None:
        """Now and then it is a new release, whose image is not there yet."""
        self._release += self._chance.random() < 0.3
        if self._well:
            await self._publisher.update(self._document(self._chance.choice(self._well)))

    async def delete(self) -> None:
        if len(self._well) > _CROWD:
            await self._publisher.tell("deleted", self._any(self._well))

    async def suspend(self) -> None:
        if self._well:
            self._suspended.append(self._any(self._well))
            await self._publisher.tell("suspended", self._suspended[-1])

    async def resume(self) -> None:
        if self._suspended:
            self._well.append(self._any(self._suspended))
            await self._publisher.tell("resumed", self._well[-1])

    async def ask_wrongly(self) -> None:
        """Want what cannot be: an image, a command, a number."""
        document = self._document(self._newcomer(self._wrong))
        wrong: tuple[Mapping[str, object], ...] = (
            {"containers": [{"image": _MISSING}]},
            {"containers": [{"image": _IMAGE.format(1), "command": ["/nowhere"]}]},
            {"resources": {"cpu": 1}},
        )
        await self._publisher.create({**document, **self._chance.choice(wrong)})

    async def mend(self) -> None:
        if self._wrong:
            self._well.append(self._any(self._wrong))
            await self._publisher.update(self._document(self._well[-1]))

    async def crash(self) -> None:
        """End a container behind the consumer's back, and have the engine bring it up again."""
        if self._well:
            name = self._names.container(self._chance.choice(self._well))
            # Its container may be just about to be made or replaced.
            with suppress(Refusal):
                self._host.exit(name, 1)
                await asyncio.sleep(_RESTART_SECONDS)
                self._host.come_up(name)

    async def repeat(self) -> None:
        """Say one thing twice, as a publisher does that missed the confirm."""
        if self._well:
            document = self._document(self._chance.choice(self._well))
            message_id = await self._publisher.update(document)
            await self._publisher.publish("updated", document, message_id=message_id)

    async def babble(self) -> None:
        """Publish what nobody can read: a dead letter."""
        await self._publisher.publish("created", b"{")

    def _newcomer(self, kind: list[str]) -> str:
        self._known += 1
        kind.append(f"tenant-{self._known}")
        return kind[-1]

    def _any(self, kind: list[str]) -> str:
        return kind.pop(self._chance.randrange(len(kind)))

    def _document(self, tenant_id: str) -> dict[str, object]:
        env = {"SEEN": str(self._chance.random())}
        return {
            "tenant_id": tenant_id,
            "containers": [{"image": _IMAGE.format(self._release), "env": env}],
            "resources": {"cpu": 500, "memory": 256},
        }


async def _watched(broker_url: str, folder: Path) -> dict[str, object]:
    """Return the dashboard, and by panel what its queries show of a run."""
    names = Names("landlord")
    host = SimulatedHost(latencies={**_LATENCIES, **_HEAVY})
    host.missing_images.add(_MISSING)
    async with AsyncExitStack() as stack:
        engine_url = await stack.enter_async_context(serving(host, folder / "e.sock"))
        clients = await stack.enter_async_context(connect(broker_url, names))
        process = ConsumerProcess(
            names=names,
            broker_url=broker_url,
            docker_host=engine_url,
            folder=folder,
            settings={"RECONCILE__RESYNC_SECONDS": "15"},
        )
        stack.callback(process.kill)
        await asyncio.to_thread(process.start)
        server = stack.enter_context(prometheus(folder, consumer=f"127.0.0.1:{process.http_port}"))
        await until(lambda: _is_scraped(server), seconds=_SCRAPED_SECONDS)
        begin = time.time()
        await _Town(clients, host, names).live(_SECONDS)
        return await asyncio.to_thread(_asked, server, begin)


async def _is_scraped(server: Prometheus) -> bool:
    return bool(await asyncio.to_thread(server.query, "landlord_build_info"))


def _asked(server: Prometheus, begin: float) -> dict[str, object]:
    dashboard = json.loads(_DASHBOARD.read_text(encoding="utf-8"))
    span = {"begin": begin, "end": begin + _SECONDS, "step": _STEP_SECONDS}
    series = {
        panel["id"]: [
            each for target in panel.get("targets", ()) for each in _series(server, target, span)
        ]
        for panel in dashboard["panels"]
    }
    return {"dashboard": dashboard, "series": series, **span}


def _series(
    server: Prometheus, target: Mapping[str, str], span: Mapping[str, float]
) -> list[dict[str, object]]:
    """Return name and points of each series that a panel's query has in the span."""
    expression = target["expr"]
    for name, value in _VARIABLES.items():
        expression = expression.replace(name, value)
    # Grafana too asks at whole multiples of the step.
    begin = math.ceil(span["begin"] / span["step"]) * span["step"]
    answer = server.ask(
        "query_range",
        query=expression,
        start=str(begin),
        end=str(span["end"]),
        step=str(span["step"]),
    )
    assert isinstance(answer, dict)
    return [
        {
            "name": _legend(target["legendFormat"], each["metric"]),
            "points": [
                [at, float(value)] for at, value in each["values"] if math.isfinite(float(value))
            ],
        }
        for each in answer["result"]
    ]


def _legend(format_: str, labels: Mapping[str, str]) -> str:
    return re.sub(r"\{\{(\w+)\}\}", lambda label: labels.get(label[1], ""), format_)


def main(picture: Path) -> None:
    """Have it happen, and take the picture."""
    # The path of a socket is short.
    with tempfile.TemporaryDirectory(prefix="ll-") as place:
        broker = Broker(Path(place) / "broker")
        try:
            broker.start()
            seen = asyncio.run(_watched(broker.url, Path(place)))
        finally:
            broker.close()
        with chromium(Path(place) / "profile") as browser:
            browser.resize(_WIDTH, _WIDTH)
            browser.open(_PAGE.as_uri())
            height = browser.evaluate("return draw(arguments[0])", seen)
            assert isinstance(height, int)
            browser.resize(_WIDTH, height)
            browser.picture(picture)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
