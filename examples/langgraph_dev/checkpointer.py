"""The checkpointer that langgraph.json names: the server is CHECKPOINTD_TARGET's, the token CHECKPOINTD_TOKEN's."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from langgraph.checkpoint.grpc import GrpcSaver


@asynccontextmanager
async def checkpointer() -> AsyncIterator[GrpcSaver]:
    """Makes a saver. LangGraph's server calls this once for each of its event loops, and leaves it when it stops."""
    async with GrpcSaver() as saver:
        yield saver
