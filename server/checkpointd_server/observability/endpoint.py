"""The HTTP/1.1 endpoint that Prometheus scrapes: it serves only GET /metrics, with limits on everything."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from http import HTTPStatus

import structlog

from checkpointd_server.domain.errors import SetupError
from checkpointd_server.observability.families import Snapshot

MAX_SCRAPES = 8
"""Maximum number of concurrent scrapes. Further ones are asked to retry."""
MAX_HEADER_BYTES = 16 * 1024
"""Maximum size of a scrape's request line and headers, in bytes."""
SCRAPE_SECONDS = 10.0
"""How long a scrape may take, from sending its request to reading the answer, in seconds."""

_log = structlog.get_logger(__name__)


class _BadRequest(Exception):
    def __init__(self, status: HTTPStatus) -> None:
        self.status = status


class MetricsEndpoint:
    """Answers scrapes.

    Args:
        take: Takes a snapshot.
    """

    def __init__(self, take: Callable[[], Awaitable[Snapshot]]) -> None:
        self._take = take
        self._scrapes = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answers one request, and closes its connection."""
        self._scrapes += 1
        try:
            async with asyncio.timeout(SCRAPE_SECONDS):
                writer.write(await self._answer(reader))
                await writer.drain()
                writer.close()
                await writer.wait_closed()
        except (TimeoutError, ConnectionError):
            writer.transport.abort()
        except Exception as error:  # an error in the metrics must not stop the server
            _log.warning("a scrape failed", error=type(error).__name__)
            writer.transport.abort()
        finally:
            self._scrapes -= 1

    async def _answer(self, reader: asyncio.StreamReader) -> bytes:
        try:
            if self._scrapes > MAX_SCRAPES:
                raise _BadRequest(HTTPStatus.SERVICE_UNAVAILABLE)
            method, path, headers = await _read_request(reader)
            if path.partition("?")[0] != "/metrics":
                raise _BadRequest(HTTPStatus.NOT_FOUND)
            if method not in ("GET", "HEAD"):
                raise _BadRequest(HTTPStatus.METHOD_NOT_ALLOWED)
        except _BadRequest as error:
            text = f"{error.status.value} {error.status.phrase}: metrics are at GET /metrics\n"
            return _response(error.status, text.encode(), "text/plain; charset=utf-8")
        snapshot = await self._take()
        # In a thread, so that the event loop can serve calls.
        body, content_type = await asyncio.to_thread(_encode, snapshot, headers.get("accept", ""))
        return _response(HTTPStatus.OK, body, content_type, send_body=method == "GET")


def _encode(snapshot: Snapshot, accept: str) -> tuple[bytes, str]:
    # prometheus-client is slow to import, and a server without metrics doesn't need it.
    from checkpointd_server.observability.exposition import encode

    return encode(snapshot, accept)


async def _read_request(reader: asyncio.StreamReader) -> tuple[str, str, dict[str, str]]:
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.LimitOverrunError:
        raise _BadRequest(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE) from None
    except asyncio.IncompleteReadError:
        raise ConnectionError from None
    request_line, *lines = head.decode("latin-1").split("\r\n")
    parts = request_line.split(" ")
    if len(parts) != 3 or not parts[2].startswith("HTTP/1."):
        raise _BadRequest(HTTPStatus.BAD_REQUEST)
    fields = (line.partition(":") for line in lines if line)
    return parts[0], parts[1], {name.lower(): value.strip() for name, _, value in fields}


def _response(status: HTTPStatus, body: bytes, content_type: str, *, send_body: bool = True) -> bytes:
    head = (
        f"HTTP/1.1 {status.value} {status.phrase}\r\nContent-Type: {content_type}\r\n"
        f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + (body if send_body else b"")


@asynccontextmanager
async def serve_metrics(address: str | None, take: Callable[[], Awaitable[Snapshot]]) -> AsyncIterator[None]:
    """Serves scrapes while entered, if an address is given.

    Args:
        address: HOST:PORT. Port 0: any free one, which is logged.
        take: Takes a snapshot.

    Raises:
        SetupError: The address can't be bound.
    """
    if address is None:
        yield
        return
    host, _, port = address.rpartition(":")
    endpoint = MetricsEndpoint(take)
    try:
        server = await asyncio.start_server(endpoint.serve, host.strip("[]"), int(port), limit=MAX_HEADER_BYTES)
    except OSError as error:
        raise SetupError(f"can't serve metrics on {address}: {error.strerror or type(error).__name__}") from None
    name = server.sockets[0].getsockname()
    _log.info("serving metrics", address=f"{host}:{name[1]}")
    try:
        yield
    finally:
        server.close()
        with suppress(TimeoutError):
            async with asyncio.timeout(1.0):
                await server.wait_closed()
