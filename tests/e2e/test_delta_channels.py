"""Channels stored as deltas: snapshots, forks, exit mode; the same as with InMemorySaver, step by step."""

from __future__ import annotations

import asyncio
import uuid
from importlib.metadata import version
from typing import Annotated, Any, TypedDict

import pytest
from langchain_core.runnables import RunnableConfig
from langgraph.channels import DeltaChannel
from langgraph.checkpoint.grpc import GrpcSaver
from langgraph.checkpoint.serde.encrypted import EncryptedSerializer
from langgraph.graph import START, StateGraph
from langgraph.types import Command, Overwrite
from packaging.version import Version

from tests.support import graphs
from tests.support.comparison import FLAVOURS, Compare, Ledger, Play, Way, every_way
from tests.support.server_process import ServerProcess
from tests.support.tuned import tuned

SETTLED = Version("1.2.15")
"""The first langgraph that saves delta channels as these tests expect.

Before, exit mode stored the writes that it had loaded with a question in the order in which the tasks happened to end.
And LangGraph waited for writes before it put their checkpoint, while the saver holds writes back until that put begins:
they were sent only after the saver's timeout, a second.
"""

CHANNELS = ["log", "quiet", "count", "nowhere"]


async def note_histories(play: Play) -> None:
    """Notes the history of every channel at every checkpoint and at the latest."""
    for config in [*(saved.config for saved in await play.stored()), play.thread]:
        play.note("delta history", await delta_history(play, config))


async def delta_history(play: Play, config: RunnableConfig, channels: list[str] | None = None) -> object:
    asked = CHANNELS if channels is None else channels
    if play.way.flavour == "invoke":
        return play.saver.get_delta_channel_history(config=config, channels=asked)
    return await play.saver.aget_delta_channel_history(config=config, channels=asked)


@every_way
def test_deltas_and_snapshots_over_turns(compare: Compare, way: Way) -> None:
    async def scenario(play: Play) -> None:
        agent = play.on(graphs.delta(play.ledger).compile(checkpointer=play.saver))
        for turn in range(4):
            result = await agent.invoke({"log": [("turn", turn)], "quiet": []})
        assert len(result["log"]) == 16
        await note_histories(play)
        play.note("no channels", await delta_history(play, play.thread, []))

    compare(scenario, way)


@pytest.mark.parametrize("flavour", FLAVOURS)
async def test_a_run_waits_for_no_time(shared_server: ServerProcess, thread_id: str, flavour: str) -> None:
    """LangGraph puts a checkpoint when the writes that led to it have returned: they must not wait for later ones."""
    if Version(version("langgraph")) < SETTLED:
        pytest.skip(f"before {SETTLED} a run waits until the saver sends writes without their put")
    async with tuned(put_expected_within=3600.0)(shared_server.target) as saver:
        agent: Any = graphs.delta(Ledger()).compile(checkpointer=saver)
        config: RunnableConfig = {"configurable": {"thread_id": thread_id}}
        given = {"log": ["in"], "quiet": []}
        run = asyncio.to_thread(agent.invoke, given, config) if flavour == "invoke" else agent.ainvoke(given, config)
        result = await asyncio.wait_for(run, 60)
        assert len(result["log"]) == 4


@every_way
def test_deltas_on_a_fork(compare: Compare, way: Way) -> None:
    async def scenario(play: Play) -> None:
        agent = play.on(graphs.delta(play.ledger).compile(checkpointer=play.saver))
        for turn in range(3):
            await agent.invoke({"log": [f"turn {turn}"]})
        past = (await agent.history())[-1 if way.durability == "exit" else -4]
        fork = await agent.update(past.config, {"log": ["forked"]}, "last")
        await agent.invoke({"log": ["on the fork"]}, fork)
        await agent.invoke({"log": ["still there"]})
        play.note("the old branch", await agent.state(past.config))
        await note_histories(play)

    compare(scenario, way)


@every_way
def test_deltas_with_a_question_replays_and_overwrites(compare: Compare, way: Way) -> None:
    if way.durability == "exit" and Version(version("langgraph")) < SETTLED:
        pytest.skip(f"before {SETTLED} LangGraph leaves the order to chance, whatever the saver")

    async def scenario(play: Play) -> None:
        agent = play.on(graphs.delta(play.ledger, asks=True).compile(checkpointer=play.saver))
        await agent.invoke({"log": ["first"]})
        await agent.invoke(Command(resume="this", update={"log": ["beside the answer"]}))
        await note_histories(play)
        await agent.update(None, {"log": Overwrite(["afresh"])}, "last")
        await agent.invoke({"log": ["second"]})
        result = await agent.invoke(Command(resume="that"))
        assert result["log"][:2] == ["afresh", "second"]
        asked = [state for state in await agent.history() if state.next == ("last",)]
        await agent.invoke(None, asked[-1].config)
        await agent.invoke(Command(resume="another"))
        await note_histories(play)

    compare(scenario, way)


class ShortLog(TypedDict):
    """A log with a snapshot every third update: updates before the last one can be pruned."""

    log: Annotated[list[Any], DeltaChannel(graphs.extend, list, snapshot_frequency=3)]


@pytest.mark.parametrize("encrypted", [False, True], ids=["plain", "encrypted"])
def test_pruning_keeps_what_deltas_are_rebuilt_from(shared_server: ServerProcess, encrypted: bool) -> None:
    serde = EncryptedSerializer.from_pycryptodome_aes(key=b"sixteen bytes ok") if encrypted else None
    with GrpcSaver(shared_server.target, serde=serde) as saver:
        builder = StateGraph(ShortLog).add_node("answer", lambda state: {"log": [len(state["log"])]})
        agent: Any = builder.add_edge(START, "answer").compile(checkpointer=saver)
        config: RunnableConfig = {"configurable": {"thread_id": str(uuid.uuid4())}}
        for turn in range(4):
            agent.invoke({"log": [f"turn {turn}"]}, config)
        before, length = agent.get_state(config).values, len(list(saver.list(config)))
        saver.prune([config["configurable"]["thread_id"]])
        assert agent.get_state(config).values == before
        assert len(list(saver.list(config))) < length
        assert agent.invoke({"log": ["on"]}, config)["log"] == [*before["log"], "on", len(before["log"]) + 1]
