"""Threads for operators: `saver.threads`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, TypeVar, Unpack

from langgraph.checkpoint.grpc._convert.arguments import config_of, thread
from langgraph.checkpoint.grpc._threads import flows as thread_flows
from langgraph.checkpoint.grpc._threads import queries as queries
from langgraph.checkpoint.grpc._transport import flows
from langgraph.checkpoint.grpc.thread_info import (
    CheckpointNode,
    ThreadCount,
    ThreadDiff,
    ThreadInfo,
    ThreadQuery,
)
from langgraph.checkpoint.grpc.thread_migration import ThreadMigration, migrate

from checkpointd.v1 import thread_service_pb2 as pb

if TYPE_CHECKING:
    from langgraph.checkpoint.grpc.saver import GrpcSaver

Result = TypeVar("Result")


class Threads:
    """Finds, inspects and manages threads. Methods block; those whose names begin with an "a" are awaited.

    Args:
        saver: The saver whose connections are used.
    """

    def __init__(self, saver: GrpcSaver) -> None:
        self._saver = saver

    def search(self, *, limit: int | None = None, **wanted: Unpack[ThreadQuery]) -> Iterator[ThreadInfo]:
        """Yields threads that meet all given conditions, latest activity first.

        Args:
            limit: The maximum number of threads. None: all.
            wanted: The conditions.

        Raises:
            InvalidArgumentError: An argument is invalid.
            CheckpointdError: The call failed.
        """
        return flows.iterate(thread_flows.search(self._filter(wanted), limit), self._saver._client.call)

    def asearch(self, *, limit: int | None = None, **wanted: Unpack[ThreadQuery]) -> AsyncIterator[ThreadInfo]:
        """Awaits what `search` yields."""
        return flows.aiterate(thread_flows.search(self._filter(wanted), limit), self._saver._client.acall)

    def count(self, **wanted: Unpack[ThreadQuery]) -> ThreadCount:
        """Returns how many threads there are: exact up to a million, with a filter up to ten thousand.

        Args:
            wanted: The conditions.

        Raises:
            InvalidArgumentError: An argument is invalid.
            CheckpointdError: The call failed.
        """
        return self._run(thread_flows.count(self._filter(wanted)))

    async def acount(self, **wanted: Unpack[ThreadQuery]) -> ThreadCount:
        """Awaits `count`."""
        return await self._arun(thread_flows.count(self._filter(wanted)))

    def get(self, thread_id: str) -> ThreadInfo:
        """Returns the details of a thread, archived or not.

        Args:
            thread_id: The thread.

        Raises:
            ThreadNotFoundError: There is no such thread.
            CheckpointdError: The call failed.
        """
        return self._run(thread_flows.get(thread_id))

    async def aget(self, thread_id: str) -> ThreadInfo:
        """Awaits `get`."""
        return await self._arun(thread_flows.get(thread_id))

    def tree(self, thread_id: str) -> Iterator[CheckpointNode]:
        """Yields a thread's checkpoints without their values, newest first. Several with one parent are forks.

        Args:
            thread_id: The thread.

        Raises:
            InvalidArgumentError: The thread id is invalid.
            CheckpointdError: The call failed.
        """
        return flows.iterate(thread_flows.tree(thread(thread_id)), self._saver._client.call)

    def atree(self, thread_id: str) -> AsyncIterator[CheckpointNode]:
        """Awaits what `tree` yields."""
        return flows.aiterate(thread_flows.tree(thread(thread_id)), self._saver._client.acall)

    def diff(self, thread_id: str, before: str, after: str, *, checkpoint_ns: str = "") -> ThreadDiff:
        """Returns how the values of two checkpoints of a namespace differ.

        Args:
            thread_id: The thread.
            before: The id of one checkpoint.
            after: The id of the other.
            checkpoint_ns: Their namespace. Default: the root graph.

        Raises:
            CheckpointNotFoundError: One of them doesn't exist.
            CheckpointdError: The call failed.
        """
        configs = [config_of(thread(thread_id), checkpoint_ns, one) for one in (before, after)]
        return thread_flows.compare(configs, [self._saver.get_tuple(config) for config in configs])

    async def adiff(self, thread_id: str, before: str, after: str, *, checkpoint_ns: str = "") -> ThreadDiff:
        """Awaits `diff`."""
        configs = [config_of(thread(thread_id), checkpoint_ns, one) for one in (before, after)]
        return thread_flows.compare(configs, [await self._saver.aget_tuple(config) for config in configs])

    def archive(self, thread_id: str) -> bool:
        """Makes a thread read-only and removes it from lists.

        Args:
            thread_id: The thread.

        Returns:
            False if it was already archived.

        Raises:
            ThreadNotFoundError: There is no such thread.
            LeaseHeldError: Somebody else holds the lease on it.
            CheckpointdError: The call failed.
        """
        return self._run(thread_flows.archive(self._saver._lease_tokens.attach(queries.archive(thread_id))))

    async def aarchive(self, thread_id: str) -> bool:
        """Awaits `archive`."""
        return await self._arun(thread_flows.archive(self._saver._lease_tokens.attach(queries.archive(thread_id))))

    def unarchive(self, thread_id: str) -> bool:
        """Makes an archived thread writable and listed again.

        Args:
            thread_id: The thread.

        Returns:
            False if it wasn't archived.

        Raises:
            ThreadNotFoundError: There is no such thread.
            CheckpointdError: The call failed.
        """
        return self._run(thread_flows.archive(queries.archive(thread_id, unarchive=True)))

    async def aunarchive(self, thread_id: str) -> bool:
        """Awaits `unarchive`."""
        return await self._arun(thread_flows.archive(queries.archive(thread_id, unarchive=True)))

    def update(
        self,
        thread_id: str,
        *,
        tags: Mapping[str, str | None] | None = None,
        pinned: bool | None = None,
        ttl_seconds: int | None = None,
    ) -> ThreadInfo:
        """Changes the tags, the pin and the time to live of a thread.

        Args:
            thread_id: The thread.
            tags: Tags to set, with None to remove a tag. Other tags stay.
            pinned: Whether to protect it from deletion. None: unchanged.
            ttl_seconds: How long it is kept after its last use; 0: no time to live of its own. None: unchanged.

        Returns:
            The thread after the change.

        Raises:
            ThreadNotFoundError: There is no such thread.
            InvalidArgumentError: An argument is invalid.
            CheckpointdError: The call failed.
        """
        return self._run(thread_flows.update(queries.update(thread_id, tags, pinned, ttl_seconds)))

    async def aupdate(
        self,
        thread_id: str,
        *,
        tags: Mapping[str, str | None] | None = None,
        pinned: bool | None = None,
        ttl_seconds: int | None = None,
    ) -> ThreadInfo:
        """Awaits `update`."""
        return await self._arun(thread_flows.update(queries.update(thread_id, tags, pinned, ttl_seconds)))

    def tag(self, thread_id: str, **tags: str | None) -> ThreadInfo:
        """Sets tags of a thread.

        Args:
            thread_id: The thread.
            **tags: Tags and their texts; None removes a tag.

        Returns:
            The thread after the change.

        Raises:
            ThreadNotFoundError: There is no such thread.
            InvalidArgumentError: A tag is invalid.
            CheckpointdError: The call failed.
        """
        return self.update(thread_id, tags=tags)

    async def atag(self, thread_id: str, **tags: str | None) -> ThreadInfo:
        """Awaits `tag`."""
        return await self.aupdate(thread_id, tags=tags)

    def pin(self, thread_id: str) -> ThreadInfo:
        """Protects a thread from every deletion until it is unpinned: a legal hold.

        Args:
            thread_id: The thread.

        Returns:
            The thread after the change.

        Raises:
            ThreadNotFoundError: There is no such thread.
            CheckpointdError: The call failed.
        """
        return self.update(thread_id, pinned=True)

    async def apin(self, thread_id: str) -> ThreadInfo:
        """Awaits `pin`."""
        return await self.aupdate(thread_id, pinned=True)

    def unpin(self, thread_id: str) -> ThreadInfo:
        """Allows deletions of a thread again.

        Args:
            thread_id: The thread.

        Returns:
            The thread after the change.

        Raises:
            ThreadNotFoundError: There is no such thread.
            CheckpointdError: The call failed.
        """
        return self.update(thread_id, pinned=False)

    async def aunpin(self, thread_id: str) -> ThreadInfo:
        """Awaits `unpin`."""
        return await self.aupdate(thread_id, pinned=False)

    def delete(self, thread_id: str) -> int:
        """Deletes a thread: all its namespaces, values and writes.

        Args:
            thread_id: The thread. If there is none, nothing happens.

        Returns:
            The number of checkpoints that it had.

        Raises:
            LeaseHeldError: Somebody else holds the lease on it.
            ThreadArchivedError: It is archived.
            ThreadPinnedError: It is pinned.
            CheckpointdError: The call failed.
        """
        return self._saver._run_on_threads(self._saver._delete_thread(thread_id))

    async def adelete(self, thread_id: str) -> int:
        """Awaits `delete`."""
        return await self._saver._arun_on_threads(self._saver._delete_thread(thread_id))

    def prune(self, thread_ids: Sequence[str], *, strategy: str = "keep_latest") -> int:
        """Removes history from threads.

        Args:
            thread_ids: The threads. Unknown ones are skipped.
            strategy: "keep_latest" or "delete", as in `GrpcSaver.prune`.

        Returns:
            The number of checkpoints that were deleted.

        Raises:
            LeaseHeldError: Somebody else holds the lease on one of them.
            ThreadArchivedError: One of them is archived.
            ThreadPinnedError: One of them is pinned.
            CheckpointdError: The call failed.
        """
        return self._saver._run_on_threads(self._saver._prune(thread_ids, strategy))

    async def aprune(self, thread_ids: Sequence[str], *, strategy: str = "keep_latest") -> int:
        """Awaits `prune`."""
        return await self._saver._arun_on_threads(self._saver._prune(thread_ids, strategy))

    def copy(self, source_thread_id: str, target_thread_id: str) -> ThreadInfo:
        """Copies a thread.

        Args:
            source_thread_id: The thread to copy.
            target_thread_id: The thread to create.

        Returns:
            The copy.

        Raises:
            ThreadExistsError: The target already has checkpoints.
            ThreadNotFoundError: There is no thread to copy.
            CheckpointdError: The call failed.
        """
        self._saver.copy_thread(source_thread_id, target_thread_id)
        return self.get(target_thread_id)

    async def acopy(self, source_thread_id: str, target_thread_id: str) -> ThreadInfo:
        """Awaits `copy`."""
        await self._saver.acopy_thread(source_thread_id, target_thread_id)
        return await self.aget(target_thread_id)

    def fork(self, source_thread_id: str, checkpoint_id: str, target_thread_id: str) -> ThreadInfo:
        """Copies a checkpoint and its history into a new thread.

        Args:
            source_thread_id: The thread to copy from.
            checkpoint_id: The checkpoint, of the root graph.
            target_thread_id: The thread to create.

        Returns:
            The new thread.

        Raises:
            ThreadExistsError: The target already has checkpoints.
            CheckpointNotFoundError: The thread has no such checkpoint.
            CheckpointdError: The call failed.
        """
        self._saver.copy_thread(source_thread_id, target_thread_id, checkpoint_id=checkpoint_id)
        return self.get(target_thread_id)

    async def afork(self, source_thread_id: str, checkpoint_id: str, target_thread_id: str) -> ThreadInfo:
        """Awaits `fork`."""
        await self._saver.acopy_thread(source_thread_id, target_thread_id, checkpoint_id=checkpoint_id)
        return await self.aget(target_thread_id)

    def migrate(
        self, *, prefix: str = "", thread_ids: Collection[str] | None = None, dry_run: bool = True
    ) -> Iterator[ThreadMigration]:
        """Rewrites every checkpoint whose state has an older version, with the saver's hook `migrate`.

        A checkpoint keeps its id, its parent and its task writes, so interrupted threads can continue. Each thread is
        rewritten under a lease, oldest checkpoint first. If it fails, the checkpoints rewritten so far stay, and the
        next call continues.

        Args:
            prefix: Only threads whose ids begin with this.
            thread_ids: Only these threads. Default: all that aren't archived.
            dry_run: Whether to only try the hooks and report what would be done.

        Yields:
            The outcome for each thread. One that fails doesn't stop the others.

        Raises:
            InvalidArgumentError: The saver has no such hook.
            CheckpointdError: The call failed.
        """
        found = iter(thread_ids) if thread_ids is not None else (info.thread_id for info in self.search(prefix=prefix))
        return migrate(self._saver, (one for one in found if one.startswith(prefix)), dry_run=dry_run)

    async def amigrate(
        self, *, prefix: str = "", thread_ids: Collection[str] | None = None, dry_run: bool = True
    ) -> AsyncIterator[ThreadMigration]:
        """Awaits what `migrate` yields. Hooks are called in another thread."""
        outcomes = self.migrate(prefix=prefix, thread_ids=thread_ids, dry_run=dry_run)
        while (outcome := await asyncio.to_thread(next, outcomes, None)) is not None:
            yield outcome

    def _filter(self, wanted: ThreadQuery) -> pb.ThreadFilter:
        return queries.filter_of(self._saver._value_serde(), **wanted)

    def _run(self, flow: flows.Flow[Result]) -> Result:
        return flows.run(flow, self._saver._client.call)

    async def _arun(self, flow: flows.Flow[Result]) -> Result:
        return await flows.arun(flow, self._saver._client.acall)
