"""The contract's documents hold on the wire: their examples run, and what is told is valid."""

from collections.abc import Mapping
from pathlib import Path

import pytest
import yaml
from jsonschema import Draft7Validator

from consumer.contract import TENANT_EVENT_EXAMPLES
from consumer.model import EventKind
from deploy.lab.servers import Broker, DockerHost
from tests.e2e.commands import command, settings_of
from tests.e2e.world import World, make_document

pytestmark = [pytest.mark.docker, pytest.mark.rabbitmq]

LIFE = {
    EventKind.CREATED: ("running", "started"),
    EventKind.UPDATED: ("running", "updated"),
    EventKind.SUSPENDED: ("stopped", "suspended"),
    EventKind.RESUMED: ("running", "resumed"),
    EventKind.DELETED: ("stopped", "deleted"),
}
"""What each example comes to, one after the other."""


async def served(world: World) -> dict[str, dict[str, dict[str, object]]]:
    """Return the components of the AsyncAPI document as the consumer serves it."""
    code, text = await world.consumer.http_get("/asyncapi.yaml")
    assert code == 200, text
    components: dict[str, dict[str, dict[str, object]]] = yaml.safe_load(text)["components"]
    return components


def faults(document: object, schema: object, components: object) -> list[str]:
    """Return what the schema, which may refer to the components, says against the document."""
    assert isinstance(schema, dict)
    whole = {**schema, "components": components}
    return [error.message for error in Draft7Validator(whole).iter_errors(document)]


async def test_the_examples_are_a_tenants_life(world: World) -> None:
    """Each example runs as it stands, and all that is told of it is valid, headers included."""
    components = await served(world)
    told = components["messages"]["statusEvent"]
    documents = [TENANT_EVENT_EXAMPLES[kind].payload for kind in LIFE]
    first, later = (image_of(document) for document in documents[:2])
    heard = []

    with world.docker.image(first, port=80), world.docker.image(later, port=80):
        for kind, (state, reason) in LIFE.items():
            body = TENANT_EVENT_EXAMPLES[kind].payload
            await world.publisher.publish(kind.removeprefix("tenant."), body)
            heard.append(
                await world.subscriber.expect_message("acme-corp", state=state, reason=reason)
            )

    found = [
        fault
        for each in heard
        for fault in (
            *faults(each.status, told["payload"], components),
            *faults(dict(each.message.headers), told["headers"], components),
        )
    ]
    assert found == []
    assert [each.status["generation"] for each in heard] == [1, 2, 3, 4, 5]
    assert world.containers("acme-corp") == []


async def test_failures_and_dead_letters_are_as_told(world: World) -> None:
    """A status of a failure and the headers of a dead letter are valid by the document."""
    components = await served(world)
    messages = components["messages"]

    await world.publisher.create(make_document("gone", container={"image": "landlord-test/no:1"}))
    failed = await world.subscriber.expect("gone", state="failed")
    await world.publisher.create(make_document("wrong", resources={"cpu": 1}))
    refused = await world.subscriber.expect("wrong", state="failed", reason="invalid_event")
    letter = await world.clients.take_dead_letter()

    assert faults(failed, messages["statusEvent"]["payload"], components) == []
    assert faults(refused, messages["statusEvent"]["payload"], components) == []
    assert faults(dict(letter.headers), messages["deadLetter"]["headers"], components) == []


async def test_what_is_served_is_what_is_printed(
    world: World, broker: Broker, docker_host: DockerHost, tmp_path: Path
) -> None:
    """`landlord-consumer asyncapi` with the same settings prints what the consumer serves."""
    _, text = await world.consumer.http_get("/asyncapi.yaml")
    settings = settings_of(world.names, broker, docker_host, tmp_path)

    printed = command("asyncapi", folder=tmp_path, **settings)

    assert printed.stdout == text
    assert world.names.status_exchange in text


def image_of(document: Mapping[str, object]) -> str:
    """Return the image of the document's container."""
    containers = document["containers"]
    assert isinstance(containers, list)
    return str(containers[0]["image"])
