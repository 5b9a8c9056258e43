"""The bytes of channels' last versions, which needn't be read again, and on which patches are made.

Versions that savers make are never used twice, but those of hand-made checkpoints may be: after a thread was deleted,
say. So an entry has the checksum that the value is stored with. The server compares it, and sends another value.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections import OrderedDict
from collections.abc import Mapping
from hashlib import sha256
from typing import NamedTuple

SMALLEST_BYTES = 512
"""Smaller values aren't cached: sending them whole costs nothing."""

_ENTRY_BYTES = 512
"""The approximate size of an entry without its value."""

Key = tuple[str, str]
"""A thread and a namespace in it."""


class Chain(NamedTuple):
    """The patches that make a version, from one that is stored whole."""

    version: str
    """The one that is stored whole."""
    crc32: int
    """Its `CachedValue.crc32`."""
    digest: bytes | None
    """Its `CachedValue.digest`. None: never needed, because no patch is sealed."""
    patches: tuple[bytes, ...]
    """The instructions of the patches, not encrypted."""


class CachedValue:
    """A version of a channel: its bytes, and how they are stored."""

    __slots__ = ("_digest", "chain", "chain_bytes", "crc32", "data", "stored_type", "type", "version")

    def __init__(
        self,
        version: str,
        type: str,
        stored_type: str,
        crc32: int,
        data: bytes,
        chain: Chain | None = None,
        chain_bytes: int = 0,
    ) -> None:
        self.version = version
        """Tagged text."""
        self.type = type
        """The serializer's type."""
        self.stored_type = stored_type
        """The stored type, which names the key that encrypts the bytes."""
        self.crc32 = crc32
        """The checksum that the value, or its patch, is stored with; 0: none."""
        self.data = data
        """The serialized bytes, not encrypted."""
        self.chain = chain
        """The patches that it is stored as. None: it is stored whole."""
        self.chain_bytes = chain_bytes
        """The bytes that these take where they are stored."""
        self._digest: bytes | None = None

    @property
    def depth(self) -> int:
        """The number of patches on the value that is stored whole."""
        return 0 if self.chain is None else len(self.chain.patches)

    @property
    def held_bytes(self) -> int:
        """Its size in memory, in bytes."""
        return len(self.data) + self.chain_bytes + _ENTRY_BYTES

    def with_patch(self, instructions: bytes) -> Chain:
        """Returns the chain of a patch on this version."""
        if self.chain is None:
            return Chain(self.version, self.crc32, self._digest, (instructions,))
        return self.chain._replace(patches=(*self.chain.patches, instructions))

    @property
    def digest(self) -> bytes:
        """The SHA-256 of the bytes."""
        if self._digest is None:
            self._digest = sha256(self.data).digest()
        return self._digest


_caches: weakref.WeakSet[ValueCache] = weakref.WeakSet()


class ValueCache:
    """The values stored or read last, by namespace and channel. Forgets the namespace that was used least recently.

    May be used from any number of threads. A forked child begins with an empty one.

    Args:
        max_bytes: The maximum size of all values.
    """

    def __init__(self, max_bytes: float) -> None:
        self._max_bytes = max_bytes
        self._begin()
        _caches.add(self)

    def _begin(self) -> None:
        self._lock = threading.Lock()
        self._namespaces: OrderedDict[Key, dict[str, CachedValue]] = OrderedDict()
        self._size = 0

    def channels(self, key: Key) -> Mapping[str, CachedValue]:
        """Returns the cached values of a namespace, by channel, as an immutable snapshot."""
        with self._lock:
            kept = self._namespaces.get(key)
            if kept is None:
                return {}
            self._namespaces.move_to_end(key)
            return dict(kept)

    def get(self, key: Key, channel: str) -> CachedValue | None:
        """Returns the cached version of a channel."""
        with self._lock:
            kept = self._namespaces.get(key)
            return None if kept is None else kept.get(channel)

    def put(self, key: Key, channel: str, value: CachedValue) -> None:
        """Caches a version of a channel, replacing the previous one."""
        if len(value.data) < SMALLEST_BYTES or len(value.data) > self._max_bytes or not value.crc32:
            return self.remove(key, channel)
        with self._lock:
            kept = self._namespaces.setdefault(key, {})
            self._namespaces.move_to_end(key)
            before = kept.pop(channel, None)
            # At the end: the oldest of its namespace is evicted first.
            kept[channel] = value
            self._size += value.held_bytes
            if before is not None:
                self._size -= before.held_bytes
            while self._size > self._max_bytes:
                self._forget_oldest()
        return None

    def remove(self, key: Key, channel: str, version: str | None = None) -> None:
        """Removes a channel, if its cached version is this one. None: any version."""
        with self._lock:
            kept = self._namespaces.get(key)
            value = None if kept is None else kept.get(channel)
            if kept is None or value is None or version not in (None, value.version):
                return
            del kept[channel]
            self._size -= value.held_bytes
            if not kept:
                del self._namespaces[key]

    def _forget_oldest(self) -> None:
        key, kept = next(iter(self._namespaces.items()))
        channel = next(iter(kept))
        self._size -= kept.pop(channel).held_bytes
        if not kept:
            del self._namespaces[key]


def _begin_anew() -> None:
    """Empties all caches in a forked child: another thread may have been at work on them."""
    for cache in _caches:
        cache._begin()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begin_anew)
