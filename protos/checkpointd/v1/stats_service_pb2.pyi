import datetime

from checkpointd.v1 import tenant_service_pb2 as _tenant_service_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class GetStatsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ThreadCounts(_message.Message):
    __slots__ = ("idle", "running", "interrupted", "failed", "archived")
    IDLE_FIELD_NUMBER: _ClassVar[int]
    RUNNING_FIELD_NUMBER: _ClassVar[int]
    INTERRUPTED_FIELD_NUMBER: _ClassVar[int]
    FAILED_FIELD_NUMBER: _ClassVar[int]
    ARCHIVED_FIELD_NUMBER: _ClassVar[int]
    idle: int
    running: int
    interrupted: int
    failed: int
    archived: int
    def __init__(self, idle: _Optional[int] = ..., running: _Optional[int] = ..., interrupted: _Optional[int] = ..., failed: _Optional[int] = ..., archived: _Optional[int] = ...) -> None: ...

class ThreadSize(_message.Message):
    __slots__ = ("thread_id", "checkpoints", "bytes")
    THREAD_ID_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINTS_FIELD_NUMBER: _ClassVar[int]
    BYTES_FIELD_NUMBER: _ClassVar[int]
    thread_id: str
    checkpoints: int
    bytes: int
    def __init__(self, thread_id: _Optional[str] = ..., checkpoints: _Optional[int] = ..., bytes: _Optional[int] = ...) -> None: ...

class DayGrowth(_message.Message):
    __slots__ = ("day", "threads", "checkpoints", "bytes")
    DAY_FIELD_NUMBER: _ClassVar[int]
    THREADS_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINTS_FIELD_NUMBER: _ClassVar[int]
    BYTES_FIELD_NUMBER: _ClassVar[int]
    day: str
    threads: int
    checkpoints: int
    bytes: int
    def __init__(self, day: _Optional[str] = ..., threads: _Optional[int] = ..., checkpoints: _Optional[int] = ..., bytes: _Optional[int] = ...) -> None: ...

class GetStatsResponse(_message.Message):
    __slots__ = ("measured_at", "threads", "by_status", "pinned_threads", "checkpoints", "writes", "writes_is_estimate", "stored_bytes", "logical_bytes", "mean_session_seconds", "oldest_at", "largest", "days", "quotas")
    MEASURED_AT_FIELD_NUMBER: _ClassVar[int]
    THREADS_FIELD_NUMBER: _ClassVar[int]
    BY_STATUS_FIELD_NUMBER: _ClassVar[int]
    PINNED_THREADS_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINTS_FIELD_NUMBER: _ClassVar[int]
    WRITES_FIELD_NUMBER: _ClassVar[int]
    WRITES_IS_ESTIMATE_FIELD_NUMBER: _ClassVar[int]
    STORED_BYTES_FIELD_NUMBER: _ClassVar[int]
    LOGICAL_BYTES_FIELD_NUMBER: _ClassVar[int]
    MEAN_SESSION_SECONDS_FIELD_NUMBER: _ClassVar[int]
    OLDEST_AT_FIELD_NUMBER: _ClassVar[int]
    LARGEST_FIELD_NUMBER: _ClassVar[int]
    DAYS_FIELD_NUMBER: _ClassVar[int]
    QUOTAS_FIELD_NUMBER: _ClassVar[int]
    measured_at: _timestamp_pb2.Timestamp
    threads: int
    by_status: ThreadCounts
    pinned_threads: int
    checkpoints: int
    writes: int
    writes_is_estimate: bool
    stored_bytes: int
    logical_bytes: int
    mean_session_seconds: float
    oldest_at: _timestamp_pb2.Timestamp
    largest: _containers.RepeatedCompositeFieldContainer[ThreadSize]
    days: _containers.RepeatedCompositeFieldContainer[DayGrowth]
    quotas: _tenant_service_pb2.Quotas
    def __init__(self, measured_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., threads: _Optional[int] = ..., by_status: _Optional[_Union[ThreadCounts, _Mapping]] = ..., pinned_threads: _Optional[int] = ..., checkpoints: _Optional[int] = ..., writes: _Optional[int] = ..., writes_is_estimate: bool = ..., stored_bytes: _Optional[int] = ..., logical_bytes: _Optional[int] = ..., mean_session_seconds: _Optional[float] = ..., oldest_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., largest: _Optional[_Iterable[_Union[ThreadSize, _Mapping]]] = ..., days: _Optional[_Iterable[_Union[DayGrowth, _Mapping]]] = ..., quotas: _Optional[_Union[_tenant_service_pb2.Quotas, _Mapping]] = ...) -> None: ...
