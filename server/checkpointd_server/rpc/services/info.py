"""InfoService: what the server is."""

from __future__ import annotations

from checkpointd.v1 import info_service_pb2 as pb
from checkpointd_server import __version__
from checkpointd_server.domain.limits import Limits


class InfoServicer:
    """Tells version, capabilities and limits. They don't change while the server runs, so the answer is made once."""

    def __init__(self, limits: Limits) -> None:
        told = {field.name: getattr(limits, field.name) for field in pb.Limits.DESCRIPTOR.fields}
        self._answer = pb.GetServerInfoResponse(
            version=__version__,
            capabilities=[
                pb.CAPABILITY_VERSIONS,
                pb.CAPABILITY_DELTA_CHANNELS,
                pb.CAPABILITY_FORK,
                pb.CAPABILITY_LEASES,
                pb.CAPABILITY_PIPELINE,
                pb.CAPABILITY_PATCHES,
            ],
            limits=pb.Limits(**told),
        ).SerializeToString()

    async def get_server_info(self, request: pb.GetServerInfoRequest, tenant: str, timeout: float | None) -> bytes:
        """Returns what the server is."""
        return self._answer
