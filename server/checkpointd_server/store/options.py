"""Options of a store."""

from __future__ import annotations

from dataclasses import dataclass, field

from checkpointd_server.config import ServeConfig
from checkpointd_server.domain.errors import SetupError
from checkpointd_server.domain.items import parse_index_name
from checkpointd_server.domain.limits import Limits

_DEFAULTS = ServeConfig()


@dataclass(frozen=True, kw_only=True)
class StoreOptions:
    """The database, and the connections to it.

    Raises:
        SetupError: An option can't be used.
    """

    dsn: str = field(repr=False)
    """The database: `postgresql://user:password@host:port/database?option=value`. With several hosts, separated by
    commas, and `target_session_attrs=primary`, it follows failovers. Never shown, because it may contain a password."""
    schema: str = _DEFAULTS.database.schema
    """The PostgreSQL schema of the tables, 1 to 63 bytes, taken literally: capitals and quotes are part of it."""
    pool_min_size: int = 1
    """The number of connections that are kept open, 0 or more."""
    pool_max_size: int = _DEFAULTS.pool_max_size
    """The maximum number of connections, 1 or more. Further calls wait for one."""
    max_queue: int = _DEFAULTS.max_queue
    """The maximum number of reads waiting for a connection, and of writes waiting for their commit. Further ones are
    rejected."""
    max_queue_seconds: float = _DEFAULTS.max_queue_seconds
    """How long each waits before it is rejected, in seconds."""
    statement_cache_size: int | None = _DEFAULTS.statement_cache_size
    """The number of prepared statements that a connection keeps. None: 1024, or none through a pooler, which may not
    support them (PgBouncer before 1.21, or with max_prepared_statements=0). Without prepared statements, each call is
    an explicit transaction."""
    startup_timeout: float = _DEFAULTS.database.wait_seconds
    """How long to wait at startup for a database that refuses connections or doesn't answer, in seconds."""
    connect_timeout: float = 5.0
    """How long connecting may take, in seconds; for each host, if the URL names several."""
    watch_interval: float = 3.0
    """The time after which a statement is checked, and the interval of further checks, in seconds. If the database
    isn't executing it, or doesn't answer within `connect_timeout`, the connection is given up."""
    max_connection_age: float = 1800.0
    """The age at which a connection is replaced, in seconds. This spreads load again after a failover."""
    max_idle_time: float = 300.0
    """The idle time after which a connection is closed, in seconds."""
    upload_grace: float = 3600.0
    """How long an upload that no put has named is kept, in seconds."""
    sweep_interval: float = _DEFAULTS.retention_interval
    """How long after a sweep a tenant's retention policies are applied again, in seconds."""
    sweep_batch: int = _DEFAULTS.retention_batch
    """How many checkpoints retention deletes in one transaction, while writers to their thread wait."""
    sweep_lease: float = 30.0
    """The time without a sign of life after which a sweeping server counts as dead, in seconds."""
    limits: Limits = _DEFAULTS.limits
    """The store's own limits: the length of patch chains, and the size of answers."""
    vector_indexes: tuple[str, ...] = _DEFAULTS.database.vector_indexes
    """The indexes on vectors of items that `migrate` creates if the database has pgvector, each DIMS:DISTANCE."""
    application_name: str = "checkpointd"
    """The application name of the connections in pg_stat_activity."""

    def __post_init__(self) -> None:
        if not 1 <= len(self.schema.encode(errors="replace")) <= 63 or "\0" in self.schema:
            raise SetupError(f"the schema's name must have 1 to 63 bytes and no NUL: {self.schema!r}")
        for index in self.vector_indexes:
            try:
                parse_index_name(index)
            except ValueError as error:
                raise SetupError(str(error)) from None
        if "$$" in self.schema:
            raise SetupError(f"the schema's name can't hold two dollar signs, which quote functions: {self.schema!r}")
        if self.schema.startswith("pg_"):
            raise SetupError(f"PostgreSQL keeps schemas that begin with pg_ for itself: {self.schema!r}")
        if self.pool_max_size < 1 or not 0 <= self.pool_min_size <= self.pool_max_size:
            raise SetupError(
                f"the pool needs at least 1 connection, and not more kept open than it may have: "
                f"{self.pool_min_size} to {self.pool_max_size}"
            )
        if self.statement_cache_size is not None and self.statement_cache_size < 0:
            raise SetupError(f"the statement cache can't hold {self.statement_cache_size} statements")
        if self.max_queue < 0:
            raise SetupError(f"the queue can't hold {self.max_queue} calls")
        if self.sweep_batch < 1:
            raise SetupError(f"retention can't delete {self.sweep_batch} checkpoints in a transaction")
        if self.startup_timeout < 0:
            raise SetupError(f"startup_timeout must be 0 seconds or more, not {self.startup_timeout}")
        for name in (
            "connect_timeout",
            "watch_interval",
            "max_connection_age",
            "max_idle_time",
            "max_queue_seconds",
            "sweep_lease",
        ):
            if getattr(self, name) <= 0:
                raise SetupError(f"{name} must be more than 0 seconds, not {getattr(self, name)}")
