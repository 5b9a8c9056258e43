"""Fair shares: how tenants share a nearly exhausted limit.

As long as a tenth of a limit is free, everybody is admitted. Beyond, sharers that hold at least their share are
rejected, and others are admitted. The share is the limit divided by the number of recent and current sharers. A single
sharer gets all of it.
"""

from __future__ import annotations

RECENT_SECONDS = 10.0
"""How long an inactive sharer still counts, in seconds."""
LOOK_SECONDS = 1.0
"""How often the sharers are counted, if that matters, in seconds."""


def kept_free(limit: int) -> int:
    """Returns how much of a limit is reserved for those below their share."""
    return max(limit // 10, 1) if limit > 1 else 0


def share(limit: int, sharers: int) -> int:
    """Returns each sharer's share of a limit."""
    return max(limit // max(sharers, 1), 1)


def room_for(limit: int, *, held: int, total: int, sharers: int) -> int:
    """Returns how much more of a limit a sharer gets: nothing if 0 or less.

    Args:
        limit: The bound.
        held: How much the sharer holds.
        total: How much all hold together.
        sharers: The number of sharers, at least two.
    """
    return max(share(limit, sharers) - held, limit - kept_free(limit) - total)
