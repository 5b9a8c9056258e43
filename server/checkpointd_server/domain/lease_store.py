"""The interface of a store's leases."""

from __future__ import annotations

from typing import Protocol

from checkpointd_server.domain.leases import AcquireLease, Lease, LeaseState


class LeaseStore(Protocol):
    """Keeps leases on threads; a part of CheckpointStore."""

    async def acquire_lease(self, acquire: AcquireLease, *, timeout: float | None) -> Lease:
        """Takes the lease on a thread, or waits in the queue for it.

        When it returns, every write that began before the lease has ended.

        Args:
            acquire: The thread, the holder, and how long to wait.
            timeout: The caller's remaining time, in seconds. None: no limit.

        Returns:
            The lease.

        Raises:
            LeaseHeld: Somebody else still holds it when the wait is over.
        """
        ...

    async def renew_lease(self, tenant: str, thread_id: str, token: int, *, ttl: float, timeout: float | None) -> Lease:
        """Extends a lease.

        Args:
            tenant: The tenant.
            thread_id: The thread.
            token: The lease's token.
            ttl: How long it lives from now, in seconds.
            timeout: The caller's remaining time, in seconds. None: no limit.

        Returns:
            The lease.

        Raises:
            LeaseLost: It has ended.
        """
        ...

    async def release_lease(self, tenant: str, thread_id: str, holder: bytes, *, timeout: float | None) -> bool:
        """Gives up a holder's lease or place in the queue.

        Args:
            tenant: The tenant.
            thread_id: The thread.
            holder: The holder.
            timeout: The caller's remaining time, in seconds. None: no limit.

        Returns:
            Whether the holder had the lease.
        """
        ...

    async def get_lease(self, tenant: str, thread_id: str, *, timeout: float | None) -> LeaseState:
        """Reads the state of a thread's lease.

        Args:
            tenant: The tenant.
            thread_id: The thread.
            timeout: The caller's remaining time, in seconds. None: no limit.

        Returns:
            Whether the thread is held, and how long.
        """
        ...
