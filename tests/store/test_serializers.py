"""A thread keeps the family of the serializer that it was first written with, and refuses writes of the other."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from checkpointd_server.domain.checkpoints import Namespace, PutCheckpoint, PutWrites
from checkpointd_server.domain.errors import BaseMissing, SerializerMismatch, ThreadNotFound, VersionConflict
from checkpointd_server.domain.serializers import SerializerFamily, family_of_metadata, family_of_writes
from checkpointd_server.domain.threads import PruneStrategy
from checkpointd_server.domain.values import TypedValue
from checkpointd_server.store import StoreOptions, open_store
from tests.support.tenant import TIMEOUT, Tenant, expectation, patch, write

MSGPACK, JSON, OTHER = SerializerFamily.LANGGRAPH_MSGPACK, SerializerFamily.LANGGRAPH_JSON, SerializerFamily.OTHER


def a_put(tenant: Tenant, checkpoint_id: str, type_tag: str, **more: Any) -> PutCheckpoint:
    """A checkpoint whose metadata has a type."""
    return replace(tenant.a_put(checkpoint_id, **more), metadata=TypedValue(type_tag, b"{}"))


def some_writes(tenant: Tenant, family: SerializerFamily | None, *, ns: str = "", task: str = "task") -> PutWrites:
    """Task writes of a serializer."""
    written = [write(task, 0, "a", TypedValue("bytes", b"x"))]
    place = Namespace(tenant.name, "t", ns)
    return PutWrites(namespace=place, checkpoint_id="c", writes=written, serializer=family)


async def put(tenant: Tenant, checkpoint_id: str, type_tag: str, **more: Any) -> int:
    return await tenant.store.write(a_put(tenant, checkpoint_id, type_tag, **more), timeout=TIMEOUT)


async def put_writes(tenant: Tenant, family: SerializerFamily | None, **more: Any) -> int:
    return await tenant.store.write(some_writes(tenant, family, **more), timeout=TIMEOUT)


async def family_of(tenant: Tenant, thread: str = "t") -> SerializerFamily | None:
    return (await tenant.store.get_thread(tenant.name, thread, timeout=TIMEOUT)).serializer


@pytest.mark.parametrize(
    ("type_tag", "family"),
    [
        ("msgpack", MSGPACK),
        ("pickle", MSGPACK),
        ("msgpack+aes", MSGPACK),
        ("msgpack+cpd1.2026-11", MSGPACK),
        ("json", JSON),
        ("json+cpd1.key", JSON),
        ("zstd", OTHER),
        ("msgpack2", OTHER),
        ("null", None),
        ("bytes+aes", None),
    ],
)
def test_the_type_of_the_metadata_tells_the_family(type_tag: str, family: SerializerFamily | None) -> None:
    assert family_of_metadata(type_tag) is family


def test_only_types_of_pythons_own_tell_the_family_of_task_writes() -> None:
    assert family_of_writes(["null", "json", "msgpack+aes"]) is MSGPACK
    assert family_of_writes(["null", "json", "bytes", "zstd"]) is None


@pytest.mark.parametrize(("own", "other", "family"), [("msgpack", "json", MSGPACK), ("json", "msgpack", JSON)])
async def test_writes_of_the_other_family_are_refused(
    tenant: Tenant, own: str, other: str, family: SerializerFamily
) -> None:
    version = await put(tenant, "c1", own)
    for wrong in (
        a_put(tenant, "c2", other),
        a_put(tenant, "c2", other, ns="sub:1"),
        some_writes(tenant, family_of_metadata(other)),
    ):
        with pytest.raises(SerializerMismatch) as refused:
            await tenant.store.write(wrong, timeout=TIMEOUT)
        assert (refused.value.thread_id, refused.value.found) == ("t", family)
        assert refused.value.family is family_of_metadata(other)
    assert await tenant.ids() == ["c1"]
    assert await tenant.version() == version
    (thread,) = (await tenant.threads()).threads
    assert (thread.serializer, thread.checkpoints) == (family, 1)
    await put(tenant, "c2", f"{own}+aes")
    await put_writes(tenant, family)


async def test_what_tells_no_family_is_accepted_and_changes_none(tenant: Tenant) -> None:
    await put_writes(tenant, None)
    assert await family_of(tenant) is None
    await put(tenant, "c1", "json")
    await put_writes(tenant, None, task="another")
    assert await family_of(tenant) is JSON


async def test_task_writes_tell_the_family_before_any_checkpoint(tenant: Tenant) -> None:
    await put_writes(tenant, JSON)
    assert await family_of(tenant) is JSON
    with pytest.raises(SerializerMismatch):
        await put(tenant, "c", "msgpack")


@pytest.mark.parametrize(("first", "later"), [("zstd", "msgpack"), ("zstd", "json"), ("msgpack", "zstd")])
async def test_a_serializer_of_somebodys_own_is_never_in_the_way(tenant: Tenant, first: str, later: str) -> None:
    await put(tenant, "c1", first)
    await put(tenant, "c2", later)
    assert await family_of(tenant) is family_of_metadata(first)


async def test_a_lease_taken_first_tells_no_family(tenant: Tenant) -> None:
    lease = await tenant.acquire("holder")
    await put(tenant, "c1", "json", lease_token=lease.token)
    assert await family_of(tenant) is JSON


async def test_a_refused_write_tells_no_family(tenant: Tenant) -> None:
    with pytest.raises(VersionConflict):
        await put(tenant, "c1", "json", precondition=expectation(7, b"", ""))
    broken = {"versions": {"a": "2"}, "values": {"a": patch("1", b"whole")}, "precondition": expectation(0, b"", "")}
    with pytest.raises(BaseMissing):
        await put(tenant, "c1", "json", **broken)
    with pytest.raises(ThreadNotFound):
        await family_of(tenant)
    await put(tenant, "c1", "msgpack")
    assert await family_of(tenant) is MSGPACK


async def test_what_comes_at_once_from_both_is_told_apart(own_options: StoreOptions) -> None:
    """Also within one commit: with many threads, some of them new, and with several namespaces of one thread."""
    async with open_store(own_options) as store:
        tenant = Tenant(store, "tenant")
        lease = await tenant.acquire("holder", thread="leased")
        calls = [put(tenant, "c", "json" if number % 2 else "msgpack", thread=f"t{number}") for number in range(20)]
        calls += [put(tenant, "c", "json", thread="leased", lease_token=lease.token)]
        calls += [put(tenant, "c", "json", thread="both"), put(tenant, "c", "msgpack", thread="both", ns="sub:1")]
        *stored, refused = await asyncio.gather(*calls, return_exceptions=True)
        assert all(isinstance(version, int) for version in stored)
        assert isinstance(refused, SerializerMismatch)
        for number in range(20):
            assert await family_of(tenant, f"t{number}") is (JSON if number % 2 else MSGPACK)
        assert await family_of(tenant, "leased") is JSON
        assert await family_of(tenant, "both") is JSON
        again = [put(tenant, "d", "json", thread=f"t{number}") for number in range(20)]
        outcomes = await asyncio.gather(*again, return_exceptions=True)
        assert [isinstance(outcome, SerializerMismatch) for outcome in outcomes] == [True, False] * 10


async def test_once_nothing_is_left_it_begins_anew(tenant: Tenant) -> None:
    await put(tenant, "c1", "msgpack", metadata={"run_id": "run"})
    await tenant.delete()
    await put(tenant, "c2", "json", metadata={"run_id": "run"})
    assert await family_of(tenant) is JSON
    await tenant.delete_runs("run")
    await put(tenant, "c3", "msgpack")
    assert await family_of(tenant) is MSGPACK
    await put(tenant, "c4", "msgpack", parent="c3")
    await tenant.prune("t")
    assert await family_of(tenant) is MSGPACK
    await tenant.prune("t", strategy=PruneStrategy.DELETE)
    await put(tenant, "c5", "json")
    assert await family_of(tenant) is JSON


async def test_copies_and_forks_have_that_of_their_source(tenant: Tenant) -> None:
    await put(tenant, "c1", "json")
    await put(tenant, "c2", "json", parent="c1")
    await tenant.copy("t", "whole")
    await tenant.copy("t", "fork", at="c1")
    for thread in ("whole", "fork"):
        assert await family_of(tenant, thread) is JSON
        with pytest.raises(SerializerMismatch):
            await put(tenant, "c3", "msgpack", thread=thread)


async def test_an_archived_thread_keeps_it(tenant: Tenant) -> None:
    await put(tenant, "c1", "json")
    await tenant.archive()
    await tenant.archive(archives=False)
    assert await family_of(tenant) is JSON
