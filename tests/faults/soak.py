"""Random faults of all kinds for any length of time, while the servers' resource usage is monitored.

    make soak                              ten minutes
    make soak MINUTES=120
    make soak ARGS="--seed 1234"           the same faults in the same order

Two servers share one database. One network lies between them and the database, another between the agents and the
first server. Agents are given both servers. From time to time the agents finish, and their journals are compared with
the store; then new agents start. The first server is killed and replaced. The second one runs from beginning to end:
its memory, file descriptors and connections must stay flat.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import asyncpg
import psutil

from tests.faults.postgres import FAST, IMMEDIATE, KILL, FaultyPostgres
from tests.support.flaky_link import FlakyLink
from tests.support.server_process import ServerProcess
from tests.support.storm import Storm
from tests.support.until import auntil

ROUND_SECONDS = 45.0
"""How long the same agents work."""
WARM_UP_ROUNDS = 2
"""The number of rounds after which a server's resource usage becomes the baseline."""
MEMORY_SLACK = 48 * 1024 * 1024
"""How many bytes above the baseline a server's memory may grow."""
FILES_SLACK = 40
"""How many file descriptors above the baseline a server may use, for its pool and new clients."""
POOL_SIZE = 8


@dataclass(frozen=True, kw_only=True)
class Use:
    """The resources that a server uses."""

    memory: int
    """Resident memory, in bytes."""
    files: int
    """Open file descriptors."""


class Stage:
    """The servers, the database, the networks, and the faults that they may suffer."""

    def __init__(self, folder: Path, random_: random.Random) -> None:
        self._folder = folder
        self._random = random_
        self._stack = AsyncExitStack()
        self.postgres = FaultyPostgres(folder / "postgres")
        self.servers: list[ServerProcess] = []
        self._first: Use | None = None
        self._rounds = 0

    async def __aenter__(self) -> Self:
        await self._stack.enter_async_context(self.postgres)
        behind = self._stack.enter_context(FlakyLink(f"unix:{self.postgres.socket}"))
        url = f"postgresql://postgres@{behind.target}/postgres"
        for number in range(2):
            log_dir = self._folder / f"server-{number}"
            log_dir.mkdir()
            server = ServerProcess(
                *("--database-url", url, "--pool-max-size", str(POOL_SIZE)),
                log_dir=log_dir,
                env={"CHECKPOINTD_LOG_LEVEL": "error"},
            )
            await asyncio.to_thread(server.start)
            self._stack.callback(server.__exit__)
            self.servers.append(server)
        self._behind = behind
        self._before = self._stack.enter_context(FlakyLink(self.servers[0].target))
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._stack.aclose()

    @property
    def targets(self) -> str:
        """The targets that agents are given."""
        return f"{self._before.target},{self.servers[1].target}"

    @property
    def faults(self) -> list[Callable[[], Awaitable[None]]]:
        """Returns all faults."""
        return [
            self.kill_a_server,
            self.replace_a_server,
            self.restart_the_database,
            self.end_all_sessions,
            self.lose_answers,
            self.fall_silent,
            self.forget_connections,
            self.nothing,
        ]

    async def nothing(self) -> None:
        """A quiet while."""
        await self._a_while(3.0)

    async def kill_a_server(self) -> None:
        """Kills the first server, and starts it again after a while."""
        await asyncio.to_thread(self.servers[0].kill)
        await self._a_while(2.0)
        await asyncio.to_thread(self.servers[0].start)

    async def replace_a_server(self) -> None:
        """Stops the first server as a deployment does, and starts it again."""
        await asyncio.to_thread(self.servers[0].restart)

    async def restart_the_database(self) -> None:
        """Stops the database for a while."""
        await self.postgres.stop(self._random.choice([FAST, IMMEDIATE, KILL]))
        await self._a_while(3.0)
        await self.postgres.start()

    async def end_all_sessions(self) -> None:
        """Ends all sessions of the database at once."""
        await self.postgres.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'checkpointd'"
        )

    async def lose_answers(self) -> None:
        """Loses answers, on either side of the servers."""
        link = self._random.choice([self._before, self._behind])
        link.hold_answers()
        await self._a_while(1.0)
        link.cut()

    async def fall_silent(self) -> None:
        """Holds all data for a while, on either side of the servers, and then delivers it."""
        link = self._random.choice([self._before, self._behind])
        link.stall()
        await self._a_while(9.0)
        link.resume()

    async def forget_connections(self) -> None:
        """Makes the network to the database forget all connections; only one side notices."""
        self._behind.forget()

    async def _a_while(self, longest: float) -> None:
        await asyncio.sleep(self._random.uniform(0, longest))

    async def assert_flat(self) -> str:
        """Raises AssertionError if the second server's usage grows. Returns its usage."""
        process = psutil.Process(self.servers[1].process.pid)
        use = Use(memory=process.memory_info().rss, files=process.num_fds())
        self._rounds += 1
        if self._rounds <= WARM_UP_ROUNDS or self._first is None:
            self._first = use
        first = self._first
        assert use.memory <= first.memory + MEMORY_SLACK, f"memory grows: {first} to {use}"
        assert use.files <= first.files + FILES_SLACK, f"file descriptors grow: {first} to {use}"
        # One more for each server: its watchdog's. A session that a fault has ended may take a moment to disappear.
        most = len(self.servers) * (POOL_SIZE + 1)
        sessions = await auntil(self._sessions, lambda found: len(found) <= most)
        return f"{use.memory // 2**20} MiB, {use.files} files, {len(sessions)} sessions of both servers"

    async def _sessions(self) -> list[Any]:
        """Returns the servers' sessions on the database, with the state of each."""
        connection = await asyncpg.connect(self.postgres.dsn)
        try:
            columns = "pid AS session, state, wait_event, state_change"
            sessions = f"SELECT {columns} FROM pg_stat_activity WHERE application_name = 'checkpointd'"
            return list(await connection.fetch(sessions))
        finally:
            await connection.close()


async def soak(minutes: float, seed: int) -> None:
    """Raises AssertionError if a promise is broken."""
    print(f"soak: {minutes:g} minutes, seed {seed}", flush=True)
    chance = random.Random(seed)
    with tempfile.TemporaryDirectory(prefix="cd-", ignore_cleanup_errors=True) as folder:
        async with Stage(Path(folder), chance) as stage:
            number = 0
            end = time.monotonic() + minutes * 60  # starts here: a busy machine takes a while to start it all
            while time.monotonic() < end:
                number += 1
                done: Counter[str] = Counter()
                journals = Path(folder, f"round-{number}")
                journals.mkdir()
                async with Storm(
                    stage.targets, journals, timeout=5, retry_budget=60, prefix=f"round-{number}-"
                ) as storm:
                    round_end = min(time.monotonic() + ROUND_SECONDS, end)
                    while not done or time.monotonic() < round_end:
                        fault = chance.choice(stage.faults)
                        done[fault.__name__] += 1
                        await fault()
                        await storm.progress(1)
                counts = await storm.check(target=stage.servers[1].target, dsn=stage.postgres.dsn)
                written = sum(count for what, count in counts.items() if what.endswith("acknowledged"))
                print(f"round {number}: {written} acknowledged writes are there; {dict(done)}", flush=True)
                print(f"round {number}: {await stage.assert_flat()}", flush=True)
    print("soak: all is well", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(prog="make soak", description="Breaks things at random, under load.")
    parser.add_argument("--minutes", type=float, default=10.0, help="how long, default 10")
    parser.add_argument("--seed", type=int, default=None, help="repeats the faults of another soak")
    arguments = parser.parse_args()
    seed = arguments.seed if arguments.seed is not None else random.SystemRandom().randrange(2**32)
    try:
        asyncio.run(soak(arguments.minutes, seed))
    except AssertionError as error:
        sys.exit(f"soak: seed {seed}: {error}")


if __name__ == "__main__":
    main()
