"""Group commit of changes to items: changes that arrive during a commit go into the next one."""

from __future__ import annotations

import asyncio
import secrets
from collections import deque
from collections.abc import Iterator, Sequence
from itertools import accumulate, chain
from typing import Any, TypeGuard

from checkpointd_server.domain.errors import (
    CheckpointdError,
    DatabaseUnavailable,
    DeadlineExceeded,
    ItemVersionConflict,
    Overloaded,
)
from checkpointd_server.domain.items import COMPONENT_BYTES, Changed, ItemChange, Namespace, PutItem
from checkpointd_server.store.connections.database import Database
from checkpointd_server.store.items.names import encode

MAX_CHANGES = 256
"""Number of changes at which a commit is full."""
MAX_COMMIT_BYTES = 4 * 1024 * 1024
"""Size in bytes at which a commit is full."""
COMMITS_AT_ONCE = 2
"""Maximum number of a tenant's commits in flight."""

Results = list[Changed | ItemVersionConflict]


class _Pending:
    """The changes of one caller, which are committed together."""

    __slots__ = ("changes", "deadline", "done", "size")

    def __init__(self, changes: Sequence[ItemChange], deadline: float | None, done: asyncio.Future[Results]) -> None:
        self.changes = changes
        self.deadline = deadline
        self.done = done
        self.size = sum([_size(change) for change in changes])


class ItemWrites:
    """Commits the changes of one tenant's items.

    Args:
        database: The database in the tenant's name.
        limit: The maximum number of waiting callers.
    """

    def __init__(self, database: Database, limit: int) -> None:
        self._database = database
        self._limit = limit
        self._waiting: deque[_Pending] = deque()
        self._commits: set[asyncio.Task[None]] = set()

    @property
    def is_idle(self) -> bool:
        """True if nothing is waiting or in progress."""
        return not self._waiting and not self._commits

    async def change(self, changes: Sequence[ItemChange], *, timeout: float | None) -> Results:
        """Commits changes together, and returns the outcome of each. Raises what `Database.fetch` raises.

        If the call is cancelled before its commit has begun, nothing is stored.
        """
        if len(self._waiting) >= self._limit:
            raise Overloaded("queue", limit=self._limit)
        loop = asyncio.get_running_loop()
        deadline = None if timeout is None else loop.time() + timeout
        pending = _Pending(changes, deadline, loop.create_future())
        self._waiting.append(pending)
        self._begin()
        try:
            async with asyncio.timeout(timeout):
                return await pending.done
        except TimeoutError as error:
            raise DeadlineExceeded from error

    def _begin(self) -> None:
        """Begins a commit if there is anything to commit and not too many are in flight."""
        while self._waiting and len(self._commits) < COMMITS_AT_ONCE:
            task = asyncio.get_running_loop().create_task(self._commit(self._take()))
            self._commits.add(task)
            task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._commits.discard(task)
        if not task.cancelled():
            self._begin()

    def _take(self) -> list[_Pending]:
        """Takes the changes of the next commit: those that have waited longest, at least one caller's."""
        taken: list[_Pending] = []
        changes = size = 0
        while self._waiting and (not taken or (changes < MAX_CHANGES and size < MAX_COMMIT_BYTES)):
            pending = self._waiting.popleft()
            if not pending.done.done():  # its caller still waits
                taken.append(pending)
                changes += len(pending.changes)
                size += pending.size
        return taken

    async def _commit(self, group: list[_Pending]) -> None:
        if not group:
            return
        try:
            try:
                results = await self._store([change for pending in group for change in pending.changes], _until(group))
            except (DatabaseUnavailable, DeadlineExceeded, Overloaded):
                raise
            except Exception:
                if len(group) == 1:
                    raise
                # Retry one by one, so that a change that can't be stored doesn't fail the others.
                for pending in group:
                    await self._commit([pending])
                return
        except Exception as error:
            for pending in group:
                if not pending.done.done():
                    pending.done.set_exception(_copy(error))
            return
        start = 0
        for pending in group:
            end = start + len(pending.changes)
            if not pending.done.done():
                pending.done.set_result(results[start:end])
            start = end

    async def _store(self, changes: Sequence[ItemChange], timeout: float | None) -> Results:
        if _are_plain_puts(changes):
            return await self._put(changes, timeout)
        return await self._change(changes, timeout)

    async def _change(self, changes: Sequence[ItemChange], timeout: float | None) -> Results:
        """Applies changes one by one, in the order of their keys, in one statement."""
        rows = await self._database.fetch(
            "change_items",
            [encode(change.key.namespace) for change in changes],
            [change.key.key for change in changes],
            [change.expected_version for change in changes],
            *_columns([change if isinstance(change, PutItem) else None for change in changes]),
            timeout=timeout,
        )
        results: dict[int, Changed | ItemVersionConflict] = {}
        for row in rows:
            change = changes[row["o_position"] - 1]
            if row["o_outcome"] == "conflict":
                results[row["o_position"]] = ItemVersionConflict(
                    *change.key,
                    expected_version=change.expected_version or 0,
                    current_version=row["o_version"],
                )
            else:
                results[row["o_position"]] = Changed(row["o_version"], row["o_outcome"] == "ok")
        return [results[number] for number in range(1, len(changes) + 1)]

    async def _put(self, puts: Sequence[PutItem], timeout: float | None) -> Results:
        """Stores items unconditionally, in one statement."""
        names: dict[Namespace, str] = {}
        for put in puts:
            namespace = put.key.namespace
            if namespace not in names:
                names[namespace] = encode(namespace)
        places = [(names[put.key.namespace], put.key.key) for put in puts]
        # Python sorts these texts as the database does: bytewise.
        order = sorted(range(len(puts)), key=places.__getitem__)
        rows = await self._database.fetch(
            "put_items",
            order,
            [places[number][0] for number in order],
            [places[number][1] for number in order],
            *_columns([puts[number] for number in order]),
            timeout=timeout,
        )
        versions = {(row["o_namespace"], row["o_key"]): row["o_version"] for row in rows}
        if len(versions) == len(puts):
            return [Changed(versions[place], True) for place in places]
        # Some are retries of puts that were already stored. The current state of those items is checked one by one.
        again = [put for put, place in zip(puts, places, strict=True) if place not in versions]
        found = iter(await self._change(again, timeout))
        return [Changed(versions[place], True) if place in versions else next(found) for place in places]


def _are_plain_puts(changes: Sequence[ItemChange]) -> TypeGuard[Sequence[PutItem]]:
    """Returns whether all changes are puts of different items without an expected version."""
    return all(isinstance(change, PutItem) and change.expected_version is None for change in changes) and (
        len(changes) == 1 or len({change.key for change in changes}) == len(changes)
    )


def _columns(puts: Sequence[PutItem | None]) -> Iterator[Sequence[object] | None]:
    """Yields the columns of items to store. A None item is a deletion. A column without any value is None."""
    yield [(put and put.request_id) or secrets.token_bytes(16) for put in puts]
    yield [put and put.type for put in puts]
    yield [put and put.data for put in puts]
    yield [put and put.doc for put in puts]
    texts = [put and put.text for put in puts]
    yield _column([text and text.text for text in texts])
    yield _column([text and text.language for text in texts])
    yield _column([put and put.ttl for put in puts])
    vectors = [(number, vector) for number, put in enumerate(puts, 1) if put for vector in put.vectors]
    if not vectors:
        yield from [None] * 7
        return
    yield [len(put.vectors) if put else 0 for put in puts]
    yield [COMPONENT_BYTES * sum(len(vector.components) for vector in put.vectors) if put else 0 for put in puts]
    yield [number for number, _ in vectors]
    yield [vector.path for _, vector in vectors]
    dims = [len(vector.components) for _, vector in vectors]
    yield dims
    yield list(accumulate(dims, initial=0))[:-1]
    yield list(chain.from_iterable([vector.components for _, vector in vectors]))


def _column(values: list[Any]) -> list[Any] | None:
    return values if any(value is not None for value in values) else None


def _size(change: ItemChange) -> int:
    if not isinstance(change, PutItem):
        return 0
    size = len(change.data) + len(change.doc)
    if change.vectors:
        # Encoding a component takes the driver as long as several bytes of a value.
        size += 16 * sum(len(vector.components) for vector in change.vectors)
    return size


def _until(group: Sequence[_Pending]) -> float | None:
    """Returns how long a commit may take, in seconds: until none of its callers waits any more."""
    deadlines = [pending.deadline for pending in group]
    latest = max((deadline for deadline in deadlines if deadline is not None), default=None)
    if latest is None or None in deadlines:
        return None
    return max(latest - asyncio.get_running_loop().time(), 0.0)


def _copy(error: Exception) -> Exception:
    """Returns a copy of an error for one caller: an error that is raised several times collects all their traces."""
    if isinstance(error, Overloaded):
        made: Exception = Overloaded(error.bound, limit=error.limit)
    elif isinstance(error, DeadlineExceeded):
        made = DeadlineExceeded(str(error))
    elif isinstance(error, DatabaseUnavailable) and type(error) is DatabaseUnavailable:
        made = DatabaseUnavailable(str(error))
    elif isinstance(error, CheckpointdError):
        return error
    else:
        return error
    made.__cause__ = error.__cause__
    return made
