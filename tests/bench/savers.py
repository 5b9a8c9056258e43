"""The savers that are compared: LangGraph's own on PostgreSQL, and ours on a server on the same PostgreSQL.

Each is built as users would: the stock async saver with a connection pool, the stock sync saver with one connection.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Literal

from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.checkpoint.grpc import Encryption, GrpcSaver
from langgraph.checkpoint.memory import InMemorySaver

Kind = Literal["checkpointd", "postgres", "memory"]
"""The saver: ours, the stock one, or the one in memory (the cost of serialization alone)."""
LARGEST_POOL = 10
"""Maximum number of connections in a stock saver's pool. More wouldn't help: it runs one statement at a time, under its
own lock."""
ENCRYPTION = Encryption(keys={"bench": bytes(32)}, current="bench")


@asynccontextmanager
async def open_async(kind: Kind, address: str, *, pool_size: int) -> AsyncIterator[BaseCheckpointSaver[Any]]:
    """Opens a saver for one process's async agents.

    Args:
        kind: The saver.
        address: The server's target for ours, the database's URL for the stock one.
        pool_size: The number of agents: the stock saver's pool has a connection for each, up to its maximum.
    """
    if kind == "checkpointd":
        async with GrpcSaver(address) as saver:
            yield saver
    elif kind == "postgres":
        from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver
        from psycopg.rows import dict_row
        from psycopg_pool import AsyncConnectionPool

        options = {"autocommit": True, "prepare_threshold": 0, "row_factory": dict_row}
        size = min(pool_size, LARGEST_POOL)
        async with AsyncConnectionPool(address, min_size=size, max_size=size, kwargs=options) as pool:
            await pool.wait()  # no connection is opened during the measurement
            yield AsyncPostgresSaver(pool)
    else:
        yield InMemorySaver()


@contextmanager
def open_sync(kind: Kind, address: str, *, encrypted: bool = False) -> Iterator[BaseCheckpointSaver[Any]]:
    """Opens a saver for one blocking caller; see `open_async`. Ours can encrypt what it stores."""
    if kind == "checkpointd":
        with GrpcSaver(address, encryption=ENCRYPTION if encrypted else None) as saver:
            yield saver
    elif kind == "postgres":
        from langgraph.checkpoint.postgres import PostgresSaver

        with PostgresSaver.from_conn_string(address) as saver:
            yield saver
    else:
        yield InMemorySaver()


def set_up(address: str) -> None:
    """Creates the stock saver's tables."""
    from langgraph.checkpoint.postgres import PostgresSaver

    with PostgresSaver.from_conn_string(address) as saver:
        saver.setup()
