"""The command line is the same throughout: help with an example, completion, no slow start."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer.main
from typer.core import TyperGroup
from typer.testing import CliRunner

from consumer.cli import ToldState, cli
from consumer.metrics import TENANT_STATES

PROGRAM = Path(sys.executable).with_name("landlord-consumer")
HEAVY = {"aio_pika", "aiodocker", "aiohttp", "pydantic", "sqlalchemy", "structlog", "yaml"}


def commands() -> Iterator[tuple[str, ...]]:
    """Give every command as it is typed, groups and the program itself among them."""

    def below(command: object, words: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
        yield words
        for name, inner in command.commands.items() if isinstance(command, TyperGroup) else ():
            yield from below(inner, (*words, name))

    return below(typer.main.get_command(cli), ())


@pytest.mark.parametrize("words", [*commands()], ids=" ".join)
def test_every_help_shows_an_example(words: tuple[str, ...]) -> None:
    """And the example is of that very command."""
    shown = CliRunner().invoke(cli, [*words, "--help"])

    assert shown.exit_code == 0
    assert " ".join(("Example: landlord-consumer", *words)) in " ".join(shown.output.split())


def test_help_does_not_wait_for_libraries() -> None:
    """Nothing that takes long to import is imported before a command needs it."""
    done = subprocess.run(
        [sys.executable, "-c", "import sys, consumer.cli; print(*sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
    )

    assert HEAVY & set(done.stdout.split()) == set()


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("tenants --state fa", ["failed"]),
        ("publish de", ["deleted"]),
        ("dead-letters replay --reason po", ["policy_denied"]),
    ],
)
def test_a_shell_completes_what_is_typed(typed: str, offered: list[str]) -> None:
    """States, kinds of event and reasons are offered as bash asks for them."""
    done = subprocess.run(
        [PROGRAM],
        env={
            **os.environ,
            "_LANDLORD_CONSUMER_COMPLETE": "complete_bash",
            "COMP_WORDS": f"landlord-consumer {typed}",
            "COMP_CWORD": str(len(typed.split())),
        },
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.stdout.split() == offered, done.stderr


def test_states_that_can_be_asked_for_are_those_told() -> None:
    """A new state of the contract has its place in the option."""
    assert {state.value for state in ToldState} == set(TENANT_STATES)


@pytest.mark.parametrize(
    ("words", "answer", "code", "is_asked"),
    [
        pytest.param((), "n\n", 1, False, id="no"),
        pytest.param((), "", 1, False, id="nobody answers"),
        pytest.param((), "y\n", 0, True, id="yes"),
        pytest.param(("--yes",), "", 0, True, id="not to be asked"),
    ],
)
def test_a_take_over_is_asked_for(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    words: tuple[str, ...],
    answer: str,
    code: int,
    *,
    is_asked: bool,
) -> None:
    """Nothing is taken over by a slip: the ledger is not even made before somebody says yes."""
    monkeypatch.setenv("LANDLORD_LEDGER__URL", f"sqlite:///{tmp_path}/landlord.db")
    monkeypatch.chdir(tmp_path)

    done = CliRunner().invoke(cli, ["take-over", *words], input=answer)

    assert (done.exit_code, (tmp_path / "landlord.db").exists()) == (code, is_asked)
