"""Threads as a whole, in a tenant's view of a store: deletions, copies, retention and leases."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from checkpointd_server.domain.leases import AcquireLease, Lease, LeaseState
from checkpointd_server.domain.retention import Expiring, RetentionEffect, RetentionPolicy
from checkpointd_server.domain.thread_lists import ThreadChange, ThreadFilter, ThreadPage, ThreadPosition
from checkpointd_server.domain.thread_store import NO_LEASES
from checkpointd_server.domain.threads import CopyThread, PruneStrategy
from checkpointd_server.store import PostgresStore

TIMEOUT = 60.0


class ThreadVerbs:
    """The part of a tenant that works on whole threads."""

    store: PostgresStore
    name: str

    def key(self, thread: str = "t") -> object:
        raise NotImplementedError  # provided by the tenant

    async def select(self, query: str, *args: object) -> Sequence[Any]:
        raise NotImplementedError

    async def threads(
        self, wanted: ThreadFilter | None = None, *, after: ThreadPosition | None = None, page_size: int = 100
    ) -> ThreadPage:
        """Reads a page of threads."""
        return await self.store.list_threads(
            self.name,
            wanted or ThreadFilter(),
            after=after,
            page_size=page_size,
            page_bytes=1024 * 1024,
            timeout=TIMEOUT,
        )

    async def archive(self, thread: str = "t", *, archives: bool = True, lease: int = 0) -> bool:
        """Archives a thread, or brings it back."""
        return await self.store.archive_thread(self.name, thread, archives=archives, lease=lease, timeout=TIMEOUT)

    async def tag(self, thread: str = "t", *, remove: Sequence[str] = (), **tags: str) -> None:
        """Changes tags of a thread."""
        change = ThreadChange(tenant=self.name, thread_id=thread, set_tags=tags, removed_tags=remove)
        await self.store.update_thread(change, timeout=TIMEOUT)

    async def delete(self, thread: str = "t", *, leases: Mapping[str, int] = NO_LEASES) -> int:
        """Deletes a thread."""
        return await self.store.delete_thread(self.name, thread, leases=leases, timeout=TIMEOUT)

    async def delete_runs(self, *run_ids: str, leases: Mapping[str, int] = NO_LEASES) -> int:
        """Deletes runs."""
        return await self.store.delete_runs(self.name, run_ids, leases=leases, timeout=TIMEOUT)

    async def copy(
        self, source: str, target: str, *, at: str | None = None, request_id: bytes = b"", lease: int = 0
    ) -> int:
        """Copies or forks a thread."""
        copy = CopyThread(
            tenant=self.name,
            source_thread_id=source,
            target_thread_id=target,
            checkpoint_id=at,
            request_id=request_id,
            lease_token=lease,
        )
        return await self.store.copy_thread(copy, timeout=TIMEOUT)

    async def prune(
        self,
        *threads: str,
        strategy: PruneStrategy = PruneStrategy.KEEP_LATEST,
        leases: Mapping[str, int] = NO_LEASES,
    ) -> int:
        """Prunes threads."""
        return await self.store.prune_threads(self.name, threads, strategy, leases=leases, timeout=TIMEOUT)

    async def pin(self, thread: str = "t", *, pins: bool = True) -> None:
        """Pins a thread, or unpins it."""
        await self._change(thread, is_pinned=pins)

    async def set_ttl(self, ttl_seconds: int, thread: str = "t") -> None:
        """Gives a thread a time to live of its own."""
        await self._change(thread, ttl_seconds=ttl_seconds)

    async def _change(self, thread: str, **changes: Any) -> None:
        change = ThreadChange(tenant=self.name, thread_id=thread, set_tags={}, removed_tags=[], **changes)
        await self.store.update_thread(change, timeout=TIMEOUT)

    async def set_policy(self, name: str = "p", **limits: Any) -> None:
        """Stores a retention policy."""
        await self.store.retention.set_policy(self.name, RetentionPolicy(name=name, **limits), timeout=TIMEOUT)

    async def preview(self, policy: RetentionPolicy | None = None) -> list[RetentionEffect]:
        """Returns the effects that retention would have."""
        effects, after = await self.store.retention.preview(self.name, policy, after=None, timeout=TIMEOUT)
        while after is not None:
            more, after = await self.store.retention.preview(self.name, policy, after=after, timeout=TIMEOUT)
            effects += more
        return effects

    async def retain(self) -> list[RetentionEffect]:
        """Applies the retention policies."""
        effects, after = await self.store.retention.run(self.name, after=None, timeout=TIMEOUT)
        while after is not None:
            more, after = await self.store.retention.run(self.name, after=after, timeout=TIMEOUT)
            effects += more
        return effects

    async def expiring(self) -> list[Expiring]:
        """Lists announced deletions."""
        return list(
            (await self.store.retention.list_expiring(self.name, after=None, page_size=100, timeout=TIMEOUT)).entries
        )

    async def age(self, seconds: float, thread: str = "t", *, below: str | None = None) -> None:
        """Makes a thread look older, or only its checkpoints below an id."""
        if below is None:
            await self.select(
                "UPDATE checkpointd.threads SET active_at = active_at - make_interval(secs => $2), "
                "listed_at = listed_at - make_interval(secs => $2), retained_at = NULL WHERE thread = $1",
                self.key(thread),
                seconds,
            )
        else:
            await self.select(
                "UPDATE checkpointd.checkpoints SET created_at = created_at - make_interval(secs => $2) "
                "WHERE thread = $1 AND checkpoint_id < $3",
                self.key(thread),
                seconds,
                below,
            )

    async def acquire(self, holder: str, *, thread: str = "t", ttl: float = 60.0, wait: float = 0.0) -> Lease:
        """Takes a lease."""
        acquire = AcquireLease(tenant=self.name, thread_id=thread, holder=holder.encode(), ttl=ttl, wait=wait)
        return await self.store.acquire_lease(acquire, timeout=TIMEOUT)

    async def renew(self, token: int, *, thread: str = "t", ttl: float = 60.0) -> Lease:
        """Renews a lease."""
        return await self.store.renew_lease(self.name, thread, token, ttl=ttl, timeout=TIMEOUT)

    async def release(self, holder: str, *, thread: str = "t") -> bool:
        """Gives up a lease, or the place in the queue."""
        return await self.store.release_lease(self.name, thread, holder.encode(), timeout=TIMEOUT)

    async def lease(self, *, thread: str = "t") -> LeaseState:
        """Returns who may write to a thread."""
        return await self.store.get_lease(self.name, thread, timeout=TIMEOUT)
