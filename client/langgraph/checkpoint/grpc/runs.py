"""What each run has read, so that a write can say what it expects to find.

A run's base is what *it* read, not what its saver last saw: two runs through one saver collide as two processes do. So
the base is kept for each run, and a run is recognized by what LangGraph passes along:

- Within one execution of a graph every config carries the same object under `configurable["__pregel_runtime"]`. It
  compares by value and can't be referred to weakly, and to hold it would keep the user's context alive. So a run is
  recognized by its identity together with that of two parts: its `control`, which a nested graph shares with the graphs
  around it, and its `stream_writer`, a function made for the run. When that is gone, so is the run. A nested graph
  whose events are streamed has the writer of the graph around it; there a read after a write begins another run.
  Runtimes that LangGraph didn't make are held, and the least recently used are forgotten beyond a bound.
- `update_state` has no runtime. There the read leaves a note in a context variable, which the put finds again.

A run keeps the order of its own calls in a namespace: a checkpoint's task writes follow its put, and the next put
follows the writes before it. So whatever a run has stored was stored in order, and nothing trails behind a put that
lost.
"""

from __future__ import annotations

import asyncio
import os
import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, wait
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from copy import copy
from types import FunctionType, TracebackType
from typing import Self
from weakref import WeakValueDictionary

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.grpc.errors import CheckpointdError, RefusedError
from langgraph.checkpoint.grpc.loops import running_loop
from langgraph.checkpoint.grpc.requests import Key
from langgraph.checkpoint.grpc.rides import Ride, Rides

from checkpointd.v1.checkpoint_service_pb2 import PutCheckpointRequest, PutWritesRequest

MAX_RUNS = 4096
"""How many runs are remembered. A run that was forgotten while it was under way would write unconditionally."""
MAX_CONTEXT_READS = 8
"""How many reads without a runtime are remembered in one context."""
REMEMBERED_PUTS = 64
"""How many of a run's own checkpoints are remembered in each namespace."""
PUT_EXPECTED_WITHIN = 1.0
"""How long task writes wait for the put of their checkpoint to begin, in seconds. LangGraph begins it before or just
after them; for the rare checkpoint that it never puts (a Command on a thread that doesn't exist) this is the end."""

LONGEST_BLOCKING_WAIT = 10.0
"""How long a blocking write in an event loop waits for the run's calls before it, in seconds."""

_RUNTIME = "__pregel_runtime"
_STREAM = "__pregel_stream"
"""Where LangGraph hands the stream of a graph to the graphs nested in it, and with it the writer."""


class End(Future["CheckpointdError | None"]):
    """The end of a call that is under way: its result says what went wrong, if anything.

    Those who wait for it can't cancel it.
    """

    def __init__(self) -> None:
        super().__init__()
        self.set_running_or_notify_cancel()
        self.line: object | None = None
        """Where the call stands in line, if it does: what stands in the same line behind it will come after it."""
        self.in_line: Future[None] | None = None
        """Done when the call stands in line or is over, for those who wait for a put that hasn't begun."""

    def join(self, line: object) -> None:
        """Notes that the call stands in line."""
        self.line = line
        if self.in_line is not None and not self.in_line.done():
            self.in_line.set_result(None)

    def come(self, error: CheckpointdError | None) -> None:
        """Notes that the call is over."""
        self.set_result(error)
        if self.in_line is not None and not self.in_line.done():
            self.in_line.set_result(None)


class Line:
    """One namespace, as one run sees it. Guarded by the lock of Runs."""

    def __init__(self, version: int) -> None:
        self.version = version
        """The version that this run read, or that its own last put made."""
        self.read: set[str] = set()
        """The checkpoints that this run read."""
        self.puts: OrderedDict[str, End] = OrderedDict()
        """This run's own puts, by checkpoint id: under way or over."""
        self.awaited: dict[str, End] = {}
        """The puts of checkpoints whose writes came first."""
        self.has_failed = False
        """Whether this run's last put failed: LangGraph makes no other then, so there is none to wait for."""
        self.writing: dict[End, End | None] = {}
        """This run's task writes under way, each with the put that it follows."""
        self.rides = Rides()
        """Those of them that may go along with the next put."""

    def knows(self, checkpoint_id: str) -> bool:
        """Whether the run has read this checkpoint or put it itself."""
        return checkpoint_id in self.read or checkpoint_id in self.puts


class Execution:
    """One execution of a graph, with all graphs nested in it."""

    def __init__(self, control: object) -> None:
        self.control = control
        """Held, so that its identity stays its own. It holds nothing of the user's."""
        self.runs = 0
        """How many runs have begun."""
        self.refusals: dict[str, tuple[RefusedError, int]] = {}
        """How another run got in the way, by thread, and how many runs had begun by then. LangGraph drops what a nested
        graph's save raised when the graph is ending in an interrupt; so whichever of these runs writes next raises it
        again. Runs that begin later have read what the other wrote."""

    def refusal_of(self, run: Run, thread_id: str) -> RefusedError | None:
        """Returns how another run got in the way of this one."""
        error, runs = self.refusals.get(thread_id, (None, 0))
        return error if run.number <= runs else None

    def note(self, thread_id: str, error: RefusedError) -> None:
        """Notes that another run got in the way. The traceback is left out: it would hold all that its frames hold."""
        self.refusals[thread_id] = (copy(error), self.runs)


class Run:
    """One run: what it has read, and what it has written itself."""

    def __init__(self, execution: Execution | None = None) -> None:
        self.token = os.urandom(16)
        """Who writes, for the server."""
        self.execution = execution
        """None for what was read without a runtime."""
        self.number = 0
        """Counts the runs of an execution, from 1."""
        if execution is not None:
            execution.runs += 1
            self.number = execution.runs
        self.lines: dict[Key, Line] = {}
        self.has_put = False
        """Whether the run has put a checkpoint."""


class Known:
    """A run that is known, and how it is told from others: its runtime's identity may become another's.

    Args:
        run: The run.
        runtime: Its runtime.
        writer: The runtime's stream writer, if it was made for the run or for one around it; None: nothing tells when
            the runtime is gone.
        is_inherited: Whether the writer belongs to a graph around.
        forget: Called when the writer is gone.
    """

    def __init__(
        self,
        run: Run,
        runtime: object,
        writer: FunctionType | None,
        *,
        is_inherited: bool,
        forget: Callable[[Known], None],
    ) -> None:
        self.run = run
        self.is_inherited = is_inherited
        self._held = runtime if writer is None else None
        # The callback holds this object, and this object holds the reference that the callback belongs to.
        self._writer = None if writer is None else weakref.ref(writer, lambda _: forget(self))

    def is_of(self, runtime: object) -> bool:
        """Whether this is what is known of a runtime, and not of one that had its identity before."""
        if self._writer is None:
            return self._held is runtime
        execution = self.run.execution
        control = execution.control if execution is not None else None
        return self._writer() is _writer(runtime) and control is getattr(runtime, "control", None)


_context_runs: ContextVar[dict[tuple[int, Key], Run] | None] = ContextVar("checkpointd_context_runs", default=None)


class Runs:
    """The runs that go through a saver and its clones.

    Args:
        optimistic: False to note nothing of what runs read, so that every write is unconditional.
    """

    def __init__(self, *, optimistic: bool) -> None:
        self._optimistic = optimistic
        self._lock = threading.Lock()
        # By the identity of their runtimes, the least recently used first.
        self._known: dict[int, Known] = {}
        self._executions: WeakValueDictionary[int, Execution] = WeakValueDictionary()

    def did_read(self, config: RunnableConfig, key: Key, version: int, checkpoint_ids: Iterable[str]) -> None:
        """Notes what a run has found. Its base is its first read, until it has written itself."""
        runtime = _runtime(config)
        if not self._optimistic:
            if runtime is not None:
                with self._lock:
                    self._run(config, runtime, reads=True)  # it has begun, before refusals to come
        elif runtime is None:
            run = Run()
            run.lines[key] = line = Line(version)
            line.read.update(checkpoint_ids)
            self._note_in_context(key, run)
        else:
            with self._lock:
                line = self._run(config, runtime, reads=True).lines.setdefault(key, Line(version))
                line.read.update(checkpoint_ids)

    def begin_put(self, config: RunnableConfig, request: PutCheckpointRequest) -> UnderWay:
        """Notes that a run is about to put a checkpoint. Raises what its execution was refused with already."""
        key = Key(request.thread_id, request.checkpoint_ns)
        own_id = request.checkpoint_id
        overdue: list[End] = []
        with self._lock:
            run, line = self._find(config, key, request.parent_checkpoint_id)
            if run is not None:
                run.has_put = True
            if run is None or line is None:
                return UnderWay(self, key, run)
            line.has_failed = False
            end = line.awaited.pop(own_id, None) or End()
            line.puts[own_id] = end
            line.puts.move_to_end(own_id)
            if len(line.puts) > REMEMBERED_PUTS:
                line.puts.popitem(last=False)
            # LangGraph puts in order: what is older and hasn't come by now is not going to.
            overdue += [line.awaited.pop(older) for older in list(line.awaited) if older < own_id]
            # Writes that wait for a put themselves are not older than this one: they may wait for this very put.
            earlier = tuple(written for written, put in line.writing.items() if put is None or put.done())
            under_way = UnderWay(self, key, run, line, end, waits_for=earlier)
        for late in overdue:
            late.come(None)
        return under_way

    def begin_writes(self, config: RunnableConfig, request: PutWritesRequest) -> UnderWay:
        """Notes that a run is about to write beside a checkpoint. Raises what its execution was refused with."""
        key = Key(request.thread_id, request.checkpoint_ns)
        beside = request.checkpoint_id
        with self._lock:
            run, line = self._find(config, key, beside)
            if run is None or line is None:
                return UnderWay(self, key, run)
            put = line.puts.get(beside)
            patience = None
            if put is None and beside not in line.read and not line.has_failed:
                put = line.awaited.setdefault(beside, End())
                if put.in_line is None:
                    put.in_line = Future()
                    put.in_line.set_running_or_notify_cancel()
                patience = PUT_EXPECTED_WITHIN
            end = End()
            line.writing[end] = put
            return UnderWay(self, key, run, line, end, follows=put, patience=patience)

    @contextmanager
    def preparing(self, config: RunnableConfig) -> Iterator[None]:
        """Notes, if a put fails before it has begun, that it won't come: task writes may wait for it."""
        try:
            yield
        except BaseException:
            overdue: list[End] = []
            runtime = _runtime(config)
            with self._lock:
                known = self._known.get(id(runtime))
                lines = known.run.lines if known is not None and known.is_of(runtime) else {}
                key = _key(config)
                if key in lines:
                    line = lines[key]
                    line.has_failed = True
                    overdue = list(line.awaited.values())
                    line.awaited.clear()
            for late in overdue:
                late.come(None)
            raise

    def forget_context(self) -> None:
        """Forgets what was read in this context without a runtime, because the threads are no longer what they were."""
        if _context_runs.get():
            _context_runs.set(None)

    def end(self, under_way: UnderWay, error: BaseException | None) -> None:
        """Notes that a call is over, and tells those who wait for it."""
        run, line, end = under_way.run, under_way.line, under_way.ends
        overdue: list[End] = []
        with self._lock:
            if isinstance(error, RefusedError) and run is not None and run.execution is not None:
                run.execution.note(under_way.key.thread_id, error)
            if line is None or end is None:
                return
            line.writing.pop(end, None)
            if error is not None and end in line.puts.values():
                line.has_failed = True
                overdue = list(line.awaited.values())
                line.awaited.clear()
        if error is not None and not isinstance(error, CheckpointdError):
            error = CheckpointdError(f"the put of this checkpoint ended in {type(error).__name__}")
        # A copy has no traceback, which would hold all that its frames hold: the runtime too, and so the run for ever.
        end.come(copy(error))
        for late in overdue:
            late.come(None)
        line.rides.wake()

    def _find(self, config: RunnableConfig, key: Key, builds_on: str) -> tuple[Run | None, Line | None]:
        """Finds the run of a write and its view of the namespace; None where nothing is known. The lock is held.

        A write without a runtime belongs to the context's read only if it builds on what was read (or on a put since);
        otherwise it is a hand-made one. `builds_on` is empty for a put without a parent.
        """
        runtime = _runtime(config)
        if runtime is not None:
            run = self._run(config, runtime)
            if run.execution is not None and (refusal := run.execution.refusal_of(run, key.thread_id)):
                raise copy(refusal) from refusal
            return run, run.lines.get(key)
        if not self._optimistic:
            return None, None
        noted = (_context_runs.get() or {}).get((id(self), key))
        if noted is None:
            return None, None
        line = noted.lines[key]
        return (noted, line) if (line.knows(builds_on) if builds_on else not line.read) else (None, None)

    def _run(self, config: RunnableConfig, runtime: object, *, reads: bool = False) -> Run:
        """Finds or begins the run of a runtime. The lock is held."""
        known = self._known.pop(id(runtime), None)
        is_another = known is None or not known.is_of(runtime)
        if known is None or is_another or (reads and known.is_inherited and known.run.has_put):
            known = self._begin(config, runtime)
        self._known[id(runtime)] = known  # as the last
        while len(self._known) > MAX_RUNS:
            with suppress(RuntimeError):  # the collector has just made one be forgotten
                self._known.pop(next(iter(self._known)), None)
        return known.run

    def _begin(self, config: RunnableConfig, runtime: object) -> Known:
        control = getattr(runtime, "control", None)
        # A runtime without a control is an execution of its own.
        execution = self._executions.get(id(control)) if control is not None else None
        if execution is None:
            execution = Execution(control)
            if control is not None:
                self._executions[id(control)] = execution
        number, known = id(runtime), self._known

        def forget(gone: Known) -> None:
            # Called by the collector, from anywhere: without the lock.
            if known.get(number) is gone:
                known.pop(number, None)

        return Known(
            Run(execution),
            runtime,
            _writer(runtime),
            is_inherited=_STREAM in config["configurable"],
            forget=forget,
        )

    def _note_in_context(self, key: Key, run: Run) -> None:
        notes = dict(_context_runs.get() or {})
        notes.pop((id(self), key), None)
        notes[(id(self), key)] = run
        while len(notes) > MAX_CONTEXT_READS:
            notes.pop(next(iter(notes)))
        _context_runs.set(notes)


class UnderWay:
    """A write that is under way: what it waits for, what it expects, and how it ended.

    Used as a context manager around the call. Where nothing is known of the run, it does nothing at all.
    """

    def __init__(
        self,
        runs: Runs,
        key: Key,
        run: Run | None = None,
        line: Line | None = None,
        ends: End | None = None,
        *,
        waits_for: tuple[End, ...] = (),
        follows: End | None = None,
        patience: float | None = None,
    ) -> None:
        self._runs = runs
        self._follows = follows
        self.key = key
        self.run = run
        self.line = line
        self.ends = ends
        self._waits_for = waits_for if follows is None else (follows,)
        self._patience = patience

    def wait(self) -> None:
        """Blocks until the run's calls that go first are over.

        In an event loop not for ever: they may be awaited in the very loop that is blocked here.
        """
        if self._waits_for:
            wait(self._waits_for, self._patience or (LONGEST_BLOCKING_WAIT if running_loop() else None))

    def wait_and_take(self, *, takes: bool) -> list[Ride]:
        """Blocks like `wait`, for a put. Returns the run's writes that it is to take along, and has to settle.

        Args:
            takes: Whether the put can take any along.
        """
        if not takes or self.line is None or not self._waits_for or running_loop():
            self.wait()
            return []
        rides = self.line.rides.take(self._waits_for, None)
        # More than a put takes along, and those that weren't offered.
        taken = {ride.end for ride in rides}
        wait([end for end in self._waits_for if end not in taken])
        return rides

    def offer(self, request: PutWritesRequest) -> bool:
        """Offers a write to the run's next put. Returns whether one took it along, and it was stored.

        Only where LangGraph runs a graph: there a put comes soon, and nothing waits for the write until then.
        """
        if self.line is None or self.ends is None or self.run is None or self.run.execution is None:
            return False
        return running_loop() is None and self.line.rides.offer(self.ends, request) is not None

    async def line_up(self, line: object, *, again: bool, may_be_followed: bool = True) -> None:
        """Waits in an event loop until the run's calls that go first are over, or stand in the same line.

        Args:
            line: The line that this call is about to join.
            again: Whether the call has stood in line before, and was sent back. What went before it may have been sent
                back too, so only its end counts.
            may_be_followed: Whether others may stand in the line behind this call. If not, they wait for its end.
        """
        for end in self._waits_for:
            if not again and end.in_line is not None and end.line is None and not end.done():
                await asyncio.wait([asyncio.wrap_future(end.in_line)], timeout=self._patience)
                if end.line is None and not end.done():
                    continue  # the patience is at its end
            if not end.done() and (again or end.line is not line):
                await asyncio.wait([asyncio.wrap_future(end)], timeout=self._patience if end.line is None else None)
        if self.ends is not None:
            self.ends.join(line if may_be_followed else object())

    def expect(self, request: PutCheckpointRequest | PutWritesRequest) -> None:
        """Writes into the request what the run expects. Raises what the put raised that these writes follow."""
        if self._follows is not None and self._follows.done() and (error := self._follows.result()) is not None:
            raise copy(error) if isinstance(error, RefusedError) else error
        if self.run is None or self.line is None:
            return
        request.precondition.if_version_match = self.line.version
        request.precondition.if_last_writer = self.run.token
        if isinstance(request, PutCheckpointRequest):
            request.writer = self.run.token

    def made(self, version: int) -> None:
        """Notes the version that a put made."""
        if self.line is not None:
            self.line.version = version
        else:
            # A write that nothing was known of: what this context had read before is out of date.
            self._runs.forget_context()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._runs.end(self, exc)


def _writer(runtime: object) -> FunctionType | None:
    """Returns a runtime's stream writer if it was made for a run: LangGraph's own stand-in lives for ever."""
    writer = getattr(runtime, "stream_writer", None)
    return writer if isinstance(writer, FunctionType) and "<locals>" in writer.__qualname__ else None


def _key(config: RunnableConfig) -> Key:
    """Returns the namespace that a config names, without a look at whether it may."""
    configurable = config.get("configurable") or {}
    return Key(str(configurable.get("thread_id")), configurable.get("checkpoint_ns") or "")


def _runtime(config: RunnableConfig) -> object | None:
    return (config.get("configurable") or {}).get(_RUNTIME)
