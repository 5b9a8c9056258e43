"""Log lines about calls that take long and checkpoints that are large, although nothing failed."""

from __future__ import annotations

import logging
from typing import Any

from checkpointd_server.domain.checkpoints import PutCheckpoint
from checkpointd_server.domain.metrics import RpcMetrics
from checkpointd_server.rpc.calls.log_rate_limit import RateLimitedLog


class SlowCallLog:
    """Writes warnings, of each kind the first ones in ten seconds.

    Args:
        log: Where to.
        metrics: Where they are counted, all of them.
        slow_seconds: From when on a call is slow. Infinity: never.
        large_bytes: From what size on a checkpoint is large. 0: never.
    """

    def __init__(self, log: Any, metrics: RpcMetrics, *, slow_seconds: float, large_bytes: int) -> None:
        self.slow_seconds = slow_seconds
        """From when on a call is slow."""
        self._large_bytes = large_bytes
        self._metrics = metrics
        self._lines = RateLimitedLog(log)

    def slow(self, fields: dict[str, Any], request_bytes: int, response_bytes: int) -> None:
        """Warns of a call that took long.

        Args:
            fields: What the log says of the call.
            request_bytes: The size of its request.
            response_bytes: The size of its answer.
        """
        self._metrics.slow_calls += 1
        key = f"slow {fields['method']}"
        sizes = {"request_bytes": request_bytes, "response_bytes": response_bytes}
        self._lines.log(logging.WARNING, "slow call", key, **fields, **sizes)

    def look_at(self, put: PutCheckpoint) -> None:
        """Warns of a checkpoint whose changed values are large, as they are when they are whole."""
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
        """Writes how many lines were only counted."""
        self._lines.flush()
