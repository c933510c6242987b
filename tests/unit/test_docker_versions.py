"""What newer engines tell and take: recorded of API 1.41, and changed as the API has since."""

import copy
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from consumer.adapters.docker import DockerEngine
from consumer.adapters.docker_client import Endpoint
from consumer.adapters.docker_spec import Naming, to_container, to_create_document, to_sighting
from consumer.model import (
    BoundPort,
    ContainerStatus,
    Document,
    Health,
    HealthCheck,
    PortMapping,
    Transport,
    Ulimit,
)
from tests.builders import TENANT_ID, make_spec

NAMING = Naming()
RECORDED = json.loads((Path(__file__).parent / "data" / "engine-1.41.json").read_text("utf-8"))
"""A healthy container on Docker 20.10, as inspected and as listed."""


def inspected_by(version: tuple[int, int]) -> Document:
    """Return what an engine of this version tells of the recorded container."""
    document: Document = copy.deepcopy(RECORDED["inspected"])
    config, host, network, state = (
        document[part] for part in ("Config", "HostConfig", "NetworkSettings", "State")
    )
    assert isinstance(config, dict)
    assert isinstance(host, dict)
    assert isinstance(network, dict)
    assert isinstance(state, dict)
    if version >= (1, 42):
        del host["KernelMemory"], host["KernelMemoryTCP"]
    if version >= (1, 44):
        for endpoint in network["Networks"].values():
            endpoint["DNSNames"] = ["landlord-tenant-acme-corp", "e4e87a5e68ee"]
    if version >= (1, 48):
        document["ImageManifestDescriptor"] = {"digest": document["Image"], "size": 1}
    if version >= (1, 52):
        document["NetworkSettings"] = {
            name: network[name] for name in ("SandboxID", "SandboxKey", "Ports", "Networks")
        }
        del config["OnBuild"]
    return document


@pytest.mark.parametrize("minor", [41, 42, 44, 48, 52])
def test_a_container_is_the_same_whatever_version_tells_of_it(minor: int) -> None:
    """Nothing is read that a later version leaves out, and nothing that it adds is in the way."""
    container = to_container(inspected_by((1, minor)), NAMING)

    assert (container.tenant_id, container.status) == (TENANT_ID, ContainerStatus.RUNNING)
    assert (container.health, container.stop_grace_seconds) == (Health.HEALTHY, 1)
    assert container.ports == (
        BoundPort(80, Transport.TCP, "0.0.0.0", 8080),
        BoundPort(81, Transport.TCP),
    )
    assert container == to_container(RECORDED["inspected"], NAMING)


@pytest.mark.parametrize(
    "health", [pytest.param(None, id="null"), pytest.param({"Status": "none"}, id="none")]
)
def test_no_health_check_is_told_in_two_ways(health: object) -> None:
    """Both mean that nobody checks."""
    document = inspected_by((1, 52))
    document["State"] = {**RECORDED["inspected"]["State"], "Health": health}

    expected = replace(to_container(RECORDED["inspected"], NAMING), health=Health.NONE)
    assert to_container(document, NAMING) == expected


@pytest.mark.parametrize(
    ("changes", "health"),
    [
        pytest.param({}, Health.HEALTHY, id="in words, as up to 1.51"),
        pytest.param(
            {"Health": {"Status": "unhealthy", "FailingStreak": 3}, "Status": "Up 1 second"},
            Health.UNHEALTHY,
            id="in a field, as from 1.52",
        ),
        pytest.param(
            {"Health": {"Status": "none"}, "Status": "Up 1 second"}, Health.NONE, id="no check"
        ),
    ],
)
def test_a_line_of_the_list_tells_the_health(changes: Document, health: Health) -> None:
    """By its own field where there is one."""
    sighting = to_sighting(RECORDED["listed"] | changes, NAMING)

    assert (sighting.tenant_id, sighting.health) == (TENANT_ID, health)


@pytest.mark.parametrize(
    "deprecated",
    [
        pytest.param({"status": "die", "id": "c" * 64, "from": "web:1"}, id="up to 1.51"),
        pytest.param({}, id="from 1.52"),
    ],
)
def test_an_event_is_read_without_what_is_deprecated(deprecated: Document) -> None:
    """The short forms went with 1.52."""
    line = {
        "Type": "container",
        "Action": "die",
        "Actor": {"ID": "c" * 64, "Attributes": {"landlord.tenant_id": TENANT_ID}},
        "time": 1795613410,
        "timeNano": 1795613410000000000,
        **deprecated,
    }

    event = DockerEngine(endpoint=Endpoint(), naming=NAMING)._event(json.dumps(line).encode())

    assert event is not None
    assert (event.tenant_id, event.action) == (TENANT_ID, "die")


def keys_within(document: object) -> Iterator[str]:
    """Return every key, however deep."""
    if isinstance(document, dict):
        for key, value in document.items():
            yield key
            yield from keys_within(value)
    elif isinstance(document, list):
        for value in document:
            yield from keys_within(value)


def test_nothing_is_sent_that_a_later_version_dropped() -> None:
    """Of everything that a tenant may ask for; and no binding is left to the engine to fill in."""
    spec = make_spec(
        command=("a",),
        args=("b",),
        user="1",
        hostname="h",
        healthcheck=HealthCheck(("CMD", "x"), 1.0, 1.0, 1.0, 1),
        ports=(PortMapping(80, 8080), PortMapping(81)),
        volumes=("/a:/b",),
        tmpfs=(("/t", ""),),
        ulimits=(Ulimit("nofile", 1, 1),),
        shm_size_mb=1,
        secrets=("s",),
    )

    sent = to_create_document(spec, {}, network="tenants", bind_address="0.0.0.0")

    gone = {"MacAddress", "KernelMemory", "KernelMemoryTCP", "OnBuild", "Links", "VolumeDriver"}
    assert gone & set(keys_within(sent)) == set()
    bindings = sent["HostConfig"]["PortBindings"]  # type: ignore[index]  # JSON
    assert list(bindings) == ["80/tcp"]
    assert all(entry["HostPort"] for entry in bindings["80/tcp"])
