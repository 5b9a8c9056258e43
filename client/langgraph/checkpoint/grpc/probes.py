"""Whether a saver reaches its server: for readiness probes, and for code that sets up its saver before it uses it."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

from langgraph.checkpoint.grpc.calls import Caller
from langgraph.checkpoint.grpc.loops import running_loop

from checkpointd.v1.checkpoint_service_pb2 import GetCheckpointRequest

_ASKED = GetCheckpointRequest(thread_id="checkpointd-ping")
"""A read that goes all the way, to the database. It doesn't matter whether there is such a thread."""
PING_TIMEOUT = 5.0
"""How long a ping may take, in seconds."""


class SetUp:
    """What `saver.setup()` returns: may be awaited, and need not be."""

    def __init__(self, prober: Prober | None) -> None:
        self._prober = prober

    def __await__(self) -> Generator[Any, None, None]:
        if self._prober is not None:
            yield from self._prober.asetup().__await__()


class Prober:
    """The part of a saver that asks whether its server is there."""

    _caller: Caller

    def ping(self, *, timeout: float = PING_TIMEOUT) -> None:
        """Reads something from the server, once: a probe for readiness.

        Args:
            timeout: How long that may take, in seconds.

        Raises:
            ServerUnavailableError: No server answers, or its database is away.
            DeadlineExceededError: It took too long.
            AccessDeniedError: The token is not accepted, or may not read.
        """
        self._caller.call("GetCheckpoint", _method, _ASKED, timeout=timeout, retry_budget=0.0)

    async def aping(self, *, timeout: float = PING_TIMEOUT) -> None:
        """Awaits `ping`."""
        await self._caller.acall("GetCheckpoint", _method, _ASKED, timeout=timeout, retry_budget=0.0)

    def setup(self) -> SetUp:
        """Checks that the server answers. There is nothing to set up: the tables are the server's affair.

        For code that was written for LangGraph's own savers. `saver.setup()` blocks until the server answers, within
        the retry budget; `await saver.setup()` awaits it. In an event loop nothing is checked until it is awaited.

        Raises:
            CheckpointdError: As any call.
        """
        if running_loop() is not None:
            return SetUp(self)
        self._caller.call("GetCheckpoint", _method, _ASKED)
        return SetUp(None)

    async def asetup(self) -> None:
        """Awaits what `setup` checks."""
        await self._caller.acall("GetCheckpoint", _method, _ASKED)


def _method(stubs: Any) -> Any:
    return stubs.checkpoints.GetCheckpoint
