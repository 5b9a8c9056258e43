"""`checkpointd serve`."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from checkpointd_server.cli.auth_options import read_access
from checkpointd_server.cli.server_options import read_database, serve_settings
from checkpointd_server.cli.unknown_env import known_variables, warn_of_unknown
from checkpointd_server.config import ServeConfig
from checkpointd_server.domain.limits import Limits
from checkpointd_server.domain.tenants import Quotas
from checkpointd_server.process.logging import LogFormat, LogLevel, configure_logs, flush_logs
from checkpointd_server.process.signals import exit_on_signals


@click.command()
@serve_settings
def serve(
    listen: tuple[str, ...],
    database_url: str | None,
    data_dir: Path | None,
    schema: str,
    database_wait: float,
    vector_index: tuple[str, ...],
    workers: int,
    pool_max_size: int,
    max_concurrent_calls: int,
    max_bytes_in_flight: int,
    max_connections: int,
    max_wasted_calls: int,
    max_queue: int,
    max_queue_seconds: float,
    quota_bytes: int,
    quota_threads: int,
    quota_calls: int,
    quota_refresh_seconds: float,
    statement_cache_size: int,
    migrate: bool,
    drain_seconds: float,
    kill_after_seconds: float,
    retention_interval: float,
    retention_batch: int,
    default_timeout: float,
    max_timeout: float,
    max_message_bytes: int,
    max_value_bytes: int,
    max_page_bytes: int,
    reflection: bool,
    log_level: LogLevel,
    log_format: LogFormat,
    health_listen: tuple[str, ...],
    metrics_listen: str | None,
    traces: bool,
    slow_call_seconds: float,
    warn_checkpoint_bytes: int,
    **access: Any,
) -> None:
    """Serve checkpoints until SIGTERM or Ctrl-C.

    When it is ready, it prints one line on standard output: "checkpointd ready on HOST:PORT". On the first signal it
    lets calls in flight finish; on the second it stops at once.

    Without --database-url it runs an embedded PostgreSQL (from checkpointd[embedded]) in --data-dir. It requires TLS
    and tokens if other machines can reach it.

    \b
    Examples:
        checkpointd serve --data-dir ./checkpoints
        CHECKPOINTD_DATABASE_URL=postgresql://agents:secret@db/agents checkpointd serve --listen 0.0.0.0:50051 \\
            --tls-cert tls.crt --tls-key tls.key --keys-file keys.toml
    """
    exit_on_signals()
    configure_logs(log_level, log_format)
    warn_of_unknown(os.environ, known_variables())
    if workers > pool_max_size:
        raise click.UsageError(
            f"--workers {workers} needs a --pool-max-size of at least {workers}: the workers share its connections"
        )
    config = ServeConfig(
        database=read_database(database_url, data_dir, schema, database_wait, vector_index),
        listen=listen,
        health_listen=health_listen,
        metrics_listen=metrics_listen,
        traces=traces,
        slow_call_seconds=slow_call_seconds,
        warn_checkpoint_bytes=warn_checkpoint_bytes,
        access=read_access(**access),
        limits=Limits(
            max_message_bytes=max_message_bytes, max_value_bytes=max_value_bytes, max_page_bytes=max_page_bytes
        ),
        workers=workers,
        pool_max_size=pool_max_size,
        max_concurrent_calls=max_concurrent_calls,
        max_bytes_in_flight=max_bytes_in_flight,
        max_connections=max_connections,
        max_wasted_calls=max_wasted_calls,
        max_queue=max_queue,
        max_queue_seconds=max_queue_seconds,
        quotas=Quotas(
            max_bytes=quota_bytes or None, max_threads=quota_threads or None, max_calls_per_second=quota_calls or None
        ),
        quota_refresh_seconds=quota_refresh_seconds,
        statement_cache_size=statement_cache_size,
        migrate=migrate,
        drain_seconds=drain_seconds,
        kill_after_seconds=kill_after_seconds,
        retention_interval=retention_interval,
        retention_batch=retention_batch,
        default_timeout=default_timeout,
        max_timeout=max_timeout,
        reflection=reflection,
        log_level=log_level,
        log_format=log_format,
    )
    try:
        _serve(config)
    finally:
        flush_logs()  # before the error message that follows


def _serve(config: ServeConfig) -> None:
    """Serves in this process, or supervises several workers."""
    # Imported here because grpc and asyncpg are slow to import, and --help needs neither.
    if config.workers == 1:
        from checkpointd_server.app import serve as run

        asyncio.run(run(config, announce=_announce))
        return
    from checkpointd_server.process.supervisor import supervise

    asyncio.run(supervise(config, announce=_announce))


def _announce(addresses: Sequence[str]) -> None:
    click.echo(f"checkpointd ready on {' '.join(addresses)}")
    sys.stdout.flush()
