"""The command line: a few lines for each command, which call the parts.

Exit codes: 0 done, 1 a check or a request failed, 2 wrong usage or settings. Trouble is told in one
line for each fault, on stderr; what was asked for goes to stdout, as JSON with `--json`.
"""

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Coroutine
from dataclasses import asdict
from enum import StrEnum
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Final, TypeVar
from uuid import uuid4

import typer

from consumer import logs
from consumer.adapters.compute_api import ask
from consumer.adapters.rabbitmq_operator import (
    OutgoingEvent,
    publish_tenant_event,
    watch_statuses,
)
from consumer.app import DISTRIBUTION, serve
from consumer.checkup import Outcome
from consumer.cli_dead_letters import dead_letters
from consumer.contract import asyncapi, status_event_schema, tenant_event_schema
from consumer.errors import ConsumerError, SettingsError
from consumer.examination import examine
from consumer.model import Document, EventKind, as_tenant_id
from consumer.settings import Settings, load, origin_of_engine
from consumer.terminal import (
    DONE,
    FAILED,
    WRONG_USE,
    ConfigOption,
    JsonOption,
    print_examined,
    print_table,
    refuse,
    say,
)
from consumer.wiring import broker_link, broker_names, topology

_T = TypeVar("_T")

_YAML_SUFFIXES: Final = frozenset({".yaml", ".yml"})

cli: Final = typer.Typer(
    name="landlord-consumer",
    help="Applies tenant events from RabbitMQ to Docker: one container per tenant.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

cli.add_typer(dead_letters, name="dead-letters")


class Kind(StrEnum):
    """Tenant events by their short names."""

    CREATED = "created"
    UPDATED = "updated"
    DELETED = "deleted"
    SUSPENDED = "suspended"
    RESUMED = "resumed"


def main() -> None:
    """Run the command line; every failure on purpose ends in one line, not in a traceback."""
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
    settings = load(config)
    logs.configure(level=settings.log.level, form=settings.log.format)
    raise typer.Exit(asyncio.run(serve(settings)))


@cli.command()
def check(config: ConfigOption = None, *, as_json: JsonOption = False) -> None:
    """Look over all that a start needs; say what is wrong, and what mends it. Change nothing.

    Run it as the consumer's user. Exit code 1 when anything is wrong.

    Example: landlord-consumer check
    """
    examined = _wait(examine(load(config), origin=origin_of_engine(config)))
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
    tenant: Annotated[str | None, typer.Option(help="Tenant id, instead of a file.")] = None,
    event_id: Annotated[str | None, typer.Option(help="Event id; a new one if not given.")] = None,
    config: ConfigOption = None,
    *,
    as_json: JsonOption = False,
) -> None:
    """Publish a tenant event and print its id once the broker has confirmed it.

    Example: landlord-consumer publish created acme-corp.json
    """
    settings = load(config)
    body, content_type = _read_body(file, tenant)
    event = OutgoingEvent(
        kind=EventKind(f"tenant.{kind.value}"),
        body=body,
        content_type=content_type,
        event_id=event_id or str(uuid4()),
    )
    _wait(publish_tenant_event(broker_link(settings), topology(settings), event))
    told = {"event_id": event.event_id, "type": event.kind.value}
    print(json.dumps(told) if as_json else event.event_id)


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
    tenant: Annotated[str | None, typer.Option(help="Only this tenant.")] = None,
    count: Annotated[int, typer.Option(help="Stop after so many; 0 never.")] = 0,
    timeout: Annotated[float, typer.Option(help="Give up after so many seconds; 0 never.")] = 0,
    config: ConfigOption = None,
    *,
    as_json: JsonOption = False,
) -> None:
    """Print status events as they come, until interrupted.

    Example: landlord-consumer watch --tenant acme-corp
    """
    _wait(_watch(load(config), _Wanted(tenant, count, timeout), as_json=as_json))


class _Wanted:
    """What is to be watched for, and how long."""

    def __init__(self, tenant: str | None, count: int, timeout_seconds: float) -> None:
        self.tenant = tenant
        self.count = count
        self.timeout_seconds = timeout_seconds or None


async def _watch(settings: Settings, wanted: _Wanted, *, as_json: bool) -> None:
    shown = 0
    link = broker_link(settings)
    try:
        async with (
            asyncio.timeout(wanted.timeout_seconds),
            watch_statuses(link, topology(settings)) as bodies,
        ):
            say(f"watching {link.place}")
            async for status in _statuses(bodies, wanted.tenant):
                print(json.dumps(status) if as_json else _line(status), flush=True)
                shown += 1
                if shown == wanted.count:
                    return
    except TimeoutError:
        raise ConsumerError(f"{shown} status events within the time given") from None


async def _statuses(bodies: AsyncIterator[bytes], tenant: str | None) -> AsyncIterator[Document]:
    async for body in bodies:
        status = json.loads(body)
        if tenant in (None, status.get("tenant_id")):
            yield status


def _line(status: Document) -> str:
    state = f"{status['state']}/{status['reason']}"
    return f"{status['occurred_at']}  {status['tenant_id']}  {state}  {status['message']}"


@cli.command()
def tenants(
    state: Annotated[str | None, typer.Option(help="Only tenants in this state.")] = None,
    url: Annotated[str | None, typer.Option(help="The consumer's HTTP address.")] = None,
    config: ConfigOption = None,
    *,
    as_json: JsonOption = False,
) -> None:
    """List tenants and what became of them, as the running consumer tells.

    Example: landlord-consumer tenants --state failed
    """
    settings = load(config)
    listed = _wait(_list_tenants(settings, url, state))
    if as_json:
        for tenant in listed:
            print(json.dumps(tenant))
        return
    names = ("tenant_id", "state", "reason", "desired", "message")
    rows = [tuple(tenant.get(name) or "" for name in names) for tenant in listed]
    print_table("tenant", "state", "reason", "wanted", "message", rows=[*rows])


async def _list_tenants(settings: Settings, url: str | None, state: str | None) -> list[Document]:
    listed: list[Document] = []
    after: object = ""
    while after is not None:
        query = f"?limit=1000&after={after}" + (f"&state={state}" if state else "")
        page = await _get(settings, url, f"/tenants{query}")
        found = page.get("tenants")
        listed += found if isinstance(found, list) else []
        after = page.get("next")
    return listed


@cli.command()
def status(
    tenant_id: str,
    url: Annotated[str | None, typer.Option(help="The consumer's HTTP address.")] = None,
    config: ConfigOption = None,
    *,
    as_json: JsonOption = False,
) -> None:
    """Show a tenant's compute status, as the running consumer tells.

    Example: landlord-consumer status acme-corp
    """
    told = _wait(_get(load(config), url, f"/tenants/{tenant_id}/compute/status"))
    print(json.dumps(told) if as_json else json.dumps(told, indent=2))


async def _get(settings: Settings, url: str | None, path: str) -> dict[str, object]:
    host = "127.0.0.1" if settings.http.host == "0.0.0.0" else settings.http.host  # noqa: S104 - compared
    base = (url or f"http://{host}:{settings.http.port}").rstrip("/")
    code, document = await ask(base, path, token=settings.http.token)
    if code != 200:
        raise ConsumerError(f"{code}: {document.get('message', document)}")
    return document


@cli.command()
def schema(*, events_out: Annotated[bool, typer.Option("--status")] = False) -> None:
    """Print the JSON Schema of the tenant document, or of a status event.

    Example: landlord-consumer schema --status
    """
    print(json.dumps(status_event_schema() if events_out else tenant_event_schema(), indent=2))


@cli.command(name="asyncapi")
def print_asyncapi(config: ConfigOption = None) -> None:
    """Print the AsyncAPI 3 document of what comes and goes, with the names of the settings.

    Example: landlord-consumer asyncapi > asyncapi.yaml
    """
    names = broker_names(load(config))
    print(asyncapi(names, version=version(DISTRIBUTION)), end="")


def _wait(work: Coroutine[object, object, _T]) -> _T:
    return asyncio.run(work)
