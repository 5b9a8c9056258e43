"""Values as patches: their bases, the length of their chains, and what outlives them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from checkpointd_server.domain.checkpoints import Namespace
from checkpointd_server.domain.errors import BaseMissing, ChainTooLong, InvalidArgument, ThreadExists
from checkpointd_server.domain.limits import Limits
from checkpointd_server.domain.values import KnownValue, Patch, TaskWriteKey, TypedValue, ValueRange
from checkpointd_server.store import StoreOptions, open_store
from tests.support.tenant import Tenant, gather_results, patch, value, write


async def chain(tenant: Tenant, last: int, *, thread: str = "t", first: int = 1) -> None:
    """Puts checkpoints whose channel "a" is a patch on the previous one, except for the first."""
    for n in range(first, last + 1):
        changed = b"v1" if n == first else patch(f"{n - 1}", b"v%d" % n)
        await tenant.put(f"{n}", thread=thread, parent=f"{n - 1}", versions={"a": f"{n}"}, values={"a": changed})


class TestTheBase:
    async def test_must_be_stored(self, tenant: Tenant) -> None:
        await chain(tenant, 1)
        await tenant.put("other", ns="n", versions={"a": "9", "b": "9"}, values={"a": b"", "b": b""})
        for base in ("2", "9", ""):
            with pytest.raises(BaseMissing) as missing:
                await tenant.put("2", versions={"a": "2"}, values={"a": patch(base, b"v2")})
            assert (missing.value.thread_id, missing.value.channel) == ("t", "a")
        with pytest.raises(BaseMissing):  # "b" has no version 1
            await tenant.put("2", versions={"a": "2", "b": "1"}, values={"a": b"", "b": patch("1", b"")})
        assert await tenant.ids() == ["1"]
        assert await tenant.stored_values() == {("a", "1")}

    async def test_must_be_as_long_as_the_instructions_reach(self, tenant: Tenant) -> None:
        await tenant.put("1", versions={"a": "1"}, values={"a": b"12345"})
        await tenant.put("2", versions={"a": "2"}, values={"a": patch("1", b"123", reach=5)})
        # The value's length counts, not that of the instructions.
        await tenant.put("3", versions={"a": "3"}, values={"a": patch("2", b"12", reach=3)})
        for base, reach in (("1", 6), ("2", 4), ("3", 3)):
            with pytest.raises(BaseMissing):
                await tenant.put("4", versions={"a": "4"}, values={"a": patch(base, b"", reach=reach)})

    async def test_must_be_the_one_that_is_meant(self, tenant: Tenant) -> None:
        """The put names the base's checksum: a version may have been used twice."""
        await tenant.put("1", versions={"a": "1"}, values={"a": value(b"12345")._replace(crc32=7)})
        for n, crc32 in ((2, 8), (3, 7)):
            base = patch("1", b"123")
            assert base.patch is not None
            changed = base._replace(patch=base.patch._replace(base_crc32=crc32))
            put = tenant.put(f"{n}", versions={"a": f"{n}"}, values={"a": changed})
            if crc32 == 7:
                await put
            else:
                with pytest.raises(BaseMissing):
                    await put

    async def test_can_not_be_the_value_itself(self, tenant: Tenant) -> None:
        for _ in range(2):
            with pytest.raises(BaseMissing):
                await tenant.put("1", versions={"a": "1"}, values={"a": patch("1", b"x")})
            await tenant.put("1", versions={"a": "1"}, values={"a": b"whole"})

    async def test_may_come_in_the_same_commit(self, tenant: Tenant) -> None:
        run = {"writer": b"me"}
        results = await gather_results(
            tenant.put("1", versions={"a": "1"}, values={"a": b"whole"}, **run),  # type: ignore[arg-type]
            *(
                tenant.put(
                    f"{n}",
                    versions={"a": f"{n}"},
                    values={"a": patch(f"{n - 1}", b"v%d" % n)},
                    expect_writer=b"me",
                    expect_last=f"{n - 1}",
                    writer=b"me",
                )
                for n in range(2, 10)
            ),
        )
        assert results == sorted(results)
        assert set(await tenant.rows()) == {("a", f"{n}") for n in range(1, 10)}


class TestTheChain:
    async def test_has_an_end(self, own_options: StoreOptions) -> None:
        options = replace(own_options, limits=Limits(max_chain=3))
        async with open_store(options) as store:
            tenant = Tenant(store, "tenant")
            await chain(tenant, 4)
            with pytest.raises(ChainTooLong) as too_long:
                await tenant.put("5", versions={"a": "5"}, values={"a": patch("4", b"v5")})
            assert (too_long.value.thread_id, too_long.value.channel, too_long.value.limit) == ("t", "a", 3)
            assert await tenant.ids() == ["1", "2", "3", "4"]
            # From an earlier version in the chain, and from a whole value, it continues.
            await tenant.put("5", versions={"a": "5"}, values={"a": patch("3", b"v5")})
            await tenant.put("6", versions={"a": "6"}, values={"a": b"whole"})
            await tenant.put("7", versions={"a": "7"}, values={"a": patch("6", b"v7")})

    async def test_has_an_end_in_a_commit_too(self, own_options: StoreOptions) -> None:
        options = replace(own_options, limits=Limits(max_chain=3))
        async with open_store(options) as store:
            tenant = Tenant(store, "tenant")
            await chain(tenant, 2)
            results = await gather_results(
                *(
                    tenant.put(f"{n}", versions={"a": f"{n}"}, values={"a": patch(f"{n - 1}", b"v%d" % n)})
                    for n in range(3, 7)
                )
            )
            assert [type(result) for result in results] == [int, int, ChainTooLong, BaseMissing]
            assert await tenant.ids() == ["1", "2", "3", "4"]


class TestWhatOutlivesIt:
    async def test_pruning_keeps_what_kept_versions_are_built_on(self, tenant: Tenant) -> None:
        await chain(tenant, 5)
        await tenant.put("6", parent="5", versions={"a": "6"}, values={"a": b"whole"})
        await tenant.put("7", parent="6", versions={"a": "7"}, values={"a": patch("6", b"v7")})
        await tenant.prune("t")
        assert await tenant.ids() == ["7"]
        assert set(await tenant.rows()) == await tenant.stored_values() == {("a", "7"), ("a", "6")}

    async def test_so_does_the_deletion_of_runs(self, tenant: Tenant) -> None:
        for n in range(1, 5):
            changed = b"v1" if n == 1 else patch(f"{n - 1}", b"v%d" % n)
            await tenant.put(f"{n}", versions={"a": f"{n}"}, values={"a": changed}, metadata={"run_id": f"r{n % 2}"})
        await tenant.delete_runs("r1")
        assert await tenant.ids() == ["2", "4"]
        assert set(await tenant.rows("4")) == {("a", f"{n}") for n in range(1, 5)}
        await tenant.delete_runs("r0")
        assert await tenant.stored_values() == set()

    async def test_a_copy_has_the_whole_chain(self, tenant: Tenant) -> None:
        await chain(tenant, 5)
        await tenant.copy("t", "fork", at="3")
        await tenant.delete("t")
        assert set(await tenant.rows("3", thread="fork")) == {("a", "1"), ("a", "2"), ("a", "3")}
        assert await tenant.stored_values(thread="fork") == {("a", "1"), ("a", "2"), ("a", "3")}
        await tenant.put("4", thread="fork", versions={"a": "4"}, values={"a": patch("3", b"v4")})

    async def test_another_value_at_the_base_s_version_changes_nothing_that_is_built_on_it(
        self, tenant: Tenant
    ) -> None:
        """Versions that others make may be used twice, for example plain numbers in a fork."""
        await chain(tenant, 3)
        before = await tenant.rows("3")
        await tenant.put("2b", parent="1", versions={"a": "2"}, values={"a": b"another"})
        after = await tenant.rows("3")
        assert len(after) == 3
        bases = []
        value = after["a", "3"]
        while value.patch is not None:
            bases.append(value.data)
            value = after["a", value.patch.base_version]
        assert bases == [before["a", "3"].data, before["a", "2"].data]
        assert value == before["a", "1"]
        assert await tenant.values("2b") == {"a": b"another"}
        # An empty one changes nothing either.
        await tenant.put("1b", versions={"a": "1"}, values={"a": None})
        assert len(await tenant.rows("3")) == 3
        assert await tenant.rows("1b") == {}
        # Values on which nothing is built any more are deleted.
        await tenant.put("1", versions={"a": "1"}, values={"a": None})
        await tenant.prune("t")
        assert await tenant.stored_values() == {("a", version) for _, version in await tenant.rows()}

    async def test_the_same_value_sent_again_stays_as_it_is(self, tenant: Tenant) -> None:
        await chain(tenant, 3)
        await tenant.put("2", parent="1", versions={"a": "2"}, values={"a": patch("1", b"v2")})
        assert await tenant.stored_values() == {("a", "1"), ("a", "2"), ("a", "3")}


class TestTaskWrites:
    """A large task write is a patch on its channel's value."""

    async def test_come_back_as_they_were_put_with_what_they_are_built_on(self, tenant: Tenant) -> None:
        await chain(tenant, 3)
        await tenant.put("other", parent="3", versions={"a": "9"}, values={"a": b"whole"})
        ours = patch("3", b"written")
        sealed = TypedValue("msgpack+aes", b"sealed", Patch("1", 9, 7, True))
        await tenant.writes("3", write("x", 0, "a", ours), write("x", 1, "a", b"whole"), write("y", 0, "a", sealed))
        await tenant.writes("other", write("x", 0, "a", ours))
        bases = {("a", "1"), ("a", "2"), ("a", "3")}
        assert [entry.value for entry in (await tenant.read("3")).pending_writes] == [ours, value(b"whole"), sealed]
        assert set(await tenant.rows("3")) == bases
        # The same with a checkpoint that has other values.
        assert (await tenant.read("other")).pending_writes[0].value == ours
        assert set(await tenant.rows("other")) == {*bases, ("a", "9")}
        # Rows that the reader has are left out.
        crc32 = (await tenant.rows("3"))["a", "3"].patch
        assert crc32 is not None
        known = [KnownValue("a", "3", crc32.crc32), KnownValue("a", "1")]
        assert await tenant.rows("3", known=known) == {}
        assert set(await tenant.rows("other", known=known)) == {("a", "9")}
        page = await tenant.page(thread_id="t", checkpoint_ns="")
        assert [w.value for c in page.checkpoints for w in c.pending_writes] == [ours, ours, value(b"whole"), sealed]
        assert sorted(row.version for row in page.values) == ["1", "2", "3", "9"]
        read = await tenant.store.get_value(
            Namespace(tenant.name, "t", ""), TaskWriteKey("3", "x", 0), offset=2, max_bytes=2, timeout=60
        )
        assert read == ValueRange(b"tc", 5, "a", ours._replace(data=b"", patch=ours.patch))

    async def test_histories_bring_what_they_are_built_on(self, tenant: Tenant) -> None:
        await tenant.put("0", versions={"a": "1", "b": "1"}, values={"a": b"seed", "b": b"seed"})
        for n in range(1, 5):
            await tenant.writes(f"{n - 1}", write("x", 0, "a", patch("1", b"w%d" % n)), write("x", 1, "b", b"%d" % n))
            await tenant.put(f"{n}", parent=f"{n - 1}", versions={"a": f"{n + 1}", "b": f"{n + 1}"})
        for page_bytes in (1_000_000, 200, 1):
            found = await tenant.whole_history("a", "b", at="4", page_bytes=page_bytes)
            assert found["a"][1] == found["b"][1] == b"seed"
            assert [entry.value for entry in found["a"][0]] == [patch("1", b"w%d" % n) for n in range(1, 5)]
            assert [entry.value.data for entry in found["b"][0]] == [b"%d" % n for n in range(1, 5)]
        after, pages = None, []
        while True:
            page = await tenant.history("a", at="4", after=after, page_bytes=200)
            pages.append(page)
            assert page.channels[0].writes == [] or [row.version for row in page.values] == ["1"]
            after = page.after
            if after is None:
                break
        assert len(pages) > 1

    async def test_their_base_must_be_there_and_the_one_that_is_meant(self, tenant: Tenant) -> None:
        await tenant.put("1", versions={"a": "1", "b": "1"}, values={"a": value(b"12345")._replace(crc32=7), "b": b""})
        another = patch("1", b"123")
        assert another.patch is not None
        for wrong in (
            patch("2", b"x"),
            patch("1", b"123", reach=6),
            another._replace(patch=another.patch._replace(base_crc32=8)),
        ):
            with pytest.raises(BaseMissing) as missing:
                await tenant.writes("1", write("x", 0, "b", b"fine"), write("x", 1, "a", wrong))
            assert (missing.value.thread_id, missing.value.channel) == ("t", "a")
        with pytest.raises(BaseMissing):
            await tenant.writes("1", write("x", 0, "c", patch("1", b"")))
        assert (await tenant.read("1")).pending_writes == []
        right = another._replace(patch=another.patch._replace(base_crc32=7, reach=5))
        await tenant.writes("1", write("x", 1, "a", right), request_id=b"r")
        # Sent again after a lost answer.
        await tenant.writes("1", write("x", 1, "a", right), request_id=b"r")
        assert await tenant.written_bases() == {("1", "x", 1): "1"}

    async def test_lie_at_the_end_of_chains_that_are_bounded(self, own_options: StoreOptions) -> None:
        options = replace(own_options, limits=Limits(max_chain=3))
        async with open_store(options) as store:
            tenant = Tenant(store, "tenant")
            await chain(tenant, 4)
            with pytest.raises(ChainTooLong) as too_long:
                await tenant.writes("4", write("x", 0, "a", patch("4", b"v5")))
            assert (too_long.value.thread_id, too_long.value.channel, too_long.value.limit) == ("t", "a", 3)
            await tenant.writes("4", write("x", 0, "a", patch("3", b"v5")))

    async def test_share_a_commit_with_the_put_that_brings_their_base(self, tenant: Tenant) -> None:
        run = {"expect_writer": b"me", "writer": b"me"}
        results = await gather_results(
            tenant.put("1", versions={"a": "1"}, values={"a": b"v1"}, writer=b"me"),
            tenant.writes("1", write("x", 0, "a", patch("1", b"w1")), expect_writer=b"me", expect_last="1"),
            tenant.put("2", versions={"a": "2"}, values={"a": patch("1", b"v2")}, expect_last="1", **run),  # type: ignore[arg-type]
            tenant.writes("2", write("x", 0, "a", patch("2", b"w2")), expect_writer=b"me", expect_last="2"),
            tenant.writes("2", write("y", 0, "a", patch("0", b"no")), expect_writer=b"me", expect_last="2"),
            tenant.writes("2", write("z", 0, "a", patch("3", b"no")), expect_writer=b"me", expect_last="2"),
            tenant.put("3", versions={"a": "3"}, values={"a": patch("2", b"v3")}, expect_last="2", **run),  # type: ignore[arg-type]
        )
        assert [type(result) for result in results] == [int, int, int, int, BaseMissing, BaseMissing, int]
        assert await tenant.written_bases() == {("1", "x", 0): "1", ("2", "x", 0): "2"}
        assert [w.value for w in (await tenant.read("2")).pending_writes] == [patch("2", b"w2")]

    async def test_stay_on_their_base_when_another_value_takes_its_version(self, tenant: Tenant) -> None:
        await tenant.put("1", versions={"a": "1"}, values={"a": b"first"})
        await tenant.writes("1", write("x", 0, "a", patch("1", b"w1")))
        results = await gather_results(
            tenant.writes("1", write("y", 0, "a", patch("1", b"w2"))),
            tenant.put("1b", versions={"a": "1"}, values={"a": b"second"}),
            tenant.writes("1b", write("x", 0, "a", patch("1", b"w3"))),
            tenant.put("1c", versions={"a": "1"}, values={"a": None}),
        )
        assert all(isinstance(result, int) for result in results)

        async def base_of(checkpoint_id: str, place: int) -> bytes:
            written = (await tenant.read(checkpoint_id)).pending_writes[place].value
            assert written.patch is not None
            return (await tenant.rows(checkpoint_id))["a", written.patch.base_version].data

        assert [await base_of("1", 0), await base_of("1", 1), await base_of("1b", 0)] == [b"first", b"first", b"second"]
        with pytest.raises(BaseMissing):
            await tenant.writes("1c", write("x", 0, "a", patch("1", b"w4")))
        # A base that a later group empties before a write builds on it isn't there either.
        results = await gather_results(
            tenant.put("2", versions={"a": "2"}, values={"a": b"v2"}),
            tenant.put("3", versions={"a": "2"}, values={"a": None}),
            tenant.writes("3", write("x", 0, "a", patch("2", b"w5"))),
        )
        assert [type(result) for result in results] == [int, int, BaseMissing]

    async def test_keep_what_they_are_built_on_through_prunings_and_deletions(self, tenant: Tenant) -> None:
        for n in range(1, 6):
            changed = b"v1" if n == 1 else patch(f"{n - 1}", b"v%d" % n)
            await tenant.put(
                f"{n}", parent=f"{n - 1}", versions={"a": f"{n}"}, values={"a": changed}, metadata={"run_id": f"r{n}"}
            )
        await tenant.put("6", parent="5", versions={"a": "6"}, values={"a": b"v6"})
        await tenant.writes("1", write("x", 0, "a", patch("5", b"w1")))
        await tenant.writes("6", write("x", 0, "a", patch("2", b"w2")))
        await tenant.writes("7", write("x", 0, "a", patch("3", b"to come")))
        await tenant.delete_runs("r1", "r4")
        assert await tenant.stored_values() == {("a", f"{n}") for n in range(1, 7)}
        await tenant.prune("t")
        assert await tenant.ids() == ["6"]
        assert await tenant.stored_values() == {("a", "1"), ("a", "2"), ("a", "3"), ("a", "6")}
        assert set(await tenant.rows("6")) == {("a", "1"), ("a", "2"), ("a", "6")}
        await tenant.put("7", parent="6", versions={"a": "7"}, values={"a": b"v7"})
        assert set(await tenant.rows("7")) == {("a", "1"), ("a", "2"), ("a", "3"), ("a", "7")}
        await tenant.put("8", parent="7", versions={"a": "8"}, values={"a": b"v8"})
        await tenant.prune("t")
        assert await tenant.stored_values() == {("a", "8")}
        assert await tenant.written_bases() == {}

    async def test_are_copied_with_what_they_are_built_on(self, tenant: Tenant) -> None:
        await chain(tenant, 5)
        for n, base in ((1, "5"), (2, "1"), (4, "3"), (5, "5")):
            await tenant.writes(f"{n}", write("x", 0, "a", patch(base, b"w%d" % n)))
        await tenant.copy("t", "all")
        await tenant.copy("t", "fork", at="2")
        await tenant.copy("t", "early", at="1")
        before = [(await tenant.read(f"{n}")).pending_writes for n in (1, 2, 4, 5)]
        await tenant.delete("t")
        assert [(await tenant.read(f"{n}", thread="all")).pending_writes for n in (1, 2, 4, 5)] == before
        # Writes beside the fork's latest checkpoint aren't copied: the fork makes them itself.
        assert await tenant.written_bases(thread="fork") == {("1", "x", 0): "5"}
        assert set(await tenant.rows("1", thread="fork")) == {("a", f"{n}") for n in range(1, 6)}
        assert await tenant.stored_values(thread="early") == {("a", "1")}
        await tenant.prune("fork")
        assert await tenant.stored_values(thread="fork") == {("a", "1"), ("a", "2")}

    async def test_are_copied_where_their_checkpoint_is_gone(self, tenant: Tenant) -> None:
        await tenant.put("1", versions={"a": "1"}, values={"a": b"v1"}, metadata={"run_id": "r"})
        await tenant.writes("2", write("x", 0, "a", patch("1", b"w2")))
        await tenant.delete_runs("r")
        for _ in range(2):
            assert await tenant.copy("t", "copy", request_id=b"once") == 0
        with pytest.raises(ThreadExists):
            await tenant.copy("t", "copy", request_id=b"twice")
        await tenant.put("2", thread="copy", versions={"b": "1"}, values={"b": b""})
        assert set(await tenant.rows("2", thread="copy")) == {("a", "1"), ("b", "1")}

    async def test_are_no_more_than_can_be_read_with_their_bases(self, own_options: StoreOptions) -> None:
        """Each may have a separate chain, whose names are read with it."""
        options = replace(own_options, limits=Limits(max_written_bytes=40_000))
        async with open_store(options) as store:
            tenant = Tenant(store, "tenant")
            await chain(tenant, 31)
            results = [
                await gather_results(
                    *(
                        tenant.writes("31", write(f"{n}", 0, "a", patch(f"{n % 31 + 1}", b"w")))
                        for n in range(start, start + 50)
                    )
                )
                for start in range(0, 200, 50)
            ]
            refused = [result for batch in results for result in batch if not isinstance(result, int)]
            assert refused
            assert all(isinstance(error, InvalidArgument) and error.field == "writes" for error in refused)
            # A base that all of them share is read once.
            for n in range(100):
                await tenant.writes("1", write(f"{n}", 0, "a", patch("31", b"w")))
            assert len(await tenant.rows("1")) == 31


async def test_a_sealed_patch_comes_back_as_it_was_put(tenant: Tenant) -> None:
    sealed = TypedValue("msgpack+aes", b"sealed", Patch("1", 9, 0, True))
    await tenant.put("1", versions={"a": "1"}, values={"a": b"whole"})
    await tenant.put("2", versions={"a": "2"}, values={"a": sealed})
    assert (await tenant.rows())["a", "2"] == sealed
