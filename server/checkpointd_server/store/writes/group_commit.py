"""Group commit: writes that arrive while commits are in flight share the next one.

Writes wait in a queue per thread, because only one transaction at a time can lock a thread. A commit takes the writes
of all free threads, merges writes of a namespace that build on each other into a group, and stores the groups by one
function call. Each write has its own check, version and error: if a group isn't simply stored, its writes are tried one
by one. This module decides when and with whom; commit_calls.py stores.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Iterable, Sequence

from checkpointd_server.domain.checkpoints import PendingWrite, PutCheckpoint
from checkpointd_server.domain.errors import (
    DatabaseUnavailable,
    DeadlineExceeded,
    InvalidArgument,
    Overloaded,
)
from checkpointd_server.domain.limits import Limits
from checkpointd_server.domain.serializers import SerializerFamily
from checkpointd_server.store.connections.database import Database
from checkpointd_server.store.retention.thread_times import ThreadTimes
from checkpointd_server.store.writes.commit_calls import BUSY_TRIES, CommitCalls
from checkpointd_server.store.writes.merge import Group, uploads_of
from checkpointd_server.store.writes.outcomes import finish, result_of_refused, versions_of_stored

MAX_IN_FLIGHT = 2
"""Number of concurrent commits: while one is written to disk, the next is assembled."""
MAX_SLOW = 2
"""Maximum number of further commits that wait for the lock of one thread each."""
SLOW_SECONDS = 0.05
"""Time after which a commit no longer counts as in flight, in seconds: it waits for a lock."""
MAX_WRITES = 128
"""Maximum number of writes in a commit."""
MAX_BYTES = 4 * 1024 * 1024
"""Size at which a commit is full, in bytes of values. A larger write is committed alone."""
_TICK_SECONDS = 0.02
"""How often timeouts are checked while there are writes, in seconds."""

_logger = logging.getLogger(__name__)


_Queued = tuple[PendingWrite, float]
"""A write that waits for its commit, and since when."""


class _Commit:
    """Writes that are stored together, and the threads that they reserve."""

    def __init__(self, groups: list[Group], since: float, *, tries: int = 0) -> None:
        self.groups = groups
        self.threads = {group.namespace.thread_id for group in groups}
        self.since = since
        self.tries = tries
        """How often its threads' locks were taken."""
        self.is_slow = tries > 0
        """True if it waits for a lock, and so doesn't count as in flight."""
        self.task: asyncio.Task[None] | None = None
        self.has_begun = False
        """True if the task has begun. A task that is cancelled before that never runs its cleanup."""

    @property
    def entries(self) -> Iterable[PendingWrite]:
        return (pending for group in self.groups for pending in group.entries)

    @property
    def is_wanted(self) -> bool:
        """True if anybody still waits for it."""
        return any(pending.result is None for pending in self.entries)


class GroupCommit:
    """Stores the writes of a tenant, with concurrent ones in one commit."""

    def __init__(self, database: Database, limits: Limits, times: ThreadTimes | None = None) -> None:
        self._database = database
        self._limits = limits
        self._times = times
        self._calls = CommitCalls(database, limits)
        self._queues: dict[str, deque[_Queued]] = {}
        self._ready: deque[str] = deque()
        """Threads with queued writes that are in no commit."""
        self._commits: set[_Commit] = set()
        self._locked: deque[_Commit] = deque()
        """The commits that wait for a lock, and those that are about to."""
        self._busy: set[str] = set()
        self._queued = 0
        self._in_flight = 0
        self._slow = 0
        self._scheduled = False
        self._beginner: asyncio.Task[None] | None = None
        """The task that will begin the next commit."""
        self._ticking = False

    @property
    def is_idle(self) -> bool:
        """True if nothing is in flight or queued."""
        return not self._queued and not self._commits and not self._locked

    def submit(self, writes: Sequence[PendingWrite]) -> None:
        """Queues writes in order."""
        loop = asyncio.get_running_loop()
        now, queue = loop.time(), self._database.queue
        refused: list[tuple[PendingWrite, Exception]] = []
        room = queue.room_for_writes(self._database.tenant)
        for number, pending in enumerate(writes):
            if number >= room and (refusal := queue.refuse_write(self._database.tenant, self._queued)) is not None:
                refused.append((pending, refusal))
                continue
            thread_id = pending.write.namespace.thread_id
            waiting = self._queues.get(thread_id)
            if waiting is None:
                waiting = self._queues[thread_id] = deque()
                if thread_id not in self._busy:
                    self._ready.append(thread_id)
            self._enqueue(waiting, (pending, now))
        if refused:
            loop.call_soon(finish, refused)
        if not self._scheduled:
            # After the other writes of this iteration of the event loop have arrived.
            self._scheduled = True
            if self._in_flight or self._locked:
                loop.call_soon(self._begin)
            else:
                self._beginner = loop.create_task(self._begin_here())
        if not self._ticking:
            self._ticking = True
            loop.call_later(_TICK_SECONDS, self._tick)

    def _begin(self) -> None:
        """Begins commits while there are writes and room for another commit."""
        self._scheduled = False
        while self._locked and self._slow < MAX_SLOW:
            locked = self._locked.popleft()
            if locked.is_wanted:
                self._start(locked)
            else:
                self._release(locked, locked.threads)
        while self._ready and self._in_flight < MAX_IN_FLIGHT:
            groups = self._take()
            if not groups:
                return
            self._start(_Commit(groups, asyncio.get_running_loop().time()))

    async def _begin_here(self) -> None:
        """Begins a commit in the running task, which saves an iteration of the event loop if nothing is in flight."""
        self._scheduled, self._beginner = False, None
        commit = None
        if self._ready and not self._in_flight and (groups := self._take()):
            commit = _Commit(groups, asyncio.get_running_loop().time())
            self._in_flight += 1
            self._commits.add(commit)
            commit.task = asyncio.current_task()
        self._begin()
        if commit is not None:
            await self._run(commit)

    def _take(self) -> list[Group]:
        """Removes the writes of the next commit from the queues."""
        groups: list[Group] = []
        taken = size = 0
        oldest = now = asyncio.get_running_loop().time()
        while self._ready and taken < MAX_WRITES:
            thread_id = self._ready[0]
            waiting = self._queues[thread_id]
            of_thread: dict[str, Group] = {}
            uploads: set[bytes] = set()
            serializer: SerializerFamily | None = None
            is_full = False
            if waiting:  # empty where all of it was cancelled
                oldest = min(oldest, waiting[0][1])
            while waiting and taken < MAX_WRITES:
                pending = waiting[0][0]
                if pending.result is not None:  # its caller has given up
                    self._dequeue(waiting)
                    continue
                if taken and size + pending.size > MAX_BYTES:
                    is_full = True
                    break
                namespace = pending.write.namespace.checkpoint_ns
                group = of_thread.get(namespace)
                named = uploads_of(pending.write)
                if named and len(set(named)) < len(named):
                    self._dequeue(waiting)
                    finish([(pending, InvalidArgument("upload_id", "is named twice; an upload is for one value"))])
                    continue
                if (group is not None and not group.admits(pending)) or (named and not uploads.isdisjoint(named)):
                    break
                family = pending.write.serializer
                if family and serializer and family is not serializer:
                    break
                serializer = serializer or family
                if group is None:
                    of_thread[namespace] = Group(pending)
                else:
                    group.add(pending)
                uploads.update(named)
                self._dequeue(waiting)
                taken += 1
                size += pending.size
            if not of_thread and is_full:
                break
            self._ready.popleft()
            if of_thread:
                groups += of_thread.values()
                self._busy.add(thread_id)
            if not waiting:
                del self._queues[thread_id]
            if is_full:
                break
        self._database.metrics.commit_waits.observe(now - oldest)
        return groups

    def _enqueue(self, waiting: deque[_Queued], queued: _Queued) -> None:
        waiting.append(queued)
        self._queued += 1
        self._database.queue.queued_writes += 1

    def _dequeue(self, waiting: deque[_Queued]) -> _Queued:
        self._queued -= 1
        self._database.queue.queued_writes -= 1
        return waiting.popleft()

    def _start(self, commit: _Commit) -> None:
        self._slow += commit.is_slow
        self._in_flight += not commit.is_slow
        self._commits.add(commit)
        commit.task = asyncio.get_running_loop().create_task(self._run(commit))

    def _release(self, commit: _Commit, threads: Iterable[str]) -> None:
        """Makes threads available to the next commit."""
        for thread_id in list(threads):
            commit.threads.discard(thread_id)
            self._busy.discard(thread_id)
            if thread_id in self._queues:
                self._ready.append(thread_id)

    async def _run(self, commit: _Commit) -> None:
        commit.has_begun = True
        try:
            await self._store(commit)
        except Exception as error:
            finish((pending, error) for pending in commit.entries)
        finally:
            # Some have no result only if this task was cancelled: no caller may wait forever.
            finish([(pending, DeadlineExceeded()) for pending in commit.entries if pending.result is None])
            commit.task = None  # breaks a reference cycle: a cancelled task keeps this frame
            self._commits.discard(commit)
            self._slow -= commit.is_slow
            self._in_flight -= not commit.is_slow
            self._release(commit, commit.threads)
            self._begin()

    async def _store(self, commit: _Commit) -> None:
        """Stores the groups of a commit, and refused groups write by write."""
        writes = [pending.write for group in commit.groups for pending in group.entries]
        timed = [write for write in writes if isinstance(write, PutCheckpoint) and write.ttl_seconds is not None]
        if timed and self._times is not None:
            await self._times.set_ttls(timed)
        try:
            # The first attempt doesn't wait for locked threads, so no commit delays those behind it.
            outcomes = await self._calls.store(commit.groups, waits=commit.tries > 0)
        except (DatabaseUnavailable, DeadlineExceeded, Overloaded):
            raise
        except Exception as error:
            if sum(len(group.entries) for group in commit.groups) == 1:
                raise
            _logger.info("a commit failed, storing its writes one by one: %s", type(error).__name__)
            await self._calls.store_each_alone(commit.groups)
            return
        locked: dict[str, list[Group]] = {}
        refused: list[Group] = []
        results: list[tuple[PendingWrite, int | Exception]] = []
        for group, outcome in zip(commit.groups, outcomes, strict=True):
            if outcome.reason == "ok":
                results += zip(group.entries, versions_of_stored(group, outcome), strict=True)
            elif outcome.reason == "busy" and commit.tries < BUSY_TRIES:
                locked.setdefault(group.namespace.thread_id, []).append(group)
            elif len(group.entries) == 1:
                results.append((group.entries[0], result_of_refused(group.entries[0].write, outcome, self._limits)))
            else:
                refused.append(group)
        finish(results)
        if locked:
            self._set_aside(commit, locked)
        if refused:
            self._release(commit, commit.threads.difference(group.namespace.thread_id for group in refused))
            self._begin()
            await self._calls.store_in_turns(refused)

    def _set_aside(self, commit: _Commit, locked: dict[str, list[Group]]) -> None:
        """Lets what somebody else has locked wait by itself, thread by thread."""
        for thread_id, groups in locked.items():
            commit.groups = [group for group in commit.groups if group.namespace.thread_id != thread_id]
            commit.threads.discard(thread_id)
            self._locked.append(_Commit(groups, commit.since, tries=commit.tries + 1))
        self._begin()

    def _tick(self) -> None:
        """Rejects writes that waited too long, and stops counting commits that wait for a lock."""
        self._ticking = False
        if self.is_idle:
            return
        loop = asyncio.get_running_loop()
        now, queue = loop.time(), self._database.queue
        late: list[tuple[PendingWrite, Exception]] = []
        for waiting in self._queues.values():
            for _ in range(len(waiting)):
                pending, since = self._dequeue(waiting)
                if pending.deadline is not None and pending.deadline <= now:
                    late.append((pending, DeadlineExceeded()))
                elif since + queue.timeout <= now:
                    late.append((pending, queue.overloaded()))
                elif pending.result is None:
                    self._enqueue(waiting, (pending, since))
        for commit in [*self._commits, *self._locked]:
            late += [
                (pending, DeadlineExceeded())
                for pending in commit.entries
                if pending.deadline is not None and pending.deadline <= now
            ]
        finish(late)
        for commit in self._commits:
            if commit.has_begun and not commit.is_wanted:
                assert commit.task is not None
                commit.task.cancel()
            elif not commit.is_slow and self._slow < MAX_SLOW and commit.since + SLOW_SECONDS <= now:
                commit.is_slow = True
                self._slow += 1
                self._in_flight -= 1
        self._begin()
        self._ticking = True
        loop.call_later(_TICK_SECONDS, self._tick)
