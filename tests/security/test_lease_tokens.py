"""A lease's token authorizes writes, so reading a lease doesn't reveal it."""

from __future__ import annotations

from pathlib import Path

from checkpointd.v1 import lease_service_pb2 as pb
from tests.security.serving import Serve
from tests.support.rpc_client import bearer, connected


async def test_reading_a_lease_tells_that_it_is_held_and_no_token(serve: Serve, keys_file: Path) -> None:
    async with serve(keys_file=keys_file) as target, connected(target) as client:
        acquire = pb.AcquireLeaseRequest(thread_id="t", holder=b"holder")
        lease = await client.leases.AcquireLease(acquire, metadata=bearer("ckd_acme-write"))
        get = pb.GetLeaseRequest(thread_id="t")
        for key in ("ckd_acme-read", "ckd_acme-all", "ckd_acme-admin"):
            seen = await client.leases.GetLease(get, metadata=bearer(key))
            assert seen.remaining_ms > 0
            assert lease.token not in [value for _, value in seen.ListFields()]
        assert await client.leases.GetLease(get, metadata=bearer("ckd_other-all")) == pb.GetLeaseResponse()
