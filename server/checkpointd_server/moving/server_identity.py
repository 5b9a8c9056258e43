"""Identities of servers: whose threads and items are exported, or where they are imported."""

from __future__ import annotations

from typing import Any, NamedTuple

import grpc

from checkpointd.v1.info_service_pb2 import GetServerInfoRequest
from checkpointd.v1.info_service_pb2_grpc import InfoServiceStub
from checkpointd_server.moving.content import MoveError


class ServerIdentity(NamedTuple):
    """Whose threads and items are behind a channel."""

    server_id: str
    """A UUID that tells the server's store from others."""
    tenant: str

    @classmethod
    def ask(cls, channel: grpc.Channel, timeout: float) -> ServerIdentity:
        """Asks a server. Raises grpc.RpcError, MoveError.

        Args:
            channel: To the server.
            timeout: How long the call may take, in seconds.
        """
        stub: Any = InfoServiceStub(channel)
        response = stub.GetServerInfo(GetServerInfoRequest(), timeout=timeout)
        if not response.server_id:
            raise MoveError("the server doesn't tell which one it is: it is older than this command")
        return cls(response.server_id, response.tenant)

    def __str__(self) -> str:
        return f"the server {self.server_id}, tenant {self.tenant!r}"
