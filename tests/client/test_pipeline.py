"""The pipeline of a saver: calls share streams and messages, and their results don't show it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg
import grpc
import grpc.aio
import pytest
from langgraph.checkpoint.grpc import DeadlineExceededError, GrpcSaver, InvalidArgumentError, VersionConflictError
from langgraph.checkpoint.grpc._transport.stream import Stream

from checkpointd_server.domain.access import Scope
from checkpointd_server.rpc.auth.api_keys import new_key
from tests.support.calls import checkpoint, config_of
from tests.support.flaky_link import FlakyLink
from tests.support.gates import new_thread
from tests.support.local_server import LocalServer
from tests.support.pipeline_proxy import pipeline_proxy
from tests.support.runs import a_run, at, holding
from tests.support.server_process import ServerProcess
from tests.support.tuned import tuned
from tests.support.until import auntil


async def test_all_goes_over_one_stream(shared_server: ServerProcess, opened: list[Stream], thread_id: str) -> None:
    async with GrpcSaver(shared_server.target) as saver:
        for number in range(1, 4):
            await saver.aput(config_of(thread_id), checkpoint(str(number)), {}, {})
        await asyncio.gather(*(saver.aget_tuple(config_of(thread_id)) for _ in range(20)))
    assert len(opened) == 1


async def test_what_a_run_saves_at_once_is_stored_in_order(shared_server: ServerProcess) -> None:
    """A put, the writes beside it, and the next put: as LangGraph saves in the background."""
    async with GrpcSaver(shared_server.target) as saver:

        async def save() -> None:
            thread = new_thread()
            run = a_run(thread)
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
            history = [saved async for saved in saver.alist(thread)]
            assert [len(saved.pending_writes or []) for saved in history] == [1, 2]

        await asyncio.gather(*(save() for _ in range(30)))


async def test_each_call_fails_for_itself(shared_server: ServerProcess) -> None:
    async with GrpcSaver(shared_server.target) as saver:
        contested = new_thread()
        runs = [a_run(contested) for _ in range(5)]
        for run in runs:
            await saver.aget_tuple(run)
        outcomes = await asyncio.gather(
            *(saver.aput(run, holding(1), {}, {}) for run in runs),
            saver.aput(config_of("x" * 600), holding(1), {}, {}),
            *(saver.aput(new_thread(), holding(1), {}, {}) for _ in range(5)),
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
        puts = [asyncio.create_task(saver.aput(new_thread(), holding(i), {}, {})) for i in range(20)]
        await asyncio.sleep(0)
        for put in puts[::2]:
            put.cancel()
        outcomes = await asyncio.gather(*puts, return_exceptions=True)
    assert all(isinstance(outcome, asyncio.CancelledError) for outcome in outcomes[::2])
    assert not [outcome for outcome in outcomes[1::2] if isinstance(outcome, BaseException)]


async def test_calls_that_wait_for_locks_hold_up_neither_others_nor_their_end(
    local_server: LocalServer, blocker: Any, opened: list[Stream]
) -> None:
    async with GrpcSaver(local_server.target) as saver:
        locked = [new_thread() for _ in range(4)]
        await asyncio.gather(*(saver.aput(config, holding(1), {}, {}) for config in locked))
        async with blocker():
            stuck = [asyncio.create_task(saver.aput(config, holding(2), {}, {})) for config in locked]
            await asyncio.sleep(0)
            await asyncio.wait_for(saver.aput(new_thread(), holding(3), {}, {}), 20)
            assert not any(put.done() for put in stuck)
        await asyncio.gather(*stuck)
    assert len(opened) == 1


async def test_many_calls_that_wait_for_locks_do_not_hold_up_reads(local_server: LocalServer, blocker: Any) -> None:
    async with GrpcSaver(local_server.target) as saver:
        locked = [new_thread() for _ in range(20)]
        await asyncio.gather(*(saver.aput(config, holding(1), {}, {}) for config in locked))
        async with blocker():
            stuck = []
            for config in locked:
                stuck.append(asyncio.create_task(saver.aput(config, holding(2), {}, {})))
                await asyncio.sleep(0.02)
            assert await asyncio.wait_for(saver.aget_tuple(new_thread()), 20) is None
            assert not any(put.done() for put in stuck)
        await asyncio.gather(*stuck)


async def test_a_blocking_write_does_not_wait_for_a_put_in_its_own_loop(shared_server: ServerProcess) -> None:
    """The put can't even be sent meanwhile."""
    async with GrpcSaver(shared_server.target) as saver:
        run, own = a_run(new_thread()), holding(1)
        await saver.aget_tuple(run)
        put = asyncio.create_task(saver.aput(run, own, {}, {"a": 1}))
        await asyncio.sleep(0)
        saver.put_writes(at(run, own), [("a", 1)], "task")
        assert saver.get_tuple(run) is None
        await put
        saved = await saver.aget_tuple(run)
    assert saved is not None
    assert saved.pending_writes == [("task", "a", 1)]


async def test_a_server_without_pipelines_is_called_without(shared_server: ServerProcess) -> None:
    async with pipeline_proxy(shared_server.target) as proxy:
        proxy.knows_pipelines = False
        async with GrpcSaver(proxy.target) as saver:
            threads = [new_thread() for _ in range(12)]
            for turn in range(3):
                puts = (saver.aput(config, holding(turn), {}, {"a": 1}) for config in threads for _ in range(2))
                await asyncio.gather(*puts)
            found = await asyncio.gather(*(saver.aget_tuple(config) for config in threads))
            assert [saved and saved.checkpoint["channel_values"]["a"] for saved in found] == [2] * 12
            # Blocking calls, too.
            assert await asyncio.to_thread(saver.get_tuple, threads[0])
        assert proxy.streams == 0


async def test_where_a_server_has_too_much_to_do_another_stream_is_tried(
    database_url: str, tmp_path: Path, opened: list[Stream], blocker: Any
) -> None:
    """A name may stand for several servers, and the next stream may reach another one."""
    options = ("--database-url", database_url, "--pool-max-size", "1", "--max-queue-seconds", "0.2")
    with ServerProcess(*options, log_dir=tmp_path) as server:
        async with GrpcSaver(server.target) as saver:
            await saver.aput(config_of("t"), checkpoint("1"), {}, {})
            async with blocker():
                stuck = asyncio.create_task(saver.aput(config_of("t"), checkpoint("2"), {}, {}))
                await asyncio.sleep(0.3)
                refused = asyncio.create_task(saver.aget_tuple(config_of("another")))
                await auntil(lambda: len(opened) > 1)
            await stuck
            assert await refused is None


async def test_who_has_another_token_has_another_stream(
    database_url: str, tmp_path: Path, opened: list[Stream]
) -> None:
    keys = {tenant: new_key(tenant, [Scope.ADMIN], tenant) for tenant in ("a", "b", "c")}
    file = tmp_path / "keys.toml"
    file.write_text("\n".join(entry for _, entry in keys.values()))
    tenant = "a"
    with ServerProcess("--database-url", database_url, "--keys-file", str(file), log_dir=tmp_path) as server:
        async with tuned(max_streams=2)(server.target, token=lambda: keys[tenant][0]) as saver:
            for turn in range(2):
                for tenant in keys:
                    found = await saver.aget_tuple(config_of("t"))
                    assert (found is None) is (turn == 0)
                    await saver.aput(config_of("t"), checkpoint(f"{turn} of {tenant}"), {}, {})
                    found = await saver.aget_tuple(config_of("t"))
                    assert found is not None
                    assert found.checkpoint["id"] == f"{turn} of {tenant}"
    assert len(opened) == 2  # the third tenant goes without


async def test_a_token_that_changes_in_the_midst_of_a_run_keeps_its_order(
    database_url: str, tmp_path: Path, opened: list[Stream]
) -> None:
    keys = [new_key("tenant", [Scope.ADMIN], f"key {number}") for number in range(2)]
    file = tmp_path / "keys.toml"
    file.write_text("\n".join(entry for _, entry in keys))
    turn = 0

    def token() -> str:
        nonlocal turn
        turn += 1
        return keys[turn // 3 % 2][0]

    with ServerProcess("--database-url", database_url, "--keys-file", str(file), log_dir=tmp_path) as server:
        async with GrpcSaver(server.target, token=token) as saver:
            thread = new_thread()
            run = config = a_run(thread)
            await saver.aget_tuple(run)
            calls = []
            for number in range(20):
                own = holding(number)
                calls.append(asyncio.create_task(saver.aput_writes(at(run, own), [("a", number)], "task")))
                await asyncio.sleep(0)
                await saver.aput(config, own, {}, {"a": 1})
                config = at(run, own)
            await asyncio.gather(*calls)
            assert len([saved async for saved in saver.alist(thread)]) == 20
    assert len(opened) >= 2


async def test_a_call_that_takes_too_long_fails_for_itself(
    local_server: LocalServer, blocker: Any, opened: list[Stream]
) -> None:
    async with GrpcSaver(local_server.target, timeout=4, retry_budget=0) as saver:
        await saver.aput(config_of("t"), checkpoint("1"), {}, {})
        async with blocker() as blocked:
            stuck = asyncio.create_task(saver.aput(config_of("t"), checkpoint("2"), {}, {}))
            await blocked.until_waiting(1)
            assert await saver.aget_tuple(config_of("another")) is None
            assert not stuck.done()
            with pytest.raises(DeadlineExceededError):
                await stuck
        await saver.aput(config_of("t"), checkpoint("3"), {}, {})
    assert len(opened) == 1


async def test_an_answer_that_does_not_come_is_not_waited_for(shared_server: ServerProcess, thread_id: str) -> None:
    with FlakyLink(shared_server.target) as link:
        async with GrpcSaver(link.target, timeout=4, retry_budget=0) as saver:
            await saver.aput(config_of(thread_id), checkpoint("1"), {}, {})
            link.hold_answers()
            with pytest.raises(DeadlineExceededError):
                await saver.aget_tuple(config_of(thread_id))
            link.resume()
            # The late answer belongs to no call.
            found = await saver.aget_tuple(config_of(thread_id))
            assert found is not None


async def test_a_cancelled_put_is_stored_before_a_later_read_is_answered(shared_server: ServerProcess) -> None:
    async with GrpcSaver(shared_server.target) as saver:
        for _ in range(50):
            config = new_thread()
            put = asyncio.create_task(saver.aput(config, holding(1), {}, {"a": 1}))
            await asyncio.sleep(0)
            put.cancel()
            found = await saver.aget_tuple(config)
            assert found is not None
            with pytest.raises(asyncio.CancelledError):
                await put


@asynccontextmanager
async def holding_proxy(target: str) -> AsyncIterator[str]:
    """A proxy that forwards what a client sends only once the client has sent all of it."""
    async with grpc.aio.insecure_channel(target) as channel:

        class Forward(grpc.GenericRpcHandler):  # type: ignore[misc]
            def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
                async def answer(requests: Any, context: grpc.aio.ServicerContext) -> None:
                    sent = [request async for request in requests]
                    async for response in channel.stream_stream(details.method)(iter(sent)):
                        await context.write(response)

                return grpc.stream_stream_rpc_method_handler(answer)

        server = grpc.aio.server()
        server.add_generic_rpc_handlers((Forward(),))
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        yield f"127.0.0.1:{port}"
        await server.stop(0)


async def test_a_proxy_that_lets_nothing_through_is_gone_around(
    shared_server: ServerProcess, opened: list[Stream], thread_id: str
) -> None:
    async with holding_proxy(shared_server.target) as target, tuned(silence_timeout=0.3)(target) as saver:
        for number in range(3):
            await saver.aput(config_of(thread_id), checkpoint(str(number)), {}, {})
        found = await saver.aget_tuple(config_of(thread_id))
    assert found is not None
    assert found.checkpoint["id"] == "2"
    assert len(opened) == 1


async def test_a_proxy_is_gone_around_however_short_a_call_may_take(
    shared_server: ServerProcess, thread_id: str
) -> None:
    async with holding_proxy(shared_server.target) as target, GrpcSaver(target, timeout=2, retry_budget=0) as saver:
        assert await saver.aget_tuple(config_of(thread_id)) is None


async def test_a_stream_whose_first_operation_takes_long_is_not_taken_for_held_back(
    local_server: LocalServer, blocker: Any, opened: list[Stream]
) -> None:
    async with GrpcSaver(local_server.target) as other:
        await other.aput(config_of("t"), checkpoint("1"), {}, {})
    async with tuned(silence_timeout=0.5)(local_server.target) as saver:
        async with blocker():
            stuck = asyncio.create_task(saver.aput(config_of("t"), checkpoint("2"), {}, {}))
            await asyncio.sleep(1.5)
            assert not stuck.done()
            assert opened[1].is_open
        await stuck
    assert len(opened) == 2


async def test_a_saver_of_several_servers_spreads_its_namespaces_over_them(
    database_url: str, tmp_path: Path, opened: list[Stream]
) -> None:
    one = tmp_path / "one"
    one.mkdir()
    with (
        ServerProcess("--database-url", database_url, log_dir=tmp_path) as server,
        ServerProcess("--database-url", database_url, log_dir=one) as another,
    ):
        async with GrpcSaver(f"{server.target},{another.target}", retry_budget=5) as saver:
            for number in range(10):
                await saver.aput(config_of(f"{number}"), checkpoint("1"), {}, {})
            assert len(opened) == 2
            # One of them ends in the middle of a run, which continues over the other.
            run = config = a_run(config_of("run"))
            await saver.aget_tuple(run)
            writes = []
            for number in range(20):
                own = holding(number)
                writes.append(asyncio.create_task(saver.aput_writes(at(run, own), [("a", number)], "task")))
                await asyncio.sleep(0)
                await saver.aput(config, own, {}, {"a": 1})
                config = at(run, own)
                if number == 10:
                    server.kill()
            await asyncio.gather(*writes)
            assert len([saved async for saved in saver.alist(config_of("run"))]) == 20


async def test_a_slow_server_is_given_no_more_than_it_can_take(
    shared_server: ServerProcess, monkeypatch: pytest.MonkeyPatch, opened: list[Stream]
) -> None:
    async with tuned(max_in_flight=8, max_message_operations=4)(shared_server.target) as saver:
        most = 0

        def look() -> None:
            nonlocal most
            for each in opened:
                most = max(most, len(each.unanswered) - len(each._outbox))

        take = Stream._message

        def noted(self: Stream) -> bytes:
            message = take(self)
            look()
            return message

        monkeypatch.setattr(Stream, "_message", noted)
        await asyncio.gather(*(saver.aput(new_thread(), holding(i), {}, {}) for i in range(100)))
    assert 0 < most <= 12


@pytest.mark.parametrize("loops", [3])
def test_event_loops_come_and_go(shared_server: ServerProcess, loops: int) -> None:
    """Loops that nobody retains share one background connection; a block's loop has its own while the block lasts."""
    saver = GrpcSaver(shared_server.target)

    async def work() -> None:
        await asyncio.gather(*(saver.aput(new_thread(), holding(1), {}, {}) for _ in range(5)))

    async def block() -> None:
        async with saver.__copy__():
            await work()
            assert len(saver._client.channels._by_loop) == 1

    for _ in range(loops):
        asyncio.run(work())
        asyncio.run(block())
    assert len(saver._client.channels._by_loop) == 0
    saver.close()


async def test_the_server_is_asked_while_it_is_blocked(local_server: LocalServer, database_url: str) -> None:
    """Only reads of the same namespace wait for its writes."""
    async with GrpcSaver(local_server.target) as saver:
        thread = new_thread()
        await saver.aput(thread, holding(1), {}, {"a": 1})
        connection = await asyncpg.connect(database_url)
        async with connection.transaction():
            await connection.execute("SELECT FROM checkpointd.threads FOR UPDATE")
            stuck = asyncio.create_task(saver.aput(thread, holding(2), {}, {"a": 1}))
            read = asyncio.create_task(saver.aget_tuple(thread))
            assert await saver.aget_tuple(new_thread()) is None
            await asyncio.sleep(0.3)
            assert not read.done()
        await connection.close()
        await stuck
        found = await read
        assert found is not None
        assert found.checkpoint["channel_values"]["a"] == 2
