"""Pieces of large values: stored once a thread, held for the puts that refer to them, read back, and swept away."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Sequence
from functools import partial
from itertools import islice, takewhile

from checkpointd_server.domain.errors import CheckpointdError
from checkpointd_server.domain.model import FoundPieces, Piece, PieceList, TypedValue
from checkpointd_server.store.database import Connections, Database, Session

DIGEST_BYTES = 32
"""How long a piece's name is."""
FIRST_BYTES = 1024 * 1024
"""How much of a read's pieces comes with it, in bytes."""
ANSWER_BYTES = 2 * 1024 * 1024
"""How much one reading of pieces brings, in bytes."""
_POSTPONED_SECONDS = 600.0
"""When a thread that couldn't be swept is looked at again."""
_NAMES_AT_ONCE = 4096
"""How many pieces one reading looks for: more would hardly fit."""

_logger = logging.getLogger(__name__)


async def upload(
    database: Database, tenant: str, thread_id: str, pieces: Sequence[Piece], *, spared: float, timeout: float | None
) -> None:
    """Stores pieces ahead of a put. They are spared for so many seconds; then those that nothing refers to go."""
    args = (tenant, thread_id, *columns_of(pieces), spared)
    await database.run(lambda session: session.fetch("upload_pieces", *args), timeout=timeout)


async def first(session: Session, tenant: str, thread_id: str, values: Iterable[TypedValue]) -> list[Piece]:
    """Reads the first pieces of values, up to FIRST_BYTES."""
    asked: dict[bytes, None] = {}
    expected = 0
    for pieces in (value.pieces for value in values if value.pieces is not None):
        # Of pieces of average size four times as many as fit: the first ones may well be smaller than the others.
        wanted = (4 * FIRST_BYTES - expected) * len(pieces.names) // max(pieces.size, 1) + 1
        asked.update(dict.fromkeys(name for name in pieces.names[:wanted] if len(name) == DIGEST_BYTES))
        expected += pieces.size
        if expected >= 4 * FIRST_BYTES:
            break
    if not asked:
        return []
    names = list(islice(asked, _NAMES_AT_ONCE))
    rows = await session.fetch("get_pieces", tenant, thread_id, names, FIRST_BYTES)
    return [Piece(row["digest"], row["data"], row["compression"]) for row in rows if row["data"] is not None]


async def get(
    database: Database, tenant: str, thread_id: str, names: Sequence[bytes], *, timeout: float | None
) -> FoundPieces:
    """Reads the first of the pieces asked for, up to ANSWER_BYTES."""

    async def work(session: Session) -> FoundPieces:
        digests = list(takewhile(lambda name: len(name) == DIGEST_BYTES, names[:_NAMES_AT_ONCE]))
        if digests:
            rows = await session.fetch("get_pieces", tenant, thread_id, digests, ANSWER_BYTES)
            found = [Piece(row["digest"], row["data"], row["compression"]) for row in rows if row["data"] is not None]
            return FoundPieces(found, [row["digest"] for row in rows if row["data"] is None])
        return await _get_whole(session, tenant, thread_id, names)

    return await database.run(work, timeout=timeout, reads=True)


async def _get_whole(session: Session, tenant: str, thread_id: str, names: Sequence[bytes]) -> FoundPieces:
    """Reads values that were stored whole, and left out of an answer."""
    found = FoundPieces([], [])
    room = ANSWER_BYTES
    for name in takewhile(lambda name: len(name) != DIGEST_BYTES, names[:_NAMES_AT_ONCE]):
        data = await _get_stored(session, tenant, thread_id, name)
        if data is None:
            found.missing.append(name)
            continue
        room -= len(data)
        if room < 0 and found.pieces:
            break
        found.pieces.append(Piece(name, data, 0))
    return found


async def _get_stored(session: Session, tenant: str, thread_id: str, place: bytes) -> bytes | None:
    data: bytes | None = None
    match _read_place(place):
        case ["value", str() as checkpoint_ns, str() as channel, str() as version]:
            key = (tenant, thread_id, checkpoint_ns, channel, version)
            data = await session.fetch_value("get_stored_value", *key)
        case ["write", str() as checkpoint_ns, str() as checkpoint_id, str() as task_id, int() as idx]:
            key = (tenant, thread_id, checkpoint_ns, checkpoint_id, task_id)
            data = await session.fetch_value("get_stored_write", *key, idx)
    return data


def read_value(type_: str, data: bytes | None, size: int | None, place: Sequence[str | int]) -> TypedValue:
    """Returns a value as the columns of a read tell it.

    Args:
        type_: The serializer's tag.
        data: The value, or the digests of its pieces. None: it was stored whole and is left out.
        size: How many bytes it has; None: `data` are they.
        place: Where a value that is left out can be read.
    """
    if size is None:
        assert data is not None
        return TypedValue(type_, data)
    if data is None:
        return TypedValue(type_, b"", PieceList(size, [_write_place(place)]))
    names = [data[start : start + DIGEST_BYTES] for start in range(0, len(data), DIGEST_BYTES)]
    return TypedValue(type_, b"", PieceList(size, names))


def stored_data(value: TypedValue) -> bytes:
    """Returns what is stored of a value: itself, or its pieces' digests."""
    return value.data if value.pieces is None else b"".join(value.pieces.names)


def stored_size(value: TypedValue) -> int | None:
    """Returns what is stored as a value's size: None where it is stored whole."""
    return None if value.pieces is None else value.pieces.size


def value_place(checkpoint_ns: str, channel: str, version: str) -> tuple[str, ...]:
    """Returns where a channel's value lies."""
    return ("value", checkpoint_ns, channel, version)


def write_place(checkpoint_ns: str, checkpoint_id: str, task_id: str, idx: int) -> tuple[str | int, ...]:
    """Returns where a task write lies."""
    return ("write", checkpoint_ns, checkpoint_id, task_id, idx)


def _write_place(place: Sequence[str | int]) -> bytes:
    written = json.dumps(place).encode()
    # A name of 32 bytes would be a digest.
    return written + b" " if len(written) == DIGEST_BYTES else written


def _read_place(place: bytes) -> list[object] | None:
    """Returns a place that a client names, or None if there can't be such a one."""
    try:
        parts = json.loads(place)
        if not isinstance(parts, list):
            return None
        for part in parts:
            if isinstance(part, str):
                part.encode()  # lone surrogates
                if "\0" in part:
                    return None
            elif type(part) is not int or not -(2**31) <= part < 2**31:
                return None
    except (ValueError, RecursionError):
        return None
    return parts


async def sweep(database: Database, tenant: str, thread_id: str, *, spared: float, timeout: float | None) -> None:
    """Deletes the pieces that nothing refers to of a thread that is on the list of those to be swept.

    Those sent ahead within the last `spared` seconds stay, and the thread on the list.
    """

    async def work(session: Session) -> None:
        await session.fetch("own_pieces", tenant, thread_id)
        if await session.fetch_row("begin_sweep", tenant, thread_id) is None:
            return  # another server was faster
        deleted = await session.fetch_row("delete_unreferenced_pieces", tenant, thread_id, spared)
        assert deleted is not None
        if deleted["content_ids"]:
            await session.fetch("lock_contents", tenant, deleted["content_ids"])
            await session.fetch("delete_nameless_contents", tenant, deleted["content_ids"])
        if deleted["due_in"] is not None:
            await session.fetch("queue_sweep_later", tenant, thread_id, deleted["due_in"])

    await database.transact(work, timeout=timeout)


async def sweep_queued(
    database: Database, tenant: str, queued: Iterable[str], *, spared: float, timeout: float | None
) -> None:
    """Sweeps the threads that a deletion has queued, at once. What fails is left for the collector."""
    for thread_id in queued:
        try:
            await sweep(database, tenant, thread_id, spared=spared, timeout=timeout)
        except CheckpointdError as error:
            _logger.info("pieces are left for the collector: %s", error)
            return


async def collect(connections: Connections, *, spared: float, timeout: float | None) -> int:
    """Sweeps the threads that are due, and returns how many there were. One that fails doesn't hold up the others."""
    due = await connections.of(None).run(lambda session: session.fetch("due_sweeps"), timeout=timeout)
    for row in due:
        thread = (row["tenant"], row["thread_id"])
        database = connections.of(row["tenant"])
        try:
            await sweep(database, *thread, spared=spared, timeout=timeout)
        except CheckpointdError as error:
            _logger.warning("a thread's pieces could not be looked after, they are left for later: %s", error)
            # If that fails too, it is the database.
            later = partial(_postpone, thread)
            await database.run(later, timeout=timeout)
    return len(due)


async def _postpone(thread: tuple[str, str], session: Session) -> None:
    await session.fetch("postpone_sweep", *thread, _POSTPONED_SECONDS)


def columns_of(pieces: Sequence[Piece]) -> tuple[list[bytes], list[int], list[bytes]]:
    """Returns pieces as columns: their names, how they are compressed, and what they hold."""
    return [piece.name for piece in pieces], [piece.compression for piece in pieces], [piece.data for piece in pieces]
