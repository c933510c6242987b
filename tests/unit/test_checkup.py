"""What is seen of the surroundings is judged, and each thing that is wrong comes with its cure."""

import pytest

from consumer.checkup import (
    ENGINE_SPACE,
    BrokerUser,
    Examined,
    FileSight,
    FolderSight,
    LedgerSight,
    Outcome,
    PolicySight,
    SocketSight,
    judge_address,
    judge_clock,
    judge_dead_letters,
    judge_driver,
    judge_file,
    judge_ledger,
    judge_names,
    judge_network,
    judge_policy,
    judge_rights,
    judge_secrets,
    judge_space,
    judge_strangers,
)

OK, WARNING, WRONG = Outcome.OK, Outcome.WARNING, Outcome.WRONG
SOCKET = {
    "path": "/run/docker.sock",
    "is_there": True,
    "is_socket": True,
    "is_permitted": True,
    "group_id": 998,
    "group": "docker",
    "user": "ann",
    "is_in_container": False,
}
USER = BrokerUser(user="it's", vhost="/", names=("a.b", "c"))


@pytest.mark.parametrize(
    ("change", "outcome", "cure"),
    [
        ({}, OK, ""),
        ({"is_there": False}, WRONG, "systemctl start docker"),
        (
            {"is_there": False, "is_in_container": True},
            WRONG,
            "docker run -v /var/run/docker.sock:/run/docker.sock ...",
        ),
        ({"is_socket": False}, WRONG, "ls -l /run/docker.sock"),
        ({"is_permitted": False}, WRONG, "usermod -aG docker ann "),
        (
            {"is_permitted": False, "is_in_container": True},
            WRONG,
            "docker run --group-add 998 ...",
        ),
        ({"is_permitted": False, "group_id": 0}, WRONG, "chgrp docker /run/docker.sock && "),
    ],
)
def test_the_engines_socket(change: dict[str, object], outcome: Outcome, cure: str) -> None:
    """Each way in which it cannot be used has a command of its own; root's group is no cure."""
    sight = SocketSight(**{**SOCKET, **change})  # type: ignore[arg-type]  # of the fields above

    judged = judge_address("address", "unix:///run/docker.sock", "DOCKER_HOST", sight)

    assert judged.outcome is outcome
    assert (judged.cure or "").startswith(cure)
    assert "(from DOCKER_HOST)" in judged.message


def test_an_address_without_a_socket_is_told_with_its_origin() -> None:
    """Over TCP there is nothing to be seen but who said so."""
    judged = judge_address("address", "tcp://there:2376", "the file", None)

    assert (judged.outcome, judged.message) == (OK, "tcp://there:2376 (from the file)")


@pytest.mark.parametrize(
    ("skew", "outcome", "words"),
    [
        (0.2, OK, "0.2 s ahead of"),
        (-6.0, WARNING, "6.0 s behind"),
        (5.0, WARNING, "ahead of"),
        (-60.0, WRONG, "behind"),
    ],
)
def test_clocks(skew: float, outcome: Outcome, words: str) -> None:
    """A second is nothing, some are a warning, a minute is wrong; either way."""
    judged = judge_clock("clock", skew)

    assert judged.outcome is outcome
    assert words in judged.message


@pytest.mark.parametrize(
    ("megabytes", "outcome"), [(5000, OK), (2047, WARNING), (200, WARNING), (199, WRONG)]
)
def test_free_space(megabytes: int, outcome: Outcome) -> None:
    """Little is a warning, hardly any is wrong."""
    judged = judge_space("disk", "/var", megabytes * 1024 * 1024, ENGINE_SPACE, "make room")

    assert judged.outcome is outcome
    assert judged.cure == (None if outcome is OK else "make room")


def test_a_network_that_cannot_be_made() -> None:
    """Neither with a driver the engine lacks, nor over hosts without a swarm."""
    known = frozenset({"bridge", "overlay"})

    unknown = judge_driver("network", "macvlan", known, is_swarm=True)
    alone = judge_driver("network", "overlay", known, is_swarm=False)

    assert unknown is not None
    assert alone is not None
    assert "no network driver 'macvlan', but bridge, overlay" in unknown.message
    assert alone.cure == "docker swarm init"
    assert judge_driver("network", "overlay", known, is_swarm=True) is None
    assert judge_joining().outcome is OK
    assert judge_joining(trouble="x").outcome is WRONG


def judge_joining(
    network: str = "t",
    driver: str = "bridge",
    *,
    trouble: str | None = None,
    openness: str | None = None,
) -> Examined:
    """Judge a network that is there."""
    return judge_network(
        "network", network, driver, trouble=trouble, openness=openness, is_there=True
    )


@pytest.mark.parametrize(
    ("network", "driver", "cure"),
    [
        ("bridge", "bridge", "set compute.docker.network_name: tenants"),
        ("host", "bridge", "set compute.docker.network_name: tenants"),
        ("t", "overlay", "set compute.docker.network_driver: bridge"),
        ("t t", "bridge", "docker network rm 't t'"),
    ],
)
def test_a_network_that_keeps_nobody_apart_has_its_cure(
    network: str, driver: str, cure: str
) -> None:
    """A warning with what is the matter; why it cannot be joined comes before it."""
    judged = judge_joining(network, driver, openness="is open")

    assert judged.outcome is WARNING
    assert f"network {network!r} is open" in judged.message
    assert (judged.cure or "").startswith(cure)
    assert judge_joining(trouble="x", openness="is open").outcome is WRONG


@pytest.mark.parametrize(
    ("change", "outcome", "cure"),
    [
        ({}, OK, ""),
        ({"is_folder": False}, WRONG, "install -d -m 700 -o ann /s"),
        ({"is_readable": False}, WRONG, "chown -R ann /s"),
        ({"is_open_to_all": True}, WARNING, "chmod o-rwx /s"),
    ],
)
def test_the_folder_of_secrets(change: dict[str, bool], outcome: Outcome, cure: str) -> None:
    """It has to be there, readable for us, and for nobody else."""
    usual = {"is_folder": True, "is_readable": True, "is_open_to_all": False}
    sight = FolderSight(path="/s", user="ann", **{**usual, **change})

    judged = judge_secrets("secrets", sight)

    assert (judged.outcome, judged.cure or "") == (outcome, cure)


@pytest.mark.parametrize(
    ("change", "outcome", "words"),
    [
        ({}, OK, "sound, and writable"),
        ({"is_there": False}, OK, "it will be made"),
        ({"is_owned": True}, WARNING, "another consumer owns"),
        ({"is_writable": False}, WRONG, "/d/l.db cannot be written by user ann"),
        ({"is_there": False, "is_writable": False}, WRONG, "/d cannot be written by user ann"),
        ({"fault": "malformed"}, WRONG, "/d/l.db is damaged: malformed"),
        ({"fault": "newer; run that", "is_newer": True}, WRONG, "newer; run that"),
    ],
)
def test_the_ledger(change: dict[str, object], outcome: Outcome, words: str) -> None:
    """One that another consumer works with is a warning, since that may be the running one."""
    usual = {
        "path": "/d/l.db",
        "folder": "/d",
        "is_there": True,
        "is_writable": True,
        "is_owned": False,
        "fault": None,
        "is_newer": False,
        "user": "ann",
    }
    sight = LedgerSight(**{**usual, **change})  # type: ignore[arg-type]  # of the fields above

    judged = judge_ledger("ledger", sight)

    assert judged.outcome is outcome
    assert words in judged.message


@pytest.mark.parametrize(
    ("change", "outcome", "words"),
    [
        ({}, OK, "nothing in it is odd"),
        ({"images": ()}, WRONG, "every tenant is denied"),
        ({"images": ("nginx:*", " ")}, WARNING, "matches nothing: ' '"),
        ({"images": ("nginx:* ",)}, WARNING, "matches nothing: 'nginx:* '"),
        ({"missing_volumes": ("/srv/t",)}, WARNING, "/srv/t is not there"),
        (
            {"volumes": ("/srv/{tenant_id}",), "is_engine_here": False},
            WARNING,
            "links are not seen on another host",
        ),
        ({"volumes": ("/",)}, WARNING, "lets every tenant have the host"),
        ({"privileged": True}, WARNING, "lets every tenant have the host"),
        ({"host_ports": ()}, WARNING, "no port is published"),
        ({"unknown_runtimes": ("runsc",)}, WARNING, "no runtime 'runsc'"),
        ({"above_host": ("max_cpu is 9000",)}, WARNING, "max_cpu is 9000"),
    ],
)
def test_the_policy(change: dict[str, object], outcome: Outcome, words: str) -> None:
    """What denies every tenant is wrong; what gives away too much, or cannot be had, is told."""
    usual = {
        "images": None,
        "volumes": (),
        "missing_volumes": (),
        "is_engine_here": True,
        "privileged": False,
        "host_ports": ((1, 65535),),
        "unknown_runtimes": (),
        "above_host": (),
    }
    sight = PolicySight(**{**usual, **change})  # type: ignore[arg-type]  # of the fields above

    (judged,) = judge_policy("policy", sight)

    assert judged.outcome is outcome
    assert words in judged.message


def test_what_the_broker_denies_is_given_by_the_command_shown() -> None:
    """It names our names and no others, as a shell takes it."""
    judged = judge_rights("rights", ["read queue 'c'"], USER)

    pattern = r"'^(a\.b|c)$'"
    who = "/ 'it'\"'\"'s'"
    assert judged.cure == f"rabbitmqctl set_permissions -p {who} {pattern} {pattern} {pattern}"
    assert judge_rights("rights", [], USER).outcome is OK


def test_names_on_the_broker() -> None:
    """What is missing is made, or is wrong where it is not to be made; what differs is deleted."""
    made = judge_names(
        "names", missing=["queue c"], unseen=[], mismatched=[], user=USER, is_declaring=True
    )
    kept = judge_names(
        "names", missing=["queue c"], unseen=[], mismatched=[], user=USER, is_declaring=False
    )
    differing = judge_names(
        "names",
        missing=[],
        unseen=[],
        mismatched=[("queue c", "differs"), ("exchange a.b", "differs")],
        user=USER,
        is_declaring=True,
    )

    assert [one.outcome for one in made] == [OK]
    assert [one.outcome for one in kept] == [WRONG]
    assert [(one.cure or "").partition("   #")[0] for one in differing] == [
        "rabbitmqctl delete_queue -p / c",
        "rabbitmqadmin -V / delete exchange name=a.b",
    ]
    (fine,) = judge_names(
        "names", missing=[], unseen=[], mismatched=[], user=USER, is_declaring=True
    )
    assert fine.outcome is OK


def test_a_name_that_may_not_be_asked_for_is_taken_to_be_there() -> None:
    """RabbitMQ 4.3 wants a right for the question that least rights do not have."""
    told = judge_names(
        "names",
        missing=[],
        unseen=["exchange a.b"],
        mismatched=[],
        user=USER,
        is_declaring=False,
    )

    assert [one.outcome for one in told] == [OK]
    assert "exchange a.b; they are taken to be" in told[0].message


# --- what carries our labels --------------------------------------------------------------------


def test_strangers_are_told_with_what_to_do() -> None:
    """What another ledger's consumer made can be taken over; of copies a person has to know."""
    tenants = [f"tenant-{number}" for number in range(6)]

    fine_one, left, copies = judge_strangers("c", ours=2, left_of=tenants, copies=["0123456789ab"])

    assert (fine_one.outcome, fine_one.message[:1]) == (Outcome.OK, "2")
    assert (left.outcome, left.message.endswith("tenant-4 ...")) == (Outcome.WARNING, True)
    assert left.cure is not None
    assert left.cure.startswith("landlord-consumer take-over")
    assert copies.outcome is Outcome.WARNING
    assert copies.cure == "docker inspect 0123456789ab   # whose are they?"


def test_nothing_is_said_of_strangers_where_there_are_none() -> None:
    """One line, that all is well."""
    assert [judged.outcome for judged in judge_strangers("c", ours=0, left_of=[], copies=[])] == [
        Outcome.OK
    ]


@pytest.mark.parametrize(
    ("trouble", "count", "outcome"),
    [
        pytest.param(None, 0, Outcome.OK, id="none"),
        pytest.param(None, 3, Outcome.WARNING, id="some to look at"),
        pytest.param("3 refused events wait: nack", 3, Outcome.WRONG, id="not taken"),
        pytest.param(None, None, Outcome.UNTRIED, id="not to be asked"),
    ],
)
def test_dead_letters_are_told(trouble: str | None, count: int | None, outcome: Outcome) -> None:
    """Those that lie there want a look; that none can be added is wrong, with the cure."""
    judged = judge_dead_letters("dead letters", trouble=trouble, count=count)

    assert judged.outcome is outcome
    assert (judged.cure is not None) is (outcome in (Outcome.WARNING, Outcome.WRONG))


@pytest.mark.parametrize(
    ("is_read_by_all", "is_written_by_all", "has_secrets", "words"),
    [
        (False, False, True, None),
        (True, False, False, None),
        (True, False, True, "holds secrets, and can be read by every user here"),
        (True, True, False, "can be written by every user here"),
    ],
)
def test_a_file_that_is_open_to_others_is_told(
    is_read_by_all: bool, is_written_by_all: bool, has_secrets: bool, words: str | None
) -> None:
    """With the command that shuts it."""
    sight = FileSight(
        path="/a b", is_read_by_all=is_read_by_all, is_written_by_all=is_written_by_all
    )

    judged = judge_file("files", "the ledger", sight, has_secrets=has_secrets)

    assert (judged is None) is (words is None)
    if judged is not None and words is not None:
        assert words in judged.message
        assert judged.cure == "chmod o-rwx '/a b'"
