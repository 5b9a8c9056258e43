"""A raw HTTP/2 client for requests that no gRPC library sends: streams without a body, endless resets, odd headers.

Its socket blocks, so tests with the server in their own event loop use it in a thread.
"""

from __future__ import annotations

import socket
import ssl
import struct
import time
from collections.abc import Iterable
from contextlib import suppress
from typing import Any, Self
from urllib.parse import unquote

import h2.config
import h2.connection
import h2.events
import h2.exceptions
import hpack

_HEADERS, _RST_STREAM, _CONTINUATION = 1, 3, 9
_END_HEADERS = 4
_CANCEL = 8

Headers = Iterable[tuple[str | bytes, str | bytes]]


def grpc_message(data: bytes, *, compressed: bool = False) -> bytes:
    """Returns a message as gRPC frames it."""
    return struct.pack(">BI", compressed, len(data)) + data


class Answer:
    """The response on a stream."""

    def __init__(self) -> None:
        self.headers: dict[str, str] = {}
        """Headers and trailers."""
        self.data = b""
        self.reset: int | None = None
        """The error code of the stream's reset, or None."""
        self.ended = False

    @property
    def status(self) -> int | None:
        """gRPC's status code. None: not received yet."""
        return int(self.headers["grpc-status"]) if "grpc-status" in self.headers else None

    @property
    def message(self) -> str:
        """gRPC's message."""
        return unquote(self.headers.get("grpc-message", ""))


class Http2Client:
    """A connection.

    Args:
        target: HOST:PORT.
        timeout: How long to wait for the connection, in seconds.
        tls: The encryption of the connection. None: unencrypted.
    """

    def __init__(self, target: str, *, timeout: float = 20.0, tls: ssl.SSLContext | None = None) -> None:
        host, _, port = target.rpartition(":")
        self.socket = socket.create_connection((host.strip("[]"), int(port)), timeout=timeout)
        if tls is not None:
            self.socket = tls.wrap_socket(self.socket, server_hostname=host)
        self._h2 = h2.connection.H2Connection(
            h2.config.H2Configuration(client_side=True, validate_outbound_headers=False, header_encoding=None)
        )
        self._h2.initiate_connection()
        self.answers: dict[int, Answer] = {}
        self.settings: dict[Any, int] = {}
        """The server's settings."""
        self.closed = False
        """Whether the server has closed the connection, or announced it."""
        self._next_stream = 1
        self._flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.socket.close()

    def _flush(self) -> None:
        self.socket.sendall(self._h2.data_to_send())

    def headers(self, method: str, more: Headers = ()) -> list[tuple[Any, Any]]:
        """Returns the headers of a call, whose method is given as "package.Service/Method"."""
        return [
            (":method", "POST"),
            (":scheme", "http"),
            (":path", f"/{method}"),
            (":authority", "server"),
            ("content-type", "application/grpc"),
            ("te", "trailers"),
            *more,
        ]

    def open(self, method: str, more: Headers = (), *, path: bytes | None = None) -> int:
        """Begins a call and returns its stream."""
        headers = self.headers(method, more)
        if path is not None:
            headers[2] = (":path", path)
        stream = self._next_stream
        self._next_stream += 2
        self._h2.send_headers(stream, headers)
        self.answers[stream] = Answer()
        self._flush()
        return stream

    def send(self, stream: int, data: bytes, *, end: bool = True) -> None:
        """Sends data on a stream, as fast as the server lets it."""
        position = 0
        while position < len(data):
            room = min(self._h2.local_flow_control_window(stream), self._h2.max_outbound_frame_size)
            if room <= 0:
                if not self.receive(5) or self.answers[stream].ended:
                    return
                continue
            self._h2.send_data(stream, data[position : position + room])
            position += room
            self._flush()
        if end:
            self._h2.end_stream(stream)
            self._flush()

    def call(self, method: str, request: bytes, more: Headers = (), *, timeout: float = 20.0) -> Answer:
        """Makes a unary call and waits for its answer."""
        stream = self.open(method, more)
        self.send(stream, grpc_message(request))
        return self.wait(stream, timeout=timeout)

    def wait(self, stream: int, *, timeout: float = 20.0) -> Answer:
        """Waits until a stream has ended, or the connection is closed. Raises TimeoutError."""
        deadline = time.monotonic() + timeout
        while not self.answers[stream].ended and not self.closed:
            if time.monotonic() > deadline:
                raise TimeoutError(f"stream {stream} has not ended")
            self.receive(0.2)
        return self.answers[stream]

    def wait_closed(self, *, timeout: float = 20.0, reading: bool = True) -> None:
        """Waits until the server has closed the connection. Raises TimeoutError."""
        deadline = time.monotonic() + timeout
        while not self.closed:
            if time.monotonic() > deadline:
                raise TimeoutError("the connection was not closed")
            self.receive(0.2, reading=reading)

    def receive(self, timeout: float, *, reading: bool = True) -> bool:
        """Receives data, waiting for it if needed.

        Args:
            timeout: How long, in seconds.
            reading: Whether to let the server send more of an answer. If not, it can send 64 KiB at most.

        Returns:
            Whether there was anything.
        """
        self.socket.settimeout(timeout)
        try:
            data = self.socket.recv(1 << 20)
        except TimeoutError:
            return False
        except OSError:
            data = b""
        finally:
            with suppress(OSError):
                self.socket.settimeout(20)
        if not data:
            self.closed = True
            return False
        try:
            events = self._h2.receive_data(data)
        except h2.exceptions.ProtocolError:
            self.closed = True
            return False
        for event in events:
            self._take(event, reading)
        with suppress(OSError):
            self._flush()
        return True

    def _take(self, event: h2.events.Event, reading: bool) -> None:
        if isinstance(event, h2.events.RemoteSettingsChanged):
            self.settings.update({key: setting.new_value for key, setting in event.changed_settings.items()})
        elif isinstance(event, h2.events.ConnectionTerminated):
            self.closed = True
        stream = getattr(event, "stream_id", None)
        answer = self.answers.get(stream) if stream else None
        if answer is None:
            return
        if isinstance(event, h2.events.ResponseReceived | h2.events.TrailersReceived):
            for name, value in event.headers or ():
                answer.headers[bytes(name).decode()] = bytes(value).decode("latin-1")
        elif isinstance(event, h2.events.DataReceived):
            answer.data += event.data or b""
            if reading and event.flow_controlled_length:
                self._h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        elif isinstance(event, h2.events.StreamEnded):
            answer.ended = True
        elif isinstance(event, h2.events.StreamReset):
            answer.reset, answer.ended = int(event.error_code or 0), True

    def rapid_reset(self, method: str, number: int, more: Headers = (), *, reset: bool = True) -> int:
        """Opens streams and cancels each at once, as fast as possible. Returns how many were sent.

        After that the client can't be used for anything else.

        Args:
            method: The call.
            number: How many streams.
            more: More headers of each.
            reset: Whether they are cancelled. Otherwise they stay open without a body.
        """
        # Headers that change no dynamic table are the same bytes for every stream.
        encoder = hpack.Encoder()
        encoder.header_table_size = 0
        block = encoder.encode([hpack.NeverIndexedHeaderTuple(*pair) for pair in self.headers(method, more)])
        sent = 0
        self.socket.settimeout(20)
        with suppress(OSError):
            while sent < number and not self.closed:
                frames = bytearray()
                for _ in range(min(100, number - sent)):
                    stream = struct.pack(">I", self._next_stream)
                    self._next_stream += 2
                    frames += struct.pack(">I", len(block))[1:] + bytes((_HEADERS, _END_HEADERS)) + stream + block
                    if reset:
                        frames += b"\0\0\4" + bytes((_RST_STREAM, 0)) + stream + struct.pack(">I", _CANCEL)
                    sent += 1
                self.socket.sendall(frames)
                self._drain()
            return sent
        self.closed = True
        return sent

    def send_endless_headers(self, method: str, size: int) -> None:
        """Begins a call with endless headers: this many bytes, frame after frame."""
        encoder = hpack.Encoder()
        encoder.header_table_size = 0
        stream = struct.pack(">I", self._next_stream)
        self._next_stream += 2
        value = "".join(chr(97 + number % 26) for number in range(7000))
        field = encoder.encode([hpack.NeverIndexedHeaderTuple("x-a", value)])
        block, kind = encoder.encode([hpack.NeverIndexedHeaderTuple(*pair) for pair in self.headers(method)]), _HEADERS
        with suppress(OSError):
            while size > 0:
                self.socket.sendall(struct.pack(">I", len(block))[1:] + bytes((kind, 0)) + stream + block)
                size -= len(block)
                block, kind = field, _CONTINUATION

    def is_closed(self) -> bool:
        """Whether the server has closed a connection that `rapid_reset` was called on."""
        self._drain()
        return self.closed

    def _drain(self) -> None:
        """Discards received data, but answers pings and settings."""
        if self.closed:
            return
        self.socket.setblocking(False)
        try:
            while True:
                data = self.socket.recv(1 << 20)
                if not data:
                    self.closed = True
                    return
                for ack in _acks(data):
                    self.socket.setblocking(True)
                    self.socket.sendall(ack)
                    self.socket.setblocking(False)
        except (BlockingIOError, ssl.SSLWantReadError):
            pass
        except OSError:
            self.closed = True
        finally:
            with suppress(OSError):
                self.socket.settimeout(20)


def _acks(data: bytes) -> Iterable[bytes]:
    """Returns the answers to pings and settings among received frames. A truncated frame is ignored."""
    position = 0
    while position + 9 <= len(data):
        length = int.from_bytes(data[position : position + 3])
        kind, flags = data[position + 3], data[position + 4]
        body = data[position + 9 : position + 9 + length]
        if kind == 6 and not flags & 1 and len(body) == 8:
            yield b"\0\0\x08\x06\x01\0\0\0\0" + body
        elif kind == 4 and not flags & 1:
            yield b"\0\0\0\x04\x01\0\0\0\0"
        position += 9 + length
