"""The system's limit on open files and connections of this process."""

from __future__ import annotations

import resource

import structlog

RESERVED = 64
"""Descriptors reserved for files, event loops, pipes, and shutting down connections."""

_log = structlog.get_logger(__name__)


def raise_limit() -> int:
    """Raises this process's limit of open files as far as the system allows, and returns it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
            soft = hard
        except (ValueError, OSError):  # macOS doesn't accept an unlimited number
            pass
    return 2**31 - 1 if soft == resource.RLIM_INFINITY else soft


def room_for_clients(wanted: int, *, database_connections: int) -> int:
    """Returns how many client connections there is room for, and warns if that is fewer than wanted.

    Args:
        wanted: The maximum number of client connections.
        database_connections: The maximum number of database connections.
    """
    limit = raise_limit()
    # Besides the pool's connections, some are closing, and one cancels statements.
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
