"""What a container said last costs nobody else his time, however much there is to take out."""

import asyncio
import random
import string
import sys
import traceback
from typing import Final

from typing_extensions import override

from consumer.adapters.docker_client import DockerClient, Endpoint, Operation
from consumer.adapters.docker_secrets import Secrets
from consumer.adapters.docker_spec import Naming
from consumer.adapters.docker_words import LastWords
from tests.builders import make_container

PASSWORD: Final = "correct horse battery staple"


class Teller(DockerClient):
    """An engine that gives one log."""

    def __init__(self, *lines: str) -> None:
        super().__init__(Endpoint())
        self._lines = lines

    @override
    async def read_some(
        self,
        operation: Operation,
        path: str,
        params: dict[str, str],
        *,
        seconds: float,
        most_bytes: int,
    ) -> bytes:
        frames = (f"{line}\n".encode() for line in self._lines)
        raw = b"".join(b"\1\0\0\0" + len(frame).to_bytes(4, "big") + frame for frame in frames)
        return raw[:most_bytes]


def words_of(*lines: str) -> LastWords:
    client = Teller(*lines)
    return LastWords(client, Secrets(client, naming=Naming(), folder=None, request_seconds=1))


def shown_with(*values: str) -> dict[str, object]:
    """Return what inspect shows of a container with these values in its environment."""
    return {"Config": {"Env": [f"NAME_{place}={value}" for place, value in enumerate(values)]}}


async def longest_wait(task: "asyncio.Task[str]") -> float:
    """Return the longest time that the loop did not turn while the task went on."""
    loop = asyncio.get_running_loop()
    longest, last = 0.0, loop.time()
    while not task.done():
        await asyncio.sleep(0.001)
        longest, last = max(longest, loop.time() - last), loop.time()
    return longest


async def test_the_loop_goes_on_while_values_are_taken_out() -> None:
    """A tenant with 4,000 values and a log of long lines holds up nobody."""
    numbers = random.Random(1)
    values = ["a" * 40 + "".join(numbers.choices(string.ascii_letters, k=24)) for _ in range(4000)]
    words = words_of(*(("a" * 40 + "b") * 390 for _ in range(60)))

    telling = asyncio.create_task(words.tail(make_container(), shown_with(PASSWORD, *values)))

    assert await longest_wait(telling) < 3
    assert (await telling).endswith("aab")


async def test_the_end_is_told_without_its_values() -> None:
    """A value that begins before what is told is known all the same."""
    line = f"login with {PASSWORD} refused"
    words = words_of(*(line for _ in range(5000)))

    told = await words.tail(make_container(), shown_with(PASSWORD))

    assert 15_000 < len(told) <= 16 * 1024
    assert not {word for word in told.split() if word not in {"login", "with", "***", "refused"}}


async def test_where_there_is_too_much_to_take_out_nothing_is_told() -> None:
    """What cannot be looked for cannot be left out."""
    words = words_of("begin", "all is well")

    assert await words.tail(make_container(), shown_with("x" * 5_000_000)) == ""
    assert await words.tail(make_container(), shown_with("x" * 5_000)) == "begin\nall is well"


def at_work() -> int:
    """Return how many threads take values out of a text."""
    stacks = map(traceback.extract_stack, sys._current_frames().values())
    return sum(any(frame.filename.endswith("redaction.py") for frame in each) for each in stacks)


async def test_who_waits_no_longer_leaves_no_second_one_at_work() -> None:
    """Every request has a deadline; what was begun for it goes on, and the next waits for that."""
    words = words_of(*("a" * 400 for _ in range(60)))
    shown = shown_with(*(f"{place:05d}" + "<é" * 2000 for place in range(60)))
    most = 0

    for _ in range(6):
        telling = asyncio.create_task(words.tail(make_container(), shown))
        await asyncio.sleep(0.05)
        most = max(most, at_work())
        telling.cancel()
    async with asyncio.timeout(60):
        while at_work():
            most = max(most, at_work())
            await asyncio.sleep(0.01)

    assert most == 1
