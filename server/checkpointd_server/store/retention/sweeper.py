"""The sweeper: applies the policies of all tenants, on one server at a time."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable
from contextlib import suppress
from time import monotonic

from checkpointd_server.domain.errors import CheckpointdError
from checkpointd_server.domain.retention import (
    RetentionEffect,
    RetentionOutcome,
    RetentionPosition,
    SweepReport,
)
from checkpointd_server.store.connections.database import Connections
from checkpointd_server.store.options import StoreOptions
from checkpointd_server.store.retention.runs import SCAN, run_part

TIMEOUT = 30.0
"""How long each statement may take, in seconds."""

_logger = logging.getLogger(__name__)


class Sweeper:
    """Sweeps, unless another server does.

    The right to sweep is a lease in a row of the database, which the sweeping server renews. If that server dies,
    another takes over when the lease expires, and continues where it was.

    Args:
        connections: The database.
        options: The interval and the batch size.
    """

    def __init__(self, connections: Connections, options: StoreOptions) -> None:
        self._connections = connections
        self._options = options
        self._holder = secrets.token_bytes(16)
        self._renewed = 0.0
        self._is_ours = False

    async def sweep(self, tell: Callable[[str, RetentionEffect], None]) -> SweepReport:
        """Applies the policies of every due tenant.

        Args:
            tell: Called with the tenant and each deletion.
        """
        threads = checkpoints = 0
        has_run = False

        def count(tenant: str, effect: RetentionEffect) -> None:
            nonlocal threads, checkpoints
            if effect.outcome is not RetentionOutcome.HELD and (
                effect.checkpoints or effect.outcome is RetentionOutcome.DONE
            ):
                threads += 1
                checkpoints += effect.checkpoints
            tell(tenant, effect)

        if not await self._claim():
            return SweepReport(False, 0, 0)
        try:
            while self._is_ours:
                due = await self._connections.of(None).fetch("next_to_sweep", timeout=TIMEOUT)
                if not due:
                    break
                has_run = True
                tenant, changed_at, after_at, after_thread = due[0].values()
                after = None if after_at is None else RetentionPosition(after_at, after_thread)
                try:
                    await self._sweep_tenant(tenant, changed_at, after, count)
                except Exception:
                    # Other tenants are still swept; this one is retried later.
                    with suppress(CheckpointdError):
                        await self._note(tenant, None)
                    raise
        finally:
            with suppress(CheckpointdError):
                await self._connections.of(None).fetch("release_sweep", self._holder, timeout=TIMEOUT)
        return SweepReport(has_run, threads, checkpoints)

    async def _sweep_tenant(
        self,
        tenant: str,
        changed_at: object,
        after: RetentionPosition | None,
        count: Callable[[str, RetentionEffect], None],
    ) -> None:
        database = self._connections.of(tenant)
        while True:
            page = await run_part(
                database,
                changed_at,  # type: ignore[arg-type]  # rows have no types
                after=after,
                scan=SCAN,
                batch=self._options.sweep_batch,
                timeout=TIMEOUT,
                go_on=self._go_on,
            )
            for effect in page.effects:
                count(tenant, effect)
            if not self._is_ours:
                return
            after = page.after
            if after is None:
                break
            await self._note(tenant, after)
        await database.fetch("clean_expiring", timeout=TIMEOUT)
        await self._note(tenant, None)

    async def _claim(self) -> bool:
        lease = self._options.sweep_lease
        self._is_ours = bool(
            await self._connections.of(None).fetch("claim_sweep", self._holder, lease, timeout=TIMEOUT)
        )
        self._renewed = monotonic()
        return self._is_ours

    async def _go_on(self) -> bool:
        """Returns whether this server still has the right to sweep."""
        if monotonic() - self._renewed > self._options.sweep_lease / 3:
            await self._claim()
        if not self._is_ours:
            _logger.info("another server sweeps now")
        return self._is_ours

    async def _note(self, tenant: str, after: RetentionPosition | None) -> None:
        position = after or (None, None)
        interval = self._options.sweep_interval
        await self._connections.of(None).fetch("note_sweep", tenant, *position, interval, timeout=TIMEOUT)
