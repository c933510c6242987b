"""`check` on real servers: each thing that can be wrong is made wrong, told, and mended as told."""

import grp
import json
import os
import shlex
import socket
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import aio_pika
import pytest

from consumer.adapters.rabbitmq_checkup import look_at_broker
from consumer.adapters.rabbitmq_topology import BrokerLink
from consumer.adapters.surroundings import look_at_socket
from consumer.checkup import Outcome
from consumer.examination import examine
from consumer.settings import load
from deploy.lab.docker_cli import DockerCli
from deploy.lab.names import Names
from deploy.lab.packages import find
from deploy.lab.registry import PASSWORD, USERNAME, registry
from deploy.lab.servers import Broker, DockerHost
from tests.contract.brokers import fresh_names, topology_of
from tests.e2e.commands import command, settings_of
from tests.faults.full_disk import small_disk

pytestmark = [pytest.mark.docker, pytest.mark.rabbitmq]

NOBODY = 65534


@dataclass(frozen=True)
class Check:
    """What a check came to."""

    code: int
    told: Mapping[str, list[dict[str, object]]]
    """By name, in the order in which it was told."""

    def outcome(self, name: str) -> object:
        return self.told[name][0]["outcome"]

    def message(self, name: str) -> str:
        return str(self.told[name][0]["message"])

    def cure(self, name: str) -> str:
        return str(self.told[name][0]["cure"])

    def words_of_cure(self, name: str) -> list[str]:
        """Return the cure as a shell reads it, without its comment."""
        return shlex.split(self.cure(name), comments=True)

    def wrong(self) -> set[str]:
        lines = (line for lines in self.told.values() for line in lines)
        return {str(line["name"]) for line in lines if line["outcome"] == "wrong"}


def check(folder: Path, *before: str, **settings: str) -> Check:
    """Run the command (through another, where one is given) and return what it told."""
    done = command("check", "--json", folder=folder, before=before, **settings)
    told: dict[str, list[dict[str, object]]] = {}
    for line in map(json.loads, done.stdout.splitlines()):
        told.setdefault(line["name"], []).append(line)
    assert told, done.stderr
    return Check(done.returncode, told)


def registries(address: str, password: str, folder: Path) -> str:
    """Return the setting of a login."""
    file = folder / "password"
    file.write_text(password)
    return json.dumps({address: {"username": USERNAME, "password_file": str(file)}})


def names_within(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


async def test_what_is_sound_is_told_so_and_left_alone(
    broker: Broker, docker_host: DockerHost, docker: DockerCli, tmp_path: Path
) -> None:
    """Nothing is wrong, exit code 0; and no queue, network or ledger is made by looking."""
    names = fresh_names()
    (secrets := tmp_path / "secrets").mkdir(mode=0o700)
    settings = settings_of(names, broker, docker_host, tmp_path) | {
        "LANDLORD_COMPUTE__DOCKER__NETWORK_NAME": names.prefix,
        "LANDLORD_COMPUTE__DOCKER__SECRETS_DIR": str(secrets),
    }
    with registry(docker_host, is_private=True) as address:
        settings["LANDLORD_COMPUTE__DOCKER__REGISTRIES"] = registries(address, PASSWORD, tmp_path)
        files = names_within(tmp_path)
        seen = check(tmp_path, **settings)

    sight = await look_at_broker(BrokerLink(url=broker.url), topology_of(names), is_declaring=False)
    assert (seen.code, seen.wrong()) == (0, set())
    assert "LANDLORD_COMPUTE__DOCKER__HOST" in seen.message("engine address")
    assert seen.message(f"registry {address}") == f"user {USERNAME!r} may log in"
    assert "it will be made" in seen.message("network")
    assert "it will be made" in seen.message("ledger")
    assert "made at the start" in seen.message("broker names")
    assert seen.outcome("clock") == seen.outcome("broker rights") == "ok"
    assert len(sight.missing) == 5
    assert docker.run("network", "ls", "-q", "--filter", f"name={names.prefix}") == ""
    assert names_within(tmp_path) == files


async def test_rights_that_lack_are_named_and_the_cure_gives_them(
    broker: Broker, docker_host: DockerHost, tmp_path: Path
) -> None:
    """Configure, write and read are each told; after the command that is shown, none lacks."""
    names, user = fresh_names(), f"weak-{uuid4().hex[:8]}"
    broker.control("add_user", user, "secret")
    broker.control("set_permissions", "-p", "/", user, "^$", "^$", "^$")
    url = f"amqp://{user}:secret@127.0.0.1:{broker.port}/"
    settings = settings_of(names, broker, docker_host, tmp_path) | {"LANDLORD_BROKER__URL": url}

    weak = check(tmp_path, **settings)
    program, *words = weak.words_of_cure("broker rights")
    broker.control(*words)
    mended = await look_at_broker(BrokerLink(url=url), topology_of(names), is_declaring=True)

    told = weak.message("broker rights")
    assert (weak.code, weak.wrong(), program) == (1, {"broker rights"}, "rabbitmqctl")
    assert f"user {user!r} may not configure exchange {names.dead_letter!r}" in told
    assert f"bind queue {names.queue!r} to {names.tenant_exchange!r}" in told
    assert f"write to exchange {names.status_exchange!r}" in told
    assert f"read queue {names.queue!r}" in told
    assert mended.denied == ()


@pytest.mark.parametrize(
    ("login", "vhost", "told", "cure"),
    [
        ("guest:wr0ng", "", "refuses the login", "rabbitmqctl change_password guest "),
        ("guest:guest", "no", "refuses the virtual host 'no'", "rabbitmqctl add_vhost no; "),
    ],
)
async def test_a_broker_that_lets_nobody_in_is_told_with_the_cure(
    broker: Broker, login: str, vhost: str, told: str, cure: str
) -> None:
    """A password and a virtual host that the broker does not know; the password is not shown."""
    url = f"amqp://{login}@127.0.0.1:{broker.port}/{vhost}"
    environ = {"LANDLORD_BROKER__URL": url, "DOCKER_HOST": "unix:///no/where"}

    found = await examine(load(environ=environ), origin="nothing")

    (line,) = [line for line in found if line.name == "broker"]
    assert line.outcome is Outcome.WRONG
    assert told in line.message
    assert (line.cure or "").startswith(cure)
    assert "wr0ng" not in f"{found}"


async def test_names_that_are_taken_otherwise_are_told_with_the_cure(
    broker: Broker, docker_host: DockerHost, docker: DockerCli, tmp_path: Path
) -> None:
    """A queue, a network and a login that are not as wanted; the commands shown mend the two."""
    names = fresh_names()
    settings = settings_of(names, broker, docker_host, tmp_path)
    settings["LANDLORD_COMPUTE__DOCKER__NETWORK_NAME"] = names.prefix
    settings["LANDLORD_COMPUTE__DOCKER__NETWORK_DRIVER"] = "macvlan"
    docker.run("network", "create", names.prefix)
    await declare_otherwise(broker, names)
    with registry(docker_host, is_private=True) as address:
        settings["LANDLORD_COMPUTE__DOCKER__REGISTRIES"] = registries(address, "false", tmp_path)
        found = check(tmp_path, **settings)
    broker.control(*found.words_of_cure("broker names")[1:])
    docker.run(*found.words_of_cure("network")[1:])
    left = await look_at_broker(BrokerLink(url=broker.url), topology_of(names), is_declaring=True)

    assert found.wrong() == {"broker names", "network", f"registry {address}"}
    assert found.message("broker names") == (
        f"queue '{names.queue}' exists with x-dead-letter-exchange = none, "
        f"wanted is {names.dead_letter}"
    )
    assert "exists with driver 'bridge', wanted is 'macvlan'" in found.message("network")
    assert found.message(f"registry {address}").startswith(f"user {USERNAME!r} cannot log in: ")
    assert found.cure(f"registry {address}").startswith(f"docker login {address} -u {USERNAME}")
    assert (left.mismatched, len(left.missing)) == ((), 5)
    assert docker.run("network", "ls", "-q", "--filter", f"name={names.prefix}") == ""


async def declare_otherwise(broker: Broker, names: Names) -> None:
    """Have a queue of the consumer's name that is not as the consumer wants it."""
    async with await aio_pika.connect(broker.url) as connection:
        channel = await connection.channel()
        await channel.declare_queue(names.queue, durable=True, arguments={"x-queue-type": "quorum"})


@contextmanager
def foreign_socket() -> Iterator[Path]:
    """Have a socket of the group docker, in a folder that everybody may enter."""
    with tempfile.TemporaryDirectory(prefix="ll-") as name, socket.socket(socket.AF_UNIX) as ours:
        folder = Path(name)
        folder.chmod(0o755)
        place = folder / "docker.sock"
        ours.bind(str(place))
        ours.listen()
        os.chown(place, 0, grp.getgrnam("docker").gr_gid)
        place.chmod(0o660)
        yield place


def test_a_user_without_rights_here_is_told_which_lack(broker: Broker, tmp_path: Path) -> None:
    """The engine's socket with its group, and the ledger's folder, for one who is not root."""
    # Allowed to read all, so that it finds the consumer wherever that is; to write, nothing.
    as_nobody = (
        *(find("setpriv"), f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"),
        *("--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"),
    )
    with foreign_socket() as place:
        found = check(
            tmp_path,
            *as_nobody,
            DOCKER_HOST=f"unix://{place}",
            LANDLORD_BROKER__URL=broker.url,
            LANDLORD_LEDGER__URL=f"sqlite:///{tmp_path}/landlord.db",
            LANDLORD_COMPUTE__DOCKER__SECRETS_DIR=str(tmp_path / "none"),
            LANDLORD_COMPUTE__POLICY__IMAGES='[" "]',
        )
        sight = look_at_socket(str(place))

    usual, within = "usermod -aG docker nobody", f"docker run --group-add {sight.group_id}"
    assert found.code == 1
    assert found.message("engine address") == (
        f"unix://{place} (from DOCKER_HOST): permission denied for user nobody; its group is docker"
    )
    assert found.cure("engine address").startswith(within if sight.is_in_container else usual)
    assert "permission denied" in found.message("engine")
    assert found.message("ledger") == f"{tmp_path} cannot be written by user nobody"
    assert found.cure("ledger").startswith(f"chown -R nobody {tmp_path}")
    assert found.message("secrets") == f"{tmp_path}/none is no folder"
    assert found.message("policy") == "compute.policy.images has no pattern: every tenant is denied"
    assert found.outcome("network") == found.outcome("clock") == "untried"


async def test_what_hangs_holds_up_nothing_else(broker: Broker, tmp_path: Path) -> None:
    """An engine that takes the connection and says nothing is told within its deadline."""
    with tempfile.TemporaryDirectory(prefix="ll-") as name, socket.socket(socket.AF_UNIX) as mute:
        mute.bind(f"{name}/docker.sock")
        mute.listen()
        found = check(
            tmp_path,
            DOCKER_HOST=f"unix://{name}/docker.sock",
            LANDLORD_LIMITS__ENGINE_REQUEST_SECONDS="2",
            LANDLORD_BROKER__URL=broker.url,
            LANDLORD_BROKER__QUEUE=f"{fresh_names().prefix}.none",
            LANDLORD_BROKER__DECLARE="false",
        )

    assert found.code == 1
    assert "gave no answer to info within 2 s" in found.message("engine")
    assert found.outcome("engine disk") == found.outcome("network") == "untried"
    assert found.message("broker names").startswith(
        "missing on the broker, and broker.declare is false: "
    )


async def test_a_full_disk_and_a_wrong_clock_are_told(
    broker: Broker, docker_host: DockerHost, tmp_path: Path
) -> None:
    """The ledger's disk has no room left, and this host's clock is five minutes ahead."""
    with small_disk(tmp_path / "disk", megabytes=1) as disk:
        disk.fill()
        settings = settings_of(fresh_names(), broker, docker_host, disk.folder)
        found = check(tmp_path, find("faketime"), "-f", "+300s", **settings)

    assert found.wrong() == {"clock", "ledger disk"}
    assert found.message("clock").endswith("s ahead of the engine's")
    assert found.cure("clock").startswith("timedatectl set-ntp true")
    assert found.message("ledger disk") == f"0 MB are free at {disk.folder}"


async def test_a_person_reads_what_is_wrong_and_what_mends_it(tmp_path: Path) -> None:
    """One line for each thing, and the command below it; other checks are made all the same."""
    (tmp_path / "landlord.db").write_text("this is no database, and long enough to be read as one")

    done = command(
        "check",
        folder=tmp_path,
        DOCKER_HOST="unix:///no/where",
        LANDLORD_BROKER__URL="amqp://127.0.0.1:1",
    )

    lines = done.stdout.splitlines()
    damaged = "WRONG    ledger: landlord.db is damaged: file is not a database"
    assert done.returncode == 1
    assert "ok       settings: valid" in lines
    assert lines[lines.index(damaged) + 1].startswith(
        "         mend: mv landlord.db landlord.db.damaged"
    )
