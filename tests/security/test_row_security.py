"""Row-level security: the second barrier between tenants, in case one of our statements names the wrong tenant."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import asyncpg
import pytest

from checkpointd_server.domain.errors import CheckpointdError
from checkpointd_server.store import PostgresStore, StoreOptions, open_store
from checkpointd_server.store.connections.database import Connections, Database
from checkpointd_server.store.items.features import ItemFeatures
from checkpointd_server.store.tenant_store import PostgresTenants
from tests.security.transaction_pooler import TransactionPooler
from tests.support.server_process import ServerProcess
from tests.support.tenant import Tenant, a_connection
from tests.support.until import until
from tests.support.verbs import VERBS, contents, fill

OPEN_TABLES = {"gc_queue", "tenants", "item_sweeps", "retention_tenants"}
"""Tables that name tenants but are queried across all of them. Of a tenant's data they hold only threads' keys."""


@pytest.fixture
async def store(owner: StoreOptions) -> AsyncIterator[PostgresStore]:
    async with open_store(owner) as opened:
        yield opened


@pytest.fixture
async def superuser(superuser_url: str, store: PostgresStore) -> AsyncIterator[Any]:
    """A connection that sees everything."""
    connection = await asyncpg.connect(superuser_url)
    yield connection
    await connection.close()


class ConfusedConnections:
    """Connections that always act for "a", whichever tenant was given."""

    def __init__(self, connections: Connections) -> None:
        self._connections = connections

    def of(self, tenant: str | None) -> Database:
        return self._connections.of(tenant and "a")


class ConfusedStore(PostgresStore):
    """A store with the worst possible fault: it acts for "a", whichever tenant a call names."""

    def __init__(self, connections: Connections, options: StoreOptions, features: ItemFeatures) -> None:
        super().__init__(connections, options, features)
        self.tenants = PostgresTenants(ConfusedConnections(connections))  # type: ignore[arg-type]

    def _of(self, tenant: str) -> Any:
        return super()._of("a")


class TestASecondWall:
    async def test_stands_around_every_table_that_holds_what_is_a_tenants(self, superuser: Any) -> None:
        rows = await superuser.fetch(
            """
            SELECT c.relname, c.relrowsecurity AND c.relforcerowsecurity AS walled
            FROM pg_class AS c JOIN pg_attribute AS a ON a.attrelid = c.oid
            WHERE c.relnamespace = 'checkpointd'::regnamespace AND c.relkind IN ('r', 'p') AND a.attname = 'tenant'
            """
        )
        assert {row["relname"] for row in rows if not row["walled"]} == OPEN_TABLES
        assert len(rows) > len(OPEN_TABLES)
        rest = await superuser.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'checkpointd'")
        assert {row["tablename"] for row in rest} - {row["relname"] for row in rows} == {
            "identity",
            "migrations",
            "retention_sweeper",
        }

    @pytest.mark.parametrize("verb", VERBS)
    async def test_keeps_a_statement_from_rows_of_another_tenant_that_it_names(
        self, verb: str, store: PostgresStore, superuser: Any
    ) -> None:
        await fill(store, "a")
        await fill(store, "b")
        before = {name: await contents(superuser, name) for name in ("a", "b")}
        confused = Tenant(ConfusedStore(store._connections, store._options, store._features), "b")
        seen = None
        with suppress(asyncpg.InsufficientPrivilegeError, CheckpointdError):
            seen = await VERBS[verb](confused)
        after = {name: await contents(superuser, name) for name in ("a", "b")}
        walled = {table for table in after["b"] if table not in OPEN_TABLES}
        assert {table: after["b"][table] for table in walled} == {table: before["b"][table] for table in walled}
        # And none of the data was returned: no values, no leases.
        assert "of b" not in repr(seen)
        assert "token=" not in repr(seen)

    async def test_is_no_obstacle_to_the_tenant_itself(self, store: PostgresStore, superuser: Any) -> None:
        """The same verbs find and change things for the tenant itself; otherwise the test above would prove nothing."""
        found = []
        for verb, call in VERBS.items():
            tenant = await fill(store, verb)
            before = await contents(superuser, verb)
            seen = None
            with suppress(CheckpointdError):
                seen = await call(tenant)
            changed = await contents(superuser, verb) != before
            if changed or f"of {verb}" in repr(seen) or "token=" in repr(seen):
                found.append(verb)
        assert set(VERBS) - set(found) <= {
            *("put with a precondition", "delete what is leased", "copy onto it"),
            *("count threads", "count items", "add up", "statistics"),  # a number doesn't show whose it is
            "try a policy",  # nor does the number of affected rows
        }

    async def test_shows_nothing_to_who_acts_for_nobody(self, store: PostgresStore, owner: StoreOptions) -> None:
        await fill(store, "a")
        connection = await asyncpg.connect(owner.dsn)
        for table in (
            "threads",
            "namespaces",
            "checkpoints",
            "channel_values",
            "task_writes",
            "uploads",
            "value_parts",
        ):
            assert await connection.fetchval(f"SELECT count(*) FROM checkpointd.{table}") == 0
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.execute(
                "INSERT INTO checkpointd.lease_waiters VALUES (gen_random_uuid(), '', 'a', 1, now())"
            )
        await connection.close()

    async def test_does_not_bind_a_superuser(self, store: PostgresStore, superuser: Any) -> None:
        await fill(store, "a")
        assert await superuser.fetchval("SELECT count(*) FROM checkpointd.checkpoints") == 2


class TestActingForATenant:
    async def test_costs_no_statement_of_its_own(self, store: PostgresStore, owner: StoreOptions) -> None:
        async with open_store(replace(owner, pool_max_size=1)) as narrow:
            a, b = Tenant(narrow, "a"), Tenant(narrow, "b")
            for tenant in (a, b):
                await tenant.get()  # the driver looks up array types once
            statements: list[str] = []
            async with a_connection(narrow) as connection:
                connection.add_query_logger(lambda record: statements.append(record.query))
            for tenant in (a, a, a, b, b, a):
                await tenant.get()
            await asyncio.sleep(0)  # the driver reports a statement a moment later
            assert len(statements) == 6, statements

    async def test_many_tenants_at_once_on_few_connections_never_mix(
        self, store: PostgresStore, owner: StoreOptions
    ) -> None:
        async with open_store(replace(owner, pool_max_size=3)) as narrow:
            tenants = [Tenant(narrow, f"tenant-{number}") for number in range(12)]

            async def turn(tenant: Tenant, number: int) -> None:
                data = f"{tenant.name}/{number}".encode()
                await tenant.put(f"{number}", thread=f"{number}", versions={"a": "1"}, values={"a": data})
                assert await tenant.values(thread=f"{number}") == {"a": data}

            await asyncio.gather(*[turn(tenant, number) for number in range(8) for tenant in tenants])
            for tenant in tenants:
                assert sorted(found.thread_id for found in await tenant.listed()) == [f"{n}" for n in range(8)]

    async def test_a_call_that_is_given_up_leaves_no_tenant_behind(
        self, store: PostgresStore, owner: StoreOptions
    ) -> None:
        async with open_store(replace(owner, pool_max_size=1)) as narrow:
            a, b = Tenant(narrow, "a"), Tenant(narrow, "b")
            await a.put("1", versions={"x": "1"}, values={"x": b"of a"})
            await b.put("1", versions={"x": "1"}, values={"x": b"of b"})
            for pause in [n / 20000 for n in range(40)]:
                task = asyncio.create_task(a.get())
                await asyncio.sleep(pause)
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
                for tenant in (b, a):
                    assert await tenant.values() == {"x": f"of {tenant.name}".encode()}


class TestBehindAPooler:
    @pytest.fixture
    async def pooled(self, owner: StoreOptions, store: PostgresStore, tmp_path: Path) -> AsyncIterator[StoreOptions]:
        """The database behind a pooler that gives each transaction another of three server connections."""
        url = urlsplit(owner.dsn)
        socket = Path(parse_qs(url.query)["host"][0], ".s.PGSQL.5432")
        async with TransactionPooler(socket, tmp_path, size=3):
            yield replace(owner, dsn=url._replace(query=f"host={tmp_path}&port=5432").geturl())

    async def test_every_transaction_says_whom_it_acts_for(self, pooled: StoreOptions) -> None:
        async with open_store(pooled) as behind:
            tenants = [await fill(behind, name) for name in ("a", "b", "Ünï'cödé\\")]
            for _ in range(4):
                for tenant in tenants:
                    read = await tenant.read()
                    assert (read.checkpoint_id, len(read.pending_writes)) == ("2", 2)
            await tenants[1].delete("t")
            assert [(await tenant.get()).checkpoint is None for tenant in tenants] == [False, True, False]

    async def test_none_is_left_behind_on_a_server_connection(self, pooled: StoreOptions) -> None:
        async with open_store(pooled) as behind:
            await fill(behind, "a")
            for _ in range(3):
                query = "SELECT current_setting('checkpointd.tenant', true)"
                async with a_connection(behind) as connection:
                    assert not await connection.fetchval(query)

    async def test_a_pooler_is_noticed_where_nobody_told_of_it(self, owner: StoreOptions, pooled: StoreOptions) -> None:
        for options, expected in ((owner, False), (pooled, True)):
            async with (
                open_store(options) as opened,
                a_connection(opened) as connection,
            ):
                assert connection.pooled is expected
        with_cache = replace(pooled, statement_cache_size=100)
        async with open_store(with_cache) as opened, a_connection(opened) as connection:
            assert connection.pooled

    async def test_it_is_told_once_and_nothing_is_prepared(
        self, owner: StoreOptions, pooled: StoreOptions, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level("INFO")
        async with open_store(pooled) as behind, a_connection(behind), a_connection(behind) as another:
            assert await another.fetchval("SELECT count(*) FROM pg_prepared_statements WHERE name <> ''") == 0
            await fill(behind, "a")
        assert [record.levelname for record in caplog.records if "pooler" in record.message] == ["INFO"]
        assert not [record.message for record in caplog.records if record.levelname == "WARNING"]

    async def test_one_that_has_shown_by_nothing_else_is_noticed_when_statements_get_lost(
        self, owner: StoreOptions, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level("INFO")
        async with open_store(owner) as opened:
            tenant = await fill(opened, "a")
            await tenant.read()
            async with a_connection(opened) as connection:
                assert not connection.pooled
                await connection.execute("DEALLOCATE ALL")
            await tenant.read()
            async with a_connection(opened) as connection:
                assert connection.pooled
        assert len([record for record in caplog.records if "a pooler stands" in record.message]) == 1


@pytest.mark.parametrize("bound", [True, False])
def test_a_server_that_asks_for_tokens_says_if_its_role_is_not_bound(
    bound: bool, owner: StoreOptions, superuser_url: str, tmp_path: Path
) -> None:
    keys = tmp_path / "keys.toml"
    keys.touch()
    dsn = owner.dsn if bound else superuser_url
    with ServerProcess("--database-url", dsn, "--keys-file", str(keys), log_dir=tmp_path) as server:
        # The log is written asynchronously, but in order.
        log = until(lambda: server.stderr, lambda log: "serving" in log)
        assert ("row-level security doesn't keep tenants apart" in log) is not bound
