"""One saver, several servers: calls rotate over them, and skip those that are down."""

from __future__ import annotations

import re
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from langgraph.checkpoint.grpc import GrpcSaver, InvalidArgumentError, ServerUnavailableError
from langgraph.checkpoint.grpc._transport.replicas import FIRST_BACKOFF, LONGEST_BACKOFF, Picker

from tests.support.calls import checkpoint, config_of
from tests.support.flaky_link import FlakyLink
from tests.support.server_process import ServerProcess
from tests.support.until import auntil


@pytest.fixture
def servers(database_url: str, tmp_path: Path) -> Iterator[list[ServerProcess]]:
    """Three servers on one database."""
    with ExitStack() as stack:
        replicas = []
        for number in range(3):
            log_dir = tmp_path / str(number)
            log_dir.mkdir()
            replicas.append(stack.enter_context(ServerProcess("--database-url", database_url, log_dir=log_dir)))
        yield replicas


def named(servers: list[ServerProcess]) -> str:
    return ",".join(server.target for server in servers)


def reads(server: ServerProcess) -> int:
    """The number of reads that a server has answered, from its log."""
    return len(re.findall(r"\bcall\b.*GetCheckpoint", server.stderr))


@pytest.mark.parametrize("native", [False, True], ids=["names", "addresses-as-grpc-writes-them"])
async def test_calls_go_round(servers: list[ServerProcess], native: bool) -> None:
    async with GrpcSaver(("ipv4:" if native else "") + named(servers)) as saver:

        async def read() -> list[int]:
            saver.get_tuple(config_of("t"))
            await saver.aget_tuple(config_of("t"))
            return list(map(reads, servers))

        # If grpc rotates, it does so among the servers that it is connected to by then.
        await auntil(read, lambda numbers: min(numbers) >= 5)


async def test_one_name_with_several_addresses_is_several_servers(database_url: str, tmp_path: Path) -> None:
    options = ("--database-url", database_url, "--listen", "127.0.0.1:0", "--listen", "[::1]:0")
    with ServerProcess(*options, log_dir=tmp_path) as server:
        port = int(server.target.rpartition(":")[2])
        # Of the two addresses of localhost one has a server.
        async with GrpcSaver(f"localhost:{port}", retry_budget=5) as saver:
            for _ in range(5):
                assert saver.get_tuple(config_of("t")) is None
                assert await saver.aget_tuple(config_of("t")) is None


async def test_without_any_retries_one_server_of_three_is_enough(servers: list[ServerProcess]) -> None:
    async with GrpcSaver(named(servers), retry_budget=0) as saver:
        saver.put(config_of("t"), checkpoint("1"), {}, {})
        await saver.aget_tuple(config_of("t"))
        servers[0].kill()
        servers[2].kill()
        for _ in range(6):
            blocking = saver.get_tuple(config_of("t"))
            awaiting = await saver.aget_tuple(config_of("t"))
            assert blocking is not None
            assert awaiting == blocking


async def test_a_server_that_is_back_gets_calls_again(servers: list[ServerProcess]) -> None:
    async with GrpcSaver(named(servers[:2])) as saver:
        servers[0].kill()
        for _ in range(4):
            saver.get_tuple(config_of("t"))
        servers[0].start()

        def read() -> int:
            saver.get_tuple(config_of("t"))
            return reads(servers[0])

        await auntil(read, pause=0.05)


def test_if_all_are_away_the_call_waits_for_any_within_the_budget(servers: list[ServerProcess]) -> None:
    with GrpcSaver(named(servers), retry_budget=60) as saver:
        saver.put(config_of("t"), checkpoint("1"), {}, {})
        for server in servers:
            server.kill()
        found: list[object] = []
        waiting = threading.Thread(target=lambda: found.append(saver.get_tuple(config_of("t"))))
        waiting.start()
        servers[1].start()
        waiting.join(60)
    assert found[0] is not None


def test_if_none_is_there_all_are_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as two:
        target = ",".join(f"127.0.0.1:{listener.getsockname()[1]}" for listener in (one, two))
    with (
        GrpcSaver(target, retry_budget=0.2) as saver,
        pytest.raises(ServerUnavailableError, match=re.escape(target)),
    ):
        saver.get_tuple(config_of("t"))


async def test_a_server_that_is_cut_off_costs_one_attempt(servers: list[ServerProcess]) -> None:
    with FlakyLink(servers[0].target) as link:
        async with GrpcSaver(f"{link.target},{servers[1].target}", timeout=1, retry_budget=20) as saver:
            for _ in range(4):
                await saver.aget_tuple(config_of("t"))
            link.stall()
            begun = time.monotonic()
            for _ in range(20):
                assert await saver.aget_tuple(config_of("t")) is None
                assert saver.get_tuple(config_of("t")) is None
            # It costs a second each time that its backoff is over: about four times, as backoffs grow to five seconds.
            assert time.monotonic() - begun < 10


def test_the_target_may_be_a_list_in_the_environment_too(
    servers: list[ServerProcess], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CHECKPOINTD_TARGET", named(servers).replace(",", ", "))
    with GrpcSaver() as saver:
        for _ in range(9):
            saver.get_tuple(config_of("t"))
    assert all(reads(server) for server in servers)


@pytest.mark.parametrize("target", ["127.0.0.1:1,", ",127.0.0.1:1", "127.0.0.1:1,,127.0.0.1:2", "127.0.0.1:1,nobody"])
def test_each_of_the_targets_must_be_one(target: str) -> None:
    with pytest.raises(InvalidArgumentError, match="target"):
        GrpcSaver(target)


@pytest.mark.parametrize("target", ["127.0.0.1:1,10.1.2.3:1", "ipv4:127.0.0.1:1,10.1.2.3:1", "localhost:1,db:1"])
def test_no_token_leaves_the_machine_in_plain_text_to_any_of_them(target: str) -> None:
    with pytest.raises(InvalidArgumentError, match="token"):
        GrpcSaver(target, token="secret")
    GrpcSaver(target, token="secret", tls=True).close()


@pytest.mark.parametrize("target", ["127.0.0.1:1,localhost:1,unix:/tmp/x", "ipv4:127.0.0.1:1,127.0.0.2:1"])
def test_a_token_may_go_to_several_servers_of_this_machine(target: str) -> None:
    GrpcSaver(target, token="secret").close()


def test_who_failed_is_left_alone_and_tried_last() -> None:
    picker = Picker(3)
    assert sorted(picker.pick_order()) == [0, 1, 2]
    firsts = [picker.pick_order()[0] for _ in range(6)]
    assert sorted(firsts) == [0, 0, 1, 1, 2, 2]
    picker.note(1, healthy=False)
    orders = [picker.pick_order() for _ in range(6)]
    # It may be back: a call that the others refuse still tries it.
    assert all(order[-1] == 1 and sorted(order) == [0, 1, 2] for order in orders)
    assert {order[0] for order in orders} == {0, 2}
    picker.note(0, healthy=False)
    picker.note(2, healthy=False)
    # None is healthy: all are tried, starting with the one that was avoided for longest.
    assert all(picker.pick_order() == [1, 0, 2] for _ in range(6))
    picker.note(0, healthy=True)
    assert picker.pick_order() == [0, 1, 2]


def test_backoffs_grow_up_to_a_bound_and_many_failures_at_once_are_one(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    picker = Picker(2)
    rests = []
    for _ in range(8):
        for _ in range(50):
            picker.note(0, healthy=False)
        begun = now
        while [picker.pick_order()[0] for _ in range(2)] == [1, 1]:
            now += FIRST_BACKOFF
        rests.append(now - begun)
    assert rests[:3] == [FIRST_BACKOFF, 2 * FIRST_BACKOFF, 4 * FIRST_BACKOFF]
    assert rests[-1] == LONGEST_BACKOFF
