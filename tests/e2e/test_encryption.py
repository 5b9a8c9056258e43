"""The server stores data that it can't read: by the saver's own encryption, and by LangGraph's EncryptedSerializer."""

from __future__ import annotations

from typing import Any

import asyncpg
import pytest
from langchain_core.messages import HumanMessage
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.grpc import CorruptValueError, Encryption, GrpcSaver, InvalidArgumentError
from langgraph.checkpoint.serde.base import SerializerProtocol
from langgraph.checkpoint.serde.encrypted import EncryptedSerializer
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from langgraph.types import Command

from tests.support import graphs
from tests.support.calls import checkpoint, config_of
from tests.support.comparison import DURABILITIES, FLAVOURS, Ledger
from tests.support.server_process import ServerProcess

SECRET = "sesame"
"""A text that is in every value and in the user's metadata, and nowhere else."""


def encrypted() -> EncryptedSerializer:
    return EncryptedSerializer.from_pycryptodome_aes(key=b"0123456789abcdef")


async def everything_stored(database_url: str) -> bytes:
    """Returns all that the database holds, column by column, as bytes."""
    connection = await asyncpg.connect(database_url)
    try:
        tables = await connection.fetch(
            "SELECT format('%I.%I', schemaname, tablename) AS name FROM pg_tables"
            " WHERE schemaname NOT IN ('pg_catalog', 'information_schema')"
        )
        found = []
        for table in tables:
            for row in await connection.fetch(f"SELECT * FROM {table['name']}"):
                found += [value if isinstance(value, bytes) else repr(value).encode() for value in row.values()]
        assert len(tables) >= 4
        return b"\n".join(found)
    finally:
        await connection.close()


async def use_every_way_in(target: str, serde: SerializerProtocol, encryption: Encryption | None = None) -> None:
    """Puts the secret into everything that holds a value: states, writes, questions, answers, errors, metadata."""
    async with GrpcSaver(target, serde=serde, encryption=encryption) as saver:
        for flavour in FLAVOURS:
            for durability in DURABILITIES:
                config: RunnableConfig = {
                    "configurable": {"thread_id": f"{flavour} {durability}", "user": f"{SECRET} user"},
                    "metadata": {f"key {SECRET}": 1, "note": f"{SECRET} note"},
                }
                approval = graphs.approval(Ledger()).compile(checkpointer=saver)
                chat = graphs.chat(Ledger()).compile(checkpointer=saver)
                delta = graphs.delta(Ledger()).compile(checkpointer=saver)
                steps: list[tuple[Any, Any]] = [
                    (approval, {"path": [f"{SECRET} input"]}),
                    (approval, Command(resume=f"{SECRET} answer", update={"path": [f"{SECRET} update"]})),
                    (chat, {"messages": [HumanMessage(f"{SECRET} message", id="m")]}),
                    (delta, {"log": [f"{SECRET} delta"]}),
                    (delta, {"log": [f"{SECRET} delta again"]}),
                ]
                for graph, given in steps:
                    if flavour == "invoke":
                        graph.invoke(given, config, durability=durability)
                    else:
                        await graph.ainvoke(given, config, durability=durability)
        by_hand = checkpoint("1", {"a": f"{SECRET} value"}, later=f"{SECRET} key of the future", ts=f"{SECRET}\ud800")
        saver.put(config_of("by hand"), by_hand, {"step": 1, "source": "loop", "secret": SECRET}, {"a": 1})  # type: ignore[typeddict-unknown-key]
        saver.put_writes(config_of("by hand", "", "1"), [("__error__", f"{SECRET} error"), ("a", SECRET)], "task")


@pytest.mark.parametrize(
    ("serde", "encryption", "type_tag"),
    [
        (
            JsonPlusSerializer(),
            Encryption(keys={"2026-11": bytes(range(32))}, current="2026-11"),
            b"msgpack+cpd1.2026-11",
        ),
        (encrypted(), None, b"msgpack+aes"),
    ],
    ids=["Encryption", "EncryptedSerializer"],
)
async def test_nothing_of_a_value_or_of_user_metadata_is_readable(
    server: ServerProcess,
    database_url: str,
    serde: SerializerProtocol,
    encryption: Encryption | None,
    type_tag: bytes,
) -> None:
    await use_every_way_in(server.target, serde, encryption)
    stored = await everything_stored(database_url)
    assert SECRET.encode() not in stored
    assert type_tag in stored
    if encryption is not None:
        # Everything stored was sealed, as each type says.
        connection = await asyncpg.connect(database_url, server_settings={"search_path": "checkpointd"})
        types = await connection.fetch(
            "SELECT type FROM channel_values UNION SELECT type FROM task_writes"
            " UNION SELECT metadata_type FROM checkpoints"
        )
        await connection.close()
        assert {row["type"].partition("+")[2] for row in types} == {"cpd1.2026-11"}
    # Nor is it in the server's log, which has a line for every call.
    assert "PutCheckpoint" in server.stderr
    assert SECRET not in server.stderr


async def test_without_encryption_it_would_be_found(server: ServerProcess, database_url: str) -> None:
    """Otherwise the test above would prove nothing."""
    await use_every_way_in(server.target, JsonPlusSerializer())
    stored = (await everything_stored(database_url)).decode(errors="replace")
    places = ["user", "note", "input", "answer", "update", "message", "delta", "value", "error", "key of the future"]
    assert [place for place in places if f"{SECRET} {place}" not in stored] == []
    # The log still doesn't show it.
    assert SECRET not in server.stderr


@pytest.mark.parametrize("flavour", FLAVOURS)
async def test_a_graph_works_and_langgraphs_own_metadata_is_searched(
    shared_server: ServerProcess, thread_id: str, flavour: str
) -> None:
    config: RunnableConfig = {"configurable": {"thread_id": thread_id, "user": "ada"}}
    async with GrpcSaver(shared_server.target, serde=encrypted()) as saver:
        graph = graphs.approval(Ledger()).compile(checkpointer=saver)
        steps: list[Any] = [{"path": ["start"]}, Command(resume="yes"), Command(resume="why not")]
        for given in steps:
            result = graph.invoke(given, config) if flavour == "invoke" else await graph.ainvoke(given, config)
        assert result["path"] == ["start", "draft", "send"]

        async def sources(filter: dict[str, Any]) -> list[object]:
            found = [saved async for saved in saver.alist(config, filter=filter)]
            assert found == list(saver.list(config, filter=filter))
            assert all(saved.metadata["user"] == "ada" for saved in found)  # type: ignore[typeddict-item]
            return [(saved.metadata["source"], saved.metadata["step"]) for saved in found]

        assert await sources({"source": "input"}) == [("input", -1)]
        assert await sources({"source": "loop", "step": 1}) == [("loop", 1)]
        assert await sources({"source": "update"}) == []
        with pytest.raises(InvalidArgumentError, match=r"filter: user can't be searched.* encrypts") as failed:
            list(saver.list(config, filter={"user": "ada"}))
        assert failed.value.field == "filter"
        with pytest.raises(InvalidArgumentError, match="encrypts"):
            await anext(saver.alist(config, filter={"source": "loop", "user": "ada"}))


async def test_runs_are_deleted_by_their_id(shared_server: ServerProcess, thread_id: str) -> None:
    async with GrpcSaver(shared_server.target, serde=encrypted()) as saver:
        saver.put(config_of(thread_id), checkpoint("1"), {"run_id": f"{thread_id} run"}, {})
        await saver.adelete_for_runs([f"{thread_id} run"])
        assert saver.get_tuple(config_of(thread_id)) is None


async def test_a_thread_from_before_encryption_is_read_on(shared_server: ServerProcess, thread_id: str) -> None:
    async with GrpcSaver(shared_server.target) as saver:
        await saver.aput(config_of(thread_id), checkpoint("1", {"a": ["plain"]}), {"step": 1}, {"a": 1})
    async with GrpcSaver(shared_server.target, serde=encrypted()) as saver:
        found = await saver.aget_tuple(config_of(thread_id))
        assert found is not None
        assert found.checkpoint["channel_values"] == {"a": ["plain"]}


async def test_another_key_is_an_error_and_no_value(shared_server: ServerProcess, thread_id: str) -> None:
    async with GrpcSaver(shared_server.target, serde=encrypted()) as saver:
        await saver.aput(config_of(thread_id), checkpoint("1", {"a": 1}), {"step": 1}, {"a": 1})
    other = EncryptedSerializer.from_pycryptodome_aes(key=b"fedcba9876543210")
    async with GrpcSaver(shared_server.target, serde=other) as saver:
        with pytest.raises(CorruptValueError, match="serializer") as failed:
            await saver.aget_tuple(config_of(thread_id))
        assert "MAC" in str(failed.value.__cause__)
