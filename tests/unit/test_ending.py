"""How a fault ends the process: what is a fault, and what only looks like one."""

import asyncio
from collections.abc import Mapping

import pytest

from consumer.ending import loudly, on_stray_exception, outcome, until_stopped
from consumer.errors import LeaseHeld, LedgerError, TaskEnded, TopologyMismatch


@pytest.mark.parametrize(
    ("failures", "told"),
    [
        pytest.param([TopologyMismatch("x")], TopologyMismatch, id="on purpose"),
        pytest.param([KeyError("k")], TaskEnded, id="a fault"),
        pytest.param([LeaseHeld("x"), KeyError("k")], TaskEnded, id="a fault beside a purpose"),
        pytest.param([ExceptionGroup("g", [KeyError("k")])], TaskEnded, id="a fault within"),
        pytest.param([ExceptionGroup("g", [LedgerError("x")])], LedgerError, id="purpose within"),
        pytest.param([TaskEnded("x")], TaskEnded, id="an end that nobody asked for"),
    ],
)
def test_a_fault_outweighs_every_failure_on_purpose(
    failures: list[Exception], told: type[Exception]
) -> None:
    """What ended the parts is told as ours if any of it is."""
    assert type(outcome(ExceptionGroup("group", failures))) is told


async def test_a_part_that_ends_when_it_is_stopped_is_no_fault() -> None:
    """Before that it is."""
    stop = asyncio.Event()
    with pytest.raises(TaskEnded, match="intake ended unasked"):
        await until_stopped("intake", asyncio.sleep(0), stop)

    stop.set()

    await until_stopped("intake", asyncio.sleep(0), stop)


async def test_a_part_that_is_cancelled_by_nobody_has_ended_unasked() -> None:
    """A task group would take it for one that is done, and the process would go on without it."""

    async def lose() -> None:
        raise asyncio.CancelledError

    with pytest.raises(TaskEnded, match="intake was cancelled by nobody"):
        await until_stopped("intake", lose(), asyncio.Event())


async def test_a_lost_lease_ends_no_process() -> None:
    """It stands by; this process is still here to say so."""

    async def lose() -> None:
        raise LeaseHeld("elsewhere")

    with pytest.raises(LeaseHeld):
        await loudly("lease", lose())


@pytest.mark.parametrize(
    "context",
    [
        pytest.param({"message": "slow"}, id="no exception"),
        pytest.param({"message": "x", "exception": KeyError("s3cr3t")}, id="of a task"),
        pytest.param(
            {"message": "x", "exception": KeyError("s3cr3t"), "handle": object()},
            id="of a library's callback",
        ),
    ],
)
async def test_what_is_not_ours_is_only_told(
    context: Mapping[str, object], capsys: pytest.CaptureFixture[str]
) -> None:
    """What nobody awaits is logged without its words."""
    on_stray_exception(asyncio.get_running_loop(), context)

    logged = capsys.readouterr().out
    assert "loop" in logged
    assert "s3cr3t" not in logged
