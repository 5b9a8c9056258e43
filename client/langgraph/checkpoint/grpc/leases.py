"""Leases: one writer at a time on a thread, and the others wait.

`saver.lease(thread_id)` takes the lease when its block is entered, renews it in the background, and gives it up when
the block is left. Within the block every write through the saver carries the lease's token. Who is within the block is
told by a context variable: LangGraph hands contexts on to its threads and tasks, so a graph that is run in the block
writes under the lease, and another run through the same saver, begun elsewhere, doesn't.

The lease is the server's: it is held by its clock, and the server refuses what comes without its token or too late.
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
import time
from collections.abc import Iterable, Mapping
from contextvars import ContextVar
from types import MappingProxyType, TracebackType
from typing import TypeVar

from langgraph.checkpoint.grpc import requests
from langgraph.checkpoint.grpc._transport.cleanup import run_to_end
from langgraph.checkpoint.grpc.calls import Caller
from langgraph.checkpoint.grpc.errors import (
    CheckpointdError,
    DeadlineExceededError,
    InvalidArgumentError,
    LeaseHeldError,
    LeaseLostError,
)

from checkpointd.v1 import checkpoint_service_pb2 as pb
from checkpointd.v1 import lease_service_pb2 as leases_pb
from checkpointd.v1 import thread_service_pb2 as threads_pb

logger = logging.getLogger("langgraph.checkpoint.grpc")

WAIT_PER_CALL = 20.0
"""How long one call waits for a lease at the most, in seconds. Who wants to wait longer calls again."""
SHORTEST_CALL = 0.05
"""How long a call that waits takes at the least, in seconds: a server that won't wait is not asked without a pause."""
RELEASE_TIMEOUT = 5.0
"""How long giving up a lease may take, in seconds, where `timeout` and `retry_budget` allow for that much. After that
it ends by itself, when its time to live is over."""

OfOneThread = TypeVar("OfOneThread", pb.PutCheckpointRequest, pb.PutWritesRequest, threads_pb.DeleteThreadRequest)
OfManyThreads = TypeVar("OfManyThreads", threads_pb.DeleteRunsRequest, threads_pb.PruneThreadsRequest)


class Lease:
    """A lease on a thread. Made by `GrpcSaver.lease` and `alease`, and held as long as their block lasts."""

    def __init__(self, thread_id: str, token: int, valid_until: float) -> None:
        self.thread_id = thread_id
        """The thread."""
        self.token = token
        """The fencing token: greater than that of every lease before it on the thread. Another system that the holder
        writes to can refuse whoever comes with a token below the greatest it has seen."""
        self._valid_until = valid_until
        self._lost = False
        self._released = False

    @property
    def lost(self) -> bool:
        """Whether the lease has ended before its block, as far as this process knows. Its writes are refused then, or
        will be. Worth a look before a step that can't be taken back."""
        return self._lost or (not self._released and time.monotonic() >= self._valid_until)

    def __repr__(self) -> str:
        return f"Lease(thread_id={self.thread_id!r}, token={self.token}, lost={self.lost})"


class Leases:
    """The leases that are taken through a saver and its clones."""

    def __init__(self, caller: Caller) -> None:
        self.caller = caller

    def held(self, thread_id: str) -> Lease | None:
        """Returns the lease that this context holds on a thread, also one that is lost."""
        return _held.get(_NONE).get((self, thread_id))

    def enter(self, lease: Lease) -> None:
        """Lets this context, and those made from it, hold a lease."""
        _held.set({**_held.get(_NONE), (self, lease.thread_id): lease})

    def leave(self, lease: Lease) -> None:
        """Takes a lease from this context. Contexts made from it meanwhile keep it, and are refused."""
        _held.set({key: held for key, held in _held.get(_NONE).items() if held is not lease})

    def sign(self, request: OfOneThread) -> OfOneThread:
        """Writes the token of this context's lease into a request that writes to a thread."""
        lease = self.held(request.thread_id)
        if lease is not None:
            request.lease_token = lease.token
        return request

    def sign_copy(self, request: threads_pb.CopyThreadRequest) -> threads_pb.CopyThreadRequest:
        """Writes the token of this context's lease on the target into a copy."""
        lease = self.held(request.target_thread_id)
        if lease is not None:
            request.lease_token = lease.token
        return request

    def sign_all(self, requests: Iterable[OfManyThreads]) -> list[OfManyThreads]:
        """Writes this context's leases into requests that write to many threads."""
        signed = list(requests)
        for (leases, thread_id), lease in _held.get(_NONE).items():
            if leases is self:
                for request in signed:
                    if isinstance(request, threads_pb.DeleteRunsRequest) or thread_id in request.thread_ids:
                        request.leases.add(thread_id=thread_id, token=lease.token)
        return signed


_held: ContextVar[Mapping[tuple[Leases, str], Lease]] = ContextVar("checkpointd_leases")
_NONE: Mapping[tuple[Leases, str], Lease] = MappingProxyType({})


class Holding:
    """One lease from asking to giving up: what the blocking and the awaiting form share."""

    def __init__(self, leases: Leases, thread_id: str, ttl: float, wait: float | None) -> None:
        if not ttl > 0:
            raise InvalidArgumentError("ttl: must be more than 0 seconds", field="ttl")
        if wait is not None and not wait >= 0:
            raise InvalidArgumentError("wait: must be 0 seconds or more, or None for as long as it takes", field="wait")
        self._leases = leases
        self._caller = leases.caller
        self._thread_id = requests.thread(thread_id)
        self._holder = os.urandom(16)
        self._ttl = ttl
        self._wait = wait
        self._end: float | None = None
        self._lease: Lease | None = None
        self._stopped = threading.Event()

    def _begin(self) -> None:
        if self._lease is not None:
            raise CheckpointdError("a lease is taken once; call saver.lease() again for another")
        if self._leases.held(self._thread_id) is not None:
            # Waiting for oneself would never end, and sharing the lease would let both think they are alone.
            raise LeaseHeldError(thread_id=self._thread_id, here=True)
        self._end = None if self._wait is None else time.monotonic() + self._wait

    def _next_ask(self) -> tuple[leases_pb.AcquireLeaseRequest, float]:
        """Returns the next request and how long its call may take, in seconds."""
        left = WAIT_PER_CALL if self._end is None else self._end - time.monotonic()
        wait = min(max(left, 0.0), WAIT_PER_CALL)
        request = requests.acquire_lease(self._thread_id, self._holder, ttl=self._ttl, wait=wait)
        return request, wait + self._caller.options.timeout

    def _pause_after(self, refusal: LeaseHeldError, asked_at: float) -> float:
        """Returns how long to wait before asking again, in seconds; raises if the time is over."""
        now = time.monotonic()
        if self._end is not None and now >= self._end:
            raise LeaseHeldError(thread_id=self._thread_id, remaining=refusal.remaining, waited=self._wait) from refusal
        return max(asked_at + SHORTEST_CALL - now, 0.0)

    def _take(self, response: leases_pb.AcquireLeaseResponse) -> Lease:
        lease = Lease(self._thread_id, response.token, time.monotonic() + response.remaining_ms / 1000)
        self._lease = lease
        # A thread also where an event loop runs: a node that blocks the loop must not cost its run the lease.
        renewal = threading.Thread(target=self._renew, args=(lease,), name="checkpointd-lease", daemon=True)
        renewal.start()
        self._leases.enter(lease)
        return lease

    def _renew(self, lease: Lease) -> None:
        """Renews the lease until it is given up or lost."""
        request = requests.renew_lease(lease.thread_id, lease.token, ttl=self._ttl)
        warned = False
        pause = self._ttl / 3
        while not self._stopped.wait(pause):
            asked_at = time.monotonic()
            left = lease._valid_until - asked_at
            if left <= 0:
                # Perhaps the server still has it: this process may have been paused, and not for as long as it seems.
                left = self._ttl
            try:
                response = self._caller.call(
                    "RenewLease",
                    lambda stubs: stubs.leases.RenewLease,
                    request,
                    timeout=min(left, self._caller.options.timeout),
                    retry_budget=0.0,
                )
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
            self._leases.leave(self._lease)

    def _may_be_in_line(self, error: BaseException) -> bool:
        """Whether an acquire that failed may have left a place in line, or a lease, that others would wait for."""
        if isinstance(error, LeaseHeldError):
            return self._wait != 0
        return isinstance(error, DeadlineExceededError) or not isinstance(error, CheckpointdError)

    def _release_request(self) -> leases_pb.ReleaseLeaseRequest:
        return requests.release_lease(self._thread_id, self._holder)

    def _not_released(self, error: CheckpointdError) -> None:
        logger.warning(
            "the lease on thread %r ends in %g s: giving it up failed: %s", self._thread_id, self._ttl, error
        )


class LeaseBlock(Holding):
    """What `saver.lease()` returns: `with` takes the lease and blocks until it is there."""

    def __enter__(self) -> Lease:
        self._begin()
        try:
            while True:
                asked_at = time.monotonic()
                request, timeout = self._next_ask()
                try:
                    response = self._caller.call(
                        "AcquireLease", lambda stubs: stubs.leases.AcquireLease, request, timeout=timeout
                    )
                except LeaseHeldError as refusal:
                    time.sleep(self._pause_after(refusal, asked_at))
                else:
                    return self._take(response)
        except BaseException as error:
            if self._may_be_in_line(error):
                self._release()
            raise

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stop()
        self._release()

    def _release(self) -> None:
        """Gives up the lease, or the place in line for it."""
        try:
            self._caller.call(
                "ReleaseLease",
                lambda stubs: stubs.leases.ReleaseLease,
                self._release_request(),
                timeout=min(RELEASE_TIMEOUT, self._caller.options.timeout),
                retry_budget=min(RELEASE_TIMEOUT, self._caller.options.retry_budget),
            )
        except CheckpointdError as error:
            self._not_released(error)


class AsyncLeaseBlock(Holding):
    """What `saver.alease()` returns: `async with` takes the lease and awaits it."""

    async def __aenter__(self) -> Lease:
        self._begin()
        try:
            while True:
                asked_at = time.monotonic()
                request, timeout = self._next_ask()
                try:
                    response = await self._caller.acall(
                        "AcquireLease", lambda stubs: stubs.leases.AcquireLease, request, timeout=timeout
                    )
                except LeaseHeldError as refusal:
                    await asyncio.sleep(self._pause_after(refusal, asked_at))
                else:
                    return self._take(response)
        except BaseException as error:
            if self._may_be_in_line(error):
                await run_to_end(self._release())
            raise

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stop()
        await run_to_end(self._release())

    async def _release(self) -> None:
        """Gives up the lease, or the place in line for it."""
        try:
            await self._caller.acall(
                "ReleaseLease",
                lambda stubs: stubs.leases.ReleaseLease,
                self._release_request(),
                timeout=min(RELEASE_TIMEOUT, self._caller.options.timeout),
                retry_budget=min(RELEASE_TIMEOUT, self._caller.options.retry_budget),
            )
        except CheckpointdError as error:
            self._not_released(error)


class LeaseTaker:
    """The part of a saver that takes leases."""

    _leases: Leases

    def lease(self, thread_id: str, *, ttl: float = 30.0, wait: float | None = None) -> LeaseBlock:
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
        """
        return LeaseBlock(self._leases, thread_id, ttl, wait)

    def alease(self, thread_id: str, *, ttl: float = 30.0, wait: float | None = None) -> AsyncLeaseBlock:
        """Does what `lease` does, for `async with`."""
        return AsyncLeaseBlock(self._leases, thread_id, ttl, wait)
