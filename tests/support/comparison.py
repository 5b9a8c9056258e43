"""Plays one scenario on two savers and compares everything visible, step by step.

A scenario is written once, as a coroutine; a `Way` says whether it calls the graph's blocking or awaiting methods, and
with which durability. After every step the play records the call's result, the thread's state with its subgraphs, its
history, and every stored checkpoint with its values and writes.
"""

from __future__ import annotations

import asyncio
import difflib
import itertools
import threading
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, cast

import pytest
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import BaseCheckpointSaver, CheckpointTuple
from langgraph.pregel import Pregel
from langgraph.types import StateSnapshot, StateUpdate

from tests.support.normal_form import Names, normal_form, readable

Flavour = Literal["invoke", "ainvoke"]
Durability = Literal["sync", "async", "exit"]


@dataclass(frozen=True, kw_only=True)
class Way:
    """How a scenario calls its graphs."""

    flavour: Flavour
    """Whether to call the blocking methods, without an event loop, or the awaiting ones."""
    durability: Durability
    """When LangGraph saves: before the next step, concurrently with it, or when the run ends."""

    def __str__(self) -> str:
        return f"{self.flavour}-{self.durability}"


FLAVOURS: tuple[Flavour, ...] = ("invoke", "ainvoke")
DURABILITIES: tuple[Durability, ...] = ("sync", "async", "exit")
WAYS = [Way(flavour=flavour, durability=durability) for flavour in FLAVOURS for durability in DURABILITIES]

every_way = pytest.mark.parametrize("way", WAYS, ids=str)
"""Runs a test in every way."""
every_way_of_much_work = pytest.mark.parametrize(
    "way",
    [
        way if str(way) in ("invoke-sync", "ainvoke-async") else pytest.param(way, marks=pytest.mark.long)
        for way in WAYS
    ],
    ids=str,
)
"""The same for slow tests: most ways are marked `long`."""


class Ledger:
    """Counts how often each node ran. Nodes run in several threads, so their order is undefined."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._runs: Counter[str] = Counter()

    def ran(self, node: str) -> int:
        """Records that a node runs, and returns how often it has run."""
        with self._lock:
            self._runs[node] += 1
            return self._runs[node]

    def counts(self) -> dict[str, int]:
        """Returns how often each node has run so far."""
        with self._lock:
            return dict(self._runs)


class Play:
    """One run of a scenario on one saver, with the record of everything visible."""

    def __init__(self, saver: BaseCheckpointSaver[str], way: Way, thread_id: str) -> None:
        self.saver = saver
        self.way = way
        self.thread_id = thread_id
        self.ledger = Ledger()
        self.record: list[tuple[str, Any]] = []
        self._names = Names()

    @property
    def thread(self) -> RunnableConfig:
        """The config of the scenario's thread."""
        return {"configurable": {"thread_id": self.thread_id}}

    def on(self, graph: Pregel[Any, Any, Any, Any]) -> Agent:
        """Returns a graph that is called in the play's way."""
        return Agent(self, graph)

    def note(self, what: str, seen: Any) -> None:
        """Adds to the record."""
        self.record.append((what, normal_form(seen, self._names)))

    async def note_step(self, agent: Agent, what: str, result: Any) -> None:
        """Adds a step to the record: its result, and everything visible of the thread after it."""
        state = await agent.state()
        self.note(f"{what}: result", _settled(result))
        self.note(f"{what}: state", state)
        self.note(f"{what}: nodes run", self.ledger.counts())
        self.note(f"{what}: history", await agent.history())
        self.note(f"{what}: stored", self._sorted(await self.stored()))

    async def stored(self) -> list[CheckpointTuple]:
        """Returns every checkpoint of the thread."""
        if self.way.flavour == "invoke":
            return list(self.saver.list(self.thread))
        return [saved async for saved in self.saver.alist(self.thread)]

    def _sorted(self, stored: list[CheckpointTuple]) -> list[CheckpointTuple]:
        """Sorts by namespace, because parallel subgraphs save in any order. The order within a namespace is kept."""
        root = [saved for saved in stored if not saved.config["configurable"]["checkpoint_ns"]]
        normal_form(root, self._names)
        return sorted(stored, key=lambda saved: self._names.known(saved.config["configurable"]["checkpoint_ns"]))


class Agent:
    """A graph, called in a play's way. Every call that changes something is a step of the record."""

    def __init__(self, play: Play, graph: Pregel[Any, Any, Any, Any]) -> None:
        self._play = play
        self.graph = graph
        self._blocking = play.way.flavour == "invoke"

    async def invoke(
        self,
        input: Any,
        config: RunnableConfig | None = None,
        *,
        fails: type[Exception] | None = None,
        **options: Any,
    ) -> Any:
        """Runs the graph. With `fails`, the run must end in that error, which is then the result."""
        config = config or self._play.thread
        options.setdefault("durability", self._play.way.durability)
        try:
            if self._blocking:
                result = self.graph.invoke(input, config, **options)
            else:
                result = await self.graph.ainvoke(input, config, **options)
        except Exception as error:
            if fails is None or not isinstance(error, fails):
                raise
            result = error
        else:
            assert fails is None, f"the run should have ended in {fails}"
        await self._play.note_step(self, "invoke", result)
        return result

    async def stream(
        self,
        input: Any,
        config: RunnableConfig | None = None,
        *,
        fails: type[Exception] | None = None,
        on_chunk: Callable[[Any], None] | None = None,
        **options: Any,
    ) -> list[Any]:
        """Runs the graph and returns what it streams. `on_chunk` is called with each chunk."""
        config = config or self._play.thread
        options.setdefault("durability", self._play.way.durability)
        chunks: list[Any] = []

        def add(chunk: Any) -> None:
            chunks.append(chunk)
            if on_chunk:
                on_chunk(chunk)

        try:
            if self._blocking:
                for chunk in self.graph.stream(input, config, **options):
                    add(chunk)
            else:
                async for chunk in self.graph.astream(input, config, **options):
                    add(chunk)
        except Exception as error:
            if fails is None or not isinstance(error, fails):
                raise
            chunks.append(error)
        else:
            assert fails is None, f"the run should have ended in {fails}"
        await self._play.note_step(self, "stream", chunks)
        return chunks

    async def state(self, config: RunnableConfig | None = None) -> StateSnapshot:
        """Reads a state with those of its subgraphs."""
        config = config or self._play.thread
        if self._blocking:
            return self.graph.get_state(config, subgraphs=True)
        return await self.graph.aget_state(config, subgraphs=True)

    async def history(self, config: RunnableConfig | None = None, **options: Any) -> list[StateSnapshot]:
        """Reads the history, newest first."""
        config = config or self._play.thread
        if self._blocking:
            return list(self.graph.get_state_history(config, **options))
        return [state async for state in self.graph.aget_state_history(config, **options)]

    async def update(self, config: RunnableConfig | None, values: Any, as_node: str | None = None) -> RunnableConfig:
        """Updates the state, as if a node had."""
        config = config or self._play.thread
        if self._blocking:
            result = self.graph.update_state(config, values, as_node)
        else:
            result = await self.graph.aupdate_state(config, values, as_node)
        await self._play.note_step(self, "update_state", result)
        return result

    async def update_in_bulk(self, supersteps: Sequence[Sequence[StateUpdate]]) -> RunnableConfig:
        """Updates the state in several steps of several updates each."""
        if self._blocking:
            result = self.graph.bulk_update_state(self._play.thread, supersteps)
        else:
            result = await self.graph.abulk_update_state(self._play.thread, supersteps)
        await self._play.note_step(self, "bulk_update_state", result)
        return result


class Scenario(Protocol):
    """The calls of a scenario, the same on each saver."""

    def __call__(self, play: Play, /) -> Coroutine[Any, Any, None]: ...


Compare = Callable[[Scenario, Way], None]
"""Plays a scenario on GrpcSaver and on InMemorySaver, and fails at the first difference."""


def perform(scenario: Scenario, saver: BaseCheckpointSaver[str], way: Way, thread_id: str) -> list[tuple[str, Any]]:
    """Plays a scenario on a saver and returns the record."""
    play = Play(saver, way, thread_id)
    if way.flavour == "invoke":
        _run_without_loop(scenario(play))
    else:
        asyncio.run(_run_in_loop(scenario, play))
    assert play.record, "the scenario did nothing"
    return play.record


def differences(record: list[tuple[str, Any]], reference: list[tuple[str, Any]]) -> str:
    """Returns the first difference of a record from the reference as text, or an empty text."""
    for number, (step, expected) in enumerate(itertools.zip_longest(record, reference), 1):
        if repr(step) != repr(expected):
            lines = difflib.unified_diff(
                readable(expected).splitlines(), readable(step).splitlines(), "reference", "saver", lineterm="", n=8
            )
            return f"record entry {number} of {len(reference)} ({(expected or step)[0]}) differs:\n" + "\n".join(lines)
    return ""


def _settled(result: Any) -> Any:
    """Sorts the questions in a result: LangGraph returns them in the order in which parallel nodes asked."""
    if isinstance(result, dict) and "__interrupt__" in result:
        return {**result, "__interrupt__": sorted(result["__interrupt__"], key=lambda asked: str(asked.value))}
    return result


def _run_without_loop(coroutine: Coroutine[Any, Any, None]) -> None:
    """Runs a coroutine that never really awaits, without an event loop, as plain code would."""
    try:
        coroutine.send(None)
    except StopIteration:
        return
    coroutine.close()
    raise AssertionError("a scenario in the blocking way awaited something")


async def _run_in_loop(scenario: Scenario, play: Play) -> None:
    await scenario(play)
    # The connections of this loop must end with it. Savers without connections have no aclose.
    close = cast("Callable[[], Awaitable[None]] | None", getattr(play.saver, "aclose", None))
    if close is not None:
        await close()
