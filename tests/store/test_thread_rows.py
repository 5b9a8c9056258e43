"""The data for lists in a thread's row: writes keep it equal to a count."""

from __future__ import annotations

import random
from typing import Any

import asyncpg
import pytest

from checkpointd_server.domain.errors import CheckpointdError
from checkpointd_server.domain.threads import VOLATILE_KEYS, thread_key
from checkpointd_server.store import StoreOptions
from tests.support.tenant import Tenant, gather_results, write

ROW = "SELECT checkpoints, bytes, signal, listed_at IS NOT NULL AS is_listed FROM checkpointd.threads WHERE thread = $1"
LABELS = "SELECT label FROM checkpointd.thread_labels WHERE thread = $1 ORDER BY label"


@pytest.fixture
async def admin(shared_options: StoreOptions) -> Any:
    connection = await asyncpg.connect(shared_options.dsn)
    yield connection
    await connection.close()


async def look(admin: Any, tenant: Tenant, thread: str) -> tuple[dict[str, Any], list[int]]:
    """A thread's row and labels."""
    await admin.execute("SELECT set_config('checkpointd.tenant', $1, false)", tenant.name)
    key = thread_key(tenant.name, thread)
    row = await admin.fetchrow(ROW, key)
    return dict(row or {}), [label for (label,) in await admin.fetch(LABELS, key)]


async def counted(admin: Any, tenant: Tenant, thread: str) -> tuple[dict[str, Any], list[int]]:
    """The same after the row was rebuilt, which is rolled back."""
    transaction = admin.transaction()
    await transaction.start()
    try:
        await admin.execute("SELECT set_config('checkpointd.tenant', $1, false)", tenant.name)
        await admin.execute("SELECT checkpointd.refresh_thread($1, $2)", tenant.name, thread_key(tenant.name, thread))
        return await look(admin, tenant, thread)
    finally:
        await transaction.rollback()


async def test_rows_say_what_a_count_says(tenant: Tenant, admin: Any) -> None:
    choose = random.Random(16)
    threads = ["a", "b", "c"]

    async def step(n: int) -> Any:
        thread, ns = choose.choice(threads), choose.choice(["", "", "", "sub"])
        checkpoint_id = f"{choose.randrange(12):02}"
        match choose.choice(["put", "put", "put", "lose", "write", "special", "delete", "prune", "run", "copy"]):
            case "put":
                metadata = {"step": n, "run_id": f"r{n % 4}", "user": choose.choice(["u1", "u2"])}
                values: dict[str, Any] = {"a": b"x" * choose.randrange(9)}
                # Each value has its own version, so that none replaces another.
                return await tenant.put(
                    checkpoint_id, thread=thread, ns=ns, versions={"a": f"{n}"}, values=values, metadata=metadata
                )
            case "lose":
                return await tenant.put(checkpoint_id, thread=thread, ns=ns, expect=1)
            case "write":
                return await tenant.writes(checkpoint_id, write(f"t{n}", 0, "a", b"12345"), thread=thread, ns=ns)
            case "special":
                channel = choose.choice(["__interrupt__", "__error__"])
                return await tenant.writes(checkpoint_id, write(f"t{n}", -3, channel, b"1"), thread=thread, ns=ns)
            case "delete" if choose.random() < 0.3:
                return await tenant.delete(thread)
            case "prune":
                return await tenant.prune(thread)
            case "run":
                return await tenant.delete_runs(f"r{choose.randrange(4)}")
            case "copy":
                return await tenant.copy(thread, choose.choice(threads))

    for n in range(0, 240, 4):
        results = await gather_results(*(step(n + k) for k in range(choose.choice([1, 4]))))
        assert all(not isinstance(result, Exception) or isinstance(result, CheckpointdError) for result in results)
        for thread in threads:
            (row, labels), (fresh, fresh_labels) = (
                await look(admin, tenant, thread),
                await counted(admin, tenant, thread),
            )
            assert row.get("checkpoints") == fresh.get("checkpoints"), n
            assert row.get("is_listed") == fresh.get("is_listed"), n
            # A signal beside an older checkpoint is recorded too; threads found by it are checked again.
            assert fresh.get("signal") is None or row["signal"] is not None, n
            signals = 1
            assert len(set(labels) ^ set(fresh_labels)) <= 2 * signals, n


@pytest.mark.parametrize("users", [(None,), (None, "u"), ("u", None), (None, None), (None, None, "u", None)])
@pytest.mark.parametrize("at_once", [True, False])
async def test_a_new_thread_has_the_labels_of_its_latest_checkpoint(
    tenant: Tenant, admin: Any, users: tuple[str | None, ...], at_once: bool
) -> None:
    """Whether or not the checkpoint put last is the latest, and also if its metadata has no labels."""
    for thread, ids in (("a", range(len(users))), ("b", range(len(users), 0, -1))):
        puts = [
            tenant.put(f"{n}", thread=thread, metadata={"step": n} if user is None else {"step": n, "user": user})
            for n, user in zip(ids, users, strict=True)
        ]
        if at_once:
            assert all(isinstance(result, int) for result in await gather_results(*puts))
        else:
            for put in puts:
                await put
        found = await look(admin, tenant, thread)
        assert found == await counted(admin, tenant, thread)
        latest = users[-1] if thread == "a" else users[0]
        assert len(found[1]) == (latest is not None)


async def test_bytes_are_those_of_all_rows(tenant: Tenant, admin: Any) -> None:
    await tenant.put("1", versions={"a": "1", "b": "1"}, values={"a": b"12345", "b": None}, metadata={"user": "u"})
    await tenant.writes("1", write("t", 0, "a", b"123"), write("t", 1, "b", b"1"))
    await gather_results(
        *(tenant.put("2", thread=f"other {n}", versions={"a": "2"}, values={"a": b"1"}) for n in "abc")
    )
    for thread in ("t", "other a", "other b"):
        assert await look(admin, tenant, thread) == await counted(admin, tenant, thread)
    before = await look(admin, tenant, "t")
    await gather_results(tenant.put("3", expect=1, versions={"a": "3"}, values={"a": b"12345"}))
    assert await look(admin, tenant, "t") == before
    await tenant.delete("t")
    assert await look(admin, tenant, "t") == ({"checkpoints": 0, "bytes": 0, "signal": None, "is_listed": False}, [])


async def test_most_writes_touch_no_index(tenant: Tenant, admin: Any) -> None:
    """A write within two seconds of the last one that changed an indexed column changes none."""
    await tenant.put("1", metadata={"user": "u"})
    indexed = "SELECT listed_at, archived_at, thread_id FROM checkpointd.threads WHERE thread = $1"
    await admin.execute("SELECT set_config('checkpointd.tenant', $1, false)", tenant.name)
    before = await admin.fetchrow(indexed, thread_key(tenant.name, "t"))
    _, labels = await look(admin, tenant, "t")
    for n in range(2, 6):
        await tenant.put(f"{n}", metadata={"user": "u", "step": n, "run_id": f"{n}"})
    assert await admin.fetchrow(indexed, thread_key(tenant.name, "t")) == before
    assert (await look(admin, tenant, "t"))[1] == labels != []


async def test_the_database_leaves_out_the_same_entries_as_the_server(admin: Any) -> None:
    assert set(await admin.fetchval("SELECT checkpointd.volatile_keys()")) == VOLATILE_KEYS
