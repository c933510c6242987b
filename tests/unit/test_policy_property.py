"""No document, however it is made, yields a create request outside the policy.

Documents are made at random out of what lies just inside and just outside the rules, go the one way
in, and what would be sent to the engine is checked by rules written from the contract, over the
request and without a look at `policy`.
"""

import json
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consumer.adapters.docker_spec import Naming, to_create_document, to_labels
from consumer.document import SpecDefaults
from consumer.errors import InvalidMessage
from consumer.model import EngineFacts
from consumer.policy import Admission, Policy
from tests.builders import make_delivery

MIB = 1024 * 1024
CPUS, MEMORY = 4, 4096
TIGHT = Policy(
    images=("nginx", "registry.example:5000/team/*"),
    max_cpu=1000,
    max_memory=512,
    host_ports=((8000, 8999), (9100, 9100)),
    volumes=("/srv/data", "shared"),
    network_name="tenants",
    cap_add=("NET_ADMIN",),
    security_opt=("label=disable", "no-new-privileges:false"),
    runtimes=("runsc",),
    max_pids=2000,
    facts=EngineFacts("20.10", "1.41", CPUS, MEMORY * MIB, frozenset({"json-file", "local"})),
)
POLICIES = {
    "of the contract": Policy(facts=TIGHT.facts),
    "tight": TIGHT,
    "of prefixes that contain everything": replace(
        TIGHT, images=None, volumes=("/", "/var", "/srv/"), pids_limit=9999, host_ports=()
    ),
    "with the host's network": replace(
        TIGHT, network_modes=("host",), cap_drop=("NET_RAW", "KILL")
    ),
    "with digests alone": replace(TIGHT, images=None, require_digest=True),
}

DIGEST = "sha256:" + "a" * 64
IMAGES = st.sampled_from(
    [
        "nginx",
        "nginx:1.27",
        f"nginx@{DIGEST}",
        "docker.io/library/nginx",
        "registry.example:5000/team/app:1",
        "registry.example:5000/other",
        "registry.example/nginx",
        "evil/nginx",
        "nginx.evil/nginx",
    ]
)
TOPS = (
    *(
        "/",
        "/home",
        "/srv",
        "/srv/data",
        "//srv//data",
        "/srv/database",
        "/var",
        "/var/run",
        "/run",
    ),
    *("/var/lib/docker", "/etc", "/proc/1/root", "/dev"),
)
PATHS = st.builds(
    lambda top, parts: "/".join((top, *parts)),
    st.sampled_from(TOPS),
    st.lists(st.sampled_from(["", ".", "..", "x", "docker.sock"]), max_size=2),
)
MOUNTS = st.one_of(PATHS, PATHS, st.sampled_from(["shared", "other"]))
ODD: st.SearchStrategy[object] = st.sampled_from([None, True, -1, 0, "", "x", [], {}, 10**30])
"""What stands where something else belongs."""


def mostly(usual: st.SearchStrategy[object]) -> st.SearchStrategy[object]:
    """Return what belongs there, and now and then what does not."""
    return st.integers(0, 15).flatmap(lambda number: usual if number else ODD)


CONTAINERS = st.fixed_dictionaries(
    {"image": IMAGES},
    optional={
        "ports": st.lists(
            st.fixed_dictionaries(
                {"container_port": mostly(st.integers(1, 65535))},
                optional={
                    "host_port": st.sampled_from([0, 80, 7999, 8000, 8999, 9000, 9100, 65536]),
                    "protocol": st.sampled_from(["tcp", "UDP", "sctp"]),
                },
            ),
            max_size=2,
        ),
        "env": mostly(st.just({"A": "1"})),
        "command": mostly(st.just(["/bin/sh"])),
    },
)
ASKED: dict[str, st.SearchStrategy[object]] = {
    "volumes": st.lists(MOUNTS.map("{}:/data".format), max_size=1),
    "network_mode": st.sampled_from(
        ["tenants", "bridge", "none", "host", "container:a", "default", "other"]
    ),
    "privileged": mostly(st.booleans()),
    "cap_add": st.lists(
        st.sampled_from(["NET_ADMIN", "cap_net_admin", "ALL", "all", "NET_RAW", "SYS_NICE"]),
        max_size=1,
    ),
    "cap_drop": st.lists(st.sampled_from(["CHOWN", "ALL", "cap_net_raw"]), max_size=2),
    "security_opt": st.lists(
        st.sampled_from(
            [
                "label=disable",
                "seccomp=unconfined",
                "no-new-privileges",
                "no-new-privileges:false",
                "no-new-privileges=0",
                "systempaths=unconfined",
            ]
        ),
        max_size=1,
    ),
    "runtime": st.sampled_from(["runsc", "runsc", "nvidia"]),
    "log_driver": st.sampled_from(["json-file", "local", "none", "syslog"]),
    "pids_limit": mostly(st.sampled_from([1, 2000, 2001, 4096, 4097])),
    "ulimits": st.fixed_dictionaries(
        {},
        optional={
            "rtprio": st.just({"soft": 0, "hard": 9}),
            "core": st.just({"soft": 0, "hard": 0}),
        },
    ),
    "labels": st.dictionaries(
        st.sampled_from(["a", "landlord.tenant_id", "Landlord.tenant_id"]), st.text(max_size=2)
    ),
    "tmpfs": st.just({"/run": "size=1m"}),
    "devices": st.just(["/dev/sda"]),
    "pid_mode": st.just("host"),
}
CONFIGS = st.lists(st.sampled_from(sorted(ASKED)), max_size=3, unique=True).flatmap(
    lambda keys: st.fixed_dictionaries({key: ASKED[key] for key in keys})
)
"""A document that asks for everything at once is always refused for something."""
DOCUMENTS = st.fixed_dictionaries(
    {
        "tenant_id": st.just("acme"),
        "containers": CONTAINERS.map(lambda container: [container]),
        "provider_config": CONFIGS,
    },
    optional={
        "resources": st.fixed_dictionaries(
            {},
            optional={
                "cpu": mostly(st.sampled_from([10, 1000, 1001, 4000, 4001])),
                "memory": mostly(st.sampled_from([6, 512, 513, 4096, 4097])),
            },
        ),
        "labels": st.dictionaries(
            st.sampled_from(["b", "b", "b", "landlord.instance", " landlord.instance"]),
            st.text(max_size=2),
        ),
    },
)

KNOWN_TO_THE_REQUEST = {
    *("NetworkMode", "PortBindings", "NanoCpus", "Memory", "MemorySwap", "RestartPolicy"),
    *("LogConfig", "AutoRemove", "Privileged", "ReadonlyRootfs", "Init", "Binds", "Tmpfs"),
    *("ShmSize", "PidsLimit", "Ulimits", "CapAdd", "CapDrop", "SecurityOpt", "Runtime"),
    *("ExtraHosts", "Dns"),
}
"""No `Devices`, `PidMode`, `IpcMode`, `UsernsMode`, `CgroupParent`, `VolumesFrom` or `Mounts`."""
TIGHTENING = {"no-new-privileges", "no-new-privileges:true", "no-new-privileges=true"}
PRECIOUS = ("/proc", "/sys", "/dev", "/etc", "/var/lib/docker", "/run", "/var/run")


def walked(path: str) -> tuple[str, ...]:
    """Return the folders one comes through, as a person walks them."""
    way: list[str] = []
    for part in path.split("/"):
        if part == "..":
            way = way[:-1]
        elif part not in ("", "."):
            way.append(part)
    return tuple(way)


def is_open(source: str, policy: Policy) -> bool:
    """Whether the contract lets a tenant mount this."""
    if not source.startswith("/"):
        return source in policy.volumes
    if ".." in source.split("/"):
        return False  # a symlink makes it lead elsewhere than it reads
    way = walked(source)
    opened = [walked(entry) for entry in policy.volumes if entry.startswith("/")]
    if way in opened:
        return True
    precious = [walked(path) for path in PRECIOUS]
    if way[-1:] == ("docker.sock",) or any(kept[: len(way)] == way for kept in precious):
        return False
    inside = [kept for kept in precious if way[: len(kept)] == kept]
    return any(
        gate and way[: len(gate)] == gate and all(gate[: len(kept)] == kept for kept in inside)
        for gate in opened
    )


def breaches(request: dict[str, object], policy: Policy) -> list[str]:
    """Return in which ways a create request goes beyond the policy."""
    host, labels = request["HostConfig"], request["Labels"]
    assert isinstance(host, dict)
    assert isinstance(labels, dict)
    image = str(request["Image"])
    bindings = [
        int(binding["HostPort"]) for bound in host["PortBindings"].values() for binding in bound
    ]
    modes = (
        (policy.network_name, "none")
        if policy.network_modes is None
        else (policy.network_name, *policy.network_modes)
    )
    within = {
        "fields": {*host} <= KNOWN_TO_THE_REQUEST,
        "image": policy.images is None
        or image.removeprefix("docker.io/library/").partition("@")[0].partition(":")[0] == "nginx"
        or image.startswith("registry.example:5000/team/"),
        "digest": not policy.require_digest or "@sha256:" in image,
        "cpu": 0 < host["NanoCpus"] <= min(policy.max_cpu or CPUS * 1000, CPUS * 1000) * 10**6,
        "memory": 0 < host["Memory"] <= min(policy.max_memory or MEMORY, MEMORY) * MIB,
        "swap": host["MemorySwap"] == host["Memory"],
        "ports": all(
            any(low <= port <= high for low, high in policy.host_ports) for port in bindings
        ),
        "volumes": all(is_open(bind.split(":")[0], policy) for bind in host.get("Binds", ())),
        "network": host["NetworkMode"] in modes,
        "privileged": host["Privileged"] is False,
        "capabilities": {*host.get("CapAdd", ())} <= {*policy.cap_add},
        "dropped": {*policy.cap_drop} - {*host.get("CapAdd", ())} <= {*host["CapDrop"]},
        "privileges": bool(TIGHTENING & {*host["SecurityOpt"]}),
        "options": {*host["SecurityOpt"]}
        <= TIGHTENING | ({*policy.security_opt} - {"no-new-privileges:false"}),
        "pids": 0 < host["PidsLimit"] <= policy.max_pids,
        "runtime": host.get("Runtime") in (None, *policy.runtimes),
        "log": host["LogConfig"]["Type"] in policy.log_drivers,
        "priorities": not [limit for limit in host.get("Ulimits", ()) if limit["Name"] == "rtprio"],
        "labels": (labels["landlord.tenant_id"], labels["landlord.instance"])
        == ("acme", "default"),
        "removal": host["AutoRemove"] is False,
    }
    return [rule for rule, holds in within.items() if not holds]


def request_of(document: object, policy: Policy) -> dict[str, object] | None:
    """Return what is sent for the document, None where it is refused."""
    admission = Admission(defaults=SpecDefaults(cpu=500, memory=256), policy=policy)
    try:
        event = admission.admit(make_delivery(1, body=json.dumps(document).encode()))
    except InvalidMessage:
        return None
    assert event.spec is not None
    labels = to_labels(Naming(), event.tenant_id, event.spec, event.generation, 1)
    return to_create_document(
        event.spec, labels, network=policy.network_name, bind_address="0.0.0.0"
    )


@pytest.mark.parametrize("policy", POLICIES.values(), ids=POLICIES)
@settings(max_examples=200, deadline=None)
@given(document=DOCUMENTS)
def test_no_document_leads_out_of_the_policy(policy: Policy, document: object) -> None:
    """Whatever is asked for is refused, or stays within what the operator allows."""
    request = request_of(document, policy)

    assert request is None or breaches(request, policy) == []


@pytest.mark.parametrize("policy", POLICIES.values(), ids=POLICIES)
@settings(max_examples=100, deadline=None)
@given(mount=MOUNTS)
def test_no_volume_leads_out_of_the_policy(policy: Policy, mount: str) -> None:
    """The rule with the most ways round it, asked alone and often."""
    document = {
        "tenant_id": "acme",
        "containers": [{"image": f"nginx@{DIGEST}"}],
        "provider_config": {"volumes": [f"{mount}:/data"]},
    }

    request = request_of(document, policy)

    assert request is None or breaches(request, policy) == []


def test_the_documents_are_not_all_refused() -> None:
    """What is made at random passes often enough for the test above to see something."""
    passed = []

    @settings(max_examples=200, deadline=None, database=None, derandomize=True)
    @given(document=DOCUMENTS)
    def count(document: object) -> None:
        passed.append(request_of(document, TIGHT) is not None)

    count()

    assert sum(passed) > len(passed) // 10
