"""The settings of `checkpointd serve`. Each is an option and, under the same name, an environment variable."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path

import click

from checkpointd_server.cli.auth_options import access_settings
from checkpointd_server.cli.option_types import Seconds, Whole, setting, stacked
from checkpointd_server.config import DatabaseConfig, ServeConfig
from checkpointd_server.domain.items import parse_index_name
from checkpointd_server.process.logging import LogFormat, LogLevel

_DEFAULTS = ServeConfig()
# Settings whose default is the field of their name; the others say theirs.
_served = partial(setting, defaults=_DEFAULTS)
_database = partial(setting, defaults=_DEFAULTS.database)
_limit = partial(setting, defaults=_DEFAULTS.limits)


class Address(click.ParamType):  # type: ignore[type-arg]
    """HOST:PORT, [IPv6]:PORT or unix:PATH."""

    name = "address"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Checks the form, not whether the address can be bound."""
        match = re.fullmatch(r"unix:.+|(?:\[[^\[\]]+\]|[^:/\[\]\s]+):([0-9]{1,5})", value)
        if match is None or int(match[1] or 0) > 65535:
            self.fail(f"{value!r} is not HOST:PORT, [IPV6]:PORT or unix:PATH with a port up to 65535", param, ctx)
        return value


class MetricsAddress(Address):
    """HOST:PORT or [IPv6]:PORT. Prometheus can't scrape Unix sockets."""

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Checks the form."""
        if value.startswith("unix:"):
            self.fail(f"{value!r} is not HOST:PORT: metrics are not served on Unix sockets", param, ctx)
        return super().convert(value, param, ctx)


class DatabaseUrl(click.ParamType):  # type: ignore[type-arg]
    """A PostgreSQL URL. No message repeats any of it, because it may contain a password."""

    name = "url"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Checks the scheme; the driver checks the rest."""
        if not re.match(r"postgres(ql)?://", value):
            self.fail("must begin with postgresql://", param, ctx)
        return value


class SchemaName(click.ParamType):  # type: ignore[type-arg]
    """The name of a PostgreSQL schema, taken literally."""

    name = "name"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Checks that PostgreSQL would accept the name."""
        try:
            is_name = 1 <= len(value.encode()) <= 63 and not value.startswith("pg_")
        except UnicodeEncodeError:
            is_name = False
        if not is_name:
            self.fail(f"{value!r} is not a schema's name: 1 to 63 bytes of UTF-8, not beginning with pg_", param, ctx)
        return value


class VectorIndex(click.ParamType):  # type: ignore[type-arg]
    """DIMS:DISTANCE, such as 384:cosine."""

    name = "dims:distance"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Checks the form."""
        try:
            parse_index_name(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)
        return value


database_settings = stacked(
    setting(
        "--database-url",
        type=DatabaseUrl(),
        help="URL of a PostgreSQL database: postgresql://user:password@host/database. Prefer the environment "
        "variable: other users of the machine can read command lines. Default: an embedded PostgreSQL.",
    ),
    setting(
        "--data-dir",
        type=click.Path(path_type=Path),
        help="Folder of the embedded PostgreSQL, created on first use.  [default: ~/.local/share/checkpointd; "
        "/var/lib/checkpointd for root]",
    ),
    _database(
        "--schema",
        type=SchemaName(),
        help="Schema that holds checkpointd's tables.",
    ),
    setting(
        "--database-wait",
        type=Seconds(zero=True),
        default=_DEFAULTS.database.wait_seconds,
        show_default=True,
        help="How long to wait at startup for a database that isn't up yet, in seconds.",
    ),
    setting(
        "--vector-index",
        type=VectorIndex(),
        multiple=True,
        default=list(_DEFAULTS.database.vector_indexes),
        show_default=True,
        help="Index for vector search in long-term memory: DIMS:DISTANCE, where the distance is cosine, l2 or "
        "inner_product. Created with the schema if the database has pgvector. May be given several times; in the "
        "environment, separated by spaces.",
    ),
)

serve_settings = stacked(
    _served(
        "--listen",
        type=Address(),
        multiple=True,
        help="Address to listen on: HOST:PORT (port 0 picks a free one) or unix:PATH. May be given several times; in "
        "the environment, separated by spaces.",
    ),
    setting(
        "--health-listen",
        type=Address(),
        multiple=True,
        help="Address that serves only health checks, unencrypted and without tokens, for probes that don't support "
        "TLS: HOST:PORT or unix:PATH.",
    ),
    setting(
        "--metrics-listen",
        type=MetricsAddress(),
        help="Address that serves Prometheus metrics at GET /metrics, unencrypted and without tokens: HOST:PORT.",
    ),
    access_settings,
    database_settings,
    _served(
        "--workers",
        type=Whole(min=1),
        help="Number of server processes sharing the same ports (Linux). One that dies is replaced.",
    ),
    _served(
        "--pool-max-size",
        type=Whole(min=1),
        help="Maximum number of database connections, for all workers together.",
    ),
    _served(
        "--max-concurrent-calls",
        type=Whole(min=1),
        help="Maximum number of concurrent calls in each worker. Calls beyond this limit or the next three are "
        "rejected with OVERLOADED, and clients retry them later.",
    ),
    _served(
        "--max-bytes-in-flight",
        type=Whole(min=1024 * 1024),
        help="Maximum size of all requests and answers in memory, in bytes. A larger message is accepted when there "
        "is no other.",
    ),
    _served(
        "--max-queue",
        type=Whole(min=0),
        help="Maximum number of reads waiting for a database connection, and of writes waiting for their commit.",
    ),
    _served(
        "--max-queue-seconds",
        type=Seconds(zero=False),
        help="How long a call waits in these queues before it is rejected, in seconds.",
    ),
    _served(
        "--max-connections",
        type=Whole(min=1),
        help="Maximum number of client connections in each worker; less if the system's limit on open files is "
        "lower. Further connections are closed at once.",
    ),
    _served(
        "--max-wasted-calls",
        type=Whole(min=0),
        help="How many calls per second a connection may cancel, or have rejected for its token or scope, before it "
        "is closed; five times as many in a burst. 0 sets no limit, for proxies that send the calls of many clients "
        "over one connection.",
    ),
    setting(
        "--quota-bytes",
        type=Whole(min=0),
        default=_DEFAULTS.quotas.max_bytes or 0,
        show_default=True,
        help="Approximate maximum size of each tenant's rows in the database, in bytes, unless `checkpointd quotas` "
        "sets another. Calls beyond this limit or the next two are rejected with QUOTA_EXCEEDED. 0 sets no limit.",
    ),
    setting(
        "--quota-threads",
        type=Whole(min=0),
        default=_DEFAULTS.quotas.max_threads or 0,
        show_default=True,
        help="Maximum number of threads of each tenant. 0 sets no limit.",
    ),
    setting(
        "--quota-calls",
        type=Whole(min=0),
        default=_DEFAULTS.quotas.max_calls_per_second or 0,
        show_default=True,
        help="Maximum number of calls and operations per second of each tenant, in each worker. 0 sets no limit.",
    ),
    _served(
        "--quota-refresh-seconds",
        type=Seconds(zero=False),
        help="How often quotas and usage are read from the database, in seconds. A tenant may exceed its quota in "
        "between.",
    ),
    _served(
        "--statement-cache-size",
        type=Whole(min=0),
        help="Number of prepared statements kept on each connection.  [default: 1024, and none behind a pooler]",
    ),
    _served(
        "--migrate/--no-migrate",
        help="Update the schema at startup, or refuse to start if it is out of date.",
    ),
    _served(
        "--drain-seconds",
        type=Seconds(zero=True),
        help="How long calls in flight may take to finish after SIGTERM, in seconds.",
    ),
    _served(
        "--kill-after-seconds",
        type=Seconds(zero=False),
        help="With --workers: how long after draining a worker that hasn't exited is killed, in seconds.",
    ),
    _served(
        "--retention-interval",
        type=Seconds(zero=True),
        help="Pause between two sweeps that apply retention policies, in seconds. Of several servers, one does it. 0 "
        "turns sweeps off on this server.",
    ),
    _served(
        "--retention-batch",
        type=Whole(min=1),
        help="Maximum number of checkpoints that retention deletes in one transaction. Writers of the same thread "
        "wait for it.",
    ),
    _served(
        "--default-timeout",
        type=Seconds(zero=False),
        help="Timeout of calls without a deadline, in seconds.",
    ),
    _served(
        "--max-timeout",
        type=Seconds(zero=False),
        help="Maximum timeout of a call, even if its deadline is later, in seconds.",
    ),
    _limit(
        "--max-message-bytes",
        type=Whole(min=1024 * 1024, max=2**31 - 1),
        help="Maximum size of a message in either direction, in bytes.",
    ),
    _limit(
        "--max-value-bytes",
        type=Whole(min=1024 * 1024, max=2**40),
        help="Maximum size of a channel's value, in bytes. Values larger than a message are sent in parts.",
    ),
    _limit(
        "--max-page-bytes",
        type=Whole(min=1024, max=2**31 - 1),
        help="Size at which a page of a list ends, in bytes.",
    ),
    _served(
        "--reflection/--no-reflection",
        help="Serve reflection, for tools such as grpcurl.",
    ),
    _served(
        "--traces/--no-traces",
        help="Send OpenTelemetry spans over OTLP/HTTP to the collector at OTEL_EXPORTER_OTLP_ENDPOINT. Needs "
        "checkpointd[otel].",
    ),
    _served(
        "--slow-call-seconds",
        type=Seconds(zero=True),
        help="Log a warning, with thread and size, for calls that take longer than this, in seconds. 0 turns it off.",
    ),
    _served(
        "--warn-checkpoint-bytes",
        type=Whole(min=0),
        help="Log a warning for checkpoints whose changed values are larger than this, in bytes. 0 turns it off.",
    ),
    setting(
        "--log-level",
        type=click.Choice(LogLevel, case_sensitive=False),
        default=_DEFAULTS.log_level.value,
        show_default=True,
        help="Lowest level of log lines to write.",
    ),
    setting(
        "--log-format",
        type=click.Choice(LogFormat, case_sensitive=False),
        default=_DEFAULTS.log_format.value,
        show_default=True,
        help="Format of log lines: text for people, json for programs.",
    ),
)


def read_database(
    url: str | None, data_dir: Path | None, schema: str, wait_seconds: float, vector_indexes: tuple[str, ...]
) -> DatabaseConfig:
    """Combines the settings of the database. Raises click.UsageError if two exclude each other."""
    if url is not None and data_dir is not None:
        raise click.UsageError(
            "--data-dir is the embedded PostgreSQL's folder and can't be combined with --database-url "
            "(they may come from CHECKPOINTD_DATA_DIR and CHECKPOINTD_DATABASE_URL)"
        )
    return DatabaseConfig(
        url=url, data_dir=data_dir, schema=schema, wait_seconds=wait_seconds, vector_indexes=vector_indexes
    )
