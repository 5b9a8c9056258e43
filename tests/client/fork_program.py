"""A program that uses a saver, forks three workers, and lets them use it too.

    fork_program.py TARGET THREAD PARENT START

PARENT says how the saver was used before the fork: "nothing", "blocking", "awaiting" or "both"; with "another library"
other code has a channel of grpc.aio open. START says how the workers are made: "os.fork" or "multiprocessing".
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import sys
from typing import Any

import grpc.aio
from langgraph.checkpoint.grpc import GrpcSaver


def config(thread_id: str) -> Any:
    return {"configurable": {"thread_id": thread_id, "checkpoint_ns": ""}}


def work(saver: GrpcSaver, thread_id: str, number: int) -> None:
    """Puts a checkpoint and finds it again, in a worker."""
    saved: Any = {
        "v": 4,
        "id": str(number),
        "ts": "",
        "channel_values": {"a": number},
        "channel_versions": {"a": number},
        "versions_seen": {},
        "updated_channels": None,
    }
    saver.put(config(thread_id), saved, {"step": number}, {"a": number})
    found = saver.get_tuple({"configurable": {**config(thread_id)["configurable"], "checkpoint_id": str(number)}})
    assert found is not None
    assert found.checkpoint["channel_values"] == {"a": number}
    assert asyncio.run(saver.aget_tuple(config(thread_id))) is not None
    with GrpcSaver(sys.argv[1]) as another:
        assert another.get_tuple(config(thread_id)) is not None


async def _open() -> None:
    _others.append(grpc.aio.insecure_channel("127.0.0.1:1"))


_others: list[grpc.aio.Channel] = []


def main() -> None:
    """Runs the program."""
    target, thread_id, parent, start = sys.argv[1:]
    saver = GrpcSaver(target)
    if parent in ("blocking", "both"):
        saver.get_tuple(config(thread_id))
    if parent in ("awaiting", "both"):
        asyncio.run(saver.aget_tuple(config(thread_id)))
    if parent == "another library":
        loop = asyncio.new_event_loop()
        loop.run_until_complete(_open())
    if start == "os.fork":
        pids = []
        for number in range(3):
            if not (pid := os.fork()):
                work(saver, thread_id, number)
                os._exit(0)
            pids.append(pid)
        codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]
    else:
        context = multiprocessing.get_context("fork")
        workers = [context.Process(target=work, args=(saver, thread_id, number)) for number in range(3)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join(60)
        codes = [-99 if worker.exitcode is None else worker.exitcode for worker in workers]
        for worker in workers:
            worker.kill()
    print("children:", codes)
    # The parent's own connection still works.
    print("stored:", len(list(saver.list(config(thread_id)))))
    saver.close()


if __name__ == "__main__":
    main()
