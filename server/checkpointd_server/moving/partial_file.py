"""A file that is being written beside its place until it is complete, so that an export can go on after a kill."""

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
"""Returns what of a file's contents isn't so any more where it came from."""


class PartialFile:
    """An export's file: FILE.partial, which becomes FILE when it is complete.

    Args:
        path: Where the file shall be.
        header: What a new file begins with. A partial one goes on only if it was begun for the same.
        stale: What of a partial file is to be taken out before it goes on.

    Raises:
        MoveError: There is a file already, or the partial one is about something else, or can't be written.
    """

    def __init__(self, path: Path, header: ExportHeader, stale: Stale) -> None:
        self.path = path
        check_new(path)
        self.partial = path.parent / f"{path.name}.partial"
        self.taken_out = Contents()
        """The contents of the partial file that were changed or deleted since."""
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
        """Opens the partial file, new or not, for nobody else."""
        # It holds all that agents have stored.
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
        """How many threads and items it had already."""
        self.writer = ExportWriter(self._file, shown(self.partial), has=found)
        """Takes threads and items."""
        if not end:
            self.writer.begin(self._header)

    def _complete_entries(self) -> tuple[Contents, int]:
        """Returns what is complete in the partial file, and where it ends. Raises MoveError if it is another's."""
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
            pass  # where it was killed
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
        """Writes the partial file anew, without what is stale, and returns where it ends."""
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
        """Completes the file, and gives it its name.

        Args:
            missing: What could not be exported.
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
            self.partial.unlink()  # it holds nothing to go on with
        # Where there is no room, closing fails once more; why it stopped is known already.
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
