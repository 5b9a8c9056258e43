"""Pauses of processes. `make flaky` inserts them anywhere in a run, and some tests make their own."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def own_pauses() -> Iterator[None]:
    """Keeps `make flaky` from stopping processes during the block.

    Otherwise, resuming a process could undo what a test did to it.
    """
    path = os.environ.get("CHECKPOINTD_TEST_PAUSES")
    if path is None:
        yield
        return
    with open(path) as lock:
        fcntl.flock(lock, fcntl.LOCK_SH)
        yield
