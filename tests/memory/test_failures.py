"""GrpcStore when things go wrong, and in any thread, event loop or process."""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar
from pathlib import Path
from typing import Any
from uuid import uuid4

import grpc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from langgraph.checkpoint.grpc import (
    AccessDeniedError,
    CheckpointdError,
    CorruptValueError,
    DeadlineExceededError,
    GrpcSaver,
    GrpcStore,
    ItemConflictError,
    QuotaExceededError,
    ServerUnavailableError,
    UnsupportedError,
    VectorsUnavailableError,
)
from langgraph.checkpoint.grpc._store.index import ItemIndex
from langgraph.checkpoint.grpc._store.operations import CountOp, run_batch
from langgraph.checkpoint.grpc._store.values import ItemSerde
from langgraph.checkpoint.grpc._transport import flows
from langgraph.store.base import GetOp, ListNamespacesOp, PutOp, SearchOp

from checkpointd.v1 import store_service_pb2 as pb
from tests.memory import fork_program
from tests.memory.hostile import HostileServer
from tests.support.api_keys import key_entry
from tests.support.cluster import PostgresCluster
from tests.support.properties import PATIENT
from tests.support.server_process import ServerProcess
from tests.support.until import until


def test_a_server_that_comes_back_is_waited_for(server: ServerProcess, root: str) -> None:
    with GrpcStore(server.target, retry_budget=0.2) as hasty, GrpcStore(server.target) as store:
        store.put((root,), "k", {"n": 1})
        server.stop()
        for call in (lambda: hasty.get((root,), "k"), lambda: hasty.search((root,)), lambda: hasty.count()):
            with pytest.raises(ServerUnavailableError):
                call()
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(store.get, (root,), "k")
            server.restart()
            item = waiting.result(60)
        assert item is not None
        assert item.value == {"n": 1}


def test_vectors_are_refused_where_the_database_lacks_pgvector_and_all_else_works(
    postgres_cluster: PostgresCluster, tmp_path: Path
) -> None:
    name, role = postgres_cluster.create_database(), f"plain_{uuid4().hex[:8]}"
    # A role that may not create extensions can't add it either.
    postgres_cluster.execute(f"CREATE ROLE {role} LOGIN")
    postgres_cluster.execute(f"CREATE SCHEMA checkpointd AUTHORIZATION {role}", database=name)
    index: Any = {"dims": 2, "embed": lambda texts: [[float(len(text)), 1.0] for text in texts]}
    try:
        with (
            ServerProcess("--database-url", postgres_cluster.dsn(name, role=role), log_dir=tmp_path) as server,
            GrpcStore(server.target, index=index, text={"fields": ["text"]}) as store,
            GrpcStore(server.target) as plain,
        ):
            plain.put(("ns",), "old", {"text": "before"})
            for call in (
                lambda: store.put(("ns",), "k", {"text": "train"}),
                lambda: store.search(("ns",), query="train"),
                lambda: store.search(("ns",), query="train", mode="vector"),
                lambda: asyncio.run(store.aput(("ns",), "k", {"text": "train"})),
                lambda: store.batch([PutOp(("ns",), "k", {"text": "train"}), GetOp(("ns",), "old")]),
            ):
                with pytest.raises(VectorsUnavailableError, match="pgvector"):
                    call()
            assert [item.key for item in plain.search(("ns",))] == ["old"]
            store.put(("ns",), "k", {"text": "train", "n": 1}, index=False)
            words = GrpcStore(server.target, text={"fields": ["text"]})
            words.put(("ns",), "w", {"text": "a late train"})
            assert [item.key for item in store.search(("ns",), query="train", mode="text")] == ["w"]
            assert [item.key for item in store.search(("ns",), filter={"n": {"$gte": 1}})] == ["k"]
            assert store.count(("ns",)) == 3
            store.delete(("ns",), "k")
            words.close()
    finally:
        postgres_cluster.drop_database(name)
        postgres_cluster.execute(f"DROP ROLE {role}")


def test_what_is_over_the_quota_of_bytes_is_refused_and_all_else_is_done(database_url: str, tmp_path: Path) -> None:
    options = ("--quota-bytes", "100000", "--quota-refresh-seconds", "0.2")
    with (
        ServerProcess("--database-url", database_url, *options, log_dir=tmp_path) as server,
        GrpcStore(server.target) as store,
    ):
        store.put(("ns",), "small", {"n": 1})

        def fill() -> QuotaExceededError | None:
            try:
                store.put(("ns",), f"{store.count(('ns',))}", {"text": "x" * 20_000})
            except QuotaExceededError as error:
                return error
            return None

        refusal = until(fill)
        assert isinstance(refusal, QuotaExceededError)
        assert (refusal.field, refusal.limit) == ("bytes", 100_000)
        with pytest.raises(QuotaExceededError):
            store.batch([PutOp(("ns",), "more", {"text": "x" * 60_000}), PutOp(("ns",), "small", None)])
        assert store.get(("ns",), "more") is None
        assert store.get(("ns",), "small") is None


async def test_a_server_that_does_not_answer(root: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        target = f"127.0.0.1:{silent.getsockname()[1]}"
        async with GrpcStore(target, timeout=0.3, retry_budget=0) as store:
            with pytest.raises((DeadlineExceededError, ServerUnavailableError)):
                await store.aput((root,), "k", {})


def test_a_server_without_a_store_is_named() -> None:
    server = grpc.server(ThreadPoolExecutor(1))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        with GrpcStore(f"127.0.0.1:{port}") as store, pytest.raises(UnsupportedError, match="Batch"):
            store.get(("a",), "k")
    finally:
        server.stop(0).wait()


def test_a_closed_store_says_so(store: GrpcStore, root: str) -> None:
    store.get((root,), "k")
    store.close()
    store.close()
    with pytest.raises(CheckpointdError, match="closed"):
        store.get((root,), "k")


async def test_operations_that_fail_leave_the_others(store: GrpcStore, root: str) -> None:
    with pytest.raises(CheckpointdError, match="key"):
        store.batch([PutOp((root,), "a", {"n": 1}), PutOp((root,), "x" * 1000, {}), PutOp((root,), "b", {"n": 2})])
    assert store.count((root,)) == 2
    # Operations that are sent together fail separately.
    good, bad = await asyncio.gather(
        store.aput((root,), "c", {}), store.aput((root,), "x" * 1000, {}), return_exceptions=True
    )
    assert good is None
    assert isinstance(bad, CheckpointdError)


async def test_of_writers_in_the_same_moment_one_wins(store: GrpcStore, root: str) -> None:
    outcomes = await asyncio.gather(
        *(store.aput((root,), "k", {"n": number}, if_version_match=0) for number in range(20)), return_exceptions=True
    )
    assert [type(outcome) for outcome in outcomes if outcome is not None] == [ItemConflictError] * 19
    await store.aput((root,), "count", {"n": 0})
    await asyncio.gather(
        *(store.aupdate((root,), "count", lambda value: {"n": (value or {})["n"] + 1}, attempts=100) for _ in range(10))
    )
    item = await store.aget((root,), "count")
    assert item is not None
    assert item.value == {"n": 10}


async def test_a_cancelled_call_disturbs_no_other(store: GrpcStore, root: str) -> None:
    calls = [asyncio.create_task(store.aput((root,), str(number), {})) for number in range(40)]
    await asyncio.sleep(0)
    for call in calls[::2]:
        call.cancel()
    outcomes = await asyncio.gather(*calls, return_exceptions=True)
    assert [outcome for outcome in outcomes[1::2] if outcome is not None] == []
    assert await store.acount((root,)) >= 20


async def test_any_loop_and_any_thread(store: GrpcStore, root: str) -> None:
    def in_a_thread(number: int) -> None:
        store.put((root,), f"thread-{number}", {"n": number})
        asyncio.run(store.aput((root,), f"loop-{number}", {"n": number}))
        assert len(asyncio.run(in_a_block(number))) == 1

    async def in_a_block(number: int) -> Any:
        async with store_of_its_own as own:
            return await own.asearch((root,), filter={"n": number, "own": {"$exists": False}}, limit=1)

    store_of_its_own = GrpcStore(store._client.options.target)
    with ThreadPoolExecutor(4) as pool:
        done = [pool.submit(in_a_thread, number) for number in range(1)]
        await asyncio.gather(*map(asyncio.wrap_future, done))
        await asyncio.gather(
            *(asyncio.to_thread(store.put, (root,), f"to-thread-{number}", {}) for number in range(20)),
            *(store.aput((root,), f"await-{number}", {}) for number in range(20)),
        )
    store.put((root,), "blocking in a loop", {})
    assert await store.acount((root,)) == 43


CALLER: ContextVar[str] = ContextVar("CALLER")


async def test_callers_with_tokens_of_their_own_never_share_a_call(database_url: str, tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    scopes = ("store:read", "store:write")
    entries = [("a", "a", *scopes), ("b", "b", *scopes), ("r", "a", "store:read")]
    keys.write_text("".join(key_entry(f"ckd_{key}", *rest, name=key) for key, *rest in entries))

    async def use(store: GrpcStore, caller: str, number: int) -> Any:
        CALLER.set(f"ckd_{caller}")
        await store.aput(("p",), str(number), {"caller": caller})
        return [item.value["caller"] for item in await store.asearch(("p",), limit=100)]

    with ServerProcess("--database-url", database_url, "--keys-file", str(keys), log_dir=tmp_path) as server:
        async with GrpcStore(server.target, token=CALLER.get) as store:
            found = await asyncio.gather(*(asyncio.create_task(use(store, "ab"[at % 2], at)) for at in range(30)))
            for at, callers in enumerate(found):
                assert set(callers) == {"ab"[at % 2]}
            with pytest.raises(AccessDeniedError):
                await use(store, "r", 1)
            CALLER.set("ckd_r")
            assert await store.acount(("p",)) == 15


@pytest.mark.parametrize(
    "parent",
    [pytest.param("nothing", marks=pytest.mark.long), pytest.param("blocking", marks=pytest.mark.long), "awaiting"],
)
def test_forked_workers(shared_server: ServerProcess, root: str, parent: str) -> None:
    ended = subprocess.run(
        [sys.executable, str(Path(fork_program.__file__)), shared_server.target, root, parent],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout == "[0, 0] 6\n"


def test_a_saver_and_its_store_share_what_they_need(shared_server: ServerProcess, root: str) -> None:
    with GrpcSaver(shared_server.target) as saver:
        saver.get_tuple({"configurable": {"thread_id": root}})  # starts the background loop and gRPC's threads
        before = threading.active_count()
        with GrpcStore.from_saver(saver) as store:
            store.put((root,), "k", {})
            assert store._client is saver._client
        assert threading.active_count() <= before
        assert saver.get_tuple({"configurable": {"thread_id": root}}) is None


OPERATIONS: list[Any] = [
    GetOp(("a",), "k"),
    SearchOp(("a",), limit=2000),
    PutOp(("a",), "k", {"a": 1}),
    PutOp(("a",), "l", None),
    ListNamespacesOp(limit=3),
    CountOp(("a",), None),
]


def ask(server: HostileServer) -> list[Any]:
    return flows.run(run_batch(OPERATIONS, ItemSerde(None, None), ItemIndex(None, None), "target"), server)


@given(seed=st.integers(0, 2**64))
@settings(PATIENT, max_examples=200)
def test_whatever_a_server_answers(seed: int) -> None:
    dice = random.Random(seed)
    server = HostileServer(dice, dice.choice([0.1, 0.5, 1]))
    with contextlib.suppress(CheckpointdError):
        ask(server)
    assert server.calls < 5000


def test_a_sound_answer_is_read() -> None:
    """Otherwise the test above would test nothing."""
    results = ask(HostileServer(random.Random(1), 0))
    assert results[0].value == {"a": 1}
    assert results[1][0].score == 0.5
    assert results[2:4] == [None, None]
    assert results[4:] == [[("a",)] * 3, 3]


@pytest.mark.parametrize(
    ("type_tag", "data"),
    [("msgpack", b"\x93"), ("msgpack", b"\x01"), ("json", b"[1]"), ("json", b"\xff"), ("pickle", b"cos\nsystem\n")],
)
def test_values_that_cannot_have_been_stored(type_tag: str, data: bytes) -> None:
    with pytest.raises(CorruptValueError):
        ItemSerde(None, None).read(pb.ItemValue(type=type_tag, data=data))
