"""The threads of a stock PostgresSaver: each is read from one snapshot, and written in one transaction."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.resources import files
from typing import Any, Self

import asyncpg

from checkpointd.v1.export_pb2 import ExportedThread
from checkpointd.v1.values_pb2 import CheckpointTuple, TypedValue
from checkpointd_server.domain.patches import apply_patch
from checkpointd_server.moving.content import Checkpoints, MoveError
from checkpointd_server.moving.stock_checkpoints import (
    Place,
    build,
    from_json,
    tag_of,
    to_json,
    version_of,
    whole_value,
)
from checkpointd_server.store.statements import load_statements

CONNECT_SECONDS = 10.0
"""How long connecting may take, in seconds."""
PAGE = 200
"""Number of checkpoints that are read at a time."""
_TABLES = {
    "checkpoints": {"thread_id", "checkpoint_ns", "checkpoint_id", "parent_checkpoint_id", "checkpoint", "metadata"},
    "checkpoint_blobs": {"thread_id", "checkpoint_ns", "channel", "version", "type", "blob"},
    "checkpoint_writes": {"thread_id", "checkpoint_ns", "checkpoint_id", "task_id", "task_path", "idx", "channel"},
}


class PostgresThreads:
    """The threads in the tables of a stock saver: a source, and a target.

    Args:
        url: The database. Its search path must find the tables.

    Raises:
        MoveError: It can't be connected to, or has no such tables.
    """

    def __init__(self, url: str) -> None:
        self._runner = asyncio.Runner()
        self._statements = load_statements("", files(__package__) / "sql" / "postgres")
        try:
            self._connection: Any = self._runner.run(asyncpg.connect(url, timeout=CONNECT_SECONDS))
        except (OSError, TimeoutError, ValueError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            self._runner.close()
            # Not the driver's message, which may contain parts of the URL.
            raise MoveError(f"the stock saver's database can't be connected to ({type(error).__name__})") from None
        try:
            self._check_tables()
        except BaseException:
            self.__exit__()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._connection.terminate()
        self._runner.close()

    def _check_tables(self) -> None:
        for table, columns in _TABLES.items():
            found = {row["name"] for row in self._fetch("columns", table)}
            if not found:
                raise MoveError(
                    f"the database has no table {table}: it isn't PostgresSaver's, or its `setup()` was never called"
                )
            if lacking := columns - found:
                raise MoveError(
                    f"the table {table} lacks {', '.join(sorted(lacking))}: call `setup()` of a recent PostgresSaver; "
                    "a ShallowPostgresSaver's tables can't be moved"
                )

    def _fetch(self, statement: str, *args: object) -> Sequence[Mapping[str, Any]]:
        try:
            rows: Sequence[Mapping[str, Any]] = self._runner.run(
                self._connection.fetch(self._statements[statement], *args)
            )
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            code = getattr(error, "sqlstate", None) or type(error).__name__
            raise MoveError(f"the stock saver's database refused to {statement.replace('_', ' ')} ({code})") from None
        return rows

    @contextmanager
    def _transaction(self, begin: str) -> Iterator[None]:
        self._fetch(begin)
        try:
            yield
        except BaseException:
            if not self._connection.is_closed():
                self._fetch("roll_back")
            raise
        self._fetch("commit")

    def thread_ids(self) -> Iterator[str]:
        """Yields every thread's id."""
        last: str | None = None
        while rows := self._fetch("list_threads", last, PAGE):
            for row in rows:
                yield row["thread_id"]
            last = rows[-1]["thread_id"]

    @property
    def name(self) -> str:
        """The name of the database and its schema, independent of the URL."""
        (row,) = self._fetch("identify")
        return f"the schema {row['schema']!r} of the database {row['database']!r} in PostgreSQL {row['system']}"

    def stamp(self, thread_id: str) -> str:
        """Returns a stamp that changes with the thread. Empty: there is no such thread."""
        (row,) = self._fetch("stamp_thread", thread_id)
        return str(row["stamp"] or "")

    def holds(self, thread_id: str) -> bool:
        """Returns whether a thread has checkpoints."""
        return bool(self._fetch("find_thread", thread_id))

    def delete(self, thread_id: str) -> None:
        """Deletes a thread."""
        with self._transaction("begin_writing"):
            for table in ("writes", "blobs", "checkpoints"):
                self._fetch(f"delete_{table}", thread_id)

    def describe(self, thread_id: str) -> ExportedThread:
        """Returns its name, the only attribute of a thread here."""
        return ExportedThread(thread_id=thread_id)

    def read(self, thread_id: str) -> Checkpoints:
        """Yields a thread's checkpoints in order, from one snapshot. Raises MoveError."""
        with self._transaction("begin_reading"):
            given: set[tuple[str, str, str]] = set()
            after: tuple[str | None, str | None] = (None, None)
            while rows := self._fetch("read_checkpoints", thread_id, *after, PAGE):
                for row in rows:
                    yield self._checkpoint(thread_id, row, given)
                after = (rows[-1]["checkpoint_id"], rows[-1]["checkpoint_ns"])

    def _checkpoint(self, thread_id: str, row: Mapping[str, Any], given: set[tuple[str, str, str]]) -> CheckpointTuple:
        place = Place(thread_id, row["checkpoint_ns"], row["checkpoint_id"], row["parent_checkpoint_id"])
        stock = from_json(row["checkpoint"], place)
        made = build(place, stock, row["metadata"])
        ns = place.checkpoint_ns
        wanted = {
            channel: tag
            for channel, tag in zip(made.channels, made.channel_versions, strict=True)
            if (ns, channel, tag) not in given
        }
        # A blob has precedence over the checkpoint's own value, which may be just a marker of the blob.
        values = {channel: value for channel, value in stock.values.items() if channel in wanted}
        blobs = self._fetch(
            "read_blobs", thread_id, ns, list(wanted), [str(version_of(tag)) for tag in wanted.values()]
        )
        for blob in blobs:
            values.pop(blob["channel"], None)
            if blob["type"] != "empty":
                values[blob["channel"]] = whole_value(blob["type"], blob["blob"])
        for channel, value in values.items():
            made.values.add(channel=channel, version=tag_of(stock.versions[channel], place), value=value)
            given.add((ns, channel, wanted[channel]))
        for write in self._fetch("read_writes", thread_id, ns, place.checkpoint_id):
            written = made.pending_writes.add(
                task_id=write["task_id"], task_path=write["task_path"], idx=write["idx"], channel=write["channel"]
            )
            written.value.CopyFrom(whole_value(write["type"] or "", write["blob"]))
            written.value.ClearField("crc32")
        return made

    @contextmanager
    def writing(self, thread: ExportedThread) -> Iterator[_Writer]:
        """Receives a thread in one transaction. Its tags are dropped: the tables have no place for them."""
        with self._transaction("begin_writing"):
            yield _Writer(self, thread.thread_id)

    def run(self, statement: str, *args: object) -> Sequence[Mapping[str, Any]]:
        """Runs a statement for a writer, in its transaction."""
        return self._fetch(statement, *args)


class _Writer:
    """Writes the checkpoints of a thread, with whole values."""

    def __init__(self, threads: PostgresThreads, thread_id: str) -> None:
        self._run = threads.run
        self._thread_id = thread_id
        self._last: dict[tuple[str, str], tuple[str, bytes]] = {}
        """The last value of each namespace and channel, on which most patches build, and its version."""

    def write(self, checkpoint: CheckpointTuple) -> None:
        """Writes the next checkpoint with its task writes."""
        place = Place(self._thread_id, checkpoint.checkpoint_ns, checkpoint.checkpoint_id, None)
        body, metadata = to_json(checkpoint, place)
        parent = checkpoint.parent_checkpoint_id or None
        ns, checkpoint_id = place.checkpoint_ns, place.checkpoint_id
        self._run("write_checkpoint", self._thread_id, ns, checkpoint_id, parent, body, metadata)
        for value in checkpoint.values:
            data = self._bytes(value.value, ns, value.channel)
            self._last[ns, value.channel] = value.version, data
            version = str(version_of(value.version))
            self._run("write_blob", self._thread_id, ns, value.channel, version, value.value.type, data)
        for write in checkpoint.pending_writes:
            data = self._bytes(write.value, ns, write.channel)
            where = (self._thread_id, ns, checkpoint_id, write.task_id, write.task_path, write.idx)
            self._run("write_write", *where, write.channel, write.value.type, data)

    def _bytes(self, value: TypedValue, ns: str, channel: str) -> bytes:
        if not value.HasField("patch"):
            return value.data
        if value.patch.sealed:
            raise MoveError(
                f"thread {self._thread_id!r} has encrypted values that are kept as changes, which only the saver that "
                "has the key can put together"
            )
        version, base = self._last.get((ns, channel), ("", b""))
        if version != value.patch.base_version:
            text = str(version_of(value.patch.base_version))
            ((_, _, base),) = (row.values() for row in self._run("read_blobs", self._thread_id, ns, [channel], [text]))
        return apply_patch(base, value.data, size=value.patch.size, checksum=value.patch.crc32)
