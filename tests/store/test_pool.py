"""Connections: replaced unnoticed, bounded in time, returned in all cases."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from checkpointd_server.domain.checkpoints import Namespace
from checkpointd_server.domain.errors import DatabaseUnavailable, DeadlineExceeded, InvalidArgument, SetupError
from checkpointd_server.domain.threads import PruneStrategy
from checkpointd_server.embedded_postgres.server import EmbeddedPostgres
from checkpointd_server.store import StoreOptions, migrate, open_store
from checkpointd_server.store.connections.hosts import urls_of_hosts
from checkpointd_server.store.connections.pool import Connection, Pool
from tests.support.tenant import TIMEOUT, Tenant, a_connection
from tests.support.until import auntil

PLACE = Namespace("tenant", "t", "")


@pytest.fixture
async def admin(own_options: StoreOptions) -> AsyncIterator[Any]:
    """A connection besides the store's."""
    connection = await asyncpg.connect(own_options.dsn, server_settings={"application_name": "admin"})
    yield connection
    await connection.close()


BACKENDS = "FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'checkpointd'"


async def _until(admin: Any, condition: str) -> None:
    """Waits until a condition on the database holds."""
    await auntil(lambda: admin.fetchval(f"SELECT {condition}"))


@contextlib.asynccontextmanager
async def _held(tenant: Tenant, options: StoreOptions) -> AsyncIterator[None]:
    """Holds the thread's lock, so that puts wait."""
    await tenant.put("0")
    # A separate connection: within a transaction, pg_stat_activity doesn't change.
    connection = await asyncpg.connect(options.dsn)
    async with connection.transaction():
        await connection.execute("SELECT FROM checkpointd.threads FOR UPDATE")
        yield
    await connection.close()


async def test_connections_show_under_their_name(own_options: StoreOptions, admin: Any) -> None:
    async with open_store(replace(own_options, pool_min_size=2, application_name="mine")) as store:
        await store.check(timeout=TIMEOUT)
        assert await admin.fetchval("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'mine'") == 2


async def test_statements_see_what_is_there_whatever_the_database_prefers(
    own_options: StoreOptions, admin: Any
) -> None:
    """The database's default isolation would hide from a put what happened while it waited for the thread's lock."""
    name = await admin.fetchval("SELECT quote_ident(current_database())")
    await admin.execute(f"ALTER DATABASE {name} SET default_transaction_isolation = 'repeatable read'")
    async with open_store(own_options) as store, a_connection(store) as connection:
        assert await connection.fetchval("SHOW transaction_isolation") == "read committed"


async def test_a_closed_store_leaves_no_connection(own_options: StoreOptions, admin: Any) -> None:
    async with open_store(replace(own_options, pool_min_size=4)):
        assert await admin.fetchval(f"SELECT count(*) {BACKENDS}") >= 4
    await _until(admin, f"NOT EXISTS (SELECT {BACKENDS})")


async def test_a_call_that_comes_while_the_store_closes_is_refused_and_leaves_no_connection(
    own_options: StoreOptions, admin: Any
) -> None:
    async with contextlib.AsyncExitStack() as stack:
        store = await stack.enter_async_context(open_store(replace(own_options, pool_max_size=1)))
        tenant = Tenant(store, "tenant")
        async with _held(tenant, own_options):
            at_work = asyncio.create_task(tenant.put("1"))
            await _until(admin, f"EXISTS (SELECT {BACKENDS} AND wait_event_type = 'Lock')")
            in_line = asyncio.create_task(tenant.get())
            await asyncio.sleep(0)
            closing = asyncio.create_task(stack.aclose())
            await asyncio.sleep(0.1)
            assert not closing.done()
        assert await at_work
        with pytest.raises(DatabaseUnavailable, match="shutting down"):
            await in_line
        await closing
    with pytest.raises(DatabaseUnavailable, match="shutting down"):
        await tenant.get()
    await _until(admin, f"NOT EXISTS (SELECT {BACKENDS})")


async def test_a_connection_that_is_made_while_the_pool_closes_is_ended(own_options: StoreOptions, admin: Any) -> None:
    go_on = asyncio.Event()

    async def make() -> Connection:
        connection: Connection = await asyncpg.connect(
            own_options.dsn, connection_class=Connection, server_settings={"application_name": "checkpointd"}
        )
        await go_on.wait()
        return connection

    pool = Pool(make, min_size=0, max_idle=60)
    await pool.open()
    acquiring = asyncio.create_task(pool.acquire())
    await _until(admin, f"EXISTS (SELECT {BACKENDS})")
    await pool.close()
    go_on.set()
    with pytest.raises(DatabaseUnavailable):
        await acquiring
    await _until(admin, f"NOT EXISTS (SELECT {BACKENDS})")


async def test_connections_that_are_not_needed_are_closed_but_for_the_least(
    own_options: StoreOptions, admin: Any
) -> None:
    options = replace(own_options, pool_min_size=2, pool_max_size=6, max_idle_time=0.2)
    async with open_store(options) as store:
        async with contextlib.AsyncExitStack() as stack:
            for _ in range(6):
                await stack.enter_async_context(a_connection(store))
            assert await admin.fetchval(f"SELECT count(*) {BACKENDS}") == 6
        await _until(admin, f"(SELECT count(*) {BACKENDS}) = 2")
        await asyncio.sleep(1)
        assert await admin.fetchval(f"SELECT count(*) {BACKENDS}") == 2


async def test_connections_that_were_lost_are_made_before_they_are_needed(
    own_options: StoreOptions, admin: Any
) -> None:
    async with open_store(replace(own_options, pool_min_size=2)):
        before = await admin.fetchval(f"SELECT array_agg(pid) {BACKENDS}")
        await admin.execute(f"SELECT pg_terminate_backend(pid) {BACKENDS}")
        await _until(admin, f"(SELECT count(*) FILTER (WHERE pid != ALL ('{set(before)}'::int[])) {BACKENDS}) = 2")


async def test_killed_idle_connections_are_replaced_unseen(own_options: StoreOptions, admin: Any) -> None:
    async with open_store(replace(own_options, pool_min_size=8)) as store:
        tenant = Tenant(store, "tenant")
        await asyncio.gather(*(tenant.put(str(n)) for n in range(8)))
        for n in range(8, 12):
            assert await admin.fetchval(f"SELECT count(pg_terminate_backend(pid)) {BACKENDS}") > 0
            await asyncio.gather(*(tenant.put(f"{n}.{m}") for m in range(8)), tenant.get(), tenant.listed())
        assert len(await tenant.ids()) == 8 + 4 * 8


async def test_a_put_whose_connection_is_killed_under_it_is_stored_once(own_options: StoreOptions, admin: Any) -> None:
    async with open_store(own_options) as store:
        tenant = Tenant(store, "tenant")
        async with _held(tenant, own_options):
            base = await admin.fetchval("SELECT version FROM checkpointd.namespaces")
            put = asyncio.create_task(tenant.put("1", expect=base))
            await _until(admin, f"EXISTS (SELECT {BACKENDS} AND wait_event_type = 'Lock')")
            await admin.execute(f"SELECT pg_terminate_backend(pid) {BACKENDS}")
            await _until(admin, f"EXISTS (SELECT {BACKENDS} AND wait_event_type = 'Lock')")
        version = await put
        assert (await tenant.get()).version == version
        assert await tenant.ids() == ["0", "1"]


async def test_killed_connections_in_the_middle_of_transactions_are_healed(
    own_options: StoreOptions, admin: Any
) -> None:
    async with open_store(own_options) as store:
        tenant = Tenant(store, "tenant")
        async with _held(tenant, own_options):
            delete = asyncio.create_task(tenant.delete())
            await _until(admin, f"EXISTS (SELECT {BACKENDS} AND wait_event_type = 'Lock')")
            await admin.execute(f"SELECT pg_terminate_backend(pid) {BACKENDS}")
        assert await delete == 1


async def test_a_restarted_database_is_found_again(data_dir: Path) -> None:
    async with contextlib.AsyncExitStack() as stack:
        postgres = EmbeddedPostgres(data_dir)
        async with postgres:
            options = StoreOptions(dsn=postgres.dsn, pool_min_size=4)
            await migrate(options)
            store = await stack.enter_async_context(open_store(options))
            tenant = Tenant(store, "tenant")
            await tenant.put("1")
        with pytest.raises(DatabaseUnavailable):
            await tenant.get()
        with pytest.raises(DatabaseUnavailable):
            await store.check(timeout=TIMEOUT)
        async with EmbeddedPostgres(data_dir):
            await tenant.put("2")
            assert await tenant.ids() == ["1", "2"]
            await stack.aclose()


async def test_of_several_hosts_the_one_that_takes_writes_is_used(own_options: StoreOptions, tmp_path: Path) -> None:
    socket_dir = own_options.dsn.rpartition("host=")[2].partition("&")[0]
    hosts = own_options.dsn.replace(f"host={socket_dir}", f"host={tmp_path},{socket_dir}").replace(
        "port=5432", "port=5432,5432"
    )
    async with open_store(replace(own_options, dsn=f"{hosts}&target_session_attrs=primary")) as store:
        assert await Tenant(store, "tenant").put("1") > 0
    standby = replace(own_options, dsn=f"{hosts}&target_session_attrs=standby", startup_timeout=0.3)
    with pytest.raises(SetupError):
        async with open_store(standby):
            pass


@pytest.mark.parametrize(
    ("dsn", "urls"),
    [
        ("postgresql://u:p%40@a/db?x=1", ["postgresql://u:p%40@a/db?x=1"]),
        ("postgresql://u@a:1,[::1]:2/db?x=1", ["postgresql://u@a:1/db?x=1", "postgresql://u@[::1]:2/db?x=1"]),
        (
            "postgresql://u@/db?host=/a,/b&port=1,2",
            ["postgresql://u@/db?host=%2Fa&port=1", "postgresql://u@/db?host=%2Fb&port=2"],
        ),
        (
            "postgresql://u@/db?host=a,b&port=1",
            ["postgresql://u@/db?host=a&port=1", "postgresql://u@/db?host=b&port=1"],
        ),
        ("postgresql://u@/db?host=a,b", ["postgresql://u@/db?host=a&port=", "postgresql://u@/db?host=b&port="]),
        ("postgresql:///db", ["postgresql:///db"]),
    ],
)
def test_each_host_of_a_url_has_a_url_of_its_own(dsn: str, urls: list[str]) -> None:
    assert urls_of_hosts(dsn) == urls


async def test_a_deadline_ends_the_statement_on_the_server(
    own_options: StoreOptions, admin: Any, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_store(replace(own_options, pool_max_size=1)) as store:
        tenant = Tenant(store, "tenant")
        async with _held(tenant, own_options):
            for verb in (
                store.delete_thread("tenant", "t", timeout=0.3),
                store.prune_threads("tenant", ["t"], PruneStrategy.KEEP_LATEST, timeout=0.3),
            ):
                with pytest.raises(DeadlineExceeded):
                    await verb
                await _until(admin, f"NOT EXISTS (SELECT {BACKENDS} AND state <> 'idle')")
            assert (await tenant.get()).checkpoint is not None
        assert await tenant.delete() == 1
    assert "replacing" not in caplog.text


async def test_waiting_for_a_connection_ends_with_the_deadline(own_options: StoreOptions, admin: Any) -> None:
    async with open_store(replace(own_options, pool_max_size=1)) as store:
        tenant = Tenant(store, "tenant")
        async with _held(tenant, own_options):
            first = asyncio.create_task(tenant.put("1"))
            await _until(admin, f"EXISTS (SELECT {BACKENDS} AND wait_event_type = 'Lock')")
            with pytest.raises(DeadlineExceeded):
                await store.get_checkpoint(PLACE, None, timeout=0.1)
        await first


async def test_a_deadline_that_has_passed_stores_nothing(own_options: StoreOptions) -> None:
    async with open_store(own_options) as store:
        for timeout in (0.0, -1.0):
            with pytest.raises(DeadlineExceeded):
                await store.get_checkpoint(PLACE, None, timeout=timeout)
        await store.check(timeout=TIMEOUT)


async def test_cancelled_calls_give_their_connections_back(
    own_options: StoreOptions, admin: Any, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_store(replace(own_options, pool_min_size=2, pool_max_size=2)) as store:
        tenant = Tenant(store, "tenant")
        before = await admin.fetchval(f"SELECT array_agg(pid ORDER BY pid) {BACKENDS}")
        for _ in range(3):
            async with _held(tenant, own_options):
                calls = [asyncio.create_task(call) for call in (tenant.put("1"), tenant.delete(), tenant.put("2"))]
                await _until(admin, f"(SELECT count(*) = 2 {BACKENDS} AND wait_event_type = 'Lock')")
                for call in calls:
                    call.cancel()
                results = await asyncio.gather(*calls, return_exceptions=True)
                assert all(isinstance(result, asyncio.CancelledError) for result in results)
                await _until(admin, f"NOT EXISTS (SELECT {BACKENDS} AND state <> 'idle')")
                assert await tenant.ids() == ["0"]
        # The connections are still in use, and no others are suspected.
        assert await admin.fetchval(f"SELECT array_agg(pid ORDER BY pid) {BACKENDS}") == before
    assert "replacing" not in caplog.text


async def test_old_connections_are_replaced(own_options: StoreOptions) -> None:
    async def backend() -> int:
        async with a_connection(store) as connection:
            return int(connection.get_server_pid())

    async with open_store(replace(own_options, pool_max_size=1, max_connection_age=1e-6)) as store:
        before = await backend()
        assert await backend() == before  # no check in between
        await store.check(timeout=TIMEOUT)
        assert await backend() != before


async def test_a_changed_table_is_noticed_unseen(own_options: StoreOptions, admin: Any) -> None:
    async with open_store(own_options) as store:
        tenant = Tenant(store, "tenant")
        await tenant.put("1")
        await tenant.get()
        await admin.execute("ALTER TABLE checkpointd.checkpoints ALTER COLUMN metadata_type TYPE varchar")
        await tenant.put("2")
        assert (await tenant.read()).checkpoint_id == "2"
        assert len(await tenant.listed()) == 2


async def test_a_refused_write_leaves_the_connection_usable(own_options: StoreOptions) -> None:
    async with open_store(replace(own_options, pool_max_size=1)) as store:
        tenant = Tenant(store, "tenant")
        with pytest.raises(InvalidArgument):
            await tenant.put("1", metadata={"key": "\0"})
        with pytest.raises(InvalidArgument):
            await tenant.copy("t", "\0")
        await tenant.put("1")


async def test_a_database_turned_read_only_is_unavailable_until_it_is_back(
    own_options: StoreOptions, admin: Any
) -> None:
    name = await admin.fetchval("SELECT current_database()")
    async with open_store(own_options) as store:
        tenant = Tenant(store, "tenant")
        await tenant.put("1")
        await admin.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
        await admin.execute(f"SELECT pg_terminate_backend(pid) {BACKENDS}")
        with pytest.raises(DatabaseUnavailable):
            await tenant.put("2")
        # Connections that were made meanwhile would stay read-only: they must not be reused.
        await admin.execute("SET default_transaction_read_only = off")
        await admin.execute(f"ALTER DATABASE {name} RESET default_transaction_read_only")
        await tenant.put("2")
        assert await tenant.ids() == ["1", "2"]


async def test_too_many_connections_are_unavailability(own_options: StoreOptions, admin: Any) -> None:
    connection = await asyncpg.connect(own_options.dsn)
    name = await connection.fetchval("SELECT current_database()")
    user = f"limited_{name}"
    await connection.execute(f"CREATE ROLE {user} LOGIN CONNECTION LIMIT 1")
    await connection.execute(f"GRANT ALL ON SCHEMA checkpointd TO {user}")
    await connection.execute(f"GRANT ALL ON ALL TABLES IN SCHEMA checkpointd TO {user}")
    options = replace(
        own_options, dsn=own_options.dsn.replace("postgres@", f"{user}@"), pool_max_size=1, pool_min_size=0
    )
    try:
        async with open_store(options) as store:
            await store.check(timeout=TIMEOUT)
            await connection.execute(f"SELECT pg_terminate_backend(pid) {BACKENDS}")
            await _until(admin, f"NOT EXISTS (SELECT {BACKENDS})")
            rival = await asyncpg.connect(options.dsn)
            with pytest.raises(DatabaseUnavailable):
                await store.check(timeout=TIMEOUT)
            await rival.close()
            await store.check(timeout=TIMEOUT)
    finally:
        await connection.execute(f"DROP OWNED BY {user}; DROP ROLE {user}")
        await connection.close()
