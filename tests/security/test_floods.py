"""Attacks that cost the server much and the caller little: they are bounded, and other clients' calls succeed."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import grpc
import psutil
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from checkpointd.v1 import checkpoint_service_pb2 as pb
from checkpointd.v1 import info_service_pb2 as info
from checkpointd.v1 import value_service_pb2 as values_pb
from checkpointd.v1.info_service_pb2_grpc import InfoServiceStub
from checkpointd_server.rpc import server as rpc_server
from checkpointd_server.rpc.listener.guarded_server import GuardLimits
from tests.security.serving import Serve
from tests.support.api_keys import key_entry
from tests.support.http2 import Http2Client, grpc_message
from tests.support.rpc_client import Client, bearer, connected
from tests.support.server_process import ServerProcess

MEBIBYTE = 1024 * 1024
GET = "checkpointd.v1.CheckpointService/GetCheckpoint"
PIPELINE = "checkpointd.v1.CheckpointService/Pipeline"
VALUE = "checkpointd.v1.ValueService/GetValue"
INFO = "checkpointd.v1.InfoService/GetServerInfo"
CHECK, WATCH = "grpc.health.v1.Health/Check", "grpc.health.v1.Health/Watch"
KEY = "ckd_acme"
TOKEN = [("authorization", f"Bearer {KEY}")]
GENEROUS_SECONDS = 8.0
"""How long a legitimate call may take on a busy machine. Without the limits it took 13 to 20 s on an idle one."""
UNAUTHENTICATED, UNIMPLEMENTED, EXHAUSTED, INVALID, DEADLINE = 16, 12, 8, 3, 4


def large_put(client: Client, size: int) -> pb.PutCheckpointRequest:
    """Returns a put of a value of this size."""
    request = client.put_request(channels=["channel"], channel_versions=["i1"])
    request.values.add(channel="channel", version="i1", value=client.value(bytes(size)))
    return request


LIMITS = GuardLimits()


def guarded(database_url: str, folder: Path, *options: str) -> ServerProcess:
    """A separate server that requires tokens, with default logging."""
    keys = folder / "keys.toml"
    keys.write_text(key_entry(KEY, "acme", "read", "write"))
    options = ("--database-url", database_url, "--keys-file", str(keys), *options)
    return ServerProcess(*options, log_dir=folder, env={"CHECKPOINTD_LOG_LEVEL": "info"})


@pytest.fixture
def guarded_server(database_url: str, tmp_path: Path) -> Iterator[ServerProcess]:
    with guarded(database_url, tmp_path) as server:
        yield server


@contextmanager
def honest_calls(target: str) -> Iterator[list[float]]:
    """Makes calls with a token during the block, and records how long each took. Fails if a call does."""
    took: list[float] = []
    failed: list[Exception] = []
    over = threading.Event()

    def call() -> None:
        with grpc.insecure_channel(target) as channel:
            stub: Any = InfoServiceStub(channel)
            while not over.is_set():
                begun = time.monotonic()
                try:
                    stub.GetServerInfo(info.GetServerInfoRequest(), metadata=bearer(KEY), timeout=60)
                except grpc.RpcError as error:
                    failed.append(error)
                    return
                took.append(time.monotonic() - begun)
                time.sleep(0.02)

    caller = threading.Thread(target=call)
    caller.start()
    try:
        yield took
    finally:
        over.set()
        caller.join()
    assert not failed
    assert took


def flood(target: str, attack: Callable[[Http2Client], object], *, seconds: float) -> int:
    """Attacks over one connection after another, and returns how many of them the server has closed.

    Args:
        target: The server.
        attack: Makes calls over a connection.
        seconds: Duration of the attack; longer if a busy machine has closed no connection by then.
    """
    closed, end = 0, time.monotonic() + seconds

    def goes_on() -> bool:
        return time.monotonic() < (end if closed else end + GENEROUS_SECONDS)

    while goes_on():
        with Http2Client(target) as client:
            client.receive(1)
            while not client.is_closed() and goes_on():
                attack(client)
                time.sleep(0.02)
            closed += client.closed
    return closed


class TestCallsThatComeToNothing:
    @pytest.mark.parametrize("seconds", [2, pytest.param(8, marks=pytest.mark.long)])
    @pytest.mark.parametrize(
        "attack",
        [
            pytest.param(lambda client: client.rapid_reset(GET, 300), id="rapid reset"),
            pytest.param(
                lambda client: client.rapid_reset(GET, 300, reset=False), id="no body", marks=pytest.mark.long
            ),
            pytest.param(
                lambda client: client.rapid_reset("no.such/Method", 300), id="unknown method", marks=pytest.mark.long
            ),
            pytest.param(lambda client: client.rapid_reset(CHECK, 300), id="health", marks=pytest.mark.long),
            pytest.param(lambda client: client.rapid_reset(GET, 300, TOKEN), id="with a token"),
            pytest.param(lambda client: client.rapid_reset(PIPELINE, 300, reset=False), id="streams of nobody"),
            pytest.param(
                lambda client: client.rapid_reset(PIPELINE, 300, TOKEN),
                id="streams with a token",
                marks=pytest.mark.long,
            ),
        ],
    )
    def test_end_with_the_connection_and_hold_up_nobody(
        self, database_url: str, tmp_path: Path, attack: Callable[[Http2Client], object], seconds: int
    ) -> None:
        # In one second a busy machine may process fewer calls than the default limit of wasted calls.
        with guarded(database_url, tmp_path, "--max-wasted-calls", "20") as server:
            with honest_calls(server.target) as took:
                assert flood(server.target, attack, seconds=seconds) >= 1
            assert "closing a connection" in server.stderr
        assert max(took) < GENEROUS_SECONDS

    def test_twenty_thousand_at_once_are_not_all_taken(self, guarded_server: ServerProcess) -> None:
        with honest_calls(guarded_server.target) as took, Http2Client(guarded_server.target) as client:
            client.rapid_reset(GET, 20_000)
            time.sleep(2)
        assert max(took) < GENEROUS_SECONDS

    def test_a_client_that_cancels_some_hundred_calls_is_left_alone(self, guarded_server: ServerProcess) -> None:
        with Http2Client(guarded_server.target) as client:
            client.receive(1)
            client.rapid_reset(GET, 200, TOKEN)
            time.sleep(1)
            assert not client.is_closed()

    def test_without_a_bound_no_connection_is_closed(self, database_url: str, tmp_path: Path) -> None:
        options = ("--database-url", database_url, "--max-wasted-calls", "0")
        with ServerProcess(*options, log_dir=tmp_path) as server, Http2Client(server.target) as client:
            client.receive(1)
            for _ in range(10):
                client.rapid_reset(GET, 300)
                time.sleep(0.2)
            assert not client.is_closed()

    def test_each_connection_is_told_how_many_calls_it_may_have(self, guarded_server: ServerProcess) -> None:
        with Http2Client(guarded_server.target) as client:
            client.receive(1)
            assert client.settings[3] == rpc_server.MAX_STREAMS  # SETTINGS_MAX_CONCURRENT_STREAMS

    async def test_only_the_connection_itself_is_closed(self, serve: Serve, keys_file: Path) -> None:
        async with serve(keys_file=keys_file) as target:
            with Http2Client(target) as other:
                await asyncio.to_thread(flood, target, lambda client: client.rapid_reset(GET, 300), seconds=2)
                answer = await asyncio.to_thread(other.call, INFO, b"", [("authorization", "Bearer ckd_acme-all")])
            assert answer.status == 0


class TestOneCall:
    @pytest.mark.parametrize("path", [b"/caf\xe9/\xff", b"\xff", b"/" + b"\x80" * 4000])
    async def test_whose_path_is_no_text_is_one_of_a_method_that_is_not_there(self, serve: Serve, path: bytes) -> None:
        async with serve() as target, connected(target) as client:

            def call() -> int | None:
                with Http2Client(target) as raw:
                    return raw.wait(raw.open("", path=path)).status

            for _ in range(3):
                assert await asyncio.to_thread(call) == UNIMPLEMENTED
            await client.info.GetServerInfo(info.GetServerInfoRequest(), timeout=20)

    async def test_with_too_many_headers_is_refused(self, serve: Serve) -> None:
        async with serve() as target:

            def call() -> int | None:
                with Http2Client(target) as raw:
                    return raw.wait(raw.open(CHECK, [(f"x-{number}", "x" * 1000) for number in range(20)])).status

            assert await asyncio.to_thread(call) == EXHAUSTED

    async def test_whose_headers_are_endless_fills_no_memory(self, guarded_server: ServerProcess) -> None:
        process = psutil.Process(guarded_server.process.pid)
        before = process.memory_info().rss
        with Http2Client(guarded_server.target) as raw:
            await asyncio.to_thread(raw.send_endless_headers, CHECK, 300 * MEBIBYTE)
            assert process.memory_info().rss - before < 150 * MEBIBYTE

    async def test_that_gRPC_compressed_is_not_unpacked(self, serve: Serve) -> None:
        async with serve() as target, connected(target) as client:
            call = client.checkpoints.PutCheckpoint(large_put(client, MEBIBYTE), compression=grpc.Compression.Gzip)
            refusal = await client.refused(call)
            assert refusal.code is grpc.StatusCode.UNIMPLEMENTED
            assert "gzip" in refusal.message

    async def test_is_not_longer_than_the_server_bears(self, serve: Serve, blocker: Any) -> None:
        async with serve(server={"max_timeout": 0.5}) as target, connected(target) as client:
            await client.checkpoints.PutCheckpoint(client.put_request())
            async with blocker():
                call = client.checkpoints.PutCheckpoint(client.put_request(), timeout=100_000)
                refusal = await asyncio.wait_for(client.refused(call), 20)
            assert (refusal.code, refusal.reason) == (grpc.StatusCode.DEADLINE_EXCEEDED, "DEADLINE_EXCEEDED")

    async def test_whose_answer_is_not_read_ends_with_its_connection(self, serve: Serve) -> None:
        async with (
            serve(server={"max_bytes_in_flight": MEBIBYTE, "send_timeout": 3.0}) as target,
            connected(target) as client,
        ):
            await client.checkpoints.PutCheckpoint(large_put(client, MEBIBYTE))
            wanted = values_pb.KnownChannelValue(channel="channel", version="i1")
            get = values_pb.GetValueRequest(thread_id="thread-1", channel_value=wanted, max_bytes=MEBIBYTE)
            with Http2Client(target) as raw:
                stream = raw.open(VALUE)
                raw.send(stream, grpc_message(get.SerializeToString()))
                async with asyncio.timeout(20):
                    while not raw.answers[stream].data:  # the first part; the client has no room for more
                        await asyncio.to_thread(raw.receive, 0.1, reading=False)
                refusal = await client.refused(until_refused(client, get))
                assert refusal.reason == "OVERLOADED"
                await asyncio.to_thread(raw.wait_closed, reading=False)
            async with asyncio.timeout(20):
                while True:
                    with suppress(grpc.aio.AioRpcError):
                        await client.values.GetValue(get)
                        break
                    await asyncio.sleep(0.05)

    async def test_of_a_stream_whose_results_are_not_read_ends_with_its_connection(self, serve: Serve) -> None:
        """Holds for any flow-control window of the client, and whatever else it does on the connection."""
        server = {"default_timeout": 5.0, "send_timeout": 1.0}
        async with serve(server=server) as target, connected(target) as client:
            await client.checkpoints.PutCheckpoint(large_put(client, MEBIBYTE // 4))
            get = pb.GetCheckpointRequest(thread_id="thread-1")
            reads = pb.PipelineRequest(operations=[pb.Operation(id=id, get_checkpoint=get) for id in range(1, 21)])

            def read_nothing() -> None:
                with Http2Client(target) as raw:
                    streams = [raw.open(PIPELINE) for _ in range(3)]
                    for stream in streams:
                        raw.send(stream, grpc_message(reads.SerializeToString()), end=False)
                    raw.wait_closed(reading=False)
                    assert not any(raw.answers[stream].ended for stream in streams)

            await asyncio.to_thread(read_nothing)
            await client.checkpoints.GetCheckpoint(get)


async def until_refused(client: Client, request: values_pb.GetValueRequest) -> None:
    """Makes calls until one is rejected."""
    async with asyncio.timeout(20):
        while True:
            await client.values.GetValue(request)


class TestConnections:
    async def test_beyond_the_bound_are_closed_until_one_ends(self, serve: Serve) -> None:
        async with serve(server={"max_connections": 4}) as target:

            def served(client: Http2Client) -> bool:
                with suppress(OSError):
                    return client.call(CHECK, b"").status == 0
                return False

            def attempt() -> bool:
                with suppress(OSError), Http2Client(target) as client:
                    return served(client)
                return False

            def all_of_it() -> None:
                clients = [Http2Client(target) for _ in range(4)]
                assert all(served(client) for client in clients)
                assert not attempt()
                clients.pop().socket.close()
                end = time.monotonic() + 20
                while not attempt():
                    assert time.monotonic() < end
                    time.sleep(0.05)
                for client in clients:
                    assert served(client)
                    client.socket.close()

            await asyncio.to_thread(all_of_it)

    async def test_that_say_nothing_are_closed(self, serve: Serve) -> None:
        async with serve(server={"handshake_timeout": 1.0}) as target:
            host, _, port = target.rpartition(":")
            with socket.create_connection((host, int(port)), timeout=20) as silent:

                def until_closed() -> None:
                    while silent.recv(1000):
                        pass

                await asyncio.to_thread(until_closed)

    async def test_without_calls_are_closed(self, serve: Serve) -> None:
        async with serve(server={"max_connection_idle": 1.0}) as target:
            with Http2Client(target) as client:
                assert (await asyncio.to_thread(client.call, CHECK, b"")).status == 0
                await asyncio.to_thread(client.wait_closed)


class TestHealth:
    def test_large_requests_are_not_held(self, guarded_server: ServerProcess) -> None:
        process = psutil.Process(guarded_server.process.pid)
        before = process.memory_info().rss
        request = grpc_message(health_pb2.HealthCheckRequest(service="a" * 60_000_000).SerializeToString())
        over = threading.Event()
        peak = [before]

        def watch_memory() -> None:
            while not over.is_set():
                peak[0] = max(peak[0], process.memory_info().rss)
                time.sleep(0.01)

        def send() -> None:
            with suppress(OSError), Http2Client(guarded_server.target) as client:
                stream = client.open(WATCH)
                client.send(stream, request, end=False)
                assert client.wait(stream).status in (None, INVALID, DEADLINE, EXHAUSTED)

        threads = [threading.Thread(target=work) for work in (watch_memory, *[send] * 15)]
        for thread in threads:
            thread.start()
        for thread in threads[1:]:
            thread.join()
        over.set()
        threads[0].join()
        # Four at once take 240 MB in gRPC and as much in Python; all of them would take 1.8 GB.
        assert peak[0] - before < 1200 * MEBIBYTE
        with Http2Client(guarded_server.target) as client:
            assert client.call(CHECK, b"").status == 0

    async def test_a_request_has_a_length(self, serve: Serve) -> None:
        request = health_pb2.HealthCheckRequest(service="a" * LIMITS.max_request_bytes).SerializeToString()
        async with serve() as target:
            for method in (CHECK, WATCH):
                with Http2Client(target) as client:
                    answer = await asyncio.to_thread(client.call, method, request)
                    assert answer.status == INVALID
                    assert f"at most {LIMITS.max_request_bytes} are allowed" in answer.message
                    await asyncio.to_thread(client.wait_closed)

    async def test_one_connection_watches_so_often_and_no_more(self, serve: Serve) -> None:
        async with serve() as target, connected(target) as client:
            stub = health_pb2_grpc.HealthStub(client.channel)
            watches = [
                stub.Watch(health_pb2.HealthCheckRequest(), timeout=60) for _ in range(LIMITS.max_calls_of_connection)
            ]
            for watch in watches:
                assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING
            refusal = await client.refused(stub.Check(health_pb2.HealthCheckRequest(), timeout=20))
            assert (refusal.code, refusal.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "OVERLOADED")
            assert refusal.metadata == {"bound": "streams", "limit": str(LIMITS.max_calls_of_connection)}
            with Http2Client(target) as other:
                assert (await asyncio.to_thread(other.call, CHECK, b"")).status == 0
            for watch in watches:
                watch.cancel()
            async with asyncio.timeout(20):
                while True:
                    with suppress(grpc.aio.AioRpcError):
                        await stub.Check(health_pb2.HealthCheckRequest(), timeout=20)
                        break

    async def test_all_connections_together_have_a_bound_too(self, serve: Serve) -> None:
        async with serve(server={"guard_limits": GuardLimits(max_calls=3)}) as target, connected(target) as client:
            stub = health_pb2_grpc.HealthStub(client.channel)
            watches = [stub.Watch(health_pb2.HealthCheckRequest(), timeout=60) for _ in range(3)]
            for watch in watches:
                await watch.read()
            refusal = await client.refused(stub.Check(health_pb2.HealthCheckRequest(), timeout=20))
            assert refusal.metadata == {"bound": "streams", "limit": "3"}

    async def test_a_request_that_does_not_arrive_ends_and_holds_up_no_other(self, serve: Serve) -> None:
        async with serve() as target, connected(target) as client:

            def without_body() -> list[int | None]:
                with Http2Client(target) as raw:
                    streams = [raw.open(CHECK) for _ in range(2 * LIMITS.concurrent_reads)]
                    return [raw.wait(stream).status for stream in streams]

            waiting = asyncio.create_task(asyncio.to_thread(without_body))
            await asyncio.sleep(0.2)
            stub = health_pb2_grpc.HealthStub(client.channel)
            answer = await stub.Check(health_pb2.HealthCheckRequest(), timeout=20)
            assert answer.status == health_pb2.HealthCheckResponse.SERVING
            assert set(await waiting) == {DEADLINE}


class TestReflection:
    async def test_a_request_has_a_length(self, serve: Serve) -> None:
        async with serve() as target, connected(target) as client:
            stub = reflection_pb2_grpc.ServerReflectionStub(client.channel)
            call = stub.ServerReflectionInfo(timeout=20)
            await call.write(reflection_pb2.ServerReflectionRequest(list_services=""))
            assert (await call.read()).list_services_response.service
            await call.write(reflection_pb2.ServerReflectionRequest(file_containing_symbol="a" * 5000))
            refusal = await client.refused(call.read())
            assert (refusal.code, refusal.metadata["field"]) == (grpc.StatusCode.INVALID_ARGUMENT, "request")

    async def test_a_conversation_ends(self, serve: Serve) -> None:
        async with (
            serve(server={"guard_limits": GuardLimits(conversation_timeout=0.5)}) as target,
            connected(target) as client,
        ):
            call = reflection_pb2_grpc.ServerReflectionStub(client.channel).ServerReflectionInfo(timeout=20)
            await call.write(reflection_pb2.ServerReflectionRequest(list_services=""))
            assert (await call.read()).list_services_response.service
            assert (await client.refused(call.read())).code is grpc.StatusCode.DEADLINE_EXCEEDED
