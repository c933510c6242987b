"""What an image reference stands for, and which texts are none."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consumer.image_reference import ImageReference, parse_image

DIGEST = "sha256:" + "0a" * 32


@pytest.mark.parametrize(
    ("text", "registry", "repository", "tag", "digest"),
    [
        pytest.param("nginx", "docker.io", "library/nginx", "latest", None, id="name alone"),
        pytest.param("nginx:alpine", "docker.io", "library/nginx", "alpine", None, id="tag"),
        pytest.param("team/api:v2", "docker.io", "team/api", "v2", None, id="of somebody"),
        pytest.param("docker.io/nginx", "docker.io", "library/nginx", "latest", None, id="hub"),
        pytest.param("docker.io/a/b", "docker.io", "a/b", "latest", None, id="hub, of somebody"),
        pytest.param(
            "index.docker.io/nginx", "docker.io", "library/nginx", "latest", None, id="old hub"
        ),
        pytest.param("ghcr.io/a/b/c:1", "ghcr.io", "a/b/c", "1", None, id="deep path"),
        pytest.param("localhost/app", "localhost", "app", "latest", None, id="localhost"),
        pytest.param("reg:5000/app", "reg:5000", "app", "latest", None, id="registry port"),
        pytest.param("reg:5000/app:1", "reg:5000", "app", "1", None, id="registry port and tag"),
        pytest.param("[::1]:5000/app:1", "[::1]:5000", "app", "1", None, id="IPv6 registry"),
        pytest.param(f"nginx@{DIGEST}", "docker.io", "library/nginx", None, DIGEST, id="digest"),
        pytest.param(
            f"reg:5000/a/b:1@{DIGEST}", "reg:5000", "a/b", "1", DIGEST, id="tag and digest"
        ),
        pytest.param(
            "a@sha512:" + "f" * 128,
            "docker.io",
            "library/a",
            None,
            "sha512:" + "f" * 128,
            id="longer digest",
        ),
        pytest.param("a:" + "t" * 128, "docker.io", "library/a", "t" * 128, None, id="longest tag"),
        pytest.param(
            "r.io/" + "a" * 250, "r.io", "a" * 250, "latest", None, id="name of 255 characters"
        ),
        pytest.param("a__b/c-d.e_f", "docker.io", "a__b/c-d.e_f", "latest", None, id="separators"),
        pytest.param("a" * 63 + ":1", "docker.io", "library/" + "a" * 63, "1", None, id="63 hex"),
    ],
)
def test_parse_image(
    text: str, registry: str, repository: str, tag: str | None, digest: str | None
) -> None:
    """A reference is taken apart as Docker does, its defaults filled in."""
    assert parse_image(text) == ImageReference(registry, repository, tag, digest)


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        pytest.param("", "not a valid image reference", id="empty"),
        pytest.param(" ", "not a valid image reference", id="space"),
        pytest.param("nginx alpine", "not a valid image reference", id="two words"),
        pytest.param("nginx\n", "not a valid image reference", id="line end"),
        pytest.param("a//b", "not a valid image reference", id="empty part"),
        pytest.param("/a", "not a valid image reference", id="leading slash"),
        pytest.param("reg:5000/", "not a valid image reference", id="registry alone"),
        pytest.param("a___b", "not a valid image reference", id="three underscores"),
        pytest.param("-a", "not a valid image reference", id="leading dash"),
        pytest.param("Nginx", "has to be lower case", id="upper case"),
        pytest.param("nginx:", "the tag has to be", id="empty tag"),
        pytest.param("nginx:-1", "the tag has to be", id="tag begins with a dash"),
        pytest.param("nginx:" + "t" * 129, "the tag has to be", id="tag of 129"),
        pytest.param("nginx@", "the digest has to be", id="empty digest"),
        pytest.param("nginx@abc", "the digest has to be", id="digest without algorithm"),
        pytest.param("nginx@sha256:" + "0" * 63, "the digest has to be", id="digest too short"),
        pytest.param("nginx@sha256:" + "0" * 65, "the digest has to be", id="digest too long"),
        pytest.param("nginx@sha256:" + "A" * 64, "the digest has to be", id="digest upper case"),
        pytest.param("nginx@md5:" + "0" * 32, "the digest has to be", id="unknown algorithm"),
        pytest.param(f"nginx@{DIGEST}@{DIGEST}", "the digest has to be", id="two digests"),
        pytest.param("-reg.io/app", "the registry has to be", id="registry begins with a dash"),
        pytest.param("reg:port/app", "the registry has to be", id="port is no number"),
        pytest.param("r.io/" + "a" * 251, "more than 255 characters", id="name of 256 characters"),
        pytest.param("0" * 64, "image id", id="image id"),
        pytest.param("deadbeef", "image id", id="beginning of an image id"),
        pytest.param("c", "image id", id="one digit of an image id"),
        pytest.param("sha256:deadbeef", "image id", id="image id with its algorithm"),
    ],
)
def test_parse_image_refuses(text: str, rule: str) -> None:
    """A text that the engine would not take is refused with the broken rule."""
    with pytest.raises(ValueError, match=rule):
        parse_image(text)


@pytest.mark.parametrize(
    ("text", "full"),
    [
        pytest.param("nginx", "docker.io/library/nginx:latest", id="defaults"),
        pytest.param(f"a/b@{DIGEST}", f"docker.io/a/b@{DIGEST}", id="digest"),
        pytest.param(f"r:1/b:2@{DIGEST}", f"r:1/b:2@{DIGEST}", id="tag and digest"),
        pytest.param("cafe:1", "docker.io/library/cafe:1", id="hexadecimal, with a tag"),
    ],
)
def test_full_text(text: str, full: str) -> None:
    """A reference is written in full, and its text means the same again."""
    image = parse_image(text)

    assert str(image) == full
    assert parse_image(full) == image


def test_name_is_registry_and_repository() -> None:
    """The name leaves out tag and digest."""
    assert parse_image(f"reg:5000/a/b:1@{DIGEST}").name == "reg:5000/a/b"


@settings(max_examples=100, deadline=None)
@given(text=st.text(alphabet="axA0.:/@-_[] \n", max_size=20))
def test_any_text_is_read_or_refused(text: str) -> None:
    """Whatever the text, it is a reference that reads the same again, or a ValueError."""
    try:
        image = parse_image(text)
    except ValueError:
        return
    assert parse_image(str(image)) == image
