"""From LangGraph's arguments to requests. Pure functions, shared by the sync and the async methods.

Everything is serialized here, before a call gives up control: the graph may change its state while a save is under way.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence, Set
from contextlib import suppress
from enum import Enum
from typing import Any, NamedTuple
from uuid import UUID

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import (
    WRITES_IDX_MAP,
    ChannelVersions,
    Checkpoint,
    CheckpointMetadata,
    get_checkpoint_metadata,
)
from langgraph.checkpoint.grpc.bindings import ChannelBinding, ExtraBinding, MetadataBinding, WriteBinding
from langgraph.checkpoint.grpc.codec import Codec, is_encrypted
from langgraph.checkpoint.grpc.errors import InvalidArgumentError
from langgraph.checkpoint.grpc.pieces import Cargo
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer

from checkpointd.v1 import checkpoint_service_pb2 as pb
from checkpointd.v1 import lease_service_pb2 as leases_pb
from checkpointd.v1 import thread_service_pb2 as threads_pb
from checkpointd.v1 import values_pb2 as values

PRUNE_STRATEGIES = {
    "keep_latest": threads_pb.PRUNE_STRATEGY_KEEP_LATEST,
    "delete": threads_pb.PRUNE_STRATEGY_DELETE,
    "delete_all": threads_pb.PRUNE_STRATEGY_DELETE,  # LangGraph's platform calls it so
}

_MAX_PAGE = 1000
_MAX_INDEX_BYTES = 64 * 1024
_MAX_INDEX_DEPTH = 32
_MAP_HEADER_BYTES = 5
_INDEX_SERDE = JsonPlusSerializer()


class Key(NamedTuple):
    """A namespace: what a version belongs to."""

    thread_id: str
    checkpoint_ns: str


def namespace(config: RunnableConfig) -> Key:
    """Returns the namespace that a config names. Raises InvalidArgumentError if it names no thread."""
    configurable = config.get("configurable") or {}
    thread_id = configurable.get("thread_id")
    if thread_id is None:
        raise InvalidArgumentError(
            'thread_id: missing; pass config={"configurable": {"thread_id": "..."}}', field="thread_id"
        )
    return Key(thread(thread_id), _text("checkpoint_ns", configurable.get("checkpoint_ns") or ""))


def key_of(request: pb.GetCheckpointRequest | pb.ListCheckpointsRequest) -> Key:
    """Returns the namespace that a request names."""
    return Key(request.thread_id, request.checkpoint_ns)


def checkpoint_id(config: RunnableConfig | None) -> str | None:
    """Returns the checkpoint id that a config names; None for none, which "" stands for too."""
    found = (config or {}).get("configurable", {}).get("checkpoint_id")
    return _text("checkpoint_id", found) if found else None


def put(
    codec: Codec,
    config: RunnableConfig,
    checkpoint: Checkpoint,
    metadata: CheckpointMetadata,
    new_versions: ChannelVersions,
) -> tuple[pb.PutCheckpointRequest, Cargo]:
    """Builds the request of `put`, and the values that are too large for it.

    The precondition is left to whoever knows the run.
    """
    key = namespace(config)
    own_id = checkpoint.get("id")
    if not own_id:
        raise InvalidArgumentError('checkpoint_id: the checkpoint has no "id"', field="checkpoint_id")
    channel_values = checkpoint.get("channel_values") or {}
    request = pb.PutCheckpointRequest(
        thread_id=key.thread_id,
        checkpoint_ns=key.checkpoint_ns,
        checkpoint_id=_text("checkpoint_id", own_id),
        parent_checkpoint_id=checkpoint_id(config),
        request_id=request_id(),
    )
    _fill_checkpoint(request, codec, checkpoint)
    _fill_metadata(request, codec, get_checkpoint_metadata(config, metadata))
    cargo = Cargo()
    for channel, version in new_versions.items():
        entry = request.values.add(channel=_text("channel", channel))
        _set_version(entry.version, version)
        if channel in channel_values:
            binding = ChannelBinding(*key, channel, entry.version)
            cargo.load(entry.value, *codec.dump(channel_values[channel], binding))
    return request, cargo


def put_writes(
    codec: Codec,
    config: RunnableConfig,
    writes: Sequence[tuple[str, Any]],
    task_id: str,
    task_path: str,
) -> tuple[pb.PutWritesRequest, Cargo]:
    """Builds the request of `put_writes`, as `put` does."""
    key = namespace(config)
    beside = checkpoint_id(config)
    if beside is None:
        raise InvalidArgumentError(
            "checkpoint_id: writes belong to a checkpoint, the config names none", field="checkpoint_id"
        )
    request = pb.PutWritesRequest(
        thread_id=key.thread_id,
        checkpoint_ns=key.checkpoint_ns,
        checkpoint_id=beside,
        task_id=_text("task_id", task_id),
        task_path=_text("task_path", task_path),
        request_id=request_id(),
    )
    cargo = Cargo()
    for position, (channel, value) in enumerate(writes):
        entry = request.writes.add(idx=WRITES_IDX_MAP.get(channel, position), channel=_text("channel", channel))
        binding = WriteBinding(*key, beside, request.task_id, request.task_path, entry.idx, entry.channel)
        cargo.load(entry.value, *codec.dump(value, binding))
    return request, cargo


def get(config: RunnableConfig) -> pb.GetCheckpointRequest:
    """Builds the request of `get_tuple`."""
    key = namespace(config)
    return pb.GetCheckpointRequest(
        thread_id=key.thread_id, checkpoint_ns=key.checkpoint_ns, checkpoint_id=checkpoint_id(config)
    )


def list_checkpoints(
    codec: Codec,
    config: RunnableConfig | None,
    *,
    filter: Mapping[str, Any] | None,
    before: RunnableConfig | None,
    limit: int | None,
) -> pb.ListCheckpointsRequest:
    """Builds the request for the first page of `list`."""
    if limit is not None and (type(limit) is not int or limit < 0):
        raise InvalidArgumentError(f"limit: {limit!r} is not a whole number from 0 up, nor None", field="limit")
    request = pb.ListCheckpointsRequest(before_checkpoint_id=checkpoint_id(before))
    if config is not None:
        request.thread_id = namespace(config).thread_id
        checkpoint_ns = config["configurable"].get("checkpoint_ns")
        if checkpoint_ns is not None:
            request.checkpoint_ns = _text("checkpoint_ns", checkpoint_ns)
        if own_id := checkpoint_id(config):
            request.checkpoint_id = own_id
    if filter is not None and not isinstance(filter, Mapping):
        raise InvalidArgumentError(f"filter: must be a dict, not {type(filter).__name__}", field="filter")
    if filter:
        request.filter = _filter(codec, filter)
    if limit:
        request.page_size = page_size(limit)
    return request


def page_size(limit: int) -> int:
    """Returns how many checkpoints to ask for at once, for so many at the most."""
    return min(limit, _MAX_PAGE)


def delta_history(config: RunnableConfig, channels: Sequence[str]) -> pb.GetDeltaChannelHistoryRequest:
    """Builds the request of `get_delta_channel_history`."""
    key = namespace(config)
    return pb.GetDeltaChannelHistoryRequest(
        thread_id=key.thread_id,
        checkpoint_ns=key.checkpoint_ns,
        checkpoint_id=checkpoint_id(config),
        channels=[_text("channels", channel) for channel in _listed("channels", channels)],
    )


def delete_thread(thread_id: str) -> threads_pb.DeleteThreadRequest:
    """Builds the request of `delete_thread`."""
    return threads_pb.DeleteThreadRequest(thread_id=thread(thread_id))


def delete_runs(run_ids: Sequence[str]) -> list[threads_pb.DeleteRunsRequest]:
    """Builds the requests of `delete_for_runs`, as many as the server's limit asks for."""
    names = [_text("run_ids", str(run_id)) for run_id in _listed("run_ids", run_ids)]
    return [threads_pb.DeleteRunsRequest(run_ids=names[i : i + _MAX_PAGE]) for i in range(0, len(names), _MAX_PAGE)]


def copy_thread(source: str, target: str, at: str | None) -> threads_pb.CopyThreadRequest:
    """Builds the request of `copy_thread`."""
    return threads_pb.CopyThreadRequest(
        source_thread_id=thread(source, "source_thread_id"),
        target_thread_id=thread(target, "target_thread_id"),
        checkpoint_id=_text("checkpoint_id", at) if at else None,
        request_id=request_id(),
    )


def prune(thread_ids: Sequence[str], strategy: str) -> list[threads_pb.PruneThreadsRequest]:
    """Builds the requests of `prune`, as many as the server's limit asks for."""
    if strategy not in PRUNE_STRATEGIES:
        known = " or ".join(f'"{name}"' for name in PRUNE_STRATEGIES)
        raise InvalidArgumentError(f"strategy: {strategy!r} is unknown; use {known}", field="strategy")
    names = [thread(thread_id, "thread_ids") for thread_id in _listed("thread_ids", thread_ids)]
    return [
        threads_pb.PruneThreadsRequest(thread_ids=names[i : i + _MAX_PAGE], strategy=PRUNE_STRATEGIES[strategy])
        for i in range(0, len(names), _MAX_PAGE)
    ]


def _fill_checkpoint(request: pb.PutCheckpointRequest, codec: Codec, checkpoint: Checkpoint) -> None:
    """Writes a checkpoint's own fields: typed where that is exact, the others into `extra`."""
    message = request.checkpoint
    extra: dict[str, Any] = {}
    for name, value in checkpoint.items():
        match name, value:
            case (("id" | "channel_values"), _):
                pass
            case "v", int() if type(value) is int and -(2**31) <= value < 2**31:
                message.v = value
            case "ts", str() if type(value) is str and _encodable(value):
                message.ts = value
            case "channel_versions", dict():
                message.channel_versions.SetInParent()
                for channel, version in value.items():
                    _set_version(message.channel_versions.versions[_text("channel", channel)], version)
            case "versions_seen", dict():
                for node, seen in value.items():
                    node_versions = message.versions_seen[_text("versions_seen", node)]
                    for channel, version in seen.items():
                        _set_version(node_versions.versions[_text("channel", channel)], version)
            case "updated_channels", list():
                message.updated_channels.SetInParent()
                message.updated_channels.names.extend([_text("updated_channels", channel) for channel in value])
            case "updated_channels", None:
                pass
            case _:
                extra[name] = value
    if extra:
        binding = ExtraBinding(request.thread_id, request.checkpoint_ns, request.checkpoint_id)
        message.extra.type, message.extra.data = codec.dump(extra, binding)


def _set_version(message: values.ChannelVersion, version: str | int | float) -> None:
    """Writes a channel's version with its type."""
    kind = type(version)
    if kind is str:
        message.text = _text("channel version", version)
    elif kind is int and -(2**63) <= version < 2**63:  # type: ignore[operator]
        message.integer = version  # type: ignore[assignment]
    elif kind is float:
        message.number = version  # type: ignore[assignment]
    else:
        raise InvalidArgumentError(
            f"channel version: must be a str, a 64-bit int or a float, not {kind.__name__}", field="channel_versions"
        )


def _fill_metadata(request: pb.PutCheckpointRequest, codec: Codec, metadata: CheckpointMetadata) -> None:
    """Writes a checkpoint's metadata and, where the server can't read it or isn't to, what filters may see of it.

    The checkpoint's own fields must have been written before: encrypted metadata vouches for them.
    """
    place = (request.thread_id, request.checkpoint_ns, request.checkpoint_id, request.parent_checkpoint_id)
    message = request.metadata
    message.value.type, message.value.data = codec.dump(metadata, MetadataBinding(*place, request.checkpoint))
    message.index = index_of(codec, metadata, message.value.type)


def index_of(codec: Codec, metadata: Mapping[str, Any], type_tag: str) -> bytes:
    """Returns what filters may see of metadata that is stored with this tag; empty: what the server reads itself."""
    keys = codec.searchable(is_encrypted(type_tag))
    if keys is not None:
        return _searchable({key: value for key, value in metadata.items() if key in keys})
    return b"" if type_tag == "msgpack" and _is_plain(metadata) else _searchable(metadata)


def _searchable(metadata: Mapping[str, Any]) -> bytes:
    """Returns what filters may see of metadata: the entries that fit into an index, the smallest first.

    What doesn't fit can't be searched, and is stored all the same. The server does likewise where it reads the metadata
    itself.
    """
    sizes: dict[str, int] = {}
    for key, value in metadata.items():
        if _nests_within(value, _MAX_INDEX_DEPTH - 1):
            # What only another serializer can encode is not for the server to see.
            with suppress(TypeError, ValueError):
                sizes[key] = len(_index({key: value}))
    fitting: set[str] = set()
    room = _MAX_INDEX_BYTES - _MAP_HEADER_BYTES
    for key in sorted(sizes, key=sizes.__getitem__):
        room -= sizes[key]
        if room < 0:
            break
        fitting.add(key)
    return _index({key: value for key, value in metadata.items() if key in fitting})


def _nests_within(value: Any, depth: int) -> bool:
    """Whether a value has at most so many containers within each other."""
    if isinstance(value, Mapping):
        return depth > 0 and all(
            _nests_within(key, depth - 1) and _nests_within(item, depth - 1) for key, item in value.items()
        )
    if isinstance(value, list | tuple):
        return depth > 0 and all(_nests_within(item, depth - 1) for item in value)
    return True


def _filter(codec: Codec, filter: Mapping[str, Any]) -> bytes:
    """Builds a filter, in the same encoding as the metadata that it is compared with."""
    keys = codec.searchable(codec.encrypts)
    if keys is not None and (hidden := sorted(str(key) for key in filter if key not in keys)):
        because = "this saver encrypts metadata" if codec.encrypts else "searchable_metadata leaves it out"
        raise InvalidArgumentError(
            f"filter: {', '.join(hidden)} can't be searched, because {because}; only {', '.join(sorted(keys))} can",
            field="filter",
        )
    try:
        return _index(filter)
    except Exception as error:  # whatever it is: the serializer couldn't write one of the values down
        raise InvalidArgumentError(
            f"filter: holds a value that can't be compared with metadata ({type(error).__name__}); give texts, "
            "numbers, booleans, None, and lists and dicts of them",
            field="filter",
        ) from error


def _index(metadata: Mapping[str, Any]) -> bytes:
    return _INDEX_SERDE.dumps_typed(plain(metadata))[1]


def plain(value: Any) -> Any:
    """Returns metadata, or a filter, in which enums that are texts or numbers are these, and UUIDs are their texts.

    A serializer keeps their types. Metadata that tells them apart would never equal what people search for.
    """
    match value:
        case bool():
            return value
        case UUID():
            return str(value)
        case Enum() if isinstance(value, str | int | float):
            return value.value
        case Mapping():
            return {plain(key): plain(item) for key, item in value.items()}
        case list() | tuple() if type(value) in (list, tuple):
            return type(value)(plain(item) for item in value)
        case _:
            return value


def _is_plain(value: Any) -> bool:
    if isinstance(value, Mapping):
        return all(_is_plain(key) and _is_plain(item) for key, item in value.items())
    if isinstance(value, list | tuple):
        return all(map(_is_plain, value))
    return not isinstance(value, Enum | UUID)


def acquire_lease(thread_id: str, holder: bytes, *, ttl: float, wait: float) -> leases_pb.AcquireLeaseRequest:
    """Builds the request for a lease; times are in seconds."""
    return leases_pb.AcquireLeaseRequest(
        thread_id=thread_id, holder=holder, ttl_ms=_milliseconds(ttl), wait_ms=int(wait * 1000)
    )


def renew_lease(thread_id: str, token: int, *, ttl: float) -> leases_pb.RenewLeaseRequest:
    """Builds the request to extend a lease, by a time in seconds."""
    return leases_pb.RenewLeaseRequest(thread_id=thread_id, token=token, ttl_ms=_milliseconds(ttl))


def release_lease(thread_id: str, holder: bytes) -> leases_pb.ReleaseLeaseRequest:
    """Builds the request to give up a lease, or the place in line for it."""
    return leases_pb.ReleaseLeaseRequest(thread_id=thread_id, holder=holder)


def request_id() -> bytes:
    """Returns what a write is recognized by that is sent again.

    From the operating system: users' tests seed `random`, and give `uuid.uuid4` ids of their own.
    """
    return os.urandom(16)


def _listed(field: str, names: Any) -> Iterable[Any]:
    """Returns what was given as a list of names. One name alone would be taken for the names of its letters."""
    if isinstance(names, str | bytes | bytearray) or not isinstance(names, Iterable):
        raise InvalidArgumentError(f"{field}: must be a list of names, not {type(names).__name__}", field=field)
    return names


def thread(thread_id: Any, field: str = "thread_id") -> str:
    """Returns a thread id as text: LangGraph takes ints and UUIDs for one too."""
    if thread_id is None or (
        isinstance(thread_id, bytes | bytearray | Sequence | Set | Mapping) and not isinstance(thread_id, str)
    ):
        raise InvalidArgumentError(f"{field}: must be one name, not {type(thread_id).__name__}", field=field)
    name = _text(field, str(thread_id))
    if not name:
        raise InvalidArgumentError(f"{field}: must not be empty", field=field)
    return name


def _text(field: str, value: Any) -> str:
    """Returns a piece of text that protobuf can carry."""
    if not isinstance(value, str):
        raise InvalidArgumentError(f"{field}: must be text, not {type(value).__name__}", field=field)
    if not _encodable(value):
        raise InvalidArgumentError(f"{field}: is not valid Unicode (it holds a lone surrogate)", field=field)
    # An enum that is also a str: protobuf wants the plain text.
    return value if type(value) is str else str.__str__(value)


def _milliseconds(seconds: float) -> int:
    """Returns a time as the protocol has it: not 0, which would stand for its default."""
    return max(int(min(seconds, 2**31) * 1000), 1)


def _encodable(value: str) -> bool:
    """Whether text can be written as UTF-8: lone surrogates can't."""
    if value.isascii():
        return True
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True
