"""The schema: created once by any number of servers, checked at every start, and printed to be applied by hand."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
from dataclasses import replace

import asyncpg
import pytest

from checkpointd_server.domain.errors import SchemaChanged, SchemaTooNew, SetupError
from checkpointd_server.store import (
    Migration,
    StoreOptions,
    migrate,
    open_store,
    print_sql,
    schema_status,
    schema_version,
)
from checkpointd_server.store.migrations import load_migrations
from tests.support.cluster import PostgresCluster
from tests.support.document import Document
from tests.support.tenant import Tenant, patch, uploaded, write

ODD_SCHEMAS = ["Capitals", "quo\"te's", "sp ace", "back\\slash", "%s {0} $1", "select", "\u00e4\u4e16" * 12]
NUMBERS = [migration.number for migration in load_migrations()]
LAST = NUMBERS[-1]


async def _query(options: StoreOptions, sql: str) -> object:
    connection = await asyncpg.connect(options.dsn)
    try:
        if ";" in sql:  # several statements, which return nothing
            return await connection.execute(sql)
        return await connection.fetchval(sql)
    finally:
        await connection.close()


async def _use_every_verb(options: StoreOptions) -> None:
    async with open_store(options) as store:
        tenant = Tenant(store, "tenant")
        await tenant.put("1", versions={"a": "1", "b": "1"}, values={"a": b"A", "b": None}, metadata={"run_id": "r"})
        await tenant.upload(b"c", b"C")
        changed = {"a": patch("1", b"AA"), "c": uploaded(b"c", 1)}
        await tenant.put("2", parent="1", versions={"a": "2", "c": "1"}, values=changed, expect=await tenant.version())
        await tenant.writes("2", write("task", 0, "a", b""))
        await tenant.writes("2", write("task", 1, "a", b""), expect=await tenant.version())
        assert (await tenant.history("a")).channels[0].seed_version == "1"
        assert await tenant.value("c", "1") == b"C"
        for scope in ({}, {"thread_id": "t"}, {"thread_id": "t", "checkpoint_ns": ""}):
            assert len(await tenant.listed(**scope)) == 2
        assert await tenant.copy("t", "copy") == 2
        assert await tenant.copy("t", "fork", at="2") == 2
        assert await tenant.prune("copy") == 1
        lease = await tenant.acquire("me")
        assert await tenant.delete_runs("r", leases={"t": lease.token}) == 2
        assert await tenant.release("me")
        assert await tenant.delete() == 1
        await tenant.release("nobody")
        await store.run_gc()
        await store.check(timeout=10)


async def test_migrating_tells_what_it_did_and_does_it_once(empty_database_url: str) -> None:
    options = StoreOptions(dsn=empty_database_url)
    assert await schema_version(options) == 0
    assert [migration.number for migration in await migrate(options)] == NUMBERS
    assert await schema_version(options) == LAST
    assert await migrate(options) == []


def test_migrations_are_numbered_in_order_and_each_once() -> None:
    assert sorted(set(NUMBERS)) == NUMBERS
    assert NUMBERS[0] == 1


MIGRATE_AND_OPEN = """
import asyncio, sys
from checkpointd_server.store import StoreOptions, migrate, open_store

async def main():
    options = StoreOptions(dsn=sys.argv[1])
    applied = await migrate(options)
    async with open_store(options) as store:
        await store.check(timeout=30)
    print(len(applied))

sys.stdin.readline()
asyncio.run(main())
"""


@pytest.mark.parametrize("count", [4, pytest.param(8, marks=pytest.mark.long)])
async def test_several_servers_may_start_at_once_on_a_fresh_database(empty_database_url: str, count: int) -> None:
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", MIGRATE_AND_OPEN, empty_database_url],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(count)
    ]
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    results = await asyncio.gather(*(asyncio.to_thread(process.communicate) for process in processes))
    assert [process.returncode for process in processes] == [0] * count, results
    assert sorted(int(output) for output, _ in results) == [0] * (count - 1) + [len(NUMBERS)]


async def test_many_at_once_in_one_process_too(empty_database_url: str) -> None:
    options = StoreOptions(dsn=empty_database_url)
    applied = await asyncio.gather(*(migrate(options) for _ in range(12)))
    assert sorted(map(len, applied)) == [0] * 11 + [len(NUMBERS)]


async def test_a_store_on_a_database_that_was_not_migrated_says_what_to_run(empty_database_url: str) -> None:
    with pytest.raises(SetupError, match="checkpointd migrate"):
        async with open_store(StoreOptions(dsn=empty_database_url)):
            pass


async def test_a_schema_that_lacks_migrations_is_refused(own_options: StoreOptions) -> None:
    await _query(own_options, f"DELETE FROM checkpointd.migrations WHERE number = {LAST}")
    with pytest.raises(SetupError, match="checkpointd migrate"):
        async with open_store(own_options):
            pass


def _next_release(sql: str, *, additive: bool) -> list[Migration]:
    """Returns the migrations of the next release, which has one more."""
    return [*load_migrations(), Migration(number=LAST + 1, name="next", additive=additive, sql=sql)]


ADDITIVE = """
ALTER TABLE __schema__.threads ADD COLUMN color text NOT NULL DEFAULT 'blue';
CREATE INDEX ON __schema__.threads (color);
CREATE TABLE __schema__.notes (thread uuid NOT NULL, note text NOT NULL, PRIMARY KEY (thread, note));
"""


async def test_a_release_serves_on_what_the_next_one_has_added(own_options: StoreOptions) -> None:
    (added,) = await migrate(own_options, known=_next_release(ADDITIVE, additive=True))
    assert added.number == LAST + 1
    await _use_every_verb(own_options)
    assert await migrate(own_options) == []
    status = await schema_status(own_options)
    assert [migration.name for migration in status.unknown] == ["next"]
    assert status.can_serve


async def test_a_store_that_is_open_goes_on_while_the_next_release_adds(own_options: StoreOptions) -> None:
    async with open_store(own_options) as store:
        tenant = Tenant(store, "tenant")
        await tenant.put("1")
        await migrate(own_options, known=_next_release(ADDITIVE, additive=True))
        await tenant.put("2", parent="1")
        assert len(await tenant.listed(thread_id="t")) == 2


async def test_a_release_refuses_what_the_next_one_has_broken(own_options: StoreOptions) -> None:
    broken = _next_release("ALTER TABLE __schema__.threads ADD COLUMN color text", additive=False)
    late = Migration(number=LAST + 2, name="later", additive=True, sql="SELECT 1")
    await migrate(own_options, known=[*broken, late])
    with pytest.raises(SchemaTooNew) as refusal:
        async with open_store(own_options):
            pass
    assert (refusal.value.found, refusal.value.known) == (LAST + 1, LAST)
    status = await schema_status(own_options)
    assert status.too_new
    assert not status.can_serve


async def test_the_status_of_a_database_that_was_not_migrated(empty_database_url: str) -> None:
    status = await schema_status(StoreOptions(dsn=empty_database_url))
    assert (status.applied, status.unknown) == ((), ())
    assert [migration.number for migration in status.pending] == NUMBERS
    assert not status.can_serve


async def test_rights_as_documented_hold_also_for_what_the_next_release_adds(empty_database_url: str) -> None:
    connection = await asyncpg.connect(empty_database_url)
    database = await connection.fetchval("SELECT current_database()")
    owner, agents = f"owner_{database}", f"agents_{database}"
    await connection.execute(f"CREATE ROLE {owner} LOGIN; CREATE ROLE {agents} LOGIN")
    try:
        await connection.execute(f"GRANT CREATE ON DATABASE {database} TO {owner}")
        as_owner, as_agents = (
            StoreOptions(dsn=empty_database_url.replace("postgres@", f"{role}@")) for role in (owner, agents)
        )
        await migrate(as_owner)
        for _, code in Document("docs/deploying.md").blocks("sql"):
            await _query(as_owner, re.sub(r"\bowner\b", owner, re.sub(r"\bagents\b", agents, code)))
        await migrate(as_owner, known=_next_release(ADDITIVE, additive=True))
        await _use_every_verb(as_agents)
        assert await _query(as_agents, "SELECT count(*) FROM checkpointd.notes") == 0
    finally:
        await connection.execute(f"DROP OWNED BY {owner}; DROP OWNED BY {agents}; DROP ROLE {owner}, {agents}")
        await connection.close()


BREAKING = re.compile(r"\b(DROP|RENAME|SET NOT NULL|SET SCHEMA|ALTER COLUMN \w+ (SET DATA )?TYPE)\b", re.IGNORECASE)


def test_a_migration_that_takes_something_away_says_that_it_is_breaking() -> None:
    for migration in load_migrations():
        if migration.additive:
            assert not BREAKING.search(migration.sql), migration


async def test_a_newer_schema_is_refused_by_store_and_migration(own_options: StoreOptions) -> None:
    future = "INSERT INTO checkpointd.migrations (number, name, additive) VALUES (9999, 'future', false)"
    await _query(own_options, future)
    with pytest.raises(SchemaTooNew) as refusal:
        async with open_store(own_options):
            pass
    assert (refusal.value.found, refusal.value.known) == (9999, LAST)
    with pytest.raises(SchemaTooNew):
        await migrate(own_options)
    assert await schema_version(own_options) == 9999


OTHER_BUILD = {
    "another checksum": "UPDATE checkpointd.migrations SET checksum = '0123456789abcdef' WHERE number = 1",
    "before checksums": "ALTER TABLE checkpointd.migrations DROP COLUMN checksum",
}


@pytest.mark.parametrize("change", OTHER_BUILD.values(), ids=OTHER_BUILD)
async def test_a_schema_of_another_build_is_told_with_what_to_do(
    change: str, own_options: StoreOptions, postgres_cluster: PostgresCluster
) -> None:
    # Otherwise the database's own error about the missing column would be reported, which helps nobody.
    await _query(own_options, "ALTER TABLE checkpointd.threads DROP COLUMN listed_at")
    await _query(own_options, change)
    with pytest.raises(
        SchemaChanged, match="schema 'checkpointd' of the database was made by another build"
    ) as refusal:
        async with open_store(own_options):
            pass
    assert "--data-dir" in str(refusal.value)
    assert "checkpointd export" in str(refusal.value)
    assert refusal.value.number == 1
    with pytest.raises(SchemaChanged):
        await migrate(own_options)
    status = await schema_status(own_options)
    assert 1 in {migration.number for migration in status.changed}
    assert not status.can_serve
    psql = _psql(postgres_cluster, own_options.dsn, print_sql("checkpointd"))
    assert psql.returncode != 0
    assert "another build of checkpointd" in psql.stderr


def test_a_migrations_checksum_is_its_statements() -> None:
    def checksum(sql: str) -> str:
        return Migration(number=1, name="n", additive=True, sql=sql).checksum

    assert checksum("-- Why.\nSELECT 1;\n") == checksum("SELECT\n    1;") != checksum("SELECT 2;")


async def test_schemas_with_odd_names_work_side_by_side(empty_database_url: str) -> None:
    for schema in ODD_SCHEMAS:
        options = StoreOptions(dsn=empty_database_url, schema=schema)
        await migrate(options)
        await _use_every_verb(options)
        assert await _query(options, "SELECT current_schema()") == "public"
    names = "SELECT array_agg(nspname::text) FROM pg_namespace WHERE nspname !~ '^(pg_|information_schema$|public$)'"
    found = await _query(StoreOptions(dsn=empty_database_url), names)
    assert isinstance(found, list)
    assert sorted(found) == sorted(ODD_SCHEMAS)


def _psql(cluster: PostgresCluster, dsn: str, script: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [cluster.binaries / "psql", "--no-psqlrc", "--quiet", dsn],
        input=script,
        text=True,
        capture_output=True,
        check=False,
    )


@pytest.mark.parametrize("schema", ["checkpointd", *ODD_SCHEMAS[:4]])
async def test_the_printed_script_makes_the_schema_and_may_be_run_again(
    empty_database_url: str, postgres_cluster: PostgresCluster, schema: str
) -> None:
    script = print_sql(schema)
    for _ in range(2):
        psql = _psql(postgres_cluster, empty_database_url, script)
        assert psql.returncode == 0, psql.stderr
        assert psql.stdout == ""
    options = StoreOptions(dsn=empty_database_url, schema=schema)
    assert await migrate(options) == []
    await _use_every_verb(options)


async def test_migrating_a_ready_database_needs_no_right_to_create(own_options: StoreOptions) -> None:
    connection = await asyncpg.connect(own_options.dsn)
    database = await connection.fetchval("SELECT current_database()")
    user = f"reader_{database}"
    await connection.execute(f"""
        CREATE ROLE {user} LOGIN;
        GRANT USAGE ON SCHEMA checkpointd TO {user};
        GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA checkpointd TO {user};
        REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA checkpointd FROM PUBLIC;
        GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA checkpointd TO {user};
    """)
    options = replace(own_options, dsn=own_options.dsn.replace("postgres@", f"{user}@"))
    try:
        assert await migrate(options) == []
        await _use_every_verb(options)
    finally:
        await connection.execute(f"DROP OWNED BY {user}; DROP ROLE {user}")
        await connection.close()


async def test_the_sql_files_are_in_the_package() -> None:
    # hatchling takes all files in the package's folder; what matters is that the loader finds them there.
    from importlib.resources import files

    package = files("checkpointd_server.store")
    assert {"reads.sql", "writes.sql"} <= {file.name for file in package.joinpath("sql").iterdir()}
    assert "01_tables.sql" in {file.name for file in package.joinpath("migrations", "0001_core").iterdir()}
