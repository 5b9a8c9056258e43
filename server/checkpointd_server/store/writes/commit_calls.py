"""Calls of a commit in the database: for groups together, and for writes one by one where that doesn't store them."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable, Sequence
from time import perf_counter

from checkpointd_server.domain.checkpoints import PendingWrite
from checkpointd_server.domain.errors import CheckpointdError, DeadlineExceeded
from checkpointd_server.domain.limits import Limits
from checkpointd_server.domain.tracing import current_spans
from checkpointd_server.store.connections.database import Database
from checkpointd_server.store.writes.columns import Rows
from checkpointd_server.store.writes.merge import Group
from checkpointd_server.store.writes.outcomes import (
    Outcome,
    finish,
    read_outcomes,
    result_of_refused,
    stored,
    versions_of_stored,
)

BUSY_TRIES = 5
"""Number of attempts of a write whose thread's row keeps disappearing."""


class CommitCalls:
    """Stores groups of writes, each call in a transaction of its own."""

    def __init__(self, database: Database, limits: Limits) -> None:
        self._database = database
        self._limits = limits

    async def store(self, groups: Sequence[Group], *, waits: bool = False) -> list[Outcome]:
        """Stores groups in one transaction.

        Args:
            groups: The groups, of one namespace each.
            waits: Whether to wait for threads that another transaction holds. False: their groups are "busy".

        Returns:
            The outcome of each group.

        Raises:
            DatabaseUnavailable: The database can't be reached.
            DeadlineExceeded: The time of the most patient caller runs out.
            Overloaded: There is no connection for it.
        """
        metrics, begun = self._database.metrics, perf_counter()
        if self._database.is_traced:
            current_spans.set([span for group in groups for pending in group.entries for span in pending.spans])
        try:
            outcomes = await self._ask(Rows(groups, self._limits), len(groups), waits, _latest(groups))
        except BaseException:
            metrics.failed_commits += 1
            raise
        metrics.commits += 1
        metrics.commit_seconds.observe(perf_counter() - begun)
        metrics.commit_writes.observe(sum([len(group.entries) for group in groups]))
        return outcomes

    async def _ask(self, rows: Rows, groups: int, waits: bool, timeout: float | None) -> list[Outcome]:
        if rows.are_plain and not waits:
            versions = await self._database.fetch_value("commit_group", *rows.as_group(), timeout=timeout)
            if versions is not None:
                return [stored(*versions)]
        row = await self._database.fetch_row("commit_writes", *rows.as_commit(waits=waits), timeout=timeout)
        return read_outcomes(row.values(), groups)

    async def _store_alone(self, single: Group) -> Outcome:
        """Stores one write, waiting for its thread."""
        for _ in range(BUSY_TRIES):
            (outcome,) = await self.store([single], waits=True)
            if outcome.reason != "busy":
                break
        return outcome

    async def store_each_alone(self, groups: Sequence[Group]) -> None:
        """Stores each write of groups in a transaction of its own, in order: one of them fails whatever it shares."""
        for group in groups:
            for pending, request_id in zip(group.entries, group.request_ids, strict=True):
                if pending.result is None:
                    await self._finish_alone(Group(pending, request_id))

    async def store_in_turns(self, groups: Sequence[Group]) -> None:
        """Stores the next write of all groups together, then the one after it, and so on."""
        remaining = [deque(zip(group.entries, group.request_ids, strict=True)) for group in groups]
        while singles := [single for entries in remaining if (single := _next_wanted(entries)) is not None]:
            try:
                outcomes = await self.store(singles)
            except DeadlineExceeded as error:
                # Later writes may have more time: the next stream repeats what a broken one has abandoned here.
                finish((single.entries[0], error) for single in singles)
                continue
            told = list(zip(singles, outcomes, strict=True))
            finish((one.entries[0], self._result(one, outcome)) for one, outcome in told if outcome.reason != "busy")
            for single, outcome in told:
                if outcome.reason == "busy" and single.entries[0].result is None:
                    await self._finish_alone(single)

    async def _finish_alone(self, single: Group) -> None:
        """Stores one write, waiting for its thread, and delivers its result."""
        (pending,) = single.entries
        try:
            finish([(pending, self._result(single, await self._store_alone(single)))])
        except Exception as error:
            finish([(pending, error)])

    def _result(self, single: Group, outcome: Outcome) -> int | CheckpointdError:
        if outcome.reason == "ok":
            return versions_of_stored(single, outcome)[0]
        return result_of_refused(single.entries[0].write, outcome, self._limits)


def _next_wanted(entries: deque[tuple[PendingWrite, bytes]]) -> Group | None:
    """Removes the next write that somebody waits for, with those before it. Those whose time is up are refused."""
    now = asyncio.get_running_loop().time()
    while entries:
        pending, request_id = entries.popleft()
        if pending.deadline is not None and pending.deadline <= now:
            finish([(pending, DeadlineExceeded())])
        elif pending.result is None:
            return Group(pending, request_id)
    return None


def _latest(groups: Iterable[Group]) -> float | None:
    """Returns the longest time that any of the callers still waits, in seconds. None: no limit."""
    now = asyncio.get_running_loop().time()
    remaining = 0.0
    for group in groups:
        for pending in group.entries:
            if pending.deadline is None:
                return None
            remaining = max(remaining, pending.deadline - now)
    return remaining
