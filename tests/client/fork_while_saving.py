"""A program that forks while its saver saves. Usage: fork_while_saving.py TARGET FORKS [instrumented]

The saver doesn't retry, to tell calls that the fork ends from calls that fail.

Half of the saves are large: sent in messages of their own, or in parts that are uploaded ahead in separate calls.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
import uuid
from typing import Any

from langgraph.checkpoint.base import empty_checkpoint
from langgraph.checkpoint.grpc import GrpcSaver

NAMESPACES = 8


def fork(seconds: float) -> int:
    """Waits a moment, forks a child that does nothing, and returns its exit code."""
    time.sleep(seconds)
    pid = os.fork()
    if not pid:
        time.sleep(0.05)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


async def save(saver: GrpcSaver, thread_id: str, ns: str, number: int) -> None:
    """Puts a checkpoint: every other one is large, and every fourth too large for a message."""
    checkpoint = empty_checkpoint()
    checkpoint["channel_values"] = {"a": os.urandom((10, 300_000, 10, 1_200_000)[number % 4])}
    checkpoint["channel_versions"] = {"a": number + 1}
    config: Any = {"configurable": {"thread_id": thread_id, "checkpoint_ns": ns}}
    await saver.aput(config, checkpoint, {}, {"a": number + 1})


async def main(target: str, forks: int) -> None:
    """Runs the program."""
    thread_id = str(uuid.uuid4())
    codes = []
    async with GrpcSaver(target, retry_budget=0) as saver:
        for number in range(forks):
            saving = [asyncio.create_task(save(saver, thread_id, f"{n}", number)) for n in range(NAMESPACES)]
            # Fork before or after it was sent, from the event loop's thread or from another one.
            if number % 4 == 0:
                await asyncio.sleep(0.0003 * (number % 10))
                codes.append(fork(0.0))
            else:
                codes.append(await asyncio.to_thread(fork, 0.0004 * (number % 11)))
            await asyncio.gather(*saving)
        config: Any = {"configurable": {"thread_id": thread_id}}
        print("children:", codes)
        print("stored:", len([saved async for saved in saver.alist(config)]))


if __name__ == "__main__":
    if "instrumented" in sys.argv:
        from opentelemetry.instrumentation.grpc import GrpcAioInstrumentorClient, GrpcInstrumentorClient

        GrpcAioInstrumentorClient().instrument()  # type: ignore[no-untyped-call]
        GrpcInstrumentorClient().instrument()  # type: ignore[no-untyped-call]
    asyncio.run(main(sys.argv[1], int(sys.argv[2])))
