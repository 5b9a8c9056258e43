"""Contents of a thread, from any source: checkpoints in order, each with the values that no earlier one had.

A checkpoint is the protocol's CheckpointTuple. Its `values` are whole, or patches on earlier versions, and never left
out. If an encrypted patch builds on a version that no checkpoint has any more, that version precedes it in the same
checkpoint.
"""

from __future__ import annotations

import hashlib
import json
import os
import struct
from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, NamedTuple, Protocol
from zlib import crc32

import msgpack

from checkpointd.v1.export_pb2 import ExportedThread
from checkpointd.v1.values_pb2 import CheckpointTuple, TypedValue
from checkpointd_server.domain.errors import CheckpointdError

LANGGRAPH_METADATA = frozenset({"source", "step", "parents", "run_id"})
"""Entries of metadata that LangGraph itself adds: redaction keeps these."""


_LENIENT: Any = {"unicode_errors": "surrogatepass"}


Checkpoints = Generator[CheckpointTuple, None, None]
"""A thread that is being read. Close it if it isn't read to its end."""


class MoveError(CheckpointdError):
    """A thread or an item can't be moved. The message says which, and why."""


class ThreadChanged(MoveError):
    """A thread was changed while it was being read."""


class ThreadSource(Protocol):
    """A source of threads."""

    def thread_ids(self) -> Iterator[str]:
        """Yields every thread's id once."""

    def describe(self, thread_id: str) -> ExportedThread:
        """Returns a thread's attributes, without its contents."""

    def stamp(self, thread_id: str) -> str:
        """Returns a cheap stamp that changes with the thread. Empty: there is no such thread."""

    def read(self, thread_id: str) -> Checkpoints:
        """Yields a thread's checkpoints by (checkpoint_id, checkpoint_ns), bytewise. Of an unknown thread: none.

        Raises:
            ThreadChanged: It was changed in the meantime.
            MoveError: Its contents can't be read.
        """


class ThreadTarget(Protocol):
    """A target of threads."""

    def holds(self, thread_id: str) -> bool:
        """Returns whether it has any part of a thread."""

    def stamp(self, thread_id: str) -> str:
        """Returns a cheap stamp that changes with the thread. Empty: there is no such thread."""

    def writing(self, thread: ExportedThread) -> AbstractContextManager[ThreadWriter]:
        """Receives a thread: what was written is kept if the context ends without an error."""

    def read(self, thread_id: str) -> Checkpoints:
        """Yields its checkpoints of a thread, as a source does."""

    def delete(self, thread_id: str) -> None:
        """Deletes a thread."""


class ThreadWriter(Protocol):
    """Receives the checkpoints of one thread."""

    def write(self, checkpoint: CheckpointTuple) -> None:
        """Takes the next checkpoint."""


class MovableThread(NamedTuple):
    """A thread to move."""

    thread_id: str
    describe: Callable[[], ExportedThread]
    """Returns its attributes, without its contents."""
    read: Callable[[], Checkpoints]
    """Reads it from its beginning, any number of times."""
    digest: Callable[[], bytes]
    """Returns the digest of its contents."""
    stamp: Callable[[], str]
    """Returns its stamp, as ThreadSource.stamp does."""


def digest_of(checkpoints: Iterator[CheckpointTuple]) -> ThreadDigest:
    """Returns the digest of a thread."""
    digest = ThreadDigest()
    for checkpoint in checkpoints:
        digest.add(checkpoint)
    return digest


def sort_key(checkpoint: CheckpointTuple) -> tuple[bytes, bytes]:
    """Returns the sort key of a checkpoint."""
    return checkpoint.checkpoint_id.encode(), checkpoint.checkpoint_ns.encode()


class ThreadDigest:
    """Computes a digest of a thread's contents, independent of where they are stored and how values are encoded."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()
        self.checkpoints = 0
        """The number of checkpoints so far."""
        self.writes = 0
        """How many task writes."""

    def add(self, checkpoint: CheckpointTuple) -> None:
        """Adds the next checkpoint."""
        self.checkpoints += 1
        self.writes += len(checkpoint.pending_writes)
        self._own(checkpoint)
        self._number(len(checkpoint.values))
        for value in sorted(checkpoint.values, key=lambda value: (value.channel, value.version)):
            self._text(value.channel, value.version)
            self._value(value.value)
        self._number(len(checkpoint.pending_writes))
        for write in checkpoint.pending_writes:
            self._text(write.task_id, write.task_path, write.channel)
            self._number(write.idx)
            self._value(write.value)

    def _own(self, checkpoint: CheckpointTuple) -> None:
        """Adds a checkpoint without its values and task writes."""
        self._text(checkpoint.checkpoint_ns, checkpoint.checkpoint_id, checkpoint.parent_checkpoint_id)
        self._bytes(_canonical(checkpoint.body))
        for channel, version in sorted(zip(checkpoint.channels, checkpoint.channel_versions, strict=True)):
            self._text(channel, version)
        self._text(checkpoint.metadata.value.type)
        metadata = checkpoint.metadata.value
        self._bytes(_canonical(metadata.data) if metadata.type == "msgpack" else metadata.data)

    def result(self) -> bytes:
        """Returns the digest of everything added, 32 bytes."""
        return self._hash.digest()

    def _value(self, value: TypedValue) -> None:
        type, size, checksum = _contents(value)
        self._text(type)
        self._number(size)
        self._number(checksum)

    def _text(self, *texts: str) -> None:
        for text in texts:
            self._bytes(text.encode())

    def _bytes(self, data: bytes) -> None:
        self._number(len(data))
        self._hash.update(data)

    def _number(self, number: int) -> None:
        self._hash.update(struct.pack("<q", number))


def _contents(value: TypedValue) -> tuple[str, int, int]:
    """Returns a value's type, and the size and CRC-32 of the whole value, independent of its encoding."""
    if value.HasField("patch") and not value.patch.sealed:
        return value.type, value.patch.size, value.patch.crc32
    return value.type, len(value.data), crc32(value.data)


def is_part(found: Iterator[CheckpointTuple], whole: Iterator[CheckpointTuple]) -> bool:
    """Returns whether everything found of a thread is part of the whole one, as after an interrupted import.

    Each checkpoint must be the same, except that the whole one may have more values and task writes.

    Args:
        found: The checkpoints, in order.
        whole: The checkpoints of the whole thread, in order.
    """
    for checkpoint in found:
        other = next(whole, None)
        while other is not None and sort_key(other) < sort_key(checkpoint):
            other = next(whole, None)
        if other is None or _parts(other, checkpoint) != _parts(checkpoint, checkpoint):
            return False
    return True


def _parts(checkpoint: CheckpointTuple, wanted: CheckpointTuple) -> tuple[object, ...]:
    """Returns a digest of a checkpoint, with only those of its values and task writes that another one has."""
    digest = ThreadDigest()
    digest._own(checkpoint)
    values = {(value.channel, value.version): _contents(value.value) for value in checkpoint.values}
    writes = {
        (write.task_id, write.idx): (write.task_path, write.channel, _contents(write.value))
        for write in checkpoint.pending_writes
    }
    return (
        digest.result(),
        [values.get((value.channel, value.version)) for value in wanted.values],
        [writes.get((write.task_id, write.idx)) for write in wanted.pending_writes],
    )


def _canonical(data: bytes) -> bytes:
    """Returns msgpack with sorted map keys, for stores that don't keep their order."""
    try:
        return bytes(msgpack.packb(_sorted(msgpack.unpackb(data, strict_map_key=False, **_LENIENT)), **_LENIENT))
    except (ValueError, TypeError, RecursionError, msgpack.exceptions.UnpackException):
        return data


def _sorted(value: Any) -> Any:
    if isinstance(value, dict):
        made = {key: _sorted(value[key]) for key in sorted(value, key=repr)}
        match made.get("extra"):
            case ["msgpack", bytes(inner)]:
                made["extra"] = ["msgpack", _canonical(inner)]
        return made
    if isinstance(value, list):
        return [_sorted(item) for item in value]
    return value


def redacted(checkpoint: CheckpointTuple) -> CheckpointTuple:
    """Returns a checkpoint without agents' data: only its structure, and LangGraph's own metadata."""
    made = CheckpointTuple()
    made.CopyFrom(checkpoint)
    made.ClearField("values")
    is_json = checkpoint.metadata.value.type == "json"
    nothing = TypedValue(type="json", data=b"null") if is_json else TypedValue(type="null")
    versions = dict(zip(checkpoint.channels, checkpoint.channel_versions, strict=True))
    for value in checkpoint.values:
        if versions.get(value.channel) == value.version:  # nothing builds on these any more
            made.values.add(channel=value.channel, version=value.version, value=nothing)
    for write in made.pending_writes:
        write.value.CopyFrom(nothing)
    made.metadata.ClearField("index")
    metadata, kept, found = checkpoint.metadata.value, {}, {}
    if metadata.type == "msgpack":
        found = msgpack.unpackb(metadata.data, strict_map_key=False, ext_hook=_nothing)
    elif is_json:
        found = json.loads(metadata.data)
    if found:
        kept = {name: found[name] for name in sorted(LANGGRAPH_METADATA & found.keys())}
    packed = json.dumps(kept).encode() if is_json else msgpack.packb(kept)
    made.metadata.value.CopyFrom(TypedValue(type="json" if is_json else "msgpack", data=packed))
    body = msgpack.unpackb(checkpoint.body, strict_map_key=False)
    body.pop("extra", None)
    made.body = msgpack.packb(body)
    return made


def _nothing(code: int, data: bytes) -> None:
    """Replaces an agent's object."""


def shown(path: Path) -> str:
    """Returns a path in printable form, whatever bytes it has."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")
