"""Deleting, pruning and copying threads. Each thread is one transaction under its lock.

Work on many threads isn't one transaction, so none waits for another. The leases on all of them are checked first, and
each one again when its turn comes.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager

from checkpointd_server.domain.errors import (
    CheckpointNotFound,
    DeadlineExceeded,
    ThreadExists,
    ThreadPinned,
    lease_refusal,
)
from checkpointd_server.domain.threads import CopyThread, PruneStrategy, thread_key
from checkpointd_server.store.connections.database import Database


async def delete_threads(
    database: Database,
    tenant: str,
    thread_ids: Iterable[str],
    *,
    leases: Mapping[str, int],
    timeout: float | None,
) -> int:
    """Deletes threads, and returns how many checkpoints they had.

    Raises LeaseHeld, LeaseLost, ThreadPinned.
    """
    return await _for_each(database, "delete_thread", tenant, thread_ids, (), leases, timeout)


async def prune_threads(
    database: Database,
    tenant: str,
    thread_ids: Iterable[str],
    strategy: PruneStrategy,
    *,
    leases: Mapping[str, int],
    timeout: float | None,
) -> int:
    """Removes history from threads, and returns how many checkpoints were deleted.

    Raises LeaseHeld, LeaseLost, ThreadPinned.
    """
    statement = "delete_thread" if strategy is PruneStrategy.DELETE else "prune_thread"
    return await _for_each(database, statement, tenant, thread_ids, (), leases, timeout)


async def delete_runs(
    database: Database, tenant: str, run_ids: Iterable[str], *, leases: Mapping[str, int], timeout: float | None
) -> int:
    """Deletes the checkpoints of runs, and returns how many there were.

    Raises LeaseHeld, LeaseLost, ThreadPinned.
    """
    runs = sorted(set(run_ids))
    async with _deadline(timeout):
        rows = await database.fetch("threads_of_runs", runs, timeout=None)
        thread_ids = [thread_id for _, thread_id in map(dict.values, map(dict, rows))]
        return await _for_each(database, "delete_runs", tenant, thread_ids, (runs,), leases, None)


async def _for_each(
    database: Database,
    statement: str,
    tenant: str,
    thread_ids: Iterable[str],
    args: tuple[object, ...],
    leases: Mapping[str, int],
    timeout: float | None,
) -> int:
    """Runs a statement on each thread, and returns how many checkpoints were deleted in all."""
    targets = sorted({*thread_ids, *leases})
    keys = [thread_key(tenant, thread_id) for thread_id in targets]
    tokens = [leases.get(thread_id, 0) for thread_id in targets]
    async with _deadline(timeout):
        if len(targets) > 1:
            for row in await database.fetch("check_leases", keys, tokens, timeout=None):
                _judge(row["o_outcome"], targets[keys.index(row["o_thread"])], row["o_remaining"])
        checkpoints = 0
        for thread_id, key, token in zip(targets, keys, tokens, strict=True):
            row = await database.fetch_row(statement, key, token, *args, timeout=None)
            _judge(row["o_outcome"], thread_id, row["o_remaining"])
            checkpoints += row["o_checkpoints"]
    return checkpoints


def _judge(outcome: str, thread_id: str, remaining: float | None) -> None:
    if outcome == "pinned":
        raise ThreadPinned(thread_id)
    if outcome in ("held", "lost"):
        raise lease_refusal(outcome, thread_id, remaining)


async def copy_thread(database: Database, copy: CopyThread, *, timeout: float | None) -> int:
    """Copies or forks a thread, and returns how many checkpoints were copied.

    Raises ThreadExists, CheckpointNotFound, LeaseHeld, LeaseLost.
    """
    source = thread_key(copy.tenant, copy.source_thread_id)
    target = thread_key(copy.tenant, copy.target_thread_id)
    request_id = copy.request_id or secrets.token_bytes(16)
    async with _deadline(timeout):
        await database.fetch("make_thread", target, copy.target_thread_id, timeout=None)
        row = await database.fetch_row(
            "copy_thread", source, target, copy.checkpoint_id, request_id, copy.lease_token, timeout=None
        )
    _judge(row["o_outcome"], copy.target_thread_id, row["o_remaining"])
    if row["o_outcome"] == "exists":
        raise ThreadExists(copy.target_thread_id)
    if row["o_outcome"] == "not_found":
        raise CheckpointNotFound(copy.source_thread_id, copy.checkpoint_id or "")
    return int(row["o_checkpoints"])


@asynccontextmanager
async def _deadline(timeout: float | None) -> AsyncIterator[None]:
    """A common deadline of several calls."""
    try:
        async with asyncio.timeout(timeout):
            yield
    except TimeoutError as error:
        raise DeadlineExceeded from error
