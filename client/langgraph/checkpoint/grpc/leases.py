"""Leases: one writer at a time on a thread, and the others wait.

`saver.lease(thread_id)` takes the lease when its block is entered, renews it in the background, and releases it when
the block is left. Within the block every write through the saver carries the lease's token: see `_runs.lease_tokens`.

The server decides, by its clock: it refuses writes without the lease's token, or after its end.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from types import TracebackType
from typing import Any, NamedTuple

from langgraph.checkpoint.grpc._convert import thread_requests as requests
from langgraph.checkpoint.grpc._convert.arguments import thread
from langgraph.checkpoint.grpc._runs.lease_tokens import Lease, LeaseTokens
from langgraph.checkpoint.grpc._transport import flows
from langgraph.checkpoint.grpc._transport.client import Client
from langgraph.checkpoint.grpc.errors import (
    CheckpointdError,
    DeadlineExceededError,
    InvalidArgumentError,
    LeaseHeldError,
    LeaseLostError,
)

from checkpointd.v1 import lease_service_pb2 as leases_pb

__all__ = ["AsyncLeaseContext", "Lease", "LeaseContext", "LeaseMixin"]

logger = logging.getLogger("langgraph.checkpoint.grpc")

WAIT_PER_CALL = 20.0
"""Maximum time that one call waits for a lease, in seconds. A longer wait takes several calls."""
SHORTEST_CALL = 0.05
"""Minimum duration of a waiting call, in seconds: avoids a busy loop with a server that doesn't wait."""
RELEASE_TIMEOUT = 5.0
"""How long releasing a lease may take, in seconds, within `timeout` and `retry_budget`. Otherwise it ends when its
time to live is over."""


class _Ask(NamedTuple):
    """A step: a call with its own timeouts, in seconds."""

    request: leases_pb.AcquireLeaseRequest | leases_pb.ReleaseLeaseRequest
    timeout: float
    retry_budget: float | None = None


class _LeaseSession:
    """One lease from request to release, as flows for the blocking and the awaiting form."""

    def __init__(self, client: Client, tokens: LeaseTokens, thread_id: str, ttl: float, wait: float | None) -> None:
        if not ttl > 0:
            raise InvalidArgumentError("ttl: must be more than 0 seconds", field="ttl")
        if wait is not None and not wait >= 0:
            raise InvalidArgumentError("wait: must be 0 seconds or more, or None for as long as it takes", field="wait")
        self._client = client
        self._tokens = tokens
        self._thread_id = thread(thread_id)
        self._holder = os.urandom(16)
        self._ttl = ttl
        self._wait = wait
        self._end: float | None = None
        self._lease: Lease | None = None
        self._stopped = threading.Event()

    def _acquire(self) -> flows.Flow[Lease]:
        """Takes the lease, or leaves the queue for it."""
        self._begin()
        try:
            while True:
                asked_at = time.monotonic()
                try:
                    response = yield self._next_ask()
                except LeaseHeldError as refusal:
                    pause = self._pause_after(refusal, asked_at)
                else:
                    return self._take(response)
                yield flows.Pause(pause)
        except BaseException as error:
            if self._may_be_queued(error):
                yield from self._release()
            raise

    def _release(self) -> flows.Flow[None]:
        """Releases the lease, or leaves the queue for it."""
        options = self._client.options
        ask = _Ask(
            requests.release_lease(self._thread_id, self._holder),
            timeout=min(RELEASE_TIMEOUT, options.timeout),
            retry_budget=min(RELEASE_TIMEOUT, options.retry_budget),
        )
        try:
            yield flows.Finish(ask)
        except CheckpointdError as error:
            logger.warning(
                "the lease on thread %r ends in %g s: giving it up failed: %s", self._thread_id, self._ttl, error
            )

    def _begin(self) -> None:
        if self._lease is not None:
            raise CheckpointdError("a lease is taken once; call saver.lease() again for another")
        if self._tokens.held(self._thread_id) is not None:
            # Waiting for itself would never end, and with a shared lease both would believe to be alone.
            raise LeaseHeldError(thread_id=self._thread_id, here=True)
        self._end = None if self._wait is None else time.monotonic() + self._wait

    def _next_ask(self) -> _Ask:
        """Returns the next request, and its timeout."""
        left = WAIT_PER_CALL if self._end is None else self._end - time.monotonic()
        wait = min(max(left, 0.0), WAIT_PER_CALL)
        request = requests.acquire_lease(self._thread_id, self._holder, ttl=self._ttl, wait=wait)
        return _Ask(request, wait + self._client.options.timeout)

    def _pause_after(self, refusal: LeaseHeldError, asked_at: float) -> float:
        """Returns how long to wait before asking again, in seconds; raises if the time is over."""
        now = time.monotonic()
        if self._end is not None and now >= self._end:
            raise LeaseHeldError(thread_id=self._thread_id, remaining=refusal.remaining, waited=self._wait) from refusal
        return max(asked_at + SHORTEST_CALL - now, 0.0)

    def _take(self, response: leases_pb.AcquireLeaseResponse) -> Lease:
        lease = Lease(self._thread_id, response.token, time.monotonic() + response.remaining_ms / 1000)
        self._lease = lease
        # A thread even in an event loop: a node that blocks the loop must not make its run lose the lease.
        renewal = threading.Thread(target=self._renew, args=(lease,), name="checkpointd-lease", daemon=True)
        renewal.start()
        self._tokens.enter(lease)
        return lease

    def _renew(self, lease: Lease) -> None:
        """Renews the lease until it is released or lost."""
        request = requests.renew_lease(lease.thread_id, lease.token, ttl=self._ttl)
        warned = False
        pause = self._ttl / 3
        while not self._stopped.wait(pause):
            asked_at = time.monotonic()
            left = lease._valid_until - asked_at
            if left <= 0:
                # The server may still have it: this process may have been paused for less time than it seems.
                left = self._ttl
            try:
                timeout = min(left, self._client.options.timeout)
                response = self._client.call(request, timeout=timeout, retry_budget=0.0)
            except LeaseLostError as error:
                if not self._stopped.is_set():
                    lease._lost = True
                    logger.warning("%s", error)
                return
            except CheckpointdError as error:
                if not warned:
                    logger.warning("the lease on thread %r could not be renewed: %s", lease.thread_id, error)
                    warned = True
                pause = min(self._ttl / 10, 1.0)
            else:
                lease._valid_until = asked_at + response.remaining_ms / 1000
                warned = False
                pause = self._ttl / 3

    def _stop(self) -> None:
        self._stopped.set()
        if self._lease is not None:
            self._lease._released = not self._lease.lost
            self._tokens.leave(self._lease)

    def _may_be_queued(self, error: BaseException) -> bool:
        """Returns whether a failed acquire may have left a place in the queue, or a lease, that blocks others."""
        if isinstance(error, LeaseHeldError):
            return self._wait != 0
        return isinstance(error, DeadlineExceededError) or not isinstance(error, CheckpointdError)


class LeaseContext(_LeaseSession):
    """The result of `saver.lease()`: `with` takes the lease, and blocks until it is granted."""

    def __enter__(self) -> Lease:
        return flows.run(self._acquire(), self._call)

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stop()
        flows.run(self._release(), self._call)

    def _call(self, ask: _Ask) -> Any:
        return self._client.call(ask.request, timeout=ask.timeout, retry_budget=ask.retry_budget)


class AsyncLeaseContext(_LeaseSession):
    """The result of `saver.alease()`: `async with` takes the lease and awaits it."""

    async def __aenter__(self) -> Lease:
        return await flows.arun(self._acquire(), self._acall)

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stop()
        await flows.arun(self._release(), self._acall)

    async def _acall(self, ask: _Ask) -> Any:
        return await self._client.acall(ask.request, timeout=ask.timeout, retry_budget=ask.retry_budget)


class LeaseMixin:
    """The part of a saver that takes leases."""

    _client: Client
    _lease_tokens: LeaseTokens

    def lease(self, thread_id: str, *, ttl: float = 30.0, wait: float | None = None) -> LeaseContext:
        """Keeps other writers off a thread while a `with` block lasts, and waits for those who do so already.

        Example:
            ```python
            with saver.lease("1"):
                graph.invoke({"messages": "hello"}, {"configurable": {"thread_id": "1"}})
            ```

        Writes through this saver from within the block are made under the lease, those of graphs that it runs
        included. All others are refused with LeaseHeldError, also through this saver. The lease is renewed in the
        background and given up at the end of the block; of a process that dies, it ends after `ttl`.

        Args:
            thread_id: The thread. It need not exist.
            ttl: How long the lease lives without a renewal, in seconds: 1 to 3600. A process that is paused for longer
                loses the lease, and what it then writes is refused with LeaseLostError.
            wait: How long to wait for the lease, in seconds; None: as long as it takes. Those who wait get it in turn.

        Returns:
            A context manager that gives the Lease. `alease` is for `async with`.

        Raises:
            LeaseHeldError: On entering: the lease was not free in time.
            InvalidArgumentError: An argument can't be used.
            CheckpointdError: On entering: the call failed.
        """
        return LeaseContext(self._client, self._lease_tokens, thread_id, ttl, wait)

    def alease(self, thread_id: str, *, ttl: float = 30.0, wait: float | None = None) -> AsyncLeaseContext:
        """Awaits `lease`: for `async with`."""
        return AsyncLeaseContext(self._client, self._lease_tokens, thread_id, ttl, wait)
