"""gRPC's accept loop: the one task that accepts every call, and must not end before the server does.

It decodes the path of every call, and a path that isn't UTF-8 ends it with an error: after one such call, even without
a token, the server accepts no more calls. gRPC offers no hook before that. So Python's error handler for decoding is
replaced: it turns the path into one that no method has, and the call is answered like any call of an unknown method.
"""

from __future__ import annotations

import asyncio
import codecs
from typing import Any

from checkpointd_server.domain.errors import CheckpointdError


class DeafServer(CheckpointdError):
    """gRPC has stopped accepting calls because of an internal error. The process is useless now."""

    def __init__(self) -> None:
        super().__init__("gRPC has stopped to take calls, the log says why; start the server again")


_NAME = "_server_main_loop"


def accept_undecodable_paths() -> None:
    """Makes gRPC's accept loop replace what it can't decode. Other code still gets the error."""
    codecs.register_error("strict", _strict_but_for_paths)


def accept_loops() -> set[asyncio.Task[Any]]:
    """Returns the accept loops that run in this event loop."""
    return {task for task in asyncio.all_tasks() if _is_accept_loop(task)}


def _strict_but_for_paths(error: UnicodeError) -> tuple[str | bytes, int]:
    if isinstance(error, UnicodeDecodeError) and _in_accept_loop():
        return "\ufffd", error.end
    return codecs.strict_errors(error)


def _in_accept_loop() -> bool:
    try:
        task = asyncio.current_task()
    except RuntimeError:  # no event loop runs in this thread
        return False
    return task is not None and _is_accept_loop(task)


def _is_accept_loop(task: asyncio.Task[Any]) -> bool:
    return getattr(task.get_coro(), "__name__", "") == _NAME
