"""How long connections live: blocks, clones, and closing."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from langgraph.checkpoint.grpc._transport.cleanup import run_to_end
from langgraph.checkpoint.grpc._transport.client import Client


class ConnectionLifetime:
    """The part of a saver, or a store, that shares connections and closes them."""

    _client: Client
    _closed: bool

    def __copy__(self) -> Self:
        """LangGraph clones savers at compile time. A clone shares the connections; each is closed on its own."""
        clone = object.__new__(type(self))
        clone.__dict__.update(self.__dict__)
        if not self._closed:
            self._client.channels.share()
        return clone

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        self._client.channels.retain_loop()
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await run_to_end(self._leave())

    async def _leave(self) -> None:
        try:
            await self.aclose()
        finally:
            await self._client.channels.release_loop()

    def close(self) -> None:
        """Closes the connections, unless a clone, or a store on them, is still open. A second call does nothing."""
        if not self._closed:
            self._closed = True
            self._client.channels.close()

    async def aclose(self) -> None:
        """Closes the connections like `close`, and waits until those of this event loop are closed."""
        if not self._closed:
            self._closed = True
            await self._client.channels.aclose()
