"""Several tenants, one of which asks for far more than its share: quotas and shares hold under load."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import asyncpg
import grpc.aio
import pytest

from checkpointd.v1 import checkpoint_service_pb2 as pb
from checkpointd.v1 import tenant_service_pb2 as tenants_pb
from checkpointd.v1.checkpoint_service_pb2_grpc import CheckpointServiceStub
from checkpointd.v1.tenant_service_pb2_grpc import TenantServiceStub
from tests.load.flood import Plan, put_request, refusal_of
from tests.load.flooding import flooding
from tests.support.api_keys import key_entry
from tests.support.rpc_client import bearer
from tests.support.server_process import ServerProcess
from tests.support.until import auntil

pytestmark = pytest.mark.long

SLOW = """
CREATE FUNCTION wait_a_little() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(0.02); RETURN NEW; END';
CREATE TRIGGER slow BEFORE INSERT ON checkpointd.checkpoints FOR EACH ROW WHEN (NEW.tenant = 'greedy')
EXECUTE FUNCTION wait_a_little();
"""

REFUSED, OVER = "RESOURCE_EXHAUSTED OVERLOADED", "RESOURCE_EXHAUSTED QUOTA_EXCEEDED"


@contextmanager
def serving(*options: str, database_url: str, log_dir: Path) -> Iterator[ServerProcess]:
    """A server of two tenants and an operator."""
    keys = log_dir / "keys.toml"
    entries = [key_entry(f"ckd_{name}", name, "read", "write") for name in ("greedy", "small")]
    keys.write_text("\n".join([*entries, key_entry("ckd_boss", "boss", "operator")]))
    more = {"CHECKPOINTD_LOG_LEVEL": "info", "CHECKPOINTD_MAX_WASTED_CALLS": "0"}
    options = ("--database-url", database_url, "--keys-file", str(keys), *options)
    with ServerProcess(*options, log_dir=log_dir, env=more) as server:
        yield server


def plan(server: ServerProcess, **options: Any) -> Plan:
    """A flood of the greedy tenant."""
    return Plan(target=server.target, token="ckd_greedy", value_bytes=options.pop("value_bytes", 500), **options)


async def execute(database_url: str, statement: str) -> None:
    connection = await asyncpg.connect(database_url)
    await connection.execute(statement)
    await connection.close()


async def set_quotas(server: ServerProcess, **quotas: int) -> None:
    async with grpc.aio.insecure_channel(server.target) as channel:
        # For a tenant that has called before, quotas are in force at once.
        read = pb.GetCheckpointRequest(thread_id="t")
        checkpoints: Any = CheckpointServiceStub(channel)
        await checkpoints.GetCheckpoint(read, metadata=bearer("ckd_greedy"))
        stub: Any = TenantServiceStub(channel)
        request = tenants_pb.SetQuotasRequest(tenant_name="greedy", quotas=tenants_pb.Quotas(**quotas))
        await stub.SetQuotas(request, metadata=bearer("ckd_boss"))


class Small:
    """A small tenant that makes one call after another and never retries."""

    def __init__(self, server: ServerProcess) -> None:
        self._server = server
        self.codes: Counter[str] = Counter()

    async def run(self) -> None:
        async with grpc.aio.insecure_channel(self._server.target) as channel:
            stub: Any = CheckpointServiceStub(channel)
            for number in range(10**9):
                request = put_request(f"small-{number}", 100)
                read = pb.GetCheckpointRequest(thread_id=request.thread_id)
                for rpc, message in ((stub.PutCheckpoint, request), (stub.GetCheckpoint, read)):
                    try:
                        await rpc(message, timeout=60, metadata=bearer("ckd_small"))
                        self.codes["OK"] += 1
                    except grpc.aio.AioRpcError as error:
                        self.codes[f"{error.code().name} {refusal_of(error)[0]}"] += 1
                await asyncio.sleep(0.01)


@asynccontextmanager
async def beside(small: Small, *plans: Plan) -> AsyncIterator[list[dict[str, Any]]]:
    """Floods while a small tenant calls, and at least until ten of its calls were served. Yields the tallies."""
    task = asyncio.create_task(small.run())
    try:
        # The server shares what it has with tenants that it knows of.
        await auntil(lambda: small.codes["OK"])
        async with flooding(*plans) as tallies:
            before = small.codes["OK"]
            yield tallies
            await auntil(lambda: small.codes["OK"] >= before + 10, timeout=60)
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@pytest.mark.timeout(240)
async def test_a_greedy_tenant_is_refused_and_the_small_one_is_served(database_url: str, tmp_path: Path) -> None:
    options = ("--max-concurrent-calls", "16", "--pool-max-size", "2")
    with serving(*options, database_url=database_url, log_dir=tmp_path) as server:
        # Without it, a flood that gets little CPU time would be served as fast as it calls.
        await execute(database_url, SLOW)
        small = Small(server)
        async with beside(
            small, *(plan(server, name=f"f{n}", callers=64, enough={REFUSED: 51}) for n in range(2))
        ) as tallies:
            await asyncio.sleep(3)
        greedy = sum((Counter(tally["codes"]) for tally in tallies), Counter[str]())
        assert greedy[REFUSED] > 100
        assert set(greedy) <= {"OK", REFUSED}
        assert greedy["OK"] > 0
        # The small tenant may be refused in the first moment, before the server has counted its tenants anew.
        assert small.codes[REFUSED] <= 2 + small.codes["OK"] // 20
        assert set(small.codes) <= {"OK", REFUSED}


@pytest.mark.timeout(240)
async def test_a_quota_of_calls_holds_whatever_is_asked_for(database_url: str, tmp_path: Path) -> None:
    with serving(database_url=database_url, log_dir=tmp_path) as server:
        await set_quotas(server, max_calls_per_second=40)
        small = Small(server)
        begun = time.monotonic()
        async with beside(small, plan(server, name="f", callers=16, enough={OVER: 101, "OK": 40})) as tallies:
            await asyncio.sleep(3)
        took = time.monotonic() - begun
        (tally,) = tallies
        assert tally["codes"][OVER] > 100
        assert 40 <= tally["codes"]["OK"] <= 40 * (took + 2)
        assert len(tally["hints"]) == tally["codes"][OVER]
        assert set(small.codes) == {"OK"}


@pytest.mark.timeout(240)
async def test_a_quota_of_bytes_holds_within_what_one_look_misses(database_url: str, tmp_path: Path) -> None:
    limit = 2_000_000
    with serving("--quota-refresh-seconds", "0.2", database_url=database_url, log_dir=tmp_path) as server:
        await set_quotas(server, max_bytes=1)
        await until_usage_is_known(server)
        await set_quotas(server, max_bytes=limit)
        small = Small(server)
        async with beside(small, plan(server, name="f", callers=16, value_bytes=20_000, enough={OVER: 11})) as tallies:
            await asyncio.sleep(3)
        (tally,) = tallies
        assert tally["codes"][OVER] > 10
        assert set(small.codes) == {"OK"}
    connection = await asyncpg.connect(database_url)
    stored = await connection.fetchval("SELECT sum(bytes) FROM checkpointd.threads WHERE tenant = 'greedy'")
    await connection.close()
    assert limit * 0.8 <= stored <= limit * 2


async def until_usage_is_known(server: ServerProcess) -> None:
    """Waits until the quota of bytes is in force: what comes before a tenant's usage was first read is let through."""
    async with grpc.aio.insecure_channel(server.target) as channel:
        stub: Any = CheckpointServiceStub(channel)

        async def is_refused() -> bool:
            try:
                await stub.PutCheckpoint(put_request("first", 100), metadata=bearer("ckd_greedy"))
            except grpc.aio.AioRpcError as error:
                return refusal_of(error)[0] == "QUOTA_EXCEEDED"
            return False

        await auntil(is_refused)
