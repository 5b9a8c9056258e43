"""A file that has another name until it is complete, so an export can be resumed after a kill."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Sequence
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import IO, Self

from checkpointd.v1.export_pb2 import ExportHeader, ExportRecord, MissingThread
from checkpointd_server.moving.content import MoveError, shown
from checkpointd_server.moving.export_file import (
    MAGIC,
    Contents,
    ExportFileError,
    ExportReader,
    ExportWriter,
    ThreadEntry,
    place_of,
    write_record,
)

Stale = Callable[[Contents], Contents]
"""Returns the part of a file's contents that is out of date."""


class PartialFile:
    """An export's file: FILE.partial, which becomes FILE when it is complete.

    Args:
        path: The path of the complete file.
        header: The header of a new file. A partial one is resumed only if its header is the same.
        stale: Returns what to remove from a partial file before it is resumed.

    Raises:
        MoveError: The file exists, or the partial one belongs to another export or can't be written.
    """

    def __init__(self, path: Path, header: ExportHeader, stale: Stale) -> None:
        self.path = path
        check_new(path)
        self.partial = path.parent / f"{path.name}.partial"
        self.taken_out = Contents()
        """The outdated contents that were removed from the partial file."""
        self._header = header
        self._stale = stale

    def __enter__(self) -> Self:
        try:
            self._file = self._open()
            try:
                self._resume()
            except BaseException:
                self._file.close()
                raise
        except OSError as error:
            raise MoveError(f"can't write {shown(self.partial)}: {error.strerror or type(error).__name__}") from None
        return self

    def _open(self) -> IO[bytes]:
        """Opens or creates the partial file, and locks it."""
        # Readable only by its owner: it has everything that agents stored.
        opened = os.fdopen(os.open(self.partial, os.O_RDWR | os.O_CREAT, 0o600), "r+b")
        try:
            os.fchmod(opened.fileno(), 0o600)
            self._lock(opened)
            if not os.path.samestat(os.fstat(opened.fileno()), os.stat(self.partial)):
                raise BlockingIOError
        except (BlockingIOError, FileNotFoundError):
            opened.close()
            raise MoveError(f"another export writes {shown(self.partial)}") from None
        except BaseException:
            opened.close()
            raise
        return opened

    def _lock(self, file: IO[bytes]) -> None:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def _resume(self) -> None:
        found, end = self._complete_entries()
        if end:
            self.taken_out = self._stale(found)
            if self.taken_out.threads or self.taken_out.items:
                end = self._take_out(found, end)
        self._file.truncate(end)
        self._file.seek(end)
        self.resumed = len(found.threads) + len(found.items)
        """The number of threads and items that it had before."""
        self.writer = ExportWriter(self._file, shown(self.partial), has=found)
        """Writes threads and items."""
        if not end:
            self.writer.begin(self._header)

    def _complete_entries(self) -> tuple[Contents, int]:
        """Returns the complete part of the partial file, and its end. Raises MoveError if it is another export's."""
        found = Contents()
        head = self._file.read(len(MAGIC))
        self._file.seek(0)
        if not MAGIC.startswith(head):
            raise MoveError(f"{shown(self.partial)} is there, and is no export file: name another file, or remove it")
        try:
            reader = ExportReader(self._file)
        except ExportFileError:
            return found, 0
        self._check_header(reader.header)
        end = reader.offset
        try:
            for entry in reader.entries():
                if isinstance(entry, ThreadEntry):
                    for _ in entry.checkpoints:
                        pass
                    found.threads[entry.thread.thread_id] = entry.thread.stamp
                else:
                    found.items[place_of(entry)] = entry.item.version
                end = reader.offset
        except ExportFileError:
            pass  # the process was killed here
        return found, end

    def _check_header(self, header: ExportHeader) -> None:
        wanted = self._header
        differences = {
            "with values, or without them": header.redacted != wanted.redacted,
            f"from another server ({header.server_id})": header.server_id != wanted.server_id,
            f"for another tenant ({header.tenant!r})": header.tenant != wanted.tenant,
            "for other threads or items": header.selection != wanted.selection,
        }
        if differing := [difference for difference, is_so in differences.items() if is_so]:
            if header.redacted != wanted.redacted:
                differing[0] = "without values" if header.redacted else "with values"
            raise MoveError(
                f"{shown(self.partial)} was begun {' and '.join(differing)}: remove it, give the command that began "
                "it, or name another file"
            )

    def _take_out(self, found: Contents, end: int) -> int:
        """Rewrites the partial file without outdated contents, and returns its end."""
        new = self.partial.with_name(self.partial.name + ".new")
        made = os.fdopen(os.open(new, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600), "r+b")
        try:
            self._lock(made)
            self._file.seek(0)
            reader = ExportReader(self._file)
            made.write(MAGIC)
            write_record(made, ExportRecord(header=reader.header))
            keeps = True
            while reader.offset < end:
                record = reader.read_record()
                if record.HasField("thread"):
                    keeps = record.thread.thread_id not in self.taken_out.threads
                elif record.HasField("item"):
                    keeps = place_of(record.item) not in self.taken_out.items
                if keeps:
                    write_record(made, record)
            made.flush()
            os.fsync(made.fileno())
            new.rename(self.partial)
        except BaseException:
            made.close()
            new.unlink(missing_ok=True)
            raise
        self._file.close()
        self._file = made
        for thread_id in self.taken_out.threads:
            del found.threads[thread_id]
        for place in self.taken_out.items:
            del found.items[place]
        return made.tell()

    def finish(self, missing: Sequence[MissingThread] = ()) -> None:
        """Completes the file, and renames it to its final name.

        Args:
            missing: The threads that couldn't be exported.
        """
        self.writer.finish(missing)
        try:
            os.fsync(self._file.fileno())
            check_new(self.path)
            self.partial.rename(self.path)
        except OSError as error:
            raise MoveError(f"can't write {shown(self.path)}: {error.strerror or type(error).__name__}") from None

    def __exit__(self, exc_type: object, *rest: object) -> None:
        if exc_type is not None and not (self.writer.has.threads or self.writer.items) and self.partial.exists():
            self.partial.unlink()  # it has nothing to resume with
        # On a full disk closing fails again, but the reason is known already.
        with suppress(OSError) if exc_type is not None else nullcontext():
            self._file.close()


def check_new(path: Path) -> None:
    """Raises MoveError if a file can't be made there."""
    if path.is_dir():
        raise MoveError(f"{shown(path)} is a folder: name a file")
    if os.path.lexists(path):
        raise MoveError(f"{shown(path)} is there already: name another file, or remove it")
    if not path.absolute().parent.is_dir():
        raise MoveError(f"there is no folder {shown(path.absolute().parent)}")
