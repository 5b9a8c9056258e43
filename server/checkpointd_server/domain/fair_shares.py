"""Fair shares: how tenants share a bound that is nearly used up.

As long as a tenth of a bound is free, everybody is let in. Beyond, who has at least its part of the whole is refused,
and the others are let in. The part is the bound, divided by those who asked just now or still hold something. Whoever
is the only one has all of it.
"""

from __future__ import annotations

RECENT_SECONDS = 10.0
"""For how long somebody who asks no more counts among those that share what there is."""
LOOK_SECONDS = 1.0
"""How often it is looked which these are, where that matters."""


def kept_free(limit: int) -> int:
    """Returns how much of a bound isn't given to who has its share already."""
    return max(limit // 10, 1) if limit > 1 else 0


def share(limit: int, sharers: int) -> int:
    """Returns the part of a bound that each of its sharers has."""
    return max(limit // max(sharers, 1), 1)


def room_for(limit: int, *, held: int, total: int, sharers: int) -> int:
    """Returns how much more of a bound one sharer gets. None of it: 0 or less.

    Args:
        limit: The bound.
        held: What the sharer holds of it.
        total: What all hold together.
        sharers: How many share it, two at least.
    """
    return max(share(limit, sharers) - held, limit - kept_free(limit) - total)
