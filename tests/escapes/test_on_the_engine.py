"""The table of ways out, on a real engine: what is let in has the effect that stands there."""

import asyncio
import json
from collections.abc import Iterator

import pytest

from consumer.adapters.docker import DockerEngine
from consumer.adapters.docker_client import Endpoint
from consumer.adapters.docker_spec import Naming
from consumer.errors import EngineError
from consumer.model import Reason, Role, TenantEvent
from consumer.policy import Admission
from deploy.lab.docker_cli import DockerCli
from deploy.lab.servers import DockerHost
from tests.builders import make_delivery, make_document
from tests.escapes.table import DEFAULTS, PASSES, POLICY, PREFIX, Passes, forcing
from tests.integration.test_fields import found

pytestmark = pytest.mark.docker


async def make(docker_host: DockerHost, event: TenantEvent) -> str:
    """Have the event's container made; return its id."""
    naming, endpoint = Naming(PREFIX, "mine"), Endpoint(url=docker_host.url)
    async with DockerEngine(endpoint=endpoint, naming=naming).opened() as engine:
        assert event.spec is not None
        await engine.prepare(event.tenant_id, event.spec)
        made = await engine.create(
            event.tenant_id, event.spec, generation=1, role=Role.CURRENT, serial=1
        )
        return made.container_id


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

    shown = docker.inspect(asyncio.run(make(docker_host, event)), ".")

    assert found(shown, passes.at) == passes.shows
    for key in ("Privileged", "PidMode", "IpcMode", "UsernsMode", "CapAdd", "Devices"):
        assert found(shown, f"HostConfig.{key}") in (False, "", "private", None, []), key


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("EXPOSE 1-40000", "has 40000 ports, at most 20000"),
        (f"VOLUME {json.dumps([f'/v/{number}' for number in range(300)])}", "has 300 volumes"),
    ],
    ids=["ports", "volumes"],
)
def test_an_image_that_brings_too_much_makes_no_container(
    docker_host: DockerHost, docker: DockerCli, change: str, words: str
) -> None:
    """Hundreds of thousands of ports cost the engine a minute, and each status event 25 MB."""
    image = "landlord-test/much:1"
    docker.import_image(image, (change,))
    body = make_document(image=image)
    event = Admission(defaults=DEFAULTS, policy=POLICY).admit(make_delivery(1, body=body))

    with pytest.raises(EngineError, match=words) as refused:
        asyncio.run(make(docker_host, event))

    docker.run("rmi", image)
    assert refused.value.reason == Reason.CREATE_FAILED
    assert not refused.value.is_transient
    assert docker.containers(f"{PREFIX}.owner={PREFIX}") == []


@pytest.mark.parametrize(
    "container",
    [{}, {"healthcheck": {"test": "true"}}, {"healthcheck": {"test": "true", "retries": 9}}],
    ids=["the image's check", "a check without an interval", "a check with something else"],
)
def test_an_image_brings_in_no_more_than_a_document(
    docker_host: DockerHost, docker: DockerCli, container: dict[str, object]
) -> None:
    """Its labels that tools act upon are emptied, its health check is made seldom enough."""
    image = "landlord-test/loud:1"
    docker.import_image(
        image,
        (
            'CMD ["/start.sh"]',
            "LABEL other.tenant_id=acme other.instance=default com.docker.compose.project=theirs",
            f"LABEL traefik.http.routers.x.rule=x {PREFIX}.instance=theirs team=blue",
            "HEALTHCHECK --interval=1ms CMD true",
        ),
    )
    body = make_document(containers=[{"image": image, **container}])
    event = Admission(defaults=DEFAULTS, policy=POLICY).admit(make_delivery(1, body=body))

    shown = docker.inspect(asyncio.run(make(docker_host, event)), ".")

    docker.remove_containers(f"{PREFIX}.owner={PREFIX}")
    docker.run("rmi", image)
    labels, check = found(shown, "Config.Labels"), found(shown, "Config.Healthcheck")
    assert isinstance(labels, dict)
    assert isinstance(check, dict)
    assert [labels[key] for key in ("other.tenant_id", "other.instance")] == ["", ""]
    assert labels["com.docker.compose.project"] == labels["traefik.http.routers.x.rule"] == ""
    assert (labels[f"{PREFIX}.instance"], labels["team"]) == ("mine", "blue")
    assert check["Test"]
    assert check["Interval"] == 1_000_000_000
