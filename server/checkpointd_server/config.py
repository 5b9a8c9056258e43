"""All settings of the server that the command line and the environment can set, each with its only default.

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
    """The database, and how it is used."""

    url: str | None = field(default=None, repr=False)
    """The database's URL, which may hold a password. None: the embedded PostgreSQL."""
    data_dir: Path | None = None
    """The embedded PostgreSQL's data folder. None: `default_data_dir`."""
    schema: str = "checkpointd"
    """The schema of all of checkpointd's tables."""
    wait_seconds: float = 30.0
    """How long to wait at startup for a database that refuses connections, in seconds."""
    vector_indexes: tuple[str, ...] = DEFAULT_INDEXES
    """The indexes on items' vectors that are created with the schema if the database has pgvector: DIMS:DISTANCE."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServeConfig:
    """Everything that `checkpointd serve` needs to know."""

    database: DatabaseConfig = field(default_factory=DatabaseConfig)
    listen: tuple[str, ...] = (DEFAULT_TARGET,)
    """The addresses to listen on, at least one: HOST:PORT (port 0: a free one), [IPv6]:PORT or unix:PATH."""
    health_listen: tuple[str, ...] = ()
    """The addresses that serve only health checks, in plain text and to everybody."""
    metrics_listen: str | None = None
    """The address of the metrics, in plain text: HOST:PORT. None: they aren't served."""
    access: AccessOptions = field(default_factory=AccessOptions)
    """The callers that are accepted, and their identities."""
    limits: Limits = field(default_factory=Limits)
    """The limits of requests."""
    workers: int = 1
    """The number of processes that serve on the same ports."""
    pool_max_size: int = 8
    """The maximum number of connections to the database, of all workers together."""
    max_concurrent_calls: int = 1024
    """The maximum number of calls in flight. This and the next three limits apply to each worker."""
    max_bytes_in_flight: int = 64 * 1024 * 1024
    """The maximum number of bytes of requests and answers in memory."""
    max_connections: int = 4096
    """The maximum number of client connections."""
    max_wasted_calls: int = 100
    """How many calls a second a connection may cancel, or have rejected for their token or scope. 0: any number."""
    max_queue: int = 4096
    """The maximum number of reads that wait for a database connection, and of writes that wait for their commit."""
    max_queue_seconds: float = 10.0
    """How long each of them may wait, in seconds."""
    quotas: Quotas = field(default_factory=Quotas)
    """The default quotas of tenants."""
    quota_refresh_seconds: float = 5.0
    """How often tenants' quotas and usage are read from the database, in seconds."""
    statement_cache_size: int | None = None
    """How many prepared statements a connection keeps. None: 1024, or none behind a pooler."""
    migrate: bool = True
    """Migrate the schema at startup. False: refuse to start if it isn't up to date."""
    drain_seconds: float = 10.0
    """How long calls in flight may take to finish after SIGTERM, in seconds."""
    kill_after_seconds: float = 15.0
    """With several workers: how long after the drain a worker that hasn't ended is killed, in seconds."""
    retention_interval: float = 60.0
    """How long after a sweep a tenant's retention policies are applied again, in seconds. 0: never by this server."""
    retention_batch: int = 100
    """How many checkpoints retention deletes in one transaction."""
    default_timeout: float = 60.0
    """The timeout of calls without a deadline, in seconds."""
    max_timeout: float = 300.0
    """The maximum timeout of a call, whatever its deadline, in seconds."""
    reflection: bool = True
    """Serve the services' descriptors to clients, for tools like grpcurl."""
    traces: bool = False
    """Send OpenTelemetry spans, as the OTEL_... variables of the environment say."""
    slow_call_seconds: float = 1.0
    """Duration from which a call is logged, in seconds. 0: never."""
    warn_checkpoint_bytes: int = 16 * 1024 * 1024
    """Size of changed values from which a checkpoint is logged, in bytes. 0: never."""
    log_level: LogLevel = LogLevel.INFO
    """The minimum level of log lines."""
    log_format: LogFormat = LogFormat.TEXT
    """The format of log lines."""


def default_data_dir() -> Path:
    """The default data folder: a system folder for root, else a folder of the user."""
    if os.geteuid() == 0:
        return Path("/var/lib/checkpointd")
    base = os.environ.get("XDG_DATA_HOME", "")
    # Relative paths must be ignored (XDG Base Directory Specification).
    return Path(base if os.path.isabs(base) else Path.home() / ".local" / "share") / "checkpointd"
