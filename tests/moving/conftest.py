"""Servers to move threads between, and stock savers with threads."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import structlog
from click.testing import CliRunner, Result
from langgraph.checkpoint.grpc import GrpcSaver
from langgraph.checkpoint.postgres import PostgresSaver
from langgraph.checkpoint.sqlite import SqliteSaver

from checkpointd_server.cli.commands import main
from tests.moving.played import play
from tests.support.cluster import PostgresCluster
from tests.support.local_server import LocalServer
from tests.support.server_process import ServerProcess


@pytest.fixture(autouse=True)
def servers_log_nothing() -> Iterator[None]:
    """Silences servers in this process, whose log would mix with the commands' output."""
    structlog.configure(logger_factory=structlog.ReturnLoggerFactory())
    yield
    structlog.reset_defaults()


@pytest.fixture
def new_server(postgres_cluster: PostgresCluster) -> Iterator[Callable[..., str]]:
    """Starts a server on a new database or a given one, drops that in the end, and returns the server's address."""
    with ExitStack() as stack:

        def start(name: str | None = None) -> str:
            name = name or postgres_cluster.create_migrated_database()
            stack.callback(postgres_cluster.drop_database, name)
            # Copies of a database share its identity, so each gets a new one.
            postgres_cluster.execute("UPDATE checkpointd.identity SET id = gen_random_uuid()", database=name)
            return stack.enter_context(LocalServer(postgres_cluster.dsn(name))).target

        yield start


@pytest.fixture(scope="session")
def played_database(postgres_cluster: PostgresCluster, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The name of a database in which a server has stored a thread of each kind. Copy it before you change it."""
    name = postgres_cluster.create_migrated_database()
    folder = tmp_path_factory.mktemp("played")
    with (
        ServerProcess("--database-url", postgres_cluster.dsn(name), log_dir=folder) as server,
        GrpcSaver.from_conn_string(server.target) as saver,
    ):
        play(saver)
    return name


@pytest.fixture
def played_server(postgres_cluster: PostgresCluster, played_database: str, new_server: Callable[..., str]) -> str:
    """The address of a server with a thread of each kind."""
    return new_server(postgres_cluster.copy_database(played_database))


@pytest.fixture(scope="session")
def played_postgres(postgres_cluster: PostgresCluster) -> str:
    """The name of a database that a stock saver has filled. Copy it before you change it."""
    name = postgres_cluster.create_database()
    with PostgresSaver.from_conn_string(postgres_cluster.dsn(name)) as saver:
        saver.setup()
        play(saver)
    return name


@pytest.fixture
def stock_url(postgres_cluster: PostgresCluster, played_postgres: str) -> Iterator[str]:
    """The URL of a separate database, filled by the stock saver."""
    name = postgres_cluster.copy_database(played_postgres)
    yield postgres_cluster.dsn(name)
    postgres_cluster.drop_database(name)


@pytest.fixture
def empty_stock_url(empty_database_url: str) -> str:
    """The URL of a database in which the stock saver has nothing yet."""
    with PostgresSaver.from_conn_string(empty_database_url) as saver:
        saver.setup()
    return empty_database_url


@pytest.fixture(scope="session")
def played_sqlite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file that a stock saver has filled. Copy it before you change it."""
    path = tmp_path_factory.mktemp("sqlite") / "checkpoints.sqlite"
    with SqliteSaver.from_conn_string(str(path)) as saver:
        play(saver)
    return path


@pytest.fixture
def sqlite_file(played_sqlite: Path, tmp_path: Path) -> Path:
    """A separate file, filled by the stock saver."""
    return Path(shutil.copy(played_sqlite, tmp_path / "checkpoints.sqlite"))


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Result]:
    """Runs a command in this process, in a separate folder: `command("export", "file", "--target", ...)`."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: Any, code: int = 0, **options: Any) -> Result:
        result = CliRunner().invoke(main, [str(argument) for argument in arguments], **options)
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        assert result.exit_code == code, result.output
        return result

    return run
