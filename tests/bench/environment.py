"""The environment of a benchmark: one durable PostgreSQL, a database for each saver, and our server."""

from __future__ import annotations

import contextlib
import json
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Self

import psutil

from tests.bench.savers import Kind, set_up
from tests.support.cluster import PostgresCluster
from tests.support.server_process import ExecutedServer

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("langgraph", "langgraph-checkpoint-postgres", "psycopg", "asyncpg", "grpcio", "protobuf")
"""Packages whose versions are reported with the figures."""
_AUTOVACUUM = "SELECT count(*) FROM pg_stat_activity WHERE backend_type LIKE 'autovacuum %'"


@dataclass(frozen=True, kw_only=True)
class Environment:
    """The processes that a benchmark uses."""

    cluster: PostgresCluster
    server: ExecutedServer
    stock_url: str
    """The stock savers' database."""
    database: str
    """The name of our server's database."""
    stock_database: str
    """The name of the stock savers' database."""

    def address(self, kind: Kind) -> str:
        """Returns the address that a saver connects to."""
        return {"checkpointd": self.server.target, "postgres": self.stock_url, "memory": ""}[kind]

    def server_cpu_seconds(self) -> float:
        """Returns the CPU time that all processes of our server have used so far, without PostgreSQL."""
        return cpu_seconds(self.server.process.pid)

    def postgres_cpu_seconds(self) -> float:
        """Returns the CPU time that all processes of PostgreSQL have used so far."""
        lock = self.cluster.data_dir / "postgres" / "postmaster.pid"
        return cpu_seconds(int(lock.read_text().split()[0]))

    @contextmanager
    def without_autovacuum(self) -> Iterator[None]:
        """Disables autovacuum, so PostgreSQL's CPU time includes no work on what other cases left behind."""
        self._configure("ALTER SYSTEM SET autovacuum = off")
        try:
            while self.cluster.fetch_value(_AUTOVACUUM):
                time.sleep(0.02)
            # Flush what other cases wrote now, not during the measurement.
            self.cluster.execute("CHECKPOINT")
            yield
        finally:
            self._configure("ALTER SYSTEM RESET autovacuum")

    def _configure(self, statement: str) -> None:
        self.cluster.execute(statement)
        self.cluster.execute("SELECT pg_reload_conf()")

    @contextmanager
    def serving(self, *options: str, prefix: Sequence[str] = ()) -> Iterator[ExecutedServer]:
        """Runs an additional server with its own database."""
        database = self.cluster.create_database()
        with tempfile.TemporaryDirectory(prefix="checkpointd-bench-") as folder:
            server = ExecutedServer(
                *("--database-url", self.cluster.dsn(database), *options),
                log_dir=Path(folder),
                env={"CHECKPOINTD_LOG_LEVEL": "info"},
                prefix=prefix,
            )
            with server:
                yield server
        self.cluster.drop_database(database)

    def stored_bytes(self, kind: Kind) -> int:
        """Returns the size of a saver's database on disk."""
        database = self.database if kind == "checkpointd" else self.stock_database
        return int(self.cluster.fetch_value("SELECT pg_database_size($1)", database))

    def connections(self, database: str) -> int:
        """Returns the number of clients connected to a database."""
        return int(self.cluster.fetch_value("SELECT count(*) FROM pg_stat_activity WHERE datname = $1", database))


@contextmanager
def open_environment(server_options: tuple[str, ...] = ()) -> Iterator[Environment]:
    """Runs PostgreSQL and our server while entered."""
    with tempfile.TemporaryDirectory(prefix="checkpointd-bench-") as folder:
        log_dir = Path(folder)
        # Other users may enter, since PostgreSQL runs as another user if we are root.
        log_dir.chmod(0o755)
        settings = {"track_wal_io_timing": "on"}  # for the profile; the cost is negligible
        with PostgresCluster(log_dir / "postgres", durable=True, settings=settings) as cluster:
            ours, theirs = cluster.create_database(), cluster.create_database()
            set_up(cluster.dsn(theirs))
            options = ("--database-url", cluster.dsn(ours), *server_options)
            with ExecutedServer(*options, log_dir=log_dir, env={"CHECKPOINTD_LOG_LEVEL": "info"}) as server:
                yield Environment(
                    cluster=cluster,
                    server=server,
                    stock_url=cluster.dsn(theirs),
                    database=ours,
                    stock_database=theirs,
                )


class Workers:
    """Processes of agents that start together."""

    def __init__(self, command: Sequence[str], *, processes: int = 1) -> None:
        self._processes = [
            subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            for _ in range(processes)
        ]

    @classmethod
    def working(
        cls, kind: Kind, address: str, *, work: str = "calls", processes: int, agents: int, seconds: float
    ) -> Self:
        """Starts processes whose agents, this many in each, work for a while; `work` is one of the worker's kinds."""
        command = [sys.executable, "-m", "tests.bench.worker", kind, address, work, str(agents), str(seconds)]
        return cls(command, processes=processes)

    def until_ready(self) -> None:
        """Waits until each has connected and taken a first turn."""
        for process in self._processes:
            assert process.stdout is not None
            if process.stdout.readline() != "ready\n":
                raise RuntimeError("an agent process ended before it was ready; its error is above")

    def work(self) -> list[dict[str, Any]]:
        """Lets them work, and returns their results."""
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


def cpu_seconds(pid: int) -> float:
    """Returns the CPU time of a process and its children so far, in seconds."""
    process = psutil.Process(pid)
    total = 0.0
    for one in (process, *process.children(recursive=True)):
        with contextlib.suppress(psutil.NoSuchProcess):
            times = one.cpu_times()
            total += times.user + times.system
    # Includes children that have ended meanwhile.
    ended = process.cpu_times()
    return total + getattr(ended, "children_user", 0.0) + getattr(ended, "children_system", 0.0)


def machine() -> dict[str, Any]:
    """Returns a description of the machine, for the figures."""
    return {
        "cores": psutil.cpu_count(),
        "processor": _processor(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "packages": {name: metadata.version(name) for name in PACKAGES},
    }


def commit() -> str:
    """Returns the measured commit, with a "+" if files differ from it. Empty without git."""
    command = ["git", "describe", "--always", "--dirty=+", "--abbrev=12"]
    with contextlib.suppress(FileNotFoundError):
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False).stdout.strip()
    return ""


def _processor() -> str:
    """Returns the processor's name, if the system reports it."""
    cpus = Path("/proc/cpuinfo")
    lines = cpus.read_text().splitlines() if cpus.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()
