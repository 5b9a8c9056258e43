"""A thread as `checkpointd show` prints it, read through the public RPCs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Self

import grpc

from checkpointd.v1.checkpoint_service_pb2 import (
    CHECKPOINT_VIEW_FULL,
    CHECKPOINT_VIEW_METADATA,
    GetCheckpointRequest,
    ListCheckpointsRequest,
)
from checkpointd.v1.checkpoint_service_pb2_grpc import CheckpointServiceStub
from checkpointd.v1.values_pb2 import CheckpointTuple
from checkpointd_server.cli.rendering.tables import printable, table
from checkpointd_server.rpc.conversion.plain_data import text
from checkpointd_server.rpc.conversion.shown_checkpoints import Decoder, show, ts_of

_PAGE_SIZE = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class ThreadView:
    """Checkpoints of a thread, newest first."""

    thread_id: str
    checkpoints: Sequence[CheckpointTuple]
    more: bool
    """True if there are older ones beyond the limit."""
    detail: CheckpointTuple | None
    """The checkpoint whose values are shown as text."""

    @classmethod
    def read(
        cls,
        channel: grpc.Channel,
        *,
        thread_id: str,
        checkpoint_ns: str | None,
        checkpoint_id: str | None,
        limit: int,
        values: bool,
        timeout: float,
    ) -> Self:
        """Reads the thread from the server.

        Args:
            channel: To the server.
            thread_id: The thread.
            checkpoint_ns: Only this namespace; None: all.
            checkpoint_id: Only checkpoints of this id; None: all.
            limit: The maximum number of checkpoints.
            values: Whether to read the values of all, not only of one.
            timeout: For each call, in seconds.

        Raises:
            grpc.RpcError: The server can't be reached or returns an error.
        """
        stub = CheckpointServiceStub(channel)
        request = ListCheckpointsRequest(
            thread_id=thread_id,
            checkpoint_ns=checkpoint_ns,
            all_namespaces=checkpoint_ns is None,
            checkpoint_id=checkpoint_id,
            view=CHECKPOINT_VIEW_FULL if values else CHECKPOINT_VIEW_METADATA,
        )
        checkpoints: list[CheckpointTuple] = []
        more = True
        while more and len(checkpoints) < limit:
            request.page_size = min(limit - len(checkpoints), _PAGE_SIZE)
            page = stub.ListCheckpoints(request, timeout=timeout)
            checkpoints.extend(page.tuples)
            request.page_token = page.next_page_token
            more = bool(page.next_page_token)
        detail = None
        if checkpoints and not values:
            # The newest may be a subgraph's; the root graph's state is more interesting.
            chosen = next((found for found in checkpoints if not found.checkpoint_ns), checkpoints[0])
            detail = stub.GetCheckpoint(
                GetCheckpointRequest(
                    thread_id=thread_id, checkpoint_ns=chosen.checkpoint_ns, checkpoint_id=chosen.checkpoint_id
                ),
                timeout=timeout,
            ).tuple
        return cls(thread_id=thread_id, checkpoints=checkpoints, more=more, detail=detail)

    def as_json(self) -> dict[str, Any]:
        """Returns the view as JSON has it, with values as `plain_data.plain` returns them."""
        return {
            "thread_id": self.thread_id,
            "checkpoints": [show(checkpoint, Decoder()) for checkpoint in self.checkpoints],
            "more": self.more,
        }

    def as_text(self) -> Iterator[str]:
        """Yields the view as lines of text."""
        yield f"thread {self.thread_id!r}"
        yield ""
        yield from table(("CHECKPOINT_ID", "NAMESPACE", "STEP", "SOURCE", "WRITTEN"), map(_row, self.checkpoints))
        if self.more:
            yield f"... and older ones (--limit {2 * len(self.checkpoints)})"
        if self.detail is not None:
            yield ""
            yield from _detail(self.detail)


def _row(checkpoint: CheckpointTuple) -> tuple[str, ...]:
    metadata = Decoder().decode(checkpoint.metadata.value)
    known = metadata if isinstance(metadata, dict) else {}
    return (
        printable(checkpoint.checkpoint_id),
        printable(checkpoint.checkpoint_ns) or "-",
        str(known.get("step", "-")),
        printable(str(known.get("source", "-"))),
        printable(ts_of(checkpoint)) or "-",
    )


def _detail(checkpoint: CheckpointTuple) -> Iterator[str]:
    yield f"checkpoint {printable(checkpoint.checkpoint_id)}"
    if checkpoint.checkpoint_ns:
        yield f"  namespace  {printable(checkpoint.checkpoint_ns)}"
    if checkpoint.parent_checkpoint_id:
        yield f"  parent     {printable(checkpoint.parent_checkpoint_id)}"
    yield f"  metadata   {text(Decoder().decode(checkpoint.metadata.value))}"
    yield "  values"
    for value in checkpoint.values:
        yield from _entry(f"    {printable(value.channel)} =", Decoder().decode(value.value))
    if checkpoint.pending_writes:
        yield "  pending writes"
        for write in checkpoint.pending_writes:
            yield from _entry(
                f"    task {printable(write.task_id)}: {printable(write.channel)} =", Decoder().decode(write.value)
            )


def _entry(label: str, value: Any) -> Iterator[str]:
    """Yields a value. A list of several elements has a line for each: most are messages."""
    if isinstance(value, list) and len(value) > 1:
        yield f"{label} ["
        yield from (f"      {text(item)}," for item in value)
        yield "    ]"
    else:
        yield f"{label} {text(value)}"
