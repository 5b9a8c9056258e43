"""Log lines that say the same again and again: the first are written, the others counted."""

from __future__ import annotations

import asyncio
import logging
from time import monotonic
from typing import Any

PERIOD_SECONDS = 10.0
"""For how long lines are counted before the log is told their number."""
FIRST_LINES = 10
"""How many are written in each period, before they are counted."""
MOST_KINDS = 256
"""How many kinds of lines are told apart."""


def is_enabled(log: Any, level: int) -> bool:
    """Returns whether lines of a level are written: structlog's loggers call that by one name or the other."""
    ask = getattr(log, "isEnabledFor", None) or log.is_enabled_for
    return bool(ask(level))


class _Kind:
    __slots__ = ("event", "level", "number", "since")

    def __init__(self, level: int, event: str, since: float) -> None:
        self.level = level
        self.event = event
        self.since = since
        self.number = 0


class RateLimitedLog:
    """Writes lines, but of those of one kind only the first in each period, and how many more there were.

    Args:
        log: Where to.
        first: How many lines of a kind are written in each period.
    """

    def __init__(self, log: Any, *, first: int = FIRST_LINES) -> None:
        self._log = log
        self._first = first
        self._kinds: dict[str, _Kind] = {}

    def warning(self, event: str, key: str, /, **fields: Any) -> None:
        """Writes a warning, or counts it."""
        self.log(logging.WARNING, event, key, **fields)

    def log(self, level: int, event: str, key: str, /, **fields: Any) -> None:
        """Writes a line, or counts it.

        Args:
            level: Its level.
            event: What has happened.
            key: Lines with the same one are of a kind. No client may be able to make up keys.
            fields: What belongs to it, whatever its names: a request's fields may be among them.
        """
        if not is_enabled(self._log, level):
            return
        now = monotonic()
        kind = self._kinds.get(key)
        if kind is not None and now - kind.since >= PERIOD_SECONDS:
            self._tell(key, kind)
            kind = None
        if kind is None:
            if len(self._kinds) >= MOST_KINDS:
                self.flush()
            kind = self._kinds[key] = _Kind(level, event, now)
        kind.number += 1
        if kind.number <= self._first:
            self._log.log(level, event, **fields)
        elif kind.number == self._first + 1:
            asyncio.get_running_loop().call_later(PERIOD_SECONDS, self._sweep)

    def flush(self) -> None:
        """Writes how many lines were counted, and forgets them."""
        for key, kind in self._kinds.items():
            self._tell(key, kind)
        self._kinds.clear()

    def _sweep(self) -> None:
        """Writes how many lines were counted of the kinds whose period is over, and forgets these."""
        now = monotonic() + 1.0  # a timer may be early by a little
        for key, kind in list(self._kinds.items()):
            if now - kind.since >= PERIOD_SECONDS:
                self._tell(key, kind)
                del self._kinds[key]

    def _tell(self, key: str, kind: _Kind) -> None:
        more = kind.number - self._first
        if more > 0:
            self._log.log(kind.level, f"{kind.event}, again and again", kind=key, times=more)
