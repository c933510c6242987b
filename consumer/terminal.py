"""What the commands share: their common options, how trouble is told, how a person is asked.

What came off the broker may hold anything, so it is made harmless before it is printed: a control
character could otherwise rewrite the operator's terminal.
"""

import asyncio
import logging
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Final, NoReturn

import typer
from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.table import Table

from consumer.checkup import Examined, Outcome
from consumer.harmless import harmless, in_one_line

DONE: Final = 0
FAILED: Final = 1
WRONG_USE: Final = 2

ConfigOption = Annotated[
    Path | None,
    typer.Option("--config", help="Settings file; else $LANDLORD_CONFIG, else ./config.yaml."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON, one object a line.")]


def hush_libraries() -> None:
    """Keep what libraries log off the person's terminal; what matters of it is told as trouble."""
    logging.getLogger().addHandler(logging.NullHandler())


def say(message: str) -> None:
    """Tell the person something that is no answer: on stderr.

    It may hold the words of a server, which get no line of their own.
    """
    print(f"landlord-consumer: {in_one_line(message)}", file=sys.stderr)


def refuse(message: str) -> NoReturn:
    """End the command as wrongly used."""
    say(message)
    raise typer.Exit(WRONG_USE)


def print_table(*columns: str, rows: list[tuple[object, ...]]) -> None:
    """Print rows below their column names; None is an empty cell."""
    Console().print(_table(columns, rows))


def _table(columns: tuple[str, ...], rows: list[tuple[object, ...]], note: str = "") -> Table:
    table = Table(*columns, box=None, caption=escape(harmless(note)) or None)
    for row in rows:
        table.add_row(*(escape(harmless("" if cell is None else str(cell))) for cell in row))
    return table


ShowRows = Callable[[list[tuple[object, ...]], str], None]
"""Given rows and a note below them, shows them in place of what was shown before."""


@contextmanager
def live_table(*columns: str) -> Iterator[ShowRows | None]:
    """Keep a table in place for the length of the block; None when stdout is no terminal."""
    console = Console()
    if not console.is_terminal:
        yield None
        return
    with Live(console=console, auto_refresh=False) as live:
        yield lambda rows, note: live.update(_table(columns, rows, note), refresh=True)


@contextmanager
def until_interrupted() -> Iterator[None]:
    """End the command as done when the person has seen enough: Ctrl-C, or a pipe that closed."""
    try:
        yield
    except KeyboardInterrupt:
        raise typer.Exit(DONE) from None
    except BrokenPipeError:
        # Python flushes stdout once more at its end, which would fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(DONE) from None


_SHOWN: Final = {
    Outcome.OK: ("ok", "green"),
    Outcome.WARNING: ("WARNING", "yellow"),
    Outcome.WRONG: ("WRONG", "red"),
    Outcome.UNTRIED: ("untried", "dim"),
}


def print_examined(thing: Examined) -> None:
    """Print what a check came to, and below it the command that mends it."""
    word, style = _SHOWN[thing.outcome]
    console = Console(highlight=False)
    told = escape(harmless(f"{thing.name}: {thing.message}"))
    # Whole lines, however narrow the terminal is: a command is there to be copied.
    console.print(f"[{style}]{word:<8}[/] {told}", soft_wrap=True)
    if thing.cure is not None:
        console.print(f"         mend: {escape(harmless(thing.cure))}", soft_wrap=True)


async def has_agreed(question: str) -> bool:
    """Ask on the terminal and wait for the answer; only a yes is one.

    Through the event loop, so that a connection to the broker outlives a long thought.
    """
    print(f"{in_one_line(question)} [y/N] ", end="", file=sys.stderr, flush=True)
    loop = asyncio.get_running_loop()
    answered = asyncio.Event()
    loop.add_reader(sys.stdin.fileno(), answered.set)
    try:
        await answered.wait()
    finally:
        loop.remove_reader(sys.stdin.fileno())
    return sys.stdin.readline().strip().lower() in ("y", "yes")
