"""Retries of calls that a server rejects for the moment, or can't answer while it restarts."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from typing import Any

import grpc

from checkpointd_server.remote.refusals import Refusal

_UNANSWERED = frozenset(code.value[0] for code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED))
_EXHAUSTED = grpc.StatusCode.RESOURCE_EXHAUSTED.value[0]
_FINAL = frozenset({"MESSAGE_TOO_LARGE", "QUOTA_EXCEEDED"})
"""Reasons of RESOURCE_EXHAUSTED that waiting doesn't help with, unless the server says when to retry."""
_ADVICE = re.compile(r"[;:] send this again later$")


class Retries:
    """Decides when to retry a failed call, and when to give up.

    Args:
        tries: The maximum number of tries while the server can't answer.
        first_pause: How long to wait before the second try, in seconds. The wait doubles before each further try.
        max_wait: How long to wait in all if an overloaded server or a quota says when to retry, in seconds.
    """

    def __init__(self, *, tries: int = 8, first_pause: float = 0.1, max_wait: float = 300.0) -> None:
        self._tries_left = tries - 1
        self._pause = first_pause
        self._wait_left = max_wait

    def next_pause(self, refusal: Refusal) -> float | None:
        """Returns the seconds after which to retry the call. None: don't retry."""
        if refusal.code == _EXHAUSTED:
            if refusal.retry_after is not None:
                if refusal.retry_after > self._wait_left:
                    return None
                self._wait_left -= refusal.retry_after
                return refusal.retry_after
            if refusal.reason in _FINAL:
                return None
        elif refusal.code not in _UNANSWERED:
            return None
        if not self._tries_left:
            return None
        self._tries_left -= 1
        pause, self._pause = self._pause, self._pause * 2
        return max(pause, refusal.retry_after or 0.0)


class RetryInterceptor(grpc.UnaryUnaryClientInterceptor):  # type: ignore[misc]  # no types
    """Retries unary calls.

    If a server has never answered, calls aren't retried: there may be no server.

    Args:
        make_retries: Returns the retries of a call.
        tell: Called once, before the first wait for an overloaded server or a quota, with the reason of the wait.
    """

    def __init__(self, make_retries: Callable[[], Retries], tell: Callable[[str], None]) -> None:
        self._make_retries = make_retries
        self._tell: Callable[[str], None] | None = tell
        self._has_answered = False

    def intercept_unary_unary(self, continuation: Any, details: Any, request: Any) -> Any:
        """Makes a call, and retries it after each pause until it succeeds or a retry makes no sense."""
        retries = self._make_retries()
        while True:
            outcome = continuation(details, request)
            error = outcome.exception()
            if not isinstance(error, grpc.RpcError):
                self._has_answered = True
                return outcome
            refusal = Refusal.of_call(error)
            if refusal.code not in _UNANSWERED:
                self._has_answered = True
            pause = retries.next_pause(refusal) if self._has_answered else None
            if pause is None:
                return outcome
            if self._tell is not None and refusal.code == _EXHAUSTED:
                self._tell(_ADVICE.sub("", refusal.message))
                self._tell = None
            time.sleep(pause)
