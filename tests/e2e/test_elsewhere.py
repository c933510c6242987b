"""The consumer and engines on other hosts, chosen by settings and by Docker's own variables."""

import asyncio
import json
from pathlib import Path

import aiohttp
import pytest

from deploy.lab.docker_cli import DockerCli
from deploy.lab.names import remove_names
from deploy.lab.nested import NestedEngine
from deploy.lab.servers import Broker, DockerHost
from tests.conftest import WEB, import_web_image
from tests.contract.brokers import fresh_names
from tests.e2e.commands import command, settings_of
from tests.e2e.consumer_process import ConsumerProcess
from tests.e2e.world import consumer_process, make_document, own_world, until, world_around
from tests.secured_engine import secured_engine

pytestmark = [pytest.mark.docker, pytest.mark.rabbitmq]


async def test_docker_host_never_falls_back(
    broker: Broker, docker_host: DockerHost, tmp_path: Path
) -> None:
    """One that nobody listens at is told, though the file names an engine that would answer.

    (checklist 16)
    """
    settings = settings_of(fresh_names(), broker, docker_host, tmp_path)

    done = command("check", "--json", folder=tmp_path, DOCKER_HOST="unix:///no/where", **settings)

    told = {line["name"]: line for line in map(json.loads, done.stdout.splitlines())}
    assert done.returncode == 1
    assert told["engine"]["message"].startswith("failed to connect to docker daemon: unix:///no/wh")
    assert docker_host.url not in done.stdout


async def test_clear_text_to_an_engine_elsewhere_is_warned_of(
    broker: Broker, docker_host: DockerHost, tmp_path: Path
) -> None:
    """Before anything is asked there (checklist 15)."""
    settings = settings_of(fresh_names(), broker, docker_host, tmp_path)
    url = f"tcp://{docker_host.address}:2375"

    done = command("check", folder=tmp_path, DOCKER_HOST=url, **settings)

    assert f"WARNING  settings: compute.docker.host: {url} is clear text" in done.stdout
    assert f"engine: failed to connect to docker daemon: nothing listens at {url}" in done.stdout


async def test_an_engine_in_a_container_may_come_late(
    broker: Broker, docker_host: DockerHost, docker: DockerCli, tmp_path: Path
) -> None:
    """The consumer waits for it, says so, and then does what it was asked for meanwhile.

    (checklist 15, 23, 25, 53; weakness 49)
    """
    nested = NestedEngine(docker_host, WEB, ports=(18402,))
    try:
        with consumer_process(broker.url, nested.url, tmp_path) as process:
            starting = asyncio.create_task(asyncio.to_thread(process.start, timeout=90))
            await until(lambda: lacks_only_the_engine(process), seconds=40)
            async with world_around(process, broker, nested) as world:
                ports = [{"container_port": 8080, "host_port": 18402}]
                document = make_document("early", container={"ports": ports})
                event_id = await world.publisher.create(document)
                early = await world.subscriber.expect("early", state="failed")
                nested.start()
                import_web_image(nested)
                await starting
                await world.subscriber.expect(
                    "early", state="running", event_id=event_id, timeout=60
                )
                page = await world.fetch(18402)
                within = world.containers("early")
            here = docker.containers(f"{process.names.prefix}.tenant_id=early")
        await remove_names(broker.url, process.names)
    finally:
        nested.close()

    assert early["reason"] == "engine_unavailable"
    assert str(early["message"]).startswith("failed to connect to docker daemon")
    assert "hello" in page
    assert (len(within), here) == (1, [])


async def lacks_only_the_engine(process: ConsumerProcess) -> bool:
    """Whether it lives, and waits for nothing but the engine."""
    try:
        _, said = await process.http_get("/readyz")
    except aiohttp.ClientConnectionError:
        return False
    lacks = {name for name, how in json.loads(said)["components"].items() if how != "ok"}
    return lacks == {"engine"}


async def test_an_engine_is_reached_by_dockers_own_variables(
    broker: Broker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DOCKER_HOST and its certificates win over the settings: a tenant runs there, and answers.

    (checklist 16, 17, 23)
    """
    with secured_engine(tmp_path) as engine:
        monkeypatch.setenv("DOCKER_HOST", engine.url)
        monkeypatch.setenv("DOCKER_TLS_VERIFY", "1")
        monkeypatch.setenv("DOCKER_CERT_PATH", str(tmp_path))
        # On Docker's own, which tenants share, there would be a warning.
        own_network = {"COMPUTE__DOCKER__NETWORK_NAME": "ll-far-away"}
        async with own_world(
            broker, engine.host, tmp_path, docker_url="tcp://127.0.0.1:1", **own_network
        ) as world:
            monkeypatch.undo()
            port = {"container_port": 8080, "host_port": 18080}
            await world.run_tenant("far-away", container={"ports": [port]})
            page = await world.fetch(18080)
            event_id = await world.publisher.tell("deleted", "far-away")
            await world.subscriber.expect("far-away", state="stopped", event_id=event_id)
            log = world.consumer.log_text()

    assert "hello" in page
    assert "warning" not in log
