"""The snapshot of one server process: its counters and gauges."""

from __future__ import annotations

import asyncio
import os
import platform
import time
from collections import Counter
from pathlib import Path

import structlog

from checkpointd_server import __version__
from checkpointd_server.domain.errors import CheckpointdError
from checkpointd_server.domain.metrics import RpcMetrics, UpkeepMetrics
from checkpointd_server.observability.families import Snapshot, histogram, samples_of
from checkpointd_server.rpc import RpcServer
from checkpointd_server.store import PostgresStore, TableSize

MEASURE_SECONDS = 60.0
"""Minimum time between two measurements of tables, in seconds. Scrapes trigger them."""
MEASURE_TIMEOUT = 2.0
"""How long a measurement may take, in seconds. Until it ends, the last one is used."""

_ACQUIRE, _RENEW, _RELEASE = "LeaseService/AcquireLease", "LeaseService/RenewLease", "LeaseService/ReleaseLease"

_log = structlog.get_logger(__name__)


class ServerSnapshots:
    """Takes snapshots of a running server.

    Args:
        server: Its RPCs.
        store: Its store.
        upkeep: The counts of background work.
        worker: The number of the worker process, from 1. 0: the only process.
    """

    def __init__(self, server: RpcServer, store: PostgresStore, upkeep: UpkeepMetrics, *, worker: int = 0) -> None:
        self._server = server
        self._store = store
        self._upkeep = upkeep
        self._worker = str(worker)
        self._started = time.time()
        self._tables: list[TableSize] = []
        self._measured_at = float("-inf")
        self._measuring: asyncio.Task[None] | None = None

    async def take(self) -> Snapshot:
        """Returns a snapshot. Waits for the database only the first time, when its tables are measured."""
        await self._measure_tables()
        return {
            **self._process(),
            **self._calls(),
            **self._items(),
            **self._leases(),
            **self._database(),
            **self._own_work(),
        }

    async def _measure_tables(self) -> None:
        now = asyncio.get_running_loop().time()
        if self._measuring is None and now - self._measured_at >= MEASURE_SECONDS:
            first, self._measured_at = not self._tables, now
            self._measuring = asyncio.get_running_loop().create_task(self._measure())
            if first:
                await asyncio.wait((self._measuring,))

    async def _measure(self) -> None:
        try:
            self._tables = await self._store.measure_tables(timeout=MEASURE_TIMEOUT)
        except CheckpointdError as error:
            _log.debug("the tables could not be measured", reason=str(error))
        finally:
            self._measuring = None

    def _process(self) -> Snapshot:
        resident = 0
        if (statm := Path("/proc/self/statm")).exists():
            resident = int(statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        files = len(os.listdir("/dev/fd"))
        return {
            "checkpointd_build_info": [([__version__, platform.python_version()], 1)],
            "checkpointd_workers": [([], 1)],
            "checkpointd_worker_restarts": [([], 0)],
            "checkpointd_start_time_seconds": [([], self._started)],
            "checkpointd_process_cpu_seconds": [([self._worker], time.process_time())],
            "checkpointd_process_resident_bytes": [([self._worker], resident)],
            "checkpointd_process_open_files": [([self._worker], files)],
        }

    def _calls(self) -> Snapshot:
        metrics, load, tenants = self._server.metrics, self._server.load, self._server.tenants
        calls: dict[tuple[str, ...], float] = {}
        for (method, via), counted in metrics.calls.items():
            calls[method, via, "OK"] = counted.ok
            calls |= {(method, via, code): number for code, number in counted.codes.items()}
        return {
            "checkpointd_serving": [([], self._server.is_serving)],
            "checkpointd_calls": samples_of(calls),
            "checkpointd_call_failures": samples_of(metrics.failures),
            "checkpointd_call_seconds": [
                (list(key), histogram(counted.seconds)) for key, counted in metrics.calls.items()
            ],
            "checkpointd_request_bytes": [
                (list(key), histogram(counted.request_bytes)) for key, counted in metrics.calls.items()
            ],
            "checkpointd_response_bytes": [
                (list(key), histogram(counted.response_bytes)) for key, counted in metrics.calls.items()
            ],
            "checkpointd_slow_calls": [([], metrics.slow_calls)],
            "checkpointd_large_checkpoints": [([], metrics.large_checkpoints)],
            "checkpointd_calls_active": [([], self._server.active_calls)],
            "checkpointd_calls_limit": [([], load.max_calls)],
            "checkpointd_bytes_in_flight": [([], load.held_bytes)],
            "checkpointd_bytes_in_flight_limit": [([], load.max_bytes)],
            "checkpointd_overloaded": [([], load.is_overloaded)],
            "checkpointd_tenants_active": [([], tenants.count_recent())],
            "checkpointd_quota_refusals": samples_of(
                tenants.metrics.quota_refusals, keys=("bytes", "threads", "calls_per_second")
            ),
            "checkpointd_share_refusals": [
                ([], tenants.metrics.share_refusals + self._store.connections.queue.share_refusals)
            ],
            "checkpointd_streams_open": [([], self._server.open_streams)],
        }

    def _items(self) -> Snapshot:
        items = self._server.metrics.items
        outcomes = {(name, "ok"): counted.ok for name, counted in items.items()}
        outcomes |= {(name, "failed"): counted.failed for name, counted in items.items()}
        return {
            "checkpointd_item_operations": samples_of(outcomes),
            "checkpointd_item_operation_seconds": [
                ([name], histogram(counted.seconds)) for name, counted in items.items()
            ],
            "checkpointd_items": [([name], counted.items) for name, counted in items.items()],
        }

    def _leases(self) -> Snapshot:
        metrics: RpcMetrics = self._server.metrics
        reasons: Counter[str] = Counter()
        for (_, reason), number in metrics.failures.items():
            reasons[reason] += number
        outcomes = {
            "granted": metrics.of(_ACQUIRE).ok,
            "renewed": metrics.of(_RENEW).ok,
            "released": metrics.of(_RELEASE).ok,
            "held": reasons["LEASE_HELD"],
            "lost": reasons["LEASE_LOST"],
        }
        return {
            "checkpointd_conflicts": [([], reasons["VERSION_CONFLICT"])],
            "checkpointd_leases": samples_of(outcomes),
            "checkpointd_leases_waiting": [([], self._server.waiting_calls)],
        }

    def _database(self) -> Snapshot:
        connections = self._store.connections
        metrics, queue, pool = connections.metrics, connections.queue, connections.pool
        return {
            "checkpointd_commits": samples_of({"stored": metrics.commits, "failed": metrics.failed_commits}),
            "checkpointd_commit_writes": [([], histogram(metrics.commit_writes))],
            "checkpointd_commit_seconds": [([], histogram(metrics.commit_seconds))],
            "checkpointd_commit_wait_seconds": [([], histogram(metrics.commit_waits))],
            "checkpointd_writes_queued": [([], queue.queued_writes)],
            "checkpointd_reads_queued": [([], queue.waiting)],
            "checkpointd_queue_limit": [([], queue.limit)],
            "checkpointd_pool_wait_seconds": [([], histogram(metrics.pool_waits))],
            "checkpointd_pool_connections": samples_of(
                {"idle": pool.idle, "in_use": pool.in_use, "opening": pool.opening}
            ),
            "checkpointd_pool_limit": [([], queue.permits)],
            "checkpointd_pool_replacements": [([], metrics.replaced_pools)],
            "checkpointd_statement_seconds": [
                ([name], histogram(counted)) for name, counted in metrics.statements.items() if any(counted.counts)
            ],
            "checkpointd_statement_retries": [([], metrics.retries)],
            "checkpointd_lock_waits": [([], metrics.lock_waits)],
            "checkpointd_database_up": [([], self._upkeep.database_is_up)],
            "checkpointd_table_bytes": [([table.name], table.bytes) for table in self._tables],
            "checkpointd_table_rows": [([table.name], table.rows) for table in self._tables],
        }

    def _own_work(self) -> Snapshot:
        upkeep = self._upkeep
        return {
            "checkpointd_gc_runs": samples_of({"ok": upkeep.gc_runs, "failed": upkeep.gc_failures}),
            "checkpointd_gc_threads": [([], upkeep.gc_threads)],
            "checkpointd_retention_runs": samples_of(
                {"ok": upkeep.retention_runs, "failed": upkeep.retention_failures}
            ),
            "checkpointd_retention_threads": [([], upkeep.retention_threads)],
            "checkpointd_retention_checkpoints": [([], upkeep.retention_checkpoints)],
        }
