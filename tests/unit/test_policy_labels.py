"""Label keys that tools act upon, and those that are a tenant's to choose."""

import pytest

from consumer.policy_labels import is_reserved


@pytest.mark.parametrize(
    "key",
    [
        "landlord.tenant_id",
        "other.tenant_id",
        "Other.Tenant_ID",
        "acme.landlord.tenant_id",
        "a-b.instance",
        "x.generation",
        "x.y.container_name",
        "other.owner",
        "other.spec",
        "other.schema",
        "other.provider",
        "other.secrets",
        "com.docker.compose.project",
        "traefik.enable",
        "Traefik.http.routers.a.rule",
        "io.podman.compose.project",
        "io.containers.autoupdate",
        "com.centurylinklabs.watchtower.enable",
        "ofelia.job-exec.a.command",
        "caddy",
        "caddy_0.reverse_proxy",
        "other.ledger",
        "other.serial",
        # Agents that run what stands there: checks of any kind, commands before a backup.
        "com.datadoghq.ad.checks",
        "co.elastic.logs/raw",
        "prometheus.io/scrape",
        "docker-volume-backup.exec-pre",
        "io.portainer.accesscontrol.public",
    ],
)
def test_a_key_that_a_tool_acts_upon_is_reserved(key: str) -> None:
    """Ours under any prefix, and those of other tools."""
    assert is_reserved(key, ())


@pytest.mark.parametrize(
    "key",
    [
        "team",
        "owner",
        "tenant_id",
        "com.example.owner",
        "com.example.team.schema",
        "org.opencontainers.image.version",
        "traefikish.enable",
        "com.dockerish",
        "x.tenant_id.y",
        "x.tenant_ids",
        " landlord.tenant_id",
    ],
)
def test_a_key_that_only_describes_is_free(key: str) -> None:
    """Everyday words under somebody's own domain are nobody else's."""
    assert not is_reserved(key, ())


@pytest.mark.parametrize(
    ("key", "entry"),
    [
        ("traefik.enable", "traefik.enable"),
        ("traefik.http.routers.a.rule", "traefik.*"),
        ("Traefik.enable", "traefik.*"),
        ("other.owner", "other.owner"),
    ],
)
def test_what_the_operator_lists_is_free(key: str, entry: str) -> None:
    """Exactly, or with an asterisk for all below."""
    assert not is_reserved(key, ("x", entry))
    assert is_reserved(key, ("x", entry[:-1] + "?"))
