"""Proxies named in the environment: no plain-text traffic to this machine, and no token, goes through one."""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Iterator
from contextlib import suppress

import grpc
import pytest
from click.testing import CliRunner
from langgraph.checkpoint.grpc import GrpcSaver, InvalidArgumentError
from langgraph.checkpoint.grpc._transport import proxies as routes_of_savers

from checkpointd_server.cli import main
from checkpointd_server.cli import proxies as routes_of_commands
from tests.support.calls import config_of
from tests.support.server_process import ServerProcess

VARIABLES = ("http_proxy", "https_proxy", "grpc_proxy")
TOKEN = "ckd_hunter2"


class Proxy:
    """Accepts connections and records what it receives, as a malicious proxy could. It never answers."""

    def __init__(self) -> None:
        self.heard: list[bytes] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                with connection:
                    connection.settimeout(10)
                    self.heard.append(connection.recv(4096))

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()


@pytest.fixture
def proxy(monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    for name in (*VARIABLES, "no_proxy", "no_grpc_proxy"):
        monkeypatch.delenv(name, raising=False)
    listening = Proxy()
    yield listening
    listening.close()


@pytest.fixture(params=[*VARIABLES, "GRPC_ADDRESS_HTTP_PROXY"])
def variable(request: pytest.FixtureRequest, proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> str:
    """An environment variable that names the proxy, each in turn."""
    name = str(request.param)
    if name in VARIABLES:
        monkeypatch.setenv(name, f"http://{proxy.address}")
    else:
        monkeypatch.setenv(name, proxy.address)
        monkeypatch.setenv("GRPC_ADDRESS_HTTP_PROXY_ENABLED_ADDRESSES", "127.0.0.0/8,0.0.0.0/8")
    return name


def elsewhere(server: ServerProcess) -> str:
    """An address of the server that doesn't count as local."""
    return f"0.0.0.0:{server.target.rpartition(':')[2]}"


class TestALocalTarget:
    @pytest.mark.parametrize("prefix", ["", "dns:///", "ipv4:"])
    async def test_is_reached_directly(
        self, prefix: str, variable: str, proxy: Proxy, shared_server: ServerProcess
    ) -> None:
        async with GrpcSaver(prefix + shared_server.target, token=TOKEN, retry_budget=0) as saver:
            assert saver.get_tuple(config_of("t")) is None
            assert await saver.aget_tuple(config_of("t")) is None
        assert proxy.heard == []

    def test_is_reached_directly_by_commands(self, variable: str, proxy: Proxy, shared_server: ServerProcess) -> None:
        for command in ("health", "info"):
            ran = CliRunner().invoke(main, [command, "--target", shared_server.target, "--token", TOKEN])
            assert ran.exit_code == 0, ran.output
        assert proxy.heard == []

    @pytest.mark.parametrize(
        "target", ["dns://192.0.2.1/localhost:1", "xds:///localhost:1", "google-c2p:///localhost:1"]
    )
    def test_is_none_that_somebody_else_resolves(self, target: str) -> None:
        with pytest.raises(InvalidArgumentError, match="token: would be sent in plain text to"):
            GrpcSaver(target, token=TOKEN)
        ran = CliRunner().invoke(main, ["info", "--target", target, "--token", TOKEN])
        assert ran.exit_code == 2
        assert "the token would be sent in plain text to" in ran.output


class TestATokenThatMayGoInPlainText:
    async def test_goes_where_it_is_to_go_with_one_warning(
        self, proxy: Proxy, shared_server: ServerProcess, caplog: pytest.LogCaptureFixture
    ) -> None:
        target = elsewhere(shared_server)
        with pytest.raises(InvalidArgumentError, match="insecure_token=True"):
            GrpcSaver(target, token=TOKEN)
        with caplog.at_level(logging.WARNING, "langgraph.checkpoint.grpc"):
            async with GrpcSaver(target, token=TOKEN, insecure_token=True) as saver:
                assert saver.get_tuple(config_of("t")) is None
                assert await saver.aget_tuple(config_of("t")) is None
        assert [record.message for record in caplog.records] == [
            f"the token is sent in plain text to {target}, as insecure_token allows"
        ]
        assert TOKEN not in caplog.text

    def test_does_so_as_the_environment_says(
        self, shared_server: ServerProcess, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        target = elsewhere(shared_server)
        for yes in ("1", "true", " Yes "):
            monkeypatch.setenv("CHECKPOINTD_INSECURE_TOKEN", yes)
            with GrpcSaver(target, token=TOKEN) as saver:
                assert saver.get_tuple(config_of("t")) is None
        with pytest.raises(InvalidArgumentError, match="token: would be sent in plain text"):
            GrpcSaver(target, token=TOKEN, insecure_token=False)
        for no in ("", "0", "false"):
            monkeypatch.setenv("CHECKPOINTD_INSECURE_TOKEN", no)
            with pytest.raises(InvalidArgumentError, match="token: would be sent in plain text"):
                GrpcSaver(target, token=TOKEN)
        monkeypatch.setenv("CHECKPOINTD_INSECURE_TOKEN", "maybe")
        with pytest.raises(InvalidArgumentError, match="CHECKPOINTD_INSECURE_TOKEN must be true or false"):
            GrpcSaver(target, token=TOKEN)

    def test_goes_through_no_proxy(self, variable: str, proxy: Proxy, shared_server: ServerProcess) -> None:
        target = elsewhere(shared_server)
        for token in (TOKEN, lambda: TOKEN):
            with pytest.raises(InvalidArgumentError, match=f"through the proxy of the environment variable {variable}"):
                GrpcSaver(target, token=token, insecure_token=True)
        ran = CliRunner().invoke(main, ["info", "--target", target, "--token", TOKEN, "--insecure-token"])
        assert ran.exit_code == 2
        assert f"through the proxy of the environment variable {variable}" in ran.output
        assert proxy.heard == []

    async def test_goes_through_none_that_is_named_later(
        self, proxy: Proxy, shared_server: ServerProcess, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        saver = GrpcSaver(elsewhere(shared_server), token=TOKEN, insecure_token=True)
        monkeypatch.setenv("https_proxy", f"http://{proxy.address}")
        with saver, pytest.raises(InvalidArgumentError, match="through the proxy"):
            saver.get_tuple(config_of("t"))
        with pytest.raises(InvalidArgumentError, match="through the proxy"):
            async with GrpcSaver(elsewhere(shared_server), token=TOKEN, insecure_token=True) as saver:
                await saver.aget_tuple(config_of("t"))
        assert proxy.heard == []

    @pytest.mark.parametrize("excepted", ["0.0.0.0", "example.com, 0.0.0.0/8"])
    def test_is_sent_where_no_proxy_says_so(
        self, excepted: str, proxy: Proxy, shared_server: ServerProcess, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("https_proxy", f"http://{proxy.address}")
        monkeypatch.setenv("no_proxy", excepted)
        with GrpcSaver(elsewhere(shared_server), token=TOKEN, insecure_token=True, retry_budget=0) as saver:
            assert saver.get_tuple(config_of("t")) is None
        ran = CliRunner().invoke(
            main,
            ["info", "--target", elsewhere(shared_server), "--token", TOKEN],
            env={"CHECKPOINTD_INSECURE_TOKEN": "1"},
        )
        assert ran.exit_code == 0, ran.output
        assert ran.output.count("warning: the token is sent in plain text") == 1
        assert proxy.heard == []


@pytest.mark.parametrize(
    ("target", "environment"),
    [
        ("name.invalid:1", {}),
        ("name.invalid:1", {"grpc_proxy": ""}),
        ("name.invalid:1", {"no_proxy": "name.invalid"}),
        ("name.invalid:1", {"no_proxy": "*"}),
        ("name.invalid:1", {"no_proxy": "other.invalid, .INVALID"}),
        ("name.invalid:1", {"no_proxy": "other.invalid"}),
        ("name.invalid:1", {"no_proxy": "name.invalid:1"}),
        ("name.invalid:1", {"no_grpc_proxy": "", "no_proxy": "name.invalid"}),
        ("name.invalid:1", {"no_grpc_proxy": "name.invalid", "no_proxy": ""}),
        ("dns:///name.invalid:1", {"no_proxy": "name.invalid"}),
        ("dns:name.invalid:1", {"no_proxy": "name.invalid"}),
        ("dns:///name.invalid:1", {"no_proxy": "other"}),
        ("127.9.9.9:1", {"no_proxy": "127.0.0.0/8"}),
        ("127.9.9.9:1", {"no_proxy": "127.9.9.9/24"}),
        ("127.9.9.9:1", {"no_proxy": "127.8.0.0/16"}),
        ("127.9.9.9:1", {"no_proxy": "9.9"}),
        ("ipv4:127.9.9.9:1", {"no_proxy": "127.0.0.0/8"}),
        ("ipv4:127.9.9.9:1,127.9.9.8:1", {"no_proxy": "127.0.0.0/8"}),
        ("[::1]:1", {"no_proxy": "::1"}),
        ("[::1]:1", {"no_proxy": "::/16"}),
        ("[::1]:1", {"no_proxy": "127.0.0.0/8"}),
    ],
)
def test_the_rules_are_those_of_grpc(
    target: str, environment: dict[str, str], proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("https_proxy", f"http://{proxy.address}")
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    expected = {routes.proxy_variable(target) for routes in (routes_of_savers, routes_of_commands)}
    with grpc.insecure_channel(target) as channel, pytest.raises(grpc.RpcError):
        channel.unary_unary("/any/thing")(b"", timeout=20)
    assert expected == {"https_proxy" if proxy.heard else None}


def test_a_host_is_not_in_a_domain_whose_name_it_only_ends_in(proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    """Old versions of gRPC use no proxy in this case; a token is refused anyway."""
    monkeypatch.setenv("https_proxy", f"http://{proxy.address}")
    monkeypatch.setenv("no_proxy", "me.invalid, ")
    for routes in (routes_of_savers, routes_of_commands):
        assert routes.proxy_variable("name.invalid:1") == "https_proxy"
