"""The threads and items of an export file, checked before use, and readable repeatedly."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, NamedTuple

from checkpointd.v1.export_pb2 import ExportedThread, ExportHeader, ExportRecord, MissingThread
from checkpointd.v1.store_service_pb2 import WholeItem
from checkpointd_server.moving.content import Checkpoints, MovableThread, MoveError, shown
from checkpointd_server.moving.export_file import (
    IN_MEMORY_BYTES,
    MAGIC,
    ExportFileError,
    ExportReader,
    ThreadEntry,
    write_record,
)

FileEntry = MovableThread | WholeItem


class _IndexedThread(NamedTuple):
    """Place of a thread in a file."""

    thread: ExportedThread
    offset: int
    digest: bytes


class _IndexedItems(NamedTuple):
    """Place of items in a file that follow one another."""

    offset: int
    items: int


@dataclass(frozen=True, kw_only=True)
class ExportSource:
    """A file as a source of threads and items."""

    header: ExportHeader
    entries: Callable[[], Iterator[FileEntry]]
    """Yields its threads and items. Raises ExportFileError, MoveError."""
    thread_ids: frozenset[str] | None = None
    """Its threads. None: unknown until they are read."""
    missing: tuple[MissingThread, ...] = ()
    """The threads that couldn't be exported, if known before it is read."""

    @property
    def name(self) -> str:
        """Name of the file, for people."""
        return f"the export file {self.header.export_id.hex()}"


@contextmanager
def open_file(path: Path) -> Iterator[ExportSource]:
    """Opens a file, and checks all of it. Raises ExportFileError."""
    try:
        file = path.open("rb")
    except OSError as error:
        raise ExportFileError(f"{shown(path)} can't be read: {error.strerror}") from None
    with file:
        reader = ExportReader(file)
        index: list[_IndexedThread | _IndexedItems] = []
        begin = reader.offset
        for entry in reader.entries():
            if isinstance(entry, ThreadEntry):
                for _ in entry.checkpoints:
                    pass
                index.append(_IndexedThread(entry.thread, entry.offset, reader.end.digest))
            elif index and isinstance(last := index[-1], _IndexedItems):
                index[-1] = last._replace(items=last.items + 1)
            else:
                index.append(_IndexedItems(begin, 1))
            begin = reader.offset
        assert reader.trailer is not None
        yield ExportSource(
            header=reader.header,
            entries=partial(_indexed_entries, reader, index),
            thread_ids=frozenset(place.thread.thread_id for place in index if isinstance(place, _IndexedThread)),
            missing=tuple(reader.trailer.missing),
        )


def _indexed_entries(reader: ExportReader, index: list[_IndexedThread | _IndexedItems]) -> Iterator[FileEntry]:
    for place in index:
        if isinstance(place, _IndexedItems):
            offset = place.offset
            for _ in range(place.items):
                reader.seek(offset)  # the consumer of the previous entry may have moved the position
                item = reader.read_record().item
                offset = reader.offset
                yield item
        else:
            yield _movable(place.thread, partial(_read_at, reader, place), place.digest)


def _read_at(reader: ExportReader, place: _IndexedThread) -> Checkpoints:
    reader.seek(place.offset)
    if reader.read_record().thread.thread_id != place.thread.thread_id:
        raise ExportFileError("the file was changed while it was read")
    yield from reader.read_checkpoints(place.thread.thread_id)


@contextmanager
def open_stream(file: IO[bytes]) -> Iterator[ExportSource]:
    """Reads a file from a pipe. Each thread is checked before it is yielded.

    Raises:
        ExportFileError: It is not an export file.
    """
    reader = ExportReader(file)
    yield ExportSource(header=reader.header, entries=partial(_streamed_entries, reader))


def _streamed_entries(reader: ExportReader) -> Iterator[FileEntry]:
    for entry in reader.entries():
        if not isinstance(entry, ThreadEntry):
            yield entry
            continue
        with tempfile.SpooledTemporaryFile(IN_MEMORY_BYTES) as spool:
            try:
                spool.write(MAGIC)
                write_record(spool, ExportRecord(header=reader.header))
                for checkpoint in entry.checkpoints:
                    write_record(spool, ExportRecord(checkpoint=checkpoint))
                write_record(spool, ExportRecord(end=reader.end))
            except OSError as error:
                raise MoveError(f"can't write a temporary file: {error.strerror}") from None
            yield _movable(entry.thread, partial(_read_spooled, spool, entry.thread.thread_id), reader.end.digest)


def _read_spooled(spool: IO[bytes], thread_id: str) -> Checkpoints:
    spool.seek(0)
    yield from ExportReader(spool).read_checkpoints(thread_id)


def _movable(thread: ExportedThread, read: partial[Checkpoints], digest: bytes) -> MovableThread:
    def describe() -> ExportedThread:
        described = ExportedThread()
        described.CopyFrom(thread)
        described.ClearField("stamp")
        return described

    return MovableThread(thread.thread_id, describe, read, lambda: digest, digest.hex)
