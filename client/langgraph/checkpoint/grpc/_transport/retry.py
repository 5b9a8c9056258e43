"""Retries: whether a failed call is repeated, and when.

Every write of the saver may be repeated after a lost answer, so one rule applies to all calls. Temporary failures are
retried until the budget is used up: no server answers (UNAVAILABLE), the server is overloaded or says when to retry
(RESOURCE_EXHAUSTED), or an attempt timed out. All others are final.
"""

from __future__ import annotations

import logging
import time
from random import SystemRandom

from langgraph.checkpoint.grpc._transport.rpc_errors import error_info, from_rpc_error, is_away, retry_delay
from langgraph.checkpoint.grpc.errors import InvalidArgumentError, ServerUnavailableError
from langgraph.checkpoint.grpc.options import ClientOptions
from langgraph.checkpoint.grpc.tls import are_unusable, why_it_fails, why_it_may_fail

import grpc

logger = logging.getLogger("langgraph.checkpoint.grpc")

FIRST_PAUSE = 0.05
"""How long to wait before the first retry, in seconds; doubled each time."""
TLS_ATTEMPTS = 3
"""Number of attempts to connect if TLS fails in a way that retries don't fix."""
LONGEST_PAUSE = 1.0
"""Maximum pause between retries, in seconds. A server may ask for more."""


class Attempts:
    """The attempts of one call: decides after each failure whether to try again, and when.

    Args:
        options: The saver's options.
        method: The RPC, for messages.
        retry_budget: For how long to try again, in seconds. Default: the saver's.
        timeout: How long one attempt may take, in seconds. Default: the saver's.
        begun: When the call was made, on the monotonic clock. Default: now.
    """

    def __init__(
        self,
        options: ClientOptions,
        method: str,
        retry_budget: float | None = None,
        *,
        timeout: float | None = None,
        begun: float | None = None,
    ) -> None:
        self._options = options
        self._method = method
        self._retry_budget = options.retry_budget if retry_budget is None else retry_budget
        self._timeout = timeout or options.timeout
        self._pause = FIRST_PAUSE
        self._begun = self._attempted = time.monotonic() if begun is None else begun
        self._deadline: float | None = None
        self._explained: str | None = None
        self._failed_over_tls = 0

    def attempt(self, at: float | None = None) -> None:
        """Records that an attempt begins, or began at a time on the monotonic clock."""
        self._attempted = time.monotonic() if at is None else at

    def pause_after(self, error: grpc.RpcError, *, quiet: bool = False) -> float:
        """Returns how long to wait before the next attempt, in seconds; raises if there should be none.

        Args:
            error: Why the last one failed.
            quiet: Whether retries have just been logged elsewhere.
        """
        code = error.code()
        now = time.monotonic()
        if are_unusable(error):
            raise InvalidArgumentError(
                "tls: grpc can't use TlsOptions: does private_key belong to certificate_chain, and is all of it PEM?",
                field="tls",
            ) from error
        if code is grpc.StatusCode.DEADLINE_EXCEEDED:
            # Of the whole call, not only of its retries: with a long timeout one attempt may be all there is time for.
            # If the database gave up long before our timeout, the call is too expensive, and would fail again.
            own = now - self._attempted >= 0.9 * self._timeout
            if own and now < self._begun + self._retry_budget:
                self._begin_retries(error, self._begun, quiet)
                return 0.0
            raise from_rpc_error(error, target=self._options.target, method=self._method) from error
        hint = retry_delay(error)
        overloaded = code is grpc.StatusCode.RESOURCE_EXHAUSTED and (
            hint is not None or error_info(error).reason == "OVERLOADED"
        )
        if not overloaded and not is_away(error):
            raise from_rpc_error(error, target=self._options.target, method=self._method) from error
        deadline = self._begin_retries(error, now, quiet)
        self._failed_over_tls += why_it_fails(error) is not None
        if now >= deadline or self._failed_over_tls >= TLS_ATTEMPTS:
            raise self._unavailable(error, overloaded) from error
        pause = self._pause * SystemRandom().uniform(0.5, 1.0)
        self._pause = min(self._pause * 2, LONGEST_PAUSE)
        if hint is not None:
            # Not before the server's time, and with jitter.
            pause = max(pause, hint * SystemRandom().uniform(1.0, 1.5))
        # The last attempt is made at the end of the budget, not before.
        return min(pause, deadline - now)

    def _begin_retries(self, error: grpc.RpcError, since: float, quiet: bool) -> float:
        """Returns until when to try again."""
        self._explained = self._explained or why_it_fails(error)
        if self._deadline is None:
            self._deadline = since + self._retry_budget
            if self._retry_budget and not quiet:
                logger.warning(
                    "checkpointd at %s %s; trying again %s (%s)",
                    self._options.target,
                    _state_of(error),
                    f"{TLS_ATTEMPTS - 1} times" if self._explained else f"for {self._retry_budget:g} s",
                    self._explained or why_it_may_fail(error, self._options.tls) or error.details(),
                )
        return self._deadline

    def _unavailable(self, error: grpc.RpcError, overloaded: bool) -> ServerUnavailableError:
        target, budget = self._options.target, f"within {self._retry_budget:g} s of retries"
        if overloaded:
            return ServerUnavailableError(
                f"checkpointd at {target} {_state_of(error)}, and didn't take {self._method} {budget}: "
                f"{error.details()}"
            )
        # What is only probable counts if it was so to the end: a server that restarts closes connections too.
        if error_info(error).reason:  # a server is there, and says itself why it can't
            return ServerUnavailableError(f"checkpointd at {target} couldn't answer {budget}: {error.details()}")
        explained = self._explained or why_it_may_fail(error, self._options.tls)
        if self._failed_over_tls >= TLS_ATTEMPTS:
            budget = f"after {TLS_ATTEMPTS} attempts"
        if explained:
            return ServerUnavailableError(f"no checkpointd answered at {target} {budget}: {explained}")
        return ServerUnavailableError(
            f"no checkpointd answered at {target} {budget} "
            f"({error.details()}). Is it running, and is the target right? `checkpointd serve` starts one."
        )


def _state_of(error: grpc.RpcError) -> str:
    """Returns what a failure that is worth another try says of the server."""
    info = error_info(error)
    if info.reason == "QUOTA_EXCEEDED":
        return f"throttles this tenant to its quota of {info.metadata.get('limit', 'fewer')} calls a second"
    if error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED:
        return "has too much to do"
    return "is unavailable"
