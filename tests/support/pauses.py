"""Pauses of processes. `make flaky` makes them anywhere in a run, and some tests make their own."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def own_pauses() -> Iterator[None]:
    """Keeps `make flaky` from stopping processes during the block.

    To let go on what it has stopped would undo what a test did to the same process.
    """
    path = os.environ.get("CHECKPOINTD_TEST_PAUSES")
    if path is None:
        yield
        return
    with open(path) as lock:
        fcntl.flock(lock, fcntl.LOCK_SH)
        yield
