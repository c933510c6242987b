"""Faults of our own: told without the values they met, and never silent.

What nobody foresaw may hold a value of a tenant's document in its words, so of such an error only
types and places are told. A task that works for the whole life of the process and ends before it is
an error too, also where it was cancelled by nobody: the client libraries reject pending calls by
cancelling them, and a task group takes a cancelled task for one that is done.
"""

import asyncio
import traceback
from collections.abc import Coroutine
from pathlib import Path
from typing import Final, NoReturn

from consumer.errors import ConsumerError, TaskEnded

_OURS: Final = str(Path(__file__).parent)
_MOST_CAUSES: Final = 4
_MOST_FRAMES: Final = 8


def trace_of(error: BaseException) -> str:
    """Return types and places of the error and of what caused it, in one line, innermost first.

    The words of an error are told where it is one of ours: those hold no value of a document.
    """
    parts: list[str] = []
    cause: BaseException | None = first_of(error)
    while cause is not None and len(parts) < _MOST_CAUSES:
        parts.append(_told(cause))
        following = cause.__cause__ or (None if cause.__suppress_context__ else cause.__context__)
        cause = None if following is None else first_of(following)
    return "; caused by ".join(parts)


def first_of(error: BaseException) -> BaseException:
    """Return the error itself, or the first one of a group."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def _told(error: BaseException) -> str:
    words = f" ({error})" if isinstance(error, ConsumerError) else ""
    frames = traceback.StackSummary.extract(
        traceback.walk_tb(error.__traceback__), lookup_lines=False
    )
    places = [
        f"{'/'.join(Path(frame.filename).parts[-2:])}:{frame.lineno} in {frame.name}"
        for frame in reversed(frames[-_MOST_FRAMES:])
    ]
    return f"{type(error).__name__}{words} at {' < '.join(places) or 'no place'}"


def is_ours(error: BaseException) -> bool:
    """Whether it began in this package: its outermost frame, but for those of asyncio."""
    for frame, _ in traceback.walk_tb(first_of(error).__traceback__):
        name = frame.f_code.co_filename
        if Path(name).parent.name != "asyncio":
            return name.startswith(_OURS)
    return False


async def for_ever(name: str, coroutine: Coroutine[object, object, object]) -> NoReturn:
    """Await what never ends by itself. Raises TaskEnded when it does, or is cancelled by nobody."""
    await unless_lost(name, coroutine)
    raise TaskEnded(f"{name} ended unasked")


async def unless_lost(name: str, coroutine: Coroutine[object, object, object]) -> None:
    """Await it to its end. Raises TaskEnded when it is cancelled by nobody."""
    try:
        await coroutine
    except asyncio.CancelledError as error:
        if was_cancelled():
            raise
        raise TaskEnded(f"{name} was cancelled by nobody") from error


def was_cancelled() -> bool:
    """Whether somebody cancelled the task that runs, so that its CancelledError is meant."""
    task = asyncio.current_task()
    return task is None or task.cancelling() > 0
