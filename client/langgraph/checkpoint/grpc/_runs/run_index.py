"""The index of runs: finds a call's run, and the run's reads.

A run is recognized by what LangGraph passes along:

- Within one execution of a graph every config carries the same object under `configurable["__pregel_runtime"]`. It
  compares by value, so it is recognized by identity: see `identities`. A nested graph has a runtime of its own, and
  shares `runtime.control` with the graphs around it.
- `update_state` has no runtime. Its read is recorded in a context variable, where its put finds it.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextvars import ContextVar
from itertools import count
from typing import Any

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.grpc._runs.identities import Identities
from langgraph.checkpoint.grpc._runs.run import Execution, Run, RunNamespace
from langgraph.checkpoint.grpc._transport.operation import Namespace
from langgraph.checkpoint.grpc.errors import again

MAX_CONTEXT_READS = 8
"""Number of reads without a runtime that are remembered in a context."""

_RUNTIME = "__pregel_runtime"
_DURABILITY = "__pregel_durability"

_context_runs: ContextVar[dict[tuple[object, Namespace], Run] | None] = ContextVar(
    "checkpointd_context_runs", default=None
)


class RunIndex:
    """The runs of a saver and its clones. Guarded by the lock of Runs.

    Args:
        optimistic: False: reads aren't recorded.
    """

    def __init__(self, *, optimistic: bool) -> None:
        self._optimistic = optimistic
        self._self = object()
        self._clock = count(1)
        self._identities = Identities()

    def __len__(self) -> int:
        return len(self._identities)

    def tick(self) -> int:
        """Returns a time that is later than all before it, among runs and refusals."""
        return next(self._clock)

    def sweep(self) -> list[Any]:
        """Forgets finished runs. Returns what to let go where no lock is held: see `Identities.sweep`."""
        return self._identities.sweep()

    def record_read(
        self, config: RunnableConfig, namespace: Namespace, version: int, checkpoint_ids: Iterable[str]
    ) -> None:
        """Records a run's read. Its base is its first read, until it has written itself."""
        runtime = _runtime(config)
        if runtime is not None:
            run = self._run(runtime)
            view = run.namespaces.get(namespace)
            if view is None:
                view = run.namespaces[namespace] = RunNamespace(run, None)
                _begin_anew(run, namespace)
            if self._optimistic:
                if view.version is None and not view.sent:
                    view.version = version
                view.read.update(checkpoint_ids)
        elif self._optimistic:
            run = Run(self.tick())
            run.namespaces[namespace] = view = RunNamespace(run, version)
            view.read.update(checkpoint_ids)
            self._note_in_context(namespace, run)

    def find(
        self, config: RunnableConfig, namespace: Namespace, builds_on: str
    ) -> tuple[Run | None, RunNamespace | None]:
        """Finds the run of a write and its view of the namespace. None: unknown.

        A write without a runtime belongs to the context's read only if it builds on what was read (or on a put since);
        otherwise it is a hand-made one. `builds_on` is empty for a put without a parent.
        """
        runtime = _runtime(config)
        if runtime is not None:
            run = self._run(runtime)
            refusal = run.execution.refusals.get(namespace[0]) if run.execution is not None else None
            if refusal is not None and run.began < refusal.at:
                raise again(refusal.error) from refusal.error
            view = run.namespaces.get(namespace)
            if view is None:
                view = run.namespaces[namespace] = RunNamespace(run, None)
            return run, view
        if not self._optimistic:
            return None, None
        noted = (_context_runs.get() or {}).get((self._self, namespace))
        if noted is None:
            return None, None
        view = noted.namespaces[namespace]
        return (noted, view) if (view.knows(builds_on) if builds_on else not view.read) else (None, None)

    def view(self, config: RunnableConfig, namespace: Namespace) -> RunNamespace | None:
        """Returns the view that the run of a config has of a namespace, if both are known."""
        runtime = _runtime(config)
        run: Run | None = self._identities.find(runtime) if runtime is not None else None
        return run.namespaces.get(namespace) if run is not None else None

    def execution(self, config: RunnableConfig | None) -> Execution | None:
        """Finds the execution that a config belongs to."""
        runtime = _runtime(config) if config is not None else None
        if runtime is None:
            return None
        run: Run | None = self._identities.find(runtime)
        if run is not None:
            return run.execution
        control = getattr(runtime, "control", None)
        return self._identities.find(control) if control is not None else None

    def _run(self, runtime: object) -> Run:
        """Finds or begins the run of a runtime."""
        run: Run | None = self._identities.find(runtime)
        if run is None:
            control = getattr(runtime, "control", None)
            # A runtime without a control is an execution of its own.
            execution = self._identities.find(control) if control is not None else None
            if execution is None:
                execution = Execution()
                if control is not None:
                    self._identities.remember(control, execution)
            run = Run(self.tick(), execution)
            self._identities.remember(runtime, run)
        return run

    def _note_in_context(self, namespace: Namespace, run: Run) -> None:
        notes = dict(_context_runs.get() or {})
        notes.pop((self._self, namespace), None)
        notes[(self._self, namespace)] = run
        while len(notes) > MAX_CONTEXT_READS:
            notes.pop(next(iter(notes)))
        _context_runs.set(notes)


def forget_context() -> None:
    """Forgets this context's reads without a runtime, because threads were changed since."""
    if _context_runs.get():
        _context_runs.set(None)


def is_background(config: RunnableConfig) -> bool:
    """Returns whether LangGraph saves in the background: then it waits for its saves at the end of the run."""
    return config["configurable"].get(_DURABILITY) not in ("sync", "exit")


def _runtime(config: RunnableConfig) -> object | None:
    return (config.get("configurable") or {}).get(_RUNTIME)


def _begin_anew(run: Run, namespace: Namespace) -> None:
    """Forgets a refusal when a new run of the execution reads: it was reported, and this is a retry."""
    if run.execution is not None:
        refusal = run.execution.refusals.get(namespace[0])
        if refusal is not None and refusal.checkpoint_ns == namespace[1] and run.began > refusal.at:
            del run.execution.refusals[namespace[0]]
