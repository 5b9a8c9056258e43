"""Retention during writes: a policy keeps what it must, no put fails, and only one server at a time sweeps."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from checkpointd_server.domain.retention import RetentionEffect
from checkpointd_server.store import PostgresStore, StoreOptions, open_store
from tests.support.tenant import Tenant, patch
from tests.support.until import auntil

_numbers = itertools.count(1)

LIMITS = st.fixed_dictionaries(
    {},
    optional={
        "keep_newest": st.integers(1, 6),
        "keep_last_of_run": st.just(True),
        "max_bytes": st.integers(1, 4000),
    },
).filter(bool)


@pytest.fixture
async def second(shared_options: StoreOptions) -> AsyncIterator[PostgresStore]:
    """The store of another server on the same database."""
    async with open_store(shared_options) as opened:
        yield opened


class Writer:
    """A sequence of runs whose puts build on each other."""

    def __init__(self, tenant: Tenant, thread: str, puts: int) -> None:
        self.tenant = tenant
        self.thread = thread
        self.puts = puts

    async def run(self) -> None:
        """Puts checkpoints, four per run, each with a value that is a patch or whole. A refusal fails the test."""
        before = None
        for n in range(self.puts):
            name = f"{n:03}"
            value: Any = b"v" * (n + 1)
            if n % 5:
                value = patch(f"{n - 1:03}", value)
            await self.tenant.put(
                name,
                thread=self.thread,
                parent=before,
                versions={"a": name, "fixed": "1"},
                values={"a": value, **({"fixed": b"same"} if not n else {})},
                metadata={"run_id": f"{self.thread}-{n // 4}"},
                writer=b"me",
                expect=None if before else 0,
                expect_writer=b"me" if before else b"",
                expect_last=before or "",
            )
            before = name


def bounds(puts: int, limits: dict[str, Any]) -> tuple[set[str], set[str]]:
    """Returns the least and the most that the policy by itself keeps of a thread, without limits on bytes.

    Both are the same, unless inner checkpoints of runs were deleted while the thread was shorter: then the newest that
    are left include the last ones of older runs.
    """
    newest = lasts = set(range(puts))
    if "keep_newest" in limits:
        newest = set(range(puts - limits["keep_newest"], puts))
    if limits.get("keep_last_of_run"):
        # The newest checkpoint's parent stays too: it may hold the newest one's sends.
        lasts = {n for n in range(puts) if n % 4 == 3} | {puts - 1, puts - 2}
    least = newest & lasts
    most = lasts if limits.get("keep_last_of_run") else least
    return {f"{n:03}" for n in least if n >= 0}, {f"{n:03}" for n in most if n >= 0}


CASES = {"limits": LIMITS, "puts": st.lists(st.integers(1, 14), min_size=1, max_size=3), "batch": st.integers(1, 5)}
SETTINGS = settings(
    deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], print_blob=True
)


@settings(SETTINGS, max_examples=3)
@given(**CASES)
async def test_what_a_policy_keeps_is_what_it_must(
    limits: dict[str, Any], puts: list[int], batch: int, shared_options: StoreOptions
) -> None:
    await keep(limits, puts, batch, shared_options)


@pytest.mark.long
@settings(SETTINGS, max_examples=60)
@given(**CASES)
async def test_what_a_policy_keeps_is_what_it_must_again_and_again(
    limits: dict[str, Any], puts: list[int], batch: int, shared_options: StoreOptions
) -> None:
    await keep(limits, puts, batch, shared_options)


async def keep(limits: dict[str, Any], puts: list[int], batch: int, shared_options: StoreOptions) -> None:
    """Applies a policy while threads are written to, and checks what is kept."""
    async with open_store(replace(shared_options, sweep_batch=batch)) as store:
        tenant = Tenant(store, f"scheduled-{next(_numbers)}-{id(store)}")
        await tenant.set_policy(**limits)
        writers = [asyncio.ensure_future(Writer(tenant, f"t{n}", many).run()) for n, many in enumerate(puts)]
        done = asyncio.gather(*writers)
        while not done.done():
            await tenant.retain()
        await done
        said = {effect.thread_id: effect.checkpoints for effect in await tenant.preview()}
        before = {f"t{n}": len(await tenant.ids(thread=f"t{n}")) for n in range(len(puts))}
        await tenant.retain()
        for n, many in enumerate(puts):
            thread = f"t{n}"
            kept = set(await tenant.ids(thread=thread))
            assert len(kept) == before[thread] - said.get(thread, 0)
            least, most = bounds(many, limits)
            assert kept <= most
            assert len(kept) <= limits.get("keep_newest", many)
            assert least <= kept or "max_bytes" in limits
            assert f"{many - 1:03}" in kept
            for name in kept:
                rows = await tenant.rows(name, thread=thread)
                # The chain of patches is complete, down to the whole value.
                number = int(name)
                assert {("a", f"{m:03}") for m in range(number - number % 5, number + 1)} <= set(rows)
                assert ("fixed", "1") in rows
            referred = {row for name in kept for row in await tenant.rows(name, thread=thread)}
            assert await tenant.stored_values(thread=thread) == referred
        assert await tenant.preview() == []


async def test_one_server_sweeps_and_another_takes_over(
    own_options: StoreOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = replace(own_options, sweep_batch=1, sweep_interval=3600.0, sweep_lease=3.0)
    told: list[tuple[str, RetentionEffect]] = []
    async with open_store(options) as first, open_store(options) as second:
        tenant = Tenant(first, "a")
        for n in range(12):
            for thread in ("t1", "t2", "t3"):
                await tenant.put(f"{n:02}", thread=thread)
        await tenant.set_policy(keep_newest=1)
        steps = 0
        reached, is_dead = asyncio.Event(), False
        database_run = first.connections.run

        async def run(statement: str, *args: Any, **more: Any) -> Any:
            nonlocal steps
            steps += statement == "retain_thread"
            if is_dead:  # it can't report its end: nothing is sent any more
                raise asyncio.CancelledError
            if statement == "retain_thread" and steps > 5:
                reached.set()
                await asyncio.Event().wait()
            return await database_run(statement, *args, **more)

        monkeypatch.setattr(first.connections, "run", run)
        sweeping = asyncio.ensure_future(first.sweep(lambda *effect: told.append(effect)))
        await reached.wait()
        # Meanwhile the other server does nothing.
        assert not (await second.sweep(lambda *effect: told.append(effect))).has_run
        # The first server dies in the middle.
        is_dead = True
        sweeping.cancel()
        await asyncio.gather(sweeping, return_exceptions=True)
        after = Tenant(second, "a")
        left = sum([len(await after.ids(thread=thread)) for thread in ("t1", "t2", "t3")])
        assert left == 36 - 5
        await auntil(lambda: second.sweep(lambda *effect: told.append(effect)), lambda report: report.has_run)
        assert [await after.ids(thread=thread) for thread in ("t1", "t2", "t3")] == [["11"]] * 3
        monkeypatch.undo()
        # Nothing is due until the interval is over.
        assert not (await second.sweep(lambda *effect: told.append(effect))).has_run


async def test_what_was_looked_at_is_passed_over_until_something_changes(
    shared_options: StoreOptions, tenant: Tenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    await tenant.set_policy(keep_newest=2)
    await tenant.put("1")
    looked: list[str] = []
    database_run = tenant.store.connections.run

    async def run(statement: str, args: Any, *others: Any, **more: Any) -> Any:
        if args and args[0] == tenant.name:  # the database has others, too
            looked.append(statement)
        return await database_run(statement, args, *others, **more)

    monkeypatch.setattr(tenant.store.connections, "run", run)

    async def sweep() -> list[str]:
        looked.clear()
        await tenant.select(
            "UPDATE checkpointd.retention_tenants SET next_at = '2020-01-01', after_at = NULL WHERE tenant = $1",
            tenant.name,
        )
        await tenant.store.sweep(lambda *_: None)
        return [one for one in looked if one in ("plan_retention", "retain_thread")]

    assert await sweep() == ["plan_retention"]
    assert await sweep() == []
    await tenant.put("2")
    await tenant.put("3")
    assert await sweep() == ["plan_retention", "retain_thread"]
    assert await tenant.ids() == ["2", "3"]
    assert await sweep() == ["plan_retention"]
    assert await sweep() == []
    await tenant.set_policy(keep_newest=1)
    assert await sweep() == ["plan_retention", "retain_thread"]


async def test_nobody_waits_for_a_thread_that_is_trimmed(
    tenant: Tenant, second: PostgresStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A put waits for one small transaction at most; if the put comes first, the sweeper doesn't wait either."""
    count = 600
    await asyncio.gather(
        *[tenant.put(f"{n:04}", versions={"a": f"{n}"}, values={"a": b"x" * 500}) for n in range(count)]
    )
    await tenant.set_policy(keep_newest=1)
    numbers = itertools.count(9000)
    deleted = []
    database_run = second.connections.run

    async def run(statement: str, args: Any, *others: Any, **more: Any) -> Any:
        result = await database_run(statement, args, *others, **more)
        if statement == "retain_thread" and args[0] == tenant.name:
            deleted.append(result[0]["o_checkpoints"])
            # The next step comes after this put, which would never end if the sweep still had the thread's lock.
            if not sweeping.done():
                await tenant.put(f"{next(numbers)}")
        return result

    monkeypatch.setattr(second.connections, "run", run)
    sweeper = Tenant(second, tenant.name)
    sweeping = asyncio.ensure_future(sweeper.retain())
    while not sweeping.done():
        await tenant.put(f"{next(numbers)}")
    await sweeping
    await sweeper.retain()
    newest = next(numbers) - 1
    assert await tenant.ids() == [f"{newest}"]
    assert sum(deleted) == count + newest - 9000
    assert max(deleted) <= StoreOptions(dsn="").sweep_batch < count / 5
