"""Progress of an import, recorded in a file, so the next run resumes there."""

from __future__ import annotations

import fcntl
import json
import os
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple, Self

from checkpointd_server.moving.content import MoveError, shown

_FORMAT = "checkpointd import progress 1"


class Subject(NamedTuple):
    """Source and target of an import, as unique names."""

    source: str
    target: str

    def default_path(self, command: str) -> Path:
        """Returns the default file of its progress."""
        digest = sha256("\0".join(self).encode("utf-8", "surrogatepass")).hexdigest()[:12]
        return Path(f"checkpointd-{command}-{digest}.progress")


class Stamps(NamedTuple):
    """The stamps of a thread on both sides when it was moved and checked."""

    source: str
    target: str


class Journal:
    """Record of the threads that an import has begun, and of those that it has moved.

    It is a file of JSON lines: the first names source and target, each further one records a thread. An incomplete last
    line was left by a killed process, and is ignored.

    Args:
        path: The file. It is removed at the end.
        subject: Source and target. A journal of others is refused.
    """

    def __init__(self, path: Path, subject: Subject) -> None:
        self._path = path
        self._subject = subject
        self._done: dict[str, Stamps] = {}
        self._begun: set[str] = set()
        self.is_interrupted = False
        """True if the import stops before its end, to be resumed later."""

    def __enter__(self) -> Self:
        try:
            self._file = self._path.open("a+", encoding="ascii")
        except OSError as error:
            raise self._unusable(error.strerror or type(error).__name__) from None
        try:
            self._lock()
            self._load()
        except BaseException:
            self._file.close()
            raise
        return self

    def __exit__(self, exc_type: object, *rest: object) -> None:
        is_over = exc_type is None and not self._begun and not self.is_interrupted
        if is_over or not (self._begun or self._done):
            self._path.unlink(missing_ok=True)
        self._file.close()

    def _lock(self) -> None:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise self._unusable("another import uses it") from None

    def _load(self) -> None:
        self._file.seek(0)
        try:
            content = self._file.read()
        except (OSError, ValueError):
            raise self._unusable("it is no such file") from None
        lines = content.split("\n")[:-1]
        complete = sum(len(line) + 1 for line in lines)
        try:
            if lines:
                self._check_subject(json.loads(lines[0]))
            for line in lines[1:]:
                self._read(*json.loads(line))
        except (ValueError, TypeError, KeyError):
            raise self._unusable("it is no such file, or damaged") from None
        head = json.dumps({"format": _FORMAT, **self._subject._asdict()})
        if not lines and not head.startswith(content):
            raise self._unusable("it is no such file")
        self._file.truncate(complete)
        if not lines:
            self._write_line(head)

    def _check_subject(self, head: dict[str, str]) -> None:
        if head["format"] != _FORMAT:
            raise ValueError
        for field, wanted in self._subject._asdict().items():
            if head[field] != wanted:
                way = {"source": "from", "target": "into"}[field]
                raise MoveError(
                    f"{shown(self._path)} says how far an import {way} {head[field]} came, and this one is {way} "
                    f"{wanted}: name another file by --progress-file, or remove it if that import needn't go on"
                )

    def _read(self, state: str, thread_id: str, *stamps: str) -> None:
        if state == "done":
            self._done[thread_id] = Stamps(*stamps)
            self._begun.discard(thread_id)
        else:
            self._done.pop(thread_id, None)
            self._begun.add(thread_id)

    def _unusable(self, problem: str) -> MoveError:
        return MoveError(f"{shown(self._path)}, which says how far an import came, can't be used: {problem}")

    def _write(self, content: object) -> None:
        self._write_line(json.dumps(content))

    def _write_line(self, line: str) -> None:
        try:
            self._file.write(line + "\n")
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as error:
            raise JournalLost(
                f"can't write {shown(self._path)}: {error.strerror}; run the same command again to continue"
            ) from None

    def begin(self, thread_id: str) -> None:
        """Records that a thread is being written. Raises JournalLost."""
        if thread_id not in self._begun:
            self._read("begun", thread_id)
            self._write(["begun", thread_id])

    def finish(self, thread_id: str, stamps: Stamps) -> None:
        """Records that a thread was moved and checked. Raises JournalLost."""
        self._read("done", thread_id, *stamps)
        self._write(["done", thread_id, *stamps])

    def is_begun(self, thread_id: str) -> bool:
        """Returns whether the thread was begun and not finished."""
        return thread_id in self._begun

    def stamps(self, thread_id: str) -> Stamps | None:
        """Returns the stamps of a thread when it was moved, or None."""
        return self._done.get(thread_id)


class JournalLost(MoveError):
    """Progress can't be recorded, so the import stops."""
