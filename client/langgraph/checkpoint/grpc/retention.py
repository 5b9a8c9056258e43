"""Deletions that retention has announced, for code that acts before them: `saver.retention`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal

from langgraph.checkpoint.grpc._convert.arguments import thread
from langgraph.checkpoint.grpc._threads.queries import time_of
from langgraph.checkpoint.grpc._transport import flows

from checkpointd.v1 import retention_service_pb2 as pb

if TYPE_CHECKING:
    from langgraph.checkpoint.grpc.saver import GrpcSaver

RetentionAction = Literal["delete", "trim"]
"""The extent of a deletion: the thread, or checkpoints of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpiringThread:
    """An announced deletion of a thread, or a part of it, by a policy with a hold. Until then it can be read."""

    thread_id: str
    action: RetentionAction
    reason: str
    """The limit: "ttl", "max_idle", "max_age", "keep_newest", "max_bytes" or "keep_last_of_run"."""
    policy: str
    """The name of the policy that sets it; "": the thread's own time to live."""
    checkpoints: int
    """The number of checkpoints that go."""
    below_checkpoint_id: str | None
    """Of a "trim": the checkpoints whose ids are less than this."""
    deadline_at: datetime
    """The time of the deletion, acknowledged or not."""
    hold_policy: str
    """The policy whose hold it is: that of `policy`, or of another one that means the thread."""


class Retention:
    """Announced deletions. Each verb blocks; with an "a" before its name it is awaited.

    Args:
        saver: The saver whose connections are used.
    """

    def __init__(self, saver: GrpcSaver) -> None:
        self._saver = saver

    def expiring(self) -> Iterator[ExpiringThread]:
        """Yields what is announced to go and nobody has acknowledged, the next first.

        Raises:
            CheckpointdError: The call failed.
        """
        return flows.iterate(_expiring(), self._saver._client.call)

    def aexpiring(self) -> AsyncIterator[ExpiringThread]:
        """Awaits what `expiring` yields."""
        return flows.aiterate(_expiring(), self._saver._client.acall)

    def acknowledge(self, entry: ExpiringThread) -> bool:
        """Lets what was announced go with the next sweep, before its deadline.

        Args:
            entry: What `expiring` told.

        Returns:
            Whether it is still the announced deletion. False: the thread was used meanwhile, or something else goes.

        Raises:
            CheckpointdError: The call failed.
        """
        return flows.run(_acknowledge(entry), self._saver._client.call)

    async def aacknowledge(self, entry: ExpiringThread) -> bool:
        """Awaits `acknowledge`."""
        return await flows.arun(_acknowledge(entry), self._saver._client.acall)

    def handle(self, hook: Callable[[ExpiringThread], object]) -> int:
        """Calls a hook with each entry of what is about to go, and acknowledges it when the hook returns.

        What the hook raises is raised: that entry stays, and comes again with the next call, until its deadline.

        Args:
            hook: Does what is to be done before, such as keeping a summary. Called at least once an entry.

        Returns:
            How many were acknowledged.

        Raises:
            Exception: The hook raised it.
            CheckpointdError: The call failed.
        """
        call = self._saver._client.call
        return flows.run(_handle(), lambda step: hook(step) if isinstance(step, ExpiringThread) else call(step))

    async def ahandle(self, hook: Callable[[ExpiringThread], Awaitable[object]]) -> int:
        """Awaits `handle`, with a hook that is awaited."""
        acall = self._saver._client.acall
        return await flows.arun(_handle(), lambda step: hook(step) if isinstance(step, ExpiringThread) else acall(step))


def _expiring() -> Generator[Any, Any, None]:
    """Emits what is announced, page by page."""
    request: pb.ListExpiringRequest | None = pb.ListExpiringRequest()
    while request is not None:
        page = yield request
        for found in page.threads:
            yield flows.Emit(_entry(found))
        request = _next_page(page)


def _handle() -> flows.Flow[int]:
    """Yields each entry for the hook, and acknowledges it. Returns how many were.

    All are listed first: an entry that was acknowledged is listed no more.
    """
    entries: list[ExpiringThread] = []
    request: pb.ListExpiringRequest | None = pb.ListExpiringRequest()
    while request is not None:
        page = yield request
        entries += map(_entry, page.threads)
        request = _next_page(page)
    done = 0
    for entry in entries:
        yield entry
        done += yield from _acknowledge(entry)
    return done


def _next_page(page: pb.ListExpiringResponse) -> pb.ListExpiringRequest | None:
    return pb.ListExpiringRequest(page_token=page.next_page_token) if page.next_page_token else None


def _entry(found: pb.ExpiringThread) -> ExpiringThread:
    return ExpiringThread(
        thread_id=found.thread_id,
        action="delete" if found.action == pb.RETENTION_ACTION_DELETE else "trim",
        reason=found.reason,
        policy=found.policy,
        checkpoints=found.checkpoints,
        below_checkpoint_id=found.below_checkpoint_id or None,
        deadline_at=time_of(found.deadline_at),
        hold_policy=found.hold_policy,
    )


def _acknowledge(entry: ExpiringThread) -> flows.Flow[bool]:
    response = yield pb.AcknowledgeExpiringRequest(
        thread_id=thread(entry.thread_id), below_checkpoint_id=entry.below_checkpoint_id or ""
    )
    return bool(response.acknowledged)
