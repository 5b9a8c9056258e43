"""Agents at work while something breaks."""

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
    """Two agent processes, one that awaits and one that blocks. They work from entering to leaving.

    Args:
        target: What the agents' savers are given.
        folder: Where the journals go.
        timeout: How long one attempt of a call may take, in seconds.
        retry_budget: How long the agents' savers try again, in seconds. Whatever happens must fit into it.
        prefix: Comes before the names of their threads, where other agents have been on the store already.
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
        """Waits until each worker of each agent has had something acknowledged, and all together so much, since now."""
        before = {form: self._acknowledged(form) for form in FORMS}
        workers = 7 - 1  # on the contested thread one agent may win again and again

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
        """Compares the journals with the store, when the agents have ended. Raises AssertionError."""
        return await check([list(journal.read(path)) for path in self._journals.values()], target=target, dsn=dsn)

    def _acknowledged(self, form: str) -> Counter[str]:
        lines = journal.read(self._journals[form])
        return Counter(line.thread_id for line in journal.of(lines, "acknowledged"))

    def _assert_well(self, *, ended: bool = False) -> None:
        """Raises AssertionError if an agent has noted that something failed, or has ended where it should not have."""
        for agent, (form, path) in zip(self._agents, self._journals.items(), strict=True):
            bad = journal.of(journal.read(path), "failed", "wrong")
            assert not bad, f"{form}: {bad[0]}"
            if (code := agent.poll()) != (0 if ended else None):
                told = path.with_suffix(".stderr").read_text(errors="replace")
                raise AssertionError(f"{form}: the agent has ended with exit code {code}\n{told[-4000:]}")
