"""A line that comes again and again is written once, and then with how often it came."""

import io
import json
import logging

import pytest
import structlog

from consumer.folding import FoldingHandler, FoldLimits

LIMITS = FoldLimits(first_seconds=10, most_seconds=40, lines=3, most_chars=1000)


class Clock:
    """Time, as the test says."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Log:
    """A log that folds, and what was written to it."""

    def __init__(self) -> None:
        self.clock, self._written = Clock(), io.StringIO()
        self.handler = FoldingHandler(self._written, now=self.clock, limits=LIMITS)
        self.handler.setFormatter(logging.Formatter("%(levelname)s %(message)s"))

    def tell(self, message: str, *args: object, level: int = logging.INFO) -> None:
        self.handler.handle(logging.LogRecord("any", level, "", 1, message, args, None))

    @property
    def lines(self) -> list[str]:
        return self._written.getvalue().splitlines()


def fail() -> None:
    raise ValueError("no such thing")


def test_what_repeats_is_written_once_and_then_with_its_count() -> None:
    """After a while, with the next line of any kind; the while grows as long as it goes on."""
    log = Log()
    for second in range(100):
        log.clock.now = float(second)
        log.tell("no %s", "route")
    log.clock.now = 200
    log.tell("another")

    assert log.lines == [
        "INFO no route",
        "INFO no route (repeated 9 times)",
        "INFO no route (repeated 20 times)",
        "INFO no route (repeated 40 times)",
        "INFO no route (repeated 30 times)",
        "INFO another",
    ]


def test_what_differs_is_written() -> None:
    """In its words, its level or what it is about."""
    log = Log()
    log.tell("no %s", "route")
    log.tell("no %s", "room")
    log.tell("no %s", "room", level=logging.ERROR)

    assert log.lines == ["INFO no route", "INFO no room", "ERROR no room"]


def test_a_place_in_memory_makes_no_difference() -> None:
    """Python shows many objects by theirs."""
    log = Log()
    log.tell("lost <Task at 0x7f00aa>")
    log.tell("lost <Task at 0x7f00bb>")

    assert log.lines == ["INFO lost <Task at 0x7f00aa>"]


def test_what_was_long_ago_is_written_again() -> None:
    """As it was the first time."""
    log = Log()
    log.tell("ready")
    log.clock.now = 11
    log.tell("ready")

    assert log.lines == ["INFO ready", "INFO ready"]


def test_few_lines_are_remembered() -> None:
    """Whoever varies his lines has them written; the count of one that is forgotten is not lost."""
    log = Log()
    for message in ("a", "a", "b", "c", "d", "a"):
        log.tell(message)

    assert log.lines == [
        "INFO a",
        "INFO b",
        "INFO c",
        "INFO a (repeated 1 times)",
        "INFO d",
        "INFO a",
    ]


def test_a_long_line_is_not_remembered() -> None:
    """It is written each time."""
    log = Log()
    for _ in range(2):
        log.tell("x" * 1001)

    assert len(log.lines) == 2


def test_at_the_end_all_is_told() -> None:
    """Also what no line came after."""
    log = Log()
    for _ in range(3):
        log.tell("no route")
    log.handler.close()

    assert log.lines == ["INFO no route", "INFO no route (repeated 2 times)"]


def test_an_exception_is_folded_without_its_frames() -> None:
    """They would keep alive what their functions held."""
    log = Log()
    for _ in range(3):
        try:
            fail()
        except ValueError as error:
            trace = (type(error), error, error.__traceback__)
            log.handler.handle(logging.LogRecord("any", logging.ERROR, "", 1, "failed", (), trace))
    log.handler.close()

    assert [line for line in log.lines if "failed" in line] == [
        "ERROR failed",
        "ERROR failed: ValueError('no such thing') (repeated 2 times)",
    ]


@pytest.mark.parametrize("count", [2, 5])
def test_a_structured_line_has_its_count_as_a_key(count: int) -> None:
    """The time makes no difference; all other keys do."""
    log = Log()
    log.handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.JSONRenderer(),
            ]
        )
    )
    for second in range(count):
        record = logging.LogRecord(
            "any", logging.INFO, "", 1, {"event": "lost", "timestamp": second}, (), None
        )
        record.__dict__ |= {"_logger": None, "_name": "info"}
        log.handler.handle(record)
    log.handler.close()

    first, folded = map(json.loads, log.lines)
    assert first == {"event": "lost", "timestamp": 0}
    assert folded == {"event": "lost", "timestamp": count - 1, "repeated": count - 1}
