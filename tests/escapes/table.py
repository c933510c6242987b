"""Ways out of a tenant, tried through the front door: documents, and what has to become of each.

To try another one, add a line: to `DENIED` what the policy has to refuse, to `INVALID` what no
document may say, to `HOSTILE_YAML` what YAML would do, and to `PASSES` what is let in and has to be
harmless: there stands what `docker inspect` of the container has to show. `test_documents.py` tries
all of them without an engine, `test_on_the_engine.py` makes a container of each that passes.
"""

from dataclasses import dataclass, replace
from typing import Final

from consumer.document import SpecDefaults
from consumer.policy import Own, Policy
from tests.builders import TENANT_ID, make_document
from tests.conftest import WEB

PREFIX: Final = "ll-escapes"
FORCE: Final = {"cap_drop": ["ALL"], "user": "1000:1000", "read_only": True}
"""What the operator of `PASSES` holds over every document."""
DEFAULTS: Final = SpecDefaults(label_prefix=PREFIX)
POLICY: Final = Policy(
    images=("landlord-test/*", "nginx", "app:stable-*", "registry.example/*"),
    volumes=("/tmp/ll-escapes/{tenant_id}", "/tmp/ll-escapes-shared:ro", "data"),
    labels=("traefik.enable",),
)
IMAGE = {"image": WEB}
LABEL_RULE = f"keys under {PREFIX}. are reserved"


def with_container(**fields: object) -> bytes:
    return make_document(containers=[IMAGE | fields])


def with_image(image: str) -> bytes:
    return make_document(image=image)


def with_config(**fields: object) -> bytes:
    return make_document(image=WEB, provider_config=fields)


def with_env(*pairs: str) -> bytes:
    """Return a document with this in the braces of its environment."""
    inner = ", ".join(pairs)
    container = f'{{"image": "{WEB}", "env": {{{inner}}}}}'
    return make_document(containers=["env"]).replace(b'"env"', container.encode())


def alias_bomb() -> bytes:
    """Return YAML that would grow to ten to the ninth texts."""
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 9)]
    return "\n".join((*lines, "tenant_id: acme-corp")).encode()


DIGEST: Final = "sha256:" + "a" * 64
SHARED: Final = "/tmp/ll-escapes-shared"
OWN: Final = f"/tmp/ll-escapes/{TENANT_ID}"
NEAR: Final = "a registry at an address of the host or of a private network has to be named"
SETTABLE: Final = "a tenant may set only max-size, max-file, compress"


@dataclass(frozen=True, slots=True)
class Refused:
    """A body, the field that is told, and words of the rule; what is told of it is one sentence."""

    body: bytes
    field: str
    words: str


DENIED: Final = {
    "privileged": Refused(
        with_config(privileged=True), "provider_config.privileged", "compute.policy.privileged"
    ),
    "the host's network": Refused(
        with_config(network_mode="host"), "provider_config.network_mode", "got 'host'"
    ),
    "a container's network": Refused(
        with_config(network_mode="container:landlord-tenant-other"),
        "provider_config.network_mode",
        "got 'container:landlord-tenant-other'",
    ),
    "all capabilities": Refused(
        with_config(cap_add=["ALL"]), "provider_config.cap_add", "got 'ALL'"
    ),
    "no seccomp": Refused(
        with_config(security_opt=["seccomp=unconfined"]),
        "provider_config.security_opt",
        "got 'seccomp=unconfined'",
    ),
    "new privileges": Refused(
        with_config(security_opt=["no-new-privileges=false"]),
        "provider_config.security_opt",
        "got 'no-new-privileges=false'",
    ),
    "another runtime": Refused(
        with_config(runtime="runc-debug"), "provider_config.runtime", "got 'runc-debug'"
    ),
    "a log that leaves the host": Refused(
        with_config(log_driver="syslog"), "provider_config.log_driver", "got 'syslog'"
    ),
    **{
        f"mounting {source}": Refused(
            with_config(volumes=[f"{source}:/mnt"]),
            "provider_config.volumes[0]",
            f"compute.policy.volumes allows only {', '.join(POLICY.volumes)}, got {source!r}",
        )
        for source in (
            "/var/run/docker.sock",
            "/run/docker.sock",
            "//var//run///docker.sock",
            "/var/run/./docker.sock",
            f"{OWN}/../../../var/run/docker.sock",
            f"{OWN}/..",
            f"{OWN}/../other",
            f"{OWN}-2",
            f"{OWN}/docker.sock",
            f"{OWN}/below",
            "/tmp/ll-escapes",
            "/tmp/ll-escapes/other",
            "/tmp/ll-escapes/{tenant_id}",
            f"{SHARED}/../ll-escapes/other",
            "/",
            "//",
            "/.",
            "/proc/1/root",
            "/proc/self/root/srv/tenants",
            "/etc",
            "/var/lib/docker",
            "/TMP/ll-escapes",
            "other",
        )
    },
    **{
        f"mounting {volume}": Refused(
            with_config(volumes=[volume]), "provider_config.volumes[0]", words
        )
        for volume, words in {
            f"{SHARED}:/mnt": "has it with :ro alone",
            f"{SHARED}/below:/mnt:rw": "has it with :ro alone",
            f"{SHARED}:/mnt:ro,Z": "is not relabelled",
            f"{OWN}:/mnt:rshared": "would let mounts out to the host",
        }.items()
    },
    **{
        f"log option {name}={value}": Refused(
            with_config(log_driver=driver, log_options={name: value}),
            "provider_config.log_options",
            words,
        )
        for driver, name, value, words in (
            # Run as a template inside the engine: this one takes 9 GB there.
            ("json-file", "tag", "{{pad .ID 9000000000 1}}", SETTABLE),
            ("json-file", "tag", "{{.Name}}", SETTABLE),
            ("json-file", "labels", "a", SETTABLE),
            ("json-file", "labels-regex", ".*", SETTABLE),
            ("json-file", "env", "A", SETTABLE),
            ("json-file", "env-regex", ".*", SETTABLE),
            ("json-file", "mode", "non-blocking", SETTABLE),
            ("json-file", "max-file", "999999999", "has to be 1 to 20"),
            ("json-file", "max-file", "21", "has to be 1 to 20"),
            ("json-file", "max-size", "1k", "has to be 64k to 100m"),
            ("json-file", "max-size", "1p", "has to be 64k to 100m"),
            ("local", "max-file", "21", "has to be 1 to 20"),
            ("local", "max-size", "101m", "has to be 64k to 100m"),
        )
    },
    **{
        f"image {image}": Refused(with_image(image), "containers[0].image", words)
        for image, words in {
            "nginx:5000/evil/miner:1": "compute.policy.images allows only",
            "nginx.evil/nginx": "compute.policy.images allows only",
            f"app:stable-1@{DIGEST}": "compute.policy.images allows only",
            "registry.example:5000/app": "compute.policy.images allows only",
            "127.0.0.1:5000/landlord-test/web": "compute.policy.images allows only",
        }.items()
    },
    **{
        f"label {key}": Refused(
            make_document(image=WEB, labels={key: "x"}), "labels", "a key that tools act upon"
        )
        for key in (
            "landlord.tenant_id",
            "other.instance",
            "other.owner",
            "Landlord.tenant_id",
            "com.docker.compose.project",
            "traefik.http.routers.x.rule",
            "Traefik.Http.routers.x.rule",
            "io.podman.x",
            "io.containers.autoupdate",
            "ofelia.job-exec.x.command",
        )
    },
    "labels that every list carries": Refused(
        make_document(image=WEB, labels={"a": "x" * 20_000}), "labels", "at most 16384"
    ),
    "a check each millisecond": Refused(
        with_container(healthcheck={"test": "true", "interval_seconds": 0.001}),
        "containers[0].healthcheck.interval_seconds",
        "has to be at least 1",
    ),
    "files without end": Refused(
        with_config(ulimits={"nofile": {"soft": 1, "hard": -1}}),
        "provider_config.ulimits",
        "nofile is at most 1048576",
    ),
    "a priority in real time": Refused(
        with_config(ulimits={"rtprio": {"soft": 99, "hard": 99}}),
        "provider_config.ulimits",
        "needs SYS_NICE",
    ),
}

NEAR_REGISTRIES: Final = (
    "localhost:5000",
    "127.0.0.1:5000",
    "127.1:5000",
    "0x7f000001:80",
    "[::1]:5000",
    "[::ffff:7f00:1]:80",
    "169.254.169.254",
    "10.0.0.5:5000",
    "host.docker.internal:5000",
)
"""Refused by a policy that lets every image pass and names none of them."""


INVALID: Final = {
    **{
        f"label {key!r}": Refused(make_document(labels={key: "x"}), "labels", LABEL_RULE)
        for key in (f"{PREFIX}.tenant_id", f"{PREFIX}.instance", f"{PREFIX}.", f"{PREFIX}.anything")
    },
    "label below provider_config": Refused(
        with_config(labels={f"{PREFIX}.tenant_id": "other"}),
        "provider_config.labels",
        LABEL_RULE,
    ),
    "label with a control character": Refused(
        make_document(labels={f"\n{PREFIX}.tenant_id": "x"}),
        "labels",
        "without control characters",
    ),
    **{
        f"tenant {tenant!r}": Refused(make_document(tenant), "tenant_id", "has to be 1 to 128")
        for tenant in (
            "../etc",
            "a/b",
            "a\\b",
            "/",
            "..",
            ".a",
            "-v",
            "a\n",
            "a\x1b[31m",
            "a b",
            "a%2fb",
            "ä",
            "\u0430cme",
            "a" * 129,
            "",
        )
    },
    "tenant with NUL": Refused(
        make_document("a\x00b"), "tenant_id", "must not contain a NUL character"
    ),
    "tenant as a number": Refused(
        make_document().replace(b'"acme-corp"', b"7"), "tenant_id", "string"
    ),
    "10,000 env names": Refused(
        with_container(env={f"A{number}": "" for number in range(10_000)}),
        "containers[0].env",
        "has 10000 entries, at most 1000 are taken",
    ),
    "10,000 env names without a value": Refused(
        with_container(env={f"A{number}": None for number in range(10_000)}),
        "containers[0].env",
        "has 10000 entries, at most 1000 are taken",
    ),
    "2,000 ports": Refused(
        with_container(ports=[{"container_port": n} for n in range(1, 2001)]),
        "containers[0].ports",
        "has 2000 entries, at most 256 are taken",
    ),
    "5 MB": Refused(
        with_container(env={"A": "x" * 5_000_000}),
        "",
        "bytes, at most 262144 are taken",
    ),
    "a variable that no process can be given": Refused(
        with_container(env={"LONG": "x" * 131_067}),
        "containers[0].env",
        "LONG=… has to be at most 131071 bytes",
    ),
    "an argument that no process can be given": Refused(
        with_container(args=["x" * 131_072]),
        "containers[0].args[0]",
        "has to be at most 131071 bytes",
    ),
    "NUL in a value": Refused(with_env(r'"A": "a\u0000b"'), "containers[0].env.A", "NUL character"),
    "NUL in a name": Refused(with_env(r'"A\u0000B": "a"'), "containers[0].env", "NUL"),
    "equals sign in a name": Refused(
        with_env('"A=B": "a"'), "containers[0].env", "must not be empty nor"
    ),
    "null": Refused(with_env('"A": null'), "containers[0].env.A", "string"),
    "a list for a value": Refused(with_env('"A": ["x"]'), "containers[0].env.A", "string"),
    "the same name twice": Refused(with_env('"A": "1", "A": "2"'), "", "'A'"),
    "not a number": Refused(with_env('"A": NaN'), "", "NaN"),
    "no end of numbers": Refused(with_env('"A": -Infinity'), "", "Infinity"),
    "a huge integer for a limit": Refused(
        make_document(resources={"cpu": 10**300}),
        "resources.cpu",
        "less than or equal to 1000000",
    ),
    "a huge float for a limit": Refused(
        make_document(resources={"memory": "m"}).replace(b'"m"', b"1e999"),
        "resources.memory",
        "integer",
    ),
    "an endless integer": Refused(
        make_document(resources={"cpu": "c"}).replace(b'"c"', b"9" * 100_000),
        "",
        "digits",
    ),
    "nested without end": Refused(with_env('"A": ' + "[" * 50_000), "", ""),
    **{
        f"image {image}": Refused(with_image(image), "containers[0].image", "reads as an image id")
        for image in ("deadbeef", "0" * 64, "sha256:deadbeef", "c")
    },
}

HOSTILE_YAML: Final = {
    "bomb": (alias_bomb(), "aliases are refused"),
    "one key twice": (b"tenant_id: a\ntenant_id: b", "'tenant_id'"),
    "a tag": (b"tenant_id: !!python/object:os.system a", "tag"),
    "two documents": (b"tenant_id: a\n---\ntenant_id: b", "document"),
    "nested without end": (b"a: " + b"[" * 2000, "nested too deeply"),
}


@dataclass(frozen=True, slots=True)
class Passes:
    """A body that is let in, and what inspect of its container has to show at the place."""

    body: bytes
    at: str
    shows: object
    forced: bool = False
    """Whether `FORCE` lies over it."""


def environment(*entries: str) -> list[str]:
    """Return what the engine has of these: the image's own variable follows."""
    return [*entries, "PORT=8080"]


TEMPLATE: Final = "{{.ID}} {{pad .Name 9 1}} ${HOME} %n $(id)"
PASSES: Final = {
    "newlines in a value": Passes(
        with_env(r'"A": "a\nB=c\r\n"'), "Config.Env", environment("A=a\nB=c\r\n")
    ),
    "an escape in a value": Passes(
        with_env(r'"A": "\u001b[31m"'), "Config.Env", environment("A=\x1b[31m")
    ),
    "a huge integer in a value": Passes(
        with_env(f'"A": 1{"0" * 60}'), "Config.Env", environment("A=1" + "0" * 60)
    ),
    "a huge number in a value": Passes(
        with_env('"A": 1e999'), "Config.Env", environment("A=1e999")
    ),
    "a name like a setting of ours": Passes(
        with_env('"LANDLORD_BROKER__URL": "amqp://evil"'),
        "Config.Env",
        environment("LANDLORD_BROKER__URL=amqp://evil"),
    ),
    "1,000 env names": Passes(
        with_container(env={f"A{number:03}": "" for number in range(1000)}),
        "Config.Env",
        environment(*[f"A{number:03}=" for number in range(1000)]),
    ),
    "the longest variable": Passes(
        with_container(env={"LONG": "x" * 131_066}),
        "Config.Env",
        environment("LONG=" + "x" * 131_066),
    ),
    # What is content is nowhere a template.
    "a template in a value": Passes(
        with_container(env={"A": TEMPLATE}), "Config.Env", environment(f"A={TEMPLATE}")
    ),
    "a template as an argument": Passes(with_container(args=[TEMPLATE]), "Config.Cmd", [TEMPLATE]),
    "a template in a health check": Passes(
        with_container(healthcheck={"test": ["CMD", TEMPLATE]}),
        "Config.Healthcheck.Test",
        ["CMD", TEMPLATE],
    ),
    "a template in a label": Passes(
        make_document(image=WEB, labels={"a": TEMPLATE}), "Config.Labels/a", TEMPLATE
    ),
    "a template as a folder": Passes(
        with_config(working_dir="/{{.ID}}"), "Config.WorkingDir", "/{{.ID}}"
    ),
    "a label that only looks like ours": Passes(
        make_document(image=WEB, labels={f" {PREFIX}.tenant_id": "other"}),
        f"Config.Labels/{PREFIX}.tenant_id",
        TENANT_ID,
    ),
    "a label of a tool that the operator lists": Passes(
        make_document(image=WEB, labels={"traefik.enable": "false"}),
        "Config.Labels/traefik.enable",
        "false",
    ),
    "a log as large as may be": Passes(
        with_config(log_options={"max-size": "100m", "max-file": 20, "compress": True}),
        "HostConfig.LogConfig",
        {
            "Type": "json-file",
            "Config": {"compress": "true", "max-file": "20", "max-size": "100m"},
        },
    ),
    "a tenant's own folder": Passes(
        with_config(volumes=[f"{OWN}:/data"]), "HostConfig.Binds", [f"{OWN}:/data"]
    ),
    "a shared folder, to be read": Passes(
        with_config(volumes=[f"{SHARED}/models:/m:ro"]),
        "HostConfig.Binds",
        [f"{SHARED}/models:/m:ro"],
    ),
    "a check each second": Passes(
        with_container(healthcheck={"test": "true", "interval_seconds": 1}),
        "Config.Healthcheck.Interval",
        1_000_000_000,
    ),
    "taking back a user": Passes(with_config(user="0"), "Config.User", FORCE["user"], forced=True),
    "taking back what is dropped": Passes(
        with_config(cap_drop=[]), "HostConfig.CapDrop", ["ALL", "NET_RAW"], forced=True
    ),
    "taking back a root that is read-only": Passes(
        with_config(read_only=False), "HostConfig.ReadonlyRootfs", True, forced=True
    ),
    "taking back security options": Passes(
        with_config(security_opt=[]), "HostConfig.SecurityOpt", ["no-new-privileges"]
    ),
    "taking back what everybody loses": Passes(
        with_config(cap_drop=[]), "HostConfig.CapDrop", ["NET_RAW"]
    ),
}


def forcing() -> tuple[SpecDefaults, Policy]:
    """Return what lies under every document, and the policy, where `FORCE` lies over them."""
    return replace(DEFAULTS, force=FORCE), replace(POLICY, own=Own(forced=frozenset(FORCE)))
