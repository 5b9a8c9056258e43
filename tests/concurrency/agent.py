"""An agent in a separate process: makes one turn, and waits in the middle of it on request.

Usage: python -m tests.concurrency.agent TARGET THREAD_ID WHO DURABILITY [wait]. It prints "arrived" when it waits,
continues at the end of its standard input, and prints "done", or "conflict" and the conflict's message.
"""

from __future__ import annotations

import sys

from langgraph.checkpoint.grpc import GrpcSaver, VersionConflictError

from tests.concurrency.stdin_gate import stdin_gate
from tests.support.gates import build, turn


def main() -> None:
    target, thread_id, who, durability, *wait = sys.argv[1:]
    gate = stdin_gate()
    with GrpcSaver(target) as saver:
        graph = build(saver, gates={who: gate} if wait else {})
        try:
            graph.invoke(turn(who), {"configurable": {"thread_id": thread_id}}, durability=durability)
        except VersionConflictError as conflict:
            print("conflict", conflict, flush=True)
        else:
            print("done", flush=True)


if __name__ == "__main__":
    main()
