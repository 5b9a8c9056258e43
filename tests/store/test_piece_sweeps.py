"""Pieces that nothing refers to any more go: at once after a deletion, and soon after all else."""

from __future__ import annotations

import asyncio
import random
from contextlib import AsyncExitStack
from datetime import timedelta
from typing import Any

import pytest

from checkpointd_server.domain.errors import PiecesMissing
from checkpointd_server.domain.model import PruneStrategy
from checkpointd_server.store import StoreOptions
from checkpointd_server.store import pieces as store_pieces
from checkpointd_server.store.statements import load_statements
from tests.store.pieces import (
    collect,
    contents,
    hasty,
    holding,
    joined,
    names,
    pass_time,
    put,
    queued,
    read,
    until_waiting,
    upload,
)
from tests.support.tenant import Tenant, in_pieces, piece, value, write

ERROR, RESUME = -1, -4
"""The idx of special writes, which replace."""


class TestDeletions:
    """What they free is gone at once."""

    async def test_a_thread(self, tenant: Tenant) -> None:
        await put(tenant, "1", b"one")
        await put(tenant, "1", b"other", thread="other")
        await upload(tenant, b"ahead")
        await tenant.delete()
        assert await names(tenant) == set()
        assert await contents(tenant) == [b"other"]
        assert await queued(tenant) == {}

    async def test_a_thread_that_has_only_what_was_sent_ahead(self, tenant: Tenant) -> None:
        await upload(tenant, b"ahead")
        await tenant.delete()
        assert await contents(tenant) == []

    async def test_prune(self, tenant: Tenant) -> None:
        await put(tenant, "1", b"one", b"both")
        await tenant.writes("1", write("task", 0, "a", in_pieces(b"written")), pieces=[piece(b"written")])
        await put(tenant, "2", b"two", b"both", parent="1")
        await tenant.writes("2", write("task", 0, "a", in_pieces(b"pending")), pieces=[piece(b"pending")])
        assert await tenant.prune("t") == 1
        assert await contents(tenant) == [b"both", b"pending", b"two"]
        assert await read(tenant) == b"twoboth"
        assert await tenant.prune("t", strategy=PruneStrategy.DELETE) == 1
        assert await contents(tenant) == []

    async def test_an_old_value_that_the_newest_checkpoint_still_has(self, tenant: Tenant) -> None:
        await put(tenant, "1", b"one")
        await tenant.put("2", parent="1", versions={"a": "1", "b": "1"}, values={"b": b"whole"})
        await tenant.prune("t")
        assert await contents(tenant) == [b"one"]

    async def test_runs(self, tenant: Tenant) -> None:
        await put(tenant, "1", b"one", b"both", metadata={"run_id": "r1"})
        await put(tenant, "2", b"two", b"both", metadata={"run_id": "r2"})
        await put(tenant, "1", b"elsewhere", thread="u", metadata={"run_id": "r1"})
        assert await tenant.delete_runs("r1") == 2
        assert await contents(tenant) == [b"both", b"two"]
        assert await names(tenant, "u") == set()
        assert await tenant.delete_runs("r2") == 1
        assert await contents(tenant) == []

    async def test_what_was_sent_ahead_lately_stays_for_its_put(self, tenant: Tenant) -> None:
        await put(tenant, "1", b"one")
        await put(tenant, "2", b"two", parent="1")
        await upload(tenant, b"ahead")
        await tenant.prune("t")
        assert await contents(tenant) == [b"ahead", b"two"]
        assert 3500 < (await queued(tenant))["t"] <= 3600


class TestReplaced:
    """What a put replaces is looked after by the collector."""

    async def test_a_checkpoint_with_other_versions(self, tenant: Tenant) -> None:
        """The old version may be another checkpoint's, too; it goes when the thread is pruned, like any value."""
        await put(tenant, "1", b"old", version="1")
        await put(tenant, "1", b"new", version="2")
        await collect(tenant)
        assert await contents(tenant) == [b"new", b"old"]

    @pytest.mark.parametrize(
        "by", [in_pieces(b"new", b"both"), value(b"whole"), None], ids=["pieces", "whole", "empty"]
    )
    async def test_a_value(self, tenant: Tenant, by: object) -> None:
        await put(tenant, "1", b"old", b"both", version="1")
        assert await queued(tenant) == {}
        replaced = {"a": by}
        await tenant.put("2", versions={"a": "1"}, values=replaced, pieces=[piece(b"new")])  # type: ignore[arg-type]
        await collect(tenant)
        assert await contents(tenant) == ([b"both", b"new"] if by == in_pieces(b"new", b"both") else [])
        assert await queued(tenant) == {}

    async def test_many_values_at_once(self, tenant: Tenant) -> None:
        """As a group commit stores them."""
        threads = [f"t{number}" for number in range(30)]
        await asyncio.gather(*(put(tenant, "1", b"old", thread=thread, version="1") for thread in threads))
        await asyncio.gather(
            *(tenant.put("2", thread=thread, versions={"a": "1"}, values={"a": b"whole"}) for thread in threads),
            *(tenant.writes("2", write("task", ERROR, "a", b"small"), thread=thread) for thread in threads),
        )
        assert (await queued(tenant)).keys() == set(threads)
        await collect(tenant)
        assert await contents(tenant) == []

    async def test_the_same_value_again(self, tenant: Tenant) -> None:
        await put(tenant, "1", b"one", version="1")
        await put(tenant, "2", b"one", version="1")
        assert await queued(tenant) == {}
        assert await read(tenant) == b"one"

    @pytest.mark.parametrize("large", [True, False], ids=["pieces", "whole"])
    async def test_a_special_write(self, tenant: Tenant, large: bool) -> None:
        await tenant.writes(
            "1", write("task", RESUME, "a", in_pieces(b"old", b"both")), pieces=[piece(b"old"), piece(b"both")]
        )
        assert await queued(tenant) == {}
        new = write("task", RESUME, "a", in_pieces(b"new", b"both") if large else b"whole")
        await tenant.writes("1", new, pieces=[piece(b"new")])
        await collect(tenant)
        assert await contents(tenant) == ([b"both", b"new"] if large else [])

    async def test_a_regular_write_stays_and_what_came_with_its_rival_goes(self, tenant: Tenant) -> None:
        await tenant.writes("1", write("task", 0, "a", in_pieces(b"first")), pieces=[piece(b"first")])
        await tenant.writes("1", write("task", 0, "a", in_pieces(b"second")), pieces=[piece(b"second")])
        await collect(tenant)
        assert await contents(tenant) == [b"first"]


class TestSentAgain:
    """A put that was stored before stores nothing, not even its pieces, for long."""

    async def test_a_put(self, tenant: Tenant) -> None:
        version = await put(tenant, "1", b"one", version="1", request_id=b"once")
        assert await put(tenant, "1", b"one", version="1", request_id=b"once") == version
        await tenant.put("2", versions={"a": "1"}, values={"a": b"whole"})
        await collect(tenant)
        assert await put(tenant, "1", b"one", version="1", request_id=b"once") == version
        await collect(tenant)
        assert await contents(tenant) == []
        assert await tenant.values("2") == {"a": b"whole"}

    @pytest.mark.parametrize("overtaken", [False, True])
    @pytest.mark.parametrize("conditional", [False, True])
    async def test_writes(self, tenant: Tenant, conditional: bool, overtaken: bool) -> None:
        version = await tenant.put("1", writer=b"me")
        sent = write("task", RESUME, "a", in_pieces(b"one"))
        expect = version if conditional else None
        await tenant.writes("1", sent, pieces=[piece(b"one")], expect=expect, request_id=b"once")
        await tenant.writes("1", write("task", RESUME, "a", b"whole"), request_id=b"later")
        if overtaken:
            await tenant.put("2")
        await collect(tenant)
        assert await contents(tenant) == []
        await tenant.writes("1", sent, pieces=[piece(b"one")], expect=expect, request_id=b"once")
        await collect(tenant)
        assert await contents(tenant) == []
        assert (await tenant.read("1")).pending_writes == [write("task", RESUME, "a", b"whole")]


class TestSentAhead:
    async def test_what_nothing_comes_to_refer_to_goes_when_its_time_is_over(
        self, shared_options: StoreOptions, tenant: Tenant
    ) -> None:
        async with hasty(shared_options, 60) as store:
            own = Tenant(store, tenant.name)
            await upload(own, b"one", b"two")
            assert 0 < (await queued(own))["t"] <= 60
            await own.put("1", versions={"a": "1"}, values={"a": in_pieces(b"two")})
            await collect(own)
            assert await contents(own) == [b"one", b"two"]
            await pass_time(own, 61)
            await collect(own)
            assert await contents(own) == [b"two"]
            assert await queued(own) == {}
            assert await read(own) == b"two"

    async def test_each_upload_has_its_own_time(self, shared_options: StoreOptions, tenant: Tenant) -> None:
        async with hasty(shared_options, 100) as store:
            own = Tenant(store, tenant.name)
            await upload(own, b"one")
            await pass_time(own, 70)
            await upload(own, b"two")
            await pass_time(own, 31)
            await collect(own)
            assert await contents(own) == [b"two"]
            assert 0 < (await queued(own))["t"] < 70
            await pass_time(own, 70)
            await collect(own)
            assert await contents(own) == []
            assert await queued(own) == {}

    async def test_sent_again_they_are_stored_once(self, tenant: Tenant) -> None:
        await upload(tenant, b"one", b"two")
        await upload(tenant, b"two", b"three")
        assert await contents(tenant) == [b"one", b"three", b"two"]

    async def test_an_upload_under_way_is_not_forgotten_by_a_sweep(self, tenant: Tenant) -> None:
        """The sweep takes the thread off the list, where the upload has found it, and doesn't see its pieces."""
        await upload(tenant, b"before")
        await tenant.select("UPDATE checkpointd.piece_sweeps SET due_at = now() WHERE tenant = $1", tenant.name)
        same = "INSERT INTO checkpointd.pieces (tenant, thread_id, digest, content_id) VALUES ($1, 't', $2, 0)"
        async with holding(tenant, same, tenant.name, piece(b"under way").name, undo=True):
            uploading = asyncio.ensure_future(upload(tenant, b"under way"))
            await until_waiting(tenant, 1)
            await tenant.select("DELETE FROM checkpointd.pieces WHERE tenant = $1", tenant.name)
            sweeping = asyncio.ensure_future(tenant.store.collect_pieces())
            # It waits for the upload, or doesn't: then it is over soon.
            await asyncio.wait([sweeping], timeout=0.5)
        await uploading
        await sweeping
        assert await contents(tenant) == [b"before", b"under way"]
        assert "t" in await queued(tenant)


class TestCollector:
    async def test_several_at_once_lose_nothing_that_is_needed(
        self, shared_options: StoreOptions, tenant: Tenant
    ) -> None:
        seed = random.randrange(2**32)
        dice = random.Random(seed)
        kept: dict[str, bytes] = {}
        async with AsyncExitStack() as stack:
            stores = [await stack.enter_async_context(hasty(shared_options, 0.02)) for _ in range(3)]
            own = [Tenant(store, tenant.name) for store in stores]

            async def work(number: int) -> None:
                for turn in range(25):
                    thread = f"t{dice.randrange(4)}"
                    parts = [b"%d" % dice.randrange(30) for _ in range(dice.randrange(1, 12))]
                    at = own[number % 3]
                    checkpoint_id = f"{number}-{turn:02}"
                    if dice.random() < 0.5:
                        await upload(at, *dict.fromkeys(parts), thread=thread)
                    for _ in range(100):
                        try:
                            await at.put(
                                checkpoint_id,
                                thread=thread,
                                ns=str(number),
                                versions={"a": checkpoint_id},
                                values={"a": in_pieces(*parts)},
                            )
                            break
                        except PiecesMissing as error:
                            lacking = set(error.names)
                            if dice.random() < 0.5:
                                await put(at, checkpoint_id, *parts, thread=thread, ns=str(number))
                                break
                            await upload(
                                at,
                                *(part for part in dict.fromkeys(parts) if piece(part).name in lacking),
                                thread=thread,
                            )
                    kept[f"{thread} {number}"] = b"".join(parts)
                    if dice.random() < 0.3:
                        await at.prune(thread)

            async def collect_again_and_again(at: Tenant) -> None:
                while True:
                    await at.select("UPDATE checkpointd.piece_sweeps SET due_at = now() WHERE tenant = $1", tenant.name)
                    await at.store.collect_pieces()
                    await asyncio.sleep(0.005)

            collecting = [asyncio.ensure_future(collect_again_and_again(at)) for at in own]
            await asyncio.gather(*(work(number) for number in range(6)))
            for task in collecting:
                task.cancel()
            await asyncio.gather(*collecting, return_exceptions=True)
            for place, expected in kept.items():
                thread, ns = place.split()
                stored = await tenant.read(thread=thread, ns=ns)
                assert await joined(tenant, stored, thread) == expected, f"seed {seed}"
            await asyncio.sleep(0.05)
            for number in range(4):
                await own[0].prune(f"t{number}")
        used = set()
        for place in kept:
            thread, ns = place.split()
            (entry,) = (await tenant.read(thread=thread, ns=ns)).values
            assert entry.value is not None
            assert entry.value.pieces is not None
            used |= {(thread, name) for name in entry.value.pieces.names}
        assert {(f"t{n}", name) for n in range(4) for name in await names(tenant, f"t{n}")} == used, f"seed {seed}"

    async def test_a_thread_that_cannot_be_swept_does_not_hold_up_the_others(self, tenant: Tenant) -> None:
        for thread in ("stuck", "t"):
            await put(tenant, "1", b"old", thread=thread, version="1")
            await tenant.put("2", thread=thread, versions={"a": "1"}, values={"a": b"whole"})
        await tenant.select(
            "UPDATE checkpointd.piece_sweeps SET due_at = now() - $3::interval WHERE tenant = $1 AND thread_id = $2",
            tenant.name,
            "stuck",
            timedelta(days=1),
        )
        sweep = store_pieces.sweep

        async def impatient(
            database: Any, tenant: str, thread_id: str, *, spared: float, timeout: float | None
        ) -> None:
            await sweep(database, tenant, thread_id, spared=spared, timeout=0.5 if thread_id == "stuck" else timeout)

        lock = load_statements("checkpointd")["share_pieces"]
        async with holding(tenant, lock, tenant.name, "stuck"):
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(store_pieces, "sweep", impatient)
                await collect(tenant)
        assert await names(tenant) == set()
        assert 500 < (await queued(tenant))["stuck"] <= 600
        await tenant.select("UPDATE checkpointd.piece_sweeps SET due_at = now() WHERE tenant = $1", tenant.name)
        await collect(tenant)
        assert await contents(tenant) == []
