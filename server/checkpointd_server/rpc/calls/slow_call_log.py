"""Log lines about slow calls and large checkpoints."""

from __future__ import annotations

import logging
from typing import Any

from checkpointd_server.domain.checkpoints import PutCheckpoint
from checkpointd_server.domain.metrics import RpcMetrics
from checkpointd_server.rpc.calls.log_rate_limit import RateLimitedLog


class SlowCallLog:
    """Writes the first warnings of each kind in ten seconds.

    Args:
        log: The log to write to.
        metrics: The metrics that count all of them.
        slow_seconds: The duration from which a call is slow. Infinity: none is.
        large_bytes: The size from which a checkpoint is large. 0: none is.
    """

    def __init__(self, log: Any, metrics: RpcMetrics, *, slow_seconds: float, large_bytes: int) -> None:
        self.slow_seconds = slow_seconds
        """The duration from which a call is slow, in seconds."""
        self._large_bytes = large_bytes
        self._metrics = metrics
        self._lines = RateLimitedLog(log)

    def slow(self, fields: dict[str, Any], request_bytes: int, response_bytes: int) -> None:
        """Warns of a slow call.

        Args:
            fields: The call's log fields.
            request_bytes: The size of its request.
            response_bytes: The size of its answer.
        """
        self._metrics.slow_calls += 1
        key = f"slow {fields['method']}"
        sizes = {"request_bytes": request_bytes, "response_bytes": response_bytes}
        self._lines.log(logging.WARNING, "slow call", key, **fields, **sizes)

    def look_at(self, put: PutCheckpoint) -> None:
        """Warns of a checkpoint whose changed values are large in their full size."""
        if not self._large_bytes:
            return
        size = len(put.body) + len(put.metadata.data)
        for _, _, value in put.values:
            if value is not None:
                whole = value.patch or value.parts
                size += len(value.data) if whole is None else whole.size
        if size < self._large_bytes:
            return
        self._metrics.large_checkpoints += 1
        _, thread_id, checkpoint_ns = put.namespace
        self._lines.log(
            logging.WARNING,
            "large checkpoint",
            "large",
            thread_id=thread_id,
            checkpoint_ns=checkpoint_ns,
            checkpoint_id=put.checkpoint_id,
            changed_bytes=size,
            limit=self._large_bytes,
        )

    def stop(self) -> None:
        """Writes how many lines were suppressed."""
        self._lines.flush()
