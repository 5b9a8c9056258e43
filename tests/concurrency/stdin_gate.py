"""The gate of an agent in a separate process."""

from __future__ import annotations

import sys
import threading

from tests.support.gates import Gate


def stdin_gate() -> Gate:
    """Returns a gate that prints "arrived" when a run waits at it, and opens when standard input is closed."""
    gate = Gate()

    def watch() -> None:
        gate.arrived.wait()
        print("arrived", flush=True)
        sys.stdin.read()
        gate.open.set()

    threading.Thread(target=watch, daemon=True).start()
    return gate
