"""A real server that authenticates callers, on a real store."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest

from checkpointd_server.domain.store import CheckpointStore
from checkpointd_server.store import StoreOptions, open_store
from tests.security.serving import Serve, serving
from tests.support.api_keys import key_entry
from tests.support.cluster import ORDINARY, SUPERUSER, PostgresCluster


@pytest.fixture
async def rpc_store(database_url: str) -> AsyncIterator[CheckpointStore]:
    async with open_store(StoreOptions(dsn=database_url, pool_max_size=3)) as opened:
        yield opened


@pytest.fixture
def serve(rpc_store: CheckpointStore) -> Serve:
    """Starts a server with these options and yields its address: `async with serve(keys_file=...) as target`."""

    def start(**options: Any) -> AbstractAsyncContextManager[str]:
        return serving(rpc_store, **options)

    return start


@pytest.fixture
def keys_file(tmp_path: Path) -> Path:
    """A keys file for two tenants; each key is named after its rights."""
    path = tmp_path / "keys.toml"
    scopes = ("read", "write", "delete", "store:read", "store:write", "admin", "operator")
    every = scopes[:-2]
    entries = [key_entry(f"ckd_{tenant}-{scope}", tenant, scope) for tenant in ("acme", "other") for scope in scopes]
    entries += [key_entry("ckd_acme-none", "acme"), key_entry("ckd_acme-all", "acme", *every)]
    entries += [key_entry("ckd_other-all", "other", *every)]
    entries.append(key_entry("ckd_expired", "acme", "admin", more="expires = 2020-01-01T00:00:00Z"))
    path.write_text("\n".join(entries))
    return path


@pytest.fixture
def owner(postgres_cluster: PostgresCluster) -> Iterator[StoreOptions]:
    """A migrated database that belongs to an ordinary role, as that role sees it."""
    name = postgres_cluster.create_migrated_database(role=ORDINARY)
    yield StoreOptions(dsn=postgres_cluster.dsn(name, role=ORDINARY))
    postgres_cluster.drop_database(name)


@pytest.fixture
def superuser_url(owner: StoreOptions) -> str:
    """The URL of the same database for a superuser, whom row-level security doesn't bind."""
    return owner.dsn.replace(f"//{ORDINARY}@", f"//{SUPERUSER}@")
