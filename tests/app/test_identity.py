"""A server reports which database and tenant it serves, so clients can record it."""

from __future__ import annotations

import asyncio
from uuid import UUID

import grpc

from checkpointd.v1.info_service_pb2 import GetServerInfoRequest
from checkpointd.v1.info_service_pb2_grpc import InfoServiceStub
from checkpointd_server.store import StoreOptions, migrate
from tests.support.local_server import LocalServer


def told(database_url: str) -> tuple[str, str]:
    """Starts a server on a database, and returns the server's identity and the tenant."""
    with LocalServer(database_url) as server, grpc.insecure_channel(server.target) as channel:
        answer = InfoServiceStub(channel).GetServerInfo(GetServerInfoRequest(), timeout=20)
    return answer.server_id, answer.tenant


def test_its_identity_is_the_databases_and_outlives_it(database_url: str, empty_database_url: str) -> None:
    server_id, tenant = told(database_url)
    assert str(UUID(server_id)) == server_id
    assert tenant == "default"
    assert told(database_url) == (server_id, tenant)
    asyncio.run(migrate(StoreOptions(dsn=empty_database_url)))
    assert told(empty_database_url)[0] != server_id
