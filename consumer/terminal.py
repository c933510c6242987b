"""What the commands share: their common options, how trouble is told, how a person is asked.

What came off the broker may hold anything, so it is made harmless before it is printed: a control
character could otherwise rewrite the operator's terminal.
"""

import asyncio
import sys
from pathlib import Path
from typing import Annotated, Final, NoReturn

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from consumer.checkup import Examined, Outcome

DONE: Final = 0
FAILED: Final = 1
WRONG_USE: Final = 2

ConfigOption = Annotated[
    Path | None,
    typer.Option("--config", help="Settings file; else $LANDLORD_CONFIG, else ./config.yaml."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON, one object a line.")]


def say(message: str) -> None:
    """Tell the person something that is no answer: on stderr."""
    print(f"landlord-consumer: {message}", file=sys.stderr)


def refuse(message: str) -> NoReturn:
    """End the command as wrongly used."""
    say(message)
    raise typer.Exit(WRONG_USE)


def harmless(text: str) -> str:
    """Return the text with its control characters written out, but for line ends and tabs."""
    return "".join(
        char if char.isprintable() or char in "\n\t" else char.encode("unicode_escape").decode()
        for char in text
    )


def print_table(*columns: str, rows: list[tuple[object, ...]]) -> None:
    """Print rows below their column names; None is an empty cell."""
    table = Table(*columns, box=None)
    for row in rows:
        table.add_row(*(escape(harmless("" if cell is None else str(cell))) for cell in row))
    Console().print(table)


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
    print(f"{question} [y/N] ", end="", file=sys.stderr, flush=True)
    loop = asyncio.get_running_loop()
    answered = asyncio.Event()
    loop.add_reader(sys.stdin.fileno(), answered.set)
    try:
        await answered.wait()
    finally:
        loop.remove_reader(sys.stdin.fileno())
    return sys.stdin.readline().strip().lower() in ("y", "yes")
