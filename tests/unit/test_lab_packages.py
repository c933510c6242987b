"""Which Debian packages the lab asks for, release by release."""

import pytest

from deploy.lab.packages import debian_release, of_tests, package_of


@pytest.mark.parametrize(
    ("told", "release"),
    [
        ({"ID": "debian", "VERSION_ID": "12"}, 12),
        ({"ID": "debian", "VERSION_ID": "13"}, 13),
        ({"ID": "ubuntu", "VERSION_ID": "24.04"}, 12),
        ({"ID": "debian", "VERSION_CODENAME": "forky"}, 999),
    ],
)
def test_a_release_that_is_not_out_is_after_all(told: dict[str, str], release: int) -> None:
    """Debian's testing says no number of itself; another distribution is taken for Debian 12."""
    assert debian_release(told) == release


@pytest.mark.parametrize(("release", "package"), [(12, "docker.io"), (13, "docker-cli")])
def test_dockers_client_is_a_package_of_its_own_from_13_on(release: int, package: str) -> None:
    """There the engine's package comes without it."""
    assert package_of("docker", release=release) == package
    assert package_of("dockerd", release=release) == "docker.io"


@pytest.mark.parametrize(("release", "is_needed"), [(12, False), (13, True)])
def test_podman_5_is_given_what_it_makes_networks_with(release: int, *, is_needed: bool) -> None:
    """Podman 4 of Debian 12 does without."""
    needed = {package_of(program) for program in of_tests(release)}

    assert ({"nftables", "aardvark-dns"} <= needed) is is_needed
    assert "python3-venv" in needed
