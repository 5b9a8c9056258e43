"""The metrics: their names and meanings, and how they are computed from a server's counts.

A snapshot is plain JSON data: each worker sends its own to the parent, which merges them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, TypedDict

from checkpointd_server.domain.metrics import Histogram


class Family(NamedTuple):
    """A metric, with one time series for each set of labels."""

    kind: str
    """ "counter", "gauge" or "histogram"."""
    help: str
    """The help text, with the unit."""
    labels: tuple[str, ...] = ()
    """The labels' names."""
    merge: str = "sum"
    """How samples of several workers are merged: "sum", or "max" for values that all workers share."""


class HistogramValue(TypedDict):
    """The counts of a histogram."""

    bounds: list[float]
    """The upper bounds of the buckets."""
    counts: list[int]
    """The number of values in each bucket. The last one counts the values above all bounds."""
    sum: float
    """The sum of all values."""


Value = float | HistogramValue
Sample = tuple[list[str], Value]
Snapshot = dict[str, list[Sample]]
"""The samples of each family. A sample has the labels' values, and its value."""

_CALL = ("method", "via")

FAMILIES: Mapping[str, Family] = {
    "checkpointd_build_info": Family(
        "gauge", "1, with the version of the server and of its Python.", ("version", "python"), "max"
    ),
    "checkpointd_workers": Family("gauge", "How many processes serve."),
    "checkpointd_worker_restarts": Family("counter", "How many worker processes died and were replaced."),
    "checkpointd_serving": Family("gauge", "How many processes tell by their health that they serve."),
    "checkpointd_start_time_seconds": Family(
        "gauge", "When the process that started last did so, in seconds since 1970.", (), "max"
    ),
    "checkpointd_process_cpu_seconds": Family(
        "counter", "The CPU time of the server's processes, in seconds.", ("worker",)
    ),
    "checkpointd_process_resident_bytes": Family("gauge", "The memory of the server's processes.", ("worker",)),
    "checkpointd_process_open_files": Family("gauge", "How many files and sockets are open.", ("worker",)),
    "checkpointd_calls": Family(
        "counter",
        "Finished calls and pipeline operations, by gRPC method, transport (unary, pipeline) and status code.",
        (*_CALL, "code"),
    ),
    "checkpointd_call_failures": Family(
        "counter", "Failed calls and operations, by method and reason (errors.proto).", ("method", "reason")
    ),
    "checkpointd_call_seconds": Family(
        "histogram", "Duration of calls and operations until their answer, in seconds.", _CALL
    ),
    "checkpointd_request_bytes": Family("histogram", "Size of successful requests, in bytes.", _CALL),
    "checkpointd_response_bytes": Family("histogram", "Size of answers to successful requests, in bytes.", _CALL),
    "checkpointd_slow_calls": Family("counter", "Calls that took longer than --slow-call-seconds."),
    "checkpointd_large_checkpoints": Family("counter", "Checkpoints larger than --warn-checkpoint-bytes."),
    "checkpointd_calls_active": Family("gauge", "Calls and operations in progress."),
    "checkpointd_calls_limit": Family("gauge", "Maximum number of concurrent calls (--max-concurrent-calls)."),
    "checkpointd_bytes_in_flight": Family("gauge", "Bytes of requests and answers in memory."),
    "checkpointd_bytes_in_flight_limit": Family(
        "gauge", "Maximum bytes of requests and answers in memory (--max-bytes-in-flight)."
    ),
    "checkpointd_overloaded": Family("gauge", "Processes that currently reject calls for overload."),
    "checkpointd_tenants_active": Family(
        "gauge", "Tenants that called within the last ten seconds, or have calls in progress."
    ),
    "checkpointd_quota_refusals": Family("counter", "Calls rejected with QUOTA_EXCEEDED, by quota.", ("quota",)),
    "checkpointd_share_refusals": Family(
        "counter", "Calls rejected with OVERLOADED because their tenant already had its share of a nearly full server."
    ),
    "checkpointd_streams_open": Family("gauge", "Open pipelines."),
    "checkpointd_conflicts": Family(
        "counter", "Writes rejected because another run had written to the thread (VERSION_CONFLICT)."
    ),
    "checkpointd_item_operations": Family(
        "counter",
        "Operations on items of long-term memory, alone or in batches, by operation (put, get, delete, search, count, "
        "list_namespaces) and outcome.",
        ("operation", "outcome"),
    ),
    "checkpointd_item_operation_seconds": Family(
        "histogram",
        "How long they took, in seconds. Those of a batch that are done together take as long as all of them.",
        ("operation",),
    ),
    "checkpointd_items": Family(
        "counter",
        "Items that were read, found, counted, stored and deleted, by operation; of list_namespaces, namespaces.",
        ("operation",),
    ),
    "checkpointd_leases": Family(
        "counter",
        "Answers about leases, by outcome: granted, renewed, released, held (by somebody else), lost.",
        ("outcome",),
    ),
    "checkpointd_leases_waiting": Family("gauge", "Calls waiting for a lease."),
    "checkpointd_commits": Family("counter", "Transactions that store writes, by outcome.", ("outcome",)),
    "checkpointd_commit_writes": Family("histogram", "Puts and task writes per commit."),
    "checkpointd_commit_seconds": Family("histogram", "Duration of commits, in seconds."),
    "checkpointd_commit_wait_seconds": Family(
        "histogram", "Longest wait of a commit's writes until it began, in seconds."
    ),
    "checkpointd_writes_queued": Family("gauge", "Writes waiting for their commit."),
    "checkpointd_reads_queued": Family("gauge", "Calls waiting for a database connection."),
    "checkpointd_queue_limit": Family("gauge", "Maximum number of waiting writes, and of waiting calls (--max-queue)."),
    "checkpointd_pool_wait_seconds": Family("histogram", "Wait of statements for a database connection, in seconds."),
    "checkpointd_pool_connections": Family(
        "gauge", "Database connections, by state: idle, in use, opening.", ("state",)
    ),
    "checkpointd_pool_limit": Family("gauge", "Maximum number of database connections (--pool-max-size)."),
    "checkpointd_pool_replacements": Family(
        "counter", "Times that all database connections were replaced because one died."
    ),
    "checkpointd_statement_seconds": Family(
        "histogram", "Duration of statements including the round trip, in seconds.", ("statement",)
    ),
    "checkpointd_statement_retries": Family("counter", "Statements retried on another connection."),
    "checkpointd_lock_waits": Family("counter", "Times that a statement waited a second for a thread's lock."),
    "checkpointd_database_up": Family("gauge", "1 if the database answered the last check, else 0.", (), "max"),
    "checkpointd_table_bytes": Family(
        "gauge", "Size of each table with its indexes in bytes, measured once a minute.", ("table",), "max"
    ),
    "checkpointd_table_rows": Family("gauge", "Estimated number of rows of each table.", ("table",), "max"),
    "checkpointd_gc_runs": Family("counter", "Garbage collection runs, by outcome.", ("outcome",)),
    "checkpointd_gc_threads": Family("counter", "Threads checked by garbage collection."),
    "checkpointd_retention_runs": Family("counter", "Retention sweeps, by outcome.", ("outcome",)),
    "checkpointd_retention_threads": Family("counter", "Threads changed by retention."),
    "checkpointd_retention_checkpoints": Family("counter", "Checkpoints deleted by retention."),
}
"""Every metric. `_total` is appended to the names of counters when they are written."""


def histogram(counted: Histogram) -> HistogramValue:
    """Returns a histogram as plain data."""
    return {"bounds": list(counted.bounds), "counts": list(counted.counts), "sum": counted.sum}


def merge(snapshots: Iterable[Snapshot]) -> Snapshot:
    """Merges the snapshots of several processes."""
    merged: dict[str, dict[tuple[str, ...], Value]] = {}
    for snapshot in snapshots:
        for name, samples in snapshot.items():
            series = merged.setdefault(name, {})
            for labels, value in samples:
                key = tuple(labels)
                series[key] = value if key not in series else _merged(FAMILIES[name], series[key], value)
    return {name: [(list(labels), value) for labels, value in series.items()] for name, series in merged.items()}


def _merged(family: Family, one: Value, other: Value) -> Value:
    if isinstance(one, dict):
        assert isinstance(other, dict)
        counts = [a + b for a, b in zip(one["counts"], other["counts"], strict=True)]
        return {"bounds": one["bounds"], "counts": counts, "sum": one["sum"] + other["sum"]}
    assert not isinstance(other, dict)
    return max(one, other) if family.merge == "max" else one + other


def counters_of(snapshot: Snapshot) -> Snapshot:
    """Returns the counters and histograms of a snapshot, which must outlive their process."""
    return {name: samples for name, samples in snapshot.items() if FAMILIES[name].kind != "gauge"}


def samples_of(values: Mapping[Any, float], *, keys: Sequence[str] = ()) -> list[Sample]:
    """Returns the samples of a family from a mapping of label values. `keys` are always included."""
    found = {(key,) if isinstance(key, str) else tuple(key): value for key, value in values.items()}
    for key in keys:
        found.setdefault((key,), 0)
    return [(list(labels), value) for labels, value in found.items()]
