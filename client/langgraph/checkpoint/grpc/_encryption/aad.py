"""Associated data (RFC 5116) that binds an encrypted value to the place where it is stored.

It isn't stored with the value: a reader knows where it found the value, and a value that was moved can't be decrypted
there. Each field is preceded by its length, and a kind of place has a fixed number of fields, so that no two places
look the same.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple, Protocol


class AssociatedData(Protocol):
    """A place where a value is stored."""

    @property
    def thread_id(self) -> str:
        """The thread."""

    @property
    def place(self) -> str:
        """The name of the place, for people."""

    def fields(self) -> tuple[bytes, ...]:
        """Returns bytes that are unique to this place."""


class ChannelAssociatedData(NamedTuple):
    """The value of a channel at one of its versions, whole."""

    thread_id: str
    checkpoint_ns: str
    channel: str
    version: str
    """Tagged text."""

    @property
    def place(self) -> str:
        return f"channel {self.channel!r}"

    def fields(self) -> tuple[bytes, ...]:
        return b"channel", *_texts(*self)


class PatchAssociatedData(NamedTuple):
    """The value of a channel at one of its versions, as a patch.

    It is bound to its base, so chains can't be rearranged.
    """

    thread_id: str
    checkpoint_ns: str
    channel: str
    version: str
    base_version: str
    size: int
    base_digest: bytes
    """The SHA-256 of the base's serialized bytes."""

    @property
    def place(self) -> str:
        return f"channel {self.channel!r}"

    def fields(self) -> tuple[bytes, ...]:
        return b"patch", *_texts(*self[:5], str(self.size)), self.base_digest


class WriteAssociatedData(NamedTuple):
    """One write of a task, beside a checkpoint."""

    thread_id: str
    checkpoint_ns: str
    checkpoint_id: str
    task_id: str
    task_path: str
    idx: int
    channel: str

    @property
    def place(self) -> str:
        return f"a task's write to channel {self.channel!r}"

    def fields(self) -> tuple[bytes, ...]:
        place = (self.thread_id, self.checkpoint_ns, self.checkpoint_id)
        return b"write", *_texts(*place, self.task_id, self.task_path, str(self.idx), self.channel)


class PatchedWriteAssociatedData(NamedTuple):
    """One write of a task, as a patch on a version of its channel.

    It is bound to its own place, and to the base that it was made on.
    """

    write: AssociatedData
    """The place of the write itself."""
    base_version: str
    size: int
    base_digest: bytes
    """The SHA-256 of the base's serialized bytes."""

    @property
    def thread_id(self) -> str:
        return self.write.thread_id

    @property
    def place(self) -> str:
        return self.write.place

    def fields(self) -> tuple[bytes, ...]:
        return b"patched write", *self.write.fields()[1:], *_texts(self.base_version, str(self.size)), self.base_digest


class MetadataAssociatedData(NamedTuple):
    """A checkpoint's metadata, which also authenticates the checkpoint's plain fields.

    These are its parent, its body, and its channels' versions, so a checkpoint can't be made to refer to other values.
    """

    thread_id: str
    checkpoint_ns: str
    checkpoint_id: str
    parent_checkpoint_id: str
    body: bytes
    channels: Sequence[str]
    channel_versions: Sequence[str]

    @property
    def place(self) -> str:
        return f"checkpoint {self.checkpoint_id}"

    def fields(self) -> tuple[bytes, ...]:
        place = (self.thread_id, self.checkpoint_ns, self.checkpoint_id, self.parent_checkpoint_id)
        return b"metadata", *_texts(*place), self._fingerprint()

    def _fingerprint(self) -> bytes:
        """Returns a digest of the plain fields, independent of the order of channels."""
        versions = _in_order(zip(self.channels, self.channel_versions, strict=True))
        return hashlib.sha256(encode((self.body, encode(versions)))).digest()


class ExtraAssociatedData(NamedTuple):
    """The parts of a checkpoint that msgpack can't hold."""

    thread_id: str
    checkpoint_ns: str
    checkpoint_id: str

    @property
    def place(self) -> str:
        return f"checkpoint {self.checkpoint_id}"

    def fields(self) -> tuple[bytes, ...]:
        return b"extra", *_texts(*self)


def encode(fields: Iterable[bytes]) -> bytes:
    """Returns an unambiguous encoding of fields."""
    return b"".join([part for field in fields for part in (struct.pack(">Q", len(field)), field)])


def _in_order(entries: Iterable[tuple[str, str]]) -> Iterator[bytes]:
    for channel, version in sorted(entries):
        yield channel.encode()
        yield version.encode()


def _texts(*texts: str) -> tuple[bytes, ...]:
    return tuple([text.encode() for text in texts])
