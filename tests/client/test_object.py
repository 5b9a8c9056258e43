"""The saver as an object, wherever LangGraph and its users use it: rules 27 to 31 of ../e2e/README.md."""

from __future__ import annotations

import asyncio
import copy
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.checkpoint.grpc import CheckpointdError, GrpcSaver
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from langgraph.graph import START, StateGraph

from tests.client import fork_program
from tests.support import graphs
from tests.support.calls import checkpoint, config_of
from tests.support.comparison import DURABILITIES, Durability, Ledger
from tests.support.server_process import ServerProcess


def works(saver: GrpcSaver, thread_id: str) -> bool:
    return saver.get_tuple(config_of(thread_id)) is None


async def aworks(saver: GrpcSaver, thread_id: str) -> bool:
    return await saver.aget_tuple(config_of(thread_id)) is None


async def test_closing_a_clone_leaves_the_original_open(shared_server: ServerProcess, thread_id: str) -> None:
    # contract 27
    saver = GrpcSaver(shared_server.target)
    clone = copy.copy(saver)
    assert works(clone, thread_id)
    assert await aworks(clone, thread_id)
    clone.close()
    clone.close()
    assert works(saver, thread_id)
    assert await aworks(saver, thread_id)
    await saver.aclose()


async def test_closing_the_original_leaves_a_clone_open(shared_server: ServerProcess, thread_id: str) -> None:
    # contract 27
    saver = GrpcSaver(shared_server.target)
    clone = copy.copy(saver)
    assert await aworks(saver, thread_id)
    await saver.aclose()
    await saver.aclose()
    assert await aworks(clone, thread_id)
    assert works(copy.copy(clone), thread_id)
    clone.close()


async def test_a_closed_saver_says_so(shared_server: ServerProcess, thread_id: str) -> None:
    # contract 27, 31
    saver = GrpcSaver(shared_server.target)
    assert works(saver, thread_id)
    saver.close()
    with pytest.raises(CheckpointdError, match="closed"):
        works(saver, thread_id)
    with pytest.raises(CheckpointdError, match="closed"):
        await aworks(saver, thread_id)
    with pytest.raises(CheckpointdError, match="closed"):
        works(copy.copy(saver), thread_id)


def test_a_clone_has_the_same_base_and_a_serializer_of_its_own(shared_server: ServerProcess, thread_id: str) -> None:
    # contract 27: what LangGraph does at compile time, if its serializer is strict.
    with GrpcSaver(shared_server.target, serde=JsonPlusSerializer(allowed_msgpack_modules=None)) as saver:
        clone = saver.with_allowlist({("tests.e2e.test_fidelity", "Order")})
        assert clone is not saver
        assert clone.serde is not saver.serde
        graph = graphs.line(Ledger()).compile(checkpointer=saver)
        assert graph.invoke({"path": ["x"]}, config_of(thread_id))["path"] == ["x", "a1", "b2", "c3", "d4"]
        assert len(list(saver.list(config_of(thread_id)))) == 6
        assert len(list(clone.list(config_of(thread_id)))) == 6


@pytest.mark.parametrize("nested", [False, True], ids=["node", "nested graph"])
async def test_blocking_calls_inside_the_event_loop(shared_server: ServerProcess, thread_id: str, nested: bool) -> None:
    # contract 28: also while awaiting calls of the same loop are in flight.
    async with GrpcSaver(shared_server.target) as saver:
        other = config_of(thread_id + " other")

        async def node(state: graphs.Trail) -> dict[str, Any]:
            if nested:
                graphs.line(Ledger()).compile(checkpointer=saver).invoke({"path": ["inner"]}, other)
            else:
                saver.put(other, checkpoint("1"), {}, {})
            return {"path": [saver.get_tuple(other) is not None]}

        builder: graphs.AnyGraph = StateGraph(graphs.Trail)
        builder.add_node("node", node)
        builder.add_edge(START, "node")
        graph = builder.compile(checkpointer=saver)
        turns = [graph.ainvoke({"path": ["x"]}, config_of(f"{thread_id} {number}")) for number in range(8)]
        results = await asyncio.wait_for(asyncio.gather(*turns), 60)
        assert [result["path"] for result in results] == [["x", True]] * 8


def test_worker_threads(shared_server: ServerProcess, thread_id: str) -> None:
    # contract 28
    with GrpcSaver(shared_server.target) as saver:
        graph = graphs.chat(Ledger()).compile(checkpointer=saver)

        def agent(number: int) -> int:
            config: RunnableConfig = config_of(f"{thread_id} {number}")
            for turn in range(3):
                graph.invoke({"messages": [("user", f"turn {turn}")]}, config)
            return len(graph.get_state(config).values["messages"])

        with ThreadPoolExecutor(8) as pool:
            assert list(pool.map(agent, range(16))) == [6] * 16


def test_several_event_loops_at_once(shared_server: ServerProcess, thread_id: str) -> None:
    # contract 28: one saver, built where no loop runs, used by loops in several threads.
    saver = GrpcSaver(shared_server.target)
    graph = graphs.line(Ledger()).compile(checkpointer=saver)
    together = threading.Barrier(4)

    async def agents(number: int) -> list[int]:
        together.wait(60)
        turns = [graph.ainvoke({"path": ["x"]}, config_of(f"{thread_id} {number} {turn}")) for turn in range(4)]
        return [len(result["path"]) for result in await asyncio.gather(*turns)]

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda number: asyncio.run(agents(number)), range(4))) == [[5] * 4] * 4
    saver.close()


def test_one_event_loop_after_another(shared_server: ServerProcess, thread_id: str) -> None:
    # contract 28, 31
    with GrpcSaver(shared_server.target) as saver:
        for number in range(3):
            graph = graphs.line(Ledger(), "ab").compile(checkpointer=saver)
            result = asyncio.run(graph.ainvoke({"path": [str(number)]}, config_of(thread_id)))
        assert len(result["path"]) == 9


def test_a_call_from_another_loop_while_one_is_blocked(shared_server: ServerProcess, thread_id: str) -> None:
    # contract 28: no loop waits for another one.
    with GrpcSaver(shared_server.target) as saver:
        release = threading.Event()
        ready = threading.Event()

        async def blocked() -> bool:
            assert await aworks(saver, thread_id)
            ready.set()
            release.wait(60)
            return await aworks(saver, thread_id)

        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(asyncio.run, blocked())
            assert ready.wait(60)
            assert works(saver, thread_id)
            assert asyncio.run(aworks(saver, thread_id))
            release.set()
            assert waiting.result(60)


METHODS = [
    "put",
    "put_writes",
    "get_tuple",
    "list",
    "delete_thread",
    "delete_for_runs",
    "copy_thread",
    "prune",
    "get_delta_channel_history",
]


@pytest.mark.parametrize("method", METHODS)
def test_every_method_is_the_savers_own(method: str) -> None:
    # contract 29: the base class's method raises, or reads one ancestor at a time.
    for name in (method, "a" + method):
        assert getattr(GrpcSaver, name) is not getattr(BaseCheckpointSaver, name)


@pytest.mark.parametrize("durability", DURABILITIES)
async def test_what_a_background_save_raised_ends_the_run(server: ServerProcess, durability: Durability) -> None:
    # contract 30: LangGraph drops what aput returns, so a failure must be raised.
    async with GrpcSaver(server.target, retry_budget=0, timeout=10) as saver:
        graph = graphs.line(Ledger()).compile(checkpointer=saver)

        async def run() -> None:
            stream = graph.astream({"path": ["x"]}, config_of("t"), stream_mode="updates", durability=durability)
            async for chunk in stream:
                if "b" in chunk:
                    server.kill()

        with pytest.raises(CheckpointdError):
            await run()


LIFECYCLES = {
    "with": """
with GrpcSaver(target) as saver:
    use(saver)
""",
    "async with": """
async def main():
    async with GrpcSaver(target) as saver:
        await ause(saver)
asyncio.run(main())
""",
    "neither, blocking": """
use(GrpcSaver(target))
""",
    "neither, awaiting": """
asyncio.run(ause(GrpcSaver(target)))
""",
    "neither, both, and two loops": """
saver = GrpcSaver(target)
use(saver)
asyncio.run(ause(saver))
asyncio.run(ause(saver))
""",
    "from_conn_string": """
with GrpcSaver.from_conn_string(target) as saver:
    use(saver)
    asyncio.run(ause(saver))
""",
    "closed in a running loop": """
async def main():
    with GrpcSaver(target) as saver:
        await ause(saver)
asyncio.run(main())
""",
    "closed in a thread": """
import threading
saver = GrpcSaver(target)
use(saver)
closer = threading.Thread(target=saver.close)
closer.start()
closer.join()
""",
    "a clone that nobody closes": """
import copy
with GrpcSaver(target) as saver:
    clone = copy.copy(saver)
    use(clone)
    asyncio.run(ause(clone))
""",
}

PRELUDE = """
import asyncio, logging, sys
from langgraph.checkpoint.grpc import GrpcSaver

# In debug mode asyncio complains of what takes 0.1 s, as everything may on a machine that is busy.
logging.getLogger("asyncio").addFilter(lambda record: not record.msg.startswith("Executing "))

target = sys.argv[1]
config = {"configurable": {"thread_id": "lifecycle", "checkpoint_ns": ""}}

def use(saver):
    assert saver.get_tuple(config) is None

async def ause(saver):
    assert await saver.aget_tuple(config) is None

"""


@pytest.mark.parametrize("program", LIFECYCLES.values(), ids=LIFECYCLES)
def test_a_program_ends_by_itself_and_without_complaint(shared_server: ServerProcess, program: str) -> None:
    # contract 31
    ended = subprocess.run(
        [sys.executable, "-W", "error", "-X", "dev", "-c", PRELUDE + program, shared_server.target],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")


@pytest.mark.parametrize("parent", ["nothing", "blocking", "awaiting", "both", "another library"])
@pytest.mark.parametrize("start", ["os.fork", "multiprocessing"])
def test_forked_workers_use_their_parents_saver(
    shared_server: ServerProcess, thread_id: str, parent: str, start: str
) -> None:
    # contract 28: gunicorn and multiprocessing fork after the parent has used the saver.
    ended = subprocess.run(
        [sys.executable, str(Path(fork_program.__file__)), shared_server.target, thread_id, parent, start],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.split("\n") == ["children: [0, 0, 0]", "stored: 3", ""]


def _in_thread(call: Callable[[], object]) -> None:
    with ThreadPoolExecutor(1) as pool:
        pool.submit(call).result(60)


async def test_the_config_specs_and_get_work_like_the_base_class_has_them(
    shared_server: ServerProcess, thread_id: str
) -> None:
    async with GrpcSaver(shared_server.target) as saver:
        assert saver.config_specs == []
        await saver.aput(config_of(thread_id), checkpoint("1", {"a": 1}), {}, {"a": 1})
        for found in (saver.get(config_of(thread_id)), await saver.aget(config_of(thread_id))):
            assert found is not None
            assert found["channel_values"] == {"a": 1}
        _in_thread(lambda: saver.get(config_of(thread_id)))
