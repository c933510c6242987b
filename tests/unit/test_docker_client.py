"""Which version of the API is spoken, by what an engine tells of itself."""

import pytest

from consumer.adapters.docker_client import VersionFault, common_version


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
    """Nothing is asked for whose meaning may have changed since, unless nothing else is known."""
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
