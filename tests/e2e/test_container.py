"""What arrives in Docker: limits, ports, names, labels, environment, the user's own examples."""

import pytest

from tests.conftest import WEB
from tests.e2e.world import World, examples_of_the_seed, make_document, shell

pytestmark = [pytest.mark.docker, pytest.mark.rabbitmq]

MIB = 1024 * 1024


async def test_limits_arrive_exactly(world: World) -> None:
    """Millicores and megabytes become hard limits, swap included (checklist 35, 36)."""
    await world.run_tenant("limits", resources={"cpu": 500, "memory": 256})

    host_config = world.inspect("limits", ".HostConfig")

    assert isinstance(host_config, dict)
    assert host_config["NanoCpus"] == 500_000_000
    assert host_config["CpuQuota"] == 0
    assert host_config["Memory"] == host_config["MemorySwap"] == 256 * MIB


async def test_a_document_without_resources_gets_the_operators(world: World) -> None:
    """No tenant is without limits (checklist 37)."""
    document = make_document("defaulted")
    del document["resources"]

    await world.publisher.create(document)
    await world.subscriber.expect("defaulted", state="running")

    assert world.inspect("defaulted", ".HostConfig.NanoCpus") == 1_000_000_000
    assert world.inspect("defaulted", ".HostConfig.Memory") == 512 * MIB


async def test_a_host_port_answers_without_expose(world: World) -> None:
    """The image exposes nothing, and yet its port answers (finding 1)."""
    assert world.docker.inspect(WEB, ".Config.ExposedPorts") is None
    ports = [{"container_port": 8080, "host_port": 8090}]

    await world.run_tenant("exposed", container={"ports": ports})

    assert await world.fetch(8090) == "hello\n"
    assert world.inspect("exposed", ".NetworkSettings.Ports") == {
        "8080/tcp": [{"HostIp": "0.0.0.0", "HostPort": "8090"}]
    }


@pytest.mark.parametrize("port", [{"container_port": 80, "host_port": 0}, {"container_port": 80}])
async def test_host_port_zero_publishes_nothing(world: World, port: dict[str, int]) -> None:
    """Zero or none means exposed, not published (checklist 28, 29)."""
    tenant = f"unpublished-{len(port)}"

    status = await world.run_tenant(tenant, container={"ports": [port]})

    assert world.inspect(tenant, ".NetworkSettings.Ports") == {"80/tcp": None}
    ports = status["ports"]
    assert isinstance(ports, list)
    (told,) = ports
    assert (told["container_port"], told["host_ip"], told["host_port"]) == (80, None, None)


async def test_name_and_labels_are_as_the_contract_says(world: World) -> None:
    """The name carries the prefix, and every label of ours does (checklist 9, 21, 22)."""
    await world.run_tenant("acme-corp", labels={"team": "blue"}, generation=3)

    name = world.inspect("acme-corp", ".Name")
    labels = world.inspect("acme-corp", ".Config.Labels")

    prefix = world.names.prefix
    assert name == f"/{prefix}-tenant-acme-corp"
    assert isinstance(labels, dict)
    assert labels.pop("team") == "blue"
    assert {label.removeprefix(f"{prefix}.") for label in labels} >= {
        *("tenant_id", "instance", "generation", "spec", "schema"),
        *("container_name", "owner", "provider"),
    }
    assert all(label.startswith(f"{prefix}.") for label in labels)
    assert labels[f"{prefix}.tenant_id"] == "acme-corp"
    assert labels[f"{prefix}.generation"] == "3"
    assert labels[f"{prefix}.container_name"] == "app"


async def test_environment_values_arrive_byte_for_byte(world: World) -> None:
    """Signs that a shell, YAML or Docker could take offence at pass through (checklist 5)."""
    env = {
        "EQUALS": "a=b=c",
        "LINES": "one\ntwo",
        "QUOTES": "\"double\" 'single' $HOME `x`",
        "UTF8": "Zürich ☂",
        "EMPTY": "",
        "NUMBER": 5432,
        "FLAG": True,
    }

    await world.run_tenant("env", container={"env": env})

    found = world.inspect("env", ".Config.Env")
    assert isinstance(found, list)
    told = env | {"NUMBER": "5432", "FLAG": "true"}
    assert {f"{name}={value}" for name, value in told.items()} <= set(found)


async def test_tenants_never_share_their_environment(world: World) -> None:
    """One tenant's values are not another's (checklist 4)."""
    await world.run_tenant("own-1", container={"env": {"WHO": "one"}})
    await world.run_tenant("own-2", container={"env": {"WHO": "two"}})

    environments = [str(world.inspect(tenant, ".Config.Env")) for tenant in ("own-1", "own-2")]

    assert ["WHO=one" in environments[0], "WHO=two" in environments[0]] == [True, False]
    assert ["WHO=one" in environments[1], "WHO=two" in environments[1]] == [False, True]


@pytest.mark.parametrize(
    ("words", "path", "args"),
    [
        pytest.param({}, "/start.sh", [], id="neither"),
        pytest.param({"args": ["sleep", "60"]}, "sleep", ["60"], id="args only"),
        pytest.param({"command": ["sleep"], "args": ["60"]}, "sleep", ["60"], id="both"),
        pytest.param({"command": ["sleep", "60"]}, "sleep", ["60"], id="command only"),
    ],
)
async def test_command_and_args_make_the_process(
    world: World, words: dict[str, object], path: str, args: list[str]
) -> None:
    """`command` is the entry point, `args` what follows it, as in Kubernetes (checklist 8)."""
    tenant = f"argv-{len(words)}-{'-'.join(words) or 'none'}"

    await world.run_tenant(tenant, container=words)

    assert world.inspect(tenant, ".Path") == path
    assert world.inspect(tenant, ".Args") == args


async def test_restart_policy_and_log_driver_are_applied(world: World) -> None:
    """The document's choices and our defaults arrive (checklist 49, 50)."""
    await world.run_tenant("defaults")
    await world.run_tenant(
        "chosen",
        provider_config={
            "restart_policy": "on-failure:3",
            "log_driver": "local",
            "log_options": {"max-size": "1m"},
            "stop_grace_seconds": 2,
        },
    )

    defaults, chosen = (world.inspect(name, ".HostConfig") for name in ("defaults", "chosen"))

    assert isinstance(defaults, dict)
    assert isinstance(chosen, dict)
    assert defaults["RestartPolicy"] == {"Name": "unless-stopped", "MaximumRetryCount": 0}
    assert defaults["LogConfig"]["Type"] == "json-file"
    assert defaults["LogConfig"]["Config"] == {"max-size": "10m", "max-file": "3"}
    assert chosen["RestartPolicy"] == {"Name": "on-failure", "MaximumRetryCount": 3}
    assert chosen["LogConfig"]["Type"] == "local"
    assert chosen["LogConfig"]["Config"]["max-size"] == "1m"
    assert world.inspect("chosen", ".Config.StopTimeout") == 2


async def test_a_tenant_cannot_gain_privileges(world: World) -> None:
    """Without anybody asking: no new privileges, no raw sockets, a process limit."""
    await world.run_tenant("bounded")

    host_config = world.inspect("bounded", ".HostConfig")

    assert isinstance(host_config, dict)
    assert "no-new-privileges" in str(host_config["SecurityOpt"])
    assert [name.removeprefix("CAP_") for name in host_config["CapDrop"]] == ["NET_RAW"]
    assert host_config["PidsLimit"] == 1024
    assert host_config["Privileged"] is False


@pytest.mark.parametrize(
    ("file", "tenant", "image", "pages"),
    [
        pytest.param("acme-corp.json", "acme-corp", "myapp:1.0", {8080: "/"}, id="json"),
        pytest.param("web-app.yaml", "web-app", "nginx:alpine", {8080: "/"}, id="web"),
        pytest.param(
            "api-service.yaml",
            "api-service",
            "mycompany/api:v2.1.0",
            {3000: "/", 9090: "/"},
            id="api",
        ),
    ],
)
async def test_the_users_own_examples_run_verbatim(
    world: World, file: str, tenant: str, image: str, pages: dict[int, str]
) -> None:
    """The user's own examples run as they stand (checklist 34, 46, 47)."""
    await world.delete_tenant(tenant)
    inner_port = 80 if tenant == "web-app" else 8080
    content_type = "application/json" if file.endswith("json") else "application/yaml"
    with world.docker.image(image, port=inner_port):
        event_id = await world.publisher.publish(
            "created", examples_of_the_seed()[file], content_type=content_type
        )
        await world.subscriber.expect(tenant, state="running", event_id=event_id)
        answers = [await world.fetch(port, f"{path}args") for port, path in pages.items()]
        image_used = world.inspect(tenant, ".Config.Image")
        await world.delete_tenant(tenant)

    assert image_used == image
    assert len(answers) == len(pages)


async def test_a_mebibyte_too_much_is_killed(world: World) -> None:
    """The memory limit is hard: a process over it is killed, and told so (checklist 36)."""
    hog = shell("x=a; while :; do x=$x$x; done")
    document = make_document(
        "hog",
        container=hog,
        resources={"cpu": 500, "memory": 16},
        provider_config={"restart_policy": "no"},
    )

    await world.publisher.create(document)
    status = await world.subscriber.expect("hog", state="failed")

    assert status["reason"] == "oom_killed"
    container = status["container"]
    assert isinstance(container, dict)
    assert (container["oom_killed"], container["exit_code"]) == (True, 137)
