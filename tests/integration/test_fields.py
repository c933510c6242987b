"""What a document says is what the engine shows: the table in `tests/fields.py`, on a real one."""

import asyncio
import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

import pytest

from consumer.adapters.docker import DockerEngine
from consumer.adapters.docker_client import Endpoint
from consumer.adapters.docker_spec import Naming
from consumer.engine_options import CAPABILITIES
from consumer.errors import EngineError
from consumer.model import Container, ContainerStatus, Reason, Role, TenantEvent, Transport
from consumer.policy import Admission, Policy
from consumer.status import named_ports
from deploy.lab.docker_cli import DockerCli
from deploy.lab.packages import LabError
from deploy.lab.registry import registry
from deploy.lab.servers import DockerHost
from tests.builders import TENANT_ID, make_delivery
from tests.conftest import WEB
from tests.fields import (
    DEFAULTS,
    DOCUMENTS,
    FULL,
    HOST_PATH,
    OPEN,
    POLICY_SHOWN,
    PREFIX,
    SHOWN,
    VOLUME,
    Shown,
    changed,
)

pytestmark = pytest.mark.docker

NAMING = Naming(PREFIX, "mine")
YOUNGER = {"BPF", "CHECKPOINT_RESTORE", "PERFMON"}
"""Capabilities of Linux that an engine of 2020 does not know; such a one refuses them itself."""


def admitted(document: object, policy: Policy = OPEN) -> TenantEvent:
    """Return the event, come in by the one way there is."""
    admission = Admission(defaults=DEFAULTS, policy=policy)
    return admission.admit(make_delivery(1, body=json.dumps(document).encode()))


def adapter(host: DockerHost, secrets_dir: Path | None = None) -> DockerEngine:
    return DockerEngine(endpoint=Endpoint(url=host.url), naming=NAMING, secrets_dir=secrets_dir)


async def make(engine: DockerEngine, event: TenantEvent) -> Container:
    """Return the container made from the event."""
    assert event.spec is not None
    await engine.prepare(event.tenant_id, event.spec)
    return await engine.create(
        event.tenant_id, event.spec, generation=event.generation, role=Role.CURRENT, serial=1
    )


@pytest.fixture(scope="module")
def inspected(
    docker_host: DockerHost, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Mapping[str, object]]:
    """Make the documents' containers one after another; give what inspect shows of each.

    The first one runs; a privileged one can do so only where the tests may do anything at all.
    """
    docker, secrets_dir = DockerCli(docker_host.url), tmp_path_factory.mktemp("secrets")
    (secrets_dir / TENANT_ID).mkdir()
    (secrets_dir / TENANT_ID / "db_password").write_text("content")

    async def show(document: object) -> object:
        async with adapter(docker_host, secrets_dir).opened() as engine:
            made = await make(engine, admitted(document))
            if document is FULL:
                await engine.start(made)
            return docker.inspect(made.container_id, ".")

    shown = {}
    try:
        for name, document in DOCUMENTS.items():
            shown[name] = asyncio.run(show(document))
            docker.remove_containers(f"{PREFIX}.owner={PREFIX}")
        yield shown
    finally:
        docker.remove_containers(f"{PREFIX}.owner={PREFIX}")
        with suppress(LabError):
            docker.run("volume", "rm", VOLUME)


def found(document: object, at: str) -> object:
    """Return what stands at the path; after a slash comes a key that may have dots."""
    path, _, key = at.partition("/")
    for step in (*path.split("."), *([key] if key else [])):
        assert isinstance(document, dict)
        document = document[step]
    if path.startswith("HostConfig.Cap") and isinstance(document, list):
        # As they were sent, or, by a newer engine, with this before them.
        return [name.removeprefix("CAP_") for name in document]
    return document


@pytest.mark.parametrize("shown", SHOWN.values(), ids=SHOWN)
def test_the_engine_shows_each_field(inspected: Mapping[str, object], shown: Shown) -> None:
    """What the document says has arrived, in the engine's own terms."""
    assert found(inspected[shown.document], shown.at) == shown.value


@pytest.mark.parametrize("shown", POLICY_SHOWN.values(), ids=POLICY_SHOWN)
def test_the_engine_shows_what_each_key_of_the_policy_allows(
    inspected: Mapping[str, object], shown: Shown
) -> None:
    """What the operator lets pass, or gives to everybody, has arrived."""
    assert found(inspected[shown.document], shown.at) == shown.value


async def test_the_engine_starts_what_our_rules_for_its_options_take(
    docker_host: DockerHost, docker: DockerCli
) -> None:
    """Every capability, and options of each kind, where a word too many would be refused late."""
    config = {
        "cap_drop": sorted(CAPABILITIES - YOUNGER),
        "stop_signal": "SIGRTMAX-14",
        "tmpfs": {"/x": "rw,exec,nosuid,size=10%,mode=1777,uid=1000,gid=1000,nr_inodes=5k"},
        "volumes": [f"{HOST_PATH}:/data/y:rw,z", f"{VOLUME}:/cache:nocopy,ro"],
        "log_options": {
            "max-size": "0.5 MiB",
            "max-file": 20,
            "compress": True,
        },
        "ulimits": {"nofile": {"soft": 100, "hard": 200}, "core": {"soft": 0, "hard": 0}},
        "user": "2147483647",
    }
    event = admitted(
        {
            "tenant_id": TENANT_ID,
            "containers": [{"image": WEB, "command": ["sleep", "60"]}],
            "provider_config": config,
        }
    )

    async with adapter(docker_host).opened() as engine:
        started = await engine.start(await make(engine, event))
    docker.remove_containers(f"{PREFIX}.owner={PREFIX}")

    assert started.status is ContainerStatus.RUNNING


async def test_the_pull_policy_is_heeded(docker_host: DockerHost) -> None:
    """`never` does not ask a registry for an image that is not there."""
    event = admitted(
        {
            "tenant_id": TENANT_ID,
            "containers": [{"image": "landlord-test/web:nowhere"}],
            "provider_config": {"pull_policy": "never"},
        }
    )
    assert event.spec is not None

    async with adapter(docker_host).opened() as engine:
        with pytest.raises(EngineError, match="pull_policy is never") as caught:
            await engine.prepare(TENANT_ID, event.spec)

    assert caught.value.reason == Reason.IMAGE_NOT_FOUND


async def test_the_name_of_a_port_is_joined_to_what_was_bound(
    docker_host: DockerHost, docker: DockerCli
) -> None:
    """The engine keeps no names of ports; what it bound gets them back."""
    document = changed("containers[0].secrets", [])
    event = admitted(document)

    async with adapter(docker_host).opened() as engine:
        await engine.start(await make(engine, event))
        (container,) = await engine.observe(TENANT_ID)
    docker.remove_containers(f"{PREFIX}.owner={PREFIX}")

    told = {
        (port.container_port, port.protocol): port for port in named_ports(event.spec, container)
    }
    http = told[8081, Transport.TCP]
    assert (http.name, http.host_port) == ("http", 18301)
    assert told[53, Transport.UDP].host_port is None


async def test_an_image_by_digest_runs_where_one_is_needed(
    docker_host: DockerHost, docker: DockerCli
) -> None:
    """With `require_digest`, what runs is the image of that digest."""
    with registry(docker_host) as place:
        docker.run("tag", WEB, f"{place}/web:1")
        docker.run("push", f"{place}/web:1")
        (pinned,) = docker.run(
            "inspect", "-f", "{{range .RepoDigests}}{{println .}}{{end}}", f"{place}/web:1"
        ).split()
        docker.run("rmi", f"{place}/web:1")
        document = {"tenant_id": TENANT_ID, "containers": [{"image": pinned}]}
        event = admitted(document, Policy(require_digest=True, images=(f"{place}/web",)))
        async with adapter(docker_host).opened() as engine:
            made = await engine.start(await make(engine, event))
        image = docker.inspect(made.container_id, ".Config.Image")
        docker.remove_containers(f"{PREFIX}.owner={PREFIX}")
        docker.run("rmi", pinned)

    assert image == pinned
