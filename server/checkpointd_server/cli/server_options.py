"""The settings of the command line. Each is an option and, under the same name, an environment variable."""

from __future__ import annotations

import re
from pathlib import Path

import click

from checkpointd_server.cli.auth_options import access_settings
from checkpointd_server.cli.option_types import Seconds, Whole, setting, stacked
from checkpointd_server.config import DatabaseConfig, ServeConfig
from checkpointd_server.domain.items import parse_index_name
from checkpointd_server.process.logging import LogFormat, LogLevel

_DEFAULTS = ServeConfig()


class Address(click.ParamType):  # type: ignore[type-arg]
    """HOST:PORT, [IPv6]:PORT or unix:PATH."""

    name = "address"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Checks the form; whether it can be had turns out when it is bound."""
        match = re.fullmatch(r"unix:.+|(?:\[[^\[\]]+\]|[^:/\[\]\s]+):([0-9]{1,5})", value)
        if match is None or int(match[1] or 0) > 65535:
            self.fail(f"{value!r} is not HOST:PORT, [IPV6]:PORT or unix:PATH with a port up to 65535", param, ctx)
        return value


class MetricsAddress(Address):
    """HOST:PORT or [IPv6]:PORT: Prometheus scrapes no Unix socket."""

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Checks the form."""
        if value.startswith("unix:"):
            self.fail(f"{value!r} is not HOST:PORT: metrics are not served on Unix sockets", param, ctx)
        return super().convert(value, param, ctx)


class DatabaseUrl(click.ParamType):  # type: ignore[type-arg]
    """A PostgreSQL URL. It may hold a password, so no message repeats any of it."""

    name = "url"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Checks the scheme; the driver understands the rest."""
        if not re.match(r"postgres(ql)?://", value):
            self.fail("must begin with postgresql://", param, ctx)
        return value


class SchemaName(click.ParamType):  # type: ignore[type-arg]
    """The name of a PostgreSQL schema, taken literally."""

    name = "name"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Checks that PostgreSQL would take it."""
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
        help="PostgreSQL's URL (postgresql://user:password@host/database). Better given in the environment, where "
        "other users of the machine can't read it. Without: an embedded PostgreSQL.",
    ),
    setting(
        "--data-dir",
        type=click.Path(path_type=Path),
        help="The embedded PostgreSQL's folder; made on first use, and kept.  [default: ~/.local/share/checkpointd; "
        "/var/lib/checkpointd for root]",
    ),
    setting(
        "--schema",
        type=SchemaName(),
        default=_DEFAULTS.database.schema,
        show_default=True,
        help="The schema for checkpointd's tables.",
    ),
    setting(
        "--database-wait",
        type=Seconds(zero=True),
        default=_DEFAULTS.database.wait_seconds,
        show_default=True,
        help="How long to wait for a database that isn't up yet, in seconds.",
    ),
    setting(
        "--vector-index",
        type=VectorIndex(),
        multiple=True,
        default=list(_DEFAULTS.database.vector_indexes),
        show_default=True,
        help="An index on vectors of long-term memory, made with the schema where the database has pgvector: "
        "DIMS:DISTANCE, with the distance cosine, l2 or inner_product. May be given several times; in the environment, "
        "separated by spaces.",
    ),
)

serve_settings = stacked(
    setting(
        "--listen",
        type=Address(),
        multiple=True,
        default=list(_DEFAULTS.listen),
        show_default=True,
        help="HOST:PORT (port 0: any free one) or unix:PATH. May be given several times; in the environment, parted by "
        "spaces.",
    ),
    setting(
        "--health-listen",
        type=Address(),
        multiple=True,
        help="Where to serve health alone, in plain text and to everybody, for probes that speak no TLS: HOST:PORT or "
        "unix:PATH.",
    ),
    setting(
        "--metrics-listen",
        type=MetricsAddress(),
        help="Where Prometheus may scrape GET /metrics, in plain text and by everybody who reaches it: HOST:PORT.",
    ),
    access_settings,
    database_settings,
    setting(
        "--workers",
        type=Whole(min=1),
        default=_DEFAULTS.workers,
        show_default=True,
        help="How many processes serve, on the same ports (Linux). One that dies is replaced.",
    ),
    setting(
        "--pool-max-size",
        type=Whole(min=1),
        default=_DEFAULTS.pool_max_size,
        show_default=True,
        help="The most connections to the database, of all workers together.",
    ),
    setting(
        "--max-concurrent-calls",
        type=Whole(min=1),
        default=_DEFAULTS.max_concurrent_calls,
        show_default=True,
        help="The most calls at work at once, in each worker. What is over this or one of the next three is refused "
        "with OVERLOADED, and asked to come again.",
    ),
    setting(
        "--max-bytes-in-flight",
        type=Whole(min=1024 * 1024),
        default=_DEFAULTS.max_bytes_in_flight,
        show_default=True,
        help="The most bytes of requests and answers at once. A message that is larger is let in when there is no "
        "other.",
    ),
    setting(
        "--max-queue",
        type=Whole(min=0),
        default=_DEFAULTS.max_queue,
        show_default=True,
        help="How many reads may wait for a connection to the database, and as many writes for their commit.",
    ),
    setting(
        "--max-queue-seconds",
        type=Seconds(zero=False),
        default=_DEFAULTS.max_queue_seconds,
        show_default=True,
        help="How long each of them waits before it is refused, in seconds.",
    ),
    setting(
        "--max-connections",
        type=Whole(min=1),
        default=_DEFAULTS.max_connections,
        show_default=True,
        help="The most connections of clients, in each worker; fewer if the system lets a process open fewer files. "
        "Further ones are closed at once.",
    ),
    setting(
        "--max-wasted-calls",
        type=Whole(min=0),
        default=_DEFAULTS.max_wasted_calls,
        show_default=True,
        help="How many calls a second one connection may cancel, or have refused for who makes them, before it is "
        "closed; five times as many at once. 0: any number, for a proxy that puts the calls of many clients on one "
        "connection.",
    ),
    setting(
        "--quota-bytes",
        type=Whole(min=0),
        default=_DEFAULTS.quotas.max_bytes or 0,
        show_default=True,
        help="How many bytes each tenant's rows may have in the database, about, unless `checkpointd quotas` says "
        "otherwise. What is over this or one of the next two is refused with QUOTA_EXCEEDED. 0: any number.",
    ),
    setting(
        "--quota-threads",
        type=Whole(min=0),
        default=_DEFAULTS.quotas.max_threads or 0,
        show_default=True,
        help="How many threads each tenant may have. 0: any number.",
    ),
    setting(
        "--quota-calls",
        type=Whole(min=0),
        default=_DEFAULTS.quotas.max_calls_per_second or 0,
        show_default=True,
        help="How many calls and operations a second each tenant may make, in each worker. 0: any number.",
    ),
    setting(
        "--quota-refresh-seconds",
        type=Seconds(zero=False),
        default=_DEFAULTS.quota_refresh_seconds,
        show_default=True,
        help="How often the database is asked what tenants may use, and what those hold whose bytes or threads are "
        "bounded, in seconds. Meanwhile a tenant may go beyond.",
    ),
    setting(
        "--statement-cache-size",
        type=Whole(min=0),
        default=_DEFAULTS.statement_cache_size,
        help="Prepared statements kept on each connection.  [default: 1024, and none behind a pooler]",
    ),
    setting(
        "--migrate/--no-migrate",
        default=_DEFAULTS.migrate,
        show_default=True,
        help="Bring the schema up to date at the start, or refuse to start if it isn't.",
    ),
    setting(
        "--drain-seconds",
        type=Seconds(zero=True),
        default=_DEFAULTS.drain_seconds,
        show_default=True,
        help="How long calls in flight may take to finish after SIGTERM, in seconds.",
    ),
    setting(
        "--kill-after-seconds",
        type=Seconds(zero=False),
        default=_DEFAULTS.kill_after_seconds,
        show_default=True,
        help="With --workers: how long after the drain one is killed that hasn't ended, in seconds.",
    ),
    setting(
        "--retention-interval",
        type=Seconds(zero=True),
        default=_DEFAULTS.retention_interval,
        show_default=True,
        help="How long after a sweep retention policies are applied again, in seconds. Of several servers one does it. "
        "0: this one never does.",
    ),
    setting(
        "--retention-batch",
        type=Whole(min=1),
        default=_DEFAULTS.retention_batch,
        show_default=True,
        help="How many checkpoints retention deletes in one transaction, while who writes to their thread has to wait.",
    ),
    setting(
        "--default-timeout",
        type=Seconds(zero=False),
        default=_DEFAULTS.default_timeout,
        show_default=True,
        help="The time that a call without a deadline gets, in seconds.",
    ),
    setting(
        "--max-timeout",
        type=Seconds(zero=False),
        default=_DEFAULTS.max_timeout,
        show_default=True,
        help="The most time that a call gets, whatever deadline its client has set, in seconds.",
    ),
    setting(
        "--max-message-bytes",
        type=Whole(min=1024 * 1024, max=2**31 - 1),
        default=_DEFAULTS.limits.max_message_bytes,
        show_default=True,
        help="The largest message taken or sent, in bytes.",
    ),
    setting(
        "--max-value-bytes",
        type=Whole(min=1024 * 1024, max=2**40),
        default=_DEFAULTS.limits.max_value_bytes,
        show_default=True,
        help="The largest value of a channel, in bytes. It travels in parts, whatever the largest message is.",
    ),
    setting(
        "--max-page-bytes",
        type=Whole(min=1024, max=2**31 - 1),
        default=_DEFAULTS.limits.max_page_bytes,
        show_default=True,
        help="Where a page of a list is cut, in bytes.",
    ),
    setting(
        "--reflection/--no-reflection",
        default=_DEFAULTS.reflection,
        show_default=True,
        help="Describe the services to tools like grpcurl.",
    ),
    setting(
        "--traces/--no-traces",
        default=_DEFAULTS.traces,
        show_default=True,
        help="Send OpenTelemetry spans to the collector that OTEL_EXPORTER_OTLP_ENDPOINT names, by OTLP over HTTP. "
        "Needs checkpointd[otel].",
    ),
    setting(
        "--slow-call-seconds",
        type=Seconds(zero=True),
        default=_DEFAULTS.slow_call_seconds,
        show_default=True,
        help="From when on a call has a warning in the log, with its thread and its size, in seconds. 0: none has.",
    ),
    setting(
        "--warn-checkpoint-bytes",
        type=Whole(min=0),
        default=_DEFAULTS.warn_checkpoint_bytes,
        show_default=True,
        help="From what size on a checkpoint has a warning in the log: that of the values that changed. 0: none has.",
    ),
    setting(
        "--log-level",
        type=click.Choice(LogLevel, case_sensitive=False),
        default=_DEFAULTS.log_level.value,
        show_default=True,
        help="The least important log lines to write.",
    ),
    setting(
        "--log-format",
        type=click.Choice(LogFormat, case_sensitive=False),
        default=_DEFAULTS.log_format.value,
        show_default=True,
        help="Log lines for people or for machines.",
    ),
)


def read_database(
    url: str | None, data_dir: Path | None, schema: str, wait_seconds: float, vector_indexes: tuple[str, ...]
) -> DatabaseConfig:
    """Puts the settings of the database together. Raises click.UsageError where two exclude each other."""
    if url is not None and data_dir is not None:
        raise click.UsageError(
            "--data-dir is the embedded PostgreSQL's folder and can't go together with --database-url "
            "(they may come from CHECKPOINTD_DATA_DIR and CHECKPOINTD_DATABASE_URL)"
        )
    return DatabaseConfig(
        url=url, data_dir=data_dir, schema=schema, wait_seconds=wait_seconds, vector_indexes=vector_indexes
    )
