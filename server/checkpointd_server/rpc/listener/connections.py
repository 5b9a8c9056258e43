"""Connections that only cost, and how they are closed.

Their calls are cancelled as soon as they are made, refused for their caller, or never get a request. gRPC has no way
to close one from Python, so the socket is shut down under it.

A call that comes to nothing takes a fifth of a millisecond or two, and honest calls wait behind it. A connection may
make some of them at once and some in every second. One that makes more is closed, with all that it has under way:
honest clients connect again, and savers repeat their calls. The next connections of the same host may make fewer.
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
"""A connection may waste as many calls at once as it may in so many seconds."""
LEAST_BURST = 20.0
"""How many it may waste at once at least, however often its host's connections were closed."""
FORGET_SECONDS = 60.0
"""How long it is remembered of a host that one of its connections was closed."""
CLOSING_SECONDS = 10.0
"""For how long the calls of a connection that was closed are no news."""
LAST_WORD_SECONDS = 0.2
"""How long a connection is still there, so that it can be told why."""
MOST_REMEMBERED = 8192
"""How many connections and hosts are remembered."""

_CLOSED = float("-inf")
_PEER = re.compile(r"ipv[46]:(?P<host>\[[^\]]+\]|[^:]+):(?P<port>[0-9]+)")


class Connections:
    """Counts the calls of each connection that came to nothing, and closes it if they are too many.

    Args:
        rate: How many calls a second a connection may waste in the long run. 0: any number.
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
        """Records an address that was bound: only connections to one of them are ever closed."""
        port = address.rpartition(":")[2]
        if not address.startswith("unix") and port.isdigit():
            self._ports.add(int(port))

    def waste(self, peer: str, calls: float = 1.0) -> None:
        """Records that a call of a connection, or what costs as much as so many, came to nothing."""
        host = _host_of(peer)
        if host is None or not self._rate:
            return
        now = asyncio.get_running_loop().time()
        burst = self._burst(host, now)
        left, since = self._left.pop(peer, (burst, now))
        if left == _CLOSED:
            if now - since < CLOSING_SECONDS:  # calls that it had made before
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
        """Closes a connection, in a moment.

        Args:
            peer: The connection, as gRPC names its other end.
            reason: Why, for the log.
        """
        host = _host_of(peer)
        if host is None:  # a Unix socket, whose connections have no names
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
            # In a thread, for there may be thousands of descriptors to look at.
            await asyncio.get_running_loop().run_in_executor(None, _shut_down, ends, self._ports.__contains__)

    async def stop(self) -> None:
        """Closes what is to be closed, and writes what the log is still to be told."""
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
    """Shuts down the sockets of this process whose other ends these are."""
    for name in os.listdir("/dev/fd"):
        with suppress(OSError, ValueError):  # it was closed meanwhile, or is no socket with two ends
            # A descriptor of our own: the number may stand for another connection by now, but then it says so.
            descriptor = os.dup(int(name))
            try:
                found = socket.socket(fileno=descriptor)
            except OSError:
                os.close(descriptor)
                continue
            with found:
                host, port, *_ = found.getpeername()
                # gRPC listens for IPv4 with sockets of IPv6, too.
                if (host.removeprefix("::ffff:"), port) in ends and is_ours(found.getsockname()[1]):
                    found.shutdown(socket.SHUT_RDWR)
