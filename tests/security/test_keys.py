"""API keys: how they are stored, created, changed and revoked."""

from __future__ import annotations

import asyncio
import tomllib
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from time import time

import grpc
import pytest
from click.testing import CliRunner

from checkpointd.v1 import checkpoint_service_pb2 as pb
from checkpointd_server.cli.keys import keys
from checkpointd_server.domain.access import Scope
from checkpointd_server.domain.errors import SetupError
from checkpointd_server.rpc.auth import authenticator
from checkpointd_server.rpc.auth.api_keys import KEY_PREFIX, new_key, parse_key_file
from checkpointd_server.rpc.auth.scopes import Unauthenticated
from checkpointd_server.rpc.auth.watched_file import WatchedFile
from tests.security.answers import code, until_answered
from tests.security.serving import Serve
from tests.support.api_keys import key_entry
from tests.support.commands import run
from tests.support.operations import GET, ask
from tests.support.rpc_client import bearer, connected
from tests.support.server_process import ServerProcess
from tests.support.until import auntil

DIGEST = "0" * 64
GOOD = f'[[key]]\ntenant = "acme"\nscopes = ["read"]\nname = "n"\nsha256 = "{DIGEST}"\n'


class TestMaking:
    async def test_a_new_key_opens_what_its_entry_says(self, serve: Serve, tmp_path: Path) -> None:
        made = run("keys", "new", "--tenant", "acme", "--scope", "read", "--name", 'the "best"')
        assert made.returncode == 0
        path = tmp_path / "keys.toml"
        path.write_text(made.stdout)
        (entry,) = tomllib.loads(made.stdout)["key"]
        assert (entry["tenant"], entry["scopes"], entry["name"]) == ("acme", ["read"], 'the "best"')
        key = made.stderr.split()[-1]
        assert key.startswith(KEY_PREFIX)
        assert len(key) >= 40
        async with serve(keys_file=path) as target, connected(target) as client:
            assert await code(client, key) is grpc.StatusCode.OK
            refusal = await client.refused(client.checkpoints.PutCheckpoint(client.put_request(), metadata=bearer(key)))
            assert refusal.metadata == {"scope": "write"}

    @pytest.mark.parametrize(
        ("expires", "lifetime"),
        [
            ("90d", timedelta(days=90)),
            ("2w", timedelta(weeks=2)),
            ("12h", timedelta(hours=12)),
            ("5m", timedelta(minutes=5)),
        ],
    )
    def test_it_may_have_a_lifetime(self, expires: str, lifetime: timedelta) -> None:
        made = CliRunner().invoke(keys, ["new", "--tenant", "acme", "--expires", expires])
        (entry,) = tomllib.loads(made.stdout)["key"]
        assert abs(entry["expires"] - datetime.now(UTC) - lifetime) < timedelta(minutes=2)

    @pytest.mark.parametrize(
        ("expires", "when"),
        [
            ("2100-01-31", datetime(2100, 1, 31, tzinfo=UTC)),
            ("2100-01-31T12:00:00Z", datetime(2100, 1, 31, 12, tzinfo=UTC)),
            ("2100-01-31T12:00:00+02:00", datetime(2100, 1, 31, 10, tzinfo=UTC)),
        ],
    )
    def test_it_may_end_at_a_time(self, expires: str, when: datetime) -> None:
        made = CliRunner().invoke(keys, ["new", "--tenant", "acme", "--expires", expires])
        (entry,) = tomllib.loads(made.stdout)["key"]
        assert entry["expires"] == when

    @pytest.mark.parametrize(
        ("expires", "problem"),
        [
            ("soon", "neither a lifetime"),
            ("90", "neither a lifetime"),
            ("999999999w", "neither a lifetime"),
            ("2100-01-31T12:00:00", "needs a time zone"),
            ("2020-01-31", "is in the past"),
            ("0d", "is in the past"),
        ],
    )
    def test_a_time_that_can_not_be_is_refused_and_no_key_made(self, expires: str, problem: str) -> None:
        made = CliRunner().invoke(keys, ["new", "--tenant", "acme", "--expires", expires])
        assert made.exit_code == 2
        assert made.stdout == ""
        assert problem in made.stderr
        assert KEY_PREFIX not in made.stderr

    async def test_one_that_has_expired_opens_nothing(self, serve: Serve, tmp_path: Path) -> None:
        key, entry = new_key("acme", [Scope.READ], "n", expires=datetime.now(UTC) + timedelta(seconds=1))
        path = tmp_path / "keys.toml"
        path.write_text(entry)
        async with serve(keys_file=path) as target, connected(target) as client:
            await auntil(partial(code, client, key), lambda answer: answer is grpc.StatusCode.UNAUTHENTICATED)

    def test_the_key_is_not_in_what_is_kept(self) -> None:
        made = run("keys", "new", "--tenant", "acme")
        assert made.stderr.split()[-1] not in made.stdout
        assert made.stderr.split()[-1].removeprefix(KEY_PREFIX) not in made.stdout

    def test_no_two_are_alike(self) -> None:
        assert len({new_key("a", [Scope.READ], "n")[0] for _ in range(100)}) == 100

    def test_a_tenant_that_can_not_be_is_refused(self) -> None:
        made = run("keys", "new", "--tenant", "a" * 65)
        assert made.returncode != 0
        assert "64 bytes" in made.stderr


class TestTheFile:
    @pytest.mark.parametrize(
        ("text", "problem"),
        [
            ("this is no TOML ckd_secret", "not TOML"),
            ("\xff", "not UTF-8"),
            ('keys = "x"', "it has 'keys' (did you mean 'key'?), which is neither"),
            (GOOD + "[ckd_secret]\n", "it has a field, number 2 in it, which is neither"),
            ("[key]\n", "two brackets"),
            (GOOD.replace('"acme"', '""'), "key 1: tenant"),
            (GOOD.replace('"acme"', f'"{"a" * 65}"'), "64 bytes"),
            (GOOD.replace('"acme"', "1"), "key 1: tenant"),
            (GOOD.replace('"acme"', '"a\\u0000b"'), "control characters"),
            (GOOD.replace('["read"]', '["everything"]'), "some of read, write, delete, store:read"),
            (GOOD.replace('["read"]', '"read"'), "must be a list"),
            (GOOD.replace(DIGEST, "ckd_the-key-itself"), "64 hexadecimal digits"),
            (GOOD.replace('name = "n"\n', ""), "key 1: name is required"),
            (
                GOOD + "expire = 2030-01-01T00:00:00Z\n",
                "key 1: has 'expire' (did you mean 'expires'?), which is none of",
            ),
            (
                GOOD + "key = 'ckd_secret'\n",
                "key 1: has a field, number 5 in it, which is none of expires, name, scopes",
            ),
            (GOOD + GOOD + "ckd_secret = 1\n", "key 2: has a field, number 5 in it"),
            (GOOD + 'expires = "soon"\n', "date and time"),
            (GOOD + "expires = 2030-01-01T00:00:00\n", "with its zone"),
            (GOOD + GOOD, "same sha256"),
            ('[[certificate]]\ntenant = "a"\nscopes = []\nname = "x"\n' * 2, "same name"),
        ],
    )
    def test_what_is_wrong_with_it_is_told_and_no_secret_repeated(
        self, text: str, problem: str, tmp_path: Path
    ) -> None:
        with pytest.raises(ValueError) as raised:
            parse_key_file(text.encode("latin-1"))
        assert problem in str(raised.value)
        assert "ckd_" not in str(raised.value)

    @pytest.mark.parametrize("content", [None, "nonsense"])
    def test_a_server_does_not_start_with_one_that_is_broken(self, content: str | None, tmp_path: Path) -> None:
        path = tmp_path / "keys.toml"
        if content is not None:
            path.write_text(content)
        database = "postgresql://nobody@127.0.0.1:1/none"
        started = run("serve", "--listen", "127.0.0.1:0", "--database-url", database, "--keys-file", str(path))
        assert started.returncode == 1
        (line,) = started.stderr.splitlines()[-1:]
        assert str(path) in line
        assert "keys file" in line

    async def test_an_empty_one_is_warned_about(self, database_url: str, tmp_path: Path) -> None:
        path = tmp_path / "keys.toml"
        path.write_text("# [[key]]\n")
        warning = "the keys file holds no key and no certificate: it lets nobody in"
        with ServerProcess("--database-url", database_url, "--keys-file", str(path), log_dir=tmp_path) as server:
            assert server.stderr.count(warning) == 1
            other = tmp_path / "other.toml"
            other.write_text(key_entry("ckd_old", "acme", "read"))
            other.replace(path)
            server.await_log("read again")
            assert server.stderr.count(warning) == 1
            path.write_text("")
            await auntil(lambda: server.stderr.count(warning), lambda times: times >= 2)

    async def test_certificates_without_an_authority_are_refused(self, serve: Serve, tmp_path: Path) -> None:
        path = tmp_path / "keys.toml"
        path.write_text('[[certificate]]\ntenant = "a"\nscopes = []\nname = "x"\n')
        with pytest.raises(SetupError, match="--tls-client-ca"):
            async with serve(keys_file=path):
                pass

    async def test_a_change_counts_without_a_restart(self, serve: Serve, tmp_path: Path) -> None:
        path = tmp_path / "keys.toml"
        path.write_text(key_entry("ckd_old", "acme", "read"))
        async with serve(keys_file=path) as target, connected(target) as client:
            assert await code(client, "ckd_old") is grpc.StatusCode.OK
            assert await code(client, "ckd_new") is grpc.StatusCode.UNAUTHENTICATED
            path.write_text(key_entry("ckd_new", "acme", "read"))
            await until_answered(client, "ckd_new", grpc.StatusCode.OK)
            assert await code(client, "ckd_old") is grpc.StatusCode.UNAUTHENTICATED
            other = tmp_path / "other.toml"
            other.write_text(key_entry("ckd_third", "acme", "read"))
            other.replace(path)
            await until_answered(client, "ckd_third", grpc.StatusCode.OK)

    async def test_a_change_to_the_worse_does_not(self, serve: Serve, tmp_path: Path) -> None:
        path = tmp_path / "keys.toml"
        path.write_text(key_entry("ckd_old", "acme", "read"))
        async with serve(keys_file=path) as target, connected(target) as client:
            for spoil in (lambda: path.write_text("half a fi"), path.unlink):
                spoil()
                await asyncio.sleep(1.5)
                assert await code(client, "ckd_old") is grpc.StatusCode.OK
            path.write_text(key_entry("ckd_new", "acme", "read"))
            await until_answered(client, "ckd_old", grpc.StatusCode.UNAUTHENTICATED)

    def test_a_file_that_is_just_being_written_is_not_taken_for_what_it_says(self, tmp_path: Path) -> None:
        path = tmp_path / "keys.toml"
        entries = [key_entry(f"ckd_{number}", "acme", "read") for number in range(2)]
        path.write_text("".join(entries))
        watched = WatchedFile(path, "the keys file", parse_key_file)
        assert not watched.refresh()
        for half in ("", entries[0]):  # both are valid keys files
            path.write_text(half)
            assert not watched.refresh()
        path.write_text("".join(entries) + "# and more")
        assert [watched.refresh() for _ in range(4)] == [False, True, False, False]
        assert watched.content.by_key("ckd_1", time()).tenant == "acme"
        path.write_text(entries[0])
        assert [watched.refresh() for _ in range(3)] == [False, True, False]
        with pytest.raises(Unauthenticated):
            watched.content.by_key("ckd_1", time())

    async def test_a_key_ends_when_it_expires(
        self, serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = tmp_path / "keys.toml"
        end = datetime.now(UTC) + timedelta(minutes=5)
        path.write_text(key_entry("ckd_short", "acme", "read", more=f"expires = {end.isoformat()}"))
        async with serve(keys_file=path) as target, connected(target) as client:
            assert await code(client, "ckd_short") is grpc.StatusCode.OK
            monkeypatch.setattr(authenticator, "time", lambda: time() + 301)
            assert await code(client, "ckd_short") is grpc.StatusCode.UNAUTHENTICATED
            refusal = await client.refused(
                client.checkpoints.GetCheckpoint(pb.GetCheckpointRequest(thread_id="t"), metadata=bearer("ckd_short"))
            )
            assert "expired" in refusal.message

    async def test_a_stream_outlives_no_key(self, serve: Serve, tmp_path: Path) -> None:
        path = tmp_path / "keys.toml"
        path.write_text(key_entry("ckd_old", "acme", "read"))
        async with serve(keys_file=path) as target, connected(target) as client:
            stream = client.checkpoints.Pipeline(metadata=bearer("ckd_old"))
            assert (await ask(stream, GET)).HasField("get_checkpoint")
            path.write_text(key_entry("ckd_new", "acme", "read"))
            await until_answered(client, "ckd_old", grpc.StatusCode.UNAUTHENTICATED)
            assert (await ask(stream, GET)).failure.reason == "UNAUTHENTICATED"
            refusal = await client.refused(stream.read())
            assert refusal.code is grpc.StatusCode.UNAUTHENTICATED


async def test_the_log_tells_who_called_and_holds_no_key(database_url: str, keys_file: Path, tmp_path: Path) -> None:
    options = ("--database-url", database_url, "--keys-file", str(keys_file))
    with ServerProcess(*options, log_dir=tmp_path) as server:
        async with connected(server.target) as client:
            for token in ("ckd_acme-all", "ckd_forbidden-fruit", "forbidden.fruit.too"):
                await code(client, token)
            await client.checkpoints.PutCheckpoint(client.put_request(), metadata=bearer("ckd_acme-all"))
    log = server.stderr
    assert "tenant=acme" in log
    assert "subject=somebody" in log
    assert "UNAUTHENTICATED" in log
    for secret in ("ckd_", "fruit"):
        assert secret not in log
