"""A TCP link with latency, like a link to a distant server."""

from __future__ import annotations

import asyncio
import threading
from typing import Self


class SlowLink:
    """Forwards connections to a server, and delays what the server sends.

    Args:
        target: The address to forward to, "host:port".
        delay: The delay, in seconds.
    """

    def __init__(self, target: str, *, delay: float) -> None:
        host, _, port = target.rpartition(":")
        self._server_address = (host, int(port))
        self._delay = delay
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="slow-link", daemon=True)
        self._links: set[asyncio.Task[None]] = set()
        self.target = ""
        """The address that a client connects to."""

    def __enter__(self) -> Self:
        self._thread.start()
        self._listener = asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result()
        self.target = f"127.0.0.1:{self._listener.sockets[0].getsockname()[1]}"
        return self

    def __exit__(self, *exc_info: object) -> None:
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _listen(self) -> asyncio.Server:
        return await asyncio.start_server(self._link, "127.0.0.1", 0)

    async def _close(self) -> None:
        self._listener.close()
        for link in self._links:
            link.cancel()
        await asyncio.gather(*self._links, return_exceptions=True)

    async def _link(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._links.add(task)
        from_server, to_server = await asyncio.open_connection(*self._server_address)
        try:
            await asyncio.gather(self._forward(reader, to_server, 0), self._forward(from_server, writer, self._delay))
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            writer.transport.abort()
            to_server.transport.abort()
            self._links.discard(task)

    @staticmethod
    async def _forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, delay: float) -> None:
        while data := await reader.read(65536):
            await asyncio.sleep(delay)
            writer.write(data)
            await writer.drain()
        raise ConnectionResetError
