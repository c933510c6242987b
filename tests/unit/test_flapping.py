"""How often a tenant's own changes are told, and that the last one is."""

from dataclasses import replace

from consumer.flapping import Flapping
from consumer.model import Reason, State, Status, TenantId
from tests.builders import MOMENT, make_status

OTHER = TenantId("other")
UP = make_status(reason=Reason.HEALTHY, message="well")
DOWN = make_status(state=State.FAILED, reason=Reason.UNHEALTHY, message="ill")


def flapped(flapping: Flapping, seconds: int, *, each: float = 1.0) -> list[Status]:
    """Return what is told of a tenant that changes from one to the other all the while."""
    told = []
    for place in range(int(seconds / each)):
        status = (UP, DOWN)[place % 2]
        if flapping.hold_until(status, place * each) is None:
            told.append(replace(status, message=flapping.folded(status)))
    return told


def test_a_few_changes_are_all_told_as_they_are() -> None:
    """Whoever changes now and then is told each time."""
    told = flapped(Flapping(burst=5, come_back_seconds=10), 5)

    assert [status.message for status in told] == ["well", "ill"] * 2 + ["well"]


def test_many_changes_are_folded_with_their_first_and_their_count() -> None:
    """Ten thousand changes are some twenty events, each of which says what it stands for."""
    told = flapped(Flapping(burst=5, come_back_seconds=10), 1000, each=0.1)

    assert 100 <= len(told) <= 106
    assert told[5].message.endswith("changes since 10:00:00 UTC are told as one)")
    assert "(99 changes" in told[50].message or "(100 changes" in told[50].message


def test_what_is_held_is_told_within_the_time_of_one() -> None:
    """The time that is given is when it can be told."""
    flapping = Flapping(burst=2, come_back_seconds=10)
    flapped(flapping, 2)

    is_seen = not flapping.passes_over(UP.tenant_id, 2, MOMENT)
    until = flapping.hold_until(UP, 2)

    assert is_seen, "nobody would tell it"
    assert until is not None
    assert 2 < until <= 12.1
    assert flapping.passes_over(UP.tenant_id, 2, MOMENT)
    assert flapping.hold_until(UP, until) is None


def test_the_same_change_is_counted_once_however_often_it_is_looked_at() -> None:
    """A pass that comes for another reason makes no further change of it."""
    flapping = Flapping(burst=1, come_back_seconds=10)
    assert flapping.hold_until(UP, 0) is None
    for second in range(3):
        flapping.hold_until(DOWN, second)

    until = flapping.hold_until(DOWN, 4)

    assert until is not None
    assert flapping.hold_until(DOWN, until) is None
    assert flapping.folded(DOWN) == "ill (1 changes since 10:00:00 UTC are told as one)"
    assert flapping.folded(DOWN) == "ill"


def test_one_tenant_holds_up_no_other_and_is_forgotten_in_time() -> None:
    """Nothing is kept of who has all in hand again."""
    flapping = Flapping(burst=2, come_back_seconds=10)
    flapped(flapping, 2)

    assert flapping.hold_until(replace(UP, tenant_id=OTHER), 2) is None
    assert not flapping.passes_over(UP.tenant_id, 100, MOMENT)
    assert not flapping.passes_over(OTHER, 100, MOMENT)
    assert flapping._purses == {}
