"""Stores on real PostgreSQL. Tests that share a database each have a tenant of their own."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from checkpointd_server import embedded
from checkpointd_server.store import PostgresStore, StoreOptions, migrate, open_store
from tests.cluster import PostgresCluster
from tests.store.tenant import Tenant

_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def old_postgres_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgresCluster]:
    """The oldest PostgreSQL that the wheel has."""
    binaries = embedded.find_binaries().parent.parent / "pginstall" / "bin"
    if not binaries.exists():
        pytest.skip("the wheel has no PostgreSQL 16")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(embedded, "MAJOR_VERSION", 16)
        patch.setattr(embedded, "find_binaries", lambda: binaries)
        cluster = PostgresCluster(tmp_path_factory.mktemp("postgres16"))
        cluster.__enter__()
    yield cluster
    cluster.__exit__()


@pytest.fixture(scope="session", params=["postgres_cluster", "old_postgres_cluster"], ids=["pg18", "pg16"])
def shared_options(request: pytest.FixtureRequest) -> StoreOptions:
    """A migrated database for all tests."""
    cluster: PostgresCluster = request.getfixturevalue(request.param)
    options = StoreOptions(dsn=cluster.dsn(cluster.create_database()))
    asyncio.run(migrate(options))
    return options


@pytest.fixture
async def store(shared_options: StoreOptions) -> AsyncIterator[PostgresStore]:
    """A store on the shared database."""
    async with open_store(shared_options) as opened:
        yield opened


@pytest.fixture
def tenant(store: PostgresStore) -> Tenant:
    """A tenant that only this test uses."""
    return Tenant(store, f"tenant-{next(_numbers)}")


@pytest.fixture
async def own_options(database_url: str) -> StoreOptions:
    """A migrated database that only this test uses."""
    options = StoreOptions(dsn=database_url)
    await migrate(options)
    return options


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    """A folder for a PostgreSQL of the test's own."""
    return tmp_path / "postgres"
