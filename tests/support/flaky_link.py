"""A TCP link between a client and a server, with network faults that tests control."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Self


class FlakyLink:
    """Forwards connections to a server until it is told to lose answers, stall, or cut connections.

    It runs on an event loop in its own thread, so both sync and async tests can use it.

    Args:
        target: Where to forward to, "host:port" or "unix:path".
    """

    def __init__(self, target: str) -> None:
        self._upstream = target
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="flaky-link", daemon=True)
        self._listener: asyncio.Server | None = None
        self._links: set[asyncio.Task[None]] = set()
        self._upstreams: set[asyncio.StreamWriter] = set()
        self._forgotten: set[asyncio.StreamWriter] = set()
        self._answers = asyncio.Event()
        self._requests = asyncio.Event()
        self.target = ""
        """Where a client connects to."""

    def __enter__(self) -> Self:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result()
        return self

    def __exit__(self, *exc_info: object) -> None:
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def hold_answers(self) -> None:
        """Starts losing answers: requests still arrive."""
        self._set(self._answers.clear)

    def stall(self) -> None:
        """Starts holding all data, unnoticed by both sides."""
        self._set(self._answers.clear, self._requests.clear)

    def resume(self) -> None:
        """Delivers held data, and works normally again."""
        self._set(self._answers.set, self._requests.set)

    def _set(self, *changes: Callable[[], None]) -> None:
        async def change() -> None:
            for apply in changes:
                apply()

        asyncio.run_coroutine_threadsafe(change(), self._loop).result()

    def forget(self) -> None:
        """Closes the connections to the server, unnoticed by the clients. New connections work."""
        asyncio.run_coroutine_threadsafe(self._forget(), self._loop).result()

    def cut(self) -> None:
        """Breaks all connections; held data is lost. New connections work."""
        asyncio.run_coroutine_threadsafe(self._cut(), self._loop).result()

    async def _listen(self) -> None:
        self._answers.set()
        self._requests.set()
        self._listener = await asyncio.start_server(self._link, "127.0.0.1", 0)
        self.target = f"127.0.0.1:{self._listener.sockets[0].getsockname()[1]}"

    async def _close(self) -> None:
        assert self._listener is not None
        self._listener.close()
        await self._cut()

    async def _forget(self) -> None:
        self._forgotten |= self._upstreams
        for upstream in self._upstreams:
            upstream.transport.abort()

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if self._upstream.startswith("unix:"):
            return await asyncio.open_unix_connection(self._upstream.removeprefix("unix:"))
        host, _, port = self._upstream.rpartition(":")
        return await asyncio.open_connection(host, int(port))

    async def _cut(self) -> None:
        for _ in range(5):  # until connections that were just accepted are links
            await asyncio.sleep(0)
        while links := list(self._links):
            for link in links:
                link.cancel()
            await asyncio.gather(*links, return_exceptions=True)
        self._answers.set()
        self._requests.set()

    async def _link(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._links.add(task)
        try:
            to_server = await self._connect()
        except (OSError, asyncio.CancelledError):
            writer.transport.abort()
            self._links.discard(task)
            return
        self._upstreams.add(to_server[1])
        directions = [
            asyncio.ensure_future(self._forward(reader, to_server[1], self._requests)),
            asyncio.ensure_future(self._forward(to_server[0], writer, self._answers)),
        ]
        try:
            await asyncio.wait(directions, return_when=asyncio.FIRST_COMPLETED)
            if to_server[1] in self._forgotten:
                await asyncio.Event().wait()
        except asyncio.CancelledError:
            pass
        finally:
            for direction in directions:
                direction.cancel()
            # Not close(): that would still send held data.
            writer.transport.abort()
            to_server[1].transport.abort()
            self._upstreams.discard(to_server[1])
            self._forgotten.discard(to_server[1])
            with suppress(asyncio.CancelledError):  # it may be cut while it ends
                await asyncio.gather(*directions, return_exceptions=True)
            self._links.discard(task)

    @staticmethod
    async def _forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, open_: asyncio.Event) -> None:
        try:
            while data := await reader.read(65536):
                await open_.wait()
                writer.write(data)
                await writer.drain()
        except OSError:
            pass
