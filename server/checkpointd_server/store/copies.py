"""Copying and forking threads."""

from __future__ import annotations

import secrets

from checkpointd_server.domain.errors import CheckpointNotFound, ThreadExists
from checkpointd_server.domain.model import CopyThread
from checkpointd_server.store.database import Database, Session
from checkpointd_server.store.leases import holding_off_leases


async def copy_thread(database: Database, copy: CopyThread, *, timeout: float | None) -> int:
    """Copies a thread, or forks it, and returns how many checkpoints. Raises ThreadExists, CheckpointNotFound."""
    request_id = copy.request_id or secrets.token_bytes(16)

    async def work(session: Session) -> int:
        # A sweep of the target that doesn't see what is copied there might take away the names that it needs.
        await session.fetch("share_pieces", copy.tenant, copy.target_thread_id)
        return await _copy(session, copy, request_id)

    # Every statement reads the source as it was at one moment.
    return await database.transact(work, timeout=timeout, isolation="repeatable_read")


async def _copy(session: Session, copy: CopyThread, request_id: bytes) -> int:
    tenant, target = copy.tenant, copy.target_thread_id
    copied = await session.fetch_value("copied_before", tenant, target, request_id)
    if copied:
        return int(copied)
    leases = {target: copy.lease_token} if copy.lease_token else {}
    async with holding_off_leases(session, tenant, [target], leases):
        return await _copy_to_free(session, copy, request_id)


async def _copy_to_free(session: Session, copy: CopyThread, request_id: bytes) -> int:
    tenant, source, target = copy.tenant, copy.source_thread_id, copy.target_thread_id
    there = await session.fetch_row("thread_holds", tenant, source)
    assert there is not None
    if not (there["checkpoints"] or there["writes"]):
        return 0
    taken = await session.fetch_row("thread_holds", tenant, target)
    assert taken is not None
    if source == target or taken["checkpoints"] or (taken["writes"] and there["checkpoints"]):
        raise ThreadExists(target)
    left_behind: str | None = None
    if copy.checkpoint_id is None:
        selected = await session.fetch_row("select_thread", tenant, source)
    else:
        selected = await session.fetch_row("select_fork", tenant, source, copy.checkpoint_id)
        if selected is None or selected["checkpoint_ids"] is None:
            raise CheckpointNotFound(source, copy.checkpoint_id)
        if selected["went_on"]:
            left_behind = copy.checkpoint_id
    assert selected is not None
    threads = (tenant, source, target)
    checkpoints = (selected["namespaces"] or [], selected["checkpoint_ids"] or [])
    await session.fetch("copy_heads", *threads, *checkpoints, request_id)
    await session.fetch("copy_checkpoints", *threads, *checkpoints, request_id)
    await session.fetch("copy_values", *threads)
    if copy.checkpoint_id is None:
        await session.fetch("copy_all_writes", *threads)
    else:
        await session.fetch("copy_writes", *threads, *checkpoints, left_behind)
    await session.fetch("copy_pieces", *threads)
    return len(checkpoints[0])
