"""Reading one checkpoint, and what it costs."""

from __future__ import annotations

from typing import Any

from checkpointd_server.domain.values import KnownValue, Parts
from tests.support.tenant import Tenant, patch, uploaded, value, write


async def test_the_latest_has_the_greatest_id_not_the_last_put(tenant: Tenant) -> None:
    await tenant.put("2")
    version = await tenant.put("1")
    assert (await tenant.read()).checkpoint_id == "2"
    assert (await tenant.get()).version == version


async def test_ids_are_compared_bytewise(tenant: Tenant) -> None:
    for checkpoint_id in ("a", "B", "\U0001f600", "\uffee", "ab"):
        await tenant.put(checkpoint_id)
    assert await tenant.ids() == ["B", "a", "ab", "\uffee", "\U0001f600"]
    assert (await tenant.read()).checkpoint_id == "\U0001f600"


async def test_absence_is_an_answer(tenant: Tenant) -> None:
    assert await tenant.get() == (None, 0, [])
    assert await tenant.get("1") == (None, 0, [])
    version = await tenant.put("1")
    assert await tenant.get("2") == (None, version, [])


async def test_nobody_reads_another_tenants_checkpoints(tenant: Tenant) -> None:
    other = Tenant(tenant.store, tenant.name + "x")
    await tenant.put("1", versions={"a": "1"}, values={"a": b"A"}, metadata={"run_id": "r"})
    await tenant.writes("1", write("task", 0, "a", b""))
    assert await other.get() == (None, 0, [])
    assert await other.listed() == []
    assert await other.delete() == 0
    assert await other.delete_runs("r") == 0
    assert await other.copy("t", "copy") == 0
    assert await other.prune("t") == 0
    assert len((await tenant.read()).pending_writes) == 1


async def test_neither_values_nor_writes_of_another_namespace_are_read(tenant: Tenant) -> None:
    for thread, ns in (("t", ""), ("t", "child"), ("other", "")):
        await tenant.put("1", thread=thread, ns=ns, versions={"a": "1"}, values={"a": (thread + ns).encode()})
        await tenant.writes("1", write("task", 0, "a", (thread + ns).encode()), thread=thread, ns=ns)
    for thread, ns in (("t", ""), ("t", "child"), ("other", "")):
        assert await tenant.values(thread=thread, ns=ns) == {"a": (thread + ns).encode()}
        assert [w.value.data for w in (await tenant.read(thread=thread, ns=ns)).pending_writes] == [
            (thread + ns).encode()
        ]


async def test_large_values_come_back(tenant: Tenant) -> None:
    data = bytes(range(256)) * 2000
    await tenant.put("1", versions={"a": "1", "b": "1"}, values={"a": data, "b": data[1:]}, body=data)
    stored = await tenant.read()
    assert stored.body == data
    assert await tenant.value("a", "1", part=300_000) == data
    assert await tenant.value("b", "1", part=300_000) == data[1:]


class TestChains:
    """Values that are patches on earlier versions of their channel."""

    async def test_the_rows_of_a_value_are_all_that_it_is_built_on(self, tenant: Tenant) -> None:
        await tenant.put("1", versions={"a": "1", "b": "1"}, values={"a": b"whole", "b": b"B"})
        for n in range(2, 6):
            versions = {"a": str(n), "b": "1"}
            await tenant.put(str(n), versions=versions, values={"a": patch(str(n - 1), b"v%d" % n)})
        rows = await tenant.rows()
        assert set(rows) == {("a", str(n)) for n in range(1, 6)} | {("b", "1")}
        assert rows["a", "5"] == patch("4", b"v5")
        assert set(await tenant.rows("2")) == {("a", "2"), ("a", "1"), ("b", "1")}

    async def test_what_is_known_is_left_out_with_all_below_it(self, tenant: Tenant) -> None:
        await tenant.put("1", versions={"a": "1", "b": "1"}, values={"a": b"whole", "b": b"B"})
        for n in range(2, 6):
            versions = {"a": str(n), "b": "1"}
            await tenant.put(str(n), versions=versions, values={"a": patch(str(n - 1), b"")})
        cases: list[tuple[list[Any], set[Any]]] = [
            ([("a", "5"), ("b", "1")], set()),
            ([("a", "3"), ("b", "1"), ("c", "1")], {("a", "5"), ("a", "4")}),
            ([("a", "1")], {("a", "5"), ("a", "4"), ("a", "3"), ("a", "2"), ("b", "1")}),
            ([("a", "9"), ("b", "5")], {*((("a", str(n))) for n in range(1, 6)), ("b", "1")}),
            # With another checksum it is another value.
            ([("a", "5", 1), ("b", "1")], {("a", str(n)) for n in range(1, 6)}),
            ([("a", "3", 1), ("b", "1", 1)], {*((("a", str(n))) for n in range(1, 6)), ("b", "1")}),
        ]
        for known, expected in cases:
            keys = [KnownValue(*key) for key in known]
            assert set(await tenant.rows(known=keys)) == expected

    async def test_what_is_known_by_another_checksum_is_something_else(self, tenant: Tenant) -> None:
        whole = value(b"whole")._replace(crc32=7)
        await tenant.put("1", versions={"a": "1"}, values={"a": whole})
        await tenant.put("2", versions={"a": "2"}, values={"a": patch("1", b"v2")})
        both = {("a", "1"), ("a", "2")}
        own = (await tenant.rows())["a", "2"].patch
        assert own is not None
        for known, expected in (
            (KnownValue("a", "2", own.crc32), set()),
            (KnownValue("a", "2", own.crc32 + 1), both),
            (KnownValue("a", "2"), both),
            (KnownValue("a", "1", 7), {("a", "2")}),
            (KnownValue("a", "1", 8), both),
        ):
            assert set(await tenant.rows(known=[known])) == expected

    async def test_a_list_has_each_row_once(self, tenant: Tenant) -> None:
        await tenant.put("1", versions={"a": "1", "b": "1"}, values={"a": b"whole", "b": b"B"})
        for n in range(2, 6):
            versions = {"a": str(n), "b": "1"}
            await tenant.put(str(n), versions=versions, values={"a": patch(str(n - 1), b"")})
        page = await tenant.page(thread_id="t")
        assert len(page.checkpoints) == 5
        assert {(row.position, row.channel, row.version) for row in page.values} == {
            (0, "b", "1"),
            *((0, "a", str(n)) for n in range(1, 6)),
        }
        assert len(page.values) == 6


class TestWhatIsTooLarge:
    """Values and task writes that don't fit into an answer are left out, the largest first."""

    LIMIT = 512 * 1024

    async def test_the_largest_is_left_out_and_read_apart(self, tenant: Tenant) -> None:
        large = b"x" * (self.LIMIT + 1)
        await tenant.put("1", versions={"a": "1", "b": "1"}, values={"a": large, "b": b"B"})
        rows = await tenant.rows()
        assert rows["a", "1"].parts == Parts(b"", len(large))
        assert rows["b", "1"].data == b"B"
        assert await tenant.value("a", "1", part=100_000) == large
        assert await tenant.value("a", "2") is None

    async def test_many_small_ones_stay_and_the_larger_ones_go(self, tenant: Tenant) -> None:
        values: dict[str, bytes] = {f"large{n}": b"x" * 200_000 for n in range(4)} | {f"z{n}": b"y" for n in range(50)}
        await tenant.put("1", versions=dict.fromkeys(values, "1"), values=values)
        rows = await tenant.rows()
        sent = {channel for (channel, _), row in rows.items() if row.parts is None}
        assert len([channel for channel in sent if channel.startswith("large")]) == 2
        assert len(sent) == 52

    async def test_task_writes_share_the_limit_with_values(self, tenant: Tenant) -> None:
        await tenant.put("1", versions={"a": "1"}, values={"a": b"x" * 300_000})
        written = [write("task", n, "c", b"w" * 100_000) for n in range(4)] + [write("z", 0, "c", b"small")]
        await tenant.writes("1", *written)
        stored = (await tenant.read()).pending_writes
        assert [(w.task_id, w.idx) for w in stored] == [(w.task_id, w.idx) for w in written]
        assert [w.value.parts for w in stored].count(Parts(b"", 100_000)) == 2
        assert stored[-1].value.data == b"small"
        assert await tenant.written("1", "task", 3, part=33_333) == b"w" * 100_000
        assert await tenant.written("1", "task", 9) is None

    async def test_what_was_uploaded_is_read_in_ranges(self, tenant: Tenant) -> None:
        parts = [bytes([n]) * (700 + 300 * n) for n in range(5)]
        whole = b"".join(parts)
        await tenant.upload(b"value", *parts)
        await tenant.upload(b"write", *parts[:2])
        await tenant.put("1", versions={"a": "1"}, values={"a": uploaded(b"value", len(whole))})
        await tenant.writes("1", write("task", 0, "a", uploaded(b"write", 1700)))
        assert (await tenant.rows())["a", "1"].parts == Parts(b"", len(whole))
        assert (await tenant.read()).pending_writes[0].value.parts == Parts(b"", 1700)
        assert await tenant.value("a", "1") == whole
        assert await tenant.written("1", "task", 0) == whole[:1700]
        for offset, length in ((0, 1), (699, 2), (1000, 5000), (len(whole) - 1, 10), (len(whole), 10), (10**12, 10)):
            found = await tenant.value_range("a", "1", offset, length)
            assert found.data == whole[offset : offset + length]
            assert found.size == len(whole)
