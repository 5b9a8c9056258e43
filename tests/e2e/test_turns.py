"""Chat over turns, reading history, going back, forking and editing: the same as with InMemorySaver, step by step."""

from __future__ import annotations

from typing import Any

from langchain_core.messages import AIMessage, HumanMessage, RemoveMessage
from langchain_core.runnables import RunnableConfig
from langgraph.types import StateUpdate

from tests.support import graphs
from tests.support.comparison import Compare, Play, Way, every_way


def said(text: str) -> dict[str, Any]:
    """A user's message. It has an id, since LangGraph would add one while the message is being saved: a race."""
    return {"messages": [HumanMessage(text, id=f"said {text}")]}


@every_way
def test_chat_over_turns(compare: Compare, way: Way) -> None:
    async def scenario(play: Play) -> None:
        agent = play.on(graphs.chat(play.ledger).compile(checkpointer=play.saver))
        for turn in ("hello", "and again", "bye \u00e9\U0001f600"):
            result = await agent.invoke(said(turn))
        assert [message.text for message in result["messages"]][1::2] == [
            "You said: hello",
            "You said: and again",
            "You said: bye \u00e9\U0001f600",
        ]

    compare(scenario, way)


@every_way
def test_chat_with_a_graph_built_anew_for_each_turn(compare: Compare, way: Way) -> None:
    async def scenario(play: Play) -> None:
        for turn in ("hello", "again"):
            agent = play.on(graphs.chat(play.ledger).compile(checkpointer=play.saver))
            result = await agent.invoke(said(turn))
        assert result["topic"] == "hello"
        assert result["turns"] == 2

    compare(scenario, way)


@every_way
def test_history_with_filter_before_and_limit(compare: Compare, way: Way) -> None:
    async def scenario(play: Play) -> None:
        agent = play.on(graphs.chat(play.ledger).compile(checkpointer=play.saver))
        for turn in ("one", "two", "three"):
            await agent.invoke(said(turn))
        everything = await agent.history()
        await agent.update(None, {"topic": "edited"}, "answer")

        play.note("limit", await agent.history(limit=2))
        play.note("limit 0", await agent.history(limit=0))
        play.note("by source", updates := await agent.history(filter={"source": "update"}))
        play.note("by source and step", await agent.history(filter={"source": "loop", "step": 1}))
        play.note("by what is nowhere", nothing := await agent.history(filter={"nowhere": 1}))
        play.note("before", before := await agent.history(before=everything[1].config))
        play.note("before, with a limit", await agent.history(before=everything[0].config, limit=1))
        play.note("one by its id", one := await agent.history(everything[1].config))
        assert len(updates) == 1
        assert nothing == []
        assert len(before) == len(everything) - 2
        assert len(one) == 1

    compare(scenario, way)


@every_way
def test_replay_from_a_past_checkpoint(compare: Compare, way: Way) -> None:
    async def scenario(play: Play) -> None:
        agent = play.on(graphs.line(play.ledger).compile(checkpointer=play.saver, interrupt_after=["b"]))
        await agent.invoke({"path": ["start"]})
        await agent.invoke(None)
        past = next(state for state in await agent.history() if state.next == ("c",))
        result = await agent.invoke(None, past.config)
        assert result["path"] == ["start", "a1", "b2", "c3", "d4"]
        assert play.ledger.counts() == {"a": 1, "b": 1, "c": 2, "d": 2}
        # The thread continues from the replay, which is the latest now.
        await agent.invoke({"path": ["more"]})

    compare(scenario, way)


@every_way
def test_fork_by_updating_an_old_checkpoint(compare: Compare, way: Way) -> None:
    async def scenario(play: Play) -> None:
        agent = play.on(graphs.line(play.ledger).compile(checkpointer=play.saver, interrupt_after=["b"]))
        await agent.invoke({"path": ["start"]})
        await agent.invoke(None)
        past = next(state for state in await agent.history() if state.next == ("c",))
        fork = await agent.update(past.config, {"path": ["forked"]})
        result = await agent.invoke(None, fork)
        assert result["path"] == ["start", "a1", "b2", "forked", "c4", "d5"]
        play.note("the old branch's state", await agent.state(past.config))
        # And a second fork from the same place, which mustn't see the first one's values.
        other = await agent.update(past.config, {"path": ["other"]})
        result = await agent.invoke(None, other)
        assert result["path"] == ["start", "a1", "b2", "other", "c4", "d5"]

    compare(scenario, way)


@every_way
def test_update_state(compare: Compare, way: Way) -> None:
    async def scenario(play: Play) -> None:
        agent = play.on(graphs.chat(play.ledger).compile(checkpointer=play.saver))
        await agent.update(None, {"messages": [HumanMessage("made up", id="m1")], "topic": "none"}, "listen")
        assert (await agent.state()).next == ("answer",)
        await agent.invoke(None)
        await agent.update(None, {"messages": [AIMessage("edited", id="m1")]})
        await agent.update(None, {"messages": [RemoveMessage(id="m1")], "scratch": None})
        result = await agent.invoke(said("on we go"))
        assert [message.text for message in result["messages"]] == [
            "You said: made up",
            "on we go",
            "You said: on we go",
        ]
        # None as values: the checkpoint is copied.
        await agent.update(None, None, "__copy__")

    compare(scenario, way)


@every_way
def test_update_state_in_bulk(compare: Compare, way: Way) -> None:
    async def scenario(play: Play) -> None:
        agent = play.on(graphs.line(play.ledger).compile(checkpointer=play.saver))
        await agent.update_in_bulk(
            [
                [StateUpdate({"path": ["start"]}, "__input__")],
                [StateUpdate({"path": ["by hand"]}, "a")],
                [StateUpdate({"path": ["b by hand"]}, "b"), StateUpdate({"path": ["c by hand"]}, "c")],
            ]
        )
        result = await agent.invoke(None)
        assert result["path"] == ["by hand", "b by hand", "c by hand", "c3", "d3", "d5"]

    compare(scenario, way)


@every_way
def test_streaming(compare: Compare, way: Way) -> None:
    async def scenario(play: Play) -> None:
        agent = play.on(graphs.line(play.ledger).compile(checkpointer=play.saver, interrupt_before=["d"]))
        modes = ["values", "updates", "checkpoints", "tasks"]
        chunks = await agent.stream({"path": ["start"]}, stream_mode=modes)
        assert {mode for mode, _ in chunks} == set(modes)
        await agent.stream(None, stream_mode="debug")
        await agent.stream({"path": ["again"]}, stream_mode="values", interrupt_before=[])

    compare(scenario, way)


@every_way
def test_a_config_with_more_in_it_than_the_thread(compare: Compare, way: Way) -> None:
    """What the config adds goes into the metadata, and can be searched; nothing of it comes back in a config."""

    async def scenario(play: Play) -> None:
        agent = play.on(graphs.line(play.ledger).compile(checkpointer=play.saver))
        config: RunnableConfig = {
            "configurable": {"thread_id": play.thread_id, "user": "ada", "depth": 3, "skipped": ["not", "plain"]},
            "metadata": {"tenant": "blue", "ratio": 0.5, "on": True},
            "tags": ["one"],
            "run_name": "named",
        }
        await agent.invoke({"path": ["start"]}, config)
        play.note("by user", found := await agent.history(filter={"user": "ada", "on": True}))
        play.note("by another user", nothing := await agent.history(filter={"user": "bob"}))
        assert found
        assert nothing == []
        assert set(found[0].config["configurable"]) == {"thread_id", "checkpoint_ns", "checkpoint_id"}

    compare(scenario, way)
