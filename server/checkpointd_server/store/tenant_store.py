"""TenantStore on PostgreSQL: what tenants hold and may use."""

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
        """Records that tenants were seen."""
        await tenants.note_tenants(self._connections.of(None), names, timeout=timeout)

    async def list(self, *, after: str, limit: int, timeout: float | None) -> Sequence[TenantQuotas]:
        """Reads tenants and their own quotas, by name, behind one."""
        return await tenants.list_tenants(self._connections.of(None), after=after, limit=limit, timeout=timeout)

    async def read_quotas(self, names: Iterable[str], *, timeout: float | None) -> Sequence[TenantQuotas]:
        """Reads the own quotas of those tenants that were noted."""
        return await tenants.read_quotas(self._connections.of(None), names, timeout=timeout)

    async def set_quotas(self, tenant: str, quotas: Quotas, *, resets: bool, timeout: float | None) -> TenantQuotas:
        """Sets the quotas that aren't None, after taking back all others if wanted; returns what is set then."""
        everybody = self._connections.of(None)
        return await tenants.set_quotas(everybody, tenant, quotas, resets=resets, timeout=timeout)

    async def find_threads(self, tenant: str, thread_ids: Iterable[str], *, timeout: float | None) -> Set[str]:
        """Returns those of some threads that hold anything."""
        return await tenants.find_threads(self._connections.of(tenant), tenant, thread_ids, timeout=timeout)

    async def read_usage(self, tenant: str, *, timeout: float | None) -> Usage:
        """Sums up what a tenant holds."""
        return await tenants.read_usage(self._connections.of(tenant), timeout=timeout)

    async def read_statistics(self, tenant: str, *, timeout: float | None) -> Statistics:
        """Sums up what a tenant holds, and looks at some of its threads."""
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
        """Purges a page of the threads that a filter finds, archived or not; or tells what would go."""
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
        """Purges a page of all threads that a tenant had when the purge began; or tells what would go."""
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
