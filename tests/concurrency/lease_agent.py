"""An agent in a separate process: makes one turn under a lease, and waits in the middle of it.

Usage: python -m tests.concurrency.lease_agent TARGET THREAD_ID WHO DURABILITY CONCURRENCY TTL. It prints "held" and the
lease's token when it has the lease, and "arrived" when it waits in the middle of its turn. It continues at the end of
its standard input, and prints "done" or the name of the error.
"""

from __future__ import annotations

import sys
from typing import Any, cast

from langgraph.checkpoint.grpc import GrpcSaver, WriteConflictError

from tests.concurrency.stdin_gate import stdin_gate
from tests.support.gates import build, turn


def main() -> None:
    target, thread_id, who, durability, concurrency, ttl = sys.argv[1:]
    gate = stdin_gate()
    with GrpcSaver(target, concurrency=cast(Any, concurrency)) as saver:
        graph = build(saver, gates={who: gate})
        try:
            with saver.lease(thread_id, ttl=float(ttl)) as lease:
                print("held", lease.token, flush=True)
                graph.invoke(turn(who), {"configurable": {"thread_id": thread_id}}, durability=cast(Any, durability))
        except WriteConflictError as refusal:
            print(type(refusal).__name__, flush=True)
        else:
            print("done", flush=True)


if __name__ == "__main__":
    main()
