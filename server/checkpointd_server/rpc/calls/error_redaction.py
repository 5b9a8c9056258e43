"""Redaction of errors for the log: it keeps places and types, but not messages.

An error's message may contain a client's data: those of the database driver quote rows and values.
"""

from __future__ import annotations

import traceback

from checkpointd_server.domain.errors import CheckpointdError


def error_type(error: BaseException) -> str:
    """Returns an error's type, with PostgreSQL's code if it has one."""
    sqlstate = getattr(error, "sqlstate", None)
    return f"{type(error).__name__} (SQLSTATE {sqlstate})" if sqlstate else type(error).__name__


def format_redacted_traceback(error: BaseException) -> str:
    """Returns the traceback of an error and its causes, in Python's order."""
    parts: list[str] = []
    seen: set[int] = set()
    link: BaseException | None = error
    while link is not None and id(link) not in seen:
        seen.add(id(link))
        # Our own messages are written for clients, and contain no values.
        words = f": {link}" if isinstance(link, CheckpointdError) else ""
        parts.append("".join(traceback.format_tb(link.__traceback__)) + error_type(link) + words)
        link = link.__cause__ or (None if link.__suppress_context__ else link.__context__)
    return "\n".join(reversed(parts))
