"""Two agent processes that collide on one thread."""

from __future__ import annotations

import pytest
from langgraph.checkpoint.grpc import GrpcSaver

from tests.concurrency.ways import durabilities_of_processes
from tests.support.forked import ForkedAgent
from tests.support.gates import build, new_thread, said, turn, turns_of, until_saved
from tests.support.server_process import ServerProcess, clean_environment


def agent(target: str, thread_id: str, who: str, durability: str, *wait: str) -> ForkedAgent:
    arguments = (target, thread_id, who, durability, *wait)
    return ForkedAgent("tests.concurrency.agent", *arguments, environment=clean_environment())


@durabilities_of_processes
@pytest.mark.parametrize(
    "old", [pytest.param(False, marks=pytest.mark.long, id="fresh-thread"), pytest.param(True, id="old-thread")]
)
def test_the_process_that_was_overtaken_is_told(shared_server: ServerProcess, durability: str, old: bool) -> None:
    config = new_thread()
    thread_id = config["configurable"]["thread_id"]
    with GrpcSaver(shared_server.target) as saver:
        if old:
            build(saver).invoke(turn("before"), config)
        with agent(shared_server.target, thread_id, "slow", durability, "wait") as slow:
            assert slow.stdout.readline() == "arrived\n"
            until_saved(saver, config, durability)
            with agent(shared_server.target, thread_id, "fast", durability) as fast:
                assert fast.communicate(timeout=60) == "done\n"
            told = slow.communicate(timeout=60)
        assert told.startswith(f"conflict thread '{thread_id}' was written to by another run")
        assert said(saver, config)[-4:] == turns_of("fast")
        assert "slow.middle" not in said(saver, config)
