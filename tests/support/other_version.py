"""Servers of other minor versions: the real one, behind a proxy that changes messages."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import grpc

UNKNOWN_FIELD = b"\xc2\x3e\x05later"
"""Field 1000 of any message, a string that this version doesn't know."""
UNKNOWN_CAPABILITY = b"\x10\x63"
"""Capability 99, in an answer of GetServerInfo."""


@contextmanager
def newer_server(target: str) -> Iterator[str]:
    """A server whose answers have unknown fields and capabilities. Yields its address."""

    def later(method: str, answer: bytes) -> bytes:
        return answer + UNKNOWN_FIELD + (UNKNOWN_CAPABILITY if method.endswith("/GetServerInfo") else b"")

    with _proxy(target, later, streams=True) as address:
        yield address


@contextmanager
def older_server(target: str) -> Iterator[str]:
    """A server that doesn't have the pipeline yet. Yields its address."""
    with _proxy(target, lambda method, answer: answer, streams=False) as address:
        yield address


@contextmanager
def _proxy(target: str, change: Callable[[str, bytes], bytes], *, streams: bool) -> Iterator[str]:
    """Forwards calls, and changes their answers. `streams` says whether it has the pipeline."""

    class Handler(grpc.GenericRpcHandler):  # type: ignore[misc]
        def service(self, handler_call_details: Any) -> Any:
            method = handler_call_details.method
            if method.endswith("/Pipeline"):
                stream = channel.stream_stream(method)
                passed_on = grpc.stream_stream_rpc_method_handler(
                    lambda requests, context: (change(method, answer) for answer in stream(requests))
                )
                return passed_on if streams else None
            call = channel.unary_unary(method)

            def pass_on(request: bytes, context: grpc.ServicerContext) -> bytes:
                try:
                    return change(method, call(request, timeout=context.time_remaining()))
                except grpc.RpcError as error:
                    trailers = [
                        (key, value)
                        for key, value in error.trailing_metadata() or ()
                        if key.startswith("grpc-status-details")
                    ]
                    context.set_trailing_metadata(tuple(trailers))
                    context.abort(error.code(), error.details() or "")
                    raise

            return grpc.unary_unary_rpc_method_handler(pass_on)

    options = (("grpc.max_receive_message_length", 64 << 20), ("grpc.so_reuseport", 0))
    with grpc.insecure_channel(target, options=options) as channel, ThreadPoolExecutor(16) as workers:
        server = grpc.server(workers, (Handler(),), options=options)
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        try:
            yield f"127.0.0.1:{port}"
        finally:
            server.stop(None).wait()
