"""A user who may not ask for a name: `run` takes it to be there, and `check` says so.

From RabbitMQ 4.3 on that is the tenant exchange under least rights, which
`tests/e2e/test_definitions.py` shows there. Older brokers refuse nobody the question but for the
exchange without a name.
"""

import pytest

from consumer.adapters import rabbitmq_topology
from consumer.adapters.rabbitmq_checkup import look_at_broker
from consumer.adapters.rabbitmq_topology import BrokerLink, Topology
from consumer.errors import TopologyMismatch
from deploy.lab.names import remove_names
from deploy.lab.servers import Broker
from tests.contract.brokers import fresh_names, topology_of

pytestmark = pytest.mark.rabbitmq


async def test_a_name_that_may_not_be_asked_for_is_taken_to_be_there(broker: Broker) -> None:
    """Neither missing nor a fault; one that is missing is still told by its name."""
    names, link = fresh_names(), BrokerLink(url=broker.url)
    topology = topology_of(names)
    forbidden = Topology(
        tenant_exchange="",
        queue=topology.queue,
        status_exchange=topology.status_exchange,
        dead_letter=topology.dead_letter,
    )
    async with rabbitmq_topology.connect(link, "test") as connection:
        with pytest.raises(TopologyMismatch, match=names.dead_letter):
            await rabbitmq_topology.check(connection, link, forbidden)
        await rabbitmq_topology.declare(connection, link, topology)
        await rabbitmq_topology.check(connection, link, forbidden)
    sight = await look_at_broker(link, forbidden, is_declaring=False)
    await remove_names(broker.url, names)

    assert (sight.missing, sight.unseen, sight.denied) == ((), ("exchange ",), ())
