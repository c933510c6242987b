"""The table of ways out, on a real engine: what is let in has the effect that stands there."""

import asyncio
from collections.abc import Iterator

import pytest

from consumer.adapters.docker import DockerEngine
from consumer.adapters.docker_client import Endpoint
from consumer.adapters.docker_spec import Naming
from consumer.model import Role
from consumer.policy import Admission
from deploy.lab.docker_cli import DockerCli
from deploy.lab.servers import DockerHost
from tests.builders import make_delivery
from tests.escapes.table import DEFAULTS, PASSES, POLICY, PREFIX, Passes, forcing
from tests.integration.test_fields import found

pytestmark = pytest.mark.docker


@pytest.fixture(autouse=True)
def _cleared(docker: DockerCli) -> Iterator[None]:
    yield
    docker.remove_containers(f"{PREFIX}.owner={PREFIX}")


@pytest.mark.parametrize("passes", PASSES.values(), ids=PASSES)
def test_what_is_let_in_has_this_effect_and_no_other(
    docker_host: DockerHost, docker: DockerCli, passes: Passes
) -> None:
    """The engine has it byte for byte, evaluates nothing of it, and nothing of it is privileged."""
    defaults, policy = forcing() if passes.forced else (DEFAULTS, POLICY)
    event = Admission(defaults=defaults, policy=policy).admit(make_delivery(1, body=passes.body))

    async def make() -> str:
        naming, endpoint = Naming(PREFIX, "mine"), Endpoint(url=docker_host.url)
        async with DockerEngine(endpoint=endpoint, naming=naming).opened() as engine:
            assert event.spec is not None
            await engine.prepare(event.tenant_id, event.spec)
            made = await engine.create(
                event.tenant_id, event.spec, generation=1, role=Role.CURRENT, serial=1
            )
            return made.container_id

    shown = docker.inspect(asyncio.run(make()), ".")

    assert found(shown, passes.at) == passes.shows
    for key in ("Privileged", "PidMode", "IpcMode", "UsernsMode", "CapAdd", "Devices"):
        assert found(shown, f"HostConfig.{key}") in (False, "", "private", None, []), key
