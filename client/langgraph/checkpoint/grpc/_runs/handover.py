"""The hand-over: a save returns as soon as it is sent, and task writes of its run end when it is durable as well.

LangGraph doesn't begin a put before the one before it has returned. But before a run returns it waits for all saves
that it has begun, and raises what they raised. So a put needn't be waited for if task writes of the same run and
namespace are in flight, or come meanwhile: it is handed over to them. They end, or raise, when the put is durable, too.
Nothing is answered early.

Task writes that come while others of the run are in flight are handed over in the same way. Blocking ones would each
hold a thread otherwise, of the few that LangGraph saves in: on two cores six, and the puts behind them wait for one.

Never to writes of an earlier step, if they wait for the put of their own checkpoint: before a put of a graph with delta
channels LangGraph waits for the writes that led to it. Neither to writes on special channels, for what they raise a
node's error handler may swallow, nor those themselves; and not beyond a bound: a slow server must not pile up state in
the agent.
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
"""How many puts and task writes of a run in one namespace are in flight that nobody waits for but its task writes."""
MAX_BYTES = 16 * 1024 * 1024
"""How many bytes such saves of all runs have."""


class InFlightWrite:
    """A put, or task writes, from the call to its end.

    Args:
        operation: What is sent.
        checkpoint_id: The checkpoint that is put, or that the writes lie beside.
        size: How many bytes are held for it.
        waiter: Who waits for it.
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
        """True if nobody waits for it but its taker."""
        self.taker: InFlightWrite | None = None
        """The task writes that end when this one has ended."""
        self.pending = 0
        """How much these task writes wait for: themselves, and what was handed over to them. 0: they take nothing."""
        self.error: CheckpointdError | None = None
        """The error to raise to the caller."""

    def relax(self) -> None:
        """Lets it expect no more than that nobody else has written: it goes out of turn."""
        operation = self.operation
        if self.view is not None:
            operation.tail = self.view.relaxed_tail(operation.kind)
            operation.refresh = operation.chain = None

    def take(self, other: InFlightWrite) -> None:
        """Takes another one over."""
        other.taker = self
        self.pending += 1

    def settled(self, bounds: HandoverBounds) -> list[Callable[[], None]]:
        """Takes the operation's outcome. Returns what to call, once the lock is free."""
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
        """Records that one of those that these writes wait for has ended."""
        self.error = self.error or error
        self.pending -= 1
        if self.pending:
            return []
        if self.view is not None and self in self.view.takers:
            self.view.takers.remove(self)
        return [self.waiter.release]


class HandoverBounds:
    """Bounds of the operations handed over at present, for all runs of a saver. Guarded by the lock of Runs."""

    def __init__(self) -> None:
        self._bytes = 0

    def offer_put(self, view: RunNamespace, put: InFlightWrite) -> None:
        """Hands a put over, now or when task writes come."""
        view.untaken.append(put)
        self._hand_over_untaken(view)

    def offer_writes(self, view: RunNamespace, writes: InFlightWrite, *, is_expected: bool) -> list[Callable[[], None]]:
        """Hands task writes over to others, or puts to them. Returns what to call, once the lock is free.

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
        """Counts a save out that has an outcome."""
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
