"""Servers that aren't there, are far away or don't answer, and the options for how long a saver waits for them."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from langgraph.checkpoint.grpc import (
    DeadlineExceededError,
    GrpcSaver,
    InvalidArgumentError,
    MessageTooLargeError,
    ServerUnavailableError,
)

from tests.client.slow_link import SlowLink
from tests.support.calls import checkpoint, config_of
from tests.support.local_server import LocalServer
from tests.support.server_process import ServerProcess


@pytest.fixture
def deaf() -> Iterator[str]:
    """The address of a socket that accepts connections and never sends anything."""
    with socket.create_server(("127.0.0.1", 0), backlog=16) as listener:
        yield f"127.0.0.1:{listener.getsockname()[1]}"


@pytest.fixture
def closed_port() -> str:
    """An address at which nothing listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return f"127.0.0.1:{listener.getsockname()[1]}"


async def test_a_saver_without_a_server_names_the_target(closed_port: str) -> None:
    # contract 3, 30
    async with GrpcSaver(closed_port, retry_budget=0.2) as saver:
        with pytest.raises(ServerUnavailableError, match=closed_port) as blocking:
            saver.get_tuple(config_of("t"))
        with pytest.raises(ServerUnavailableError, match=closed_port) as awaiting:
            await saver.aget_tuple(config_of("t"))
    for failed in (blocking, awaiting):
        assert "checkpointd serve" in str(failed.value)
        assert isinstance(failed.value, ConnectionError)


@pytest.mark.parametrize("target", ["no.such.host.invalid:50051", "unix:/no/such/socket"])
def test_an_address_that_leads_nowhere_is_named(target: str) -> None:
    with GrpcSaver(target, retry_budget=0.2) as saver, pytest.raises(ServerUnavailableError, match=target):
        saver.get_tuple(config_of("t"))


def test_nothing_is_sent_before_the_first_call(closed_port: str) -> None:
    # contract 31: a saver can be built while its server is away.
    with GrpcSaver(closed_port):
        pass
    GrpcSaver(closed_port).close()


def test_the_target_comes_from_the_environment(
    closed_port: str, shared_server: ServerProcess, thread_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CHECKPOINTD_TARGET", shared_server.target)
    with GrpcSaver() as saver:
        assert saver.get_tuple(config_of(thread_id)) is None
    with GrpcSaver(closed_port, retry_budget=0) as saver, pytest.raises(ServerUnavailableError, match=closed_port):
        saver.get_tuple(config_of(thread_id))


def test_the_retry_budget_ends_the_wait(closed_port: str) -> None:
    with GrpcSaver(closed_port, retry_budget=0.5) as saver:
        begun = time.monotonic()
        with pytest.raises(ServerUnavailableError, match=r"within 0\.5 s"):
            saver.get_tuple(config_of("t"))
        assert time.monotonic() - begun >= 0.2


def test_a_call_waits_for_a_server_that_comes_within_the_budget(server: ServerProcess) -> None:
    with GrpcSaver(server.target, retry_budget=60) as saver:
        saver.put(config_of("t"), checkpoint("1"), {}, {})
        server.stop()
        found: list[Any] = []
        waiting = threading.Thread(target=lambda: found.append(saver.get_tuple(config_of("t"))))
        waiting.start()
        server.start()
        waiting.join(60)
    assert found[0].checkpoint["id"] == "1"


async def test_a_server_that_does_not_answer_is_a_deadline(local_server: LocalServer, closed_port: str) -> None:
    with SlowLink(local_server.target, delay=1.0) as link:
        async with GrpcSaver(link.target, timeout=0.2, retry_budget=0) as saver:
            with pytest.raises((DeadlineExceededError, ServerUnavailableError), match=link.target):
                saver.get_tuple(config_of("t"))
            with pytest.raises((DeadlineExceededError, ServerUnavailableError), match=link.target):
                await saver.aget_tuple(config_of("t"))


def test_a_listener_that_is_no_server_is_an_error(deaf: str) -> None:
    with (
        GrpcSaver(deaf, timeout=0.5, retry_budget=0) as saver,
        pytest.raises((DeadlineExceededError, ServerUnavailableError), match=deaf),
    ):
        saver.get_tuple(config_of("t"))


async def test_a_server_far_away_is_reached_at_the_first_attempt(shared_server: ServerProcess, thread_id: str) -> None:
    """Half a second to connect is no reason to give up."""
    with SlowLink(shared_server.target, delay=0.5) as link:
        async with GrpcSaver(link.target, retry_budget=0) as saver:
            assert saver.get_tuple(config_of(thread_id)) is None
            assert await saver.aget_tuple(config_of(thread_id)) is None


async def test_a_message_over_the_limit_is_a_clear_error(local_server: LocalServer) -> None:
    huge: Any = {"note": "x" * (65 * 1024 * 1024)}
    async with GrpcSaver(local_server.target, retry_budget=0) as saver:
        with pytest.raises(MessageTooLargeError, match="PutCheckpoint"):
            await saver.aput(config_of("t"), checkpoint("1"), huge, {})
        with pytest.raises(MessageTooLargeError, match="PutCheckpoint"):
            saver.put(config_of("t"), checkpoint("1"), huge, {})
        assert saver.get_tuple(config_of("t")) is None


@pytest.mark.parametrize(
    "target",
    ["http://127.0.0.1:50051", "https://host", "grpc://host:1", "postgresql://u:p@host/db", "postgres://host"],
)
def test_an_address_of_another_kind_is_refused(target: str) -> None:
    with pytest.raises(InvalidArgumentError, match="target") as failed:
        GrpcSaver(target)
    assert failed.value.field == "target"
    assert "host:port" in str(failed.value)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("timeout", 0),
        ("timeout", -1),
        ("timeout", float("nan")),
        ("keepalive", 0),
        ("retry_budget", -0.1),
        ("retry_budget", float("nan")),
        ("cache_bytes", -1),
        ("concurrency", "pessimistic"),
        ("concurrency", None),
    ],
)
def test_an_unusable_option_is_named(option: str, value: Any) -> None:
    options: dict[str, Any] = {option: value}
    for build in (GrpcSaver, GrpcSaver.from_conn_string):
        with pytest.raises(InvalidArgumentError, match=option) as failed:
            build("127.0.0.1:1", **options)
        assert failed.value.field == option


@pytest.mark.parametrize("target", ["10.1.2.3:50051", "example.com:1", "dns:///example.com:1", "ipv4:10.1.2.3:1"])
def test_a_token_is_not_sent_in_plain_text_off_the_machine(target: str) -> None:
    with pytest.raises(InvalidArgumentError, match="token"):
        GrpcSaver(target, token="secret")
    assert "secret" not in repr(GrpcSaver(target, token="secret", tls=True))


@pytest.mark.parametrize("target", ["127.0.0.1:1", "localhost:1", "[::1]:1", "unix:/tmp/x", "ipv6:[::1]:1"])
def test_a_token_stays_on_the_machine_without_tls(target: str) -> None:
    GrpcSaver(target, token="secret").close()
