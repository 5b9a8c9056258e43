"""Questions to a human, several at once, and nodes that fail: the same as with InMemorySaver, step by step."""

from __future__ import annotations

import threading

from langgraph.types import Command

from tests.support import graphs
from tests.support.comparison import Compare, Play, Way, every_way


@every_way
def test_interrupt_and_resume(compare: Compare, way: Way) -> None:
    async def scenario(play: Play) -> None:
        agent = play.on(graphs.approval(play.ledger).compile(checkpointer=play.saver))
        asked = await agent.invoke({"path": ["start"]})
        assert asked["__interrupt__"][0].value["question"] == "send it?"
        asked = await agent.invoke(Command(resume="yes"))
        assert asked["__interrupt__"][0].value == "why yes?"
        result = await agent.invoke(Command(resume={"because": ("of", "tests")}))
        assert result["path"] == ["start", "draft", "send"]
        assert play.ledger.counts() == {"draft": 1, "review": 3, "send": 1}

    compare(scenario, way)


@every_way
def test_resume_with_an_update_and_after_an_edit(compare: Compare, way: Way) -> None:
    async def scenario(play: Play) -> None:
        agent = play.on(graphs.approval(play.ledger).compile(checkpointer=play.saver))
        await agent.invoke({"path": ["start"]})
        await agent.invoke(Command(resume="no", update={"path": ["edited on the way"]}))
        # An edit between question and answer: the question is asked again.
        await agent.update(None, {"path": ["edited between"]}, "draft")
        await agent.invoke(None)
        await agent.invoke(Command(resume="no"))
        result = await agent.invoke(Command(resume="it is late"))
        assert result["answers"][-2:] == ["no", "it is late"]

    compare(scenario, way)


@every_way
def test_a_question_asked_again_from_a_past_checkpoint(compare: Compare, way: Way) -> None:
    async def scenario(play: Play) -> None:
        agent = play.on(graphs.approval(play.ledger).compile(checkpointer=play.saver))
        await agent.invoke({"path": ["start"]})
        await agent.invoke(Command(resume="yes"))
        await agent.invoke(Command(resume="good"))
        for past in [state for state in await agent.history() if state.next == ("review",)]:
            play.note("the past", past)
            await agent.invoke(None, past.config)
        await agent.invoke(Command(resume="no"))

    compare(scenario, way)


@every_way
def test_several_interrupts_answered_one_by_one(compare: Compare, way: Way) -> None:
    async def scenario(play: Play) -> None:
        agent = play.on(graphs.several_interrupts(play.ledger).compile(checkpointer=play.saver))
        await agent.invoke({"path": ["start"]})
        questions = {found.value: found.id for found in (await agent.state()).interrupts}
        assert set(questions) == {"left?", "middle?", "right?"}
        await agent.invoke(Command(resume={questions["right?"]: "R", questions["left?"]: "L"}))
        assert [found.value for found in (await agent.state()).interrupts] == ["middle?"]
        result = await agent.invoke(Command(resume="M"))
        assert sorted(map(tuple, result["answers"])) == [("left", "L"), ("middle", "M"), ("right", "R")]
        assert play.ledger.counts()["quiet"] == 1

    compare(scenario, way)


@every_way
def test_static_breakpoints(compare: Compare, way: Way) -> None:
    async def scenario(play: Play) -> None:
        builder = graphs.line(play.ledger)
        agent = play.on(builder.compile(checkpointer=play.saver, interrupt_before=["b"], interrupt_after=["c"]))
        await agent.invoke({"path": ["start"]})
        assert (await agent.state()).next == ("b",)
        await agent.update(None, {"path": ["by hand"]})
        await agent.invoke(None)
        assert (await agent.state()).next == ("d",)
        await agent.invoke(None)

    compare(scenario, way)


@every_way
def test_a_failed_node_is_retried_alone(compare: Compare, way: Way) -> None:
    async def scenario(play: Play) -> None:
        may_fail = threading.Event()
        agent = play.on(graphs.one_fails(play.ledger, may_fail).compile(checkpointer=play.saver))

        def let_it_fail(chunk: tuple[str, dict[str, object]]) -> None:
            # The steady node's update was streamed, so LangGraph has its writes: now the other one may fail.
            if "steady" in chunk[1]:
                may_fail.set()

        # With "custom" LangGraph streams an update as soon as it is there, not when the next node ends.
        modes = ["updates", "custom"]
        await agent.stream({"path": ["start"]}, stream_mode=modes, on_chunk=let_it_fail, fails=ConnectionError)
        state = await agent.state()
        assert {task.name: task.error is not None for task in state.tasks} == {"steady": False, "shaky": True}
        result = await agent.invoke(None)
        assert sorted(result["path"]) == ["join", "shaky", "start", "steady"]
        assert play.ledger.counts() == {"steady": 1, "shaky": 2, "join": 1}

    compare(scenario, way)
