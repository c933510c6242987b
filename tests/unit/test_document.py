"""The tenant document, field by field: what is taken, what is refused, and in which words."""

from collections.abc import Mapping

import pytest

from consumer.document import (
    DocumentError,
    Number,
    Plain,
    SpecDefaults,
    read_document,
    read_subject,
    to_spec,
)
from consumer.model import (
    HealthCheck,
    PortMapping,
    Resources,
    RestartPolicy,
    TenantSpec,
    Transport,
    Ulimit,
)
from tests.builders import make_spec

SECRET = "s3cret"  # stands for a value that only the tenant may know
ROTATED = (("max-file", "3"), ("max-size", "10m"))


def document(**changes: object) -> dict[str, object]:
    """Return the smallest document, changed."""
    return {"tenant_id": "acme", "containers": [{"image": "nginx"}]} | changes


def with_container(**fields: object) -> dict[str, object]:
    """Return a document whose container has these fields too."""
    return document(containers=[{"image": "nginx"} | fields])


def with_config(**fields: object) -> dict[str, object]:
    """Return a document with this provider_config."""
    return document(provider_config=fields)


def spec_of(raw: Mapping[str, object], defaults: SpecDefaults | None = None) -> TenantSpec:
    """Return the spec that the document asks for."""
    under = defaults or SpecDefaults()
    return to_spec(read_document(raw, under), under)


def faults_of(raw: Mapping[str, object], defaults: SpecDefaults | None = None) -> list[str]:
    """Return what is wrong with the document, in words."""
    with pytest.raises(DocumentError) as refusal:
        read_document(raw, defaults or SpecDefaults())
    assert str(refusal.value) == "; ".join(str(fault) for fault in refusal.value.faults)
    return [str(fault) for fault in refusal.value.faults]


# --- the document as a whole ------------------------------------------------------------------


def test_the_smallest_document_gets_every_default() -> None:
    """A document of tenant and image alone is filled up with the settings' defaults."""
    spec = spec_of(document(), SpecDefaults(cpu=250, memory=64, provider_type="swarm"))

    assert spec == TenantSpec(
        provider_type="swarm",
        image="nginx",
        resources=Resources(cpu=250, memory=64),
        container_name="app",
        restart_policy=RestartPolicy("unless-stopped"),
        log_driver="json-file",
        log_options=ROTATED,
        pull_policy="if_not_present",
    )


def test_every_field_reaches_the_spec() -> None:
    """Each field of a full document has its place in the spec."""
    spec = spec_of(
        {
            "tenant_id": "acme",
            "generation": 3,
            "provider_type": "docker",
            "labels": {"team": "a", "tier": "gold"},
            "resources": {"cpu": 500, "memory": 256},
            "containers": [
                {
                    "name": "web",
                    "image": "nginx:alpine",
                    "command": ["/bin/web"],
                    "args": ["--port", "80"],
                    "env": {"B": "2", "A": "1"},
                    "ports": [{"container_port": 80, "host_port": 8080, "name": "http"}],
                    "healthcheck": {"test": "true", "retries": 2},
                    "secrets": ["token", "key"],
                }
            ],
            "provider_config": {
                "restart_policy": "on-failure:3",
                "log_driver": "local",
                "log_options": {"max-file": 5},
                "pull_policy": "always",
                "volumes": ["/data:/data:ro"],
                "tmpfs": {"/run": "size=1m"},
                "network_mode": "bridge",
                "labels": {"team": "under", "color": "blue"},
                "user": "1000:1000",
                "working_dir": "/srv",
                "hostname": "web.acme",
                "read_only": True,
                "init": True,
                "stop_signal": "SIGQUIT",
                "stop_grace_seconds": 3,
                "shm_size_mb": 64,
                "pids_limit": 100,
                "ulimits": {"nproc": {"soft": 1, "hard": -1}, "core": {"soft": 0, "hard": 0}},
                "cap_add": ["CAP_NET_ADMIN", "chown", "CHOWN"],
                "cap_drop": ["all"],
                "security_opt": ["seccomp=unconfined"],
                "privileged": True,
                "runtime": "runsc",
                "extra_hosts": ["db:10.0.0.1"],
                "dns": ["1.1.1.1"],
            },
        }
    )

    assert spec == TenantSpec(
        provider_type="docker",
        image="nginx:alpine",
        resources=Resources(cpu=500, memory=256),
        container_name="web",
        command=("/bin/web",),
        args=("--port", "80"),
        env=(("A", "1"), ("B", "2")),
        ports=(PortMapping(80, 8080, Transport.TCP, "http"),),
        healthcheck=HealthCheck(test=("CMD-SHELL", "true"), retries=2),
        secrets=("key", "token"),
        labels=(("color", "blue"), ("team", "a"), ("tier", "gold")),
        restart_policy=RestartPolicy("on-failure", 3),
        log_driver="local",
        log_options=(("max-file", "5"), ("max-size", "10m")),
        pull_policy="always",
        volumes=("/data:/data:ro",),
        tmpfs=(("/run", "size=1m"),),
        network_mode="bridge",
        user="1000:1000",
        working_dir="/srv",
        hostname="web.acme",
        read_only=True,
        init=True,
        stop_signal="SIGQUIT",
        stop_grace_seconds=3,
        shm_size_mb=64,
        pids_limit=100,
        ulimits=(Ulimit("core", 0, 0), Ulimit("nproc", 1, -1)),
        cap_add=("CHOWN", "NET_ADMIN"),
        cap_drop=("ALL",),
        security_opt=("seccomp=unconfined",),
        privileged=True,
        runtime="runsc",
        extra_hosts=("db:10.0.0.1",),
        dns=("1.1.1.1",),
    )


def test_generation_and_tenant_are_read() -> None:
    """The document keeps whose it is and its number."""
    read = read_document(document(generation=7), SpecDefaults())

    assert (read.tenant_id, read.generation) == ("acme", 7)


def test_the_order_of_maps_ports_and_secrets_does_not_matter() -> None:
    """The same wishes written in another order are the same spec."""
    ports: list[object] = [{"container_port": 80, "host_port": 1}, {"container_port": 79}]
    one = with_container(env={"A": "1", "B": "2"}, ports=ports, secrets=["a", "b"])
    other = with_container(env={"B": "2", "A": "1"}, ports=ports[::-1], secrets=["b", "a"])

    assert spec_of(one).fingerprint == spec_of(other).fingerprint


def test_all_faults_are_told_at_once() -> None:
    """Every broken rule is reported, each with the path of its field."""
    faults = faults_of(
        {
            "tenant_id": "-acme",
            "generation": 0,
            "colour": "red",
            "annotations": {"a": "b"},
            "containers": [
                {
                    "image": "Nginx",
                    "entrypoint": ["x"],
                    "env": {"A": None, "": "no name"},
                    "ports": [{"container_port": 80}, {"container_port": 0, "host_port": 65536}],
                }
            ],
            "resources": {"cpu": 9, "memory": 5},
            "labels": {"a": 1},
            "provider_config": {"restart_polcy": "no", "dns": ["one"]},
        }
    )

    assert sorted(fault.partition(":")[0] for fault in faults) == [
        "annotations",
        "colour",
        "containers[0].entrypoint",
        "containers[0].env",
        "containers[0].env.A",
        "containers[0].image",
        "containers[0].ports[1].container_port",
        "containers[0].ports[1].host_port",
        "generation",
        "labels.a",
        "provider_config.dns[0]",
        "provider_config.restart_polcy",
        "resources.cpu",
        "resources.memory",
        "tenant_id",
    ]


@pytest.mark.parametrize(
    ("raw", "path"),
    [
        pytest.param(document(tenantid="x"), "tenantid", id="document"),
        pytest.param(with_container(iamge="x"), "containers[0].iamge", id="container"),
        pytest.param(
            with_container(ports=[{"container_port": 80, "host": 1}]),
            "containers[0].ports[0].host",
            id="port",
        ),
        pytest.param(
            with_container(healthcheck={"test": "x", "intervall": 1}),
            "containers[0].healthcheck.intervall",
            id="health check",
        ),
        pytest.param(document(resources={"cpus": 1}), "resources.cpus", id="resources"),
        pytest.param(with_config(restart="no"), "provider_config.restart", id="provider config"),
        pytest.param(
            with_config(ulimits={"core": {"soft": 1, "hard": 1, "max": 1}}),
            "provider_config.ulimits.core.max",
            id="ulimit",
        ),
        pytest.param(document(**{"a[0]": 1}), "a[0]", id="with a bracket"),
        pytest.param(document(**{"f(x)": 1}), "f(x)", id="with a parenthesis"),
        pytest.param(document(str=1), "str", id="named like a type"),
        pytest.param(document(**{"[key]": 1}), "[key]", id="named like a key's place"),
    ],
)
def test_an_unknown_field_is_refused_by_name(raw: Mapping[str, object], path: str) -> None:
    """A typo is a fault that names the field."""
    assert faults_of(raw) == [f"{path}: unknown field"]


ALWAYS_SENT = [
    pytest.param(lambda value: document(networking=value), "networking", id="networking"),
    pytest.param(lambda value: document(annotations=value), "annotations", id="annotations"),
    pytest.param(lambda value: document(secrets=value), "secrets", id="top-level secrets"),
    pytest.param(
        lambda value: document(resources={"cpu": 100, "storage": value}),
        "resources.storage",
        id="storage",
    ),
    pytest.param(
        lambda value: with_container(resources=value),
        "containers[0].resources",
        id="container's resources",
    ),
]
EMPTY: list[object] = [None, "", 0, False, [], {}, {"a": {"b": 0, "c": ""}}, Plain("0"), Plain("~")]


@pytest.mark.parametrize(("place", "path"), ALWAYS_SENT)
def test_what_serialisers_always_send_is_taken_while_empty(place: object, path: str) -> None:
    """A field that has no meaning here passes while it is empty, false or zero."""
    assert callable(place)
    assert {spec_of(place(value)).image for value in EMPTY} == {"nginx"}


@pytest.mark.parametrize(("place", "path"), ALWAYS_SENT)
def test_what_serialisers_always_send_is_refused_when_filled(place: object, path: str) -> None:
    """A field that has no meaning here is refused by name when something is asked of it."""
    assert callable(place)
    for value in (SECRET, 1, True, [""], {"a": [1]}, Plain("1")):
        (fault,) = faults_of(place(value))
        assert fault == f"{path}: is not supported here and has to be left out or empty"


def test_the_document_given_is_left_as_it_was() -> None:
    """Reading takes nothing away from the caller's document."""
    raw = document(networking={}, resources={"storage": 0}, containers=[{"image": "nginx"}])

    spec_of(raw)

    assert raw == document(networking={}, resources={"storage": 0})


# --- single fields ----------------------------------------------------------------------------


@pytest.mark.parametrize("tenant_id", ["a", "A9_.-", "0", "a" * 128, Plain("12")])
def test_tenant_id_is_taken(tenant_id: str) -> None:
    """A tenant id of 1 to 128 plain characters is taken, a number from YAML as its text."""
    assert read_document(document(tenant_id=tenant_id), SpecDefaults()).tenant_id == tenant_id


@pytest.mark.parametrize(
    "tenant_id",
    ["", "-a", ".a", "_a", "a b", "a/b", "é", "a\n", "a" * 129, 12, None, Plain("null"), ["a"]],
)
def test_tenant_id_is_refused(tenant_id: object) -> None:
    """Anything else is no tenant id."""
    (fault,) = faults_of(document(tenant_id=tenant_id))

    assert fault.startswith("tenant_id: has to be ")


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        pytest.param(document(resources={"cpu": 10, "memory": 6}), Resources(10, 6), id="least"),
        pytest.param(document(resources={"cpu": 2000}), Resources(2000, 512), id="cpu alone"),
        pytest.param(document(resources={"memory": 64}), Resources(1000, 64), id="memory alone"),
        pytest.param(document(resources={}), Resources(1000, 512), id="none"),
        pytest.param(document(resources=None), Resources(1000, 512), id="null"),
        pytest.param(document(resources=Plain("")), Resources(1000, 512), id="YAML's null"),
        pytest.param(
            document(resources={"cpu": Plain("500"), "memory": Plain("~")}),
            Resources(500, 512),
            id="from YAML",
        ),
    ],
)
def test_resources(raw: Mapping[str, object], expected: Resources) -> None:
    """Limits that are set are taken, the operator's defaults fill up the rest."""
    assert spec_of(raw).resources == expected


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        pytest.param(with_container(name="Web_1.a-b"), "Web_1.a-b", id="given"),
        pytest.param(with_container(name="a" * 128), "a" * 128, id="longest"),
        pytest.param(with_container(), "app", id="left out"),
    ],
)
def test_container_name(raw: Mapping[str, object], expected: str) -> None:
    """The container's name is kept, `app` where there is none."""
    assert spec_of(raw).container_name == expected


@pytest.mark.parametrize("absent", [None, [], Plain("~")])
def test_an_empty_command_is_none_at_all(absent: object) -> None:
    """An empty command, args, env or list of ports or secrets is the same as none."""
    raw = with_container(command=absent, args=absent, ports=absent, secrets=absent, env=None)

    assert spec_of(raw) == spec_of(document())


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        pytest.param("a=b\n$C \"'ü", "a=b\n$C \"'ü", id="text, byte for byte"),
        pytest.param("", "", id="empty text"),
        pytest.param(5, "5", id="integer"),
        pytest.param(2**70, str(2**70), id="large integer"),
        pytest.param(True, "true", id="true"),
        pytest.param(False, "false", id="false"),
        pytest.param(0.5, "0.5", id="fraction"),
        pytest.param(Number("1.10"), "1.10", id="fraction as written"),
        pytest.param(Number("1E400"), "1E400", id="exponent as written"),
        pytest.param(Plain("1.10"), "1.10", id="YAML fraction"),
        pytest.param(Plain("0755"), "0755", id="YAML octal"),
        pytest.param(Plain("no"), "no", id="YAML no"),
        pytest.param(Plain("True"), "True", id="YAML true"),
        pytest.param("null", "null", id="the word null, quoted"),
    ],
)
def test_env_value(value: object, expected: str) -> None:
    """Text is kept byte for byte; numbers and booleans are written as JSON writes them."""
    assert spec_of(with_container(env={"A": value})).env == (("A", expected),)


@pytest.mark.parametrize("name", ["A", "a-b.c d", "1", "ü", "str", "a[0]"])
def test_env_name(name: str) -> None:
    """A name may hold all but an equals sign and NUL."""
    assert spec_of(with_container(env={name: "x"})).env == ((name, "x"),)


@pytest.mark.parametrize(
    ("env", "fault"),
    [
        pytest.param({"A": None}, "env.A: has to be a valid string", id="null"),
        pytest.param({"A": Plain("")}, "env.A: has to be a valid string", id="YAML's null"),
        pytest.param({"A": Plain("~")}, "env.A: has to be a valid string", id="YAML's tilde"),
        pytest.param({"A": [SECRET]}, "env.A: has to be a valid string", id="list"),
        pytest.param({"A": {"B": SECRET}}, "env.A: has to be a valid string", id="map"),
        pytest.param({"A": f"{SECRET}\0"}, "env.A: must not contain a NUL character", id="NUL"),
        pytest.param({"": SECRET}, "env: names must not be empty nor contain = or NUL", id="empty"),
        pytest.param(
            {f"A={SECRET}": SECRET}, "env: names must not be empty nor contain = or NUL", id="="
        ),
        pytest.param({"A\0": SECRET}, "env: must not contain a NUL character", id="NUL in name"),
        pytest.param([f"A={SECRET}"], "env: has to be an object", id="Docker's list form"),
        pytest.param(SECRET, "env: has to be an object", id="text"),
    ],
)
def test_env_is_refused_without_telling_values(env: object, fault: str) -> None:
    """A fault in the environment names the variable and never shows what it holds."""
    assert faults_of(with_container(env=env)) == [f"containers[0].{fault}"]


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(with_container(env={f"A={SECRET}": None}), id="name that holds the value"),
        pytest.param(with_container(command=f"run {SECRET}"), id="command that is no list"),
        pytest.param(with_container(args=[f"{SECRET}\0"]), id="args"),
        pytest.param(with_container(healthcheck={"test": f"{SECRET}\0"}), id="health test"),
        pytest.param(with_container(healthcheck={"test": [f"{SECRET}\0"]}), id="list of it"),
        pytest.param(with_container(healthcheck={"command": f"{SECRET}\0"}), id="its command"),
        pytest.param(with_container(secrets=[f"/{SECRET}"]), id="secrets"),
        pytest.param(with_config(log_options={"token": f"{SECRET}\0"}), id="log options"),
        pytest.param(document(containers=f'[{{"env": "{SECRET}"}}]'), id="containers as text"),
        pytest.param(document(containers=[f'{{"env": "{SECRET}"}}']), id="container as text"),
        pytest.param(document(provider_config=f'{{"env": "{SECRET}"}}'), id="config as text"),
        pytest.param(with_container(environment={"A": SECRET}), id="unknown field"),
    ],
)
def test_no_fault_tells_what_only_the_tenant_may_know(raw: Mapping[str, object]) -> None:
    """What may hold a secret is refused without being shown."""
    assert SECRET not in " ".join(faults_of(raw))


@pytest.mark.parametrize(
    ("port", "expected"),
    [
        pytest.param({"container_port": 1}, PortMapping(1), id="least, not published"),
        pytest.param({"container_port": 80, "host_port": 0}, PortMapping(80), id="host port 0"),
        pytest.param(
            {"container_port": 65535, "host_port": 65535},
            PortMapping(65535, 65535),
            id="greatest",
        ),
        pytest.param(
            {"container_port": 53, "protocol": "UDP"},
            PortMapping(53, 0, Transport.UDP),
            id="protocol in any case",
        ),
        pytest.param(
            {"container_port": 53, "protocol": "sctp", "name": "s"},
            PortMapping(53, 0, Transport.SCTP, "s"),
            id="sctp, named",
        ),
        pytest.param({"container_port": 80, "name": None}, PortMapping(80), id="no name"),
        pytest.param(
            {
                "container_port": Plain("80"),
                "host_port": Plain("8080"),
                "protocol": Plain("tcp"),
                "name": Plain("~"),
            },
            PortMapping(80, 8080),
            id="from YAML",
        ),
    ],
)
def test_port(port: Mapping[str, object], expected: PortMapping) -> None:
    """A port is exposed, and published where it has a host port other than 0."""
    assert spec_of(with_container(ports=[port])).ports == (expected,)


@pytest.mark.parametrize(
    "ports",
    [
        pytest.param([{"container_port": 80}, {"container_port": 80}], id="unpublished twice"),
        pytest.param(
            [
                {"container_port": 53, "host_port": 53},
                {"container_port": 53, "host_port": 53, "protocol": "udp"},
            ],
            id="one number, two protocols",
        ),
        pytest.param(
            [{"container_port": 80, "host_port": 1}, {"container_port": 80, "host_port": 2}],
            id="one container port, two host ports",
        ),
    ],
)
def test_ports_that_go_together(ports: list[object]) -> None:
    """Ports get in each other's way only on the host."""
    assert len(spec_of(with_container(ports=ports)).ports) == 2


DISABLED = HealthCheck(test=("NONE",))


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        pytest.param({"test": "curl x"}, HealthCheck(("CMD-SHELL", "curl x")), id="a line"),
        pytest.param({"test": ["curl", "x"]}, HealthCheck(("CMD", "curl", "x")), id="words"),
        pytest.param({"test": ["CMD", "x"]}, HealthCheck(("CMD", "x")), id="CMD"),
        pytest.param({"test": ["CMD-SHELL", "x"]}, HealthCheck(("CMD-SHELL", "x")), id="SHELL"),
        pytest.param({"test": ["NONE"]}, DISABLED, id="NONE"),
        pytest.param({"disable": True}, DISABLED, id="disabled"),
        pytest.param({"disable": Plain("true")}, DISABLED, id="disabled in YAML"),
        pytest.param({"disable": True, "test": "x"}, DISABLED, id="disabled though there is one"),
        pytest.param(
            {"type": "exec", "command": ["x"]}, HealthCheck(("CMD", "x")), id="the other spelling"
        ),
        pytest.param(
            {
                "test": "x",
                "interval_seconds": 0,
                "timeout_seconds": 0.001,
                "start_period_seconds": 86400,
                "retries": 0,
            },
            HealthCheck(("CMD-SHELL", "x"), 0, 0.001, 86400, 0),
            id="least and greatest numbers",
        ),
        pytest.param(
            {
                "test": Plain("x"),
                "command": Plain("~"),
                "interval_seconds": Plain("1.5"),
                "timeout_seconds": Plain("~"),
                "start_period_seconds": Number("2.50"),
                "retries": Plain("3"),
            },
            HealthCheck(("CMD-SHELL", "x"), 1.5, None, 2.5, 3),
            id="from YAML, and a JSON fraction",
        ),
    ],
)
@pytest.mark.parametrize("spelling", ["healthcheck", "health_check"])
def test_health_check(spelling: str, given: object, expected: HealthCheck) -> None:
    """A health check under either name is brought to the engine's form."""
    assert spec_of(with_container(**{spelling: given})).healthcheck == expected


@pytest.mark.parametrize("absent", [None, Plain("")])
def test_without_health_check_the_image_decides(absent: object) -> None:
    """A health check of null leaves the image's alone."""
    assert spec_of(with_container(healthcheck=absent, health_check=absent)).healthcheck is None


@pytest.mark.parametrize("kind", ["http", "tcp"])
def test_a_check_over_the_network_is_refused_with_the_reason(kind: str) -> None:
    """A health check of type http or tcp is refused with the reason, also with its own fields."""
    faults = faults_of(with_container(health_check={"type": kind, "port": 80}))

    reason = f"type {kind} is not supported: the engine runs a command in the container"
    assert f"containers[0].health_check.type: {reason}, got '{kind}'" in faults


@pytest.mark.parametrize("key", ["a", "com.example/x y=z", "k" * 128, "landlordx", "ü"])
@pytest.mark.parametrize(
    "labelled",
    [
        pytest.param(lambda labels: document(labels=labels), id="labels"),
        pytest.param(lambda labels: with_config(labels=labels), id="provider_config"),
    ],
)
def test_label(labelled: object, key: str) -> None:
    """A label key of up to 128 characters outside our prefix is taken."""
    assert callable(labelled)
    assert spec_of(labelled({key: "v"})).labels == ((key, "v"),)


@pytest.mark.parametrize("key", ["", "k" * 129, "a\n", "a\x7f", "a\x85", "landlord.tenant_id"])
@pytest.mark.parametrize(
    ("labelled", "path"),
    [
        pytest.param(lambda labels: document(labels=labels), "labels", id="labels"),
        pytest.param(
            lambda labels: with_config(labels=labels), "provider_config.labels", id="config"
        ),
    ],
)
def test_label_key_is_refused(labelled: object, path: str, key: str) -> None:
    """A label key that is empty, too long, unprintable or ours is refused."""
    assert callable(labelled)
    (fault,) = faults_of(labelled({key: "v"}))

    assert fault.startswith(f"{path}: keys ")


@pytest.mark.parametrize(
    ("config", "field"),
    [
        ({"volumes": ["/srv/a:/a", "data:/run/secrets"]}, "volumes[1]"),
        ({"volumes": ["data:/run//secrets/:ro"]}, "volumes[0]"),
        ({"volumes": ["data:/run/secrets/db"]}, "volumes[0]"),
        ({"tmpfs": {"/run/secrets": ""}}, "tmpfs./run/secrets"),
        ({"tmpfs": {"///run/./secrets/x": ""}}, "tmpfs.///run/./secrets/x"),
    ],
)
def test_nothing_is_mounted_over_the_secrets(config: dict[str, object], field: str) -> None:
    """It would hide them, or keep them when the container is gone; without secrets it may be."""
    raw = with_config(**config)
    wanting = raw | {"containers": [{"image": "nginx", "secrets": ["db"]}]}

    spec_of(raw)
    (fault,) = faults_of(wanting)

    assert fault == (
        f"provider_config.{field}: /run/secrets is where containers[0].secrets arrive; "
        "choose another path"
    )


def test_mounts_beside_the_secrets_are_none_of_their_business() -> None:
    """Above them, or with a name that begins alike."""
    raw = with_config(volumes=["data:/run/secrets-of-mine"], tmpfs={"/run": ""})

    spec_of(raw | {"containers": [{"image": "nginx", "secrets": ["db"]}]})


def test_the_reserved_labels_follow_the_prefix() -> None:
    """What is reserved is the configured prefix, not the word landlord."""
    defaults = SpecDefaults(label_prefix="acme")

    assert spec_of(document(labels={"landlord.x": "1"}), defaults).labels == (("landlord.x", "1"),)
    (fault,) = faults_of(document(labels={"acme.x": "1"}), defaults)
    assert fault == "labels: keys under acme. are reserved, got 'acme.x'"


@pytest.mark.parametrize(
    ("raw", "path", "rule"),
    [
        pytest.param({"tenant_id": "a"}, "containers", "is required", id="no containers"),
        pytest.param(
            document(containers=[]),
            "containers",
            "docker provider requires exactly 1 container, got 0",
            id="0 containers",
        ),
        pytest.param(
            document(containers=[{"image": "web"}, {"image": "api"}]),
            "containers",
            "docker provider requires exactly 1 container, got 2",
            id="2 containers",
        ),
        pytest.param(document(containers={}), "containers", "a list", id="containers no list"),
        pytest.param(document(containers=["a"]), "containers[0]", "an object", id="no object"),
        pytest.param(document(containers=[{}]), "containers[0].image", "is required", id="image"),
        pytest.param(with_container(image=""), "containers[0].image", "empty", id="empty image"),
        pytest.param(with_container(image="a:b:c"), "containers[0].image", "", id="bad image"),
        pytest.param(with_container(image=None), "containers[0].image", "string", id="null image"),
        pytest.param(with_container(name=""), "containers[0].name", "has to be 1", id="no name"),
        pytest.param(with_container(name="a b"), "containers[0].name", "has to be 1", id="name"),
        pytest.param(
            with_container(command="run"), "containers[0].command", "a list", id="command line"
        ),
        pytest.param(
            with_container(command=["a", 1]), "containers[0].command[1]", "string", id="number"
        ),
        pytest.param(
            with_container(args=["a", "\0"]), "containers[0].args[1]", "NUL", id="NUL in args"
        ),
        pytest.param(
            with_container(args=[None]), "containers[0].args[0]", "string", id="null in args"
        ),
        pytest.param(
            with_container(secrets=["a/b"]), "containers[0].secrets[0]", "has to be 1", id="secret"
        ),
        pytest.param(
            with_container(secrets=["a", "a"]), "containers[0].secrets", "twice: a", id="secrets"
        ),
        pytest.param(document(generation=0), "generation", "greater", id="generation 0"),
        pytest.param(document(generation=2**63), "generation", "less", id="generation too large"),
        pytest.param(document(generation="3"), "generation", "integer", id="generation as text"),
        pytest.param(document(generation=True), "generation", "integer", id="generation true"),
        pytest.param(document(generation=3.0), "generation", "integer", id="generation 3.0"),
        pytest.param(
            document(generation=Plain("03")), "generation", "integer", id="leading zero in YAML"
        ),
        pytest.param(document(provider_type=""), "provider_type", "empty", id="no provider"),
        pytest.param(document(provider_type=1), "provider_type", "string", id="provider number"),
        pytest.param(document(resources={"cpu": 9}), "resources.cpu", "10, got 9", id="cpu 9"),
        pytest.param(document(resources={"cpu": 0.5}), "resources.cpu", "integer", id="cpu 0.5"),
        pytest.param(document(resources={"cpu": "500"}), "resources.cpu", "integer", id="cpu text"),
        pytest.param(
            document(resources={"cpu": 1_000_001}), "resources.cpu", "less", id="cpu absurd"
        ),
        pytest.param(document(resources={"memory": 5}), "resources.memory", "6", id="memory 5"),
        pytest.param(
            document(resources={"memory": "1g"}), "resources.memory", "integer", id="memory text"
        ),
        pytest.param(
            document(resources={"memory": 2**63}), "resources.memory", "less", id="memory absurd"
        ),
        pytest.param(document(resources=[]), "resources", "an object", id="resources no object"),
        pytest.param(document(labels={"a": 1}), "labels.a", "string", id="label number"),
        pytest.param(document(labels={"a": None}), "labels.a", "string", id="label null"),
        pytest.param(document(labels=["a"]), "labels", "an object", id="labels no object"),
    ],
)
def test_a_broken_rule_names_its_field(raw: Mapping[str, object], path: str, rule: str) -> None:
    """One broken rule is one fault: path of the field, and the rule."""
    (fault,) = faults_of(raw)

    assert fault.startswith(f"{path}: ")
    assert rule in fault


@pytest.mark.parametrize(
    ("ports", "path", "rule"),
    [
        pytest.param([{}], "[0].container_port", "is required", id="no container port"),
        pytest.param([{"container_port": 0}], "[0].container_port", "1, got 0", id="0"),
        pytest.param([{"container_port": 65536}], "[0].container_port", "65535", id="65536"),
        pytest.param([{"container_port": "80"}], "[0].container_port", "integer", id="text"),
        pytest.param([{"container_port": True}], "[0].container_port", "integer", id="true"),
        pytest.param([{"container_port": 80.0}], "[0].container_port", "integer", id="fraction"),
        pytest.param(
            [{"container_port": Plain("0x50")}], "[0].container_port", "integer", id="hexadecimal"
        ),
        pytest.param([{"container_port": 1, "host_port": -1}], "[0].host_port", "0", id="-1"),
        pytest.param([{"container_port": 1, "host_port": 65536}], "[0].host_port", "65535", id="h"),
        pytest.param(
            [{"container_port": 1, "host_port": "1-2"}], "[0].host_port", "integer", id="range"
        ),
        pytest.param(
            [{"container_port": 1, "protocol": "http"}],
            "[0].protocol",
            "'tcp', 'udp' or 'sctp', got 'http'",
            id="protocol",
        ),
        pytest.param([{"container_port": 1, "protocol": 6}], "[0].protocol", "'tcp'", id="number"),
        pytest.param([{"container_port": 1, "name": ""}], "[0].name", "empty", id="empty name"),
        pytest.param(
            [{"container_port": 1, "host_port": 9}, {"container_port": 2, "host_port": 9}],
            "",
            "named twice: 9/tcp",
            id="one host port twice",
        ),
        pytest.param(
            [{"container_port": 1, "name": "a"}, {"container_port": 2, "name": "a"}],
            "",
            "named twice: a",
            id="one name twice",
        ),
        pytest.param(["80:80"], "[0]", "an object", id="Docker's short form"),
        pytest.param({}, "", "a list", id="no list"),
    ],
)
def test_port_is_refused(ports: object, path: str, rule: str) -> None:
    """A port that the engine would not take, or take and not mean, is refused."""
    (fault,) = faults_of(with_container(ports=ports))

    assert fault.startswith(f"containers[0].ports{path}: ")
    assert rule in fault


@pytest.mark.parametrize(
    ("check", "path", "rule"),
    [
        pytest.param({}, "", "needs test, or disable: true", id="nothing"),
        pytest.param({"test": []}, "", "needs test", id="empty list"),
        pytest.param({"test": ""}, ".test", "empty", id="empty text"),
        pytest.param({"test": 1}, ".test", "", id="number"),
        pytest.param({"test": ["a", 1]}, ".test[1]", "string", id="number in a list"),
        pytest.param({"test": "a", "command": "b"}, "", "give one", id="test and command"),
        pytest.param({"test": "a", "type": "grpc"}, ".type", "exec", id="unknown type"),
        pytest.param({"test": "a", "disable": "yes"}, ".disable", "boolean", id="disable yes"),
        pytest.param({"test": "a", "interval_seconds": -1}, ".interval_seconds", "0", id="below 0"),
        pytest.param(
            {"test": "a", "timeout_seconds": 0.0009}, "", "at least 0.001", id="below 1 ms"
        ),
        pytest.param(
            {"test": "a", "start_period_seconds": 86401}, ".start_period_seconds", "", id="over 1 d"
        ),
        pytest.param(
            {"test": "a", "interval_seconds": "3s"}, ".interval_seconds", "number", id="3s"
        ),
        pytest.param(
            {"test": "a", "interval_seconds": True}, ".interval_seconds", "number", id="true"
        ),
        pytest.param({"test": "a", "retries": -1}, ".retries", "0", id="retries below 0"),
        pytest.param({"test": "a", "retries": 1.5}, ".retries", "integer", id="retries 1.5"),
        pytest.param("curl", "", "an object", id="text"),
    ],
)
def test_health_check_is_refused(check: object, path: str, rule: str) -> None:
    """A health check that the engine would refuse, or silently ignore, is refused."""
    (fault,) = faults_of(with_container(healthcheck=check))

    assert fault.startswith(f"containers[0].healthcheck{path}: ")
    assert rule in fault


def test_both_spellings_of_the_health_check_are_one_too_many() -> None:
    """A container has one health check, whatever it is called."""
    (fault,) = faults_of(with_container(healthcheck={"test": "a"}, health_check={"test": "a"}))

    assert fault.endswith("healthcheck and health_check are two words for one thing; give one")


# --- provider_config --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("config", "changed"),
    [
        pytest.param({"restart_policy": "no"}, {"restart_policy": RestartPolicy("no")}, id="no"),
        pytest.param(
            {"restart_policy": Plain("no")}, {"restart_policy": RestartPolicy("no")}, id="YAML no"
        ),
        pytest.param(
            {"restart_policy": "always"}, {"restart_policy": RestartPolicy("always")}, id="always"
        ),
        pytest.param(
            {"restart_policy": "on-failure"},
            {"restart_policy": RestartPolicy("on-failure")},
            id="on-failure",
        ),
        pytest.param(
            {"restart_policy": "on-failure:0"},
            {"restart_policy": RestartPolicy("on-failure", 0)},
            id="on-failure:0",
        ),
        pytest.param({"restart_policy": "unless-stopped"}, {}, id="unless-stopped"),
        pytest.param(
            {"log_driver": "local", "log_options": {"max-size": "1m"}},
            {"log_driver": "local", "log_options": (("max-file", "3"), ("max-size", "1m"))},
            id="log options over the default",
        ),
        pytest.param(
            {"log_driver": "syslog", "log_options": {"tag": "x", "n": 3, "b": True}},
            {"log_driver": "syslog", "log_options": (("b", "true"), ("n", "3"), ("tag", "x"))},
            id="log options of another driver",
        ),
        pytest.param(
            {"log_driver": "none"}, {"log_driver": "none", "log_options": ()}, id="no log"
        ),
        pytest.param({"pull_policy": "never"}, {"pull_policy": "never"}, id="pull policy"),
        pytest.param(
            {"volumes": ["cache:/c", "/a:/b:rw,z", "/a:/b/c:ro,rslave"]},
            {"volumes": ("cache:/c", "/a:/b:rw,z", "/a:/b/c:ro,rslave")},
            id="volumes",
        ),
        pytest.param(
            {"tmpfs": {"/b": "", "/a": "size=1m"}},
            {"tmpfs": (("/a", "size=1m"), ("/b", ""))},
            id="tmpfs",
        ),
        pytest.param({"network_mode": "host"}, {"network_mode": "host"}, id="network mode"),
        pytest.param(
            {"network_mode": "container:a"}, {"network_mode": "container:a"}, id="container's"
        ),
        pytest.param({"user": "app"}, {"user": "app"}, id="user"),
        pytest.param({"user": Plain("1000")}, {"user": "1000"}, id="numeric user"),
        pytest.param({"working_dir": "/"}, {"working_dir": "/"}, id="working directory"),
        pytest.param({"hostname": "a" * 63}, {"hostname": "a" * 63}, id="longest host name"),
        pytest.param({"read_only": Plain("True")}, {"read_only": True}, id="YAML true"),
        pytest.param({"init": Plain("false")}, {}, id="YAML false"),
        pytest.param({"stop_signal": 9}, {"stop_signal": "9"}, id="signal by number"),
        pytest.param({"stop_signal": "RTMIN+3"}, {"stop_signal": "RTMIN+3"}, id="signal by name"),
        pytest.param({"stop_grace_seconds": 0}, {"stop_grace_seconds": 0}, id="no grace"),
        pytest.param({"stop_grace_seconds": 3600}, {"stop_grace_seconds": 3600}, id="1 h grace"),
        pytest.param({"shm_size_mb": 1}, {"shm_size_mb": 1}, id="least shared memory"),
        pytest.param({"pids_limit": 1}, {"pids_limit": 1}, id="least pids"),
        pytest.param({"cap_add": ["all"]}, {"cap_add": ("ALL",)}, id="capability in any case"),
        pytest.param({"runtime": "runc"}, {"runtime": "runc"}, id="runtime"),
        pytest.param(
            {"extra_hosts": ["a.b:10.0.0.1", "c:[::1]", "d:host-gateway"]},
            {"extra_hosts": ("a.b:10.0.0.1", "c:[::1]", "d:host-gateway")},
            id="hosts",
        ),
        pytest.param({"dns": ["::1"]}, {"dns": ("::1",)}, id="name server"),
        pytest.param(
            dict.fromkeys(
                (
                    "log_options",
                    "volumes",
                    "tmpfs",
                    "network_mode",
                    "labels",
                    "user",
                    "working_dir",
                    "hostname",
                    "stop_signal",
                    "shm_size_mb",
                    "pids_limit",
                    "ulimits",
                    "cap_add",
                    "cap_drop",
                    "security_opt",
                    "runtime",
                    "extra_hosts",
                    "dns",
                ),
                Plain("~"),
            ),
            {},
            id="YAML's null is the default",
        ),
    ],
)
def test_provider_config(config: Mapping[str, object], changed: Mapping[str, object]) -> None:
    """What is set changes its part of the spec and nothing else."""
    plain = make_spec(image="nginx", resources=Resources(1000, 512), log_options=ROTATED)

    spec = spec_of(with_config(**config))

    assert {name: getattr(spec, name) for name in TenantSpec.__dataclass_fields__} == {
        name: getattr(plain, name) for name in TenantSpec.__dataclass_fields__
    } | dict(changed)


@pytest.mark.parametrize(
    ("config", "path", "rule"),
    [
        pytest.param({"restart_policy": "sometimes"}, "restart_policy", "has to be no", id="word"),
        pytest.param({"restart_policy": "No"}, "restart_policy", "has to be no", id="case"),
        pytest.param({"restart_policy": "always:3"}, "restart_policy", "has to be", id="count"),
        pytest.param(
            {"restart_policy": "on-failure:-1"}, "restart_policy", "has to be", id="negative"
        ),
        pytest.param({"restart_policy": "on-failure:"}, "restart_policy", "has to be", id="cut"),
        pytest.param({"restart_policy": False}, "restart_policy", "string", id="false"),
        pytest.param({"log_driver": ""}, "log_driver", "log driver", id="no log driver"),
        pytest.param({"log_driver": "JSON"}, "log_driver", "log driver", id="log driver case"),
        pytest.param({"log_options": {"": "x"}}, "log_options", "empty", id="unnamed option"),
        pytest.param({"log_options": {"a": None}}, "log_options.a", "string", id="null option"),
        pytest.param({"pull_policy": "sometimes"}, "pull_policy", "'always'", id="pull policy"),
        pytest.param({"volumes": ["/a"]}, "volumes[0]", "src:dst", id="volume of one part"),
        pytest.param({"volumes": ["/a:/b:ro:x"]}, "volumes[0]", "src:dst", id="of four parts"),
        pytest.param({"volumes": ["./a:/b"]}, "volumes[0]", "the source", id="relative source"),
        pytest.param({"volumes": [":/b"]}, "volumes[0]", "the source", id="empty source"),
        pytest.param({"volumes": ["/a:b"]}, "volumes[0]", "the target", id="relative target"),
        pytest.param({"volumes": ["/a:/"]}, "volumes[0]", "the target", id="root"),
        pytest.param({"volumes": ["/a://"]}, "volumes[0]", "the target", id="root in disguise"),
        pytest.param({"volumes": ["/a:/b:rx"]}, "volumes[0]", "mode 'rx'", id="unknown mode"),
        pytest.param({"volumes": ["/a:/b:"]}, "volumes[0]", "mode ''", id="empty mode"),
        pytest.param({"volumes": ["/a:/x", "/b:/x/"]}, "volumes", "twice: /x", id="two targets"),
        pytest.param({"tmpfs": ["/run"]}, "tmpfs", "an object", id="tmpfs no map"),
        pytest.param({"tmpfs": {"run": ""}}, "tmpfs", "absolute path", id="relative tmpfs"),
        pytest.param({"tmpfs": {"/run[1]": 1}}, "tmpfs./run[1]", "string", id="tmpfs number"),
        pytest.param({"network_mode": "a b"}, "network_mode", "no such mode", id="network mode"),
        pytest.param({"network_mode": ""}, "network_mode", "no such mode", id="no network mode"),
        pytest.param({"user": "a:b:c"}, "user", "user[:group]", id="user"),
        pytest.param({"user": 1000}, "user", "string", id="user number"),
        pytest.param({"working_dir": "srv"}, "working_dir", "absolute path", id="working_dir"),
        pytest.param({"hostname": "-a"}, "hostname", "no host name", id="host name"),
        pytest.param({"hostname": "a" * 64}, "hostname", "no host name", id="host name of 64"),
        pytest.param({"read_only": "true"}, "read_only", "boolean", id="text for a boolean"),
        pytest.param({"init": 1}, "init", "boolean", id="number for a boolean"),
        pytest.param({"privileged": Plain("yes")}, "privileged", "boolean", id="YAML 1.1's yes"),
        pytest.param({"stop_signal": "kill it"}, "stop_signal", "no signal", id="signal"),
        pytest.param({"stop_signal": 0}, "stop_signal", "no signal", id="signal 0"),
        pytest.param({"stop_grace_seconds": -1}, "stop_grace_seconds", "0", id="grace -1"),
        pytest.param({"stop_grace_seconds": 3601}, "stop_grace_seconds", "3600", id="over 1 h"),
        pytest.param({"shm_size_mb": 0}, "shm_size_mb", "1", id="no shared memory"),
        pytest.param({"pids_limit": 0}, "pids_limit", "1", id="no pids"),
        pytest.param(
            {"ulimits": {"NOFILE": {"soft": 1, "hard": 1}}},
            "ulimits",
            "NOFILE: no such limit",
            id="limit name",
        ),
        pytest.param(
            {"ulimits": {"core": {"soft": -2, "hard": 1}}}, "ulimits.core.soft", "-1", id="limit -2"
        ),
        pytest.param({"ulimits": {"core": 1}}, "ulimits.core", "an object", id="limit no pair"),
        pytest.param({"cap_add": ["NET ADMIN"]}, "cap_add[0]", "capability", id="capability"),
        pytest.param({"cap_drop": [1]}, "cap_drop[0]", "string", id="capability number"),
        pytest.param({"security_opt": [""]}, "security_opt[0]", "empty", id="security option"),
        pytest.param({"runtime": ""}, "runtime", "empty", id="no runtime"),
        pytest.param({"extra_hosts": ["db"]}, "extra_hosts[0]", "host:ip", id="host alone"),
        pytest.param({"extra_hosts": ["d b:::1"]}, "extra_hosts[0]", "host:ip", id="host's name"),
        pytest.param(
            {"extra_hosts": ["db:db2"]}, "extra_hosts[0]", "IP address", id="host's address"
        ),
        pytest.param({"dns": ["one"]}, "dns[0]", "IP address", id="name server's name"),
        pytest.param({"dns": "1.1.1.1"}, "dns", "a list", id="name servers no list"),
    ],
)
def test_provider_config_is_refused(config: dict[str, object], path: str, rule: str) -> None:
    """A value that the engine would not take is refused by its path."""
    faults = faults_of(with_config(**config))

    assert faults[0].startswith(f"provider_config.{path}: ")
    assert rule in faults[0]


PUBLISHED: list[object] = [{"container_port": 80}, {"container_port": 81, "host_port": 81}]
EXPOSED: list[object] = [{"container_port": 80, "host_port": 0}, {"container_port": 81}]


@pytest.mark.parametrize("mode", ["host", "none", "container:other"])
def test_a_bare_network_mode_has_no_published_ports(mode: str) -> None:
    """A published port is refused with a network mode that has none of its own."""
    raw = with_container(ports=PUBLISHED) | {"provider_config": {"network_mode": mode}}

    (fault,) = faults_of(raw)

    assert fault.startswith(f"provider_config.network_mode: {mode} has no ports of its own")


def test_the_operators_bare_network_mode_has_no_published_ports() -> None:
    """The mode counts wherever it comes from."""
    defaults = SpecDefaults(provider_config={"network_mode": "host"})

    (fault,) = faults_of(with_container(ports=PUBLISHED), defaults)

    assert fault.startswith("provider_config.network_mode: host has no ports of its own")


@pytest.mark.parametrize(
    ("mode", "ports"),
    [
        pytest.param("host", EXPOSED, id="exposed only"),
        pytest.param("host", None, id="no ports"),
        pytest.param("bridge", PUBLISHED, id="a mode with ports"),
        pytest.param(None, PUBLISHED, id="no mode"),
    ],
)
def test_a_network_mode_that_goes_with_the_ports(mode: str | None, ports: list[object]) -> None:
    """Without published ports, or with ports of its own, a mode is taken."""
    raw = with_container(ports=ports) | {"provider_config": {"network_mode": mode}}

    assert spec_of(raw).network_mode == mode


@pytest.mark.parametrize("config", [None, Plain(""), {}])
def test_without_provider_config_the_operators_holds(config: object) -> None:
    """An absent or empty provider_config leaves the operator's as it is."""
    defaults = SpecDefaults(provider_config={"init": True, "dns": ["1.1.1.1"]})

    spec = spec_of(document(provider_config=config), defaults)

    assert (spec.init, spec.dns) == (True, ("1.1.1.1",))


def test_the_tenants_provider_config_lies_over_the_operators() -> None:
    """Maps merge, lists and single values replace."""
    defaults = SpecDefaults(
        provider_config={
            "labels": {"a": "operator", "b": "operator"},
            "dns": ["1.1.1.1"],
            "init": True,
            "read_only": True,
        }
    )

    spec = spec_of(with_config(labels={"a": "tenant"}, dns=["9.9.9.9"], init=False), defaults)

    assert spec.labels == (("a", "tenant"), ("b", "operator"))
    assert (spec.dns, spec.init, spec.read_only) == (("9.9.9.9",), False, True)


def test_a_provider_config_that_is_no_object_is_refused() -> None:
    """The operator's defaults do not hide that the tenant's are none."""
    defaults = SpecDefaults(provider_config={"init": True})

    assert faults_of(document(provider_config=[]), defaults) == [
        "provider_config: has to be an object"
    ]


def test_a_long_value_is_shown_cut() -> None:
    """A fault shows at most eighty characters of what was found."""
    (text,) = faults_of(with_config(hostname="h" * 500))
    (number,) = faults_of(document(generation=10**500))

    assert text.endswith(f", got '{'h' * 80}'")
    assert number.endswith(f", got 1{'0' * 79}")


# --- the body of deleted, suspended and resumed -----------------------------------------------


@pytest.mark.parametrize(
    ("raw", "generation"),
    [
        pytest.param({"tenant_id": "acme"}, None, id="tenant alone"),
        pytest.param({"tenant_id": "acme", "generation": 1}, 1, id="least generation"),
        pytest.param(
            {"tenant_id": "acme", "generation": 2**63 - 1}, 2**63 - 1, id="greatest generation"
        ),
        pytest.param({"tenant_id": "acme", "generation": Plain("7")}, 7, id="from YAML"),
        pytest.param({"tenant_id": "acme", "generation": Plain("")}, None, id="YAML's null"),
        pytest.param({"tenant_id": "acme", "generation": None}, None, id="null"),
        pytest.param(document(generation=4, provider_type="docker"), 4, id="full document"),
    ],
)
def test_subject(raw: Mapping[str, object], generation: int | None) -> None:
    """Tenant and generation are read, also from a full document."""
    subject = read_subject(raw)

    assert (subject.tenant_id, subject.generation) == ("acme", generation)


def test_a_subject_is_refused_with_all_its_faults() -> None:
    """A body without a usable tenant or generation is refused with both."""
    with pytest.raises(DocumentError) as refusal:
        read_subject({"generation": -1})

    assert [fault.field for fault in refusal.value.faults] == ["tenant_id", "generation"]


@pytest.mark.parametrize("name", ["gen", "Generation", "reason", ""])
def test_an_unknown_field_of_a_subject_is_refused_by_name(name: str) -> None:
    """A misspelt generation would else let an old event pass for a new one."""
    with pytest.raises(DocumentError) as refusal:
        read_subject({"tenant_id": "acme", name: 3})

    assert [str(fault) for fault in refusal.value.faults] == [
        f"{name}: unknown field" if name else "unknown field"
    ]


def test_a_subject_may_be_a_document_that_is_no_longer_taken() -> None:
    """Of a full document only tenant and generation are looked at."""
    raw = document(containers=[], networking={"a": 1}, secrets=["x"], annotations=0, labels=7)

    assert read_subject(raw).tenant_id == "acme"
