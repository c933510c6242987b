"""Metrics for whoever asks: never older than the request, and made a few times a second."""

import asyncio

import pytest
from typing_extensions import override

from consumer.exposition import Exposition
from consumer.metrics import Metrics

pytestmark = [pytest.mark.asyncio, pytest.mark.looptime]


class Counted(Metrics):
    """Counts how often they are made."""

    def __init__(self) -> None:
        super().__init__(version="1")
        self.made = 0

    @override
    def render(self, accept: str) -> tuple[bytes, str]:
        self.made += 1
        return super().render(accept)


async def test_who_asks_at_once_is_given_the_same() -> None:
    """A thousand at once are two at most: those who come while one is made wait for the next."""
    metrics = Counted()
    exposition = Exposition(metrics)

    told = await asyncio.gather(*(exposition.of("") for _ in range(1000)))
    await asyncio.gather(*(exposition.of("") for _ in range(1000)))

    assert metrics.made == 2
    assert {content_type for _, content_type in told} == {metrics.content_type("")}


async def test_nobody_is_told_what_was_before_he_asked() -> None:
    """What was counted before the request is in its answer, also shortly after another."""
    metrics = Counted()
    exposition = Exposition(metrics)
    await exposition.of("")

    metrics.faults.labels(part="pass").inc(41)
    body, _ = await exposition.of("")

    assert b'{part="pass"} 41' in body


async def test_who_asks_in_every_format_is_no_faster() -> None:
    """And whoever goes away while waiting leaves the others their answer."""
    metrics = Counted()
    exposition = Exposition(metrics)
    formats = ("", "application/openmetrics-text; version=1.0.0")
    began = asyncio.get_running_loop().time()

    for _ in range(10):
        impatient = asyncio.create_task(exposition.of(""))
        waiting = [asyncio.create_task(exposition.of(accept)) for accept in formats]
        await asyncio.sleep(0)
        impatient.cancel()
        await asyncio.gather(*waiting)

    seconds = asyncio.get_running_loop().time() - began
    assert metrics.made == 20
    assert seconds >= 3.7
