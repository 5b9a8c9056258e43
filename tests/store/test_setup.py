"""An operator's mistakes: each error says what to fix, and never contains the password."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from urllib.parse import quote

import asyncpg
import pytest

from checkpointd_server.domain.errors import SetupError
from checkpointd_server.embedded_postgres.server import EmbeddedPostgres
from checkpointd_server.store import StoreOptions, migrate, open_store, schema_status, schema_version
from tests.support.cluster import PostgresCluster
from tests.support.tenant import a_connection

SECRET = "s3cr3t-Passw0rd"
VERBS: list[Callable[[StoreOptions], Awaitable[object]]] = [migrate, schema_version, schema_status]


async def _refusal(options: StoreOptions) -> str:
    """Returns the error of opening, of migrating and of reading the version: it must be the same."""
    messages = set()
    with pytest.raises(SetupError) as refused:
        async with open_store(options):
            pass
    messages.add(str(refused.value))
    for verb in VERBS:
        with pytest.raises(SetupError) as refused:
            await verb(options)
        messages.add(str(refused.value))
    assert len(messages) == 1
    assert SECRET not in messages.copy().pop() + repr(options) + str(options)
    return messages.pop()


async def test_an_unknown_database_is_told(database_url: str) -> None:
    name = database_url.partition("?")[0].rpartition("/")[2]
    message = await _refusal(StoreOptions(dsn=database_url.replace(f"/{name}?", "/no_such_database?")))
    assert "does not exist" in message


@pytest.mark.parametrize(
    "dsn",
    [
        f"mysql://user:{SECRET}@localhost/db",
        f"user:{SECRET}@localhost/db",
        f"postgresql://user:{SECRET}@localhost:port/db",
        f"postgresql://user:{SECRET}@localhost/db?sslmode=sometimes",
        f"postgresql://user:{SECRET}@localhost/db?target_session_attrs=master",
        f"host=localhost password={SECRET}",
        "",
        "postgresql://[::1/db",
    ],
)
async def test_a_url_that_is_none_is_told(dsn: str) -> None:
    message = await _refusal(StoreOptions(dsn=dsn, startup_timeout=0.2))
    if dsn:
        assert "database URL" in message


@pytest.mark.parametrize(
    ("option", "named"),
    [
        ("sslmode=bogus", "its option sslmode (one of disable, allow, prefer, require, verify-ca, verify-full)"),
        ("sslmode=verify-full&sslrootcert=/no/such", "(127.0.0.1: sslrootcert, or another file that"),
        ("target_session_attrs=master", "its option target_session_attrs (one of any, primary, standby"),
        ("sslmode=require&sslnegotiation=bogus", "its option sslnegotiation (one of postgres, direct)"),
    ],
)
async def test_an_option_of_the_url_that_can_not_be_is_named(option: str, named: str) -> None:
    message = await _refusal(StoreOptions(dsn=f"postgresql://user:{SECRET}@127.0.0.1/db?{option}", startup_timeout=0))
    assert named in message
    assert "bogus" not in message


@pytest.fixture(scope="module")
def tcp_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A PostgreSQL that is reached over TCP, without TLS."""
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        port = holder.getsockname()[1]
    settings = {"listen_addresses": "127.0.0.1", "port": str(port)}
    with PostgresCluster(tmp_path_factory.mktemp("tcp"), settings=settings):
        yield f"postgresql://postgres:{SECRET}@127.0.0.1:{port}/postgres"


async def test_a_server_without_tls_is_told_where_the_url_asks_for_it(tcp_url: str) -> None:
    message = await _refusal(StoreOptions(dsn=f"{tcp_url}?sslmode=require", startup_timeout=0))
    assert "(127.0.0.1: it speaks no TLS, for which the URL's sslmode asks)" in message
    await schema_version(StoreOptions(dsn=f"{tcp_url}?sslmode=prefer"))


@pytest.mark.skipif(not hasattr(socket, "TCP_USER_TIMEOUT"), reason="the system has no such option")
async def test_the_database_gives_up_a_server_whose_host_is_gone(tcp_url: str) -> None:
    options = StoreOptions(dsn=tcp_url)
    await migrate(options)
    async with open_store(options) as store, a_connection(store) as connection:
        in_force = [
            await connection.fetchval(f"SHOW tcp_{name}")
            for name in ("user_timeout", "keepalives_idle", "keepalives_interval", "keepalives_count")
        ]
    # PostgreSQL asks the system for the settings in force: over a Unix socket it shows 0.
    assert in_force == ["10000", "5", "2", "3"]


async def test_a_host_that_does_not_answer_is_told_after_the_time_to_wait() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # bound, not listening: the port is taken and refuses
        port = unused.getsockname()[1]
        started = time.monotonic()
        with pytest.raises(SetupError, match="can't be reached") as refused:
            await migrate(StoreOptions(dsn=f"postgresql://u:{SECRET}@127.0.0.1:{port}/db", startup_timeout=0.5))
        assert time.monotonic() - started >= 0.3
    assert SECRET not in str(refused.value)


async def test_a_host_that_accepts_and_says_nothing_is_told() -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        dsn = f"postgresql://u:{SECRET}@127.0.0.1:{silent.getsockname()[1]}/db"
        with pytest.raises(SetupError, match="no answer"):
            await migrate(StoreOptions(dsn=dsn, startup_timeout=0.1, connect_timeout=0.2))


async def test_a_database_that_comes_up_late_is_waited_for(data_dir: Path) -> None:
    async with EmbeddedPostgres(data_dir) as postgres:
        dsn = postgres.dsn
    task = asyncio.create_task(migrate(StoreOptions(dsn=dsn, startup_timeout=60)))
    await asyncio.sleep(0.3)
    assert not task.done()
    async with EmbeddedPostgres(data_dir) as postgres:
        assert postgres.dsn == dsn
        assert len(await task) > 0


async def test_a_role_without_rights_is_told(own_options: StoreOptions) -> None:
    connection = await asyncpg.connect(own_options.dsn)
    user = f"nobody_{await connection.fetchval('SELECT current_database()')}"
    await connection.execute(f"CREATE ROLE {user} LOGIN")
    try:
        for schema in ("checkpointd", "other"):
            options = StoreOptions(dsn=own_options.dsn.replace("postgres@", f"{user}@"), schema=schema)
            with pytest.raises(SetupError, match="lacks the right") as refused:
                await migrate(options)
            assert repr(schema) in str(refused.value)
    finally:
        await connection.execute(f"DROP ROLE {user}")
        await connection.close()


async def test_a_wrong_password_is_told(data_dir: Path) -> None:
    async with EmbeddedPostgres(data_dir) as postgres:
        connection = await asyncpg.connect(postgres.dsn)
        await connection.execute(f"CREATE ROLE someone LOGIN PASSWORD '{SECRET}'")
        hba_file = Path(await connection.fetchval("SHOW hba_file"))
        hba_file.write_text("local all postgres trust\nlocal all all scram-sha-256\n")
        await connection.execute("SELECT pg_reload_conf()")
        await connection.close()
        for login in (
            f"someone:{SECRET}-wrong",
            f"{SECRET}:x",
            "someone",
            f"someone:{quote('%/@:' + SECRET, safe='')}",
        ):
            message = await _refusal(StoreOptions(dsn=postgres.dsn.replace("postgres@", f"{login}@")))
            assert "refuses the login" in message
        right = StoreOptions(dsn=postgres.dsn.replace("postgres@", f"someone:{SECRET}@"))
        assert await schema_version(right) == 0


async def test_a_database_that_takes_no_writes_is_told(own_options: StoreOptions) -> None:
    connection = await asyncpg.connect(own_options.dsn)
    name = await connection.fetchval("SELECT current_database()")
    await connection.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    await connection.close()
    with pytest.raises(SetupError, match="read-only"):
        async with open_store(own_options):
            pass
    with pytest.raises(SetupError, match="read-only"):
        await migrate(StoreOptions(dsn=own_options.dsn, schema="other"))


@pytest.mark.parametrize(
    "option",
    [
        {"schema": ""},
        {"schema": "x" * 64},
        {"schema": "\u00e9" * 32},
        {"schema": "a\0b"},
        {"schema": "pg_mine"},
        {"pool_max_size": 0},
        {"pool_min_size": -1},
        {"pool_min_size": 9},
        {"statement_cache_size": -1},
        {"connect_timeout": 0},
        {"startup_timeout": -1.0},
        {"max_connection_age": 0},
    ],
)
def test_options_that_cannot_be_are_refused(option: dict[str, object]) -> None:
    with pytest.raises(SetupError):
        StoreOptions(dsn="postgresql://", **option)  # type: ignore[arg-type]
