"""Profile of a put: CPU time of the client, the server and PostgreSQL by layer, and time spent waiting for the disk.

The CPU time of each process comes from the operating system, its layers from samples (see sampler.py), and the wait for
the disk from PostgreSQL's statistics. docs/performance.md describes how to get the same by hand.
"""

from __future__ import annotations

import json
import signal
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.bench.case import Case, Pace, Progress
from tests.bench.environment import Environment, Workers, cpu_seconds

WAL = "SELECT sum(writes), sum(write_time), sum(fsyncs), sum(fsync_time) FROM pg_stat_io WHERE object = 'wal'"
"""How often the log was written and synced so far, and how long that took, in milliseconds."""
PUT = [sys.executable, "-m", "tests.bench.put_worker"]
BENCHMARK = "the benchmark itself"
ELAPSED, DISK, CPU = "elapsed (median)", "PostgreSQL: writing and syncing the log", "PostgreSQL: CPU"


def cases() -> list[Case]:
    """The profile."""
    return [PutProfile()]


@dataclass(frozen=True, kw_only=True)
class PutProfile:
    """Profiles puts of a single agent, and of 32 agents in one process."""

    name: str = "profile"
    title: str = "Where a put's microseconds go"

    def run(self, environment: Environment, pace: Pace, progress: Progress) -> dict[str, Any]:
        """Measures both."""
        columns = {}
        for agents in (1, 32):
            who = "1 agent" if agents == 1 else f"{agents} agents"
            progress(f"{self.title}: {who}")
            columns[who] = _profile(environment, pace, agents)
        return {"kind": "profile", "columns": columns}


def _profile(environment: Environment, pace: Pace, agents: int) -> dict[str, float]:
    """Returns the microseconds of a put, by where they are spent."""
    with tempfile.TemporaryDirectory(prefix="checkpointd-bench-") as folder:
        samples = Path(folder, "samples.json")
        prefix = (sys.executable, "-m", "tests.bench.sampler", str(samples))
        with environment.serving(prefix=prefix) as server:
            workers = Workers([*PUT, "checkpointd", server.target, str(agents), str(pace.seconds)])
            workers.until_ready()
            time.sleep(pace.settle_seconds)
            with environment.without_autovacuum():
                wal_before = environment.cluster.fetch_row(WAL)
                postgres_before, server_before = environment.postgres_cpu_seconds(), cpu_seconds(server.process.pid)
                server.signal(signal.SIGUSR1)
                (client,) = workers.work()
                server.signal(signal.SIGUSR2)
                server_us = (cpu_seconds(server.process.pid) - server_before) / client["puts"] * 1e6
                postgres_us = (environment.postgres_cpu_seconds() - postgres_before) / client["puts"] * 1e6
                time.sleep(pace.settle_seconds)
                wal_after = environment.cluster.fetch_row(WAL)
            wal = [after - before for before, after in zip(wal_before, wal_after, strict=True)]
            while not samples.exists():
                time.sleep(0.01)
            server_samples = json.loads(samples.read_text())
    return {
        **_by_layer("client", client["cpu_us"], client["samples"]),
        **_by_layer("server", server_us, server_samples),
        CPU: postgres_us,
        DISK: float(wal[1] + wal[3]) * 1000 / client["puts"],
        ELAPSED: client["median_us"],
        "puts": client["puts"],
        "syncs of the log": float(wal[2]),
    }


def _by_layer(side: str, cpu_us: float, samples: Mapping[str, int]) -> dict[str, float]:
    """Distributes a side's CPU time over its layers, except that of the benchmark itself."""
    total = sum(samples.values()) or 1
    layers = sorted(samples, key=lambda layer: -samples[layer])
    return {f"{side}: {layer}": cpu_us * samples[layer] / total for layer in layers if layer != BENCHMARK}
