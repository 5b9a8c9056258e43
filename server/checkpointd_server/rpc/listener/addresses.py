"""The addresses that the server listens on, and clear errors if it can't."""

from __future__ import annotations

import errno
import ipaddress
import os
import re
import socket
import stat
from collections.abc import Iterable
from typing import Any

import grpc
import grpc.aio

from checkpointd_server.domain.access import AccessOptions
from checkpointd_server.domain.errors import SetupError

_HOST_PORT = re.compile(r"(?P<host>\[[^\]]+\]|[^:/\[\]]+):(?P<port>[0-9]{1,5})")

_MAX_PATH_BYTES = 107
"""Maximum length of a Unix socket's path, in bytes."""


def bind(
    server: grpc.aio.Server, address: str, *, shared: bool, credentials: grpc.ServerCredentials | None = None
) -> str:
    """Binds a server that was not started yet.

    Args:
        server: The server.
        address: HOST:PORT (port 0: a free one), unix:PATH, or unix-abstract:NAME.
        shared: Other processes may listen on the same port (SO_REUSEPORT).
        credentials: The TLS credentials. None: plain text.

    Returns:
        The bound address, with its actual port.

    Raises:
        SetupError: The address is malformed, taken, or can't be bound. The message names it.
    """
    problem = check(address, shared=shared)
    try:
        if credentials is None:
            bound = server.add_insecure_port(address)
        else:
            bound = server.add_secure_port(address, credentials)
    except RuntimeError:
        raise SetupError(f"can't listen on {address}: {problem}") from None
    return address if address.startswith("unix") else f"{address.rpartition(':')[0]}:{bound}"


def check(address: str, *, shared: bool) -> str:
    """Checks whether an address can be bound, without taking it.

    Returns:
        The likely reason if it can't be bound nevertheless.

    Raises:
        SetupError: The address is malformed or taken, or its host is unknown. The message names it.
    """
    if address.startswith("unix:"):
        _refuse_taken_socket(address)
        return f"is {os.path.dirname(_socket_path(address)) or '.'} a folder that this user may write to?"
    if address.startswith("unix-abstract:"):
        return "is the name taken?"
    match = _HOST_PORT.fullmatch(address)
    if match is None or int(match["port"]) > 65535:
        raise SetupError(f"can't listen on {address!r}: it should be HOST:PORT, [IPv6]:PORT or unix:PATH")
    host, port = match["host"].strip("[]"), int(match["port"])
    try:
        infos = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as error:  # the latter for an invalid name
        reason = getattr(error, "strerror", None) or "it is not the name of a host"
        raise SetupError(f"can't listen on {address}: {reason}") from None
    failure = None if shared or not port else _probe(infos)
    # A name like localhost stands for several addresses, and gRPC is content with any of them: without this look
    # a second server would start on the address that the first one left, and never hear a client.
    if failure is not None and failure.errno == errno.EADDRINUSE:
        raise SetupError(f"can't listen on {address}: the port is taken by another process; name another with --listen")
    return "it is not an address of this machine" if failure is None else str(failure.strerror)


def check_exposure(address: str, access: AccessOptions) -> None:
    """Rejects an unprotected address that other machines can reach, unless the options allow it.

    Raises:
        SetupError: The message names the options.
    """
    if _is_local(address):
        return
    missing, words = [], []
    if access.tls is None and not access.insecure_without_tls:
        missing.append("TLS (--tls-cert, --tls-key)")
        words.append("--insecure-without-tls")
    if not access.keeps_strangers_out and not access.insecure_without_tokens:
        missing.append("tokens (--keys-file, or --jwt-issuer and its like)")
        words.append("--insecure-without-tokens")
    if missing:
        raise SetupError(
            f"can't listen on {address}, which other machines may reach, without {' and '.join(missing)}. "
            f"Give them, listen on 127.0.0.1 or unix:PATH, or say {' '.join(words)} if something else protects it"
        )


def _is_local(address: str) -> bool:
    """Returns whether an address can be reached only from this machine."""
    if address.startswith("unix"):
        return True
    match = _HOST_PORT.fullmatch(address)
    host = match["host"].strip("[]") if match else ""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _probe(infos: Iterable[Any]) -> OSError | None:
    """Returns why resolved addresses can't be bound, or None. A taken one comes before any other reason."""
    failure: OSError | None = None
    for family, kind, protocol, _, target in infos:
        try:
            with socket.socket(family, kind, protocol) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind(target)
        except OSError as error:
            if failure is None or error.errno == errno.EADDRINUSE:
                failure = error
    return failure


def _refuse_taken_socket(address: str) -> None:
    """Raises SetupError if another process listens on a Unix socket: gRPC would silently replace it."""
    path = _socket_path(address)
    if len(os.fsencode(path)) > _MAX_PATH_BYTES:
        raise SetupError(f"can't listen on {address}: a socket's path has at most {_MAX_PATH_BYTES} bytes")
    try:
        if not stat.S_ISSOCK(os.stat(path).st_mode):
            raise SetupError(f"can't listen on {address}: there is a file of that name")
        with socket.socket(socket.AF_UNIX) as probe:
            probe.connect(path)
    except FileNotFoundError:
        return
    except ConnectionRefusedError:
        return  # Left by a killed server; gRPC replaces it.
    except OSError as error:
        raise SetupError(f"can't listen on {address}: {error.strerror or error}") from None
    raise SetupError(f"can't listen on {address}: the socket is taken by another process; name another with --listen")


def _socket_path(address: str) -> str:
    path = address.removeprefix("unix:")
    return path.removeprefix("//") if path.startswith("///") else path
