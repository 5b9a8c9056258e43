"""A saver that encrypts, with graphs and whole threads: rotation, migration, copies, metadata."""

from __future__ import annotations

import os
import random
from typing import Any

import asyncpg
import pytest
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import CheckpointTuple
from langgraph.checkpoint.grpc import (
    CheckpointNotFoundError,
    Encryption,
    GrpcSaver,
    InvalidArgumentError,
    LeaseHeldError,
    PlaintextError,
    TamperedValueError,
    ThreadExistsError,
    UnknownKeyError,
)
from langgraph.checkpoint.grpc._encryption.thread_copy import EncryptedThreadCopy
from langgraph.checkpoint.grpc._transport import flows
from langgraph.checkpoint.serde.encrypted import EncryptedSerializer
from langgraph.types import Command

from checkpointd.v1 import checkpoint_service_pb2 as pb
from tests.e2e.reference import ReferenceSaver
from tests.support import graphs
from tests.support.calls import Calls, checkpoint, config_of
from tests.support.comparison import FLAVOURS, Flavour, Ledger, Play, Way, differences, every_way, perform
from tests.support.local_server import LocalServer
from tests.support.server_process import ServerProcess

KEYS = {"old": os.urandom(32), "new": os.urandom(32)}


def encryption(current: str = "new", **options: Any) -> Encryption:
    return Encryption(keys=options.pop("keys", KEYS), current=current, **options)


@pytest.fixture(params=FLAVOURS)
def flavour(request: pytest.FixtureRequest) -> Flavour:
    """Both flavours."""
    given: Flavour = request.param
    return given


@every_way
def test_graphs_run_as_without_encryption(shared_server: ServerProcess, thread_id: str, way: Way) -> None:
    """Interrupts, nested graphs, deltas and old states, compared step by step with InMemorySaver."""

    async def scenario(play: Play) -> None:
        approval = play.on(graphs.approval(play.ledger).compile(checkpointer=play.saver))
        await approval.invoke({"path": ["start"]})
        await approval.invoke(Command(resume="yes"))
        await approval.invoke(Command(resume="why not"))
        past = (await approval.history())[-1]
        await approval.invoke(None, past.config)
        await approval.update(past.config, {"path": ["edited"]}, "draft")

    with GrpcSaver(shared_server.target, encryption=encryption()) as saver:
        record = perform(scenario, saver, way, thread_id)
    if found := differences(record, perform(scenario, ReferenceSaver(), way, thread_id)):
        pytest.fail(found, pytrace=False)


@every_way
def test_delta_channels_are_rebuilt_from_what_is_encrypted(
    shared_server: ServerProcess, thread_id: str, way: Way
) -> None:
    async def scenario(play: Play) -> None:
        agent = play.on(graphs.delta(play.ledger).compile(checkpointer=play.saver))
        for turn in range(3):
            await agent.invoke({"log": [("turn", turn)], "quiet": []})
        play.note("the whole log", (await agent.state()).values["log"])

    with GrpcSaver(shared_server.target, encryption=encryption()) as saver:
        record = perform(scenario, saver, way, thread_id)
    if found := differences(record, perform(scenario, ReferenceSaver(), way, thread_id)):
        pytest.fail(found, pytrace=False)


async def test_a_key_is_replaced_while_agents_run(
    shared_server: ServerProcess, thread_id: str, flavour: Flavour
) -> None:
    """The three steps of docs/security.md: all learn the new key, all write with it, the old one is removed."""
    steps = [
        encryption("old", keys={"old": KEYS["old"]}),
        encryption("old"),
        encryption("new"),
        encryption("new"),
    ]
    for number, step in enumerate(steps):
        async with GrpcSaver(shared_server.target, encryption=step) as saver:
            calls = Calls(saver, flavour)
            calls.thread_id = thread_id
            await calls.put(
                checkpoint(f"{number}", {"a": f"value {number}"}, {"a": number}),
                parent=f"{number - 1}" if number else None,
            )
            # Unchanged values stay under the key that sealed them, and a thread with values under both keys is read.
            assert len(await calls.listed(config_of(thread_id))) == number + 1
    async with GrpcSaver(shared_server.target, encryption=encryption(keys={"new": KEYS["new"]})) as saver:
        calls = Calls(saver, flavour)
        calls.thread_id = thread_id
        assert (await calls.get()).checkpoint["channel_values"] == {"a": "value 3"}
        with pytest.raises(UnknownKeyError, match="'old'"):
            await calls.get("0")


async def test_a_copy_brings_old_values_under_the_new_key(
    shared_server: ServerProcess, thread_id: str, flavour: Flavour
) -> None:
    async with GrpcSaver(shared_server.target, encryption=encryption("old")) as saver:
        saver.put(config_of(thread_id), checkpoint("1", {"a": 1}), {"step": 1}, {"a": 1})
    async with GrpcSaver(shared_server.target, encryption=encryption("new")) as saver:
        await Calls(saver, flavour).do("copy_thread", thread_id, f"{thread_id} anew")
    async with GrpcSaver(shared_server.target, encryption=encryption(keys={"new": KEYS["new"]})) as saver:
        found = saver.get_tuple(config_of(f"{thread_id} anew"))
        assert found is not None
        assert found.checkpoint["channel_values"] == {"a": 1}


@pytest.mark.parametrize("before", [None, EncryptedSerializer.from_pycryptodome_aes(key=b"0123456789abcdef")])
async def test_a_thread_from_before_is_read_while_it_is_not_required(
    shared_server: ServerProcess, thread_id: str, before: EncryptedSerializer | None, flavour: Flavour
) -> None:
    config = config_of(thread_id)
    async with GrpcSaver(shared_server.target, serde=before) as saver:
        saver.put(config, checkpoint("1", {"a": ["plain"]}, later=1), {"step": 1}, {"a": 1})
        saver.put_writes(config_of(thread_id, "", "1"), [("a", "write")], "task")
    async with GrpcSaver(shared_server.target, serde=before, encryption=encryption(required=False)) as saver:
        calls = Calls(saver, flavour)
        calls.thread_id = thread_id
        found = await calls.get()
        assert found.checkpoint["channel_values"] == {"a": ["plain"]}
        assert found.pending_writes == [("task", "a", "write")]
        await calls.put(checkpoint("2", {"b": 2}, {"a": 1, "b": 2}), parent="1", new={"b": 2})
        assert (await calls.get()).checkpoint["channel_values"] == {"a": ["plain"], "b": 2}
        # A copy is encrypted throughout.
        await calls.do("copy_thread", thread_id, f"{thread_id} copy")
    async with GrpcSaver(shared_server.target, serde=before, encryption=encryption()) as saver:
        with pytest.raises(PlaintextError, match="channel 'a'"):
            saver.get_tuple(config)
        copied = saver.get_tuple(config_of(f"{thread_id} copy"))
        assert copied is not None
        assert copied.checkpoint["channel_values"] == {"a": ["plain"], "b": 2}


# Copies.


def renamed(saved: CheckpointTuple, thread_id: str) -> CheckpointTuple:
    def config(given: RunnableConfig | None) -> Any:
        return given and {"configurable": {**given["configurable"], "thread_id": thread_id}}

    return saved._replace(config=config(saved.config), parent_config=config(saved.parent_config))


def stored(saver: GrpcSaver, thread_id: str) -> list[CheckpointTuple]:
    return list(saver.list(config_of(thread_id, None)))


def histories(saver: GrpcSaver, thread_id: str) -> list[object]:
    at = [saved.config for saved in stored(saver, thread_id) if saved.config["configurable"]["checkpoint_ns"] == ""]
    return [saver.get_delta_channel_history(config=config, channels=["log", "path"]) for config in at]


def some_threads(saver: GrpcSaver, thread_id: str) -> dict[str, Any]:
    """Runs graphs of several kinds, each on a thread of its own, and returns them by thread."""
    made: dict[str, Any] = {}
    runs: list[tuple[str, Any, list[Any]]] = [
        ("approval", graphs.approval(Ledger()), [{"path": ["start"]}, Command(resume="yes")]),
        ("delta", graphs.delta(Ledger()), [{"log": ["one"]}, {"log": ["two"]}, {"log": ["three"]}]),
        ("nested", graphs.nested(Ledger()), [{"path": ["start"]}]),
    ]
    for name, graph, given in runs:
        compiled = graph.compile(checkpointer=saver)
        made[f"{thread_id} {name}"] = compiled
        for item in given:
            compiled.invoke(item, config_of(f"{thread_id} {name}"))
    return made


async def test_a_copy_is_what_the_server_would_have_made(
    shared_server: ServerProcess, thread_id: str, flavour: Flavour
) -> None:
    """Whole, and forked at every checkpoint: compared with copies of the same threads in plain text."""
    with (
        GrpcSaver(shared_server.target, encryption=encryption()) as private,
        GrpcSaver(shared_server.target) as plain,
    ):
        for thread in some_threads(plain, thread_id):
            sealed = f"{thread} sealed"
            for saved in reversed(stored(plain, thread)):
                keys = saved.config["configurable"]
                parent = saved.parent_config["configurable"]["checkpoint_id"] if saved.parent_config else None
                config = config_of(sealed, keys["checkpoint_ns"], parent)
                values = saved.checkpoint["channel_values"]
                versions = {name: saved.checkpoint["channel_versions"][name] for name in values}
                private.put(config, saved.checkpoint, saved.metadata, versions)
                for position, (task_id, channel, value) in enumerate(saved.pending_writes or []):
                    at = config_of(sealed, keys["checkpoint_ns"], keys["checkpoint_id"])
                    private.put_writes(at, [(channel, value)], f"{task_id} {position:03}", f"{position:03}")
            roots = [saved.config["configurable"] for saved in stored(plain, thread)]
            forks = [None, *(keys["checkpoint_id"] for keys in roots if keys["checkpoint_ns"] == "")]
            assert len(forks) > 3
            for fork in forks:
                await Calls(plain, flavour).do("copy_thread", thread, f"{thread} at {fork}", checkpoint_id=fork)
                await Calls(private, flavour).do("copy_thread", sealed, f"{sealed} at {fork}", checkpoint_id=fork)
                expected, made = stored(plain, f"{thread} at {fork}"), stored(private, f"{sealed} at {fork}")
                assert [renamed(saved, "x")._replace(pending_writes=[]) for saved in made] == [
                    renamed(saved, "x")._replace(pending_writes=[]) for saved in expected
                ]
                for one, other in zip(made, expected, strict=True):
                    assert [write[1:] for write in one.pending_writes or []] == [
                        write[1:] for write in other.pending_writes or []
                    ]


async def test_large_values_are_read_and_copied(shared_server: ServerProcess, thread_id: str, flavour: Flavour) -> None:
    blob = random.Random(1).randbytes(3_000_000)
    target = f"{thread_id} copy"
    async with GrpcSaver(shared_server.target, encryption=encryption()) as saver:
        calls = Calls(saver, flavour)
        calls.thread_id = thread_id
        await calls.put(checkpoint("1", {"blob": blob, "half": blob[:50_000]}))
        await calls.write("1", [("blob", blob[1:])])
        await calls.do("copy_thread", thread_id, target)
        for thread in (thread_id, target):
            saved = await calls.get(thread_id=thread)
            assert saved.checkpoint["channel_values"] == {"blob": blob, "half": blob[:50_000]}
            assert saved.pending_writes == [("task", "blob", blob[1:])]
            (listed,) = await calls.listed(config_of(thread))
            assert listed == saved


async def test_a_copy_shares_what_its_source_shares(
    local_server: LocalServer, database_url: str, thread_id: str, flavour: Flavour
) -> None:
    """A list that grows is patches in the copy, too."""
    async with GrpcSaver(local_server.target, encryption=encryption()) as saver:
        calls = Calls(saver, flavour)
        calls.thread_id = thread_id
        version, parent = None, None
        items: list[str] = []
        for number in range(40):
            items.append(os.urandom(400).hex())
            version = saver.get_next_version(version)
            await calls.put(checkpoint(f"{number:02}", {"items": items}, {"items": version}), parent=parent)
            parent = f"{number:02}"
        await calls.do("copy_thread", thread_id, f"{thread_id} copy")
    connection = await asyncpg.connect(database_url, server_settings={"search_path": "checkpointd"})
    try:
        sizes = await connection.fetch(
            "SELECT t.thread_id, sum(octet_length(v.data)) AS size"
            " FROM channel_values AS v JOIN threads AS t USING (thread) GROUP BY t.thread_id"
        )
    finally:
        await connection.close()
    stored_bytes = {row["thread_id"]: row["size"] for row in sizes}
    # Stored whole each time, it would be 660 KB.
    assert stored_bytes[thread_id] == stored_bytes[f"{thread_id} copy"] < 150_000
    async with GrpcSaver(local_server.target, encryption=encryption()) as saver:
        copied = stored(saver, f"{thread_id} copy")
        assert [len(saved.checkpoint["channel_values"]["items"]) for saved in copied] == list(range(40, 0, -1))


async def test_a_copy_goes_on_by_itself(shared_server: ServerProcess, thread_id: str, flavour: Flavour) -> None:
    async with GrpcSaver(shared_server.target, encryption=encryption()) as saver:
        for thread, graph in some_threads(saver, thread_id).items():
            await Calls(saver, flavour).do("copy_thread", thread, f"{thread} copy")
            assert stored(saver, f"{thread} copy") == [renamed(it, f"{thread} copy") for it in stored(saver, thread)]
            assert histories(saver, f"{thread} copy") == histories(saver, thread)
            saver.delete_thread(thread)
            state = graph.get_state(config_of(f"{thread} copy"))
            assert state.values
            if state.interrupts:
                graph.invoke(Command(resume="because"), config_of(f"{thread} copy"))
                assert graph.get_state(config_of(f"{thread} copy")).next == ()


async def test_a_copy_keeps_the_places_of_writes(
    shared_server: ServerProcess, thread_id: str, flavour: Flavour
) -> None:
    """A task that runs again finds its own writes: one that is there already is not stored twice."""
    async with GrpcSaver(shared_server.target, encryption=encryption()) as saver:
        saver.put(config_of(thread_id), checkpoint("1"), {}, {})
        writes = [("a", 1), ("__resume__", "yes"), ("b", 2)]
        saver.put_writes(config_of(thread_id, "", "1"), writes, "task", "path")
        await Calls(saver, flavour).do("copy_thread", thread_id, f"{thread_id} copy")
        copied = config_of(f"{thread_id} copy", "", "1")
        saver.put_writes(copied, [("a", 3), ("__resume__", "no"), ("b", 4)], "task", "path")
        found = saver.get_tuple(copied)
        assert found is not None
        assert found.pending_writes == [("task", "__resume__", "no"), ("task", "a", 1), ("task", "b", 2)]


async def test_a_copy_is_refused_as_the_server_refuses_it(
    shared_server: ServerProcess, thread_id: str, flavour: Flavour
) -> None:
    async with GrpcSaver(shared_server.target, encryption=encryption()) as saver:
        copy = Calls(saver, flavour).do
        await copy("copy_thread", thread_id, f"{thread_id} copy")
        assert stored(saver, f"{thread_id} copy") == []
        for thread in (thread_id, f"{thread_id} other"):
            saver.put(config_of(thread), checkpoint("1", {"a": 1}), {}, {"a": 1})
        with pytest.raises(ThreadExistsError):
            await copy("copy_thread", thread_id, f"{thread_id} other")
        with pytest.raises(CheckpointNotFoundError):
            await copy("copy_thread", thread_id, f"{thread_id} copy", checkpoint_id="9")
        with pytest.raises(InvalidArgumentError, match="target_thread_id"):
            await copy("copy_thread", thread_id, "")
        async with GrpcSaver(shared_server.target) as holder:
            with holder.lease(f"{thread_id} copy"), pytest.raises(LeaseHeldError):
                await copy("copy_thread", thread_id, f"{thread_id} copy")
        with saver.lease(f"{thread_id} copy"):
            await copy("copy_thread", thread_id, f"{thread_id} copy")
        assert len(stored(saver, f"{thread_id} copy")) == 1


async def test_a_copy_that_breaks_off_leaves_nothing(
    shared_server: ServerProcess, thread_id: str, flavour: Flavour
) -> None:
    """Here, at a value in the middle that another key has sealed."""
    async with GrpcSaver(shared_server.target, encryption=encryption("old")) as saver:
        saver.put(config_of(thread_id), checkpoint("1", {"a": 1}), {}, {"a": 1})
    async with GrpcSaver(shared_server.target, encryption=encryption("new")) as saver:
        saver.put(config_of(thread_id, "", "1"), checkpoint("2", {"a": 1, "b": 1}), {}, {"b": 1})
    async with GrpcSaver(shared_server.target, encryption=encryption("old", keys={"old": KEYS["old"]})) as saver:
        with pytest.raises(UnknownKeyError, match="'new'"):
            await Calls(saver, flavour).do("copy_thread", thread_id, f"{thread_id} copy")
    async with GrpcSaver(shared_server.target, encryption=encryption()) as saver:
        assert stored(saver, f"{thread_id} copy") == []


async def test_what_somebody_else_writes_to_a_copy_is_kept(shared_server: ServerProcess, thread_id: str) -> None:
    async with GrpcSaver(shared_server.target, encryption=encryption()) as saver:
        saver.put(config_of(thread_id), checkpoint("1", {"a": 1}), {}, {"a": 1})
        saver.put(config_of(thread_id, "", "1"), checkpoint("2", {"a": 1}), {}, {})
        target, puts = f"{thread_id} copy", 0

        def call(request: Any) -> Any:
            """Makes a saver's calls; another writer's write comes before the second put."""
            nonlocal puts
            puts += isinstance(request, pb.PutCheckpointRequest)
            if puts == 2:
                puts += 1
                saver.put(config_of(target, "", "1"), checkpoint("9", {"a": 9}), {}, {"a": 9})
            return saver._client.call(request)

        copy = EncryptedThreadCopy(serde=saver._value_serde(), attach_lease=lambda request: request)
        with pytest.raises(ThreadExistsError, match="somebody else wrote"):
            flows.run(copy.copy(thread_id, target, None), call)
        assert [saved.checkpoint["id"] for saved in stored(saver, target)] == ["9", "1"]


async def test_what_the_server_copies_does_not_open_under_another_name(
    shared_server: ServerProcess, thread_id: str
) -> None:
    """Otherwise an attacker who can copy rows could pass one thread off as another."""
    async with GrpcSaver(shared_server.target, encryption=encryption()) as saver:
        saver.put(config_of(thread_id), checkpoint("1", {"a": 1}), {}, {"a": 1})
        async with GrpcSaver(shared_server.target) as plain:
            plain.copy_thread(thread_id, f"{thread_id} copy")
        with pytest.raises(TamperedValueError):
            saver.get_tuple(config_of(f"{thread_id} copy"))


# Metadata.


async def found_by(saver: GrpcSaver, thread_id: str, filter: dict[str, Any]) -> int:
    found = list(saver.list(config_of(thread_id), filter=filter))
    assert found == [saved async for saved in saver.alist(config_of(thread_id), filter=filter)]
    return len(found)


@pytest.mark.parametrize("encrypted", [False, True])
async def test_named_keys_of_metadata_are_searchable_and_no_others(
    shared_server: ServerProcess, thread_id: str, encrypted: bool
) -> None:
    options: dict[str, Any] = {"encryption": encryption()} if encrypted else {}
    described: Any = {"source": "loop", "step": 1, "team": "blue", "user": "ada"}
    async with GrpcSaver(shared_server.target, searchable_metadata={"team"}, **options) as saver:
        saver.put(config_of(thread_id), checkpoint("1"), described, {})
        found = saver.get_tuple(config_of(thread_id))
        assert found is not None
        assert found.metadata == described
        assert await found_by(saver, thread_id, {"team": "blue"}) == 1
        assert await found_by(saver, thread_id, {"team": "red"}) == 0
        assert await found_by(saver, thread_id, {"source": "loop", "step": 1}) == 1
        with pytest.raises(InvalidArgumentError, match="filter: user can't be searched") as failed:
            saver.list(config_of(thread_id), filter={"user": "ada"})
        assert ("encrypts metadata" in str(failed.value)) == encrypted
        assert ("searchable_metadata leaves it out" in str(failed.value)) != encrypted
    async with GrpcSaver(shared_server.target) as other:
        # The server itself doesn't have the field: a saver that searches for it finds nothing.
        request = {"thread_id": thread_id, "checkpoint_ns": ""}
        if not encrypted:
            assert list(other.list({"configurable": request}, filter={"user": "ada"})) == []
            assert len(list(other.list({"configurable": request}, filter={"team": "blue"}))) == 1


async def test_no_key_but_langgraph_s_own_may_be_named(shared_server: ServerProcess, thread_id: str) -> None:
    async with GrpcSaver(shared_server.target, searchable_metadata=()) as saver:
        described: Any = {"run_id": f"{thread_id} run", "user": "ada"}
        saver.put(config_of(thread_id), checkpoint("1"), described, {})
        with pytest.raises(InvalidArgumentError, match="filter: user"):
            saver.list(config_of(thread_id), filter={"user": "ada"})
        # Runs are still deleted by their id.
        saver.delete_for_runs([f"{thread_id} run"])
        assert saver.get_tuple(config_of(thread_id)) is None


@pytest.mark.parametrize("keys", ["user", [1], [b"user"]])
def test_names_of_keys_must_be_names(keys: Any) -> None:
    with pytest.raises(InvalidArgumentError, match="searchable_metadata") as failed:
        GrpcSaver("127.0.0.1:1", searchable_metadata=keys)
    assert failed.value.field == "searchable_metadata"
