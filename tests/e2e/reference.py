"""InMemorySaver as a reference: the answers of LangGraph's own saver, where savers agree.

InMemorySaver differs from LangGraph's other savers in a few places. The reference removes these differences, so that a
comparison needs no exceptions:

1. `get_tuple` by id returns the caller's config, with whatever else it holds; other savers return the three keys.
2. `list` goes through threads and namespaces one by one, in the order of their first use; "newest first" means the
   order of ids over all of them (contract 6), and of (thread, namespace) if ids are equal.
3. `filter` tests equality; PostgreSQL's savers test containment, `@>` (contract 8).
4. `put` requires `checkpoint_ns` in the config; for other savers its absence means the root (contract 1).
5. A checkpoint that was put without the key `updated_channels` (LangGraph's stub in exit mode) comes back without it;
   GrpcSaver returns it as None, as in the type `Checkpoint`. The comparison does tell None from [].
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import (
    ChannelVersions,
    Checkpoint,
    CheckpointMetadata,
    CheckpointTuple,
    get_checkpoint_id,
)
from langgraph.checkpoint.memory import InMemorySaver


class ReferenceSaver(InMemorySaver):
    """InMemorySaver without the differences that the module's docstring lists."""

    def get_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        saved = super().get_tuple(config)
        if saved is None:
            return None
        configurable = config["configurable"]
        own: RunnableConfig = {
            "configurable": {
                "thread_id": configurable["thread_id"],
                "checkpoint_ns": configurable.get("checkpoint_ns", ""),
                "checkpoint_id": get_checkpoint_id(saved.config),
            }
        }
        return _levelled(saved)._replace(config=own)

    def list(
        self,
        config: RunnableConfig | None,
        *,
        filter: dict[str, Any] | None = None,
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> Iterator[CheckpointTuple]:
        found = [
            _levelled(saved) for saved in super().list(config, before=before) if contains(saved.metadata, filter or {})
        ]
        found.sort(key=lambda saved: _place(saved)[:2])
        found.sort(key=lambda saved: _place(saved)[2], reverse=True)
        return iter(found[:limit])

    async def alist(
        self,
        config: RunnableConfig | None,
        *,
        filter: dict[str, Any] | None = None,
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> AsyncIterator[CheckpointTuple]:
        for saved in self.list(config, filter=filter, before=before, limit=limit):
            yield saved

    def put(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        rooted: RunnableConfig = {**config, "configurable": {"checkpoint_ns": "", **config["configurable"]}}
        return super().put(rooted, checkpoint, metadata, new_versions)


def contains(whole: Any, part: Any) -> bool:
    """Returns whether plain data contains other plain data, as defined by PostgreSQL's `@>` for JSONB."""
    match whole, part:
        case dict(), dict():
            return all(key in whole and contains(whole[key], value) for key, value in part.items())
        case (list() | tuple(), list() | tuple()):
            return all(any(contains(item, wanted) for item in whole) for wanted in part)
        case (bool(), _) | (_, bool()):
            return whole is part
        case _:
            return bool(whole == part)


def _levelled(saved: CheckpointTuple) -> CheckpointTuple:
    saved.checkpoint.setdefault("updated_channels", None)
    return saved


def _place(saved: CheckpointTuple) -> tuple[str, str, str]:
    configurable = saved.config["configurable"]
    return configurable["thread_id"], configurable["checkpoint_ns"], configurable["checkpoint_id"]
