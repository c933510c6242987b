"""What a tenant may ask for: every rule of the policy, and that no spec gets round it."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta

import pytest

from consumer.document import SpecDefaults
from consumer.errors import Fault, InvalidMessage
from consumer.messages import STRUCTURED, Delivery
from consumer.model import (
    EngineFacts,
    EventKind,
    HealthCheck,
    PortMapping,
    Reason,
    Resources,
    Ulimit,
)
from consumer.policy import NO_NEW_PRIVILEGES, Admission, Policy, check, harden
from tests.builders import MOMENT, TENANT_ID, make_delivery, make_document, make_spec

DIGEST = "sha256:" + "a" * 64
SOCKET = "/var/run/docker.sock"
FACTS = EngineFacts(
    version="29.0.0",
    api_version="1.52",
    cpus=2,
    memory_bytes=4096 * 1024 * 1024,
    log_drivers=frozenset({"json-file", "local", "syslog"}),
)


def faults(policy: Policy | None = None, **spec: object) -> tuple[Fault, ...]:
    """Return what the policy has against a spec with these changes."""
    return check(make_spec(**spec), policy or Policy())


def published(*host_ports: int) -> tuple[PortMapping, ...]:
    """Return mappings of port 80 to these host ports."""
    return tuple(PortMapping(80, host_port) for host_port in host_ports)


def test_the_default_policy_allows_a_small_web_server() -> None:
    """A spec that asks for nothing special breaks no rule."""
    assert faults(ports=published(8080)) == ()


# --- images -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pattern", "image"),
    [
        pytest.param("*", "quay.io/team/app:1", id="everything"),
        pytest.param("nginx", "nginx", id="short name"),
        pytest.param("nginx", "nginx:alpine", id="short name, any tag"),
        pytest.param("nginx:1.*", "nginx:1.27", id="short name and tag"),
        pytest.param("nginx", "docker.io/library/nginx:alpine", id="written in full"),
        pytest.param("docker.io/library/*", "nginx:alpine", id="pattern in full"),
        pytest.param("mycompany/*", "mycompany/api:v2.1.0", id="namespace"),
        pytest.param("library/team/*", "docker.io/library/team/app", id="library as a namespace"),
        pytest.param("localhost", "localhost", id="an official image of that name"),
        pytest.param("registry.example:5000/*", "registry.example:5000/app:1", id="registry"),
        pytest.param("registry.example/app", f"registry.example/app@{DIGEST}", id="any digest"),
        pytest.param(f"nginx@{DIGEST}", f"nginx@{DIGEST}", id="this digest"),
    ],
)
def test_a_listed_image_is_allowed(pattern: str, image: str) -> None:
    """An image may be listed in full, by name, or as Docker shortens it."""
    assert faults(Policy(images=("other", pattern)), image=image) == ()


@pytest.mark.parametrize(
    ("pattern", "image"),
    [
        pytest.param("nginx", "redis", id="another name"),
        pytest.param("nginx", "nginx-evil", id="only the beginning"),
        pytest.param("nginx:1.27", "nginx:1.28", id="another tag"),
        pytest.param("nginx", "evil/nginx", id="another namespace"),
        pytest.param("nginx", "registry.example/nginx", id="another registry"),
        pytest.param("registry.example/*", "registry.example.evil/app", id="longer registry"),
        pytest.param("registry.example/*", "docker.io/registry.example/app", id="registry as path"),
        pytest.param("localhost/*", "docker.io/localhost/app", id="localhost as namespace"),
        pytest.param("team/*", "docker.io/library/team/app", id="library before a namespace"),
        pytest.param("Nginx", "nginx", id="case counts"),
    ],
)
def test_an_image_that_is_not_listed_is_refused(pattern: str, image: str) -> None:
    """A pattern opens what it names and nothing that only looks like it."""
    refused = faults(Policy(images=(pattern,)), image=image)

    assert refused == (
        Fault(
            "containers[0].image",
            f"compute.policy.images allows only {pattern}, got {image!r}",
        ),
    )


@pytest.mark.parametrize("image", ["nginx", "nginx:alpine", "registry.example:5000/app:1"])
def test_an_image_without_a_digest_is_refused_where_one_is_needed(image: str) -> None:
    """With require_digest a tag is not enough."""
    (fault,) = faults(Policy(require_digest=True), image=image)

    assert fault.field == "containers[0].image"
    assert "compute.policy.require_digest" in fault.rule


def test_an_image_with_a_digest_is_allowed_where_one_is_needed() -> None:
    """With require_digest an image pinned by digest may run."""
    assert faults(Policy(require_digest=True), image=f"nginx:1.27@{DIGEST}") == ()


# --- every other key --------------------------------------------------------------------------

REFUSED = {
    "cpu above the policy": (
        Policy(max_cpu=500),
        {"resources": Resources(cpu=501, memory=6)},
        "resources.cpu: at most 500 on this host (compute.policy.max_cpu), got 501",
    ),
    "memory above the policy": (
        Policy(max_memory=128),
        {"resources": Resources(cpu=10, memory=129)},
        "resources.memory: at most 128 on this host (compute.policy.max_memory), got 129",
    ),
    "cpu above the host": (
        Policy(facts=FACTS, max_cpu=64_000),
        {"resources": Resources(cpu=2001, memory=6)},
        "resources.cpu: at most 2000 on this host (compute.policy.max_cpu), got 2001",
    ),
    "memory above the host": (
        Policy(facts=FACTS),
        {"resources": Resources(cpu=10, memory=4097)},
        "resources.memory: at most 4096 on this host (compute.policy.max_memory), got 4097",
    ),
    "host port outside the ranges": (
        Policy(host_ports=((8000, 8999), (9100, 9100))),
        {"ports": published(8000, 9000)},
        (
            "containers[0].ports: compute.policy.host_ports allows only "
            "8000-8999, 9100-9100, got 9000"
        ),
    ),
    "no host port at all": (
        Policy(host_ports=()),
        {"ports": published(8080)},
        "containers[0].ports: compute.policy.host_ports allows only nothing, got 8080",
    ),
    "volume by name": (
        Policy(volumes=("shared",)),
        {"volumes": ("shared:/a", "other:/b")},
        "provider_config.volumes[1]: compute.policy.volumes allows only shared, got 'other'",
    ),
    "network of the host": (
        Policy(),
        {"network_mode": "host"},
        (
            "provider_config.network_mode: compute.policy.network_modes allows only "
            "bridge, none, got 'host'"
        ),
    ),
    "Docker's own network beside the configured one": (
        Policy(network_name="tenants"),
        {"network_mode": "bridge"},
        (
            "provider_config.network_mode: compute.policy.network_modes allows only "
            "tenants, none, got 'bridge'"
        ),
    ),
    "network of another container": (
        Policy(network_modes=("none",)),
        {"network_mode": "container:landlord-tenant-other"},
        (
            "provider_config.network_mode: compute.policy.network_modes allows only none, "
            "got 'container:landlord-tenant-other'"
        ),
    ),
    "privileged": (
        Policy(),
        {"privileged": True},
        "provider_config.privileged: compute.policy.privileged does not allow it",
    ),
    "capability": (
        Policy(cap_add=("NET_ADMIN",)),
        {"cap_add": ("NET_ADMIN", "SYS_ADMIN")},
        "provider_config.cap_add: compute.policy.cap_add allows only NET_ADMIN, got 'SYS_ADMIN'",
    ),
    "all capabilities": (
        Policy(cap_add=("NET_ADMIN",)),
        {"cap_add": ("ALL",)},
        "provider_config.cap_add: compute.policy.cap_add allows only NET_ADMIN, got 'ALL'",
    ),
    "security option": (
        Policy(),
        {"security_opt": ("seccomp=unconfined",)},
        (
            "provider_config.security_opt: compute.policy.security_opt allows only nothing, "
            "got 'seccomp=unconfined'"
        ),
    ),
    "new privileges": (
        Policy(),
        {"security_opt": ("no-new-privileges:false",)},
        (
            "provider_config.security_opt: compute.policy.security_opt allows only nothing, "
            "got 'no-new-privileges:false'"
        ),
    ),
    "a priority in real time": (
        Policy(cap_add=("NET_ADMIN",)),
        {"ulimits": (Ulimit("rtprio", 0, 50), Ulimit("nofile", 9, 9), Ulimit("nice", 0, 0))},
        ("provider_config.ulimits: rtprio other than 0 needs SYS_NICE in compute.policy.cap_add"),
    ),
    "runtime": (
        Policy(runtimes=("runsc",)),
        {"runtime": "nvidia"},
        "provider_config.runtime: compute.policy.runtimes allows only runsc, got 'nvidia'",
    ),
    "log driver": (
        Policy(),
        {"log_driver": "syslog"},
        (
            "provider_config.log_driver: compute.policy.log_drivers allows only "
            "json-file, local, none, got 'syslog'"
        ),
    ),
    "log driver that the engine lacks": (
        Policy(log_drivers=("gelf",), facts=FACTS),
        {"log_driver": "gelf", "log_options": ()},
        "provider_config.log_driver: this engine has only json-file, local, syslog, got 'gelf'",
    ),
    **{
        f"log option {name}: {value:.30}": (
            Policy(),
            {"log_options": ((name, value),)},
            f"provider_config.log_options: {name}: {rule}",
        )
        for name, value, rule in (
            ("tag", "{{pad .ID 9000000000 1}}", "a tenant may set only max-size, max-file, comp"),
            ("labels", "a,b", "a tenant may set only"),
            ("labels-regex", ".*", "a tenant may set only"),
            ("env", "A", "a tenant may set only"),
            ("env-regex", ".*", "a tenant may set only"),
            ("mode", "non-blocking", "a tenant may set only"),
            ("max-buffer-size", "1g", "a tenant may set only"),
            ("max-file", "21", "has to be 1 to 20"),
            ("max-file", "999999999", "has to be 1 to 20"),
            ("max-size", "101m", "has to be 64k to 100m (compute.policy.log_max_size)"),
            ("max-size", "9" * 400, "has to be 64k to 100m"),
            ("max-size", "1k", "has to be 64k to 100m"),
        )
    },
    "option of another log driver": (
        Policy(log_drivers=("syslog",)),
        {"log_driver": "syslog", "log_options": (("syslog-address", "udp://10.0.0.1:514"),)},
        "provider_config.log_options: syslog-address: a tenant may set only",
    ),
    "label of a tool": (
        Policy(labels=("traefik.enable",)),
        {"labels": (("traefik.enable", "x"), ("traefik.http.routers.a.rule", "x"))},
        "labels: a key that tools act upon, and not in compute.policy.labels, got 'traefik.http",
    ),
    "labels without end": (
        Policy(),
        {"labels": (("a", "x" * 16_384),)},
        "labels: have 16385 bytes, at most 16384 are taken",
    ),
    "health check each millisecond": (
        Policy(),
        {"healthcheck": HealthCheck(("CMD", "true"), interval_seconds=0.001)},
        "containers[0].healthcheck.interval_seconds: has to be at least 1, got 0.001",
    ),
    "files without end": (
        Policy(),
        {"ulimits": (Ulimit("nofile", 1, -1),)},
        "provider_config.ulimits: nofile is at most 1048576, got -1",
    ),
    "registry of the host": (
        Policy(),
        {"image": "127.0.0.1:5000/app"},
        "containers[0].image: a registry at an address of the host or of a private network has",
    ),
    "processes above the ceiling": (
        Policy(max_pids=100),
        {"pids_limit": 101},
        "provider_config.pids_limit: at most 100 on this host (compute.policy.max_pids), got 101",
    ),
}


@pytest.mark.parametrize(("policy", "spec", "fault"), REFUSED.values(), ids=REFUSED)
def test_what_is_not_allowed_is_refused(
    policy: Policy, spec: dict[str, object], fault: str
) -> None:
    """A broken rule is told with the field, the setting that decides, and what was asked for."""
    (found,) = faults(policy, **spec)

    assert str(found).startswith(fault)


ALLOWED = {
    "cpu at the limit": (Policy(max_cpu=500), {"resources": Resources(cpu=500, memory=6)}),
    "memory at the limit": (Policy(max_memory=256), {"resources": Resources(cpu=10, memory=256)}),
    "the whole host": (Policy(facts=FACTS), {"resources": Resources(cpu=2000, memory=4096)}),
    "any size, host unknown": (Policy(), {"resources": Resources(cpu=99_000, memory=999_000)}),
    "host port inside": (Policy(host_ports=((8000, 8000),)), {"ports": published(8000)}),
    "port not published": (Policy(host_ports=()), {"ports": published(0)}),
    "volume by name": (Policy(volumes=("shared",)), {"volumes": ("shared:/a:ro",)}),
    "configured network": (Policy(network_name="tenants"), {"network_mode": "tenants"}),
    "no network": (Policy(), {"network_mode": "none"}),
    "network of the host": (Policy(network_modes=("host",)), {"network_mode": "host"}),
    "privileged": (Policy(privileged=True), {"privileged": True}),
    "capability": (Policy(cap_add=("NET_ADMIN",)), {"cap_add": ("NET_ADMIN",)}),
    "dropping a capability": (Policy(), {"cap_drop": ("ALL",)}),
    "security option": (
        Policy(security_opt=("apparmor=unconfined",)),
        {"security_opt": ("apparmor=unconfined",)},
    ),
    "no new privileges": (Policy(), {"security_opt": ("no-new-privileges:true",)}),
    "a priority": (
        Policy(cap_add=("SYS_NICE",)),
        {"ulimits": (Ulimit("rtprio", 50, 50), Ulimit("nice", 40, 40))},
    ),
    "runtime": (Policy(runtimes=("runsc",)), {"runtime": "runsc"}),
    "log driver": (
        Policy(log_drivers=("syslog",), facts=FACTS),
        {"log_driver": "syslog", "log_options": ()},
    ),
    "log options": (
        Policy(),
        {"log_options": (("compress", "true"), ("max-file", "20"), ("max-size", "100m"))},
    ),
    "health check each second": (
        Policy(),
        {"healthcheck": HealthCheck(("CMD", "true"), interval_seconds=1)},
    ),
    "health check at the engine's pace": (
        Policy(),
        {"healthcheck": HealthCheck(("CMD", "true"), interval_seconds=0)},
    ),
    "label of a tool": (Policy(labels=("traefik.*",)), {"labels": (("traefik.enable", "x"),)}),
    "registry of the host, listed": (
        Policy(images=("127.0.0.1:5000/*",)),
        {"image": "127.0.0.1:5000/app"},
    ),
    "registry of the host, with a login": (
        Policy(registries=("127.0.0.1:5000",)),
        {"image": "127.0.0.1:5000/app"},
    ),
    "files": (Policy(), {"ulimits": (Ulimit("nofile", 1_048_576, 1_048_576),)}),
    "no log": (Policy(facts=FACTS), {"log_driver": "none"}),
    "processes at the ceiling": (Policy(max_pids=100), {"pids_limit": 100}),
}


@pytest.mark.parametrize(("policy", "spec"), ALLOWED.values(), ids=ALLOWED)
def test_what_is_allowed_passes(policy: Policy, spec: dict[str, object]) -> None:
    """What the operator opened, or nobody closed, may be asked for."""
    assert faults(policy, **spec) == ()


def test_every_broken_rule_is_told() -> None:
    """One spec that breaks several rules gets one fault for each."""
    broken = faults(
        privileged=True,
        cap_add=("SYS_ADMIN", "SYS_PTRACE"),
        network_mode="host",
        volumes=("/:/host",),
    )

    assert [fault.field for fault in broken] == [
        "provider_config.network_mode",
        "provider_config.privileged",
        "provider_config.cap_add",
        "provider_config.cap_add",
        "provider_config.volumes[0]",
    ]


# --- host paths -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("allowed", "source"),
    [
        pytest.param("/srv/data", "/srv/data", id="exactly"),
        pytest.param("/srv/data", "/srv/data/acme", id="below"),
        pytest.param("/srv/data/", "/srv/data", id="slash at the setting's end"),
        pytest.param("/srv/data", "/srv/data/", id="slash at the end"),
        pytest.param("/srv/data", "//srv///data//acme/./x", id="slashes and dots"),
        pytest.param("//srv/data", "/srv/data", id="slashes in the setting"),
        pytest.param("/srv/data", "/srv/data/..acme", id="dots in a name"),
        pytest.param(SOCKET, SOCKET, id="the socket, named by the operator"),
        pytest.param("/", "/", id="the root, named by the operator"),
        pytest.param("/etc", "/etc/app", id="below a precious path that is named"),
        pytest.param("/etc/app", "/etc/app/conf.d", id="below a part of a precious path"),
        pytest.param("/run/user", "/run/user/1000", id="below a part of /run"),
    ],
)
def test_a_path_below_an_allowed_one_may_be_mounted(allowed: str, source: str) -> None:
    """An allowed host path opens itself and what lies below, however it is written."""
    policy = Policy(volumes=(allowed,), shared_volumes=True)

    assert faults(policy, volumes=(f"{source}:/data",)) == ()


@pytest.mark.parametrize(
    ("allowed", "source"),
    [
        pytest.param("/srv/data", "/srv", id="above"),
        pytest.param("/srv/data", "/srv/database", id="same beginning"),
        pytest.param("/srv/data", "/srv/data/../secret", id="up and out"),
        pytest.param("/srv/data", "/srv/data/..", id="up"),
        pytest.param("/srv/data", "/srv/x/../data", id="up and in"),
        pytest.param("/srv/data", "//etc/shadow", id="two slashes"),
        pytest.param("/srv/data", "srv", id="a volume's name"),
        pytest.param("srv", "/srv", id="a path for a volume's name"),
        pytest.param("/", "/srv", id="the root opens only itself"),
        pytest.param("/", SOCKET, id="the root does not open the socket"),
        pytest.param("/var", SOCKET, id="/var does not open the socket"),
        pytest.param("/var/run", SOCKET, id="its folder does not open the socket"),
        pytest.param("/var/run", f"{SOCKET}/", id="nor with a slash behind"),
        pytest.param("/run", "/run//docker.sock", id="nor by another way"),
        pytest.param("/srv", "/srv/docker.sock", id="nor wherever it lies"),
        pytest.param("/var", "/var/run", id="precious path below"),
        pytest.param("/var", "/var/lib", id="what a precious path lies in"),
        pytest.param("/var", "/var/lib/docker/volumes", id="below a precious path"),
        pytest.param("/", "/proc", id="/proc"),
        pytest.param("/", "/etc/app", id="below /etc"),
    ],
)
def test_other_paths_may_not_be_mounted(allowed: str, source: str) -> None:
    """No spelling gets out of an allowed path; what owns the host needs to be named exactly."""
    policy = Policy(volumes=(allowed,), shared_volumes=True)

    refused = faults(policy, volumes=(f"{source}:/data",))

    assert refused == (
        Fault(
            "provider_config.volumes[0]",
            f"compute.policy.volumes allows only {allowed}, got {source!r}",
        ),
    )


@pytest.mark.parametrize("source", [SOCKET, "/", "/srv", "data"])
def test_nothing_may_be_mounted_by_default(source: str) -> None:
    """Without a setting there is no host path and no named volume for anybody."""
    (fault,) = faults(volumes=(f"{source}:/data",))

    assert "allows only nothing" in fault.rule


# --- what everybody gets ----------------------------------------------------------------------


def test_hardening_is_always_there() -> None:
    """A spec that asks for nothing gets fewer capabilities, no new privileges, a process limit."""
    hardened = harden(make_spec(), Policy())

    assert hardened.cap_drop == ("NET_RAW",)
    assert hardened.security_opt == (NO_NEW_PRIVILEGES,)
    assert hardened.pids_limit == 1024


def test_hardening_changes_nothing_else() -> None:
    """All that the tenant asked for is kept."""
    spec = make_spec(cap_drop=("CHOWN",), pids_limit=10, env=(("A", "1"),))

    hardened = harden(spec, Policy())

    assert hardened == replace(
        spec, cap_drop=("CHOWN", "NET_RAW"), security_opt=(NO_NEW_PRIVILEGES,)
    )


def test_hardening_twice_is_hardening_once() -> None:
    """A hardened spec is left as it is, so its fingerprint stays."""
    once = harden(make_spec(cap_drop=("CHOWN",)), Policy())

    assert harden(once, Policy()) == once


def test_a_capability_that_was_allowed_is_not_dropped() -> None:
    """What the tenant may add, and did, is kept; everybody else still loses it."""
    policy = Policy(cap_add=("NET_RAW",), cap_drop=("MKNOD", "NET_RAW"))

    assert harden(make_spec(cap_add=("NET_RAW",)), policy).cap_drop == ("MKNOD",)
    assert harden(make_spec(), policy).cap_drop == ("MKNOD", "NET_RAW")


@pytest.mark.parametrize("option", ["no-new-privileges", "no-new-privileges:true"])
def test_no_new_privileges_is_not_said_twice(option: str) -> None:
    """A tenant that asks for it itself gets it once, beside its other options."""
    spec = make_spec(security_opt=("label=disable", option))

    assert harden(spec, Policy()).security_opt == ("label=disable", option)


@pytest.mark.parametrize("option", ["no-new-privileges:false", "no-new-privileges=0"])
def test_no_new_privileges_is_never_turned_off(option: str) -> None:
    """Also where the operator's list lets the option pass, or the operator's defaults bring it."""
    policy = Policy(security_opt=(option, "label=disable"))
    spec = make_spec(security_opt=(option, "label=disable"))

    hardened = harden(spec, policy)

    assert hardened.security_opt == ("label=disable", NO_NEW_PRIVILEGES)
    assert harden(hardened, policy) == hardened


def test_the_default_of_processes_stays_below_the_ceiling() -> None:
    """A ceiling below the default holds for tenants that set no limit, too."""
    assert harden(make_spec(), Policy(pids_limit=1024, max_pids=100)).pids_limit == 100


# --- the way in -------------------------------------------------------------------------------


def delivery(body: bytes, kind: EventKind = EventKind.CREATED) -> Delivery:
    """Return a delivery of a tenant event."""
    no_headers: Mapping[str, object] = {}
    return Delivery(
        body=body,
        tag=1,
        session=1,
        received_at=MOMENT,
        routing_key=kind.value,
        headers=no_headers,
        properties=no_headers,
        message_id="event-1",
    )


def created(provider_config: str = "{}") -> Delivery:
    """Return a tenant event that asks for 3000 millicores."""
    return delivery(
        b'{"tenant_id": "acme-corp", "containers": [{"image": "nginx"}],'
        b' "resources": {"cpu": 3000}, "provider_config": ' + provider_config.encode() + b"}"
    )


def test_an_admitted_event_carries_a_hardened_spec() -> None:
    """What comes in by `admit` is decoded and hardened."""
    event = Admission(defaults=SpecDefaults(), policy=Policy()).admit(created())

    assert event.spec is not None
    assert (event.tenant_id, event.spec.image) == (TENANT_ID, "nginx")
    assert event.spec == harden(event.spec, Policy())


def test_a_denied_event_is_no_event() -> None:
    """A spec that breaks the policy is refused with its tenant, its event and every fault."""
    admission = Admission(defaults=SpecDefaults(), policy=Policy(max_cpu=1000))

    with pytest.raises(InvalidMessage) as denied:
        admission.admit(created('{"privileged": true}'))

    assert denied.value.reason == Reason.POLICY_DENIED
    assert (denied.value.tenant_id, denied.value.event_id) == (TENANT_ID, "event-1")
    assert [fault.field for fault in denied.value.faults] == [
        "resources.cpu",
        "provider_config.privileged",
    ]


def test_the_host_limits_hold_once_the_engine_has_been_asked() -> None:
    """Before the engine tells of its host nothing is too large; afterwards it is."""
    admission = Admission(defaults=SpecDefaults(), policy=Policy())
    before = admission.admit(created())

    admission.learn(FACTS)

    assert before.spec is not None
    with pytest.raises(InvalidMessage, match="at most 2000"):
        admission.admit(created())


def test_an_event_without_a_document_breaks_no_policy() -> None:
    """A delete is admitted whatever the policy says."""
    admission = Admission(defaults=SpecDefaults(), policy=Policy(images=()))

    event = admission.admit(delivery(b'{"tenant_id": "acme-corp"}', EventKind.DELETED))

    assert (event.kind, event.spec) == (EventKind.DELETED, None)


@pytest.mark.parametrize(
    "envelope",
    [
        pytest.param({}, id="the same"),
        pytest.param({"message_id": "event-2"}, id="event id"),
        pytest.param({"message_id": None}, id="no event id"),
        pytest.param({"message_id": "x" * 300}, id="event id too long"),
        pytest.param({"received_at": MOMENT + timedelta(hours=1)}, id="time"),
        pytest.param({"correlation_id": "call-1"}, id="correlation id"),
        pytest.param({"headers": {"traceparent": "00-1-2-03"}}, id="trace"),
        pytest.param({"headers": {"cloudEvents:id": "cloud-1"}}, id="CloudEvents id"),
        pytest.param({"headers": {"cloudEvents_type": "tenant.deleted"}}, id="CloudEvents type"),
        pytest.param({"headers": {"cloudEvents:specversion": "2.0"}}, id="CloudEvents version"),
        pytest.param({"routing_key": "tenant.updated"}, id="updated"),
        pytest.param({"routing_key": "tenant.resumed"}, id="resumed"),
        pytest.param({"event_type": "tenant.updated"}, id="type"),
        pytest.param({"event_type": "tenant.none"}, id="type unknown"),
        pytest.param({"content_type": "application/yaml"}, id="YAML"),
        pytest.param({"content_type": STRUCTURED}, id="structured"),
        pytest.param({"body": make_document(generation=7)}, id="generation"),
        pytest.param({"body": b"{}"}, id="another body"),
    ],
)
def test_what_was_admitted_before_makes_no_difference(envelope: dict[str, object]) -> None:
    """A document that comes again is not read again, but its envelope is."""

    def admit(admission: Admission, delivery: Delivery) -> object:
        try:
            return admission.admit(delivery)
        except InvalidMessage as error:
            return (error.reason, error.faults, error.tenant_id, error.event_id)

    again = replace(make_delivery(1), tag=2, **envelope)  # type: ignore[arg-type]  # checked at run time
    used, fresh = (Admission(defaults=SpecDefaults(), policy=Policy()) for _ in range(2))
    admit(used, make_delivery(1))
    admit(used, again)

    assert admit(used, again) == admit(fresh, again)


def test_a_body_admitted_as_yaml_is_no_json() -> None:
    admission = Admission(defaults=SpecDefaults(), policy=Policy())
    as_yaml = make_delivery(1, body=b"tenant_id: acme-corp", content_type="application/yaml")
    as_yaml = replace(as_yaml, routing_key="tenant.deleted")

    assert admission.admit(as_yaml).tenant_id == TENANT_ID
    with pytest.raises(InvalidMessage):
        admission.admit(replace(as_yaml, content_type="application/json"))
