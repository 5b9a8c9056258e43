"""The interface of a store of tenants, which `rpc` talks to and `store` fulfils."""

from __future__ import annotations

from collections.abc import Iterable, Sequence, Set
from typing import Protocol

from checkpointd_server.domain.tenants import (
    PurgePosition,
    PurgeReport,
    Quotas,
    Statistics,
    TenantQuotas,
    Usage,
)
from checkpointd_server.domain.thread_lists import (
    ThreadFilter,
)


class TenantStore(Protocol):
    """Knows what tenants hold and may use, and purges. Raises what a CheckpointStore raises."""

    async def note(self, tenants: Sequence[str], *, timeout: float | None) -> None:
        """Registers tenants that have called.

        Args:
            tenants: Their names.
            timeout: The time that the caller has left, in seconds; None: no end.
        """
        ...

    async def list(self, *, after: str, limit: int, timeout: float | None) -> Sequence[TenantQuotas]:
        """Reads tenants and their own quotas, by name.

        Args:
            after: The name behind which the page begins.
            limit: The most tenants.
            timeout: The time that the caller has left, in seconds; None: no end.

        Returns:
            The tenants.
        """
        ...

    async def read_quotas(self, tenants: Iterable[str], *, timeout: float | None) -> Sequence[TenantQuotas]:
        """Reads the own quotas of tenants.

        Args:
            tenants: Their names.
            timeout: The time that the caller has left, in seconds; None: no end.

        Returns:
            The quotas of those that were noted.
        """
        ...

    async def set_quotas(self, tenant: str, quotas: Quotas, *, resets: bool, timeout: float | None) -> TenantQuotas:
        """Sets quotas of a tenant.

        Args:
            tenant: The tenant.
            quotas: Those to set. None: it stays as it is.
            resets: Whether all others are taken back first.
            timeout: The time that the caller has left, in seconds; None: no end.

        Returns:
            The quotas that are set then.
        """
        ...

    async def find_threads(self, tenant: str, thread_ids: Iterable[str], *, timeout: float | None) -> Set[str]:
        """Finds out which threads hold anything.

        Args:
            tenant: The tenant.
            thread_ids: The threads.
            timeout: The time that the caller has left, in seconds; None: no end.

        Returns:
            Those of them that do.
        """
        ...

    async def read_usage(self, tenant: str, *, timeout: float | None) -> Usage:
        """Sums up what a tenant holds.

        Args:
            tenant: The tenant.
            timeout: The time that the caller has left, in seconds; None: no end.

        Returns:
            The sums.
        """
        ...

    async def read_statistics(self, tenant: str, *, timeout: float | None) -> Statistics:
        """Sums up a tenant's data, and measures some of its threads.

        Args:
            tenant: The tenant.
            timeout: The time that the caller has left, in seconds; None: no end.

        Returns:
            The sums, and estimates.
        """
        ...

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
        """Purges a page of the threads that a filter finds, archived or not.

        Args:
            tenant: The tenant.
            wanted: The filter.
            start: The place at which to go on.
            takes_pinned: Whether pinned threads go, too.
            is_dry_run: Whether it is only counted what would go.
            timeout: The time that the caller has left, in seconds; None: no end.

        Returns:
            What went, or would go, and the place at which to go on.
        """
        ...

    async def purge_all(
        self, tenant: str, *, start: PurgePosition, takes_pinned: bool, is_dry_run: bool, timeout: float | None
    ) -> PurgeReport:
        """Purges a page of all threads that a tenant had when the purge began.

        Args:
            tenant: The tenant.
            start: The place at which to go on.
            takes_pinned: Whether pinned threads go, too.
            is_dry_run: Whether it is only counted what would go.
            timeout: The time that the caller has left, in seconds; None: no end.

        Returns:
            What went, or would go, and the place at which to go on.
        """
        ...

    async def purge_rest(self, tenant: str, report: PurgeReport, *, timeout: float | None) -> None:
        """Purges what a tenant has besides its threads, and adds it to a report.

        Args:
            tenant: The tenant.
            report: The report, which is changed.
            timeout: The time that the caller has left, in seconds; None: no end.
        """
        ...
