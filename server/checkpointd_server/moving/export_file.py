"""Export files: records with lengths and checksums, written and read as a stream (export.proto)."""

from __future__ import annotations

import os
import shutil
import struct
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Self
from zlib import crc32

from google.protobuf.message import DecodeError

from checkpointd.v1.export_pb2 import (
    ExportedThread,
    ExportedThreadEnd,
    ExportHeader,
    ExportRecord,
    ExportTrailer,
)
from checkpointd.v1.values_pb2 import CheckpointTuple
from checkpointd_server import __version__
from checkpointd_server.moving.content import MoveError, ThreadDigest

MAGIC = b"checkpointd export 1\n"
"""How every file begins."""
MAX_RECORD_BYTES = 2**31 - 1
"""The longest record: protobuf's longest message."""
IN_MEMORY_BYTES = 16 * 1024 * 1024
"""How much of a thread is kept in memory until it is complete. More goes to a temporary file."""

_FRAME = struct.Struct("<II")


class ExportFileError(MoveError):
    """The file is no export file, is damaged, or ends too early."""


class ExportWriter:
    """Writes a file, thread by thread. A thread gets into it when it is complete, and not before.

    Args:
        file: Where to, opened for binary writing.
        done: The threads that it has already.
    """

    def __init__(self, file: IO[bytes], *, done: set[str] | None = None) -> None:
        self._file = file
        self.done = done if done is not None else set()
        """The threads that it has."""

    def begin(self, *, redacted: bool) -> None:
        """Writes what a new file begins with."""
        self._file.write(MAGIC)
        header = ExportHeader(version=__version__, created_at=int(time.time()), redacted=redacted)
        _write(self._file, ExportRecord(header=header))
        self._file.flush()

    @contextmanager
    def writing(self, thread: ExportedThread) -> Iterator[_Spool]:
        """Takes a thread in."""
        with tempfile.SpooledTemporaryFile(IN_MEMORY_BYTES) as spooled:
            spool = _Spool(spooled)
            _write(spooled, ExportRecord(thread=thread))
            yield spool
            _write(spooled, ExportRecord(end=_end(spool.digest)))
            spooled.seek(0)
            shutil.copyfileobj(spooled, self._file, 1024 * 1024)
            self._file.flush()
        self.done.add(thread.thread_id)

    def finish(self) -> None:
        """Writes what a complete file ends with."""
        _write(self._file, ExportRecord(trailer=ExportTrailer(threads=len(self.done))))
        self._file.flush()


class _Spool:
    """Takes the checkpoints of a thread."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.digest = ThreadDigest()

    def write(self, checkpoint: CheckpointTuple) -> None:
        """Takes the next checkpoint."""
        self.digest.add(checkpoint)
        _write(self._file, ExportRecord(checkpoint=checkpoint))


def _end(digest: ThreadDigest) -> ExportedThreadEnd:
    return ExportedThreadEnd(checkpoints=digest.checkpoints, writes=digest.writes, digest=digest.result())


def _write(file: IO[bytes], record: ExportRecord) -> None:
    data = record.SerializeToString()
    file.write(_FRAME.pack(len(data), crc32(data)))
    file.write(data)


class ExportReader:
    """Reads a file from its beginning.

    Args:
        file: The file, opened for binary reading.

    Raises:
        ExportFileError: It is no export file.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        if file.read(len(MAGIC)) != MAGIC:
            raise ExportFileError("this is no export file of checkpointd, or one of a version that isn't known here")
        self.offset = len(MAGIC)
        """How many bytes were read."""
        first = self._read()
        if not first.HasField("header"):
            raise ExportFileError("the export file has no header")
        self.header: ExportHeader = first.header
        """What it begins with."""
        self.digest = b""
        """The digest of the thread that was read last."""
        self.is_complete = False
        """Whether its end was read."""

    def threads(self) -> Iterator[tuple[ExportedThread, Iterator[CheckpointTuple]]]:
        """Yields each thread, whose checkpoints are to be read before the next one.

        Raises:
            ExportFileError: It is damaged, or ends too early: whatever was yielded of the thread isn't to be kept.
        """
        threads = 0
        while True:
            record = self._read()
            if record.HasField("trailer"):
                if record.trailer.threads != threads:
                    raise ExportFileError(f"the file has {threads} threads, not {record.trailer.threads} as it says")
                self.is_complete = True
                return
            if not record.HasField("thread"):
                raise self._damaged("a thread should begin")
            checkpoints = self._checkpoints(record.thread.thread_id)
            yield record.thread, checkpoints
            for _ in checkpoints:  # what nobody wanted is checked all the same
                pass
            threads += 1

    def _checkpoints(self, thread_id: str) -> Iterator[CheckpointTuple]:
        digest = ThreadDigest()
        while not (record := self._read()).HasField("end"):
            if not record.HasField("checkpoint"):
                raise self._damaged("a checkpoint should follow")
            digest.add(record.checkpoint)
            yield record.checkpoint
        self.digest = record.end.digest
        if self.digest != digest.result():
            raise ExportFileError(f"thread {thread_id!r} isn't what the file says: its digest is another one")

    def _read(self) -> ExportRecord:
        frame = self._file.read(_FRAME.size)
        if len(frame) < _FRAME.size:
            raise ExportFileError(f"the file ends too early, after {self.offset} bytes: it isn't complete")
        size, checksum = _FRAME.unpack(frame)
        if size > MAX_RECORD_BYTES:
            raise self._damaged("a record is longer than any can be")
        data = self._file.read(size)
        if len(data) < size:
            raise ExportFileError(f"the file ends too early, after {self.offset} bytes: it isn't complete")
        if crc32(data) != checksum:
            raise self._damaged("a record has another checksum than it says")
        try:
            record = ExportRecord.FromString(data)
        except DecodeError:
            raise self._damaged("a record can't be read") from None
        self.offset += _FRAME.size + size
        return record

    def _damaged(self, problem: str) -> ExportFileError:
        return ExportFileError(f"the file is damaged behind its first {self.offset} bytes: {problem}")


def check_file(path: Path) -> dict[str, bytes]:
    """Reads a whole file, and returns the digest of each thread. Raises ExportFileError if anything is wrong."""
    digests = {}
    with path.open("rb") as file:
        for thread, checkpoints in (reader := ExportReader(file)).threads():
            for _ in checkpoints:
                pass
            digests[thread.thread_id] = reader.digest
    return digests


class PartialFile:
    """A file that is being written: beside its place until it is complete, so that an export can go on after a kill.

    Args:
        path: Where the file shall be.
        redacted: Whether values are left out.
    """

    def __init__(self, path: Path, *, redacted: bool) -> None:
        self.path = path
        self.partial = path.with_name(path.name + ".partial")
        self._redacted = redacted

    def __enter__(self) -> Self:
        if self.path.exists():
            raise MoveError(f"{self.path} is there already: name another file, or remove it")
        done, end = self._complete_threads()
        try:
            self._file = self.partial.open("r+b" if end else "wb")
        except OSError as error:
            raise MoveError(f"can't write {self.partial}: {error.strerror}") from None
        os.chmod(self.partial, 0o600)  # it holds all that agents have stored
        self._file.truncate(end)
        self._file.seek(end)
        self.resumed = len(done)
        """How many threads it had already."""
        self.writer = ExportWriter(self._file, done=done)
        """Takes the threads."""
        if not end:
            self.writer.begin(redacted=self._redacted)
        return self

    def _complete_threads(self) -> tuple[set[str], int]:
        """Returns the threads that are complete in what there is, and where they end."""
        done: set[str] = set()
        try:
            file = self.partial.open("rb")
        except FileNotFoundError:
            return done, 0
        with file:
            try:
                reader = ExportReader(file)
            except ExportFileError:
                return done, 0
            if reader.header.redacted != self._redacted:
                how = "without" if reader.header.redacted else "with"
                raise MoveError(f"{self.partial} was begun {how} values: remove it, or go on as it was begun")
            end = reader.offset
            try:
                for thread, checkpoints in reader.threads():
                    for _ in checkpoints:
                        pass
                    done.add(thread.thread_id)
                    end = reader.offset
            except ExportFileError:
                pass  # where it was killed
        return done, end

    def __exit__(self, exc_type: object, *rest: object) -> None:
        with self._file:
            if exc_type is None:
                self.writer.finish()
                os.fsync(self._file.fileno())
        if exc_type is None:
            self.partial.rename(self.path)
