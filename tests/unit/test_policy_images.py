"""Image patterns part by part, and registries that only their name lets pass."""

import pytest

from consumer.image_reference import parse_image
from consumer.policy_images import is_listed, is_named, is_near

DIGEST, OTHER = "sha256:" + "a" * 64, "sha256:" + "b" * 64


@pytest.mark.parametrize(
    ("pattern", "image"),
    [
        pytest.param("nginx:*", "nginx:5000/evil/miner:1", id="a tag is no port"),
        pytest.param("nginx:*", "nginx.evil/miner:1", id="nor another host"),
        pytest.param("nginx*", "nginx.evil/nginx:1", id="a repository is no registry"),
        pytest.param("nginx*", "nginx/evil:1", id="nor a namespace"),
        pytest.param("registry.example/*", "registry.example:5000/app", id="another port"),
        pytest.param("app:stable-*", f"app:stable-1@{DIGEST}", id="any digest behind a tag"),
        pytest.param("app:stable", f"app:stable@{DIGEST}", id="any digest behind this tag"),
        pytest.param(f"app@{DIGEST}", f"app@{OTHER}", id="another digest"),
        pytest.param(f"app@{DIGEST}", "app:1", id="no digest where one is named"),
        pytest.param(f"app:1@{DIGEST}", f"app:1@{OTHER}", id="another digest behind this tag"),
        pytest.param("*:1.27", "nginx:1.28", id="a tag of everything"),
        pytest.param("docker.io/*", "registry.example/app", id="everything of one registry"),
    ],
)
def test_a_pattern_does_not_reach_over_the_parts(pattern: str, image: str) -> None:
    """What begins like something allowed, or carries its tag, is not it."""
    assert not is_listed(parse_image(image), (pattern,))


@pytest.mark.parametrize(
    ("pattern", "image"),
    [
        pytest.param("nginx:*", "nginx:1.27", id="any tag"),
        pytest.param("nginx:*", "nginx", id="the tag that is filled in"),
        pytest.param("nginx:*", f"nginx@{DIGEST}", id="all of a repository"),
        pytest.param("nginx:1.2?", "nginx:1.27", id="one sign"),
        pytest.param("*:1.27", "registry.example/a/b:1.27", id="a tag of everything"),
        pytest.param("docker.io/*", "team/app", id="everything of one registry"),
        pytest.param("*.example/*", "eu.registry.example/app", id="a domain"),
        pytest.param("Registry.Example/*", "registry.EXAMPLE/app", id="a host in any case"),
        pytest.param("registry.example:5000/a/*", "registry.example:5000/a/b/c", id="below"),
        pytest.param(f"app@{DIGEST}", f"app:any@{DIGEST}", id="this digest, whatever the tag"),
        pytest.param(f"app:1@{DIGEST}", f"app@{DIGEST}", id="this digest, without a tag"),
        pytest.param("[::1]:5000/*", "[::1]:5000/app", id="an IPv6 address"),
    ],
)
def test_a_pattern_lets_pass_what_it_names(pattern: str, image: str) -> None:
    """Each part is matched by its own part of the pattern; where a digest is given it decides."""
    assert is_listed(parse_image(image), ("other", pattern))


@pytest.mark.parametrize(
    "registry",
    [
        "localhost",
        "localhost:5000",
        "LOCALHOST:5000",
        "a.localhost:5000",
        "host.docker.internal:5000",
        "metadata.google.internal",
        "127.0.0.1:5000",
        "127.8.8.8",
        "127.1",
        "0.0.0.0:80",
        "0x7f.1",
        "0x7f000001:80",
        "2130706433:80",
        "0177.0.0.1",
        "10.0.0.1",
        "172.16.0.1:5000",
        "192.168.1.1",
        "100.64.0.1",
        "169.254.169.254",
        "224.0.0.1",
        "[::1]:5000",
        "[::]",
        "[fe80::1]",
        "[fd00::1]:5000",
        "[::ffff:127.0.0.1]:5000",
        "[64:ff9b::a9fe:a9fe]",
        "[2002:7f00:1::]",
        "[fec0::1]",
        "[::7f00:1]:5000",
        "[::ffff:0:7f00:1]",
        "[64:ff9b:1::7f00:1]",
        "168.63.129.16",
        "192.0.0.192",
        "ip6-localhost:5000",
        "ip6-loopback:80",
        "metadata:80",
        "host.containers.internal:5000",
        "instance-data.ec2.internal",
    ],
)
def test_a_registry_at_an_address_of_the_host_is_near(registry: str) -> None:
    """Loopback, link-local and private addresses, however they are written."""
    assert is_near(registry)


@pytest.mark.parametrize(
    "registry",
    [
        "docker.io",
        "registry.example:5000",
        "registry:5000",
        "8.8.8.8:5000",
        "[2606:4700::1111]:5000",
        "127.0.0.1.example",
        "localhost.example",
        "10.example",
    ],
)
def test_other_registries_are_not(registry: str) -> None:
    """What a name leads to is the engine's to find out, and cannot be told from here."""
    assert not is_near(registry)


def test_an_address_in_brackets_is_no_set_of_characters() -> None:
    """A pattern has `*` and `?`, and nothing else that means more than itself."""
    assert not is_named("f:5000", ("[fd00::5]:5000/*",), ())
    assert is_named("[fd00::5]:5000", ("[fd00::*]:5000/*",), ())


@pytest.mark.parametrize(
    ("patterns", "registries", "is_so"),
    [
        ((), (), False),
        (("*",), (), False),
        (("*/app",), (), False),
        (("*:1.27",), (), False),
        (("127.0.0.2:5000/*",), ("127.0.0.1",), False),
        (("*", "127.0.0.1:5000/*"), (), True),
        (("127.0.0.*:5000/*",), (), True),
        ((), ("127.0.0.1:5000",), True),
        ((), ("https://127.0.0.1:5000/v1/",), True),
    ],
)
def test_a_registry_is_named_by_a_pattern_or_a_login(
    patterns: tuple[str, ...], registries: tuple[str, ...], *, is_so: bool
) -> None:
    """A pattern for everything names none."""
    assert is_named("127.0.0.1:5000", patterns, registries) is is_so
