"""What an operator settles: every setting of the server, as the command line and the environment give it."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from checkpointd_server.domain.limits import Limits
from checkpointd_server.logs import LogFormat, LogLevel

DEFAULT_PORT = 50051
DEFAULT_TARGET = f"127.0.0.1:{DEFAULT_PORT}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ListenAddress:
    """Where the server listens: a host and a port, or the path of a Unix socket."""

    host: str = ""
    """A name or an address; IPv6 without brackets. Empty for a Unix socket."""
    port: int = 0
    """The port; 0 picks a free one."""
    path: str = ""
    """The Unix socket's path. Empty for a port."""

    @classmethod
    def parse(cls, text: str) -> Self:
        """Reads "HOST:PORT", "[IPv6]:PORT" or "unix:PATH". Raises ValueError with what is wrong."""
        if text.startswith("unix:"):
            path = text.removeprefix("unix:").removeprefix("//")
            if not path or "\0" in path:
                raise ValueError("names no path; give unix:PATH")
            return cls(path=path)
        match = re.fullmatch(r"(?:\[([0-9A-Fa-f:.%]+)\]|([^\[\]:/\s]+)):([0-9]{1,5})", text)
        if match is None or int(match[3]) > 65535:
            raise ValueError(f"{text!r} is not HOST:PORT, [IPV6]:PORT or unix:PATH with a port from 0 to 65535")
        return cls(host=match[1] or match[2], port=int(match[3]))

    def __str__(self) -> str:
        return self.with_port(self.port)

    def with_port(self, port: int) -> str:
        """The address as a client names it, with the port that was picked."""
        if self.path:
            return f"unix:{self.path}"
        return f"[{self.host}]:{port}" if ":" in self.host else f"{self.host}:{port}"


@dataclass(frozen=True, slots=True, kw_only=True)
class DatabaseConfig:
    """Which database, and how it is used."""

    url: str | None = field(default=None, repr=False)
    """The database's URL, which may hold a password. None: the embedded PostgreSQL."""
    data_dir: Path | None = None
    """The embedded PostgreSQL's data folder. None: `default_data_dir`."""
    schema: str = "checkpointd"
    """The schema that all of checkpointd's tables are in."""
    wait_seconds: float = 30.0
    """How long to wait at the start for a database that refuses connections, in seconds."""

    @property
    def embedded_dir(self) -> Path | None:
        """The data folder of the embedded PostgreSQL, or None if a database was named."""
        return None if self.url is not None else (self.data_dir or default_data_dir())


@dataclass(frozen=True, slots=True, kw_only=True)
class ServeConfig:
    """Everything that `checkpointd serve` needs to know."""

    database: DatabaseConfig = field(default_factory=DatabaseConfig)
    listen: tuple[ListenAddress, ...] = (ListenAddress(host="127.0.0.1", port=DEFAULT_PORT),)
    """Where to listen, at least one address."""
    limits: Limits = field(default_factory=Limits)
    """The limits that requests are held to."""
    pool_max_size: int = 10
    """The most connections to the database."""
    statement_cache_size: int = 100
    """How many prepared statements a connection keeps; 0 behind a pooler that lends connections by the transaction."""
    migrate: bool = True
    """Bring the schema up to date at the start. Without: refuse to start if it isn't."""
    drain_seconds: float = 10.0
    """How long calls in flight may take to finish after SIGTERM, in seconds."""
    default_timeout: float = 60.0
    """The time that a call without a deadline gets, in seconds."""
    reflection: bool = True
    """Tell clients the services' descriptors, for tools like grpcurl."""
    log_level: LogLevel = LogLevel.INFO
    """The least important log lines that are written."""
    log_format: LogFormat = LogFormat.TEXT
    """How log lines look."""


def default_data_dir() -> Path:
    """The data folder of those who don't name one: root's belongs to the system, anybody else's to the user."""
    if os.geteuid() == 0:
        return Path("/var/lib/checkpointd")
    base = os.environ.get("XDG_DATA_HOME", "")
    # A relative path there is to be ignored (XDG Base Directory Specification).
    return Path(base if os.path.isabs(base) else Path.home() / ".local" / "share") / "checkpointd"
