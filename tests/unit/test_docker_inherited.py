"""What an image may not bring into a container is overridden; all else is left to it."""

from functools import partial

import pytest

from consumer.adapters.docker_inherited import Inherited, inherited, override
from consumer.policy_labels import is_reserved

RESERVED = partial(is_reserved, allowed=("traefik.enable",))
SECOND = 1_000_000_000


@pytest.mark.parametrize(
    ("config", "brought"),
    [
        ({}, Inherited()),
        ({"Config": None}, Inherited()),
        ({"Config": {"Labels": None, "Healthcheck": None}}, Inherited()),
        ({"Config": {"Labels": {"team": "x", "traefik.enable": "x"}}}, Inherited()),
        ({"Config": {"Healthcheck": {"Interval": SECOND, "StartInterval": 0}}}, Inherited()),
        ({"Config": {"Labels": {"traefik.x": "x"}}}, Inherited(labels=("traefik.x",))),
        (
            {"Config": {"Healthcheck": {"Interval": 10**6, "StartInterval": 10**6}}},
            Inherited(intervals=("Interval", "StartInterval")),
        ),
        ({"Config": {"Healthcheck": {"Interval": -1}}}, Inherited(intervals=("Interval",))),
    ],
)
def test_what_has_to_be_overridden_is_found(config: dict[str, object], brought: Inherited) -> None:
    """Reserved labels, and intervals below a second; tolerant of what is not there."""
    assert inherited(config, RESERVED) == brought


def test_nothing_is_sent_that_an_image_does_not_call_for() -> None:
    """Most create requests stay as they are."""
    document: dict[str, object] = {"Image": "x", "Labels": {"a": "b"}}

    assert override(document, Inherited()) is document


def test_a_document_has_the_last_word() -> None:
    """Its own labels and intervals stay; what it leaves open is not the image's to fill in."""
    document: dict[str, object] = {
        "Image": "x",
        "Labels": {"traefik.x": "ours"},
        "Healthcheck": {"Test": ["CMD", "x"], "Interval": 5 * SECOND},
    }
    brought = Inherited(("traefik.x", "traefik.y"), ("Interval", "StartInterval"))

    assert override(document, brought) == {
        "Image": "x",
        "Labels": {"traefik.x": "ours", "traefik.y": ""},
        "Healthcheck": {"Test": ["CMD", "x"], "Interval": 5 * SECOND, "StartInterval": SECOND},
    }


def test_the_images_own_check_goes_on_at_another_pace() -> None:
    """Without a test in the request the engine takes the image's."""
    assert override({"Image": "x"}, Inherited(intervals=("Interval",))) == {
        "Image": "x",
        "Labels": {},
        "Healthcheck": {"Interval": SECOND},
    }


@pytest.mark.parametrize(
    ("config", "excess"),
    [
        ({"ExposedPorts": {f"{n}/tcp": {} for n in range(20_000)}}, None),
        ({"ExposedPorts": {f"{n}/tcp": {} for n in range(20_001)}}, "has 20001 ports"),
        ({"Volumes": {f"/{n}": {} for n in range(256)}}, None),
        ({"Volumes": {f"/{n}": {} for n in range(257)}}, "has 257 volumes"),
        ({"Labels": {"a": "x" * 1_000_000}}, None),
        ({"Labels": {f"a{n}": "x" * 1000 for n in range(2000)}}, "characters of labels"),
    ],
)
def test_an_image_that_brings_too_much_is_told(
    config: dict[str, object], excess: str | None
) -> None:
    """What cannot be overridden is work for the engine and for whoever lists containers."""
    found = inherited({"Config": config}, RESERVED).excess

    assert found is None if excess is None else excess in str(found)
