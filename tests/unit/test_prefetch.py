"""How many deliveries may be on their way."""

from consumer.adapters.prefetch import Prefetch


def test_it_is_what_was_set_while_messages_are_small() -> None:
    """Whatever came, as long as so many of it fit."""
    prefetch = Prefetch(500, 1000_000)
    prefetch.note(2000)

    prefetch.fit()

    assert prefetch.now == 500
    assert not prefetch.is_too_high


def test_it_is_as_many_as_fit_of_the_largest() -> None:
    """And never none."""
    prefetch = Prefetch(500, 1000_000)
    prefetch.note(300_000)
    prefetch.note(10)
    assert prefetch.is_too_high

    prefetch.fit()
    first = prefetch.now
    prefetch.note(5_000_000)
    prefetch.fit()

    assert (first, prefetch.now) == (3, 1)
    assert not prefetch.is_too_high


def test_it_is_lowered_where_the_broker_is_too_slow() -> None:
    """Down to one."""
    prefetch = Prefetch(500, 1000_000)

    seen = []
    for _ in range(4):
        prefetch.lower()
        seen.append(prefetch.now)

    assert seen == [62, 7, 1, 1]


def test_it_rises_when_messages_are_small_again() -> None:
    """As far as is set; what came before is forgotten."""
    prefetch = Prefetch(500, 1000_000)
    prefetch.note(300_000)
    prefetch.fit()

    still_large = prefetch.rise()
    prefetch.note(100_000)
    smaller = prefetch.rise()
    now = prefetch.now
    nothing_came = prefetch.rise()

    assert (still_large, smaller, now) == (False, True, 10)
    assert nothing_came
    assert prefetch.now == 500
    assert not prefetch.rise()
