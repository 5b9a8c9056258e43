"""Asks a server for its health without a pause, in a separate process: `python -m tests.load.onlooker HOST:PORT`.

Prints "watching" after the first answer. At the end of standard input it prints the time of the slowest answer, in
seconds.
"""

from __future__ import annotations

import sys
import threading
import time

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc


def main(target: str) -> None:
    """Asks until standard input ends."""
    over = threading.Event()

    def wait() -> None:
        sys.stdin.read()
        over.set()

    threading.Thread(target=wait, daemon=True).start()
    slowest = 0.0
    with grpc.insecure_channel(target) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        stub.Check(health_pb2.HealthCheckRequest(), timeout=60)
        print("watching", flush=True)
        while not over.is_set():
            begun = time.monotonic()
            stub.Check(health_pb2.HealthCheckRequest(), timeout=60)
            slowest = max(slowest, time.monotonic() - begun)
            time.sleep(0.002)
    print(slowest)


if __name__ == "__main__":
    main(sys.argv[1])
