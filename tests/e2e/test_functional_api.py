"""@entrypoint and @task: the same as with InMemorySaver, step by step."""

from __future__ import annotations

from langgraph.types import Command

from tests.support import graphs
from tests.support.comparison import Compare, Play, Way, every_way


@every_way
def test_tasks_previous_and_final(compare: Compare, way: Way) -> None:
    async def scenario(play: Play) -> None:
        agent = play.on(graphs.workflow(play.ledger, play.saver))
        asked = await agent.invoke(["one", "three"])
        assert asked["__interrupt__"][0].value == {"lengths": [3, 5], "previous": None}
        assert await agent.invoke(Command(resume=10)) == "total 80"
        asked = await agent.invoke(["seven"])
        assert asked["__interrupt__"][0].value["previous"]["total"] == 80
        assert await agent.invoke(Command(resume=1)) == "total 85"
        # Tasks that had finished when the question was asked didn't run again for the answer.
        assert play.ledger.counts() == {"flow": 4, "measure one": 1, "measure three": 1, "measure seven": 1}

    compare(scenario, way)


@every_way
def test_a_task_that_fails_once(compare: Compare, way: Way) -> None:
    async def scenario(play: Play) -> None:
        agent = play.on(graphs.workflow(play.ledger, play.saver, fails_once=True))
        await agent.invoke(["alpha", "beta"], fails=ValueError)
        await agent.invoke(None)
        assert await agent.invoke(Command(resume=1)) == "total 9"
        assert play.ledger.counts() == {"flow": 3, "measure alpha": 1, "measure beta": 2}

    compare(scenario, way)
