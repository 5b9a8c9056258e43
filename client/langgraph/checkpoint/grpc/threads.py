"""Threads as their operator sees them: `saver.threads`."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Collection, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal, TypeVar, get_args

from langgraph.checkpoint.grpc._convert import thread_queries as queries
from langgraph.checkpoint.grpc._convert.arguments import config_of, thread
from langgraph.checkpoint.grpc._transport import flows
from langgraph.checkpoint.grpc.errors import CheckpointNotFoundError
from langgraph.checkpoint.grpc.thread_migration import ThreadMigration, migrate

from checkpointd.v1 import thread_service_pb2 as pb

if TYPE_CHECKING:
    from langgraph.checkpoint.grpc.saver import GrpcSaver

Result = TypeVar("Result")
ThreadStatus = Literal["idle", "running", "interrupted", "failed"]
"""What becomes of a thread, by its latest checkpoint."""

STATUSES: tuple[ThreadStatus, ...] = get_args(ThreadStatus)


@dataclass(frozen=True, slots=True, kw_only=True)
class ThreadSignal:
    """An interrupt or an error beside the latest checkpoint of a thread."""

    task_id: str
    is_error: bool
    value: Any
    """As plain data: an object is {"$type": name, ...its fields}; what the server can't decode, because it is encrypted
    or of another serializer, or is large, is {"$serialized": type tag, "$bytes": size}."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ThreadInfo:
    """What is known of a thread without reading its values."""

    thread_id: str
    status: ThreadStatus
    checkpoints: int
    """How many it holds, in all namespaces."""
    bytes: int
    """About how many its rows have in the database."""
    created_at: datetime
    active_at: datetime
    """When it was last written to."""
    checkpoint_id: str | None
    """The latest of the root namespace."""
    metadata: Mapping[str, Any]
    """What filters see of that one's metadata."""
    next: Sequence[str]
    """The nodes whose turn it is."""
    interrupts: Sequence[ThreadSignal]
    errors: Sequence[ThreadSignal]
    tags: Mapping[str, str]
    archived_at: datetime | None
    pinned: bool
    """Retention passes it over."""
    ttl_seconds: int | None
    """How long after its last activity it is kept, if it has a time of its own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ThreadCount:
    """How many threads there are."""

    count: int
    at_least: bool
    """There may be more: counting ends at some number."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointNode:
    """A checkpoint in the tree of its namespace."""

    checkpoint_ns: str
    checkpoint_id: str
    parent_checkpoint_id: str | None
    created_at: datetime
    step: int | None
    source: str | None
    run_id: str | None
    writes: int
    """How many task writes lie beside it."""
    interrupted: bool
    failed: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ThreadDiff:
    """What differs between two checkpoints' values, channel by channel."""

    added: Mapping[str, Any]
    removed: Mapping[str, Any]
    changed: Mapping[str, tuple[Any, Any]]
    """Before and after."""


class Threads:
    """Finding, looking at and keeping threads. Each verb blocks; with an "a" before its name it is awaited."""

    def __init__(self, saver: GrpcSaver) -> None:
        self._saver = saver

    def search(
        self,
        *,
        prefix: str = "",
        metadata: Mapping[str, Any] | None = None,
        tags: Mapping[str, str] | None = None,
        status: ThreadStatus | Collection[ThreadStatus] = (),
        created_from: datetime | None = None,
        created_before: datetime | None = None,
        active_from: datetime | None = None,
        active_before: datetime | None = None,
        archived: bool = False,
        limit: int | None = None,
    ) -> Iterator[ThreadInfo]:
        """Yields threads, newest activity first. All that is given must hold.

        Args:
            prefix: What their ids begin with.
            metadata: What the metadata of their latest checkpoint contains.
            tags: Tags that they have, with these texts.
            status: One of "idle", "running", "interrupted", "failed", or several.
            created_from: Created from then on. A time without a zone is the local one.
            created_before: Created before.
            active_from: Last written to from then on.
            active_before: Last written to before.
            archived: Those that are archived, instead of those that aren't.
            limit: The most threads. None: all.

        Raises:
            InvalidArgumentError: An argument can't be used.
        """
        wanted = queries.filter_of(
            self._saver._value_serde(),
            prefix=prefix,
            metadata=metadata,
            tags=tags,
            status=status,
            times=(created_from, created_before, active_from, active_before),
            archived=archived,
        )
        return flows.iterate(_search(wanted, limit), self._saver._client.call)

    def asearch(
        self,
        *,
        prefix: str = "",
        metadata: Mapping[str, Any] | None = None,
        tags: Mapping[str, str] | None = None,
        status: ThreadStatus | Collection[ThreadStatus] = (),
        created_from: datetime | None = None,
        created_before: datetime | None = None,
        active_from: datetime | None = None,
        active_before: datetime | None = None,
        archived: bool = False,
        limit: int | None = None,
    ) -> AsyncIterator[ThreadInfo]:
        """Yields what `search` does."""
        wanted = queries.filter_of(
            self._saver._value_serde(),
            prefix=prefix,
            metadata=metadata,
            tags=tags,
            status=status,
            times=(created_from, created_before, active_from, active_before),
            archived=archived,
        )
        return flows.aiterate(_search(wanted, limit), self._saver._client.acall)

    def count(
        self,
        *,
        prefix: str = "",
        metadata: Mapping[str, Any] | None = None,
        tags: Mapping[str, str] | None = None,
        status: ThreadStatus | Collection[ThreadStatus] = (),
        archived: bool = False,
    ) -> ThreadCount:
        """Counts threads, as far as that is cheap: to a million, with a filter to ten thousand."""
        return self._run(_count(self._filter(prefix, metadata, tags, status, archived)))

    async def acount(
        self,
        *,
        prefix: str = "",
        metadata: Mapping[str, Any] | None = None,
        tags: Mapping[str, str] | None = None,
        status: ThreadStatus | Collection[ThreadStatus] = (),
        archived: bool = False,
    ) -> ThreadCount:
        """Awaits `count`."""
        return await self._arun(_count(self._filter(prefix, metadata, tags, status, archived)))

    def get(self, thread_id: str) -> ThreadInfo:
        """Returns what is known of a thread, archived or not. Raises ThreadNotFoundError."""
        return self._run(_get(thread_id))

    async def aget(self, thread_id: str) -> ThreadInfo:
        """Awaits `get`."""
        return await self._arun(_get(thread_id))

    def tree(self, thread_id: str) -> Iterator[CheckpointNode]:
        """Yields a thread's checkpoints without what they hold, newest first. Those with one parent are forks."""
        return flows.iterate(_tree(thread(thread_id)), self._saver._client.call)

    def atree(self, thread_id: str) -> AsyncIterator[CheckpointNode]:
        """Yields what `tree` does."""
        return flows.aiterate(_tree(thread(thread_id)), self._saver._client.acall)

    def diff(self, thread_id: str, before: str, after: str, *, checkpoint_ns: str = "") -> ThreadDiff:
        """Compares the values of two checkpoints of a namespace. Raises CheckpointNotFoundError."""
        configs = [config_of(thread(thread_id), checkpoint_ns, one) for one in (before, after)]
        return _compare(configs, [self._saver.get_tuple(config) for config in configs])

    async def adiff(self, thread_id: str, before: str, after: str, *, checkpoint_ns: str = "") -> ThreadDiff:
        """Awaits `diff`."""
        configs = [config_of(thread(thread_id), checkpoint_ns, one) for one in (before, after)]
        return _compare(configs, [await self._saver.aget_tuple(config) for config in configs])

    def archive(self, thread_id: str) -> bool:
        """Makes a thread read-only and takes it out of lists; tells whether it wasn't so before.

        Raises ThreadNotFoundError, LeaseHeldError.
        """
        return self._run(_archive(self._saver._lease_tokens.attach(queries.archive(thread_id))))

    async def aarchive(self, thread_id: str) -> bool:
        """Awaits `archive`."""
        return await self._arun(_archive(self._saver._lease_tokens.attach(queries.archive(thread_id))))

    def unarchive(self, thread_id: str) -> bool:
        """Brings an archived thread back; tells whether it was archived."""
        return self._run(_archive(queries.archive(thread_id, unarchive=True)))

    async def aunarchive(self, thread_id: str) -> bool:
        """Awaits `unarchive`."""
        return await self._arun(_archive(queries.archive(thread_id, unarchive=True)))

    def update(
        self,
        thread_id: str,
        *,
        tags: Mapping[str, str | None] | None = None,
        pinned: bool | None = None,
        ttl_seconds: int | None = None,
    ) -> ThreadInfo:
        """Changes what is noted of a thread itself, and returns what is known of it then.

        Args:
            thread_id: The thread.
            tags: Tags to set; None in place of a text removes one. The others stay.
            pinned: Whether retention passes it over. None: as it is.
            ttl_seconds: How long after its last activity it is kept; 0: no time of its own. None: as it is.

        Raises:
            ThreadNotFoundError: There is no such thread.
        """
        return self._run(_update(queries.update(thread_id, tags, pinned, ttl_seconds)))

    async def aupdate(
        self,
        thread_id: str,
        *,
        tags: Mapping[str, str | None] | None = None,
        pinned: bool | None = None,
        ttl_seconds: int | None = None,
    ) -> ThreadInfo:
        """Awaits `update`."""
        return await self._arun(_update(queries.update(thread_id, tags, pinned, ttl_seconds)))

    def tag(self, thread_id: str, **tags: str | None) -> ThreadInfo:
        """Sets tags of a thread; None removes one."""
        return self.update(thread_id, tags=tags)

    async def atag(self, thread_id: str, **tags: str | None) -> ThreadInfo:
        """Awaits `tag`."""
        return await self.aupdate(thread_id, tags=tags)

    def delete(self, thread_id: str) -> int:
        """Deletes a thread, and returns how many checkpoints it had."""
        return self._saver._delete_thread(thread_id)

    async def adelete(self, thread_id: str) -> int:
        """Awaits `delete`."""
        return await self._saver._adelete_thread(thread_id)

    def prune(self, thread_ids: Sequence[str], *, strategy: str = "keep_latest") -> int:
        """Removes history from threads (`saver.prune`), and returns how many checkpoints went."""
        return self._saver._prune(thread_ids, strategy)

    async def aprune(self, thread_ids: Sequence[str], *, strategy: str = "keep_latest") -> int:
        """Awaits `prune`."""
        return await self._saver._aprune(thread_ids, strategy)

    def copy(self, source_thread_id: str, target_thread_id: str) -> ThreadInfo:
        """Copies a thread into one that doesn't exist yet, and returns what is known of that (`saver.copy_thread`)."""
        self._saver.copy_thread(source_thread_id, target_thread_id)
        return self.get(target_thread_id)

    async def acopy(self, source_thread_id: str, target_thread_id: str) -> ThreadInfo:
        """Awaits `copy`."""
        await self._saver.acopy_thread(source_thread_id, target_thread_id)
        return await self.aget(target_thread_id)

    def fork(self, source_thread_id: str, checkpoint_id: str, target_thread_id: str) -> ThreadInfo:
        """Copies a checkpoint and what led to it into a thread that doesn't exist yet (`saver.copy_thread`)."""
        self._saver.copy_thread(source_thread_id, target_thread_id, checkpoint_id=checkpoint_id)
        return self.get(target_thread_id)

    async def afork(self, source_thread_id: str, checkpoint_id: str, target_thread_id: str) -> ThreadInfo:
        """Awaits `fork`."""
        await self._saver.acopy_thread(source_thread_id, target_thread_id, checkpoint_id=checkpoint_id)
        return await self.aget(target_thread_id)

    def migrate(
        self, *, prefix: str = "", thread_ids: Collection[str] | None = None, dry_run: bool = True
    ) -> Iterator[ThreadMigration]:
        """Rewrites threads with the saver's hook `migrate`: every checkpoint whose state is of an older version.

        A checkpoint keeps its id, its parent and the writes beside it, so threads that wait go on. Each thread is
        rewritten under a lease, oldest checkpoint first; what was done when it fails stays, and the next call goes on.

        Args:
            prefix: Only threads whose ids begin with this.
            thread_ids: Only these threads. Default: all that aren't archived.
            dry_run: Whether hooks are only tried, and what would be done is told.

        Yields:
            What becomes of each thread. One that fails doesn't hold up the others.

        Raises:
            InvalidArgumentError: The saver was built without the hook.
        """
        found = iter(thread_ids) if thread_ids is not None else (info.thread_id for info in self.search(prefix=prefix))
        return migrate(self._saver, (one for one in found if one.startswith(prefix)), dry_run=dry_run)

    async def amigrate(
        self, *, prefix: str = "", thread_ids: Collection[str] | None = None, dry_run: bool = True
    ) -> AsyncIterator[ThreadMigration]:
        """Yields what `migrate` does. Hooks are called in another thread."""
        outcomes = self.migrate(prefix=prefix, thread_ids=thread_ids, dry_run=dry_run)
        while (outcome := await asyncio.to_thread(next, outcomes, None)) is not None:
            yield outcome

    def _filter(
        self,
        prefix: str,
        metadata: Mapping[str, Any] | None,
        tags: Mapping[str, str] | None,
        status: ThreadStatus | Collection[ThreadStatus],
        archived: bool,
    ) -> pb.ThreadFilter:
        return queries.filter_of(
            self._saver._value_serde(), prefix=prefix, metadata=metadata, tags=tags, status=status, archived=archived
        )

    def _run(self, flow: flows.Flow[Result]) -> Result:
        return flows.run(flow, self._saver._client.call)

    async def _arun(self, flow: flows.Flow[Result]) -> Result:
        return await flows.arun(flow, self._saver._client.acall)


def _search(wanted: pb.ThreadFilter, limit: int | None) -> Generator[Any, Any, None]:
    request = pb.ListThreadsRequest(filter=wanted)
    remaining = limit
    while remaining is None or remaining > 0:
        if remaining is not None:
            request.page_size = min(remaining, queries.MAX_PAGE)
        page = yield request
        for found in page.threads:
            yield flows.Emit(_info(found))
        if remaining is not None:
            remaining -= len(page.threads)
        if not page.next_page_token:
            return
        request.page_token = page.next_page_token


def _count(wanted: pb.ThreadFilter) -> flows.Flow[ThreadCount]:
    response = yield pb.CountThreadsRequest(filter=wanted)
    return ThreadCount(count=response.count, at_least=response.at_least)


def _get(thread_id: str) -> flows.Flow[ThreadInfo]:
    response = yield pb.GetThreadRequest(thread_id=thread(thread_id))
    return _info(response.thread)


def _tree(thread_id: str) -> Generator[Any, Any, None]:
    request = pb.GetThreadTreeRequest(thread_id=thread_id)
    while True:
        page = yield request
        for node in page.nodes:
            yield flows.Emit(_node(node))
        if not page.next_page_token:
            return
        request.page_token = page.next_page_token


def _archive(request: pb.ArchiveThreadRequest) -> flows.Flow[bool]:
    response = yield request
    return bool(response.changed)


def _update(request: pb.UpdateThreadRequest) -> flows.Flow[ThreadInfo]:
    response = yield request
    return _info(response.thread)


def _info(found: pb.Thread) -> ThreadInfo:
    signals = [
        ThreadSignal(task_id=signal.task_id, is_error=signal.is_error, value=json.loads(signal.json))
        for signal in found.signals
    ]
    # A status that a newer server tells is none of ours: what is certain is that it isn't running.
    status = queries.STATUS_NAMES.get(found.status, "idle")
    return ThreadInfo(
        thread_id=found.thread_id,
        status=status,
        checkpoints=found.checkpoints,
        bytes=found.bytes,
        created_at=queries.time_of(found.created_at),
        active_at=queries.time_of(found.active_at),
        checkpoint_id=found.checkpoint_id or None,
        metadata=json.loads(found.metadata_json),
        next=list(found.next),
        interrupts=[signal for signal in signals if not signal.is_error],
        errors=[signal for signal in signals if signal.is_error],
        tags={tag.name: tag.text for tag in found.tags},
        archived_at=queries.time_of(found.archived_at) if found.HasField("archived_at") else None,
        pinned=found.pinned,
        ttl_seconds=found.ttl_seconds or None,
    )


def _node(node: pb.CheckpointNode) -> CheckpointNode:
    return CheckpointNode(
        checkpoint_ns=node.checkpoint_ns,
        checkpoint_id=node.checkpoint_id,
        parent_checkpoint_id=node.parent_checkpoint_id or None,
        created_at=queries.time_of(node.created_at),
        step=int(node.step) if queries.INTEGER.fullmatch(node.step) else None,
        source=node.source or None,
        run_id=node.run_id or None,
        writes=node.writes,
        interrupted=node.interrupted,
        failed=node.failed,
    )


def _compare(configs: Sequence[Any], found: Sequence[Any]) -> ThreadDiff:
    for config, saved in zip(configs, found, strict=True):
        if saved is None:
            named = config["configurable"]
            raise CheckpointNotFoundError(
                f"thread {named['thread_id']!r} has no checkpoint {named['checkpoint_id']!r} in namespace "
                f"{named['checkpoint_ns']!r}"
            )
    old, new = (saved.checkpoint for saved in found)
    before, after = old["channel_values"], new["channel_values"]
    versions = [saved["channel_versions"] for saved in (old, new)]
    return ThreadDiff(
        added={channel: after[channel] for channel in after if channel not in before},
        removed={channel: before[channel] for channel in before if channel not in after},
        changed={
            channel: (before[channel], after[channel])
            for channel in before
            # Two versions may hold the same; two equal versions do.
            if channel in after
            and versions[0].get(channel) != versions[1].get(channel)
            and not _same(before[channel], after[channel])
        },
    )


def _same(before: Any, after: Any) -> bool:
    try:
        return bool(before == after)
    except Exception:  # whatever a class of the user's, or an array, says of being compared
        return False
