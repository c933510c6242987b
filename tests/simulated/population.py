"""Tenants by the thousand, each with a spec of its own, and their containers on a simulated host.

Both sides make them from the number alone: whoever fills a ledger for them knows what the engine,
in another process, holds.
"""

from collections.abc import Iterator

from consumer.adapters.docker_spec import Naming, to_create_document, to_labels
from consumer.document import SpecDefaults, read_document, to_spec
from consumer.model import Role, TenantId, TenantSpec
from consumer.policy import Policy, harden
from tests.simulated.host import SimulatedHost

IMAGE = "landlord-simulated/web:1"
_DEFAULTS = SpecDefaults()


def tenant_id(number: int) -> TenantId:
    return TenantId(f"tenant-{number:05}")


def document(number: int) -> dict[str, object]:
    """Return the tenant's document: no two have the same spec."""
    env = {"TENANT": str(number), "LOG_LEVEL": "info", "LISTEN": "0.0.0.0:8080"}
    return {
        "tenant_id": tenant_id(number),
        "containers": [{"image": IMAGE, "env": env, "ports": [{"container_port": 8080}]}],
        "resources": {"cpu": 500, "memory": 256},
    }


def spec(number: int) -> TenantSpec:
    """Return the spec that a consumer with the usual settings makes of the document."""
    return harden(to_spec(read_document(document(number), _DEFAULTS), _DEFAULTS), Policy())


def population(count: int) -> Iterator[tuple[TenantId, TenantSpec]]:
    """Return the first so many tenants."""
    return ((tenant_id(number), spec(number)) for number in range(count))


def settle(host: SimulatedHost, naming: Naming, count: int) -> None:
    """Have the containers of so many tenants run on the host."""
    host.add_image(IMAGE)
    for tenant, wanted in population(count):
        labels = to_labels(naming, tenant, wanted, None, 1)
        asked = to_create_document(wanted, labels, network="bridge", bind_address="0.0.0.0")
        name = naming.container(tenant, Role.CURRENT)
        host.create(name, asked)
        host.start(name)
