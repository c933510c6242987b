"""Settings: where they come from, which one wins, and that every fault is told without a secret."""

import json
from pathlib import Path

import pytest

from consumer.errors import SettingsError
from consumer.settings import CONFIG_VARIABLE, FileInUse, Settings, describe, file_in_use, load

DATA = Path(__file__).parent / "data"
SECRET = "s3cr3t-words"


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run in an empty folder and home, so that no file lies about."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))


OPEN = "/healthz, /readyz and /metrics"


def loaded(text: str = "", **environ: str) -> Settings:
    """Return the settings of a file with this text and of these variables."""
    path = Path("settings.yaml")
    path.write_text(text, encoding="utf-8")
    return load(path, environ)


def found(text: str, **environ: str) -> Settings:
    """Return the settings of a file that happens to be in the folder, and of these variables."""
    Path("config.yaml").write_text(text, encoding="utf-8")
    return load(environ=environ)


def faults(text: str = "", **environ: str) -> list[str]:
    """Return what is wrong with a file with this text and with these variables."""
    with pytest.raises(SettingsError) as refused:
        loaded(text, **environ)
    assert str(refused.value).splitlines() == [str(fault) for fault in refused.value.faults]
    return [str(fault) for fault in refused.value.faults]


def certificates(folder: str = "certs") -> Path:
    """Make a folder with the files that Docker's variables speak of."""
    path = Path(folder)
    path.mkdir()
    for name in ("ca", "cert", "key"):
        (path / f"{name}.pem").touch()
    return path


# --- where they come from ---------------------------------------------------------------------


def test_without_file_and_environment_there_are_the_defaults() -> None:
    """Nothing has to be set; the defaults are the contract's (checklist 14)."""
    settings = load(None, {})

    assert settings == Settings()
    assert settings.compute.docker.url == "unix:///var/run/docker.sock"
    assert settings.broker.url == "amqp://guest:guest@localhost:5672/"


def test_the_documented_config_file_is_accepted() -> None:
    """The snippet of the provider's description loads as it stands, and is the default."""
    assert load(DATA / "config.yaml", {}) == Settings()


@pytest.mark.parametrize("text", ["", "# nothing\n", "---\n", "{}"])
def test_an_empty_file_sets_nothing(text: str) -> None:
    """A file without settings is the same as none."""
    assert loaded(text) == Settings()


def test_the_given_path_wins_over_the_variable_and_that_over_the_usual_file() -> None:
    """`--config`, then LANDLORD_CONFIG, then ./config.yaml."""
    for name in ("given", "named", "config"):
        Path(f"{name}.yaml").write_text(f"instance: {name}", encoding="utf-8")
    named = {CONFIG_VARIABLE: "named.yaml"}

    assert load(Path("given.yaml"), named).instance == "given"
    assert load(None, named).instance == "named"
    assert load(None, {CONFIG_VARIABLE: ""}).instance == "config"


def test_the_process_environment_is_read_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a mapping the variables are the process's own."""
    monkeypatch.setenv("LANDLORD_INSTANCE", "blue")

    assert load().instance == "blue"


def test_the_environment_wins_over_the_file() -> None:
    """A variable replaces what the file says, and leaves its neighbours alone."""
    settings = loaded(
        "http: {port: 1, host: 0.0.0.0}\nbroker:\ninstance: file",
        LANDLORD_HTTP__PORT="8081",
        LANDLORD_BROKER__TLS__VERIFY="false",
        LANDLORD_INSTANCE="environment",
        OTHER_HTTP__PORT="7",
    )

    assert (settings.http.port, settings.http.host) == (8081, "0.0.0.0")
    assert settings.broker.tls.verify is False
    assert settings.instance == "environment"


@pytest.mark.parametrize(
    ("variable", "text", "key", "value"),
    [
        ("COMPUTE__POLICY__VOLUMES", "/srv/data:ro, shared", "volumes", ("/srv/data:ro", "shared")),
        ("COMPUTE__POLICY__VOLUMES", '["/srv/a,b:ro"]', "volumes", ("/srv/a,b:ro",)),
        ("COMPUTE__POLICY__VOLUMES", "", "volumes", ()),
        ("COMPUTE__POLICY__IMAGES", "nginx,redis:7", "images", ("nginx", "redis:7")),
        ("COMPUTE__POLICY__IMAGES", "", "images", None),
        ("COMPUTE__POLICY__IMAGES", "[]", "images", ()),
        ("COMPUTE__POLICY__MAX_CPU", "", "max_cpu", None),
        ("COMPUTE__POLICY__CAP_ADD", "cap_net_admin", "cap_add", ("NET_ADMIN",)),
        ("COMPUTE__POLICY__CAP_DROP", "", "cap_drop", ()),
        ("COMPUTE__POLICY__PRIVILEGED", "true", "privileged", True),
        ("COMPUTE__POLICY__HOST_PORTS", "80", "host_ports", ((80, 80),)),
        ("COMPUTE__POLICY__HOST_PORTS", "80, 8000-8999", "host_ports", ((80, 80), (8000, 8999))),
        ("COMPUTE__POLICY__HOST_PORTS", '["8000 - 8999"]', "host_ports", ((8000, 8999),)),
        ("COMPUTE__POLICY__HOST_PORTS", "", "host_ports", ()),
    ],
)
def test_a_variable_holds_a_list_or_nothing(
    variable: str, text: str, key: str, value: object
) -> None:
    """A list stands in one variable with commas or as JSON; an empty one sets nothing or none."""
    settings = loaded(**{f"LANDLORD_{variable}": text})

    assert getattr(settings.compute.policy, key) == value


def test_a_variable_holds_a_map_as_json() -> None:
    """A map stands in one variable as JSON; an empty variable is an empty map."""
    config = {"log_options": {"max-size": "1m"}, "init": True}
    file = "compute: {docker: {provider_config: {read_only: true}}}"
    variable = "LANDLORD_COMPUTE__DOCKER__PROVIDER_CONFIG"

    assert loaded(file, **{variable: json.dumps(config)}).compute.docker.provider_config == config
    assert loaded(file, **{variable: ""}).compute.docker.provider_config == {}


def test_lists_and_maps_in_the_file_are_plain_yaml() -> None:
    """In the file a list is a list, a single member may stand for it, a number may be a port."""
    settings = loaded("""
        compute:
          docker:
            registries:
              registry.example:5000: {username: u, password_file: /run/secrets/password}
              docker_config: /root/.docker/config.json
          policy:
            host_ports: [80, 8000-8999]
            volumes: /srv/data:ro
            cap_drop: [CAP_NET_RAW, mknod]
    """)

    policy = settings.compute.policy
    assert policy.host_ports == ((80, 80), (8000, 8999))
    assert (policy.volumes, policy.cap_drop) == (("/srv/data:ro",), ("NET_RAW", "MKNOD"))
    assert [*settings.compute.docker.registries] == ["registry.example:5000", "docker_config"]


def test_a_single_port_may_stand_for_the_list() -> None:
    """One number in the file is one port."""
    settings = loaded("compute: {policy: {host_ports: 8080}}")

    assert settings.compute.policy.host_ports == ((8080, 8080),)


# --- Docker's own variables -------------------------------------------------------------------


@pytest.mark.parametrize(
    "host", ["unix:///run/other.sock", "tcp://engine:2375", "tcp://[::1]:2375"]
)
def test_docker_host_wins_over_both(host: str) -> None:
    """DOCKER_HOST counts, whatever file and environment say (checklist 16)."""
    settings = loaded(
        "compute: {docker: {host: 'tcp://file:2375'}}",
        LANDLORD_COMPUTE__DOCKER__HOST="tcp://variable:2375",
        DOCKER_HOST=host,
    )

    assert settings.compute.docker.url == host


def test_an_empty_docker_host_says_nothing() -> None:
    """An empty variable of Docker's is the same as none."""
    settings = loaded(
        "compute: {docker: {host: 'tcp://file:2375'}}",
        DOCKER_HOST="",
        DOCKER_TLS_VERIFY="",
        DOCKER_CERT_PATH="",
    )

    assert settings.compute.docker.url == "tcp://file:2375"
    assert not settings.compute.docker.tls.is_given


def test_dockers_tls_variables_win_over_both() -> None:
    """DOCKER_TLS_VERIFY and DOCKER_CERT_PATH replace files and verification."""
    folder = certificates()
    settings = loaded(
        "compute: {docker: {tls: {ca: /file/ca.pem, verify: false}}}",
        DOCKER_HOST="tcp://engine:2376",
        DOCKER_TLS_VERIFY="1",
        DOCKER_CERT_PATH=str(folder),
    )

    tls = settings.compute.docker.tls
    assert (tls.ca, tls.cert, tls.key) == tuple(
        folder / name for name in ("ca.pem", "cert.pem", "key.pem")
    )
    assert tls.verify is True


def test_dockers_certificates_alone_leave_the_verification_as_it_is() -> None:
    """DOCKER_CERT_PATH without DOCKER_TLS_VERIFY replaces the files only."""
    settings = loaded(
        "compute: {docker: {tls: {verify: false}}}", DOCKER_CERT_PATH=str(certificates())
    )

    assert settings.compute.docker.tls.is_given
    assert settings.compute.docker.tls.verify is False


def test_the_certificates_usual_place_is_dockers() -> None:
    """Without DOCKER_CERT_PATH they lie in ~/.docker."""
    folder = certificates(".docker")

    settings = loaded(DOCKER_TLS_VERIFY="1")

    assert settings.compute.docker.tls.ca == Path.cwd() / folder / "ca.pem"


def test_an_engine_that_asks_for_no_certificate_needs_none() -> None:
    """A folder with nothing but the CA is enough, and what the file names does not count."""
    folder = certificates()
    for name in ("cert", "key"):
        (folder / f"{name}.pem").unlink()
    other = certificates("other")

    settings = loaded(
        f"compute: {{docker: {{tls: {{cert: {other}/cert.pem, key: {other}/key.pem}}}}}}",
        DOCKER_HOST="tcp://engine:2376",
        DOCKER_TLS_VERIFY="1",
        DOCKER_CERT_PATH=str(folder),
    )

    assert settings.compute.docker.tls.ca == folder / "ca.pem"
    assert (settings.compute.docker.tls.cert, settings.compute.docker.tls.key) == (None, None)


@pytest.mark.parametrize("name", ["cert", "key"])
def test_half_a_pair_in_dockers_folder_is_refused(name: str) -> None:
    """The fault names the file that is missing."""
    folder = certificates()
    (folder / f"{name}.pem").unlink()

    assert faults(DOCKER_CERT_PATH=str(folder)) == [
        f"compute.docker.tls.{name} (DOCKER_CERT_PATH): is no file, got '{folder}/{name}.pem'"
    ]


def test_a_fault_names_the_variable_of_dockers() -> None:
    """Who reads the fault sees which variable to change."""
    assert faults(DOCKER_HOST="ftp://engine", DOCKER_CERT_PATH="/nowhere")[:2] == [
        "compute.docker.host (DOCKER_HOST): has to be unix:// or tcp://, got 'ftp://engine'",
        "compute.docker.tls.ca (DOCKER_CERT_PATH): is no file, got '/nowhere/ca.pem'",
    ]
    assert faults(DOCKER_TLS_VERIFY="1")[0].startswith(
        "compute.docker.tls.ca (DOCKER_TLS_VERIFY): is no file"
    )


# --- the engine's address ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("host", "rule"),
    [
        pytest.param("npipe:////./pipe/docker", "has to be unix:// or tcp://", id="Windows"),
        pytest.param(
            "ssh://root@engine",
            "has to be unix:// or tcp://; for ssh:// forward the socket (ssh -nNT -L",
            id="ssh",
        ),
        pytest.param("http://engine:2375", "has to be unix:// or tcp://", id="http"),
        pytest.param("/var/run/docker.sock", "has to be unix:// or tcp://", id="a bare path"),
        pytest.param("engine:2375", "has to be unix:// or tcp://", id="a bare host"),
        pytest.param("unix://", "needs an absolute path", id="no path"),
        pytest.param("unix://run/docker.sock", "needs an absolute path", id="relative path"),
        pytest.param("tcp://engine", "needs a host and a port", id="no port"),
        pytest.param("tcp://:2375", "needs a host and a port", id="no host"),
        pytest.param("tcp://engine:2375/v1.41", "has to be tcp://host:port", id="a path"),
        pytest.param("tcp://engine:2375?tls", "has to be tcp://host:port", id="a query"),
        pytest.param("tcp://me@engine:2375", "has to be tcp://host:port", id="a user"),
        pytest.param("tcp://engine:abc", "is no URL", id="port of letters"),
        pytest.param("tcp://engine:99999", "is no URL", id="port too high"),
        pytest.param("tcp://[::1", "is no URL", id="half an address"),
    ],
)
def test_an_address_that_cannot_be_the_engines_is_refused(host: str, rule: str) -> None:
    """Only the socket and TCP with a port are taken; the fault names key, rule and value."""
    (fault,) = faults(f"compute: {{docker: {{host: '{host}'}}}}")

    assert fault.startswith(f"compute.docker.host: {rule}")
    assert fault.endswith(f", got {host!r}")


@pytest.mark.parametrize("host", ["tcp://me:s3cr3t-words@engine:2375", "ftp://me:s3cr3t-words@e"])
def test_a_password_in_the_engines_address_is_not_repeated(host: str) -> None:
    """It is refused, and the fault does not show it."""
    (fault,) = faults(DOCKER_HOST=host)

    assert SECRET not in fault
    assert "//…@e" in fault


def test_the_tls_port_without_tls_is_refused() -> None:
    """Port 2376 is never tried in clear text; the fault says what to set.

    (checklist 17; weakness 48)
    """
    (fault,) = faults(DOCKER_HOST="tcp://engine:2376")

    assert fault.startswith("compute.docker.host (DOCKER_HOST): port 2376 speaks TLS; set")
    assert "compute.docker.tls.{ca,cert,key}" in fault
    assert "DOCKER_CERT_PATH" in fault


@pytest.mark.parametrize(
    ("host", "tls", "is_tls"),
    [
        pytest.param("tcp://engine:2375", "", False, id="plain"),
        pytest.param("tcp://engine:2375", "ca: certs/ca.pem", True, id="CA, whatever the port"),
        pytest.param(
            "tcp://engine:2376", "cert: certs/cert.pem, key: certs/key.pem", True, id="certificate"
        ),
        pytest.param("tcp://engine:2376", "verify: false", True, id="unverified, no files"),
        pytest.param("tcp://engine:2376", "verify: true", True, id="the system's authorities"),
        pytest.param("tcp://engine:2376", "strict: true", True, id="the same, strictly"),
        pytest.param("unix:///run/docker.sock", "ca: certs/ca.pem", False, id="socket"),
    ],
)
def test_any_word_of_tls_means_tls(host: str, tls: str, is_tls: bool) -> None:
    """Each key of `tls` asks for it, on any port; a socket of this host never needs it."""
    certificates()

    settings = loaded(f"compute: {{docker: {{host: '{host}', tls: {{{tls}}}}}}}")

    assert settings.compute.docker.is_tls is is_tls


@pytest.mark.parametrize("name", ["cert", "key"])
def test_a_certificate_comes_with_its_key(name: str) -> None:
    """One of both alone is refused."""
    path = certificates() / f"{name}.pem"

    assert faults(f"broker: {{tls: {{{name}: '{path}'}}}}") == [
        "broker.tls: cert and key belong together"
    ]


# --- faults -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        pytest.param(
            "http: {prot: 80}", "http.prot: unknown setting; did you mean http.port?", id="typo"
        ),
        pytest.param("zzzzzzzz: 1", "zzzzzzzz: unknown setting", id="like nothing known"),
        pytest.param(
            "compute: {policy: {image: nginx}}",
            "compute.policy.image: unknown setting; did you mean compute.policy.images?",
            id="typo further down",
        ),
        pytest.param(
            "compute: {default_provider: ecs}",
            "compute.default_provider: input should be 'docker', got 'ecs'",
            id="provider",
        ),
        pytest.param(
            "http: {port: 65536}",
            "http.port: input should be less than or equal to 65535, got 65536",
            id="too large",
        ),
        pytest.param("http:", "http: has to be a map of settings", id="empty group"),
        pytest.param("http: 8080", "http: has to be a map of settings", id="group as a number"),
        pytest.param(
            "compute: {policy: {volumes: 5}}",
            "compute.policy.volumes: has to be a list, got 5",
            id="number for a list",
        ),
        pytest.param(
            "compute: {docker: {secrets_dir: /srv/ll/secrets}, "
            "policy: {volumes: ['/srv/{tenant_id}']}}",
            "compute.policy.volumes: /srv/{tenant_id}: /srv/ll/secrets lies there, or above, "
            "which no tenant may come at",
            id="volumes where the secrets are",
        ),
        pytest.param(
            "compute: {policy: {images: '{}'}}",
            "compute.policy.images: has to be a list, got {}",
            id="map for a list",
        ),
        pytest.param(
            "compute: {policy: {images: '[nginx'}}",
            "compute.policy.images: is no JSON, got '[nginx'",
            id="half a list",
        ),
        pytest.param(
            "compute: {docker: {provider_config: [1]}}",
            "compute.docker.provider_config: has to be a map",
            id="list for a map",
        ),
        pytest.param(
            "compute: {docker: {label_prefix: 'acme.'}}",
            "compute.docker.label_prefix: 1 to 64 of A-Z a-z 0-9 _ . -, the first and the last "
            "a letter or a digit, got 'acme.'",
            id="prefix with a dot behind",
        ),
        pytest.param(
            "reconcile: {retry_min_seconds: 10, retry_max_seconds: 5}",
            "reconcile.retry_max_seconds: has to be at least retry_min_seconds",
            id="delays the wrong way round",
        ),
        pytest.param(
            "ledger: {url: 'postgresql://db/landlord'}",
            "ledger.url: PostgreSQL is not supported yet; use sqlite:///path",
            id="PostgreSQL",
        ),
        pytest.param(
            "ledger: {url: 'sqlite:///'}",
            "ledger.url: has to be sqlite:///path (four slashes for an absolute path)",
            id="no path",
        ),
        pytest.param(
            "broker: {url: 'http://localhost'}",
            "broker.url: has to be amqp://user:password@host:port/ (or amqps)",
            id="scheme",
        ),
        pytest.param(
            "broker: {url: 'amqp://user@localhost'}",
            "broker.url: needs user and password, or neither",
            id="user without password",
        ),
        pytest.param(
            "broker: {url: 'amqp://localhost:port/'}", "broker.url: is no URL", id="broker's port"
        ),
        pytest.param(
            "compute: {docker: {registries: {quay.io: /a/path}}}",
            "compute.docker.registries.quay.io: a registry has username and password_file, "
            "docker_config has a path",
            id="path for a registry",
        ),
        pytest.param(
            "compute: {docker: {registries: {quay.io: {username: u}}}}",
            "compute.docker.registries.quay.io.password_file: is required",
            id="login without password file",
        ),
        pytest.param("1: 2", "1: keys should be strings", id="key that is no text"),
    ],
)
def test_what_does_not_fit_is_told_by_its_key(text: str, fault: str) -> None:
    """A fault names the key, the rule and, where it is no secret, the value."""
    assert faults(text) == [fault]


@pytest.mark.parametrize("ports", ["0", "70000", "90-80", "http", "80-", "[[80, 90]]", "[true]"])
def test_what_is_no_range_of_ports_is_refused(ports: str) -> None:
    """Only ports from 1 to 65535 and rising ranges of them are taken."""
    (fault,) = faults(f"compute: {{policy: {{host_ports: {ports}}}}}")

    assert fault.startswith("compute.policy.host_ports: has to be ports or ranges of them")


def test_ports_have_to_be_a_list() -> None:
    """A map of ports is none."""
    assert faults("compute: {policy: {host_ports: {a: b}}}") == [
        "compute.policy.host_ports: has to be a list, got {'a': 'b'}"
    ]


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (
            "compute: {docker: {defaults: {cpu: 2000}}, policy: {max_cpu: 1999}}",
            "compute.docker.defaults.cpu: 2000 is above compute.policy.max_cpu, 1999",
        ),
        (
            "compute: {docker: {defaults: {memory: 64}}, policy: {max_memory: 32}}",
            "compute.docker.defaults.memory: 64 is above compute.policy.max_memory, 32",
        ),
        (
            "compute: {policy: {pids_limit: 4097}}",
            "compute.policy.pids_limit: 4097 is above compute.policy.max_pids, 4096",
        ),
    ],
)
def test_a_default_above_the_ceiling_is_a_fault(text: str, fault: str) -> None:
    """Every tenant that relies on it would be refused; both keys are named."""
    assert faults(text) == [fault]


def test_every_default_above_its_ceiling_is_told_with_its_variable() -> None:
    """They come in one go, also when the environment brings them."""
    told = faults(
        "compute: {policy: {max_cpu: 10, pids_limit: 5000}}",
        LANDLORD_COMPUTE__DOCKER__DEFAULTS__CPU="11",
    )

    assert told == [
        (
            "compute.docker.defaults.cpu (LANDLORD_COMPUTE__DOCKER__DEFAULTS__CPU): "
            "11 is above compute.policy.max_cpu, 10"
        ),
        "compute.policy.pids_limit: 5000 is above compute.policy.max_pids, 4096",
    ]


def test_a_default_at_the_ceiling_is_none() -> None:
    """Nor is one that nobody set: it stays below by itself."""
    loaded("compute: {docker: {defaults: {cpu: 10}}, policy: {max_cpu: 10, max_memory: 6}}")
    loaded("compute: {policy: {max_cpu: 10, max_pids: 1}}")


@pytest.mark.parametrize(
    ("variable", "fault"),
    [
        ("LANDLORD_BROKER__URI", "unknown setting; did you mean broker.url?"),
        ("LANDLORD_BROKER_URL", "unknown setting; did you mean broker.url?"),
        ("LANDLORD_BROKER", "unknown setting"),
        ("LANDLORD_ZZZZZZZZ", "unknown setting"),
    ],
)
def test_an_unknown_variable_is_a_fault(variable: str, fault: str) -> None:
    """A variable with our prefix that is no setting is told, without its value."""
    (told,) = faults(**{variable: SECRET})

    assert told.startswith(f"{variable}: {fault}")
    assert SECRET not in told


def test_all_faults_are_told_at_once() -> None:
    """Variables, keys and values that do not fit come in one go, each with its origin."""
    told = faults(
        "http: {port: x, prot: 1}\ncompute: {docker: {host: 'ftp://x', tls: {ca: /no, cert: /no}}}",
        LANDLORD_LIMITS__PULLS="0",
        LANDLORD_LOG__LEVEL="loud",
        LANDLORD_NOTHING="1",
    )

    assert [line.partition(":")[0] for line in told] == [
        "LANDLORD_NOTHING",
        "compute.docker.host",
        "compute.docker.tls.ca",
        "compute.docker.tls.cert",
        "http.port",
        "http.prot",
        "limits.pulls (LANDLORD_LIMITS__PULLS)",
        "log.level (LANDLORD_LOG__LEVEL)",
    ]


def test_an_unknown_variable_alone_stops_the_start() -> None:
    """Even when everything else fits, an unknown setting is no warning."""
    assert faults(LANDLORD_HTTP__PRT="1") == [
        "LANDLORD_HTTP__PRT: unknown setting; did you mean http.port?"
    ]


def test_a_variable_does_not_hide_what_is_wrong_in_the_file() -> None:
    """A group that is no map is told, also when a variable sets something in it."""
    assert faults("broker: amqp", LANDLORD_BROKER__PREFETCH="5") == [
        "broker: has to be a map of settings"
    ]


# --- files that cannot be read ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "rule"),
    [
        pytest.param(b"http: [", "not YAML: ", id="no YAML"),
        pytest.param(b"a: 1\nhttp: {port: 1, port: 2}", "not YAML: duplicate key 'port' (line 2)"),
        pytest.param(b"\xff\xfe\xff", "not YAML: not readable", id="no text"),
        pytest.param(b"[" * 20_000, "not YAML: too deeply nested", id="deep"),
        pytest.param(b"a: 2026-99-99", "not YAML: a value is written as a date", id="no date"),
        pytest.param(b"- http", "has to be a map of settings", id="a list"),
        pytest.param(b"http", "has to be a map of settings", id="a word"),
    ],
)
def test_a_file_that_makes_no_sense_is_refused(content: bytes, rule: str) -> None:
    """The fault names the file, what is wrong, and the line where there is one."""
    path = Path("broken.yaml")
    path.write_bytes(content)

    with pytest.raises(SettingsError) as refused:
        load(path, {})

    assert str(refused.value).startswith(f"broken.yaml: {rule}")


@pytest.mark.parametrize("path", ["nowhere.yaml", "."])
def test_a_file_that_was_named_has_to_be_there(path: str) -> None:
    """Only ./config.yaml may be missing."""
    with pytest.raises(SettingsError, match="cannot be read"):
        load(None, {CONFIG_VARIABLE: path})


# --- secrets ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(f"broker: {{url: 'http://u:{SECRET}@h'}}", id="broker, scheme"),
        pytest.param(f"broker: {{url: 'amqp://u:{SECRET}@h:99999/'}}", id="broker, port"),
        pytest.param(f"broker: {{url: 'amqp://{SECRET}@h'}}", id="broker, no password"),
        pytest.param(f"broker: {{url: 'amqp://u:12/{SECRET}@h'}}", id="broker, a slash"),
        pytest.param(f"broker: {{url: 'amqp://u:12?{SECRET}@h'}}", id="broker, a question mark"),
        pytest.param(f"broker: {{url: 'amqp://u:12#{SECRET}@h'}}", id="broker, a hash"),
        pytest.param(f"broker: {{url: ['{SECRET}']}}", id="broker, list"),
        pytest.param(f"broker: '{SECRET}'", id="broker as a whole"),
        pytest.param(f"broker: {{uri: '{SECRET}'}}", id="broker, typo"),
        pytest.param(f"ledger: {{url: 'postgresql://u:{SECRET}@h/db'}}", id="ledger"),
        pytest.param(f"http: {{token: ['{SECRET}']}}", id="token, list"),
        pytest.param(f"http: {{token: '{SECRET}', port: x}}", id="token, fault beside it"),
        pytest.param(f"http: {{token: *{SECRET} }}", id="token, taken for an alias"),
        pytest.param(f"http: {{token: !{SECRET} x}}", id="token, taken for a tag"),
        pytest.param(f"http: {{token: !!{SECRET} x}}", id="token, taken for a standard tag"),
        pytest.param(f"http: {{token: !{SECRET}!x y}}", id="token, taken for a tag's handle"),
        pytest.param(f"http: {{token: !!int {SECRET}}}", id="token, said to be a number"),
        pytest.param(f"http: {{token: !!bool {SECRET}}}", id="token, said to be a boolean"),
        pytest.param(f"http: {{token: !!timestamp {SECRET}}}", id="token, said to be a date"),
        pytest.param(f"A={SECRET}: 1\nA={SECRET}: 2", id="variable, twice"),
        pytest.param(f"a: &{SECRET} 1\nb: &{SECRET} 2\n", id="token, taken for an anchor"),
        pytest.param(f"http: '{SECRET}'", id="token for the group"),
        pytest.param(
            f"compute: {{docker: {{provider_config: '{{\"a\": {SECRET}'}}}}",
            id="provider config, half of it",
        ),
        pytest.param(
            f"compute: {{docker: {{provider_config: '[\"{SECRET}\"]'}}}}",
            id="provider config, list",
        ),
        pytest.param(
            f"compute: {{docker: {{registries: {{q: {SECRET}}}}}}}", id="registry, password alone"
        ),
        pytest.param(
            f"compute: {{docker: {{registries: {{q: {{username: u, password: {SECRET}}}}}}}}}",
            id="registry, password inline",
        ),
        pytest.param(
            f"compute: {{docker: {{registries: {{q: {{username: [{SECRET}]}}}}}}}}",
            id="registry, list",
        ),
    ],
)
def test_no_fault_gives_a_secret_away(text: str) -> None:
    """Whatever is wrong with a secret or beside it, its words are not told."""
    with pytest.raises(SettingsError) as refused:
        loaded(text)

    assert refused.value.faults
    assert SECRET not in str(refused.value)
    assert refused.value.__suppress_context__ or refused.value.__context__ is None


def test_settings_that_are_shown_hold_no_secret() -> None:
    """Neither the whole nor a group shows a secret in its repr."""
    settings = loaded(
        f"broker: {{url: 'amqp://u:{SECRET}@h'}}\n"
        f"ledger: {{url: 'sqlite:///{SECRET}'}}\n"
        f"http: {{token: {SECRET}}}\n"
        "compute: {docker: {provider_config: {log_options: {splunk-token: " + SECRET + "}}}}"
    )

    assert settings.http.token == SECRET
    assert SECRET not in f"{settings!r} {settings} {settings.broker!r} {settings.http!r}"


# --- what is dangerous ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("environ", "words"),
    [
        pytest.param({}, [], id="defaults"),
        pytest.param({"DOCKER_HOST": "tcp://localhost:2375"}, [], id="engine on this host"),
        pytest.param({"DOCKER_HOST": "tcp://127.0.0.9:2375"}, [], id="engine by number"),
        pytest.param(
            {"DOCKER_HOST": "tcp://engine:2375"},
            ["compute.docker.host: tcp://engine:2375 is clear text; who reaches it owns the host"],
            id="engine elsewhere, clear text",
        ),
        pytest.param(
            {"LANDLORD_HTTP__HOST": "0.0.0.0"},
            [f"http.token: not set, so that on 0.0.0.0 only {OPEN} are answered"],
            id="open API",
        ),
        pytest.param(
            {"LANDLORD_HTTP__HOST": "0.0.0.0", "LANDLORD_HTTP__TOKEN": "t"}, [], id="guarded API"
        ),
        pytest.param({"LANDLORD_HTTP__HOST": "::1"}, [], id="API on IPv6, this host"),
    ],
)
def test_what_is_allowed_but_dangerous_is_warned_of(
    environ: dict[str, str], words: list[str]
) -> None:
    """Clear text to an engine elsewhere, and an open API, each get one sentence."""
    assert loaded(**environ).warnings() == words


def test_an_engine_elsewhere_with_tls_is_no_danger() -> None:
    """With certificates there is nothing to warn of."""
    settings = loaded(DOCKER_HOST="tcp://engine:2376", DOCKER_CERT_PATH=str(certificates()))

    assert settings.warnings() == []


@pytest.mark.parametrize(
    ("host", "count"),
    [
        pytest.param("tcp://engine:2376", 1, id="elsewhere"),
        pytest.param("tcp://localhost:2376", 0, id="this host"),
        pytest.param("unix:///run/docker.sock", 0, id="socket"),
    ],
)
def test_an_engine_that_is_not_verified_is_warned_of(host: str, count: int) -> None:
    """It may be anybody, who then owns every secret that is sent there."""
    settings = loaded("compute: {docker: {tls: {verify: false}}}", DOCKER_HOST=host)

    words = f"compute.docker.tls.verify: false; whoever answers at {host} is taken for the engine"
    assert settings.warnings() == [words] * count


@pytest.mark.parametrize(
    ("modes", "isolate", "told"),
    [
        ("tenants, none", "true", None),
        ("bridge, other", "true", "bridge, other"),
        ("bridge", "false", None),
    ],
)
def test_a_network_beside_the_configured_one_is_warned_of(
    modes: str, isolate: str, told: str | None
) -> None:
    """Whether tenants are kept from each other there is the operator's care."""
    docker = f"{{network_name: tenants, isolate_tenants: {isolate}}}"

    warnings = loaded(
        f"compute: {{docker: {docker}, policy: {{network_modes: [{modes}]}}}}"
    ).warnings()

    words = "isolate_tenants is not seen to there, tenants may reach each other"
    assert warnings == ([] if told is None else [f"compute.policy.network_modes: {told}; {words}"])


# --- the table --------------------------------------------------------------------------------


def test_every_setting_has_a_meaning_and_a_default() -> None:
    """The settings table has no empty cell and no key twice."""
    table = describe()

    assert [doc.key for doc in table if not doc.meaning or not doc.default] == []
    assert len({doc.key for doc in table}) == len(table)


@pytest.mark.parametrize(
    ("key", "default"),
    [
        ("compute.docker.host", '""'),
        ("compute.docker.tls.ca", "none"),
        ("compute.docker.provider_config", "{}"),
        ("compute.docker.isolate_tenants", "true"),
        ("compute.docker.defaults.cpu", "1000"),
        ("compute.docker.defaults.memory", "512"),
        ("compute.policy.volumes", "none"),
        ("compute.policy.host_ports", "1-65535"),
        ("compute.policy.log_drivers", "json-file, local, none"),
        ("compute.policy.cap_drop", "NET_RAW"),
        ("broker.tenant_exchange", "landlord.tenants"),
        ("broker.queue", "landlord.consumer"),
        ("broker.status_exchange", "landlord.status"),
        ("broker.dead_letter", "landlord.dead-letter"),
        ("broker.prefetch", "500"),
        ("http.host", "127.0.0.1"),
        ("http.port", "8080"),
        ("http.token", "none"),
        ("reconcile.resync_seconds", "60"),
        ("reconcile.retry_max_seconds", "300"),
        ("reconcile.orphans", "adopt"),
        ("instance", "default"),
        ("log.level", "info"),
    ],
)
def test_the_table_shows_defaults_readably(key: str, default: str) -> None:
    """A default is shown as one would write it; the contract's are as the contract says."""
    assert {doc.key: doc.default for doc in describe()}[key] == default


def test_every_setting_can_be_set_by_a_variable() -> None:
    """Each key of the table has a variable; an empty one is at least known."""
    variables = {f"LANDLORD_{doc.key.upper().replace('.', '__')}": "" for doc in describe()}

    assert not [fault for fault in faults(**variables) if "unknown" in fault]


CHOSEN = {"LANDLORD_HTTP__TOKEN": "secret"}


@pytest.mark.parametrize(
    ("text", "environ", "is_astray"),
    [
        pytest.param("http: {port: 1}", CHOSEN, True, id="port found"),
        pytest.param("http: {host: evil.example}", CHOSEN, True, id="host found"),
        pytest.param(
            "http: {port: 1}", CHOSEN | {"LANDLORD_HTTP__HOST": "own"}, True, id="only host chosen"
        ),
        pytest.param("http: {token: its, port: 1}", {}, False, id="its own token"),
        pytest.param("http: {token: its, port: 1}", CHOSEN, True, id="another token"),
        pytest.param("log: {level: debug}", CHOSEN, False, id="no address found"),
        pytest.param(
            "http: {port: 1}",
            CHOSEN | {"LANDLORD_HTTP__PORT": "2"},
            False,
            id="address chosen over it",
        ),
        pytest.param(
            "http: {port: 1}", CHOSEN | {"LANDLORD_CONFIG": "config.yaml"}, False, id="file chosen"
        ),
    ],
)
def test_a_chosen_token_does_not_go_to_a_found_address(
    text: str, environ: dict[str, str], is_astray: bool
) -> None:
    """Whoever may put a file into the folder must not be sent what somebody else was given."""
    assert found(text, **environ).http.is_address_astray is is_astray


def test_a_file_that_was_named_is_chosen() -> None:
    """Then its address is as good as its token."""
    assert not loaded("http: {port: 1}", **CHOSEN).http.is_address_astray


@pytest.mark.parametrize(
    ("text", "has_secrets"),
    [
        ("broker: {url: 'amqp://a:b@c/'}", True),
        ("http: {token: t}", True),
        ("http: {port: 1}\nlog: {level: info}", False),
        ("", False),
    ],
)
def test_the_file_in_use_is_known(text: str, has_secrets: bool) -> None:
    """Named or found, and whether secrets stand in it."""
    found(text)

    for in_use in (file_in_use(Path("config.yaml"), {}), file_in_use(environ={})):
        assert in_use == FileInUse(Path("config.yaml"), has_secrets)


def test_where_no_file_is_none_is_in_use() -> None:
    """All is of the environment and the defaults."""
    assert file_in_use(environ={}) is None
