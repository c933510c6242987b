"""What is remembered is bounded in bytes, whatever it is, and makes no difference but in speed."""

import sys
import threading
import tracemalloc
from collections.abc import Iterator

import pytest

from consumer.document import SpecDefaults
from consumer.messages import decode_spec, encode_spec, encode_status
from consumer.policy import Admission, Policy
from consumer.remembered import REMEMBERED, Remembered, weigh
from tests.builders import make_delivery, make_document, make_spec, make_status

MEGABYTE = 1024 * 1024


@pytest.fixture
def _two_megabytes() -> Iterator[None]:
    """Have the process's own store be small for this test."""
    REMEMBERED.limit(0)
    REMEMBERED.limit(2 * MEGABYTE)
    yield
    REMEMBERED.limit(32 * MEGABYTE)


def test_the_least_recently_used_goes_first() -> None:
    """What was asked for lately is kept, what was not makes room."""
    store = Remembered(20_000)
    for name in range(20):
        store.put(name, "x" * 500)
        store.get(0)

    kept = [name for name in range(20) if store.get(name) is not None]

    assert 0 in kept
    assert 19 in kept
    assert 1 not in kept
    assert store.bytes <= 20_000


def test_what_is_too_heavy_is_not_kept() -> None:
    """One large value does not push out the many small ones."""
    store = Remembered(100_000)
    store.put("small", 1)

    store.put("large", "x" * 50_000)

    assert store.get("large") is None
    assert store.get("small") == 1


def test_a_lower_limit_holds_at_once() -> None:
    """What is above a new limit goes."""
    store = Remembered(MEGABYTE)
    for name in range(100):
        store.put(name, "x" * 1_000)

    store.limit(10_000)

    assert store.bytes <= 10_000
    assert store.get(99) is not None


def test_keys_are_weighed_too() -> None:
    """A long text that little is made of is as heavy as it is long."""
    store = Remembered(MEGABYTE)

    store.put("x" * 10_000, 1)

    assert store.bytes > 10_000


@pytest.mark.usefixtures("_two_megabytes")
@pytest.mark.parametrize(("length", "count"), [(10, 400), (2_000, 200), (30_000, 60)])
def test_specs_and_statuses_take_no_more_than_their_share(length: int, count: int) -> None:
    """However large they are, and however many: what all functions remember is bounded together."""
    tracemalloc.start()
    try:
        for place in range(count):
            spec = make_spec(env=(("A", "x" * length), ("B", str(place))))
            assert decode_spec(encode_spec(spec)).fingerprint == spec.fingerprint
            encode_status(make_status(message="x" * min(length, 2_000), sequence=place))
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert held < 2.5 * MEGABYTE
    assert REMEMBERED.bytes <= 2 * MEGABYTE


@pytest.mark.usefixtures("_two_megabytes")
def test_admitted_documents_take_no_more_than_their_share() -> None:
    """Of documents that differ, as many are remembered as there is room for."""
    admission = Admission(defaults=SpecDefaults(), policy=Policy())
    env = {f"K{place}": "v" for place in range(100)}
    tracemalloc.start()
    try:
        for place in range(150):
            container = {"image": "web", "env": {**env, "N": str(place)}}
            body = make_document(containers=[container])
            admission.admit(make_delivery(1, body=body))
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert held < 2.5 * MEGABYTE


def test_all_that_is_in_a_value_is_weighed() -> None:
    """A value is as heavy as its parts, however deep they are."""
    names = tuple(f"name {place}" for place in range(100))

    assert weigh((names,)) >= sum(map(sys.getsizeof, names)) + sys.getsizeof(names)
    assert weigh(make_spec(args=names)) - weigh(make_spec()) >= sum(map(sys.getsizeof, names))
    assert weigh({"a": [names]}) >= weigh(names)


def test_several_threads_may_remember() -> None:
    """What is kept is counted rightly though many threads put and get."""
    store = Remembered(60_000)

    def work(first: int) -> None:
        for place in range(first, first + 2_000):
            store.put(place % 700, "x" * (place % 900))
            store.get(place % 500)

    threads = [threading.Thread(target=work, args=(300 * place,)) for place in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    store.limit(0)
    assert store.bytes == 0
