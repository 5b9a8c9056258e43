"""TLS: on every address but Unix sockets, with files that may change while the server runs."""

from __future__ import annotations

import asyncio
import ipaddress
from pathlib import Path
from typing import Any

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)

from checkpointd.v1 import checkpoint_service_pb2 as pb
from checkpointd_server.domain.access import TlsFiles
from checkpointd_server.domain.errors import SetupError
from tests.security.serving import Serve
from tests.support.authority import Authority, shown_name
from tests.support.rpc_client import bearer, connected


@pytest.fixture
def authority() -> Authority:
    return Authority()


@pytest.fixture
def files(authority: Authority, tmp_path: Path) -> TlsFiles:
    cert, key = authority.write(tmp_path)
    return TlsFiles(cert=cert, key=key)


async def answers(target: str, *, roots: bytes, pair: tuple[bytes, bytes] | None = None, token: str = "") -> Any:
    """Returns the status code of a call."""
    chain, key = pair or (None, None)
    async with connected(target, grpc.ssl_channel_credentials(roots, key, chain)) as client:
        request = pb.GetCheckpointRequest(thread_id="t")
        try:
            await client.checkpoints.GetCheckpoint(request, metadata=bearer(token) if token else (), timeout=10)
        except grpc.aio.AioRpcError as error:
            return error.code()
        return grpc.StatusCode.OK


class TestTheServersCertificate:
    async def test_who_trusts_its_authority_is_served_and_nobody_else(
        self, serve: Serve, files: TlsFiles, authority: Authority
    ) -> None:
        async with serve(tls=files) as target:
            assert await answers(target, roots=authority.pem) is grpc.StatusCode.OK
            assert await answers(target, roots=Authority("other").pem) is grpc.StatusCode.UNAVAILABLE
            async with connected(target) as client:
                refusal = await client.refused(
                    client.checkpoints.GetCheckpoint(pb.GetCheckpointRequest(thread_id="t"), timeout=10)
                )
                assert refusal.code is grpc.StatusCode.UNAVAILABLE

    async def test_a_new_one_is_shown_without_a_restart_and_old_connections_live_on(
        self, serve: Serve, files: TlsFiles, authority: Authority, tmp_path: Path
    ) -> None:
        async with (
            serve(tls=files) as target,
            connected(target, grpc.ssl_channel_credentials(authority.pem)) as old,
        ):
            await old.checkpoints.PutCheckpoint(old.put_request())
            assert await asyncio.to_thread(shown_name, target) == "server"
            authority.write(tmp_path, "renewed")
            assert await asyncio.to_thread(shown_name, target) == "renewed"
            await old.checkpoints.PutCheckpoint(old.put_request(checkpoint_id="checkpoint-2"))
            assert await answers(target, roots=authority.pem) is grpc.StatusCode.OK

    async def test_halves_of_a_change_and_what_can_not_be_used_are_passed_over(
        self, serve: Serve, files: TlsFiles, authority: Authority
    ) -> None:
        async with serve(tls=files) as target:
            chain, key = authority.issue("renewed")
            for spoil in (
                lambda: files.cert.write_bytes(chain),
                lambda: files.cert.write_bytes(b"nonsense"),
                files.cert.unlink,
            ):
                spoil()
                assert await asyncio.to_thread(shown_name, target) == "server"
            files.cert.write_bytes(chain)
            files.key.write_bytes(key)
            assert await asyncio.to_thread(shown_name, target) == "renewed"

    async def test_each_address_gets_the_new_one(
        self, serve: Serve, files: TlsFiles, authority: Authority, tmp_path: Path, rpc_store: Any
    ) -> None:
        from checkpointd_server.domain.access import AccessOptions
        from checkpointd_server.rpc import RpcServer, ServerOptions

        options = ServerOptions(listen=("127.0.0.1:0", "127.0.0.1:0"), access=AccessOptions(tls=files))
        server = RpcServer(rpc_store, options)
        targets = await server.start()
        authority.write(tmp_path, "renewed")
        assert [await asyncio.to_thread(shown_name, target) for target in targets] == ["renewed", "renewed"]
        await server.drain(0)

    @pytest.mark.parametrize("problem", ["no cert", "no key", "not a cert", "not a key", "another key", "encrypted"])
    async def test_files_that_can_not_be_used_are_named(
        self, problem: str, serve: Serve, files: TlsFiles, authority: Authority
    ) -> None:
        match problem:
            case "no cert":
                files.cert.unlink()
            case "no key":
                files.key.unlink()
            case "not a cert":
                files.cert.write_text("nonsense")
            case "not a key":
                files.key.write_text("nonsense")
            case "another key":
                files.key.write_bytes(authority.issue("another")[1])
            case _:
                locked = load_pem_private_key(files.key.read_bytes(), None).private_bytes(
                    Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"password")
                )
                files.key.write_bytes(locked)
        option = "--tls-cert" if "cert" in problem else "--tls-key"
        with pytest.raises(SetupError, match=option):
            async with serve(tls=files):
                pass

    async def test_a_unix_socket_stays_as_it_is(self, serve: Serve, files: TlsFiles, tmp_path: Path) -> None:
        async with serve(tls=files, listen=f"unix:{tmp_path}/s") as target, connected(target) as client:
            await client.checkpoints.PutCheckpoint(client.put_request())


class TestClientsCertificates:
    @pytest.fixture
    def mutual(self, files: TlsFiles, tmp_path: Path) -> tuple[TlsFiles, Authority]:
        clients = Authority("clients")
        path = tmp_path / "clients.pem"
        path.write_bytes(clients.pem)
        return TlsFiles(cert=files.cert, key=files.key, client_ca=path), clients

    async def test_without_one_nobody_connects(self, serve: Serve, mutual: Any, authority: Authority) -> None:
        files, clients = mutual
        async with serve(tls=files) as target:
            assert await answers(target, roots=authority.pem) is grpc.StatusCode.UNAVAILABLE
            stranger = Authority("clients").issue("agent")
            assert await answers(target, roots=authority.pem, pair=stranger) is grpc.StatusCode.UNAVAILABLE
            assert await answers(target, roots=authority.pem, pair=clients.issue("agent")) is grpc.StatusCode.OK

    async def test_a_new_authority_counts_without_a_restart(
        self, serve: Serve, mutual: Any, authority: Authority
    ) -> None:
        files, clients = mutual
        pair = clients.issue("agent")
        async with serve(tls=files) as target:
            assert await answers(target, roots=authority.pem, pair=pair) is grpc.StatusCode.OK
            replaced = Authority("new clients")
            files.client_ca.write_bytes(replaced.pem)
            assert await answers(target, roots=authority.pem, pair=pair) is grpc.StatusCode.UNAVAILABLE
            assert await answers(target, roots=authority.pem, pair=replaced.issue("agent")) is grpc.StatusCode.OK

    async def test_one_alone_does_not_stand_for_a_token(
        self, serve: Serve, mutual: Any, authority: Authority, keys_file: Path
    ) -> None:
        files, clients = mutual
        pair = clients.issue("agent", "spiffe://acme/agent")
        async with serve(tls=files, keys_file=keys_file) as target:
            assert await answers(target, roots=authority.pem, pair=pair) is grpc.StatusCode.UNAUTHENTICATED
            token = "ckd_acme-all"
            assert await answers(target, roots=authority.pem, pair=pair, token=token) is grpc.StatusCode.OK

    async def test_one_that_the_keys_file_names_is_an_identity(
        self, serve: Serve, mutual: Any, authority: Authority, keys_file: Path
    ) -> None:
        files, clients = mutual
        for name, tenant in (("spiffe://acme/agent", "acme"), ("spiffe://other/agent", "other")):
            entry = f'[[certificate]]\ntenant = "{tenant}"\nscopes = ["read"]\nname = "{name}"\n'
            keys_file.write_text(f"{keys_file.read_text()}\n{entry}")
        known = clients.issue("agent", "spiffe://acme/agent")
        async with serve(tls=files, keys_file=keys_file) as target:
            for pair, expected in (
                (known, grpc.StatusCode.OK),
                (clients.issue("agent", "spiffe://acme/someone-else"), grpc.StatusCode.UNAUTHENTICATED),
                # The same identity in another field of the certificate doesn't count.
                (clients.issue("spiffe://acme/agent"), grpc.StatusCode.UNAUTHENTICATED),
                (
                    clients.issue("agent", "spiffe://acme/agent", "spiffe://other/agent"),
                    grpc.StatusCode.UNAUTHENTICATED,
                ),
            ):
                assert await answers(target, roots=authority.pem, pair=pair) is expected
            credentials = grpc.ssl_channel_credentials(authority.pem, known[1], known[0])
            async with connected(target, credentials) as client:
                refusal = await client.refused(client.checkpoints.PutCheckpoint(client.put_request()))
                assert refusal.metadata == {"scope": "write"}
                other = bearer("ckd_other-all")
                await client.checkpoints.PutCheckpoint(client.put_request(), metadata=other)
                found = await client.checkpoints.GetCheckpoint(pb.GetCheckpointRequest(thread_id="thread-1"))
                assert not found.HasField("tuple")

    @pytest.mark.parametrize(
        ("name", "common_name", "alternatives", "passes"),
        [
            ("agent.acme", "x", [x509.DNSName("agent.acme")], True),
            ("agent.acme", "x", [x509.DNSName("agent.acme\0.mallory.example")], False),
            ("agent.acme", "x", [x509.DNSName("agent.acme"), x509.DNSName("agent.acme\0.mallory.example")], True),
            ("spiffe://acme/agent", "x", [x509.UniformResourceIdentifier("spiffe://acme/agent\0")], False),
            ("spiffe://acme/agent", "x", [x509.DNSName("spiffe://acme/agent")], False),
            ("agent.acme", "x", [x509.UniformResourceIdentifier("agent.acme")], False),
            ("agent@acme.example", "x", [x509.RFC822Name("agent@acme.example")], False),
            ("10.0.0.1", "x", [x509.IPAddress(ipaddress.ip_address("10.0.0.1"))], False),
            ("agent", "agent", [], True),
            ("agent", "agent\0", [], False),
            ("spiffe://acme/agent", "spiffe://acme/agent", [], False),
            ("agent", "agent", [x509.DNSName("another")], False),
        ],
    )
    async def test_its_name_is_the_whole_name_and_of_its_kind(
        self,
        serve: Serve,
        mutual: Any,
        authority: Authority,
        keys_file: Path,
        name: str,
        common_name: str,
        alternatives: list[x509.GeneralName],
        passes: bool,
    ) -> None:
        files, clients = mutual
        entry = f'[[certificate]]\ntenant = "acme"\nscopes = ["read"]\nname = "{name}"\n'
        keys_file.write_text(f"{keys_file.read_text()}\n{entry}")
        expected = grpc.StatusCode.OK if passes else grpc.StatusCode.UNAUTHENTICATED
        async with serve(tls=files, keys_file=keys_file) as target:
            pair = clients.issue_for(common_name, alternatives)
            assert await answers(target, roots=authority.pem, pair=pair) is expected
