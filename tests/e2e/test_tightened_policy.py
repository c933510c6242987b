"""A policy that is tightened holds for the tenants that are there, from the next start on."""

import json
from pathlib import Path

import pytest

from deploy.lab.servers import Broker, DockerHost
from tests.e2e.commands import command, settings_of
from tests.e2e.world import World, own_world, until

pytestmark = [pytest.mark.docker, pytest.mark.rabbitmq]

LENIENT = "LANDLORD_COMPUTE__POLICY__CAP_ADD"


async def restarted(world: World, **settings: str) -> None:
    """Start the consumer again, its policy tightened."""
    assert world.consumer.terminate() == 0
    world.consumer.daemon.environment.pop(LENIENT, None)
    world.consumer.daemon.environment.update(settings)
    world.consumer.start()


async def test_a_recorded_tenant_keeps_nothing_that_was_withdrawn(
    broker: Broker, docker_host: DockerHost, tmp_path: Path
) -> None:
    """Its container goes on, is told and listed, and is never made nor started again."""
    async with own_world(
        broker, docker_host, tmp_path, COMPUTE__POLICY__CAP_ADD="NET_ADMIN"
    ) as world:
        before = await world.run_tenant("trusted", provider_config={"cap_add": ["NET_ADMIN"]})
        await world.run_tenant("modest")

        await restarted(world)
        told = await world.subscriber.expect("trusted", state="failed")
        settings = settings_of(world.names, broker, docker_host, tmp_path)
        checked = command("check", "--json", folder=tmp_path, **settings)
        runs_on = world.inspect("trusted", ".State.Running")
        world.docker.run("rm", "-f", world.container("trusted"))
        await world.run_tenant("fence")
        world.consumer.restart()
        await world.run_tenant("second-fence")

        assert (told["reason"], told["will_retry"]) == ("policy_denied", False)
        assert "compute.policy.cap_add" in str(told["message"])
        assert told["container"]["id"] == before["container"]["id"]  # type: ignore[index]  # dicts
        assert runs_on is True
        lines = [json.loads(line) for line in checked.stdout.splitlines()]
        (line,) = [line for line in lines if line["name"] == "recorded tenants"]
        assert line["message"].startswith("trusted: provider_config.cap_add: compute.policy")
        assert world.containers("trusted") == []
        assert (await world.consumer.status("modest"))["state"] == "running"


async def test_a_recorded_tenant_is_stopped_where_the_policy_says_so(
    broker: Broker, docker_host: DockerHost, tmp_path: Path
) -> None:
    """With `on_tightened: stop` it is stopped at the start, and whenever it is started by hand."""
    async with own_world(
        broker, docker_host, tmp_path, COMPUTE__POLICY__CAP_ADD="NET_ADMIN"
    ) as world:
        await world.run_tenant("trusted", provider_config={"cap_add": ["NET_ADMIN"]})

        await restarted(world, LANDLORD_COMPUTE__POLICY__ON_TIGHTENED="stop")
        told = await world.subscriber.expect("trusted", state="failed")
        await until(lambda: world.inspect("trusted", ".State.Running") is False)
        world.docker.run("start", world.container("trusted"))
        await until(lambda: world.inspect("trusted", ".State.Running") is False)

        assert told["reason"] == "policy_denied"
