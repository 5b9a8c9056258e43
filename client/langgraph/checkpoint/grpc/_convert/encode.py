"""Conversion of LangGraph's arguments to requests. Pure functions, shared by the sync and the async methods.

Everything is serialized here, before the call yields: the graph may change its state during a save.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import ormsgpack
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import (
    WRITES_IDX_MAP,
    ChannelVersions,
    Checkpoint,
    CheckpointMetadata,
    get_checkpoint_metadata,
)
from langgraph.checkpoint.grpc._convert.arguments import (
    Key,
    are_plain,
    checkpoint_id,
    names,
    namespace,
    text,
    version_tag,
)
from langgraph.checkpoint.grpc._convert.metadata import filter_of, index_of
from langgraph.checkpoint.grpc._convert.random_ids import random_id
from langgraph.checkpoint.grpc._convert.serde import ValueSerde, pack_exactly
from langgraph.checkpoint.grpc._encryption.aad import ExtraAssociatedData, MetadataAssociatedData
from langgraph.checkpoint.grpc._values.cache import ValueCache
from langgraph.checkpoint.grpc._values.outgoing import OutgoingCheckpoint, OutgoingWrites
from langgraph.checkpoint.grpc.errors import InvalidArgumentError

from checkpointd.v1 import checkpoint_service_pb2 as pb

MAX_PAGE = 1000
"""Maximum number of checkpoints on a page."""

_ELSEWHERE = frozenset({"id", "channel_versions", "channel_values"})
"""Keys of a checkpoint that are sent outside the body."""
_PLAIN = frozenset({"v", "ts", "versions_seen", "updated_channels"})
"""Keys that are in the body as msgpack, if msgpack is exact. All others are serialized, and encrypted."""


def put(
    serde: ValueSerde,
    cache: ValueCache,
    config: RunnableConfig,
    checkpoint: Checkpoint,
    metadata: CheckpointMetadata,
    new_versions: ChannelVersions,
) -> OutgoingCheckpoint:
    """Builds the request of `put`, without the precondition.

    Raises:
        InvalidArgumentError: An argument can't be used.
    """
    key = namespace(config)
    own_id = checkpoint.get("id")
    if not own_id:
        raise InvalidArgumentError('checkpoint_id: the checkpoint has no "id"', field="checkpoint_id")
    own_id = text("checkpoint_id", own_id)
    parent_id = checkpoint_id(config)
    versions = checkpoint.get("channel_versions") or {}
    is_plain = are_plain(versions) and are_plain(versions.values())
    if is_plain:
        channels, tags = [*versions], [f"s{version}" for version in versions.values()]
    else:
        channels = [text("channel", channel) for channel in versions]
        tags = [version_tag(version) for version in versions.values()]
    body = _body(serde, checkpoint, key, own_id)
    merged = get_checkpoint_metadata(config, metadata)
    type_tag, data = serde.dump(merged)
    if serde.encryption is not None:
        place = MetadataAssociatedData(*key, own_id, parent_id, body, channels, tags)
        type_tag, data = serde.seal(type_tag, data, place)
    request = pb.PutCheckpointRequest(
        thread_id=key.thread_id,
        checkpoint_ns=key.checkpoint_ns,
        checkpoint_id=own_id,
        parent_checkpoint_id=parent_id,
        body=body,
        channels=channels,
        channel_versions=tags,
        request_id=random_id(),
        metadata={"value": {"type": type_tag, "data": data}},
    )
    if index := index_of(serde, merged, type_tag, data):
        request.metadata.index = index
    outgoing = OutgoingCheckpoint(serde, cache, request)
    channel_values = checkpoint.get("channel_values") or {}
    for channel, version in new_versions.items():
        if is_plain and type(channel) is str and versions.get(channel) is version:
            name, tag = channel, f"s{version}"
        else:
            name, tag = text("channel", channel), version_tag(version)
        if channel in channel_values:
            outgoing.add(name, tag, *serde.dump(channel_values[channel]))
        else:
            request.values.add(channel=name, version=tag)
    outgoing.prepare_small()
    return outgoing


def put_writes(
    serde: ValueSerde,
    cache: ValueCache,
    config: RunnableConfig,
    writes: Sequence[tuple[str, Any]],
    task_id: str,
    task_path: str,
) -> OutgoingWrites:
    """Builds the request of `put_writes`, as `put` does."""
    key = namespace(config)
    beside = checkpoint_id(config)
    if not beside:
        raise InvalidArgumentError(
            "checkpoint_id: missing in the config; writes belong to a checkpoint", field="checkpoint_id"
        )
    request = pb.PutWritesRequest(
        thread_id=key.thread_id,
        checkpoint_ns=key.checkpoint_ns,
        checkpoint_id=beside,
        task_id=text("task_id", task_id),
        task_path=text("task_path", task_path),
        request_id=random_id(),
        serializer_family=serde.family,
    )
    outgoing = OutgoingWrites(serde, cache, request)
    for position, (channel, value) in enumerate(writes):
        idx = WRITES_IDX_MAP.get(channel, position)
        outgoing.add(idx, text("channel", channel), *serde.dump(value))
    outgoing.prepare_small()
    return outgoing


def get(config: RunnableConfig) -> pb.GetCheckpointRequest:
    """Builds the request of `get_tuple`, without known values."""
    key = namespace(config)
    return pb.GetCheckpointRequest(
        thread_id=key.thread_id, checkpoint_ns=key.checkpoint_ns, checkpoint_id=checkpoint_id(config), patches=True
    )


def list_checkpoints(
    serde: ValueSerde,
    config: RunnableConfig | None,
    *,
    filter: Mapping[str, Any] | None,
    before: RunnableConfig | None,
    limit: int | None,
) -> pb.ListCheckpointsRequest:
    """Builds the request for the first page of `list`."""
    if limit is not None and (type(limit) is not int or limit < 0):
        raise InvalidArgumentError(f"limit: {limit!r} is neither None nor an integer of 0 or more", field="limit")
    request = pb.ListCheckpointsRequest(before_checkpoint_id=checkpoint_id(before), patches=True, all_namespaces=True)
    if config is not None:
        request.thread_id = namespace(config).thread_id
        checkpoint_ns = config["configurable"].get("checkpoint_ns")
        if checkpoint_ns is not None:
            request.checkpoint_ns = text("checkpoint_ns", checkpoint_ns)
            request.all_namespaces = False
        if own_id := checkpoint_id(config):
            request.checkpoint_id = own_id
    if filter is not None and not isinstance(filter, Mapping):
        raise InvalidArgumentError(f"filter: must be a dict, not {type(filter).__name__}", field="filter")
    if filter:
        request.filter = filter_of(serde, filter)
    if limit:
        request.page_size = min(limit, MAX_PAGE)
    return request


def delta_history(config: RunnableConfig, channels: Sequence[str]) -> pb.GetDeltaChannelHistoryRequest:
    """Builds the request for the first page of `get_delta_channel_history`."""
    key = namespace(config)
    return pb.GetDeltaChannelHistoryRequest(
        thread_id=key.thread_id,
        checkpoint_ns=key.checkpoint_ns,
        checkpoint_id=checkpoint_id(config),
        channels=[text("channels", channel) for channel in dict.fromkeys(names("channels", channels))],
        patches=True,
    )


def _body(serde: ValueSerde, checkpoint: Checkpoint, key: Key, own_id: str) -> bytes:
    """Returns a checkpoint's own fields as a msgpack map: plain if that is exact, the others in `extra`."""
    body, extra = dict[str, Any](), dict[str, Any]()
    for name, value in checkpoint.items():
        if name in _PLAIN:
            body[name] = value
        elif name not in _ELSEWHERE:
            extra[name] = value
    if not extra and (packed := pack_exactly(body)) is not None:
        return packed
    for name in list(body):
        if pack_exactly(body[name]) is None:
            extra[name] = body.pop(name)
    body["extra"] = list(serde.seal(*serde.dump(extra), ExtraAssociatedData(*key, own_id)))
    return ormsgpack.packb(body)
