import datetime

from checkpointd.v1 import values_pb2 as _values_pb2
from google.protobuf import struct_pb2 as _struct_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class PruneStrategy(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    PRUNE_STRATEGY_UNSPECIFIED: _ClassVar[PruneStrategy]
    PRUNE_STRATEGY_KEEP_LATEST: _ClassVar[PruneStrategy]
    PRUNE_STRATEGY_DELETE: _ClassVar[PruneStrategy]

class ThreadStatus(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    THREAD_STATUS_UNSPECIFIED: _ClassVar[ThreadStatus]
    THREAD_STATUS_IDLE: _ClassVar[ThreadStatus]
    THREAD_STATUS_RUNNING: _ClassVar[ThreadStatus]
    THREAD_STATUS_INTERRUPTED: _ClassVar[ThreadStatus]
    THREAD_STATUS_FAILED: _ClassVar[ThreadStatus]
PRUNE_STRATEGY_UNSPECIFIED: PruneStrategy
PRUNE_STRATEGY_KEEP_LATEST: PruneStrategy
PRUNE_STRATEGY_DELETE: PruneStrategy
THREAD_STATUS_UNSPECIFIED: ThreadStatus
THREAD_STATUS_IDLE: ThreadStatus
THREAD_STATUS_RUNNING: ThreadStatus
THREAD_STATUS_INTERRUPTED: ThreadStatus
THREAD_STATUS_FAILED: ThreadStatus

class DeleteThreadRequest(_message.Message):
    __slots__ = ("thread_id", "lease_token")
    THREAD_ID_FIELD_NUMBER: _ClassVar[int]
    LEASE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    thread_id: str
    lease_token: int
    def __init__(self, thread_id: _Optional[str] = ..., lease_token: _Optional[int] = ...) -> None: ...

class DeleteThreadResponse(_message.Message):
    __slots__ = ("deleted_checkpoints",)
    DELETED_CHECKPOINTS_FIELD_NUMBER: _ClassVar[int]
    deleted_checkpoints: int
    def __init__(self, deleted_checkpoints: _Optional[int] = ...) -> None: ...

class DeleteRunsRequest(_message.Message):
    __slots__ = ("run_ids", "leases")
    RUN_IDS_FIELD_NUMBER: _ClassVar[int]
    LEASES_FIELD_NUMBER: _ClassVar[int]
    run_ids: _containers.RepeatedScalarFieldContainer[str]
    leases: _containers.RepeatedCompositeFieldContainer[_values_pb2.ThreadLease]
    def __init__(self, run_ids: _Optional[_Iterable[str]] = ..., leases: _Optional[_Iterable[_Union[_values_pb2.ThreadLease, _Mapping]]] = ...) -> None: ...

class DeleteRunsResponse(_message.Message):
    __slots__ = ("deleted_checkpoints",)
    DELETED_CHECKPOINTS_FIELD_NUMBER: _ClassVar[int]
    deleted_checkpoints: int
    def __init__(self, deleted_checkpoints: _Optional[int] = ...) -> None: ...

class CopyThreadRequest(_message.Message):
    __slots__ = ("source_thread_id", "target_thread_id", "checkpoint_id", "request_id", "lease_token")
    SOURCE_THREAD_ID_FIELD_NUMBER: _ClassVar[int]
    TARGET_THREAD_ID_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINT_ID_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    LEASE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    source_thread_id: str
    target_thread_id: str
    checkpoint_id: str
    request_id: bytes
    lease_token: int
    def __init__(self, source_thread_id: _Optional[str] = ..., target_thread_id: _Optional[str] = ..., checkpoint_id: _Optional[str] = ..., request_id: _Optional[bytes] = ..., lease_token: _Optional[int] = ...) -> None: ...

class CopyThreadResponse(_message.Message):
    __slots__ = ("copied_checkpoints",)
    COPIED_CHECKPOINTS_FIELD_NUMBER: _ClassVar[int]
    copied_checkpoints: int
    def __init__(self, copied_checkpoints: _Optional[int] = ...) -> None: ...

class PruneThreadsRequest(_message.Message):
    __slots__ = ("thread_ids", "strategy", "leases")
    THREAD_IDS_FIELD_NUMBER: _ClassVar[int]
    STRATEGY_FIELD_NUMBER: _ClassVar[int]
    LEASES_FIELD_NUMBER: _ClassVar[int]
    thread_ids: _containers.RepeatedScalarFieldContainer[str]
    strategy: PruneStrategy
    leases: _containers.RepeatedCompositeFieldContainer[_values_pb2.ThreadLease]
    def __init__(self, thread_ids: _Optional[_Iterable[str]] = ..., strategy: _Optional[_Union[PruneStrategy, str]] = ..., leases: _Optional[_Iterable[_Union[_values_pb2.ThreadLease, _Mapping]]] = ...) -> None: ...

class PruneThreadsResponse(_message.Message):
    __slots__ = ("deleted_checkpoints",)
    DELETED_CHECKPOINTS_FIELD_NUMBER: _ClassVar[int]
    deleted_checkpoints: int
    def __init__(self, deleted_checkpoints: _Optional[int] = ...) -> None: ...

class ThreadTag(_message.Message):
    __slots__ = ("name", "text")
    NAME_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    name: str
    text: str
    def __init__(self, name: _Optional[str] = ..., text: _Optional[str] = ...) -> None: ...

class ThreadSignal(_message.Message):
    __slots__ = ("task_id", "is_error", "json")
    TASK_ID_FIELD_NUMBER: _ClassVar[int]
    IS_ERROR_FIELD_NUMBER: _ClassVar[int]
    JSON_FIELD_NUMBER: _ClassVar[int]
    task_id: str
    is_error: bool
    json: str
    def __init__(self, task_id: _Optional[str] = ..., is_error: bool = ..., json: _Optional[str] = ...) -> None: ...

class Thread(_message.Message):
    __slots__ = ("thread_id", "status", "checkpoints", "bytes", "created_at", "active_at", "checkpoint_id", "metadata_json", "next", "signals", "tags", "archived_at", "pinned", "ttl_seconds", "serializer_family")
    THREAD_ID_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINTS_FIELD_NUMBER: _ClassVar[int]
    BYTES_FIELD_NUMBER: _ClassVar[int]
    CREATED_AT_FIELD_NUMBER: _ClassVar[int]
    ACTIVE_AT_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINT_ID_FIELD_NUMBER: _ClassVar[int]
    METADATA_JSON_FIELD_NUMBER: _ClassVar[int]
    NEXT_FIELD_NUMBER: _ClassVar[int]
    SIGNALS_FIELD_NUMBER: _ClassVar[int]
    TAGS_FIELD_NUMBER: _ClassVar[int]
    ARCHIVED_AT_FIELD_NUMBER: _ClassVar[int]
    PINNED_FIELD_NUMBER: _ClassVar[int]
    TTL_SECONDS_FIELD_NUMBER: _ClassVar[int]
    SERIALIZER_FAMILY_FIELD_NUMBER: _ClassVar[int]
    thread_id: str
    status: ThreadStatus
    checkpoints: int
    bytes: int
    created_at: _timestamp_pb2.Timestamp
    active_at: _timestamp_pb2.Timestamp
    checkpoint_id: str
    metadata_json: str
    next: _containers.RepeatedScalarFieldContainer[str]
    signals: _containers.RepeatedCompositeFieldContainer[ThreadSignal]
    tags: _containers.RepeatedCompositeFieldContainer[ThreadTag]
    archived_at: _timestamp_pb2.Timestamp
    pinned: bool
    ttl_seconds: int
    serializer_family: _values_pb2.SerializerFamily
    def __init__(self, thread_id: _Optional[str] = ..., status: _Optional[_Union[ThreadStatus, str]] = ..., checkpoints: _Optional[int] = ..., bytes: _Optional[int] = ..., created_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., active_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., checkpoint_id: _Optional[str] = ..., metadata_json: _Optional[str] = ..., next: _Optional[_Iterable[str]] = ..., signals: _Optional[_Iterable[_Union[ThreadSignal, _Mapping]]] = ..., tags: _Optional[_Iterable[_Union[ThreadTag, _Mapping]]] = ..., archived_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., pinned: bool = ..., ttl_seconds: _Optional[int] = ..., serializer_family: _Optional[_Union[_values_pb2.SerializerFamily, str]] = ...) -> None: ...

class ThreadFilter(_message.Message):
    __slots__ = ("thread_id_prefix", "metadata", "tags", "statuses", "created_from", "created_before", "active_from", "active_before", "archived", "metadata_struct")
    THREAD_ID_PREFIX_FIELD_NUMBER: _ClassVar[int]
    METADATA_FIELD_NUMBER: _ClassVar[int]
    TAGS_FIELD_NUMBER: _ClassVar[int]
    STATUSES_FIELD_NUMBER: _ClassVar[int]
    CREATED_FROM_FIELD_NUMBER: _ClassVar[int]
    CREATED_BEFORE_FIELD_NUMBER: _ClassVar[int]
    ACTIVE_FROM_FIELD_NUMBER: _ClassVar[int]
    ACTIVE_BEFORE_FIELD_NUMBER: _ClassVar[int]
    ARCHIVED_FIELD_NUMBER: _ClassVar[int]
    METADATA_STRUCT_FIELD_NUMBER: _ClassVar[int]
    thread_id_prefix: str
    metadata: bytes
    tags: _containers.RepeatedCompositeFieldContainer[ThreadTag]
    statuses: _containers.RepeatedScalarFieldContainer[ThreadStatus]
    created_from: _timestamp_pb2.Timestamp
    created_before: _timestamp_pb2.Timestamp
    active_from: _timestamp_pb2.Timestamp
    active_before: _timestamp_pb2.Timestamp
    archived: bool
    metadata_struct: _struct_pb2.Struct
    def __init__(self, thread_id_prefix: _Optional[str] = ..., metadata: _Optional[bytes] = ..., tags: _Optional[_Iterable[_Union[ThreadTag, _Mapping]]] = ..., statuses: _Optional[_Iterable[_Union[ThreadStatus, str]]] = ..., created_from: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., created_before: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., active_from: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., active_before: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., archived: bool = ..., metadata_struct: _Optional[_Union[_struct_pb2.Struct, _Mapping]] = ...) -> None: ...

class ListThreadsRequest(_message.Message):
    __slots__ = ("filter", "page_size", "page_token")
    FILTER_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    filter: ThreadFilter
    page_size: int
    page_token: str
    def __init__(self, filter: _Optional[_Union[ThreadFilter, _Mapping]] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class ListThreadsResponse(_message.Message):
    __slots__ = ("threads", "next_page_token")
    THREADS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    threads: _containers.RepeatedCompositeFieldContainer[Thread]
    next_page_token: str
    def __init__(self, threads: _Optional[_Iterable[_Union[Thread, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class GetThreadRequest(_message.Message):
    __slots__ = ("thread_id",)
    THREAD_ID_FIELD_NUMBER: _ClassVar[int]
    thread_id: str
    def __init__(self, thread_id: _Optional[str] = ...) -> None: ...

class GetThreadResponse(_message.Message):
    __slots__ = ("thread",)
    THREAD_FIELD_NUMBER: _ClassVar[int]
    thread: Thread
    def __init__(self, thread: _Optional[_Union[Thread, _Mapping]] = ...) -> None: ...

class CountThreadsRequest(_message.Message):
    __slots__ = ("filter",)
    FILTER_FIELD_NUMBER: _ClassVar[int]
    filter: ThreadFilter
    def __init__(self, filter: _Optional[_Union[ThreadFilter, _Mapping]] = ...) -> None: ...

class CountThreadsResponse(_message.Message):
    __slots__ = ("count", "at_least")
    COUNT_FIELD_NUMBER: _ClassVar[int]
    AT_LEAST_FIELD_NUMBER: _ClassVar[int]
    count: int
    at_least: bool
    def __init__(self, count: _Optional[int] = ..., at_least: bool = ...) -> None: ...

class GetThreadTreeRequest(_message.Message):
    __slots__ = ("thread_id", "page_size", "page_token")
    THREAD_ID_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    thread_id: str
    page_size: int
    page_token: str
    def __init__(self, thread_id: _Optional[str] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class CheckpointNode(_message.Message):
    __slots__ = ("checkpoint_ns", "checkpoint_id", "parent_checkpoint_id", "created_at", "step", "source", "run_id", "writes", "interrupted", "failed")
    CHECKPOINT_NS_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINT_ID_FIELD_NUMBER: _ClassVar[int]
    PARENT_CHECKPOINT_ID_FIELD_NUMBER: _ClassVar[int]
    CREATED_AT_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    WRITES_FIELD_NUMBER: _ClassVar[int]
    INTERRUPTED_FIELD_NUMBER: _ClassVar[int]
    FAILED_FIELD_NUMBER: _ClassVar[int]
    checkpoint_ns: str
    checkpoint_id: str
    parent_checkpoint_id: str
    created_at: _timestamp_pb2.Timestamp
    step: str
    source: str
    run_id: str
    writes: int
    interrupted: bool
    failed: bool
    def __init__(self, checkpoint_ns: _Optional[str] = ..., checkpoint_id: _Optional[str] = ..., parent_checkpoint_id: _Optional[str] = ..., created_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., step: _Optional[str] = ..., source: _Optional[str] = ..., run_id: _Optional[str] = ..., writes: _Optional[int] = ..., interrupted: bool = ..., failed: bool = ...) -> None: ...

class GetThreadTreeResponse(_message.Message):
    __slots__ = ("nodes", "next_page_token")
    NODES_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    nodes: _containers.RepeatedCompositeFieldContainer[CheckpointNode]
    next_page_token: str
    def __init__(self, nodes: _Optional[_Iterable[_Union[CheckpointNode, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class ShowCheckpointRequest(_message.Message):
    __slots__ = ("thread_id", "checkpoint_ns", "checkpoint_id")
    THREAD_ID_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINT_NS_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINT_ID_FIELD_NUMBER: _ClassVar[int]
    thread_id: str
    checkpoint_ns: str
    checkpoint_id: str
    def __init__(self, thread_id: _Optional[str] = ..., checkpoint_ns: _Optional[str] = ..., checkpoint_id: _Optional[str] = ...) -> None: ...

class ShowCheckpointResponse(_message.Message):
    __slots__ = ("json",)
    JSON_FIELD_NUMBER: _ClassVar[int]
    json: str
    def __init__(self, json: _Optional[str] = ...) -> None: ...

class DiffCheckpointsRequest(_message.Message):
    __slots__ = ("thread_id", "checkpoint_ns", "before_checkpoint_id", "after_checkpoint_id")
    THREAD_ID_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINT_NS_FIELD_NUMBER: _ClassVar[int]
    BEFORE_CHECKPOINT_ID_FIELD_NUMBER: _ClassVar[int]
    AFTER_CHECKPOINT_ID_FIELD_NUMBER: _ClassVar[int]
    thread_id: str
    checkpoint_ns: str
    before_checkpoint_id: str
    after_checkpoint_id: str
    def __init__(self, thread_id: _Optional[str] = ..., checkpoint_ns: _Optional[str] = ..., before_checkpoint_id: _Optional[str] = ..., after_checkpoint_id: _Optional[str] = ...) -> None: ...

class DiffCheckpointsResponse(_message.Message):
    __slots__ = ("json",)
    JSON_FIELD_NUMBER: _ClassVar[int]
    json: str
    def __init__(self, json: _Optional[str] = ...) -> None: ...

class ArchiveThreadRequest(_message.Message):
    __slots__ = ("thread_id", "unarchive", "lease_token")
    THREAD_ID_FIELD_NUMBER: _ClassVar[int]
    UNARCHIVE_FIELD_NUMBER: _ClassVar[int]
    LEASE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    thread_id: str
    unarchive: bool
    lease_token: int
    def __init__(self, thread_id: _Optional[str] = ..., unarchive: bool = ..., lease_token: _Optional[int] = ...) -> None: ...

class ArchiveThreadResponse(_message.Message):
    __slots__ = ("changed",)
    CHANGED_FIELD_NUMBER: _ClassVar[int]
    changed: bool
    def __init__(self, changed: bool = ...) -> None: ...

class UpdateThreadRequest(_message.Message):
    __slots__ = ("thread_id", "set_tags", "remove_tags", "pinned", "ttl_seconds")
    THREAD_ID_FIELD_NUMBER: _ClassVar[int]
    SET_TAGS_FIELD_NUMBER: _ClassVar[int]
    REMOVE_TAGS_FIELD_NUMBER: _ClassVar[int]
    PINNED_FIELD_NUMBER: _ClassVar[int]
    TTL_SECONDS_FIELD_NUMBER: _ClassVar[int]
    thread_id: str
    set_tags: _containers.RepeatedCompositeFieldContainer[ThreadTag]
    remove_tags: _containers.RepeatedScalarFieldContainer[str]
    pinned: bool
    ttl_seconds: int
    def __init__(self, thread_id: _Optional[str] = ..., set_tags: _Optional[_Iterable[_Union[ThreadTag, _Mapping]]] = ..., remove_tags: _Optional[_Iterable[str]] = ..., pinned: bool = ..., ttl_seconds: _Optional[int] = ...) -> None: ...

class UpdateThreadResponse(_message.Message):
    __slots__ = ("thread",)
    THREAD_FIELD_NUMBER: _ClassVar[int]
    thread: Thread
    def __init__(self, thread: _Optional[_Union[Thread, _Mapping]] = ...) -> None: ...

class PurgeThreadsRequest(_message.Message):
    __slots__ = ("filter", "all_threads", "dry_run", "include_pinned", "page_token")
    FILTER_FIELD_NUMBER: _ClassVar[int]
    ALL_THREADS_FIELD_NUMBER: _ClassVar[int]
    DRY_RUN_FIELD_NUMBER: _ClassVar[int]
    INCLUDE_PINNED_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    filter: ThreadFilter
    all_threads: bool
    dry_run: bool
    include_pinned: bool
    page_token: str
    def __init__(self, filter: _Optional[_Union[ThreadFilter, _Mapping]] = ..., all_threads: bool = ..., dry_run: bool = ..., include_pinned: bool = ..., page_token: _Optional[str] = ...) -> None: ...

class PurgedRows(_message.Message):
    __slots__ = ("table", "rows")
    TABLE_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    table: str
    rows: int
    def __init__(self, table: _Optional[str] = ..., rows: _Optional[int] = ...) -> None: ...

class PurgeThreadsResponse(_message.Message):
    __slots__ = ("purged_threads", "purged_checkpoints", "purged_bytes", "pinned_threads", "rows", "next_page_token")
    PURGED_THREADS_FIELD_NUMBER: _ClassVar[int]
    PURGED_CHECKPOINTS_FIELD_NUMBER: _ClassVar[int]
    PURGED_BYTES_FIELD_NUMBER: _ClassVar[int]
    PINNED_THREADS_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    purged_threads: int
    purged_checkpoints: int
    purged_bytes: int
    pinned_threads: int
    rows: _containers.RepeatedCompositeFieldContainer[PurgedRows]
    next_page_token: str
    def __init__(self, purged_threads: _Optional[int] = ..., purged_checkpoints: _Optional[int] = ..., purged_bytes: _Optional[int] = ..., pinned_threads: _Optional[int] = ..., rows: _Optional[_Iterable[_Union[PurgedRows, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...
