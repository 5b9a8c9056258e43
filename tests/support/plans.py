"""The cost of a store's operations, as PostgreSQL counts it: rows scanned, and rows found by index."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any
from zlib import crc32

from checkpointd_server.domain.thread_lists import ThreadFilter, ThreadStatus
from checkpointd_server.domain.values import KnownValue
from tests.support.tenant import Tenant, a_connection, gather_results, patch, uploaded, write


class Meter:
    """Counts the rows that a store's only connection reads."""

    def __init__(self, tenant: Tenant, admin: Any) -> None:
        self.tenant = tenant
        self._admin = admin

    async def cost(self, verb: Awaitable[Any]) -> tuple[int, int]:
        """Returns how many rows an operation scans, and how many it finds by index."""
        walked, found = await self._counters()
        await verb
        walked_then, found_then = await self._counters()
        return walked_then - walked, found_then - found

    async def _counters(self) -> tuple[int, int]:
        async with a_connection(self.tenant.store) as connection:
            for each in (connection, self._admin):
                await each.execute("SELECT pg_stat_force_next_flush()")
        walked, found = await self._admin.fetchrow(
            "SELECT sum(seq_tup_read)::bigint, sum(coalesce(idx_tup_fetch, 0))::bigint FROM pg_stat_user_tables"
        )
        return int(walked), int(found)


async def prepare(tenant: Tenant, thread: str) -> None:
    """Gives a thread data of every kind."""
    for n in range(1, 6):
        await tenant.put(
            f"{n}",
            thread=thread,
            parent=f"{n - 1}",
            versions={"a": f"{n}", "b": "1", "d": f"{n}"},
            values={"a": b"A" if n == 1 else patch(f"{n - 1}", b"B"), **({"b": b"B", "d": b"D"} if n == 1 else {})},
            metadata={"run_id": f"run {thread} {n}", "step": n, "counters_since_delta_snapshot": {"d": [1, 1]}},
            writer=b"me",
        )
        special = [write("task", -1, "e", b"E"), write("task", -4, "r", b"R")]
        await tenant.writes(f"{n}", write("task", 0, "d", b"w"), *special, thread=thread)
    await tenant.upload(b"one", b"part", b"part", thread=thread)


Verb = Callable[[Tenant, str], Awaitable[Any]]
ME: dict[str, Any] = {"writer": b"me", "expect_writer": b"me"}
VERBS: dict[str, tuple[Verb, int]] = {
    # Each with the number of rows it may find, in a thread of five checkpoints.
    "put": (lambda t, x: t.put("6", thread=x, parent="5", versions={"a": "6"}, values={"a": b"6"}, **ME), 10),
    "put a patch": (
        lambda t, x: t.put("7", thread=x, parent="6", versions={"a": "7"}, values={"a": patch("6", b"7")}, **ME),
        10,
    ),
    "put what is empty": (
        lambda t, x: t.put(
            "8",
            thread=x,
            versions={"a": "8"},
            values={
                "a": None,
            },
        ),
        10,
    ),
    "put an upload": (
        lambda t, x: t.put("9", thread=x, versions={"a": "9"}, values={"a": uploaded(b"one", 8)}),
        20,
    ),
    # Two calls: commit_group finds existing rows, and leaves it to commit_writes.
    "put again": (lambda t, x: t.put("6", thread=x, versions={"a": "6"}, values={"a": b"else"}, body=b"new"), 40),
    "put in a new thread": (lambda t, x: t.put("1", thread=f"{x} new", versions={"a": "1"}, values={"a": b"A"}), 5),
    "puts of many threads": (
        lambda t, x: gather_results(
            *(t.put("1", thread=f"{x}{n}", versions={"a": "1"}, values={"a": b"A"}) for n in range(16))
        ),
        200,
    ),
    "puts that are refused": (
        lambda t, x: gather_results(*(t.put("z", thread=f"{x}{n}", expect=1) for n in range(16))),
        200,
    ),
    "task writes": (lambda t, x: t.writes("6", write("task", 0, "a", b"w"), thread=x), 10),
    "task writes again": (lambda t, x: t.writes("5", write("task", -1, "e", b"F"), thread=x), 20),
    "get": (lambda t, x: t.get(thread=x), 20),
    "get by id": (lambda t, x: t.get("5", thread=x), 20),
    "get what is known": (lambda t, x: t.get("5", thread=x, known=[KnownValue("a", "3", crc32(b"B"))]), 20),
    "value": (lambda t, x: t.value("a", "5", thread=x), 5),
    "uploaded value": (lambda t, x: t.value("a", "9", thread=x), 10),
    "task write": (lambda t, x: t.written("5", "task", 0, thread=x), 5),
    "list a namespace": (lambda t, x: t.page(thread_id=x, checkpoint_ns="", page_size=2), 50),
    "list a thread": (lambda t, x: t.page(thread_id=x, page_size=2), 50),
    "list all": (lambda t, x: t.page(page_size=2), 100),
    "list with a filter": (lambda t, x: t.page(thread_id=x, metadata_filter='{"step": 3}'), 100),
    "history": (lambda t, x: t.history("d", thread=x, at="5"), 50),
    "acquire": (lambda t, x: t.acquire("me", thread=x), 10),
    "acquire in vain": (lambda t, x: gather_results(t.acquire("you", thread=x, wait=0.2)), 50),
    "renew": (lambda t, x: gather_results(t.renew(1, thread=x)), 10),
    "see the lease": (lambda t, x: t.lease(thread=x), 5),
    "release": (lambda t, x: t.release("me", thread=x), 10),
    "upload": (lambda t, x: t.upload(b"two", b"part", thread=x), 10),
    "copy": (lambda t, x: t.copy(x, f"{x} copy"), 200),
    "fork": (lambda t, x: t.copy(x, f"{x} fork", at="3"), 200),
    "delete a run": (lambda t, x: t.delete_runs(f"run {x} 2"), 250),
    "prune": (lambda t, x: t.prune(x), 300),
    "delete": (lambda t, x: t.delete(f"{x} copy"), 200),
    "list threads": (lambda t, x: t.threads(page_size=3), 150),
    "list threads by name": (lambda t, x: t.threads(ThreadFilter(prefix=f"{x}1"), page_size=3), 300),
    "list threads by metadata": (lambda t, x: t.threads(ThreadFilter(metadata='{"user": "none"}')), 20),
    "list threads by status": (lambda t, x: t.threads(ThreadFilter(statuses=[ThreadStatus.FAILED])), 50),
    "count threads": (lambda t, x: t.store.count_threads(t.name, ThreadFilter(prefix="none"), timeout=60), 10),
    "get a thread": (lambda t, x: t.store.get_thread(t.name, x, timeout=60), 50),
    "list nodes": (
        lambda t, x: t.store.list_nodes(t.name, x, after=None, page_size=2, timeout=60),
        50,
    ),
    "tag": (lambda t, x: t.tag(x, colour="blue"), 30),
    "archive": (lambda t, x: t.archive(x), 10),
    "unarchive": (lambda t, x: t.archive(x, archives=False), 10),
    "collect": (lambda t, x: t.store.run_gc(), 50),
}
