"""Volumes of one tenant alone, for reading alone, and where links lead."""

from pathlib import Path

import pytest

from consumer.adapters.surroundings import follow_links, follow_links_below
from consumer.policy_volumes import Volumes, folders, kept_faults, shared_faults

OWN = "/srv/tenants/{tenant_id}"


@pytest.mark.parametrize(
    "volume",
    [
        "/srv/tenants/acme:/data",
        "/srv/tenants/acme/:/data:rw",
        "/srv/shared:/data:ro",
        "/srv/shared/deep/er:/data:ro,rslave",
        "cache-acme:/cache",
        "models:/models:ro",
    ],
)
def test_a_tenant_may_mount_what_is_its_own_or_to_be_read(volume: str) -> None:
    """Each tenant has its own of what holds `{tenant_id}`; what ends in `:ro` is read."""
    volumes = Volumes((OWN, "/srv/shared:ro", "cache-{tenant_id}", "models:ro"))

    assert volumes.fault(volume, "acme") is None


@pytest.mark.parametrize(
    ("volume", "words"),
    [
        ("/srv/tenants/other:/data", "allows only"),
        ("/srv/tenants:/data", "allows only"),
        ("/srv/tenants/acme-2:/data", "allows only"),
        ("/srv/tenants/acme/../other:/data", "allows only"),
        ("/srv/tenants/{tenant_id}:/data", "allows only"),
        ("/srv/shared:/data", "with :ro alone"),
        ("/srv/shared:/data:rw", "with :ro alone"),
        ("/srv/shared:/data:ro,Z", "not relabelled"),
        ("models:/models", "with :ro alone"),
        ("cache-other:/cache", "allows only"),
        ("/srv/tenants/acme:/data:rshared", "let mounts out"),
        ("/srv/tenants/acme/below:/data", "allows only"),
    ],
)
def test_a_tenant_may_not_mount_anything_else(volume: str, words: str) -> None:
    """Not another's, not for writing what is to be read, not below where links cannot be seen."""
    volumes = Volumes((OWN, "/srv/shared:ro", "cache-{tenant_id}", "models:ro"))

    assert words in (volumes.fault(volume, "acme") or "nothing")


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        (("/srv/tenants",), "several tenants could write there"),
        (("data", "/srv/a:ro", "/srv/b/"), "/srv/b/: several tenants"),
        (("/srv:ro", OWN), "/srv:ro: another tenant may write there"),
        (("/srv/tenants:ro", OWN), "another tenant may write there"),
        (("/srv/tenants/models:ro", OWN), "another tenant may write there, or above"),
        (("/srv/{tenant_id}", OWN), "another tenant may write there"),
        (("/srv/{tenant_id}", "/srv/of-{tenant_id}"), "another tenant may write there"),
        (("/srv/{tenant}",), "{tenant_id} is all that can be filled in"),
    ],
)
def test_a_prefix_that_several_tenants_may_write_is_told(
    entries: tuple[str, ...], words: str
) -> None:
    """Also one for reading, above what tenants write: they could leave a link there."""
    assert words in "; ".join(shared_faults(entries))


@pytest.mark.parametrize(
    "entries",
    [
        (),
        (OWN,),
        ("data", "data-{tenant_id}"),
        ("/srv/a:ro", OWN),
        (OWN, f"{OWN}/logs:ro"),
        (OWN, "/data/of-{tenant_id}", "/data/models:ro"),
    ],
)
def test_what_each_tenant_has_alone_is_not_told(entries: tuple[str, ...]) -> None:
    """A volume with a name is no prefix: there is nothing of it below, by a link or without."""
    assert list(shared_faults(entries)) == []


@pytest.mark.parametrize(
    ("mounted", "is_told"),
    [
        ("/srv/shared:/x", True),
        ("/srv/shared/below:/x:rw", True),
        ("/srv/{tenant_id}:/x", True),
        ("/srv/shared:/x:ro", False),
        ("shared:/x", False),
        ("/srv/tenants/{tenant_id}:/x", False),
    ],
)
def test_what_the_operator_has_every_tenant_write_counts(mounted: str, *, is_told: bool) -> None:
    """A prefix for reading is none where all tenants have the same to write by default."""
    assert bool(list(shared_faults(("/srv/shared:ro",), (mounted,)))) is is_told


def test_a_link_leads_where_it_leads(tmp_path: Path) -> None:
    """A path below a prefix is looked at again where its links lead."""
    own, outside = tmp_path / "tenants" / "acme", tmp_path / "outside"
    (own / "real").mkdir(parents=True)
    outside.mkdir()
    (own / "out").symlink_to(outside)
    (own / "root").symlink_to("/")
    (own / "relative").symlink_to("../other")
    (own / "within").symlink_to(own / "real")
    (own / "nowhere").symlink_to("/not/there/yet")
    volumes = Volumes((f"{tmp_path}/tenants/{{tenant_id}}",), resolve=follow_links)

    def may(path: str) -> bool:
        return volumes.fault(f"{own}/{path}:/data", "acme") is None

    assert {path: may(path) for path in ("real", "within", "not/there/yet", "real/deeper")} == {
        "real": True,
        "within": True,
        "not/there/yet": True,
        "real/deeper": True,
    }
    for path in ("out", "root", "root/etc", "out/deeper", "relative", "nowhere"):
        assert not may(path), path


def test_no_path_is_too_deep_to_be_followed(tmp_path: Path) -> None:
    """Neither one that is not there, nor a chain of links without end, is a fault of ours."""
    own = tmp_path / "acme"
    own.mkdir()
    link = own / "end"
    for number in range(1500):
        (own / f"link-{number}").symlink_to(link)
        link = own / f"link-{number}"
    volumes = Volumes((f"{tmp_path}/{{tenant_id}}",), resolve=follow_links)

    assert volumes.fault(f"{own}{'/a' * 1500}:/x", "acme") is None
    assert volumes.fault(f"{link}:/x", "acme") is not None


def test_a_prefix_that_is_a_link_itself_opens_where_it_leads(tmp_path: Path) -> None:
    """The operator's own links are the operator's."""
    (tmp_path / "disk" / "acme" / "real").mkdir(parents=True)
    (tmp_path / "tenants").symlink_to(tmp_path / "disk")
    volumes = Volumes((f"{tmp_path}/tenants/{{tenant_id}}",), resolve=follow_links)

    assert volumes.fault(f"{tmp_path}/tenants/acme/real:/data", "acme") is None


def test_links_that_cannot_be_seen_are_taken_for_the_worst() -> None:
    """Below a prefix that tenants write nothing is mounted then, but where the operator knows."""
    below = "/srv/tenants/acme/below:/data"

    assert Volumes((OWN,)).fault(below, "acme") is not None
    assert Volumes((OWN,), is_shared=True).fault(below, "acme") is None
    assert Volumes((f"{OWN}:ro",)).fault(f"{below}:ro", "acme") is None


@pytest.mark.parametrize(
    ("entry", "tenant_id"),
    [
        ("/run/{tenant_id}", "docker.sock"),
        ("/run/{tenant_id}", "containerd"),
        ("/srv/{tenant_id}", "docker.sock"),
        ("/var/lib/{tenant_id}", "docker"),
        ("/var/lib/{tenant_id}", "landlord"),
        ("/var/{tenant_id}", "lib"),
        ("/var/{tenant_id}", "run"),
        ("/{tenant_id}", "etc"),
        ("/{tenant_id}", "root"),
        ("/{tenant_id}/io", "proc"),
        ("/var/lib/{tenant_id}/volumes:ro", "docker"),
    ],
)
def test_an_id_does_not_open_what_is_precious(entry: str, tenant_id: str) -> None:
    """Publishers choose the ids: what only its own name opens, no id stands for."""
    source = entry.removesuffix(":ro").replace("{tenant_id}", tenant_id)

    assert "allows only" in (Volumes((entry,)).fault(f"{source}:/x:ro", tenant_id) or "nothing")


@pytest.mark.parametrize("entry", ["/var/lib/{tenant_id}", "/run/{tenant_id}", "/{tenant_id}"])
def test_other_ids_open_the_same_place(entry: str) -> None:
    """What is written above them is the operator's choice."""
    assert Volumes((entry,)).fault(f"{entry.replace('{tenant_id}', 'acme')}:/x", "acme") is None


def test_what_lies_below_a_path_that_the_tenant_writes_is_looked_at(tmp_path: Path) -> None:
    """Whoever opened or gave it: a link that the tenant leaves there is followed, and refused."""
    own = tmp_path / "acme"
    own.mkdir()
    (own / "logs").symlink_to("/etc")
    mine, logs = f"{tmp_path}/{{tenant_id}}", f"{tmp_path}/{{tenant_id}}/logs"
    opened = Volumes((mine, f"{logs}:ro"), resolve=follow_links)
    given = Volumes((f"{logs}:ro",), resolve=follow_links, mounted=(f"{mine}:/data",))
    read = Volumes((f"{logs}:ro",), resolve=follow_links, mounted=(f"{mine}:/data:ro",))

    def refusal(volumes: Volumes, path: str) -> str:
        return volumes.fault(f"{own}/{path}:/logs:ro", "acme") or "nothing"

    for volumes in (opened, given):
        assert "may lead out of it by a link" in refusal(volumes, "logs")
        assert "may lead out of it by a link" in refusal(volumes, "logs/ssl")
        assert volumes.link_fault(f"{own}/logs:/logs:ro", "acme") is not None
    assert refusal(read, "logs") == "nothing"
    (own / "logs").unlink()
    (own / "logs").mkdir()
    assert [refusal(volumes, "logs") for volumes in (opened, given)] == ["nothing"] * 2
    assert Volumes((mine, f"{logs}:ro")).fault(f"{own}/logs:/logs:ro", "acme") is not None


def test_a_folder_that_is_not_there_says_nothing_of_links(tmp_path: Path) -> None:
    """In a container of the consumer's the host's folders may not be what it sees."""
    entry = f"{tmp_path}/tenants/{{tenant_id}}"
    resolve = follow_links_below(folders((entry,)))
    below = f"{tmp_path}/tenants/acme/below:/data"

    unseen = Volumes((entry,), resolve=resolve).fault(below, "acme")
    (tmp_path / "tenants").mkdir()

    assert unseen is not None
    assert Volumes((entry,), resolve=resolve).fault(below, "acme") is None


@pytest.mark.parametrize(
    ("entry", "place", "is_told"),
    [
        ("/srv/{tenant_id}", "/srv/landlord/secrets", True),
        ("/srv/{tenant_id}", "/srv/secrets", True),
        ("/srv/secrets/{tenant_id}:ro", "/srv/secrets", True),
        ("/srv:ro", "/srv/secrets/", True),
        ("/srv/secrets/a:ro", "/srv/secrets", True),
        ("/", "/srv/secrets", True),
        ("/srv/of-{tenant_id}", "/srv/secrets", False),
        ("/srv/tenants/{tenant_id}", "/srv/secrets", False),
        ("/srv/sec:ro", "/srv/secrets", False),
        ("{tenant_id}", "/srv/secrets", False),
    ],
)
def test_an_entry_that_opens_a_place_of_ours_is_told(
    entry: str, place: str, *, is_told: bool
) -> None:
    """Also one that does so for a single id: publishers choose the ids."""
    assert bool(list(kept_faults((entry,), (place,)))) is is_told


def test_the_folders_that_have_to_be_there_are_known() -> None:
    """Of what each tenant has alone it is the folder above; the engine makes the tenant's."""
    entries = ("data", "/srv/a:ro", OWN, "/srv/of-{tenant_id}/data", "/b/")

    assert folders(entries) == ("/srv/a", "/srv/tenants", "/srv", "/b")
