"""How far a pull has come is told now and then, in numbers that people can follow."""

import structlog.testing

from consumer.adapters.pulls import Progress
from tests.fakes.clock import HandClock

MEGABYTE = 1024 * 1024


def downloading(layer: str, current: int, total: int) -> dict[str, object]:
    """Return a line of the engine's progress."""
    return {
        "status": "Downloading",
        "id": layer,
        "progressDetail": {"current": current * MEGABYTE, "total": total * MEGABYTE},
    }


def progress_by(clock: HandClock) -> Progress:
    """Return the progress of a pull that begins now."""
    return Progress("nginx:alpine", now=clock.steady)


def test_progress_is_told_every_ten_seconds() -> None:
    """The layers together; what has no numbers counts for nothing."""
    clock = HandClock()
    progress = progress_by(clock)

    with structlog.testing.capture_logs() as told:
        progress.note(downloading("a", 1, 10))
        clock.advance(9)
        progress.note(downloading("b", 2, 20))
        clock.advance(1)
        progress.note(downloading("a", 4, 10))
        progress.note(downloading("a", 5, 10))
        clock.advance(10)
        progress.note({"status": "Extracting", "id": "a", "progressDetail": {}})

    assert [(line["megabytes"], line["of_megabytes"]) for line in told] == [(6, 30), (7, 30)]
    assert {line["log_level"] for line in told} == {"info"}


def test_progress_without_numbers_is_told_too() -> None:
    """Podman names no sizes; that it goes on is something."""
    clock = HandClock()
    progress = progress_by(clock)
    clock.advance(10)

    with structlog.testing.capture_logs() as told:
        progress.note({"status": "Pulling fs layer"})

    assert [line["of_megabytes"] for line in told] == [0]
