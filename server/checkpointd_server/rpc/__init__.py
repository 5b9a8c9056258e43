"""The service: protobuf to domain and back, errors, health, and the grpc.aio server that calls a checkpoint store."""

from checkpointd_server.rpc.listener.addresses import check as check_address
from checkpointd_server.rpc.listener.addresses import check_exposure
from checkpointd_server.rpc.server import RpcServer, ServerOptions, check_access

__all__ = ["RpcServer", "ServerOptions", "check_access", "check_address", "check_exposure"]
