"""Moving threads from a source to a target, one after another, checked, and going on where it was interrupted."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import NamedTuple, Self, TypeVar

from checkpointd.v1.export_pb2 import ExportedThread
from checkpointd.v1.values_pb2 import CheckpointTuple
from checkpointd_server.moving.content import (
    MoveError,
    ThreadChanged,
    ThreadDigest,
    ThreadSource,
    ThreadTarget,
    redacted,
)
from checkpointd_server.moving.export_file import ExportFileError, ExportReader, ExportWriter

READS = 5
"""How often a thread is read that somebody changes meanwhile, before it is given up."""


Found = TypeVar("Found")


class MovableThread(NamedTuple):
    """A thread that is to be moved."""

    thread_id: str
    describe: Callable[[], ExportedThread]
    """Returns what is known of it besides its contents."""
    read: Callable[[], Iterator[CheckpointTuple]]
    """Reads it from its beginning."""
    digest: Callable[[], bytes | None]
    """Returns the digest of its contents, before they are read. None: it can't be known before."""


Threads = Iterable[MovableThread]
Progress = Callable[[int], None]
"""Told how many more checkpoints were moved."""


@dataclass(kw_only=True)
class Report:
    """The outcome of a transfer."""

    threads: int = 0
    """How many threads were moved."""
    checkpoints: int = 0
    """How many checkpoints they have."""
    writes: int = 0
    """How many task writes."""
    there: int = 0
    """How many threads were moved before, or are in the target already with the same contents."""
    failed: dict[str, str] = field(default_factory=dict)
    """Threads that were not moved, and why."""


class Journal:
    """Remembers how far an import came, in a file, so that the next one goes on there.

    Args:
        path: The file. It is removed when all is done.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._begun: set[str] = set()
        self._done: set[str] = set()

    def __enter__(self) -> Self:
        try:
            if self._path.exists():
                for line in self._path.read_text().splitlines():
                    state, thread_id = json.loads(line)
                    (self._done if state == "done" else self._begun).add(thread_id)
            self._file = self._path.open("a")
        except (OSError, ValueError) as error:
            raise MoveError(f"{self._path}, which says how far the import came, can't be used: {error}") from None
        return self

    def __exit__(self, exc_type: object, *rest: object) -> None:
        self._file.close()
        if exc_type is None and self._begun <= self._done:
            self._path.unlink(missing_ok=True)

    def begin(self, thread_id: str) -> None:
        """Records that a thread is being written."""
        if thread_id not in self._begun:
            self._begun.add(thread_id)
            self._note("begun", thread_id)

    def finish(self, thread_id: str) -> None:
        """Records that a thread is there, and was checked."""
        self._done.add(thread_id)
        self._note("done", thread_id)

    def _note(self, state: str, thread_id: str) -> None:
        self._file.write(json.dumps([state, thread_id]) + "\n")
        self._file.flush()
        os.fsync(self._file.fileno())

    def is_begun(self, thread_id: str) -> bool:
        """Returns whether the thread was begun and not finished: what the target has of it is this import's own."""
        return thread_id in self._begun and thread_id not in self._done

    def is_done(self, thread_id: str) -> bool:
        """Returns whether the thread is there."""
        return thread_id in self._done


def threads_of(source: ThreadSource, chosen: Sequence[str]) -> Threads:
    """Yields the threads of a source that can be read again: those that are chosen, or all."""
    for thread_id in chosen or source.thread_ids():
        read = partial(source.read, thread_id)
        yield MovableThread(thread_id, partial(source.describe, thread_id), read, partial(_read_digest, read))


def _read_digest(read: Callable[[], Iterator[CheckpointTuple]]) -> bytes:
    return digest_of(read()).result()


def threads_of_file(reader: ExportReader, chosen: Sequence[str], digests: Mapping[str, bytes]) -> Threads:
    """Yields the threads of a file, each of which can be read once: those that are chosen, or all.

    Args:
        reader: Reads the file.
        chosen: The threads that are wanted. None: all.
        digests: What is known of the contents. Empty: nothing.
    """
    missing = set(chosen)
    for thread, checkpoints in reader.threads():
        thread_id = thread.thread_id
        if not chosen or thread_id in missing:
            missing.discard(thread_id)
            read, digest = partial(_itself, checkpoints), partial(digests.get, thread_id)
            yield MovableThread(thread_id, partial(_itself, thread), read, digest)
    if missing:
        raise MoveError(f"the file has no thread {min(missing)!r}")


def _itself(found: Found) -> Found:
    return found


def export_threads(threads: Threads, target: ExportWriter, *, redact: bool, progress: Progress) -> Report:
    """Writes threads that aren't there yet.

    Args:
        threads: The threads.
        target: Takes them, each whole or not at all.
        redact: Whether to leave values out.
        progress: Told of each checkpoint that was read.
    """
    report = Report()
    for thread in threads:
        thread_id = thread.thread_id
        if thread_id in target.done:
            report.there += 1
            continue
        try:
            digest = _copy_steadily(thread, target, redact=redact, progress=progress)
        except MoveError as error:
            report.failed[thread_id] = str(error)
            continue
        _count(report, digest)
    return report


def _copy_steadily(
    thread: MovableThread, target: ExportWriter | ThreadTarget, *, redact: bool, progress: Progress
) -> ThreadDigest:
    """Copies a thread as it is at one moment: reads it again where somebody has changed it meanwhile."""
    for left in range(READS - 1, -1, -1):
        try:
            return _copy(thread, target, redact=redact, progress=progress)
        except ThreadChanged:
            if not left:
                raise
    raise AssertionError("the last try returns or raises")


def _copy(
    thread: MovableThread, target: ExportWriter | ThreadTarget, *, redact: bool, progress: Progress
) -> ThreadDigest:
    digest = ThreadDigest()
    checkpoints = thread.read()
    first = next(checkpoints, None)
    if first is None:
        raise MoveError(f"there is no thread {thread.thread_id!r}")
    described = thread.describe()
    if redact:
        described.ClearField("tags")
    with target.writing(described) as writer:
        checkpoint: CheckpointTuple | None = first
        while checkpoint is not None:
            if redact:
                checkpoint = redacted(checkpoint)
            digest.add(checkpoint)
            writer.write(checkpoint)
            progress(1)
            checkpoint = next(checkpoints, None)
    return digest


def import_threads(
    threads: Threads,
    target: ThreadTarget,
    journal: Journal,
    *,
    replace: bool,
    progress: Progress,
) -> Report:
    """Writes threads into a target, and checks each by reading it back.

    Args:
        threads: The threads.
        target: Takes them.
        journal: Says how far it came before.
        replace: Whether threads that the target has already, with other contents, are deleted first.
        progress: Told of each checkpoint that was written.
    """
    report = Report()
    for thread in threads:
        if journal.is_done(thread.thread_id):
            report.there += 1
            continue
        try:
            _import(thread, target, journal, report, replace=replace, progress=progress)
        except ExportFileError:
            raise
        except MoveError as error:
            report.failed[thread.thread_id] = str(error)
    return report


def _import(
    thread: MovableThread, target: ThreadTarget, journal: Journal, report: Report, *, replace: bool, progress: Progress
) -> None:
    thread_id = thread.thread_id
    if target.holds(thread_id) and not journal.is_begun(thread_id):
        if thread.digest() == digest_of(target.read(thread_id)).result():
            report.there += 1
            return
        if not replace:
            raise MoveError(f"thread {thread_id!r} is there already, with other contents; --replace deletes it first")
        target.delete(thread_id)
    journal.begin(thread_id)
    digest = _copy_steadily(thread, target, redact=False, progress=progress)
    found = digest_of(target.read(thread_id))
    if found.result() != digest.result():
        raise MoveError(
            f"thread {thread_id!r} reads back as something else: {found.checkpoints} checkpoints and {found.writes} "
            f"writes, where {digest.checkpoints} and {digest.writes} were written"
        )
    journal.finish(thread_id)
    _count(report, digest)


def digest_of(checkpoints: Iterator[CheckpointTuple]) -> ThreadDigest:
    """Returns the digest of a thread."""
    digest = ThreadDigest()
    for checkpoint in checkpoints:
        digest.add(checkpoint)
    return digest


def _count(report: Report, digest: ThreadDigest) -> None:
    report.threads += 1
    report.checkpoints += digest.checkpoints
    report.writes += digest.writes
