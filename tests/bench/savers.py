"""The savers that are compared: LangGraph's own on PostgreSQL, and ours on a server on the same PostgreSQL.

Each is what a user would build: the stock async saver with a connection pool, the stock sync saver with one connection.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Literal

from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.checkpoint.grpc import Encryption, GrpcSaver
from langgraph.checkpoint.memory import InMemorySaver

Kind = Literal["checkpointd", "postgres", "memory"]
"""Which saver: ours, the stock one, or the one in memory (what serialization alone costs)."""
LARGEST_POOL = 10
"""How many connections a pool of the stock saver has at the most. More are of no use to it: it runs one statement at a
time, under a lock of its own."""
ENCRYPTION = Encryption(keys={"bench": bytes(32)}, current="bench")


@asynccontextmanager
async def open_async(kind: Kind, address: str, *, pool_size: int) -> AsyncIterator[BaseCheckpointSaver[Any]]:
    """Opens a saver for one process's async agents.

    Args:
        kind: Which saver.
        address: The server's target for ours, the database's URL for the stock one.
        pool_size: How many agents there are: the stock saver's pool has a connection for each, but for its bound.
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
            await pool.wait()  # no connection is made while the clock runs
            yield AsyncPostgresSaver(pool)
    else:
        yield InMemorySaver()


@contextmanager
def open_sync(kind: Kind, address: str, *, encrypted: bool = False) -> Iterator[BaseCheckpointSaver[Any]]:
    """Opens a saver for one blocking caller; see `open_async`. Ours may encrypt what it stores."""
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
    """Makes the stock saver's tables."""
    from langgraph.checkpoint.postgres import PostgresSaver

    with PostgresSaver.from_conn_string(address) as saver:
        saver.setup()
