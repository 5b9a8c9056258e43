"""The long-term memory that langgraph.json names: on the same server as the threads."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from langgraph.checkpoint.grpc import GrpcStore


@asynccontextmanager
async def store() -> AsyncIterator[GrpcStore]:
    """Makes a store. LangGraph's server calls this as it calls `checkpointer`."""
    async with GrpcStore() as store:
        yield store
