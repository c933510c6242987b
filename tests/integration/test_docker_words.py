"""What containers said last, as it is read back from a real engine."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from consumer.adapters.docker import DockerEngine
from consumer.adapters.docker_client import Endpoint
from consumer.adapters.docker_spec import Naming
from consumer.model import Container, Health, HealthCheck, TenantSpec
from deploy.lab.docker_cli import DockerCli
from deploy.lab.servers import DockerHost
from tests.builders import TENANT_ID, make_tenant
from tests.contract.engines import RESTART_NEVER, eventually, has_exited, run, shell_spec

pytestmark = pytest.mark.docker

PREFIX = "ll-words"
PASSWORD = "correct horse"
TOKEN = "line one of a key\nline two of a key"


@pytest.fixture
async def engine(
    docker_host: DockerHost, docker: DockerCli, tmp_path: Path
) -> AsyncIterator[DockerEngine]:
    """Open an adapter whose tenant has one secret."""
    folder = tmp_path / TENANT_ID
    folder.mkdir()
    (folder / "token").write_text(TOKEN)
    engine = DockerEngine(
        endpoint=Endpoint(url=docker_host.url), naming=Naming(PREFIX), secrets_dir=tmp_path
    )
    async with engine.opened():
        yield engine
    docker.remove_containers(f"{PREFIX}.owner={PREFIX}")


async def ended(engine: DockerEngine, spec: TenantSpec) -> Container:
    """Return the container of the spec once it has ended."""
    await run(engine, spec)
    return await eventually(engine, has_exited)


async def words_of(engine: DockerEngine, container: Container, *, end: str) -> str:
    """Return its last words once they end so: a busy engine writes the log a little later."""
    deadline = asyncio.get_running_loop().time() + 10
    while True:
        words = await engine.last_words(container)
        if words.endswith(end):
            return words
        assert asyncio.get_running_loop().time() < deadline, words
        await asyncio.sleep(0.1)


def script(text: str, **changes: object) -> TenantSpec:
    return shell_spec(text, restart_policy=RESTART_NEVER, **changes)


async def test_the_last_lines_are_told(engine: DockerEngine) -> None:
    """Of both streams, without colours, the last ones when there are many."""
    spec = script(r"seq 1 5000; sleep 0.5; printf '\033[31mno such table\033[0m\n' >&2; exit 1")

    words = await words_of(engine, await ended(engine, spec), end="table")

    assert words.splitlines()[-3:] == ["4999", "5000", "no such table"]
    assert len(words.splitlines()) < 20


async def test_they_are_at_most_two_kibibytes(engine: DockerEngine) -> None:
    """The end is what counts, in whole characters."""
    spec = script("for i in $(seq 1 10); do seq -s ☂ 1 100; done; exit 1")

    words = await words_of(engine, await ended(engine, spec), end="99☂100")

    assert 2000 < len(words.encode()) <= 2048


async def test_what_only_the_tenant_may_know_is_left_out(engine: DockerEngine) -> None:
    """Values of the environment, and secrets, also of many lines."""
    spec = script(
        'echo "login with $PASSWORD refused"; cat /run/secrets/token; echo; exit 1',
        env=(("PASSWORD", PASSWORD),),
        secrets=("token",),
    )

    words = await words_of(engine, await ended(engine, spec), end="\n***")

    assert words.splitlines() == ["login with *** refused", "***"]


async def test_a_secret_of_yesterday_is_left_out_too(engine: DockerEngine, tmp_path: Path) -> None:
    """It is the one that the container was given; the operator has changed it since."""
    spec = script("cat /run/secrets/token; echo; echo end; exit 1", secrets=("token",))
    container = await ended(engine, spec)

    (tmp_path / TENANT_ID / "token").write_text("another")

    assert await words_of(engine, container, end="end") == "***\nend"


async def test_who_forgets_a_secret_that_nobody_knows_is_not_quoted(
    engine: DockerEngine, docker: DockerCli, tmp_path: Path
) -> None:
    """What is not known cannot be taken out; one that the operator still has, can be."""
    telling = "cat /run/secrets/token; echo; rm /run/secrets/token; echo end; exit 1"
    container = await ended(engine, script(telling, secrets=("token",)))

    known = await words_of(engine, container, end="end")
    (tmp_path / TENANT_ID / "token").unlink()
    unknown = await engine.last_words(container)

    assert known == "***\nend"
    assert unknown == ""
    assert "line one" in docker.run("logs", container.container_id)


async def test_a_value_that_begins_before_the_last_lines_is_left_out(engine: DockerEngine) -> None:
    """The engine cuts a very long line into pieces; no piece is told of which we lack the start."""
    value = "x" * 100_000
    spec = script(
        'for i in 1 2 3 4; do printf %s "$LONG"; done; echo; echo end; exit 1',
        env=(("LONG", value),),
    )

    words = await words_of(engine, await ended(engine, spec), end="end")

    assert words == "end"


async def test_an_earlier_run_is_not_told_of(engine: DockerEngine) -> None:
    """Each run has its own words."""
    spec = script("if [ -e /once ]; then echo second; else touch /once; echo first; fi; exit 1")
    first = await ended(engine, spec)
    await asyncio.sleep(3)  # the engine finds lines by their time

    await engine.start(first)
    again = await eventually(engine, has_exited)

    assert await words_of(engine, again, end="d") == "second"


@pytest.mark.parametrize("driver", ["none", "json-file"])
async def test_where_nothing_can_be_read_nothing_is_told(engine: DockerEngine, driver: str) -> None:
    """A log driver without a way back, or a container that is gone."""
    container = await ended(engine, script("echo hello; exit 1", log_driver=driver))
    if driver == "json-file":
        await engine.remove(container)

    assert await engine.last_words(container) == ""


async def test_a_failing_health_check_is_quoted(engine: DockerEngine) -> None:
    """Of a container that is up, what its check wrote is the cause; its values are left out."""
    check = HealthCheck(("CMD-SHELL", 'echo "no answer from $PASSWORD"; exit 1'), 0.2, retries=1)
    await run(engine, shell_spec(healthcheck=check, env=(("PASSWORD", PASSWORD),)))

    unhealthy = await eventually(engine, lambda seen: seen.health is Health.UNHEALTHY)

    assert await engine.last_words(unhealthy) == "no answer from ***"


async def test_a_health_check_that_writes_too_much_is_quoted_in_whole_lines(
    engine: DockerEngine,
) -> None:
    """The engine cuts its output off, perhaps within a value."""
    writing = 'echo begin; seq -s , 1 2000 | cut -c 1-4085; echo "$PASSWORD"; exit 1'
    check = HealthCheck(("CMD-SHELL", writing), 0.2, retries=1)
    await run(engine, shell_spec(healthcheck=check, env=(("PASSWORD", PASSWORD),)))

    unhealthy = await eventually(engine, lambda seen: seen.health is Health.UNHEALTHY)
    words = await engine.last_words(unhealthy)

    assert words
    assert "corr" not in words


async def test_the_log_of_what_runs_can_be_read(engine: DockerEngine) -> None:
    """Its last lines, also those of runs before, without what only its tenant may know."""
    telling = "echo one with $PASSWORD; cat /run/secrets/token; echo; echo end; sleep 60"
    env = (("PASSWORD", PASSWORD),)
    check = HealthCheck(("CMD-SHELL", "echo not this; exit 1"), 0.2, retries=1)
    container = await run(
        engine, shell_spec(telling, env=env, secrets=("token",), healthcheck=check)
    )
    assert await tail_of(engine, end="end") == "one with ***\n***\nend"

    await engine.remove(container)
    assert await engine.tail(make_tenant()) is None

    count = "for i in $(seq 1 100); do echo line $i with $PASSWORD; done; exit 1"
    await ended(engine, script(count, env=env))
    lines = (await tail_of(engine, end="line 100 with ***")).splitlines()
    assert len(lines) == 59  # the first of sixty may be a part of one
    assert lines[0] == "line 42 with ***"


async def test_the_log_of_a_run_with_an_older_secret_is_not_read(
    engine: DockerEngine, tmp_path: Path
) -> None:
    """That value is nowhere any more, and could not be taken out."""
    container = await ended(engine, script("cat /run/secrets/token; exit 1", secrets=("token",)))
    (tmp_path / TENANT_ID / "token").write_text("new value\n")
    await asyncio.sleep(3)  # the engine's clock of log lines and ours of starts are coarse

    await engine.start(container)

    assert await tail_of(engine, end="***") == "***"


async def tail_of(engine: DockerEngine, *, end: str) -> str:
    """Return the tenant's log once it ends so."""
    deadline = asyncio.get_running_loop().time() + 10
    while True:
        lines = await engine.tail(make_tenant()) or ""
        if lines.endswith(end):
            return lines
        assert asyncio.get_running_loop().time() < deadline, lines
        await asyncio.sleep(0.1)
