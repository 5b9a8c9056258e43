"""What a saver remembers of pieces: which of them the server has, and what is in those that were met last."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Collection, Iterable, Mapping

from langgraph.checkpoint.grpc.pieces import DIGEST_BYTES

MAX_KNOWN = 100_000
"""How many names of pieces are remembered: about 15 MB of memory."""

_BEGINNING_BYTES = 64
"""How many of their first bytes tell pieces apart, mostly."""


class KnownPieces:
    """Which pieces the server has, by thread, as far as they were sent or received here. Forgets what is oldest.

    To know one that the server has deleted since does no harm: it says so.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._threads: OrderedDict[str, dict[bytes, None]] = OrderedDict()
        self._count = 0

    def add(self, thread_id: str, names: Collection[bytes]) -> None:
        """Notes that a thread has pieces."""
        digests = [name for name in names if len(name) == DIGEST_BYTES]
        if not digests:
            return
        with self._lock:
            known = self._threads.setdefault(thread_id, {})
            self._threads.move_to_end(thread_id)
            self._count -= len(known)
            for name in digests:
                # To the end: the newest ones are those that come again.
                known.pop(name, None)
                known[name] = None
            while len(known) > MAX_KNOWN:
                del known[next(iter(known))]
            self._count += len(known)
            while self._count > MAX_KNOWN:
                self._count -= len(self._threads.popitem(last=False)[1])

    def remove(self, thread_id: str, names: Iterable[bytes]) -> None:
        """Notes that a thread doesn't have pieces."""
        with self._lock:
            known = self._threads.get(thread_id, {})
            for name in names:
                if name in known:
                    del known[name]
                    self._count -= 1

    def knows(self, thread_id: str) -> bool:
        """Whether pieces of a thread are known."""
        return thread_id in self._threads

    def unknown(self, thread_id: str, names: Iterable[bytes]) -> list[bytes]:
        """Returns those of the pieces that a thread isn't known to have."""
        with self._lock:
            known = self._threads.get(thread_id, {})
            return [name for name in names if name not in known]


class PieceCache:
    """The pieces that were sent or received last. What they hold follows from their names, so none is ever out of date.

    Args:
        max_bytes: How much is kept.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        self._pieces: OrderedDict[bytes, bytes] = OrderedDict()
        self._size = 0
        self._by_beginning: dict[bytes, bytes] = {}

    def met(self, data: bytes, start: int) -> tuple[int, bytes] | None:
        """Returns the size and the name of a piece that lies at this place of a value; None if none is known there.

        Of pieces that begin alike, only the one that was met last is found.
        """
        name = self._by_beginning.get(data[start : start + _BEGINNING_BYTES])
        piece = None if name is None else self._pieces.get(name)
        return (len(piece), name) if name is not None and piece is not None and data.startswith(piece, start) else None

    def find(self, names: Iterable[bytes]) -> list[tuple[bytes, bytes]]:
        """Returns those of the pieces that are here, each with its name."""
        found = []
        with self._lock:
            for name in names:
                if (piece := self._pieces.get(name)) is not None:
                    self._pieces.move_to_end(name)
                    found.append((name, piece))
        return found

    def keep(self, pieces: Mapping[bytes, bytes | memoryview]) -> None:
        """Keeps the pieces of a value. One larger than all there is room for would only drive out the others."""
        if sum(map(len, pieces.values())) > self._max_bytes:
            return
        with self._lock:
            for name, piece in pieces.items():
                if name in self._pieces:
                    self._pieces.move_to_end(name)
                elif len(name) == DIGEST_BYTES:
                    # A view would hold the whole value that it is a part of.
                    self._pieces[name] = kept = bytes(piece)
                    self._by_beginning[kept[:_BEGINNING_BYTES]] = name
                    self._size += len(kept)
            while self._size > self._max_bytes:
                name, oldest = self._pieces.popitem(last=False)
                self._size -= len(oldest)
                if self._by_beginning.get(oldest[:_BEGINNING_BYTES]) == name:
                    del self._by_beginning[oldest[:_BEGINNING_BYTES]]
