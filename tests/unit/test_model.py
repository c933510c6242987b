"""The values everybody speaks of."""

import pytest

from consumer.model import Resources, RestartPolicy, authority
from tests.builders import make_spec


@pytest.mark.parametrize(
    "change",
    [
        {"image": "nginx:1"},
        {"env": (("A", "1"),)},
        {"stop_grace_seconds": 3},
        {"security_opt": ("no-new-privileges",)},
    ],
    ids=lambda change: next(iter(change)),
)
def test_what_takes_a_new_container_has_another_fingerprint(change: dict[str, object]) -> None:
    """So an update of it is noticed, whatever it is about."""
    assert make_spec(**change).fingerprint != make_spec().fingerprint


@pytest.mark.parametrize(
    "change",
    [
        {"resources": Resources(10, 6)},
        {"restart_policy": RestartPolicy("no")},
        {"pull_policy": "always"},
    ],
    ids=lambda change: next(iter(change)),
)
def test_what_is_changed_in_place_has_the_same_fingerprint(change: dict[str, object]) -> None:
    """So an update of it costs no downtime."""
    assert make_spec(**change).fingerprint == make_spec().fingerprint


@pytest.mark.parametrize(
    ("host", "written"),
    [("127.0.0.1", "127.0.0.1:80"), ("::1", "[::1]:80"), ("localhost", "localhost:80")],
)
def test_an_ipv6_address_is_written_in_brackets(host: str, written: str) -> None:
    """So that its port can be told from it."""
    assert authority(host, 80) == written
