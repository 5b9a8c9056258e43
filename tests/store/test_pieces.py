"""Pieces of large values: held for what refers to them, shared with copies, and gone when nothing refers to them."""

from __future__ import annotations

import asyncio
import random

import pytest

from checkpointd_server.domain.errors import PiecesMissing, VersionConflict
from checkpointd_server.domain.model import Namespace, Piece
from checkpointd_server.store.pieces import ANSWER_BYTES, FIRST_BYTES
from tests.store.pieces import (
    contents,
    holding,
    joined,
    names,
    names_of,
    put,
    queued,
    read,
    until_waiting,
    upload,
)
from tests.support.tenant import TIMEOUT, Tenant, gather_results, in_pieces, piece, write


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
