"""Ports that several processes share: one process holds them, so they stay ours while workers are replaced."""

from __future__ import annotations

import errno
import socket
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

from checkpointd_server.domain.errors import SetupError
from checkpointd_server.rpc import check_address

_TRIES = 20
"""Number of free ports that are tried for a name with several addresses: the port must be free on each."""


@contextmanager
def held_ports(addresses: Sequence[str]) -> Iterator[tuple[str, ...]]:
    """Holds the ports of addresses for other processes of this user, who listen on them with SO_REUSEPORT.

    The holder doesn't listen, so it gets no connections. But no other user gets the port while a worker is down, and
    port 0 is the same free port for all.

    Args:
        addresses: HOST:PORT, each.

    Yields:
        The addresses, each with its actual port.

    Raises:
        SetupError: An address can't be shared, is taken, or can't be bound. The message names it.
    """
    if not sys.platform.startswith("linux"):
        raise SetupError("--workers needs Linux, which spreads the connections to one port over several processes")
    with ExitStack() as stack:
        yield tuple(_hold(address, stack) for address in addresses)


def _hold(address: str, stack: ExitStack) -> str:
    if address.startswith("unix"):
        raise SetupError(
            f"can't listen on {address} with --workers: a Unix socket belongs to one process. "
            "Listen on HOST:PORT, or leave --workers out"
        )
    # First without SO_REUSEPORT: a second server of ours would have it too, and must not share the port unnoticed.
    problem = check_address(address, shared=False)
    name, _, port = address.rpartition(":")
    try:
        return f"{name}:{_hold_port(name.strip('[]'), int(port), stack)}"
    except OSError as error:
        reason = "the port is taken by another process" if error.errno == errno.EADDRINUSE else problem
        raise SetupError(f"can't listen on {address}: {reason}") from None


def _hold_port(host: str, port: int, stack: ExitStack) -> int:
    infos = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    for left in reversed(range(_TRIES)):
        found = port
        with ExitStack() as sockets:
            try:
                for family, kind, protocol, _, target in infos:
                    holder = sockets.enter_context(socket.socket(family, kind, protocol))
                    if family == socket.AF_INET6:
                        holder.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                    holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
                    holder.bind((target[0], found, *target[2:]))
                    found = holder.getsockname()[1]
            except OSError as error:
                if port or error.errno != errno.EADDRINUSE or not left:
                    raise
                continue
            stack.push(sockets.pop_all())
            return found
    raise AssertionError("the last try returns or raises")
