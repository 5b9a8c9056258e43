"""The interface of the store of tenants, which `rpc` uses and `store` implements."""

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
    """Reads usage, sets quotas, and purges. Errors are as in `CheckpointStore`."""

    async def note(self, tenants: Sequence[str], *, timeout: float | None) -> None:
        """Registers tenants that have called.

        Args:
            tenants: Their names.
            timeout: The caller's remaining time, in seconds. None: no limit.
        """
        ...

    async def list(self, *, after: str, limit: int, timeout: float | None) -> Sequence[TenantQuotas]:
        """Reads tenants and their own quotas, by name.

        Args:
            after: The name after which the page begins.
            limit: The maximum number of tenants.
            timeout: The caller's remaining time, in seconds. None: no limit.

        Returns:
            The tenants.
        """
        ...

    async def read_quotas(self, tenants: Iterable[str], *, timeout: float | None) -> Sequence[TenantQuotas]:
        """Reads the own quotas of tenants.

        Args:
            tenants: Their names.
            timeout: The caller's remaining time, in seconds. None: no limit.

        Returns:
            The quotas of those that are registered.
        """
        ...

    async def set_quotas(self, tenant: str, quotas: Quotas, *, resets: bool, timeout: float | None) -> TenantQuotas:
        """Sets quotas of a tenant.

        Args:
            tenant: The tenant.
            quotas: The quotas to set. None: unchanged.
            resets: Whether to clear all others first.
            timeout: The caller's remaining time, in seconds. None: no limit.

        Returns:
            The tenant's own quotas after that.
        """
        ...

    async def find_threads(self, tenant: str, thread_ids: Iterable[str], *, timeout: float | None) -> Set[str]:
        """Returns which threads aren't empty.

        Args:
            tenant: The tenant.
            thread_ids: The threads.
            timeout: The caller's remaining time, in seconds. None: no limit.

        Returns:
            Those of them that hold anything.
        """
        ...

    async def read_usage(self, tenant: str, *, timeout: float | None) -> Usage:
        """Sums up a tenant's data.

        Args:
            tenant: The tenant.
            timeout: The caller's remaining time, in seconds. None: no limit.

        Returns:
            The sums.
        """
        ...

    async def read_statistics(self, tenant: str, *, timeout: float | None) -> Statistics:
        """Sums up a tenant's data, and measures some of its threads.

        Args:
            tenant: The tenant.
            timeout: The caller's remaining time, in seconds. None: no limit.

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
        """Purges a page of the threads that match a filter, archived or not.

        Args:
            tenant: The tenant.
            wanted: The filter.
            start: Where to continue.
            takes_pinned: Whether to purge pinned threads, too.
            is_dry_run: Whether to only count.
            timeout: The caller's remaining time, in seconds. None: no limit.

        Returns:
            What was or would be deleted, and where to continue.
        """
        ...

    async def purge_all(
        self, tenant: str, *, start: PurgePosition, takes_pinned: bool, is_dry_run: bool, timeout: float | None
    ) -> PurgeReport:
        """Purges a page of all threads that a tenant had when the purge began.

        Args:
            tenant: The tenant.
            start: Where to continue.
            takes_pinned: Whether to purge pinned threads, too.
            is_dry_run: Whether to only count.
            timeout: The caller's remaining time, in seconds. None: no limit.

        Returns:
            What was or would be deleted, and where to continue.
        """
        ...

    async def purge_rest(self, tenant: str, report: PurgeReport, *, timeout: float | None) -> None:
        """Purges a tenant's data except its threads, and adds the counts to a report.

        Args:
            tenant: The tenant.
            report: The report, changed in place.
            timeout: The caller's remaining time, in seconds. None: no limit.
        """
        ...
