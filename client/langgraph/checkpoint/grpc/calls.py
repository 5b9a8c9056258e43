"""Calling the server: deadline, retries within a budget, errors in the saver's words. Once blocking, once awaiting.

Every write of the saver may be sent again after a lost answer, so one rule serves all calls. What waiting can mend is
tried again until the budget is used up: no server answers (UNAVAILABLE), the server has too much to do, or it says by
itself when to come back (RESOURCE_EXHAUSTED), or an attempt's own time ran out. Everything else is final.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from random import SystemRandom
from typing import Any

from langgraph.checkpoint.grpc.batching import Request
from langgraph.checkpoint.grpc.channels import Channels, Stubs
from langgraph.checkpoint.grpc.errors import (
    CheckpointdError,
    InvalidArgumentError,
    ServerUnavailableError,
    error_info,
    from_rpc_error,
    is_away,
    retry_delay,
)
from langgraph.checkpoint.grpc.options import ClientOptions
from langgraph.checkpoint.grpc.runs import UnderWay
from langgraph.checkpoint.grpc.tls import are_unusable, why_it_fails, why_it_may_fail

import grpc
from checkpointd.v1.checkpoint_service_pb2 import GetCheckpointRequest

logger = logging.getLogger("langgraph.checkpoint.grpc")

FIRST_PAUSE = 0.05
"""How long to wait before the first retry, in seconds; doubled each time."""
TLS_ATTEMPTS = 3
"""How often a connection is tried that fails over TLS in a way that waiting doesn't mend."""
LONGEST_PAUSE = 1.0
"""How long to wait between retries at most, in seconds. A server may ask for more."""


class Attempts:
    """The attempts of one call: decides after each failure whether to try again, and when."""

    def __init__(
        self, options: ClientOptions, method: str, retry_budget: float | None = None, *, timeout: float | None = None
    ) -> None:
        self._options = options
        self._method = method
        self._retry_budget = options.retry_budget if retry_budget is None else retry_budget
        self._timeout = timeout or options.timeout
        self._pause = FIRST_PAUSE
        self._begun = self._attempted = time.monotonic()
        self._deadline: float | None = None
        self._explained: str | None = None
        self._failed_over_tls = 0

    def metadata(self) -> tuple[tuple[str, str], ...]:
        """Returns what to send beside the request."""
        token = self._options.bearer()
        self._attempted = time.monotonic()
        return (("authorization", f"Bearer {token}"),) if token else ()

    def pause_after(self, error: grpc.RpcError) -> float:
        """Returns how long to wait before the next attempt, in seconds; raises if there should be none."""
        code = error.code()
        now = time.monotonic()
        if are_unusable(error):
            raise InvalidArgumentError(
                "tls: grpc can't use TlsOptions: does private_key belong to certificate_chain, and is all of it PEM?",
                field="tls",
            ) from error
        if code is grpc.StatusCode.DEADLINE_EXCEEDED:
            # Of the whole call, not only of its retries: with a long timeout one attempt may be all there is time for.
            # Where the database gave up long before our time, the call is too much for it, and would be again.
            own = now - self._attempted >= 0.9 * self._timeout
            if own and now < self._begun + self._retry_budget:
                self._begin_retries(error, self._begun)
                return 0.0
            raise from_rpc_error(error, target=self._options.target, method=self._method) from error
        hint = retry_delay(error)
        overloaded = code is grpc.StatusCode.RESOURCE_EXHAUSTED and (
            hint is not None or error_info(error).reason == "OVERLOADED"
        )
        if not overloaded and not is_away(error):
            raise from_rpc_error(error, target=self._options.target, method=self._method) from error
        deadline = self._begin_retries(error, now)
        self._failed_over_tls += why_it_fails(error) is not None
        if now >= deadline or self._failed_over_tls >= TLS_ATTEMPTS:
            raise self._unavailable(error, overloaded) from error
        pause = self._pause * SystemRandom().uniform(0.5, 1.0)
        self._pause = min(self._pause * 2, LONGEST_PAUSE)
        if hint is not None:
            # Not before the server wants it, and not all at the same moment.
            pause = max(pause, hint * SystemRandom().uniform(1.0, 1.5))
        # The last attempt is made at the end of the budget, not before.
        return min(pause, deadline - now)

    def _begin_retries(self, error: grpc.RpcError, since: float) -> float:
        """Returns until when to try again."""
        self._explained = self._explained or why_it_fails(error)
        if self._deadline is None:
            self._deadline = since + self._retry_budget
            if self._retry_budget:
                logger.warning(
                    "checkpointd at %s is unavailable; trying again for %g s (%s)",
                    self._options.target,
                    self._retry_budget,
                    self._explained or why_it_may_fail(error, self._options.tls) or error.details(),
                )
        return self._deadline

    def _unavailable(self, error: grpc.RpcError, overloaded: bool) -> ServerUnavailableError:
        target, budget = self._options.target, f"within {self._retry_budget:g} s of retries"
        if overloaded:
            return ServerUnavailableError(
                f"checkpointd at {target} had no room for {self._method} {budget}: {error.details()}"
            )
        # What is only probable counts if it was so to the end: a server that starts anew closes connections too.
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


class Caller:
    """Calls RPCs on a saver's channels."""

    def __init__(self, options: ClientOptions, channels: Channels) -> None:
        self.options = options
        self.channels = channels

    def call(
        self,
        name: str,
        method: Callable[[Stubs], Any],
        request: Any,
        *,
        timeout: float | None = None,
        retry_budget: float | None = None,
    ) -> Any:
        """Calls an RPC and blocks for its answer. Raises CheckpointdError.

        Args:
            name: The RPC, for messages.
            method: Finds it among the stubs.
            request: What to send.
            timeout: How long one attempt may take, in seconds. Default: the saver's.
            retry_budget: How long to try again what waiting can mend, in seconds. Default: the saver's.
        """
        timeout = timeout or self.options.timeout
        attempts = Attempts(self.options, name, retry_budget, timeout=timeout)
        while True:
            rpc = method(self.channels.sync())
            metadata = attempts.metadata()
            try:
                return rpc(request, timeout=timeout, metadata=metadata)
            except grpc.RpcError as error:
                pause = attempts.pause_after(error)
            except ValueError as error:
                raise self._closed_under(error) from error
            time.sleep(pause)

    async def acall(
        self,
        name: str,
        method: Callable[[Stubs], Any],
        request: Any,
        *,
        timeout: float | None = None,
        retry_budget: float | None = None,
    ) -> Any:
        """Calls an RPC and awaits its answer, like `call`. Raises CheckpointdError."""
        timeout = timeout or self.options.timeout
        attempts = Attempts(self.options, name, retry_budget, timeout=timeout)
        while True:
            rpc = method(self.channels.aio())
            metadata = attempts.metadata()
            try:
                return await rpc(request, timeout=timeout, metadata=metadata)
            except grpc.RpcError as error:
                pause = attempts.pause_after(error)
            except grpc.aio.UsageError as error:
                raise self._closed_under(error) from error
            await asyncio.sleep(pause)

    async def share(
        self, name: str, request: Request, under_way: UnderWay | None = None, *, may_be_followed: bool = True
    ) -> Any:
        """Calls an RPC and awaits its answer, like `acall`; calls that are made at once share one.

        Args:
            name: The RPC, for messages.
            request: What to send.
            under_way: What the call waits for and expects, if it writes.
            may_be_followed: Whether the run's next calls may be sent behind this one, before it is over.
        """
        attempts = Attempts(self.options, name)
        again = False
        while True:
            batcher = self.channels.aio().batcher
            if under_way is not None and not isinstance(request, GetCheckpointRequest):
                await under_way.line_up(batcher, again=again, may_be_followed=may_be_followed)
                under_way.expect(request)
            metadata = attempts.metadata()
            try:
                return await batcher.call(request, metadata)
            except grpc.RpcError as error:
                pause = attempts.pause_after(error)
            except grpc.aio.UsageError as error:
                raise self._closed_under(error) from error
            await asyncio.sleep(pause)
            again = True

    def _closed_under(self, error: Exception) -> Exception:
        """A channel that was closed by another thread while this one was about to call."""
        if "closed" in str(error).lower():
            return CheckpointdError("this saver was closed while a call was about to start")
        return error
