from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Capability(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    CAPABILITY_UNSPECIFIED: _ClassVar[Capability]
    CAPABILITY_VERSIONS: _ClassVar[Capability]
    CAPABILITY_DELTA_CHANNELS: _ClassVar[Capability]
    CAPABILITY_FORK: _ClassVar[Capability]
    CAPABILITY_LEASES: _ClassVar[Capability]
    CAPABILITY_BATCH: _ClassVar[Capability]
    CAPABILITY_PIECES: _ClassVar[Capability]
    CAPABILITY_STREAM_BATCHES: _ClassVar[Capability]
CAPABILITY_UNSPECIFIED: Capability
CAPABILITY_VERSIONS: Capability
CAPABILITY_DELTA_CHANNELS: Capability
CAPABILITY_FORK: Capability
CAPABILITY_LEASES: Capability
CAPABILITY_BATCH: Capability
CAPABILITY_PIECES: Capability
CAPABILITY_STREAM_BATCHES: Capability

class GetServerInfoRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetServerInfoResponse(_message.Message):
    __slots__ = ("version", "capabilities", "limits")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    CAPABILITIES_FIELD_NUMBER: _ClassVar[int]
    LIMITS_FIELD_NUMBER: _ClassVar[int]
    version: str
    capabilities: _containers.RepeatedScalarFieldContainer[Capability]
    limits: Limits
    def __init__(self, version: _Optional[str] = ..., capabilities: _Optional[_Iterable[_Union[Capability, str]]] = ..., limits: _Optional[_Union[Limits, _Mapping]] = ...) -> None: ...

class Limits(_message.Message):
    __slots__ = ("max_message_bytes", "max_thread_id_bytes", "max_checkpoint_ns_bytes", "max_checkpoint_id_bytes", "max_channel_bytes", "max_channel_version_bytes", "max_task_id_bytes", "max_task_path_bytes", "max_type_bytes", "max_filter_bytes", "max_filter_depth", "max_page_size", "max_page_bytes", "min_lease_ttl_ms", "max_lease_ttl_ms", "max_lease_wait_ms", "max_batch_operations", "max_value_bytes", "max_piece_bytes")
    MAX_MESSAGE_BYTES_FIELD_NUMBER: _ClassVar[int]
    MAX_THREAD_ID_BYTES_FIELD_NUMBER: _ClassVar[int]
    MAX_CHECKPOINT_NS_BYTES_FIELD_NUMBER: _ClassVar[int]
    MAX_CHECKPOINT_ID_BYTES_FIELD_NUMBER: _ClassVar[int]
    MAX_CHANNEL_BYTES_FIELD_NUMBER: _ClassVar[int]
    MAX_CHANNEL_VERSION_BYTES_FIELD_NUMBER: _ClassVar[int]
    MAX_TASK_ID_BYTES_FIELD_NUMBER: _ClassVar[int]
    MAX_TASK_PATH_BYTES_FIELD_NUMBER: _ClassVar[int]
    MAX_TYPE_BYTES_FIELD_NUMBER: _ClassVar[int]
    MAX_FILTER_BYTES_FIELD_NUMBER: _ClassVar[int]
    MAX_FILTER_DEPTH_FIELD_NUMBER: _ClassVar[int]
    MAX_PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    MAX_PAGE_BYTES_FIELD_NUMBER: _ClassVar[int]
    MIN_LEASE_TTL_MS_FIELD_NUMBER: _ClassVar[int]
    MAX_LEASE_TTL_MS_FIELD_NUMBER: _ClassVar[int]
    MAX_LEASE_WAIT_MS_FIELD_NUMBER: _ClassVar[int]
    MAX_BATCH_OPERATIONS_FIELD_NUMBER: _ClassVar[int]
    MAX_VALUE_BYTES_FIELD_NUMBER: _ClassVar[int]
    MAX_PIECE_BYTES_FIELD_NUMBER: _ClassVar[int]
    max_message_bytes: int
    max_thread_id_bytes: int
    max_checkpoint_ns_bytes: int
    max_checkpoint_id_bytes: int
    max_channel_bytes: int
    max_channel_version_bytes: int
    max_task_id_bytes: int
    max_task_path_bytes: int
    max_type_bytes: int
    max_filter_bytes: int
    max_filter_depth: int
    max_page_size: int
    max_page_bytes: int
    min_lease_ttl_ms: int
    max_lease_ttl_ms: int
    max_lease_wait_ms: int
    max_batch_operations: int
    max_value_bytes: int
    max_piece_bytes: int
    def __init__(self, max_message_bytes: _Optional[int] = ..., max_thread_id_bytes: _Optional[int] = ..., max_checkpoint_ns_bytes: _Optional[int] = ..., max_checkpoint_id_bytes: _Optional[int] = ..., max_channel_bytes: _Optional[int] = ..., max_channel_version_bytes: _Optional[int] = ..., max_task_id_bytes: _Optional[int] = ..., max_task_path_bytes: _Optional[int] = ..., max_type_bytes: _Optional[int] = ..., max_filter_bytes: _Optional[int] = ..., max_filter_depth: _Optional[int] = ..., max_page_size: _Optional[int] = ..., max_page_bytes: _Optional[int] = ..., min_lease_ttl_ms: _Optional[int] = ..., max_lease_ttl_ms: _Optional[int] = ..., max_lease_wait_ms: _Optional[int] = ..., max_batch_operations: _Optional[int] = ..., max_value_bytes: _Optional[int] = ..., max_piece_bytes: _Optional[int] = ...) -> None: ...
