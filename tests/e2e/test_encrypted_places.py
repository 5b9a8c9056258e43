"""Encryption on the client against an attacker who can change the database: moves, cuts and swaps rows, in SQL."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeAlias

import asyncpg
import grpc
import pytest
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.grpc import (
    Encryption,
    EncryptionError,
    GrpcSaver,
    PlaintextError,
    TamperedValueError,
    UnknownKeyError,
)

from checkpointd.v1 import checkpoint_service_pb2 as pb
from checkpointd.v1.checkpoint_service_pb2_grpc import (
    CheckpointServiceServicer,
    CheckpointServiceStub,
    add_CheckpointServiceServicer_to_server,
)
from tests.support.calls import checkpoint, config_of
from tests.support.local_server import LocalServer

KEYS = {"old": os.urandom(32), "new": os.urandom(32)}
ENCRYPTION = Encryption(keys=KEYS, current="new")

Database: TypeAlias = asyncpg.Connection

T, U = (f"thread = (SELECT t.thread FROM threads AS t WHERE t.thread_id = '{name}')" for name in "tu")
"""The rows of a thread."""


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    """A connection to the server's database, on the server's schema."""
    connection = await asyncpg.connect(database_url, server_settings={"search_path": "checkpointd"})
    yield connection
    await connection.close()


@pytest.fixture
async def saver(local_server: LocalServer) -> AsyncIterator[GrpcSaver]:
    """A saver that encrypts, on a store with two threads of two namespaces of two checkpoints, all much alike."""
    async with GrpcSaver(local_server.target, encryption=ENCRYPTION, retry_budget=0) as saver:
        for thread_id in ("t", "u"):
            for ns in ("", "sub"):
                parent = None
                for number in ("1", "2"):
                    values = {name: [f"{name} of {thread_id} {ns} {number}"] for name in ("a", "b")}
                    versions: dict[str, Any] = {"a": number, "b": number}
                    more: dict[str, Any] = {"later": f"extra of {number}", "versions_seen": {"node": {"a": number}}}
                    saved = checkpoint(number, values, versions, **more)
                    saver.put(
                        config_of(thread_id, ns, parent), saved, {"source": "loop", "step": int(number)}, versions
                    )
                    writes = [("a", "first write"), ("b", "second write")]
                    saver.put_writes(config_of(thread_id, ns, number), writes, "task", "path")
                    saver.put_writes(config_of(thread_id, ns, number), writes, "another", "path")
                    parent = number
        yield saver


async def everything(saver: GrpcSaver) -> int:
    """Reads the whole store, in every way, and returns the number of checkpoints."""
    found = list(saver.list(None))
    assert found == [saved async for saved in saver.alist(None)]
    for saved in found:
        assert saver.get_tuple(saved.config) == await saver.aget_tuple(saved.config) == saved
        for name in ("a", "b"):
            histories = saver.get_delta_channel_history(config=saved.config, channels=[name])
            assert ("seed" in histories[name]) == (saved.parent_config is not None)
    return len(found)


async def refused(saver: GrpcSaver, config: RunnableConfig, kind: type[EncryptionError] = TamperedValueError) -> str:
    """Asserts that a checkpoint can't be read in any way, and returns what the error says."""
    with pytest.raises(kind) as failed:
        saver.get_tuple(config)
    with pytest.raises(kind, match="^" + str(failed.value)[:12]):
        await saver.aget_tuple(config)
    thread = config_of(config["configurable"]["thread_id"], None)
    with pytest.raises(kind):
        list(saver.list(thread))
    with pytest.raises(kind):
        [saved async for saved in saver.alist(thread)]
    assert failed.value.thread_id == config["configurable"]["thread_id"]
    return str(failed.value)


async def test_nobody_touched_it(saver: GrpcSaver, database: Database) -> None:
    """Otherwise the other tests would prove nothing. A row that is written back unchanged is read as before."""
    await database.execute("UPDATE channel_values SET data = data || ''::bytea")
    assert await everything(saver) == 8


SWAPPED_VALUES = {
    "channels": f"{T} AND checkpoint_ns = '' AND version = 's2'",
    "versions": f"{T} AND checkpoint_ns = '' AND channel = 'a'",
    "namespaces": f"{T} AND channel = 'a' AND version = 's2'",
    "threads": "checkpoint_ns = '' AND channel = 'a' AND version = 's2'",
}


@pytest.mark.parametrize("where", SWAPPED_VALUES.values(), ids=SWAPPED_VALUES.keys())
async def test_values_that_were_swapped_are_refused(saver: GrpcSaver, database: Database, where: str) -> None:
    changed = await database.execute(f"""
        UPDATE channel_values AS one SET type = other.type, data = other.data
        FROM channel_values AS other
        WHERE one.ctid <> other.ctid
            AND one.ctid IN (SELECT ctid FROM channel_values WHERE {where})
            AND other.ctid IN (SELECT ctid FROM channel_values WHERE {where})""")
    assert changed == "UPDATE 2"
    said = await refused(saver, config_of("t", "", "2"))
    assert "of thread 't' is not what was encrypted there" in said
    assert said.startswith(("channel 'a'", "channel 'b'"))


async def test_a_checkpoint_can_t_be_pointed_at_another_version(saver: GrpcSaver, database: Database) -> None:
    """The value is in its own place; the checkpoint says which version it has."""
    await database.execute("UPDATE checkpoints SET channel_versions = '{s1,s1}' WHERE checkpoint_id = '2'")
    assert (await refused(saver, config_of("t", "", "2"))).startswith("checkpoint 2 of thread 't'")


async def test_a_channel_can_t_be_taken_away_or_added(saver: GrpcSaver, database: Database) -> None:
    await database.execute(f"UPDATE checkpoints SET channels = '{{a}}', channel_versions = '{{s2}}' WHERE {T}")
    await refused(saver, config_of("t", "", "2"))
    await database.execute(
        f"UPDATE checkpoints SET channels = '{{a,b,c}}', channel_versions = '{{s2,s2,s2}}' WHERE {U}"
    )
    await refused(saver, config_of("u", "", "2"))


@pytest.mark.parametrize("column", ["body", "parent_checkpoint_id"])
async def test_a_checkpoint_can_t_be_given_another_s_fields(saver: GrpcSaver, database: Database, column: str) -> None:
    await database.execute(f"""
        UPDATE checkpoints AS one SET {column} = other.{column}
        FROM checkpoints AS other
        WHERE one.checkpoint_id = '2' AND other.checkpoint_id = '1' AND one.thread = other.thread
            AND one.checkpoint_ns = other.checkpoint_ns""")
    assert (await refused(saver, config_of("t", "", "2"))).startswith("checkpoint 2 of thread 't'")


SWAPPED_METADATA = {
    "checkpoints": f"{T} AND checkpoint_ns = ''",
    "namespaces": f"{T} AND checkpoint_id = '2'",
    "threads": "checkpoint_ns = '' AND checkpoint_id = '2'",
}


@pytest.mark.parametrize("where", SWAPPED_METADATA.values(), ids=SWAPPED_METADATA.keys())
async def test_metadata_that_was_swapped_is_refused(saver: GrpcSaver, database: Database, where: str) -> None:
    await database.execute(f"""
        UPDATE checkpoints AS one SET metadata_type = other.metadata_type, metadata = other.metadata
        FROM checkpoints AS other
        WHERE one.ctid <> other.ctid
            AND one.ctid IN (SELECT ctid FROM checkpoints WHERE {where})
            AND other.ctid IN (SELECT ctid FROM checkpoints WHERE {where})""")
    await refused(saver, config_of("t", "", "2"))


@pytest.mark.parametrize("where", SWAPPED_METADATA.values(), ids=SWAPPED_METADATA.keys())
async def test_whole_checkpoints_that_were_swapped_are_refused(
    saver: GrpcSaver, database: Database, where: str
) -> None:
    """Body, metadata, versions and parent together: all is right but their place."""
    columns = "parent_checkpoint_id, body, channels, channel_versions, metadata_type, metadata, metadata_index"
    others = ", ".join(f"other.{column}" for column in columns.split(", "))
    await database.execute(f"""
        UPDATE checkpoints AS one SET ({columns}) = ({others})
        FROM checkpoints AS other
        WHERE one.ctid <> other.ctid
            AND one.ctid IN (SELECT ctid FROM checkpoints WHERE {where})
            AND other.ctid IN (SELECT ctid FROM checkpoints WHERE {where})""")
    await refused(saver, config_of("t", "", "2"))


SWAPPED_WRITES = {
    "positions": f"{T} AND checkpoint_ns = '' AND checkpoint_id = '2' AND task_id = 'task'",
    "tasks": f"{T} AND checkpoint_ns = '' AND checkpoint_id = '2' AND idx = 0",
    "checkpoints": f"{T} AND checkpoint_ns = '' AND task_id = 'task' AND idx = 0",
    "namespaces": f"{T} AND checkpoint_id = '2' AND task_id = 'task' AND idx = 0",
    "threads": "checkpoint_ns = '' AND checkpoint_id = '2' AND task_id = 'task' AND idx = 0",
}


@pytest.mark.parametrize("where", SWAPPED_WRITES.values(), ids=SWAPPED_WRITES.keys())
async def test_writes_that_were_swapped_are_refused(saver: GrpcSaver, database: Database, where: str) -> None:
    changed = await database.execute(f"""
        UPDATE task_writes AS one SET type = other.type, data = other.data
        FROM task_writes AS other
        WHERE one.ctid <> other.ctid
            AND one.ctid IN (SELECT ctid FROM task_writes WHERE {where})
            AND other.ctid IN (SELECT ctid FROM task_writes WHERE {where})""")
    assert changed == "UPDATE 2"
    assert (await refused(saver, config_of("t", "", "2"))).startswith("a task's write to channel 'a'")


@pytest.mark.parametrize(
    "change", ["task_path = ''", "channel = 'c'", "idx = idx + 7", "task_id = 'x' || task_id", "checkpoint_id = '2'"]
)
async def test_a_write_can_t_be_given_another_place(saver: GrpcSaver, database: Database, change: str) -> None:
    await database.execute("DELETE FROM task_writes WHERE checkpoint_id = '2'")
    await database.execute(f"UPDATE task_writes SET {change}")
    number = "2" if "checkpoint_id" in change else "1"
    assert (await refused(saver, config_of("t", "", number))).startswith("a task's write to channel")


async def test_a_delta_history_is_bound_too(saver: GrpcSaver, database: Database) -> None:
    at = config_of("t", "", "2")
    history = saver.get_delta_channel_history(config=at, channels=["a"])["a"]
    assert history == {
        "writes": [("another", "a", "first write"), ("task", "a", "first write")],
        "seed": ["a of t  1"],
    }
    await database.execute("UPDATE channel_values AS v SET data = w.data, type = w.type FROM task_writes AS w")
    with pytest.raises(TamperedValueError, match="channel 'a' of thread 't'"):
        saver.get_delta_channel_history(config=at, channels=["a"])
    with pytest.raises(TamperedValueError, match="channel 'a' of thread 't'"):
        await saver.aget_delta_channel_history(config=at, channels=["a"])
    await database.execute("UPDATE task_writes SET checkpoint_ns = 'other' WHERE checkpoint_ns = ''")
    await database.execute("UPDATE task_writes SET checkpoint_ns = '' WHERE checkpoint_ns = 'sub'")
    with pytest.raises(TamperedValueError, match="a task's write to channel 'a' of thread 't'"):
        saver.get_delta_channel_history(config=at, channels=["a"])


CHANGES = {
    "one bit": "set_bit(data, 400, 1 - get_bit(data, 400))",
    "cut at the end": "substr(data, 1, octet_length(data) - 1)",
    "cut to nothing": "''::bytea",
    "more at the end": r"data || '\x00'::bytea",
    "something else": r"'\xc0'::bytea",
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
@pytest.mark.parametrize("table", ["channel_values", "task_writes", "checkpoints"])
async def test_what_was_changed_or_cut_is_refused(
    saver: GrpcSaver, database: Database, table: str, change: str
) -> None:
    column = "metadata" if table == "checkpoints" else "data"
    await database.execute(f"UPDATE {table} SET {column} = {change.replace('data', column)}")
    await refused(saver, config_of("t", "", "2"))


@pytest.mark.parametrize("table", ["channel_values", "task_writes", "checkpoints"])
async def test_a_plain_value_in_place_of_an_encrypted_one_is_refused(
    saver: GrpcSaver, database: Database, table: str
) -> None:
    """An attacker who could insert plain values could make the agent believe anything and build any class it allows."""
    prefix = "metadata" if table == "checkpoints" else ""
    type_, data = (f"{prefix}_type", prefix) if prefix else ("type", "data")
    await database.execute(rf"UPDATE {table} SET {type_} = 'msgpack', {data} = '\x80'::bytea")
    assert "is not encrypted, and this saver requires encryption" in await refused(
        saver, config_of("t", "", "2"), PlaintextError
    )


async def test_a_type_can_t_be_changed(saver: GrpcSaver, database: Database) -> None:
    await database.execute("UPDATE channel_values SET type = replace(type, 'msgpack', 'pickle')")
    await refused(saver, config_of("t", "", "2"))


async def test_a_saver_without_the_key_says_which_one_is_missing(saver: GrpcSaver, local_server: LocalServer) -> None:
    only_old = Encryption(keys={"old": KEYS["old"]}, current="old")
    async with GrpcSaver(local_server.target, encryption=only_old, retry_budget=0) as other:
        said = await refused(other, config_of("t", "", "2"), UnknownKeyError)
        assert said == "checkpoint 2 of thread 't' is encrypted with the key 'new', which this saver doesn't have"
    async with GrpcSaver(local_server.target, retry_budget=0) as other:
        assert "build the saver with encryption=" in await refused(other, config_of("t", "", "2"), UnknownKeyError)
    wrong = Encryption(keys={"new": KEYS["old"]}, current="new")
    async with GrpcSaver(local_server.target, encryption=wrong, retry_budget=0) as other:
        assert "another key by the name of 'new'" in await refused(other, config_of("t", "", "2"))


async def test_another_tenant_s_saver_reads_nothing(saver: GrpcSaver, local_server: LocalServer) -> None:
    elsewhere = Encryption(keys=KEYS, current="new", tenant="another")
    async with GrpcSaver(local_server.target, encryption=elsewhere, retry_budget=0) as other:
        await refused(other, config_of("t", "", "2"))


async def patched(saver: GrpcSaver) -> list[str]:
    """Puts a thread whose one channel grows, and returns the channel's versions as the database has them."""
    version, parent, versions = None, None, []
    for number in range(4):
        version = saver.get_next_version(version)
        versions.append(f"s{version}")
        saved = checkpoint(str(number), {"a": "x" * 1000 + "y" * number}, {"a": version})
        saver.put(config_of("patched", "", parent), saved, {}, {"a": version})
        parent = str(number)
    return versions


REARRANGED = {
    "a patch in place of the next": "data = (SELECT o.data FROM channel_values AS o WHERE o.version = '{2}')",
    "the base of another": "base_version = '{1}'",
    "another size": "size = size + 1",
    "as a whole value": "base_version = NULL, crc32 = NULL, sealed = NULL, depth = 0",
    "as if it weren't sealed": "sealed = false, crc32 = 0",
}


@pytest.mark.parametrize("change", REARRANGED.values(), ids=REARRANGED.keys())
async def test_a_chain_of_patches_can_t_be_rearranged(
    saver: GrpcSaver, local_server: LocalServer, database: Database, change: str
) -> None:
    versions = await patched(saver)
    count = await database.fetchval("SELECT count(*) FROM channel_values WHERE sealed")
    assert count == 3
    changed = await database.execute(
        f"UPDATE channel_values SET {change.format(*versions)} WHERE version = '{versions[3]}'"
    )
    assert changed == "UPDATE 1"
    async with GrpcSaver(local_server.target, encryption=ENCRYPTION, retry_budget=0) as other:
        await refused(other, config_of("patched", "", "3"))
        found = other.get_tuple(config_of("patched", "", "2"))
        assert found is not None
        assert found.checkpoint["channel_values"] == {"a": "x" * 1000 + "yy"}


async def test_the_base_of_patches_can_t_be_changed(
    saver: GrpcSaver, local_server: LocalServer, database: Database
) -> None:
    versions = await patched(saver)
    await database.execute(
        "UPDATE channel_values AS one SET data = other.data FROM channel_values AS other"
        f" WHERE one.version = '{versions[0]}' AND other.version = 's1' AND other.channel = 'a'"
    )
    async with GrpcSaver(local_server.target, encryption=ENCRYPTION, retry_budget=0) as other:
        await refused(other, config_of("patched", "", "3"))


class Liar(CheckpointServiceServicer):
    """A server that answers every request for the thread "t" with data of the thread "u"."""

    def __init__(self, target: str) -> None:
        self._truth = CheckpointServiceStub(grpc.insecure_channel(target))

    def GetCheckpoint(self, request: pb.GetCheckpointRequest, context: Any) -> pb.GetCheckpointResponse:
        answer: pb.GetCheckpointResponse = self._truth.GetCheckpoint(_about_u(request))
        return answer

    def ListCheckpoints(self, request: pb.ListCheckpointsRequest, context: Any) -> pb.ListCheckpointsResponse:
        answer: pb.ListCheckpointsResponse = self._truth.ListCheckpoints(_about_u(request))
        return answer


def _about_u(request: Any) -> Any:
    request.thread_id = "u"
    return request


async def test_a_server_can_t_pass_one_thread_off_as_another(saver: GrpcSaver, local_server: LocalServer) -> None:
    """All values open, since they are in their own place, in the thread that wasn't asked for."""
    liar = grpc.server(ThreadPoolExecutor(2))
    add_CheckpointServiceServicer_to_server(Liar(local_server.target), liar)
    port = liar.add_insecure_port("127.0.0.1:0")
    liar.start()
    try:
        async with GrpcSaver(f"127.0.0.1:{port}", encryption=ENCRYPTION, retry_budget=0) as lied_to:
            assert lied_to.get_tuple(config_of("u")) is not None
            await refused(lied_to, config_of("t"))
    finally:
        liar.stop(None).wait()


async def test_what_was_there_before_can_be_put_back(saver: GrpcSaver, database: Database) -> None:
    """Changes that encryption can't detect, as docs/security.md says: a replay at the same place, and a deletion."""
    config = config_of("t", "", "2")
    before = await database.fetchrow(f"SELECT * FROM task_writes WHERE idx = 0 AND task_id = 'task' AND {T}")
    assert before is not None
    old = await database.fetch(f"SELECT * FROM channel_values WHERE version = 's2' AND {T}")
    saved = checkpoint("2", {"a": "later", "b": "later"}, {"a": "2", "b": "2"})
    saver.put(config_of("t", "", "1"), saved, {"step": 2}, {"a": "2", "b": "2"})
    for row in old:
        await database.execute(
            f"UPDATE channel_values SET data = $1 WHERE {T} AND checkpoint_ns = $2 AND channel = $3 AND version = 's2'",
            *(row["data"], row["checkpoint_ns"], row["channel"]),
        )
    found = saver.get_tuple(config)
    assert found is not None
    assert found.checkpoint["channel_values"] == {"a": ["a of t  2"], "b": ["b of t  2"]}
    await database.execute("DELETE FROM task_writes")
    found = saver.get_tuple(config)
    assert found is not None
    assert found.pending_writes == []
