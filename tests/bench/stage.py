"""What a benchmark runs on: one PostgreSQL with its durability on, a database for each saver, and our server."""

from __future__ import annotations

import json
import platform
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from tests.bench.savers import Kind, set_up
from tests.cluster import PostgresCluster
from tests.server_process import ServerProcess

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, kw_only=True)
class Stage:
    """The processes that a benchmark talks to."""

    cluster: PostgresCluster
    server: ServerProcess
    stock_url: str
    """The stock savers' database."""
    database: str
    """The name of our server's database."""
    stock_database: str
    """The name of the stock savers' database."""

    def address(self, kind: Kind) -> str:
        """Where a saver finds what it needs."""
        return {"checkpointd": self.server.target, "postgres": self.stock_url, "memory": ""}[kind]

    def server_cpu_seconds(self) -> float:
        """How much CPU time our server has used so far, PostgreSQL not included."""
        times = psutil.Process(self.server.process.pid).cpu_times()
        return float(times.user + times.system)

    def stored_bytes(self, kind: Kind) -> int:
        """How much a saver's database takes on disk."""
        database = self.database if kind == "checkpointd" else self.stock_database
        return int(self.cluster.fetch_value("SELECT pg_database_size($1)", database))

    def connections(self, database: str) -> int:
        """How many clients are connected to a database."""
        return int(self.cluster.fetch_value("SELECT count(*) FROM pg_stat_activity WHERE datname = $1", database))


@contextmanager
def set_stage(server_options: tuple[str, ...] = ()) -> Iterator[Stage]:
    """Starts PostgreSQL and our server, and stops them."""
    with tempfile.TemporaryDirectory(prefix="checkpointd-bench-") as folder:
        log_dir = Path(folder)
        # Everybody may pass, since PostgreSQL runs as another user where we are root.
        log_dir.chmod(0o755)
        with PostgresCluster(log_dir / "postgres", durable=True) as cluster:
            ours, theirs = cluster.create_database(), cluster.create_database()
            set_up(cluster.dsn(theirs))
            options = ("--database-url", cluster.dsn(ours), *server_options)
            with ServerProcess(*options, log_dir=log_dir, env={"CHECKPOINTD_LOG_LEVEL": "info"}) as server:
                yield Stage(
                    cluster=cluster,
                    server=server,
                    stock_url=cluster.dsn(theirs),
                    database=ours,
                    stock_database=theirs,
                )


class Workers:
    """Processes of agents that begin together."""

    def __init__(self, kind: Kind, address: str, *, processes: int, agents: int, seconds: float) -> None:
        command = [sys.executable, "-m", "tests.bench.worker", kind, address, str(agents), str(seconds)]
        self._processes = [
            subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            for _ in range(processes)
        ]

    def until_ready(self) -> None:
        """Waits until each has connected and taken a first turn."""
        for process in self._processes:
            assert process.stdout is not None
            if process.stdout.readline() != "ready\n":
                raise RuntimeError("an agent process ended before it was ready; its error is above")

    def work(self) -> list[dict[str, Any]]:
        """Lets them work, and returns what each has measured."""
        for process in self._processes:
            assert process.stdin is not None
            process.stdin.close()
        results = []
        for process in self._processes:
            assert process.stdout is not None
            results.append(json.loads(process.stdout.readline()))
            process.stdout.close()
            process.wait()
        return results


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    return {
        "cores": psutil.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
    }
