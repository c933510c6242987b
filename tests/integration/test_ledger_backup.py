"""Backup and restore of the ledger, by the commands of the operators' page."""

import re
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

from consumer.adapters.ledger import SqlLedger
from consumer.model import EventId, EventKind, Status, TenantId
from consumer.ports import PassResult
from tests.builders import TENANT_ID, make_event, make_spec, make_status
from tests.fakes.clock import HandClock
from tests.project.headings import script, section

PAGE = (Path(__file__).parents[2] / "deploy" / "README.md").read_text(encoding="utf-8")
LONG_AGO = datetime(2026, 1, 1, tzinfo=UTC)


def type_in(title: str, folder: Path) -> str:
    """Run the section's console block as it stands, its two folders put elsewhere."""
    (block,) = re.findall(r"(?ms)^```console\n(.*?)^```", section(PAGE, title))
    lines = script(block).replace("/var/lib/landlord/", f"{folder}/ledger/")
    outcome = subprocess.run(
        ["sh", "-eu"],
        input=lines.replace("/var/backups/", f"{folder}/backups/"),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert outcome.returncode == 0, outcome.stderr
    return outcome.stdout


async def open_ledger(folder: Path, now: datetime) -> SqlLedger:
    """Open the ledger that the commands are about."""
    return await SqlLedger.open(f"sqlite:///{folder}/ledger/landlord.db", clock=HandClock(now))


async def answer(ledger: SqlLedger) -> Status:
    """Tell what became of the tenant's newest event; return the status as it goes out."""
    tenant = await ledger.read(TENANT_ID)
    assert tenant is not None
    told = PassResult(
        tenant_id=TENANT_ID, revision=tenant.revision, statuses=(make_status(),), answered=True
    )
    (status,) = await ledger.commit(told)
    return status


async def test_what_was_backed_up_while_it_was_written_comes_back(tmp_path: Path) -> None:
    """The copy has all that was committed, and a status after it is above all that were told."""
    for name in ("ledger", "backups"):
        (tmp_path / name).mkdir()
    ledger = await open_ledger(tmp_path, LONG_AGO)
    await ledger.record([make_event()])
    first = await answer(ledger)

    said = type_in("Back up the ledger", tmp_path)

    await ledger.record([make_event(EventKind.DELETED, event_id=EventId("event-2"))])
    await ledger.record([make_event(tenant_id=TenantId("later"))])
    last = await answer(ledger)
    beside = tmp_path / "ledger" / "landlord.db-wal"
    written = beside.read_bytes()
    await ledger.close()
    beside.write_bytes(written)  # as a killed consumer leaves it

    type_in("Restore the ledger", tmp_path)

    ledger = await open_ledger(tmp_path, LONG_AGO + timedelta(days=1))
    tenant = await ledger.read(TENANT_ID)
    next_one = await answer(ledger)
    later = await ledger.read(TenantId("later"))
    await ledger.close()

    assert said == "ok\n"
    assert tenant is not None
    assert (tenant.spec, tenant.event_id) == (make_spec(), "event-1")
    assert later is None
    assert first.sequence < last.sequence < next_one.sequence
