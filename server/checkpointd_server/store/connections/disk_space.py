"""Room on the database's disk: what was seen of it."""

from __future__ import annotations

from time import monotonic

HOLD_SECONDS = 5.0
"""How long no write must have been refused before there is taken to be room, in seconds. It matters where tables lie on
another disk than temporary files, by which room is looked for."""


class DiskSpace:
    """Remembers whether a write found no room. Who asks for health looks for room then, until there is some.

    Args:
        hold: How long none must have been refused before there is taken to be room, in seconds.
    """

    def __init__(self, *, hold: float = HOLD_SECONDS) -> None:
        self._hold = hold
        self._refused_at: float | None = None

    @property
    def is_full(self) -> bool:
        """True if there was none when it was last seen."""
        return self._refused_at is not None

    def mark_full(self) -> None:
        """Records that a write was refused because the disk is full."""
        self._refused_at = monotonic()

    def mark_free(self) -> None:
        """Records that there was room for something."""
        if self._refused_at is not None and monotonic() - self._refused_at >= self._hold:
            self._refused_at = None
