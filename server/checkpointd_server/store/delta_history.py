"""The history of channels: a walk from a checkpoint through its ancestors, a page per call."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import NamedTuple

from checkpointd_server.domain.checkpoints import ChannelHistory, DeltaHistory, Namespace, TaskWrite
from checkpointd_server.domain.errors import InvalidArgument
from checkpointd_server.domain.values import StoredValue
from checkpointd_server.store.connections.database import Database
from checkpointd_server.store.values import key_of, read_values, read_writes

MAX_STEPS = 1000
"""Maximum number of ancestors for a page, so calls that find nothing end, too."""


class _Position(NamedTuple):
    """The end of a page."""

    done: Sequence[int] = ()
    """The requested channels whose seeds were found, each counted once."""
    checkpoint_id: str | None = None
    """The ancestor that it ended with."""
    task_path: str | None = None
    """The last of its writes on the page. None: all of them."""
    task_id: str | None = None
    idx: int | None = None
    mark: str | None = None
    """An ancestor to detect cycles, and the number of steps so far."""
    steps: int = 0


async def get_delta_history(
    database: Database,
    namespace: Namespace,
    checkpoint_id: str | None,
    channels: Sequence[str],
    *,
    after: str | None,
    page_bytes: int,
    max_bytes: int,
    timeout: float | None,
) -> DeltaHistory:
    """Walks the ancestors of a checkpoint for writes and seeds of channels, a page per call.

    Args:
        database: The database of the tenant.
        namespace: The namespace of the checkpoint.
        checkpoint_id: Its id. None: the latest.
        channels: The channels.
        after: The place where the page before ended. None: the first page.
        page_bytes: The size at which the page is cut, in bytes. It has at least one write.
        max_bytes: The size beyond which a write, or the values of an ancestor, are left out, in bytes.
        timeout: The time that the caller has left, in seconds; None: no end.

    Raises:
        InvalidArgument: `after` is no place where a page ended.
    """
    asked = list(dict.fromkeys(channels))
    start = _read_position(after)
    done = {number for number in start.done if isinstance(number, int)}
    *rows, last = await database.fetch(
        "get_delta_history",
        key_of(namespace),
        namespace.checkpoint_ns,
        checkpoint_id,
        [channel for number, channel in enumerate(asked) if number not in done],
        *start[1:],
        page_bytes,
        MAX_STEPS,
        max_bytes,
        timeout=timeout,
        reads=True,
    )
    if last["o_is_gone"]:
        raise InvalidArgument("page_token", "the checkpoint at the end of the previous page is gone; start again")
    writes: dict[str, list[tuple[str, TaskWrite]]] = {channel: [] for channel in asked}
    seeds: dict[str, str] = {}
    values: list[StoredValue] = []
    for row in rows:
        for write in read_writes(row):
            writes[write.channel].append((row["o_checkpoint_id"], write))
        seeds.update(zip(row["o_seed_channels"] or (), row["o_seed_versions"] or (), strict=True))
        values += read_values(row)
    position = None
    if last["o_from"] is not None:
        done.update(number for number, channel in enumerate(asked) if channel in seeds)
        end = [last[name] for name in ("o_from", "o_after_path", "o_after_task", "o_after_idx", "o_mark", "o_steps")]
        position = json.dumps([sorted(done), *end], ensure_ascii=False, separators=(",", ":"))
    histories = [ChannelHistory(channel, writes[channel], seeds.get(channel)) for channel in channels]
    return DeltaHistory(histories, last["o_version"], values, position)


def _read_position(after: str | None) -> _Position:
    if after is None:
        return _Position()
    try:
        position = _Position(*json.loads(after))
        types = [list, str, str | None, str | None, int | None, str | None, int]
        if not all(isinstance(field, type_) for field, type_ in zip(position, types, strict=True)):
            raise ValueError
    except (TypeError, ValueError):
        raise InvalidArgument("page_token", "is not one that was returned") from None
    return position
