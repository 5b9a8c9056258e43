"""A sampler inside a Python process that shows where it spends its CPU time, by layer.

    python -m tests.bench.sampler OUT python -m MODULE [ARGUMENT ...]

runs a module in this process, as `python -m` would. SIGUSR1 starts sampling; SIGUSR2 stops it and writes the counts to
the file OUT, as JSON.

The kernel sends a signal for each millisecond of CPU time that the process uses, in any thread. The handler reads the
main thread's Python stack, and counts a layer. Time in C code counts where Python called it; time in gRPC's own threads
counts wherever Python happens to be, which is mostly in the event loop. The two are therefore shown as one.
"""

from __future__ import annotations

import json
import runpy
import signal
import sys
from collections import Counter
from pathlib import Path
from types import FrameType

INTERVAL = 0.001
"""CPU time between two samples, in seconds."""
EVENT_LOOP = "gRPC, protobuf and the event loop"
LAYERS = {
    "langgraph/checkpoint/serde/": "serialization",
    "langgraph/checkpoint/grpc/": "GrpcSaver",
    "checkpointd_server/rpc/": "requests and answers (rpc)",
    "checkpointd_server/store/": "statements and group commit (store)",
    "checkpointd_server/domain/": "statements and group commit (store)",
    "checkpointd_server/": "everything else of the server",
    "/asyncpg/": "the driver (asyncpg)",
    "/grpc/": EVENT_LOOP,
    "/google/protobuf/": EVENT_LOOP,
    "/checkpointd/v1/": EVENT_LOOP,
    "asyncio/base_events.py": EVENT_LOOP,
    "tests/bench/": "the benchmark itself",
}
"""The layer of each file: the first entry that is part of its path. Other files (the standard library, serialization
libraries) count for the layer that called them."""


class Sampler:
    """Counts samples of the main thread, by layer. Use it in the main thread."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        """The number of samples in each layer."""
        self._wakeup = -1
        self._known: dict[str, str | None] = {}

    def start(self) -> None:
        """Starts sampling."""
        # Otherwise each sample would wake asyncio.
        self._wakeup = signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGPROF, self._sample)
        signal.setitimer(signal.ITIMER_PROF, INTERVAL, INTERVAL)

    def stop(self) -> None:
        """Stops sampling."""
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.set_wakeup_fd(self._wakeup)

    def _sample(self, _: int, frame: FrameType | None) -> None:
        while frame is not None:
            layer = self._layer(frame.f_code.co_filename)
            if layer is not None:
                self.counts[layer] += 1
                return
            frame = frame.f_back
        self.counts[EVENT_LOOP] += 1

    def _layer(self, file: str) -> str | None:
        if file not in self._known:
            self._known[file] = next((layer for part, layer in LAYERS.items() if part in file), None)
        return self._known[file]


def main() -> None:
    """Runs a module, and takes samples between the signals."""
    out, _, flag, module, *arguments = sys.argv[1:]
    assert flag == "-m"
    sampler = Sampler()

    def finish(number: int, frame: FrameType | None) -> None:
        sampler.stop()
        partial = Path(f"{out}.partial")
        partial.write_text(json.dumps(sampler.counts))
        partial.rename(out)

    signal.signal(signal.SIGUSR1, lambda *_: sampler.start())
    signal.signal(signal.SIGUSR2, finish)
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
