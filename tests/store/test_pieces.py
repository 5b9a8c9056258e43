"""Pieces of large values: held for what refers to them, shared with copies, and gone when nothing refers to them."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from datetime import timedelta

import pytest

from checkpointd_server.domain.errors import PiecesMissing, VersionConflict
from checkpointd_server.domain.model import Namespace, Piece, PruneStrategy, StoredCheckpoint
from checkpointd_server.store import PostgresStore, StoreOptions, open_store
from checkpointd_server.store.pieces import ANSWER_BYTES, FIRST_BYTES
from checkpointd_server.store.pool import Session
from checkpointd_server.store.statements import load_statements
from tests.store.tenant import TIMEOUT, Tenant, gather_results, in_pieces, piece, value, write

ERROR, RESUME = -1, -4
"""The idx of special writes, which replace."""


def names_of(*parts: bytes) -> set[bytes]:
    return {piece(part).name for part in parts}


async def put(
    tenant: Tenant, checkpoint_id: str, *parts: bytes, thread: str = "t", version: str = "", **more: object
) -> int:
    """Puts a checkpoint whose channel "a" has these pieces, and brings them all along."""
    version = version or checkpoint_id
    values = {"a": in_pieces(*parts)}
    sent = [piece(part) for part in dict.fromkeys(parts)]
    return await tenant.put(checkpoint_id, thread=thread, versions={"a": version}, values=values, pieces=sent, **more)  # type: ignore[arg-type]


async def upload(tenant: Tenant, *parts: bytes, thread: str = "t") -> None:
    sent = [piece(part) for part in parts]
    await tenant.store.put_pieces(tenant.name, thread, sent, timeout=TIMEOUT)


async def names(tenant: Tenant, thread: str = "t") -> set[bytes]:
    """The names of the pieces that a thread has."""
    query = "SELECT digest FROM checkpointd.pieces WHERE tenant = $1 AND thread_id = $2"
    return {row["digest"] for row in await tenant.select(query, tenant.name, thread)}


async def contents(tenant: Tenant) -> list[bytes]:
    """What the tenant's pieces hold."""
    query = "SELECT data FROM checkpointd.piece_contents WHERE tenant = $1 ORDER BY data"
    return [row["data"] for row in await tenant.select(query, tenant.name)]


async def queued(tenant: Tenant) -> dict[str, float]:
    """The threads that are to be looked at, and in how many seconds."""
    query = """
        SELECT thread_id, extract(epoch FROM due_at - clock_timestamp())::float8 AS due_in
        FROM checkpointd.piece_sweeps WHERE tenant = $1
    """
    return {row["thread_id"]: row["due_in"] for row in await tenant.select(query, tenant.name)}


async def collect(tenant: Tenant) -> None:
    """Has all that is due looked at."""
    while await tenant.store.collect_pieces():
        pass


async def read(tenant: Tenant, checkpoint_id: str | None = None, *, thread: str = "t") -> bytes:
    """Reads the channel "a" of a checkpoint, asking for its pieces."""
    stored = await tenant.read(checkpoint_id, thread=thread)
    return await joined(tenant, stored, thread)


async def joined(tenant: Tenant, stored: StoredCheckpoint, thread: str) -> bytes:
    (entry,) = stored.values
    assert entry.value is not None
    assert entry.value.pieces is not None
    found = await tenant.store.get_pieces(tenant.name, thread, entry.value.pieces.names, timeout=TIMEOUT)
    assert found.missing == []
    by_name = {piece.name: piece.data for piece in found.pieces}
    data = b"".join(by_name[name] for name in entry.value.pieces.names)
    assert len(data) == entry.value.pieces.size
    return data


class TestPuts:
    async def test_what_it_brings_and_what_is_there_make_its_value(self, tenant: Tenant) -> None:
        await put(tenant, "1", b"one", b"two")
        await tenant.put(
            "2", versions={"a": "2"}, values={"a": in_pieces(b"two", b"three", b"two")}, pieces=[piece(b"three")]
        )
        assert await read(tenant, "1") == b"onetwo"
        assert await read(tenant, "2") == b"twothreetwo"
        assert await contents(tenant) == [b"one", b"three", b"two"]

    async def test_pieces_come_back_as_they_were_sent(self, tenant: Tenant) -> None:
        sent = Piece(piece(b"unpacked").name, b"as it was packed", 1)
        await tenant.put("1", versions={"a": "1"}, values={"a": in_pieces(b"unpacked")}, pieces=[sent])
        assert (await tenant.get()).pieces == [sent]

    @pytest.mark.parametrize("first", [True, False], ids=["the first put", "a later put"])
    async def test_one_that_lacks_pieces_stores_nothing_and_names_exactly_those(
        self, tenant: Tenant, first: bool
    ) -> None:
        if not first:
            await put(tenant, "1", b"one")
        before = await tenant.get(), await contents(tenant)
        with pytest.raises(PiecesMissing) as missing:
            await tenant.put(
                "2",
                versions={"a": "2", "b": "2"},
                values={"a": in_pieces(b"one", b"two", b"three", b"two"), "b": in_pieces(b"four")},
                pieces=[piece(b"three")],
            )
        lacking = [b"two", b"four"] if not first else [b"one", b"two", b"four"]
        assert sorted(missing.value.names) == sorted(names_of(*lacking))
        assert (await tenant.get(), await contents(tenant)) == before
        assert await tenant.ids() == ([] if first else ["1"])

    async def test_writes_that_lack_pieces_store_nothing_and_name_exactly_those(self, tenant: Tenant) -> None:
        await put(tenant, "1", b"one")
        sent = write("task", 0, "a", in_pieces(b"one", b"two")), write("task", 1, "b", b"small")
        with pytest.raises(PiecesMissing) as missing:
            await tenant.writes("1", *sent)
        assert set(missing.value.names) == names_of(b"two")
        assert (await tenant.read()).pending_writes == []
        await tenant.writes("1", *sent, pieces=[piece(b"two")])
        assert (await tenant.read()).pending_writes == list(sent)

    async def test_another_threads_pieces_are_missing(self, tenant: Tenant) -> None:
        await put(tenant, "1", b"one")
        with pytest.raises(PiecesMissing):
            await tenant.put("1", thread="u", versions={"a": "1"}, values={"a": in_pieces(b"one")})
        found = await tenant.store.get_pieces(tenant.name, "u", list(names_of(b"one")), timeout=TIMEOUT)
        assert (found.pieces, found.missing) == ([], list(names_of(b"one")))

    async def test_another_tenants_pieces_are_missing(self, tenant: Tenant) -> None:
        other = Tenant(tenant.store, tenant.name + "-other")
        await put(tenant, "1", b"one")
        with pytest.raises(PiecesMissing):
            await other.put("1", versions={"a": "1"}, values={"a": in_pieces(b"one")})
        found = await other.store.get_pieces(other.name, "t", list(names_of(b"one")), timeout=TIMEOUT)
        assert (found.pieces, found.missing) == ([], list(names_of(b"one")))
        await put(other, "1", b"one")
        await other.delete()
        assert await read(tenant) == b"one"

    async def test_one_that_conflicts_leaves_none_of_its_pieces(self, tenant: Tenant) -> None:
        await put(tenant, "1", b"one")
        with pytest.raises(VersionConflict):
            await put(tenant, "2", b"two", expect=1)
        with pytest.raises(VersionConflict):
            await tenant.writes("1", write("task", 0, "a", in_pieces(b"two")), pieces=[piece(b"two")], expect=1)
        assert await names(tenant) == names_of(b"one")
        assert await contents(tenant) == [b"one"]

    async def test_what_it_brings_and_does_not_refer_to_is_not_stored(self, tenant: Tenant) -> None:
        sent = [piece(b"one"), piece(b"stray")]
        await tenant.put("1", versions={"a": "1"}, values={"a": in_pieces(b"one")}, pieces=sent)
        await tenant.put("2", versions={"a": "2"}, values={"a": b"whole"}, pieces=sent)
        await tenant.writes("1", write("task", 0, "a", in_pieces(b"one")), pieces=sent)
        assert await contents(tenant) == [b"one"]

    async def test_many_that_bring_the_same_pieces_at_once_store_them_once(self, tenant: Tenant) -> None:
        parts = [b"%d" % number for number in range(100)]
        shuffled = [random.sample(parts, 60) for _ in range(12)]
        uploads = [upload(tenant, *some) for some in shuffled]
        puts = [put(tenant, f"{number:02}", *some, ns=f"ns{number}") for number, some in enumerate(shuffled)]
        assert not [error for error in await gather_results(*puts, *uploads) if isinstance(error, Exception)]
        assert len(await contents(tenant)) == len(set().union(*shuffled))
        for number, some in enumerate(shuffled):
            stored = await tenant.read(ns=f"ns{number}")
            assert await joined(tenant, stored, "t") == b"".join(some)

    async def test_many_pieces(self, tenant: Tenant) -> None:
        parts = [b"%d" % number for number in range(65_536)]
        for start in range(0, len(parts), 8192):
            await upload(tenant, *parts[start : start + 8192])
        await tenant.put("1", versions={"a": "1"}, values={"a": in_pieces(*parts)})
        (entry,) = (await tenant.read()).values
        assert entry.value == in_pieces(*parts)
        await tenant.prune("t")
        assert len(await names(tenant)) == 65_536
        await tenant.delete()
        assert await contents(tenant) == []


class TestReads:
    async def test_the_first_pieces_come_along_and_no_more_than_a_mebibyte(self, tenant: Tenant) -> None:
        parts = [bytes([number]) * (FIRST_BYTES // 4) for number in range(12)]
        await put(tenant, "1", *parts)
        got = await tenant.get()
        assert [found.data for found in got.pieces] == parts[:4]
        assert (await tenant.page(thread_id="t")).pieces == got.pieces
        namespace = Namespace(tenant.name, "t", "")
        without = await tenant.store.get_checkpoint(namespace, None, with_pieces=False, timeout=TIMEOUT)
        assert (without.checkpoint, without.pieces) == (got.checkpoint, [])

    async def test_as_many_are_read_as_fit_and_one_at_least(self, tenant: Tenant) -> None:
        parts = [bytes([number]) * (ANSWER_BYTES // 3) for number in range(5)]
        await put(tenant, "1", *parts)
        asked = [piece(part).name for part in parts]
        found = await tenant.store.get_pieces(tenant.name, "t", asked, timeout=TIMEOUT)
        assert [one.data for one in found.pieces] == parts[:3]
        await tenant.select(
            "UPDATE checkpointd.piece_contents SET data = repeat('x', 3 << 20)::bytea WHERE tenant = $1", tenant.name
        )
        found = await tenant.store.get_pieces(tenant.name, "t", asked, timeout=TIMEOUT)
        assert [one.name for one in found.pieces] == asked[:1]

    async def test_those_that_are_there_and_those_that_are_not(self, tenant: Tenant) -> None:
        await put(tenant, "1", b"one", b"two")
        asked = [piece(part).name for part in (b"no", b"two", b"neither", b"one")]
        found = await tenant.store.get_pieces(tenant.name, "t", asked, timeout=TIMEOUT)
        assert ([one.data for one in found.pieces], found.missing) == ([b"two", b"one"], asked[::2])

    async def test_history(self, tenant: Tenant) -> None:
        await put(tenant, "1", b"seed")
        await tenant.writes("1", write("task", 0, "a", in_pieces(b"write")), pieces=[piece(b"write")])
        await tenant.put("2", parent="1", versions={"a": "2"}, values={"a": None})
        history = await tenant.history("a")
        assert history.channels[0].seed == in_pieces(b"seed")
        assert [one.value for one in history.channels[0].writes] == [in_pieces(b"write")]
        assert {one.data for one in history.pieces} == {b"seed", b"write"}


class TestCopies:
    @pytest.mark.parametrize("at", [None, "2"], ids=["copy", "fork"])
    async def test_it_costs_names_and_no_contents(self, tenant: Tenant, at: str | None) -> None:
        for number in range(3):
            await put(
                tenant,
                str(number),
                *(b"%d" % n for n in range(number, number + 5)),
                parent=str(number - 1) if number else None,
            )
        await tenant.writes("2", write("task", 0, "a", in_pieces(b"written")), pieces=[piece(b"written")])
        before = await contents(tenant)
        await tenant.copy("t", "copy", at=at)
        assert await contents(tenant) == before
        assert await names(tenant, "copy") == await names(tenant)
        for number in range(3):
            assert await read(tenant, str(number), thread="copy") == await read(tenant, str(number))

    async def test_a_fork_has_names_for_what_it_refers_to_only(self, tenant: Tenant) -> None:
        await put(tenant, "1", b"one", b"both")
        await put(tenant, "2", b"two", b"both", parent="1")
        await tenant.copy("t", "fork", at="1")
        assert await names(tenant, "fork") == names_of(b"one", b"both")

    async def test_a_thread_with_nothing_but_writes(self, tenant: Tenant) -> None:
        await tenant.writes("1", write("task", 0, "a", in_pieces(b"written")), pieces=[piece(b"written")])
        await tenant.copy("t", "copy")
        assert await names(tenant, "copy") == names_of(b"written")

    @pytest.mark.parametrize("order", [("t", "copy"), ("copy", "t")], ids=["source first", "copy first"])
    async def test_each_may_be_deleted_without_the_other(self, tenant: Tenant, order: tuple[str, str]) -> None:
        await put(tenant, "1", b"one", b"two")
        await tenant.copy("t", "copy")
        await put(tenant, "2", b"two", b"more", thread=order[0])
        await tenant.delete(order[0])
        assert await names(tenant, order[0]) == set()
        assert await contents(tenant) == [b"one", b"two"]
        assert await read(tenant, thread=order[1]) == b"onetwo"
        await tenant.delete(order[1])
        assert await contents(tenant) == []

    async def test_deleted_both_at_once_they_leave_nothing(self, tenant: Tenant) -> None:
        for _ in range(10):
            await put(tenant, "1", *(b"%d" % n for n in range(50)))
            await asyncio.gather(*(tenant.copy("t", f"copy{number}") for number in range(4)))
            await asyncio.gather(tenant.delete(), *(tenant.delete(f"copy{number}") for number in range(4)))
            assert await contents(tenant) == []

    async def test_a_sweep_of_the_target_takes_no_name_that_the_copy_has_found_there(self, tenant: Tenant) -> None:
        """As after a deletion of the target by somebody else."""
        await put(tenant, "1", b"one", b"two", b"three")
        await tenant.copy("t", "copy")
        for table in ("namespaces", "checkpoints", "channel_values"):
            await tenant.select(
                f"DELETE FROM checkpointd.{table} WHERE tenant = $1 AND thread_id = 'copy'",
                tenant.name,
            )
        three = piece(b"three").name
        await tenant.select(
            "DELETE FROM checkpointd.pieces WHERE tenant = $1 AND thread_id = 'copy' AND digest = $2",
            tenant.name,
            three,
        )
        assert "copy" in await queued(tenant)
        last = """
            SELECT FROM checkpointd.piece_contents WHERE tenant = $1 ORDER BY content_id DESC LIMIT 1 FOR UPDATE
        """
        async with holding(tenant, last, tenant.name):
            copying = asyncio.ensure_future(tenant.copy("t", "copy"))
            await until_waiting(tenant, 1)
            sweeping = asyncio.ensure_future(tenant.store.collect_pieces())
            await until_waiting(tenant, 2)
        assert await copying == 1
        await sweeping
        assert await read(tenant, thread="copy") == b"onetwothree"

    async def test_a_copy_of_a_thread_that_is_being_deleted_is_whole_or_not_there(self, tenant: Tenant) -> None:
        parts = [b"%d" % n for n in range(500)]
        for number in range(15):
            await put(tenant, "1", *parts)
            copying = asyncio.ensure_future(tenant.copy("t", f"copy{number}"))
            await asyncio.sleep(0.001 * number)
            await tenant.delete()
            if await copying:
                assert await read(tenant, thread=f"copy{number}") == b"".join(parts)
            await tenant.delete(f"copy{number}")
        assert await contents(tenant) == []


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
        async with hasty(shared_options, 0.5) as store:
            own = Tenant(store, tenant.name)
            await upload(own, b"one", b"two")
            assert 0 < (await queued(own))["t"] <= 0.5
            await own.put("1", versions={"a": "1"}, values={"a": in_pieces(b"two")})
            await collect(own)
            assert await contents(own) == [b"one", b"two"]
            await until_collected(own, [b"two"])
            assert await queued(own) == {}
            assert await read(own) == b"two"

    async def test_each_upload_has_its_own_time(self, shared_options: StoreOptions, tenant: Tenant) -> None:
        async with hasty(shared_options, 1.0) as store:
            own = Tenant(store, tenant.name)
            await upload(own, b"one")
            await asyncio.sleep(0.7)
            await upload(own, b"two")
            await until_collected(own, [b"two"])
            assert 0 < (await queued(own))["t"] < 1.0
            await until_collected(own, [])
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
        lock = load_statements("checkpointd")["share_pieces"]
        async with holding(tenant, lock, tenant.name, "stuck"):
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr("checkpointd_server.store.postgres.COLLECT_TIMEOUT", 0.5)
                await collect(tenant)
        assert await names(tenant) == set()
        assert 500 < (await queued(tenant))["stuck"] <= 600
        await tenant.select("UPDATE checkpointd.piece_sweeps SET due_at = now() WHERE tenant = $1", tenant.name)
        await collect(tenant)
        assert await contents(tenant) == []


def hasty(options: StoreOptions, grace: float) -> AbstractAsyncContextManager[PostgresStore]:
    """Opens a store that spares what was sent ahead for this long only."""
    return open_store(StoreOptions(dsn=options.dsn, upload_grace=grace))


@asynccontextmanager
async def holding(tenant: Tenant, sql: str, *args: object, undo: bool = False) -> AsyncIterator[None]:
    """Runs a statement in a transaction that lasts as long as the context, and then is rolled back if wanted."""
    held, release = asyncio.Event(), asyncio.Event()

    async def work(session: Session) -> None:
        await session._connection.fetch(sql, *args)
        held.set()
        await release.wait()
        if undo:
            raise InterruptedError

    holder = asyncio.ensure_future(tenant.store._connections.of(tenant.name).transact(work, timeout=None))
    await held.wait()
    yield
    release.set()
    (result,) = await gather_results(holder)
    assert result is None or undo


async def until_waiting(tenant: Tenant, number: int) -> None:
    """Waits until so many statements wait for a lock."""
    query = """
        SELECT count(*) AS waiting FROM pg_stat_activity
        WHERE wait_event_type = 'Lock' AND datname = current_database()
    """
    async with asyncio.timeout(20):
        while (await tenant.select(query))[0]["waiting"] != number:
            await asyncio.sleep(0.01)


async def until_collected(tenant: Tenant, left: Sequence[bytes]) -> None:
    """Collects until these pieces are left."""
    async with asyncio.timeout(20):
        while await contents(tenant) != left:
            await collect(tenant)
            await asyncio.sleep(0.02)
