"""Faults of our own: told by their places, never by the values they met, and never silent."""

import asyncio

import pytest

from consumer.errors import LedgerError, TaskEnded
from consumer.faults import for_ever, is_ours, trace_of
from consumer.model import as_tenant_id


def fail(error: Exception, cause: Exception | None = None) -> Exception:
    """Return the error as it is when it was raised."""
    try:
        raise error from cause
    except type(error) as raised:
        return raised


def test_a_trace_has_places_and_no_values() -> None:
    """Of an unforeseen error kind and places are told, its words are not."""
    trace = trace_of(fail(ValueError("s3cr3t"), fail(KeyError("s3cr3t"))))

    assert trace.startswith("ValueError at unit/test_faults.py:")
    assert "; caused by KeyError at unit/test_faults.py:" in trace
    assert "in fail" in trace
    assert "s3cr3t" not in trace
    assert "\n" not in trace


def test_a_trace_has_the_words_of_our_own_errors() -> None:
    """What we raise on purpose says what is wrong, and holds no value of a document."""
    assert "LedgerError (disk full) at" in trace_of(fail(LedgerError("disk full")))


def test_a_trace_of_a_group_is_that_of_its_first() -> None:
    """A task group's own error says nothing of what went wrong."""
    assert trace_of(ExceptionGroup("group", [fail(KeyError("k"))])).startswith("KeyError at")


def test_a_trace_ends_where_errors_go_in_circles() -> None:
    """Two errors that name each other as cause are told, not followed for ever."""
    one, other = fail(KeyError("k")), fail(ValueError("v"))
    one.__cause__, other.__cause__ = other, one

    assert trace_of(one).count("caused by") == 3


def test_an_error_is_ours_that_began_in_the_package() -> None:
    """What a callback raised is told apart by where it began."""
    with pytest.raises(ValueError, match="1 to 128") as caught:
        as_tenant_id("../etc")
    inner = caught.value
    assert not is_ours(inner), "it began here"
    assert inner.__traceback__ is not None
    inner.__traceback__ = inner.__traceback__.tb_next

    assert is_ours(inner)
    assert not is_ours(KeyError("never raised"))


async def test_what_returns_though_it_never_should_is_an_error() -> None:
    """The end of a part that works for ever is not taken for its success."""

    async def part() -> None:
        await asyncio.sleep(0)

    with pytest.raises(TaskEnded, match="outbox ended unasked"):
        await for_ever("outbox", part())


async def test_a_cancel_that_nobody_asked_for_is_an_error() -> None:
    """A library that rejects its calls by cancelling them ends no part of ours in silence."""

    async def part() -> None:
        rejected: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        rejected.cancel()
        await rejected

    with pytest.raises(ExceptionGroup) as caught:
        async with asyncio.TaskGroup() as group:
            group.create_task(for_ever("broker consume", part()))

    assert str(caught.value.exceptions[0]) == "broker consume was cancelled by nobody"


async def test_a_cancel_that_was_asked_for_is_none() -> None:
    """A part that is told to end ends as cancelled."""
    task = asyncio.create_task(for_ever("feed", asyncio.sleep(3600)))
    await asyncio.sleep(0)

    task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await task
