"""An agent whose server is stalled keeps running, and doesn't pile up its states."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from typing import IO, Any

import pytest
from langgraph.checkpoint.grpc._runs.handover import MAX_BYTES, MAX_SAVES

from tests.client import stalled_agent
from tests.client.stalled_agent import ITEMS, STEPS
from tests.support.comparison import FLAVOURS
from tests.support.pauses import own_pauses
from tests.support.server_process import ServerProcess


def heard(output: IO[str] | None, word: str) -> dict[str, Any]:
    """Returns the agent's next report."""
    assert output is not None
    said = json.loads(output.readline())
    assert said.pop("said") == word
    found: dict[str, Any] = said
    return found


@pytest.mark.long
@pytest.mark.parametrize("flavour", FLAVOURS)
def test_memory_is_bounded(server: ServerProcess, flavour: str) -> None:
    """Each step has a new version of a list of 1 MB, and a node that returns a value of 1 MB: 150 steps, 300 MB."""
    command = [sys.executable, "-m", stalled_agent.__name__, server.target, flavour]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as agent:
        assert agent.stdin is not None
        try:
            heard(agent.stdout, "ready")
            with own_pauses():
                server.signal(signal.SIGSTOP)
                agent.stdin.write("go\n")
                agent.stdin.flush()
                held = heard(agent.stdout, "stalled")
                server.signal(signal.SIGCONT)
            found = heard(agent.stdout, "over")
        finally:
            server.signal(signal.SIGCONT)
            agent.kill()
    # It has kept running without an answer. Blocking calls use threads, of which LangGraph has only so many.
    assert held["made"] > (STEPS - 1 if flavour == "ainvoke" else 3), held
    assert 0 < held["saves"] <= MAX_SAVES, held
    assert 0 < held["bytes"] <= MAX_BYTES, held
    assert held["megabytes"] < 60, held
    # And all of it is there in the end, in order.
    assert (found["steps"], found["items"], found["same"]) == (STEPS, ITEMS + STEPS, True)
    assert found["counts"] == sorted(found["counts"], reverse=True)
    assert sorted(set(found["counts"])) == list(range(STEPS + 1))
