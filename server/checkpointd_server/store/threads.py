"""Deleting threads and runs, and pruning: each one transaction that locks the heads it changes first.

What they delete may have been the last to refer to pieces. So they put the threads on a list, and return them to be
swept once the transaction is over.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from checkpointd_server.domain.model import PruneStrategy
from checkpointd_server.store.database import Database, Row, Session
from checkpointd_server.store.leases import holding_off_leases


class Deleted(NamedTuple):
    """What a deletion did."""

    checkpoints: int
    """How many went."""
    to_sweep: list[str]
    """The threads that may have pieces now that nothing refers to."""


async def delete_threads(
    database: Database, tenant: str, thread_ids: Sequence[str], *, leases: Mapping[str, int], timeout: float | None
) -> Deleted:
    """Deletes threads whole. Raises LeaseHeld, LeaseLost."""
    targets = sorted(set(thread_ids))

    async def work(session: Session) -> Deleted:
        async with holding_off_leases(session, tenant, targets, leases):
            await session.fetch("delete_heads", tenant, targets)
            checkpoints = int(await session.fetch_value("delete_headless", tenant, targets))
            return Deleted(checkpoints, await _queue(session, tenant, targets))

    return await database.transact(work, timeout=timeout)


async def delete_runs(
    database: Database, tenant: str, run_ids: Sequence[str], *, leases: Mapping[str, int], timeout: float | None
) -> Deleted:
    """Deletes the checkpoints of runs, and the values that no other refers to. Raises LeaseHeld, LeaseLost."""
    runs = sorted(set(run_ids))

    async def work(session: Session) -> Deleted:
        threads = [row["thread_id"] for row in await session.fetch("threads_of_runs", tenant, runs)]
        async with holding_off_leases(session, tenant, threads, leases):
            checkpoints = await _delete_runs(session, tenant, runs, threads)
            return Deleted(checkpoints, await _queue(session, tenant, threads))

    return await database.transact(work, timeout=timeout)


async def _queue(session: Session, tenant: str, threads: Sequence[str]) -> list[str]:
    return [row["thread_id"] for row in await session.fetch("queue_sweeps", tenant, threads)]


async def _delete_runs(session: Session, tenant: str, runs: Sequence[str], threads: Sequence[str]) -> int:
    heads = await session.fetch("lock_heads_of_runs", tenant, runs, threads)
    if not heads:
        return 0
    touched = [head["thread_id"] for head in heads], [head["checkpoint_ns"] for head in heads]
    deleted = await session.fetch_row("delete_runs", tenant, runs, *touched)
    assert deleted is not None
    await _free_values(session, tenant, deleted)
    await session.fetch("renew_heads", tenant, *touched)
    return int(deleted["checkpoints"])


async def prune_threads(
    database: Database,
    tenant: str,
    thread_ids: Sequence[str],
    strategy: PruneStrategy,
    *,
    leases: Mapping[str, int],
    timeout: float | None,
) -> Deleted:
    """Removes history from threads. Raises LeaseHeld, LeaseLost."""
    if strategy is PruneStrategy.DELETE:
        return await delete_threads(database, tenant, thread_ids, leases=leases, timeout=timeout)
    targets = sorted(set(thread_ids))

    async def work(session: Session) -> Deleted:
        async with holding_off_leases(session, tenant, targets, leases):
            checkpoints = sum([await _keep_latest(session, tenant, thread_id) for thread_id in targets])
            return Deleted(checkpoints, await _queue(session, tenant, targets))

    return await database.transact(work, timeout=timeout)


async def _keep_latest(session: Session, tenant: str, thread_id: str) -> int:
    await session.fetch("lock_heads", tenant, thread_id)
    newest = await session.fetch("newest_of_namespaces", tenant, thread_id)
    root_id = next((row["checkpoint_id"] for row in newest if row["checkpoint_ns"] == ""), None)
    finished = [row["checkpoint_ns"] for row in newest if _is_finished_call(row, root_id)]
    pruned = 0
    if finished:
        pruned += await session.fetch_value("delete_namespaces", tenant, thread_id, finished)
    for row in newest:
        if row["checkpoint_ns"] not in finished:
            pruned += await _prune_namespace(session, tenant, thread_id, row)
    return pruned


def _is_finished_call(row: Row, root_id: str | None) -> bool:
    """Whether a namespace holds a subgraph's call that the root graph has gone on from.

    A call's namespace has its task's id behind a colon; a subgraph with a memory of its own (checkpointer=True) has
    none. Runs save in the background, so that a call may be there before the root checkpoint that it belongs to: such a
    one stays.
    """
    return ":" in row["checkpoint_ns"] and row["has_root"] and row["root_id"] != root_id


async def _prune_namespace(session: Session, tenant: str, thread_id: str, row: Row) -> int:
    namespace: tuple[Any, ...] = (tenant, thread_id, row["checkpoint_ns"])
    floor = row["checkpoint_id"]
    if row["delta_channels"]:
        floor = await session.fetch_value("lowest_ancestor", *namespace, floor, row["delta_channels"])
    if row["has_sends"]:
        floor = min(floor, row["parent_checkpoint_id"])
    # All from the floor on are kept, siblings of the ancestors too: what remains is then told by one id, which the
    # namespace's head notes for puts to be checked against.
    deleted = await session.fetch_row("delete_below", *namespace, floor)
    assert deleted is not None
    if deleted["checkpoints"]:
        await _free_values(session, tenant, deleted)
        await session.fetch("mark_pruned", *namespace, floor)
    if deleted["checkpoints"] or (row["parent_checkpoint_id"] or floor) < floor:
        await session.fetch("forget_parents", *namespace, floor)
    return int(deleted["checkpoints"])


async def _free_values(session: Session, tenant: str, deleted: Row) -> None:
    """Deletes the values of deleted checkpoints that no remaining one refers to."""
    if deleted["channels"]:
        freed = [deleted[column] for column in ("thread_ids", "namespaces", "channels", "versions")]
        await session.fetch("delete_unreferenced_values", tenant, *freed)
