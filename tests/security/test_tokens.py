"""JSON Web Tokens: where their keys come from, and what happens when those change or are unavailable."""

from __future__ import annotations

import asyncio
import base64
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from checkpointd.v1 import checkpoint_service_pb2 as pb
from checkpointd_server.domain.access import JwtOptions
from checkpointd_server.domain.errors import SetupError
from checkpointd_server.rpc.auth import jwks
from checkpointd_server.rpc.auth.jwt import Tokens
from checkpointd_server.rpc.auth.public_keys import parse_public_keys
from checkpointd_server.rpc.auth.scopes import Unauthenticated
from tests.security.answers import code, until_answered
from tests.security.serving import Serve
from tests.support.authority import AUDIENCE, ISSUER, Issuer
from tests.support.rpc_client import Client, bearer, connected
from tests.support.until import auntil

PATIENT = settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])

OK, UNAUTHENTICATED, UNAVAILABLE = (
    grpc.StatusCode.OK,
    grpc.StatusCode.UNAUTHENTICATED,
    grpc.StatusCode.UNAVAILABLE,
)


@pytest.fixture
def issuer() -> Iterator[Issuer]:
    with Issuer() as entered:
        yield entered


def options(**fields: Any) -> JwtOptions:
    return JwtOptions(**{"issuer": ISSUER, "audiences": (AUDIENCE,), **fields})


async def put_as(client: Client, token: str, thread_id: str) -> None:
    await client.checkpoints.PutCheckpoint(client.put_request(thread_id=thread_id), metadata=bearer(token))


async def threads_of(client: Client, token: str) -> set[str]:
    found = await client.checkpoints.ListCheckpoints(pb.ListCheckpointsRequest(), metadata=bearer(token))
    return {entry.thread_id for entry in found.tuples}


class TestKeys:
    @pytest.mark.parametrize(
        ("algorithm", "key"),
        [
            *[(name, rsa.generate_private_key(65537, 2048)) for name in ("RS256", "RS384", "RS512", "PS256", "PS512")],
            ("ES256", ec.generate_private_key(ec.SECP256R1())),
            ("ES384", ec.generate_private_key(ec.SECP384R1())),
            ("ES512", ec.generate_private_key(ec.SECP521R1())),
            ("EdDSA", ed25519.Ed25519PrivateKey.generate()),
        ],
        ids=lambda value: value if isinstance(value, str) else "",
    )
    async def test_every_algorithm_that_is_promised_works(
        self, algorithm: str, key: Any, serve: Serve, tmp_path: Path
    ) -> None:
        path = tmp_path / "issuer.pem"
        path.write_bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
        async with serve(jwt=options(keys_file=path)) as target, connected(target) as client:
            assert await code(client, Issuer().token(algorithm=algorithm, key=key)) is OK

    async def test_a_file_that_changes_is_read_again(self, serve: Serve, issuer: Issuer, tmp_path: Path) -> None:
        path = tmp_path / "issuer.pem"
        path.write_bytes(issuer.pem)
        async with serve(jwt=options(keys_file=path)) as target, connected(target) as client:
            old = issuer.token()
            assert await code(client, old) is OK
            issuer.rotate("second")
            path.write_bytes(issuer.pem)
            await until_answered(client, issuer.token(), OK)
            assert await code(client, old) is UNAUTHENTICATED

    def test_a_private_key_has_no_place_in_it(self) -> None:
        private = ec.generate_private_key(ec.SECP256R1()).private_bytes(
            Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
        )
        for content in (private, b'{"keys": [{"kty": "EC", "crv": "P-256", "x": "", "y": "", "d": "secret"}]}'):
            with pytest.raises(ValueError, match="private key"):
                parse_public_keys(content)

    @pytest.mark.parametrize(
        "content", [b"", b"{}", b'{"keys": []}', b'{"keys": [{"kty": "oct", "k": "c2VjcmV0"}]}', b'{"keys": [1]}', b"x"]
    )
    def test_one_without_any_is_refused(self, content: bytes) -> None:
        with pytest.raises(ValueError):
            parse_public_keys(content)

    def test_a_short_rsa_key_is_refused(self) -> None:
        key = rsa.generate_private_key(65537, 1024).public_key()
        with pytest.raises(ValueError, match="2048"):
            parse_public_keys(key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))

    @pytest.mark.parametrize("url", ["http://issuer.test/jwks", "ftp://issuer.test/jwks", "file:///etc/passwd"])
    async def test_they_are_not_fetched_in_plain_text_from_elsewhere(self, url: str, serve: Serve) -> None:
        with pytest.raises(SetupError, match="https://"):
            async with serve(jwt=options(jwks_url=url)):
                pass


class TestClaims:
    async def test_tenant_and_scopes_come_from_the_claims_that_were_named(
        self, serve: Serve, issuer: Issuer, tmp_path: Path
    ) -> None:
        path = tmp_path / "issuer.json"
        path.write_bytes(issuer.jwks)
        named = options(keys_file=path, tenant_claim="https://acme.test/org", scope_claim="scp")
        async with serve(jwt=named) as target, connected(target) as client:
            ours: dict[str, Any] = {
                "https://acme.test/org": "a",
                "scp": ["read", "write"],
                "tenant": "b",
                "scopes": "admin",
            }
            await put_as(client, issuer.token(**ours), "t")
            assert await threads_of(client, issuer.token(**ours)) == {"t"}
            theirs = issuer.token(**{**ours, "https://acme.test/org": "b"})
            assert await threads_of(client, theirs) == set()
            assert await code(client, issuer.token(tenant="a")) is UNAUTHENTICATED

    async def test_clocks_may_differ_by_the_leeway(self, serve: Serve, issuer: Issuer, tmp_path: Path) -> None:
        path = tmp_path / "issuer.json"
        path.write_bytes(issuer.jwks)
        now = int(time.time())
        async with serve(jwt=options(keys_file=path, leeway=60.0)) as target, connected(target) as client:
            assert await code(client, issuer.token(exp=now - 20)) is OK
            assert await code(client, issuer.token(exp=now - 120)) is UNAUTHENTICATED

    async def test_a_token_that_was_believed_ends_when_it_expires(
        self, serve: Serve, issuer: Issuer, tmp_path: Path
    ) -> None:
        path = tmp_path / "issuer.json"
        path.write_bytes(issuer.jwks)
        async with serve(jwt=options(keys_file=path, leeway=0.0)) as target, connected(target) as client:
            token = issuer.token(exp=int(time.time()) + 8)
            assert await code(client, token) is OK
            await until_answered(client, token, UNAUTHENTICATED)

    async def test_several_audiences_may_be_meant(self, serve: Serve, issuer: Issuer, tmp_path: Path) -> None:
        path = tmp_path / "issuer.json"
        path.write_bytes(issuer.jwks)
        async with serve(jwt=options(keys_file=path, audiences=("a", "b"))) as target, connected(target) as client:
            assert await code(client, issuer.token(aud=["x", "b"])) is OK
            assert await code(client, issuer.token(aud=["x"])) is UNAUTHENTICATED


class TestAUrl:
    async def test_a_key_that_is_new_there_is_fetched_when_a_token_names_it(self, serve: Serve, issuer: Issuer) -> None:
        jwt_options = options(jwks_url=issuer.url, jwks_pause=0.2)
        async with serve(jwt=jwt_options) as target, connected(target) as client:
            old = issuer.token()
            assert await code(client, old) is OK
            issuer.rotate("second")
            await asyncio.sleep(0.3)
            assert await code(client, issuer.token()) is OK
            assert await code(client, old) is UNAUTHENTICATED

    async def test_it_is_not_asked_more_often_than_it_bears(self, serve: Serve, issuer: Issuer) -> None:
        async with serve(jwt=options(jwks_url=issuer.url)) as target, connected(target) as client:
            strangers = [Issuer().token(headers={"kid": f"unknown-{n}"}) for n in range(30)]
            answers = await asyncio.gather(*[code(client, token) for token in strangers])
            assert set(answers) == {UNAUTHENTICATED}
            assert issuer.requests == 1
            assert await code(client, issuer.token()) is OK

    async def test_a_server_starts_while_it_is_down_and_tokens_can_be_tried_again(
        self, serve: Serve, issuer: Issuer, keys_file: Path
    ) -> None:
        issuer.broken = True
        async with (
            serve(jwt=options(jwks_url=issuer.url, jwks_pause=0.2), keys_file=keys_file) as target,
            connected(target) as client,
        ):
            assert await code(client, issuer.token()) is UNAVAILABLE
            assert await code(client, "ckd_acme-all") is OK
            issuer.broken = False
            await until_answered(client, issuer.token(), OK)

    async def test_known_keys_stay_in_force_while_it_is_down(self, serve: Serve, issuer: Issuer) -> None:
        async with (
            serve(jwt=options(jwks_url=issuer.url, jwks_pause=0.1, jwks_refresh=0.1)) as target,
            connected(target) as client,
        ):
            assert await code(client, issuer.token()) is OK
            issuer.broken = True
            asked = issuer.requests
            await auntil(lambda: issuer.requests, lambda requests: requests >= asked + 3)
            assert await code(client, issuer.token(sub="another")) is OK

    async def test_a_withdrawn_key_is_no_longer_believed(self, serve: Serve, issuer: Issuer) -> None:
        async with (
            serve(jwt=options(jwks_url=issuer.url, jwks_pause=0.0, jwks_refresh=0.1)) as target,
            connected(target) as client,
        ):
            token = issuer.token()
            assert await code(client, token) is OK
            issuer.rotate("second")
            await until_answered(client, token, UNAUTHENTICATED)

    async def test_one_that_hangs_holds_up_neither_other_calls_nor_the_end(self, serve: Serve, keys_file: Path) -> None:

        async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await ended.wait()
            writer.close()

        ended = asyncio.Event()

        listener = await asyncio.start_server(hang, "127.0.0.1", 0)
        url = f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}/"
        async with (
            serve(jwt=options(jwks_url=url, jwks_timeout=0.5), keys_file=keys_file) as target,
            connected(target) as client,
        ):
            assert await code(client, "ckd_acme-all") is OK
            started = time.monotonic()
        assert time.monotonic() - started < 10
        ended.set()
        listener.close()
        await listener.wait_closed()


async def test_a_token_is_verified_once(
    serve: Serve, issuer: Issuer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "issuer.json"
    path.write_bytes(issuer.jwks)
    decoded: list[str] = []
    decode = jwt.decode

    def noted(token: str, *args: Any, **more: Any) -> Any:
        decoded.append(token)
        return decode(token, *args, **more)

    monkeypatch.setattr(jwt, "decode", noted)
    async with serve(jwt=options(keys_file=path)) as target, connected(target) as client:
        token = issuer.token()
        for _ in range(5):
            assert await code(client, token) is OK
    assert decoded == [token]


def made_up(header: object, claims: object = None) -> str:
    """Returns an unsigned token with this header."""

    def part(content: object) -> str:
        raw = content if isinstance(content, bytes) else json.dumps(content).encode()
        return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()

    return f"{part(header)}.{part({} if claims is None else claims)}.{part(b'signature')}"


PLAIN = st.none() | st.booleans() | st.integers() | st.floats() | st.text()
JSON = st.recursive(PLAIN, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner))
FIELDS = ("alg", "kid", "typ", "crit", "b64", "jwk")
ALGORITHM_OR_ANYTHING = st.sampled_from(["ES256", "none", "EdDSA"]) | JSON
HEADERS = st.fixed_dictionaries({}, optional=dict.fromkeys(FIELDS, ALGORITHM_OR_ANYTHING))


@pytest.fixture(scope="module")
def tokens(tmp_path_factory: pytest.TempPathFactory) -> Tokens:
    keys = tmp_path_factory.mktemp("keys") / "keys.json"
    keys.write_bytes(Issuer().jwks)
    return Tokens(options(keys_file=keys))


class TestHeadersThatAnybodyCanMakeUp:
    @pytest.mark.parametrize(
        "header",
        [
            {"alg": []},
            {"alg": {}},
            {"alg": None},
            {"alg": 1},
            {"alg": "ES256", "kid": []},
            {"alg": "ES256", "kid": 1},
            {"alg": "ES256", "b64": False},
            [],
            1,
            "ES256",
            None,
            b"\xff",
            b"[" * 6000,
            b'{"alg": ' + b"9" * 5000 + b"}",
        ],
        ids=str,
    )
    async def test_are_refused(self, tokens: Tokens, header: object) -> None:
        with pytest.raises(Unauthenticated):
            await tokens.verify(made_up(header))

    @given(header=HEADERS | JSON, claims=JSON)
    @PATIENT
    def test_whatever_they_are(self, tokens: Tokens, header: object, claims: object) -> None:
        with pytest.raises(Unauthenticated):
            asyncio.run(tokens.verify(made_up(header, claims)))

    @given(token=st.text(st.characters(codec="ascii"), max_size=300))
    @PATIENT
    def test_and_so_is_what_is_no_token(self, tokens: Tokens, token: str) -> None:
        with pytest.raises(Unauthenticated):
            asyncio.run(tokens.verify(token))

    @pytest.mark.parametrize("exp", [1e400, float("nan"), "9" * 5000, [], {}, 10**400, True])
    async def test_claims_of_the_issuer_that_are_no_times_are_refused(
        self, tmp_path: Path, issuer: Issuer, exp: object
    ) -> None:
        keys = tmp_path / "keys.json"
        keys.write_bytes(issuer.jwks)
        # PyJWT would not make such a token.
        key = issuer.keys[issuer.kid]
        claims = {"iss": ISSUER, "aud": AUDIENCE, "exp": exp, "tenant": "acme", "scope": "read"}
        token = jwt.api_jws.encode(json.dumps(claims).encode(), key, "ES256", headers={"kid": issuer.kid})
        with pytest.raises(Unauthenticated):
            await Tokens(options(keys_file=keys)).verify(token)


class TestAUrlThatHangs:
    async def test_lets_no_made_up_tokens_fill_the_room_for_calls(self, serve: Serve, issuer: Issuer) -> None:
        access = {"jwt": options(jwks_url=issuer.url, jwks_pause=0.0)}
        async with serve(server={"max_concurrent_calls": 50}, **access) as target, connected(target) as client:
            await put_as(client, issuer.token(), "thread")
            issuer.hang()
            made_up_token = made_up({"alg": "ES256", "kid": "made up"})
            calls = [asyncio.ensure_future(code(client, made_up_token)) for _ in range(100)]
            await auntil(lambda: sum(call.done() for call in calls), lambda done: done >= 100 - jwks.WAITING_TOKENS)
            # A token whose key is known isn't held up.
            assert await threads_of(client, issuer.token()) == {"thread"}
            assert {await call for call in calls} == {UNAVAILABLE}
