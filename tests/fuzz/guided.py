"""Looks for bytes that hurt what reads them, led by the code that they reach: `make fuzz`, or with libFuzzer's options.

Protobuf's own parser is C that can't be looked into; so each of our readers gets its bytes as they are. Whatever comes,
it answers or raises InvalidArgument, at once, and makes nothing that is much larger than what it was given.
"""

from __future__ import annotations

import asyncio
import base64
import sys
from collections.abc import Callable
from contextlib import suppress

import atheris

with atheris.instrument_imports(include=["checkpointd_server.rpc", "checkpointd_server.store.pieces"]):
    from checkpointd_server.rpc import paging, projection, requests
    from checkpointd_server.rpc import pieces as rpc_pieces
    from checkpointd_server.store import pieces as store_pieces

from google.protobuf.message import DecodeError

from checkpointd.v1 import checkpoint_service_pb2 as pb
from checkpointd.v1 import values_pb2 as values
from checkpointd_server.domain.errors import InvalidArgument
from checkpointd_server.domain.limits import Limits

LIMITS = Limits()
GROWTH = 64
"""How many times as large what a reader makes may be."""
_loop = asyncio.new_event_loop()


def page_token(data: bytes) -> None:
    token = base64.urlsafe_b64encode(bytes(16) + data).rstrip(b"=").decode()
    paging.read_page_token(pb.ListCheckpointsRequest(page_token=token), "tenant", LIMITS)


def place(data: bytes) -> None:
    store_pieces._read_place(data)


def piece(data: bytes) -> None:
    unpacked = rpc_pieces._unpacked(values.Piece(data=data, compression=values.COMPRESSION_ZLIB), "piece", 4096)
    assert len(unpacked) <= 4096


def put(data: bytes) -> None:
    try:
        request = pb.PutCheckpointRequest.FromString(data)
    except DecodeError:
        return
    _loop.run_until_complete(requests.read_put_checkpoint(request, "tenant", LIMITS))


def search(data: bytes) -> None:
    assert len(projection.project_filter(data, LIMITS) or "") <= GROWTH * len(data)


def index(data: bytes) -> None:
    metadata = values.Metadata(value=values.TypedValue(type="msgpack", data=data))
    assert len(projection.project_metadata(metadata, LIMITS).json) <= GROWTH * len(data)


READERS: list[Callable[[bytes], None]] = [page_token, place, piece, put, search, index]


def attack(data: bytes) -> None:
    """Gives bytes to a reader; the first says to which."""
    if data:
        with suppress(InvalidArgument):
            READERS[data[0] % len(READERS)](data[1:])


if __name__ == "__main__":
    atheris.Setup(sys.argv, attack)
    atheris.Fuzz()
