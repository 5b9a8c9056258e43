"""Floods from separate processes."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from subprocess import PIPE
from typing import Any

from tests.load.flood import Plan


@asynccontextmanager
async def flooding(*plans: Plan) -> AsyncIterator[list[dict[str, Any]]]:
    """Floods a server while the context lasts, from a process for each plan, and until each has had enough.

    Yields a list that contains their tallies afterwards.
    """
    tallies: list[dict[str, Any]] = []
    processes = [
        await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tests.load.flood", json.dumps(vars(plan))), stdin=PIPE, stdout=PIPE
        )
        for plan in plans
    ]
    try:
        for process in processes:
            assert process.stdout is not None
            assert await process.stdout.readline() == b"flooding\n"
        yield tallies
        # Without input, asyncio would leave their standard inputs open.
        ended = await asyncio.gather(*(process.communicate(b"") for process in processes))
        for process, (out, _) in zip(processes, ended, strict=True):
            assert process.returncode == 0
            tallies.append(json.loads(out))
    finally:
        for process in processes:
            if process.returncode is None:
                process.kill()
                await process.wait()
