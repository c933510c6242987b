"""What bad input and the engine's refusals become: dead letters, reasons, and nothing half-made."""

import json
from pathlib import Path

import pytest

from deploy.lab.daemon import Daemon
from deploy.lab.packages import find
from deploy.lab.servers import DockerHost, listens
from tests.e2e.world import World, make_document, until

pytestmark = [pytest.mark.docker, pytest.mark.rabbitmq]


async def test_two_containers_are_refused_and_the_running_one_is_left(world: World) -> None:
    """A document that breaks a rule is dead-lettered and told; what runs goes on (checklist 2)."""
    before = await world.run_tenant("pair")
    document = make_document("pair")
    document["containers"] = [{"image": "web"}, {"image": "api"}]

    event_id = await world.publisher.update(document)
    status = await world.subscriber.expect("pair", event_id=event_id)
    letter = await world.clients.take_dead_letter()

    rule = "docker provider requires exactly 1 container, got 2"
    assert (status["state"], status["reason"]) == ("failed", "invalid_event")
    assert rule in str(status["message"])
    assert (letter.message_id, json.loads(letter.body)) == (event_id, document)
    assert letter.headers["landlord-reason"] == "invalid_event"
    assert rule in str(letter.headers["landlord-error"])
    assert "landlord-received-at" in letter.headers
    assert world.inspect("pair", ".Id") == before["container"]["id"]  # type: ignore[index]  # a dict
    assert world.inspect("pair", ".State.Running") is True


async def test_all_faults_are_told_at_once(world: World) -> None:
    """Each fault is named by its field's path, in the status and in the dead letter."""
    document = make_document(
        "faulty",
        container={"image": "Bad Image", "ports": [{"container_port": 0}], "replicas": 2},
        resources={"cpu": 1, "memory": "lots"},
        provider_config={"restart_polcy": "no"},
    )

    await world.publisher.create(document)
    status = await world.subscriber.expect("faulty", state="failed")
    letter = await world.clients.take_dead_letter()

    for field in (
        "containers[0].image",
        "containers[0].ports[0].container_port",
        "containers[0].replicas",
        "resources.cpu",
        "resources.memory",
        "provider_config.restart_polcy",
    ):
        assert field in str(status["message"])
        assert field in str(letter.headers["landlord-error"])
    assert world.containers("faulty") == []


@pytest.mark.parametrize(
    ("kind", "body", "content_type"),
    [
        pytest.param("created", b"{", "application/json", id="not JSON"),
        pytest.param("created", b"\xff\xfe", "application/json", id="not UTF-8"),
        pytest.param("created", b"a: &x 1\nb: *x", "application/yaml", id="aliases"),
        pytest.param("created", b" " * 5_000_000, "application/json", id="5 MB"),
        pytest.param("created", b"[" * 100_000, "application/json", id="nested without end"),
        pytest.param("created", b'{"tenant_id": "a\\u0007"}', "application/json", id="bell"),
        pytest.param("created", b'{"tenant_id": "../etc"}', "application/json", id="tenant id"),
        pytest.param("created", b'{"tenant_id": 1, "tenant_id": 2}', None, id="twice"),
        pytest.param("deleted", b"[]", "application/json", id="a list"),
    ],
)
async def test_what_cannot_be_read_is_dead_lettered(
    world: World, kind: str, body: bytes, content_type: str | None
) -> None:
    """It goes aside with its reason, body untouched, and the queue goes on."""
    event_id = await world.publisher.publish(kind, body, content_type=content_type)

    letter = await world.clients.take_dead_letter()
    await world.delete_tenant("fence")

    assert (letter.message_id, letter.body) == (event_id, body)
    assert letter.headers["landlord-reason"] == "invalid_event"
    assert letter.headers["landlord-error"]
    assert await world.clients.backlog() == 0


async def test_another_provider_is_refused(world: World) -> None:
    """A provider that is not configured is a failure of its own (checklist 13)."""
    await world.publisher.create(make_document("ecs", provider_type="ecs"))

    status = await world.subscriber.expect("ecs", state="failed")

    assert status["reason"] == "provider_not_supported"
    assert world.containers("ecs") == []
    await world.clients.take_dead_letter()


@pytest.mark.parametrize(
    ("tenant", "config"),
    [
        pytest.param("greedy-socket", {"volumes": ["/var/run/docker.sock:/s"]}, id="socket"),
        pytest.param("greedy-dots", {"volumes": ["/srv/../run/docker.sock:/s"]}, id="dots"),
        pytest.param("greedy-slashes", {"volumes": ["//run//docker.sock:/s"]}, id="slashes"),
        pytest.param("greedy-root", {"volumes": ["/:/host"]}, id="root"),
        pytest.param("greedy-host", {"network_mode": "host"}, id="host network"),
        pytest.param("greedy-spy", {"network_mode": "container:other"}, id="other's network"),
        pytest.param("greedy-all", {"privileged": True}, id="privileged"),
        pytest.param("greedy-cap", {"cap_add": ["SYS_ADMIN"]}, id="capability"),
    ],
)
async def test_a_tenant_cannot_reach_the_host(
    world: World, tenant: str, config: dict[str, object]
) -> None:
    """What the operator's policy does not allow is denied by name (checklist 3, 57)."""
    await world.publisher.create(make_document(tenant, provider_config=config))

    status = await world.subscriber.expect(tenant, state="failed")
    letter = await world.clients.take_dead_letter()

    assert status["reason"] == letter.headers["landlord-reason"] == "policy_denied"
    assert f"provider_config.{next(iter(config))}" in str(status["message"])
    assert world.containers(tenant) == []


@pytest.mark.parametrize(
    ("tenant", "fields", "fault"),
    [
        pytest.param(
            "mimic-label",
            {"labels": {"{prefix}.tenant_id": "other"}},
            "labels: keys under {prefix}. are reserved",
            id="labels of ours",
        ),
        pytest.param(
            "many-names",
            {"container": {"env": {f"A{number}": "" for number in range(10_000)}}},
            "containers[0].env: has 10000 entries, at most 1000 are taken",
            id="10,000 names",
        ),
        pytest.param(
            "nul-value",
            {"container": {"env": {"A": "a\0b"}}},
            "containers[0].env.A: must not contain a NUL character",
            id="NUL",
        ),
    ],
)
async def test_an_escape_by_the_document_is_refused_with_one_reason(
    world: World, tenant: str, fields: dict[str, object], fault: str
) -> None:
    """One clear reason, in the status and in the dead letter; nothing is created."""
    prefix = world.names.prefix
    document = json.loads(json.dumps(fields).replace("{prefix}", prefix))

    await world.publisher.create(make_document(tenant, **document))
    status = await world.subscriber.expect(tenant, state="failed")
    letter = await world.clients.take_dead_letter()

    assert status["reason"] == letter.headers["landlord-reason"] == "invalid_event"
    assert str(status["message"]).startswith(fault.replace("{prefix}", prefix))
    assert str(status["message"]).count(": ") == 1
    assert world.containers(tenant) == []


async def test_labels_that_only_look_like_ours_take_nobody_in(world: World) -> None:
    """A blank or a further part makes another label: the tenant stays whose it is."""
    prefix = world.names.prefix
    labels = {f"{prefix}-tenant_id": "other", f" {prefix}.tenant_id": "other"}

    await world.run_tenant("lookalike", labels=labels)

    assert len(world.containers("lookalike")) == 1
    assert world.containers("other") == []
    await until(lambda: world.serves("lookalike"))
    await world.delete_tenant("lookalike")
    assert world.containers("lookalike") == []


async def test_a_missing_program_is_a_failed_start(world: World) -> None:
    """Nothing half-made is left behind a failed start (checklist 54; weakness 25)."""
    await world.publisher.create(
        make_document("no-program", container={"command": ["/no/such/program"]})
    )

    status = await world.subscriber.expect("no-program", state="failed")

    assert status["reason"] == "start_failed"
    assert str(status["message"]).startswith("failed to start container")
    assert "/no/such/program" in str(status["message"])
    assert world.containers("no-program") == []


async def test_a_port_of_another_tenant_is_a_conflict(world: World) -> None:
    """It is refused naming the holder; once the port is free, the tenant runs (checklist 31)."""
    ports = {"ports": [{"container_port": 8080, "host_port": 8111}]}
    await world.run_tenant("holder", container=ports)

    await world.publisher.create(make_document("wanting", container=ports))
    status = await world.subscriber.expect("wanting", state="failed")
    left = world.containers("wanting")
    await world.delete_tenant("holder")
    await world.subscriber.expect("wanting", state="running", timeout=30)

    assert status["reason"] == "port_conflict"
    assert "8111" in str(status["message"])
    assert "holder" in str(status["message"])
    assert (status["will_retry"], left) == (True, [])
    assert await world.fetch(8111) == "hello\n"


async def test_a_port_of_a_foreign_container_is_a_conflict(world: World) -> None:
    """A container that is not ours may hold it too."""
    world.docker.run("run", "-d", "--name", "foreign", "-p", "8112:80", "landlord-test/web:1")
    try:
        ports = {"ports": [{"container_port": 8080, "host_port": 8112}]}
        await world.publisher.create(make_document("late", container=ports))
        status = await world.subscriber.expect("late", state="failed")
        left = world.containers("late")
    finally:
        world.docker.run("rm", "-f", "foreign")

    assert status["reason"] == "port_conflict"
    assert left == []


async def test_a_port_of_a_host_process_is_a_conflict(
    world: World, docker_host: DockerHost, tmp_path: Path
) -> None:
    """So may any process on the engine's host, and the engine words that differently."""
    holder = Daemon(
        "httpd",
        docker_host.inside(find("busybox"), "httpd", "-f", "-p", "8113"),
        environment={},
        log=tmp_path / "httpd.log",
        is_ready=lambda: listens(world.host.address, 8113),
    )
    holder.start()
    try:
        ports = {"ports": [{"container_port": 8080, "host_port": 8113}]}
        await world.publisher.create(make_document("later", container=ports))
        status = await world.subscriber.expect("later", state="failed")
        left = world.containers("later")
    finally:
        holder.kill()

    assert status["reason"] == "port_conflict"
    assert str(status["message"]).startswith("failed to start container")
    assert left == []


async def test_a_failed_tenant_is_mended_by_an_update(world: World) -> None:
    """The next good document takes it out of its failure at once (weakness 45)."""
    await world.publisher.create(make_document("mended", container={"command": ["/nowhere"]}))
    await world.subscriber.expect("mended", state="failed")

    status = await world.run_tenant("mended")

    assert status["state"] == "running"
    assert len(world.containers("mended")) == 1


async def test_environment_values_show_up_nowhere(world: World) -> None:
    """A value of the environment is in no status, header, log, metric or answer (checklist 60)."""
    marker = "s3cr3t-marker"
    env = {"PASSWORD": marker}
    await world.run_tenant("discreet", container={"env": env})
    await world.publisher.create(
        make_document("indiscreet", container={"env": env | {"BAD=": marker}, "image": "Bad"})
    )
    await world.subscriber.expect("indiscreet", state="failed")
    letter = await world.clients.take_dead_letter()

    answers = [
        (await world.consumer.http_get(path))[1]
        for path in ("/metrics", "/tenants", "/tenants/discreet/compute/status")
    ]

    shown = [world.consumer.log_text(), str(letter.headers), *answers]
    shown += [json.dumps(world.subscriber.statuses(name)) for name in ("discreet", "indiscreet")]
    assert [text for text in shown if marker in text] == []
