"""Checkpoints before they are written, and how to bring them to each limit."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import msgpack

from checkpointd_server.domain.limits import Limits

numbers = itertools.count()
"""Makes names unique."""


@dataclass
class Draft:
    """A checkpoint with its task writes, before it is written."""

    limits: Limits
    thread_id: str = field(default_factory=lambda: f"t{next(numbers)}")
    checkpoint_ns: str = ""
    checkpoint_id: str = "c"
    version: str = "s1"
    channels: list[str] = field(default_factory=lambda: ["a"])
    data: dict[str, bytes] = field(default_factory=lambda: {"a": b"1"})
    type: str = "msgpack"
    body: bytes = b"\x80"
    index: bytes = b""
    task_id: str = "task"
    task_path: str = ""
    writes: int = 1
    chain: int = 0
    """The number of patches of the first channel's value in earlier checkpoints."""
    operations: int = 0
    """The number of instructions in the last patch; 0: the last value is whole."""
    parts: int = 0
    """The size of the parts in which the first channel's value is uploaded, in bytes; 0: it is in the message."""
    known: int = 0
    batch: int = 1
    page_size: int = 0
    together: int = 0
    """The number of operations in a pipeline's message; 0: each operation is a call."""
    message_bytes: int = 0
    pipeline_bytes: int = 0

    @property
    def first(self) -> str:
        return self.channels[0]

    def longest_name(self, size: int) -> None:
        name = "n" * size
        self.data = {name: self.data.pop(self.first), **self.data}
        self.channels[0] = name

    def many_channels(self, number: int) -> None:
        self.channels = [*self.channels[:1], *(f"{n:x}" for n in range(0x1000, 0x1000 + number - 1))]

    def many_values(self, number: int) -> None:
        self.many_channels(max(number, len(self.channels)))
        self.data = {**dict.fromkeys(self.channels[:number], b"v"), **self.data}
        self.writes = number

    def large_checkpoint(self, size: int) -> None:
        names = sum(map(len, self.channels)) + len(self.version) * len(self.channels)
        self.body = b"b" * max(size - names - len(self.metadata), 1)

    def large_index(self, size: int) -> None:
        self.index = b"\x81\xa1k\xda" + (size - 6).to_bytes(2, "big") + b"x" * (size - 6)

    def deep_index(self, depth: int) -> None:
        nested: Any = 1
        for _ in range(depth - 1):
            nested = {"k": nested}
        self.index = msgpack.packb({"k": nested})

    def large_value(self, size: int, part: int | None = None) -> None:
        self.data[self.first] = bytes(n % 251 for n in range(251)) * (size // 251 + 1)
        self.data[self.first] = self.data[self.first][:size]
        self.parts = part or self.limits.max_part_bytes

    @property
    def metadata(self) -> bytes:
        return bytes(msgpack.packb({"step": 1}))


def _part(draft: Draft, size: int) -> None:
    draft.large_value(size, size)


def _whole(name: str) -> Callable[[Draft, int], None]:
    return lambda draft, size: setattr(draft, name, size)


def _text(name: str, letter: str, before: str = "") -> Callable[[Draft, int], None]:
    return lambda draft, size: setattr(draft, name, before + letter * size)


def _inline(draft: Draft, size: int) -> None:
    draft.data[draft.first] = b"i" * size


def _patched(draft: Draft, operations: int) -> None:
    draft.operations, draft.chain = operations, max(draft.chain, 1)


WRITES: dict[str, Callable[[Draft, int], None]] = {
    "max_thread_id_bytes": lambda draft, size: setattr(draft, "thread_id", f"{next(numbers):0>{size}}"),
    "max_checkpoint_ns_bytes": _text("checkpoint_ns", "n"),
    "max_checkpoint_id_bytes": _text("checkpoint_id", "c"),
    "max_channel_bytes": Draft.longest_name,
    "max_channel_version_bytes": _text("version", "v", "s"),
    "max_task_id_bytes": _text("task_id", "t"),
    "max_task_path_bytes": _text("task_path", "p"),
    "max_type_bytes": _text("type", "t"),
    "max_filter_bytes": Draft.large_index,
    "max_filter_depth": Draft.deep_index,
    "max_channels": Draft.many_channels,
    "max_values": Draft.many_values,
    "max_chain": _whole("chain"),
    "max_patch_operations": _patched,
    "max_value_bytes": Draft.large_value,
    "max_part_bytes": _part,
    "max_inline_bytes": _inline,
    "max_page_bytes": _inline,
    "max_known": _whole("known"),
    "max_batch": _whole("batch"),
    "max_page_size": _whole("page_size"),
    "max_pipeline_operations": _whole("together"),
    "max_pipeline_bytes": _whole("pipeline_bytes"),
    "max_checkpoint_bytes": Draft.large_checkpoint,
    "max_message_bytes": _whole("message_bytes"),
}
"""How to bring a draft to each limit. Limits on total sizes come last: they fill up the rest."""
NOT_WRITTEN = {
    "min_lease_ttl_ms": "a time",
    "max_lease_ttl_ms": "a time",
    "max_lease_wait_ms": "a time",
    **dict.fromkeys(
        (
            "max_item_labels",
            "max_item_namespace_bytes",
            "max_item_key_bytes",
            "max_item_bytes",
            "max_item_vectors",
            "max_vector_dims",
            "max_item_text_bytes",
            "max_search_limit",
        ),
        "of items, which are no part of threads: tests/rpc/test_item_limits.py",
    ),
}
OF_READS = {"max_known", "max_batch", "max_page_size"}
UNREFUSED = {"max_inline_bytes", "max_page_bytes"}
"""Beyond these limits, data is split off or moved to the next page."""
AGAINST_ANOTHER = {
    frozenset({"max_message_bytes", "max_value_bytes"}): "both fill the first value",
    frozenset({"max_message_bytes", "max_part_bytes"}): "both fill the first value",
    frozenset({"max_pipeline_bytes", "max_value_bytes"}): "both fill the first value",
    frozenset({"max_pipeline_bytes", "max_part_bytes"}): "both fill the first value",
    frozenset({"max_pipeline_bytes", "max_message_bytes"}): "both fill the first value",
}
