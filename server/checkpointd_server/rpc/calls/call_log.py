"""The log of calls: how each ended goes to the log, the counts and its span."""

from __future__ import annotations

import logging
from time import perf_counter
from typing import Any

import structlog

from checkpointd_server.domain.metrics import RpcMetrics
from checkpointd_server.rpc.auth.scopes import Unauthenticated
from checkpointd_server.rpc.calls.call import Call, CallLimits
from checkpointd_server.rpc.calls.error_redaction import error_type, format_redacted_traceback
from checkpointd_server.rpc.calls.log_rate_limit import RateLimitedLog, is_enabled
from checkpointd_server.rpc.calls.slow_call_log import SlowCallLog
from checkpointd_server.rpc.errors import Failure, describe_error


class CallLog:
    """Records how calls end.

    Args:
        limits: From when on a call is slow or a checkpoint large, and the largest message.
    """

    def __init__(self, limits: CallLimits) -> None:
        self._message_bytes = limits.message_bytes
        self._log = structlog.get_logger("checkpointd.rpc").bind()
        # Asked once: a line a call must cost nothing where nobody reads it.
        self.logs_calls = is_enabled(self._log, logging.DEBUG)
        """True if calls that went well are logged."""
        self._lines = RateLimitedLog(self._log)
        self.metrics = RpcMetrics()
        """The counts of calls."""
        self.slow_call_log = SlowCallLog(
            self._log, self.metrics, slow_seconds=limits.slow_seconds, large_bytes=limits.large_bytes
        )
        """The log of slow calls and large checkpoints."""

    def succeeded(self, call: Call) -> None:
        """Records that a call was done."""
        if self.logs_calls:
            self._log_call(call, "OK")

    def cancelled(self, call: Call) -> None:
        """Records that a call was cancelled."""
        self.metrics.failed(call.method, call.via, "CANCELLED", "CANCELLED", perf_counter() - call.started)
        if call.span is not None:
            call.span.end("CANCELLED")
        if call.unread:
            # gRPC answers what is far over the limit by itself, and tells no more here than of a client that went away.
            self._lines.log(
                logging.INFO,
                "call ended before its request was read: its client went away, or sent more than a message may have",
                "unread",
                limit=self._message_bytes,
                **call.fields(),
            )
        elif self.logs_calls:
            self._log_call(call, "CANCELLED")

    def _log_call(self, call: Call, code: str) -> None:
        self._log.debug("call", code=code, **call.fields())

    def failed(self, call: Call, error: Exception, retry_after: float | None) -> Failure:
        """Logs why a call failed, and returns what its client is told.

        Args:
            call: The call.
            error: What it failed with.
            retry_after: The seconds after which the client is to try again. None: it isn't told.
        """
        failure = describe_error(error, retry_after=retry_after)
        seconds = perf_counter() - call.started
        self.metrics.failed(call.method, call.via, failure.code.name, failure.reason, seconds)
        if call.span is not None:
            call.span.end(failure.reason)
        self._log_failure(call.fields(), failure, error)
        return failure

    def _log_failure(self, fields: dict[str, Any], failure: Failure, error: Exception) -> None:
        fields = {
            "code": failure.code.name,
            "reason": failure.reason,
            **fields,
        }
        if failure.error_id is not None:
            self._log.error("call failed", **fields, error_id=failure.error_id, trace=format_redacted_traceback(error))
            return
        if error.__cause__ is not None:
            fields["cause"] = error_type(error.__cause__)
        # Whoever has no token could fill the disk with the lines of what is refused.
        key = failure.reason if isinstance(error, Unauthenticated) else f"{failure.reason} {fields['method']}"
        self._lines.log(failure.level, "call refused", key, **fields, message=failure.message)

    def stop(self) -> None:
        """Writes what the log is still to be told."""
        self._lines.flush()
        self.slow_call_log.stop()
