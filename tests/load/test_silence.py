"""No request within the limits, nor one beyond them, silences the server for longer than 250 ms: the worst of each.

How long health isn't answered depends on who else computes meanwhile, so what is held to 250 ms is what the server's
event loop computes without a break, in its own CPU time. That health is answered all the while is asked too, with a
generous bound. Before there were such limits some of these requests took 2 to 200 seconds.
"""

from __future__ import annotations

import asyncio
import dataclasses
import gc
import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any
from zlib import crc32

import grpc
import msgpack
import pytest

from checkpointd.v1 import checkpoint_service_pb2 as pb
from checkpointd.v1 import store_service_pb2 as store_pb
from checkpointd.v1 import thread_service_pb2 as threads_pb
from checkpointd.v1 import value_service_pb2 as values_pb
from checkpointd.v1 import values_pb2 as values
from checkpointd_server.domain.limits import Limits
from tests.load.silence import LONGEST_SILENCE, LONGEST_STRETCH, Server, watching
from tests.support.cluster import PostgresCluster
from tests.support.local_server import LocalServer
from tests.support.server_process import ServerProcess
from tests.support.stretches import measured_stretches

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
    """A msgpack list of so many bytes, an element each."""
    return b"\xdd" + (size - 5).to_bytes(4, "big") + bytes(size - 5)


def metadata(size: int) -> values.Metadata:
    data = b"\x81\xa1k" + tiny(size - 3)
    return values.Metadata(value=values.TypedValue(type="msgpack", data=data))


def patched(channel: str, operations: int, version: str = "s1", base: str = "s0") -> values.ChannelValue:
    """A value of as many bytes as its patch has operations."""
    value = values.TypedValue(
        type="msgpack",
        data=(b"\x03" + leb(0)) * operations,
        patch=values.Patch(base_version=base, size=operations, crc32=crc32(bytes(operations))),
    )
    return values.ChannelValue(channel=channel, version=version, value=value)


def whole(channel: str, data: bytes, version: str = "s0") -> values.ChannelValue:
    return values.ChannelValue(channel=channel, version=version, value=values.TypedValue(type="msgpack", data=data))


@pytest.fixture(scope="module")
def attacker(postgres_cluster: PostgresCluster) -> Iterator[Server]:
    database = postgres_cluster.create_migrated_database()
    # The server is in this process, and what other tests have left here is no work of its garbage collector.
    gc.collect()
    gc.freeze()
    with measured_stretches() as stretches, LocalServer(postgres_cluster.dsn(database)) as server:
        yield Server(server, stretches)
    gc.unfreeze()


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


@pytest.mark.parametrize("name", WORST)
def test_a_write_of_all_that_may_be_silences_nobody(name: str, attacker: Server) -> None:
    _, method, expected, make = WORST[name]
    request = make()
    if "/" not in method:
        method = f"CheckpointService/{method}"
    if make is many_patches:  # on something that is there
        assert attacker.send(method, many_values()) is OK
    attacker.silences_nobody(lambda: attacker.expect(expected, method, request))


class TestReads:
    """What was stored under the limits, read by every read."""

    def test_checkpoints_of_very_many_channels(self, attacker: Server) -> None:
        channels = names(LIMITS.max_channels)
        for number in range(30):
            request = put(
                thread_id="wide",
                checkpoint_id=f"{number:04}",
                channels=channels,
                channel_versions=["s0"] * len(channels),
                values=[whole(channel, b"v") for channel in channels] if not number else [],
            )
            assert attacker.send("CheckpointService/PutCheckpoint", request) is OK

        def read() -> None:
            for patches in (False, True):
                page = pb.ListCheckpointsRequest(thread_id="wide", page_size=1000, patches=patches)
                assert attacker.send("CheckpointService/ListCheckpoints", page) is OK
                latest = pb.GetCheckpointRequest(thread_id="wide", patches=patches)
                assert attacker.send("CheckpointService/GetCheckpoint", latest) is OK

        attacker.silences_nobody(read)

    def test_the_longest_chain_of_the_largest_patches(self, attacker: Server) -> None:
        """Each of them takes its base apart into bytes."""
        operations = 16_384
        base = random.Random(1).randbytes(operations)
        first = put(thread_id="chain", channels=["c"], channel_versions=["s0"], values=[whole("c", base)])
        assert attacker.send("CheckpointService/PutCheckpoint", first) is OK
        instructions = b"".join(b"\x03" + leb(operations - 1 - offset) for offset in range(operations))
        for number in range(1, LIMITS.max_chain + 1):
            base = base[::-1]
            value = values.TypedValue(
                type="msgpack",
                data=instructions,
                patch=values.Patch(base_version=f"s{number - 1}", size=operations, crc32=crc32(base)),
            )
            change = values.ChannelValue(channel="c", version=f"s{number}", value=value)
            request = put(
                thread_id="chain",
                checkpoint_id=f"{number:04}",
                channels=["c"],
                channel_versions=[f"s{number}"],
                values=[change],
            )
            assert attacker.send("CheckpointService/PutCheckpoint", request) is OK
        known = values_pb.KnownChannelValue(channel="c", version=f"s{LIMITS.max_chain}")

        def read() -> None:
            for patches in (False, True):
                page = pb.ListCheckpointsRequest(thread_id="chain", patches=patches)
                assert attacker.send("CheckpointService/ListCheckpoints", page) is OK
            wanted = values_pb.GetValueRequest(thread_id="chain", channel_value=known)
            assert attacker.send("ValueService/GetValue", wanted) is OK

        attacker.silences_nobody(read)

    def test_a_value_that_is_blown_up(self, attacker: Server) -> None:
        size = 4096
        first = put(thread_id="blown", channels=["c"], channel_versions=["s0"], values=[whole("c", bytes(size))])
        assert attacker.send("CheckpointService/PutCheckpoint", first) is OK
        for number in (1, 2):
            times = 256
            value = values.TypedValue(
                type="msgpack",
                data=(leb(size << 1 | 1) + b"\x00") * times,
                patch=values.Patch(base_version=f"s{number - 1}", size=size * times, crc32=crc32(bytes(size * times))),
            )
            size *= times
            change = values.ChannelValue(channel="c", version=f"s{number}", value=value)
            request = put(thread_id="blown", channels=["c"], channel_versions=[f"s{number}"], values=[change])
            assert attacker.send("CheckpointService/PutCheckpoint", request) is OK
        known = values_pb.KnownChannelValue(channel="c", version="s2")

        def read() -> None:
            for most in (1, 60 * MEBIBYTE):
                wanted = values_pb.GetValueRequest(thread_id="blown", channel_value=known, max_bytes=most)
                assert attacker.send("ValueService/GetValue", wanted) is OK

        attacker.silences_nobody(read)


UNBOUNDED = {
    *("max_tenant_bytes", "max_thread_id_bytes", "max_checkpoint_ns_bytes", "max_checkpoint_id_bytes"),
    *("max_task_id_bytes", "max_task_path_bytes", "max_type_bytes", "max_run_id_bytes", "max_token_bytes"),
    *("max_channel_bytes", "max_channel_version_bytes", "max_filter_depth"),  # the longest names are in the others
    *("default_page_size", "max_page_size", "max_page_bytes", "max_inline_bytes", "max_chain"),
    "max_written_bytes",  # see TestReads
    *("max_item_labels", "max_item_namespace_bytes", "max_item_key_bytes", "max_item_vectors", "max_ttl_minutes"),
    *("max_search_limit", "max_search_offset", "max_namespaces", "max_namespace_conditions"),
    *("max_value_bytes", "default_lease_ttl_ms", "min_lease_ttl_ms", "max_lease_ttl_ms", "max_lease_wait_ms"),
}
"""Limits that take no time of their own."""


def test_every_limit_has_its_worst_case() -> None:
    tried = {limit for limit, *_ in WORST.values()}
    assert tried | UNBOUNDED == {field.name for field in dataclasses.fields(Limits)}
    assert not tried & UNBOUNDED


def test_a_server_that_is_silent_is_noticed(shared_server: ServerProcess) -> None:
    """What the other tests go by."""
    with watching(shared_server.target) as silence, suppress(ProcessLookupError):
        shared_server.process.send_signal(19)
        time.sleep(LONGEST_SILENCE + 0.2)
        shared_server.process.send_signal(18)
    assert silence.seconds > LONGEST_SILENCE


def test_a_loop_that_computes_for_too_long_is_noticed() -> None:
    async def compute() -> None:
        await asyncio.sleep(0)
        end = time.thread_time() + LONGEST_STRETCH
        while time.thread_time() < end:
            pass

    with measured_stretches() as stretches:
        asyncio.run(compute())
    assert stretches.longest(threading.get_ident()) >= LONGEST_STRETCH
