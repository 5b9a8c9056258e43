"""From start to drain: ports, health, reflection, deadlines, cancelled calls."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from checkpointd.v1 import checkpoint_service_pb2 as pb
from checkpointd.v1 import info_service_pb2
from checkpointd.v1 import value_service_pb2 as values_pb
from checkpointd.v1.thread_service_pb2 import DeleteThreadRequest
from checkpointd.v1.value_service_pb2_grpc import ValueServiceStub
from checkpointd_server.domain.errors import SetupError
from checkpointd_server.rpc import RpcServer, ServerOptions
from checkpointd_server.rpc.health import READINESS
from tests.rpc.requests import channels
from tests.rpc.serving import until_idle
from tests.support.flaky_link import FlakyLink
from tests.support.rpcs import METHODS
from tests.support.until import auntil

OURS = sorted({method.containing_service.full_name for method in METHODS.values()})
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
GET = pb.GetCheckpointRequest(thread_id="thread-1")


def health_of(client: Any) -> Any:
    return health_pb2_grpc.HealthStub(client.channel)


class TestPorts:
    async def test_a_free_port_is_found_and_told(self, store: Any) -> None:
        server = RpcServer(store, ServerOptions(listen=("127.0.0.1:0", "localhost:0")))
        addresses = await server.start()
        try:
            assert [address.rpartition(":")[0] for address in addresses] == ["127.0.0.1", "localhost"]
            for address in addresses:
                assert address.rpartition(":")[2] != "0"
                await self.ask(address)
        finally:
            await server.drain(0)

    @pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "0.0.0.0"])
    async def test_a_taken_port_is_an_error_that_names_the_address(self, store: Any, host: str) -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            address = f"{host}:{taken.getsockname()[1]}"
            with pytest.raises(SetupError, match=address):
                await RpcServer(store, ServerOptions(listen=(address,))).start()

    async def test_two_servers_don_t_share_a_port_unless_told_to(self, store: Any) -> None:
        first = RpcServer(store, ServerOptions(listen=("127.0.0.1:0",), so_reuseport=True))
        addresses = await first.start()
        try:
            with pytest.raises(SetupError, match="taken"):
                await RpcServer(store, ServerOptions(listen=addresses)).start()
            second = RpcServer(store, ServerOptions(listen=addresses, so_reuseport=True))
            assert await second.start() == addresses
            await second.drain(0)
        finally:
            await first.drain(0)

    @pytest.mark.parametrize(
        "address",
        ["nowhere", "127.0.0.1", ":50051", "127.0.0.1:port", "127.0.0.1:65536", "::1:50051", "http://127.0.0.1:1", ""],
    )
    async def test_a_malformed_address_is_an_error_that_names_it(self, store: Any, address: str) -> None:
        with pytest.raises(SetupError, match="HOST:PORT") as error:
            await RpcServer(store, ServerOptions(listen=(address,))).start()
        assert repr(address) in str(error.value)

    @pytest.mark.parametrize("address", ["192.0.2.1:50051", "no-such-host.invalid:50051"])
    async def test_an_address_of_another_machine_is_an_error(self, store: Any, address: str) -> None:
        with pytest.raises(SetupError, match=f"can't listen on {address}: .+"):
            await RpcServer(store, ServerOptions(listen=(address,))).start()

    async def test_a_unix_socket_is_served_and_removed(self, store: Any, tmp_path: Path) -> None:
        address = f"unix:{tmp_path / 'checkpointd.sock'}"
        server = RpcServer(store, ServerOptions(listen=(address,)))
        assert await server.start() == (address,)
        await self.ask(address)
        with pytest.raises(SetupError, match=f"{address}.*taken"):
            await RpcServer(store, ServerOptions(listen=(address,))).start()
        await self.ask(address)
        await server.drain(0)
        assert not (tmp_path / "checkpointd.sock").exists()

    async def test_a_unix_socket_left_behind_is_replaced(self, store: Any, tmp_path: Path) -> None:
        path = tmp_path / "checkpointd.sock"
        with socket.socket(socket.AF_UNIX) as killed:
            killed.bind(os.fspath(path))
        server = RpcServer(store, ServerOptions(listen=(f"unix:{path}",)))
        await server.start()
        await self.ask(f"unix:{path}")
        await server.drain(0)

    @pytest.mark.parametrize("name", ["missing/socket", "file", "x" * 120])
    async def test_an_unusable_path_is_an_error(self, store: Any, tmp_path: Path, name: str) -> None:
        (tmp_path / "file").touch()
        with pytest.raises(SetupError, match="can't listen on unix:"):
            await RpcServer(store, ServerOptions(listen=(f"unix:{tmp_path / name}",))).start()
        assert (tmp_path / "file").exists()

    async def ask(self, address: str) -> None:
        async with grpc.aio.insecure_channel(address) as channel:
            method = channel.unary_unary("/checkpointd.v1.InfoService/GetServerInfo")
            assert info_service_pb2.GetServerInfoResponse.FromString(await method(b"", timeout=20)).version


class TestHealth:
    async def test_nothing_serves_until_the_server_is_told_so(self, serve: Any) -> None:
        async with serve() as (server, client):
            for serving, status in ((True, SERVING), (False, NOT_SERVING), (True, SERVING)):
                server.set_serving(serving)
                for service in ["", READINESS, *OURS]:
                    answer = await health_of(client).Check(health_pb2.HealthCheckRequest(service=service))
                    assert answer.status == status
                if hasattr(health_pb2, "HealthListRequest"):  # new in grpcio-health-checking 1.85
                    statuses = (await health_of(client).List(health_pb2.HealthListRequest())).statuses
                    told = {service: one.status for service, one in statuses.items()}
                    assert told == dict.fromkeys(["", READINESS, *OURS], status)

    async def test_it_begins_with_not_serving(self, store: Any) -> None:
        server = RpcServer(store, ServerOptions(listen=("127.0.0.1:0",)))
        (address,) = await server.start()
        async with grpc.aio.insecure_channel(address) as channel:
            answer = await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest())
            assert answer.status == NOT_SERVING
        await server.drain(0)

    async def test_an_unknown_service_is_not_found(self, client: Any) -> None:
        refusal = await client.refused(health_of(client).Check(health_pb2.HealthCheckRequest(service="other")))
        assert refusal.code == grpc.StatusCode.NOT_FOUND

    async def test_a_watch_tells_each_change_and_ends_with_the_server(self, serve: Any) -> None:
        async with serve() as (server, client):
            watch = health_of(client).Watch(health_pb2.HealthCheckRequest(service=OURS[0]))
            unknown = health_of(client).Watch(health_pb2.HealthCheckRequest(service="other"))
            assert (await watch.read()).status == SERVING
            assert (await unknown.read()).status == health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
            server.set_serving(False)
            assert (await watch.read()).status == NOT_SERVING
            server.set_serving(True)
            assert (await watch.read()).status == SERVING
            async with asyncio.timeout(20):
                await server.drain(600)  # which a watch must not hold up
            assert (await watch.read()).status == NOT_SERVING
            assert await watch.read() == grpc.aio.EOF
            assert await unknown.read() == grpc.aio.EOF


class TestReflection:
    async def reflect(self, client: Any, request: Any) -> Any:
        async def requests() -> AsyncIterator[Any]:
            yield request

        stub = reflection_pb2_grpc.ServerReflectionStub(client.channel)
        (answer,) = [answer async for answer in stub.ServerReflectionInfo(requests())]
        return answer

    async def test_every_service_is_listed(self, client: Any) -> None:
        answer = await self.reflect(client, reflection_pb2.ServerReflectionRequest(list_services=""))
        listed = [service.name for service in answer.list_services_response.service]
        assert sorted(listed) == [*OURS, "grpc.health.v1.Health", "grpc.reflection.v1alpha.ServerReflection"]

    @pytest.mark.parametrize("service", OURS)
    async def test_every_service_can_be_learned(self, client: Any, service: str) -> None:
        request = reflection_pb2.ServerReflectionRequest(file_containing_symbol=service)
        answer = await self.reflect(client, request)
        files = [
            descriptor_pb2.FileDescriptorProto.FromString(file)
            for file in answer.file_descriptor_response.file_descriptor_proto
        ]
        known = descriptor_pool.Default().FindServiceByName(service)
        # Files with the types of its messages may have services, too.
        (found,) = (one for file in files for one in file.service if f"{file.package}.{one.name}" == service)
        learned = [method.name for method in found.method]
        assert [method.name for method in known.methods] == learned

    async def test_it_can_be_left_out(self, serve: Any) -> None:
        async with serve(reflection=False) as (_, client):
            call = self.reflect(client, reflection_pb2.ServerReflectionRequest(list_services=""))
            assert (await client.refused(call)).code == grpc.StatusCode.UNIMPLEMENTED


def put(client: Any, *, thread_id: str = "thread-1", **options: Any) -> Any:
    request = client.put_request(thread_id=thread_id, checkpoint_id="checkpoint-2")
    return client.checkpoints.PutCheckpoint(request, **options)


async def store_a_value(client: Any, size: int) -> values_pb.GetValueRequest:
    """Stores a value of this many bytes, and returns a request for all of it."""
    await client.checkpoints.PutCheckpoint(client.put_request(**channels(client, "i1", channel=b"x" * size)))
    known = values_pb.KnownChannelValue(channel="channel", version="i1")
    return values_pb.GetValueRequest(thread_id=GET.thread_id, channel_value=known, max_bytes=size)


class TestDrain:
    async def test_a_call_at_work_finishes_while_new_ones_are_refused(self, serve: Any, blocker: Any) -> None:
        async with serve() as (server, client):
            await client.checkpoints.PutCheckpoint(client.put_request())
            async with blocker() as blocked:
                at_work = asyncio.ensure_future(put(client))
                await blocked.until_waiting(1)
                draining = asyncio.create_task(server.drain(60))
                health = health_of(client)
                await auntil(
                    lambda: health.Check(health_pb2.HealthCheckRequest()), lambda answer: answer.status != SERVING
                )
                refusal = await client.refused(client.checkpoints.GetCheckpoint(GET))
                assert (refusal.code, refusal.reason) == (grpc.StatusCode.UNAVAILABLE, "DRAINING")
                server.set_serving(True)  # too late
                assert (await health_of(client).Check(health_pb2.HealthCheckRequest())).status == NOT_SERVING
                assert not draining.done()
                assert not at_work.done()
            assert (await at_work).version > 0
            async with asyncio.timeout(20):
                await draining
        async with serve() as (_, client):
            assert (await client.checkpoints.GetCheckpoint(GET)).tuple.checkpoint_id == "checkpoint-2"

    async def test_what_doesn_t_finish_in_time_is_cancelled(self, serve: Any, blocker: Any) -> None:
        async with serve() as (server, client):
            await client.checkpoints.PutCheckpoint(client.put_request())
            async with blocker() as blocked:
                at_work = asyncio.ensure_future(put(client))
                await blocked.until_waiting(1)
                async with asyncio.timeout(20):
                    await server.drain(0.2)
                assert (await client.refused(at_work)).code == grpc.StatusCode.UNAVAILABLE
                await blocked.until_waiting(0)
        async with serve() as (_, client):
            assert (await client.checkpoints.GetCheckpoint(GET)).tuple.checkpoint_id == "checkpoint-1"

    async def test_an_idle_server_stops_at_once(self, serve: Any) -> None:
        async with serve() as (server, client):
            await client.checkpoints.GetCheckpoint(GET)
            async with asyncio.timeout(20):
                await server.drain(600)
            refusal = await client.refused(client.checkpoints.GetCheckpoint(GET, timeout=20))
            assert refusal.code == grpc.StatusCode.UNAVAILABLE

    async def test_a_large_answer_arrives_whole(self, serve: Any) -> None:
        """The handler finishes when the answer is encoded, before it has arrived."""
        async with serve() as (server, client):
            wanted = await store_a_value(client, 40_000_000)
            reading = asyncio.ensure_future(client.values.GetValue(wanted))
            await auntil(lambda: server.active_calls, pause=0)
            await server.drain(60)
            assert len((await reading).data) == 40_000_000

    async def test_connections_are_closed_only_when_the_last_answer_has_been_sent(
        self, serve: Any, tmp_path: Path
    ) -> None:
        """Otherwise gRPC would close a connection while the answer is written, and a reset may overtake the answer."""
        target = f"unix:{tmp_path}/socket"
        async with serve(listen=(target,)) as (server, client):
            wanted = await store_a_value(client, 40_000_000)
            with FlakyLink(target) as link:
                options = [("grpc.max_receive_message_length", -1)]
                async with grpc.aio.insecure_channel(link.target, options=options) as channel:
                    await channel.channel_ready()
                    link.hold_answers()
                    reading = asyncio.ensure_future(ValueServiceStub(channel).GetValue(wanted))
                    await auntil(lambda: server.active_calls, pause=0)
                    draining = asyncio.create_task(server.drain(60))
                    await until_idle(server)
                    await asyncio.sleep(0.3)  # time enough for a connection to be closed
                    assert (await client.refused(client.checkpoints.GetCheckpoint(GET))).reason == "DRAINING"
                    link.resume()
                    assert len((await reading).data) == 40_000_000
                    async with asyncio.timeout(20):
                        await draining

    async def test_draining_twice_is_draining_once(self, serve: Any) -> None:
        async with serve() as (server, _):
            async with asyncio.timeout(20):
                await asyncio.gather(server.drain(600), server.drain(600))
                await server.drain(600)


class TestTime:
    async def test_the_deadline_reaches_the_database(self, serve: Any, blocker: Any) -> None:
        async with serve() as (_, client):
            await client.checkpoints.PutCheckpoint(client.put_request())
            async with blocker() as blocked:
                refusal = await client.refused(put(client, timeout=0.3))
                assert refusal.code == grpc.StatusCode.DEADLINE_EXCEEDED
                await blocked.until_waiting(0)
            assert (await client.checkpoints.GetCheckpoint(GET)).tuple.checkpoint_id == "checkpoint-1"

    async def test_cancelled_calls_give_their_connections_back(self, serve: Any, blocker: Any) -> None:
        async with serve() as (server, client):
            for thread in "abc":
                await client.checkpoints.PutCheckpoint(client.put_request(thread_id=thread))
            await client.checkpoints.PutCheckpoint(client.put_request())
            async with blocker() as blocked:
                for _ in range(3):
                    # As many as the pool has connections, but only two writes: no more of them wait for locks.
                    calls = [asyncio.ensure_future(put(client, thread_id=thread)) for thread in "ab"]
                    calls.append(asyncio.ensure_future(client.threads.DeleteThread(DeleteThreadRequest(thread_id="c"))))
                    await blocked.until_waiting(3)
                    for call in calls:
                        call.cancel()
                    await blocked.until_waiting(0)
                # Reads aren't blocked, and find a connection.
                await client.checkpoints.GetCheckpoint(GET, timeout=20)
            assert (await client.checkpoints.GetCheckpoint(GET)).tuple.checkpoint_id == "checkpoint-1"
            await until_idle(server)

    async def test_refused_calls_leave_nothing_at_work(self, serve: Any, blocker: Any) -> None:
        async with serve(max_concurrent_calls=1) as (server, client):
            await client.checkpoints.PutCheckpoint(client.put_request())
            async with blocker() as blocked:
                at_work = asyncio.ensure_future(put(client))
                await blocked.until_waiting(1)
                for _ in range(5):
                    refusal = await client.refused(client.checkpoints.GetCheckpoint(GET))
                    assert refusal.reason == "OVERLOADED"
                # A server at its limit answers health checks, too.
                assert (await health_of(client).Check(health_pb2.HealthCheckRequest())).status == SERVING
            await at_work
            assert server.active_calls == 0
            await client.checkpoints.GetCheckpoint(GET)

    @pytest.mark.parametrize(("min_ping_interval", "answered"), [(0.01, 10), (60.0, 4)])
    async def test_idle_clients_may_ping_as_often_as_the_options_say(
        self, store: Any, min_ping_interval: float, answered: int
    ) -> None:
        """gRPC tolerates the first ping and two that come too early, and closes the connection after one more."""
        server = RpcServer(store, ServerOptions(listen=("127.0.0.1:0",), min_ping_interval=min_ping_interval))
        (address,) = await server.start()
        host, _, port = address.rpartition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        empty_settings = bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
        ping = bytes([0, 0, 8, 6, 0, 0, 0, 0, 0]) + b"12345678"
        acknowledged = 0
        try:
            writer.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + empty_settings)
            async with asyncio.timeout(20):
                while acknowledged < 10:
                    await asyncio.sleep(0.05)
                    writer.write(ping)
                    if await self.next_frame(reader) == "GOAWAY":
                        break
                    acknowledged += 1
        finally:
            writer.close()
            await server.drain(0)
        assert acknowledged == answered

    async def next_frame(self, reader: asyncio.StreamReader) -> str:
        """Reads HTTP/2 frames up to the acknowledgement of a ping or the end of the connection."""
        while True:
            header = await reader.readexactly(9)
            await reader.readexactly(int.from_bytes(header[:3]))
            kind = {6: "PING", 7: "GOAWAY"}.get(header[3])
            if kind is not None:
                return kind
