"""Values, task writes and metadata: protobuf to domain, with checks, and back."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from zlib import crc32 as checksum_of

from checkpointd.v1 import values_pb2 as pb
from checkpointd_server.domain.checkpoints import Precondition, TaskWrite
from checkpointd_server.domain.errors import BrokenPatch, InvalidArgument
from checkpointd_server.domain.limits import Limits
from checkpointd_server.domain.patches import check_instructions
from checkpointd_server.domain.values import ChannelValue, KnownValue, Parts, Patch, StoredValue, TypedValue
from checkpointd_server.rpc.conversion.validation import (
    are_plain,
    check_count,
    check_distinct,
    check_optional_text,
    check_text,
    check_texts,
    check_token,
    check_version,
    check_versions,
)

UPLOAD_ID_BYTES = 16
"""Length of an upload's id, in bytes."""
_USUAL_TYPES = frozenset({"msgpack", "null", "json", "bytes", "bytearray"})
"""Common tags, which need no check."""


def read_channel_values(
    messages: Sequence[pb.ChannelValue], checked_channels: set[str], checked_versions: set[str], limits: Limits
) -> list[ChannelValue]:
    """Returns the changed channels of a put.

    Args:
        messages: The changed channels.
        checked_channels: Names of channels that are known to be valid: all that the checkpoint has.
        checked_versions: Versions that are known to be valid.
        limits: The limits of requests.

    Raises:
        InvalidArgument: A name, version, value or patch is invalid, or there are too many of them.
    """
    check_count(len(messages), "values", limits.max_values)
    values: list[ChannelValue] = []
    channels: list[str] = []
    versions: list[str] = []
    types: list[str] = []
    operations = limits.max_patch_operations
    for message in messages:
        channel, version, typed = message.channel, message.version, None
        channels.append(channel)
        versions.append(version)
        if message.HasField("value"):
            value = message.value
            types.append(value.type)
            if value.HasField("patch"):
                field = f"values[{len(values)}].value"
                typed, taken = _read_patched(value, field, operations, limits)
                operations -= taken
                if value.patch.base_version == version:
                    raise InvalidArgument(f"{field}.patch.base_version", "is the version of the value itself")
            elif value.HasField("parts"):
                typed = _read_parted(value, f"values[{len(values)}].value", limits)
            else:
                data, crc32 = value.data, value.crc32
                if crc32 and checksum_of(data) != crc32:
                    raise InvalidArgument(f"values[{len(values)}].value.crc32", "is not that of the value's data")
                typed = TypedValue(value.type, data, None, None, crc32)
        values.append(ChannelValue(channel, version, typed))
    if not checked_channels.issuperset(channels):
        check_texts(channels, "values[{}].channel", limits.max_channel_bytes)
    if not checked_versions.issuperset(versions):
        check_versions(versions, "values[{}].version", limits)
    check_distinct(channels, "values[{}].channel")
    if not (_USUAL_TYPES.issuperset(types) or are_plain(types, limits.max_type_bytes)):
        for position, (_, _, typed) in enumerate(values):
            if typed is not None:
                check_text(typed.type, f"values[{position}].value.type", limits.max_type_bytes)
    return values


def _read_patched(message: pb.TypedValue, field: str, operations: int, limits: Limits) -> tuple[TypedValue, int]:
    """Returns a value that is a patch, and how many operations it has, of those that are left to the request."""
    patch, data = message.patch, message.data
    base_version, size, crc32, base_crc32 = patch.base_version, patch.size, patch.crc32, patch.base_crc32
    check_version(base_version, f"{field}.patch.base_version", limits.max_channel_version_bytes + 1)
    if not 0 <= size <= limits.max_value_bytes:
        limit = limits.max_value_bytes
        raise InvalidArgument(f"{field}.patch.size", f"is {size}, 0 to {limit} are allowed", limit=limit)
    if patch.sealed:
        sealed_patch = Patch(base_version, size, crc32, sealed=True, base_crc32=base_crc32)
        if message.HasField("parts"):
            return _read_parted(message, field, limits)._replace(patch=sealed_patch), 0
        return TypedValue(message.type, data, sealed_patch), 0
    if message.HasField("parts"):
        problem = "must be unset for a patch that isn't sealed: its instructions travel in the message"
        raise InvalidArgument(f"{field}.parts", problem)
    try:
        taken, reach = check_instructions(data, size, max_operations=operations)
    except BrokenPatch as error:
        raise InvalidArgument(f"{field}.data", f"is no usable patch: {error}") from None
    return TypedValue(message.type, data, Patch(base_version, size, crc32, False, reach, base_crc32)), taken


def _read_parted(message: pb.TypedValue, field: str, limits: Limits) -> TypedValue:
    """Returns a value whose bytes were uploaded before."""
    if message.data:
        raise InvalidArgument(f"{field}.data", "must be empty where the bytes were sent ahead")
    upload_id, size = message.parts.upload_id, message.parts.size
    check_upload_id(upload_id, f"{field}.parts.upload_id")
    if not 0 < size <= limits.max_value_bytes:
        limit = limits.max_value_bytes
        raise InvalidArgument(
            f"{field}.parts.size", f"is {size}, 1 to {limit} are allowed (--max-value-bytes)", limit=limit
        )
    return TypedValue(message.type, b"", None, Parts(upload_id, size), message.crc32)


def check_upload_id(upload_id: bytes, field: str) -> None:
    """Checks an upload's id. Raises InvalidArgument."""
    if len(upload_id) != UPLOAD_ID_BYTES:
        raise InvalidArgument(field, f"has {len(upload_id)} bytes, an upload's id has {UPLOAD_ID_BYTES}")


def read_task_writes(messages: Sequence[pb.TaskWrite], task_id: str, task_path: str, limits: Limits) -> list[TaskWrite]:
    """Returns the writes of a task, one per idx. Raises InvalidArgument."""
    check_count(len(messages), "writes", limits.max_values)
    writes: dict[int, TaskWrite] = {}
    channels: list[str] = []
    types: list[str] = []
    operations = limits.max_patch_operations
    for position, message in enumerate(messages):
        if message.task_id or message.task_path or message.checkpoint_id:
            _refuse_names(message, position)
        if not message.HasField("value"):
            raise InvalidArgument(f"writes[{position}].value", "is required")
        value, channel, idx = message.value, message.channel, message.idx
        if value.HasField("patch"):
            typed, taken = _read_patched(value, f"writes[{position}].value", operations, limits)
            operations -= taken
        elif value.HasField("parts"):
            typed = _read_parted(value, f"writes[{position}].value", limits)
        else:
            typed = TypedValue(value.type, value.data)
        channels.append(channel)
        types.append(typed.type)
        if idx < 0 or idx not in writes:
            writes[idx] = TaskWrite(task_id, task_path, idx, channel, typed)
    check_texts(channels, "writes[{}].channel", limits.max_channel_bytes)
    _check_names(channels, task_id, task_path, limits)
    if not _USUAL_TYPES.issuperset(types):
        check_texts(types, "writes[{}].value.type", limits.max_type_bytes)
    return list(writes.values())


def _check_names(channels: Sequence[str], task_id: str, task_path: str, limits: Limits) -> None:
    """Checks the total size of the names of writes: each write is stored and read with all of them."""
    limit = limits.max_checkpoint_bytes
    if len(channels) * (len(task_path) + limits.max_task_id_bytes + limits.max_channel_bytes) > limit:
        each = len(task_path.encode()) + len(task_id.encode())
        size = each * len(channels) + len("".join(channels).encode())
        if size > limit:
            raise InvalidArgument("writes", f"have {size} bytes of names, at most {limit} are allowed", limit=limit)


def _refuse_names(message: pb.TaskWrite, position: int) -> None:
    for name, what in (("task_id", "task"), ("task_path", "task"), ("checkpoint_id", "checkpoint")):
        if getattr(message, name):
            problem = f"must be unset: the request names the {what} of all its writes"
            raise InvalidArgument(f"writes[{position}].{name}", problem)


def read_whole_value(message: pb.TypedValue, field: str, limits: Limits) -> TypedValue:
    """Returns a value that may be neither a patch nor uploaded. Raises InvalidArgument."""
    if message.HasField("patch"):
        raise InvalidArgument(f"{field}.patch", "must be unset: only channels' values and task writes may be patches")
    if message.HasField("parts"):
        raise InvalidArgument(f"{field}.parts", "must be unset: only channels' values and task writes may lie apart")
    check_text(message.type, f"{field}.type", limits.max_type_bytes)
    return TypedValue(message.type, message.data)


def read_precondition(message: pb.Precondition, limits: Limits) -> Precondition | None:
    """Returns a write's precondition, or None. Raises InvalidArgument."""
    version = message.if_version_match if message.HasField("if_version_match") else None
    if version is not None and version < 0:
        raise InvalidArgument("precondition.if_version_match", "is negative; versions begin at 1, and 0 means none yet")
    writer, checkpoint_id = message.if_last_writer, message.if_last_checkpoint_id
    if checkpoint_id:
        if not writer:
            raise InvalidArgument("precondition.if_last_checkpoint_id", "needs if_last_writer beside it")
        check_optional_text(checkpoint_id, "precondition.if_last_checkpoint_id", limits.max_checkpoint_id_bytes)
    elif not writer:
        return None if version is None else Precondition(version)
    check_token(writer, "precondition.if_last_writer", limits.max_token_bytes)
    return Precondition(version, writer, checkpoint_id)


def read_known(messages: Sequence[pb.KnownValue], limits: Limits) -> list[KnownValue]:
    """Returns the values that a reader already has. Raises InvalidArgument."""
    check_count(len(messages), "known", limits.max_known)
    known = [KnownValue(message.channel, message.version, message.crc32) for message in messages]
    check_texts([key.channel for key in known], "known[{}].channel", limits.max_channel_bytes)
    check_versions([key.version for key in known], "known[{}].version", limits)
    return known


def write_value(value: TypedValue, message: pb.TypedValue) -> None:
    """Fills a value in."""
    message.type, message.data, patch, parts, crc32 = value
    if patch is not None:
        written = message.patch
        written.base_version, written.size, written.crc32, written.sealed, *_ = patch
    if parts is not None:
        message.parts.size = parts.size
    if crc32:
        message.crc32 = crc32


def write_stored_values(values: Iterable[StoredValue], messages: Sequence[pb.StoredValue]) -> None:
    """Fills in rows of values unchanged."""
    add = messages.add  # type: ignore[attr-defined]
    for position, channel, version, value in values:
        message = add(channel=channel, version=version)
        if position:
            message.tuple = position
        write_value(value, message.value)


def write_task_writes(writes: Iterable[TaskWrite], messages: Sequence[pb.TaskWrite]) -> None:
    """Fills a list of task writes in."""
    add = messages.add  # type: ignore[attr-defined]
    for task_id, task_path, idx, channel, value in writes:
        write_value(value, add(task_id=task_id, task_path=task_path, idx=idx, channel=channel).value)
