"""Where the server may listen without protection, and what it shows to callers without a token."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from checkpointd_server.domain.access import AccessOptions, JwtOptions, TlsFiles
from checkpointd_server.domain.errors import SetupError
from checkpointd_server.rpc import check_exposure
from tests.security.serving import Serve
from tests.support.authority import Authority
from tests.support.commands import run
from tests.support.rpc_client import bearer, connected

TLS = TlsFiles(cert=Path("c"), key=Path("k"))
MUTUAL = TlsFiles(cert=Path("c"), key=Path("k"), client_ca=Path("ca"))
KEYS = Path("keys")

LOCAL = ["127.0.0.1:1", "127.8.9.1:1", "localhost:1", "[::1]:1", "unix:/tmp/s", "unix-abstract:s"]
REACHABLE = ["0.0.0.0:1", "[::]:1", "10.0.0.1:1", "agents.internal:1", "[2001:db8::1]:1", "localhost.example:1"]


class TestListening:
    @pytest.mark.parametrize("address", LOCAL)
    def test_this_machine_needs_no_protection(self, address: str) -> None:
        check_exposure(address, AccessOptions())

    @pytest.mark.parametrize("address", REACHABLE)
    def test_other_machines_are_kept_out_and_the_options_are_named(self, address: str) -> None:
        with pytest.raises(SetupError) as raised:
            check_exposure(address, AccessOptions())
        for part in (address, "--tls-cert", "--keys-file", "--insecure-without-tls", "--insecure-without-tokens"):
            assert part in str(raised.value)

    @pytest.mark.parametrize(
        ("access", "named"),
        [
            (AccessOptions(tls=TLS), "--insecure-without-tokens"),
            (AccessOptions(keys_file=KEYS), "--insecure-without-tls"),
            (AccessOptions(jwt=JwtOptions()), "--insecure-without-tls"),
            (AccessOptions(insecure_without_tls=True), "--insecure-without-tokens"),
            (AccessOptions(insecure_without_tokens=True), "--insecure-without-tls"),
        ],
    )
    def test_half_a_protection_is_not_enough(self, access: AccessOptions, named: str) -> None:
        with pytest.raises(SetupError, match=named) as raised:
            check_exposure("0.0.0.0:1", access)
        assert str(raised.value).count("--insecure") == 1

    @pytest.mark.parametrize(
        "access",
        [
            AccessOptions(tls=TLS, keys_file=KEYS),
            AccessOptions(tls=TLS, jwt=JwtOptions()),
            AccessOptions(tls=MUTUAL),
            AccessOptions(insecure_without_tls=True, keys_file=KEYS),
            AccessOptions(tls=TLS, insecure_without_tokens=True),
            AccessOptions(insecure_without_tls=True, insecure_without_tokens=True),
        ],
    )
    def test_protected_or_told_otherwise_it_listens(self, access: AccessOptions) -> None:
        check_exposure("0.0.0.0:1", access)

    def test_the_program_refuses_before_it_makes_anything(self, tmp_path: Path) -> None:
        started = run("serve", "--listen", "0.0.0.0:0", "--data-dir", str(tmp_path / "data"))
        assert started.returncode == 1
        assert "--insecure-without-tls --insecure-without-tokens" in started.stderr.splitlines()[-1]
        assert not (tmp_path / "data").exists()

    @pytest.mark.parametrize("listen", ["--listen", "--health-listen"])
    @pytest.mark.parametrize("host", ["no.such.host.invalid", "a..b"])
    def test_a_host_that_is_not_known_is_told_before_anything_else(
        self, listen: str, host: str, tmp_path: Path
    ) -> None:
        started = run("serve", listen, f"{host}:50077", "--data-dir", str(tmp_path / "data"))
        assert started.returncode == 1
        assert f"can't listen on {host}:50077: " in started.stderr.splitlines()[-1]
        assert "--insecure" not in started.stderr
        assert not (tmp_path / "data").exists()

    @pytest.mark.parametrize(
        "options",
        [
            ("--tls-cert", "c"),
            ("--tls-key", "k"),
            ("--tls-client-ca", "ca"),
            ("--jwt-issuer", "i"),
            ("--jwt-keys", "k", "--jwt-issuer", "i"),
            ("--jwt-jwks-url", "https://i", "--jwt-audience", "a"),
        ],
    )
    def test_half_of_what_belongs_together_is_refused(self, options: tuple[str, ...]) -> None:
        started = run("serve", *options)
        assert started.returncode == 2
        assert "need" in started.stderr


async def health(channel: Any, metadata: Any = ()) -> Any:
    return await health_pb2_grpc.HealthStub(channel).Check(
        health_pb2.HealthCheckRequest(), metadata=metadata, timeout=10
    )


async def described(channel: Any, metadata: Any = ()) -> list[str]:
    request = reflection_pb2.ServerReflectionRequest(list_services="")
    stub = reflection_pb2_grpc.ServerReflectionStub(channel)
    async for response in stub.ServerReflectionInfo(iter([request]), metadata=metadata, timeout=10):
        return [service.name for service in response.list_services_response.service]
    return []


async def refused_to_describe(channel: Any) -> None:
    """Opens the stream without a request: grpc reports an error of its own if a stream ends during a write.

    Source: https://github.com/grpc/grpc/issues/36066
    """
    await reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo(timeout=10).read()


class TestHealthAndReflection:
    async def test_health_is_open_and_reflection_is_not_where_tokens_are_asked_for(
        self, serve: Serve, keys_file: Path
    ) -> None:
        async with serve(keys_file=keys_file) as target, connected(target) as client:
            assert (await health(client.channel)).status == health_pb2.HealthCheckResponse.SERVING
            refusal = await client.refused(refused_to_describe(client.channel))
            assert (refusal.code, refusal.reason) == (grpc.StatusCode.UNAUTHENTICATED, "UNAUTHENTICATED")
            names = await described(client.channel, bearer("ckd_acme-none"))
            assert "checkpointd.v1.CheckpointService" in names

    async def test_either_can_be_turned_round(self, serve: Serve, keys_file: Path) -> None:
        async with (
            serve(keys_file=keys_file, open_health=False, open_reflection=True) as target,
            connected(target) as client,
        ):
            assert "checkpointd.v1.CheckpointService" in await described(client.channel)
            refusal = await client.refused(health(client.channel))
            assert refusal.code is grpc.StatusCode.UNAUTHENTICATED
            watch = health_pb2_grpc.HealthStub(client.channel).Watch(health_pb2.HealthCheckRequest(), timeout=10)
            refusal = await client.refused(watch.read())
            assert refusal.code is grpc.StatusCode.UNAUTHENTICATED
            found = await health(client.channel, bearer("ckd_acme-none"))
            assert found.status == health_pb2.HealthCheckResponse.SERVING
            watch = health_pb2_grpc.HealthStub(client.channel).Watch(
                health_pb2.HealthCheckRequest(), metadata=bearer("ckd_acme-none"), timeout=10
            )
            assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING
            watch.cancel()

    async def test_both_are_open_where_nobody_is_asked(self, serve: Serve) -> None:
        async with serve(open_health=False) as target, connected(target) as client:
            await health(client.channel)
            assert await described(client.channel)

    async def test_health_has_an_address_of_its_own_for_probes_that_speak_no_tls(
        self, serve: Serve, keys_file: Path, tmp_path: Path
    ) -> None:
        authority = Authority()
        cert, key = authority.write(tmp_path)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            address = f"127.0.0.1:{probe.getsockname()[1]}"
        tls = TlsFiles(cert=cert, key=key)
        served = serve(keys_file=keys_file, tls=tls, open_health=False, server={"health_listen": (address,)})
        async with served, connected(address) as client:
            assert (await health(client.channel)).status == health_pb2.HealthCheckResponse.SERVING
            put = client.checkpoints.PutCheckpoint(client.put_request(), metadata=bearer("ckd_acme-all"))
            assert (await client.refused(put)).code is grpc.StatusCode.UNIMPLEMENTED
