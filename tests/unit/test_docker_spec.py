"""The engine's documents: what is sent for a spec, and what is read of a container."""

import json
from datetime import UTC, datetime, timedelta

import pytest

from consumer.adapters.docker_spec import (
    Naming,
    UnknownState,
    as_filter,
    holder_of,
    listed_name,
    network_trouble,
    to_container,
    to_create_document,
    to_labels,
    to_restart_document,
    to_sighting,
    to_update_document,
)
from consumer.model import (
    BoundPort,
    Container,
    ContainerId,
    ContainerStatus,
    Document,
    Health,
    HealthCheck,
    Maker,
    Origin,
    PortMapping,
    Resources,
    RestartPolicy,
    Role,
    Sighting,
    Transport,
    Ulimit,
    as_pairs,
)
from tests.builders import MOMENT, TENANT_ID, make_spec

NAMING = Naming()
MEGABYTE = 1024 * 1024
LABELS = {"landlord.tenant_id": "acme-corp", "landlord.instance": "default"}


def sent(**spec: object) -> Document:
    """Return the create document of a spec with these changes."""
    return to_create_document(make_spec(**spec), LABELS, network="tenants", bind_address="0.0.0.0")


def host_part(**spec: object) -> Document:
    """Return its `HostConfig`."""
    host = sent(**spec)["HostConfig"]
    assert isinstance(host, dict)
    return host


# --- names, labels, filters -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("role", "name"),
    [
        (Role.CURRENT, "acme-tenant-acme-corp"),
        (Role.SUCCESSOR, "acme-successor-acme-corp"),
        (Role.PREDECESSOR, "acme-predecessor-acme-corp"),
    ],
)
def test_each_role_has_its_name(role: Role, name: str) -> None:
    """A name is made of prefix, role and tenant id, and tells its role again."""
    naming = Naming(prefix="acme")

    assert naming.container(TENANT_ID, role) == name
    assert naming.role(name, TENANT_ID) is role


def test_a_foreign_name_stands_for_the_current_container() -> None:
    """A container that somebody renamed is still its tenant's."""
    assert NAMING.role("renamed-by-hand", TENANT_ID) is Role.CURRENT


def test_the_filter_asks_for_what_is_ours() -> None:
    """Only containers of this instance are listed: of all tenants, or of one."""
    naming = Naming(prefix="acme", instance="blue")

    assert naming.filters() == {"label": ["acme.tenant_id", "acme.instance=blue"]}
    assert naming.filters(TENANT_ID) == {
        "label": ["acme.tenant_id=acme-corp", "acme.instance=blue"]
    }
    assert json.loads(as_filter(naming.filters())) == naming.filters()


@pytest.mark.parametrize(
    ("labels", "is_ours"),
    [
        pytest.param(LABELS, True, id="ours"),
        pytest.param({"landlord.tenant_id": "acme-corp"}, False, id="no instance"),
        pytest.param({**LABELS, "landlord.instance": "blue"}, False, id="another instance"),
        pytest.param({"landlord.instance": "default"}, False, id="no tenant"),
        pytest.param({}, False, id="no labels"),
    ],
)
def test_a_container_is_ours_by_its_labels(labels: dict[str, object], is_ours: bool) -> None:
    """Tenant id and instance together make a container ours."""
    assert NAMING.owns(labels) is is_ours


def test_our_labels_say_what_the_container_is() -> None:
    """Every label has the prefix; the tenant's own are kept beside them."""
    spec = make_spec(container_name="web", labels=(("team", "red"),), secrets=("db", "tls"))

    labels = to_labels(Naming("acme", "blue", "of-a-ledger"), TENANT_ID, spec, 3, 17)

    assert labels == {
        "team": "red",
        "acme.tenant_id": "acme-corp",
        "acme.instance": "blue",
        "acme.generation": "3",
        "acme.spec": spec.fingerprint,
        "acme.schema": "1",
        "acme.container_name": "web",
        "acme.owner": "acme",
        "acme.provider": "docker",
        "acme.ledger": "of-a-ledger",
        "acme.serial": "17",
        "acme.secrets": "db,tls",
    }


def test_no_label_of_a_tenant_stands_for_one_of_ours() -> None:
    """Our labels are written last, whatever a spec brings along."""
    spec = make_spec(labels=as_pairs({"landlord.tenant_id": "other", "landlord.generation": "9"}))

    labels = to_labels(NAMING, TENANT_ID, spec, None, 1)

    assert labels["landlord.tenant_id"] == "acme-corp"
    assert labels["landlord.generation"] == ""


# --- the create document ----------------------------------------------------------------------


def test_the_smallest_document() -> None:
    """A spec that asks for little sends nothing that would stand for something else."""
    assert sent() == {
        "Image": "nginx:alpine",
        "Labels": LABELS,
        "Env": [],
        "ExposedPorts": {},
        "StopTimeout": 10,
        "HostConfig": {
            "NetworkMode": "tenants",
            "PortBindings": {},
            "NanoCpus": 500_000_000,
            "Memory": 256 * MEGABYTE,
            "MemorySwap": 256 * MEGABYTE,
            "RestartPolicy": {"Name": "unless-stopped", "MaximumRetryCount": 0},
            "LogConfig": {
                "Type": "json-file",
                "Config": {"max-file": "3", "max-size": "10m"},
            },
            "AutoRemove": False,
            "Privileged": False,
            "ReadonlyRootfs": False,
            "Init": False,
        },
    }


@pytest.mark.parametrize(
    ("spec", "key", "value"),
    [
        pytest.param({"command": ("/app", "-v")}, "Entrypoint", ["/app", "-v"], id="command"),
        pytest.param({"args": ("--config", "x")}, "Cmd", ["--config", "x"], id="args"),
        pytest.param({"user": "1000:1000"}, "User", "1000:1000", id="user"),
        pytest.param({"working_dir": "/app"}, "WorkingDir", "/app", id="working directory"),
        pytest.param({"hostname": "web"}, "Hostname", "web", id="host name"),
        pytest.param({"stop_signal": "SIGINT"}, "StopSignal", "SIGINT", id="stop signal"),
        pytest.param({"stop_grace_seconds": 0}, "StopTimeout", 0, id="no grace"),
        pytest.param({"stop_grace_seconds": 90}, "StopTimeout", 90, id="long grace"),
        pytest.param({"secrets": ("db",)}, "Volumes", {"/run/secrets": {}}, id="secrets"),
        pytest.param(
            {"env": as_pairs({"B": "x=y $z\n", "A": ""})},
            "Env",
            ["A=", "B=x=y $z\n"],
            id="environment, byte for byte",
        ),
    ],
)
def test_what_is_sent_of_the_container(spec: dict[str, object], key: str, value: object) -> None:
    """Each field of a spec has its place in the document."""
    assert sent(**spec)[key] == value


@pytest.mark.parametrize(
    ("spec", "key", "value"),
    [
        pytest.param({"network_mode": "none"}, "NetworkMode", "none", id="network"),
        pytest.param({"privileged": True}, "Privileged", True, id="privileged"),
        pytest.param({"read_only": True}, "ReadonlyRootfs", True, id="read-only"),
        pytest.param({"init": True}, "Init", True, id="init"),
        pytest.param({"volumes": ("data:/d:ro",)}, "Binds", ["data:/d:ro"], id="volumes"),
        pytest.param({"tmpfs": (("/tmp", "size=1m"),)}, "Tmpfs", {"/tmp": "size=1m"}, id="tmpfs"),
        pytest.param({"shm_size_mb": 64}, "ShmSize", 64 * MEGABYTE, id="shared memory"),
        pytest.param({"pids_limit": 100}, "PidsLimit", 100, id="processes"),
        pytest.param(
            {"ulimits": (Ulimit("nofile", 0, 1024),)},
            "Ulimits",
            [{"Name": "nofile", "Soft": 0, "Hard": 1024}],
            id="limits",
        ),
        pytest.param({"cap_add": ("NET_ADMIN",)}, "CapAdd", ["NET_ADMIN"], id="added rights"),
        pytest.param({"cap_drop": ("NET_RAW",)}, "CapDrop", ["NET_RAW"], id="dropped rights"),
        pytest.param(
            {"security_opt": ("no-new-privileges",)},
            "SecurityOpt",
            ["no-new-privileges"],
            id="security options",
        ),
        pytest.param({"runtime": "runsc"}, "Runtime", "runsc", id="runtime"),
        pytest.param({"extra_hosts": ("db:10.0.0.1",)}, "ExtraHosts", ["db:10.0.0.1"], id="hosts"),
        pytest.param({"dns": ("10.0.0.2",)}, "Dns", ["10.0.0.2"], id="name servers"),
        pytest.param(
            {"restart_policy": RestartPolicy("on-failure", 3)},
            "RestartPolicy",
            {"Name": "on-failure", "MaximumRetryCount": 3},
            id="restart policy with a count",
        ),
        pytest.param(
            {"log_driver": "none", "log_options": ()},
            "LogConfig",
            {"Type": "none", "Config": {}},
            id="no log",
        ),
    ],
)
def test_what_is_sent_of_the_host(spec: dict[str, object], key: str, value: object) -> None:
    """Each field of a spec that concerns the host has its place in `HostConfig`."""
    assert host_part(**spec)[key] == value


@pytest.mark.parametrize(
    ("millicores", "megabytes", "nanocpus", "memory"),
    [
        pytest.param(10, 6, 10_000_000, 6_291_456, id="least"),
        pytest.param(500, 256, 500_000_000, 268_435_456, id="half a CPU"),
        pytest.param(1000, 512, 1_000_000_000, 536_870_912, id="one CPU"),
    ],
)
def test_limits_are_hard(millicores: int, megabytes: int, nanocpus: int, memory: int) -> None:
    """Millicores become billionths of a CPU, memory has no swap beside it, at create and update."""
    limits = Resources(cpu=millicores, memory=megabytes)
    wanted = {"NanoCpus": nanocpus, "Memory": memory, "MemorySwap": memory}

    created = host_part(resources=limits)
    updated = to_update_document(make_spec(resources=limits))

    assert created == created | wanted
    assert updated == {**wanted, "RestartPolicy": to_restart_document(RestartPolicy())}
    assert "CpuQuota" not in created


def test_every_port_is_exposed_and_only_some_are_bound() -> None:
    """The engine binds what is exposed; a port without a host port gets no binding at all."""
    ports = (
        PortMapping(53, 5353, Transport.UDP),
        PortMapping(80, 8080),
        PortMapping(80, 8081),
        PortMapping(9090),
    )

    document = to_create_document(
        make_spec(ports=ports), LABELS, network="bridge", bind_address="127.0.0.1"
    )

    host = document["HostConfig"]
    assert isinstance(host, dict)
    assert document["ExposedPorts"] == {"53/udp": {}, "80/tcp": {}, "9090/tcp": {}}
    assert host["PortBindings"] == {
        "53/udp": [{"HostIp": "127.0.0.1", "HostPort": "5353"}],
        "80/tcp": [
            {"HostIp": "127.0.0.1", "HostPort": "8080"},
            {"HostIp": "127.0.0.1", "HostPort": "8081"},
        ],
    }


@pytest.mark.parametrize(
    "key", ["Entrypoint", "Cmd", "Healthcheck", "User", "Hostname", "Volumes", "StopSignal"]
)
def test_what_is_the_images_is_not_sent(key: str) -> None:
    """What a spec leaves to the image is absent: an empty value would take the image's away."""
    assert key not in sent(command=(), args=())


@pytest.mark.parametrize(
    ("healthcheck", "document"),
    [
        pytest.param(
            HealthCheck(("CMD", "true"), 0.5, 2, 1.25, 3),
            {
                "Test": ["CMD", "true"],
                "Interval": 500_000_000,
                "Timeout": 2_000_000_000,
                "StartPeriod": 1_250_000_000,
                "Retries": 3,
            },
            id="all of it",
        ),
        pytest.param(
            HealthCheck(("CMD-SHELL", "true"), interval_seconds=0),
            {"Test": ["CMD-SHELL", "true"]},
            id="the engine's times",
        ),
        pytest.param(HealthCheck(("NONE",)), {"Test": ["NONE"]}, id="switched off"),
    ],
)
def test_a_health_check_is_sent_in_nanoseconds(
    healthcheck: HealthCheck, document: Document
) -> None:
    """Seconds become nanoseconds; what is not set is left to the engine."""
    assert sent(healthcheck=healthcheck)["Healthcheck"] == document


def test_the_order_of_a_map_changes_nothing() -> None:
    """Equal maps make equal documents and labels, so shuffled keys replace no container."""
    names = [f"NAME_{number}" for number in range(16)]
    forward = make_spec(env=as_pairs(dict.fromkeys(names, "x")))
    backward = make_spec(env=as_pairs(dict.fromkeys(reversed(names), "x")))

    assert sent(env=forward.env)["Env"] == sent(env=backward.env)["Env"]
    assert to_labels(NAMING, TENANT_ID, forward, 1, 1) == to_labels(
        NAMING, TENANT_ID, backward, 1, 1
    )


# --- the inspect document ---------------------------------------------------------------------

CREATED_AT = "2026-11-24T10:00:00.123456789Z"
NEVER = "0001-01-01T00:00:00Z"


def inspected(**changes: object) -> Document:
    """Return what an engine shows of a running container."""
    document: Document = {
        "Id": "c" * 64,
        "Name": "/landlord-tenant-acme-corp",
        "Created": CREATED_AT,
        "Image": "sha256:" + "a" * 64,
        "RestartCount": 0,
        "Config": {"Image": "nginx:alpine", "Labels": LABELS},
        "State": {"Status": "running", "StartedAt": CREATED_AT, "FinishedAt": NEVER, "ExitCode": 0},
    }
    return document | changes


def read(**changes: object) -> Container:
    """Return the container of an inspect document with these changes."""
    return to_container(inspected(**changes), NAMING)


def test_a_container_is_read_in_full() -> None:
    """Everything that a container is asked for stands in its inspect document."""
    container = to_container(
        {
            "Id": "c" * 64,
            "Name": "/landlord-successor-acme-corp",
            "Created": CREATED_AT,
            "Image": "sha256:abc",
            "RestartCount": 4,
            "Config": {
                "Image": "nginx:alpine",
                "ExposedPorts": {"80/tcp": {}, "443/tcp": {}},
                "StopTimeout": 3,
                "Labels": {
                    **LABELS,
                    "landlord.spec": "fingerprint",
                    "landlord.provider": "swarm",
                    "landlord.generation": "12",
                },
            },
            "HostConfig": {
                "NanoCpus": 500_000_000,
                "Memory": 256 * MEGABYTE,
                "RestartPolicy": {"Name": "on-failure", "MaximumRetryCount": 3},
            },
            "State": {
                "Status": "restarting",
                "StartedAt": "2026-11-24T11:00:01.5+01:00",
                "FinishedAt": "2026-11-24T10:00:02Z",
                "ExitCode": 137,
                "OOMKilled": True,
                "Error": "words",
                "Health": {"Status": "unhealthy"},
            },
            "NetworkSettings": {"Ports": {"80/tcp": [{"HostIp": "0.0.0.0", "HostPort": "8080"}]}},
        },
        NAMING,
    )

    assert container == Container(
        container_id=ContainerId("c" * 64),
        name="landlord-successor-acme-corp",
        tenant_id=TENANT_ID,
        role=Role.SUCCESSOR,
        fingerprint="fingerprint",
        provider_type="swarm",
        generation=12,
        image="nginx:alpine",
        image_id="sha256:abc",
        status=ContainerStatus.RESTARTING,
        created_at=MOMENT + timedelta(milliseconds=123),
        started_at=MOMENT + timedelta(seconds=1.5),
        finished_at=MOMENT + timedelta(seconds=2),
        exit_code=137,
        restart_count=4,
        oom_killed=True,
        error="words",
        health=Health.UNHEALTHY,
        ports=(
            BoundPort(80, Transport.TCP, "0.0.0.0", 8080),
            BoundPort(443, Transport.TCP),
        ),
        resources=Resources(cpu=500, memory=256),
        restart_policy=RestartPolicy("on-failure", 3),
        origin=Origin(Maker.UNKNOWN),
        stop_grace_seconds=3,
    )


def test_a_container_is_read_though_nearly_nothing_is_shown() -> None:
    """Absent and null fields have their plain meaning."""
    container = to_container(
        {"Config": {"Labels": LABELS}, "State": {"Status": "created", "Health": None}}, NAMING
    )

    assert container == Container(
        container_id=ContainerId(""),
        name="",
        tenant_id=TENANT_ID,
        role=Role.CURRENT,
        fingerprint="",
        image="",
        status=ContainerStatus.CREATED,
        created_at=datetime(1970, 1, 1, tzinfo=UTC),
        restart_policy=RestartPolicy("no"),
        origin=Origin(Maker.UNKNOWN, has_our_name=False),
    )


@pytest.mark.parametrize(
    "document",
    [
        pytest.param(None, id="nothing"),
        pytest.param([], id="no map"),
        pytest.param({"Config": None}, id="no labels"),
        pytest.param(inspected(Config={"Labels": {"landlord.tenant_id": 5}}), id="no text"),
        pytest.param(inspected(Config={"Labels": {"landlord.tenant_id": "-x"}}), id="no tenant id"),
    ],
)
def test_what_is_no_container_of_ours_is_told(document: object) -> None:
    """A document without one of our tenants is a ValueError."""
    with pytest.raises(ValueError, match=r".+"):
        to_container(document, NAMING)


def test_a_state_unheard_of_is_told_apart() -> None:
    """It is ours and there, whatever it does: nobody may take it for gone."""
    with pytest.raises(UnknownState, match=r"state 'flying'"):
        to_container(inspected(State={"Status": "flying"}), NAMING)


def test_running_out_of_memory_belongs_to_the_run_that_ended() -> None:
    """Some engines go on showing the flag of an earlier run."""
    state = {"Status": "running", "OOMKilled": True}

    assert not to_container(inspected(State=state), NAMING).oom_killed


@pytest.mark.parametrize(
    ("status", "code"),
    [
        ("created", None),
        ("running", None),
        ("paused", None),
        ("removing", None),
        ("restarting", 1),
        ("exited", 1),
        ("dead", 1),
    ],
)
def test_an_exit_code_is_one_only_after_an_end(status: str, code: int | None) -> None:
    """A container that has not ended has no exit code, though the engine shows a number."""
    assert read(State={"Status": status, "ExitCode": 1}).exit_code == code


PODMAN = [
    ("configured", ContainerStatus.CREATED),
    ("initialized", ContainerStatus.CREATED),
    ("stopping", ContainerStatus.RUNNING),
    ("stopped", ContainerStatus.EXITED),
]


@pytest.mark.parametrize(("word", "status"), PODMAN)
def test_podmans_words_are_understood(word: str, status: ContainerStatus) -> None:
    """What Podman calls otherwise is the same state, inspected or listed."""
    assert read(State={"Status": word}).status is status
    assert to_sighting(listed(State=word), NAMING).status is status


@pytest.mark.parametrize(
    ("written", "moment"),
    [
        pytest.param("2026-11-24T10:00:00Z", MOMENT, id="seconds"),
        pytest.param("2026-11-24T10:00:00.5Z", MOMENT + timedelta(seconds=0.5), id="tenths"),
        pytest.param(
            "2026-11-24T10:00:00.123999999Z",
            MOMENT + timedelta(milliseconds=123),
            id="nanoseconds, cut to milliseconds",
        ),
        pytest.param("2026-11-24T12:30:00+02:30", MOMENT, id="another zone"),
        pytest.param(NEVER, None, id="never"),
        pytest.param("", None, id="empty"),
        pytest.param("yesterday", None, id="no time"),
        pytest.param(None, None, id="absent"),
        pytest.param(1795514400, None, id="a number"),
    ],
)
def test_times_are_read(written: object, moment: datetime | None) -> None:
    """A time is read in milliseconds UTC; the engine's zero time means never."""
    assert read(State={"Status": "running", "StartedAt": written}).started_at == moment


@pytest.mark.parametrize(
    ("label", "generation"),
    [("7", 7), ("", None), (None, None), ("-1", None), ("x", None), ("\u00b2", None), (7, None)],
)
def test_a_generation_is_read_or_none(label: object, generation: int | None) -> None:
    """A label that is no number says nothing."""
    labels = {**LABELS, "landlord.generation": label}

    assert read(Config={"Labels": labels}).generation == generation


@pytest.mark.parametrize(
    ("shown", "seconds"),
    [
        pytest.param({"StopTimeout": 0}, 0, id="at once"),
        pytest.param({"StopTimeout": 90}, 90, id="chosen"),
        pytest.param({"StopTimeout": -1}, 10, id="without end"),
        pytest.param({"StopTimeout": None}, 10, id="null"),
        pytest.param({}, 10, id="absent"),
    ],
)
def test_the_grace_period_is_read_back(shown: Document, seconds: int) -> None:
    """A container keeps its own; where it has none, or one without end, it is the usual one."""
    container = read(Config={"Labels": LABELS, **shown})

    assert container.stop_grace_seconds == seconds


@pytest.mark.parametrize(
    ("health", "expected"),
    [
        ({"Status": "healthy"}, Health.HEALTHY),
        ({"Status": "starting"}, Health.STARTING),
        ({"Status": "none"}, Health.NONE),
        ({"Status": ""}, Health.NONE),
        ({"Status": "brilliant"}, Health.NONE),
        ({}, Health.NONE),
        (None, Health.NONE),
    ],
)
def test_health_is_read_and_never_invented(health: object, expected: Health) -> None:
    """Without a health check, or with a word unheard of, there is none."""
    assert read(State={"Status": "running", "Health": health}).health is expected


@pytest.mark.parametrize(
    ("host", "resources"),
    [
        ({"NanoCpus": 500_000_000, "Memory": 0}, Resources(500, 0)),
        ({"NanoCpus": 0, "Memory": 6 * MEGABYTE}, Resources(0, 6)),
        ({"NanoCpus": 0, "Memory": 0}, None),
        ({"NanoCpus": None}, None),
        (None, None),
    ],
)
def test_limits_are_read_back(host: object, resources: Resources | None) -> None:
    """Limits come in millicores and megabytes; without any there are none."""
    assert read(HostConfig=host).resources == resources


HTTP, ANYWHERE = BoundPort(80, Transport.TCP), "0.0.0.0"


@pytest.mark.parametrize(
    ("exposed", "bound", "ports"),
    [
        pytest.param(None, None, (), id="none"),
        pytest.param({"80/tcp": {}}, {}, (HTTP,), id="not running"),
        pytest.param({"80/tcp": {}}, {"80/tcp": None}, (HTTP,), id="not published"),
        pytest.param({"80/tcp": {}}, {"80/tcp": []}, (HTTP,), id="published to nothing"),
        pytest.param({"80": {}}, {}, (HTTP,), id="without a protocol"),
        pytest.param({"80/": {}}, {}, (HTTP,), id="with half a protocol"),
        pytest.param({"80/TCP": {}}, {}, (HTTP,), id="in capitals"),
        pytest.param({"80/tcp": {}, "8000-8010/tcp": {}}, {}, (HTTP,), id="a range beside it"),
        pytest.param({"$PORT/tcp": {}, "80/http": {}}, {}, (), id="nothing readable"),
        pytest.param(
            {},
            {"80/tcp": [{"HostIp": ANYWHERE, "HostPort": "8080"}]},
            (BoundPort(80, Transport.TCP, ANYWHERE, 8080),),
            id="published",
        ),
        pytest.param(
            {},
            {"80/tcp": [{"HostIp": "", "HostPort": "8080"}]},
            (BoundPort(80, Transport.TCP, ANYWHERE, 8080),),
            id="on no address named",
        ),
        pytest.param(
            {},
            {
                "80/tcp": [
                    {"HostIp": ANYWHERE, "HostPort": "8080"},
                    {"HostIp": "::", "HostPort": "8080"},
                ]
            },
            (BoundPort(80, Transport.TCP, ANYWHERE, 8080),),
            id="for both kinds of addresses",
        ),
        pytest.param(
            {},
            {"80/tcp": [{"HostIp": "::", "HostPort": "8080"}]},
            (BoundPort(80, Transport.TCP, "::", 8080),),
            id="for IPv6 only",
        ),
        pytest.param(
            {"443/tcp": {}},
            {
                "80/tcp": [
                    {"HostIp": ANYWHERE, "HostPort": "8081"},
                    {"HostIp": ANYWHERE, "HostPort": "8080"},
                ],
                "53/udp": [{"HostIp": ANYWHERE, "HostPort": "53"}],
            },
            (
                BoundPort(53, Transport.UDP, ANYWHERE, 53),
                BoundPort(80, Transport.TCP, ANYWHERE, 8080),
                BoundPort(80, Transport.TCP, ANYWHERE, 8081),
                BoundPort(443, Transport.TCP),
            ),
            id="several, in order",
        ),
    ],
)
def test_ports_are_what_the_engine_bound(
    exposed: object, bound: object, ports: tuple[BoundPort, ...]
) -> None:
    """Bound ports come with their address; exposed ones without; the unreadable is left out."""
    config = {"Labels": LABELS, "ExposedPorts": exposed}

    assert read(Config=config, NetworkSettings={"Ports": bound}).ports == ports


# --- the list ---------------------------------------------------------------------------------


def listed(**changes: object) -> Document:
    """Return one line of an engine's list."""
    document: Document = {
        "Id": "c" * 64,
        "Names": ["/landlord-tenant-acme-corp"],
        "Labels": {**LABELS, "landlord.spec": "fingerprint"},
        "State": "running",
        "Status": "Up 2 minutes",
        "Created": int(MOMENT.timestamp()),
        "Ports": [],
    }
    return document | changes


def test_a_line_of_the_list_is_a_sighting() -> None:
    """A line says whose container it is, in which state, and of which spec."""
    assert to_sighting(listed(), NAMING) == Sighting(
        tenant_id=TENANT_ID,
        container_id=ContainerId("c" * 64),
        role=Role.CURRENT,
        status=ContainerStatus.RUNNING,
        health=Health.NONE,
        fingerprint="fingerprint",
        created_at=MOMENT,
        origin=Origin(maker=Maker.UNKNOWN),
    )


@pytest.mark.parametrize(
    ("name", "has_our_name"),
    [
        ("landlord-tenant-acme-corp", True),
        ("landlord-successor-acme-corp", True),
        ("landlord-predecessor-acme-corp", True),
        (f"landlord-discarded-{'c' * 12}", True),
        (f"landlord-discarded-{'d' * 12}", False),
        ("landlord-discarded-acme-corp", False),
        ("landlord-tenant-other", False),
        ("frosty_copy", False),
        ("", False),
    ],
)
def test_only_names_that_we_give_are_ours(name: str, has_our_name: bool) -> None:
    """A copy of a container has its labels, and cannot have its name."""
    origin = to_sighting(listed(Names=[f"/{name}"]), NAMING).origin

    assert origin.has_our_name is has_our_name


@pytest.mark.parametrize(
    ("labels", "origin"),
    [
        pytest.param({}, Origin(Maker.UNKNOWN), id="an older consumer's"),
        pytest.param(
            {"landlord.ledger": "x", "landlord.serial": "7"}, Origin(Maker.US, 7), id="us"
        ),
        pytest.param({"landlord.ledger": "y"}, Origin(Maker.ANOTHER), id="another ledger's"),
        pytest.param(
            {"landlord.ledger": "x", "landlord.serial": "9" * 19},
            Origin(Maker.US, 0),
            id="a number that nothing holds",
        ),
    ],
)
def test_labels_say_who_made_it(labels: dict[str, str], origin: Origin) -> None:
    """The ledger's id and the serial are read for what they are worth."""
    line = listed(Labels={**LABELS, **labels})

    assert to_sighting(line, Naming(ledger_id="x")).origin == origin


@pytest.mark.parametrize("changes", [{"Labels": None}, {"Labels": {}}, {"State": "flying"}])
def test_a_line_that_is_not_ours_is_told(changes: dict[str, object]) -> None:
    """A line without a tenant, or that cannot be judged, is a ValueError."""
    with pytest.raises(ValueError, match=r".+"):
        to_sighting(listed(**changes), NAMING)


@pytest.mark.parametrize(
    ("words", "health"),
    [
        ("Up 2 minutes (healthy)", Health.HEALTHY),
        ("Up 2 minutes (unhealthy)", Health.UNHEALTHY),
        ("Up 2 seconds (health: starting)", Health.STARTING),
        ("Up 2 minutes (Paused)", Health.NONE),
        (None, Health.NONE),
    ],
)
def test_the_lists_words_tell_the_health(words: object, health: Health) -> None:
    """Health stands in brackets behind the uptime."""
    assert to_sighting(listed(Status=words), NAMING).health is health


@pytest.mark.parametrize(
    ("names", "name"),
    [
        pytest.param(["/landlord-tenant-a"], "landlord-tenant-a", id="one"),
        pytest.param(["/other/link", "/landlord-tenant-a"], "landlord-tenant-a", id="with a link"),
        pytest.param(["landlord-tenant-a"], "landlord-tenant-a", id="without a slash"),
        pytest.param([None, 5], "", id="no texts"),
        pytest.param([], "", id="none"),
        pytest.param(None, "", id="absent"),
    ],
)
def test_the_name_in_a_line_is_found(names: object, name: str) -> None:
    """A container's own name has one slash at most; links have more."""
    assert listed_name({"Names": names}) == name


HOLDER = listed(
    Labels={**LABELS, "landlord.tenant_id": "other"},
    Ports=[
        {"PrivatePort": 80, "PublicPort": 8080, "Type": "tcp", "IP": ANYWHERE},
        {"PrivatePort": 9090, "Type": "tcp"},
    ],
)


THEIRS = HOLDER | {
    "Labels": {"landlord.tenant_id": "other", "landlord.instance": "theirs"},
}
STRANGER = HOLDER | {"Labels": None, "Names": ["/nginx"]}


@pytest.mark.parametrize(
    ("wanted", "lines", "holder"),
    [
        pytest.param(PortMapping(1, 8080), [HOLDER], "tenant other", id="held"),
        pytest.param(
            PortMapping(1, 8080), [THEIRS], "tenant other of instance 'theirs'", id="theirs"
        ),
        pytest.param(PortMapping(1, 8080), [STRANGER], "container nginx", id="a stranger's"),
        pytest.param(PortMapping(1, 8081), [HOLDER], None, id="free"),
        pytest.param(PortMapping(1, 8080, Transport.UDP), [HOLDER], None, id="other protocol"),
        pytest.param(PortMapping(9090), [HOLDER], None, id="not published"),
        pytest.param(PortMapping(1, 8080), [listed(Ports=None)], None, id="nobody has ports"),
        pytest.param(PortMapping(1, 8080), [], None, id="nobody there"),
    ],
)
def test_the_holder_of_a_host_port_is_found(
    wanted: PortMapping, lines: list[Document], holder: str | None
) -> None:
    """A host port and protocol that a listed container has is told with whose it is."""
    found = (wanted, holder) if holder is not None else None

    assert holder_of([PortMapping(2, 7000), wanted], lines, NAMING, ANYWHERE) == found


@pytest.mark.parametrize("state", ["created", "exited", "dead", "stopped", "configured"])
def test_a_container_at_rest_holds_no_port(state: str) -> None:
    """Nor has it bound one, though Podman goes on showing it."""
    ports = {"80/tcp": [{"HostIp": ANYWHERE, "HostPort": "8080"}]}
    ended = {"Status": state, "StartedAt": NEVER, "FinishedAt": NEVER, "ExitCode": 0}

    container = read(
        State=ended,
        NetworkSettings={"Ports": ports},
        Config={"Labels": LABELS, "ExposedPorts": {"80/tcp": {}}},
    )

    assert container.ports == (BoundPort(80, Transport.TCP),)
    assert holder_of([PortMapping(80, 8080)], [HOLDER | {"State": state}], NAMING, ANYWHERE) is None


def test_a_container_in_an_unheard_of_state_holds_its_ports() -> None:
    """Better too careful than a start that fails."""
    found = holder_of([PortMapping(80, 8080)], [HOLDER | {"State": "odd"}], NAMING, ANYWHERE)

    assert found is not None


@pytest.mark.parametrize(
    ("bound", "wanted", "is_held"),
    [
        pytest.param(ANYWHERE, ANYWHERE, True, id="everywhere, both"),
        pytest.param("10.0.0.1", ANYWHERE, True, id="we want it everywhere"),
        pytest.param(ANYWHERE, "10.0.0.1", True, id="it is taken everywhere"),
        pytest.param("10.0.0.1", "10.0.0.1", True, id="the same address"),
        pytest.param("10.0.0.1", "10.0.0.2", False, id="another address"),
        pytest.param("::", ANYWHERE, False, id="another family"),
        pytest.param("::", "fd00::1", True, id="everywhere, IPv6"),
        pytest.param("", "fd00::1", True, id="an engine that tells no address"),
    ],
)
def test_a_port_is_held_where_the_addresses_meet(bound: str, wanted: str, is_held: bool) -> None:
    """The same port of two addresses is two ports."""
    line = HOLDER | {"Ports": [{"PublicPort": 8080, "Type": "tcp", "IP": bound}]}

    found = holder_of([PortMapping(80, 8080)], [line], NAMING, wanted)

    assert (found is not None) is is_held


@pytest.mark.parametrize(
    ("found", "driver", "trouble"),
    [
        pytest.param([], "bridge", None, id="none"),
        pytest.param([{"Driver": "bridge"}], "bridge", None, id="as wanted"),
        pytest.param(
            [{"Driver": "macvlan"}], "bridge", "exists with driver 'macvlan', wanted", id="driver"
        ),
        pytest.param(
            [{"Driver": "bridge", "Id": "a" * 64}, {"Driver": "bridge", "Id": "b" * 64}],
            "bridge",
            "is there 2 times (aaaaaaaaaaaa, bbbbbbbbbbbb)",
            id="two of the name",
        ),
        pytest.param([{"Driver": "overlay", "Attachable": True}], "overlay", None, id="overlay"),
        pytest.param([{"Driver": "", "Attachable": True}], "overlay", None, id="not ready yet"),
        pytest.param(
            [{"Driver": "overlay", "Attachable": False}],
            "overlay",
            "is an overlay that is not attachable",
            id="for services alone",
        ),
    ],
)
def test_a_network_that_cannot_be_joined_is_told(
    found: list[Document], driver: str, trouble: str | None
) -> None:
    """Before anything is made on it."""
    told = network_trouble(found, driver)

    assert (told or "").startswith(trouble or "")
    assert (told is None) is (trouble is None)


# --- the volume of the secrets ------------------------------------------------------------------


def test_secrets_have_a_volume_of_their_own() -> None:
    """It is mounted where they are read, and found again in what the engine shows."""
    name = NAMING.secrets_volume("0123456789abcdef" * 2)
    document = to_create_document(
        make_spec(secrets=("db",)),
        LABELS,
        network="tenants",
        bind_address="0.0.0.0",
        secrets_volume=name,
    )
    host = document["HostConfig"]
    shown = [{"Type": "volume", "Name": name, "Destination": "/run/secrets"}]

    assert isinstance(host, dict)
    assert host["Mounts"] == [{"Type": "volume", "Source": name, "Target": "/run/secrets"}]
    assert read(Mounts=shown).secrets_volume == name
    assert read(Mounts=[{"Type": "volume", "Name": "f" * 64}]).secrets_volume is None


@pytest.mark.parametrize(
    "name", ["landlord-secrets-default-x", f"landlord-secrets-other-{'a' * 32}", "a" * 64, ""]
)
def test_no_other_volume_is_taken_for_one_of_secrets(name: str) -> None:
    """Also not that of another instance, or one that a person named like it."""
    assert not NAMING.is_secrets_volume(name)


def test_a_tenant_without_secrets_has_no_volume_for_them() -> None:
    """Nothing is mounted that nobody asked for."""
    document = to_create_document(
        make_spec(), LABELS, network="tenants", bind_address="0.0.0.0", secrets_volume="x"
    )

    assert "Mounts" not in str(document)
