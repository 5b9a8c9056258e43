"""The checksum of a large value, computed beside other work."""

from __future__ import annotations

import threading
from zlib import crc32


class Checksum:
    """The CRC-32 of bytes, computed in a thread of its own: zlib doesn't hold the GIL.

    Args:
        data: The bytes; enough to be worth a thread.
    """

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._computed: int | None = None
        thread = threading.Thread(target=self._compute, name="checkpointd-checksum", daemon=True)
        self._thread: threading.Thread | None = thread
        try:
            thread.start()
        except RuntimeError:  # there are too many threads, or the interpreter ends
            self._thread = None

    def get(self) -> int:
        """Returns the checksum, after waiting for it."""
        if self._thread is not None:
            self._thread.join()
        if self._computed is None:  # it has no thread, or was copied into a forked child without it
            self._compute()
        assert self._computed is not None
        return self._computed

    def _compute(self) -> None:
        self._computed = crc32(self._data)
