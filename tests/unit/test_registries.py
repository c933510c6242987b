"""Logins are found by registry, in the operator's files as they stand at that moment."""

import base64
import json
from pathlib import Path

import pytest

from consumer.adapters.registries import Credentials, LoginError, LoginFile, RegistryLogins

REGISTRY = "registry.example:5000"
SECRET = "s3cret:with a colon"


@pytest.fixture
def password_file(tmp_path: Path) -> Path:
    """Give a file with the password and the line's end that editors leave."""
    path = tmp_path / "password"
    path.write_text(f"{SECRET}\n")
    return path


def config_file(folder: Path, **sections: object) -> RegistryLogins:
    """Return the logins of a Docker config.json with these sections."""
    path = folder / "config.json"
    path.write_text(json.dumps(sections))
    return RegistryLogins({}, docker_config=path)


def as_auth(username: str, password: str) -> dict[str, object]:
    """Return an entry as `docker login` writes it."""
    return {"auth": base64.b64encode(f"{username}:{password}".encode()).decode()}


def test_a_login_of_its_own_is_found(password_file: Path) -> None:
    """The password is the file's content without the line's end."""
    logins = RegistryLogins({REGISTRY: LoginFile("robot", password_file)})

    assert logins.find(REGISTRY) == Credentials("robot", SECRET)
    assert logins.find("elsewhere.example") is None


def test_a_changed_password_holds_at_once(password_file: Path) -> None:
    """Nothing that was read is kept."""
    logins = RegistryLogins({REGISTRY: LoginFile("robot", password_file)})
    logins.find(REGISTRY)

    password_file.write_text("another")

    assert logins.find(REGISTRY) == Credentials("robot", "another")


@pytest.mark.parametrize(
    "name", ["docker.io", "index.docker.io", "https://index.docker.io/v1/", "registry-1.docker.io"]
)
def test_docker_hub_has_many_names(tmp_path: Path, password_file: Path, name: str) -> None:
    """All of them stand for the registry of images that name none."""
    own = RegistryLogins({name: LoginFile("robot", password_file)})
    shared = config_file(tmp_path, auths={name: as_auth("robot", SECRET)})

    assert own.find("docker.io") == shared.find("docker.io") == Credentials("robot", SECRET)


@pytest.mark.parametrize(
    "entry",
    [
        pytest.param(as_auth("robot", SECRET), id="as docker login writes it"),
        pytest.param({"username": "robot", "password": SECRET}, id="in two fields"),
    ],
)
def test_a_docker_config_is_understood(tmp_path: Path, entry: dict[str, object]) -> None:
    """With the registry's plain name or its URL."""
    plain = config_file(tmp_path, auths={REGISTRY: entry})
    assert plain.find(REGISTRY) == Credentials("robot", SECRET)

    url = config_file(tmp_path, auths={f"https://{REGISTRY}/v2/": entry})
    assert url.find(REGISTRY) == Credentials("robot", SECRET)
    assert url.find("elsewhere.example") is None


def test_a_login_of_its_own_comes_first(tmp_path: Path, password_file: Path) -> None:
    """What the settings say of a registry beats the shared file."""
    config = tmp_path / "config.json"
    config.write_text(json.dumps({"auths": {REGISTRY: as_auth("person", "theirs")}}))

    logins = RegistryLogins({REGISTRY: LoginFile("robot", password_file)}, docker_config=config)

    assert logins.find(REGISTRY) == Credentials("robot", SECRET)


@pytest.mark.parametrize("content", ["{}", "[]", '{"auths": null}', '{"auths": []}', "null"])
def test_a_docker_config_without_logins_has_none(tmp_path: Path, content: str) -> None:
    """A file that says nothing of the registry is no error."""
    path = tmp_path / "config.json"
    path.write_text(content)

    assert RegistryLogins({}, docker_config=path).find(REGISTRY) is None


@pytest.mark.parametrize(
    "sections",
    [
        pytest.param({"auths": {REGISTRY: {}}, "credsStore": "pass"}, id="store"),
        pytest.param({"credHelpers": {REGISTRY: "gcr"}}, id="helper"),
        pytest.param({"auths": {REGISTRY: {"auth": "%%%"}}}, id="not base64"),
        pytest.param({"auths": {REGISTRY: {"auth": "cm9ib3Q="}}}, id="no password"),
        pytest.param({"auths": {REGISTRY: "text"}}, id="text"),
    ],
)
def test_a_login_without_its_password_is_told(tmp_path: Path, sections: dict[str, object]) -> None:
    """A pull without it would only be told as denied, and nobody would know why."""
    logins = config_file(tmp_path, **sections)

    with pytest.raises(LoginError, match=r"config\.json has no password for registry\.example"):
        logins.find(REGISTRY)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        pytest.param(None, "No such file", id="missing"),
        pytest.param(b"\xff\xfe s3cret", "not UTF-8", id="bytes"),
        pytest.param(b'{"auth": s3cret', "no JSON", id="broken"),
    ],
)
def test_a_file_that_cannot_be_read_is_named(
    tmp_path: Path, content: bytes | None, words: str
) -> None:
    """The message has the path and the fault, and nothing of what stands there."""
    path = tmp_path / "config.json"
    if content is not None:
        path.write_bytes(content)

    with pytest.raises(LoginError) as caught:
        RegistryLogins({}, docker_config=path).find(REGISTRY)

    assert str(path) in str(caught.value)
    assert words in str(caught.value)
    assert "s3cret" not in str(caught.value)


def test_a_password_shows_in_no_repr() -> None:
    """Whatever prints it for a log leaves it out."""
    assert SECRET not in repr(Credentials("robot", SECRET))
