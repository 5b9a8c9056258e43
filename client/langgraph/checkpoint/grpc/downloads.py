"""Reads whose values may be large: what of them comes with the answer, what is kept here, and what is asked for then.

An answer brings its first pieces along, and the others are asked for, several at once. No message needs to be larger
than a few MiB.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import TypeVar

from langgraph.checkpoint.grpc.calls import Caller
from langgraph.checkpoint.grpc.errors import CheckpointdError
from langgraph.checkpoint.grpc.known_pieces import KnownPieces, PieceCache
from langgraph.checkpoint.grpc.pieces import NOTHING, THREADED_BYTES, Contents, piece_sizes, unpack
from langgraph.checkpoint.grpc.side_by_side import aeach, each

from checkpointd.v1 import checkpoint_service_pb2 as pb
from checkpointd.v1 import piece_service_pb2 as pieces_pb
from checkpointd.v1 import values_pb2 as values

Read = TypeVar("Read", pb.GetCheckpointResponse, pb.GetDeltaChannelHistoryResponse)

ASKED_BYTES = 1024 * 1024
"""About how much is asked for in one reading of pieces, in bytes. Pieces differ in size, and a server answers 2 MiB."""
_TRIES = 10
"""How often a read is begun anew because pieces went away meanwhile."""


class _PiecesGoneError(Exception):
    """Pieces of what was just read are gone: it has been deleted, or replaced, since."""


class Downloads:
    """Carries reads over a saver's channels."""

    def __init__(self, caller: Caller, known: KnownPieces, cache: PieceCache) -> None:
        self._caller = caller
        self._known = known
        self._cache = cache

    def get(self, request: pb.GetCheckpointRequest) -> tuple[pb.GetCheckpointResponse, Contents]:
        """Reads a checkpoint, and the pieces of its values, blocking. Raises CheckpointdError."""
        request.without_pieces = self._known.knows(request.thread_id)

        def ask() -> pb.GetCheckpointResponse:
            return self._caller.call(  # type: ignore[no-any-return]
                "GetCheckpoint", lambda stubs: stubs.checkpoints.GetCheckpoint, request
            )

        return self._read(ask, request.thread_id, _values_got)

    async def aget(self, request: pb.GetCheckpointRequest) -> tuple[pb.GetCheckpointResponse, Contents]:
        """Awaits `get`."""
        request.without_pieces = self._known.knows(request.thread_id)

        async def ask() -> pb.GetCheckpointResponse:
            return await self._caller.share("GetCheckpoint", request)  # type: ignore[no-any-return]

        return await self._aread(ask, request.thread_id, _values_got)

    def history(self, request: pb.GetDeltaChannelHistoryRequest) -> tuple[pb.GetDeltaChannelHistoryResponse, Contents]:
        """Reads the histories of channels, and the pieces of their values, blocking. Raises CheckpointdError."""

        def ask() -> pb.GetDeltaChannelHistoryResponse:
            return self._caller.call(  # type: ignore[no-any-return]
                "GetDeltaChannelHistory", lambda stubs: stubs.checkpoints.GetDeltaChannelHistory, request
            )

        return self._read(ask, request.thread_id, _values_of_history)

    async def ahistory(
        self, request: pb.GetDeltaChannelHistoryRequest
    ) -> tuple[pb.GetDeltaChannelHistoryResponse, Contents]:
        """Awaits `history`."""

        async def ask() -> pb.GetDeltaChannelHistoryResponse:
            return await self._caller.acall(  # type: ignore[no-any-return]
                "GetDeltaChannelHistory", lambda stubs: stubs.checkpoints.GetDeltaChannelHistory, request
            )

        return await self._aread(ask, request.thread_id, _values_of_history)

    def complete(self, message: values.CheckpointTuple, along: Iterable[values.Piece]) -> Contents | None:
        """Reads the pieces of a listed checkpoint, blocking. Returns None if some are gone.

        Args:
            message: The checkpoint.
            along: The pieces that came with the list.
        """
        try:
            return self._fetch(message.thread_id, _values_of_checkpoint(message), along)
        except _PiecesGoneError:
            return None

    async def acomplete(self, message: values.CheckpointTuple, along: Iterable[values.Piece]) -> Contents | None:
        """Awaits `complete`."""
        try:
            return await self._afetch(message.thread_id, _values_of_checkpoint(message), along)
        except _PiecesGoneError:
            return None

    def _read(
        self, ask: Callable[[], Read], thread_id: str, values_in: Callable[[Read], Iterable[values.TypedValue]]
    ) -> tuple[Read, Contents]:
        for _ in range(_TRIES):
            response = ask()
            with suppress(_PiecesGoneError):
                return response, self._fetch(thread_id, values_in(response), response.pieces)
        raise _restless(thread_id)

    async def _aread(
        self,
        ask: Callable[[], Awaitable[Read]],
        thread_id: str,
        values_in: Callable[[Read], Iterable[values.TypedValue]],
    ) -> tuple[Read, Contents]:
        for _ in range(_TRIES):
            response = await ask()
            with suppress(_PiecesGoneError):
                return response, await self._afetch(thread_id, values_in(response), response.pieces)
        raise _restless(thread_id)

    def _fetch(self, thread_id: str, found: Iterable[values.TypedValue], along: Iterable[values.Piece]) -> Contents:
        """Returns the pieces of values: from the answer, from those that are kept, and for the rest from the server."""
        sizes = piece_sizes(found)
        if not sizes:
            return NOTHING
        contents = Contents()
        contents.add(unpack(along))
        contents.add(self._cache.find(contents.lacking(sizes)))

        def read(request: pieces_pb.GetPiecesRequest) -> None:
            response = self._caller.call("GetPieces", lambda stubs: stubs.pieces.GetPieces, request)
            contents.add(unpack(_still_there(response)))

        while lacking := contents.lacking(sizes):
            each(read, _readings(thread_id, lacking))
        self._met(thread_id, contents)
        return contents

    async def _afetch(
        self, thread_id: str, found: Iterable[values.TypedValue], along: Iterable[values.Piece]
    ) -> Contents:
        """Awaits `_fetch`."""
        sizes = piece_sizes(found)
        if not sizes:
            return NOTHING
        contents = Contents()
        contents.add(await _aunpack(along))
        contents.add(self._cache.find(contents.lacking(sizes)))

        async def read(request: pieces_pb.GetPiecesRequest) -> None:
            response = await self._caller.acall("GetPieces", lambda stubs: stubs.pieces.GetPieces, request)
            contents.add(await _aunpack(_still_there(response)))

        while lacking := contents.lacking(sizes):
            await aeach(read, _readings(thread_id, lacking))
        self._met(thread_id, contents)
        return contents

    def _met(self, thread_id: str, contents: Contents) -> None:
        self._known.add(thread_id, contents.pieces.keys())
        self._cache.keep(contents.pieces)


def _values_of_checkpoint(message: values.CheckpointTuple) -> Iterator[values.TypedValue]:
    for entry in message.values:
        yield entry.value
    for write in message.pending_writes:
        yield write.value


def _values_got(response: pb.GetCheckpointResponse) -> Iterator[values.TypedValue]:
    return _values_of_checkpoint(response.tuple)


def _values_of_history(response: pb.GetDeltaChannelHistoryResponse) -> Iterator[values.TypedValue]:
    for history in response.channels:
        yield history.seed
        for write in history.writes:
            yield write.value


def _readings(thread_id: str, sizes: Mapping[bytes, int]) -> Iterator[pieces_pb.GetPiecesRequest]:
    """Yields the requests that read pieces: of each, the server has about as much as it answers at once."""
    request = pieces_pb.GetPiecesRequest(thread_id=thread_id)
    total = 0
    for name, size in sizes.items():
        if total and total + size > ASKED_BYTES:
            yield request
            request = pieces_pb.GetPiecesRequest(thread_id=thread_id)
            total = 0
        request.names.append(name)
        total += size
    if request.names:
        yield request


def _still_there(response: pieces_pb.GetPiecesResponse) -> Sequence[values.Piece]:
    if response.missing:
        raise _PiecesGoneError
    return response.pieces


async def _aunpack(pieces: Iterable[values.Piece]) -> list[tuple[bytes, bytes]]:
    """Unpacks pieces without holding up the event loop."""
    if sum(len(piece.data) for piece in pieces) > THREADED_BYTES:
        return await asyncio.to_thread(unpack, pieces)
    return unpack(pieces)


def _restless(thread_id: str) -> CheckpointdError:
    return CheckpointdError(f"thread {thread_id!r} changed again and again while a large value was read; try again")
