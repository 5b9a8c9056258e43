"""State of the database's disk space."""

from __future__ import annotations

from time import monotonic

HOLD_SECONDS = 5.0
"""Time without a failed write after which the disk counts as not full, in seconds. It matters if tables are on another
disk than temporary files, which the check writes."""


class DiskSpace:
    """Remembers whether a write found the disk full. Health checks test for free space then, until there is some.

    Args:
        hold: Time without a failed write after which the disk counts as not full, in seconds.
    """

    def __init__(self, *, hold: float = HOLD_SECONDS) -> None:
        self._hold = hold
        self._refused_at: float | None = None

    @property
    def is_full(self) -> bool:
        """True if the disk was full when last checked."""
        return self._refused_at is not None

    def mark_full(self) -> None:
        """Records that a write failed because the disk is full."""
        self._refused_at = monotonic()

    def mark_free(self) -> None:
        """Records that something could be written."""
        if self._refused_at is not None and monotonic() - self._refused_at >= self._hold:
            self._refused_at = None
