"""Every setting of the server, as the command line and the environment give it, with its one default.

The options of `rpc` and `store` take their defaults from here.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from checkpointd_server.domain.access import AccessOptions
from checkpointd_server.domain.items import DEFAULT_INDEXES
from checkpointd_server.domain.limits import Limits
from checkpointd_server.domain.tenants import Quotas
from checkpointd_server.process.logging import LogFormat, LogLevel

DEFAULT_TARGET = "127.0.0.1:50051"


@dataclass(frozen=True, slots=True, kw_only=True)
class DatabaseConfig:
    """The database, and its use."""

    url: str | None = field(default=None, repr=False)
    """The database's URL, which may hold a password. None: the embedded PostgreSQL."""
    data_dir: Path | None = None
    """The embedded PostgreSQL's data folder. None: `default_data_dir`."""
    schema: str = "checkpointd"
    """The schema that all of checkpointd's tables are in."""
    wait_seconds: float = 30.0
    """How long to wait at the start for a database that refuses connections, in seconds."""
    vector_indexes: tuple[str, ...] = DEFAULT_INDEXES
    """The indexes on vectors of items that are made with the schema where the database has pgvector: DIMS:DISTANCE."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServeConfig:
    """Everything that `checkpointd serve` needs to know."""

    database: DatabaseConfig = field(default_factory=DatabaseConfig)
    listen: tuple[str, ...] = (DEFAULT_TARGET,)
    """The addresses to listen on, at least one: HOST:PORT (port 0: a free one), [IPv6]:PORT or unix:PATH."""
    health_listen: tuple[str, ...] = ()
    """The address that serves health alone, in plain text and to everybody."""
    metrics_listen: str | None = None
    """The address of the metrics, in plain text: HOST:PORT. None: they aren't served."""
    access: AccessOptions = field(default_factory=AccessOptions)
    """The callers that are accepted, and their identities."""
    limits: Limits = field(default_factory=Limits)
    """The limits that requests are held to."""
    workers: int = 1
    """How many processes serve, on the same ports."""
    pool_max_size: int = 8
    """The most connections to the database, of all workers together."""
    max_concurrent_calls: int = 1024
    """The most calls at work at once, in each worker, as the next three are."""
    max_bytes_in_flight: int = 64 * 1024 * 1024
    """The most bytes of requests and answers in the server at once."""
    max_connections: int = 4096
    """The most connections of clients, in each worker."""
    max_wasted_calls: int = 100
    """How many calls a second a connection may cancel, or have rejected for their token or scope. 0: any number."""
    max_queue: int = 4096
    """The most reads that wait for a database connection, and the most writes that wait for their commit."""
    max_queue_seconds: float = 10.0
    """How long each of them waits, in seconds."""
    quotas: Quotas = field(default_factory=Quotas)
    """The default quotas of tenants."""
    quota_refresh_seconds: float = 5.0
    """How often the database is asked what tenants may use and hold, in seconds."""
    statement_cache_size: int | None = None
    """How many prepared statements a connection keeps. None: 1024, and none behind a pooler."""
    migrate: bool = True
    """Bring the schema up to date at the start. Without: refuse to start if it isn't."""
    drain_seconds: float = 10.0
    """How long calls in flight may take to finish after SIGTERM, in seconds."""
    kill_after_seconds: float = 15.0
    """With several workers: how long after the drain one is killed that hasn't ended, in seconds."""
    retention_interval: float = 60.0
    """How long after a sweep a tenant's retention policies are applied again, in seconds. 0: not by this server."""
    retention_batch: int = 100
    """How many checkpoints retention deletes in one transaction."""
    default_timeout: float = 60.0
    """The time that a call without a deadline gets, in seconds."""
    max_timeout: float = 300.0
    """The most time that a call gets, whatever its deadline, in seconds."""
    reflection: bool = True
    """Tell clients the services' descriptors, for tools like grpcurl."""
    traces: bool = False
    """Send OpenTelemetry spans, as the OTEL_... variables of the environment say."""
    slow_call_seconds: float = 1.0
    """From when on the log is told of a call, in seconds. 0: of none."""
    warn_checkpoint_bytes: int = 16 * 1024 * 1024
    """Size of changed values from which a checkpoint is logged, in bytes. 0: never."""
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
