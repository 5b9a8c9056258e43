"""`saver.threads`: threads of real graphs, found and read, blocking and awaiting."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any, TypedDict
from uuid import uuid4

import pytest
from langgraph.checkpoint.grpc import (
    CheckpointNotFoundError,
    GrpcSaver,
    InvalidArgumentError,
    LeaseHeldError,
    ThreadArchivedError,
    ThreadExistsError,
    ThreadNotFoundError,
    ThreadPinnedError,
    Threads,
)
from langgraph.graph import END, START, StateGraph
from langgraph.types import Command, interrupt

from tests.support.server_process import ServerProcess


class State(TypedDict, total=False):
    name: str
    answer: str


def fail(state: State) -> State:
    raise ValueError("no such animal")


def ask(state: State) -> State:
    return {"answer": interrupt({"question": f"is {state['name']} right?"})}


def graph(saver: GrpcSaver) -> Any:
    """A graph whose runs end in every way, chosen by the name that they are given."""
    builder = StateGraph(State)
    builder.add_node("check", lambda state: {"name": state["name"].upper()})
    builder.add_node("ask", ask)
    builder.add_node("fail", fail)
    builder.add_edge(START, "check")
    builder.add_conditional_edges("check", lambda state: {"ASK": "ask", "FAIL": "fail"}.get(state["name"], END))
    return builder.compile(checkpointer=saver)


@pytest.fixture(scope="module")
def saver(shared_server: ServerProcess) -> Iterator[GrpcSaver]:
    with GrpcSaver.from_conn_string(shared_server.target) as opened:
        yield opened


class Board:
    """Threads of three users, under a mark that is unique to the test."""

    def __init__(self, saver: GrpcSaver) -> None:
        self.saver = saver
        self.mark = uuid4().hex
        self.prefix = f"{self.mark}:"
        self.graph = graph(saver)

    def run(self, thread: str, name: Any, **metadata: Any) -> None:
        config = {"configurable": {"thread_id": self.id(thread)}, "metadata": {"board": self.mark, **metadata}}
        with suppress(ValueError):
            self.graph.invoke(name if isinstance(name, Command) else {"name": name}, config)

    def id(self, thread: str) -> str:
        return f"{self.prefix}{thread}"

    def names(self, **wanted: Any) -> list[str]:
        """The threads that a search finds, blocking."""
        return [found.thread_id.removeprefix(self.prefix) for found in self.saver.threads.search(**wanted)]


@pytest.fixture(scope="class")
def board(saver: GrpcSaver) -> Board:
    """The threads that the tests of a class share. Tests that search for all of them don't change them."""
    made = Board(saver)
    made.run("done", "cat", user="ann")
    made.run("asks", "ask", user="ann")
    made.run("failed", "fail", user="bob")
    return made


class TestSearch:
    def test_finds_by_how_a_run_ended(self, board: Board) -> None:
        assert board.names(prefix=board.prefix) == ["failed", "asks", "done"]
        assert board.names(prefix=board.prefix, status="interrupted") == ["asks"]
        assert board.names(prefix=board.prefix, status=["failed", "idle"]) == ["failed", "done"]
        assert board.names(prefix=board.prefix, status="running") == []

    def test_finds_by_metadata_and_time(self, board: Board) -> None:
        assert board.names(metadata={"board": board.mark, "user": "ann"}) == ["asks", "done"]
        assert board.names(metadata={"board": board.mark}, limit=1) == ["failed"]
        assert board.names(metadata={"board": "none"}) == []
        hour = timedelta(hours=1)
        assert board.names(prefix=board.prefix, active_from=datetime.now() - hour, limit=2) == ["failed", "asks"]
        assert board.names(prefix=board.prefix, created_from=datetime.now(UTC) + hour) == []

    def test_tells_what_is_known_without_reading_values(self, board: Board) -> None:
        found = board.saver.threads.get(board.id("asks"))
        assert (found.status, found.next) == ("interrupted", ["ask"])
        (asked,) = found.interrupts
        assert asked.value[0]["$type"] == "langgraph.types.Interrupt"
        assert asked.value[0]["value"] == {"question": "is ASK right?"}
        assert found.metadata["user"] == "ann"
        assert found.checkpoints == 3
        assert found.bytes > 500
        assert found.created_at <= found.active_at
        failed = board.saver.threads.get(board.id("failed"))
        assert "no such animal" in str(failed.errors[0].value)
        assert board.saver.threads.get(board.id("done")).next == []

    def test_counts(self, board: Board) -> None:
        found = board.saver.threads.count(prefix=board.prefix)
        assert (found.count, found.at_least) == (3, False)
        assert board.saver.threads.count(metadata={"board": board.mark}, status="failed").count == 1

    async def test_awaiting_says_the_same(self, board: Board) -> None:
        threads = board.saver.threads
        assert [found async for found in threads.asearch(prefix=board.prefix)] == list(
            threads.search(prefix=board.prefix)
        )
        assert [node async for node in threads.atree(board.id("asks"))] == list(threads.tree(board.id("asks")))
        assert await threads.aget(board.id("asks")) == threads.get(board.id("asks"))
        assert await threads.acount(prefix=board.prefix) == threads.count(prefix=board.prefix)

    @pytest.mark.parametrize(
        "wanted",
        [
            {"status": "waiting"},
            {"prefix": 5},
            {"metadata": "user"},
            {"tags": ["a"]},
            {"active_from": "yesterday"},
            {"tags": {"": "x"}},
            {"prefix": "x" * 513},
        ],
        ids=str,
    )
    def test_what_can_t_be_asked_is_refused_by_name(self, wanted: dict[str, Any], board: Board) -> None:
        with pytest.raises(InvalidArgumentError, match=next(iter(wanted)).split("_")[0]):
            list(board.saver.threads.search(**wanted))

    def test_encrypted_interrupts_are_shown_as_such(self, shared_server: ServerProcess) -> None:
        from langgraph.checkpoint.grpc import Encryption

        with GrpcSaver(shared_server.target, encryption=Encryption(keys={"k": b"k" * 32}, current="k")) as sealed:
            thread_id = uuid4().hex
            graph(sealed).invoke({"name": "ask"}, {"configurable": {"thread_id": thread_id}})
            found = sealed.threads.get(thread_id)
        assert found.status == "interrupted"
        assert set(found.interrupts[0].value) == {"$serialized", "$bytes"}
        assert found.metadata["source"] == "loop"


class TestTreeAndDiff:
    def test_the_tree_has_steps_sources_and_forks(self, board: Board) -> None:
        board.run("forked", "cat")
        config = {"configurable": {"thread_id": board.id("forked")}}
        first = next(state for state in board.graph.get_state_history(config) if state.next == ("check",))
        board.graph.invoke(None, first.config)
        nodes = list(board.saver.threads.tree(board.id("forked")))
        assert [node.step for node in nodes][-1] == -1
        assert {node.source for node in nodes} >= {"input", "loop", "fork"}
        parents = [node.parent_checkpoint_id for node in nodes if node.parent_checkpoint_id]
        assert len(parents) > len(set(parents))
        asks = list(board.saver.threads.tree(board.id("asks")))
        assert [node.interrupted for node in asks] == [True, False, False]

    async def test_a_diff_tells_channels_apart(self, board: Board) -> None:
        nodes = {node.step: node.checkpoint_id for node in board.saver.threads.tree(board.id("done"))}
        found = board.saver.threads.diff(board.id("done"), nodes[0], nodes[1])
        assert found.changed["name"] == ("cat", "CAT")
        assert set(found.removed) >= {"branch:to:check"}
        assert await board.saver.threads.adiff(board.id("done"), nodes[0], nodes[1]) == found
        with pytest.raises(CheckpointNotFoundError, match="has no checkpoint 'none'"):
            board.saver.threads.diff(board.id("done"), "none", nodes[1])


class TestKeeping:
    @pytest.fixture
    def thread_id(self, board: Board) -> str:
        name = uuid4().hex
        board.run(name, "ask")
        return board.id(name)

    def test_an_archived_thread_is_read_only_until_it_is_brought_back(self, thread_id: str, board: Board) -> None:
        threads = board.saver.threads
        assert threads.archive(thread_id)
        assert not threads.archive(thread_id)
        assert list(threads.search(prefix=thread_id)) == []
        assert [found.thread_id for found in threads.search(prefix=thread_id, archived=True)] == [thread_id]
        name = thread_id.removeprefix(board.prefix)
        with pytest.raises(ThreadArchivedError, match="unarchive"):
            board.run(name, Command(resume="yes"))
        with pytest.raises(ThreadArchivedError):
            board.saver.delete_thread(thread_id)
        with pytest.raises(ThreadArchivedError), board.saver.lease(thread_id):
            pass
        assert threads.unarchive(thread_id)
        board.run(name, Command(resume="yes"))
        assert threads.get(thread_id).status == "idle"

    def test_the_holder_of_a_lease_may_archive_and_nobody_else(
        self, thread_id: str, board: Board, shared_server: ServerProcess
    ) -> None:
        with GrpcSaver(shared_server.target) as other, board.saver.lease(thread_id):
            with pytest.raises(LeaseHeldError):
                other.threads.archive(thread_id)
            assert board.saver.threads.archive(thread_id)

    async def test_tags_pins_and_times_are_noted(self, thread_id: str, board: Board) -> None:
        threads = board.saver.threads
        assert threads.tag(thread_id, customer=board.mark, note="x").tags == {"customer": board.mark, "note": "x"}
        assert [found.thread_id for found in threads.search(tags={"customer": board.mark})] == [thread_id]
        assert (await threads.atag(thread_id, note=None)).tags == {"customer": board.mark}
        found = await threads.aupdate(thread_id, pinned=True, ttl_seconds=60)
        assert (found.pinned, found.ttl_seconds) == (True, 60)
        assert threads.update(thread_id, ttl_seconds=0) == await threads.aget(thread_id)
        assert threads.get(thread_id).ttl_seconds is None

    async def test_verbs_say_what_they_did(self, thread_id: str, board: Board) -> None:
        threads = board.saver.threads
        assert threads.copy(thread_id, f"{thread_id} copy").checkpoints == 3
        with pytest.raises(ThreadExistsError):
            threads.copy(thread_id, f"{thread_id} copy")
        oldest = list(threads.tree(thread_id))[-1]
        assert (await threads.afork(thread_id, oldest.checkpoint_id, f"{thread_id} fork")).checkpoints == 1
        assert await threads.aprune([thread_id]) == 2
        assert threads.prune([thread_id]) == 0
        assert threads.delete(f"{thread_id} copy") == 3
        assert await threads.adelete(f"{thread_id} copy") == 0
        for attempt in (threads.get, threads.archive, threads.unarchive):
            with pytest.raises(ThreadNotFoundError, match="there is no thread"):
                attempt(f"{thread_id} copy")


def test_every_verb_has_both_forms_with_the_same_arguments() -> None:
    verbs = {name for name, _ in inspect.getmembers(Threads, inspect.isfunction) if not name.startswith("_")}
    blocking = {name for name in verbs if f"a{name}" in verbs}
    assert verbs == blocking | {f"a{name}" for name in blocking}
    for name in blocking:
        assert inspect.signature(getattr(Threads, name)).parameters == (
            inspect.signature(getattr(Threads, f"a{name}")).parameters
        )


class TestPinned:
    def test_nothing_of_it_is_deleted(self, board: Board) -> None:
        board.run("pinned", "cat")
        thread_id = board.id("pinned")
        assert board.saver.threads.pin(thread_id).pinned
        for delete in (
            board.saver.delete_thread,
            lambda one: board.saver.prune([one]),
            lambda one: board.saver.threads.prune([one], strategy="delete"),
        ):
            with pytest.raises(ThreadPinnedError, match="unpin it first"):
                delete(thread_id)
        board.run("pinned", "dog")
        assert not board.saver.threads.unpin(thread_id).pinned
        assert board.saver.threads.delete(thread_id) > 1

    async def test_awaiting(self, board: Board) -> None:
        board.run("held", "cat")
        assert (await board.saver.threads.apin(board.id("held"))).pinned
        with pytest.raises(ThreadPinnedError):
            await board.saver.adelete_thread(board.id("held"))
        assert not (await board.saver.threads.aunpin(board.id("held"))).pinned
