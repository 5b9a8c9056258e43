"""GrpcSaver and InMemorySaver, driven with the same random calls, give the same answers: all of them, in every detail.

`tests.e2e.reference` removes what only InMemorySaver does. Two things are left out of the calls, since there the savers
differ on purpose: checkpoints of a format before 4 with pending sends beside their parent (contract 13;
tests/e2e/test_fidelity.py), and two values under one version of a channel (contract 12: no graph makes those).
"""

from __future__ import annotations

import asyncio
import itertools
import uuid
from collections.abc import Sequence
from typing import Any, Literal, cast

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import ChannelVersions, Checkpoint, CheckpointMetadata, CheckpointTuple
from langgraph.checkpoint.grpc import GrpcSaver

from checkpointd_server.domain.threads import thread_key
from tests.e2e.reference import ReferenceSaver
from tests.support.normal_form import Names, normal_form
from tests.support.server_process import ServerProcess

Mode = Literal["blocking", "awaiting", "mixed"]

# In the order of their bytes, which is neither a locale's order nor that of UTF-16.
IDS = ["0", "1f0-1", "1f0-10", "1f0-2", "A", "a", "\u00e9", "\uffff", "\U0001f600"]
NAMESPACES = ["", "child:1|grand:2", "Child"]
CHANNELS = ["messages", "branch:to:x", "__start__", "\u00e9 \U0001f600"]
SPECIAL = ["__error__", "__scheduled__", "__interrupt__", "__resume__"]
TASKS = ["t1", "t2", "00000000-0000-0000-0000-000000000000", "T"]
PATHS = ["", "~__pregel_pull, a", "~__pregel_pull, b", "~__pregel_push, 10", "~__pregel_push, 9"]

threads = st.integers(0, 1)
namespaces = st.sampled_from(NAMESPACES)
ids = st.sampled_from(IDS)
channels = st.sampled_from(CHANNELS)
# To InMemorySaver 1 and 1.0 are one version, as in Python, so floats have a fraction here.
versions = st.one_of(
    st.integers(1, 4), st.sampled_from([1.5, 2.5, 1e300]), st.sampled_from(["1", f"{2:032}.{5:017}", "v\u00e9"])
)
text = st.text(st.characters(codec="utf-8"), max_size=5)
scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**64 - 1),
    st.floats(allow_nan=False),
    text,
    st.binary(max_size=4),
)
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3), max_leaves=5
)
# Filters compare JSON's numbers by value, so these are numbers on which Python and PostgreSQL agree.
plain = st.one_of(st.none(), st.booleans(), st.integers(-5, 5), st.sampled_from([0.5, 1e20]), st.sampled_from("ab"))
nested = st.one_of(plain, st.lists(plain, max_size=2), st.dictionaries(st.sampled_from("xy"), plain, max_size=2))
metadata_keys = st.sampled_from(["source", "user", "a.b", "quote'\"", "$x"])
metadatas = st.dictionaries(metadata_keys, nested, max_size=3)
version_maps = st.dictionaries(channels, versions, max_size=3)


class SaversInStep(RuleBasedStateMachine):
    """Calls both savers and compares."""

    target: str
    mode: Mode
    reference_class: type[ReferenceSaver]

    def __init__(self) -> None:
        super().__init__()
        self.example = str(uuid.uuid4())
        self.runner = asyncio.Runner()
        # Calls from two contexts on one thread are two runs, which conflict unless the last write wins.
        self.saver = GrpcSaver(
            self.target, concurrency="last_write_wins" if self.mode == "mixed" else "optimistic", retry_budget=0
        )
        self.reference = self.reference_class()
        self.values: dict[tuple[str, str, str, object], tuple[Any, ...]] = {}
        self.steps = itertools.count()
        # Lists order equal ids by the threads' keys, and the reference by their names. Here both orders are the same.
        names = (f"{self.example} {number}" for number in itertools.count())
        self.threads = [next(names)]
        self.threads.append(next(n for n in names if thread_key("default", n) > thread_key("default", self.threads[0])))

    def teardown(self) -> None:
        for number in range(2):
            self.saver.delete_thread(self.thread(number))
        self.runner.run(self.saver.aclose())
        self.runner.close()

    def thread(self, number: int) -> str:
        return self.threads[number]

    def config(self, thread: int, ns: str | None, checkpoint_id: str | None = None) -> RunnableConfig:
        configurable: dict[str, Any] = {"thread_id": self.thread(thread)}
        if ns is not None:
            configurable["checkpoint_ns"] = ns
        if checkpoint_id is not None:
            configurable["checkpoint_id"] = checkpoint_id
        return {"configurable": configurable}

    def same(self, method: str, *args: Any, **options: Any) -> None:
        """Calls a method of both savers and compares their answers."""
        given = self.call(method, *args, **options)
        expected = getattr(self.reference, method)(*args, **options)
        if method == "list":
            expected = list(expected)
        shown, wanted = (repr(normal_form(what, Names())) for what in (given, expected))
        assert shown == wanted

    def call(self, method: str, *args: Any, **options: Any) -> Any:
        blocking = self.mode == "blocking" or (self.mode == "mixed" and next(self.steps) % 2 == 0)
        if blocking:
            result = getattr(self.saver, method)(*args, **options)
            return list(result) if method == "list" else result
        if method == "list":
            return self.runner.run(self.alist(*args, **options))
        return self.runner.run(getattr(self.saver, "a" + method)(*args, **options))

    async def alist(self, *args: Any, **options: Any) -> list[Any]:
        return [saved async for saved in self.saver.alist(*args, **options)]

    @initialize()
    def begin(self) -> None:
        """Creates a thread, so that the first calls have something to find."""
        for number in range(3):
            checkpoint: Checkpoint = {
                "v": 4,
                "id": IDS[number],
                "ts": "2026-01-01T00:00:00+00:00",
                "channel_values": {},
                "channel_versions": {},
                "versions_seen": {},
                "updated_channels": None,
            }
            parent = IDS[number - 1] if number else None
            self.same("put", self.config(0, "", parent), checkpoint, {"step": number, "example": self.example}, {})

    @rule(
        thread=threads,
        ns=namespaces,
        checkpoint_id=ids,
        parent=st.none() | ids,
        new=version_maps,
        old=version_maps,
        value=st.one_of(st.just(()), st.tuples(values)),
        seen=st.dictionaries(st.sampled_from(["node", "__input__"]), version_maps, max_size=2),
        updated=st.none() | st.lists(channels, max_size=2),
        extra=st.dictionaries(st.sampled_from(["pending_sends", "later"]), values, max_size=2),
        metadata=metadatas,
        step=st.integers(-2, 3),
    )
    def put(
        self,
        thread: int,
        ns: str,
        checkpoint_id: str,
        parent: str | None,
        new: ChannelVersions,
        old: ChannelVersions,
        value: tuple[Any, ...],
        seen: dict[str, ChannelVersions],
        updated: list[str] | None,
        extra: dict[str, Any],
        metadata: dict[str, Any],
        step: int,
    ) -> None:
        if parent is not None and parent >= checkpoint_id:
            parent = None
        channel_values: dict[str, Any] = {"not changed, so not stored": 1}
        for channel, version in new.items():
            stored = self.values.setdefault((self.thread(thread), ns, channel, version), value)
            if stored:
                channel_values[channel] = stored[0]
        checkpoint: Checkpoint = {
            "v": 4,
            "id": checkpoint_id,
            "ts": f"2026-01-01T00:00:00.{step + 2}+00:00",
            "channel_values": channel_values,
            "channel_versions": {**old, **new},
            "versions_seen": seen,
            "updated_channels": updated,
        }
        checkpoint.update(cast(Checkpoint, extra))
        all_metadata = cast(CheckpointMetadata, {**metadata, "step": step, "example": self.example})
        self.same("put", self.config(thread, ns, parent), checkpoint, all_metadata, new)
        self.same("get_tuple", self.config(thread, ns))

    @rule(
        thread=threads,
        ns=namespaces,
        checkpoint_id=ids,
        task_id=st.sampled_from(TASKS),
        task_path=st.sampled_from(PATHS),
        writes=st.lists(st.tuples(st.one_of(channels, st.sampled_from(SPECIAL)), values), max_size=4),
    )
    def put_writes(
        self,
        thread: int,
        ns: str,
        checkpoint_id: str,
        task_id: str,
        task_path: str,
        writes: Sequence[tuple[str, Any]],
    ) -> None:
        self.same("put_writes", self.config(thread, ns, checkpoint_id), writes, task_id, task_path)
        self.same("get_tuple", self.config(thread, ns, checkpoint_id))

    @rule(thread=threads, ns=st.none() | namespaces, checkpoint_id=st.none() | st.just("") | ids)
    def get_tuple(self, thread: int, ns: str | None, checkpoint_id: str | None) -> None:
        self.same("get_tuple", self.config(thread, ns, checkpoint_id))

    @rule(
        thread=st.none() | threads,
        ns=st.none() | namespaces,
        checkpoint_id=st.none() | ids,
        before=st.none() | ids,
        limit=st.none() | st.integers(0, 4),
        filter=st.dictionaries(metadata_keys | st.just("step"), nested, max_size=2),
    )
    def list(
        self,
        thread: int | None,
        ns: str | None,
        checkpoint_id: str | None,
        before: str | None,
        limit: int | None,
        filter: dict[str, Any],
    ) -> None:
        until: RunnableConfig | None = {"configurable": {"checkpoint_id": before}} if before else None
        if thread is None:
            # Other tests have threads too: metadata identifies those of this example.
            self.same("list", None, filter={**filter, "example": self.example}, before=until, limit=limit)
        else:
            self.same("list", self.config(thread, ns, checkpoint_id), filter=filter or None, before=until, limit=limit)

    @rule(
        thread=threads,
        ns=st.none() | namespaces,
        checkpoint_id=st.none() | ids,
        asked=st.lists(channels | st.sampled_from(SPECIAL), max_size=4, unique=True),
    )
    def get_delta_channel_history(
        self, thread: int, ns: str | None, checkpoint_id: str | None, asked: Sequence[str]
    ) -> None:
        config = self.config(thread, ns, checkpoint_id)
        self.same("get_delta_channel_history", config=config, channels=asked)

    @rule(thread=threads)
    def delete_thread(self, thread: int) -> None:
        self.same("delete_thread", self.thread(thread))

    @invariant()
    def the_first_thread_is_the_same(self) -> None:
        self.same("list", self.config(0, None))


def run_machine(
    target: str, mode: Mode, *, examples: int = 25, reference: type[ReferenceSaver] = ReferenceSaver
) -> None:
    """Drives both savers with random calls, 30 in each example. Raises AssertionError if they differ."""
    machine = type("Machine", (SaversInStep,), {"target": target, "mode": mode, "reference_class": reference})
    # Any other exception is a fault of the test, and is raised as well.
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=30,
            deadline=None,
            database=None,
            # The example of a planted fault needn't be shrunk.
            phases=[Phase.generate, *([Phase.shrink] if reference is ReferenceSaver else [])],
            suppress_health_check=list(HealthCheck),
        ),
    )


@pytest.mark.parametrize("examples", [4, pytest.param(40, marks=pytest.mark.long)])
@pytest.mark.parametrize("mode", ["blocking", "awaiting", "mixed"])
def test_the_same_calls_give_the_same_answers(shared_server: ServerProcess, mode: Mode, examples: int) -> None:
    run_machine(shared_server.target, mode, examples=examples)


class TakesTheLatestPut(ReferenceSaver):
    """Returns the checkpoint put last as the latest, which is not always the greatest id."""

    def get_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        configurable = config["configurable"]
        stored = self.storage[configurable["thread_id"]][configurable.get("checkpoint_ns", "")]
        if not configurable.get("checkpoint_id") and stored:
            config = {"configurable": {**configurable, "checkpoint_id": list(stored)[-1]}}
        return super().get_tuple(config)


def test_a_planted_fault_is_found(shared_server: ServerProcess) -> None:
    # It is found after some ten examples, now and then after fifty. That ends the search.
    with pytest.raises(AssertionError):
        run_machine(shared_server.target, "blocking", examples=1000, reference=TakesTheLatestPut)
