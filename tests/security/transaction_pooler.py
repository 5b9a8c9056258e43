"""A pooler that assigns server connections per transaction, as PgBouncer does in transaction mode."""

from __future__ import annotations

import asyncio
import itertools
import struct
from pathlib import Path
from typing import Self

_READY = b"Z"
_KEY = b"K"


class TransactionPooler:
    """Runs in front of a PostgreSQL that requires no password, on its own Unix socket.

    Each transaction gets the next server connection, so two in a row never share one. Session state that is left on a
    connection is visible to the next user of it.

    Args:
        socket: PostgreSQL's socket.
        folder: The folder for its own socket.
        size: The number of server connections.
    """

    def __init__(self, socket: Path, folder: Path, *, size: int) -> None:
        self._server = socket
        self._folder = folder
        self._size = size
        self._backends: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
        self._greeting = b""
        self._turns = itertools.count()
        self._locks = [asyncio.Lock() for _ in range(size)]
        self._clients: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        path = self._folder / ".s.PGSQL.5432"
        self._listener = await asyncio.start_unix_server(self._accept, path)
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self._listener.close()
        for client in self._clients:
            client.cancel()
        await asyncio.gather(*self._clients, return_exceptions=True)
        for _, writer in self._backends:
            writer.close()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._clients.add(task)
        try:
            await self._serve(reader, writer)
        except asyncio.IncompleteReadError:
            pass
        finally:
            writer.close()
            self._clients.discard(task)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        length = await reader.readexactly(4)
        startup = length + await reader.readexactly(struct.unpack("!I", length)[0] - 4)
        while len(self._backends) < self._size:
            await self._connect(startup)
        writer.write(self._greeting)
        while True:
            kind, message = await _message(reader)
            if kind == b"X":
                return
            turn = next(self._turns) % self._size
            async with self._locks[turn]:
                backend = self._backends[turn]
                backend[1].write(message)
                await self._until_idle(reader, writer, *backend)

    async def _until_idle(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        server: asyncio.StreamReader,
        to_server: asyncio.StreamWriter,
    ) -> None:
        """Forwards messages both ways until the transaction has ended."""

        async def forward() -> None:
            while True:
                _, message = await _message(reader)
                to_server.write(message)

        async def answer() -> None:
            while True:
                kind, message = await _message(server)
                writer.write(message)
                if kind == _READY and message.endswith(b"I"):
                    return

        # A message is never left half read: asyncpg waits for the answer before it continues.
        forwarding = asyncio.create_task(forward())
        try:
            await answer()
        finally:
            forwarding.cancel()
            await asyncio.gather(forwarding, return_exceptions=True)

    async def _connect(self, startup: bytes) -> None:
        reader, writer = await asyncio.open_unix_connection(self._server)
        writer.write(startup)
        greeting = b""
        while True:
            kind, message = await _message(reader)
            if kind == _KEY:
                message = _KEY + struct.pack("!III", 12, 1, 1)  # an invented key; cancelling isn't supported
            greeting += message
            if kind == _READY:
                break
        self._greeting = greeting
        self._backends.append((reader, writer))


async def _message(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    head = await reader.readexactly(5)
    return head[:1], head + await reader.readexactly(struct.unpack("!I", head[1:])[0] - 4)
