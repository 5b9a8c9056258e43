"""Operations without a pipeline, for forked children: each is a unary call, made by its waiting thread.

Those on one namespace are made one after another, in order.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from langgraph.checkpoint.grpc._transport.operation import PUT, Kind, Namespace, Operation
from langgraph.checkpoint.grpc._transport.retry import Attempts
from langgraph.checkpoint.grpc._transport.rpc_errors import error_info, from_rpc_error
from langgraph.checkpoint.grpc.errors import CheckpointdError, again
from langgraph.checkpoint.grpc.options import ClientOptions

import grpc


class UnaryPipeline:
    """Replaces a pipeline by unary calls. Callers call `run` themselves.

    Args:
        options: The saver's options.
        calls: Makes the call, for each kind of operation.
        drive: Runs a flow, blocking.
    """

    hands_over = False
    """True if somebody makes a call that nobody waits for."""
    is_dead = False
    loop = None

    def __init__(
        self, options: ClientOptions, calls: dict[Kind, Callable[..., Any]], drive: Callable[[Any], bytes | None]
    ) -> None:
        self._options = options
        self._calls = calls
        self._drive = drive
        self._changed = threading.Condition()
        self._lanes: dict[Namespace, deque[Operation]] = {}

    def accept(self, operation: Operation) -> None:
        """Queues an operation."""
        with self._changed:
            self._lanes.setdefault(operation.namespace, deque()).append(operation)

    def flush(self) -> None:
        """Wakes the waiters whose turn has come."""
        with self._changed:
            self._changed.notify_all()

    def call_later(self, seconds: float, work: Callable[[], None]) -> None:
        """Calls a function later."""
        timer = threading.Timer(seconds, work)
        timer.daemon = True
        timer.start()

    def run(self, operation: Operation) -> None:
        """Makes the call when its turn has come, and blocks until it is settled."""
        with self._changed:
            self._changed.wait_for(lambda: operation.is_settled or self._is_first(operation))
        if operation.is_settled:
            return
        response, error = None, CheckpointdError("the call was broken off")
        try:
            response = self._call(operation)
        except CheckpointdError as failure:
            error = failure
        finally:
            with self._changed:
                lane = self._lanes[operation.namespace]
                lane.popleft()
                if not lane:
                    del self._lanes[operation.namespace]
            if response is not None:
                operation.settle(response, None)
            else:
                if operation.kind is PUT and operation.chain is not None:
                    operation.chain.failure = error
                operation.settle(None, error)
            self.flush()

    def _is_first(self, operation: Operation) -> bool:
        lane = self._lanes.get(operation.namespace)
        return lane is not None and lane[0] is operation

    def _call(self, operation: Operation) -> Any:
        if operation.chain is not None and operation.chain.failure is not None:
            raise again(operation.chain.failure)
        attempts = Attempts(self._options, operation.kind.method, begun=operation.begun)
        while True:
            attempts.attempt()
            try:
                return self._calls[operation.kind](
                    operation.request(), timeout=self._options.timeout, metadata=operation.headers
                )
            except grpc.RpcError as error:
                if not self._mend(operation, error):
                    time.sleep(attempts.pause_after(error))
            except ValueError as error:  # the channel was closed
                raise CheckpointdError("this saver was closed while a call was about to start") from error
            if operation.context is not None:
                operation.metadata = operation.context.run(self._options.metadata)

    def _mend(self, operation: Operation, error: grpc.RpcError) -> bool:
        """Fixes the cause of a refusal, if possible, and returns whether the operation can be sent again at once."""
        info = error_info(error)
        reason = info.reason
        if reason == "PREDECESSOR_MISSING" and operation.refresh is not None:
            return operation.refresh(operation, info.metadata.get("current_checkpoint_id", ""))
        if reason not in ("BASE_MISSING", "CHAIN_TOO_LONG") or operation.rebuild is None:
            return False
        body = self._drive(operation.rebuild())
        if body is None:
            raise from_rpc_error(error, target=self._options.target, method=operation.kind.method)
        operation.body = body
        return True
