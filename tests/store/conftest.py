"""Stores on real PostgreSQL. Tests that share a database each have a tenant of their own.

They run on every PostgreSQL in the wheel and on Debian's (the older ones in `make test-all` only), and on one more if
CHECKPOINTD_TEST_POSTGRES names the folder of its programs.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from checkpointd_server.domain.items import ItemStore
from checkpointd_server.embedded_postgres.server import find_binaries
from checkpointd_server.store import PostgresStore, StoreOptions, open_store
from tests.support.cluster import ORDINARY, PostgresCluster
from tests.support.debian import LONGEST_SECONDS, install
from tests.support.tenant import Tenant

DEBIAN_POSTGRES = Path("/usr/lib/postgresql")
OTHER_POSTGRES = os.environ.get("CHECKPOINTD_TEST_POSTGRES", "")

_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def old_postgres_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgresCluster]:
    """The oldest PostgreSQL in the wheel."""
    binaries = find_binaries().parent.parent / "pginstall" / "bin"
    if not binaries.exists():
        pytest.skip("the wheel has no PostgreSQL 16")
    with PostgresCluster(tmp_path_factory.mktemp("postgres16"), binaries=binaries) as cluster:
        yield cluster


@pytest.fixture(scope="session")
def other_postgres_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgresCluster]:
    """The PostgreSQL that CHECKPOINTD_TEST_POSTGRES names."""
    with PostgresCluster(tmp_path_factory.mktemp("other-postgres"), binaries=Path(OTHER_POSTGRES)) as cluster:
        yield cluster


@pytest.fixture(scope="session")
def debian_postgres_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgresCluster]:
    """Debian's PostgreSQL: 15 in Debian 12."""
    if not (found := sorted(DEBIAN_POSTGRES.glob("*/bin/initdb"))) and install("postgresql-15"):
        found = sorted(DEBIAN_POSTGRES.glob("*/bin/initdb"))
    if not found:
        pytest.skip("Debian's PostgreSQL is not installed, and can't be: that takes apt-get, as root")
    with PostgresCluster(tmp_path_factory.mktemp("debian-postgres"), binaries=found[0].parent) as cluster:
        yield cluster


CLUSTERS = [
    pytest.param("postgres_cluster", id="pg18"),
    pytest.param(
        "debian_postgres_cluster", id="debian", marks=[pytest.mark.long, pytest.mark.timeout(2 * LONGEST_SECONDS)]
    ),
    pytest.param("old_postgres_cluster", id="pg16", marks=pytest.mark.long),
    *([pytest.param("other_postgres_cluster", id="other")] if OTHER_POSTGRES else []),
]


@pytest.fixture(scope="session", params=CLUSTERS)
def shared_options(request: pytest.FixtureRequest) -> StoreOptions:
    """A migrated database for all tests. It belongs to an ordinary role, to which row-level security applies."""
    cluster: PostgresCluster = request.getfixturevalue(request.param)
    return StoreOptions(dsn=cluster.dsn(cluster.create_migrated_database(role=ORDINARY), role=ORDINARY))


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
def items(store: PostgresStore) -> ItemStore:
    """The items of a tenant that only this test uses."""
    return store.items(f"items-{next(_numbers)}")


@pytest.fixture
def vectored(items: ItemStore) -> ItemStore:
    """The same items, if the database has vectors."""
    if not items.has_vectors:
        pytest.skip("this PostgreSQL has no pgvector")
    return items


@pytest.fixture
def own_options(postgres_cluster: PostgresCluster) -> Iterator[StoreOptions]:
    """An unused migrated database: plans and estimates also depend on what was in its tables before."""
    name = postgres_cluster.create_migrated_database()
    yield StoreOptions(dsn=postgres_cluster.dsn(name))
    postgres_cluster.drop_database(name)
