"""TLS that can't be established: the saver and the commands say what is wrong, and what to do."""

from __future__ import annotations

import copy
import dataclasses
import logging
import os
import pickle
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)
from langgraph.checkpoint.grpc import GrpcSaver, InvalidArgumentError, ServerUnavailableError, TlsOptions

from checkpointd_server.cli import main
from tests.support.authority import Authority
from tests.support.cluster import PostgresCluster
from tests.support.server_process import ServerProcess

THREAD: Any = {"configurable": {"thread_id": "t"}}


class Place:
    """Servers with different TLS configurations, and files for their clients."""

    def __init__(self, folder: Path, stack: ExitStack, database_url: str) -> None:
        self.authority, self.stranger = Authority(), Authority("stranger")
        self.folder = folder
        right, other_name = self.authority.issue("server"), self.authority.issue("server", "spiffe://elsewhere")
        self.files = {
            "ca": self.write("ca.pem", self.authority.pem),
            "stranger": self.write("stranger.pem", self.stranger.pem),
            "text": self.write("text.pem", b"no certificate at all"),
        }
        for name, (certificate, key) in {
            "right": right,
            "other_name": other_name,
            "unknown": self.stranger.issue("client"),
        }.items():
            self.files[f"{name}.crt"] = self.write(f"{name}.crt", certificate)
            self.files[f"{name}.key"] = self.write(f"{name}.key", key)
        key = load_pem_private_key(right[1], password=None).private_bytes(
            Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"hunter2")
        )
        self.files["encrypted.key"] = self.write("encrypted.key", key)
        self.targets = {}
        for name, certificate_of, more in (
            ("tls", "right", ()),
            ("misnamed", "other_name", ()),
            ("mutual", "right", ("--tls-client-ca", self.files["ca"])),
        ):
            log_dir = folder / name
            log_dir.mkdir()
            files = [self.files[f"{certificate_of}.{ending}"] for ending in ("crt", "key")]
            options = ("--database-url", database_url, "--tls-cert", files[0], "--tls-key", files[1], *more)
            self.targets[name] = stack.enter_context(ServerProcess(*options, log_dir=log_dir)).target

    def write(self, name: str, content: bytes) -> str:
        path = self.folder / name
        path.write_bytes(content)
        return str(path)

    def pem(self, name: str) -> bytes:
        return Path(self.files[name]).read_bytes()


@pytest.fixture(scope="module")
def place(postgres_cluster: PostgresCluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    database = postgres_cluster.create_migrated_database()
    with ExitStack() as stack:
        yield Place(tmp_path_factory.mktemp("tls"), stack, postgres_cluster.dsn(database))
    postgres_cluster.drop_database(database)


def run(*arguments: str, **env: str) -> Result:
    return CliRunner().invoke(main, arguments, env=env)


COMMANDS = [["health"], ["info"], ["show", "42"]]


class TestCommands:
    @pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command[0])
    @pytest.mark.parametrize(
        ("target", "options", "word"),
        [
            ("tls", [], "requires TLS: give --tls, or --tls-ca"),
            ("mutual", [], "requires TLS: give --tls, or --tls-ca"),
            ("tls", ["--tls"], "is not trusted"),
            ("tls", ["--tls-ca", "stranger"], "is not trusted"),
            ("misnamed", ["--tls-ca", "ca"], "is for another host"),
            ("mutual", ["--tls-ca", "ca"], "may require a client certificate (--tls-client-cert"),
            (
                "mutual",
                ["--tls-ca", "ca", "--tls-client-cert", "unknown.crt", "--tls-client-key", "unknown.key"],
                "may not trust the certificate of --tls-client-cert",
            ),
        ],
    )
    def test_say_what_is_wrong(
        self, command: list[str], target: str, options: list[str], word: str, place: Place
    ) -> None:
        options = [place.files.get(option, option) for option in options]
        result = run(*command, *options, "--target", place.targets[target])
        assert result.exit_code == 1
        assert result.output.startswith(f"Error: no answer from checkpointd at {place.targets[target]}: ")
        assert word in result.output
        assert "checkpointd serve" not in result.output
        assert "SSL" not in result.output
        assert result.output.count("\n") == 1

    def test_say_that_a_server_speaks_none(self, shared_server: ServerProcess) -> None:
        for command in COMMANDS:
            result = run(*command, "--tls", "--target", shared_server.target)
            assert result.exit_code == 1
            assert "doesn't use TLS: leave out --tls" in result.output

    def test_say_it_of_each_server_in_a_list(self, place: Place) -> None:
        target = place.targets["tls"]
        result = run("health", "--target", f"{target},{target}")
        assert (result.exit_code, result.stdout) == (1, f"{target} UNAVAILABLE\n" * 2)
        assert result.stderr.count("requires TLS: give --tls, or --tls-ca") == 2

    def test_are_answered_where_all_is_right(self, place: Place) -> None:
        options = ["--tls-ca", place.files["ca"], "--target", place.targets["mutual"]]
        files = ["--tls-client-cert", place.files["right.crt"], "--tls-client-key", place.files["right.key"]]
        assert run("health", *options, *files).output == "SERVING\n"

    @pytest.mark.parametrize(
        ("ca", "certificate", "key", "problem"),
        [
            ("text", "right.crt", "right.key", "--tls-ca: {text} holds no certificate in PEM"),
            ("right.key", "right.crt", "right.key", "--tls-ca: {right.key} holds no certificate in PEM"),
            ("ca", "text", "right.key", "--tls-client-cert: {text} holds no certificate in PEM"),
            ("ca", "right.crt", "text", "--tls-client-key: {text} holds no private key in PEM"),
            ("ca", "right.crt", "encrypted.key", "--tls-client-key: {encrypted.key} holds no private key in PEM, or"),
            ("ca", "right.crt", "unknown.key", "--tls-client-key: the key in {unknown.key} does not belong to"),
            ("nowhere", "right.crt", "right.key", "--tls-ca: nowhere can't be read: No such file"),
        ],
    )
    def test_look_at_the_files_first(self, ca: str, certificate: str, key: str, problem: str, place: Place) -> None:
        names = {"--tls-ca": ca, "--tls-client-cert": certificate, "--tls-client-key": key}
        options = [word for option, name in names.items() for word in (option, place.files.get(name, name))]
        result = run("info", *options, "--target", place.targets["mutual"])
        assert result.exit_code == 2
        for name, path in place.files.items():
            problem = problem.replace(f"{{{name}}}", path)
        assert f"Error: {problem}" in result.output
        assert "hunter2" not in result.output


async def read(saver: GrpcSaver, blocking: bool) -> None:
    """Reads a thread, blocking or awaiting."""
    if blocking:
        saver.get_tuple(THREAD)
    else:
        await saver.aget_tuple(THREAD)


class TestASaver:
    @pytest.mark.parametrize(
        ("target", "tls", "word"),
        [
            ("tls", None, "requires TLS: give tls=True or TlsOptions"),
            ("mutual", None, "requires TLS: give tls=True or TlsOptions"),
            ("tls", (None, None), "is not trusted"),
            ("tls", ("stranger", None), "is not trusted"),
            ("misnamed", ("ca", None), "is for another host"),
            ("mutual", ("ca", None), "the server may require a client certificate"),
            ("mutual", ("ca", "unknown"), "the server may not trust certificate_chain"),
        ],
    )
    async def test_says_what_is_wrong_at_once_and_in_the_end(
        self, target: str, tls: tuple[str, str] | None, word: str, place: Place, caplog: pytest.LogCaptureFixture
    ) -> None:
        options: TlsOptions | bool = False
        if tls is not None:
            ca, pair = tls
            options = TlsOptions(
                root_certificates=place.pem(ca) if ca else None,
                certificate_chain=place.pem(f"{pair}.crt") if pair else None,
                private_key=place.pem(f"{pair}.key") if pair else None,
            )
        async with GrpcSaver(place.targets[target], tls=options, retry_budget=0.2) as saver:
            for blocking in (True, False):
                caplog.clear()
                with (
                    caplog.at_level(logging.WARNING),
                    pytest.raises(ServerUnavailableError, match=place.targets[target]) as failed,
                ):
                    await read(saver, blocking)
                assert word in str(failed.value)
                assert "checkpointd serve" not in str(failed.value)
                assert word in caplog.text

    def test_says_it_soon_and_without_lines_of_grpc(self, place: Place) -> None:
        program = """if True:
            import asyncio, logging, pathlib, sys, time
            from langgraph.checkpoint.grpc import GrpcSaver, ServerUnavailableError, TlsOptions

            async def main():
                tls = TlsOptions(root_certificates=pathlib.Path(sys.argv[2]).read_bytes())
                async with GrpcSaver(sys.argv[1], tls=tls, retry_budget=60) as saver:
                    for read in (saver.aget_tuple, saver.alist):
                        try:
                            found = read({"configurable": {"thread_id": "t"}})
                            await (anext(found) if read == saver.alist else found)
                        except ServerUnavailableError as error:
                            print(error)
                        await asyncio.sleep(1)  # while gRPC goes on trying

            logging.basicConfig()
            asyncio.run(main())
        """
        command = [sys.executable, "-c", program, place.targets["tls"], place.files["stranger"]]
        environment = {name: value for name, value in os.environ.items() if not name.startswith("GRPC_")}
        begun = time.monotonic()
        result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=55, check=True)
        assert time.monotonic() - begun < 50
        assert result.stdout.count("after 3 attempts: the server's certificate is not trusted") == 2
        lines = result.stderr.splitlines()
        assert lines
        assert all(line.startswith("WARNING:langgraph.checkpoint.grpc:") for line in lines), result.stderr
        assert "trying again 2 times" in lines[0]

    async def test_with_a_key_of_another_certificate_does_not_wait(self, place: Place) -> None:
        tls = TlsOptions(
            root_certificates=place.pem("ca"),
            certificate_chain=place.pem("right.crt"),
            private_key=place.pem("unknown.key"),
        )
        async with GrpcSaver(place.targets["mutual"], tls=tls, retry_budget=60) as saver:
            with pytest.raises(InvalidArgumentError, match="does private_key belong to certificate_chain"):
                saver.get_tuple(THREAD)
            with pytest.raises(InvalidArgumentError, match="does private_key belong to certificate_chain"):
                await saver.aget_tuple(THREAD)

    @pytest.mark.parametrize(
        ("names", "problem"),
        [
            ({"root_certificates": "text"}, "root_certificates holds no certificate in PEM"),
            ({"root_certificates": "right.key"}, "root_certificates holds no certificate in PEM"),
            ({"certificate_chain": "text", "private_key": "right.key"}, "certificate_chain holds no certificate"),
            ({"certificate_chain": "right.crt", "private_key": "text"}, "private_key holds no private key in PEM"),
            ({"certificate_chain": "right.crt", "private_key": "encrypted.key"}, "private_key is encrypted"),
            ({"certificate_chain": "right.crt"}, "private_key is missing"),
            ({"private_key": "right.key"}, "certificate_chain is missing"),
        ],
    )
    def test_is_told_when_it_is_built_what_holds_no_pem(
        self, names: dict[str, str], problem: str, place: Place
    ) -> None:
        with pytest.raises(InvalidArgumentError, match=problem) as failed:
            TlsOptions(**{field: place.pem(name) for field, name in names.items()})
        assert failed.value.field == "tls"
        assert "no certificate at all" not in str(failed.value)

    @pytest.mark.parametrize("wrong", ["ca.pem", Path("ca.pem"), b"", b"-----BEGIN CERTIFICATE-----"])
    def test_takes_pem_as_bytes(self, wrong: Any) -> None:
        with pytest.raises(ValueError, match=r"root_certificates (must be PEM as bytes, not|holds no certificate)"):
            TlsOptions(root_certificates=wrong)

    def test_takes_what_has_a_name(self, place: Place) -> None:
        wrong: Any = place.files["ca"]
        with pytest.raises(InvalidArgumentError, match="takes its fields by name, such as TlsOptions"):
            TlsOptions(wrong)  # type: ignore[call-arg]
        right = TlsOptions(root_certificates=place.pem("ca"))
        assert pickle.loads(pickle.dumps(right)) == copy.deepcopy(right) == dataclasses.replace(right) == right

    def test_shows_no_key_and_no_token(self, place: Place) -> None:
        tls = TlsOptions(private_key=place.pem("right.key"), certificate_chain=place.pem("right.crt"))
        with GrpcSaver("127.0.0.1:1", tls=tls, token="hunter2") as saver:
            assert "PRIVATE KEY" not in repr(saver.options)
            assert "hunter2" not in repr(saver.options)
