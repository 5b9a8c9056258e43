"""Writing checkpoints and task writes."""

from __future__ import annotations

import secrets
from collections.abc import Sequence

from checkpointd_server.domain.errors import DatabaseUnavailable, InvalidArgument, PiecesMissing, VersionConflict
from checkpointd_server.domain.model import Namespace, Precondition, PutCheckpoint, PutWrites
from checkpointd_server.store.batches import piece_arguments, write_arguments
from checkpointd_server.store.database import Database, Row, Session
from checkpointd_server.store.leases import make_way
from checkpointd_server.store.pieces import stored_data, stored_size

_TRIES = 10
_NOTHING = Precondition()


async def put_checkpoint(database: Database, put: PutCheckpoint, *, timeout: float | None) -> int:
    """Stores a checkpoint in one statement and returns the new version.

    Raises VersionConflict, LeaseHeld, LeaseLost, PiecesMissing; InvalidArgument if the namespace's last put was another
    one with the same request id.
    """
    # A put that names itself can be sent again when its answer is lost, by the pool too.
    request_id = put.request_id or new_request_id()
    precondition = put.precondition or _NOTHING
    unconditional = _is_unconditional(precondition)
    conditional, args = _put_arguments(put, request_id)
    statement = "put_checkpoint_if" if conditional else "put_checkpoint"
    if put.names:
        args += _arguments_along(put, [])
        statement = "put_with_more_if" if conditional else "put_with_more"

    async def work(session: Session) -> int:
        for _ in range(_TRIES):
            stored = await session.fetch_row(statement, *args)
            assert stored is not None
            if stored["version"] is not None:
                return int(stored["version"])
            reason = await session.fetch_row("explain_put", *put.namespace, put.checkpoint_id, request_id)
            assert reason is not None
            if (stored_version := _stored_before(put, reason)) is not None:
                return stored_version
            if stored["missing_pieces"] != []:
                await _wait_for_pieces(session, put, stored)
            elif stored["lease_token"] != put.lease_token:
                await make_way(session, put.namespace.tenant, put.namespace.thread_id, put.lease_token)
            elif not unconditional:
                raise _conflict(put.namespace, precondition, reason)
            # What kept the put from being stored was gone a moment later: a lease, or the thread is being deleted.
        raise DatabaseUnavailable("others got in the way of this put again and again; try again")

    return await database.run(work, timeout=timeout)


async def put_writes(database: Database, put: PutWrites, *, timeout: float | None) -> int:
    """Stores task writes in one statement and returns the version, as `put_checkpoint` stores a checkpoint.

    Writes that were stored before are known by their request id also where they would be refused now. Then the answer
    is 0: the version that they were stored at is gone, and the present one is another writer's.
    """
    precondition = put.precondition or _NOTHING
    request_id = put.request_id or new_request_id()
    places = ([write.task_id for write in put.writes], [write.idx for write in put.writes])
    args: tuple[object, ...] = (
        *put.namespace,
        put.checkpoint_id,
        *places,
        [write.task_path for write in put.writes],
        [write.channel for write in put.writes],
        [write.value.type for write in put.writes],
        [stored_data(write.value) for write in put.writes],
        put.lease_token,
        [stored_size(write.value) for write in put.writes],
        request_id,
        *piece_arguments([put]),
    )
    statement = "put_writes"
    if not _is_unconditional(precondition):
        statement = "put_writes_if"
        args = (*args, precondition.if_version_match, precondition.if_last_writer or None)

    async def work(session: Session) -> int:
        for _ in range(_TRIES):
            stored = await session.fetch_row(statement, *args)
            assert stored is not None
            if stored["version"] is not None:
                return int(stored["version"])
            reason = await session.fetch_row("explain_writes", *put.namespace, put.checkpoint_id, request_id, *places)
            assert reason is not None
            if reason["was_stored"]:
                return 0
            if stored["missing_pieces"] != []:
                await _wait_for_pieces(session, put, stored)
            elif stored["lease_token"] == put.lease_token:
                raise _conflict(put.namespace, precondition, reason)
            else:
                await make_way(session, put.namespace.tenant, put.namespace.thread_id, put.lease_token)
        raise DatabaseUnavailable("others got in the way of these writes again and again; try again")

    return await database.run(work, timeout=timeout)


async def put_together(
    database: Database, put: PutCheckpoint, writes: Sequence[PutWrites], *, timeout: float | None
) -> int | None:
    """Stores a checkpoint with task writes of the same run, in one statement, and returns the new version.

    None: they were refused, and nothing was stored. `put_checkpoint` and `put_writes` tell why.

    Args:
        database: Where to.
        put: The checkpoint. It has a request id.
        writes: The task writes, which are as the put is, with its namespace, precondition and lease token. No two of
            them write the same row.
        timeout: How long it may take, in seconds.
    """
    conditional, args = _put_arguments(put, put.request_id)
    args += _arguments_along(put, writes)
    statement = "put_with_more_if" if conditional else "put_with_more"

    async def work(session: Session) -> int | None:
        stored = await session.fetch_row(statement, *args)
        assert stored is not None
        return None if stored["version"] is None else int(stored["version"])

    return await database.run(work, timeout=timeout)


def _put_arguments(put: PutCheckpoint, request_id: bytes) -> tuple[bool, tuple[object, ...]]:
    """Returns whether a put needs the statement for a namespace that is there, and the statement's arguments."""
    precondition = put.precondition or _NOTHING
    expected: int | bool | None = precondition.if_version_match
    conditional = True
    if (unconditional := _is_unconditional(precondition)) or precondition.if_version_match == 0:
        conditional, expected = False, unconditional
    filled = [(channel, version, value) for channel, version, value in put.values if value is not None]
    emptied = [value for value in put.values if value.value is None]
    return conditional, (
        *put.namespace,
        put.checkpoint_id,
        put.parent_checkpoint_id,
        put.body,
        list(put.channel_versions.keys()),
        list(put.channel_versions.values()),
        put.metadata.type,
        put.metadata.data,
        put.metadata_index,
        put.run_id,
        put.writer or None,
        request_id,
        [channel for channel, _, _ in filled],
        [version for _, version, _ in filled],
        [value.type for _, _, value in filled],
        [stored_data(value) for _, _, value in filled],
        [value.channel for value in emptied],
        [value.version for value in emptied],
        expected,
        precondition.if_last_writer or None,
        put.lease_token,
        [stored_size(value) for _, _, value in filled],
    )


def _arguments_along(put: PutCheckpoint, writes: Sequence[PutWrites]) -> tuple[object, ...]:
    """Returns the arguments of a put's statement that are about what is stored along with it."""
    return (*write_arguments(writes), *piece_arguments([put, *writes]))


async def _wait_for_pieces(session: Session, put: PutCheckpoint | PutWrites, stored: Row) -> None:
    """Waits until the thread's pieces can be told. Raises PiecesMissing if it is known that some are not there."""
    if stored["missing_pieces"]:
        raise PiecesMissing(stored["missing_pieces"])
    await session.fetch("share_pieces", put.namespace.tenant, put.namespace.thread_id)


def new_request_id() -> bytes:
    """Returns a name for a put, or for task writes, that have none."""
    return secrets.token_bytes(16)


def _is_unconditional(precondition: Precondition) -> bool:
    return precondition.if_version_match is None and not precondition.if_last_writer


def _stored_before(put: PutCheckpoint, found: Row) -> int | None:
    """Returns the version that the same put was given before, if it was stored, be its checkpoint pruned since."""
    if found["stored_version"] is not None:
        return int(found["stored_version"])
    if not found["is_last_request"]:
        return None
    if found["last_checkpoint_id"] != put.checkpoint_id:
        raise InvalidArgument(
            "request_id",
            "is that of the namespace's last put, of another checkpoint; choose one at random for each put",
        )
    return int(found["version"])


def _conflict(namespace: Namespace, precondition: Precondition, found: Row) -> VersionConflict:
    return VersionConflict(
        thread_id=namespace.thread_id,
        checkpoint_ns=namespace.checkpoint_ns,
        expected_version=precondition.if_version_match,
        current_version=found["version"] or 0,
        current_checkpoint_id=found["last_checkpoint_id"],
    )
