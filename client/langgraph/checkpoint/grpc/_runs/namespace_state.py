"""The order of a saver's operations on a namespace, across threads and event loops.

Within a pipeline a lane keeps it. An operation for another pipeline than the previous ones, from a thread or another
event loop, waits here for its turn. So do reads, for pending writes of other runs: a run that was aborted, by a client
that has left or by an interrupt, has saves in flight, and LangGraph is about to begin others.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from langgraph.checkpoint.grpc._transport.loops import running_loop

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop

    from langgraph.checkpoint.grpc._transport.operation import Namespace, Operation

BY_HAND = object()
"""The writer of writes without a known run."""
SETTLING_SECONDS = 1.0
"""Time after a run's write during which another run's read waits for further writes of it, in seconds."""


class NamespaceState:
    """The state of a namespace in use. Guarded by the lock of Runs."""

    __slots__ = ("in_turn", "is_settling", "loop", "pipeline", "queue", "waiters", "writers", "wrote_at", "wrote_for")

    def __init__(self) -> None:
        self.pipeline: Any = None
        """The pipeline whose turn it is."""
        self.in_turn = 0
        """The number of operations on that pipeline."""
        self.queue: deque[Operation] = deque()
        """The operations that wait for another turn, in order."""
        self.writers: dict[object, int] = {}
        """The number of writes in flight, or about to be, by execution, or BY_HAND."""
        self.wrote_at = 0.0
        """The time at which a run's write was settled last."""
        self.wrote_for: object = None
        """Whose it was."""
        self.loop: AbstractEventLoop | None = None
        """The event loop in which that run awaits its saves. None: it saves in threads."""
        self.is_settling = False
        """True if it is looked after until it can be forgotten."""
        self.waiters: list[Callable[[], None]] = []
        """Called when a write is settled."""

    def is_written_by_others(self, execution: object) -> bool:
        """Returns whether writes of other executions are in flight."""
        return any(writer is not execution and writer is not BY_HAND for writer in self.writers)


class NamespaceStates:
    """The namespaces that a saver uses now. Guarded by the lock of Runs."""

    def __init__(self) -> None:
        self._states: dict[Namespace, NamespaceState] = {}
        self._settling: deque[tuple[float, Namespace]] = deque()

    def find(self, namespace: Namespace) -> NamespaceState | None:
        """Returns the state of a namespace, if it is in use."""
        return self._states.get(namespace)

    def written(self, thread_id: str, checkpoint_ns: str | None) -> NamespaceState | None:
        """Returns a namespace with writes in flight: this one, or any of the thread."""
        if checkpoint_ns is not None:
            state = self._states.get((thread_id, checkpoint_ns))
            return state if state is not None and state.writers else None
        found = (state for key, state in self._states.items() if key[0] == thread_id and state.writers)
        return next(found, None)

    def wait_for_turn(self, operation: Operation, pipeline: Any, out_of_turn: Callable[[], None] | None = None) -> bool:
        """Passes an operation to its pipeline, now or when its turn comes.

        Args:
            operation: The operation.
            pipeline: The pipeline.
            out_of_turn: Called before it goes out of turn.

        Returns:
            Whether to flush the pipeline.
        """
        state = self._states.get(operation.namespace)
        if state is None:
            state = self._states[operation.namespace] = NamespaceState()
        if state.pipeline is None or state.pipeline.is_dead:
            state.pipeline, state.in_turn = pipeline, 0
        if state.pipeline is not pipeline or state.queue:
            here = running_loop()
            if here is None or not _needs(state, here):
                operation.pipeline = pipeline
                state.queue.append(operation)
                return False
            # A blocking call in the loop that it would wait for. Better out of order than never.
            if out_of_turn is not None:
                out_of_turn()
        else:
            operation.pipeline = pipeline
            state.in_turn += 1
        pipeline.accept(operation)
        return True

    def settled(self, operation: Operation) -> Any:
        """Marks an operation done. Returns the pipeline whose turn has come, to be flushed."""
        state = self._states.get(operation.namespace)
        if state is None or operation.pipeline is None or operation.pipeline is not state.pipeline:
            return None
        state.in_turn -= 1
        if state.in_turn > 0:
            return None
        if not state.queue:
            state.pipeline = None
            if not state.is_settling:
                self._drop_if_idle(operation.namespace, state)
            return None
        state.pipeline = pipeline = state.queue[0].pipeline
        while state.queue and state.queue[0].pipeline is pipeline:
            state.in_turn += 1
            pipeline.accept(state.queue.popleft())
        return pipeline

    def begin_write(self, namespace: Namespace, execution: object) -> None:
        """Counts a write as in flight."""
        state = self._states.get(namespace)
        if state is None:
            state = self._states[namespace] = NamespaceState()
        state.writers[execution] = state.writers.get(execution, 0) + 1

    def end_write(
        self, namespace: Namespace, execution: object, loop: AbstractEventLoop | None
    ) -> list[Callable[[], None]]:
        """Marks a write settled. Returns callbacks to call."""
        state = self._states[namespace]
        if (left := state.writers.pop(execution) - 1) > 0:
            state.writers[execution] = left
        waiters, state.waiters = state.waiters, []
        if execution is BY_HAND:
            return waiters
        now = time.monotonic()
        state.wrote_at, state.wrote_for, state.loop = now, execution, loop
        if not state.is_settling:
            state.is_settling = True
            self._settling.append((now, namespace))
        while self._settling and now - self._settling[0][0] > 2 * SETTLING_SECONDS:
            key = self._settling.popleft()[1]
            if (old := self._states.get(key)) is not None and not self._drop_if_idle(key, old):
                self._settling.append((now, key))
        return waiters

    def _drop_if_idle(self, namespace: Namespace, state: NamespaceState) -> bool:
        """Forgets a namespace that isn't in use. Returns whether it isn't."""
        if state.pipeline is None and not state.writers and time.monotonic() - state.wrote_at > SETTLING_SECONDS:
            del self._states[namespace]
            return True
        return False


def _needs(state: NamespaceState, loop: AbstractEventLoop) -> bool:
    """Returns whether a turn can't end while a loop is blocked."""
    return state.pipeline.loop is loop or any(operation.pipeline.loop is loop for operation in state.queue)
