"""Times of a thread that clients set: its time to live, and when it was read."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from time import monotonic
from uuid import UUID

from checkpointd_server.domain.checkpoints import PutCheckpoint
from checkpointd_server.domain.threads import thread_key
from checkpointd_server.store.connections.database import Connections, Database
from checkpointd_server.store.retention.policies import register

_KNOWN_SECONDS = 60.0
"""How long a thread's time to live isn't stored again, unless a put may be its first, in seconds."""
_READ_SECONDS = 1.0
"""How long further reads of a thread aren't recorded, in seconds."""
_MOST_KNOWN = 10_000
_TIMEOUT = 10.0


class ThreadTimes:
    """Stores them in the database, and caches what is stored.

    Args:
        connections: The database.
        of: Returns the database in a tenant's name.
    """

    def __init__(self, connections: Connections, of: Callable[[str], Database]) -> None:
        self._connections = connections
        self._of = of
        self._tenants: set[str] = set()
        self._ttls: dict[UUID, tuple[int, float]] = {}
        self._reads: dict[UUID, float] = {}

    async def set_ttls(self, puts: Iterable[PutCheckpoint]) -> None:
        """Sets the times to live that puts carry, before the puts are stored."""
        wanted = {}
        for put in puts:
            if put.ttl_seconds is not None:
                tenant, thread_id, _ = put.namespace
                key, now = thread_key(tenant, thread_id), monotonic()
                ttl, since = self._ttls.get(key, (None, 0.0))
                if put.parent_checkpoint_id is None or ttl != put.ttl_seconds or now - since > _KNOWN_SECONDS:
                    wanted[key] = (tenant, thread_id, put.ttl_seconds)
        for key, (tenant, thread_id, ttl_seconds) in wanted.items():
            if ttl_seconds:
                await self.register(tenant)
            await self._of(tenant).fetch("set_ttl", key, thread_id, ttl_seconds, timeout=_TIMEOUT)
            if len(self._ttls) >= _MOST_KNOWN:
                self._ttls.clear()
            self._ttls[key] = (ttl_seconds, monotonic())

    async def note_read(self, tenant: str, thread_id: str, *, timeout: float | None) -> None:
        """Records a read as use of a thread."""
        key, now = thread_key(tenant, thread_id), monotonic()
        if now - self._reads.get(key, -_READ_SECONDS) < _READ_SECONDS:
            return
        await self._of(tenant).fetch("note_read", key, timeout=timeout)
        if len(self._reads) >= _MOST_KNOWN:
            self._reads.clear()
        self._reads[key] = now

    async def register(self, tenant: str) -> None:
        """Registers a tenant whose threads have a time to live for sweeps."""
        if tenant not in self._tenants:
            await register(self._connections, tenant, has_changed=False, timeout=_TIMEOUT)
            if len(self._tenants) >= _MOST_KNOWN:
                self._tenants.clear()
            self._tenants.add(tenant)
