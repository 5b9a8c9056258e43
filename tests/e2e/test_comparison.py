"""The comparison itself: it finds a saver's faults, however small. Otherwise its success would prove nothing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import (
    BaseCheckpointSaver,
    ChannelVersions,
    Checkpoint,
    CheckpointMetadata,
    CheckpointTuple,
)
from langgraph.checkpoint.grpc import GrpcSaver
from langgraph.types import Command

from tests.e2e.reference import ReferenceSaver
from tests.support import graphs
from tests.support.comparison import WAYS, Play, Way, differences, every_way, perform
from tests.support.normal_form import Names, normal_form
from tests.support.server_process import ServerProcess


async def scenario(play: Play) -> None:
    """A question, its answer, and a fork."""
    agent = play.on(graphs.approval(play.ledger).compile(checkpointer=play.saver))
    await agent.invoke({"path": ["start"]}, {**play.thread, "metadata": {"retries": 1}})
    await agent.invoke(Command(resume="yes"))
    await agent.invoke(Command(resume="why not"))
    past = (await agent.history())[-1]
    await agent.update(past.config, {"path": ["forked"]}, "draft")
    play.note("filtered", await agent.history(filter={"source": "update"}))


class DropsWrites(ReferenceSaver):
    """Keeps no regular writes."""

    def put_writes(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str = ""
    ) -> None:
        special = [write for write in writes if write[0].startswith("__")]
        super().put_writes(config, special, task_id, task_path)


class LosesParents(ReferenceSaver):
    """Knows no checkpoint's parent."""

    def get_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        saved = super().get_tuple(config)
        return saved and saved._replace(parent_config=None)


class PointsToAnotherParent(ReferenceSaver):
    """Names the newest checkpoint as the parent: there is one, but the wrong one."""

    def put(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        latest = self.get_tuple({"configurable": {**config["configurable"], "checkpoint_id": None}})
        if latest and config["configurable"].get("checkpoint_id"):
            config = {**config, "configurable": {**config["configurable"], **latest.config["configurable"]}}
        return super().put(config, checkpoint, metadata, new_versions)


class GivesConfigsWithMore(ReferenceSaver):
    """Leaves a key of its own in the configs."""

    def get_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        saved = super().get_tuple(config)
        if saved is None:
            return None
        return saved._replace(config={"configurable": {**saved.config["configurable"], "version": 1}})


class ListsWithoutWrites(ReferenceSaver):
    """Leaves the pending writes out of lists."""

    def list(self, *args: Any, **options: Any) -> Iterator[CheckpointTuple]:
        return (saved._replace(pending_writes=[]) for saved in super().list(*args, **options))


class IgnoresFilters(ReferenceSaver):
    """Lists everything."""

    def list(self, *args: Any, filter: dict[str, Any] | None = None, **options: Any) -> Iterator[CheckpointTuple]:
        return super().list(*args, **options)


class ChangesANumbersType(ReferenceSaver):
    """Changes the type of a number in the metadata."""

    def put(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        asked = {**config["metadata"], "retries": True} if config.get("metadata") else {}
        return super().put({**config, "metadata": asked}, checkpoint, metadata, new_versions)


FAULTS = [
    DropsWrites,
    LosesParents,
    PointsToAnotherParent,
    GivesConfigsWithMore,
    ListsWithoutWrites,
    IgnoresFilters,
    ChangesANumbersType,
]


@pytest.mark.parametrize("way", [way for way in WAYS if way.durability != "exit"], ids=str)
@pytest.mark.parametrize("faulty", FAULTS)
def test_a_planted_fault_is_found(faulty: type[ReferenceSaver], way: Way) -> None:
    record = perform(scenario, faulty(), way, "thread")
    assert differences(record, perform(scenario, ReferenceSaver(), way, "thread"))


@every_way
def test_nothing_is_found_between_two_good_runs(way: Way) -> None:
    record = perform(scenario, ReferenceSaver(), way, "thread")
    assert not differences(record, perform(scenario, ReferenceSaver(), way, "thread"))


def test_a_fault_planted_in_the_saver_itself_is_found(shared_server: ServerProcess, thread_id: str) -> None:
    class Forgetful(GrpcSaver):
        def put_writes(
            self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str = ""
        ) -> None:
            super().put_writes(config, [write for write in writes if write[0] != "path"], task_id, task_path)

    def play(saver: BaseCheckpointSaver[str]) -> list[tuple[str, Any]]:
        return perform(scenario, saver, WAYS[0], thread_id)

    with Forgetful(shared_server.target) as saver:
        assert differences(play(saver), play(ReferenceSaver()))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ((1, 2), [1, 2]),
        (1, True),
        (1, 1.0),
        (None, ""),
        ({"a": 1}, {"a": 1, "b": None}),
        ({1}, [1]),
        # Ids are named by their order of appearance: what they refer to is compared.
        (["a" * 32, "b" * 32, "a" * 32], ["a" * 32, "b" * 32, "b" * 32]),
        (["0" * 31 + "1.5"], ["0" * 31 + "2.5"]),
    ],
)
def test_the_normal_form_keeps_what_matters(one: object, other: object) -> None:
    assert repr(normal_form(one, Names())) != repr(normal_form(other, Names()))


def test_the_normal_form_drops_what_differs_by_nature() -> None:
    one = {"id": "11111111-1111-1111-1111-111111111111", "at": "2026-01-01T00:00:00.1+00:00", "v": "0" * 31 + "1.5"}
    other = {"id": "22222222-2222-2222-2222-222222222222", "v": "0" * 31 + "1.6", "at": "2027-01-01T00:00:00+00:00"}
    assert repr(normal_form(one, Names())) == repr(normal_form(other, Names()))
