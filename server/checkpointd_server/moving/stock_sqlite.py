"""The threads of a stock SqliteSaver's file, opened read-only."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from hashlib import sha256
from importlib.resources import files
from pathlib import Path
from typing import Self

from checkpointd.v1.export_pb2 import ExportedThread
from checkpointd.v1.values_pb2 import TypedValue
from checkpointd_server.moving.content import Checkpoints, MoveError, shown
from checkpointd_server.moving.stock_checkpoints import Place, build, from_serialized, tag_of, whole_value
from checkpointd_server.store.statements import load_statements


class SqliteThreads:
    """The threads in a file of SQLite.

    Args:
        path: The file.

    Raises:
        MoveError: It can't be opened, or has no stock saver's tables.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._connection = sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True, isolation_level=None)
            self._connection.text_factory = _text
            columns = {row[1] for row in self._connection.execute("PRAGMA table_info(writes)")}
            has_checkpoints = any(self._connection.execute("PRAGMA table_info(checkpoints)"))
        except sqlite3.Error as error:
            raise MoveError(f"{shown(path)} can't be read as SQLite: {error}") from None
        if not has_checkpoints or not columns:
            raise MoveError(f"{shown(path)} has no tables of SqliteSaver")
        statements = load_statements("", files(__package__) / "sql" / "sqlite")
        self._threads, self._checkpoints = statements["list_threads"], statements["read_checkpoints"]
        self._writes = statements["read_writes" if "task_path" in columns else "read_writes_without_paths"]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._connection.close()

    @property
    def name(self) -> str:
        """Name of the file."""
        return f"the file {shown(self._path.resolve())}"

    def stamp(self, thread_id: str) -> str:
        """Returns a stamp that changes with any thread: SQLite has none of a single thread."""
        files = [self._path, self._path.with_name(f"{self._path.name}-wal")]
        found = [file.stat() for file in files if file.exists()]
        return " ".join(f"{file.st_ino}:{file.st_size}:{file.st_mtime_ns}" for file in found if file.st_size)

    def thread_ids(self) -> Iterator[str]:
        """Yields every thread's id."""
        for (thread_id,) in self._connection.execute(self._threads):
            yield thread_id

    def describe(self, thread_id: str) -> ExportedThread:
        """Returns its name, the only attribute of a thread here."""
        return ExportedThread(thread_id=thread_id)

    def read(self, thread_id: str) -> Checkpoints:
        """Yields a thread's checkpoints in order, from one snapshot. Raises MoveError."""
        self._connection.execute("BEGIN")
        try:
            yield from self._read(thread_id)
        except sqlite3.Error as error:
            raise MoveError(f"{shown(self._path)} can't be read: {error}") from None
        finally:
            self._connection.rollback()

    def _disputed(self, thread_id: str) -> dict[tuple[str, str, str], TypedValue]:
        """Returns the newest value of each version for which checkpoints have different values.

        There should be none, but the stock saver serializes values in the background while the graph goes on.
        """
        first: dict[tuple[str, str, str], bytes] = {}
        disputed: dict[tuple[str, str, str], TypedValue] = {}
        for checkpoint_ns, checkpoint_id, parent, type, data, _ in self._connection.execute(
            self._checkpoints, (thread_id,)
        ):
            place = Place(thread_id, checkpoint_ns, checkpoint_id, parent)
            stock = from_serialized(type, data, place)
            for channel, value in stock.values.items():
                if channel not in stock.versions:
                    raise MoveError(f"{place} has a value without a version, of channel {channel!r}")
                key = (checkpoint_ns, channel, tag_of(stock.versions[channel], place))
                if key in disputed or first.setdefault(key, digest := _digest(value)) != digest:
                    disputed[key] = value
        return disputed

    def _read(self, thread_id: str) -> Checkpoints:
        given: set[tuple[str, str, str]] = set()
        disputed = self._disputed(thread_id)
        rows = self._connection.execute(self._checkpoints, (thread_id,))
        for checkpoint_ns, checkpoint_id, parent, type, data, metadata in rows:
            place = Place(thread_id, checkpoint_ns, checkpoint_id, parent)
            stock = from_serialized(type, data, place)
            made = build(place, stock, "{}" if metadata is None else bytes(metadata).decode())
            for channel, value in stock.values.items():
                version = tag_of(stock.versions[channel], place)
                key = (checkpoint_ns, channel, version)
                if key not in given:
                    made.values.add(channel=channel, version=version, value=disputed.get(key, value))
                    given.add(key)
            writes = self._connection.execute(self._writes, (thread_id, checkpoint_ns, checkpoint_id))
            for task_id, path, idx, channel, type, value in sorted(writes, key=_write_order):
                written = made.pending_writes.add(task_id=task_id, task_path=path, idx=idx, channel=channel)
                written.value.CopyFrom(whole_value(type, value))
                written.value.ClearField("crc32")
            yield made


def _digest(value: TypedValue) -> bytes:
    return sha256(value.data).digest()


def _write_order(row: tuple[str, str, int, str, str, bytes]) -> tuple[bytes, bytes, int]:
    return row[1].encode(), row[0].encode(), row[2]


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogatepass")
