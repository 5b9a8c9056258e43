"""TenantStore on PostgreSQL: usage and quotas of tenants."""

from __future__ import annotations

from collections.abc import Iterable, Sequence, Set

from checkpointd_server.domain.tenants import PurgePosition, PurgeReport, Quotas, Statistics, TenantQuotas, Usage
from checkpointd_server.domain.thread_lists import ThreadFilter
from checkpointd_server.store import purges, tenants
from checkpointd_server.store.connections.database import Connections


class PostgresTenants:
    """A TenantStore.

    Args:
        connections: The database.
    """

    def __init__(self, connections: Connections) -> None:
        self._connections = connections

    async def note(self, names: Sequence[str], *, timeout: float | None) -> None:
        """Registers tenants that have called."""
        await tenants.note_tenants(self._connections.of(None), names, timeout=timeout)

    async def list(self, *, after: str, limit: int, timeout: float | None) -> Sequence[TenantQuotas]:
        """Reads tenants and their own quotas, by name, after a given one."""
        return await tenants.list_tenants(self._connections.of(None), after=after, limit=limit, timeout=timeout)

    async def read_quotas(self, names: Iterable[str], *, timeout: float | None) -> Sequence[TenantQuotas]:
        """Reads the own quotas of registered tenants."""
        return await tenants.read_quotas(self._connections.of(None), names, timeout=timeout)

    async def set_quotas(self, tenant: str, quotas: Quotas, *, resets: bool, timeout: float | None) -> TenantQuotas:
        """Sets the quotas that aren't None, after clearing all if requested, and returns the tenant's quotas."""
        everybody = self._connections.of(None)
        return await tenants.set_quotas(everybody, tenant, quotas, resets=resets, timeout=timeout)

    async def find_threads(self, tenant: str, thread_ids: Iterable[str], *, timeout: float | None) -> Set[str]:
        """Returns those of some threads that aren't empty."""
        return await tenants.find_threads(self._connections.of(tenant), tenant, thread_ids, timeout=timeout)

    async def read_usage(self, tenant: str, *, timeout: float | None) -> Usage:
        """Sums up a tenant's data."""
        return await tenants.read_usage(self._connections.of(tenant), timeout=timeout)

    async def read_statistics(self, tenant: str, *, timeout: float | None) -> Statistics:
        """Sums up a tenant's data, and measures some of its threads."""
        return await tenants.read_statistics(self._connections.of(tenant), timeout=timeout)

    async def purge_found(
        self,
        tenant: str,
        wanted: ThreadFilter,
        *,
        start: PurgePosition,
        takes_pinned: bool,
        is_dry_run: bool,
        timeout: float | None,
    ) -> PurgeReport:
        """Purges a page of the threads that match a filter, archived or not, or counts them."""
        return await purges.purge_found(
            self._connections.of(tenant),
            wanted,
            start=start,
            takes_pinned=takes_pinned,
            is_dry_run=is_dry_run,
            timeout=timeout,
        )

    async def purge_all(
        self, tenant: str, *, start: PurgePosition, takes_pinned: bool, is_dry_run: bool, timeout: float | None
    ) -> PurgeReport:
        """Purges a page of all threads that a tenant had when the purge began, or counts them."""
        return await purges.purge_all(
            self._connections.of(tenant),
            start=start,
            takes_pinned=takes_pinned,
            is_dry_run=is_dry_run,
            timeout=timeout,
        )

    async def purge_rest(self, tenant: str, report: PurgeReport, *, timeout: float | None) -> None:
        """Purges what a tenant has besides its threads, and adds it to a report."""
        await purges.purge_rest(self._connections.of(tenant), report, timeout=timeout)
