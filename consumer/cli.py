"""The command line: a few lines for each command, which call the parts.

Exit codes: 0 done, 1 a check or a request failed, 2 wrong usage or settings. Trouble is told in one
line for each fault, on stderr; what was asked for goes to stdout, as JSON with `--json`.

A command imports what it needs when it runs: help and completion then answer at once, where all the
libraries together take seconds.
"""

import asyncio
import json
import sys
from dataclasses import asdict
from enum import StrEnum
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Final
from uuid import uuid4

import typer

from consumer.checkup import Outcome
from consumer.cli_dead_letters import dead_letters
from consumer.errors import ConsumerError, SettingsError
from consumer.harmless import harmless
from consumer.model import EventKind, State, as_tenant_id
from consumer.terminal import (
    DONE,
    FAILED,
    WRONG_USE,
    ConfigOption,
    JsonOption,
    hush_libraries,
    print_examined,
    refuse,
    say,
    until_interrupted,
)

_DISTRIBUTION: Final = "landlord-consumer"
_YAML_SUFFIXES: Final = frozenset({".yaml", ".yml"})

cli: Final = typer.Typer(
    name="landlord-consumer",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)

cli.add_typer(dead_letters, name="dead-letters")


class ToldState(StrEnum):
    """The states that a tenant may be told in, and the one before the first."""

    PENDING = "pending"
    RUNNING = State.RUNNING.value
    STOPPED = State.STOPPED.value
    FAILED = State.FAILED.value


class Kind(StrEnum):
    """Tenant events by their short names."""

    CREATED = "created"
    UPDATED = "updated"
    DELETED = "deleted"
    SUSPENDED = "suspended"
    RESUMED = "resumed"


def complete_tenant(incomplete: str) -> list[str]:
    """Return the ids of tenants that begin so, for the shell; none when the consumer is away."""
    from consumer.cli_consumer import list_tenants
    from consumer.settings import load

    try:
        listed = asyncio.run(list_tenants(load(), None, None))
    except ConsumerError:
        return []
    ids = (str(tenant["tenant_id"]) for tenant in listed)
    return [tenant_id for tenant_id in ids if tenant_id.startswith(incomplete)]


TenantOption = Annotated[
    str | None, typer.Option(help="Only this tenant.", autocompletion=complete_tenant)
]
UrlOption = Annotated[str | None, typer.Option(help="The consumer's HTTP address.")]


def _print_version(wanted: bool) -> None:  # noqa: FBT001 - as Typer calls it
    if wanted:
        print(version(_DISTRIBUTION))
        raise typer.Exit(DONE)


@cli.callback()
def common(
    *,
    _version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version"),
    ] = False,
) -> None:
    """Apply tenant events from RabbitMQ to Docker: one container per tenant.

    Example: landlord-consumer check && landlord-consumer run
    """


def main() -> None:
    """Run the command line; every failure on purpose ends in one line, not in a traceback."""
    hush_libraries()
    try:
        cli()
    except SettingsError as error:
        for fault in error.faults:
            say(f"settings: {fault}")
        sys.exit(WRONG_USE)
    except ConsumerError as error:
        say(str(error))
        sys.exit(FAILED)
    except KeyboardInterrupt:
        sys.exit(FAILED)


@cli.command()
def run(config: ConfigOption = None) -> None:
    """Run the consumer in the foreground until SIGTERM or SIGINT.

    Example: landlord-consumer run --config config.yaml
    """
    from consumer import logs
    from consumer.app import serve
    from consumer.settings import load

    settings = load(config)
    logs.configure(level=settings.log.level, form=settings.log.format)
    raise typer.Exit(asyncio.run(serve(settings)))


@cli.command()
def check(config: ConfigOption = None, *, as_json: JsonOption = False) -> None:
    """Look over all that a start needs; say what is wrong, and what mends it. Change nothing.

    Run it as the consumer's user. Exit code 1 when anything is wrong.

    Example: landlord-consumer check
    """
    from consumer.examination import examine
    from consumer.settings import file_in_use, load, origin_of_engine

    settings, origin = load(config), origin_of_engine(config)
    examined = asyncio.run(examine(settings, origin=origin, config=file_in_use(config)))
    for thing in examined:
        if as_json:
            is_ok = thing.outcome is not Outcome.WRONG
            print(json.dumps({**asdict(thing), "ok": is_ok}))
        else:
            print_examined(thing)
    raise typer.Exit(FAILED if any(each.outcome is Outcome.WRONG for each in examined) else DONE)


@cli.command()
def publish(
    kind: Annotated[Kind, typer.Argument(help="What happened to the tenant.")],
    file: Annotated[
        str | None, typer.Argument(help="Tenant document, JSON or .yaml; - reads stdin.")
    ] = None,
    tenant: Annotated[
        str | None,
        typer.Option(help="Tenant id, instead of a file.", autocompletion=complete_tenant),
    ] = None,
    event_id: Annotated[str | None, typer.Option(help="Event id; a new one if not given.")] = None,
    config: ConfigOption = None,
    *,
    as_json: JsonOption = False,
) -> None:
    """Publish a tenant event and print its id once the broker has confirmed it.

    Example: landlord-consumer publish created acme-corp.json
    """
    from consumer.adapters.rabbitmq_operator import OutgoingEvent, publish_tenant_event
    from consumer.settings import load
    from consumer.wiring import operators_link, topology

    settings = load(config)
    body, content_type = _read_body(file, tenant)
    event = OutgoingEvent(
        kind=EventKind(f"tenant.{kind.value}"),
        body=body,
        content_type=content_type,
        event_id=event_id or str(uuid4()),
    )
    asyncio.run(publish_tenant_event(operators_link(settings), topology(settings), event))
    told = {"event_id": event.event_id, "type": event.kind.value}
    print(json.dumps(told) if as_json else harmless(event.event_id))


def _read_body(file: str | None, tenant: str | None) -> tuple[bytes, str]:
    if (file is None) is (tenant is None):
        refuse("give either a file (or -) or --tenant")
    if tenant is not None:
        try:
            return json.dumps({"tenant_id": as_tenant_id(tenant)}).encode(), "application/json"
        except ValueError as error:
            refuse(f"--tenant {tenant!r}: {error}")
    if file == "-":
        return sys.stdin.buffer.read(), "application/json"
    path = Path(file or "")
    try:
        body = path.read_bytes()
    except OSError as error:
        refuse(f"{path}: {error.strerror}")
    is_yaml = path.suffix.lower() in _YAML_SUFFIXES
    return body, "application/yaml" if is_yaml else "application/json"


@cli.command()
def watch(
    tenant: TenantOption = None,
    count: Annotated[int, typer.Option(min=0, help="Stop after so many; 0 never.")] = 0,
    timeout: Annotated[
        float, typer.Option(min=0, help="Give up after so many seconds; 0 never.")
    ] = 0,
    config: ConfigOption = None,
    *,
    as_json: JsonOption = False,
) -> None:
    """Print status events as they come, until interrupted.

    When the broker goes away, it says so and waits for it; what is told
    meanwhile is not seen.

    Example: landlord-consumer watch --tenant acme-corp
    """
    from consumer.cli_consumer import Wanted, watch_events
    from consumer.settings import load

    wanted = Wanted(tenant, count or None, timeout or None)
    with until_interrupted():
        asyncio.run(watch_events(load(config), wanted, as_json=as_json))


@cli.command()
def tenants(
    state: Annotated[ToldState | None, typer.Option(help="Only tenants in this state.")] = None,
    url: UrlOption = None,
    config: ConfigOption = None,
    *,
    keep_watching: Annotated[
        bool, typer.Option("--watch", help="Go on, and show what changes, until interrupted.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """List tenants and what became of them, as the running consumer tells.

    With --watch the table is kept true; where it goes to a file or a pipe,
    each tenant has a line, and another one whenever it changes.

    Example: landlord-consumer tenants --state failed
    """
    from consumer.cli_consumer import list_tenants, print_tenants, watch_tenants
    from consumer.settings import load

    settings, wanted = load(config), state.value if state else None
    if keep_watching:
        with until_interrupted():
            asyncio.run(watch_tenants(settings, url, wanted, as_json=as_json))
    else:
        print_tenants(asyncio.run(list_tenants(settings, url, wanted)), as_json=as_json)


@cli.command()
def status(
    tenant_id: Annotated[str, typer.Argument(autocompletion=complete_tenant)],
    url: UrlOption = None,
    config: ConfigOption = None,
    *,
    as_json: JsonOption = False,
) -> None:
    """Show a tenant's compute status, as the running consumer tells.

    Example: landlord-consumer status acme-corp
    """
    from consumer.cli_consumer import ask_consumer
    from consumer.settings import load

    told = asyncio.run(ask_consumer(load(config), url, f"/tenants/{tenant_id}/compute/status"))
    print(json.dumps(told) if as_json else json.dumps(told, indent=2))


@cli.command()
def take_over(
    config: ConfigOption = None,
    *,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Have the consumer take over what another ledger's consumer left.

    After a ledger was lost: containers under the names of this consumer's
    label prefix and instance become this ledger's, running or stopped as they
    are. Without it they are left alone. A running consumer does it at its next
    resync, else it is done at the next start. The other ledger's consumer must
    never run again.

    Example: landlord-consumer take-over --config config.yaml
    """
    from consumer.adapters.ledger import ask_for_take_over
    from consumer.clock import Clock
    from consumer.settings import load

    settings = load(config)
    question = (
        "Take over the containers that another ledger's consumer made, of prefix "
        f"{settings.compute.docker.label_prefix!r} and instance {settings.instance!r}, on "
        f"{settings.compute.docker.url}?"
    )
    if not yes and not typer.confirm(question):
        raise typer.Exit(FAILED)
    is_running = asyncio.run(ask_for_take_over(settings.ledger.url, clock=Clock()))
    print("asked; " + ("the running consumer does it" if is_running else "done at the next start"))


@cli.command()
def schema(*, events_out: Annotated[bool, typer.Option("--status")] = False) -> None:
    """Print the JSON Schema of the tenant document, or of a status event.

    Example: landlord-consumer schema --status
    """
    from consumer.contract import status_event_schema, tenant_event_schema

    print(json.dumps(status_event_schema() if events_out else tenant_event_schema(), indent=2))


@cli.command(name="asyncapi")
def print_asyncapi(config: ConfigOption = None) -> None:
    """Print the AsyncAPI 3 document of what comes and goes, with the names of the settings.

    Example: landlord-consumer asyncapi > asyncapi.yaml
    """
    from consumer.contract import asyncapi
    from consumer.settings import load
    from consumer.wiring import broker_names

    names = broker_names(load(config))
    print(asyncapi(names, version=version(_DISTRIBUTION)), end="")
