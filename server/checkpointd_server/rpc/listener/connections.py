"""Abusive connections, and how they are closed.

Their calls are cancelled at once, unauthenticated, or never get a request. Python can't close a connection through
gRPC, so its socket is shut down instead.

Such a wasted call takes a fifth of a millisecond or more, while honest calls wait. A connection may make a burst of
them, and some in each second. One that makes more is closed, with all its calls in flight: honest clients connect
again, and savers retry their calls. The next connections from the same host may make fewer.
"""

from __future__ import annotations

import asyncio
import os
import re
import socket
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from urllib.parse import unquote

import structlog

from checkpointd_server.rpc.calls.log_rate_limit import RateLimitedLog

BURST_SECONDS = 5.0
"""Size of a burst of wasted calls, as seconds of the permitted rate."""
LEAST_BURST = 20.0
"""Minimum size of a burst, however often connections from its host were closed."""
FORGET_SECONDS = 60.0
"""How long closed connections of a host are remembered, in seconds."""
CLOSING_SECONDS = 10.0
"""How long calls of a closed connection are ignored, in seconds."""
LAST_WORD_SECONDS = 0.2
"""How long closing is delayed, so the client can read why, in seconds."""
MOST_REMEMBERED = 8192
"""Maximum number of connections and hosts that are remembered."""

_CLOSED = float("-inf")
_PEER = re.compile(r"ipv[46]:(?P<host>\[[^\]]+\]|[^:]+):(?P<port>[0-9]+)")


class Connections:
    """Counts the wasted calls of each connection, and closes it if there are too many.

    Args:
        rate: The permitted rate of wasted calls per connection, in calls per second. 0: no limit.
    """

    def __init__(self, *, rate: float) -> None:
        self._rate = rate
        self._ports: set[int] = set()
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()
        self._closed_hosts: OrderedDict[str, tuple[int, float]] = OrderedDict()
        self._closing: set[str] = set()
        self._task: asyncio.Task[None] | None = None
        self._lines = RateLimitedLog(structlog.get_logger("checkpointd.rpc").bind())

    def serve_at(self, address: str) -> None:
        """Records a bound address: only connections to these are ever closed."""
        port = address.rpartition(":")[2]
        if not address.startswith("unix") and port.isdigit():
            self._ports.add(int(port))

    def waste(self, peer: str, calls: float = 1.0) -> None:
        """Records a wasted call of a connection, or something that costs as much as several."""
        host = _host_of(peer)
        if host is None or not self._rate:
            return
        now = asyncio.get_running_loop().time()
        burst = self._burst(host, now)
        left, since = self._left.pop(peer, (burst, now))
        if left == _CLOSED:
            if now - since < CLOSING_SECONDS:  # calls that it made before it was closed
                self._left[peer] = left, since
                return
            left = burst
        left = min(left + (now - since) * self._rate, burst) - calls
        self._left[peer] = left, now
        if len(self._left) > MOST_REMEMBERED:
            self._left.popitem(last=False)
        if left < 0:
            self._left[peer] = _CLOSED, now
            closed, _ = self._closed_hosts.pop(host, (0, now))
            self._closed_hosts[host] = closed + 1, now
            if len(self._closed_hosts) > MOST_REMEMBERED:
                self._closed_hosts.popitem(last=False)
            self.close(peer, "its calls were cancelled or refused, too many of them")

    def _burst(self, host: str, now: float) -> float:
        closed, at = self._closed_hosts.get(host, (0, now))
        if now - at > FORGET_SECONDS:
            closed = 0
        return float(max(self._rate * BURST_SECONDS / 2 ** min(closed, 16), LEAST_BURST))

    def close(self, peer: str, reason: str) -> None:
        """Closes a connection after a short delay.

        Args:
            peer: The connection, as gRPC names its other end.
            reason: Why, for the log.
        """
        host = _host_of(peer)
        if host is None:  # a Unix socket, whose connections have no addresses
            return
        self._lines.warning("closing a connection", reason, reason=reason, host=host)
        self._closing.add(peer)
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._close_all())

    async def _close_all(self) -> None:
        while self._closing:
            await asyncio.sleep(LAST_WORD_SECONDS)
            peers, self._closing = self._closing, set()
            ends = {end for peer in peers if (end := _end_of(peer)) is not None}
            # In a thread, because there may be thousands of descriptors.
            await asyncio.get_running_loop().run_in_executor(None, _shut_down, ends, self._ports.__contains__)

    async def stop(self) -> None:
        """Closes pending connections, and writes pending log lines."""
        self._lines.flush()
        if self._task is not None:
            await asyncio.gather(self._task, return_exceptions=True)


def _host_of(peer: str) -> str | None:
    found = _PEER.fullmatch(unquote(peer))
    return None if found is None else found["host"]


def _end_of(peer: str) -> tuple[str, int] | None:
    found = _PEER.fullmatch(unquote(peer))
    return None if found is None else (found["host"].strip("[]").removeprefix("::ffff:"), int(found["port"]))


def _shut_down(ends: set[tuple[str, int]], is_ours: Callable[[int], bool]) -> None:
    """Shuts down the sockets of this process with these peers."""
    for name in os.listdir("/dev/fd"):
        with suppress(OSError, ValueError):  # closed in the meantime, or not a connected socket
            # On a duplicate: the number may be another connection's by now, which the check then detects.
            descriptor = os.dup(int(name))
            try:
                found = socket.socket(fileno=descriptor)
            except OSError:
                os.close(descriptor)
                continue
            with found:
                host, port, *_ = found.getpeername()
                # gRPC listens for IPv4 on IPv6 sockets, too.
                if (host.removeprefix("::ffff:"), port) in ends and is_ours(found.getsockname()[1]):
                    found.shutdown(socket.SHUT_RDWR)
