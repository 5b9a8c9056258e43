"""The checksum of a large value is that of its bytes, wherever it is computed."""

from __future__ import annotations

import os
import random
import threading
import zlib

import pytest
from langgraph.checkpoint.grpc._values.cache import ValueCache
from langgraph.checkpoint.grpc._values.checksum import Checksum

from tests.client.table import PLAIN, put_of

DATA = random.Random(1).randbytes(20_000_000)


def no_thread(thread: threading.Thread) -> None:
    raise RuntimeError("can't start new thread")


def test_in_a_thread() -> None:
    assert Checksum(DATA).get() == zlib.crc32(DATA)


def test_where_no_thread_can_be_started(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threading.Thread, "start", no_thread)
    assert Checksum(DATA).get() == zlib.crc32(DATA)


def test_in_a_child_that_was_forked_meanwhile() -> None:
    checksum = Checksum(DATA)
    if not (child := os.fork()):
        os._exit(0 if checksum.get() == zlib.crc32(DATA) else 1)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    assert checksum.get() == zlib.crc32(DATA)


@pytest.mark.parametrize("changed", [1, len(DATA)], ids=["a patch", "whole"])
def test_a_large_put_has_the_checksum_of_its_value(changed: int) -> None:
    cache = ValueCache(10**9)
    first = put_of(PLAIN, cache, {"a": DATA})
    first.prepare()
    first.stage()
    data = random.Random(2).randbytes(changed) + DATA[changed:]
    second = put_of(PLAIN, cache, {"a": data})
    second.prepare()
    (entry,) = second.request.values
    assert entry.value.HasField("patch") == (changed == 1)
    told = entry.value.patch.crc32 if changed == 1 else entry.value.crc32
    assert told == zlib.crc32(PLAIN.dump(data)[1])
