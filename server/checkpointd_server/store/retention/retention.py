"""A tenant's retention, for the RPCs."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from uuid import UUID

from checkpointd_server.domain.retention import (
    Expiring,
    ExpiringPage,
    RetentionAction,
    RetentionPage,
    RetentionPolicy,
    RetentionPosition,
)
from checkpointd_server.domain.threads import thread_key
from checkpointd_server.store.connections.database import Connections, Database
from checkpointd_server.store.options import StoreOptions
from checkpointd_server.store.retention import policies, runs

PAGE_SCAN = 100
"""Number of threads that a call checks."""
_BEGINNING = RetentionPosition(datetime(1, 1, 2, tzinfo=UTC), UUID(int=0))


class Retention:
    """Policies, previews, manual runs, and announced deletions: a RetentionStore, which describes its methods.

    Args:
        connections: The database.
        of: Returns the database in a tenant's name.
        options: The batch size.
    """

    def __init__(self, connections: Connections, of: Callable[[str], Database], options: StoreOptions) -> None:
        self._connections = connections
        self._of = of
        self._batch = options.sweep_batch

    async def set_policy(self, tenant: str, policy: RetentionPolicy, *, timeout: float | None) -> None:
        """Stores a policy, replacing the one with its name. Raises InvalidArgument if there are too many."""
        await policies.set_policy(self._of(tenant), policy, timeout=timeout)
        await policies.register(self._connections, tenant, has_changed=True, timeout=timeout)

    async def delete_policy(self, tenant: str, name: str, *, timeout: float | None) -> bool:
        """Deletes a policy, and returns whether it existed."""
        deleted = await policies.delete_policy(self._of(tenant), name, timeout=timeout)
        await policies.register(self._connections, tenant, has_changed=True, timeout=timeout)
        return deleted

    async def list_policies(self, tenant: str, *, timeout: float | None) -> list[RetentionPolicy]:
        """Returns all policies of a tenant, by name."""
        return await policies.list_policies(self._of(tenant), timeout=timeout)

    async def preview(
        self,
        tenant: str,
        policy: RetentionPolicy | None,
        *,
        after: RetentionPosition | None,
        timeout: float | None,
    ) -> RetentionPage:
        """Returns what would be deleted from the next threads now; with a policy, by that policy alone."""
        database = self._of(tenant)
        return await runs.preview(database, policy, after=after, scan=PAGE_SCAN, timeout=timeout)

    async def run(self, tenant: str, *, after: RetentionPosition | None, timeout: float | None) -> RetentionPage:
        """Applies the policies to the next threads now."""
        database = self._of(tenant)
        return await runs.run_part(database, None, after=after, scan=PAGE_SCAN, batch=self._batch, timeout=timeout)

    async def list_expiring(
        self, tenant: str, *, after: RetentionPosition | None, page_size: int, timeout: float | None
    ) -> ExpiringPage:
        """Reads a page of announced deletions that aren't acknowledged, earliest deadline first."""
        rows = await self._of(tenant).fetch(
            "list_expiring", *(after or _BEGINNING), page_size + 1, timeout=timeout, reads=True
        )
        entries = [
            Expiring(
                thread_id=row["o_thread_id"],
                action=RetentionAction.DELETE if row["o_is_whole"] else RetentionAction.TRIM,
                reason=row["o_reason"],
                policy=row["o_policy"],
                checkpoints=row["o_checkpoints"],
                below=row["o_below"] or "",
                deadline_at=row["o_deadline_at"],
                hold_policy=row["o_held_by"],
            )
            for row in rows[:page_size]
        ]
        if len(rows) <= page_size:
            return ExpiringPage(entries, None)
        last = rows[page_size - 1]
        return ExpiringPage(entries, RetentionPosition(last["o_deadline_at"], last["o_thread"]))

    async def acknowledge(self, tenant: str, thread_id: str, below: str, *, timeout: float | None) -> bool:
        """Acknowledges an announced deletion, and returns whether it is still the same."""
        key = thread_key(tenant, thread_id)
        database = self._of(tenant)
        return bool(await database.fetch_value("acknowledge_expiring", key, below or None, timeout=timeout))
