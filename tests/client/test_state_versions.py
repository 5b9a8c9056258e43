"""Versions of states: old ones are migrated when they are loaded, or in place."""

from __future__ import annotations

import operator
import pickle
import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import Annotated, Any, Literal, TypedDict

import pytest
from langgraph.checkpoint.grpc import (
    Encryption,
    GrpcSaver,
    InvalidArgumentError,
    InvalidStateError,
    StateHooks,
    StateMigrationError,
    StatePlace,
    StateVersionError,
)
from langgraph.checkpoint.grpc._convert.state import StateFilter
from langgraph.checkpoint.grpc.migrate import main
from langgraph.graph import START, StateGraph
from langgraph.types import Command, interrupt

from tests.support.server_process import ServerProcess

Durability = Literal["sync", "async", "exit"]
DURABILITIES: tuple[Durability, ...] = ("sync", "async", "exit")


def config_of(thread_id: str) -> Any:
    return {"configurable": {"thread_id": thread_id}}


async def run(graph: Any, given: Any, thread_id: str, how: str, durability: Durability) -> Any:
    if how == "invoke":
        return graph.invoke(given, config_of(thread_id), durability=durability)
    return await graph.ainvoke(given, config_of(thread_id), durability=durability)


class Old(TypedDict, total=False):
    lang: str
    log: Annotated[list[str], operator.add]
    answers: Annotated[list[str], operator.add]


class New(TypedDict, total=False):
    language: str
    log: Annotated[list[str], operator.add]
    answers: Annotated[list[str], operator.add]
    priority: int


def migrate(state: dict[str, Any], place: StatePlace) -> dict[str, Any]:
    if place.version < 1:
        state["language"] = state.pop("lang", "en").upper()
    if place.version < 2:
        state["priority"] = 5
    return state


HOOKS = StateHooks(version=2, migrate=migrate)


def graph_of(state: Any, saver: GrpcSaver, *, asks: bool = False) -> Any:
    def note(given: Any) -> dict[str, Any]:
        return {"log": [f"{given.get('language') or given.get('lang')}-{given.get('priority')}"]}

    def end(given: Any) -> dict[str, Any]:
        return {"answers": [interrupt("go on?")]} if asks else {"answers": ["done"]}

    builder: Any = StateGraph(state)
    builder.add_node("note", note)
    builder.add_node("end", end)
    builder.add_edge(START, "note")
    builder.add_edge("note", "end")
    return builder.compile(checkpointer=saver)


@pytest.mark.parametrize("durability", DURABILITIES)
@pytest.mark.parametrize("how", ["invoke", "ainvoke"])
async def test_an_old_thread_goes_on_with_todays_state(
    saver_with: Callable[..., GrpcSaver], thread_id: str, how: str, durability: Durability
) -> None:
    await run(graph_of(Old, saver_with()), {"lang": "de"}, thread_id, how, durability)
    saver = saver_with(hooks=HOOKS)
    graph = graph_of(New, saver)
    assert graph.get_state(config_of(thread_id)).values == {
        "language": "DE",
        "priority": 5,
        "log": ["de-None"],
        "answers": ["done"],
    }
    await run(graph, {"answers": ["again"]}, thread_id, how, durability)

    # The channels that the run didn't touch are stored as well, for readers without hooks.
    plain = saver_with().get_tuple(config_of(thread_id))
    assert plain is not None
    assert plain.metadata["state_version"] == 2  # type: ignore[typeddict-item]
    values = {name: value for name, value in plain.checkpoint["channel_values"].items() if name in New.__annotations__}
    assert values == {
        "language": "DE",
        "priority": 5,
        "log": ["de-None", "DE-5"],
        "answers": ["done", "again", "done"],
    }
    assert "lang" not in plain.checkpoint["channel_versions"]
    assert all("lang" not in old.checkpoint["channel_values"] for old in saver.list(config_of(thread_id)))
    found = [old async for old in saver.alist(config_of(thread_id))]
    assert all("lang" not in old.checkpoint["channel_values"] for old in found)


def test_an_interrupted_thread_goes_on_after_a_migration(saver_with: Callable[..., GrpcSaver], thread_id: str) -> None:
    graph_of(Old, saver_with(), asks=True).invoke({"lang": "fr"}, config_of(thread_id))
    graph = graph_of(New, saver_with(hooks=HOOKS), asks=True)
    assert graph.get_state(config_of(thread_id)).next == ("end",)
    end = graph.invoke(Command(resume="yes"), config_of(thread_id))

    assert end == {"language": "FR", "priority": 5, "log": ["fr-None"], "answers": ["yes"]}
    assert graph_of(New, saver_with()).get_state(config_of(thread_id)).values == end


def test_forks_of_two_old_checkpoints_have_states_of_their_own(
    saver_with: Callable[..., GrpcSaver], thread_id: str
) -> None:
    old = graph_of(Old, saver_with())
    old.invoke({"lang": "a"}, config_of(thread_id))
    old.update_state(config_of(thread_id), {"log": ["x"]})
    before = [snapshot.config for snapshot in old.get_state_history(config_of(thread_id))][:3]

    def count(state: dict[str, Any], place: StatePlace) -> dict[str, Any]:
        # Channels that none of these checkpoints has changed, yet with a different value for each.
        return {**state, "priority": len(state.get("log", [])), "language": state["lang"] * len(state.get("log", []))}

    saver = saver_with(hooks=StateHooks(version=1, migrate=count))
    graph = graph_of(New, saver)
    forks = [graph.update_state(config, {"answers": ["fork"]}) for config in before]
    states = [graph_of(New, saver_with()).get_state(fork).values for fork in forks]

    assert [(state["priority"], state["language"]) for state in states] == [(2, "aa"), (1, "a"), (1, "a")]


def test_a_second_migration_builds_on_the_first(saver_with: Callable[..., GrpcSaver], thread_id: str) -> None:
    first = StateHooks(version=1, migrate=lambda state, place: {"language": state["lang"], "log": state["log"]})
    graph_of(Old, saver_with()).invoke({"lang": "it"}, config_of(thread_id))
    graph_of(New, saver_with(hooks=first)).update_state(config_of(thread_id), {"log": ["one"]})
    graph = graph_of(New, saver_with(hooks=HOOKS))
    graph.update_state(config_of(thread_id), {"log": ["two"]})

    expected = {"language": "it", "priority": 5, "log": ["it-None", "one", "two"], "answers": []}
    assert graph_of(New, saver_with()).get_state(config_of(thread_id)).values == expected


def test_a_migrated_value_is_sent_once(saver_with: Callable[..., GrpcSaver], thread_id: str) -> None:
    graph_of(Old, saver_with()).invoke({"lang": "de"}, config_of(thread_id))
    saver = saver_with(hooks=HOOKS)
    graph = graph_of(New, saver)
    for _ in range(2):
        graph.update_state(config_of(thread_id), {"log": ["more"]})
    versions = [saved.checkpoint["channel_versions"] for saved in saver_with().list(config_of(thread_id), limit=2)]
    assert versions[0]["priority"] == versions[1]["priority"]

    state = StateFilter(HOOKS)
    saved = saver.get_tuple(config_of(thread_id))
    assert saved is not None
    put: Any = (config_of(thread_id), saved.checkpoint, saved.metadata, {})
    assert "priority" in state.outgoing(*put)[2]  # the put's parent isn't known
    state.loaded(saved)
    put = (saved.config, *put[1:])
    assert state.outgoing(*put)[2] == {}


def test_states_of_other_versions_types_are_migrated_whole(
    saver_with: Callable[..., GrpcSaver], thread_id: str
) -> None:
    versions: Any = {"lang": 3, "log": 2, "__start__": 1, "branch:to:end": 3}
    checkpoint: Any = {
        "v": 4,
        "id": "1ef4f797-8335-6428-8001-8a1503f9b875",
        "ts": "2026-01-01T00:00:00+00:00",
        "channel_values": {"lang": "nl", "log": ["a"], "branch:to:end": None},
        "channel_versions": versions,
        "versions_seen": {"__input__": {}, "__start__": {"__start__": 1}, "note": {"branch:to:note": 2}},
        "updated_channels": None,
    }
    saver_with().put(config_of(thread_id), checkpoint, {"source": "loop", "step": 1}, versions)
    graph = graph_of(New, saver_with(hooks=HOOKS))
    assert graph.get_state(config_of(thread_id)).next == ("end",)
    end = graph.invoke(None, config_of(thread_id))

    assert end == {"language": "NL", "priority": 5, "log": ["a"], "answers": ["done"]}
    assert graph_of(New, saver_with()).get_state(config_of(thread_id)).values == end


def test_subgraphs_are_migrated_by_their_path(saver_with: Callable[..., GrpcSaver], thread_id: str) -> None:
    def build(saver: GrpcSaver) -> Any:
        inner: Any = StateGraph(New)
        inner.add_node("ask", lambda state: {"log": [interrupt("?") + str(state.get("language"))]})
        inner.add_edge(START, "ask")
        outer: Any = StateGraph(New)
        outer.add_node("child", inner.compile())
        outer.add_edge(START, "child")
        return outer.compile(checkpointer=saver)

    paths: list[tuple[str, ...]] = []

    def by_path(state: dict[str, Any], place: StatePlace) -> dict[str, Any]:
        paths.append(place.path)
        return {**state, "language": "inner"} if place.path == ("child",) else state

    build(saver_with()).invoke({"priority": 1}, config_of(thread_id))
    graph = build(saver_with(hooks=StateHooks(version=1, migrate=by_path)))
    assert graph.invoke(Command(resume="yes"), config_of(thread_id))["log"] == ["yesinner"]
    assert set(paths) == {(), ("child",)}


def test_newer_states_and_failing_migrations_are_told(saver_with: Callable[..., GrpcSaver], thread_id: str) -> None:
    graph_of(New, saver_with(hooks=HOOKS)).invoke({"language": "x"}, config_of(thread_id))
    with pytest.raises(StateVersionError, match=r"version 2.*up to 1") as newer:
        saver_with(hooks=StateHooks(version=1)).get_tuple(config_of(thread_id))
    assert (newer.value.thread_id, newer.value.version, newer.value.known) == (thread_id, 2, 1)
    assert str(pickle.loads(pickle.dumps(newer.value))) == str(newer.value)

    wrongs: list[Any] = [
        lambda state, place: state["missing"],
        lambda state, place: {"__start__": 1},
        lambda *given: None,
    ]
    for wrong in wrongs:
        with pytest.raises(StateMigrationError, match="of version 2") as failed:
            saver_with(hooks=StateHooks(version=3, migrate=wrong)).get_tuple(config_of(thread_id))
        assert failed.value.__cause__ is not None
        assert str(pickle.loads(pickle.dumps(failed.value))) == str(failed.value)


# Rewriting threads.


@pytest.fixture
def prefix(thread_id: str, saver_with: Callable[..., GrpcSaver]) -> str:
    """The prefix of the ids of three old threads: one has ended, one waits, one has a fork."""
    prefix = f"{thread_id}-"
    old = saver_with()
    graph_of(Old, old).invoke({"lang": "a"}, config_of(f"{prefix}ended"))
    graph_of(Old, old, asks=True).invoke({"lang": "b"}, config_of(f"{prefix}waits"))
    forked = graph_of(Old, old)
    forked.invoke({"lang": "c"}, config_of(f"{prefix}forked"))
    history = list(forked.get_state_history(config_of(f"{prefix}forked")))
    forked.update_state(history[1].config, {"log": ["fork"]})
    return prefix


def shape(saver: GrpcSaver, thread_id: str) -> list[Any]:
    return [
        (saved.config, saved.parent_config, [write[1:] for write in saved.pending_writes or ()])
        for saved in saver.list(config_of(thread_id))
    ]


@pytest.mark.parametrize("how", ["sync", "async"])
async def test_threads_are_rewritten_in_place(saver_with: Callable[..., GrpcSaver], prefix: str, how: str) -> None:
    saver, plain = saver_with(hooks=HOOKS), saver_with()
    names = [f"{prefix}{name}" for name in ("ended", "waits", "forked")]
    before = {name: shape(plain, name) for name in names}

    async def migrated(**options: Any) -> dict[str, tuple[str, int]]:
        if how == "sync":
            found = list(saver.threads.migrate(prefix=prefix, **options))
        else:
            found = [each async for each in saver.threads.amigrate(prefix=prefix, **options)]
        return {each.thread_id: (each.outcome, each.checkpoints) for each in found}

    expected = {name: len(before[name]) for name in names}
    assert await migrated() == {name: ("pending", count) for name, count in expected.items()}
    assert all("lang" in plain.get_tuple(config_of(name)).checkpoint["channel_values"] for name in names)  # type: ignore[union-attr]
    assert await migrated(dry_run=False) == {name: ("migrated", count) for name, count in expected.items()}
    assert await migrated() == dict.fromkeys(names, ("current", 0))

    assert {name: shape(plain, name) for name in names} == before
    for name in names:
        for saved in plain.list(config_of(name)):
            assert saved.metadata["state_version"] == 2  # type: ignore[typeddict-item]
            assert "lang" not in saved.checkpoint["channel_values"]
    end = graph_of(New, saver, asks=True).invoke(Command(resume="yes"), config_of(f"{prefix}waits"))
    assert end == {"language": "B", "priority": 5, "log": ["b-None"], "answers": ["yes"]}


def test_encrypted_threads_are_rewritten(saver_with: Callable[..., GrpcSaver], thread_id: str) -> None:
    encryption = Encryption(keys={"k": bytes(32)}, current="k")
    graph_of(Old, saver_with(encryption=encryption)).invoke({"lang": "e"}, config_of(thread_id))
    saver = saver_with(encryption=encryption, hooks=HOOKS)
    (outcome,) = saver.threads.migrate(thread_ids=[thread_id], dry_run=False)
    assert outcome.outcome == "migrated"
    state = graph_of(New, saver_with(encryption=encryption)).get_state(config_of(thread_id)).values
    assert (state["language"], state["priority"]) == ("E", 5)


def test_threads_that_cannot_be_rewritten_are_told(saver_with: Callable[..., GrpcSaver], prefix: str) -> None:
    def fails_for_b(state: dict[str, Any], place: StatePlace) -> dict[str, Any]:
        if state.get("lang") == "b":
            raise ValueError("no b")
        return state

    def refuse_a(channel: str, value: Any) -> None:
        if value == "a":
            raise ValueError("no a")

    saver = saver_with(hooks=StateHooks(version=1, migrate=fails_for_b, validate=refuse_a))
    for dry_run, forked in ((True, "pending"), (False, "busy")):
        with saver_with().lease(f"{prefix}forked"):
            found = {
                each.thread_id.removeprefix(prefix): each
                for each in saver.threads.migrate(prefix=prefix, dry_run=dry_run)
            }
        assert {name: each.outcome for name, each in found.items()} == {
            "ended": "failed",
            "waits": "failed",
            "forked": forked,
        }
        assert isinstance(found["waits"].error, StateMigrationError)
        assert isinstance(found["ended"].error, InvalidStateError)
    saver.threads.archive(f"{prefix}forked")
    (archived,) = saver.threads.migrate(thread_ids=[f"{prefix}forked"], dry_run=False)
    assert archived.outcome == "archived"
    with pytest.raises(InvalidArgumentError, match="without a hook"):
        saver_with().threads.migrate()


def test_the_command_tells_and_rewrites(
    shared_server: ServerProcess, prefix: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CHECKPOINTD_TARGET", shared_server.target)
    module = SimpleNamespace(hooks=HOOKS, build=lambda: GrpcSaver(hooks=HOOKS), broken=3)
    monkeypatch.setitem(sys.modules, "states_of_mine", module)
    assert main(["states_of_mine:hooks", "--prefix", prefix]) == 0
    told = capsys.readouterr().out
    assert f"{prefix}waits" in told
    assert "threads: 3 pending" in told
    assert "nothing was changed" in told
    assert main(["states_of_mine:build", "--thread", f"{prefix}waits", "--apply"]) == 0
    assert "threads: 1 migrated" in capsys.readouterr().out
    assert main(["states_of_mine:hooks", "--prefix", prefix]) == 0
    assert "threads: 1 current, 2 pending" in capsys.readouterr().out
    for wrong in ("states_of_mine:broken", "states_of_mine", "states_of_mine:absent", "no_such_module_here:x"):
        assert main([wrong]) == 2
        assert "error: " in capsys.readouterr().err
