"""A real server on a real store, for the tests of the RPC layer."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest

from checkpointd_server.domain.store import CheckpointStore
from checkpointd_server.rpc import RpcServer
from checkpointd_server.store import StoreOptions, open_store
from tests.rpc.serving import Serve, serving
from tests.rpc.world import World
from tests.support.rpc_client import Client


@pytest.fixture
async def store(database_url: str) -> AsyncIterator[CheckpointStore]:
    """A store on a database of its own, with a pool of three connections."""
    async with open_store(StoreOptions(dsn=database_url, pool_max_size=3)) as opened:
        yield opened


@pytest.fixture
def serve(store: CheckpointStore) -> Serve:
    """Serves the store with given options: `async with serve(reflection=False) as (server, client)`."""

    def start(**options: Any) -> AbstractAsyncContextManager[tuple[RpcServer, Client]]:
        return serving(store, **options)

    return start


@pytest.fixture
async def client(serve: Serve) -> AsyncIterator[Client]:
    """A client of a server with default options."""
    async with serve() as (_, connected):
        yield connected


@pytest.fixture
def world(
    serve: Any, blocker: Callable[[], AbstractAsyncContextManager[Any]], database_url: str, store: Any, tmp_path: Path
) -> World:
    keys_file = tmp_path / "keys.toml"
    keys_file.touch()
    return World(serve=serve, blocker=blocker, database_url=database_url, keys_file=keys_file, store=store)
