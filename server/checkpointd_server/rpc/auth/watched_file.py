"""A file that is read again when it has changed, without a restart."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

import structlog

from checkpointd_server.domain.errors import SetupError

T = TypeVar("T")

Fingerprint = tuple[int, int, int] | None

_log = structlog.get_logger("checkpointd.auth")


def fingerprint(path: Path) -> Fingerprint:
    """Returns what changes with a file's contents, also where a link is led to another. None: it isn't there."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_mtime_ns, found.st_ino, found.st_size


class WatchedFile(Generic[T]):
    """The contents of a file. When it changes to something that can't be used, the contents before stay in force.

    Args:
        path: The file.
        what: What it holds, for messages, e.g. "the keys file".
        parse: Reads its contents; raises ValueError with what is wrong, in words that repeat no secret.

    Raises:
        SetupError: It can't be used as it is.
    """

    def __init__(self, path: Path, what: str, parse: Callable[[bytes], T]) -> None:
        self.path = path
        self._what = what
        self._parse = parse
        self._used = self._seen = fingerprint(path)
        self.content = self._read()

    def _read(self) -> T:
        try:
            return self._parse(self.path.read_bytes())
        except OSError as error:
            raise SetupError(f"{self._what} {self.path} can't be read: {error.strerror}") from None
        except ValueError as error:
            raise SetupError(f"{self._what} {self.path} can't be used: {error}") from None

    def refresh(self) -> bool:
        """Reads the file again if it has changed, and not since the last time. Returns whether it says something new.

        A file that changes between two looks may be half written: of keys, the half without the last ones can be used.
        """
        found, before = fingerprint(self.path), self._seen
        self._seen = found
        if found != before or found == self._used:
            return False
        self._used = found
        try:
            self.content = self._read()
        except SetupError as error:
            _log.error("a changed file is not used; what it said before stays in force", reason=str(error))
            return False
        _log.info("read again", file=str(self.path), what=self._what)
        return True
