"""Group commit: writes that arrive while a commit is under way share the next one.

A write on its own is stored at once, by its own statement. While as many commits are under way as help, writes wait in
line; the next commit takes all of them that may go together, in one statement. Each keeps its own check, version and
error. The writes on one namespace stay in the order in which they came: a namespace is in one commit at a time, as one
put with the task writes that go with it, or as task writes alone.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial

from checkpointd_server.domain.errors import CheckpointdError, DatabaseUnavailable, DeadlineExceeded, Overloaded
from checkpointd_server.domain.model import Namespace, Precondition, PutCheckpoint, PutWrites
from checkpointd_server.store import puts
from checkpointd_server.store.batches import batch_arguments
from checkpointd_server.store.database import Database
from checkpointd_server.store.line import Line

COMMITS_UNDER_WAY = 2
"""How many commits are under way at once: while the disk works on one, the next is put together."""
SLOW_SECONDS = 0.05
"""After how long a commit no longer counts as under way: it waits for a lock, and must not hold up the others."""
MAX_WRITES = 128
"""How many writes share a commit at the most."""
MAX_BYTES = 4 * 1024 * 1024
"""Where a commit is closed, in bytes of values. A larger write goes alone."""

Write = PutCheckpoint | PutWrites

_logger = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class Entry:
    """A write that waits for its commit."""

    write: Write
    size: int
    deadline: float | None
    """When its caller gives up, on the event loop's clock."""
    answer: asyncio.Future[int]
    taken: bool = False
    """Whether a commit has it."""

    def finish(self, version: int) -> None:
        """Answers with the version of what was stored."""
        if not self.answer.done():
            self.answer.set_result(version)

    def fail(self, error: Exception) -> None:
        """Answers with an error."""
        if not self.answer.done():
            # Where a known error came from says nothing. Those frames hold this entry, and would be kept by it in turn.
            known = isinstance(error, CheckpointdError)
            self.answer.set_exception(error.with_traceback(None) if known else error)


class Unit:
    """What a commit does in one namespace: a put with the writes that go with it, or task writes alone."""

    def __init__(self, entry: Entry) -> None:
        self.entries = [entry]
        self.put = entry.write if isinstance(entry.write, PutCheckpoint) else None
        self.precondition = entry.write.precondition
        """What decides for all of them. Where it doesn't hold, each is looked at by itself."""
        self._tasks = _tasks_of(entry.write)

    def admits(self, entry: Entry) -> bool:
        """Whether a later write of the namespace may go with these: if one check decides for all of them."""
        write = entry.write
        if write.lease_token != self.entries[0].write.lease_token or not self._agrees_with(write.precondition):
            return False
        put = write if isinstance(write, PutCheckpoint) else self.put
        # What comes after a conditional put goes through for being the same writer's, or not at all.
        if put is not None and put.precondition is not None and not _expects_itself(put):
            return False
        if isinstance(write, PutCheckpoint):
            return self.put is None
        # One statement can't write a row twice.
        return self._tasks.isdisjoint(_tasks_of(write))

    def add(self, entry: Entry) -> None:
        """Adds a write that `admits` has let through."""
        self.entries.append(entry)
        self._tasks |= _tasks_of(entry.write)
        if isinstance(entry.write, PutCheckpoint):
            self.put = entry.write
        if self.precondition is not None and self.precondition != entry.write.precondition:
            self.precondition = replace(self.precondition, if_version_match=None)

    def _agrees_with(self, precondition: Precondition | None) -> bool:
        """Whether one check decides for what expects this, too.

        A run expects the version that it knows, or that it was the last to write itself. What it sent while its put was
        under way knows another version than what it sent afterwards; but it was the last, and that is enough for both.
        """
        if precondition is None or self.precondition is None:
            return precondition is self.precondition
        if precondition == self.precondition:
            return True
        return precondition.if_last_writer == self.precondition.if_last_writer != b""

    def calls(self) -> tuple[PutCheckpoint | None, list[PutWrites]]:
        """Returns the put and the writes, all of them with the precondition that decides."""
        put, writes = None, list[PutWrites]()
        for entry in self.entries:
            write = entry.write
            if write.precondition != self.precondition:
                write = replace(write, precondition=self.precondition)
            if isinstance(write, PutCheckpoint):
                put = write
            else:
                writes.append(write)
        return put, writes

    def fits_a_batch(self) -> bool:
        """Whether the statement for batches can do it; else its entries are stored one by one."""
        if self.put is None or self.put.precondition is None:
            return True
        return self.put.precondition.if_last_writer == self.put.writer


class Commits:
    """Stores the writes of a tenant, many in one commit where many come at once."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._waiting: deque[Entry] = deque()
        self._busy: set[Namespace] = set()
        self._under_way = 0
        self._scheduled = False
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def is_idle(self) -> bool:
        """Whether nothing is under way, nor waits."""
        return not self._waiting and not self._busy

    async def store(self, write: Write, *, in_company: bool, timeout: float | None) -> int:
        """Stores a write and returns its namespace's version. Raises what `puts` raises.

        Args:
            write: The write.
            in_company: Whether others come at the same moment, which may share its commit.
            timeout: How long it may take, in seconds.
        """
        at_once = self._under_way < COMMITS_UNDER_WAY and not self._waiting and write.namespace not in self._busy
        if at_once and not in_company:
            close = self._open((write.namespace,))
            try:
                return await _store_alone(self._database, write, timeout)
            finally:
                close()
        loop = asyncio.get_running_loop()
        answer = loop.create_future()
        deadline = None if timeout is None else loop.time() + timeout
        line = self._database.line
        with line.queued():
            entry = Entry(write, _size_of(write), deadline, answer)
            self._waiting.append(entry)
            give_up = loop.call_later(line.patience, _give_up, entry, line)
            if not in_company:
                self._begin()
            elif not self._scheduled:
                self._scheduled = True
                # When the others of this round of the event loop have come.
                loop.call_soon(self._begin)
            try:
                async with asyncio.timeout_at(deadline):
                    return int(await answer)
            except TimeoutError as error:
                raise DeadlineExceeded from error
            finally:
                give_up.cancel()
                # The answer may be an error, which keeps this frame. Kept by it in turn, it would stay, values and all.
                del entry, answer

    def _begin(self) -> None:
        """Begins commits, as long as there is something to store and room for one more."""
        self._scheduled = False
        while self._waiting and self._under_way < COMMITS_UNDER_WAY:
            units = self._take()
            if not units:
                return
            entries = list(_entries(units.values()))
            close = self._open(units.keys())
            task = asyncio.get_running_loop().create_task(self._commit(list(units.values())))
            self._tasks.add(task)
            task.add_done_callback(partial(self._ended, close))
            for entry in entries:
                entry.answer.add_done_callback(partial(_cancel_if_unwanted, task, entries))

    def _ended(self, close: Callable[[], None], task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        close()

    def _open(self, namespaces: Collection[Namespace]) -> Callable[[], None]:
        """Counts a commit as under way, and keeps its namespaces to itself. Returns what ends both."""
        slow = False

        def give_way() -> None:
            nonlocal slow
            slow = True
            self._under_way -= 1
            self._begin()

        def close() -> None:
            timer.cancel()
            self._under_way -= not slow
            self._busy.difference_update(namespaces)
            self._begin()

        self._under_way += 1
        self._busy.update(namespaces)
        timer = asyncio.get_running_loop().call_later(SLOW_SECONDS, give_way)
        return close

    def _take(self) -> dict[Namespace, Unit]:
        """Takes what the next commit stores out of the line, in order."""
        units: dict[Namespace, Unit] = {}
        left: deque[Entry] = deque()
        blocked = set(self._busy)
        taken = size = 0
        for entry in self._waiting:
            if entry.answer.done():
                continue
            namespace = entry.write.namespace
            full = taken >= MAX_WRITES or (taken > 0 and size + entry.size > MAX_BYTES)
            unit = units.get(namespace)
            if full or namespace in blocked or (unit is not None and not unit.admits(entry)):
                # What comes later in this namespace has to come later.
                blocked.add(namespace)
                left.append(entry)
                continue
            if unit is None:
                units[namespace] = Unit(entry)
            else:
                unit.add(entry)
            entry.taken = True
            taken += 1
            size += entry.size
        self._waiting = left
        return units

    async def _commit(self, units: list[Unit]) -> None:
        try:
            batch = [unit for unit in units if unit.fits_a_batch()]
            stored = set[Unit]()
            if sum(len(unit.entries) for unit in batch) > 1:
                stored = await self._store_together(batch)
            if left := [unit for unit in units if unit not in stored]:
                # Each for itself: one may wait for a lock.
                await asyncio.gather(*[self._store_one_by_one(unit.entries) for unit in left])
        except Exception as error:
            for entry in _entries(units):
                entry.fail(error)
        finally:
            for entry in _entries(units):
                # Only where this task was cancelled: nobody may wait for ever.
                entry.answer.cancel()

    async def _store_together(self, batch: list[Unit]) -> set[Unit]:
        """Stores units in one statement, and returns those that went through.

        Those that were refused, and all of them if the statement failed for the sake of one, are left to be stored
        alone: that tells each what is wrong with it.
        """
        # In one order in every server, so that two that insert the same heads don't wait for each other.
        batch.sort(key=lambda unit: unit.entries[0].write.namespace)
        for unit in batch:
            _name_writes(unit)
        timeout = _latest(_entries(batch))
        try:
            versions = await self._store_units([unit.calls() for unit in batch], timeout)
        except (DatabaseUnavailable, DeadlineExceeded, Overloaded):
            raise
        except Exception as error:
            _logger.info("a commit of %d writes failed, storing them one by one: %s", len(batch), type(error).__name__)
            return set()
        for number, version in versions.items():
            for entry in batch[number].entries:
                entry.finish(version)
        return {batch[number] for number in versions}

    async def _store_units(
        self, units: list[tuple[PutCheckpoint | None, list[PutWrites]]], timeout: float | None
    ) -> dict[int, int]:
        """Stores units in one statement, and returns the versions of those that went through, by their position."""
        put, writes = units[0]
        if len(units) == 1 and put is not None:
            # A run's own step, while nobody else is there: the statement for that takes half the time.
            version = await puts.put_together(self._database, put, writes, timeout=timeout)
            return {} if version is None else {0: version}
        arguments = batch_arguments(units)
        rows = await self._database.run(lambda session: session.fetch("commit_batch", *arguments), timeout=timeout)
        return {row["number"]: row["version"] for row in rows}

    async def _store_one_by_one(self, entries: list[Entry]) -> None:
        for entry in entries:
            if entry.answer.done():
                continue
            try:
                entry.finish(await _store_alone(self._database, entry.write, _remaining(entry)))
            except Exception as error:
                entry.fail(error)


def _expects_itself(put: PutCheckpoint) -> bool:
    return put.precondition is not None and put.writer != b"" and put.precondition.if_last_writer == put.writer


async def _store_alone(database: Database, write: Write, timeout: float | None) -> int:
    if isinstance(write, PutCheckpoint):
        return await puts.put_checkpoint(database, write, timeout=timeout)
    return await puts.put_writes(database, write, timeout=timeout)


def _name_writes(unit: Unit) -> None:
    """Gives what has no request id one, so that storing it again after a lost answer is known for that."""
    for entry in unit.entries:
        if not entry.write.request_id:
            entry.write = replace(entry.write, request_id=puts.new_request_id())


def _size_of(write: Write) -> int:
    if isinstance(write, PutCheckpoint):
        values = sum(len(value.value.data) for value in write.values if value.value is not None)
        return values + len(write.body) + len(write.metadata.data) + _pieces_size(write)
    return sum(len(task_write.value.data) for task_write in write.writes) + _pieces_size(write)


def _pieces_size(write: Write) -> int:
    return sum(len(piece.data) for piece in write.pieces)


def _tasks_of(write: Write) -> set[tuple[str, str]]:
    if isinstance(write, PutCheckpoint):
        return set()
    return {(write.checkpoint_id, task_write.task_id) for task_write in write.writes}


def _cancel_if_unwanted(task: asyncio.Task[None], entries: list[Entry], _: asyncio.Future[int]) -> None:
    """Cancels a commit that nobody waits for any more, so that it gives its connection back."""
    if not task.done() and all(entry.answer.cancelled() for entry in entries):
        task.cancel()


def _give_up(entry: Entry, line: Line) -> None:
    """Refuses a write that no commit has taken."""
    if not entry.taken:
        entry.fail(line.overloaded())


def _entries(units: Iterable[Unit]) -> Iterator[Entry]:
    return (entry for unit in units for entry in unit.entries)


def _latest(entries: Iterator[Entry]) -> float | None:
    """Returns how long the most patient caller waits, in seconds. Each one's own deadline ends only its own wait."""
    remaining = [_remaining(entry) for entry in entries]
    return None if None in remaining else max(seconds for seconds in remaining if seconds is not None)


def _remaining(entry: Entry) -> float | None:
    return None if entry.deadline is None else max(entry.deadline - asyncio.get_running_loop().time(), 0.0)
