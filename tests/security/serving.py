"""A real server in this process that authenticates callers."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

from checkpointd_server.domain.access import AccessOptions
from checkpointd_server.domain.store import CheckpointStore
from checkpointd_server.rpc import RpcServer, ServerOptions

Serve = Callable[..., AbstractAsyncContextManager[str]]


@asynccontextmanager
async def serving(
    store: CheckpointStore, *, listen: str = "127.0.0.1:0", server: dict[str, Any] | None = None, **access: Any
) -> AsyncIterator[str]:
    """Serves a store with these server and access options, and yields the address."""
    running = RpcServer(store, ServerOptions(listen=(listen,), access=AccessOptions(**access), **(server or {})))
    (address,) = await running.start()
    running.set_serving(True)
    try:
        yield address
    finally:
        await running.drain(0)
