"""The commands for dead letters: list, show, replay, drop.

Nothing is put back or destroyed before somebody has agreed: on the terminal, or by `--yes`.
"""

import asyncio
import base64
import json
import sys
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated, Final

import typer

from consumer.errors import ConsumerError, MessageRefused
from consumer.harmless import harmless, in_one_line
from consumer.model import Document
from consumer.terminal import (
    FAILED,
    ConfigOption,
    JsonOption,
    has_agreed,
    print_table,
    refuse,
    say,
)

if TYPE_CHECKING:
    from consumer.adapters.rabbitmq_letters import HeldLetters
    from consumer.letters import Letter, Selection
    from consumer.settings import Settings

dead_letters: Final = typer.Typer(
    help="Look at dead letters, put them back, or drop them.\n\n"
    "Example: landlord-consumer dead-letters list",
    no_args_is_help=True,
)

IdOption = Annotated[str | None, typer.Option("--id", help="Those of this event or message id.")]
_REFUSALS: Final = ("invalid_event", "policy_denied", "provider_not_supported")


def _complete_reason(incomplete: str) -> list[str]:
    """Return the consumer's own reasons that begin so; the broker's are others still."""
    return [reason for reason in _REFUSALS if reason.startswith(incomplete)]


ReasonOption = Annotated[
    str | None,
    typer.Option("--reason", help="Those with this reason.", autocompletion=_complete_reason),
]
AllOption = Annotated[bool, typer.Option("--all", help="All that are there now.")]
YesOption = Annotated[bool, typer.Option("--yes", help="Do not ask.")]


@dataclass(frozen=True, slots=True)
class _Deed:
    """What is to be done to each letter, and how it is told."""

    verb: str
    done: str
    on: "Callable[[HeldLetters], Callable[[Letter], Awaitable[None]]]"
    pause_seconds: float = 0.0
    is_dry: bool = False


@dead_letters.command(name="list")
def list_letters(
    config: ConfigOption = None,
    *,
    each: Annotated[bool, typer.Option("--each", help="One line for each letter.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Count dead letters by reason, or list each of them. They stay where they are, in order.

    For that moment nobody else sees them, and the broker counts one
    redelivery of each; those with ten are put at the queue's end as new,
    before a delivery limit could drop them.

    Example: landlord-consumer dead-letters list --each
    """
    from consumer.adapters.rabbitmq_letters import look_at_letters
    from consumer.letters import grouped, summary
    from consumer.settings import load
    from consumer.wiring import operators_link, topology

    settings = load(config)
    letters = asyncio.run(look_at_letters(operators_link(settings), topology(settings)))
    if as_json:
        for line in map(summary, letters) if each else map(asdict, grouped(letters)):
            print(json.dumps(line))
    elif not letters:
        say("no dead letters")
    elif each:
        columns = ("position", "received_at", "reason", "type", "tenant_id", "event_id", "error")
        shown = [summary(letter) for letter in letters]
        print_table(*columns, rows=[tuple(line[name] for name in columns) for line in shown])
    else:
        rows = [(one.reason, one.count, one.newest, one.tenant_id) for one in grouped(letters)]
        print_table("reason", "count", "newest", "tenant of the newest", rows=[*rows])


@dead_letters.command()
def show(
    event_id: Annotated[str | None, typer.Argument(help="Event or message id.")] = None,
    position: Annotated[
        int | None, typer.Option(min=1, help="Instead: its place, as list --each tells it.")
    ] = None,
    config: ConfigOption = None,
    *,
    as_json: JsonOption = False,
) -> None:
    """Show one dead letter: what it says of itself, properties, headers and body.

    The body is the tenant document as it came, environment values and all:
    mind who looks on.

    Example: landlord-consumer dead-letters show 18ee3f0c-8bef-4f0b-bb81-cc0ef1601ff8
    """
    if (event_id is None) is (position is None):
        refuse("give either an id or --position")
    from consumer.letters import Selection
    from consumer.settings import load

    wanted = Selection(event_id=event_id)

    def is_it(letter: "Letter") -> bool:
        return letter.position == position if position else wanted.matches(letter)

    letters = asyncio.run(_read(load(config), is_it))
    if not letters:
        raise ConsumerError("no such dead letter")
    if len(letters) > 1:
        places = ", ".join(str(letter.position) for letter in letters)
        say(f"{len(letters)} dead letters have this id, at the positions {places}")
    told = _whole(letters[0])
    if as_json:
        print(json.dumps(told, default=str))
    else:
        _print_whole(told)


async def _read(settings: "Settings", wanted: "Callable[[Letter], bool]") -> "list[Letter]":
    from consumer.adapters.rabbitmq_letters import hold_letters
    from consumer.wiring import operators_link, topology

    async with hold_letters(operators_link(settings), topology(settings), wanted) as held:
        return held.letters


def _whole(letter: "Letter") -> Document:
    from consumer.letters import summary

    told = {
        **summary(letter),
        "exchange": letter.exchange,
        "routing_key": letter.routing_key,
        "properties": dict(letter.delivery.properties),
        "headers": dict(letter.delivery.headers),
    }
    try:
        return {**told, "body": letter.delivery.body.decode()}
    except UnicodeDecodeError:
        return {**told, "body_base64": base64.b64encode(letter.delivery.body).decode()}


def _print_whole(told: Document) -> None:
    for name, value in told.items():
        if isinstance(value, dict):
            for inner, part in value.items():
                print(in_one_line(f"{name}.{inner}: {part}"))
        elif name != "body":
            print(in_one_line(f"{name}: {'' if value is None else value}"))
    if "body" in told:
        print("\n" + harmless(str(told["body"])))


@dead_letters.command()
def replay(  # noqa: PLR0913 - each is an option
    event_id: IdOption = None,
    reason: ReasonOption = None,
    rate: Annotated[float, typer.Option(min=0, help="So many a second at most; 0 any.")] = 0,
    config: ConfigOption = None,
    *,
    all_letters: AllOption = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say which.")] = False,
    yes: YesOption = False,
    as_json: JsonOption = False,
) -> None:
    """Put originals back to the tenant exchange, unchanged, once their cause is mended.

    Each counts its replays in the header landlord-replays; one that is
    still bad becomes a dead letter again. An event without a generation
    overwrites what came for its tenant since. Killed on the way, a letter
    may be there twice, and the second is a duplicate; none is lost.

    Example: landlord-consumer dead-letters replay --reason policy_denied --rate 5
    """
    from consumer.settings import load

    wanted = _selection(event_id, reason, all_letters=all_letters)
    deed = _Deed(
        "replay", "replayed", lambda held: held.replay, 1 / rate if rate else 0.0, is_dry=dry_run
    )
    _do(deed, load(config), wanted, is_agreed=_agreed(yes=yes or dry_run), as_json=as_json)


@dead_letters.command()
def drop(
    event_id: IdOption = None,
    reason: ReasonOption = None,
    config: ConfigOption = None,
    *,
    all_letters: AllOption = False,
    yes: YesOption = False,
    as_json: JsonOption = False,
) -> None:
    """Destroy dead letters. What they asked for is gone with them.

    Example: landlord-consumer dead-letters drop --reason invalid_event
    """
    from consumer.settings import load

    wanted = _selection(event_id, reason, all_letters=all_letters)
    deed = _Deed("drop", "dropped", lambda held: held.drop)
    _do(deed, load(config), wanted, is_agreed=_agreed(yes=yes), as_json=as_json)


def _selection(event_id: str | None, reason: str | None, *, all_letters: bool) -> "Selection":
    from consumer.letters import Selection

    is_narrow = event_id is not None or reason is not None
    if is_narrow is all_letters:
        refuse("say which: --id, --reason or both, or else --all")
    return Selection(event_id=event_id, reason=reason)


def _agreed(*, yes: bool) -> bool:
    if not yes and not sys.stdin.isatty():
        refuse("not on a terminal, where it could ask: give --yes")
    return yes


def _do(
    deed: _Deed, settings: "Settings", wanted: "Selection", *, is_agreed: bool, as_json: bool
) -> None:
    if not asyncio.run(_act(deed, settings, wanted, is_agreed=is_agreed, as_json=as_json)):
        raise typer.Exit(FAILED)


async def _act(
    deed: _Deed, settings: "Settings", wanted: "Selection", *, is_agreed: bool, as_json: bool
) -> bool:
    """Do it to every letter that is meant; return whether all went well."""
    from consumer.adapters.rabbitmq_letters import hold_letters
    from consumer.wiring import operators_link, topology

    link = operators_link(settings)
    async with hold_letters(link, topology(settings), wanted.matches) as held:
        letters = held.letters
        if held.left:
            say(f"{held.left} dead letters were not looked at; run it again for them")
        if not letters:
            say("no dead letter matches")
            return wanted.event_id is None
        question = f"{deed.verb} {len(letters)} of {held.seen} dead letters?"
        if not is_agreed and not await has_agreed(question):
            say("nothing is done")
            return False
        kept = [
            letter
            for number, letter in enumerate(letters)
            if not await _act_on(letter, deed, held, as_json=as_json, is_first=number == 0)
        ]
    if not deed.is_dry:
        say(f"{len(letters) - len(kept)} {deed.done}, {len(kept)} kept")
    return not kept


async def _act_on(
    letter: "Letter", deed: _Deed, held: "HeldLetters", *, as_json: bool, is_first: bool
) -> bool:
    from consumer.letters import summary

    outcome, trouble = f"would be {deed.done}", letter.obstacle if deed.is_dry else None
    if not deed.is_dry:
        await asyncio.sleep(0 if is_first else deed.pause_seconds)
        outcome = deed.done
        try:
            await deed.on(held)(letter)
        except MessageRefused as error:
            trouble = str(error)
    if trouble is not None:
        outcome = "kept"
    if as_json:
        print(json.dumps({**summary(letter), "outcome": outcome, "trouble": trouble}), flush=True)
    else:
        line = f"{outcome}  {letter.name}  {letter.tenant_id or '-'}  {letter.reason}"
        print(in_one_line(f"{line}  {trouble}" if trouble else line), flush=True)
    return trouble is None
