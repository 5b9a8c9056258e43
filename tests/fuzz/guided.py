"""Searches for bytes that break their reader, guided by code coverage: `make fuzz`, or with libFuzzer's options.

Protobuf's own parser is C and can't be instrumented, so each of our readers gets the bytes directly. Whatever the bytes
are, it returns or raises InvalidArgument or BrokenPatch, quickly, and its result isn't much larger than its input.
"""

from __future__ import annotations

import asyncio
import base64
import sys
from collections.abc import Callable
from contextlib import suppress

import atheris

with atheris.instrument_imports(include=["checkpointd_server.rpc.conversion", "checkpointd_server.domain.patches"]):
    from checkpointd_server.domain import patches
    from checkpointd_server.rpc.conversion import checkpoints, metadata_index, page_tokens, wire

from google.protobuf.message import DecodeError

from checkpointd.v1 import checkpoint_service_pb2 as pb
from checkpointd_server.domain.errors import BrokenPatch, InvalidArgument
from checkpointd_server.domain.limits import Limits
from checkpointd_server.domain.values import TypedValue

LIMITS = Limits()
GROWTH = 64
"""The largest ratio of a reader's result to its input."""
_loop = asyncio.new_event_loop()


def page_token(data: bytes) -> None:
    token = base64.urlsafe_b64encode(bytes(16) + data).rstrip(b"=").decode()
    page_tokens.read_list_token(pb.ListCheckpointsRequest(page_token=token), "tenant", LIMITS)
    page_tokens.read_history_token(pb.GetDeltaChannelHistoryRequest(page_token=token), "tenant")


def fields(data: bytes) -> None:
    _loop.run_until_complete(wire._check_fields(data, wire._schema(pb.PipelineRequest.DESCRIPTOR)))


def instructions(data: bytes) -> None:
    size = sum(length for _, length, _ in patches.read_operations(data))
    patches.check_instructions(data, size, max_operations=LIMITS.max_patch_operations)
    if size <= GROWTH * len(data) + 1000:
        patches.apply_patch(bytes(1000), data, size=size, checksum=0)


def put(data: bytes) -> None:
    try:
        request = pb.PutCheckpointRequest.FromString(data)
    except DecodeError:
        return
    checkpoints.read_put_checkpoint(request, "tenant", LIMITS)


def writes(data: bytes) -> None:
    try:
        request = pb.PutWritesRequest.FromString(data)
    except DecodeError:
        return
    checkpoints.read_put_writes(request, "tenant", LIMITS)


def search(data: bytes) -> None:
    assert len(metadata_index.project_filter(data, LIMITS) or "") <= GROWTH * len(data)


def index(data: bytes) -> None:
    found = metadata_index.project_metadata(TypedValue("msgpack", data), b"", LIMITS)
    assert len(found.json) <= GROWTH * len(data)


READERS: list[Callable[[bytes], None]] = [page_token, fields, instructions, put, writes, search, index]


def attack(data: bytes) -> None:
    """Gives bytes to a reader; the first byte selects it."""
    if data:
        with suppress(InvalidArgument, BrokenPatch):
            READERS[data[0] % len(READERS)](data[1:])


if __name__ == "__main__":
    atheris.Setup(sys.argv, attack)
    atheris.Fuzz()
