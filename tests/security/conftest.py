"""A real server that asks who calls, on a real store."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import grpc.aio
import pytest

from checkpointd_server.domain.access import AccessOptions
from checkpointd_server.domain.store import CheckpointStore
from checkpointd_server.rpc import RpcServer, ServerOptions
from checkpointd_server.store import StoreOptions, migrate, open_store
from tests.rpc.conftest import Client

Serve = Callable[..., AbstractAsyncContextManager[str]]


def bearer(token: str) -> tuple[tuple[str, str], ...]:
    """The metadata of a call with a token."""
    return (("authorization", f"Bearer {token}"),)


def key_entry(key: str, tenant: str, *scopes: str, name: str = "somebody", more: str = "") -> str:
    """A line of the keys file."""
    listed = ", ".join(f'"{scope}"' for scope in scopes)
    digest = hashlib.sha256(key.encode()).hexdigest()
    return f'[[key]]\ntenant = "{tenant}"\nscopes = [{listed}]\nname = "{name}"\nsha256 = "{digest}"\n{more}\n'


@pytest.fixture
async def rpc_store(database_url: str) -> AsyncIterator[CheckpointStore]:
    options = StoreOptions(dsn=database_url, pool_max_size=3)
    await migrate(options)
    async with open_store(options) as opened:
        yield opened


@pytest.fixture
def serve(rpc_store: CheckpointStore) -> Serve:
    """Serves with these options and yields the address: `async with serve(keys_file=...) as target`."""

    @asynccontextmanager
    async def start(*, listen: str = "127.0.0.1:0", server: dict[str, Any] | None = None, **access: Any) -> Any:
        options = ServerOptions(listen=(listen,), access=AccessOptions(**access), **(server or {}))
        running = RpcServer(rpc_store, options)
        (address,) = await running.start()
        running.set_serving(True)
        try:
            yield address
        finally:
            await running.drain(0)

    return start


@pytest.fixture
def keys_file(tmp_path: Path) -> Path:
    """A file of keys for two tenants, each key named by what it may do."""
    path = tmp_path / "keys.toml"
    scopes = ("read", "write", "delete", "admin")
    entries = [key_entry(f"ckd_{tenant}-{scope}", tenant, scope) for tenant in ("acme", "other") for scope in scopes]
    entries += [key_entry("ckd_acme-none", "acme"), key_entry("ckd_acme-all", "acme", "read", "write", "delete")]
    entries += [key_entry("ckd_other-all", "other", "read", "write", "delete")]
    entries.append(key_entry("ckd_expired", "acme", "admin", more="expires = 2020-01-01T00:00:00Z"))
    path.write_text("\n".join(entries))
    return path


@asynccontextmanager
async def connected(target: str, credentials: grpc.ChannelCredentials | None = None) -> AsyncIterator[Client]:
    """A client without a token of its own."""
    secure = credentials is not None
    async with grpc.aio.secure_channel(target, credentials) if secure else grpc.aio.insecure_channel(target) as channel:
        yield Client(channel)
