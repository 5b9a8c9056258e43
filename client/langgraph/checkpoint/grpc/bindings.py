"""What an encrypted value is bound to: the place where it is stored.

The place goes into the encryption as associated data. It isn't stored with the value: whoever reads knows where he
found it, and a value that was put elsewhere doesn't open there. Each field is preceded by its length, and a kind of
place has a fixed number of fields, so that no two places look the same.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple, Protocol

from checkpointd.v1 import values_pb2 as values


class Binding(Protocol):
    """A place where a value is stored."""

    @property
    def thread_id(self) -> str:
        """The thread."""

    @property
    def place(self) -> str:
        """What is there, for people."""

    def fields(self) -> tuple[bytes, ...]:
        """Returns what tells this place from every other one."""


class ChannelBinding(NamedTuple):
    """The value of a channel at one of its versions."""

    thread_id: str
    checkpoint_ns: str
    channel: str
    version: values.ChannelVersion

    @property
    def place(self) -> str:
        return f"channel {self.channel!r}"

    def fields(self) -> tuple[bytes, ...]:
        return b"channel", *_texts(self.thread_id, self.checkpoint_ns, self.channel), _version(self.version)


class WriteBinding(NamedTuple):
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


class MetadataBinding(NamedTuple):
    """A checkpoint's metadata. It vouches for the checkpoint's plain fields too: for its parent, and for its channels'
    versions, so that a checkpoint can't be made to point at other values than its own."""

    thread_id: str
    checkpoint_ns: str
    checkpoint_id: str
    parent_checkpoint_id: str
    checkpoint: values.Checkpoint

    @property
    def place(self) -> str:
        return f"checkpoint {self.checkpoint_id}"

    def fields(self) -> tuple[bytes, ...]:
        place = (self.thread_id, self.checkpoint_ns, self.checkpoint_id, self.parent_checkpoint_id)
        return b"metadata", *_texts(*place), fingerprint(self.checkpoint)


class ExtraBinding(NamedTuple):
    """What of a checkpoint has no field of its own."""

    thread_id: str
    checkpoint_ns: str
    checkpoint_id: str

    @property
    def place(self) -> str:
        return f"checkpoint {self.checkpoint_id}"

    def fields(self) -> tuple[bytes, ...]:
        return b"extra", *_texts(self.thread_id, self.checkpoint_ns, self.checkpoint_id)


def encode(fields: Iterable[bytes]) -> bytes:
    """Returns fields as one piece of bytes, from which they can be told apart again."""
    return b"".join(part for field in fields for part in (struct.pack(">Q", len(field)), field))


def fingerprint(checkpoint: values.Checkpoint) -> bytes:
    """Returns a digest of a checkpoint's plain fields, the same however protobuf orders its maps."""
    names = checkpoint.updated_channels.names
    parts = (
        str(checkpoint.v).encode() if checkpoint.HasField("v") else b"",
        checkpoint.ts.encode() if checkpoint.HasField("ts") else b"",
        b"".join(b"1" if checkpoint.HasField(name) else b"0" for name in ("v", "ts", "updated_channels", "extra")),
        _versions(checkpoint.channel_versions.versions),
        encode(_sorted({node: _versions(seen.versions) for node, seen in checkpoint.versions_seen.items()})),
        encode(_texts(*names)),
    )
    return hashlib.sha256(encode(parts)).digest()


def _versions(versions: Mapping[str, values.ChannelVersion]) -> bytes:
    return encode(_sorted({channel: _version(version) for channel, version in versions.items()}))


def _sorted(entries: Mapping[str, bytes]) -> Iterator[bytes]:
    for key in sorted(entries):
        yield key.encode()
        yield entries[key]


def _version(version: values.ChannelVersion) -> bytes:
    """Returns a version with its type."""
    match version.WhichOneof("value"):
        case "text":
            return b"s" + version.text.encode()
        case "integer":
            return b"i%d" % version.integer
        case "number":
            return b"f" + struct.pack(">d", version.number)
        case _:
            return b""


def _texts(*texts: str) -> tuple[bytes, ...]:
    return tuple(text.encode() for text in texts)
