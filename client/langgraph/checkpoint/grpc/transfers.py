"""Puts and reads whose values may be large: what of them goes with the call, and what goes before or comes after it.

A put goes with the pieces that the server isn't known to have. Where these are too many, it goes without them first:
the server says which it lacks, and they go ahead of the put in calls of their own. A read brings its first pieces
along, and the others are asked for. No message needs to be larger than a few MiB.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from contextvars import copy_context
from typing import Any, TypeVar

from langgraph.checkpoint.grpc.calls import Caller
from langgraph.checkpoint.grpc.errors import CheckpointdError
from langgraph.checkpoint.grpc.known_pieces import KnownPieces, PieceCache
from langgraph.checkpoint.grpc.pieces import INLINE_BYTES, NOTHING, Cargo, Contents, pack, piece_sizes, unpack
from langgraph.checkpoint.grpc.runs import UnderWay

from checkpointd.v1 import checkpoint_service_pb2 as pb
from checkpointd.v1 import piece_service_pb2 as pieces_pb
from checkpointd.v1 import values_pb2 as values

Put = pb.PutCheckpointRequest | pb.PutWritesRequest
Request = TypeVar("Request", pieces_pb.PutPiecesRequest, pieces_pb.GetPiecesRequest)
Read = TypeVar("Read", pb.GetCheckpointResponse, pb.GetDeltaChannelHistoryResponse)

THREADED_BYTES = 256 * 1024
"""From how many bytes on pieces are made and unpacked in another thread: an event loop would stand still meanwhile."""
ASKED_BYTES = 1024 * 1024
"""About how much is asked for in one reading of pieces, in bytes. Pieces differ in size, and a server answers 2 MiB."""
AT_ONCE = 4
"""How many transfers of pieces are under way at once, for one put or read."""
_TRIES = 10
"""How often a put, or a read, is begun anew because pieces went away meanwhile."""

_NAMES: dict[type[Put], str] = {pb.PutCheckpointRequest: "PutCheckpoint", pb.PutWritesRequest: "PutWrites"}


class _PiecesGoneError(Exception):
    """Pieces of what was just read are gone: it has been deleted, or replaced, since."""


class Transfers:
    """Carries puts, reads and pieces over a saver's channels."""

    def __init__(self, caller: Caller) -> None:
        self._caller = caller
        self._known = KnownPieces()
        self._cache = PieceCache(caller.options.cache_bytes)

    # Puts.

    def put(self, request: Put, cargo: Cargo) -> Any:
        """Sends a put and blocks for its answer. Raises CheckpointdError."""
        name = _NAMES[type(request)]
        if not cargo.size:
            return self._caller.call(name, lambda stubs: getattr(stubs.checkpoints, name), request)
        self._prepare(request, cargo)
        for _ in range(_TRIES):
            response = self._caller.call(name, lambda stubs: getattr(stubs.checkpoints, name), request)
            if not response.missing_pieces:
                break
            needed = _needed(request, response)
            if not _attach(request, cargo, needed):
                _each(self._upload, _uploads(request.thread_id, cargo, needed))
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
                await _aeach(self._aupload, _uploads(request.thread_id, cargo, needed))
        return self._stored(request, cargo, response)

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

    # Reads.

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
            _each(read, _readings(thread_id, lacking))
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
            await _aeach(read, _readings(thread_id, lacking))
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


def _each(work: Callable[[Request], None], requests: Iterator[Request]) -> None:
    """Does work on each of the requests, a few at once, and blocks until all of it is done."""
    turns, failed = threading.Lock(), threading.Event()

    def work_off() -> None:
        while True:
            with turns:
                request = None if failed.is_set() else next(requests, None)
            if request is None:
                return
            try:
                work(request)
            except BaseException:
                failed.set()
                raise

    with ThreadPoolExecutor(AT_ONCE) as threads:
        # With the caller's context: its token may depend on that.
        done = [threads.submit(copy_context().run, work_off) for _ in range(AT_ONCE)]
    for end in done:
        end.result()


async def _aeach(work: Callable[[Request], Awaitable[None]], requests: Iterator[Request]) -> None:
    """Awaits work on each of the requests, a few at once."""
    turns = asyncio.Lock()
    failure: Exception | None = None

    async def work_off() -> None:
        while True:
            async with turns:
                # To make one may take a while.
                request = await asyncio.to_thread(next, requests, None)
            if request is None:
                return
            await work(request)

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(AT_ONCE):
                group.create_task(work_off())
    except ExceptionGroup as failures:
        failure = failures.exceptions[0]
    if failure is not None:
        raise failure


def _restless(thread_id: str) -> CheckpointdError:
    return CheckpointdError(f"thread {thread_id!r} changed again and again while a large value was read; try again")
