"""The clock: how long ago something was, however often the wall clock has been set since."""

import pytest

from tests.builders import MOMENT
from tests.fakes.clock import HandClock

HOUR = 3600.0
YEARS = 56 * 365 * 24 * HOUR


@pytest.mark.parametrize("step", [-YEARS, -HOUR, -0.05, 0.05, HOUR, YEARS])
def test_what_the_wall_clock_showed_is_as_long_ago_as_it_is(step: float) -> None:
    """A step between then and now is no time."""
    clock = HandClock()
    then = clock.now()
    clock.advance(3)
    clock.set_ahead(step)
    clock.advance(4)

    assert clock.seconds_since(then) == pytest.approx(7, abs=0.06)


def test_times_of_before_and_after_a_step_are_told_apart() -> None:
    """Each counts from its own side of it, also where the clock was set there and back."""
    clock = HandClock()
    before = clock.now()
    clock.advance(10)
    clock.set_ahead(-HOUR)
    between = clock.now()
    clock.advance(10)
    clock.set_ahead(HOUR)
    after = clock.now()
    clock.advance(10)

    ages = [clock.seconds_since(at) for at in (before, between, after)]

    assert ages == pytest.approx([30, 20, 10])


def test_a_clock_that_trembles_after_a_step_still_shows_times_of_that_side() -> None:
    """A moment that lies just before the first one seen of an era is not taken for an older one."""
    clock = HandClock()
    clock.now()
    clock.advance(10)
    clock.set_ahead(-HOUR)
    clock.now()
    clock.set_ahead(-0.05)
    then = clock.now()
    clock.advance(10)

    assert clock.seconds_since(then) == pytest.approx(10, abs=0.2)


def test_a_time_of_before_the_process_is_measured_by_the_wall_clock_of_its_beginning() -> None:
    """Nothing else is known of it; what the process has seen of steps is left out."""
    clock = HandClock()
    clock.now()
    former = MOMENT.replace(hour=9)
    clock.advance(60)
    clock.set_ahead(YEARS)

    assert clock.seconds_since(former) == pytest.approx(HOUR + 60)


def test_a_time_that_is_still_to_come_has_only_just_been() -> None:
    """No length of time is negative, whatever a former process has written down."""
    clock = HandClock()

    assert clock.seconds_since(MOMENT.replace(hour=23)) == 0


def test_the_earliest_time_shown_is_known() -> None:
    """Also one that the wall clock showed for a moment between two others."""
    clock = HandClock()
    clock.now()
    clock.advance(10)
    noted = clock.steady()
    clock.advance(10)
    clock.set_ahead(-YEARS)
    low = clock.now()
    clock.set_ahead(YEARS)

    assert clock.earliest_since(noted) < low
    clock.advance(10)
    assert clock.earliest_since(clock.steady() - 5) > MOMENT
