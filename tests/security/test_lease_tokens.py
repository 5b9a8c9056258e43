"""A lease's token lets write: who may only read isn't told it."""

from __future__ import annotations

from pathlib import Path

from checkpointd.v1 import lease_service_pb2 as pb
from tests.security.serving import Serve
from tests.support.rpc_client import bearer, connected


async def test_who_may_only_read_is_told_no_token(serve: Serve, keys_file: Path) -> None:
    async with serve(keys_file=keys_file) as target, connected(target) as client:
        acquire = pb.AcquireLeaseRequest(thread_id="t", holder=b"holder")
        lease = await client.leases.AcquireLease(acquire, metadata=bearer("ckd_acme-write"))
        get = pb.GetLeaseRequest(thread_id="t")
        seen = await client.leases.GetLease(get, metadata=bearer("ckd_acme-read"))
        assert seen.token == 0
        assert seen.remaining_ms > 0
        for key in ("ckd_acme-all", "ckd_acme-admin"):
            assert (await client.leases.GetLease(get, metadata=bearer(key))).token == lease.token
        assert await client.leases.GetLease(get, metadata=bearer("ckd_other-all")) == pb.GetLeaseResponse()
