"""Probes of a saver's server: for readiness, and for code that sets up its saver before it uses it."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

from langgraph.checkpoint.grpc._transport.client import Client
from langgraph.checkpoint.grpc._transport.loops import running_loop

from checkpointd.v1.checkpoint_service_pb2 import GetCheckpointRequest

_ASKED = GetCheckpointRequest(thread_id="checkpointd-ping")
"""A read that reaches the database. The thread need not exist."""
PING_TIMEOUT = 5.0
"""How long a ping may take, in seconds."""


class SetUp:
    """The result of `saver.setup()`: may be awaited, and need not be."""

    def __init__(self, probe: ConnectionProbe | None) -> None:
        self._probe = probe

    def __await__(self) -> Generator[Any, None, None]:
        if self._probe is not None:
            yield from self._probe.asetup().__await__()


class ConnectionProbe:
    """The part of a saver that probes its server."""

    _client: Client
    _asked: Any = _ASKED

    def ping(self, *, timeout: float = PING_TIMEOUT) -> None:
        """Reads something from the server, once: a probe for readiness.

        Args:
            timeout: How long that may take, in seconds.

        Raises:
            ServerUnavailableError: No server answers, or its database is away.
            DeadlineExceededError: It took too long.
            AccessDeniedError: The token is not accepted, or may not read.
        """
        self._client.call(self._asked, timeout=timeout, retry_budget=0.0)

    async def aping(self, *, timeout: float = PING_TIMEOUT) -> None:
        """Awaits `ping`."""
        await self._client.acall(self._asked, timeout=timeout, retry_budget=0.0)

    def setup(self) -> SetUp:
        """Checks that the server answers. There is nothing to set up: the server creates its tables.

        For code that was written for LangGraph's own savers. `saver.setup()` blocks until the server answers, within
        the retry budget; `await saver.setup()` awaits it. In an event loop nothing is checked until it is awaited.

        Returns:
            Something that may be awaited, and need not be.

        Raises:
            CheckpointdError: As any call.
        """
        if running_loop() is not None:
            return SetUp(self)
        self._client.call(self._asked)
        return SetUp(None)

    async def asetup(self) -> None:
        """Awaits what `setup` checks."""
        await self._client.acall(self._asked)
