"""The worst request within each limit of the server, and beyond some of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from zlib import crc32

import grpc
import msgpack

from checkpointd.v1 import checkpoint_service_pb2 as pb
from checkpointd.v1 import store_service_pb2 as store_pb
from checkpointd.v1 import thread_service_pb2 as threads_pb
from checkpointd.v1 import value_service_pb2 as values_pb
from checkpointd.v1 import values_pb2 as values
from checkpointd_server.domain.limits import Limits

LIMITS = Limits()
MEBIBYTE = 1024 * 1024
SMALL = values.Metadata(value=values.TypedValue(type="msgpack", data=b"\x80"))


def put(**fields: Any) -> pb.PutCheckpointRequest:
    return pb.PutCheckpointRequest(
        **{"thread_id": "t", "checkpoint_id": "c", "body": b"\x80", "metadata": SMALL, **fields}
    )


def names(count: int, length: int = 12) -> list[str]:
    return [f"{number:0{length}}" for number in range(count)]


def leb(value: int) -> bytes:
    encoded = bytearray()
    while value > 127:
        encoded.append(value & 127 | 128)
        value >>= 7
    return bytes([*encoded, value])


def tiny(size: int) -> bytes:
    """A msgpack list of this many bytes, each of which is an element."""
    return b"\xdd" + (size - 5).to_bytes(4, "big") + bytes(size - 5)


def metadata(size: int) -> values.Metadata:
    data = b"\x81\xa1k" + tiny(size - 3)
    return values.Metadata(value=values.TypedValue(type="msgpack", data=data))


def patched(channel: str, operations: int, version: str = "s1", base: str = "s0") -> values.ChannelValue:
    """A value with as many bytes as its patch has operations."""
    value = values.TypedValue(
        type="msgpack",
        data=(b"\x03" + leb(0)) * operations,
        patch=values.Patch(base_version=base, size=operations, crc32=crc32(bytes(operations))),
    )
    return values.ChannelValue(channel=channel, version=version, value=value)


def whole(channel: str, data: bytes, version: str = "s0") -> values.ChannelValue:
    return values.ChannelValue(channel=channel, version=version, value=values.TypedValue(type="msgpack", data=data))


OK, REFUSED = grpc.StatusCode.OK, grpc.StatusCode.INVALID_ARGUMENT
Make = Callable[[], Any]


def many_channels() -> pb.PutCheckpointRequest:
    channels = names(LIMITS.max_channels, LIMITS.max_channel_bytes)
    return put(channels=channels, channel_versions=["s" + "v" * LIMITS.max_channel_version_bytes] * len(channels))


def many_values() -> pb.PutCheckpointRequest:
    channels = names(LIMITS.max_values)
    return put(
        thread_id="values",
        channels=channels,
        channel_versions=["s0"] * len(channels),
        values=[whole(channel, b"v") for channel in channels],
    )


def many_patches() -> pb.PutCheckpointRequest:
    channels = names(LIMITS.max_values)
    each = LIMITS.max_patch_operations // len(channels)
    return put(
        thread_id="values",
        channels=channels,
        channel_versions=["s1"] * len(channels),
        values=[patched(channel, each) for channel in channels],
    )


def many_writes() -> pb.PutWritesRequest:
    value = values.TypedValue(type="msgpack", data=b"v")
    writes = [values.TaskWrite(idx=i, channel="c", value=value) for i in range(LIMITS.max_values)]
    return pb.PutWritesRequest(thread_id="writes", checkpoint_id="c", task_id="t", writes=writes)


def twice_among_many() -> pb.PutCheckpointRequest:
    channels = names(LIMITS.max_values - 1)
    return put(values=[whole(channel, b"v") for channel in [*channels, channels[-1]]])


def full_message() -> pb.PipelineRequest:
    each = LIMITS.max_pipeline_bytes // LIMITS.max_pipeline_operations - 100
    operations = [
        pb.Operation(id=number, put_checkpoint=put(thread_id=f"full-{number}", metadata=metadata(each)))
        for number in range(LIMITS.max_pipeline_operations)
    ]
    return pb.PipelineRequest(operations=operations)


def own_keys() -> pb.PutCheckpointRequest:
    counters = {f"{number:06}": [1, 1] for number in range(100_000)}
    data = msgpack.packb({"step": 1, "counters_since_delta_snapshot": counters, "k": [0] * 1_000_000})
    return put(metadata=values.Metadata(value=values.TypedValue(type="msgpack", data=data)))


def item(**fields: Any) -> store_pb.PutItemRequest:
    small = store_pb.ItemValue(type="json", data=b"{}")
    return store_pb.PutItemRequest(**{"namespace": ["silence"], "key": "item", "value": small, **fields})


def vectors(count: int, dims: int) -> list[store_pb.ItemVector]:
    return [store_pb.ItemVector(path="p", values=[0.5] * dims) for _ in range(count)]


WORST: dict[str, tuple[str, str, grpc.StatusCode, Make]] = {
    "max_channels": ("max_channels", "PutCheckpoint", OK, many_channels),
    "max_values: whole": ("max_values", "PutCheckpoint", OK, many_values),
    "max_values: patches": ("max_values", "PutCheckpoint", OK, many_patches),
    "max_values: writes": ("max_values", "PutWrites", OK, many_writes),
    "max_values: one of them twice": ("max_values", "PutCheckpoint", REFUSED, twice_among_many),
    "max_patch_operations": (
        "max_patch_operations",
        "PutCheckpoint",
        grpc.StatusCode.FAILED_PRECONDITION,
        lambda: put(thread_id="none", values=[patched("c", LIMITS.max_patch_operations)]),
    ),
    "max_checkpoint_bytes: metadata": (
        "max_checkpoint_bytes",
        "PutCheckpoint",
        OK,
        lambda: put(metadata=metadata(LIMITS.max_checkpoint_bytes - 1000)),
    ),
    "max_checkpoint_bytes: LangGraph's own metadata": ("max_checkpoint_bytes", "PutCheckpoint", OK, own_keys),
    "max_checkpoint_bytes: body": (
        "max_checkpoint_bytes",
        "PutCheckpoint",
        OK,
        lambda: put(body=bytes(LIMITS.max_checkpoint_bytes - 1000)),
    ),
    "max_filter_bytes: index": (
        "max_filter_bytes",
        "PutCheckpoint",
        OK,
        lambda: put(
            metadata=values.Metadata(value=SMALL.value, index=b"\x81\xa1k" + tiny(LIMITS.max_filter_bytes - 3))
        ),
    ),
    "max_filter_bytes: filter": (
        "max_filter_bytes",
        "ListCheckpoints",
        OK,
        lambda: pb.ListCheckpointsRequest(filter=b"\x81\xa1k" + tiny(LIMITS.max_filter_bytes - 3)),
    ),
    "max_pipeline_bytes": ("max_pipeline_bytes", "Pipeline", OK, full_message),
    "max_pipeline_operations": (
        "max_pipeline_operations",
        "Pipeline",
        REFUSED,
        lambda: b"\x0a\x00" * (LIMITS.max_pipeline_bytes // 2),
    ),
    "max_message_bytes: nothing but values": (
        "max_message_bytes",
        "PutCheckpoint",
        REFUSED,
        lambda: b"\x42\x00" * (LIMITS.max_message_bytes // 2),
    ),
    "max_message_bytes: nothing but names": (
        "max_message_bytes",
        "PutCheckpoint",
        REFUSED,
        lambda: b"\x32\x00" * (LIMITS.max_message_bytes // 2),
    ),
    "max_message_bytes: a value": (
        "max_message_bytes",
        "PutCheckpoint",
        OK,
        lambda: put(channels=["c"], channel_versions=["s0"], values=[whole("c", bytes(60 * MEBIBYTE))]),
    ),
    "max_known": (
        "max_known",
        "GetCheckpoint",
        OK,
        lambda: pb.GetCheckpointRequest(
            thread_id="values",
            patches=True,
            known=[values.KnownValue(channel=name, version="s0") for name in names(LIMITS.max_known)],
        ),
    ),
    "max_batch: runs": (
        "max_batch",
        "ThreadService/DeleteRuns",
        OK,
        lambda: threads_pb.DeleteRunsRequest(run_ids=names(LIMITS.max_batch, 500)),
    ),
    "max_batch: channels": (
        "max_batch",
        "GetDeltaChannelHistory",
        OK,
        lambda: pb.GetDeltaChannelHistoryRequest(thread_id="values", channels=names(LIMITS.max_batch)),
    ),
    "max_part_bytes": (
        "max_part_bytes",
        "ValueService/PutPart",
        OK,
        lambda: values_pb.PutPartRequest(thread_id="p", upload_id=b"u" * 16, data=bytes(LIMITS.max_part_bytes)),
    ),
    "max_item_bytes: msgpack": (
        "max_item_bytes",
        "StoreService/PutItem",
        OK,
        lambda: item(value=store_pb.ItemValue(type="msgpack", data=b"\x81\xa1k" + tiny(LIMITS.max_item_bytes - 100))),
    ),
    "max_item_bytes: JSON": (
        "max_item_bytes",
        "StoreService/PutItem",
        OK,
        lambda: item(
            value=store_pb.ItemValue(type="json", data=b'{"k":[' + b"0," * (LIMITS.max_item_bytes // 2 - 100) + b"0]}")
        ),
    ),
    "max_item_components": (
        "max_item_components",
        "StoreService/PutItem",
        OK,
        lambda: item(vectors=vectors(LIMITS.max_item_vectors, LIMITS.max_item_components // LIMITS.max_item_vectors)),
    ),
    "max_vector_dims": (
        "max_vector_dims",
        "StoreService/PutItem",
        OK,
        lambda: item(vectors=vectors(LIMITS.max_item_components // LIMITS.max_vector_dims, LIMITS.max_vector_dims)),
    ),
    "max_item_text_bytes": (
        "max_item_text_bytes",
        "StoreService/PutItem",
        OK,
        lambda: item(text=store_pb.ItemText(texts=["a b " * (LIMITS.max_item_text_bytes // 4)])),
    ),
    "max_text_query_bytes": (
        "max_text_query_bytes",
        "StoreService/SearchItems",
        OK,
        lambda: store_pb.SearchItemsRequest(
            limit=LIMITS.max_search_limit,
            text=store_pb.TextQuery(query=" ".join(names(LIMITS.max_text_query_bytes // 6 - 1, 5))),
        ),
    ),
}

UNBOUNDED = {
    *("max_tenant_bytes", "max_thread_id_bytes", "max_checkpoint_ns_bytes", "max_checkpoint_id_bytes"),
    *("max_task_id_bytes", "max_task_path_bytes", "max_type_bytes", "max_run_id_bytes", "max_token_bytes"),
    *("max_channel_bytes", "max_channel_version_bytes", "max_filter_depth"),  # the longest names are in the others
    *("default_page_size", "max_page_size", "max_page_bytes", "max_inline_bytes", "max_chain"),
    "max_written_bytes",  # see TestReads of test_silence.py
    *("max_item_labels", "max_item_namespace_bytes", "max_item_key_bytes", "max_item_vectors", "max_ttl_minutes"),
    *("max_search_limit", "max_search_offset", "max_namespaces", "max_namespace_conditions"),
    *("max_value_bytes", "default_lease_ttl_ms", "min_lease_ttl_ms", "max_lease_ttl_ms", "max_lease_wait_ms"),
}
"""Limits that cost no time by themselves."""
