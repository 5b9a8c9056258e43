"""x"""

from __future__ import annotations

import asyncio

from langgraph.checkpoint.grpc import streams


async def until_ended(stream: streams.Stream) -> None:
    async with asyncio.timeout(20):
        while stream.is_open:
            await asyncio.sleep(0.01)
