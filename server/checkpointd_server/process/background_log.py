"""A log writer in its own thread: a log that isn't read doesn't block the callers."""

from __future__ import annotations

import logging
import os
import threading
from contextlib import suppress
from typing import TextIO

MOST_LINES = 10_000
"""Maximum number of lines waiting to be written. Further lines are dropped and counted."""
MOST_CHARACTERS = 8 * 1024 * 1024
"""Maximum number of characters in these lines."""
FLUSH_SECONDS = 2.0
"""Default time that the process waits at exit until everything is written, in seconds."""


class BackgroundHandler(logging.Handler):
    """Writes lines to a stream in order, without blocking the callers.

    Args:
        stream: The stream to write to.
        flush_seconds: How long `flush` waits, in seconds.
    """

    def __init__(self, stream: TextIO, *, flush_seconds: float = FLUSH_SECONDS) -> None:
        super().__init__()
        self._stream = stream
        self._flush_seconds = flush_seconds
        self._descriptor: int | None = None
        with suppress(OSError, ValueError):
            self._descriptor = stream.fileno()
        self._changed = threading.Condition()
        self._lines: list[str] = []
        self._held = self._characters = 0
        self._dropped = 0
        self._thread: threading.Thread | None = None

    def emit(self, record: logging.LogRecord) -> None:
        """Queues a line. It is formatted at once, because its arguments may change."""
        try:
            line = self.format(record) + "\n"
        except Exception:
            self.handleError(record)
            return
        with self._changed:
            if self._held >= MOST_LINES or self._characters + len(line) > MOST_CHARACTERS:
                self._dropped += 1
                return
            self._lines.append(line)
            self._held += 1
            self._characters += len(line)
            if self._thread is None:
                # A daemon thread: a log that isn't read must not keep the process from exiting.
                self._thread = threading.Thread(target=self._run, name="log", daemon=True)
                self._thread.start()
            self._changed.notify_all()

    def flush(self) -> None:
        """Waits a short time until all lines are written."""
        with self._changed:
            self._changed.wait_for(lambda: not self._held, self._flush_seconds)

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._lines)
                lines, self._lines = self._lines, []
                dropped, self._dropped = self._dropped, 0
            text = "".join([*lines, self._tell_dropped(dropped)] if dropped else lines)
            with suppress(OSError, ValueError):  # the reader is gone
                self._write(text)
            with self._changed:
                self._held -= len(lines)
                self._characters -= sum(map(len, lines))
                self._changed.notify_all()

    def _tell_dropped(self, number: int) -> str:
        message = f"{number} lines of the log were dropped: they were not read as fast as they came"
        return self.format(logging.LogRecord(__name__, logging.WARNING, __file__, 0, message, None, None)) + "\n"

    def _write(self, text: str) -> None:
        if self._descriptor is None:
            self._stream.write(text)
            self._stream.flush()
            return
        # Not through the stream: the interpreter takes its lock at exit.
        data = text.encode(errors="backslashreplace")
        while data:
            data = data[os.write(self._descriptor, data) :]
