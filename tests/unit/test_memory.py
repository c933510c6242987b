"""The memory budget is shared out, and all of it."""

import pytest

from consumer.memory import MemoryBudget
from consumer.settings import load
from consumer.wiring import memory_budget


@pytest.mark.parametrize("megabytes", [8, 9, 64])
def test_both_halves_are_the_whole(megabytes: int) -> None:
    """What is in flight and what is remembered have the same, to a byte."""
    budget = MemoryBudget(megabytes)

    assert budget.in_flight_bytes + budget.remembered_bytes == megabytes * 1024 * 1024
    assert abs(budget.in_flight_bytes - budget.remembered_bytes) <= 1


def test_the_setting_says_how_much() -> None:
    """Nobody needs to set it."""
    assert memory_budget(load(None, {})) == MemoryBudget(64)
    assert memory_budget(load(None, {"LANDLORD_LIMITS__MEMORY_MB": "16"})) == MemoryBudget(16)
