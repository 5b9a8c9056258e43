"""The arguments of statements that store many rows: puts and task writes as columns."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from checkpointd_server.domain.model import Piece, Precondition, PutCheckpoint, PutWrites
from checkpointd_server.store.pieces import columns_of, stored_data, stored_size

_ESCAPES = str.maketrans({"\\": "\\\\", '"': '\\"'})


class _Columns:
    """Rows turned into columns, as `unnest` takes them."""

    def __init__(self, width: int) -> None:
        self.columns: list[list[object]] = [[] for _ in range(width)]

    def add(self, *row: object) -> None:
        for column, value in zip(self.columns, row, strict=True):
            column.append(value)


def batch_arguments(units: Sequence[tuple[PutCheckpoint | None, Sequence[PutWrites]]]) -> list[list[object]]:
    """Returns the arguments of `commit_batch`, in its order.

    Args:
        units: For each namespace its put, if there is one, and its task writes, all with request ids. A unit's position
            is its number in the answer. What belongs to a unit has one precondition and one lease token; a put's
            precondition names its own writer.
    """
    checkpoints, lone, filled, emptied = _Columns(18), _Columns(8), _Columns(6), _Columns(3)
    writes, pieces = _Columns(10), _Columns(6)
    for number, (put, all_writes) in enumerate(units):
        if put is not None:
            kind, expected = _kind(put.precondition)
            checkpoints.add(
                number,
                *put.namespace,
                put.checkpoint_id,
                put.parent_checkpoint_id,
                put.body,
                array_literal(list(put.channel_versions.keys())),
                array_literal(list(put.channel_versions.values())),
                put.metadata.type,
                put.metadata.data,
                put.metadata_index,
                put.run_id,
                put.writer or None,
                put.request_id,
                kind,
                expected,
                put.lease_token,
            )
            for channel, version, value in put.values:
                if value is None:
                    emptied.add(number, channel, version)
                else:
                    filled.add(number, channel, version, value.type, stored_data(value), stored_size(value))
        else:
            first = all_writes[0]
            precondition = first.precondition or Precondition()
            lone.add(
                number,
                *first.namespace,
                first.precondition is not None,
                precondition.if_version_match,
                precondition.if_last_writer or None,
                first.lease_token,
            )
        _add_writes(writes, all_writes, number)
        calls: list[PutCheckpoint | PutWrites] = [*all_writes] if put is None else [put, *all_writes]
        referred, brought = pieces_of(calls)
        tenant, thread_id, _ = calls[0].namespace
        for name in referred:
            pieces.add(number, tenant, thread_id, name, None, None)
        for piece in brought:
            pieces.add(number, tenant, thread_id, piece.name, piece.compression, piece.data)
    columns = (checkpoints, lone, filled, emptied, writes, pieces)
    return [column for several in columns for column in several.columns]


def pieces_of(calls: Sequence[PutCheckpoint | PutWrites]) -> tuple[list[bytes], list[Piece]]:
    """Returns the names of the pieces that calls refer to without bringing them, and the pieces that they bring.

    What a call brings and doesn't refer to isn't stored: nobody would look after it. Nor does one count on what another
    one brings.
    """
    referred = set[bytes]()
    brought: dict[bytes, Piece] = {}
    for call in calls:
        if names := call.names:
            own = {piece.name: piece for piece in call.pieces if piece.name in names}
            referred |= names - own.keys()
            brought |= own
    return list(referred), list(brought.values())


def piece_arguments(calls: Sequence[PutCheckpoint | PutWrites]) -> tuple[object, ...]:
    """Returns the arguments of the statements of puts that are about pieces, in their order."""
    referred, brought = pieces_of(calls)
    names, compressions, contents = columns_of(brought)
    return referred, names, compressions, contents


def write_arguments(all_writes: Iterable[PutWrites]) -> list[list[object]]:
    """Returns the arguments of `put_with_more` that are about the task writes, in its order."""
    columns = _Columns(9)
    _add_writes(columns, all_writes)
    return columns.columns


def _add_writes(columns: _Columns, all_writes: Iterable[PutWrites], *number: int) -> None:
    for call in all_writes:
        for task_id, task_path, idx, channel, value in call.writes:
            columns.add(
                *number,
                call.checkpoint_id,
                task_id,
                idx,
                task_path,
                channel,
                value.type,
                stored_data(value),
                stored_size(value),
                call.request_id,
            )


def array_literal(texts: Sequence[str]) -> str:
    """Writes texts as PostgreSQL writes an array: arrays of arrays must not be ragged, but arrays of such texts may.

    https://www.postgresql.org/docs/current/arrays.html#ARRAYS-IO
    """
    return "{" + ",".join([f'"{text.translate(_ESCAPES)}"' for text in texts]) + "}"


def _kind(precondition: Precondition | None) -> tuple[str, int | None]:
    if precondition is None:
        return "any", None
    if precondition.if_version_match == 0:
        return "new", 0
    return "onto", precondition.if_version_match
