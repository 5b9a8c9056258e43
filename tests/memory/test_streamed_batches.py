"""Operations of GrpcStore on the pipeline: shared messages, the order of writes, and streams that break."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from langgraph.checkpoint.grpc import (
    AccessDeniedError,
    CheckpointdError,
    GrpcSaver,
    GrpcStore,
    InvalidArgumentError,
)
from langgraph.checkpoint.grpc._store.batches import MAX_QUERIES

from checkpointd.v1 import checkpoint_service_pb2 as pb
from tests.support.api_keys import key_entry
from tests.support.pipeline_proxy import PipelineProxy, Verdict, overloaded, pipeline_proxy
from tests.support.server_process import ServerProcess


@pytest.fixture
async def proxy(shared_server: ServerProcess) -> AsyncIterator[PipelineProxy]:
    """A proxy before the shared server."""
    async with pipeline_proxy(shared_server.target) as found:
        yield found


def keys_written(operation: pb.Operation) -> list[str]:
    return [one.put.key for one in operation.store_batch.operations if one.HasField("put")]


async def test_callers_of_one_loop_share_messages_on_the_stream_of_their_saver(proxy: PipelineProxy, root: str) -> None:
    async with GrpcSaver(proxy.target) as saver, GrpcStore.from_saver(saver) as store:
        await asyncio.gather(*(store.aput((root,), str(number), {"n": number}) for number in range(64)))
        found = await asyncio.gather(*(store.aget((root,), str(number)) for number in range(64)))
        assert [item.value["n"] for item in found if item] == list(range(64))
        await saver.aget_tuple({"configurable": {"thread_id": root}})
    assert proxy.streams == 1
    batches = [one for one in proxy.operations if one.HasField("store_batch")]
    assert len(batches) < 20


async def test_searches_have_operations_of_their_own(proxy: PipelineProxy, root: str) -> None:
    async with GrpcStore(proxy.target) as store:
        await asyncio.gather(*(store.aput((root, str(number)), "k", {"n": number}) for number in range(20)))
        gets = [store.aget((root, str(number)), "k") for number in range(20)]
        searches = [store.asearch((root,), filter={"n": number}) for number in range(20)]
        counts = [store.acount((root, str(number))) for number in range(20)]
        found, items = await asyncio.gather(asyncio.gather(*searches), asyncio.gather(*gets))
        assert await asyncio.gather(*counts) == [1] * 20
        assert await store.alist_namespaces(prefix=(root,), limit=3) == [(root, "0"), (root, "1"), (root, "10")]
    assert [[one.value["n"] for one in each] for each in found] == [[number] for number in range(20)]
    assert [item.value["n"] for item in items if item] == list(range(20))
    batches = [[one.WhichOneof("operation") for one in sent.store_batch.operations] for sent in proxy.operations]
    assert batches.count(["search"]) == batches.count(["count"]) == 20
    assert batches.count(["list_namespaces"]) == 1
    assert all(len(kinds) == 1 or set(kinds) <= {"get", "put"} for kinds in batches)


async def test_too_many_searches_leave_room_for_others_on_the_stream(proxy: PipelineProxy, root: str) -> None:
    async with GrpcStore(proxy.target) as store:
        await store.aput((root,), "k", {"n": 1})
        answered = []

        async def count() -> None:
            answered.append(await store.acount((root,)))

        counts = [asyncio.ensure_future(count()) for _ in range(3 * MAX_QUERIES)]
        await asyncio.sleep(0)
        item = await store.aget((root,), "k")
        await asyncio.gather(*counts)
    assert item is not None
    assert answered == [1] * 3 * MAX_QUERIES
    streamed = [sent for sent in proxy.operations if sent.store_batch.operations[0].HasField("count")]
    assert MAX_QUERIES <= len(streamed) < 3 * MAX_QUERIES


async def test_a_search_that_is_refused_says_why(proxy: PipelineProxy, root: str) -> None:
    async with GrpcStore(proxy.target) as store:
        with pytest.raises(InvalidArgumentError, match="offset"):
            await store.asearch((root,), offset=2**31 - 1, limit=2**31 - 1)
    assert proxy.operations


async def test_writes_to_one_item_are_made_in_order_and_hold_up_nothing_else(proxy: PipelineProxy, root: str) -> None:
    async with GrpcStore(proxy.target) as store:
        writes = [store.aput((root,), "one", {"n": number}) for number in range(20)]
        others = [store.aput((root,), f"other {number}", {}) for number in range(20)]
        await asyncio.gather(*(one for both in zip(writes, others, strict=True) for one in both))
        item = await store.aget((root,), "one")
        assert item is not None
        assert item.value == {"n": 19}
    written = [keys_written(operation) for operation in proxy.operations]
    assert all(len(keys) == len(set(keys)) for keys in written)
    assert sum("one" in keys for keys in written) == 20
    last_other = max(at for at, keys in enumerate(written) if any(key != "one" for key in keys))
    assert last_other < 10


@pytest.mark.parametrize("verdict", ["lose", "break", overloaded()])
async def test_a_batch_whose_answer_is_lost_is_sent_again_and_done_once(
    verdict: Verdict, proxy: PipelineProxy, root: str
) -> None:
    async with GrpcStore(proxy.target) as store:
        await store.aput((root,), "counter", {"n": 0}, if_version_match=0)
        times = {"left": 3}

        def judge(operation: pb.Operation) -> Verdict:
            if not times["left"]:
                return "pass"
            times["left"] -= 1
            return verdict

        proxy.judge = judge

        def add(value: dict[str, Any] | None) -> dict[str, Any]:
            assert value is not None
            return {"n": value["n"] + 1}

        await asyncio.gather(
            *(store.aupdate((root,), "counter", add, attempts=100) for _ in range(5)),
            *(store.aput((root,), f"{number}", {}) for number in range(30)),
        )
        item = await store.aget((root,), "counter")
        assert item is not None
        assert item.value == {"n": 5}
        assert await store.acount((root,)) == 31


async def test_a_server_without_pipelines_is_called(proxy: PipelineProxy, root: str) -> None:
    proxy.knows_pipelines = False
    async with GrpcStore(proxy.target) as store:
        await asyncio.gather(*(store.aput((root,), str(number), {"n": number}) for number in range(30)))
        assert await store.acount((root,)) == 30
    assert not proxy.operations


async def test_a_closed_store_fails_what_is_in_flight(proxy: PipelineProxy, root: str) -> None:
    proxy.judge = lambda operation: overloaded(60_000)
    store = GrpcStore(proxy.target)
    async with store:
        waiting = [asyncio.ensure_future(store.aget((root,), str(number))) for number in range(100)]
        await asyncio.sleep(0.1)
        store.close()
        outcomes = await asyncio.wait_for(asyncio.gather(*waiting, return_exceptions=True), 20)
    assert all(isinstance(outcome, CheckpointdError) for outcome in outcomes)


async def test_a_key_that_is_taken_away_ends_its_stream(database_url: str, tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    mine, another = (key_entry(f"ckd_{name}", name, "store:read", "store:write", name=name) for name in ("a", "b"))
    keys.write_text(mine + another)
    with ServerProcess("--database-url", database_url, "--keys-file", str(keys), log_dir=tmp_path) as server:
        async with GrpcStore(server.target, token="ckd_a") as store:
            await store.aput(("p",), "k", {"n": 1})
            keys.write_text(another)

            async def read_on() -> None:
                while True:
                    await store.aget(("p",), "k")
                    await asyncio.sleep(0.05)

            with pytest.raises(AccessDeniedError):
                await asyncio.wait_for(read_on(), 30)


async def test_answers_that_are_large_together_all_arrive(shared_server: ServerProcess, root: str) -> None:
    value = {"data": "x" * (7 * 1024 * 1024)}
    async with GrpcStore(shared_server.target) as store:
        for number in range(6):
            await store.aput((root,), str(number), value, index=False)
        found = await asyncio.gather(*(store.aget((root,), str(number)) for number in range(6)))
    assert [item.value == value for item in found if item] == [True] * 6
