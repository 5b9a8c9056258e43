"""The calls that a saver keeps open: nobody can tell from what comes of its calls that there are any."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg
import grpc
import grpc.aio
import pytest
from langgraph.checkpoint.grpc import DeadlineExceededError, GrpcSaver, MessageTooLargeError, streams

from checkpointd.v1 import checkpoint_service_pb2 as pb
from checkpointd_server.domain.access import Scope
from checkpointd_server.rpc import open_calls
from checkpointd_server.rpc.auth.key_file import new_key
from tests.support.calls import checkpoint, config_of
from tests.support.flaky_link import FlakyLink
from tests.support.server_process import ServerProcess
from tests.support.until import auntil


async def test_all_goes_over_one_call(shared_server: ServerProcess, opened: list[streams.Stream]) -> None:
    async with GrpcSaver(shared_server.target) as saver:
        for number in range(1, 4):
            await saver.aput(config_of("one call"), checkpoint(str(number)), {}, {})
        await asyncio.gather(*(saver.aget_tuple(config_of("one call")) for _ in range(20)))
    assert len(opened) == 1


async def test_where_a_server_has_too_much_to_do_another_call_is_tried(
    database_url: str, tmp_path: Path, opened: list[streams.Stream]
) -> None:
    """A name may stand for several servers, of which the next call may reach another."""
    options = ("--database-url", database_url, "--pool-max-size", "1", "--max-queue-seconds", "0.2")
    with ServerProcess(*options, log_dir=tmp_path) as server:
        async with GrpcSaver(server.target) as saver:
            await saver.aput(config_of("t"), checkpoint("1"), {}, {})
            connection = await asyncpg.connect(database_url)
            async with connection.transaction():
                await connection.execute("SELECT FROM checkpointd.threads FOR UPDATE")
                stuck = asyncio.create_task(saver.aput(config_of("t"), checkpoint("2"), {}, {}))
                await asyncio.sleep(0.3)
                refused = asyncio.create_task(saver.aget_tuple(config_of("another")))
                await auntil(lambda: len(opened), lambda number: number >= 2)
            await connection.close()
            await stuck
            assert await refused is None


async def test_an_answer_that_is_not_as_it_should_be_is_an_error() -> None:
    async def answer(requests: object, context: grpc.aio.ServicerContext) -> None:
        while (raw := await context.read()) is not grpc.aio.EOF:
            number = pb.StreamBatchesRequest.FromString(raw).id
            results = [pb.BatchResult()] if number > 1 else []
            await context.write(pb.StreamBatchesResponse(id=number, results=results).SerializeToString())

    server = grpc.aio.server()
    handlers = {"StreamBatches": grpc.stream_stream_rpc_method_handler(answer)}
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler("checkpointd.v1.CheckpointService", handlers),)
    )
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with GrpcSaver(f"127.0.0.1:{port}") as saver, asyncio.timeout(10):
        for _ in range(2):
            with pytest.raises((ValueError, TypeError)):
                await saver.aget_tuple(config_of("t"))
    await server.stop(0)


async def test_who_has_another_token_has_another_call(
    database_url: str, tmp_path: Path, opened: list[streams.Stream], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "MOST", 2)
    keys = {tenant: new_key(tenant, [Scope.ADMIN], tenant) for tenant in ("a", "b", "c")}
    file = tmp_path / "keys.toml"
    file.write_text("\n".join(entry for _, entry in keys.values()))
    tenant = "a"
    with ServerProcess("--database-url", database_url, "--keys-file", str(file), log_dir=tmp_path) as server:
        async with GrpcSaver(server.target, token=lambda: keys[tenant][0]) as saver:
            for turn in range(2):
                for tenant in keys:
                    found = await saver.aget_tuple(config_of("t"))
                    assert (found is None) is (turn == 0)
                    await saver.aput(config_of("t"), checkpoint(f"{turn} of {tenant}"), {}, {})
                    found = await saver.aget_tuple(config_of("t"))
                    assert found is not None
                    assert found.checkpoint["id"] == f"{turn} of {tenant}"
    assert len(opened) == 2  # the third goes without


async def test_a_call_that_takes_too_long_fails_for_itself(
    server: ServerProcess, blocker: Any, opened: list[streams.Stream]
) -> None:
    async with GrpcSaver(server.target, timeout=4, retry_budget=0) as saver:
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


async def test_many_calls_that_wait_for_locks_hold_up_neither_others_nor_their_end(
    database_url: str, tmp_path: Path, opened: list[streams.Stream]
) -> None:
    locked = [config_of(f"locked {number}") for number in range(20)]
    options = ("--database-url", database_url, "--pool-max-size", "40")
    with ServerProcess(*options, log_dir=tmp_path) as server:
        async with GrpcSaver(server.target) as saver:
            await asyncio.gather(*(saver.aput(config, checkpoint("1"), {}, {}) for config in locked))
            connection = await asyncpg.connect(database_url)
            try:
                async with connection.transaction():
                    await connection.execute("SELECT FROM checkpointd.threads FOR UPDATE")
                    stuck = []
                    for config in locked:
                        stuck.append(asyncio.create_task(saver.aput(config, checkpoint("2"), {}, {})))
                        await asyncio.sleep(0.12)  # so that each is a message, or a call, of its own
                    async with asyncio.timeout(10):
                        assert await saver.aget_tuple(config_of("another")) is None
                    assert not any(put.done() for put in stuck)
                    assert len(opened[0]._answers) == streams.MOST_UNANSWERED < open_calls.MESSAGES_AT_WORK
            finally:
                await connection.close()
            await asyncio.gather(*stuck)
    assert len(opened) == 1


async def test_an_answer_that_does_not_come_is_not_waited_for(
    shared_server: ServerProcess, opened: list[streams.Stream]
) -> None:
    with FlakyLink(shared_server.target) as link:
        async with GrpcSaver(link.target, timeout=4, retry_budget=0) as saver:
            await saver.aput(config_of("silent"), checkpoint("1"), {}, {})
            link.hold_answers()
            with pytest.raises(DeadlineExceededError):
                await saver.aget_tuple(config_of("silent"))
            link.resume()
            # The answer that comes late is nobody's.
            found = await saver.aget_tuple(config_of("silent"))
            assert found is not None
    assert len(opened) == 1


async def test_what_nobody_waits_for_is_given_up_at_the_server(
    server: ServerProcess, blocker: Any, opened: list[streams.Stream]
) -> None:
    async with GrpcSaver(server.target) as saver:
        await saver.aput(config_of("t"), checkpoint("1"), {}, {})
        async with blocker() as blocked:
            stuck = asyncio.create_task(saver.aput(config_of("t"), checkpoint("2"), {}, {}))
            await blocked.until_waiting(1)
            stuck.cancel()
            await blocked.until_waiting(0)
        found = await saver.aget_tuple(config_of("t"))
        assert found is not None
        assert found.checkpoint["id"] == "1"
    assert len(opened) == 1


async def test_a_server_that_keeps_no_call_open_is_called_without(
    shared_server: ServerProcess, opened: list[streams.Stream]
) -> None:
    async with GrpcSaver(shared_server.target) as saver:
        await saver.aput(config_of("full"), checkpoint("1"), {}, {})
        (stream,) = opened
        stream._call.cancel()
        await auntil(lambda: not stream.is_open)
        refused = streams._error(grpc.StatusCode.RESOURCE_EXHAUSTED, "1024 calls are open")
        assert saver._caller.channels.aio().batcher.streams.must_do_without(refused)
        assert await saver.aget_tuple(config_of("full"))
    assert len(opened) == 1


async def test_a_call_that_just_fits_alone_is_sent_alone(database_url: str, tmp_path: Path) -> None:
    """An open call adds a few bytes to what it carries."""
    limit = 1024 * 1024
    options = ("--database-url", database_url, "--max-message-bytes", str(limit))
    with ServerProcess(*options, log_dir=tmp_path) as server:
        async with GrpcSaver(server.target) as saver:
            metadata: Any = {"note": "x" * limit}
            with pytest.raises(MessageTooLargeError) as raised:
                await saver.aput(config_of("t"), checkpoint("1"), metadata, {})
            told = re.search(r"has (\d+) bytes", str(raised.value))
            assert told is not None
            metadata["note"] = "x" * (2 * limit - int(told[1]) - 5)
            await saver.aput(config_of("t"), checkpoint("2"), metadata, {})
            found = await saver.aget_tuple(config_of("t"))
        assert re.search(r"method=CheckpointService/StreamBatches.* reason=MESSAGE_TOO_LARGE", server.stderr)
    assert found is not None
    assert found.checkpoint["id"] == "2"


@asynccontextmanager
async def holding_proxy(target: str) -> AsyncIterator[str]:
    """A proxy that passes on what a client sends when the client has sent all of it."""
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
    shared_server: ServerProcess, opened: list[streams.Stream], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "PATIENCE", 0.3)
    async with holding_proxy(shared_server.target) as target, GrpcSaver(target) as saver:
        for number in range(3):
            await saver.aput(config_of("held"), checkpoint(str(number)), {}, {})
        found = await saver.aget_tuple(config_of("held"))
    assert found is not None
    assert found.checkpoint["id"] == "2"
    assert len(opened) == 1


async def test_a_proxy_is_gone_around_however_short_a_call_may_take(shared_server: ServerProcess) -> None:
    async with holding_proxy(shared_server.target) as target, GrpcSaver(target, timeout=2, retry_budget=0) as saver:
        assert await saver.aget_tuple(config_of("short")) is None


async def test_a_call_whose_first_message_takes_long_is_not_taken_for_held_back(
    server: ServerProcess, database_url: str, opened: list[streams.Stream], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "PATIENCE", 0.5)
    async with GrpcSaver(server.target) as saver:
        await asyncio.to_thread(saver.put, config_of("t"), checkpoint("1"), {}, {})
        connection = await asyncpg.connect(database_url)
        async with connection.transaction():
            await connection.execute("SELECT FROM checkpointd.threads FOR UPDATE")
            stuck = asyncio.create_task(saver.aput(config_of("t"), checkpoint("2"), {}, {}))
            await asyncio.sleep(1.5)
            assert not stuck.done()
        await connection.close()
        await stuck
        await saver.aget_tuple(config_of("t"))
        assert opened[0].is_open
    assert len(opened) == 1


async def test_a_call_that_has_answered_is_waited_for_to_the_end(
    server: ServerProcess, database_url: str, opened: list[streams.Stream], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "PATIENCE", 0.5)
    async with GrpcSaver(server.target, timeout=2, retry_budget=0) as saver:
        await asyncio.to_thread(saver.put, config_of("t"), checkpoint("1"), {}, {})
        connection = await asyncpg.connect(database_url)
        async with connection.transaction():
            await connection.execute("SELECT FROM checkpointd.threads FOR UPDATE")
            stuck = asyncio.create_task(saver.aput(config_of("t"), checkpoint("2"), {}, {}))
            await asyncio.sleep(0.1)  # so that each is a message of its own
            assert await saver.aget_tuple(config_of("another")) is None
            with pytest.raises(DeadlineExceededError):
                await stuck
        await connection.close()
        await saver.aget_tuple(config_of("another"))
    assert len(opened) == 1
    assert opened[0]._goes_through


async def test_a_saver_of_several_servers_keeps_none(
    shared_server: ServerProcess, opened: list[streams.Stream]
) -> None:
    for target in (f"{shared_server.target},{shared_server.target}", f"ipv4:{shared_server.target},127.0.0.1:1"):
        async with GrpcSaver(target) as saver:
            await saver.aget_tuple(config_of("several"))
    assert not opened
