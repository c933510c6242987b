"""A person new to it, with the README alone: to a running tenant, into trouble, and out of it.

Every command is one that stands in the README, and so do the settings, the document, and the names
that are looked for. What is done in an editor is a replaced word here.
"""

import asyncio
import json
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest
from prometheus_client.parser import text_string_to_metric_families

from deploy.lab.daemon import Daemon
from deploy.lab.docker_cli import DockerCli
from deploy.lab.names import Names
from deploy.lab.registry import registry
from deploy.lab.servers import Broker, DockerHost, free_port
from tests.conftest import WEB
from tests.e2e.consumer_process import get
from tests.e2e.world import take_away, until

pytestmark = [pytest.mark.docker, pytest.mark.rabbitmq]

README: Final = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
COMMAND: Final = str(Path(sys.executable).with_name("landlord-consumer"))
SECONDS: Final = 60.0


class Person:
    """Somebody at a terminal, in a folder with a `config.yaml` and an `acme-corp.json`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._watching = folder / "watch.log"

    def types(self, line: str, *more: str) -> str:
        """Run a command that the README shows, with more words to it; return what it prints."""
        assert f"landlord-consumer {line}" in README
        done = subprocess.run(
            [COMMAND, *shlex.split(line), *more],
            cwd=self.folder,
            capture_output=True,
            text=True,
            check=False,
            timeout=SECONDS,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout.strip()

    def edits(self, name: str, before: str, after: str) -> None:
        """Replace a word of a file."""
        text = (self.folder / name).read_text(encoding="utf-8")
        assert before in text
        (self.folder / name).write_text(text.replace(before, after), encoding="utf-8")

    def saves(self, name: str, text: str) -> None:
        """Write a file."""
        (self.folder / name).write_text(text, encoding="utf-8")

    def has_another(self, tenant_id: str, port: int) -> None:
        """Copy the document for another tenant, with another host port."""
        self.saves(f"{tenant_id}.json", (self.folder / "acme-corp.json").read_text())
        self.edits(f"{tenant_id}.json", "acme-corp", tenant_id)
        self.edits(f"{tenant_id}.json", '"host_port": 8080', f'"host_port": {port}')

    @contextmanager
    def leaves_running(self, word: str, log: Path, until_it_says: str) -> Iterator[None]:
        """Run a command that stays, for the length of the block."""
        assert f"landlord-consumer {word}" in README
        begin = log.stat().st_size if log.exists() else 0
        daemon = Daemon(
            word,
            (COMMAND, word),
            environment={"PYTHONUNBUFFERED": "1"},
            log=log,
            folder=self.folder,
            is_ready=lambda: until_it_says in log.read_text(encoding="utf-8")[begin:],
        )
        daemon.start(seconds=SECONDS)
        try:
            yield
        finally:
            daemon.stop()

    @contextmanager
    def runs_the_consumer(self) -> Iterator[None]:
        with self.leaves_running("run", self.folder / "run.log", '"event": "ready"'):
            yield

    @contextmanager
    def watches(self) -> Iterator[None]:
        with self.leaves_running("watch", self._watching, "watching"):
            yield

    async def sees(self, tenant_id: str, outcome: str) -> str:
        """Wait until `watch` shows this of the tenant; return the line."""
        wanted = re.compile(rf"^.*  {tenant_id}  {outcome}  .*$", re.MULTILINE)

        def shown() -> re.Match[str] | None:
            return wanted.search(self._watched())

        try:
            await until(lambda: shown() is not None, seconds=SECONDS)
        except TimeoutError:
            raise AssertionError(f"no {outcome} in:\n{self._watched()}") from None
        line = shown()
        assert line is not None
        return line[0]

    def _watched(self) -> str:
        return self._watching.read_text(encoding="utf-8")


def example(language: str) -> str:
    """Return the README's first code block of the language."""
    return str(re.findall(rf"(?ms)^```{language}\n(.*?)^```", README)[0])


@pytest.fixture
def images(docker_host: DockerHost) -> Iterator[str]:
    """Run a registry that stands for `registry.example.com`, with an `nginx:alpine`."""
    with registry(docker_host) as address:
        docker, image = DockerCli(docker_host.url), f"{address}/nginx:alpine"
        docker.run("tag", WEB, image)
        docker.run("push", image)
        docker.run("rmi", image)
        yield address


@pytest.fixture
def http_port() -> int:
    return free_port()


@pytest.fixture
def person(
    broker: Broker, docker_host: DockerHost, images: str, http_port: int, tmp_path: Path
) -> Iterator[Person]:
    """Give somebody who has read as far as "Running it", and put in the addresses of this place."""
    somebody = Person(tmp_path)
    somebody.saves("config.yaml", example("yaml"))
    for before, after in {
        'host: "" ': f'host: "{docker_host.url}" ',
        "amqp://landlord:PASSWORD@rabbitmq.example.com:5672/": broker.url,
        "/var/lib/landlord/landlord.db": f"{tmp_path}/landlord.db",
        "port: 8080": f"port: {http_port}",
        "registry.example.com": images,
    }.items():
        somebody.edits("config.yaml", before, after)
    somebody.saves("acme-corp.json", example("json"))
    somebody.edits("acme-corp.json", "nginx:alpine", f"{images}/nginx:alpine")
    yield somebody
    asyncio.run(take_away(broker, docker_host, Names("landlord")))


async def failures(http_port: int, reason: str) -> float:
    """Return the README's counter of failures."""
    assert "`landlord_tenant_failures_total`" in README
    _, text = await get(f"http://127.0.0.1:{http_port}/metrics")
    return next(
        sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == "landlord_tenant_failures_total" and sample.labels["reason"] == reason
    )


@pytest.mark.timeout(300)
async def test_the_first_afternoon(person: Person, http_port: int, docker: DockerCli) -> None:
    """A tenant runs; a wrong image is found and mended; a denied event is found and replayed."""
    with person.watches():
        with person.runs_the_consumer():
            await runs_a_tenant(person, docker)
            await breaks_and_mends_it(person, http_port)
            event_id = await is_denied(person, http_port)
        person.edits("config.yaml", '"8000-8999"', '"8000-9999"')
        with person.runs_the_consumer():
            await replays(person, event_id)


async def runs_a_tenant(person: Person, docker: DockerCli) -> None:
    """By "Running it" and "Publishing an event, and seeing what comes of it"."""
    person.types("publish created acme-corp.json")
    await person.sees("acme-corp", "running/started")

    assert json.loads(person.types("status acme-corp"))["state"] == "running"
    assert docker.inspect("landlord-tenant-acme-corp", ".State.Running") is True


async def breaks_and_mends_it(person: Person, http_port: int) -> None:
    """By "Something is wrong" and the table of failures: one that ran, and one that never did."""
    person.has_another("second", 8081)
    for name in ("acme-corp.json", "second.json"):
        person.edits(name, "nginx:alpine", "nginx:alpnie")
    event_id = person.types("publish created acme-corp.json")
    line = await person.sees("acme-corp", "running/rolled_back")
    person.types("publish created", "second.json")
    await person.sees("second", "failed/image_not_found")

    told = json.loads(person.types("status acme-corp"))
    listed = [json.loads(line) for line in person.types("tenants", "--json").splitlines()]
    _, page = await get(f"http://127.0.0.1:{http_port}/tenants?state=failed")
    (failed,) = person.types("tenants --state failed", "--json").splitlines()

    assert "nginx:alpnie" in line
    assert (told["reason"], told["event_id"]) == ("rolled_back", event_id)
    assert {tenant["tenant_id"]: tenant["reason"] for tenant in listed} == {
        "acme-corp": "rolled_back",
        "second": "image_not_found",
    }
    assert [tenant["tenant_id"] for tenant in json.loads(page)["tenants"]] == ["second"]
    assert "nginx:alpnie" in json.loads(failed)["message"]
    assert await failures(http_port, "image_not_found") >= 2
    assert "| `image_not_found` |" in README

    for name in ("acme-corp.json", "second.json"):
        person.edits(name, "nginx:alpnie", "nginx:alpine")
    person.types("publish created acme-corp.json")
    await person.sees("acme-corp", "running/unchanged")
    person.types("publish created", "second.json")
    await person.sees("second", "running/started")
    assert person.types("tenants --state failed", "--json") == ""


async def is_denied(person: Person, http_port: int) -> str:
    """By "Dead letters"; return the event's id."""
    person.has_another("third", 9080)
    event_id = person.types("publish created", "third.json")
    await person.sees("third", "failed/policy_denied")

    (letter,) = person.types("dead-letters list --each", "--json").splitlines()
    shown = person.types("dead-letters show", event_id)

    assert json.loads(letter)["event_id"] == event_id
    assert json.loads(letter)["reason"] == "policy_denied"
    assert "compute.policy.host_ports" in shown
    assert "9080" in shown
    assert await failures(http_port, "policy_denied") == 1
    return event_id


async def replays(person: Person, event_id: str) -> None:
    """After the cause was mended, in the settings."""
    replayed = person.types("dead-letters replay --reason policy_denied --rate 5", "--yes")
    await person.sees("third", "running/started")

    assert event_id in replayed
    assert json.loads(person.types("status", "third"))["event_id"] == event_id
