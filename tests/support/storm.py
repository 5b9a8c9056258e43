"""Agents that work while something breaks."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from pathlib import Path
from typing import Self

from tests.support import journal
from tests.support.checker import check
from tests.support.forked import ForkedAgent
from tests.support.server_process import clean_environment
from tests.support.until import auntil

FORMS = ("awaiting", "blocking")


class Storm:
    """Two agent processes, one awaiting and one blocking. They work from entering to leaving.

    Args:
        target: The target of the agents' savers.
        folder: The folder for the journals.
        timeout: How long one attempt of a call may take, in seconds.
        retry_budget: How long the agents' savers retry, in seconds. Every fault must end within it.
        prefix: The beginning of their threads' names, needed if other agents have used the store before.
    """

    def __init__(
        self, target: str, folder: Path, *, timeout: float = 30.0, retry_budget: float = 30.0, prefix: str = ""
    ) -> None:
        self._prefix = prefix
        self._target = target
        self._options = (str(timeout), str(retry_budget))
        self._journals = {form: folder / f"{form}.journal" for form in FORMS}
        self._agents: list[ForkedAgent] = []

    async def __aenter__(self) -> Self:
        for form, path in self._journals.items():
            arguments = (self._target, str(path), self._prefix, form, *self._options)
            with path.with_suffix(".stderr").open("wb") as stderr:
                agent = ForkedAgent(
                    "tests.support.storm_agent", *arguments, environment=clean_environment(), stderr=stderr
                )
            self._agents.append(agent)
        await self.progress()
        return self

    async def __aexit__(self, exc_type: type[BaseException] | None, *_: object) -> None:
        for agent in self._agents:
            agent.stdin.close()
        try:
            await asyncio.gather(*(asyncio.to_thread(agent.wait, 60) for agent in self._agents))
        finally:
            for agent in self._agents:
                agent.kill()
                agent.close()
        if exc_type is None:
            self._assert_well(ended=True)

    async def progress(self, writes: int = 20) -> None:
        """Waits until, from now on, each worker has had a write acknowledged, and each agent this many."""
        before = {form: self._acknowledged(form) for form in FORMS}
        workers = 7 - 1  # on the contested thread one agent may win every time

        def since() -> dict[str, Counter[str]]:
            self._assert_well()
            return {form: self._acknowledged(form) - before[form] for form in FORMS}

        def enough(now: dict[str, Counter[str]]) -> bool:
            return all(len(threads) >= workers and threads.total() >= writes for threads in now.values())

        await auntil(since, enough, timeout=50, pause=0.05)

    async def for_seconds(self, seconds: float) -> None:
        """Lets the agents work for a while."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            await asyncio.sleep(0.1)
            self._assert_well()

    async def check(self, *, target: str, dsn: str) -> Counter[str]:
        """Compares the journals with the store, after the agents have ended. Raises AssertionError."""
        return await check([list(journal.read(path)) for path in self._journals.values()], target=target, dsn=dsn)

    def _acknowledged(self, form: str) -> Counter[str]:
        lines = journal.read(self._journals[form])
        return Counter(line.thread_id for line in journal.of(lines, "acknowledged"))

    def _assert_well(self, *, ended: bool = False) -> None:
        """Raises AssertionError if an agent has recorded a failure, or has ended unexpectedly."""
        for agent, (form, path) in zip(self._agents, self._journals.items(), strict=True):
            bad = journal.of(journal.read(path), "failed", "wrong")
            assert not bad, f"{form}: {bad[0]}"
            if (code := agent.poll()) != (0 if ended else None):
                told = path.with_suffix(".stderr").read_text(errors="replace")
                raise AssertionError(f"{form}: the agent has ended with exit code {code}\n{told[-4000:]}")
