"""Puts whose values may be large: what of them goes with the call, and what goes before it.

A put goes with the pieces that the server isn't known to have. Where these are too many, it goes without them first:
the server says which it lacks, and they go ahead of the put in calls of their own. No message needs to be larger than a
few MiB.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable, Iterator, Sequence
from concurrent.futures import wait
from copy import copy
from typing import Any

from langgraph.checkpoint.grpc.batching import OperationError, is_final
from langgraph.checkpoint.grpc.calls import Caller
from langgraph.checkpoint.grpc.errors import CheckpointdError, UnsupportedError, from_rpc_error
from langgraph.checkpoint.grpc.known_pieces import KnownPieces, PieceCache
from langgraph.checkpoint.grpc.pieces import INLINE_BYTES, THREADED_BYTES, Cargo, pack
from langgraph.checkpoint.grpc.rides import Ride
from langgraph.checkpoint.grpc.runs import UnderWay
from langgraph.checkpoint.grpc.side_by_side import aeach, each

from checkpointd.v1 import checkpoint_service_pb2 as pb
from checkpointd.v1 import piece_service_pb2 as pieces_pb

Put = pb.PutCheckpointRequest | pb.PutWritesRequest

_TRIES = 10
"""How often a put is begun anew because pieces went away meanwhile."""
_NAMES: dict[type[Put], str] = {pb.PutCheckpointRequest: "PutCheckpoint", pb.PutWritesRequest: "PutWrites"}


class Uploads:
    """Carries puts over a saver's channels."""

    def __init__(self, caller: Caller, known: KnownPieces, cache: PieceCache) -> None:
        self._caller = caller
        self._known = known
        self._cache = cache
        self._server_knows_batches = True
        self.tokens_differ = callable(caller.options.token)
        """Whether calls may have tokens of their own, and so can't go together."""

    def put(self, request: Put, cargo: Cargo, along: Sequence[Ride] = ()) -> Any:
        """Sends a put and blocks for its answer. Raises CheckpointdError.

        Args:
            request: The put, or task writes.
            cargo: The values that are too large for it.
            along: Task writes that go with it, if no value is too large; whoever took them settles what is left.
        """
        name = _NAMES[type(request)]
        if along and self._server_knows_batches and isinstance(request, pb.PutCheckpointRequest):
            response = self._together(request, along)
            if response is not None:
                return response
        # What can't go along goes first.
        for ride in along:
            ride.left()
        wait([ride.end for ride in along])
        if not cargo.size:
            return self._caller.call(name, lambda stubs: getattr(stubs.checkpoints, name), request)
        self._prepare(request, cargo)
        for _ in range(_TRIES):
            response = self._caller.call(name, lambda stubs: getattr(stubs.checkpoints, name), request)
            if not response.missing_pieces:
                break
            needed = _needed(request, response)
            if not _attach(request, cargo, needed):
                each(self._upload, _uploads(request.thread_id, cargo, needed))
        return self._stored(request, cargo, response)

    async def aput(self, request: Put, cargo: Cargo, under_way: UnderWay | None = None) -> Any:
        """Awaits `put`, in its turn among the run's calls."""
        name = _NAMES[type(request)]
        if not cargo.size:
            return await self._caller.share(name, request, under_way)
        if cargo.size > THREADED_BYTES:
            await asyncio.to_thread(self._prepare, request, cargo)
        else:
            self._prepare(request, cargo)
        for _ in range(_TRIES):
            # It may come back for pieces, and what comes after it must not overtake it then.
            response = await self._caller.share(name, request, under_way, may_be_followed=False)
            if not response.missing_pieces:
                break
            needed = _needed(request, response)
            if not await asyncio.to_thread(_attach, request, cargo, needed):
                await aeach(self._aupload, _uploads(request.thread_id, cargo, needed))
        return self._stored(request, cargo, response)

    def _together(self, request: pb.PutCheckpointRequest, along: Sequence[Ride]) -> Any:
        """Sends a put with task writes in one call. Returns None if the put has to be sent alone."""
        batch = pb.BatchRequest()
        for ride in along:
            batch.operations.add().put_writes.CopyFrom(ride.request)
        batch.operations.add().put_checkpoint.CopyFrom(request)
        try:
            *writes, put = self._caller.call("Batch", lambda stubs: stubs.checkpoints.Batch, batch).results
        except UnsupportedError:
            self._server_knows_batches = False
            return None
        except CheckpointdError as error:
            for ride in along:
                ride.failed(copy(error))
            raise
        target = self._caller.options.target
        for ride, result in zip(along, writes, strict=True):
            if not result.HasField("failure"):
                ride.stored(result.put_writes)
            elif is_final(result.failure):
                ride.failed(from_rpc_error(OperationError(result.failure), target=target, method="PutWrites"))
        if not put.HasField("failure"):
            return put.put_checkpoint
        if is_final(put.failure):
            raise from_rpc_error(OperationError(put.failure), target=target, method="PutCheckpoint")
        return None

    def _prepare(self, request: Put, cargo: Cargo) -> None:
        cargo.take_apart(self._cache.met)
        _attach(request, cargo, self._known.unknown(request.thread_id, cargo.pieces))

    def _upload(self, request: pieces_pb.PutPiecesRequest) -> None:
        self._caller.call("PutPieces", lambda stubs: stubs.pieces.PutPieces, request)

    async def _aupload(self, request: pieces_pb.PutPiecesRequest) -> None:
        await self._caller.acall("PutPieces", lambda stubs: stubs.pieces.PutPieces, request)

    def _stored(self, request: Put, cargo: Cargo, response: Any) -> Any:
        if response.missing_pieces:
            self._known.remove(request.thread_id, response.missing_pieces)
            raise CheckpointdError(
                f"{len(response.missing_pieces)} pieces of a large value of thread {request.thread_id!r} were gone "
                "again and again before the value could be stored; try again"
            )
        self._known.add(request.thread_id, cargo.pieces.keys())
        self._cache.keep(cargo.pieces)
        return response


def _needed(request: Put, response: Any) -> Collection[bytes]:
    """Returns what a put needs that came back: what was missing, and what went with it, of which nothing was stored."""
    return dict.fromkeys([*(piece.name for piece in request.pieces), *response.missing_pieces])


def _attach(request: Put, cargo: Cargo, names: Collection[bytes]) -> bool:
    """Lets pieces go with a put, if there is room for all of them; else it goes without any."""
    del request.pieces[:]
    if sum(len(cargo.pieces[name]) for name in names) > INLINE_BYTES:
        return False
    request.pieces.extend([pack(name, cargo.pieces[name]) for name in names])
    return True


def _uploads(thread_id: str, cargo: Cargo, names: Iterable[bytes]) -> Iterator[pieces_pb.PutPiecesRequest]:
    """Yields the requests that store pieces, each made when it is wanted."""
    request = pieces_pb.PutPiecesRequest(thread_id=thread_id)
    size = 0
    for name in names:
        piece = cargo.pieces[name]
        if size and size + len(piece) > INLINE_BYTES:
            yield request
            request = pieces_pb.PutPiecesRequest(thread_id=thread_id)
            size = 0
        request.pieces.append(pack(name, piece))
        size += len(piece)
    if size:
        yield request
