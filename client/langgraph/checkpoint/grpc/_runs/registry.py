"""Reads and writes of each run, from which preconditions and hand-overs follow.

A run's base is what *it* read, not what its saver last saw: two runs of one saver conflict as two processes do. So the
base is kept for each run: see `run_index`.

A run's operations are sent one after another, without waiting for answers. So each names its predecessor: the base
until the run has put something, then the last put that it sent. If the predecessor was lost or refused, the server
refuses the operation. Only task writes of a checkpoint that the run hasn't put yet wait until that put begins: if the
put is refused, its task writes must not be stored.
"""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.grpc._runs.handover import HandoverBounds, InFlightWrite
from langgraph.checkpoint.grpc._runs.identities import SWEEP_SECONDS
from langgraph.checkpoint.grpc._runs.namespace_state import BY_HAND, SETTLING_SECONDS, NamespaceStates
from langgraph.checkpoint.grpc._runs.run import Execution, Refusal, RunNamespace
from langgraph.checkpoint.grpc._runs.run_index import RunIndex, is_background
from langgraph.checkpoint.grpc._transport import fork
from langgraph.checkpoint.grpc._transport.loops import running_loop
from langgraph.checkpoint.grpc._transport.operation import PUT, Namespace, Operation
from langgraph.checkpoint.grpc._transport.waiters import Waiter
from langgraph.checkpoint.grpc.errors import CheckpointdError, VersionConflictError, WriteConflictError, again


class Runs:
    """The runs of a saver and its clones.

    Args:
        optimistic: False: all writes are unconditional.
        put_expected_within: How long task writes wait for the put of their checkpoint to begin, in seconds.
    """

    def __init__(self, *, optimistic: bool, put_expected_within: float) -> None:
        self._optimistic = optimistic
        self._put_expected_within = put_expected_within
        self._begin()
        fork.in_child_for(self, "_begin")

    def _begin(self) -> None:
        self._lock = threading.Lock()
        self._index = RunIndex(optimistic=self._optimistic)
        self._states = NamespaceStates()
        self._bounds = HandoverBounds()
        self._next_look = 0.0

    # Reading.

    def read(self, config: RunnableConfig, operation: Operation, pipeline: Any, *, patient: bool = True) -> bool:
        """Sends a read after this saver's writes on its namespace.

        Args:
            config: The config of the read.
            operation: The read. Its owner waits for it.
            pipeline: Its pipeline.
            patient: Whether to delay it if writes of other runs are about to come.

        Returns:
            Whether it was or will be sent. Otherwise see `wait_for_others`.
        """
        with self._lock:
            if patient and self._others_write(operation.namespace, self._index.execution(config)):
                return False
            flush = self._states.wait_for_turn(operation, pipeline)
            self._look_later(pipeline)
        if flush:
            pipeline.flush()
        return True

    def _others_write(self, namespace: Namespace, execution: Execution | None) -> bool:
        state = self._states.find(namespace)
        return state is not None and (
            state.is_written_by_others(execution)
            or (
                state.wrote_for is not execution
                and bool(state.wrote_at)
                and time.monotonic() - state.wrote_at < SETTLING_SECONDS
            )
        )

    def others_in_flight(self, config: RunnableConfig, namespace: Namespace, waiter: Waiter | None = None) -> bool:
        """Returns whether other runs' writes on a namespace are in flight. The waiter is released when one settles."""
        with self._lock:
            state = self._states.find(namespace)
            if state is None or not state.is_written_by_others(self._index.execution(config)):
                return False
            if waiter is not None:
                state.waiters.append(waiter.release)
            return True

    def in_flight(self, thread_id: str, checkpoint_ns: str | None, waiter: Waiter) -> bool:
        """Returns whether writes on a namespace, or on any of a thread, are in flight. Releases the waiter likewise."""
        with self._lock:
            state = self._states.written(thread_id, checkpoint_ns)
            if state is None:
                return False
            state.waiters.append(waiter.release)
            return True

    def is_written_elsewhere(self, namespace: Namespace) -> bool:
        """Returns whether the last run that wrote to a namespace awaits its saves in another thread."""
        with self._lock:
            state = self._states.find(namespace)
            return state is not None and state.loop is not running_loop()

    def record_read(
        self, config: RunnableConfig, namespace: Namespace, version: int, checkpoint_ids: Iterable[str]
    ) -> None:
        """Records a run's read. Its base is its first read, until it has written itself."""
        with self._lock:
            self._index.record_read(config, namespace, version, checkpoint_ids)

    # Writing.

    def put(self, config: RunnableConfig, write: InFlightWrite, parent_id: str, pipeline: Any) -> None:
        """Sends a put after the run's earlier operations, and hands it over if possible.

        Raises:
            CheckpointdError: It isn't sent, because its predecessor has failed, or another run conflicts.
        """
        operation = write.operation
        namespace, own_id = operation.namespace, write.checkpoint_id
        flush = False
        with self._lock:
            run, view = self._index.find(config, namespace, parent_id)
            if run is not None and view is not None:
                try:
                    view.check(parent_id)
                except CheckpointdError as error:
                    view.fail(own_id, error)
                    raise
                # LangGraph puts in order: older puts that haven't come by now never will.
                if view.expected:
                    for older in [expected for expected in view.expected if expected < own_id]:
                        flush |= self._send_expected(view, older)
                write.view, write.execution = view, run.execution
                operation.chain = view.chain
                write.after = view.sent
                operation.tail = view.tail(PUT, view.sent_id)
                write.number = view.record_put(own_id)
                if view.version is None:
                    operation.after_puts = True
                else:
                    operation.refresh = self._refresh
            flush |= self._send(write, pipeline)
            if view is not None:
                if run is not None and run.execution is not None and pipeline.hands_over and is_background(config):
                    self._bounds.offer_put(view, write)
                flush |= self._send_expected(view, own_id)
        if flush:
            pipeline.flush()

    def put_writes(
        self,
        config: RunnableConfig,
        write: InFlightWrite,
        pipeline: Any,
        *,
        are_special: bool,
        blocks_loop: bool = False,
    ) -> None:
        """Sends task writes after the run's earlier operations, and hands them over if possible.

        Args:
            config: Their config.
            write: The task writes.
            pipeline: Their pipeline.
            are_special: Whether any of them is on a special channel. Then they aren't handed over.
            blocks_loop: Whether the call blocks an event loop, in which its predecessors may be awaited.

        Raises:
            CheckpointdError: As `put`.
        """
        operation = write.operation
        beside = write.checkpoint_id
        released: list[Callable[[], None]] = []
        flush = False
        with self._lock:
            run, view = self._index.find(config, operation.namespace, beside)
            if run is not None and view is not None:
                view.check(beside)
                write.view, write.execution = view, run.execution
                is_expected = not blocks_loop and view.version is not None and not view.knows(beside)
                if is_expected and view.broken is not None:
                    raise again(view.broken)
                may_take = not blocks_loop and not are_special and run.execution is not None and pipeline.hands_over
                if may_take and is_background(config):
                    released = self._bounds.offer_writes(view, write, is_expected=is_expected)
                if is_expected:
                    write.pipeline = pipeline
                    self._states.begin_write(operation.namespace, write.execution or BY_HAND)
                    view.expected.setdefault(beside, []).append(write)
                    pipeline.call_later(self._put_expected_within, lambda: self._stop_expecting(view, beside))
                else:
                    flush = self._send_writes(view, write, pipeline)
            else:
                flush = self._send(write, pipeline)
        for release in released:
            release()
        if flush:
            pipeline.flush()

    def put_failed(self, config: RunnableConfig, namespace: Namespace, checkpoint_id: str, error: Exception) -> None:
        """Records that a put has failed before it could be sent."""
        told = error if isinstance(error, CheckpointdError) else _as_told(error)
        with self._lock:
            view = self._index.view(config, namespace)
            if view is None:
                return
            view.fail(checkpoint_id, told)
            view.broken = told
            unsent = view.take_expected()
        for write in unsent:
            write.operation.settle(None, again(told))

    @contextmanager
    def about_to_write(self, config: RunnableConfig, namespace: Namespace, loop: Any) -> Iterator[None]:
        """Makes reads of other runs wait while a write's large values are uploaded."""
        with self._lock:
            execution = self._index.execution(config) or BY_HAND
            self._states.begin_write(namespace, execution)
        try:
            yield
        finally:
            with self._lock:
                waiters = self._states.end_write(namespace, execution, loop)
            for release in waiters:
                release()

    def settled(self, operation: Operation) -> None:
        """Receives a settled operation. Called in the thread of its pipeline."""
        # Breaks a reference cycle with the operation.
        write, operation.owner = operation.owner, None
        released: list[Callable[[], None]] = []
        unsent: list[InFlightWrite] = []
        with self._lock:
            if type(write) is InFlightWrite:
                if write.view is not None:
                    unsent = self._note_outcome(write.view, write)
                if operation.error is not None:
                    released.append(write.discard)
                released += write.settled(self._bounds)
                writer = write.execution or BY_HAND
                released += self._states.end_write(operation.namespace, writer, write.waiter.loop)
            else:
                released.append(write.release)
            flush = self._states.settled(operation)
        for release in released:
            release()
        for behind in unsent:
            behind.operation.settle(None, again(operation.error or _as_told(RuntimeError())))
        if flush is not None:
            flush.flush()

    def abandon(self, write: InFlightWrite) -> None:
        """Records that task writes are no longer awaited: no other put is handed over to them."""
        with self._lock:
            if write.view is not None and write in write.view.takers:
                write.view.takers.remove(write)

    def _look_later(self, pipeline: Any) -> None:
        """Schedules that finished runs are forgotten. The lock is held."""
        now = time.monotonic()
        if now >= self._next_look and len(self._index):
            # Once more if the last one was lost with its loop.
            self._next_look = now + 2 * SWEEP_SECONDS
            pipeline.call_later(SWEEP_SECONDS, partial(_look, weakref.ref(self), pipeline))

    def look(self, pipeline: Any) -> None:
        """Forgets finished runs."""
        with self._lock:
            gone = self._index.sweep()
            self._next_look = 0.0
            self._look_later(pipeline)
        del gone

    # What the methods above share. The lock is held.

    def _send(self, write: InFlightWrite, pipeline: Any, *, is_counted: bool = False) -> bool:
        """Passes a write to its pipeline. Returns whether to flush that."""
        operation = write.operation
        if not is_counted:
            self._states.begin_write(operation.namespace, write.execution or BY_HAND)
        return self._states.wait_for_turn(operation, pipeline, write.relax)

    def _send_writes(
        self, view: RunNamespace, write: InFlightWrite, pipeline: Any, *, is_counted: bool = False
    ) -> bool:
        operation = write.operation
        operation.chain = view.chain
        write.after = view.sent
        operation.tail = view.tail(operation.kind, view.sent_id)
        if view.version is not None:
            operation.refresh = self._refresh
        return self._send(write, pipeline, is_counted=is_counted)

    def _send_expected(self, view: RunNamespace, checkpoint_id: str) -> bool:
        """Sends operations that waited for a put. Returns whether to flush the pipeline."""
        flush = False
        for write in view.expected.pop(checkpoint_id, ()):
            flush |= self._send_writes(view, write, write.pipeline, is_counted=True)
        return flush

    def _stop_expecting(self, view: RunNamespace, checkpoint_id: str) -> None:
        with self._lock:
            writes = view.expected.get(checkpoint_id, ())
            pipelines = {write.pipeline for write in writes}
            self._send_expected(view, checkpoint_id)
        for pipeline in pipelines:
            pipeline.flush()

    def _refresh(self, operation: Operation, current_id: str) -> bool:
        """Computes the precondition of a resent operation again. Returns whether it has changed.

        What went out behind it may have been stored already. So it has where the server names a put of this run, though
        its answer was lost.
        """
        write: InFlightWrite = operation.owner
        with self._lock:
            view = write.view
            if view is None:
                return False
            if view.stored > write.after:
                write.after, last_id = view.stored, view.stored_id
            elif operation.kind is not PUT and current_id in view.puts and current_id not in view.failed:
                last_id = current_id
            else:
                return False
            before, operation.tail = operation.tail, view.tail(operation.kind, last_id)
            return operation.tail != before

    def _note_outcome(self, view: RunNamespace, write: InFlightWrite) -> list[InFlightWrite]:
        """Records the outcome of a run's write. Returns operations that wait for puts that won't come."""
        operation = write.operation
        error = operation.error
        if type(error) is VersionConflictError and not error.expected_version and view.version:
            error = operation.error = VersionConflictError(
                thread_id=error.thread_id,
                checkpoint_ns=error.checkpoint_ns,
                expected_version=view.version,
                current_version=error.current_version,
                current_checkpoint_id=error.current_checkpoint_id,
            )
        if isinstance(error, WriteConflictError) and write.execution is not None:
            thread_id, checkpoint_ns = operation.namespace
            refusal = Refusal(again(error), checkpoint_ns, self._index.tick())  # type: ignore[arg-type]
            write.execution.refusals.setdefault(thread_id, refusal)
        if operation.kind is not PUT:
            return []
        if error is None:
            view.record_stored(write.number, write.checkpoint_id, operation.response.version)
            return []
        return view.record_failed(write.checkpoint_id, again(error), operation.chain)


def _look(runs: weakref.ref[Runs], pipeline: Any) -> None:
    if (found := runs()) is not None:
        found.look(pipeline)


def _as_told(error: Exception) -> CheckpointdError:
    return CheckpointdError(f"the put of this checkpoint ended in {type(error).__name__}")
