"""Threads as the commands print them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from datetime import UTC
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp

from checkpointd.v1 import thread_service_pb2 as pb
from checkpointd_server.cli.rendering.tables import byte_size, printable
from checkpointd_server.domain.serializers import SerializerFamily
from checkpointd_server.rpc.conversion.plain_data import text

_LONGEST_NOTE = 60


def status_of(thread: pb.Thread) -> str:
    """Returns a thread's status as one word."""
    return pb.ThreadStatus.Name(thread.status).removeprefix("THREAD_STATUS_").lower()


def json_of(thread: pb.Thread) -> dict[str, Any]:
    """Returns a thread as JSON has it."""
    return {
        "thread_id": thread.thread_id,
        "status": status_of(thread),
        "checkpoints": thread.checkpoints,
        "bytes": thread.bytes,
        "created_at": _iso(thread.created_at),
        "active_at": _iso(thread.active_at),
        "checkpoint_id": thread.checkpoint_id or None,
        "metadata": json.loads(thread.metadata_json),
        "next": list(thread.next),
        "interrupts": _signals(thread, is_error=False),
        "errors": _signals(thread, is_error=True),
        "tags": {tag.name: tag.text for tag in thread.tags},
        "archived_at": _iso(thread.archived_at) if thread.HasField("archived_at") else None,
        "pinned": thread.pinned,
        "ttl_seconds": thread.ttl_seconds or None,
        "serializer_family": _family_of(thread),
    }


def _family_of(thread: pb.Thread) -> str | None:
    """Returns the family of a thread's serializer, e.g. "langgraph-json", or None if unknown."""
    known = {family.value: family.label for family in SerializerFamily}
    return known.get(thread.serializer_family)


def _signals(thread: pb.Thread, *, is_error: bool) -> list[dict[str, Any]]:
    return [
        {"task_id": signal.task_id, "value": json.loads(signal.json)}
        for signal in thread.signals
        if signal.is_error is is_error
    ]


def row_of(thread: pb.Thread) -> tuple[str, ...]:
    """Returns a thread as a row. The last cell has its question or its error."""
    return (
        printable(thread.thread_id),
        status_of(thread),
        str(thread.checkpoints),
        byte_size(thread.bytes),
        when(thread.created_at),
        when(thread.active_at),
        _note(thread),
    )


def _note(thread: pb.Thread) -> str:
    shown = [text(_told(json.loads(signal.json))) for signal in thread.signals[:1]]
    if not shown and thread.next:
        shown = [f"next: {', '.join(map(printable, thread.next))}"]
    note = " ".join(shown)
    return note if len(note) <= _LONGEST_NOTE else f"{note[: _LONGEST_NOTE - 3]}..."


def _told(value: Any) -> Any:
    """Returns the value of an interrupt, without its wrapper."""
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if isinstance(value, dict) and value.get("$type") == "langgraph.types.Interrupt" and "value" in value:
        return value["value"]
    return value


def lines_of(thread: pb.Thread) -> Iterator[str]:
    """Yields a thread's details as lines of text."""
    yield f"thread       {printable(thread.thread_id)}"
    yield f"status       {status_of(thread)}"
    if thread.next:
        yield f"next         {', '.join(map(printable, thread.next))}"
    yield f"checkpoints  {thread.checkpoints}, {byte_size(thread.bytes)}"
    yield f"latest       {printable(thread.checkpoint_id) or '-'}"
    yield f"created      {when(thread.created_at)}"
    yield f"active       {when(thread.active_at)}"
    if thread.HasField("archived_at"):
        yield f"archived     {when(thread.archived_at)}"
    if thread.pinned:
        yield "pinned       yes"
    if thread.ttl_seconds:
        yield f"kept for     {thread.ttl_seconds} s after its last activity"
    if family := _family_of(thread):
        yield f"serializer   {family}"
    yield f"metadata     {text(json.loads(thread.metadata_json))}"
    for tag in thread.tags:
        yield f"tag          {printable(tag.name)}={printable(tag.text)}"
    for signal in thread.signals:
        yield f"{'error' if signal.is_error else 'interrupt':<13}{text(_told(json.loads(signal.json)))}"


def node_json(node: pb.CheckpointNode) -> dict[str, Any]:
    """Returns a checkpoint of a tree as JSON has it."""
    return {
        "checkpoint_ns": node.checkpoint_ns,
        "checkpoint_id": node.checkpoint_id,
        "parent_checkpoint_id": node.parent_checkpoint_id or None,
        "created_at": _iso(node.created_at),
        "step": int(node.step) if node.step.lstrip("-").isdecimal() else None,
        "source": node.source or None,
        "run_id": node.run_id or None,
        "writes": node.writes,
        "interrupted": node.interrupted,
        "failed": node.failed,
    }


def tree_lines(nodes: Sequence[pb.CheckpointNode]) -> Iterator[str]:
    """Yields the checkpoints of each namespace as a tree: one per line, oldest first, branches indented."""
    namespaces: dict[str, list[pb.CheckpointNode]] = {}
    for node in reversed(nodes):
        namespaces.setdefault(node.checkpoint_ns, []).append(node)
    for number, name in enumerate(sorted(namespaces)):
        if number:
            yield ""
        yield f"namespace {printable(name)}" if name else "root graph"
        yield from _branches(namespaces[name])


def _branches(nodes: Sequence[pb.CheckpointNode]) -> Iterator[str]:
    known = {node.checkpoint_id for node in nodes}
    children: dict[str, list[pb.CheckpointNode]] = {}
    for node in nodes:
        parent = node.parent_checkpoint_id if node.parent_checkpoint_id in known else ""
        # A checkpoint that names itself as parent is a root: else it would be left out.
        children.setdefault("" if parent == node.checkpoint_id else parent, []).append(node)
    # Depth first, without recursion: a thread has any number of steps.
    open_nodes = [(root, "", "") for root in reversed(children.get("", []))]
    while open_nodes:
        node, before, mark = open_nodes.pop()
        yield f"  {before}{mark}{_node(node)}"
        inner = before + {"": "", "├─ ": "│  ", "└─ ": "   "}[mark]
        below = children.get(node.checkpoint_id, [])
        if len(below) == 1:
            open_nodes.append((below[0], inner, ""))
        else:
            marks = ["├─ "] * (len(below) - 1) + ["└─ "]
            open_nodes += [(child, inner, sign) for child, sign in reversed(list(zip(below, marks, strict=False)))]


def _node(node: pb.CheckpointNode) -> str:
    told = [printable(node.checkpoint_id), f"step {printable(node.step) or '-'}", printable(node.source) or "-"]
    told += ["INTERRUPTED"] * node.interrupted + ["FAILED"] * node.failed
    return "  ".join(told)


def when(time: Timestamp) -> str:
    """Returns a time in this machine's zone, to the second."""
    return time.ToDatetime(tzinfo=UTC).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def _iso(time: Timestamp) -> str:
    return time.ToDatetime(tzinfo=UTC).isoformat()
