"""Acks: each delivery is settled once, none before its time, and by as few acks as can be."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumer.adapters.settled import Ack, Settled


@pytest.mark.parametrize(
    ("before", "tags", "acks"),
    [
        pytest.param([], [1, 2, 3], [Ack(3, is_through=True)], id="all so far"),
        pytest.param([], [2, 3], [Ack(2, is_through=False), Ack(3, is_through=False)], id="a gap"),
        pytest.param([2, 3], [1], [Ack(1, is_through=True)], id="the gap is closed"),
        pytest.param([2], [1, 3], [Ack(3, is_through=True)], id="around one that is settled"),
        pytest.param([1], [2, 4], [Ack(2, is_through=True), Ack(4, is_through=False)], id="both"),
        pytest.param([1, 3], [1, 3], [], id="settled before"),
    ],
)
def test_acks_are_as_few_as_can_be(before: list[int], tags: list[int], acks: list[Ack]) -> None:
    """One for all where none earlier is missing, else one for each."""
    settled = Settled()
    settled.add(before)

    assert settled.add(tags) == acks


class Node:
    """What a broker does with acks: it ends the channel over one that it does not wait for."""

    def __init__(self, count: int) -> None:
        self.waits = set(range(1, count + 1))

    def take(self, ack: Ack) -> None:
        assert ack.tag in self.waits, "unknown delivery tag"
        if ack.is_through:
            self.waits = {tag for tag in self.waits if tag > ack.tag}
        else:
            self.waits.remove(ack.tag)


@given(st.lists(st.sets(st.integers(1, 30), max_size=12), max_size=12))
def test_the_broker_knows_what_is_settled_and_no_more(batches: list[set[int]]) -> None:
    """Whatever is settled in whatever order, the broker waits for exactly the rest."""
    settled, node, left = Settled(), Node(30), set(range(1, 31))

    for batch in batches:
        for ack in settled.add(batch):
            node.take(ack)
        left -= batch

        assert node.waits == left
