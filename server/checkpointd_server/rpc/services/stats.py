"""StatsService: statistics and activity of tenants."""

from __future__ import annotations

from checkpointd.v1 import stats_service_pb2 as pb
from checkpointd_server.domain.store import CheckpointStore
from checkpointd_server.domain.tenants import Quotas
from checkpointd_server.rpc.conversion.activity import read_limit, write_activity
from checkpointd_server.rpc.conversion.tenants import write_quotas, write_statistics
from checkpointd_server.rpc.tenants import Tenants


class StatsServicer:
    """Answers about the caller's own tenant."""

    def __init__(self, store: CheckpointStore, tenants: Tenants) -> None:
        self._store = store
        self._tenants = tenants

    async def get_activity(self, request: pb.GetActivityRequest, tenant: str, timeout: float | None) -> bytes:
        """Returns the activity of the tenant's calls."""
        response = pb.GetActivityResponse()
        states = [self._tenants.of(tenant)]
        write_activity(states, read_limit(request.limit), response.activity, names=False)
        return response.SerializeToString()

    async def get_server_activity(
        self, request: pb.GetServerActivityRequest, tenant: str, timeout: float | None
    ) -> bytes:
        """Returns the activity of all tenants' calls."""
        response = pb.GetServerActivityResponse()
        write_activity(self._tenants.states, read_limit(request.limit), response.activity, names=True)
        return response.SerializeToString()

    async def get_stats(self, request: pb.GetStatsRequest, tenant: str, timeout: float | None) -> bytes:
        """Returns the tenant's statistics."""
        response = pb.GetStatsResponse()
        write_statistics(await self._store.tenants.read_statistics(tenant, timeout=timeout), response)
        found = await self._store.tenants.read_quotas([tenant], timeout=timeout)
        own = found[0].quotas if found else Quotas()
        write_quotas(own.over(self._tenants.defaults), response.quotas)
        return response.SerializeToString()
