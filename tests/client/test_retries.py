"""Calls that are retried within the retry budget, and calls that aren't."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg
import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.rpc.error_details_pb2 import ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status
from langgraph.checkpoint.grpc import (
    DeadlineExceededError,
    GrpcSaver,
    InvalidArgumentError,
    MessageTooLargeError,
    ServerUnavailableError,
)
from langgraph.checkpoint.grpc._transport.retry import Attempts
from langgraph.checkpoint.grpc.errors import CheckpointdError
from langgraph.checkpoint.grpc.options import ClientOptions

from checkpointd_server.domain.tenants import Quotas
from checkpointd_server.rpc import RpcServer, ServerOptions
from checkpointd_server.store import StoreOptions, migrate, open_store
from tests.support.calls import checkpoint, config_of
from tests.support.flaky_link import FlakyLink
from tests.support.local_server import LocalServer
from tests.support.server_process import ServerProcess


@asynccontextmanager
async def narrow_server(database_url: str, calls: int, quotas: Quotas | None = None) -> AsyncIterator[str]:
    """Runs a server that handles few calls at once; yields its address."""
    options = StoreOptions(dsn=database_url, pool_max_size=2)
    await migrate(options)
    async with open_store(options) as store:
        server = RpcServer(
            store, ServerOptions(listen=("127.0.0.1:0",), max_concurrent_calls=calls, quotas=quotas or Quotas())
        )
        (target,) = await server.start()
        server.set_serving(True)
        try:
            yield target
        finally:
            await server.drain(0)


@asynccontextmanager
async def all_heads_locked(database_url: str) -> AsyncIterator[None]:
    """Holds up every put to the namespaces that exist."""
    connection = await asyncpg.connect(database_url)
    try:
        async with connection.transaction():
            assert await connection.fetch("SELECT FROM checkpointd.threads FOR UPDATE")
            yield
    finally:
        await connection.close()


async def test_a_server_with_too_much_to_do_is_tried_again(database_url: str) -> None:
    async with narrow_server(database_url, calls=1) as target, GrpcSaver(target) as saver, GrpcSaver(target) as other:
        await saver.aput(config_of("t"), checkpoint("1"), {}, {})
        async with all_heads_locked(database_url):
            at_work = asyncio.create_task(saver.aput(config_of("t"), checkpoint("2"), {}, {}))
            await asyncio.sleep(0.2)
            awaiting = asyncio.create_task(other.aget_tuple(config_of("t")))
            blocking = asyncio.create_task(asyncio.to_thread(other.get_tuple, config_of("t")))
            await asyncio.sleep(0.3)
            assert not awaiting.done()
            assert not blocking.done()
        await at_work
        for found in await asyncio.gather(awaiting, blocking):
            assert found is not None
            assert found.checkpoint["id"] == "2"


async def test_many_more_calls_than_there_is_room_for_all_come_through(database_url: str) -> None:
    async with narrow_server(database_url, calls=2) as target:
        async with GrpcSaver(target) as saver:

            def talk(number: int) -> None:
                for step in range(5):
                    saver.put(config_of(f"t{number}"), checkpoint(f"{step}"), {}, {})

            await asyncio.gather(*(asyncio.to_thread(talk, number) for number in range(12)))
            found = [await saver.aget_tuple(config_of(f"t{number}")) for number in range(12)]
        assert [saved and saved.checkpoint["id"] for saved in found] == ["4"] * 12


async def test_the_wait_for_room_ends_with_the_budget(database_url: str) -> None:
    async with narrow_server(database_url, calls=1) as target, GrpcSaver(target) as saver:
        await saver.aput(config_of("t"), checkpoint("1"), {}, {})
        async with all_heads_locked(database_url):
            at_work = asyncio.create_task(saver.aput(config_of("t"), checkpoint("2"), {}, {}))
            await asyncio.sleep(0.2)
            async with GrpcSaver(target, retry_budget=0.3) as impatient:
                begun = time.monotonic()
                with pytest.raises(ServerUnavailableError, match=r"didn't take GetCheckpoint within 0\.3 s"):
                    await impatient.aget_tuple(config_of("t"))
                assert time.monotonic() - begun >= 0.3
        await at_work


async def test_what_is_too_large_is_not_tried_again(database_url: str, tmp_path: Path) -> None:
    huge: Any = {"note": "x" * (70 * 1024 * 1024)}
    options = ("--database-url", database_url, "--max-value-bytes", str(1024 * 1024))
    with ServerProcess(*options, log_dir=tmp_path) as server:
        async with GrpcSaver(server.target, retry_budget=60) as saver:
            begun = time.monotonic()
            with pytest.raises(InvalidArgumentError, match="channel 'a' has a value of"):
                await saver.aput(config_of("t"), checkpoint("1", {"a": "x" * 2_000_000}), {}, {"a": 1})
            # Metadata isn't split into parts.
            with pytest.raises(MessageTooLargeError):
                await saver.aput(config_of("t"), checkpoint("1"), huge, {})
            assert time.monotonic() - begun < 30


class Refusal(grpc.RpcError):  # type: ignore[misc]
    """A call's failure as a server sends it."""

    def __init__(self, code: grpc.StatusCode, reason: str, delay: float | None = None) -> None:
        super().__init__(reason)
        self._code = code
        status = Status(code=code.value[0], message=reason)
        status.details.add().Pack(ErrorInfo(domain="checkpointd", reason=reason))
        if delay is not None:
            status.details.add().Pack(
                RetryInfo(retry_delay=Duration(nanos=int(delay * 1e9) % 10**9, seconds=int(delay)))
            )
        self._status = status

    def code(self) -> grpc.StatusCode:
        return self._code

    def details(self) -> str:
        return str(self._status.message)

    def trailing_metadata(self) -> tuple[tuple[str, bytes], ...]:
        return (("grpc-status-details-bin", self._status.SerializeToString()),)


def attempts(**options: Any) -> Attempts:
    return Attempts(ClientOptions(target="127.0.0.1:1", **options), "PutCheckpoint")


@pytest.mark.parametrize("code", [grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.UNAVAILABLE])
def test_a_server_that_says_when_to_come_back_is_heeded(code: grpc.StatusCode) -> None:
    pauses = [attempts().pause_after(Refusal(code, "OVERLOADED", delay=2.5)) for _ in range(50)]
    assert all(2.5 <= pause <= 3.75 for pause in pauses)
    assert len(set(pauses)) > 40


def test_a_hint_beyond_the_budget_is_not_waited_out() -> None:
    assert attempts(retry_budget=1).pause_after(Refusal(grpc.StatusCode.RESOURCE_EXHAUSTED, "OVERLOADED", 60)) <= 1


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (grpc.StatusCode.RESOURCE_EXHAUSTED, "SOMETHING_FULL_FOR_GOOD"),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, "MESSAGE_TOO_LARGE"),
        (grpc.StatusCode.INTERNAL, "INTERNAL"),
        (grpc.StatusCode.ABORTED, "THREAD_EXISTS"),
    ],
)
def test_what_waiting_can_not_mend_is_final(code: grpc.StatusCode, reason: str) -> None:
    with pytest.raises(CheckpointdError) as raised:
        attempts().pause_after(Refusal(code, reason))
    assert not isinstance(raised.value, ServerUnavailableError)


async def test_an_attempt_that_a_stall_swallowed_is_made_again(local_server: LocalServer) -> None:
    with FlakyLink(local_server.target) as link:
        async with GrpcSaver(link.target, timeout=0.5, retry_budget=30) as saver:
            await saver.aput(config_of("t"), checkpoint("1"), {}, {})
            link.stall()
            awaiting = asyncio.create_task(saver.aput(config_of("t"), checkpoint("2"), {}, {}))
            blocking = asyncio.create_task(asyncio.to_thread(saver.get_tuple, config_of("t")))
            await asyncio.sleep(1.2)
            link.resume()
            await asyncio.gather(awaiting, blocking)
            assert len([saved async for saved in saver.alist(config_of("t"))]) == 2


def test_a_stall_beyond_the_budget_is_a_deadline(local_server: LocalServer) -> None:
    with FlakyLink(local_server.target) as link, GrpcSaver(link.target, timeout=1, retry_budget=3) as saver:
        saver.get_tuple(config_of("t"))
        link.stall()
        begun = time.monotonic()
        with pytest.raises(DeadlineExceededError):
            saver.get_tuple(config_of("t"))
        assert time.monotonic() - begun >= 3


async def test_a_statement_that_the_database_gave_up_is_not_made_again(
    server: ServerProcess, database_url: str
) -> None:
    """A call that is too expensive for the database stays so, however long one waits."""
    connection = await asyncpg.connect(database_url)
    name = await connection.fetchval("SELECT current_database()")
    async with GrpcSaver(server.target) as saver:
        await saver.aput(config_of("t"), checkpoint("1"), {}, {})
        await connection.execute(f"ALTER DATABASE {name} SET statement_timeout = '1s'")
        server.restart()
        assert await saver.aget_tuple(config_of("t")) is not None
        async with all_heads_locked(database_url):
            begun = time.monotonic()
            with pytest.raises(DeadlineExceededError):
                await saver.aput(config_of("t"), checkpoint("2"), {}, {})
            assert time.monotonic() - begun < 10
    await connection.close()


def test_tls_with_a_server_that_speaks_none_is_explained(
    shared_server: ServerProcess, caplog: pytest.LogCaptureFixture
) -> None:
    # One address, not "localhost": with several, gRPC reports the failure of the last, which may be a different one.
    with (
        caplog.at_level(logging.WARNING),
        GrpcSaver(shared_server.target, tls=True, retry_budget=3) as saver,
        pytest.raises(ServerUnavailableError, match="doesn't use TLS"),
    ):
        saver.get_tuple(config_of("t"))
    # The log explains it even before the budget is used up.
    assert "trying again" in caplog.text


@pytest.mark.parametrize("concurrency", ["optimistic", "last_write_wins"])
async def test_who_is_throttled_is_told_by_which_quota(
    concurrency: Any, database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with (
        narrow_server(database_url, 100, Quotas(max_calls_per_second=2)) as target,
        GrpcSaver(target, retry_budget=30, concurrency=concurrency) as saver,
    ):
        with caplog.at_level(logging.WARNING):
            for number in range(4):
                await saver.aput(config_of("t"), checkpoint(f"{number}"), {}, {})
                await saver.aget_tuple(config_of("t"))
        told = [record.getMessage() for record in caplog.records if "trying again" in record.getMessage()]
        assert told
        for line in told:
            assert f"checkpointd at {target} throttles this tenant to its quota of 2 calls a second" in line
            assert "unavailable" not in line
    async with (
        narrow_server(database_url, 100, Quotas(max_calls_per_second=1)) as target,
        GrpcSaver(target, retry_budget=0) as saver,
    ):

        async def until_refused() -> None:
            for number in range(10, 20):
                await saver.aput(config_of("t"), checkpoint(f"{number}"), {}, {})

        with pytest.raises(ServerUnavailableError, match="throttles this tenant to its quota of 1 calls a second"):
            await until_refused()
