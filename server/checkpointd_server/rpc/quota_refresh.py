"""Reads quotas and usage of recently active tenants from the database every few seconds."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from contextlib import suppress
from time import monotonic

import structlog

from checkpointd_server.domain.errors import CheckpointdError, QuotaExceeded
from checkpointd_server.domain.tenant_store import TenantStore
from checkpointd_server.rpc.tenants import Tenants, TenantState

TIMEOUT = 30.0
"""How long each statement may take, in seconds."""
_SHORTEST_PAUSE = 0.1
"""Minimum pause between two rounds, however many new tenants call, in seconds."""
_WORK_SHARE = 20
"""Summing up usage may take at most one part in this many of the time."""
_MOST_TENANTS = 1000
"""Maximum number of tenants in one statement."""


class QuotaRefresh:
    """Keeps quotas and usage up to date. A tenant may exceed its quotas until the next round.

    Args:
        tenants: The tenants in memory.
        store: The store of quotas and usage.
        seconds: The interval of rounds.
    """

    def __init__(self, tenants: Tenants, store: TenantStore, *, seconds: float) -> None:
        self._tenants = tenants
        self._store = store
        self._seconds = seconds
        self._asked_at = 0.0
        self._is_new = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._log = structlog.get_logger("checkpointd.rpc").bind()

    def start(self) -> None:
        """Starts the rounds in the running event loop."""
        self._tenants.when_new = self._is_new.set
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def stop(self) -> None:
        """Stops the rounds."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._seconds):
                    await self._is_new.wait()
            self._is_new.clear()
            try:
                await self.refresh()
            except CheckpointdError as error:
                # Whatever it is, the previous state stays in force. Health checks report the database's state.
                self._log.debug("quotas could not be read", reason=str(error))
            except Exception as error:  # a bug here must not end the rounds
                self._log.error("quotas could not be read", reason=type(error).__name__, exc_info=True)
            await asyncio.sleep(_SHORTEST_PAUSE)

    async def refresh(self) -> None:
        """Reads the state of all tenants that have called since the last round. Raises the store's errors."""
        now = monotonic()
        states = [state for state in self._tenants.states if state.calls or state.seen_at >= self._asked_at]
        for first in range(0, len(states), _MOST_TENANTS):
            await self._read_quotas(states[first : first + _MOST_TENANTS])
        self._asked_at = now
        for state in states:
            if (state.quotas.max_bytes or state.quotas.max_threads) and monotonic() >= state.usage_due:
                await self._add_up(state)

    async def _read_quotas(self, states: list[TenantState]) -> None:
        if unknown := [state for state in states if not state.is_noted]:
            await self._store.note([state.name for state in unknown], timeout=TIMEOUT)
        for state in unknown:
            state.is_noted = True
        by_name = {state.name: state for state in states}
        for tenant, quotas, _ in await self._store.read_quotas(list(by_name), timeout=TIMEOUT):
            self._tenants.set_quotas(by_name.pop(tenant), quotas)
        for state in by_name.values():
            state.is_noted = False  # it was purged but still calls: it is registered in the next round

    async def _add_up(self, state: TenantState) -> None:
        begun, counted = monotonic(), state.added_bytes
        usage = await self._store.read_usage(state.name, timeout=TIMEOUT)
        took = monotonic() - begun
        state.usage = usage
        state.added_bytes -= counted
        state.usage_due = begun + max(self._seconds * 0.9, took * _WORK_SHARE)

    async def refuse_new(self, state: TenantState, thread_ids: Iterable[str]) -> dict[str, QuotaExceeded]:
        """Returns, for a tenant at its limit of threads, those that don't exist yet, and why they can't be created.

        It runs a statement, for which only such a tenant's writes wait.
        """
        wanted = set(thread_ids)
        if not wanted:
            return {}
        known = await self._store.find_threads(state.name, wanted, timeout=TIMEOUT)
        return {thread_id: self._tenants.refuse_thread(state) for thread_id in wanted - known}
