"""Send, nested graphs and graphs called within nodes: the same as with InMemorySaver, step by step."""

from __future__ import annotations

import pytest
from langgraph.types import Command, StateSnapshot

from tests.support import graphs
from tests.support.comparison import Compare, Play, Way, every_way


def nested_state(state: StateSnapshot) -> StateSnapshot:
    """Returns the state of the running nested graph."""
    found = state.tasks[0].state
    assert isinstance(found, StateSnapshot)
    return found


@every_way
def test_fan_out_with_send(compare: Compare, way: Way) -> None:
    async def scenario(play: Play) -> None:
        agent = play.on(graphs.fan_out(play.ledger).compile(checkpointer=play.saver))
        result = await agent.invoke({"items": ["a", "b", "c", "d"]})
        assert result["results"] == ["plan 4", "a1", "b1", "c2", "d3", "collected", "aa9", "collected"]
        result = await agent.invoke({"items": []})
        assert result["results"][-2:] == ["collected", "plan 0"]

    compare(scenario, way)


@every_way
def test_fan_out_with_a_question_in_one_worker(compare: Compare, way: Way) -> None:
    async def scenario(play: Play) -> None:
        agent = play.on(graphs.fan_out(play.ledger, asks=True).compile(checkpointer=play.saver))
        await agent.invoke({"items": ["b", "c", "d"]})
        assert len((await agent.state()).interrupts) == 1
        result = await agent.invoke(Command(resume="z"))
        assert result["results"] == ["plan 3", "z0", "c1", "d2", "collected"]
        assert play.ledger.counts() == {"plan": 1, "worker b": 2, "worker c": 1, "worker d": 1, "collect": 1}

    compare(scenario, way)


@every_way
@pytest.mark.parametrize("stateful", [False, True], ids=["for each call", "with memory"])
def test_graphs_two_levels_deep(compare: Compare, way: Way, stateful: bool) -> None:
    async def scenario(play: Play) -> None:
        agent = play.on(graphs.nested(play.ledger, stateful=stateful).compile(checkpointer=play.saver))
        for turn in range(2):
            asked = await agent.invoke({"path": [f"turn {turn}"]})
            assert asked["__interrupt__"][0].value["depth"] == 2
            middle = nested_state(await agent.state())
            innermost = nested_state(middle)
            play.note("innermost", innermost)
            play.note("innermost by its own config", await agent.state(innermost.config))
            play.note("innermost history", history := await agent.history(innermost.config))
            play.note("middle history", await agent.history(middle.config))
            assert history
            await agent.invoke(Command(resume=f"answer {turn}"))
        counts = play.ledger.counts()
        assert counts == {"outer_work": 2, "middle_work": 2, "inner_work": 2, "inner_ask": 4, "outer_end": 2}

    compare(scenario, way)


@every_way
@pytest.mark.parametrize("stateful", [False, True], ids=["for each call", "with memory"])
def test_time_travel_within_nested_graphs(compare: Compare, way: Way, stateful: bool) -> None:
    async def scenario(play: Play) -> None:
        agent = play.on(graphs.nested(play.ledger, stateful=stateful).compile(checkpointer=play.saver))
        await agent.invoke({"path": ["start"]})
        await agent.invoke(Command(resume="first answer"))
        for past in [state for state in await agent.history() if state.next == ("middle",)]:
            # The nested graphs go back with the graph around them, and ask again.
            asked = await agent.invoke(None, past.config)
            assert "__interrupt__" in asked
        await agent.invoke(Command(resume="second answer"))

    compare(scenario, way)


@every_way
def test_a_nested_graph_is_edited(compare: Compare, way: Way) -> None:
    async def scenario(play: Play) -> None:
        agent = play.on(graphs.nested(play.ledger).compile(checkpointer=play.saver))
        await agent.invoke({"path": ["start"]})
        innermost = nested_state(nested_state(await agent.state()))
        await agent.update(innermost.config, {"path": ["by hand"]}, "inner_work")
        await agent.invoke(None)
        result = await agent.invoke(Command(resume="answer"))
        assert "by hand" in result["path"]

    compare(scenario, way)


@every_way
def test_a_graph_called_within_a_node(compare: Compare, way: Way) -> None:
    """The node calls it blocking even in the event loop: the saver's blocking calls mustn't wait for that loop."""

    async def scenario(play: Play) -> None:
        agent = play.on(graphs.called_within(play.ledger).compile(checkpointer=play.saver))
        await agent.invoke({"path": ["start"]})
        await agent.invoke(Command(resume="yes"))
        result = await agent.invoke(Command(resume="because"))
        assert result["answers"] == ["yes", "because"]
        assert play.ledger.counts() == {"caller": 3, "draft": 1, "review": 3, "send": 1}

    compare(scenario, way)
