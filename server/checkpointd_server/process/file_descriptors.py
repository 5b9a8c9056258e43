"""The limit of the system on open files and connections of this process."""

from __future__ import annotations

import resource

import structlog

RESERVED = 64
"""How many descriptors are kept for what isn't a connection: files, event loops, pipes, a shutdown of a connection."""

_log = structlog.get_logger(__name__)


def raise_limit() -> int:
    """Has the system let this process open as many files as it may ask for, and returns how many that are."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
            soft = hard
        except (ValueError, OSError):  # macOS has no such thing as no limit
            pass
    return 2**31 - 1 if soft == resource.RLIM_INFINITY else soft


def room_for_clients(wanted: int, *, database_connections: int) -> int:
    """Returns how many connections of clients there is room for, and warns if that is fewer than wanted.

    Args:
        wanted: How many there are to be at the most.
        database_connections: How many connections to the database there are at the most.
    """
    limit = raise_limit()
    # Beside those of the pool there are some that end, and one that looks after statements.
    room = max(limit - RESERVED - 2 * database_connections, 1)
    if room >= wanted:
        return wanted
    _log.warning(
        "fewer connections of clients than asked for: the system lets this process open few files",
        max_connections=room,
        asked_for=wanted,
        open_files_limit=limit,
    )
    return room
