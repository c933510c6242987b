"""`isolate_tenants` on a network that is there already: looked at, and told where it fails.

That tenants on a network of ours do not reach each other is shown in `test_networks`.
"""

from collections.abc import Iterator
from uuid import uuid4

import pytest
import structlog

from consumer.adapters.docker import DockerEngine
from consumer.adapters.docker_client import Endpoint
from consumer.adapters.docker_networks import Network
from consumer.adapters.docker_spec import Naming
from consumer.checkup import Outcome
from consumer.examination import examine
from consumer.settings import load
from deploy.lab.docker_cli import DockerCli
from deploy.lab.servers import DockerHost
from tests.builders import TENANT_ID
from tests.contract.engines import shell_spec

pytestmark = pytest.mark.docker

TOLD = "tenants are not kept from each other"
APART = ("-o", "com.docker.network.bridge.enable_icc=false")


@pytest.fixture
def name(docker: DockerCli) -> Iterator[str]:
    """Give a name that no network has; take away what has it afterwards."""
    chosen = f"ll-net-{uuid4().hex[:8]}"
    yield chosen
    for network_id in docker.run("network", "ls", "-q", "--filter", f"name={chosen}").split():
        docker.run("network", "rm", network_id)


async def told_at_the_start(host: DockerHost, network: Network, *, is_joined: bool) -> list[str]:
    """Return what the log says when an engine is reached, twice, and a tenant comes."""
    endpoint, naming = Endpoint(url=host.url), Naming("ll-isolation")
    with structlog.testing.capture_logs() as lines:
        async with DockerEngine(endpoint=endpoint, naming=naming, network=network).opened() as it:
            await it.facts()
            await it.facts()
            if is_joined:
                await it.prepare(TENANT_ID, shell_spec())
    return [str(line["why"]) for line in lines if line["event"] == TOLD]


async def checked(host: DockerHost, network: Network) -> tuple[Outcome, str]:
    """Return what `check` says of the network."""
    environ = {
        "DOCKER_HOST": host.url,
        "LANDLORD_BROKER__URL": "amqp://127.0.0.1:1",
        "LANDLORD_COMPUTE__DOCKER__NETWORK_NAME": network.name,
        "LANDLORD_COMPUTE__DOCKER__ISOLATE_TENANTS": str(network.is_isolating).lower(),
    }
    (line,) = [
        line
        for line in await examine(load(environ=environ), origin="a test")
        if line.name == "network"
    ]
    return line.outcome, f"{line.message} {line.cure}"


@pytest.mark.parametrize("is_joined", [False, True])
async def test_an_open_network_is_told_once_at_the_start_and_by_check(
    docker_host: DockerHost, docker: DockerCli, name: str, *, is_joined: bool
) -> None:
    """It was made by somebody else, without the option; what is to be done stands there."""
    docker.run("network", "create", name)
    network = Network(name=name)

    told = await told_at_the_start(docker_host, network, is_joined=is_joined)
    outcome, words = await checked(docker_host, network)

    assert told == ["was made so that containers on it reach each other"]
    assert outcome is Outcome.WARNING
    assert f"docker network rm {name}" in words


async def test_dockers_own_network_is_told(docker_host: DockerHost) -> None:
    """It is the default, and all containers on it reach each other."""
    told = await told_at_the_start(docker_host, Network(), is_joined=True)
    outcome, words = await checked(docker_host, Network())

    assert told == ["is the engine's own, on which all containers reach each other"]
    assert outcome is Outcome.WARNING
    assert "set compute.docker.network_name" in words


async def test_a_network_made_by_hand_that_keeps_them_apart_is_fine(
    docker_host: DockerHost, docker: DockerCli, name: str
) -> None:
    """What counts is how it is made, not by whom."""
    docker.run("network", "create", *APART, name)
    network = Network(name=name)

    assert await told_at_the_start(docker_host, network, is_joined=True) == []
    assert (await checked(docker_host, network))[0] is Outcome.OK


async def test_a_network_of_ours_is_fine(docker_host: DockerHost, name: str) -> None:
    """Before it is made, and after."""
    network = Network(name=name)

    before = await checked(docker_host, network)
    told = await told_at_the_start(docker_host, network, is_joined=True)
    after = await checked(docker_host, network)

    assert (before[0], told, after[0]) == (Outcome.OK, [], Outcome.OK)


async def test_nothing_is_told_where_isolation_is_not_asked_for(docker_host: DockerHost) -> None:
    """The operator knows."""
    network = Network(is_isolating=False)

    assert await told_at_the_start(docker_host, network, is_joined=True) == []
    assert (await checked(docker_host, network))[0] is Outcome.OK
