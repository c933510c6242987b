"""How the process ends by a fault: told in one line, within a second, with exit code 1.

A part that ended takes the others down with it; what of them hangs (a request to the engine that is
seen through to its end, a thread in the disk) is left behind. Nothing is lost by that: a kill at
any instant loses nothing. Used by `app` for every task that works for the whole life.
"""

import asyncio
import os
import threading
from collections.abc import Coroutine, Mapping
from typing import Final, NoReturn

import structlog

from consumer.errors import ConsumerError, LeaseHeld, TaskEnded
from consumer.faults import first_of, is_ours, trace_of, unless_lost

_log: Final = structlog.get_logger(__name__)

_FAULT_SECONDS: Final = 0.3
"""From a fault that ends the consumer to the end of the process, whatever hangs."""
_EXIT_CODE: Final = 1


async def loudly(name: str, coroutine: Coroutine[object, object, None]) -> None:
    """Await a part; when it fails, see to it that the process ends though something hangs."""
    try:
        await coroutine
    except Exception as error:
        if _is_fault(error) or not isinstance(first_of(error), LeaseHeld):  # else it stands by
            end_soon(name, error)
        raise


async def until_stopped(
    name: str, coroutine: Coroutine[object, object, None], stop: asyncio.Event
) -> None:
    """Await a part that ends once it was told to stop. Raises TaskEnded when it ends before."""
    await unless_lost(name, coroutine)
    if not stop.is_set():
        raise TaskEnded(f"{name} ended unasked")


def end_soon(name: str, error: BaseException) -> None:
    """Say in one line which task ended and why; end the process, should it not end by itself.

    A failure on purpose has one line of its own, by the command line; here only if that fails.
    """

    def tell() -> None:
        _log.error("a task ended unasked", task=name, error=trace_of(error))

    def give_up() -> None:
        if not _is_fault(error):
            tell()
        leave()

    if _is_fault(error):
        tell()
    # No timer of the loop: a thread that hangs in the disk is waited for after the loop has ended.
    watchdog = threading.Timer(_FAULT_SECONDS, give_up)
    watchdog.daemon = True
    watchdog.start()


def leave() -> NoReturn:
    """End the process by a fault, now: tearing an interpreter down takes a busy machine seconds."""
    os._exit(_EXIT_CODE)


def on_stray_exception(_loop: asyncio.AbstractEventLoop, context: Mapping[str, object]) -> None:
    """Take what nobody awaits: a callback of ours that failed is as a task that ended."""
    error, said = context.get("exception"), context.get("message")
    if not isinstance(error, BaseException):
        _log.error("loop", message=said)
    elif "handle" in context and is_ours(error):
        end_soon("a callback", error)
    else:
        _log.error("loop", message=said, error=trace_of(error))


def outcome(failures: ExceptionGroup[Exception]) -> ConsumerError:
    """Return what the failures come to: a fault of ours, or else the first failure on purpose."""
    first = first_of(failures)
    if _is_fault(failures) or not isinstance(first, ConsumerError):
        return TaskEnded("a task ended unasked")
    return first


def _is_fault(error: BaseException) -> bool:
    """Whether it is, or has in it, anything but a failure on purpose."""
    if isinstance(error, BaseExceptionGroup):
        return any(_is_fault(member) for member in error.exceptions)
    return isinstance(error, TaskEnded) or not isinstance(error, ConsumerError)
