"""LeaseService: who may write to a thread."""

from __future__ import annotations

from checkpointd.v1 import lease_service_pb2 as pb
from checkpointd_server.domain.errors import InvalidArgument
from checkpointd_server.domain.lease_store import LeaseStore
from checkpointd_server.domain.leases import AcquireLease, Lease
from checkpointd_server.domain.limits import Limits
from checkpointd_server.rpc.calls.active_calls import ActiveCalls
from checkpointd_server.rpc.conversion.validation import check_text, check_token


class LeaseServicer:
    """Serves the leases of a store. Each method takes a request and returns the encoded response."""

    def __init__(self, store: LeaseStore, limits: Limits, calls: ActiveCalls) -> None:
        self._store = store
        self._limits = limits
        self._calls = calls

    async def acquire_lease(self, request: pb.AcquireLeaseRequest, tenant: str, timeout: float | None) -> bytes:
        """Takes a lease, or waits for it."""
        check_text(request.thread_id, "thread_id", self._limits.max_thread_id_bytes)
        _check_holder(request.holder, self._limits)
        if request.wait_ms < 0:
            raise InvalidArgument("wait_ms", "is negative")
        acquire = AcquireLease(
            tenant=tenant,
            thread_id=request.thread_id,
            holder=request.holder,
            ttl=_read_ttl(request.ttl_ms, self._limits),
            wait=min(request.wait_ms, self._limits.max_lease_wait_ms) / 1000,
        )
        if acquire.wait:
            lease = await self._calls.waiting(tenant, self._store.acquire_lease(acquire, timeout=timeout))
        else:
            lease = await self._store.acquire_lease(acquire, timeout=timeout)
        return pb.AcquireLeaseResponse(token=lease.token, remaining_ms=_milliseconds(lease)).SerializeToString()

    async def renew_lease(self, request: pb.RenewLeaseRequest, tenant: str, timeout: float | None) -> bytes:
        """Extends a lease."""
        check_text(request.thread_id, "thread_id", self._limits.max_thread_id_bytes)
        if request.token <= 0:
            raise InvalidArgument("token", "is required; tokens begin at 1")
        ttl = _read_ttl(request.ttl_ms, self._limits)
        lease = await self._store.renew_lease(tenant, request.thread_id, request.token, ttl=ttl, timeout=timeout)
        return pb.RenewLeaseResponse(remaining_ms=_milliseconds(lease)).SerializeToString()

    async def release_lease(self, request: pb.ReleaseLeaseRequest, tenant: str, timeout: float | None) -> bytes:
        """Releases a lease, or leaves the queue for it."""
        check_text(request.thread_id, "thread_id", self._limits.max_thread_id_bytes)
        _check_holder(request.holder, self._limits)
        released = await self._store.release_lease(tenant, request.thread_id, request.holder, timeout=timeout)
        return pb.ReleaseLeaseResponse(released=released).SerializeToString()

    async def get_lease(self, request: pb.GetLeaseRequest, tenant: str, timeout: float | None) -> bytes:
        """Returns whether a thread is held."""
        check_text(request.thread_id, "thread_id", self._limits.max_thread_id_bytes)
        lease, waiting = await self._store.get_lease(tenant, request.thread_id, timeout=timeout)
        response = pb.GetLeaseResponse(waiting=waiting)
        if lease is not None:
            response.remaining_ms = _milliseconds(lease)
        return response.SerializeToString()


def _check_holder(holder: bytes, limits: Limits) -> None:
    if not holder:
        raise InvalidArgument("holder", "is required")
    check_token(holder, "holder", limits.max_token_bytes)


def _read_ttl(milliseconds: int, limits: Limits) -> float:
    """Returns a time to live in seconds."""
    least, most = limits.min_lease_ttl_ms, limits.max_lease_ttl_ms
    milliseconds = milliseconds or min(max(limits.default_lease_ttl_ms, least), most)
    if milliseconds < least:
        raise InvalidArgument("ttl_ms", f"is {milliseconds}, at least {least} are needed", limit=least)
    if milliseconds > most:
        raise InvalidArgument("ttl_ms", f"is {milliseconds}, at most {most} are allowed", limit=most)
    return milliseconds / 1000


def _milliseconds(lease: Lease) -> int:
    """Returns a lease's remaining time, rounded down, but not to 0, which would mean that there is none."""
    return max(int(lease.remaining * 1000), 1)
