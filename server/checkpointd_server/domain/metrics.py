"""Counts of a server: plain numbers that code increments, read at scrapes.

Counting takes a few hundred nanoseconds: no lock, no look-up of labels. Everything is counted from the start of the
process, in its event loop's thread.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence
from time import perf_counter
from typing import Self

SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
"""The buckets of durations, in seconds."""
BYTES = (256, 1024, 4096, 16384, 65536, 262144, 1048576, 4194304, 16777216, 67108864, 1073741824)
"""The buckets of sizes, in bytes."""
WRITES = (1, 2, 4, 8, 16, 32, 64, 128)
"""The buckets of writes in a commit."""


ITEM_OPERATIONS = ("count", "delete", "get", "list_namespaces", "put", "search")
"""The kinds of operations on items, as StoreOperation in store_service.proto names them."""


class Histogram:
    """Counts values by buckets.

    Args:
        bounds: The upper bounds of all buckets but the last, ascending.
    """

    __slots__ = ("bounds", "counts", "sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        """The number of values in each bucket; the last one is for values above all bounds."""
        self.sum = 0.0
        """The sum of all values."""

    def observe(self, value: float, times: int = 1) -> None:
        """Counts a value, once or several times."""
        self.counts[bisect_left(self.bounds, value)] += times
        self.sum += value * times


class CallMetrics:
    """Counts the calls of one method, unary or pipelined."""

    __slots__ = ("codes", "ok", "request_bytes", "response_bytes", "seconds")

    def __init__(self) -> None:
        self.ok = 0
        """How many went well."""
        self.codes: Counter[str] = Counter()
        """How many failed, by the name of the status code."""
        self.seconds = Histogram(SECONDS)
        """Durations of answered calls, whatever the answer."""
        self.request_bytes = Histogram(BYTES)
        """Sizes of the requests of calls that succeeded."""
        self.response_bytes = Histogram(BYTES)
        """Sizes of their answers."""

    def succeeded(self, seconds: float, request_bytes: int, response_bytes: int) -> None:
        """Counts a call that succeeded."""
        self.ok += 1
        self.seconds.observe(seconds)
        self.request_bytes.observe(request_bytes)
        self.response_bytes.observe(response_bytes)


class RpcMetrics:
    """Counts calls, including operations of pipelines."""

    def __init__(self) -> None:
        self.calls: dict[tuple[str, str], CallMetrics] = {}
        """By method, e.g. "CheckpointService/PutCheckpoint", and the way in which they come: "unary" or "pipeline"."""
        self.failures: Counter[tuple[str, str]] = Counter()
        """How many calls failed, by method and reason."""
        self.items = {name: ItemMetrics() for name in ITEM_OPERATIONS}
        """Of each kind of operation on items."""
        self.slow_calls = 0
        """How many were slow."""
        self.large_checkpoints = 0
        """How many large checkpoints were put."""

    def of(self, method: str, via: str = "unary") -> CallMetrics:
        """Returns the counts of a method's calls."""
        key = method, via
        found = self.calls.get(key)
        if found is None:
            found = self.calls[key] = CallMetrics()
        return found

    def failed(self, method: str, via: str, code: str, reason: str, seconds: float) -> None:
        """Counts a call that was answered by an error.

        Args:
            method: The method, such as "CheckpointService/PutCheckpoint".
            via: "unary" or "pipeline".
            code: The name of the gRPC status code.
            reason: The error reason, without its prefix.
            seconds: How long it took.
        """
        found = self.of(method, via)
        found.codes[code] += 1
        found.seconds.observe(seconds)
        self.failures[method, reason] += 1


class ItemMetrics:
    """Counts operations of one kind on items of long-term memory, alone or in batches."""

    __slots__ = ("failed", "items", "ok", "seconds")

    def __init__(self) -> None:
        self.ok = 0
        """How many went well."""
        self.failed = 0
        """How many failed."""
        self.items = 0
        """How many items they read, found, counted, stored or deleted; of namespaces, how many were listed."""
        self.seconds = Histogram(SECONDS)
        """Durations; operations of a batch that run together each count with the duration of all."""

    def measure(self, operations: int = 1) -> ItemMeasurement:
        """Measures operations that run together, in a `with` block."""
        return ItemMeasurement(self, operations)


class ItemMeasurement:
    """Running operations on items."""

    __slots__ = ("_began", "_metrics", "_operations", "failed", "items")

    def __init__(self, metrics: ItemMetrics, operations: int) -> None:
        self._metrics = metrics
        self._operations = operations
        self.failed = 0
        """How many of them have failed."""
        self.items = 0
        """How many items they concerned."""

    def __enter__(self) -> Self:
        self._began = perf_counter()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        failed = self.failed if kind is None else self._operations
        self._metrics.ok += self._operations - failed
        self._metrics.failed += failed
        self._metrics.items += self.items
        if self._operations:
            self._metrics.seconds.observe(perf_counter() - self._began, self._operations)


class TenantMetrics:
    """Counts rejections for quotas and fair shares."""

    def __init__(self) -> None:
        self.quota_refusals: Counter[str] = Counter()
        """How many calls were refused, by quota."""
        self.share_refusals = 0
        """How many calls were rejected because the server was nearly full and their tenant had used its share."""


class StoreMetrics:
    """Counts statements and commits of a store."""

    def __init__(self) -> None:
        self.statements: dict[str, Histogram] = {}
        """Durations of answered statements by name, with the round trip but without waiting for a connection."""
        self.pool_waits = Histogram(SECONDS)
        """How long calls waited for a connection."""
        self.commits = 0
        """How many commits of writes were stored."""
        self.failed_commits = 0
        """How many failed; their writes are then stored one by one, or their callers get errors."""
        self.commit_writes = Histogram(WRITES)
        """How many writes shared a commit."""
        self.commit_seconds = Histogram(SECONDS)
        """How long commits took."""
        self.commit_waits = Histogram(SECONDS)
        """The longest wait of a write in each commit."""
        self.retries = 0
        """How many statements were retried because of their connection."""
        self.lock_waits = 0
        """How often a statement released its connection after waiting a second for a lock."""
        self.replaced_pools = 0
        """How often all connections were replaced because one had died."""

    def statement(self, name: str) -> Histogram:
        """Returns the durations of a statement."""
        found = self.statements.get(name)
        if found is None:
            found = self.statements[name] = Histogram(SECONDS)
        return found


class UpkeepMetrics:
    """Counts background work."""

    def __init__(self) -> None:
        self.database_is_up = True
        """True if the last check of the database succeeded."""
        self.gc_runs = 0
        """How often garbage was collected."""
        self.gc_failures = 0
        """How many of these failed."""
        self.gc_threads = 0
        """How many threads were checked."""
        self.retention_runs = 0
        """How many times retention policies were applied."""
        self.retention_failures = 0
        """How many of these failed."""
        self.retention_threads = 0
        """How many threads they changed."""
        self.retention_checkpoints = 0
        """How many checkpoints they deleted."""
