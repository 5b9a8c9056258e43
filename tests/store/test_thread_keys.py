"""Threads are identified by their tenant's whole name and their own, even if both look the same when joined."""

from __future__ import annotations

from hypothesis import strategies as st

from checkpointd_server.domain.threads import thread_key
from tests.support.properties import given
from tests.support.tenant import Tenant

ALIKE = [("a/b", "c"), ("a", "b/c"), ("a", "/b/c"), ("ab", "c"), ("a", "bc"), ("", "abc"), ("abc", "")]


def test_names_that_look_the_same_side_by_side_have_keys_of_their_own() -> None:
    keys = [thread_key(tenant, thread_id) for tenant, thread_id in ALIKE]
    assert len({key.bytes for key in keys}) == len(ALIKE)


names = st.tuples(st.text(max_size=5), st.text(max_size=5))


@given(one=names, other=names)
def test_so_do_any_names(one: tuple[str, str], other: tuple[str, str]) -> None:
    assert (thread_key(*one) == thread_key(*other)) == (one == other)


async def test_their_leases_and_versions_are_apart(tenant: Tenant) -> None:
    one, other = (Tenant(tenant.store, f"{tenant.name}{name}") for name in ("a/b", "a"))
    await other.put("1", thread="b/c")
    version = await other.version(thread="b/c")
    for checkpoint_id in ("1", "2", "3"):
        await one.put(checkpoint_id, thread="c")
    assert await other.version(thread="b/c") == version
    await one.acquire("holder", thread="c")
    await other.acquire("another", thread="b/c")
