"""What the operator sets for every tenant: it lies under and over documents, and opens nothing."""

import json
from pathlib import Path

import pytest

from consumer.errors import InvalidMessage, SettingsError
from consumer.model import TenantId, TenantSpec, Ulimit
from consumer.settings import load
from consumer.wiring import admission, check_provider_config
from tests.builders import TENANT_ID, make_delivery, make_document

FORCE = {
    "cap_drop": ["ALL"],
    "security_opt": ["apparmor=tenants"],
    "user": "1000:1000",
    "read_only": True,
    "ulimits": {"nofile": {"soft": 100, "hard": 200}},
    "restart_policy": "on-failure:3",
    "pids_limit": 50,
    "log_driver": "journald",
    "log_options": {"tag": "{{.Name}}"},
}


class Operator:
    """A consumer's policy, by its settings."""

    def __init__(self, **settings: object) -> None:
        environ = {
            f"LANDLORD_COMPUTE__{key}": text if isinstance(text, str) else json.dumps(text)
            for key, text in settings.items()
        }
        self.settings = load(Path("/dev/null"), environ)
        self.admission = admission(self.settings)

    def spec(self, **config: object) -> TenantSpec:
        """Return what becomes of a document with this `provider_config`."""
        body = make_document(provider_config=config)
        spec = self.admission.admit(make_delivery(1, body=body)).spec
        assert spec is not None
        return spec

    def denial(self, **config: object) -> str:
        """Return why such a document is refused."""
        with pytest.raises(InvalidMessage) as refused:
            self.spec(**config)
        return str(refused.value)

    def now_against(self, spec: TenantSpec) -> str:
        """Return what the policy has against a recorded spec."""
        return "; ".join(map(str, self.admission.admits(TenantId(TENANT_ID), spec)))


def test_what_is_forced_cannot_be_taken_back() -> None:
    """Whatever a tenant says of these options, it has what the operator says."""
    operator = Operator(POLICY__FORCE=FORCE)
    bare = operator.spec()

    asked = operator.spec(
        cap_drop=[],
        security_opt=[],
        user="0",
        read_only=False,
        ulimits={"nofile": {"soft": 1048576, "hard": 1048576}},
        restart_policy="always",
        pids_limit=4096,
        log_driver="json-file",
        log_options={"max-size": "1m"},
    )

    assert asked == bare
    assert (bare.user, bare.read_only, bare.pids_limit) == ("1000:1000", True, 50)
    assert bare.cap_drop == ("ALL", "NET_RAW")
    assert bare.security_opt == ("apparmor=tenants", "no-new-privileges")
    assert bare.ulimits == (Ulimit("nofile", 100, 200),)
    assert (bare.log_driver, bare.log_options) == ("journald", (("tag", "{{.Name}}"),))


def test_maps_keep_what_is_not_forced_and_a_tenant_may_do_with_less() -> None:
    """Force lies over a document as defaults lie under it: maps merge, lists replace."""
    operator = Operator(
        POLICY__FORCE={
            "cap_drop": ["MKNOD"],
            "labels": {"team": "ours"},
            "ulimits": {"core": {"soft": 0, "hard": 0}},
        }
    )

    spec = operator.spec(
        cap_drop=["CHOWN"],
        labels={"team": "theirs", "tier": "gold"},
        ulimits={"nofile": {"soft": 1, "hard": 2}},
    )

    assert spec.cap_drop == ("CHOWN", "MKNOD", "NET_RAW")
    assert spec.labels == (("team", "ours"), ("tier", "gold"))
    assert spec.ulimits == (Ulimit("core", 0, 0), Ulimit("nofile", 1, 2))


def test_the_rest_of_the_policy_holds_beside_what_is_forced() -> None:
    """An option that is forced opens no other, nor another value of its map."""
    operator = Operator(POLICY__FORCE=FORCE | {"labels": {"traefik.enable": "false"}})

    assert "compute.policy.privileged" in operator.denial(privileged=True)
    assert "traefik.http" in operator.denial(labels={"traefik.http.routers.a.rule": "x"})
    assert "rtprio" in operator.denial(ulimits={"rtprio": {"soft": 1, "hard": 1}})


def test_the_operators_volumes_open_nothing_to_tenants() -> None:
    """A tenant gets them as they stand, each with its own id, and may ask for no others."""
    own, shared = "/srv/tenants/{tenant_id}:/data", "/srv/models:/models:ro"
    operator = Operator(DOCKER__PROVIDER_CONFIG={"volumes": [own, shared]})

    mine = own.format(tenant_id=TENANT_ID)
    assert operator.spec().volumes == (mine, shared)
    assert operator.spec(volumes=[mine]).volumes == (mine,)
    for volume in (
        "/srv/tenants/other:/data",
        f"/srv/tenants/{TENANT_ID}:/elsewhere",
        "/srv/models:/models",
        "/srv/models/below:/models:ro",
    ):
        assert "compute.policy.volumes allows only nothing" in operator.denial(volumes=[volume])


def test_options_of_another_log_driver_are_not_laid_under_a_document() -> None:
    """A tenant that chooses another driver than the operator's does not get that one's options."""
    operator = Operator(
        POLICY__LOG_DRIVERS="syslog, local",
        DOCKER__PROVIDER_CONFIG={
            "log_driver": "syslog",
            "log_options": {"syslog-address": "udp://192.0.2.1:514"},
        },
    )

    assert operator.spec().log_options == (("syslog-address", "udp://192.0.2.1:514"),)
    assert operator.spec(log_driver="local").log_options == (
        ("max-file", "3"),
        ("max-size", "10m"),
    )


@pytest.mark.parametrize(
    ("force", "fault"),
    [
        ({"restart_policy": "x"}, "compute.policy.force.restart_policy: has to be no, always"),
        ({"replicas": 2}, "compute.policy.force.replicas: unknown field"),
        ({"cap_drop": ["X"]}, "compute.policy.force.cap_drop[0]: has to be a capability"),
    ],
)
def test_what_is_forced_wrongly_stops_the_start(force: object, fault: str) -> None:
    """The key is named; every tenant would be refused for it."""
    with pytest.raises(SettingsError) as refused:
        check_provider_config(Operator(POLICY__FORCE=force).settings)

    assert str(refused.value).startswith(fault)


def test_a_recorded_spec_has_to_have_what_is_forced_by_now() -> None:
    """Before it is made or started again; a document that is published again has it."""
    recorded = Operator().spec(ulimits={"core": {"soft": 0, "hard": 0}})

    for key, value in FORCE.items():
        forced = {key: value} if key != "log_options" else {"log_driver": "journald", key: value}
        operator = Operator(POLICY__FORCE=forced)

        assert f"provider_config.{key}: was recorded before" in operator.now_against(recorded)
        assert operator.now_against(operator.spec()) == ""
    assert "compute.policy.cap_drop" in Operator(POLICY__CAP_DROP="KILL").now_against(recorded)
    assert Operator().now_against(recorded) == ""


def test_a_list_that_is_forced_is_all_that_a_recorded_spec_may_have() -> None:
    """What a tenant was once allowed beside it is not kept by what is forced now."""
    option = "seccomp=unconfined"
    lenient = Operator(POLICY__SECURITY_OPT=f"{option}, apparmor=tenants")
    recorded = lenient.spec(security_opt=["apparmor=tenants", option])

    operator = Operator(POLICY__FORCE={"security_opt": ["apparmor=tenants"]})

    assert "provider_config.security_opt" in operator.now_against(recorded)
    assert operator.now_against(operator.spec(security_opt=[option])) == ""


def test_a_forced_volume_has_to_be_in_a_recorded_spec() -> None:
    """With the tenant's own id in it."""
    operator = Operator(POLICY__FORCE={"volumes": ["/srv/{tenant_id}:/data"]})

    assert "volumes" in operator.now_against(Operator().spec())
    assert operator.now_against(operator.spec(volumes=["x:/y"])) == ""


def test_what_a_log_may_have_is_at_most_what_the_operator_says() -> None:
    """The usual size gives way to a smaller ceiling; a tenant may ask up to it."""
    operator = Operator(POLICY__LOG_MAX_SIZE="1m")

    assert dict(operator.spec().log_options)["max-size"] == "1m"
    assert "64k to 1m" in operator.denial(log_options={"max-size": "1.1m"})
    with pytest.raises(SettingsError, match="has to be a size"):
        Operator(POLICY__LOG_MAX_SIZE="1k")


def test_the_operators_volume_below_a_tenants_is_held_to_where_it_leads(tmp_path: Path) -> None:
    """A tenant that exchanges it for a link has it mounted no more, forced or not."""
    own, config = f"{tmp_path}/{{tenant_id}}", f"{tmp_path}/{{tenant_id}}/config"
    (tmp_path / TENANT_ID / "config").mkdir(parents=True)
    given = {"volumes": [f"{own}:/data", f"{config}:/config:ro"]}
    operators = [Operator(DOCKER__PROVIDER_CONFIG=given), Operator(POLICY__FORCE=given)]

    recorded = [operator.spec() for operator in operators]
    before = [them.now_against(spec) for them, spec in zip(operators, recorded, strict=True)]
    (tmp_path / TENANT_ID / "config").rmdir()
    (tmp_path / TENANT_ID / "config").symlink_to("/")

    assert before == ["", ""]
    for operator, spec in zip(operators, recorded, strict=True):
        assert "may lead out of it by a link" in operator.now_against(spec)


def test_forced_labels_cannot_be_taken_back_by_the_documents_own() -> None:
    """Wherever the document has its labels."""
    operator = Operator(POLICY__FORCE={"labels": {"team": "ops"}})
    labels = {"team": "theirs", "colour": "blue"}

    body = make_document(labels=labels, provider_config={"labels": labels})
    spec = operator.admission.admit(make_delivery(1, body=body)).spec

    assert spec is not None
    assert dict(spec.labels) == {"team": "ops", "colour": "blue"}
    assert operator.now_against(spec) == ""
