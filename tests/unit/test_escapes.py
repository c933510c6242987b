"""Attempts to get out: each is refused with one clear reason, and nothing else is said of it.

What only looks like an attempt is kept, and shown to be harmless: see the second table.
"""

import pytest

from consumer.document import SpecDefaults
from consumer.errors import Fault, InvalidMessage
from consumer.model import Reason
from consumer.policy import Admission, Policy
from tests.builders import make_delivery, make_document

ADMISSION = Admission(defaults=SpecDefaults(), policy=Policy(volumes=("/srv/tenants", "data")))
IMAGE = {"image": "nginx"}
LABEL_RULE = "keys under landlord. are reserved"


def with_container(**fields: object) -> bytes:
    return make_document(containers=[IMAGE | fields])


def with_config(**fields: object) -> bytes:
    return make_document(provider_config=fields)


def with_env(*pairs: str) -> bytes:
    """Return a document with this in the braces of its environment."""
    inner = ", ".join(pairs)
    return make_document(containers=["env"]).replace(
        b'"env"', b'{"image": "nginx", "env": {' + inner.encode() + b"}}"
    )


def alias_bomb() -> bytes:
    """Return YAML that would grow to ten to the ninth texts."""
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 9)]
    return "\n".join((*lines, "tenant_id: acme-corp")).encode()


VOLUME = "compute.policy.volumes allows only /srv/tenants, data, got "
DENIED = {
    "privileged": (with_config(privileged=True), "privileged", "compute.policy.privileged"),
    "the host's network": (with_config(network_mode="host"), "network_mode", "got 'host'"),
    "a container's network": (
        with_config(network_mode="container:landlord-tenant-other"),
        "network_mode",
        "got 'container:landlord-tenant-other'",
    ),
    "all capabilities": (with_config(cap_add=["ALL"]), "cap_add", "got 'ALL'"),
    "no seccomp": (
        with_config(security_opt=["seccomp=unconfined"]),
        "security_opt",
        "got 'seccomp=unconfined'",
    ),
    "new privileges": (
        with_config(security_opt=["no-new-privileges=false"]),
        "security_opt",
        "got 'no-new-privileges=false'",
    ),
    "another runtime": (with_config(runtime="runc-debug"), "runtime", "got 'runc-debug'"),
    "a log that leaves the host": (with_config(log_driver="syslog"), "log_driver", "got 'syslog'"),
    **{
        f"mounting {source}": (
            with_config(volumes=[f"{source}:/mnt"]),
            "volumes[0]",
            f"{VOLUME}{source!r}",
        )
        for source in (
            "/var/run/docker.sock",
            "/run/docker.sock",
            "//var//run///docker.sock",
            "/var/run/./docker.sock",
            "/srv/tenants/../../var/run/docker.sock",
            "/srv/tenants/..",
            "/srv/tenants/../tenants-of-others",
            "/srv/tenants/docker.sock",
            "/",
            "//",
            "/.",
            "/proc/1/root",
            "/proc/self/root/srv/tenants",
            "/etc",
            "/var/lib/docker",
            "/srv/Tenants",
            "other",
        )
    },
}


@pytest.mark.parametrize(("body", "key", "words"), DENIED.values(), ids=DENIED)
def test_the_policy_denies_it_in_one_sentence(body: bytes, key: str, words: str) -> None:
    """What reaches for the host or a neighbour is denied, by its field and the setting."""
    (fault,) = refusal(body, Reason.POLICY_DENIED)

    assert fault.field == f"provider_config.{key}"
    assert "compute.policy." in fault.rule
    assert words in fault.rule


INVALID = {
    **{
        f"label {key!r}": (make_document(labels={key: "x"}), "labels", LABEL_RULE)
        for key in ("landlord.tenant_id", "landlord.instance", "landlord.", "landlord.anything")
    },
    "label below provider_config": (
        with_config(labels={"landlord.tenant_id": "other"}),
        "provider_config.labels",
        LABEL_RULE,
    ),
    "label with a control character": (
        make_document(labels={"\nlandlord.tenant_id": "x"}),
        "labels",
        "without control characters",
    ),
    **{
        f"tenant {tenant!r}": (make_document(tenant), "tenant_id", "has to be 1 to 128")
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
    "tenant with NUL": (make_document("a\x00b"), "tenant_id", "must not contain a NUL character"),
    "tenant as a number": (make_document().replace(b'"acme-corp"', b"7"), "tenant_id", "string"),
    "10,000 env names": (
        with_container(env={f"A{number}": "" for number in range(10_000)}),
        "containers[0].env",
        "has 10000 entries, at most 1000 are taken",
    ),
    "10,000 env names without a value": (
        with_container(env={f"A{number}": None for number in range(10_000)}),
        "containers[0].env",
        "has 10000 entries, at most 1000 are taken",
    ),
    "2,000 ports": (
        with_container(ports=[{"container_port": n} for n in range(1, 2001)]),
        "containers[0].ports",
        "has 2000 entries, at most 256 are taken",
    ),
    "5 MB": (
        with_container(env={"A": "x" * 5_000_000}),
        "",
        "bytes, at most 262144 are taken",
    ),
    "a variable that no process can be given": (
        with_container(env={"LONG": "x" * 131_067}),
        "containers[0].env",
        "LONG=… has to be at most 131071 bytes",
    ),
    "an argument that no process can be given": (
        with_container(args=["x" * 131_072]),
        "containers[0].args[0]",
        "has to be at most 131071 bytes",
    ),
    "NUL in a value": (with_env(r'"A": "a\u0000b"'), "containers[0].env.A", "NUL character"),
    "NUL in a name": (with_env(r'"A\u0000B": "a"'), "containers[0].env", "NUL"),
    "equals sign in a name": (with_env('"A=B": "a"'), "containers[0].env", "must not be empty nor"),
    "null": (with_env('"A": null'), "containers[0].env.A", "string"),
    "a list for a value": (with_env('"A": ["x"]'), "containers[0].env.A", "string"),
    "the same name twice": (with_env('"A": "1", "A": "2"'), "", "'A'"),
    "not a number": (with_env('"A": NaN'), "", "NaN"),
    "no end of numbers": (with_env('"A": -Infinity'), "", "Infinity"),
    "a huge integer for a limit": (
        make_document(resources={"cpu": 10**300}),
        "resources.cpu",
        "less than or equal to 1000000",
    ),
    "a huge float for a limit": (
        make_document(resources={"memory": "m"}).replace(b'"m"', b"1e999"),
        "resources.memory",
        "integer",
    ),
    "an endless integer": (
        make_document(resources={"cpu": "c"}).replace(b'"c"', b"9" * 100_000),
        "",
        "digits",
    ),
    "nested without end": (with_env('"A": ' + "[" * 50_000), "", ""),
}


@pytest.mark.parametrize(("body", "field", "words"), INVALID.values(), ids=INVALID)
def test_the_document_is_refused_in_one_sentence(body: bytes, field: str, words: str) -> None:
    """What no document may say is refused at its field, however much of it there is."""
    (fault,) = refusal(body, Reason.INVALID_EVENT)

    assert fault.field == field
    assert words in fault.rule


@pytest.mark.parametrize(
    ("body", "words"),
    [
        pytest.param(alias_bomb(), "aliases are refused", id="bomb"),
        pytest.param(b"tenant_id: a\ntenant_id: b", "'tenant_id'", id="one key twice"),
        pytest.param(b"tenant_id: !!python/object:os.system a", "tag", id="a tag"),
        pytest.param(b"tenant_id: a\n---\ntenant_id: b", "document", id="two documents"),
        pytest.param(b"a: " + b"[" * 2000, "nested too deeply", id="nested without end"),
    ],
)
def test_hostile_yaml_is_refused_in_one_sentence(body: bytes, words: str) -> None:
    """Nothing of YAML's that grows, runs or surprises is taken."""
    (fault,) = refusal(body, Reason.INVALID_EVENT, content_type="application/yaml")

    assert words in fault.rule


HARMLESS = {
    "newlines in a value": (with_env(r'"A": "a\nB=c\r\n"'), "env", (("A", "a\nB=c\r\n"),)),
    "an escape in a value": (with_env(r'"A": "\u001b[31m"'), "env", (("A", "\x1b[31m"),)),
    "a huge integer in a value": (with_env(f'"A": 1{"0" * 60}'), "env", (("A", "1" + "0" * 60),)),
    "a huge number in a value": (with_env('"A": 1e999'), "env", (("A", "1e999"),)),
    "a name like a setting of ours": (
        with_env('"LANDLORD_BROKER__URL": "amqp://evil"'),
        "env",
        (("LANDLORD_BROKER__URL", "amqp://evil"),),
    ),
    # Labels are told apart by case and by every sign: these are never taken for ours.
    "labels of another case": (
        make_document(labels={"Landlord.tenant_id": "x", " landlord.tenant_id": "y"}),
        "labels",
        ((" landlord.tenant_id", "y"), ("Landlord.tenant_id", "x")),
    ),
    "1,000 env names": (
        with_container(env={f"A{number:03}": "" for number in range(1000)}),
        "env",
        tuple((f"A{number:03}", "") for number in range(1000)),
    ),
    "the longest variable": (
        with_container(env={"LONG": "x" * 131_066}),
        "env",
        (("LONG", "x" * 131_066),),
    ),
}


@pytest.mark.parametrize(("body", "field", "kept"), HARMLESS.values(), ids=HARMLESS)
def test_what_is_harmless_is_kept_as_it_came(body: bytes, field: str, kept: object) -> None:
    """What the contract lets a tenant say is not touched."""
    event = ADMISSION.admit(make_delivery(1, body=body))

    assert getattr(event.spec, field) == kept


def refusal(body: bytes, reason: Reason, *, content_type: str | None = None) -> tuple[Fault, ...]:
    """Return the faults for which the event is refused; none of them is long."""
    with pytest.raises(InvalidMessage) as refused:
        ADMISSION.admit(make_delivery(1, body=body, content_type=content_type))
    assert refused.value.reason == reason
    assert max(len(str(fault)) for fault in refused.value.faults) < 300
    return refused.value.faults
