"""Lifetime of connections: building, blocks, clones, and closing."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Concatenate, ParamSpec, Self, TypeVar

from langgraph.checkpoint.grpc._transport.cleanup import run_to_end
from langgraph.checkpoint.grpc._transport.client import Client

Options = ParamSpec("Options")
Built = TypeVar("Built")


class ConnectionLifetime:
    """The part of a saver, or a store, that shares connections and closes them."""

    _client: Client
    _closed: bool

    # Typed by the constructor itself, so that its parameters and their defaults stand in one place.
    @classmethod
    def from_conn_string(
        cls: Callable[Concatenate[str, Options], Built],
        conn_string: str,
        *args: Options.args,
        **options: Options.kwargs,
    ) -> Built:
        """Builds one for use in a `with` or `async with` block, by the name that LangGraph's own savers use.

        Args:
            conn_string: The server, as the class has `target`.
            args: Nothing; all options are keywords.
            options: The keyword arguments of the class.

        Returns:
            A saver or a store.

        Raises:
            InvalidArgumentError: An argument can't be used.
        """
        return cls(conn_string, *args, **options)

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
