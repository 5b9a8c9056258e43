"""A file that is reloaded when it changes."""

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
    """Returns a value that changes with a file's contents, even through a symbolic link. None: there is no file."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_mtime_ns, found.st_ino, found.st_size


class WatchedFile(Generic[T]):
    """The parsed contents of a file. If it becomes invalid, the previous contents stay in force.

    Args:
        path: The file.
        what: Its name in messages, e.g. "the keys file".
        parse: Parses its contents. Raises ValueError with a message that contains no secrets.

    Raises:
        SetupError: It can't be read or parsed.
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
        """Reloads the file if it has changed, but not since the last check. Returns whether its contents changed.

        A file that changes between two checks may be half written, and half a file of keys can be valid.
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
