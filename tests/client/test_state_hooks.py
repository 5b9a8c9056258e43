"""State hooks: values that are never stored, values that are refused, and the migration of old states."""

from __future__ import annotations

import operator
import pickle
from collections.abc import Callable
from typing import Annotated, Any, Literal, TypedDict

import pytest
from langgraph.checkpoint.grpc import (
    GrpcSaver,
    InvalidArgumentError,
    InvalidStateError,
    StateHooks,
)
from langgraph.graph import END, START, StateGraph
from langgraph.types import Command, Send, interrupt
from pydantic import BaseModel

Durability = Literal["sync", "async", "exit"]
DURABILITIES: tuple[Durability, ...] = ("sync", "async", "exit")
SECRET = "the secret that must not be stored"


def config_of(thread_id: str) -> Any:
    return {"configurable": {"thread_id": thread_id}}


class Work(TypedDict, total=False):
    question: str
    secret: str
    found: Annotated[list[str], operator.add]
    answer: str


def working_graph(saver: GrpcSaver, *, fails: bool = False) -> Any:
    """A graph that sends its secret to tasks, has two nodes side by side, and uses what isn't stored until its end."""

    def prepare(state: Work) -> dict[str, Any]:
        return {"secret": state["secret"] + "!"}

    def spread(state: Work) -> list[Send]:
        return [Send("look", {"secret": state["secret"], "where": where}) for where in ("here", "there")]

    def look(state: Any) -> dict[str, Any]:
        assert state["secret"].endswith("!")
        return {"found": [state["where"]], "secret": state["secret"]} if state["where"] == "here" else {}

    def answer(state: Work) -> dict[str, Any]:
        if fails:
            raise RuntimeError("on purpose")
        return {"answer": f"{len(state['secret'])} {state['found']}"}

    builder: Any = StateGraph(Work)
    builder.add_node("prepare", prepare)
    builder.add_node("look", look)
    builder.add_node("answer", answer)
    builder.add_edge(START, "prepare")
    builder.add_conditional_edges("prepare", spread, ["look"])
    builder.add_edge("look", "answer")
    builder.add_edge("answer", END)
    return builder.compile(checkpointer=saver)


async def run(graph: Any, given: Any, thread_id: str, how: str, durability: Durability) -> Any:
    if how == "invoke":
        return graph.invoke(given, config_of(thread_id), durability=durability)
    return await graph.ainvoke(given, config_of(thread_id), durability=durability)


def everything_stored(saver: GrpcSaver, thread_id: str) -> str:
    return repr(list(saver.list(config_of(thread_id))))


@pytest.mark.parametrize("durability", DURABILITIES)
@pytest.mark.parametrize("how", ["invoke", "ainvoke"])
async def test_excluded_channels_are_stored_nowhere(
    saver_with: Callable[..., GrpcSaver], thread_id: str, how: str, durability: Durability
) -> None:
    graph = working_graph(saver_with(hooks=StateHooks(exclude={"secret"})))
    end = await run(graph, {"question": "where?", "secret": SECRET}, thread_id, how, durability)

    assert end["answer"] == f"{len(SECRET) + 1} ['here']"
    assert end["secret"] == SECRET + "!"
    plain = saver_with()
    stored = everything_stored(plain, thread_id)
    assert SECRET not in stored
    assert "where?" in stored
    found = working_graph(plain).get_state(config_of(thread_id)).values
    assert "secret" not in found
    assert found["answer"] == end["answer"]


@pytest.mark.parametrize("durability", DURABILITIES)
def test_a_run_that_fails_leaves_nothing_excluded(
    saver_with: Callable[..., GrpcSaver], thread_id: str, durability: Durability
) -> None:
    graph = working_graph(saver_with(hooks=StateHooks(exclude={"secret"})), fails=True)
    with pytest.raises(RuntimeError, match="on purpose"):
        graph.invoke({"question": "where?", "secret": SECRET}, config_of(thread_id), durability=durability)

    assert SECRET not in everything_stored(saver_with(), thread_id)


def test_a_task_that_wrote_only_what_is_excluded_is_not_run_again(
    saver_with: Callable[..., GrpcSaver], thread_id: str
) -> None:
    ran: list[str] = []

    def quiet(state: Work) -> dict[str, Any]:
        ran.append("quiet")
        return {"secret": SECRET}

    def asks(state: Work) -> dict[str, Any]:
        return {"answer": interrupt("which?")}

    builder: Any = StateGraph(Work)
    builder.add_node("quiet", quiet)
    builder.add_node("asks", asks)
    builder.add_edge(START, "quiet")
    builder.add_edge(START, "asks")
    graph = builder.compile(checkpointer=saver_with(hooks=StateHooks(exclude={"secret"})))
    graph.invoke({"question": "?"}, config_of(thread_id))
    end = graph.invoke(Command(resume="this"), config_of(thread_id))

    assert ran == ["quiet"]
    assert end["answer"] == "this"
    assert SECRET not in everything_stored(saver_with(), thread_id)


class Ticket(BaseModel):
    title: str = ""
    secret: str = ""
    note: str | None = None


def test_an_input_that_is_a_model_is_stored_without_what_is_excluded(
    saver_with: Callable[..., GrpcSaver], thread_id: str
) -> None:
    builder: Any = StateGraph(Ticket)
    builder.add_node("done", lambda state: {"title": state.title.upper(), "note": state.secret[:3]})
    builder.add_edge(START, "done")
    graph: Any = builder.compile(checkpointer=saver_with(hooks=StateHooks(exclude={"secret"})))
    end = graph.invoke(Ticket(title="a", secret=SECRET), config_of(thread_id))

    assert end == {"title": "A", "secret": SECRET, "note": "the"}
    assert SECRET not in everything_stored(saver_with(), thread_id)


def refuse_long(channel: str, value: Any) -> None:
    if channel == "secret" and len(value) > 3:
        raise ValueError("too long")


@pytest.mark.parametrize("durability", DURABILITIES)
@pytest.mark.parametrize("how", ["invoke", "ainvoke"])
async def test_a_state_that_may_not_be_saved_is_refused_by_name(
    saver_with: Callable[..., GrpcSaver], thread_id: str, how: str, durability: Durability
) -> None:
    saver = saver_with(hooks=StateHooks(validate=refuse_long))
    with pytest.raises(InvalidStateError, match=r"channel 'secret'.*ValueError") as refused:
        await run(working_graph(saver), {"secret": SECRET}, thread_id, how, durability)

    error = refused.value
    assert (error.thread_id, error.checkpoint_ns, error.channel) == (thread_id, "", "secret")
    assert str(error.__cause__) == "too long"
    assert SECRET not in str(error)
    assert str(pickle.loads(pickle.dumps(error))) == str(error)
    assert SECRET not in everything_stored(saver_with(), thread_id)


@pytest.mark.parametrize("durability", DURABILITIES)
def test_what_a_node_writes_is_refused_and_the_node_can_run_again(
    saver_with: Callable[..., GrpcSaver], thread_id: str, durability: Durability
) -> None:
    too_much = [True]

    def node(state: Work) -> dict[str, Any]:
        return {"secret": SECRET if too_much else "ok"}

    builder: Any = StateGraph(Work)
    builder.add_node("node", node)
    builder.add_edge(START, "node")
    saver = saver_with(hooks=StateHooks(validate=refuse_long))
    graph = builder.compile(checkpointer=saver)
    with pytest.raises(InvalidStateError, match="'secret'"):
        graph.invoke({"question": "?"}, config_of(thread_id), durability=durability)
    assert SECRET not in everything_stored(saver_with(), thread_id)
    too_much.clear()
    given = {"question": "?"} if durability == "exit" else None
    assert graph.invoke(given, config_of(thread_id), durability=durability)["secret"] == "ok"


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"exclude": "secret"}, "exclude"),
        ({"exclude": {"__start__"}}, "exclude"),
        ({"exclude": {"branch:to:a"}}, "exclude"),
        ({"exclude": {3}}, "exclude"),
        ({"version": -1}, "version"),
        ({"version": True}, "version"),
        ({"version": 2**31}, "version"),
        ({"migrate": dict}, "version"),
        ({"version": 1, "migrate": {}}, "migrate"),
        ({"validate": "all"}, "validate"),
    ],
)
def test_hooks_that_cannot_be_are_refused(options: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidArgumentError) as refused:
        StateHooks(**options)
    assert refused.value.field == field
    with pytest.raises(InvalidArgumentError, match="hooks: "):
        GrpcSaver(hooks=options)  # type: ignore[arg-type]
