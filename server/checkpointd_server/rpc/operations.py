"""The three calls that can be made alone or in a batch: from a request to the message of the answer."""

from __future__ import annotations

from checkpointd.v1 import checkpoint_service_pb2 as pb
from checkpointd_server.domain.errors import PiecesMissing
from checkpointd_server.domain.limits import Limits
from checkpointd_server.domain.store import CheckpointStore
from checkpointd_server.rpc.messages import write_checkpoint
from checkpointd_server.rpc.pieces import write_pieces
from checkpointd_server.rpc.requests import read_put_checkpoint, read_put_writes, read_target


async def put_checkpoint(
    store: CheckpointStore,
    request: pb.PutCheckpointRequest,
    tenant: str,
    limits: Limits,
    timeout: float | None,
    *,
    in_company: bool = False,
) -> pb.PutCheckpointResponse:
    """Stores a checkpoint."""
    put = await read_put_checkpoint(request, tenant, limits)
    try:
        return pb.PutCheckpointResponse(version=await store.put_checkpoint(put, in_company=in_company, timeout=timeout))
    except PiecesMissing as error:
        return pb.PutCheckpointResponse(missing_pieces=error.names)


async def put_writes(
    store: CheckpointStore,
    request: pb.PutWritesRequest,
    tenant: str,
    limits: Limits,
    timeout: float | None,
    *,
    in_company: bool = False,
) -> pb.PutWritesResponse:
    """Stores task writes."""
    put = await read_put_writes(request, tenant, limits)
    try:
        return pb.PutWritesResponse(version=await store.put_writes(put, in_company=in_company, timeout=timeout))
    except PiecesMissing as error:
        return pb.PutWritesResponse(missing_pieces=error.names)


async def get_checkpoint(
    store: CheckpointStore, request: pb.GetCheckpointRequest, tenant: str, limits: Limits, timeout: float | None
) -> pb.GetCheckpointResponse:
    """Reads one checkpoint."""
    namespace, checkpoint_id = read_target(request, tenant, limits)
    checkpoint, version, pieces = await store.get_checkpoint(
        namespace, checkpoint_id, with_pieces=not request.without_pieces, timeout=timeout
    )
    response = pb.GetCheckpointResponse(version=version)
    if checkpoint is not None:
        write_checkpoint(checkpoint, response.tuple)
        write_pieces(pieces, response.pieces)
    return response
