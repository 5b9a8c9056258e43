"""A server that freezes or is cut off while it works on a thread doesn't delay other threads.

Nor does a server whose work waits for someone else's lock. An operation on whole threads makes one call to the database
for each thread. If a call is a transaction of several statements, as behind a pooler, the database ends it.
"""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import asyncpg
import pytest
from langgraph.checkpoint.grpc import CheckpointdError, GrpcSaver

from tests.support.calls import checkpoint, config_of
from tests.support.flaky_link import FlakyLink
from tests.support.local_server import LocalServer
from tests.support.pauses import own_pauses
from tests.support.server_process import ServerProcess
from tests.support.until import auntil

THREADS = [f"t{number}" for number in range(5)]
AT_ONCE = 5.0
"""The longest that leases and puts on all other threads may take together, in seconds: enough for a busy machine, and
far less than the 13 to 73 s that each of them once took."""
LET_GO = 10.0
"""The time after which the database ends an idle transaction of the server, in seconds."""

Verb = Callable[[GrpcSaver], Awaitable[object]]
VERBS: dict[str, tuple[str, Verb]] = {
    "delete": ("t2", lambda saver: saver.adelete_thread("t2")),
    "delete runs": ("t2", lambda saver: saver.adelete_for_runs(["run"])),
    "prune": ("t2", lambda saver: saver.aprune(THREADS, strategy="keep_latest")),
    "copy": ("copy", lambda saver: saver.acopy_thread("t2", "copy")),
}
"""Operations, each with the thread on which it is held up."""


@pytest.fixture
def link(database_url: str) -> Iterator[FlakyLink]:
    """The network between a server and its database."""
    where = parse_qs(urlsplit(database_url).query)
    with FlakyLink(f"unix:{where['host'][0]}/.s.PGSQL.{where['port'][0]}") as link:
        yield link


@pytest.fixture
def other(database_url: str) -> Iterator[LocalServer]:
    """The server that isn't disturbed."""
    with LocalServer(database_url) as server:
        yield server


@asynccontextmanager
async def at_work(verb: Verb, held: str, saver: GrpcSaver, database_url: str) -> AsyncIterator[Callable[[], Any]]:
    """Holds up an operation at a thread until the yielded function is called. Its outcome is ignored."""
    async with AsyncExitStack() as stack:
        connection, watcher = await asyncpg.connect(database_url), await asyncpg.connect(database_url)
        stack.push_async_callback(watcher.close)
        stack.push_async_callback(connection.close)
        transaction = connection.transaction()
        await transaction.start()
        await connection.fetch("SELECT FROM checkpointd.threads WHERE thread_id = $1 FOR UPDATE", held)

        async def waiting() -> bool:
            found = (
                "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
            )
            return bool(await watcher.fetchval(found))

        async def work() -> None:
            with suppress(CheckpointdError):
                await verb(saver)

        task = asyncio.create_task(work())
        await auntil(waiting)
        yield transaction.rollback
        await task


async def go_on(saver: GrpcSaver, threads: list[str]) -> float:
    """Takes a lease on each thread and puts to it. Returns the time for all of them, in seconds."""
    begun = time.monotonic()
    for thread_id in threads:
        async with saver.alease(thread_id, ttl=5, wait=60):
            await saver.aput(config_of(thread_id), checkpoint("9", {"a": 9}), {}, {"a": 9})
    return time.monotonic() - begun


@pytest.mark.parametrize("name", VERBS)
@pytest.mark.parametrize(
    "how", ["frozen", *(pytest.param(how, marks=pytest.mark.long) for how in ("cut off", "held up"))]
)
@pytest.mark.parametrize("statements", ["one", pytest.param("several", marks=pytest.mark.long)])
async def test_others_go_on_at_once(
    statements: str, how: str, name: str, database_url: str, link: FlakyLink, other: LocalServer, tmp_path: Path
) -> None:
    held, verb = VERBS[name]
    url = f"postgresql://postgres@{link.target}{urlsplit(database_url).path}"
    # Without prepared statements, each call is a transaction of three statements, as behind a pooler.
    options = ("--database-url", url, *(("--statement-cache-size", "0") if statements == "several" else ()))
    async with AsyncExitStack() as stack:
        server = ServerProcess(*options, log_dir=tmp_path)
        await asyncio.to_thread(server.start)
        stack.callback(server.kill)
        stack.enter_context(own_pauses())
        saver = await stack.enter_async_context(GrpcSaver(other.target))
        stuck = await stack.enter_async_context(GrpcSaver(server.target, retry_budget=0, timeout=60))
        for thread_id in THREADS:
            for number in ("1", "2"):
                await saver.aput(config_of(thread_id), checkpoint(number, {"a": 1}), {"run_id": "run"}, {"a": number})
        async with saver.alease("copy"):
            pass
        others = [thread_id for thread_id in [*THREADS, "new"] if thread_id != held]
        async with at_work(verb, held, stuck, database_url) as let_go:
            if how == "frozen":
                server.signal(signal.SIGSTOP)
            elif how == "cut off":
                link.stall()
            if how != "held up":
                await let_go()  # the database does the work now, and the server never learns of it
            assert await go_on(saver, others) < AT_ONCE
            if how == "held up":
                await let_go()
            # The thread itself is free as soon as the database releases it.
            assert await go_on(saver, [held]) < AT_ONCE + (LET_GO if statements == "several" else 0)
            server.signal(signal.SIGCONT)
            link.resume()
