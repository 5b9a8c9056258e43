"""Export files: records with lengths and checksums, written and read as a stream (export.proto)."""

from __future__ import annotations

import secrets
import shutil
import struct
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import IO, NamedTuple
from zlib import crc32

from google.protobuf.message import DecodeError, EncodeError

from checkpointd.v1.export_pb2 import (
    ExportedThread,
    ExportedThreadEnd,
    ExportHeader,
    ExportRecord,
    ExportSelection,
    ExportTrailer,
    MissingThread,
)
from checkpointd.v1.store_service_pb2 import WholeItem
from checkpointd.v1.values_pb2 import CheckpointTuple
from checkpointd_server import __version__
from checkpointd_server.moving.content import Checkpoints, MoveError, ThreadDigest
from checkpointd_server.moving.server_identity import ServerIdentity

MAGIC = b"checkpointd export 1\n"
"""The first bytes of every file."""
MAX_RECORD_BYTES = 2**31 - 1
"""The longest record: protobuf's longest message."""
IN_MEMORY_BYTES = 16 * 1024 * 1024
"""How much of an incomplete thread is kept in memory, in bytes. The rest goes to a temporary file."""

_FRAME = struct.Struct("<II")

ItemPlace = tuple[tuple[str, ...], str]
"""An item's namespace and key."""


class ExportFileError(MoveError):
    """The file is not an export file, is corrupt, or is truncated."""


class FileNotWritten(MoveError):
    """The file can't be written."""


def new_header(identity: ServerIdentity, selection: ExportSelection, *, redacted: bool) -> ExportHeader:
    """Returns the header of a new file."""
    return ExportHeader(
        version=__version__,
        created_at=int(time.time()),
        redacted=redacted,
        export_id=secrets.token_bytes(16),
        server_id=identity.server_id,
        tenant=identity.tenant,
        selection=selection,
    )


def place_of(item: WholeItem) -> ItemPlace:
    """Returns which item it is."""
    return tuple(item.item.namespace), item.item.key


@dataclass(kw_only=True)
class Contents:
    """Contents of a file."""

    threads: dict[str, bytes] = field(default_factory=dict)
    """Its threads, with their stamps."""
    items: dict[ItemPlace, int] = field(default_factory=dict)
    """Its items, with their versions."""


class ExportWriter:
    """Writes a file, thread by thread. A thread is written only when it is complete.

    Args:
        file: The file, opened for binary writing.
        name: Its name in messages.
        has: Its contents so far.
    """

    def __init__(self, file: IO[bytes], name: str, *, has: Contents | None = None) -> None:
        self._file = file
        self._name = name
        self.has = has if has is not None else Contents()
        """Its contents."""
        self.items = len(self.has.items)
        """How many items it has."""

    def begin(self, header: ExportHeader) -> None:
        """Writes the header of a new file. Raises FileNotWritten."""
        with self._writing():
            self._file.write(MAGIC)
            write_record(self._file, ExportRecord(header=header))
            self._file.flush()

    @contextmanager
    def writing(self, thread: ExportedThread) -> Iterator[_Spool]:
        """Receives a thread. Raises FileNotWritten."""
        with self._writing(), tempfile.SpooledTemporaryFile(IN_MEMORY_BYTES) as spooled:
            spool = _Spool(spooled)
            write_record(spooled, ExportRecord(thread=thread))
            yield spool
            write_record(spooled, ExportRecord(end=_end(spool.digest)))
            spooled.seek(0)
            shutil.copyfileobj(spooled, self._file, 1024 * 1024)
            self._file.flush()
        self.has.threads[thread.thread_id] = thread.stamp

    def write_items(self, items: Sequence[WholeItem]) -> None:
        """Receives items. Raises FileNotWritten."""
        with self._writing():
            for item in items:
                write_record(self._file, ExportRecord(item=item))
            self._file.flush()
        self.items += len(items)

    def finish(self, missing: Sequence[MissingThread] = ()) -> None:
        """Writes the trailer of a complete file. Raises FileNotWritten."""
        trailer = ExportTrailer(threads=len(self.has.threads), items=self.items, missing=missing)
        with self._writing():
            write_record(self._file, ExportRecord(trailer=trailer))
            self._file.flush()

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise FileNotWritten(f"can't write {self._name}: {error.strerror or type(error).__name__}") from error


class _Spool:
    """Takes the checkpoints of a thread."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.digest = ThreadDigest()

    def write(self, checkpoint: CheckpointTuple) -> None:
        """Takes the next checkpoint."""
        self.digest.add(checkpoint)
        write_record(self._file, ExportRecord(checkpoint=checkpoint))


def _end(digest: ThreadDigest) -> ExportedThreadEnd:
    return ExportedThreadEnd(checkpoints=digest.checkpoints, writes=digest.writes, digest=digest.result())


def write_record(file: IO[bytes], record: ExportRecord) -> None:
    """Writes a record. Raises OSError, MoveError."""
    try:
        data = record.SerializeToString()
    except (EncodeError, ValueError):
        raise MoveError(f"a record is longer than {MAX_RECORD_BYTES} bytes, which no file can hold") from None
    file.write(_FRAME.pack(len(data), crc32(data)))
    file.write(data)


class ThreadEntry(NamedTuple):
    """A thread of a file."""

    thread: ExportedThread
    checkpoints: Iterator[CheckpointTuple]
    """Its checkpoints, to be read before the next entry."""
    offset: int
    """Where it begins in the file, in bytes."""


class ExportReader:
    """Reads a file from its beginning.

    Args:
        file: The file, opened for binary reading.

    Raises:
        ExportFileError: It is not an export file.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        if self._read_bytes(len(MAGIC)) != MAGIC:
            raise ExportFileError("this is no export file of checkpointd, or one of a version that isn't known here")
        self.offset = len(MAGIC)
        """How many bytes were read."""
        first = self.read_record()
        if not first.HasField("header"):
            raise ExportFileError("the export file has no header")
        self.header: ExportHeader = first.header
        """Its header."""
        self.end = ExportedThreadEnd()
        """The end record of the last thread read."""
        self.trailer: ExportTrailer | None = None
        """Its trailer. None: not read yet."""

    def entries(self) -> Iterator[ThreadEntry | WholeItem]:
        """Yields each thread, whose checkpoints must be read before the next entry, and each item.

        Raises:
            ExportFileError: It is corrupt or truncated: discard what was yielded of the thread.
        """
        threads, items = set[str](), 0
        while True:
            begin = self.offset
            record = self.read_record()
            if record.HasField("trailer"):
                self._check_counts(record.trailer, len(threads), items)
                self.trailer = record.trailer
                return
            if record.HasField("item"):
                items += 1
                yield record.item
                continue
            if not record.HasField("thread"):
                raise self._damaged("a thread or an item should begin")
            if record.thread.thread_id in threads:
                raise self._damaged(f"thread {record.thread.thread_id!r} comes again")
            threads.add(record.thread.thread_id)
            checkpoints = self.read_checkpoints(record.thread.thread_id)
            yield ThreadEntry(record.thread, checkpoints, begin)
            for _ in checkpoints:  # skipped threads are checked, too
                pass

    def _check_counts(self, trailer: ExportTrailer, threads: int, items: int) -> None:
        for what, found, told in (("threads", threads, trailer.threads), ("items", items, trailer.items)):
            if found != told:
                raise ExportFileError(f"the file has {found} {what}, not {told} as it says")

    def threads(self) -> Iterator[tuple[ExportedThread, Iterator[CheckpointTuple]]]:
        """Yields each thread with its checkpoints, as `entries` does. Items are skipped."""
        for entry in self.entries():
            if isinstance(entry, ThreadEntry):
                yield entry.thread, entry.checkpoints

    def read_checkpoints(self, thread_id: str) -> Checkpoints:
        """Yields the checkpoints of the thread that has begun, up to its end. Raises ExportFileError."""
        digest = ThreadDigest()
        while not (record := self.read_record()).HasField("end"):
            if not record.HasField("checkpoint"):
                raise self._damaged("a checkpoint should follow")
            digest.add(record.checkpoint)
            yield record.checkpoint
        self.end = record.end
        if self.end.digest != digest.result():
            raise ExportFileError(f"thread {thread_id!r} isn't what the file says: its digest is another one")

    def seek(self, offset: int) -> None:
        """Moves to the beginning of an entry."""
        self._file.seek(offset)
        self.offset = offset

    def read_record(self) -> ExportRecord:
        """Reads the next record. Raises ExportFileError."""
        frame = self._read_bytes(_FRAME.size)
        if len(frame) < _FRAME.size:
            raise self._ends_early()
        size, checksum = _FRAME.unpack(frame)
        if size > MAX_RECORD_BYTES:
            raise self._damaged("a record is longer than any can be")
        data = self._read_bytes(size)
        if len(data) < size:
            raise self._ends_early()
        if crc32(data) != checksum:
            raise self._damaged("a record has another checksum than it says")
        try:
            record = ExportRecord.FromString(data)
        except DecodeError:
            raise self._damaged("a record can't be read") from None
        self.offset += _FRAME.size + size
        return record

    def _read_bytes(self, size: int) -> bytes:
        try:
            return self._file.read(size)
        except OSError as error:
            raise ExportFileError(f"the file can't be read: {error.strerror}") from None

    def _ends_early(self) -> ExportFileError:
        return ExportFileError(f"the file ends too early, after {self.offset} bytes: it isn't complete")

    def _damaged(self, problem: str) -> ExportFileError:
        return ExportFileError(f"the file is damaged behind its first {self.offset} bytes: {problem}")
