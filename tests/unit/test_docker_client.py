"""What an engine tells of itself and of being away is understood."""

import pytest

from consumer.adapters.docker_client import (
    VersionFault,
    as_refused,
    common_version,
    is_unavailable,
)


@pytest.mark.parametrize(
    ("newest", "oldest", "spoken"),
    [
        pytest.param("1.41", "1.12", "v1.41", id="Docker 20.10"),
        pytest.param("1.43", "1.12", "v1.43", id="Docker 24"),
        pytest.param("1.51", "1.24", "v1.51", id="Docker 28"),
        pytest.param("1.52", "1.44", "v1.52", id="Docker 29"),
        pytest.param("1.56", "1.44", "v1.52", id="newer than we know"),
        pytest.param("1.99", "1.60", "v1.60", id="nothing that we know"),
        pytest.param("1.41", "1.24", "v1.41", id="Podman"),
        pytest.param("1.45", None, "v1.45", id="the oldest is not told"),
        pytest.param("2.0", "1.44", "v1.52", id="the next great one"),
    ],
)
def test_the_newest_version_that_both_know_is_spoken(
    newest: str, oldest: str | None, spoken: str
) -> None:
    """Nothing is asked for whose meaning may have changed since, unless nothing else is known.

    (weakness 47)
    """
    assert common_version({"ApiVersion": newest, "MinAPIVersion": oldest}) == spoken


@pytest.mark.parametrize("newest", ["1.40", "1.24", "0.99"])
def test_an_engine_that_is_too_old_is_refused(newest: str) -> None:
    """Its version is told, and which would do."""
    with pytest.raises(VersionFault, match=f"version {newest} of the API .*18.06.*1.41 is the"):
        common_version({"ApiVersion": newest, "Version": "18.06.3"})


@pytest.mark.parametrize(
    "told",
    [
        pytest.param("<html>", id="a page"),
        pytest.param(None, id="nothing"),
        pytest.param({}, id="another API"),
        pytest.param({"ApiVersion": "newest"}, id="no number"),
        pytest.param({"ApiVersion": 1.41}, id="no text"),
    ],
)
def test_what_is_no_engine_is_told_as_such(told: object) -> None:
    """Somebody answers, and not as an engine would."""
    with pytest.raises(VersionFault, match="does not answer as a Docker Engine does"):
        common_version(told)


@pytest.mark.parametrize(
    ("status", "message", "is_so"),
    [
        pytest.param(900, "Cannot connect to Docker Engine", True, id="no connection"),
        pytest.param(502, "<html>Bad Gateway</html>", True, id="a proxy without an engine"),
        pytest.param(503, "<html>Service Unavailable</html>", True, id="a proxy that waits"),
        pytest.param(504, "", True, id="a proxy that gave up"),
        pytest.param(503, "This node is not a swarm manager.", False, id="no swarm manager"),
        pytest.param(500, "driver failed", False, id="a failure of the engine's own"),
        pytest.param(404, "No such container", False, id="an answer"),
    ],
)
def test_being_away_is_told_from_an_answer(status: int, message: str, *, is_so: bool) -> None:
    """Only what says nothing of the request leaves its outcome open."""
    assert is_unavailable(status, message) is is_so


@pytest.mark.parametrize(
    ("status", "message", "understood"),
    [
        (404, "No such container: 1562c8", 404),
        (500, "container 1562c8 does not exist in database: no such container", 404),
        (500, "cannot start: mount: no such file or directory", 500),
    ],
)
def test_what_is_gone_is_not_found_however_it_is_said(
    status: int, message: str, understood: int
) -> None:
    """Podman calls it an internal error while the container is being removed."""
    refused = as_refused(status, message)

    assert (refused.status, refused.message) == (understood, message)
