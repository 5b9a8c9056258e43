"""Values as patches: what they may be built on, how many may follow one another, and what outlives them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from checkpointd_server.domain.errors import BaseMissing, ChainTooLong
from checkpointd_server.domain.limits import Limits
from checkpointd_server.domain.values import Patch, TypedValue
from checkpointd_server.store import StoreOptions, open_store
from tests.support.tenant import Tenant, gather_results, patch, value


async def chain(tenant: Tenant, last: int, *, thread: str = "t", first: int = 1) -> None:
    """Checkpoints whose channel "a" is a patch on the one before, but for the first."""
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
        # What counts is the value, not the bytes of the instructions.
        await tenant.put("3", versions={"a": "3"}, values={"a": patch("2", b"12", reach=3)})
        for base, reach in (("1", 6), ("2", 4), ("3", 3)):
            with pytest.raises(BaseMissing):
                await tenant.put("4", versions={"a": "4"}, values={"a": patch(base, b"", reach=reach)})

    async def test_must_be_the_one_that_is_meant(self, tenant: Tenant) -> None:
        """Whose checksum the put tells: a version may have come up twice."""
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
            # From another place on it, and from a whole value, it goes on.
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
        """Versions that aren't of our making may come up twice, as in a fork of numbered ones."""
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
        # And so does an empty one.
        await tenant.put("1b", versions={"a": "1"}, values={"a": None})
        assert len(await tenant.rows("3")) == 3
        assert await tenant.rows("1b") == {}
        # What nothing is built on any more goes.
        await tenant.put("1", versions={"a": "1"}, values={"a": None})
        await tenant.prune("t")
        assert await tenant.stored_values() == {("a", version) for _, version in await tenant.rows()}

    async def test_the_same_value_sent_again_stays_as_it_is(self, tenant: Tenant) -> None:
        await chain(tenant, 3)
        await tenant.put("2", parent="1", versions={"a": "2"}, values={"a": patch("1", b"v2")})
        assert await tenant.stored_values() == {("a", "1"), ("a", "2"), ("a", "3")}


async def test_a_sealed_patch_comes_back_as_it_was_put(tenant: Tenant) -> None:
    sealed = TypedValue("msgpack+aes", b"sealed", Patch("1", 9, 0, True))
    await tenant.put("1", versions={"a": "1"}, values={"a": b"whole"})
    await tenant.put("2", versions={"a": "2"}, values={"a": sealed})
    assert (await tenant.rows())["a", "2"] == sealed
