"""Random ids are fetched in blocks: each is given out once, in all threads and forked children."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

from langgraph.checkpoint.grpc._convert.random_ids import ID_BYTES, random_id


def test_each_is_given_out_once_in_all_threads() -> None:
    def some(_: int) -> list[bytes]:
        return [random_id() for _ in range(1000)]

    with ThreadPoolExecutor(8) as threads:
        made = [one for found in threads.map(some, range(16)) for one in found]
    assert {len(one) for one in made} == {ID_BYTES}
    assert len(set(made)) == len(made)


def test_a_forked_child_makes_others() -> None:
    random_id()  # the parent has a block
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writing, b"".join(random_id() for _ in range(100)))
        os._exit(0)
    os.waitpid(child, 0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        data = pipe.read()
    theirs = {data[at : at + ID_BYTES] for at in range(0, len(data), ID_BYTES)}
    assert len(theirs) == 100
    assert theirs.isdisjoint(random_id() for _ in range(1000))
