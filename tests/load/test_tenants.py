"""Several tenants, one of which asks for far more than its share: quotas and shares hold under load."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
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
from tests.support.api_keys import key_entry
from tests.support.rpc_client import bearer
from tests.support.server_process import ServerProcess

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


async def flood(server: ServerProcess, **plan: Any) -> dict[str, Any]:
    """Runs a flood of the greedy tenant in a separate process, and returns its tally."""
    plan = vars(Plan(target=server.target, token="ckd_greedy", **plan))
    command = (sys.executable, "-m", "tests.load.flood", json.dumps(plan))
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    out, _ = await process.communicate()
    assert process.returncode == 0
    told: dict[str, Any] = json.loads(out)
    return told


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


async def beside(small: Small, *floods: Any) -> list[dict[str, Any]]:
    """Runs floods while a small tenant calls, and returns their tallies."""
    task = asyncio.create_task(small.run())
    tallies = await asyncio.gather(*floods)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    return tallies


@pytest.mark.timeout(120)
async def test_a_greedy_tenant_is_refused_and_the_small_one_is_served(database_url: str, tmp_path: Path) -> None:
    options = ("--max-concurrent-calls", "16", "--pool-max-size", "2")
    with serving(*options, database_url=database_url, log_dir=tmp_path) as server:
        # Without it, a flood that gets little CPU time would be served as fast as it calls.
        await execute(database_url, SLOW)
        small = Small(server)
        floods = [flood(server, name=f"f{n}", seconds=4, callers=64, value_bytes=500) for n in range(2)]
        tallies = await beside(small, *floods)
        greedy = sum((Counter(tally["codes"]) for tally in tallies), Counter[str]())
        assert greedy[REFUSED] > 100
        assert set(greedy) <= {"OK", REFUSED}
        assert greedy["OK"] > 0
        # The small tenant may be refused in the first moment, before the server knows of it.
        assert small.codes["OK"] >= 10
        assert small.codes[REFUSED] <= 2 + small.codes["OK"] // 20
        assert set(small.codes) <= {"OK", REFUSED}


@pytest.mark.timeout(120)
async def test_a_quota_of_calls_holds_whatever_is_asked_for(database_url: str, tmp_path: Path) -> None:
    with serving(database_url=database_url, log_dir=tmp_path) as server:
        await set_quotas(server, max_calls_per_second=40)
        small = Small(server)
        begun = time.monotonic()
        (tally,) = await beside(small, flood(server, name="f", seconds=4, callers=16, value_bytes=500))
        took = time.monotonic() - begun
        assert tally["codes"][OVER] > 100
        assert 40 <= tally["codes"]["OK"] <= 40 * (took + 2)
        assert len(tally["hints"]) == tally["codes"][OVER]
        assert set(small.codes) == {"OK"}


@pytest.mark.timeout(120)
async def test_a_quota_of_bytes_holds_within_what_one_look_misses(database_url: str, tmp_path: Path) -> None:
    limit = 2_000_000
    with serving("--quota-refresh-seconds", "0.2", database_url=database_url, log_dir=tmp_path) as server:
        await set_quotas(server, max_bytes=limit)
        small = Small(server)
        (tally,) = await beside(small, flood(server, name="f", seconds=4, callers=16, value_bytes=20_000))
        assert tally["codes"][OVER] > 10
        assert set(small.codes) == {"OK"}
    connection = await asyncpg.connect(database_url)
    stored = await connection.fetchval("SELECT sum(bytes) FROM checkpointd.threads WHERE tenant = 'greedy'")
    await connection.close()
    # What came before the tenant's usage was first read is let through; this server counts the rest.
    assert limit * 0.8 <= stored <= limit * 2
