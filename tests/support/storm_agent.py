"""An agent in a separate process that writes continuously and keeps a journal of it.

    python -m tests.support.storm_agent TARGET JOURNAL PREFIX blocking|awaiting TIMEOUT RETRY_BUDGET

PREFIX is the beginning of its threads' names.

It uses its own threads, of three kinds, and one that it shares with all other agents. It stops when its standard
input is closed, after the writes that are in flight.
"""

from __future__ import annotations

import asyncio
import sys
import threading
import time
import uuid
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgpack
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import Checkpoint, empty_checkpoint
from langgraph.checkpoint.grpc import GrpcSaver, WriteConflictError

from checkpointd.v1 import checkpoint_service_pb2 as pb
from checkpointd.v1 import values_pb2
from tests.support.gates import DURABILITIES, build, turn, turns_of
from tests.support.journal import Journal, Kind, Line
from tests.support.runs import a_run, at

CONTESTED = "contested"
"""The thread that all agents share, after the prefix."""
PAUSE = 0.02
"""The pause between two turns of a worker, in seconds: everything written must also be read back and compared."""


class Agent:
    """Several workers over one saver, each on a thread of its own."""

    def __init__(self, saver: GrpcSaver, journal: Journal, prefix: str, form: str) -> None:
        self._saver = saver
        self._journal = journal
        self._name = f"{prefix}{form}"
        self._contested = f"{prefix}{CONTESTED}"
        self._blocking = form == "blocking"
        self._stopped = False

    def stop(self) -> None:
        """Asks the workers to end after their current work."""
        self._stopped = True

    async def run(self) -> None:
        """Works until it is asked to stop."""
        workers: list[Callable[[str, int], Awaitable[None]]] = [
            *[self._talk] * len(DURABILITIES),
            *[self._put] * 2,
            self._put_versioned,
            self._contend,
        ]
        await asyncio.gather(*(self._work(worker, number) for number, worker in enumerate(workers)))

    async def _work(self, worker: Callable[[str, int], Awaitable[None]], number: int) -> None:
        thread_id = f"{self._name}-{number}"
        try:
            while not self._stopped:
                await worker(thread_id, number)
        except Exception as error:
            self._note("failed", "put", thread_id, worker.__name__, detail=f"{time.time():.1f} {error!r}")

    async def _talk(self, thread_id: str, number: int) -> None:
        """Takes turns in a real graph."""
        graph = build(self._saver)
        config: RunnableConfig = {"configurable": {"thread_id": thread_id}}
        so_far: list[str] = []
        step = 0
        while not self._stopped:
            name = f"{thread_id}-{step}"
            self._note("intended", "turn", thread_id, name)
            options = {"durability": DURABILITIES[number % len(DURABILITIES)]}
            if self._blocking:
                result = await asyncio.to_thread(graph.invoke, turn(name), config, **options)
            else:
                result = await graph.ainvoke(turn(name), config, **options)
            self._note("acknowledged", "turn", thread_id, name)
            await asyncio.sleep(PAUSE)
            so_far += turns_of(name)
            if result["said"] != so_far:
                self._note("wrong", "turn", thread_id, name, detail=f"the turn ended with {result['said'][-8:]}")
            step += 1

    async def _put(self, thread_id: str, _: int) -> None:
        """Puts checkpoints and task writes as a run does, and reads them back."""
        last: str | None = None
        while not self._stopped:
            run = a_run({"configurable": {"thread_id": thread_id}})
            found = await self._do("get_tuple", run)
            if (found and found.checkpoint["id"]) != last:
                self._note("wrong", "put", thread_id, str(last), detail=f"read {found and found.checkpoint['id']}")
            for _ in range(3):
                checkpoint = _holding(f"{thread_id} after {last}")
                own = at(run, checkpoint)
                for kind in ("put", "writes"):
                    self._intend(kind, thread_id, checkpoint)
                await asyncio.gather(
                    self._acknowledged("put", thread_id, checkpoint, at(run, last)),
                    self._acknowledged("writes", thread_id, checkpoint, own),
                )
                last = checkpoint["id"]
            await asyncio.sleep(PAUSE)

    async def _put_versioned(self, thread_id: str, _: int) -> None:
        """Puts as a client of the protocol does, each put conditional on the previous one's version."""
        version = 0
        client = self._saver._client
        while not self._stopped:
            checkpoint = _holding(f"{thread_id} after {version}")
            request = self._request(thread_id, checkpoint, version)
            self._intend("versioned", thread_id, checkpoint)
            if self._blocking:
                response = await asyncio.to_thread(client.call, request)
            else:
                response = await client.acall(request)
            version = response.version
            self._note("acknowledged", "versioned", thread_id, checkpoint["id"], version=version)
            await asyncio.sleep(PAUSE)

    def _request(self, thread_id: str, checkpoint: Checkpoint, version: int) -> pb.PutCheckpointRequest:
        """Returns a put request of the protocol."""
        kind, data = self._saver.serde.dumps_typed(checkpoint["channel_values"]["a"])
        request = pb.PutCheckpointRequest(
            thread_id=thread_id,
            checkpoint_id=checkpoint["id"],
            body=msgpack.packb({"v": 4, "ts": checkpoint["ts"]}),
            channels=["a"],
            channel_versions=["s" + checkpoint["id"]],
            metadata=values_pb2.Metadata(value=values_pb2.TypedValue(type="msgpack", data=b"\x80")),
            precondition=values_pb2.Precondition(if_version_match=version),
            request_id=uuid.uuid4().bytes,
        )
        value = values_pb2.TypedValue(type=kind, data=data)
        request.values.add(channel="a", version="s" + checkpoint["id"], value=value)
        return request

    async def _contend(self, _: str, __: int) -> None:
        """Puts to the thread that all agents share; often another agent is faster."""
        run = a_run({"configurable": {"thread_id": self._contested}})
        found = await self._do("get_tuple", run)
        checkpoint = _holding(f"{self._name} meets the others")
        self._intend("put", self._contested, checkpoint)
        try:
            await self._acknowledged("put", self._contested, checkpoint, at(run, found and found.checkpoint["id"]))
            self._intend("writes", self._contested, checkpoint)
        except WriteConflictError:
            self._note("refused", "put", self._contested, checkpoint["id"])
            return
        try:
            await self._acknowledged("writes", self._contested, checkpoint, at(run, checkpoint["id"]))
        except WriteConflictError:
            self._note("refused", "writes", self._contested, checkpoint["id"])

    def _intend(self, kind: Kind, thread_id: str, checkpoint: Checkpoint) -> None:
        self._note("intended", kind, thread_id, checkpoint["id"], value=checkpoint["channel_values"]["a"])

    async def _acknowledged(self, kind: Kind, thread_id: str, checkpoint: Checkpoint, config: RunnableConfig) -> None:
        """Writes, and records the acknowledgement."""
        if kind == "put":
            await self._do("put", config, checkpoint, {"step": 1}, {"a": checkpoint["id"]})
        else:
            await self._do("put_writes", config, [("a", f"written beside {checkpoint['id']}"), ("b", 2)], "task")
        self._note("acknowledged", kind, thread_id, checkpoint["id"])

    async def _do(self, method: str, *args: Any) -> Any:
        """Calls a method of the saver, blocking or awaiting like this agent."""
        if self._blocking:
            return await asyncio.to_thread(getattr(self._saver, method), *args)
        return await getattr(self._saver, f"a{method}")(*args)

    def _note(self, event: Any, kind: Any, thread_id: str, name: str, **more: Any) -> None:
        self._journal.note(Line(event=event, kind=kind, thread_id=thread_id, name=name, **more))


def _holding(value: str) -> Checkpoint:
    checkpoint = empty_checkpoint()
    checkpoint["channel_values"] = {"a": value}
    checkpoint["channel_versions"] = {"a": checkpoint["id"]}
    return checkpoint


async def main() -> None:
    target, journal, prefix, form, timeout, retry_budget = sys.argv[1:]
    loop = asyncio.get_running_loop()
    async with GrpcSaver(target, timeout=float(timeout), retry_budget=float(retry_budget)) as saver:
        agent = Agent(saver, Journal(Path(journal)), prefix, form)

        def await_end() -> None:
            sys.stdin.read()
            loop.call_soon_threadsafe(agent.stop)

        threading.Thread(target=await_end, daemon=True).start()
        await agent.run()


if __name__ == "__main__":
    asyncio.run(main())
