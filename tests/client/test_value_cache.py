"""The cache of channels' values: what it keeps, and what it forgets."""

from __future__ import annotations

import os

from hypothesis import given, settings
from hypothesis import strategies as st
from langgraph.checkpoint.grpc._values.cache import CachedValue, ValueCache

from tests.client.table import KEY, version
from tests.support.properties import PATIENT


def entry(size: int) -> CachedValue:
    return CachedValue("s" + version(), "bytes", "bytes", 1, bytes(size))


def test_it_keeps_what_was_used_last() -> None:
    cache = ValueCache(100_000)
    for thread in range(9):
        cache.put((str(thread), ""), "a", entry(10_000))
    assert cache.get(("0", ""), "a") is not None
    cache.channels(("0", ""))  # used
    cache.put(("9", ""), "a", entry(10_000))
    assert sorted(n for n in range(10) if cache.get((str(n), ""), "a")) == [0, 2, 3, 4, 5, 6, 7, 8, 9]


def test_one_namespace_forgets_its_oldest_channels() -> None:
    cache = ValueCache(100_000)
    for channel in range(20):
        cache.put(KEY, str(channel), entry(10_000))
    assert sorted(map(int, cache.channels(KEY))) == list(range(11, 20))


def test_a_value_that_is_larger_than_all_of_it_drives_nothing_out() -> None:
    cache = ValueCache(100_000)
    cache.put(KEY, "a", entry(10_000))
    cache.put(KEY, "b", entry(100_001))
    assert list(cache.channels(KEY)) == ["a"]
    # But its own earlier version goes, since it is no longer the latest.
    cache.put(KEY, "a", entry(100_001))
    assert cache.channels(KEY) == {}


@settings(PATIENT)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3), st.integers(0, 3000)), max_size=60))
def test_it_never_holds_more_than_it_may(puts: list[tuple[int, int, int]]) -> None:
    cache = ValueCache(6000)
    for thread, channel, size in puts:
        key = (str(thread), "")
        if size < 100:
            cache.remove(key, str(channel))
        else:
            cache.put(key, str(channel), entry(size))
        held = [value for thread in range(4) for value in cache.channels((str(thread), "")).values()]
        assert sum(len(value.data) for value in held) <= 6000
    for thread in range(4):
        for channel in range(4):
            cache.remove((str(thread), ""), str(channel))
    assert cache._size == 0


def test_a_forked_child_begins_with_an_empty_one() -> None:
    """Another thread may have held its lock."""
    cache = ValueCache(100_000)
    cache.put(KEY, "a", entry(1000))
    with cache._lock:
        child = os.fork()
        if child == 0:
            os._exit(0 if cache.get(KEY, "a") is None else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert cache.get(KEY, "a") is not None
