"""The consumer and engines on other hosts, chosen by settings and by Docker's own variables."""

import json
from pathlib import Path

import pytest

from deploy.lab.servers import Broker, DockerHost
from tests.contract.brokers import fresh_names
from tests.e2e.commands import command, settings_of
from tests.e2e.world import own_world
from tests.secured_engine import secured_engine

pytestmark = [pytest.mark.docker, pytest.mark.rabbitmq]


async def test_docker_host_never_falls_back(
    broker: Broker, docker_host: DockerHost, tmp_path: Path
) -> None:
    """One that nobody listens at is told, though the file names an engine that would answer."""
    settings = settings_of(fresh_names(), broker, docker_host, tmp_path)

    done = command("check", "--json", folder=tmp_path, DOCKER_HOST="unix:///no/where", **settings)

    told = {line["name"]: line for line in map(json.loads, done.stdout.splitlines())}
    assert done.returncode == 1
    assert told["engine"]["message"].startswith("failed to connect to docker daemon: unix:///no/wh")
    assert docker_host.url not in done.stdout


async def test_clear_text_to_an_engine_elsewhere_is_warned_of(
    broker: Broker, docker_host: DockerHost, tmp_path: Path
) -> None:
    """Before anything is asked there."""
    settings = settings_of(fresh_names(), broker, docker_host, tmp_path)
    url = f"tcp://{docker_host.address}:2375"

    done = command("check", folder=tmp_path, DOCKER_HOST=url, **settings)

    assert f"settings: warning: compute.docker.host: {url} is clear text" in done.stdout
    assert f"engine: failed to connect to docker daemon: nothing listens at {url}" in done.stdout


async def test_an_engine_is_reached_by_dockers_own_variables(
    broker: Broker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DOCKER_HOST and its certificates win over the settings: a tenant runs there, and answers."""
    with secured_engine(tmp_path) as engine:
        monkeypatch.setenv("DOCKER_HOST", engine.url)
        monkeypatch.setenv("DOCKER_TLS_VERIFY", "1")
        monkeypatch.setenv("DOCKER_CERT_PATH", str(tmp_path))
        async with own_world(
            broker, engine.host, tmp_path, docker_url="tcp://127.0.0.1:1"
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
