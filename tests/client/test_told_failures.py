"""Failures that are reported by their cause: a proxy's limit, and a TLS handshake that can't succeed."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator
from contextlib import suppress

import pytest
from langgraph.checkpoint.grpc import GrpcSaver, MessageTooLargeError, ServerUnavailableError, TlsOptions

from tests.support.authority import Authority
from tests.support.calls import config_of
from tests.support.server_process import ServerProcess

HEADERS, SETTINGS = 1, 4
ACK = END_STREAM = 1
END_HEADERS = 4
STATUS_413 = b"\x08\x03413"
"""A header block of HTTP/2: the name of entry 8 in the static table, ":status", and a value."""


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return len(payload).to_bytes(3) + bytes([kind, flags]) + stream.to_bytes(4) + payload


@pytest.fixture
def strict_proxy() -> Iterator[str]:
    """The address of a proxy that refuses every request for its size, as nginx does."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve(connection: socket.socket) -> None:
        with suppress(OSError), connection, connection.makefile("rb") as incoming:
            incoming.read(24)  # the preface
            connection.sendall(frame(SETTINGS, 0, 0))
            while head := incoming.read(9):
                kind, stream = head[3], int.from_bytes(head[5:9])
                incoming.read(int.from_bytes(head[:3]))
                if kind == HEADERS:
                    connection.sendall(frame(HEADERS, END_HEADERS | END_STREAM, stream, STATUS_413))
                elif kind == SETTINGS and not head[4] & ACK:
                    connection.sendall(frame(SETTINGS, ACK, 0))

    def listen() -> None:
        with suppress(OSError):
            while True:
                threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()

    threading.Thread(target=listen, daemon=True).start()
    yield f"127.0.0.1:{listener.getsockname()[1]}"
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()


async def test_a_proxy_that_limits_bodies(strict_proxy: str) -> None:
    async with GrpcSaver(strict_proxy) as saver:
        with pytest.raises(MessageTooLargeError, match="client_max_body_size"):
            saver.get_tuple(config_of("t"))
        with pytest.raises(MessageTooLargeError, match="client_max_body_size"):
            await saver.aget_tuple(config_of("t"))


@pytest.mark.parametrize("awaited", [True, False])
async def test_tls_that_can_t_come_about_is_told_after_the_first_attempts(
    awaited: bool, shared_server: ServerProcess
) -> None:
    tls = TlsOptions(root_certificates=Authority().pem)
    async with GrpcSaver(shared_server.target, tls=tls, retry_budget=600) as saver:
        call = saver.aget_tuple(config_of("t")) if awaited else asyncio.to_thread(saver.get_tuple, config_of("t"))
        with pytest.raises(ServerUnavailableError, match="after 3 attempts: the server doesn't use TLS"):
            await call
