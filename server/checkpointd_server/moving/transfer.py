"""Moving threads from a source to a target, one by one, with checks, and resumable."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial

from checkpointd.v1.values_pb2 import CheckpointTuple
from checkpointd_server.moving.content import (
    Checkpoints,
    MovableThread,
    MoveError,
    ThreadChanged,
    ThreadDigest,
    ThreadSource,
    ThreadTarget,
    digest_of,
    is_part,
    redacted,
)
from checkpointd_server.moving.export_file import ExportFileError, ExportWriter, FileNotWritten
from checkpointd_server.moving.journal import Journal, JournalLost, Stamps
from checkpointd_server.moving.quotas import QuotaUsedUp

READS = 5
"""Number of attempts to read a thread that others keep changing."""

Threads = Iterable[MovableThread]
Progress = Callable[[int], None]
"""Called with the number of further checkpoints moved."""


class NoSuchThread(MoveError):
    """There is no such thread, or it was deleted."""


@dataclass(kw_only=True)
class Report:
    """Outcome of a move."""

    threads: int = 0
    """How many threads were moved."""
    checkpoints: int = 0
    """How many checkpoints they have."""
    writes: int = 0
    """How many task writes."""
    there: int = 0
    """How many threads were moved before, or already exist in the target unchanged."""
    again: int = 0
    """How many threads and items of an interrupted export were changed or deleted since."""
    failed: dict[str, str] = field(default_factory=dict)
    """Threads that were not moved, and why."""
    items: int = 0
    """How many items were moved."""
    items_there: int = 0
    """How many items were moved before, or already exist in the target unchanged."""
    items_expired: int = 0
    """How many items have expired since they were exported."""
    failed_items: dict[str, str] = field(default_factory=dict)
    """Items that were not moved, and why."""
    stopped: str = ""
    """The reason why it stopped before its end. Empty: it didn't."""


def threads_of(source: ThreadSource, chosen: Sequence[str]) -> Threads:
    """Yields the selected threads of a source, or all."""
    for thread_id in chosen or source.thread_ids():
        read = partial(source.read, thread_id)
        yield MovableThread(
            thread_id,
            partial(source.describe, thread_id),
            read,
            partial(_read_digest, read),
            partial(source.stamp, thread_id),
        )


def _read_digest(read: Callable[[], Checkpoints]) -> bytes:
    return digest_of(read()).result()


def export_threads(
    threads: Threads, target: ExportWriter, report: Report, *, redact: bool, all_threads: bool, progress: Progress
) -> None:
    """Writes threads that the target lacks.

    Args:
        threads: The threads.
        target: Receives each of them entirely or not at all.
        report: Gets the outcome of each.
        redact: Whether to leave values out.
        all_threads: Whether all threads are exported: then one that is deleted in the meantime isn't missing.
        progress: Called for each checkpoint that was read.

    Raises:
        FileNotWritten: The target can't be written.
    """
    for thread in threads:
        if thread.thread_id in target.has.threads:
            report.there += 1
            continue
        try:
            digest = _copy_steadily(thread, target, redact=redact, progress=progress)
        except FileNotWritten:
            raise
        except NoSuchThread as error:
            if not all_threads:
                report.failed[thread.thread_id] = str(error)
        except MoveError as error:
            report.failed[thread.thread_id] = str(error)
        else:
            _count(report, digest)


def _copy_steadily(
    thread: MovableThread, target: ExportWriter | ThreadTarget, *, redact: bool, progress: Progress
) -> ThreadDigest:
    """Copies a consistent snapshot of a thread: reads it again if it was changed in the meantime."""
    for left in range(READS - 1, -1, -1):
        try:
            with closing(thread.read()) as checkpoints:
                return _copy(thread, checkpoints, target, redact=redact, progress=progress)
        except ThreadChanged:
            if not left:
                raise
    raise AssertionError("the last try returns or raises")


def _copy(
    thread: MovableThread,
    checkpoints: Iterator[CheckpointTuple],
    target: ExportWriter | ThreadTarget,
    *,
    redact: bool,
    progress: Progress,
) -> ThreadDigest:
    digest = ThreadDigest()
    first = next(checkpoints, None)
    if first is None:
        raise NoSuchThread(f"there is no thread {thread.thread_id!r}")
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


class ThreadImport:
    """Writes threads to a target, and checks each by reading it back.

    Args:
        target: Their target.
        journal: The progress so far.
        report: Gets the outcome of each.
        replace: Whether to delete existing threads that differ.
        progress: Called for each checkpoint that was written.
    """

    def __init__(
        self, target: ThreadTarget, journal: Journal, report: Report, *, replace: bool, progress: Progress
    ) -> None:
        self._target = target
        self._journal = journal
        self._report = report
        self._replace = replace
        self._progress = progress

    def take(self, thread: MovableThread) -> None:
        """Moves a thread, or reports why it can't be moved.

        Raises:
            ExportFileError: The source file is corrupt.
            QuotaUsedUp: The target's quota is used up.
            JournalLost: Progress can't be recorded.
        """
        try:
            if self._is_done(thread) or self._is_there(thread):
                self._report.there += 1
            else:
                self._move(thread)
        except (ExportFileError, QuotaUsedUp, JournalLost):
            raise
        except MoveError as error:
            self._report.failed[thread.thread_id] = str(error)

    def _is_done(self, thread: MovableThread) -> bool:
        """Returns whether the thread was moved before and is unchanged on both sides."""
        stamps = self._journal.stamps(thread.thread_id)
        return stamps is not None and stamps == (thread.stamp(), self._target.stamp(thread.thread_id))

    def _is_there(self, thread: MovableThread) -> bool:
        """Returns whether the target already has the thread. Deletes what else the target has of it.

        Raises MoveError if that isn't allowed.
        """
        thread_id, target = thread.thread_id, self._target
        if not target.holds(thread_id):
            return False
        stamps = Stamps(thread.stamp(), target.stamp(thread_id))
        is_begun = self._journal.is_begun(thread_id)
        if thread.digest() == digest_of(target.read(thread_id)).result():
            if is_begun:
                with target.writing(thread.describe()):
                    pass  # tags, pin and time to live
                stamps = stamps._replace(target=target.stamp(thread_id))
            self._journal.finish(thread_id, stamps)
            return True
        if is_begun:
            with closing(target.read(thread_id)) as found, closing(thread.read()) as whole:
                if is_part(found, whole):
                    return False  # where this import was interrupted
        if not self._replace:
            raise MoveError(f"thread {thread_id!r} is there already, with other contents; --replace deletes it first")
        target.delete(thread_id)
        return False

    def _move(self, thread: MovableThread) -> None:
        thread_id = thread.thread_id
        before = thread.stamp()
        self._journal.begin(thread_id)
        digest = _copy_steadily(thread, self._target, redact=False, progress=self._progress)
        stamps = Stamps(before, self._target.stamp(thread_id))
        found = digest_of(self._target.read(thread_id))
        if found.result() != digest.result():
            raise MoveError(
                f"thread {thread_id!r} reads back as something else: {found.checkpoints} checkpoints and "
                f"{found.writes} writes, where {digest.checkpoints} and {digest.writes} were written"
            )
        self._journal.finish(thread_id, stamps)
        _count(self._report, digest)


def _count(report: Report, digest: ThreadDigest) -> None:
    report.threads += 1
    report.checkpoints += digest.checkpoints
    report.writes += digest.writes
