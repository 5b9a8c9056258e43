"""The real server in this process, for tests that neither break nor configure it: it starts quickly."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Self

from checkpointd_server.domain.limits import Limits
from checkpointd_server.domain.tracing import Tracing
from checkpointd_server.rpc import RpcServer, ServerOptions
from checkpointd_server.store import StoreOptions, open_store


class LocalServer:
    """A server on a migrated database, started on entering and stopped on leaving.

    Its event loop runs in its own thread, so tests may call it blocking or awaiting.

    Args:
        database_url: The database.
        limits: The limits of requests.
        tracing: Traces calls and statements.
    """

    def __init__(self, database_url: str, *, limits: Limits | None = None, tracing: Tracing | None = None) -> None:
        self._limits = limits or Limits()
        self._tracing = tracing
        self._options = StoreOptions(dsn=database_url, limits=self._limits.fitting())
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="local-server", daemon=True)
        self._stack = AsyncExitStack()
        self.target = ""
        """Where it listens, e.g. "127.0.0.1:40123"."""

    def __enter__(self) -> Self:
        self._thread.start()
        try:
            entering = self._stack.enter_async_context(self._serving())
            self.target = asyncio.run_coroutine_threadsafe(entering, self._loop).result()
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(self, *exc_info: object) -> None:
        try:
            asyncio.run_coroutine_threadsafe(self._stack.aclose(), self._loop).result()
        finally:
            self._end()

    @property
    def thread(self) -> int:
        """The number of the thread that its event loop runs in."""
        assert self._thread.ident is not None
        return self._thread.ident

    @asynccontextmanager
    async def _serving(self) -> AsyncIterator[str]:
        async with open_store(self._options) as store:
            store.connections.tracing = self._tracing
            server = RpcServer(store, ServerOptions(listen=("127.0.0.1:0",), limits=self._limits), self._tracing)
            (address,) = await server.start()
            server.set_serving(True)
            try:
                yield address
            finally:
                await server.drain(0)

    def _end(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
