"""Calls that are made at once share RPCs, and nobody can tell from what comes of them."""

from __future__ import annotations

import asyncio
import os
import re
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from langgraph.checkpoint.grpc import GrpcSaver, InvalidArgumentError, VersionConflictError, runs

from tests.client.older_server import older_server
from tests.client.puts import calls, holding, thread
from tests.support import graphs
from tests.support.comparison import Ledger
from tests.support.runs import a_run, at
from tests.support.server_process import ServerProcess


def messages(server: ServerProcess) -> list[int]:
    """How many calls there were in each message over an open call, by the server's log."""
    return [int(n) for n in re.findall(r" method=CheckpointService/StreamBatches operations=([0-9]+)", server.stderr)]


async def test_calls_made_at_once_share_messages(server: ServerProcess) -> None:
    async with GrpcSaver(server.target) as saver:
        threads = [thread() for _ in range(50)]
        await asyncio.gather(*(saver.aput(config, holding(i), {}, {"a": 1}) for i, config in enumerate(threads)))
        found = await asyncio.gather(*(saver.aget_tuple(config) for config in threads))
    values = [saved.checkpoint["channel_values"]["a"] for saved in found if saved is not None]
    assert values == list(range(50))
    assert sum(messages(server)) == 100
    assert len(messages(server)) < 20


async def test_a_call_alone_is_a_message_of_its_own(server: ServerProcess) -> None:
    async with GrpcSaver(server.target) as saver:
        config = thread()
        for i in range(3):
            await saver.aput(config, holding(i), {}, {"a": 1})
    assert messages(server) == [1, 1, 1]


async def test_what_a_run_saves_at_once_is_stored_in_order(shared_server: ServerProcess) -> None:
    """A put, the writes beside it, and the next put: as LangGraph saves in the background."""
    async with GrpcSaver(shared_server.target) as saver:

        async def save() -> None:
            run = a_run(thread())
            await saver.aget_tuple(run)
            first, second = holding(1), holding(2)
            writes = asyncio.create_task(saver.aput_writes(at(run, first), [("a", 1)], "task"))
            await saver.aput(run, first, {}, {"a": 1})
            await asyncio.gather(
                saver.aput_writes(at(run, first), [("a", 2)], "other task"),
                saver.aput(at(run, first), second, {}, {"a": 1}),
                saver.aput_writes(at(run, second), [("a", 3)], "task"),
                writes,
            )
            history = [saved async for saved in saver.alist(thread(run["configurable"]["thread_id"]))]
            assert [len(saved.pending_writes or []) for saved in history] == [1, 2]

        await asyncio.gather(*(save() for _ in range(30)))


async def test_a_step_of_a_graph_is_one_commit(server: ServerProcess, database_url: str) -> None:
    """The task writes of a step go with the next put, though they were made when that knew another version."""
    connection = await asyncpg.connect(database_url)
    async with GrpcSaver(server.target) as saver:
        agent = graphs.line(Ledger()).compile(checkpointer=saver)
        for _ in range(10):
            config: Any = thread()
            before = await connection.fetchval("SELECT txid_current()")
            await agent.ainvoke({"path": []}, config)
            commits = await connection.fetchval("SELECT txid_current()") - before - 1
            saved = [found async for found in saver.alist(config)]
            assert sum(len(found.pending_writes or ()) for found in saved) >= 4
            # What comes between, such as a server that looks after something, is no step's commit.
            if commits == len(saved):
                break
        else:
            pytest.fail(f"{commits} commits for {len(saved)} checkpoints")
    await connection.close()


async def test_each_call_fails_for_itself(shared_server: ServerProcess) -> None:
    async with GrpcSaver(shared_server.target) as saver:
        contested = thread()
        runs = [a_run(contested) for _ in range(5)]
        for run in runs:
            await saver.aget_tuple(run)
        outcomes = await asyncio.gather(
            *(saver.aput(run, holding(1), {}, {}) for run in runs),
            saver.aput(thread("x" * 600), holding(1), {}, {}),
            *(saver.aput(thread(), holding(1), {}, {}) for _ in range(5)),
            return_exceptions=True,
        )
    won = [outcome for outcome in outcomes[:5] if not isinstance(outcome, BaseException)]
    lost = [outcome for outcome in outcomes[:5] if isinstance(outcome, VersionConflictError)]
    assert (len(won), len(lost)) == (1, 4)
    assert isinstance(outcomes[5], InvalidArgumentError)
    assert outcomes[5].field == "thread_id"
    assert not [outcome for outcome in outcomes[6:] if isinstance(outcome, BaseException)]


async def test_a_cancelled_call_leaves_the_others_alone(shared_server: ServerProcess) -> None:
    async with GrpcSaver(shared_server.target) as saver:
        puts = [asyncio.create_task(saver.aput(thread(), holding(i), {}, {})) for i in range(20)]
        await asyncio.sleep(0)
        for put in puts[::2]:
            put.cancel()
        outcomes = await asyncio.gather(*puts, return_exceptions=True)
    assert all(isinstance(outcome, asyncio.CancelledError) for outcome in outcomes[::2])
    assert not [outcome for outcome in outcomes[1::2] if isinstance(outcome, BaseException)]


async def test_calls_that_wait_for_a_lock_do_not_hold_up_the_others(server: ServerProcess, database_url: str) -> None:
    async with GrpcSaver(server.target) as saver:
        locked = [thread() for _ in range(4)]
        for config in locked:
            await saver.aput(config, holding(1), {}, {})
        connection = await asyncpg.connect(database_url)
        try:
            async with connection.transaction():
                await connection.execute("SELECT FROM checkpointd.threads FOR UPDATE")
                stuck = [asyncio.create_task(saver.aput(config, holding(2), {}, {})) for config in locked]
                await asyncio.sleep(0)
                await asyncio.wait_for(saver.aput(thread(), holding(3), {}, {}), 20)
                assert not any(put.done() for put in stuck)
            await asyncio.gather(*stuck)
        finally:
            await connection.close()


async def test_a_blocking_write_does_not_wait_for_ever_for_a_put_in_its_own_loop(
    shared_server: ServerProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runs, "LONGEST_BLOCKING_WAIT", 0.2)
    async with GrpcSaver(shared_server.target) as saver:
        run, own = a_run(thread()), holding(1)
        await saver.aget_tuple(run)
        put = asyncio.create_task(saver.aput(run, own, {}, {"a": 1}))
        await asyncio.sleep(0)
        saver.put_writes(at(run, own), [("a", 1)], "task")
        await put
        saved = await saver.aget_tuple(run)
    assert saved is not None
    assert saved.pending_writes == [("task", "a", 1)]


async def test_answers_that_do_not_fit_together_come_one_by_one(database_url: str, tmp_path: Path) -> None:
    options = ("--database-url", database_url, "--max-message-bytes", str(1024 * 1024))
    with ServerProcess(*options, log_dir=tmp_path) as server:
        async with GrpcSaver(server.target) as saver:
            threads = [thread() for _ in range(8)]
            for config in threads:
                await saver.aput(config, holding(os.urandom(400_000)), {}, {"a": 1})
        async with GrpcSaver(server.target) as saver:  # which knows no piece of the values
            found = await asyncio.gather(*(saver.aget_tuple(config) for config in threads))
        assert all(saved is not None for saved in found)
        assert max(messages(server)) > 1
        assert calls(server, "GetCheckpoint")


@pytest.mark.parametrize("unknown", [("StreamBatches",), ("StreamBatches", "Batch")])
async def test_a_server_that_knows_less_is_called_as_it_can_be(server: ServerProcess, unknown: tuple[str, ...]) -> None:
    async with older_server(server.target, unknown) as target, GrpcSaver(target) as saver:
        threads = [thread() for _ in range(12)]
        for _ in range(2):
            await asyncio.gather(*(saver.aput(config, holding(1), {}, {}) for config in threads))
        assert all(await asyncio.gather(*(saver.aget_tuple(config) for config in threads)))
    assert bool(calls(server, "Batch")) == ("Batch" not in unknown)


@pytest.mark.parametrize("loops", [3])
def test_event_loops_come_and_go(shared_server: ServerProcess, loops: int) -> None:
    """Each loop has its own channel, and one that has ended doesn't keep it."""
    saver = GrpcSaver(shared_server.target)

    async def work() -> None:
        await asyncio.gather(*(saver.aput(thread(), holding(1), {}, {}) for _ in range(5)))

    for _ in range(loops):
        asyncio.run(work())
    assert len(saver._caller.channels._by_loop) == 1
    saver.close()
