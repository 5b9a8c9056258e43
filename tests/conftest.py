"""Fixtures of all tests: one real PostgreSQL for each process that runs tests, databases on it, and servers.

A server is the real program, `checkpointd serve`, in a process of its own.
"""

from __future__ import annotations

import asyncio
import gc
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest

from checkpointd_server.embedded_postgres.server import EmbeddedPostgres
from tests.support.blocker import Blocker, blocked
from tests.support.cluster import PostgresCluster
from tests.support.local_server import LocalServer
from tests.support.server_process import ServerProcess

# A run starts hundreds of processes, each of which would otherwise recompile our code, and pytest its assertions.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

# Processes of a run in the background inherit that SIGINT is ignored, but tests interrupt some of them.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

MEMORY = Path("/dev/shm")
ROOM_BYTES = 8 << 30


def has_room_in_memory() -> bool:
    """Returns whether there is a file system in memory with room for a run's databases that allows execution."""
    if not os.access(MEMORY, os.W_OK) or shutil.disk_usage(MEMORY).free < ROOM_BYTES:
        return False
    return not os.statvfs(MEMORY).f_flag & os.ST_NOEXEC


def pytest_configure(config: pytest.Config) -> None:
    """Gives the run its own temporary folder, in which each of its processes has one.

    It lies in memory if there is room: a database is a thousand files, and copying one to disk takes ten times as long.
    If tests run as root, PostgreSQL runs as an ordinary user, who needs access to its data; but each start of pytest
    closes pytest's shared folder to other users, even while another run uses it. A short name also keeps the paths of
    Unix sockets below their limit of about 100 bytes.
    """
    if config.option.basetemp is None:
        folder = tempfile.mkdtemp(prefix="cd-", dir=MEMORY if has_room_in_memory() else None)
        config.option.basetemp = Path(folder, "t")
        config.add_cleanup(lambda: shutil.rmtree(folder, ignore_errors=True))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Puts tests first that may take minutes: at the end, one of them would run alone, leaving the other cores idle."""

    def longest(item: pytest.Item) -> float:
        marker = item.get_closest_marker("timeout")
        return float(marker.args[0]) if marker is not None else 0.0

    items.sort(key=longest, reverse=True)


def pytest_collection_finish() -> None:
    """Freezes imported and collected objects, half a million, so the garbage collector doesn't traverse them."""
    gc.collect()
    gc.freeze()


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Returns how many processes run the tests for `-n auto`: only this one for a single file.

    An additional process takes seconds to start, and needs its own PostgreSQL. Otherwise there are two for each core,
    since tests spend half of their time waiting.
    """
    files = [argument.partition("::")[0] for argument in config.args]
    if len(files) == 1 and Path(files[0]).is_file():
        return 0
    cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    return 2 * cores


@pytest.fixture(autouse=True)
def signals_as_before() -> Iterator[None]:
    """Undoes changes to signal handling by commands in this process: processes of later tests would inherit them."""
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.getsignal(number) for number in numbers]
    yield
    for number, handler in zip(numbers, before, strict=True):
        signal.signal(number, handler)


@pytest.fixture(scope="session")
def postgres_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgresCluster]:
    """One PostgreSQL for each process that runs tests, until its last test."""
    with PostgresCluster(tmp_path_factory.mktemp("postgres")) as cluster:
        yield cluster


@pytest.fixture
def database_url(postgres_cluster: PostgresCluster) -> Iterator[str]:
    """The URL of a migrated, empty database that only this test uses."""
    with postgres_cluster.borrowed_database() as name:
        yield postgres_cluster.dsn(name)


@pytest.fixture
def empty_database_url(postgres_cluster: PostgresCluster) -> Iterator[str]:
    """The URL of a database without even the schema, that only this test uses."""
    name = postgres_cluster.create_database()
    yield postgres_cluster.dsn(name)
    postgres_cluster.drop_database(name)


@pytest.fixture(scope="session")
def kept_data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder in which an embedded PostgreSQL was created, and has stopped."""
    folder = tmp_path_factory.mktemp("embedded") / "data"

    async def make() -> None:
        async with EmbeddedPostgres(folder):
            pass

    asyncio.run(make())
    return folder


@pytest.fixture
def data_dir(kept_data_dir: Path, tmp_path: Path) -> Path:
    """A separate data folder as an embedded PostgreSQL leaves it. It is copied: creating one takes much longer."""
    folder = tmp_path / "data"
    subprocess.run(["cp", "-a", kept_data_dir, folder], check=True)  # keeps the owner, who may be another user
    return folder


@pytest.fixture
def blocker(database_url: str) -> Callable[[], AbstractAsyncContextManager[Blocker]]:
    """Blocks puts to existing namespaces: `async with blocker() as blocked`."""
    return lambda: blocked(database_url)


@pytest.fixture
def server(database_url: str, tmp_path: Path) -> Iterator[ServerProcess]:
    """A separate server with its own database, which may be stopped, killed and restarted."""
    with ServerProcess("--database-url", database_url, log_dir=tmp_path) as process:
        yield process


@pytest.fixture
def local_server(database_url: str) -> Iterator[LocalServer]:
    """A server in this process, with its own database."""
    with LocalServer(database_url) as server:
        yield server


@pytest.fixture(scope="session")
def shared_server(
    postgres_cluster: PostgresCluster, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ServerProcess]:
    """A server for all tests that leave it running; each uses its own threads."""
    database = postgres_cluster.create_migrated_database()
    # Automatic retention would run before the test that triggers it.
    options = ("--database-url", postgres_cluster.dsn(database), "--retention-interval", "0")
    with ServerProcess(*options, log_dir=tmp_path_factory.mktemp("shared-server")) as process:
        yield process
    postgres_cluster.drop_database(database)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Adds the logs of a failed test's servers to its report, without the calls that succeeded."""
    report = yield
    if report.failed:
        for name, value in getattr(item, "funcargs", {}).items():
            if isinstance(value, ServerProcess):
                log = "".join(line for line in value.stderr.splitlines(keepends=True) if "code=OK" not in line)
                report.sections.append((f"log of {name}", log[-8000:]))
    return report
