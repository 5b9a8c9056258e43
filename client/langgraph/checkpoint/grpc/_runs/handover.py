"""The hand-over: a save returns as soon as it is sent, and task writes of its run wait until it is durable.

LangGraph doesn't begin a put before the previous one has returned. But before a run returns it waits for all saves that
it has begun, and raises their errors. So a put needn't be awaited if task writes of the same run and namespace are in
flight, or arrive before it is durable: it is handed over to them. They return, or raise, when the put is durable, too.
So nothing is acknowledged early.

Task writes that arrive while others of the run are in flight are handed over in the same way. Otherwise each blocking
one would occupy one of the few threads in which LangGraph saves: six on two cores, while puts wait for a free one.

Nothing is handed over to writes of an earlier step that wait for the put of their own checkpoint: before a put of a
graph with delta channels, LangGraph waits for the writes that led to it. Nor to writes on special channels, whose
errors a node's error handler may swallow, nor are these handed over; and not beyond a limit, so a slow server doesn't
pile up state in the agent.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from langgraph.checkpoint.grpc._runs.run import Execution, RunNamespace
    from langgraph.checkpoint.grpc._transport.operation import Operation
    from langgraph.checkpoint.grpc._transport.waiters import Waiter
    from langgraph.checkpoint.grpc.errors import CheckpointdError

MAX_SAVES = 32
"""Maximum number of handed-over saves of a run in one namespace."""
MAX_BYTES = 16 * 1024 * 1024
"""Maximum size of handed-over saves of all runs, in bytes."""


class InFlightWrite:
    """A put, or task writes, from call to result.

    Args:
        operation: Its operation.
        checkpoint_id: The checkpoint of the put or of the task writes.
        size: Its size in memory, in bytes.
        waiter: Waits for it.
        discard: Called if it has failed.
    """

    __slots__ = (
        "after",
        "checkpoint_id",
        "discard",
        "error",
        "execution",
        "is_handed_over",
        "number",
        "operation",
        "pending",
        "pipeline",
        "size",
        "taker",
        "view",
        "waiter",
    )

    def __init__(
        self, operation: Operation, checkpoint_id: str, size: int, waiter: Waiter, discard: Callable[[], None]
    ) -> None:
        self.operation = operation
        self.checkpoint_id = checkpoint_id
        self.size = size
        self.waiter = waiter
        self.discard = discard
        self.view: RunNamespace | None = None
        """Its run's view of the namespace."""
        self.execution: Execution | None = None
        self.pipeline: Any = None
        """The pipeline that it will go over, while it waits for the put of its checkpoint."""
        self.after = 0
        """The number of puts that its run had sent before it."""
        self.number = 0
        """A put's own number among them."""
        self.is_handed_over = False
        """True if it was handed over."""
        self.taker: InFlightWrite | None = None
        """The task writes that it was handed over to."""
        self.pending = 0
        """The number of saves that these task writes wait for: themselves, and those handed over. 0: none can be
        added."""
        self.error: CheckpointdError | None = None
        """The error to raise to the caller."""

    def relax(self) -> None:
        """Relaxes its precondition to "nobody else has written": it is sent out of order."""
        operation = self.operation
        if self.view is not None:
            operation.tail = self.view.relaxed_tail(operation.kind)
            operation.refresh = operation.chain = None

    def take(self, other: InFlightWrite) -> None:
        """Adds a save that is handed over to it."""
        other.taker = self
        self.pending += 1

    def settled(self, bounds: HandoverBounds) -> list[Callable[[], None]]:
        """Receives the operation's outcome. Returns callbacks to call once the lock is released."""
        error = self.operation.error
        if self.taker is not None:
            bounds.end(self)
            return self.taker._ends(error)
        view = self.view
        if view is not None and self in view.untaken:
            view.untaken.remove(self)
        if self.pending:
            return self._ends(error)
        self.error = error
        return [self.waiter.release]

    def _ends(self, error: CheckpointdError | None) -> list[Callable[[], None]]:
        """Records that a save that these writes wait for has ended."""
        self.error = self.error or error
        self.pending -= 1
        if self.pending:
            return []
        if self.view is not None and self in self.view.takers:
            self.view.takers.remove(self)
        return [self.waiter.release]


class HandoverBounds:
    """Limits of handed-over saves, for all runs of a saver. Guarded by the lock of Runs."""

    def __init__(self) -> None:
        self._bytes = 0

    def offer_put(self, view: RunNamespace, put: InFlightWrite) -> None:
        """Hands a put over, now or when task writes arrive."""
        view.untaken.append(put)
        self._hand_over_untaken(view)

    def offer_writes(self, view: RunNamespace, writes: InFlightWrite, *, is_expected: bool) -> list[Callable[[], None]]:
        """Hands task writes over to others, or puts to them. Returns callbacks to call once the lock is released.

        Args:
            view: Their run's view of the namespace.
            writes: The task writes.
            is_expected: Whether they wait for the put of their checkpoint. LangGraph may begin that put only when the
                writes of the step before have returned, so those must not wait for these.
        """
        may_wait = view.takers and (not is_expected or view.takers[-1].checkpoint_id == writes.checkpoint_id)
        if may_wait and self._has_room(view, writes):
            self._hand_over(view, writes)
        else:
            writes.pending = 1
            view.takers.append(writes)
        return self._hand_over_untaken(view)

    def end(self, save: InFlightWrite) -> None:
        """Stops counting a settled save."""
        assert save.view is not None
        save.view.handed_over -= 1
        self._bytes -= save.size

    def _hand_over_untaken(self, view: RunNamespace) -> list[Callable[[], None]]:
        taken = []
        while view.untaken and view.takers and self._has_room(view, view.untaken[0]):
            put = view.untaken.popleft()
            self._hand_over(view, put)
            taken.append(put.waiter.release)
        return taken

    def _has_room(self, view: RunNamespace, save: InFlightWrite) -> bool:
        return view.handed_over < MAX_SAVES and self._bytes + save.size <= MAX_BYTES

    def _hand_over(self, view: RunNamespace, save: InFlightWrite) -> None:
        save.is_handed_over = True
        view.takers[-1].take(save)
        view.handed_over += 1
        self._bytes += save.size
