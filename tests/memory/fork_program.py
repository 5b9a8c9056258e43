"""A program that uses a store, forks workers, and lets them use it too: fork_program.py TARGET ROOT PARENT.

PARENT says how the store was used before the fork: "nothing", "blocking" or "awaiting".
"""

from __future__ import annotations

import asyncio
import os
import sys

from langgraph.checkpoint.grpc import GrpcStore


async def awork(store: GrpcStore, root: str, key: str) -> None:
    """Uses a store in an event loop."""
    await store.aput((root,), f"a{key}", {"n": 1})
    item = await store.aget((root,), f"a{key}")
    assert item is not None


def work(store: GrpcStore, root: str, key: str) -> None:
    """Uses a store in a worker, blocking and awaiting."""
    store.put((root,), key, {"key": key})
    item = store.get((root,), key)
    assert item is not None
    assert item.value == {"key": key}
    assert store.search((root,), filter={"key": key})
    asyncio.run(awork(store, root, key))


def main() -> None:
    """Runs the program."""
    target, root, parent = sys.argv[1:]
    store = GrpcStore(target)
    if parent == "blocking":
        store.get((root,), "k")
    if parent == "awaiting":
        asyncio.run(awork(store, root, "parent"))
    pids = []
    for number in range(2):
        if not (pid := os.fork()):
            work(store, root, str(number))
            os._exit(0)
        pids.append(pid)
    codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]
    work(store, root, "after")
    print(codes, store.count((root,)) - (parent == "awaiting"))
    store.close()


if __name__ == "__main__":
    main()
