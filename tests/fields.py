"""Each field of a tenant document and each key of the policy: where the engine shows it.

Beside it, at least one refusal. `tests/integration/test_fields.py` holds the engine to the first,
`tests/unit/test_fields.py` the consumer to the second, and `tests/project/test_fields.py` sees that
no field and no key is left out.
"""

import re
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Final

from consumer.document import SpecDefaults
from consumer.policy import Policy
from tests.builders import TENANT_ID
from tests.conftest import WEB

MIB: Final = 1024 * 1024
PREFIX: Final = "ll-fields"
VOLUME: Final = f"{PREFIX}-cache"
HOST_PATH: Final = "/tmp/ll-fields"
DEFAULTS: Final = SpecDefaults(label_prefix=PREFIX, cpu=250, memory=64, log_size="1m")

OPEN: Final = Policy(
    images=("landlord-test/web",),
    max_cpu=250,
    max_memory=64,
    host_ports=((18301, 18301),),
    volumes=(HOST_PATH, VOLUME),
    network_modes=("none",),
    privileged=True,
    cap_add=("NET_ADMIN",),
    security_opt=("seccomp=unconfined",),
    runtimes=("runc",),
    log_drivers=("json-file", "local"),
    log_max_size="1m",
    labels=("traefik.enable",),
    pids_limit=55,
    max_pids=77,
    cap_drop=("MKNOD", "NET_RAW"),
)
"""An operator who lets tenants ask for what the documents below ask for, and nothing more."""

FULL: Final[Mapping[str, object]] = {
    "tenant_id": TENANT_ID,
    "generation": 3,
    "provider_type": "docker",
    "labels": {"team": "blue", "traefik.enable": "false"},
    "resources": {"cpu": 250, "memory": 64},
    "containers": [
        {
            "name": "web",
            "image": WEB,
            "command": ["/bin/sh", "-c"],
            "args": ["exec sleep 60"],
            "env": {"LINES": "one\ntwo", "PORT": 8081},
            "ports": [
                {"container_port": 8081, "host_port": 18301, "protocol": "TCP", "name": "http"},
                {"container_port": 53, "protocol": "udp"},
            ],
            "healthcheck": {
                "test": ["CMD", "true"],
                "interval_seconds": 5,
                "timeout_seconds": 2.5,
                "start_period_seconds": 1,
                "retries": 4,
            },
            "secrets": ["db_password"],
        }
    ],
    "provider_config": {
        "restart_policy": "on-failure:3",
        "log_driver": "local",
        "log_options": {"max-size": "1m"},
        "volumes": [f"{HOST_PATH}:/data:ro", f"{VOLUME}:/cache"],
        "tmpfs": {"/scratch": "size=1m"},
        "labels": {"tier": "gold"},
        "user": "0:0",
        "working_dir": "/srv",
        "hostname": "web.acme",
        "read_only": True,
        "init": True,
        "stop_signal": "SIGUSR1",
        "stop_grace_seconds": 3,
        "shm_size_mb": 32,
        "pids_limit": 77,
        "ulimits": {"nofile": {"soft": 100, "hard": 200}},
        "cap_add": ["CAP_NET_ADMIN"],
        "cap_drop": ["chown"],
        "security_opt": ["seccomp=unconfined"],
        "runtime": "runc",
        "extra_hosts": ["db:10.0.0.1"],
        "dns": ["192.0.2.53"],
    },
}
BARE: Final[Mapping[str, object]] = {
    "tenant_id": TENANT_ID,
    "containers": [
        {"image": WEB, "health_check": {"type": "exec", "command": "true"}},
    ],
    "provider_config": {"network_mode": "none", "privileged": True},
}
DISABLED: Final[Mapping[str, object]] = {
    "tenant_id": TENANT_ID,
    "containers": [{"image": WEB, "healthcheck": {"disable": True}}],
}
DOCUMENTS: Final = {"full": FULL, "bare": BARE, "disabled": DISABLED}


@dataclass(frozen=True, slots=True)
class Shown:
    """Where `docker inspect` of one of the documents' containers has what at the end."""

    at: str
    value: object
    document: str = "full"


@dataclass(frozen=True, slots=True)
class Refused:
    """A value that is not taken, the words of the fault, and its field when it is another."""

    value: object
    words: str
    at: str | None = None


CHECK: Final = "Config.Healthcheck"
LABEL: Final = f"Config.Labels/{PREFIX}."
SHOWN: Final[Mapping[str, Shown]] = {
    "tenant_id": Shown("Name", f"/{PREFIX}-tenant-{TENANT_ID}"),
    "generation": Shown(f"{LABEL}generation", "3"),
    "provider_type": Shown(f"{LABEL}provider", "docker"),
    "labels": Shown("Config.Labels/team", "blue"),
    "resources.cpu": Shown("HostConfig.NanoCpus", 250_000_000),
    "resources.memory": Shown("HostConfig.MemorySwap", 64 * MIB),
    "containers[0].name": Shown(f"{LABEL}container_name", "web"),
    "containers[0].image": Shown("Config.Image", WEB),
    "containers[0].command": Shown("Config.Entrypoint", ["/bin/sh", "-c"]),
    "containers[0].args": Shown("Config.Cmd", ["exec sleep 60"]),
    "containers[0].env": Shown("Config.Env", ["LINES=one\ntwo", "PORT=8081"]),
    "containers[0].ports[0].container_port": Shown(
        "Config.ExposedPorts", {"53/udp": {}, "8081/tcp": {}}
    ),
    "containers[0].ports[0].host_port": Shown(
        "NetworkSettings.Ports",
        {"53/udp": None, "8081/tcp": [{"HostIp": "0.0.0.0", "HostPort": "18301"}]},
    ),
    "containers[0].ports[0].protocol": Shown(
        "HostConfig.PortBindings", {"8081/tcp": [{"HostIp": "0.0.0.0", "HostPort": "18301"}]}
    ),
    "containers[0].healthcheck.test": Shown(f"{CHECK}.Test", ["CMD", "true"]),
    "containers[0].healthcheck.command": Shown(f"{CHECK}.Test", ["CMD-SHELL", "true"], "bare"),
    "containers[0].healthcheck.type": Shown(f"{CHECK}.Test", ["CMD-SHELL", "true"], "bare"),
    "containers[0].healthcheck.disable": Shown(f"{CHECK}.Test", ["NONE"], "disabled"),
    "containers[0].healthcheck.interval_seconds": Shown(f"{CHECK}.Interval", 5_000_000_000),
    "containers[0].healthcheck.timeout_seconds": Shown(f"{CHECK}.Timeout", 2_500_000_000),
    "containers[0].healthcheck.start_period_seconds": Shown(f"{CHECK}.StartPeriod", 1_000_000_000),
    "containers[0].healthcheck.retries": Shown(f"{CHECK}.Retries", 4),
    "containers[0].secrets": Shown("Config.Volumes", {"/run/secrets": {}}),
    "provider_config.restart_policy": Shown(
        "HostConfig.RestartPolicy", {"Name": "on-failure", "MaximumRetryCount": 3}
    ),
    "provider_config.log_driver": Shown("HostConfig.LogConfig.Type", "local"),
    "provider_config.log_options": Shown(
        "HostConfig.LogConfig.Config", {"max-file": "3", "max-size": "1m"}
    ),
    "provider_config.volumes": Shown(
        "HostConfig.Binds", [f"{HOST_PATH}:/data:ro", f"{VOLUME}:/cache"]
    ),
    "provider_config.tmpfs": Shown("HostConfig.Tmpfs", {"/scratch": "size=1m"}),
    "provider_config.network_mode": Shown("HostConfig.NetworkMode", "none", "bare"),
    "provider_config.labels": Shown("Config.Labels/tier", "gold"),
    "provider_config.user": Shown("Config.User", "0:0"),
    "provider_config.working_dir": Shown("Config.WorkingDir", "/srv"),
    "provider_config.hostname": Shown("Config.Hostname", "web.acme"),
    "provider_config.read_only": Shown("HostConfig.ReadonlyRootfs", True),
    "provider_config.init": Shown("HostConfig.Init", True),
    "provider_config.stop_signal": Shown("Config.StopSignal", "SIGUSR1"),
    "provider_config.stop_grace_seconds": Shown("Config.StopTimeout", 3),
    "provider_config.shm_size_mb": Shown("HostConfig.ShmSize", 32 * MIB),
    "provider_config.pids_limit": Shown("HostConfig.PidsLimit", 77),
    "provider_config.ulimits.*.soft": Shown(
        "HostConfig.Ulimits", [{"Name": "nofile", "Soft": 100, "Hard": 200}]
    ),
    "provider_config.ulimits.*.hard": Shown(
        "HostConfig.Ulimits", [{"Name": "nofile", "Soft": 100, "Hard": 200}]
    ),
    "provider_config.cap_add": Shown("HostConfig.CapAdd", ["NET_ADMIN"]),
    "provider_config.cap_drop": Shown("HostConfig.CapDrop", ["CHOWN", "MKNOD", "NET_RAW"]),
    "provider_config.security_opt": Shown(
        "HostConfig.SecurityOpt", ["seccomp=unconfined", "no-new-privileges"]
    ),
    "provider_config.privileged": Shown("HostConfig.Privileged", True, "bare"),
    "provider_config.runtime": Shown("HostConfig.Runtime", "runc"),
    "provider_config.extra_hosts": Shown("HostConfig.ExtraHosts", ["db:10.0.0.1"]),
    "provider_config.dns": Shown("HostConfig.Dns", ["192.0.2.53"]),
}
TOLD_ELSEWHERE: Final = frozenset(
    {
        # Not kept by the engine: the status joins it to what was bound, and the pull heeds it.
        "containers[0].ports[0].name",
        "provider_config.pull_policy",
    }
)

REFUSED: Final[Mapping[str, Refused]] = {
    "tenant_id": Refused("a/b", "has to be 1 to 128"),
    "generation": Refused(0, "greater than or equal to 1"),
    "provider_type": Refused("ecs", "is not supported"),
    "labels": Refused({f"{PREFIX}.tenant_id": "x"}, "are reserved"),
    "resources.cpu": Refused(9, "greater than or equal to 10"),
    "resources.memory": Refused(5, "greater than or equal to 6"),
    "containers[0].name": Refused("a b", "has to be 1 to 128"),
    "containers[0].image": Refused("Nginx", "lower case"),
    "containers[0].command": Refused("sh -c", "has to be a list"),
    "containers[0].args": Refused(["a\0"], "NUL", "containers[0].args[0]"),
    "containers[0].env": Refused({"A": None}, "string", "containers[0].env.A"),
    "containers[0].ports[0].container_port": Refused(0, "greater than or equal to 1"),
    "containers[0].ports[0].host_port": Refused(65536, "less than or equal to 65535"),
    "containers[0].ports[0].protocol": Refused("http", "'tcp', 'udp' or 'sctp'"),
    "containers[0].ports[0].name": Refused("", "must not be empty"),
    "containers[0].healthcheck.test": Refused(
        [], "needs test, or disable: true", "containers[0].healthcheck"
    ),
    "containers[0].healthcheck.command": Refused(
        "true", "two words for one thing", "containers[0].healthcheck"
    ),
    "containers[0].healthcheck.type": Refused("http", "type http is not supported"),
    "containers[0].healthcheck.disable": Refused("yes", "boolean"),
    "containers[0].healthcheck.interval_seconds": Refused(-1, "greater than or equal to 0"),
    "containers[0].healthcheck.timeout_seconds": Refused(
        0.0001, "at least 0.001", "containers[0].healthcheck"
    ),
    "containers[0].healthcheck.start_period_seconds": Refused("5s", "number"),
    "containers[0].healthcheck.retries": Refused(-1, "greater than or equal to 0"),
    "containers[0].secrets": Refused(["../x"], "has to be 1 to 128", "containers[0].secrets[0]"),
    "provider_config.restart_policy": Refused("sometimes", "has to be no, always"),
    "provider_config.log_driver": Refused("syslog", "compute.policy.log_drivers allows only"),
    "provider_config.log_options": Refused(["max-size=1m"], "has to be an object"),
    "provider_config.pull_policy": Refused("sometimes", "'if_not_present', 'always' or 'never'"),
    "provider_config.volumes": Refused(
        ["/etc:/etc"], "compute.policy.volumes", "provider_config.volumes[0]"
    ),
    "provider_config.tmpfs": Refused({"tmp": ""}, "absolute path"),
    "provider_config.network_mode": Refused(
        "bridge", "compute.policy.network_modes allows only none, got 'bridge'"
    ),
    "provider_config.labels": Refused({f"{PREFIX}.spec": "x"}, "are reserved"),
    "provider_config.user": Refused("a:b:c", "user[:group]"),
    "provider_config.working_dir": Refused("srv", "absolute path"),
    "provider_config.hostname": Refused("-web", "no host name"),
    "provider_config.read_only": Refused(1, "boolean"),
    "provider_config.init": Refused("true", "boolean"),
    "provider_config.stop_signal": Refused("TERM!", "no signal"),
    "provider_config.stop_grace_seconds": Refused(3601, "less than or equal to 3600"),
    "provider_config.shm_size_mb": Refused(0, "greater than or equal to 1"),
    "provider_config.pids_limit": Refused(4_194_305, "less than or equal to 4194304"),
    "provider_config.ulimits.*.soft": Refused(-2, "greater than or equal to -1"),
    "provider_config.ulimits.*.hard": Refused("max", "integer"),
    "provider_config.cap_add": Refused(["SYS_ADMIN"], "compute.policy.cap_add"),
    "provider_config.cap_drop": Refused(["a-b"], "capability", "provider_config.cap_drop[0]"),
    "provider_config.security_opt": Refused(["apparmor=unconfined"], "compute.policy.security_opt"),
    "provider_config.privileged": Refused("yes", "boolean"),
    "provider_config.runtime": Refused("nvidia", "compute.policy.runtimes"),
    "provider_config.extra_hosts": Refused(["db"], "host:ip", "provider_config.extra_hosts[0]"),
    "provider_config.dns": Refused(["dns.example"], "IP address", "provider_config.dns[0]"),
}


POLICY_SHOWN: Final[Mapping[str, Shown]] = {
    "images": Shown("Config.Image", WEB),
    "max_cpu": Shown("HostConfig.NanoCpus", 250_000_000),
    "max_memory": Shown("HostConfig.Memory", 64 * MIB),
    "host_ports": SHOWN["containers[0].ports[0].host_port"],
    "volumes": SHOWN["provider_config.volumes"],
    "network_modes": SHOWN["provider_config.network_mode"],
    "privileged": SHOWN["provider_config.privileged"],
    "cap_add": SHOWN["provider_config.cap_add"],
    "security_opt": SHOWN["provider_config.security_opt"],
    "runtimes": SHOWN["provider_config.runtime"],
    "log_drivers": SHOWN["provider_config.log_driver"],
    "log_max_size": SHOWN["provider_config.log_options"],
    "labels": Shown("Config.Labels/traefik.enable", "false"),
    "pids_limit": Shown("HostConfig.PidsLimit", 55, "bare"),
    "max_pids": SHOWN["provider_config.pids_limit"],
    "cap_drop": Shown("HostConfig.CapDrop", ["MKNOD", "NET_RAW"], "bare"),
}
POLICY_SHOWN_ELSEWHERE: Final = frozenset({"require_digest", "shared_volumes"})
"""An image has a digest only once it was in a registry, and a start is refused: tests of their own.
"""


POLICY_APART: Final = frozenset({"on_tightened", "force"})
"""Say nothing against a document: what becomes of tenants that are there, and of what they ask."""


@dataclass(frozen=True, slots=True)
class Denied:
    """What `FULL` may not have at the path, and in which words it is told."""

    path: str
    value: object
    words: str
    policy: Policy = OPEN


POLICY_DENIED: Final[Mapping[str, Denied]] = {
    "images": Denied("containers[0].image", "landlord-test/other:1", "compute.policy.images"),
    "require_digest": Denied(
        "containers[0].image",
        WEB,
        "compute.policy.require_digest",
        replace(OPEN, require_digest=True),
    ),
    "max_cpu": Denied("resources.cpu", 251, "compute.policy.max_cpu"),
    "max_memory": Denied("resources.memory", 65, "compute.policy.max_memory"),
    "host_ports": Denied("containers[0].ports[0].host_port", 18302, "compute.policy.host_ports"),
    "volumes": Denied(
        "provider_config.volumes", [f"{HOST_PATH}-2:/data"], "compute.policy.volumes"
    ),
    "shared_volumes": Denied(
        "provider_config.volumes", [f"{HOST_PATH}/below:/data"], "compute.policy.volumes"
    ),
    "log_max_size": Denied(
        "provider_config.log_options", {"max-size": "2m"}, "compute.policy.log_max_size"
    ),
    "labels": Denied("labels", {"traefik.http": "x"}, "compute.policy.labels"),
    "network_modes": Denied("provider_config.network_mode", PREFIX, "compute.policy.network_modes"),
    "privileged": Denied(
        "provider_config.privileged",
        True,
        "compute.policy.privileged",
        replace(OPEN, privileged=False),
    ),
    "cap_add": Denied("provider_config.cap_add", ["ALL"], "compute.policy.cap_add"),
    "security_opt": Denied(
        "provider_config.security_opt", ["no-new-privileges:false"], "compute.policy.security_opt"
    ),
    "runtimes": Denied("provider_config.runtime", "runsc", "compute.policy.runtimes"),
    "log_drivers": Denied("provider_config.log_driver", "journald", "compute.policy.log_drivers"),
    "pids_limit": Denied("provider_config.pids_limit", 0, "greater than or equal to 1"),
    "max_pids": Denied("provider_config.pids_limit", 78, "compute.policy.max_pids"),
    "cap_drop": Denied("provider_config.cap_add", ["NET_RAW"], "compute.policy.cap_add"),
}


def changed(path: str, value: object) -> dict[str, object]:
    """Return `FULL` with another value at the path; an asterisk stands for the first key."""
    document: dict[str, object] = deepcopy(dict(FULL))
    *way, last = re.findall(r"[\w*]+", path.replace("[0]", ".0"))
    place: object = document
    for step in way:
        place = place[0] if isinstance(place, list) else _within(place, step)
    assert isinstance(place, dict)
    place[last] = value
    return document


def _within(place: object, step: str) -> object:
    assert isinstance(place, dict)
    return next(iter(place.values())) if step == "*" else place[step]
