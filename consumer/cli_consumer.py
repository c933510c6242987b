"""What a running consumer tells, over HTTP and by its status events: once, or for as long as asked.

What is watched goes on when the consumer or the broker goes away and comes back; a note on stderr
says so. That it cannot be reached at the beginning is an error: the address is likelier wrong.
"""

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Final

from consumer.adapters.compute_api import ask
from consumer.adapters.rabbitmq_operator import watch_statuses
from consumer.errors import BrokerError, ConsumerError, LoginRefused
from consumer.harmless import in_its_place, in_one_line
from consumer.model import Document
from consumer.settings import Settings
from consumer.terminal import live_table, print_table, say
from consumer.wiring import http_token, http_url, operators_link, topology

COLUMNS: Final = ("tenant", "state", "reason", "wanted", "message")
_FIELDS: Final = ("tenant_id", "state", "reason", "desired", "message")
_LOOK_SECONDS: Final = 1.0


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is to be watched for, and how long; None is without an end."""

    tenant: str | None
    count: int | None
    timeout_seconds: float | None


async def watch_events(settings: Settings, wanted: Wanted, *, as_json: bool) -> None:
    """Print status events as they come. Raises ConsumerError when the time is over before."""
    shown = 0
    try:
        async with asyncio.timeout(wanted.timeout_seconds):
            async for status in _statuses(settings, wanted.tenant):
                print(json.dumps(status) if as_json else status_line(status), flush=True)
                shown += 1
                if shown == wanted.count:
                    return
    except TimeoutError:
        raise ConsumerError(f"{shown} status events within the time given") from None


async def _statuses(settings: Settings, tenant: str | None) -> AsyncIterator[Document]:
    link = operators_link(settings)
    has_watched = False
    while True:
        try:
            async with watch_statuses(link, topology(settings)) as bodies:
                say(f"watching {link.place}")
                has_watched = True
                async for body in bodies:
                    status = read_status(body)
                    if status is None:
                        say("something came that is no status event")
                    elif tenant in (None, status.get("tenant_id")):
                        yield status
        except LoginRefused:
            raise
        except BrokerError as error:
            if not has_watched:
                raise
            say(f"{error}; status events are missed until it is back")
            await asyncio.sleep(_LOOK_SECONDS)


def read_status(body: bytes) -> Document | None:
    """Return the status event; None where somebody else sent something else."""
    try:
        status = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return status if isinstance(status, dict) else None


def status_line(status: Document) -> str:
    """Return what is printed of it: a line, and set in what further lines its message has."""
    state = f"{status.get('state')}/{status.get('reason')}"
    head = f"{status.get('occurred_at')}  {status.get('tenant_id')}  {state}"
    return f"{in_one_line(head)}  {in_its_place(str(status.get('message')))}"


async def list_tenants(settings: Settings, url: str | None, state: str | None) -> list[Document]:
    """Return all tenants, or those in a state. Raises ConsumerError."""
    listed: list[Document] = []
    after: object = ""
    while after is not None:
        query = f"?limit=1000&after={after}" + (f"&state={state}" if state else "")
        page = await ask_consumer(settings, url, f"/tenants{query}")
        found, before = page.get("tenants"), after
        if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
            raise ConsumerError("no list of tenants is answered; is it a consumer that was asked?")
        listed += found
        after = page.get("next")
        if after is not None and not (found and str(after) > str(before)):
            raise ConsumerError(
                "the list of tenants does not end; is it a consumer that was asked?"
            )
    return listed


def print_tenants(listed: list[Document], *, as_json: bool) -> None:
    """Print them as a table, or one JSON object a line."""
    if as_json:
        for tenant in listed:
            print(json.dumps(tenant))
    else:
        print_table(*COLUMNS, rows=_rows(listed))


async def watch_tenants(
    settings: Settings, url: str | None, state: str | None, *, as_json: bool
) -> None:
    """Show the tenants and what becomes of them: a table that is kept true, or lines.

    Not on a terminal, a line is printed for each tenant at first, and for each that changed.
    """
    with live_table(*COLUMNS) as show:
        listed = await list_tenants(settings, url, state)
        told = _Told(as_json=as_json)
        note = ""
        while True:
            if as_json or show is None:
                told.tell(listed)
                if note and note != told.note:
                    say(note)
                told.note = note
            else:
                show(_rows(listed), note)
            await asyncio.sleep(_LOOK_SECONDS)
            try:
                listed, note = await list_tenants(settings, url, state), ""
            except ConsumerError as error:
                note = f"{error}; trying again"


class _Told:
    """What was told of each tenant last."""

    def __init__(self, *, as_json: bool) -> None:
        self.note = ""
        self._as_json = as_json
        self._last: dict[str, tuple[object, ...]] = {}

    def tell(self, listed: list[Document]) -> None:
        """Print a line for each that is not as it was told."""
        for tenant in listed:
            now = (*_row(tenant), tenant.get("sequence"))
            if self._last.get(str(tenant.get("tenant_id"))) == now:
                continue
            self._last[str(tenant.get("tenant_id"))] = now
            line = "  ".join(in_its_place(str(cell)) for cell in _row(tenant))
            print(json.dumps(tenant) if self._as_json else line, flush=True)


def _rows(listed: list[Document]) -> list[tuple[object, ...]]:
    return [_row(tenant) for tenant in listed]


def _row(tenant: Document) -> tuple[object, ...]:
    return tuple(tenant.get(name) or "" for name in _FIELDS)


async def ask_consumer(settings: Settings, url: str | None, path: str) -> dict[str, object]:
    """Return what the consumer answers. Raises ConsumerError when it is no answer."""
    base = (url or http_url(settings)).rstrip("/")
    token = http_token(settings, url)
    code, document = await ask(base, path, token=token)
    if code != 200:
        raise ConsumerError(f"{code}: {document.get('message', document)}")
    return document
