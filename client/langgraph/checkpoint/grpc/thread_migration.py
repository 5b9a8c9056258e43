"""Migration of stored threads to the current version of their states: `saver.threads.migrate`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

from langgraph.checkpoint.grpc._convert.arguments import config_of, namespace
from langgraph.checkpoint.grpc._convert.state import made_by_migration, version_of
from langgraph.checkpoint.grpc.errors import (
    CheckpointdError,
    InvalidArgumentError,
    LeaseHeldError,
    ThreadArchivedError,
)

if TYPE_CHECKING:
    from langchain_core.runnables import RunnableConfig
    from langgraph.checkpoint.base import CheckpointTuple
    from langgraph.checkpoint.grpc.saver import GrpcSaver

MigrationOutcome = Literal["current", "pending", "migrated", "busy", "archived", "failed"]
"""The outcome for a thread, in this order: there was nothing to do; a dry run found old states; they were rewritten;
somebody else holds the lease on the thread; it is read-only; a hook or a call failed."""

OUTCOMES: tuple[MigrationOutcome, ...] = get_args(MigrationOutcome)


@dataclass(frozen=True, slots=True, kw_only=True)
class ThreadMigration:
    """The outcome for one thread."""

    thread_id: str
    outcome: MigrationOutcome
    checkpoints: int
    """The number of checkpoints that were rewritten, or would be."""
    error: CheckpointdError | None = None
    """The reason why it failed or was skipped."""


def migrate(saver: GrpcSaver, thread_ids: Iterator[str], *, dry_run: bool) -> Iterator[ThreadMigration]:
    """Yields the outcome for each thread. One that fails doesn't hold up the others.

    Args:
        saver: A saver whose hooks have a version and `migrate`.
        thread_ids: The threads.
        dry_run: Whether to only try the hooks.

    Raises:
        InvalidArgumentError: The saver has no hook `migrate`.
    """
    if saver.hooks is None or saver.hooks.migrate is None:
        raise InvalidArgumentError("hooks: the saver was built without a hook `migrate`", field="hooks")
    return (_migrate(saver, thread_id, saver.hooks.version, dry_run) for thread_id in thread_ids)


def _migrate(saver: GrpcSaver, thread_id: str, today: int, dry_run: bool) -> ThreadMigration:
    done = 0
    try:
        old = _old(saver, thread_id, today, dry_run)
        if not old:
            return ThreadMigration(thread_id=thread_id, outcome="current", checkpoints=0)
        if dry_run:
            return ThreadMigration(thread_id=thread_id, outcome="pending", checkpoints=len(old))
        with saver.lease(thread_id, wait=0):
            # Listed again: a run may have added some. Oldest first, so that the last put stays the latest.
            for config in reversed(_old(saver, thread_id, today, dry_run)):
                saved = saver.get_tuple(config)
                if saved is not None:
                    saver.put(_parent(saved), saved.checkpoint, saved.metadata, _new_versions(saved))
                    done += 1
    except LeaseHeldError as error:
        return ThreadMigration(thread_id=thread_id, outcome="busy", checkpoints=done, error=error)
    except ThreadArchivedError as error:
        return ThreadMigration(thread_id=thread_id, outcome="archived", checkpoints=done, error=error)
    except CheckpointdError as error:
        return ThreadMigration(thread_id=thread_id, outcome="failed", checkpoints=done, error=error)
    return ThreadMigration(thread_id=thread_id, outcome="migrated", checkpoints=done)


def _old(saver: GrpcSaver, thread_id: str, today: int, dry_run: bool) -> list[RunnableConfig]:
    """Returns the checkpoints with older states, newest first. A dry run tries all hooks on them."""
    found: list[RunnableConfig] = []
    for saved in saver.list({"configurable": {"thread_id": thread_id}}):
        if version_of(saved.metadata) < today:
            found.append(saved.config)
            if dry_run and saver._state is not None:
                saver._state.check(_parent(saved), saved.checkpoint, _new_versions(saved))
    return found


def _parent(saved: CheckpointTuple) -> RunnableConfig:
    """Returns the config that a checkpoint was put with."""
    return saved.parent_config or config_of(*namespace(saved.config), "")


def _new_versions(saved: CheckpointTuple) -> dict[str, str | int | float]:
    return made_by_migration(saved.checkpoint["channel_versions"])
