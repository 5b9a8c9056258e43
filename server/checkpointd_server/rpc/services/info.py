"""InfoService: the server's version, capabilities and limits."""

from __future__ import annotations

from checkpointd.v1 import info_service_pb2 as pb
from checkpointd_server import __version__
from checkpointd_server.domain.limits import Limits


class InfoServicer:
    """Returns version, identity, capabilities, limits, and why the server isn't serving, if it isn't.

    Args:
        limits: The limits in force.
        server_id: The id of the server's store.
        has_vectors: Whether items of long-term memory can have vectors.
    """

    def __init__(self, limits: Limits, *, server_id: str = "", has_vectors: bool = False) -> None:
        told = {field.name: getattr(limits, field.name) for field in pb.Limits.DESCRIPTOR.fields}
        self._response = pb.GetServerInfoResponse(
            version=__version__,
            server_id=server_id,
            capabilities=[
                pb.CAPABILITY_VERSIONS,
                pb.CAPABILITY_DELTA_CHANNELS,
                pb.CAPABILITY_FORK,
                pb.CAPABILITY_LEASES,
                pb.CAPABILITY_PIPELINE,
                pb.CAPABILITY_PATCHES,
                pb.CAPABILITY_STORE,
                *((pb.CAPABILITY_STORE_VECTORS,) if has_vectors else ()),
            ],
            limits=pb.Limits(**told),
        )

    def set_not_serving_reason(self, reason: str) -> None:
        """Sets why the health status is NOT_SERVING. "": it is SERVING."""
        self._response.not_serving_reason = reason

    async def get_server_info(self, request: pb.GetServerInfoRequest, tenant: str, timeout: float | None) -> bytes:
        """Returns the server's information."""
        response = pb.GetServerInfoResponse()
        response.CopyFrom(self._response)
        response.tenant = tenant
        return response.SerializeToString()
