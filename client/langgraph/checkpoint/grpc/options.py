"""How a saver talks to its server."""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal
from urllib.parse import urlsplit

from langgraph.checkpoint.grpc.errors import InvalidArgumentError
from langgraph.checkpoint.grpc.tls import TlsOptions

Concurrency = Literal["optimistic", "last_write_wins"]
"""What happens when two runs write to one thread: the later one is refused, or it overwrites the other."""

DEFAULT_TARGET = "127.0.0.1:50051"
"""Where a server listens that was started without options."""

DEFAULT_CACHE_BYTES = 32 * 1024 * 1024
"""How much of large states a saver keeps, in bytes."""


@dataclass(frozen=True, kw_only=True)
class ClientOptions:
    """How a saver talks to its server. Every field can be given to GrpcSaver by its name."""

    target: str
    """The server: "host:port", "unix:path", or any other name that grpc resolves. Several of them, separated by commas,
    are replicas: calls go round, and past those that are away."""
    token: str | Callable[[], str] | None = None
    """Sent as `authorization: Bearer ...` with each call. A callable is asked before each call, so it can refresh."""
    tls: bool | TlsOptions = False
    """True for TLS with the authorities that grpc trusts, TlsOptions for others, False for plain text."""
    timeout: float = 30.0
    """How long one attempt of a call may take, in seconds."""
    retry_budget: float = 30.0
    """How long calls are tried again while the server is unavailable, in seconds; 0: not at all."""
    keepalive: float = 20.0
    """How often a connection with calls under way is pinged, in seconds; a dead one is noticed this much later. The
    server accepts pings every 10 seconds and more seldom."""
    cache_bytes: int = DEFAULT_CACHE_BYTES
    """How much of large states is kept in memory, so that what was sent or received once needn't be received again."""
    concurrency: Concurrency = "optimistic"
    """"optimistic": a run that was overtaken gets VersionConflictError. "last_write_wins": it overwrites."""

    def __post_init__(self) -> None:
        if not all(_is_address(target) for target in self.targets):
            # Not repeated here: what looks like a URL may hold a password.
            raise InvalidArgumentError(
                f"target: is not an address of a checkpointd; give host:port, like {DEFAULT_TARGET}, or unix:path, or "
                "several of them, separated by commas",
                field="target",
            )
        for name in ("timeout", "keepalive"):
            if not getattr(self, name) > 0:
                raise InvalidArgumentError(f"{name}: must be more than 0 seconds", field=name)
        if not self.retry_budget >= 0:
            raise InvalidArgumentError("retry_budget: must be 0 seconds or more", field="retry_budget")
        if not self.cache_bytes >= 0:
            raise InvalidArgumentError("cache_bytes: must be 0 bytes or more", field="cache_bytes")
        if self.concurrency not in ("optimistic", "last_write_wins"):
            raise InvalidArgumentError(
                f'concurrency: {self.concurrency!r} is neither "optimistic" nor "last_write_wins"', field="concurrency"
            )
        if self.token and not self.tls and not all(_on_this_machine(target) for target in self.targets):
            raise InvalidArgumentError(
                f"token: would be sent in plain text to {self.target}; set tls=True", field="token"
            )

    @property
    def targets(self) -> tuple[str, ...]:
        """The servers, each by itself."""
        if self.target.startswith(("ipv4:", "ipv6:")):
            # A list of addresses that grpc takes as it is.
            return (self.target,)
        return tuple(target.strip() for target in self.target.split(","))

    def bearer(self) -> str | None:
        """Returns the token for the next call, None for none."""
        return self.token() if callable(self.token) else self.token


def default_target() -> str:
    """Returns the target of a saver that was built without one: CHECKPOINTD_TARGET, or the server's default."""
    return os.environ.get("CHECKPOINTD_TARGET") or DEFAULT_TARGET


def default_token() -> str | None:
    """Returns the token of a saver that was built without one: CHECKPOINTD_TOKEN, or none."""
    return os.environ.get("CHECKPOINTD_TOKEN") or None


def may_have_several_addresses(target: str) -> bool:
    """Whether one target can stand for several servers: a name may, and a list does."""
    if target.startswith(("ipv4:", "ipv6:")):
        return "," in target
    if target.startswith(("unix:", "unix-abstract:")):
        return False
    try:
        ipaddress.ip_address(urlsplit(f"//{target}").hostname or "")
    except ValueError:
        return True
    return False


def _is_address(target: str) -> bool:
    """Whether a target can be meant for grpc: a name with a scheme of grpc's, or host:port (grpc's own port is 443)."""
    if "@" in target or target.startswith(("http:", "https:", "grpc:", "postgres")):
        return False
    if re.match(r"[a-z][a-z0-9+.-]*:(?!\d+$)", target):
        return True
    return re.fullmatch(r"(\[[0-9A-Fa-f:.%]+\]|[^:/\s]+):\d{1,5}", target) is not None


def _on_this_machine(target: str) -> bool:
    """Whether a plain-text connection to the target stays on this machine."""
    if target.startswith(("unix:", "unix-abstract:")):
        return True
    if target.startswith(("ipv4:", "ipv6:")):
        return all(_on_this_machine(address) for address in target.partition(":")[2].split(","))
    host = urlsplit(f"//{target.rpartition('/')[2]}").hostname or ""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
