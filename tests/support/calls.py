"""A saver's methods, blocking or awaiting as the test requires, and hand-made checkpoints."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from typing import Any, cast

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import Checkpoint, CheckpointMetadata, CheckpointTuple, DeltaChannelHistory
from langgraph.checkpoint.grpc import GrpcSaver

from tests.support.comparison import Flavour


def config_of(thread_id: object, ns: str | None = "", checkpoint_id: str | None = None) -> RunnableConfig:
    """Returns a config with these keys; None leaves a key out."""
    keys = {"thread_id": thread_id, "checkpoint_ns": ns, "checkpoint_id": checkpoint_id}
    return {"configurable": {name: value for name, value in keys.items() if value is not None}}


def checkpoint(
    checkpoint_id: str, values: Mapping[str, Any] | None = None, versions: Mapping[str, Any] | None = None, **more: Any
) -> Checkpoint:
    """Returns a checkpoint with these values, each at version 1 by default."""
    made = {
        "v": 4,
        "id": checkpoint_id,
        "ts": "2026-01-01T00:00:00+00:00",
        "channel_values": dict(values or {}),
        "channel_versions": dict.fromkeys(values or {}, 1) if versions is None else dict(versions),
        "versions_seen": {},
        "updated_channels": None,
        **more,
    }
    return cast(Checkpoint, made)


class Calls:
    """The methods of a saver, blocking or awaiting."""

    def __init__(self, saver: GrpcSaver, flavour: Flavour) -> None:
        self.saver = saver
        self.flavour = flavour
        self.thread_id = str(uuid.uuid4())

    @property
    def _blocking(self) -> bool:
        return self.flavour == "invoke"

    async def put(
        self,
        saved: Checkpoint,
        *,
        ns: str = "",
        parent: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        new: Mapping[str, Any] | None = None,
        thread_id: object = None,
        config: RunnableConfig | None = None,
    ) -> RunnableConfig:
        """Puts a checkpoint; by default all its channels count as changed."""
        config = config or config_of(thread_id or self.thread_id, ns, parent)
        described = cast(CheckpointMetadata, dict(metadata or {}))
        versions = dict(saved["channel_versions"] if new is None else new)
        if self._blocking:
            return self.saver.put(config, saved, described, versions)
        return await self.saver.aput(config, saved, described, versions)

    async def write(
        self,
        checkpoint_id: str,
        writes: Sequence[tuple[str, Any]],
        task_id: str = "task",
        task_path: str = "",
        *,
        ns: str = "",
    ) -> None:
        """Puts task writes."""
        config = config_of(self.thread_id, ns, checkpoint_id)
        if self._blocking:
            self.saver.put_writes(config, writes, task_id, task_path)
        else:
            await self.saver.aput_writes(config, writes, task_id, task_path)

    async def get(
        self, checkpoint_id: str | None = None, *, ns: str | None = "", thread_id: object = None
    ) -> CheckpointTuple:
        """Reads a checkpoint that must exist."""
        found = await self.find(config_of(thread_id or self.thread_id, ns, checkpoint_id))
        assert found is not None
        return found

    async def find(self, config: RunnableConfig) -> CheckpointTuple | None:
        """Reads a checkpoint."""
        return self.saver.get_tuple(config) if self._blocking else await self.saver.aget_tuple(config)

    async def delta_history(self, channels: Sequence[str], checkpoint_id: str) -> Mapping[str, DeltaChannelHistory]:
        """Reads the history of channels."""
        config = config_of(self.thread_id, "", checkpoint_id)
        if self._blocking:
            return self.saver.get_delta_channel_history(config=config, channels=channels)
        return await self.saver.aget_delta_channel_history(config=config, channels=channels)

    async def do(self, method: str, *args: Any, **options: Any) -> Any:
        """Calls any other method."""
        if self._blocking:
            return getattr(self.saver, method)(*args, **options)
        return await getattr(self.saver, "a" + method)(*args, **options)

    async def listed(self, config: RunnableConfig | None, **options: Any) -> list[CheckpointTuple]:
        """Lists checkpoints."""
        if self._blocking:
            return list(self.saver.list(config, **options))
        return [saved async for saved in self.saver.alist(config, **options)]

    async def ids(self, config: RunnableConfig | None, **options: Any) -> list[str]:
        """Lists the ids of checkpoints."""
        return [saved.checkpoint["id"] for saved in await self.listed(config, **options)]
