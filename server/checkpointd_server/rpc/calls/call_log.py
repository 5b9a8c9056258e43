"""The log of calls: the outcome of each call goes to the log, the metrics and its span."""

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
        limits: The limits from which a call is slow or a checkpoint large, and the maximum message size.
    """

    def __init__(self, limits: CallLimits) -> None:
        self._message_bytes = limits.message_bytes
        self._log = structlog.get_logger("checkpointd.rpc").bind()
        # Checked once: if these lines aren't written, they must cost nothing.
        self.logs_calls = is_enabled(self._log, logging.DEBUG)
        """True if successful calls are logged."""
        self._lines = RateLimitedLog(self._log)
        self.metrics = RpcMetrics()
        """The metrics of calls."""
        self.slow_call_log = SlowCallLog(
            self._log, self.metrics, slow_seconds=limits.slow_seconds, large_bytes=limits.large_bytes
        )
        """The log of slow calls and large checkpoints."""

    def succeeded(self, call: Call) -> None:
        """Records that a call succeeded."""
        if self.logs_calls:
            self._log_call(call, "OK")

    def cancelled(self, call: Call) -> None:
        """Records that a call was cancelled."""
        self.metrics.failed(call.method, call.via, "CANCELLED", "CANCELLED", perf_counter() - call.started)
        if call.span is not None:
            call.span.end("CANCELLED")
        if call.unread:
            # gRPC itself rejects requests far above the limit. Here that can't be told from a client that went away.
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
        """Logs why a call failed, and returns the failure to send to its client.

        Args:
            call: The call.
            error: The error.
            retry_after: The seconds after which the client should retry. None: it isn't told.
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
        # Clients without a token could otherwise fill the disk with lines about rejected calls.
        key = failure.reason if isinstance(error, Unauthenticated) else f"{failure.reason} {fields['method']}"
        self._lines.log(failure.level, "call refused", key, **fields, message=failure.message)

    def stop(self) -> None:
        """Writes how many lines were suppressed."""
        self._lines.flush()
        self.slow_call_log.stop()
