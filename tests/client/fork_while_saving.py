"""A program that forks while its saver saves. Usage: fork_while_saving.py TARGET

Half of the saves are under way over an open call when it forks, half of them are large and go in a call of their own.
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

FORKS = 40


def fork() -> int:
    """Forks a child that does nothing for a moment, and returns its process id."""
    pid = os.fork()
    if not pid:
        time.sleep(0.1)
        os._exit(0)
    return pid


async def main(target: str) -> None:
    """Runs the program."""
    config: Any = {"configurable": {"thread_id": str(uuid.uuid4()), "checkpoint_ns": ""}}
    codes = []
    async with GrpcSaver(target) as saver:
        await saver.aget_tuple(config)
        for number in range(FORKS):
            checkpoint = empty_checkpoint()
            checkpoint["channel_values"] = {"a": os.urandom(700_000 if number % 2 else 10)}
            checkpoint["channel_versions"] = {"a": number + 1}
            saving = asyncio.create_task(saver.aput(config, checkpoint, {}, {"a": number + 1}))
            # Sometimes before it was sent, and sometimes after.
            await asyncio.sleep(0.0003 * (number % 10))
            pid = fork()
            codes.append(os.waitstatus_to_exitcode((await asyncio.to_thread(os.waitpid, pid, 0))[1]))
            await saving
        print("children:", codes)
        print("stored:", len([saved async for saved in saver.alist(config)]))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
