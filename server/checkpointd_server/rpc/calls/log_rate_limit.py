"""Rate limits for repeated log lines: the first ones are written, the others are only counted."""

from __future__ import annotations

import asyncio
import logging
from time import monotonic
from typing import Any

PERIOD_SECONDS = 10.0
"""Length of a period, after which the number of counted lines is logged, in seconds."""
FIRST_LINES = 10
"""How many lines of a kind are written in each period."""
MOST_KINDS = 256
"""Maximum number of kinds of lines."""


def is_enabled(log: Any, level: int) -> bool:
    """Returns whether lines of a level are written. The method's name differs between structlog's loggers."""
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
    """Writes the first lines of each kind in each period, and how many more there were.

    Args:
        log: The log to write to.
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
            event: The event.
            key: The kind of line. Clients must not be able to make up keys.
            fields: Its fields. They may have any names, such as those of a request.
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
        """Writes how many lines were counted, and resets the counts."""
        for key, kind in self._kinds.items():
            self._tell(key, kind)
        self._kinds.clear()

    def _sweep(self) -> None:
        """Writes the counts of kinds whose period is over, and resets them."""
        now = monotonic() + 1.0  # timers may be slightly early
        for key, kind in list(self._kinds.items()):
            if now - kind.since >= PERIOD_SECONDS:
                self._tell(key, kind)
                del self._kinds[key]

    def _tell(self, key: str, kind: _Kind) -> None:
        more = kind.number - self._first
        if more > 0:
            self._log.log(kind.level, f"{kind.event}, again and again", kind=key, times=more)
