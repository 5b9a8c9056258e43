"""Runs of retention over a tenant's threads, in parts: previews and deletions."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from checkpointd_server.domain.retention import (
    RetentionAction,
    RetentionEffect,
    RetentionOutcome,
    RetentionPage,
    RetentionPolicy,
    RetentionPosition,
)
from checkpointd_server.store.connections.database import Database, Row
from checkpointd_server.store.retention.policies import as_json

SCAN = 1000
"""Number of threads among which one statement finds those to check."""
_BEGINNING = RetentionPosition(datetime(1, 1, 2, tzinfo=UTC), UUID(int=0))
_TRIES = 3
"""Number of attempts for a thread that others have locked, or write to while garbage is searched."""
_PAUSE_SECONDS = 0.05
_GARBAGE_BATCH = 500
"""Maximum number of values deleted in one transaction."""


async def preview(
    database: Database,
    policy: RetentionPolicy | None,
    *,
    after: RetentionPosition | None,
    scan: int,
    timeout: float | None,
) -> RetentionPage:
    """Returns what would be deleted from the next threads, without changing anything.

    Args:
        database: The database in the tenant's name.
        policy: A policy to try by itself, in place of the one with its name. None: the stored policies.
        after: Where the previous part ended.
        scan: The number of threads to check.
        timeout: How long each statement may take, in seconds.
    """
    extra = None if policy is None else as_json(policy)
    effects = []
    threads, position = await _next_threads(database, None, after, scan, timeout)
    for thread, thread_id in threads:
        plan = await database.fetch_row("preview_retention", thread, extra, timeout=timeout, reads=True)
        if plan["o_action"] != "none":
            until = plan["o_until"]
            outcome = RetentionOutcome.PLANNED if until is None else RetentionOutcome.HELD
            effects.append(_effect(thread_id, plan, outcome, plan["o_checkpoints"], until, plan["o_hold_by"]))
    return RetentionPage(effects, position)


async def run_part(
    database: Database,
    changed_at: datetime | None,
    *,
    after: RetentionPosition | None,
    scan: int,
    batch: int,
    timeout: float | None,
    go_on: Callable[[], Awaitable[bool]] | None = None,
) -> RetentionPage:
    """Applies the policies to the next threads.

    Args:
        database: The database in the tenant's name.
        changed_at: When the policies last changed: threads that were checked since are skipped, unless they were
            written to or something becomes due. None: none is skipped.
        after: Where the previous part ended.
        scan: The number of threads to search.
        batch: The maximum number of checkpoints deleted in one transaction.
        timeout: How long each statement may take, in seconds.
        go_on: Called before each step; False ends the part, whose threads are checked again later.
    """
    effects: list[RetentionEffect] = []
    threads, position = await _next_threads(database, changed_at, after, scan, timeout)
    for thread, thread_id in threads:
        if go_on is not None and not await go_on():
            return RetentionPage(effects, after)
        effect = await _retain(database, thread, thread_id, batch, timeout, go_on)
        if effect is not None:
            effects.append(effect)
    return RetentionPage(effects, position)


async def _next_threads(
    database: Database, changed_at: datetime | None, after: RetentionPosition | None, scan: int, timeout: float | None
) -> tuple[list[tuple[UUID, str]], RetentionPosition | None]:
    found = await database.fetch_row(
        "find_to_retain", changed_at, *(after or _BEGINNING), scan, timeout=timeout, reads=True
    )
    threads = list(zip(found["o_threads"], found["o_thread_ids"], strict=True))
    position = None if found["o_after"] is None else RetentionPosition(found["o_after_at"], found["o_after"])
    return threads, position


async def _plan(database: Database, thread: UUID, timeout: float | None) -> Row:
    return await database.fetch_row(
        "plan_retention", thread, 0, None, None, None, None, None, timeout=timeout, reads=True
    )


async def _retain(
    database: Database,
    thread: UUID,
    thread_id: str,
    batch: int,
    timeout: float | None,
    go_on: Callable[[], Awaitable[bool]] | None,
) -> RetentionEffect | None:
    """Applies what is due to one thread, step by step. None: nothing is due."""
    plan = await _plan(database, thread, timeout)
    if plan["o_is_exempt"]:
        return None
    effect = None
    due_at = plan["o_due_at"]
    is_done = plan["o_action"] == "none"
    if not is_done:
        effect = await _apply(database, thread, thread_id, plan, batch, timeout, go_on)
        if effect is None or (effect.action is RetentionAction.DELETE and effect.outcome is RetentionOutcome.DONE):
            return effect
        is_done = effect.outcome is RetentionOutcome.HELD
        due_at = min(
            filter(None, (due_at if due_at and due_at > plan["o_looked_at"] else None, effect.until)), default=due_at
        )
    has_garbage = plan["o_has_garbage"] or not is_done
    is_clean = not has_garbage or await _collect(database, thread, timeout)
    if is_done and is_clean:
        await database.fetch(
            "note_retained",
            thread,
            plan["o_active_at"],
            plan["o_looked_at"],
            due_at,
            effect is not None,
            timeout=timeout,
        )
    return effect


async def _apply(
    database: Database,
    thread: UUID,
    thread_id: str,
    plan: Row,
    batch: int,
    timeout: float | None,
    go_on: Callable[[], Awaitable[bool]] | None,
) -> RetentionEffect | None:
    deleted, tries, start = 0, 0, 0
    inner_ns, inner_ids = plan["o_inner_ns"], plan["o_inner_ids"]
    last: dict[str, Any] = dict(plan)
    has_begun = False
    outcome = RetentionOutcome.BUSY
    while True:
        part = slice(start, start + batch)
        begun = time.monotonic()
        step = await database.fetch_row(
            "retain_thread",
            thread,
            batch,
            plan["o_checkpoints"],
            plan["o_below"],
            plan["o_cut"],
            inner_ns[part],
            inner_ids[part],
            start + batch >= len(inner_ids),
            timeout=timeout,
        )
        deleted += step["o_checkpoints"]
        match step["o_outcome"]:
            case "busy":
                tries += 1
                if tries >= _TRIES:
                    outcome = RetentionOutcome.BUSY
                    break
                await asyncio.sleep(_PAUSE_SECONDS)
                continue
            case "held":
                until, hold_policy = step["o_until"], step["o_held_by"]
                return _effect(thread_id, plan, RetentionOutcome.HELD, plan["o_checkpoints"], until, hold_policy)
            case "none":
                outcome = RetentionOutcome.DONE
                start += batch
            case done:
                last, outcome, has_begun = {**plan, **dict(step)}, RetentionOutcome.DONE, True
                if done == "deleted":
                    last["o_action"] = "delete"
                if done == "deleted":
                    break
                if step["o_is_complete"]:
                    start += batch
        if start >= max(len(inner_ids), 1) and step["o_is_complete"]:
            break
        if go_on is not None and not await go_on():
            break
        await _let_others_in(begun)
    if outcome is RetentionOutcome.DONE and not has_begun:
        return None
    return _effect(thread_id, last, outcome, deleted)


async def _collect(database: Database, thread: UUID, timeout: float | None) -> bool:
    """Deletes values that nothing refers to. False: others kept writing to the thread."""
    for _ in range(_TRIES):
        found = await database.fetch("find_garbage", thread, timeout=timeout, reads=True)
        if not found:
            return True
        if all([await _free(database, thread, row, timeout) for row in found]):
            return True
        await asyncio.sleep(_PAUSE_SECONDS)
    return False


async def _free(database: Database, thread: UUID, garbage: Row, timeout: float | None) -> bool:
    channels, versions = garbage["o_channels"], garbage["o_versions"]
    for start in range(0, len(channels), _GARBAGE_BATCH):
        part = slice(start, start + _GARBAGE_BATCH)
        begun = time.monotonic()
        freed = await database.fetch_value(
            "free_garbage",
            thread,
            garbage["o_ns"],
            garbage["o_version"],
            channels[part],
            versions[part],
            timeout=timeout,
        )
        if not freed:
            return False
        await _let_others_in(begun)
    return True


async def _let_others_in(begun: float) -> None:
    """Pauses for the duration of a step.

    A put that waits for the thread's lock wakes up after the step; without a pause, the next step would lock first.
    """
    await asyncio.sleep(time.monotonic() - begun)


def _effect(
    thread_id: str,
    row: Row,
    outcome: RetentionOutcome,
    checkpoints: int,
    until: datetime | None = None,
    hold_policy: str | None = None,
) -> RetentionEffect:
    return RetentionEffect(
        thread_id=thread_id,
        action=RetentionAction(row["o_action"]),
        outcome=outcome,
        reason=row["o_reason"],
        policy=row["o_policy"] or "",
        checkpoints=checkpoints,
        until=until,
        hold_policy=hold_policy or "",
    )
